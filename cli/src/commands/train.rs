//! `populate train`: fits the adapter of a recipe. Also what `run` and `resume` share with it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::Watch;
use checkpoints::run_dir::{Attempt, AttemptEnd, Checkpoint, Done, RunDir, RunFolder, RunIdentity};
use recipes::{Loaded, Recipe};
use serde_json::{Value, json};
use trainer::{Event, Fitted};

use super::{Job, Outcome, census, pretrain};
use crate::args::{ResumeWhen, TrainArguments};
use crate::device::{ChosenDevice, DeviceChoice};
use crate::environment;
use crate::error::JobError;
use crate::exit::Exit;
use crate::previews::Previews;
use crate::provenance;
use crate::recorder::{Instruments, Recorder};
use crate::spending::Spending;
use crate::stage::{self, Opened, shell_word};

/// Attempts in a row that may end where they began.
const MAX_STALLED: usize = 3;
/// Entry of an attempt's record that names what it was to reach.
const GOAL: &str = "goal";
/// Entry of an attempt's numerics: the number format in which the UNet computed.
const PRECISION: &str = "precision";
/// Entries of a finished run's record: its results, and the hashes of their tensors.
const FILES: &str = "files";
const TENSORS_SHA256: &str = "tensors_sha256";

/// How far a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To the adapter.
    Adapter,
    /// To the report.
    Report,
}

impl Goal {
    const fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Report => "report",
        }
    }

    /// What an earlier attempt was to reach.
    pub(crate) fn of_attempt(attempt: &Attempt) -> Self {
        if attempt.engine.get(GOAL).is_some_and(|goal| goal == Self::Report.name()) {
            Self::Report
        } else {
            Self::Adapter
        }
    }

    /// Whether a finished run already has what this goal asks for.
    fn is_reached(self, done: &Done) -> bool {
        let reached = done.figures.get(GOAL).and_then(|goal| goal.as_str());
        self == Self::Adapter || reached == Some(Self::Report.name())
    }
}

/// Where a settlement lies and how far it goes.
#[derive(Debug, Clone)]
pub(crate) struct Settlement {
    /// Folder of all runs.
    pub(crate) runs: PathBuf,
    /// Name of the run, if the user gave one.
    pub(crate) run_id: Option<String>,
    /// What to do with an earlier attempt.
    pub(crate) when: ResumeWhen,
    /// How far to go.
    pub(crate) goal: Goal,
}

/// Fits the adapter of a recipe, or trains the network of one that trains from scratch.
pub(crate) fn execute(arguments: &TrainArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    begin(arguments, Goal::Adapter, job)
}

/// Begins, or goes on with, the run that the arguments name.
pub(crate) fn begin(
    arguments: &TrainArguments,
    goal: Goal,
    job: &Job<'_>,
) -> Result<Outcome, JobError> {
    let loaded = recipes::load(&arguments.recipe.recipe, &arguments.recipe.sets)?;
    let recipe = match (loaded, goal) {
        (Loaded::Pretrain(recipe), Goal::Adapter) => {
            if arguments.run_id.is_some() || arguments.resume != ResumeWhen::Auto {
                return Err(JobError::usage(
                    "`--run-id` and `--resume` belong to a settlement, found a training from scratch",
                ));
            }
            return pretrain::execute(&recipe, &job.place.runs, job);
        }
        (loaded, _) => stage::settlement(loaded, "run")?,
    };
    let settlement = Settlement {
        runs: job.place.runs.clone(),
        run_id: arguments.run_id.clone(),
        when: arguments.resume,
        goal,
    };
    settle(&recipe, &settlement, job)
}

/// Fits one recipe and, if that is the goal, counts and reports.
///
/// # Errors
///
/// See [`JobError`]; what was committed stays.
pub(crate) fn settle(
    recipe: &Recipe,
    settlement: &Settlement,
    job: &Job<'_>,
) -> Result<Outcome, JobError> {
    if settlement.goal == Goal::Report && recipe.census.is_none() {
        return Err(JobError::Usage {
            message: format!("recipe `{}` has no section `census`", recipe.name),
            hint: Some("add one, or use `populate train`".to_owned()),
        });
    }
    let opened = Opened::of(recipe)?;
    opened.warn(job.terminal);
    let id = opened.run_id(recipe, settlement.run_id.as_deref());
    check_when(settlement, &settlement.runs.join(&id))?;
    let device = job.device()?;
    let identity = RunIdentity {
        id: &id,
        fingerprint: &opened.fingerprint,
        resolved_recipe: &recipes::resolved_yaml(recipe),
    };
    let mut attempt = attempt(&device, settlement.goal.name());
    let precision = stage::precision(recipe, &device)?;
    attempt.numerics.insert(PRECISION.to_owned(), precision.name().to_owned());
    let run = RunDir::open(&settlement.runs, &identity, attempt.clone())?;
    let done = run.folder().done()?.filter(|done| settlement.goal.is_reached(done));
    if let Some(done) = done.filter(|done| results_are_there(done, run.path())) {
        let record = json!({ "event": "done_before", "run": run.path(), "result": done.result });
        job.give(&done.result, &record);
        return Ok(Outcome::Recorded(done.exit_code));
    }
    let under_way = UnderWay {
        recipe,
        opened: &opened,
        run: &run,
        attempt: &attempt,
        device,
        job,
        drew: Cell::new(false),
    };
    under_way.to_its_end(settlement.goal)
}

