//! Convolution of 3×3 windows with a quarter of the products.
//!
//! Four by four outputs at once come from 36 products instead of 144: of transformed pixels with
//! transformed weights, between which a transform of sums lies. A position of the 36 is a product of
//! matrices, tiles × channels by channels × outputs. The gradient with respect to the pixels is the
//! same convolution with the window turned around and its two channel axes exchanged.
//!
//! Weights are transformed anew in each call, a block of outputs at a time and a task: kept, they
//! would take four times the memory of the weights. `docs/speed.md` has the share of the time that
//! this takes.
//!
//! Source: Lavin & Gray 2016, arXiv:1509.09308, F(4×4, 3×3) of section 4.3.

mod transform;

use rayon::prelude::*;

use super::columns::Geometry;
use super::element::Element;
use super::gemm::{Into, Shape, gemm};
use super::lanes::LANES;
use super::parallel::{for_each, room};
use super::simd::vectorized;
use transform::{Vector, both_ways, from_pixels, from_products, from_window};

/// Outputs along one side of a tile.
const TILE: usize = 4;
/// Pixels that a tile sees along one side, and the positions along one side of its transform.
const SIDE: usize = 6;
/// Positions of a transform.
const POSITIONS: usize = SIDE * SIDE;
/// Weights of a window.
const WINDOW: usize = 9;
/// Elements of transformed pixels that are held at once.
const HELD: usize = 1 << 23;
/// Tiles of a task, about.
const TILES: usize = 128;
/// Tiles of one picture that are worth the transform of many weights.
const WORTH: usize = 16;
/// Tiles of one picture that are worth the transform of [`FEW`] weights.
const SOME: usize = 4;
/// Channels in times channels out whose weights are transformed in no time.
const FEW: usize = 1 << 15;

/// Which of the two convolutions with one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Outputs from pixels.
    Forward,
    /// The gradient of the pixels from that of the outputs.
    Backward,
}

impl Geometry {
    /// Whether [`convolve`] computes this convolution, and faster than its columns do. A function of
    /// one picture: a batch must not change the bits of a sample.
    pub(crate) fn in_tiles(&self) -> bool {
        let ([inputs, outputs], n_tiles) =
            (self.channels, self.size[0] * self.size[1] / (TILE * TILE));
        self.kernel == 3
            && self.stride == 1
            && self.padding == 1
            && inputs > 0
            && (n_tiles >= WORTH || n_tiles >= SOME && inputs * outputs <= FEW)
    }
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    way: Way,
    /// Channels of what is read and of what is written.
    read: usize,
    written: usize,
    height: usize,
    width: usize,
    /// Tiles from top to bottom and from left to right.
    down: usize,
    across: usize,
}

impl Sizes {
    fn new(geometry: &Geometry, way: Way) -> Self {
        let [inputs, outputs] = geometry.channels;
        let [height, width] = geometry.size;
        let (read, written) = match way {
            Way::Forward => (inputs, outputs),
            Way::Backward => (outputs, inputs),
        };
        let [down, across] = [height, width].map(|side| side.div_ceil(TILE));
        Self { way, read, written, height, width, down, across }
    }

    /// Channels that are read, filled up to whole vectors.
    fn depth(self) -> usize {
        self.read.next_multiple_of(LANES)
    }

    /// Elements of the transformed pixels of one row of tiles.
    fn row(self) -> usize {
        self.across * POSITIONS * self.depth()
    }

    /// Rows of tiles that one task takes.
    fn rows_of_task(self) -> usize {
        (TILES / self.across).max(1)
    }

    /// Written channels that one task takes: fewer where there would be less than eight tasks.
    fn block(self, n_rows: usize) -> usize {
        let n_parts = n_rows.div_ceil(self.rows_of_task());
        if n_parts * (self.written / 64) >= 8 { 64 } else { 32 }
    }

    /// The picture and the row of tiles within it.
    fn place(self, row: usize) -> (usize, usize) {
        (row / self.down, row % self.down)
    }
}

