//! The exit codes: the interface to schedulers and scripts, and the only place with the numbers.

use checkpoints::ErrorKind;
use checkpoints::hub::{HubError, HubErrorKind};
use datasets::DatasetError;
use eval::EvalError;
use models::ModelError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or already finished.
    Done,
    /// Done, but a gate of the recipe failed.
    GateFailed,
    /// Usage or recipe invalid; another recipe under the same run id.
    Usage,
    /// Pictures, captions or weight files invalid.
    Data,
    /// Device unavailable or out of memory; no progress over several attempts.
    Unavailable,
    /// The run directory is locked by a live run.
    Locked,
    /// Input or output failed, the disk is full, no commit verifies.
    Io,
    /// A checkpoint was committed, please requeue.
    Requeue,
    /// Training diverged; the last good checkpoint was kept.
    Diverged,
    /// The environment is misconfigured: driver, NVRTC, CUDA headers.
    Misconfigured,
    /// A bug.
    Bug,
    /// A second Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::GateFailed => 1,
            Self::Usage => 64,
            Self::Data => 65,
            Self::Unavailable => 69,
            Self::Locked => 73,
            Self::Io => 74,
            Self::Requeue => 75,
            Self::Diverged => 76,
            Self::Misconfigured => 78,
            Self::Bug => 101,
            Self::Interrupted => 130,
        }
    }

    /// The end that a finished run recorded: 0, or 1 for a failed gate.
    pub(crate) const fn from_recorded(code: u8) -> Self {
        if code == Self::Done.code() { Self::Done } else { Self::GateFailed }
    }
}

/// The end that a kind of file error deserves.
pub(crate) const fn from_checkpoint(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Data => Exit::Data,
        ErrorKind::Io => Exit::Io,
        ErrorKind::Locked => Exit::Locked,
        ErrorKind::Recipe => Exit::Usage,
    }
}

/// The end that an error of a model in the cache of the hub deserves.
pub(crate) const fn from_hub(error: &HubError) -> Exit {
    match error.kind() {
        HubErrorKind::Name => Exit::Usage,
        // Jobs do not fetch what they lack: that is for whoever sets the machine up.
        HubErrorKind::Absent => Exit::Misconfigured,
        HubErrorKind::Weights | HubErrorKind::Damaged => Exit::Data,
        HubErrorKind::Files(kind) => from_checkpoint(kind),
    }
}

/// The end that an error of a network deserves.
pub(crate) fn from_model(error: &ModelError) -> Exit {
    match error {
        ModelError::Checkpoint(error) => from_checkpoint(error.kind()),
        ModelError::PromptTooLong { .. }
        | ModelError::NoSuchLayer { .. }
        | ModelError::Size { .. } => Exit::Usage,
        ModelError::Device(_) => Exit::Unavailable,
        ModelError::Tensors { .. }
        | ModelError::Config { .. }
        | ModelError::Tokenizer { .. }
        | ModelError::Adapter { .. }
        // What a later version adds is about files, too.
        | _ => Exit::Data,
    }
}

/// The end that an error of the pictures deserves.
pub(crate) fn from_dataset(error: &DatasetError) -> Exit {
    match error {
        DatasetError::Io(_) => Exit::Io,
        DatasetError::Invalid { .. } | _ => Exit::Data,
    }
}

/// The end that an error of the census deserves.
pub(crate) fn from_eval(error: &EvalError) -> Exit {
    match error {
        EvalError::Model(error) => from_model(error),
        EvalError::Checkpoint(error) => from_checkpoint(error.kind()),
        EvalError::Dataset(error) => from_dataset(error),
        EvalError::UnknownName { .. }
        | EvalError::Concept { .. }
        | EvalError::Noiseless { .. }
        | EvalError::Distilled { .. }
        | EvalError::AdaptedVae { .. } => Exit::Usage,
        EvalError::Stopped => Exit::Requeue,
        EvalError::Catalogue { .. }
        | EvalError::Rows { .. }
        | EvalError::Length { .. }
        | EvalError::Labels { .. }
        | EvalError::Altered { .. }
        | EvalError::Removed { .. }
        | EvalError::Unpaired(_)
        | EvalError::Schema { .. }
        | EvalError::Json(_)
        | EvalError::Diffusion(_)
        | EvalError::Scheduler(_)
        | EvalError::SharedEvaluator { .. }
        | EvalError::Picture { .. }
        // What a later version adds is about files, too.
        | _ => Exit::Data,
    }
}

/// What a panic inside the tensor library means: text about memory or a lost device is the
/// device's fault, anything else is a bug.
pub(crate) fn from_panic(message: &str) -> Exit {
    let message = message.to_lowercase();
    let of_device = [
        "out of memory",
        "out_of_memory",
        "memory allocation of",
        "allocation failed",
        "devicepoisoned",
        "device poisoned",
        "device lost",
        "cuda_error",
    ];
    if of_device.iter().any(|words| message.contains(words)) {
        Exit::Unavailable
    } else {
        Exit::Bug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_own_number() {
        let ends = [
            Exit::Done,
            Exit::GateFailed,
            Exit::Usage,
            Exit::Data,
            Exit::Unavailable,
            Exit::Locked,
            Exit::Io,
            Exit::Requeue,
            Exit::Diverged,
            Exit::Misconfigured,
            Exit::Bug,
            Exit::Interrupted,
        ];
        let codes: Vec<u8> = ends.iter().map(|end| end.code()).collect();
        assert_eq!(codes, [0, 1, 64, 65, 69, 73, 74, 75, 76, 78, 101, 130]);
    }

    #[test]
    fn a_panic_about_memory_is_the_devices_and_any_other_is_a_bug() {
        assert_eq!(from_panic("CUDA_ERROR_OUT_OF_MEMORY at launch"), Exit::Unavailable);
        assert_eq!(from_panic("index out of bounds: the len is 3"), Exit::Bug);
    }
}
