//! Whether a reader that knows the keys of a file also does what they mean.

use std::collections::BTreeMap;

use serde_json::Value;

use super::model_keys::{LayerKeys, ModelKeys};
use super::{Reader, Reading, Role};
use crate::error::CheckpointError;
use crate::safetensors::TensorFile;

/// What differs from what is meant.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) notes: Vec<String>,
    pub(super) refusal: Option<String>,
}

/// The known tensors of one layer.
#[derive(Debug, Default)]
struct Module {
    down: Option<Vec<usize>>,
    up: Option<Vec<usize>>,
    alpha: Option<f64>,
    magnitudes: Option<Vec<usize>>,
    /// Another kind of adapter, whose shapes are not judged.
    other: bool,
}

impl Module {
    fn rank(&self) -> usize {
        self.down.as_ref().and_then(|shape| shape.first().copied()).unwrap_or(0)
    }
}

/// How the factors fit the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Exact,
    /// As many values in another number of axes.
    Reshaped,
    Wrong,
}

/// Judges shapes, scales and magnitudes.
pub(super) fn of(
    file: &TensorFile,
    model: &ModelKeys,
    reader: Reader,
    reading: &Reading<'_>,
) -> Result<Effect, CheckpointError> {
    let modules = modules(file, reading)?;
    let mut effect = Effect::default();
    shapes(&modules, model, reader, &mut effect);
    magnitudes(file, &modules, reader, &mut effect);
    match reader {
        Reader::Diffusers => alphas(file, &modules, model, &mut effect),
        Reader::ComfyUi | Reader::Forge | Reader::A1111 => {
            if header_scales(file) {
                effect.notes.push(
                    "the scales that `lora_adapter_metadata` states are not read, all are 1"
                        .to_owned(),
                );
            }
        }
    }
    Ok(effect)
}

fn modules(
    file: &TensorFile,
    reading: &Reading<'_>,
) -> Result<BTreeMap<usize, Module>, CheckpointError> {
    let mut modules: BTreeMap<usize, Module> = BTreeMap::new();
    for (&name, &(layer, role)) in &reading.known {
        let Some(shape) = file.info(name).map(|info| info.shape.clone()) else { continue };
        let module = modules.entry(layer).or_default();
        match role {
            Role::Down => module.down = Some(shape),
            Role::Up => module.up = Some(shape),
            Role::Alpha => module.alpha = file.read(name)?.f32().first().map(|&a| f64::from(a)),
            Role::DoraScale => module.magnitudes = Some(shape),
            Role::Mid | Role::Other => module.other = true,
        }
    }
    Ok(modules)
}

fn fit(module: &Module, weight: &[usize]) -> Fit {
    let (Some(down), Some(up)) = (&module.down, &module.up) else { return Fit::Exact };
    let rank = module.rank();
    let Some((&n_out, inside)) = weight.split_first().filter(|_| !module.other) else {
        return Fit::Exact;
    };
    let expected_down: Vec<usize> = std::iter::once(rank).chain(inside.iter().copied()).collect();
    let ones = std::iter::repeat_n(1, weight.len().saturating_sub(2));
    let expected_up: Vec<usize> = [n_out, rank].into_iter().chain(ones).collect();
    if *down == expected_down && *up == expected_up {
        return Fit::Exact;
    }
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    let same = size(down) == size(&expected_down) && size(up) == size(&expected_up) && rank > 0;
    if same { Fit::Reshaped } else { Fit::Wrong }
}

fn shapes(
    modules: &BTreeMap<usize, Module>,
    model: &ModelKeys,
    reader: Reader,
    effect: &mut Effect,
) {
    let fits =
        modules.iter().map(|(&layer, module)| (layer, fit(module, &model.layers[layer].weight)));
    let wrong: Vec<usize> = fits
        .filter(|(_, fit)| match reader {
            Reader::ComfyUi | Reader::Forge | Reader::A1111 => *fit == Fit::Wrong,
            // It compares every axis.
            Reader::Diffusers => *fit != Fit::Exact,
        })
        .map(|(layer, _)| layer)
        .collect();
    let Some(&first) = wrong.first() else { return };
    let (n, first) = (wrong.len(), name(&model.layers[first]));
    match reader {
        Reader::ComfyUi => effect.notes.push(format!(
            "{n} modules do not fit their layers and are skipped with a logged error, `{first}` among them"
        )),
        Reader::Forge | Reader::A1111 | Reader::Diffusers => {
            effect.refusal = Some(format!(
                "{n} modules have other shapes than their layers, `{first}` among them, which is an error"
            ));
        }
    }
}

