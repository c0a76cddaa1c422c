//! The wall of the non-seekers: entities that gave up their places. Seated ones still answer their
//! name; of the others it is asked in vain.

use super::Panel;
use super::chart_parts::{legend, missing, reasons};
use crate::page::Page;
use eval::record::{EntityRecord, Kind, Pair, SettlementsRecord};
use eval::thesaurus::{BLOCKED, NONE};
use maud::{Markup, html};

/// An entity is a non-seeker where its share lies below this part of what it was.
const GAVE_UP_BELOW: f64 = 0.25;
/// From this part of its obedience on an entity still answers its name.
const STILL_ANSWERS_FROM: f64 = 0.8;
/// Pairs shown of each entity, beside the page and within it.
const PAIRS: [usize; 2] = [8, 4];

/// What became of an entity that gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// `IVa`: it still answers its name.
    Seated,
    /// `IVb`: it does not.
    Gone,
    /// Nobody asked it.
    NotAsked,
}

/// An entity that gave up.
struct NonSeeker<'a> {
    entity: &'a EntityRecord,
    /// ad: how far it still answers its name.
    addressability: Option<f64>,
    /// Probability of kind IV over a bootstrap of seeds.
    probability: Option<f64>,
}

impl NonSeeker<'_> {
    fn fate(&self) -> Fate {
        match self.addressability {
            Some(ad) if ad >= STILL_ANSWERS_FROM => Fate::Seated,
            Some(_) => Fate::Gone,
            None => Fate::NotAsked,
        }
    }
}

/// The panel.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let settlements = page.census.settlements.as_ref().filter(|known| !known.kinds.is_empty());
    let found = match settlements {
        Some(settlements) => by_kind(page, settlements),
        None => by_count(page),
    };
    let rule = if settlements.is_some() {
        words.say("non_seekers.rule_kinds")
    } else {
        words.say("non_seekers.rule_counts")
    };
    let body = html! {
        p class="sentence" { (sentence(page, &found)) }
        p class="note" { (rule) }
        @if settlements.is_none() { (no_kinds(page)) }
        @if !found.is_empty() {
            (legend(&[
                ("seated", "◑", words.say("non_seekers.key_seated")),
                ("gone", "○", words.say("non_seekers.key_gone")),
            ]))
            div class="wall" { @for one in &found { (stone(page, one)) } }
            p class="note" { (words.say("non_seekers.may_say")) }
            p class="note" { (words.say("non_seekers.may_not_say")) }
        }
    };
    Panel {
        id: "non-seekers",
        title: words.say("non_seekers.title").to_owned(),
        data: Some("entities.csv"),
        body,
    }
}

/// Why the kinds are not told by mobility.
fn no_kinds(page: &Page<'_>) -> Markup {
    if reasons(page, &["settlements"]).is_empty() {
        return html! { p class="note" { (page.words.say("non_seekers.few_settlements")) } };
    }
    missing(page, &["settlements"], page.words.say("non_seekers.no_settlements"))
}

/// Entities that mobility files as kind IV.
fn by_kind<'a>(page: &Page<'a>, settlements: &SettlementsRecord) -> Vec<NonSeeker<'a>> {
    let census = page.census;
    let vanquished = settlements.kinds.iter().filter(|record| record.kind == Kind::Vanquished);
    vanquished
        .filter_map(|record| {
            let mut entities = census.facets.iter().flat_map(|facet| &facet.entities);
            Some(NonSeeker {
                entity: entities.find(|entity| entity.id == record.id)?,
                addressability: record.addressability,
                probability: Some(record.probabilities[3]),
            })
        })
        .collect()
}

/// Entities of the concept's facet of which the whole interval lies below a quarter of what they were,
/// or which no adapted picture bears.
fn by_count<'a>(page: &Page<'a>) -> Vec<NonSeeker<'a>> {
    let census = page.census;
    let home = census.facets.iter().find(|facet| facet.id == census.concept.facet);
    let gave_up = |entity: &&EntityRecord| {
        let named = !matches!(entity.id.as_str(), NONE | BLOCKED) && entity.id != census.concept.id;
        let far = most(entity) < GAVE_UP_BELOW * entity.p_b;
        named && entity.n_b > 0 && (far || entity.vanished_below.is_some())
    };
    let found = home.into_iter().flat_map(|facet| &facet.entities).filter(gave_up);
    found
        .map(|entity| NonSeeker {
            entity,
            addressability: addressability(entity),
            probability: None,
        })
        .collect()
}

