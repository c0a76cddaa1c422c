//! Ties the kernels to burn: one backend extension for plain tensors and for tracked ones.
//!
//! A tracked op saves what its backward pass reads and no more: an input whose gradient nobody
//! wants costs neither memory nor a product. An optional bias that is absent is a tensor without
//! elements, because an extension takes no optional tensors.

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};

use super::activation::Unary;
use super::adamw::AdamWStep;
use super::columns::Geometry;
use super::linear::LowRankSaved;
use super::{activation, adamw, attention, conv2d, group_norm, layer_norm, linear};

/// The ops that have kernels of their own on the host.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait HostOps: Backend {
    /// See [`super::attention`](fn@super::attention).
    fn host_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: attention::Options,
    ) -> FloatTensor<Self>;
    /// See [`super::group_norm`](fn@super::group_norm).
    fn host_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        options: group_norm::Options,
    ) -> FloatTensor<Self>;
    /// See [`super::layer_norm`](fn@super::layer_norm).
    fn host_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;
    /// An activation of one variable.
    fn host_unary(x: FloatTensor<Self>, unary: Unary) -> FloatTensor<Self>;
    /// See [`super::geglu`].
    fn host_geglu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`super::linear`](fn@super::linear).
    fn host_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    /// See [`super::low_rank_linear`](fn@super::low_rank_linear).
    fn host_low_rank_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    /// See [`super::adamw`](fn@super::adamw); of constants alone.
    fn host_adamw(
        theta: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// Σ x² of rows of a vector; of constants alone.
    fn host_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`super::conv2d`](fn@super::conv2d).
    fn host_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self>;
}

impl HostOps for Flex {
    fn host_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        options: attention::Options,
    ) -> FlexTensor {
        attention::forward([q, k, v], options).0
    }

    fn host_group_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        options: group_norm::Options,
    ) -> FlexTensor {
        group_norm::forward(x, [gamma, beta], options).0
    }

    fn host_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f64) -> FlexTensor {
        layer_norm::forward(x, [gamma, beta], eps).0
    }

    fn host_unary(x: FlexTensor, unary: Unary) -> FlexTensor {
        activation::forward(&x, unary)
    }

    fn host_geglu(x: FlexTensor) -> FlexTensor {
        activation::geglu_forward(&x)
    }

    fn host_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        linear::forward(&x, &weight, &bias)
    }

    fn host_low_rank_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        down: FlexTensor,
        up: FlexTensor,
    ) -> FlexTensor {
        linear::low_rank_forward([&x, &weight, &bias, &down, &up]).0
    }

    fn host_adamw(
        theta: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        gradient: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        adamw::update(&[theta, first, second, gradient], step).into()
    }

    fn host_square_sums(x: FlexTensor) -> FlexTensor {
        adamw::square_sums(&x)
    }

    fn host_conv2d(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        geometry: Geometry,
    ) -> FlexTensor {
        conv2d::forward([&x, &weight, &bias], &geometry)
    }
}

