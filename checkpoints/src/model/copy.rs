//! Components of a base written again as diffusers lays them out, with the bits they had.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::options::TokenizerFiles;
use super::{ModelFiles, Source, scheduler};
use crate::clip_vocabulary::{self, BEGIN, END};
use crate::error::CheckpointError;
use crate::folder::{CONFIG, ComponentFiles, Library, ModelFolder, is_weight_file, weight_files};
use crate::fs::{StdFs, atomic_write, atomic_write_json, atomic_write_with};
use crate::safetensors::{Planned, write_stream};
use crate::tensors::Dtype;

impl ModelFiles {
    /// Writes one component into the folder `to` as diffusers lays it out. Weights keep their bits; of a diffusers folder
    /// the files are copied, but for weights that were not chosen.
    ///
    /// # Errors
    ///
    /// As [`ModelFiles::component`], [`ModelFiles::tokenizer`] and [`ModelFiles::scheduler`]; [`CheckpointError::Io`].
    pub fn copy_component(&self, name: &str, to: &Path) -> Result<(), CheckpointError> {
        let is_own_vae = name == "vae" && self.options.vae.is_some();
        let changes_scheduler =
            self.options.prediction.is_some() || self.options.zero_terminal_snr.is_some();
        match (&self.source, name) {
            (Source::Folder(folder), "scheduler") if !changes_scheduler => {
                self.copy_files(folder, name, to)
            }
            (_, "scheduler") => {
                let file_name = Path::new(scheduler::FILE).file_name().unwrap_or_default();
                atomic_write_json(&to.join(file_name), &self.scheduler()?)
            }
            (Source::Folder(folder), _) if !is_own_vae => self.copy_files(folder, name, to),
            (_, "tokenizer" | "tokenizer_2") => match self.tokenizer(name)? {
                TokenizerFiles::Clip { pad } => write_tokenizer(pad, to),
                TokenizerFiles::Folder(dir) => copy_all(&dir, to, &|_| true),
            },
            _ => write_weights(&self.component(name)?, library_of(name), to),
        }
    }

    /// Copies the files of a component, of its weights only those that are read.
    fn copy_files(
        &self,
        folder: &ModelFolder,
        name: &str,
        to: &Path,
    ) -> Result<(), CheckpointError> {
        let dir = folder.dir(name);
        let mut chosen: Vec<PathBuf> = Vec::new();
        if !weight_files(&dir)?.is_empty() {
            let weights = self.component(name)?.weights;
            chosen.push(weights.path().to_owned());
            chosen.extend(weights.files().iter().map(|file| file.path().to_owned()));
        }
        copy_all(&dir, to, &|path| {
            !is_weight_file(path) || chosen.iter().any(|other| other.as_path() == path)
        })
    }
}

fn library_of(component: &str) -> Library {
    match component {
        "unet" | "vae" => Library::Diffusers,
        _ => Library::Transformers,
    }
}

/// Copies the files of a folder for which `wanted` holds, each piece by piece.
fn copy_all(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<(), CheckpointError> {
    for path in crate::fs::list(from)? {
        let Some(name) = path.file_name().filter(|_| path.is_file() && wanted(&path)) else {
            continue;
        };
        atomic_write_with(&StdFs, &to.join(name), &mut |out: &mut dyn Write| {
            let mut file = fs_err::File::open(&path)?;
            std::io::copy(&mut file, out)?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes `config.json` and the weights, one tensor at a time.
fn write_weights(
    files: &ComponentFiles,
    library: Library,
    to: &Path,
) -> Result<(), CheckpointError> {
    let weights = &files.weights;
    let planned: Vec<Planned> = weights
        .names()
        .filter_map(|name| {
            let info = weights.info(name)?;
            let (name, dtype) = (name.to_owned(), dtype_in_memory(info.dtype));
            Some(Planned { name, dtype, shape: info.shape.clone() })
        })
        .collect();
    atomic_write_json(&to.join(CONFIG), &files.config)?;
    let path = to.join(format!("{}.safetensors", library.stem()));
    write_stream(&path, &planned, &BTreeMap::new(), &mut |name| weights.read(name))?;
    Ok(())
}

/// The type in which a tensor of that stored type is read.
fn dtype_in_memory(stored: Dtype) -> Dtype {
    match stored {
        Dtype::F16 => Dtype::F16,
        Dtype::Bf16 => Dtype::Bf16,
        // Reading a float of 8 bits is refused by name.
        Dtype::F32 | Dtype::F64 | Dtype::F8E4M3 | Dtype::F8E5M2 => Dtype::F32,
        Dtype::Bool
        | Dtype::U8
        | Dtype::I8
        | Dtype::U16
        | Dtype::I16
        | Dtype::U32
        | Dtype::I32
        | Dtype::U64
        | Dtype::I64 => Dtype::I64,
    }
}

/// Writes CLIP's vocabulary as transformers names its files.
fn write_tokenizer(pad: &str, to: &Path) -> Result<(), CheckpointError> {
    let tokens = clip_vocabulary::tokens().into_iter().enumerate();
    let vocabulary: Map<String, Value> = tokens.map(|(id, token)| (token, json!(id))).collect();
    let marks = [("bos_token", BEGIN), ("eos_token", END), ("pad_token", pad), ("unk_token", END)];
    let mut settings: Map<String, Value> =
        marks.iter().map(|(field, token)| ((*field).to_owned(), json!(token))).collect();
    atomic_write_json(&to.join("vocab.json"), &vocabulary)?;
    atomic_write(&to.join("merges.txt"), clip_vocabulary::merges().as_bytes())?;
    atomic_write_json(&to.join("special_tokens_map.json"), &settings)?;
    for (field, value) in [
        ("add_prefix_space", json!(false)),
        ("do_lower_case", json!(true)),
        ("model_max_length", json!(77)),
        ("tokenizer_class", json!("CLIPTokenizer")),
    ] {
        settings.insert(field.to_owned(), value);
    }
    atomic_write_json(&to.join("tokenizer_config.json"), &settings)
}
