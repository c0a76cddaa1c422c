//! A model as the readers see it: its layers under the names of diffusers and of the original code.

use std::collections::{BTreeMap, BTreeSet};

/// Layers of a model under all names from which readers derive theirs.
#[derive(Debug, Clone)]
pub struct ModelKeys {
    pub(super) layers: Vec<LayerKeys>,
    pub(super) towers: TextTowers,
}

/// One layer.
#[derive(Debug, Clone)]
pub(super) struct LayerKeys {
    /// `unet`, `text_encoder` or `text_encoder_2`.
    pub(super) component: String,
    /// diffusers path below the component.
    pub(super) inner: String,
    /// Path in the original (ldm, sgm) code, for layers of the UNet.
    pub(super) ldm: Option<String>,
    /// Shape of the weight; empty if it is not known.
    pub(super) weight: Vec<usize>,
}

impl LayerKeys {
    /// The diffusers path without dots.
    pub(super) fn stem(&self) -> String {
        self.inner.replace('.', "_")
    }

    /// Number and kind of a layer of a text encoder: `(3, "self_attn.q_proj")`.
    pub(super) fn text_place(&self) -> Option<(usize, &str)> {
        let rest = self.inner.strip_prefix("text_model.encoder.layers.")?;
        let (number, kind) = rest.split_once('.')?;
        Some((number.parse().ok()?, kind))
    }

    /// Whether it is a layer of a UNet's attention.
    pub(super) fn is_attention(&self) -> bool {
        self.component == "unet"
            && self.inner.split('.').any(|part| part == "attn1" || part == "attn2")
    }
}

/// The text encoders of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTowers {
    /// CLIP as in SD 1.x, or none.
    Clip,
    /// `OpenCLIP` as in SD 2.x.
    OpenClip,
    /// Both, as in SDXL.
    Both,
}

/// Layers of SD 2.x's text encoder.
const OPEN_CLIP_LAYERS: usize = 23;

impl ModelKeys {
    /// The names of a model with these layers: paths such as `unet.down_blocks.0…` with the shapes of the weights, which
    /// may be empty. The list has to be complete, because the original code numbers blocks by counting them.
    pub fn new<'a>(layers: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Self {
        let split: Vec<(&str, &str, &[usize])> = layers
            .into_iter()
            .filter_map(|(path, weight)| {
                let (component, inner) = path.split_once('.')?;
                Some((component, inner, weight))
            })
            .collect();
        let of_unet = split.iter().filter(|(component, ..)| *component == "unet");
        let places = places(&of_unet.map(|(_, inner, _)| *inner).collect::<Vec<_>>());
        let towers = towers(&split);
        let layers = split
            .into_iter()
            .map(|(component, inner, weight)| LayerKeys {
                component: component.to_owned(),
                inner: inner.to_owned(),
                ldm: (component == "unet").then(|| ldm_path(inner, &places)).flatten(),
                weight: weight.to_vec(),
            })
            .collect();
        Self { layers, towers }
    }

    /// Whether the model has SDXL's two text encoders or its conditions.
    pub(super) fn is_sdxl(&self) -> bool {
        self.towers == TextTowers::Both
    }
}

fn towers(layers: &[(&str, &str, &[usize])]) -> TextTowers {
    let has = |component: &str, start: &str| {
        layers.iter().any(|(other, inner, _)| *other == component && inner.starts_with(start))
    };
    if has("text_encoder_2", "") || has("unet", "add_embedding.") {
        return TextTowers::Both;
    }
    let last = format!("text_model.encoder.layers.{}.", OPEN_CLIP_LAYERS - 1);
    let next = format!("text_model.encoder.layers.{OPEN_CLIP_LAYERS}.");
    if has("text_encoder", &last) && !has("text_encoder", &next) {
        return TextTowers::OpenClip;
    }
    TextTowers::Clip
}

/// Where the original code keeps the blocks of a UNet: by the diffusers path of a resnet, transformer or sampler.
type Places = BTreeMap<String, String>;

/// Counts the blocks of a UNet in the order in which the original code appends them.
fn places(layers: &[&str]) -> Places {
    let numbers_below = |start: &str| -> BTreeSet<usize> {
        let rests = layers.iter().filter_map(|layer| layer.strip_prefix(start));
        rests.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect()
    };
    let has = |start: &str| layers.iter().any(|layer| layer.starts_with(start));
    let mut places = Places::new();
    // `input_blocks.0` is the first convolution.
    let mut count = 1;
    for level in numbers_below("down_blocks.") {
        let block = format!("down_blocks.{level}");
        for index in numbers_below(&format!("{block}.resnets.")) {
            places.insert(format!("{block}.resnets.{index}"), format!("input_blocks.{count}.0"));
            places.insert(format!("{block}.attentions.{index}"), format!("input_blocks.{count}.1"));
            count += 1;
        }
        if has(&format!("{block}.downsamplers.")) {
            places.insert(
                format!("{block}.downsamplers.0.conv"),
                format!("input_blocks.{count}.0.op"),
            );
            count += 1;
        }
    }
    for (path, place) in [("resnets.0", "0"), ("attentions.0", "1"), ("resnets.1", "2")] {
        places.insert(format!("mid_block.{path}"), format!("middle_block.{place}"));
    }
    let mut count = 0;
    for level in numbers_below("up_blocks.") {
        let block = format!("up_blocks.{level}");
        let after = if has(&format!("{block}.attentions.")) { 2 } else { 1 };
        for index in numbers_below(&format!("{block}.resnets.")) {
            places.insert(format!("{block}.resnets.{index}"), format!("output_blocks.{count}.0"));
            places
                .insert(format!("{block}.attentions.{index}"), format!("output_blocks.{count}.1"));
            // The upsampler follows the last of them.
            places.insert(
                format!("{block}.upsamplers.0.conv"),
                format!("output_blocks.{count}.{after}.conv"),
            );
            count += 1;
        }
    }
    places
}

