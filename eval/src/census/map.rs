//! The map: how much was depopulated, dose by dose, beside the placebo.

use super::CensusInput;
use super::categories::Categories;
use super::pairs::{Drawn, Pictures};
use crate::error::EvalError;
use crate::record::{MapKind, MapPoint};
use crate::rows::Model;
use statistics::contingency::{PairedLabels, Shares};
use statistics::depopulation::{smoothed, split};
use statistics::interval::{Estimate, basic, sign_flip};
use statistics::number::real;

/// All models and doses that drew unasked pictures; with the fabric where it was measured.
pub(super) fn points(
    input: &CensusInput,
    pictures: &Pictures<'_>,
) -> Result<Vec<MapPoint>, EvalError> {
    let facet = input.thesaurus.facets.iter().find(|facet| facet.id == input.concept.facet);
    let Some(facet) = facet else { return Ok(Vec::new()) };
    let categories = Categories::new(input, facet)?;
    let doses = pictures.doses();
    let adapted = doses.iter().filter(|dose| **dose != 0.0).map(|&dose| (Model::Adapted, dose));
    let placebos = (0..pictures.placebos()).map(|draw| (Model::Placebo(draw), 1.0));
    // Nothing was asked by name at other doses, nor of a placebo.
    let fabric = input.measured.fabric.as_ref().and_then(|fabric| fabric.tree.ratio);
    let mut points = Vec::new();
    for (model, dose) in adapted.chain(placebos) {
        let prompts = pictures.headline(&input.panel, Drawn::new(model, dose))?;
        let mut labels = categories.labels(pictures, &prompts)?;
        // The placebos of the pairs are points of their own.
        labels.blocks.iter_mut().for_each(|block| block.placebos.clear());
        if labels.n_pairs() == 0 {
            continue;
        }
        points.push(MapPoint {
            kind: match model {
                Model::Placebo(_) => MapKind::Placebo,
                Model::Base | Model::Adapted if model.is_settlement(dose) => MapKind::Settlement,
                Model::Base | Model::Adapted => MapKind::Dose,
            },
            name: match model {
                Model::Placebo(_) => model.to_string(),
                Model::Base | Model::Adapted => input.concept.name.clone(),
            },
            dose,
            nats: nats(input, &categories, &labels),
            fabric: fabric.filter(|_| model.is_settlement(dose)),
        });
    }
    Ok(points)
}

/// Dilution + selection, with an interval that holds 0 unless sign flips say that something happened.
fn nats(input: &CensusInput, categories: &Categories, labels: &PairedLabels) -> Estimate {
    let n = real(labels.n_pairs());
    let table = labels.table();
    let seen: Vec<bool> = (0..table.len())
        .map(|i| table[i].iter().sum::<u64>() + table.iter().map(|row| row[i]).sum::<u64>() > 0)
        .collect();
    let both = |before: &[f64], after: &[f64]| {
        let parts = split(&smoothed(before, &seen, n), &smoothed(after, &seen, n), categories.new);
        parts.dilution + parts.selection
    };
    let of = |shares: &Shares| both(&shares.base, &shares.adapted);
    let value = of(&labels.shares(None));
    let (resampler, lengths) = (input.resampler(), labels.lengths());
    let drawn: Vec<f64> = (0..resampler.draws)
        .map(|draw| of(&labels.shares(Some(&resampler.positions(draw, &lengths)))))
        .collect();
    let flips = sign_flip(input.seed, input.flips, labels.n_pairs(), &|flips| {
        let (base, adapted) = labels.flipped(flips);
        vec![both(&base, &adapted)]
    });
    basic(value, &drawn, 0.0).grounded(flips.p[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::reduce;
    use crate::synthetic::{census, settled};

    #[test]
    fn the_map_holds_the_settlement_its_doses_and_the_placebo() {
        let report = reduce(&census(120, &settled)).unwrap();
        let kinds: Vec<(MapKind, f64)> = report.map.iter().map(|p| (p.kind, p.dose)).collect();
        let expected = [(MapKind::Dose, 0.5), (MapKind::Settlement, 1.0), (MapKind::Placebo, 1.0)];
        assert_eq!(kinds, expected);
        let subject = &report.facets[0];
        let nats = subject.dilution.value + subject.selection.value;
        assert!((report.map[1].nats.value - nats).abs() < 1e-12, "{:?}", report.map);
        assert!(report.map[0].nats.value < nats);
        let placebo = report.map[2].nats;
        assert!(placebo.value.abs() < 1e-12 && placebo.ci.is_none_or(|ci| ci[0] <= 0.0));
    }
}
