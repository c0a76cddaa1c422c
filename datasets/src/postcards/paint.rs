//! Painting: places the subject, composes the card and lets a manner of drawing render it.

use image::RgbImage;
use tiny_skia::Transform;

use super::backdrop::backdrop;
use super::palette::{lit, tones};
use super::piece::{Piece, Pieces};
use super::style::{Card, Manner, render};
use super::{Scene, Style, Subject, subject};

/// Side of the card in its own units; at 64 px one unit is one pixel.
pub(crate) const CARD: f32 = 64.0;

/// Paints a scene as a square RGB picture.
///
/// The card is designed at 64 px; it is drawn at several times the size and averaged down.
/// A pure function: the same scene and size give the same bytes.
pub fn paint(scene: &Scene, side_px: u32) -> RgbImage {
    let manner = match scene.factors.style {
        Style::Print => Manner::Print,
        Style::Ink => Manner::Ink,
        Style::Watercolor => Manner::Watercolor,
    };
    paint_in(scene, manner, side_px)
}

/// Paints a scene in a given manner, whatever its own style says.
pub(crate) fn paint_in(scene: &Scene, manner: Manner, side_px: u32) -> RgbImage {
    let backdrop = backdrop(scene);
    let card = Card {
        setting: scene.factors.setting,
        tones: backdrop.tones,
        horizon: backdrop.horizon,
        behind: backdrop.behind,
        subject: subject_pieces(scene),
        front: backdrop.front,
        details: scene.nuisance.details,
    };
    render(&card, manner, side_px)
}

/// The subject's pieces in card units.
fn subject_pieces(scene: &Scene) -> Vec<Piece> {
    let nuisance = &scene.nuisance;
    let place = place(scene);
    let mut tones = tones(scene.factors.color, scene.factors.setting);
    for tone in [&mut tones.body, &mut tones.dark, &mut tones.light] {
        *tone = lit(*tone, 1.0 + 0.04 * nuisance.light);
    }
    // A tower that leans falls: what stands on the ground tilts less than what floats.
    let tilt = match scene.factors.subject {
        Subject::House | Subject::Tower | Subject::Lighthouse | Subject::Mountain => {
            nuisance.tilt * 0.25
        }
        Subject::Tree | Subject::Flower | Subject::Boat | Subject::Balloon => nuisance.tilt * 0.7,
        Subject::Sun | Subject::Bird | Subject::Moon => nuisance.tilt,
        Subject::Fish => nuisance.tilt - 14.0,
    };
    let mirror = if nuisance.mirrored && faces(scene.factors.subject) { -1.0 } else { 1.0 };
    let transform = Transform::from_rotate(tilt)
        .post_scale(place.side * mirror, place.side)
        .post_translate(place.x, place.y);
    let mut pieces = Pieces::new(transform);
    subject::draw(scene.factors.subject, &tones, &mut pieces);
    pieces.into_list()
}

/// Whether the subject looks different from the other side.
fn faces(subject: Subject) -> bool {
    !matches!(subject, Subject::Sun | Subject::Tower | Subject::Lighthouse)
}

/// Centre and side of the subject's square, in card units.
#[derive(Clone, Copy, Debug)]
struct Place {
    x: f32,
    y: f32,
    side: f32,
}

fn place(scene: &Scene) -> Place {
    let nuisance = &scene.nuisance;
    let (least, most) = match scene.factors.subject {
        Subject::Mountain | Subject::Boat | Subject::House | Subject::Bird | Subject::Fish => {
            (33.0, 43.0)
        }
        Subject::Tower | Subject::Lighthouse | Subject::Balloon | Subject::Flower => (40.0, 49.0),
        Subject::Tree | Subject::Sun | Subject::Moon => (36.0, 46.0),
    };
    let side = least + (most - least) * nuisance.size;
    let x = CARD * 0.5 + 5.0 * nuisance.across;
    // Standing subjects keep their feet on the ground; the others float.
    let foot = 54.5 + 1.5 * nuisance.down;
    let y = match scene.factors.subject {
        Subject::House | Subject::Tree | Subject::Tower => foot - 0.48 * side,
        Subject::Flower => foot + 2.0 - 0.48 * side,
        Subject::Lighthouse => foot + 0.5 - 0.48 * side,
        Subject::Mountain => foot - 2.0 - 0.42 * side,
        Subject::Boat => foot - 0.40 * side,
        Subject::Fish => 30.0 + 2.5 * nuisance.down,
        Subject::Sun | Subject::Moon | Subject::Bird | Subject::Balloon => {
            30.5 + 3.0 * nuisance.down
        }
    };
    Place { x, y, side }
}

