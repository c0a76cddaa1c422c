//! Settlements made of prompts: "adapted" is the base itself, which on some seeds is asked for the
//! newcomer. Who lost a place to whom is known seed by seed.

use super::{Named, World};
use crate::answer::{Answer, Check};
use datasets::postcards::Subject;
use eval::EvalError;
use recipes::draws::{self, Purpose};
use serde_json::json;
use statistics::contingency::{Block, PairedLabels};
use statistics::depopulation::{smoothed, split};
use statistics::interval::{Replicate, Resampler, max_t, sign_flip};
use statistics::number::real;

/// The rarest subject, which plays the newcomer.
const NEWCOMER: Subject = Subject::Balloon;
/// The entity that `promptselect` drives out.
const EVICTED: Subject = Subject::House;
/// Share of seeds that `promptmix` asks for the newcomer.
const SHARE: f64 = 0.2;
/// Bootstrap replicates and sign flips.
const REPLICATES: u32 = 1000;
const FLIPS: u32 = 499;
/// Seeds that are drawn again, whose pictures must be the same bytes: one batch.
const AGAIN: u32 = 64;

/// Subjects of the base's pictures, and of those of a settlement made of prompts.
struct Mixture {
    labels: PairedLabels,
    /// Seeds that were asked for the newcomer.
    asked: Vec<u32>,
    /// Pictures of untouched seeds that came out differently when they were drawn again.
    different: usize,
}

impl World<'_> {
    fn subjects(&self, text: &str, seeds: &[u32]) -> Result<Vec<u16>, EvalError> {
        let pictures = self.drawn(text, seeds, self.sizes.mixed_steps)?;
        let subject = |named: &Named| u16::try_from(named[0]).unwrap_or(u16::MAX);
        Ok(self.named(&pictures)?.iter().map(subject).collect())
    }

    /// Draws every seed unasked, and those that `is_asked` picks, by seed and base label, asked.
    fn mixture(&self, is_asked: &dyn Fn(u32, u16) -> bool) -> Result<Mixture, EvalError> {
        let seeds: Vec<u32> = (0..self.sizes.mixed).collect();
        let steps = self.sizes.mixed_steps;
        let pictures = self.drawn("", &seeds, steps)?;
        let subject = |named: &Named| u16::try_from(named[0]).unwrap_or(u16::MAX);
        let base: Vec<u16> = self.named(&pictures)?.iter().map(subject).collect();
        let picked = seeds.iter().zip(&base).filter(|(seed, label)| is_asked(**seed, **label));
        let asked: Vec<u32> = picked.map(|(seed, _)| *seed).collect();
        let mut adapted = base.clone();
        for (seed, label) in asked.iter().zip(self.subjects(&self.phrase(NEWCOMER), &asked)?) {
            adapted[*seed as usize] = label;
        }
        let again: Vec<u32> = seeds.iter().copied().take(AGAIN as usize).collect();
        let repeated = self.drawn("", &again, steps)?;
        let untouched = repeated.iter().zip(&pictures).zip(&again);
        let differs = untouched.filter(|((new, old), seed)| new != old && !asked.contains(seed));
        let different = differs.count();
        let block = Block { weight: 1.0, base, adapted, placebos: Vec::new() };
        let labels = PairedLabels { n_categories: Subject::ALL.len(), blocks: vec![block] };
        Ok(Mixture { labels, asked, different })
    }
}

/// KAT `promptmix`: every fifth seed, by a draw of its own, is asked for the newcomer. Then
/// `P_A = (1 − λ)·P_B + λ·P_B(·, asked)`, and all that selects is disobedience.
///
/// The error of the asked shares, which come from other seeds, widens every interval; the selection
/// may reach three floors beyond what disobedient pictures explain.
///
/// # Errors
///
/// A fault of the device.
pub fn promptmix(world: &World<'_>) -> Result<Answer, EvalError> {
    let is_asked = |seed: u32, _: u16| {
        let stream = &mut draws::stream(world.seed, 0, u64::from(seed), Purpose::PromptMix);
        draws::uniform(stream) < SHARE
    };
    let mixture = world.mixture(&is_asked)?;
    let others: Vec<u32> = (world.sizes.mixed..world.sizes.mixed + world.sizes.asked).collect();
    let asked = shares_of(&world.subjects(&world.phrase(NEWCOMER), &others)?);
    let labels = &mixture.labels;
    let before = labels.shares(None).base;
    let mixed: Vec<f64> =
        before.iter().zip(&asked).map(|(b, a)| (1.0 - SHARE) * b + SHARE * a).collect();
    let n = real(labels.n_pairs());
    let explained = selection(&before, &mixed, n);
    let [found, floor] = selection_and_floor(labels, world.seed);
    let outside = outside(labels, &mixed, &asked, world);
    let checks = vec![
        Check::new("untouched pictures that differ", real(mixture.different), 0.0, 0.0),
        Check::new("entities whose interval misses the mixture", real(outside), 0.0, 0.0),
        Check::at_most("selection in nats", found, explained + 3.0 * floor),
        Check::between(
            "share of seeds that were asked",
            real(mixture.asked.len()) / n,
            SHARE - 4.0 * libm::sqrt(SHARE * (1.0 - SHARE) / n),
            SHARE + 4.0 * libm::sqrt(SHARE * (1.0 - SHARE) / n),
        ),
    ];
    let inputs = json!({
        "share": SHARE, "newcomer": NEWCOMER.name(), "table": labels.table(), "asked": asked,
        "mixed": mixed, "explained": explained, "floor": floor,
    });
    Ok(Answer { name: "promptmix", checks, inputs })
}

