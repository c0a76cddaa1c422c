//! The protocol through which instruments see models, so that a closed-form world runs through
//! exactly the code that a network does.
//!
//! Owns the two traits, noise levels and the conversions between what networks predict. How a network
//! is run is left to `network`, what is made of its answers to the instruments.

use crate::error::EvalError;

/// One noise level of a diffusion: x = √ᾱ·x₀ + √(1 − ᾱ)·ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// As the network counts it.
    pub timestep: f64,
    /// ᾱ in (0, 1): the share of signal variance.
    pub alpha_cumprod: f64,
}

impl Level {
    /// γ = −log SNR = −ln(ᾱ/(1 − ᾱ)); rises with the noise.
    pub fn gamma(self) -> f64 {
        libm::log((1.0 - self.alpha_cumprod) / self.alpha_cumprod)
    }

    /// The level of a γ: ᾱ = 1/(1 + e^γ).
    pub fn of_gamma(timestep: f64, gamma: f64) -> Self {
        Self { timestep, alpha_cumprod: 1.0 / (1.0 + libm::exp(gamma)) }
    }

    /// (√ᾱ, √(1 − ᾱ)): the shares of clean values and noise.
    pub fn signal_and_noise(self) -> (f64, f64) {
        (libm::sqrt(self.alpha_cumprod), libm::sqrt(1.0 - self.alpha_cumprod))
    }

    /// The σ in (0, 1) of a rectified flow, (1 − σ)·x₀ + σ·ε, at the same signal-to-noise ratio:
    /// γ = 2·ln(σ/(1 − σ)).
    pub fn flow_sigma(self) -> f64 {
        let (signal, noise) = self.signal_and_noise();
        noise / (signal + noise)
    }

    /// The level at which a rectified flow stands at σ in (0, 1).
    pub fn of_flow_sigma(timestep: f64, sigma: f64) -> Self {
        let signal = (1.0 - sigma) * (1.0 - sigma);
        Self { timestep, alpha_cumprod: signal / (signal + sigma * sigma) }
    }
}

/// What a denoiser is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// The empty prompt.
    Nothing,
    /// Words.
    Words(&'a str),
}

/// Predicts the noise in noisy samples: networks and closed-form worlds alike.
///
/// Values lie in host memory as f64, so that every instrument is the same code for both.
pub trait Denoiser {
    /// Values per sample.
    fn width(&self) -> usize;

    /// ε̂ of each sample, without guidance (w = 1).
    ///
    /// # Shapes
    ///
    /// - `noisy` and the result: whole samples of [`Self::width`] values, one after another
    ///
    /// # Errors
    ///
    /// A fault of the device, or words that the model cannot be told.
    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        condition: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError>;
}

/// ε̂ of a denoiser, as many values as it was given.
///
/// # Errors
///
/// The denoiser's own; [`EvalError::Length`] for an answer of another length.
pub(crate) fn predicted(
    denoiser: &mut dyn Denoiser,
    noisy: &[f64],
    level: Level,
    condition: Condition<'_>,
) -> Result<Vec<f64>, EvalError> {
    let noise = denoiser.noise(noisy, level, condition)?;
    same_length("a denoiser's answer", noise.len(), noisy.len())?;
    Ok(noise)
}

/// Refuses values of another number than expected.
pub(crate) fn same_length(
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), EvalError> {
    if found == expected { Ok(()) } else { Err(EvalError::Length { what, expected, found }) }
}

/// ε̂ = √ᾱ·v̂ + √(1 − ᾱ)·x, of a network that predicts v = √ᾱ·ε − √(1 − ᾱ)·x₀.
///
/// Source: Salimans & Ho 2022, arXiv:2202.00512, appendix D; agrees with
/// `diffusion::epsilon_from_output`.
pub fn noise_from_velocity(noisy: &[f64], velocity: &[f64], level: Level) -> Vec<f64> {
    let (signal, noise) = level.signal_and_noise();
    noisy.iter().zip(velocity).map(|(x, v)| signal * v + noise * x).collect()
}

/// ε̂ = `x_σ` + (1 − σ)·v̂, of a rectified flow that predicts v = ε − x₀ at (1 − σ)·x₀ + σ·ε.
///
/// So ε − ε̂ = (1 − σ)·(v − v̂).
///
/// Source: Liu, Gong & Liu 2022, arXiv:2209.03003, with noise at σ = 1 as Esser et al. 2024,
/// arXiv:2403.03206, have it.
pub fn noise_from_flow(noisy: &[f64], velocity: &[f64], sigma: f64) -> Vec<f64> {
    noisy.iter().zip(velocity).map(|(x, v)| x + (1.0 - sigma) * v).collect()
}

/// The denoiser of a network that predicts v; see [`noise_from_velocity`].
#[derive(Clone, Debug)]
pub struct FromVelocity<F> {
    width: usize,
    velocity: F,
}

