//! Components of a base written again as diffusers lays them out, with the bits they had.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::options::TokenizerFiles;
use super::{ModelFiles, Source, scheduler};
use crate::clip_vocabulary::{self, BEGIN, END};
use crate::error::CheckpointError;
use crate::folder::{CONFIG, ComponentFiles, Library, ModelFolder};
use crate::fs::{StdFs, atomic_write, atomic_write_json, atomic_write_with};
use crate::safetensors::{Planned, write_stream};

impl ModelFiles {
    /// Writes one component into the folder `to` as diffusers lays it out. Weights keep their bits; of a diffusers folder
    /// the files are copied, but for weights that were not chosen. Those of a variant get the plain names.
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
                TokenizerFiles::Folder(dir) => {
                    let files = crate::fs::list(&dir)?;
                    let mut files = files.iter().filter(|path| path.is_file());
                    files.try_for_each(|path| {
                        copy_file(path, &to.join(path.file_name().unwrap_or_default()))
                    })
                }
            },
            _ => write_weights(&self.component(name)?, library_of(name), to),
        }
    }

    /// Copies the files of a component, of its weights only those that are read and under their plain names, so that a
    /// folder of which some components were written anew is one that diffusers loads.
    fn copy_files(
        &self,
        folder: &ModelFolder,
        name: &str,
        to: &Path,
    ) -> Result<(), CheckpointError> {
        let used = folder.used_files(name, self.variant_of(folder, name))?;
        let name_of =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_index = |name: &str| name.contains(".index.");
        let is_sharded = used.iter().any(|path| is_index(&name_of(path)));
        used.iter().try_for_each(|path| {
            let own = name_of(path);
            let is_shard = is_sharded && !is_index(&own);
            copy_file(path, &to.join(if is_shard { own } else { plain_name(&own) }))
        })
    }
}

fn library_of(component: &str) -> Library {
    match component {
        "unet" | "vae" => Library::Diffusers,
        _ => Library::Transformers,
    }
}

/// The name of a weight file without its variant: what is written has no other, and nobody asks for one. A shard keeps
/// its name, which stands in the index.
fn plain_name(name: &str) -> String {
    let stems = [Library::Diffusers.stem(), Library::Transformers.stem()];
    let parted = stems.into_iter().find_map(|stem| Some((stem, name.strip_prefix(stem)?)));
    match parted.filter(|(_, rest)| rest.starts_with('.') && rest.contains(".safetensors")) {
        Some((stem, rest)) if rest.contains(".index.") => format!("{stem}.safetensors.index.json"),
        Some((stem, rest)) if !rest.contains("-of-") => format!("{stem}.safetensors"),
        _ => name.to_owned(),
    }
}

/// Copies a file, piece by piece.
fn copy_file(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    atomic_write_with(&StdFs, to, &mut |out: &mut dyn Write| {
        let mut file = fs_err::File::open(from)?;
        std::io::copy(&mut file, out)?;
        Ok(())
    })
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
            let (name, dtype) = (name.to_owned(), info.dtype.in_memory());
            Some(Planned { name, dtype, shape: info.shape.clone() })
        })
        .collect();
    atomic_write_json(&to.join(CONFIG), &files.config)?;
    let path = to.join(format!("{}.safetensors", library.stem()));
    write_stream(&path, &planned, &BTreeMap::new(), &mut |name| weights.read(name))?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_weights_and_indices_lose_their_variant() {
        for (name, plain) in [
            ("model.fp16.safetensors", "model.safetensors"),
            ("model.safetensors", "model.safetensors"),
            ("diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.safetensors"),
            (
                "diffusion_pytorch_model.safetensors.index.fp16.json",
                "diffusion_pytorch_model.safetensors.index.json",
            ),
            ("model.fp16.safetensors.index.json", "model.safetensors.index.json"),
        ] {
            assert_eq!(plain_name(name), plain, "{name}");
        }
        for name in [
            "config.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00001-of-00002.fp16.safetensors",
            "model.fp16-00001-of-00002.safetensors",
            "model_card.safetensors",
        ] {
            assert_eq!(plain_name(name), name);
        }
    }
}
