use super::*;
use crate::Prediction;
use burn::tensor::{DType, Device, TensorData};
use std::convert::Infallible;

const KINDS: [SamplerKind; 7] = [
    SamplerKind::Ddim { eta: 0.0 },
    SamplerKind::Ddim { eta: 1.0 },
    SamplerKind::Ddpm,
    SamplerKind::Euler,
    SamplerKind::EulerAncestral,
    SamplerKind::DpmPp2M { karras: false },
    SamplerKind::DpmPp2M { karras: true },
];

fn config(prediction: Prediction, spacing: TimestepSpacing) -> SchedulerConfig {
    SchedulerConfig { timestep_spacing: spacing, ..SchedulerConfig::stable_diffusion(prediction) }
}

fn sampler(kind: SamplerKind, spacing: TimestepSpacing, n_steps: usize) -> Sampler {
    Sampler::new(kind, &config(Prediction::Epsilon, spacing), n_steps).unwrap()
}

/// Latents of one value, in double precision.
fn latents(value: f64) -> Tensor<4> {
    let data = TensorData::new(vec![value], [1, 1, 1, 1]);
    Tensor::from_data(data, (&Device::flex(), DType::F64))
}

fn value(latents: Tensor<4>) -> f64 {
    latents.into_data().iter::<f64>().next().unwrap()
}

/// m(x, t) = sin(x)/2 + 0.1 + 0.0002·t.
#[expect(clippy::unnecessary_wraps, reason = "samplers take networks that can fail")]
fn toy(scaled: Tensor<4>, timestep: f64) -> Result<Tensor<4>, Infallible> {
    Ok(scaled.sin().mul_scalar(0.5).add_scalar(0.1 + 0.0002 * timestep))
}

fn run_toy(kind: SamplerKind, config: &SchedulerConfig, n_steps: usize) -> f64 {
    let mut sampler = Sampler::new(kind, config, n_steps).unwrap();
    let Ok(found) =
        sample(&mut sampler, latents(0.7), &mut toy, &mut |step| latents(0.3 - 0.1 * real(step)));
    value(found)
}

#[test]
fn deterministic_samplers_give_their_known_answers() {
    use Prediction::{Epsilon, Sample, V};
    use TimestepSpacing::{Leading, Linspace, Trailing};
    let ddim = SamplerKind::Ddim { eta: 0.0 };
    let plain = SamplerKind::DpmPp2M { karras: false };
    let karras = SamplerKind::DpmPp2M { karras: true };
    for (prediction, spacing, answers) in [
        (Epsilon, Leading, [0.998_239, 0.983_437, 0.962_606, 1.101_894]),
        (Epsilon, Trailing, [1.118_388, 1.092_117, 1.100_106, 1.101_894]),
        (Epsilon, Linspace, [1.077_691, 1.092_840, 1.100_021, 1.101_894]),
        (V, Leading, [0.149_237, 0.144_001, 0.167_485, 0.172_992]),
        (V, Trailing, [0.142_151, 0.134_577, 0.159_290, 0.172_992]),
        (V, Linspace, [0.164_789, 0.134_849, 0.159_025, 0.172_992]),
        (Sample, Leading, [0.412_825, f64::NAN, 0.397_776, 0.270_494]),
    ] {
        let config = config(prediction, spacing);
        for (kind, answer) in [ddim, SamplerKind::Euler, plain, karras].into_iter().zip(answers) {
            if answer.is_nan() {
                continue;
            }
            let found = run_toy(kind, &config, 20);
            let case = format!("{kind:?} {prediction:?} {spacing:?}");
            assert!((found - answer).abs() < 1e-5, "{case}: {found} is not {answer}");
        }
    }
}

/// The sigmas of an Euler sampler: squared, 1/s² − 1 for an input scale s.
fn euler_sigmas(sampler: &Sampler) -> Vec<f64> {
    let scales = sampler.steps.iter().map(|step| step.input_scale);
    scales.map(|scale| (1.0 / (scale * scale) - 1.0).sqrt()).collect()
}

