//! How far an adapter moves its layers, without forming what it adds.

use checkpoints::HostTensor;

use super::{Adapter, Factors};
use crate::ops::gemm::{Into, Shape, gemm};

/// ‖ΔW‖ = ‖α/r·B·A‖, Frobenius norm.
pub fn delta_norm(factors: &Factors) -> f64 {
    let squared = inner_product(factors, factors);
    // `max` would hide a value that is not a number.
    if squared.is_nan() { squared } else { squared.max(0.0).sqrt() }
}

/// `⟨ΔW, ΔW'⟩ = α/r·α'/r'·Σ (BᵀB')∘(AA'ᵀ)`: the sum of the products of all elements of what two
/// modules add to one layer. Factors of another size give a value that is not a number.
pub fn inner_product(left: &Factors, right: &Factors) -> f64 {
    let (of_up, of_down) = (up_products(left, right), down_products(left, right));
    let (Some(of_up), Some(of_down)) = (of_up, of_down) else { return f64::NAN };
    let sum: f64 = of_up.iter().zip(&of_down).map(|(up, down)| up * down).sum();
    sum * left.scale() * right.scale()
}

/// ‖ΔW − ΔW'‖ / ‖ΔW'‖; ‖ΔW‖ where ΔW' is 0. Differences below 1e-7 drown in rounding.
pub fn relative_difference(found: &Factors, wanted: &Factors) -> f64 {
    let (size, own) = (inner_product(wanted, wanted), inner_product(found, found));
    let squared = own - 2.0 * inner_product(found, wanted) + size;
    // `max` would hide a value that is not a number.
    if squared.is_nan() {
        return f64::NAN;
    }
    let squared = squared.max(0.0);
    if size > 0.0 { (squared / size).sqrt() } else { own.max(0.0).sqrt() }
}

/// Share of the largest norm of an adapter's modules below which a difference is noise: number
/// formats with a short range lose modules that only rounding has moved.
const NOISE: f64 = 1e-6;

/// The modules of `wanted` that `found` lacks or changes by more than `tolerance`, relatively, and
/// those that only `found` has: paths, each with what is wrong. A difference of less than a
/// millionth of the largest module's norm is none.
pub fn differences(found: &Adapter, wanted: &Adapter, tolerance: f64) -> Vec<String> {
    let mut problems = Vec::new();
    let largest = wanted.modules.values().map(delta_norm).fold(0.0, f64::max);
    for (path, wanted) in &wanted.modules {
        let Some(found) = found.modules.get(path) else {
            problems.push(format!("`{path}` is missing"));
            continue;
        };
        let (difference, norm) = (relative_difference(found, wanted), delta_norm(wanted));
        let distance = if norm > 0.0 { difference * norm } else { difference };
        if distance.is_nan() || distance > tolerance * norm + NOISE * largest {
            problems.push(format!("`{path}` differs by {difference:e} of its effect"));
        }
    }
    let extra = found.modules.keys().filter(|path| !wanted.modules.contains_key(*path));
    problems.extend(extra.map(|path| format!("`{path}` is new")));
    problems
}

fn wide(tensor: &HostTensor) -> Vec<f64> {
    tensor.f32().iter().map(|&value| f64::from(value)).collect()
}

/// `BᵀB'`, `[r, r']`; `None` if they have not as many rows.
fn up_products(left: &Factors, right: &Factors) -> Option<Vec<f64>> {
    let (ranks, rows) = ([left.rank(), right.rank()], left.up.shape.first().copied()?);
    let fits = |factors: &Factors| factors.up.len() == rows * factors.rank();
    if !(fits(left) && fits(right)) {
        return None;
    }
    let (a, b) = (wide(&left.up), wide(&right.up));
    Some(product(
        (&a, Shape::dense(rows, ranks[0]).transposed()),
        (&b, Shape::dense(rows, ranks[1])),
    ))
}

