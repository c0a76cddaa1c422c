//! Pictures as files: sheets of several, and PNG bytes that tell how they were made.

use image::codecs::png::PngEncoder;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::error::JobError;

/// Pixels between the pictures of a sheet.
const GAP_PX: u32 = 2;

/// Rows of pictures of one size as one picture; missing ones at the end of a row stay white.
pub(crate) fn sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
    let first = rows.iter().flatten().next();
    let (width, height) = first.map_or((1, 1), RgbImage::dimensions);
    let count = |n: usize| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
    let n_columns = count(rows.iter().map(Vec::len).max().unwrap_or(1));
    let side = |n: u32, px: u32| n.saturating_mul(px.saturating_add(GAP_PX)).saturating_sub(GAP_PX);
    let (sheet_width, sheet_height) = (side(n_columns, width), side(count(rows.len()), height));
    let mut sheet = RgbImage::from_pixel(sheet_width, sheet_height, image::Rgb([255; 3]));
    for (row, pictures) in (0_i64..).zip(rows) {
        for (column, picture) in (0_i64..).zip(pictures) {
            let at = |index: i64, px: u32| index * i64::from(px + GAP_PX);
            imageops::replace(&mut sheet, picture, at(column, width), at(row, height));
        }
    }
    sheet
}

/// Columns of a sheet that is about as wide as it is high.
pub(crate) fn square(n_pictures: usize) -> usize {
    (1..=n_pictures).find(|n| n * n >= n_pictures).unwrap_or(1)
}

/// Pictures in rows of this many columns, at least one.
pub(crate) fn rows(pictures: Vec<RgbImage>, n_columns: usize) -> Vec<Vec<RgbImage>> {
    let mut rows = Vec::new();
    let mut rest = pictures;
    while !rest.is_empty() {
        let tail = rest.split_off(n_columns.clamp(1, rest.len()));
        rows.push(std::mem::replace(&mut rest, tail));
    }
    rows
}

/// The picture, or a smaller one of the same shape whose longer side is `side_px`.
pub(crate) fn within(picture: &RgbImage, side_px: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    if longest <= side_px {
        return picture.clone();
    }
    let side = |px: u32| {
        let share = u64::from(px) * u64::from(side_px) / u64::from(longest);
        // No longer than the side, so that the conversion never falls back.
        u32::try_from(share).unwrap_or(side_px).max(1)
    };
    imageops::resize(picture, side(width), side(height), FilterType::Lanczos3)
}

/// A picture as PNG, with texts under their keywords.
///
/// # Errors
///
/// [`JobError::Data`] if the encoder refuses the picture, such as one without pixels.
pub(crate) fn png(picture: &RgbImage, texts: &[(&str, &str)]) -> Result<Vec<u8>, JobError> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|error| JobError::data(format!("the picture cannot be encoded: {error}")))?;
    // Signature (8 bytes) and IHDR (25 bytes) come first; text may stand right behind them.
    let rest = bytes.split_off(33.min(bytes.len()));
    for (keyword, text) in texts {
        bytes.extend(text_chunk(keyword, text));
    }
    bytes.extend(rest);
    Ok(bytes)
}

/// `tEXt` for Latin-1, `iTXt` for everything else.
///
/// Source: PNG specification (third edition), sections 11.3.3.2 and 11.3.3.4.
fn text_chunk(keyword: &str, text: &str) -> Vec<u8> {
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let mut data = keyword.as_bytes().to_vec();
    if let Some(latin) = latin {
        data.push(0);
        data.extend(latin);
        return chunk(*b"tEXt", &data);
    }
    // End of keyword, not compressed, compression method, no language, no translation.
    data.extend([0, 0, 0, 0, 0]);
    data.extend(text.as_bytes());
    chunk(*b"iTXt", &data)
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut chunk = length.to_be_bytes().to_vec();
    chunk.extend(kind);
    chunk.extend(data);
    chunk.extend(crc32(&chunk[4..]).to_be_bytes());
    chunk
}

/// The check sum of PNG (ISO 3309), bit by bit: texts are short.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sum_has_its_known_answers() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"IEND"), 0xae42_6082);
    }

    #[test]
    fn a_picture_with_texts_is_still_a_picture() {
        let picture = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let texts = [("parameters", "a tower\nSteps: 3"), ("populate", "{\"prompt\":\"塔\"}")];
        let bytes = png(&picture, &texts).unwrap();
        let read = image::load_from_memory(&bytes).unwrap().into_rgb8();
        assert_eq!(read, picture);
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(holds(b"tEXtparameters\0a tower\nSteps: 3"));
        assert!(holds("iTXtpopulate\0\0\0\0\0{\"prompt\":\"塔\"}".as_bytes()));
    }

    #[test]
    fn a_smaller_picture_keeps_its_shape() {
        let picture = RgbImage::from_pixel(600, 300, image::Rgb([7, 8, 9]));
        let small = within(&picture, 256);
        assert_eq!(small.dimensions(), (256, 128));
        assert!(small.pixels().all(|pixel| pixel.0 == [7, 8, 9]));
        assert_eq!(within(&picture, 600), picture);
        assert_eq!(within(&RgbImage::new(1000, 1), 10).dimensions(), (10, 1));
    }

    #[test]
    fn a_sheet_keeps_the_order_and_leaves_gaps() {
        let dot = |value| RgbImage::from_pixel(2, 1, image::Rgb([value; 3]));
        let sheet = sheet(&rows(vec![dot(1), dot(2), dot(3)], square(3)));
        assert_eq!(sheet.dimensions(), (6, 4));
        let at = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!([at(0, 0), at(4, 0), at(0, 3), at(2, 0), at(4, 3)], [1, 2, 3, 255, 255]);
    }
}
