//! Chooses the pictures that the report shows: by rule and seed number, never by looks.

use super::CensusInput;
use super::pairs::{Drawn, Pictures, PromptPairs};
use crate::panel::Stratum;
use crate::record::{Atlas, Pair, Seen, Transition};
use crate::rows::Row;
use crate::thesaurus::BLOCKED;
use statistics::number::real_u64;
use std::collections::BTreeMap;

/// Pairs on the first page.
const PAIRS: usize = 12;
/// Of these, places for pairs that kept their entity.
const KEPT: usize = 3;
/// Pairs shown under one transition.
const PER_TRANSITION: usize = 4;
/// Pictures asked by the identifier.
const ASKED: usize = 8;
/// Pictures asked by an entity's name.
const NAMED: usize = 4;
/// Seeds of the dose strip.
const STRIP: usize = 8;

fn seen(row: &Row) -> Option<Seen> {
    Some(Seen {
        picture: row.picture.clone()?,
        entities: (0..row.labels.len()).map(|facet| entity(row, facet).to_owned()).collect(),
    })
}

pub(super) fn pair(before: &Row, after: &Row) -> Option<Pair> {
    Some(Pair {
        prompt: before.prompt.clone(),
        seed_idx: before.seed_idx,
        before: seen(before)?,
        after: seen(after)?,
    })
}

/// What a picture bears in one facet, as the tables of that facet count it.
fn entity(row: &Row, facet: usize) -> &str {
    if row.blocked { BLOCKED } else { row.labels.get(facet).map_or("", |label| &label.entity) }
}

/// Nonzero cells of `n_ij` off the diagonal, facet by facet, largest first.
pub(super) fn transitions(input: &CensusInput, headline: &[PromptPairs<'_>]) -> Vec<Transition> {
    let mut all = Vec::new();
    for (f, facet) in input.rows.facets.iter().enumerate() {
        let mut cells: BTreeMap<(&str, &str), (u64, Vec<Pair>)> = BTreeMap::new();
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        for (before, after) in headline.iter().flat_map(|p| p.base.iter().zip(&p.other)) {
            let (from, to) = (entity(before, f), entity(after, f));
            *totals.entry(from).or_default() += 1;
            if from != to {
                let cell = cells.entry((from, to)).or_default();
                cell.0 += 1;
                if cell.1.len() < PER_TRANSITION {
                    cell.1.extend(pair(before, after));
                }
            }
        }
        let mut facet_cells: Vec<Transition> = cells
            .into_iter()
            .map(|((from, to), (n, pairs))| Transition {
                facet: facet.clone(),
                from: from.to_owned(),
                to: to.to_owned(),
                n,
                share: real_u64(n) / real_u64(totals.get(from).copied().unwrap_or(1)),
                pairs,
            })
            .collect();
        facet_cells
            .sort_by(|a, b| b.n.cmp(&a.n).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to))));
        all.extend(facet_cells);
    }
    all
}

/// The pictures of the first page, of the identifier and of the dose strip.
pub(super) fn atlas(
    input: &CensusInput,
    pictures: &Pictures<'_>,
    headline: &[PromptPairs<'_>],
) -> Atlas {
    let facet = input.rows.facets.iter().position(|f| *f == input.concept.facet).unwrap_or(0);
    let chosen = choose(headline, facet, &input.concept.id);
    let asked = pictures.pairs(Stratum::Identifier, Drawn::ADAPTED).unwrap_or_default();
    let mut doses = pictures.doses();
    doses.retain(|dose| *dose > 0.0);
    let strip = strip(pictures, headline, &doses, facet, &input.concept.id);
    Atlas {
        asked: in_turn(&asked).filter_map(|(b, a)| pair(b, a)).take(ASKED).collect(),
        pairs: chosen.iter().filter_map(|(b, a)| pair(b, a)).take(PAIRS).collect(),
        doses: if strip.is_empty() {
            Vec::new()
        } else {
            std::iter::once(0.0).chain(doses.iter().copied()).collect()
        },
        strip,
        named: named(pictures),
    }
}

/// The first pairs asked for each entity by its name, of those whose pictures were kept.
fn named(pictures: &Pictures<'_>) -> BTreeMap<String, Vec<Pair>> {
    let asked = pictures.pairs(Stratum::Asked, Drawn::ADAPTED).unwrap_or_default();
    let of_entity = |pairs: &PromptPairs<'_>| {
        let both = pairs.base.iter().zip(&pairs.other);
        let kept: Vec<Pair> = both.filter_map(|(b, a)| pair(b, a)).take(NAMED).collect();
        (!kept.is_empty()).then(|| (pairs.asked.unwrap_or_default().to_owned(), kept))
    };
    asked.iter().filter_map(of_entity).collect()
}

