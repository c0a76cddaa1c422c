//! The ways in which a file of tensors can be wrong.

/// What is wrong with a file of tensors. The text completes "`FILE` …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsProblem {
    /// The file is a pickle (`.bin`, `.ckpt`, `.pt`), which may run code when opened.
    #[error("is a pickle, expected safetensors")]
    Pickle,
    /// The file ends too early.
    #[error("is truncated: expected {expected} bytes, found {found}")]
    Truncated {
        /// Bytes that the header promises, or that a header needs.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// Bytes follow the last tensor.
    #[error("has bytes after the last tensor: expected {expected} bytes, found {found}")]
    TrailingBytes {
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The header is longer than such a file needs.
    #[error("is no such file: expected a header of at most {limit} bytes, found {found}")]
    HeaderTooLong {
        /// Length that the file states.
        found: u64,
        /// Longest accepted header.
        limit: u64,
    },
    /// The header is not the JSON that the format asks for.
    #[error("has a header that is not valid: {reason}")]
    Header {
        /// The parser's words.
        reason: String,
    },
    /// Two entries have one name.
    #[error("names `{name}` twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// An element type that the format does not know.
    #[error("gives `{tensor}` the unknown type `{dtype}`")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The spelling in the header.
        dtype: String,
    },
    /// A type that cannot be read into host memory.
    #[error("holds `{tensor}` as {dtype}, expected a float of 16, 32 or 64 bits or an integer")]
    UnreadableDtype {
        /// The tensor.
        tensor: String,
        /// The spelling in the header.
        dtype: &'static str,
    },
    /// A tensor does not begin where the one before it ends.
    #[error(
        "has overlapping or gapped tensors: expected `{tensor}` at byte {expected}, found it at {found}"
    )]
    Offsets {
        /// The tensor.
        tensor: String,
        /// Where it must begin.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// The bytes of a tensor do not fit its shape and type.
    #[error("stores `{tensor}` in {found} bytes, expected {expected} for its shape and type")]
    Size {
        /// The tensor.
        tensor: String,
        /// Bytes of its shape and type; `u64::MAX` if they cannot be counted.
        expected: u64,
        /// Bytes between its offsets.
        found: u64,
    },
    /// A tensor that was asked for is not there.
    #[error("lacks the tensor `{tensor}`")]
    Missing {
        /// The tensor.
        tensor: String,
        /// The stored name that looks most like it.
        nearest: Option<String>,
    },
    /// A shard of an index lies outside the folder.
    #[error("names the shard `{shard}`, expected a file name beside the index")]
    ShardEscapes {
        /// The path in the index.
        shard: String,
    },
    /// A shard of an index is not there.
    #[error(
        "names the shard `{shard}`, which is not beside it ({n_missing} of {n_shards} are missing)"
    )]
    ShardMissing {
        /// The first that is missing.
        shard: String,
        /// Shards that are missing.
        n_missing: usize,
        /// Shards that the index names.
        n_shards: usize,
    },
    /// The index and its shards disagree about a tensor.
    #[error("and its shard `{shard}` disagree about `{tensor}`")]
    Shard {
        /// The tensor.
        tensor: String,
        /// The shard in which the index looks for it, or where it was found without an entry.
        shard: String,
    },
    /// A tensor has another shape than its place in the model asks for.
    #[error("stores `{tensor}` with shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape of its place.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A component is not whole.
    #[error("lacks {} of its {component}: {}", tensors(names.len()), listed(names))]
    Incomplete {
        /// The component, such as `unet`.
        component: String,
        /// The tensors that are missing, as the file would name them.
        names: Vec<String>,
    },
    /// Tensors belong to no part of the model.
    #[error("holds {} that no part of {model} has: {}", tensors(names.len()), listed(names))]
    Unknown {
        /// What the file was taken for.
        model: &'static str,
        /// The tensors.
        names: Vec<String>,
    },
    /// A weight is not finite.
    #[error("holds an infinite or undefined value in `{tensor}`")]
    HoldsNotFinite {
        /// The tensor.
        tensor: String,
    },
    /// A value is not finite where it must be.
    #[error("would hold an infinite or undefined value in `{tensor}`")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
}

/// `1 tensor` or `n tensors`.
fn tensors(n: usize) -> String {
    if n == 1 { "1 tensor".to_owned() } else { format!("{n} tensors") }
}

/// The first names of a list, and how many follow.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(", "),
        Some(n_more) => format!("{} and {n_more} more", shown.join(", ")),
    }
}

impl WeightsProblem {
    pub(crate) fn hint(&self) -> Option<String> {
        if let Self::Missing { nearest: Some(nearest), .. } = self {
            return Some(format!("the file holds `{nearest}`"));
        }
        let advice = if matches!(self, Self::Pickle) {
            "a pickle can run code when opened; convert it where you trust it: \
             `safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"FILE.safetensors\")` \
             (the tensors of a whole checkpoint lie one level deeper, under `[\"state_dict\"]`)"
        } else if matches!(self, Self::Truncated { .. }) {
            "was the download interrupted? fetch the file again"
        } else if matches!(self, Self::ShardMissing { .. }) {
            "was the download interrupted? fetch the missing files, or the whole folder again"
        } else if matches!(self, Self::HoldsNotFinite { .. }) {
            "such weights draw nothing: they were damaged, or went beyond half precision when saved"
        } else {
            return None;
        };
        Some(advice.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_says_how_many_there_are_and_shows_the_first() {
        let names = |n: usize| (0..n).map(|n| format!("t{n}")).collect::<Vec<_>>();
        let unknown = |n| WeightsProblem::Unknown { model: "X", names: names(n) }.to_string();
        assert_eq!(unknown(1), "holds 1 tensor that no part of X has: `t0`");
        assert!(unknown(12).ends_with("`t10`, `t11`"), "{}", unknown(12));
        let many = unknown(14);
        assert!(
            many.starts_with("holds 14 tensors") && many.ends_with("`t11` and 2 more"),
            "{many}"
        );
    }
}
