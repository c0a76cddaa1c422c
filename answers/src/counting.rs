//! Known answers of counting: the table of pairs, simultaneous intervals, floors, entropies, and the
//! split into dilution and selection.

use crate::answer::{Answer, Check};
use eval::EvalError;
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use serde_json::{Value, json};
use statistics::contingency::{PairedLabels, disagreement, total_variation};
use statistics::depopulation::{self, Split, displaced, effective, evenness_loss, kl};
use statistics::diversity::{self, chao_shen, miller_madow, plug_in_entropy};
use statistics::dose::{half_effect_dose, isotonic};
use statistics::drawn::{categorical, labels_of, zipf};
use statistics::interval::{
    MarginalTest, Replicate, Resampler, bhapkar, max_t, mcnemar, percentile, sign_flip,
    stuart_maxwell,
};
use statistics::number::{mean, real};
use statistics::turnover::turnover;

/// A test of a square table of pairs, rows base, columns adapted model.
type TableTest<'a> = &'a dyn Fn(&[Vec<u64>]) -> Option<MarginalTest>;

/// Pairs of four categories; in the fourth only the adapted model gains.
const TABLE: [[u64; 4]; 4] = [[40, 5, 0, 2], [3, 30, 1, 4], [0, 0, 25, 6], [0, 0, 0, 10]];

/// KAT `table`: every figure that is read off one table of 126 pairs, with and without a category
/// that nobody bears.
///
/// Source: Stuart 1955, Maxwell 1970, Bhapkar 1966, Fagerland, Lydersen & Laake 2013, Pontius &
/// Santacruz 2014; statsmodels agrees, see `scripts/census_xcheck.py`.
///
/// # Errors
///
/// None.
pub fn table(_seed: u64) -> Result<Answer, EvalError> {
    Ok(table_with(&stuart_maxwell))
}

fn table_with(test: TableTest<'_>) -> Answer {
    let table: Vec<Vec<u64>> = TABLE.iter().map(|row| row.to_vec()).collect();
    let mut wide = table.clone();
    for row in &mut wide {
        row.push(0);
    }
    wide.push(vec![0; wide.len() + 1]);
    let mut checks = table_tests("", test(&table));
    checks.extend(table_tests(", with an empty category", test(&wide)));
    checks.extend(table_differences(&table));
    checks.extend(table_pairs(&table));
    Answer { name: "table", checks, inputs: json!({ "table": table, "wide": wide }) }
}

fn table_tests(suffix: &str, test: Option<MarginalTest>) -> Vec<Check> {
    let nothing = MarginalTest { statistic: f64::NAN, df: 0, p: f64::NAN };
    let test = test.unwrap_or(nothing);
    let wider = bhapkar(test, 126).unwrap_or(nothing);
    vec![
        Check::new(format!("Stuart–Maxwell χ²{suffix}"), test.statistic, 12.575_221, 1e-6),
        Check::new(format!("degrees of freedom{suffix}"), real(test.df), 3.0, 0.0),
        Check::new(format!("Stuart–Maxwell p{suffix}"), test.p, 0.005_651, 1e-6),
        Check::new(format!("Bhapkar χ²{suffix}"), wider.statistic, 13.969_416, 1e-6),
    ]
}

fn table_differences(table: &[Vec<u64>]) -> Vec<Check> {
    let shares = labels_of(table).shares(None);
    let delta = [-0.031_746, -0.023_810, -0.039_683, 0.095_238];
    let error = [0.024_938, 0.028_537, 0.020_698, 0.026_151];
    let mut checks = Vec::new();
    for (i, found) in shares.delta().into_iter().enumerate() {
        checks.push(Check::new(format!("Δ of category {i}"), found, delta[i], 1e-6));
        let found = shares.delta_error[i];
        checks.push(Check::new(format!("error of Δ of category {i}"), found, error[i], 1e-6));
    }
    checks
}

