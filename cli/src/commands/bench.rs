//! `populate bench`: times a part of the work on given weights, the same way as
//! `scripts/bench/peer_step.py` times diffusers and PEFT, and prints the same figures.

use std::path::{Path, PathBuf};

use checkpoints::folder::ComponentFiles;
use models::base::{
    Precision, host_values, load_text_encoder, load_unet_with, load_vae, tensor_from_host,
};
use models::unet::UNet2DConditionModel;
use models::{Network, Slot, Tensor, Visitor};
use recipes::draws;
use serde_json::{Map, Value, json};
use trainer::bench::{InputShape, Inputs, StepBench};
use trainer::objective::Activations;

use super::{Job, Outcome};
use crate::args::{
    AutoencoderArguments, BenchArguments, BenchWork, DenoiserArguments, RepeatArguments,
    StepArguments, TextArguments,
};
use crate::device::ChosenDevice;
use crate::environment::{Stopwatch, peak_bytes};
use crate::error::JobError;
use crate::provenance::BURN_VERSION;
use crate::stage;

/// Times the work and prints its figures.
pub(crate) fn execute(arguments: &BenchArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let device = job.device()?;
    let figures = match &arguments.work {
        BenchWork::Step(arguments) => step(arguments, &device)?,
        BenchWork::Forward(arguments) => forward(arguments, &device)?,
        BenchWork::Decode(arguments) => decode(arguments, &device)?,
        BenchWork::Encode(arguments) => encode(arguments, &device)?,
        BenchWork::Text(arguments) => text(arguments, &device)?,
    };
    job.give(&figures.text(), &figures.record(&device));
    Ok(Outcome::Done)
}

/// What was timed, and for how long.
struct Figures {
    work: &'static str,
    repeat: RepeatArguments,
    /// Seconds of every timed round, ascending.
    seconds: Vec<f64>,
    /// What describes the work beside what all works have.
    details: Map<String, Value>,
}

impl Figures {
    fn new(
        work: &'static str,
        repeat: RepeatArguments,
        details: Value,
        round: impl FnMut(u64) -> Result<(), JobError>,
    ) -> Result<Self, JobError> {
        let seconds = timed(repeat, round)?;
        let details = match details {
            Value::Object(details) => details,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        };
        Ok(Self { work, repeat, seconds, details })
    }

    fn median(&self) -> f64 {
        let middle = self.seconds.len() / 2;
        if self.seconds.len() % 2 == 1 {
            self.seconds[middle]
        } else {
            f64::midpoint(self.seconds[middle - 1], self.seconds[middle])
        }
    }

    /// Shortest and longest round.
    fn range(&self) -> [f64; 2] {
        [self.seconds[0], self.seconds[self.seconds.len() - 1]]
    }

    fn per_second(&self) -> f64 {
        f64::from(self.repeat.batch) / self.median()
    }

    fn text(&self) -> String {
        let [shortest, longest] = self.range();
        let memory = peak_bytes()
            .map_or_else(String::new, |bytes| format!(", peak memory {} MiB", bytes >> 20));
        format!(
            "{}, batch {}: {:.4} s [{shortest:.4}, {longest:.4}] over {} rounds, {:.2} per second{memory}",
            self.work,
            self.repeat.batch,
            self.median(),
            self.seconds.len(),
            self.per_second(),
        )
    }

    fn record(&self, device: &ChosenDevice) -> Value {
        let rounded = |value: f64| (value * 1e5).round() / 1e5;
        let [shortest, longest] = self.range();
        let mut record = json!({
            "side": "populate",
            "work": self.work,
            "batch": self.repeat.batch,
            "device": device.cuda_index.map_or_else(|| "cpu".to_owned(), |_| device.name.clone()),
            "threads": models::ops::n_threads(),
            "forward_only": self.work != "step",
            "median_s": rounded(self.median()),
            "min_s": rounded(shortest),
            "max_s": rounded(longest),
            "images_per_s": (self.per_second() * 1e3).round() / 1e3,
            "peak_device_mib": device_mib(device),
            "peak_rss_mib": peak_bytes().map(|bytes| bytes as f64 / f64::from(1_u32 << 20)),
            "version": env!("CARGO_PKG_VERSION"),
            "burn": BURN_VERSION,
        });
        if let Value::Object(record) = &mut record {
            record.extend(self.details.clone());
        }
        record
    }
}

