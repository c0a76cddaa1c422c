//! `populate census`: counts what a finished training changed. Only what lies on disk is trusted.

use std::path::{Path, PathBuf};

use checkpoints::energy::Phase;
use checkpoints::run_dir::{Checkpoint, Heartbeat, RunDir, RunFolder};
use checkpoints::{CheckpointError, ModelFiles, ModelOptions, TensorFile, Watch};
use eval::{CensusEvent, CensusJob, Change, Counted, World};
use models::adapter::Adapter;
use models::base::load_with;
use models::{Base, Evaluator};
use recipes::{BaseSpec, CensusSpec, Recipe};
use report::Form;
use serde_json::json;

use super::report::{Reported, write_report};
use super::train::attempt;
use super::{Job, Outcome, compare, kat};
use crate::args::CensusArguments;
use crate::device::ChosenDevice;
use crate::environment::{self, Stopwatch};
use crate::error::JobError;
use crate::progress::{Progress, Tick};
use crate::recorder::HEARTBEAT_SECS;
use crate::spending::{Spending, phase_name};
use crate::stage::{self, Opened, shell_word};

/// Program and version, as records of a census name it.
const TOOL: &str = concat!("populate ", env!("CARGO_PKG_VERSION"));
/// Folder of the weights that a full training leaves in its run directory.
const TRAINED_BASE: &str = "base";

/// A finished training about to be counted.
#[derive(Clone, Copy)]
pub(crate) struct Counting<'a> {
    /// The recipe of the run.
    pub(crate) recipe: &'a Recipe,
    /// What it names.
    pub(crate) opened: &'a Opened,
    /// The run directory.
    pub(crate) run: &'a RunFolder,
    /// Where to compute.
    pub(crate) device: &'a ChosenDevice,
    /// Whose heart beats, if the run directory is locked: it, and the attempt's four hex digits.
    pub(crate) alive: Option<(&'a RunDir, &'a str)>,
}

/// Counts the run of a directory or recipe, and writes its report.
pub(crate) fn execute(arguments: &CensusArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    if let Some(name) = &arguments.kat {
        return kat::execute(name, arguments, job);
    }
    let [word] = arguments.items.as_slice() else { return compare::execute(arguments, job) };
    let path = Path::new(word);
    if !path.exists() && (word.contains('@') || word.contains(':')) {
        return compare::execute(arguments, job);
    }
    let run = stage::run_folder(path, &arguments.sets, &job.place.runs)?;
    let recipe = stage::recipe_of_run(&run)?;
    let opened = Opened::of(&recipe)?;
    if opened.fingerprint != run.fingerprint() {
        return Err(JobError::data(format!(
            "the base or the pictures of run `{}` are no longer what it was trained on",
            run.path().display()
        )));
    }
    let device = job.device()?;
    let _hold = run.hold(&attempt(&device, "census"))?;
    let counting =
        Counting { recipe: &recipe, opened: &opened, run: &run, device: &device, alive: None };
    if let Some(reported) = count_and_report(&counting, None, job)? {
        return Ok(reported.give(run.path(), job));
    }
    let directory = shell_word(&run.path().display().to_string());
    Ok(Outcome::Requeue { go_on: format!("populate census {directory}") })
}

/// Takes the census, or goes on with it, and writes the report; nothing if a stop was requested.
///
/// # Errors
///
/// A recipe without census, a training that is not finished, and whatever `eval` refuses.
pub(crate) fn count_and_report(
    counting: &Counting<'_>,
    mut spending: Option<&mut Spending>,
    job: &Job<'_>,
) -> Result<Option<Reported>, JobError> {
    let spec = spec_of(counting.recipe)?;
    if let Some(spending) = spending.as_deref_mut() {
        spending.enter(Phase::Census)?;
    }
    let checkpoint = stage::finished(counting.recipe, counting.run)?;
    let subject = Subject { spec, checkpoint, folder: counting.run.path() };
    if !count(counting, &subject, spending.as_deref_mut(), job)? {
        return Ok(None);
    }
    if let Some(spending) = spending {
        spending.enter(Phase::Report)?;
    }
    write_report(counting.recipe, counting.run, &counting.device.name, Form::Folder).map(Some)
}

