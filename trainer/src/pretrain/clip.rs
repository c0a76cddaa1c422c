//! The evaluator from scratch: a CLIP of its own, never shown to a UNet.

use std::cell::RefCell;
use std::path::Path;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use checkpoints::Watch;
use checkpoints::folder::{Library, write_component};
use datasets::postcards::Scene;
use models::base::tensor_from_host;
use models::evaluator::{ClipModel, normalised, unit_rows};
use models::tokenizer::OverLength;
use models::{Builder, ClipTokenizer, Network};
use rayon::prelude::*;
use recipes::{PretrainRecipe, PretrainSpec};

use super::PretrainError;
use super::pictures::{CaptionShares, Captioner, Pictures};
use super::run::{Pretrained, Progress, Show, Trained, half_precision};
use super::vocabulary;

/// Largest factor on cosines, as CLIP clamps it.
const LARGEST_LOGIT_SCALE: f64 = 100.0;

pub(super) fn train(
    recipe: &PretrainRecipe,
    run_dir: &Path,
    device: &Device,
    watch: &mut Watch<'_, Progress>,
) -> Result<Pretrained, PretrainError> {
    let PretrainSpec::Clip { config, augment_captions } = &recipe.network else {
        return Err(super::wrong_network("clip"));
    };
    let mut json: serde_json::Value = checkpoints::fs::read_json(config)?;
    vocabulary::write(&recipe.into, &mut json["text_config"])?;
    let tokenizer = ClipTokenizer::load(&recipe.into)?;
    let pictures = Pictures::draw(&recipe.dataset, recipe.seed, 0);
    let builder = Builder::initial(recipe.seed, device);
    let model = RefCell::new(ClipModel::new(&builder, &config.display().to_string(), &json)?);
    let mut visit = |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
        model.borrow_mut().visit("", &mut Show(show));
    };
    let mut trained = Trained::begin(recipe, &mut visit, run_dir, device)?;
    let shares = CaptionShares { dropped: 0.0, shortened: *augment_captions };
    let mut objective = |step: u64| {
        let batch = Batch::of(recipe, &pictures, &tokenizer, shares, step)?;
        Ok(batch.loss(&model.borrow(), device))
    };
    let done = trained.fit(recipe, &mut visit, &mut objective, watch)?;
    if !done {
        return Ok(Pretrained::Interrupted(trained.step()));
    }
    trained.finish(&mut visit);
    let mut model = model.into_inner();
    write_component(&recipe.into, Library::Transformers, &json, &half_precision(&mut model)?)?;
    Ok(Pretrained::Finished(recipe.into.clone()))
}

/// Pictures and captions of one step, and which caption is true of which picture.
struct Batch {
    pixels: Vec<f32>,
    side_px: usize,
    token_ids: Vec<Vec<u32>>,
    /// Row = caption, column = picture: 1 where the caption describes the picture.
    describes: Vec<f32>,
}

impl Batch {
    fn of(
        recipe: &PretrainRecipe,
        pictures: &Pictures,
        tokenizer: &ClipTokenizer,
        shares: CaptionShares,
        step: u64,
    ) -> Result<Self, PretrainError> {
        let n_samples = recipe.fit.batch.images as usize;
        let chosen = pictures.batch(recipe.seed, step, n_samples);
        let scenes: Vec<&Scene> = chosen.iter().map(|&index| &pictures.scenes[index]).collect();
        let captioner = |sample| pictures.captioner(recipe.seed, step, sample as u64, shares);
        let captions: Vec<String> =
            (0..n_samples).map(|sample| captioner(sample).of(scenes[sample])).collect();
        let encode = |caption: &String| tokenizer.encode(caption, OverLength::Error);
        let n_pixels = pictures.side_px * pictures.side_px;
        Ok(Self {
            pixels: chosen
                .iter()
                .flat_map(|&index| normalised(&pictures.bytes[index], n_pixels))
                .collect(),
            side_px: pictures.side_px,
            token_ids: captions.iter().map(encode).collect::<Result<_, _>>()?,
            describes: (0..n_samples)
                .into_par_iter()
                .flat_map_iter(|row| described(captioner(row), &captions[row], &scenes))
                .collect(),
        })
    }

    /// Contrastive loss in both directions, where every true pair counts as one.
    ///
    /// Source: Radford et al. 2021, arXiv:2103.00020, figure 3, with the one-hot targets replaced by
    /// all true pairs of the batch (Khosla et al. 2020, arXiv:2004.11362, equation 2).
    fn loss(self, model: &ClipModel, device: &Device) -> Tensor<1> {
        let n_samples = self.token_ids.len();
        let pixels =
            tensor_from_host(self.pixels, [n_samples, 3, self.side_px, self.side_px], device);
        let images = unit_rows(model.vision.forward(pixels));
        let output = model.text.forward(&self.token_ids);
        let texts = unit_rows(output.projected.unwrap_or(output.pooled));
        let scale = model.logit_scale.clone().clamp_max(LARGEST_LOGIT_SCALE.ln()).exp();
        let logits = texts.matmul(images.transpose()) * scale.reshape([1, 1]);
        let describes = tensor_from_host(self.describes, [n_samples, n_samples], device);
        let by_caption = cross_entropy(logits.clone(), describes.clone());
        let by_picture = cross_entropy(logits.transpose(), describes.transpose());
        (by_caption + by_picture).mul_scalar(0.5)
    }
}

/// For every scene whether the caption would be said of it.
fn described<'a>(
    captioner: Captioner,
    caption: &'a str,
    scenes: &'a [&Scene],
) -> impl Iterator<Item = f32> + 'a {
    scenes.iter().map(move |scene| if captioner.of(scene) == caption { 1.0 } else { 0.0 })
}

/// Mean over rows of −Σ target·log softmax, with the targets of a row sharing one unit of mass.
fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let shares = targets.clone() / targets.sum_dim(1);
    let n_rows = logits.dims()[0];
    (log_softmax(logits, 1) * shares).sum().neg().div_scalar(n_rows as f64)
}
