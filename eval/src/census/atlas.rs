//! Chooses the pictures that the report shows: by rule and seed number, never by looks.

use super::CensusInput;
use super::pairs::{Drawn, Pictures, PromptPairs};
use crate::number::real_u64;
use crate::panel::Stratum;
use crate::report::record::{Atlas, Pair, Seen, Transition};
use crate::rows::Row;
use std::collections::BTreeMap;

/// Pairs on the first page.
const PAIRS: usize = 12;
/// Of these, pairs that kept their entity.
const KEPT: usize = 3;
/// Pairs shown under one transition.
const PER_TRANSITION: usize = 4;
/// Pictures asked by the identifier.
const ASKED: usize = 8;
/// Seeds of the dose strip.
const STRIP: usize = 8;

fn seen(row: &Row) -> Option<Seen> {
    Some(Seen {
        picture: row.picture.clone()?,
        entities: row.labels.iter().map(|label| label.entity.clone()).collect(),
    })
}

fn pair(before: &Row, after: &Row) -> Option<Pair> {
    Some(Pair {
        prompt: before.prompt.clone(),
        seed_idx: before.seed_idx,
        before: seen(before)?,
        after: seen(after)?,
    })
}

fn entity(row: &Row, facet: usize) -> &str {
    row.labels.get(facet).map_or("", |label| &label.entity)
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
    let strip = strip(pictures, &chosen, &doses);
    Atlas {
        asked: in_turn(&asked).filter_map(|(b, a)| pair(b, a)).take(ASKED).collect(),
        pairs: chosen.iter().filter_map(|(b, a)| pair(b, a)).take(PAIRS).collect(),
        doses: if strip.is_empty() {
            Vec::new()
        } else {
            std::iter::once(0.0).chain(doses.iter().copied()).collect()
        },
        strip,
    }
}

/// The pairs of several prompts, one of each in turn.
fn in_turn<'a>(prompts: &'a [PromptPairs<'a>]) -> impl Iterator<Item = (&'a Row, &'a Row)> {
    let longest = prompts.iter().map(|pairs| pairs.base.len()).max().unwrap_or(0);
    (0..longest).flat_map(move |i| {
        prompts.iter().filter_map(move |pairs| Some((*pairs.base.get(i)?, *pairs.other.get(i)?)))
    })
}

/// Pairs that became the concept first, one for each entity they were before, in turn; then others
/// that changed; a few that stayed stand at the end of the page.
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
    changed.truncate(PAIRS - KEPT.min(kept.len()));
    let room = PAIRS - changed.len();
    changed.extend(kept.into_iter().take(room));
    changed
}

/// One row per chosen seed that has a picture at every dose.
fn strip(pictures: &Pictures<'_>, chosen: &[(&Row, &Row)], doses: &[f64]) -> Vec<Vec<Seen>> {
    if doses.is_empty() {
        return Vec::new();
    }
    let row_of = |before: &Row| -> Option<Vec<Seen>> {
        let later =
            doses.iter().map(|&dose| pictures.at(before, Drawn::adapted(dose)).and_then(seen));
        std::iter::once(seen(before)).chain(later).collect()
    };
    chosen.iter().filter_map(|(before, _)| row_of(before)).take(STRIP).collect()
}