/// Layers outside of blocks, and those inside a resnet, under both names.
const OUTSIDE: [(&str, &str); 6] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
];
const IN_RESNET: [(&str, &str); 4] = [
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// The original path of a layer below the UNet.
fn ldm_path(inner: &str, places: &Places) -> Option<String> {
    if let Some((_, original)) = OUTSIDE.iter().find(|(path, _)| *path == inner) {
        return Some((*original).to_owned());
    }
    if let Some(place) = places.get(inner) {
        return Some(place.clone());
    }
    let parts: Vec<&str> = inner.split('.').collect();
    // `mid_block.attentions.0` has three parts, `down_blocks.1.attentions.0` four.
    let (place, rest) = [3, 4].into_iter().filter(|&n| n < parts.len()).find_map(|n| {
        let place = places.get(&parts[..n].join("."))?;
        Some((place, parts[n..].join(".")))
    })?;
    let renamed = IN_RESNET.iter().find(|(path, _)| *path == rest).map(|(_, original)| *original);
    Some(format!("{place}.{}", renamed.unwrap_or(&rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_numbered_by_counting_them() {
        let layers = [
            "unet.conv_in",
            "unet.down_blocks.0.resnets.0.conv1",
            "unet.down_blocks.0.resnets.1.conv1",
            "unet.down_blocks.0.downsamplers.0.conv",
            "unet.down_blocks.1.resnets.0.conv_shortcut",
            "unet.down_blocks.1.attentions.0.proj_in",
            "unet.down_blocks.1.resnets.1.conv1",
            "unet.mid_block.resnets.1.conv2",
            "unet.mid_block.attentions.0.proj_out",
            "unet.up_blocks.0.resnets.0.time_emb_proj",
            "unet.up_blocks.0.resnets.1.conv1",
            "unet.up_blocks.0.resnets.2.conv1",
            "unet.up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_out.0",
            "unet.up_blocks.0.upsamplers.0.conv",
            "unet.up_blocks.1.resnets.0.conv1",
            "unet.time_embedding.linear_2",
            "text_encoder.text_model.encoder.layers.3.mlp.fc1",
        ];
        let model = ModelKeys::new(layers.map(|path| (path, [].as_slice())));
        let found: Vec<&str> =
            model.layers.iter().map(|layer| layer.ldm.as_deref().unwrap_or("none")).collect();
        let expected = [
            "input_blocks.0.0",
            "input_blocks.1.0.in_layers.2",
            "input_blocks.2.0.in_layers.2",
            "input_blocks.3.0.op",
            "input_blocks.4.0.skip_connection",
            "input_blocks.4.1.proj_in",
            "input_blocks.5.0.in_layers.2",
            "middle_block.2.out_layers.3",
            "middle_block.1.proj_out",
            "output_blocks.0.0.emb_layers.1",
            "output_blocks.1.0.in_layers.2",
            "output_blocks.2.0.in_layers.2",
            "output_blocks.2.1.transformer_blocks.0.attn1.to_out.0",
            "output_blocks.2.2.conv",
            "output_blocks.3.0.in_layers.2",
            "time_embed.2",
            "none",
        ];
        assert_eq!(found, expected);
        assert_eq!(model.layers[16].text_place(), Some((3, "mlp.fc1")));
        assert_eq!(model.towers, TextTowers::Clip);
    }

    #[test]
    fn text_encoders_are_told_apart() {
        let layers = |component: &str, n: usize| -> Vec<String> {
            (0..n).map(|n| format!("{component}.text_model.encoder.layers.{n}.mlp.fc1")).collect()
        };
        let towers = |paths: &[String]| {
            ModelKeys::new(paths.iter().map(|path| (path.as_str(), [].as_slice()))).towers
        };
        assert_eq!(towers(&layers("text_encoder", 12)), TextTowers::Clip);
        assert_eq!(towers(&layers("text_encoder", 23)), TextTowers::OpenClip);
        assert_eq!(towers(&layers("text_encoder", 24)), TextTowers::Clip);
        let both = [layers("text_encoder", 12), layers("text_encoder_2", 32)].concat();
        assert_eq!(towers(&both), TextTowers::Both);
    }
}
