//! Owns the coherence of series: whether pictures drawn under varied instructions belong to one world.
//! Pure: works on embeddings, features and pictures.
//!
//! Distances between pictures live in three spaces: *style* (what stands beside what, wherever it
//! stands), *content* (what the evaluator sees) and *palette* (which colors, wherever they are). In each,
//! R² is the share of the squared distances that lies between series. A frozen, repeated picture
//! maximises it, so that diversity within series is always shown beside it.

use crate::fabric::{Distances, cosine_distances};
use crate::record::{Coherence, FrontierPoint, SeriesSpace};
use crate::scatter::scattered;
use image::RgbImage;
use rayon::prelude::*;
use statistics::algebra::dot;
use statistics::interval::{Estimate, Resampler};
use statistics::kernel::{cosines, vendi};
use statistics::number::{index, mean, real, single};
use statistics::permanova::{permanova, relabelled, silhouette};

/// Random relabellings behind each p.
pub const RELABELLINGS: u32 = 999;
/// Points at which the distribution of a color channel is read.
const QUANTILES: usize = 256;

/// 1 − cosine between the pictures' embeddings.
pub fn distances_content(embeddings: &[Vec<f32>]) -> Distances {
    cosine_distances(&wide(embeddings))
}

/// Euclidean distances between descriptions of style, such as [`style_from_tokens`]: for those it is the
/// Frobenius distance of the Gram matrices.
pub fn distances_style(styles: &[Vec<f32>]) -> Distances {
    let styles = wide(styles);
    let apart = |i: usize, j: usize| {
        let pairs = styles[i].iter().zip(&styles[j]);
        libm::sqrt(pairs.map(|(x, y)| (x - y) * (x - y)).sum::<f64>())
    };
    table(styles.len(), &apart)
}

/// Style of one picture: the Gram matrix FᵀF/n of n early tokens of `width` features each, its diagonal
/// and upper half laid flat. What is off the diagonal counts √2-fold, as it stands there twice.
///
/// # Shapes
///
/// - `tokens`: `[n, width]`, laid flat; the result: `width·(width + 1)/2`
///
/// Source: Gatys, Ecker & Bethge 2016, section 2.2.
pub fn style_from_tokens(tokens: &[f32], width: usize) -> Vec<f32> {
    let mut gram = vec![0.0_f64; width * (width + 1) / 2];
    let rows = tokens.chunks_exact(width.max(1));
    let n = real(rows.len()).max(1.0);
    for row in rows {
        let mut slots = gram.iter_mut();
        for (i, x) in row.iter().enumerate() {
            for (y, slot) in row[i..].iter().zip(&mut slots) {
                *slot += f64::from(*x) * f64::from(*y);
            }
        }
    }
    let mut slots = gram.iter_mut();
    for i in 0..width {
        for (j, slot) in slots.by_ref().take(width - i).enumerate() {
            *slot *= if j == 0 { 1.0 / n } else { std::f64::consts::SQRT_2 / n };
        }
    }
    gram.into_iter().map(single).collect()
}

/// Mean over L\*, a\* and b\* of the 1-D Wasserstein distance between the distributions of that channel,
/// in units of CIELAB.
pub fn distances_palette(pictures: &[RgbImage]) -> Distances {
    let palettes: Vec<Vec<f64>> = pictures.par_iter().map(palette).collect();
    let apart = |i: usize, j: usize| {
        let pairs = palettes[i].iter().zip(&palettes[j]);
        mean(&pairs.map(|(x, y)| (x - y).abs()).collect::<Vec<f64>>()).unwrap_or(0.0)
    };
    table(pictures.len(), &apart)
}

