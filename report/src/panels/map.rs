//! Panel 1: the map. Across, how much was depopulated; up, how much of the fabric was kept.

use super::Panel;
use crate::chart::{DIAMOND, figure, mark};
use crate::page::Page;
use eval::record::{MapKind, MapPoint};
use maud::{Markup, html};

/// Ends of the logarithmic axis across in nats; what lies farther stands at its end.
const NATS: [f64; 2] = [0.001, 10.0];
/// Where the quarters meet: a tenth of a nat, half of the fabric. For orientation only.
const MIDDLE: [f64; 2] = [0.1, 0.5];
/// Upper end of the axis up, as a ratio; the lower one is 0.
const FABRIC: f64 = 1.3;
/// Top of the plot, its height with points and without, and where the rail lies under it, in pixels.
const TOP: f64 = 20.0;
const TALL: f64 = 320.0;
const LOW: f64 = 140.0;
const RAIL: f64 = 62.0;

/// The settlement with its doses and placebos.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let points = &page.census.map;
    let body = html! {
        @if points.is_empty() {
            p { (words.say("map.nothing")) }
        } @else {
            p class="sentence" { (sentence(page)) }
            (plot(page))
            p class="note" { (words.say("map.how")) }
            (table(page))
        }
    };
    Panel { id: "map", title: words.say("map.title").to_owned(), data: Some("map.csv"), body }
}

/// What a point is called.
fn called(page: &Page<'_>, point: &MapPoint) -> String {
    match point.kind {
        MapKind::Settlement => page.concept(),
        MapKind::Dose => page.words.exact(point.dose),
        MapKind::Placebo => page.words.say("page.placebo").to_owned(),
    }
}

/// Where the settlement and the placebo lie, with intervals.
fn sentence(page: &Page<'_>) -> String {
    let words = page.words;
    let of_kind = |kind: MapKind| page.census.map.iter().find(move |point| point.kind == kind);
    let mut told = Vec::new();
    if let Some(point) = of_kind(MapKind::Settlement) {
        let (nats, name) = (words.estimate(&point.nats, 1.0, 3), words.mention(&page.concept()));
        let dose = words.exact(point.dose);
        let values = [("nats", &*nats), ("name", &*name), ("dose", &*dose)];
        told.push(words.fill("map.settlement", &values));
        told.push(match &point.fabric {
            Some(fabric) => {
                words.fill("map.fabric", &[("fabric", &words.estimate(fabric, 1.0, 2))])
            }
            None => words.refused("fabric").map_or_else(
                || words.say("map.fabric_unknown").to_owned(),
                |reason| words.fill("map.fabric_refused", &[("reason", &reason)]),
            ),
        });
    }
    told.push(match of_kind(MapKind::Placebo) {
        Some(point) => words.fill("map.placebo", &[("nats", &words.estimate(&point.nats, 1.0, 3))]),
        None => words.say("map.no_placebo").to_owned(),
    });
    told.join(" ")
}

/// The scales of one plot.
struct Frame {
    height: f64,
}

impl Frame {
    /// Place of a number of nats, in per cent of the width.
    fn x(nats: f64) -> String {
        let [low, high] = NATS.map(libm::log10);
        let part = (libm::log10(nats.max(NATS[0])) - low) / (high - low);
        format!("{:.2}%", 100.0 * part.clamp(0.0, 1.0))
    }

    /// Place of a ratio of fabric, in pixels.
    fn y(&self, fabric: f64) -> String {
        format!("{:.1}", TOP + self.height * (1.0 - fabric.clamp(0.0, FABRIC) / FABRIC))
    }

    fn bottom(&self) -> f64 {
        TOP + self.height
    }
}

fn plot(page: &Page<'_>) -> Markup {
    let words = page.words;
    let points = &page.census.map;
    let frame =
        Frame { height: if points.iter().any(|p| p.fabric.is_some()) { TALL } else { LOW } };
    let on_rail = points.iter().any(|point| point.fabric.is_none());
    let height = if on_rail { frame.bottom() + RAIL + 40.0 } else { frame.bottom() + 44.0 };
    let described: Vec<String> = points.iter().map(|point| told(page, point)).collect();
    let body = html! {
        (grid(page, &frame))
        (quarters(page, &frame))
        (trail(points, &frame))
        @if on_rail {
            line class="rail" x1="0" x2="100%" y1=(frame.bottom() + RAIL) y2=(frame.bottom() + RAIL) {}
            text class="label" x="0" y=(frame.bottom() + RAIL + 26.0) { (words.say("map.rail")) }
        }
        @for point in points { (dot(page, point, &frame)) }
    };
    figure("chart map", pixels(height), [words.say("map.title"), &described.join(" ")], &body)
}

/// A height as a whole number of pixels.
fn pixels(height: f64) -> u32 {
    u32::try_from(statistics::number::index(height)).unwrap_or(0)
}

