//! Energy counters of this machine: NVIDIA's library and the processor's RAPL.
//!
//! What cannot be read gives null with the reason, never 0 and never an estimate.

use std::path::Path;

use checkpoints::energy::{Domain, EnergySource, Rapl, Unavailable};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::environment;

/// What opening the counters of a domain gave.
pub(crate) type Opened = (Domain, Result<Vec<Box<dyn EnergySource>>, Unavailable>);

/// Opens the counters of the processor and, if `cuda_index` names a card, of that card.
pub(crate) fn open(cuda_index: Option<usize>) -> Vec<Opened> {
    let gpu = match cuda_index {
        None => Err(Unavailable { reason: "no GPU was used".to_owned() }),
        Some(index) => gpu(index).map(|source| vec![source]),
    };
    vec![(Domain::Gpu, gpu), (Domain::Cpu, cpu())]
}

/// The processor's packages.
pub(crate) fn cpu() -> Result<Vec<Box<dyn EnergySource>>, Unavailable> {
    let packages = Rapl::packages(Path::new("/sys/class/powercap"))?;
    Ok(packages.into_iter().map(|package| Box::new(package) as Box<dyn EnergySource>).collect())
}

/// The card that CUDA calls `index`.
pub(crate) fn gpu(index: usize) -> Result<Box<dyn EnergySource>, Unavailable> {
    let nvml = Nvml::init().map_err(|error| unavailable(&error))?;
    let card = card(environment::visible_cuda_devices().as_deref(), index);
    let mut source = NvmlEnergy { nvml, card };
    source.read_uj()?;
    Ok(Box::new(source))
}

/// Version of the NVIDIA driver and names of its cards.
pub(crate) fn driver() -> Result<(String, Vec<String>), Unavailable> {
    let nvml = Nvml::init().map_err(|error| unavailable(&error))?;
    let version = nvml.sys_driver_version().map_err(|error| unavailable(&error))?;
    let n_cards = nvml.device_count().map_err(|error| unavailable(&error))?;
    let name = |index| nvml.device_by_index(index).and_then(|device| device.name()).ok();
    Ok((version, (0..n_cards).filter_map(name).collect()))
}

/// How NVIDIA's library knows a card: it does not follow `CUDA_VISIBLE_DEVICES`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Card {
    Number(u32),
    Uuid(String),
}

fn card(visible: Option<&[String]>, index: usize) -> Card {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    match visible.and_then(|visible| visible.get(index)) {
        None => Card::Number(number),
        Some(name) => match name.parse() {
            Ok(number) => Card::Number(number),
            Err(_) => Card::Uuid(name.clone()),
        },
    }
}

/// Millijoules since the driver was loaded, of the whole board.
#[derive(Debug)]
struct NvmlEnergy {
    nvml: Nvml,
    card: Card,
}

impl EnergySource for NvmlEnergy {
    fn read_uj(&mut self) -> Result<u64, Unavailable> {
        let device = match &self.card {
            Card::Number(number) => self.nvml.device_by_index(*number),
            Card::Uuid(uuid) => self.nvml.device_by_uuid(uuid.as_str()),
        };
        let millijoules = device.and_then(|device| device.total_energy_consumption());
        Ok(millijoules.map_err(|error| unavailable(&error))?.saturating_mul(1000))
    }

    fn wrap_uj(&self) -> Option<u64> {
        None
    }

    fn label(&self) -> &'static str {
        "nvml.total_energy"
    }
}

fn unavailable(error: &NvmlError) -> Unavailable {
    Unavailable { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_behind_the_list_of_visible_ones() {
        let visible = ["2".to_owned(), "GPU-8a5f".to_owned()];
        assert_eq!(card(Some(&visible), 0), Card::Number(2));
        assert_eq!(card(Some(&visible), 1), Card::Uuid("GPU-8a5f".to_owned()));
        assert_eq!(card(None, 1), Card::Number(1));
    }

    #[test]
    fn without_a_card_the_gpu_is_null_with_a_reason() {
        let opened = open(None);
        assert!(matches!(&opened[0], (Domain::Gpu, Err(reason)) if !reason.reason.is_empty()));
    }
}
