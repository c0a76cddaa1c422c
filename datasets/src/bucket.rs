//! Buckets: the picture sizes of one area, and how a picture is fitted into one.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// A size at which pictures are trained together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// All sizes of about `side_px`² pixels on a grid of `step_px`, sides within `min_px..=max_px`.
///
/// The square floor(side / step)·step; then for each width w on the grid the largest height
/// h = min(max, floor(side² / w / step)·step) with its transpose, where h ≥ min. Sorted, each once.
/// `step_px` must be above 0.
pub fn table(side_px: u32, min_px: u32, max_px: u32, step_px: u32) -> Vec<Bucket> {
    debug_assert!(step_px > 0, "a grid needs a step");
    let area = u64::from(side_px) * u64::from(side_px);
    let square = side_px / step_px * step_px;
    let mut sizes = BTreeSet::from([Bucket { width: square, height: square }]);
    let mut width = min_px;
    while width <= max_px {
        let step = u64::from(step_px);
        let height = (area / u64::from(width.max(1)) / step * step).min(u64::from(max_px));
        let height = u32::try_from(height).unwrap_or(max_px);
        if height >= min_px {
            sizes.insert(Bucket { width, height });
            sizes.insert(Bucket { width: height, height: width });
        }
        width += step_px;
    }
    sizes.into_iter().collect()
}

/// The sizes used for a dataset of that side: one square below 256 px, else the [`table`] from half
/// to twice the side on a grid of 64.
pub(crate) fn sizes(side_px: u32) -> Vec<Bucket> {
    const BUCKETED_FROM_PX: u32 = 256;
    const STEP_PX: u32 = 64;
    if side_px < BUCKETED_FROM_PX {
        return vec![Bucket { width: side_px, height: side_px }];
    }
    let min_px = (side_px / 2).next_multiple_of(STEP_PX);
    table(side_px, min_px, side_px * 2, STEP_PX)
}

/// The bucket whose shape is nearest to `width` × `height`: least |ln(w/h) − ln(bw/bh)|, ties to the
/// larger area, then to the smaller width.
///
/// Comparing logarithms treats a picture and its transpose alike; plain ratios do not.
///
/// # Panics
///
/// If `buckets` is empty.
pub fn assigned(width: u32, height: u32, buckets: &[Bucket]) -> Bucket {
    let mut best = buckets[0];
    for &bucket in &buckets[1..] {
        let order = distance_order((width, height), bucket, best)
            .then_with(|| area(best).cmp(&area(bucket)))
            .then_with(|| bucket.width.cmp(&best.width));
        if order == Ordering::Less {
            best = bucket;
        }
    }
    best
}

fn area(bucket: Bucket) -> u64 {
    u64::from(bucket.width) * u64::from(bucket.height)
}

/// Compares the shapes' distances exactly: |ln(a/b)| grows with max(a, b) / min(a, b).
fn distance_order((width, height): (u32, u32), one: Bucket, other: Bucket) -> Ordering {
    let ratio = |bucket: Bucket| {
        let a = u128::from(width) * u128::from(bucket.height);
        let b = u128::from(height) * u128::from(bucket.width);
        (a.max(b), a.min(b))
    };
    let ((one_high, one_low), (other_high, other_low)) = (ratio(one), ratio(other));
    (one_high * other_low).cmp(&(other_high * one_low))
}

/// How a picture is resized and cropped to fill a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Width after resizing, at least the bucket's.
    pub width: u32,
    /// Height after resizing, at least the bucket's.
    pub height: u32,
    /// Columns cut off at the left.
    pub left: u32,
    /// Rows cut off at the top.
    pub top: u32,
}

