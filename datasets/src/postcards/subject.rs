//! The twelve subjects as pieces in a square of side 1 around the origin, y downward.

use std::f32::consts::TAU;

use tiny_skia::PathBuilder;

use super::Subject;
use super::palette::{Rgb, Tones, mix};
use super::piece::{Pieces, polygon};

const WOOD: Rgb = [112, 74, 44];
const LAMP: Rgb = [255, 226, 120];
const GLASS: Rgb = [255, 232, 150];
const DARK: Rgb = [44, 34, 46];
const LEAF: Rgb = [66, 120, 54];
const ROCK: Rgb = [120, 112, 116];

/// Draws the subject into `pieces`, whose local units are the subject's square.
pub(crate) fn draw(subject: Subject, tones: &Tones, pieces: &mut Pieces) {
    match subject {
        Subject::Boat => boat(tones, pieces),
        Subject::House => house(tones, pieces),
        Subject::Tree => tree(tones, pieces),
        Subject::Sun => sun(tones, pieces),
        Subject::Flower => flower(tones, pieces),
        Subject::Bird => bird(tones, pieces),
        Subject::Mountain => mountain(tones, pieces),
        Subject::Fish => fish(tones, pieces),
        Subject::Tower => tower(tones, pieces),
        Subject::Moon => moon(tones, pieces),
        Subject::Lighthouse => lighthouse(tones, pieces),
        Subject::Balloon => balloon(tones, pieces),
    }
}

fn boat(tones: &Tones, pieces: &mut Pieces) {
    pieces.line(WOOD, 0.035, |p| segment(p, (0.0, -0.5), (0.0, 0.2)));
    pieces.fill(tones.body, |p| {
        p.move_to(0.035, -0.47);
        p.quad_to(0.36, -0.2, 0.43, 0.12);
        p.line_to(0.035, 0.12);
        p.close();
    });
    pieces.fill(tones.light, |p| {
        p.move_to(-0.035, -0.38);
        p.quad_to(-0.26, -0.14, -0.38, 0.12);
        p.line_to(-0.035, 0.12);
        p.close();
    });
    pieces.fill(tones.body, |p| {
        p.move_to(-0.5, 0.18);
        p.line_to(0.52, 0.16);
        p.quad_to(0.44, 0.38, 0.28, 0.44);
        p.line_to(-0.3, 0.44);
        p.quad_to(-0.44, 0.36, -0.5, 0.18);
        p.close();
    });
    pieces
        .polygon(tones.contrast, &[(-0.49, 0.2), (0.505, 0.185), (0.49, 0.245), (-0.475, 0.26)])
        .plain();
    pieces.polygon(tones.dark, &[(-0.4, 0.36), (0.4, 0.36), (0.28, 0.44), (-0.3, 0.44)]).plain();
}

fn house(tones: &Tones, pieces: &mut Pieces) {
    pieces.polygon(tones.dark, &[(0.18, -0.42), (0.31, -0.42), (0.31, -0.1), (0.18, -0.1)]);
    pieces.polygon(tones.body, &[(-0.39, -0.08), (0.39, -0.08), (0.39, 0.46), (-0.39, 0.46)]);
    pieces.polygon(tones.dark, &[(-0.5, -0.03), (0.0, -0.47), (0.5, -0.03)]);
    pieces.polygon(DARK, &[(-0.09, 0.46), (-0.09, 0.17), (0.09, 0.17), (0.09, 0.46)]);
    for side in [-0.26, 0.24] {
        pieces.polygon(
            GLASS,
            &[
                (side - 0.085, 0.08),
                (side + 0.085, 0.08),
                (side + 0.085, 0.25),
                (side - 0.085, 0.25),
            ],
        );
    }
    pieces.ellipse(GLASS, (0.0, -0.17), (0.075, 0.075));
}

