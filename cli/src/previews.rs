//! Pictures drawn while training: of the base before the first step, then of what was saved.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use checkpoints::TensorFile;
use image::RgbImage;
use models::base::tensor_from_host;
use models::{Base, SizeConditions, Slot, Visitor};
use recipes::draws::Purpose;
use recipes::{PreviewsSpec, Recipe};

use crate::drawing::{Drawing, Method, Start, Tiles, draw};
use crate::error::JobError;
use crate::stage;

/// Draws the previews of one run.
#[derive(Debug)]
pub(crate) struct Previews {
    base: Base,
    spec: PreviewsSpec,
    method: Method,
    last_step: u64,
}

impl Previews {
    /// Previews of `recipe` on `base`, whose tensors are shared and never changed.
    ///
    /// # Errors
    ///
    /// A picture size that the base cannot draw.
    pub(crate) fn new(recipe: &Recipe, base: &Base) -> Result<Self, JobError> {
        let size_px = [recipe.dataset.image_options().side_px as usize; 2];
        let spec = recipe.fit.previews.clone();
        let method = Method {
            sampler: eval::sample::sampler_kind(&spec.sampler),
            spacing: spec.sampler.spacing,
            steps: spec.sampler.steps as usize,
            guidance_scale: spec.guidance_scale,
            guidance_rescale: spec.guidance_rescale,
            strength: 1.0,
            sizes: SizeConditions::whole(size_px),
            latent_shape: base.latent_shape(size_px)?,
            tiles: Tiles::Auto,
            batch: None,
        };
        Ok(Self { base: base.clone(), spec, method, last_step: recipe.fit.steps })
    }

    /// Whether a preview belongs after this step.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        let every = self.spec.every;
        step == self.last_step || (every > 0 && step.is_multiple_of(every))
    }

    /// Whether each row has a picture for every seed.
    pub(crate) fn is_complete(&self, rows: &[Vec<RgbImage>]) -> bool {
        rows.len() == self.spec.prompts.len()
            && rows.iter().all(|row| row.len() == self.spec.seeds.len())
    }

    /// One row per prompt, one picture per seed, of the base itself.
    ///
    /// # Errors
    ///
    /// As [`draw`].
    pub(crate) fn of_base(&self, stop: &AtomicBool) -> Result<Vec<Vec<RgbImage>>, JobError> {
        self.rows(&self.base, stop)
    }

    /// One row per prompt, one picture per seed, of a committed checkpoint.
    ///
    /// # Errors
    ///
    /// As [`draw`]; a checkpoint that cannot be read.
    pub(crate) fn of_checkpoint(
        &self,
        checkpoint: &Path,
        stop: &AtomicBool,
    ) -> Result<Vec<Vec<RgbImage>>, JobError> {
        let mut base = self.base.clone();
        let adapter = checkpoint.join("adapter.safetensors");
        if adapter.is_file() {
            let exchanged = stage::read_adapter(&adapter, &base)?;
            base = eval::sample::settled(&base, &exchanged.adapter, 1.0)?;
        } else {
            let file = TensorFile::open(&checkpoint.join("parameters.safetensors"))?;
            replace_parameters(&mut base, &file)?;
        }
        self.rows(&base, stop)
    }

    fn rows(&self, base: &Base, stop: &AtomicBool) -> Result<Vec<Vec<RgbImage>>, JobError> {
        if self.spec.prompts.is_empty() || self.spec.seeds.is_empty() {
            return Ok(vec![Vec::new(); self.spec.prompts.len()]);
        }
        let rows = self.drawn(&base.unparked(), stop);
        // What was brought onto a card for this goes before the next step asks for memory.
        self.base.device.memory_cleanup();
        rows
    }

    fn drawn(&self, base: &Base, stop: &AtomicBool) -> Result<Vec<Vec<RgbImage>>, JobError> {
        let shape = self.method.latent_shape;
        let start = |&seed: &u64| Start::of_seed(seed, shape, Purpose::Preview);
        let starts: Vec<Start> = self.spec.seeds.iter().map(start).collect();
        let row = |prompt: &String| -> Result<Vec<RgbImage>, JobError> {
            let drawing = Drawing { prompt, negative: "", method: self.method };
            let mut pictures: Vec<RgbImage> = Vec::new();
            draw(base, &drawing, &starts, stop, &mut pictures)?;
            Ok(pictures)
        };
        self.spec.prompts.iter().map(row).collect()
    }
}

/// Puts the trained parameters of a file into the copy of a base.
fn replace_parameters(base: &mut Base, file: &TensorFile) -> Result<(), JobError> {
    let device = base.device.clone();
    let mut replace = Replace { file, device: &device, failure: None };
    for (component, network) in base.adapted() {
        network.visit(component, &mut replace);
    }
    replace.failure.map_or(Ok(()), |error| Err(error.into()))
}

struct Replace<'a> {
    file: &'a TensorFile,
    device: &'a models::Device,
    failure: Option<checkpoints::CheckpointError>,
}

impl Visitor for Replace<'_> {
    fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
        if self.file.info(path).is_none() {
            return;
        }
        match self.file.read(path) {
            Ok(tensor) => {
                let values = tensor.f32().into_owned();
                let n_values = values.len();
                slot.set(tensor_from_host(values, [n_values], self.device));
            }
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
    }
}
