//! From the bytes of a picture file to pixels in [−1, 1].
//!
//! Order: decode → orientation → 8-bit RGB → transparent places over a color → resize (Lanczos3) →
//! crop → mirror → x / 127.5 − 1. Transparency goes *before* resizing: colors hidden under
//! transparent places are usually black and would bleed into the edges.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use recipes::{AlphaPolicy, Flip, ImageSpec};

use crate::bucket::{Bucket, assigned, fit, sizes};
use crate::error::DatasetError;
use crate::problem::{Problem, ProblemKind};

/// Longest side of a picture, and largest number of pixels.
const MAX_SIDE_PX: u32 = 16_384;
const MAX_PIXELS: u64 = 128 << 20;
const LIMIT: &str = "16384 per side and 134217728";
/// Largest decoder buffer in bytes: 16-bit RGBA of the largest picture.
const MAX_ALLOC: u64 = MAX_PIXELS * 8;
/// Largest file in bytes.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Whether a picture is mirrored left to right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mirror {
    /// As it is.
    No,
    /// Mirrored.
    Yes,
}

/// A picture as networks see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[3, height, width]` row-major, red, green, blue, in [−1, 1].
    pub values: Vec<f32>,
}

impl Pixels {
    /// The picture mirrored left to right.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let mut values = self.values.clone();
        for row in values.chunks_exact_mut((self.width as usize).max(1)) {
            row.reverse();
        }
        Self { width: self.width, height: self.height, values }
    }
}

/// A decoded picture: upright, opaque, 8-bit.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) image: RgbImage,
    /// Whether a color profile other than sRGB was found.
    pub(crate) foreign_profile: bool,
}

/// Reads a picture file as [`crate::Dataset::pixels`] does, fitted to the bucket of its shape.
///
/// # Errors
///
/// The file cannot be read or decoded, or is transparent without a color to lay it over.
pub fn pixels(path: &Path, options: &ImageSpec, mirror: Mirror) -> Result<Pixels, DatasetError> {
    let bytes = fs_err::read(path)?;
    let decoded = decode(&bytes, options.alpha).map_err(|kind| invalid(path, kind))?;
    let (width, height) = decoded.image.dimensions();
    let bucket = assigned(width, height, &sizes(options.side_px));
    Ok(fitted(&decoded.image, bucket, mirror))
}

/// Reads a picture file: upright, opaque, 8-bit RGB; transparent places are treated as `alpha` says.
///
/// # Errors
///
/// The file cannot be read or decoded, is too large to be sensible, or is transparent without a
/// color.
pub fn image_from_file(path: &Path, alpha: AlphaPolicy) -> Result<RgbImage, DatasetError> {
    let decoded = read(path).and_then(|bytes| decode(&bytes, alpha));
    Ok(decoded.map_err(|kind| invalid(path, kind))?.image)
}

/// The error of one file.
pub(crate) fn invalid(path: &Path, kind: ProblemKind) -> DatasetError {
    let folder = path.parent().unwrap_or(path).to_owned();
    DatasetError::Invalid { folder, problems: vec![Problem { path: path.to_owned(), kind }] }
}

/// Reads a file that is not too large. One that cannot be read is a problem among others, so that
/// it hides none of them.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ProblemKind> {
    let unreadable = |error: std::io::Error| ProblemKind::Unreadable { reason: error.to_string() };
    let file = std::fs::metadata(path).map_err(unreadable)?;
    if !file.is_file() {
        // A pipe, say, would be waited for without end.
        let found = "something that is no regular file".to_owned();
        return Err(ProblemKind::Format { found });
    }
    let bytes = file.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ProblemKind::TooManyBytes { bytes, limit: MAX_FILE_BYTES });
    }
    std::fs::read(path).map_err(unreadable)
}

/// Decodes a picture; whatever the bytes, the answer is a picture or a problem, never a panic.
pub(crate) fn decode(bytes: &[u8], alpha: AlphaPolicy) -> Result<Decoded, ProblemKind> {
    // Decoders of hostile files have panicked before; one picture must not end the listing.
    catch_unwind(AssertUnwindSafe(|| decode_unguarded(bytes, alpha))).unwrap_or_else(|_| {
        Err(ProblemKind::Undecodable { reason: "the decoder gave up".to_owned() })
    })
}

fn decode_unguarded(bytes: &[u8], alpha: AlphaPolicy) -> Result<Decoded, ProblemKind> {
    let undecodable =
        |error: image::ImageError| ProblemKind::Undecodable { reason: error.to_string() };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| ProblemKind::Undecodable { reason: error.to_string() })?;
    let format = supported(reader.format(), bytes)?;
    let mut limits = Limits::default();
    // The sides are checked below, where the message can name them.
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE_PX || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(ProblemKind::TooLarge { width, height, limit: LIMIT });
    }
    let orientation = decoder.orientation().map_err(undecodable)?;
    let foreign_profile =
        decoder.icc_profile().ok().flatten().is_some_and(|profile| !names_srgb(&profile));
    let mut image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        let reason = "the JPEG data ends before its end marker".to_owned();
        return Err(ProblemKind::Undecodable { reason });
    }
    image.apply_orientation(orientation);
    Ok(Decoded { image: opaque(image, alpha)?, foreign_profile })
}

