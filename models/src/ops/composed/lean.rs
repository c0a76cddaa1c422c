//! Ops that keep for the backward pass what it needs and no more, on every backend.
//!
//! Left to itself, burn keeps the operands of every primitive: of an attention several matrices of
//! scores, of a norm half a dozen tensors of the size of its input, of a convolution its input even
//! if the weight is frozen. Here an op is a single node. Its forward pass and its gradients are
//! written once, in plain tensors, and a node hands both to whichever backend the tensors lie on.
//!
//! The host has kernels of its own for single and double precision; in half types it comes here.

use core::fmt::Debug;
use core::marker::PhantomData;

#[cfg(feature = "cuda")]
use burn::backend::Cube;
use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchKindConversion, DispatchTensor, Flex,
    backend_extension,
};
use burn::tensor::Tensor;

use super::{chunked, gate, norm, product};
use crate::ops::{Activation, Causal};

/// The ops that are nodes of their own.
#[backend_extension(Flex, Cube: cfg(feature = "cuda"), Autodiff)]
pub(crate) trait LeanOps: Backend {
    /// See [`chunked`].
    fn lean_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: chunked::Options,
    ) -> FloatTensor<Self>;
    /// See [`norm`].
    fn lean_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        options: norm::Options,
    ) -> FloatTensor<Self>;
    /// See [`gate`].
    fn lean_gate(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`product`].
    fn lean_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`product`].
    fn lean_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        convolution: product::Convolution,
    ) -> FloatTensor<Self>;
}

/// The ops of a backend that tracks nothing: what would be kept is dropped.
macro_rules! plain {
    ($backend:ty) => {
        impl LeanOps for $backend {
            fn lean_attention(
                q: FloatTensor<Self>,
                k: FloatTensor<Self>,
                v: FloatTensor<Self>,
                options: chunked::Options,
            ) -> FloatTensor<Self> {
                let operands = [q, k, v].map(lifted::<Self, 4>);
                lowered::<Self>(chunked::forward(operands, options).0.into_dispatch())
            }

            fn lean_norm(
                x: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                options: norm::Options,
            ) -> FloatTensor<Self> {
                let affine = [gamma, beta].map(lifted::<Self, 1>);
                let (y, _) = norm::forward(lifted::<Self, 4>(x), affine, options);
                lowered::<Self>(y.into_dispatch())
            }

            fn lean_gate(x: FloatTensor<Self>) -> FloatTensor<Self> {
                lowered::<Self>(gate::forward(lifted::<Self, 3>(x)).0.into_dispatch())
            }

            fn lean_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
                let [x, weight] = [x, weight].map(lifted::<Self, 2>);
                lowered::<Self>(product::forward(x, weight, [false; 2]).0.into_dispatch())
            }

            fn lean_convolution(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                convolution: product::Convolution,
            ) -> FloatTensor<Self> {
                let [x, weight] = [x, weight].map(lifted::<Self, 4>);
                let (y, _) = product::convolve(x, weight, convolution, [false; 2]);
                lowered::<Self>(y.into_dispatch())
            }
        }
    };
}

plain!(Flex);
#[cfg(feature = "cuda")]
plain!(Cube);

impl<B, C> LeanOps for Autodiff<B, C>
where
    B: Backend,
    C: CheckpointStrategy,
    DispatchTensor: DispatchKindConversion<B>,
{
    fn lean_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: chunked::Options,
    ) -> FloatTensor<Self> {
        let guards = [q.node(), k.node(), v.node()];
        let operands = [q, k, v].map(|x| lifted::<B, 4>(x.into_primitive()));
        let (out, saved) = chunked::forward(operands, options);
        node::<B, C, _, 3>(guards, out.into_dispatch(), saved)
    }

    fn lean_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        options: norm::Options,
    ) -> FloatTensor<Self> {
        let guards = [x.node(), gamma.node(), beta.node()];
        let affine = [gamma, beta].map(|x| lifted::<B, 1>(x.into_primitive()));
        let (y, saved) = norm::forward(lifted::<B, 4>(x.into_primitive()), affine, options);
        node::<B, C, _, 3>(guards, y.into_dispatch(), saved)
    }

    fn lean_gate(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let guards = [x.node()];
        let (y, saved) = gate::forward(lifted::<B, 3>(x.into_primitive()));
        node::<B, C, _, 1>(guards, y.into_dispatch(), saved)
    }

    fn lean_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let guards = [x.node(), weight.node()];
        let tracked = [x.is_tracked(), weight.is_tracked()];
        let [x, weight] = [x, weight].map(|x| lifted::<B, 2>(x.into_primitive()));
        let (y, saved) = product::forward(x, weight, tracked);
        node::<B, C, _, 2>(guards, y.into_dispatch(), saved)
    }

    fn lean_convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        convolution: product::Convolution,
    ) -> FloatTensor<Self> {
        let guards = [x.node(), weight.node()];
        let tracked = [x.is_tracked(), weight.is_tracked()];
        let [x, weight] = [x, weight].map(|x| lifted::<B, 4>(x.into_primitive()));
        let (y, saved) = product::convolve(x, weight, convolution, tracked);
        node::<B, C, _, 2>(guards, y.into_dispatch(), saved)
    }
}