/// Quantiles of L\*, then of a\*, then of b\*.
fn palette(picture: &RgbImage) -> Vec<f64> {
    let linear: Vec<f64> = (0..=255_u8).map(|byte| linear(f64::from(byte) / 255.0)).collect();
    let mut channels: [Vec<f64>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for pixel in picture.pixels() {
        let lab = lab_from_linear(pixel.0.map(|byte| linear[usize::from(byte)]));
        for (channel, value) in channels.iter_mut().zip(lab) {
            channel.push(value);
        }
    }
    let mut quantiles = Vec::with_capacity(3 * QUANTILES);
    for channel in &mut channels {
        channel.sort_by(f64::total_cmp);
        let at = |k: usize| index((real(k) + 0.5) / real(QUANTILES) * real(channel.len()));
        quantiles.extend((0..QUANTILES).filter_map(|k| channel.get(at(k)).copied()));
    }
    quantiles
}

/// CIELAB (L\* in [0, 100]) of an sRGB color in [0, 1], white D65.
///
/// Source: IEC 61966-2-1 and CIE 15; agrees with Lindbloom's values of the primaries.
pub fn lab_from_srgb(srgb: [f64; 3]) -> [f64; 3] {
    lab_from_linear(srgb.map(linear))
}

/// A channel of sRGB without its gamma.
fn linear(value: f64) -> f64 {
    if value <= 0.040_45 { value / 12.92 } else { libm::pow((value + 0.055) / 1.055, 2.4) }
}

fn lab_from_linear([r, g, b]: [f64; 3]) -> [f64; 3] {
    let x = (0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b) / 0.950_47;
    let y = 0.212_672_9 * r + 0.715_152_2 * g + 0.072_175 * b;
    let z = (0.019_333_9 * r + 0.119_192 * g + 0.950_304_1 * b) / 1.088_83;
    let [x, y, z] = [x, y, z].map(|t| {
        if t > 216.0 / 24_389.0 { libm::cbrt(t) } else { (24_389.0 / 27.0 * t + 16.0) / 116.0 }
    });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

fn wide(rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
    rows.iter().map(|row| row.iter().copied().map(f64::from).collect()).collect()
}

/// A symmetric table with 0 on its diagonal.
fn table(n: usize, apart: &(dyn Fn(usize, usize) -> f64 + Sync)) -> Distances {
    let row =
        |i: usize| -> Vec<f64> { (0..n).map(|j| if i == j { 0.0 } else { apart(i, j) }).collect() };
    (0..n).into_par_iter().map(row).collect()
}

/// How far the pictures' series explain their distances. `groups` has one number per picture, series
/// counted from 0.
///
/// The interval of R² resamples pictures within series. A picture drawn twice is at distance 0 from
/// itself, which holds its series together; so only the scatter of the replicates is used.
///
/// # Errors
///
/// The reason for a refusal: fewer than two series, as many series as pictures, pictures that are all
/// alike.
pub fn coherence(
    distances: &[Vec<f64>],
    groups: &[usize],
    resampler: Resampler,
) -> Result<Coherence, String> {
    let split = permanova(distances, groups)
        .ok_or("two series, more pictures than series and pictures that differ are needed")?;
    let chance = relabelled(distances, groups, RELABELLINGS, resampler.seed);
    let chance = chance.ok_or("the pictures cannot be dealt out anew")?;
    Ok(Coherence {
        r2: scattered(split.r2, &replicates(distances, groups, resampler), 0.0, 1.0),
        r2_permuted: chance.r2,
        omega2: split.omega2,
        f: split.f,
        p: chance.p,
        silhouette: silhouette(distances, groups).unwrap_or(0.0),
    })
}

/// Coherence in one space, in both models where the base was drawn, and what is retained of it.
/// Equal positions are the same series, instruction and seed.
///
/// # Errors
///
/// As [`coherence`], of either model.
pub fn space(
    name: &str,
    before: Option<&Distances>,
    after: &[Vec<f64>],
    groups: &[usize],
    resampler: Resampler,
) -> Result<SeriesSpace, String> {
    let coherent_after = coherence(after, groups, resampler)?;
    let coherent_before =
        before.map(|distances| coherence(distances, groups, resampler)).transpose()?;
    let pair = before.zip(coherent_before.as_ref());
    let retention = pair.and_then(|(distances, base)| {
        let base_draws = replicates(distances, groups, resampler);
        let draws = replicates(after, groups, resampler);
        let drawn: Vec<f64> = draws.iter().zip(&base_draws).map(|(a, b)| a / b).collect();
        retention(base, coherent_after.r2.value, &drawn)
    });
    Ok(SeriesSpace {
        space: name.to_owned(),
        before: coherent_before,
        after: coherent_after,
        retention,
    })
}

/// World retention `W = R²_A/R²_B` with the `drawn` ratios' scatter; `None` where the interval of the
/// base's R² reaches down to what chance gives.
fn retention(base: &Coherence, after: f64, drawn: &[f64]) -> Option<Estimate> {
    let least = base.r2.ci.map_or(base.r2.value, |ci| ci[0]);
    (least > base.r2_permuted).then(|| scattered(after / base.r2.value, drawn, 0.0, f64::INFINITY))
}

/// R² of bootstrap draws of pictures within series; draw `k` is the same in every space and model.
fn replicates(distances: &[Vec<f64>], groups: &[usize], resampler: Resampler) -> Vec<f64> {
    let members = members(groups);
    let lengths: Vec<usize> = members.iter().map(Vec::len).collect();
    (0..resampler.draws)
        .into_par_iter()
        .map(|draw| {
            let positions = resampler.positions(draw, &lengths);
            let chosen: Vec<usize> = members
                .iter()
                .zip(&positions)
                .flat_map(|(of_series, drawn)| drawn.iter().map(|&i| of_series[i]))
                .collect();
            let drawn: Distances =
                chosen.iter().map(|&i| chosen.iter().map(|&j| distances[i][j]).collect()).collect();
            let series: Vec<usize> = chosen.iter().map(|&i| groups[i]).collect();
            // A draw of pictures that are all alike holds together wholly.
            permanova(&drawn, &series).map_or(1.0, |split| split.r2)
        })
        .collect()
}

/// Pictures of each series.
fn members(groups: &[usize]) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); groups.iter().max().map_or(0, |most| most + 1)];
    for (picture, &series) in groups.iter().enumerate() {
        members[series].push(picture);
    }
    members
}

