//! The ops as plain chains of burn's primitives, differentiated by burn: what tests hold the
//! kernels and the nodes of [`super::lean`] against.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Tensor};

use super::{gelu, is_half, silu};
use crate::ops::{Activation, Causal};

/// `f` of x in single precision where x is of a half type, back in the type of x.
fn widened<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    if is_half(dtype) { f(x.cast(DType::F32)).cast(dtype) } else { f(x) }
}

/// (x − μ)/√(σ² + ε) over the last axis.
fn normalized(x: Tensor<3>, eps: f64) -> Tensor<3> {
    widened(x, |x| {
        let centered = x.clone() - x.mean_dim(2);
        let variance = centered.clone().square().mean_dim(2);
        centered / variance.add_scalar(eps).sqrt()
    })
}

/// See [`crate::ops::attention`](fn@crate::ops::attention).
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    causal: Causal,
) -> Tensor<4> {
    let (n_queries, n_keys) = (q.dims()[2], k.dims()[2]);
    let mut scores = q.mul_scalar(scale).matmul(k.swap_dims(2, 3));
    if causal == Causal::Yes {
        let device = scores.device();
        let mask = Tensor::<2, Bool>::tril_mask([n_queries, n_keys], 0, &device);
        scores = scores.mask_fill(mask.unsqueeze::<4>(), f64::NEG_INFINITY);
    }
    widened(scores, |scores| softmax(scores, 3)).matmul(v)
}

/// See [`crate::ops::group_norm`](fn@crate::ops::group_norm).
pub(crate) fn group_norm(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let rows = x.reshape([batch, groups, channels / groups * height * width]);
    let normalized = normalized(rows, eps).reshape([batch, channels, height, width]);
    let shape = [1, channels, 1, 1];
    let y = normalized * gamma.reshape(shape) + beta.reshape(shape);
    match activation {
        Activation::None => y,
        Activation::Silu => silu(y),
    }
}

/// See [`crate::ops::layer_norm`](fn@crate::ops::layer_norm).
pub(crate) fn layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<3> {
    normalized(x, eps) * gamma.unsqueeze() + beta.unsqueeze()
}

/// See [`crate::ops::geglu`].
pub(crate) fn geglu(x: Tensor<3>) -> Tensor<3> {
    let width = x.dims()[2] / 2;
    let value = x.clone().narrow(2, 0, width);
    value * gelu(x.narrow(2, width, width))
}
