//! The same adapter with fewer ranks: the best approximation of each module.

use std::collections::BTreeMap;

use checkpoints::HostTensor;
use rayon::prelude::*;

use super::linear_algebra::{Matrix, Svd, qr, svd};
use super::{Adapter, Factors};

/// How much of a module is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// So many ranks, or all if there are fewer.
    Rank(usize),
    /// As few ranks as hold this share of ‖ΔW‖², in (0, 1].
    Energy(f64),
}

/// What became of one module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModuleEnergy {
    /// Rank before.
    pub rank_before: usize,
    /// Rank after.
    pub rank_after: usize,
    /// ‖ΔW‖² before.
    pub before: f64,
    /// ‖ΔW‖² after; what is missing is the square of the distance between both.
    pub kept: f64,
}

/// Reduces every module; gives the adapter and what became of each module by its path.
///
/// Within its rank the result is the nearest in the Frobenius norm. A module that has no more
/// ranks than asked for keeps its values; of the others alpha becomes the rank, and both factors
/// carry the root of the singular values.
///
/// Source: Eckart and Young 1936.
pub fn resized(adapter: &Adapter, keep: Keep) -> (Adapter, BTreeMap<String, ModuleEnergy>) {
    let modules: Vec<(&String, &Factors)> = adapter.modules.iter().collect();
    let done: Vec<(String, Factors, ModuleEnergy)> = modules
        .into_par_iter()
        .map(|(path, factors)| {
            let (resized, energy) = resized_module(factors, keep);
            (path.clone(), resized, energy)
        })
        .collect();
    let mut resized = Adapter::default();
    let mut energies = BTreeMap::new();
    for (path, factors, energy) in done {
        energies.insert(path.clone(), energy);
        resized.modules.insert(path, factors);
    }
    (resized, energies)
}

fn resized_module(factors: &Factors, keep: Keep) -> (Factors, ModuleEnergy) {
    let rank_before = factors.rank();
    let Svd { left, values, right } = decomposed(factors);
    let before = energy(&values);
    let rank_after = match keep {
        Keep::Rank(rank) => rank.min(rank_before),
        Keep::Energy(share) => rank_for(&values, share),
    };
    let rank_after = rank_after.max(1);
    if rank_after >= rank_before {
        let energy = ModuleEnergy { rank_before, rank_after: rank_before, before, kept: before };
        return (factors.clone(), energy);
    }
    let values = &values[..rank_after];
    let shapes = [&factors.up.shape, &factors.down.shape].map(Vec::as_slice);
    let resized = from_parts((&left, values, &right), shapes);
    (resized, ModuleEnergy { rank_before, rank_after, before, kept: energy(values) })
}

fn energy(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum()
}

/// The fewest leading values whose squares sum to the share of all.
fn rank_for(values: &[f64], share: f64) -> usize {
    let wanted = share * energy(values);
    let mut held = 0.0;
    let enough = values.iter().position(|value| {
        held += value * value;
        held >= wanted
    });
    enough.map_or(values.len(), |index| index + 1)
}

/// The singular value decomposition of ΔW from the r×r core of two QR decompositions.
fn decomposed(factors: &Factors) -> Svd {
    let rank = factors.rank();
    let rows = factors.up.shape.first().copied().unwrap_or(0);
    let columns = factors.down.len() / rank.max(1);
    let (q_up, r_up) = qr(&Matrix::from_f32(rows, rank, &factors.up.f32()));
    let down = Matrix::from_f32(rank, columns, &factors.down.f32());
    let (q_down, r_down) = qr(&down.transposed());
    let Svd { left, values, right } = svd(&r_up.times(&r_down.transposed()));
    let scale = factors.scale();
    // A negative scale turns one side.
    let turned = left.scaled_columns(&vec![1.0f64.copysign(scale); rank]);
    Svd {
        left: q_up.times(&turned),
        values: values.into_iter().map(|value| value * scale.abs()).collect(),
        right: q_down.times(&right),
    }
}

/// The module left·diag(values)·rightᵀ, shared evenly between both factors; alpha is the rank.
///
/// `shapes` are those of an up and a down factor of the layer, whatever their rank.
pub(super) fn from_parts(
    (left, values, right): (&Matrix, &[f64], &Matrix),
    [up_shape, down_shape]: [&[usize]; 2],
) -> Factors {
    let rank = values.len();
    let roots: Vec<f64> = values.iter().map(|value| value.sqrt()).collect();
    let (mut up_shape, mut down_shape) = (up_shape.to_vec(), down_shape.to_vec());
    up_shape[1] = rank;
    down_shape[0] = rank;
    Factors {
        up: HostTensor::from_f32(up_shape, left.scaled_columns(&roots).to_f32()),
        down: HostTensor::from_f32(down_shape, right.scaled_columns(&roots).transposed().to_f32()),
        alpha: rank as f64,
    }
}

