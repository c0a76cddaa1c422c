//! A base with adapters merged into its weights, written tensor by tensor.
//!
//! W becomes W + Σ dose·(α/r)·B·A in f32 and is then rounded once to the type in which it is stored.
//! What is in memory is one tensor in f32, and the bytes of the base that are read for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use checkpoints::folder::ComponentFiles;
use checkpoints::fs::{StdFs, atomic_write_json, atomic_write_with};
use checkpoints::{
    CheckpointError, Dtype, FileHashes, HostTensor, ModelFiles, Planned, TensorFile, TensorInfo,
    Values, WeightsProblem, write_stream,
};

use super::merge::add_change;
use super::{Adapter, Factors};
use crate::error::ModelError;

/// Components with layers that adapters reach, and the file that diffusers keeps their weights in.
const NETWORKS: [(&str, &str); 3] = [
    ("unet", "diffusion_pytorch_model.safetensors"),
    ("text_encoder", "model.safetensors"),
    ("text_encoder_2", "model.safetensors"),
];
/// Begins the names of a moving average, which is none of the merged weights.
const AVERAGE: &str = "model_ema.";
/// Header strings that stop being true.
const HASHES: [&str; 3] = ["modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash"];

/// In which type the weights of UNet and text encoders are stored; everything else keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAs {
    /// Each tensor in the type in which the base stores it.
    AsRead,
    /// Single precision.
    F32,
    /// Half precision: magnitudes up to 65,504.
    F16,
    /// bfloat16.
    Bf16,
}

impl StoreAs {
    /// The type for a tensor of the network that is stored as `dtype`.
    fn of(self, dtype: Dtype) -> Dtype {
        let kept = dtype.in_memory();
        match (self, kept) {
            (Self::AsRead, _) | (_, Dtype::I64) => kept,
            (Self::F32, _) => Dtype::F32,
            (Self::F16, _) => Dtype::F16,
            (Self::Bf16, _) => Dtype::Bf16,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Layers whose weight was changed.
    pub changed: usize,
    /// Tensors of a moving average that were left out.
    pub dropped: usize,
}

/// Where in a stored tensor the weight of a layer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Rows from this one on.
    Rows(usize),
    /// All of it, inputs first.
    Transposed,
}

/// Something to be added to a stored tensor.
#[derive(Clone, Copy, Debug)]
struct Change<'a> {
    factors: &'a Factors,
    dose: f64,
    place: Place,
}

/// Changes by the name of the stored tensor.
type Changes<'a> = BTreeMap<String, Vec<Change<'a>>>;

/// Number of layers that the adapters change.
///
/// # Errors
///
/// [`ModelError::Adapter`] for a module of a network that the base has not.
fn changed_layers(files: &ModelFiles, adapters: &[(Adapter, f64)]) -> Result<usize, ModelError> {
    let present = files.components();
    let mut paths = BTreeSet::new();
    for (adapter, _) in adapters.iter().filter(|(_, dose)| *dose != 0.0) {
        for (path, _) in adapter.modules.iter().filter(|(_, f)| f.scale() != 0.0) {
            let component = path.split('.').next().unwrap_or_default();
            let known = NETWORKS.iter().any(|(name, _)| *name == component);
            if !known || !present.iter().any(|name| name == component) {
                return Err(ModelError::Adapter {
                    module: path.clone(),
                    reason: format!("the base has no network `{component}`"),
                });
            }
            paths.insert(path);
        }
    }
    Ok(paths.len())
}

/// Writes the base as a diffusers folder, with the adapters merged into UNet and text encoders. All
/// other components are copied, the evaluator of a miniature too.
///
/// # Errors
///
/// [`ModelError::Adapter`] for a module that fits no layer; [`ModelError::Checkpoint`], also for a
/// weight that becomes infinite in its type. Files that were written before stay: the caller gives a
/// folder that can be thrown away.
pub fn merge_into_folder(
    files: &ModelFiles,
    adapters: &[(Adapter, f64)],
    store: StoreAs,
    dir: &Path,
) -> Result<Merged, ModelError> {
    let merged = Merged { changed: changed_layers(files, adapters)?, dropped: 0 };
    for component in files.components() {
        let to = dir.join(&component);
        let Some((_, file)) = NETWORKS.iter().find(|(name, _)| *name == component) else {
            files.copy_component(&component, &to)?;
            continue;
        };
        let network = files.component(&component)?;
        let changes = changes(&component, &network, adapters, Naming::Current)?;
        if changes.is_empty() && store == StoreAs::AsRead {
            files.copy_component(&component, &to)?;
            continue;
        }
        atomic_write_json(&to.join("config.json"), &network.config)?;
        write_network(&network, &changes, store, &to.join(file))?;
    }
    atomic_write_json(&dir.join("model_index.json"), &files.index())?;
    let evaluator = files.evaluator_dir();
    if files.folder().is_some() && evaluator.is_dir() {
        copy_files(&evaluator, &dir.join("evaluator"))?;
    }
    Ok(merged)
}