fn tree(tones: &Tones, pieces: &mut Pieces) {
    pieces.fill(WOOD, |p| {
        p.move_to(-0.06, -0.1);
        p.quad_to(-0.05, 0.35, -0.16, 0.5);
        p.line_to(0.16, 0.5);
        p.quad_to(0.05, 0.35, 0.06, -0.1);
        p.close();
    });
    pieces.line(WOOD, 0.05, |p| {
        segment(p, (0.0, 0.24), (0.2, 0.06));
        segment(p, (0.0, 0.2), (-0.2, 0.02));
    });
    // One outline around all lobes: a single winding-filled path.
    pieces.fill(tones.body, |p| {
        for (x, y, r) in [
            (-0.27, -0.02, 0.19),
            (0.27, -0.03, 0.19),
            (-0.22, -0.24, 0.2),
            (0.22, -0.25, 0.2),
            (0.0, -0.32, 0.19),
            (0.0, -0.08, 0.24),
        ] {
            p.push_circle(x, y, r);
        }
    });
    for (x, y, r) in [(-0.24, 0.06, 0.09), (0.08, 0.03, 0.1), (0.3, 0.04, 0.08)] {
        pieces.ellipse(tones.dark, (x, y), (r * 1.3, r * 0.7)).plain();
    }
    for (x, y, r) in
        [(-0.18, -0.3, 0.1), (0.13, -0.34, 0.08), (0.2, -0.12, 0.07), (-0.12, -0.1, 0.07)]
    {
        pieces.ellipse(tones.light, (x, y), (r * 1.2, r * 0.7)).plain();
    }
}

fn sun(tones: &Tones, pieces: &mut Pieces) {
    pieces.fill(tones.body, |p| {
        const N_RAYS: u8 = 12;
        let spread = TAU / f32::from(N_RAYS) * 0.36;
        for ray in 0..N_RAYS {
            let angle = TAU * f32::from(ray) / f32::from(N_RAYS);
            let tip = if ray % 2 == 0 { 0.52 } else { 0.45 };
            let points =
                [polar(0.335, angle - spread), polar(tip, angle), polar(0.335, angle + spread)];
            polygon(p, &points);
        }
    });
    pieces.ellipse(tones.body, (0.0, 0.0), (0.3, 0.3));
    pieces.ellipse(mix(tones.body, tones.light, 0.55), (-0.03, -0.03), (0.23, 0.23)).plain();
    face(tones, pieces, 0.105);
}

/// A small smiling face around the origin.
fn face(tones: &Tones, pieces: &mut Pieces, reach: f32) {
    let line = mix(tones.dark, DARK, 0.6);
    for side in [-1.0, 1.0] {
        pieces.ellipse(line, (side * reach, -reach * 0.55), (reach * 0.26, reach * 0.36)).plain();
    }
    pieces.line(line, reach * 0.36, |p| {
        p.move_to(-reach, reach * 0.55);
        p.quad_to(0.0, reach * 1.7, reach, reach * 0.55);
    });
}

fn flower(tones: &Tones, pieces: &mut Pieces) {
    pieces.line(LEAF, 0.055, |p| {
        p.move_to(0.0, -0.1);
        p.quad_to(0.04, 0.25, 0.0, 0.52);
    });
    for side in [-1.0, 1.0] {
        pieces.fill(LEAF, |p| {
            p.move_to(0.01, 0.42);
            p.quad_to(side * 0.1, 0.16, side * 0.36, 0.2);
            p.quad_to(side * 0.3, 0.42, 0.01, 0.42);
            p.close();
        });
    }
    let centre = (0.0, -0.19);
    for petal in 0..7_u8 {
        let angle = TAU * (f32::from(petal) / 7.0 - 0.25);
        let (x, y) = polar(0.225, angle);
        let tone = if petal % 2 == 0 { tones.body } else { mix(tones.body, tones.light, 0.45) };
        pieces.fill(tone, |p| leaf(p, (centre.0 + x, centre.1 + y), angle, (0.155, 0.118)));
    }
    let heart = if luma(tones.body) > 150.0 { [120, 72, 34] } else { [255, 206, 64] };
    pieces.ellipse(heart, centre, (0.115, 0.115));
}

