//! What a picture tells of itself: as JSON, and in the words of A1111's interface, which most other
//! programs read.

use std::fmt::Write as _;

use checkpoints::hash;
use models::SizeConditions;
use models::base::Precision;
use serde_json::{Value, json};

use super::model::{Attached, Model};
use super::order::Order;
use super::start::Seeding;
use crate::args::{GenerateArguments, SamplerName};
use crate::drawing::Method;

/// Hex digits by which A1111 knows a checkpoint and a VAE, and an adapter.
const MODEL_DIGITS: usize = 10;
const LORA_DIGITS: usize = 12;
/// Under which name a base of one file has its hash.
const SINGLE_FILE: &str = "single_file";

/// All that the pictures of one command have in common.
#[derive(Debug)]
pub(super) struct Record<'a> {
    arguments: &'a GenerateArguments,
    order: &'a Order,
    model: &'a Model,
    method: Method,
    seeding: Seeding,
    /// The identity of the base, with the options that change it.
    base_sha256: String,
    /// The hash of its file, if it is one.
    model_sha256: String,
}

/// One picture of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown<'a> {
    /// Its prompt.
    pub(super) prompt: &'a str,
    /// Its seed.
    pub(super) seed: u64,
}

impl<'a> Record<'a> {
    /// What the pictures of these arguments have in common.
    pub(super) fn new(
        arguments: &'a GenerateArguments,
        order: &'a Order,
        model: &'a Model,
        method: Method,
        seeding: Seeding,
    ) -> Self {
        let hashes = &model.base.hashes;
        let pairs = hashes.iter().map(|(name, hash)| (name.as_str(), hash.as_str()));
        let base_sha256 = hash::combined_sha256(pairs);
        // Other programs know a checkpoint by the hash of its file.
        let model_sha256 = hashes.get(SINGLE_FILE).unwrap_or(&base_sha256).clone();
        Self { arguments, order, model, method, seeding, base_sha256, model_sha256 }
    }

    /// Of one picture, for programs. Names of files, no paths: pictures are given away.
    pub(super) fn of_picture(&self, shown: Shown<'_>) -> Value {
        let mut about = self.common();
        about["prompt"] = json!(shown.prompt);
        about["seed"] = json!(shown.seed);
        about
    }

    /// Of a sheet: a row for each prompt, a column for each seed.
    pub(super) fn of_sheet(&self, seeds: &[u64]) -> Value {
        let mut about = self.common();
        about["prompts"] = json!(self.order.prompts);
        about["seeds"] = json!(seeds);
        about
    }

