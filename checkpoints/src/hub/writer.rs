//! The disk half of a download: bytes arrive in a file that no reader takes for a whole one, and get their names last.

use std::fs::TryLockError;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{BLOBS, HubCache, HubError, INCOMPLETE, REFS, is_sha256, names};
use crate::fs::{Fs, StdFs, with_path};

const LOCKS: &str = ".locks";

/// The bytes of one file in the cache.
#[derive(Debug)]
pub enum Blob {
    /// All are there.
    Whole,
    /// Some are missing; nobody else fetches them while this exists.
    Growing(Box<GrowingBlob>),
}

/// A file that is being fetched. If it is dropped before its end, what came stays for a later attempt.
#[derive(Debug)]
pub struct GrowingBlob {
    etag: String,
    path: PathBuf,
    partial: PathBuf,
    file: fs_err::File,
    hasher: Sha256,
    n_bytes: u64,
    _lock: fs_err::File,
}

impl HubCache {
    /// Opens the bytes of a file by its `ETag`, after the bytes that an earlier attempt left. If another process fetches
    /// it, `waits` is called once and the end of that process or of its fetching is waited for.
    ///
    /// Source: the names of files and locks are those of `huggingface_hub`.
    ///
    /// # Errors
    ///
    /// [`HubError::Name`]; [`HubError::Files`].
    pub fn blob(&self, repo: &str, etag: &str, waits: &mut dyn FnMut()) -> Result<Blob, HubError> {
        names::check_etag(etag)?;
        let blobs = self.folder(repo)?.join(BLOBS);
        let path = blobs.join(etag);
        if path.is_file() {
            return Ok(Blob::Whole);
        }
        let locks = self.dir.join(LOCKS).join(names::folder_name(repo)?);
        crate::fs::create_dir(&locks)?;
        crate::fs::create_dir(&blobs)?;
        let lock = locked(&locks.join(format!("{etag}.lock")), waits)?;
        if path.is_file() {
            return Ok(Blob::Whole);
        }
        let partial = blobs.join(format!("{etag}.{INCOMPLETE}"));
        let mut file = crate::fs::open_growing(&partial)?;
        let mut hasher = Sha256::new();
        let n_bytes = hash_all(&mut file, &mut hasher)?;
        let etag = etag.to_owned();
        let blob = GrowingBlob { etag, path, partial, file, hasher, n_bytes, _lock: lock };
        Ok(Blob::Growing(Box::new(blob)))
    }

    /// Gives a file of a commit its name: a relative link to its bytes.
    ///
    /// # Errors
    ///
    /// [`HubError::Name`]; [`HubError::Files`].
    pub fn link(
        &self,
        repo: &str,
        commit: &str,
        name: &str,
        etag: &str,
    ) -> Result<PathBuf, HubError> {
        names::check_file(name)?;
        names::check_etag(etag)?;
        let link = self.snapshot(repo, commit)?.dir.join(name);
        // Out of the folders of the name, of the commit and of all snapshots.
        let up = "../".repeat(name.matches('/').count() + 2);
        crate::fs::replace_link(Path::new(&format!("{up}{BLOBS}/{etag}")), &link)?;
        Ok(link)
    }

    /// Records which commit a branch, a tag or the beginning of a commit stands for; a whole commit needs no record.
    ///
    /// # Errors
    ///
    /// [`HubError::Name`]; [`HubError::Files`].
    pub fn write_ref(&self, repo: &str, revision: &str, commit: &str) -> Result<(), HubError> {
        names::check_revision(revision)?;
        names::check_commit(commit)?;
        if names::is_commit(revision) {
            return Ok(());
        }
        let path = self.folder(repo)?.join(REFS).join(revision);
        // No final newline: the hub's tools take all bytes for the commit.
        Ok(crate::fs::atomic_write(&path, commit.as_bytes())?)
    }
}

impl GrowingBlob {
    /// How many bytes are there.
    pub const fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// [`HubError::Files`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Drops what is there, to begin again.
    ///
    /// # Errors
    ///
    /// [`HubError::Files`].
    pub fn restart(&mut self) -> Result<(), HubError> {
        crate::fs::empty(&mut self.file)?;
        self.hasher = Sha256::new();
        self.n_bytes = 0;
        Ok(())
    }

    /// Makes the bytes durable and gives them their place, if they are as many as `size` says and have the sha256 that
    /// is their `ETag` (only large files have one).
    ///
    /// # Errors
    ///
    /// [`HubError::Size`], with the bytes kept if some are missing; [`HubError::Hash`], with the bytes dropped;
    /// [`HubError::Files`].
    pub fn finish(mut self, size: Option<u64>) -> Result<(), HubError> {
        let found = self.n_bytes;
        if let Some(expected) = size.filter(|size| *size != found) {
            if found > expected {
                self.restart()?;
            }
            return Err(HubError::Size { blob: self.path, expected, found });
        }
        if is_sha256(&self.etag) {
            let found = hex::encode(self.hasher.clone().finalize());
            if !found.eq_ignore_ascii_case(&self.etag) {
                self.restart()?;
                return Err(HubError::Hash { blob: self.path, found });
            }
        }
        self.file.flush()?;
        self.file.sync_all()?;
        StdFs.rename(&self.partial, &self.path)?;
        Ok(StdFs.fsync_dir(crate::fs::folder_of(&self.path))?)
    }
}

