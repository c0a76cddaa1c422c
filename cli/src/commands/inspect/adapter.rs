//! What an adapter file holds, without the base it was made for.

use std::collections::BTreeMap;

use checkpoints::adapter_metadata::gives_away;
use checkpoints::key_map::Part;
use checkpoints::{CheckpointError, TensorFile};
use models::adapter::{AdapterForm, Alphas, Factors, adapter_family, delta_norm};
use serde_json::{Value, json};

use super::{Findings, name};
use crate::adapter_file::counted;
use crate::error::JobError;
use crate::progress::figure;

/// Endings of the keys of both factors, with whose spelling it is.
const FACTORS: [(&str, &str, &str); 7] = [
    (".lora_down.weight", ".lora_up.weight", "kohya"),
    (".lora_A.weight", ".lora_B.weight", "diffusers or PEFT"),
    (".lora_A.default.weight", ".lora_B.default.weight", "PEFT"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", "old diffusers"),
    (".lora.down.weight", ".lora.up.weight", "old diffusers"),
    ("_lora.down.weight", "_lora.up.weight", "old diffusers"),
    (".lora_A", ".lora_B", "PEFT"),
];

/// Whether a file's names are those of an adapter of any kind.
pub(super) fn is_adapter(file: &TensorFile) -> bool {
    file.names().any(|name| down_of(name).is_some() || Part::other_kind(name).is_some())
}

/// What stands before the ending of a first factor, the key of the second, and whose spelling it is.
fn down_of(key: &str) -> Option<(&str, String, &'static str)> {
    FACTORS.iter().find_map(|(down, up, form)| {
        let stem = key.strip_suffix(down)?;
        Some((stem, format!("{stem}{up}"), *form))
    })
}

/// One adapted layer.
struct Module {
    rank: usize,
    /// As a key or a configuration states it.
    alpha: Option<f64>,
    /// ‖α/r·B·A‖, Frobenius; `None` if a factor is missing or not finite, or if there is more to it.
    norm: Option<f64>,
    finite: bool,
}

/// Everything about a file but its modules.
struct About {
    /// Whose names it uses, several joined by `and`.
    form: String,
    /// Title of the family, as far as keys and header tell it.
    family: Option<&'static str>,
    /// Kinds of adapters other than a plain LoRA, with the number of their keys.
    kinds: BTreeMap<&'static str, usize>,
    /// Types of the factors, with the number of tensors.
    dtypes: BTreeMap<&'static str, usize>,
}

/// Reads every module of an adapter file.
pub(super) fn inspect(file: &TensorFile) -> Result<Findings, JobError> {
    let mut modules = BTreeMap::new();
    let mut forms: Vec<&str> = Vec::new();
    let mut kinds = BTreeMap::new();
    let mut dtypes = BTreeMap::new();
    let alphas = Alphas::read(file, AdapterForm::of(file.names()))?;
    for key in file.names() {
        if let Some(kind) = Part::other_kind(key) {
            *kinds.entry(kind).or_insert(0) += 1;
        }
        if let Some(info) = file.info(key).filter(|_| key.strip_suffix(".alpha").is_none()) {
            *dtypes.entry(info.dtype.name()).or_insert(0) += 1;
        }
        if let Some((stem, up_key, form)) = down_of(key) {
            if !forms.contains(&form) {
                forms.push(form);
            }
            modules.insert(stem.to_owned(), module(file, (stem, key, &up_key), &alphas)?);
        }
    }
    let form = if forms.is_empty() { "unknown".to_owned() } else { forms.join(" and ") };
    let family = adapter_family(file).map(checkpoints::Family::title);
    Ok(described(file, &About { form, family, kinds, dtypes }, &modules))
}

/// Adds what the header gives away.
pub(super) fn privacy(file: &TensorFile, findings: &mut Findings) {
    let told = gives_away(file.metadata());
    findings.lines.push(format!("gives away {}:", counted(told.len(), "fact")));
    for (key, reason) in &told {
        findings.lines.push(format!("  {key}: {reason}"));
    }
    let told: BTreeMap<&str, &str> = told.into_iter().collect();
    findings.record["gives_away"] = json!(told);
}

fn module(
    file: &TensorFile,
    (stem, down_key, up_key): (&str, &str, &str),
    alphas: &Alphas,
) -> Result<Module, CheckpointError> {
    let down = file.read(down_key)?;
    let rank = down.shape.first().copied().unwrap_or(0);
    let alpha_key = format!("{stem}.alpha");
    let alpha = match file.info(&alpha_key) {
        Some(_) => file.read(&alpha_key)?.f32().first().map(|&alpha| f64::from(alpha)),
        None => alphas.of(stem.strip_prefix("base_model.model.").unwrap_or(stem), rank),
    };
    // Between both factors of a Tucker decomposition there is a third.
    let has_core = file.info(&format!("{stem}.lora_mid.weight")).is_some();
    if has_core || file.info(up_key).is_none() {
        return Ok(Module { rank, alpha, norm: None, finite: down.all_finite() });
    }
    let up = file.read(up_key)?;
    let finite = down.all_finite() && up.all_finite() && alpha.is_none_or(f64::is_finite);
    let fits = rank > 0 && up.len().is_multiple_of(rank) && up.shape.get(1) == Some(&rank);
    // Without alpha the scale is 1.
    let factors = Factors { alpha: alpha.unwrap_or(real(rank)), down, up };
    let norm = (finite && fits).then(|| delta_norm(&factors));
    Ok(Module { rank, alpha, norm, finite })
}

#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
const fn real(n: usize) -> f64 {
    n as f64
}

fn described(file: &TensorFile, about: &About, modules: &BTreeMap<String, Module>) -> Findings {
    let ranks = distinct(modules.values().map(|module| module.rank.to_string()));
    let alphas = distinct(modules.values().map(|m| m.alpha.map_or("none".to_owned(), figure)));
    let blocks = blocks(modules);
    let mut lines = vec![
        format!("{}: adapter, {} names", name(file.path()), about.form),
        format!("for {}", about.family.unwrap_or("a base that its keys do not tell")),
        format!("{}, rank {ranks}, alpha {alphas}", counted(modules.len(), "module")),
        format!("factors in {}", counts(&about.dtypes)),
    ];
    for (kind, n) in &about.kinds {
        lines.push(format!("{} of {kind}, which is not read here", counted(*n, "key")));
    }
    if !blocks.is_empty() {
        lines.push("norm of the change by block:".to_owned());
    }
    lines.extend(blocks.iter().map(|(block, norm)| format!("  {block:<28} {}", figure(*norm))));
    lines.extend(defects(modules));
    let n_entries = file.metadata().len();
    let entries = if n_entries == 1 { "entry" } else { "entries" };
    lines.push(format!("{n_entries} {entries} in the header:"));
    lines.extend(file.metadata().iter().map(|(key, value)| format!("  {key}: {}", short(value))));
    lines.push(format!("sha256 of the file:    {}", file.file_sha256()));
    lines.push(format!("sha256 of the tensors: {}", file.tensors_sha256()));
    let record = record(file, about, modules, &blocks);
    Findings { lines, record }
}

/// Modules that do nothing or cannot do what they should.
fn defects(modules: &BTreeMap<String, Module>) -> Vec<String> {
    let named = |is: &dyn Fn(&Module) -> bool, what: &str| {
        let found: Vec<&String> =
            modules.iter().filter(|(_, module)| is(module)).map(|(stem, _)| stem).collect();
        let first = found.first()?;
        Some(format!("{} {what}, the first is {first}", counted(found.len(), "module")))
    };
    let dead = named(&|module| module.norm == Some(0.0), "without effect");
    let broken = |module: &Module| !module.finite || module.norm.is_none();
    dead.into_iter().chain(named(&broken, "incomplete, of another kind or not finite")).collect()
}

fn record(
    file: &TensorFile,
    about: &About,
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
        "event": "inspected", "kind": "adapter", "path": file.path(), "form": about.form,
        "family": about.family, "other_kinds": about.kinds, "dtypes": about.dtypes,
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
    let is_second = words.contains(&"te2") || stem.starts_with("text_encoder_2.");
    let text = if is_second { "text 2 layer" } else { "text layer" };
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
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for value in values {
        *found.entry(value).or_insert(0) += 1;
    }
    match found.len() {
        0 => "none".to_owned(),
        1 => found.into_keys().collect(),
        _ => found.iter().map(|(v, n)| format!("{v} ({n}×)")).collect::<Vec<_>>().join(", "),
    }
}

/// Types of tensors: the only one, or each with its number.
fn counts(dtypes: &BTreeMap<&str, usize>) -> String {
    distinct(dtypes.iter().flat_map(|(dtype, n)| std::iter::repeat_n((*dtype).to_owned(), *n)))
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
    use checkpoints::{HostTensor, TensorMap};

    use super::*;

    fn findings(tensors: &TensorMap) -> Findings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        checkpoints::write_tensors(&path, tensors, &BTreeMap::new()).unwrap();
        inspect(&TensorFile::open(&path).unwrap()).unwrap()
    }

    fn tensor(shape: [usize; 2], values: &[f32]) -> HostTensor {
        HostTensor::from_f32(shape, values.to_vec())
    }

    #[test]
    fn the_norm_is_that_of_the_scaled_product() {
        let stem = "lora_unet_mid_block_attentions_0_proj_in";
        let tensors = TensorMap::from([
            (format!("{stem}.lora_up.weight"), tensor([3, 2], &[1.0, 2.0, 0.0, 1.0, 3.0, 0.0])),
            (
                format!("{stem}.lora_down.weight"),
                tensor([2, 4], &[1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0]),
            ),
            (format!("{stem}.alpha"), HostTensor::scalar(3.0)),
        ]);
        let found = findings(&tensors);
        // BA = [[1, 2, 4, 1], [0, 1, 1, 0], [3, 0, 6, 3]], squares sum to 78; the scale is 3/2.
        let norm = found.record["block_norms"]["unet mid_block"].as_f64().unwrap();
        assert!((norm - 1.5 * 78.0_f64.sqrt()).abs() < 1e-9, "{norm}");
        assert_eq!(found.record["form"], "kohya");
        assert_eq!(found.record["dtypes"]["F32"], 2);
    }

    #[test]
    fn what_has_a_core_has_no_norm() {
        let stem = "lora_unet_mid_block_resnets_0_conv1";
        let tensors = TensorMap::from([
            (format!("{stem}.lora_up.weight"), tensor([3, 2], &[1.0; 6])),
            (format!("{stem}.lora_down.weight"), tensor([2, 4], &[1.0; 8])),
            (format!("{stem}.lora_mid.weight"), tensor([2, 2], &[1.0; 4])),
        ]);
        let module = &findings(&tensors).record["modules"][stem];
        assert!(module["norm"].is_null() && module["finite"] == true, "{module}");
    }

    #[test]
    fn what_is_dead_broken_or_of_another_kind_is_named() {
        let tensors = TensorMap::from([
            ("unet.a.lora_A.weight".to_owned(), tensor([1, 2], &[1.0, 2.0])),
            ("unet.a.lora_B.weight".to_owned(), tensor([2, 1], &[0.0, 0.0])),
            ("unet.b.lora_A.weight".to_owned(), tensor([1, 2], &[f32::NAN, 2.0])),
            ("unet.b.lora_B.weight".to_owned(), tensor([2, 1], &[1.0, 0.0])),
            ("unet.c.lora_A.weight".to_owned(), tensor([1, 2], &[1.0, 2.0])),
            ("lora_unet_d.hada_w1_a".to_owned(), tensor([1, 2], &[1.0, 2.0])),
        ]);
        let text = findings(&tensors).lines.join("\n");
        for expected in [
            "1 module without effect, the first is unet.a",
            "2 modules incomplete, of another kind or not finite, the first is unet.b",
            "1 key of LoHa, which is not read here",
            "for a base that its keys do not tell",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
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
            ("text_encoder_2.text_model.encoder.layers.7.mlp.fc1", "text 2 layer 07"),
            ("lora_unet_input_blocks_4_1_proj_in", "unet input_blocks 04"),
            ("something", "others"),
        ];
        for (stem, block) in blocks {
            assert_eq!(block_of(stem), block, "{stem}");
        }
    }
}
