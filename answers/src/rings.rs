//! Known answers of whole worlds: nothing settled, a newcomer in two ways, and a rising dose.

use crate::answer::{Answer, Check};
use crate::worlds::Dosed;
use crate::worlds::chain::{Chain, Extent, Maker, StepNoise, keyed, walk};
use crate::worlds::gauss::Gauss;
use crate::worlds::ring::{FIVE, FIVE_SETTLED, Ring, SIX, SIX_DILUTED, SIX_SELECTED};
use crate::worlds::schedule::native;
use eval::EvalError;
use eval::likelihood::nats_lost;
use eval::noising::{Grid, Samples, keyed_noise};
use eval::path::PathSum;
use eval::protocol::{Condition, Denoiser};
use serde_json::json;
use statistics::contingency::{Block, PairedLabels, disagreement};
use statistics::number::{mean, real};

/// Makes the noise of one drawing.
type NoiseMaker<'a> = dyn Fn() -> Box<StepNoise<'static>> + 'a;

/// KAT `zero`, its half on a synthetic world: a base beside itself differs in nothing, exactly, and
/// batches of 1 and of 7 draw the same samples.
///
/// # Errors
///
/// None: the world is valid.
pub fn zero(seed: u64) -> Result<Answer, EvalError> {
    zero_with(&|| Box::new(keyed(seed, 2)))
}

fn zero_with(noise: &NoiseMaker<'_>) -> Result<Answer, EvalError> {
    let chain = Chain::new(50)?;
    let ring = Ring::six(SIX);
    let make = || -> Box<dyn Denoiser> { Box::new(Ring::six(SIX)) };
    let (samples, one, seven) = (500, 1, 7);
    let draw =
        |batch: u64| walk(&chain, noise().as_ref(), Extent { samples, batch }, &make, &[&make]);
    let (base, again) = (draw(seven)?, draw(one)?);
    let discordant = differing(&ring.labels(&base.clean), &ring.labels(&again.clean));
    let values = base.clean.iter().zip(&again.clean);
    let moved = values.filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let largest = |value: &dyn Fn(&PathSum) -> f64| {
        base.sums.iter().flatten().map(|sum| value(sum).abs()).fold(0.0, f64::max)
    };
    Ok(Answer {
        name: "zero",
        checks: vec![
            Check::new("discordant seeds", discordant, 0.0, 0.0),
            Check::new("values that another batch moved", real(moved), 0.0, 0.0),
            Check::new("largest path nats", largest(&|sum: &PathSum| sum.nats), 0.0, 0.0),
            Check::new("largest |log W|", largest(&|sum: &PathSum| sum.log_weight()), 0.0, 0.0),
            Check::new("largest |nats lost|", largest_loss(&ring, &base.clean)?, 0.0, 0.0),
        ],
        inputs: json!({ "world": "Ring6", "shares": SIX, "samples": samples, "steps": 50 }),
    })
}

/// Labels that differ.
fn differing(before: &[u16], after: &[u16]) -> f64 {
    real(before.iter().zip(after).filter(|(before, after)| before != after).count())
}

/// The largest of what a world lost against itself.
fn largest_loss(ring: &Ring, clean: &[f64]) -> Result<f64, EvalError> {
    let keys: Vec<u64> = (0..clean.len() as u64 / 2).collect();
    let samples = Samples { values: clean, keys: &keys };
    let grid = Grid::stratified(&native()?, 8, 1, 0);
    let (mut base, mut same) = (ring.clone(), ring.clone());
    let mut models: [&mut dyn Denoiser; 2] = [&mut base, &mut same];
    let lost = nats_lost(&mut models, Condition::Nothing, samples, &grid, &keyed_noise(1, 2))?;
    Ok(lost.iter().flatten().flatten().map(|nats| nats.abs()).fold(0.0, f64::max))
}

/// What a census reads off paired labels (base, adapted model): shares of the adapted model, and the
/// share of pairs that disagree.
type Counting<'a> = dyn Fn(&[u16], &[u16]) -> (Vec<f64>, f64) + 'a;

