//! Known answer of the placebo: an adapter of equal size in a direction that nothing prefers.

use crate::answer::{Answer, Check};
use checkpoints::HostTensor;
use eval::EvalError;
use models::adapter::{self, Adapter, Factors};
use rayon::prelude::*;
use recipes::draws;
use serde_json::{Value, json};
use statistics::algebra::{norm, singular_values};
use statistics::number::{real, real_u64};
use std::collections::BTreeMap;

/// Makes the placebo of an adapter from a seed.
type Shuffling<'a> = &'a (dyn Fn(&Adapter, u64) -> Adapter + Sync);

/// Placebos whose directions are averaged.
const DRAWS: u64 = 400;
/// Largest standardised mean of a direction's component that chance explains: of 240 components one
/// in 600 trials goes further.
const FARTHEST: f64 = 4.5;

/// KAT `placebo`: every singular value and the Frobenius norm of every layer are those of the adapter
/// (1e-5, relatively), and over draws no component of a singular vector has a mean.
///
/// QR of a Gaussian is Haar-distributed only if the signs of R's diagonal are fixed: as LAPACK leaves
/// them, the diagonal of Q is negative in every draw.
///
/// Source: Mezzadri 2007, arXiv:math-ph/0609050, section 5.
///
/// # Errors
///
/// None.
pub fn placebo(seed: u64) -> Result<Answer, EvalError> {
    Ok(placebo_with(seed, &adapter::placebo))
}

fn placebo_with(seed: u64, shuffling: Shuffling<'_>) -> Answer {
    let original = original(seed);
    let first = shuffling(&original, seed);
    let mut checks = Vec::new();
    for (path, factors) in &original.modules {
        let (expected, found) = (spectrum(factors), spectrum(&first.modules[path]));
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let what = format!("singular value {i} of {path}");
            checks.push(Check::new(what, *found, *expected, 1e-5 * expected));
        }
        let (expected, found) = (norm(&expected), norm(&found));
        checks.push(Check::new(format!("norm of {path}"), found, expected, 1e-5 * expected));
    }
    // Draw numbers stand above the seed's bits, so that no two seeds share a placebo.
    let drawn = |draw: u64| directions(&shuffling(&original, seed ^ ((draw + 1) << 32)));
    let all: Vec<BTreeMap<String, Vec<f64>>> = (0..DRAWS).into_par_iter().map(drawn).collect();
    for side in all.first().into_iter().flat_map(BTreeMap::keys) {
        let width = all[0][side].len();
        let mean = |i: usize| {
            let sum: f64 = all.iter().map(|draw| draw[side][i]).sum();
            (sum / libm::sqrt(real_u64(DRAWS))).abs()
        };
        let farthest = (0..width).map(mean).fold(0.0, f64::max);
        checks.push(Check::at_most(format!("standardised mean of {side}"), farthest, FARTHEST));
    }
    let inputs = json!({
        "draws": DRAWS, "adapter": factors_json(&original), "placebo": factors_json(&first),
    });
    Answer { name: "placebo", checks, inputs }
}

/// A linear layer of rank 4 and a convolution of rank 3, random and of scale α/r = ½ and ⅔.
fn original(seed: u64) -> Adapter {
    let shapes: [(&str, [&[usize]; 2]); 2] = [
        ("unet.linear", [&[4, 12], &[9, 4]]),
        ("unet.convolution", [&[3, 5, 3, 3], &[7, 3, 1, 1]]),
    ];
    let module = |(path, [down, up]): (&str, [&[usize]; 2])| {
        let tensor = |side: &str, shape: &[usize]| {
            let mut stream = draws::keyed(seed, &format!("answers/placebo/{path}/{side}"));
            let values = draws::normals(&mut stream, shape.iter().product());
            HostTensor::from_f32(shape.to_vec(), values)
        };
        let factors = Factors { down: tensor("down", down), up: tensor("up", up), alpha: 2.0 };
        (path.to_owned(), factors)
    };
    Adapter { modules: shapes.into_iter().map(module).collect() }
}

/// Rows of a factor as a matrix: `[out][r]` of an up factor, `[r][in·k·k]` of a down factor.
fn rows(tensor: &HostTensor) -> Vec<Vec<f64>> {
    let n_rows = tensor.shape.first().copied().unwrap_or(1);
    let values: Vec<f64> = tensor.f32().iter().map(|&value| f64::from(value)).collect();
    values.chunks(values.len() / n_rows.max(1)).map(<[f64]>::to_vec).collect()
}

/// The columns of a matrix as rows.
fn transposed(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let width = rows.first().map_or(0, Vec::len);
    (0..width).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
}