/// Fits a picture of `width` × `height` over a bucket: factor max(bw/w, bh/h), sides
/// floor(x + ½), crop from the middle, left and top floor(excess / 2). Sides must be above 0.
pub fn fit(width: u32, height: u32, bucket: Bucket) -> Fit {
    let (w, h) = (u64::from(width), u64::from(height));
    let (bw, bh) = (u64::from(bucket.width), u64::from(bucket.height));
    let (numerator, denominator) = if bw * h >= bh * w { (bw, w) } else { (bh, h) };
    let scaled = |side: u64| {
        let rounded = (2 * side * numerator + denominator) / (2 * denominator);
        u32::try_from(rounded).unwrap_or(u32::MAX)
    };
    let (scaled_width, scaled_height) = (scaled(w).max(bucket.width), scaled(h).max(bucket.height));
    Fit {
        width: scaled_width,
        height: scaled_height,
        left: (scaled_width - bucket.width) / 2,
        top: (scaled_height - bucket.height) / 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(width: u32, height: u32) -> Bucket {
        Bucket { width, height }
    }

    #[test]
    fn table_of_512_has_the_17_known_sizes() {
        let half = [
            (256, 832),
            (256, 896),
            (256, 960),
            (256, 1024),
            (320, 704),
            (320, 768),
            (384, 640),
            (448, 576),
        ];
        let mut expected: Vec<Bucket> =
            half.iter().flat_map(|&(w, h)| [bucket(w, h), bucket(h, w)]).collect();
        expected.push(bucket(512, 512));
        expected.sort();
        assert_eq!(table(512, 256, 1024, 64), expected);
        assert_eq!(sizes(512), expected);
    }

    #[test]
    fn table_of_1024_has_41_sizes_and_33_from_512() {
        assert_eq!(table(1024, 256, 2048, 64).len(), 41);
        assert_eq!(table(1024, 512, 2048, 64).len(), 33);
    }

    #[test]
    fn small_sides_have_one_square() {
        assert_eq!(sizes(64), [bucket(64, 64)]);
        assert_eq!(sizes(192), [bucket(192, 192)]);
    }

    #[test]
    fn known_pictures_are_fitted_as_documented() {
        let sizes = table(512, 256, 1024, 64);
        let check = |picture: (u32, u32), expected: (u32, u32), fitted: (u32, u32, u32, u32)| {
            let chosen = assigned(picture.0, picture.1, &sizes);
            assert_eq!((chosen.width, chosen.height), expected, "{picture:?}");
            let fit = fit(picture.0, picture.1, chosen);
            assert_eq!((fit.width, fit.height, fit.left, fit.top), fitted, "{picture:?}");
        };
        check((1920, 1080), (640, 384), (683, 384, 21, 0));
        check((3000, 2000), (640, 384), (640, 427, 0, 21));
        check((800, 600), (576, 448), (597, 448, 10, 0));
        check((4000, 1000), (1024, 256), (1024, 256, 0, 0));
    }

    #[test]
    fn a_picture_and_its_transpose_get_transposed_buckets() {
        let sizes = table(512, 256, 1024, 64);
        // The pair on which a comparison of plain ratios differs.
        let one = assigned(600, 874, &sizes);
        let other = assigned(874, 600, &sizes);
        assert_eq!((one.width, one.height), (other.height, other.width));
    }

    proptest! {
        #[test]
        fn buckets_keep_the_area_and_the_limits(side in 4_u32..40, low in 1_u32..4) {
            let side = side * 64;
            for size in table(side, low * 64, side * 2, 64) {
                prop_assert!(area(size) <= u64::from(side) * u64::from(side));
                prop_assert!(size.width % 64 == 0 && size.height % 64 == 0);
                prop_assert!(size.width >= low * 64 && size.height <= side * 2);
            }
        }

        #[test]
        fn assignment_commutes_with_transposition(width in 1_u32..5000, height in 1_u32..5000) {
            let sizes = table(512, 256, 1024, 64);
            let one = assigned(width, height, &sizes);
            let other = assigned(height, width, &sizes);
            let flipped = bucket(other.height, other.width);
            // Exact ties alone may break the symmetry.
            prop_assert!(one == flipped || distance_order((width, height), one, flipped) == Ordering::Equal);
        }

        #[test]
        fn a_fit_covers_its_bucket(width in 1_u32..5000, height in 1_u32..5000) {
            let chosen = assigned(width, height, &table(512, 256, 1024, 64));
            let fit = fit(width, height, chosen);
            prop_assert!(fit.width >= chosen.width && fit.height >= chosen.height);
            prop_assert!(fit.width == chosen.width || fit.height == chosen.height);
            prop_assert!(fit.left + chosen.width <= fit.width && fit.top + chosen.height <= fit.height);
        }
    }
}
