//! The contact sheet as one picture, to be printed on A4 paper: a row or more for each series, a line
//! between series. It bears no words; those are on the page beside it.

use std::cmp::Reverse;

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use serde_json::json;

use super::album::Album;
use crate::error::JobError;
use crate::picture;

/// A4 upright at 200 dots per inch.
const PAPER_PX: [u32; 2] = [1654, 2339];
/// White around everything, 10 mm.
const MARGIN_PX: u32 = 79;
/// White between pictures, 1 mm.
const GAP_PX: u32 = 8;
/// White between series, 2 mm, with a line in its middle.
const SERIES_GAP_PX: u32 = 16;
const LINE_PX: u32 = 2;
const LINE: Rgb<u8> = Rgb([160; 3]);
/// The chunk `pHYs` of a PNG: 7874 pixels per meter both ways, which is 200 per inch, with its check
/// sum. Programs print the sheet at its size by it.
///
/// Source: PNG specification (third edition), section 11.3.4.3.
const PRINT_SIZE: [u8; 21] = [
    0, 0, 0, 9, b'p', b'H', b'Y', b's', 0, 0, 0x1e, 0xc2, 0, 0, 0x1e, 0xc2, 1, 0x6e, 0xd0, 0x75,
    0x3e,
];
/// Where it stands: behind the signature (8 bytes) and IHDR (25 bytes).
const BEHIND_HEADER: usize = 33;

/// How pictures lie on the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Side of a picture's place.
    side_px: u32,
    /// Places in a row.
    n_columns: u32,
}

impl Layout {
    /// Places for series of these sizes: of all numbers of columns whose places are not much smaller
    /// than they can be, the one that leaves the fewest places empty, and of these the largest, so
    /// that a series has few rows.
    fn of(sizes: &[usize]) -> Self {
        let most = sizes.iter().copied().max().unwrap_or(1).max(1);
        let layouts: Vec<Self> = (1..=most).map(|n| Self::with_columns(n, sizes)).collect();
        let largest_px = layouts.iter().map(|layout| layout.side_px).max().unwrap_or(1);
        let large = layouts.into_iter().filter(|layout| layout.side_px * 4 >= largest_px * 3);
        let best = large.min_by_key(|layout| (layout.n_empty(sizes), Reverse(layout.n_columns)));
        best.unwrap_or_else(|| Self::with_columns(1, sizes))
    }

    /// The largest places with which so many fit beside each other and all of them on the sheet.
    fn with_columns(n_columns: usize, sizes: &[usize]) -> Self {
        let [width, height] = PAPER_PX.map(|px| px - 2 * MARGIN_PX);
        let n_columns = count(n_columns);
        let n_rows: u32 = sizes.iter().map(|&n| count(n).div_ceil(n_columns)).sum();
        let n_series = count(sizes.len());
        // The last row of a series has no gap below it.
        let breaks = n_series.saturating_sub(1) * SERIES_GAP_PX;
        let room = (height + n_series * GAP_PX).saturating_sub(breaks);
        let side_px = ((width + GAP_PX) / n_columns).min(room / n_rows.max(1));
        Self { side_px: side_px.saturating_sub(GAP_PX).max(1), n_columns }
    }

    /// Places of all rows that no picture takes.
    fn n_empty(self, sizes: &[usize]) -> u32 {
        sizes.iter().map(|&n| self.n_rows(n) * self.n_columns - count(n)).sum()
    }

    fn n_rows(self, n_pictures: usize) -> u32 {
        count(n_pictures).div_ceil(self.n_columns)
    }

    /// Height of a series in pixels.
    fn series_height(self, n_pictures: usize) -> u32 {
        (self.n_rows(n_pictures) * (self.side_px + GAP_PX)).saturating_sub(GAP_PX)
    }

    /// Left and top of a picture in its series.
    fn place(self, index: usize, top: u32) -> [u32; 2] {
        let index = count(index);
        let step = self.side_px + GAP_PX;
        [MARGIN_PX + index % self.n_columns * step, top + index / self.n_columns * step]
    }
}

/// A number of things, of which there are never more than a few thousand.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The sheet of an album as PNG.
///
/// # Errors
///
/// A picture that cannot be read.
pub(super) fn sheet(album: &Album<'_>) -> Result<Vec<u8>, JobError> {
    let series: Vec<Vec<usize>> = album.series().into_iter().map(|(_, places)| places).collect();
    let paper = laid(&series, &|place| album.image(place))?;
    let about = json!({ "series": album.name(), "provenance": album.provenance() }).to_string();
    let mut bytes = picture::png(&paper, &[("populate", &about)])?;
    drop(bytes.splice(BEHIND_HEADER..BEHIND_HEADER, PRINT_SIZE));
    Ok(bytes)
}

