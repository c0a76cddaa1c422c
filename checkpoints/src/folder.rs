//! A model as diffusers lays it out: `model_index.json` and one folder for each component.
//!
//! Owns where files lie; what a configuration means belongs to the crates that build from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::CheckpointError;
use crate::hash;
use crate::problem::WeightsProblem;
use crate::safetensors::{FileHashes, write_tensors};
use crate::tensors::TensorMap;
use crate::weights::Weights;

/// Components that diffusers lists and that no picture needs.
const IGNORED: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];
const INDEX: &str = "model_index.json";
const CONFIG: &str = "config.json";

/// A folder with a readable `model_index.json` whose components all exist.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    dir: PathBuf,
    index: serde_json::Map<String, Value>,
}

/// Configuration and weights of one component.
#[derive(Debug)]
pub struct ComponentFiles {
    /// The folder of the component.
    pub dir: PathBuf,
    /// `config.json` as it is.
    pub config: Value,
    /// Where `config` was read, for messages.
    pub config_path: PathBuf,
    /// The tensors under their current names.
    pub weights: Weights,
}

impl ModelFolder {
    /// Reads `model_index.json` and checks that every component in it has a folder.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::ModelFolder`] with what is missing, [`CheckpointError::Json`], [`CheckpointError::Io`].
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(INDEX);
        if !path.is_file() {
            let found = if dir.is_dir() { "no such file" } else { "no such folder" };
            return Err(not_a_model(dir, INDEX, found));
        }
        let Value::Object(index) = crate::fs::read_json(&path)? else {
            return Err(not_a_model(dir, "an object in `model_index.json`", "another JSON value"));
        };
        let folder = Self { dir: dir.to_owned(), index };
        for name in folder.components() {
            if !folder.dir.join(name).is_dir() {
                return Err(not_a_model(
                    dir,
                    &format!("the component `{name}` of `{INDEX}`"),
                    "no such folder",
                ));
            }
        }
        Ok(folder)
    }

    /// Where the folder lies.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// `model_index.json` as it is.
    pub const fn index(&self) -> &serde_json::Map<String, Value> {
        &self.index
    }

    /// Names of the components in use, in the order of the alphabet: those with a class, less what no picture needs.
    pub fn components(&self) -> Vec<&str> {
        let named = self.index.iter().filter(|(name, entry)| {
            let class = entry.as_array().and_then(|pair| pair.get(1));
            class.is_some_and(Value::is_string)
                && is_plain(name)
                && !IGNORED.contains(&name.as_str())
        });
        let mut names: Vec<&str> = named.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The class that `model_index.json` gives a component, such as `UNet2DConditionModel`.
    pub fn class(&self, name: &str) -> Option<&str> {
        self.index.get(name)?.get(1)?.as_str()
    }

    /// The folder of a component, which need not be in the index (`evaluator` is not) and may be absent.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Configuration and weights of a component.
    ///
    /// # Errors
    ///
    /// As [`ComponentFiles::open`].
    pub fn component(&self, name: &str) -> Result<ComponentFiles, CheckpointError> {
        ComponentFiles::open(&self.dir.join(name))
    }

    /// Reads one JSON file of the folder, such as `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`] or [`CheckpointError::Json`].
    pub fn json<T: DeserializeOwned>(&self, relative: &str) -> Result<T, CheckpointError> {
        crate::fs::read_json(&self.dir.join(relative))
    }

    /// sha256 of every file of the components in use, under its path from here.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn hashes(&self) -> Result<BTreeMap<String, String>, CheckpointError> {
        let mut hashes = BTreeMap::new();
        for name in self.components() {
            for path in crate::fs::list(&self.dir.join(name))? {
                let Some(file_name) = path.file_name().filter(|_| path.is_file()) else {
                    continue;
                };
                hashes.insert(
                    format!("{name}/{}", file_name.to_string_lossy()),
                    hash::file_sha256(&path)?.0,
                );
            }
        }
        Ok(hashes)
    }

    /// One hash for all that [`ModelFolder::hashes`] lists: the identity of a base.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn sha256(&self) -> Result<String, CheckpointError> {
        let hashes = self.hashes()?;
        Ok(hash::combined_sha256(hashes.iter().map(|(name, hash)| (name.as_str(), hash.as_str()))))
    }
}

impl ComponentFiles {
    /// Reads `config.json` and finds the weights: `diffusion_pytorch_model` or `model`, whole or in shards, else the
    /// same in `fp16`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::ModelFolder`] if one of them is missing; [`WeightsProblem::Pickle`] if there is only a pickle.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let config_path = dir.join(CONFIG);
        if !config_path.is_file() {
            return Err(not_a_model(dir, &format!("`{CONFIG}`"), "no such file"));
        }
        let config = crate::fs::read_json(&config_path)?;
        let weights = Weights::open(&weights_path(dir)?)?;
        Ok(Self { dir: dir.to_owned(), config, config_path, weights })
    }
}

