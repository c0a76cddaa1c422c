//! How diffusers' `scheduler_config.json` spells a [`SchedulerConfig`].
//!
//! Owns the names of the fields and what is refused. Opening the file is left to `checkpoints`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::{CLIP_LIMIT, unsupported};
use crate::{
    BetaSchedule, DiffusionError, FinalAlpha, Prediction, SchedulerClass, SchedulerConfig,
    TimestepSpacing,
};

/// Fields that only tune a solver or a display: they change neither noise levels nor targets.
const IGNORED_FIELDS: [&str; 16] = [
    "algorithm_type",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "flow_shift",
    "lambda_min_clipped",
    "lower_order_final",
    "predict_x0",
    "sample_max_value",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "time_shift_type",
    "use_karras_sigmas",
    "use_lu_lambdas",
];

/// Fields whose other values would change the noise levels: absent, null or exactly this.
const FIXED_FIELDS: [(&str, &str); 12] = [
    ("final_sigmas_type", "\"zero\""),
    ("interpolation_type", "\"linear\""),
    ("shift_terminal", "null"),
    ("sigma_max", "null"),
    ("sigma_min", "null"),
    ("thresholding", "false"),
    ("timestep_type", "\"discrete\""),
    ("use_beta_sigmas", "false"),
    ("use_dynamic_shifting", "false"),
    ("use_exponential_sigmas", "false"),
    ("use_flow_sigmas", "false"),
    ("variance_type", "\"fixed_small\""),
];

/// The fields of one file; what is taken out has been understood.
struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Takes a field out and reads it; `None` when it is absent.
    fn read<T>(
        &mut self,
        field: &str,
        expected: &str,
        value_from_json: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, DiffusionError> {
        let Some(value) = self.0.remove(field) else {
            return Ok(None);
        };
        let read = value_from_json(&value);
        read.map(Some).ok_or_else(|| unsupported(field, &value, expected))
    }

    fn number(&mut self, field: &str) -> Result<Option<f64>, DiffusionError> {
        self.read(field, "a number", Value::as_f64)
    }

    fn flag(&mut self, field: &str) -> Result<Option<bool>, DiffusionError> {
        self.read(field, "true or false", Value::as_bool)
    }

    fn count(&mut self, field: &str) -> Result<Option<usize>, DiffusionError> {
        let count_from_json = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.read(field, "a whole number from 0", count_from_json)
    }

    /// Reads a choice by its name.
    fn choice<T: Copy, const N: usize>(
        &mut self,
        field: &str,
        choices: [T; N],
        name: impl Fn(T) -> &'static str,
    ) -> Result<Option<T>, DiffusionError> {
        let names = choices.map(|choice| format!("`{}`", name(choice)));
        self.read(field, &names.join(", "), |value| {
            let found = value.as_str()?;
            choices.into_iter().find(|&choice| name(choice) == found)
        })
    }

    /// Accepts the fields that must not say anything else, then refuses all that are left.
    fn refuse_rest(mut self) -> Result<(), DiffusionError> {
        for (field, expected) in FIXED_FIELDS {
            let value = self.0.remove(field).unwrap_or(Value::Null);
            let found = value.to_string();
            if !value.is_null() && found != expected {
                return Err(unsupported(field, &found, &format!("`{expected}`")));
            }
        }
        let known = |field: &str| field.starts_with('_') || IGNORED_FIELDS.contains(&field);
        match self.0.into_iter().find(|(field, _)| !known(field)) {
            Some((field, value)) => {
                Err(DiffusionError::UnknownField { field, found: value.to_string() })
            }
            None => Ok(()),
        }
    }
}

/// Reads null as "not given" and otherwise a list of numbers.
#[expect(clippy::option_option, reason = "the outer option says whether the value is readable")]
fn betas_from_json(value: &Value) -> Option<Option<Vec<f64>>> {
    if value.is_null() {
        return Some(None);
    }
    value.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>().map(Some)
}

impl TryFrom<BTreeMap<String, Value>> for SchedulerConfig {
    type Error = DiffusionError;