fn table_pairs(table: &[Vec<u64>]) -> Vec<Check> {
    let exact = [0.343_750, 0.581_055, 0.125_000, 0.000_488];
    let mid = [0.226_563, 0.423_950, 0.070_313, 0.000_244];
    let mut checks = Vec::new();
    for (i, cells) in table.iter().enumerate() {
        let row: u64 = cells.iter().sum();
        let column: u64 = table.iter().map(|others| others[i]).sum();
        let test = mcnemar(row - cells[i], column - cells[i]);
        checks.push(Check::new(format!("McNemar p of category {i}"), test.exact, exact[i], 1e-6));
        checks.push(Check::new(format!("McNemar mid-p of category {i}"), test.mid, mid[i], 1e-6));
    }
    if let Some(parts) = disagreement(table) {
        checks.extend([
            Check::new("discordance", parts.discordance, 0.166_667, 1e-6),
            Check::new("quantity", parts.quantity, 0.095_238, 1e-6),
            Check::new("exchange", parts.exchange, 0.047_619, 1e-6),
            Check::new("shift", parts.shift, 0.023_810, 1e-6),
        ]);
    }
    checks
}

/// Simultaneous intervals from estimates, their errors and bootstrap replicates.
type Intervals<'a> = &'a (dyn Fn(&[f64], &[f64], &[Replicate]) -> Vec<[f64; 2]> + Sync);

/// Shares of the twelve entities of the world of `coverage` in the base.
const SETTLED: [f64; 12] = [0.20, 0.15, 0.13, 0.11, 0.09, 0.08, 0.07, 0.06, 0.04, 0.03, 0.03, 0.01];
/// Pairs, bootstrap replicates and worlds of `coverage`.
const PAIRS: u32 = 800;
const REPLICATES: u32 = 400;
const WORLDS: u64 = 300;

/// KAT `coverage`: over 300 worlds, max-t intervals hold all 13 true differences at once in 95 of
/// 100 worlds; percentile intervals of each entity do so in 43.
///
/// # Errors
///
/// None.
pub fn coverage(seed: u64) -> Result<Answer, EvalError> {
    Ok(coverage_with(seed, &|delta, errors, replicates| max_t(delta, errors, replicates, 0.95)))
}

/// One percentile interval per entity: simultaneous for none.
fn percentiles(delta: &[f64], replicates: &[Replicate]) -> Vec<[f64; 2]> {
    let of_entity = |i: usize| {
        let drawn: Vec<f64> = replicates.iter().map(|replicate| replicate.values[i]).collect();
        percentile(&drawn, 0.95).unwrap_or([f64::NAN; 2])
    };
    (0..delta.len()).map(of_entity).collect()
}

fn coverage_with(seed: u64, intervals: Intervals<'_>) -> Answer {
    let truth = coverage_truth();
    let all = |found: &[[f64; 2]]| {
        let mut pairs = found.iter().zip(&truth);
        f64::from(u8::from(pairs.all(|(ci, value)| ci[0] <= *value && *value <= ci[1])))
    };
    let world = |world: u64| {
        let labels = labels_of(&coverage_table(seed, world));
        let shares = labels.shares(None);
        let replicates = coverage_replicates(&labels, seed.wrapping_mul(1_000_003) ^ world);
        let delta = shares.delta();
        let joint = intervals(&delta, &shares.delta_error, &replicates);
        [all(&joint), all(&percentiles(&delta, &replicates))]
    };
    let held: Vec<[f64; 2]> = (0..WORLDS).into_par_iter().map(world).collect();
    let share = |i: usize| {
        let column: Vec<f64> = held.iter().map(|pair| pair[i]).collect();
        mean(&column).unwrap_or(f64::NAN)
    };
    let first = coverage_table(seed, 0);
    let shares = labels_of(&first).shares(None);
    Answer {
        name: "coverage",
        checks: vec![
            Check::between("worlds in which max-t holds all 13", share(0), 0.92, 0.98),
            Check::at_most("worlds in which percentiles hold all 13", share(1), 0.7),
        ],
        inputs: json!({
            "shares": SETTLED, "pairs": PAIRS, "draws": REPLICATES, "worlds": WORLDS,
            "truth": truth, "table": first, "delta": shares.delta(), "error": shares.delta_error,
        }),
    }
}

/// `P_A − P_B` for `P_ij = .9·p_i(.8·1[i=j] + .2·p_j)`, `P_i,new = .1·p_i`.
fn coverage_truth() -> Vec<f64> {
    let of_entity = |j: usize| {
        let stay = |i: usize| if i == j { 0.8 } else { 0.0 };
        let terms = SETTLED.iter().enumerate();
        let after: f64 = terms.map(|(i, p)| 0.9 * p * (stay(i) + 0.2 * SETTLED[j])).sum();
        after - SETTLED[j]
    };
    (0..SETTLED.len()).map(of_entity).chain([0.1]).collect()
}

