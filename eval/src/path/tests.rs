use super::*;
use recipes::draws::{self, Purpose};

fn step<'a>(base: &'a [f64], others: &'a [Vec<f64>], noise: &'a [f64]) -> PathStep<'a, f64> {
    PathStep { gain: -2.0, sigma: 0.5, base, others, noise }
}

#[test]
fn sums_follow_the_two_means_of_each_step() {
    // Two trajectories of one value; μ moves by −2 per unit of output, σ is ½.
    let (base, other, noise) = ([0.1, 0.4], [0.35, 0.4], [0.7, -1.0]);
    let mut sums = PathSums::new(1, 2, 1);
    sums.add(&step(&base, &[other.to_vec()], &noise)).unwrap();
    let found = sums.finish();
    for i in 0..2 {
        let (mean, far) = (-2.0 * base[i], -2.0 * other[i]);
        let next = mean + 0.5 * noise[i];
        let log_weight = ((next - mean).powi(2) - (next - far).powi(2)) / (2.0 * 0.25);
        assert!((found[0][i].log_weight() - log_weight).abs() < 1e-12, "{found:?}");
        let nats = (mean - far).powi(2) / (2.0 * 0.25);
        assert!((found[0][i].nats - nats).abs() < 1e-12, "{found:?}");
    }
    assert_eq!(found[0][1], PathSum::default(), "equal outputs add exactly nothing");
}

#[test]
fn single_precision_outputs_are_subtracted_in_double() {
    let mut sums = PathSums::new(2, 1, 1);
    let others = [vec![1.0_f32 + f32::EPSILON, 3.0]];
    let step = PathStep {
        gain: 1.0,
        sigma: 1.0,
        base: &[1.0_f32, 3.0],
        others: &others,
        noise: &[1.0_f32, 5.0],
    };
    sums.add(&step).unwrap();
    sums.add(&step).unwrap();
    assert_eq!(sums.steps(), 2);
    assert!((sums.finish()[0][0].cross - 2.0 * f64::from(f32::EPSILON)).abs() < 1e-20);
}

#[test]
fn a_row_gives_its_sum_back() {
    let sum = PathSum { nats: 3.0, cross: -0.5 };
    let back = PathSum::of_row(sum.nats, sum.log_weight());
    assert!((back.cross - sum.cross).abs() < 1e-12);
}

#[test]
fn a_step_without_noise_is_refused() {
    let mut sums = PathSums::new(1, 1, 1);
    let others = [vec![0.0]];
    sums.add(&step(&[0.0], &others, &[0.0])).unwrap();
    let still = PathStep { sigma: 0.0, ..step(&[0.0], &others, &[0.0]) };
    assert!(matches!(sums.add(&still), Err(EvalError::Noiseless { step: 1 })));
    let short = step(&[0.0], &others, &[0.0, 0.0]);
    assert!(matches!(sums.add(&short), Err(EvalError::Length { expected: 1, found: 2, .. })));
}

#[test]
fn the_sum_stops_before_a_noiseless_last_step_only() {
    assert_eq!(noisy_steps(&[0.5, 0.4, 0.0]).unwrap(), 2);
    assert_eq!(noisy_steps(&[0.5, 0.4, 0.1]).unwrap(), 3);
    let still: [(&[f64], u64); 3] = [(&[0.0, 0.0, 0.0], 0), (&[0.5, 0.0, 0.1], 1), (&[0.0], 0)];
    for (deterministic, at) in still {
        let refused = noisy_steps(deterministic);
        assert!(matches!(refused, Err(EvalError::Noiseless { step }) if step == at));
    }
}

/// Two prompts of unequal weight; nats and log weights scatter.
fn blocks() -> Vec<PathBlock> {
    let block = |place: u64, weight: f64, n: usize| {
        let mut stream = draws::stream(6, 0, place, Purpose::Bootstrap);
        let z: Vec<f64> = draws::normals(&mut stream, n).into_iter().map(f64::from).collect();
        let at = |dose: f64| -> Vec<PathSum> {
            z.iter().map(|z| PathSum { nats: dose * dose / 2.0, cross: dose * z }).collect()
        };
        let label = |z: &f64| u16::from(*z > 0.3);
        PathBlock { weight, labels: z.iter().map(label).collect(), sums: vec![at(0.1), at(1.0)] }
    };
    vec![block(0, 0.75, 400), block(1, 0.25, 100)]
}

fn reduced(blocks: &[PathBlock]) -> PathRecord {
    let model = |dose: f64| PathModel { model: "adapted".into(), dose };
    reduce(&PathInput {
        models: &[model(0.1), model(1.0)],
        blocks,
        facet: "subject",
        entities: &["low".into(), "high".into(), "never".into()],
        steps: 7,
        secant: Some(0),
        resampler: Resampler { seed: 3, draws: 200 },
    })
}

