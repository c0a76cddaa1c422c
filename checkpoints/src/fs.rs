//! The only place that writes files: atomically, durably, or not at all.
//!
//! A file appears under its name only when all of its bytes are on the disk: sibling file, fsync, rename, fsync of the
//! folder. All operations go through [`Fs`], so that tests can fail or cut off each of them.

use std::fmt::Debug;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::CheckpointError;

/// A file being written.
pub trait DurableFile: Write + Debug {
    /// Returns once all written bytes are on the disk. A failure is final: it must not be tried again on this file.
    ///
    /// # Errors
    ///
    /// What the system says; the bytes may be lost.
    fn fsync(&mut self) -> io::Result<()>;
}

/// The file operations that this crate needs. Errors name the path.
pub trait Fs: Debug + Send + Sync {
    /// Creates or truncates a file, readable by all (mode 0644 less the umask).
    ///
    /// # Errors
    ///
    /// As the system reports them; so for all methods.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DurableFile>>;
    /// Creates a file that must not exist.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, and what the system reports.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DurableFile>>;
    /// Opens a file for appending, or creates it.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DurableFile>>;
    /// Replaces `to` by `from` in one step.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes names in a folder durable. File systems that cannot (EINVAL) are tolerated.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn fsync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates a folder and what lies above it.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The paths in a folder, sorted; a folder that does not exist has none.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// All bytes of a file.
    ///
    /// # Errors
    ///
    /// As the system reports them.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy)]
pub struct StdFs;

impl DurableFile for fs_err::File {
    fn fsync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Fs for StdFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
        Ok(Box::new(fs_err::File::create(path)?))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
        Ok(Box::new(fs_err::OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
        Ok(Box::new(fs_err::OpenOptions::new().append(true).create(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs_err::rename(from, to)
    }

    fn fsync_dir(&self, dir: &Path) -> io::Result<()> {
        const EINVAL: i32 = 22;
        match fs_err::File::open(dir)?.into_file().sync_all() {
            Err(error) if error.raw_os_error() == Some(EINVAL) => Ok(()),
            Err(error) => Err(with_path(&error, "sync folder", dir)),
            Ok(()) => Ok(()),
        }
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs_err::create_dir_all(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs_err::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs_err::remove_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs_err::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs_err::read(path)
    }
}

/// The same error with the path in its text, as `fs_err` words it.
pub(crate) fn with_path(error: &io::Error, action: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("failed to {action} `{}`: {error}", path.display()))
}

/// Writes a file so that its name only ever stands for complete bytes, on the disk when this returns. Folders above
/// it are created.
///
/// # Errors
///
/// [`CheckpointError::Io`]; what was under the name before is then still there.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    atomic_write_on(&StdFs, path, bytes)
}

/// [`atomic_write`] on any file system.
///
/// # Errors
///
/// As [`atomic_write`].
pub fn atomic_write_on(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    atomic_write_with(fs, path, &mut |file| Ok(file.write_all(bytes)?))
}

/// Writes a file piece by piece with the promises of [`atomic_write`].
///
/// # Errors
///
/// As [`atomic_write`], and whatever `fill` returns.
pub fn atomic_write_with(
    fs: &dyn Fs,
    path: &Path,
    fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let folder = folder_of(path);
    create_dir_durably(fs, folder)?;
    let sibling = sibling_of(path);
    let written = durable_write(fs, &sibling, fill).and_then(|()| Ok(fs.rename(&sibling, path)?));
    if let Err(error) = written {
        // The first error is the one to report; a sibling that cannot be removed is harmless and overwritten later.
        let _ = fs.unlink(&sibling);
        return Err(error);
    }
    Ok(fs.fsync_dir(folder)?)
}

/// Creates a folder and what lies above it, each entry durable in the folder that holds it.
pub(crate) fn create_dir_durably(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = folder_of(dir);
    create_dir_durably(fs, parent)?;
    fs.create_dir_all(dir)?;
    fs.fsync_dir(parent)
}

/// Creates a file, fills it and makes it durable; for files inside a folder that is itself renamed into place.
pub(crate) fn durable_write(
    fs: &dyn Fs,
    path: &Path,
    fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut file = fs.create(path)?;
    fill(&mut file)?;
    file.flush()?;
    Ok(file.fsync()?)
}

/// Writes a value as indented JSON with a final newline, with the promises of [`atomic_write`].
///
/// # Errors
///
/// As [`atomic_write`]; [`CheckpointError::Json`] if the value has no JSON form.
pub fn atomic_write_json<T: Serialize + ?Sized>(
    path: &Path,
    value: &T,
) -> Result<(), CheckpointError> {
    atomic_write(path, &json_bytes(path, value)?)
}

pub(crate) fn json_bytes<T: Serialize + ?Sized>(
    path: &Path,
    value: &T,
) -> Result<Vec<u8>, CheckpointError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| CheckpointError::Json { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a JSON file.
///
/// # Errors
///
/// [`CheckpointError::Io`] or [`CheckpointError::Json`].
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    serde_json::from_slice(&StdFs.read(path)?)
        .map_err(|source| CheckpointError::Json { path: path.to_owned(), source })
}

/// All bytes of a file.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    Ok(StdFs.read(path)?)
}

/// Creates a folder and what lies above it.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn create_dir(dir: &Path) -> Result<(), CheckpointError> {
    Ok(create_dir_durably(&StdFs, dir)?)
}

/// The paths in a folder, sorted; none if there is no such folder.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    Ok(StdFs.list(dir)?)
}

/// Removes a file if it is there.
///
/// # Errors
///
/// [`CheckpointError::Io`] for every failure but its absence.
pub fn remove_file(path: &Path) -> Result<(), CheckpointError> {
    match StdFs.unlink(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed?),
    }
}

