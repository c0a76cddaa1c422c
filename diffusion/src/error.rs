//! What can be wrong with a noise schedule or a sampler before the first tensor is touched.

use thiserror::Error;

/// A scheduler configuration or a sampler that cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum DiffusionError {
    /// A field of `scheduler_config.json` holds something that is not supported.
    #[error("scheduler field `{field}` is `{found}`, expected {expected}")]
    UnsupportedValue {
        /// Key in `scheduler_config.json`.
        field: String,
        /// The value found there, as JSON.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A field of `scheduler_config.json` is not known, so its effect cannot be reproduced.
    #[error("scheduler field `{field}` (value `{found}`) is not known")]
    UnknownField {
        /// Key in `scheduler_config.json`.
        field: String,
        /// The value found there, as JSON.
        found: String,
    },
    /// A field of `scheduler_config.json` that has no default is absent.
    #[error("scheduler field `{field}` is missing")]
    MissingField {
        /// Key in `scheduler_config.json`.
        field: String,
    },
    /// Noise prediction at a level without signal: the clean image cannot be recovered there.
    #[error(
        "scheduler field `rescale_betas_zero_snr` is `true` with `prediction_type` `epsilon`, \
         expected `v_prediction` or `sample`"
    )]
    ZeroSnrWithEpsilon,
    /// The sampler cannot make this number of steps on this schedule.
    #[error("sampler has {found} steps, expected {expected}")]
    StepCount {
        /// The number of steps that was asked for.
        found: usize,
        /// The range that is possible.
        expected: String,
    },
    /// The stochasticity of DDIM is out of range.
    #[error("sampler has eta {found}, expected a number from 0 to 1")]
    Eta {
        /// The value that was asked for.
        found: f64,
    },
}

impl DiffusionError {
    /// What the user could do about it, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownField { .. } => Some(
                "the file may come from a newer diffusers; remove the field if it says nothing \
                 about noise levels or the kind of prediction"
                    .to_owned(),
            ),
            Self::ZeroSnrWithEpsilon => {
                Some("set the kind of prediction to the one the base was trained with".to_owned())
            }
            Self::UnsupportedValue { .. }
            | Self::MissingField { .. }
            | Self::StepCount { .. }
            | Self::Eta { .. } => None,
        }
    }
}
