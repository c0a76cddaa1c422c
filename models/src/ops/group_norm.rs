//! Group norm with an optional activation behind it, forward and backward in one pass each.
//!
//! A group of channels lies in one piece of memory, so a task is one group of one image.

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape};
use rayon::prelude::*;

use super::Activation;
use super::element::{Dense, Element, tensor};
use super::lanes::{LANES, sum, total};
use super::parallel::{add_up, for_each, room};
use super::simd::vectorized;

/// The constants of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Groups of channels.
    pub(crate) groups: usize,
    /// What is added to the variance.
    pub(crate) eps: f64,
    /// What follows the norm.
    pub(crate) activation: Activation,
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    statistics: FlexTensor,
    options: Options,
}

/// The gradients, each only if it was asked for.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) x: Option<FlexTensor>,
    pub(crate) affine: Option<[FlexTensor; 2]>,
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    channels: usize,
    /// Channels of a group.
    members: usize,
    /// Pixels of a channel.
    area: usize,
    groups: usize,
}

impl Sizes {
    fn new(shape: &Shape, options: Options) -> Self {
        let [_, channels, height, width] = shape.dims();
        Self {
            channels,
            members: channels / options.groups,
            area: height * width,
            groups: options.groups,
        }
    }

    /// Elements of a group.
    fn block(self) -> usize {
        self.members * self.area
    }

    /// The first channel of block `index`.
    fn first(self, index: usize) -> usize {
        index % self.groups * self.members
    }
}

/// The statistics of a group and the parameters of its channels.
#[derive(Clone, Copy)]
struct Group<'a, T> {
    mean: T,
    /// 1/√(σ² + ε).
    scale: T,
    gamma: &'a [T],
    beta: &'a [T],
}

/// The output and what [`backward`] needs.
pub(crate) fn forward(
    x: FlexTensor,
    affine: [FlexTensor; 2],
    options: Options,
) -> (FlexTensor, Saved) {
    let [gamma, beta] = affine;
    let (y, statistics) = if x.dtype() == DType::F32 {
        run_forward::<f32>(&x, [&gamma, &beta], options)
    } else {
        run_forward::<f64>(&x, [&gamma, &beta], options)
    };
    (y, Saved { x, gamma, beta, statistics, options })
}

fn run_forward<T: Element>(
    x: &FlexTensor,
    [gamma, beta]: [&FlexTensor; 2],
    options: Options,
) -> (FlexTensor, FlexTensor) {
    let shape = x.layout().shape().clone();
    let sizes = Sizes::new(&shape, options);
    let (x, gamma, beta) = (Dense::new(x), Dense::new(gamma), Dense::new(beta));
    let (gamma, beta) = (gamma.values::<T>(), beta.values::<T>());
    let values = x.values::<T>();
    let block = sizes.block().max(1);
    let mut y = room(values.len());
    let mut statistics = room(values.len() / block * 2);
    let blocks = y
        .par_chunks_exact_mut(block)
        .zip(values.par_chunks_exact(block))
        .zip(statistics.par_chunks_exact_mut(2))
        .enumerate();
    for_each(blocks, block, |(index, ((y, x), statistics))| {
        let first = sizes.first(index);
        let [gamma, beta] = [gamma, beta].map(|values| &values[first..][..sizes.members]);
        normalize_group(y, x, statistics, [gamma, beta], options);
    });
    let n_statistics = statistics.len();
    (tensor(y, shape), tensor(statistics, [n_statistics]))
}

vectorized! {
    /// Normalises one group and writes its mean and 1/√(σ² + ε).
    fn normalize_group<T: Element>(
        y: &mut [T],
        x: &[T],
        statistics: &mut [T],
        affine: [&[T]; 2],
        options: Options,
    ) {
        let ([mean, scale], [gamma, beta]) = (moments(x, T::of(options.eps)), affine);
        statistics.copy_from_slice(&[mean, scale]);
        let group = Group { mean, scale, gamma, beta };
        match options.activation {
            Activation::None => normalize(y, x, group, |u| u),
            Activation::Silu => normalize(y, x, group, silu),
        }
    }

    /// Writes the gradient of one group of x, and of each channel Σ du·x̂ and Σ du.
    fn group_backward<T: Element>(
        inputs: [&[T]; 2],
        dx: &mut [T],
        sums: &mut [[T; 2]],
        group: Group<'_, T>,
        activation: Activation,
    ) {
        match activation {
            Activation::None => through_activation(inputs, dx, sums, group, |_, dy| dy),
            Activation::Silu => through_activation(inputs, dx, sums, group, silu_slope),
        }
        through_norm(dx, inputs[0], sums, group);
    }
}

/// u·σ(u).
#[inline(always)]
fn silu<T: Element>(u: T) -> T {
    u * u.sigmoid()
}

/// The mean and 1/√(σ² + ε), the variance from a second pass.
#[inline(always)]
pub(super) fn moments<T: Element>(x: &[T], eps: T) -> [T; 2] {
    #[expect(clippy::cast_precision_loss, reason = "a group has far fewer than 2⁵³ elements")]
    let n = T::of(x.len() as f64);
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    [mean, T::ONE / (variance + eps).sqrt()]
}

#[inline(always)]
fn normalize<T: Element>(y: &mut [T], x: &[T], group: Group<'_, T>, activation: impl Fn(T) -> T) {
    let Group { mean, scale, gamma, beta } = group;
    let area = x.len() / gamma.len();
    let channels = y.chunks_exact_mut(area).zip(x.chunks_exact(area));
    for ((y, x), (&gamma, &beta)) in channels.zip(gamma.iter().zip(beta)) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = activation((x - mean) * scale * gamma + beta);
        }
    }
}

