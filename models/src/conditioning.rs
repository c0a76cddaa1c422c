//! What a network is told besides the noisy latents: text and, for SDXL, sizes.
//!
//! Text states are those of the family: SD 1.x and SD 2.x read the last layer of their text encoder
//! after the final norm, SDXL the last but one of both of its encoders, joined and without that norm,
//! and besides them the projected text of the second.

use burn::tensor::Tensor;

use crate::base::{Base, tensor_from_host};
use crate::clip::{CLIPTextModel, TextOutput};
use crate::error::ModelError;
use crate::parts::{N_SIZES, TEXT_ENCODERS};
use crate::tokenizer::{ClipTokenizer, OverLength};
use crate::unet::AddedConditions;
use crate::visit::Network;

/// What the text encoders of a base make of prompts, one row for each.
#[derive(Clone, Debug)]
pub struct TextStates {
    /// `[prompts, tokens, cross_attention_dim]`.
    pub states: Tensor<3>,
    /// Pooled and projected text of SDXL, `[prompts, projection_dim]`.
    pub pooled: Option<Tensor<2>>,
}

/// All that conditions a forward pass of the UNet, one row for each picture.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Text states, `[batch, tokens, cross_attention_dim]`.
    pub context: Tensor<3>,
    /// Pooled text and sizes, for SDXL alone.
    pub added: Option<AddedConditions>,
}

/// The sizes that SDXL is told of a picture, in pixels.
///
/// Source: SDXL report (arXiv 2307.01952), section 2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeConditions {
    /// Height and width before the picture was resized.
    pub original: [usize; 2],
    /// Rows above and columns left of what was cut out of the resized picture.
    pub crop: [usize; 2],
    /// Height and width of what is drawn.
    pub target: [usize; 2],
}

impl SizeConditions {
    /// A picture of this height and width that was neither resized nor cut.
    pub fn whole(size_px: [usize; 2]) -> Self {
        Self { original: size_px, crop: [0, 0], target: size_px }
    }

    /// The numbers in the order in which SDXL reads them: original height and width, top and left,
    /// target height and width.
    fn numbers(self) -> [f32; N_SIZES] {
        let [[height, width], [top, left], [target_height, target_width]] =
            [self.original, self.crop, self.target];
        [height, width, top, left, target_height, target_width].map(|number| number as f32)
    }
}

impl Conditioning {
    /// The rows `n` times over; of one row, the same for `n` pictures.
    #[must_use]
    pub fn repeat(&self, n: usize) -> Self {
        let added = self.added.as_ref().map(|added| AddedConditions {
            pooled_text: added.pooled_text.clone().repeat_dim(0, n),
            time_ids: added.time_ids.clone().repeat_dim(0, n),
        });
        Self { context: self.context.clone().repeat_dim(0, n), added }
    }

    /// The rows of all parts, which are of one base and have equally many tokens.
    ///
    /// # Panics
    ///
    /// Without parts, or with parts of different bases.
    #[must_use]
    pub fn cat(parts: Vec<Self>) -> Self {
        let n_parts = parts.len();
        let (contexts, added): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|part| (part.context, part.added)).unzip();
        let added: Vec<AddedConditions> = added.into_iter().flatten().collect();
        assert!(added.is_empty() || added.len() == n_parts, "parts must be of one base");
        let (pooled, sizes): (Vec<_>, Vec<_>) =
            added.into_iter().map(|added| (added.pooled_text, added.time_ids)).unzip();
        let added = (!pooled.is_empty()).then(|| AddedConditions {
            pooled_text: Tensor::cat(pooled, 0),
            time_ids: Tensor::cat(sizes, 0),
        });
        Self { context: Tensor::cat(contexts, 0), added }
    }

    /// Number of rows.
    pub fn batch(&self) -> usize {
        self.context.dims()[0]
    }
}

impl Base {
    /// What the text encoders make of prompts.
    ///
    /// With `clip_skip` k the last k − 1 layers of the text encoder are left out, before the final
    /// norm, for prompts and for what guidance is held against. This is the count of A1111 and kohya,
    /// where 1 leaves nothing out; diffusers counts one less and leaves out layers of the prompt only.
    ///
    /// Source: diffusers `StableDiffusionPipeline.encode_prompt` and that of
    /// `StableDiffusionXLPipeline`, proved by the golden case `sdxl_text`.
    ///
    /// # Errors
    ///
    /// [`ModelError::PromptTooLong`] for a prompt that does not fit; [`ModelError::Config`] for a
    /// `clip_skip` that leaves no layer, or any but 1 for SDXL.
    pub fn text_states(&self, prompts: &[&str]) -> Result<TextStates, ModelError> {
        self.check_clip_skip()?;
        let first = encoded(&self.text_encoder, &self.tokenizer, prompts)?;
        let (Some(encoder_2), Some(tokenizer_2)) = (&self.text_encoder_2, &self.tokenizer_2) else {
            return Ok(TextStates { states: self.skipped(first), pooled: None });
        };
        let second = encoded(encoder_2, tokenizer_2, prompts)?;
        let states = Tensor::cat(vec![before_last(&first, 1), before_last(&second, 1)], 2);
        Ok(TextStates { states, pooled: second.projected })
    }

