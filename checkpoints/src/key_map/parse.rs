//! From the key of an adapter file to a layer and a part.

use super::{KeyMap, diffusers, key_error};
use crate::error::CheckpointError;

/// A tensor of a layer's adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A: `[r, in]`, or `[r, in, k, k]` for a convolution.
    Down,
    /// B: `[out, r]`, or `[out, r, 1, 1]`.
    Up,
    /// Numerator of the scale alpha / r, a scalar.
    Alpha,
    /// Core of a Tucker decomposition, `[r, r, k, k]`.
    Mid,
    /// Magnitudes of `DoRA`.
    DoraScale,
}

impl Part {
    pub(super) const fn kohya_suffix(self) -> &'static str {
        match self {
            Self::Down => "lora_down.weight",
            Self::Up => "lora_up.weight",
            Self::Alpha => "alpha",
            Self::Mid => "lora_mid.weight",
            Self::DoraScale => "dora_scale",
        }
    }

    pub(super) const fn diffusers_suffix(self) -> Option<&'static str> {
        match self {
            Self::Down => Some("lora_A.weight"),
            Self::Up => Some("lora_B.weight"),
            Self::DoraScale => Some("lora_magnitude_vector"),
            Self::Alpha | Self::Mid => None,
        }
    }

    /// The kind of adapter other than a plain LoRA to which a key belongs, whatever its layer; `None` for the keys of a
    /// LoRA and for those of no adapter.
    pub fn other_kind(key: &str) -> Option<&'static str> {
        if key.ends_with(".lora_mid.weight") {
            return Some("a Tucker decomposition (LoCon with `lora_mid`)");
        }
        if key.ends_with(".dora_scale") || key.contains("lora_magnitude_vector") {
            return Some("DoRA");
        }
        // `x.hada_w1_a`, or `x.a1.weight`.
        let last = |key: &str| key.rsplit_once('.').map(|(_, last)| last.to_owned());
        let inner = key.strip_suffix(".weight").and_then(last);
        let kind_of = |name: &str| {
            let by_name = OTHER_NAMES.iter().find(|(own, _)| *own == name);
            let by_start = || OTHER_STARTS.iter().find(|(start, _)| name.starts_with(start));
            by_name.or_else(by_start).map(|(_, kind)| *kind)
        };
        let is_glora = |name: &String| ["a1", "a2", "b1", "b2"].contains(&name.as_str());
        if inner.as_ref().is_some_and(is_glora) {
            return Some("GLoRA");
        }
        last(key).and_then(|name| kind_of(&name)).or_else(|| inner.and_then(|name| kind_of(&name)))
    }

    const ALL: [Self; 5] = [Self::Down, Self::Up, Self::Alpha, Self::Mid, Self::DoraScale];
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedKey {
    /// Path of the layer, with its component.
    pub path: String,
    /// Which tensor of its adapter.
    pub part: Part,
}

/// Other kinds of adapters, by the beginning of the last part of their keys.
const OTHER_STARTS: [(&str, &str); 7] = [
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("oft_", "OFT"),
    ("boft_", "BOFT"),
    ("vera_lambda", "VeRA"),
    ("ia3_l", "IA3"),
    ("lora_embedding_", "an adapter of an embedding"),
];
/// The same, by the whole of it.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("on_input", "IA3"),
    ("w_norm", "an adapter of norms"),
    ("b_norm", "an adapter of norms"),
    ("diff", "a full difference"),
    ("diff_b", "a full difference"),
    ("set_weight", "a replaced weight"),
];

/// Beginnings of the stems of kohya's tools and of `LyCORIS` as `SimpleTuner` writes it.
const STEMS: [(&str, &str); 2] = [("lora_", "lora_"), ("lycoris_", "lora_unet_")];

pub(super) fn parse(
    map: &KeyMap,
    key: &str,
    fits: &dyn Fn(&ParsedKey) -> bool,
) -> Result<ParsedKey, CheckpointError> {
    for (start, own) in STEMS {
        if let Some(rest) = key.strip_prefix(start) {
            return parse_kohya(map, key, &format!("{own}{rest}"));
        }
    }
    if let Some(kind) = Part::other_kind(key).filter(|kind| *kind != "DoRA") {
        return Err(key_error(key, &foreign(kind)));
    }
    let (layers, part) =
        diffusers::layer_and_part(key).ok_or_else(|| key_error(key, "is no tensor of a LoRA"))?;
    let known: Vec<ParsedKey> = layers
        .into_iter()
        .filter(|layer| map.contains(layer))
        .map(|path| ParsedKey { path, part })
        .collect();
    let chosen = known.iter().find(|parsed| fits(parsed)).or(known.first());
    chosen.cloned().ok_or_else(|| key_error(key, "names a layer that this model lacks"))
}

fn foreign(kind: &str) -> String {
    format!("belongs to {kind}, expected a LoRA (`lora_down`, `lora_up`, `alpha`)")
}

/// `own` is the key in the spelling of the table.
fn parse_kohya(map: &KeyMap, key: &str, own: &str) -> Result<ParsedKey, CheckpointError> {
    let (stem, suffix) = own.split_once('.').ok_or_else(|| key_error(key, "has no suffix"))?;
    let Some(part) = Part::ALL.into_iter().find(|part| part.kohya_suffix() == suffix) else {
        let reason = Part::other_kind(key)
            .map_or_else(|| format!("has the unknown suffix `{suffix}`"), foreign);
        return Err(key_error(key, &reason));
    };
    let path = map
        .diffusers_from_kohya(stem)
        .ok_or_else(|| key_error(key, "names a layer that this model lacks"))?;
    Ok(ParsedKey { path: path.to_owned(), part })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_are_told_by_their_keys_in_every_form() {
        for (key, kind) in [
            ("lora_unet_x.lora_mid.weight", Some("a Tucker decomposition (LoCon with `lora_mid`)")),
            ("lora_unet_x.dora_scale", Some("DoRA")),
            ("unet.x.lora_magnitude_vector", Some("DoRA")),
            ("base_model.model.x.lora_magnitude_vector.weight", Some("DoRA")),
            ("lora_unet_x.hada_w1_a", Some("LoHa")),
            ("base_model.model.x.hada_w1_a", Some("LoHa")),
            ("lora_unet_x.lokr_w2_b", Some("LoKr")),
            ("lora_unet_x.oft_blocks", Some("OFT")),
            ("lora_unet_x.a1.weight", Some("GLoRA")),
            ("lora_unet_x.diff_b", Some("a full difference")),
            ("lora_unet_x.w_norm", Some("an adapter of norms")),
            ("lora_unet_x.set_weight", Some("a replaced weight")),
            ("lora_unet_x.lora_down.weight", None),
            ("lora_unet_x.alpha", None),
            ("unet.down_blocks.0.x.lora_A.weight", None),
            ("unet.x.processor.to_q_lora.down.weight", None),
            ("first_stage_model.decoder.weight", None),
            ("model_ema.diffusion_modelinput_blocks00weight", None),
        ] {
            assert_eq!(Part::other_kind(key), kind, "{key}");
        }
    }
}
