//! Manners of drawing: how the pieces of a card become pixels.

use image::RgbImage;
use tiny_skia::{
    Color as SkColor, FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint,
    PathBuilder, Pixmap, PixmapPaint, Point, Rect, Shader, SpreadMode, Stroke, Transform,
};

use super::Setting;
use super::paint::CARD;
use super::palette::{BackdropTones, CREAM, INK, Rgb, byte, mix};
use super::piece::Piece;

/// A manner of drawing: the three styles of the world, and those that only concepts use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Flat areas of full color under a banded sky.
    Print,
    /// Dark outlines over pale washes.
    Ink,
    /// Soft edges and uneven pigment.
    Watercolor,
    /// Crossed pen strokes in the picture's own colors; no base is trained on it.
    Hatching,
    /// Flat areas in a dim light that fades toward the edges; no base is trained on it.
    Lamplight,
}

/// A composed card, in card units.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) setting: Setting,
    pub(crate) tones: BackdropTones,
    pub(crate) horizon: f32,
    pub(crate) behind: Vec<Piece>,
    pub(crate) subject: Vec<Piece>,
    pub(crate) front: Vec<Piece>,
    pub(crate) details: u64,
}

/// Width of the straight border, in card units.
const BORDER: f32 = 2.5;

/// Renders a card at `side_px`, averaging down from a larger drawing.
pub(crate) fn render(card: &Card, manner: Manner, side_px: u32) -> RgbImage {
    let oversample = if side_px <= 128 { 4 } else { 2 };
    let Some(mut canvas) = Canvas::new(side_px * oversample) else {
        return RgbImage::new(side_px, side_px);
    };
    match manner {
        Manner::Print => print(card, &mut canvas),
        Manner::Ink => ink(card, &mut canvas),
        Manner::Watercolor => watercolor(card, &mut canvas),
        Manner::Hatching => hatching(card, &mut canvas),
        Manner::Lamplight => lamplight(card, &mut canvas),
    }
    canvas.averaged(oversample)
}

/// A pixmap with the scale from card units.
struct Canvas {
    pixmap: Pixmap,
    scale: f32,
}

