//! The dose: the forecast before anything was settled, the concept's share and the same seeds dose by
//! dose, and how far apart the models' paths lie.

use super::chart_parts::{
    Axis, Ledger, Line, Look, figure, legend, mark, missing, percent, px, whisker,
};
use super::{Panel, forecast, ruler};
use crate::page::Page;
use eval::record::DoseRecord;
use maud::{Markup, html};
use statistics::number::real;

/// Height of the curve over the strip; its field, and where the dose of half effect is marked.
const CURVE_PX: u32 = 176;
const TOP_PX: f64 = 12.0;
const FIELD_PX: f64 = 140.0;
const HALF_PX: f64 = 166.0;
/// Rows of the strip where the pictures stand in the page itself.
const ROWS_WITHIN: usize = 6;

/// The panel.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let body = html! {
        h3 class="first" { (words.say("dose.forecast")) }
        (forecast::part(page))
        h3 { (words.say("dose.share")) }
        (share(page))
        h3 { (words.say("dose.ruler")) }
        (ruler::part(page))
    };
    Panel { id: "dose", title: words.say("dose.title").to_owned(), data: Some("dose.csv"), body }
}

/// The share curve over the strip: rows are seeds, columns doses.
fn share(page: &Page<'_>) -> Markup {
    let words = page.words;
    let Some(dose) = &page.census.dose else {
        let whats = ["dose", "placebo and doses"];
        return missing(page, &whats, words.say("dose.no_doses"));
    };
    let aligned = page.census.atlas.doses.len() == dose.points.len();
    html! {
        p { (half(page, dose)) }
        p class="note" { (how(page, dose)) }
        (legend(&[
            (Look::Base.class(), Look::Base.glyph(), words.say("page.base")),
            (Look::Adapted.class(), Look::Adapted.glyph(), words.say("page.adapted")),
            ("fit", "╱", words.say("dose.key_fit")),
            (Look::Half.class(), Look::Half.glyph(), words.say("dose.key_half")),
        ]))
        div class="strip" style=(format!("--columns:{}", dose.points.len())) {
            div class="curve" { (curve(page, dose)) }
            div class="doses" aria-hidden="true" {
                @for point in &dose.points { span { (words.exact(point.dose)) } }
            }
            @if aligned { (strip(page)) }
        }
        @if page.census.atlas.strip.is_empty() { p class="note" { (words.say("dose.no_strip")) } }
        @else { p class="note listed" { (strip_rule(page)) } }
        (points(page, dose))
    }
}

/// The dose of half effect, or why there is none.
fn half(page: &Page<'_>, dose: &DoseRecord) -> String {
    let words = page.words;
    let Some(half) = dose.half_effect else {
        return words.say("dose.no_half").to_owned();
    };
    let ci = dose.half_effect_ci.map(|ci| format!(" {}", words.interval(ci, 1.0, 2)));
    let value = format!("{}{}", words.number(half, 2), ci.unwrap_or_default());
    words.fill("dose.half", &[("dose", &value)])
}

/// What the curve is of, and where the share falls although the dose rises.
fn how(page: &Page<'_>, dose: &DoseRecord) -> String {
    let words = page.words;
    let pairs = dose.points.first().map_or(0, |point| point.pairs);
    // Doses beside 1 are drawn on fewer seeds than the headline, and on the empty prompt alone.
    let of = if pairs < page.census.counts.headline_pairs {
        words.say("dose.of_empty")
    } else {
        words.say("dose.of_all")
    };
    let drawn = words.fill(
        "dose.how",
        &[
            ("concept", &words.mention(&page.concept())),
            ("counted", page.counted()),
            ("pictures", &words.thousands(pairs)),
            ("of", of),
        ],
    );
    match dose.violations {
        0 => drawn,
        falls => format!("{drawn} {}", words.count("dose.falls", falls)),
    }
}

