//! Where finished pictures are laid: each into its file, or all onto a sheet.

use std::path::{Path, PathBuf};

use diffusion::Moment;
use image::RgbImage;
use serde_json::{Value, json};

use super::order::{Destination, Order, Sheet};
use super::record::{Record, Shown};
use super::trajectory::{Recorder, Trajectory};
use crate::commands::Job;
use crate::drawing::Audience;
use crate::error::JobError;
use crate::picture;
use crate::progress::{Progress, Tick};

/// Takes pictures as they are finished, writes them and says so.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    job: &'a Job<'a>,
    order: &'a Order,
    record: &'a Record<'a>,
    seeds: &'a [u64],
    plan: Plan,
    progress: Progress<'a>,
    /// Steps that were taken, of all pictures.
    n_steps: u64,
    n_finished: usize,
    /// Pictures for the sheet, in order.
    kept: Vec<RgbImage>,
    written: Vec<PathBuf>,
    recorder: Option<Recorder>,
}

/// What is written, and how much work it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Steps of all pictures.
    pub(super) n_steps: u64,
    /// Whether pictures tell of themselves.
    pub(super) texts: Texts,
}

/// Whether pictures tell how they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// Prompt and settings.
    Written,
    /// Nothing.
    Private,
}

impl<'a> Desk<'a> {
    /// An empty desk.
    pub(super) fn new(
        job: &'a Job<'a>,
        order: &'a Order,
        record: &'a Record<'a>,
        seeds: &'a [u64],
        plan: Plan,
    ) -> Self {
        Self {
            job,
            order,
            record,
            seeds,
            plan,
            progress: job.progress(),
            n_steps: 0,
            n_finished: 0,
            kept: Vec::new(),
            written: Vec::new(),
            recorder: None,
        }
    }

    /// Lets the first picture be watched.
    pub(super) fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// What was seen of the first picture.
    pub(super) fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// Whether all pictures are finished.
    pub(super) fn is_complete(&self) -> bool {
        self.n_finished == self.order.prompts.len() * self.seeds.len()
    }

    /// Shows a state of other work than drawing.
    pub(super) fn tick(&mut self, tick: &Tick<'_>) {
        self.progress.tick(tick);
    }

    /// Writes the sheet, if there is one, of the pictures that are finished.
    ///
    /// # Errors
    ///
    /// A disk that is full or cannot be written.
    pub(super) fn lay_out(&mut self) -> Result<(), JobError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let path = self.order.out.sheet();
        let pictures = std::mem::take(&mut self.kept);
        let about = match pictures.len() {
            1 => self.record.of_picture(self.shown(0)),
            n_pictures => {
                let mut about = self.record.of_sheet(self.seeds);
                if !self.is_complete() {
                    about["pictures"] = json!(n_pictures);
                }
                about
            }
        };
        let n_columns = match self.order.prompts.len() {
            1 => picture::square(pictures.len()),
            _ => self.seeds.len(),
        };
        let rows = picture::rows(pictures, n_columns);
        // As A1111 has it, the text of a sheet is that of its first picture.
        self.write_png(&path, &picture::sheet(&rows), self.shown(0), &about)?;
        self.announce(path, about);
        Ok(())
    }

    /// Writes the trajectory of the first picture.
    ///
    /// # Errors
    ///
    /// A disk that is full or cannot be written.
    pub(super) fn write_trajectory(
        &mut self,
        trajectory: &Trajectory,
        to: &Destination,
    ) -> Result<(), JobError> {
        let shown = self.shown(0);
        for path in to.trajectory() {
            let mut about = self.record.of_picture(shown);
            about["timesteps"] = json!(trajectory.timesteps);
            about["frames"] = json!(trajectory.forward.len());
            let is =
                |ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
            if is("gif") {
                checkpoints::fs::atomic_write(&path, &trajectory.gif()?)?;
            } else if is("webp") {
                checkpoints::fs::atomic_write(&path, &trajectory.webp()?)?;
            } else {
                self.write_png(&path, &trajectory.strip(), shown, &about)?;
            }
            self.announce(path, about);
        }
        Ok(())
    }

    /// Ends the display and says to people what was written.
    pub(super) fn leave(&mut self) {
        self.progress.end();
        if self.job.place.json {
            return;
        }
        match self.written.as_slice() {
            [] => {}
            [first, .., last] if self.written.len() > 4 => {
                let (n, first, last) = (self.written.len(), first.display(), last.display());
                self.job.terminal.print(&format!("wrote {n} files, `{first}` to `{last}`"));
            }
            few => {
                for path in few {
                    self.job.terminal.print(&format!("wrote {}", path.display()));
                }
            }
        }
    }

    /// The picture at this place of the order: prompt by prompt, and within a prompt seed by seed.
    fn shown(&self, index: usize) -> Shown<'a> {
        let n_seeds = self.seeds.len().max(1);
        let prompt = self.order.prompts.get(index / n_seeds).map_or("", String::as_str);
        Shown { prompt, seed: self.seeds.get(index % n_seeds).copied().unwrap_or(0) }
    }

    fn write_png(
        &self,
        path: &Path,
        image: &RgbImage,
        shown: Shown<'_>,
        about: &Value,
    ) -> Result<(), JobError> {
        let bytes = match self.plan.texts {
            Texts::Private => picture::png(image, &[])?,
            Texts::Written => {
                let (parameters, about) = (self.record.parameters(shown), about.to_string());
                picture::png(image, &[("parameters", &parameters), ("populate", &about)])?
            }
        };
        Ok(checkpoints::fs::atomic_write(path, &bytes)?)
    }

    /// Says to programs at once what was written, and to people later, below the progress.
    fn announce(&mut self, path: PathBuf, mut about: Value) {
        if self.job.place.json {
            about["event"] = json!("generated");
            about["out"] = json!(path);
            self.progress.note("", &about);
        }
        self.written.push(path);
    }
}

impl Audience for Desk<'_> {
    fn stepped(&mut self, moment: &Moment<'_>) {
        self.n_steps += moment.noisy.dims()[0] as u64;
        let (done, total) = (self.n_steps, self.plan.n_steps);
        self.progress.tick(&Tick { phase: "draw", unit: "steps", done, total, figures: &[] });
        if let Some(recorder) = &mut self.recorder {
            recorder.see(moment);
        }
    }

    fn finished(&mut self, picture: RgbImage) -> Result<(), JobError> {
        let index = self.n_finished;
        self.n_finished += 1;
        if let Destination::Folder(folder) = &self.order.out {
            let shown = self.shown(index);
            let path = folder.join(format!("{index:04}-{}.png", shown.seed));
            let about = self.record.of_picture(shown);
            self.write_png(&path, &picture, shown, &about)?;
            self.announce(path, about);
            if self.order.sheet == Sheet::Absent {
                return Ok(());
            }
        }
        self.kept.push(picture);
        Ok(())
    }
}
