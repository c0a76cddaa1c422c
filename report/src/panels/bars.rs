//! Panel 3: the census itself. Share of every entity before and after, worst first; the same without
//! what any newcomer of this size would have cost everybody.

use super::{Panel, corrected};
use crate::chart::{self, Bars, Scale};
use crate::page::{Page, key};
use crate::prose;
use eval::record::{EntityRecord, FacetRecord};
use eval::thesaurus::{BLOCKED, NONE};
use maud::{Markup, html};
use statistics::interval::Estimate;

/// Census bars of the concept's facet, the other facets folded.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let (census, words) = (page.census, page.words);
    let (home, others): (Vec<&FacetRecord>, Vec<&FacetRecord>) =
        census.facets.iter().partition(|facet| facet.id == census.concept.facet);
    let body = html! {
        @for facet in &home { p class="sentence" { (sentence(page, facet)) } }
        p class="note" { (words.fill("bars.raw_note", &[("counted", page.counted())])) }
        @for facet in &home { (switched(page, facet)) (figures(page, facet)) (corrected::part(page, facet)) }
        @for facet in &others {
            details {
                summary {
                    span { (page.facet(&facet.id)) }
                    span class="num" { (words.fill("bars.tv", &[("tv", &words.number(100.0 * facet.tv.value, 1))])) }
                    span class="num soft" { (words.fill("bars.floor", &[("floor", &words.number(100.0 * facet.tv_floor, 1))])) }
                }
                (raw(page, facet)) (figures(page, facet))
            }
        }
    };
    Panel {
        id: "census",
        title: words.say("bars.title").to_owned(),
        data: Some("entities.csv"),
        body,
    }
}

/// What was displaced, and how that splits.
fn sentence(page: &Page<'_>, facet: &FacetRecord) -> String {
    let words = page.words;
    words.fill(
        "bars.sentence",
        &[
            ("displaced", &words.estimate(&facet.displaced, 100.0, 1)),
            ("dilution", &words.estimate(&facet.dilution, 1.0, 3)),
            ("selection", &words.estimate(&facet.selection, 1.0, 3)),
        ],
    )
}

/// Share that the neutral dilution by the newcomer leaves of every entity already there:
/// (1 − λ)/(1 − a). `None` where no newcomer enters the facet, or nothing else was in it.
fn kept(facet: &FacetRecord) -> Option<f64> {
    let new = facet.entities.iter().find(|e| Some(&e.id) == facet.new.as_ref())?;
    (new.p_b < 1.0).then(|| (1.0 - new.p_a) / (1.0 - new.p_b))
}

/// Both views of the concept's facet, one at a time; only one where nobody diluted.
fn switched(page: &Page<'_>, facet: &FacetRecord) -> Markup {
    let words = page.words;
    let Some(kept) = kept(facet) else { return html! { (raw(page, facet)) } };
    let views = [
        ("bars-raw", words.say("bars.raw"), raw(page, facet)),
        ("bars-selected", words.say("bars.selected"), selected(page, facet, kept)),
    ];
    html! {
        fieldset class="scrub" {
            legend class="sr" { (words.say("bars.choose")) }
            @for (i, (id, name, _)) in views.iter().enumerate() {
                input type="radio" name="bars" id=(id) checked[i == 0];
                label for=(id) { (name) }
            }
            div class="stage" {
                @for (_, name, view) in &views {
                    div class="state printed" { h3 { (name) } (view) }
                }
            }
        }
    }
}

/// Entities that may be listed: all that were seen, and all that could have been.
fn listed(facet: &FacetRecord) -> Vec<&EntityRecord> {
    let seen = |e: &&EntityRecord| e.n_a + e.n_b > 0 || !matches!(e.id.as_str(), NONE | BLOCKED);
    facet.entities.iter().filter(seen).collect()
}