/// Removes a folder that holds nothing.
///
/// # Errors
///
/// [`CheckpointError::Io`], also for a folder that holds anything.
pub fn remove_empty_dir(dir: &Path) -> Result<(), CheckpointError> {
    Ok(fs_err::remove_dir(dir)?)
}

/// Opens a file for reading and writing and leaves its content alone; creates it if it is not there. For lock files,
/// which must never be replaced.
pub(crate) fn open_kept(path: &Path) -> io::Result<fs_err::File> {
    fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Replaces the content of an open file, neither atomically nor durably: for notes to people.
pub(crate) fn overwrite(file: &mut fs_err::File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(bytes)
}

/// Opens a file that grows over several attempts, for reading and appending; creates it if it is not there.
pub(crate) fn open_growing(path: &Path) -> io::Result<fs_err::File> {
    fs_err::OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// Takes all bytes from an open file.
pub(crate) fn empty(file: &mut fs_err::File) -> io::Result<()> {
    file.set_len(0)
}

/// Makes `link` a link with the text `target`, which counts from the link's folder, in place of what was under that
/// name. Folders above it are created.
pub(crate) fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let folder = folder_of(link);
    create_dir_durably(&StdFs, folder)?;
    let sibling = sibling_of(link);
    let linked = match StdFs.unlink(&sibling) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => new_link(target, &sibling).and_then(|()| StdFs.rename(&sibling, link)),
    };
    if let Err(error) = linked {
        // The first error is the one to report; a sibling that cannot be removed is harmless and replaced later.
        let _ = StdFs.unlink(&sibling);
        return Err(error);
    }
    StdFs.fsync_dir(folder)
}

#[cfg(unix)]
fn new_link(target: &Path, link: &Path) -> io::Result<()> {
    fs_err::os::unix::fs::symlink(target, link)
}

