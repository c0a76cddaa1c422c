//! Animations: GIF, which everything shows, in 256 colors a picture, and WebP without loss.

use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::webp::WebPEncoder;
use image::{Delay, DynamicImage, ExtendedColorType, Frame, ImageError, RgbImage};

use crate::error::JobError;

/// How carefully the 256 colors of a picture are chosen, from 1 (most) to 30; 10 is the advice of
/// the encoder.
const PALETTE_SPEED: i32 = 10;
/// Bytes in front of the only chunk of a still WebP picture.
const RIFF_HEADER: usize = 12;
/// Flag of `VP8X`: the file is an animation.
const ANIMATED: u8 = 1 << 1;
/// Flag of `ANMF`: the picture replaces the one before it.
const NOT_BLENDED: u8 = 1 << 1;

/// Pictures of one size, each with the time for which it is shown, in milliseconds.
pub(super) type Film = [(RgbImage, u32)];

/// A GIF that repeats.
///
/// # Errors
///
/// [`JobError::Data`] if the encoder refuses a picture, such as one with a side above 65,535.
pub(super) fn gif(film: &Film) -> Result<Vec<u8>, JobError> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, PALETTE_SPEED);
    encoder.set_repeat(Repeat::Infinite).map_err(|error| refused(&error))?;
    for (picture, millis) in film {
        let rgba = DynamicImage::ImageRgb8(picture.clone()).into_rgba8();
        let delay = Delay::from_numer_denom_ms(*millis, 1);
        encoder
            .encode_frame(Frame::from_parts(rgba, 0, 0, delay))
            .map_err(|error| refused(&error))?;
    }
    // The trailer is written when the encoder goes.
    drop(encoder);
    Ok(bytes)
}

/// A lossless WebP animation that repeats.
///
/// Source: WebP container specification (RFC 9649), section 2.7.
///
/// # Errors
///
/// [`JobError::Data`] if the encoder refuses a picture, such as one with a side above 16,384.
pub(super) fn webp(film: &Film) -> Result<Vec<u8>, JobError> {
    let (width, height) = film.first().map_or((1, 1), |(picture, _)| picture.dimensions());
    let mut canvas = vec![ANIMATED, 0, 0, 0];
    canvas.extend(three_bytes(width - 1));
    canvas.extend(three_bytes(height - 1));
    let mut body = b"WEBP".to_vec();
    body.extend(chunk(*b"VP8X", &canvas));
    // A background that nobody sees, and no end.
    body.extend(chunk(*b"ANIM", &[255, 255, 255, 255, 0, 0]));
    for (picture, millis) in film {
        let mut frame = vec![0; 6];
        frame.extend(three_bytes(picture.width() - 1));
        frame.extend(three_bytes(picture.height() - 1));
        frame.extend(three_bytes(*millis));
        frame.push(NOT_BLENDED);
        frame.extend(&still_webp(picture)?[RIFF_HEADER..]);
        body.extend(chunk(*b"ANMF", &frame));
    }
    Ok(chunk(*b"RIFF", &body))
}

/// A picture as a WebP file: a header of twelve bytes and one chunk `VP8L`.
fn still_webp(picture: &RgbImage) -> Result<Vec<u8>, JobError> {
    let mut bytes = Vec::new();
    let (width, height) = picture.dimensions();
    WebPEncoder::new_lossless(&mut bytes)
        .encode(picture.as_raw(), width, height, ExtendedColorType::Rgb8)
        .map_err(|error| refused(&error))?;
    Ok(bytes)
}

/// A chunk of a RIFF file: name, size, data, and a byte more if the size is odd.
fn chunk(name: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = name.to_vec();
    chunk.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    chunk.extend(data);
    if data.len() % 2 == 1 {
        chunk.push(0);
    }
    chunk
}

/// The low three bytes, lowest first.
fn three_bytes(number: u32) -> [u8; 3] {
    let [low, middle, high, _] = number.to_le_bytes();
    [low, middle, high]
}

fn refused(error: &ImageError) -> JobError {
    JobError::data(format!("the animation cannot be encoded: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::codecs::gif::GifDecoder;
    use image::codecs::webp::WebPDecoder;
    use image::{AnimationDecoder, Rgb};

    use super::*;

    /// Two pictures that differ, of a size whose chunks need padding at times.
    fn film() -> Vec<(RgbImage, u32)> {
        let picture = |shift: u32| {
            RgbImage::from_fn(7, 5, |x, y| {
                Rgb([(x * 30 + shift) as u8, (y * 40) as u8, shift as u8])
            })
        };
        vec![(picture(0), 100), (picture(9), 1500), (picture(31), 20)]
    }

    fn check(frames: image::Frames<'_>) {
        let frames = frames.collect_frames().unwrap();
        assert_eq!(frames.len(), 3);
        for (frame, (picture, millis)) in frames.iter().zip(film()) {
            assert_eq!(frame.delay(), Delay::from_numer_denom_ms(millis, 1));
            let shown = DynamicImage::ImageRgba8(frame.buffer().clone()).into_rgb8();
            assert_eq!(shown, picture);
        }
    }

    #[test]
    fn a_gif_holds_all_pictures_and_their_times() {
        let bytes = gif(&film()).unwrap();
        check(GifDecoder::new(Cursor::new(bytes)).unwrap().into_frames());
    }

    #[test]
    fn an_animated_webp_holds_all_pictures_and_their_times() {
        let bytes = webp(&film()).unwrap();
        let decoder = WebPDecoder::new(Cursor::new(bytes)).unwrap();
        assert!(decoder.has_animation());
        check(decoder.into_frames());
    }
}
