//! Noises clean samples at a grid of levels, with noise that is keyed per sample and level: all models
//! and all conditions that are compared see the same (γ, ε).

use crate::error::EvalError;
use crate::protocol::{Level, same_length};
use diffusion::NoiseSchedule;
use recipes::draws::{self, Purpose};
use statistics::number::real;

/// The native noise levels of a schedule that bear some signal, from the least noisy on.
pub fn native_levels(schedule: &NoiseSchedule) -> Vec<Level> {
    let levels = schedule.alphas_cumprod().iter().enumerate();
    levels
        .map(|(t, &alpha_cumprod)| Level { timestep: real(t), alpha_cumprod })
        .filter(|level| level.alpha_cumprod > 0.0)
        .collect()
}

/// Noise levels with the width in γ that each stands for, least noise first: ∫f dγ ≈ Σ weight·f.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// The levels, γ rising.
    pub levels: Vec<Level>,
    /// δγ of each.
    pub weights: Vec<f64>,
}

impl Grid {
    /// The trapezoid rule on these levels, in whatever order they come.
    ///
    /// Never the weights of the DDPM bound: with 1000 levels they are off by up to 70 times as much.
    pub fn trapezoid(levels: Vec<Level>) -> Self {
        let levels = rising(levels);
        let gammas: Vec<f64> = levels.iter().map(|level| level.gamma()).collect();
        Self { weights: widths(&gammas), levels }
    }

    /// `n` levels, one in each of `n` equal parts of the range of γ of the `native` levels:
    /// u = (r + U)/n. `draw` numbers the grid, U is keyed by (seed, draw, r).
    ///
    /// Between two native levels the timestep is interpolated in γ, which is 2·ln σ.
    ///
    /// Source: Kingma et al. 2021, arXiv:2107.00630 (low-discrepancy sampler of levels), with one U per
    /// part; timesteps as k-diffusion `DiscreteSchedule.sigma_to_t` without quantization.
    pub fn stratified(native: &[Level], n: usize, seed: u64, draw: u64) -> Self {
        let native = rising(native.to_vec());
        let (Some(first), Some(last)) = (native.first(), native.last()) else {
            return Self::default();
        };
        let (low, high) = (first.gamma(), last.gamma());
        let width = (high - low) / real(n.max(1));
        let level = |r: usize| {
            let mut stream = draws::stream(seed, r as u64, draw, Purpose::LikelihoodLevel);
            interpolated(&native, low + width * (real(r) + draws::uniform(&mut stream)))
        };
        Self { levels: (0..n).map(level).collect(), weights: vec![width; n] }
    }

    /// The trapezoid rule in σ of a rectified flow, each σ in (0, 1).
    ///
    /// ∫ (1 − σ)/σ·‖v − v̂‖² dσ = ½∫‖ε − ε̂‖² dγ, since dγ = 2·dσ/(σ(1 − σ)) and
    /// ε − ε̂ = (1 − σ)(v − v̂).
    pub fn flow(sigmas: &[f64]) -> Self {
        let mut sigmas = sigmas.to_vec();
        sigmas.sort_by(f64::total_cmp);
        let of_velocity = |sigma: f64| (1.0 - sigma) / sigma;
        let weights = sigmas.iter().zip(widths(&sigmas)).map(|(&sigma, width)| {
            2.0 * of_velocity(sigma) / ((1.0 - sigma) * (1.0 - sigma)) * width
        });
        Self {
            weights: weights.collect(),
            levels: sigmas.iter().map(|&sigma| Level::of_flow_sigma(sigma, sigma)).collect(),
        }
    }

    /// γ of each level.
    pub fn gammas(&self) -> Vec<f64> {
        self.levels.iter().map(|level| level.gamma()).collect()
    }
}

/// The levels, least noise first.
fn rising(mut levels: Vec<Level>) -> Vec<Level> {
    levels.sort_by(|a, b| a.gamma().total_cmp(&b.gamma()));
    levels
}

/// The trapezoid rule's width of each of some rising points: half the way to either neighbor.
fn widths(points: &[f64]) -> Vec<f64> {
    (0..points.len())
        .map(|i| {
            let (below, above) = (i.saturating_sub(1), (i + 1).min(points.len() - 1));
            (points[above] - points[below]) / 2.0
        })
        .collect()
}