#[test]
fn euler_noise_levels_are_the_known_ones() {
    use TimestepSpacing::{Leading, Linspace, Trailing};
    for (spacing, first, second, last, start) in [
        (Leading, 11.028_336, 8.390_687, 0.041_314, 11.073_581),
        (Trailing, 14.614_641, 10.904_240, 0.223_004, 14.614_641),
        (Linspace, 14.614_641, 10.746_850, 0.029_167, 14.614_641),
    ] {
        let sampler = sampler(SamplerKind::Euler, spacing, 20);
        let sigmas = euler_sigmas(&sampler);
        for (found, expected) in [
            (sigmas[0], first),
            (sigmas[1], second),
            (sigmas[19], last),
            (sampler.init_noise_sigma(), start),
        ] {
            // The known values carry the rounding of single precision.
            assert!((found - expected).abs() < 1e-5, "{spacing:?}: {found} is not {expected}");
        }
    }
}

#[test]
fn karras_levels_are_the_known_ones() {
    let config = config(Prediction::Epsilon, TimestepSpacing::Leading);
    let schedule = NoiseSchedule::new(&config).unwrap();
    let grid = Grid { spacing: config.timestep_spacing, n_train: 1000, n_steps: 20, offset: 1 };
    let setup = Setup { config: &config, schedule: &schedule, grid };
    let (timesteps, sigmas) = dpmpp_2m::karras_levels(&setup);
    let expected =
        [999, 962, 921, 876, 827, 772, 710, 640, 561, 474, 380, 285, 197, 123, 69, 35, 15, 6, 2, 0];
    assert_eq!(timesteps, expected.map(f64::from));
    for (idx, expected) in [
        (0, 14.614_641),
        (1, 11.725_372),
        (2, 9.340_212),
        (18, 0.048_482),
        (19, 0.029_167),
        (20, 0.0),
    ] {
        assert!((sigmas[idx] - expected).abs() < 1e-5, "{} is not {expected}", sigmas[idx]);
    }
}

#[test]
fn a_perfect_network_leads_to_the_clean_latents() {
    let clean = 0.37;
    let spacing = TimestepSpacing::Trailing;
    for kind in KINDS {
        for prediction in Prediction::ALL {
            let config = SchedulerConfig {
                final_alpha: crate::FinalAlpha::One,
                ..config(prediction, spacing)
            };
            // 10 divides 1000: otherwise DDIM's last stride ends at timestep 0, not behind it.
            let mut sampler = Sampler::new(kind, &config, 10).unwrap();
            let mixes: Vec<Mix> = sampler.steps.iter().map(|step| step.clean).collect();
            let scales: Vec<f64> = sampler.steps.iter().map(|step| step.input_scale).collect();
            let mut step_idx = 0;
            // The output for which x̂₀ is exactly the clean value.
            let mut perfect = |scaled: Tensor<4>, _| {
                let (mix, scale) = (mixes[step_idx], scales[step_idx]);
                step_idx += 1;
                let noisy = scaled.div_scalar(scale);
                let output = (noisy.mul_scalar(mix.noisy).sub_scalar(clean)).neg();
                Ok::<_, Infallible>(output.div_scalar(mix.output))
            };
            let Ok(found) =
                sample(&mut sampler, latents(-1.2), &mut perfect, &mut |_| latents(0.8));
            let found = value(found);
            assert!((found - clean).abs() < 1e-9, "{kind:?} {prediction:?}: {found}");
        }
    }
}

#[test]
fn ancestral_ddim_equals_ddpm_without_clipping() {
    let config = SchedulerConfig {
        final_alpha: crate::FinalAlpha::One,
        ..config(Prediction::V, TimestepSpacing::Leading)
    };
    let ddim = run_toy(SamplerKind::Ddim { eta: 1.0 }, &config, 20);
    let ddpm = run_toy(SamplerKind::Ddpm, &config, 20);
    assert!((ddim - ddpm).abs() < 1e-12, "{ddim} is not {ddpm}");
}

