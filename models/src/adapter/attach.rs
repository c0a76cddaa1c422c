//! An adapter on and off a network.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{Adapter, Dropout, DropoutDraw, Factors, Layer, LowRank};
use crate::error::ModelError;
use crate::layer::{Conv2d, Linear};
use crate::visit::{Network, Slot, Visitor};

/// A visitor that ignores parameters and hands both kinds of layer to a closure.
struct Layers<F>(F);

enum AnyLayer<'a> {
    Linear(&'a mut Linear),
    Conv2d(&'a mut Conv2d),
}

impl<F: FnMut(&str, AnyLayer<'_>)> Visitor for Layers<F> {
    fn parameter(&mut self, _path: &str, _slot: &mut dyn Slot) {}

    fn linear(&mut self, path: &str, layer: &mut Linear) {
        (self.0)(path, AnyLayer::Linear(layer));
    }

    fn conv2d(&mut self, path: &str, layer: &mut Conv2d) {
        (self.0)(path, AnyLayer::Conv2d(layer));
    }
}

/// The layers of `network` that can carry an adapter, in their order, with paths below `root`
/// (`unet` for the denoiser).
pub fn layers(network: &mut dyn Network, root: &str) -> Vec<Layer> {
    let mut found = Vec::new();
    network.visit(
        root,
        &mut Layers(|path: &str, layer: AnyLayer<'_>| {
            let weight = match layer {
                AnyLayer::Linear(layer) => layer.weight.dims().to_vec(),
                AnyLayer::Conv2d(layer) => layer.weight.dims().to_vec(),
            };
            found.push(Layer { path: path.to_owned(), weight });
        }),
    );
    found
}

/// Attaches `adapter` to the layers below `root` that it names, at this dose.
///
/// # Errors
///
/// [`ModelError::Adapter`] for the first module that the network lacks or whose shape differs;
/// nothing is attached then.
pub fn attach(
    network: &mut dyn Network,
    root: &str,
    adapter: &Adapter,
    dose: f64,
) -> Result<(), ModelError> {
    let layers = layers(network, root);
    for (path, factors) in &adapter.modules {
        let layer = layers.iter().find(|layer| layer.path == *path);
        check(path, factors, layer)?;
    }
    network.visit(
        root,
        &mut Layers(|path: &str, layer: AnyLayer<'_>| {
            let Some(factors) = adapter.modules.get(path) else { return };
            match layer {
                AnyLayer::Linear(layer) => {
                    let device = layer.weight.device();
                    layer.adapters.push(low_rank(factors, dose, &device));
                }
                AnyLayer::Conv2d(layer) => {
                    let device = layer.weight.device();
                    layer.adapters.push(low_rank(factors, dose, &device));
                }
            }
        }),
    );
    Ok(())
}

/// Refuses factors of a layer that the network lacks, or whose weight has another shape.
///
/// # Errors
///
/// [`ModelError::Adapter`] with the module.
pub(super) fn check(
    path: &str,
    factors: &Factors,
    layer: Option<&Layer>,
) -> Result<(), ModelError> {
    let error = |reason: String| Err(ModelError::Adapter { module: path.to_owned(), reason });
    let Some(layer) = layer else { return error("the base has no such layer".to_owned()) };
    let (down, up, weight) = (&factors.down.shape, &factors.up.shape, &layer.weight);
    let rank = factors.rank();
    let mut expected_down = weight.clone();
    expected_down[0] = rank;
    let mut expected_up = vec![1; weight.len()];
    (expected_up[0], expected_up[1]) = (weight[0], rank);
    if *down != expected_down || *up != expected_up || rank == 0 {
        return error(format!(
            "factors {down:?} and {up:?} do not fit a weight of shape {weight:?}"
        ));
    }
    Ok(())
}

fn low_rank<const D: usize>(factors: &Factors, dose: f64, device: &Device) -> LowRank<D> {
    let tensor = |host: &checkpoints::HostTensor| {
        Tensor::from_data(
            TensorData::new(host.f32().into_owned(), host.shape.clone()),
            (device, DType::F32),
        )
    };
    LowRank {
        down: tensor(&factors.down),
        up: tensor(&factors.up),
        scale: factors.scale(),
        dose,
        dropout: None,
    }
}

/// Takes all adapters off.
pub fn detach(network: &mut dyn Network) {
    network.visit(
        "",
        &mut Layers(|_: &str, layer: AnyLayer<'_>| match layer {
            AnyLayer::Linear(layer) => layer.adapters.clear(),
            AnyLayer::Conv2d(layer) => layer.adapters.clear(),
        }),
    );
}

/// Sets the dose of every attached adapter.
pub fn set_dose(network: &mut dyn Network, dose: f64) {
    network.visit(
        "",
        &mut Layers(|_: &str, layer: AnyLayer<'_>| match layer {
            AnyLayer::Linear(layer) => {
                for adapter in &mut layer.adapters {
                    adapter.dose = dose;
                }
            }
            AnyLayer::Conv2d(layer) => {
                for adapter in &mut layer.adapters {
                    adapter.dose = dose;
                }
            }
        }),
    );
}

/// Sets dropout of the given probability for the samples of one step, or none for probability 0.
pub fn set_dropout(network: &mut dyn Network, probability: f64, draw: DropoutDraw) {
    let dropout = |path: &str| {
        (probability > 0.0).then(|| Dropout { probability, layer: path.to_owned(), draw })
    };
    network.visit(
        "",
        &mut Layers(|path: &str, layer: AnyLayer<'_>| match layer {
            AnyLayer::Linear(layer) => {
                for adapter in &mut layer.adapters {
                    adapter.dropout = dropout(path);
                }
            }
            AnyLayer::Conv2d(layer) => {
                for adapter in &mut layer.adapters {
                    adapter.dropout = dropout(path);
                }
            }
        }),
    );
}

/// Shows both factors of every attached adapter, as `<layer path>.lora_down` and `.lora_up`, in the
/// network's order.
pub fn visit_factors(
    network: &mut dyn Network,
    root: &str,
    visit: &mut dyn FnMut(&str, &mut dyn Slot),
) {
    network.visit(
        root,
        &mut Layers(|path: &str, layer: AnyLayer<'_>| match layer {
            AnyLayer::Linear(layer) => both(path, &mut layer.adapters, visit),
            AnyLayer::Conv2d(layer) => both(path, &mut layer.adapters, visit),
        }),
    );
}

fn both<const D: usize>(
    path: &str,
    adapters: &mut [LowRank<D>],
    visit: &mut dyn FnMut(&str, &mut dyn Slot),
) {
    for adapter in adapters {
        visit(&format!("{path}.lora_down"), &mut adapter.down);
        visit(&format!("{path}.lora_up"), &mut adapter.up);
    }
}