/// Convolves `x` with `weight` `[outputs, inputs, 3, 3]` at stride 1 with a border of one zero.
///
/// `x` is `[batch, inputs, height, width]` forwards and `[batch, outputs, height, width]` backwards,
/// the result the other of the two. A `bias` without elements stands for none.
pub(crate) fn convolve<T: Element>(
    [x, weight, bias]: [&[T]; 3],
    geometry: &Geometry,
    way: Way,
) -> Vec<T> {
    let sizes = Sizes::new(geometry, way);
    let area = sizes.height * sizes.width;
    let mut y = room(geometry.batch * sizes.written * area);
    if y.is_empty() {
        return y;
    }
    let n_rows = geometry.batch * sizes.down;
    let held = (HELD / sizes.row()).clamp(1, n_rows);
    let mut transformed = room(held * sizes.row());
    let mut bands = bands(&mut y, sizes);
    let mut first = 0;
    while first < n_rows {
        let count = held.min(n_rows - first);
        let transformed = &mut transformed[..count * sizes.row()];
        let rows = transformed.par_chunks_exact_mut(sizes.row()).enumerate();
        for_each(rows, sizes.row(), |(row, tiles)| transform_row(x, tiles, first + row, sizes));
        let later = bands.split_off(count);
        multiply(transformed, [weight, bias], bands, sizes);
        (bands, first) = (later, first + count);
    }
    y
}

/// The lines of one row of tiles, in every written channel.
type Band<'a, T> = Vec<&'a mut [T]>;

/// What is written, by rows of tiles of all pictures, and there by channels.
fn bands<T: Element>(y: &mut [T], sizes: Sizes) -> Vec<Band<'_, T>> {
    let mut bands = Vec::new();
    for picture in y.chunks_exact_mut(sizes.written * sizes.height * sizes.width) {
        let first = bands.len();
        bands.resize_with(first + sizes.down, || Vec::with_capacity(sizes.written));
        for plane in picture.chunks_exact_mut(sizes.height * sizes.width) {
            let lines = plane.chunks_mut(TILE * sizes.width);
            for (band, lines) in bands[first..].iter_mut().zip(lines) {
                band.push(lines);
            }
        }
    }
    bands
}

/// Some channels of some rows of tiles.
struct Task<'a, T> {
    /// The first written channel.
    channel: usize,
    /// The transformed pixels of the rows.
    tiles: &'a [T],
    /// What is written, by rows, and there by channels.
    bands: Vec<Band<'a, T>>,
}

/// The products and the way back from them, in parallel over rows of tiles and written channels.
fn multiply<T: Element>(
    transformed: &[T],
    [weight, bias]: [&[T]; 2],
    bands: Vec<Band<'_, T>>,
    sizes: Sizes,
) {
    let (rows, block) = (sizes.rows_of_task(), sizes.block(bands.len()));
    let mut tasks = Vec::new();
    let mut bands = bands.into_iter();
    for tiles in transformed.chunks(rows * sizes.row()) {
        let first = tasks.len();
        for channel in (0..sizes.written).step_by(block) {
            tasks.push(Task { channel, tiles, bands: Vec::new() });
        }
        for mut band in bands.by_ref().take(tiles.len() / sizes.row()) {
            for task in tasks[first..].iter_mut().rev() {
                task.bands.push(band.split_off(task.channel));
            }
        }
    }
    let scratch = || Scratch { weights: Vec::new(), products: Vec::new() };
    tasks.into_par_iter().for_each_init(scratch, |scratch, task| {
        task.run([weight, bias], sizes, scratch);
    });
}

/// What is reused from task to task.
struct Scratch<T> {
    /// Transformed weights of some written channels, `[36, outputs, inputs]`.
    weights: Vec<T>,
    /// `[36, tiles, channels]`.
    products: Vec<T>,
}

