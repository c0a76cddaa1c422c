//! The census-taker's sheet: numbered pairs for a person with a pen or a spreadsheet, the blank table,
//! and what came of it once a census read it back.

use super::Panel;
use super::chart_parts::{
    Axis, Dot, Ledger, Line, Look, dots, ends, legend, missing, ruled, valued,
};
use crate::page::Page;
use crate::words::Words;
use eval::census::labels::blank;
use eval::record::{LabelledEntity, LabelsRecord, Pair};
use eval::thesaurus::{BLOCKED, NONE};
use maud::{Markup, html};
use statistics::interval::Estimate;
use std::fmt::Write as _;

/// The panel.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let labels = page.census.labels.as_ref();
    let body = match labels {
        None => missing(page, &["labels"], words.say("census_taker.none")),
        Some(record) => html! {
            p class="sentence" { (sentence(page, record)) }
            (corrected(page, record))
            (steps(page, record))
            (what_to_write(page, record))
            (sheet(page, record))
        },
    };
    Panel {
        id: "census-taker",
        title: words.say("census_taker.title").to_owned(),
        data: labels.filter(|record| !record.corrected.is_empty()).map(|_| "corrected.csv"),
        body,
    }
}

/// Where the labelling stands, and the entity whose figure it moved most.
fn sentence(page: &Page<'_>, record: &LabelsRecord) -> String {
    let words = page.words;
    let pairs = record.pairs.len().to_string();
    if record.labelled == 0 {
        return words.fill("census_taker.nothing_labelled", &[("pairs", &pairs)]);
    }
    let labelled = words.thousands(record.labelled);
    let moved = |one: &LabelledEntity| (one.corrected.value - one.counted).abs();
    let most = record.corrected.iter().max_by(|a, b| moved(a).total_cmp(&moved(b)));
    let Some(one) = most else {
        return words.fill("census_taker.too_few", &[("labelled", &labelled), ("pairs", &pairs)]);
    };
    words.fill(
        "census_taker.labelled",
        &[
            ("labelled", &labelled),
            ("pairs", &pairs),
            ("word", &words.quoted(&page.name(&one.id))),
            ("counted", &words.signed(100.0 * one.counted, 1)),
            ("corrected", &change(words, &one.corrected)),
        ],
    )
}

/// A change in places of 100 with its interval.
fn change(words: &Words, estimate: &Estimate) -> String {
    let ci = estimate.ci.map(|ci| format!(" {}", words.interval(ci, 100.0, 1)));
    format!("{}{}", words.signed(100.0 * estimate.value, 1), ci.unwrap_or_default())
}

/// Counted against corrected, once labels were read.
fn corrected(page: &Page<'_>, record: &LabelsRecord) -> Markup {
    let words = page.words;
    if record.corrected.is_empty() {
        return html! {};
    }
    let mut shown = ends(record.corrected.iter().map(|one| &one.corrected));
    shown.extend(record.corrected.iter().map(|one| one.counted));
    let axis = Axis::with_zero(&shown);
    let lines = record.corrected.iter().map(|one| {
        let name = page.name(&one.id);
        let said = words.fill(
            "census_taker.described",
            &[
                ("counted", &words.signed(100.0 * one.counted, 1)),
                ("corrected", &change(words, &one.corrected)),
            ],
        );
        let counted = Dot::upper(Estimate::bare(one.counted), Look::Plain);
        Line {
            name: html! { (name) },
            chart: Some(dots(
                &name,
                &said,
                &axis,
                &[counted, Dot::lower(one.corrected, Look::Adapted)],
            )),
            cells: vec![
                html! { (words.signed(100.0 * one.counted, 1)) },
                valued(words, &one.corrected, 100.0, 1),
            ],
        }
    });
    let facet = page.facet(&record.facet);
    let ledger = Ledger {
        caption: words.say("census_taker.caption"),
        first: &facet,
        axis: Some(ruled(words, &axis, 100.0)),
        heads: &[words.say("census_taker.counted"), words.say("census_taker.corrected")],
        lines: lines.collect(),
    };
    html! {
        (legend(&[
            (Look::Plain.class(), Look::Plain.glyph(), words.say("census_taker.key_counted")),
            (Look::Adapted.class(), Look::Adapted.glyph(), words.say("census_taker.key_corrected")),
        ]))
        (ledger.draw())
        p class="note" { (words.say("census_taker.ppi")) }
    }
}

/// What to do, step by step, with the blank table.
fn steps(page: &Page<'_>, record: &LabelsRecord) -> Markup {
    let words = page.words;
    let blank = blank(record);
    html! {
        h3 { (words.say("census_taker.how")) }
        ol class="steps" {
            li { (words.say("census_taker.step_print")) }
            li { (words.fill("census_taker.step_look", &[("facet", &page.facet(&record.facet))])) }
            li {
                (words.say("census_taker.step_write")) " "
                a href=(format!("data:text/csv;charset=utf-8,{}", encoded(&blank))) download="labels.csv" {
                    (words.say("census_taker.blank"))
                }
            }
            li { (words.say("census_taker.step_census")) " " code { "populate census RUN" } }
        }
        details {
            summary { span { (words.say("census_taker.blank_text")) } }
            pre tabindex="0" { code { (blank) } }
        }
    }
}

