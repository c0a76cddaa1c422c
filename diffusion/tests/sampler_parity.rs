//! Parity with diffusers: configurations, schedules, noising, guidance and whole trajectories.
//!
//! The reference values come from `scripts/golden/samplers/make.py`. They were computed in single
//! precision with a formula for a network; the runs here are in double precision.

use std::convert::Infallible;

use burn::tensor::{DType, Device, Tensor, TensorData};
use diffusion::{
    Moment, NoiseSchedule, Prediction, Sampler, SamplerKind, SchedulerConfig, guide,
    noisy_from_clean, rescale_guidance, sample_from, sample_watched, target,
};
use serde::Deserialize;

/// Largest difference, relative to the largest reference value of a tensor (at least 1).
const TOLERANCE: f64 = 2e-5;

#[derive(Deserialize)]
struct Golden {
    shape: [usize; 4],
    start: Vec<f64>,
    noises: Vec<Vec<f64>>,
    trajectories: Vec<Trajectory>,
    noisy_ends: Vec<Trajectory>,
    clean: Vec<f64>,
    from_pictures: Vec<FromPicture>,
    noising: Noising,
    guidance: Guidance,
    defaults: Vec<SchedulerConfig>,
}

#[derive(Deserialize)]
struct Trajectory {
    sampler: String,
    n_steps: usize,
    config: SchedulerConfig,
    init_noise_sigma: f64,
    timesteps: Vec<f64>,
    latents: Vec<Vec<f64>>,
}

/// A run of img2img; its noise is `start`.
#[derive(Deserialize)]
struct FromPicture {
    sampler: String,
    n_steps: usize,
    strength: f64,
    config: SchedulerConfig,
    first: usize,
    noised: Vec<f64>,
    latents: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Noising {
    clean: Vec<f64>,
    noise: Vec<f64>,
    timesteps: Vec<usize>,
    schedules: Vec<Schedule>,
}

#[derive(Deserialize)]
struct Schedule {
    config: SchedulerConfig,
    alphas_cumprod: Vec<(usize, f64)>,
    noisy: Vec<f64>,
    velocity: Vec<f64>,
}

#[derive(Deserialize)]
struct Guidance {
    unconditional: Vec<f64>,
    conditional: Vec<f64>,
    guided: Vec<f64>,
    rescaled: Vec<f64>,
}

#[expect(clippy::unwrap_used, reason = "a fixture that cannot be read must fail the test")]
fn golden() -> Golden {
    let text =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/golden/samplers/cases.json"));
    serde_json::from_str(text).unwrap()
}

impl Golden {
    fn tensor(&self, values: &[f64]) -> Tensor<4> {
        let data = TensorData::new(values.to_vec(), self.shape);
        Tensor::from_data(data, (&Device::flex(), DType::F64))
    }
}

impl Trajectory {
    #[expect(clippy::unwrap_used, reason = "a sampler that cannot be made must fail the test")]
    fn sampler(&self) -> Sampler {
        Sampler::new(kind(&self.sampler).unwrap(), &self.config, self.n_steps).unwrap()
    }
}

/// The largest difference, relative to the largest expected value or 1.
fn difference(found: &Tensor<4>, expected: &[f64]) -> f64 {
    let found = found.to_data();
    let pairs = found.iter::<f64>().zip(expected);
    let largest = pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
    largest / expected.iter().fold(1.0, |most: f64, value| most.max(value.abs()))
}

fn kind(name: &str) -> Option<SamplerKind> {
    Some(match name {
        "ddim" => SamplerKind::Ddim { eta: 0.0 },
        "ddim_half" => SamplerKind::Ddim { eta: 0.5 },
        "ddim_full" => SamplerKind::Ddim { eta: 1.0 },
        "ddpm" => SamplerKind::Ddpm,
        "euler" => SamplerKind::Euler,
        "euler_ancestral" => SamplerKind::EulerAncestral,
        "dpmpp_2m" => SamplerKind::DpmPp2M { karras: false },
        "dpmpp_2m_karras" => SamplerKind::DpmPp2M { karras: true },
        _ => return None,
    })
}

/// m(x, t) = sin(x)/2 + 0.1 + 0.0002·t.
#[expect(clippy::unnecessary_wraps, reason = "samplers take networks that can fail")]
fn toy(scaled: Tensor<4>, timestep: f64) -> Result<Tensor<4>, Infallible> {
    Ok(scaled.sin().mul_scalar(0.5).add_scalar(0.1 + 0.0002 * timestep))
}

#[test]
fn every_step_of_every_trajectory_agrees() {
    let golden = golden();
    assert_eq!(golden.trajectories.len(), 102);
    for case in &golden.trajectories {
        check_steps(&golden, case, case.sampler());
    }
}

#[test]
fn every_step_agrees_with_noise_after_the_last_too() {
    let golden = golden();
    assert_eq!(golden.noisy_ends.len(), 4);
    for case in &golden.noisy_ends {
        check_steps(&golden, case, case.sampler().with_last_noise());
    }
}

fn check_steps(golden: &Golden, case: &Trajectory, mut sampler: Sampler) {
    let name = format!("{} in {} steps, {:?}", case.sampler, case.n_steps, case.config);
    let start_error = sampler.init_noise_sigma() / case.init_noise_sigma - 1.0;
    assert!(start_error.abs() < 1e-6, "{name}: {}", sampler.init_noise_sigma());
    assert_eq!(sampler.timesteps().len(), case.timesteps.len(), "{name}");
    for (found, expected) in sampler.timesteps().iter().zip(&case.timesteps) {
        assert!((found - expected).abs() < 1e-4, "{name}: timestep {found}, not {expected}");
    }
    let start = golden.tensor(&golden.start);
    let mut noise = |step_idx: usize| golden.tensor(&golden.noises[step_idx]);
    let mut n_seen = 0;
    let Ok(_) = sample_watched(&mut sampler, start, &mut toy, &mut noise, &mut |moment| {
        n_seen += 1;
        let error = difference(moment.next, &case.latents[moment.step_idx]);
        assert!(error < TOLERANCE, "{name}: step {} differs by {error:e}", moment.step_idx);
    });
    assert_eq!(n_seen, case.latents.len(), "{name}");
}

#[test]
fn every_step_from_a_noised_picture_agrees() {
    let golden = golden();
    assert_eq!(golden.from_pictures.len(), 61);
    let (clean, start) = (golden.tensor(&golden.clean), golden.tensor(&golden.start));
    for (case_idx, case) in golden.from_pictures.iter().enumerate() {
        let name = format!("case {case_idx}: {} {} {:?}", case.sampler, case.strength, case.config);
        let kind = kind(&case.sampler).expect("a sampler that is known here");
        let mut sampler = Sampler::new(kind, &case.config, case.n_steps).unwrap();
        let first = sampler.first_step(case.strength);
        assert_eq!(first, case.first, "{name}");
        let noised = sampler.noised(clean.clone(), start.clone(), first);
        let error = difference(&noised, &case.noised);
        assert!(error < TOLERANCE, "{name}: the noised picture differs by {error:e}");
        let mut noise = |step_idx: usize| golden.tensor(&golden.noises[step_idx]);
        let mut n_seen = 0;
        let mut watch = |moment: &Moment<'_>| {
            let error = difference(moment.next, &case.latents[n_seen]);
            assert_eq!(moment.step_idx, first + n_seen, "{name}");
            n_seen += 1;
            assert!(error < TOLERANCE, "{name}: step {} differs by {error:e}", moment.step_idx);
        };
        let Ok(_) = sample_from(&mut sampler, first, noised, &mut toy, &mut noise, &mut watch);
        assert_eq!(n_seen, case.latents.len(), "{name}");
    }
}

