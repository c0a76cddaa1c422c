//! The likelihood census: nats that the adapted model lost on the base's own pictures, parted into
//! what it draws less often and what it draws otherwise.

use super::chart_parts::{
    Axis, Ledger, Line, Look, ROW_PX, csv, ends, figure, grid, legend, mark, missing, named, ruled,
    valued, whisker,
};
use crate::page::Page;
use crate::words::Words;
use eval::record::{LikelihoodEntity, LikelihoodRecord, LikelihoodUnit};
use maud::{Markup, html};
use statistics::interval::Estimate;
use statistics::number::real;
use std::fmt::Write as _;

/// Height of a profile, and of the field that its curve has.
const PROFILE_PX: u32 = 34;
const CURVE_PX: f64 = 32.0;

/// The likelihood census, or why there is none.
pub(super) fn part(page: &Page<'_>) -> Markup {
    let words = page.words;
    let Some(record) = &page.census.likelihood else {
        return missing(page, &["likelihood"], words.say("similarity.no_nats"));
    };
    html! {
        @if let Some(sentence) = sentence(page, record) { p { (sentence) } }
        @if record.unit == LikelihoodUnit::ScoreGap { p class="note" { (words.say("similarity.score_gap")) } }
        p class="note" {
            (words.fill("similarity.nats_how", &[("levels", &words.thousands(record.levels))]))
        }
        (legend(&[
            ("population", "▀", words.say("similarity.population")),
            ("deformation", "▄", words.say("similarity.deformation")),
            (Look::Adapted.class(), Look::Adapted.glyph(), words.say("similarity.total_interval")),
        ]))
        (table(page, record))
        @for entity in record.entities.iter().filter(|entity| entity.instruments_disagree) {
            p class="note" { (words.fill("similarity.disagree", &[("word", &words.quoted(&page.name(&entity.id)))])) }
        }
        (csv(page, "nats.csv"))
    }
}

/// What the figures are counted in.
fn unit<'a>(words: &'a Words, record: &LikelihoodRecord) -> &'a str {
    match record.unit {
        LikelihoodUnit::Nats => words.say("similarity.unit_nats"),
        LikelihoodUnit::ScoreGap => words.say("similarity.unit_gap"),
    }
}

/// The entity that lost most of its population, and how its nats divide. Totals are never ranked:
/// in many dimensions deformation is nearly all of them.
fn sentence(page: &Page<'_>, record: &LikelihoodRecord) -> Option<String> {
    let words = page.words;
    let parted = record.entities.iter().filter_map(|entity| {
        Some((entity, entity.population.as_ref()?, entity.deformation.as_ref()?))
    });
    let (entity, population, deformation) =
        parted.max_by(|a, b| a.1.value.total_cmp(&b.1.value))?;
    Some(words.fill(
        "similarity.nats_sentence",
        &[
            ("word", &words.quoted(&page.name(&entity.id))),
            ("total", &words.estimate(&entity.total, 1.0, 2)),
            ("unit", unit(words, record)),
            ("population", &words.estimate(population, 1.0, 2)),
            ("deformation", &words.estimate(deformation, 1.0, 2)),
        ],
    ))
}

fn table(page: &Page<'_>, record: &LikelihoodRecord) -> Markup {
    let words = page.words;
    let parts = record.entities.iter().flat_map(|e| {
        [Some(&e.total), e.population.as_ref(), e.deformation.as_ref()].into_iter().flatten()
    });
    let axis = Axis::with_zero(&ends(parts));
    let profiles: Vec<f64> = record.entities.iter().flat_map(|e| e.profile.clone()).collect();
    let height = Axis::with_zero(&profiles);
    let part = |estimate: Option<&Estimate>| {
        estimate.map_or_else(
            || html! { (words.say("parts.refused")) },
            |estimate| valued(words, estimate, 1.0, 2),
        )
    };
    let lines = record.entities.iter().map(|entity| {
        let name = page.name(&entity.id);
        Line {
            name: named(&name, &words.count("page.pictures", entity.pictures)),
            chart: Some(bars(words, &name, &axis, entity)),
            cells: vec![
                valued(words, &entity.total, 1.0, 2),
                part(entity.population.as_ref()),
                part(entity.deformation.as_ref()),
                profile(words, &name, &height, (&record.gammas, &entity.profile)),
            ],
        }
    });
    let ledger = Ledger {
        caption: words.say("similarity.nats_caption"),
        first: words.say("similarity.word"),
        axis: Some(ruled(words, &axis, 1.0)),
        heads: &[
            words.say("similarity.total"),
            words.say("similarity.population"),
            words.say("similarity.deformation"),
            words.say("similarity.over_noise"),
        ],
        lines: lines.collect(),
    };
    ledger.draw()
}

