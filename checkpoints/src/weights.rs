//! The tensors of one component under the names that current diffusers and transformers use.
//!
//! Owns shards, old spellings, and views: a component of a larger file is the part of it that a table of names lists.
//! What is stored under an old name is found under the new one:
//!
//! | stored | found as |
//! |---|---|
//! | `encoder.layers…` of a text tower without prefix (transformers ≥ 5.6) | `text_model.encoder.layers…` |
//! | `X.attentions.N.{query, key, value, proj_attn}` (VAE of SD 1.5) | `X.attentions.N.{to_q, to_k, to_v, to_out.0}` |
//! | attention weights as 1×1 convolutions `[out, in, 1, 1]` | `[out, in]` |
//! | `position_ids` | left out: the order of positions is no weight |

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::CheckpointError;
use crate::problem::WeightsProblem;
use crate::safetensors::{TensorFile, TensorInfo, nearest_name};
use crate::tensors::{HostTensor, TensorMap, Values};

/// One file of weights, several shards, or the part of a file that is one component, as one set of names. Cloning shares
/// the files.
#[derive(Debug, Clone)]
pub struct Weights {
    path: PathBuf,
    files: Vec<Arc<TensorFile>>,
    tensors: BTreeMap<String, Located>,
    extent: Extent,
}

#[derive(Debug, Clone)]
struct Located {
    file_idx: usize,
    stored: String,
    /// Where the bytes lie, and the shape that the tensor has here.
    info: TensorInfo,
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    AsStored,
    /// The file holds the transpose.
    Transposed,
}

/// Whether the files hold anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    WholeFiles,
    PartOfFile,
}

/// A tensor of a component that is part of a larger file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The current name.
    pub(crate) name: String,
    /// The name in the file.
    pub(crate) stored: String,
    /// The shape that the tensor must have here.
    pub(crate) shape: Vec<usize>,
    /// What it is of the stored tensor.
    pub(crate) view: View,
}

/// What a tensor is of the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// The same.
    Whole,
    /// A matrix that may be stored as a convolution of one value, with axes of length 1 behind.
    Matrix,
    /// Rows from `first` on, of `of` in all.
    Rows {
        /// The first row.
        first: usize,
        /// Rows of the stored tensor.
        of: usize,
    },
    /// The transpose of a stored matrix.
    Transposed,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Wanted {
    /// The shape with which the tensor must be stored.
    fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        match self.view {
            View::Whole | View::Matrix => {}
            View::Rows { of, .. } => {
                if let Some(n_rows) = shape.first_mut() {
                    *n_rows = of;
                }
            }
            View::Transposed => shape.reverse(),
        }
        shape
    }

    /// Where the tensor lies, given what the header says about the stored one; `None` if the shapes do not fit.
    fn located(&self, stored: &TensorInfo) -> Option<Located> {
        let expected = self.stored_shape();
        let fits = match self.view {
            View::Matrix => without_ones(&stored.shape) == without_ones(&expected),
            View::Whole | View::Rows { .. } | View::Transposed => stored.shape == expected,
        };
        if !fits {
            return None;
        }
        let (info, order) = match self.view {
            View::Rows { first, .. } => (stored.rows(first, *self.shape.first()?), Order::AsStored),
            View::Whole | View::Matrix => (stored.reshaped(&self.shape), Order::AsStored),
            View::Transposed => (stored.reshaped(&self.shape), Order::Transposed),
        };
        let info = info?;
        Some(Located { file_idx: 0, stored: self.stored.clone(), info, order })
    }
}

/// A matrix less the axes of length 1 that follow its two.
fn without_ones(shape: &[usize]) -> &[usize] {
    match shape {
        [rows_columns @ .., 1] if rows_columns.len() >= 2 => without_ones(rows_columns),
        _ => shape,
    }
}

