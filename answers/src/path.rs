//! Known answers along paths: KL and weights of two settlements, and a forecast before any.

use crate::answer::{Answer, Check};
use crate::rings::settling;
use crate::worlds::chain::{Chain, Extent, Maker, keyed, walk};
use crate::worlds::ring::{FIVE, Ring, SIX, SIX_DILUTED, SIX_SELECTED};
use eval::EvalError;
use eval::path::{PathBlock, PathInput, PathModel, reduce, slopes};
use eval::protocol::Denoiser;
use eval::record::{PathDose, PathRecord};
use serde_json::json;
use statistics::interval::Resampler;
use statistics::number::real;

/// Makes the denoiser of a settled world.
type Settled<'a> = dyn Fn(Ring) -> Box<dyn Denoiser> + Sync + 'a;

/// KAT `path`: path-space KL, weights and weighted shares of a newcomer that dilutes and of one that
/// selects.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn path(seed: u64) -> Result<Answer, EvalError> {
    path_with(seed, &|ring: Ring| -> Box<dyn Denoiser> { Box::new(ring) })
}

fn path_with(seed: u64, settled: &Settled<'_>) -> Result<Answer, EvalError> {
    let record = ring_record(seed, settled)?;
    let mut checks = Vec::new();
    // KL of the shares; what was seen of E[W] and of the effective share.
    let known = [("diluted", 0.2231, 0.801, 0.984), ("selected", 0.2851, 0.799, 0.877)];
    for ((name, kl, weight, effective), dose) in known.into_iter().zip(&record.doses) {
        checks.push(Check::new(format!("{name}: path-space KL"), dose.kl.value, kl, 0.04));
        checks.push(Check::new(format!("{name}: mean weight"), dose.mean_weight, weight, 0.02));
        let what = format!("{name}: effective share");
        checks.push(Check::new(what, dose.effective_share, effective, 0.02));
        let outside = dose.outside.unwrap_or(f64::NAN);
        checks.push(Check::new(format!("{name}: mass outside"), outside, 1.0 - weight, 0.02));
    }
    let expected = [0.284, 0.197, 0.081, 0.196, 0.041];
    for (e, expected) in expected.into_iter().enumerate() {
        let share = record.doses.get(1).map_or(f64::NAN, |dose| weighted_share(dose, e));
        checks.push(Check::new(format!("selected: weighted share of {e}"), share, expected, 0.035));
    }
    Ok(Answer {
        name: "path",
        checks,
        inputs: json!({
            "base": SIX, "diluted": SIX_DILUTED, "selected": SIX_SELECTED,
            "samples": 4000, "steps": 200, "record": record,
        }),
    })
}

/// The share that weights give an entity; not a number where none is given.
fn weighted_share(dose: &PathDose, entity: usize) -> f64 {
    let id = entity.to_string();
    let shares = dose.weighted.iter().flatten();
    shares.filter(|share| share.id == id).map(|share| share.share).next().unwrap_or(f64::NAN)
}

/// Both settlements asked along Ring6's own paths.
fn ring_record(seed: u64, settled: &Settled<'_>) -> Result<PathRecord, EvalError> {
    let chain = Chain::new(200)?;
    let base = || -> Box<dyn Denoiser> { Box::new(Ring::six(SIX)) };
    let diluted = || settled(Ring::six(SIX_DILUTED));
    let selected = || settled(Ring::six(SIX_SELECTED));
    let others: [&Maker<'_>; 2] = [&diluted, &selected];
    let drawn = walk(&chain, &keyed(seed, 2), Extent::of(4000), &base, &others)?;
    let models =
        ["diluted", "selected"].map(|model| PathModel { model: model.to_owned(), dose: 1.0 });
    let entities: Vec<String> = (0..6).map(|e: usize| e.to_string()).collect();
    let labels = Ring::six(SIX).labels(&drawn.clean);
    Ok(reduce(&PathInput {
        models: &models,
        blocks: &[PathBlock { weight: 1.0, labels, sums: drawn.sums }],
        facet: "ring",
        entities: &entities,
        steps: 200,
        secant: None,
        resampler: Resampler { seed, draws: 200 },
    }))
}

/// Slopes of the shares at dose 0, from the base's paths beside a model at a small dose.
type Slopes<'a> = dyn Fn(&[PathBlock], f64) -> Vec<f64> + 'a;

/// Dose of the secant, and of the central differences.
const SMALL: f64 = 0.1;

/// KAT `forecast`: slopes that the base's own samples foretell, against shares drawn at ±.1.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn forecast(seed: u64) -> Result<Answer, EvalError> {
    forecast_with(seed, &|blocks: &[PathBlock], dose: f64| slopes(blocks, 0, dose, 5))
}

