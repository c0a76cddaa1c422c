//! Stands in for `cubecl-llvm` 0.11.3, whose published form downloads LLVM while it builds.
//!
//! It offers only the names that `cubecl-cuda` refers to. The CUDA back end of `populate` always
//! generates C++ for NVRTC (feature `cubecl/cuda-cpp`); reaching [`PlironCompiler::compile`] means
//! that the feature was lost, and its error says so.

use std::ffi::c_char;
use std::fmt;

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_server::compiler::{CompilationError, Compiler};
use cubecl_server::kernel::BufferIOAttr;

use crate::nvptx::ptx_version::PtxVersion;

/// What the generator would lower to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The host processor.
    #[default]
    Cpu,
    /// NVIDIA PTX.
    Nvptx,
}

/// The generator that this build does not contain.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it would lower to.
    pub target: LlvmTarget,
}

/// Options of the generator that this build does not contain.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Only ever `None`.
    pub arch: Option<()>,
    /// The device's compute capability.
    pub sm_arch: Option<SmArch>,
    /// The newest PTX version that the driver loads.
    pub ptx_version: Option<PtxVersion>,
    /// Whether kernel parameters are grid constants.
    pub grid_constants: bool,
    /// A field more, because the caller completes the options with the defaults.
    pub reserved: (),
}

/// A PTX module.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text, NUL-terminated.
    pub ptx: Vec<c_char>,
    /// Name of the kernel.
    pub entrypoint: String,
    /// Intermediate representation.
    pub ir: String,
    /// Bytes of dynamic shared memory.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// What the generator would return.
#[derive(Clone)]
pub enum PlironArtifact {
    /// Code for an NVIDIA device.
    NvptxCode(NvptxModule),
    /// Code for the host.
    HostCode(String),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NvptxCode(module) => formatter.write_str(&module.ir),
            Self::HostCode(text) => formatter.write_str(text),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _kernel: KernelDefinition,
        _options: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this build has no LLVM generator: the feature `cubecl/cuda-cpp` is missing".to_string(),
            backtrace: cubecl_environment::backtrace::BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// Names of the NVIDIA half.
pub mod nvptx {
    /// PTX versions.
    pub mod ptx_version {
        use std::fmt;

        /// A PTX version; never made here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct PtxVersion(u32);

        impl PtxVersion {
            /// Always `None`: without the generator no version is emitted.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}", self.0)
            }
        }
    }
}

/// Names shared by the targets.
pub mod shared {
    /// Device features that lowering would restrict.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// A GPU target.
        pub enum GpuTarget {
            /// NVIDIA PTX.
            Nvptx,
        }

        /// Restricts nothing: the C++ generator supports what the device reports.
        pub fn restrict_features(_properties: &mut DeviceProperties, _target: GpuTarget) {}
    }
}
