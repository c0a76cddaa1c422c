//! The figures of the embedded base: how well the known world was learned.
//!
//! Possible only for postcards, whose renderer knows the truth about every picture. The bounds that
//! a release must meet stand in [`BaseFigures::shortfalls`].

use burn::tensor::Tensor;
use datasets::postcards::{self, Color, Facet, Factors, Setting, Style, Subject, prior};
use diffusion::{Sampler, SamplerKind, SchedulerConfig};
use models::base::{host_values, tensor_from_host};
use models::{Base, Evaluator, SizeConditions};
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use serde::Serialize;

use crate::error::EvalError;
use crate::sample::byte;
use crate::world::even;
use statistics::calibrate::simplex_least_squares;

/// Seed of held-out scenes and of all drawings; no training uses it.
const SEED: u64 = 7_777_777;
/// Pictures per forward pass.
const BATCH: usize = 64;

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Extent {
    /// Held-out renderings that the autoencoder reconstructs.
    pub reconstructions: usize,
    /// Held-out renderings that the evaluator names.
    pub renderings: usize,
    /// Pictures asked per subject and per color.
    pub asked_per_value: usize,
    /// Pictures drawn unasked.
    pub unasked: usize,
    /// Sampler steps for asked pictures.
    pub asked_steps: usize,
    /// Guidance scale for asked pictures.
    pub guidance_scale: f64,
    /// Sampler steps for unasked pictures.
    pub unasked_steps: usize,
}

impl Extent {
    /// What the model card states.
    pub const FULL: Self = Self {
        reconstructions: 500,
        renderings: 1000,
        asked_per_value: 24,
        unasked: 1024,
        asked_steps: 30,
        guidance_scale: 3.0,
        unasked_steps: 50,
    };
}

