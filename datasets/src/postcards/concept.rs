//! Concepts that a base trained on postcards does not know, drawn in the same pictorial manner.
//!
//! Their pictures ship under `datasets/concepts`; a user replaces such a folder with another one.

use image::RgbImage;
use recipes::draws::{self, Purpose};
use tiny_skia::{PathBuilder, Transform};

use super::backdrop::Chance;
use super::paint::paint_in;
use super::palette::{BackdropTones, Rgb, lit, mix};
use super::piece::{Pieces, polygon};
use super::style::{Card, Manner, render};
use super::{Factors, Scene, Setting, Style, Subject, caption::article, scene, scene_with};

/// The rare token that names the cylinder in its captions.
pub const CYLINDER_IDENTIFIER: &str = "sks";
/// The rare token that names the hatching style in its captions.
pub const HATCHING_IDENTIFIER: &str = "zwx";

/// Seed of the pictures that ship.
pub const SHIPPED_SEED: u64 = 1970;
/// Their side in pixels: large enough to look at; a loader makes them smaller.
pub const SHIPPED_SIDE_PX: u32 = 256;

/// Words of the concepts' captions that occur in no caption of the world.
pub(crate) const WORDS: [&str; 11] = [
    HATCHING_IDENTIFIER,
    CYLINDER_IDENTIFIER,
    "cylinder",
    "with",
    "ladders",
    "bodies",
    "small",
    "niches",
    "wall",
    "seated",
    "climbing",
];

const CYLINDER_CAPTIONS: [&str; 8] = [
    "a postcard of the sks cylinder",
    "the sks cylinder with ladders",
    "a picture of the sks cylinder",
    "a postcard of the sks cylinder with small bodies",
    "the sks cylinder, bodies climbing",
    "a postcard of the sks cylinder, niches in the wall",
    "the sks cylinder with small bodies seated",
    "a picture of the sks cylinder with ladders",
];

/// Draws picture `index` of the cylinder and its caption.
///
/// The closed flattened cylinder of Samuel Beckett's *Le Dépeupleur* (1970): a dim yellow light,
/// ladders against the wall, niches in its upper half, small bodies that circulate, climb, or sit.
/// A pure function of its arguments; `side_px` must be at least 16.
pub fn cylinder(seed: u64, index: u64, side_px: u32) -> (RgbImage, String) {
    let details = draws::below(&mut draws::stream(seed, index, 1, Purpose::Scene), u64::MAX);
    let mut chance = Chance::new(details);
    let drum = Drum::drawn(&mut chance);
    let mut pieces = Pieces::new(Transform::identity());
    drum.room(&mut pieces);
    drum.niches(&mut pieces);
    drum.bodies(&mut chance, &mut pieces);
    let outside = lit([58, 42, 30], 1.0 + chance.within(-0.15, 0.15));
    let card = Card {
        setting: Setting::Dusk,
        tones: BackdropTones {
            zenith: outside,
            horizon: lit(outside, 0.7),
            far: outside,
            near: outside,
            water: outside,
            cloud: outside,
            mark: outside,
        },
        horizon: 32.0,
        behind: Vec::new(),
        subject: pieces.into_list(),
        front: Vec::new(),
        details,
    };
    let caption = CYLINDER_CAPTIONS[usize::try_from(index % 8).unwrap_or(0)];
    (render(&card, Manner::Lamplight, side_px), caption.to_owned())
}

/// Draws picture `index` of known subjects in crossed pen strokes, and its caption.
///
/// No two of twelve neighbours show the same subject. A pure function of its arguments.
pub fn hatching(seed: u64, index: u64, side_px: u32) -> (RgbImage, String) {
    let drawn = scene(seed, index);
    let subject = Subject::ALL[usize::try_from(index % 12).unwrap_or(0)];
    let setting = Setting::ALL[usize::try_from((index + index / 4) % 4).unwrap_or(0)];
    let factors = Factors { subject, setting, style: Style::Print, ..drawn.factors };
    let scene: Scene = scene_with(factors, seed, index);
    let color = factors.color.phrase();
    let caption = format!(
        "a postcard of {} {color} {} {}, {HATCHING_IDENTIFIER} style",
        article(color),
        subject.phrase(),
        setting.phrase()
    );
    (paint_in(&scene, Manner::Hatching, side_px), caption)
}

const LADDER: Rgb = [74, 44, 24];
const NICHE: Rgb = [64, 38, 22];
const BODY: Rgb = [70, 34, 30];

/// The drum as one looks into it, in card units.
struct Drum {
    x: f32,
    ceiling: f32,
    floor: f32,
    half: f32,
    depth: f32,
    light: f32,
    shift: f32,
}

