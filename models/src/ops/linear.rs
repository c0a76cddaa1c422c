//! The affine map of rows, x·Wᵀ + b, and its gradients.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::element::{Dense, Element, tensor};
use super::gemm::{Into, Shape, gemm};
use super::parallel::{add_up, for_each};
use super::simd::vectorized;

/// Rows that one part of the weight's gradient sums up, at least.
const PART: usize = 512;
/// Parts of the weight's gradient, at most.
const PARTS: usize = 8;

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Sizes {
    fn new(n_elements: usize, weight: &FlexTensor) -> Self {
        let [outputs, inputs] = weight.layout().shape().dims();
        Self { rows: n_elements / inputs.max(1), inputs, outputs }
    }

    /// Rows of one task, a function of the shape alone.
    fn tile(self) -> usize {
        self.rows.div_ceil(8).next_multiple_of(64).min(256)
    }
}

/// x·Wᵀ + b over the last axis of `x`; a `bias` without elements stands for none.
pub(crate) fn forward(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor) -> FlexTensor {
    if x.dtype() == DType::F32 {
        run_forward::<f32>(x, weight, bias)
    } else {
        run_forward::<f64>(x, weight, bias)
    }
}

fn run_forward<T: Element>(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor) -> FlexTensor {
    let mut shape = x.layout().shape().clone();
    let sizes = Sizes::new(shape.num_elements(), weight);
    let last = shape.num_dims() - 1;
    shape[last] = sizes.outputs;
    let [x, weight, bias] = [x, weight, bias].map(Dense::new);
    let (values, weight, bias) = (x.values::<T>(), weight.values::<T>(), bias.values::<T>());
    let Sizes { rows, inputs, outputs } = sizes;
    let tile = sizes.tile();
    let mut y = vec![T::ZERO; rows * outputs];
    let tiles = y.par_chunks_mut((tile * outputs).max(1));
    for_each(tiles.zip(values.par_chunks((tile * inputs).max(1))), tile * inputs, |(y, x)| {
        let rows = y.len() / outputs;
        gemm(
            (y, Shape::dense(rows, outputs)),
            (x, Shape::dense(rows, inputs)),
            (weight, Shape::dense(outputs, inputs).transposed()),
            T::ONE,
            Into::Replace,
        );
        if !bias.is_empty() {
            vectorized(|| {
                for row in y.chunks_exact_mut(outputs) {
                    for (y, &b) in row.iter_mut().zip(bias) {
                        *y += b;
                    }
                }
            });
        }
    });
    tensor(y, shape)
}

/// dy·W.
pub(crate) fn input_gradient(dy: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    if dy.dtype() == DType::F32 {
        run_input_gradient::<f32>(dy, weight)
    } else {
        run_input_gradient::<f64>(dy, weight)
    }
}

fn run_input_gradient<T: Element>(dy: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let mut shape = dy.layout().shape().clone();
    let last = shape.num_dims() - 1;
    let [outputs, inputs] = weight.layout().shape().dims();
    let rows = shape.num_elements() / outputs.max(1);
    shape[last] = inputs;
    let sizes = Sizes { rows, inputs, outputs };
    let (dy, weight) = (Dense::new(dy), Dense::new(weight));
    let (slopes, weight) = (dy.values::<T>(), weight.values::<T>());
    let tile = sizes.tile();
    let mut dx = vec![T::ZERO; rows * inputs];
    let tiles = dx.par_chunks_mut((tile * inputs).max(1));
    for_each(tiles.zip(slopes.par_chunks((tile * outputs).max(1))), tile * inputs, |(dx, dy)| {
        let rows = dx.len() / inputs;
        gemm(
            (dx, Shape::dense(rows, inputs)),
            (dy, Shape::dense(rows, outputs)),
            (weight, Shape::dense(outputs, inputs)),
            T::ONE,
            Into::Replace,
        );
    });
    tensor(dx, shape)
}

/// dyᵀ·x.
pub(crate) fn weight_gradient(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    if x.dtype() == DType::F32 {
        run_weight_gradient::<f32>(x, dy)
    } else {
        run_weight_gradient::<f64>(x, dy)
    }
}

fn run_weight_gradient<T: Element>(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let width = |tensor: &FlexTensor| tensor.layout().shape()[tensor.layout().num_dims() - 1];
    let (inputs, outputs) = (width(x), width(dy));
    let (x, dy) = (Dense::new(x), Dense::new(dy));
    let (values, slopes) = (x.values::<T>(), dy.values::<T>());
    let rows = values.len() / inputs.max(1);
    let length = rows.div_ceil(PARTS).max(PART);
    let mut parts = vec![T::ZERO; rows.div_ceil(length).max(1) * inputs * outputs];
    let pieces = parts.par_chunks_mut((inputs * outputs).max(1));
    let pieces = pieces.zip(values.par_chunks((length * inputs).max(1)));
    let pieces = pieces.zip(slopes.par_chunks((length * outputs).max(1)));
    for_each(pieces, length * inputs, |((part, x), dy)| {
        let rows = x.len() / inputs;
        gemm(
            (part, Shape::dense(outputs, inputs)),
            (dy, Shape::dense(rows, outputs).transposed()),
            (x, Shape::dense(rows, inputs)),
            T::ONE,
            Into::Replace,
        );
    });
    tensor(add_up(parts, inputs * outputs), [outputs, inputs])
}

/// Σ dy over all rows.
pub(crate) fn bias_gradient(dy: &FlexTensor) -> FlexTensor {
    if dy.dtype() == DType::F32 {
        run_bias_gradient::<f32>(dy)
    } else {
        run_bias_gradient::<f64>(dy)
    }
}

fn run_bias_gradient<T: Element>(dy: &FlexTensor) -> FlexTensor {
    let outputs = dy.layout().shape()[dy.layout().num_dims() - 1];
    let dy = Dense::new(dy);
    let slopes = dy.values::<T>();
    let mut parts = vec![T::ZERO; slopes.len().div_ceil(PART * outputs.max(1)).max(1) * outputs];
    let pieces = parts.par_chunks_mut(outputs.max(1));
    for_each(
        pieces.zip(slopes.par_chunks((PART * outputs).max(1))),
        PART * outputs,
        |(part, dy)| {
            vectorized(|| {
                for row in dy.chunks_exact(outputs) {
                    for (sum, &dy) in part.iter_mut().zip(row) {
                        *sum += dy;
                    }
                }
            });
        },
    );
    tensor(add_up(parts, outputs), [outputs])
}
