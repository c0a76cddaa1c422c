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
pub(crate) const IGNORED: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];
pub(crate) const INDEX: &str = "model_index.json";
pub(crate) const CONFIG: &str = "config.json";

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
        if let Some(name) = index.iter().find_map(|(name, entry)| escaping(name, entry)) {
            let expected = format!("components of `{INDEX}` in folders beside it");
            return Err(not_a_model(dir, &expected, &format!("the component `{name}`")));
        }
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
        self.component_of(name, None)
    }

    /// Configuration and weights of a component, of the variant of that name if one is given.
    pub(crate) fn component_of(
        &self,
        name: &str,
        variant: Option<&str>,
    ) -> Result<ComponentFiles, CheckpointError> {
        ComponentFiles::open_variant(&self.dir.join(name), variant)
    }

    /// Reads one JSON file of the folder, such as `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`] or [`CheckpointError::Json`].
    pub fn json<T: DeserializeOwned>(&self, relative: &str) -> Result<T, CheckpointError> {
        crate::fs::read_json(&self.dir.join(relative))
    }

    /// sha256 of every file of the components in use, under its path from here; of weights those that are read.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; [`CheckpointError::Weights`] for weights that cannot be read.
    pub fn hashes(&self) -> Result<BTreeMap<String, String>, CheckpointError> {
        self.hashes_of(&|_| None, "")
    }

    /// The same with the variant that `variant_of` gives for each component, and without the component `replaced`.
    pub(crate) fn hashes_of(
        &self,
        variant_of: &dyn Fn(&str) -> Option<String>,
        replaced: &str,
    ) -> Result<BTreeMap<String, String>, CheckpointError> {
        let mut hashes = BTreeMap::new();
        for name in self.components().into_iter().filter(|&name| name != replaced) {
            for path in self.used_files(name, variant_of(name).as_deref())? {
                let file_name = path.file_name().unwrap_or_default().to_string_lossy();
                hashes.insert(format!("{name}/{file_name}"), hash::file_sha256(&path)?.0);
            }
        }
        Ok(hashes)
    }

    /// Files of a component, less weights that are not read: a snapshot of the hub may hold the same weights in five
    /// forms, and another program may add one at any time.
    pub(crate) fn used_files(
        &self,
        name: &str,
        variant: Option<&str>,
    ) -> Result<Vec<PathBuf>, CheckpointError> {
        let dir = self.dir.join(name);
        let mut chosen: Vec<PathBuf> = Vec::new();
        if !weight_files(&dir)?.is_empty() {
            let weights = self.component_of(name, variant)?.weights;
            chosen.push(weights.path().to_owned());
            chosen.extend(weights.files().iter().map(|file| file.path().to_owned()));
        }
        let is_used =
            |path: &PathBuf| path.is_file() && (!is_weight_file(path) || chosen.contains(path));
        Ok(crate::fs::list(&dir)?.into_iter().filter(is_used).collect())
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
        Self::open_variant(dir, None)
    }

    /// [`ComponentFiles::open`] with the weights of one variant, such as `fp16`: `NAME.fp16.safetensors`, or shards with
    /// the index `NAME.safetensors.index.fp16.json`.
    ///
    /// # Errors
    ///
    /// As [`ComponentFiles::open`]; a variant that is not there is an error that lists what is.
    pub fn open_variant(dir: &Path, variant: Option<&str>) -> Result<Self, CheckpointError> {
        let config_path = dir.join(CONFIG);
        if !config_path.is_file() {
            return Err(not_a_model(dir, &format!("`{CONFIG}`"), "no such file"));
        }
        let config = crate::fs::read_json(&config_path)?;
        let weights = Weights::open(&weights_path(dir, variant)?)?;
        Ok(Self { dir: dir.to_owned(), config, config_path, weights })
    }
}

const STEMS: [&str; 2] = [Library::Diffusers.stem(), Library::Transformers.stem()];
/// What stands for the plain files where there are none.
const HALF: &str = "fp16";

fn weights_path(dir: &Path, variant: Option<&str>) -> Result<PathBuf, CheckpointError> {
    let found = match variant {
        Some(_) => safetensors_of(dir, variant),
        None => safetensors_of(dir, None).or_else(|| safetensors_of(dir, Some(HALF))),
    };
    if let Some(path) = found {
        return Ok(path);
    }
    if let Some(path) = pickles_of(dir, variant).into_iter().find(|path| path.is_file()) {
        return Err(CheckpointError::weights(&path, WeightsProblem::Pickle));
    }
    let names = match variant {
        None => STEMS.map(|stem| format!("`{stem}.safetensors`")),
        Some(variant) => STEMS.map(|stem| format!("`{stem}.{variant}.safetensors`")),
    };
    let there = weight_files(dir)?;
    let found = if there.is_empty() { "neither".to_owned() } else { there.join(", ") };
    Err(not_a_model(dir, &names.join(" or "), &found))
}

/// The file of a variant, or the index of its shards, in each spelling that diffusers and transformers have used.
fn safetensors_of(dir: &Path, variant: Option<&str>) -> Option<PathBuf> {
    let ends = match variant {
        None => vec![".safetensors".to_owned(), ".safetensors.index.json".to_owned()],
        Some(variant) => vec![
            format!(".{variant}.safetensors"),
            format!(".safetensors.index.{variant}.json"),
            format!(".safetensors.{variant}.index.json"),
            format!(".{variant}.safetensors.index.json"),
        ],
    };
    let paths = STEMS.iter().flat_map(|stem| ends.iter().map(move |end| format!("{stem}{end}")));
    paths.map(|name| dir.join(name)).find(|path| path.is_file())
}