impl<T: Element> Task<'_, T> {
    fn run(mut self, [weight, bias]: [&[T]; 2], sizes: Sizes, scratch: &mut Scratch<T>) {
        let Some(n_channels) = self.bands.first().map(Vec::len) else { return };
        let (depth, n_tiles) = (sizes.depth(), self.bands.len() * sizes.across);
        let padded = n_channels.next_multiple_of(LANES);
        let Scratch { weights, products } = scratch;
        let channels = self.channel..self.channel + n_channels;
        let stride = transform_weights(weight, channels, weights, sizes);
        // What earlier tasks left behind is overwritten, but in the lanes that are not read.
        products.resize(POSITIONS * n_tiles * padded, T::ZERO);
        let pixels = Shape::strided(n_tiles, sizes.read, POSITIONS * depth);
        for (position, products) in products.chunks_exact_mut(n_tiles * padded).enumerate() {
            let weights = &weights[position * stride..];
            gemm(
                (products, Shape::strided(n_tiles, n_channels, padded)),
                (&self.tiles[position * depth..], pixels),
                (weights, weight_shape(n_channels, sizes)),
                T::ONE,
                Into::Replace,
            );
        }
        let bias = bias.get(self.channel..).unwrap_or_default();
        for (row, band) in self.bands.iter_mut().enumerate() {
            for lane in (0..n_channels).step_by(LANES) {
                let lanes = LANES.min(n_channels - lane);
                let products = Products { values: products, n_tiles, padded, lane };
                let bias = bias.get(lane..).unwrap_or_default();
                let place = (row * sizes.across, sizes.width);
                write(&products, bias, &mut band[lane..][..lanes], place);
            }
        }
    }
}

/// How the weights of one position are read: channels that are read × channels that are written.
fn weight_shape(n_channels: usize, sizes: Sizes) -> Shape {
    match sizes.way {
        Way::Forward => Shape::strided(n_channels, sizes.read, sizes.depth()).transposed(),
        Way::Backward => Shape::strided(sizes.read, n_channels, n_channels.next_multiple_of(LANES)),
    }
}

/// Fills `values` with the transformed weights of some written channels; the elements of a position.
fn transform_weights<T: Element>(
    weight: &[T],
    written: core::ops::Range<usize>,
    values: &mut Vec<T>,
    sizes: Sizes,
) -> usize {
    // Outputs and inputs of the weight as it is stored.
    let (outputs, inputs, n_inputs) = match sizes.way {
        Way::Forward => (written, 0..sizes.read, sizes.read),
        Way::Backward => (0..sizes.read, written, sizes.written),
    };
    let width = inputs.len().next_multiple_of(LANES);
    let stride = outputs.len() * width;
    values.resize(POSITIONS * stride, T::ZERO);
    for (row, output) in outputs.enumerate() {
        let windows = &weight[(output * n_inputs + inputs.start) * WINDOW..];
        let windows = &windows[..inputs.len() * WINDOW];
        transform_row_of_windows(windows, &mut values[row * width..], stride, sizes.way);
    }
    stride
}

vectorized! {
    /// Transforms windows that lie one after the other; positions lie `stride` apart.
    fn transform_row_of_windows<T: Element>(
        windows: &[T],
        values: &mut [T],
        stride: usize,
        way: Way,
    ) {
        for (i, windows) in windows.chunks(LANES * WINDOW).enumerate() {
            let mut square = [[Vector::ZERO; 3]; 3];
            for (lane, window) in windows.chunks_exact(WINDOW).enumerate() {
                for (tap, &value) in window.iter().enumerate() {
                    let tap = if way == Way::Forward { tap } else { WINDOW - 1 - tap };
                    square[tap / 3][tap % 3].set(lane, value);
                }
            }
            let mut transformed = [[Vector::ZERO; SIDE]; SIDE];
            both_ways(&square, &mut transformed, from_window);
            for (position, vector) in transformed.as_flattened().iter().enumerate() {
                vector.put(&mut values[position * stride + i * LANES..]);
            }
        }
    }

    /// Transforms what a row of tiles sees of some channels; positions lie `depth` apart.
    fn transform_strip<T: Element>(
        planes: &[T],
        strip: &mut [Vector<T>],
        tiles: &mut [T],
        down: usize,
        sizes: Sizes,
    ) {
        gather_strip(planes, strip, down, sizes);
        let (line, depth) = (TILE * sizes.across + 2, sizes.depth());
        let [mut square, mut transformed] = [[[Vector::ZERO; SIDE]; SIDE]; 2];
        for tile in 0..sizes.across {
            for (y, row) in square.iter_mut().enumerate() {
                row.copy_from_slice(&strip[y * line + TILE * tile..][..SIDE]);
            }
            both_ways(&square, &mut transformed, from_pixels);
            for (position, vector) in transformed.as_flattened().iter().enumerate() {
                vector.put(&mut tiles[(tile * POSITIONS + position) * depth..]);
            }
        }
    }

    /// Writes the outputs of the row of tiles that begins with tile `place.0` into the lines of up
    /// to 16 channels of a picture `place.1` wide.
    fn write<T: Element>(
        products: &Products<'_, T>,
        bias: &[T],
        lines: &mut [&mut [T]],
        place: (usize, usize),
    ) {
        let (first, width) = place;
        let bias = Vector::first(bias);
        let mut square = [[Vector::ZERO; SIDE]; SIDE];
        let mut outputs = [[Vector::ZERO; TILE]; TILE];
        for (tile, left) in (0..width).step_by(TILE).enumerate() {
            for (position, vector) in square.as_flattened_mut().iter_mut().enumerate() {
                *vector = products.at(position, first + tile);
            }
            both_ways(&square, &mut outputs, from_products);
            for vector in outputs.as_flattened_mut() {
                *vector = *vector + bias;
            }
            let n_columns = TILE.min(width - left);
            for (lane, lines) in lines.iter_mut().enumerate() {
                for (line, outputs) in lines.chunks_exact_mut(width).zip(&outputs) {
                    for (pixel, output) in line[left..][..n_columns].iter_mut().zip(outputs) {
                        *pixel = output.get(lane);
                    }
                }
            }
        }
    }
}

