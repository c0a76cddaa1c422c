//! For which family of models an adapter file was made: from its keys and shapes, before any layer
//! is looked up.

use checkpoints::adapter_metadata::BaseModel;
use checkpoints::{Family, TensorFile};

use super::Layer;

/// Parts of the keys of first factors, whose second axis is the width of what the layer reads.
const FIRST_FACTORS: [&str; 5] =
    ["lora_down", "lora_A", "lora.down", "lora_linear_layer.down", "hada_w1_b"];

/// Beginnings of keys that belong to networks of another kind.
const OTHERS: [(&str, &str); 16] = [
    ("transformer.", "a diffusion transformer"),
    ("lora_transformer_", "a diffusion transformer"),
    ("lycoris_transformer_blocks_", "a diffusion transformer"),
    ("lycoris_single_transformer_blocks_", "a diffusion transformer"),
    ("base_model.model.transformer_blocks.", "a diffusion transformer"),
    ("diffusion_model.blocks.", "a diffusion transformer"),
    ("diffusion_model.layers.", "a diffusion transformer"),
    ("diffusion_model.double_blocks.", "a diffusion transformer"),
    ("diffusion_model.single_blocks.", "a diffusion transformer"),
    ("diffusion_model.joint_blocks.", "a diffusion transformer"),
    ("lora_unet_blocks_", "a diffusion transformer"),
    ("lora_unet_double_blocks_", "a diffusion transformer"),
    ("lora_unet_single_blocks_", "a diffusion transformer"),
    ("lora_unet_joint_blocks_", "a diffusion transformer"),
    ("lora_te3_", "a model with three text encoders"),
    ("lora_prior_", "Stable Cascade"),
];

/// Widths of the text states that the released models read.
const WIDTHS: [(usize, Family); 3] =
    [(768, Family::Sd1), (1024, Family::Sd2), (2048, Family::Sdxl)];

/// What the keys and shapes of a file say; each with a key that says it.
#[derive(Debug)]
struct Traces<'a> {
    /// Another kind of network.
    other: Option<(&'static str, &'a str)>,
    /// Width of the text states that cross-attention reads.
    text: Option<(usize, &'a str)>,
    /// Width of the first text encoder.
    encoder: Option<(usize, &'a str)>,
    /// A layer of a second text encoder.
    second: Option<&'a str>,
    /// Names that sgm gives blocks.
    sgm: Option<&'a str>,
    /// More than one transformer block after another.
    deep: Option<&'a str>,
}

impl<'a> Traces<'a> {
    fn of(file: &'a TensorFile) -> Self {
        let other = |key: &'a str| {
            let found = OTHERS.iter().find(|(start, _)| key.starts_with(start));
            found.map(|(_, name)| (*name, key))
        };
        let of_unet = |key: &str, parts: &[&str]| !is_text(key) && holds(key, parts);
        Self {
            other: file.names().find_map(other),
            text: width(file, |key| key.contains("attn2") && holds(key, &["to_k", "to_v"])),
            encoder: width(file, |key| {
                is_text(key)
                    && !is_second(key)
                    && holds(key, &["q_proj", "k_proj", "v_proj", "fc1"])
            }),
            second: file.names().find(|key| is_second(key)),
            sgm: file
                .names()
                .find(|key| of_unet(key, &["input_blocks", "middle_block", "output_blocks"])),
            deep: file
                .names()
                .find(|key| of_unet(key, &["transformer_blocks_1_", "transformer_blocks.1."])),
        }
    }

    fn family(&self, file: &TensorFile) -> Option<Family> {
        if self.other.is_some() {
            return None;
        }
        let by_text = self.text.and_then(|(width, _)| family_of_width(width));
        let is_sdxl = self.second.or(self.sgm).or(self.deep).is_some();
        by_text
            .or(is_sdxl.then_some(Family::Sdxl))
            .or_else(|| BaseModel::stated(file.metadata()).map(BaseModel::family))
            .or_else(|| self.family_of_encoder())
    }

    /// The family of an adapter that reaches the text encoder alone. That of SD 1.x is SDXL's first
    /// one, too; only kohya's names tell them apart.
    fn family_of_encoder(&self) -> Option<Family> {
        match self.encoder.filter(|_| self.text.is_none())? {
            (768, key) if key.starts_with("lora_te_") => Some(Family::Sd1),
            (1024, _) => Some(Family::Sd2),
            // PEFT does not say that it is the second one.
            (1280, _) => Some(Family::Sdxl),
            _ => None,
        }
    }
}

