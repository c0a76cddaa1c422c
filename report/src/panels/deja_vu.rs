//! The déjà-vu gauge: how much of what is drawn is what is always drawn. Four figures that are never
//! one.

use super::Panel;
use super::chart_parts::{
    Axis, Dot, Ledger, Line, Look, anchor, dots, ends, figure, legend, mark, missing, named,
    percent, px, ruled, valued, whisker,
};
use crate::page::Page;
use crate::words::Words;
use eval::record::TypicalityRecord;
use maud::{Markup, html};
use statistics::number::{real, real_u64};

/// Height of the gauge; its field, the lanes of both means, and its numbers.
const GAUGE_PX: u32 = 196;
const TOP_PX: f64 = 18.0;
const FIELD_PX: f64 = 118.0;
const BASE_PX: f64 = 150.0;
const ADAPTED_PX: f64 = 166.0;
const NUMBERS_PX: f64 = 190.0;

/// The panel.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let body = match &page.census.typicality {
        None => missing(page, &["typicality"], words.say("deja_vu.none")),
        Some(record) => html! {
            (gauge(page, record))
            (stock(page, record))
            (coverage(page, record))
            (typical(page, record))
        },
    };
    Panel {
        id: "deja-vu",
        title: words.say("deja_vu.title").to_owned(),
        data: page.census.typicality.as_ref().map(|_| "typicality.csv"),
        body,
    }
}

/// The distribution in tenths, both means under it.
fn gauge(page: &Page<'_>, record: &TypicalityRecord) -> Markup {
    let words = page.words;
    let Some(means) = &record.deja_vu else {
        return missing(page, &["typicality"], words.say("deja_vu.no_gauge"));
    };
    let sentence = words.fill(
        "deja_vu.sentence",
        &[
            ("before", &words.estimate(&means.before, 1.0, 1)),
            ("after", &words.estimate(&means.after, 1.0, 1)),
        ],
    );
    let how = words.fill(
        "deja_vu.how",
        &[
            ("pictures", &words.thousands(record.pictures)),
            ("levels", &words.thousands(record.levels)),
        ],
    );
    let body = html! {
        (columns(record))
        @for (mean, down, look) in [(&means.before, BASE_PX, Look::Base), (&means.after, ADAPTED_PX, Look::Adapted)] {
            (whisker(&hundred(), mean.ci, down, look.class()))
            (mark(&hundred().percent(mean.value), down, look))
        }
        @for tenth in [0.0_f64, 20.0, 40.0, 60.0, 80.0, 100.0] {
            text class="label" x=(percent(tenth / 100.0)) y=(px(NUMBERS_PX)) text-anchor=(anchor(tenth / 100.0)) {
                (words.number(tenth, 0))
            }
        }
    };
    html! {
        p class="sentence" { (sentence) }
        p class="note" { (how) }
        (legend(&[
            ("before", "▌", words.say("deja_vu.key_base")),
            ("after", "▐", words.say("deja_vu.key_adapted")),
            (Look::Base.class(), Look::Base.glyph(), words.say("deja_vu.key_base_mean")),
            (Look::Adapted.class(), Look::Adapted.glyph(), words.say("deja_vu.key_adapted_mean")),
        ]))
        figure class="gauge" {
            (figure(GAUGE_PX, words.say("deja_vu.gauge_title"), &sentence, &body))
            p class="ends" { span { (words.say("deja_vu.low")) } span { (words.say("deja_vu.high")) } }
        }
        (tenths(words, record))
    }
}

/// Percentiles.
fn hundred() -> Axis {
    Axis::around(0.0, 100.0)
}

/// Two columns per tenth, the base left, the adapted model right.
fn columns(record: &TypicalityRecord) -> Markup {
    let both = [("before", &record.tenths.before), ("after", &record.tenths.after)];
    let most = both.iter().flat_map(|(_, counts)| counts.iter()).max().copied().unwrap_or(0);
    let up = |count: u64| FIELD_PX * real_u64(count) / real_u64(most.max(1));
    let floor = TOP_PX + FIELD_PX;
    html! {
        @for (side, (class, counts)) in both.into_iter().enumerate() {
            @for (tenth, count) in counts.iter().enumerate() {
                @let left = 0.1 * real(tenth) + 0.012 + 0.04 * real(side);
                rect class=(class) x=(percent(left)) width=(percent(0.036)) y=(px(floor - up(*count))) height=(px(up(*count))) {}
                text class="label count" x=(percent(left + 0.018)) y=(px(floor - up(*count) - 4.0)) text-anchor="middle" { (count) }
            }
        }
        line class="axis" x1="0" x2="100%" y1=(px(floor)) y2=(px(floor)) {}
    }
}

/// The same counts as a table.
fn tenths(words: &Words, record: &TypicalityRecord) -> Markup {
    let lines = record.tenths.before.iter().zip(&record.tenths.after).enumerate().map(
        |(tenth, (before, after))| Line {
            name: html! { (10 * tenth) "–" (10 * tenth + 10) },
            chart: None,
            cells: vec![html! { (words.thousands(*before)) }, html! { (words.thousands(*after)) }],
        },
    );
    let ledger = Ledger {
        caption: words.say("deja_vu.tenths_caption"),
        first: words.say("deja_vu.tenth"),
        axis: None,
        heads: &[words.say("page.base"), words.say("page.adapted")],
        lines: lines.collect(),
    };
    html! {
        details {
            summary { span { (words.say("deja_vu.tenths")) } }
            (ledger.draw())
        }
    }
}