/// What a node keeps between the passes.
pub(super) trait Kept<const N: usize>: Clone + Debug + Send + 'static {
    /// The gradients of the inputs in their order, from that of the output: at least those that are
    /// `wanted`.
    fn gradients(self, dy: DispatchTensor, wanted: [bool; N]) -> [Option<DispatchTensor>; N];
}

/// The step back through an op that keeps `K`.
#[derive(Debug)]
struct Step<K>(PhantomData<K>);

impl<B, K, const N: usize> Backward<B, N> for Step<K>
where
    B: Backend,
    K: Kept<N>,
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = K;

    fn backward(self, ops: Ops<K, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Ops { parents, node, state } = ops;
        let dy = dispatched::<B>(grads.consume::<B>(&node));
        let wanted = parents.each_ref().map(Option::is_some);
        for (parent, gradient) in parents.into_iter().zip(state.gradients(dy, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, lowered::<B>(gradient));
            }
        }
    }
}

/// The output of an op, tied to its inputs if one of them is tracked.
fn node<B, C, K, const N: usize>(
    guards: [NodeGuard; N],
    y: DispatchTensor,
    kept: K,
) -> FloatTensor<Autodiff<B, C>>
where
    B: Backend,
    C: CheckpointStrategy,
    K: Kept<N>,
    DispatchTensor: DispatchKindConversion<B>,
{
    let y = lowered::<B>(y);
    let step = Step::<K>(PhantomData);
    match <Step<K> as Backward<B, N>>::prepare::<C>(step, guards).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(kept, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

/// A tensor of a backend as one that finds its backend by itself.
fn dispatched<B: Backend>(tensor: FloatTensor<B>) -> DispatchTensor
where
    DispatchTensor: DispatchKindConversion<B>,
{
    <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(tensor))
}

/// A tensor of a backend, with operations.
fn lifted<B: Backend, const D: usize>(tensor: FloatTensor<B>) -> Tensor<D>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    Tensor::from_dispatch(dispatched::<B>(tensor))
}

/// The way back from [`lifted`]: what is computed from tensors of a backend lies on it.
fn lowered<B: Backend>(tensor: DispatchTensor) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor)
        .unwrap_or_else(|found| unreachable!("{found}"))
        .float()
}

/// See [`crate::ops::attention`](fn@crate::ops::attention).
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    causal: Causal,
) -> Tensor<4> {
    let options = chunked::Options { scale, causal, scores: chunked::SCORES };
    attention_in_chunks([q, k, v], options)
}

/// Attention with chunks of a size of the caller's.
pub(super) fn attention_in_chunks(
    operands: [Tensor<4>; 3],
    options: chunked::Options,
) -> Tensor<4> {
    let [q, k, v] = operands.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::lean_attention(q, k, v, options))
}

/// See [`crate::ops::group_norm`](fn@crate::ops::group_norm).
pub(crate) fn group_norm(
    x: Tensor<4>,
    affine: [Tensor<1>; 2],
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Tensor<4> {
    let shape = x.dims();
    let [batch, channels, height, width] = shape;
    let members = channels / groups;
    let blocks = x.reshape([batch, groups, members, height * width]);
    let options = norm::Options { affine: [1, groups, members, 1], eps, activation };
    normalized(blocks, affine, options).reshape(shape)
}

/// See [`crate::ops::layer_norm`](fn@crate::ops::layer_norm).
pub(crate) fn layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<3> {
    let shape = x.dims();
    let [batch, tokens, width] = shape;
    let blocks = x.reshape([batch, tokens, 1, width]);
    let options = norm::Options { affine: [1, 1, 1, width], eps, activation: Activation::None };
    normalized(blocks, [gamma, beta], options).reshape(shape)
}

fn normalized(x: Tensor<4>, affine: [Tensor<1>; 2], options: norm::Options) -> Tensor<4> {
    let [gamma, beta] = affine.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::lean_norm(x.into_dispatch(), gamma, beta, options))
}

/// See [`crate::ops::geglu`].
pub(crate) fn geglu(x: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::lean_gate(x.into_dispatch()))
}

/// x·Wᵀ in the type of x, whatever the type of W, which is that of its gradient.
///
/// # Shapes
///
/// - `x`: `[rows, inputs]`; `weight`: `[outputs, inputs]`; result: `[rows, outputs]`
pub(crate) fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::lean_product(x.into_dispatch(), weight.into_dispatch()))
}

/// See [`crate::ops::conv2d`](fn@crate::ops::conv2d). A weight of another type than x is the factor
/// of an adapter. Where weight or bias are trained as they are, their gradients need what burn
/// keeps, and burn takes them.
pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let is_factor = weight.dtype() != x.dtype();
    let is_trained =
        bias.as_ref().is_some_and(Tensor::is_tracked) || (!is_factor && weight.is_tracked());
    if is_trained || !(x.is_tracked() || weight.is_tracked()) {
        let weight = weight.cast(x.dtype());
        return super::conv2d(x, weight, bias, stride, padding);
    }
    let convolution = product::Convolution { stride, padding, bias: bias.map(Tensor::inner) };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::lean_convolution(x, weight, convolution))
}