/// The largest share that the interval leaves to an entity.
fn most(entity: &EntityRecord) -> f64 {
    entity.vanished_below.unwrap_or_else(|| (entity.p_b + entity.ci[1]).max(0.0))
}

/// How far an entity answers its name, after over before.
fn addressability(entity: &EntityRecord) -> Option<f64> {
    let before = entity.obedience_b.filter(|before| *before > 0.0)?;
    Some(entity.obedience_a? / before)
}

/// Who gave up, or how far the one that lost most still is from it.
fn sentence(page: &Page<'_>, found: &[NonSeeker<'_>]) -> String {
    let words = page.words;
    let facet = page.facet(&page.census.concept.facet);
    if !found.is_empty() {
        let names: Vec<String> =
            found.iter().map(|one| words.quoted(&page.label(one.entity))).collect();
        return words
            .fill("non_seekers.found", &[("facet", &facet), ("names", &words.row(&names))]);
    }
    let home = page.home();
    let entities = home.into_iter().flat_map(|facet| &facet.entities);
    let seen = entities.filter(|e| {
        e.n_b > 0 && !matches!(e.id.as_str(), NONE | BLOCKED) && e.id != page.census.concept.id
    });
    let left = |entity: &EntityRecord| entity.p_a / entity.p_b.max(f64::MIN_POSITIVE);
    match seen.min_by(|a, b| left(a).total_cmp(&left(b))) {
        None => words.fill("non_seekers.nothing_seen", &[("facet", &facet)]),
        Some(entity) => words.fill(
            "non_seekers.none",
            &[
                ("facet", &facet),
                ("word", &words.quoted(&page.label(entity))),
                ("after", &words.number(100.0 * entity.p_a, 1)),
                ("ci", &share_interval(page, entity)),
                ("before", &words.number(100.0 * entity.p_b, 1)),
            ],
        ),
    }
}

/// The interval of an entity's share after, from that of its change.
fn share_interval(page: &Page<'_>, entity: &EntityRecord) -> String {
    let low = (entity.p_b + entity.ci[0]).max(0.0);
    page.words.interval([low, most(entity).max(low)], 100.0, 1)
}

/// One entity: what is known of it, and what holds its places now.
fn stone(page: &Page<'_>, one: &NonSeeker<'_>) -> Markup {
    let words = page.words;
    let (class, glyph, fate) = match one.fate() {
        Fate::Seated => ("seated", "◑", words.say("non_seekers.seated")),
        Fate::Gone => ("gone", "○", words.say("non_seekers.gone")),
        Fate::NotAsked => ("not-asked", "?", words.say("non_seekers.not_asked")),
    };
    let named = named_pairs(page, one.entity);
    let places = taken_pairs(page, one.entity);
    html! {
        div class={ "stone " (class) } {
            h3 { span aria-hidden="true" { (glyph) } " " (page.label(one.entity)) " " span class="fate" { (fate) } }
            p { (told(page, one)) }
            @if !named.is_empty() {
                p class="note" { (words.say("non_seekers.named")) }
                div class="pairs" { @for pair in &named { (page.pair(pair)) } }
            }
            @if !places.is_empty() {
                p class="note" { (words.say("non_seekers.places")) }
                div class="pairs" { @for pair in &places { (page.pair(pair)) } }
            }
            @if named.is_empty() && places.is_empty() { p class="note" { (words.say("non_seekers.no_pictures")) } }
        }
    }
}

/// What is known of one entity, with figures.
fn told(page: &Page<'_>, one: &NonSeeker<'_>) -> String {
    let words = page.words;
    let entity = one.entity;
    let mut told = vec![words.fill(
        "non_seekers.share",
        &[
            ("before", &words.number(100.0 * entity.p_b, 1)),
            ("after", &words.number(100.0 * entity.p_a, 1)),
            ("ci", &share_interval(page, entity)),
        ],
    )];
    told.push(match (one.addressability, entity.obedience_b, entity.obedience_a) {
        (Some(ad), Some(before), Some(after)) => words.fill(
            "non_seekers.answers",
            &[
                ("before", &words.number(100.0 * before, 0)),
                ("after", &words.number(100.0 * after, 0)),
                ("ad", &words.number(ad, 2)),
            ],
        ),
        (Some(ad), _, _) => words.fill("non_seekers.ad", &[("ad", &words.number(ad, 2))]),
        (None, _, _) => words.say("non_seekers.nobody_asked").to_owned(),
    });
    if let Some(probability) = one.probability {
        told.push(
            words
                .fill("non_seekers.probability", &[("probability", &words.number(probability, 2))]),
        );
    }
    told.join(" ")
}

