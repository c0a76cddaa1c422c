//! The noise schedule: how much signal is left at each timestep.

use std::f64::consts::FRAC_PI_2;

use crate::timesteps::{linspace, real};
use crate::{BetaSchedule, DiffusionError, SchedulerConfig};

/// Largest β of the squared-cosine schedule.
const MAX_COSINE_BETA: f64 = 0.999;

/// ᾱₜ = Π(1 − βᵢ) for t = 0 … T − 1: the share of signal variance left at each timestep.
///
/// With a = √ᾱ and s = √(1 − ᾱ), a noisy latent is a·x₀ + s·ε.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f64>,
}

impl NoiseSchedule {
    /// Computes the schedule in `f64`, rescaled if the configuration asks for zero terminal SNR.
    ///
    /// Source: Ho et al. 2020, arXiv:2006.11239, section 2; rescaling: Lin et al. 2023,
    /// arXiv:2305.08891, algorithm 1. Agrees with diffusers `DDIMScheduler.alphas_cumprod`,
    /// proved by `tests/sampler_parity.rs`.
    ///
    /// # Errors
    ///
    /// Whatever [`SchedulerConfig::check`] finds.
    pub fn new(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        config.check()?;
        let mut signal_left = 1.0;
        let mut alphas_cumprod: Vec<f64> = betas(config)
            .into_iter()
            .map(|beta| {
                signal_left *= 1.0 - beta;
                signal_left
            })
            .collect();
        if config.zero_terminal_snr {
            remove_terminal_signal(&mut alphas_cumprod);
        }
        Ok(Self { alphas_cumprod })
    }

    /// The number of timesteps T, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a schedule is never empty")]
    pub fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// All ᾱ, from timestep 0 (least noise) to T − 1; falling, within [0, 1).
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// ᾱₜ, in [0, 1).
    ///
    /// # Panics
    ///
    /// If `timestep` is not below [`Self::len`].
    pub fn alpha_cumprod(&self, timestep: usize) -> f64 {
        self.alphas_cumprod[timestep]
    }

    /// Signal-to-noise ratio ᾱ/(1 − ᾱ).
    ///
    /// # Panics
    ///
    /// If `timestep` is not below [`Self::len`].
    pub fn snr(&self, timestep: usize) -> f64 {
        let alpha = self.alpha_cumprod(timestep);
        alpha / (1.0 - alpha)
    }

    /// Noise level σ = √((1 − ᾱ)/ᾱ); infinite where no signal is left.
    ///
    /// # Panics
    ///
    /// If `timestep` is not below [`Self::len`].
    pub fn sigma(&self, timestep: usize) -> f64 {
        sigma_from_alpha(self.alpha_cumprod(timestep))
    }

    /// (√ᾱ, √(1 − ᾱ)): the shares of signal and noise in a noisy latent.
    ///
    /// # Panics
    ///
    /// If `timestep` is not below [`Self::len`].
    pub(crate) fn signal_and_noise(&self, timestep: usize) -> (f64, f64) {
        let alpha = self.alpha_cumprod(timestep);
        (alpha.sqrt(), (1.0 - alpha).sqrt())
    }
}

/// σ = √((1 − ᾱ)/ᾱ).
pub(crate) fn sigma_from_alpha(alpha: f64) -> f64 {
    ((1.0 - alpha) / alpha).sqrt()
}

/// βₜ for t = 0 … T − 1.
///
/// Source: diffusers `DDIMScheduler.__init__` and `betas_for_alpha_bar`.
fn betas(config: &SchedulerConfig) -> Vec<f64> {
    let n_train = config.num_train_timesteps;
    if let Some(betas) = &config.trained_betas {
        return betas.clone();
    }
    let (start, end) = (config.beta_start, config.beta_end);
    match config.beta_schedule {
        BetaSchedule::Linear => linspace(start, end, n_train),
        BetaSchedule::ScaledLinear => linspace(start.sqrt(), end.sqrt(), n_train)
            .into_iter()
            .map(|root| root * root)
            .collect(),
        BetaSchedule::SquaredCosine => (0..n_train)
            .map(|t| {
                let left = |idx: usize| squared_cosine(real(idx) / real(n_train));
                (1.0 - left(t + 1) / left(t)).min(MAX_COSINE_BETA)
            })
            .collect(),
    }
}

/// cos²((u + 0.008)/1.008 · π/2).
///
/// Source: Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17.
fn squared_cosine(share: f64) -> f64 {
    let cosine = libm::cos((share + 0.008) / 1.008 * FRAC_PI_2);
    cosine * cosine
}

