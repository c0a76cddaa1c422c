//! Convolution of small images as a product of matrices, and its gradients.
//!
//! A task takes a few images, lays out their columns in a buffer that its thread keeps, and
//! multiplies. Windows of 3×3 at stride 1 go in tiles where that pays ([`super::winograd`]); other
//! images whose columns would not stay in the cache are left to burn.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Backend, Flex};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Bytes, DType};
use rayon::prelude::*;

use super::columns::{Geometry, gather, scatter};
use super::element::{Dense, Element, tensor};
use super::gemm::{Into, Shape, gemm};
use super::lanes::sum;
use super::parallel::{add_up, for_each, for_each_with, room, zeros};
use super::simd::vectorized;
use super::winograd::{self, Way};

/// Columns that make a product worth its overhead.
const COLUMNS: usize = 256;
/// Elements of the largest buffer of columns.
const LARGEST: usize = 1 << 21;
/// Parts of the weight's gradient, at most.
const PARTS: usize = 8;
/// Groups of images below which the channels of each are shared out, too.
const GROUPS: usize = 4;
/// Channels of a share.
const CHANNELS: usize = 64;

impl Geometry {
    /// Whether the columns of one image fit into a buffer that stays in the cache.
    pub(crate) fn small(&self) -> bool {
        self.pointwise() || self.depth() * self.area() <= LARGEST
    }

    /// Images of one task, a function of the shape alone.
    fn group(&self) -> usize {
        (COLUMNS / self.area().max(1)).clamp(1, self.batch.max(1))
    }

    /// Whether there are too few groups of images to keep every thread busy.
    fn few(&self) -> bool {
        self.batch.div_ceil(self.group()) < GROUPS
    }

    /// Elements that a task of `group` images needs beside its operands: columns, then a matrix.
    fn scratch(&self) -> [usize; 2] {
        let group = self.group();
        let columns = group * self.area();
        let alone = group == 1;
        [
            if alone && self.pointwise() { 0 } else { self.depth() * columns },
            if alone { 0 } else { self.channels[1] * columns },
        ]
    }
}

/// x ⋆ W + b; a `bias` without elements stands for none.
pub(crate) fn forward([x, weight, bias]: [&FlexTensor; 3], geometry: &Geometry) -> FlexTensor {
    if x.dtype() == DType::F32 {
        run_forward::<f32>([x, weight, bias], geometry)
    } else {
        run_forward::<f64>([x, weight, bias], geometry)
    }
}

fn run_forward<T: Element>(operands: [&FlexTensor; 3], geometry: &Geometry) -> FlexTensor {
    let [x, weight, bias] = operands.map(Dense::new);
    let (values, weight, bias) = (x.values::<T>(), weight.values::<T>(), bias.values::<T>());
    if geometry.in_tiles() {
        let y = winograd::convolve([values, weight, bias], geometry, Way::Forward);
        let [height, width] = geometry.out;
        return tensor(y, [geometry.batch, geometry.channels[1], height, width]);
    }
    let group = geometry.group();
    let [in_image, out_image] = geometry.images();
    let mut y = room(geometry.batch * out_image);
    let [n_columns, n_product] = geometry.scratch();
    let tasks = y
        .par_chunks_mut((group * out_image).max(1))
        .zip(values.par_chunks((group * in_image).max(1)));
    let weight_by = geometry.depth() * group * geometry.area();
    if geometry.few() {
        let mut scratch = room(n_columns + n_product);
        let groups = y.chunks_mut((group * out_image).max(1));
        for (y, x) in groups.zip(values.chunks((group * in_image).max(1))) {
            let (columns, product) = scratch.split_at_mut(n_columns);
            multiply_by_channels(geometry, [x, weight], y, [columns, product]);
            add_bias(geometry, bias, y);
        }
    } else {
        for_each_with(tasks, weight_by, n_columns + n_product, |scratch: &mut [T], (y, x)| {
            let (columns, product) = scratch.split_at_mut(n_columns);
            multiply(geometry, [x, weight], y, [columns, product]);
            add_bias(geometry, bias, y);
        });
    }
    let [height, width] = geometry.out;
    tensor(y, [geometry.batch, geometry.channels[1], height, width])
}

vectorized! {
    /// Adds the bias, if there is one, to every channel of every image.
    fn add_bias<T: Element>(geometry: &Geometry, bias: &[T], y: &mut [T]) {
        for (y, &b) in y.chunks_exact_mut(geometry.area()).zip(bias.iter().cycle()) {
            for y in y {
                *y += b;
            }
        }
    }

    /// Σ x.
    fn whole_sum<T: Element>(x: &[T]) -> T {
        sum(x, |x| x)
    }
}