fn supported(format: Option<ImageFormat>, bytes: &[u8]) -> Result<ImageFormat, ProblemKind> {
    let read = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp];
    let found = match format {
        Some(format) if read.contains(&format) => return Ok(format),
        Some(format) => format!("{format:?}"),
        None if bytes.is_empty() => "an empty file".to_owned(),
        None => "bytes of no known format".to_owned(),
    };
    Err(ProblemKind::Format { found })
}

/// Whether the profile calls itself sRGB, in ASCII or in UTF-16.
fn names_srgb(profile: &[u8]) -> bool {
    let contains = |needle: &[u8]| profile.windows(needle.len()).any(|window| window == needle);
    contains(b"sRGB") || contains(b"s\0R\0G\0B")
}

/// Whether the main scan is followed by an end marker. The decoder itself fills what is missing
/// with grey and says nothing.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xFF => at += 1,
            0x01 | 0xD0..=0xD8 => at += 2,
            // Within the scan FF is always followed by 00 or a restart marker, so that the end
            // marker is found by its bytes; it is looked for where it should be.
            0xDA => return bytes[at..].windows(2).rev().any(|pair| pair == [0xFF, 0xD9]),
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// The picture as 8-bit RGB; transparent places are laid over the policy's color.
fn opaque(image: DynamicImage, alpha: AlphaPolicy) -> Result<RgbImage, ProblemKind> {
    if !image.color().has_alpha() {
        return Ok(image.into_rgb8());
    }
    let rgba = image.into_rgba8();
    let transparent = rgba.pixels().any(|pixel| pixel.0[3] < 255);
    let ground = match alpha {
        AlphaPolicy::Flatten(color) => color,
        AlphaPolicy::Error if transparent => return Err(ProblemKind::Transparent),
        AlphaPolicy::Error => [0; 3],
    };
    let (width, height) = rgba.dimensions();
    let over = |color: u8, alpha: u8, ground: u8| {
        let (color, alpha, ground) = (u32::from(color), u32::from(alpha), u32::from(ground));
        // At most 255, so that the conversion never falls back.
        u8::try_from((color * alpha + ground * (255 - alpha) + 127) / 255).unwrap_or(u8::MAX)
    };
    Ok(RgbImage::from_fn(width, height, |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
        let [r, g, b] = ground;
        image::Rgb([over(red, alpha, r), over(green, alpha, g), over(blue, alpha, b)])
    }))
}

/// Resizes, crops and mirrors a picture to the size of its bucket.
pub(crate) fn fitted(image: &RgbImage, bucket: Bucket, mirror: Mirror) -> Pixels {
    let mut sized = resized(image, bucket);
    if mirror == Mirror::Yes {
        image::imageops::flip_horizontal_in_place(&mut sized);
    }
    Pixels { width: bucket.width, height: bucket.height, values: planes(&sized) }
}

/// A picture at the size of its bucket and, if `flip` asks for it, its mirror image behind it: the
/// same pixels as [`fitted`] gives for both, without decoding and resizing twice.
pub(crate) fn views(image: &RgbImage, bucket: Bucket, flip: Flip) -> Vec<Pixels> {
    let upright = fitted(image, bucket, Mirror::No);
    match flip {
        Flip::Never => vec![upright],
        Flip::Random => {
            let mirrored = upright.mirrored();
            vec![upright, mirrored]
        }
    }
}

/// The red, the green and the blue plane, x / 127.5 − 1.
fn planes(image: &RgbImage) -> Vec<f32> {
    // Of 256 values each is computed once.
    let levels: [f32; 256] = std::array::from_fn(|byte| byte as f32 / 127.5 - 1.0);
    let n_pixels = image.as_raw().len() / 3;
    let mut values = vec![0.0; 3 * n_pixels];
    let (red, others) = values.split_at_mut(n_pixels);
    let (green, blue) = others.split_at_mut(n_pixels);
    let pixels = image.as_raw().chunks_exact(3);
    for (((pixel, red), green), blue) in pixels.zip(red).zip(green).zip(blue) {
        *red = levels[usize::from(pixel[0])];
        *green = levels[usize::from(pixel[1])];
        *blue = levels[usize::from(pixel[2])];
    }
    values
}

