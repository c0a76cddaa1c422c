//! The gated unit a·gelu(b), which keeps its input and nothing else.

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;

use super::lean::Kept;
use super::wide;

/// What the backward pass needs of the forward pass: a and b side by side.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    x: Tensor<3>,
}

impl Saved {
    /// a and b, in single precision at least.
    fn halves(&self) -> [Tensor<3>; 2] {
        let width = self.x.dims()[2] / 2;
        [0, width].map(|start| wide(self.x.clone().narrow(2, start, width)))
    }
}

/// Φ(b), the share of a standard normal distribution below b.
fn below(b: Tensor<3>) -> Tensor<3> {
    b.mul_scalar(core::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5)
}

/// The output and what the backward pass needs; it is rounded once.
pub(crate) fn forward(x: Tensor<3>) -> (Tensor<3>, Saved) {
    let saved = Saved { x };
    let [a, b] = saved.halves();
    let y = a * (b.clone() * below(b));
    (y.cast(saved.x.dtype()), saved)
}

impl Kept<1> for Saved {
    /// da = dy·b·Φ(b), db = dy·a·(Φ(b) + b·φ(b)).
    fn gradients(self, dy: DispatchTensor, _: [bool; 1]) -> [Option<DispatchTensor>; 1] {
        let dy = wide(Tensor::<3>::from_dispatch(dy));
        let [a, b] = self.halves();
        let share = below(b.clone());
        // 1/√(2π)
        let density = b.clone().square().mul_scalar(-0.5).exp().mul_scalar(0.398_942_280_401_432_7);
        let slope = share.clone() + b.clone() * density;
        let da = dy.clone() * (b * share);
        let db = dy * a * slope;
        let dx = Tensor::cat(vec![da, db], 2).cast(self.x.dtype());
        [Some(dx.into_dispatch())]
    }
}