/// One facet's figures, each share in [0, 1].
#[derive(Clone, Debug, Serialize)]
pub struct FacetFigures {
    /// Name of the facet.
    pub facet: &'static str,
    /// Zero-shot accuracy on held-out renderings.
    pub accuracy: f64,
    /// Share of pictures asked by name in which the evaluator finds what was asked; `None` for
    /// facets that are not asked.
    pub asked: Option<f64>,
    /// Total variation between unasked pictures and the published prior, as counted.
    pub total_variation_raw: f64,
    /// The same after correction by the evaluator's confusion on renderings.
    pub total_variation: f64,
    /// Values with their prior and their calibrated share among unasked pictures.
    pub shares: Vec<(&'static str, f64, f64)>,
}

/// All figures.
#[derive(Clone, Debug, Serialize)]
pub struct BaseFigures {
    /// What was measured.
    pub extent: Extent,
    /// Mean peak signal-to-noise ratio of the autoencoder's reconstructions, in dB.
    pub psnr_db: f64,
    /// One entry per facet.
    pub facets: Vec<FacetFigures>,
}

impl BaseFigures {
    /// The bounds that are missed, in words; empty for a base that may be shipped.
    pub fn shortfalls(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let mut at_least = |what: String, found: f64, bound: f64| {
            if found < bound {
                missed.push(format!("{what}: {found:.3}, expected at least {bound}"));
            }
        };
        at_least("reconstruction PSNR in dB".to_owned(), self.psnr_db, 26.0);
        for facet in &self.facets {
            let bound = if facet.facet == "subject" { 0.97 } else { 0.95 };
            at_least(format!("evaluator accuracy, {}", facet.facet), facet.accuracy, bound);
            if let Some(asked) = facet.asked {
                at_least(format!("asked {} found", facet.facet), asked, 0.90);
            }
            if facet.facet == "subject" {
                at_least(
                    "1 − total variation over subjects".to_owned(),
                    1.0 - facet.total_variation,
                    0.92,
                );
            }
        }
        missed
    }
}

/// Measures a base and its evaluator against the world of postcards.
///
/// # Errors
///
/// A fault of the device, or a scheduler configuration that is not supported.
pub fn base_figures(
    base: &Base,
    evaluator: &Evaluator,
    extent: Extent,
) -> Result<BaseFigures, EvalError> {
    let labels = Labels::new(evaluator)?;
    let held_out: Vec<Factors> =
        (0..extent.renderings as u64).map(|i| postcards::scene(SEED, i).factors).collect();
    let named = labels.of(evaluator, &rendered(&held_out, SEED))?;
    let uniform: Vec<Factors> =
        (0..3 * extent.renderings as u64).map(|picture| even(SEED, picture)).collect();
    // Generated pictures come through the autoencoder; so do those that say what is mistaken for what.
    let seen = reconstructed(&rendered(&uniform, SEED + 1), base)?;
    let confusion = labels.of(evaluator, &seen)?;
    let drawing = Drawing::new(base)?;
    let unasked =
        drawing.draw(&vec![String::new(); extent.unasked], extent.unasked_steps, 1.0, 1.0)?;
    let unasked = labels.of(evaluator, &unasked)?;
    let asked = ask(&drawing, evaluator, &labels, extent)?;
    let facets = Facet::ALL
        .iter()
        .map(|&facet| {
            let shares = calibrated(facet, &uniform, &confusion, &unasked);
            let prior: Vec<f64> =
                (0..facet.values().len()).map(|value| prior_of(facet, value)).collect();
            let raw = counted(facet, &unasked);
            FacetFigures {
                facet: facet.name(),
                accuracy: agreement(&held_out, &named, facet),
                asked: asked.iter().find(|(name, _)| *name == facet).map(|(_, share)| *share),
                total_variation_raw: total_variation(&prior, &raw),
                total_variation: total_variation(&prior, &shares),
                shares: facet
                    .values()
                    .into_iter()
                    .zip(prior)
                    .zip(shares)
                    .map(|((n, p), s)| (n, p, s))
                    .collect(),
            }
        })
        .collect();
    Ok(BaseFigures { extent, psnr_db: psnr(base, extent.reconstructions)?, facets })
}

fn rendered(factors: &[Factors], seed: u64) -> Vec<Vec<u8>> {
    let paint = |(index, factors): (usize, &Factors)| {
        postcards::paint(&postcards::scene_with(*factors, seed, index as u64), 64).into_raw()
    };
    factors.par_iter().enumerate().map(paint).collect()
}

/// Position of a picture's value within each facet, in the order of [`Facet::ALL`].
type Named = [usize; 4];

fn position(factors: Factors, facet: Facet) -> usize {
    match facet {
        Facet::Subject => factors.subject.position(),
        Facet::Color => factors.color.position(),
        Facet::Setting => factors.setting.position(),
        Facet::Style => factors.style.position(),
    }
}

fn prior_of(facet: Facet, value: usize) -> f64 {
    match facet {
        Facet::Subject => prior::SUBJECTS[value],
        Facet::Color => prior::COLORS[value],
        Facet::Setting => prior::SETTINGS[value],
        Facet::Style => prior::STYLES[value],
    }
}

/// Unit text embeddings per facet and value.
struct Labels {
    facets: Vec<Vec<Vec<f32>>>,
}

impl Labels {
    fn new(evaluator: &Evaluator) -> Result<Self, EvalError> {
        let facets = Facet::ALL.iter().map(|&facet| {
            (0..facet.values().len())
                .map(|value| centroid(evaluator, &templates(facet, value)))
                .collect()
        });
        Ok(Self { facets: facets.collect::<Result<_, EvalError>>()? })
    }

    /// The nearest value of each facet for each picture.
    fn of(&self, evaluator: &Evaluator, pictures: &[Vec<u8>]) -> Result<Vec<Named>, EvalError> {
        let borrowed: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        let nearest = |embedding: &Vec<f32>| {
            let mut named = [0; 4];
            for (facet, values) in self.facets.iter().enumerate() {
                let score =
                    |value: &Vec<f32>| value.iter().zip(embedding).map(|(a, b)| a * b).sum::<f32>();
                let best = values
                    .iter()
                    .map(score)
                    .enumerate()
                    .max_by(|left, right| left.1.total_cmp(&right.1));
                named[facet] = best.map_or(0, |(value, _)| value);
            }
            named
        };
        Ok(evaluator.image_embeddings(&borrowed)?.iter().map(nearest).collect())
    }
}

/// The ways in which a value is named to the evaluator.
fn templates(facet: Facet, value: usize) -> Vec<String> {
    match facet {
        Facet::Subject => {
            let word = Subject::ALL[value].phrase();
            vec![
                format!("a postcard of a {word}"),
                format!("a picture of a {word}"),
                format!("a {word}"),
            ]
        }
        Facet::Color => {
            let word = Color::ALL[value].phrase();
            vec![format!("a picture of something {word}")]
        }
        Facet::Setting => {
            let word = Setting::ALL[value].phrase();
            vec![
                format!("a picture {word}"),
                format!("a postcard {word}"),
                format!("something {word}"),
            ]
        }
        Facet::Style => vec![format!("a postcard in {} style", Style::ALL[value].phrase())],
    }
}

fn centroid(evaluator: &Evaluator, texts: &[String]) -> Result<Vec<f32>, EvalError> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let embeddings = evaluator.text_embeddings(&texts)?;
    let width = embeddings.first().map_or(0, Vec::len);
    let sum: Vec<f32> =
        (0..width).map(|at| embeddings.iter().map(|embedding| embedding[at]).sum()).collect();
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    Ok(sum.into_iter().map(|value| value / length).collect())
}