/// The level at `gamma` between the `native` ones, which rise and are not empty.
fn interpolated(native: &[Level], gamma: f64) -> Level {
    let above = native.partition_point(|level| level.gamma() < gamma).min(native.len() - 1);
    let (low, high) = (native[above.saturating_sub(1)], native[above]);
    let span = high.gamma() - low.gamma();
    let part = if span > 0.0 { (gamma - low.gamma()) / span } else { 0.0 };
    Level::of_gamma(low.timestep + part * (high.timestep - low.timestep), gamma)
}

/// Noise of a sample at the level of this position: `(position, key) -> ε`.
pub type NoiseSource<'a> = dyn Fn(usize, u64) -> Vec<f64> + Sync + 'a;

/// Unit noise of `width` values, keyed by (seed, level, sample): in whatever batch and order.
pub fn keyed_noise(seed: u64, width: usize) -> impl Fn(usize, u64) -> Vec<f64> + Sync {
    move |position, key| {
        let mut stream = draws::stream(seed, position as u64, key, Purpose::LikelihoodNoise);
        draws::normals(&mut stream, width).into_iter().map(f64::from).collect()
    }
}

/// Clean samples.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// The samples, one after another.
    pub values: &'a [f64],
    /// The key of each sample's noise.
    pub keys: &'a [u64],
}

/// All samples noised to one level.
#[derive(Clone, Copy, Debug)]
pub struct Noised<'a> {
    /// The level.
    pub level: Level,
    /// δγ that it stands for.
    pub weight: f64,
    /// √ᾱ·x₀ + √(1 − ᾱ)·ε of all samples.
    pub noisy: &'a [f64],
    /// ε of all samples.
    pub noise: &'a [f64],
}

