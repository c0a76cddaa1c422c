//! What a run has cost so far, over all its attempts: energy and seconds by kind of work.
//!
//! The last whole line of `energy.jsonl` holds the totals; what a lost machine had not written yet
//! is lost with it, at most half a minute.

use std::collections::BTreeMap;

use checkpoints::CheckpointError;
use checkpoints::energy::{EnergyLedger, EnergyTotals, Phase};
use checkpoints::run_dir::{Journal, RunDir, RunFolder};
use serde::{Deserialize, Serialize};

use crate::environment::{self, Stopwatch};
use crate::sensors;

const JOURNAL: &str = "energy.jsonl";
/// Seconds between two readings at most.
const INTERVAL_SECS: f64 = 30.0;

/// Totals of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Spent {
    /// Unix seconds of the record.
    pub(crate) at: f64,
    /// Energy by device and phase.
    pub(crate) energy: EnergyTotals,
    /// Seconds by phase.
    pub(crate) seconds: BTreeMap<Phase, f64>,
}

impl Spent {
    /// What earlier attempts recorded.
    pub(crate) fn read(folder: &RunFolder) -> Result<Self, CheckpointError> {
        let records = folder.journal(JOURNAL)?;
        let known =
            records.into_iter().rev().find_map(|record| serde_json::from_value(record).ok());
        Ok(known.unwrap_or_default())
    }
}

/// The name of a phase in records and reports.
pub(crate) const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Load => "load",
        Phase::Cache => "cache",
        Phase::Train => "train",
        Phase::Sample => "sample",
        Phase::Census => "census",
        Phase::Report => "report",
    }
}

/// Reads the counters while a run works.
#[derive(Debug)]
pub(crate) struct Spending {
    ledger: EnergyLedger,
    seconds: BTreeMap<Phase, f64>,
    journal: Journal,
    phase: Phase,
    clock: Stopwatch,
    read_at_secs: f64,
}

impl Spending {
    /// Goes on with what earlier attempts recorded; the present phase is loading.
    ///
    /// # Errors
    ///
    /// The journal cannot be read or written.
    pub(crate) fn begin(run: &RunDir, cuda_index: Option<usize>) -> Result<Self, CheckpointError> {
        let before = Spent::read(run.folder())?;
        let clock = Stopwatch::start();
        Ok(Self {
            ledger: EnergyLedger::begin(before.energy, sensors::open(cuda_index), clock.seconds()),
            seconds: before.seconds,
            journal: run.journal(JOURNAL)?,
            phase: Phase::Load,
            clock,
            read_at_secs: clock.seconds(),
        })
    }

    /// Ends the present phase and begins another one.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn enter(&mut self, phase: Phase) -> Result<(), CheckpointError> {
        self.read()?;
        self.phase = phase;
        Ok(())
    }

    /// Reads the counters if the last reading is half a minute old.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn tick(&mut self) -> Result<(), CheckpointError> {
        if self.clock.seconds() - self.read_at_secs >= INTERVAL_SECS { self.read() } else { Ok(()) }
    }

    /// Totals so far.
    pub(crate) fn spent(&self) -> Spent {
        Spent {
            at: environment::unix_seconds(),
            energy: self.ledger.totals().clone(),
            seconds: self.seconds.clone(),
        }
    }

    fn read(&mut self) -> Result<(), CheckpointError> {
        let now_secs = self.clock.seconds();
        self.ledger.sample(self.phase, now_secs);
        *self.seconds.entry(self.phase).or_insert(0.0) += now_secs - self.read_at_secs;
        self.read_at_secs = now_secs;
        let spent = self.spent();
        self.journal.append(&spent)
    }
}