/// Text as part of a URI: all but letters and digits in per cent (RFC 3986).
fn encoded(text: &str) -> String {
    let mut uri = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

/// The identifiers that may stand in the table, each beside its name.
fn what_to_write(page: &Page<'_>, record: &LabelsRecord) -> Markup {
    let words = page.words;
    let facet = page.census.facets.iter().find(|facet| facet.id == record.facet);
    let entities = facet.into_iter().flat_map(|facet| &facet.entities);
    let ids: Vec<&str> =
        entities.map(|entity| entity.id.as_str()).filter(|id| *id != BLOCKED).collect();
    html! {
        p class="note" { (words.say("census_taker.what_to_write")) }
        dl class="identifiers" {
            @for id in &ids { div { dt { code { (id) } } dd { (page.name(id)) } } }
            @if !ids.contains(&NONE) { div { dt { code { (NONE) } } dd { (page.name(NONE)) } } }
        }
    }
}

/// The pairs with their numbers and room to write. What the evaluator said is not shown: a hand that
/// knows it would follow it.
fn sheet(page: &Page<'_>, record: &LabelsRecord) -> Markup {
    let words = page.words;
    html! {
        details class="way sheet-of-pairs" {
            summary {
                span { (words.say("census_taker.sheet")) }
                span class="num soft" { (words.count("census_taker.n_pairs", n_pairs(record))) }
            }
            p class="note" { (words.say("census_taker.blind")) }
            ol class="sheet-pairs" {
                @for (id, pair) in record.ids.iter().zip(&record.pairs) { (numbered(page, id, pair)) }
            }
        }
    }
}

fn n_pairs(record: &LabelsRecord) -> u64 {
    u64::try_from(record.pairs.len()).unwrap_or(u64::MAX)
}

fn numbered(page: &Page<'_>, number: &str, pair: &Pair) -> Markup {
    let words = page.words;
    let alt = |model: &str| words.fill("census_taker.alt", &[("number", number), ("model", model)]);
    html! {
        li {
            span class="number" { (number) }
            div class="two" {
                (page.picture(&pair.before.picture, &alt(words.say("page.base"))))
                (page.picture(&pair.after.picture, &alt(words.say("page.adapted"))))
            }
            div class="blanks" aria-hidden="true" {
                span { (words.say("page.base")) }
                span { (words.say("page.adapted")) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;
    use eval::json::CensusReport;

    fn drawn(census: &CensusReport, language: Language) -> String {
        sample::on_page(census, language, &|page| panel(page).body)
    }

    fn record(census: &mut CensusReport) -> &mut LabelsRecord {
        census.labels.as_mut().unwrap()
    }

    #[test]
    fn the_sheet_does_not_say_what_the_evaluator_saw() {
        let census = sample::census();
        let page = drawn(&census, Language::English);
        let sheet = page.split("class=\"sheet-pairs\"").nth(1).unwrap();
        for said in ["boat", "house", "cylinder", "tower", "seed"] {
            assert!(!sheet.contains(said), "{said}");
        }
        let pairs = census.labels.as_ref().unwrap().pairs.len();
        assert_eq!(sheet.matches("class=\"number\"").count(), pairs);
        assert!(sheet.contains("aria-label=\"Pair 001-0a0b, base\""), "{sheet}");
    }

    #[test]
    fn corrected_figures_stand_beside_the_counted_ones_once_labels_were_read() {
        let mut census = sample::census();
        let labels = record(&mut census);
        labels.labelled = 40;
        labels.corrected = vec![LabelledEntity {
            id: "boat".into(),
            counted: -0.1,
            corrected: Estimate { value: -0.125, ci: Some([-0.15, -0.1]), ci_kind: None },
        }];
        let page = drawn(&census, Language::English);
        assert!(page.contains("“boat”") && page.contains("−12.5 [−15.0, −10.0]"), "{page}");
        assert!(drawn(&census, Language::French).contains("−12,5 [−15,0\u{202f}; −10,0]"));
        let labels = record(&mut census);
        (labels.labelled, labels.corrected) = (0, Vec::new());
        let page = drawn(&census, Language::English);
        assert!(
            page.contains("Nobody has labeled") && !page.contains("class=\"ledger\""),
            "{page}"
        );
    }

    #[test]
    fn what_may_be_written_is_listed() {
        let page = drawn(&sample::census(), Language::French);
        let list =
            page.split("class=\"identifiers\"").nth(1).unwrap().split("</dl>").next().unwrap();
        assert!(list.contains("<code>boat</code></dt><dd>bateau</dd>"), "{list}");
        assert!(list.contains("<code>∅</code>") && !list.contains("∅:blocked"));
    }
}
