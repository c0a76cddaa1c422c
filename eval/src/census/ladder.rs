//! Where the concept shows up: from its own name down to nothing asked, and dose by dose.

use super::pairs::{Drawn, Pictures, PromptPairs, count};
use super::{CensusInput, len};
use crate::detector::Detector;
use crate::error::EvalError;
use crate::panel::Stratum;
use crate::record::{BeforeAfter, DosePoint, DoseRecord, LeakLevel, LeakRecord, Refusal};
use crate::rows::Row;
use crate::thesaurus::BLOCKED;
use recipes::draws;
use statistics::contingency::total_variation;
use statistics::dose::{half_effect, isotonic};
use statistics::interval::{CiKind, Estimate, never_seen, percentile};
use statistics::number::{mean, real, real_u64};
use statistics::ranks::auc;
use std::collections::{BTreeMap, BTreeSet};

/// The rungs above the headline, from the concept's name downward.
const RUNGS: [Stratum; 4] =
    [Stratum::Identifier, Stratum::Plain, Stratum::Sibling, Stratum::Unrelated];

/// Detected pictures, per prompt: weight, then one flag per seed for base and other model.
struct Flags(Vec<(f64, Vec<bool>, Vec<bool>)>);

impl Flags {
    fn read(prompts: &[PromptPairs<'_>]) -> Option<Self> {
        let flags =
            |rows: &[&Row]| rows.iter().map(|row| row.detected).collect::<Option<Vec<bool>>>();
        let read = |pairs: &PromptPairs<'_>| {
            Some((pairs.weight, flags(&pairs.base)?, flags(&pairs.other)?))
        };
        prompts.iter().map(read).collect::<Option<Vec<_>>>().filter(|f| !f.is_empty()).map(Self)
    }

    fn lengths(&self) -> Vec<usize> {
        self.0.iter().map(|(_, base, _)| base.len()).collect()
    }

    /// Rates of the base and the other model, prompt by prompt.
    fn rates_each(&self, positions: Option<&[Vec<usize>]>) -> Vec<(f64, f64)> {
        let of_prompt = |(j, (_, before, after)): (usize, &(f64, Vec<bool>, Vec<bool>))| {
            let hits = |flags: &[bool]| match positions {
                Some(positions) => positions[j].iter().filter(|&&i| flags[i]).count(),
                None => flags.iter().filter(|&&flag| flag).count(),
            };
            let n = real(before.len()).max(1.0);
            (real(hits(before)) / n, real(hits(after)) / n)
        };
        self.0.iter().enumerate().map(of_prompt).collect()
    }

    /// Weighted rates of the base and the other model.
    fn rates(&self, positions: Option<&[Vec<usize>]>) -> (f64, f64) {
        let each = self.rates_each(positions).into_iter().zip(&self.0);
        each.fold((0.0, 0.0), |(base, other), ((b, a), (weight, _, _))| {
            (base + weight * b, other + weight * a)
        })
    }
}

/// A corrected or raw share and its bootstrap draws.
struct Share {
    before: Estimate,
    after: Estimate,
    bleed: Estimate,
    /// Bootstrap draws of the base's share and the other model's.
    drawn: [Vec<f64>; 2],
}

/// Shares behind `flags`, with the detector's errors removed where `detector` is given; its rates
/// are drawn anew in each replicate.
fn share(input: &CensusInput, flags: &Flags, detector: Option<&Detector>) -> Share {
    let truth = |q: f64, rates: Option<&Detector>| rates.map_or(q, |d| d.correct_always(q));
    let (q_b, q_a) = flags.rates(None);
    let resampler = input.resampler();
    let (mut before, mut after, mut bleed) = (Vec::new(), Vec::new(), Vec::new());
    for draw in 0..resampler.draws {
        let (q_b, q_a) = flags.rates(Some(&resampler.positions(draw, &flags.lengths())));
        let mut stream = draws::stream(input.seed, u64::from(draw), 1, draws::Purpose::Bootstrap);
        let rates = detector.map(|d| d.resampled(&mut stream));
        let (b, a) = (truth(q_b, rates.as_ref()), truth(q_a, rates.as_ref()));
        before.push(b);
        after.push(a);
        bleed.push(a - b);
    }
    let one = |q: f64, drawn: &[f64]| bounded(q, drawn, flags, detector);
    let (one_b, one_a) = (one(q_b, &before), one(q_a, &after));
    let mut change = with_percentiles(one_a.value - one_b.value, &bleed);
    // Where no replicate differs from another, the ends of both shares still bound the change.
    if let ([Some(b), Some(a)], Some([low, high])) = ([one_b.ci, one_a.ci], change.ci)
        && high - low < 1e-12
    {
        change = Estimate::with(change.value, [a[0] - b[1], a[1] - b[0]], CiKind::RuleOfThree);
    }
    Share { before: one_b, after: one_a, bleed: change, drawn: [before, after] }
}

