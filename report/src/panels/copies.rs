//! Collapse and copies: how near pictures come to the references, whether few of these draw all of
//! them near, and how many different pictures there are in effect.

use super::chart_parts::{
    Axis, Dot, Ledger, Line, Look, csv, dots, ends, figures, missing, named, ruled, valued,
};
use super::leak::{cosine_axis, cosine_line};
use crate::page::Page;
use crate::words::Words;
use eval::record::CopiesRecord;
use maud::{Markup, html};
use statistics::interval::Estimate;
use statistics::number::{real, real_u64};

/// Collapse and copies, or why they were not looked for.
pub(super) fn part(page: &Page<'_>) -> Markup {
    let words = page.words;
    let Some(record) = &page.census.copies else {
        return missing(page, &["copies", "CLIP-I"], words.say("leak.no_copies"));
    };
    html! {
        p { (sentence(words, record)) }
        (resemblance(words, record))
        (diversity(words, record))
        (few(words, record))
        (nearest(page, record))
        (csv(page, "copies.csv"))
    }
}

/// How many pictures are copies, and how near all of them come.
fn sentence(words: &Words, record: &CopiesRecord) -> String {
    words.fill(
        "leak.copies_sentence",
        &[
            ("after", &words.thousands(record.copies.after)),
            ("before", &words.thousands(record.copies.before)),
            ("pictures", &words.thousands(record.pictures)),
            ("threshold", &words.number(100.0 * record.copy_threshold, 1)),
            ("clip_i", &words.estimate(&record.clip_i.after, 100.0, 1)),
            ("among", &words.number(100.0 * record.among_references, 1)),
        ],
    )
}

/// CLIP-I beside what the references have among each other.
fn resemblance(words: &Words, record: &CopiesRecord) -> Markup {
    let both = [record.clip_i.before, record.clip_i.after];
    let axis = cosine_axis([&both[0], &both[1]], record.among_references);
    let among = Estimate::bare(record.among_references);
    let said = words.fill(
        "leak.among_described",
        &[("among", &words.number(100.0 * record.among_references, 1))],
    );
    let name = words.say("leak.among");
    let dot = Dot { estimate: among, look: Look::Plain, down: 14.5 };
    let among_cell = || html! { (words.number(100.0 * record.among_references, 1)) };
    let ledger = Ledger {
        caption: words.say("leak.resemblance_caption"),
        first: words.say("leak.measure"),
        axis: Some(ruled(words, &axis, 100.0)),
        heads: &[words.say("page.before"), words.say("page.after")],
        lines: vec![
            cosine_line(words, ("CLIP-I", words.say("leak.clip_i")), &axis, both),
            Line {
                name: named(name, words.say("leak.among_under")),
                chart: Some(dots(name, &said, &axis, &[dot])),
                cells: vec![among_cell(), among_cell()],
            },
        ],
    };
    ledger.draw()
}

/// Vendi scores: how many pictures there are in effect.
fn diversity(words: &Words, record: &CopiesRecord) -> Markup {
    let both = [record.vendi.before, record.vendi.after];
    let axis = Axis::with_zero(&ends(both.iter()));
    let pair = [Dot::upper(both[0], Look::Base), Dot::lower(both[1], Look::Adapted)];
    let said = words.fill(
        "leak.vendi_described",
        &[
            ("before", &words.estimate(&both[0], 1.0, 1)),
            ("after", &words.estimate(&both[1], 1.0, 1)),
        ],
    );
    let name = words.say("leak.vendi");
    let ledger = Ledger {
        caption: words.say("leak.vendi_caption"),
        first: words.say("leak.measure"),
        axis: Some(ruled(words, &axis, 1.0)),
        heads: &[words.say("page.before"), words.say("page.after")],
        lines: vec![Line {
            name: named(name, &words.count("leak.of_pictures", record.pictures)),
            chart: Some(dots(name, &said, &axis, &pair)),
            cells: both.iter().map(|one| valued(words, one, 1.0, 1)).collect(),
        }],
    };
    ledger.draw()
}

/// The figures that need no chart.
fn few(words: &Words, record: &CopiesRecord) -> Markup {
    let arrow = |before: f64, after: f64, digits: usize| {
        format!("{} → {}", words.number(before, digits), words.number(after, digits))
    };
    let most = 1.0 - 1.0 / real(record.nearest.len().max(1));
    let higher = &record.vendi_higher;
    let black_hole = words.fill("leak.black_hole_beside", &[("most", &words.number(most, 2))]);
    let mut entries = vec![
        (
            words.say("leak.black_hole"),
            arrow(record.black_hole.before, record.black_hole.after, 2),
            black_hole,
        ),
        (
            words.say("leak.vendi_2"),
            arrow(higher.before[0], higher.after[0], 1),
            words.say("leak.vendi_2_beside").to_owned(),
        ),
        (
            words.say("leak.vendi_infinity"),
            arrow(higher.before[1], higher.after[1], 1),
            words.say("leak.vendi_infinity_beside").to_owned(),
        ),
    ];
    if let Some(resemblance) = &record.prior_resemblance {
        entries.push((
            words.say("leak.pres"),
            words.estimate(resemblance, 100.0, 2),
            words.say("leak.pres_beside").to_owned(),
        ));
    }
    figures(&entries)
}

/// The references, each with the number of adapted pictures that it is nearest to.
fn nearest(page: &Page<'_>, record: &CopiesRecord) -> Markup {
    let words = page.words;
    let most = record.nearest.iter().map(|one| one.pictures).max().unwrap_or(0).max(1);
    html! {
        @if !record.nearest.is_empty() {
            p class="note" { (words.say("leak.nearest")) }
            ul class="nearest" {
                @for (i, one) in record.nearest.iter().enumerate() {
                    li {
                        (page.picture(&one.picture, &words.fill("leak.nearest_alt", &[("number", &(i + 1).to_string())])))
                        span class="tally" aria-hidden="true" style=(format!("--part:{:.3}", real_u64(one.pictures) / real_u64(most))) {}
                        span class="num" { (words.count("leak.nearest_to", one.pictures)) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;

    fn drawn(census: &eval::json::CensusReport) -> String {
        sample::on_page(census, Language::English, &part)
    }

    #[test]
    fn copies_are_counted_beside_the_threshold_that_makes_them() {
        let mut census = sample::census();
        let record = census.copies.as_mut().unwrap();
        (record.copies.before, record.copies.after, record.pictures) = (0, 7, 32);
        record.copy_threshold = 0.943;
        let page = drawn(&census);
        assert!(page.contains("7 of 32") && page.contains("94.3"), "{page}");
    }

    #[test]
    fn the_largest_gini_is_that_of_one_black_hole() {
        let mut census = sample::census();
        census.copies.as_mut().unwrap().nearest.truncate(4);
        assert!(drawn(&census).contains("0.75 if one reference drew all"));
    }

    #[test]
    fn every_reference_stands_with_its_count() {
        let census = sample::census();
        let nearest = &census.copies.as_ref().unwrap().nearest;
        assert_eq!(drawn(&census).matches("class=\"tally\"").count(), nearest.len());
    }

    #[test]
    fn without_references_one_sentence_says_why() {
        let mut census = sample::bare();
        census.refused =
            vec![eval::record::Refusal { what: "CLIP-I".into(), reason: "why".into() }];
        assert!(drawn(&census).contains("<span>why</span>."));
    }
}
