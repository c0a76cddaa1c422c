//! Where tensors are computed: chosen once, before the first tensor, and never by default.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use models::Device;

use crate::environment;

/// What `--device` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// The first NVIDIA card if this build can use one and one is there, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA card of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("cuda:").map(str::parse);
        match (text, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err("expected `auto`, `cpu`, `cuda` or `cuda:N`".to_owned()),
        }
    }
}

/// A device and its name.
#[derive(Debug, Clone)]
pub(crate) struct ChosenDevice {
    /// Where tensors are made.
    pub(crate) device: Device,
    /// Number of the NVIDIA card; `None` for the processor.
    pub(crate) cuda_index: Option<usize>,
    /// In words, for people and records.
    pub(crate) name: String,
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The build has no CUDA.
    #[error("device `cuda` is not part of this build")]
    NotCompiled,
    /// There is no such card.
    #[error("device `cuda:{index}` is not there, found {found} CUDA devices")]
    Absent {
        /// The number asked for.
        index: usize,
        /// Cards that the driver shows.
        found: usize,
    },
    /// A card is there, but kernels cannot be compiled for it.
    #[error("CUDA kernels cannot be compiled: {missing}")]
    Misconfigured {
        /// What is missing.
        missing: String,
        /// What to do.
        remedy: String,
    },
}

impl DeviceError {
    /// Advice.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::NotCompiled => {
                "build with `cargo build --release --features cli/cuda`, or use `--device cpu`"
                    .to_owned()
            }
            Self::Absent { .. } => {
                "`populate doctor` shows what is found; `--device cpu` needs no card".to_owned()
            }
            Self::Misconfigured { remedy, .. } => remedy.clone(),
        }
    }
}

/// The device that was asked for, ready to hold tensors.
///
/// # Errors
///
/// [`DeviceError`]; `auto` never fails for want of a card, but a card that is there and cannot
/// compile kernels is an error rather than a slow surprise.
pub(crate) fn choose(choice: DeviceChoice) -> Result<ChosenDevice, DeviceError> {
    if choice == DeviceChoice::Cpu {
        return Ok(cpu());
    }
    let n_cards = n_cuda_devices();
    let index = match choice {
        DeviceChoice::Cuda(index) => index,
        DeviceChoice::Auto | DeviceChoice::Cpu => 0,
    };
    match (choice, n_cards) {
        (DeviceChoice::Auto, None | Some(0)) => Ok(cpu()),
        (_, None) => Err(DeviceError::NotCompiled),
        (_, Some(found)) if index >= found => Err(DeviceError::Absent { index, found }),
        (_, Some(_)) => {
            check_compiler()?;
            Ok(cuda(index))
        }
    }
}

fn cpu() -> ChosenDevice {
    let name = match environment::n_threads() {
        1 => format!("processor, {}, 1 thread", environment::simd_level()),
        n => format!("processor, {}, {n} threads", environment::simd_level()),
    };
    ChosenDevice { device: Device::flex(), cuda_index: None, name }
}

/// NVIDIA cards that can be used; `None` if the build has no CUDA.
#[cfg(feature = "cuda")]
pub(crate) fn n_cuda_devices() -> Option<usize> {
    use burn::tensor::DeviceType;

    // Asking for cards reads the settings, which can be made only once.
    configure();
    Some(Device::enumerate(DeviceType::Cuda).into_iter().count())
}