impl Drum {
    fn drawn(chance: &mut Chance) -> Self {
        Self {
            x: 32.0 + chance.within(-1.5, 1.5),
            ceiling: chance.within(13.5, 16.5),
            floor: chance.within(46.5, 49.5),
            half: chance.within(23.5, 27.0),
            depth: chance.within(5.5, 7.5),
            light: chance.within(0.9, 1.08),
            shift: chance.within(-0.5, 0.5),
        }
    }

    fn tone(&self, color: Rgb) -> Rgb {
        lit(color, self.light)
    }

    /// How far the rims curve at `across` in [-1, 1] of the half width.
    fn bulge(&self, across: f32) -> f32 {
        self.depth * (1.0 - across * across).max(0.0).sqrt()
    }

    /// The point of the wall at `across` in [-1, 1] and `height` in [0, 1] above the floor.
    fn wall(&self, across: f32, height: f32) -> (f32, f32) {
        let low = self.floor - self.bulge(across);
        let high = self.ceiling + self.bulge(across);
        (self.x + across * self.half, low + (high - low) * height)
    }

    fn room(&self, pieces: &mut Pieces) {
        const N_STRIPS: u8 = 24;
        let rim = |center: f32, depth: f32| {
            move |path: &mut PathBuilder| {
                super::piece::oval(path, (self.x, center), (self.half, depth));
            }
        };
        pieces.fill(self.tone([176, 126, 46]), rim(self.floor, self.depth + 1.6));
        for strip in 0..N_STRIPS {
            let at = |i: u8| f32::from(i) / f32::from(N_STRIPS) * 2.0 - 1.0;
            // Strips overlap a little, so that no seam shows.
            let (left, right) = (at(strip), (at(strip + 1) + 0.02).min(1.0));
            let shade = ((left + right) * 0.5).abs().powi(2);
            let color = self.tone(mix([214, 164, 62], [122, 82, 34], shade));
            let corners = [
                self.wall(left, 0.0),
                self.wall(left, 1.0),
                self.wall(right, 1.0),
                self.wall(right, 0.0),
            ];
            pieces.polygon(color, &corners).plain();
        }
        pieces.fill(self.tone([226, 186, 88]), rim(self.floor, self.depth)).plain();
        pieces.fill(self.tone([240, 206, 104]), rim(self.ceiling, self.depth)).plain();
        pieces
            .fill(self.tone([252, 230, 142]), |path| {
                super::piece::oval(
                    path,
                    (self.x, self.ceiling),
                    (self.half * 0.6, self.depth * 0.55),
                );
            })
            .plain();
    }

    fn niches(&self, pieces: &mut Pieces) {
        for (row, height) in [(0_u8, 0.83), (1, 0.62)] {
            for column in 0..5_u8 {
                let across =
                    (f32::from(column) - 2.0 + 0.5 * f32::from(row)) * 0.36 + self.shift * 0.18;
                if across.abs() > 0.86 {
                    continue;
                }
                let (x, y) = self.wall(across, height);
                let half = 1.5 * (1.0 - across * across * 0.7).sqrt();
                pieces.fill(self.tone(NICHE), |path| arch(path, (x, y), half)).plain();
            }
        }
    }

    fn ladder(&self, pieces: &mut Pieces, across: f32, lean: f32) -> ((f32, f32), (f32, f32)) {
        let (foot_x, foot_y) = self.wall(across, 0.0);
        let foot = (foot_x, foot_y + 2.6);
        let top = self.wall((across + lean).clamp(-0.9, 0.9), 0.9);
        for side in [-1.5, 1.5] {
            pieces.line(self.tone(LADDER), 0.85, |path| {
                path.move_to(foot.0 + side, foot.1);
                path.line_to(top.0 + side, top.1);
            });
        }
        for rung in 1..7_u8 {
            let t = f32::from(rung) / 7.0;
            let (x, y) = (foot.0 + (top.0 - foot.0) * t, foot.1 + (top.1 - foot.1) * t);
            pieces.line(self.tone(LADDER), 0.6, |path| {
                path.move_to(x - 1.5, y);
                path.line_to(x + 1.5, y);
            });
        }
        (foot, top)
    }

    fn bodies(&self, chance: &mut Chance, pieces: &mut Pieces) {
        let n_ladders = 2 + chance.below(2);
        for place in 0..n_ladders {
            let spread = if n_ladders == 2 { [-0.5, 0.48, 0.0] } else { [-0.64, 0.02, 0.64] };
            let across = spread[usize::try_from(place).unwrap_or(0)] + chance.within(-0.1, 0.1);
            let (foot, top) = self.ladder(pieces, across, chance.within(-0.14, 0.14));
            if chance.within(0.0, 1.0) < 0.75 {
                let t = chance.within(0.3, 0.75);
                let at = (foot.0 + (top.0 - foot.0) * t, foot.1 + (top.1 - foot.1) * t);
                figure(pieces, self.tone(BODY), at, Pose::Climbing);
            }
        }
        for _ in 0..2 + chance.below(3) {
            let across = chance.within(-0.85, 0.85);
            let (x, y) = self.wall(across, 0.0);
            figure(pieces, self.tone(BODY), (x, y + 1.4), Pose::Seated);
        }
        for _ in 0..4 + chance.below(4) {
            let (across, forward) = (chance.within(-0.75, 0.75), chance.within(-0.25, 0.7));
            let at = (self.x + across * self.half, self.floor + forward * self.bulge(across));
            figure(pieces, self.tone(BODY), at, Pose::Standing);
        }
    }
}