/// Transforms the pixels under one row of tiles, channels in steps of whole vectors.
fn transform_row<T: Element>(x: &[T], tiles: &mut [T], row: usize, sizes: Sizes) {
    let (picture, down) = sizes.place(row);
    let area = sizes.height * sizes.width;
    let picture = &x[picture * sizes.read * area..][..sizes.read * area];
    let line = TILE * sizes.across + 2;
    let mut strip = vec![Vector::<T>::ZERO; SIDE * line];
    for (i, planes) in picture.chunks(LANES * area).enumerate() {
        if i * LANES + LANES > sizes.read {
            strip.fill(Vector::ZERO);
        }
        transform_strip(planes, &mut strip, &mut tiles[i * LANES..], down, sizes);
    }
}

/// Brings the lines that a row of tiles sees into `strip`, channels side by side; what lies beyond
/// the picture stays 0.
#[inline(always)]
fn gather_strip<T: Element>(planes: &[T], strip: &mut [Vector<T>], down: usize, sizes: Sizes) {
    let line = TILE * sizes.across + 2;
    for (y, strip) in strip.chunks_exact_mut(line).enumerate() {
        let Some(y) = (down * TILE + y).checked_sub(1).filter(|&y| y < sizes.height) else {
            strip.fill(Vector::ZERO);
            continue;
        };
        let strip = &mut strip[1..=sizes.width];
        for (lane, plane) in planes.chunks_exact(sizes.height * sizes.width).enumerate() {
            for (vector, &value) in strip.iter_mut().zip(&plane[y * sizes.width..]) {
                vector.set(lane, value);
            }
        }
    }
}

/// The products of a task, `[36, tiles, channels]`, from channel `lane` on.
struct Products<'a, T> {
    values: &'a [T],
    n_tiles: usize,
    padded: usize,
    lane: usize,
}