#[test]
fn ddim_noise_and_gain_follow_their_formulas() {
    let config = config(Prediction::Epsilon, TimestepSpacing::Leading);
    let schedule = NoiseSchedule::new(&config).unwrap();
    let sampler = Sampler::new(SamplerKind::Ddim { eta: 0.5 }, &config, 20).unwrap();
    for step_idx in [0, 7, 18] {
        let t = 951 - 50 * step_idx;
        let (alpha, next) = (schedule.alpha_cumprod(t), schedule.alpha_cumprod(t - 50));
        let sigma = 0.5 * ((1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next)).sqrt();
        assert!((sampler.noise_scale(step_idx) - sigma).abs() < 1e-12);
        let gain = (1.0 - next - sigma * sigma).sqrt() - (next * (1.0 - alpha) / alpha).sqrt();
        assert!((sampler.output_gain(step_idx) - gain).abs() < 1e-12);
    }
}

#[test]
fn ancestral_noise_restores_the_next_level() {
    let sampler = sampler(SamplerKind::EulerAncestral, TimestepSpacing::Trailing, 20);
    let sigmas = euler_sigmas(&sampler);
    for step_idx in 0..19 {
        let down = sampler.steps[step_idx].next.noisy * sigmas[step_idx];
        let level = down.hypot(sampler.noise_scale(step_idx));
        assert!((level - sigmas[step_idx + 1]).abs() < 1e-9, "step {step_idx}: {level}");
    }
}

#[test]
fn noise_is_asked_for_only_where_it_is_added() {
    for kind in KINDS {
        let stochastic = matches!(
            kind,
            SamplerKind::Ddim { eta: 1.0 } | SamplerKind::Ddpm | SamplerKind::EulerAncestral
        );
        let mut sampler = sampler(kind, TimestepSpacing::Leading, 5);
        let mut asked = Vec::new();
        let Ok(_) = sample(&mut sampler, latents(0.7), &mut toy, &mut |step_idx| {
            asked.push(step_idx);
            latents(0.0)
        });
        let expected: Vec<usize> = if stochastic { (0..4).collect() } else { Vec::new() };
        assert_eq!(asked, expected, "{kind:?}");
    }
}

#[test]
fn watching_shows_every_step_and_its_clean_estimate() {
    let mut sampler = sampler(SamplerKind::DpmPp2M { karras: false }, TimestepSpacing::Trailing, 6);
    let mut shown = Vec::new();
    let Ok(last) = sample_watched(
        &mut sampler,
        latents(0.7),
        &mut toy,
        &mut |_| latents(0.0),
        &mut |moment| shown.push((moment.step_idx, value(moment.clean()))),
    );
    assert_eq!(shown.len(), 6);
    assert_eq!((shown[0].0, shown[5].0), (0, 5));
    // The last step of DPM++ ends in the clean estimate itself.
    assert!((shown[5].1 - value(last)).abs() < 1e-15);
}

#[test]
fn an_error_of_the_network_ends_the_trajectory() {
    let mut sampler = sampler(SamplerKind::Euler, TimestepSpacing::Leading, 5);
    let mut calls = 0;
    let result = sample(
        &mut sampler,
        latents(0.7),
        &mut |scaled, _| {
            calls += 1;
            if calls == 3 { Err("stop") } else { Ok(scaled) }
        },
        &mut |_| latents(0.0),
    );
    assert_eq!((result.err(), calls), (Some("stop"), 3));
}

#[test]
fn a_sampler_used_again_gives_the_same_answer() {
    for kind in KINDS {
        let mut sampler = sampler(kind, TimestepSpacing::Leading, 5);
        let mut run = || {
            let Ok(found) = sample(&mut sampler, latents(0.7), &mut toy, &mut |_| latents(0.4));
            value(found).to_bits()
        };
        assert_eq!(run(), run(), "{kind:?}");
    }
}

