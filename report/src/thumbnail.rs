//! Pictures made small enough for a page, and bytes as text.

use std::io::Cursor;

/// JPEG quality of reduced pictures.
const QUALITY: u8 = 86;

/// A picture of a size that a page can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reduced {
    /// The file.
    pub(crate) bytes: Vec<u8>,
    /// Width in pixels.
    pub(crate) width: u32,
    /// Height in pixels.
    pub(crate) height: u32,
    /// Whether it became a JPEG; else it is the PNG that was given.
    pub(crate) jpeg: bool,
}

impl Reduced {
    /// The ending of its file name.
    pub(crate) fn extension(&self) -> &'static str {
        if self.jpeg { "jpg" } else { "png" }
    }
}

/// A PNG of at most `longest_px` as it is, so that every pixel is the one that was counted; a larger
/// one as a JPEG of that size. `None` if it is no PNG or cannot be decoded.
pub(crate) fn reduced(png: &[u8], longest_px: u32) -> Option<Reduced> {
    let [width, height] = sides(png)?;
    if width.max(height) <= longest_px {
        return Some(Reduced { bytes: png.to_vec(), width, height, jpeg: false });
    }
    let picture = image::load_from_memory(png).ok()?;
    let small = picture.resize(longest_px, longest_px, image::imageops::FilterType::CatmullRom);
    let mut bytes = Cursor::new(Vec::new());
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    small.to_rgb8().write_with_encoder(encoder).ok()?;
    let (width, height) = (small.width(), small.height());
    Some(Reduced { bytes: bytes.into_inner(), width, height, jpeg: true })
}

/// Width and height as the header of a PNG says them, without decoding it.
///
/// Source: PNG specification (W3C, third edition), sections 5.2 and 11.2.1.
fn sides(png: &[u8]) -> Option<[u32; 2]> {
    let rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let side = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    Some([side(8)?, side(12)?])
}

/// Base64 with padding (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let sextet = (word >> (18 - 6 * i)) & 63;
            let letter = usize::try_from(sextet).map_or(b'=', |index| ALPHABET[index]);
            text.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A gray square.
    pub(crate) fn png(side: u32, gray: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let picture = image::RgbImage::from_pixel(side, side, image::Rgb([gray; 3]));
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn base64_of_the_standard() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[255, 254, 253]), "//79");
    }

    #[test]
    fn large_pictures_are_reduced_and_small_ones_kept() {
        let small = reduced(&png(64, 7), 64).unwrap();
        assert_eq!((small.width, small.height, small.extension()), (64, 64, "png"));
        assert_eq!(small.bytes, png(64, 7));
        let large = reduced(&png(512, 7), 128).unwrap();
        assert_eq!((large.width, large.height, large.extension()), (128, 128, "jpg"));
        assert!(large.bytes.starts_with(&[0xff, 0xd8]));
        assert_eq!(reduced(b"no picture", 64), None);
        assert_eq!(reduced(&png(64, 7)[..12], 64), None);
    }
}
