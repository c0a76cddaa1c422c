//! The header of a safetensors file: parsing what strangers wrote, and writing ours.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::TensorInfo;
use crate::problem::WeightsProblem;
use crate::tensors::{self, Dtype, TensorMap};

const LENGTH_BYTES: usize = 8;
const ALIGNMENT: usize = 8;
const MAX_AXES: usize = 8;
const METADATA: &str = "__metadata__";

/// A header that was found sound.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, TensorInfo>,
    pub(super) metadata: BTreeMap<String, String>,
    /// First byte after the header.
    pub(super) data_start: usize,
}

impl Header {
    /// Checks everything that the header says against the bytes of the file before anything is allocated for it.
    pub(super) fn parse(file: &[u8], limit: u64) -> Result<Self, WeightsProblem> {
        let (json, data_start) = json_part(file, limit)?;
        let raw: RawHeader = serde_json::from_slice(json)
            .map_err(|error| WeightsProblem::Header { reason: error.to_string() })?;
        let mut entries = raw.entries;
        entries.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut tensors = BTreeMap::new();
        let mut position = 0_u64;
        for (name, entry) in entries {
            let info = entry.check(&name, position)?;
            position = entry.data_offsets.1;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(WeightsProblem::DuplicateName { name });
            }
        }
        let n_found = file.len() as u64;
        let n_expected = (data_start as u64).saturating_add(position);
        match n_found.cmp(&n_expected) {
            std::cmp::Ordering::Less => {
                Err(WeightsProblem::Truncated { expected: n_expected, found: n_found })
            }
            std::cmp::Ordering::Greater => {
                Err(WeightsProblem::TrailingBytes { expected: n_expected, found: n_found })
            }
            std::cmp::Ordering::Equal => Ok(Self { tensors, metadata: raw.metadata, data_start }),
        }
    }
}

/// The JSON of the header, and where the data begins.
fn json_part(file: &[u8], limit: u64) -> Result<(&[u8], usize), WeightsProblem> {
    let n_found = file.len() as u64;
    // A header of 640 bytes begins like a pickle (80 02), so the brace decides.
    if file.get(LENGTH_BYTES) != Some(&b'{') && is_pickle(file) {
        return Err(WeightsProblem::Pickle);
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(WeightsProblem::Truncated { expected: LENGTH_BYTES as u64, found: n_found });
    };
    let n_header = u64::from_le_bytes(*length);
    if n_header > limit {
        return Err(WeightsProblem::HeaderTooLong { found: n_header, limit });
    }
    let truncated =
        WeightsProblem::Truncated { expected: LENGTH_BYTES as u64 + n_header, found: n_found };
    let n_header = usize::try_from(n_header).map_err(|_| truncated.clone())?;
    let json = rest.get(..n_header).ok_or(truncated)?;
    if json.first() != Some(&b'{') {
        return Err(WeightsProblem::Header { reason: "it does not begin with `{`".to_owned() });
    }
    Ok((json, LENGTH_BYTES + n_header))
}

/// Zip archives of PyTorch, bare pickles of protocol 2 to 5.
fn is_pickle(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04") || matches!(file, [0x80, 2..=5, ..])
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl RawTensor {
    fn check(&self, name: &str, position: u64) -> Result<TensorInfo, WeightsProblem> {
        let tensor = || name.to_owned();
        let dtype = Dtype::from_name(&self.dtype).ok_or_else(|| WeightsProblem::UnknownDtype {
            tensor: tensor(),
            dtype: self.dtype.clone(),
        })?;
        let (start, end) = self.data_offsets;
        if start != position || end < start {
            return Err(WeightsProblem::Offsets {
                tensor: tensor(),
                expected: position,
                found: start,
            });
        }
        let n_values =
            self.shape.0.iter().try_fold(1_u64, |product, &length| product.checked_mul(length));
        let n_bytes = n_values.and_then(|n| n.checked_mul(dtype.n_bytes() as u64));
        let size = || WeightsProblem::Size {
            tensor: tensor(),
            expected: n_bytes.unwrap_or(u64::MAX),
            found: end - start,
        };
        if n_bytes != Some(end - start) {
            return Err(size());
        }
        let narrow = |value: u64| usize::try_from(value).map_err(|_| size());
        let shape = self.shape.0.iter().map(|&length| narrow(length)).collect::<Result<_, _>>()?;
        Ok(TensorInfo { dtype, shape, start: narrow(start)?, end: narrow(end)? })
    }
}

/// At most eight axes, so that a header cannot make a reader allocate for a million.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Axes;
        impl<'de> Visitor<'de> for Axes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_AXES} lengths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut lengths = Vec::new();
                while let Some(length) = seq.next_element()? {
                    if lengths.len() == MAX_AXES {
                        return Err(A::Error::invalid_length(MAX_AXES + 1, &self));
                    }
                    lengths.push(length);
                }
                Ok(Shape(lengths))
            }
        }
        deserializer.deserialize_seq(Axes)
    }
}

