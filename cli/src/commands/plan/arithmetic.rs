//! Counts of steps, pictures and forward passes, from the recipe alone.

use datasets::Dataset;
use eval::plan::{CensusPlan, Divisible};
use recipes::{AdapterSpec, CensusSpec, ClassSource, DatasetSpec, Recipe};

use super::real;
use crate::error::JobError;

/// Sampler steps of class pictures that the base draws, as the trainer takes them.
const CLASS_STEPS: u64 = 20;
/// Share of an entity for which the detectable change is stated.
const SHARE: f64 = 0.1;
/// Quantiles of 95 % confidence, two-sided, and of 80 % power.
const Z: (f64, f64) = (1.959_964, 0.841_621);

/// A training in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Training {
    /// Pictures of the concept.
    pub(super) n_pictures: u64,
    /// Optimizer steps.
    pub(super) steps: u64,
    /// Pictures of the concept per step.
    concept_per_step: u64,
    /// Pictures per step, those of the class included.
    pub(super) images_per_step: u64,
    /// Passes over the concept's pictures, repeats counted.
    pub(super) epochs: f64,
    /// Forward passes of single pictures in training, each with a backward pass.
    pub(super) forwards: u64,
    /// Forward passes to draw class pictures.
    pub(super) class_forwards: u64,
    /// Forward passes to draw previews.
    pub(super) preview_forwards: u64,
}

impl Training {
    /// The training of a recipe with so many pictures.
    pub(super) fn of(recipe: &Recipe, n_examples: u64) -> Self {
        let (fit, images) = (&recipe.fit, recipe.dataset.image_options());
        let class = match &recipe.dataset {
            DatasetSpec::DreamBooth(dreambooth) => dreambooth.class.as_ref(),
            DatasetSpec::Captioned(_) => None,
        };
        let concept_per_step = u64::from(fit.batch.images) * u64::from(fit.batch.accumulate);
        let images_per_step = concept_per_step * if class.is_some() { 2 } else { 1 };
        let drawn = match class.map(|class| &class.source) {
            Some(ClassSource::Generate { images }) => u64::from(*images),
            Some(ClassSource::Folder(_)) | None => 0,
        };
        let guidance = guidance_factor(fit.previews.guidance_scale);
        let between = fit.steps.checked_div(fit.previews.every).unwrap_or(0);
        let last_is_extra = fit.previews.every == 0 || fit.steps % fit.previews.every != 0;
        let n_previews = 1 + between + u64::from(last_is_extra);
        let per_preview = (fit.previews.prompts.len() * fit.previews.seeds.len()) as u64
            * u64::from(fit.previews.sampler.steps)
            * guidance;
        let per_epoch = n_examples.max(1) * u64::from(images.repeats);
        Self {
            n_pictures: n_examples,
            steps: fit.steps,
            concept_per_step,
            images_per_step,
            epochs: real(fit.steps * concept_per_step) / real(per_epoch),
            forwards: fit.steps * images_per_step,
            class_forwards: drawn * CLASS_STEPS * guidance,
            preview_forwards: n_previews * per_preview,
        }
    }

    /// Seconds of all steps, from that of a step on the concept's pictures alone.
    pub(super) fn steps_secs(&self, concept_step_secs: f64) -> f64 {
        let share = real(self.images_per_step) / real(self.concept_per_step);
        real(self.steps) * concept_step_secs * share
    }

    /// The same in words.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { n_pictures, steps, images_per_step, epochs, forwards, .. } = self;
        vec![
            format!(
                "training: {n_pictures} pictures, {steps} steps × {images_per_step} pictures = \
                 {forwards} forward and backward passes, {epochs:.1} epochs"
            ),
            format!(
                "besides: {} forward passes for class pictures, {} for previews",
                self.class_forwards, self.preview_forwards
            ),
        ]
    }
}

/// Forward passes per step and picture: two with guidance.
#[expect(clippy::float_cmp, reason = "exactly 1 means no guidance")]
fn guidance_factor(scale: f64) -> u64 {
    if scale == 1.0 { 1 } else { 2 }
}

/// A census in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Census {
    /// Pictures of all models.
    pub(super) n_pictures: u64,
    /// Forward passes of single pictures.
    pub(super) forwards: u64,
    /// Pairs of base and adapted model behind the headline.
    pub(super) n_pairs: u64,
}

