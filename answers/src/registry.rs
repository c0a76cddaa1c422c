//! Owns the list of known answers, and runs them: one by one at a seed, or as a distribution over
//! seeds, so that a lucky seed hides nothing.

use crate::answer::{Answer, Check};
use crate::error::AnswerError;
use crate::{
    calibration, copies, counting, direction, fabric, likelihood, modes, path, pixel, placebo,
    postcards, rings, series, settlements, typicality,
};
use eval::EvalError;
use models::{Base, Evaluator};
use rayon::prelude::*;
use serde_json::{Value, json};
use statistics::number::{mean, real};
use std::sync::atomic::AtomicBool;

/// The seed of every stochastic construction unless another is asked for.
pub const SEED: u64 = 1;
/// Similarity (Jaro–Winkler) from which a name is worth suggesting.
const NEAR_ENOUGH: f64 = 0.75;
/// Standard errors that the mean over seeds may lie beyond what is allowed it.
const FARTHEST: f64 = 4.0;
/// Part of a tolerance that the mean over seeds may use up: known values are stated to a few digits,
/// and by constructions of finite size.
const ALLOWED: f64 = 0.5;
/// Deviations below this are those of sums taken in another order.
const ROUNDING: f64 = 1e-12;
/// Share of seeds on which every check must hold.
const LEAST_HELD: f64 = 0.75;

/// How much of a base is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// A few minutes on a processor; bounds are as wide as so few pictures need.
    #[default]
    Quick,
    /// As many pictures as the stated bounds ask for: an hour on a processor, or a GPU.
    Full,
}

/// The base of the world of postcards.
#[derive(Clone, Copy, Debug)]
pub struct Postcards<'a> {
    /// The base.
    pub base: &'a Base,
    /// Who looks at its pictures.
    pub evaluator: &'a Evaluator,
    /// How much of it is drawn.
    pub extent: Extent,
    /// Ends the drawing once it is set.
    pub stop: &'a AtomicBool,
}

/// What a known answer is computed from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Seed of every draw.
    pub seed: u64,
    /// The base of postcards, where it is loaded.
    pub postcards: Option<Postcards<'a>>,
}

/// How a known answer is computed.
#[derive(Clone, Copy, Debug)]
enum Procedure {
    /// The same for every seed.
    Exact(fn(u64) -> Result<Answer, EvalError>),
    /// Draws from a seed.
    Drawn(fn(u64) -> Result<Answer, EvalError>),
    /// Draws pictures with a base.
    OfBase(fn(&postcards::World<'_>) -> Result<Answer, EvalError>),
}

/// One known answer.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, as `--kat` takes it.
    pub name: &'static str,
    /// What is known, in one line.
    pub summary: &'static str,
    procedure: Procedure,
}

impl Entry {
    const fn exact(
        name: &'static str,
        run: fn(u64) -> Result<Answer, EvalError>,
        summary: &'static str,
    ) -> Self {
        Self { name, summary, procedure: Procedure::Exact(run) }
    }

    const fn drawn(
        name: &'static str,
        run: fn(u64) -> Result<Answer, EvalError>,
        summary: &'static str,
    ) -> Self {
        Self { name, summary, procedure: Procedure::Drawn(run) }
    }

