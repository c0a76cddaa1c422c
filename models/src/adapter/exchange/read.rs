//! From the tensors of a file to an adapter.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::key_map::{KeyMap, ParsedKey, Part};
use checkpoints::{HeaderLimit, HostTensor, TensorFile};
use serde_json::{Map, Value};

use super::super::{Adapter, Factors, Layer, family};
use super::{ADAPTER_METADATA, AdapterForm, Exchanged, PEFT_CONFIG};
use crate::error::ModelError;

/// Reads an adapter for a base with these layers, in any of the three forms.
///
/// A module without alpha has scale 1. Factors of a 1×1 convolution may be stored with two axes.
///
/// # Errors
///
/// [`ModelError::Adapter`] under the file's name: in one sentence for an adapter of another family
/// or kind, else with *all* keys that are unknown, lack their other factor, do not fit their layer
/// or are not finite; [`ModelError::Checkpoint`] if the file cannot be read.
pub fn adapter_from_file(
    path: &Path,
    layers: &[Layer],
    map: &KeyMap,
) -> Result<Exchanged, ModelError> {
    let file = TensorFile::open_within(path, HeaderLimit::Adapter)?;
    if let Some(reason) = family::refusal(&file, layers).or_else(|| other_kind(&file)) {
        return Err(refused(path, &[reason]));
    }
    let form = AdapterForm::of(file.names());
    let mut problems = Vec::new();
    let shapes: Shapes<'_> =
        layers.iter().map(|layer| (layer.path.as_str(), layer.weight.as_slice())).collect();
    let modules = modules(&file, (map, &shapes), &mut problems);
    let alphas = Alphas::read(&file, form)?;
    let mut adapter = Adapter::default();
    for (path, keys) in modules {
        match factors(&file, &keys, shapes.get(path.as_str()).copied().unwrap_or(&[]))? {
            Ok(mut factors) => {
                if let (None, Some(alpha)) = (&keys.alpha, alphas.of(&path, factors.rank())) {
                    factors.alpha = alpha;
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

/// Why the file is not read, if it holds another kind of adapter.
fn other_kind(file: &TensorFile) -> Option<String> {
    let mut kinds: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for key in file.names() {
        if let Some(kind) = Part::other_kind(key) {
            kinds.entry(kind).or_insert((0, key)).0 += 1;
        }
    }
    let (kind, (n, first)) = kinds.into_iter().max_by_key(|(_, (n, _))| *n)?;
    let keys = if n == 1 { "key" } else { "keys" };
    Some(format!(
        "is no plain LoRA (`lora_down`, `lora_up`, `alpha`): it holds {n} {keys} of {kind}, \
         `{first}` among them"
    ))
}

/// Shapes of the layers' weights by their paths.
type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// Keys of one module in the file.
#[derive(Default)]
struct ModuleKeys {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

fn modules(
    file: &TensorFile,
    (map, shapes): (&KeyMap, &Shapes<'_>),
    problems: &mut Vec<String>,
) -> BTreeMap<String, ModuleKeys> {
    let mut modules: BTreeMap<String, ModuleKeys> = BTreeMap::new();
    for key in file.names() {
        let fits = |parsed: &ParsedKey| {
            let axis = match parsed.part {
                Part::Down => 1,
                Part::Up => 0,
                Part::Alpha | Part::Mid | Part::DoraScale => return true,
            };
            let found = file.info(key).and_then(|info| info.shape.get(axis));
            shapes.get(parsed.path.as_str()).and_then(|shape| shape.get(axis)) == found
        };
        // `UNet2DConditionModel.save_lora_adapter` leaves the component out.
        let parsed = map
            .parse_fitting(key, &fits)
            .or_else(|error| map.parse(&format!("unet.{key}")).map_err(|_| error));
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
            // Such files were refused by their kind.
            Part::Mid | Part::DoraScale => continue,
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
#[derive(Debug)]
pub struct Alphas {
    config: Value,
}

impl Alphas {
    /// Reads what the header of a file, or `adapter_config.json` beside it, states.
    ///
    /// # Errors
    ///
    /// [`ModelError::Checkpoint`] and [`ModelError::Adapter`] for a configuration that is no JSON;
    /// [`ModelError::Adapter`] for an `alpha_pattern` that is an expression and no path.
    pub fn read(file: &TensorFile, form: AdapterForm) -> Result<Self, ModelError> {
        let beside = file.path().with_file_name(PEFT_CONFIG);
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
        let patterns = config.as_object().into_iter().flatten().filter(|(field, _)| {
            field.strip_suffix("alpha_pattern").is_some_and(|of| of.is_empty() || of.ends_with('.'))
        });
        let mut keys =
            patterns.filter_map(|(_, patterns)| patterns.as_object()).flat_map(Map::keys);
        if let Some(key) = keys.find(|key| is_expression(key)) {
            let reason = format!("`alpha_pattern` must name layers, found the expression `{key}`");
            return Err(refused(file.path(), &[reason]));
        }
        Ok(Self { config })
    }

    /// What is stated as alpha of the module at `path`; without it the scale is 1. A path without
    /// component is one of the UNet.
    ///
    /// Source: `peft.utils.other.get_pattern_key` and `peft.tuners.lora.LoraLayer.update_layer`.
    pub fn of(&self, path: &str, rank: usize) -> Option<f64> {
        const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];
        let parted = path.split_once('.').filter(|(component, _)| COMPONENTS.contains(component));
        let (component, inner) = parted.unwrap_or(("unet", path));
        let field = |name: &str| {
            let named = self.config.get(format!("{component}.{name}"));
            named.or_else(|| self.config.get(name))
        };
        let patterns = field("alpha_pattern").and_then(Value::as_object);
        let by_pattern = patterns
            .and_then(|patterns| patterns.iter().find(|(pattern, _)| pattern_means(pattern, inner)))
            .and_then(|(_, alpha)| alpha.as_f64());
        let alpha = by_pattern.or_else(|| field("lora_alpha").and_then(Value::as_f64))?;
        let stabilized = field("use_rslora").and_then(Value::as_bool) == Some(true);
        // Scale alpha/√r instead of alpha/r.
        Some(if stabilized { alpha * (rank as f64).sqrt() } else { alpha })
    }
}

/// Whether a key of PEFT's `alpha_pattern`, which is a regular expression, is more than a path.
fn is_expression(pattern: &str) -> bool {
    pattern.replace("\\.", ".").contains(['*', '+', '?', '[', '(', '|', '{', '\\'])
}

/// Whether a key of PEFT's `alpha_pattern` means this path: its end, or all of it after `^`. Text
/// encoders call their layers with and without `text_model.`.
fn pattern_means(pattern: &str, path: &str) -> bool {
    let bare = |path: &str| path.strip_prefix("text_model.").unwrap_or(path).to_owned();
    let plain = pattern.replace("\\.", ".");
    let plain = plain.strip_suffix('$').unwrap_or(&plain);
    match plain.strip_prefix('^') {
        Some(whole) => bare(path) == bare(whole),
        None => bare(path)
            .strip_suffix(&bare(plain))
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}