/// The columns of the images in `x`, in `buffer` unless they are the image itself.
fn columns_of<'a, T: Element>(geometry: &Geometry, x: &'a [T], buffer: &'a mut [T]) -> &'a [T] {
    if buffer.is_empty() {
        return x;
    }
    let (area, [in_image, _]) = (geometry.area(), geometry.images());
    let stride = x.len() / in_image * area;
    for (i, image) in x.chunks_exact(in_image).enumerate() {
        gather(geometry, image, &mut buffer[i * area..], stride);
    }
    buffer
}

/// As [`multiply`], on all threads: each lays out some channels, then multiplies for some others.
fn multiply_by_channels<T: Element>(
    geometry: &Geometry,
    [x, weight]: [&[T]; 2],
    y: &mut [T],
    [columns, product]: [&mut [T]; 2],
) {
    let (area, depth, outputs) = (geometry.area(), geometry.depth(), geometry.channels[1]);
    let (n, [in_image, _]) = (y.len() / outputs, geometry.images());
    let columns: &[T] = if columns.is_empty() {
        x
    } else {
        let pixels = geometry.size[0] * geometry.size[1];
        let window = geometry.kernel * geometry.kernel;
        let shares = columns[..depth * n].par_chunks_mut(CHANNELS * window * n).enumerate();
        for_each(shares, CHANNELS * window * n, |(share, columns)| {
            for (i, image) in x.chunks_exact(in_image).enumerate() {
                let channels = &image[share * CHANNELS * pixels..];
                gather(geometry, channels, &mut columns[i * area..], n);
            }
        });
        columns
    };
    let result = if n == area { &mut *y } else { &mut product[..outputs * n] };
    let shares = result.par_chunks_mut(CHANNELS * n).zip(weight.par_chunks(CHANNELS * depth));
    for_each(shares, CHANNELS * depth, |(result, weight)| {
        let outputs = weight.len() / depth;
        gemm(
            (result, Shape::dense(outputs, n)),
            (weight, Shape::dense(outputs, depth)),
            (columns, Shape::dense(depth, n)),
            T::ONE,
            Into::Replace,
        );
    });
    if n != area {
        apart(geometry, product, y);
    }
}

/// Takes the images of a product apart that stand side by side in it.
fn apart<T: Element>(geometry: &Geometry, product: &[T], y: &mut [T]) {
    let (area, outputs) = (geometry.area(), geometry.channels[1]);
    let n = y.len() / outputs;
    for (i, image) in y.chunks_exact_mut(outputs * area).enumerate() {
        for (row, channel) in product.chunks_exact(n).zip(image.chunks_exact_mut(area)) {
            channel.copy_from_slice(&row[i * area..][..area]);
        }
    }
}

/// y = W · columns(x) for the images of one task.
fn multiply<T: Element>(
    geometry: &Geometry,
    [x, weight]: [&[T]; 2],
    y: &mut [T],
    [columns, product]: [&mut [T]; 2],
) {
    let (area, depth, outputs) = (geometry.area(), geometry.depth(), geometry.channels[1]);
    let n = y.len() / outputs;
    let columns = columns_of(geometry, x, columns);
    let result = if n == area { &mut *y } else { &mut *product };
    gemm(
        (result, Shape::dense(outputs, n)),
        (weight, Shape::dense(outputs, depth)),
        (columns, Shape::dense(depth, n)),
        T::ONE,
        Into::Replace,
    );
    if n != area {
        apart(geometry, product, y);
    }
}

/// The images of `dy` side by side as one matrix, in `buffer` if there are several.
fn side_by_side<'a, T: Element>(geometry: &Geometry, dy: &'a [T], buffer: &'a mut [T]) -> &'a [T] {
    let (area, [_, out_image]) = (geometry.area(), geometry.images());
    if dy.len() == out_image {
        return dy;
    }
    let n = dy.len() / geometry.channels[1];
    for (i, image) in dy.chunks_exact(out_image).enumerate() {
        for (row, channel) in buffer.chunks_exact_mut(n).zip(image.chunks_exact(area)) {
            row[i * area..][..area].copy_from_slice(channel);
        }
    }
    buffer
}

