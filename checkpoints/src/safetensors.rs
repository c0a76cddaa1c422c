//! The safetensors format: a header of JSON, then the bytes of all tensors without gaps.
//!
//! Reading maps the file and trusts nothing in it. Writing sorts header and metadata, so that equal content gives equal
//! bytes; the crate of that name writes metadata in random order and without fsync (huggingface/safetensors#584).

mod header;
mod stream;

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
pub use stream::{Planned, write_stream};

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

    /// The same elements in another shape; `None` if their number differs.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        let n_values = shape.iter().product::<usize>();
        (n_values == self.len()).then(|| Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// `n` rows from row `first` on, along the outermost axis; `None` if there are not so many.
    pub(crate) fn rows(&self, first: usize, n: usize) -> Option<Self> {
        let (&n_rows, rest) = self.shape.split_first()?;
        let end = first.checked_add(n).filter(|&end| end <= n_rows)?;
        let row_bytes = rest.iter().product::<usize>() * self.dtype.n_bytes();
        let shape = std::iter::once(n).chain(rest.iter().copied()).collect();
        Some(Self {
            dtype: self.dtype,
            shape,
            start: self.start + first * row_bytes,
            end: self.start + end * row_bytes,
        })
    }
}

/// A safetensors file, mapped into memory; tensors are decoded when asked for, and the pages that were read for one are
/// given back, so that a file can be larger than memory.
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
        self.read_part(name, info)
    }

    /// Decodes the part of the tensor `name` that `part` tells, which was made from the file's own [`TensorInfo`].
    pub(crate) fn read_part(
        &self,
        name: &str,
        part: &TensorInfo,
    ) -> Result<HostTensor, CheckpointError> {
        self.decode_part(name, part, decode)
    }

    /// As [`TensorFile::read_part`], in single precision without a copy in the stored type.
    pub(crate) fn read_part_f32(
        &self,
        name: &str,
        part: &TensorInfo,
    ) -> Result<HostTensor, CheckpointError> {
        self.decode_part(name, part, |dtype, bytes| decode_f32(dtype, bytes).map(Values::F32))
    }

    fn decode_part(
        &self,
        name: &str,
        part: &TensorInfo,
        decode: impl Fn(Dtype, &[u8]) -> Option<Values>,
    ) -> Result<HostTensor, CheckpointError> {
        let values = decode(part.dtype, &self.data()[part.start..part.end]);
        mapped::release(&self.map, self.header.data_start + part.start, part.end - part.start);
        let values = values.ok_or_else(|| {
            let problem = WeightsProblem::UnreadableDtype {
                tensor: name.to_owned(),
                dtype: part.dtype.name(),
            };
            CheckpointError::weights(&self.path, problem)
        })?;
        Ok(HostTensor { shape: part.shape.clone(), values })
    }

    /// Adds the stored bytes of `part` to a hash.
    pub(crate) fn hash_part(&self, part: &TensorInfo, hasher: &mut Sha256) {
        let start = self.header.data_start + part.start;
        self.hash_range(start, start + part.end - part.start, hasher);
    }

    /// Adds bytes of the file to a hash, in pieces of bounded memory.
    fn hash_range(&self, start: usize, end: usize, hasher: &mut Sha256) {
        const PIECE: usize = 1 << 24;
        let mut position = start;
        for piece in self.map[start..end].chunks(PIECE) {
            hasher.update(piece);
            mapped::release(&self.map, position, piece.len());
            position += piece.len();
        }
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
        let mut hasher = Sha256::new();
        self.hash_range(self.header.data_start, self.map.len(), &mut hasher);
        hex::encode(hasher.finalize())
    }

    /// sha256 of the whole file, 64 hex digits.
    pub fn file_sha256(&self) -> String {
        let mut hasher = Sha256::new();
        self.hash_range(0, self.map.len(), &mut hasher);
        hex::encode(hasher.finalize())
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

/// [`decode`] in single precision, in one pass over the bytes.
fn decode_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F16 => Some(elements(bytes, |element| f16::from_le_bytes(element).to_f32())),
        Dtype::Bf16 => Some(elements(bytes, |element| bf16::from_le_bytes(element).to_f32())),
        Dtype::F32
        | Dtype::F64
        | Dtype::I64
        | Dtype::I32
        | Dtype::U32
        | Dtype::I16
        | Dtype::U16
        | Dtype::I8
        | Dtype::U8
        | Dtype::Bool
        | Dtype::U64
        | Dtype::F8E4M3
        | Dtype::F8E5M2 => match decode(dtype, bytes)? {
            Values::F32(values) => Some(values),
            other @ (Values::F16(_) | Values::Bf16(_) | Values::I64(_)) => {
                Some(HostTensor { shape: vec![other.len()], values: other }.f32().into_owned())
            }
        },
    }
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
