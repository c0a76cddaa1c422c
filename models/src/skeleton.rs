//! Networks without weights: which layers a configuration means, before or instead of loading them.

use checkpoints::{Family, ModelFiles};

use crate::adapter::{Layer, layers};
use crate::clip::{CLIPTextModel, ClipTextConfig, TextProjection};
use crate::error::ModelError;
use crate::ops;
use crate::parts::{TEXT_ENCODERS, TextShape, text_shape, unet_config};
use crate::source::Builder;
use crate::unet::{UNet2DConditionModel, UNetConfig};

/// The layers that adapters reach, as [`crate::adapter::base_layers`] lists those of a loaded base:
/// below `unet`, `text_encoder` and `text_encoder_2`. The second text encoder has a projection, as
/// in SDXL. Nothing is allocated for the weights.
///
/// # Errors
///
/// [`ModelError::Config`] for more than two text encoders.
pub fn skeleton_layers(
    unet: &UNetConfig,
    text_encoders: &[ClipTextConfig],
) -> Result<Vec<Layer>, ModelError> {
    if text_encoders.len() > TEXT_ENCODERS.len() {
        return Err(ModelError::Config {
            file: "model_index.json".to_owned(),
            field: "text_encoder_3".to_owned(),
            found: format!("one of {} text encoders", text_encoders.len()),
            expected: "at most two".to_owned(),
        });
    }
    let projections = [TextProjection::Without, TextProjection::With];
    let shape = |(clip, projection): (&ClipTextConfig, TextProjection)| TextShape {
        clip: clip.clone(),
        projection,
    };
    let shapes: Vec<TextShape> = text_encoders.iter().zip(projections).map(shape).collect();
    Ok(named_layers(unet, &TEXT_ENCODERS.into_iter().zip(shapes).collect::<Vec<_>>()))
}

/// Layers and UNet of the released models of a family.
///
/// # Errors
///
/// [`ModelError::Config`] for postcards where no base is embedded.
pub fn family_layers(family: Family) -> Result<(Vec<Layer>, UNetConfig), ModelError> {
    let Some(unet) = family.unet_config() else {
        return Err(ModelError::Config {
            file: family.title().to_owned(),
            field: "unet".to_owned(),
            found: "not in this build".to_owned(),
            expected: "the embedded base".to_owned(),
        });
    };
    let label = |component: &str| format!("{}: {component}/config.json", family.title());
    let unet = UNetConfig::from_json(&label("unet"), &unet)?;
    let text = |(name, config): (&str, serde_json::Value)| {
        ClipTextConfig::from_json(&label(name), &config)
    };
    let configs = TEXT_ENCODERS.into_iter().zip(family.text_encoder_configs());
    let texts = configs.map(text).collect::<Result<Vec<_>, _>>()?;
    Ok((skeleton_layers(&unet, &texts)?, unet))
}

/// Layers and UNet of a base's files; text encoders that the files lack are left out.
///
/// # Errors
///
/// A missing file or an unsupported configuration.
pub fn file_layers(files: &ModelFiles) -> Result<(Vec<Layer>, UNetConfig), ModelError> {
    let unet = unet_config(&files.component("unet")?)?;
    let present = files.components();
    let mut texts = Vec::with_capacity(TEXT_ENCODERS.len());
    for name in TEXT_ENCODERS {
        if present.iter().any(|component| component == name) {
            texts.push((name, text_shape(&files.component(name)?)?));
        }
    }
    Ok((named_layers(&unet, &texts), unet))
}

