//! A whole base model: the networks of a diffusers folder or a single file on one device.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoints::folder::ComponentFiles;
use checkpoints::{CheckpointError, Family, HostTensor, ModelFiles, Weights};

use crate::clip::CLIPTextModel;
use crate::error::ModelError;
use crate::ops;
use crate::parts::{Part, Parts, TOKENIZERS, TextShape, text_shape, unet_config, vae_config};
use crate::source::{Builder, TensorSource};
use crate::tokenizer::ClipTokenizer;
use crate::unet::UNet2DConditionModel;
use crate::vae::AutoencoderKL;

impl TensorSource for Weights {
    fn label(&self) -> String {
        self.path().display().to_string()
    }

    fn names(&self) -> Vec<String> {
        Self::names(self).map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.info(name).map(|info| info.shape.clone())
    }

    fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        Self::read(self, name)
    }
}

/// Number format in which the UNet of a base holds its weights and activations.
///
/// What is trained beside it stays f32 in either: factors, the optimizer's state and the loss. In a
/// product beside bf16 weights a factor is rounded to bf16, and so is the gradient that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// bfloat16: the range of f32 with 8 significant bits, in half the memory.
    Bf16,
}

impl Precision {
    /// How recipes and records spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether this device computes in it; older cards know no bf16.
    pub fn is_supported(self, device: &Device) -> bool {
        device.supports_dtype(self.dtype())
    }

    /// The type of tensors.
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Networks, text encoders and tokenizers of one base; cloning shares the tensors.
///
/// All of them hold f32 whatever their files hold, but for the UNet of a base that was loaded in bf16
/// (see [`load_with`]). The VAE in particular never computes in less, so that the one of SDXL, which
/// overflows in f16, needs no care, and a variant that was rescaled against that overflow is a VAE
/// like any other. The text encoders cost little beside the UNet.
#[derive(Clone, Debug)]
pub struct Base {
    /// The denoiser, where adapters attach.
    pub unet: UNet2DConditionModel,
    /// Number format of the denoiser; its inputs and outputs are f32 in any case.
    pub precision: Precision,
    /// The autoencoder.
    pub vae: AutoencoderKL,
    /// The text encoder; of SDXL the first.
    pub text_encoder: CLIPTextModel,
    /// Its tokenizer.
    pub tokenizer: ClipTokenizer,
    /// The second text encoder of SDXL, with projection.
    pub text_encoder_2: Option<CLIPTextModel>,
    /// Its tokenizer.
    pub tokenizer_2: Option<ClipTokenizer>,
    /// Which family of models it belongs to, by the structure of its UNet.
    pub family: Family,
    /// Whether zeros stand for an empty prompt that guidance is held against; of SDXL alone.
    pub force_zeros_for_empty_prompt: bool,
    /// Which layer of the text encoder conditions the UNet, counted from the last: 1 is the last, 2
    /// the one before it (see [`Base::text_states`]). 1 after loading; SDXL knows no other.
    pub clip_skip: usize,
    /// `scheduler/scheduler_config.json`, whose meaning belongs to `diffusion`.
    pub scheduler: serde_json::Value,
    /// What [`ModelFiles::hashes`] lists: SHA-256 of every file that is read, and of what was chosen.
    pub hashes: BTreeMap<String, String>,
    /// Where the tensors are.
    pub device: Device,
}

/// Loads a base in f32. Whether its components fit each other is known before the first weight is
/// read.
///
/// # Errors
///
/// A missing file, an unsupported configuration, components that do not fit each other, or tensors
/// that are not those of the configuration.
pub fn load(files: &ModelFiles, device: &Device) -> Result<Base, ModelError> {
    load_with(files, device, Precision::F32)
}

/// As [`load`], with the UNet in this precision. VAE and text encoders hold f32 in any case.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(
    files: &ModelFiles,
    device: &Device,
    precision: Precision,
) -> Result<Base, ModelError> {
    let parts = Parts::open(files)?;
    let tokenizer = limited_tokenizer(files, TOKENIZERS[0], &parts.text)?;
    let tokenizer_2 = parts.text_2.as_ref();
    let tokenizer_2 =
        tokenizer_2.map(|encoder| limited_tokenizer(files, TOKENIZERS[1], encoder)).transpose()?;
    parts.check(&tokenizer, tokenizer_2.as_ref())?;
    // Before gigabytes are read: a single file may not say what it predicts.
    let scheduler = files.scheduler()?;
    let Parts { unet: unet_part, vae, text, text_2 } = parts;
    let unet = load_unet_with(&unet_part.files, device, precision)?;
    // The largest file by far need not stay mapped while the others are read.
    drop(unet_part);
    let text_encoder = |part: &Part<TextShape>| load_text_encoder(&part.files, device);
    Ok(Base {
        unet,
        precision,
        vae: load_vae(&vae.files, device)?,
        text_encoder: text_encoder(&text)?,
        tokenizer,
        text_encoder_2: text_2.as_ref().map(text_encoder).transpose()?,
        tokenizer_2,
        family: files.family(),
        force_zeros_for_empty_prompt: text_2.is_some() && files.force_zeros_for_empty_prompt(),
        clip_skip: 1,
        scheduler,
        hashes: files.hashes()?,
        device: device.clone(),
    })
}