/// An ellipse whose long half axis points along `angle`.
fn leaf(path: &mut PathBuilder, centre: (f32, f32), angle: f32, half: (f32, f32)) {
    const N_POINTS: u8 = 20;
    let (sin, cos) = angle.sin_cos();
    let points: Vec<(f32, f32)> = (0..N_POINTS)
        .map(|i| {
            let (v, u) = (TAU * f32::from(i) / f32::from(N_POINTS)).sin_cos();
            let (u, v) = (u * half.0, v * half.1);
            (centre.0 + u * cos - v * sin, centre.1 + u * sin + v * cos)
        })
        .collect();
    polygon(path, &points);
}

fn bird(tones: &Tones, pieces: &mut Pieces) {
    // Far wing, behind the body.
    pieces.fill(tones.dark, |p| {
        p.move_to(0.02, -0.02);
        p.cubic_to(0.0, -0.25, 0.1, -0.42, 0.28, -0.5);
        p.cubic_to(0.36, -0.32, 0.32, -0.12, 0.2, 0.04);
        p.close();
    });
    // Tail.
    pieces.polygon(
        tones.dark,
        &[(-0.2, 0.1), (-0.52, 0.12), (-0.46, 0.2), (-0.52, 0.3), (-0.16, 0.24)],
    );
    // Body and head.
    pieces.fill(tones.body, |p| {
        p.move_to(-0.28, 0.15);
        p.cubic_to(-0.12, -0.06, 0.1, -0.06, 0.2, -0.06);
        p.cubic_to(0.26, -0.18, 0.44, -0.16, 0.44, -0.02);
        p.cubic_to(0.44, 0.2, 0.22, 0.36, 0.0, 0.34);
        p.cubic_to(-0.14, 0.33, -0.22, 0.26, -0.28, 0.15);
        p.close();
    });
    pieces
        .fill(tones.contrast, |p| {
            p.move_to(0.38, 0.12);
            p.cubic_to(0.3, 0.28, 0.14, 0.34, 0.0, 0.33);
            p.quad_to(0.18, 0.22, 0.38, 0.12);
            p.close();
        })
        .plain();
    // Near wing, raised.
    pieces.fill(tones.body, |p| {
        p.move_to(0.14, 0.08);
        p.cubic_to(0.1, -0.2, -0.1, -0.4, -0.38, -0.46);
        p.quad_to(-0.4, -0.36, -0.34, -0.3);
        p.quad_to(-0.38, -0.22, -0.28, -0.16);
        p.quad_to(-0.3, -0.06, -0.18, -0.02);
        p.quad_to(-0.12, 0.12, 0.14, 0.08);
        p.close();
    });
    pieces.line(tones.dark, 0.03, |p| {
        p.move_to(0.0, 0.0);
        p.quad_to(-0.1, -0.18, -0.28, -0.32);
    });
    pieces.polygon([255, 176, 46], &[(0.42, -0.08), (0.56, -0.01), (0.42, 0.05)]);
    pieces.ellipse(DARK, (0.33, -0.04), (0.035, 0.04)).plain();
}

fn mountain(tones: &Tones, pieces: &mut Pieces) {
    pieces.polygon(tones.dark, &[(-0.02, 0.42), (0.3, -0.14), (0.66, 0.42)]);
    pieces.polygon(tones.body, &[(-0.64, 0.42), (-0.1, -0.46), (0.4, 0.42)]);
    pieces
        .polygon(tones.dark, &[(-0.1, -0.46), (0.4, 0.42), (0.06, 0.42), (0.1, 0.16), (-0.06, 0.0)])
        .plain();
    let cap = if luma(tones.body) > 235.0 { [150, 178, 214] } else { [252, 252, 255] };
    pieces.polygon(
        cap,
        &[
            (-0.1, -0.47),
            (0.06, -0.19),
            (0.0, -0.13),
            (-0.06, -0.2),
            (-0.13, -0.1),
            (-0.2, -0.19),
            (-0.28, -0.16),
        ],
    );
    pieces
        .polygon(cap, &[(0.3, -0.15), (0.4, 0.01), (0.33, 0.0), (0.28, 0.05), (0.2, 0.03)])
        .plain();
}

