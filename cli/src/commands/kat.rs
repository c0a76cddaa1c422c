//! `populate census --kat`: known answers, one by one or over many seeds.

use std::sync::atomic::Ordering;

use answers::answer::{Answer, Check};
use answers::error::AnswerError;
use answers::registry::{self, Context, Distribution, Entry, Extent, Postcards, Spread};
use eval::EvalError;
use models::{Base, Evaluator};
use recipes::BaseSpec;
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::args::CensusArguments;
use crate::device::{self, DeviceChoice};
use crate::error::JobError;
use crate::stage;
use crate::terminal::{Line, Paint};

/// Longest inputs, in characters, that are shown to people.
const SHOWN: usize = 160;

/// Lists the known answers, or computes one or all of them; one that does not hold is exit 1.
pub(crate) fn execute(
    name: &str,
    arguments: &CensusArguments,
    job: &Job<'_>,
) -> Result<Outcome, JobError> {
    if name == "list" {
        list(job);
        return Ok(Outcome::Done);
    }
    let entries: Vec<&Entry> = if name == "all" {
        registry::ALL.iter().collect()
    } else {
        vec![registry::find(name).map_err(refused)?]
    };
    let mut bench = Bench { arguments, loaded: None };
    let mut n_failed = 0;
    for entry in &entries {
        if job.stop.flag().load(Ordering::Relaxed) {
            return Err(EvalError::Stopped.into());
        }
        n_failed += usize::from(!bench.holds(entry, job)?);
    }
    if entries.len() > 1 {
        job.terminal.say(&format!("{} of {} hold", entries.len() - n_failed, entries.len()));
    }
    Ok(if n_failed == 0 { Outcome::Done } else { Outcome::GateFailed })
}

/// Prints names and summaries.
fn list(job: &Job<'_>) {
    let record = |entry: &Entry| {
        json!({
            "event": "known_answer_name", "name": entry.name, "summary": entry.summary,
            "stochastic": entry.stochastic(), "needs_base": entry.needs_base(),
        })
    };
    for entry in registry::ALL {
        job.give(&format!("{:<20} {}", entry.name, entry.summary), &record(entry));
    }
}

/// Computes answers; the base is loaded once, when the first of them asks for it.
struct Bench<'a> {
    arguments: &'a CensusArguments,
    loaded: Option<(Base, Evaluator)>,
}

impl Bench<'_> {
    /// Computes and prints one known answer; whether it holds.
    fn holds(&mut self, entry: &Entry, job: &Job<'_>) -> Result<bool, JobError> {
        let CensusArguments { seed, seeds, .. } = *self.arguments;
        if let Some(n_seeds) = seeds.filter(|_| entry.stochastic() && !entry.needs_base()) {
            let found = registry::distribution(entry.name, seed, n_seeds).map_err(refused)?;
            give_distribution(&found, job);
            return Ok(found.holds());
        }
        if entry.needs_base() && self.loaded.is_none() {
            self.loaded = Some(load(job)?);
        }
        let extent = if self.arguments.full { Extent::Full } else { Extent::Quick };
        let stop = job.stop.flag();
        let postcards = self.loaded.as_ref();
        let postcards =
            postcards.map(|(base, evaluator)| Postcards { base, evaluator, extent, stop });
        let answer = entry.run(&Context { seed, postcards }).map_err(refused)?;
        give_answer(&answer, job);
        Ok(answer.holds())
    }
}

/// The embedded base and its evaluator, on the processor unless the user names another device.
fn load(job: &Job<'_>) -> Result<(Base, Evaluator), JobError> {
    let files = stage::base_files(&BaseSpec::Postcards)?;
    let choice = match job.place.device {
        DeviceChoice::Auto | DeviceChoice::Cpu => DeviceChoice::Cpu,
        DeviceChoice::Cuda(index) => DeviceChoice::Cuda(index),
    };
    let device = device::choose(choice)?;
    let base = models::load(&files, &device.device)?;
    let evaluator = Evaluator::load(&files.evaluator_dir(), &device.device)?;
    Ok((base, evaluator))
}

/// An error of a known answer as one of a command.
fn refused(error: AnswerError) -> JobError {
    match error {
        AnswerError::Eval(error) => JobError::Eval(error),
        AnswerError::Unknown { .. } | AnswerError::NoBase { .. } | _ => {
            JobError::Usage { message: error.to_string(), hint: error.hint() }
        }
    }
}

fn give_answer(answer: &Answer, job: &Job<'_>) {
    if job.place.json {
        job.terminal.print(&event("known_answer", answer.to_json()).to_string());
        return;
    }
    job.terminal.print_line(&headline(answer.name, answer.holds().into(), ""));
    for check in &answer.checks {
        job.terminal.print_line(&line(check.holds().into(), &check_text(check)));
    }
    job.terminal.print(&format!("  inputs: {}", inputs_text(&answer.inputs)));
}

fn give_distribution(found: &Distribution, job: &Job<'_>) {
    if job.place.json {
        job.terminal.print(&event("known_answer_over_seeds", found.to_json()).to_string());
        return;
    }
    let note = format!(", {} seeds", found.seeds);
    job.terminal.print_line(&headline(found.name, found.holds().into(), &note));
    for spread in &found.spreads {
        job.terminal.print_line(&line(spread.holds().into(), &spread_text(spread)));
    }
}

/// A record with its kind.
fn event(kind: &str, mut record: Value) -> Value {
    if let Some(fields) = record.as_object_mut() {
        fields.insert("event".to_owned(), kind.into());
    }
    record
}