/// Whether the results of a finished run still are what it left; otherwise they are made again from its last checkpoint.
fn results_are_there(done: &Done, run: &Path) -> bool {
    // The run may have been moved since: what counts is where a file lies within it.
    let within = |name: &Value| {
        let mut parts = Path::new(name.as_str()?).components();
        parts.by_ref().find(|part| Some(part.as_os_str()) == run.file_name())?;
        Some(run.join(parts.as_path()))
    };
    let names = done.figures.get(FILES).and_then(Value::as_array);
    let files: Option<Vec<PathBuf>> = names.and_then(|names| names.iter().map(within).collect());
    let Some(files) = files else { return false };
    let found = provenance::tensors_sha256(&files).ok().map(|hashes| json!(hashes));
    let wants_report = Goal::Report.is_reached(done);
    found.as_ref() == done.figures.get(TENSORS_SHA256)
        && files.iter().all(|file| file.exists())
        && (!wants_report || census::report_path(run).is_file())
}

/// Refuses an earlier attempt, or its absence, where the user said so.
fn check_when(settlement: &Settlement, dir: &Path) -> Result<(), JobError> {
    let n_steps = match RunFolder::open(dir) {
        Ok(folder) => folder.steps()?.len(),
        Err(_) => 0,
    };
    let shown = dir.display();
    match settlement.when {
        ResumeWhen::Never if n_steps > 0 => Err(JobError::Usage {
            message: format!("`--resume never`, but `{shown}` has {n_steps} checkpoints"),
            hint: Some("give another `--run-id`, or move the directory away".to_owned()),
        }),
        ResumeWhen::Must if !dir.is_dir() => Err(JobError::Usage {
            message: format!("there is no run at `{shown}` to go on with"),
            hint: None,
        }),
        ResumeWhen::Auto | ResumeWhen::Never | ResumeWhen::Must => Ok(()),
    }
}

/// This process, as the run records it.
pub(crate) fn attempt(device: &ChosenDevice, goal: &str) -> Attempt {
    let mut engine = environment::engine();
    engine.insert(GOAL.to_owned(), goal.to_owned());
    if let Some(dir) = environment::working_dir() {
        engine.insert(stage::STARTED_IN.to_owned(), dir.to_string_lossy().into_owned());
    }
    Attempt {
        id: environment::attempt_id(),
        host: environment::host(),
        pid: std::process::id(),
        started_at: environment::unix_seconds(),
        device: device.name.clone(),
        engine,
        numerics: environment::numerics(),
    }
}

/// A settlement whose directory is locked.
struct UnderWay<'a> {
    recipe: &'a Recipe,
    opened: &'a Opened,
    run: &'a RunDir,
    attempt: &'a Attempt,
    device: ChosenDevice,
    job: &'a Job<'a>,
    /// Whether class pictures were drawn, which is progress without a step: they are kept.
    drew: Cell<bool>,
}