fn weights_path(dir: &Path) -> Result<PathBuf, CheckpointError> {
    let stems = [Library::Diffusers, Library::Transformers].map(Library::stem);
    for variant in ["", ".fp16"] {
        for stem in stems {
            for end in ["", ".index.json"] {
                let path = dir.join(format!("{stem}{variant}.safetensors{end}"));
                if path.is_file() {
                    return Ok(path);
                }
            }
        }
    }
    let pickle = ["diffusion_pytorch_model.bin", "pytorch_model.bin", "model.ckpt"]
        .map(|name| dir.join(name));
    if let Some(path) = pickle.iter().find(|path| path.is_file()) {
        return Err(CheckpointError::weights(path, WeightsProblem::Pickle));
    }
    Err(not_a_model(
        dir,
        &format!("`{}.safetensors` or `{}.safetensors`", stems[0], stems[1]),
        "neither",
    ))
}

/// Which Python library names the weights of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// UNet and VAE: `diffusion_pytorch_model.safetensors`.
    Diffusers,
    /// Text and vision towers: `model.safetensors`.
    Transformers,
}

impl Library {
    const fn stem(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusion_pytorch_model",
            Self::Transformers => "model",
        }
    }
}

/// Writes `config.json` and the weights of one component into `dir`, each atomically, weights last.
///
/// # Errors
///
/// As [`write_tensors`].
pub fn write_component(
    dir: &Path,
    library: Library,
    config: &Value,
    tensors: &TensorMap,
) -> Result<FileHashes, CheckpointError> {
    crate::fs::atomic_write_json(&dir.join(CONFIG), config)?;
    write_tensors(&dir.join(format!("{}.safetensors", library.stem())), tensors, &BTreeMap::new())
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['_', '.']) && !name.contains(['/', '\\'])
}

fn not_a_model(dir: &Path, expected: &str, found: &str) -> CheckpointError {
    CheckpointError::ModelFolder {
        path: dir.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::HostTensor;
    use serde_json::json;

    fn example() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let index = json!({
            "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "requires_safety_checker": false,
            "unet": ["diffusers", "UNet2DConditionModel"], "safety_checker": ["x", "Y"], "image_encoder": [null, null],
        });
        crate::fs::atomic_write_json(&folder.path().join(INDEX), &index).unwrap();
        let tensors = TensorMap::from([("conv_in.weight".to_owned(), HostTensor::scalar(1.0))]);
        let config = json!({"in_channels": 4});
        write_component(&folder.path().join("unet"), Library::Diffusers, &config, &tensors)
            .unwrap();
        folder
    }

    #[test]
    fn a_written_component_is_found_again() {
        let dir = example();
        let folder = ModelFolder::open(dir.path()).unwrap();
        assert_eq!(folder.components(), ["unet"]);
        assert_eq!(folder.class("unet"), Some("UNet2DConditionModel"));
        let unet = folder.component("unet").unwrap();
        assert_eq!(unet.config["in_channels"], 4);
        assert_eq!(unet.weights.names().collect::<Vec<_>>(), ["conv_in.weight"]);
        assert_eq!(folder.json::<Value>("unet/config.json").unwrap(), unet.config);
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |folder: &Path, expected: &str| {
            let error = ModelFolder::open(folder).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let dir = example();
        check(&dir.path().join("unet"), "expected model_index.json, found no such file");
        check(&dir.path().join("nowhere"), "found no such folder");
        fs_err::rename(dir.path().join("unet"), dir.path().join("other")).unwrap();
        check(dir.path(), "the component `unet`");
        let error = ComponentFiles::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("`config.json`"), "{error}");
    }

    #[test]
    fn a_component_with_only_a_pickle_is_refused_as_such() {
        let dir = example();
        let unet = dir.path().join("unet");
        crate::fs::remove_file(&unet.join("diffusion_pytorch_model.safetensors")).unwrap();
        let error = ComponentFiles::open(&unet).unwrap_err().to_string();
        assert!(
            error.contains(
                "`diffusion_pytorch_model.safetensors` or `model.safetensors`, found neither"
            ),
            "{error}"
        );
        crate::fs::atomic_write(&unet.join("diffusion_pytorch_model.bin"), b"PK\x03\x04").unwrap();
        let error = ComponentFiles::open(&unet).unwrap_err();
        assert!(matches!(error, CheckpointError::Weights { problem: WeightsProblem::Pickle, .. }));
    }

    #[test]
    fn the_identity_of_a_base_is_its_files() {
        let dir = example();
        let folder = ModelFolder::open(dir.path()).unwrap();
        let before = folder.sha256().unwrap();
        assert_eq!(
            folder.hashes().unwrap().into_keys().collect::<Vec<_>>(),
            ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
        );
        assert_eq!(ModelFolder::open(dir.path()).unwrap().sha256().unwrap(), before);
        crate::fs::atomic_write(&dir.path().join("unet/config.json"), b"{}").unwrap();
        assert_ne!(folder.sha256().unwrap(), before);
    }
}
