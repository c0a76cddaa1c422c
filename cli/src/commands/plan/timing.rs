//! Times three forward passes and one training step on the device that will do the work.

use std::sync::atomic::AtomicBool;

use checkpoints::Watch;
use checkpoints::energy::{EnergySource, Unavailable};
use datasets::{Batches, Role};
use models::SizeConditions;
use models::base::{host_values, tensor_from_host};
use recipes::Recipe;
use trainer::cache::{Cache, Texts, check_captions};
use trainer::objective::Objective;
use trainer::state::State;
use trainer::step::{Plan, one_step};
use trainer::trainee::Trainee;

use crate::commands::Job;
use crate::device::ChosenDevice;
use crate::environment::{Stopwatch, peak_bytes};
use crate::error::JobError;
use crate::sensors;
use crate::stage::{self, Opened};

/// Pictures of a timed forward pass, as long as they are small.
const BATCH: usize = 8;
/// Pixels of a timed forward pass: one picture of 512 px keeps a processor busy long enough.
const BATCH_PX: usize = 1 << 17;
/// Timed forward passes; one before them is not timed, because kernels are compiled in it.
const N_FORWARDS: u32 = 3;

/// What was measured.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    /// Seconds per picture and forward pass.
    pub(super) forward_secs: f64,
    /// Seconds of a step on the concept's pictures alone.
    pub(super) step_secs: f64,
    /// Watts drawn during the forward passes, or why there is no counter to read them from.
    pub(super) watts: Result<f64, String>,
    /// Most memory that the process held; `None` where the system does not tell.
    pub(super) peak_bytes: Option<u64>,
}

/// Loads the base, encodes the pictures and measures. Nothing is written.
pub(super) fn measure(
    recipe: &Recipe,
    opened: &Opened,
    device: &ChosenDevice,
    job: &Job<'_>,
) -> Result<Timing, JobError> {
    let base = stage::load_base(recipe, opened, device)?;
    stage::check_prediction(recipe, &base)?;
    stage::warn_of_side(recipe, &base, job.terminal);
    stage::warn_of_weighting(recipe, &base, job.terminal);
    stage::warn_of_precision(&base, job.terminal);
    let mut meter = Meter::begin(device.cuda_index);
    let forward_secs = forward_secs(recipe, &base)?;
    let watts = meter.watts();
    let step_secs = step_secs(recipe, opened, &base, job)?;
    Ok(Timing { forward_secs, step_secs, watts, peak_bytes: peak_bytes() })
}

/// A counter, and what it said before.
type Counter = (Box<dyn EnergySource>, u64);

/// Energy counters, read before and after.
struct Meter {
    sources: Result<Vec<Counter>, String>,
    clock: Stopwatch,
}

impl Meter {
    /// Reads the card's counter, or the processor's where no card works.
    fn begin(cuda_index: Option<usize>) -> Self {
        let opened = match cuda_index {
            Some(index) => sensors::gpu(index).map(|source| vec![source]),
            None => sensors::cpu(),
        };
        let read = |mut source: Box<dyn EnergySource>| {
            let before = source.read_uj()?;
            Ok::<_, Unavailable>((source, before))
        };
        let sources = opened
            .and_then(|sources| sources.into_iter().map(read).collect::<Result<Vec<_>, _>>())
            .map_err(|error| error.to_string());
        Self { sources, clock: Stopwatch::start() }
    }

    fn watts(&mut self) -> Result<f64, String> {
        let seconds = self.clock.seconds().max(1e-9);
        let sources = self.sources.as_mut().map_err(|reason| reason.clone())?;
        let mut microjoules = 0.0;
        for (source, before) in sources {
            let now = source.read_uj().map_err(|error| error.to_string())?;
            let wrap = source.wrap_uj().unwrap_or(0);
            let spent =
                if now < *before { now + wrap.max(*before) - *before } else { now - *before };
            #[expect(
                clippy::cast_precision_loss,
                reason = "an estimate needs no more than 53 bits"
            )]
            let spent = spent as f64;
            microjoules += spent;
        }
        Ok(microjoules / 1e6 / seconds)
    }
}

fn forward_secs(recipe: &Recipe, base: &models::Base) -> Result<f64, JobError> {
    let side_px = recipe.dataset.image_options().side_px as usize;
    let [channels, height, width] = base.latent_shape([side_px; 2])?;
    let batch = (BATCH_PX / (side_px * side_px).max(1)).clamp(1, BATCH);
    let noise = vec![0.5; batch * channels * height * width];
    let noisy = tensor_from_host(noise, [batch, channels, height, width], &base.device);
    let text = base.text_states(&[""])?;
    let given = base.conditioning(text, &[SizeConditions::whole([side_px; 2])]).repeat(batch);
    let forward = || -> Result<(), JobError> {
        let output = base.denoise(noisy.clone(), base.timesteps(500.0, batch), &given)?;
        // Reading waits for the device.
        host_values(output.narrow(0, 0, 1))?;
        Ok(())
    };
    forward()?;
    let clock = Stopwatch::start();
    for _ in 0..N_FORWARDS {
        forward()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let n_pictures = f64::from(N_FORWARDS) * batch as f64;
    Ok(clock.seconds() / n_pictures)
}

/// One step on scratch values. Class pictures are left out: the base would have to draw them.
fn step_secs(
    recipe: &Recipe,
    opened: &Opened,
    base: &models::Base,
    job: &Job<'_>,
) -> Result<f64, JobError> {
    check_captions(base, &opened.dataset)?;
    let mut dataset = opened.dataset.clone();
    dataset.examples.retain(|example| example.role == Role::Instance);
    // Part of a step is timed: encoding all pictures, and all parts, may take long.
    let mut fit = recipe.fit.clone();
    let n_parts = f64::from(std::mem::replace(&mut fit.batch.accumulate, 1));
    dataset.examples.truncate(usize::try_from(fit.batch.images).unwrap_or(usize::MAX));
    let dataset = &dataset;
    let mut trainee = Trainee::new(&recipe.adapter, base, recipe.seed)?;
    let mut state = State::new(&mut trainee, &fit);
    let mut watch = Watch { stop: job.stop.flag(), sink: &mut |_| {} };
    let cache = Cache::fill(base, dataset, Texts::of(&state), &mut watch)?;
    let Some(cache) = cache else {
        return Err(JobError::usage("stopped before anything was timed"));
    };
    let objective = Objective::new(&recipe.objective, &base.scheduler)?;
    let plan = Plan {
        seed: recipe.seed,
        fit: &fit,
        objective: &objective,
        dataset,
        cache: &cache,
        prior_weight: 1.0,
    };
    let batches = Batches::new(dataset, &fit.batch, recipe.seed);
    let never = AtomicBool::new(false);
    if base.device_kind() == "gpu" {
        // Kernels are compiled in the first one.
        one_step(&plan, &batches, &mut state, &mut trainee, &never)?;
    }
    let clock = Stopwatch::start();
    one_step(&plan, &batches, &mut state, &mut trainee, &never)?;
    Ok(n_parts * clock.seconds())
}