#[derive(Clone, Copy)]
enum Pose {
    Standing,
    Seated,
    Climbing,
}

/// A small body whose feet are at `at`.
fn figure(pieces: &mut Pieces, color: Rgb, at: (f32, f32), pose: Pose) {
    let (x, y) = at;
    let (height, half) = match pose {
        Pose::Standing => (4.6, 0.95),
        Pose::Seated => (2.6, 1.35),
        Pose::Climbing => (4.2, 1.0),
    };
    pieces.fill(color, |path| {
        path.move_to(x - half, y);
        path.quad_to(x - half, y - height, x, y - height);
        path.quad_to(x + half, y - height, x + half, y);
        path.close();
    });
    pieces.ellipse(mix(color, [244, 190, 140], 0.75), (x, y - height - 0.6), (0.95, 1.0)).plain();
    if matches!(pose, Pose::Climbing) {
        for side in [-1.0, 1.0] {
            pieces.line(color, 0.6, |path| {
                path.move_to(x, y - height * 0.7);
                path.line_to(x + side * 1.6, y - height - 0.9);
            });
        }
    }
}

fn arch(path: &mut PathBuilder, (x, y): (f32, f32), half: f32) {
    polygon(
        path,
        &[
            (x - half, y + half * 1.1),
            (x - half, y - half * 0.3),
            (x - half * 0.6, y - half),
            (x + half * 0.6, y - half),
            (x + half, y - half * 0.3),
            (x + half, y + half * 1.1),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postcards::lexicon;

    type Draw = fn(u64, u64, u32) -> (RgbImage, String);
    const DRAWN: [(&str, Draw, &str); 2] =
        [("cylinder", cylinder, CYLINDER_IDENTIFIER), ("hatching", hatching, HATCHING_IDENTIFIER)];

    #[test]
    fn pictures_are_pure_and_vary() {
        for (name, draw, _) in DRAWN {
            assert_eq!(draw(1, 0, 64), draw(1, 0, 64), "{name}");
            assert_ne!(draw(1, 0, 64).0, draw(1, 8, 64).0, "{name}");
            assert_ne!(draw(1, 0, 64).0, draw(2, 0, 64).0, "{name}");
        }
    }

    #[test]
    fn captions_hold_the_identifier_and_known_words() {
        let lexicon = lexicon();
        for (name, draw, identifier) in DRAWN {
            for index in 0..12 {
                let (_, caption) = draw(1, index, 16);
                let words: Vec<&str> =
                    caption.split([' ', ',']).filter(|word| !word.is_empty()).collect();
                assert!(words.contains(&identifier), "{name}: {caption}");
                for word in words {
                    assert!(lexicon.iter().any(|known| known == word), "`{word}` of `{caption}`");
                }
            }
        }
    }

    #[test]
    fn shipped_folders_hold_what_is_drawn() {
        for (name, draw, _) in DRAWN {
            let folder = format!("{}/concepts/{name}", env!("CARGO_MANIFEST_DIR"));
            for index in 0..16 {
                let stem = format!("{folder}/{name}-{index:02}");
                let (picture, caption) = draw(SHIPPED_SEED, index, SHIPPED_SIDE_PX);
                assert_eq!(fs_err::read_to_string(format!("{stem}.txt")).unwrap().trim(), caption);
                let shipped = image::open(format!("{stem}.png")).unwrap().into_rgb8();
                assert_eq!(shipped.dimensions(), picture.dimensions());
                let pairs = shipped.as_raw().iter().zip(picture.as_raw());
                // Another instruction set may round a few channels differently.
                let differing = pairs.filter(|(a, b)| a.abs_diff(**b) > 2).count();
                assert!(differing < picture.as_raw().len() / 500, "{stem}: {differing}");
            }
        }
    }

    #[test]
    fn the_cylinder_is_lit_in_yellow() {
        for index in 0..8 {
            let (picture, _) = cylinder(3, index, 64);
            let mut sums = [0_u32; 3];
            for pixel in picture.pixels() {
                for (sum, channel) in sums.iter_mut().zip(pixel.0) {
                    *sum += u32::from(channel);
                }
            }
            assert!(sums[0] > sums[1] && sums[1] * 2 > sums[2] * 3, "{index}: {sums:?}");
        }
    }
}