/// Symbolic links need a right there that few users have; a second name for the same bytes needs none.
#[cfg(not(unix))]
fn new_link(target: &Path, link: &Path) -> io::Result<()> {
    fs_err::hard_link(folder_of(link).join(target), link)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A name beside `path` that no other live writer of this machine uses: it holds the process and the thread.
fn sibling_of(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let thread: String =
        format!("{:?}", std::thread::current().id()).chars().filter(char::is_ascii_digit).collect();
    path.with_file_name(format!(".tmp-{name}-{}-{thread}", std::process::id()))
}

#[cfg(test)]
pub(crate) mod faults {
    //! A file system that fails one chosen operation, or all from one on.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Debug, DurableFile, Fs, Path, PathBuf, StdFs, Write, io};

    /// Counts operations that change the disk and fails operation number `fail_at` with ENOSPC.
    #[derive(Debug, Clone)]
    pub(crate) struct FaultyFs {
        pub(crate) done: Arc<AtomicUsize>,
        pub(crate) fail_at: usize,
    }

    impl FaultyFs {
        pub(crate) fn failing_at(fail_at: usize) -> Self {
            Self { done: Arc::new(AtomicUsize::new(0)), fail_at }
        }

        /// Whether the chosen operation was reached.
        pub(crate) fn failed(&self) -> bool {
            self.done.load(Ordering::SeqCst) > self.fail_at
        }

        fn check(&self, path: &Path) -> io::Result<()> {
            const ENOSPC: i32 = 28;
            if self.done.fetch_add(1, Ordering::SeqCst) == self.fail_at {
                return Err(super::with_path(&io::Error::from_raw_os_error(ENOSPC), "write", path));
            }
            Ok(())
        }
    }

    #[derive(Debug)]
    struct FaultyFile {
        fs: FaultyFs,
        path: PathBuf,
        file: Box<dyn DurableFile>,
    }

    impl Write for FaultyFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Err(error) = self.fs.check(&self.path) {
                // A full disk takes part of the bytes.
                self.file.write_all(&bytes[..bytes.len() / 2])?;
                return Err(error);
            }
            self.file.write_all(bytes)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.file.flush()
        }
    }

    impl DurableFile for FaultyFile {
        fn fsync(&mut self) -> io::Result<()> {
            self.fs.check(&self.path)?;
            self.file.fsync()
        }
    }

    impl FaultyFs {
        fn wrap(&self, path: &Path, file: Box<dyn DurableFile>) -> Box<dyn DurableFile> {
            Box::new(FaultyFile { fs: self.clone(), path: path.to_owned(), file })
        }
    }

    impl Fs for FaultyFs {
        fn create(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
            self.check(path)?;
            Ok(self.wrap(path, StdFs.create(path)?))
        }
        fn create_new(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
            self.check(path)?;
            Ok(self.wrap(path, StdFs.create_new(path)?))
        }
        fn append(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
            self.check(path)?;
            Ok(self.wrap(path, StdFs.append(path)?))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.check(from)?;
            StdFs.rename(from, to)
        }
        fn fsync_dir(&self, dir: &Path) -> io::Result<()> {
            self.check(dir)?;
            StdFs.fsync_dir(dir)
        }
        fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
            self.check(dir)?;
            StdFs.create_dir_all(dir)
        }
        fn unlink(&self, path: &Path) -> io::Result<()> {
            self.check(path)?;
            StdFs.unlink(path)
        }
        fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
            self.check(dir)?;
            StdFs.remove_dir_all(dir)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
            self.check(dir)?;
            StdFs.list(dir)
        }
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.check(path)?;
            StdFs.read(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::faults::FaultyFs;
    use super::*;

    #[test]
    fn every_failure_keeps_the_old_bytes_and_names_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("file.json");
        atomic_write(&path, b"old").unwrap();
        let mut n_failures = 0;
        for fail_at in 0.. {
            let fs = FaultyFs::failing_at(fail_at);
            let written = atomic_write_on(&fs, &path, b"new bytes");
            if !fs.failed() {
                written.unwrap();
                break;
            }
            n_failures += 1;
            let message = written.unwrap_err().to_string();
            assert!(message.contains(&folder.path().display().to_string()), "{message}");
            // Only the last operation, fsync of the folder, comes after the rename.
            let bytes = StdFs.read(&path).unwrap();
            assert!(bytes == b"old" || bytes == b"new bytes", "{bytes:?}");
            assert_eq!(StdFs.list(path.parent().unwrap()).unwrap(), [&*path]);
            atomic_write(&path, b"old").unwrap();
        }
        // create, write, fsync, rename, fsync_dir
        assert_eq!(n_failures, 5);
        assert_eq!(StdFs.read(&path).unwrap(), b"new bytes");
    }

    #[cfg(unix)]
    #[test]
    fn written_files_are_readable_by_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        atomic_write(&path, b"1").unwrap();
        let plain = folder.path().join("plain");
        drop(StdFs.create(&plain).unwrap());
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), mode(&plain));
        assert_eq!(mode(&path) & 0o400, 0o400);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_replaces_a_broken_one_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("names/a");
        replace_link(Path::new("../bytes/gone"), &link).unwrap();
        assert!(!link.is_file());
        atomic_write(&folder.path().join("bytes/here"), b"1").unwrap();
        replace_link(Path::new("../bytes/here"), &link).unwrap();
        assert_eq!(StdFs.read(&link).unwrap(), b"1");
        assert_eq!(StdFs.list(link.parent().unwrap()).unwrap(), [&*link]);
    }

    #[test]
    fn only_an_empty_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a");
        atomic_write(&dir.join("b"), b"1").unwrap();
        assert!(remove_empty_dir(&dir).is_err());
        remove_file(&dir.join("b")).unwrap();
        remove_empty_dir(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_missing_folder_lists_nothing() {
        assert!(list(Path::new("/nonexistent/folder")).unwrap().is_empty());
    }
}
