//! The picture of `--init-image`, as the VAE encodes it.

use std::path::Path;

use datasets::DatasetError;
use image::RgbImage;
use image::imageops::{self, FilterType};
use recipes::AlphaPolicy;

use super::order::InitImage;
use crate::error::JobError;

/// Over which transparent places are laid.
const GROUND: AlphaPolicy = AlphaPolicy::Flatten([255; 3]);

/// Reads a picture, upright and opaque.
///
/// # Errors
///
/// A file that cannot be read, or is no picture, or one that is too large to be sensible.
pub(super) fn read(path: &Path, strength: f64) -> Result<InitImage, JobError> {
    let image = datasets::image_from_file(path, GROUND).map_err(of_one_file)?;
    let sha256 = checkpoints::hash::file_sha256(path)?.0;
    Ok(InitImage { image, sha256, strength })
}

/// The error without its heading: the problems of a dataset are a list below its folder.
fn of_one_file(error: DatasetError) -> JobError {
    if let DatasetError::Invalid { problems, .. } = &error {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return JobError::data(problems.join("\n"));
    }
    JobError::Dataset(error)
}

/// The picture in this height and width: its largest part of that shape around the middle, resized
/// with Lanczos' kernel, as diffusers does.
pub(super) fn fitted(image: &RgbImage, [height, width]: [u32; 2]) -> RgbImage {
    let (own_width, own_height) = image.dimensions();
    if (own_width, own_height) == (width, height) {
        return image.clone();
    }
    // The larger of both scales covers both sides; the other side is cut.
    let (wide, high) =
        (u64::from(own_width) * u64::from(height), u64::from(own_height) * u64::from(width));
    let share = |own: u32, part: u64, whole: u64| {
        let exact = f64::from(own) * (part as f64 / whole as f64);
        (exact.round() as u32).clamp(1, own)
    };
    let (part_width, part_height) = if wide > high {
        (share(own_width, high, wide), own_height)
    } else {
        (own_width, share(own_height, wide, high))
    };
    let (left, top) = ((own_width - part_width) / 2, (own_height - part_height) / 2);
    let part = imageops::crop_imm(image, left, top, part_width, part_height);
    imageops::resize(&part.to_image(), width, height, FilterType::Lanczos3)
}

/// `[3, height, width]` row-major, in [−1, 1].
pub(super) fn pixels(image: &RgbImage) -> Vec<f32> {
    let plane =
        |channel: usize| image.pixels().map(move |pixel| f32::from(pixel.0[channel]) / 127.5 - 1.0);
    (0..3).flat_map(plane).collect()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// Thirds of red, green and blue from left to right.
    fn thirds(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| {
            let mut color = [0; 3];
            color[usize::try_from(3 * x / width).unwrap()] = 255;
            Rgb(color)
        })
    }

    #[test]
    fn a_wide_picture_keeps_its_middle_and_its_shape() {
        let square = fitted(&thirds(300, 100), [50, 50]);
        assert_eq!(square.dimensions(), (50, 50));
        assert!(
            square.pixels().all(|pixel| pixel.0 == [0, 255, 0]),
            "only the green third is left"
        );
        let turned = imageops::rotate90(&thirds(300, 100));
        assert!(fitted(&turned, [50, 50]).pixels().all(|pixel| pixel.0 == [0, 255, 0]));
    }

    #[test]
    fn a_picture_of_the_same_shape_is_only_resized() {
        let small = fitted(&thirds(300, 200), [20, 30]);
        assert_eq!(small.dimensions(), (30, 20));
        let at = |x| small.get_pixel(x, 10).0;
        assert_eq!([at(2), at(15), at(28)], [[255, 0, 0], [0, 255, 0], [0, 0, 255]]);
        assert_eq!(fitted(&thirds(30, 20), [20, 30]), thirds(30, 20));
        assert_eq!(fitted(&thirds(3, 2), [20, 30]).dimensions(), (30, 20));
    }

    #[test]
    fn pixels_are_planes_between_minus_one_and_one() {
        let image = RgbImage::from_fn(2, 1, |x, _| Rgb([if x == 0 { 255 } else { 0 }, 0, 51]));
        let values = pixels(&image);
        assert_eq!(values[..4], [1.0, -1.0, -1.0, -1.0]);
        assert!((values[4] + 0.6).abs() < 1e-6);
    }
}