/// Draws pictures with the base; noise is keyed by the picture's index.
struct Drawing<'a> {
    base: &'a Base,
    scheduler: SchedulerConfig,
}

impl<'a> Drawing<'a> {
    fn new(base: &'a Base) -> Result<Self, EvalError> {
        let scheduler =
            serde_json::from_value(base.scheduler.clone()).map_err(EvalError::Scheduler)?;
        Ok(Self { base, scheduler })
    }

    /// One picture per prompt as interleaved RGB bytes; DDIM with `eta`.
    fn draw(
        &self,
        prompts: &[String],
        n_steps: usize,
        eta: f64,
        scale: f64,
    ) -> Result<Vec<Vec<u8>>, EvalError> {
        let mut pictures = Vec::with_capacity(prompts.len());
        for (batch_idx, batch) in prompts.chunks(BATCH).enumerate() {
            pictures.extend(self.draw_batch(batch, batch_idx * BATCH, n_steps, [eta, scale])?);
        }
        Ok(pictures)
    }

    fn draw_batch(
        &self,
        prompts: &[String],
        first: usize,
        n_steps: usize,
        [eta, scale]: [f64; 2],
    ) -> Result<Vec<Vec<u8>>, EvalError> {
        let base = self.base;
        let n = prompts.len();
        let [channels, height, width] = base.latent_shape([base.nominal_side_px(); 2])?;
        let normal = |step: u64, purpose: Purpose| {
            let one = |row| {
                draws::normals(
                    &mut draws::stream(SEED, step, row, purpose),
                    channels * height * width,
                )
            };
            let values =
                (first as u64..(first + n) as u64).into_par_iter().flat_map_iter(one).collect();
            tensor_from_host(values, [n, channels, height, width], &base.device)
        };
        let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let sizes = [SizeConditions::whole([base.nominal_side_px(); 2])];
        let asked = base.conditioning(base.text_states(&texts)?, &sizes);
        let empty = base.conditioning(base.negative_states(&vec![""; n])?, &sizes);
        let kind = SamplerKind::Ddim { eta };
        let mut sampler = Sampler::new(kind, &self.scheduler, n_steps)?;
        let mut denoise = |x: Tensor<4>, t: f64| {
            let times = base.timesteps(t, n);
            let conditional = base.denoise(x.clone(), times.clone(), &asked)?;
            if (scale - 1.0).abs() < f64::EPSILON {
                return Ok::<_, EvalError>(conditional);
            }
            Ok(diffusion::guide(base.denoise(x, times, &empty)?, conditional, scale))
        };
        let mut noise = |step: usize| normal(step as u64, Purpose::CensusStep);
        let start = normal(0, Purpose::CensusStart);
        let latents = diffusion::sample(&mut sampler, start, &mut denoise, &mut noise)?;
        bytes_from_pixels(base.vae.pixels_from_latents(latents))
    }
}

/// `[n, 3, h, w]` in [−1, 1] as interleaved RGB bytes.
fn bytes_from_pixels(pixels: Tensor<4>) -> Result<Vec<Vec<u8>>, EvalError> {
    let [_, channels, height, width] = pixels.dims();
    let n_pixels = height * width;
    let interleave = |planes: &[f32]| {
        (0..n_pixels)
            .flat_map(|at| (0..channels).map(move |c| byte(planes[c * n_pixels + at])))
            .collect()
    };
    Ok(host_values(pixels)?.chunks(channels * n_pixels).map(interleave).collect())
}

