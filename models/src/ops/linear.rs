//! The affine map of rows, x·Wᵀ + b, and its gradients.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::element::{Dense, Element, tensor};
use super::gemm::{Into, Shape, gemm};
use super::parallel::{add_up, for_each, room, zeros};
use super::simd::vectorized;

/// Rows that one part of the weight's gradient sums up, at least.
const PART: usize = 512;
/// Parts of the weight's gradient, at most.
const PARTS: usize = 8;
/// Tiles of rows below which the columns are shared out instead.
const TILES: usize = 4;
/// Columns of a share.
const COLUMNS: usize = 64;

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

    /// Whether there are too few rows to keep every thread busy, and columns enough for it.
    fn few(self, columns: usize) -> bool {
        self.rows.div_ceil(self.tile().max(1)) < TILES && columns >= 2 * COLUMNS
    }

    /// Rows of one task, a function of the shape alone.
    fn tile(self) -> usize {
        self.rows.div_ceil(8).next_multiple_of(64).min(256)
    }
}

/// x·Wᵀ + b over the last axis of `x`; a `bias` without elements stands for none.
pub(crate) fn forward(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor) -> FlexTensor {
    if x.dtype() == DType::F32 {
        run_forward::<f32>([x, weight, bias], None)
    } else {
        run_forward::<f64>([x, weight, bias], None)
    }
}

/// The rows of `left` and the matrix that each of them is multiplied with besides.
struct Branch<'a, T> {
    left: &'a [T],
    right: &'a [T],
    rank: usize,
}

impl<T: Element> Branch<'_, T> {
    /// Adds left·rightᵀ of some rows and, of `right` `[columns, rank]`, some columns.
    fn add_forward(&self, y: &mut [T], [row, n_rows]: [usize; 2], [column, n_columns]: [usize; 2]) {
        gemm(
            (y, Shape::dense(n_rows, n_columns)),
            (&self.left[row * self.rank..], Shape::dense(n_rows, self.rank)),
            (&self.right[column * self.rank..], Shape::dense(n_columns, self.rank).transposed()),
            T::ONE,
            Into::Add,
        );
    }

    /// Adds left·right of some rows and, of `right` `[rank, width]`, some columns.
    fn add_backward(
        &self,
        dx: &mut [T],
        [row, n_rows]: [usize; 2],
        [column, n_columns, width]: [usize; 3],
    ) {
        gemm(
            (dx, Shape::dense(n_rows, n_columns)),
            (&self.left[row * self.rank..], Shape::dense(n_rows, self.rank)),
            (&self.right[column..], Shape::strided(self.rank, n_columns, width)),
            T::ONE,
            Into::Add,
        );
    }
}

fn run_forward<T: Element>(
    [x, weight, bias]: [&FlexTensor; 3],
    branch: Option<[&FlexTensor; 2]>,
) -> FlexTensor {
    let rank = branch.map_or(0, |[_, up]| up.layout().shape()[1]);
    let branch = branch.map(|pair| pair.map(Dense::new));
    let branch = branch.as_ref().map(|[left, right]| Branch {
        left: left.values::<T>(),
        right: right.values::<T>(),
        rank,
    });
    let mut shape = x.layout().shape().clone();
    let sizes = Sizes::new(shape.num_elements(), weight);
    let last = shape.num_dims() - 1;
    shape[last] = sizes.outputs;
    let [x, weight, bias] = [x, weight, bias].map(Dense::new);
    let (values, weight, bias) = (x.values::<T>(), weight.values::<T>(), bias.values::<T>());
    let Sizes { rows, inputs, outputs } = sizes;
    if sizes.few(outputs) {
        let mut y = by_columns([rows, outputs], inputs, |first, part, n_columns| {
            gemm(
                (part, Shape::dense(rows, n_columns)),
                (values, Shape::dense(rows, inputs)),
                (&weight[first * inputs..], Shape::dense(n_columns, inputs).transposed()),
                T::ONE,
                Into::Replace,
            );
            if let Some(branch) = &branch {
                branch.add_forward(part, [0, rows], [first, n_columns]);
            }
        });
        add_bias(&mut y, bias);
        return tensor(y, shape);
    }
    let tile = sizes.tile();
    let mut y = room(rows * outputs);
    let tiles = y.par_chunks_mut((tile * outputs).max(1));
    let tiles = tiles.zip(values.par_chunks((tile * inputs).max(1))).enumerate();
    for_each(tiles, tile * inputs, |(index, (y, x))| {
        let rows = y.len() / outputs;
        gemm(
            (y, Shape::dense(rows, outputs)),
            (x, Shape::dense(rows, inputs)),
            (weight, Shape::dense(outputs, inputs).transposed()),
            T::ONE,
            Into::Replace,
        );
        if let Some(branch) = &branch {
            branch.add_forward(y, [index * tile, rows], [0, outputs]);
        }
        add_bias(y, bias);
    });
    tensor(y, shape)
}

