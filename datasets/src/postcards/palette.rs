//! Colors of subjects and backdrops, as 8-bit sRGB.

use super::{Color, Nuisance, Setting};

/// An opaque sRGB color.
pub(crate) type Rgb = [u8; 3];

/// The card's own paper.
pub(crate) const CREAM: Rgb = [250, 243, 224];
/// Lines of drawn outlines.
pub(crate) const INK: Rgb = [40, 30, 44];

/// `a` with the share `t` in [0, 1] of `b` mixed in.
pub(crate) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    let channel = |i: usize| byte(f32::from(a[i]) * (1.0 - t) + f32::from(b[i]) * t);
    [channel(0), channel(1), channel(2)]
}

/// `color` with every channel multiplied by `factor`, at most 255.
pub(crate) fn lit(color: Rgb, factor: f32) -> Rgb {
    color.map(|channel| byte(f32::from(channel) * factor))
}

/// The nearest 8-bit value, clamped to 0..=255.
pub(crate) fn byte(value: f32) -> u8 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of u8"
    )]
    let byte = value.round().clamp(0.0, 255.0) as u8;
    byte
}

/// The three tones in which a subject's main body is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tones {
    pub(crate) body: Rgb,
    pub(crate) dark: Rgb,
    pub(crate) light: Rgb,
    /// A neutral that stands off from the body: cream, or grey on a white body.
    pub(crate) contrast: Rgb,
}

/// Tones of a body of that color under the light of that setting.
pub(crate) fn tones(color: Color, setting: Setting) -> Tones {
    let plain = match color {
        Color::Red => [212, 36, 42],
        Color::Blue => [36, 92, 214],
        Color::Yellow => [253, 212, 34],
        Color::Green => [30, 142, 66],
        Color::Orange => [246, 128, 24],
        Color::White => [251, 249, 243],
        Color::Purple => [122, 52, 168],
        Color::Pink => [246, 126, 182],
    };
    let body = match setting {
        Setting::Day => plain,
        Setting::Dusk => mix(plain, [255, 150, 90], 0.06),
        Setting::Night => mix(lit(plain, 0.97), [90, 100, 190], 0.06),
        Setting::Snow => mix(plain, [210, 225, 240], 0.04),
    };
    let white = color == Color::White;
    Tones {
        body,
        dark: if white { mix(body, [96, 108, 140], 0.34) } else { mix(body, [26, 16, 48], 0.30) },
        light: mix(body, [255, 255, 255], 0.42),
        contrast: if white { [172, 166, 164] } else { [255, 246, 226] },
    }
}

/// Colors of the backdrop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackdropTones {
    /// Sky at the top of the card.
    pub(crate) zenith: Rgb,
    /// Sky at the horizon.
    pub(crate) horizon: Rgb,
    /// Far hills.
    pub(crate) far: Rgb,
    /// Near ground.
    pub(crate) near: Rgb,
    /// Sea.
    pub(crate) water: Rgb,
    /// Clouds.
    pub(crate) cloud: Rgb,
    /// Small marks on ground and water.
    pub(crate) mark: Rgb,
}

/// The backdrop of a setting, with the card's mood and light.
pub(crate) fn backdrop_tones(setting: Setting, nuisance: &Nuisance) -> BackdropTones {
    let [zenith, horizon, far, near, water, cloud, mark]: [Rgb; 7] = match setting {
        Setting::Day => [
            [112, 190, 236],
            [206, 234, 244],
            [150, 202, 160],
            [190, 218, 128],
            [92, 186, 206],
            [255, 255, 255],
            [132, 178, 92],
        ],
        Setting::Dusk => [
            [232, 122, 112],
            [255, 208, 136],
            [146, 92, 130],
            [104, 68, 104],
            [186, 108, 122],
            [250, 168, 146],
            [74, 46, 84],
        ],
        Setting::Night => [
            [18, 24, 68],
            [44, 58, 118],
            [30, 40, 82],
            [22, 32, 60],
            [28, 48, 96],
            [58, 70, 128],
            [58, 76, 130],
        ],
        Setting::Snow => [
            [122, 148, 178],
            [174, 192, 210],
            [206, 218, 230],
            [232, 238, 246],
            [126, 158, 182],
            [214, 224, 234],
            [176, 194, 214],
        ],
    };
    let toward: Rgb = if nuisance.mood < 0.0 { [120, 120, 220] } else { [240, 200, 140] };
    let tune = |color: Rgb| {
        lit(mix(color, toward, nuisance.mood.abs() * 0.09), 1.0 + 0.05 * nuisance.light)
    };
    BackdropTones {
        zenith: tune(zenith),
        horizon: tune(horizon),
        far: tune(far),
        near: tune(near),
        water: tune(water),
        cloud: tune(cloud),
        mark: tune(mark),
    }
}