/// The gradient with respect to x.
pub(crate) fn input_gradient([dy, weight]: [&FlexTensor; 2], geometry: &Geometry) -> FlexTensor {
    if dy.dtype() == DType::F32 {
        run_input_gradient::<f32>([dy, weight], geometry)
    } else {
        run_input_gradient::<f64>([dy, weight], geometry)
    }
}

fn run_input_gradient<T: Element>(operands: [&FlexTensor; 2], geometry: &Geometry) -> FlexTensor {
    let [dy, weight] = operands.map(Dense::new);
    let (slopes, weight) = (dy.values::<T>(), weight.values::<T>());
    let [inputs, outputs] = geometry.channels;
    let [height, width] = geometry.size;
    if geometry.in_tiles() {
        let dx = winograd::convolve([slopes, weight, &[]], geometry, Way::Backward);
        return tensor(dx, [geometry.batch, inputs, height, width]);
    }
    let (group, area, depth) = (geometry.group(), geometry.area(), geometry.depth());
    let [in_image, out_image] = geometry.images();
    let mut dx = zeros(geometry.batch * in_image);
    let [n_columns, n_rows] = geometry.scratch();
    if geometry.few() {
        let mut scratch = room(n_columns + n_rows);
        let groups = dx.chunks_mut((group * in_image).max(1));
        for (dx, dy) in groups.zip(slopes.chunks((group * out_image).max(1))) {
            input_gradient_by_channels(geometry, [dy, weight], dx, scratch.split_at_mut(n_columns));
        }
        return tensor(dx, [geometry.batch, inputs, height, width]);
    }
    let tasks = dx
        .par_chunks_mut((group * in_image).max(1))
        .zip(slopes.par_chunks((group * out_image).max(1)));
    for_each_with(
        tasks,
        depth * group * area,
        n_columns + n_rows,
        |scratch: &mut [T], (dx, dy)| {
            let (columns, rows) = scratch.split_at_mut(n_columns);
            let dy = side_by_side(geometry, dy, rows);
            let n = dx.len() / in_image * area;
            let direct = n_columns == 0;
            let result = if direct { &mut *dx } else { &mut *columns };
            gemm(
                (result, Shape::dense(depth, n)),
                (weight, Shape::dense(outputs, depth).transposed()),
                (dy, Shape::dense(outputs, n)),
                T::ONE,
                Into::Replace,
            );
            if !direct {
                for (i, image) in dx.chunks_exact_mut(in_image).enumerate() {
                    scatter(geometry, &mut columns[i * area..], n, image);
                }
            }
        },
    );
    tensor(dx, [geometry.batch, inputs, height, width])
}

/// The gradient of the images of one task on all threads, each for some channels.
fn input_gradient_by_channels<T: Element>(
    geometry: &Geometry,
    [dy, weight]: [&[T]; 2],
    dx: &mut [T],
    (columns, rows): (&mut [T], &mut [T]),
) {
    let (area, depth, outputs) = (geometry.area(), geometry.depth(), geometry.channels[1]);
    let dy = side_by_side(geometry, dy, rows);
    let n = dy.len() / outputs;
    let (pixels, window) = (geometry.size[0] * geometry.size[1], geometry.kernel * geometry.kernel);
    let multiply = |share: usize, result: &mut [T]| {
        let taps = result.len() / n;
        gemm(
            (result, Shape::dense(taps, n)),
            (
                &weight[share * CHANNELS * window..],
                Shape::strided(outputs, taps, depth).transposed(),
            ),
            (dy, Shape::dense(outputs, n)),
            T::ONE,
            Into::Replace,
        );
    };
    if columns.is_empty() {
        let shares = dx.par_chunks_mut(CHANNELS * n).enumerate();
        for_each(shares, CHANNELS * outputs, |(share, dx)| multiply(share, dx));
        return;
    }
    // Of every image the channels of one share.
    let mut shares: Vec<Vec<&mut [T]>> = Vec::new();
    for image in dx.chunks_exact_mut(geometry.channels[0] * pixels) {
        for (share, channels) in image.chunks_mut(CHANNELS * pixels).enumerate() {
            if shares.len() == share {
                shares.push(Vec::new());
            }
            shares[share].push(channels);
        }
    }
    let columns = columns[..depth * n].par_chunks_mut(CHANNELS * window * n);
    let tasks = columns.zip(shares.into_par_iter()).enumerate();
    for_each(tasks, CHANNELS * window * outputs, |(share, (columns, images))| {
        multiply(share, columns);
        for (i, image) in images.into_iter().enumerate() {
            scatter(geometry, &mut columns[i * area..], n, image);
        }
    });
}

