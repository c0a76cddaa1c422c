//! One file per verb, and what they all get.

mod bench;
mod census;
mod compare;
mod completions;
mod convert;
mod doctor;
mod extract;
mod generate;
mod inspect;
mod kat;
mod merge;
mod plan;
mod pretrain;
mod report;
mod resize;
mod resume;
mod run;
mod schema;
mod series;
mod sham;
mod thesaurus;
mod train;
mod validate;

use serde_json::Value;

use crate::args::{Arguments, Place, Verb};
use crate::device::{self, ChosenDevice};
use crate::error::JobError;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::signals::StopRequests;
use crate::terminal::Terminal;

/// What a verb works with beside its own arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    /// Where and how.
    pub(crate) place: &'a Place,
    /// Where results and messages go.
    pub(crate) terminal: &'a Terminal,
    /// Requests to stop.
    pub(crate) stop: &'a StopRequests,
}

impl<'a> Job<'a> {
    /// The device that the user asked for.
    pub(crate) fn device(&self) -> Result<ChosenDevice, JobError> {
        Ok(device::choose(self.place.device)?)
    }

    /// A display for long work.
    pub(crate) fn progress(&self) -> Progress<'a> {
        if self.place.json {
            Progress::for_programs(self.terminal)
        } else {
            Progress::for_people(self.terminal)
        }
    }

    /// Gives a result: as text for people, as one line of JSON for programs.
    pub(crate) fn give(&self, text: &str, record: &Value) {
        if self.place.json {
            self.terminal.print(&record.to_string());
        } else {
            self.terminal.print(text);
        }
    }
}

/// How a verb ended, if it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done.
    Done,
    /// Done, but a gate of the recipe failed.
    GateFailed,
    /// The run was finished before; its recorded exit code.
    Recorded(u8),
    /// Done, and what was found out is bad news.
    Failing(Exit),
    /// Stopped with its state committed.
    Requeue {
        /// The command that goes on.
        go_on: String,
    },
}

/// Does what the arguments say.
pub(crate) fn execute(
    arguments: &Arguments,
    terminal: &Terminal,
    stop: &StopRequests,
) -> Result<Outcome, JobError> {
    let job = Job { place: &arguments.place, terminal, stop };
    match &arguments.verb {
        Verb::Validate(arguments) => validate::execute(arguments, &job),
        Verb::Plan(arguments) => plan::execute(arguments, &job),
        Verb::Train(arguments) => train::execute(arguments, &job),
        Verb::Resume(arguments) => resume::execute(arguments, &job),
        Verb::Census(arguments) => census::execute(arguments, &job),
        Verb::Report(arguments) => report::execute(arguments, &job),
        Verb::Run(arguments) => run::execute(arguments, &job),
        Verb::Sham(arguments) => sham::execute(arguments, &job),
        Verb::Generate(arguments) => generate::execute(arguments, &job),
        Verb::Series(arguments) => series::execute(arguments, &job),
        Verb::Convert(arguments) => convert::execute(arguments, &job),
        Verb::Merge(arguments) => merge::execute(arguments, &job),
        Verb::Extract(arguments) => extract::execute(arguments, &job),
        Verb::Resize(arguments) => resize::execute(arguments, &job),
        Verb::Thesaurus(arguments) => thesaurus::execute(arguments, &job),
        Verb::Inspect(arguments) => inspect::execute(arguments, &job),
        Verb::Bench(arguments) => bench::execute(arguments, &job),
        Verb::Doctor(arguments) => doctor::execute(arguments, &job),
        Verb::Schema(arguments) => Ok(schema::execute(arguments, &job)),
        Verb::Completions(arguments) => Ok(completions::execute(arguments, &job)),
    }
}
