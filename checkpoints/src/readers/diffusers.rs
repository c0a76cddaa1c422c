//! diffusers: a file of kohya names throughout is renamed to its own, everything else must be in them already.

use std::collections::{BTreeMap, BTreeSet};

use super::model_keys::{LayerKeys, ModelKeys};
use super::{Reading, Role};

const KOHYA: [&str; 4] = ["lora_te_", "lora_te1_", "lora_te2_", "lora_unet_"];
/// Names of blocks in the original code; a file that mixes them with its own loses these.
const ORIGINAL: [&str; 3] = ["input_blocks", "middle_block", "output_blocks"];
const OWN: [&str; 3] = ["down_blocks", "mid_block", "up_blocks"];

/// What diffusers makes of the names.
pub(super) fn read<'a>(names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
    // Magnitudes under kohya's name are thrown away first, with a warning.
    let names: Vec<&str> =
        names.iter().copied().filter(|name| !name.contains("dora_scale")).collect();
    if names.iter().all(|name| KOHYA.iter().any(|start| name.starts_with(start))) {
        return kohya(&names, model);
    }
    if let Some(name) = names.iter().find(|name| !name.contains("lora")) {
        return Reading {
            refusal: Some(format!("the key `{name}` has no `lora` in it, which refuses the file")),
            ..Reading::default()
        };
    }
    own(&names, model)
}

fn kohya<'a>(names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
    let stems = kohya_stems(model);
    let mixed = names.iter().any(|name| holds_any(name, &ORIGINAL))
        && names.iter().any(|name| holds_any(name, &OWN));
    let present: BTreeSet<&str> = names.iter().copied().collect();
    let mut reading = Reading::default();
    for &name in names.iter().filter(|name| !(mixed && holds_any(name, &ORIGINAL))) {
        let (stem, part) = name.split_once('.').unwrap_or((name, ""));
        let has_down = present.contains(format!("{stem}.lora_down.weight").as_str());
        let role = match part {
            "lora_down.weight" if !present.contains(format!("{stem}.lora_up.weight").as_str()) => {
                let reason = format!("`{stem}` lacks its `lora_up.weight`, loading fails there");
                reading.refusal = Some(reason);
                continue;
            }
            "lora_down.weight" => Role::Down,
            "lora_up.weight" if has_down => Role::Up,
            "alpha" if has_down => Role::Alpha,
            _ => {
                let reason = format!("the key `{name}` is left over, which refuses the file");
                reading.refusal.get_or_insert(reason);
                continue;
            }
        };
        if let Some(&layer) = stems.get(stem) {
            reading.known.insert(name, (layer, role));
        }
    }
    reading
}

fn holds_any(name: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| name.contains(part))
}

/// Stems that end at a layer of the model: those of its own paths, and in SDXL those of the original code.
fn kohya_stems(model: &ModelKeys) -> BTreeMap<String, usize> {
    let mut stems = BTreeMap::new();
    for (place, layer) in model.layers.iter().enumerate() {
        let prefixes: &[&str] = match layer.component.as_str() {
            "unet" => &["lora_unet_"],
            "text_encoder_2" => &["lora_te2_"],
            _ => &["lora_te_", "lora_te1_"],
        };
        stems.extend(prefixes.iter().map(|prefix| (format!("{prefix}{}", layer.stem()), place)));
        if let (true, Some(original)) = (model.is_sdxl(), &layer.ldm) {
            stems.insert(format!("lora_unet_{}", original.replace('.', "_")), place);
        }
    }
    stems
}

/// Suffixes of PEFT, of diffusers, and of diffusers before that.
const SUFFIXES: [(&str, Role); 10] = [
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora_magnitude_vector.weight", Role::DoraScale),
    (".lora_magnitude_vector", Role::DoraScale),
];

/// Only keys that begin with a component reach it; the others are passed over.
fn own<'a>(names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
    let paths = own_paths(model);
    let mut reading = Reading::default();
    for &name in names {
        let found = SUFFIXES.iter().find_map(|(suffix, role)| {
            Some((name.strip_suffix(suffix)?.replace(".processor.", "."), *role))
        });
        let Some((path, role)) = found else { continue };
        if let Some(&layer) = paths.get(&path) {
            reading.known.insert(name, (layer, role));
        }
    }
    reading
}

/// Layers of a text encoder's attention before PEFT.
const OLD_TEXT: [(&str, &str); 4] =
    [("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("out_proj", "to_out")];

fn own_paths(model: &ModelKeys) -> BTreeMap<String, usize> {
    let mut paths = BTreeMap::new();
    for (place, layer) in model.layers.iter().enumerate() {
        paths.extend(spellings(layer).into_iter().map(|path| (path, place)));
    }
    paths
}

fn spellings(layer: &LayerKeys) -> Vec<String> {
    let path = format!("{}.{}", layer.component, layer.inner);
    let mut spellings = vec![path.clone()];
    if layer.component == "unet" {
        spellings.extend(path.strip_suffix(".to_out.0").map(|start| format!("{start}.to_out")));
        return spellings;
    }
    let old = OLD_TEXT.iter().find_map(|(new, old)| Some((path.strip_suffix(new)?, *old)));
    spellings.extend(old.map(|(start, old)| format!("{start}{old}")));
    // Encoders of transformers from 5.6 on have lost this part of their names.
    let bare = layer.inner.strip_prefix("text_model.");
    spellings.extend(bare.map(|inner| format!("{}.{inner}", layer.component)));
    spellings
}