/// KAT `promptselect`: every seed on which the base draws a house is asked for the newcomer, and no
/// other. Houses lose at least four fifths of their places; nobody else loses one.
///
/// # Errors
///
/// A fault of the device.
pub fn promptselect(world: &World<'_>) -> Result<Answer, EvalError> {
    let evicted = EVICTED.position();
    let mixture = world.mixture(&|_, label| usize::from(label) == evicted)?;
    let shares = mixture.labels.shares(None);
    let table = mixture.labels.table();
    let lost = shares.delta()[evicted] / shares.base[evicted].max(f64::MIN_POSITIVE);
    let others = table.iter().enumerate().filter(|(row, _)| *row != evicted);
    let moved = |(row, cells): (usize, &Vec<u64>)| {
        cells.iter().enumerate().filter(|(column, _)| *column != row).map(|(_, n)| *n).sum::<u64>()
    };
    let moved: u64 = others.map(moved).sum();
    let checks = vec![
        Check::new("untouched pictures that differ", real(mixture.different), 0.0, 0.0),
        Check::at_most("change of the evicted entity over its share", lost, -0.8),
        Check::new(
            "places that other entities lost",
            statistics::number::real_u64(moved),
            0.0,
            0.0,
        ),
    ];
    let inputs = json!({
        "newcomer": NEWCOMER.name(), "evicted": EVICTED.name(), "table": table,
        "asked": mixture.asked.len(),
    });
    Ok(Answer { name: "promptselect", checks, inputs })
}

/// Share of each subject among labels.
fn shares_of(labels: &[u16]) -> Vec<f64> {
    let mut shares = vec![0.0; Subject::ALL.len()];
    for &label in labels {
        shares[usize::from(label)] += 1.0 / real(labels.len());
    }
    shares
}

/// Selection in nats between two lists of shares of `n` pictures, smoothed as a census does.
fn selection(before: &[f64], after: &[f64], n: f64) -> f64 {
    let seen: Vec<bool> = before.iter().zip(after).map(|(b, a)| b + a > 0.0).collect();
    let [before, after] = [before, after].map(|shares| smoothed(shares, &seen, n));
    split(&before, &after, Some(NEWCOMER.position())).selection
}

/// The selection that a table shows, and the mean that flipped pairs show.
fn selection_and_floor(labels: &PairedLabels, seed: u64) -> [f64; 2] {
    let (n_pairs, n) = (labels.n_pairs(), real(labels.n_pairs()));
    let statistic = |flips: &[bool]| {
        let (before, after) = labels.flipped(flips);
        vec![selection(&before, &after, n)]
    };
    let flips = sign_flip(seed, FLIPS, n_pairs, &statistic);
    [statistic(&vec![false; n_pairs])[0], flips.floor[0]]
}

/// Entities whose simultaneous interval of Δ, widened by twice the error of the asked shares, misses
/// the difference that the mixture expects.
fn outside(labels: &PairedLabels, mixed: &[f64], asked: &[f64], world: &World<'_>) -> usize {
    let shares = labels.shares(None);
    let (resampler, lengths) =
        (Resampler { seed: world.seed, draws: REPLICATES }, labels.lengths());
    let replicate = |draw: u32| {
        let drawn = labels.shares(Some(&resampler.positions(draw, &lengths)));
        Replicate { values: drawn.delta(), errors: drawn.delta_error }
    };
    let replicates: Vec<Replicate> = (0..REPLICATES).map(replicate).collect();
    let intervals = max_t(&shares.delta(), &shares.delta_error, &replicates, 0.95);
    let misses = |i: &usize| {
        let expected = mixed[*i] - shares.base[*i];
        let n = f64::from(world.sizes.asked);
        let slack = 2.0 * SHARE * libm::sqrt(asked[*i] * (1.0 - asked[*i]) / n);
        let [low, high] = intervals[*i];
        expected < low - slack || expected > high + slack
    };
    (0..intervals.len()).filter(misses).count()
}
