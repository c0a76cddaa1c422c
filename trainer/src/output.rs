//! The results of a run: adapter files that other programs read, or a base folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::adapter_metadata::{self, AdapterFacts, BaseModel, Privacy};
use checkpoints::folder::{Library, write_component};
use checkpoints::key_map::KeyMap;
use checkpoints::{HostTensor, ModelFiles, ModelOptions, Predicts, TensorMap, hash};
use diffusion::Prediction;
use models::adapter::{self, ADAPTER_METADATA, Adapter};
use models::base::host_values;
use models::{Base, Network, Slot};
use recipes::{AdapterDtype, AdapterFormat, AdapterSpec, MetadataLevel};

use crate::error::TrainError;
use crate::fit::Job;
use crate::objective::Objective;
use crate::postflight;
use crate::state::State;
use crate::trainee::{Show, Trainee, network};

/// The adapter under kohya's names.
pub const KOHYA_FILE: &str = "adapter.safetensors";
/// The adapter under the names of diffusers.
pub const DIFFUSERS_FILE: &str = "pytorch_lora_weights.safetensors";
/// Folder of a base whose own weights were trained.
pub const BASE_FOLDER: &str = "base";

/// Writes the results of a finished run into its directory, each after its checks; gives the files.
///
/// With a moving average there is a second set, with `ema` in its names.
///
/// # Errors
///
/// [`TrainError::Postflight`] for a result that fails a check, [`TrainError::Checkpoint`].
pub fn write(
    job: &Job<'_>,
    map: &KeyMap,
    state: &State,
    trainee: &mut Trainee,
) -> Result<Vec<PathBuf>, TrainError> {
    trainee.clear_dropout();
    let mut files = Vec::new();
    if state.install_average(trainee) {
        files.extend(write_one(job, map, trainee, "ema", state.step())?);
    }
    state.install(trainee);
    let mut results = write_one(job, map, trainee, "", state.step())?;
    results.extend(files);
    Ok(results)
}

fn write_one(
    job: &Job<'_>,
    map: &KeyMap,
    trainee: &mut Trainee,
    variant: &str,
    step: u64,
) -> Result<Vec<PathBuf>, TrainError> {
    let Some(adapter) = trainee.adapter()? else { return write_base(job, trainee, variant) };
    let report = postflight::check_adapter(&adapter, job.base)?;
    job.run.write_json(&named("postflight.json", variant), &report)?;
    let mut files = Vec::new();
    for format in &job.recipe.output.formats {
        let path = match format {
            AdapterFormat::Kohya => write_kohya(job, map, &adapter, variant, step)?,
            AdapterFormat::Diffusers => write_diffusers(job, map, &adapter, variant)?,
        };
        let dtype = job.recipe.output.dtype;
        postflight::check_file(&path, *format, dtype, (&adapter, map, job.base))?;
        files.push(path);
    }
    Ok(files)
}

/// `name.extension` or `name.variant.extension`.
fn named(name: &str, variant: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !variant.is_empty() => format!("{stem}.{variant}.{extension}"),
        _ => name.to_owned(),
    }
}

fn write_kohya(
    job: &Job<'_>,
    map: &KeyMap,
    adapter: &Adapter,
    variant: &str,
    step: u64,
) -> Result<PathBuf, TrainError> {
    let tensors = adapter::kohya_tensors(adapter, map, job.recipe.output.dtype)?;
    let path = job.run.inside(&named(KOHYA_FILE, variant))?;
    checkpoints::write_tensors(&path, &tensors, &metadata(job, &tensors, step)?)?;
    Ok(path)
}

