//! Attention that keeps no scores: the backward pass computes them again, some rows at a time.
//!
//! Queries, keys and values are read where they lie. The result lies in memory as
//! `[batch, queries, heads, head]`, so that joining the heads afterwards copies nothing.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, algorithm 4 for the gradients.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::DType;
use rayon::prelude::*;

use super::Causal;
use super::element::{Element, tensor};
use super::gemm::{Into, Shape, gemm};
use super::lanes::{greatest, map_sum, sum_pairs};
use super::parallel::{for_each, for_each_with, room, zeros};
use super::simd::vectorized;

/// Rows of queries whose scores are held at once.
const ROWS: usize = 128;

/// The constants of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Factor of the scores.
    pub(crate) scale: f64,
    /// Whether later keys are hidden.
    pub(crate) causal: Causal,
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    out: FlexTensor,
    /// ln Σ exp(score) of every query, `[batch, queries, heads]`.
    normalizers: FlexTensor,
    options: Options,
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    head: usize,
}

impl Sizes {
    fn new(q: &FlexTensor, k: &FlexTensor) -> Self {
        let [batch, heads, queries, head] = q.layout().shape().dims();
        Self { batch, heads, queries, keys: k.layout().shape()[2], head }
    }

    /// Queries of one task: a divisor of their number, so that no task spans two images.
    fn rows(self) -> usize {
        (ROWS / 4..=ROWS)
            .rev()
            .find(|&rows| self.queries.is_multiple_of(rows))
            .unwrap_or(self.queries)
    }
}

/// A tensor `[batch, heads, rows, head]` whose last axis lies in order.
struct Heads {
    tensor: FlexTensor,
    strides: [usize; 3],
}

impl Heads {
    fn new(tensor: &FlexTensor) -> Self {
        let ordered = tensor.layout().strides().last() == Some(&1)
            && tensor.layout().strides().iter().all(|&stride| stride >= 0);
        let tensor = if ordered { tensor.clone() } else { tensor.to_contiguous() };
        let strides = tensor.layout().strides();
        let strides = [0, 1, 2].map(|axis| strides[axis].unsigned_abs());
        Self { tensor, strides }
    }

    /// The matrix of one head of one image from `row` on.
    fn matrix<T: Element>(&self, image: usize, head: usize, row: usize) -> (&[T], usize) {
        let [by_image, by_head, by_row] = self.strides;
        let start = self.tensor.layout().start_offset();
        let start = start + image * by_image + head * by_head + row * by_row;
        (&T::storage(&self.tensor)[start..], by_row)
    }
}

/// A tensor `[batch, heads, rows, head]` that lies in memory as `[batch, rows, heads, head]`.
fn interleaved<T: Element>(values: Vec<T>, [batch, heads, rows, head]: [usize; 4]) -> FlexTensor {
    let strides = [rows * heads * head, head, heads * head, 1].map(usize::cast_signed);
    let layout = Layout::new([batch, heads, rows, head].into(), strides.to_vec(), 0);
    FlexTensor::new(T::bytes(values), layout, T::DTYPE)
}

/// The output and what [`backward`] needs.
pub(crate) fn forward([q, k, v]: [FlexTensor; 3], options: Options) -> (FlexTensor, Saved) {
    let (out, normalizers) = if q.dtype() == DType::F32 {
        run_forward::<f32>([&q, &k, &v], options)
    } else {
        run_forward::<f64>([&q, &k, &v], options)
    };
    (out.clone(), Saved { q, k, v, out, normalizers, options })
}

fn run_forward<T: Element>(
    [q, k, v]: [&FlexTensor; 3],
    options: Options,
) -> (FlexTensor, FlexTensor) {
    let sizes = Sizes::new(q, k);
    let Sizes { batch, heads, queries, keys, head } = sizes;
    let operands = [q, k, v].map(Heads::new);
    let rows = sizes.rows();
    let mut out = room(batch * queries * heads * head);
    let mut normalizers = room(batch * queries * heads);
    let tasks = out
        .par_chunks_exact_mut((rows * heads * head).max(1))
        .zip(normalizers.par_chunks_exact_mut((rows * heads).max(1)))
        .enumerate();
    let (weight, size) = (rows * heads * keys, rows + rows * keys);
    for_each_with(tasks, weight, size, |scratch: &mut [T], (task, (out, normalizers))| {
        let first = task * rows;
        let (image, row) = (first / queries, first % queries);
        for index in 0..heads {
            let q = operands[0].matrix(image, index, row);
            let [k, v] = [1, 2].map(|which: usize| operands[which].matrix(image, index, 0));
            let scores = &mut scratch[rows..];
            score([q, k], scores, sizes, options);
            let normalizers = &mut normalizers[index..];
            let (shares, scores) = scratch.split_at_mut(rows);
            weigh(scores, shares, normalizers, row, (sizes, options));
            mix([scores, shares], v, &mut out[index * head..], sizes);
        }
    });
    let n_normalizers = normalizers.len();
    (interleaved(out, [batch, heads, queries, head]), tensor(normalizers, [n_normalizers]))
}