/// How often one of the stock motifs comes unasked.
fn stock(page: &Page<'_>, record: &TypicalityRecord) -> Markup {
    let words = page.words;
    let names: Vec<String> = record.motifs.iter().map(|id| page.name(id)).collect();
    let body = match &record.stock_share {
        None if names.is_empty() => html! { p class="note" { (words.say("deja_vu.no_motifs")) } },
        None => missing(page, &["stock share", "typicality"], words.say("deja_vu.no_stock")),
        Some(share) => {
            let axis = Axis::with_zero(&ends([&share.before, &share.after].into_iter()));
            let told = words.fill(
                "deja_vu.stock_sentence",
                &[
                    ("before", &words.estimate(&share.before, 100.0, 1)),
                    ("after", &words.estimate(&share.after, 100.0, 1)),
                    ("motifs", &words.row(&names)),
                ],
            );
            let name = words.say("deja_vu.stock");
            let pair =
                [Dot::upper(share.before, Look::Base), Dot::lower(share.after, Look::Adapted)];
            let ledger = Ledger {
                caption: words.say("deja_vu.stock_caption"),
                first: words.say("deja_vu.measure"),
                axis: Some(ruled(words, &axis, 100.0)),
                heads: &[words.say("page.before"), words.say("page.after")],
                lines: vec![Line {
                    name: html! { (name) },
                    chart: Some(dots(name, &told, &axis, &pair)),
                    cells: vec![
                        valued(words, &share.before, 100.0, 1),
                        valued(words, &share.after, 100.0, 1),
                    ],
                }],
            };
            html! { p { (told) } (ledger.draw()) }
        }
    };
    html! { h3 { (words.say("deja_vu.motifs")) } (body) }
}

/// How much of what could be drawn was seen at all.
fn coverage(page: &Page<'_>, record: &TypicalityRecord) -> Markup {
    let words = page.words;
    let told = words.fill(
        "deja_vu.coverage",
        &[
            ("facet", &page.facet(&page.census.concept.facet)),
            ("before", &words.number(100.0 * record.coverage.before, 1)),
            ("after", &words.number(100.0 * record.coverage.after, 1)),
        ],
    );
    html! {
        h3 { (words.say("deja_vu.coverage_head")) }
        p { (told) }
    }
}

/// T(x|c) per word, in the order of the thesaurus: rare words score high by themselves.
fn typical(page: &Page<'_>, record: &TypicalityRecord) -> Markup {
    let words = page.words;
    if record.words.is_empty() {
        return html! { p class="note" { (words.say("deja_vu.no_words")) } };
    }
    let axis = Axis::with_zero(&ends(record.words.iter().map(|word| &word.typicality)));
    let lines = record.words.iter().map(|word| {
        let name = page.name(&word.id);
        let said = words.estimate(&word.typicality, 1.0, 2);
        let dot = Dot { estimate: word.typicality, look: Look::Base, down: 14.5 };
        Line {
            name: named(&name, &words.count("page.pictures", word.pictures)),
            chart: Some(dots(
                &name,
                &words.fill("deja_vu.word_described", &[("nats", &said)]),
                &axis,
                &[dot],
            )),
            cells: vec![valued(words, &word.typicality, 1.0, 2)],
        }
    });
    let ledger = Ledger {
        caption: words.say("deja_vu.words_caption"),
        first: words.say("deja_vu.word"),
        axis: Some(ruled(words, &axis, 1.0)),
        heads: &[words.say("deja_vu.nats_head")],
        lines: lines.collect(),
    };
    html! {
        details {
            summary { span { (words.say("deja_vu.words")) } }
            p class="note" { (words.say("deja_vu.rare")) }
            (ledger.draw())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;
    use statistics::interval::Estimate;

    fn drawn(census: &eval::json::CensusReport, language: Language) -> String {
        sample::on_page(census, language, &|page| panel(page).body)
    }

    #[test]
    fn the_gauge_tells_both_means_with_their_intervals() {
        let mut census = sample::census();
        let means = census.typicality.as_mut().unwrap().deja_vu.as_mut().unwrap();
        means.after = Estimate { value: 61.0, ci: Some([56.0, 66.0]), ci_kind: None };
        assert!(drawn(&census, Language::English).contains("61.0 [56.0, 66.0]"));
        assert!(drawn(&census, Language::French).contains("61,0 [56,0\u{202f}; 66,0]"));
        census.typicality.as_mut().unwrap().deja_vu = None;
        let page = drawn(&census, Language::English);
        assert!(page.contains("percentile was not measured") && !page.contains("class=\"gauge\""));
    }

    #[test]
    fn every_tenth_has_two_columns_and_a_line_of_the_table() {
        let page = drawn(&sample::census(), Language::English);
        assert_eq!(page.matches("<rect class=\"before\"").count(), 10);
        assert_eq!(page.matches("<rect class=\"after\"").count(), 10);
        assert!(page.contains("90–100"));
    }

    #[test]
    fn stock_motifs_are_named() {
        let mut census = sample::census();
        let record = census.typicality.as_mut().unwrap();
        record.motifs = vec!["tower".into(), "boat".into()];
        assert!(drawn(&census, Language::English).contains("tower and boat"));
        assert!(drawn(&census, Language::French).contains("tour et bateau"));
        let record = census.typicality.as_mut().unwrap();
        (record.motifs, record.stock_share) = (Vec::new(), None);
        assert!(drawn(&census, Language::English).contains("marks no stock motif"));
    }

    #[test]
    fn without_typicality_one_sentence_says_why() {
        let mut census = sample::bare();
        census.refused =
            vec![eval::record::Refusal { what: "typicality".into(), reason: "why".into() }];
        assert!(drawn(&census, Language::English).contains("<span>why</span>."));
    }
}
