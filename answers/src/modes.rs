//! Known answer of modes: what arrived is found without a thesaurus.

use crate::answer::{Answer, Check};
use eval::EvalError;
use eval::modes::{FREQUENCIES, Features, largest, loadings, surplus};
use recipes::draws::{self, Purpose};
use serde_json::json;
use statistics::algebra::{Eigen, add_scaled, cosine, norm, unit};
use statistics::drawn::categorical;
use statistics::number::{real, single};

/// Leading eigenvectors of the surplus of the first rows over η times the second.
type Surplus<'a> = &'a dyn Fn(&[&[f64]], &[&[f64]], f64) -> Eigen;

/// Numbers per picture, pictures per model, spread of a kind.
const WIDTH: usize = 64;
const PICTURES: u64 = 2000;
const SPREAD: f64 = 0.35;
/// Shares of the five kinds of the base; a sixth arrives with a twentieth of all pictures.
const BASE: [f64; 6] = [0.30, 0.25, 0.20, 0.15, 0.10, 0.0];
const ADAPTED: [f64; 6] = [0.285, 0.2375, 0.19, 0.1425, 0.095, 0.05];
/// Pictures looked at, those that load most.
const TOP: usize = 50;

/// KAT `modes`: of six kinds of pictures the base draws five; the sixth, drawn by the adapted model in
/// one picture of twenty, is its leading mode.
///
/// # Errors
///
/// None.
pub fn modes(seed: u64) -> Result<Answer, EvalError> {
    Ok(modes_with(seed, &|more, less, eta| surplus(more, less, eta, 1)))
}

fn modes_with(seed: u64, leading: Surplus<'_>) -> Answer {
    let centers: Vec<Vec<f64>> = (0..6).filter_map(|kind| unit(&random(seed, 0, kind))).collect();
    let (base, _) = pictures(seed, 1, &BASE, &centers);
    let (adapted, kinds) = pictures(seed, 2, &ADAPTED, &centers);
    let mut checks = Vec::new();
    if let Some(features) = Features::new(&base, &adapted, FREQUENCIES, seed) {
        let (before, after) = (features.of_all(&base), features.of_all(&adapted));
        let sixth: Vec<f32> = centers[5].iter().copied().map(single).collect();
        let sixth = features.of(&sixth);
        for (eta, least) in [(1.0, 0.95), (2.0, 0.92)] {
            let eigen = leading(&slices(&after), &slices(&before), eta);
            let Some(vector) = eigen.vectors.first() else { continue };
            let along = cosine(vector, &sixth).map_or(f64::NAN, f64::abs);
            let top = largest(&loadings(&after, vector), TOP);
            let share = real(top.iter().filter(|&&i| kinds[i] == 5).count()) / real(TOP);
            let what = format!("cosine of the leading mode with the sixth kind, η = {eta}");
            checks.push(Check::at_least(what, along, least));
            let what = format!("share of the sixth kind among the top {TOP}, η = {eta}");
            checks.push(Check::at_least(what, share, 0.95));
        }
    }
    let inputs = json!({
        "width": WIDTH, "pictures": PICTURES, "spread": SPREAD, "base": BASE, "adapted": ADAPTED,
        "frequencies": FREQUENCIES,
    });
    Answer { name: "modes", checks, inputs }
}

fn slices(rows: &[Vec<f64>]) -> Vec<&[f64]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn random(seed: u64, model: u64, sample: u64) -> Vec<f64> {
    let mut stream = draws::stream(seed, model, sample, Purpose::Noise);
    draws::normals(&mut stream, WIDTH).into_iter().map(f64::from).collect()
}

/// Unit vectors around the centers, and the kind of each.
fn pictures(
    seed: u64,
    model: u64,
    shares: &[f64],
    centers: &[Vec<f64>],
) -> (Vec<Vec<f32>>, Vec<usize>) {
    let one = |i: u64| {
        let mut stream = draws::stream(seed, model, i, Purpose::Scene);
        let kind = categorical(shares, &mut stream);
        let mut picture = centers[kind].clone();
        add_scaled(&mut picture, &random(seed, model, i), SPREAD / libm::sqrt(real(WIDTH)));
        let length = norm(&picture);
        (picture.into_iter().map(|x| single(x / length)).collect::<Vec<f32>>(), kind)
    };
    (0..PICTURES).map(one).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_is_known() {
        let answer = modes(1).unwrap();
        assert_eq!(answer.checks.len(), 4);
        assert!(answer.holds(), "{answer:?}");
    }

    #[test]
    fn models_that_change_places_show_no_arrival() {
        let swapped = |more: &[&[f64]], less: &[&[f64]], eta: f64| surplus(less, more, eta, 1);
        assert!(!modes_with(1, &swapped).holds());
    }

    #[test]
    fn the_mode_of_the_adapted_model_alone_is_not_what_arrived() {
        let alone = |more: &[&[f64]], _: &[&[f64]], _: f64| surplus(more, &[], 0.0, 1);
        assert!(!modes_with(1, &alone).holds());
    }
}
