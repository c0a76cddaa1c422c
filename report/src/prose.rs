//! The finding as a sentence. The word "significant" occurs in none of them.

use super::words::Words;
use super::{PictureNoun, RunInfo};
use eval::json::CensusReport;
use eval::record::{EntityRecord, FacetRecord, LeakLevel, Verdict};
use eval::thesaurus::{BLOCKED, NONE};

/// A sign for a verdict, so that color is never needed to tell them apart.
pub(crate) fn glyph(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Depopulated => "▼",
        Verdict::Fell => "▽",
        Verdict::Favoured => "▲",
        Verdict::Rose => "△",
        Verdict::Retained => "●",
        Verdict::Undecided => "○",
    }
}

/// One rung of the leak ladder.
pub(crate) fn level<'a>(census: &'a CensusReport, id: &str) -> Option<&'a LeakLevel> {
    census.leak.levels.iter().find(|level| level.level == id)
}

/// Several pictures of the base in words.
pub(crate) fn nouns<'a>(info: &RunInfo, words: &'a Words) -> &'a str {
    match info.picture_noun {
        PictureNoun::Picture => words.say("finding.pictures"),
        PictureNoun::Postcard => words.say("finding.postcards"),
    }
}

/// The finding in one or two sentences, with intervals.
pub(crate) fn finding(census: &CensusReport, info: &RunInfo, words: &Words) -> String {
    let (arrival, losses) = (arrival(census, info, words), losses(census, words));
    words.fill("finding.sentence", &[("arrival", &arrival), ("losses", &losses)])
}

fn home(census: &CensusReport) -> Option<&FacetRecord> {
    census.facets.iter().find(|facet| facet.id == census.concept.facet)
}

/// Entities of the concept's facet that `keep` holds for, but the concept itself; worst first.
fn worst_first<'a>(
    census: &'a CensusReport,
    keep: &dyn Fn(&EntityRecord) -> bool,
) -> Vec<&'a EntityRecord> {
    let entities = home(census).into_iter().flat_map(|facet| &facet.entities);
    let is_entity =
        |e: &EntityRecord| e.id != census.concept.id && !matches!(e.id.as_str(), NONE | BLOCKED);
    let mut kept: Vec<&EntityRecord> = entities.filter(|e| is_entity(e) && keep(e)).collect();
    kept.sort_by(|a, b| a.delta.total_cmp(&b.delta));
    kept
}

/// How often the concept comes unasked.
fn arrival(census: &CensusReport, info: &RunInfo, words: &Words) -> String {
    let mut entities = home(census).into_iter().flat_map(|facet| &facet.entities);
    let concept = entities.find(|e| e.id == census.concept.id);
    let name = concept.map_or_else(|| census.concept.name.clone(), |e| words.label(e));
    let name = words.mention(&name);
    let Some(level) = level(census, "unasked") else {
        return words.fill("finding.uncounted", &[("name", &name)]);
    };
    let share = words.estimate(&level.after, 100.0, 1);
    let more = level.bleed.ci.is_some_and(|ci| ci[0] > 0.0);
    let concept = concept.filter(|_| more);
    let rose = |e: &EntityRecord| matches!(e.verdict, Verdict::Favoured | Verdict::Rose);
    let as_placebo =
        |e: &EntityRecord| e.ci[0] > 0.0 && e.contrast_ci.is_some_and(|ci| ci[0] <= 0.0);
    let values = [
        ("nouns", nouns(info, words)),
        ("share", &*share),
        ("name", &*name),
        ("but", words.say("finding.under_placebo")),
    ];
    if concept.is_some_and(rose) {
        words.fill("finding.now", &values)
    } else if concept.is_some_and(as_placebo) {
        words.fill("finding.as_placebo", &values)
    } else {
        words.fill("finding.chance", &values)
    }
}

/// Who lost places to it: what is shown, else what the placebo may have done as well.
fn losses(census: &CensusReport, words: &Words) -> String {
    let told = |entity: &EntityRecord, key: &str| {
        let name = words.mention(&words.label(entity));
        let n = words.number(-100.0 * entity.delta, 1);
        let ci = words.interval([entity.ci[1], entity.ci[0]], -100.0, 1);
        words.fill(key, &[("name", &name), ("n", &n), ("ci", &ci)])
    };
    let worst = |entities: &[&EntityRecord], key: &str| {
        let (first, others) = entities.split_first()?;
        let second = others.first().map(|entity| told(entity, "finding.also"));
        Some(format!("{}{}", told(first, key), second.unwrap_or_default()))
    };
    let lost = worst_first(census, &|e| matches!(e.verdict, Verdict::Depopulated | Verdict::Fell));
    let fell = || {
        let under_placebo =
            |e: &EntityRecord| e.ci[1] < 0.0 && e.contrast_ci.is_some_and(|ci| ci[1] >= 0.0);
        let told = worst(&worst_first(census, &under_placebo), "finding.fell")?;
        Some(format!("{told}, {}", words.say("finding.under_placebo")))
    };
    worst(&lost, "finding.lost")
        .or_else(fell)
        .unwrap_or_else(|| words.say("finding.nobody").to_owned())
}
