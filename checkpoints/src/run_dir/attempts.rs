//! Records of who worked on a run, how it lives and how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One process that works on a run, as it describes itself. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Four random hex digits; they distinguish checkpoints of one step made by two attempts.
    pub id: String,
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// When the process started.
    pub started_at: f64,
    /// Device in words.
    pub device: String,
    /// Scheduler, job id, restart count, as far as known.
    pub engine: BTreeMap<String, String>,
    /// What the bits of a result depend on: binary, SIMD level, threads and so on.
    pub numerics: BTreeMap<String, String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// Last finished step.
    pub step: u64,
    /// Exit code of the process.
    pub exit_code: u8,
    /// Why it ended, in words: `finished`, `SIGTERM`, `disk full` …
    pub reason: String,
    /// Whether it kept work that no step counts, such as class pictures.
    pub prepared: bool,
    /// When it ended.
    pub ended_at: f64,
    /// Seconds from the signal to the end, if a signal ended it.
    pub seconds_from_signal: Option<f64>,
}

/// A line of `attempts.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AttemptRecord {
    /// An attempt begins.
    Start {
        /// Number of the attempt, from 1.
        number: u64,
        /// Step of the state from which it begins.
        from_step: u64,
        /// Who it is.
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// An attempt ended in an orderly way.
    End {
        /// Number of the attempt, from 1.
        number: u64,
        /// Its four hex digits.
        id: String,
        /// How.
        #[serde(flatten)]
        end: AttemptEnd,
    },
}

impl AttemptRecord {
    pub(super) fn start(attempt: &Attempt, number: u64, from_step: u64) -> Self {
        Self::Start { number, from_step, attempt: attempt.clone() }
    }

    pub(super) fn end(attempt: &Attempt, number: u64, end: &AttemptEnd) -> Self {
        Self::End { number, id: attempt.id.clone(), end: end.clone() }
    }
}

/// Sign of life, replaced every few seconds. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Four hex digits of the attempt.
    pub attempt: String,
    /// `load`, `compile`, `cache`, `train`, `census` …
    pub phase: String,
    /// Last finished step.
    pub step: u64,
    /// Its loss.
    pub loss: Option<f64>,
    /// Recent throughput.
    pub images_per_second: Option<f64>,
    /// Step of the last committed checkpoint.
    pub last_checkpoint: Option<u64>,
    /// Energy so far, as in the report.
    pub energy: Option<Value>,
    /// When this was written.
    pub written_at: f64,
    /// When the loop last moved. A timer must not set it: a loop that hangs has to look dead.
    pub progress_at: f64,
}

/// `DONE.json`: the run needs no further work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// 0, or 1 if a gate failed; started again, the run exits with it.
    pub exit_code: u8,
    /// Last step.
    pub step: u64,
    /// The sentence to print, now and when the run is started again.
    pub result: String,
    /// Figures that a caller wants to repeat.
    pub figures: BTreeMap<String, Value>,
}

/// How many of the latest attempts in a row, killed or stopped, began at `from_step` and kept nothing since: they made no
/// progress.
pub(super) fn n_stalled(records: &[AttemptRecord], from_step: u64) -> usize {
    let mut n_stalled = 0;
    for record in records.iter().rev() {
        match record {
            AttemptRecord::Start { from_step: step, .. } if *step == from_step => n_stalled += 1,
            AttemptRecord::End { end, .. } if !end.prepared => {}
            AttemptRecord::Start { .. } | AttemptRecord::End { .. } => break,
        }
    }
    n_stalled
}