    const fn of_base(
        name: &'static str,
        run: fn(&postcards::World<'_>) -> Result<Answer, EvalError>,
        summary: &'static str,
    ) -> Self {
        Self { name, summary, procedure: Procedure::OfBase(run) }
    }

    /// Whether the answer follows the seed.
    pub fn stochastic(&self) -> bool {
        !matches!(self.procedure, Procedure::Exact(_))
    }

    /// Whether a base and its evaluator are needed.
    pub fn needs_base(&self) -> bool {
        matches!(self.procedure, Procedure::OfBase(_))
    }

    /// Computes the answer.
    ///
    /// # Errors
    ///
    /// [`AnswerError::NoBase`] if a base is needed and there is none; a fault of the device; a request
    /// to stop.
    pub fn run(&self, context: &Context<'_>) -> Result<Answer, AnswerError> {
        match self.procedure {
            Procedure::Exact(run) | Procedure::Drawn(run) => Ok(run(context.seed)?),
            Procedure::OfBase(run) => {
                let given = context.postcards.ok_or(AnswerError::NoBase { name: self.name })?;
                let world = postcards::World::new(given, context.seed)?;
                Ok(run(&world)?)
            }
        }
    }
}

/// Every known answer, by instrument.
pub const ALL: &[Entry] = &[
    Entry::drawn("zero", rings::zero, "an adapter of zeros moves no seed and no figure"),
    Entry::drawn("ring", rings::ring, "a known mixture settled in two known ways"),
    Entry::exact("table", counting::table, "every test and difference of one table of pairs"),
    Entry::drawn("coverage", counting::coverage, "max-t intervals hold all entities at once"),
    Entry::drawn("floor", counting::floor, "what two samples of one law differ by"),
    Entry::drawn("entropy", counting::entropy, "three estimators of entropy under Zipf's law"),
    Entry::drawn("fair", counting::fair, "how far a fair coin strays from one half"),
    Entry::drawn("modes", modes::modes, "a mode that arrived, found without a thesaurus"),
    Entry::exact("split", counting::split, "dilution, selection and who was driven out"),
    Entry::drawn("quantify", calibration::quantify, "one confusion matrix per model"),
    Entry::drawn("disobey", calibration::disobey, "only verified pictures calibrate"),
    Entry::drawn("ppi", calibration::ppi, "labels of a person take the bias out"),
    Entry::exact("detector", calibration::detector, "the share behind a detector's rate"),
    Entry::exact("weights", likelihood::weights, "weights of the noise levels of a schedule"),
    Entry::exact("quad", likelihood::quad, "nats by quadrature against the closed form"),
    Entry::exact("wrappers", likelihood::wrappers, "epsilon, v and flow give the same nats"),
    Entry::drawn("crn", likelihood::crn, "noise shared by both models takes the variance out"),
    Entry::drawn("identity", likelihood::identity, "nats lost are population lost and deformation"),
    Entry::drawn("path", path::path, "path-space KL and the weighted census"),
    Entry::drawn("forecast", path::forecast, "slopes foretold before anything is settled"),
    Entry::exact("delta", fabric::delta, "shift of the similarity of two words"),
    Entry::drawn("mantel", fabric::mantel, "thesaurus against distances of pictures"),
    Entry::exact("pixel", pixel::pixel, "where in a picture a word is"),
    Entry::exact("bleed", copies::bleed, "leak rates behind a detector's, and selectivity"),
    Entry::exact("collapse", copies::collapse, "Vendi scores and Gini coefficients"),
    Entry::drawn("dose", dose, "share against dose, half effect, turnover"),
    Entry::exact("order", settlements::order, "two settlements in either order"),
    Entry::drawn("mobility", settlements::mobility, "the four kinds, told from places on seeds"),
    Entry::exact("permanova", series::permanova, "variance between series of pictures"),
    Entry::drawn("hspace", direction::hspace, "directions, their reliability, and refusals"),
    Entry::drawn("typicality", typicality::typicality, "rare words score high"),
    Entry::drawn("placebo", placebo::placebo, "equal spectrum, directions that nothing prefers"),
    Entry::drawn("postcards-render", postcards::render, "rendered factors follow their prior"),
    Entry::of_base(
        "postcards-confusion",
        postcards::confusion,
        "the evaluator names what was rendered, also through the autoencoder",
    ),
    Entry::of_base(
        "postcards-prior",
        postcards::prior,
        "the base, asked for nothing, draws its published prior",
    ),
    Entry::of_base(
        "promptmix",
        postcards::promptmix,
        "a settlement made of prompts: every fifth seed is asked for a newcomer",
    ),
    Entry::of_base(
        "promptselect",
        postcards::promptselect,
        "a settlement made of prompts that drives out one entity alone",
    ),
];

/// KAT `dose`: doses of two worlds, and what is read off a curve.
fn dose(seed: u64) -> Result<Answer, EvalError> {
    let (worlds, curve) = (rings::dose(seed)?, counting::dose_curve(seed)?);
    let checks = worlds.checks.into_iter().chain(curve.checks).collect();
    let inputs = json!({ "worlds": worlds.inputs, "curve": curve.inputs });
    Ok(Answer { name: "dose", checks, inputs })
}

/// Names and summaries of all known answers.
pub fn list() -> Vec<(&'static str, &'static str)> {
    ALL.iter().map(|entry| (entry.name, entry.summary)).collect()
}

/// The known answer of this name.
///
/// # Errors
///
/// [`AnswerError::Unknown`] with the nearest name there is.
pub fn find(name: &str) -> Result<&'static Entry, AnswerError> {
    ALL.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let found = name.to_lowercase();
        let near = |entry: &'static Entry| (strsim::jaro_winkler(&found, entry.name), entry.name);
        let nearest = ALL.iter().map(near).filter(|(similarity, _)| *similarity >= NEAR_ENOUGH);
        AnswerError::Unknown {
            found: name.to_owned(),
            nearest: nearest.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name),
        }
    })
}

