//! The CLIP that looks at pictures; a file of its own, never the encoder a UNet was trained with.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use checkpoints::folder::ComponentFiles;

use crate::base::{host_values, tensor_from_host};
use crate::clip::{CLIPTextModel, CLIPVisionModelWithProjection, TextProjection, clip_configs};
use crate::error::ModelError;
use crate::source::{Builder, Initial};
use crate::tokenizer::{ClipTokenizer, OverLength};
use crate::visit::network;

/// Mean of each channel that CLIP subtracts, for pixels in [0, 1].
const MEAN: [f32; 3] = [0.481_454_67, 0.457_827_5, 0.408_210_73];
/// Deviation of each channel that CLIP divides by.
const DEVIATION: [f32; 3] = [0.268_629_55, 0.261_302_6, 0.275_777_1];
/// Pictures or texts per forward pass.
const BATCH: usize = 64;

/// Both towers of a CLIP model.
///
/// Source: transformers `CLIPModel`, proved by the golden case `clip_joint`.
#[derive(Clone, Debug)]
pub struct ClipModel {
    /// Text tower with projection.
    pub text: CLIPTextModel,
    /// Vision tower with projection.
    pub vision: CLIPVisionModelWithProjection,
    /// Logarithm of the factor on cosines, `[1]`.
    pub logit_scale: Tensor<1>,
}
network!(ClipModel { logit_scale: "logit_scale", text: "", vision: "" });

impl ClipModel {
    /// Builds both towers of a parsed `config.json`; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// An unknown or unsupported field or value.
    pub fn new(
        builder: &Builder<'_>,
        file: &str,
        config: &serde_json::Value,
    ) -> Result<Self, ModelError> {
        let (text, vision) = clip_configs(file, config)?;
        Ok(Self {
            text: CLIPTextModel::new(builder, &text, TextProjection::With),
            vision: CLIPVisionModelWithProjection::new(builder, &vision),
            // ln(1 / 0.07), as CLIP starts.
            logit_scale: builder.tensor(
                "logit_scale",
                [1],
                Initial::Constant((1.0f64 / 0.07).ln()),
            ),
        })
    }
}

/// Each row divided by its length; `[n, width]`.
pub fn unit_rows(rows: Tensor<2>) -> Tensor<2> {
    let lengths = rows.clone().powi_scalar(2).sum_dim(1).sqrt();
    rows / lengths
}

/// Judges pictures and texts by unit vectors of one space.
#[derive(Clone, Debug)]
pub struct Evaluator {
    model: ClipModel,
    tokenizer: ClipTokenizer,
    device: Device,
    sha256: String,
}

impl Evaluator {
    /// The tower that reads texts, to be compared with the text encoder of a base.
    pub fn text_tower(&self) -> &CLIPTextModel {
        &self.model.text
    }

    /// Loads a `CLIPModel` folder with its tokenizer files.
    ///
    /// # Errors
    ///
    /// A missing file, an unsupported configuration, or tensors that are not those of the configuration.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let files = ComponentFiles::open(dir)?;
        let builder = Builder::from_source(&files.weights, device);
        let model =
            ClipModel::new(&builder, &files.config_path.display().to_string(), &files.config)?;
        builder.finish(|name| name.ends_with("position_ids"))?;
        let mut tokenizer = ClipTokenizer::load(dir)?;
        tokenizer.limit(model.text.config().max_position_embeddings);
        let sha256 = files.weights.tensors_sha256();
        Ok(Self { model, tokenizer, device: device.clone(), sha256 })
    }

    /// An evaluator of networks that are already in memory.
    pub fn new(model: ClipModel, tokenizer: ClipTokenizer, device: &Device) -> Self {
        Self { model, tokenizer, device: device.clone(), sha256: String::new() }
    }

    /// SHA-256 of its tensors, 64 hex digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Side of the pictures that it looks at, in pixels.
    pub fn side_px(&self) -> usize {
        self.model.vision.config().image_size
    }

    /// Unit embeddings of pictures, each `3·side·side` bytes, interleaved RGB, of side
    /// [`Evaluator::side_px`].
    ///
    /// # Errors
    ///
    /// [`ModelError::Device`].
    pub fn image_embeddings(&self, images: &[&[u8]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let side = self.side_px();
        let mut embeddings = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let values: Vec<f32> =
                batch.iter().flat_map(|image| normalised(image, side * side)).collect();
            let pixels = tensor_from_host(values, [batch.len(), 3, side, side], &self.device);
            embeddings.extend(rows(unit_rows(self.model.vision.forward(pixels)))?);
        }
        Ok(embeddings)
    }

    /// Early tokens of pictures, for their style: of each the `[patches, width]` states behind the first
    /// quarter of the layers, laid flat; and the width.
    ///
    /// # Errors
    ///
    /// [`ModelError::Device`].
    pub fn image_tokens(&self, images: &[&[u8]]) -> Result<(Vec<Vec<f32>>, usize), ModelError> {
        let side = self.side_px();
        let width = self.model.vision.config().tower.hidden_size;
        let mut tokens = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let values: Vec<f32> =
                batch.iter().flat_map(|image| normalised(image, side * side)).collect();
            let pixels = tensor_from_host(values, [batch.len(), 3, side, side], &self.device);
            let states = self.model.vision.early_tokens(pixels);
            let [n, patches, width] = states.dims();
            tokens.extend(rows(states.reshape([n, patches * width]))?);
        }
        Ok((tokens, width))
    }

    /// Unit embeddings of texts; a text that does not fit is cut.
    ///
    /// # Errors
    ///
    /// [`ModelError::Device`], or a text that the vocabulary cannot express.
    pub fn text_embeddings(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut embeddings = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let encode = |text: &&str| self.tokenizer.encode(text, OverLength::Truncate);
            let ids = batch.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
            let output = self.model.text.forward(&ids);
            let projected = output.projected.unwrap_or(output.pooled);
            embeddings.extend(rows(unit_rows(projected))?);
        }
        Ok(embeddings)
    }
}

/// Interleaved bytes as normalised planes.
pub fn normalised(image: &[u8], n_pixels: usize) -> Vec<f32> {
    let mut planes = vec![0.0; 3 * n_pixels];
    for (index, pixel) in image.chunks_exact(3).enumerate().take(n_pixels) {
        for channel in 0..3 {
            let value = f32::from(pixel[channel]) / 255.0;
            planes[channel * n_pixels + index] = (value - MEAN[channel]) / DEVIATION[channel];
        }
    }
    planes
}

fn rows(tensor: Tensor<2>) -> Result<Vec<Vec<f32>>, ModelError> {
    let width = tensor.dims()[1];
    Ok(host_values(tensor)?.chunks(width).map(<[f32]>::to_vec).collect())
}