#[cfg(test)]
mod tests {
    use recipes::draws;

    use super::*;
    use crate::adapter::{delta_norm, relative_difference};

    fn factors(seed: u64, up: &[usize], down: &[usize], alpha: f64) -> Factors {
        let mut stream = draws::keyed(seed, "test");
        let mut tensor = |shape: &[usize]| {
            let values = draws::normals(&mut stream, shape.iter().product());
            HostTensor::from_f32(shape, values)
        };
        Factors { up: tensor(up), down: tensor(down), alpha }
    }

    fn only(factors: &Factors, keep: Keep) -> (Factors, ModuleEnergy) {
        let adapter = Adapter { modules: [("unet.a".to_owned(), factors.clone())].into() };
        let (resized, energies) = resized(&adapter, keep);
        (resized.modules["unet.a"].clone(), energies["unet.a"])
    }

    #[test]
    fn what_is_lost_is_the_energy_that_is_missing() {
        for [up, down] in [[&[9, 6][..], &[6, 12][..]], [&[7, 6, 1, 1], &[6, 5, 3, 3]]] {
            let original = factors(3, up, down, 4.5);
            let (small, energy) = only(&original, Keep::Rank(4));
            assert_eq!((small.up.shape[0], small.up.shape[1]), (up[0], 4));
            assert_eq!((small.down.shape[0], &small.down.shape[1..]), (4, &down[1..]));
            assert!((small.scale() - 1.0).abs() < 1e-12);
            assert_eq!((energy.rank_before, energy.rank_after), (6, 4));
            assert!((delta_norm(&original).powi(2) / energy.before - 1.0).abs() < 1e-6);
            assert!((delta_norm(&small).powi(2) / energy.kept - 1.0).abs() < 1e-5);
            let distance = relative_difference(&small, &original).powi(2) * energy.before;
            assert!((distance / (energy.before - energy.kept) - 1.0).abs() < 1e-4);
            assert!(energy.kept < 0.999 * energy.before);
        }
    }

    #[test]
    fn ranks_that_say_nothing_are_dropped_without_loss() {
        // The third direction repeats the first, turned around.
        let mut original = factors(5, &[8, 3], &[3, 10], -6.0);
        let (mut up, mut down) = (original.up.f32().to_vec(), original.down.f32().to_vec());
        for row in up.chunks_exact_mut(3) {
            row[2] = -0.5 * row[0];
        }
        let first = down[..10].to_vec();
        down[20..].copy_from_slice(&first);
        original.up = HostTensor::from_f32([8, 3], up);
        original.down = HostTensor::from_f32([3, 10], down);
        for keep in [Keep::Rank(2), Keep::Energy(1.0 - 1e-9)] {
            let (small, energy) = only(&original, keep);
            assert_eq!(energy.rank_after, 2, "{keep:?}");
            assert!(relative_difference(&small, &original) < 1e-5, "{keep:?}");
        }
    }

    #[test]
    fn energy_decides_the_rank() {
        // ΔW = diag(3, 2, 1): 9, 13 and 14 of 14.
        let diagonal = Factors {
            up: HostTensor::from_f32([3, 3], vec![3.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0]),
            down: HostTensor::from_f32([3, 3], vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
            alpha: 3.0,
        };
        for (share, rank) in [(0.5, 1), (9.0 / 14.0 + 1e-6, 2), (0.92, 2), (0.95, 3)] {
            assert_eq!(only(&diagonal, Keep::Energy(share)).1.rank_after, rank, "{share}");
        }
    }

    #[test]
    fn a_module_that_is_small_enough_keeps_its_bits() {
        let original = factors(7, &[4, 2], &[2, 4], 3.0);
        assert_eq!(only(&original, Keep::Rank(2)).0, original);
        assert_eq!(only(&original, Keep::Rank(8)).0, original);
        let dead = Adapter { modules: [("a".to_owned(), original)].into() }.zeroed();
        let (resized, energies) = resized(&dead, Keep::Rank(1));
        assert!(energies["a"].kept < 1e-30);
        assert!(resized.modules["a"].up.f32().iter().all(|&value| value == 0.0));
    }
}