/// Takes the census of a run's checkpoint into a folder of its own, without a report; false if a stop
/// was requested.
///
/// # Errors
///
/// A recipe without census, a checkpoint that is not there, and whatever `eval` refuses.
pub(crate) fn count_into(
    counting: &Counting<'_>,
    step: Option<u64>,
    folder: &Path,
    job: &Job<'_>,
) -> Result<bool, JobError> {
    let spec = spec_of(counting.recipe)?;
    let checkpoint = match step {
        Some(step) => at_step(counting.run, step)?,
        None => stage::finished(counting.recipe, counting.run)?,
    };
    count(counting, &Subject { spec, checkpoint, folder }, None, job)
}

fn spec_of(recipe: &Recipe) -> Result<&CensusSpec, JobError> {
    recipe.census.as_ref().ok_or_else(|| JobError::Usage {
        message: format!("recipe `{}` has no section `census`", recipe.name),
        hint: Some("add one, and train again under its new name".to_owned()),
    })
}

/// What is counted, and where its census is written.
struct Subject<'a> {
    spec: &'a CensusSpec,
    checkpoint: Checkpoint,
    folder: &'a Path,
}

/// Takes a census, or goes on with it; false if a stop was requested.
fn count(
    counting: &Counting<'_>,
    subject: &Subject<'_>,
    spending: Option<&mut Spending>,
    job: &Job<'_>,
) -> Result<bool, JobError> {
    let mut listener = Listener {
        progress: job.progress(),
        spending,
        alive: counting.alive,
        step: subject.checkpoint.step(),
        clock: Stopwatch::start(),
        beat_at_secs: f64::NEG_INFINITY,
        failure: None,
    };
    let counted = measure(counting, subject, &mut listener, job);
    listener.progress.end();
    if let Some(error) = listener.failure {
        return Err(error);
    }
    match counted? {
        Counted::Interrupted { pictures, of } => {
            job.terminal.say(&format!("{pictures} of {of} pictures are counted and kept"));
            Ok(false)
        }
        Counted::Finished(_) => Ok(true),
    }
}

fn measure(
    counting: &Counting<'_>,
    subject: &Subject<'_>,
    listener: &mut Listener<'_>,
    job: &Job<'_>,
) -> Result<Counted, JobError> {
    let Counting { recipe, opened, run, device, .. } = *counting;
    let Subject { spec, checkpoint, folder } = subject;
    let cache = environment::cache_dir().join("census");
    let base_name = opened.base_files.name();
    let numerics = match device.cuda_index {
        Some(_) => device.name.clone(),
        None => environment::simd_level().to_owned(),
    };
    let base = stage::load_base(recipe, opened, device)?;
    // Who trained just now has heard it.
    if counting.alive.is_none() {
        stage::warn_of_precision(&base, job.terminal);
    }
    let judge = stage::evaluator_folder(recipe, &opened.base_files);
    let evaluator = Evaluator::load(&judge, &device.device)?;
    let second = match &spec.second_evaluator {
        Some(folder) => Some(Evaluator::load(folder, &device.device)?),
        None => None,
    };
    let trained = trained(checkpoint, run, &base)?;
    let mut hashes = opened.hashes();
    hashes.insert("trained".to_owned(), trained.sha256().to_owned());
    let census = CensusJob {
        spec,
        gates: &recipe.gates,
        source: &recipe.dataset,
        dataset: &opened.dataset,
        base: &base,
        change: trained.change(),
        base_name: &base_name,
        evaluator: &evaluator,
        second_evaluator: second.as_ref(),
        world: match recipe.base {
            BaseSpec::Postcards => World::Postcards,
            BaseSpec::Folder { .. } | BaseSpec::Sd1(_) | BaseSpec::Sd2(_) | BaseSpec::Sdxl(_) => {
                World::Unknown
            }
        },
        tool: TOOL,
        numerics: &numerics,
        hashes: &hashes,
        run: folder,
        cache: Some(&cache),
    };
    let stop = job.stop;
    let mut sink = |event: &CensusEvent| listener.hear(event, stop.flag());
    let mut watch = Watch { stop: stop.flag(), sink: &mut sink };
    Ok(eval::census(&census, &mut watch)?)
}

