//! Images as columns: the pixels under a convolution's window, laid out for a product of matrices.

use core::ops::Range;

use super::element::Element;
use super::simd::vectorized;

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// Images.
    pub(crate) batch: usize,
    /// Channels that come in and go out.
    pub(crate) channels: [usize; 2],
    /// Height and width of what comes in.
    pub(crate) size: [usize; 2],
    /// Height and width of what goes out.
    pub(crate) out: [usize; 2],
    /// Side of the window.
    pub(crate) kernel: usize,
    /// Pixels from window to window.
    pub(crate) stride: usize,
    /// Zeros around the image.
    pub(crate) padding: usize,
}

impl Geometry {
    /// Sizes of `x` `[batch, inputs, height, width]` under `weight` `[outputs, inputs, k, k]`.
    pub(crate) fn new(x: [usize; 4], weight: [usize; 4], stride: usize, padding: usize) -> Self {
        let [batch, inputs, height, width] = x;
        let [outputs, of_weight, kernel, _] = weight;
        assert_eq!(inputs, of_weight, "channels of the image, channels that the weight reads");
        let along = |length: usize| (length + 2 * padding - kernel) / stride + 1;
        Self {
            batch,
            channels: [inputs, outputs],
            size: [height, width],
            out: [along(height), along(width)],
            kernel,
            stride,
            padding,
        }
    }

    /// Pixels of a channel that goes out.
    pub(crate) fn area(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Elements of an image that comes in, and of one that goes out.
    pub(crate) fn images(&self) -> [usize; 2] {
        [self.channels[0] * self.size[0] * self.size[1], self.channels[1] * self.area()]
    }

    /// Elements under the window.
    pub(crate) fn depth(&self) -> usize {
        self.channels[0] * self.kernel * self.kernel
    }

    /// Whether the columns are the image itself.
    pub(crate) fn pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Whether a row of columns is the channel, moved.
    fn keeps_width(&self) -> bool {
        self.stride == 1 && self.out == self.size
    }
}

/// One row of columns: the window's element (ky, kx) over one channel.
#[derive(Clone, Copy)]
struct Tap {
    /// Image row minus output row, in pixels, before striding.
    down: isize,
    /// Image column minus output column.
    right: isize,
}

#[inline(always)]
fn taps(geometry: &Geometry) -> impl Iterator<Item = Tap> {
    let (kernel, padding) = (geometry.kernel, geometry.padding.cast_signed());
    (0..kernel * kernel).map(move |i| Tap {
        down: (i / kernel).cast_signed() - padding,
        right: (i % kernel).cast_signed() - padding,
    })
}

vectorized! {
/// Writes the columns of one image: row r of `columns` starts at `r·stride`.
pub(crate) fn gather<T: Element>(
    geometry: &Geometry,
    image: &[T],
    columns: &mut [T],
    stride: usize,
) {
    let area = geometry.area();
    let mut rows = columns.chunks_mut(stride);
    for channel in image.chunks_exact(geometry.size[0] * geometry.size[1]) {
        for (tap, row) in taps(geometry).zip(&mut rows) {
            let row = &mut row[..area];
            if geometry.keeps_width() {
                move_channel(geometry, tap, channel, row);
            } else {
                pick_pixels(geometry, tap, channel, row);
            }
        }
    }
}
}

/// The outputs that have a pixel under `tap` in a channel of equal size, and those pixels.
#[inline(always)]
fn overlap(geometry: &Geometry, tap: Tap) -> (Range<usize>, Range<usize>) {
    let area = geometry.area();
    let shift = tap.down * geometry.size[1].cast_signed() + tap.right;
    let moved = shift.unsigned_abs().min(area);
    let (head, tail) = (0..area - moved, moved..area);
    if shift < 0 { (tail, head) } else { (head, tail) }
}

/// The outputs of each row that look beyond the left or right edge.
#[inline(always)]
fn edge(geometry: &Geometry, tap: Tap) -> Range<usize> {
    let width = geometry.size[1];
    let beyond = tap.right.unsigned_abs().min(width);
    if tap.right < 0 { 0..beyond } else { width - beyond..width }
}

#[inline(always)]
fn clear_edge<T: Element>(geometry: &Geometry, tap: Tap, row: &mut [T]) {
    let edge = edge(geometry, tap);
    if !edge.is_empty() {
        for line in row.chunks_exact_mut(geometry.size[1]) {
            line[edge.clone()].fill(T::ZERO);
        }
    }
}

#[inline(always)]
fn move_channel<T: Element>(geometry: &Geometry, tap: Tap, channel: &[T], row: &mut [T]) {
    let (outputs, pixels) = overlap(geometry, tap);
    row[..outputs.start].fill(T::ZERO);
    row[outputs.end..].fill(T::ZERO);
    row[outputs].copy_from_slice(&channel[pixels]);
    clear_edge(geometry, tap, row);
}

/// The line of the image that output line `y` sees under `tap`, and the first pixel of it.
#[inline(always)]
fn line(geometry: &Geometry, tap: Tap, y: usize) -> Option<usize> {
    let line = (y * geometry.stride).checked_add_signed(tap.down)?;
    (line < geometry.size[0]).then_some(line * geometry.size[1])
}

#[inline(always)]
fn pick_pixels<T: Element>(geometry: &Geometry, tap: Tap, channel: &[T], row: &mut [T]) {
    for (y, outputs) in row.chunks_exact_mut(geometry.out[1]).enumerate() {
        let Some(start) = line(geometry, tap, y) else {
            outputs.fill(T::ZERO);
            continue;
        };
        let line = &channel[start..][..geometry.size[1]];
        for (x, output) in outputs.iter_mut().enumerate() {
            let pixel = (x * geometry.stride).checked_add_signed(tap.right);
            *output = pixel.and_then(|pixel| line.get(pixel)).copied().unwrap_or(T::ZERO);
        }
    }
}

vectorized! {
/// Adds columns to the pixels that [`gather`] took them from; edges in `columns` are overwritten.
pub(crate) fn scatter<T: Element>(
    geometry: &Geometry,
    columns: &mut [T],
    stride: usize,
    image: &mut [T],
) {
    let area = geometry.area();
    let mut rows = columns.chunks_mut(stride);
    for channel in image.chunks_exact_mut(geometry.size[0] * geometry.size[1]) {
        for (tap, row) in taps(geometry).zip(&mut rows) {
            let row = &mut row[..area];
            if geometry.keeps_width() {
                clear_edge(geometry, tap, row);
                let (outputs, pixels) = overlap(geometry, tap);
                for (pixel, &x) in channel[pixels].iter_mut().zip(&row[outputs]) {
                    *pixel += x;
                }
            } else {
                add_pixels(geometry, tap, row, channel);
            }
        }
    }
}
}

#[inline(always)]
fn add_pixels<T: Element>(geometry: &Geometry, tap: Tap, row: &[T], channel: &mut [T]) {
    for (y, outputs) in row.chunks_exact(geometry.out[1]).enumerate() {
        let Some(start) = line(geometry, tap, y) else {
            continue;
        };
        let line = &mut channel[start..][..geometry.size[1]];
        for (x, &output) in outputs.iter().enumerate() {
            let pixel = (x * geometry.stride).checked_add_signed(tap.right);
            if let Some(pixel) = pixel.and_then(|pixel| line.get_mut(pixel)) {
                *pixel += output;
            }
        }
    }
}
