//! What a network outputs and how the output, the clean image and the noise follow from each other.

use burn::tensor::{DType, Tensor, TensorData};

use crate::NoiseSchedule;

/// What a network outputs, given the noisy latents √ᾱ·x₀ + √(1 − ᾱ)·ε.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// The velocity √ᾱ·ε − √(1 − ᾱ)·x₀.
    V,
    /// The clean latents x₀.
    Sample,
}

/// A linear combination of the noisy latents and the network's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mix {
    pub(crate) noisy: f64,
    pub(crate) output: f64,
}

impl Prediction {
    /// Every kind of prediction.
    pub const ALL: [Self; 3] = [Self::Epsilon, Self::V, Self::Sample];

    /// The value of `prediction_type` in a scheduler configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::V => "v_prediction",
            Self::Sample => "sample",
        }
    }

    /// x̂₀ from noisy latents `signal`·x₀ + `noise`·ε and the output.
    pub(crate) fn clean_mix(self, (signal, noise): (f64, f64)) -> Mix {
        match self {
            Self::Epsilon => Mix { noisy: 1.0 / signal, output: -noise / signal },
            Self::V => Mix { noisy: signal, output: -noise },
            Self::Sample => Mix { noisy: 0.0, output: 1.0 },
        }
    }

    /// ε̂ from noisy latents `signal`·x₀ + `noise`·ε and the output.
    pub(crate) fn epsilon_mix(self, (signal, noise): (f64, f64)) -> Mix {
        match self {
            Self::Epsilon => Mix { noisy: 0.0, output: 1.0 },
            Self::V => Mix { noisy: noise, output: signal },
            Self::Sample => Mix { noisy: 1.0 / noise, output: -signal / noise },
        }
    }
}

/// Noisy latents xₜ = √ᾱₜ·x₀ + √(1 − ᾱₜ)·ε.
///
/// # Shapes
///
/// - `clean`, `noise`, result: `[batch, channels, height, width]`, scaled latents, one dtype
/// - `timesteps`: one per sample, each in `0..schedule.len()`
///
/// # Panics
///
/// If a timestep lies outside the schedule or the shapes disagree.
///
/// Source: Ho et al. 2020, arXiv:2006.11239, equation 4; agrees with diffusers
/// `DDPMScheduler.add_noise`, proved by `tests/sampler_parity.rs`.
pub fn noisy_from_clean(
    schedule: &NoiseSchedule,
    clean: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[usize],
) -> Tensor<4> {
    mix_by_sample(schedule, clean, noise, timesteps, |levels| levels)
}

/// What the network should output: ε, √ᾱₜ·ε − √(1 − ᾱₜ)·x₀, or x₀.
///
/// # Shapes
///
/// - `clean`, `noise`, result: `[batch, channels, height, width]`, scaled latents, one dtype
/// - `timesteps`: one per sample, each in `0..schedule.len()`
///
/// # Panics
///
/// If a timestep lies outside the schedule or the shapes disagree.
///
/// Source: velocity: Salimans & Ho 2022, arXiv:2202.00512, appendix D; agrees with diffusers
/// `DDPMScheduler.get_velocity`, proved by `tests/sampler_parity.rs`.
pub fn target(
    schedule: &NoiseSchedule,
    prediction: Prediction,
    clean: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[usize],
) -> Tensor<4> {
    match prediction {
        Prediction::Epsilon => noise,
        Prediction::Sample => clean,
        Prediction::V => {
            mix_by_sample(schedule, clean, noise, timesteps, |(signal, noise)| (-noise, signal))
        }
    }
}

/// The clean latents x̂₀ that an output implies.
///
/// # Shapes
///
/// - `output`, `noisy`, result: `[batch, channels, height, width]`, scaled latents, one dtype
/// - `timesteps`: one per sample, each in `0..schedule.len()`
///
/// # Panics
///
/// If a timestep lies outside the schedule or the shapes disagree.
pub fn clean_from_output(
    schedule: &NoiseSchedule,
    prediction: Prediction,
    output: Tensor<4>,
    noisy: Tensor<4>,
    timesteps: &[usize],
) -> Tensor<4> {
    mix_by_sample(schedule, noisy, output, timesteps, |levels| {
        let mix = prediction.clean_mix(levels);
        (mix.noisy, mix.output)
    })
}

/// The noise ε̂ that an output implies.
///
/// # Shapes
///
/// - `output`, `noisy`, result: `[batch, channels, height, width]`, scaled latents, one dtype
/// - `timesteps`: one per sample, each in `0..schedule.len()`
///
/// # Panics
///
/// If a timestep lies outside the schedule or the shapes disagree.
pub fn epsilon_from_output(
    schedule: &NoiseSchedule,
    prediction: Prediction,
    output: Tensor<4>,
    noisy: Tensor<4>,
    timesteps: &[usize],
) -> Tensor<4> {
    mix_by_sample(schedule, noisy, output, timesteps, |levels| {
        let mix = prediction.epsilon_mix(levels);
        (mix.noisy, mix.output)
    })
}