/// Whether an answer, or one of its checks, holds.
#[derive(Clone, Copy)]
enum Verdict {
    Holds,
    Fails,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::Fails }
    }
}

fn headline(name: &str, verdict: Verdict, note: &str) -> Line {
    let (paint, verdict) = match verdict {
        Verdict::Holds => (Paint::Good, "holds"),
        Verdict::Fails => (Paint::Error, "does not hold"),
    };
    vec![
        (Paint::Strong, name.to_owned()),
        (Paint::Plain, format!("{note}: ")),
        (paint, verdict.to_owned()),
    ]
}

fn line(verdict: Verdict, text: &str) -> Line {
    let (paint, word) = match verdict {
        Verdict::Holds => (Paint::Good, "ok"),
        Verdict::Fails => (Paint::Error, "fail"),
    };
    vec![(paint, format!("  {word:<5}")), (Paint::Plain, text.to_owned())]
}

/// What was found, and what is known.
fn check_text(check: &Check) -> String {
    let Check { what, found, expected, tolerance, low, high } = check;
    let known = match (expected, tolerance, low, high) {
        (Some(expected), Some(tolerance), _, _) if *tolerance <= 0.0 => {
            format!("expected {} exactly", figure(*expected))
        }
        (Some(expected), Some(tolerance), _, _) => {
            format!("expected {} ± {}", figure(*expected), figure(*tolerance))
        }
        (_, _, Some(low), Some(high)) => {
            format!("expected between {} and {}", figure(*low), figure(*high))
        }
        (_, _, Some(low), None) => format!("expected at least {}", figure(*low)),
        (_, _, None, Some(high)) => format!("expected at most {}", figure(*high)),
        (_, _, None, None) => "nothing is expected".to_owned(),
    };
    format!("{what}: {}, {known}", figure(*found))
}

fn spread_text(spread: &Spread) -> String {
    let expected =
        spread.expected.map_or_else(String::new, |known| format!(", expected {}", figure(known)));
    let z = spread.z.map_or_else(|| "none".to_owned(), |z| format!("{z:.1}"));
    format!(
        "{}: {} on average{expected}, deviation {}, z {z}, holds at {:.0} % of the seeds",
        spread.what,
        figure(spread.mean),
        figure(spread.deviation),
        100.0 * spread.held,
    )
}

/// A number with six digits behind the point, or with its exponent where those would show nothing.
fn figure(value: f64) -> String {
    let size = value.abs();
    if size > 0.0 && !(1e-5..1e7).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = format!("{value:.6}");
    let short = digits.trim_end_matches('0').trim_end_matches('.');
    short.to_owned()
}

fn inputs_text(inputs: &Value) -> String {
    let text = inputs.to_string();
    let n_characters = text.chars().count();
    if n_characters <= SHOWN {
        text
    } else {
        format!("{n_characters} characters, shown by `--json`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_what_was_found_and_what_is_known() {
        let text = |check: &Check| check_text(check);
        assert_eq!(
            text(&Check::new("Δ", -0.031_746_031, -0.031_746, 1e-6)),
            "Δ: -0.031746, expected -0.031746 ± 1.00e-6"
        );
        assert_eq!(text(&Check::new("pairs", 0.0, 0.0, 0.0)), "pairs: 0, expected 0 exactly");
        assert_eq!(text(&Check::at_least("p", 0.25, 1e-4)), "p: 0.25, expected at least 0.0001");
        assert_eq!(text(&Check::at_most("gap", -1.5, 0.03)), "gap: -1.5, expected at most 0.03");
        assert_eq!(
            text(&Check::between("share", 0.95, 0.92, 0.98)),
            "share: 0.95, expected between 0.92 and 0.98"
        );
    }

    #[test]
    fn figures_are_short_and_never_show_nothing() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (100.0, "100"),
            (-0.5, "-0.5"),
            (2.5e-9, "2.50e-9"),
            (3.0e8, "3.00e8"),
        ];
        for (value, expected) in cases {
            assert_eq!(figure(value), expected);
        }
        assert_eq!(figure(f64::NAN), "NaN");
    }

    #[test]
    fn long_inputs_are_left_to_programs() {
        assert_eq!(inputs_text(&json!({ "n": 3 })), r#"{"n":3}"#);
        let long: Vec<u32> = (0..100).collect();
        assert!(inputs_text(&json!(long)).ends_with("shown by `--json`"));
    }

    #[test]
    fn an_unknown_name_is_a_wrong_use_with_a_suggestion() {
        let error = refused(registry::find("quantfy").unwrap_err());
        assert_eq!(error.exit(), crate::exit::Exit::Usage);
        assert_eq!(error.hint().as_deref(), Some("did you mean `quantify`?"));
        assert!(error.to_string().contains("`quantfy`"), "{error}");
    }

    #[test]
    fn a_distribution_says_where_its_mean_lies() {
        let found = registry::distribution("fair", 1, 3).unwrap();
        let text = spread_text(&found.spreads[0]);
        assert!(text.starts_with("deviation of 4 throws: 0.1875 on average, expected"), "{text}");
        assert!(text.ends_with("holds at 100 % of the seeds"), "{text}");
    }

    #[test]
    fn records_name_their_kind() {
        let answer = registry::run("detector", 1).unwrap();
        let record = event("known_answer", answer.to_json());
        assert_eq!(record["event"], "known_answer");
        assert_eq!(record["name"], "detector");
        assert_eq!(record["holds"], true);
        assert!(record["checks"].as_array().is_some_and(|checks| checks.len() == 5));
        assert!(record["inputs"].is_object());
    }
}