fn pickles_of(dir: &Path, variant: Option<&str>) -> Vec<PathBuf> {
    let part = variant.map(|variant| format!(".{variant}")).unwrap_or_default();
    [
        format!("diffusion_pytorch_model{part}.bin"),
        format!("pytorch_model{part}.bin"),
        format!("model{part}.ckpt"),
    ]
    .map(|name| dir.join(name))
    .into()
}

/// Whether a component has weights of a variant.
pub(crate) fn has_variant(dir: &Path, variant: &str) -> bool {
    safetensors_of(dir, Some(variant)).is_some()
        || pickles_of(dir, Some(variant)).iter().any(|path| path.is_file())
}

/// Names of the files of a folder that hold weights or list their shards, in backticks.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let paths = crate::fs::list(dir)?;
    let files = paths.iter().filter(|path| path.is_file() && is_weight_file(path));
    let names = files.filter_map(|path| path.file_name());
    Ok(names.map(|name| format!("`{}`", name.to_string_lossy())).collect())
}

/// Whether a file of a component is one of weights, in any form, or the index of their shards.
pub(crate) fn is_weight_file(path: &Path) -> bool {
    const ENDS: [&str; 9] =
        ["safetensors", "bin", "ckpt", "pt", "pth", "msgpack", "h5", "onnx", "onnx_data"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = path.extension().unwrap_or_default();
    ENDS.iter().any(|known| end == *known) || (name.contains(".index.") && end == "json")
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
    pub(crate) const fn stem(self) -> &'static str {
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

/// The name of an entry that is a component in a folder elsewhere.
fn escaping<'a>(name: &'a str, entry: &Value) -> Option<&'a str> {
    let is_component = entry.as_array().is_some_and(|pair| pair.iter().any(Value::is_string));
    (is_component && (name.contains(['/', '\\']) || name == "..")).then_some(name)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['_', '.']) && !name.contains(['/', '\\'])
}

pub(crate) fn not_a_model(dir: &Path, expected: &str, found: &str) -> CheckpointError {
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

    /// A component with a file of weights under each of the names.
    fn component(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        crate::fs::atomic_write_json(&dir.path().join(CONFIG), &json!({})).unwrap();
        for &name in names {
            let tensors = TensorMap::from([(name.to_owned(), HostTensor::scalar(1.0))]);
            let path = dir.path().join(name);
            if path.extension().is_some_and(|ending| ending == "json") {
                let shard = format!("{name}-1.safetensors");
                write_tensors(&dir.path().join(&shard), &tensors, &BTreeMap::new()).unwrap();
                let index = json!({ "weight_map": { name: shard } });
                crate::fs::atomic_write_json(&path, &index).unwrap();
            } else {
                write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
            }
        }
        dir
    }

    #[test]
    fn the_variant_that_is_asked_for_is_opened() {
        let (plain, half) = ("model.safetensors", "model.fp16.safetensors");
        let shards = "diffusion_pytorch_model.safetensors.index.fp16.json";
        for (files, variant, expected) in [
            (vec![plain, half], None, plain),
            (vec![plain, half], Some("fp16"), half),
            (vec![half], None, half),
            (vec!["model.safetensors.index.json", half], None, "model.safetensors.index.json"),
            (vec![shards, "model.non_ema.safetensors"], Some("fp16"), shards),
            (vec![shards], None, shards),
            (vec!["model.non_ema.safetensors"], Some("non_ema"), "model.non_ema.safetensors"),
            (
                vec!["diffusion_pytorch_model.safetensors.fp16.index.json"],
                Some("fp16"),
                "diffusion_pytorch_model.safetensors.fp16.index.json",
            ),
            (
                vec!["model.fp16.safetensors.index.json"],
                Some("fp16"),
                "model.fp16.safetensors.index.json",
            ),
        ] {
            let dir = component(&files);
            let opened = ComponentFiles::open_variant(dir.path(), variant).unwrap();
            assert_eq!(opened.weights.names().collect::<Vec<_>>(), [expected], "{files:?}");
        }
    }

    #[test]
    fn a_variant_that_is_not_there_is_an_error_that_lists_what_is() {
        let dir = component(&["model.safetensors", "model.non_ema.safetensors"]);
        let error = ComponentFiles::open_variant(dir.path(), Some("fp16")).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("`model.fp16.safetensors`, found `model.non_ema.safetensors`, `model"),
            "{message}"
        );
        crate::fs::atomic_write(&dir.path().join("pytorch_model.fp16.bin"), b"PK").unwrap();
        let error = ComponentFiles::open_variant(dir.path(), Some("fp16")).unwrap_err();
        assert!(matches!(error, CheckpointError::Weights { problem: WeightsProblem::Pickle, .. }));
        assert!(error.hint().unwrap().contains("convert"));
    }

    #[test]
    fn a_component_outside_the_folder_is_refused() {
        for name in ["../unet", "/etc", "a\\b", "..", "x/../unet"] {
            let dir = example();
            let index = json!({ name: ["diffusers", "UNet2DConditionModel"] });
            crate::fs::atomic_write_json(&dir.path().join(INDEX), &index).unwrap();
            let error = ModelFolder::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("the component `{name}`")), "{error}");
        }
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