/// Population from zero (upper bar), deformation from where it ends (lower bar), and the total.
fn bars(words: &Words, name: &str, axis: &Axis, entity: &LikelihoodEntity) -> Markup {
    let total = &entity.total;
    let said = words.fill(
        "similarity.nats_described",
        &[("name", name), ("total", &words.estimate(total, 1.0, 2))],
    );
    let bar = |class: &str, from: f64, to: f64, y: &str| {
        html! { rect class=(class) x=(axis.percent(from.min(to))) width=(axis.width(from, to)) y=(y) height="9" {} }
    };
    let body = html! {
        (grid(axis, f64::from(ROW_PX)))
        @if let Some(population) = &entity.population {
            (bar("population", 0.0, population.value, "4"))
            @if entity.deformation.is_some() { (bar("deformation", population.value, total.value, "16")) }
        }
        (whisker(axis, total.ci, 14.5, "adapted"))
        (mark(&axis.percent(total.value), 14.5, Look::Adapted))
    };
    figure(ROW_PX, name, &said, &body)
}

/// Where over the noise levels the nats are lost: one area per entity, all on one scale.
fn profile(words: &Words, name: &str, height: &Axis, (gammas, values): (&[f64], &[f64])) -> Markup {
    let (Some(low), Some(high)) = (gammas.first(), gammas.last()) else { return html! {} };
    let last = real(values.len().saturating_sub(1).max(1));
    let down = |value: f64| height.down(value, 0.0, 100.0);
    let (mut points, mut area) = (String::new(), format!("M0 {:.2}", down(0.0)));
    for (i, value) in values.iter().enumerate() {
        let (x, y) = (100.0 * real(i) / last, down(*value));
        // Writing to a string cannot fail.
        let _ = write!(points, "{x:.2},{y:.2} ");
        let _ = write!(area, "L{x:.2} {y:.2}");
    }
    let _ = write!(area, "L100 {:.2}Z", down(0.0));
    let most = values.iter().zip(gammas).max_by(|a, b| a.0.total_cmp(b.0));
    let said = words.fill(
        "similarity.profile_described",
        &[
            ("low", &words.number(*low, 1)),
            ("high", &words.number(*high, 1)),
            ("most", &words.number(most.map_or(0.0, |(_, gamma)| *gamma), 1)),
        ],
    );
    let body = html! {
        svg x="0" y="1" width="100%" height=(format!("{CURVE_PX:.0}")) viewBox="0 0 100 100" preserveAspectRatio="none" {
            path class="area" d=(area) {}
            polyline class="outline" points=(points.trim()) vector-effect="non-scaling-stroke" {}
            line class="axis" x1="0" x2="100" y1=(format!("{:.2}", down(0.0))) y2=(format!("{:.2}", down(0.0))) vector-effect="non-scaling-stroke" {}
        }
    };
    figure(PROFILE_PX, &words.fill("similarity.profile_of", &[("name", name)]), &said, &body)
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
    fn nats_are_told_of_the_entity_that_lost_most_places_with_both_parts() {
        let mut census = sample::census();
        let entities = &mut census.likelihood.as_mut().unwrap().entities;
        for entity in entities.iter_mut() {
            entity.population = Some(Estimate::bare(0.1));
        }
        let boat = entities.iter_mut().find(|e| e.id == "boat").unwrap();
        boat.total = Estimate { value: 1.5, ci: Some([1.25, 1.75]), ci_kind: None };
        boat.population = Some(Estimate::bare(0.6));
        boat.deformation = Some(Estimate::bare(0.9));
        let page = drawn(&census);
        assert!(page.contains("“boat”") && page.contains("1.50 [1.25, 1.75] nats"), "{page}");
        assert!(page.contains("0.60 because") && page.contains("0.90 because"), "{page}");
    }

    #[test]
    fn a_score_gap_is_never_called_nats() {
        let mut census = sample::census();
        census.likelihood.as_mut().unwrap().unit = LikelihoodUnit::ScoreGap;
        let page = drawn(&census);
        assert!(page.contains("of score gap") && page.contains("no density"), "{page}");
        assert!(!page.contains("] nats"), "{page}");
    }

    #[test]
    fn instruments_that_disagree_are_named() {
        let mut census = sample::census();
        let told = "the instruments disagree";
        census
            .likelihood
            .as_mut()
            .unwrap()
            .entities
            .iter_mut()
            .for_each(|e| e.instruments_disagree = false);
        assert!(!drawn(&census).contains(told));
        census.likelihood.as_mut().unwrap().entities[0].instruments_disagree = true;
        assert!(drawn(&census).contains(told));
    }

    #[test]
    fn every_chart_has_a_title_and_a_description() {
        let page = drawn(&sample::census());
        let charts = page.matches("role=\"img\"").count();
        assert!(charts > 4, "{charts}");
        assert_eq!(page.matches("<desc>").count(), charts);
        assert_eq!(page.matches("<desc></desc>").count(), 0);
    }
}
