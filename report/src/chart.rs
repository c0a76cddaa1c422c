//! Inline SVG of bars, rungs and curves. Horizontal places are percentages, heights are pixels: a chart
//! fills whatever width it is given, from a phone to a printed page, and its text keeps its size.

use super::Metric;
use super::words::Words;
use eval::record::LeakLevel;
use maud::{Markup, html};
use statistics::number::real_u64;

/// A linear scale from values to per cent of the width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// From `low` at the left to `high` at the right.
    pub(crate) fn new(low: f64, high: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 } }
    }

    /// Place of `value` in per cent, kept within the chart.
    pub(crate) fn percent(&self, value: f64) -> String {
        format!("{:.2}%", self.part(value) * 100.0)
    }

    /// Distance between two values in per cent.
    pub(crate) fn width(&self, from: f64, to: f64) -> String {
        format!("{:.2}%", (self.part(to) - self.part(from)).abs() * 100.0)
    }

    fn part(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// A round number at or above `value` whose quarters are round, too.
pub(crate) fn round_up(value: f64) -> f64 {
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
pub(crate) fn figure(class: &str, height: u32, told: [&str; 2], body: &Markup) -> Markup {
    let [title, description] = told;
    html! {
        svg class=(class) role="img" width="100%" height=(height) {
            title { (title) }
            desc { (description) }
            (body)
        }
    }
}

/// A mark at a place given in per cent.
pub(crate) fn mark(x: &str, y: &str, class: &str, path: &str) -> Markup {
    html! { svg class="mark" x=(x) y=(y) overflow="visible" { path class=(class) d=(path) {} } }
}

/// The sign of a placebo.
pub(crate) const DIAMOND: &str = "M0 -5.5L5.5 0L0 5.5L-5.5 0Z";
/// The sign of the adapted model.
pub(crate) const SQUARE: &str = "M-4.5 -4.5H4.5V4.5H-4.5Z";
/// The sign of the base.
pub(crate) const ROUND: &str = "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z";

/// One entity's two bars, in shares of 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bars {
    /// The upper bar: what is compared with.
    pub(crate) before: f64,
    /// Whether the upper bar was counted, or only expected.
    pub(crate) counted: bool,
    /// The lower bar: what was counted after.
    pub(crate) after: f64,
    /// Ends of the interval, where the lower bar may end.
    pub(crate) ends: Option<[f64; 2]>,
    /// Half width of the floor around the upper bar's end.
    pub(crate) floor: Option<f64>,
    /// Where the lower bar would end under the placebo.
    pub(crate) placebo: Option<f64>,
}

/// Two bars with the interval, the floor around the upper one, and the placebo.
pub(crate) fn bars(bars: &Bars, scale: Scale, told: [&str; 2]) -> Markup {
    let ends = bars.ends.map(|ends| ends.map(|end| scale.percent(end)));
    let body = html! {
        line class="axis" x1="0" x2="0" y1="0" y2="34" {}
        @if let Some(floor) = bars.floor {
            rect class="floor" x=(scale.percent(bars.before - floor)) y="1"
                width=(scale.width(bars.before - floor, bars.before + floor)) height="32" {}
        }
        rect class=(if bars.counted { "before" } else { "expected" }) x="0" y="5"
            width=(scale.width(0.0, bars.before)) height="9" {}
        rect class="after" x="0" y="18" width=(scale.width(0.0, bars.after)) height="9" {}
        @if let Some([low, high]) = &ends {
            line class="whisker" x1=(low) x2=(high) y1="22.5" y2="22.5" {}
            @for end in [low, high] { line class="whisker" x1=(end) x2=(end) y1="18.5" y2="26.5" {} }
        }
        @if let Some(placebo) = bars.placebo {
            (mark(&scale.percent(placebo), "16", "placebo", DIAMOND))
        }
    };
    figure("chart", 34, told, &body)
}

/// The axis over the bars, in places of 100.
pub(crate) fn share_axis(high: f64, words: &Words) -> Markup {
    let scale = Scale::new(0.0, high);
    let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| part * high);
    let body = html! {
        @for (i, tick) in ticks.iter().enumerate() {
            @let x = scale.percent(*tick);
            line class="tick" x1=(x) x2=(x) y1="15" y2="20" {}
            text class="label" x=(x) y="11" text-anchor=(["start", "middle", "middle", "middle", "end"][i]) {
                (words.number(100.0 * tick, decimals(25.0 * high)))
            }
        }
    };
    let told = [words.say("page.axis"), words.say("page.places_of_100")];
    figure("chart", 20, told, &body)
}