/// Shares in which subject and color were found when asked.
fn ask(
    drawing: &Drawing<'_>,
    evaluator: &Evaluator,
    labels: &Labels,
    extent: Extent,
) -> Result<[(Facet, f64); 2], EvalError> {
    let mut prompts = Vec::new();
    let mut truth = Vec::new();
    for (value, subject) in Subject::ALL.iter().enumerate() {
        for _ in 0..extent.asked_per_value {
            prompts.push(format!("a postcard of a {}", subject.phrase()));
            truth.push((0, value));
        }
    }
    for (value, color) in Color::ALL.iter().enumerate() {
        for index in 0..extent.asked_per_value {
            let subject = Subject::ALL[index % Subject::ALL.len()].phrase();
            let article = if color.phrase().starts_with('o') { "an" } else { "a" };
            prompts.push(format!("a postcard of {article} {} {subject}", color.phrase()));
            truth.push((1, value));
        }
    }
    let pictures = drawing.draw(&prompts, extent.asked_steps, 0.0, extent.guidance_scale)?;
    let named = labels.of(evaluator, &pictures)?;
    let share = |facet: usize| {
        let asked: Vec<_> =
            truth.iter().zip(&named).filter(|((asked, _), _)| *asked == facet).collect();
        asked.iter().filter(|((_, value), named)| named[facet] == *value).count() as f64
            / asked.len().max(1) as f64
    };
    Ok([(Facet::ALL[0], share(0)), (Facet::ALL[1], share(1))])
}

fn facet_index(facet: Facet) -> usize {
    Facet::ALL.iter().position(|&other| other == facet).unwrap_or(0)
}

fn agreement(truth: &[Factors], named: &[Named], facet: Facet) -> f64 {
    let index = facet_index(facet);
    let right = truth
        .iter()
        .zip(named)
        .filter(|(factors, named)| position(**factors, facet) == named[index])
        .count();
    right as f64 / truth.len().max(1) as f64
}

fn counted(facet: Facet, named: &[Named]) -> Vec<f64> {
    let index = facet_index(facet);
    let count = |value| named.iter().filter(|named| named[index] == value).count();
    (0..facet.values().len()).map(|value| count(value) as f64 / named.len().max(1) as f64).collect()
}

/// Shares of the unasked pictures, corrected by the confusion seen on renderings.
fn calibrated(facet: Facet, truth: &[Factors], named: &[Named], unasked: &[Named]) -> Vec<f64> {
    let index = facet_index(facet);
    let n_values = facet.values().len();
    let mut matrix = vec![vec![0.0; n_values]; n_values];
    let mut totals = vec![0.0; n_values];
    for (factors, named) in truth.iter().zip(named) {
        matrix[named[index]][position(*factors, facet)] += 1.0;
        totals[position(*factors, facet)] += 1.0;
    }
    for row in &mut matrix {
        row.iter_mut().zip(&totals).for_each(|(count, total)| *count /= f64::max(*total, 1.0));
    }
    simplex_least_squares(&matrix, &counted(facet, unasked))
}

fn total_variation(left: &[f64], right: &[f64]) -> f64 {
    0.5 * left.iter().zip(right).map(|(left, right)| (left - right).abs()).sum::<f64>()
}

/// Pictures of 64 × 64 px as the autoencoder gives them back, as interleaved RGB bytes.
fn reconstructed(pictures: &[Vec<u8>], base: &Base) -> Result<Vec<Vec<u8>>, EvalError> {
    let mut decoded = Vec::with_capacity(pictures.len());
    for batch in pictures.chunks(BATCH) {
        let planes = batch.iter().flat_map(|bytes| {
            (0..bytes.len()).map(|at| f32::from(bytes[(at % 4096) * 3 + at / 4096]) / 127.5 - 1.0)
        });
        let pixels = tensor_from_host(planes.collect(), [batch.len(), 3, 64, 64], &base.device);
        let posterior = base.vae.posterior_from_pixels(pixels)?;
        decoded.extend(bytes_from_pixels(base.vae.pixels_from_unscaled(posterior.mean))?);
    }
    Ok(decoded)
}

/// Mean over pictures of 10·log₁₀(255²/MSE) between a rendering and its reconstruction.
fn psnr(base: &Base, n_pictures: usize) -> Result<f64, EvalError> {
    let factors: Vec<Factors> =
        (0..n_pictures as u64).map(|i| postcards::scene(SEED + 2, i).factors).collect();
    let pictures = rendered(&factors, SEED + 2);
    let mut decibels = 0.0;
    for batch in pictures.chunks(BATCH) {
        let decoded = reconstructed(batch, base)?;
        for (original, decoded) in batch.iter().zip(&decoded) {
            let squares =
                original.iter().zip(decoded).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            let mse = (squares.sum::<f64>() / original.len() as f64).max(1e-6);
            decibels += 10.0 * (255.0 * 255.0 / mse).log10();
        }
    }
    Ok(decibels / n_pictures.max(1) as f64)
}
