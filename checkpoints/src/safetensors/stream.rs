//! Writing a file of tensors that are made one after the other: what is in memory is one tensor, not the file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::FileHashes;
use crate::error::CheckpointError;
use crate::fs::{StdFs, atomic_write_with};
use crate::problem::WeightsProblem;
use crate::tensors::{Dtype, HostTensor};

const METADATA: &str = "__metadata__";
/// The data begins at a multiple of so many bytes.
const ALIGNMENT: usize = 8;

/// A tensor to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Name in the file.
    pub name: String,
    /// Type of its elements: one that [`crate::Values`] can hold.
    pub dtype: Dtype,
    /// Lengths of its axes.
    pub shape: Vec<usize>,
}

impl Planned {
    fn n_bytes(&self) -> Option<usize> {
        let n_values =
            self.shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length))?;
        n_values.checked_mul(self.dtype.n_bytes())
    }
}

/// Writes the header, then asks `read` for each tensor in the order of the file and writes it. The file appears under its
/// name only when it is complete, and equals what [`crate::write_tensors`] writes of the same tensors.
///
/// # Errors
///
/// [`CheckpointError::Io`]; whatever `read` returns; [`CheckpointError::Weights`] for two tensors of one name, for a type
/// that cannot be written, or for a tensor that is not as planned. Nothing is left under the name then.
pub fn write_stream(
    path: &Path,
    planned: &[Planned],
    metadata: &BTreeMap<String, String>,
    read: &mut dyn FnMut(&str) -> Result<HostTensor, CheckpointError>,
) -> Result<FileHashes, CheckpointError> {
    let wrong = |problem| CheckpointError::weights(path, problem);
    let order = file_order(planned).map_err(wrong)?;
    let header = header(&order, metadata).map_err(wrong)?;
    let mut hashes = None;
    atomic_write_with(&StdFs, path, &mut |file| {
        let mut file_hasher = Sha256::new();
        let mut tensors_hasher = Sha256::new();
        file.write_all(&header)?;
        file_hasher.update(&header);
        for plan in &order {
            let tensor = read(&plan.name)?;
            check(plan, &tensor).map_err(|problem| CheckpointError::weights(path, problem))?;
            tensor.each_bytes(&mut |bytes| {
                file_hasher.update(bytes);
                tensors_hasher.update(bytes);
                file.write_all(bytes)
            })?;
        }
        hashes = Some(FileHashes {
            file_sha256: hex::encode(file_hasher.finalize()),
            tensors_sha256: hex::encode(tensors_hasher.finalize()),
        });
        Ok(())
    })?;
    Ok(hashes.unwrap_or_else(|| unreachable!("the file was filled")))
}

/// The rank of a type in the order of a file; `None` for one that is never written.
const fn rank(dtype: Dtype) -> Option<u8> {
    match dtype {
        Dtype::I64 => Some(0),
        Dtype::F32 => Some(1),
        Dtype::Bf16 => Some(2),
        Dtype::F16 => Some(3),
        Dtype::Bool
        | Dtype::U8
        | Dtype::I8
        | Dtype::U16
        | Dtype::I16
        | Dtype::U32
        | Dtype::I32
        | Dtype::U64
        | Dtype::F8E4M3
        | Dtype::F8E5M2
        | Dtype::F64 => None,
    }
}

/// The tensors in the order of the file: by type, then by name.
fn file_order(planned: &[Planned]) -> Result<Vec<&Planned>, WeightsProblem> {
    let mut order = Vec::with_capacity(planned.len());
    for plan in planned {
        let Some(rank) = rank(plan.dtype) else {
            let (tensor, dtype) = (plan.name.clone(), plan.dtype.name());
            return Err(WeightsProblem::UnreadableDtype { tensor, dtype });
        };
        order.push((rank, plan));
    }
    order.sort_by(|(rank, plan), (other_rank, other)| {
        rank.cmp(other_rank).then(plan.name.cmp(&other.name))
    });
    let mut names: Vec<&str> = planned.iter().map(|plan| plan.name.as_str()).collect();
    names.push(METADATA);
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(WeightsProblem::DuplicateName { name: pair[0].to_owned() });
    }
    Ok(order.into_iter().map(|(_, plan)| plan).collect())
}