/// Shifts and stretches √ᾱ so that the last value is 0 and the first stays as it is.
fn remove_terminal_signal(alphas_cumprod: &mut [f64]) {
    let (Some(&first), Some(&last)) = (alphas_cumprod.first(), alphas_cumprod.last()) else {
        return;
    };
    let (first, last) = (first.sqrt(), last.sqrt());
    for alpha in alphas_cumprod {
        let root = (alpha.sqrt() - last) * first / (first - last);
        *alpha = root * root;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Prediction, SchedulerClass};

    fn sd(prediction: Prediction) -> SchedulerConfig {
        SchedulerConfig::stable_diffusion(prediction)
    }

    fn check(config: &SchedulerConfig, expected: &[(usize, f64)], tolerance: f64) {
        let schedule = NoiseSchedule::new(config).unwrap();
        for &(t, alpha) in expected {
            let found = schedule.alpha_cumprod(t);
            assert!((found - alpha).abs() < tolerance, "abar({t}) is {found}, expected {alpha}");
        }
    }

    #[test]
    fn stable_diffusion_schedule_has_its_known_values() {
        let expected = [
            (0, 0.99915),
            (1, 0.998_296_027_838),
            (10, 0.990_431_309_114),
            (100, 0.894_223_477_587),
            (250, 0.673_792_625_233),
            (500, 0.276_332_683_823),
            (750, 0.056_169_848_003),
            (900, 0.014_151_141_970),
            (999, 0.004_660_098_513),
        ];
        check(&sd(Prediction::Epsilon), &expected, 1e-12);
        let schedule = NoiseSchedule::new(&sd(Prediction::Epsilon)).unwrap();
        assert!((schedule.sigma(0) - 0.029_167_16).abs() < 1e-8);
        assert!((schedule.sigma(999) - 14.614_641_23).abs() < 1e-8);
    }

    #[test]
    fn linear_and_cosine_schedules_have_their_known_values() {
        let linear = SchedulerConfig::defaults(SchedulerClass::Ddim);
        check(&linear, &[(500, 0.077_796_65), (999, 0.000_040_36)], 1e-8);
        let cosine = SchedulerConfig { beta_schedule: BetaSchedule::SquaredCosine, ..linear };
        // The known value carries the rounding of 500 factors in single precision.
        check(&cosine, &[(500, 0.492_285_04)], 2e-7);
    }

    #[test]
    fn zero_terminal_snr_has_its_known_values() {
        let config = SchedulerConfig { zero_terminal_snr: true, ..sd(Prediction::V) };
        let expected = [(0, 0.99915), (100, 0.886_761), (500, 0.241_019), (900, 0.002_960_39)];
        check(&config, &expected, 1e-6);
        check(&config, &[(998, 1.968e-7)], 1e-10);
        let schedule = NoiseSchedule::new(&config).unwrap();
        assert!(schedule.alpha_cumprod(999).abs() < f64::MIN_POSITIVE);
        assert!(schedule.sigma(999).is_infinite());
    }

    #[test]
    fn alpha_falls_within_the_unit_interval() {
        let cosine = SchedulerConfig {
            beta_schedule: BetaSchedule::SquaredCosine,
            ..sd(Prediction::Epsilon)
        };
        let zero = SchedulerConfig { zero_terminal_snr: true, ..sd(Prediction::Sample) };
        let short = SchedulerConfig { num_train_timesteps: 7, ..sd(Prediction::Epsilon) };
        for config in [sd(Prediction::V), cosine, zero, short] {
            let schedule = NoiseSchedule::new(&config).unwrap();
            assert_eq!(schedule.len(), config.num_train_timesteps);
            assert!(schedule.alphas_cumprod().windows(2).all(|pair| pair[1] < pair[0]));
            assert!(schedule.alphas_cumprod().iter().all(|alpha| (0.0..1.0).contains(alpha)));
        }
    }

    #[test]
    fn trained_betas_override_the_schedule() {
        let config = SchedulerConfig {
            num_train_timesteps: 3,
            trained_betas: Some(vec![0.5, 0.2, 0.1]),
            ..sd(Prediction::Epsilon)
        };
        check(&config, &[(0, 0.5), (1, 0.4), (2, 0.36)], 1e-15);
    }

    #[test]
    fn snr_has_its_known_values() {
        let schedule = NoiseSchedule::new(&sd(Prediction::Epsilon)).unwrap();
        for (t, snr) in [(1, 585.864_048), (100, 8.453_894), (250, 2.065_535), (999, 0.004_682)] {
            assert!((schedule.snr(t) - snr).abs() < 1e-6, "snr({t}) is {}", schedule.snr(t));
        }
        let last_at_least = |bound: f64| (0..1000).rfind(|&t| schedule.snr(t) >= bound);
        assert_eq!(last_at_least(5.0), Some(146));
        assert_eq!(last_at_least(1.0), Some(353));
    }
}