fn coverage_table(seed: u64, world: u64) -> Vec<Vec<u64>> {
    let stream = &mut draws::stream(seed, world, 0, Purpose::Scene);
    let new = SETTLED.len();
    let mut table = vec![vec![0_u64; new + 1]; new + 1];
    for _ in 0..PAIRS {
        let from = categorical(&SETTLED, stream);
        let change = draws::uniform(stream);
        let to = if change < 0.1 {
            new
        } else if change < 0.82 {
            from
        } else {
            categorical(&SETTLED, stream)
        };
        table[from][to] += 1;
    }
    table
}

fn coverage_replicates(labels: &PairedLabels, seed: u64) -> Vec<Replicate> {
    let (resampler, lengths) = (Resampler { seed, draws: REPLICATES }, labels.lengths());
    let replicate = |draw: u32| {
        let drawn = labels.shares(Some(&resampler.positions(draw, &lengths)));
        Replicate { values: drawn.delta(), errors: drawn.delta_error }
    };
    (0..REPLICATES).map(replicate).collect()
}

/// Categories, and the exact expectations of the total variation between two samples of 2000, drawn
/// apart and with 5 % of the pairs drawn anew.
const FLOORS: [(u32, f64, f64); 3] =
    [(5, 0.023_432, 0.005_216), (50, 0.074_053, 0.015_543), (200, 0.136_767, 0.023_318)];
/// Pairs and repetitions of `floor`.
const FLOOR_PAIRS: u32 = 2000;
const FLOOR_REPETITIONS: u64 = 1200;

/// KAT `floor`: two samples of one law differ, less if they are paired.
///
/// The expectations are those of the binomial differences themselves, to six digits: Σ E|X − Y|/2N
/// over categories for samples drawn apart, and the distance of a walk of N steps, ±1 with
/// probability `.05·p(1 − p)` each, for paired ones.
///
/// # Errors
///
/// None.
pub fn floor(seed: u64) -> Result<Answer, EvalError> {
    let mut checks = Vec::new();
    for (k, apart, paired) in FLOORS {
        let p = zipf(k);
        let one = |repetition: u64| {
            let stream = &mut draws::stream(seed, repetition, u64::from(k), Purpose::Scene);
            distances(&p, stream)
        };
        let found: Vec<[f64; 2]> = (0..FLOOR_REPETITIONS).into_par_iter().map(one).collect();
        let average = |i: usize| {
            let column: Vec<f64> = found.iter().map(|pair| pair[i]).collect();
            mean(&column).unwrap_or(f64::NAN)
        };
        checks.extend([
            Check::new(format!("floor of {k}, drawn apart"), average(0), apart, 0.05 * apart),
            Check::new(format!("floor of {k}, paired"), average(1), paired, 0.05 * paired),
        ]);
    }
    let inputs = json!({
        "categories": FLOORS.map(|(k, _, _)| k), "pairs": FLOOR_PAIRS, "redrawn": 0.05,
        "repetitions": FLOOR_REPETITIONS,
    });
    Ok(Answer { name: "floor", checks, inputs })
}

/// Total variation between a sample of `p` and another one, and one with 5 % drawn anew.
fn distances(p: &[f64], stream: &mut draws::Stream) -> [f64; 2] {
    let unit = 1.0 / f64::from(FLOOR_PAIRS);
    let mut shares = [vec![0.0; p.len()], vec![0.0; p.len()], vec![0.0; p.len()]];
    for _ in 0..FLOOR_PAIRS {
        let label = categorical(p, stream);
        let other = categorical(p, stream);
        let redrawn = draws::uniform(stream) < 0.05;
        let kept = if redrawn { categorical(p, stream) } else { label };
        shares[0][label] += unit;
        shares[1][other] += unit;
        shares[2][kept] += unit;
    }
    [total_variation(&shares[0], &shares[1]), total_variation(&shares[0], &shares[2])]
}