impl<T: Element> Products<'_, T> {
    #[inline(always)]
    fn at(&self, position: usize, tile: usize) -> Vector<T> {
        let start = (position * self.n_tiles + tile) * self.padded + self.lane;
        Vector::first(&self.values[start..][..LANES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The convolution by its definition.
    fn direct([x, weight, bias]: [&[f64]; 3], geometry: &Geometry) -> Vec<f64> {
        let ([inputs, outputs], [height, width]) = (geometry.channels, geometry.size);
        let mut y = vec![0.0; geometry.batch * outputs * height * width];
        for (index, y) in y.iter_mut().enumerate() {
            let (column, row) = (index % width, index / width % height);
            let (output, picture) =
                (index / (width * height) % outputs, index / (width * height * outputs));
            *y = bias.get(output).copied().unwrap_or(0.0);
            for input in 0..inputs {
                for k in 0..WINDOW {
                    let at = |i: usize, k: usize, limit: usize| {
                        (i + k).checked_sub(1).filter(|&i| i < limit)
                    };
                    let pixel = at(row, k / 3, height).zip(at(column, k % 3, width));
                    let Some((row, column)) = pixel else { continue };
                    let pixel = ((picture * inputs + input) * height + row) * width + column;
                    *y += x[pixel] * weight[(output * inputs + input) * WINDOW + k];
                }
            }
        }
        y
    }

    fn values(n_values: usize, seed: u64) -> Vec<f64> {
        let mut stream = recipes::draws::keyed(seed, "winograd");
        (0..n_values).map(|_| recipes::draws::uniform(&mut stream) - 0.5).collect()
    }

    fn geometry(batch: usize, channels: [usize; 2], size: [usize; 2]) -> Geometry {
        let [inputs, outputs] = channels;
        Geometry::new([batch, inputs, size[0], size[1]], [outputs, inputs, 3, 3], 1, 1)
    }

    const CASES: [(usize, [usize; 2], [usize; 2]); 7] = [
        (1, [1, 1], [1, 1]),
        (2, [3, 5], [4, 4]),
        (1, [17, 33], [5, 7]),
        (3, [16, 64], [8, 3]),
        (1, [40, 70], [13, 9]),
        (2, [2, 100], [6, 6]),
        (1, [4, 2], [70, 70]),
    ];

    #[test]
    fn tiles_give_what_the_definition_gives() {
        for (batch, channels, size) in CASES {
            let geometry = geometry(batch, channels, size);
            let [n_in, _] = geometry.images().map(|n_values| batch * n_values);
            let (x, weight) = (values(n_in, 1), values(channels[0] * channels[1] * WINDOW, 2));
            for bias in [values(channels[1], 3), Vec::new()] {
                let operands = [&x[..], &weight, &bias];
                let found = convolve(operands, &geometry, Way::Forward);
                for (found, expected) in found.iter().zip(direct(operands, &geometry)) {
                    assert!((found - expected).abs() < 1e-12, "{size:?}: {found}, {expected}");
                }
            }
        }
    }

    /// ⟨dy, x ⋆ W⟩ = ⟨dx, x⟩ for every x and dy: the convolution is linear in x.
    #[test]
    fn the_way_back_is_the_adjoint_of_the_way_there() {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (batch, channels, size) in CASES {
            let geometry = geometry(batch, channels, size);
            let [n_in, n_out] = geometry.images().map(|n_values| batch * n_values);
            let weight = values(channels[0] * channels[1] * WINDOW, 2);
            let (x, dy) = (values(n_in, 4), values(n_out, 5));
            let y = convolve([&x, &weight, &[]], &geometry, Way::Forward);
            let dx = convolve([&dy, &weight, &[]], &geometry, Way::Backward);
            let (there, back) = (dot(&dy, &y), dot(&dx, &x));
            assert!((there - back).abs() < 1e-10, "{size:?}: {there}, {back}");
        }
    }

    #[test]
    fn single_precision_is_as_near_as_the_literature_says() {
        let geometry = geometry(1, [64, 64], [16, 16]);
        let (x, weight) = (values(64 * 256, 1), values(64 * 64 * WINDOW, 2));
        let expected = direct([&x, &weight, &[]], &geometry);
        let [x, weight] = [x, weight].map(|v| v.into_iter().map(f32::of).collect::<Vec<f32>>());
        let found = convolve([&x, &weight, &[]], &geometry, Way::Forward);
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let error = square(&mut found.iter().zip(&expected).map(|(a, b)| f64::from(*a) - b));
        let relative = (error / square(&mut expected.iter().copied())).sqrt();
        assert!(relative < 3e-6, "{relative}");
    }

    #[test]
    fn a_picture_has_the_same_bits_in_any_company() {
        let whole = geometry(5, [20, 36], [9, 6]);
        let one = geometry(1, [20, 36], [9, 6]);
        let [n_in, n_out] = one.images();
        let x: Vec<f32> = values(5 * n_in, 1).into_iter().map(f32::of).collect();
        let weight: Vec<f32> = values(20 * 36 * WINDOW, 2).into_iter().map(f32::of).collect();
        let together = convolve([&x, &weight, &[]], &whole, Way::Forward);
        for (x, y) in x.chunks(n_in).zip(together.chunks(n_out)) {
            let alone = convolve([x, &weight, &[]], &one, Way::Forward);
            assert!(alone.iter().zip(y).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
