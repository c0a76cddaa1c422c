//! Timestep embedding.

use burn::tensor::{DType, Tensor, TensorData};

use super::config::Halves;
use crate::layer::{Bias, Linear};
use crate::ops;
use crate::source::Builder;
use crate::visit::network;

/// Sinusoids of positions: `cos` and `sin` of `x·exp(−ln 10000 · i / (width/2 − shift))`.
///
/// # Shapes
///
/// - `values`: `[n]`, timesteps or sizes; result: `[n, width]`
///
/// Source: diffusers `get_timestep_embedding`, which works in f32 whatever the model's dtype.
pub(crate) fn sinusoids(values: Tensor<1>, width: usize, halves: Halves, shift: f64) -> Tensor<2> {
    let half = width / 2;
    let device = values.device();
    let frequencies: Vec<f32> = (0..half)
        .map(|index| (-(10_000f32.ln()) * index as f32 / (half as f32 - shift as f32)).exp())
        .collect();
    let frequencies =
        Tensor::<2>::from_data(TensorData::new(frequencies, [1, half]), (&device, DType::F32));
    let angles = values.unsqueeze_dim::<2>(1).mul(frequencies);
    let (sine, cosine) = (angles.clone().sin(), angles.cos());
    let parts = match halves {
        Halves::CosineFirst => vec![cosine, sine],
        Halves::SineFirst => vec![sine, cosine],
    };
    Tensor::cat(parts, 1)
}

/// Two linear layers with SiLU between. Source: diffusers `TimestepEmbedding`.
#[derive(Clone, Debug)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}
network!(TimestepEmbedding { linear_1: "linear_1", linear_2: "linear_2" });

impl TimestepEmbedding {
    pub(crate) fn new(builder: &Builder<'_>, n_in: usize, n_out: usize) -> Self {
        Self {
            linear_1: Linear::new(&builder.at("linear_1"), n_in, n_out, Bias::With),
            linear_2: Linear::new(&builder.at("linear_2"), n_out, n_out, Bias::With),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward_rows(ops::silu(self.linear_1.forward_rows(x)))
    }
}
