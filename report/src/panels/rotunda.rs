//! The plan of a cylinder's ground: rings of places of equal area, one for each body.

use statistics::number::{index, real};
use std::f64::consts::PI;

/// Outer radius of the plan.
pub(super) const RADIUS: f64 = 290.0;
/// Half of the joint between two places, along the ring and across.
const JOINT: f64 = 0.6;

/// One place: the part of ring `ring` (1 is the innermost) from turn `from` to turn `to`, clockwise from
/// the top, in turns of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seat {
    ring: usize,
    from: f64,
    to: f64,
}

/// The ground of a cylinder with `n` places, in the order of their turn.
#[derive(Clone, Debug)]
pub(super) struct Rotunda {
    rings: usize,
    seats: Vec<Seat>,
}

impl Rotunda {
    /// Rings of about the width of a place's side. Ring k of m ends at (k/m)² of all places, because
    /// that is its share of the area.
    ///
    /// Two hundred places make eight rings: a ground of 200 m² has a radius of 8 m.
    pub(super) fn new(n: usize) -> Self {
        let rings = index(libm::round(libm::sqrt(real(n) / PI))).max(1);
        let mut seats = Vec::new();
        let mut before = 0;
        for ring in 1..=rings {
            let part = real(ring) / real(rings);
            let up_to = index(libm::round(real(n) * part * part)).min(n);
            let count = up_to - before;
            before = up_to;
            let turn = |i: usize| real(i) / real(count);
            seats.extend((0..count).map(|i| Seat { ring, from: turn(i), to: turn(i + 1) }));
        }
        seats.sort_by(|a, b| a.turn().total_cmp(&b.turn()).then(a.ring.cmp(&b.ring)));
        Self { rings, seats }
    }

    /// The places in the order of their turn.
    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Where a place's sign stands, and how large it is, as an SVG transform.
    pub(super) fn sign(&self, seat: &Seat) -> String {
        let width = self.width();
        let radius = match (seat.ring, self.alone(seat)) {
            (1, true) => 0.0,
            // The middle of a slice lies farther out than the middle of its height.
            (1, false) => 0.62 * width,
            (ring, _) => (real(ring) - 0.5) * width,
        };
        let [x, y] = point(radius, seat.turn());
        format!("translate({x:.1} {y:.1}) scale({:.2})", (width / 28.0).min(2.4))
    }

    /// The outline of a place, as an SVG path.
    pub(super) fn outline(&self, seat: &Seat) -> String {
        let ring = real(seat.ring);
        let (inner, outer) = ((ring - 1.0) * self.width() + JOINT, ring * self.width() - JOINT);
        if self.alone(seat) {
            return format!(
                "M-{outer:.1} 0A{outer:.1} {outer:.1} 0 1 1 {outer:.1} 0A{outer:.1} {outer:.1} 0 1 1 -{outer:.1} 0Z"
            );
        }
        let corner = |radius: f64, turn: f64| {
            let [x, y] = point(radius, turn);
            format!("{x:.1} {y:.1}")
        };
        // A joint is as wide at both ends.
        let joint = |radius: f64| JOINT / (2.0 * PI * radius);
        let (from, to) = (seat.from + joint(outer), seat.to - joint(outer));
        let rim =
            format!("{}A{outer:.1} {outer:.1} 0 0 1 {}", corner(outer, from), corner(outer, to));
        if seat.ring == 1 {
            return format!("M0 0L{rim}Z");
        }
        let (from, to) = (seat.from + joint(inner), seat.to - joint(inner));
        format!("M{rim}L{}A{inner:.1} {inner:.1} 0 0 0 {}Z", corner(inner, to), corner(inner, from))
    }

    fn width(&self) -> f64 {
        RADIUS / real(self.rings)
    }

    /// Whether a place has its ring for itself.
    fn alone(&self, seat: &Seat) -> bool {
        self.seats.iter().filter(|other| other.ring == seat.ring).count() == 1
    }
}

impl Seat {
    /// The turn of its middle.
    fn turn(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }
}

/// The point at `radius` and `turn`, clockwise from the top.
fn point(radius: f64, turn: f64) -> [f64; 2] {
    let angle = 2.0 * PI * turn - PI / 2.0;
    [radius * libm::cos(angle), radius * libm::sin(angle)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_places_fill_eight_rings_of_equal_area() {
        let rotunda = Rotunda::new(200);
        assert_eq!((rotunda.rings, rotunda.seats.len()), (8, 200));
        let area = |seat: &Seat| {
            let ring = real(seat.ring);
            (seat.to - seat.from) * (2.0 * ring - 1.0)
        };
        // A place is 1/200 of the disc of 64 unit rings.
        for seat in rotunda.seats() {
            assert!((area(seat) / (64.0 / 200.0) - 1.0).abs() < 0.07, "{seat:?}");
        }
        assert!(rotunda.seats().is_sorted_by(|a, b| a.turn() <= b.turn()));
    }

    #[test]
    fn any_number_of_places_has_a_ground() {
        for n in [0, 1, 2, 3, 5, 16, 64, 199] {
            let rotunda = Rotunda::new(n);
            assert_eq!(rotunda.seats().len(), n);
            for seat in rotunda.seats() {
                let outline = rotunda.outline(seat);
                assert!(outline.starts_with('M') && outline.ends_with('Z'), "{outline}");
                assert!(!outline.contains("NaN") && !rotunda.sign(seat).contains("NaN"));
            }
        }
        let one = Rotunda::new(1);
        assert!(one.sign(&one.seats()[0]).starts_with("translate(0.0 "));
    }

    #[test]
    fn the_first_place_lies_right_of_the_top() {
        let rotunda = Rotunda::new(4);
        let [x, y] = point(1.0, rotunda.seats()[0].turn());
        assert!(x > 0.0 && y < 0.0, "{x} {y}");
    }
}