impl UnderWay<'_> {
    /// Works towards the goal and records how the attempt ended, whatever happened.
    fn to_its_end(&self, goal: Goal) -> Result<Outcome, JobError> {
        let newest = self.run.newest()?;
        let from_step = newest.as_ref().map_or(0, Checkpoint::step);
        for damage in newest.iter().flat_map(Checkpoint::damaged) {
            self.job.terminal.warn(&format!("skipped a damaged checkpoint: {damage}"));
        }
        drop(newest);
        provenance::check_other_numerics(self.run.folder(), self.attempt, self.job.terminal)?;
        self.run.begin(from_step)?;
        let result = self.work(goal).and_then(|outcome| self.guard_progress(outcome, from_step));
        let (exit, reason) = match &result {
            Ok(Outcome::Requeue { .. }) => (Exit::Requeue, self.stop_reason()),
            Ok(Outcome::GateFailed) => (Exit::GateFailed, "finished, a gate failed".to_owned()),
            Ok(Outcome::Done | Outcome::Recorded(_) | Outcome::Failing(_)) => {
                (Exit::Done, "finished".to_owned())
            }
            Err(error) => (error.exit(), error.to_string()),
        };
        let ended = self.run.end(&AttemptEnd {
            step: self.run.folder().steps()?.into_iter().next_back().unwrap_or(from_step),
            exit_code: exit.code(),
            reason,
            prepared: self.drew.get(),
            ended_at: environment::unix_seconds(),
            seconds_from_signal: self.job.stop.first().map(|request| request.seconds_ago()),
        });
        // The first error is the one to report.
        let outcome = result?;
        ended?;
        Ok(outcome)
    }

    fn stop_reason(&self) -> String {
        self.job.stop.first().map_or("stopped", |request| request.signal).to_owned()
    }

    /// A stop notice that comes too early every time would requeue for ever.
    fn guard_progress(&self, outcome: Outcome, from_step: u64) -> Result<Outcome, JobError> {
        if !matches!(outcome, Outcome::Requeue { .. }) {
            return Ok(outcome);
        }
        let reached = self.run.folder().steps()?.into_iter().next_back().unwrap_or(0);
        let attempts = self.run.folder().n_stalled_attempts(from_step)?;
        // A run whose training is complete makes its progress in the census.
        let trained = reached == self.recipe.fit.steps;
        if reached > from_step || trained || self.drew.get() || attempts < MAX_STALLED {
            return Ok(outcome);
        }
        Err(JobError::Stalled { attempts, step: from_step, run: self.run.path().to_owned() })
    }

    fn work(&self, goal: Goal) -> Result<Outcome, JobError> {
        let mut spending = Spending::begin(self.run, self.device.cuda_index)?;
        let Some(files) = self.fit(&mut spending)? else { return Ok(self.requeue()) };
        provenance::write(self.recipe, self.opened, self.run, &files)?;
        match goal {
            Goal::Adapter => {
                let done = self.adapter_done(&files)?;
                self.finish(&done, "trained")
            }
            Goal::Report => {
                let counting = census::Counting {
                    recipe: self.recipe,
                    opened: self.opened,
                    run: self.run.folder(),
                    device: &self.device,
                    alive: Some((self.run, &self.attempt.id)),
                };
                match census::count_and_report(&counting, Some(&mut spending), self.job)? {
                    None => Ok(self.requeue()),
                    Some(reported) => {
                        let mut done = self.adapter_done(&files)?;
                        done.exit_code = reported.exit.code();
                        done.result = reported.text();
                        done.figures.insert(GOAL.to_owned(), json!(Goal::Report.name()));
                        done.figures.insert("report".to_owned(), json!(reported.report));
                        provenance::note_evaluator(self.run)?;
                        self.finish(&done, "reported")
                    }
                }
            }
        }
    }

    /// Trains; gives the results, or nothing if a stop was requested.
    fn fit(&self, spending: &mut Spending) -> Result<Option<Vec<PathBuf>>, JobError> {
        let mut base = stage::load_base(self.recipe, self.opened, &self.device)?;
        if stage::trains_unet_alone(self.recipe) {
            // On a card what encodes waits in the host's memory until it is needed.
            base = base.parked();
        }
        stage::check_prediction(self.recipe, &base)?;
        stage::warn_of_side(self.recipe, &base, self.job.terminal);
        stage::warn_of_weighting(self.recipe, &base, self.job.terminal);
        stage::warn_of_precision(&base, self.job.terminal);
        let mut recorder = Recorder::new(Instruments {
            run: self.run,
            attempt_id: self.attempt.id.clone(),
            stop: self.job.stop,
            progress: self.job.progress(),
            previews: Previews::new(self.recipe, &base)?,
            spending,
        });
        let fitted = {
            let mut sink = |event: &Event| recorder.hear(event);
            let mut watch = Watch { stop: self.job.stop.flag(), sink: &mut sink };
            let training = trainer::Job {
                recipe: self.recipe,
                base: &base,
                base_files: &self.opened.base_files,
                dataset: &self.opened.dataset,
                run: self.run,
                cache_dir: &environment::cache_dir(),
            };
            trainer::fit(&training, &mut watch)
        };
        self.drew.set(recorder.drew_class_images());
        // A record that could not be written is why the training was stopped.
        recorder.finish()?;
        match fitted? {
            Fitted::Finished { files, .. } => Ok(Some(files)),
            Fitted::Interrupted { .. } => Ok(None),
        }
    }

    fn requeue(&self) -> Outcome {
        let device = match self.job.place.device {
            DeviceChoice::Auto => String::new(),
            DeviceChoice::Cpu => " --device cpu".to_owned(),
            DeviceChoice::Cuda(index) => format!(" --device cuda:{index}"),
        };
        let run = shell_word(&self.run.path().display().to_string());
        Outcome::Requeue { go_on: format!("populate resume {run}{device}") }
    }

    /// The record of a finished training.
    fn adapter_done(&self, files: &[PathBuf]) -> Result<Done, JobError> {
        let steps = self.recipe.fit.steps;
        let shown: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let mut figures = BTreeMap::from([(GOAL.to_owned(), json!(Goal::Adapter.name()))]);
        figures.insert(FILES.to_owned(), json!(shown));
        figures.insert(TENSORS_SHA256.to_owned(), json!(provenance::tensors_sha256(files)?));
        Ok(Done {
            exit_code: Exit::Done.code(),
            step: steps,
            result: format!("trained {steps} steps: {}", shown.join(", ")),
            figures,
        })
    }

    fn finish(&self, done: &Done, event: &str) -> Result<Outcome, JobError> {
        self.run.finish(done)?;
        let record = json!({
            "event": event, "run": self.run.path(), "result": done.result, "figures": done.figures,
        });
        self.job.give(&done.result, &record);
        Ok(if done.exit_code == Exit::Done.code() { Outcome::Done } else { Outcome::GateFailed })
    }
}