    fn try_from(map: BTreeMap<String, Value>) -> Result<Self, DiffusionError> {
        let mut fields = Fields(map);
        let class = fields.choice("_class_name", SchedulerClass::ALL, SchedulerClass::name)?;
        let field = "_class_name".to_owned();
        let class = class.ok_or(DiffusionError::MissingField { field })?;
        let default = Self::defaults(class);
        let schedule = fields.choice("beta_schedule", BetaSchedule::ALL, BetaSchedule::name)?;
        let prediction = fields.choice("prediction_type", Prediction::ALL, Prediction::name)?;
        let spacing =
            fields.choice("timestep_spacing", TimestepSpacing::ALL, TimestepSpacing::name)?;
        let n_train = fields.count("num_train_timesteps")?;
        let betas = fields.read("trained_betas", "null or a list of numbers", betas_from_json)?;
        let final_alphas = |one| if one { FinalAlpha::One } else { FinalAlpha::First };
        let final_alpha = fields.flag("set_alpha_to_one")?.map(final_alphas);
        let clips = fields.flag("clip_sample")?;
        let clip_limit = fields.number("clip_sample_range")?;
        let config = Self {
            class,
            num_train_timesteps: n_train.unwrap_or(default.num_train_timesteps),
            beta_start: fields.number("beta_start")?.unwrap_or(default.beta_start),
            beta_end: fields.number("beta_end")?.unwrap_or(default.beta_end),
            beta_schedule: schedule.unwrap_or(default.beta_schedule),
            trained_betas: betas.unwrap_or(default.trained_betas),
            prediction_type: prediction.unwrap_or(default.prediction_type),
            timestep_spacing: spacing.unwrap_or(default.timestep_spacing),
            steps_offset: fields.count("steps_offset")?.unwrap_or(default.steps_offset),
            final_alpha: final_alpha.unwrap_or(default.final_alpha),
            clip_range: clips
                .unwrap_or(default.clip_range.is_some())
                .then_some(clip_limit.unwrap_or(CLIP_LIMIT)),
            zero_terminal_snr: fields
                .flag("rescale_betas_zero_snr")?
                .unwrap_or(default.zero_terminal_snr),
        };
        fields.refuse_rest()?;
        config.check()?;
        Ok(config)
    }
}

impl From<SchedulerConfig> for BTreeMap<String, Value> {
    /// Writes the fields common to all classes, and of the rest what the class declares or what
    /// differs from its default: diffusers warns about fields that a class does not declare.
    fn from(config: SchedulerConfig) -> Self {
        use SchedulerClass as C;
        let class = config.class;
        let default = SchedulerConfig::defaults(class);
        let mut map = Self::new();
        let mut put = |field: &str, value: Value| map.insert(field.to_owned(), value);
        put("_class_name", json!(class.name()));
        put("num_train_timesteps", json!(config.num_train_timesteps));
        put("beta_start", json!(config.beta_start));
        put("beta_end", json!(config.beta_end));
        put("beta_schedule", json!(config.beta_schedule.name()));
        put("trained_betas", json!(config.trained_betas));
        put("prediction_type", json!(config.prediction_type.name()));
        put("timestep_spacing", json!(config.timestep_spacing.name()));
        put("steps_offset", json!(config.steps_offset));
        if matches!(class, C::Ddim | C::Pndm) || config.final_alpha != default.final_alpha {
            put("set_alpha_to_one", json!(config.final_alpha == FinalAlpha::One));
        }
        if matches!(class, C::Ddim | C::Ddpm) || config.clip_range != default.clip_range {
            put("clip_sample", json!(config.clip_range.is_some()));
            put("clip_sample_range", json!(config.clip_range.unwrap_or(CLIP_LIMIT)));
        }
        if matches!(class, C::Ddim | C::Ddpm) || config.zero_terminal_snr {
            put("rescale_betas_zero_snr", json!(config.zero_terminal_snr));
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SchedulerConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The file of Stable Diffusion 1.5, verbatim but for line breaks.
    const SD15: &str = r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0",
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true,
        "steps_offset": 1, "trained_betas": null, "clip_sample": false}"#;

    /// The file of SDXL base 1.0.
    const SDXL: &str = r#"{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "interpolation_type": "linear", "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "leading",
        "trained_betas": null, "use_karras_sigmas": false}"#;

    #[test]
    fn released_files_state_the_stable_diffusion_schedule() {
        for (text, class) in [(SD15, SchedulerClass::Pndm), (SDXL, SchedulerClass::Euler)] {
            let expected =
                SchedulerConfig { class, ..SchedulerConfig::stable_diffusion(Prediction::Epsilon) };
            assert_eq!(parse(text), Ok(expected));
        }
    }

