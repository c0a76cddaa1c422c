//! From an adapter to the tensors of a file.

use std::collections::BTreeMap;

use checkpoints::adapter_metadata::diffusers_adapter_metadata;
use checkpoints::key_map::{KeyMap, Part};
use checkpoints::{HostTensor, TensorMap};
use recipes::AdapterDtype;
use serde_json::{Map, Value, json};

use super::super::{Adapter, Factors};
use super::AdapterForm;
use crate::error::ModelError;

/// The adapter under kohya's names, one alpha per component.
///
/// diffusers reads one alpha for a whole component, so where modules differ the commonest is stored
/// and each `lora_up` is multiplied by its alpha over the stored one. Alpha stays f32 whatever `dtype` is.
///
/// # Errors
///
/// [`ModelError::Checkpoint`] for a module that is no layer of the base.
pub fn kohya_tensors(
    adapter: &Adapter,
    map: &KeyMap,
    dtype: AdapterDtype,
) -> Result<TensorMap, ModelError> {
    let alphas = stored_alphas(adapter);
    let mut tensors = TensorMap::new();
    for (path, factors) in &adapter.modules {
        let alpha = alpha_of(&alphas, path);
        let share = factors.alpha / alpha;
        tensors.insert(map.kohya_key(path, Part::Down)?, stored(&factors.down, dtype));
        tensors.insert(map.kohya_key(path, Part::Up)?, stored(&scaled(&factors.up, share), dtype));
        tensors.insert(map.kohya_key(path, Part::Alpha)?, HostTensor::scalar(alpha as f32));
    }
    Ok(tensors)
}

/// Root mean square of a stored up factor below which half precision loses digits: its numbers
/// below 6e-5 lie 6e-8 apart.
const LEAST_UP: f64 = 1e-4;

/// The same adapter for a file of this form in half precision: where the up factor that would be
/// stored is too small for its range, a power of two moves from the down factor into it, which
/// rounds nothing.
#[must_use]
pub fn balanced(adapter: &Adapter, form: AdapterForm) -> Adapter {
    let alphas = stored_alphas(adapter);
    let module = |(path, factors): (&String, &Factors)| {
        let share = match form {
            AdapterForm::Kohya => factors.alpha / alpha_of(&alphas, path),
            AdapterForm::Diffusers | AdapterForm::Peft => factors.scale(),
        };
        let (down, up) = (mean_size(&factors.down), mean_size(&factors.up) * share.abs());
        if down == 0.0 || up == 0.0 || up >= LEAST_UP {
            return (path.clone(), factors.clone());
        }
        let power = ((up / down).log2() / 2.0).round().exp2();
        let (down, up) = (scaled(&factors.down, power), scaled(&factors.up, power.recip()));
        (path.clone(), Factors { down, up, alpha: factors.alpha })
    };
    Adapter { modules: adapter.modules.iter().map(module).collect() }
}

/// Root mean square.
fn mean_size(tensor: &HostTensor) -> f64 {
    let squares: f64 = tensor.f32().iter().map(|&value| f64::from(value).powi(2)).sum();
    (squares / tensor.len().max(1) as f64).sqrt()
}

/// The alpha that is stored for each component, as bits.
fn stored_alphas(adapter: &Adapter) -> BTreeMap<&str, u64> {
    commonest(adapter, |factors| (factors.alpha != 0.0).then(|| factors.alpha.to_bits()))
}

fn alpha_of(alphas: &BTreeMap<&str, u64>, path: &str) -> f64 {
    // Where every alpha is 0, any other with B = 0 says the same.
    alphas.get(component(path)).map_or(1.0, |&bits| f64::from_bits(bits))
}

/// The adapter under kohya's names in f32, each module with its own alpha: the same bits again when
/// read, which is what a checkpoint needs.
///
/// # Errors
///
/// As [`kohya_tensors`].
pub fn exact_tensors(adapter: &Adapter, map: &KeyMap) -> Result<TensorMap, ModelError> {
    let mut tensors = TensorMap::new();
    for (path, factors) in &adapter.modules {
        tensors.insert(map.kohya_key(path, Part::Down)?, factors.down.to_f32());
        tensors.insert(map.kohya_key(path, Part::Up)?, factors.up.to_f32());
        tensors.insert(map.kohya_key(path, Part::Alpha)?, HostTensor::scalar(factors.alpha as f32));
    }
    Ok(tensors)
}

