//! `populate doctor`: can this machine do the work, and is the embedded base what it should be?

mod base;
mod gpu;
mod machine;
mod storage;

use checkpoints::run_dir::RunFolder;
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::args::DoctorArguments;
use crate::environment;
use crate::error::JobError;
use crate::exit::Exit;
use crate::terminal::Paint;

/// Phases in which nothing moves for long: kernels are compiled, pictures encoded.
const SLOW_PHASES: [&str; 3] = ["load", "compile", "cache"];
/// How much older a sign of progress may be in such a phase.
const SLOW_FACTOR: f64 = 10.0;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// Works, but less well than it could, or is not there and not needed.
    Warn,
    /// Work will fail.
    Fail,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    const fn paint(self) -> Paint {
        match self {
            Self::Good => Paint::Good,
            Self::Warn => Paint::Warning,
            Self::Fail => Paint::Error,
        }
    }
}

/// One line of the doctor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// Kind of check, such as `storage`.
    group: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    fix: Option<String>,
}

impl Check {
    fn good(group: &'static str, found: impl Into<String>) -> Self {
        Self { group, verdict: Verdict::Good, found: found.into(), fix: None }
    }

    fn warn(group: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { group, verdict: Verdict::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn fail(group: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { group, verdict: Verdict::Fail, found: found.into(), fix: Some(fix.into()) }
    }

    fn line(&self) -> Vec<(Paint, String)> {
        let mut line = vec![
            (self.verdict.paint(), format!("{:<5}", self.verdict.word())),
            (Paint::Plain, format!("{:<9} {}", self.group, self.found)),
        ];
        line.extend(self.fix.as_ref().map(|fix| (Paint::Hint, format!("; {fix}"))));
        line
    }

    fn record(&self) -> Value {
        json!({
            "event": "check", "group": self.group, "verdict": self.verdict.word(),
            "found": self.found, "fix": self.fix,
        })
    }
}

/// Checks the machine; the liveness of one run; or the figures of the embedded base.
pub(crate) fn execute(arguments: &DoctorArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    if let Some(run) = &arguments.heartbeat {
        #[expect(clippy::cast_precision_loss, reason = "an age in seconds")]
        let max_age_secs = arguments.max_age as f64;
        return heartbeat(&RunFolder::open(run)?, max_age_secs, job);
    }
    if arguments.base {
        let (folder, card) = (&arguments.folder, &arguments.model_card);
        return base::measure(folder.as_deref(), card.as_deref(), job);
    }
    let mut checks = machine::processor();
    checks.extend(gpu::checks(job));
    checks.extend(gpu::sensors());
    checks.extend(storage::checks(&job.place.runs));
    checks.extend(machine::job());
    checks.extend(storage::models());
    Ok(tell(&checks, job))
}

fn tell(checks: &[Check], job: &Job<'_>) -> Outcome {
    for check in checks {
        if job.place.json {
            job.terminal.print(&check.record().to_string());
        } else {
            job.terminal.print_line(&check.line());
        }
    }
    if checks.iter().any(|check| check.verdict == Verdict::Fail) {
        Outcome::Failing(Exit::Misconfigured)
    } else {
        Outcome::Done
    }
}

/// Whether a run still moves; a loop that hangs must look dead.
fn heartbeat(folder: &RunFolder, max_age_secs: f64, job: &Job<'_>) -> Result<Outcome, JobError> {
    if let Some(done) = folder.done()? {
        job.give(&done.result, &json!({ "event": "done_before", "result": done.result }));
        return Ok(Outcome::Done);
    }
    let dead = |reason: String| JobError::NotAlive { run: folder.path().to_owned(), reason };
    let Some(heartbeat) = folder.heartbeat()? else {
        return Err(dead("expected `heartbeat.json`, found none".to_owned()));
    };
    let slow = SLOW_PHASES.contains(&heartbeat.phase.as_str());
    let limit = max_age_secs * if slow { SLOW_FACTOR } else { 1.0 };
    let age = (environment::unix_seconds() - heartbeat.progress_at).max(0.0);
    if age > limit {
        let phase = &heartbeat.phase;
        return Err(dead(format!(
            "last progress {age:.0} s ago in phase `{phase}`, expected at most {limit:.0} s"
        )));
    }
    let text = format!("alive: step {}, {} phase, {age:.0} s ago", heartbeat.step, heartbeat.phase);
    let record = json!({
        "event": "alive", "step": heartbeat.step, "phase": heartbeat.phase, "age_secs": age,
    });
    job.give(&text, &record);
    Ok(Outcome::Done)
}
