//! Both models' shares, each corrected by a confusion matrix of its own verified pictures. One matrix for
//! both would hide what the adapter does to the way an entity is drawn (known answer `quantify`), and
//! pictures that were asked for but not verified would hide a loss (known answer `disobey`).

use super::CensusInput;
use super::facet::Analysis;
use crate::detector::Detector;
use crate::record::{BeforeAfter, CorrectedEntity, CorrectedRecord, Refusal, VerifiedRecord};
use crate::thesaurus::NONE;
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
    /// Which columns are known: the same in both models, or a correction of the one alone would pass for a
    /// change.
    known: Vec<bool>,
}

impl Layout {
    fn of(
        analysis: &Analysis<'_>,
        verified: &VerifiedRecord,
        detector: Option<&Detector>,
    ) -> Option<Self> {
        let none = analysis.categories.iter().position(|name| name == NONE)?;
        let names: Vec<String> = analysis.categories[..=none].to_vec();
        let new = analysis.new.filter(|new| *new < none);
        let enough = |confusion: &Confusion, name: &str| {
            let row = confusion.place(name);
            row.is_some_and(|row| confusion.counts[row].iter().sum::<u64>() >= LEAST_VERIFIED)
        };
        let known = |(i, name): (usize, &String)| {
            if Some(i) == new {
                return detector.is_some() && verified.references.iter().sum::<u64>() > 0;
            }
            i != none && [&verified.base, &verified.adapted].iter().all(|c| enough(c, name))
        };
        let known = names.iter().enumerate().map(known).collect();
        Some(Self { names, new, none, known })
    }

    /// Shares of all categories but the withheld pictures, which sum to 1.
    fn observed(&self, shares: &[f64]) -> Vec<f64> {
        let kept = &shares[..=self.none];
        let sum = kept.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        kept.iter().map(|share| share / sum).collect()
    }

    /// M\[j\]\[i\] = P(label j given truth i). A column that nothing is known of says that labels are
    /// right: `∅`, whose pictures nobody can ask for, and what has too few confirmed pictures.
    ///
    /// The detector speaks first: it finds the concept, or fires at what is none, at its own rates. What it
    /// lets pass bears what the evaluator says.
    fn matrix(&self, confusion: &Confusion, concept: &Concept<'_>) -> Vec<Vec<f64>> {
        let k = self.names.len();
        let mut matrix = vec![vec![0.0; k]; k];
        let [found, alarms] =
            concept.detector.map_or([0.0; 2], |detector| [detector.tpr(), detector.fpr()]);
        for i in 0..k {
            if !self.known[i] {
                matrix[i][i] = 1.0;
                continue;
            }
            let is_new = Some(i) == self.new;
            let row = confusion.place(&self.names[i]).map(|row| confusion.counts[row].as_slice());
            let counts = if is_new { concept.references } else { row.unwrap_or_default() };
            let rate = if is_new { found } else { alarms };
            for (labels, share) in matrix.iter_mut().zip(self.shares(confusion, counts)) {
                labels[i] = (1.0 - rate) * share;
            }
            matrix[self.new.unwrap_or(i)][i] += rate;
        }
        matrix
    }

    /// Counts of labels, in the order of a confusion matrix, as shares in the order of the categories.
    fn shares(&self, confusion: &Confusion, counts: &[u64]) -> Vec<f64> {
        let total = real_u64(counts.iter().sum::<u64>().max(1));
        let share = |name: &String| {
            let count = confusion.place(name).and_then(|at| counts.get(at));
            count.map_or(0.0, |n| real_u64(*n) / total)
        };
        self.names.iter().map(share).collect()
    }
}

/// What is known of the concept's own labels.
struct Concept<'a> {
    detector: Option<&'a Detector>,
    references: &'a [u64],
}

/// Corrects the shares of both models in the concept's facet, if enough of their pictures were verified.
pub(super) fn corrected(
    input: &CensusInput,
    analysis: &Analysis<'_>,
    refused: &mut Vec<Refusal>,
) -> Option<CorrectedRecord> {
    match attempt(input, analysis) {
        Ok(record) => Some(record),
        Err(reason) => {
            let what = format!("correction of {}", input.concept.facet);
            refused.push(Refusal { what, reason });
            None
        }
    }
}