/// AA'ᵀ, `[r, r']`; `None` if they have not as many columns.
fn down_products(left: &Factors, right: &Factors) -> Option<Vec<f64>> {
    let ranks = [left.rank(), right.rank()];
    let columns = left.down.len() / ranks[0].max(1);
    let fits = |factors: &Factors| factors.down.len() == columns * factors.rank();
    if !(fits(left) && fits(right)) {
        return None;
    }
    let (a, b) = (wide(&left.down), wide(&right.down));
    Some(product(
        (&a, Shape::dense(ranks[0], columns)),
        (&b, Shape::dense(ranks[1], columns).transposed()),
    ))
}

fn product(left: (&[f64], Shape), right: (&[f64], Shape)) -> Vec<f64> {
    let (rows, columns) = (left.1.rows, right.1.columns);
    let mut values = vec![0.0; rows * columns];
    gemm((&mut values[..], Shape::dense(rows, columns)), left, right, 1.0, Into::Replace);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(up: [f32; 6], down: [f32; 8], alpha: f64) -> Factors {
        Factors {
            down: HostTensor::from_f32([2, 4], down.to_vec()),
            up: HostTensor::from_f32([3, 2], up.to_vec()),
            alpha,
        }
    }

    #[test]
    fn the_norm_is_that_of_the_product() {
        // B = [[1, 2], [0, 1], [3, 0]], A = [[1, 0, 2, 1], [0, 1, 1, 0]], scale 3/2.
        let module =
            factors([1.0, 2.0, 0.0, 1.0, 3.0, 0.0], [1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0], 3.0);
        // BA = [[1, 2, 4, 1], [0, 1, 1, 0], [3, 0, 6, 3]], squares sum to 22 + 2 + 54.
        assert!((delta_norm(&module) - 1.5 * 78.0f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn another_factorization_of_the_same_product_is_no_difference() {
        let module =
            factors([1.0, 2.0, 0.0, 1.0, 3.0, 0.0], [1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0], 2.0);
        // The two directions swapped, and one of them shared out otherwise.
        let halved = factors(
            [2.0, 0.25, 1.0, 0.0, 0.0, 0.75],
            [0.0, 1.0, 1.0, 0.0, 4.0, 0.0, 8.0, 4.0],
            2.0,
        );
        assert!(relative_difference(&halved, &module) < 1e-7);
        let turned = Factors {
            up: HostTensor::from_f32([3, 2], module.up.f32().iter().map(|x| -x).collect()),
            ..module.clone()
        };
        assert!((relative_difference(&turned, &module) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_module_of_rounding_noise_may_be_lost() {
        let module = factors([1.0; 6], [1.0; 8], 2.0);
        let with = |size: f32| {
            let other =
                Factors { up: HostTensor::from_f32([3, 2], vec![size; 6]), ..module.clone() };
            let modules = [("a".to_owned(), module.clone()), ("b".to_owned(), other)];
            Adapter { modules: modules.into() }
        };
        assert!(differences(&with(0.0), &with(1e-7), 1e-3).is_empty());
        assert_eq!(differences(&with(0.0), &with(1e-5), 1e-3).len(), 1);
        assert_eq!(differences(&with(1e-5), &with(0.0), 1e-3).len(), 1);
    }

    #[test]
    fn what_differs_is_named() {
        let module = factors([1.0; 6], [1.0; 8], 2.0);
        let adapter = |paths: &[&str], factors: &Factors| Adapter {
            modules: paths.iter().map(|path| ((*path).to_owned(), factors.clone())).collect(),
        };
        let other = Factors { alpha: 2.2, ..module.clone() };
        let found =
            differences(&adapter(&["a", "c"], &other), &adapter(&["a", "b"], &module), 1e-3);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("`a` differs by"));
        assert!(found[1].contains("`b` is missing") && found[2].contains("`c` is new"));
        let wider = Factors { down: HostTensor::from_f32([2, 5], vec![1.0; 10]), ..module.clone() };
        assert!(relative_difference(&wider, &module).is_nan());
    }
}
