//! Attention over positions and text, and the transformer around it.

use burn::tensor::Tensor;

use super::unit::Hidden;
use crate::layer::{Bias, Conv2d, GroupNorm, LayerNorm, Linear, Window};
use crate::ops::{self, Causal};
use crate::source::Builder;
use crate::visit::{Network, Visitor, join, network};

/// Multi-head attention with the names of diffusers.
///
/// Source: diffusers `Attention` with `AttnProcessor2_0`.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}
network!(Attention { to_q: "to_q", to_k: "to_k", to_v: "to_v", to_out: "to_out.0" });

impl Attention {
    /// Queries of width `n_query`, keys and values of width `n_context`; `bias` is that of the three
    /// projections, the output's always has one.
    pub(crate) fn new(builder: &Builder<'_>, widths: [usize; 2], heads: usize, bias: Bias) -> Self {
        let [n_query, n_context] = widths;
        Self {
            to_q: Linear::new(&builder.at("to_q"), n_query, n_query, bias),
            to_k: Linear::new(&builder.at("to_k"), n_context, n_query, bias),
            to_v: Linear::new(&builder.at("to_v"), n_context, n_query, bias),
            to_out: Linear::new(&builder.at("to_out.0"), n_query, n_query, Bias::With),
            heads,
        }
    }

    /// `x`: `[batch, n, width]`, `context`: `[batch, m, context width]`; result as `x`.
    pub(crate) fn forward(&self, x: Tensor<3>, context: Tensor<3>) -> Tensor<3> {
        let query = split_heads(self.to_q.forward(x), self.heads);
        let key = split_heads(self.to_k.forward(context.clone()), self.heads);
        let value = split_heads(self.to_v.forward(context), self.heads);
        let scale = 1.0 / (query.dims()[3] as f64).sqrt();
        self.to_out.forward(join_heads(ops::attention(query, key, value, scale, Causal::No)))
    }
}

/// `[batch, n, heads·d]` to `[batch, heads, n, d]`.
pub(crate) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, n, width] = x.dims();
    x.reshape([batch, n, heads, width / heads]).swap_dims(1, 2)
}

/// `[batch, heads, n, d]` to `[batch, n, heads·d]`.
pub(crate) fn join_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, n, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch, n, heads * width])
}

/// GEGLU and a linear layer. Source: diffusers `FeedForward` with `GEGLU`, inner width 4×.
#[derive(Clone, Debug)]
struct FeedForward {
    gate: Linear,
    out: Linear,
}
network!(FeedForward { gate: "net.0.proj", out: "net.2" });

impl FeedForward {
    fn new(builder: &Builder<'_>, width: usize) -> Self {
        Self {
            gate: Linear::new(&builder.at("net.0.proj"), width, width * 8, Bias::With),
            out: Linear::new(&builder.at("net.2"), width * 4, width, Bias::With),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.out.forward(ops::geglu(self.gate.forward(x)))
    }
}

/// Self-attention, cross-attention and feed-forward, each on a normalised residual branch.
///
/// Source: diffusers `BasicTransformerBlock`.
#[derive(Clone, Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}
network!(BasicTransformerBlock {
    norm1: "norm1",
    attn1: "attn1",
    norm2: "norm2",
    attn2: "attn2",
    norm3: "norm3",
    ff: "ff",
});

impl BasicTransformerBlock {
    fn new(builder: &Builder<'_>, width: usize, heads: usize, context_width: usize) -> Self {
        Self {
            norm1: LayerNorm::new(&builder.at("norm1"), width, 1e-5),
            attn1: Attention::new(&builder.at("attn1"), [width, width], heads, Bias::Without),
            norm2: LayerNorm::new(&builder.at("norm2"), width, 1e-5),
            attn2: Attention::new(
                &builder.at("attn2"),
                [width, context_width],
                heads,
                Bias::Without,
            ),
            norm3: LayerNorm::new(&builder.at("norm3"), width, 1e-5),
            ff: FeedForward::new(&builder.at("ff"), width),
        }
    }