/// The gradients with respect to x and, if `affine`, to γ and β.
pub(crate) fn backward(saved: &Saved, dy: &FlexTensor, wanted: [bool; 2]) -> Gradients {
    if dy.dtype() == DType::F32 {
        run_backward::<f32>(saved, dy, wanted)
    } else {
        run_backward::<f64>(saved, dy, wanted)
    }
}

fn run_backward<T: Element>(saved: &Saved, dy: &FlexTensor, wanted: [bool; 2]) -> Gradients {
    let shape = saved.x.layout().shape().clone();
    let options = saved.options;
    let sizes = Sizes::new(&shape, options);
    let [x, gamma, beta] = [&saved.x, &saved.gamma, &saved.beta].map(Dense::new);
    let (gamma, beta) = (gamma.values::<T>(), beta.values::<T>());
    let (values, dy) = (x.values::<T>(), Dense::new(dy));
    let block = sizes.block().max(1);
    let mut dx = room(values.len());
    // For every image and channel: Σ du·x̂ and Σ du.
    let mut sums = vec![[T::ZERO; 2]; values.len() / sizes.area.max(1)];
    let blocks = dx
        .par_chunks_exact_mut(block)
        .zip(values.par_chunks_exact(block))
        .zip(dy.values::<T>().par_chunks_exact(block))
        .zip(sums.par_chunks_exact_mut(sizes.members))
        .zip(T::storage(&saved.statistics).par_chunks_exact(2))
        .enumerate();
    for_each(blocks, 2 * block, |(index, ((((dx, x), dy), sums), statistics))| {
        let first = sizes.first(index);
        let [gamma, beta] = [gamma, beta].map(|values| &values[first..][..sizes.members]);
        let group = Group { mean: statistics[0], scale: statistics[1], gamma, beta };
        group_backward([x, dy], dx, sums, group, options.activation);
    });
    Gradients {
        x: wanted[0].then(|| tensor(dx, shape)),
        affine: wanted[1].then(|| {
            let [gamma, beta] = [0, 1].map(|which| {
                let parts = sums.iter().map(|pair| pair[which]).collect();
                tensor(add_up(parts, sizes.channels), [sizes.channels])
            });
            [gamma, beta]
        }),
    }
}

/// dy times the slope of u·σ(u).
#[inline(always)]
fn silu_slope<T: Element>(u: T, dy: T) -> T {
    let s = u.sigmoid();
    dy * (s * (T::ONE + u * (T::ONE - s)))
}

/// Writes du into `dx` and the sums of each channel into `sums`.
#[inline(always)]
fn through_activation<T: Element>(
    [x, dy]: [&[T]; 2],
    dx: &mut [T],
    sums: &mut [[T; 2]],
    group: Group<'_, T>,
    slope: impl Fn(T, T) -> T + Copy,
) {
    let Group { mean, scale, gamma, beta } = group;
    let area = x.len() / gamma.len();
    let channels = dx.chunks_exact_mut(area).zip(x.chunks_exact(area)).zip(dy.chunks_exact(area));
    let affine = gamma.iter().zip(beta);
    for ((((dx, x), dy), (&gamma, &beta)), sums) in channels.zip(affine).zip(sums) {
        *sums = channel_sums([x, dy], dx, |x, dy| {
            let normalized = (x - mean) * scale;
            let du = slope(normalized * gamma + beta, dy);
            [du, normalized]
        });
    }
}

/// Σ du·x̂ and Σ du, with du left in `dx`.
#[inline(always)]
fn channel_sums<T: Element>(
    [x, dy]: [&[T]; 2],
    dx: &mut [T],
    slope: impl Fn(T, T) -> [T; 2],
) -> [T; 2] {
    let mut lanes = [[T::ZERO; LANES]; 2];
    let [products, plain] = &mut lanes;
    let mut step = |dx: &mut [T], x: &[T], dy: &[T]| {
        let lanes = products.iter_mut().zip(plain.iter_mut());
        for (((dx, &x), &dy), (product, plain)) in dx.iter_mut().zip(x).zip(dy).zip(lanes) {
            let [du, normalized] = slope(x, dy);
            *dx = du;
            *product += du * normalized;
            *plain += du;
        }
    };
    let (chunks, rest) = x.as_chunks::<LANES>();
    let (slopes, rest_slopes) = dy.as_chunks::<LANES>();
    let (results, rest_results) = dx.as_chunks_mut::<LANES>();
    for ((x, dy), dx) in chunks.iter().zip(slopes).zip(results) {
        step(dx, x, dy);
    }
    step(rest_results, rest, rest_slopes);
    lanes.map(total)
}

/// Turns the du in `dx` into the gradient of x.
#[inline(always)]
fn through_norm<T: Element>(dx: &mut [T], x: &[T], sums: &[[T; 2]], group: Group<'_, T>) {
    let Group { mean, scale, gamma, .. } = group;
    let area = x.len() / gamma.len();
    #[expect(clippy::cast_precision_loss, reason = "a group has far fewer than 2⁵³ elements")]
    let n = T::of(x.len() as f64);
    let mut means = [T::ZERO; 2];
    for (&gamma, sums) in gamma.iter().zip(sums) {
        for (mean, &sum) in means.iter_mut().zip(sums) {
            *mean += gamma * sum / n;
        }
    }
    let [mean_product, mean_plain] = means;
    let channels = dx.chunks_exact_mut(area).zip(x.chunks_exact(area));
    for ((dx, x), &gamma) in channels.zip(gamma) {
        for (dx, &x) in dx.iter_mut().zip(x) {
            let normalized = (x - mean) * scale;
            *dx = scale * (gamma * *dx - mean_plain - normalized * mean_product);
        }
    }
}
