//! What a base says about its noise: levels, prediction, spacing of timesteps.
//!
//! Owns the meaning, the defaults and the ranges. How `scheduler_config.json` spells them is left
//! to [`crate::config_file`], which sampler runs to the caller ([`crate::SamplerKind`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{DiffusionError, Prediction, TimestepSpacing};

/// What a clipped clean estimate is clipped to when a file does not say (`clip_sample_range`).
pub(crate) const CLIP_LIMIT: f64 = 1.0;

/// Upper bound of `num_train_timesteps`: far above any trained model, far below a memory problem.
const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

/// A `scheduler_config.json` with every default of its class filled in.
///
/// Deserialization is strict: a value that is not supported and a field that is not known are
/// errors naming field and value. Keys that begin with `_` are accepted.
///
/// An absent field takes the default of the class that the *file* names. diffusers'
/// `from_config` takes the default of the class that *samples*: with a file that leaves
/// `timestep_spacing` open (Stable Diffusion 1.5) the two differ for Euler and DPM++ 2M. Set
/// [`Self::timestep_spacing`] to follow diffusers there.
///
/// Source: diffusers `schedulers/scheduling_*.py`, the `register_to_config` signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Value>", into = "BTreeMap<String, Value>")]
pub struct SchedulerConfig {
    /// The scheduler class that wrote the file; it decided the defaults.
    pub class: SchedulerClass,
    /// Number of noise levels T of the training, 1000 for every released base.
    pub num_train_timesteps: usize,
    /// First β, in (0, 1).
    pub beta_start: f64,
    /// Last β, in (0, 1).
    pub beta_end: f64,
    /// How β runs from first to last.
    pub beta_schedule: BetaSchedule,
    /// Explicit β per timestep; overrides the three fields above.
    pub trained_betas: Option<Vec<f64>>,
    /// What the network outputs.
    pub prediction_type: Prediction,
    /// Which timesteps a sampler visits.
    pub timestep_spacing: TimestepSpacing,
    /// Added to timesteps under leading spacing.
    pub steps_offset: usize,
    /// ᾱ assumed behind the last step of DDIM.
    pub final_alpha: FinalAlpha,
    /// Limit to which DDIM and DDPM clip the clean estimate, if they clip it at all.
    pub clip_range: Option<f64>,
    /// Whether the schedule is rescaled so that the last level bears no signal (ᾱ = 0).
    pub zero_terminal_snr: bool,
}

/// The scheduler classes of diffusers whose files can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulerClass {
    /// `DDIMScheduler`
    Ddim,
    /// `DDPMScheduler`
    Ddpm,
    /// `PNDMScheduler`
    Pndm,
    /// `EulerDiscreteScheduler`
    Euler,
    /// `EulerAncestralDiscreteScheduler`
    EulerAncestral,
    /// `DPMSolverMultistepScheduler`
    DpmSolverMultistep,
    /// `UniPCMultistepScheduler`
    UniPcMultistep,
    /// `HeunDiscreteScheduler`
    Heun,
}

impl SchedulerClass {
    /// Every class that can be read.
    pub const ALL: [Self; 8] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Euler,
        Self::EulerAncestral,
        Self::DpmSolverMultistep,
        Self::UniPcMultistep,
        Self::Heun,
    ];

    /// The value of `_class_name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
            Self::UniPcMultistep => "UniPCMultistepScheduler",
            Self::Heun => "HeunDiscreteScheduler",
        }
    }
}

/// How β runs over the timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaSchedule {
    /// Evenly from first to last.
    Linear,
    /// Even in √β; the schedule of Stable Diffusion.
    ScaledLinear,
    /// The squared cosine of improved DDPM, β capped at 0.999; ignores first and last.
    SquaredCosine,
}

impl BetaSchedule {
    pub(crate) const ALL: [Self; 3] = [Self::Linear, Self::ScaledLinear, Self::SquaredCosine];

    /// The value of `beta_schedule`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::ScaledLinear => "scaled_linear",
            Self::SquaredCosine => "squaredcos_cap_v2",
        }
    }
}

/// ᾱ assumed behind the last step of DDIM (`set_alpha_to_one`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalAlpha {
    /// 1: no noise is left.
    One,
    /// ᾱ of timestep 0: the least noise that the training saw.
    First,
}