/// The table of a census.
fn counted(base: &[u16], adapted: &[u16]) -> (Vec<f64>, f64) {
    let block =
        Block { weight: 1.0, base: base.to_vec(), adapted: adapted.to_vec(), placebos: Vec::new() };
    let labels = PairedLabels { n_categories: 6, blocks: vec![block] };
    let discordance = disagreement(&labels.table()).map_or(f64::NAN, |parts| parts.discordance);
    (labels.shares(None).adapted, discordance)
}

/// KAT `ring`: a fifth of all places goes to a newcomer, by thinning all others out alike and by
/// driving one of them out.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn ring(seed: u64) -> Result<Answer, EvalError> {
    ring_with(seed, &counted)
}

fn ring_with(seed: u64, count: &Counting<'_>) -> Result<Answer, EvalError> {
    let chain = Chain::new(200)?;
    let noise = keyed(seed, 2);
    let ring = Ring::six(SIX);
    let labels = |shares: [f64; 6]| -> Result<Vec<u16>, EvalError> {
        let make = move || -> Box<dyn Denoiser> { Box::new(Ring::six(shares)) };
        Ok(ring.labels(&walk(&chain, &noise, Extent::of(4000), &make, &[])?.clean))
    };
    let base = labels(SIX)?;
    let mut checks = Vec::new();
    let mut found = Vec::new();
    for (name, shares, discordance) in
        [("diluted", SIX_DILUTED, 0.317), ("selected", SIX_SELECTED, 0.409)]
    {
        let (counted, disagree) = count(&base, &labels(shares)?);
        for (e, (counted, share)) in counted.iter().zip(shares).enumerate() {
            checks.push(Check::new(format!("{name}: share of entity {e}"), *counted, share, 0.035));
        }
        checks.push(Check::new(format!("{name}: discordance"), disagree, discordance, 0.03));
        found.push(json!({ "settled": name, "shares": counted, "discordance": disagree }));
    }
    Ok(Answer {
        name: "ring",
        checks,
        inputs: json!({ "base": SIX, "samples": 4000, "steps": 200, "found": found }),
    })
}

/// KAT `dose`, its half on worlds: a mean that moves in proportion, and a share that rises.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn dose(seed: u64) -> Result<Answer, EvalError> {
    let doses = [0.0, 0.25, 0.5, 0.75, 1.0];
    let chain = Chain::new(60)?;
    let means = gauss_means(&chain, seed, &doses)?;
    let expected: Vec<f64> = doses.iter().map(|dose| (1.0 - dose) * 0.3 + dose * 0.5).collect();
    let mut checks = vec![Check::at_least(
        "r² of the mean of a normal law with its dose",
        correlation(&means, &expected).powi(2),
        0.999,
    )];
    for ((dose, mean), expected) in doses.iter().zip(&means).zip(&expected) {
        checks.push(Check::new(format!("mean at dose {dose}"), *mean, *expected, 0.02));
    }
    let shares = ring_shares(&chain, seed, &doses)?;
    for ((dose, share), known) in doses.iter().zip(&shares).zip([0.046, 0.089, 0.151, 0.228, 0.306])
    {
        checks.push(Check::new(format!("last share at dose {dose}"), *share, known, 0.012));
    }
    let rises = shares.windows(2).map(|pair| pair[1] - pair[0]);
    let least = rises.fold(f64::INFINITY, f64::min);
    checks.push(Check::at_least("least rise of the last share", least, 1e-9));
    Ok(Answer {
        name: "dose",
        checks,
        inputs: json!({ "doses": doses, "means": means, "last_shares": shares, "steps": 60 }),
    })
}