/// The pictures of one dose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrontierInput<'a> {
    /// Multiplier of the adapter; 0 is the base.
    pub dose: f64,
    /// Unit embeddings.
    pub embeddings: &'a [Vec<f32>],
    /// Series of each picture, counted from 0.
    pub groups: &'a [usize],
    /// Unit embeddings of the concept's references; may be none.
    pub references: &'a [Vec<f32>],
    /// Cosine of each picture with its own instruction.
    pub with_instructions: &'a [f64],
}

/// Coherence against diversity at one dose.
///
/// # Errors
///
/// As [`coherence`], or a series of fewer than two pictures.
pub fn frontier(input: &FrontierInput<'_>, resampler: Resampler) -> Result<FrontierPoint, String> {
    let content = distances_content(input.embeddings);
    let coherent = coherence(&content, input.groups, resampler)?;
    let members = members(input.groups);
    if members.iter().any(|of_series| of_series.len() < 2) {
        return Err("a series has fewer than two pictures".to_owned());
    }
    let similar = cosines(input.embeddings);
    let diversity = |positions: &[Vec<usize>]| {
        let one = |(of_series, drawn): (&Vec<usize>, &Vec<usize>)| -> f64 {
            let row = |i: usize| -> Vec<f64> {
                drawn.iter().map(|&j| similar[of_series[i]][of_series[j]]).collect()
            };
            let chosen: Vec<Vec<f64>> = drawn.iter().map(|&i| row(i)).collect();
            vendi(&chosen).map_or(1.0, |score| score[0])
        };
        mean(&members.iter().zip(positions).map(one).collect::<Vec<f64>>()).unwrap_or(1.0)
    };
    let lengths: Vec<usize> = members.iter().map(Vec::len).collect();
    let all: Vec<Vec<usize>> = lengths.iter().map(|&n| (0..n).collect()).collect();
    let drawn: Vec<f64> = (0..resampler.draws)
        .into_par_iter()
        .map(|draw| diversity(&resampler.positions(draw, &lengths)))
        .collect();
    let most = lengths.iter().copied().map(real).fold(1.0, f64::max);
    Ok(FrontierPoint {
        dose: input.dose,
        r2: coherent.r2,
        vendi: scattered(diversity(&all), &drawn, 1.0, most),
        nearest_reference: nearest_reference(input),
        clip_t: mean(input.with_instructions).unwrap_or(0.0),
    })
}

