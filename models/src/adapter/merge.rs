//! Several adapters as one, and adapters as a change of weights.

use checkpoints::HostTensor;
use rayon::prelude::*;

use super::{Adapter, Factors};
use crate::error::ModelError;
use crate::ops::gemm::{Into, Shape, gemm};

/// One adapter with the effect of all, each at its dose: the ranks of a layer are laid side by side.
///
/// Nothing is approximated. Every module of the result has scale 1; its B carries dose·α/r.
///
/// # Errors
///
/// [`ModelError::Adapter`] for a layer that the adapters take for differently shaped ones.
pub fn concatenated(adapters: &[(Adapter, f64)]) -> Result<Adapter, ModelError> {
    let mut paths: Vec<&String> =
        adapters.iter().flat_map(|(adapter, _)| adapter.modules.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut result = Adapter::default();
    for path in paths {
        let parts: Vec<(&Factors, f64)> = adapters
            .iter()
            .filter_map(|(adapter, dose)| Some((adapter.modules.get(path)?, *dose)))
            .collect();
        result.modules.insert(path.clone(), side_by_side(path, &parts)?);
    }
    Ok(result)
}

fn side_by_side(path: &str, parts: &[(&Factors, f64)]) -> Result<Factors, ModelError> {
    let Some(&(first, _)) = parts.first() else {
        return Err(differs(path, "no adapter has it".to_owned()));
    };
    let rank: usize = parts.iter().map(|(factors, _)| factors.rank()).sum();
    let n_out = first.up.shape[0];
    let mut down = Vec::with_capacity(first.down.len() / first.rank().max(1) * rank);
    let mut up = vec![0.0; n_out * rank];
    let mut column = 0;
    for (factors, dose) in parts {
        let (found, expected) = (&factors.down.shape[1..], &first.down.shape[1..]);
        if found != expected || factors.up.shape[0] != n_out {
            let (found, expected) = (&factors.down.shape, &first.down.shape);
            return Err(differs(path, format!("down factors of shape {found:?} and {expected:?}")));
        }
        down.extend_from_slice(&factors.down.f32());
        let own = factors.rank();
        let scale = factors.scale() * dose;
        for (to, from) in up.chunks_exact_mut(rank).zip(factors.up.f32().chunks_exact(own)) {
            for (to, from) in to[column..][..own].iter_mut().zip(from) {
                *to = (f64::from(*from) * scale) as f32;
            }
        }
        column += own;
    }
    let (mut down_shape, mut up_shape) = (first.down.shape.clone(), first.up.shape.clone());
    down_shape[0] = rank;
    up_shape[1] = rank;
    Ok(Factors {
        down: HostTensor::from_f32(down_shape, down),
        up: HostTensor::from_f32(up_shape, up),
        alpha: rank as f64,
    })
}

fn differs(path: &str, reason: String) -> ModelError {
    ModelError::Adapter { module: path.to_owned(), reason }
}

/// Rows of a weight that one thread changes together.
const TILE: usize = 64;

/// weight += dose·(α/r)·B·A, for a weight `[out, in]` or `[out, in·k·k]` with the rows of B and the
/// columns of A.
///
/// A dose or scale of 0 changes no bit.
pub(super) fn add_change(weight: &mut [f32], factors: &Factors, dose: f64) {
    let rank = factors.rank();
    let share = factors.scale() * dose;
    let rows = factors.up.shape.first().copied().unwrap_or(0);
    if share == 0.0 || rank == 0 || rows == 0 {
        return;
    }
    let columns = factors.down.len() / rank;
    debug_assert_eq!(weight.len(), rows * columns);
    let up: Vec<f32> =
        factors.up.f32().iter().map(|&value| (f64::from(value) * share) as f32).collect();
    let down = factors.down.f32();
    let tiles = weight.par_chunks_mut((TILE * columns).max(1)).zip(up.par_chunks(TILE * rank));
    tiles.for_each(|(weight, up)| {
        let rows = up.len() / rank;
        gemm(
            (weight, Shape::dense(rows, columns)),
            (up, Shape::dense(rows, rank)),
            (&down[..], Shape::dense(rank, columns)),
            1.0,
            Into::Add,
        );
    });
}

#[cfg(test)]
mod tests {
    use recipes::draws;

    use super::*;
    use crate::adapter::{inner_product, relative_difference};

    fn factors(seed: u64, up: &[usize], down: &[usize], alpha: f64) -> Factors {
        let mut stream = draws::keyed(seed, "test");
        let mut tensor = |shape: &[usize]| {
            let values = draws::normals(&mut stream, shape.iter().product());
            HostTensor::from_f32(shape, values)
        };
        Factors { up: tensor(up), down: tensor(down), alpha }
    }

    fn with(path: &str, factors: &Factors) -> Adapter {
        Adapter { modules: [(path.to_owned(), factors.clone())].into() }
    }

    /// What factors add, by the definition: (α/r)·Σ B·A.
    fn change(factors: &Factors) -> Vec<f64> {
        let (rank, up, down) = (factors.rank(), factors.up.f32(), factors.down.f32());
        let columns = down.len() / rank;
        let element = |row: usize, column: usize| -> f64 {
            let term =
                |k: usize| f64::from(up[row * rank + k]) * f64::from(down[k * columns + column]);
            (0..rank).map(term).sum::<f64>() * factors.scale()
        };
        let rows = up.len() / rank;
        (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| element(row, column))
            .collect()
    }

    #[test]
    fn a_weight_is_changed_by_dose_times_scale_times_the_product() {
        for [up, down] in [[&[70, 3][..], &[3, 5][..]], [&[4, 2, 1, 1], &[2, 3, 3, 3]]] {
            let factors = factors(1, up, down, 1.5);
            let change = change(&factors);
            let before: Vec<f32> = (0..change.len()).map(|index| index as f32 * 0.01).collect();
            let mut weight = before.clone();
            add_change(&mut weight, &factors, -0.5);
            for ((after, before), change) in weight.iter().zip(&before).zip(&change) {
                let expected = f64::from(*before) - 0.5 * change;
                assert!((f64::from(*after) - expected).abs() < 1e-5, "{after} and {expected}");
            }
            let mut weight = before.clone();
            add_change(&mut weight, &factors, 0.0);
            assert_eq!(weight, before);
        }
    }

    #[test]
    fn side_by_side_ranks_add_up_the_effects() {
        let linear: [&[usize]; 4] = [&[6, 2], &[2, 5], &[6, 3], &[3, 5]];
        let spatial: [&[usize]; 4] = [&[6, 2, 1, 1], &[2, 4, 3, 3], &[6, 1, 1, 1], &[1, 4, 3, 3]];
        for shapes in [linear, spatial] {
            let (a, b) =
                (factors(1, shapes[0], shapes[1], 3.0), factors(2, shapes[2], shapes[3], -1.0));
            let adapters = [(with("unet.a", &a), 0.5), (with("unet.a", &b), -2.0)];
            let both = concatenated(&adapters).unwrap().modules.remove("unet.a").unwrap();
            assert_eq!(both.rank(), a.rank() + b.rank());
            assert_eq!(both.down.shape[1..], shapes[1][1..]);
            assert!((both.scale() - 1.0).abs() < 1e-12);
            let (of_a, of_b) = (change(&a), change(&b));
            for ((found, a), b) in change(&both).iter().zip(&of_a).zip(&of_b) {
                assert!((found - (0.5 * a - 2.0 * b)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_order_of_adapters_is_no_matter_and_layers_of_one_stay() {
        let (a, b) = (factors(1, &[6, 2], &[2, 5], 3.0), factors(2, &[6, 2], &[2, 5], 1.0));
        let mut first = with("unet.a", &a);
        first.modules.insert("unet.b".to_owned(), b.clone());
        let second = with("unet.a", &b);
        let forward = concatenated(&[(first.clone(), 1.0), (second.clone(), 0.3)]).unwrap();
        let backward = concatenated(&[(second, 0.3), (first, 1.0)]).unwrap();
        for path in ["unet.a", "unet.b"] {
            let (forward, backward) = (&forward.modules[path], &backward.modules[path]);
            assert!(relative_difference(forward, backward) < 1e-6, "{path}");
        }
        assert!(relative_difference(&forward.modules["unet.b"], &b) < 1e-6);
        assert!(inner_product(&forward.modules["unet.a"], &a) > 0.0);
    }

    #[test]
    fn layers_of_other_shapes_are_refused_by_name() {
        let (a, b) = (factors(1, &[6, 2], &[2, 5], 3.0), factors(2, &[6, 2], &[2, 4], 1.0));
        let adapters = [(with("unet.a", &a), 1.0), (with("unet.a", &b), 1.0)];
        let message = concatenated(&adapters).unwrap_err().to_string();
        assert!(message.contains("`unet.a`") && message.contains("[2, 4]"), "{message}");
    }
}
