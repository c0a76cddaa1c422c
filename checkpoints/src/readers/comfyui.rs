//! `ComfyUI`, and Forge with its older copy of the same loader: names are looked up in a map from the names of layers.

use std::collections::{BTreeMap, BTreeSet};

use super::model_keys::{LayerKeys, ModelKeys, TextTowers};
use super::{Reading, Role};

/// Suffixes of factors, up and down, in the order in which they are looked for.
const FACTORS: [(&str, &str); 7] = [
    (".lora_up.weight", ".lora_down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    (".lora_B", ".lora_A"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
];
/// Those that only the newer of both programs knows.
const NEWER: [&str; 4] = [".lora_B", ".lora_A", ".lora_B.default.weight", ".lora_A.default.weight"];
/// Suffixes of other tensors.
const OTHERS: [(&str, Role); 26] = [
    (".alpha", Role::Alpha),
    (".dora_scale", Role::DoraScale),
    (".lora_mid.weight", Role::Mid),
    (".hada_w1_a", Role::Other),
    (".hada_w1_b", Role::Other),
    (".hada_w2_a", Role::Other),
    (".hada_w2_b", Role::Other),
    (".hada_t1", Role::Other),
    (".hada_t2", Role::Other),
    (".lokr_w1", Role::Other),
    (".lokr_w2", Role::Other),
    (".lokr_w1_a", Role::Other),
    (".lokr_w1_b", Role::Other),
    (".lokr_w2_a", Role::Other),
    (".lokr_w2_b", Role::Other),
    (".lokr_t2", Role::Other),
    (".a1.weight", Role::Other),
    (".a2.weight", Role::Other),
    (".b1.weight", Role::Other),
    (".b2.weight", Role::Other),
    (".w_norm", Role::Other),
    (".b_norm", Role::Other),
    (".diff", Role::Other),
    (".diff_b", Role::Other),
    (".set_weight", Role::Other),
    (".oft_blocks", Role::Other),
];

/// Which of the two programs reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    ComfyUi,
    Forge,
}

impl Program {
    fn knows(self, suffix: &str) -> bool {
        self == Self::ComfyUi || !(NEWER.contains(&suffix) || suffix == ".oft_blocks")
    }
}

/// What `ComfyUI` makes of the names.
pub(super) fn read<'a>(names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
    read_by(Program::ComfyUi, names, model)
}

/// Unmatched keys up to which Forge applies the others.
const UNMATCHED: usize = 12;

/// What Forge makes of the names.
pub(super) fn read_with_limit<'a>(names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
    let mut reading = read_by(Program::Forge, names, model);
    let n_unmatched = names.len() - reading.known.len();
    if reading.refusal.is_none() && n_unmatched > UNMATCHED {
        reading.refusal = Some(format!(
            "{n_unmatched} keys are unmatched; with more than {UNMATCHED} it applies nothing and only prints so"
        ));
    }
    reading
}

fn read_by<'a>(program: Program, names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
    let layers = layer_names(model);
    let present: BTreeSet<&str> = names.iter().copied().collect();
    let mut reading = Reading::default();
    for &name in names {
        for (up, down) in FACTORS.into_iter().filter(|(up, _)| program.knows(up)) {
            if let Some((prefix, layer)) = placed(name, up, &layers) {
                reading.known.insert(name, (layer, Role::Up));
                let partner = format!("{prefix}{down}");
                if !present.contains(partner.as_str()) {
                    reading.refusal = Some(format!("`{partner}` is missing, loading fails there"));
                }
            } else if let Some((prefix, layer)) = placed(name, down, &layers)
                && present.contains(format!("{prefix}{up}").as_str())
            {
                reading.known.insert(name, (layer, Role::Down));
            }
        }
        for (suffix, role) in OTHERS.into_iter().filter(|(suffix, _)| program.knows(suffix)) {
            let Some((prefix, layer)) = placed(name, suffix, &layers) else { continue };
            // The core of a Tucker decomposition belongs to the first spelling alone.
            let first = format!("{prefix}{}", FACTORS[0].0);
            if role != Role::Mid || present.contains(first.as_str()) {
                reading.known.insert(name, (layer, role));
            }
        }
    }
    reading
}

/// What stands before the suffix, if that is a layer.
fn placed<'a>(
    name: &'a str,
    suffix: &str,
    layers: &BTreeMap<String, usize>,
) -> Option<(&'a str, usize)> {
    let prefix = name.strip_suffix(suffix)?;
    Some((prefix, *layers.get(prefix)?))
}

/// Every name that stands for a layer, with its place in the model.
fn layer_names(model: &ModelKeys) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for (place, layer) in model.layers.iter().enumerate() {
        let found = if layer.component == "unet" {
            unet_names(layer)
        } else {
            text_names(layer, model.towers)
        };
        names.extend(found.into_iter().map(|name| (name, place)));
    }
    names
}

fn unet_names(layer: &LayerKeys) -> Vec<String> {
    let stem = layer.stem();
    let mut names = vec![format!("lora_unet_{stem}"), format!("lycoris_{stem}")];
    if let Some(original) = &layer.ldm {
        names.push(format!("lora_unet_{}", original.replace('.', "_")));
        names.push(format!("diffusion_model.{original}"));
    }
    // Names of diffusers are those of its first adapters, before PEFT.
    let old = layer.inner.replace(".to_", ".processor.to_");
    let old = old
        .strip_suffix(".to_out.0")
        .map_or_else(|| old.clone(), |start| format!("{start}.to_out"));
    names.push(format!("unet.{old}"));
    names.push(old);
    names
}

/// Layers of a text encoder that are looked for.
const TEXT_KINDS: [&str; 6] = [
    "mlp.fc1",
    "mlp.fc2",
    "self_attn.k_proj",
    "self_attn.q_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
];

fn text_names(layer: &LayerKeys, towers: TextTowers) -> Vec<String> {
    let second = layer.component == "text_encoder_2";
    if layer.inner == "text_projection" {
        return vec![
            if second { "lora_te2_text_projection" } else { "lora_te1_text_projection" }.to_owned(),
        ];
    }
    if !layer.text_place().is_some_and(|(_, kind)| TEXT_KINDS.contains(&kind)) {
        return Vec::new();
    }
    let stem = layer.stem();
    let clip = match (second, towers) {
        (true, _) => "clip_g",
        (false, TextTowers::OpenClip) => "clip_h",
        (false, TextTowers::Clip | TextTowers::Both) => "clip_l",
    };
    let mut names = vec![
        format!("{}.{}", layer.component, layer.inner),
        format!("text_encoders.{clip}.transformer.{}", layer.inner),
    ];
    if second {
        names.push(format!("lora_te2_{stem}"));
    } else {
        names.extend([format!("lora_te_{stem}"), format!("lora_te1_{stem}")]);
    }
    names
}
