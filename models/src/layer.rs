//! The layers all networks are made of, each with room for adapters.

use burn::tensor::{Int, Tensor};

use crate::adapter::{Dropout, LowRank};
use crate::ops::{self, Activation, is_half};
use crate::source::{Builder, Initial};
use crate::visit::{Network, Visitor, join, network};

/// A and dose·(α/r)·B for the products with `x`.
///
/// Under an `x` of a half type they stay in single precision: the products round them, and hand
/// them gradients that are not rounded.
fn factors<const D: usize, const E: usize>(adapter: &LowRank<D>, x: &Tensor<E>) -> [Tensor<D>; 2] {
    if is_half(x.dtype()) {
        let up = adapter.up.clone().mul_scalar(adapter.scale * adapter.dose);
        return [adapter.down.clone(), up];
    }
    [adapter.down_for(x), adapter.scaled_up_for(x)]
}

/// `y = x·Wᵀ + b`, plus `dose·(α/r)·(x·Aᵀ)·Bᵀ` for each attached adapter.
///
/// Source: `torch.nn.Linear`; adapters as `peft.tuners.lora.Linear`, which equals the merged form.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// Adapters in the order in which they were attached.
    pub adapters: Vec<LowRank<2>>,
}

/// Whether a layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It does.
    With,
    /// It does not.
    Without,
}

impl Linear {
    /// Takes `weight` `[n_out, n_in]` and, if asked for, `bias` from the builder.
    pub fn new(builder: &Builder<'_>, n_in: usize, n_out: usize, bias: Bias) -> Self {
        let bound = 1.0 / (n_in as f64).sqrt();
        Self {
            weight: builder.tensor("weight", [n_out, n_in], Initial::Uniform(bound)),
            bias: (bias == Bias::With)
                .then(|| builder.tensor("bias", [n_out], Initial::Uniform(bound))),
            adapters: Vec::new(),
        }
    }

    /// `[batch, tokens, in]` to `[batch, tokens, out]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        if self.adapters.is_empty() {
            return ops::linear(x, self.weight.clone(), self.bias.clone());
        }
        let mut active = self.adapters.iter().filter(|adapter| !adapter.is_off());
        let alone = |adapter: &&LowRank<2>| adapter.dropout.is_none();
        let mut y = match active.clone().next().filter(alone) {
            Some(adapter) => {
                active.next();
                let (weight, bias) = (self.weight.clone(), self.bias.clone());
                ops::low_rank_linear(x.clone(), weight, bias, factors(adapter, &x))
            }
            None => ops::linear(x.clone(), self.weight.clone(), self.bias.clone()),
        };
        for adapter in active {
            let [down, up] = factors(adapter, &x);
            let hidden =
                Dropout::apply(adapter.dropout.as_ref(), ops::linear(x.clone(), down, None));
            y = y + ops::linear(hidden, up, None);
        }
        y
    }

    /// `[batch, in]` to `[batch, out]`.
    pub fn forward_rows(&self, x: Tensor<2>) -> Tensor<2> {
        self.forward(x.unsqueeze_dim(1)).squeeze_dim(1)
    }
}

impl Network for Linear {
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) {
        visitor.linear(path, self);
        self.weight.visit(&join(path, "weight"), visitor);
        self.bias.visit(&join(path, "bias"), visitor);
    }
}

/// A two-dimensional convolution with equal padding on all sides.
///
/// Source: `torch.nn.Conv2d`; its adapters are a convolution of the same kernel to `r` channels and
/// a 1×1 convolution back, as `peft.tuners.lora.Conv2d`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[out, in, kernel, kernel]`.
    pub weight: Tensor<4>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// Step of the window.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
    /// Adapters in the order in which they were attached.
    pub adapters: Vec<LowRank<4>>,
}

/// Geometry of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Side of the kernel.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
}

impl Window {
    /// 3×3, stride 1, same size.
    pub const THREE: Self = Self { kernel: 3, stride: 1, padding: 1 };
    /// 1×1.
    pub const ONE: Self = Self { kernel: 1, stride: 1, padding: 0 };
}