#[test]
fn the_first_step_follows_the_strength_as_in_diffusers() {
    let first = |n_steps, strength| {
        sampler(SamplerKind::Euler, TimestepSpacing::Trailing, n_steps).first_step(strength)
    };
    assert_eq!(
        [1.0, 0.75, 0.3, 0.05, 0.04].map(|strength| first(20, strength)),
        [0, 5, 14, 19, 20]
    );
    assert_eq!([1.0, 0.75, 0.3].map(|strength| first(9, strength)), [0, 3, 7]);
    // 50·0.58 is 28.999999999999996 in double precision, in Python as here.
    assert_eq!(first(50, 0.58), 22);
    assert_eq!([0.0, -1.0, f64::NAN, 7.0].map(|strength| first(20, strength)), [20, 20, 20, 0]);
}

/// For the output that is exactly right, a step's estimate is the picture that was noised.
#[test]
fn noised_latents_stand_at_the_level_of_their_step() {
    let (clean, noise) = (0.37, -1.1);
    for kind in KINDS {
        for spacing in TimestepSpacing::ALL {
            for prediction in Prediction::ALL {
                let sampler = Sampler::new(kind, &config(prediction, spacing), 7).unwrap();
                for (step_idx, step) in sampler.steps.iter().enumerate() {
                    let length = step.level.0.hypot(step.level.1);
                    let (signal, share) = (step.level.0 / length, step.level.1 / length);
                    let output = match prediction {
                        Prediction::Epsilon => noise,
                        Prediction::V => signal * noise - share * clean,
                        Prediction::Sample => clean,
                    };
                    let noisy = sampler.noised(latents(clean), latents(noise), step_idx);
                    let found = value(sampler.clean(step_idx, latents(output), noisy.clone()));
                    let case = format!("{kind:?} {spacing:?} {prediction:?} {step_idx}");
                    assert!((found - clean).abs() < 1e-9, "{case}: {found}");
                    // The network sees latents of the schedule: √ᾱ·x₀ + √(1 − ᾱ)·ε.
                    let seen = value(sampler.scale_input(noisy, step_idx));
                    assert!((seen - (signal * clean + share * noise)).abs() < 1e-9, "{case}");
                }
                let behind = sampler.noised(latents(clean), latents(noise), sampler.len());
                assert!((value(behind) - clean).abs() < 1e-15);
            }
        }
    }
}

#[test]
fn a_trajectory_from_a_picture_forgets_the_one_before() {
    for kind in KINDS {
        let run = |sampler: &mut Sampler, first: usize| {
            let from = sampler.noised(latents(0.4), latents(-0.9), first);
            let mut noise = |_| latents(0.2);
            let Ok(found) = sample_from(sampler, first, from, &mut toy, &mut noise, &mut |_| {});
            value(found).to_bits()
        };
        let fresh = run(&mut sampler(kind, TimestepSpacing::Leading, 6), 3);
        let mut used = sampler(kind, TimestepSpacing::Leading, 6);
        let mut calls = 0;
        let stopped = sample(
            &mut used,
            latents(0.7),
            &mut |scaled, _| {
                calls += 1;
                if calls == 3 { Err("stop") } else { Ok(scaled) }
            },
            &mut |_| latents(0.0),
        );
        assert!(stopped.is_err());
        assert_eq!(run(&mut used, 3), fresh, "{kind:?}");
        assert_ne!(run(&mut used, 2), fresh, "{kind:?}");
    }
}

