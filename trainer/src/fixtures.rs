//! What the tests of this crate have in common: tiny bases, some pictures, a recipe and a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use checkpoints::run_dir::{Attempt, RunDir, RunIdentity};
use checkpoints::{Family, ModelFiles, ModelOptions, Watch};
use datasets::Dataset;
use models::{Base, Device};
use recipes::{Loaded, Recipe};

use crate::error::TrainError;
use crate::event::Event;
use crate::fit::{Fitted, Job, fit};

/// The pictures of a recipe.
pub(crate) fn dataset(recipe: &Recipe) -> Dataset {
    datasets::open(&recipe.dataset).unwrap()
}

/// A folder with a base and pictures.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) base: Base,
    pub(crate) files: ModelFiles,
}

impl World {
    /// On the tiny base, with pictures of 64 × 64 pixels.
    pub(crate) fn new() -> Self {
        Self::of(Family::Postcards, 64)
    }

    /// On the tiny base of SDXL, with pictures of 81 × 64 pixels: 17 columns are cut off.
    pub(crate) fn sdxl() -> Self {
        Self::of(Family::Sdxl, 81)
    }

    /// On the tiny base of a family, with pictures of this width and 64 pixels height.
    pub(crate) fn of(family: Family, width_px: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (path, device) = (dir.path().join("base"), Device::flex());
        models::tiny::write_family(&path, family, 3, &device).unwrap();
        let files = ModelFiles::open(&path, &ModelOptions::default()).unwrap();
        let base = models::load(&files, &device).unwrap();
        for number in 0..5u8 {
            let picture = image::RgbImage::from_fn(width_px, 64, |x, y| {
                image::Rgb([(4 * x) as u8, (3 * y) as u8, 40 * number])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            let path = dir.path().join(format!("pictures/{number}.png"));
            checkpoints::fs::atomic_write(&path, bytes.get_ref()).unwrap();
        }
        Self { dir, base, files }
    }

    /// A recipe with everything that draws: class pictures, mirroring, dropout of both kinds, an
    /// average. `sets` override it.
    pub(crate) fn recipe(&self, sets: &[&str]) -> Recipe {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let yaml = format!(
            "name: tiny\nseed: 7\nbase: {{ folder: {{ weights: {base:?} }} }}\n\
             dataset:\n  dreambooth:\n    \
             instance: {{ images: {pictures:?}, prompt: a sks tower, identifier: sks, class: tower }}\n    \
             class: {{ generate: 3, prompt: a tower, weight: 0.5 }}\n    \
             side_px: 64\n    flip: random\n    caption_dropout: 0.3\n\
             adapter: {{ lora: {{ rank: 2, dropout: 0.2 }} }}\n\
             objective: {{ offset_noise: 0.1 }}\n\
             fit:\n  steps: 6\n  batch: {{ images: 2, accumulate: 2 }}\n  \
             optimizer: {{ adamw: {{ learning_rate: 1.0e-3 }} }}\n  save_every: 2\n  \
             schedule: {{ cosine: {{ warmup_steps: 1 }} }}\n  ema: {{ decay: 0.9 }}\n  \
             previews: {{ guidance_scale: 2.0 }}\n",
            base = path("base"),
            pictures = path("pictures"),
        );
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        match recipes::load_text(Path::new("tiny.yaml"), &yaml, &sets) {
            Ok(Loaded::Settle(recipe)) => *recipe,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn run_dir(&self, runs: &str, recipe: &Recipe) -> RunDir {
        let resolved_recipe = recipes::resolved_yaml(recipe);
        let fingerprint = recipes::fingerprint(recipe, "", "");
        let identity =
            RunIdentity { id: "run", fingerprint: &fingerprint, resolved_recipe: &resolved_recipe };
        let attempt = Attempt {
            id: "0001".to_owned(),
            host: String::new(),
            pid: 1,
            started_at: 0.0,
            device: "cpu".to_owned(),
            engine: BTreeMap::default(),
            numerics: BTreeMap::default(),
        };
        RunDir::open(&self.dir.path().join(runs), &identity, attempt).unwrap()
    }

    /// Fits into `runs`, with a stop requested after step `stop_after`; gives all events.
    pub(crate) fn fit(
        &self,
        runs: &str,
        recipe: &Recipe,
        stop_after: Option<u64>,
    ) -> (Result<Fitted, TrainError>, Vec<Event>) {
        let (dataset, run) = (dataset(recipe), self.run_dir(runs, recipe));
        let cache_dir = self.dir.path().join("cache");
        let job = Job {
            recipe,
            base: &self.base,
            base_files: &self.files,
            dataset: &dataset,
            run: &run,
            cache_dir: &cache_dir,
        };
        let (stop, mut events) = (AtomicBool::new(false), Vec::new());
        let mut sink = |event: &Event| {
            if matches!(event, Event::Stepped(record) if Some(record.step) == stop_after) {
                stop.store(true, Ordering::Relaxed);
            }
            events.push(event.clone());
        };
        let fitted = fit(&job, &mut Watch { stop: &stop, sink: &mut sink });
        (fitted, events)
    }
}
