//! The section `pretrain`: a network trained from scratch instead of a settlement.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

use crate::dataset::PostcardsSpec;
use crate::field::{Field, Real, raw_section};
use crate::fit::{EmaSpec, FitSpec, LrScheduleSpec, OptimizerSpec};
use crate::problem::{Checks, above};
use crate::units::{Places, folder};

/// A network trained from scratch on drawn postcards.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PretrainRecipe {
    /// Name of the recipe and of its run.
    pub name: String,
    /// Seed of every draw.
    pub seed: u64,
    /// Folder that receives the finished component; relative, without `..`.
    pub into: PathBuf,
    /// Which network.
    #[serde(rename = "pretrain")]
    pub network: PretrainSpec,
    /// What it is trained on.
    #[serde(serialize_with = "dataset_as_yaml")]
    pub dataset: PostcardsSpec,
    /// How long and how fast; without `batch.accumulate`, `activation_recompute`, `keep` and
    /// `previews`, which nothing reads.
    #[serde(serialize_with = "fit_as_yaml")]
    pub fit: FitSpec,
}

fn fit_as_yaml<S: Serializer>(fit: &FitSpec, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Read<'a> {
        steps: u64,
        batch: BTreeMap<&'static str, u32>,
        optimizer: &'a OptimizerSpec,
        clip_norm: f64,
        schedule: &'a LrScheduleSpec,
        save_every: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ema: Option<EmaSpec>,
    }
    let FitSpec { steps, batch, optimizer, clip_norm, schedule, save_every, ema, .. } = fit;
    Read {
        steps: *steps,
        batch: BTreeMap::from([("images", batch.images)]),
        optimizer,
        clip_norm: *clip_norm,
        schedule,
        save_every: *save_every,
        ema: *ema,
    }
    .serialize(serializer)
}

fn dataset_as_yaml<S: Serializer>(
    dataset: &PostcardsSpec,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map([("postcards", dataset)])
}

/// Which network is trained from scratch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PretrainSpec {
    /// The autoencoder between pixels and latents.
    Vae {
        /// Its `config.json`.
        config: PathBuf,
        /// Weight of the KL term beside the reconstruction, at least 0.
        kl_weight: f64,
    },
    /// A CLIP that looks at pictures, as evaluator.
    Clip {
        /// Its `config.json`.
        config: PathBuf,
        /// Share of captions that are shortened, in [0, 1].
        augment_captions: f64,
    },
    /// The UNet and the text encoder, together.
    Unet {
        /// `config.json` of the UNet.
        unet: PathBuf,
        /// `config.json` of the text encoder.
        text_encoder: PathBuf,
        /// `scheduler_config.json`.
        scheduler: PathBuf,
        /// Folder of the trained autoencoder.
        vae: PathBuf,
        /// Share of captions replaced by the empty one, in [0, 1).
        caption_dropout: f64,
        /// Share of captions that are shortened, in [0, 1); with `caption_dropout` at most 1.
        caption_shorten: f64,
        /// γ of min-SNR weighting, above 0.
        min_snr_gamma: f64,
    },
}

/// Which network is trained from scratch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawPretrain {
    /// The autoencoder between pixels and latents.
    Vae(RawVae),
    /// A CLIP that looks at pictures.
    Clip(RawClip),
    /// The UNet and the text encoder, together.
    Unet(Box<RawUnet>),
}

raw_section! {
    /// The autoencoder.
    RawVae {
        /// Its `config.json`.
        #[schemars(!default, required)]
        config: PathBuf,
        /// Weight of the KL term beside the reconstruction (default 1e-6).
        #[schemars(range(min = 0))]
        kl_weight: Real,
    }
}

raw_section! {
    /// A CLIP that looks at pictures.
    RawClip {
        /// Its `config.json`.
        #[schemars(!default, required)]
        config: PathBuf,
        /// Share of captions that are shortened (default 0.5), so that single words are learned.
        #[schemars(range(min = 0, max = 1))]
        augment_captions: Real,
    }
}

