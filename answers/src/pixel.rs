//! Known answer of the information maps: a pixel that is a word plus as much noise, and one that has
//! nothing to do with it.

use crate::answer::{Answer, Check};
use crate::worlds::schedule::even_in_gamma;
use eval::EvalError;
use eval::noising::{Grid, Samples};
use eval::pixel::information;
use eval::protocol::{Condition, Denoiser, Level};
use serde_json::json;
use std::f64::consts::LN_2;

/// Two pixels: the first is y + n, both of variance 1; the second is of variance 1 and knows no y.
///
/// Told any words, the world knows its y: the first pixel is then N(y, 1), else N(0, 2).
#[derive(Clone, Copy, Debug, PartialEq)]
struct TwoPixels {
    y: f64,
}

impl Denoiser for TwoPixels {
    fn width(&self) -> usize {
        2
    }

    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        condition: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError> {
        let (signal, noise) = level.signal_and_noise();
        let (mean, variance) = match condition {
            Condition::Nothing => (0.0, 2.0),
            Condition::Words(_) => (self.y, 1.0),
        };
        let said = |x: f64, mean: f64, variance: f64| {
            let v = level.alpha_cumprod * variance + 1.0 - level.alpha_cumprod;
            noise * (x - signal * mean) / v
        };
        let both = |x: &[f64]| [said(x[0], mean, variance), said(x[1], 0.0, 1.0)];
        Ok(noisy.chunks_exact(2).flat_map(both).collect())
    }
}

/// KAT `pixel`: ½·ln 2 nats about the pixel that holds the word, none about the other.
///
/// What the instrument squares is linear in y, n and ε, so its mean over the three is the sum over the
/// three unit vectors.
///
/// # Errors
///
/// None: the world is valid.
pub fn pixel(_seed: u64) -> Result<Answer, EvalError> {
    let grid = Grid::trapezoid(even_in_gamma(-12.0, 12.0, 401));
    let mut nats = [0.0; 2];
    for [y, n, eps] in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] {
        let samples = Samples { values: &[y + n, n], keys: &[0] };
        let noise = move |_: usize, _: u64| vec![eps; 2];
        let maps = information(&mut TwoPixels { y }, "y", samples, &grid, &noise)?;
        for (sum, value) in nats.iter_mut().zip(&maps[0]) {
            *sum += value;
        }
    }
    Ok(Answer {
        name: "pixel",
        checks: vec![
            Check::new("nats about the pixel that holds the word", nats[0], LN_2 / 2.0, 1e-4),
            Check::new("nats about the other", nats[1], 0.0, 1e-4),
        ],
        inputs: json!({ "variance_of_y": 1.0, "variance_of_n": 1.0, "levels": 401 }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_where_it_is() {
        let answer = pixel(1).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
        // Pixels that the word does not touch are told alike, exactly.
        assert!(answer.checks[1].found.abs() < 1e-15, "{:?}", answer.checks);
    }

    #[test]
    fn the_known_answer_is_half_the_logarithm_of_the_ratio_of_variances() {
        let found = pixel(1).unwrap().checks[0].found;
        assert!((found - 0.346_57).abs() < 1e-5, "{found}");
    }
}
