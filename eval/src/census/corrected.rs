//! Both models' shares, each corrected by a confusion matrix of its own verified pictures. One matrix for
//! both would hide what the adapter does to the way an entity is drawn (known answer `quantify`), and
//! pictures that were asked for but not verified would hide a loss (known answer `disobey`).

use super::CensusInput;
use super::facet::Analysis;
use crate::detector::{Detector, LEAST_REFERENCES};
use crate::record::{BeforeAfter, CorrectedEntity, CorrectedRecord, Refusal, VerifiedRecord};
use crate::thesaurus::{Facet, NONE};
use recipes::draws;
use statistics::calibrate::{
    Confusion, LARGEST_CONDITION, LEAST_VERIFIED, condition, simplex_least_squares,
};
use statistics::interval::{CiKind, Estimate, max_t_by_spread};
use statistics::number::real_u64;

/// Replicates behind the intervals; each solves two least-squares problems.
const REPLICATES: usize = 400;

/// Where the categories of a facet stand in a matrix: all but the withheld pictures.
struct Layout {
    names: Vec<String>,
    new: Option<usize>,
    none: usize,
}

impl Layout {
    fn of(analysis: &Analysis<'_>) -> Option<Self> {
        let none = analysis.categories.iter().position(|name| name == NONE)?;
        let names: Vec<String> = analysis.categories[..=none].to_vec();
        Some(Self { new: analysis.new.filter(|new| *new < none), none, names })
    }

    /// Shares of all categories but the withheld pictures, which sum to 1.
    fn observed(&self, shares: &[f64]) -> Vec<f64> {
        let kept = &shares[..=self.none];
        let sum = kept.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        kept.iter().map(|share| share / sum).collect()
    }

    /// Whether an entity has enough confirmed pictures to be corrected.
    fn is_verified(&self, confusion: &Confusion, category: usize) -> bool {
        confusion
            .place(&self.names[category])
            .is_some_and(|row| confusion.counts[row].iter().sum::<u64>() >= LEAST_VERIFIED)
    }

    /// M\[j\]\[i\] = P(label j given truth i). A column that nothing is known of says that labels are
    /// right: `∅`, whose pictures nobody can ask for, and entities with too few confirmed pictures.
    fn matrix(&self, confusion: &Confusion, concept: &Concept<'_>) -> Vec<Vec<f64>> {
        let k = self.names.len();
        let mut matrix = vec![vec![0.0; k]; k];
        let alarms = concept.detector.map_or(0.0, Detector::fpr);
        for i in 0..k {
            let column = if Some(i) == self.new {
                self.missed(confusion, concept)
            } else if self.is_verified(confusion, i) {
                confusion.place(&self.names[i]).map(|row| {
                    let seen = self.shares(confusion, &confusion.counts[row]);
                    (self.new.unwrap_or(i), alarms, seen)
                })
            } else {
                None
            };
            match column {
                None => matrix[i][i] = 1.0,
                Some((found, rate, seen)) => {
                    for (row, share) in matrix.iter_mut().zip(seen) {
                        row[i] = (1.0 - rate) * share;
                    }
                    matrix[found][i] += rate;
                }
            }
        }
        matrix
    }

    /// The concept's column: found by the detector, else labelled as the evaluator labels references.
    fn missed(
        &self,
        confusion: &Confusion,
        concept: &Concept<'_>,
    ) -> Option<(usize, f64, Vec<f64>)> {
        let detector = concept.detector.filter(|d| d.references >= LEAST_REFERENCES)?;
        let known = concept.references.iter().sum::<u64>() > 0;
        let seen = self.shares(confusion, concept.references);
        known.then_some((self.new?, detector.tpr(), seen))
    }

    /// Counts of labels, in the order of a confusion matrix, as shares in the order of the categories.
    fn shares(&self, confusion: &Confusion, counts: &[u64]) -> Vec<f64> {
        let total = real_u64(counts.iter().sum::<u64>().max(1));
        let share = |name: &String| {
            confusion
                .place(name)
                .and_then(|at| counts.get(at))
                .map_or(0.0, |n| real_u64(*n) / total)
        };
        self.names.iter().map(share).collect()
    }
}

/// What is known of the concept's own labels.
struct Concept<'a> {
    detector: Option<&'a Detector>,
    references: &'a [u64],
}

