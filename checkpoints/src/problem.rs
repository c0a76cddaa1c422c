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
    /// The index and its shards disagree about a tensor.
    #[error("and its shard `{shard}` disagree about `{tensor}`")]
    Shard {
        /// The tensor.
        tensor: String,
        /// The shard in which the index looks for it, or where it was found without an entry.
        shard: String,
    },
    /// A value is not finite where it must be.
    #[error("would hold an infinite or undefined value in `{tensor}`")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
}

impl WeightsProblem {
    pub(crate) fn hint(&self) -> Option<String> {
        if let Self::Missing { nearest: Some(nearest), .. } = self {
            return Some(format!("the file holds `{nearest}`"));
        }
        let advice = if matches!(self, Self::Pickle) {
            "a pickle can run code when opened; convert it where you trust it: \
             `safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"FILE.safetensors\")`"
        } else if matches!(self, Self::Truncated { .. }) {
            "was the download interrupted? fetch the file again"
        } else {
            return None;
        };
        Some(advice.to_owned())
    }
}