fn fish(tones: &Tones, pieces: &mut Pieces) {
    pieces.fill(tones.dark, |p| {
        p.move_to(-0.24, 0.0);
        p.quad_to(-0.42, -0.26, -0.52, -0.26);
        p.quad_to(-0.44, 0.0, -0.52, 0.26);
        p.quad_to(-0.42, 0.26, -0.24, 0.0);
        p.close();
    });
    pieces.fill(tones.dark, |p| {
        p.move_to(-0.14, -0.16);
        p.quad_to(0.02, -0.4, 0.22, -0.32);
        p.quad_to(0.18, -0.24, 0.24, -0.14);
        p.close();
        p.move_to(-0.04, 0.18);
        p.quad_to(0.0, 0.34, -0.12, 0.36);
        p.quad_to(-0.14, 0.26, -0.16, 0.14);
        p.close();
    });
    pieces.fill(tones.body, |p| {
        p.move_to(-0.3, 0.0);
        p.cubic_to(-0.14, -0.3, 0.3, -0.32, 0.5, 0.0);
        p.cubic_to(0.3, 0.32, -0.14, 0.3, -0.3, 0.0);
        p.close();
    });
    for x in [-0.1, 0.04] {
        pieces.line(tones.light, 0.045, |p| {
            p.move_to(x, -0.16);
            p.quad_to(x + 0.08, 0.0, x, 0.16);
        });
    }
    pieces.line(tones.dark, 0.03, |p| {
        p.move_to(0.22, -0.18);
        p.quad_to(0.13, 0.0, 0.22, 0.18);
    });
    pieces.ellipse([255, 255, 255], (0.335, -0.055), (0.068, 0.068)).plain();
    pieces.ellipse(DARK, (0.35, -0.055), (0.036, 0.036)).plain();
}

fn tower(tones: &Tones, pieces: &mut Pieces) {
    pieces.line(tones.dark, 0.03, |p| segment(p, (0.0, -0.56), (0.0, -0.44)));
    pieces.fill(tones.body, |p| {
        p.move_to(-0.03, -0.47);
        p.line_to(0.03, -0.47);
        p.cubic_to(0.06, -0.1, 0.14, 0.26, 0.4, 0.5);
        p.line_to(0.21, 0.5);
        p.quad_to(0.17, 0.27, 0.0, 0.27);
        p.quad_to(-0.17, 0.27, -0.21, 0.5);
        p.line_to(-0.4, 0.5);
        p.cubic_to(-0.14, 0.26, -0.06, -0.1, -0.03, -0.47);
        p.close();
    });
    pieces.polygon(tones.dark, &[(-0.17, 0.14), (0.17, 0.14), (0.185, 0.2), (-0.185, 0.2)]);
    pieces.polygon(tones.dark, &[(-0.1, -0.14), (0.1, -0.14), (0.11, -0.085), (-0.11, -0.085)]);
    pieces.line(tones.light, 0.03, |p| {
        segment(p, (-0.07, -0.05), (0.08, 0.11));
        segment(p, (0.07, -0.05), (-0.08, 0.11));
    });
}

fn moon(tones: &Tones, pieces: &mut Pieces) {
    pieces.fill(tones.body, |p| {
        p.move_to(0.16, -0.46);
        p.cubic_to(-0.24, -0.5, -0.46, -0.24, -0.46, 0.0);
        p.cubic_to(-0.46, 0.28, -0.2, 0.5, 0.18, 0.46);
        p.cubic_to(0.0, 0.38, -0.08, 0.24, -0.08, 0.1);
        // The nose.
        p.quad_to(0.02, 0.06, 0.02, 0.0);
        p.quad_to(-0.08, -0.04, -0.1, -0.08);
        p.cubic_to(-0.1, -0.24, 0.0, -0.4, 0.16, -0.46);
        p.close();
    });
    pieces
        .fill(tones.light, |p| {
            p.move_to(-0.02, -0.42);
            p.cubic_to(-0.3, -0.36, -0.4, -0.16, -0.39, 0.04);
            p.cubic_to(-0.34, -0.18, -0.22, -0.32, -0.02, -0.42);
            p.close();
        })
        .plain();
    let line = mix(tones.dark, DARK, 0.6);
    pieces.line(line, 0.04, |p| {
        p.move_to(-0.26, -0.1);
        p.quad_to(-0.2, -0.04, -0.14, -0.1);
        p.move_to(-0.2, 0.2);
        p.quad_to(-0.14, 0.24, -0.08, 0.18);
    });
    for (x, y, r) in [(0.3, -0.18, 0.1), (0.36, 0.2, 0.07)] {
        pieces.fill(tones.body, |p| star(p, (x, y), r));
    }
}