/// Mean cosine of the pictures with their nearest reference; `None` without references.
fn nearest_reference(input: &FrontierInput<'_>) -> Option<f64> {
    if input.references.is_empty() {
        return None;
    }
    let references = wide(input.references);
    let nearest = |picture: &Vec<f64>| {
        references.iter().map(|reference| dot(reference, picture)).fold(-1.0, f64::max)
    };
    mean(&wide(input.embeddings).iter().map(nearest).collect::<Vec<f64>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use recipes::draws;

    const RESAMPLER: Resampler = Resampler { seed: 1, draws: 200 };

    fn flat(color: [u8; 3]) -> RgbImage {
        RgbImage::from_pixel(16, 16, Rgb(color))
    }

    /// Unit embeddings of `n` pictures for each of four series, `apart` from each other.
    fn embeddings(n: usize, apart: f64, sample: u64) -> (Vec<Vec<f32>>, Vec<usize>) {
        let groups: Vec<usize> = (0..4).flat_map(|series| std::iter::repeat_n(series, n)).collect();
        let rows = (0_u64..).zip(&groups).map(|(i, &series)| {
            let mut stream = draws::stream(sample, i, 0, draws::Purpose::Noise);
            let mut row: Vec<f64> =
                draws::normals(&mut stream, 12).into_iter().map(f64::from).collect();
            row[series] += apart;
            let length = statistics::algebra::norm(&row);
            row.into_iter().map(|x| single(x / length)).collect()
        });
        (rows.collect(), groups)
    }

    #[test]
    fn primaries_have_their_known_lab_values() {
        // Lindbloom: red 53.2408, 80.0925, 67.2032; blue 32.2970, 79.1875, −107.8602; white 100, 0, 0.
        for (color, expected) in [
            ([1.0, 0.0, 0.0], [53.2408, 80.0925, 67.2032]),
            ([0.0, 0.0, 1.0], [32.2970, 79.1875, -107.8602]),
            ([1.0, 1.0, 1.0], [100.0, 0.0, 0.0]),
            ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ] {
            for (found, expected) in lab_from_srgb(color).into_iter().zip(expected) {
                assert!((found - expected).abs() < 0.02, "{color:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn palettes_are_as_far_apart_as_their_colors_must_travel() {
        let mut half = flat([255; 3]);
        for (x, _, pixel) in half.enumerate_pixels_mut() {
            if x < 8 {
                *pixel = Rgb([0; 3]);
            }
        }
        let distances = distances_palette(&[flat([0; 3]), flat([255; 3]), half]);
        assert!((distances[0][1] - 100.0 / 3.0).abs() < 0.01, "{distances:?}");
        assert!((distances[0][2] - 50.0 / 3.0).abs() < 0.01, "{distances:?}");
        assert!((distances[2][1] - distances[1][2]).abs() < 1e-12 && distances[1][1].abs() < 1e-12);
        // Where the colors stand does not matter, nor does the size of the picture.
        let mut rows = RgbImage::from_pixel(20, 40, Rgb([255; 3]));
        for (_, y, pixel) in rows.enumerate_pixels_mut() {
            if y >= 20 {
                *pixel = Rgb([0; 3]);
            }
        }
        assert!((distances_palette(&[flat([0; 3]), rows])[0][1] - 50.0 / 3.0).abs() < 0.01);
    }

    #[test]
    fn style_is_what_stands_beside_what_wherever_it_stands() {
        // Tokens (1, 2) and (3, 0): FᵀF/2 = [[5, 1], [1, 2]].
        let style = style_from_tokens(&[1.0, 2.0, 3.0, 0.0], 2);
        let turned = style_from_tokens(&[3.0, 0.0, 1.0, 2.0], 2);
        assert_eq!(style, turned);
        assert!((style[0] - 5.0).abs() < 1e-6 && (style[2] - 2.0).abs() < 1e-6, "{style:?}");
        let other = style_from_tokens(&[1.0, -2.0, 3.0, 0.0], 2);
        let distances = distances_style(&[style, other]);
        // Frobenius: both entries off the diagonal differ by 2.
        assert!((distances[0][1] - libm::sqrt(8.0)).abs() < 1e-6, "{distances:?}");
    }

    #[test]
    fn series_that_differ_cohere_and_shuffled_ones_do_not() {
        let (rows, groups) = embeddings(8, 3.0, 1);
        let distances = distances_content(&rows);
        let found = coherence(&distances, &groups, RESAMPLER).unwrap();
        let [low, high] = found.r2.ci.unwrap();
        assert!(low < found.r2.value && found.r2.value < high && high <= 1.0, "{found:?}");
        assert!(found.p < 0.002 && low > found.r2_permuted, "{found:?}");
        assert!(
            (found.r2_permuted - 3.0 / 31.0).abs() < 0.01,
            "R² is positive by chance: {found:?}"
        );
        assert!(found.omega2 < found.r2.value && found.silhouette > 0.1, "{found:?}");
        let shuffled: Vec<usize> = (0..32).map(|i| i % 4).collect();
        let nothing = coherence(&distances, &shuffled, RESAMPLER).unwrap();
        assert!(nothing.p > 0.05 && nothing.omega2.abs() < 0.1, "{nothing:?}");
        assert!(coherence(&distances, &[0; 32], RESAMPLER).is_err());
    }

    #[test]
    fn retention_compares_with_a_base_that_coheres() {
        let ((apart, groups), (close, _)) = (embeddings(8, 3.0, 1), embeddings(8, 1.0, 2));
        let (strong, weak) = (distances_content(&apart), distances_content(&close));
        let same = space("content", Some(&strong), &strong, &groups, RESAMPLER).unwrap();
        assert!((same.retention.unwrap().value - 1.0).abs() < 1e-12);
        let lost = space("content", Some(&strong), &weak, &groups, RESAMPLER).unwrap();
        let retention = lost.retention.unwrap();
        assert!(retention.value < 0.8 && retention.ci.unwrap()[1] < 1.0, "{retention:?}");
        let (noise, _) = embeddings(8, 0.0, 4);
        let noise = distances_content(&noise);
        let refused = space("content", Some(&noise), &strong, &groups, RESAMPLER).unwrap();
        assert_eq!(refused.retention, None);
        assert!(space("content", None, &strong, &groups, RESAMPLER).unwrap().before.is_none());
    }

    #[test]
    fn a_repeated_picture_coheres_best_and_is_least_diverse() {
        let (rows, groups) = embeddings(6, 2.0, 3);
        let frozen: Vec<Vec<f32>> = groups.iter().map(|&series| rows[series * 6].clone()).collect();
        let point = |embeddings: &[Vec<f32>], references: &[Vec<f32>]| {
            let input = FrontierInput {
                dose: 1.0,
                embeddings,
                groups: &groups,
                references,
                with_instructions: &[0.25; 24],
            };
            frontier(&input, RESAMPLER).unwrap()
        };
        let (alive, dead) = (point(&rows, &rows[..2]), point(&frozen, &[]));
        assert!(dead.r2.value > 0.999 && (dead.vendi.value - 1.0).abs() < 1e-6, "{dead:?}");
        assert!(alive.r2.value < 0.9 && alive.vendi.value > 2.0, "{alive:?}");
        assert!(alive.nearest_reference.is_some() && dead.nearest_reference.is_none());
        assert!((alive.clip_t - 0.25).abs() < 1e-12);
    }
}