fn write_network(
    network: &ComponentFiles,
    changes: &Changes<'_>,
    store: StoreAs,
    path: &Path,
) -> Result<(), ModelError> {
    let weights = &network.weights;
    let plan = |name: &str| weights.info(name).map(|info| planned(name, info, store));
    let planned: Vec<Planned> = weights.names().filter_map(plan).collect();
    let mut read = |name: &str| {
        let tensor = weights.read(name)?;
        let dtype = weights.info(name).map_or(Dtype::F32, |info| store.of(info.dtype));
        finished(path, name, tensor, (changes.get(name), dtype))
    };
    write_stream(path, &planned, &BTreeMap::new(), &mut read)?;
    Ok(())
}

fn planned(name: &str, info: &TensorInfo, store: StoreAs) -> Planned {
    Planned { name: name.to_owned(), dtype: store.of(info.dtype), shape: info.shape.clone() }
}

fn copy_files(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    for path in checkpoints::fs::list(from)? {
        let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
        let named = |error: io::Error| {
            let text = format!("failed to copy `{}`: {error}", path.display());
            CheckpointError::from(io::Error::new(error.kind(), text))
        };
        let mut file = std::fs::File::open(&path).map_err(named)?;
        atomic_write_with(&StdFs, &to.join(name), &mut |out| {
            io::copy(&mut file, out).map_err(named)?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes a single-file base with the adapters merged in: the same names, shapes and header, less a
/// moving average and the hashes that no longer hold.
///
/// # Errors
///
/// As [`merge_into_folder`]; [`ModelError::Checkpoint`] if the base is a folder, or holds a value
/// that is not finite.
pub fn merge_into_file(
    files: &ModelFiles,
    adapters: &[(Adapter, f64)],
    store: StoreAs,
    path: &Path,
) -> Result<(Merged, FileHashes), ModelError> {
    let file = TensorFile::open(files.path())?;
    let (changes, of_networks) = file_changes(files, &file, adapters)?;
    let mut merged = Merged { changed: changed_layers(files, adapters)?, dropped: 0 };
    let mut planned = Vec::with_capacity(file.len());
    for name in file.names() {
        let Some(info) = file.info(name) else { continue };
        if name.contains(AVERAGE) {
            merged.dropped += 1;
            continue;
        }
        let store = if of_networks.contains(name) { store } else { StoreAs::AsRead };
        planned.push(self::planned(name, info, store));
    }
    let dtypes: BTreeMap<String, Dtype> =
        planned.iter().map(|plan| (plan.name.clone(), plan.dtype)).collect();
    let mut metadata = file.metadata().clone();
    metadata.retain(|key, _| !HASHES.contains(&key.as_str()));
    let mut read = |name: &str| {
        let tensor = file.read(name)?;
        if !tensor.all_finite() {
            let problem = WeightsProblem::HoldsNotFinite { tensor: name.to_owned() };
            return Err(CheckpointError::Weights { path: file.path().to_owned(), problem });
        }
        let dtype = dtypes.get(name).copied().unwrap_or(Dtype::F32);
        finished(path, name, tensor, (changes.get(name), dtype))
    };
    let hashes = write_stream(path, &planned, &metadata, &mut read)?;
    Ok((merged, hashes))
}

/// Changes of a single file, and the names of all tensors of its networks.
fn file_changes<'a>(
    files: &ModelFiles,
    file: &TensorFile,
    adapters: &'a [(Adapter, f64)],
) -> Result<(Changes<'a>, BTreeSet<String>), ModelError> {
    let mut changes = Changes::new();
    let mut of_networks = BTreeSet::new();
    let present = files.components();
    for (component, _) in NETWORKS.iter().filter(|(name, _)| present.iter().any(|c| c == name)) {
        let network = files.component(component)?;
        let weights = &network.weights;
        let stored = weights.names().filter_map(|name| weights.stored_name(name));
        of_networks.extend(stored.map(str::to_owned));
        for (name, found) in self::changes(component, &network, adapters, Naming::Stored(file))? {
            changes.entry(name).or_default().extend(found);
        }
    }
    Ok((changes, of_networks))
}

/// Under which names tensors are written.
#[derive(Clone, Copy, Debug)]
enum Naming<'a> {
    /// Those of current diffusers and transformers, each tensor whole.
    Current,
    /// Those of the file, where one tensor may hold several layers.
    Stored(&'a TensorFile),
}

/// What the adapters add to the tensors of one component.
fn changes<'a>(
    component: &str,
    network: &ComponentFiles,
    adapters: &'a [(Adapter, f64)],
    naming: Naming<'_>,
) -> Result<Changes<'a>, ModelError> {
    let mut changes = Changes::new();
    for (adapter, dose) in adapters.iter().filter(|(_, dose)| *dose != 0.0) {
        for (path, factors) in adapter.modules.iter().filter(|(_, f)| f.scale() != 0.0) {
            let Some(inner) = path.strip_prefix(component).and_then(|path| path.strip_prefix('.'))
            else {
                continue;
            };
            let name = format!("{inner}.weight");
            let found = target(network, &name, factors, naming);
            let (name, place) = found.map_err(|reason| ModelError::Adapter {
                module: path.clone(),
                reason: reason.to_owned(),
            })?;
            changes.entry(name).or_default().push(Change { factors, dose: *dose, place });
        }
    }
    Ok(changes)
}

/// The tensor that holds the weight of a layer, and where.
fn target(
    network: &ComponentFiles,
    name: &str,
    factors: &Factors,
    naming: Naming<'_>,
) -> Result<(String, Place), &'static str> {
    let absent = "the base has no such layer";
    let weights = &network.weights;
    let n_values = weights.info(name).ok_or(absent)?.len();
    let rows = factors.up.shape.first().copied().unwrap_or(0);
    let columns = factors.down.len() / factors.rank().max(1);
    if rows * columns != n_values {
        return Err("its factors do not fit the weight of the base");
    }
    let Naming::Stored(file) = naming else { return Ok((name.to_owned(), Place::Rows(0))) };
    let stored = weights.stored_name(name).ok_or(absent)?;
    let n_stored = file.info(stored).ok_or(absent)?.len();
    let place = if n_stored == n_values {
        // OpenCLIP keeps its projection as a parameter that is multiplied from the right.
        let transposed = stored.ends_with("text_projection");
        if transposed { Place::Transposed } else { Place::Rows(0) }
    } else {
        // OpenCLIP stacks the rows of queries, keys and values.
        let order = [".q_proj.weight", ".k_proj.weight", ".v_proj.weight"];
        let place = order.iter().position(|end| name.ends_with(end));
        let place = place.filter(|_| n_stored == order.len() * n_values);
        Place::Rows(place.ok_or("the base stores its weight in a way that is not known")? * rows)
    };
    Ok((stored.to_owned(), place))
}