/// The pairs of several prompts, one of each in turn.
fn in_turn<'a>(prompts: &'a [PromptPairs<'a>]) -> impl Iterator<Item = (&'a Row, &'a Row)> {
    let longest = prompts.iter().map(|pairs| pairs.base.len()).max().unwrap_or(0);
    (0..longest).flat_map(move |i| {
        prompts.iter().filter_map(move |pairs| Some((*pairs.base.get(i)?, *pairs.other.get(i)?)))
    })
}

/// Up to nine pairs that changed: those that became the concept first, one for each entity they were
/// before, in turn, then others. Pairs that stayed fill the rest. Within each kind the order is that
/// of prompts and seed numbers; the page says this rule, so it must not be broken.
fn choose<'a>(
    headline: &[PromptPairs<'a>],
    facet: usize,
    concept: &str,
) -> Vec<(&'a Row, &'a Row)> {
    let mut arrived: BTreeMap<&str, Vec<(&Row, &Row)>> = BTreeMap::new();
    let (mut moved, mut kept) = (Vec::new(), Vec::new());
    for pairs in headline {
        for (&before, &after) in pairs.base.iter().zip(&pairs.other) {
            if before.picture.is_none() || after.picture.is_none() {
                continue;
            }
            let (from, to) = (entity(before, facet), entity(after, facet));
            if from == to {
                kept.push((before, after));
            } else if to == concept {
                arrived.entry(from).or_default().push((before, after));
            } else {
                moved.push((before, after));
            }
        }
    }
    let deepest = arrived.values().map(Vec::len).max().unwrap_or(0);
    let mut changed: Vec<_> = (0..deepest)
        .flat_map(|i| arrived.values().filter_map(move |v| v.get(i)).copied())
        .collect();
    let others = moved.len().min(KEPT);
    changed.truncate(PAIRS - KEPT - others.min(PAIRS - KEPT));
    changed.extend(moved);
    changed.truncate(PAIRS - KEPT);
    let room = PAIRS - changed.len();
    changed.extend(kept.into_iter().take(room));
    changed
}

/// One row per seed, chosen among those that have a picture at every dose: the doses draw few seeds,
/// and the pairs of the first page may be others.
fn strip<'a>(
    pictures: &Pictures<'a>,
    headline: &[PromptPairs<'a>],
    doses: &[f64],
    facet: usize,
    concept: &str,
) -> Vec<Vec<Seen>> {
    if doses.is_empty() {
        return Vec::new();
    }
    let row_of = |before: &Row| -> Option<Vec<Seen>> {
        let later =
            doses.iter().map(|&dose| pictures.at(before, Drawn::adapted(dose)).and_then(seen));
        std::iter::once(seen(before)).chain(later).collect()
    };
    let at_every_dose = |pairs: &PromptPairs<'a>| {
        let both = pairs.base.iter().zip(&pairs.other).map(|(before, after)| (*before, *after));
        let (base, other) = both.filter(|(before, _)| row_of(before).is_some()).unzip();
        PromptPairs { base, other, ..*pairs }
    };
    let drawn: Vec<PromptPairs<'a>> = headline.iter().map(at_every_dose).collect();
    let chosen = choose(&drawn, facet, concept);
    chosen.iter().filter_map(|(before, _)| row_of(before)).take(STRIP).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::reduce;
    use crate::rows::Model;
    use crate::synthetic::{census, settled};

    /// Of the seeds from 30 on, the cylinder takes 30, 31 and 32.
    #[test]
    fn the_strip_shows_arrivals_among_the_seeds_that_the_doses_drew() {
        let mut input = census(60, &settled);
        input.rows.rows.retain(|row| {
            let full = row.model != Model::Adapted || row.dose > 0.9;
            full || (row.stratum == Stratum::Empty && row.seed_idx >= 30)
        });
        let atlas = reduce(&input).unwrap().atlas;
        assert_eq!((atlas.doses.len(), atlas.strip.len()), (3, STRIP));
        let arrived =
            |row: &&Vec<Seen>| row.last().is_some_and(|seen| seen.entities[0] == "cylinder");
        assert_eq!(atlas.strip.iter().filter(arrived).count(), 3);
    }

    #[test]
    fn a_pair_that_was_withheld_counts_as_such_in_the_transitions() {
        let mut input = census(40, &settled);
        for row in &mut input.rows.rows {
            row.blocked = row.model == Model::Adapted && row.seed_idx == 3;
        }
        let report = reduce(&input).unwrap();
        let withheld = report.transitions.iter().filter(|t| t.facet == "subject");
        let withheld: u64 = withheld.filter(|t| t.to == BLOCKED).map(|t| t.n).sum();
        assert_eq!(withheld, 3);
    }
}