/// Mean of the samples at each dose between N(.3, .25) and N(.5, .25), on shared noise.
fn gauss_means(chain: &Chain, seed: u64, doses: &[f64]) -> Result<Vec<f64>, EvalError> {
    let noise = keyed(seed, 1);
    let at = |dose: &f64| -> Result<f64, EvalError> {
        let dose = *dose;
        let make = move || -> Box<dyn Denoiser> {
            let (base, adapted) = (Gauss::new(0.3, 0.25, 1), Gauss::new(0.5, 0.25, 1));
            Box::new(Dosed { base, adapted, dose })
        };
        let clean = walk(chain, &noise, Extent::of(20_000), &make, &[])?.clean;
        Ok(mean(&clean).unwrap_or(f64::NAN))
    };
    doses.iter().map(at).collect()
}

/// Share of the last entity of Ring5 at each dose, on shared noise.
fn ring_shares(chain: &Chain, seed: u64, doses: &[f64]) -> Result<Vec<f64>, EvalError> {
    let noise = keyed(seed, 2);
    let at = |dose: &f64| -> Result<f64, EvalError> {
        let dose = *dose;
        let make = move || -> Box<dyn Denoiser> { Box::new(settling(dose)) };
        let make: &Maker<'_> = &make;
        let clean = walk(chain, &noise, Extent::of(20_000), make, &[])?.clean;
        let labels = Ring::five(FIVE).labels(&clean);
        Ok(real(labels.iter().filter(|label| **label == 4).count()) / real(labels.len()))
    };
    doses.iter().map(at).collect()
}

/// Ring5 with its settlement at a dose.
pub(crate) fn settling(dose: f64) -> Dosed<Ring, Ring> {
    Dosed { base: Ring::five(FIVE), adapted: Ring::five(FIVE_SETTLED), dose }
}

/// Pearson's correlation.
fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let (Some(mx), Some(my)) = (mean(x), mean(y)) else {
        return f64::NAN;
    };
    let product = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum()
    };
    product(x, mx, y, my) / libm::sqrt(product(x, mx, x, mx) * product(y, my, y, my))
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipes::draws::{self, Purpose};
    use std::sync::Mutex;

    const SEED: u64 = 1;

    #[test]
    fn nothing_settled_changes_exactly_nothing() {
        let answer = zero(SEED).unwrap();
        assert!(answer.holds(), "{answer:?}");
    }

    /// Mutation: noise from one generator, in the order in which batches ask.
    #[test]
    fn noise_in_batch_order_breaks_zero() {
        let in_order = || -> Box<StepNoise<'static>> {
            let generator = Mutex::new(draws::stream(SEED, 0, 0, Purpose::CensusStart));
            Box::new(move |_: u64, _: u64, _: Purpose| {
                let mut generator = generator.lock().unwrap();
                draws::normals(&mut generator, 2).into_iter().map(f64::from).collect()
            })
        };
        let answer = zero_with(&in_order).unwrap();
        assert!(!answer.checks[1].holds(), "{:?}", answer.checks);
    }

    #[test]
    fn a_newcomer_is_counted_in_both_worlds() {
        let answer = ring(SEED).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
        assert_eq!(answer.checks.len(), 14);
    }

    /// Mutation: the two models exchanged.
    #[test]
    fn exchanged_models_break_ring() {
        let answer =
            ring_with(SEED, &|base: &[u16], adapted: &[u16]| counted(adapted, base)).unwrap();
        assert!(!answer.holds());
        // Nobody lost a place to the newcomer: it never came.
        assert!(answer.checks[5].found < 0.01 && !answer.checks[5].holds());
    }

    #[test]
    fn means_and_shares_follow_the_dose() {
        let answer = dose(SEED).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
    }

    #[test]
    fn correlation_is_one_of_a_line_and_less_of_a_bend() {
        assert!((correlation(&[1.0, 2.0, 3.0], &[5.0, 7.0, 9.0]) - 1.0).abs() < 1e-12);
        assert!((correlation(&[1.0, 2.0, 3.0], &[-1.0, -2.0, -3.0]) + 1.0).abs() < 1e-12);
        assert!(correlation(&[0.0, 1.0, 2.0], &[0.0, 1.0, 0.0]).abs() < 1e-12);
    }
}