/// Shares as they were counted.
fn raw(page: &Page<'_>, facet: &FacetRecord) -> Markup {
    let words = page.words;
    let mut entities = listed(facet);
    entities.sort_by(|a, b| a.delta.total_cmp(&b.delta));
    let most = entities.iter().map(|e| e.p_b.max(e.p_a).max(e.p_b + e.ci[1])).fold(0.01, f64::max);
    let high = chart::round_up(most.min(1.0));
    let pairs = words.thousands(facet.entities.iter().map(|e| e.n_b).sum());
    let rows = entities.into_iter().map(|e| Row {
        class: e.verdict.name(),
        bars: Bars {
            before: e.p_b,
            counted: true,
            after: e.p_a,
            ends: Some(e.ci.map(|end| e.p_b + end)),
            floor: Some(e.floor),
            placebo: e.placebo_delta.map(|delta| e.p_b + delta),
        },
        change: words.signed(100.0 * e.delta, 1),
        interval: words.interval(e.ci, 100.0, 1),
        verdict: [prose::glyph(e.verdict), verdict(page, e)],
        name: page.label(e),
    });
    let name = page.facet(&facet.id);
    html! {
        p class="key" {
            span { (key("before", "▀")) " " (words.say("bars.key_base")) }
            span { (key("after", "▄")) " " (words.say("bars.key_adapted")) }
            span { (key("whisker", "├┤")) " " (words.say("bars.key_interval")) }
            span { (key("floor", "▒")) " " (words.say("bars.key_floor")) }
            @if page.census.nulls.placebos > 0 { span { (key("placebo", "◆")) " " (words.say("page.placebo")) } }
        }
        (table(page, &name, &words.fill("bars.caption", &[("facet", &name), ("pairs", &pairs)]), high, rows.collect()))
    }
}

fn verdict<'a>(page: &Page<'a>, entity: &EntityRecord) -> &'a str {
    page.words.say(&format!("verdict.{}", entity.verdict.name()))
}

/// The same beside what neutral dilution alone would have left.
fn selected(page: &Page<'_>, facet: &FacetRecord, kept: f64) -> Markup {
    let words = page.words;
    let mut entities: Vec<(&EntityRecord, f64)> =
        listed(facet).into_iter().filter_map(|e| Some((e, e.selection_coefficient?))).collect();
    entities.sort_by(|a, b| a.1.total_cmp(&b.1));
    let ends = |e: &EntityRecord| {
        e.selection_ci.map(|ci| ci.map(|s| (kept * e.p_b * libm::exp(s)).min(1.0)))
    };
    let most = |e: &EntityRecord| ends(e).map_or(0.0, |ends| ends[1]).max(kept * e.p_b).max(e.p_a);
    let high = entities.iter().map(|(e, _)| most(e)).fold(0.01, f64::max);
    let rows = entities.iter().map(|&(e, s)| {
        let (class, glyph, key) = match e.selection_ci {
            Some([_, high]) if high < 0.0 => ("fell", "▽", "bars.driven_out"),
            Some([low, _]) if low > 0.0 => ("rose", "△", "bars.favoured"),
            Some(_) | None => ("undecided", "○", "verdict.undecided"),
        };
        Row {
            class,
            bars: Bars {
                before: kept * e.p_b,
                counted: false,
                after: e.p_a,
                ends: ends(e),
                floor: None,
                placebo: None,
            },
            change: words.signed(s, 2),
            interval: e
                .selection_ci
                .map_or_else(|| "—".to_owned(), |ci| words.interval(ci, 1.0, 2)),
            verdict: [glyph, words.say(key)],
            name: page.label(e),
        }
    });
    let left = words.number(100.0 * kept, 1);
    html! {
        p class="note" { (words.fill("bars.selected_note", &[("left", &left)])) }
        p class="key" {
            span { (key("before", "▭")) " " (words.say("bars.key_expected")) }
            span { (key("after", "▄")) " " (words.say("bars.key_adapted")) }
            span { (key("whisker", "├┤")) " " (words.say("bars.key_interval")) }
        }
        (table(page, &page.facet(&facet.id), words.say("bars.selected_caption"), chart::round_up(high.min(1.0)), rows.collect()))
    }
}

/// One entity of a table of bars.
struct Row<'a> {
    class: &'static str,
    bars: Bars,
    change: String,
    interval: String,
    verdict: [&'a str; 2],
    name: String,
}

