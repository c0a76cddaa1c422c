//! Pictures inside the page, as `data:` URIs.

use std::io::Cursor;

/// Longest side of an embedded picture in pixels; larger ones are reduced.
const LONGEST_PX: u32 = 192;
/// JPEG quality of reduced pictures.
const QUALITY: u8 = 84;

/// A `data:` URI of a PNG. Small pictures are embedded as they are, so that every pixel is the one
/// that was counted; larger ones become a JPEG of at most [`LONGEST_PX`].
pub(super) fn data_uri(png: &[u8]) -> String {
    reduced(png).map_or_else(
        || format!("data:image/png;base64,{}", base64(png)),
        |jpeg| format!("data:image/jpeg;base64,{}", base64(&jpeg)),
    )
}

/// The picture as a smaller JPEG; `None` if it is small already or cannot be decoded.
fn reduced(png: &[u8]) -> Option<Vec<u8>> {
    let picture = image::load_from_memory(png).ok()?;
    if picture.width().max(picture.height()) <= LONGEST_PX {
        return None;
    }
    let small = picture.resize(LONGEST_PX, LONGEST_PX, image::imageops::FilterType::CatmullRom);
    let mut bytes = Cursor::new(Vec::new());
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    small.to_rgb8().write_with_encoder(encoder).ok()?;
    Some(bytes.into_inner())
}

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
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
mod tests {
    use super::*;

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn base64_of_the_standard() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[255, 254, 253]), "//79");
    }

    #[test]
    fn large_pictures_are_reduced_and_small_ones_kept() {
        let png = |side| {
            let mut bytes = Cursor::new(Vec::new());
            image::RgbImage::new(side, side).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        assert!(data_uri(&png(64)).starts_with("data:image/png;base64,iVBOR"));
        assert!(data_uri(&png(512)).starts_with("data:image/jpeg;base64,/9j/"));
        assert!(data_uri(b"no picture").starts_with("data:image/png"));
    }
}
