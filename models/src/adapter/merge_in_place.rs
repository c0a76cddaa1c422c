//! A base in memory with an adapter merged into its weights.
//!
//! W becomes W + dose·(α/r)·B·A in f32, on the host, and is then rounded once to the type in which the
//! network holds it: the base that a later settlement is trained on.

use burn::tensor::{DType, Tensor};

use super::attach::check;
use super::merge::add_change;
use super::{Adapter, Factors, base_layers};
use crate::base::{Base, host_values, tensor_from_host};
use crate::error::ModelError;
use crate::visit::{Slot, Visitor};

/// Merges `adapter` into the UNet and the text encoders of `base` at this dose; none is attached.
///
/// Clones of the base keep their weights. A module that adds nothing, be it for its dose, its scale or
/// its B, leaves every bit of its layer.
///
/// # Errors
///
/// [`ModelError::Adapter`] for the first module that the base lacks or whose shape differs: the base
/// is as it was then; for a weight that becomes infinite; [`ModelError::Device`].
pub fn merge_into_base(base: &mut Base, adapter: &Adapter, dose: f64) -> Result<(), ModelError> {
    let layers = base_layers(base);
    for (path, factors) in &adapter.modules {
        check(path, factors, layers.iter().find(|layer| layer.path == *path))?;
    }
    let mut merge = Merge { adapter, dose, failure: None };
    for (component, network) in base.adapted() {
        network.visit(component, &mut merge);
    }
    merge.failure.map_or(Ok(()), Err)
}

/// Changes the weight of each layer that the adapter names, up to the first failure.
struct Merge<'a> {
    adapter: &'a Adapter,
    dose: f64,
    failure: Option<ModelError>,
}

impl Visitor for Merge<'_> {
    fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
        let Some(layer) = path.strip_suffix(".weight") else { return };
        let Some(factors) = self.adapter.modules.get(layer) else { return };
        if self.failure.is_some() || adds_nothing(factors, self.dose) {
            return;
        }
        match merged(layer, slot.flat(), factors, self.dose) {
            Ok(values) => slot.set(values),
            Err(error) => self.failure = Some(error),
        }
    }
}

/// Whether adding would at most turn zeros of one sign into those of the other.
fn adds_nothing(factors: &Factors, dose: f64) -> bool {
    factors.scale() * dose == 0.0 || factors.up.f32().iter().all(|&value| value == 0.0)
}