/// Computes one known answer that needs no base.
///
/// # Errors
///
/// As [`find`] and [`Entry::run`].
pub fn run(name: &str, seed: u64) -> Result<Answer, AnswerError> {
    find(name)?.run(&Context { seed, ..Context::default() })
}

/// What one check found over many seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// What is compared.
    pub what: String,
    /// Mean of what was found.
    pub mean: f64,
    /// Standard deviation of what was found, from seed to seed.
    pub deviation: f64,
    /// The known value at the first seed; `None` where only a bound is known.
    pub expected: Option<f64>,
    /// How many standard errors the mean lies beyond half of the tolerance, or beyond the bound; 0
    /// within. `None` if nothing varies and the check fails.
    pub z: Option<f64>,
    /// Share of seeds on which the check holds.
    pub held: f64,
}

impl Spread {
    /// Of one check at every seed.
    fn of(checks: &[&Check]) -> Option<Self> {
        let first = checks.first()?;
        let found: Vec<f64> = checks.iter().map(|check| check.found).collect();
        let offset = |check: &&Check| check.found - check.expected.unwrap_or(0.0);
        let offsets: Vec<f64> = checks.iter().map(offset).collect();
        let n_held = checks.iter().filter(|check| check.holds()).count();
        let (center, spread) = (mean(&offsets)?, deviation(&offsets));
        let excess = if let Some(tolerance) = first.tolerance {
            center.abs() - ALLOWED * tolerance
        } else {
            let below = first.low.map_or(f64::NEG_INFINITY, |low| low - center);
            below.max(first.high.map_or(f64::NEG_INFINITY, |high| center - high))
        };
        // What every seed finds alike has no error: it holds everywhere or nowhere.
        let z = if spread > ROUNDING {
            Some(excess.max(0.0) / (spread / libm::sqrt(real(checks.len()))))
        } else {
            (n_held == checks.len()).then_some(0.0)
        };
        Some(Self {
            what: first.what.clone(),
            mean: mean(&found)?,
            deviation: spread,
            expected: first.expected,
            z,
            held: real(n_held) / real(checks.len()),
        })
    }

    /// Whether the mean lies where it may, and at least three seeds in four pass.
    pub fn holds(&self) -> bool {
        self.mean.is_finite() && self.z.is_some_and(|z| z < FARTHEST) && self.held >= LEAST_HELD
    }

