//! Listens to a run: draws its progress, keeps its heart beating, counts its costs, writes what
//! TensorBoard reads, draws previews of what was saved.
//!
//! A record that cannot be written stops the run at its next step; nothing is lost in silence.

use std::path::Path;
use std::sync::atomic::Ordering;

use checkpoints::energy;
use checkpoints::event_file::{At, EventFile, Png};
use checkpoints::run_dir::{Heartbeat, RunDir};
use image::RgbImage;
use serde_json::json;
use trainer::{Event, Phase, StepRecord};

use crate::environment::{self, Stopwatch};
use crate::error::JobError;
use crate::picture;
use crate::previews::Previews;
use crate::progress::{Progress, Tick};
use crate::signals::StopRequests;
use crate::spending::Spending;

/// Seconds between two signs of life at most.
pub(crate) const HEARTBEAT_SECS: f64 = 10.0;
/// Share of the average that stays at each step in the loss that is shown.
const LOSS_MEMORY: f64 = 0.95;

/// Everything that is kept of a run beside its checkpoints.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    run: &'a RunDir,
    attempt_id: String,
    stop: &'a StopRequests,
    progress: Progress<'a>,
    previews: Previews,
    spending: &'a mut Spending,
    events: Option<EventFile>,
    total: u64,
    images_per_step: u64,
    step: u64,
    shown_loss: Option<f64>,
    last_loss: Option<f64>,
    last_checkpoint: Option<u64>,
    /// Class pictures that were there at first, and those that are there now.
    class_images: [Option<usize>; 2],
    phase: &'static str,
    clock: Stopwatch,
    beat_at_secs: f64,
    stop_was_told: bool,
    failure: Option<JobError>,
}

/// What a recorder works with.
pub(crate) struct Instruments<'a> {
    /// The run directory.
    pub(crate) run: &'a RunDir,
    /// Four hex digits of the attempt.
    pub(crate) attempt_id: String,
    /// The stop flag.
    pub(crate) stop: &'a StopRequests,
    /// The display.
    pub(crate) progress: Progress<'a>,
    /// Draws previews.
    pub(crate) previews: Previews,
    /// Counts costs.
    pub(crate) spending: &'a mut Spending,
}

impl<'a> Recorder<'a> {
    /// Nothing has happened yet.
    pub(crate) fn new(instruments: Instruments<'a>) -> Self {
        let Instruments { run, attempt_id, stop, progress, previews, spending } = instruments;
        Self {
            run,
            attempt_id,
            stop,
            progress,
            previews,
            spending,
            events: None,
            total: 0,
            images_per_step: 0,
            step: 0,
            shown_loss: None,
            last_loss: None,
            last_checkpoint: None,
            class_images: [None; 2],
            phase: "load",
            clock: Stopwatch::start(),
            beat_at_secs: f64::NEG_INFINITY,
            stop_was_told: false,
            failure: None,
        }
    }

    /// Takes note of an event. The first failure is kept and stops the run.
    pub(crate) fn hear(&mut self, event: &Event) {
        if let Err(error) = self.record(event) {
            self.failure.get_or_insert(error);
            self.stop.flag().store(true, Ordering::Relaxed);
        }
        self.tell_of_stop();
    }

    /// Whether class pictures were drawn that were not there before.
    pub(crate) fn drew_class_images(&self) -> bool {
        self.class_images[0] < self.class_images[1]
    }

    /// Ends the display and the accounts.
    ///
    /// # Errors
    ///
    /// The first record that could not be written.
    pub(crate) fn finish(mut self) -> Result<(), JobError> {
        self.progress.end();
        let written = self.spending.enter(energy::Phase::Load).map_err(JobError::from);
        let synced = self.events.as_mut().map_or(Ok(()), EventFile::sync).map_err(JobError::from);
        match self.failure.take() {
            Some(error) => Err(error),
            None => written.and(synced),
        }
    }

    fn record(&mut self, event: &Event) -> Result<(), JobError> {
        match event {
            Event::Phase(phase) => {
                self.phase = phase.name();
                self.spending.enter(account(*phase))?;
            }
            Event::ClassImages { done, total } => {
                self.class_images[0].get_or_insert(*done);
                self.class_images[1] = Some(*done);
                self.count(("class images", "pictures"), *done, *total);
            }
            Event::Cached { what, done, total } => {
                self.count(("cache", what.unit()), *done, *total);
            }
            Event::Resumed { step, checkpoint } => {
                self.step = *step;
                self.last_checkpoint = Some(*step);
                // The stop may have come before the preview of what it saved.
                if *step > 0 && !self.run.path().join(preview_file(*step)).exists() {
                    self.begin_events(*step)?;
                    self.preview(*step, checkpoint)?;
                }
            }
            Event::Began(beginning) => {
                (self.total, self.step) = (beginning.total, beginning.step);
                self.images_per_step = beginning.images_per_step;
                if self.events.is_none() {
                    self.begin_events(beginning.step)?;
                }
                let text = format!(
                    "{} values in {} modules; step {} of {}",
                    beginning.n_parameters, beginning.n_modules, beginning.step, beginning.total
                );
                let record = json!({
                    "event": "began", "step": beginning.step, "total": beginning.total,
                    "parameters": beginning.n_parameters, "modules": beginning.n_modules,
                });
                self.progress.note(&text, &record);
                if beginning.step == 0 {
                    let rows = self.previews.of_base(self.stop.flag())?;
                    self.keep_previews(0, &rows)?;
                }
            }
            Event::Stepped(record) => self.stepped(record)?,
            Event::Saved { step, checkpoint } => self.saved(*step, checkpoint)?,
            Event::Written { files } => {
                let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
                let record = json!({ "event": "written", "files": files });
                self.progress.note(&format!("wrote {}", files.join(", ")), &record);
            }
            // What a later version tells beside is not needed to keep the run.
            _ => {}
        }
        self.spending.tick()?;
        self.beat()
    }