/// KAT `entropy`: three estimators at two sample sizes under Zipf's law over 200, mean of 200
/// repetitions.
///
/// # Errors
///
/// None.
pub fn entropy(seed: u64) -> Result<Answer, EvalError> {
    let p = zipf(200);
    let mut checks = vec![Check::new("entropy", diversity::entropy(&p), 4.148_975, 1e-6)];
    let mut samples = Vec::new();
    for (n, expected) in [(500_u64, [3.937, 4.062, 4.195]), (2000, [4.095, 4.142, 4.169])] {
        let counted = |repetition: u64| {
            let stream = &mut draws::stream(seed, repetition, n, Purpose::Scene);
            let mut counts = vec![0_u64; p.len()];
            for _ in 0..n {
                counts[categorical(&p, stream)] += 1;
            }
            counts
        };
        let estimates =
            |counts: &[u64]| [plug_in_entropy(counts), miller_madow(counts), chao_shen(counts)];
        let drawn = |repetition: u64| estimates(&counted(repetition));
        let found: Vec<[f64; 3]> = (0..200_u64).into_par_iter().map(drawn).collect();
        for (i, name) in ["plug-in", "Miller–Madow", "Chao–Shen"].into_iter().enumerate() {
            let column: Vec<f64> = found.iter().map(|values| values[i]).collect();
            let value = mean(&column).unwrap_or(f64::NAN);
            checks.push(Check::new(format!("{name} of {n}"), value, expected[i], 0.02));
        }
        let counts = counted(0);
        samples.push(json!({ "n": n, "found": estimates(&counts), "counts": counts }));
    }
    let inputs = json!({ "categories": 200, "repetitions": 200, "samples": samples });
    Ok(Answer { name: "entropy", checks, inputs })
}

/// KAT `fair`: a fair coin strays from one half by itself. The exact expectation, and the floor that
/// sign flips give of it.
///
/// # Errors
///
/// None.
pub fn fair(seed: u64) -> Result<Answer, EvalError> {
    let mut checks = Vec::new();
    for (n, expected) in [(4_usize, 0.1875), (8, 0.1367), (16, 0.0982), (64, 0.0497)] {
        let exact = fair_deviation(n);
        checks.push(Check::new(format!("deviation of {n} throws"), exact, expected, 5e-5));
        let deviation = |flips: &[bool]| {
            let heads = flips.iter().filter(|&&flip| flip).count();
            vec![(real(heads) / real(n) - 0.5).abs()]
        };
        let floor = sign_flip(seed, 20_000, n, &deviation).floor[0];
        checks.push(Check::new(format!("floor by flips of {n} throws"), floor, expected, 0.005));
    }
    Ok(Answer { name: "fair", checks, inputs: json!({ "throws": [4, 8, 16, 64] }) })
}

/// E|p̂ − ½| of `n` throws, by the recurrence of binomial probabilities.
fn fair_deviation(n: usize) -> f64 {
    let mut probability = libm::pow(0.5, real(n));
    let mut sum = 0.0;
    for k in 0..=n {
        sum += probability * (real(k) / real(n) - 0.5).abs();
        probability *= real(n - k) / real(k + 1);
    }
    sum
}

/// Splits a change of shares into dilution and selection.
type Splitting<'a> = &'a dyn Fn(&[f64], &[f64], Option<usize>) -> Split;

/// Shares before and after a settlement that was not there before, and of one that was.
const BEFORE: [f64; 6] = [0.35, 0.25, 0.20, 0.15, 0.05, 0.0];
const AFTER: [f64; 6] = [0.28, 0.20, 0.08, 0.20, 0.04, 0.20];
const BEFORE_KNOWN: [f64; 6] = [0.30, 0.25, 0.20, 0.15, 0.05, 0.05];
const AFTER_KNOWN: [f64; 6] = [0.25, 0.20, 0.08, 0.18, 0.04, 0.25];

/// KAT `split`: the parts of a change in nats, the selection coefficients, and who was displaced.
///
/// # Errors
///
/// None.
pub fn split(_seed: u64) -> Result<Answer, EvalError> {
    Ok(split_with(&depopulation::split))
}

