//! A color and a sign for each entity, so that neither is needed to read the other.

/// How an entity is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its color, `#rrggbb`.
    pub(crate) color: &'static str,
    /// Its sign as a character of text.
    pub(crate) glyph: &'static str,
    /// The same sign as the path of an SVG, around (0, 0) and 10 units wide.
    pub(crate) path: &'static str,
}

/// The palette of Okabe and Ito without vermilion, which is the concept's.
///
/// Source: Okabe & Ito 2008, "Color Universal Design", figure 16.
const COLORS: [&str; 7] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#241e18", "#f0e442"];

/// Signs that differ in outline, not in size. Hollow ones hold a smaller outline of the other sense.
const SIGNS: [(&str, &str); 16] = [
    ("●", "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0Z"),
    ("■", "M-4 -4H4V4H-4Z"),
    ("▲", "M0 -4.8L4.8 3.8H-4.8Z"),
    ("◆", "M0 -5L5 0L0 5L-5 0Z"),
    ("✚", "M-1.7 -5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z"),
    ("▼", "M0 4.8L-4.8 -3.8H4.8Z"),
    (
        "○",
        "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0ZM-2.7 0A2.7 2.7 0 1 1 2.7 0A2.7 2.7 0 1 1 -2.7 0Z",
    ),
    ("□", "M-4 -4H4V4H-4ZM-2.2 -2.2V2.2H2.2V-2.2Z"),
    ("△", "M0 -4.8L4.8 3.8H-4.8ZM0 -1.6L-2.2 2.2H2.2Z"),
    ("◇", "M0 -5L5 0L0 5L-5 0ZM0 -2.4L-2.4 0L0 2.4L2.4 0Z"),
    (
        "✕",
        "M-4.6 -2.6L-2.6 -4.6L0 -2L2.6 -4.6L4.6 -2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0Z",
    ),
    ("▽", "M0 4.8L-4.8 -3.8H4.8ZM0 1.6L2.2 -2.2H-2.2Z"),
    ("◐", "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0ZM0 -2.9A2.9 2.9 0 0 1 0 2.9Z"),
    ("★", "M0 -5L1.3 -1.8L4.8 -1.5L2.1 .7L2.9 4.1L0 2.3L-2.9 4.1L-2.1 .7L-4.8 -1.5L-1.3 -1.8Z"),
    ("▬", "M-5 -2H5V2H-5Z"),
    ("▮", "M-2 -5H2V5H-2Z"),
];

/// The concept's mark: vermilion, a ring that is held.
pub(crate) const CONCEPT: Mark = Mark {
    color: "#d55e00",
    glyph: "◉",
    path: "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0ZM-3.4 0A3.4 3.4 0 1 1 3.4 0A3.4 3.4 0 1 1 -3.4 0ZM-1.9 0A1.9 1.9 0 1 0 1.9 0A1.9 1.9 0 1 0 -1.9 0Z",
};

/// The mark of a picture that bears none of the entities.
pub(crate) const NOTHING: Mark =
    Mark { color: "#655b4f", glyph: "·", path: "M-1.4 -1.4H1.4V1.4H-1.4Z" };

/// The mark of a picture that was withheld.
pub(crate) const WITHHELD: Mark =
    Mark { color: "#655b4f", glyph: "—", path: "M-4.5 -.8H4.5V.8H-4.5Z" };

/// The mark of the entity at `position` of its facet. As long as there are no more than 16, the sign
/// alone tells them apart; color and sign together repeat after 112.
pub(crate) fn mark(position: usize) -> Mark {
    let (glyph, path) = SIGNS[position % SIGNS.len()];
    Mark { color: COLORS[(position + position / 112) % COLORS.len()], glyph, path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_entities_share_color_and_sign() {
        let marks: BTreeSet<(&str, &str)> =
            (0..112).map(mark).map(|mark| (mark.color, mark.glyph)).collect();
        assert_eq!(marks.len(), 112);
        let signs: BTreeSet<&str> = (0..16).map(|position| mark(position).glyph).collect();
        assert_eq!(signs.len(), 16);
        let all = (0..16).map(mark).chain([NOTHING, WITHHELD]);
        assert!(all.clone().all(|mark| mark.glyph != CONCEPT.glyph && mark.color != CONCEPT.color));
        let paths: BTreeSet<&str> = all.map(|mark| mark.path).collect();
        assert_eq!(paths.len(), 18);
    }
}
