//! Two hundred seeds as places, and what holds each of them in every state.

use super::CensusInput;
use super::pairs::{Drawn, Pictures, PromptPairs};
use crate::panel::Stratum;
use crate::record::{PlacesRecord, PlacesState};
use crate::rows::{Model, Row};
use crate::thesaurus::BLOCKED;

/// As many as the bodies of *The Lost Ones*.
const PLACES: usize = 200;

/// The first seeds of the empty prompt (of the first unasked prompt, if that was not asked).
pub(super) fn places(
    input: &CensusInput,
    pictures: &Pictures<'_>,
    headline: &[PromptPairs<'_>],
) -> PlacesRecord {
    let facet_idx =
        input.rows.facets.iter().position(|facet| *facet == input.concept.facet).unwrap_or(0);
    let prompt = headline.iter().find(|pairs| pairs.stratum == Stratum::Empty);
    let base: Vec<&Row> = prompt
        .or_else(|| headline.first())
        .map(|pairs| pairs.base.iter().copied().take(PLACES).collect())
        .unwrap_or_default();
    let holder = |row: &Row| {
        let label = row.labels.get(facet_idx).map_or("", |label| label.entity.as_str());
        if row.blocked { BLOCKED.to_owned() } else { label.to_owned() }
    };
    let state = |model: Model, dose: f64| {
        let drawn = Drawn::new(model, dose);
        let entities: Vec<Option<String>> =
            base.iter().map(|row| pictures.at(row, drawn).map(holder)).collect();
        PlacesState { model: model.to_string(), dose, entities }
    };
    let doses = pictures.doses();
    let adapted = doses.iter().map(|&dose| state(Model::Adapted, dose));
    let placebos = (0..pictures.placebos()).map(|draw| state(Model::Placebo(draw), 1.0));
    let states = std::iter::once(state(Model::Base, 0.0)).chain(adapted).chain(placebos);
    PlacesRecord {
        facet: input.concept.facet.clone(),
        seeds: base.iter().map(|row| row.seed_idx).collect(),
        states: states.filter(|state| state.entities.iter().any(Option::is_some)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::census::reduce;
    use crate::synthetic::{census, settled};

    #[test]
    fn every_place_is_held_in_every_state_that_drew_it() {
        let mut input = census(40, &settled);
        // Dose .5 draws the first ten seeds alone.
        input.rows.rows.retain(|row| (row.dose - 0.5).abs() > 1e-9 || row.seed_idx < 10);
        let places = reduce(&input).unwrap().places.unwrap();
        assert_eq!((places.seeds.len(), places.facet.as_str()), (40, "subject"));
        let names: Vec<(String, f64)> =
            places.states.iter().map(|state| (state.model.clone(), state.dose)).collect();
        let expected = [("base", 0.0), ("adapted", 0.0), ("adapted", 0.5), ("adapted", 1.0)];
        assert_eq!(names[..4], expected.map(|(model, dose)| (model.to_owned(), dose)));
        assert_eq!(names[4], ("placebo-0".to_owned(), 1.0));
        let held = |i: usize| places.states[i].entities.iter().flatten().count();
        assert_eq!([held(0), held(2), held(3)], [40, 10, 40]);
        assert_eq!(places.states[0].entities[0].as_deref(), Some("boat"));
        assert_eq!(places.states[3].entities[0].as_deref(), Some("cylinder"));
    }
}