/// Corrects the shares of both models, if enough of their pictures were verified.
pub(super) fn corrected(
    input: &CensusInput,
    facet: &Facet,
    analysis: &Analysis<'_>,
    refused: &mut Vec<Refusal>,
) -> Option<CorrectedRecord> {
    match attempt(input, facet, analysis) {
        Ok(record) => Some(record),
        Err(reason) => {
            refused.push(Refusal { what: format!("correction of {}", facet.id), reason });
            None
        }
    }
}

fn attempt(
    input: &CensusInput,
    facet: &Facet,
    analysis: &Analysis<'_>,
) -> Result<CorrectedRecord, String> {
    if input.concept.facet != facet.id {
        return Err("only entities of the concept's facet are asked by name".to_owned());
    }
    let verified = input.measured.verified.as_ref();
    let verified = verified.ok_or("no picture asked by name was verified by another evaluator")?;
    let layout = Layout::of(analysis).ok_or("the facet has no categories")?;
    let both = [&verified.base, &verified.adapted];
    let is_entity = |i: &usize| *i != layout.none && Some(*i) != layout.new;
    let entities: Vec<usize> = (0..layout.names.len()).filter(is_entity).collect();
    let lacking = |i: &&usize| both.iter().any(|confusion| !layout.is_verified(confusion, **i));
    let uncorrected: Vec<usize> = entities.iter().filter(lacking).copied().collect();
    if uncorrected.len() == entities.len() {
        return Err(format!("no entity has {LEAST_VERIFIED} verified pictures in both models"));
    }
    let detector = input.detector.as_ref();
    let concept = Concept { detector, references: &verified.references };
    let matrices = both.map(|confusion| layout.matrix(confusion, &concept));
    let conditions = [condition(&matrices[0]), condition(&matrices[1])];
    if let Some(worst) = conditions.into_iter().find(|found| *found > LARGEST_CONDITION) {
        return Err(format!(
            "the confusion matrix has condition number {worst:.1}, above {LARGEST_CONDITION}"
        ));
    }
    let shares = analysis.shares();
    let base = simplex_least_squares(&matrices[0], &layout.observed(&shares.base));
    let adapted = simplex_least_squares(&matrices[1], &layout.observed(&shares.adapted));
    let delta: Vec<f64> = adapted.iter().zip(&base).map(|(a, b)| a - b).collect();
    let drawn = replicates(input, analysis, &layout, verified);
    let intervals = max_t_by_spread(&delta, &drawn, 0.95);
    let entity = |(i, id): (usize, &String)| CorrectedEntity {
        id: id.clone(),
        p_b: base[i],
        p_a: adapted[i],
        delta: if intervals[i][1] > intervals[i][0] {
            Estimate::with(delta[i], intervals[i], CiKind::MaxT)
        } else {
            // A bootstrap in which nothing moves bounds nothing.
            let never = analysis.never(0.05, layout.names.len());
            Estimate::with(delta[i], [delta[i] - never, delta[i] + never], CiKind::RuleOfThree)
        },
    };
    Ok(CorrectedRecord {
        verified: verified.clone(),
        condition: BeforeAfter { before: conditions[0], after: conditions[1] },
        uncorrected: uncorrected.iter().map(|&i| layout.names[i].clone()).collect(),
        entities: layout.names.iter().enumerate().map(entity).collect(),
    })
}

/// Corrected changes with pictures, confirmed pictures, references and the detector's rates all drawn
/// anew: the error of a matrix is often the larger part.
fn replicates(
    input: &CensusInput,
    analysis: &Analysis<'_>,
    layout: &Layout,
    verified: &VerifiedRecord,
) -> Vec<Vec<f64>> {
    let mut stream = draws::keyed(input.seed, "verified pictures of both models");
    let references = Confusion { entities: Vec::new(), counts: vec![verified.references.clone()] };
    analysis
        .replicates
        .iter()
        .take(REPLICATES)
        .map(|shares| {
            let detector = input.detector.map(|detector| detector.resampled(&mut stream));
            let references = references.resampled(&mut stream).counts.swap_remove(0);
            let concept = Concept { detector: detector.as_ref(), references: &references };
            let mut solve = |confusion: &Confusion, observed: &[f64]| {
                let matrix = layout.matrix(&confusion.resampled(&mut stream), &concept);
                simplex_least_squares(&matrix, &layout.observed(observed))
            };
            let before = solve(&verified.base, &shares.base);
            let after = solve(&verified.adapted, &shares.adapted);
            after.iter().zip(&before).map(|(a, b)| a - b).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests;
