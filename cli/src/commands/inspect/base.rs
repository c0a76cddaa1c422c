//! What the folder of a base or of one of its components holds.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::folder::{ComponentFiles, ModelFolder};
use checkpoints::{TensorInfo, Weights};
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

/// All components of a base, each hashed.
pub(super) fn inspect(path: &Path) -> Result<Findings, JobError> {
    let folder = ModelFolder::open(path)?;
    let mut lines = vec![format!("{}: base", name(path))];
    let mut components = BTreeMap::new();
    for component in folder.components() {
        let class = folder.class(component).unwrap_or("unknown");
        lines.push(format!("{component}: {class}"));
        // Tokenizers and schedulers have no weights.
        let has_weights = folder.dir(component).join("config.json").is_file();
        let mut record = json!({ "class": class });
        if has_weights {
            let files = folder.component(component)?;
            let (told, weights) = describe(&files);
            lines.extend(told);
            record["config"] = files.config.clone();
            record["weights"] = weights;
        }
        components.insert(component.to_owned(), record);
    }
    let (hashes, sha256) = (folder.hashes()?, folder.sha256()?);
    lines.push(format!("sha256 of the base: {sha256}"));
    let record = json!({
        "event": "inspected", "kind": "base", "path": path, "components": components,
        "hashes": hashes, "sha256": sha256,
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
