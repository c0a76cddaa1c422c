//! A base model in whatever form its files have: a diffusers folder or a single file, read the same way.

mod copy;
mod options;
mod scheduler;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::clip_vocabulary;
use crate::error::CheckpointError;
use crate::family::Family;
use crate::folder::{self, ComponentFiles, IGNORED, ModelFolder};
use crate::hash;
use crate::single_file::{SingleFile, standalone_vae};
pub use options::{ModelOptions, Predicts, TokenizerFiles, WhichWeights};

const UNET_CONFIG: &str = "unet/config.json";

/// The files of one base, with what the user chose about them. Cloning shares open files.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    source: Source,
    options: ModelOptions,
    family: Family,
    /// What [`ModelFiles::hashes`] found, empty before: gigabytes are not read twice.
    hashes: Arc<Mutex<BTreeMap<String, String>>>,
}

#[derive(Debug, Clone)]
enum Source {
    Folder(ModelFolder),
    File(Arc<SingleFile>),
}

impl From<ModelFolder> for ModelFiles {
    /// The base of a folder, with default options. A folder without a readable UNet counts as a miniature.
    fn from(folder: ModelFolder) -> Self {
        let family = family_of(&folder).unwrap_or(Family::Postcards);
        let (source, options) = (Source::Folder(folder), ModelOptions::default());
        Self { source, options, family, hashes: Arc::default() }
    }
}