/// The weight of a layer, `[n_values]`, with its change, on its device and in its type.
fn merged(
    layer: &str,
    weight: Tensor<1>,
    factors: &Factors,
    dose: f64,
) -> Result<Tensor<1>, ModelError> {
    let (device, dtype) = (weight.device(), weight.dtype());
    let mut values = host_values(weight)?;
    add_change(&mut values, factors, dose);
    if !values.iter().all(|value| value.is_finite()) {
        let reason = "the weight becomes infinite".to_owned();
        return Err(ModelError::Adapter { module: layer.to_owned(), reason });
    }
    let n_values = values.len();
    let changed: Tensor<1> = tensor_from_host(values, [n_values], &device);
    Ok(if dtype == DType::F32 { changed } else { changed.cast(dtype) })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use checkpoints::{Family, HostTensor, ModelFiles, ModelOptions};
    use recipes::draws;

    use super::*;
    use crate::adapter::{Layer, attach};
    use crate::base::{Precision, load_with};
    use crate::conditioning::SizeConditions;
    use crate::tiny;

    /// The tiny base of a family.
    fn base(family: Family, precision: Precision) -> Base {
        let dir = tempfile::tempdir().unwrap();
        tiny::write_family(dir.path(), family, 5, &Device::flex()).unwrap();
        let files = ModelFiles::open(dir.path(), &ModelOptions::default()).unwrap();
        load_with(&files, &Device::flex(), precision).unwrap()
    }

    /// An adapter for every layer of a base, with every value drawn; spatial convolutions among them.
    fn adapter(base: &Base) -> Adapter {
        let module = |layer: Layer| {
            let mut stream = draws::keyed(3, &layer.path);
            let mut tensor = |shape: Vec<usize>| {
                let values = draws::normals(&mut stream, shape.iter().product());
                let values = values.into_iter().map(|value| 0.1 * value).collect();
                HostTensor::from_f32(shape, values)
            };
            let (mut down, mut up) = (layer.weight.clone(), vec![1; layer.weight.len()]);
            down[0] = 2;
            (up[0], up[1]) = (layer.weight[0], 2);
            (layer.path, Factors { down: tensor(down), up: tensor(up), alpha: 3.0 })
        };
        Adapter { modules: base_layers(base).into_iter().map(module).collect() }
    }

    fn attached(base: &Base, adapter: &Adapter, dose: f64) -> Base {
        let mut base = base.clone();
        for (root, network) in base.adapted() {
            let own =
                adapter.modules.iter().filter(|(path, _)| path.split('.').next() == Some(root));
            let own = own.map(|(path, factors)| (path.clone(), factors.clone()));
            attach(network, root, &Adapter { modules: own.collect() }, dose).unwrap();
        }
        base
    }

    fn output(base: &Base) -> Vec<f32> {
        let side = tiny::SIDE_PX;
        let [channels, height, width] = base.latent_shape([side; 2]).unwrap();
        let mut stream = draws::keyed(1, "noise");
        let noise = draws::normals(&mut stream, channels * height * width);
        let noisy = tensor_from_host(noise, [1, channels, height, width], &base.device);
        let text = base.text_states(&["a tower"]).unwrap();
        let given = base.conditioning(text, &[SizeConditions::whole([side; 2])]);
        host_values(base.denoise(noisy, base.timesteps(321.0, 1), &given).unwrap()).unwrap()
    }

    /// Euclidean distance, as a share of the length of `wanted`.
    fn distance(found: &[f32], wanted: &[f32]) -> f64 {
        let square = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|value| f64::from(value).powi(2)).sum()
        };
        let difference = square(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
        (difference / square(&mut wanted.iter().copied())).sqrt()
    }

    /// Path, type and bits of every parameter of the networks that adapters reach.
    #[derive(Default)]
    struct Held(Vec<(String, DType, Vec<u32>)>);

    impl Visitor for Held {
        fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
            let values = slot.flat();
            let dtype = values.dtype();
            let bits = host_values(values).unwrap().into_iter().map(f32::to_bits).collect();
            self.0.push((path.to_owned(), dtype, bits));
        }
    }

    fn held(base: &Base) -> Vec<(String, DType, Vec<u32>)> {
        let (mut base, mut held) = (base.clone(), Held::default());
        for (component, network) in base.adapted() {
            network.visit(component, &mut held);
        }
        held.0
    }

    #[test]
    fn a_merged_base_puts_out_what_the_adapted_one_does() {
        for (family, dose) in [(Family::Postcards, 1.0), (Family::Sd1, -0.7), (Family::Sdxl, 1.0)] {
            let base = base(family, Precision::F32);
            let adapter = adapter(&base);
            let expected = output(&attached(&base, &adapter, dose));
            let mut merged = base.clone();
            merge_into_base(&mut merged, &adapter, dose).unwrap();
            let difference = distance(&output(&merged), &expected);
            assert!(difference < 1e-5, "{family:?}: {difference:e}");
            let moved = distance(&output(&base), &expected);
            assert!(moved > 1e-2, "{family:?}: the adapter moves only {moved:e}");
        }
    }

    #[test]
    fn a_bf16_network_gets_the_rounded_sum_and_the_encoders_that_of_f32() {
        let base = base(Family::Sd1, Precision::Bf16);
        let adapter = adapter(&base);
        let mut merged = base.clone();
        merge_into_base(&mut merged, &adapter, 1.0).unwrap();
        for ((path, dtype, before), (_, same, after)) in held(&base).iter().zip(held(&merged)) {
            assert_eq!(*dtype, same, "{path}");
            let factors = path.strip_suffix(".weight").and_then(|path| adapter.modules.get(path));
            let mut sum: Vec<f32> = before.iter().map(|&bits| f32::from_bits(bits)).collect();
            if let Some(factors) = factors {
                add_change(&mut sum, factors, 1.0);
            }
            let mut expected = HostTensor::from_f32([sum.len()], sum);
            if *dtype == DType::BF16 {
                expected = expected.to_bf16();
            }
            let expected: Vec<u32> = expected.f32().iter().map(|value| value.to_bits()).collect();
            assert!(after == expected, "{path}");
            assert_eq!(factors.is_some(), after != *before, "{path}");
        }
    }

    #[test]
    fn what_adds_nothing_leaves_every_bit() {
        let mut base = base(Family::Postcards, Precision::F32);
        let (before, adapter) = (held(&base), adapter(&base));
        let mut silent = adapter.clone();
        silent.modules.values_mut().for_each(|factors| factors.alpha = 0.0);
        for (adapter, dose) in [(&adapter.zeroed(), 1.0), (&adapter, 0.0), (&silent, 1.0)] {
            merge_into_base(&mut base, adapter, dose).unwrap();
            assert!(held(&base) == before);
        }
        let kept = base.clone();
        merge_into_base(&mut base, &adapter, 1.0).unwrap();
        assert!(held(&base) != before);
        assert!(held(&kept) == before, "a clone keeps its weights");
    }

    #[test]
    fn an_adapter_of_another_base_is_refused_and_leaves_the_base_as_it_was() {
        let mut base = base(Family::Postcards, Precision::F32);
        let (before, all) = (held(&base), adapter(&base));
        let factors = all.modules["unet.time_embedding.linear_1"].clone();
        for (path, reason) in [
            ("vae.decoder.conv_in", "no such layer"),
            ("unet.mid_block.attentions.7.proj_in", "no such layer"),
            ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "no such layer"),
            ("unet.conv_in", "do not fit"),
        ] {
            let mut wrong = all.clone();
            wrong.modules.insert(path.to_owned(), factors.clone());
            let error = merge_into_base(&mut base, &wrong, 1.0).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains(reason), "{error}");
            assert!(held(&base) == before);
        }
    }

    #[test]
    fn a_weight_that_becomes_infinite_is_named() {
        let mut base = base(Family::Postcards, Precision::F32);
        let mut adapter = adapter(&base);
        let path = "unet.mid_block.resnets.0.conv1";
        adapter.modules.retain(|other, _| other == path);
        adapter.modules.get_mut(path).unwrap().alpha = 1e42;
        let error = merge_into_base(&mut base, &adapter, 1.0).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains("infinite"), "{error}");
    }
}
