//! Normal clouds on a ring in the plane: each is an entity, and a settlement changes their shares.

use eval::EvalError;
use eval::protocol::{Condition, Denoiser, Level};
use recipes::draws::{self, Purpose};
use statistics::number::real;

/// Shares of *Ring6* before anything is settled; the sixth entity is not there.
pub const SIX: [f64; 6] = [0.35, 0.25, 0.20, 0.15, 0.05, 0.0];
/// A newcomer of a fifth that thins all others out alike.
pub const SIX_DILUTED: [f64; 6] = [0.28, 0.20, 0.16, 0.12, 0.04, 0.20];
/// A newcomer of a fifth that drives the third out and favors the fourth.
pub const SIX_SELECTED: [f64; 6] = [0.28, 0.20, 0.08, 0.20, 0.04, 0.20];
/// Shares of *Ring5*.
pub const FIVE: [f64; 5] = [0.35, 0.25, 0.20, 0.15, 0.05];
/// *Ring5* settled in favor of its fifth entity.
pub const FIVE_SETTLED: [f64; 5] = [0.15, 0.20, 0.20, 0.15, 0.30];

/// A mixture of K normal laws in the plane, means `R·(cos 2πk/K, sin 2πk/K)`, common variance s².
///
/// `ε* = √(1−ᾱ)·Σ r_k·(x − √ᾱ·μ_k)/v` with v = ᾱs² + 1 − ᾱ and `r_k ∝ π_k·exp(−‖x − √ᾱ·μ_k‖²/2v)`.
/// Told the number of a component in words, it is that component alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// μ of each component.
    pub means: Vec<[f64; 2]>,
    /// s².
    pub variance: f64,
    /// π; 0 is allowed.
    pub shares: Vec<f64>,
}

impl Ring {
    /// As many components as there are shares, on a ring of this radius.
    pub fn new(radius: f64, variance: f64, shares: &[f64]) -> Self {
        let angle = |k: usize| std::f64::consts::TAU * real(k) / real(shares.len());
        let mean = |k: usize| [radius * libm::cos(angle(k)), radius * libm::sin(angle(k))];
        Self { means: (0..shares.len()).map(mean).collect(), variance, shares: shares.to_vec() }
    }

    /// *Ring6* (R = 2, s² = .04) with these shares.
    pub fn six(shares: [f64; 6]) -> Self {
        Self::new(2.0, 0.04, &shares)
    }

    /// *Ring5* (R = 1.2, s² = .04) with these shares.
    pub fn five(shares: [f64; 5]) -> Self {
        Self::new(1.2, 0.04, &shares)
    }

    /// The same with the mean of one component moved.
    #[must_use]
    pub fn moved(mut self, component: usize, by: [f64; 2]) -> Self {
        self.means[component][0] += by[0];
        self.means[component][1] += by[1];
        self
    }

    /// One component alone.
    #[must_use]
    pub fn alone(&self, component: usize) -> Self {
        let shares = (0..self.shares.len()).map(|k| if k == component { 1.0 } else { 0.0 });
        Self { shares: shares.collect(), ..self.clone() }
    }

    /// The component whose mean is nearest; the first of equally near ones.
    pub fn label(&self, x: [f64; 2]) -> u16 {
        let distance = |mean: &[f64; 2]| {
            let (dx, dy) = (x[0] - mean[0], x[1] - mean[1]);
            dx * dx + dy * dy
        };
        let nearest =
            self.means.iter().enumerate().min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
        nearest.map_or(0, |(component, _)| component as u16)
    }

    /// Labels of clean samples, two values each.
    pub fn labels(&self, clean: &[f64]) -> Vec<u16> {
        clean.chunks_exact(2).map(|x| self.label([x[0], x[1]])).collect()
    }

    /// A clean sample of one component, keyed by (seed, component, sample).
    pub fn sample(&self, component: usize, seed: u64, sample: u64) -> [f64; 2] {
        let mut stream = draws::stream(seed, component as u64, sample, Purpose::World);
        let z = draws::normals(&mut stream, 2);
        let (mean, deviation) = (self.means[component], libm::sqrt(self.variance));
        [mean[0] + deviation * f64::from(z[0]), mean[1] + deviation * f64::from(z[1])]
    }

    /// ε* at one noisy place; `logs` are the logarithms of the shares.
    fn noise_at(&self, x: [f64; 2], level: Level, logs: &[f64]) -> [f64; 2] {
        let (signal, noise) = level.signal_and_noise();
        let v = level.alpha_cumprod * self.variance + 1.0 - level.alpha_cumprod;
        let at = |k: usize| {
            let off = [x[0] - signal * self.means[k][0], x[1] - signal * self.means[k][1]];
            (logs[k] - (off[0] * off[0] + off[1] * off[1]) / (2.0 * v), off)
        };
        let n = self.means.len();
        let largest = (0..n).map(|k| at(k).0).fold(f64::NEG_INFINITY, f64::max);
        let (mut total, mut sum) = (0.0, [0.0; 2]);
        for k in 0..n {
            let (logit, off) = at(k);
            let responsibility = libm::exp(logit - largest);
            total += responsibility;
            sum[0] += responsibility * off[0];
            sum[1] += responsibility * off[1];
        }
        sum.map(|sum| noise * sum / (total * v))
    }