/// Shows `visit` all samples, of `width` values each, at each level of the grid.
///
/// # Errors
///
/// [`EvalError::Length`] if values, keys and noise do not fit; the first error of `visit`.
pub fn at_each_level(
    width: usize,
    samples: Samples<'_>,
    grid: &Grid,
    noise: &NoiseSource<'_>,
    visit: &mut dyn FnMut(&Noised<'_>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let expected = width * samples.keys.len();
    same_length("the list of samples", samples.values.len(), expected)?;
    for (position, (&level, &weight)) in grid.levels.iter().zip(&grid.weights).enumerate() {
        let drawn: Vec<f64> = samples.keys.iter().flat_map(|&key| noise(position, key)).collect();
        same_length("the noise", drawn.len(), expected)?;
        let (signal, share) = level.signal_and_noise();
        let noisy: Vec<f64> =
            samples.values.iter().zip(&drawn).map(|(x, eps)| signal * x + share * eps).collect();
        visit(&Noised { level, weight, noisy: &noisy, noise: &drawn })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use diffusion::{Prediction, SchedulerConfig};

    fn native() -> Vec<Level> {
        let config = SchedulerConfig::stable_diffusion(Prediction::Epsilon);
        native_levels(&NoiseSchedule::new(&config).unwrap())
    }

    /// ∫ of the function over γ.
    fn integral(grid: &Grid, f: &dyn Fn(f64) -> f64) -> f64 {
        grid.gammas().iter().zip(&grid.weights).map(|(gamma, weight)| weight * f(*gamma)).sum()
    }

    #[test]
    fn levels_without_signal_are_no_levels() {
        let config = SchedulerConfig {
            zero_terminal_snr: true,
            ..SchedulerConfig::stable_diffusion(Prediction::V)
        };
        let levels = native_levels(&NoiseSchedule::new(&config).unwrap());
        assert_eq!((levels.len(), native().len()), (999, 1000));
        assert!(levels.iter().all(|level| level.gamma().is_finite()));
    }

    #[test]
    fn the_native_range_of_gamma_is_known() {
        let gammas = Grid::trapezoid(native()).gammas();
        assert!((gammas[0] + 7.069_424).abs() < 1e-6 && (gammas[999] - 5.364_048).abs() < 1e-6);
    }

    #[test]
    fn a_trapezoid_is_exact_for_lines_and_indifferent_to_the_order() {
        let mut levels = native();
        let grid = Grid::trapezoid(levels.clone());
        let (low, high) = (grid.gammas()[0], grid.gammas()[999]);
        let exact = (high * high - low * low) / 2.0 + 3.0 * (high - low);
        assert!((integral(&grid, &|gamma| gamma + 3.0) - exact).abs() < 1e-10);
        levels.reverse();
        assert_eq!(Grid::trapezoid(levels), grid);
        assert_eq!(Grid::trapezoid(Vec::new()), Grid::default());
    }

    #[test]
    fn each_part_of_the_range_holds_one_stratified_level() {
        let grid = Grid::stratified(&native(), 32, 5, 0);
        let (low, width) = (-7.069_423_847, 12.433_471_547 / 32.0);
        for (r, gamma) in grid.gammas().iter().enumerate() {
            let place = (gamma - low) / width - real(r);
            assert!((-1e-6..1.0 + 1e-6).contains(&place), "{r}: {place}");
        }
        assert!((integral(&grid, &|_| 1.0) - 12.433_471_547).abs() < 1e-6);
        assert_ne!(grid, Grid::stratified(&native(), 32, 5, 1));
        assert_ne!(grid, Grid::stratified(&native(), 32, 6, 0));
        assert_eq!(grid, Grid::stratified(&native(), 32, 5, 0));
    }

    #[test]
    fn timesteps_between_native_levels_are_interpolated() {
        let native = native();
        for level in Grid::stratified(&native, 16, 1, 0).levels {
            let t = level.timestep;
            let below = native[statistics::number::index(t)];
            let above = native[(statistics::number::index(t) + 1).min(999)];
            assert!(below.gamma() <= level.gamma() + 1e-9, "{level:?}");
            assert!(level.gamma() <= above.gamma() + 1e-9, "{level:?}");
        }
        let between = interpolated(&native, f64::midpoint(native[4].gamma(), native[5].gamma()));
        assert!((between.timestep - 4.5).abs() < 1e-9, "{between:?}");
    }

    #[test]
    fn a_flow_grid_integrates_over_gamma() {
        let sigmas: Vec<f64> = (0..2001).map(|i| 0.05 + 0.9 * f64::from(i) / 2000.0).collect();
        let grid = Grid::flow(&sigmas);
        let (low, high) = (grid.gammas()[0], grid.gammas()[2000]);
        let exact = (high * high * high - low * low * low) / 3.0;
        assert!((integral(&grid, &|gamma| gamma * gamma) / exact - 1.0).abs() < 1e-4);
    }

    #[test]
    fn noise_follows_seed_level_and_key_alone() {
        let noise = keyed_noise(3, 4);
        assert_eq!(noise(2, 9), keyed_noise(3, 4)(2, 9));
        assert_ne!(noise(2, 9), noise(1, 9));
        assert_ne!(noise(2, 9), noise(2, 8));
        assert_ne!(noise(2, 9), keyed_noise(4, 4)(2, 9));
    }

    #[test]
    fn samples_are_mixed_with_noise_by_the_roots_of_their_shares() {
        let grid =
            Grid { levels: vec![Level { timestep: 0.0, alpha_cumprod: 0.64 }], weights: vec![0.5] };
        let samples = Samples { values: &[1.0, 2.0], keys: &[10, 11] };
        let noise =
            |position: usize, key: u64| vec![real(position) + statistics::number::real_u64(key)];
        let mut seen = Vec::new();
        at_each_level(1, samples, &grid, &noise, &mut |at: &Noised<'_>| {
            seen.extend_from_slice(at.noisy);
            assert_eq!(at.noise.to_vec(), vec![10.0, 11.0]);
            Ok(())
        })
        .unwrap();
        assert!((seen[0] - (0.8 + 6.0)).abs() < 1e-12 && (seen[1] - (1.6 + 6.6)).abs() < 1e-12);
    }

    #[test]
    fn samples_without_a_key_are_refused() {
        let samples = Samples { values: &[1.0, 2.0, 3.0], keys: &[1] };
        let noise = keyed_noise(0, 1);
        let refused =
            at_each_level(1, samples, &Grid::default(), &noise, &mut |_: &Noised<'_>| Ok(()));
        assert!(matches!(refused, Err(EvalError::Length { expected: 1, found: 3, .. })));
    }
}