impl Canvas {
    fn new(side_px: u32) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "picture sides are far below 2^24")]
        let scale = side_px as f32 / CARD;
        Pixmap::new(side_px, side_px).map(|pixmap| Self { pixmap, scale })
    }

    fn transform(&self) -> Transform {
        Transform::from_scale(self.scale, self.scale)
    }

    fn piece(&mut self, piece: &Piece, color: Rgb) {
        let paint = solid(color, piece.opacity);
        match piece.stroke {
            None => self.pixmap.fill_path(
                &piece.path,
                &paint,
                FillRule::Winding,
                self.transform(),
                None,
            ),
            Some(width) => {
                self.pixmap.stroke_path(
                    &piece.path,
                    &paint,
                    &stroke(width),
                    self.transform(),
                    None,
                );
            }
        }
    }

    fn outline(&mut self, piece: &Piece, color: Rgb, width: f32) {
        self.pixmap.stroke_path(
            &piece.path,
            &solid(color, 1.0),
            &stroke(width),
            self.transform(),
            None,
        );
    }

    fn band(&mut self, top: f32, bottom: f32, color: Rgb) {
        if let Some(rect) = Rect::from_ltrb(0.0, top, CARD, bottom) {
            self.pixmap.fill_rect(rect, &solid(color, 1.0), self.transform(), None);
        }
    }

    fn gradient(&mut self, top: Rgb, bottom: Rgb, to: f32) {
        let stops =
            vec![GradientStop::new(0.0, sk(top, 1.0)), GradientStop::new(1.0, sk(bottom, 1.0))];
        let shader = LinearGradient::new(
            Point::from_xy(0.0, 0.0),
            Point::from_xy(0.0, to),
            stops,
            SpreadMode::Pad,
            Transform::identity(),
        );
        let paint = Paint {
            shader: shader.unwrap_or(Shader::SolidColor(sk(top, 1.0))),
            ..Paint::default()
        };
        if let Some(rect) = Rect::from_ltrb(0.0, 0.0, CARD, CARD) {
            self.pixmap.fill_rect(rect, &paint, self.transform(), None);
        }
    }

    /// Four cream strips around the picture.
    fn border(&mut self, color: Rgb) {
        let mut builder = PathBuilder::new();
        let strips = [
            (0.0, 0.0, CARD, BORDER),
            (0.0, CARD - BORDER, CARD, CARD),
            (0.0, 0.0, BORDER, CARD),
            (CARD - BORDER, 0.0, CARD, CARD),
        ];
        for (left, top, right, bottom) in strips {
            if let Some(rect) = Rect::from_ltrb(left, top, right, bottom) {
                builder.push_rect(rect);
            }
        }
        if let Some(path) = builder.finish() {
            self.pixmap.fill_path(
                &path,
                &solid(color, 1.0),
                FillRule::Winding,
                self.transform(),
                None,
            );
        }
    }

    /// Applies `f(x, y, rgb)` in card units to every opaque pixel.
    fn each(&mut self, mut f: impl FnMut(f32, f32, [f32; 3]) -> [f32; 3]) {
        let side = self.pixmap.width() as usize;
        let unit = 1.0 / self.scale;
        for (row, line) in self.pixmap.data_mut().chunks_exact_mut(side * 4).enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "picture sides are far below 2^24")]
            let y = (row as f32 + 0.5) * unit;
            for (column, pixel) in line.chunks_exact_mut(4).enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "picture sides are far below 2^24")]
                let x = (column as f32 + 0.5) * unit;
                let out = f(x, y, [f32::from(pixel[0]), f32::from(pixel[1]), f32::from(pixel[2])]);
                for (channel, value) in pixel.iter_mut().zip(out) {
                    *channel = byte(value);
                }
            }
        }
    }

    /// Averages blocks of `oversample` × `oversample` pixels.
    fn averaged(&self, oversample: u32) -> RgbImage {
        let side = self.pixmap.width() / oversample;
        let data = self.pixmap.data();
        let stride = self.pixmap.width() as usize * 4;
        let n = oversample as usize;
        let total = oversample * oversample;
        RgbImage::from_fn(side, side, |x, y| {
            let mut sums = [0_u32; 3];
            for row in 0..n {
                let start = (y as usize * n + row) * stride + x as usize * n * 4;
                for pixel in data[start..start + n * 4].chunks_exact(4) {
                    for (sum, channel) in sums.iter_mut().zip(pixel) {
                        *sum += u32::from(*channel);
                    }
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "a mean of bytes is a byte")]
            let pixel = sums.map(|sum| ((sum + total / 2) / total) as u8);
            image::Rgb(pixel)
        })
    }
}

fn sk([r, g, b]: Rgb, opacity: f32) -> SkColor {
    let mut color = SkColor::from_rgba8(r, g, b, 255);
    color.set_alpha(opacity);
    color
}

fn solid(color: Rgb, opacity: f32) -> Paint<'static> {
    Paint { shader: Shader::SolidColor(sk(color, opacity)), ..Paint::default() }
}

fn stroke(width: f32) -> Stroke {
    Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() }
}

/// Flat areas of full color under a sky of four bands.
fn print(card: &Card, canvas: &mut Canvas) {
    const N_BANDS: u8 = 4;
    let depth = (card.horizon + 2.0) / f32::from(N_BANDS);
    for band in 0..N_BANDS {
        let share = f32::from(band) / f32::from(N_BANDS - 1);
        let top = depth * f32::from(band);
        let bottom = if band + 1 == N_BANDS { CARD } else { top + depth };
        canvas.band(top, bottom, mix(card.tones.zenith, card.tones.horizon, share));
    }
    for piece in card.behind.iter().chain(&card.subject).chain(&card.front) {
        canvas.piece(piece, piece.color);
    }
    canvas.border(CREAM);
}

