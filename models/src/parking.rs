//! Bases whose autoencoder and text encoders lie aside, in the memory of the processor.
//!
//! Once pictures and captions are encoded a training step needs the UNet alone. Of SDXL the other
//! parts hold 3.6 GB in f32, which on a card are better spent on the batch. When to put them aside is
//! the business of whoever holds the base: its memory is free when the last clone of it is dropped.

use burn::tensor::Device;

use crate::adapter::LowRank;
use crate::base::Base;
use crate::layer::{Conv2d, Linear};
use crate::ops;
use crate::visit::{Network, Slot, Visitor};

impl Base {
    /// This base with its autoencoder and text encoders in the memory of the processor; the UNet is
    /// shared and stays where it is. A base on the processor is parked already.
    ///
    /// A parked base is good for what is cached: before it encodes texts or pictures, or decodes
    /// latents, it must be [`unparked`](Base::unparked).
    #[must_use]
    pub fn parked(&self) -> Self {
        self.with_encoders_at(&ops::host())
    }

    /// This base with all of its parts on its device. A base that was not parked shares all of them.
    #[must_use]
    pub fn unparked(&self) -> Self {
        self.with_encoders_at(&self.device)
    }

    fn with_encoders_at(&self, device: &Device) -> Self {
        let mut base = self.clone();
        if base.vae.device() != *device {
            base.move_encoders(device);
        }
        base
    }

    fn move_encoders(&mut self, device: &Device) {
        let mut mover = Mover { device };
        self.vae.visit("", &mut mover);
        self.text_encoder.visit("", &mut mover);
        self.text_encoder_2.visit("", &mut mover);
    }
}

/// Moves parameters, and the adapters that are attached to their layers.
struct Mover<'a> {
    device: &'a Device,
}

impl Mover<'_> {
    fn adapters<const D: usize>(&self, adapters: &mut [LowRank<D>]) {
        for adapter in adapters {
            adapter.down = adapter.down.clone().to_device(self.device);
            adapter.up = adapter.up.clone().to_device(self.device);
        }
    }
}

impl Visitor for Mover<'_> {
    fn parameter(&mut self, _path: &str, slot: &mut dyn Slot) {
        let values = slot.flat().to_device(self.device);
        slot.set(values);
    }

    fn linear(&mut self, _path: &str, layer: &mut Linear) {
        self.adapters(&mut layer.adapters);
    }

    fn conv2d(&mut self, _path: &str, layer: &mut Conv2d) {
        self.adapters(&mut layer.adapters);
    }
}

#[cfg(test)]
mod tests {
    use checkpoints::{Family, HostTensor};

    use super::*;
    use crate::adapter::{self, Adapter, Factors, Layer};
    use crate::base::{host_values, tensor_from_host};
    use crate::tiny;

    /// The tiny base of SDXL, each layer of its first text encoder with an adapter of rank 1.
    fn base() -> Base {
        let dir = tempfile::tempdir().unwrap();
        let mut base = tiny::family_base(dir.path(), Family::Sdxl, 3, &Device::flex()).unwrap();
        let factors = |layer: Layer| {
            let [n_out, n_in] = [layer.weight[0], layer.weight[1]];
            let down = HostTensor::from_f32([1, n_in], vec![0.25; n_in]);
            let up = HostTensor::from_f32([n_out, 1], vec![0.5; n_out]);
            (layer.path, Factors { down, up, alpha: 1.0 })
        };
        let layers = adapter::layers(&mut base.text_encoder, "text_encoder");
        let modules = layers.into_iter().map(factors).collect();
        let adapter = Adapter { modules };
        adapter::attach(&mut base.text_encoder, "text_encoder", &adapter, 1.0).unwrap();
        base
    }

    /// What text encoders and autoencoder compute.
    fn outputs(base: &Base) -> [Vec<f32>; 4] {
        let text = base.text_states(&["a boat", ""]).unwrap();
        let side = tiny::SIDE_PX;
        let pixels = tensor_from_host(vec![0.5; 3 * side * side], [1, 3, side, side], &base.device);
        let mean = base.vae.posterior_from_pixels(pixels).unwrap().mean;
        let decoded = base.vae.pixels_from_latents(mean.clone());
        let pooled = host_values(text.pooled.unwrap());
        [host_values(text.states), pooled, host_values(mean), host_values(decoded)]
            .map(Result::unwrap)
    }

    #[test]
    fn encoders_and_their_adapters_compute_the_same_after_a_move() {
        let base = base();
        let mut plain = base.clone();
        adapter::detach(&mut plain.text_encoder);
        let expected = outputs(&base);
        assert_ne!(outputs(&plain)[0], expected[0], "the adapters do something");
        let mut moved = base.clone();
        moved.move_encoders(&Device::flex());
        assert_eq!(outputs(&moved), expected);
        assert_eq!(outputs(&base.parked().unparked()), expected);
    }

    /// Path, shape and type of every parameter.
    #[derive(Default)]
    struct Met(Vec<String>);

    impl Visitor for Met {
        fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
            self.0.push(format!("{path} {:?} {:?}", slot.shape(), slot.flat().dtype()));
        }
    }

    #[test]
    fn a_move_keeps_shapes_and_types_of_all_parameters() {
        let met = |base: &Base| {
            let (mut met, mut base) = (Met::default(), base.clone());
            base.vae.visit("vae", &mut met);
            base.text_encoder.visit("text_encoder", &mut met);
            base.text_encoder_2.visit("text_encoder_2", &mut met);
            met.0
        };
        let base = base();
        let mut moved = base.clone();
        moved.move_encoders(&Device::flex());
        assert_eq!(met(&moved), met(&base));
    }
}