fn write_diffusers(
    job: &Job<'_>,
    map: &KeyMap,
    adapter: &Adapter,
    variant: &str,
) -> Result<PathBuf, TrainError> {
    let (tensors, config) = adapter::diffusers_tensors(adapter, map, job.recipe.output.dtype)?;
    let path = job.run.inside(&named(DIFFUSERS_FILE, variant))?;
    let version = ("populate.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let metadata = BTreeMap::from([(ADAPTER_METADATA.to_owned(), config), version]);
    checkpoints::write_tensors(&path, &tensors, &metadata)?;
    Ok(path)
}

/// A kind of prediction as files state it, and as an adapter's header calls it.
fn stated(prediction: Prediction) -> (Predicts, &'static str) {
    match prediction {
        Prediction::Epsilon => (Predicts::Epsilon, "epsilon"),
        Prediction::V => (Predicts::V, "v"),
        Prediction::Sample => (Predicts::Sample, "sample"),
    }
}

/// Header strings of an adapter file. Nothing in them differs between a run and the same run with
/// an interruption.
fn metadata(
    job: &Job<'_>,
    tensors: &TensorMap,
    step: u64,
) -> Result<BTreeMap<String, String>, TrainError> {
    let recipe = job.recipe;
    let prediction = Objective::new(&recipe.objective, &job.base.scheduler)?.prediction();
    let (predicts, prediction) = stated(prediction);
    let stored_alpha = tensors.iter().find(|(key, _)| key.strip_suffix(".alpha").is_some());
    let rank = match &recipe.adapter {
        AdapterSpec::Lora(lora) => lora.rank,
        AdapterSpec::Full(_) => 0,
    };
    let side_px = recipe.dataset.image_options().side_px;
    let facts = AdapterFacts {
        base_model: BaseModel::of(job.base.family, predicts),
        rank,
        alpha: stored_alpha.map_or(0.0, |(_, alpha)| f64::from(alpha.f32()[0])),
        name: recipe.name.clone(),
        prediction: prediction.to_owned(),
        resolution_px: (side_px, side_px),
        tensors_sha256: checkpoints::tensors_sha256(tensors),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trigger_phrase: recipe.dataset.identifier().map(str::to_owned),
        base_name: None,
        license: None,
        author: None,
        date: None,
        training_started_at: None,
        recipe_sha256: Some(hash::bytes_sha256(recipes::resolved_yaml(recipe).as_bytes())),
        base_sha256: Some(base_sha256(job.base)),
        manifest_sha256: Some(job.dataset.sha256.clone()),
        step: Some(step),
        attempts: None,
        census: None,
        energy: None,
        dataset_dirs: BTreeMap::new(),
    };
    let privacy = match recipe.output.metadata {
        MetadataLevel::Minimal => Privacy::Minimal,
        MetadataLevel::Standard => Privacy::Standard,
        MetadataLevel::Full => Privacy::Full,
    };
    Ok(adapter_metadata::metadata(&facts, privacy))
}

/// Identity of a base: one hash over those of its files.
fn base_sha256(base: &Base) -> String {
    hash::combined_sha256(base.hashes.iter().map(|(name, hash)| (name.as_str(), hash.as_str())))
}

/// Writes the whole base with its trained weights, and reads it back.
fn write_base(
    job: &Job<'_>,
    trainee: &mut Trainee,
    variant: &str,
) -> Result<Vec<PathBuf>, TrainError> {
    let name = if variant.is_empty() {
        BASE_FOLDER.to_owned()
    } else {
        format!("{BASE_FOLDER}.{variant}")
    };
    let dir = job.run.inside(&name)?;
    let values = trainee.values()?;
    postflight::check_values(&values, job.base)?;
    let dtype = job.recipe.output.dtype;
    let mut files = Vec::new();
    for component in job.base_files.components() {
        let to = dir.join(&component);
        let is_trained =
            |path: &String| path.split_once('.').is_some_and(|(first, _)| first == component);
        if values.keys().any(is_trained) || was_settled(job, &component) {
            files.extend(write_trained(job, trainee.base(), &component, &to)?);
        } else {
            job.base_files.copy_component(&component, &to)?;
        }
    }
    let index = dir.join("model_index.json");
    checkpoints::fs::atomic_write_json(&index, &job.base_files.index())?;
    let mut read =
        models::load(&ModelFiles::open(&dir, &ModelOptions::default())?, &job.base.device)?;
    read.clip_skip = job.base.clip_skip;
    postflight::check_base(&read, trainee, dtype)?;
    Ok(files)
}

/// Whether a component may hold what was settled in the base before, and its files do not.
fn was_settled(job: &Job<'_>, component: &str) -> bool {
    !job.recipe.settled.is_empty() && network(&mut job.base.clone(), component).is_some()
}

/// Writes one component with the weights that it has in memory; gives the weight files.
fn write_trained(
    job: &Job<'_>,
    trained: &Base,
    component: &str,
    to: &Path,
) -> Result<Vec<PathBuf>, TrainError> {
    let library = if component == "unet" { Library::Diffusers } else { Library::Transformers };
    let config = job.base_files.component(component)?.config;
    let mut trained = trained.clone();
    let tensors = match network(&mut trained, component) {
        Some(network) => tensors_of(network, job.recipe.output.dtype)?,
        None => TensorMap::new(),
    };
    write_component(to, library, &config, &tensors)?;
    let mut files = checkpoints::fs::list(to)?;
    files.retain(|path| path.extension().is_some_and(|end| end == "safetensors"));
    Ok(files)
}

/// All parameters of a network under their names.
fn tensors_of(network: &mut dyn Network, dtype: AdapterDtype) -> Result<TensorMap, TrainError> {
    let mut found = Vec::new();
    let mut collect =
        |path: &str, slot: &mut dyn Slot| found.push((path.to_owned(), slot.shape(), slot.flat()));
    network.visit("", &mut Show(&mut collect));
    let host = |(path, shape, values): (String, Vec<usize>, _)| {
        let tensor = HostTensor::from_f32(shape, host_values(values)?);
        let tensor = match dtype {
            AdapterDtype::F16 => tensor.to_f16(),
            AdapterDtype::Bf16 => tensor.to_bf16(),
            AdapterDtype::F32 => tensor,
        };
        Ok((path, tensor))
    };
    found.into_iter().map(host).collect()
}

#[cfg(test)]
mod tests {
    use checkpoints::{Family, TensorFile};

    use super::*;
    use crate::fixtures::World;

    #[test]
    fn variants_stand_before_the_ending() {
        assert_eq!(named("adapter.safetensors", ""), "adapter.safetensors");
        assert_eq!(named("adapter.safetensors", "ema"), "adapter.ema.safetensors");
    }

    fn header(sets: &[&str]) -> BTreeMap<String, String> {
        let world = World::new();
        let recipe = world.recipe(sets);
        world.fit("runs", &recipe, None).0.unwrap();
        let path = world.dir.path().join("runs/run").join(KOHYA_FILE);
        TensorFile::open(&path).unwrap().metadata().clone()
    }

    #[test]
    fn a_minimal_header_tells_what_readers_need_and_nothing_of_the_training() {
        let header = header(&["fit.steps=2"]);
        for (key, value) in [
            ("format", "pt"),
            ("ss_network_module", "networks.lora"),
            ("ss_network_dim", "2"),
            ("ss_network_alpha", "2"),
            ("modelspec.architecture", "populate-postcards/lora"),
            ("modelspec.title", "tiny"),
        ] {
            assert_eq!(header.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(!header.contains_key("modelspec.trigger_phrase"), "{header:?}");
    }

    /// Velocity prediction comes from the base's scheduler.
    #[test]
    fn an_adapter_of_sd2_is_said_to_predict_velocity() {
        let world = World::of(Family::Sd2, 64);
        let sets = ["fit.steps=2", "output.metadata=standard"];
        world.fit("runs", &world.recipe(&sets), None).0.unwrap();
        let path = world.dir.path().join("runs/run").join(KOHYA_FILE);
        let file = TensorFile::open(&path).unwrap();
        for (key, value) in [
            ("modelspec.architecture", "stable-diffusion-v2-768-v/lora"),
            ("modelspec.prediction_type", "v"),
            ("ss_v2", "True"),
        ] {
            assert_eq!(file.metadata().get(key).map(String::as_str), Some(value), "{key}");
        }
    }

    #[test]
    fn a_standard_header_names_what_it_was_made_from_by_hash() {
        let header = header(&["fit.steps=2", "output.metadata=standard"]);
        assert_eq!(header["modelspec.trigger_phrase"], "sks");
        assert_eq!(header["populate.step"], "2");
        assert_eq!(header["modelspec.hash_sha256"], format!("0x{}", header["sshs_model_hash"]));
        for key in ["populate.recipe_sha256", "populate.base_sha256", "populate.manifest_sha256"] {
            assert_eq!(header[key].len(), 64, "{key}");
        }
        assert!(header.values().all(|value| !value.contains('/') || value.ends_with("/lora")));
    }
}