fn forecast_with(seed: u64, slopes: &Slopes<'_>) -> Result<Answer, EvalError> {
    let chain = Chain::new(60)?;
    let noise = keyed(seed, 2);
    let ring = Ring::five(FIVE);
    let base = || -> Box<dyn Denoiser> { Box::new(Ring::five(FIVE)) };
    let little = || -> Box<dyn Denoiser> { Box::new(settling(SMALL)) };
    let drawn = walk(&chain, &noise, Extent::of(20_000), &base, &[&little])?;
    let block = PathBlock { weight: 1.0, labels: ring.labels(&drawn.clean), sums: drawn.sums };
    let found = slopes(&[block], SMALL);
    let shares = |dose: f64| -> Result<Vec<f64>, EvalError> {
        let make = move || -> Box<dyn Denoiser> { Box::new(settling(dose)) };
        let clean = walk(&chain, &noise, Extent::of(20_000), &make, &[])?.clean;
        let labels = ring.labels(&clean);
        let share = |e: u16| real(labels.iter().filter(|label| **label == e).count()) / 20_000.0;
        Ok((0..5).map(share).collect())
    };
    let (above, below) = (shares(SMALL)?, shares(-SMALL)?);
    let drawn_slopes: Vec<f64> =
        above.iter().zip(&below).map(|(above, below)| (above - below) / (2.0 * SMALL)).collect();
    let mut checks = Vec::new();
    let known = [-0.144, -0.034, 0.014, 0.044, 0.120];
    for (e, known) in known.into_iter().enumerate() {
        checks.push(Check::new(format!("slope of entity {e}"), found[e], known, 0.02));
        let what = format!("slope of entity {e} less the drawn one");
        checks.push(Check::new(what, found[e] - drawn_slopes[e], 0.0, 0.02));
    }
    checks.push(Check::new("sum of the slopes", found.iter().sum(), 0.0, 1e-12));
    Ok(Answer {
        name: "forecast",
        checks,
        inputs: json!({
            "shares_above": above, "shares_below": below, "dose": SMALL, "slopes": found,
            "samples": 20_000, "steps": 60,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use eval::protocol::{Condition, Level};

    const SEED: u64 = 1;

    #[test]
    fn paths_tell_how_far_two_settlements_are() {
        let answer = path(SEED).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
        assert_eq!(answer.checks.len(), 13);
    }

    /// What a sampler does that clips the clean estimate.
    struct Clipped(Ring);

    impl Denoiser for Clipped {
        fn width(&self) -> usize {
            2
        }

        fn noise(
            &mut self,
            noisy: &[f64],
            level: Level,
            condition: Condition<'_>,
        ) -> Result<Vec<f64>, EvalError> {
            let (signal, noise) = level.signal_and_noise();
            let said = self.0.noise(noisy, level, condition)?;
            let clip = |(x, eps): (&f64, f64)| {
                let clean = ((x - noise * eps) / signal).clamp(-1.0, 1.0);
                (x - signal * clean) / noise
            };
            Ok(noisy.iter().zip(said).map(clip).collect())
        }
    }

    /// Mutation: x̂₀ is clipped for the adapted model only.
    #[test]
    fn clipping_of_one_model_breaks_path() {
        let clipped = |ring: Ring| -> Box<dyn Denoiser> { Box::new(Clipped(ring)) };
        let answer = path_with(SEED, &clipped).unwrap();
        assert!(!answer.checks[0].holds() && !answer.checks[4].holds(), "{:?}", answer.checks);
        assert!(answer.checks[0].found > 10.0, "{:?}", answer.checks);
    }

    #[test]
    fn the_forecast_meets_what_is_drawn() {
        let answer = forecast(SEED).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
    }

    /// Mutation: scores that are not held against the share.
    #[test]
    fn an_uncentered_slope_breaks_forecast() {
        let uncentered = |blocks: &[PathBlock], dose: f64| -> Vec<f64> {
            let block = &blocks[0];
            let score = |e: u16| -> f64 {
                let of = block.labels.iter().zip(&block.sums[0]).filter(|(label, _)| **label == e);
                of.map(|(_, sum)| sum.cross / dose).sum()
            };
            (0..5).map(|e| score(e) / real(block.labels.len())).collect()
        };
        let answer = forecast_with(SEED, &uncentered).unwrap();
        let sum = answer.checks.last().unwrap();
        assert!(!sum.holds(), "{sum:?}");
    }
}