/// An earlier checkpoint of a run.
fn at_step(run: &RunFolder, step: u64) -> Result<Checkpoint, JobError> {
    if let Some(checkpoint) = run.at_step(step)? {
        if !checkpoint.has("adapter.safetensors") {
            return Err(JobError::Usage {
                message: format!(
                    "checkpoint {step} of run `{}` holds no adapter: its base was trained",
                    run.path().display()
                ),
                hint: Some("only the last state of such a run is a whole base".to_owned()),
            });
        }
        return Ok(checkpoint);
    }
    let kept: Vec<String> = run.steps()?.iter().map(ToString::to_string).collect();
    Err(JobError::Usage {
        message: format!("run `{}` has no checkpoint of step {step}", run.path().display()),
        hint: Some(format!("it kept those of steps {}", kept.join(", "))),
    })
}

/// What a training left, read from disk.
enum Trained {
    /// An adapter.
    Adapter { adapter: Box<Adapter>, sha256: String },
    /// A base of its own.
    Base { base: Box<Base>, sha256: String },
}

impl Trained {
    fn change(&self) -> Change<'_> {
        match self {
            Self::Adapter { adapter, .. } => Change::Adapter(adapter),
            Self::Base { base, .. } => Change::Base(base),
        }
    }

    fn sha256(&self) -> &str {
        match self {
            Self::Adapter { sha256, .. } | Self::Base { sha256, .. } => sha256,
        }
    }
}

fn trained(checkpoint: &Checkpoint, run: &RunFolder, base: &Base) -> Result<Trained, JobError> {
    if checkpoint.has("adapter.safetensors") {
        let path = checkpoint.file("adapter.safetensors");
        let sha256 = TensorFile::open(&path)?.tensors_sha256();
        let adapter = Box::new(stage::read_adapter(&path, base)?.adapter);
        return Ok(Trained::Adapter { adapter, sha256 });
    }
    let files = ModelFiles::open(&run.path().join(TRAINED_BASE), &ModelOptions::default())?;
    // Both of a pair are computed alike.
    let mut loaded = load_with(&files, &base.device, base.precision)?;
    let sha256 = files.sha256()?;
    loaded.clip_skip = base.clip_skip;
    Ok(Trained::Base { base: Box::new(loaded), sha256 })
}

/// Shows the progress of a census, keeps the run's heart beating and counts its costs.
struct Listener<'a> {
    progress: Progress<'a>,
    spending: Option<&'a mut Spending>,
    alive: Option<(&'a RunDir, &'a str)>,
    step: u64,
    clock: Stopwatch,
    beat_at_secs: f64,
    failure: Option<JobError>,
}

impl Listener<'_> {
    fn hear(&mut self, event: &CensusEvent, stop: &std::sync::atomic::AtomicBool) {
        match event {
            CensusEvent::Drew { pictures, of } => self.progress.tick(&Tick {
                phase: "census",
                unit: "pictures",
                done: *pictures,
                total: *of,
                figures: &[],
            }),
            CensusEvent::Measuring { what } => {
                let record = json!({ "event": "measuring", "what": what, "at": environment::unix_seconds() });
                self.progress.note(&format!("measuring {what}"), &record);
            }
            CensusEvent::Working => {}
            CensusEvent::Reducing => {
                let record = json!({ "event": "reducing", "at": environment::unix_seconds() });
                self.progress.note("all pictures are counted; reducing", &record);
            }
        }
        let spent = self.spending.as_deref_mut().map_or(Ok(()), Spending::tick);
        if let Err(error) = spent.and_then(|()| self.beat()) {
            self.failure.get_or_insert(error.into());
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

impl Listener<'_> {
    fn beat(&mut self) -> Result<(), CheckpointError> {
        let now_secs = self.clock.seconds();
        let Some((run, attempt)) = self.alive else { return Ok(()) };
        if now_secs - self.beat_at_secs < HEARTBEAT_SECS {
            return Ok(());
        }
        self.beat_at_secs = now_secs;
        let now = environment::unix_seconds();
        run.heartbeat(&Heartbeat {
            attempt: attempt.to_owned(),
            phase: phase_name(Phase::Census).to_owned(),
            step: self.step,
            loss: None,
            images_per_second: self.progress.per_second(),
            last_checkpoint: Some(self.step),
            energy: None,
            written_at: now,
            progress_at: now,
        })
    }
}

/// Where the report of a run lies.
pub(crate) fn report_path(run: &Path) -> PathBuf {
    run.join("report").join("index.html")
}