/// Pairs that were asked for the entity by its name, where any were kept.
fn named_pairs<'a>(page: &Page<'a>, entity: &EntityRecord) -> Vec<&'a Pair> {
    let named = page.census.atlas.named.get(&entity.id);
    named.into_iter().flatten().take(page.at_most(PAIRS[0], PAIRS[1])).collect()
}

/// Unasked pairs in which another holds the entity's place now.
fn taken_pairs<'a>(page: &Page<'a>, entity: &EntityRecord) -> Vec<&'a Pair> {
    let census = page.census;
    let ways = census
        .transitions
        .iter()
        .filter(|way| way.facet == census.concept.facet && way.from == entity.id);
    ways.flat_map(|way| &way.pairs).take(page.at_most(PAIRS[0], PAIRS[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;
    use eval::json::CensusReport;

    fn drawn(census: &CensusReport) -> String {
        sample::on_page(census, Language::English, &|page| panel(page).body)
    }

    fn boat(census: &mut CensusReport) -> &mut EntityRecord {
        census.facets[0].entities.iter_mut().find(|entity| entity.id == "boat").unwrap()
    }

    /// A share of 0.30 of which at most 0.06 is left.
    fn gave_up() -> CensusReport {
        let mut census = sample::bare();
        let boat = boat(&mut census);
        (boat.p_b, boat.p_a, boat.delta, boat.ci) = (0.3, 0.04, -0.26, [-0.28, -0.24]);
        (boat.obedience_b, boat.obedience_a) = (Some(0.9), Some(0.81));
        census
    }

    #[test]
    fn a_quarter_is_the_limit_and_the_upper_end_decides() {
        let page = drawn(&gave_up());
        assert!(
            page.contains("“boat” gave up") && page.contains("class=\"stone seated\""),
            "{page}"
        );
        let mut census = gave_up();
        boat(&mut census).ci = [-0.3, -0.22];
        let page = drawn(&census);
        assert!(page.contains("no entity gave up") && !page.contains("class=\"stone"), "{page}");
        assert!(page.contains("“boat” has 4.0 [0.0, 8.0] places of 100 of the 30.0"), "{page}");
    }

    #[test]
    fn who_still_answers_is_seated_who_does_not_is_gone_who_was_not_asked_is_neither() {
        let mut census = gave_up();
        assert!(drawn(&census).contains("0.90 of what it was"));
        boat(&mut census).obedience_a = Some(0.7);
        assert!(drawn(&census).contains("class=\"stone gone\""));
        boat(&mut census).obedience_a = None;
        let page = drawn(&census);
        assert!(
            page.contains("class=\"stone not-asked\"") && page.contains("not asked by its name")
        );
    }

    #[test]
    fn kinds_of_mobility_go_before_counts() {
        let mut census = gave_up();
        census.settlements = sample::census().settlements;
        let kinds = &mut census.settlements.as_mut().unwrap().kinds;
        for record in kinds.iter_mut() {
            record.kind = Kind::Sedentary;
        }
        assert!(drawn(&census).contains("no entity gave up"));
        let kinds = &mut census.settlements.as_mut().unwrap().kinds;
        let house = kinds.iter_mut().find(|record| record.id == "house").unwrap();
        (house.kind, house.addressability) = (Kind::Vanquished, Some(0.1));
        house.probabilities = [0.0, 0.02, 0.02, 0.96];
        let page = drawn(&census);
        assert!(page.contains("“house” gave up") && page.contains("probability 0.96"), "{page}");
        assert!(page.contains("class=\"stone gone\""));
    }

    #[test]
    fn what_holds_the_places_now_is_shown() {
        let page = drawn(&gave_up());
        assert!(
            page.contains("class=\"pair\"") && page.contains("What holds its places now"),
            "{page}"
        );
        let mut census = gave_up();
        census.transitions.clear();
        assert!(drawn(&census).contains("No picture of it was kept"));
    }
}
