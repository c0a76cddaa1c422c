//! Information maps: how many nats a word tells of each latent pixel of a picture.
//!
//! `i°(x; y) = ½Σ_γ δγ·‖ε̂(x_γ, ∅) − ε̂(x_γ, y)‖²` per latent pixel, base and adapted model on the same
//! picture and noise. The difference map shows where the word lost its hold. Owns the figure, its
//! reduction and how a map becomes gray; which pictures are looked at is the caller's.
//!
//! Source: Kong et al. 2024, arXiv:2310.07972 (the non-negative form that splits over pixels).

use crate::error::EvalError;
use crate::means;
use crate::noising::{Grid, NoiseSource, Noised, Samples, at_each_level};
use crate::protocol::{Condition, Denoiser, predicted};
use crate::record::{PixelRecord, PixelWord};
use image::{GrayImage, Luma};
use statistics::interval::{Estimate, Resampler};
use statistics::number::index;

/// Nats that `word` tells of each value of each sample, `[sample][value]`, never below 0.
///
/// # Errors
///
/// The denoiser's own; [`EvalError::Length`] for samples and noise that do not fit.
pub fn information(
    denoiser: &mut dyn Denoiser,
    word: &str,
    samples: Samples<'_>,
    grid: &Grid,
    noise: &NoiseSource<'_>,
) -> Result<Vec<Vec<f64>>, EvalError> {
    let width = denoiser.width();
    let mut maps = vec![vec![0.0; width]; samples.keys.len()];
    at_each_level(width, samples, grid, noise, &mut |at: &Noised<'_>| {
        let without = predicted(denoiser, at.noisy, at.level, Condition::Nothing)?;
        let with = predicted(denoiser, at.noisy, at.level, Condition::Words(word))?;
        for (value, (x, y)) in maps.iter_mut().flatten().zip(without.iter().zip(&with)) {
            *value += at.weight / 2.0 * (x - y) * (x - y);
        }
        Ok(())
    })?;
    Ok(maps)
}

/// One value per latent pixel: the sum over the channels of `[channels, height, width]`.
pub fn over_channels(values: &[f64], channels: usize) -> Vec<f64> {
    let area = values.len() / channels.max(1);
    (0..area).map(|pixel| values.iter().skip(pixel).step_by(area).sum::<f64>()).collect()
}

/// One word, with the information summed over each picture; position `i` of both lists is the same
/// picture.
#[derive(Clone, Debug, PartialEq)]
pub struct WordInformation {
    /// Entity that the word names.
    pub id: String,
    /// What was asked.
    pub phrase: String,
    /// Nats per picture in the base.
    pub before: Vec<f64>,
    /// Nats per picture in the adapted model.
    pub after: Vec<f64>,
}

/// The record of some words, with intervals that hold for all of them at once. Its pictures are left
/// to whoever keeps files.
pub fn reduce(words: &[WordInformation], levels: u64, resampler: Resampler) -> PixelRecord {
    let column = |value: &dyn Fn(&WordInformation) -> Vec<f64>| -> Vec<Estimate> {
        let lists: Vec<Vec<f64>> = words.iter().map(value).collect();
        means::estimates(&lists, resampler)
    };
    let before = column(&|word: &WordInformation| word.before.clone());
    let after = column(&|word: &WordInformation| word.after.clone());
    let change = |word: &WordInformation| -> Vec<f64> {
        word.after.iter().zip(&word.before).map(|(after, before)| after - before).collect()
    };
    let delta = column(&change);
    let words = words.iter().enumerate().map(|(i, word)| PixelWord {
        id: word.id.clone(),
        phrase: word.phrase.clone(),
        before: not_below_zero(before[i]),
        after: not_below_zero(after[i]),
        delta: delta[i],
        pictures: Vec::new(),
    });
    PixelRecord { levels, words: words.collect() }
}

/// Information is not below 0, whatever its interval says.
fn not_below_zero(estimate: Estimate) -> Estimate {
    Estimate { ci: estimate.ci.map(|[low, high]| [low.max(0.0), high]), ..estimate }
}

/// Nats per pixel that white stands for in a picture's maps: the largest of both; 1 where nothing is
/// told.
pub fn scale(before: &[f64], after: &[f64]) -> f64 {
    let largest = before.iter().chain(after).copied().fold(0.0, f64::max);
    if largest > 0.0 { largest } else { 1.0 }
}

