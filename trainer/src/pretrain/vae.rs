//! The autoencoder from scratch.

use std::cell::RefCell;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use checkpoints::Watch;
use checkpoints::folder::{Library, write_component};
use models::base::{host_values, tensor_from_host};
use models::vae::{AutoencoderKL, VaeConfig};
use models::{Builder, Network};
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use recipes::{PretrainRecipe, PretrainSpec};

use super::PretrainError;
use super::pictures::Pictures;
use super::run::{Pretrained, Progress, Trained, half_precision};

/// Pictures from which the scaling factor is measured.
const SCALING_PICTURES: usize = 1024;

pub(super) fn train(
    recipe: &PretrainRecipe,
    run_dir: &Path,
    device: &Device,
    watch: &mut Watch<'_, Progress>,
) -> Result<Pretrained, PretrainError> {
    let PretrainSpec::Vae { config, kl_weight } = &recipe.network else {
        return Err(super::wrong_network("vae"));
    };
    let json: serde_json::Value = checkpoints::fs::read_json(config)?;
    let shape = VaeConfig::from_json(&config.display().to_string(), &json)?;
    let pictures = Pictures::draw(&recipe.dataset, recipe.seed, 0);
    let vae = RefCell::new(AutoencoderKL::new(&Builder::initial(recipe.seed, device), &shape));
    let mut visit = |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
        vae.borrow_mut().visit("", &mut super::run::Show(show));
    };
    let mut trained = Trained::begin(recipe, &mut visit, run_dir, device)?;
    let n_samples = recipe.fit.batch.images as usize;
    let mut objective = |step: u64| {
        let chosen = pictures.batch(recipe.seed, step, n_samples);
        let side = pictures.side_px;
        let pixels = tensor_from_host(pictures.pixels(&chosen), [n_samples, 3, side, side], device);
        Ok(loss(
            &vae.borrow(),
            &pixels,
            posterior_noise(recipe.seed, step, &vae.borrow(), n_samples, side),
            *kl_weight,
        )?)
    };
    let done = trained.fit(recipe, &mut visit, &mut objective, watch)?;
    if !done {
        return Ok(Pretrained::Interrupted(trained.step()));
    }
    trained.finish(&mut visit);
    write(recipe, json, vae.into_inner(), &pictures)
}

/// Mean squared error of the reconstruction plus `kl_weight` times the mean divergence of the
/// posterior from N(0, 1), per latent.
///
/// Source: Kingma & Welling 2014, arXiv:1312.6114, equation 10, with means in place of sums.
fn loss(
    vae: &AutoencoderKL,
    pixels: &Tensor<4>,
    noise: Vec<f32>,
    kl_weight: f64,
) -> Result<Tensor<1>, models::ModelError> {
    let posterior = vae.posterior_from_pixels(pixels.clone())?;
    let shape = posterior.mean.dims();
    let noise = tensor_from_host(noise, shape, &pixels.device());
    let decoded = vae.pixels_from_unscaled(posterior.sample(noise));
    let reconstruction = (decoded - pixels.clone()).powi_scalar(2).mean();
    let (mean, log_variance) = (posterior.mean, posterior.log_variance);
    let divergence = mean.powi_scalar(2) + log_variance.clone().exp() - log_variance - 1.0;
    Ok(reconstruction + divergence.mean().mul_scalar(0.5 * kl_weight))
}

fn posterior_noise(
    seed: u64,
    step: u64,
    vae: &AutoencoderKL,
    n_samples: usize,
    side_px: usize,
) -> Vec<f32> {
    let side = side_px / vae.config().factor();
    let n_values = vae.config().latent_channels * side * side;
    (0..n_samples as u64)
        .into_par_iter()
        .flat_map_iter(|sample| {
            draws::normals(&mut draws::stream(seed, step, sample, Purpose::Posterior), n_values)
        })
        .collect()
}

/// Measures the scaling factor, 1 over the deviation of the latents, and writes the component.
///
/// Source: Rombach et al. 2022, arXiv:2112.10752, section G: latents are rescaled to unit variance.
fn write(
    recipe: &PretrainRecipe,
    mut json: serde_json::Value,
    mut vae: AutoencoderKL,
    pictures: &Pictures,
) -> Result<Pretrained, PretrainError> {
    let latents = moments(&vae, pictures, SCALING_PICTURES)?;
    let (mut sum, mut squares, mut n_values) = (0.0, 0.0, 0.0);
    for values in &latents {
        for (mean, log_variance) in
            values.iter().take(values.len() / 2).zip(&values[values.len() / 2..])
        {
            let (mean, variance) = (f64::from(*mean), f64::from(*log_variance).exp());
            sum += mean;
            squares += mean * mean + variance;
            n_values += 1.0;
        }
    }
    let deviation = (squares / n_values - (sum / n_values).powi(2)).sqrt();
    let scaling_factor = (1e5 / deviation).round() / 1e5;
    json["scaling_factor"] = serde_json::json!(scaling_factor);
    write_component(&recipe.into, Library::Diffusers, &json, &half_precision(&mut vae)?)?;
    Ok(Pretrained::Finished(recipe.into.clone()))
}

/// Posterior means, then log-variances, of the first `n_pictures` pictures, one vector each.
pub(super) fn moments(
    vae: &AutoencoderKL,
    pictures: &Pictures,
    n_pictures: usize,
) -> Result<Vec<Vec<f32>>, PretrainError> {
    let n_pictures = n_pictures.min(pictures.scenes.len());
    let all: Vec<usize> = (0..n_pictures).collect();
    let mut moments = Vec::with_capacity(n_pictures);
    let device = vae.device();
    let side = pictures.side_px;
    for chosen in all.chunks(128) {
        let pixels =
            tensor_from_host(pictures.pixels(chosen), [chosen.len(), 3, side, side], &device);
        let posterior = vae.posterior_from_pixels(pixels)?;
        let joined = Tensor::cat(vec![posterior.mean, posterior.log_variance], 1);
        let per_picture = joined.dims().iter().skip(1).product();
        moments.extend(host_values(joined)?.chunks(per_picture).map(<[f32]>::to_vec));
    }
    Ok(moments)
}