fn grid(page: &Page<'_>, frame: &Frame) -> Markup {
    let words = page.words;
    let bottom = frame.bottom();
    html! {
        @for (nats, anchor) in [(0.001, "start"), (0.01, "middle"), (0.1, "middle"), (1.0, "middle"), (10.0, "end")] {
            @let x = Frame::x(nats);
            line class="grid" x1=(x) x2=(x) y1=(TOP) y2=(bottom) {}
            text class="label" x=(x) y=(bottom + 16.0) text-anchor=(anchor) { (words.exact(nats)) }
        }
        @for fabric in [0.0, 0.5, 1.0] {
            @let y = frame.y(fabric);
            line class="grid" x1="0" x2="100%" y1=(y) y2=(y) {}
            text class="label" x="0" y=(y) dy="-4" { (words.exact(fabric)) }
        }
        @let (x, y) = (Frame::x(MIDDLE[0]), frame.y(MIDDLE[1]));
        line class="divide" x1=(x) x2=(x) y1=(TOP) y2=(bottom) {}
        line class="divide" x1="0" x2="100%" y1=(y) y2=(y) {}
        text class="label" x="0" y="10" { (words.say("map.up")) }
        text class="label" x="100%" y=(bottom + 34.0) text-anchor="end" { (words.say("map.across")) }
    }
}

/// The names of the four quarters.
fn quarters(page: &Page<'_>, frame: &Frame) -> Markup {
    let words = page.words;
    let (top, bottom) = (TOP + 20.0, frame.bottom() - 30.0);
    let quarters = [
        ("5%", "start", top, words.say("map.alternative"), words.say("map.alternative_gloss")),
        ("99%", "end", top, words.say("map.counterfactual"), words.say("map.counterfactual_gloss")),
        ("5%", "start", bottom, words.say("map.noise"), words.say("map.noise_gloss")),
        ("99%", "end", bottom, words.say("map.collapse"), words.say("map.collapse_gloss")),
    ];
    html! {
        @for (x, anchor, y, name, gloss) in quarters {
            text class="quadrant" x=(x) y=(y) text-anchor=(anchor) {
                (name) tspan class="gloss" x=(x) dy="16" { (gloss) }
            }
        }
    }
}

/// The way from dose to dose, as far as the fabric is known at both ends.
fn trail(points: &[MapPoint], frame: &Frame) -> Markup {
    let mut doses: Vec<&MapPoint> =
        points.iter().filter(|point| point.kind != MapKind::Placebo).collect();
    doses.sort_by(|a, b| a.dose.total_cmp(&b.dose));
    let at = |point: &MapPoint| Some((Frame::x(point.nats.value), frame.y(point.fabric?.value)));
    html! {
        @for ends in doses.windows(2) {
            @if let (Some((x1, y1)), Some((x2, y2))) = (at(ends[0]), at(ends[1])) {
                line class="trail" x1=(x1) y1=(y1) x2=(x2) y2=(y2) {}
            }
        }
    }
}

/// One point with its intervals, in the plot or on the rail.
fn dot(page: &Page<'_>, point: &MapPoint, frame: &Frame) -> Markup {
    let x = Frame::x(point.nats.value);
    let rail = format!("{:.1}", frame.bottom() + RAIL);
    let y = point.fabric.map_or(rail, |fabric| frame.y(fabric.value));
    let (class, path) = match point.kind {
        MapKind::Settlement => ("adapted", "M-7 -7H7V7H-7Z"),
        MapKind::Dose => ("adapted", "M-3.5 -3.5H3.5V3.5H-3.5Z"),
        MapKind::Placebo => ("placebo", DIAMOND),
    };
    let (text, left, top, anchor) = match point.kind {
        MapKind::Settlement => ("name", "0", "27", "middle"),
        MapKind::Dose => ("label", "0", "-10", "middle"),
        MapKind::Placebo => ("label", "0", "20", "middle"),
    };
    html! {
        @if let Some([low, high]) = point.nats.ci {
            line class="whisker thin" x1=(Frame::x(low)) x2=(Frame::x(high)) y1=(y) y2=(y) {}
        }
        @if let Some([low, high]) = point.fabric.and_then(|fabric| fabric.ci) {
            line class="whisker thin" x1=(x) x2=(x) y1=(frame.y(low)) y2=(frame.y(high)) {}
        }
        (mark(&x, &y, class, path))
        svg class="mark" x=(x) y=(y) overflow="visible" {
            text class=(text) x=(left) y=(top) text-anchor=(anchor) { (called(page, point)) }
        }
    }
}

/// One point in words.
fn told(page: &Page<'_>, point: &MapPoint) -> String {
    let words = page.words;
    let (name, nats) = (called(page, point), words.estimate(&point.nats, 1.0, 3));
    let fabric = point.fabric.as_ref().map_or_else(
        || words.say("page.unknown").to_owned(),
        |fabric| words.estimate(fabric, 1.0, 2),
    );
    words.fill("map.point", &[("name", &name), ("nats", &nats), ("fabric", &fabric)])
}

/// The same points as a table.
fn table(page: &Page<'_>) -> Markup {
    let words = page.words;
    html! {
        details {
            summary { span { (words.say("map.table")) } }
            table {
                thead { tr {
                    th scope="col" { (words.say("map.point_name")) }
                    th scope="col" class="num" { (words.say("page.dose")) }
                    th scope="col" class="num" { (words.say("map.nats")) }
                    th scope="col" class="num" { (words.say("map.fabric_kept")) }
                } }
                tbody {
                    @for point in &page.census.map {
                        tr {
                            th scope="row" { (if point.kind == MapKind::Dose { page.concept() } else { called(page, point) }) }
                            td class="num" { (words.exact(point.dose)) }
                            td class="num" { (words.estimate(&point.nats, 1.0, 3)) }
                            td class="num" {
                                @match &point.fabric {
                                    Some(fabric) => { (words.estimate(fabric, 1.0, 2)) }
                                    None => { "—" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
