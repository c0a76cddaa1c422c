//! Known answers of directions: angles between spans, reliability, and when directions are refused.

use crate::answer::{Answer, Check};
use eval::EvalError;
use eval::direction::{Activations, Agreement, DirectionsInput, agreement, direction, directions};
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use serde_json::json;
use statistics::algebra::{add_scaled, cosine, orthonormal, principal_angles, unit};
use statistics::interval::Resampler;
use statistics::number::{mean, single};

/// What halves and models agree in for one entity, at a seed.
type AgreementOf<'a> = &'a (dyn Fn(&DirectionsInput<'_>, u64) -> Option<Agreement> + Sync);

/// Worlds over which the figures of (ii) are averaged.
const WORLDS: u64 = 4;
/// Numbers and pictures of (ii): the pooled middle block of a common UNet.
const POOLED: (usize, usize) = (1280, 1000);
/// The same of (iii): all places of that block, unpooled.
const UNPOOLED: (usize, usize) = (81_920, 200);

/// KAT `hspace`: (i) a span whose first direction turned by 0.3; (ii) two fits of one direction, whose
/// cosine is 0.43 although nothing changed; (iii) unpooled activations, refused; (iv) a zero adapter.
///
/// # Errors
///
/// None.
pub fn hspace(seed: u64) -> Result<Answer, EvalError> {
    Ok(hspace_with(seed, &|input, seed| agreement(input, 0, seed)))
}

fn hspace_with(seed: u64, agreement: AgreementOf<'_>) -> Answer {
    let mut checks = turned_span(seed);
    let worlds: Vec<[f64; 5]> =
        (0..WORLDS).into_par_iter().map(|world| two_fits(seed, world, agreement)).collect();
    let over = |i: usize| mean(&worlds.iter().map(|w| w[i]).collect::<Vec<f64>>());
    let figure = |i: usize| over(i).unwrap_or(f64::NAN);
    checks.extend([
        Check::new("cosine of a fit with the truth", figure(0), 0.664, 0.04),
        Check::new("cosine of two fits of one direction", figure(1), 0.434, 0.06),
        Check::new("reliability of the base's direction", figure(2), 0.45, 0.09),
        Check::new("reliability of the adapted direction", figure(3), 0.45, 0.09),
        Check::between("corrected cosine of both", figure(4), 0.7, 1.25),
    ]);
    checks.extend(unpooled(seed, agreement));
    checks.extend(zero_adapter(seed));
    let inputs = json!({
        "span": { "width": 50, "turn": 0.3 },
        "pooled": { "width": POOLED.0, "pictures": POOLED.1, "worlds": WORLDS },
        "unpooled": { "width": UNPOOLED.0, "pictures": UNPOOLED.1 },
        "distance_of_means": 2.0,
    });
    Answer { name: "hspace", checks, inputs }
}

fn random(seed: u64, world: u64, part: u64, n: usize) -> Vec<f64> {
    let mut stream = draws::stream(seed, world, part, Purpose::Noise);
    draws::normals(&mut stream, n).into_iter().map(f64::from).collect()
}

/// (i): both spans are given by mixtures of their directions.
fn turned_span(seed: u64) -> Vec<Check> {
    let numbers: Vec<Vec<f64>> = (0..4).map(|k| random(seed, 0, 100 + k, 50)).collect();
    let axes = orthonormal(&numbers);
    let mut turned = axes[..3].to_vec();
    for value in &mut turned[0] {
        *value *= libm::cos(0.3);
    }
    add_scaled(&mut turned[0], &axes[3], libm::sin(0.3));
    let mixed = |span: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let mut mixed = span.to_vec();
        add_scaled(&mut mixed[1], &span[0], 0.7);
        add_scaled(&mut mixed[2], &span[1], -0.4);
        add_scaled(&mut mixed[0], &span[2], 1.5);
        mixed
    };
    let angles = principal_angles(&mixed(&axes[..3]), &mixed(&turned));
    let names = ["smallest angle", "second angle", "largest angle"];
    let found = (0..3).map(|i| angles.get(i).copied().unwrap_or(f64::NAN));
    let expected = [0.0, 0.0, 0.3];
    names.iter().zip(found).zip(expected).map(|((n, x), e)| Check::new(*n, x, e, 1e-6)).collect()
}

/// Pictures around two means 2 apart along a random direction, half of them bearing the entity.
struct World {
    along: Vec<f64>,
    labels: Vec<u16>,
}

impl World {
    fn new(seed: u64, world: u64, (width, pictures): (usize, usize)) -> Self {
        let along = unit(&random(seed, world, 0, width)).unwrap_or_default();
        let labels = (0..pictures).map(|i| u16::from(i % 2 == 1)).collect();
        Self { along, labels }
    }

    /// Activations of one sample of pictures: label 0 bears the entity.
    fn rows(&self, seed: u64, world: u64, sample: u64) -> Vec<Vec<f32>> {
        let one = |(i, label): (usize, &u16)| -> Vec<f32> {
            let part = 1000 * (1 + sample) + i as u64;
            let mut row = random(seed, world, part, self.along.len());
            add_scaled(&mut row, &self.along, if *label == 0 { 2.0 } else { 0.0 });
            row.into_iter().map(single).collect()
        };
        self.labels.iter().enumerate().map(one).collect()
    }
}

/// (ii): cosine of a fit with the truth, of two fits, both reliabilities, the corrected cosine.
fn two_fits(seed: u64, world: u64, agreement: AgreementOf<'_>) -> [f64; 5] {
    let truth = World::new(seed, world, POOLED);
    let (first, second) = (truth.rows(seed, world, 0), truth.rows(seed, world, 1));
    let base = Activations { rows: &first, labels: &truth.labels };
    let adapted = Activations { rows: &second, labels: &truth.labels };
    let entities = ["entity".to_owned()];
    let input = DirectionsInput { level: 0.5, entities: &entities, base, adapted };
    let fits = direction(base, 0).zip(direction(adapted, 0));
    let with_truth = fits.as_ref().and_then(|(fit, _)| cosine(fit, &truth.along));
    let of_both = fits.as_ref().and_then(|(a, b)| cosine(a, b));
    let found = agreement(&input, seed);
    let reliability = found.map(|found| found.reliability);
    [
        with_truth.unwrap_or(f64::NAN),
        of_both.unwrap_or(f64::NAN),
        reliability.map_or(f64::NAN, |r| r.before),
        reliability.map_or(f64::NAN, |r| r.after),
        found.and_then(|found| found.corrected).unwrap_or(f64::NAN),
    ]
}

/// (iii): the instrument says how unreliable they are and compares nothing.
fn unpooled(seed: u64, agreement: AgreementOf<'_>) -> Vec<Check> {
    let truth = World::new(seed, 50, UNPOOLED);
    let rows = truth.rows(seed, 50, 0);
    let model = Activations { rows: &rows, labels: &truth.labels };
    let entities = ["entity".to_owned()];
    let input = DirectionsInput { level: 0.5, entities: &entities, base: model, adapted: model };
    let found = agreement(&input, seed);
    let refused = found.is_some_and(|found| found.corrected.is_none());
    let reliability = found.map_or(f64::NAN, |found| found.reliability.before);
    vec![
        Check::at_most("reliability of unpooled activations", reliability, 0.1),
        Check::new("unpooled activations are refused", f64::from(u8::from(refused)), 1.0, 0.0),
    ]
}

/// (iv): the record of a model beside itself.
fn zero_adapter(seed: u64) -> Vec<Check> {
    let truth = World::new(seed, 60, POOLED);
    let rows = truth.rows(seed, 60, 0);
    let model = Activations { rows: &rows, labels: &truth.labels };
    let entities = ["entity".to_owned()];
    let input = DirectionsInput { level: 0.5, entities: &entities, base: model, adapted: model };
    let record = directions(&input, Resampler { seed, draws: 10 });
    let found = record.ok().and_then(|record| record.entities.first().and_then(|e| e.cosine));
    let value = found.map_or(f64::NAN, |cosine| cosine.value);
    vec![Check::new("cosine under a zero adapter", value, 1.0, 1e-9)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use eval::record::BeforeAfter;

    #[test]
    fn hspace_is_known() {
        let answer = hspace(1).unwrap();
        assert!(answer.holds(), "{answer:?}");
    }

    #[test]
    fn a_cosine_without_its_reliability_says_that_nothing_is_alike() {
        let raw = |input: &DirectionsInput<'_>, seed: u64| {
            let found = agreement(input, 0, seed)?;
            let fits = direction(input.base, 0).zip(direction(input.adapted, 0));
            let corrected = fits.and_then(|(a, b)| cosine(&a, &b));
            Some(Agreement { corrected: found.corrected.and(corrected), ..found })
        };
        let answer = hspace_with(1, &raw);
        let failed: Vec<&str> =
            answer.checks.iter().filter(|c| !c.holds()).map(|c| c.what.as_str()).collect();
        assert_eq!(failed, vec!["corrected cosine of both"]);
    }

    #[test]
    fn an_instrument_that_never_refuses_fails() {
        let bold = |input: &DirectionsInput<'_>, seed: u64| {
            let found = agreement(input, 0, seed)?;
            Some(Agreement { corrected: found.corrected.or(Some(1.0)), ..found })
        };
        assert!(!hspace_with(1, &bold).holds());
    }

    #[test]
    fn halves_of_half_the_pictures_are_not_the_reliability_of_all() {
        // r instead of 2r/(1+r).
        let short = |input: &DirectionsInput<'_>, seed: u64| {
            let found = agreement(input, 0, seed)?;
            let r = |rel: f64| rel / (2.0 - rel);
            let reliability = BeforeAfter {
                before: r(found.reliability.before),
                after: r(found.reliability.after),
            };
            Some(Agreement { reliability, ..found })
        };
        assert!(!hspace_with(1, &short).holds());
    }
}
