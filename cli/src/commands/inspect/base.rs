//! What a base, in a folder or a single file, or one of its components holds.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::folder::ComponentFiles;
use checkpoints::{ModelFiles, ModelOptions, TensorFile, TensorInfo, Weights};
use serde_json::{Value, json};

use super::{Findings, name};
use crate::error::JobError;

/// Fields of a `config.json` that say most about a network.
const TELLING: [&str; 14] = [
    "_class_name",
    "architectures",
    "sample_size",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "attention_head_dim",
    "latent_channels",
    "scaling_factor",
    "hidden_size",
    "num_hidden_layers",
    "projection_dim",
    "vocab_size",
    "prediction_type",
];

/// Components with weights.
const NETWORKS: [&str; 4] = ["text_encoder", "text_encoder_2", "unet", "vae"];

/// Whether a file's names are those of a whole base in the original naming.
pub(super) fn is_single_file(file: &TensorFile) -> bool {
    file.names().any(|name| name.contains("model.diffusion_model."))
}

/// All components of a base, each hashed.
pub(super) fn inspect(path: &Path) -> Result<Findings, JobError> {
    let files = ModelFiles::open(path, &ModelOptions::default())?;
    let index = files.index();
    let family = files.family();
    let mut lines = vec![format!("{}: base, {}", name(path), family.title())];
    let mut components = BTreeMap::new();
    for component in files.components() {
        let class = index[&component].get(1).and_then(Value::as_str).unwrap_or("unknown");
        lines.push(format!("{component}: {class}"));
        let mut record = json!({ "class": class });
        // Tokenizers and schedulers have no weights.
        if NETWORKS.contains(&component.as_str()) {
            let files = files.component(&component)?;
            let (told, weights) = describe(&files);
            lines.extend(told);
            record["config"] = files.config.clone();
            record["weights"] = weights;
        }
        components.insert(component, record);
    }
    let (hashes, sha256) = (files.hashes()?, files.sha256()?);
    lines.push(format!("sha256 of the base: {sha256}"));
    let record = json!({
        "event": "inspected", "kind": "base", "path": path, "family": family.name(),
        "components": components, "hashes": hashes, "sha256": sha256,
    });
    Ok(Findings { lines, record })
}

/// One component.
pub(super) fn inspect_component(path: &Path) -> Result<Findings, JobError> {
    let files = ComponentFiles::open(path)?;
    let (told, weights) = describe(&files);
    let mut lines = vec![format!("{}: component of a base", name(path))];
    lines.extend(told);
    let record = json!({
        "event": "inspected", "kind": "component", "path": path, "config": files.config,
        "weights": weights,
    });
    Ok(Findings { lines, record })
}

fn describe(files: &ComponentFiles) -> (Vec<String>, Value) {
    let mut lines = Vec::new();
    for field in TELLING {
        if let Some(value) = files.config.get(field) {
            lines.push(format!("  {field}: {value}"));
        }
    }
    let weights = &files.weights;
    let n_values = n_values(weights);
    let dtypes = dtypes(weights);
    let sha256 = weights.tensors_sha256();
    lines.push(format!("  {} tensors, {n_values} values, {dtypes}", weights.len()));
    lines.push(format!("  sha256 of the tensors: {sha256}"));
    let record = json!({
        "tensors": weights.len(), "values": n_values, "dtypes": dtypes, "tensors_sha256": sha256,
    });
    (lines, record)
}

fn n_values(weights: &Weights) -> usize {
    weights.names().filter_map(|name| weights.info(name)).map(TensorInfo::len).sum()
}

fn dtypes(weights: &Weights) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for info in weights.names().filter_map(|name| weights.info(name)) {
        *counts.entry(info.dtype.name()).or_insert(0) += 1;
    }
    counts.into_keys().collect::<Vec<_>>().join(" and ")
}