/// A five-pointed star.
pub(crate) fn star(path: &mut PathBuilder, centre: (f32, f32), radius: f32) {
    let points: Vec<(f32, f32)> = (0..10_u8)
        .map(|i| {
            let (x, y) = polar(
                if i % 2 == 0 { radius } else { radius * 0.45 },
                TAU * (f32::from(i) / 10.0 - 0.25),
            );
            (centre.0 + x, centre.1 + y)
        })
        .collect();
    polygon(path, &points);
}

fn lighthouse(tones: &Tones, pieces: &mut Pieces) {
    for side in [-1.0, 1.0] {
        pieces
            .polygon(LAMP, &[(side * 0.05, -0.35), (side * 0.75, -0.52), (side * 0.75, -0.2)])
            .veil(0.62);
    }
    pieces.fill(ROCK, |p| {
        p.move_to(-0.46, 0.52);
        p.quad_to(-0.36, 0.36, -0.2, 0.38);
        p.quad_to(0.0, 0.3, 0.2, 0.37);
        p.quad_to(0.38, 0.37, 0.46, 0.52);
        p.close();
    });
    let half = |y: f32| 0.105 + (y + 0.26) * 0.11;
    let band = |top: f32, bottom: f32| {
        [(-half(top), top), (half(top), top), (half(bottom), bottom), (-half(bottom), bottom)]
    };
    pieces.polygon(tones.body, &band(-0.26, 0.42));
    pieces.polygon(tones.contrast, &band(-0.09, 0.04)).plain();
    pieces.polygon(tones.contrast, &band(0.2, 0.32)).plain();
    pieces.polygon(tones.dark, &[(-0.17, -0.26), (0.17, -0.26), (0.17, -0.2), (-0.17, -0.2)]);
    pieces.polygon(LAMP, &[(-0.085, -0.41), (0.085, -0.41), (0.085, -0.26), (-0.085, -0.26)]);
    pieces.fill(tones.body, |p| {
        p.move_to(-0.13, -0.4);
        p.quad_to(-0.08, -0.52, 0.0, -0.55);
        p.quad_to(0.08, -0.52, 0.13, -0.4);
        p.close();
    });
}

fn balloon(tones: &Tones, pieces: &mut Pieces) {
    pieces.line(WOOD, 0.022, |p| {
        segment(p, (-0.2, 0.14), (-0.07, 0.36));
        segment(p, (0.2, 0.14), (0.07, 0.36));
    });
    let envelope = |p: &mut PathBuilder, half: f32| {
        p.move_to(0.0, -0.52);
        p.cubic_to(half * 1.3, -0.52, half * 1.32, -0.04, half * 0.5, 0.17);
        p.line_to(-half * 0.5, 0.17);
        p.cubic_to(-half * 1.32, -0.04, -half * 1.3, -0.52, 0.0, -0.52);
        p.close();
    };
    pieces.fill(tones.body, |p| envelope(p, 0.4));
    pieces.fill(tones.contrast, |p| envelope(p, 0.24)).plain();
    pieces.fill(tones.body, |p| envelope(p, 0.12)).plain();
    pieces.polygon(tones.dark, &[(-0.21, 0.12), (0.21, 0.12), (0.18, 0.18), (-0.18, 0.18)]).plain();
    pieces.polygon(WOOD, &[(-0.1, 0.35), (0.1, 0.35), (0.08, 0.5), (-0.08, 0.5)]);
}

fn segment(path: &mut PathBuilder, from: (f32, f32), to: (f32, f32)) {
    path.move_to(from.0, from.1);
    path.line_to(to.0, to.1);
}

fn polar(radius: f32, angle: f32) -> (f32, f32) {
    let (sin, cos) = angle.sin_cos();
    (radius * cos, radius * sin)
}

/// Rec. 601 luma, 0 to 255.
fn luma([r, g, b]: Rgb) -> f32 {
    0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)
}