/// Share against dose; point `i` of `n` stands over column `i` of the strip below.
fn curve(page: &Page<'_>, dose: &DoseRecord) -> Markup {
    let words = page.words;
    let tops = dose.points.iter().map(|p| p.share.ci.map_or(p.share.value, |ci| ci[1]));
    let axis = Axis::around(0.0, tops.fold(0.01, f64::max).min(1.0));
    let y = |share: f64| axis.down(share, TOP_PX, FIELD_PX);
    let x = |i: usize| percent((real(i) + 0.5) / real(dose.points.len().max(1)));
    let said: Vec<String> = dose
        .points
        .iter()
        .map(|point| {
            let share = words.estimate(&point.share, 100.0, 1);
            words.fill(
                "dose.point_described",
                &[("dose", &words.exact(point.dose)), ("share", &share)],
            )
        })
        .collect();
    let body = html! {
        @for tick in axis.ticks() {
            line class="grid" x1="0" x2="100%" y1=(px(y(tick))) y2=(px(y(tick))) {}
            text class="label" x="0" y=(px(y(tick) - 3.0)) { (words.number(100.0 * tick, axis.digits(100.0))) }
        }
        (half_mark(dose))
        @for (i, ends) in dose.fit.windows(2).enumerate() {
            line class="fit" x1=(x(i)) x2=(x(i + 1)) y1=(px(y(ends[0]))) y2=(px(y(ends[1]))) {}
        }
        @for (i, point) in dose.points.iter().enumerate() {
            @if let Some([low, high]) = point.share.ci {
                line class="whisker" x1=(x(i)) x2=(x(i)) y1=(px(y(low))) y2=(px(y(high))) {}
            }
            (mark(&x(i), y(point.share.value), if point.dose > 0.0 { Look::Adapted } else { Look::Base }))
        }
    };
    figure(CURVE_PX, words.say("dose.curve_title"), &format!("{}.", said.join("; ")), &body)
}

/// The dose of half effect under the curve, with its interval.
fn half_mark(dose: &DoseRecord) -> Markup {
    let columns = Axis::unit();
    let ends = dose
        .half_effect_ci
        .and_then(|[low, high]| Some([column_of(dose, low)?, column_of(dose, high)?]));
    html! {
        @if let Some(at) = dose.half_effect.and_then(|half| column_of(dose, half)) {
            line class="halfway" x1=(percent(at)) x2=(percent(at)) y1=(px(TOP_PX)) y2=(px(HALF_PX)) {}
            (whisker(&columns, ends, HALF_PX, "half"))
            (mark(&percent(at), HALF_PX, Look::Half))
        }
    }
}

/// Where a dose stands over the columns, as a part of the width: between two columns in proportion.
fn column_of(dose: &DoseRecord, value: f64) -> Option<f64> {
    let n = real(dose.points.len());
    dose.points.windows(2).enumerate().find_map(|(i, pair)| {
        let (low, high) = (pair[0].dose, pair[1].dose);
        let within = (low..=high).contains(&value) && high > low;
        within.then(|| (real(i) + 0.5 + (value - low) / (high - low)) / n)
    })
}

/// Rows of the same seeds at every dose.
fn strip(page: &Page<'_>) -> Markup {
    let atlas = &page.census.atlas;
    let rows = page.at_most(atlas.strip.len(), ROWS_WITHIN);
    html! {
        @for (i, row) in atlas.strip.iter().take(rows).enumerate() {
            div class="row" {
                @for (seen, dose) in row.iter().zip(&atlas.doses) {
                    (page.picture(&seen.picture, &page.words.fill("dose.alt", &[
                        ("row", &(i + 1).to_string()),
                        ("dose", &page.words.exact(*dose)),
                        ("bears", &page.bears(seen)),
                    ])))
                }
            }
        }
    }
}

