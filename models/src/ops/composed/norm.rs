//! Norms that keep their input and two numbers of every block, forwards and backwards.
//!
//! x is seen as `[batch, blocks, members, area]`, and each block of `members · area` values is
//! normalised by itself: of a group norm the groups, with their channels and pixels; of a layer
//! norm the tokens. All of it is computed in single precision at least and rounded once.

use burn::backend::DispatchTensor;
use burn::tensor::activation::sigmoid;
use burn::tensor::{DType, Tensor};

use super::lean::Kept;
use super::wide;
use crate::ops::Activation;

/// The constants of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How γ and β lie along the axes of x: 1 along those on which they do not depend.
    pub(crate) affine: [usize; 4],
    /// What is added to the variance.
    pub(crate) eps: f64,
    /// What follows the norm.
    pub(crate) activation: Activation,
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    /// μ of every block, `[batch, blocks, 1, 1]`, in f32 at least.
    mean: Tensor<4>,
    /// 1/√(σ² + ε), as `mean`.
    inverse: Tensor<4>,
    options: Options,
}

/// The mean of every block, `[batch, blocks, 1, 1]`.
fn block_mean(x: Tensor<4>) -> Tensor<4> {
    let [batch, blocks, members, area] = x.dims();
    let rows: Tensor<3> = x.reshape([batch, blocks, members * area]);
    rows.mean_dim(2).reshape([batch, blocks, 1, 1])
}

/// The output and what the backward pass needs.
pub(crate) fn forward(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    options: Options,
) -> (Tensor<4>, Saved) {
    let values = wide(x.clone());
    let mean = block_mean(values.clone());
    let centered = values - mean.clone();
    let variance = block_mean(centered.clone().square());
    let inverse = variance.add_scalar(options.eps).sqrt().recip();
    let saved = Saved { x, gamma, beta, mean, inverse, options };
    let u = saved.with_affine(centered * saved.inverse.clone());
    let y = match options.activation {
        Activation::None => u,
        Activation::Silu => u.clone() * sigmoid(u),
    };
    (y.cast(saved.x.dtype()), saved)
}

impl Saved {
    /// γ, where the axes of x want it.
    fn gamma(&self) -> Tensor<4> {
        wide(self.gamma.clone()).reshape(self.options.affine)
    }

    /// γ·x̂ + β.
    fn with_affine(&self, normalized: Tensor<4>) -> Tensor<4> {
        normalized * self.gamma() + wide(self.beta.clone()).reshape(self.options.affine)
    }

    /// dy before the activation, du.
    fn through_activation(&self, dy: Tensor<4>, normalized: &Tensor<4>) -> Tensor<4> {
        if self.options.activation == Activation::None {
            return dy;
        }
        let u = self.with_affine(normalized.clone());
        let s = sigmoid(u.clone());
        // σ(u)·(1 + u·(1 − σ(u)))
        let rest = s.clone().mul_scalar(-1.0).add_scalar(1.0);
        dy * s * (u * rest).add_scalar(1.0)
    }

    /// The sum over all axes on which γ and β do not depend.
    fn total(&self, x: Tensor<4>, dtype: DType) -> DispatchTensor {
        let affine = self.options.affine;
        let axes: Vec<usize> = (0..4).filter(|&axis| affine[axis] == 1).collect();
        let total: Tensor<1> = x.sum_dims(&axes).reshape([affine.iter().product::<usize>()]);
        total.cast(dtype).into_dispatch()
    }
}

impl Kept<3> for Saved {
    /// dx = (g − mean(g) − x̂·mean(g∘x̂))/√(σ² + ε) with g = γ·du; dγ = Σ du·x̂, dβ = Σ du.
    fn gradients(self, dy: DispatchTensor, wanted: [bool; 3]) -> [Option<DispatchTensor>; 3] {
        let normalized = (wide(self.x.clone()) - self.mean.clone()) * self.inverse.clone();
        let dy = wide(Tensor::<4>::from_dispatch(dy));
        let du = self.through_activation(dy, &normalized);
        let gamma =
            wanted[1].then(|| self.total(du.clone() * normalized.clone(), self.gamma.dtype()));
        let beta = wanted[2].then(|| self.total(du.clone(), self.beta.dtype()));
        let x = wanted[0].then(|| {
            let g = du * self.gamma();
            let mean = block_mean(g.clone());
            let mean_product = block_mean(g.clone() * normalized.clone());
            let dx = (g - mean - normalized * mean_product) * self.inverse.clone();
            dx.cast(self.x.dtype()).into_dispatch()
        });
        [x, gamma, beta]
    }
}