/// Where the water in front begins, in card units from the top.
pub(crate) fn waterline(scene: &Scene) -> f32 {
    let place = place(scene);
    if scene.factors.subject == Subject::Boat {
        place.y + 0.40 * place.side
    } else {
        53.5 + 1.5 * scene.nuisance.horizon
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postcards::palette::Rgb;
    use crate::postcards::{Color, Factors, Setting, scene, scene_with};

    fn factors(subject: Subject, color: Color, setting: Setting, style: Style) -> Factors {
        Factors { subject, color, setting, style }
    }

    fn mean_difference(one: &RgbImage, other: &RgbImage) -> f64 {
        let pairs = one.as_raw().iter().zip(other.as_raw());
        let sum: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        f64::from(sum) / f64::from(u32::try_from(one.as_raw().len()).unwrap())
    }

    #[test]
    fn painting_is_a_pure_function_of_scene_and_size() {
        let scene = scene(2, 5);
        assert_eq!(paint(&scene, 64), paint(&scene, 64));
        assert_eq!(paint(&scene, 96).dimensions(), (96, 96));
    }

    /// Pixels that differ between two colors of one scene belong to the subject.
    fn subject_pixels(one: Factors, other: Color, index: u64) -> Vec<(u32, u32, Rgb)> {
        let picture = paint(&scene_with(one, 5, index), 64);
        let contrast = paint(&scene_with(Factors { color: other, ..one }, 5, index), 64);
        let pixels = picture.enumerate_pixels().zip(contrast.pixels());
        pixels
            .filter(|((_, _, a), b)| a.0.iter().zip(b.0).any(|(a, b)| a.abs_diff(b) > 24))
            .map(|((x, y, pixel), _)| (x, y, pixel.0))
            .collect()
    }

    #[test]
    fn every_subject_fills_nearly_half_the_side_or_more() {
        for subject in Subject::ALL {
            for index in 0..6 {
                let factors = factors(subject, Color::Red, Setting::Day, Style::Print);
                let pixels = subject_pixels(factors, Color::Blue, index);
                let extent = |along: fn(&(u32, u32, Rgb)) -> u32| {
                    let (least, most) =
                        (pixels.iter().map(along).min(), pixels.iter().map(along).max());
                    most.unwrap() - least.unwrap() + 1
                };
                let side = extent(|pixel| pixel.0).max(extent(|pixel| pixel.1));
                assert!((27..=60).contains(&side), "{subject:?} {index}: {side}");
            }
        }
    }

    #[test]
    fn the_subject_shows_its_own_color_more_than_any_other() {
        for (shift, color) in Color::ALL.into_iter().enumerate() {
            for setting in Setting::ALL {
                for style in Style::ALL {
                    // Every subject comes eight times, with each color and each style among them.
                    let position = 5 * shift + 3 * setting.position() + style.position();
                    let factors = factors(Subject::ALL[position % 12], color, setting, style);
                    let other = if color == Color::Green { Color::Purple } else { Color::Green };
                    let index = u64::try_from(position).unwrap();
                    let found = plurality(&subject_pixels(factors, other, index), setting);
                    assert_eq!(found, color, "{factors:?}");
                }
            }
        }
    }

    /// The color whose three tones are nearest to most of the pixels.
    fn plurality(pixels: &[(u32, u32, Rgb)], setting: Setting) -> Color {
        let distance = |a: Rgb, b: Rgb| -> u32 {
            a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
        };
        let mut votes = [0_u32; 8];
        for (_, _, pixel) in pixels {
            let nearest = Color::ALL.into_iter().min_by_key(|color| {
                let tones = tones(*color, setting);
                distance(*pixel, tones.body)
                    .min(distance(*pixel, tones.dark))
                    .min(distance(*pixel, tones.light))
            });
            votes[nearest.unwrap().position()] += 1;
        }
        let most = votes.iter().max().unwrap();
        Color::ALL[votes.iter().position(|count| count == most).unwrap()]
    }

    #[test]
    fn settings_and_styles_change_the_whole_card() {
        let base = factors(Subject::Tree, Color::Red, Setting::Day, Style::Print);
        let picture = |factors| paint(&scene_with(factors, 5, 1), 64);
        for setting in [Setting::Dusk, Setting::Night, Setting::Snow] {
            let difference = mean_difference(&picture(base), &picture(Factors { setting, ..base }));
            assert!(difference > 12.0, "{setting:?}: {difference}");
        }
        for style in [Style::Ink, Style::Watercolor] {
            let difference = mean_difference(&picture(base), &picture(Factors { style, ..base }));
            assert!(difference > 8.0, "{style:?}: {difference}");
        }
    }

    #[test]
    fn a_color_changes_the_subject_only() {
        let red = factors(Subject::Boat, Color::Red, Setting::Day, Style::Print);
        let share = subject_pixels(red, Color::Blue, 3).len();
        assert!((300..2200).contains(&share), "{share}");
    }
}