/// How the rows of the strip were chosen, and what became of them at the last dose.
fn strip_rule(page: &Page<'_>) -> String {
    let words = page.words;
    let strip = &page.census.atlas.strip;
    let ends = strip.iter().filter_map(|row| Some([row.first()?, row.last()?]));
    let [changed, arrived] = page.changes(ends);
    words.fill(
        "dose.strip_rule",
        &[
            ("rows", &strip.len().to_string()),
            ("changed", &changed.to_string()),
            ("facet", &page.facet(&page.census.concept.facet)),
            ("arrived", &arrived.to_string()),
            ("concept", &words.mention(&page.concept())),
        ],
    )
}

/// The points of the curve as a table.
fn points(page: &Page<'_>, dose: &DoseRecord) -> Markup {
    let words = page.words;
    let lines = dose.points.iter().zip(&dose.fit).map(|(point, fit)| Line {
        name: html! { (words.exact(point.dose)) },
        chart: None,
        cells: vec![
            html! { (words.estimate(&point.share, 100.0, 1)) },
            html! { (words.number(100.0 * fit, 1)) },
            html! { (words.number(100.0 * point.tv, 1)) },
            html! { (words.thousands(point.pairs)) },
        ],
    });
    let ledger = Ledger {
        caption: words.say("dose.points_caption"),
        first: words.say("dose.dose"),
        axis: None,
        heads: &[
            words.say("dose.share_head"),
            words.say("dose.fit_head"),
            words.say("dose.tv_head"),
            words.say("dose.pairs_head"),
        ],
        lines: lines.collect(),
    };
    html! {
        details {
            summary { span { (words.say("dose.points")) } }
            (ledger.draw())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;

    fn drawn(census: &eval::json::CensusReport, language: Language) -> String {
        sample::on_page(census, language, &|page| panel(page).body)
    }

    #[test]
    fn the_dose_of_half_effect_stands_with_its_interval_or_is_not_given() {
        let mut census = sample::census();
        let dose = census.dose.as_mut().unwrap();
        (dose.half_effect, dose.half_effect_ci) = (Some(0.62), Some([0.55, 0.7]));
        assert!(drawn(&census, Language::English).contains("at dose 0.62 [0.55, 0.70]"));
        assert!(drawn(&census, Language::French).contains("0,62 [0,55\u{202f}; 0,70]"));
        let dose = census.dose.as_mut().unwrap();
        (dose.half_effect, dose.half_effect_ci) = (None, None);
        let page = drawn(&census, Language::English);
        assert!(page.contains("is not beyond chance") && !page.contains("class=\"halfway\""));
    }

    #[test]
    fn doses_between_two_columns_stand_in_proportion() {
        let dose = sample::census().dose.unwrap();
        let doses: Vec<String> = dose.points.iter().map(|point| point.dose.to_string()).collect();
        assert_eq!(doses, ["0", "0.5", "1"]);
        let sixths = |value: f64| format!("{:.6}", 6.0 * column_of(&dose, value).unwrap());
        let found = [0.0, 0.25, 0.5, 1.0].map(sixths);
        assert_eq!(found, ["1.000000", "2.000000", "3.000000", "5.000000"]);
        assert_eq!(column_of(&dose, 1.25), None);
    }

    #[test]
    fn shares_that_fall_as_the_dose_rises_are_counted() {
        let mut census = sample::census();
        census.dose.as_mut().unwrap().violations = 2;
        assert!(drawn(&census, Language::English).contains("falls 2 times"));
        census.dose.as_mut().unwrap().violations = 0;
        assert!(!drawn(&census, Language::English).contains("falls"));
    }

    #[test]
    fn without_doses_one_sentence_says_why() {
        let mut census = sample::bare();
        census.dose = None;
        let refusal =
            |what: &str| eval::record::Refusal { what: what.into(), reason: "why".into() };
        census.refused = vec![refusal("placebo and doses")];
        let page = drawn(&census, Language::English);
        assert!(page.contains("No dose between 0 and 1") && page.contains("<span>why</span>."));
        assert!(!page.contains("class=\"strip\""));
    }
}