impl<C: CheckpointStrategy> HostOps for Autodiff<Flex, C> {
    fn host_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: attention::Options,
    ) -> FloatTensor<Self> {
        let nodes = [q.node(), k.node(), v.node()];
        let operands = [q, k, v].map(FloatTensor::<Self>::into_primitive);
        let (out, saved) = attention::forward(operands, options);
        match AttentionStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn host_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        options: group_norm::Options,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let affine = [gamma.into_primitive(), beta.into_primitive()];
        let (y, saved) = group_norm::forward(x.into_primitive(), affine, options);
        match GroupNormStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn host_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let affine = [gamma.into_primitive(), beta.into_primitive()];
        let (y, saved) = layer_norm::forward(x.into_primitive(), affine, eps);
        match LayerNormStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn host_unary(x: FloatTensor<Self>, unary: Unary) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let x = x.into_primitive();
        let y = activation::forward(&x, unary);
        match UnaryStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, unary), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn host_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let x = x.into_primitive();
        let y = activation::geglu_forward(&x);
        match GegluStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn host_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x_tracked, weight_tracked] = [&x, &weight].map(FloatTensor::<Self>::is_tracked);
        let [x, weight, bias] = [x, weight, bias].map(FloatTensor::<Self>::into_primitive);
        let y = linear::forward(&x, &weight, &bias);
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish([weight_tracked.then_some(x), x_tracked.then_some(weight)], y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn host_low_rank_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node(), down.node(), up.node()];
        let x_tracked = x.is_tracked();
        let [x, weight, bias, down, up] =
            [x, weight, bias, down, up].map(FloatTensor::<Self>::into_primitive);
        let (y, hidden) = linear::low_rank_forward([&x, &weight, &bias, &down, &up]);
        match LowRankLinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let weight = x_tracked.then_some(weight);
                prep.finish(LowRankSaved { x, weight, down, up, hidden }, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn host_adamw(
        theta: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let tensors = [theta, first, second, gradient].map(FloatTensor::<Self>::into_primitive);
        adamw::update(&tensors, step).map(FloatTensor::<Self>::new).into()
    }

    fn host_square_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(adamw::square_sums(&x.into_primitive()))
    }

    fn host_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x_tracked, weight_tracked] = [&x, &weight].map(FloatTensor::<Self>::is_tracked);
        let [x, weight, bias] = [x, weight, bias].map(FloatTensor::<Self>::into_primitive);
        let y = conv2d::forward([&x, &weight, &bias], &geometry);
        match Conv2dStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let saved = [weight_tracked.then_some(x), x_tracked.then_some(weight)];
                prep.finish((saved, geometry), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Hands each parent that is tracked its gradient.
fn register<const N: usize, S>(
    ops: Ops<S, N>,
    grads: &mut Gradients,
    gradient: impl Fn(&S, FlexTensor) -> [Option<FlexTensor>; N],
) {
    let dy = grads.consume::<Flex>(&ops.node);
    for (parent, gradient) in ops.parents.into_iter().zip(gradient(&ops.state, dy)) {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}

#[derive(Debug)]
struct AttentionStep;

impl Backward<Flex, 3> for AttentionStep {
    type State = attention::Saved;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        register(ops, grads, |saved, dy| attention::backward(saved, &dy).map(Some));
    }
}

#[derive(Debug)]
struct GroupNormStep;

impl Backward<Flex, 3> for GroupNormStep {
    type State = group_norm::Saved;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, gamma, beta] = ops.parents.each_ref().map(Option::is_some);
        register(ops, grads, |saved, dy| {
            group_norm::backward(saved, &dy, [x, gamma || beta]).into_parents()
        });
    }
}

#[derive(Debug)]
struct LayerNormStep;

impl Backward<Flex, 3> for LayerNormStep {
    type State = layer_norm::Saved;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, gamma, beta] = ops.parents.each_ref().map(Option::is_some);
        register(ops, grads, |saved, dy| {
            layer_norm::backward(saved, &dy, [x, gamma || beta]).into_parents()
        });
    }
}

impl group_norm::Gradients {
    /// In the order of the parents: x, γ, β.
    fn into_parents(self) -> [Option<FlexTensor>; 3] {
        let [gamma, beta] = match self.affine {
            Some(affine) => affine.map(Some),
            None => [None, None],
        };
        [self.x, gamma, beta]
    }
}

#[derive(Debug)]
struct UnaryStep;

impl Backward<Flex, 1> for UnaryStep {
    type State = (FlexTensor, Unary);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        register(ops, grads, |(x, unary), dy| [Some(activation::backward(x, &dy, *unary))]);
    }
}

#[derive(Debug)]
struct GegluStep;

impl Backward<Flex, 1> for GegluStep {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        register(ops, grads, |x, dy| [Some(activation::geglu_backward(x, &dy))]);
    }
}

#[derive(Debug)]
struct LinearStep;

impl Backward<Flex, 3> for LinearStep {
    /// x if the weight is tracked, the weight if x is.
    type State = [Option<FlexTensor>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let bias = ops.parents[2].is_some();
        register(ops, grads, |[x, weight], dy| {
            [
                weight.as_ref().map(|weight| linear::input_gradient(&dy, weight)),
                x.as_ref().map(|x| linear::weight_gradient(x, &dy)),
                bias.then(|| linear::bias_gradient(&dy)),
            ]
        });
    }
}

#[derive(Debug)]
struct LowRankLinearStep;

impl Backward<Flex, 5> for LowRankLinearStep {
    type State = LowRankSaved;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [_, weight, bias, ..] = ops.parents.each_ref().map(Option::is_some);
        register(ops, grads, |saved, dy| {
            let (dx, [down, up]) = linear::low_rank_backward(saved, &dy);
            [
                dx,
                weight.then(|| linear::weight_gradient(&saved.x, &dy)),
                bias.then(|| linear::bias_gradient(&dy)),
                Some(down),
                Some(up),
            ]
        });
    }
}

#[derive(Debug)]
struct Conv2dStep;

impl Backward<Flex, 3> for Conv2dStep {
    /// x if the weight is tracked, the weight if x is.
    type State = ([Option<FlexTensor>; 2], Geometry);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let bias = ops.parents[2].is_some();
        register(ops, grads, |([x, weight], geometry), dy| {
            [
                weight.as_ref().map(|weight| conv2d::input_gradient([&dy, weight], geometry)),
                x.as_ref().map(|x| conv2d::weight_gradient([x, &dy], geometry)),
                bias.then(|| conv2d::bias_gradient(&dy, geometry)),
            ]
        });
    }
}