vectorized! {
    /// Makes exponentials of the scores of the queries from `first` on, and of each query its share
    /// 1/Σ and its normalizer.
    fn weigh<T: Element>(
        scores: &mut [T],
        shares: &mut [T],
        normalizers: &mut [T],
        first: usize,
        call: (Sizes, Options),
    ) {
        let (Sizes { heads, keys, .. }, options) = call;
        let normalizers = normalizers.iter_mut().step_by(heads);
        let lines = scores.chunks_exact_mut(keys).zip(shares.iter_mut());
        for (i, ((scores, share), normalizer)) in lines.zip(normalizers).enumerate() {
            let visible = visible(options, first + i, keys);
            let [most, total] = exponentials(scores, visible);
            *normalizer = most + total.ln();
            *share = T::ONE / total;
        }
    }

    /// Makes of scores P = exp(score − normalizer), and of dO·Vᵀ dS = P∘(dO·Vᵀ − rowsum(dO∘O)), for
    /// the queries from `first` on.
    fn slopes_of_scores<T: Element>(
        scores: [&mut [T]; 2],
        outputs: [(&[T], usize); 2],
        normalizers: &[T],
        first: usize,
        call: (Sizes, Options),
    ) {
        let (Sizes { heads, keys, head, .. }, options) = call;
        let ([p, ds], [dy, out]) = (scores, outputs);
        let lines = p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys));
        let normalizers = normalizers.iter().step_by(heads);
        for (i, ((p, ds), &normalizer)) in lines.zip(normalizers).enumerate() {
            let (dy, out) = (&dy.0[i * dy.1..][..head], &out.0[i * out.1..][..head]);
            let dot = sum_pairs(dy, out, |dy, y| dy * y);
            let visible = visible(options, first + i, keys);
            p[visible..].fill(T::ZERO);
            ds[visible..].fill(T::ZERO);
            for (p, ds) in p[..visible].iter_mut().zip(&mut ds[..visible]) {
                *p = (*p - normalizer).exp();
                *ds = *p * (*ds - dot);
            }
        }
    }
}

/// scale·QKᵀ of the queries of one task.
fn score<T: Element>(
    [(q, q_by), (k, k_by)]: [(&[T], usize); 2],
    scores: &mut [T],
    sizes: Sizes,
    options: Options,
) {
    let (rows, keys, head) = (sizes.rows(), sizes.keys, sizes.head);
    gemm(
        (scores, Shape::dense(rows, keys)),
        (q, Shape::strided(rows, head, q_by)),
        (k, Shape::strided(keys, head, k_by).transposed()),
        T::of(options.scale),
        Into::Replace,
    );
}

/// The values, weighted with the exponentials of each query and its share.
fn mix<T: Element>(
    [exponentials, shares]: [&[T]; 2],
    (v, v_by): (&[T], usize),
    out: &mut [T],
    sizes: Sizes,
) {
    let Sizes { heads, keys, head, .. } = sizes;
    let rows = shares.len();
    gemm(
        (out, Shape::strided(rows, head, heads * head)),
        (exponentials, Shape::dense(rows, keys)),
        (v, Shape::strided(keys, head, v_by)),
        T::ONE,
        Into::Replace,
    );
    for (out, &share) in out.chunks_mut(heads * head).zip(shares) {
        for y in &mut out[..head] {
            *y *= share;
        }
    }
}

/// Keys that query `row` sees.
#[inline(always)]
fn visible(options: Options, row: usize, keys: usize) -> usize {
    match options.causal {
        Causal::No => keys,
        Causal::Yes => keys.min(row + 1),
    }
}

/// Makes of every score its part in the total, e^(score − most), and zeros of the hidden ones;
/// returns the greatest score and the total.
#[inline(always)]
fn exponentials<T: Element>(scores: &mut [T], visible: usize) -> [T; 2] {
    let (seen, hidden) = scores.split_at_mut(visible);
    hidden.fill(T::ZERO);
    let most = greatest(seen);
    [most, map_sum(seen, |score| (score - most).exp())]
}

/// The gradients with respect to queries, keys and values.
pub(crate) fn backward(saved: &Saved, dy: &FlexTensor) -> [FlexTensor; 3] {
    if dy.dtype() == DType::F32 {
        run_backward::<f32>(saved, dy)
    } else {
        run_backward::<f64>(saved, dy)
    }
}