vectorized! {
    /// Adds the bias, if there is one, to every row.
    fn add_bias<T: Element>(y: &mut [T], bias: &[T]) {
        for row in y.chunks_exact_mut(bias.len().max(1)) {
            for (y, &b) in row.iter_mut().zip(bias) {
                *y += b;
            }
        }
    }

    /// Adds all rows to one.
    fn add_rows<T: Element>(sum: &mut [T], rows: &[T]) {
        for row in rows.chunks_exact(sum.len()) {
            for (sum, &x) in sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// A matrix of few rows on all threads: `fill` gets the first column of a share, room for its dense
/// matrix, and the number of its columns.
fn by_columns<T: Element>(
    [rows, columns]: [usize; 2],
    depth: usize,
    fill: impl Fn(usize, &mut [T], usize) + Sync,
) -> Vec<T> {
    let mut parts = room(rows * columns);
    let shares = parts.par_chunks_mut((rows * COLUMNS).max(1)).enumerate();
    for_each(shares, COLUMNS * depth, |(share, part)| {
        let n_columns = part.len() / rows;
        fill(share * COLUMNS, part, n_columns);
    });
    let mut matrix = room(rows * columns);
    for (row, line) in matrix.chunks_exact_mut(columns).enumerate() {
        let parts = parts.chunks(rows * COLUMNS).zip(line.chunks_mut(COLUMNS));
        for (part, line) in parts {
            line.copy_from_slice(&part[row * line.len()..][..line.len()]);
        }
    }
    matrix
}

/// What [`low_rank_backward`] needs of [`low_rank_forward`].
#[derive(Clone, Debug)]
pub(crate) struct LowRankSaved {
    pub(crate) x: FlexTensor,
    /// W; absent if nobody wants the gradient of x.
    pub(crate) weight: Option<FlexTensor>,
    pub(crate) down: FlexTensor,
    pub(crate) up: FlexTensor,
    /// x·Aᵀ.
    pub(crate) hidden: FlexTensor,
}

/// x·Wᵀ + (x·Aᵀ)·Bᵀ + b, with the factors A `[rank, inputs]` and B `[outputs, rank]`, and x·Aᵀ.
pub(crate) fn low_rank_forward(
    [x, weight, bias, down, up]: [&FlexTensor; 5],
) -> (FlexTensor, FlexTensor) {
    let hidden = forward(x, down, &bias_free(x));
    let branch = Some([&hidden, up]);
    let y = if x.dtype() == DType::F32 {
        run_forward::<f32>([x, weight, bias], branch)
    } else {
        run_forward::<f64>([x, weight, bias], branch)
    };
    (y, hidden)
}

/// Stands for no bias.
fn bias_free(x: &FlexTensor) -> FlexTensor {
    if x.dtype() == DType::F32 {
        tensor::<f32>(Vec::new(), [0])
    } else {
        tensor::<f64>(Vec::new(), [0])
    }
}

/// The gradients of x, if it is wanted, and of both factors: five products. That of W is no part of it.
pub(crate) fn low_rank_backward(
    saved: &LowRankSaved,
    dy: &FlexTensor,
) -> (Option<FlexTensor>, [FlexTensor; 2]) {
    // dy·B, the gradient of x·Aᵀ.
    let d_hidden = input_gradient(dy, &saved.up);
    let dx = saved.weight.as_ref().map(|weight| {
        let branch = Some([&d_hidden, &saved.down]);
        if dy.dtype() == DType::F32 {
            run_input_gradient::<f32>([dy, weight], branch)
        } else {
            run_input_gradient::<f64>([dy, weight], branch)
        }
    });
    (dx, [weight_gradient(&saved.x, &d_hidden), weight_gradient(&saved.hidden, dy)])
}

/// dy·W.
pub(crate) fn input_gradient(dy: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    if dy.dtype() == DType::F32 {
        run_input_gradient::<f32>([dy, weight], None)
    } else {
        run_input_gradient::<f64>([dy, weight], None)
    }
}

fn run_input_gradient<T: Element>(
    [dy, weight]: [&FlexTensor; 2],
    branch: Option<[&FlexTensor; 2]>,
) -> FlexTensor {
    let rank = branch.map_or(0, |[_, down]| down.layout().shape()[0]);
    let branch = branch.map(|pair| pair.map(Dense::new));
    let branch = branch.as_ref().map(|[left, right]| Branch {
        left: left.values::<T>(),
        right: right.values::<T>(),
        rank,
    });
    let mut shape = dy.layout().shape().clone();
    let last = shape.num_dims() - 1;
    let [outputs, inputs] = weight.layout().shape().dims();
    let rows = shape.num_elements() / outputs.max(1);
    shape[last] = inputs;
    let sizes = Sizes { rows, inputs, outputs };
    let (dy, weight) = (Dense::new(dy), Dense::new(weight));
    let (slopes, weight) = (dy.values::<T>(), weight.values::<T>());
    if sizes.few(inputs) {
        let dx = by_columns([rows, inputs], outputs, |first, part, n_columns| {
            gemm(
                (part, Shape::dense(rows, n_columns)),
                (slopes, Shape::dense(rows, outputs)),
                (&weight[first..], Shape::strided(outputs, n_columns, inputs)),
                T::ONE,
                Into::Replace,
            );
            if let Some(branch) = &branch {
                branch.add_backward(part, [0, rows], [first, n_columns, inputs]);
            }
        });
        return tensor(dx, shape);
    }
    let tile = sizes.tile();
    let mut dx = room(rows * inputs);
    let tiles = dx.par_chunks_mut((tile * inputs).max(1));
    let tiles = tiles.zip(slopes.par_chunks((tile * outputs).max(1))).enumerate();
    for_each(tiles, tile * inputs, |(index, (dx, dy))| {
        let rows = dx.len() / inputs;
        gemm(
            (dx, Shape::dense(rows, inputs)),
            (dy, Shape::dense(rows, outputs)),
            (weight, Shape::dense(outputs, inputs)),
            T::ONE,
            Into::Replace,
        );
        if let Some(branch) = &branch {
            branch.add_backward(dx, [index * tile, rows], [0, inputs, inputs]);
        }
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
    let mut parts = zeros(rows.div_ceil(length).max(1) * inputs * outputs);
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
    let mut parts = zeros(slopes.len().div_ceil(PART * outputs.max(1)).max(1) * outputs);
    let pieces = parts.par_chunks_mut(outputs.max(1));
    for_each(
        pieces.zip(slopes.par_chunks((PART * outputs).max(1))),
        PART * outputs,
        |(part, dy)| {
            add_rows(part, dy);
        },
    );
    tensor(add_up(parts, outputs), [outputs])
}