/// A tokenizer whose texts are as long as its text encoder reads.
fn limited_tokenizer(
    files: &ModelFiles,
    name: &str,
    encoder: &Part<TextShape>,
) -> Result<ClipTokenizer, ModelError> {
    let mut tokenizer = ClipTokenizer::open(&files.tokenizer(name)?)?;
    tokenizer.limit(encoder.config.clip.max_position_embeddings);
    Ok(tokenizer)
}

/// Loads one `UNet2DConditionModel` in f32.
///
/// # Errors
///
/// As [`load`].
pub fn load_unet(
    files: &ComponentFiles,
    device: &Device,
) -> Result<UNet2DConditionModel, ModelError> {
    load_unet_with(files, device, Precision::F32)
}

/// Loads one `UNet2DConditionModel` in this precision.
///
/// # Errors
///
/// As [`load`].
pub fn load_unet_with(
    files: &ComponentFiles,
    device: &Device,
    precision: Precision,
) -> Result<UNet2DConditionModel, ModelError> {
    let config = unet_config(files)?;
    let builder = Builder::from_source(&files.weights, device).in_precision(precision);
    let unet = UNet2DConditionModel::new(&builder, &config);
    builder.finish(|_| false)?;
    Ok(unet)
}

/// Loads one `AutoencoderKL`.
///
/// # Errors
///
/// As [`load`].
pub fn load_vae(files: &ComponentFiles, device: &Device) -> Result<AutoencoderKL, ModelError> {
    let config = vae_config(files)?;
    let builder = Builder::from_source(&files.weights, device);
    let vae = AutoencoderKL::new(&builder, &config);
    builder.finish(|_| false)?;
    Ok(vae)
}

/// Loads one `CLIPTextModel`, or one with projection if its configuration names that architecture.
///
/// # Errors
///
/// As [`load`].
pub fn load_text_encoder(
    files: &ComponentFiles,
    device: &Device,
) -> Result<CLIPTextModel, ModelError> {
    let shape = text_shape(files)?;
    let builder = Builder::from_source(&files.weights, device);
    let text_encoder = CLIPTextModel::new(&builder, &shape.clip, shape.projection);
    builder.finish(|name| name.ends_with("position_ids"))?;
    Ok(text_encoder)
}

impl Base {
    /// `cpu` or `gpu`: results of the two kinds of arithmetic differ in their last bits.
    pub fn device_kind(&self) -> &'static str {
        if ops::is_host(&self.device) { "cpu" } else { "gpu" }
    }

    /// Shape of the latents of one picture: `[channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Size`] for sides of 0, or that are not multiples of the VAE's factor.
    pub fn latent_shape(
        &self,
        [height_px, width_px]: [usize; 2],
    ) -> Result<[usize; 3], ModelError> {
        let factor = self.vae.config().factor();
        if height_px == 0 || width_px == 0 || height_px % factor != 0 || width_px % factor != 0 {
            return Err(ModelError::Size { found: [height_px, width_px], multiple: factor });
        }
        Ok([self.vae.config().latent_channels, height_px / factor, width_px / factor])
    }

    /// Side of the pictures for which the base was trained, in pixels.
    pub fn nominal_side_px(&self) -> usize {
        let side = self.unet.config().sample_size.unwrap_or(64);
        side * self.vae.config().factor()
    }

    /// Noise level `t` for every row of a batch, `[batch]`.
    pub fn timesteps(&self, t: f64, batch: usize) -> Tensor<1> {
        timesteps(&vec![t; batch], &self.device)
    }
}

/// Noise levels as the UNet reads them, `[batch]` in f32.
pub fn timesteps(levels: &[f64], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
    let n_values = values.len();
    Tensor::from_data(TensorData::new(values, [n_values]), (device, DType::F32))
}

