//! What a user says about a base beside where it lies.

use std::path::PathBuf;

/// What the user chose about the files of a base.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// Variant of the weight files, such as `fp16`; `None`: plain files first, then `fp16`.
    pub variant: Option<String>,
    /// A VAE of its own: a safetensors file (names of diffusers or ldm), or a diffusers folder of one.
    pub vae: Option<PathBuf>,
    /// Of a single file that holds both: the trained weights or their moving average.
    pub which: WhichWeights,
    /// What the network predicts, where the files do not say it, or say it wrongly.
    pub prediction: Option<Predicts>,
    /// Overrides `rescale_betas_zero_snr` of the scheduler.
    pub zero_terminal_snr: Option<bool>,
    /// Shown as the base's name instead of the last part of its path (hub models lie in folders named by a hash).
    pub name: Option<String>,
}

/// Which of two sets of weights in one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhichWeights {
    /// The trained weights.
    #[default]
    Plain,
    /// Their exponential moving average, which ldm stores below `model_ema.`.
    Average,
}

/// What a network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predicts {
    /// The noise ε.
    Epsilon,
    /// The velocity v = √ᾱ ε − √(1−ᾱ) x₀.
    V,
    /// The clean latents x₀.
    Sample,
}

impl Predicts {
    /// The word of `prediction_type` in `scheduler_config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::V => "v_prediction",
            Self::Sample => "sample",
        }
    }
}

/// Where the vocabulary of a tokenizer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerFiles {
    /// A folder with `tokenizer.json`, or `vocab.json` and `merges.txt`.
    Folder(PathBuf),
    /// CLIP's vocabulary, which this crate carries ([`crate::clip_vocabulary`]).
    Clip {
        /// The token that fills a text up: [`crate::clip_vocabulary::END`] or [`crate::clip_vocabulary::EXCLAMATION`].
        pad: &'static str,
    },
}