    fn forward(&self, x: Tensor<3>, context: Tensor<3>) -> Tensor<3> {
        let normalised = self.norm1.forward(x.clone());
        let x = self.attn1.forward(normalised.clone(), normalised) + x;
        let x = self.attn2.forward(self.norm2.forward(x.clone()), context) + x;
        self.ff.forward(self.norm3.forward(x.clone())) + x
    }
}

/// The projection into and out of a transformer, by family.
#[derive(Clone, Debug)]
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Network for Projection {
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) {
        match self {
            Self::Linear(layer) => layer.visit(path, visitor),
            Self::Conv(layer) => layer.visit(path, visitor),
        }
    }
}

/// What the transformers of one level share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransformerStyle {
    pub(crate) heads: usize,
    pub(crate) depth: usize,
    pub(crate) context_width: usize,
    pub(crate) groups: usize,
    pub(crate) linear_projection: bool,
}

/// Transformer over the positions of a feature map.
///
/// Source: diffusers `Transformer2DModel` (continuous input). Its group norm has ε = 1e-6 whatever
/// the configuration says.
#[derive(Clone, Debug)]
pub(crate) struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}
network!(Transformer2DModel {
    norm: "norm",
    proj_in: "proj_in",
    transformer_blocks: "transformer_blocks",
    proj_out: "proj_out",
});

impl Transformer2DModel {
    pub(crate) fn new(builder: &Builder<'_>, channels: usize, style: TransformerStyle) -> Self {
        let projection = |name: &str| {
            let builder = builder.at(name);
            if style.linear_projection {
                Projection::Linear(Linear::new(&builder, channels, channels, Bias::With))
            } else {
                Projection::Conv(Conv2d::new(&builder, channels, channels, Window::ONE))
            }
        };
        let block = |index| {
            let builder = builder.at(join("transformer_blocks", &format!("{index}")));
            BasicTransformerBlock::new(&builder, channels, style.heads, style.context_width)
        };
        Self {
            norm: GroupNorm::new(&builder.at("norm"), style.groups, channels, 1e-6),
            proj_in: projection("proj_in"),
            transformer_blocks: (0..style.depth).map(block).collect(),
            proj_out: projection("proj_out"),
        }
    }

    /// How many blocks it has, at least one.
    pub(crate) fn n_blocks(&self) -> usize {
        self.transformer_blocks.len()
    }

    /// Runs one block. A feature map first finds its way in; after the last block the positions
    /// become a map again, to which the one that entered is added: `entered`, or the input itself.
    ///
    /// `context`: `[batch, tokens, context width]`.
    pub(crate) fn forward_block(
        &self,
        index: usize,
        input: Hidden,
        entered: Option<Hidden>,
        context: &Tensor<3>,
    ) -> Hidden {
        let sides = input.sides();
        let is_last = index + 1 == self.transformer_blocks.len();
        let entered = is_last.then(|| entered.unwrap_or_else(|| input.clone()));
        let hidden = match input {
            Hidden::Map(map) => self.positions_on_entry(map),
            Hidden::Positions(positions, _) => positions,
        };
        let hidden = self.transformer_blocks[index].forward(hidden, context.clone());
        match entered {
            Some(entered) => Hidden::Map(self.map_on_leaving(hidden, sides) + entered.into_map()),
            None => Hidden::Positions(hidden, sides),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, height·width, channels]`.
    fn positions_on_entry(&self, x: Tensor<4>) -> Tensor<3> {
        let normalised = self.norm.forward(x);
        match &self.proj_in {
            Projection::Linear(layer) => layer.forward(positions_from_map(normalised)),
            Projection::Conv(layer) => positions_from_map(layer.forward(normalised)),
        }
    }

    /// `[batch, height·width, channels]` to `[batch, channels, height, width]`.
    fn map_on_leaving(&self, hidden: Tensor<3>, sides: [usize; 2]) -> Tensor<4> {
        match &self.proj_out {
            Projection::Linear(layer) => map_from_positions(layer.forward(hidden), sides),
            Projection::Conv(layer) => layer.forward(map_from_positions(hidden, sides)),
        }
    }
}

/// `[batch, channels, height, width]` to `[batch, height·width, channels]`.
pub(crate) fn positions_from_map(x: Tensor<4>) -> Tensor<3> {
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels, height * width]).swap_dims(1, 2)
}

/// `[batch, height·width, channels]` to `[batch, channels, height, width]`.
pub(crate) fn map_from_positions(x: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [batch, _, channels] = x.dims();
    x.swap_dims(1, 2).reshape([batch, channels, height, width])
}
