//! The operations of which the networks are made: attention, norms, activations, products.
//!
//! Each is one function over [`Tensor`], differentiable in every floating input. What a network
//! computes with them, and which parameters it owns, is the business of the network.
//!
//! On the host, in single and double precision, they run in kernels of this module; elsewhere, and
//! for large images, they are composed of burn's own (`composed`).
#![expect(
    clippy::inline_always,
    reason = "what is not inlined into `simd::vectorized!` keeps the baseline instructions"
)]

mod activation;
mod adamw;
mod attention;
mod columns;
pub(crate) mod composed;
mod conv2d;
mod element;
mod extension;
pub(crate) mod gemm;
#[cfg(test)]
mod golden;
mod group_norm;
mod lanes;
mod layer_norm;
mod linear;
mod parallel;
mod simd;
#[cfg(test)]
mod tests;
mod winograd;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{DType, Device, Tensor};

use self::activation::Unary;
pub use self::adamw::AdamWStep;
use self::columns::Geometry;
use self::extension::HostOps;
pub use self::parallel::{n_threads, on_threads};

/// Whether a query may attend to the keys after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causal {
    /// Every query sees every key.
    No,
    /// Query i sees the keys 0..=i.
    Yes,
}

/// What follows a norm in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// u·σ(u).
    Silu,
}

/// Whether the kernels of this crate can run on `x`: full or double precision on the host.
fn on_host<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.dtype(), DType::F32 | DType::F64) && is_host(&x.device())
}

/// Whether a type holds less than single precision.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Whether tensors of this device lie in the memory of the processor, where reading them is free.
pub fn is_host(device: &Device) -> bool {
    matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// The processor, for what needs a device but computes nothing.
pub(crate) fn host() -> Device {
    Device::flex()
}

/// The bias, or a tensor without elements that stands for none.
fn or_nothing<const D: usize>(bias: Option<Tensor<1>>, x: &Tensor<D>) -> Tensor<1> {
    bias.unwrap_or_else(|| {
        let device = x.device().without_autodiff();
        Tensor::empty([0], (&device, x.dtype()))
    })
}

/// Scaled dot-product attention: softmax(scale·QKᵀ)·V.
///
/// # Shapes
///
/// - `q`: `[batch, heads, n_queries, head]`
/// - `k`, `v`: `[batch, heads, n_keys, head]`
/// - result: as `q`
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    causal: Causal,
) -> Tensor<4> {
    if !on_host(&q) {
        return composed::lean::attention(q, k, v, scale, causal);
    }
    let options = attention::Options { scale, causal };
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::host_attention(q, k, v, options))
}

/// Group norm, then an activation: γ·(x − μ)/√(σ² + ε) + β over each group of channels.
///
/// # Shapes
///
/// - `x`, result: `[batch, channels, height, width]`
/// - `gamma`, `beta`: `[channels]`; `groups` divides `channels`
pub fn group_norm(
    x: Tensor<4>,
    affine: [Tensor<1>; 2],
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Tensor<4> {
    if !on_host(&x) {
        return composed::lean::group_norm(x, affine, groups, eps, activation);
    }
    let options = group_norm::Options { groups, eps, activation };
    let [gamma, beta] = affine.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::host_group_norm(x.into_dispatch(), gamma, beta, options))
}

/// Layer norm over the last axis: γ·(x − μ)/√(σ² + ε) + β.
///
/// # Shapes
///
/// - `x`, result: `[batch, tokens, width]`
/// - `gamma`, `beta`: `[width]`
pub fn layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<3> {
    if !on_host(&x) {
        return composed::lean::layer_norm(x, gamma, beta, eps);
    }
    let [gamma, beta] = [gamma, beta].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::host_layer_norm(x.into_dispatch(), gamma, beta, eps))
}

/// Sigmoid-weighted linear unit: x·σ(x).
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_host(&x) {
        return composed::silu(x);
    }
    Tensor::from_dispatch(Dispatch::host_unary(x.into_dispatch(), Unary::Silu))
}

/// Gaussian error linear unit, exact: x·Φ(x).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_host(&x) {
        return composed::gelu(x);
    }
    Tensor::from_dispatch(Dispatch::host_unary(x.into_dispatch(), Unary::Gelu))
}

/// The sigmoid approximation that the original CLIP was trained with: x·σ(1.702·x).
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_host(&x) {
        return composed::quick_gelu(x);
    }
    Tensor::from_dispatch(Dispatch::host_unary(x.into_dispatch(), Unary::QuickGelu))
}