/// Decimals that a tick needs so that it is not rounded.
fn decimals(step: f64) -> usize {
    usize::from((step - libm::round(step)).abs() > 1e-6)
}

/// Before and after on one rung of the leak ladder.
pub(crate) fn rung(level: &LeakLevel, label: &str, words: &Words) -> Markup {
    let scale = Scale::new(0.0, 1.0);
    let before = words.estimate(&level.before, 100.0, 1);
    let after = words.estimate(&level.after, 100.0, 1);
    let values = [("label", label), ("before", &*before), ("after", &*after)];
    let described = words.fill("arrival.rung_desc", &values);
    let ends = level.after.ci.unwrap_or([level.after.value; 2]).map(|end| scale.percent(end));
    let [from, to] = [level.before.value, level.after.value].map(|value| scale.percent(value));
    let body = html! {
        @for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
            @let x = scale.percent(part);
            line class="grid" x1=(x) x2=(x) y1="0" y2="26" {}
        }
        line class="thread" x1=(from) x2=(to) y1="13" y2="13" {}
        line class="whisker" x1=(ends[0]) x2=(ends[1]) y1="13" y2="13" {}
        (mark(&from, "13", "base", ROUND))
        (mark(&to, "13", "adapted", SQUARE))
    };
    figure("chart", 26, [label, &described], &body)
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    /// As it is.
    Plain,
    /// Faint, with its running mean (weight 1/16 each) strong.
    Smoothed,
}

/// A training curve of one value per record, all of them finite or left at the top.
pub(crate) fn training(
    metrics: &[Metric],
    values: &[f64],
    title: &str,
    curve: Curve,
    words: &Words,
) -> Markup {
    let (Some(first), Some(last)) = (metrics.first(), metrics.last()) else {
        return html! { p class="note" { (words.say("training.nothing")) } };
    };
    let high = round_up(values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max));
    let x = Scale::new(real_u64(first.step), real_u64(last.step));
    let point = |(metric, value): (&Metric, f64)| {
        let across = x.part(real_u64(metric.step)) * 100.0;
        format!("{across:.2},{:.2} ", 100.0 * (1.0 - (value / high).clamp(0.0, 1.0)))
    };
    let drawn = |values: &[f64]| -> String {
        metrics.iter().zip(values.iter().copied()).map(&point).collect()
    };
    let smoothed = curve == Curve::Smoothed;
    let [start, end] = [values.first(), values.last()].map(|end| end.copied().unwrap_or(0.0));
    let steps = [words.thousands(first.step), words.thousands(last.step)];
    let described = words.fill(
        "training.desc",
        &[
            ("what", title),
            ("from", &short(start, words)),
            ("first", &steps[0]),
            ("to", &short(end, words)),
            ("last", &steps[1]),
        ],
    );
    let body = html! {
        line class="grid" x1="0" x2="100%" y1="16" y2="16" {}
        line class="axis" x1="0" x2="100%" y1="116" y2="116" {}
        svg x="0" y="16" width="100%" height="100" viewBox="0 0 100 100" preserveAspectRatio="none" {
            @if smoothed { polyline class="raw" points=(drawn(values).trim()) vector-effect="non-scaling-stroke" {} }
            polyline class="mean" points=(drawn(&running(values, if smoothed { 16.0 } else { 1.0 })).trim()) vector-effect="non-scaling-stroke" {}
        }
        text class="label" x="0" y="12" { (short(high, words)) }
        text class="label" x="0" y="131" { (words.fill("training.step", &[("n", &steps[0])])) }
        text class="label" x="100%" y="131" text-anchor="end" { (steps[1]) }
    };
    figure("chart", 136, [title, &described], &body)
}

/// The running mean with weight 1/`n` for each new value.
fn running(values: &[f64], n: f64) -> Vec<f64> {
    let mut mean = values.first().copied().unwrap_or(0.0);
    let step = |value: &f64| {
        mean += (value - mean) / n;
        mean
    };
    values.iter().map(step).collect()
}

/// A number in few characters: decimals above a thousandth, else a power of ten.
fn short(value: f64, words: &Words) -> String {
    if value == 0.0 || value.abs() >= 0.001 {
        words.number(value, 3)
    } else {
        words.power_of_ten(value)
    }
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

    #[test]
    fn the_running_mean_follows_slowly() {
        assert_eq!(running(&[1.0, 1.0, 17.0], 16.0), vec![1.0, 1.0, 2.0]);
        assert_eq!(running(&[1.0, 3.0], 1.0), vec![1.0, 3.0]);
    }
}