#[test]
fn schedules_noising_and_velocity_agree() {
    let golden = golden();
    let noising = &golden.noising;
    assert_eq!(noising.schedules.len(), 4);
    let (clean, noise) = (golden.tensor(&noising.clean), golden.tensor(&noising.noise));
    for case in &noising.schedules {
        let schedule = NoiseSchedule::new(&case.config).unwrap();
        for &(t, alpha) in &case.alphas_cumprod {
            let found = schedule.alpha_cumprod(t);
            assert!((found - alpha).abs() < 2e-6, "abar({t}) is {found}, not {alpha}");
        }
        let timesteps = &noising.timesteps;
        let noisy = noisy_from_clean(&schedule, clean.clone(), noise.clone(), timesteps);
        assert!(difference(&noisy, &case.noisy) < TOLERANCE, "{:?}", case.config);
        let velocity = target(&schedule, Prediction::V, clean.clone(), noise.clone(), timesteps);
        assert!(difference(&velocity, &case.velocity) < TOLERANCE, "{:?}", case.config);
    }
}

#[test]
fn guidance_and_its_rescaling_agree() {
    let golden = golden();
    let case = &golden.guidance;
    let conditional = golden.tensor(&case.conditional);
    let guided = guide(golden.tensor(&case.unconditional), conditional.clone(), 7.5);
    assert!(difference(&guided, &case.guided) < TOLERANCE);
    let rescaled = rescale_guidance(guided, conditional, 0.7);
    assert!(difference(&rescaled, &case.rescaled) < TOLERANCE);
}

#[test]
fn class_defaults_agree_with_what_diffusers_writes() {
    let written = golden().defaults;
    assert_eq!(written.len(), 8);
    for config in written {
        assert_eq!(config, SchedulerConfig::defaults(config.class));
    }
}
