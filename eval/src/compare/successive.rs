//! Reads settlements that follow each other as successive states of one model.

use super::chain;
use super::labels::Labels;
use super::opened::Opened;
use super::{BOOTSTRAP, ComparedLink};
use crate::census::CensusInput;
use crate::census::categories::Categories;
use crate::error::EvalError;
use crate::record::{Refusal, SettlementsRecord};
use crate::rows::Model;
use crate::settlements::{SettlementsInput, settlements};
use crate::thesaurus::{BLOCKED, NONE};
use statistics::interval::Resampler;
use statistics::mobility::Places;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What is said of settlements one after another.
pub(super) struct Successive {
    pub(super) record: Option<SettlementsRecord>,
    /// How pictures behind `record` are labelled.
    pub(super) labels: Option<Labels>,
    /// What merging changed between one run and the next.
    pub(super) links: Vec<ComparedLink>,
    /// Names of the settlements in the other order.
    pub(super) reversed: Vec<String>,
    /// Figures that were not given, and why.
    pub(super) refused: Vec<Refusal>,
}

/// Settlements in the order in which they follow each other.
struct Sequence<'a> {
    /// What the first of them lies on.
    ground: String,
    first: &'a Opened,
    settlements: Vec<&'a Opened>,
    /// The same concepts settled in the other order; empty without.
    reversed: Vec<&'a Opened>,
    labels: Labels,
}

/// Who holds each place.
struct Lived {
    /// Through the settlements.
    places: Places,
    /// After the last one of the other order.
    reversed: Option<Vec<u16>>,
}

/// States of one run in the order given, or the longest chain of runs on top of each other.
///
/// # Errors
///
/// [`EvalError::Unpaired`] if a label is not of the thesaurus.
pub(super) fn of(all: &[Opened]) -> Result<Successive, EvalError> {
    let sequence = match Sequence::of(all) {
        Ok(sequence) => sequence,
        Err(reason) => return Ok(Successive::refused(reason)),
    };
    let mut inputs = Vec::new();
    for one in sequence.settlements.iter().chain(sequence.reversed.last()) {
        inputs.push(sequence.labels.read(&one.input)?);
    }
    let Some(first) = inputs.first() else {
        return Ok(Successive::refused("nothing to compare".to_owned()));
    };
    let categories = sequence.labels.categories(first)?;
    let mut states: Vec<(&CensusInput, Model)> = vec![(&**first, Model::Base)];
    states.extend(inputs.iter().map(|input| (&**input, Model::Adapted)));
    let mut places = places(&states, &categories)?;
    let reversed = if sequence.reversed.is_empty() { None } else { places.states.pop() };
    let links = sequence.links(&inputs, &categories)?;
    Ok(Successive { links, ..sequence.told(&categories, &Lived { places, reversed }) })
}

impl Successive {
    fn refused(reason: String) -> Self {
        let refused = vec![Refusal { what: "settlements".to_owned(), reason }];
        Self { record: None, labels: None, links: Vec::new(), reversed: Vec::new(), refused }
    }
}