/// The lock of a blob. Its file is never removed: two processes could then lock two files of one name.
fn locked(path: &Path, waits: &mut dyn FnMut()) -> Result<fs_err::File, HubError> {
    let lock = crate::fs::open_kept(path)?;
    match lock.file().try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            waits();
            lock.file().lock().map_err(|error| with_path(&error, "lock", path))?;
        }
        Err(TryLockError::Error(error)) => return Err(with_path(&error, "lock", path).into()),
    }
    Ok(lock)
}

/// Hashes a file from its beginning; how many bytes it has.
fn hash_all(file: &mut fs_err::File, hasher: &mut Sha256) -> Result<u64, HubError> {
    let mut buffer = vec![0; 1 << 18];
    let mut n_bytes = 0;
    loop {
        let n_read = file.read(&mut buffer)?;
        if n_read == 0 {
            return Ok(n_bytes);
        }
        hasher.update(&buffer[..n_read]);
        n_bytes += n_read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::bytes_sha256;

    const REPO: &str = "org/name";
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache() -> (tempfile::TempDir, HubCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache { dir: folder.path().to_owned() };
        (folder, cache)
    }

    fn growing(cache: &HubCache, etag: &str) -> Box<GrowingBlob> {
        match cache.blob(REPO, etag, &mut || panic!("nobody holds the lock")).unwrap() {
            Blob::Growing(blob) => blob,
            Blob::Whole => panic!("the blob is whole"),
        }
    }

    #[test]
    fn an_interrupted_blob_goes_on_where_it_ended_and_is_checked_as_a_whole() {
        let (folder, cache) = cache();
        let etag = bytes_sha256(b"weights");
        let mut first = growing(&cache, &etag);
        first.append(b"wei").unwrap();
        drop(first);
        let blobs = folder.path().join("models--org--name/blobs");
        let partial = blobs.join(format!("{etag}.incomplete"));
        assert_eq!(crate::fs::read(&partial).unwrap(), b"wei");
        assert!(folder.path().join(format!(".locks/models--org--name/{etag}.lock")).is_file());
        let mut second = growing(&cache, &etag);
        assert_eq!(second.n_bytes(), 3);
        second.append(b"ghts").unwrap();
        second.finish(Some(7)).unwrap();
        assert_eq!(crate::fs::list(&blobs).unwrap(), [blobs.join(&etag)]);
        assert!(matches!(cache.blob(REPO, &etag, &mut || {}).unwrap(), Blob::Whole));
    }

    #[test]
    fn bytes_with_another_hash_or_another_length_get_no_name() {
        let (folder, cache) = cache();
        let etag = bytes_sha256(b"weights");
        let mut blob = growing(&cache, &etag);
        blob.append(b"Weights").unwrap();
        let error = blob.finish(Some(7)).unwrap_err().to_string();
        assert!(error.contains(&bytes_sha256(b"Weights")) && error.contains(&etag), "{error}");
        // Wrong bytes must not be gone on from, missing ones must.
        let mut blob = growing(&cache, &etag);
        assert_eq!(blob.n_bytes(), 0);
        blob.append(b"weig").unwrap();
        let error = blob.finish(Some(7)).unwrap_err().to_string();
        assert!(error.contains("4 bytes") && error.contains("expected 7"), "{error}");
        assert_eq!(growing(&cache, &etag).n_bytes(), 4);
        let mut blob = growing(&cache, &etag);
        blob.append(b"hts and more").unwrap();
        assert!(matches!(blob.finish(Some(7)), Err(HubError::Size { found: 16, .. })));
        assert_eq!(growing(&cache, &etag).n_bytes(), 0);
        assert!(!folder.path().join("models--org--name/blobs").join(&etag).exists());
    }

    #[test]
    fn a_blob_is_fetched_by_one_at_a_time() {
        let (_folder, cache) = cache();
        let mut first = growing(&cache, "0a");
        let other = cache.clone();
        let (says, hears) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            other.blob(REPO, "0a", &mut || says.send(()).unwrap()).unwrap()
        });
        hears.recv().unwrap();
        first.append(b"x").unwrap();
        first.finish(None).unwrap();
        assert!(matches!(second.join().unwrap(), Blob::Whole));
    }

    #[cfg(unix)]
    #[test]
    fn names_are_relative_links_and_a_ref_is_the_bare_commit() {
        let (folder, cache) = cache();
        let mut blob = growing(&cache, "0a");
        blob.append(b"{}").unwrap();
        blob.finish(None).unwrap();
        let link = cache.link(REPO, COMMIT, "unet/config.json", "0a").unwrap();
        let target = fs_err::read_link(&link).unwrap();
        assert_eq!(target, Path::new("../../../blobs/0a"));
        assert_eq!(crate::fs::read(&link).unwrap(), b"{}");
        let link = cache.link(REPO, COMMIT, "model_index.json", "0a").unwrap();
        assert_eq!(fs_err::read_link(&link).unwrap(), Path::new("../../blobs/0a"));
        assert!(cache.link(REPO, COMMIT, "../../escape", "0a").is_err());
        assert!(cache.link(REPO, "main", "model_index.json", "0a").is_err());
        cache.write_ref(REPO, "refs/pr/1", COMMIT).unwrap();
        let path = folder.path().join("models--org--name/refs/refs/pr/1");
        assert_eq!(crate::fs::read(&path).unwrap(), COMMIT.as_bytes());
        cache.write_ref(REPO, COMMIT, COMMIT).unwrap();
        assert!(!folder.path().join("models--org--name/refs").join(COMMIT).exists());
        assert!(cache.write_ref(REPO, "../x", COMMIT).is_err());
    }
}