/// Gated unit a·gelu(b) where a and b are the halves of the last axis.
///
/// # Shapes
///
/// - `x`: `[batch, tokens, 2·width]`; result: `[batch, tokens, width]`
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    if !on_host(&x) {
        return composed::lean::geglu(x);
    }
    Tensor::from_dispatch(Dispatch::host_geglu(x.into_dispatch()))
}

/// Affine map of the last axis: x·Wᵀ + b.
///
/// Under an x of a half type the weight may be in single precision, as the factors of adapters are:
/// it is rounded for the product, and its gradient is not. The same holds for the factors of
/// [`low_rank_linear`] and the weight of [`conv2d`](fn@conv2d).
///
/// # Shapes
///
/// - `x`: `[batch, tokens, inputs]`; `weight`: `[outputs, inputs]`; `bias`: `[outputs]`
/// - result: `[batch, tokens, outputs]`
pub fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    if !on_host(&x) {
        return composed::linear(x, weight, bias);
    }
    let bias = or_nothing(bias, &x).into_dispatch();
    Tensor::from_dispatch(Dispatch::host_linear(x.into_dispatch(), weight.into_dispatch(), bias))
}

/// An affine map with a low-rank branch beside it: x·Wᵀ + (x·Aᵀ)·Bᵀ + b.
///
/// # Shapes
///
/// - `x`: `[batch, tokens, inputs]`; `weight`: `[outputs, inputs]`; `bias`: `[outputs]`
/// - `down`, A: `[rank, inputs]`; `up`, B: `[outputs, rank]`
/// - result: `[batch, tokens, outputs]`
pub fn low_rank_linear(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    [down, up]: [Tensor<2>; 2],
) -> Tensor<3> {
    if !on_host(&x) {
        let branch = composed::linear(composed::linear(x.clone(), down, None), up, None);
        return composed::linear(x, weight, bias) + branch;
    }
    let bias = or_nothing(bias, &x).into_dispatch();
    let (weight, x) = (weight.into_dispatch(), x.into_dispatch());
    let [down, up] = [down, up].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::host_low_rank_linear(x, weight, bias, down, up))
}

/// θ, m and v after one update of AdamW with the gradient g, all `[n_values]` in f32:
/// θ ← θ·(1 − lr·λ); m, v moving averages of c·g and (c·g)²; θ ← θ − lr/(1 − β₁ᵗ)·m / (√v/√(1 − β₂ᵗ) + ε).
///
/// Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2 with η = 1, as
/// `torch.optim.AdamW`; c is the clip of the norm.
pub fn adamw(
    [theta, first, second]: [Tensor<1>; 3],
    gradient: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    if !on_host(&theta) || theta.dtype() != DType::F32 {
        return composed::adamw([theta, first, second], gradient, step);
    }
    let [theta, first, second] = [theta, first, second].map(Tensor::into_dispatch);
    let (theta, first, second) =
        Dispatch::host_adamw(theta, first, second, gradient.into_dispatch(), step);
    [theta, first, second].map(Tensor::from_dispatch)
}

/// Σ x² of a vector in f32 by rows, in an order that depends on its length alone; their sum is the
/// square of the Euclidean norm.
pub fn square_sums(x: Tensor<1>) -> Tensor<1> {
    if !on_host(&x) || x.dtype() != DType::F32 {
        return composed::square_sums(x);
    }
    Tensor::from_dispatch(Dispatch::host_square_sums(x.into_dispatch()))
}

/// Cross-correlation with a square kernel, zero padding, plus a bias.
///
/// # Shapes
///
/// - `x`: `[batch, inputs, height, width]`; `weight`: `[outputs, inputs, k, k]`; `bias`: `[outputs]`
/// - result: `[batch, outputs, (height + 2·padding − k)/stride + 1, …]`
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    if !on_host(&x) {
        return composed::lean::conv2d(x, weight, bias, stride, padding);
    }
    let geometry = Geometry::new(x.dims(), weight.dims(), stride, padding);
    // The columns of large images are left to burn.
    if !(geometry.small() || geometry.in_tiles()) {
        return composed::conv2d(x, weight, bias, stride, padding);
    }
    let bias = or_nothing(bias, &x).into_dispatch();
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::host_conv2d(x, weight, bias, geometry))
}
