//! Layer norm over the last axis, forward and backward in one pass each.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::element::{Dense, Element, tensor};
use super::group_norm::{Gradients, moments};
use super::lanes::{sum, sum_pairs};
use super::parallel::{add_up, for_each, room, zeros};
use super::simd::vectorized;

/// Rows that one task of the backward pass sums up.
const ROWS: usize = 128;

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    x: FlexTensor,
    gamma: FlexTensor,
    statistics: FlexTensor,
}

/// The output and what [`backward`] needs.
pub(crate) fn forward(
    x: FlexTensor,
    [gamma, beta]: [FlexTensor; 2],
    eps: f64,
) -> (FlexTensor, Saved) {
    let (y, statistics) = if x.dtype() == DType::F32 {
        run_forward::<f32>(&x, [&gamma, &beta], eps)
    } else {
        run_forward::<f64>(&x, [&gamma, &beta], eps)
    };
    (y, Saved { x, gamma, statistics })
}

fn run_forward<T: Element>(
    x: &FlexTensor,
    affine: [&FlexTensor; 2],
    eps: f64,
) -> (FlexTensor, FlexTensor) {
    let shape = x.layout().shape().clone();
    let width = shape[shape.num_dims() - 1].max(1);
    let x = Dense::new(x);
    let [gamma, beta] = affine.map(Dense::new);
    let (gamma, beta) = (gamma.values::<T>(), beta.values::<T>());
    let values = x.values::<T>();
    let mut y = room(values.len());
    let mut statistics = room(values.len() / width * 2);
    let piece = ROWS / 4;
    let pieces = y
        .par_chunks_mut(piece * width)
        .zip(values.par_chunks(piece * width))
        .zip(statistics.par_chunks_mut(piece * 2));
    for_each(pieces, piece * width, |((y, x), statistics)| {
        normalize_rows(y, x, statistics, [gamma, beta], T::of(eps));
    });
    let n_statistics = statistics.len();
    (tensor(y, shape), tensor(statistics, [n_statistics]))
}

vectorized! {
    /// Writes normalised rows and, of each, mean and 1/√(σ² + ε).
    fn normalize_rows<T: Element>(
        y: &mut [T],
        x: &[T],
        statistics: &mut [T],
        affine: [&[T]; 2],
        eps: T,
    ) {
        let [gamma, beta] = affine;
        let rows = y.chunks_exact_mut(gamma.len()).zip(x.chunks_exact(gamma.len()));
        for ((y, x), statistics) in rows.zip(statistics.chunks_exact_mut(2)) {
            let [mean, scale] = moments(x, eps);
            statistics.copy_from_slice(&[mean, scale]);
            let affine = gamma.iter().zip(beta);
            for ((y, &x), (&gamma, &beta)) in y.iter_mut().zip(x).zip(affine) {
                *y = (x - mean) * scale * gamma + beta;
            }
        }
    }

    /// Writes the gradient of rows of x and adds those of γ and β to `sums`.
    fn rows_backward<T: Element>(
        inputs: [&[T]; 3],
        dx: &mut [T],
        statistics: &[T],
        sums: &mut [T],
    ) {
        let [x, dy, gamma] = inputs;
        let rows = x.chunks_exact(gamma.len()).zip(dy.chunks_exact(gamma.len()));
        let rows = rows.zip(dx.chunks_exact_mut(gamma.len()));
        for (((x, dy), dx), statistics) in rows.zip(statistics.chunks_exact(2)) {
            let [mean, scale] = [statistics[0], statistics[1]];
            row_backward([x, dy, gamma], dx, sums, [mean, scale]);
        }
    }
}

/// The gradients with respect to x and to γ and β.
pub(crate) fn backward(saved: &Saved, dy: &FlexTensor, wanted: [bool; 2]) -> Gradients {
    if dy.dtype() == DType::F32 {
        run_backward::<f32>(saved, dy, wanted)
    } else {
        run_backward::<f64>(saved, dy, wanted)
    }
}

fn run_backward<T: Element>(saved: &Saved, dy: &FlexTensor, wanted: [bool; 2]) -> Gradients {
    let shape = saved.x.layout().shape().clone();
    let width = shape[shape.num_dims() - 1].max(1);
    let (x, gamma, dy) = (Dense::new(&saved.x), Dense::new(&saved.gamma), Dense::new(dy));
    let (values, gamma, slopes) = (x.values::<T>(), gamma.values::<T>(), dy.values::<T>());
    let mut dx = room(values.len());
    // For every piece of rows: Σ dy·x̂ and Σ dy.
    let mut sums = zeros(values.len().div_ceil(ROWS * width).max(1) * 2 * width);
    let pieces = dx
        .par_chunks_mut(ROWS * width)
        .zip(values.par_chunks(ROWS * width))
        .zip(slopes.par_chunks(ROWS * width))
        .zip(T::storage(&saved.statistics).par_chunks(ROWS * 2))
        .zip(sums.par_chunks_exact_mut(2 * width));
    for_each(pieces, 2 * ROWS * width, |((((dx, x), dy), statistics), sums)| {
        rows_backward([x, dy, gamma], dx, statistics, sums);
    });
    Gradients {
        x: wanted[0].then(|| tensor(dx, shape)),
        affine: wanted[1].then(|| {
            let sums = add_up(sums, 2 * width);
            let (gamma, beta) = sums.split_at(width);
            [gamma, beta].map(|values| tensor(values.to_vec(), [width]))
        }),
    }
}

/// One row: its part of dγ and dβ is added to `sums`.
#[inline(always)]
fn row_backward<T: Element>(
    [x, dy, gamma]: [&[T]; 3],
    dx: &mut [T],
    sums: &mut [T],
    [mean, scale]: [T; 2],
) {
    let (products, plain) = sums.split_at_mut(x.len());
    let inputs = x.iter().zip(dy).zip(gamma);
    let outputs = dx.iter_mut().zip(products).zip(plain);
    for (((&x, &dy), &gamma), ((dx, product), plain)) in inputs.zip(outputs) {
        *product += dy * ((x - mean) * scale);
        *plain += dy;
        *dx = gamma * dy;
    }
    #[expect(clippy::cast_precision_loss, reason = "a row has far fewer than 2⁵³ elements")]
    let n = T::of(x.len() as f64);
    let mean_plain = sum(dx, |du| du) / n;
    let mean_product = sum_pairs(dx, x, |du, x| du * ((x - mean) * scale)) / n;
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = scale * (*dx - mean_plain - (x - mean) * scale * mean_product);
    }
}