#[test]
fn weights_are_those_of_the_strata() {
    let blocks = blocks();
    let record = reduced(&blocks);
    let dose = &record.doses[1];
    assert!((dose.kl.value - 0.5).abs() < 1e-12 && (dose.tv_bound - 0.5).abs() < 1e-12);
    let mean = |block: &PathBlock| {
        let sum: f64 = block.sums[1].iter().map(|sum| sum.log_weight().exp()).sum();
        sum / real(block.labels.len())
    };
    let expected = 0.75 * mean(&blocks[0]) + 0.25 * mean(&blocks[1]);
    assert!((dose.mean_weight - expected).abs() < 1e-12);
    assert!((dose.outside.unwrap() - (1.0 - expected)).abs() < 1e-12);
    // A shift of one normal deviation leaves e⁻¹ of the sample.
    assert!((dose.effective_share - (-1.0_f64).exp()).abs() < 0.12, "{dose:?}");
    let weighted = dose.weighted.as_ref().unwrap();
    assert_eq!(weighted.iter().map(|share| share.id.as_str()).collect::<Vec<_>>(), ["low", "high"]);
    assert!((weighted[0].share + weighted[1].share - expected).abs() < 1e-12);
    assert!((weighted[0].base + weighted[1].base - 1.0).abs() < 1e-12);
    // Φ(1 − .3): what lies above .3 once the law is shifted by 1.
    assert!((weighted[1].share - 0.758).abs() < 0.12, "{weighted:?}");
    assert_eq!((dose.pairs, record.steps), (500, 7));
}

#[test]
fn weights_that_do_not_carry_are_not_shown() {
    let mut blocks = blocks();
    for sum in blocks.iter_mut().flat_map(|block| &mut block.sums[1]) {
        *sum = PathSum { nats: 3200.0, cross: 80.0 * sum.cross };
    }
    let dose = &reduced(&blocks).doses[1];
    assert!(dose.effective_share < LEAST_EFFECTIVE_SHARE, "{dose:?}");
    assert!(dose.outside.is_none() && dose.weighted.is_none());
    assert!(dose.mean_weight.is_finite() && (dose.tv_bound - 1.0).abs() < 1e-12);
}

#[test]
fn slopes_are_covariances_with_the_score_and_sum_to_zero() {
    let blocks = blocks();
    let record = reduced(&blocks);
    let forecast = record.forecast.as_ref().unwrap();
    assert!((forecast.dose - 0.1).abs() < 1e-12 && forecast.entities.len() == 2);
    // ∂P(z > .3)/∂shift = φ(.3) = .381.
    let high = forecast.entities[1].slope;
    assert!((high.value - 0.381).abs() < 0.06, "{forecast:?}");
    let [low, top] = high.ci.unwrap();
    assert!(low > 0.25 && top < 0.52 && low < high.value && high.value < top, "{high:?}");
    let sum: f64 = slopes(&blocks, 0, 0.1, 3).iter().sum();
    assert!(sum.abs() < 1e-12, "{sum}");
}

#[test]
fn the_error_of_a_slope_is_that_of_a_mean_of_products() {
    let (labels, scores) = ([0_u16, 0, 1, 1, 1], [1.0, -0.5, 2.0, 0.25, -1.5]);
    let mut sums = ScoreSums::new(2);
    for (&label, score) in labels.iter().zip(scores) {
        sums.add(label, score);
    }
    let mean = scores.iter().sum::<f64>() / 5.0;
    let term = |(label, score): (&u16, f64)| (f64::from(*label == 1) - 0.6) * (score - mean);
    let terms: Vec<f64> = labels.iter().zip(scores).map(term).collect();
    let slope = terms.iter().sum::<f64>() / 5.0;
    let variance = terms.iter().map(|x| (x - slope) * (x - slope)).sum::<f64>() / 25.0;
    let found = sums.slope(1);
    assert!((found.0 - slope).abs() < 1e-12 && (found.1 - variance).abs() < 1e-12, "{found:?}");
}

#[test]
fn equal_models_have_exactly_nothing() {
    let mut blocks = blocks();
    for sum in blocks.iter_mut().flat_map(|block| block.sums.iter_mut().flatten()) {
        *sum = PathSum::default();
    }
    let record = reduced(&blocks);
    let dose = &record.doses[1];
    assert_eq!((dose.kl.value, dose.mean_weight, dose.effective_share), (0.0, 1.0, 1.0));
    assert_eq!(dose.outside, Some(0.0));
    let slopes = record.forecast.unwrap().entities;
    assert!(slopes.iter().all(|entity| entity.slope.value == 0.0));
}
