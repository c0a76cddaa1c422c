//! The one place of this crate with unsafe code: a file seen as read-only memory.

#![expect(unsafe_code, reason = "a memory map is unsafe by nature")]

use std::path::Path;

use memmap2::Mmap;

use crate::error::CheckpointError;

/// Maps the file at `path`. An empty file gives an empty map.
///
/// Weight files are immutable by contract: whoever shrinks one while it is mapped makes the process receive SIGBUS.
pub(crate) fn map(path: &Path) -> Result<Mmap, CheckpointError> {
    let file = fs_err::File::open(path)?;
    // SAFETY: the map is read-only and private to `TensorFile`; committed weight files are never changed in place
    // (`checkpoints::fs` replaces them by rename), and truncation by others raises SIGBUS, it does not alias memory.
    let map = unsafe { Mmap::map(file.file()) };
    map.map_err(|source| {
        CheckpointError::from(std::io::Error::new(
            source.kind(),
            format!("failed to map file `{}`: {source}", path.display()),
        ))
    })
}

/// Gives `n_bytes` from `start` back to the system, so that what was read no longer counts as memory of this process.
/// Whoever looks at them again gets the same bytes from the file. Does nothing where the system cannot.
pub(crate) fn release(map: &Mmap, start: usize, n_bytes: usize) {
    if n_bytes == 0 || start.checked_add(n_bytes).is_none_or(|end| end > map.len()) {
        return;
    }
    #[cfg(unix)]
    {
        // SAFETY: `map` is a shared read-only map of a file and never a private one. Dropping its pages discards no write:
        // the next access finds the file's bytes again, which by the contract of `map` do not change. So no reference
        // into the map, in this thread or another, ever sees other values.
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, n_bytes)
        };
        // It is advice: where it fails, the pages merely stay.
        drop(advised);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn released_pages_leave_memory_and_hold_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        let bytes: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
        crate::fs::atomic_write(&path, &bytes).unwrap();
        let map = super::map(&path).unwrap();
        assert_eq!(map[..], bytes);
        assert!(resident_kib(&path) > 4096);
        super::release(&map, 0, map.len());
        assert_eq!(resident_kib(&path), 0);
        assert_eq!(map[..], bytes);
        // Neither the end of the file nor an empty range is an error.
        super::release(&map, map.len() - 1, 1);
        super::release(&map, map.len(), 1);
        super::release(&map, 0, 0);
    }

    /// Memory of this process that shows the file, in KiB.
    #[cfg(target_os = "linux")]
    fn resident_kib(path: &std::path::Path) -> u64 {
        let maps = fs_err::read_to_string("/proc/self/smaps").unwrap();
        let of_file = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let line = of_file.skip(1).find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