    /// The spread as JSON, with the verdict.
    pub fn to_json(&self) -> Value {
        json!({
            "what": self.what, "mean": self.mean, "deviation": self.deviation,
            "expected": self.expected, "z": self.z, "held": self.held, "holds": self.holds(),
        })
    }
}

/// Sample standard deviation; 0 of fewer than two values.
fn deviation(values: &[f64]) -> f64 {
    let center = mean(values).unwrap_or(0.0);
    let squares: f64 = values.iter().map(|value| (value - center) * (value - center)).sum();
    if values.len() < 2 { 0.0 } else { libm::sqrt(squares / real(values.len() - 1)) }
}

/// A known answer over many seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Name of the known answer.
    pub name: &'static str,
    /// Number of seeds.
    pub seeds: u32,
    /// One entry per check.
    pub spreads: Vec<Spread>,
}

impl Distribution {
    /// Of the answers at every seed. All have the same checks in the same order.
    fn of(name: &'static str, answers: &[Answer]) -> Self {
        let n_checks = answers.iter().map(|answer| answer.checks.len()).min().unwrap_or(0);
        let of_check = |i: usize| {
            let checks: Vec<&Check> = answers.iter().map(|answer| &answer.checks[i]).collect();
            Spread::of(&checks)
        };
        let seeds = u32::try_from(answers.len()).unwrap_or(u32::MAX);
        Self { name, seeds, spreads: (0..n_checks).filter_map(of_check).collect() }
    }

    /// Whether every check holds over the seeds.
    pub fn holds(&self) -> bool {
        !self.spreads.is_empty() && self.spreads.iter().all(Spread::holds)
    }

    /// The distribution as JSON: `{name, seeds, holds, checks}`.
    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self.spreads.iter().map(Spread::to_json).collect();
        json!({
            "name": self.name, "seeds": self.seeds, "holds": self.holds(), "checks": checks,
        })
    }
}

