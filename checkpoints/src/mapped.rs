//! The one unsafe block of this crate: a file seen as read-only memory.

use std::path::Path;

use memmap2::Mmap;

use crate::error::CheckpointError;

/// Maps the file at `path`. An empty file gives an empty map.
///
/// Weight files are immutable by contract: whoever shrinks one while it is mapped makes the process receive SIGBUS.
#[expect(unsafe_code, reason = "a memory map is unsafe by nature")]
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
