//! sha256 of bytes and files, as 64 lower-case hex digits.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::CheckpointError;

/// sha256 of bytes.
pub fn bytes_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// sha256 and size of a file, read in pieces.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn file_sha256(path: &Path) -> Result<(String, u64), CheckpointError> {
    let mut file = fs_err::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut n_bytes = 0;
    loop {
        let n_read = file.read(&mut buffer)?;
        if n_read == 0 {
            return Ok((hex::encode(hasher.finalize()), n_bytes));
        }
        hasher.update(&buffer[..n_read]);
        n_bytes += n_read as u64;
    }
}

/// sha256 over named hashes: the lines `<hash>  <name>\n` in the order of the names.
///
/// One number for a folder of files; it does not change with the machine or the order of listing.
pub fn combined_sha256<'a>(hashes: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut sorted: Vec<(&str, &str)> = hashes.into_iter().collect();
    sorted.sort_unstable();
    let mut hasher = Sha256::new();
    for (name, hash) in sorted {
        hasher.update(format!("{hash}  {name}\n"));
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_abc_is_the_published_one() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(bytes_sha256(b"abc"), expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        crate::fs::atomic_write(&path, b"abc").unwrap();
        assert_eq!(file_sha256(&path).unwrap(), (expected.to_owned(), 3));
    }

    #[test]
    fn the_combined_hash_does_not_depend_on_the_order() {
        let (a, b) = ("0".repeat(64), "1".repeat(64));
        let forward = combined_sha256([("x", a.as_str()), ("y", b.as_str())]);
        assert_eq!(forward, combined_sha256([("y", b.as_str()), ("x", a.as_str())]));
        assert_ne!(forward, combined_sha256([("x", b.as_str()), ("y", a.as_str())]));
    }
}