raw_section! {
    /// The UNet and the text encoder.
    RawUnet {
        /// `config.json` of the UNet.
        #[schemars(!default, required)]
        unet: PathBuf,
        /// `config.json` of the text encoder.
        #[schemars(!default, required)]
        text_encoder: PathBuf,
        /// `scheduler_config.json`.
        #[schemars(!default, required)]
        scheduler: PathBuf,
        /// Folder of the trained autoencoder.
        #[schemars(!default, required)]
        vae: PathBuf,
        /// Share of captions replaced by "" (default 0.15), which teaches the unasked prior.
        #[schemars(range(min = 0, max = 1))]
        caption_dropout: Real,
        /// Share of captions that are shortened (default 0.27).
        #[schemars(range(min = 0, max = 1))]
        caption_shorten: Real,
        /// Gamma of min-SNR weighting (default 5).
        #[schemars(range(min = 0))]
        min_snr_gamma: Real,
    }
}

/// Resolves the section `pretrain`.
pub(crate) fn resolve(
    raw: Spanned<RawPretrain>,
    places: &Places,
    checks: &mut Checks,
) -> Option<PretrainSpec> {
    let section = raw.referenced;
    match raw.value {
        RawPretrain::Vae(raw) => {
            let config = required_path(raw.config, "pretrain.vae.config", section, places, checks);
            let key = "pretrain.vae.kl_weight";
            let kl_weight = raw.kl_weight.number_or(1.0e-6, key, &(0.0..=1.0), checks);
            Some(PretrainSpec::Vae { config: config?, kl_weight })
        }
        RawPretrain::Clip(raw) => {
            let config = required_path(raw.config, "pretrain.clip.config", section, places, checks);
            let key = "pretrain.clip.augment_captions";
            let augment_captions = raw.augment_captions.number_or(0.5, key, &(0.0..=1.0), checks);
            Some(PretrainSpec::Clip { config: config?, augment_captions })
        }
        RawPretrain::Unet(raw) => raw.resolve(section, places, checks),
    }
}

impl RawUnet {
    fn resolve(
        self,
        section: Location,
        places: &Places,
        checks: &mut Checks,
    ) -> Option<PretrainSpec> {
        let path = |raw, key: &str, checks: &mut Checks| {
            required_path(raw, &format!("pretrain.unet.{key}"), section, places, checks)
        };
        let unet = path(self.unet, "unet", checks);
        let text_encoder = path(self.text_encoder, "text_encoder", checks);
        let scheduler = path(self.scheduler, "scheduler", checks);
        let vae = path(self.vae, "vae", checks);
        let key = "pretrain.unet.caption_dropout";
        let caption_dropout = self.caption_dropout.number_or(0.15, key, &(0.0..1.0), checks);
        let shorten_at = self.caption_shorten.location();
        let key = "pretrain.unet.caption_shorten";
        let caption_shorten = self.caption_shorten.number_or(0.27, key, &(0.0..1.0), checks);
        if caption_dropout + caption_shorten > 1.0 {
            checks.problem(
                shorten_at.unwrap_or(section),
                format!(
                    "`caption_dropout` and `caption_shorten` must be at most 1 together, found \
                     `{caption_dropout}` and `{caption_shorten}`"
                ),
            );
        }
        let key = "pretrain.unet.min_snr_gamma";
        let min_snr_gamma = self.min_snr_gamma.number_or(5.0, key, &above(0.0, 1000.0), checks);
        Some(PretrainSpec::Unet {
            unet: unet?,
            text_encoder: text_encoder?,
            scheduler: scheduler?,
            vae: vae?,
            caption_dropout,
            caption_shorten,
            min_snr_gamma,
        })
    }
}

fn required_path(
    raw: Field<PathBuf>,
    key: &str,
    section: Location,
    places: &Places,
    checks: &mut Checks,
) -> Option<PathBuf> {
    let path = raw.required(key, section, checks)?;
    Some(folder(&path, key, places, checks))
}

