//! Products with a weight that keep no more than their gradients need, and take the gradient of an
//! adapter's factor in single precision.
//!
//! A network in a half type rounds the factor for the product, but the factor itself, its moments
//! and its gradient are in single precision: rounded, a gradient would lose what is smaller than
//! one part in 256 of it. The operands of that product
//! have few bits each, so that a card that multiplies singles as TF32 drops none of them.

use burn::backend::ops::ModuleOps;
use burn::backend::{Dispatch, DispatchTensor};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, module};

use super::lean::Kept;
use super::wide;

/// What the backward pass of x·Wᵀ needs: x if W is tracked, W if x is.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    x: Option<Tensor<2>>,
    weight: Option<Tensor<2>>,
    /// The type of the weight.
    dtype: DType,
}

/// x·Wᵀ in the type of x, and what the backward pass needs; `tracked` says it of x and W.
pub(crate) fn forward(x: Tensor<2>, weight: Tensor<2>, tracked: [bool; 2]) -> (Tensor<2>, Saved) {
    let y = x.clone().matmul(weight.clone().cast(x.dtype()).transpose());
    let dtype = weight.dtype();
    let [x_tracked, weight_tracked] = tracked;
    (y, Saved { x: weight_tracked.then_some(x), weight: x_tracked.then_some(weight), dtype })
}

impl Kept<2> for Saved {
    fn gradients(self, dy: DispatchTensor, _: [bool; 2]) -> [Option<DispatchTensor>; 2] {
        let dy = Tensor::<2>::from_dispatch(dy);
        let x = self.weight.map(|weight| {
            let weight = weight.cast(dy.dtype());
            dy.clone().matmul(weight).into_dispatch()
        });
        let weight = self.x.map(|x| {
            let gradient = wide(dy).transpose().matmul(wide(x));
            gradient.cast(self.dtype).into_dispatch()
        });
        [x, weight]
    }
}

/// The constants of one convolution.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    /// Step of the window.
    pub(crate) stride: usize,
    /// Zeros on each side.
    pub(crate) padding: usize,
    /// `[outputs]`, not trained.
    pub(crate) bias: Option<Tensor<1>>,
}

impl Convolution {
    fn options(&self) -> ConvOptions<2> {
        ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], 1)
    }
}

/// What the backward pass of a convolution needs: x if the weight is tracked, the weight if x is.
#[derive(Clone, Debug)]
pub(crate) struct SavedConvolution {
    x: Option<Tensor<4>>,
    weight: Option<Tensor<4>>,
    shapes: [[usize; 4]; 2],
    /// The type of the weight.
    dtype: DType,
    options: ConvOptions<2>,
}

/// x ⋆ W + b in the type of x, and what the backward pass needs; `tracked` says it of x and W.
pub(crate) fn convolve(
    x: Tensor<4>,
    weight: Tensor<4>,
    convolution: Convolution,
    tracked: [bool; 2],
) -> (Tensor<4>, SavedConvolution) {
    let options = convolution.options();
    let rounded = weight.clone().cast(x.dtype());
    let y = module::conv2d(x.clone(), rounded, convolution.bias, options.clone());
    let (shapes, dtype) = ([x.dims(), weight.dims()], weight.dtype());
    let [x_tracked, weight_tracked] = tracked;
    let (x, weight) = (weight_tracked.then_some(x), x_tracked.then_some(weight));
    (y, SavedConvolution { x, weight, shapes, dtype, options })
}

impl Kept<2> for SavedConvolution {
    fn gradients(self, dy: DispatchTensor, _: [bool; 2]) -> [Option<DispatchTensor>; 2] {
        let dy = Tensor::<4>::from_dispatch(dy);
        let (device, [x_shape, weight_shape]) = (dy.device(), self.shapes);
        let x = self.weight.map(|weight| {
            // Of x only the shape is read, and below of the weight.
            let x = Tensor::<4>::empty(x_shape, (&device, dy.dtype())).into_dispatch();
            let weight = weight.cast(dy.dtype()).into_dispatch();
            let dy = dy.clone().into_dispatch();
            Dispatch::conv2d_x_backward(x, weight, dy, self.options.clone())
        });
        let weight = self.x.map(|x| {
            let (x, dy) = (wide(x), wide(dy));
            let weight = Tensor::<4>::empty(weight_shape, (&device, x.dtype()));
            let gradient = module::conv2d_weight_backward(x, weight, dy, self.options.clone());
            gradient.cast(self.dtype).into_dispatch()
        });
        [x, weight]
    }
}