/// The adapter under the names of diffusers, and the text that belongs under
/// [`ADAPTER_METADATA`](super::ADAPTER_METADATA).
///
/// B carries α/r, that is alpha = r: right for readers with and without the metadata.
///
/// # Errors
///
/// As [`kohya_tensors`].
pub fn diffusers_tensors(
    adapter: &Adapter,
    map: &KeyMap,
    dtype: AdapterDtype,
) -> Result<(TensorMap, String), ModelError> {
    let mut tensors = TensorMap::new();
    for (path, factors) in &adapter.modules {
        let up = scaled(&factors.up, factors.scale());
        tensors.insert(map.diffusers_key(path, Part::Down)?, stored(&factors.down, dtype));
        tensors.insert(map.diffusers_key(path, Part::Up)?, stored(&up, dtype));
    }
    Ok((tensors, diffusers_adapter_metadata(&ranks(adapter))))
}

/// The adapter as PEFT stores it, `base_model.model.…`, and its `adapter_config.json`. As in the
/// form of diffusers, B carries α/r.
///
/// # Errors
///
/// [`ModelError::Adapter`] for modules of several components, which PEFT keeps in folders of their
/// own; else as [`kohya_tensors`].
pub fn peft_tensors(
    adapter: &Adapter,
    map: &KeyMap,
    dtype: AdapterDtype,
) -> Result<(TensorMap, Value), ModelError> {
    let mut components: Vec<&str> = adapter.modules.keys().map(|path| component(path)).collect();
    components.dedup();
    let &[only] = components.as_slice() else {
        return Err(ModelError::Adapter {
            module: components.join(", "),
            reason: "PEFT keeps the adapter of one network, expected modules of one component"
                .to_owned(),
        });
    };
    let (tensors, config) = diffusers_tensors(adapter, map, dtype)?;
    let renamed = tensors.into_iter().map(|(key, tensor)| {
        let inner = key.split_once('.').map_or(key.as_str(), |(_, inner)| inner);
        (format!("base_model.model.{inner}"), tensor)
    });
    Ok((renamed.collect(), peft_config(only, &config)))
}

/// `adapter_config.json`; what it leaves out is PEFT's default.
fn peft_config(component: &str, of_diffusers: &str) -> Value {
    let fields: Map<String, Value> = serde_json::from_str(of_diffusers).unwrap_or_default();
    let mut config: Map<String, Value> = fields
        .into_iter()
        .filter_map(|(key, value)| {
            Some((key.strip_prefix(component)?.strip_prefix('.')?.to_owned(), value))
        })
        .collect();
    for (key, value) in [
        ("peft_type", json!("LORA")),
        ("task_type", Value::Null),
        ("base_model_name_or_path", Value::Null),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("lora_dropout", json!(0.0)),
        ("use_dora", json!(false)),
        ("use_rslora", json!(false)),
    ] {
        config.insert(key.to_owned(), value);
    }
    Value::Object(config)
}

fn ranks(adapter: &Adapter) -> BTreeMap<String, u32> {
    let rank = |(path, factors): (&String, &Factors)| (path.clone(), factors.rank() as u32);
    adapter.modules.iter().map(rank).collect()
}

fn component(path: &str) -> &str {
    path.split_once('.').map_or(path, |(component, _)| component)
}

/// The commonest value per component; the smallest of several that are equally common.
fn commonest(adapter: &Adapter, value: impl Fn(&Factors) -> Option<u64>) -> BTreeMap<&str, u64> {
    let mut counts: BTreeMap<&str, BTreeMap<u64, usize>> = BTreeMap::new();
    for (path, factors) in &adapter.modules {
        if let Some(value) = value(factors) {
            *counts.entry(component(path)).or_default().entry(value).or_default() += 1;
        }
    }
    let most = |counts: BTreeMap<u64, usize>| {
        counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| value)
    };
    counts.into_iter().filter_map(|(name, counts)| Some((name, most(counts)?))).collect()
}

#[expect(clippy::float_cmp, reason = "only an exact 1 may be left out")]
pub(super) fn scaled(tensor: &HostTensor, factor: f64) -> HostTensor {
    if factor == 1.0 {
        return tensor.to_f32();
    }
    let values = tensor.f32().iter().map(|&value| (f64::from(value) * factor) as f32).collect();
    HostTensor::from_f32(tensor.shape.clone(), values)
}

fn stored(tensor: &HostTensor, dtype: AdapterDtype) -> HostTensor {
    match dtype {
        AdapterDtype::F32 => tensor.to_f32(),
        AdapterDtype::F16 => tensor.to_f16(),
        AdapterDtype::Bf16 => tensor.to_bf16(),
    }
}