/// Dark outlines over pale washes on grained paper.
fn ink(card: &Card, canvas: &mut Canvas) {
    const PAPER: Rgb = [246, 236, 210];
    let wash = if card.setting == Setting::Night { 0.72 } else { 0.5 };
    let pale = |color: Rgb| mix(PAPER, color, wash);
    canvas.gradient(pale(card.tones.zenith), pale(card.tones.horizon), card.horizon);
    for piece in &card.behind {
        canvas.piece(piece, pale(piece.color));
        if piece.outlined {
            canvas.outline(piece, INK, 0.7);
        }
    }
    for piece in &card.subject {
        // The line goes under its own filling, so that overlapping lobes share one outer line,
        // and later pieces cover earlier lines.
        if piece.outlined {
            canvas.outline(piece, INK, 2.3);
        }
        canvas.piece(piece, mix(PAPER, piece.color, 0.92));
    }
    for piece in &card.front {
        canvas.piece(piece, pale(piece.color));
        if piece.outlined {
            canvas.outline(piece, INK, 0.7);
        }
    }
    canvas.border(PAPER);
    let seed = card.details;
    canvas.each(|x, y, rgb| {
        let grain = 1.0 + 0.05 * (noise(seed, x * 0.9, y * 0.9) - 0.5);
        rgb.map(|channel| channel * grain)
    });
}

/// Soft edges, uneven pigment, a ragged paper margin.
fn watercolor(card: &Card, canvas: &mut Canvas) {
    const PAPER: Rgb = [253, 250, 243];
    let seed = card.details;
    let thin = |color: Rgb| mix(color, PAPER, 0.16);
    canvas.gradient(thin(card.tones.zenith), thin(card.tones.horizon), card.horizon);
    for piece in &card.behind {
        canvas.piece(piece, thin(piece.color));
    }
    soften(canvas, 1.1);
    let subject = card.subject.iter().map(|piece| (piece, piece.color));
    overlay(canvas, subject);
    overlay(canvas, card.front.iter().map(|piece| (piece, thin(piece.color))));
    canvas.each(|x, y, rgb| {
        let blotch =
            noise(seed, x / 9.0, y / 9.0) * 0.65 + noise(seed ^ 1, x / 4.0, y / 4.0) * 0.35;
        let pigment = 0.84 + 0.32 * blotch;
        let ragged = 3.2 + 3.4 * noise(seed ^ 2, x / 6.0, y / 6.0);
        let edge = x.min(y).min(CARD - x).min(CARD - y);
        // 1 on the bare paper of the margin, 0 inside the painted area.
        let bare = ((ragged - edge) / 1.2).clamp(0.0, 1.0);
        let mut out = [0.0; 3];
        for (channel, value) in out.iter_mut().enumerate() {
            let paper = f32::from(PAPER[channel]);
            // More pigment takes more light away; less lets the paper through.
            let tinted = paper - (paper - rgb[channel]) * pigment;
            *value = tinted * (1.0 - bare) + paper * bare;
        }
        out
    });
}

/// Crossed strokes of a colored pen: one direction for middle tones, both for dark ones.
fn hatching(card: &Card, canvas: &mut Canvas) {
    const PAPER: [f32; 3] = [252.0, 246.0, 230.0];
    const PITCH: f32 = 4.4;
    canvas.gradient(card.tones.zenith, card.tones.horizon, card.horizon);
    for piece in &card.behind {
        canvas.piece(piece, piece.color);
    }
    for piece in &card.subject {
        if piece.outlined {
            canvas.outline(piece, INK, 1.5);
        }
        canvas.piece(piece, piece.color);
    }
    for piece in &card.front {
        canvas.piece(piece, piece.color);
    }
    let seed = card.details;
    canvas.each(|x, y, rgb| {
        let tone = 1.0 - (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255.0;
        // A hand's lines waver a little.
        let waver = 0.7 * noise(seed, x / 7.0, y / 7.0);
        let first = stroke_cover((x + y) * 0.707 / PITCH + waver, 0.22 + 0.5 * tone);
        let second = stroke_cover((x - y) * 0.707 / PITCH + waver, 1.1 * tone - 0.28);
        let cover = first.max(second);
        let mut out = [0.0; 3];
        for (channel, value) in out.iter_mut().enumerate() {
            let ground = PAPER[channel] * 0.72 + rgb[channel] * 0.28;
            let pen = rgb[channel] * 0.78;
            *value = ground * (1.0 - cover) + pen * cover;
        }
        out
    });
    canvas.border([252, 246, 230]);
}

/// How much a line of relative width `width` in [0, 1] covers at phase `at`, 0 to 1.
fn stroke_cover(at: f32, width: f32) -> f32 {
    let from_middle = (at - at.floor() - 0.5).abs() * 2.0;
    ((width.min(0.8) - from_middle) / 0.12).clamp(0.0, 1.0)
}

/// Flat areas in a light that is strongest in the middle.
fn lamplight(card: &Card, canvas: &mut Canvas) {
    canvas.gradient(card.tones.zenith, card.tones.horizon, CARD);
    for piece in card.behind.iter().chain(&card.subject).chain(&card.front) {
        canvas.piece(piece, piece.color);
    }
    let middle = CARD * 0.5;
    canvas.each(|x, y, rgb| {
        let away = ((x - middle).powi(2) + (y - middle).powi(2)).sqrt() / middle;
        let light = 1.08 - 0.30 * away * away;
        rgb.map(|channel| channel * light)
    });
    canvas.border(CREAM);
}

/// Lays pieces over the canvas with soft edges.
fn overlay<'a>(canvas: &mut Canvas, pieces: impl Iterator<Item = (&'a Piece, Rgb)>) {
    const REACH: f32 = 0.6;
    let Some(mut layer) = Canvas::new(canvas.pixmap.width()) else { return };
    for (piece, color) in pieces {
        layer.piece(piece, color);
    }
    soften(&mut layer, REACH);
    let paint = PixmapPaint::default();
    canvas.pixmap.draw_pixmap(0, 0, layer.pixmap.as_ref(), &paint, Transform::identity(), None);
}