fn split_with(splitting: Splitting<'_>) -> Answer {
    let residents = [true, true, true, true, true, false];
    let parts = splitting(&BEFORE, &AFTER, Some(5));
    let mut checks = vec![
        Check::new("KL", kl(&BEFORE, &AFTER), 0.285_149, 1e-6),
        Check::new("dilution", parts.dilution, 0.223_144, 1e-6),
        Check::new("selection", parts.selection, 0.062_006, 1e-6),
        Check::new("JS", parts.js_dilution + parts.js_selection, 0.088_008, 1e-6),
        Check::new("JS dilution", parts.js_dilution, 0.074_882, 1e-6),
        Check::new("JS selection", parts.js_selection, 0.013_126, 1e-6),
    ];
    let known = [0.0, 0.0, -std::f64::consts::LN_2, 0.510_826, 0.0];
    for (i, expected) in known.into_iter().enumerate() {
        let found = parts.coefficients.get(i).copied().flatten().unwrap_or(f64::NAN);
        let what = format!("selection coefficient of entity {i}");
        checks.push(Check::new(what, found, expected, 1e-6));
    }
    let (before, after) = (effective(&BEFORE, &residents), effective(&AFTER, &residents));
    checks.extend([
        Check::new("^0D before", before[0], 5.0, 1e-6),
        Check::new("^1D before", before[1], 4.350_338, 1e-6),
        Check::new("^2D before", before[2], 4.0, 1e-6),
        Check::new("^1D after", after[1], 4.223_356, 1e-6),
        Check::new("evenness loss", evenness_loss(&BEFORE, &AFTER, &residents), 0.029_189, 1e-6),
        Check::new("displaced", displaced(&BEFORE, &AFTER, &residents), 0.25, 1e-6),
    ]);
    let known = splitting(&BEFORE_KNOWN, &AFTER_KNOWN, Some(5));
    checks.extend([
        Check::new("KL, known before", kl(&BEFORE_KNOWN, &AFTER_KNOWN), 0.197_078, 1e-6),
        Check::new("dilution, known before", known.dilution, 0.144_097, 1e-6),
        Check::new("selection, known before", known.selection, 0.052_980, 1e-6),
    ]);
    let worlds: [Value; 2] = [
        json!({ "before": BEFORE, "after": AFTER, "new": 5 }),
        json!({ "before": BEFORE_KNOWN, "after": AFTER_KNOWN, "new": 5 }),
    ];
    Answer { name: "split", checks, inputs: json!({ "worlds": worlds }) }
}

