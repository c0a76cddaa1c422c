//! Low-rank adapters: how they start, attach, scale, and are exchanged with other programs.
//!
//! An adapter acts in activation space, `y = W₀x + dose·(α/r)·B(Ax)`, so that the base keeps its
//! bits. On the host it is an [`Adapter`]; attached to a network it is one [`LowRank`] per layer.

mod attach;
mod dropout;
mod exchange;
mod extract;
mod family;
mod initial;
mod linear_algebra;
mod measure;
mod merge;
mod merge_base;
mod merge_in_place;
mod placebo;
mod resize;
mod targets;

pub use attach::{attach, detach, layers, set_dose, set_dropout, visit_factors};
pub use dropout::{Dropout, DropoutDraw};
pub use exchange::{
    ADAPTER_METADATA, AdapterForm, Alphas, Exchanged, PEFT_CONFIG, PEFT_FILE, adapter_from_file,
    balanced, base_layers, diffusers_tensors, exact_tensors, key_map, kohya_tensors, peft_tensors,
};
pub use extract::{ComponentChange, ExtractOptions, Extracted, extract};
pub use family::adapter_family;
pub use initial::initial;
pub use measure::{delta_norm, differences, inner_product, relative_difference};
pub use merge::concatenated;
pub use merge_base::{Merged, StoreAs, merge_into_file, merge_into_folder};
pub use merge_in_place::merge_into_base;
pub use placebo::placebo;
pub use resize::{Keep, ModuleEnergy, resized};
pub use targets::{Layer, Pattern, select};

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use checkpoints::HostTensor;

/// One adapted layer on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// `lora_A`, `[r, in]` or `[r, in, k, k]`.
    pub down: HostTensor,
    /// `lora_B`, `[out, r]` or `[out, r, 1, 1]`.
    pub up: HostTensor,
    /// Numerator of the scale α/r.
    pub alpha: f64,
}

impl Factors {
    /// Rank r.
    pub fn rank(&self) -> usize {
        self.down.shape.first().copied().unwrap_or(0)
    }

    /// α/r.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank().max(1) as f64
    }
}

/// A whole adapter: factors by layer path, e.g. `unet.mid_block.attentions.0.….attn1.to_q`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapter {
    /// Factors by full layer path.
    pub modules: BTreeMap<String, Factors>,
}

impl Adapter {
    /// The same adapter with every up factor 0: it changes nothing.
    #[must_use]
    pub fn zeroed(&self) -> Self {
        let mut zero = self.clone();
        for factors in zero.modules.values_mut() {
            let n_values = factors.up.shape.iter().product();
            factors.up = HostTensor::from_f32(factors.up.shape.clone(), vec![0.0; n_values]);
        }
        zero
    }

    /// Trainable values.
    pub fn n_parameters(&self) -> usize {
        let size = |tensor: &HostTensor| tensor.shape.iter().product::<usize>();
        self.modules.values().map(|factors| size(&factors.down) + size(&factors.up)).sum()
    }
}

/// One adapter at one layer of a network; D is the rank of the layer's weight.
#[derive(Clone, Debug)]
pub struct LowRank<const D: usize> {
    /// A: `[r, in]` or `[r, in, k, k]`, f32.
    pub down: Tensor<D>,
    /// B: `[out, r]` or `[out, r, 1, 1]`, f32.
    pub up: Tensor<D>,
    /// α/r.
    pub scale: f64,
    /// Multiplier; 0 is the base, 1 the adapter as fitted.
    pub dose: f64,
    /// Dropout of the hidden activations while training.
    pub dropout: Option<Dropout>,
}

impl<const D: usize> LowRank<D> {
    /// The down factor, in the type of `x`.
    pub(crate) fn down_for<const E: usize>(&self, x: &Tensor<E>) -> Tensor<D> {
        in_type_of(self.down.clone(), x)
    }

    /// Whether the branch can be left out because the dose is 0.
    pub(crate) fn is_off(&self) -> bool {
        self.dose == 0.0
    }

    /// `dose·(α/r)·B` in the type of `x`: the small factor carries the scale, never the activation.
    pub(crate) fn scaled_up_for<const E: usize>(&self, x: &Tensor<E>) -> Tensor<D> {
        in_type_of(self.up.clone().mul_scalar(self.scale * self.dose), x)
    }
}

/// `factor`, in single precision, in the type in which a network computes.
pub(crate) fn in_type_of<const D: usize, const E: usize>(
    factor: Tensor<D>,
    x: &Tensor<E>,
) -> Tensor<D> {
    if factor.dtype() == x.dtype() { factor } else { factor.cast(x.dtype()) }
}