impl<'a> Sequence<'a> {
    /// Which of the settlements follow each other, and how.
    ///
    /// # Errors
    ///
    /// Why the settlements do not follow each other.
    fn of(all: &'a [Opened]) -> Result<Self, String> {
        let of_one_run = all.windows(2).all(|pair| pair[0].of == pair[1].of);
        let (settlements, reversed): (Vec<&'a Opened>, Vec<&'a Opened>) = if of_one_run {
            (all.iter().collect(), Vec::new())
        } else {
            let chains = chain::chains(all)?;
            let named = |chain: Vec<usize>| -> Vec<&'a Opened> {
                chain.into_iter().map(|one| &all[one]).collect()
            };
            (named(chains.forward), chains.reversed.map(named).unwrap_or_default())
        };
        let first = *settlements.first().ok_or("nothing to compare")?;
        Ok(Self {
            ground: chain::on(first, all).unwrap_or_else(|| "base".to_owned()),
            first,
            labels: Labels::of(&settlements),
            settlements,
            reversed,
        })
    }

    /// Each settlement beside the base of the next one, seed by seed, where runs lie on each other.
    ///
    /// # Errors
    ///
    /// [`EvalError::Unpaired`] if a label is not of the thesaurus.
    fn links(
        &self,
        inputs: &[Cow<'_, CensusInput>],
        categories: &Categories,
    ) -> Result<Vec<ComparedLink>, EvalError> {
        let mut links = Vec::new();
        for (names, drawn) in self.settlements.windows(2).zip(inputs.windows(2)) {
            let ([below, above], [attached, merged]) = (names, drawn) else { continue };
            if below.of == above.of {
                continue;
            }
            let (from, to) = (below.name.clone(), above.name.clone());
            let mut link = ComparedLink { from, to, pairs: 0, different: 0 };
            for prompt in attached.panel.prompts().filter(|prompt| prompt.stratum.is_headline()) {
                let before = labels(attached, Model::Adapted, &prompt.id, categories)?;
                let after = labels(merged, Model::Base, &prompt.id, categories)?;
                for (seed, label) in before {
                    let Some(other) = after.get(&seed) else { continue };
                    link.pairs += 1;
                    link.different += u64::from(label != *other);
                }
            }
            links.push(link);
        }
        Ok(links)
    }

    /// The figures of these states, and why some are not given.
    fn told(&self, categories: &Categories, lived: &Lived) -> Successive {
        let record = match self.record(categories, lived) {
            Ok(record) => record,
            Err(reason) => return Successive::refused(reason),
        };
        let mut refused = Vec::new();
        let mut refuse = |what: &str, reason: &str| {
            refused.push(Refusal { what: what.to_owned(), reason: reason.to_owned() });
        };
        if self.labels == Labels::Nearest {
            refuse(
                "backward_transfer",
                "each census knows its own concept alone: whether an earlier one survives is seen in \
                 `populate generate`, or by its own detector",
            );
            if record.order_effect.is_none() {
                refuse("order_effect", "the same concepts were not settled in the other order");
            }
        }
        Successive {
            record: Some(record),
            labels: Some(self.labels),
            links: Vec::new(),
            reversed: self.reversed.iter().map(|one| one.name.clone()).collect(),
            refused,
        }
    }

    fn record(&self, categories: &Categories, lived: &Lived) -> Result<SettlementsRecord, String> {
        let names: Vec<String> = std::iter::once(self.ground.clone())
            .chain(self.settlements.iter().map(|one| one.name.clone()))
            .collect();
        let bodies: Vec<bool> =
            categories.names.iter().map(|name| !matches!(name.as_str(), NONE | BLOCKED)).collect();
        let addressability: Vec<Option<f64>> =
            categories.names.iter().map(|id| self.answers(id)).collect();
        settlements(
            &SettlementsInput {
                facet: &self.first.input.concept.facet,
                states: &names,
                categories: &categories.names,
                bodies: &bodies,
                places: &lived.places,
                concepts: &self.concepts(categories),
                placebos: &[],
                reversed: lived.reversed.as_deref(),
                addressability: &addressability,
            },
            Resampler { seed: self.first.input.seed, draws: BOOTSTRAP },
        )
    }

    /// Category of each settlement's concept. No picture bears one where all are labelled by the
    /// nearest entity.
    fn concepts(&self, categories: &Categories) -> Vec<Option<u16>> {
        let position = |id: &String| {
            let place = categories.names.iter().position(|name| name == id);
            place.and_then(|place| u16::try_from(place).ok())
        };
        let own = |one: &&Opened| position(&one.input.concept.id);
        match self.labels {
            Labels::Own => self.settlements.iter().map(own).collect(),
            Labels::Nearest => vec![None; self.settlements.len()],
        }
    }

    /// How far an entity still answers its name: after the last settlement, over before the first. Not
    /// told where censuses know different concepts: what the one finds answers to another's name there.
    fn answers(&self, id: &str) -> Option<f64> {
        if self.labels == Labels::Nearest {
            return None;
        }
        let asked = |one: &Opened| {
            let facets = &one.report.facets;
            let home = facets.iter().find(|facet| facet.id == one.input.concept.facet)?;
            let entity = home.entities.iter().find(|entity| entity.id == id)?;
            Some((entity.obedience_b?, entity.obedience_a?))
        };
        let (before, _) = asked(self.first).filter(|(before, _)| *before > 0.0)?;
        let (_, after) = asked(self.settlements.last()?)?;
        Some(after / before)
    }
}

/// Who holds each place, prompt after prompt, on the seeds that every state drew.
fn places(states: &[(&CensusInput, Model)], categories: &Categories) -> Result<Places, EvalError> {
    let mut places =
        Places { lengths: Vec::new(), weights: Vec::new(), states: vec![Vec::new(); states.len()] };
    let Some((first, _)) = states.first() else { return Ok(places) };
    for prompt in first.panel.prompts().filter(|prompt| prompt.stratum.is_headline()) {
        let mut drawn = Vec::new();
        for (input, model) in states {
            drawn.push(labels(input, *model, &prompt.id, categories)?);
        }
        let in_all = |seed: &&u32| drawn.iter().all(|labels| labels.contains_key(seed));
        let seeds: Vec<u32> = drawn[0].keys().filter(in_all).copied().collect();
        if seeds.is_empty() {
            continue;
        }
        for (state, labels) in places.states.iter_mut().zip(&drawn) {
            state.extend(seeds.iter().filter_map(|seed| labels.get(seed)));
        }
        places.lengths.push(seeds.len());
        places.weights.push(first.panel.weight(&prompt.id));
    }
    let total: f64 = places.weights.iter().sum();
    for weight in &mut places.weights {
        *weight /= total.max(f64::MIN_POSITIVE);
    }
    Ok(places)
}

/// Category of each picture of a prompt by one model, by seed.
fn labels(
    input: &CensusInput,
    model: Model,
    prompt: &str,
    categories: &Categories,
) -> Result<BTreeMap<u32, u16>, EvalError> {
    let rows = input.rows.rows.iter().filter(|row| row.model == model && row.prompt == prompt);
    rows.map(|row| Ok((row.seed_idx, categories.of(row)?))).collect()
}