    fn common(&self) -> Value {
        let Method { steps, guidance_scale, guidance_rescale, sizes, .. } = self.method;
        let [height_px, width_px] = sizes.target;
        let adapter = |adapter: &Attached| {
            let sha256 = &adapter.tensors_sha256;
            json!({ "name": adapter.name, "dose": adapter.dose, "tensors_sha256": sha256 })
        };
        let adapters: Vec<Value> = self.model.adapters.iter().map(adapter).collect();
        let mut about = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "base": self.model.files.name(),
            "base_sha256": self.base_sha256,
            "negative_prompt": self.arguments.pictures.negative,
            "steps": steps,
            "sampler": self.sampler().name,
            "karras": self.sampler().schedule == KARRAS,
            "eta": self.sampler().eta,
            "spacing": self.method.spacing,
            "guidance_scale": guidance_scale,
            "guidance_rescale": guidance_rescale,
            "clip_skip": self.model.base.clip_skip,
            "vae": self.vae_name(),
            "init_latents": self.arguments.start.init_latents.is_some(),
            "width_px": width_px,
            "height_px": height_px,
            "adapters": adapters,
        });
        // What is usual is not said, so that pictures keep their bytes.
        let precision = self.model.base.precision;
        if precision != Precision::F32 {
            about["precision"] = json!(precision.name());
        }
        if let Some(picture) = &self.order.picture {
            about["init_image_sha256"] = json!(picture.sha256);
            about["strength"] = json!(picture.strength);
        }
        if sizes != SizeConditions::whole(sizes.target) {
            let ([height, width], [top, left]) = (sizes.original, sizes.crop);
            about["original_size_px"] = json!({ "height": height, "width": width });
            about["crop_px"] = json!({ "top": top, "left": left });
        }
        about
    }

    /// The same in the words of A1111's interface: the prompt, what it is held against, and a line
    /// of settings.
    ///
    /// Source: A1111 `processing.create_infotext` and `infotext_utils.parse_generation_parameters`.
    pub(super) fn parameters(&self, shown: Shown<'_>) -> String {
        let mut text = shown.prompt.to_owned();
        for adapter in &self.model.adapters {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing into a string cannot fail.
            let _ = write!(text, "{gap}<lora:{}:{}>", adapter.name, adapter.dose);
        }
        let negative = &self.arguments.pictures.negative;
        if !negative.is_empty() {
            let _ = write!(text, "\nNegative prompt: {negative}");
        }
        let settings: Vec<String> = self
            .settings(shown.seed)
            .into_iter()
            .map(|(key, value)| format!("{key}: {}", quoted(value)))
            .collect();
        let _ = write!(text, "\n{}", settings.join(", "));
        text
    }

    fn settings(&self, seed: u64) -> Vec<(&'static str, String)> {
        let Method { steps, guidance_scale, guidance_rescale, sizes, .. } = self.method;
        let [height_px, width_px] = sizes.target;
        let sampler = self.sampler();
        let mut settings = vec![
            ("Steps", steps.to_string()),
            ("Sampler", sampler.name.to_owned()),
            ("Schedule type", sampler.schedule.to_owned()),
            ("CFG scale", guidance_scale.to_string()),
        ];
        if self.seeding == Seeding::Draws {
            settings.push(("Seed", seed.to_string()));
        }
        settings.extend([
            ("Size", format!("{width_px}x{height_px}")),
            ("Model hash", digits(&self.model_sha256, MODEL_DIGITS)),
            ("Model", self.model.files.name()),
        ]);
        settings.extend(self.vae_name().map(|name| ("VAE", name)));
        let picture = self.order.picture.as_ref();
        settings.extend(picture.map(|p| ("Denoising strength", p.strength.to_string())));
        let clip_skip = self.model.base.clip_skip;
        if clip_skip > 1 {
            settings.push(("Clip skip", clip_skip.to_string()));
        }
        if sampler.eta > 0.0 {
            settings.push(("Eta DDIM", sampler.eta.to_string()));
        }
        if guidance_rescale > 0.0 {
            settings.push(("Guidance rescale", guidance_rescale.to_string()));
        }
        let hashes = self.model.adapters.iter().map(|adapter| {
            format!("{}: {}", adapter.name, digits(&adapter.tensors_sha256, LORA_DIGITS))
        });
        let hashes: Vec<String> = hashes.collect();
        if !hashes.is_empty() {
            settings.push(("Lora hashes", hashes.join(", ")));
        }
        settings.push(("Version", format!("populate {}", env!("CARGO_PKG_VERSION"))));
        settings
    }

    fn vae_name(&self) -> Option<String> {
        let path = self.arguments.base.vae.as_ref()?;
        path.file_name().map(|name| name.to_string_lossy().into_owned())
    }

    fn sampler(&self) -> SamplerWords {
        let sampling = &self.arguments.sampling;
        let words = |name: &'static str| SamplerWords { name, schedule: AUTOMATIC, eta: 0.0 };
        match sampling.sampler {
            SamplerName::Ddim => SamplerWords { eta: sampling.eta.unwrap_or(0.0), ..words("DDIM") },
            SamplerName::DdimEta1 => SamplerWords { eta: 1.0, ..words("DDIM") },
            SamplerName::Ddpm => words("DDPM"),
            SamplerName::Euler => words("Euler"),
            SamplerName::EulerA => words("Euler a"),
            SamplerName::DpmPp2M => words("DPM++ 2M"),
            SamplerName::DpmPp2MKarras => SamplerWords { schedule: KARRAS, ..words("DPM++ 2M") },
        }
    }
}

/// A1111's word for the noise levels that a sampler has by itself.
const AUTOMATIC: &str = "Automatic";
/// Its word for those of Karras et al.
const KARRAS: &str = "Karras";

/// A sampler as A1111's interface shows it.
#[derive(Debug, Clone, Copy)]
struct SamplerWords {
    name: &'static str,
    schedule: &'static str,
    /// Step noise of DDIM.
    eta: f64,
}

fn digits(sha256: &str, n: usize) -> String {
    sha256.chars().take(n).collect()
}

/// A value that would end early is written as a JSON string.
///
/// Source: A1111 `infotext_utils.quote`.
fn quoted(value: String) -> String {
    if value.contains([',', ':', '\n']) { Value::String(value).to_string() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_would_end_early_is_quoted() {
        let quoted = |value: &str| quoted(value.to_owned());
        assert_eq!(quoted("DPM++ 2M"), "DPM++ 2M");
        assert_eq!(quoted("ink: 0123"), r#""ink: 0123""#);
        assert_eq!(quoted("a, \"b\""), r#""a, \"b\"""#);
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted("塔: 1"), "\"塔: 1\"");
    }
}
