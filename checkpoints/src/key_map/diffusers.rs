//! The spellings that diffusers and PEFT have used for adapter tensors, old and new.

use super::parse::Part;

/// Suffixes after the layer path. Longer ones come before those that they end with.
const SUFFIXES: [(&str, Part); 17] = [
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    // PEFT with the name of its adapter, as a state dict of the live model has it.
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora_A", Part::Down),
    (".lora_B", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    // Dotted paths with kohya's suffixes.
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_magnitude_vector.weight", Part::DoraScale),
    (".lora_magnitude_vector", Part::DoraScale),
    (".alpha", Part::Alpha),
];

/// Layers of a text encoder's attention as diffusers spelled them before PEFT.
const OLD_TEXT: [(&str, &str); 4] = [
    (".self_attn.to_q", ".self_attn.q_proj"),
    (".self_attn.to_k", ".self_attn.k_proj"),
    (".self_attn.to_v", ".self_attn.v_proj"),
    (".self_attn.to_out", ".self_attn.out_proj"),
];

/// Candidates for the layer path of a key, and its part; `None` if the suffix is none of theirs.
pub(super) fn layer_and_part(key: &str) -> Option<(Vec<String>, Part)> {
    let (suffix, part) = SUFFIXES.into_iter().find(|(suffix, _)| key.ends_with(suffix))?;
    let mut layer = key[..key.len() - suffix.len()].replace(".processor.", ".");
    if let Some((old, new)) = OLD_TEXT.into_iter().find(|(old, _)| layer.ends_with(old)) {
        layer.truncate(layer.len() - old.len());
        layer.push_str(new);
    } else if layer.ends_with(".to_out") {
        layer.push_str(".0");
    }
    Some((candidates(&layer), part))
}

/// `text_encoder.encoder…` lacks `text_model.`; PEFT's own files do not name the component.
fn candidates(layer: &str) -> Vec<String> {
    if let Some(inner) = layer.strip_prefix("base_model.model.") {
        let bare = [
            "unet.",
            "text_encoder.",
            "text_encoder.text_model.",
            "text_encoder_2.",
            "text_encoder_2.text_model.",
        ]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_lead_to_the_path_that_a_model_has() {
        let text = "text_encoder.text_model.encoder.layers.0.self_attn";
        for (key, path, part) in [
            (format!("{text}.to_q_lora.down.weight"), format!("{text}.q_proj"), Part::Down),
            (format!("{text}.to_out_lora.up.weight"), format!("{text}.out_proj"), Part::Up),
            (
                format!("{text}.q_proj.lora_linear_layer.up.weight"),
                format!("{text}.q_proj"),
                Part::Up,
            ),
            (
                "text_encoder.encoder.layers.0.self_attn.v_proj.lora_A.weight".to_owned(),
                format!("{text}.v_proj"),
                Part::Down,
            ),
            (
                "unet.x.attn1.processor.to_out.lora_A.default.weight".to_owned(),
                "unet.x.attn1.to_out.0".to_owned(),
                Part::Down,
            ),
            (
                "unet.x.attn1.to_q.lora_up.weight".to_owned(),
                "unet.x.attn1.to_q".to_owned(),
                Part::Up,
            ),
        ] {
            let (paths, found) = layer_and_part(&key).unwrap();
            assert!(paths.contains(&path) && found == part, "{key}: {paths:?}");
        }
        assert!(layer_and_part("unet.x.attn1.to_q.weight").is_none());
    }
}