/// The gradient with respect to the weight.
pub(crate) fn weight_gradient([x, dy]: [&FlexTensor; 2], geometry: &Geometry) -> FlexTensor {
    if !geometry.small() {
        return weight_gradient_of_burn::<Flex>([x, dy], x.dtype(), geometry);
    }
    if x.dtype() == DType::F32 {
        run_weight_gradient::<f32>([x, dy], geometry)
    } else {
        run_weight_gradient::<f64>([x, dy], geometry)
    }
}

/// For images whose columns would not stay in the cache.
fn weight_gradient_of_burn<B: Backend<FloatTensorPrimitive = FlexTensor>>(
    [x, dy]: [&FlexTensor; 2],
    dtype: DType,
    geometry: &Geometry,
) -> FlexTensor {
    let [inputs, outputs] = geometry.channels;
    // Of the weight only its shape is read: one value, seen everywhere.
    let shape = [outputs, inputs, geometry.kernel, geometry.kernel];
    let one = if dtype == DType::F32 {
        Bytes::from_elems(vec![0f32])
    } else {
        Bytes::from_elems(vec![0f64])
    };
    let weight = FlexTensor::new(one, Layout::new(shape.into(), vec![0; 4], 0), dtype);
    let options = ConvOptions::new([geometry.stride; 2], [geometry.padding; 2], [1, 1], 1);
    B::conv2d_weight_backward(x.clone(), weight, dy.clone(), options)
}

fn run_weight_gradient<T: Element>(operands: [&FlexTensor; 2], geometry: &Geometry) -> FlexTensor {
    let [x, dy] = operands.map(Dense::new);
    let (values, slopes) = (x.values::<T>(), dy.values::<T>());
    let (group, area, depth) = (geometry.group(), geometry.area(), geometry.depth());
    let [inputs, outputs] = geometry.channels;
    let [in_image, out_image] = geometry.images();
    let n_groups = geometry.batch.div_ceil(group).max(1);
    // Images of one part: whole groups.
    let images = n_groups.div_ceil(PARTS) * group;
    let mut parts = zeros(geometry.batch.div_ceil(images).max(1) * outputs * depth);
    let [n_columns, n_rows] = geometry.scratch();
    let tasks = parts
        .par_chunks_mut((outputs * depth).max(1))
        .zip(values.par_chunks((images * in_image).max(1)))
        .zip(slopes.par_chunks((images * out_image).max(1)));
    let weight_by = depth * images * area;
    for_each_with(tasks, weight_by, n_columns + n_rows, |scratch: &mut [T], ((part, x), dy)| {
        let (columns, rows) = scratch.split_at_mut(n_columns);
        for (x, dy) in x.chunks(group * in_image).zip(dy.chunks(group * out_image)) {
            let n = dy.len() / outputs;
            let dy = side_by_side(geometry, dy, rows);
            let columns = columns_of(geometry, x, columns);
            // Transposed, because the product packs the narrower of its factors.
            gemm(
                (part, Shape::dense(depth, outputs)),
                (columns, Shape::dense(depth, n)),
                (dy, Shape::dense(outputs, n).transposed()),
                T::ONE,
                Into::Add,
            );
        }
    });
    let side = geometry.kernel;
    tensor(add_up(parts, outputs * depth), [depth, outputs])
        .transpose(0, 1)
        .to_contiguous()
        .reshape([outputs, inputs, side, side].into())
}

/// Σ dy over images and pixels.
pub(crate) fn bias_gradient(dy: &FlexTensor, geometry: &Geometry) -> FlexTensor {
    if dy.dtype() == DType::F32 {
        run_bias_gradient::<f32>(dy, geometry)
    } else {
        run_bias_gradient::<f64>(dy, geometry)
    }
}

fn run_bias_gradient<T: Element>(dy: &FlexTensor, geometry: &Geometry) -> FlexTensor {
    let dy = Dense::new(dy);
    let (area, outputs) = (geometry.area(), geometry.channels[1]);
    let mut parts = zeros(geometry.batch.max(1) * outputs);
    let channels = parts.par_iter_mut().zip(dy.values::<T>().par_chunks_exact(area.max(1)));
    for_each(channels, area, |(part, dy)| {
        *part = whole_sum(dy);
    });
    tensor(add_up(parts, outputs), [outputs])
}
