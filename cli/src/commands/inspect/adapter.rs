//! What an adapter file holds, without the base it was made for.

use std::collections::BTreeMap;

use checkpoints::adapter_metadata::gives_away;
use checkpoints::{CheckpointError, HostTensor, TensorFile};
use serde_json::{Value, json};

use super::{Findings, counted, name};
use crate::error::JobError;
use crate::progress::figure;

/// Endings of the first factor's key, with whose spelling it is.
const DOWN: [(&str, &str); 4] = [
    (".lora_down.weight", "kohya"),
    (".lora_A.weight", "diffusers or PEFT"),
    (".lora.down.weight", "old diffusers"),
    (".lora_A.default.weight", "PEFT"),
];
/// Endings of the second factor's key, in the order of [`DOWN`].
const UP: [&str; 4] =
    [".lora_up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_B.default.weight"];

/// Whether a file's names are those of an adapter.
pub(super) fn is_adapter(file: &TensorFile) -> bool {
    file.names().any(|name| stem_of(name, &DOWN.map(|(ending, _)| ending)).is_some())
}

fn stem_of<'a>(name: &'a str, endings: &[&str]) -> Option<(&'a str, usize)> {
    endings.iter().enumerate().find_map(|(index, ending)| Some((name.strip_suffix(ending)?, index)))
}

/// Whether what the header gives away is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// It is.
    Asked,
    /// It is not.
    NotAsked,
}

/// One adapted layer.
struct Module {
    rank: usize,
    alpha: Option<f64>,
    /// ‖α/r·B·A‖, Frobenius; `None` if a factor is missing.
    norm: Option<f64>,
    finite: bool,
}

/// Reads every module of an adapter file.
pub(super) fn inspect(file: &TensorFile, privacy: Privacy) -> Result<Findings, JobError> {
    let mut modules = BTreeMap::new();
    let mut form = "unknown";
    for key in file.names() {
        if let Some((stem, index)) = stem_of(key, &DOWN.map(|(ending, _)| ending)) {
            form = DOWN[index].1;
            modules.insert(stem.to_owned(), module(file, stem, (key, UP[index]))?);
        }
    }
    let mut findings = described(file, form, &modules);
    if privacy == Privacy::Asked {
        let told = gives_away(file.metadata());
        findings.lines.push(format!("gives away {}:", counted(told.len(), "fact")));
        for (key, reason) in &told {
            findings.lines.push(format!("  {key}: {reason}"));
        }
        let told: BTreeMap<&str, &str> = told.into_iter().collect();
        findings.record["gives_away"] = json!(told);
    }
    Ok(findings)
}

fn module(file: &TensorFile, stem: &str, keys: (&str, &str)) -> Result<Module, CheckpointError> {
    let (down_key, up_ending) = keys;
    let down = file.read(down_key)?;
    let rank = down.shape.first().copied().unwrap_or(0);
    let alpha_key = format!("{stem}.alpha");
    let alpha = match file.info(&alpha_key) {
        Some(_) => file.read(&alpha_key)?.f32().first().map(|&alpha| f64::from(alpha)),
        None => None,
    };
    let up_key = format!("{stem}{up_ending}");
    if file.info(&up_key).is_none() {
        return Ok(Module { rank, alpha, norm: None, finite: down.all_finite() });
    }
    let up = file.read(&up_key)?;
    let finite = down.all_finite() && up.all_finite();
    let scale = alpha.map_or(1.0, |alpha| alpha / real(rank.max(1)));
    let norm = (finite && rank > 0).then(|| product_norm(&up, &down, rank) * scale.abs());
    Ok(Module { rank, alpha, norm, finite })
}

