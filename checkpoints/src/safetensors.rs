//! The safetensors format: a header of JSON, then the bytes of all tensors without gaps.
//!
//! Reading maps the file and trusts nothing in it. Writing sorts header and metadata, so that equal content gives equal
//! bytes; the crate of that name writes metadata in random order and without fsync (huggingface/safetensors#584).

mod header;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::error::CheckpointError;
use crate::fs::{Fs, StdFs, atomic_write_with};
use crate::mapped;
use crate::problem::WeightsProblem;
use crate::tensors::{self, Dtype, HostTensor, TensorMap, Values};
use header::Header;
pub(crate) use header::nearest_name;

/// Longest header that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderLimit {
    /// 100,000,000 bytes, the limit of the format.
    Weights,
    /// 10,000,000 bytes: an adapter names few tensors, and comes from strangers.
    Adapter,
}

impl HeaderLimit {
    const fn n_bytes(self) -> u64 {
        match self {
            Self::Weights => 100_000_000,
            Self::Adapter => 10_000_000,
        }
    }
}

/// What the header says about one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of the stored elements.
    pub dtype: Dtype,
    /// Lengths of the axes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    start: usize,
    end: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A safetensors file, mapped into memory; tensors are decoded when asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl TensorFile {
    /// Maps a file and checks its header: length, JSON, names, types, and that the tensors tile the data exactly.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], or [`CheckpointError::Weights`] with what is wrong. A pickle is refused by its first bytes.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::open_within(path, HeaderLimit::Weights)
    }

    /// [`TensorFile::open`] with a chosen limit for the header.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::open`].
    pub fn open_within(path: &Path, limit: HeaderLimit) -> Result<Self, CheckpointError> {
        let map = mapped::map(path)?;
        let header = Header::parse(&map, limit.n_bytes())
            .map_err(|problem| CheckpointError::weights(path, problem))?;
        Ok(Self { path: path.to_owned(), map, header })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.header.tensors.len()
    }

    /// Whether the file holds no tensor.
    pub fn is_empty(&self) -> bool {
        self.header.tensors.is_empty()
    }

    /// Type and shape of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.tensors.get(name)
    }

    /// The header's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Decodes one tensor. F64 is rounded to F32; integers and truth values become I64.
    ///
    /// # Errors
    ///
    /// [`WeightsProblem::Missing`] with the nearest name, or [`WeightsProblem::UnreadableDtype`].
    pub fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        let Some(info) = self.info(name) else {
            let nearest = nearest_name(name, self.names());
            return Err(CheckpointError::weights(
                &self.path,
                WeightsProblem::Missing { tensor: name.to_owned(), nearest },
            ));
        };
        let bytes = &self.data()[info.start..info.end];
        let values = decode(info.dtype, bytes).ok_or_else(|| {
            let problem = WeightsProblem::UnreadableDtype {
                tensor: name.to_owned(),
                dtype: info.dtype.name(),
            };
            CheckpointError::weights(&self.path, problem)
        })?;
        Ok(HostTensor { shape: info.shape.clone(), values })
    }

    /// Decodes all tensors.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::read`].
    pub fn read_all(&self) -> Result<TensorMap, CheckpointError> {
        self.names().map(|name| Ok((name.to_owned(), self.read(name)?))).collect()
    }

    /// sha256 of all bytes after the header, 64 hex digits.
    pub fn tensors_sha256(&self) -> String {
        hex::encode(Sha256::digest(self.data()))
    }

    /// sha256 of the whole file, 64 hex digits.
    pub fn file_sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.map))
    }

    fn data(&self) -> &[u8] {
        &self.map[self.header.data_start..]
    }
}