impl SchedulerConfig {
    /// The defaults that diffusers gives to a class; no released base uses them unchanged.
    pub fn defaults(class: SchedulerClass) -> Self {
        use SchedulerClass as C;
        let (beta_start, beta_end) = match class {
            C::Heun => (0.00085, 0.012),
            C::Ddim
            | C::Ddpm
            | C::Pndm
            | C::Euler
            | C::EulerAncestral
            | C::DpmSolverMultistep
            | C::UniPcMultistep => (1e-4, 0.02),
        };
        let timestep_spacing = match class {
            C::Ddim | C::Ddpm | C::Pndm => TimestepSpacing::Leading,
            C::Euler | C::EulerAncestral | C::Heun | C::DpmSolverMultistep | C::UniPcMultistep => {
                TimestepSpacing::Linspace
            }
        };
        Self {
            class,
            num_train_timesteps: 1000,
            beta_start,
            beta_end,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
            prediction_type: Prediction::Epsilon,
            timestep_spacing,
            steps_offset: 0,
            final_alpha: if class == C::Pndm { FinalAlpha::First } else { FinalAlpha::One },
            clip_range: matches!(class, C::Ddim | C::Ddpm).then_some(CLIP_LIMIT),
            zero_terminal_snr: false,
        }
    }

    /// The noise schedule of Stable Diffusion 1, 2 and XL as a DDIM file would state it:
    /// `scaled_linear` from 0.00085 to 0.012, 1000 levels, leading with offset 1, no clipping.
    pub fn stable_diffusion(prediction: Prediction) -> Self {
        Self {
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction_type: prediction,
            steps_offset: 1,
            final_alpha: FinalAlpha::First,
            clip_range: None,
            ..Self::defaults(SchedulerClass::Ddim)
        }
    }

    /// The same with trailing in place of leading spacing where the schedule ends without signal:
    /// leading spacing never visits that level, and a sampler would take pure noise for a level
    /// that still bears some signal.
    ///
    /// Source: Lin et al. 2023, arXiv:2305.08891, section 3.3.
    #[must_use]
    pub fn reaching_the_last_level(mut self) -> Self {
        if self.zero_terminal_snr && self.timestep_spacing == TimestepSpacing::Leading {
            self.timestep_spacing = TimestepSpacing::Trailing;
        }
        self
    }

    /// Checks the ranges of all fields.
    ///
    /// # Errors
    ///
    /// The first field that is out of range, with its value; a rescaled schedule together with
    /// noise prediction.
    pub fn check(&self) -> Result<(), DiffusionError> {
        let n_train = self.num_train_timesteps;
        if !(1..=MAX_TRAIN_TIMESTEPS).contains(&n_train) {
            return Err(unsupported("num_train_timesteps", &n_train, "1 to 1000000"));
        }
        for (field, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(unsupported(field, &beta, "a number between 0 and 1"));
            }
        }
        if let Some(betas) = &self.trained_betas {
            if betas.len() != n_train {
                let expected = format!("{n_train} numbers (`num_train_timesteps`)");
                return Err(unsupported("trained_betas", &betas.len(), &expected));
            }
            if let Some(beta) = betas.iter().find(|&&beta| !(beta > 0.0 && beta < 1.0)) {
                return Err(unsupported("trained_betas", &beta, "numbers between 0 and 1"));
            }
        }
        if self.steps_offset >= n_train {
            return Err(unsupported(
                "steps_offset",
                &self.steps_offset,
                "less than `num_train_timesteps`",
            ));
        }
        if let Some(range) = self.clip_range.filter(|&range| !(range > 0.0 && range.is_finite())) {
            return Err(unsupported("clip_sample_range", &range, "a positive number"));
        }
        if self.zero_terminal_snr && self.prediction_type == Prediction::Epsilon {
            return Err(DiffusionError::ZeroSnrWithEpsilon);
        }
        Ok(())
    }
}

/// The error about one field that holds something else than expected.
pub(crate) fn unsupported(field: &str, found: &impl ToString, expected: &str) -> DiffusionError {
    DiffusionError::UnsupportedValue {
        field: field.to_owned(),
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}