/// A map of rows of `width` pixels as a gray picture: black is 0, white is `scale` nats.
pub fn gray(map: &[f64], width: usize, scale: f64) -> GrayImage {
    painted(map, width, |value| value / scale)
}

/// The difference of two maps as a gray picture: middle gray is 0, black a loss of `scale`, white a
/// gain of it.
pub fn gray_difference(before: &[f64], after: &[f64], width: usize, scale: f64) -> GrayImage {
    let change: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    painted(&change, width, |value| f64::midpoint(1.0, value / scale))
}

/// Pixels whose shade in [0, 1] is told by `shade`; a last row that is not whole is left out.
fn painted(map: &[f64], width: usize, shade: impl Fn(f64) -> f64) -> GrayImage {
    let width = width.max(1);
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    GrayImage::from_fn(side(width), side(map.len() / width), |x, y| {
        let value = map[y as usize * width + x as usize];
        let byte = index((shade(value).clamp(0.0, 1.0) * 255.0).round_ties_even());
        Luma([u8::try_from(byte).unwrap_or(u8::MAX)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Level;

    /// Says x, and under words x less a number per value.
    struct Told([f64; 2]);

    impl Denoiser for Told {
        fn width(&self) -> usize {
            2
        }

        fn noise(
            &mut self,
            noisy: &[f64],
            _: Level,
            condition: Condition<'_>,
        ) -> Result<Vec<f64>, EvalError> {
            let told = match condition {
                Condition::Nothing => [0.0; 2],
                Condition::Words(_) => self.0,
            };
            Ok(noisy.iter().zip(told.iter().cycle()).map(|(x, told)| x - told).collect())
        }
    }

    #[test]
    fn information_is_half_the_squared_difference_of_what_is_said() {
        let grid = Grid::trapezoid(vec![Level::of_gamma(0.0, -1.0), Level::of_gamma(0.0, 2.0)]);
        let samples = Samples { values: &[0.5; 4], keys: &[1, 2] };
        let noise = crate::noising::keyed_noise(1, 2);
        let maps = information(&mut Told([2.0, 0.0]), "a boat", samples, &grid, &noise).unwrap();
        for map in maps {
            assert!((map[0] - 0.5 * 3.0 * 4.0).abs() < 1e-12 && map[1].abs() < 1e-12, "{map:?}");
        }
    }

    #[test]
    fn channels_are_summed_pixel_by_pixel() {
        assert_eq!(over_channels(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], 2), vec![11.0, 22.0, 33.0]);
        assert_eq!(over_channels(&[], 4), Vec::<f64>::new());
    }

    #[test]
    fn words_are_reduced_to_paired_means() {
        let before: Vec<f64> = (0..20).map(|i| 2.0 + 0.1 * f64::from(i % 5)).collect();
        let after: Vec<f64> = before.iter().map(|x| 0.5 * x).collect();
        let word = WordInformation { id: "boat".into(), phrase: "a boat".into(), before, after };
        let record = reduce(&[word], 32, Resampler { seed: 1, draws: 200 });
        let found = &record.words[0];
        assert!((found.before.value - 2.2).abs() < 1e-12, "{found:?}");
        assert!((found.delta.value + 1.1).abs() < 1e-12, "{found:?}");
        let [low, high] = found.delta.ci.unwrap();
        assert!(low < -1.1 && -1.1 < high && high - low < 0.1, "{found:?}");
        assert!(found.before.ci.unwrap()[0] >= 0.0 && found.pictures.is_empty());
    }

    #[test]
    fn maps_run_from_black_at_nothing_to_white_at_their_scale() {
        let picture = gray(&[0.0, 1.0, 2.0, 4.0, 0.5, 0.0], 3, 2.0);
        assert_eq!(picture.dimensions(), (3, 2));
        assert_eq!(picture.into_raw(), [0, 128, 255, 255, 64, 0]);
    }

    #[test]
    fn a_loss_is_darker_than_middle_gray() {
        let picture = gray_difference(&[1.0, 2.0, 0.0, 0.0], &[1.0, 0.0, 2.0, 9.0], 2, 2.0);
        assert_eq!(picture.into_raw(), [128, 0, 255, 255]);
    }

    #[test]
    fn one_scale_serves_both_maps() {
        assert!((scale(&[0.1, 3.0], &[4.0, 0.0]) - 4.0).abs() < 1e-12);
        assert!((scale(&[0.0], &[0.0]) - 1.0).abs() < 1e-12);
    }
}
