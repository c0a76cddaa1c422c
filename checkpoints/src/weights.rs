//! The tensors of one component under the names that current diffusers and transformers use.
//!
//! Owns shards and old spellings. What is stored under an old name is found under the new one:
//!
//! | stored | found as |
//! |---|---|
//! | `encoder.layers…` of a text tower without prefix (transformers ≥ 5.6) | `text_model.encoder.layers…` |
//! | `X.attentions.N.{query, key, value, proj_attn}` (VAE of SD 1.5) | `X.attentions.N.{to_q, to_k, to_v, to_out.0}` |
//! | attention weights as 1×1 convolutions `[out, in, 1, 1]` | `[out, in]` |
//! | `position_ids` | left out: the order of positions is no weight |

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::CheckpointError;
use crate::problem::WeightsProblem;
use crate::safetensors::{TensorFile, TensorInfo, nearest_name};
use crate::tensors::{HostTensor, TensorMap};

/// One file of weights or several shards, as one set of names.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<TensorFile>,
    tensors: BTreeMap<String, Located>,
}

#[derive(Debug)]
struct Located {
    file_idx: usize,
    stored: String,
    info: TensorInfo,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens `NAME.safetensors`, or `NAME.safetensors.index.json` with its shards.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::open`]; a shard outside the folder or an index that does not fit its shards.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.extension().is_some_and(|extension| extension == "json") {
            return Self::open_sharded(path);
        }
        Self::from_files(path, vec![TensorFile::open(path)?])
    }

    fn open_sharded(path: &Path) -> Result<Self, CheckpointError> {
        let index: ShardIndex = crate::fs::read_json(path)?;
        let wrong = |problem| CheckpointError::weights(path, problem);
        let mut shards: Vec<&String> = index.weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        let mut files = Vec::with_capacity(shards.len());
        for &shard in &shards {
            if !is_file_name(shard) {
                return Err(wrong(WeightsProblem::ShardEscapes { shard: shard.clone() }));
            }
            let file = TensorFile::open(&path.with_file_name(shard))?;
            let stray = file.names().find(|&name| index.weight_map.get(name) != Some(shard));
            if let Some(tensor) = stray {
                return Err(wrong(WeightsProblem::Shard {
                    tensor: tensor.to_owned(),
                    shard: shard.clone(),
                }));
            }
            files.push(file);
        }
        let absent = index
            .weight_map
            .iter()
            .find(|(name, _)| files.iter().all(|file| file.info(name).is_none()));
        if let Some((tensor, shard)) = absent {
            return Err(wrong(WeightsProblem::Shard {
                tensor: tensor.clone(),
                shard: shard.clone(),
            }));
        }
        Self::from_files(path, files)
    }

    fn from_files(path: &Path, files: Vec<TensorFile>) -> Result<Self, CheckpointError> {
        let prefix = missing_prefix(files.iter().flat_map(TensorFile::names));
        let mut tensors = BTreeMap::new();
        for (file_idx, file) in files.iter().enumerate() {
            for stored in file.names().filter(|name| !is_position_ids(name)) {
                let name = format!("{prefix}{}", current_name(stored));
                let Some(info) = file.info(stored) else {
                    continue;
                };
                let mut info = info.clone();
                if is_attention_weight(&name) && info.shape.len() == 4 && info.shape[2..] == [1, 1]
                {
                    info.shape.truncate(2);
                }
                let located = Located { file_idx, stored: stored.to_owned(), info };
                if tensors.insert(name.clone(), located).is_some() {
                    return Err(CheckpointError::weights(
                        path,
                        WeightsProblem::DuplicateName { name },
                    ));
                }
            }
        }
        Ok(Self { path: path.to_owned(), files, tensors })
    }

    /// The file, or the index of shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// All current names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Type and shape of a tensor, by its current name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|located| &located.info)
    }

    /// The name under which the file stores a tensor.
    pub fn stored_name(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|located| located.stored.as_str())
    }

    /// Decodes one tensor, by its current name.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::read`].
    pub fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        let Some(located) = self.tensors.get(name) else {
            let nearest = nearest_name(name, self.names());
            let problem = WeightsProblem::Missing { tensor: name.to_owned(), nearest };
            return Err(CheckpointError::weights(&self.path, problem));
        };
        let mut tensor = self.files[located.file_idx].read(&located.stored)?;
        tensor.shape.clone_from(&located.info.shape);
        Ok(tensor)
    }

    /// Decodes all tensors, by their current names.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::read`].
    pub fn read_all(&self) -> Result<TensorMap, CheckpointError> {
        self.names().map(|name| Ok((name.to_owned(), self.read(name)?))).collect()
    }

    /// sha256 of the bytes after the header; of several shards, the hash of their sorted hashes.
    pub fn tensors_sha256(&self) -> String {
        match self.files.as_slice() {
            [file] => file.tensors_sha256(),
            files => {
                let hashes: Vec<String> = files.iter().map(TensorFile::tensors_sha256).collect();
                crate::hash::combined_sha256(hashes.iter().map(|hash| ("", hash.as_str())))
            }
        }
    }
}