    /// The world as it is when told `condition`.
    fn told(&self, condition: Condition<'_>) -> Result<Option<Self>, EvalError> {
        let Condition::Words(words) = condition else {
            return Ok(None);
        };
        let known = words.parse::<usize>().ok().filter(|component| *component < self.means.len());
        let component = known.ok_or_else(|| EvalError::UnknownName {
            kind: "component",
            name: words.to_owned(),
            known: format!("0 to {}", self.means.len().saturating_sub(1)),
        })?;
        Ok(Some(self.alone(component)))
    }
}

impl Denoiser for Ring {
    fn width(&self) -> usize {
        2
    }

    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        condition: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError> {
        let alone = self.told(condition)?;
        let world = alone.as_ref().unwrap_or(self);
        let logs: Vec<f64> = world.shares.iter().map(|share| libm::log(*share)).collect();
        let places = noisy.chunks_exact(2);
        Ok(places.flat_map(|x| world.noise_at([x[0], x[1]], level, &logs)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// log p of noised x, up to a constant.
    fn log_density(ring: &Ring, x: [f64; 2], level: Level) -> f64 {
        let (signal, _) = level.signal_and_noise();
        let v = level.alpha_cumprod * ring.variance + 1.0 - level.alpha_cumprod;
        let term = |(mean, share): (&[f64; 2], &f64)| {
            let (dx, dy) = (x[0] - signal * mean[0], x[1] - signal * mean[1]);
            share * (-(dx * dx + dy * dy) / (2.0 * v)).exp()
        };
        ring.means.iter().zip(&ring.shares).map(term).sum::<f64>().ln()
    }

    #[test]
    fn noise_is_minus_the_score_times_the_noise_share() {
        let mut ring = Ring::six(SIX);
        for gamma in [-1.0, 1.0, 4.0] {
            let level = Level::of_gamma(0.0, gamma);
            let (_, noise) = level.signal_and_noise();
            let (x, h) = ([0.9, -0.4], 1e-5);
            let said = ring.noise(&x, level, Condition::Nothing).unwrap();
            for (axis, said) in said.iter().enumerate() {
                let moved = |by: f64| {
                    let mut x = x;
                    x[axis] += by;
                    log_density(&ring, x, level)
                };
                let score = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((said + noise * score).abs() < 1e-6, "{gamma}: {said} {score}");
            }
        }
    }

    #[test]
    fn a_component_without_a_share_says_nothing_and_far_places_stay_finite() {
        let (mut six, mut five) = (Ring::six(SIX), Ring::six(SIX));
        five.means.pop();
        five.shares.pop();
        let level = Level::of_gamma(0.0, -12.0);
        for x in [[0.3, 0.2], [90.0, -70.0]] {
            let all = six.noise(&x, level, Condition::Nothing).unwrap();
            assert_eq!(all, five.noise(&x, level, Condition::Nothing).unwrap());
            assert!(all.iter().all(|value| value.is_finite()), "{all:?}");
        }
    }

    #[test]
    fn told_a_number_it_is_that_component_alone() {
        let (mut ring, level) = (Ring::six(SIX), Level::of_gamma(0.0, 0.5));
        let said = ring.noise(&[0.3, 0.2], level, Condition::Words("2")).unwrap();
        let mut alone = ring.alone(2);
        assert_eq!(said, alone.noise(&[0.3, 0.2], level, Condition::Nothing).unwrap());
        for words in ["6", "a boat"] {
            let refused = ring.noise(&[0.3, 0.2], level, Condition::Words(words));
            assert!(matches!(refused, Err(EvalError::UnknownName { .. })), "{words}");
        }
    }

    #[test]
    fn samples_lie_around_their_mean_and_are_named_after_it() {
        let ring = Ring::six(SIX);
        for component in 0..6 {
            let all: Vec<[f64; 2]> = (0..500).map(|k| ring.sample(component, 3, k)).collect();
            assert!(all.iter().all(|x| usize::from(ring.label(*x)) == component));
            let mean = all.iter().map(|x| x[1]).sum::<f64>() / 500.0;
            assert!((mean - ring.means[component][1]).abs() < 0.04, "{component}: {mean}");
        }
        assert_eq!(ring.labels(&[2.0, 0.1, -2.0, 0.1]), vec![0, 3]);
    }

    #[test]
    fn shares_are_those_of_the_specification() {
        for shares in [SIX, SIX_DILUTED, SIX_SELECTED] {
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        for shares in [FIVE, FIVE_SETTLED] {
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        let moved = Ring::six(SIX).moved(2, [0.15, 0.0]);
        assert!((moved.means[2][0] - Ring::six(SIX).means[2][0] - 0.15).abs() < 1e-12);
    }
}