/// The folder that receives the result: relative and without `..`, because a recipe may not write
/// outside the working directory.
pub(crate) fn into_folder(
    raw: Field<PathBuf>,
    root: Location,
    checks: &mut Checks,
) -> Option<PathBuf> {
    let path = raw.required("into", root, checks)?;
    let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.value.as_os_str().is_empty() || !path.value.components().all(plain) {
        checks.problem(
            path.referenced,
            format!(
                "`into` must be a relative path without `..`, found `{}`",
                path.value.display()
            ),
        );
    }
    Some(path.value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::check::{one_problem, problems};
    use crate::recipe::{Loaded, load_text};

    const VAE: &str = "\
name: vae
into: out/vae
pretrain: { vae: { config: vae.json } }
dataset: { postcards: { images: 100 } }
fit: { steps: 10, optimizer: { adamw: { learning_rate: 0.001 } } }
";

    fn pretrained(text: &str) -> PretrainRecipe {
        match load_text(Path::new("t.yaml"), text, &[]) {
            Ok(Loaded::Pretrain(recipe)) => *recipe,
            other => panic!("expected a pretraining, found {other:?}"),
        }
    }

    #[test]
    fn the_section_makes_another_kind_of_recipe() {
        let recipe = pretrained(VAE);
        assert_eq!(recipe.into, PathBuf::from("out/vae"));
        assert_eq!(recipe.dataset, PostcardsSpec { images: 100, side_px: 64 });
        let network = PretrainSpec::Vae { config: "vae.json".into(), kl_weight: 1.0e-6 };
        assert_eq!(recipe.network, network);
    }

    #[test]
    fn a_result_stays_below_the_working_directory() {
        for into in ["/etc", "../x", "a/../../x", "''"] {
            let problems = problems(&VAE.replace("out/vae", into));
            let rule = "`into` must be a relative path without `..`";
            assert!(problems[0].message.starts_with(rule), "{problems:?}");
        }
    }

    #[test]
    fn sections_of_a_settlement_have_no_meaning() {
        let text = format!("{VAE}adapter: lora\n");
        one_problem(&text, (6, 10), "lora", "`adapter` has no meaning beside `pretrain`");
        let text = VAE.replace("postcards: { images: 100 }", "captioned: { images: x }");
        one_problem(&text, (4, 10), "{", "`dataset` must be `postcards` beside `pretrain`");
    }

    #[test]
    fn settings_that_nothing_reads_have_no_meaning() {
        for (setting, key) in [
            ("batch: { accumulate: 4 }", "fit.batch.accumulate"),
            ("activation_recompute: true", "fit.activation_recompute"),
            ("keep: 3", "fit.keep"),
            ("previews: { every: 5 }", "fit.previews"),
        ] {
            let text = VAE.replace("steps: 10,", &format!("steps: 10, {setting},"));
            let rule = format!("`{key}` has no meaning beside `pretrain`");
            assert_eq!(problems(&text)[0].message, rule);
        }
    }

    #[test]
    fn every_missing_path_is_named() {
        let text = VAE.replace("vae: { config: vae.json }", "unet: { unet: u.json }");
        let messages: Vec<_> = problems(&text).into_iter().map(|problem| problem.message).collect();
        assert_eq!(
            messages,
            [
                "`pretrain.unet.text_encoder` is missing",
                "`pretrain.unet.scheduler` is missing",
                "`pretrain.unet.vae` is missing",
            ]
        );
    }

    #[test]
    fn dropped_and_shortened_captions_are_at_most_all_captions() {
        let unet = "unet: { unet: a, text_encoder: b, scheduler: c, vae: d, caption_dropout: 0.5, \
                    caption_shorten: 0.6 }";
        let problems = problems(&VAE.replace("vae: { config: vae.json }", unet));
        assert!(problems[0].message.contains("at most 1 together, found `0.5` and `0.6`"));
    }
}