    fn count(&mut self, (phase, unit): (&str, &str), done: usize, total: usize) {
        let (done, total) = (done as u64, total as u64);
        self.progress.tick(&Tick { phase, unit, done, total, figures: &[] });
    }

    fn begin_events(&mut self, step: u64) -> Result<(), JobError> {
        let is_repeated = self.run.attempt_number() > 1;
        let resumed_after = is_repeated.then_some(step);
        self.events = Some(self.run.event_file(environment::unix_seconds(), resumed_after)?);
        Ok(())
    }

    fn stepped(&mut self, record: &StepRecord) -> Result<(), JobError> {
        self.step = record.step;
        self.last_loss = Some(record.loss);
        let shown = self
            .shown_loss
            .map_or(record.loss, |old| LOSS_MEMORY * old + (1.0 - LOSS_MEMORY) * record.loss);
        self.shown_loss = Some(shown);
        let tick = Tick {
            phase: "train",
            unit: "steps",
            done: record.step,
            total: self.total,
            figures: &[("loss", shown)],
        };
        self.progress.tick(&tick);
        let at = At { step: record.step, wall_time: environment::unix_seconds() };
        let Some(events) = &mut self.events else { return Ok(()) };
        let mut scalars = vec![
            ("loss", record.loss),
            ("loss/concept", record.loss_concept),
            ("grad_norm", record.grad_norm),
            ("learning_rate", record.learning_rate),
        ];
        scalars.extend(record.loss_preserve.map(|loss| ("loss/preserve", loss)));
        scalars.extend(self.progress.per_second().map(|rate| ("steps_per_second", rate)));
        for (tag, value) in scalars {
            #[expect(clippy::cast_possible_truncation, reason = "event files hold f32")]
            events.scalar(at, tag, value as f32)?;
        }
        Ok(())
    }

    fn saved(&mut self, step: u64, checkpoint: &Path) -> Result<(), JobError> {
        self.last_checkpoint = Some(step);
        if let Some(events) = &mut self.events {
            events.sync()?;
        }
        let record = json!({ "event": "saved", "step": step, "checkpoint": checkpoint });
        self.progress.note(&format!("checkpoint of step {step}"), &record);
        self.preview(step, checkpoint)?;
        Ok(self.spending.enter(energy::Phase::Train)?)
    }

    /// Draws the previews of a checkpoint, if they are due.
    fn preview(&mut self, step: u64, checkpoint: &Path) -> Result<(), JobError> {
        if !self.previews.is_due(step) || self.stop.flag().load(Ordering::Relaxed) {
            return Ok(());
        }
        self.spending.enter(energy::Phase::Sample)?;
        let rows = self.previews.of_checkpoint(checkpoint, self.stop.flag())?;
        self.keep_previews(step, &rows)
    }

    /// Writes previews into the run directory and into the event file, each under its own tag.
    fn keep_previews(&mut self, step: u64, rows: &[Vec<RgbImage>]) -> Result<(), JobError> {
        // A stop leaves rows unfinished; they are drawn again when the run goes on.
        if !self.previews.is_complete(rows) {
            return Ok(());
        }
        let sheet = picture::png(&picture::sheet(rows), &[])?;
        self.run.write(&preview_file(step), &sheet)?;
        let at = At { step, wall_time: environment::unix_seconds() };
        let Some(events) = &mut self.events else { return Ok(()) };
        for (row_idx, row) in rows.iter().enumerate() {
            for (seed_idx, picture) in row.iter().enumerate() {
                let bytes = picture::png(picture, &[])?;
                let (width_px, height_px) = picture.dimensions();
                let png = Png { width_px, height_px, bytes: &bytes };
                events.image(at, &format!("preview/prompt-{row_idx}/seed-{seed_idx}"), png)?;
            }
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<(), JobError> {
        let now_secs = self.clock.seconds();
        if now_secs - self.beat_at_secs < HEARTBEAT_SECS {
            return Ok(());
        }
        self.beat_at_secs = now_secs;
        let now = environment::unix_seconds();
        #[expect(clippy::cast_precision_loss, reason = "pictures per step are few")]
        let images = self.images_per_step as f64;
        let heartbeat = Heartbeat {
            attempt: self.attempt_id.clone(),
            phase: self.phase.to_owned(),
            step: self.step,
            loss: self.last_loss,
            images_per_second: self.progress.per_second().map(|rate| rate * images),
            last_checkpoint: self.last_checkpoint,
            energy: Some(self.spending.spent().energy.report(0, None, None)),
            // Written by the loop itself, so that a loop that hangs looks dead.
            written_at: now,
            progress_at: now,
        };
        Ok(self.run.heartbeat(&heartbeat)?)
    }

    fn tell_of_stop(&mut self) {
        if self.stop_was_told {
            return;
        }
        if let Some(request) = self.stop.first() {
            self.stop_was_told = true;
            let record = json!({ "event": "stopping", "signal": request.signal });
            let text = format!("{}: stopping at the end of this step", request.signal);
            self.progress.note(&text, &record);
        }
    }
}

/// Where the previews of a step lie in the run directory.
fn preview_file(step: u64) -> String {
    format!("previews/step-{step:08}.png")
}

/// The account on which a kind of work is booked.
const fn account(phase: Phase) -> energy::Phase {
    match phase {
        Phase::ClassImages => energy::Phase::Sample,
        Phase::Cache => energy::Phase::Cache,
        Phase::Train | Phase::Output => energy::Phase::Train,
    }
}