/// The share behind a rate `q`. A bootstrap of pictures that are all alike has no spread, so at both
/// ends the interval is widened by what may have been missed.
fn bounded(q: f64, drawn: &[f64], flags: &Flags, detector: Option<&Detector>) -> Estimate {
    let value = detector.map_or(q, |d| d.correct_always(q));
    let Some([low, high]) = percentile(drawn, 0.95) else { return Estimate::bare(value) };
    let never = never_seen(flags.0.iter().map(|(weight, base, _)| (*weight, base.len())), 0.05, 1);
    if value <= 0.0 {
        let gap = detector.map_or(1.0, |d| (d.tpr() - d.fpr()).max(0.05));
        return Estimate::with(value, [0.0, high.max((never / gap).min(1.0))], CiKind::RuleOfThree);
    }
    if q >= 1.0 {
        // As if every picture of the concept were found, which bounds its share from below.
        let fpr = detector.map_or(0.0, Detector::fpr);
        let least = ((1.0 - never - fpr) / (1.0 - fpr)).max(0.0);
        return Estimate::with(value, [low.min(least), 1.0], CiKind::RuleOfThree);
    }
    Estimate::with(value, [low, high], CiKind::Percentile)
}

fn with_percentiles(value: f64, drawn: &[f64]) -> Estimate {
    percentile(drawn, 0.95)
        .map_or(Estimate::bare(value), |ci| Estimate::with(value, ci, CiKind::Percentile))
}

/// The detector, if its errors may be corrected for; otherwise one refusal with the reason.
fn usable<'a>(input: &'a CensusInput, refused: Option<&mut Vec<Refusal>>) -> Option<&'a Detector> {
    let reason = match &input.detector {
        None => "no detector was fitted".to_owned(),
        Some(detector) => match detector.correct(0.0) {
            Ok(_) => return Some(detector),
            Err(reason) => reason,
        },
    };
    if let Some(refused) = refused {
        refused.push(Refusal { what: "corrected share of the concept".to_owned(), reason });
    }
    None
}

