//! The ops written in burn's own primitives, for the devices without kernels of ours.
//!
//! Where burn would keep many tensors of the size of an activation for the backward pass, the op is
//! a node of its own, in [`lean`]; the chains that burn differentiates by itself remain as what
//! tests hold both against. Norms, softmax and gates are taken in single precision when the tensors
//! are of a half type.

mod chunked;
mod gate;
pub(crate) mod lean;
mod norm;
#[cfg(test)]
mod oracle;
mod product;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::oracle::{attention, geglu, group_norm, layer_norm};

use burn::tensor::activation::sigmoid;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, module};

use super::adamw::ROW;
use super::{AdamWStep, is_half};

/// x in single precision where it is of a half type.
fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_half(x.dtype()) { x.cast(DType::F32) } else { x }
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

/// See [`super::linear`]. A weight of another type than x is the factor of an adapter, see
/// [`lean::product`].
pub(crate) fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [batch, tokens, inputs] = x.dims();
    let outputs = weight.dims()[0];
    let rows = x.reshape([batch * tokens, inputs]);
    let product = if weight.dtype() == rows.dtype() {
        rows.matmul(weight.transpose())
    } else {
        lean::product(rows, weight)
    };
    let product = product.reshape([batch, tokens, outputs]);
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
