//! Known answers of thesaurus and pictures: Mantel's correlation, and the shift of similarities.

use crate::answer::{Answer, Check};
use eval::EvalError;
use eval::fabric::cosine_distances;
use eval::similarity::{CosineBlock, asked};
use recipes::draws::{self, Purpose};
use serde_json::json;
use statistics::algebra::{add_scaled, dot, unit};
use statistics::interval::Resampler;
use statistics::mantel;
use statistics::number::{mean, single};

/// A rank correlation between two tables of distances.
type Correlation<'a> = &'a dyn Fn(&[Vec<f64>], &[Vec<f64>]) -> Option<f64>;

/// Six pictures: three of one class, three of the other.
const POINTS: [[f64; 2]; 6] =
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [4.0, 4.0], [5.0, 4.0], [4.0, 5.5]];
/// Their names dealt out anew.
const REORDERED: [usize; 6] = [3, 1, 5, 0, 4, 2];
/// Noise of the pictures of random things, and ρ over many worlds at that noise.
const NOISE: [(f64, f64); 4] = [(0.0, 0.69), (0.3, 0.655), (1.0, 0.43), (3.0, 0.09)];
/// Worlds of random things.
const WORLDS: u64 = 64;
/// Things per world and numbers that describe each.
const THINGS: usize = 20;
const WIDTH: usize = 64;

/// KAT `mantel`: two classes of three leaves against points of the plane, in the right and in a wrong
/// order; every relabelling; and random things whose pictures are ever noisier.
///
/// Source: Mantel 1967; scikit-bio `mantel(method="spearman")` gives 0.8550128 and 0.1.
///
/// # Errors
///
/// None.
pub fn mantel(seed: u64) -> Result<Answer, EvalError> {
    Ok(mantel_with(seed, &mantel::rho))
}

fn mantel_with(seed: u64, correlation: Correlation<'_>) -> Answer {
    let leaf = |i: usize, j: usize| match (i == j, i / 3 == j / 3) {
        (true, _) => 0.0,
        (false, true) => 2.0,
        (false, false) => 4.0,
    };
    let tree: Vec<Vec<f64>> = (0..6).map(|i| (0..6).map(|j| leaf(i, j)).collect()).collect();
    let images = euclid(&[0, 1, 2, 3, 4, 5]);
    let reordered = euclid(&REORDERED);
    let rho = |a: &[Vec<f64>], b: &[Vec<f64>]| correlation(a, b).unwrap_or(f64::NAN);
    let chance = mantel::mantel(&tree, &images, 0, seed);
    let p = chance.map_or(f64::NAN, |found| found.p);
    let mut checks = vec![
        Check::new("ρ of six leaves", rho(&tree, &images), 0.855_013, 1e-6),
        Check::new("ρ of six leaves out of order", rho(&tree, &reordered), -0.142_502, 1e-6),
        Check::new("ρ of a table with itself", rho(&images, &images), 1.0, 1e-6),
        Check::new("p over all 720 relabellings", p, 0.1, 1e-9),
    ];
    let found = NOISE.map(|(noise, _)| {
        let rhos: Vec<f64> = (0..WORLDS).map(|world| of_world(seed, world, noise, &rho)).collect();
        mean(&rhos).unwrap_or(f64::NAN)
    });
    for ((noise, expected), value) in NOISE.into_iter().zip(found) {
        checks.push(Check::new(format!("mean ρ at noise {noise}"), value, expected, 0.04));
    }
    for (k, pair) in found.windows(2).enumerate() {
        let noise = NOISE[k + 1].0;
        checks.push(Check::at_least(
            format!("fall of ρ to noise {noise}"),
            pair[0] - pair[1],
            0.01,
        ));
    }
    let inputs = json!({
        "tree": tree, "points": POINTS, "reordered": REORDERED, "worlds": WORLDS,
        "things": THINGS, "width": WIDTH,
    });
    Answer { name: "mantel", checks, inputs }
}

/// Distances between the points in this order.
fn euclid(order: &[usize]) -> Vec<Vec<f64>> {
    let apart =
        |i: usize, j: usize| libm::hypot(POINTS[i][0] - POINTS[j][0], POINTS[i][1] - POINTS[j][1]);
    order.iter().map(|&i| order.iter().map(|&j| apart(i, j)).collect()).collect()
}

/// A rank correlation that is a number for every table.
type Rho<'a> = &'a dyn Fn(&[Vec<f64>], &[Vec<f64>]) -> f64;