    /// What guidance is held against: as [`Base::text_states`], but zeros for every empty prompt
    /// where the base asks for it. A prompt of white space counts as empty, since the tokenizer
    /// cannot tell it apart.
    ///
    /// # Errors
    ///
    /// As [`Base::text_states`].
    pub fn negative_states(&self, prompts: &[&str]) -> Result<TextStates, ModelError> {
        let kept = |prompt: &&str| {
            let zero = self.force_zeros_for_empty_prompt && prompt.trim().is_empty();
            if zero { 0.0 } else { 1.0 }
        };
        let kept: Vec<f32> = prompts.iter().map(kept).collect();
        let text = self.text_states(prompts)?;
        if kept.iter().all(|&factor| factor > 0.0) {
            return Ok(text);
        }
        let states = rows_scaled(text.states, &kept);
        Ok(TextStates { states, pooled: text.pooled.map(|pooled| rows_scaled(pooled, &kept)) })
    }

    /// Text and sizes as the UNet reads them. SDXL takes one of `sizes` per row, or one for all;
    /// other families read none.
    ///
    /// # Panics
    ///
    /// If `sizes` are neither one nor as many as the rows and the family reads them.
    pub fn conditioning(&self, text: TextStates, sizes: &[SizeConditions]) -> Conditioning {
        let batch = text.states.dims()[0];
        let pooled = text.pooled.filter(|_| self.unet.config().text_time.is_some());
        let added = pooled.map(|pooled_text| {
            assert!(sizes.len() == 1 || sizes.len() == batch, "one size, or one per row");
            let numbers: Vec<f32> = sizes.iter().flat_map(|size| size.numbers()).collect();
            let time_ids = tensor_from_host(numbers, [sizes.len(), N_SIZES], &self.device);
            let copies = if sizes.len() == batch { 1 } else { batch };
            AddedConditions { pooled_text, time_ids: time_ids.repeat_dim(0, copies) }
        });
        Conditioning { context: text.states, added }
    }

    /// The network's output.
    ///
    /// # Shapes
    ///
    /// - `noisy`: `[batch, channels, height, width]`, latents as the sampler scales them
    /// - `timesteps`: `[batch]`, see [`Base::timesteps`]
    /// - `given`: `batch` rows
    /// - result: as `noisy`
    ///
    /// # Errors
    ///
    /// [`ModelError::Size`] for a side of 0.
    pub fn denoise(
        &self,
        noisy: Tensor<4>,
        timesteps: Tensor<1>,
        given: &Conditioning,
    ) -> Result<Tensor<4>, ModelError> {
        self.unet.forward(noisy, timesteps, &given.context, given.added.as_ref())
    }

    /// What the innermost block of the denoiser puts out, averaged over all positions,
    /// `[batch, channels]` (see [`crate::unet::UNet2DConditionModel::innermost`]).
    ///
    /// # Errors
    ///
    /// As [`Self::denoise`].
    pub fn innermost(
        &self,
        noisy: Tensor<4>,
        timesteps: Tensor<1>,
        given: &Conditioning,
    ) -> Result<Tensor<2>, ModelError> {
        self.unet.innermost(noisy, timesteps, &given.context, given.added.as_ref())
    }

    /// Both outputs of guidance in one forward pass, unconditional first, each as `noisy`
    /// `[batch, channels, height, width]`. Both conditionings have one row, which holds for every
    /// picture of the batch; `t` is the timestep of all.
    ///
    /// # Errors
    ///
    /// As [`Base::denoise`].
    pub fn denoise_both(
        &self,
        noisy: Tensor<4>,
        t: f64,
        unconditional: &Conditioning,
        conditional: &Conditioning,
    ) -> Result<(Tensor<4>, Tensor<4>), ModelError> {
        let n = noisy.dims()[0];
        let given = Conditioning::cat(vec![unconditional.repeat(n), conditional.repeat(n)]);
        let output = self.denoise(noisy.repeat_dim(0, 2), self.timesteps(t, 2 * n), &given)?;
        Ok((output.clone().narrow(0, 0, n), output.narrow(0, n, n)))
    }