impl Census {
    /// The census of a recipe with these pictures.
    ///
    /// # Errors
    ///
    /// A thesaurus, panel or concept that the census cannot use.
    pub(super) fn of(
        recipe: &Recipe,
        spec: &CensusSpec,
        dataset: &Dataset,
    ) -> Result<Self, JobError> {
        let divisible = match recipe.adapter {
            AdapterSpec::Lora(_) => Divisible::Yes,
            AdapterSpec::Full(_) => Divisible::No,
        };
        let plan = CensusPlan::new(spec, &recipe.dataset, dataset, divisible)?;
        let headline = plan.drawings.iter().filter(|drawing| {
            drawing.model.is_settlement(drawing.dose) && drawing.prompt.stratum.is_headline()
        });
        Ok(Self {
            n_pictures: plan.pictures(),
            forwards: plan.forwards(spec),
            n_pairs: headline.map(|drawing| u64::from(drawing.seeds)).sum(),
        })
    }

    /// The same in words.
    pub(super) fn lines(&self) -> Vec<String> {
        let shift = detectable_shift(self.n_pairs);
        vec![
            format!("census: {} pictures, {} forward passes", self.n_pictures, self.forwards),
            format!(
                "detectable: a share of 10 % must change by {:.1} points to be seen ({} pairs, 95 % \
                 confidence, 80 % power)",
                100.0 * shift,
                self.n_pairs
            ),
        ]
    }
}

/// The least change δ of a share of 10 % that `n_pairs` pairs show: the root of
/// N = (z₁√ψ + z₂√(ψ − δ²))²/δ² with discordance ψ = ½(p + p′).
///
/// Source: paired sample size after Connor 1987, Biometrics 43, 207–211.
pub(super) fn detectable_shift(n_pairs: u64) -> f64 {
    let needed = |delta: f64| {
        let discordance = 0.5 * (SHARE + (SHARE - delta));
        let root = Z.0 * discordance.sqrt() + Z.1 * (discordance - delta * delta).max(0.0).sqrt();
        root * root / (delta * delta)
    };
    let (mut low, mut high) = (1e-6, SHARE);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if needed(middle) > real(n_pairs) { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipes::Loaded;
    use std::path::Path;

    fn recipe(text: &str) -> Recipe {
        match recipes::load_text(Path::new("r.yaml"), text, &[]).unwrap() {
            Loaded::Settle(recipe) => *recipe,
            Loaded::Pretrain(_) => panic!("a settlement was written"),
        }
    }

    const TEXT: &str = "
name: a
base: postcards
adapter: { lora: { rank: 4 } }
dataset:
  dreambooth:
    instance: { images: p, identifier: sks, class: tower, prompt: \"a {identifier} {class}\" }
    class: { generate: 10, prompt: \"a {class}\", weight: 0.5 }
fit:
  steps: 30
  batch: { images: 2, accumulate: 2 }
  optimizer: { adamw: { learning_rate: 1.0e-3 } }
  save_every: 10
  previews: { every: 20, prompts: [\"\"], seeds: [0, 1], sampler: { ddim: { steps: 5 } } }
";

    #[test]
    fn every_forward_pass_is_counted() {
        let training = Training::of(&recipe(TEXT), 16);
        assert_eq!((training.images_per_step, training.forwards), (8, 240));
        assert!((training.epochs - 7.5).abs() < 1e-12);
        assert_eq!(training.class_forwards, 10 * 20 * 2);
        // Before the first step, after step 20 and after the last: 2 pictures of 5 steps, guided.
        assert_eq!(training.preview_forwards, 3 * 2 * 5 * 2);
        assert!((training.steps_secs(2.0) - 120.0).abs() < 1e-12);
    }

    #[test]
    fn more_pairs_show_smaller_changes() {
        let (glance, survey) = (detectable_shift(640), detectable_shift(2048));
        assert!(survey < glance && glance < 0.05, "{survey} {glance}");
        // The formula the other way round: N of the shift found.
        let discordance = SHARE - 0.5 * glance;
        let root = Z.0 * discordance.sqrt() + Z.1 * (discordance - glance * glance).sqrt();
        assert!((root * root / (glance * glance) - 640.0).abs() < 0.1);
    }
}