/// The roles keep it a table where a phone lays its rows out as blocks.
fn table(page: &Page<'_>, facet: &str, caption: &str, high: f64, rows: Vec<Row<'_>>) -> Markup {
    let words = page.words;
    let scale = Scale::new(0.0, high);
    let (change, interval) = (words.say("page.change"), words.say("page.interval"));
    html! {
        table class="bars" role="table" {
            caption { (caption) }
            thead role="rowgroup" { tr role="row" {
                th scope="col" role="columnheader" { (facet) }
                th scope="col" role="columnheader" class="wide" { (chart::share_axis(high, words)) }
                th scope="col" role="columnheader" class="num" { (change) }
                th scope="col" role="columnheader" class="ci" { (interval) }
                th scope="col" role="columnheader" { (words.say("page.verdict")) }
            } }
            tbody role="rowgroup" {
                @for row in rows {
                    tr role="row" class=(row.class) {
                        th scope="row" role="rowheader" { (row.name) }
                        td role="cell" class="wide" { (chart::bars(&row.bars, scale, [&row.name, &described(page, &row)])) }
                        td role="cell" class="num" data-label=(change) { (row.change) }
                        td role="cell" class="ci" data-label=(interval) { (row.interval) }
                        td role="cell" class="verdict" { span aria-hidden="true" { (row.verdict[0]) } " " (row.verdict[1]) }
                    }
                }
            }
        }
    }
}

/// One row in words.
fn described(page: &Page<'_>, row: &Row<'_>) -> String {
    let words = page.words;
    words.fill(
        if row.bars.counted { "bars.desc" } else { "bars.selected_desc" },
        &[
            ("name", &row.name),
            ("before", &words.number(100.0 * row.bars.before, 1)),
            ("after", &words.number(100.0 * row.bars.after, 1)),
            ("change", &row.change),
            ("ci", &row.interval),
        ],
    )
}

/// The figures of a facet in one line each, every distance with its floor and its placebo.
fn figures(page: &Page<'_>, facet: &FacetRecord) -> Markup {
    let words = page.words;
    let of_100 = |estimate: &Estimate| {
        words.fill("bars.of_100", &[("value", &words.estimate(estimate, 100.0, 1))])
    };
    let nats = |estimate: &Estimate| {
        words.fill("bars.nats", &[("value", &words.estimate(estimate, 1.0, 3))])
    };
    let displaced = beside(page, facet.displaced_floor, facet.displaced_placebo, (100.0, 1));
    let dilution = beside(page, facet.dilution_floor, None, (1.0, 3));
    let selection = beside(page, facet.selection_floor, facet.selection_placebo, (1.0, 3));
    let lost = words.estimate(&facet.evenness_loss, 100.0, 1);
    let hill = [facet.hill.before[1], facet.hill.after[1]].map(|hill| words.number(hill, 2));
    let rows = [
        (
            words.say("bars.displaced"),
            of_100(&facet.displaced),
            words.fill("bars.displaced_gloss", &[("beside", &displaced)]),
        ),
        (
            words.say("bars.dilution"),
            nats(&facet.dilution),
            words.fill("bars.dilution_gloss", &[("beside", &dilution)]),
        ),
        (
            words.say("bars.selection"),
            nats(&facet.selection),
            words.fill("bars.selection_gloss", &[("beside", &selection)]),
        ),
        (words.say("bars.variation"), of_100(&facet.tv), variation(page, facet)),
        (
            words.say("bars.entities"),
            hill.join(" → "),
            words.fill("bars.entities_gloss", &[("lost", &lost)]),
        ),
    ];
    html! {
        dl class="figures" {
            @for (term, value, gloss) in rows {
                div { dt { (term) } dd { (value) } dd class="soft" { (gloss) } }
            }
        }
    }
}

/// Total variation beside its floor and its placebo.
fn variation(page: &Page<'_>, facet: &FacetRecord) -> String {
    let words = page.words;
    words.fill(
        "bars.variation_gloss",
        &[
            ("beside", &beside(page, facet.tv_floor, facet.tv_placebo, (100.0, 1))),
            ("above", &words.number(100.0 * (facet.tv.value - facet.tv_floor), 1)),
            ("p", &words.number(facet.tv_p, 3)),
        ],
    )
}

/// A floor and, where there was one, a placebo, times a scale and with so many decimals.
fn beside(
    page: &Page<'_>,
    floor: f64,
    placebo: Option<f64>,
    (scale, digits): (f64, usize),
) -> String {
    let words = page.words;
    let floor = words.number(scale * floor, digits);
    match placebo {
        Some(value) => {
            let placebo = words.number(scale * value, digits);
            words.fill("bars.floor_placebo", &[("floor", &floor), ("placebo", &placebo)])
        }
        None => words.fill("bars.floor", &[("floor", &floor)]),
    }
}
