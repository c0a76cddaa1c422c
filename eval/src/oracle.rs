//! The nearest render: a second family of evaluator for the world of postcards, which knows no network.
//!
//! A picture is described by the colors of its parts, in CIELAB; it bears what most of the nearest of
//! many rendered pictures bear, facet by facet. Those are drawn evenly over all combinations of factors,
//! so that no prior stands behind the judgement.

use crate::world::even;
use checkpoints::hash::bytes_sha256;
use datasets::postcards::{self, Facet, Factors};
use image::RgbImage;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Seed of the bank; no training and no verified picture uses it.
const SEED: u64 = 5_550_123;
/// Rendered pictures in the bank.
pub(crate) const BANK: u64 = 12_000;
/// Neighbors that vote.
const NEIGHBORS: usize = 5;
/// Parts per side of a picture.
const PARTS: u32 = 16;

/// The bank of renders.
#[derive(Debug)]
pub(crate) struct Oracle {
    described: Vec<Vec<f32>>,
    factors: Vec<Factors>,
    sha256: String,
}

impl Oracle {
    /// Renders a bank of `n` pictures, usually [`BANK`], at the side of the base's pictures.
    pub(crate) fn postcards(side_px: u32, n: u64) -> Self {
        let factors: Vec<Factors> = (0..n).map(|picture| even(SEED, picture)).collect();
        let described: Vec<Vec<f32>> = (0..n)
            .into_par_iter()
            .map(|i| {
                let scene = postcards::scene_with(even(SEED, i), SEED, i);
                described(&postcards::paint(&scene, side_px))
            })
            .collect();
        let bytes: Vec<u8> =
            described.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        Self { described, factors, sha256: bytes_sha256(&bytes) }
    }

    /// SHA-256 of the bank.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What each picture bears, one entity per facet.
    pub(crate) fn judge(&self, pictures: &[RgbImage]) -> Vec<Vec<String>> {
        pictures.par_iter().map(|picture| self.judge_one(&described(picture))).collect()
    }

    fn judge_one(&self, picture: &[f32]) -> Vec<String> {
        let mut distances: Vec<(f64, usize)> = self
            .described
            .iter()
            .enumerate()
            .map(|(i, other)| (squared_distance(picture, other), i))
            .collect();
        let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let n = NEIGHBORS.min(distances.len());
        if n < distances.len() {
            distances.select_nth_unstable_by(n, order);
        }
        let nearest = &mut distances[..n];
        nearest.sort_by(order);
        Facet::ALL
            .iter()
            .enumerate()
            .map(|(facet, _)| {
                let mut votes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
                for (rank, (_, i)) in nearest.iter().enumerate() {
                    let entry = votes.entry(value(self.factors[*i], facet)).or_insert((0, rank));
                    entry.0 += 1;
                }
                // Ties go to the one whose first vote is nearer.
                let best =
                    votes.iter().max_by(|a, b| a.1.0.cmp(&b.1.0).then_with(|| b.1.1.cmp(&a.1.1)));
                best.map_or_else(String::new, |(name, _)| (*name).to_owned())
            })
            .collect()
    }
}

/// The entity of one facet, in the order of [`Facet::ALL`].
fn value(factors: Factors, facet: usize) -> &'static str {
    match facet {
        0 => factors.subject.name(),
        1 => factors.color.name(),
        2 => factors.setting.name(),
        _ => factors.style.name(),
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x - y) * f64::from(x - y)).sum()
}

/// Mean CIELAB color of each part.
fn described(picture: &RgbImage) -> Vec<f32> {
    let (width, height) = picture.dimensions();
    let mut sums = vec![[0.0_f64; 4]; (PARTS * PARTS) as usize];
    for (x, y, pixel) in picture.enumerate_pixels() {
        let part = (y * PARTS / height.max(1)) * PARTS + x * PARTS / width.max(1);
        let sum = &mut sums[part as usize];
        for (channel, &byte) in pixel.0.iter().enumerate() {
            sum[channel] += f64::from(byte) / 255.0;
        }
        sum[3] += 1.0;
    }
    sums.iter()
        .flat_map(|sum| {
            let n = sum[3].max(1.0);
            crate::series::lab_from_srgb([sum[0] / n, sum[1] / n, sum[2] / n])
        })
        .map(statistics::number::single)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::even;
    use statistics::number::real;

    /// Held-out renders, each named in every facet.
    #[test]
    fn the_oracle_names_renders_that_it_has_not_seen() {
        let oracle = Oracle::postcards(64, 3000);
        let n = 100;
        let truths: Vec<Factors> = (0..n).map(|i| even(91, i)).collect();
        let pictures: Vec<RgbImage> = truths
            .iter()
            .zip(0..n)
            .map(|(factors, i)| postcards::paint(&postcards::scene_with(*factors, 91, i), 64))
            .collect();
        let said = oracle.judge(&pictures);
        for facet in 0..4 {
            let right = truths.iter().zip(&said).filter(|(t, s)| value(**t, facet) == s[facet]);
            let share = real(right.count()) / real(truths.len());
            assert!(share > 0.8, "{:?}: {share}", Facet::ALL[facet]);
        }
    }
}