fn attempt(input: &CensusInput, analysis: &Analysis<'_>) -> Result<CorrectedRecord, String> {
    let verified = input.measured.verified.as_ref();
    let verified = verified.ok_or("no picture asked by name was verified by another evaluator")?;
    // The rule by which the ladder believes the detector's rates.
    let detector = input.detector.as_ref().filter(|detector| detector.correct(0.0).is_ok());
    let layout = Layout::of(analysis, verified, detector).ok_or("the facet has no categories")?;
    let mut entities = (0..layout.none).filter(|i| Some(*i) != layout.new);
    if !entities.any(|i| layout.known[i]) {
        return Err(format!("no entity has {LEAST_VERIFIED} verified pictures in both models"));
    }
    let concept = Concept { detector, references: &verified.references };
    let matrices = [&verified.base, &verified.adapted].map(|one| layout.matrix(one, &concept));
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
    let drawn = replicates(input, analysis, (&layout, detector), &delta);
    let intervals = intervals(input, analysis, &delta, &drawn);
    let lacking = |i: &usize| *i != layout.none && !layout.known[*i];
    Ok(CorrectedRecord {
        condition: BeforeAfter { before: conditions[0], after: conditions[1] },
        uncorrected: (0..layout.names.len())
            .filter(lacking)
            .map(|i| layout.names[i].clone())
            .collect(),
        entities: (0..layout.names.len())
            .map(|i| CorrectedEntity {
                id: layout.names[i].clone(),
                p_b: base[i],
                p_a: adapted[i],
                delta: intervals[i],
            })
            .collect(),
    })
}

/// Simultaneous intervals. What no replicate moves is bounded by what may have been missed.
fn intervals(
    input: &CensusInput,
    analysis: &Analysis<'_>,
    delta: &[f64],
    drawn: &[Vec<f64>],
) -> Vec<Estimate> {
    let never = analysis.never(0.05, delta.len());
    let simultaneous = max_t_by_spread(delta, drawn, 0.95);
    let interval = |(&value, [low, high]): (&f64, [f64; 2])| {
        if high > low {
            let widened = [low, high].map(|end| value + input.widening * (end - value));
            Estimate::with(value, widened, CiKind::MaxT)
        } else {
            Estimate::with(value, [value - never, value + never], CiKind::RuleOfThree)
        }
    };
    delta.iter().zip(simultaneous).map(interval).collect()
}

/// Corrected changes with pictures, confirmed pictures, references and the detector's rates all drawn
/// anew: the error of a matrix is often the larger part. A category that nobody drew stays where it is:
/// what moves it is the solver's rounding.
fn replicates(
    input: &CensusInput,
    analysis: &Analysis<'_>,
    (layout, detector): (&Layout, Option<&Detector>),
    delta: &[f64],
) -> Vec<Vec<f64>> {
    let Some(verified) = &input.measured.verified else { return Vec::new() };
    let mut stream = draws::keyed(input.seed, "verified pictures of both models");
    let references = Confusion { entities: Vec::new(), counts: vec![verified.references.clone()] };
    analysis
        .replicates
        .iter()
        .take(REPLICATES)
        .map(|shares| {
            let detector = detector.map(|detector| detector.resampled(&mut stream));
            let references = references.resampled(&mut stream).counts.swap_remove(0);
            let concept = Concept { detector: detector.as_ref(), references: &references };
            let mut solve = |confusion: &Confusion, observed: &[f64]| {
                let matrix = layout.matrix(&confusion.resampled(&mut stream), &concept);
                simplex_least_squares(&matrix, &layout.observed(observed))
            };
            let before = solve(&verified.base, &shares.base);
            let after = solve(&verified.adapted, &shares.adapted);
            let change = |i: usize| if analysis.seen[i] { after[i] - before[i] } else { delta[i] };
            (0..delta.len()).map(change).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests;
