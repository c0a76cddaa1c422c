//! Keeps what was seen in drawn pictures, one file per shard, so that no picture is drawn twice.
//!
//! What is kept knows no concept and no thesaurus: labels and detector scores are made of the
//! embeddings anew. Pictures of the base alone can therefore serve every later adapter; they are found
//! by the hash of all that determines them.

use crate::error::EvalError;
use checkpoints::{HostTensor, TensorFile, TensorMap};
use serde_json::Value;
use statistics::number::real;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known of the pictures of one shard, in the order of their seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Looked {
    /// Unit embedding of each picture.
    pub(crate) embeddings: Vec<Vec<f32>>,
    /// Scaled latents of each picture; empty where they are not kept.
    pub(crate) latents: Vec<Vec<f32>>,
    /// Bytes of the deflated picture over its raw bytes.
    pub(crate) compression: Vec<f32>,
    /// First 16 hex digits of the SHA-256 of the 8-bit pixels.
    pub(crate) pixels: Vec<String>,
}

/// Where the shards of one model and prompt lie.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    /// A shelf within a run directory: `dir` belongs to one drawing.
    pub(crate) fn within(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The shelf of pictures that `identity` determines wholly, in a folder that many runs share.
    pub(crate) fn shared(cache: &Path, identity: &Value) -> Self {
        let hash = checkpoints::hash::bytes_sha256(identity.to_string().as_bytes());
        let digits: String = hash.chars().take(24).collect();
        Self { dir: cache.join(digits) }
    }

    fn file(&self, first: u32) -> PathBuf {
        self.dir.join(format!("{first:06}.safetensors"))
    }

    /// Where a kept picture lies.
    pub(crate) fn picture_file(&self, seed_idx: u32) -> PathBuf {
        self.dir.join(format!("{seed_idx:06}.png"))
    }

    /// The shard that begins with seed `first` and has `n` pictures, if it is there and whole.
    ///
    /// A file that cannot be read, or holds another number of pictures, counts as absent: it is made
    /// anew.
    pub(crate) fn read(&self, first: u32, n: usize) -> Option<Looked> {
        let path = self.file(first);
        if !path.is_file() {
            return None;
        }
        let file = TensorFile::open(&path).ok()?;
        let pixels: Vec<String> =
            file.metadata().get("pixels")?.split(',').map(str::to_owned).collect();
        let rows = |name: &str| -> Option<Vec<Vec<f32>>> {
            let tensor = file.read(name).ok()?;
            let width = tensor.len() / tensor.shape.first().copied()?.max(1);
            Some(tensor.f32().chunks(width.max(1)).map(<[f32]>::to_vec).collect())
        };
        let looked = Looked {
            embeddings: rows("embeddings")?,
            latents: file.info("latents").and_then(|_| rows("latents")).unwrap_or_default(),
            compression: file.read("compression").ok()?.f32().into_owned(),
            pixels,
        };
        let whole = [looked.embeddings.len(), looked.compression.len(), looked.pixels.len()];
        let latents = looked.latents.len();
        (whole == [n; 3] && (latents == 0 || latents == n)).then_some(looked)
    }

    /// Keeps a shard, and the pictures given as PNG by their seed. The shard itself is written last: if
    /// it is there, so are its pictures.
    pub(crate) fn write(
        &self,
        first: u32,
        looked: &Looked,
        pictures: &[(u32, Vec<u8>)],
    ) -> Result<(), EvalError> {
        for (seed_idx, png) in pictures {
            checkpoints::fs::atomic_write(&self.picture_file(*seed_idx), png)?;
        }
        let matrix = |rows: &[Vec<f32>]| {
            let width = rows.first().map_or(0, Vec::len);
            HostTensor::from_f32([rows.len(), width], rows.concat())
        };
        let n = looked.compression.len();
        let mut tensors = TensorMap::from([
            ("embeddings".to_owned(), matrix(&looked.embeddings)),
            ("compression".to_owned(), HostTensor::from_f32([n], looked.compression.clone())),
        ]);
        if !looked.latents.is_empty() {
            tensors.insert("latents".to_owned(), matrix(&looked.latents));
        }
        let metadata = BTreeMap::from([("pixels".to_owned(), looked.pixels.join(","))]);
        checkpoints::write_tensors(&self.file(first), &tensors, &metadata)?;
        Ok(())
    }

    /// A kept picture as PNG; `None` if it was not kept.
    pub(crate) fn picture(&self, seed_idx: u32) -> Option<Vec<u8>> {
        checkpoints::fs::read(&self.picture_file(seed_idx)).ok()
    }
}

/// Bytes of a deflated picture over its raw bytes.
pub(crate) fn compression_ratio(png: &[u8], raw: &[u8]) -> f32 {
    statistics::number::single(real(png.len()) / real(raw.len().max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked() -> Looked {
        Looked {
            embeddings: vec![vec![0.6, 0.8], vec![1.0, 0.0], vec![0.1, -0.2]],
            latents: vec![vec![1.0; 5], vec![-2.0; 5], vec![0.25; 5]],
            compression: vec![0.5, 0.25, 1.0 / 3.0],
            pixels: vec!["aa".into(), "bb".into(), "cc".into()],
        }
    }

    #[test]
    fn a_shard_reads_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::within(dir.path().join("a"));
        assert_eq!(shelf.read(64, 3), None);
        shelf.write(64, &looked(), &[(65, vec![1, 2, 3])]).unwrap();
        assert_eq!(shelf.read(64, 3), Some(looked()));
        assert_eq!(shelf.picture(65), Some(vec![1, 2, 3]));
        assert_eq!(shelf.picture(64), None);
        let without = Looked { latents: Vec::new(), ..looked() };
        shelf.write(0, &without, &[]).unwrap();
        assert_eq!(shelf.read(0, 3), Some(without));
    }

    #[test]
    fn a_shard_of_another_size_or_a_damaged_one_counts_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::within(dir.path().to_owned());
        shelf.write(0, &looked(), &[]).unwrap();
        assert_eq!(shelf.read(0, 2), None);
        checkpoints::fs::atomic_write(&shelf.file(0), b"not tensors").unwrap();
        assert_eq!(shelf.read(0, 3), None);
    }

    #[test]
    fn another_identity_is_another_shelf() {
        let shelf = |seed: u64| Shelf::shared(Path::new("c"), &serde_json::json!({ "seed": seed }));
        assert_eq!(shelf(1).dir, shelf(1).dir);
        assert_ne!(shelf(1).dir, shelf(2).dir);
    }
}
