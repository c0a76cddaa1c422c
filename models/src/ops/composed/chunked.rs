//! Attention whose scores exist for some images and queries at a time, forwards and backwards.
//!
//! What stays between the passes is queries, keys, values, the output, and of every query the
//! logarithm of its sum of exponentials; the backward pass makes the probabilities again from it,
//! chunk by chunk. Products of which nothing cancels take their operands in the type of the
//! tensors; scores, and dO·Vᵀ, from which nearly as much is subtracted, are in single precision at
//! least: a score of ten, rounded to bf16, moves its probability by up to three per cent.
//!
//! burn's own flash kernel does not serve here. It gives no sums of exponentials for the backward
//! pass; it knows no scale but 1/√d, and no numbers of queries or sizes of heads but those that its
//! tiles divide, which the heads of 40 of Stable Diffusion 1.5 are not; and where it cannot run, or
//! tuning prefers another way, what runs instead stores every score.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, algorithm 4 for the gradients.

use core::ops::Range;

use burn::backend::DispatchTensor;
use burn::tensor::{Bool, Tensor};

use super::lean::Kept;
use super::wide;
use crate::ops::Causal;

/// Scores that a call holds at once: 256 MiB in single precision, of which a backward pass has
/// about four. A picture of 512 px, with the 8 · 4,096² scores of Stable Diffusion 1.5, is two chunks.
pub(super) const SCORES: usize = 1 << 26;

/// The constants of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Factor of the scores.
    pub(crate) scale: f64,
    /// Whether later keys are hidden.
    pub(crate) causal: Causal,
    /// Scores that may exist at once; those of one query of one image do in any case.
    pub(crate) scores: usize,
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    out: Tensor<4>,
    /// ln Σ exp(score) of every query, `[batch, heads, queries, 1]`, in f32 at least.
    normalizers: Tensor<4>,
    options: Options,
}

/// How a call is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Images of a chunk.
    pub(super) images: usize,
    /// Queries of a chunk, of every head of each of its images.
    pub(super) queries: usize,
}

impl Chunk {
    /// As many whole images as `scores` allows, or as many queries of one; `sizes` are
    /// `[batch, heads, queries, keys]`.
    pub(super) fn new(sizes: [usize; 4], scores: usize) -> Self {
        let [batch, heads, queries, keys] = sizes;
        let of_query = (heads * keys).max(1);
        let queries = (scores / of_query).clamp(1, queries.max(1));
        let images = (scores / (of_query * queries)).clamp(1, batch.max(1));
        Self { images, queries }
    }

    fn of(q: &Tensor<4>, k: &Tensor<4>, options: Options) -> Self {
        let [batch, heads, queries, _] = q.dims();
        Self::new([batch, heads, queries, k.dims()[2]], options.scores)
    }
}

/// `0..length` in pieces of `size`, the last of which may be smaller.
fn pieces(length: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(size).map(move |start| start..length.min(start + size))
}

/// A range of an axis.
fn part(x: &Tensor<4>, axis: usize, range: &Range<usize>) -> Tensor<4> {
    if range.len() == x.dims()[axis] {
        return x.clone();
    }
    x.clone().narrow(axis, range.start, range.len())
}

/// Parts of an axis, in order.
fn joined(mut parts: Vec<Tensor<4>>, axis: usize) -> Tensor<4> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, axis) }
}

/// Xᵀ of every head, in single precision at least.
fn turned(x: Tensor<4>) -> Tensor<4> {
    wide(x).swap_dims(2, 3)
}

/// Adds a part to a sum in single precision at least.
fn add(sum: &mut Option<Tensor<4>>, part: Tensor<4>) {
    let part = wide(part);
    *sum = Some(match sum.take() {
        Some(sum) => sum + part,
        None => part,
    });
}

/// scale·Q·Kᵀ, and −∞ where a query does not see a key.
///
/// # Shapes
///
/// - `q`: `[images, heads, rows, head]`, the queries from number `first` on
/// - `keys`, Kᵀ: `[images, heads, head, keys]`
/// - result: `[images, heads, rows, keys]`
fn scores(q: Tensor<4>, keys: Tensor<4>, first: usize, options: Options) -> Tensor<4> {
    let scores = wide(q).mul_scalar(options.scale).matmul(keys);
    if options.causal == Causal::No {
        return scores;
    }
    let [_, _, rows, columns] = scores.dims();
    let device = scores.device();
    let mask = Tensor::<2, Bool>::tril_mask([rows, columns], first as i64, &device);
    scores.mask_fill(mask.unsqueeze::<4>(), f64::NEG_INFINITY)
}

