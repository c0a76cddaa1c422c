//! The leak ladder: from the concept's own name down to nothing asked, how often it comes; and whether
//! what comes are copies of what it was settled from.

use super::chart_parts::{
    Axis, Dot, Ledger, Line, Look, changed, dots, ends, missing, models, named, reasons, ruled,
    valued,
};
use super::{Panel, copies};
use crate::page::Page;
use crate::words::Words;
use eval::record::{LeakLevel, LeakRecord};
use maud::{Markup, html};
use statistics::interval::Estimate;

/// Rungs from the top, as the census names them.
const RUNGS: [&str; 5] = ["identifier", "plain", "sibling", "unrelated", "unasked"];

/// The panel.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let leak = &page.census.leak;
    let body = html! {
        @if leak.levels.is_empty() {
            (missing(page, &["leak level", "leak"], words.say("leak.none")))
        } @else {
            p class="sentence" { (sentence(page, leak)) }
            (ladder(page, leak))
            (absent(page, leak))
        }
        (selectivity(words, leak))
        (detector(words, leak))
        h3 { (words.say("leak.copies")) }
        (copies::part(page))
    };
    Panel { id: "leak", title: words.say("leak.title").to_owned(), data: Some("leak.csv"), body }
}

/// What a rung asks.
fn rung(page: &Page<'_>, id: &str) -> String {
    let words = page.words;
    match id {
        "identifier" => {
            let concept = page.concept();
            let identifier = page.census.concept.identifier.as_deref().unwrap_or(&concept);
            words.fill("arrival.rung_identifier", &[("identifier", &words.quoted(identifier))])
        }
        "plain" => words.say("arrival.rung_plain").to_owned(),
        "sibling" => words.say("arrival.rung_sibling").to_owned(),
        "unrelated" => words.say("arrival.rung_unrelated").to_owned(),
        _ => words.say("arrival.rung_unasked").to_owned(),
    }
}

fn level<'a>(leak: &'a LeakRecord, id: &str) -> Option<&'a LeakLevel> {
    leak.levels.iter().find(|level| level.level == id)
}

/// Asked and unasked, and how the bleed decays with distance from the concept's class.
fn sentence(page: &Page<'_>, leak: &LeakRecord) -> String {
    let words = page.words;
    let concept = words.mention(&page.concept());
    let share = |level: &LeakLevel| words.estimate(&level.after, 100.0, 1);
    let mut told = Vec::new();
    if let Some(asked) = level(leak, "identifier") {
        told.push(
            words.fill("leak.asked_sentence", &[("concept", &concept), ("share", &share(asked))]),
        );
    }
    if let Some(unasked) = level(leak, "unasked") {
        told.push(
            words.fill(
                "leak.unasked_sentence",
                &[("concept", &concept), ("share", &share(unasked))],
            ),
        );
    }
    if let (Some(near), Some(far)) = (level(leak, "sibling"), level(leak, "unrelated")) {
        let bleed = |level: &LeakLevel| words.estimate(&level.bleed, 100.0, 1);
        told.push(words.fill("leak.decay", &[("near", &bleed(near)), ("far", &bleed(far))]));
    }
    if let Some(decay) = &leak.decay {
        let slope = words.estimate(decay, 100.0, 1);
        told.push(words.fill("leak.slope", &[("slope", &slope)]));
    }
    told.join(" ")
}

/// One line per rung.
fn ladder(page: &Page<'_>, leak: &LeakRecord) -> Markup {
    let words = page.words;
    let axis = Axis::around(0.0, 1.0);
    let lines = leak.levels.iter().map(|level| {
        let name = rung(page, &level.level);
        Line {
            name: named(&name, &words.count("page.pairs", level.pairs)),
            chart: Some(row(words, &axis, level, &name)),
            cells: vec![
                valued(words, &level.before, 100.0, 1),
                valued(words, &level.after, 100.0, 1),
                changed(words, &level.bleed, 100.0, 1),
            ],
        }
    });
    let caption = words.fill(
        "leak.caption_table",
        &[("concept", &words.mention(&page.concept())), ("counted", page.counted())],
    );
    let ledger = Ledger {
        caption: &caption,
        first: words.say("leak.prompt"),
        axis: Some(ruled(words, &axis, 100.0)),
        heads: &[words.say("page.before"), words.say("page.after"), words.say("leak.bleed")],
        lines: lines.collect(),
    };
    html! {
        (models(words))
        (ledger.draw())
    }
}

fn row(words: &Words, axis: &Axis, level: &LeakLevel, name: &str) -> Markup {
    let said = words.fill(
        "leak.described",
        &[
            ("before", &words.estimate(&level.before, 100.0, 1)),
            ("after", &words.estimate(&level.after, 100.0, 1)),
        ],
    );
    let pair = [Dot::upper(level.before, Look::Base), Dot::lower(level.after, Look::Adapted)];
    dots(name, &said, axis, &pair)
}