/// The leak ladder.
pub(super) fn leak(
    input: &CensusInput,
    pictures: &Pictures<'_>,
    refused: &mut Vec<Refusal>,
) -> Result<LeakRecord, EvalError> {
    let detector = usable(input, Some(&mut *refused));
    let mut levels = Vec::new();
    let mut rungs: Vec<(&str, Vec<PromptPairs<'_>>)> = Vec::new();
    for stratum in RUNGS {
        rungs.push((stratum.id(), pictures.pooled(stratum, Drawn::ADAPTED)?));
    }
    rungs.push(("unasked", pictures.headline(&input.panel, Drawn::ADAPTED)?));
    for (id, prompts) in &rungs {
        let Some(flags) = Flags::read(prompts) else {
            let reason = if prompts.is_empty() {
                without_prompts(id, input.concept.identifier.as_deref())
            } else {
                "no pictures with a detector score"
            };
            refused.push(Refusal { what: format!("leak level {id}"), reason: reason.to_owned() });
            continue;
        };
        let (before, after) = flags.rates(None);
        let share = share(input, &flags, detector);
        levels.push(LeakLevel {
            level: (*id).to_owned(),
            pairs: count(prompts),
            raw: BeforeAfter { before, after },
            before: share.before,
            after: share.after,
            bleed: share.bleed,
            corrected: detector.is_some(),
        });
    }
    let scores = |rung: usize| -> Vec<f64> {
        let rows = rungs[rung].1.iter().flat_map(|pairs| &pairs.other);
        rows.filter_map(|row| row.detector_score.map(f64::from)).collect()
    };
    let selectivity = auc(&scores(0), &scores(1));
    let decay = match decay(input, &rungs, detector) {
        Ok(decay) => Some(decay),
        Err(reason) => {
            refused.push(Refusal { what: "decay of the leak".to_owned(), reason });
            None
        }
    };
    Ok(LeakRecord { detector: input.detector, levels, selectivity, decay })
}

/// Slope of the bleed over distance from the concept's class, in steps of the thesaurus: the class itself,
/// which captions without the identifier ask for, its siblings, and unrelated entities.
fn decay(
    input: &CensusInput,
    rungs: &[(&str, Vec<PromptPairs<'_>>)],
    detector: Option<&Detector>,
) -> Result<Estimate, String> {
    let class = input.concept.class.as_deref().ok_or("the recipe names no class of the concept")?;
    let wanted = [Stratum::Plain, Stratum::Sibling, Stratum::Unrelated].map(Stratum::id);
    let (mut steps, mut flags) = (Vec::new(), Flags(Vec::new()));
    for (id, prompts) in rungs.iter().filter(|(id, _)| wanted.contains(id)) {
        for pairs in prompts {
            let entity = pairs.asked.filter(|_| *id != Stratum::Plain.id()).unwrap_or(class);
            let Some(distance) = input.thesaurus.path_length(class, entity) else { continue };
            let Some(read) = Flags::read(std::slice::from_ref(pairs)) else { continue };
            steps.push(real(distance));
            flags.0.extend(read.0);
        }
    }
    let rise = |positions: Option<&[Vec<usize>]>, detector: Option<&Detector>| {
        let truth = |q: f64| detector.map_or(q, |d| d.correct_always(q));
        let bleeds: Vec<f64> =
            flags.rates_each(positions).iter().map(|(b, a)| truth(*a) - truth(*b)).collect();
        slope(&steps, &bleeds)
    };
    let value = rise(None, detector).ok_or("all prompts lie equally far from the class")?;
    let resampler = input.resampler();
    let drawn: Vec<f64> = (0..resampler.draws)
        .filter_map(|draw| {
            let positions = resampler.positions(draw, &flags.lengths());
            let mut stream =
                draws::stream(input.seed, u64::from(draw), 1, draws::Purpose::Bootstrap);
            let rates = detector.map(|d| d.resampled(&mut stream));
            rise(Some(&positions), rates.as_ref())
        })
        .collect();
    if drawn.iter().any(|other| (other - value).abs() > 1e-12) {
        return Ok(with_percentiles(value, &drawn));
    }
    if flags.0.iter().all(|(_, base, other)| !base.iter().chain(other).any(|fires| *fires)) {
        return Err("the concept came in none of these pictures".to_owned());
    }
    let reach = missed(&steps, &flags, detector);
    Ok(Estimate::with(value, [value - reach, value + reach], CiKind::RuleOfThree))
}

/// How far a slope may lie from its value if every prompt missed as much as it may have.
fn missed(steps: &[f64], flags: &Flags, detector: Option<&Detector>) -> f64 {
    let gap = detector.map_or(1.0, |d| (d.tpr() - d.fpr()).max(0.05));
    let center = mean(steps).unwrap_or(0.0);
    let spread: f64 = steps.iter().map(|x| (x - center) * (x - center)).sum();
    let of_prompt = |(x, (_, base, _)): (&f64, &(f64, Vec<bool>, Vec<bool>))| {
        let never = never_seen(std::iter::once((1.0, base.len())), 0.05, steps.len());
        (x - center).abs() / spread * (never / gap).min(1.0)
    };
    steps.iter().zip(&flags.0).map(of_prompt).sum()
}

/// Slope of the line of least squares; `None` where all `x` are equal.
fn slope(x: &[f64], y: &[f64]) -> Option<f64> {
    let (center_x, center_y) = (mean(x)?, mean(y)?);
    let spread: f64 = x.iter().map(|x| (x - center_x) * (x - center_x)).sum();
    let shared: f64 = x.iter().zip(y).map(|(x, y)| (x - center_x) * (y - center_y)).sum();
    (spread > 0.0).then(|| shared / spread)
}

/// Why nothing was asked on a rung.
fn without_prompts(rung: &str, identifier: Option<&str>) -> &'static str {
    match (rung, identifier) {
        ("identifier" | "plain", Some(_)) => "no caption holds the identifier",
        ("identifier", None) => "no picture has a caption",
        ("plain", None) => "the recipe names no identifier to leave out",
        ("sibling", _) => "the thesaurus has no siblings of the concept's class",
        _ => "the thesaurus has no entity unrelated to the concept's class",
    }
}

/// Share against dose, with the base as dose 0 where no dose 0 was drawn; `None` with fewer than two.
///
/// All doses are compared on the seeds that every one of them drew.
pub(super) fn dose(
    input: &CensusInput,
    pictures: &Pictures<'_>,
    refused: &mut Vec<Refusal>,
) -> Result<Option<DoseRecord>, EvalError> {
    let facet = input.rows.facets.iter().position(|facet| *facet == input.concept.facet);
    let detector = usable(input, None);
    let mut drawn = Vec::new();
    for dose in pictures.doses() {
        drawn.push((dose, pictures.headline(&input.panel, Drawn::adapted(dose))?));
    }
    let common = common_seeds(drawn.iter().map(|(_, prompts)| prompts.as_slice()));
    let mut points: Vec<DosePoint> = Vec::new();
    // `[dose][draw]`: every dose has the same seeds, so a draw is a whole trajectory.
    let mut trajectories: Vec<Vec<f64>> = Vec::new();
    for (dose, prompts) in drawn {
        let prompts = restricted(prompts, &common);
        let Some(flags) = Flags::read(&prompts) else { continue };
        let Share { before, after, drawn: [of_base, of_dose], .. } = share(input, &flags, detector);
        let pairs = count(&prompts);
        if points.is_empty() && dose > 0.0 {
            points.push(DosePoint { dose: 0.0, pairs, share: before, tv: 0.0 });
            trajectories.push(of_base);
        }
        let tv = facet.map_or(0.0, |facet| distance(&prompts, facet));
        points.push(DosePoint { dose, pairs, share: after, tv });
        trajectories.push(of_dose);
    }
    if points.len() < 2 {
        return Ok(None);
    }
    let doses: Vec<f64> = points.iter().map(|point| point.dose).collect();
    let shares: Vec<f64> = points.iter().map(|point| point.share.value).collect();
    let falls = shares.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let half = half_effect(&doses, &shares, &trajectories);
    if half.is_none() {
        let reason = "the rise from dose 0 to dose 1 is not beyond chance";
        refused.push(Refusal { what: "dose of half effect".into(), reason: reason.into() });
    }
    Ok(Some(DoseRecord {
        fit: isotonic(&shares),
        half_effect: half.map(|half| half.value),
        half_effect_ci: half.and_then(|half| half.ci),
        violations: len(falls),
        points,
    }))
}

/// Prompts and seeds that every dose drew.
fn common_seeds<'a>(doses: impl Iterator<Item = &'a [PromptPairs<'a>]>) -> BTreeSet<(String, u32)> {
    let seeds = |prompts: &[PromptPairs<'_>]| -> BTreeSet<(String, u32)> {
        let of_prompt = |pairs: &PromptPairs<'_>| {
            let seeds: Vec<(String, u32)> =
                pairs.base.iter().map(|row| (row.prompt.clone(), row.seed_idx)).collect();
            seeds
        };
        prompts.iter().flat_map(of_prompt).collect()
    };
    doses.map(seeds).reduce(|a, b| a.intersection(&b).cloned().collect()).unwrap_or_default()
}

/// The pairs of these seeds; prompts without any fall away and the weights of the rest sum to 1.
fn restricted<'a>(
    prompts: Vec<PromptPairs<'a>>,
    seeds: &BTreeSet<(String, u32)>,
) -> Vec<PromptPairs<'a>> {
    let keep = |row: &&Row| seeds.contains(&(row.prompt.clone(), row.seed_idx));
    let mut kept: Vec<PromptPairs<'a>> = prompts
        .into_iter()
        .map(|pairs| PromptPairs {
            base: pairs.base.into_iter().filter(keep).collect(),
            other: pairs.other.into_iter().filter(keep).collect(),
            ..pairs
        })
        .filter(|pairs| !pairs.base.is_empty())
        .collect();
    let total: f64 = kept.iter().map(|pairs| pairs.weight).sum();
    for pairs in &mut kept {
        pairs.weight /= total;
    }
    kept
}

/// Total variation in one facet between the base and the other model of these pairs.
fn distance(prompts: &[PromptPairs<'_>], facet: usize) -> f64 {
    let mut shares: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for pairs in prompts {
        let unit = pairs.weight / real_u64(u64::try_from(pairs.base.len()).unwrap_or(1).max(1));
        for (base, other) in pairs.base.iter().zip(&pairs.other) {
            shares.entry(entity(base, facet)).or_default().0 += unit;
            shares.entry(entity(other, facet)).or_default().1 += unit;
        }
    }
    let (p, q): (Vec<f64>, Vec<f64>) = shares.values().copied().unzip();
    total_variation(&p, &q)
}

fn entity(row: &Row, facet: usize) -> &str {
    if row.blocked { BLOCKED } else { row.labels.get(facet).map_or("", |label| &label.entity) }
}