/// The pictures of each series on one sheet.
fn laid(
    series: &[Vec<usize>],
    read: &dyn Fn(usize) -> Result<RgbImage, JobError>,
) -> Result<RgbImage, JobError> {
    let sizes: Vec<usize> = series.iter().map(Vec::len).collect();
    let layout = Layout::of(&sizes);
    let [width, height] = PAPER_PX;
    let mut paper = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    let mut top = MARGIN_PX;
    for (index, places) in series.iter().enumerate() {
        if index > 0 {
            let line = RgbImage::from_pixel(width - 2 * MARGIN_PX, LINE_PX, LINE);
            let middle = top + (SERIES_GAP_PX - LINE_PX) / 2;
            imageops::replace(&mut paper, &line, i64::from(MARGIN_PX), i64::from(middle));
            top += SERIES_GAP_PX;
        }
        for (index, &place) in places.iter().enumerate() {
            let mounted = mounted(&read(place)?, layout.side_px);
            let [left, above] = layout.place(index, top);
            let centered = |start: u32, px: u32| i64::from(start + (layout.side_px - px) / 2);
            let [x, y] = [centered(left, mounted.width()), centered(above, mounted.height())];
            imageops::replace(&mut paper, &mounted, x, y);
        }
        top += layout.series_height(places.len());
    }
    Ok(paper)
}

/// The picture in a place: a larger one reduced, a smaller one with each pixel so many times as wide
/// and high as there is room for.
fn mounted(picture: &RgbImage, side_px: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let times = side_px / width.max(height).max(1);
    if times > 1 {
        imageops::resize(picture, width * times, height * times, FilterType::Nearest)
    } else {
        picture::within(picture, side_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_full_where_that_costs_little() {
        // Computed by a program of its own in Python.
        for (sizes, side_px, n_columns) in [
            (vec![6; 4], 242, 6),
            (vec![12; 8], 117, 12),
            (vec![1], 1496, 1),
            (vec![4, 1], 719, 2),
            (vec![7, 5, 6], 302, 3),
            (vec![999, 999], 32, 37),
            (vec![32; 32], 39, 32),
            (vec![64; 32], 22, 32),
        ] {
            let layout = Layout::of(&sizes);
            assert_eq!(layout, Layout { side_px, n_columns }, "{sizes:?}");
            let heights = sizes.iter().map(|&n| layout.series_height(n)).sum::<u32>();
            let breaks = count(sizes.len() - 1) * SERIES_GAP_PX;
            assert!(heights + breaks + 2 * MARGIN_PX <= PAPER_PX[1], "{sizes:?}");
            let width = n_columns * (side_px + GAP_PX) - GAP_PX;
            assert!(width + 2 * MARGIN_PX <= PAPER_PX[0], "{sizes:?}");
        }
    }

    #[test]
    fn series_are_separated_and_pictures_stand_in_rows() {
        let read = |place: usize| -> Result<RgbImage, JobError> {
            Ok(RgbImage::from_pixel(8, 8, Rgb([place as u8; 3])))
        };
        let series = [vec![1, 2, 3, 4], vec![5]];
        let paper = laid(&series, &read).unwrap();
        assert_eq!(paper.dimensions(), (PAPER_PX[0], PAPER_PX[1]));
        let layout = Layout::of(&[4, 1]);
        let middle = |[left, top]: [u32; 2]| {
            paper.get_pixel(left + layout.side_px / 2, top + layout.side_px / 2).0[0]
        };
        for (index, place) in (1..=4).enumerate() {
            assert_eq!(middle(layout.place(index, MARGIN_PX)), place);
        }
        let below = MARGIN_PX + layout.series_height(4);
        assert_eq!(middle(layout.place(0, below + SERIES_GAP_PX)), 5);
        assert_eq!(*paper.get_pixel(PAPER_PX[0] / 2, below + SERIES_GAP_PX / 2), LINE);
        let corner = paper.get_pixel(MARGIN_PX - 1, MARGIN_PX - 1);
        assert_eq!(corner.0, [255; 3]);
    }

    #[test]
    fn small_pictures_grow_by_whole_pixels_and_large_ones_shrink() {
        let small = RgbImage::from_fn(2, 2, |x, y| Rgb([(x * 90 + y * 40) as u8; 3]));
        let grown = mounted(&small, 7);
        assert_eq!(grown.dimensions(), (6, 6));
        assert!(grown.enumerate_pixels().all(|(x, y, p)| p == small.get_pixel(x / 3, y / 3)));
        assert_eq!(mounted(&RgbImage::new(90, 45), 30).dimensions(), (30, 15));
        assert_eq!(mounted(&RgbImage::new(20, 20), 30).dimensions(), (20, 20));
    }

    #[test]
    fn the_sheet_says_its_size_on_paper_and_is_a_picture() {
        let paper = laid(&[vec![0]], &|_| Ok(RgbImage::new(4, 4))).unwrap();
        let mut bytes = picture::png(&paper, &[("populate", "{}")]).unwrap();
        drop(bytes.splice(BEHIND_HEADER..BEHIND_HEADER, PRINT_SIZE));
        assert_eq!(image::load_from_memory(&bytes).unwrap().into_rgb8(), paper);
        // 7874 pixels per meter are 200 per inch.
        let per_meter = u32::from_be_bytes([0, 0, 0x1e, 0xc2]);
        assert_eq!((f64::from(per_meter) * 0.0254).round().to_bits(), 200.0_f64.to_bits());
    }
}
