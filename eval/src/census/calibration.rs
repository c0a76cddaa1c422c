//! The base's shares, corrected for what the evaluator is known to get wrong.

use super::CensusInput;
use super::facet::Analysis;
use crate::record::{CalibrationRecord, Refusal};
use crate::thesaurus::Facet;
use recipes::draws;
use statistics::calibrate::{LARGEST_CONDITION, LEAST_VERIFIED, condition, simplex_least_squares};
use statistics::contingency::{Shares, total_variation};
use statistics::interval::basic;

/// Replicates that the interval of the corrected distance uses; each solves a least-squares problem.
const REPLICATES: usize = 200;

/// Corrects the base's shares by the facet's verified confusion matrix, if there is one.
///
/// The matrix was made from pictures of the base's world, so only the base is corrected: an adapted
/// model needs verified pictures of its own.
pub(super) fn base(
    input: &CensusInput,
    facet: &Facet,
    analysis: &Analysis<'_>,
    refused: &mut Vec<Refusal>,
) -> Option<CalibrationRecord> {
    let mut refuse = |reason: String| {
        refused.push(Refusal { what: format!("calibration of {}", facet.id), reason });
        None
    };
    let Some((_, confusion)) = input.confusions.iter().find(|(id, _)| *id == facet.id) else {
        return refuse("no verified pictures: raw counts stand".to_owned());
    };
    let Some(matrix) = confusion.matrix() else {
        return refuse(format!("an entity has fewer than {LEAST_VERIFIED} verified pictures"));
    };
    let condition = condition(&matrix);
    if condition > LARGEST_CONDITION {
        return refuse(format!(
            "the confusion matrix has condition number {condition:.1}, above {LARGEST_CONDITION}"
        ));
    }
    let observed = |shares: &[f64]| -> Vec<f64> {
        let read = |id: &String| {
            analysis.categories.iter().position(|c| c == id).map_or(0.0, |i| shares[i])
        };
        let raw: Vec<f64> = confusion.entities.iter().map(read).collect();
        let sum = raw.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        raw.iter().map(|share| share / sum).collect()
    };
    let base = simplex_least_squares(&matrix, &observed(&analysis.shares().base));
    let prior: Option<Vec<f64>> = confusion
        .entities
        .iter()
        .map(|id| input.thesaurus.entity(id).and_then(|entity| entity.prior))
        .collect();
    let tv_to_prior = prior.map(|prior| {
        // The matrix is an estimate as well: it is drawn anew with the pictures.
        let mut stream = draws::keyed(input.seed, &format!("confusion of {}", facet.id));
        let replicate = |shares: &Shares| {
            let redrawn = confusion.resampled(&mut stream).matrix()?;
            let corrected = simplex_least_squares(&redrawn, &observed(&shares.base));
            Some(total_variation(&corrected, &prior))
        };
        let of_pictures = analysis.replicates.iter().take(REPLICATES);
        let drawn: Vec<f64> = of_pictures.filter_map(replicate).collect();
        basic(total_variation(&base, &prior), &drawn, 0.0)
    });
    Some(CalibrationRecord { confusion: confusion.clone(), condition, base, tv_to_prior })
}
