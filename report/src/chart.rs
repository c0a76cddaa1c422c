//! Inline SVG. Horizontal places are percentages, heights are pixels: a chart fills whatever width it
//! is given, from a phone to a printed page, and its text keeps its size.

use super::prose::number;
use super::{Metric, prose};
use eval::record::{DoseRecord, EntityRecord, LeakLevel};
use maud::{Markup, html};
use statistics::number::{real, real_u64};

/// A linear scale from values to per cent of the width.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// From `low` at the left to `high` at the right.
    pub fn new(low: f64, high: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 } }
    }

    /// Place of `value` in per cent, kept within the chart.
    pub fn percent(&self, value: f64) -> String {
        format!("{:.2}%", self.part(value) * 100.0)
    }

    /// Distance between two values in per cent.
    pub fn width(&self, from: f64, to: f64) -> String {
        format!("{:.2}%", (self.part(to) - self.part(from)).abs() * 100.0)
    }

    fn part(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// A round number at or above `value` whose quarters are round, too.
pub fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = libm::pow(10.0, libm::floor(libm::log10(value)));
    [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|v| *v >= value - 1e-12)
        .unwrap_or(value)
}

/// An `svg` element with its title and description.
fn figure(height: u32, title: &str, description: &str, body: &Markup) -> Markup {
    html! {
        svg class="chart" role="img" width="100%" height=(height) {
            title { (title) }
            desc { (description) }
            (body)
        }
    }
}

/// A mark at a place given in per cent.
fn mark(x: &str, y: &str, class: &str, path: &str) -> Markup {
    html! { svg class="mark" x=(x) y=(y) overflow="visible" { path class=(class) d=(path) {} } }
}

const DIAMOND: &str = "M0 -5.5L5.5 0L0 5.5L-5.5 0Z";
const SQUARE: &str = "M-4.5 -4.5H4.5V4.5H-4.5Z";
const ROUND: &str = "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z";

/// Share of one entity before (upper bar) and after (lower bar), with the interval of the change, the
/// floor around the old share, and the placebo.
pub fn census_bar(entity: &EntityRecord, scale: Scale) -> Markup {
    let described = format!(
        "{}: {} of 100 before, {} after; change {} {}.",
        entity.name,
        number(100.0 * entity.p_b, 1),
        number(100.0 * entity.p_a, 1),
        prose::signed(100.0 * entity.delta, 1),
        prose::interval(entity.ci, 100.0, 1),
    );
    let ends = entity.ci.map(|end| scale.percent(entity.p_b + end));
    let body = html! {
        line class="axis" x1="0" x2="0" y1="0" y2="34" {}
        rect class="floor" x=(scale.percent(entity.p_b - entity.floor)) y="1"
            width=(scale.width(entity.p_b - entity.floor, entity.p_b + entity.floor)) height="32" {}
        rect class="before" x="0" y="5" width=(scale.width(0.0, entity.p_b)) height="9" {}
        rect class="after" x="0" y="18" width=(scale.width(0.0, entity.p_a)) height="9" {}
        line class="whisker" x1=(ends[0]) x2=(ends[1]) y1="22.5" y2="22.5" {}
        @for end in &ends { line class="whisker" x1=(end) x2=(end) y1="18.5" y2="26.5" {} }
        @if let Some(placebo) = entity.placebo_delta {
            (mark(&scale.percent(entity.p_b + placebo), "16", "placebo", DIAMOND))
        }
    };
    figure(34, &format!("Share of {}", entity.name), &described, &body)
}

/// The axis under the bars, in places of 100.
pub fn share_axis(high: f64) -> Markup {
    let scale = Scale::new(0.0, high);
    let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| part * high);
    let body = html! {
        @for (i, tick) in ticks.iter().enumerate() {
            @let x = scale.percent(*tick);
            line class="tick" x1=(x) x2=(x) y1="0" y2="5" {}
            text class="label" x=(x) y="17" text-anchor=(["start", "middle", "middle", "middle", "end"][i]) {
                (number(100.0 * tick, decimals(25.0 * high)))
            }
        }
    };
    figure(20, "Axis", "Places of 100 pictures.", &body)
}

/// Decimals that a tick needs so that it is not rounded.
fn decimals(step: f64) -> usize {
    usize::from((step - step.round()).abs() > 1e-6)
}

/// Before and after on one rung of the leak ladder.
pub fn rung(level: &LeakLevel, label: &str) -> Markup {
    let scale = Scale::new(0.0, 1.0);
    let described = format!(
        "{label}: {} of 100 before, {} after.",
        prose::estimate(&level.before, 100.0, 1),
        prose::estimate(&level.after, 100.0, 1)
    );
    let ends = level.after.ci.unwrap_or([level.after.value; 2]).map(|end| scale.percent(end));
    let body = html! {
        @for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
            @let x = scale.percent(part);
            line class="grid" x1=(x) x2=(x) y1="0" y2="26" {}
        }
        line class="thread" x1=(scale.percent(level.before.value)) x2=(scale.percent(level.after.value)) y1="13" y2="13" {}
        line class="whisker" x1=(ends[0]) x2=(ends[1]) y1="13" y2="13" {}
        (mark(&scale.percent(level.before.value), "13", "base", ROUND))
        (mark(&scale.percent(level.after.value), "13", "adapted", SQUARE))
    };
    figure(26, label, &described, &body)
}