fn name(layer: &LayerKeys) -> String {
    format!("{}.{}", layer.component, layer.inner)
}

/// `DoRA`: which axis of the weight the magnitudes belong to, and whether they are read at all.
fn magnitudes(
    file: &TensorFile,
    modules: &BTreeMap<usize, Module>,
    reader: Reader,
    effect: &mut Effect,
) {
    let of_output = |shape: &Vec<usize>| {
        shape.first().is_some_and(|&rows| rows > 1) && shape.get(1).is_none_or(|&n| n == 1)
    };
    let on_output =
        modules.values().filter_map(|module| module.magnitudes.as_ref()).filter(|s| of_output(s));
    let n_on_output = on_output.count();
    let note = match reader {
        Reader::Diffusers => {
            let dropped = file.names().filter(|name| name.contains("dora_scale")).count();
            (dropped > 0).then(|| format!("the magnitudes of {dropped} DoRA modules are dropped"))
        }
        Reader::A1111 => (n_on_output > 0).then(|| {
            format!(
                "the magnitudes of {n_on_output} DoRA modules belong to the output axis, it takes the input axis"
            )
        }),
        Reader::ComfyUi | Reader::Forge => (n_on_output > 0).then(|| {
            format!(
                "{n_on_output} DoRA modules of the output axis are divided by the norm of the base's weight"
            )
        }),
    };
    effect.notes.extend(note);
}

/// Where diffusers gives modules another alpha than the file does: it knows one for a whole component, which reaches the
/// others by patterns that do not match attention or text encoders.
fn alphas(
    file: &TensorFile,
    modules: &BTreeMap<usize, Module>,
    model: &ModelKeys,
    effect: &mut Effect,
) {
    // Its own form states scales in the header, and has nothing else.
    if !file.names().any(|name| name.strip_suffix(".alpha").is_some()) {
        return;
    }
    let mut components: BTreeMap<&str, Vec<(&LayerKeys, &Module)>> = BTreeMap::new();
    for (&layer, module) in modules {
        let layer = &model.layers[layer];
        components.entry(&layer.component).or_default().push((layer, module));
    }
    for (component, modules) in components {
        let Some(common) = commonest(modules.iter().filter_map(|(_, module)| module.alpha)) else {
            continue;
        };
        let differs = |alpha: f64| (alpha - common).abs() > 1e-6 * common.abs();
        let absent = modules.iter().filter(|(_, module)| {
            // Without alpha the scale is 1, that is an alpha of the rank.
            module.alpha.is_none() && differs(module.rank() as f64)
        });
        let missed = modules.iter().filter(|(layer, module)| {
            module.alpha.is_some_and(differs) && (component != "unet" || layer.is_attention())
        });
        let (n_absent, n_missed, n) = (absent.count(), missed.count(), modules.len());
        if n_absent > 0 {
            effect.notes.push(format!(
                "{n_absent} of {n} modules of {component} have no alpha and silently get {common}, that of the others"
            ));
        }
        if n_missed > 0 {
            effect.notes.push(format!(
                "{n_missed} of {n} modules of {component} have another alpha than {common} and silently get that"
            ));
        }
    }
}

/// The commonest value; the first met of several.
fn commonest(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut counts: Vec<(f64, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| known.to_bits() == value.to_bits()) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

/// Whether the header states another scale than 1 for any module.
fn header_scales(file: &TensorFile) -> bool {
    let Some(text) = file.metadata().get("lora_adapter_metadata") else { return false };
    let Ok(Value::Object(config)) = serde_json::from_str(text) else { return false };
    config.iter().any(|(key, alpha)| {
        let Some(prefix) = key.strip_suffix("lora_alpha") else { return false };
        let other = |field: &str| config.get(&format!("{prefix}{field}"));
        let stabilized = other("use_rslora").and_then(Value::as_bool) == Some(true);
        let (rank, alpha) = (other("r").and_then(Value::as_f64), alpha.as_f64());
        stabilized
            || rank != alpha
            || patterns(other("alpha_pattern")) != patterns(other("rank_pattern"))
    })
}

/// Entries of a pattern; an absent one has none.
fn patterns(pattern: Option<&Value>) -> BTreeMap<&str, Option<f64>> {
    let entries = pattern.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(layer, value)| (layer.as_str(), value.as_f64())).collect()
}
