//! An adapter that moves a network as far, in a random direction.

use checkpoints::HostTensor;
use recipes::draws;

use super::linear_algebra::{Matrix, qr, singular_values};
use super::{Adapter, Factors};

/// A placebo: per layer `ΔW' = UΣVᵀ`, where Σ are the singular values of that layer's ΔW and U, V
/// are Haar-random. Spectrum and Frobenius norm are those of `adapter`, the directions are not.
///
/// Source: Mezzadri 2007, arXiv:math-ph/0609050 (QR of a Gaussian with a
/// positive diagonal of R is Haar-distributed).
pub fn placebo(adapter: &Adapter, seed: u64) -> Adapter {
    let module =
        |(path, factors): (&String, &Factors)| (path.clone(), random_rotation(path, factors, seed));
    Adapter { modules: adapter.modules.iter().map(module).collect() }
}

fn random_rotation(path: &str, factors: &Factors, seed: u64) -> Factors {
    if factors.scale() == 0.0 {
        // It moves nothing, whatever its direction.
        return factors.clone();
    }
    let rank = factors.rank();
    let n_out = factors.up.shape[0];
    let n_in = factors.down.shape[1..].iter().product::<usize>();
    let spectrum = spectrum(factors);
    let orthonormal = |rows: usize, side: &str| {
        let mut stream = draws::keyed(seed, &format!("placebo/{side}/{path}"));
        let values = draws::normals(&mut stream, rows * rank).into_iter().map(f64::from).collect();
        qr(&Matrix::new(rows, rank, values)).0
    };
    let (left, right) = (orthonormal(n_out, "left"), orthonormal(n_in, "right"));
    let share = |column: usize| (spectrum[column] / factors.scale()).sqrt();
    let up = (0..n_out).flat_map(|row| (0..rank).map(move |column| (row, column)));
    let up = up.map(|(row, column)| (left.at(row, column) * share(column)) as f32).collect();
    let down = (0..rank).flat_map(|column| (0..n_in).map(move |row| (row, column)));
    let down = down.map(|(row, column)| (right.at(row, column) * share(column)) as f32).collect();
    Factors {
        down: HostTensor::from_f32(factors.down.shape.clone(), down),
        up: HostTensor::from_f32(factors.up.shape.clone(), up),
        alpha: factors.alpha,
    }
}

/// Singular values of `(α/r)·up·down`, largest first, from the r×r core of two QR decompositions.
pub(super) fn spectrum(factors: &Factors) -> Vec<f64> {
    let rank = factors.rank();
    let matrix = |host: &HostTensor, rows| {
        let values: Vec<f64> = host.f32().iter().map(|&value| f64::from(value)).collect();
        Matrix::new(rows, values.len() / rows.max(1), values)
    };
    let (_, up) = qr(&matrix(&factors.up, factors.up.shape[0]));
    let (_, down) = qr(&matrix(&factors.down, rank).transposed());
    let core = up.times(&down.transposed());
    singular_values(&core).into_iter().map(|value| value * factors.scale()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(seed: u64, shapes: [&[usize]; 2]) -> Factors {
        let mut stream = draws::keyed(seed, "test");
        let mut tensor = |shape: &[usize]| {
            HostTensor::from_f32(
                shape.to_vec(),
                draws::normals(&mut stream, shape.iter().product()),
            )
        };
        Factors { down: tensor(shapes[0]), up: tensor(shapes[1]), alpha: 2.0 }
    }

    #[test]
    fn placebo_keeps_the_spectrum_of_every_layer_and_not_its_direction() {
        for shapes in [[&[4, 12][..], &[9, 4][..]], [&[3, 5, 3, 3], &[7, 3, 1, 1]]] {
            let original = factors(1, shapes);
            let adapter = Adapter { modules: [("unet.layer".to_owned(), original.clone())].into() };
            let random = &placebo(&adapter, 5).modules["unet.layer"];
            for (found, expected) in spectrum(random).iter().zip(spectrum(&original)) {
                assert!((found / expected - 1.0).abs() < 1e-5, "{found} instead of {expected}");
            }
            assert_ne!(random.up, original.up);
            assert_ne!(*random, placebo(&adapter, 6).modules["unet.layer"]);
        }
    }

    #[test]
    fn a_zero_adapter_has_a_zero_placebo() {
        let adapter =
            Adapter { modules: [("unet.layer".to_owned(), factors(1, [&[2, 4], &[4, 2]]))].into() };
        let placebo = placebo(&adapter.zeroed(), 5);
        assert!(placebo.modules["unet.layer"].up.f32().iter().all(|&value| value == 0.0));
        let silent = Factors { alpha: 0.0, ..factors(1, [&[2, 4], &[4, 2]]) };
        let adapter = Adapter { modules: [("unet.layer".to_owned(), silent)].into() };
        assert_eq!(super::placebo(&adapter, 5), adapter);
    }
}