/// Share against dose; point `i` of `n` stands over column `i` of the strip below.
pub fn dose_curve(dose: &DoseRecord) -> Markup {
    const HEIGHT: f64 = 150.0;
    let n = real(dose.points.len());
    let top = dose
        .points
        .iter()
        .map(|point| point.share.ci.map_or(point.share.value, |ci| ci[1]))
        .fold(0.01, f64::max);
    let high = round_up(top);
    let x = |i: usize| format!("{:.2}%", (real(i) + 0.5) / n * 100.0);
    let y = |share: f64| {
        format!("{:.1}", 8.0 + (HEIGHT - 16.0) * (1.0 - (share / high).clamp(0.0, 1.0)))
    };
    let described: Vec<String> = dose
        .points
        .iter()
        .map(|p| format!("dose {}: {}", p.dose, prose::estimate(&p.share, 100.0, 1)))
        .collect();
    let body = html! {
        @for part in [0.0, 0.5, 1.0] {
            line class="grid" x1="0" x2="100%" y1=(y(part * high)) y2=(y(part * high)) {}
            text class="label" x="0" y=(y(part * high)) dy="-3" { (number(100.0 * part * high, decimals(50.0 * high))) }
        }
        @for i in 1..dose.fit.len() {
            line class="fit" x1=(x(i - 1)) x2=(x(i)) y1=(y(dose.fit[i - 1])) y2=(y(dose.fit[i])) {}
        }
        @for (i, point) in dose.points.iter().enumerate() {
            @if let Some(ci) = point.share.ci {
                line class="whisker" x1=(x(i)) x2=(x(i)) y1=(y(ci[0])) y2=(y(ci[1])) {}
            }
            (mark(&x(i), &y(point.share.value), if point.dose > 0.0 { "adapted" } else { "base" },
                if point.dose > 0.0 { SQUARE } else { ROUND }))
        }
    };
    figure(
        150,
        "Share of the concept against dose",
        &format!("Places of 100: {}.", described.join("; ")),
        &body,
    )
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// As it is.
    Plain,
    /// Faint, with its running mean (weight 1/16 each) strong.
    Smoothed,
}

/// A training curve.
pub fn training(
    metrics: &[Metric],
    title: &str,
    curve: Curve,
    read: &dyn Fn(&Metric) -> f64,
) -> Markup {
    let values: Vec<f64> = metrics.iter().map(read).collect();
    let (Some(first), Some(last)) = (metrics.first(), metrics.last()) else {
        return html! { p class="note" { "Nothing was recorded." } };
    };
    let high = round_up(values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max));
    let x = Scale::new(real_u64(first.step), real_u64(last.step));
    let point = |i: usize, value: f64| {
        let across = x.part(real_u64(metrics[i].step)) * 100.0;
        format!("{across:.2},{:.2} ", 100.0 * (1.0 - (value / high).clamp(0.0, 1.0)))
    };
    let raw: String = values.iter().enumerate().map(|(i, v)| point(i, *v)).collect();
    let mut running = values.first().copied().unwrap_or(0.0);
    let mean: String = values
        .iter()
        .enumerate()
        .map(|(i, v)| {
            running += (v - running) / if curve == Curve::Smoothed { 16.0 } else { 1.0 };
            point(i, running)
        })
        .collect();
    let end = values.last().copied().unwrap_or(0.0);
    let described = format!(
        "{title} from {} at step {} to {} at step {}.",
        short(values[0]),
        first.step,
        short(end),
        last.step
    );
    let body = html! {
        line class="grid" x1="0" x2="100%" y1="16" y2="16" {}
        line class="axis" x1="0" x2="100%" y1="116" y2="116" {}
        svg x="0" y="16" width="100%" height="100" viewBox="0 0 100 100" preserveAspectRatio="none" {
            @if curve == Curve::Smoothed { polyline class="raw" points=(raw.trim()) vector-effect="non-scaling-stroke" {} }
            polyline class="mean" points=(mean.trim()) vector-effect="non-scaling-stroke" {}
        }
        text class="label" x="0" y="12" { (short(high)) }
        text class="label" x="0" y="131" { "step " (first.step) }
        text class="label" x="100%" y="131" text-anchor="end" { (last.step) }
    };
    figure(136, title, &described, &body)
}

/// A number in few characters: decimals above a thousandth, else a power of ten.
fn short(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.001 { number(value, 3) } else { format!("{value:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_runs_from_left_to_right_and_stays_inside() {
        let scale = Scale::new(0.0, 0.4);
        assert_eq!(scale.percent(0.1), "25.00%");
        assert_eq!(scale.percent(9.0), "100.00%");
        assert_eq!(scale.width(0.3, 0.1), "50.00%");
    }

    #[test]
    fn axes_end_on_round_numbers() {
        for (value, expected) in [(0.31, 0.32), (0.2, 0.2), (0.11, 0.12), (0.9, 1.0), (0.0, 1.0)] {
            assert!((round_up(value) - expected).abs() < 1e-12, "{value}");
        }
    }
}