/// The first r singular values of ΔW = α/r·up·down, formed in full.
fn spectrum(factors: &Factors) -> Vec<f64> {
    let (up, down) = (rows(&factors.up), rows(&factors.down));
    let width = down.first().map_or(0, Vec::len);
    let entry = |row: &[f64], column: usize| {
        let sum: f64 = row.iter().zip(&down).map(|(value, inner)| value * inner[column]).sum();
        factors.scale() * sum
    };
    let line = |row: &Vec<f64>| (0..width).map(|column| entry(row, column)).collect();
    let delta: Vec<Vec<f64>> = up.iter().map(line).collect();
    let mut values = singular_values(&delta);
    values.truncate(factors.rank());
    values
}

/// Singular vectors of every layer, each component multiplied by the root of their length, so that it
/// has variance 1.
fn directions(adapter: &Adapter) -> BTreeMap<String, Vec<f64>> {
    let mut sides = BTreeMap::new();
    for (path, factors) in &adapter.modules {
        let left = transposed(&rows(&factors.up));
        for (side, vectors) in [("U", left), ("V", rows(&factors.down))] {
            let scaled = vectors.iter().flat_map(|vector| {
                let factor = libm::sqrt(real(vector.len())) / norm(vector).max(f64::MIN_POSITIVE);
                vector.iter().map(move |value| value * factor)
            });
            sides.insert(format!("{side} of {path}"), scaled.collect());
        }
    }
    sides
}

fn factors_json(adapter: &Adapter) -> Value {
    let module = |(path, factors): (&String, &Factors)| {
        json!({
            "path": path, "scale": factors.scale(),
            "up": rows(&factors.up), "down": rows(&factors.down),
        })
    };
    adapter.modules.iter().map(module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first columns of Q of a Householder QR, signs as the reflections leave them; one column
    /// after another.
    fn householder(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let length = columns[0].len();
        let mut work = columns.to_vec();
        let mut mirrors: Vec<Vec<f64>> = Vec::new();
        let reflect = |mirror: &[f64], vector: &mut [f64]| {
            let share: f64 = mirror.iter().zip(vector.iter()).map(|(a, b)| a * b).sum();
            vector.iter_mut().zip(mirror).for_each(|(value, m)| *value -= 2.0 * share * m);
        };
        for k in 0..work.len() {
            let mut mirror = vec![0.0; length];
            mirror[k..].copy_from_slice(&work[k][k..]);
            let size = norm(&mirror).copysign(mirror[k]);
            mirror[k] += size;
            let size = norm(&mirror);
            for value in &mut mirror {
                *value /= size;
            }
            for column in &mut work[k..] {
                reflect(&mirror, column);
            }
            mirrors.push(mirror);
        }
        let basis = |k: usize| {
            let mut column = vec![0.0; length];
            column[k] = 1.0;
            mirrors.iter().rev().for_each(|mirror| reflect(mirror, &mut column));
            column
        };
        (0..columns.len()).map(basis).collect()
    }

    #[test]
    fn a_placebo_whose_signs_are_not_fixed_is_caught() {
        let unfixed = |adapter: &Adapter, seed: u64| {
            let module = |(path, factors): (&String, &Factors)| {
                let (values, rank) = (spectrum(factors), factors.rank());
                let side = |side: &str, length: usize| {
                    let mut stream = draws::keyed(seed, &format!("{side}/{path}"));
                    let mut column = || {
                        let values = draws::normals(&mut stream, length);
                        values.into_iter().map(f64::from).collect()
                    };
                    let random: Vec<Vec<f64>> = (0..rank).map(|_| column()).collect();
                    let scaled = householder(&random).into_iter().zip(&values).map(|(q, value)| {
                        let factor = (value / factors.scale()).sqrt();
                        q.into_iter().map(|x| x * factor).collect::<Vec<f64>>()
                    });
                    scaled.collect::<Vec<_>>()
                };
                let single = |rows: Vec<Vec<f64>>| {
                    rows.into_iter().flatten().map(statistics::number::single).collect()
                };
                let up = transposed(&side("left", factors.up.shape[0]));
                let down = side("right", factors.down.shape[1..].iter().product());
                let other = Factors {
                    up: HostTensor::from_f32(factors.up.shape.clone(), single(up)),
                    down: HostTensor::from_f32(factors.down.shape.clone(), single(down)),
                    alpha: factors.alpha,
                };
                (path.clone(), other)
            };
            Adapter { modules: adapter.modules.iter().map(module).collect() }
        };
        let answer = placebo_with(1, &unfixed);
        for check in &answer.checks {
            let of_direction = check.what.starts_with("standardised");
            assert_eq!(check.holds(), !of_direction, "{check:?}");
        }
        assert!(!answer.holds());
    }

    #[test]
    fn a_placebo_of_another_size_is_caught() {
        let larger = |adapter: &Adapter, seed: u64| {
            let mut placebo = adapter::placebo(adapter, seed);
            for factors in placebo.modules.values_mut() {
                factors.alpha *= 1.001;
            }
            placebo
        };
        assert!(!placebo_with(1, &larger).holds());
    }
}