fn run_backward<T: Element>(saved: &Saved, dy: &FlexTensor) -> [FlexTensor; 3] {
    let sizes = Sizes::new(&saved.q, &saved.k);
    let Sizes { batch, heads, queries, keys, head } = sizes;
    let operands = [&saved.q, &saved.k, &saved.v, &saved.out, dy].map(Heads::new);
    let mut dq = room(batch * heads * queries * head);
    let [mut dk, mut dv] = [0, 1].map(|_| zeros(batch * heads * keys * head));
    let tasks = dq
        .par_chunks_exact_mut((queries * head).max(1))
        .zip(dk.par_chunks_exact_mut((keys * head).max(1)))
        .zip(dv.par_chunks_exact_mut((keys * head).max(1)))
        .enumerate();
    let scratch = 2 * sizes.rows() * keys;
    for_each_with(tasks, queries * keys, scratch, |scratch: &mut [T], (task, ((dq, dk), dv))| {
        let (image, index) = (task / heads, task % heads);
        let normalizers = &T::storage(&saved.normalizers)[image * queries * heads + index..];
        let mut part = Head { sizes, options: saved.options, dk, dv, scratch };
        for (i, dq) in dq.chunks_exact_mut(sizes.rows() * head).enumerate() {
            let row = i * sizes.rows();
            let [q, out, dy] =
                [0, 3, 4].map(|which: usize| operands[which].matrix::<T>(image, index, row));
            let [k, v] = [1, 2].map(|which: usize| operands[which].matrix::<T>(image, index, 0));
            part.rows(row, dq, [q, k, v, out, dy], &normalizers[row * heads..]);
        }
    });
    [
        interleave(&dq, [batch, heads, queries, head]),
        interleave(&dk, [batch, heads, keys, head]),
        interleave(&dv, [batch, heads, keys, head]),
    ]
}

/// The gradients of one head, summed up over chunks of queries.
struct Head<'a, T> {
    sizes: Sizes,
    options: Options,
    dk: &'a mut [T],
    dv: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: Element> Head<'_, T> {
    /// The queries from `row` on: `dV += PᵀdO, dQ = scale·dS·K, dK += scale·dSᵀQ`.
    fn rows(&mut self, row: usize, dq: &mut [T], operands: [(&[T], usize); 5], normalizers: &[T]) {
        let Sizes { keys, head, .. } = self.sizes;
        let scale = T::of(self.options.scale);
        self.slopes(row, operands, normalizers);
        let [q, k, _, _, dy] = operands;
        let rows = dq.len() / head;
        let square = Shape::dense(rows, keys);
        let by_queries = |(values, by)| (values, Shape::strided(rows, head, by));
        let by_keys = |(values, by)| (values, Shape::strided(keys, head, by));
        let (p, ds) = self.scratch.split_at(rows * keys);
        let whole = Shape::dense(keys, head);
        gemm((self.dv, whole), (p, square.transposed()), by_queries(dy), T::ONE, Into::Add);
        gemm((self.dk, whole), (ds, square.transposed()), by_queries(q), scale, Into::Add);
        gemm((dq, Shape::dense(rows, head)), (ds, square), by_keys(k), scale, Into::Replace);
    }

    /// P again from the scores, and dS = P∘(dO·Vᵀ − rowsum(dO∘O)), both into the buffer.
    fn slopes(&mut self, row: usize, [q, k, v, out, dy]: [(&[T], usize); 5], normalizers: &[T]) {
        let (p, ds) = self.scratch.split_at_mut(self.sizes.rows() * self.sizes.keys);
        score([q, k], p, self.sizes, self.options);
        score([dy, v], ds, self.sizes, Options { scale: 1.0, ..self.options });
        slopes_of_scores([p, ds], [dy, out], normalizers, row, (self.sizes, self.options));
    }
}

/// Moves gradients that lie head by head to where [`interleaved`] wants them.
fn interleave<T: Element>(values: &[T], shape: [usize; 4]) -> FlexTensor {
    let [_, heads, rows, head] = shape;
    let mut moved = room(values.len());
    let lines = moved.par_chunks_exact_mut((heads * head).max(1)).enumerate();
    for_each(lines, 2 * heads * head, |(line, moved)| {
        let (image, row) = (line / rows, line % rows);
        for (index, moved) in moved.chunks_exact_mut(head).enumerate() {
            let start = ((image * heads + index) * rows + row) * head;
            moved.copy_from_slice(&values[start..][..head]);
        }
    });
    interleaved(moved, shape)
}