/// The part of KAT `dose` that needs no world: the isotonic fit, the dose of half effect, and the
/// parts of a turnover.
///
/// Source: Ayer et al. 1955 (pooling); Baselga 2010 (turnover and nestedness of Jaccard's distance).
///
/// # Errors
///
/// None.
pub fn dose_curve(_seed: u64) -> Result<Answer, EvalError> {
    let (doses, shares) =
        ([0.0, 0.25, 0.5, 0.75, 1.0], [0.046_35, 0.088_90, 0.151_35, 0.228_00, 0.305_70]);
    let half = half_effect_dose(&doses, &shares).unwrap_or(f64::NAN);
    let mut checks = vec![Check::new("dose of half effect", half, 0.580_48, 1e-5)];
    for (i, (found, expected)) in
        isotonic(&[1.0, 3.0, 2.0, 4.0]).into_iter().zip([1.0, 2.5, 2.5, 4.0]).enumerate()
    {
        checks.push(Check::new(format!("isotonic fit at {i}"), found, expected, 1e-12));
    }
    let parts =
        turnover(&[true, true, true, true, true, false], &[true, true, true, false, false, true]);
    checks.extend([
        Check::new("Jaccard distance", parts.jaccard, 0.5, 1e-12),
        Check::new("turnover", parts.turnover, 0.4, 1e-12),
        Check::new("nestedness", parts.nestedness, 0.1, 1e-12),
    ]);
    let inputs = json!({
        "doses": doses, "shares": shares, "values": [1, 3, 2, 4], "before": "abcde", "after": "abcf",
    });
    Ok(Answer { name: "dose", checks, inputs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use eval::census::{CensusInput, reduce};
    use eval::json::CensusReport;
    use eval::rows::Model;
    use eval::{synthetic, thesaurus};
    use statistics::interval::chi_square_survival;
    use statistics::number::real_u64;

    /// χ² = dᵀV⁻¹d with only the last category dropped, whether or not anybody bears the others.
    #[expect(clippy::unnecessary_wraps, reason = "it stands in for the instrument")]
    fn stuart_maxwell_of_all(table: &[Vec<u64>]) -> Option<MarginalTest> {
        let df = table.len() - 1;
        let row = |i: usize| real_u64(table[i].iter().sum::<u64>());
        let column = |i: usize| real_u64(table.iter().map(|cells| cells[i]).sum::<u64>());
        let cell = |i: usize, j: usize| real_u64(table[i][j]);
        let d: Vec<f64> = (0..df).map(|i| column(i) - row(i)).collect();
        let entry = |i: usize, j: usize| {
            let moved = row(i) + column(i) - 2.0 * cell(i, i);
            if i == j { moved } else { -cell(i, j) - cell(j, i) }
        };
        let mut v: Vec<Vec<f64>> =
            (0..df).map(|i| (0..df).map(|j| entry(i, j)).chain([d[i]]).collect()).collect();
        for pivot in 0..df {
            let scale = v[pivot][pivot];
            v[pivot].iter_mut().for_each(|value| *value /= scale);
            let done = v[pivot].clone();
            for (_, line) in v.iter_mut().enumerate().filter(|(i, _)| *i != pivot) {
                let factor = line[pivot];
                line.iter_mut().zip(&done).for_each(|(value, known)| *value -= factor * known);
            }
        }
        let statistic = d.iter().zip(&v).map(|(value, line)| value * line[df]).sum();
        Some(MarginalTest { statistic, df, p: chi_square_survival(statistic, df) })
    }

    #[test]
    fn a_test_that_keeps_an_empty_category_is_caught() {
        let kept = table_with(&stuart_maxwell_of_all);
        assert!(kept.checks[0].holds(), "without an empty category it is the same test");
        assert!(!kept.holds());
    }

    #[test]
    fn percentiles_in_place_of_max_t_are_caught() {
        assert!(!coverage_with(1, &|delta, _, drawn| percentiles(delta, drawn)).holds());
    }

    #[test]
    fn swapped_models_are_caught() {
        let swapped = split_with(&|before, after, new| depopulation::split(after, before, new));
        assert!(!swapped.holds());
    }

    #[test]
    fn a_selection_coefficient_without_the_dilution_is_caught() {
        let raw = split_with(&|before, after, new| {
            let pairs = before.iter().zip(after).enumerate();
            let log = |(i, (p, q)): (usize, (&f64, &f64))| {
                (Some(i) != new && *p > 0.0 && *q > 0.0).then(|| libm::log(q / p))
            };
            Split {
                coefficients: pairs.map(log).collect(),
                ..depopulation::split(before, after, new)
            }
        });
        let wrong: Vec<&str> =
            raw.checks.iter().filter(|check| !check.holds()).map(|c| c.what.as_str()).collect();
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert!(wrong.iter().all(|what| what.starts_with("selection coefficient")), "{wrong:?}");
    }

    /// Every twelfth unasked picture of the adapted model is withheld: all of them are counted.
    fn blocked_with(reduction: &dyn Fn(&CensusInput) -> Result<CensusReport, EvalError>) -> Answer {
        let mut input = synthetic::census(40, &synthetic::settled);
        for row in &mut input.rows.rows {
            row.blocked = row.model == Model::Adapted && row.seed_idx < 4;
        }
        let report = reduction(&input).unwrap();
        let entities = &report.facets[0].entities;
        let blocked = entities.iter().find(|entity| entity.id == thesaurus::BLOCKED);
        let pairs = entities.iter().map(|entity| entity.n_a).sum::<u64>();
        Answer {
            name: "blocked",
            checks: vec![
                Check::new("blocked", blocked.map_or(0.0, |e| real_u64(e.n_a)), 12.0, 0.0),
                Check::new("pictures", real_u64(pairs), 120.0, 0.0),
            ],
            inputs: Value::Null,
        }
    }

    #[test]
    fn a_census_that_drops_blocked_pictures_is_caught() {
        assert!(blocked_with(&reduce).holds());
        let dropping = blocked_with(&|input| {
            let mut rest = input.clone();
            rest.rows.rows.retain(|row| !row.blocked);
            reduce(&rest)
        });
        assert!(!dropping.holds());
    }
}