impl ModelFiles {
    /// Opens a diffusers folder or a single-file checkpoint and says what it is. No weight is read.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::ModelFolder`] and [`CheckpointError::Model`] for what is no base, or not all of one;
    /// [`CheckpointError::Weights`] for a file that is damaged, a pickle, or with tensors that are missing, misshaped or
    /// unknown; an option that the files cannot meet.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Self, CheckpointError> {
        let (source, family) = if path.is_file() {
            let file = open_file(path, options)?;
            let family = file.family();
            (Source::File(Arc::new(file)), family)
        } else {
            let folder = open_folder(path, options)?;
            let family = family_of(&folder)?;
            (Source::Folder(folder), family)
        };
        let files = Self { source, options: options.clone(), family, hashes: Arc::default() };
        if files.options.vae.is_some() {
            files.component("vae")?;
        }
        Ok(files)
    }

    /// The folder or the file.
    pub fn path(&self) -> &Path {
        match &self.source {
            Source::Folder(folder) => folder.path(),
            Source::File(file) => file.path(),
        }
    }

    /// The name given in the options, else the last part of the path; of a file without its ending.
    pub fn name(&self) -> String {
        if let Some(name) = &self.options.name {
            return name.clone();
        }
        let last = |path: &Path| {
            let name = match &self.source {
                Source::Folder(_) => path.file_name(),
                Source::File(_) => path.file_stem(),
            };
            name.map(|name| name.to_string_lossy().into_owned())
        };
        // `.` and `..` have no name of their own.
        let real = || self.path().canonicalize().ok();
        last(self.path())
            .or_else(|| last(&real()?))
            .unwrap_or_else(|| self.path().display().to_string())
    }

    /// Family of the base, by its structure.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The diffusers folder; `None` for a single file.
    pub const fn folder(&self) -> Option<&ModelFolder> {
        match &self.source {
            Source::Folder(folder) => Some(folder),
            Source::File(_) => None,
        }
    }

    /// Names of the components in use, sorted.
    pub fn components(&self) -> Vec<String> {
        let names: &[&str] = match &self.source {
            Source::Folder(folder) => {
                return folder.components().into_iter().map(str::to_owned).collect();
            }
            Source::File(_) if self.family == Family::Sdxl => &[
                "scheduler",
                "text_encoder",
                "text_encoder_2",
                "tokenizer",
                "tokenizer_2",
                "unet",
                "vae",
            ],
            Source::File(_) => &["scheduler", "text_encoder", "tokenizer", "unet", "vae"],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// Configuration and weights of a component. Of a single file the configuration is derived from the shapes of its
    /// tensors; the VAE is the one of [`ModelOptions::vae`], if there is one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Model`] for a name that the base has not; else as [`ComponentFiles::open`].
    pub fn component(&self, name: &str) -> Result<ComponentFiles, CheckpointError> {
        if let (Some(vae), "vae") = (&self.options.vae, name) {
            return self.own_vae(vae);
        }
        let found = match &self.source {
            Source::Folder(folder) if folder.components().contains(&name) => {
                Some(folder.component_of(name, self.variant_of(folder, name))?)
            }
            Source::Folder(_) => None,
            Source::File(file) => file.component(name),
        };
        let mut files = found.ok_or_else(|| self.no_component(name))?;
        if let (Source::File(file), "unet", Family::Sd2) = (&self.source, name, self.family) {
            self.set_sd2_side(file, &mut files.config);
        }
        Ok(files)
    }

    /// Side of the latents of SD 2.x: the models that predict v were trained at 768 px, the others at 512 px. Left out as
    /// long as nobody says which this is.
    fn set_sd2_side(&self, file: &SingleFile, config: &mut Value) {
        let side = match self.options.prediction.or(file.predicts()) {
            Some(Predicts::V) => Some(96),
            Some(Predicts::Epsilon | Predicts::Sample) => Some(64),
            None => None,
        };
        if let Some(config) = config.as_object_mut() {
            match side {
                Some(side) => config.insert("sample_size".to_owned(), json!(side)),
                None => config.remove("sample_size"),
            };
        }
    }

    /// The variant of a component's weights. As in diffusers, a component without the variant is read as it is.
    fn variant_of(&self, folder: &ModelFolder, name: &str) -> Option<&str> {
        let variant = self.options.variant.as_deref()?;
        folder::has_variant(&folder.dir(name), variant).then_some(variant)
    }

    /// The VAE that takes the place of the base's own.
    fn own_vae(&self, path: &Path) -> Result<ComponentFiles, CheckpointError> {
        if !path.is_file() {
            let inside = path.join("vae");
            let is_base = path.join(folder::INDEX).is_file() && inside.is_dir();
            return ComponentFiles::open(if is_base { &inside } else { path });
        }
        let beside = path.with_file_name(folder::CONFIG);
        if beside.is_file() {
            let config: Value = crate::fs::read_json(&beside)?;
            // Such a file may belong to anything else that lies there.
            if config.get("_class_name").is_some_and(|class| class == "AutoencoderKL") {
                return standalone_vae(path, &config);
            }
        }
        standalone_vae(path, &self.vae_config()?)
    }

    /// The configuration of the base's own VAE, which tells in what scale its network sees latents.
    fn vae_config(&self) -> Result<Value, CheckpointError> {
        if let Source::Folder(folder) = &self.source {
            let own = "vae/config.json";
            if folder.path().join(own).is_file() {
                return folder.json(own);
            }
        }
        Ok(self.family.vae_config().unwrap_or_default())
    }

    /// The files of a tokenizer, `tokenizer` or SDXL's `tokenizer_2`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Model`] for a name that the base has not.
    pub fn tokenizer(&self, name: &str) -> Result<TokenizerFiles, CheckpointError> {
        match (&self.source, name) {
            (Source::Folder(folder), _) if folder.components().contains(&name) => {
                Ok(TokenizerFiles::Folder(folder.dir(name)))
            }
            (Source::File(_), "tokenizer") => Ok(TokenizerFiles::Clip {
                pad: match self.family {
                    Family::Sd2 => clip_vocabulary::EXCLAMATION,
                    Family::Postcards | Family::Sd1 | Family::Sdxl => clip_vocabulary::END,
                },
            }),
            (Source::File(_), "tokenizer_2") if self.family == Family::Sdxl => {
                Ok(TokenizerFiles::Clip { pad: clip_vocabulary::EXCLAMATION })
            }
            _ => Err(self.no_component(name)),
        }
    }

    fn no_component(&self, name: &str) -> CheckpointError {
        let found = self.components().join(", ");
        CheckpointError::model(self.path(), &format!("the component `{name}`"), &found, None)
    }

    /// `scheduler_config.json` with the options in place of what it says; of a single file that of its family.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Prediction`] for a single file of SD 2.x, whose weights do not tell epsilon from v, unless the
    /// options or a marker in the file do; [`CheckpointError::Io`], [`CheckpointError::Json`].
    pub fn scheduler(&self) -> Result<Value, CheckpointError> {
        match &self.source {
            Source::Folder(folder) => scheduler::of_folder(folder, &self.options),
            Source::File(file) => scheduler::of_file(file, &self.options),
        }
    }

    /// Whether the empty negative prompt stands for states of zeros instead of those of an empty text: as
    /// `model_index.json` says; SDXL where nothing is said.
    pub fn force_zeros_for_empty_prompt(&self) -> bool {
        let said = self.folder().and_then(|folder| {
            folder.index().get("force_zeros_for_empty_prompt").and_then(Value::as_bool)
        });
        said.unwrap_or(self.family == Family::Sdxl)
    }

    /// Where the evaluator of the base lies, if it has one: `evaluator/` in the folder, or beside the single file.
    pub fn evaluator_dir(&self) -> PathBuf {
        match &self.source {
            Source::Folder(folder) => folder.dir("evaluator"),
            Source::File(file) => file.path().with_file_name("evaluator"),
        }
    }

    /// `model_index.json` of the base, less the components that no picture needs; of a single file the one that it
    /// amounts to.
    pub fn index(&self) -> Value {
        let Source::Folder(folder) = &self.source else { return self.index_of_file() };
        let mut index = folder.index().clone();
        for name in IGNORED {
            if index.get(name).is_some_and(Value::is_array) {
                index.insert(name.to_owned(), json!([null, null]));
            }
        }
        if index.contains_key("requires_safety_checker") {
            index.insert("requires_safety_checker".to_owned(), json!(false));
        }
        Value::Object(index)
    }

    fn index_of_file(&self) -> Value {
        let scheduler = crate::single_file::released_scheduler(self.family);
        let class = self.scheduler().unwrap_or(scheduler)["_class_name"].clone();
        let mut index = json!({
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", class],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "feature_extractor": [null, null],
            "image_encoder": [null, null],
        });
        let own = if self.family == Family::Sdxl {
            vec![
                ("_class_name", json!("StableDiffusionXLPipeline")),
                ("force_zeros_for_empty_prompt", json!(true)),
                ("text_encoder_2", json!(["transformers", "CLIPTextModelWithProjection"])),
                ("tokenizer_2", json!(["transformers", "CLIPTokenizer"])),
            ]
        } else {
            vec![("requires_safety_checker", json!(false)), ("safety_checker", json!([null, null]))]
        };
        for (field, value) in own {
            index[field] = value;
        }
        index
    }

    /// sha256 of every file of the base, and of every option that changes weights or schedule. Without options those of a
    /// folder are [`ModelFolder::hashes`].
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; as [`ModelFiles::component`] for a VAE of its own.
    pub fn hashes(&self) -> Result<BTreeMap<String, String>, CheckpointError> {
        let mut known = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            *known = self.fresh_hashes()?;
        }
        Ok(known.clone())
    }

    fn fresh_hashes(&self) -> Result<BTreeMap<String, String>, CheckpointError> {
        let mut hashes = match &self.source {
            Source::Folder(folder) => {
                let replaced = if self.options.vae.is_some() { "vae" } else { "" };
                let variant_of = |name: &str| self.variant_of(folder, name).map(str::to_owned);
                folder.hashes_of(&variant_of, replaced)?
            }
            // The name of the file is not what it is.
            Source::File(file) => BTreeMap::from([("single_file".to_owned(), file.sha256())]),
        };
        let options = &self.options;
        let mut put = |option: &str, value: &str| {
            hashes.insert(format!("options/{option}"), hash::bytes_sha256(value.as_bytes()));
        };
        if let Some(variant) = &options.variant {
            put("variant", variant);
        }
        if options.which == WhichWeights::Average {
            put("weights", "average");
        }
        if let Some(predicts) = options.prediction {
            put("prediction", predicts.name());
        }
        if let Some(zero) = options.zero_terminal_snr {
            put("zero_terminal_snr", if zero { "true" } else { "false" });
        }
        if options.vae.is_some() {
            let vae = self.component("vae")?;
            put("vae", &format!("{} {}", vae.weights.tensors_sha256(), vae.config));
        }
        Ok(hashes)
    }

    /// One hash for all that [`ModelFiles::hashes`] lists: the identity of the base.
    ///
    /// # Errors
    ///
    /// As [`ModelFiles::hashes`].
    pub fn sha256(&self) -> Result<String, CheckpointError> {
        let hashes = self.hashes()?;
        Ok(hash::combined_sha256(hashes.iter().map(|(name, hash)| (name.as_str(), hash.as_str()))))
    }
}

