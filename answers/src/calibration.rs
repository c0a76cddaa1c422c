//! Known answers of calibrated counting: one confusion matrix per model, from verified pictures only;
//! labels of a person; the two rates of a detector.

use crate::answer::{Answer, Check};
use eval::EvalError;
use eval::detector::Detector;
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use serde_json::{Value, json};
use statistics::calibrate::{Confusion, simplex_least_squares};
use statistics::contingency::difference;
use statistics::drawn::categorical;
use statistics::number::{mean, real, real_u64};
use statistics::prediction_powered::prediction_powered;

/// A matrix `m[j][i]`: label `j` given truth `i`.
type Matrix = Vec<Vec<f64>>;
/// Change of shares that a correction finds, from two matrices and the labels' shares in B and in A.
type Correction<'a> = &'a (dyn Fn([&Matrix; 2], [&[f64]; 2]) -> Vec<f64> + Sync);

/// Entities of `quantify` and `disobey`; the last is the newcomer.
const ENTITIES: usize = 5;
/// Pictures whose labels are counted.
const PICTURES: u64 = 4000;
/// Shares in the base.
const BASE: [f64; ENTITIES] = [0.4, 0.3, 0.2, 0.1, 0.0];

/// .05 + .75·I: four pictures in five are labelled rightly, the rest evenly.
fn evaluator() -> Matrix {
    let cell = |j: usize, i: usize| if i == j { 0.8 } else { 0.05 };
    (0..ENTITIES).map(|j| (0..ENTITIES).map(|i| cell(j, i)).collect()).collect()
}

/// M·p.
fn applied(m: &[Vec<f64>], p: &[f64]) -> Vec<f64> {
    m.iter().map(|row| row.iter().zip(p).map(|(a, b)| a * b).sum()).collect()
}

/// How often each category comes in `n` draws from `p`.
fn counts(p: &[f64], n: u64, stream: &mut draws::Stream) -> Vec<u64> {
    let mut counts = vec![0; p.len()];
    for _ in 0..n {
        counts[categorical(p, stream)] += 1;
    }
    counts
}

fn shares(p: &[f64], stream: &mut draws::Stream) -> Vec<f64> {
    let counts = counts(p, PICTURES, stream);
    counts.into_iter().map(|count| real_u64(count) / real_u64(PICTURES)).collect()
}

/// The matrix that a panel of `n` pictures per truth counts.
fn panel(m: &[Vec<f64>], n: u64, stream: &mut draws::Stream) -> Matrix {
    let label = |truth: usize| m.iter().map(|row| row[truth]).collect::<Vec<f64>>();
    let confusion = Confusion {
        entities: (0..ENTITIES).map(|i| i.to_string()).collect(),
        counts: (0..ENTITIES).map(|truth| counts(&label(truth), n, stream)).collect(),
    };
    confusion.matrix().unwrap_or_default()
}

/// `p̂_A − p̂_B`, each model corrected by its own matrix: the first is B's, the second A's.
fn own_matrices([m_b, m_a]: [&Matrix; 2], [q_b, q_a]: [&[f64]; 2]) -> Vec<f64> {
    difference(&simplex_least_squares(m_a, q_a), &simplex_least_squares(m_b, q_b))
}

/// `p̂_A − p̂_B`, both corrected by the matrix of B.
fn shared_matrix([m_b, _]: [&Matrix; 2], shares: [&[f64]; 2]) -> Vec<f64> {
    own_matrices([m_b, m_b], shares)
}

/// What went into one repetition, and the changes that it found, one list per way of counting.
struct Repetition {
    matrices: [Matrix; 2],
    shares: [Vec<f64>; 2],
    found: Vec<Vec<f64>>,
}

impl Repetition {
    fn to_json(&self) -> Value {
        json!({
            "matrices": self.matrices, "shares_b": self.shares[0], "shares_a": self.shares[1],
            "found": self.found,
        })
    }
}