/// ‖B·A‖ without the product: its square is the trace of (BᵀB)(AAᵀ), both `[r, r]`.
fn product_norm(up: &HostTensor, down: &HostTensor, rank: usize) -> f64 {
    let (up, down) = (up.f32(), down.f32());
    let (n_out, n_in) = (up.len() / rank, down.len() / rank);
    let mut squared = 0.0;
    for i in 0..rank {
        for j in 0..rank {
            let of_up: f64 =
                (0..n_out).map(|o| f64::from(up[o * rank + i]) * f64::from(up[o * rank + j])).sum();
            let of_down: f64 = (0..n_in)
                .map(|k| f64::from(down[i * n_in + k]) * f64::from(down[j * n_in + k]))
                .sum();
            squared += of_up * of_down;
        }
    }
    squared.max(0.0).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
const fn real(n: usize) -> f64 {
    n as f64
}

fn described(file: &TensorFile, form: &str, modules: &BTreeMap<String, Module>) -> Findings {
    let ranks = distinct(modules.values().map(|module| module.rank.to_string()));
    let alphas = distinct(modules.values().map(|m| m.alpha.map_or("none".to_owned(), figure)));
    let dead: Vec<&String> =
        modules.iter().filter(|(_, m)| m.norm == Some(0.0)).map(|(stem, _)| stem).collect();
    let broken: Vec<&String> = modules
        .iter()
        .filter(|(_, m)| !m.finite || m.norm.is_none())
        .map(|(stem, _)| stem)
        .collect();
    let blocks = blocks(modules);
    let mut lines = vec![
        format!("{}: adapter, {form} names", name(file.path())),
        format!("{}, rank {ranks}, alpha {alphas}", counted(modules.len(), "module")),
        "norm of the change by block:".to_owned(),
    ];
    lines.extend(blocks.iter().map(|(block, norm)| format!("  {block:<28} {}", figure(*norm))));
    if !dead.is_empty() {
        lines.push(format!(
            "{} without effect, the first is {}",
            counted(dead.len(), "module"),
            dead[0]
        ));
    }
    if !broken.is_empty() {
        let n_broken = counted(broken.len(), "module");
        lines.push(format!("{n_broken} incomplete or not finite, the first is {}", broken[0]));
    }
    lines.push(format!(
        "{} in the header:",
        counted(file.metadata().len(), "entry").replace("entrys", "entries")
    ));
    lines.extend(file.metadata().iter().map(|(key, value)| format!("  {key}: {}", short(value))));
    lines.push(format!("sha256 of the file:    {}", file.file_sha256()));
    lines.push(format!("sha256 of the tensors: {}", file.tensors_sha256()));
    let record = record(file, form, modules, &blocks);
    Findings { lines, record }
}

fn record(
    file: &TensorFile,
    form: &str,
    modules: &BTreeMap<String, Module>,
    blocks: &BTreeMap<String, f64>,
) -> Value {
    let modules: BTreeMap<&String, Value> = modules
        .iter()
        .map(|(stem, m)| {
            let record =
                json!({ "rank": m.rank, "alpha": m.alpha, "norm": m.norm, "finite": m.finite });
            (stem, record)
        })
        .collect();
    json!({
        "event": "inspected", "kind": "adapter", "path": file.path(), "form": form,
        "modules": modules, "block_norms": blocks, "metadata": file.metadata(),
        "file_sha256": file.file_sha256(), "tensors_sha256": file.tensors_sha256(),
    })
}

/// Norms of blocks: the root of the sum of their modules' squares.
fn blocks(modules: &BTreeMap<String, Module>) -> BTreeMap<String, f64> {
    let mut blocks: BTreeMap<String, f64> = BTreeMap::new();
    for (stem, module) in modules {
        *blocks.entry(block_of(stem)).or_insert(0.0) += module.norm.unwrap_or(0.0).powi(2);
    }
    blocks.into_iter().map(|(block, squared)| (block, squared.sqrt())).collect()
}

/// The block of a layer in any of the spellings, such as `down_blocks 1` or `text layer 3`.
fn block_of(stem: &str) -> String {
    let words: Vec<&str> = stem.split(['.', '_']).filter(|word| !word.is_empty()).collect();
    let after = |first: &str, second: &str| {
        let at = words.windows(2).position(|pair| pair == [first, second])?;
        words.get(at + 2).copied()
    };
    let text = if words.contains(&"te2") { "text 2 layer" } else { "text layer" };
    if let Some(layer) = after("encoder", "layers") {
        return format!("{text} {layer:0>2}");
    }
    for (first, block) in [("down", "down_blocks"), ("up", "up_blocks")] {
        if let Some(index) = after(first, "blocks") {
            return format!("unet {block} {index}");
        }
    }
    for (first, block) in [("input", "input_blocks"), ("output", "output_blocks")] {
        if let Some(index) = after(first, "blocks") {
            return format!("unet {block} {index:0>2}");
        }
    }
    if words.contains(&"mid") || words.contains(&"middle") {
        return "unet mid_block".to_owned();
    }
    "others".to_owned()
}

fn distinct(values: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_insert(0) += 1;
    }
    match counts.len() {
        0 => "none".to_owned(),
        1 => counts.into_keys().collect(),
        _ => counts.iter().map(|(v, n)| format!("{v} ({n}×)")).collect::<Vec<_>>().join(", "),
    }
}

fn short(value: &str) -> String {
    const MOST: usize = 100;
    let line = value.replace('\n', " ");
    if line.chars().count() <= MOST {
        return line;
    }
    line.chars().take(MOST).collect::<String>() + " …"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_that_of_the_product() {
        // B = [[1, 2], [0, 1], [3, 0]], A = [[1, 0, 2, 1], [0, 1, 1, 0]].
        let up = HostTensor::from_f32(vec![3, 2], vec![1.0, 2.0, 0.0, 1.0, 3.0, 0.0]);
        let down = HostTensor::from_f32(vec![2, 4], vec![1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
        // BA = [[1, 2, 4, 1], [0, 1, 1, 0], [3, 0, 6, 3]], squares sum to 22 + 2 + 54.
        assert!((product_norm(&up, &down, 2) - 78.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn blocks_are_recognized_in_all_spellings() {
        let blocks = [
            (
                "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
                "unet down_blocks 1",
            ),
            ("unet.up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k", "unet up_blocks 2"),
            ("base_model.model.mid_block.attentions.0.proj_in", "unet mid_block"),
            ("lora_te_text_model_encoder_layers_3_mlp_fc1", "text layer 03"),
            ("lora_te2_text_model_encoder_layers_11_mlp_fc1", "text 2 layer 11"),
            ("lora_unet_input_blocks_4_1_proj_in", "unet input_blocks 04"),
            ("something", "others"),
        ];
        for (stem, block) in blocks {
            assert_eq!(block_of(stem), block, "{stem}");
        }
    }
}
