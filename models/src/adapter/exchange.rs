//! Adapters in files: the forms of kohya's tools, of diffusers and of PEFT.
//!
//! Owns what the tensors of such a file mean and the rules by which one is written. How a layer is
//! called there is the table of `checkpoints::key_map`; bytes and headers are `checkpoints`' own.

mod read;
mod write;

use std::collections::BTreeMap;

use checkpoints::key_map::{KeyMap, Naming};

use super::{Adapter, Layer, layers};
use crate::base::Base;
use crate::error::ModelError;
use crate::unet::UNetConfig;

pub use read::{Alphas, adapter_from_file};
pub use write::{balanced, diffusers_tensors, exact_tensors, kohya_tensors, peft_tensors};

/// Key of a file's metadata under which diffusers keeps the configuration of its adapters.
pub const ADAPTER_METADATA: &str = "lora_adapter_metadata";
/// File of the factors in the folder of a PEFT adapter.
pub const PEFT_FILE: &str = "adapter_model.safetensors";
/// File of the configuration in the folder of a PEFT adapter.
pub const PEFT_CONFIG: &str = "adapter_config.json";

/// Whose names an adapter file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterForm {
    /// `lora_unet_….lora_down.weight` with `.alpha`: kohya's tools and the web interfaces.
    Kohya,
    /// `unet.….lora_A.weight`; alpha equals the rank unless the metadata says otherwise.
    Diffusers,
    /// `base_model.model.….lora_A.weight` with `adapter_config.json` beside the file.
    Peft,
}

impl AdapterForm {
    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kohya => "kohya",
            Self::Diffusers => "diffusers",
            Self::Peft => "PEFT",
        }
    }

    /// The form that names like these have.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut form = Self::Diffusers;
        for name in names {
            if name.starts_with("lora_") || name.starts_with("lycoris_") {
                return Self::Kohya;
            }
            if name.starts_with("base_model.") {
                form = Self::Peft;
            }
        }
        form
    }
}

/// An adapter file as it was read.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// Its modules in f32, in the shapes of the base's layers.
    pub adapter: Adapter,
    /// Whose names it uses.
    pub form: AdapterForm,
    /// `__metadata__` of the file.
    pub metadata: BTreeMap<String, String>,
    /// sha256 of all bytes after the header, 64 hex digits: the adapter's identity.
    pub tensors_sha256: String,
}

/// All layers of a base that an adapter can reach, below `unet.`, `text_encoder.` and
/// `text_encoder_2.`.
pub fn base_layers(base: &Base) -> Vec<Layer> {
    let mut base = base.clone();
    base.adapted().into_iter().flat_map(|(root, network)| layers(network, root)).collect()
}

/// The names of `layers` in adapter files, by the family of the UNet: SDXL uses sgm's.
///
/// # Errors
///
/// [`ModelError::Checkpoint`] if two layers would share a name.
pub fn key_map(layers: &[Layer], unet: &UNetConfig) -> Result<KeyMap, ModelError> {
    let naming = match unet.text_time {
        Some(_) => Naming::Sgm { layers_per_block: unet.layers_per_block },
        None => Naming::Diffusers,
    };
    Ok(KeyMap::new(naming, layers.iter().map(|layer| layer.path.as_str()))?)
}

#[cfg(test)]
mod tests;