/// Length and JSON, padded with spaces; the same bytes as for tensors that are there.
fn header(
    order: &[&Planned],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightsProblem> {
    let mut metadata = metadata.clone();
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    let mut json = format!("{{\"{METADATA}\":{}", Value::from_iter(metadata));
    let mut position = 0_usize;
    for plan in order {
        let end = plan.n_bytes().and_then(|n_bytes| position.checked_add(n_bytes));
        let end = end.ok_or_else(|| WeightsProblem::Size {
            tensor: plan.name.clone(),
            expected: u64::MAX,
            found: 0,
        })?;
        let (name, shape) = (Value::from(plan.name.as_str()), Value::from(plan.shape.clone()));
        let dtype = plan.dtype.name();
        json.push_str(&format_entry(&name, dtype, &shape, [position, end]));
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

fn format_entry(name: &Value, dtype: &str, shape: &Value, [start, end]: [usize; 2]) -> String {
    format!(",{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}")
}

fn check(plan: &Planned, tensor: &HostTensor) -> Result<(), WeightsProblem> {
    let found = tensor.len() * tensor.values.dtype().n_bytes();
    let expected = plan.n_bytes().unwrap_or(usize::MAX);
    if tensor.values.dtype() == plan.dtype && tensor.shape == plan.shape && found == expected {
        return Ok(());
    }
    Err(WeightsProblem::Size {
        tensor: plan.name.clone(),
        expected: expected as u64,
        found: found as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safetensors::write_tensors;
    use crate::tensors::{TensorMap, Values};

    fn sample() -> TensorMap {
        TensorMap::from([
            ("z.weight".to_owned(), HostTensor::from_f32([2, 2], vec![1.0, 2.0, 3.0, 4.0])),
            ("a.half".to_owned(), HostTensor::from_f32([3], vec![0.5, -0.25, 8.0]).to_f16()),
            ("b \"quoted\"".to_owned(), HostTensor::from_f32([1], vec![1.5]).to_bf16()),
            ("alpha".to_owned(), HostTensor::scalar(8.0)),
            ("ids".to_owned(), HostTensor { shape: vec![1, 2], values: Values::I64(vec![-1, 7]) }),
            ("empty".to_owned(), HostTensor::from_f32([0, 4], Vec::new())),
        ])
    }

    fn plan(tensors: &TensorMap) -> Vec<Planned> {
        let plan = |(name, tensor): (&String, &HostTensor)| Planned {
            name: name.clone(),
            dtype: tensor.values.dtype(),
            shape: tensor.shape.clone(),
        };
        tensors.iter().map(plan).collect()
    }

    #[test]
    fn a_stream_writes_the_bytes_that_the_whole_would_be_written_as() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, stream) = (folder.path().join("whole"), folder.path().join("stream"));
        let metadata = BTreeMap::from([("title".to_owned(), "é\n".to_owned())]);
        let tensors = sample();
        let expected = write_tensors(&whole, &tensors, &metadata).unwrap();
        let mut asked = Vec::new();
        let mut read = |name: &str| {
            asked.push(name.to_owned());
            Ok(tensors[name].clone())
        };
        let found = write_stream(&stream, &plan(&tensors), &metadata, &mut read).unwrap();
        assert_eq!(found, expected);
        assert_eq!(crate::fs::read(&stream).unwrap(), crate::fs::read(&whole).unwrap());
        assert_eq!(asked, ["ids", "alpha", "empty", "z.weight", "b \"quoted\"", "a.half"]);
    }

    #[test]
    fn what_goes_wrong_on_the_way_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let tensors = sample();
        let write = |planned: &[Planned], read: &dyn Fn(&str) -> HostTensor| {
            let written =
                write_stream(&path, planned, &BTreeMap::new(), &mut |name| Ok(read(name)));
            assert!(crate::fs::list(folder.path()).unwrap().is_empty());
            written.unwrap_err().to_string()
        };
        // Another type, another shape.
        let message = write(&plan(&tensors), &|name| tensors[name].to_f32());
        assert!(message.contains("`ids`"), "{message}");
        let message = write(&plan(&tensors), &|name| match name {
            "alpha" => HostTensor::from_f32([1], vec![8.0]),
            other => tensors[other].clone(),
        });
        assert!(message.contains("`alpha`"), "{message}");
        let twice = [plan(&tensors), plan(&tensors)].concat();
        assert!(write(&twice, &|name| tensors[name].clone()).contains("twice"));
        let bytes = Planned { name: "u".to_owned(), dtype: Dtype::U8, shape: vec![1] };
        assert!(write(&[bytes], &|_| HostTensor::scalar(0.0)).contains("as U8"));
        let failed = write_stream(&path, &plan(&tensors), &BTreeMap::new(), &mut |name| {
            let problem = WeightsProblem::NotFinite { tensor: name.to_owned() };
            Err(CheckpointError::weights(&path, problem))
        });
        assert!(failed.unwrap_err().to_string().contains("`ids`"));
        assert!(crate::fs::list(folder.path()).unwrap().is_empty());
    }
}