/// Host values as a device tensor in f32.
pub fn tensor_from_host<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// The values of a device tensor, row-major, in f32.
///
/// # Errors
///
/// [`ModelError::Device`] for a fault of this or an earlier operation on the device.
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    let data = tensor.try_into_data().map_err(|error| ModelError::Device(error.to_string()))?;
    data.convert::<f32>()
        .try_to_vec::<f32>()
        .map_err(|error| ModelError::Device(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use checkpoints::folder::ModelFolder;
    use recipes::draws;
    use serde_json::{Value, json};

    use super::*;
    use crate::conditioning::SizeConditions;
    use crate::tiny;
    use crate::visit::{Network, Slot, Visitor};

    fn open(dir: &std::path::Path) -> ModelFiles {
        ModelFolder::open(dir).unwrap().into()
    }

    /// Path, type and values of every parameter.
    #[derive(Default)]
    struct Held(Vec<(String, DType, Vec<f32>)>);

    impl Visitor for Held {
        fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
            let values = slot.flat();
            self.0.push((path.to_owned(), values.dtype(), host_values(values).unwrap()));
        }
    }

    fn held(network: &dyn Fn(&mut Held)) -> Vec<(String, DType, Vec<f32>)> {
        let mut held = Held::default();
        network(&mut held);
        held.0
    }

    /// The tiny base of a family in both precisions, f32 first.
    fn both(family: Family) -> Vec<Base> {
        let (dir, device) = (tempfile::tempdir().unwrap(), Device::flex());
        tiny::write_family(dir.path(), family, 5, &device).unwrap();
        let files = open(dir.path());
        let loaded = |precision| load_with(&files, &device, precision).unwrap();
        vec![loaded(Precision::F32), loaded(Precision::Bf16)]
    }

    #[test]
    fn in_bf16_the_unet_holds_rounded_values_and_all_else_stays_as_it_is() {
        for family in Family::ALL {
            let bases = both(family);
            assert_eq!(bases[0].precision, Precision::F32);
            assert_eq!(bases[1].precision, Precision::Bf16);
            let unets: Vec<_> =
                bases.iter().map(|base| held(&|see| base.unet.clone().visit("", see))).collect();
            assert_eq!(unets[0].len(), unets[1].len());
            for ((path, dtype, values), (_, short, rounded)) in unets[0].iter().zip(&unets[1]) {
                assert_eq!((*dtype, *short), (DType::F32, DType::BF16), "{path}");
                let expected = HostTensor::from_f32([values.len()], values.clone()).to_bf16();
                assert_eq!(*rounded, *expected.f32(), "{path}");
            }
            let others: Vec<_> = bases
                .iter()
                .map(|base| {
                    held(&|see| {
                        base.vae.clone().visit("vae", see);
                        base.text_encoder.clone().visit("text_encoder", see);
                        base.text_encoder_2.clone().visit("text_encoder_2", see);
                    })
                })
                .collect();
            assert_eq!(others[0], others[1]);
            assert!(others[0].iter().all(|(_, dtype, _)| *dtype == DType::F32));
        }
    }

    /// Relative distance in the Euclidean norm.
    fn distance(found: &[f32], wanted: &[f32]) -> f64 {
        let square = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|value| f64::from(value).powi(2)).sum()
        };
        let difference = square(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
        (difference / square(&mut wanted.iter().copied())).sqrt()
    }

    #[test]
    fn the_denoiser_in_bf16_takes_and_gives_f32_and_is_close_to_that_in_f32() {
        for family in [Family::Sd1, Family::Sdxl] {
            let outputs: Vec<_> = both(family)
                .iter()
                .map(|base| {
                    // At 8 × 8 the lowest norms would see four values each and magnify the rounding.
                    let shape = [2, base.vae.config().latent_channels, 16, 16];
                    let noise =
                        draws::normals(&mut draws::keyed(1, "noise"), shape.iter().product());
                    let noisy = tensor_from_host(noise, shape, &base.device);
                    let text = base.text_states(&["a boat", ""]).unwrap();
                    let given = base.conditioning(text, &[SizeConditions::whole([128; 2])]);
                    let output = base.denoise(noisy, base.timesteps(481.0, 2), &given).unwrap();
                    assert_eq!((output.dims(), output.dtype()), (shape, DType::F32));
                    host_values(output).unwrap()
                })
                .collect();
            let distance = distance(&outputs[1], &outputs[0]);
            assert!(distance > 0.0 && distance <= 3e-2, "{}: {distance}", family.name());
        }
    }

    #[test]
    fn the_processor_computes_in_both_precisions() {
        for precision in [Precision::F32, Precision::Bf16] {
            assert!(precision.is_supported(&Device::flex()), "{}", precision.name());
        }
    }

    /// Loads the tiny base of a family after one field of one of its files was changed; the error.
    fn changed(family: Family, file: &str, field: &str, value: Value) -> String {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::flex();
        tiny::write_family(dir.path(), family, 1, &device).unwrap();
        let path = dir.path().join(file);
        let mut config: Value = checkpoints::fs::read_json(&path).unwrap();
        config[field] = value;
        checkpoints::fs::atomic_write_json(&path, &config).unwrap();
        load(&open(dir.path()), &device).expect_err(field).to_string()
    }

    #[test]
    fn parts_of_another_class_are_refused() {
        for (file, field, value) in [
            ("unet/config.json", "_class_name", json!("UNet3DConditionModel")),
            ("vae/config.json", "_class_name", json!("AutoencoderTiny")),
            ("text_encoder/config.json", "architectures", json!(["T5EncoderModel"])),
        ] {
            let message = changed(Family::Postcards, file, field, value);
            assert!(message.contains(&format!("field `{field}` is")), "{message}");
        }
    }

    #[test]
    fn a_projection_that_the_configuration_names_is_missed() {
        let message = changed(
            Family::Postcards,
            "text_encoder/config.json",
            "architectures",
            json!(["CLIPTextModelWithProjection"]),
        );
        assert!(message.contains("1 missing: text_projection.weight"), "{message}");
    }

    #[test]
    fn parts_that_do_not_fit_each_other_are_refused() {
        let (sd1, sdxl) = (Family::Sd1, Family::Sdxl);
        let unet = "unet/config.json";
        for (family, file, field, value, expected) in [
            (sd1, unet, "in_channels", json!(9), "expected 4, the latent channels"),
            (sd1, unet, "cross_attention_dim", json!(40), "expected 16, the width"),
            (sd1, "vae/config.json", "out_channels", json!(1), "expected 3, red"),
            (sd1, "text_encoder/config.json", "vocab_size", json!(100), "expected at least 514"),
            (sdxl, unet, "cross_attention_dim", json!(16), "expected 40, the widths of both"),
            (sdxl, unet, "addition_time_embed_dim", json!(6), "expected 48, the projected text"),
            (
                sdxl,
                "text_encoder_2/config.json",
                "architectures",
                json!(["CLIPTextModel"]),
                "expected CLIPTextModelWithProjection",
            ),
            (
                sdxl,
                "tokenizer_2/tokenizer_config.json",
                "model_max_length",
                json!(20),
                "is `20`, expected 48, the tokens",
            ),
        ] {
            let message = changed(family, file, field, value);
            assert!(message.contains(expected), "{file}, {field}: {message}");
        }
    }

    #[test]
    fn a_second_text_encoder_belongs_to_text_time_and_to_nothing_else() {
        let message =
            changed(Family::Sdxl, "model_index.json", "text_encoder_2", json!([null, null]));
        assert!(message.contains("`text_time` in a base without `text_encoder_2`"), "{message}");
        let message = changed(Family::Sdxl, "unet/config.json", "addition_embed_type", json!(null));
        assert!(message.contains("absent in a base with `text_encoder_2`"), "{message}");
    }

    #[test]
    fn sides_are_multiples_of_the_factor_of_the_vae_alone() {
        let dir = tempfile::tempdir().unwrap();
        tiny::write_family(dir.path(), Family::Sd1, 5, &Device::flex()).unwrap();
        let base = load(&open(dir.path()), &Device::flex()).unwrap();
        let (channels, factor) = (base.vae.config().latent_channels, base.vae.config().factor());
        assert_eq!(base.latent_shape([factor, 5 * factor]).unwrap(), [channels, 1, 5]);
        for size_px in [[0, factor], [factor, 0], [factor + 1, factor], [factor, 2 * factor - 1]] {
            let error = base.latent_shape(size_px).unwrap_err().to_string();
            assert!(error.contains(&format!("multiples of {factor} and not 0")), "{error}");
        }
    }

    #[test]
    fn every_family_is_loaded_as_itself() {
        for family in Family::ALL {
            let dir = tempfile::tempdir().unwrap();
            tiny::write_family(dir.path(), family, 5, &Device::flex()).unwrap();
            let base = load(&open(dir.path()), &Device::flex()).unwrap();
            assert_eq!((base.family, base.clip_skip), (family, 1));
            let sdxl = family == Family::Sdxl;
            assert_eq!(base.text_encoder_2.is_some(), sdxl);
            assert_eq!(base.tokenizer_2.is_some(), sdxl);
            assert_eq!(base.force_zeros_for_empty_prompt, sdxl);
            assert_eq!(base.nominal_side_px(), tiny::SIDE_PX);
        }
    }
}