    /// The components that adapters reach, as networks, with the first part of their layers' paths:
    /// `unet`, `text_encoder` and, where there is one, `text_encoder_2`.
    pub fn adapted(&mut self) -> Vec<(&'static str, &mut dyn Network)> {
        let unet: &mut dyn Network = &mut self.unet;
        let text_encoder: &mut dyn Network = &mut self.text_encoder;
        let mut components = vec![("unet", unet), (TEXT_ENCODERS[0], text_encoder)];
        if let Some(second) = &mut self.text_encoder_2 {
            let second: &mut dyn Network = second;
            components.push((TEXT_ENCODERS[1], second));
        }
        components
    }

    /// Refuses a prompt that does not fit into what the text encoders read.
    ///
    /// # Errors
    ///
    /// [`ModelError::PromptTooLong`], or [`ModelError::Tokenizer`] if a vocabulary cannot express it.
    pub fn check_prompt(&self, prompt: &str) -> Result<(), ModelError> {
        for tokenizer in std::iter::once(&self.tokenizer).chain(&self.tokenizer_2) {
            tokenizer.encode(prompt, OverLength::Error)?;
        }
        Ok(())
    }

    /// The state of SD 1.x and SD 2.x that conditions the UNet.
    fn skipped(&self, output: TextOutput) -> Tensor<3> {
        match self.clip_skip {
            1 => output.last,
            k => self.text_encoder.final_norm(before_last(&output, k - 1)),
        }
    }

    fn check_clip_skip(&self) -> Result<(), ModelError> {
        let n_layers = self.text_encoder.config().tower.num_hidden_layers;
        let limit = if self.text_encoder_2.is_some() { 1 } else { n_layers };
        if (1..=limit).contains(&self.clip_skip) {
            return Ok(());
        }
        let expected = match limit {
            1 => "1, the only one that this base knows".to_owned(),
            _ => format!("1 to {limit}, the layers of the text encoder"),
        };
        Err(ModelError::Config {
            file: self.family.title().to_owned(),
            field: "clip_skip".to_owned(),
            found: format!("`{}`", self.clip_skip),
            expected,
        })
    }
}

fn encoded(
    encoder: &CLIPTextModel,
    tokenizer: &ClipTokenizer,
    prompts: &[&str],
) -> Result<TextOutput, ModelError> {
    let encode = |prompt: &&str| tokenizer.encode(prompt, OverLength::Error);
    let ids = prompts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    Ok(encoder.forward(&ids))
}

/// The state `n` layers before the last, without the final norm. An encoder has at least one layer,
/// so that the states are at least two.
fn before_last(output: &TextOutput, n: usize) -> Tensor<3> {
    output.hidden[output.hidden.len() - 1 - n].clone()
}