/// Mean change per way of counting and entity.
fn averages(repetitions: &[Repetition]) -> Vec<Vec<f64>> {
    let ways = repetitions.first().map_or(0, |first| first.found.len());
    let average = |way: usize, entity: usize| {
        let values: Vec<f64> = repetitions.iter().map(|one| one.found[way][entity]).collect();
        mean(&values).unwrap_or(f64::NAN)
    };
    (0..ways).map(|way| (0..ENTITIES).map(|entity| average(way, entity)).collect()).collect()
}

/// KAT `quantify`, 500 repetitions: the evaluator mistakes half of entity 2 in A, so that each model
/// needs its own matrix; with one for both, entity 2 seems to lose twice of what it lost.
///
/// The shares lie on the simplex, which lifts the newcomer's estimate in B above its true 0; the mean
/// of its change is .004 too low for any N that is not far larger.
///
/// # Errors
///
/// None.
pub fn quantify(seed: u64) -> Result<Answer, EvalError> {
    Ok(quantify_with(seed, &own_matrices))
}

fn quantify_with(seed: u64, correction: Correction<'_>) -> Answer {
    const ADAPTED: [f64; ENTITIES] = [0.28, 0.21, 0.14, 0.07, 0.30];
    let (m_b, mut m_a) = (evaluator(), evaluator());
    for (row, value) in m_a.iter_mut().zip([0.25, 0.05, 0.50, 0.10, 0.10]) {
        row[2] = value;
    }
    let one = |repetition: u64| {
        let stream = &mut draws::stream(seed, repetition, 0, Purpose::Scene);
        let matrices = [panel(&m_b, 200, stream), panel(&m_a, 200, stream)];
        let shares =
            [shares(&applied(&m_b, &BASE), stream), shares(&applied(&m_a, &ADAPTED), stream)];
        let (pair, labels) = ([&matrices[0], &matrices[1]], [&shares[0][..], &shares[1][..]]);
        let raw = difference(labels[1], labels[0]);
        let found = vec![raw, shared_matrix(pair, labels), correction(pair, labels)];
        Repetition { matrices, shares, found }
    };
    let repetitions: Vec<Repetition> = (0..500).into_par_iter().map(one).collect();
    let found = averages(&repetitions);
    let mut checks = Vec::new();
    for (way, name, expected) in [
        (0, "raw", [-0.062, -0.068, -0.087, -0.016, 0.232]),
        (1, "one matrix", [-0.083, -0.090, -0.116, -0.021, 0.309]),
        (2, "own matrices", [-0.12, -0.09, -0.06, -0.03, 0.30]),
    ] {
        for (entity, expected) in expected.into_iter().enumerate() {
            let at_the_edge = way > 0 && entity == ENTITIES - 1;
            let tolerance = if at_the_edge { 0.01 } else { 0.005 };
            let what = format!("Δ of entity {entity}, {name}");
            checks.push(Check::new(what, found[way][entity], expected, tolerance));
        }
    }
    let inputs = json!({
        "m_b": m_b, "m_a": m_a, "p_b": BASE, "p_a": ADAPTED, "pictures": PICTURES, "per_truth": 200,
        "repetitions": 500, "ways": ["raw", "one matrix", "own matrices"],
        "first": repetitions.first().map(Repetition::to_json),
    });
    Answer { name: "quantify", checks, inputs }
}

/// KAT `disobey`, 300 repetitions: the evaluator is the same in both models, but A, asked for entity
/// 2, draws the newcomer half the time. Asks that nobody verified hide a true loss of .10; verified
/// pictures find it.
///
/// # Errors
///
/// None.
pub fn disobey(seed: u64) -> Result<Answer, EvalError> {
    Ok(disobey_with(seed, &|[verified, _], shares| own_matrices([verified, verified], shares)))
}