impl<F> FromVelocity<F>
where
    F: FnMut(&[f64], Level, Condition<'_>) -> Result<Vec<f64>, EvalError>,
{
    /// Wraps `velocity`, which answers noisy samples of `width` values with v̂.
    pub fn new(width: usize, velocity: F) -> Self {
        Self { width, velocity }
    }
}

impl<F> Denoiser for FromVelocity<F>
where
    F: FnMut(&[f64], Level, Condition<'_>) -> Result<Vec<f64>, EvalError>,
{
    fn width(&self) -> usize {
        self.width
    }

    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        condition: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError> {
        let velocity = (self.velocity)(noisy, level, condition)?;
        same_length("a velocity", velocity.len(), noisy.len())?;
        Ok(noise_from_velocity(noisy, &velocity, level))
    }
}

/// The denoiser of a rectified flow; see [`noise_from_flow`].
///
/// The protocol's noisy samples keep unit variance of signal and noise, √ᾱ·x₀ + √(1 − ᾱ)·ε; the flow's
/// are (1 − σ)·x₀ + σ·ε. One is the other times (1 − σ)/√ᾱ.
#[derive(Clone, Debug)]
pub struct FromFlow<F> {
    width: usize,
    velocity: F,
}

impl<F> FromFlow<F>
where
    F: FnMut(&[f64], f64, Condition<'_>) -> Result<Vec<f64>, EvalError>,
{
    /// Wraps `velocity`, which answers samples of `width` values at σ with v̂.
    pub fn new(width: usize, velocity: F) -> Self {
        Self { width, velocity }
    }
}

impl<F> Denoiser for FromFlow<F>
where
    F: FnMut(&[f64], f64, Condition<'_>) -> Result<Vec<f64>, EvalError>,
{
    fn width(&self) -> usize {
        self.width
    }

    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        condition: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError> {
        let sigma = level.flow_sigma();
        let (signal, _) = level.signal_and_noise();
        let scaled: Vec<f64> = noisy.iter().map(|x| x * (1.0 - sigma) / signal).collect();
        let velocity = (self.velocity)(&scaled, sigma, condition)?;
        same_length("a velocity", velocity.len(), noisy.len())?;
        Ok(noise_from_flow(&scaled, &velocity, sigma))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: f64 = 0.7;
    const NOISE: f64 = -1.3;

    fn level() -> Level {
        Level { timestep: 10.0, alpha_cumprod: 0.83 }
    }

    /// The noisy value of the clean one at the level.
    fn noisy() -> f64 {
        0.83_f64.sqrt() * CLEAN + 0.17_f64.sqrt() * NOISE
    }

    #[test]
    fn gamma_is_minus_the_log_of_signal_to_noise_and_back() {
        assert!((level().gamma() + (0.83_f64 / 0.17).ln()).abs() < 1e-12);
        for gamma in [-12.0, -0.5, 0.0, 8.0] {
            assert!((Level::of_gamma(0.0, gamma).gamma() - gamma).abs() < 1e-9, "{gamma}");
        }
    }

    #[test]
    fn a_flow_stands_at_the_same_ratio_of_signal_and_noise() {
        let sigma = level().flow_sigma();
        assert!((2.0 * (sigma / (1.0 - sigma)).ln() - level().gamma()).abs() < 1e-12);
        let back = Level::of_flow_sigma(10.0, sigma);
        assert!((back.alpha_cumprod - 0.83).abs() < 1e-12 && back.timestep > 9.0, "{back:?}");
    }

    #[test]
    fn a_perfect_velocity_gives_the_noise() {
        let velocity = 0.83_f64.sqrt() * NOISE - 0.17_f64.sqrt() * CLEAN;
        let mut wrapped = FromVelocity::new(1, |x: &[f64], at: Level, _: Condition<'_>| {
            assert!((x[0] - noisy()).abs() < 1e-15 && at == level());
            Ok(vec![velocity])
        });
        let found = wrapped.noise(&[noisy()], level(), Condition::Nothing).unwrap();
        assert!((found[0] - NOISE).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn a_perfect_flow_gives_the_noise_from_samples_on_its_own_scale() {
        let mut wrapped = FromFlow::new(1, |x: &[f64], sigma: f64, _: Condition<'_>| {
            assert!((x[0] - ((1.0 - sigma) * CLEAN + sigma * NOISE)).abs() < 1e-12);
            Ok(vec![NOISE - CLEAN])
        });
        let found = wrapped.noise(&[noisy()], level(), Condition::Words("a boat")).unwrap();
        assert!((found[0] - NOISE).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn an_error_of_the_flow_is_scaled_by_one_minus_sigma() {
        let (right, wrong) =
            (noise_from_flow(&[0.4], &[1.0], 0.3), noise_from_flow(&[0.4], &[1.5], 0.3));
        assert!((wrong[0] - right[0] - 0.7 * 0.5).abs() < 1e-12);
    }

    #[test]
    fn an_answer_of_another_length_is_refused() {
        let mut short = FromVelocity::new(2, |_: &[f64], _: Level, _: Condition<'_>| Ok(vec![0.0]));
        let error = predicted(&mut short, &[0.0; 2], level(), Condition::Nothing).unwrap_err();
        assert!(matches!(error, EvalError::Length { expected: 2, found: 1, .. }), "{error}");
    }
}