fn family_of(folder: &ModelFolder) -> Result<Family, CheckpointError> {
    Ok(Family::of_unet_config(&folder.json(UNET_CONFIG)?))
}

fn open_file(path: &Path, options: &ModelOptions) -> Result<SingleFile, CheckpointError> {
    if let Some(variant) = &options.variant {
        return Err(CheckpointError::model(
            path,
            &format!("a diffusers folder, for only those have variants such as `{variant}`"),
            "a single file",
            Some("leave `variant` out, or name the file of that variant"),
        ));
    }
    SingleFile::open(path, options)
}

fn open_folder(dir: &Path, options: &ModelOptions) -> Result<ModelFolder, CheckpointError> {
    let folder = ModelFolder::open(dir)?;
    if !folder.components().contains(&"unet") {
        let class = folder.index().get("_class_name").and_then(Value::as_str).unwrap_or("a model");
        let found = format!("{class} with {}", folder.components().join(", "));
        return Err(CheckpointError::model(dir, "a base with the component `unet`", &found, None));
    }
    if options.which == WhichWeights::Average {
        return Err(CheckpointError::model(
            dir,
            "a single file, which alone can hold a moving average beside its weights",
            "a folder",
            Some("folders have variants instead, such as `non_ema`"),
        ));
    }
    if let Some(variant) = &options.variant {
        check_variant(&folder, variant)?;
    }
    Ok(folder)
}

/// At least one component must have the variant.
fn check_variant(folder: &ModelFolder, variant: &str) -> Result<(), CheckpointError> {
    let mut found = Vec::new();
    for name in folder.components() {
        let dir = folder.dir(name);
        if folder::has_variant(&dir, variant) {
            return Ok(());
        }
        let files = folder::weight_files(&dir)?;
        if !files.is_empty() {
            found.push(format!("{name}/ with {}", files.join(", ")));
        }
    }
    let expected = format!("weights of the variant `{variant}`");
    Err(CheckpointError::model(folder.path(), &expected, &found.join("; "), None))
}

#[cfg(test)]
mod tests;