fn resized(image: &RgbImage, bucket: Bucket) -> RgbImage {
    let (width, height) = image.dimensions();
    if (width, height) == (bucket.width, bucket.height) {
        return image.clone();
    }
    let fit = fit(width, height, bucket);
    // Cropping first and in fractions of a source pixel gives the same picture as resizing the
    // whole, and a thin picture of many pixels needs no large buffer.
    let (across, down) =
        (f64::from(width) / f64::from(fit.width), f64::from(height) / f64::from(fit.height));
    let options =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).crop(
            f64::from(fit.left) * across,
            f64::from(fit.top) * down,
            (f64::from(bucket.width) * across).min(f64::from(width)),
            (f64::from(bucket.height) * down).min(f64::from(height)),
        );
    let mut target = Image::new(bucket.width, bucket.height, PixelType::U8x3);
    let resized =
        fast_image_resize::images::ImageRef::new(width, height, image.as_raw(), PixelType::U8x3)
            .map_err(|_| ())
            .and_then(|source| {
                Resizer::new().resize(&source, &mut target, &options).map_err(|_| ())
            });
    debug_assert!(resized.is_ok(), "sizes and crop follow from the picture itself");
    RgbImage::from_raw(bucket.width, bucket.height, target.into_vec())
        .unwrap_or_else(|| RgbImage::new(bucket.width, bucket.height))
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};

    use super::*;

    const WHITE: AlphaPolicy = AlphaPolicy::Flatten([255; 3]);

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// Red on the left half, blue on the right, 40 × 20.
    fn two_halves() -> RgbImage {
        RgbImage::from_fn(40, 20, |x, _| if x < 20 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) })
    }

    fn jpeg(image: &RgbImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(image).unwrap();
        bytes
    }

    /// A JPEG with an Exif segment that holds nothing but the orientation.
    fn jpeg_turned(image: &RgbImage, orientation: u8) -> Vec<u8> {
        let plain = jpeg(image);
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        [&plain[..2], &[0xFF, 0xE1], &length, &exif, &plain[2..]].concat()
    }

    #[test]
    fn all_four_formats_are_read() {
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let decoded = decode(&encoded(two_halves(), format), AlphaPolicy::Error).unwrap();
            assert_eq!(decoded.image, two_halves(), "{format:?}");
        }
        let decoded = decode(&jpeg(&two_halves()), AlphaPolicy::Error).unwrap();
        assert!(decoded.image.get_pixel(2, 2).0[0] > 220);
    }

    #[test]
    fn exif_orientation_turns_the_picture_upright() {
        // Orientation 6: to be turned a quarter clockwise, so that the left edge comes to the top.
        let decoded = decode(&jpeg_turned(&two_halves(), 6), AlphaPolicy::Error).unwrap();
        assert_eq!(decoded.image.dimensions(), (20, 40));
        assert!(decoded.image.get_pixel(10, 3).0[0] > 200, "red at the top");
        assert!(decoded.image.get_pixel(10, 36).0[2] > 200, "blue at the bottom");
        let decoded = decode(&jpeg_turned(&two_halves(), 3), AlphaPolicy::Error).unwrap();
        assert!(decoded.image.get_pixel(3, 10).0[2] > 200, "half a turn");
    }

    #[test]
    fn sixteen_bit_and_grey_become_eight_bit_rgb() {
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> =
            ImageBuffer::from_fn(2, 1, |x, _| Luma([if x == 0 { 65_535 } else { 128 * 257 }]));
        let decoded = decode(&encoded(deep, ImageFormat::Png), AlphaPolicy::Error).unwrap();
        assert_eq!(decoded.image.as_raw(), &[255, 255, 255, 128, 128, 128]);
    }

    #[test]
    fn transparency_is_refused_unless_a_color_is_named() {
        let clear = image::RgbaImage::from_pixel(4, 4, Rgba([0, 0, 0, 0]));
        let bytes = encoded(clear, ImageFormat::Png);
        assert_eq!(decode(&bytes, AlphaPolicy::Error).unwrap_err(), ProblemKind::Transparent);
        let flat = decode(&bytes, AlphaPolicy::Flatten([10, 20, 30])).unwrap();
        assert_eq!(flat.image.get_pixel(1, 1).0, [10, 20, 30]);
        let half: ImageBuffer<LumaA<u8>, Vec<u8>> = ImageBuffer::from_pixel(2, 2, LumaA([0, 128]));
        let flat = decode(&encoded(half, ImageFormat::Png), WHITE).unwrap();
        assert_eq!(flat.image.get_pixel(0, 0).0, [127; 3]);
    }

    #[test]
    fn an_opaque_alpha_channel_is_no_transparency() {
        let opaque = image::RgbaImage::from_pixel(4, 4, Rgba([9, 8, 7, 255]));
        let decoded = decode(&encoded(opaque, ImageFormat::Png), AlphaPolicy::Error).unwrap();
        assert_eq!(decoded.image.get_pixel(0, 0).0, [9, 8, 7]);
    }

    #[test]
    fn black_under_transparency_does_not_bleed_into_edges() {
        let cut_out = image::RgbaImage::from_fn(256, 256, |x, _| {
            if x < 128 { Rgba([255, 255, 255, 255]) } else { Rgba([0, 0, 0, 0]) }
        });
        let decoded = decode(&encoded(cut_out, ImageFormat::Png), WHITE).unwrap();
        let pixels = fitted(&decoded.image, Bucket { width: 64, height: 64 }, Mirror::No);
        assert!(pixels.values.iter().all(|value| *value > 0.99), "an edge is visible");
    }

    #[test]
    fn hostile_bytes_are_problems_and_never_panics() {
        let png = encoded(two_halves(), ImageFormat::Png);
        let jpeg = jpeg(&two_halves());
        let webp = encoded(two_halves(), ImageFormat::WebP);
        let bmp = encoded(two_halves(), ImageFormat::Bmp);
        for whole in [&png, &jpeg, &webp, &bmp] {
            for share in 1..10 {
                let cut = &whole[..whole.len() * share / 10];
                assert!(
                    decode(cut, AlphaPolicy::Error).is_err(),
                    "{share}/10 of {:?}",
                    &whole[..4]
                );
            }
            // Damage may go unnoticed where a format has no checksum; it may not panic.
            for at in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 0xFF;
                let _ = decode(&damaged, AlphaPolicy::Error);
            }
        }
        assert!(matches!(decode(b"", WHITE), Err(ProblemKind::Format { .. })));
        assert!(matches!(decode(b"a text", WHITE), Err(ProblemKind::Format { .. })));
        let gif = decode(b"GIF89a\x01\0\x01\0\0\0\0;", WHITE);
        assert_eq!(gif.unwrap_err(), ProblemKind::Format { found: "Gif".to_owned() });
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        let mut png = encoded(two_halves(), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let found = decode(&png, AlphaPolicy::Error).unwrap_err();
        assert!(
            matches!(found, ProblemKind::TooLarge { width: 65_535, height: 65_535, .. }),
            "{found:?}"
        );
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 }
            })
        })
    }

    #[test]
    fn pixels_are_planes_between_minus_one_and_one() {
        let image =
            RgbImage::from_fn(
                2,
                2,
                |x, y| if (x, y) == (1, 0) { Rgb([255, 0, 51]) } else { Rgb([0; 3]) },
            );
        let bucket = Bucket { width: 2, height: 2 };
        let pixels = fitted(&image, bucket, Mirror::No);
        assert_eq!(pixels.values[..4], [-1.0, 1.0, -1.0, -1.0]);
        assert_eq!(pixels.values[4..8], [-1.0; 4]);
        assert!((pixels.values[9] - (-0.6)).abs() < 1e-6);
        assert_eq!(fitted(&image, bucket, Mirror::Yes).values[..4], [1.0, -1.0, -1.0, -1.0]);
    }

    #[test]
    fn every_level_is_divided_and_shifted() {
        let all = RgbImage::from_fn(16, 16, |x, y| {
            let level = u8::try_from(16 * y + x).unwrap();
            Rgb([level, 255 - level, 7])
        });
        let pixels = fitted(&all, Bucket { width: 16, height: 16 }, Mirror::No);
        for level in 0..=255_u8 {
            let at = usize::from(level);
            let expected = |level: u8| (f32::from(level) / 127.5 - 1.0).to_bits();
            let found = [0, 256, 512].map(|plane| pixels.values[plane + at].to_bits());
            assert_eq!(found, [expected(level), expected(255 - level), expected(7)]);
        }
    }

    #[test]
    fn a_wide_picture_keeps_its_middle() {
        // Thirds of red, green, blue: the square crop of the middle is green.
        let wide = RgbImage::from_fn(300, 100, |x, _| {
            let mut color = [0; 3];
            color[usize::try_from(x / 100).unwrap()] = 255;
            Rgb(color)
        });
        let pixels = fitted(&wide, Bucket { width: 50, height: 50 }, Mirror::No);
        let mean = |plane: usize| {
            pixels.values[plane * 2500..(plane + 1) * 2500].iter().sum::<f32>() / 2500.0
        };
        assert!(mean(0) < -0.95 && mean(1) > 0.95 && mean(2) < -0.95);
    }

    #[test]
    fn a_thin_picture_of_many_pixels_is_fitted_without_a_large_buffer() {
        let thin = RgbImage::from_pixel(16_000, 2, Rgb([200, 100, 50]));
        let pixels = fitted(&thin, Bucket { width: 64, height: 64 }, Mirror::No);
        assert_eq!(pixels.values.len(), 3 * 64 * 64);
        assert!((pixels.values[100] - (200.0 / 127.5 - 1.0)).abs() < 0.01);
    }
}