/// NVIDIA cards that can be used; `None` if the build has no CUDA.
#[cfg(not(feature = "cuda"))]
pub(crate) const fn n_cuda_devices() -> Option<usize> {
    None
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> ChosenDevice {
    let name = format!("cuda:{index}");
    ChosenDevice { device: Device::cuda(index), cuda_index: Some(index), name }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> ChosenDevice {
    cpu()
}

/// Sets what cubecl and burn would otherwise read from files upwards of the working directory: a
/// stray file there must not change a run. Kernels and tuning results are kept in the user's cache.
#[cfg(feature = "cuda")]
fn configure() {
    use burn::BurnConfig;
    use cubecl::config::cache::CacheConfig;
    use cubecl::config::memory::PersistentMemory;
    use cubecl::config::streaming::StreamPolicy;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    let mut config = CubeClRuntimeConfig::default();
    config.environment.path = CacheConfig::Directory(environment::cache_dir().join("kernels"));
    config.environment.name = tuning_name();
    config.compilation.cache = true;
    config.memory.persistent_memory = PersistentMemory::SizeMatch;
    config.streaming.policy = StreamPolicy::Single;
    // False only if a tensor existed before; then the files were read and nothing can be done.
    CubeClRuntimeConfig::try_set(config);
    BurnConfig::try_set(BurnConfig::default());
}

/// Kernels are tuned for a model of card and its driver: each pair has its own results.
#[cfg(feature = "cuda")]
fn tuning_name() -> String {
    let (driver, cards) = crate::sensors::driver().unwrap_or_default();
    let card = cards.into_iter().next().unwrap_or_else(|| "unknown".to_owned());
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("{card}-{driver}").chars().map(plain).collect()
}

/// Checks what the run-time compiler needs, because cubecl panics at the first kernel without it.
pub(crate) fn check_compiler() -> Result<(), DeviceError> {
    let root = environment::cuda_root();
    let headers = missing_header(root.as_deref());
    let compiler = find_nvrtc(root.as_deref()).is_none();
    let missing = match (headers, compiler) {
        (None, false) => return Ok(()),
        (Some(header), _) => header,
        (None, true) => "the library `libnvrtc` is not found".to_owned(),
    };
    let remedy = "install the CUDA toolkit, or the wheels nvidia-cuda-nvrtc, nvidia-cuda-runtime, \
         nvidia-cuda-cccl and nvidia-cuda-crt (of CUDA 12: nvidia-cuda-nvcc-cu12) merged into one \
         folder, and set CUDA_PATH to the folder that holds `include`"
        .to_owned();
    Err(DeviceError::Misconfigured { missing, remedy })
}

/// What is missing of the headers that every kernel includes.
fn missing_header(root: Option<&Path>) -> Option<String> {
    let Some(root) = root else {
        return Some("no CUDA toolkit is found, and CUDA_PATH is not set".to_owned());
    };
    // The last is what `mma.h` includes: without it the kernels of the tensor cores alone fail, and
    // the program is only slow.
    let headers = ["cuda_fp16.h", "cuda_bf16.h", "mma.h", "crt/mma.h"];
    let include = root.join("include");
    let missing = headers.iter().map(|name| include.join(name)).find(|path| !path.is_file())?;
    Some(format!("`{}` is missing", missing.display()))
}

/// The compiler's library, where the loader would find it.
pub(crate) fn find_nvrtc(root: Option<&Path>) -> Option<PathBuf> {
    let mut folders = environment::library_paths();
    if let Some(root) = root {
        folders.extend([
            root.join("lib64"),
            root.join("lib"),
            root.join("targets/x86_64-linux/lib"),
        ]);
    }
    folders.extend(
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"]
            .map(PathBuf::from),
    );
    let is_nvrtc = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc.so"))
    };
    folders.iter().find_map(|folder| checkpoints::fs::list(folder).ok()?.into_iter().find(is_nvrtc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_spelled_as_documented() {
        let parse = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(parse("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(parse("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(parse("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(parse("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        assert!(parse("cuda:x").is_err() && parse("gpu").is_err() && parse("").is_err());
    }

    #[test]
    fn a_toolkit_without_headers_is_named_before_any_kernel_runs() {
        assert!(missing_header(None).is_some_and(|text| text.contains("CUDA_PATH")));
        let missing = missing_header(Some(Path::new("/nonexistent")));
        assert!(missing.is_some_and(|text| text.contains("cuda_fp16.h")));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so_and_auto_takes_the_processor() {
        assert_eq!(choose(DeviceChoice::Cuda(0)).unwrap_err(), DeviceError::NotCompiled);
        assert_eq!(choose(DeviceChoice::Auto).unwrap().cuda_index, None);
    }
}