/// Whether a path of an index is one plain file name.
fn is_file_name(shard: &str) -> bool {
    let mut parts = Path::new(shard).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        && !shard.contains(['/', '\\'])
}

fn is_position_ids(name: &str) -> bool {
    name == "position_ids" || name.ends_with(".position_ids")
}

/// The prefix that a bare tower lacks: newer transformers write text and vision towers without it.
fn missing_prefix<'a>(names: impl Iterator<Item = &'a str>) -> &'static str {
    let mut tower = "";
    for name in names {
        if name.starts_with("pre_layrnorm.") || name == "embeddings.class_embedding" {
            return "vision_model.";
        }
        if name.starts_with("embeddings.token_embedding.") {
            tower = "text_model.";
        }
    }
    tower
}

fn is_attention_weight(name: &str) -> bool {
    [".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// The current spelling of an attention layer of an old VAE; every other name as it is.
fn current_name(stored: &str) -> String {
    let parts: Vec<&str> = stored.split('.').collect();
    let [.., "attentions", number, layer, kind] = parts.as_slice() else {
        return stored.to_owned();
    };
    let current = match *layer {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        _ => return stored.to_owned(),
    };
    let n_kept = stored.len() - layer.len() - kind.len() - number.len() - 2;
    format!("{}{number}.{current}.{kind}", &stored[..n_kept])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safetensors::write_tensors;

    fn weights_of(names: &[(&str, &[usize])]) -> Result<Weights, CheckpointError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write(&path, names);
        Weights::open(&path)
    }

    fn write(path: &Path, names: &[(&str, &[usize])]) {
        let tensor =
            |shape: &[usize]| HostTensor::from_f32(shape, vec![0.5; shape.iter().product()]);
        let tensors =
            names.iter().map(|(name, shape)| ((*name).to_owned(), tensor(shape))).collect();
        write_tensors(path, &tensors, &BTreeMap::new()).unwrap();
    }

    #[test]
    fn old_attention_names_of_a_vae_are_found_under_the_new_ones() {
        let old: [(&str, &[usize]); 5] = [
            ("decoder.mid_block.attentions.0.query.weight", &[2, 2, 1, 1]),
            ("decoder.mid_block.attentions.0.key.bias", &[2]),
            ("decoder.mid_block.attentions.0.value.weight", &[2, 2]),
            ("decoder.mid_block.attentions.0.proj_attn.weight", &[2, 2, 1, 1]),
            ("decoder.conv_in.weight", &[2, 2, 1, 1]),
        ];
        let weights = weights_of(&old).unwrap();
        let names: Vec<&str> = weights.names().collect();
        assert_eq!(
            names,
            [
                "decoder.conv_in.weight",
                "decoder.mid_block.attentions.0.to_k.bias",
                "decoder.mid_block.attentions.0.to_out.0.weight",
                "decoder.mid_block.attentions.0.to_q.weight",
                "decoder.mid_block.attentions.0.to_v.weight",
            ]
        );
        assert_eq!(
            weights.read("decoder.mid_block.attentions.0.to_q.weight").unwrap().shape,
            [2, 2]
        );
        assert_eq!(weights.read("decoder.conv_in.weight").unwrap().shape, [2, 2, 1, 1]);
        let stored = weights.stored_name("decoder.mid_block.attentions.0.to_out.0.weight");
        assert_eq!(stored, Some("decoder.mid_block.attentions.0.proj_attn.weight"));
    }

    #[test]
    fn a_text_tower_is_found_with_and_without_its_prefix() {
        let bare: [(&str, &[usize]); 3] = [
            ("embeddings.token_embedding.weight", &[3, 2]),
            ("embeddings.position_ids", &[1, 3]),
            ("encoder.layers.0.layer_norm1.weight", &[2]),
        ];
        let weights = weights_of(&bare).unwrap();
        let expected = [
            "text_model.embeddings.token_embedding.weight",
            "text_model.encoder.layers.0.layer_norm1.weight",
        ];
        assert_eq!(weights.names().collect::<Vec<_>>(), expected);
        let prefixed: Vec<(&str, &[usize])> =
            expected.iter().map(|name| (*name, [2].as_slice())).collect();
        assert_eq!(weights_of(&prefixed).unwrap().names().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_vae_encoder_is_not_taken_for_a_text_tower() {
        let weights =
            weights_of(&[("encoder.conv_in.weight", &[1]), ("decoder.conv_in.weight", &[1])])
                .unwrap();
        assert_eq!(weights.names().next(), Some("decoder.conv_in.weight"));
    }

    #[test]
    fn two_spellings_of_one_tensor_are_refused() {
        let both: [(&str, &[usize]); 2] =
            [("m.attentions.0.query.weight", &[1, 1]), ("m.attentions.0.to_q.weight", &[1, 1])];
        assert!(weights_of(&both).unwrap_err().to_string().contains("twice"));
    }

    fn sharded(weight_map: &str) -> Result<Weights, CheckpointError> {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("m-1.safetensors"), &[("a", &[1])]);
        write(&folder.path().join("m-2.safetensors"), &[("b", &[2])]);
        let index = folder.path().join("m.safetensors.index.json");
        crate::fs::atomic_write(
            &index,
            format!("{{\"metadata\":{{\"total_size\":12}},\"weight_map\":{weight_map}}}")
                .as_bytes(),
        )
        .unwrap();
        Weights::open(&index)
    }

    #[test]
    fn shards_are_one_set_of_names() {
        let weights = sharded(r#"{"a":"m-1.safetensors","b":"m-2.safetensors"}"#).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(weights.read("b").unwrap().shape, [2]);
        assert_eq!(weights.files().len(), 2);
    }

    #[test]
    fn an_index_that_does_not_fit_its_shards_is_refused() {
        for weight_map in [
            r#"{"a":"m-1.safetensors","b":"m-1.safetensors"}"#,
            r#"{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-2.safetensors"}"#,
            r#"{"b":"m-1.safetensors"}"#,
        ] {
            let error = sharded(weight_map).unwrap_err();
            assert!(
                matches!(
                    error,
                    CheckpointError::Weights { problem: WeightsProblem::Shard { .. }, .. }
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn a_shard_outside_the_folder_is_refused() {
        for shard in
            ["../m-1.safetensors", "/etc/passwd", "x/../m-1.safetensors", "..", "", ".", "x\\\\y"]
        {
            let error = sharded(&format!(r#"{{"a":"{shard}"}}"#)).unwrap_err();
            let refused = matches!(
                error,
                CheckpointError::Weights { problem: WeightsProblem::ShardEscapes { .. }, .. }
            );
            assert!(refused, "{shard}: {error}");
        }
    }
}