impl Weights {
    /// Opens `NAME.safetensors`, or `NAME.safetensors.index.json` with its shards.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::open`]; a shard that is missing or outside the folder, or an index that does not fit its shards.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.extension().is_some_and(|extension| extension == "json") {
            return Self::open_sharded(path);
        }
        Self::from_files(path, vec![TensorFile::open(path)?])
    }

    fn open_sharded(path: &Path) -> Result<Self, CheckpointError> {
        let index: ShardIndex = crate::fs::read_json(path)?;
        let wrong = |problem| CheckpointError::weights(path, problem);
        let shards = shards_of(path, &index).map_err(wrong)?;
        let mut files = Vec::with_capacity(shards.len());
        for &shard in &shards {
            let file = TensorFile::open(&path.with_file_name(shard))?;
            let stray =
                file.names().find(|&name| index.weight_map.get(name).is_none_or(|of| of != shard));
            if let Some(tensor) = stray {
                return Err(wrong(WeightsProblem::Shard {
                    tensor: tensor.to_owned(),
                    shard: shard.to_owned(),
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
                let order = Order::AsStored;
                let located = Located { file_idx, stored: stored.to_owned(), info, order };
                if tensors.insert(name.clone(), located).is_some() {
                    return Err(CheckpointError::weights(
                        path,
                        WeightsProblem::DuplicateName { name },
                    ));
                }
            }
        }
        let files = files.into_iter().map(Arc::new).collect();
        Ok(Self { path: path.to_owned(), files, tensors, extent: Extent::WholeFiles })
    }

    /// The component of a larger file that `wanted` lists; all of the stored tensors must be there.
    ///
    /// # Errors
    ///
    /// [`WeightsProblem::Missing`] and [`WeightsProblem::Shape`].
    pub(crate) fn of_part(
        file: &Arc<TensorFile>,
        wanted: &[Wanted],
    ) -> Result<Self, CheckpointError> {
        let path = file.path();
        let mut tensors = BTreeMap::new();
        for part in wanted {
            let Some(stored) = file.info(&part.stored) else {
                let nearest = nearest_name(&part.stored, file.names());
                let problem = WeightsProblem::Missing { tensor: part.stored.clone(), nearest };
                return Err(CheckpointError::weights(path, problem));
            };
            let located = part.located(stored).ok_or_else(|| {
                let problem = WeightsProblem::Shape {
                    tensor: part.stored.clone(),
                    expected: part.stored_shape(),
                    found: stored.shape.clone(),
                };
                CheckpointError::weights(path, problem)
            })?;
            tensors.insert(part.name.clone(), located);
        }
        let (path, files) = (path.to_owned(), vec![Arc::clone(file)]);
        Ok(Self { path, files, tensors, extent: Extent::PartOfFile })
    }

    /// The file, or the index of shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> &[Arc<TensorFile>] {
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

    /// The name under which the file stores a tensor, or the larger one that it is a part of.
    pub fn stored_name(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|located| located.stored.as_str())
    }

    /// Decodes one tensor, by its current name, in its stored precision.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::read`]; [`WeightsProblem::HoldsNotFinite`] for an infinite or undefined value, which would make
    /// every result undefined.
    pub fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        let located = self.located(name)?;
        let file = &self.files[located.file_idx];
        finished(file, located, file.read_part(&located.stored, &located.info)?)
    }

    /// As [`Weights::read`], in single precision, without a copy in the stored one.
    ///
    /// # Errors
    ///
    /// As [`Weights::read`].
    pub fn read_f32(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        let located = self.located(name)?;
        let file = &self.files[located.file_idx];
        finished(file, located, file.read_part_f32(&located.stored, &located.info)?)
    }

    fn located(&self, name: &str) -> Result<&Located, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| {
            let nearest = nearest_name(name, self.names());
            let problem = WeightsProblem::Missing { tensor: name.to_owned(), nearest };
            CheckpointError::weights(&self.path, problem)
        })
    }

    /// Decodes all tensors, by their current names.
    ///
    /// # Errors
    ///
    /// As [`Weights::read`].
    pub fn read_all(&self) -> Result<TensorMap, CheckpointError> {
        self.names().map(|name| Ok((name.to_owned(), self.read(name)?))).collect()
    }

    /// sha256 of the bytes after the header; of several shards, the hash of their sorted hashes; of a part of a larger
    /// file, the hash over name, type, shape and stored bytes of its tensors in the order of the names.
    pub fn tensors_sha256(&self) -> String {
        match (self.extent, self.files.as_slice()) {
            (Extent::PartOfFile, _) => self.part_sha256(),
            (Extent::WholeFiles, [file]) => file.tensors_sha256(),
            (Extent::WholeFiles, files) => {
                let hashes: Vec<String> = files.iter().map(|file| file.tensors_sha256()).collect();
                crate::hash::combined_sha256(hashes.iter().map(|hash| ("", hash.as_str())))
            }
        }
    }

    fn part_sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, located) in &self.tensors {
            let info = &located.info;
            hasher.update(format!("{name} {} {:?}\n", info.dtype.name(), info.shape));
            self.files[located.file_idx].hash_part(info, &mut hasher);
        }
        hex::encode(hasher.finalize())
    }
}

