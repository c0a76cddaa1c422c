//! Known answer of the kitsch gauge: a word's typicality is −log of its share.

use crate::answer::{Answer, Check};
use crate::worlds::ring::{Ring, SIX};
use crate::worlds::schedule::even_in_gamma;
use eval::EvalError;
use eval::noising::{Grid, Samples, keyed_noise};
use rayon::prelude::*;
use serde_json::json;
use statistics::number::mean;

/// Pictures of each entity, and of each part that runs by itself.
const PICTURES: u64 = 4000;
const PART: u64 = 250;

/// KAT `typicality`: on pictures of one entity, told the entity, T is −log of its share: rare words
/// score high by themselves.
///
/// # Errors
///
/// None: the world is valid.
pub fn typicality(seed: u64) -> Result<Answer, EvalError> {
    let known = [1.050, 1.386, 1.609, 1.897, 2.996];
    let mut checks = Vec::new();
    for (entity, known) in known.into_iter().enumerate() {
        let found = mean(&of_entity(entity, seed)?).unwrap_or(f64::NAN);
        checks.push(Check::new(format!("typicality of entity {entity}"), found, known, 0.04));
    }
    Ok(Answer {
        name: "typicality",
        checks,
        inputs: json!({ "shares": SIX, "pictures": PICTURES, "levels": 401 }),
    })
}

/// T(x|c) of clean samples of one entity.
fn of_entity(entity: usize, seed: u64) -> Result<Vec<f64>, EvalError> {
    let grid = Grid::trapezoid(even_in_gamma(-12.0, 8.0, 401));
    let noise = keyed_noise(seed, 2);
    let word = entity.to_string();
    let part = |number: u64| -> Result<Vec<f64>, EvalError> {
        let mut ring = Ring::six(SIX);
        // Keys of different entities differ, so that no two share their noise.
        let first = (entity as u64) * PICTURES + number * PART;
        let keys: Vec<u64> = (first..first + PART).collect();
        let values: Vec<f64> =
            keys.iter().flat_map(|&key| ring.sample(entity, seed, key)).collect();
        let samples = Samples { values: &values, keys: &keys };
        eval::typicality::typicality(&mut ring, &word, samples, &grid, &noise)
    };
    let parts: Vec<Vec<f64>> =
        (0..PICTURES / PART).into_par_iter().map(part).collect::<Result<_, _>>()?;
    Ok(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typicality_is_minus_the_log_of_the_share() {
        let answer = typicality(1).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
        for (check, share) in answer.checks.iter().zip(SIX) {
            let expected = check.expected.unwrap();
            assert!((expected + share.ln()).abs() < 1e-3, "{check:?}");
        }
    }
}