/// `correction` gets the matrix of verified pictures and the one that A's unverified asks count.
fn disobey_with(seed: u64, correction: Correction<'_>) -> Answer {
    const ADAPTED: [f64; ENTITIES] = [0.32, 0.24, 0.10, 0.08, 0.26];
    let errors = evaluator();
    // Half of what was asked as entity 2 is the newcomer, and is labelled as such.
    let mixed = |row: &Vec<f64>| {
        let mut row = row.clone();
        row[2] = f64::midpoint(row[2], row[ENTITIES - 1]);
        row
    };
    let asked: Matrix = errors.iter().map(mixed).collect();
    let one = |repetition: u64| {
        let stream = &mut draws::stream(seed, repetition, 1, Purpose::Scene);
        let matrices = [panel(&errors, 300, stream), panel(&asked, 300, stream)];
        let shares =
            [shares(&applied(&errors, &BASE), stream), shares(&applied(&errors, &ADAPTED), stream)];
        let (pair, labels) = ([&matrices[0], &matrices[1]], [&shares[0][..], &shares[1][..]]);
        let found = vec![own_matrices(pair, labels), correction(pair, labels)];
        Repetition { matrices, shares, found }
    };
    let repetitions: Vec<Repetition> = (0..300).into_par_iter().map(one).collect();
    let found = averages(&repetitions);
    let new = ENTITIES - 1;
    let checks = vec![
        Check::new("Δ of entity 2, unverified", found[0][2], 0.001, 0.01),
        Check::new("Δ of the newcomer, unverified", found[0][new], 0.158, 0.01),
        Check::new("Δ of entity 2, verified", found[1][2], -0.101, 0.01),
        Check::new("Δ of the newcomer, verified", found[1][new], 0.259, 0.01),
    ];
    let inputs = json!({
        "verified": errors, "asked": asked, "p_b": BASE, "p_a": ADAPTED, "pictures": PICTURES,
        "per_truth": 300, "repetitions": 300, "ways": ["unverified", "verified"],
        "first": repetitions.first().map(Repetition::to_json),
    });
    Answer { name: "disobey", checks, inputs }
}

/// KAT `ppi`, 2000 repetitions: 4000 pictures are labelled by an evaluator of tpr .8 and fpr .06, 150
/// of them also by a person. The raw share is .134, the corrected one the true .10.
///
/// The other model of each pair bears nothing, so that the difference is the share itself.
///
/// # Errors
///
/// None.
pub fn ppi(seed: u64) -> Result<Answer, EvalError> {
    let one = |repetition: u64| powered(&doubly_judged(seed, repetition));
    let found: Vec<[f64; 4]> = (0..2000_u64).into_par_iter().map(one).collect();
    let column = |i: usize| found.iter().map(|values| values[i]).collect::<Vec<f64>>();
    let average = |i: usize| mean(&column(i)).unwrap_or(f64::NAN);
    let deviation = |i: usize| {
        let (values, center) = (column(i), average(i));
        let squares: f64 = values.iter().map(|value| (value - center) * (value - center)).sum();
        libm::sqrt(squares / real(values.len() - 1))
    };
    let checks = vec![
        Check::new("raw share", average(0), 0.134, 0.003),
        Check::new("corrected share", average(1), 0.1002, 0.003),
        Check::new("deviation of the corrected share", deviation(1), 0.022, 0.002),
        Check::new("deviation of the person's labels alone", deviation(2), 0.025, 0.002),
        Check::new("told error of the corrected share", average(3), deviation(1), 0.002),
    ];
    let first = doubly_judged(seed, 0);
    let seen: f64 = first.iter().map(|[_, seen]| seen).sum();
    let labelled = &first[..LABELLED];
    let inputs = json!({
        "share": 0.10, "tpr": 0.8, "fpr": 0.06, "pictures": PICTURES, "repetitions": 2000,
        "first": { "seen": seen, "labelled": labelled, "found": powered(&first) },
    });
    Ok(Answer { name: "ppi", checks, inputs })
}