fn holds(key: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| key.contains(part))
}

fn is_second(key: &str) -> bool {
    key.starts_with("lora_te2_") || key.starts_with("text_encoder_2.")
}

fn is_text(key: &str) -> bool {
    is_second(key) || holds(key, &["text_model", "text_encoder", "encoder.layers"])
}

/// Inputs of the first layer of this kind whose first factor is in the file.
fn width(file: &TensorFile, is_wanted: impl Fn(&str) -> bool) -> Option<(usize, &str)> {
    let key = file.names().find(|key| is_wanted(key) && holds(key, &FIRST_FACTORS))?;
    Some((*file.info(key)?.shape.get(1)?, key))
}

/// The family whose released models read text states of this width.
fn family_of_width(width: usize) -> Option<Family> {
    let released = WIDTHS.iter().find(|(of_family, _)| *of_family == width);
    released.map(|(_, family)| *family).or_else(|| {
        let config = Family::Postcards.unet_config()?;
        let of_postcards = config.get("cross_attention_dim")?.as_u64()?;
        (of_postcards == width as u64).then_some(Family::Postcards)
    })
}

/// The family of base models for which an adapter was made, from its keys and shapes, or where they
/// leave it open from its header; `None` for what is none of them, and for one that could belong to
/// several.
pub fn adapter_family(file: &TensorFile) -> Option<Family> {
    Traces::of(file).family(file)
}