fn named_layers(unet: &UNetConfig, texts: &[(&str, TextShape)]) -> Vec<Layer> {
    let builder = Builder::skeleton(&ops::host());
    let mut found = layers(&mut UNet2DConditionModel::new(&builder, unet), "unet");
    for (name, shape) in texts {
        let mut encoder = CLIPTextModel::new(&builder, &shape.clip, shape.projection);
        found.extend(layers(&mut encoder, name));
    }
    found
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::adapter::{base_layers, select};
    use crate::tiny;
    use crate::vae::{AutoencoderKL, VaeConfig};
    use crate::visit::{Network, Slot, Visitor};

    const RELEASED: [Family; 3] = [Family::Sd1, Family::Sd2, Family::Sdxl];
    /// The sets of layers that recipes name `attn`, `attn_ff`, …: each adds to the one before.
    const SETS: [&[&str]; 4] = [
        &["unet.**.attn*.{to_q,to_k,to_v,to_out.0}"],
        &["unet.**.ff.net.{0.proj,2}"],
        &["unet.**.attentions.*.{proj_in,proj_out}"],
        &[
            "unet.**.resnets.*.{conv1,conv2,conv_shortcut,time_emb_proj}",
            "unet.**.{downsamplers,upsamplers}.*.conv",
        ],
    ];
    const RANK: usize = 16;

    /// Tensors and values of a network.
    #[derive(Default)]
    struct Count {
        tensors: usize,
        values: usize,
    }

    impl Visitor for Count {
        fn parameter(&mut self, _path: &str, slot: &mut dyn Slot) {
            self.tensors += 1;
            self.values += slot.shape().iter().product::<usize>();
        }
    }

    fn count(network: &mut dyn Network) -> (usize, usize) {
        let mut count = Count::default();
        network.visit("", &mut count);
        (count.tensors, count.values)
    }

    /// Values of an adapter of rank 16 for one layer.
    fn adapter_size(layer: &Layer) -> usize {
        let fan_in: usize = layer.weight[1..].iter().product();
        RANK * (fan_in + layer.weight[0])
    }

    #[test]
    fn the_released_networks_have_exactly_their_tensors_and_parameters() {
        let unets = [(686, 859_520_964), (686, 865_910_724), (1680, 2_567_463_684)];
        let texts: [&[(usize, usize)]; 3] = [
            &[(196, 123_060_480)],
            &[(372, 340_387_840)],
            &[(196, 123_060_480), (517, 694_659_840)],
        ];
        let builder = Builder::skeleton(&Device::flex());
        for ((family, unet_size), text_sizes) in RELEASED.into_iter().zip(unets).zip(texts) {
            let config = UNetConfig::from_json("unet", &family.unet_config().unwrap()).unwrap();
            let mut unet = UNet2DConditionModel::new(&builder, &config);
            assert_eq!(count(&mut unet), unet_size, "{}", family.name());
            let config = VaeConfig::from_json("vae", &family.vae_config().unwrap()).unwrap();
            let mut vae = AutoencoderKL::new(&builder, &config);
            assert_eq!(count(&mut vae), (248, 83_653_863), "{}", family.name());
            let configs = family.text_encoder_configs();
            assert_eq!(configs.len(), text_sizes.len());
            let projections = [TextProjection::Without, TextProjection::With];
            for ((config, size), projection) in configs.iter().zip(text_sizes).zip(projections) {
                let config = ClipTextConfig::from_json("text", config).unwrap();
                let mut text = CLIPTextModel::new(&builder, &config, projection);
                assert_eq!(count(&mut text), *size, "{}", family.name());
            }
        }
    }

    #[test]
    fn the_sets_of_layers_have_the_sizes_that_are_known_of_every_family() {
        let modules = [[128, 160, 192, 278], [128, 160, 192, 278], [560, 700, 722, 788]];
        let sizes = [
            [3_188_736, 6_782_976, 16_813_056],
            [3_319_808, 6_914_048, 16_944_128],
            [23_224_320, 42_557_440, 49_187_840],
        ];
        for ((family, modules), sizes) in RELEASED.into_iter().zip(modules).zip(sizes) {
            let (layers, _) = family_layers(family).unwrap();
            let set = |n: usize| {
                let patterns: Vec<String> =
                    SETS[..n].concat().into_iter().map(str::to_owned).collect();
                select(&layers, &patterns).unwrap()
            };
            let sets: Vec<Vec<Layer>> = (1..=4).map(set).collect();
            let found: Vec<usize> = sets.iter().map(Vec::len).collect();
            assert_eq!(found, modules, "{}", family.name());
            let size = |set: &Vec<Layer>| set.iter().map(adapter_size).sum::<usize>();
            let found = [&sets[0], &sets[2], &sets[3]].map(size);
            assert_eq!(found, sizes, "{}", family.name());
        }
    }

    #[test]
    fn the_text_encoders_have_the_layers_that_are_known_of_every_family() {
        let of = |family, component: &str| {
            let (layers, _) = family_layers(family).unwrap();
            let patterns = ["self_attn.{q_proj,k_proj,v_proj,out_proj}", "mlp.{fc1,fc2}"]
                .map(|inner| format!("{component}.text_model.encoder.layers.*.{inner}"));
            let chosen = select(&layers, &patterns).unwrap();
            (chosen.len(), chosen.iter().map(adapter_size).sum::<usize>())
        };
        assert_eq!(of(Family::Sd1, "text_encoder"), (72, 2_654_208));
        assert_eq!(of(Family::Sd2, "text_encoder"), (138, 6_782_976));
        assert_eq!(of(Family::Sdxl, "text_encoder"), (72, 2_654_208));
        assert_eq!(of(Family::Sdxl, "text_encoder_2"), (192, 11_796_480));
    }

    #[test]
    fn layers_of_files_are_those_of_the_loaded_base() {
        for family in Family::ALL {
            let dir = tempfile::tempdir().unwrap();
            let base = tiny::family_base(dir.path(), family, 2, &Device::flex()).unwrap();
            let folder = checkpoints::folder::ModelFolder::open(dir.path()).unwrap();
            let (layers, unet) = file_layers(&folder.into()).unwrap();
            assert_eq!((&layers, &unet), (&base_layers(&base), base.unet.config()));
        }
    }
}
