//! The spellings that diffusers and PEFT have used for adapter tensors, old and new.

use super::parse::Part;

/// Suffixes after the layer path. Longer ones come before those that they end with.
const SUFFIXES: [(&str, Part); 11] = [
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".lora_magnitude_vector.weight", Part::DoraScale),
    (".lora_magnitude_vector", Part::DoraScale),
    (".alpha", Part::Alpha),
];

/// Candidates for the layer path of a key, and its part; `None` if the suffix is none of theirs.
pub(super) fn layer_and_part(key: &str) -> Option<(Vec<String>, Part)> {
    let (suffix, part) = SUFFIXES.into_iter().find(|(suffix, _)| key.ends_with(suffix))?;
    let mut layer = key[..key.len() - suffix.len()].replace(".processor.", ".");
    if suffix.starts_with('_') && layer.ends_with(".to_out") {
        layer.push_str(".0");
    }
    Some((candidates(&layer), part))
}

/// `text_encoder.encoder…` lacks `text_model.`; PEFT's own files do not name the component.
fn candidates(layer: &str) -> Vec<String> {
    if let Some(inner) = layer.strip_prefix("base_model.model.") {
        let bare = ["unet.", "text_encoder.", "text_encoder.text_model."]
            .map(|component| format!("{component}{inner}"));
        return [candidates(inner), bare.to_vec()].concat();
    }
    let mut candidates = vec![layer.to_owned()];
    for component in ["text_encoder.", "text_encoder_2."] {
        if let Some(inner) = layer.strip_prefix(component) {
            candidates.push(format!("{component}text_model.{inner}"));
        }
    }
    candidates
}