/// ln Σ exp(score) of every query; each sees one key at least.
fn normalizers_of(scores: &Tensor<4>) -> Tensor<4> {
    let most = scores.clone().max_dim(3);
    let total = (scores.clone() - most.clone()).exp().sum_dim(3);
    total.log() + most
}

/// The output and what the backward pass needs.
pub(crate) fn forward([q, k, v]: [Tensor<4>; 3], options: Options) -> (Tensor<4>, Saved) {
    let (chunk, dtype) = (Chunk::of(&q, &k, options), q.dtype());
    let (mut out, mut normalizers) = (Vec::new(), Vec::new());
    for images in pieces(q.dims()[0], chunk.images) {
        let [q, k, v] = [&q, &k, &v].map(|x| part(x, 0, &images));
        let keys = turned(k);
        let (mut rows_out, mut rows_normalizers) = (Vec::new(), Vec::new());
        for rows in pieces(q.dims()[2], chunk.queries) {
            let scores = scores(part(&q, 2, &rows), keys.clone(), rows.start, options);
            let normalizers = normalizers_of(&scores);
            let p = (scores - normalizers.clone()).exp();
            rows_out.push(p.cast(dtype).matmul(v.clone()));
            rows_normalizers.push(normalizers);
        }
        out.push(joined(rows_out, 2));
        normalizers.push(joined(rows_normalizers, 2));
    }
    let (out, normalizers) = (joined(out, 0), joined(normalizers, 0));
    (out.clone(), Saved { q, k, v, out, normalizers, options })
}

impl Saved {
    /// The gradients of some images, with `size` queries at a time:
    /// `dV = PᵀdO, dS = scale·P∘(dO·Vᵀ − rowsum(dO∘O)), dQ = dS·K, dK = dSᵀQ`.
    fn of_images(
        &self,
        images: &Range<usize>,
        size: usize,
        dy: &Tensor<4>,
        wanted: [bool; 3],
    ) -> [Option<Tensor<4>>; 3] {
        let dtype = dy.dtype();
        let [q, k, v, out, normalizers, dy] =
            [&self.q, &self.k, &self.v, &self.out, &self.normalizers, dy]
                .map(|x| part(x, 0, images));
        let (keys, values) = (turned(k.clone()), turned(v));
        let (mut dq, mut dk, mut dv) = (Vec::new(), None, None);
        for rows in pieces(q.dims()[2], size) {
            let [q, out, normalizers, dy] =
                [&q, &out, &normalizers, &dy].map(|x| part(x, 2, &rows));
            let scores = scores(q.clone(), keys.clone(), rows.start, self.options);
            let p = (scores - normalizers).exp();
            if wanted[2] {
                add(&mut dv, p.clone().cast(dtype).swap_dims(2, 3).matmul(dy.clone()));
            }
            if !wanted[0] && !wanted[1] {
                continue;
            }
            let slopes = wide(dy.clone()).matmul(values.clone());
            let dots = (wide(dy) * wide(out)).sum_dim(3);
            let ds = (p * (slopes - dots)).mul_scalar(self.options.scale).cast(dtype);
            if wanted[1] {
                add(&mut dk, ds.clone().swap_dims(2, 3).matmul(q));
            }
            if wanted[0] {
                dq.push(ds.matmul(k.clone()));
            }
        }
        let dq = wanted[0].then(|| joined(dq, 2));
        [dq, dk.map(|dk| dk.cast(dtype)), dv.map(|dv| dv.cast(dtype))]
    }
}

impl Kept<3> for Saved {
    fn gradients(self, dy: DispatchTensor, wanted: [bool; 3]) -> [Option<DispatchTensor>; 3] {
        let dy = Tensor::<4>::from_dispatch(dy);
        let chunk = Chunk::of(&self.q, &self.k, self.options);
        let mut parts: [Vec<Tensor<4>>; 3] = Default::default();
        for images in pieces(self.q.dims()[0], chunk.images) {
            let found = self.of_images(&images, chunk.queries, &dy, wanted);
            for (parts, found) in parts.iter_mut().zip(found) {
                parts.extend(found);
            }
        }
        parts.map(|parts| (!parts.is_empty()).then(|| joined(parts, 0).into_dispatch()))
    }
}