    #[test]
    fn absent_fields_take_the_defaults_of_the_class() {
        use TimestepSpacing::{Leading, Linspace};
        for (class, spacing, clips, beta_end, final_alpha) in [
            ("DDIMScheduler", Leading, true, 0.02, FinalAlpha::One),
            ("DDPMScheduler", Leading, true, 0.02, FinalAlpha::One),
            ("PNDMScheduler", Leading, false, 0.02, FinalAlpha::First),
            ("EulerDiscreteScheduler", Linspace, false, 0.02, FinalAlpha::One),
            ("EulerAncestralDiscreteScheduler", Linspace, false, 0.02, FinalAlpha::One),
            ("DPMSolverMultistepScheduler", Linspace, false, 0.02, FinalAlpha::One),
            ("UniPCMultistepScheduler", Linspace, false, 0.02, FinalAlpha::One),
            ("HeunDiscreteScheduler", Linspace, false, 0.012, FinalAlpha::One),
        ] {
            let config = parse(&format!(r#"{{"_class_name": "{class}"}}"#)).unwrap();
            assert_eq!(config.timestep_spacing, spacing, "{class}");
            assert_eq!(config.clip_range.is_some(), clips, "{class}");
            assert!((config.beta_end - beta_end).abs() < 1e-15, "{class}");
            assert_eq!(config.final_alpha, final_alpha, "{class}");
            assert_eq!(config.beta_schedule, BetaSchedule::Linear, "{class}");
            assert_eq!((config.num_train_timesteps, config.steps_offset), (1000, 0), "{class}");
        }
    }

    #[test]
    fn a_refused_value_is_named_with_its_field() {
        for (field, value, expected) in [
            ("prediction_type", "\"flow\"", "`epsilon`, `v_prediction`, `sample`"),
            ("beta_schedule", "\"sigmoid\"", "`linear`, `scaled_linear`, `squaredcos_cap_v2`"),
            ("timestep_spacing", "3", "`leading`, `trailing`, `linspace`"),
            ("beta_start", "\"x\"", "a number"),
            ("beta_start", "0", "a number between 0 and 1"),
            ("num_train_timesteps", "0", "1 to 1000000"),
            ("num_train_timesteps", "10000000", "1 to 1000000"),
            ("num_train_timesteps", "-3", "a whole number from 0"),
            ("thresholding", "true", "`false`"),
            ("variance_type", "\"learned\"", "`\"fixed_small\"`"),
            ("clip_sample", "1", "true or false"),
            ("clip_sample_range", "0", "a positive number"),
            ("steps_offset", "1000", "less than `num_train_timesteps`"),
            ("trained_betas", "[0.5]", "1000 numbers"),
        ] {
            let text = format!(r#"{{"_class_name": "DDIMScheduler", "{field}": {value}}}"#);
            let message = parse(&text).unwrap_err();
            assert!(message.contains(&format!("`{field}`")), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn unknown_fields_and_classes_are_refused() {
        let unknown = parse(r#"{"_class_name": "DDIMScheduler", "beta_strat": 0.1}"#).unwrap_err();
        assert!(unknown.contains("`beta_strat` (value `0.1`) is not known"), "{unknown}");
        let class = parse(r#"{"_class_name": "LCMScheduler"}"#).unwrap_err();
        assert!(class.contains("`_class_name` is `\"LCMScheduler\"`"), "{class}");
        let missing = parse("{}").unwrap_err();
        assert!(missing.contains("`_class_name` is missing"), "{missing}");
    }

    #[test]
    fn zero_terminal_snr_refuses_noise_prediction() {
        let file = |prediction: &str| {
            parse(&format!(
                r#"{{"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true,
                    "prediction_type": "{prediction}"}}"#
            ))
        };
        assert!(file("epsilon").unwrap_err().contains("`rescale_betas_zero_snr`"));
        assert!(file("v_prediction").unwrap().zero_terminal_snr);
    }

    #[test]
    fn writing_and_reading_gives_the_same_configuration() {
        for class in SchedulerClass::ALL {
            let plain = SchedulerConfig::defaults(class);
            let changed = SchedulerConfig {
                class,
                timestep_spacing: TimestepSpacing::Trailing,
                clip_range: plain.clip_range.is_none().then_some(2.5),
                final_alpha: FinalAlpha::First,
                zero_terminal_snr: true,
                trained_betas: Some(vec![0.1; 1000]),
                ..SchedulerConfig::stable_diffusion(Prediction::V)
            };
            for config in [plain, changed] {
                let text = serde_json::to_string(&config).unwrap();
                assert_eq!(parse(&text).unwrap(), config);
            }
        }
    }
}
