//! Invariant 13: a zero adapter (B = 0, or dose 0) changes no bit.

use models::adapter::{self, Adapter};
use models::base::{host_values, tensor_from_host};
use models::{Base, Device, SizeConditions};
use recipes::{LoraInit, LoraSpec};

use crate::frozen::base_files;
use crate::world::World;

fn spec() -> LoraSpec {
    LoraSpec {
        rank: 3,
        alpha: 3.0,
        targets: vec!["unet.**.attn*.**".to_owned(), "unet.**.ff.**".to_owned()],
        conv_rank: None,
        conv_alpha: None,
        dropout: 0.0,
        init: LoraInit::KaimingUniform,
    }
}

fn output(base: &Base) -> Vec<u32> {
    let shape = base.latent_shape([base.nominal_side_px(); 2]).unwrap();
    let n_values = shape.iter().product::<usize>();
    let mut stream = recipes::draws::keyed(1, "zero");
    let noise = recipes::draws::normals(&mut stream, n_values);
    let noisy = tensor_from_host(noise, [1, shape[0], shape[1], shape[2]], &base.device);
    let sizes = [SizeConditions::whole([base.nominal_side_px(); 2])];
    let given = base.conditioning(base.text_states(&["a tower"]).unwrap(), &sizes);
    let output = base.denoise(noisy, base.timesteps(321.0, 1), &given).unwrap();
    host_values(output).unwrap().into_iter().map(f32::to_bits).collect()
}

fn with(base: &Base, adapter: &Adapter, dose: f64) -> Vec<u32> {
    let mut base = base.clone();
    adapter::attach(&mut base.unet, "unet", adapter, dose).unwrap();
    output(&base)
}

/// The same adapter with every B set to a constant: it changes what it is attached to.
fn changing(adapter: &Adapter) -> Adapter {
    let mut adapter = adapter.clone();
    for factors in adapter.modules.values_mut() {
        let n_values = factors.up.len();
        factors.up =
            checkpoints::HostTensor::from_f32(factors.up.shape.clone(), vec![0.1; n_values]);
    }
    adapter
}

#[test]
fn a_zero_adapter_and_dose_zero_change_no_bit() {
    let world = World::new();
    let base = models::load(&base_files(&world), &Device::flex()).unwrap();
    let fresh = adapter::initial(&adapter::base_layers(&base), &spec(), 7).unwrap();
    assert!(!fresh.modules.is_empty());
    let plain = output(&base);
    // An adapter as it starts, B = 0.
    assert_eq!(with(&base, &fresh, 1.0), plain);
    let changing = changing(&fresh);
    assert_eq!(with(&base, &changing, 0.0), plain);
    assert_eq!(with(&base, &changing.zeroed(), 1.0), plain);
    // The comparison could fail: at dose 1 the same adapter moves the output.
    assert_ne!(with(&base, &changing, 1.0), plain);
}