impl Conv2d {
    /// Takes `weight` `[n_out, n_in, k, k]` and `bias` from the builder.
    pub fn new(builder: &Builder<'_>, n_in: usize, n_out: usize, window: Window) -> Self {
        Self::with_bias(builder, [n_in, n_out], window, Bias::With)
    }

    /// As [`Conv2d::new`]; `channels` is `[in, out]`.
    pub fn with_bias(
        builder: &Builder<'_>,
        channels: [usize; 2],
        window: Window,
        bias: Bias,
    ) -> Self {
        let [n_in, n_out] = channels;
        let bound = 1.0 / ((n_in * window.kernel * window.kernel) as f64).sqrt();
        let shape = [n_out, n_in, window.kernel, window.kernel];
        Self {
            weight: builder.tensor("weight", shape, Initial::Uniform(bound)),
            bias: (bias == Bias::With)
                .then(|| builder.tensor("bias", [n_out], Initial::Uniform(bound))),
            stride: window.stride,
            padding: window.padding,
            adapters: Vec::new(),
        }
    }

    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if self.adapters.is_empty() {
            return ops::conv2d(
                x,
                self.weight.clone(),
                self.bias.clone(),
                self.stride,
                self.padding,
            );
        }
        let mut y = ops::conv2d(
            x.clone(),
            self.weight.clone(),
            self.bias.clone(),
            self.stride,
            self.padding,
        );
        for adapter in self.adapters.iter().filter(|adapter| !adapter.is_off()) {
            let [down, up] = factors(adapter, &x);
            let hidden = ops::conv2d(x.clone(), down, None, self.stride, self.padding);
            let hidden = Dropout::apply(adapter.dropout.as_ref(), hidden);
            y = y + ops::conv2d(hidden, up, None, 1, 0);
        }
        y
    }
}

impl Network for Conv2d {
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) {
        visitor.conv2d(path, self);
        self.weight.visit(&join(path, "weight"), visitor);
        self.bias.visit(&join(path, "bias"), visitor);
    }
}

/// Normalises groups of channels. Source: `torch.nn.GroupNorm`.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
}
network!(GroupNorm { weight: "weight", bias: "bias" });

impl GroupNorm {
    /// Takes `weight` and `bias` `[channels]` from the builder.
    pub fn new(builder: &Builder<'_>, groups: usize, channels: usize, eps: f64) -> Self {
        Self {
            weight: builder.tensor("weight", [channels], Initial::Ones),
            bias: builder.tensor("bias", [channels], Initial::Zeros),
            groups,
            eps,
        }
    }

    /// `[batch, channels, height, width]`, normalised.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::group_norm(
            x,
            [self.weight.clone(), self.bias.clone()],
            self.groups,
            self.eps,
            Activation::None,
        )
    }

    /// Normalised, then x·sigmoid(x).
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        ops::group_norm(
            x,
            [self.weight.clone(), self.bias.clone()],
            self.groups,
            self.eps,
            Activation::Silu,
        )
    }
}

/// Normalises the last axis. Source: `torch.nn.LayerNorm`.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
}
network!(LayerNorm { weight: "weight", bias: "bias" });

impl LayerNorm {
    /// Takes `weight` and `bias` `[width]` from the builder.
    pub fn new(builder: &Builder<'_>, width: usize, eps: f64) -> Self {
        Self {
            weight: builder.tensor("weight", [width], Initial::Ones),
            bias: builder.tensor("bias", [width], Initial::Zeros),
            eps,
        }
    }

    /// `[batch, tokens, width]`, normalised.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::layer_norm(x, self.weight.clone(), self.bias.clone(), self.eps)
    }
}

/// A table of vectors. Source: `torch.nn.Embedding`.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[entries, width]`.
    pub weight: Tensor<2>,
}
network!(Embedding { weight: "weight" });

impl Embedding {
    /// Takes `weight` `[entries, width]`; drawn with deviation 0.02, as CLIP does.
    pub fn new(builder: &Builder<'_>, entries: usize, width: usize) -> Self {
        Self { weight: builder.tensor("weight", [entries, width], Initial::Normal(0.02)) }
    }

    /// `[batch, tokens]` indices below `entries` to `[batch, tokens, width]`.
    pub fn forward(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        burn::tensor::module::embedding(self.weight.clone(), indices)
    }
}
