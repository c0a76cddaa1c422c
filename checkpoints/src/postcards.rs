//! The base that the binary carries, unpacked into the user's cache when it is first asked for.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::CheckpointError;
use crate::folder::ModelFolder;
use crate::fs::{Fs, StdFs, durable_write, folder_of};
use crate::hash::{bytes_sha256, combined_sha256, file_sha256};

/// One file of the base, as it was when this program was built.
#[derive(Debug, Clone, Copy)]
struct EmbeddedFile {
    /// From the folder of the base, with `/`.
    path: &'static str,
    bytes: &'static [u8],
    /// 64 hex digits.
    sha256: &'static str,
}

const FILES: &[EmbeddedFile] = &include!(concat!(env!("OUT_DIR"), "/postcards.rs"));

/// Whether this build carries a base.
pub const fn embedded() -> bool {
    !FILES.is_empty()
}

/// sha256 over all embedded files, 64 hex digits: the identity of the embedded base and its evaluator.
pub fn sha256() -> String {
    identity(FILES)
}

/// One JSON file of the embedded base, such as `unet/config.json`; `None` if none is embedded.
pub(crate) fn json(path: &str) -> Option<Value> {
    let file = FILES.iter().find(|file| file.path == path)?;
    serde_json::from_slice(file.bytes).ok()
}

/// The embedded base as a folder: `cache_dir/postcards-<first 8 digits of its hash>/`, unpacked atomically if it is not
/// there, and in every case compared with the embedded hashes.
///
/// # Errors
///
/// [`CheckpointError::NoEmbeddedBase`]; [`CheckpointError::Io`] if the cache cannot be written.
pub fn folder(cache_dir: &Path) -> Result<ModelFolder, CheckpointError> {
    if FILES.is_empty() {
        return Err(CheckpointError::NoEmbeddedBase);
    }
    ModelFolder::open(&unpacked(cache_dir, FILES)?)
}

fn identity(files: &[EmbeddedFile]) -> String {
    combined_sha256(files.iter().map(|file| (file.path, file.sha256)))
}

fn unpacked(cache_dir: &Path, files: &[EmbeddedFile]) -> Result<PathBuf, CheckpointError> {
    let id = identity(files);
    let dir = cache_dir.join(format!("postcards-{}", &id[..8]));
    if verify(&dir, files).is_ok() {
        return Ok(dir);
    }
    let fs = StdFs;
    let temporary = cache_dir.join(format!(".tmp-postcards-{}-{}", &id[..8], std::process::id()));
    remove_dir(&temporary)?;
    for file in files {
        let path = temporary.join(file.path);
        fs.create_dir_all(folder_of(&path))?;
        durable_write(&fs, &path, &mut |out: &mut dyn Write| Ok(out.write_all(file.bytes)?))?;
        fs.fsync_dir(folder_of(&path))?;
    }
    // What lies there is damaged, or another process has just put the same files there; both may be replaced.
    if dir.is_dir() && verify(&dir, files).is_err() {
        remove_dir(&dir)?;
    }
    let renamed = fs.rename(&temporary, &dir);
    let verified = verify(&dir, files);
    if verified.is_err() || renamed.is_err() {
        remove_dir(&temporary)?;
    }
    // Losing the race against another process that unpacks the same base is no error.
    if verified.is_err() {
        renamed?;
    }
    verified?;
    fs.fsync_dir(cache_dir)?;
    Ok(dir)
}

fn remove_dir(dir: &Path) -> Result<(), CheckpointError> {
    if dir.exists() { Ok(StdFs.remove_dir_all(dir)?) } else { Ok(()) }
}

fn verify(dir: &Path, files: &[EmbeddedFile]) -> Result<(), CheckpointError> {
    for file in files {
        let path = dir.join(file.path);
        let (found, _) = file_sha256(&path)?;
        if found != file.sha256 {
            return Err(CheckpointError::Hash { path, expected: file.sha256.to_owned(), found });
        }
    }
    Ok(())
}

/// Whether the embedded bytes are what their hashes say; for `populate doctor`.
pub fn intact() -> bool {
    FILES.iter().all(|file| bytes_sha256(file.bytes) == file.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &[EmbeddedFile] = &[
        EmbeddedFile {
            path: "model_index.json",
            bytes: b"{}",
            sha256: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
        EmbeddedFile {
            path: "unet/abc",
            bytes: b"abc",
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        },
    ];

    #[test]
    fn a_base_is_unpacked_once_and_repaired_when_damaged() {
        let cache = tempfile::tempdir().unwrap();
        let dir = unpacked(cache.path(), WORLD).unwrap();
        assert!(dir.file_name().unwrap().to_string_lossy().starts_with("postcards-"));
        assert_eq!(crate::fs::read(&dir.join("unet/abc")).unwrap(), b"abc");
        let inode = |path: &Path| fs_err::metadata(path).unwrap().modified().unwrap();
        let before = inode(&dir.join("unet/abc"));
        assert_eq!(unpacked(cache.path(), WORLD).unwrap(), dir);
        assert_eq!(inode(&dir.join("unet/abc")), before);
        crate::fs::atomic_write(&dir.join("unet/abc"), b"abd").unwrap();
        assert_eq!(unpacked(cache.path(), WORLD).unwrap(), dir);
        assert_eq!(crate::fs::read(&dir.join("unet/abc")).unwrap(), b"abc");
        assert_eq!(crate::fs::list(cache.path()).unwrap(), [dir]);
    }

    #[test]
    fn the_folder_is_named_after_its_content() {
        let other = [WORLD[1], EmbeddedFile { path: "vae/abc", ..WORLD[1] }];
        assert_ne!(identity(WORLD), identity(&other));
    }

    #[test]
    fn the_embedded_base_is_intact_or_absent() {
        assert!(intact());
        let cache = tempfile::tempdir().unwrap();
        match folder(cache.path()) {
            Ok(folder) => assert!(folder.path().starts_with(cache.path())),
            Err(CheckpointError::NoEmbeddedBase) => assert!(!embedded()),
            Err(error) => panic!("{error}"),
        }
    }
}