/// Memory that the card's pools hold at the end, in MiB: they do not shrink; `None` for the processor.
fn device_mib(device: &ChosenDevice) -> Option<f64> {
    let usage = device.cuda_index.and_then(|_| device.device.memory_pool_usage())?;
    Some(usage.bytes_reserved as f64 / f64::from(1_u32 << 20))
}

/// Seconds of every round after the warm-up, ascending.
fn timed(
    repeat: RepeatArguments,
    mut round: impl FnMut(u64) -> Result<(), JobError>,
) -> Result<Vec<f64>, JobError> {
    let warmup = u64::from(repeat.warmup);
    let mut seconds = Vec::new();
    for index in 0..warmup + u64::from(repeat.steps) {
        let clock = Stopwatch::start();
        round(index)?;
        if index >= warmup {
            seconds.push(clock.seconds());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// The folder of a component, given itself or the folder around it.
fn component(dir: &Path, name: &str) -> Result<ComponentFiles, JobError> {
    let inner = dir.join(name);
    let dir: PathBuf = if inner.join("config.json").is_file() { inner } else { dir.to_owned() };
    Ok(ComponentFiles::open(&dir)?)
}

/// Waits until a result is there, and drops it.
fn finish<const D: usize>(tensor: Tensor<D>) -> Result<(), JobError> {
    // One value is enough: a read waits for all that was asked for before.
    let n_values = tensor.dims().iter().product::<usize>();
    host_values(tensor.reshape([n_values]).slice(0..1))?;
    Ok(())
}

/// A UNet, and its share of a record.
fn denoiser(
    arguments: &DenoiserArguments,
    device: &ChosenDevice,
) -> Result<(UNet2DConditionModel, InputShape, Value), JobError> {
    let precision = stage::precision_on(device, arguments.dtype.asked())?;
    let files = component(&arguments.unet, "unet")?;
    let mut unet = load_unet_with(&files, &device.device, precision)?;
    let latent = arguments.latent.map(|side| side as usize);
    let shape = InputShape {
        batch: arguments.repeat.batch as usize,
        latent: latent.or(unet.config().sample_size).unwrap_or(64),
        tokens: arguments.tokens as usize,
    };
    let details = json!({
        "latent": shape.latent, "tokens": shape.tokens, "dtype": precision.name(),
        "total": n_parameters(&mut unet),
    });
    Ok((unet, shape, details))
}

fn step(arguments: &StepArguments, device: &ChosenDevice) -> Result<Figures, JobError> {
    let (unet, shape, mut details) = denoiser(&arguments.denoiser, device)?;
    let mut bench = StepBench::new(unet, arguments.rank, &arguments.targets, &device.device)?;
    details["rank"] = arguments.rank.into();
    details["trainable"] = bench.n_trainable().into();
    details["activation_recompute"] = arguments.activation_recompute.into();
    let activations =
        if arguments.activation_recompute { Activations::Recomputed } else { Activations::Kept };
    Figures::new("step", arguments.denoiser.repeat, details, |index| {
        let inputs = Inputs::draw(bench.unet(), shape, index, &device.device)?;
        bench.step(inputs, activations)?;
        Ok(())
    })
}

fn forward(arguments: &DenoiserArguments, device: &ChosenDevice) -> Result<Figures, JobError> {
    let (unet, shape, details) = denoiser(arguments, device)?;
    Figures::new("forward", arguments.repeat, details, |index| {
        let Inputs { noisy, timesteps, context, added, .. } =
            Inputs::draw(&unet, shape, index, &device.device)?;
        finish(unet.forward(noisy, timesteps, &context, added.as_ref())?)
    })
}

fn decode(arguments: &AutoencoderArguments, device: &ChosenDevice) -> Result<Figures, JobError> {
    let vae = load_vae(&component(&arguments.vae, "vae")?, &device.device)?;
    let (batch, side) = (arguments.repeat.batch as usize, arguments.latent as usize);
    let shape = [batch, vae.config().latent_channels, side, side];
    let details = json!({ "latent": side, "dtype": Precision::F32.name() });
    Figures::new("decode", arguments.repeat, details, |index| {
        let latents = normal(shape, index, device);
        finish(vae.pixels_from_latents(latents))
    })
}

fn encode(arguments: &AutoencoderArguments, device: &ChosenDevice) -> Result<Figures, JobError> {
    let vae = load_vae(&component(&arguments.vae, "vae")?, &device.device)?;
    let (batch, side) = (arguments.repeat.batch as usize, arguments.latent as usize);
    let side_px = side * vae.config().factor();
    let channels = vae.config().in_channels;
    let details = json!({ "latent": side, "dtype": Precision::F32.name() });
    Figures::new("encode", arguments.repeat, details, |index| {
        let pixels = normal([batch, channels, side_px, side_px], index, device);
        finish(vae.posterior_from_pixels(pixels)?.mean)
    })
}

fn text(arguments: &TextArguments, device: &ChosenDevice) -> Result<Figures, JobError> {
    let files = component(&arguments.text_encoder, "text_encoder")?;
    let encoder = load_text_encoder(&files, &device.device)?;
    let (n_tokens, n_words) =
        (encoder.config().max_position_embeddings, encoder.config().vocab_size as u64);
    let details = json!({ "tokens": n_tokens, "dtype": Precision::F32.name() });
    Figures::new("text", arguments.repeat, details, |index| {
        let mut stream = draws::keyed(index, "tokens");
        let mut caption =
            || (0..n_tokens).map(|_| draws::below(&mut stream, n_words) as u32).collect();
        let captions: Vec<Vec<u32>> = (0..arguments.repeat.batch).map(|_| caption()).collect();
        finish(encoder.forward(&captions).last)
    })
}

/// Unit normal values, a function of the round.
fn normal(shape: [usize; 4], index: u64, device: &ChosenDevice) -> Tensor<4> {
    let mut stream = draws::keyed(index, "bench");
    let values = draws::normals(&mut stream, shape.iter().product());
    tensor_from_host(values, shape, &device.device)
}

/// Counts values.
struct Count(usize);

impl Visitor for Count {
    fn parameter(&mut self, _path: &str, slot: &mut dyn Slot) {
        self.0 += slot.shape().iter().product::<usize>();
    }
}

fn n_parameters(network: &mut dyn Network) -> usize {
    let mut count = Count(0);
    network.visit("", &mut count);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_the_warm_up_run_and_are_not_counted() {
        let repeat = RepeatArguments { steps: 3, warmup: 2, batch: 1 };
        let mut indices = Vec::new();
        let seconds = timed(repeat, |index| {
            indices.push(index);
            Ok(())
        });
        assert_eq!(seconds.unwrap().len(), 3);
        assert_eq!(indices, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let repeat = RepeatArguments { steps: 4, warmup: 0, batch: 6 };
        let seconds = vec![1.0, 2.0, 4.0, 9.0];
        let figures = Figures { work: "step", repeat, seconds, details: Map::new() };
        assert!((figures.median() - 3.0).abs() < 1e-12);
        assert!((figures.per_second() - 2.0).abs() < 1e-12);
        assert!(
            figures.range().iter().zip([1.0, 9.0]).all(|(a, b): (&f64, f64)| (a - b).abs() < 1e-12)
        );
    }
}