/// `None` for a type without meaning in host memory, or an integer beyond I64.
fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Values> {
    let values = match dtype {
        Dtype::F32 => Values::F32(elements(bytes, f32::from_le_bytes)),
        Dtype::F16 => Values::F16(elements(bytes, f16::from_le_bytes)),
        Dtype::Bf16 => Values::Bf16(elements(bytes, bf16::from_le_bytes)),
        Dtype::F64 => {
            Values::F32(elements(bytes, |element| f32_from_f64(f64::from_le_bytes(element))))
        }
        Dtype::I64 => Values::I64(elements(bytes, i64::from_le_bytes)),
        Dtype::I32 => Values::I64(elements(bytes, |element| i32::from_le_bytes(element).into())),
        Dtype::U32 => Values::I64(elements(bytes, |element| u32::from_le_bytes(element).into())),
        Dtype::I16 => Values::I64(elements(bytes, |element| i16::from_le_bytes(element).into())),
        Dtype::U16 => Values::I64(elements(bytes, |element| u16::from_le_bytes(element).into())),
        Dtype::I8 => Values::I64(elements(bytes, |element| i8::from_le_bytes(element).into())),
        Dtype::U8 | Dtype::Bool => {
            Values::I64(bytes.iter().map(|&element| element.into()).collect())
        }
        Dtype::U64 => {
            let wide = elements(bytes, u64::from_le_bytes);
            Values::I64(
                wide.into_iter()
                    .map(|element| i64::try_from(element).ok())
                    .collect::<Option<_>>()?,
            )
        }
        Dtype::F8E4M3 | Dtype::F8E5M2 => return None,
    };
    Some(values)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the documented meaning: round to the nearest f32"
)]
fn f32_from_f64(value: f64) -> f32 {
    value as f32
}

fn elements<const N: usize, T>(bytes: &[u8], from_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|&element| from_bytes(element)).collect()
}

/// Identity of a file of tensors, each 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileHashes {
    /// sha256 of the whole file.
    pub file_sha256: String,
    /// sha256 of the bytes after the header: the same for equal tensors, whatever the metadata.
    pub tensors_sha256: String,
}

/// Writes tensors and metadata atomically and durably. `format: pt` is added to the metadata, as every reader expects.
///
/// Equal arguments give equal bytes: metadata is sorted; tensors stand in descending alignment, then by name.
///
/// # Errors
///
/// [`CheckpointError::Io`]; [`WeightsProblem::Size`] for a tensor whose shape does not fit its values.
pub fn write_tensors(
    path: &Path,
    tensors: &TensorMap,
    metadata: &BTreeMap<String, String>,
) -> Result<FileHashes, CheckpointError> {
    let header = header::header_bytes(tensors, metadata)
        .map_err(|problem| CheckpointError::weights(path, problem))?;
    let mut hashes = None;
    atomic_write_with(&StdFs, path, &mut |file| {
        hashes = Some(write_parts(file, &header, tensors)?);
        Ok(())
    })?;
    Ok(hashes.unwrap_or_else(|| unreachable!("the file was filled")))
}

/// [`write_tensors`] into a folder that is not yet visible: durable, not renamed. Gives the hash of the file and its size.
pub(crate) fn write_tensors_into(
    fs: &dyn Fs,
    path: &Path,
    tensors: &TensorMap,
    metadata: &BTreeMap<String, String>,
) -> Result<(String, u64), CheckpointError> {
    let header = header::header_bytes(tensors, metadata)
        .map_err(|problem| CheckpointError::weights(path, problem))?;
    let n_data: usize =
        tensors.values().map(|tensor| tensor.len() * tensor.values.dtype().n_bytes()).sum();
    let mut file_sha256 = String::new();
    crate::fs::durable_write(fs, path, &mut |file| {
        file_sha256 = write_parts(file, &header, tensors)?.file_sha256;
        Ok(())
    })?;
    Ok((file_sha256, (header.len() + n_data) as u64))
}

fn write_parts(
    file: &mut dyn Write,
    header: &[u8],
    tensors: &TensorMap,
) -> Result<FileHashes, CheckpointError> {
    let mut file_hasher = Sha256::new();
    let mut tensors_hasher = Sha256::new();
    file.write_all(header)?;
    file_hasher.update(header);
    for (_, tensor) in tensors::file_order(tensors) {
        tensor.each_bytes(&mut |bytes| {
            file_hasher.update(bytes);
            tensors_hasher.update(bytes);
            file.write_all(bytes)
        })?;
    }
    Ok(FileHashes {
        file_sha256: hex::encode(file_hasher.finalize()),
        tensors_sha256: hex::encode(tensors_hasher.finalize()),
    })
}

#[cfg(test)]
mod tests;
