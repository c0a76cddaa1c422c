//! Real networks behind the protocol that the instruments see.

use crate::error::EvalError;
use crate::protocol::{Condition, Denoiser, Level};
use crate::sample::Sampling;
use diffusion::Prediction;
use models::base::{host_values, tensor_from_host};
use models::{Base, Conditioning, SizeConditions};
use statistics::number::single;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Values of noisy latents per forward pass.
const BATCH_VALUES: usize = 1 << 16;

/// The denoiser of a base or of a settled model, without guidance.
///
/// Host values are brought to f32, which the network computes in or from; every output is turned into
/// the noise that it implies, whatever the network predicts.
#[derive(Debug)]
pub(crate) struct Network<'a> {
    base: &'a Base,
    prediction: Prediction,
    shape: [usize; 3],
    side_px: usize,
    stop: &'a AtomicBool,
    conditionings: BTreeMap<String, Conditioning>,
}

impl<'a> Network<'a> {
    /// The network of `base`, at the size of the pictures of a census.
    ///
    /// # Errors
    ///
    /// Sides that the base cannot draw.
    pub(crate) fn new(
        base: &'a Base,
        sampling: &Sampling,
        stop: &'a AtomicBool,
    ) -> Result<Self, EvalError> {
        Ok(Self {
            base,
            prediction: sampling.scheduler.prediction_type,
            shape: base.latent_shape([sampling.side_px; 2])?,
            side_px: sampling.side_px,
            stop,
            conditionings: BTreeMap::new(),
        })
    }

    fn conditioning(&mut self, condition: Condition<'_>) -> Result<Conditioning, EvalError> {
        let text = match condition {
            Condition::Nothing => "",
            Condition::Words(words) => words,
        };
        if let Some(known) = self.conditionings.get(text) {
            return Ok(known.clone());
        }
        // Nothing asked for is what guidance is held against: of some bases zeros.
        let states = match condition {
            Condition::Nothing => self.base.negative_states(&[text])?,
            Condition::Words(_) => self.base.text_states(&[text])?,
        };
        let sizes = [SizeConditions::whole([self.side_px; 2])];
        let conditioning = self.base.conditioning(states, &sizes);
        self.conditionings.insert(text.to_owned(), conditioning.clone());
        Ok(conditioning)
    }
}

impl Denoiser for Network<'_> {
    fn width(&self) -> usize {
        self.shape.iter().product()
    }

    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        condition: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError> {
        let width = self.width().max(1);
        let conditioning = self.conditioning(condition)?;
        let at_once = (BATCH_VALUES / width).max(1);
        let mut noise = Vec::with_capacity(noisy.len());
        for batch in noisy.chunks(at_once * width) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EvalError::Stopped);
            }
            let n = batch.len() / width;
            let values: Vec<f32> = batch.iter().map(|&value| single(value)).collect();
            let [channels, height, side] = self.shape;
            let sides = [n, channels, height, side];
            let input = tensor_from_host(values, sides, &self.base.device);
            let times = self.base.timesteps(level.timestep, n);
            let output = self.base.denoise(input, times, &conditioning.repeat(n))?;
            let said = host_values(output)?;
            noise.extend(
                batch.iter().zip(said).map(|(&x, output)| {
                    implied_noise(self.prediction, x, f64::from(output), level)
                }),
            );
        }
        Ok(noise)
    }
}

/// ε̂ of what a network puts out at noisy x.
fn implied_noise(prediction: Prediction, x: f64, output: f64, level: Level) -> f64 {
    let (signal, noise) = (libm::sqrt(level.alpha_cumprod), libm::sqrt(1.0 - level.alpha_cumprod));
    match prediction {
        Prediction::Epsilon => output,
        Prediction::V => signal * output + noise * x,
        Prediction::Sample => (x - signal * output) / noise,
    }
}

/// What the innermost block of `base` makes of noisy samples under the empty prompt: one point of
/// h-space per sample.
///
/// # Errors
///
/// Sides that the base cannot draw; a fault of the device; [`EvalError::Stopped`] once `stop` is set.
pub(crate) fn activations(
    base: &Base,
    sampling: &Sampling,
    (noisy, level): &(Vec<f64>, Level),
    stop: &AtomicBool,
) -> Result<Vec<Vec<f32>>, EvalError> {
    let mut network = Network::new(base, sampling, stop)?;
    let conditioning = network.conditioning(Condition::Nothing)?;
    let width = network.width().max(1);
    let [channels, height, side] = network.shape;
    let mut points = Vec::new();
    for batch in noisy.chunks((BATCH_VALUES / width).max(1) * width) {
        if stop.load(Ordering::Relaxed) {
            return Err(EvalError::Stopped);
        }
        let n = batch.len() / width;
        let values: Vec<f32> = batch.iter().map(|&value| single(value)).collect();
        let input = tensor_from_host(values, [n, channels, height, side], &base.device);
        let times = base.timesteps(level.timestep, n);
        let inner = base.innermost(input, times, &conditioning.repeat(n))?;
        let point = inner.dims()[1].max(1);
        points.extend(host_values(inner)?.chunks(point).map(<[f32]>::to_vec));
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All three outputs of a perfect network imply the noise that was added.
    #[test]
    fn every_prediction_implies_the_same_noise() {
        let level = Level { timestep: 300.0, alpha_cumprod: 0.37 };
        let (signal, noise) = (0.37_f64.sqrt(), 0.63_f64.sqrt());
        let (clean, eps) = (0.8, -1.3);
        let x = signal * clean + noise * eps;
        for (prediction, output) in [
            (Prediction::Epsilon, eps),
            (Prediction::V, signal * eps - noise * clean),
            (Prediction::Sample, clean),
        ] {
            let found = implied_noise(prediction, x, output, level);
            assert!((found - eps).abs() < 1e-12, "{prediction:?}: {found}");
        }
    }
}