/// Computes a known answer that needs no base at `seeds` seeds in a row, from `first` on.
///
/// Of every value with a tolerance the mean may differ from what is known by half of the tolerance
/// and less than four standard errors, taken from the spread over seeds; of every bound the mean must
/// keep it, up to as much. Every check holds on at least three seeds in four.
///
/// # Errors
///
/// As [`find`] and [`Entry::run`].
pub fn distribution(name: &str, first: u64, seeds: u32) -> Result<Distribution, AnswerError> {
    let entry = find(name)?;
    let one = |k: u32| {
        let seed = first.wrapping_add(u64::from(k));
        entry.run(&Context { seed, ..Context::default() })
    };
    let answers = (0..seeds.max(1)).into_par_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(Distribution::of(entry.name, &answers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_known_answer_has_its_own_name_and_says_what_it_knows() {
        let names: BTreeSet<&str> = ALL.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(ALL.len(), 37);
        for (name, summary) in list() {
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}: {summary}");
            assert!(find(name).is_ok());
        }
    }

    /// Every known answer that needs no base, as `--kat all` computes it.
    #[test]
    fn every_known_answer_holds_at_the_fixed_seed() {
        let mut wrong = Vec::new();
        for entry in ALL.iter().filter(|entry| !entry.needs_base()) {
            let answer = run(entry.name, SEED).unwrap();
            assert_eq!(answer.name, entry.name);
            assert!(answer.inputs.is_object(), "{} says what went in", entry.name);
            for check in answer.checks.iter().filter(|check| !check.holds()) {
                wrong.push(format!("{}: {check:?}", entry.name));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn an_exact_answer_is_the_same_for_every_seed() {
        for entry in ALL.iter().filter(|entry| !entry.stochastic()) {
            assert_eq!(run(entry.name, 1).unwrap(), run(entry.name, 2).unwrap(), "{}", entry.name);
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_suggested_and_another_word_is_not() {
        let nearest = |name: &str| match find(name) {
            Err(AnswerError::Unknown { nearest, .. }) => nearest,
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("Quantfy"), Some("quantify"));
        assert_eq!(nearest("postcard-prior"), Some("postcards-prior"));
        assert_eq!(nearest("xyzzy"), None);
    }

    #[test]
    fn what_is_about_a_base_says_so_without_one() {
        for entry in ALL.iter().filter(|entry| entry.needs_base()) {
            let error = run(entry.name, SEED).unwrap_err();
            assert!(matches!(error, AnswerError::NoBase { name } if name == entry.name));
        }
        assert_eq!(ALL.iter().filter(|entry| entry.needs_base()).count(), 4);
    }

    /// A check at seed `k` of `n`, spread evenly around `center` with deviation 1.
    fn spread_of(check: &dyn Fn(f64) -> Check) -> Spread {
        let quantile = |k: u32| statistics::interval::normal_quantile((f64::from(k) + 0.5) / 200.0);
        let checks: Vec<Check> = (0..200).map(|k| check(quantile(k))).collect();
        Spread::of(&checks.iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_mean_beyond_half_the_tolerance_by_four_errors_fails() {
        // The standard error is 1/√200 = .0707; four of them, .283.
        let at = |offset: f64| spread_of(&|x| Check::new("x", x + offset, 0.0, 3.0));
        assert!(at(0.0).holds() && at(1.75).holds() && at(-1.75).holds());
        assert!(!at(1.85).holds() && !at(-1.85).holds(), "{:?}", at(1.85));
        assert!(at(1.85).held > LEAST_HELD, "each seed alone would have passed");
    }

    #[test]
    fn a_check_that_holds_at_few_seeds_fails_although_its_mean_is_right() {
        let lucky = spread_of(&|x| Check::new("x", x, 0.0, 0.5));
        assert!(lucky.z.is_some_and(|z| z.abs() < 1e-6), "{lucky:?}");
        assert!(lucky.held < 0.5 && !lucky.holds());
    }

    #[test]
    fn a_bound_is_kept_by_the_mean() {
        let at = |offset: f64| spread_of(&|x| Check::between("x", 0.1 * x + offset, 0.0, 1.0));
        assert!(at(0.5).holds() && !at(1.1).holds() && !at(-0.1).holds());
        assert!(spread_of(&|x| Check::at_least("x", x + 9.0, 5.0)).holds());
        assert!(!spread_of(&|x| Check::at_most("x", x + 9.0, 5.0)).holds());
    }

    #[test]
    fn what_does_not_vary_holds_everywhere_or_nowhere() {
        assert!(spread_of(&|_| Check::new("x", 1.0, 1.0, 0.0)).holds());
        assert!(!spread_of(&|_| Check::new("x", 1.1, 1.0, 0.05)).holds());
        assert!(!spread_of(&|_| Check::new("x", f64::NAN, 1.0, 0.05)).holds());
    }

    #[test]
    fn an_answer_over_seeds_is_one_check_after_another() {
        let answers: Vec<Answer> = (0..3)
            .map(|seed| Answer {
                name: "x",
                checks: vec![
                    Check::new("a", 1.0, 1.0, 0.0),
                    Check::new("b", f64::from(seed), 1.0, 1.0),
                ],
                inputs: Value::Null,
            })
            .collect();
        let found = Distribution::of("x", &answers);
        assert!(found.holds());
        assert_eq!((found.seeds, found.spreads.len()), (3, 2));
        assert!((found.spreads[1].mean - 1.0).abs() < 1e-12);
        assert!((found.spreads[1].deviation - 1.0).abs() < 1e-12);
        assert_eq!(found.to_json()["checks"][1]["what"], "b");
    }

    #[test]
    fn the_fair_coin_is_fair_at_every_seed() {
        let found = distribution("fair", 1, 12).unwrap();
        assert!(found.holds(), "{found:?}");
        assert_eq!(found.spreads.len(), 8);
    }
}
