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

/// Other kinds of adapters, by the suffix that betrays them.
const OTHER_KINDS: [(&str, &str); 11] = [
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("oft_blocks", "OFT"),
    ("a1.", "GLoRA"),
    ("a2.", "GLoRA"),
    ("b1.", "GLoRA"),
    ("b2.", "GLoRA"),
    ("w_norm", "a norm adapter"),
    ("b_norm", "a norm adapter"),
    ("diff", "a full difference"),
    ("set_weight", "a replaced weight"),
];

pub(super) fn parse(map: &KeyMap, key: &str) -> Result<ParsedKey, CheckpointError> {
    if key.starts_with("lora_") {
        return parse_kohya(map, key);
    }
    let (layers, part) =
        diffusers::layer_and_part(key).ok_or_else(|| key_error(key, "is no tensor of a LoRA"))?;
    let path = layers.into_iter().find(|layer| map.contains(layer));
    let path = path.ok_or_else(|| key_error(key, "names a layer that this model lacks"))?;
    Ok(ParsedKey { path, part })
}

fn parse_kohya(map: &KeyMap, key: &str) -> Result<ParsedKey, CheckpointError> {
    let (stem, suffix) = key.split_once('.').ok_or_else(|| key_error(key, "has no suffix"))?;
    let Some(part) = Part::ALL.into_iter().find(|part| part.kohya_suffix() == suffix) else {
        let kind =
            OTHER_KINDS.iter().find(|(start, _)| suffix.starts_with(start)).map(|(_, kind)| *kind);
        let reason = kind.map_or_else(
            || format!("has the unknown suffix `{suffix}`"),
            |kind| format!("belongs to {kind}, expected a LoRA (`lora_down`, `lora_up`, `alpha`)"),
        );
        return Err(key_error(key, &reason));
    };
    let path = map
        .diffusers_from_kohya(stem)
        .ok_or_else(|| key_error(key, "names a layer that this model lacks"))?;
    Ok(ParsedKey { path: path.to_owned(), part })
}