/// Each row times its factor.
fn rows_scaled<const D: usize>(rows: Tensor<D>, factors: &[f32]) -> Tensor<D> {
    let mut shape = [1; D];
    shape[0] = factors.len();
    let factors = tensor_from_host(factors.to_vec(), shape, &rows.device());
    rows * factors
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::tensor::Device;

    use super::*;
    use crate::base::host_values;
    use crate::clip::TextProjection;
    use crate::parity::{Case, folder, text_model, unet};

    const SIZES: SizeConditions =
        SizeConditions { original: [1200, 900], crop: [24, 40], target: [1152, 832] };

    fn case() -> Case {
        Case::open("sdxl_text", "case.safetensors")
    }

    /// `prompts` or `negatives` of the golden case.
    fn texts(field: &str) -> Vec<String> {
        let path = folder("sdxl_text").join("prompts.json");
        let all: BTreeMap<String, Vec<String>> = checkpoints::fs::read_json(&path).unwrap();
        all[field].clone()
    }

    fn strs(texts: &[String]) -> Vec<&str> {
        texts.iter().map(String::as_str).collect()
    }

    fn tokenizer(name: &str) -> ClipTokenizer {
        ClipTokenizer::load(&folder("tokenizer").join(name)).unwrap()
    }

    /// A base with the first text encoder of the case.
    fn sd1() -> Base {
        let dir = tempfile::tempdir().unwrap();
        Base {
            text_encoder: text_model("sdxl_text/text_encoder", TextProjection::Without),
            tokenizer: tokenizer("pad_end"),
            ..crate::tiny::base(dir.path(), 1, &Device::flex()).unwrap()
        }
    }

    /// A base with both text encoders and the UNet of the case.
    fn sdxl() -> Base {
        let second = text_model("sdxl_text/text_encoder_2", TextProjection::With);
        Base {
            unet: unet("unet_sdxl"),
            text_encoder_2: Some(second),
            tokenizer_2: Some(tokenizer("pad_exclamation")),
            force_zeros_for_empty_prompt: true,
            ..sd1()
        }
    }

    #[test]
    fn clip_skip_counts_from_one_and_ends_in_the_final_norm() {
        let (mut base, prompts) = (sd1(), texts("prompts"));
        for skip in 1..=3 {
            base.clip_skip = skip;
            let text = base.text_states(&strs(&prompts)).unwrap();
            case().check(&format!("sd1.skipped_{}", skip - 1), text.states);
            assert!(text.pooled.is_none());
        }
        for skip in [0, 4] {
            base.clip_skip = skip;
            let message = base.text_states(&[""]).unwrap_err().to_string();
            assert!(message.contains("field `clip_skip`") && message.contains("1 to 3"));
        }
        let mut base = sdxl();
        base.clip_skip = 2;
        let message = base.text_states(&[""]).unwrap_err().to_string();
        assert!(message.contains("expected 1, the only one"), "{message}");
    }

    #[test]
    fn sdxl_joins_the_last_but_one_states_and_pools_the_second_encoder() {
        let (base, case) = (sdxl(), case());
        let (prompts, negatives) = (texts("prompts"), texts("negatives"));
        let text = base.text_states(&strs(&prompts)).unwrap();
        case.check("sdxl.states", text.states.clone());
        case.check("sdxl.pooled", text.pooled.clone().unwrap());
        let negative = base.text_states(&strs(&negatives)).unwrap();
        case.check("sdxl.negative", negative.states);
        case.check("sdxl.negative_pooled", negative.pooled.unwrap());
        let given = base.conditioning(text, &[SIZES]);
        assert_eq!(given.batch(), 3);
        let output = base.denoise(case.tensor("sdxl.sample"), base.timesteps(481.0, 3), &given);
        case.check("sdxl.output", output.unwrap());
    }

    #[test]
    fn an_empty_prompt_is_zeros_only_against_prompts_and_only_where_the_base_asks_for_it() {
        let (mut base, negatives) = (sdxl(), texts("negatives"));
        let values = |text: TextStates| {
            let pooled = host_values(text.pooled.unwrap()).unwrap();
            [host_values(text.states).unwrap(), pooled]
        };
        let live = values(base.text_states(&strs(&negatives)).unwrap());
        let held = values(base.negative_states(&strs(&negatives)).unwrap());
        for (live, held) in live.iter().zip(&held) {
            let n = live.len() / 3;
            assert_eq!((&held[..n], &held[2 * n..]), (&live[..n], &live[2 * n..]));
            assert!(held[n..2 * n].iter().all(|&value| value == 0.0));
            assert!(live[n..2 * n].iter().any(|&value| value != 0.0));
        }
        base.force_zeros_for_empty_prompt = false;
        assert_eq!(values(base.negative_states(&strs(&negatives)).unwrap()), live);
    }

    #[test]
    fn guidance_in_one_pass_is_both_passes() {
        let (base, case, prompts) = (sdxl(), case(), texts("prompts"));
        let of = |text| base.conditioning(text, &[SIZES]);
        let conditional = of(base.text_states(&[&prompts[0]]).unwrap());
        let unconditional = of(base.negative_states(&[""]).unwrap());
        let noisy = case.tensor("sdxl.sample");
        let (without, with) =
            base.denoise_both(noisy, 481.0, &unconditional, &conditional).unwrap();
        case.check("sdxl.unconditional", without);
        case.check("sdxl.conditional", with);
    }

    #[test]
    fn sizes_are_given_in_the_order_of_sdxl_one_for_all_or_one_per_row() {
        let (base, prompts) = (sdxl(), texts("prompts"));
        let ids = |sizes: &[SizeConditions]| {
            let text = base.text_states(&strs(&prompts)).unwrap();
            host_values(base.conditioning(text, sizes).added.unwrap().time_ids).unwrap()
        };
        let first = [1200.0, 900.0, 24.0, 40.0, 1152.0, 832.0];
        let whole = [512.0, 768.0, 0.0, 0.0, 512.0, 768.0];
        assert_eq!(ids(&[SIZES]), [first, first, first].concat());
        let plain = SizeConditions::whole([512, 768]);
        assert_eq!(ids(&[plain, SIZES, plain]), [whole, first, whole].concat());
    }

    #[test]
    fn a_prompt_is_held_against_both_tokenizers() {
        let mut base = sdxl();
        base.check_prompt("a boat").unwrap();
        base.tokenizer_2.as_mut().unwrap().limit(3);
        let error = base.check_prompt("a red boat").unwrap_err();
        assert!(matches!(error, ModelError::PromptTooLong { limit: 3, .. }));
        let names: Vec<&str> = base.adapted().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["unet", "text_encoder", "text_encoder_2"]);
    }
}