/// Entries in the order of the file, duplicates included.
struct RawHeader {
    entries: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != METADATA {
                        entries.push((name, map.next_value()?));
                    } else if metadata.replace(map.next_value::<Strings>()?.0).is_some() {
                        return Err(A::Error::custom("`__metadata__` occurs twice"));
                    }
                }
                Ok(RawHeader { entries, metadata: metadata.unwrap_or_default() })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Strings under unique keys.
struct Strings(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let mut strings = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if strings.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format_args!(
                            "metadata key `{key}` occurs twice"
                        )));
                    }
                }
                Ok(Strings(strings))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Length and JSON, padded with spaces so that the data begins at a multiple of eight.
pub(super) fn header_bytes(
    tensors: &TensorMap,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightsProblem> {
    let mut metadata = metadata.clone();
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    let mut json = format!("{{{}:{}", quoted(METADATA), serde_json::Value::from_iter(metadata));
    let mut position = 0;
    for (name, tensor) in tensors::file_order(tensors) {
        if name == METADATA {
            return Err(WeightsProblem::DuplicateName { name: name.clone() });
        }
        let dtype = tensor.values.dtype();
        let n_bytes = tensor.len() * dtype.n_bytes();
        let n_values =
            tensor.shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
        if n_values != Some(tensor.len()) {
            let expected = n_values.map_or(u64::MAX, |n| n as u64 * dtype.n_bytes() as u64);
            return Err(WeightsProblem::Size {
                tensor: name.clone(),
                expected,
                found: n_bytes as u64,
            });
        }
        let end = position + n_bytes;
        let entry = format_args!(
            ",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{position},{end}]}}",
            quoted(name),
            dtype.name(),
            Compact(&tensor.shape),
        );
        // Writing into a String cannot fail.
        let _ = json.write_fmt(entry);
        position = end;
    }
    json.push('}');
    while !json.len().is_multiple_of(ALIGNMENT) {
        json.push(' ');
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    Ok(bytes)
}

fn quoted(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}

/// A list without spaces.
struct Compact<'a>(&'a [usize]);

impl fmt::Display for Compact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (idx, length) in self.0.iter().enumerate() {
            let comma = if idx == 0 { "" } else { "," };
            write!(f, "{comma}{length}")?;
        }
        f.write_str("]")
    }
}

/// The name that shares the longest end with `wanted`, then the longest beginning; at least the last part must agree.
pub(crate) fn nearest_name<'a>(
    wanted: &str,
    names: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let shared_end = |name: &str| {
        wanted.bytes().rev().zip(name.bytes().rev()).take_while(|(a, b)| a == b).count()
    };
    let shared_start =
        |name: &str| wanted.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let n_last_part = wanted.rsplit('.').next().map_or(0, str::len);
    names
        .map(|name| (shared_end(name), shared_start(name), name))
        .filter(|&(end, start, _)| end > n_last_part || start > n_last_part + 3)
        .max_by_key(|&(end, start, _)| end + start)
        .map(|(_, _, name)| name.to_owned())
}