/// The tensor with its changes, in its type.
fn finished(
    path: &Path,
    name: &str,
    tensor: HostTensor,
    (changes, dtype): (Option<&Vec<Change<'_>>>, Dtype),
) -> Result<HostTensor, CheckpointError> {
    if changes.is_none() && tensor.values.dtype() == dtype {
        return Ok(tensor);
    }
    let shape = tensor.shape.clone();
    let mut values = tensor.f32().into_owned();
    // The stored form is no longer needed, and as large as half the new one or more.
    drop(tensor);
    for change in changes.into_iter().flatten() {
        apply(&mut values, change);
    }
    let changed = HostTensor { shape, values: Values::F32(values) };
    let rounded = if dtype == Dtype::F16 {
        changed.to_f16()
    } else if dtype == Dtype::Bf16 {
        changed.to_bf16()
    } else {
        changed
    };
    if rounded.all_finite() {
        return Ok(rounded);
    }
    let problem = WeightsProblem::NotFinite { tensor: name.to_owned() };
    Err(CheckpointError::Weights { path: path.to_owned(), problem })
}

fn apply(values: &mut [f32], change: &Change<'_>) {
    let Change { factors, dose, place } = *change;
    let rows = factors.up.shape.first().copied().unwrap_or(0);
    let columns = factors.down.len() / factors.rank().max(1);
    match place {
        Place::Rows(first) => {
            add_change(&mut values[first * columns..][..rows * columns], factors, dose);
        }
        Place::Transposed => {
            let mut added = vec![0.0; rows * columns];
            add_change(&mut added, factors, dose);
            for (row, added) in added.chunks_exact(columns.max(1)).enumerate() {
                for (column, added) in added.iter().enumerate() {
                    values[column * rows + row] += added;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