/// Box-blurs the premultiplied pixels, twice, with a reach in card units.
fn soften(canvas: &mut Canvas, reach: f32) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few pixels")]
    let radius = (reach * canvas.scale * 0.5).round() as usize;
    let side = canvas.pixmap.width() as usize;
    if radius == 0 {
        return;
    }
    let data = canvas.pixmap.data_mut();
    let mut line = vec![[0_u8; 4]; side];
    for _ in 0..2 {
        for i in 0..side {
            blur_line(data, &mut line, radius, i * side, 1);
            blur_line(data, &mut line, radius, i, side);
        }
    }
}

/// Blurs one row (`stride` 1) or column (`stride` = side) of RGBA pixels in place.
fn blur_line(data: &mut [u8], line: &mut [[u8; 4]], radius: usize, start: usize, stride: usize) {
    let n = line.len();
    for (i, pixel) in line.iter_mut().enumerate() {
        let at = (start + i * stride) * 4;
        pixel.copy_from_slice(&data[at..at + 4]);
    }
    let width = u32::try_from(2 * radius + 1).unwrap_or(u32::MAX);
    let clamped = |i: usize| line[i.saturating_sub(radius).min(n - 1)];
    let mut sums = [0_u32; 4];
    for i in 0..=2 * radius {
        for (sum, channel) in sums.iter_mut().zip(clamped(i)) {
            *sum += u32::from(channel);
        }
    }
    for i in 0..n {
        let at = (start + i * stride) * 4;
        for (channel, sum) in data[at..at + 4].iter_mut().zip(sums) {
            #[expect(clippy::cast_possible_truncation, reason = "a mean of bytes is a byte")]
            let mean = ((sum + width / 2) / width) as u8;
            *channel = mean;
        }
        let (enter, leave) = (clamped(i + 2 * radius + 1), clamped(i));
        for (sum, (enter, leave)) in sums.iter_mut().zip(enter.into_iter().zip(leave)) {
            *sum = *sum + u32::from(enter) - u32::from(leave);
        }
    }
}

/// Smooth value noise in [0, 1], one lattice cell per unit.
fn noise(seed: u64, x: f32, y: f32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - x0), ease(y - y0));
    #[expect(clippy::cast_possible_truncation, reason = "lattice coordinates are small")]
    let (i, j) = (x0 as i64, y0 as i64);
    let top = lattice(seed, i, j) * (1.0 - u) + lattice(seed, i + 1, j) * u;
    let bottom = lattice(seed, i, j + 1) * (1.0 - u) + lattice(seed, i + 1, j + 1) * u;
    top * (1.0 - v) + bottom * v
}

/// A fixed pseudo-random value in [0, 1) of a lattice point (splitmix64's finalizer).
fn lattice(seed: u64, i: i64, j: i64) -> f32 {
    let mut z = seed
        .wrapping_add(i.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(j.cast_unsigned().wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit an f32 exactly")]
    let unit = (z >> 40) as f32 / 16_777_216.0;
    unit
}
