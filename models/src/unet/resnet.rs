//! Residual blocks and the layers that change resolution; shared with the VAE.

use burn::tensor::Tensor;

use crate::layer::{Bias, Conv2d, GroupNorm, Linear, Window};
use crate::source::Builder;
use crate::visit::network;

/// Two normalised convolutions around a shortcut, with an optional per-channel shift from the
/// timestep. Source: diffusers `ResnetBlock2D`.
#[derive(Clone, Debug)]
pub(crate) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}
network!(ResnetBlock2D {
    norm1: "norm1",
    conv1: "conv1",
    time_emb_proj: "time_emb_proj",
    norm2: "norm2",
    conv2: "conv2",
    conv_shortcut: "conv_shortcut",
});

/// What all residual blocks of a network share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetStyle {
    /// Groups of the norms.
    pub(crate) groups: usize,
    /// ε of the norms.
    pub(crate) eps: f64,
    /// Width of the timestep embedding; `None` in a VAE.
    pub(crate) time_width: Option<usize>,
}

impl ResnetBlock2D {
    pub(crate) fn new(
        builder: &Builder<'_>,
        n_in: usize,
        n_out: usize,
        style: ResnetStyle,
    ) -> Self {
        let time = |width| Linear::new(&builder.at("time_emb_proj"), width, n_out, Bias::With);
        Self {
            norm1: GroupNorm::new(&builder.at("norm1"), style.groups, n_in, style.eps),
            conv1: Conv2d::new(&builder.at("conv1"), n_in, n_out, Window::THREE),
            time_emb_proj: style.time_width.map(time),
            norm2: GroupNorm::new(&builder.at("norm2"), style.groups, n_out, style.eps),
            conv2: Conv2d::new(&builder.at("conv2"), n_out, n_out, Window::THREE),
            conv_shortcut: (n_in != n_out)
                .then(|| Conv2d::new(&builder.at("conv_shortcut"), n_in, n_out, Window::ONE)),
        }
    }

    /// `x`: `[batch, in, height, width]`; `activated_time`: SiLU of the timestep embedding,
    /// `[batch, time_width]`; result `[batch, out, height, width]`.
    pub(crate) fn forward(&self, x: Tensor<4>, activated_time: Option<&Tensor<2>>) -> Tensor<4> {
        let mut hidden = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        if let (Some(projection), Some(time)) = (&self.time_emb_proj, activated_time) {
            let shift: Tensor<2> = projection.forward_rows(time.clone());
            let [batch, channels] = shift.dims();
            hidden = hidden + shift.reshape([batch, channels, 1, 1]);
        }
        let hidden = self.conv2.forward(self.norm2.forward_silu(hidden));
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x) + hidden,
            None => x + hidden,
        }
    }
}

/// Halves the resolution by a strided convolution. Source: diffusers `Downsample2D`.
#[derive(Clone, Debug)]
pub(crate) struct Downsample2D {
    conv: Conv2d,
    pad_bottom_right: bool,
}
network!(Downsample2D { conv: "conv" });

impl Downsample2D {
    /// The UNet's: one zero on every side.
    pub(crate) fn symmetric(builder: &Builder<'_>, channels: usize) -> Self {
        let window = Window { kernel: 3, stride: 2, padding: 1 };
        Self {
            conv: Conv2d::new(&builder.at("conv"), channels, channels, window),
            pad_bottom_right: false,
        }
    }

    /// The VAE encoder's: one zero on the right and at the bottom.
    pub(crate) fn asymmetric(builder: &Builder<'_>, channels: usize) -> Self {
        let window = Window { kernel: 3, stride: 2, padding: 0 };
        Self {
            conv: Conv2d::new(&builder.at("conv"), channels, channels, window),
            pad_bottom_right: true,
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if !self.pad_bottom_right {
            return self.conv.forward(x);
        }
        let [batch, channels, height, width] = x.dims();
        let device = x.device();
        let x = Tensor::cat(vec![x, Tensor::zeros([batch, channels, height, 1], &device)], 3);
        let x = Tensor::cat(vec![x, Tensor::zeros([batch, channels, 1, width + 1], &device)], 2);
        self.conv.forward(x)
    }
}

/// Doubles the resolution (nearest neighbour), then convolves. Source: diffusers `Upsample2D`; odd
/// sizes are proved by the golden case `unet_sd1_odd`.
#[derive(Clone, Debug)]
pub(crate) struct Upsample2D {
    conv: Conv2d,
}
network!(Upsample2D { conv: "conv" });

impl Upsample2D {
    pub(crate) fn new(builder: &Builder<'_>, channels: usize) -> Self {
        Self { conv: Conv2d::new(&builder.at("conv"), channels, channels, Window::THREE) }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(doubled(x))
    }

    /// To the height and width of a map that was halved to `x`: the double, or one less.
    pub(crate) fn forward_to(&self, x: Tensor<4>, [height, width]: [usize; 2]) -> Tensor<4> {
        let x = doubled(x);
        let [_, _, doubled_height, doubled_width] = x.dims();
        // To 2n − 1 the nearest neighbour of i is floor(i·n / (2n − 1)) = floor(i / 2), as in the
        // double, of which only the last row or column is too many.
        let x = if height < doubled_height { x.narrow(2, 0, height) } else { x };
        let x = if width < doubled_width { x.narrow(3, 0, width) } else { x };
        self.conv.forward(x)
    }
}

/// Each value four times, `[batch, channels, 2 height, 2 width]`.
fn doubled(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    // Repeating over size-1 axes keeps nothing for the backward pass; an interpolation would.
    let x: Tensor<6> = x.reshape([batch, channels, height, 1, width, 1]);
    let x = x.repeat_dim(3, 2).repeat_dim(5, 2);
    x.reshape([batch, channels, height * 2, width * 2])
}