/// ρ between random things and their pictures: a random linear map of them, and noise.
fn of_world(seed: u64, world: u64, noise: f64, rho: Rho<'_>) -> f64 {
    let normals = |part: u64, rows: usize| -> Vec<Vec<f64>> {
        let mut stream = draws::stream(seed, world, part, Purpose::Noise);
        let numbers = draws::normals(&mut stream, rows * WIDTH);
        let row = |row: &[f32]| -> Vec<f64> { row.iter().copied().map(f64::from).collect() };
        numbers.chunks_exact(WIDTH).map(row).collect()
    };
    let things: Vec<Vec<f64>> = normals(0, THINGS).iter().filter_map(|row| unit(row)).collect();
    let (map, stray) = (normals(1, WIDTH), normals(2, THINGS));
    let pictures: Vec<Vec<f64>> = things
        .iter()
        .zip(&stray)
        .map(|(thing, stray)| {
            let mut picture: Vec<f64> = map.iter().map(|row| dot(row, thing) / 8.0).collect();
            add_scaled(&mut picture, stray, noise / 8.0);
            picture
        })
        .collect();
    rho(&cosine_distances(&things), &cosine_distances(&pictures))
}

/// ΔC of blocks of cosines, `[word][asked]`.
type ShiftOf<'a> = &'a dyn Fn(&[CosineBlock]) -> Vec<Vec<f64>>;

/// KAT `delta`: two words at a right angle; pictures asked for the first turn by 30°.
///
/// # Errors
///
/// None.
pub fn delta(_seed: u64) -> Result<Answer, EvalError> {
    Ok(delta_with(&|blocks| asked(blocks, Resampler { seed: 1, draws: 10 }).delta))
}

fn delta_with(shift: ShiftOf<'_>) -> Answer {
    let angle = std::f64::consts::FRAC_PI_6;
    let words = [[1.0, 0.0], [0.0, 1.0]];
    let (base, adapted) = ([1.0, 0.0], [libm::cos(angle), libm::sin(angle)]);
    let cosines = |picture: [f64; 2]| -> Vec<f32> {
        words.iter().map(|word| single(dot(word, &picture))).collect()
    };
    let blocks = [CosineBlock {
        weight: 1.0,
        base: vec![cosines(base); 4],
        adapted: vec![cosines(adapted); 4],
    }];
    let delta = shift(&blocks);
    Answer {
        name: "delta",
        checks: vec![
            Check::new("ΔC of the word that was asked", delta[0][0], -0.133_975, 1e-6),
            Check::new("ΔC of the other word", delta[1][0], 0.5, 1e-6),
        ],
        inputs: json!({ "words": words, "base": base, "adapted": adapted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use statistics::ranks::pearson;

    #[test]
    fn mantel_is_known() {
        let answer = mantel(1).unwrap();
        assert!(answer.holds(), "{answer:?}");
    }

    #[test]
    fn ordinal_ranks_are_not_average_ranks() {
        let ordinal = |values: &[f64]| -> Vec<f64> {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
            let mut ranks = vec![0.0; values.len()];
            for (rank, i) in (0_u32..).zip(order) {
                ranks[i] = f64::from(rank);
            }
            ranks
        };
        let upper = |table: &[Vec<f64>]| -> Vec<f64> {
            (0..table.len()).flat_map(|i| table[i][i + 1..].to_vec()).collect()
        };
        let mutant =
            |a: &[Vec<f64>], b: &[Vec<f64>]| pearson(&ordinal(&upper(a)), &ordinal(&upper(b)));
        let answer = mantel_with(1, &mutant);
        // numpy with scipy `rankdata(method="ordinal")`.
        assert!((answer.checks[0].found - 0.764_285_714).abs() < 1e-6, "{answer:?}");
        assert!(!answer.holds());
    }

    #[test]
    fn a_correlation_of_the_distances_themselves_is_not_of_their_ranks() {
        let upper = |table: &[Vec<f64>]| -> Vec<f64> {
            (0..table.len()).flat_map(|i| table[i][i + 1..].to_vec()).collect()
        };
        assert!(!mantel_with(1, &|a, b| pearson(&upper(a), &upper(b))).holds());
    }

    #[test]
    fn delta_is_known() {
        let answer = delta(1).unwrap();
        assert!(answer.holds(), "{answer:?}");
    }

    #[test]
    fn models_that_change_places_turn_the_shift_round() {
        let swapped = |blocks: &[CosineBlock]| {
            let swap = |block: &CosineBlock| CosineBlock {
                weight: block.weight,
                base: block.adapted.clone(),
                adapted: block.base.clone(),
            };
            let blocks: Vec<CosineBlock> = blocks.iter().map(swap).collect();
            asked(&blocks, Resampler { seed: 1, draws: 10 }).delta
        };
        assert!(!delta_with(&swapped).holds());
    }
}
