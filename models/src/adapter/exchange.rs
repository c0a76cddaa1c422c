//! Adapters in files: the forms of kohya's tools, of diffusers and of PEFT.
//!
//! Owns what the tensors of such a file mean and the rules by which one is written. How a layer is
//! called there is the table of `checkpoints::key_map`; bytes and headers are `checkpoints`' own.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::adapter_metadata::diffusers_adapter_metadata;
use checkpoints::key_map::{KeyMap, Naming, Part};
use checkpoints::{HeaderLimit, HostTensor, TensorFile, TensorMap};
use recipes::AdapterDtype;
use serde_json::Value;

use super::{Adapter, Factors, Layer, layers};
use crate::base::Base;
use crate::error::ModelError;
use crate::unet::UNetConfig;

/// Key of a file's metadata under which diffusers keeps the configuration of its adapters.
pub const ADAPTER_METADATA: &str = "lora_adapter_metadata";

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

/// All layers of a base that an adapter can reach, below `unet.` and `text_encoder.`.
pub fn base_layers(base: &Base) -> Vec<Layer> {
    let mut base = base.clone();
    [layers(&mut base.unet, "unet"), layers(&mut base.text_encoder, "text_encoder")].concat()
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

/// Reads an adapter for a base with these layers, in any of the three forms.
///
/// A module without alpha has scale 1. Factors of a 1×1 convolution may be stored with two axes.
///
/// # Errors
///
/// [`ModelError::Adapter`] under the file's name with *all* keys that are unknown, belong to another
/// kind of adapter, lack their other factor, do not fit their layer or are not finite;
/// [`ModelError::Checkpoint`] if the file cannot be read.
pub fn adapter_from_file(
    path: &Path,
    layers: &[Layer],
    map: &KeyMap,
) -> Result<Exchanged, ModelError> {
    let file = TensorFile::open_within(path, HeaderLimit::Adapter)?;
    let form = form(&file);
    let mut problems = Vec::new();
    let modules = modules(&file, map, &mut problems);
    let alphas = Alphas::read(&file, form)?;
    let shapes: BTreeMap<&str, &[usize]> =
        layers.iter().map(|layer| (layer.path.as_str(), layer.weight.as_slice())).collect();
    let mut adapter = Adapter::default();
    for (path, keys) in modules {
        match factors(&file, &keys, shapes.get(path.as_str()).copied().unwrap_or(&[]))? {
            Ok(mut factors) => {
                if keys.alpha.is_none() {
                    factors.alpha = alphas.of(&path, factors.rank());
                }
                adapter.modules.insert(path, factors);
            }
            Err(reason) => problems.push(format!("`{path}` {reason}")),
        }
    }
    if adapter.modules.is_empty() && problems.is_empty() {
        problems.push("holds no module".to_owned());
    }
    if !problems.is_empty() {
        return Err(refused(path, &problems));
    }
    let metadata = file.metadata().clone();
    Ok(Exchanged { adapter, form, metadata, tensors_sha256: file.tensors_sha256() })
}

fn refused(path: &Path, problems: &[String]) -> ModelError {
    let reason = match problems {
        [only] => only.clone(),
        several => format!("{} problems:\n  {}", several.len(), several.join("\n  ")),
    };
    ModelError::Adapter { module: path.display().to_string(), reason }
}

fn form(file: &TensorFile) -> AdapterForm {
    if file.names().any(|name| name.starts_with("lora_")) {
        AdapterForm::Kohya
    } else if file.names().any(|name| name.starts_with("base_model.")) {
        AdapterForm::Peft
    } else {
        AdapterForm::Diffusers
    }
}

/// Keys of one module in the file.
#[derive(Default)]
struct ModuleKeys {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

fn modules(
    file: &TensorFile,
    map: &KeyMap,
    problems: &mut Vec<String>,
) -> BTreeMap<String, ModuleKeys> {
    let mut modules: BTreeMap<String, ModuleKeys> = BTreeMap::new();
    for key in file.names() {
        // `UNet2DConditionModel.save_lora_adapter` leaves the component out.
        let parsed =
            map.parse(key).or_else(|error| map.parse(&format!("unet.{key}")).map_err(|_| error));
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let module = modules.entry(parsed.path).or_default();
        let slot = match parsed.part {
            Part::Down => &mut module.down,
            Part::Up => &mut module.up,
            Part::Alpha => &mut module.alpha,
            Part::Mid => {
                problems.push(format!(
                    "key `{key}` belongs to a Tucker decomposition, expected a LoRA"
                ));
                continue;
            }
            Part::DoraScale => {
                problems.push(format!("key `{key}` belongs to a DoRA, expected a LoRA"));
                continue;
            }
        };
        if let Some(first) = slot.replace(key.to_owned()) {
            problems.push(format!("keys `{first}` and `{key}` name the same tensor"));
        }
    }
    modules
}

/// The factors of one module, or why there are none; alpha is the rank where the file has none.
fn factors(
    file: &TensorFile,
    keys: &ModuleKeys,
    weight: &[usize],
) -> Result<Result<Factors, String>, ModelError> {
    let (Some(down), Some(up)) = (&keys.down, &keys.up) else {
        let found = if keys.down.is_some() { "only the down one" } else { "no down one" };
        return Ok(Err(format!("needs both factors, found {found}")));
    };
    let (down, up) = (file.read(down)?, file.read(up)?);
    let rank = down.shape.first().copied().unwrap_or(0);
    let mut expected_down = weight.to_vec();
    let mut expected_up = vec![1; weight.len()];
    if rank == 0 || weight.len() < 2 {
        return Ok(Err(format!("has a down factor of shape {:?}", down.shape)));
    }
    expected_down[0] = rank;
    (expected_up[0], expected_up[1]) = (weight[0], rank);
    let shapes = format!("{:?} and {:?}", down.shape, up.shape);
    let (Some(down), Some(up)) = (fitted(&down, &expected_down), fitted(&up, &expected_up)) else {
        return Ok(Err(format!(
            "has factors of shape {shapes}, expected {expected_down:?} and {expected_up:?}"
        )));
    };
    let alpha = match &keys.alpha {
        Some(key) => file.read(key)?.f32().to_vec(),
        None => vec![rank as f32],
    };
    let [alpha] = alpha[..] else {
        return Ok(Err(format!("has {} values of alpha, expected 1", alpha.len())));
    };
    if !(down.all_finite() && up.all_finite() && alpha.is_finite()) {
        return Ok(Err("holds values that are infinite or undefined".to_owned()));
    }
    Ok(Ok(Factors { down, up, alpha: f64::from(alpha) }))
}

/// The tensor in f32 and in this shape, if they differ only in trailing axes of length 1.
fn fitted(tensor: &HostTensor, shape: &[usize]) -> Option<HostTensor> {
    let (short, long) = if tensor.shape.len() < shape.len() {
        (&tensor.shape[..], shape)
    } else {
        (shape, &tensor.shape[..])
    };
    let equal = long.starts_with(short) && long[short.len()..].iter().all(|&length| length == 1);
    equal.then(|| HostTensor { shape: shape.to_vec(), ..tensor.to_f32() })
}

/// Alphas that a configuration beside the tensors states.
#[derive(Default)]
struct Alphas {
    config: Value,
}

impl Alphas {
    fn read(file: &TensorFile, form: AdapterForm) -> Result<Self, ModelError> {
        let beside = file.path().with_file_name("adapter_config.json");
        let config = match form {
            AdapterForm::Kohya => Value::Null,
            AdapterForm::Peft if beside.is_file() => checkpoints::fs::read_json(&beside)?,
            AdapterForm::Peft | AdapterForm::Diffusers => match file
                .metadata()
                .get(ADAPTER_METADATA)
            {
                None => Value::Null,
                Some(text) => serde_json::from_str(text).map_err(|error| {
                    refused(file.path(), &[format!("`{ADAPTER_METADATA}` is not JSON: {error}")])
                })?,
            },
        };
        Ok(Self { config })
    }

    /// Alpha of the module at `path`; the rank, that is scale 1, where nothing is stated.
    ///
    /// Source: `peft.utils.other.get_pattern_key` and `peft.tuners.lora.LoraLayer.update_layer`.
    fn of(&self, path: &str, rank: usize) -> f64 {
        let rank = rank as f64;
        let (component, inner) = path.split_once('.').unwrap_or(("", path));
        let field = |name: &str| {
            let named = self.config.get(format!("{component}.{name}"));
            named.or_else(|| self.config.get(name))
        };
        let patterns = field("alpha_pattern").and_then(Value::as_object);
        let by_pattern = patterns
            .and_then(|patterns| patterns.iter().find(|(pattern, _)| pattern_means(pattern, inner)))
            .and_then(|(_, alpha)| alpha.as_f64());
        let Some(alpha) = by_pattern.or_else(|| field("lora_alpha").and_then(Value::as_f64)) else {
            return rank;
        };
        let stabilized = field("use_rslora").and_then(Value::as_bool) == Some(true);
        // Scale alpha/√r instead of alpha/r.
        if stabilized { alpha * rank.sqrt() } else { alpha }
    }
}

/// Whether a key of PEFT's `alpha_pattern` means this path: its end, or all of it after `^`.
fn pattern_means(pattern: &str, path: &str) -> bool {
    let plain = pattern.replace("\\.", ".");
    let plain = plain.strip_suffix('$').unwrap_or(&plain);
    match plain.strip_prefix('^') {
        Some(whole) => path == whole,
        None => path.strip_suffix(plain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

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
    let alphas =
        commonest(adapter, |factors| (factors.alpha != 0.0).then(|| factors.alpha.to_bits()));
    let mut tensors = TensorMap::new();
    for (path, factors) in &adapter.modules {
        // Where every alpha is 0, any other with B = 0 says the same.
        let alpha = alphas.get(component(path)).map_or(1.0, |&bits| f64::from_bits(bits));
        let share = factors.alpha / alpha;
        tensors.insert(map.kohya_key(path, Part::Down)?, stored(&factors.down, dtype));
        tensors.insert(map.kohya_key(path, Part::Up)?, stored(&scaled(&factors.up, share), dtype));
        tensors.insert(map.kohya_key(path, Part::Alpha)?, HostTensor::scalar(alpha as f32));
    }
    Ok(tensors)
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
/// [`ADAPTER_METADATA`].
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
    let rank = |(path, factors): (&String, &Factors)| (path.clone(), factors.rank() as u32);
    let ranks = adapter.modules.iter().map(rank).collect();
    let mut tensors = TensorMap::new();
    for (path, factors) in &adapter.modules {
        let up = scaled(&factors.up, factors.scale());
        tensors.insert(map.diffusers_key(path, Part::Down)?, stored(&factors.down, dtype));
        tensors.insert(map.diffusers_key(path, Part::Up)?, stored(&up, dtype));
    }
    Ok((tensors, diffusers_adapter_metadata(&ranks)))
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
fn scaled(tensor: &HostTensor, factor: f64) -> HostTensor {
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

#[cfg(test)]
mod tests {
    use recipes::draws;

    use super::*;

    const QUERY: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    const PROJECTION: &str = "unet.mid_block.attentions.0.proj_in";
    const CONVOLUTION: &str = "unet.mid_block.resnets.0.conv1";
    const TEXT: &str = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj";

    fn base() -> (Vec<Layer>, KeyMap) {
        let layer =
            |path: &str, weight: &[usize]| Layer { path: path.to_owned(), weight: weight.to_vec() };
        let layers = vec![
            layer(QUERY, &[6, 5]),
            layer(PROJECTION, &[6, 4, 1, 1]),
            layer(CONVOLUTION, &[7, 4, 3, 3]),
            layer(TEXT, &[5, 5]),
        ];
        let map =
            KeyMap::new(Naming::Diffusers, layers.iter().map(|layer| layer.path.as_str())).unwrap();
        (layers, map)
    }

    fn is_alpha(key: &str) -> bool {
        key.strip_suffix(".alpha").is_some()
    }

    /// Ranks and alphas differ between modules.
    fn adapter() -> Adapter {
        let mut adapter = Adapter::default();
        let plan = [(QUERY, 2, 3.0), (PROJECTION, 2, 3.0), (CONVOLUTION, 3, 1.5), (TEXT, 2, 8.0)];
        for (path, rank, alpha) in plan {
            let weight = base().0.into_iter().find(|layer| layer.path == path).unwrap().weight;
            let mut stream = draws::keyed(1, path);
            let mut tensor = |shape: Vec<usize>| {
                let values = draws::normals(&mut stream, shape.iter().product());
                HostTensor::from_f32(shape, values)
            };
            let (mut down, mut up) = (weight.clone(), vec![1; weight.len()]);
            down[0] = rank;
            (up[0], up[1]) = (weight[0], rank);
            let factors = Factors { down: tensor(down), up: tensor(up), alpha };
            adapter.modules.insert(path.to_owned(), factors);
        }
        adapter
    }

    /// What an adapter adds: the down factor and (alpha/r)·up.
    fn check_same_effect(found: &Adapter, expected: &Adapter, tolerance: f64) {
        assert_eq!(found.modules.len(), expected.modules.len());
        for (path, expected) in &expected.modules {
            let found = &found.modules[path];
            for (found, expected) in [
                (scaled(&found.up, found.scale()), scaled(&expected.up, expected.scale())),
                (found.down.clone(), expected.down.clone()),
            ] {
                assert_eq!(found.shape, expected.shape, "{path}");
                for (found, expected) in found.f32().iter().zip(expected.f32().iter()) {
                    assert!(
                        f64::from((found - expected).abs())
                            <= tolerance * f64::from(expected.abs()) + tolerance
                    );
                }
            }
        }
    }

    fn read(tensors: &TensorMap, metadata: &[(&str, &str)]) -> Result<Exchanged, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter.safetensors");
        let text = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        checkpoints::write_tensors(&path, tensors, &metadata.iter().map(text).collect()).unwrap();
        let (layers, map) = base();
        adapter_from_file(&path, &layers, &map)
    }

    #[test]
    fn kohya_form_keeps_the_effect_and_has_one_alpha_per_component() {
        let (adapter, map) = (adapter(), base().1);
        let tensors = kohya_tensors(&adapter, &map, AdapterDtype::F32).unwrap();
        let alphas: Vec<_> = tensors.iter().filter(|(key, _)| is_alpha(key)).collect();
        assert_eq!(alphas.len(), 4);
        for (key, alpha) in alphas {
            assert!(alpha.shape.is_empty());
            let expected = if key.starts_with("lora_te_") { 8.0 } else { 3.0 };
            assert!((alpha.f32()[0] - expected).abs() < 1e-9, "{key}");
        }
        let read = read(&tensors, &[]).unwrap();
        assert_eq!(read.form, AdapterForm::Kohya);
        assert_eq!(read.tensors_sha256, checkpoints::tensors_sha256(&tensors));
        check_same_effect(&read.adapter, &adapter, 1e-6);
    }

    #[test]
    fn half_precision_rounds_factors_and_not_alpha() {
        let mut adapter = adapter();
        adapter.modules.values_mut().for_each(|factors| factors.alpha = 0.3);
        let tensors = kohya_tensors(&adapter, &base().1, AdapterDtype::F16).unwrap();
        let read = read(&tensors, &[]).unwrap().adapter;
        assert!(read.modules.values().all(|factors| (factors.alpha - 0.3).abs() < 1e-7));
        check_same_effect(&read, &adapter, 1e-3);
    }

    #[test]
    fn an_exact_form_gives_the_same_bits() {
        let adapter = adapter();
        let tensors = exact_tensors(&adapter, &base().1).unwrap();
        assert_eq!(read(&tensors, &[]).unwrap().adapter, adapter);
    }

    #[test]
    fn diffusers_form_is_right_with_and_without_its_metadata() {
        let adapter = adapter();
        let (tensors, config) = diffusers_tensors(&adapter, &base().1, AdapterDtype::F32).unwrap();
        for metadata in [vec![], vec![(ADAPTER_METADATA, config.as_str())]] {
            let read = read(&tensors, &metadata).unwrap();
            assert_eq!(read.form, AdapterForm::Diffusers);
            check_same_effect(&read.adapter, &adapter, 1e-6);
        }
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["unet.r"], 2);
        assert_eq!(config["unet.rank_pattern"]["mid_block.resnets.0.conv1"], 3);
        assert_eq!(config["text_encoder.r"], 2);
    }

    #[test]
    fn alpha_of_a_foreign_configuration_counts() {
        let adapter = adapter();
        let (tensors, _) = diffusers_tensors(&adapter, &base().1, AdapterDtype::F32).unwrap();
        let config = r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"conv1": 6}, "text_encoder.lora_alpha": 4,
            "text_encoder.use_rslora": true}"#;
        let read = read(&tensors, &[(ADAPTER_METADATA, config)]).unwrap().adapter;
        let scale = |path: &str| read.modules[path].scale();
        assert!((scale(QUERY) - 4.0).abs() < 1e-12);
        assert!((scale(CONVOLUTION) - 2.0).abs() < 1e-12);
        assert!((scale(TEXT) - 4.0 / 2.0f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_module_without_alpha_has_scale_one() {
        let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
        tensors.retain(|key, _| !is_alpha(key));
        let read = read(&tensors, &[]).unwrap().adapter;
        assert!(read.modules.values().all(|factors| (factors.scale() - 1.0).abs() < 1e-12));
    }

    #[test]
    fn two_axes_for_a_one_by_one_convolution_are_read() {
        let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
        for (key, tensor) in &mut tensors {
            if key.contains("proj_in.lora") {
                tensor.shape.truncate(2);
            }
        }
        assert_eq!(read(&tensors, &[]).unwrap().adapter, adapter());
    }

    #[test]
    fn everything_that_is_wrong_is_listed() {
        let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
        let key = |path: &str, part| base().1.kohya_key(path, part).unwrap();
        tensors.insert("lora_unet_elsewhere.alpha".to_owned(), HostTensor::scalar(1.0));
        tensors.insert(key(QUERY, Part::DoraScale), HostTensor::scalar(1.0));
        tensors.remove(&key(PROJECTION, Part::Up));
        tensors.insert(key(TEXT, Part::Down), HostTensor::from_f32([2, 9], vec![0.0; 18]));
        tensors.insert(key(CONVOLUTION, Part::Alpha), HostTensor::scalar(f32::NAN));
        let message = read(&tensors, &[]).unwrap_err().to_string();
        for expected in [
            "5 problems",
            "lora_unet_elsewhere",
            "DoRA",
            "only the down one",
            "[2, 9]",
            "undefined",
        ] {
            assert!(message.contains(expected), "{expected}: {message}");
        }
        let empty = read(&TensorMap::new(), &[]).unwrap_err().to_string();
        assert!(empty.contains("holds no module"), "{empty}");
    }
}
