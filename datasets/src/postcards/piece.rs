//! Pieces: the colored shapes a card is composed of before a style draws them.

use tiny_skia::{Path, PathBuilder, Rect, Transform};

use super::palette::Rgb;

/// A shape of one color, filled, or stroked when it has a width.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) path: Path,
    pub(crate) color: Rgb,
    /// Width of the stroke in card units; `None` fills the path.
    pub(crate) stroke: Option<f32>,
    /// Whether a style that outlines gives this piece an outline.
    pub(crate) outlined: bool,
    /// Opacity in (0, 1].
    pub(crate) opacity: f32,
}

/// Collects pieces under one transform from local to card units (the card is 64 × 64).
#[derive(Debug)]
pub(crate) struct Pieces {
    transform: Transform,
    scale: f32,
    list: Vec<Piece>,
}

impl Pieces {
    /// An empty list whose local units are mapped by `transform`.
    pub(crate) fn new(transform: Transform) -> Self {
        let scale = transform.get_scale().1.abs();
        Self { transform, scale, list: Vec::new() }
    }

    /// The finished list, back to front.
    pub(crate) fn into_list(self) -> Vec<Piece> {
        self.list
    }

    /// A filled shape.
    pub(crate) fn fill(&mut self, color: Rgb, draw: impl FnOnce(&mut PathBuilder)) -> &mut Self {
        self.push(color, None, draw)
    }

    /// A stroked line of a width in local units.
    pub(crate) fn line(
        &mut self,
        color: Rgb,
        width: f32,
        draw: impl FnOnce(&mut PathBuilder),
    ) -> &mut Self {
        self.push(color, Some(width), draw)
    }

    /// A filled polygon.
    pub(crate) fn polygon(&mut self, color: Rgb, points: &[(f32, f32)]) -> &mut Self {
        self.fill(color, |path| polygon(path, points))
    }

    /// A filled ellipse with the given centre and half axes.
    pub(crate) fn ellipse(
        &mut self,
        color: Rgb,
        centre: (f32, f32),
        half: (f32, f32),
    ) -> &mut Self {
        self.fill(color, |path| oval(path, centre, half))
    }

    /// The last piece gets no outline.
    pub(crate) fn plain(&mut self) -> &mut Self {
        if let Some(last) = self.list.last_mut() {
            last.outlined = false;
        }
        self
    }

    /// The last piece is drawn with that opacity and no outline.
    pub(crate) fn veil(&mut self, opacity: f32) -> &mut Self {
        if let Some(last) = self.list.last_mut() {
            last.opacity = opacity;
            last.outlined = false;
        }
        self
    }

    fn push(
        &mut self,
        color: Rgb,
        width: Option<f32>,
        draw: impl FnOnce(&mut PathBuilder),
    ) -> &mut Self {
        let mut builder = PathBuilder::new();
        draw(&mut builder);
        // A degenerate path (a zero-sized shape) has nothing to show.
        if let Some(path) = builder.finish().and_then(|path| path.transform(self.transform)) {
            let stroke = width.map(|width| width * self.scale);
            self.list.push(Piece { path, color, stroke, outlined: stroke.is_none(), opacity: 1.0 });
        }
        self
    }
}

/// A closed polygon.
pub(crate) fn polygon(path: &mut PathBuilder, points: &[(f32, f32)]) {
    for (i, &(x, y)) in points.iter().enumerate() {
        if i == 0 {
            path.move_to(x, y);
        } else {
            path.line_to(x, y);
        }
    }
    path.close();
}

/// An ellipse with the given centre and half axes.
pub(crate) fn oval(path: &mut PathBuilder, (x, y): (f32, f32), (half_x, half_y): (f32, f32)) {
    if let Some(bounds) = Rect::from_ltrb(x - half_x, y - half_y, x + half_x, y + half_y) {
        path.push_oval(bounds);
    }
}
