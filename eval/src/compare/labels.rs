//! How pictures of several censuses are labelled, so that equal pictures count as equal.

use super::opened::Opened;
use crate::census::CensusInput;
use crate::census::categories::Categories;
use crate::error::EvalError;
use crate::evaluator::nearest;
use crate::rows::Label;
use crate::thesaurus::BLOCKED;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How pictures are labelled in the concept's facet.
///
/// Each census has a detector for its own concept alone, set by pictures of its own base. Where two
/// censuses know different concepts or references, or lie on different bases, one picture may bear a concept in the
/// one and whatever the evaluator makes of it in the other, perhaps nothing at all: labels would then
/// differ where pictures do not. Pictures of such censuses are therefore all labelled by one rule
/// that asks nothing but the evaluator and the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// As each census labelled its own: entities, the concept where its detector found it, none of these.
    Own,
    /// By the nearest entity of the facet, whatever a detector found and however far that is; ties to
    /// the first of the thesaurus. No picture bears a concept, and none bears nothing. What a filter
    /// withheld stays so.
    Nearest,
}

impl Labels {
    /// How pictures of these censuses can be compared.
    pub(super) fn of(all: &[&Opened]) -> Self {
        let alike = all.windows(2).all(|pair| {
            pair[0].base() == pair[1].base()
                && pair[0].input.concept.id == pair[1].input.concept.id
                && pair[0].input.detector == pair[1].input.detector
        });
        if alike { Self::Own } else { Self::Nearest }
    }

    /// The census with every picture labelled so.
    ///
    /// # Errors
    ///
    /// [`EvalError::Unpaired`] if rows lack the facet, or cosines with its entities.
    pub(super) fn read(self, input: &CensusInput) -> Result<Cow<'_, CensusInput>, EvalError> {
        match self {
            Self::Own => Ok(Cow::Borrowed(input)),
            Self::Nearest => by_nearest(input).map(Cow::Owned),
        }
    }

    /// What a picture can be counted as in the concept's facet.
    ///
    /// # Errors
    ///
    /// [`EvalError::Unpaired`] if there is no such facet.
    pub(super) fn categories(self, input: &CensusInput) -> Result<Categories, EvalError> {
        let mut categories = Categories::of_concept(input)?;
        if self == Self::Nearest {
            let counted = |id: &str| {
                input.thesaurus.counted(&input.concept.facet).any(|entity| entity.id == id)
            };
            categories.names.retain(|name| name == BLOCKED || counted(name));
        }
        Ok(categories)
    }
}

/// Labels every picture by the nearest entity of the concept's facet.
fn by_nearest(input: &CensusInput) -> Result<CensusInput, EvalError> {
    let facet = &input.concept.facet;
    let lack = |what: &str| EvalError::Unpaired(format!("rows have no {what}"));
    let place = input.rows.facets.iter().position(|other| other == facet);
    let place = place.ok_or_else(|| lack(&format!("facet `{facet}`")))?;
    let column = |id: &String| {
        let column = input.rows.entities.iter().position(|other| other == id);
        column.ok_or_else(|| lack(&format!("cosines with `{id}`")))
    };
    let entities = input.thesaurus.counted(facet).map(|entity| column(&entity.id));
    let entities: Vec<usize> = entities.collect::<Result<_, _>>()?;
    if entities.is_empty() {
        return Err(lack(&format!("entities of `{facet}`")));
    }
    let mut alike = input.clone();
    for row in alike.rows.rows.iter_mut().filter(|row| !row.blocked) {
        let (best, margin) = nearest(&entities, &row.cosines);
        if let Some(label) = row.labels.get_mut(place) {
            *label = Label { entity: input.rows.entities[best].clone(), margin };
        }
    }
    Ok(alike)
}