/// A tensor that was read, checked and turned as its current name wants it.
fn finished(
    file: &TensorFile,
    located: &Located,
    tensor: HostTensor,
) -> Result<HostTensor, CheckpointError> {
    if !tensor.all_finite() {
        let problem = WeightsProblem::HoldsNotFinite { tensor: located.stored.clone() };
        return Err(CheckpointError::weights(file.path(), problem));
    }
    let (Order::Transposed, [n_rows, _]) = (located.order, tensor.shape.as_slice()) else {
        return Ok(tensor);
    };
    let values = match &tensor.values {
        Values::F32(values) => Values::F32(transposed(values, *n_rows)),
        Values::F16(values) => Values::F16(transposed(values, *n_rows)),
        Values::Bf16(values) => Values::Bf16(transposed(values, *n_rows)),
        Values::I64(values) => Values::I64(transposed(values, *n_rows)),
    };
    Ok(HostTensor { shape: tensor.shape, values })
}

/// A matrix of `n_rows` rows from its transpose, whose rows therefore have so many values.
fn transposed<T: Copy>(stored: &[T], n_rows: usize) -> Vec<T> {
    (0..n_rows).flat_map(|row| stored.iter().skip(row).step_by(n_rows).copied()).collect()
}

/// The shards of an index, sorted: plain names of files beside it, all there.
fn shards_of<'a>(path: &Path, index: &'a ShardIndex) -> Result<Vec<&'a str>, WeightsProblem> {
    let mut shards: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
    shards.sort_unstable();
    shards.dedup();
    if let Some(&shard) = shards.iter().find(|shard| !is_file_name(shard)) {
        return Err(WeightsProblem::ShardEscapes { shard: shard.to_owned() });
    }
    let is_absent = |shard: &&&str| !path.with_file_name(shard).is_file();
    match shards.iter().find(is_absent) {
        Some(&shard) => Err(WeightsProblem::ShardMissing {
            shard: shard.to_owned(),
            n_missing: shards.iter().filter(is_absent).count(),
            n_shards: shards.len(),
        }),
        None => Ok(shards),
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

    fn wanted(name: &str, stored: &str, shape: &[usize], view: View) -> Wanted {
        let (name, stored) = (name.to_owned(), stored.to_owned());
        Wanted { name, stored, shape: shape.to_vec(), view }
    }

    fn counted(shape: &[usize]) -> HostTensor {
        let n_values: usize = shape.iter().product();
        HostTensor::from_f32(shape, (0..n_values).map(|n| n as f32).collect())
    }

    fn file_of(tensors: &TensorMap) -> Arc<TensorFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.safetensors");
        write_tensors(&path, tensors, &BTreeMap::new()).unwrap();
        Arc::new(TensorFile::open(&path).unwrap())
    }

    #[test]
    fn a_view_is_the_part_of_the_stored_tensor_that_it_names() {
        let file = file_of(&TensorMap::from([
            ("in_proj".to_owned(), counted(&[6, 2])),
            ("in_bias".to_owned(), counted(&[6]).to_f16()),
            ("projection".to_owned(), counted(&[2, 3]).to_bf16()),
            ("attention".to_owned(), counted(&[2, 2, 1, 1])),
        ]));
        let weights = Weights::of_part(
            &file,
            &[
                wanted("q.weight", "in_proj", &[2, 2], View::Rows { first: 0, of: 6 }),
                wanted("v.weight", "in_proj", &[2, 2], View::Rows { first: 4, of: 6 }),
                wanted("k.bias", "in_bias", &[2], View::Rows { first: 2, of: 6 }),
                wanted("projection.weight", "projection", &[3, 2], View::Transposed),
                wanted("to_q.weight", "attention", &[2, 2], View::Matrix),
            ],
        )
        .unwrap();
        for (name, shape, values) in [
            ("q.weight", vec![2, 2], vec![0.0, 1.0, 2.0, 3.0]),
            ("v.weight", vec![2, 2], vec![8.0, 9.0, 10.0, 11.0]),
            ("k.bias", vec![2], vec![2.0, 3.0]),
            ("projection.weight", vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
            ("to_q.weight", vec![2, 2], vec![0.0, 1.0, 2.0, 3.0]),
        ] {
            let read = weights.read_f32(name).unwrap();
            assert_eq!(read, HostTensor::from_f32(shape.clone(), values), "{name}");
            assert_eq!(weights.read(name).unwrap().to_f32(), read, "{name}");
            assert_eq!(weights.info(name).unwrap().shape, shape, "{name}");
        }
        assert_eq!(weights.len(), 5);
        assert_eq!(weights.stored_name("k.bias"), Some("in_bias"));
        assert_eq!(weights.info("k.bias").unwrap().dtype, crate::Dtype::F16);
    }

    #[test]
    fn a_view_that_does_not_fit_the_stored_shape_is_refused() {
        let file = file_of(&TensorMap::from([
            ("a".to_owned(), counted(&[6, 2])),
            ("b".to_owned(), counted(&[2, 6, 1])),
        ]));
        for (part, expected) in [
            (wanted("x", "a", &[2, 6], View::Whole), "[2, 6]"),
            (wanted("x", "a", &[2, 2], View::Rows { first: 0, of: 9 }), "[9, 2]"),
            (wanted("x", "a", &[6, 2], View::Transposed), "[2, 6]"),
            (wanted("x", "b", &[2, 6], View::Whole), "[2, 6]"),
            (wanted("x", "a", &[6, 2, 1], View::Whole), "[6, 2, 1]"),
        ] {
            let error = Weights::of_part(&file, &[part]).unwrap_err().to_string();
            assert!(error.contains(&format!("expected {expected}")), "{error}");
        }
        let error = Weights::of_part(&file, &[wanted("x", "c", &[1], View::Whole)]).unwrap_err();
        assert!(error.to_string().contains("lacks the tensor `c`"), "{error}");
    }

    #[test]
    fn the_hash_of_a_part_is_that_of_its_own_tensors() {
        let hash = |other: f32, factor: f32| {
            let mut part = counted(&[4, 2]);
            if let Values::F32(values) = &mut part.values {
                for value in values.iter_mut() {
                    *value *= factor;
                }
            }
            let other = HostTensor::scalar(other);
            let file = file_of(&TensorMap::from([("a".to_owned(), part), ("b".to_owned(), other)]));
            let rows = wanted("x", "a", &[2, 2], View::Rows { first: 2, of: 4 });
            Weights::of_part(&file, &[rows]).unwrap().tensors_sha256()
        };
        assert_eq!(hash(1.0, 1.0), hash(2.0, 1.0));
        assert_ne!(hash(1.0, 1.0), hash(1.0, 2.0));
    }

    #[test]
    fn a_value_that_is_not_finite_is_refused_with_tensor_and_file() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let tensor = HostTensor::from_f32([3], vec![0.0, bad, 1.0]);
            for tensor in [tensor.to_f16(), tensor.to_bf16(), tensor] {
                let file = file_of(&TensorMap::from([("first.conv.bias".to_owned(), tensor)]));
                let part = wanted("conv.bias", "first.conv.bias", &[3], View::Whole);
                let weights = Weights::of_part(&file, &[part]).unwrap();
                for read in [weights.read("conv.bias"), weights.read_f32("conv.bias")] {
                    let error = read.unwrap_err().to_string();
                    assert!(error.contains("undefined value in `first.conv.bias`"), "{error}");
                    assert!(error.contains("all.safetensors"), "{error}");
                }
            }
        }
    }

    #[test]
    fn single_precision_is_read_alike_from_every_stored_type() {
        let header = r#"{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&0.1_f64.to_le_bytes());
        bytes.extend_from_slice(&(-7_i32).to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        crate::fs::atomic_write(&path, &bytes).unwrap();
        let weights = Weights::open(&path).unwrap();
        assert_eq!(weights.read_f32("a").unwrap(), HostTensor::from_f32([1], vec![0.1]));
        assert_eq!(weights.read_f32("b").unwrap(), HostTensor::from_f32([1], vec![-7.0]));
        assert_eq!(weights.read("b").unwrap().values, Values::I64(vec![-7]));
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
    fn half_a_set_of_shards_is_refused_with_the_shard_that_is_missing() {
        let map = r#"{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-3.safetensors"}"#;
        let error = sharded(map).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`m-3.safetensors`") && message.contains("1 of 3"), "{message}");
        assert!(message.contains("m.safetensors.index.json"), "{message}");
        assert!(error.hint().unwrap().contains("download"));
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