/// f·first + g·second with (f, g) computed per sample from (√ᾱ, √(1 − ᾱ)).
fn mix_by_sample(
    schedule: &NoiseSchedule,
    first: Tensor<4>,
    second: Tensor<4>,
    timesteps: &[usize],
    factors: impl Fn((f64, f64)) -> (f64, f64),
) -> Tensor<4> {
    let [n_samples, ..] = first.dims();
    assert_eq!(timesteps.len(), n_samples, "one timestep per sample");
    let (of_first, of_second): (Vec<f64>, Vec<f64>) =
        timesteps.iter().map(|&t| factors(schedule.signal_and_noise(t))).unzip();
    let of_first = per_sample(of_first, &first);
    let of_second = per_sample(of_second, &second);
    first * of_first + second * of_second
}

/// One number per sample as `[batch, 1, 1, 1]`, with dtype and device of `like`.
fn per_sample(values: Vec<f64>, like: &Tensor<4>) -> Tensor<4> {
    let shape = [values.len(), 1, 1, 1];
    let dtype: DType = like.dtype();
    Tensor::from_data(TensorData::new(values, shape), (&like.device(), dtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SchedulerConfig;
    use burn::tensor::Device;

    fn schedule() -> NoiseSchedule {
        NoiseSchedule::new(&SchedulerConfig::stable_diffusion(Prediction::V)).unwrap()
    }

    /// Two samples of one pixel each, in double precision.
    fn pair(first: f64, second: f64) -> Tensor<4> {
        let data = TensorData::new(vec![first, second], [2, 1, 1, 1]);
        Tensor::from_data(data, (&Device::flex(), DType::F64))
    }

    fn values(tensor: Tensor<4>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    fn close(found: Tensor<4>, expected: [f64; 2], tolerance: f64) {
        for (found, expected) in values(found).into_iter().zip(expected) {
            assert!((found - expected).abs() < tolerance, "{found} is not {expected}");
        }
    }

    #[test]
    fn noising_and_velocity_have_their_known_values() {
        let (clean, noise) = (pair(0.3, 0.3), pair(-0.5, -0.5));
        let (a, s) = (0.894_223_477_587_f64.sqrt(), 0.105_776_522_413_f64.sqrt());
        let noisy = noisy_from_clean(&schedule(), clean.clone(), noise.clone(), &[500, 100]);
        close(noisy, [-0.267_641, 0.3 * a - 0.5 * s], 1e-6);
        let v = target(&schedule(), Prediction::V, clean, noise, &[500, 100]);
        close(v, [-0.518_043, -0.5 * a - 0.3 * s], 1e-6);
    }

    #[test]
    fn clean_and_noise_are_recovered_from_every_exact_output() {
        let (clean, noise, timesteps) = (pair(0.3, -1.7), pair(-0.5, 0.9), [500, 3]);
        let schedule = schedule();
        let noisy = noisy_from_clean(&schedule, clean.clone(), noise.clone(), &timesteps);
        for prediction in Prediction::ALL {
            let output = target(&schedule, prediction, clean.clone(), noise.clone(), &timesteps);
            let found =
                clean_from_output(&schedule, prediction, output.clone(), noisy.clone(), &timesteps);
            close(found, [0.3, -1.7], 1e-12);
            let found =
                epsilon_from_output(&schedule, prediction, output, noisy.clone(), &timesteps);
            close(found, [-0.5, 0.9], 1e-12);
        }
    }

    #[test]
    fn squared_errors_of_the_three_predictions_differ_by_the_snr() {
        let (schedule, t) = (schedule(), 250);
        let levels = schedule.signal_and_noise(t);
        let snr = schedule.snr(t);
        // An error d in an output moves x̂₀ by the output's coefficient times d.
        let epsilon = Prediction::Epsilon.clean_mix(levels).output;
        let v = Prediction::V.clean_mix(levels).output;
        assert!((1.0 / (epsilon * epsilon) - snr).abs() < 1e-12);
        assert!((1.0 / (v * v) - (snr + 1.0)).abs() < 1e-12);
    }

    #[test]
    fn single_precision_stays_single_precision() {
        let clean = Tensor::<4>::ones([2, 1, 1, 1], &Device::flex());
        let noisy = noisy_from_clean(&schedule(), clean.clone(), clean, &[0, 999]);
        assert_eq!(noisy.dtype(), DType::F32);
    }
}
