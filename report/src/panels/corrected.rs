//! Under the bars: the same shares corrected for what the evaluator gets wrong, each model by its own
//! verified pictures.

use super::chart_parts::{Axis, Dot, Ledger, Line, Look, changed, dots, missing, ruled};
use crate::page::Page;
use eval::record::{CorrectedEntity, CorrectedRecord, EntityRecord, FacetRecord};
use maud::{Markup, html};
use statistics::interval::Estimate;

/// The part of one facet; what is missing is said with its reason.
pub(super) fn part(page: &Page<'_>, facet: &FacetRecord) -> Markup {
    let words = page.words;
    let what = format!("correction of {}", facet.id);
    html! {
        @match &facet.corrected {
            Some(corrected) => details {
                summary { (words.say("corrected.title")) }
                p class="note" { (note(page, facet, corrected)) }
                (table(page, facet, corrected))
            },
            None => (missing(page, &[what.as_str()], words.say("corrected.none"))),
        }
    }
}

fn note(page: &Page<'_>, facet: &FacetRecord, corrected: &CorrectedRecord) -> String {
    let words = page.words;
    let verified = page.census.verified.iter();
    let pictures: u64 = verified
        .clone()
        .flat_map(|verified| [&verified.base, &verified.adapted])
        .flat_map(|confusion| confusion.counts.iter().flatten())
        .sum();
    let by: Vec<String> = verified.map(|verified| words.tell(&verified.verified_by)).collect();
    let condition = &corrected.condition;
    let mut note = words.fill(
        "corrected.note",
        &[
            ("pictures", &words.thousands(pictures)),
            ("by", &by.concat()),
            ("before", &words.number(condition.before, 2)),
            ("after", &words.number(condition.after, 2)),
        ],
    );
    if !corrected.uncorrected.is_empty() {
        let named = |entity: &&EntityRecord| corrected.uncorrected.contains(&entity.id);
        let names: Vec<String> = facet
            .entities
            .iter()
            .filter(named)
            .map(|entity| words.quoted(&page.label(entity)))
            .collect();
        note.push(' ');
        note.push_str(&words.fill("corrected.uncorrected", &[("names", &words.row(&names))]));
    }
    note
}

fn table(page: &Page<'_>, facet: &FacetRecord, corrected: &CorrectedRecord) -> Markup {
    let words = page.words;
    let mut both: Vec<(&EntityRecord, &CorrectedEntity)> = corrected
        .entities
        .iter()
        .filter_map(|one| Some((facet.entities.iter().find(|e| e.id == one.id)?, one)))
        .collect();
    both.sort_by(|a, b| a.1.delta.value.total_cmp(&b.1.delta.value));
    let ends = both.iter().flat_map(|(raw, one)| {
        let [low, high] = one.delta.ci.unwrap_or([one.delta.value; 2]);
        [low, high, raw.ci[0], raw.ci[1]]
    });
    let (low, high) = ends.fold((0.0_f64, 0.0_f64), |(l, h), end| (l.min(end), h.max(end)));
    let axis = Axis::around(low, high);
    let lines = both.into_iter().map(|(raw, one)| {
        let name = page.label(raw);
        let counted = Estimate::with(raw.delta, raw.ci, raw.ci_kind);
        let said = words.fill(
            "corrected.described",
            &[
                ("raw", &words.estimate(&counted, 100.0, 1)),
                ("corrected", &words.estimate(&one.delta, 100.0, 1)),
            ],
        );
        let pair = [Dot::upper(counted, Look::Plain), Dot::lower(one.delta, Look::Adapted)];
        Line {
            chart: Some(dots(&name, &said, &axis, &pair)),
            cells: vec![
                changed(words, &counted, 100.0, 1),
                html! { (words.number(100.0 * one.p_b, 1)) },
                html! { (words.number(100.0 * one.p_a, 1)) },
                changed(words, &one.delta, 100.0, 1),
            ],
            name: html! { (name) },
        }
    });
    Ledger {
        caption: words.say("corrected.caption"),
        first: &page.facet(&facet.id),
        axis: Some(ruled(words, &axis, 100.0)),
        heads: &[
            words.say("corrected.raw"),
            words.say("page.before"),
            words.say("page.after"),
            words.say("corrected.change"),
        ],
        lines: lines.collect(),
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;
    use eval::record::Refusal;

    #[test]
    fn raw_and_corrected_changes_stand_beside_each_other_worst_first() {
        let census = sample::census();
        let page =
            sample::on_page(&census, Language::English, &|page| part(page, &census.facets[0]));
        assert!(page.contains("the nearest render sees what was asked"), "{page}");
        assert!(page.contains("Of pictures asked by name, 600 "), "{page}");
        assert!(page.contains("Too little is known of “house”"), "{page}");
        let boat = page.find("Raw change −10.0").unwrap();
        assert!(page[boat..].contains("corrected −11.0 [−16.0, −6.0] of 100"), "{page}");
        assert!(page.find(">boat<").unwrap() < page.find(">tower<").unwrap(), "{page}");
    }

    #[test]
    fn without_correction_the_reason_stands_there() {
        let mut census = sample::bare();
        let reason = "the budget asks too few pictures by name".to_owned();
        census.refused = vec![Refusal { what: "correction of subject".into(), reason }];
        let page =
            sample::on_page(&census, Language::French, &|page| part(page, &census.facets[0]));
        assert!(page.contains("le budget demande trop peu d’images par leur nom"), "{page}");
    }
}
