//! AUTOMATIC1111: stems are turned into the names of the original code by patterns, up to the first dot of a key.

use std::collections::BTreeMap;

use super::model_keys::{LayerKeys, ModelKeys, TextTowers};
use super::{Reading, Role};

/// What may follow a stem.
const PARTS: [(&str, Role); 24] = [
    ("lora_down.weight", Role::Down),
    ("lora_up.weight", Role::Up),
    ("lora_A.weight", Role::Down),
    ("lora_B.weight", Role::Up),
    ("lora_mid.weight", Role::Mid),
    ("alpha", Role::Alpha),
    ("dora_scale", Role::DoraScale),
    ("scale", Role::Other),
    ("hada_w1_a", Role::Other),
    ("hada_w1_b", Role::Other),
    ("hada_w2_a", Role::Other),
    ("hada_w2_b", Role::Other),
    ("hada_t1", Role::Other),
    ("hada_t2", Role::Other),
    ("lokr_w1", Role::Other),
    ("lokr_w2", Role::Other),
    ("lokr_w1_a", Role::Other),
    ("lokr_w1_b", Role::Other),
    ("lokr_w2_a", Role::Other),
    ("lokr_w2_b", Role::Other),
    ("lokr_t2", Role::Other),
    ("diff", Role::Other),
    ("diff_b", Role::Other),
    ("oft_blocks", Role::Other),
];

/// What A1111 makes of the names.
pub(super) fn read<'a>(names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
    let stems = stems(model);
    let mut reading = Reading::default();
    let mut factors: BTreeMap<&str, [bool; 2]> = BTreeMap::new();
    for &name in names {
        let Some((stem, part)) = name.split_once('.') else { continue };
        let role = PARTS.iter().find(|(known, _)| *known == part).map(|(_, role)| *role);
        let (Some(&layer), Some(role)) = (stems.get(stem), role) else { continue };
        reading.known.insert(name, (layer, role));
        let found = factors.entry(stem).or_default();
        match role {
            Role::Down => found[0] = true,
            Role::Up => found[1] = true,
            // Their own completeness is not judged here.
            Role::Other => *found = [true; 2],
            Role::Mid | Role::Alpha | Role::DoraScale => {}
        }
    }
    let half = factors.iter().find(|(_, found)| **found != [true; 2]);
    reading.refusal = half.map(|(stem, _)| {
        format!("`{stem}` has not both factors, which ends the loading of the whole file")
    });
    reading
}

/// The stems that lead to a layer of the model.
fn stems(model: &ModelKeys) -> BTreeMap<String, usize> {
    let mut stems = BTreeMap::new();
    for (place, layer) in model.layers.iter().enumerate() {
        let found = if layer.component == "unet" {
            unet_stems(layer, model)
        } else {
            text_stems(layer, model.towers)
        };
        stems.extend(found.into_iter().map(|stem| (stem, place)));
    }
    stems
}

/// Names of the original code always, and those of diffusers where the patterns lead to the right place.
fn unet_stems(layer: &LayerKeys, model: &ModelKeys) -> Vec<String> {
    let mut stems: Vec<String> =
        layer.ldm.iter().map(|path| format!("lora_unet_{}", path.replace('.', "_"))).collect();
    let parts: Vec<&str> = layer.inner.split('.').collect();
    // Its pattern for upsamplers takes the first level for one without attention, as in SD 1.x; SDXL's has some.
    let misled = model.is_sdxl() && parts.starts_with(&["up_blocks", "0", "upsamplers"]);
    let in_patterns = matches!(
        parts.first(),
        Some(
            &("conv_in"
                | "conv_out"
                | "time_embedding"
                | "down_blocks"
                | "mid_block"
                | "up_blocks")
        )
    );
    if in_patterns && !misled {
        stems.push(format!("lora_unet_{}", layer.stem()));
    }
    stems
}

fn text_stems(layer: &LayerKeys, towers: TextTowers) -> Vec<String> {
    if layer.text_place().is_none() {
        return Vec::new();
    }
    let stem = layer.stem();
    match (layer.component.as_str(), towers) {
        ("text_encoder_2", _) => vec![format!("lora_te2_{stem}")],
        (_, TextTowers::Both) => vec![format!("lora_te1_{stem}")],
        // The second pattern knows no names of OpenCLIP.
        (_, TextTowers::OpenClip) => vec![format!("lora_te_{stem}")],
        (_, TextTowers::Clip) => vec![format!("lora_te_{stem}"), format!("lora_te1_{stem}")],
    }
}
