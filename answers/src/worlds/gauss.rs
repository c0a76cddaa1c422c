//! A normal law in every dimension: score, energies and density in closed form.

use eval::EvalError;
use eval::protocol::{Condition, Denoiser, Level};
use recipes::draws::{self, Purpose};

/// N(m, s²) in each of several independent dimensions.
///
/// With v = ᾱs² + 1 − ᾱ, `ε*(x) = √(1−ᾱ)·(x − √ᾱ·m)/v`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauss {
    /// m.
    pub mean: f64,
    /// s².
    pub variance: f64,
    /// Number of dimensions.
    pub copies: usize,
}

impl Gauss {
    /// N(`mean`, `variance`) in `copies` dimensions.
    pub fn new(mean: f64, variance: f64, copies: usize) -> Self {
        Self { mean, variance, copies }
    }

    /// E‖ε − ε*‖² at x, per dimension: (ᾱs²/v)² + ᾱ(1−ᾱ)(x−m)²/v².
    pub fn expected_error(&self, x: f64, level: Level) -> f64 {
        let (alpha, v) = (level.alpha_cumprod, self.noisy_variance(level));
        let (own, off) = (alpha * self.variance / v, (x - self.mean) / v);
        own * own + alpha * (1.0 - alpha) * off * off
    }

    /// Mean of −log p of noised x up to a constant, per dimension: ½·ln v + (ᾱ(x−m)² + 1 − ᾱ)/2v.
    pub fn energy(&self, x: f64, level: Level) -> f64 {
        let (alpha, v) = (level.alpha_cumprod, self.noisy_variance(level));
        let square = alpha * (x - self.mean) * (x - self.mean) + 1.0 - alpha;
        libm::log(v) / 2.0 + square / (2.0 * v)
    }

    /// −log p of clean x without its constant ½·ln 2π, per dimension.
    pub fn clean_energy(&self, x: f64) -> f64 {
        let off = x - self.mean;
        libm::log(self.variance) / 2.0 + off * off / (2.0 * self.variance)
    }

    /// A clean sample of all dimensions, keyed by (seed, sample).
    pub fn sample(&self, seed: u64, sample: u64) -> Vec<f64> {
        let mut stream = draws::stream(seed, 0, sample, Purpose::World);
        let deviation = libm::sqrt(self.variance);
        let normals = draws::normals(&mut stream, self.copies);
        normals.into_iter().map(|z| self.mean + deviation * f64::from(z)).collect()
    }

    /// v = ᾱs² + 1 − ᾱ.
    fn noisy_variance(&self, level: Level) -> f64 {
        level.alpha_cumprod * self.variance + 1.0 - level.alpha_cumprod
    }
}

impl Denoiser for Gauss {
    fn width(&self) -> usize {
        self.copies
    }

    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        _: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError> {
        let (signal, noise) = level.signal_and_noise();
        let v = self.noisy_variance(level);
        Ok(noisy.iter().map(|x| noise * (x - signal * self.mean) / v).collect())
    }
}

/// Nats of `base` that `adapted` lost at x between two levels, in closed form, per dimension.
pub fn nats_lost(base: &Gauss, adapted: &Gauss, x: f64, (least, most): (Level, Level)) -> f64 {
    let gap = |level: Level| adapted.energy(x, level) - base.energy(x, level);
    gap(least) - gap(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_quadratic_in_the_noise_and_has_the_stated_mean() {
        let mut world = Gauss::new(0.3, 0.25, 1);
        for gamma in [-5.0, 0.0, 3.0] {
            let level = Level::of_gamma(0.0, gamma);
            let (signal, noise) = level.signal_and_noise();
            // The mean of a quadratic function over N(0, 1) is that over −1 and 1.
            let mut mean = 0.0;
            for eps in [-1.0, 1.0] {
                let noisy = [signal * 1.5 + noise * eps];
                let said = world.noise(&noisy, level, Condition::Nothing).unwrap()[0];
                mean += (eps - said) * (eps - said) / 2.0;
            }
            assert!((mean - world.expected_error(1.5, level)).abs() < 1e-12, "{gamma}");
        }
    }

    /// d energy/dγ = ½·(1 − E‖ε − ε*‖²) up to what does not depend on the model: of two models the
    /// difference of energies falls by half the difference of errors.
    #[test]
    fn errors_are_the_derivative_of_energies() {
        let (base, adapted) = (Gauss::new(0.3, 0.25, 1), Gauss::new(0.5, 0.36, 1));
        for gamma in [-4.0, -1.0, 2.0] {
            let h = 1e-4;
            let level = |gamma: f64| Level::of_gamma(0.0, gamma);
            let lost = nats_lost(&base, &adapted, 1.5, (level(gamma - h), level(gamma + h)));
            let error = |world: &Gauss| world.expected_error(1.5, level(gamma));
            let slope = (error(&adapted) - error(&base)) / 2.0;
            assert!((lost / (2.0 * h) - slope).abs() < 1e-6, "{gamma}: {lost} {slope}");
        }
    }

    #[test]
    fn at_the_least_noise_the_energy_is_that_of_the_clean_law() {
        let world = Gauss::new(0.3, 0.25, 1);
        let level = Level { timestep: 0.0, alpha_cumprod: 1.0 - 1e-12 };
        assert!((world.energy(1.5, level) - world.clean_energy(1.5)).abs() < 1e-9);
        assert!((world.clean_energy(1.5) - (0.25_f64.ln() / 2.0 + 1.44 / 0.5)).abs() < 1e-12);
    }

    #[test]
    fn samples_have_the_mean_and_variance_of_the_law() {
        let all: Vec<f64> =
            (0..200).flat_map(|k| Gauss::new(0.3, 0.25, 100).sample(4, k)).collect();
        let mean = all.iter().sum::<f64>() / 20_000.0;
        let variance = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 20_000.0;
        assert!((mean - 0.3).abs() < 0.015 && (variance - 0.25).abs() < 0.01, "{mean} {variance}");
    }
}
