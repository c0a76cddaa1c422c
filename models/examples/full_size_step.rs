//! A training step of a full-size SD 1.5 UNet on the CPU: the same as PEFT's, and in what memory.
//!
//! `scripts/check_full_size.sh` lets diffusers and PEFT write a folder and runs this on it:
//! `cargo run --release -p models --example full_size_step -- FOLDER`. Exit code 1 if loading takes
//! more memory than allowed, or if the loss or a gradient is another one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a check of its own, not a verb")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::Gradients;
use checkpoints::TensorFile;
use checkpoints::folder::ModelFolder;
use models::base::{host_values, load_unet, tensor_from_host, timesteps};
use models::unet::UNet2DConditionModel;
use models::{Device, Network, Slot, Tensor, Visitor, adapter};

/// Most memory while loading, as a multiple of the parameters in f32.
const LOADING: f64 = 1.15;
/// Most memory of all, in GiB.
const STEP_GIB: f64 = 24.0;
/// Largest difference from the reference, as a share of its largest value.
const TOLERANCE: f64 = 1e-3;
const GIB: f64 = (1u64 << 30) as f64;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: full_size_step FOLDER");
        return ExitCode::from(64);
    };
    match check(&PathBuf::from(folder)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            eprintln!("{}", problems.join("\n"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// All that is not as it should be.
fn check(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut problems = Vec::new();
    let (device, started) = (Device::flex(), Instant::now());
    let mut unet = load_unet(&ModelFolder::open(folder)?.component("unet")?, &device)?;
    let n_bytes = 4.0 * n_parameters(&mut unet) as f64;
    let share = peak_bytes()? / n_bytes;
    println!(
        "populate: loaded in {:.1} s, peak {:.3} of the {:.2} GiB that the parameters take in f32",
        started.elapsed().as_secs_f64(),
        share,
        n_bytes / GIB
    );
    if share > LOADING {
        problems.push(format!("loading took {share:.3} of the size in f32, at most {LOADING}"));
    }
    attach(&mut unet, &folder.join("adapter.safetensors"))?;
    let case = TensorFile::open(&folder.join("case.safetensors"))?;
    let started = Instant::now();
    let found = step(&mut unet, &case, &device)?;
    let peak = peak_bytes()? / GIB;
    println!(
        "populate: loss {:.6}, forward and backward {:.1} s, peak {peak:.2} GiB",
        found["loss"][0],
        started.elapsed().as_secs_f64()
    );
    if peak > STEP_GIB {
        problems.push(format!("the step took {peak:.1} GiB, at most {STEP_GIB}"));
    }
    problems.extend(compare(&case, &found)?);
    Ok(problems)
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

/// Attaches the adapter of a file, ready to be trained.
fn attach(unet: &mut UNet2DConditionModel, path: &Path) -> Result<(), Box<dyn Error>> {
    let layers = adapter::layers(unet, "unet");
    let map = adapter::key_map(&layers, unet.config())?;
    let read = adapter::adapter_from_file(path, &layers, &map)?;
    adapter::attach(unet, "unet", &read.adapter, 1.0)?;
    adapter::visit_factors(unet, "unet", &mut |_, slot| slot.set_leaf(slot.flat()));
    Ok(())
}

/// Output, loss and the gradients of all factors, under the names of the reference.
fn step(
    unet: &mut UNet2DConditionModel,
    case: &TensorFile,
    device: &Device,
) -> Result<BTreeMap<String, Vec<f32>>, Box<dyn Error>> {
    let levels: Vec<f64> = case.read("timesteps")?.f32().iter().map(|&t| f64::from(t)).collect();
    let context = tensor::<3>(case, "encoder_hidden_states", device)?;
    let noisy = tensor::<4>(case, "sample", device)?;
    let output = unet.forward(noisy, timesteps(&levels, device), &context, None)?;
    let loss = (output.clone() - tensor(case, "target", device)?).powi_scalar(2).mean();
    let mut found = BTreeMap::from([
        ("output".to_owned(), host_values(output.inner())?),
        ("loss".to_owned(), host_values(loss.clone().inner())?),
    ]);
    let mut gradients = loss.backward();
    adapter::visit_factors(unet, "unet", &mut |path, slot| {
        let name =
            path.replace(".lora_down", ".lora_A.weight").replace(".lora_up", ".lora_B.weight");
        found.insert(name, taken(slot, &mut gradients));
    });
    Ok(found)
}

/// The gradient of a factor; none at all if the backward pass did not reach it.
fn taken(slot: &mut dyn Slot, gradients: &mut Gradients) -> Vec<f32> {
    let gradient = slot.take_gradient(gradients).map(host_values);
    gradient.and_then(Result::ok).unwrap_or_default()
}

fn tensor<const D: usize>(
    file: &TensorFile,
    name: &str,
    device: &Device,
) -> Result<Tensor<D>, Box<dyn Error>> {
    let host = file.read(name)?;
    let shape = <[usize; D]>::try_from(host.shape.clone());
    let shape = shape.map_err(|found| format!("`{name}` has the shape {found:?}, not {D} axes"))?;
    Ok(tensor_from_host(host.f32().into_owned(), shape, device))
}

/// Holds every result that the reference has against it.
fn compare(
    case: &TensorFile,
    found: &BTreeMap<String, Vec<f32>>,
) -> Result<Vec<String>, Box<dyn Error>> {
    let mut problems = Vec::new();
    let results =
        case.names().filter(|name| ["loss", "output"].contains(name) || name.contains(".lora_"));
    for name in results {
        let reference = case.read(name)?;
        let reference = reference.f32();
        let values = found.get(name).map_or(&[][..], Vec::as_slice);
        if values.len() != reference.len() {
            problems.push(format!(
                "`{name}` has {} values, expected {}",
                values.len(),
                reference.len()
            ));
            continue;
        }
        let largest = reference.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let apart = values.iter().zip(reference.iter()).fold(0.0f32, |most, (a, b)| {
            // A difference that is not a number must not pass.
            if (a - b).is_nan() { f32::INFINITY } else { most.max((a - b).abs()) }
        });
        let share = f64::from(apart) / f64::from(largest);
        println!("  {name}: {share:.1e} of its largest value apart");
        // Not a number where the reference is 0 throughout.
        if share.is_nan() || share > TOLERANCE {
            problems.push(format!("`{name}` is {share:.1e} apart, at most {TOLERANCE:.0e}"));
        }
    }
    Ok(problems)
}

/// Most memory that this process held so far, in bytes.
fn peak_bytes() -> Result<f64, Box<dyn Error>> {
    let status = checkpoints::fs::read(Path::new("/proc/self/status"))?;
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: f64 = kib.ok_or("`/proc/self/status` has no line `VmHWM`")?.trim().parse()?;
    Ok(1024.0 * kib)
}
