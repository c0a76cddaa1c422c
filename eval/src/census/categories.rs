//! The categories of a facet: its counted entities, the concept if it enters, ∅ and withheld pictures.

use super::CensusInput;
use super::pairs::{Pictures, PromptPairs};
use crate::error::EvalError;
use crate::rows::Row;
use crate::thesaurus::{BLOCKED, Facet, NONE};
use statistics::contingency::{Block, PairedLabels};

/// What a picture can be counted as in one facet.
#[derive(Clone, Debug)]
pub(crate) struct Categories {
    facet_idx: usize,
    /// Counted entities in thesaurus order, the concept if it enters, ∅, withheld.
    pub(crate) names: Vec<String>,
    /// Position of the concept, if it enters this facet.
    pub(super) new: Option<usize>,
    /// The entities that were there before: neither the concept, nor ∅, nor withheld pictures.
    pub(super) residents: Vec<bool>,
}

impl Categories {
    /// Those of the facet that the concept enters.
    ///
    /// # Errors
    ///
    /// [`EvalError::Unpaired`] if there is no such facet.
    pub(crate) fn of_concept(input: &CensusInput) -> Result<Self, EvalError> {
        let id = &input.concept.facet;
        let facet = input.thesaurus.facets.iter().find(|facet| facet.id == *id);
        let facet = facet.ok_or_else(|| EvalError::Unpaired(format!("no facet `{id}`")))?;
        Self::new(input, facet)
    }

    pub(super) fn new(input: &CensusInput, facet: &Facet) -> Result<Self, EvalError> {
        let facet_idx = input
            .rows
            .facets
            .iter()
            .position(|other| *other == facet.id)
            .ok_or_else(|| EvalError::Unpaired(format!("rows have no facet `{}`", facet.id)))?;
        let mut names: Vec<String> =
            input.thesaurus.counted(&facet.id).map(|entity| entity.id.clone()).collect();
        let enters = input.concept.facet == facet.id;
        if enters && !names.contains(&input.concept.id) {
            names.push(input.concept.id.clone());
        }
        names.extend([NONE.to_owned(), BLOCKED.to_owned()]);
        let new = names.iter().position(|name| enters && *name == input.concept.id);
        let resident = |(i, name): (usize, &String)| {
            Some(i) != new && !matches!(name.as_str(), NONE | BLOCKED)
        };
        let residents = names.iter().enumerate().map(resident).collect();
        Ok(Self { facet_idx, names, new, residents })
    }

    /// Category of a row in this facet.
    pub(crate) fn of(&self, row: &Row) -> Result<u16, EvalError> {
        let entity = row.labels.get(self.facet_idx).map_or("", |label| label.entity.as_str());
        let found = if row.blocked { BLOCKED } else { entity };
        self.names
            .iter()
            .position(|category| category == found)
            .and_then(|i| u16::try_from(i).ok())
            .ok_or_else(|| {
                EvalError::Unpaired(format!(
                    "`{}`, seed {}: label `{found}` is not of the thesaurus",
                    row.prompt, row.seed_idx
                ))
            })
    }

    /// Paired labels of several prompts, with those of the placebos.
    pub(super) fn labels(
        &self,
        pictures: &Pictures<'_>,
        prompts: &[PromptPairs<'_>],
    ) -> Result<PairedLabels, EvalError> {
        let read = |rows: &[&Row]| rows.iter().map(|row| self.of(row)).collect();
        let blocks = prompts
            .iter()
            .map(|pairs| {
                let placebos = pictures.placebos_of(pairs)?;
                Ok(Block {
                    weight: pairs.weight,
                    base: read(&pairs.base)?,
                    adapted: read(&pairs.other)?,
                    placebos: placebos.iter().map(|rows| read(rows)).collect::<Result<_, _>>()?,
                })
            })
            .collect::<Result<_, EvalError>>()?;
        Ok(PairedLabels { n_categories: self.names.len(), blocks })
    }
}