#[test]
fn a_schedule_without_terminal_signal_is_sampled_from_its_last_level() {
    let zero = |spacing| {
        SchedulerConfig { zero_terminal_snr: true, ..config(Prediction::V, spacing) }
            .reaching_the_last_level()
            .timestep_spacing
    };
    assert_eq!(zero(TimestepSpacing::Leading), TimestepSpacing::Trailing);
    assert_eq!(zero(TimestepSpacing::Linspace), TimestepSpacing::Linspace);
    let plain = config(Prediction::V, TimestepSpacing::Leading);
    assert_eq!(plain.clone().reaching_the_last_level(), plain);
}

#[test]
fn zero_terminal_snr_stays_finite() {
    for kind in KINDS {
        for prediction in [Prediction::V, Prediction::Sample] {
            let config = SchedulerConfig {
                zero_terminal_snr: true,
                ..config(prediction, TimestepSpacing::Trailing)
            };
            let found = run_toy(kind, &config, 20);
            assert!(found.abs() < 10.0, "{kind:?} {prediction:?}: {found}");
        }
    }
}

#[test]
fn clipping_bounds_the_clean_estimate_of_ddim_and_ddpm() {
    for kind in [SamplerKind::Ddim { eta: 0.0 }, SamplerKind::Ddpm] {
        let config = SchedulerConfig {
            clip_range: Some(0.25),
            ..config(Prediction::Epsilon, TimestepSpacing::Leading)
        };
        let sampler = Sampler::new(kind, &config, 5).unwrap();
        let clean = value(sampler.clean(0, latents(0.0), latents(3.0)));
        assert!((clean - 0.25).abs() < 1e-15, "{kind:?}: {clean}");
    }
}

#[test]
fn impossible_samplers_are_refused() {
    let check = |kind, spacing, n_steps, expected: &str| {
        let config = config(Prediction::Epsilon, spacing);
        let message = Sampler::new(kind, &config, n_steps).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let ddim = SamplerKind::Ddim { eta: 0.0 };
    check(ddim, TimestepSpacing::Leading, 0, "sampler has 0 steps, expected 1 to 1000");
    check(ddim, TimestepSpacing::Leading, 1001, "sampler has 1001 steps, expected 1 to 1000");
    check(ddim, TimestepSpacing::Leading, 1000, "timestep 1000 lies outside the schedule");
    check(ddim, TimestepSpacing::Linspace, 1, "at least 2");
    check(SamplerKind::Ddim { eta: 1.5 }, TimestepSpacing::Leading, 5, "eta 1.5");
    check(SamplerKind::Ddim { eta: f64::NAN }, TimestepSpacing::Leading, 5, "eta NaN");
    let multistep = SamplerKind::DpmPp2M { karras: false };
    check(multistep, TimestepSpacing::Leading, 1000, "two steps would share a timestep");
    check(multistep, TimestepSpacing::Linspace, 1000, "two steps would share a timestep");
}

#[test]
fn every_possible_number_of_steps_has_finite_coefficients() {
    for kind in KINDS {
        for spacing in TimestepSpacing::ALL {
            for n_steps in [2, 3, 7, 30, 50, 333, 499] {
                let sampler = sampler(kind, spacing, n_steps);
                assert_eq!(sampler.len(), n_steps);
                let finite = sampler.steps.iter().all(|step| {
                    let Next { noisy, output, clean, previous_clean, noise } = step.next;
                    [noisy, output, clean, previous_clean, noise].iter().all(|c| c.is_finite())
                });
                assert!(finite, "{kind:?} {spacing:?} {n_steps}");
            }
        }
    }
    for kind in KINDS {
        assert_eq!(sampler(kind, TimestepSpacing::Trailing, 1).len(), 1);
    }
}

#[test]
fn a_schedule_of_one_level_can_be_sampled_in_one_step() {
    let config = SchedulerConfig {
        num_train_timesteps: 1,
        steps_offset: 0,
        ..config(Prediction::V, TimestepSpacing::Trailing)
    };
    for kind in KINDS {
        assert_eq!(Sampler::new(kind, &config, 1).unwrap().timesteps(), [0.0]);
    }
}