/// Why a file cannot be meant for a base with these layers: one sentence in place of a list of all
/// keys.
pub(super) fn refusal(file: &TensorFile, layers: &[Layer]) -> Option<String> {
    let traces = Traces::of(file);
    if let Some((name, key)) = traces.other {
        return Some(format!("is for {name} (its key `{key}`), which is not supported"));
    }
    let has = |start: &str| layers.iter().any(|layer| layer.path.starts_with(start));
    let reads = |end: &str| {
        let layer = layers.iter().find(|layer| layer.path.ends_with(end))?;
        layer.weight.get(1).copied()
    };
    if let (Some((found, key)), Some(expected)) = (traces.text, reads("attn2.to_k"))
        && found != expected
    {
        let (of, on) = (traces.family(file), family_of_width(expected));
        let of = of.map_or("another base", Family::title);
        let on = on.map(|family| format!(" ({})", family.title())).unwrap_or_default();
        return Some(format!(
            "is for {of}: `{key}` reads text states of width {found}, the base{on} has width \
             {expected}"
        ));
    }
    let second = traces.second.filter(|_| has("text_encoder.") && !has("text_encoder_2."));
    let is_sdxl = has("text_encoder_2.") || has("unet.add_embedding.");
    let sgm = traces.sgm.filter(|_| has("unet.") && !is_sdxl);
    if let Some(key) = second.or(sgm) {
        let title = Family::Sdxl.title();
        return Some(format!("is for {title} (its key `{key}`), the base is of another family"));
    }
    let (found, key) = traces.encoder?;
    let width = |component: &str| {
        reads(&format!("{component}.text_model.encoder.layers.0.self_attn.q_proj"))
    };
    let expected = width("text_encoder")?;
    // PEFT does not say which of two text encoders it means.
    let second = width("text_encoder_2").filter(|_| key.starts_with("base_model."));
    (found != expected && Some(found) != second).then(|| {
        format!("is for another base: `{key}` reads width {found}, the text encoder has {expected}")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use checkpoints::{HostTensor, TensorMap};

    use super::*;

    const QUERY: &str = "transformer_blocks_0_attn2_to_k.lora_down.weight";

    fn with<T>(
        keys: &[(&str, usize)],
        metadata: &[(&str, &str)],
        check: impl Fn(&TensorFile) -> T,
    ) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensor = |width: usize| HostTensor::from_f32([1, width], vec![0.0; width]);
        let tensors: TensorMap =
            keys.iter().map(|&(key, width)| (key.to_owned(), tensor(width))).collect();
        let text = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        let metadata: BTreeMap<String, String> = metadata.iter().map(text).collect();
        checkpoints::write_tensors(&path, &tensors, &metadata).unwrap();
        check(&TensorFile::open(&path).unwrap())
    }

    fn family(keys: &[(&str, usize)], metadata: &[(&str, &str)]) -> Option<Family> {
        with(keys, metadata, adapter_family)
    }

    #[test]
    fn keys_and_shapes_tell_the_family() {
        let kohya = format!("lora_unet_down_blocks_0_attentions_0_{QUERY}");
        let sgm = format!("lora_unet_input_blocks_4_1_{QUERY}");
        let peft =
            "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight";
        let old = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight";
        let clip = "text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight";
        let peft_text = "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight";
        let (te, te1, te2) =
            (format!("lora_te_{clip}"), format!("lora_te1_{clip}"), format!("lora_te2_{clip}"));
        for (key, width, expected) in [
            (kohya.as_str(), 768, Some(Family::Sd1)),
            (kohya.as_str(), 1024, Some(Family::Sd2)),
            (kohya.as_str(), 2048, Some(Family::Sdxl)),
            (kohya.as_str(), 77, None),
            (sgm.as_str(), 2048, Some(Family::Sdxl)),
            (peft, 1024, Some(Family::Sd2)),
            (old, 768, Some(Family::Sd1)),
            ("lora_unet_input_blocks_4_1_proj_in.lora_down.weight", 640, Some(Family::Sdxl)),
            ("lora_unet_mid_block_resnets_0_conv1.lora_down.weight", 1280, None),
            (te.as_str(), 768, Some(Family::Sd1)),
            (te.as_str(), 1024, Some(Family::Sd2)),
            (te1.as_str(), 768, None),
            (peft_text, 768, None),
            (peft_text, 1280, Some(Family::Sdxl)),
            (te2.as_str(), 1280, Some(Family::Sdxl)),
            ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 3072, None),
        ] {
            assert_eq!(family(&[(key, width)], &[]), expected, "{key} {width}");
        }
        if let Some(config) = Family::Postcards.unet_config() {
            let width = config["cross_attention_dim"].as_u64().unwrap() as usize;
            assert_eq!(family(&[(kohya.as_str(), width)], &[]), Some(Family::Postcards));
        }
    }

    #[test]
    fn the_header_decides_what_keys_leave_open() {
        let open = [("lora_unet_mid_block_resnets_0_conv1.lora_down.weight", 1280)];
        let header = [("ss_base_model_version", "sd_v2_v")];
        assert_eq!(family(&open, &header), Some(Family::Sd2));
        let header = [("modelspec.architecture", "populate-postcards/lora")];
        assert_eq!(family(&open, &header), Some(Family::Postcards));
        // Shapes are stronger than what a header says.
        let kohya = format!("lora_unet_down_blocks_0_attentions_0_{QUERY}");
        assert_eq!(
            family(&[(kohya.as_str(), 768)], &[("ss_base_model_version", "sdxl_base_v1-0")]),
            Some(Family::Sd1)
        );
    }

    #[test]
    fn what_is_for_another_base_is_said_in_one_sentence() {
        let layer =
            |path: &str, weight: &[usize]| Layer { path: path.to_owned(), weight: weight.to_vec() };
        let sd1 = [
            layer("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", &[320, 768]),
            layer("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", &[768, 768]),
        ];
        let sgm = format!("lora_unet_input_blocks_4_1_{QUERY}");
        let text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight";
        let kohya = format!("lora_unet_down_blocks_0_attentions_0_{QUERY}");
        for (key, width, expected) in [
            (
                sgm.as_str(),
                2048,
                Some(format!(
                    "is for Stable Diffusion XL: `{sgm}` reads text states of width 2048, the base \
                     (Stable Diffusion 1.x) has width 768"
                )),
            ),
            (
                "lora_unet_input_blocks_4_1_proj_in.lora_down.weight",
                640,
                Some(
                    "is for Stable Diffusion XL (its key \
                     `lora_unet_input_blocks_4_1_proj_in.lora_down.weight`), the base is of another \
                     family"
                        .to_owned(),
                ),
            ),
            (
                "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
                3072,
                Some(
                    "is for a diffusion transformer (its key \
                     `lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight`), which is not \
                     supported"
                        .to_owned(),
                ),
            ),
            (
                text,
                1024,
                Some(format!(
                    "is for another base: `{text}` reads width \
                     1024, the text encoder has 768"
                )),
            ),
            (text, 768, None),
            (kohya.as_str(), 768, None),
        ] {
            assert_eq!(with(&[(key, width)], &[], |file| refusal(file, &sd1)), expected, "{key}");
        }
    }
}