/// Rungs that were not asked, each with its reason.
fn absent(page: &Page<'_>, leak: &LeakRecord) -> Markup {
    let words = page.words;
    let lacking: Vec<&str> = RUNGS.into_iter().filter(|id| level(leak, id).is_none()).collect();
    html! {
        @for id in lacking {
            @let what = format!("leak level {id}");
            @if !reasons(page, &[what.as_str()]).is_empty() {
                (missing(page, &[what.as_str()], &words.fill("leak.rung_missing", &[("rung", &rung(page, id))])))
            }
        }
    }
}

/// Whether the detector tells pictures asked by the identifier from those of the same words without it.
fn selectivity(words: &Words, leak: &LeakRecord) -> Markup {
    html! {
        p class="note" {
            @match leak.selectivity {
                Some(auc) => { (words.fill("leak.selectivity", &[("auc", &words.number(auc, 2))])) },
                None => { (words.say("leak.no_selectivity")) },
            }
        }
    }
}

/// How often the detector is right.
fn detector(words: &Words, leak: &LeakRecord) -> Markup {
    let Some(detector) = &leak.detector else {
        return html! { p class="note" { (words.say("leak.no_detector")) } };
    };
    let told = words.fill(
        "leak.detector",
        &[
            ("found", &words.thousands(detector.found)),
            ("references", &words.thousands(detector.references)),
            ("alarms", &words.thousands(detector.false_alarms)),
            ("pictures", &words.thousands(detector.base_pictures)),
        ],
    );
    html! { p class="note" { (told) } }
}

/// A cosine before and after as one line of a ledger, in hundredths.
pub(super) fn cosine_line(
    words: &Words,
    (name, under): (&str, &str),
    axis: &Axis,
    [before, after]: [Estimate; 2],
) -> Line {
    let said = words.fill(
        "leak.cosines_described",
        &[
            ("before", &words.estimate(&before, 100.0, 1)),
            ("after", &words.estimate(&after, 100.0, 1)),
        ],
    );
    let pair = [Dot::upper(before, Look::Base), Dot::lower(after, Look::Adapted)];
    Line {
        name: named(name, under),
        chart: Some(dots(name, &said, axis, &pair)),
        cells: [before, after].iter().map(|one| valued(words, one, 100.0, 1)).collect(),
    }
}

/// The axis of two cosines and of what they are compared with.
pub(super) fn cosine_axis(pair: [&Estimate; 2], beside: f64) -> Axis {
    let mut shown = ends(pair.into_iter());
    shown.push(beside);
    Axis::of(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;
    use eval::record::Refusal;

    fn drawn(census: &eval::json::CensusReport, language: Language) -> String {
        sample::on_page(census, language, &|page| panel(page).body)
    }

    #[test]
    fn every_rung_has_its_line_with_both_intervals() {
        let census = sample::census();
        assert_eq!(census.leak.levels.len(), RUNGS.len());
        let page = drawn(&census, Language::English);
        assert!(page.contains("“sks”"), "{page}");
        let ladder =
            page.split("class=\"ledger\"").nth(1).unwrap().split("</table>").next().unwrap();
        assert_eq!(ladder.matches("class=\"whisker base\"").count(), RUNGS.len());
        assert_eq!(ladder.matches("class=\"whisker adapted\"").count(), RUNGS.len());
    }

    #[test]
    fn the_decay_is_told_from_siblings_to_the_unrelated() {
        let mut census = sample::census();
        let set = |census: &mut eval::json::CensusReport, id: &str, value: f64| {
            let level = census.leak.levels.iter_mut().find(|level| level.level == id).unwrap();
            level.bleed = Estimate { value, ci: Some([value, value + 0.1]), ci_kind: None };
        };
        set(&mut census, "sibling", 0.25);
        set(&mut census, "unrelated", 0.05);
        let english = drawn(&census, Language::English);
        assert!(english.contains("25.0 [25.0, 35.0]") && english.contains("5.0 [5.0, 15.0]"));
        assert!(english.contains("Into pictures of its siblings"), "{english}");
        assert!(drawn(&census, Language::French).contains("25,0 [25,0\u{202f}; 35,0]"));
    }

    #[test]
    fn a_rung_that_was_not_asked_is_missed_with_its_reason() {
        let mut census = sample::census();
        census.leak.levels.retain(|level| level.level != "sibling");
        census.refused = vec![Refusal { what: "leak level sibling".into(), reason: "why".into() }];
        let page = drawn(&census, Language::English);
        assert!(page.contains("” was not measured"), "{page}");
        assert!(
            page.contains("<span>why</span>.") && !page.contains("Into pictures of its siblings")
        );
        census.leak.levels.clear();
        assert!(drawn(&census, Language::English).contains("could not be counted"));
    }
}