/// Pictures of `ppi` that a person judges as well.
const LABELLED: usize = 150;

/// Truth and the evaluator's judgement of every picture of one repetition, each 0 or 1.
fn doubly_judged(seed: u64, repetition: u64) -> Vec<[f64; 2]> {
    let stream = &mut draws::stream(seed, repetition, 2, Purpose::Scene);
    let mut picture = || {
        let truth = draws::uniform(stream) < 0.10;
        let seen = draws::uniform(stream) < if truth { 0.8 } else { 0.06 };
        [truth, seen].map(|bears| f64::from(u8::from(bears)))
    };
    (0..PICTURES).map(|_| picture()).collect()
}

/// Raw share, corrected share, the person's share alone, and the error told of the corrected one.
fn powered(pictures: &[[f64; 2]]) -> [f64; 4] {
    let seen: Vec<f64> = pictures.iter().map(|[_, seen]| *seen).collect();
    let by_both = pictures[..LABELLED].iter();
    let labelled: Vec<(f64, f64)> = by_both.map(|[truth, seen]| (*seen, *truth)).collect();
    let truth: Vec<f64> = labelled.iter().map(|(_, truth)| *truth).collect();
    let found = prediction_powered(&seen, &labelled);
    let [value, error] = found.map_or([f64::NAN; 2], |found| [found.value, found.error]);
    let average = |values: &[f64]| mean(values).unwrap_or(f64::NAN);
    [average(&seen), value, average(&truth), error]
}

/// KAT `detector`: the share behind a detector's rate, and the two refusals.
///
/// # Errors
///
/// None.
pub fn detector(_seed: u64) -> Result<Answer, EvalError> {
    let detector = Detector {
        threshold: 0.8,
        found: 92,
        references: 100,
        false_alarms: 10,
        base_pictures: 1000,
    };
    let corrected = |q: f64| detector.correct(q).unwrap_or(f64::NAN);
    let refused = |detector: Detector| f64::from(u8::from(detector.correct(0.1).is_err()));
    let blind = Detector { found: 20, ..detector };
    let few = Detector { found: 4, references: 4, ..detector };
    let checks = vec![
        Check::new("share behind a rate of .02", corrected(0.02), 0.010_989, 1e-6),
        Check::new("share behind a rate of .10", corrected(0.10), 0.098_901, 1e-6),
        Check::new("share behind a rate below fpr", corrected(0.005), 0.0, 0.0),
        Check::new("refused if tpr − fpr is below .3", refused(blind), 1.0, 0.0),
        Check::new("refused with four references", refused(few), 1.0, 0.0),
    ];
    let inputs = json!({ "tpr": 0.92, "fpr": 0.01, "rates": [0.02, 0.10, 0.005] });
    Ok(Answer { name: "detector", checks, inputs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_matrix_for_both_models_is_caught() {
        let shared = quantify_with(1, &shared_matrix);
        let wrong: Vec<&str> =
            shared.checks.iter().filter(|check| !check.holds()).map(|c| c.what.as_str()).collect();
        assert!(wrong.contains(&"Δ of entity 2, own matrices"), "{wrong:?}");
    }

    #[test]
    fn asks_that_nobody_verified_are_caught() {
        let unverified = disobey_with(1, &own_matrices);
        let wrong: Vec<&str> = unverified
            .checks
            .iter()
            .filter(|check| !check.holds())
            .map(|check| check.what.as_str())
            .collect();
        assert_eq!(wrong, ["Δ of entity 2, verified", "Δ of the newcomer, verified"]);
    }

    #[test]
    fn models_in_the_wrong_order_are_caught() {
        let swapped = |[m_b, m_a]: [&Matrix; 2], [q_b, q_a]: [&[f64]; 2]| {
            own_matrices([m_a, m_b], [q_a, q_b])
        };
        assert!(!quantify_with(1, &swapped).holds());
    }
}
