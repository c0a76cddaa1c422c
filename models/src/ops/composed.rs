//! The ops written in burn's own primitives: differentiable everywhere, run on every device.
//!
//! These bodies serve the devices for which no kernel of ours exists and are the oracle that the
//! kernels are tested against. Statistics and softmax are taken in single precision when the
//! tensors are of a half type.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Bool, DType, Tensor, module};

use super::adamw::ROW;
use super::{Activation, AdamWStep, Causal};

/// `f` of x in single precision where x is of a half type, back in the type of x.
fn widened<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    if matches!(dtype, DType::F16 | DType::BF16) { f(x.cast(DType::F32)).cast(dtype) } else { f(x) }
}

/// (x − μ)/√(σ² + ε) over the last axis.
fn normalized(x: Tensor<3>, eps: f64) -> Tensor<3> {
    widened(x, |x| {
        let centered = x.clone() - x.mean_dim(2);
        let variance = centered.clone().square().mean_dim(2);
        centered / variance.add_scalar(eps).sqrt()
    })
}

/// See [`super::attention`].
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

/// See [`super::group_norm`].
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

/// See [`super::layer_norm`].
pub(crate) fn layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<3> {
    normalized(x, eps) * gamma.unsqueeze() + beta.unsqueeze()
}

/// See [`super::silu`].
pub(crate) fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * sigmoid(x)
}

/// See [`super::gelu`].
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let root = x.clone().mul_scalar(core::f64::consts::FRAC_1_SQRT_2);
    x.mul_scalar(0.5) * root.erf().add_scalar(1.0)
}

/// See [`super::quick_gelu`].
pub(crate) fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * sigmoid(x.mul_scalar(1.702))
}

/// See [`super::geglu`].
pub(crate) fn geglu(x: Tensor<3>) -> Tensor<3> {
    let width = x.dims()[2] / 2;
    let value = x.clone().narrow(2, 0, width);
    value * gelu(x.narrow(2, width, width))
}

/// See [`super::linear`].
pub(crate) fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [batch, tokens, inputs] = x.dims();
    let outputs = weight.dims()[0];
    let product = x
        .reshape([batch * tokens, inputs])
        .matmul(weight.transpose())
        .reshape([batch, tokens, outputs]);
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

/// See [`super::conv2d`].
pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
    module::conv2d(x, weight, bias, options)
}

/// See [`super::adamw`].
pub(crate) fn adamw(
    [theta, first, second]: [Tensor<1>; 3],
    gradient: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let AdamWStep { learning_rate, beta1, beta2, epsilon, weight_decay, .. } = step;
    let [correction1, correction2] = step.corrections();
    let gradient = gradient.mul_scalar(step.shrink);
    let first = first.mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
    let second = second.mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
    let denominator = second.clone().sqrt().div_scalar(correction2.sqrt()).add_scalar(epsilon);
    let change = (first.clone() / denominator).mul_scalar(learning_rate / correction1);
    [theta.mul_scalar(1.0 - learning_rate * weight_decay) - change, first, second]
}

/// See [`super::square_sums`].
pub(crate) fn square_sums(x: Tensor<1>) -> Tensor<1> {
    let n_values = x.dims()[0];
    if n_values == 0 {
        return x;
    }
    let squares = x.square();
    let whole = n_values / ROW;
    let mut sums = Vec::new();
    if whole > 0 {
        let rows: Tensor<2> = squares.clone().slice(0..whole * ROW).reshape([whole, ROW]);
        sums.push(rows.sum_dim(1).squeeze_dim(1));
    }
    if whole * ROW < n_values {
        sums.push(squares.slice(whole * ROW..n_values).sum());
    }
    Tensor::cat(sums, 0)
}
