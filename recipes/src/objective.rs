//! The section `objective`: what the loss compares, and how it weighs noise levels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::base::{BasePrediction, BaseSpec};
use crate::choice::Choice;
use crate::field::{Field, Real, Whole, raw_section, words};
use crate::problem::{Checks, above, plain_items};

/// What the loss compares, and how it weighs noise levels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectiveSpec {
    /// What the network puts out.
    pub prediction: PredictionSpec,
    /// Weight of each noise level.
    pub weighting: WeightingSpec,
    /// Distance between output and target.
    pub loss: LossSpec,
    /// Deviation of a per-channel offset added to the noise, in [0, 1]; 0 is off.
    pub offset_noise: f64,
    /// Timesteps that are drawn: from the first, below the second.
    pub timesteps: (u32, u32),
}

words! {
    /// What the network puts out.
    PredictionSpec {
        /// What the base's scheduler configuration says.
        Auto,
        /// The noise ε.
        Epsilon,
        /// The velocity v = √ᾱ·ε − √(1−ᾱ)·x₀.
        V,
    }
}

words! {
    /// Distance between output and target.
    LossSpec {
        /// The squared difference.
        Mse,
    }
}

/// Weight of each noise level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightingSpec {
    /// 1 everywhere.
    Uniform,
    /// min(snr, γ) / snr for ε, min(snr, γ) / (snr + 1) for v.
    MinSnr {
        /// Signal-to-noise ratio γ from which the weight falls, above 0.
        gamma: f64,
    },
}

raw_section! {
    /// What the loss compares.
    RawObjective {
        /// What the network puts out (default auto: as the base's scheduler says).
        prediction: Choice<PredictionSpec>,
        /// Weight of noise levels: `uniform` or `{ min_snr: { gamma: 5 } }` (default, but for a base
        /// with `zero_terminal_snr: true`, whose default is uniform).
        weighting: Choice<RawWeighting>,
        /// Distance between output and target (default mse).
        loss: Choice<LossSpec>,
        /// Deviation of a per-channel offset added to the noise (default 0); helps very dark and
        /// very bright pictures.
        #[schemars(range(min = 0, max = 1))]
        offset_noise: Real,
        /// Timesteps that are drawn, [from, below] (default [0, 1000]).
        timesteps: Vec<Field<Whole>>,
    }
}

/// Weight of noise levels.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawWeighting {
    /// 1 everywhere.
    Uniform,
    /// Less weight where little noise is left (Hang et al. 2023).
    MinSnr(RawMinSnr),
}

raw_section! {
    /// Settings of min-SNR weighting.
    RawMinSnr {
        /// Signal-to-noise ratio from which the weight falls (default 5).
        #[schemars(range(min = 0))]
        gamma: Real,
    }
}

/// γ of Hang et al. 2023, arXiv:2303.09556.
const DEFAULT_GAMMA: f64 = 5.0;

/// Timesteps of the noise schedules of all supported bases.
const N_TIMESTEPS: u32 = 1000;

impl RawObjective {
    /// Resolves the section; every key has a default.
    pub(crate) fn resolve(self, base: &BaseSpec, checks: &mut Checks) -> ObjectiveSpec {
        ObjectiveSpec {
            prediction: prediction(self.prediction, base, checks),
            weighting: weighting(self.weighting, base, checks),
            loss: self.loss.choice_or(LossSpec::Mse, "objective.loss", checks),
            offset_noise: self.offset_noise.number_or(
                0.0,
                "objective.offset_noise",
                &(0.0..=1.0),
                checks,
            ),
            timesteps: timesteps(self.timesteps, checks),
        }
    }
}

/// What the recipe says here, which may not contradict what it says about the base.
fn prediction(
    raw: Field<Choice<PredictionSpec>>,
    base: &BaseSpec,
    checks: &mut Checks,
) -> PredictionSpec {
    const KEY: &str = "objective.prediction";
    let Some(Spanned { value, referenced, .. }) = raw.chosen(KEY, checks) else {
        return PredictionSpec::Auto;
    };
    let found = match value {
        PredictionSpec::Auto => return value,
        PredictionSpec::Epsilon => "epsilon",
        PredictionSpec::V => "v",
    };
    let of_base = match base.model().map_or(BasePrediction::Auto, |model| model.prediction) {
        // Epsilon says nothing about the picture where there is only noise.
        BasePrediction::Auto if base.has_zero_terminal_snr() => "v",
        BasePrediction::Auto => return value,
        BasePrediction::Epsilon => "epsilon",
        BasePrediction::V => "v",
        BasePrediction::Sample => "sample",
    };
    if found != of_base {
        checks.problem_with_hint(
            referenced,
            format!("`{KEY}` must be `auto` or `{of_base}` for this `base`, found `{found}`"),
            "`auto` follows the base",
        );
    }
    value
}

fn weighting(
    raw: Field<Choice<RawWeighting>>,
    base: &BaseSpec,
    checks: &mut Checks,
) -> WeightingSpec {
    // Where the last level holds nothing of the picture, min-SNR would give it no weight at all.
    let default = if base.has_zero_terminal_snr() {
        RawWeighting::Uniform
    } else {
        RawWeighting::MinSnr(RawMinSnr::default())
    };
    match raw.choice_or(default, "objective.weighting", checks) {
        RawWeighting::Uniform => WeightingSpec::Uniform,
        RawWeighting::MinSnr(raw) => {
            let key = "objective.weighting.min_snr.gamma";
            let gamma = raw.gamma.number_or(DEFAULT_GAMMA, key, &above(0.0, 1000.0), checks);
            WeightingSpec::MinSnr { gamma }
        }
    }
}

fn timesteps(raw: Field<Vec<Field<Whole>>>, checks: &mut Checks) -> (u32, u32) {
    let all = (0, N_TIMESTEPS);
    let Some(Spanned { value, referenced, .. }) = raw.given("objective.timesteps", checks) else {
        return all;
    };
    let items = plain_items(value, "objective.timesteps", checks);
    let numbers: Vec<u64> = items.iter().map(|item| item.value).collect();
    if let [from, below] = numbers[..]
        && from < below
        && below <= u64::from(N_TIMESTEPS)
        && let (Ok(from), Ok(below)) = (u32::try_from(from), u32::try_from(below))
    {
        return (from, below);
    }
    // The first item shows more than the bracket before it.
    let location = items.first().map_or(referenced, |item| item.referenced);
    checks.problem(
        location,
        format!(
            "`objective.timesteps` must be [from, below] with from < below, at most {N_TIMESTEPS}, \
             found `{numbers:?}`"
        ),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{problems_with, with};

    #[test]
    fn the_default_is_min_snr_5_on_all_timesteps() {
        let spec = with(&[]).objective;
        assert_eq!(spec.weighting, WeightingSpec::MinSnr { gamma: 5.0 });
        assert_eq!(spec.timesteps, (0, 1000));
        assert_eq!(spec.prediction, PredictionSpec::Auto);
        assert!(spec.offset_noise.abs() < 1e-12);
    }

    #[test]
    fn a_bare_word_takes_its_defaults() {
        let weighting =
            |word: &str| with(&[&format!("objective.weighting={word}")]).objective.weighting;
        assert_eq!(weighting("min_snr"), WeightingSpec::MinSnr { gamma: 5.0 });
        assert_eq!(weighting("uniform"), WeightingSpec::Uniform);
        assert_eq!(weighting("{min_snr: {gamma: 1}}"), WeightingSpec::MinSnr { gamma: 1.0 });
    }

    #[test]
    fn a_level_without_picture_has_its_weight() {
        let base = "base={sd2: {weights: w, prediction: v, zero_terminal_snr: true}}";
        assert_eq!(with(&[base]).objective.weighting, WeightingSpec::Uniform);
        let told = with(&[base, "objective.weighting=min_snr"]).objective.weighting;
        assert_eq!(told, WeightingSpec::MinSnr { gamma: 5.0 });
        let base = "base={sd2: {weights: w, zero_terminal_snr: false}}";
        assert_eq!(with(&[base]).objective.weighting, WeightingSpec::MinSnr { gamma: 5.0 });
    }

    #[test]
    fn the_objective_may_not_contradict_the_base() {
        let of = |base: &str, word: &str| {
            problems_with(&[
                &format!("base={{sd2: {{weights: w, {base}}}}}"),
                &format!("objective.prediction={word}"),
            ])
        };
        let rule = |expected: &str, found: &str| {
            let rule = format!("must be `auto` or `{expected}` for this `base`");
            [format!("{found}: `objective.prediction` {rule}, found `{found}`")]
        };
        assert_eq!(of("prediction: v", "epsilon"), rule("v", "epsilon"));
        assert_eq!(of("prediction: epsilon", "v"), rule("epsilon", "v"));
        assert_eq!(of("prediction: sample", "v"), rule("sample", "v"));
        assert_eq!(of("zero_terminal_snr: true", "epsilon"), rule("v", "epsilon"));
        for (base, word) in [("prediction: v", "v"), ("prediction: v", "auto"), ("vae: x", "v")] {
            let base = format!("base={{sd2: {{weights: w, {base}}}}}");
            with(&[&base, &format!("objective.prediction={word}")]);
        }
    }

    #[test]
    fn timesteps_are_a_rising_pair() {
        assert_eq!(with(&["objective.timesteps=[10, 500]"]).objective.timesteps, (10, 500));
        for wrong in ["[5, 5]", "[6, 5]", "[0, 1001]", "[0]", "[0, 1, 2]"] {
            let problems = problems_with(&[&format!("objective.timesteps={wrong}")]);
            assert!(
                problems[0].contains("must be [from, below] with from < below"),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        assert_eq!(
            problems_with(&["objective={prediction: sample, loss: l1}"]),
            [
                "sample: `objective.prediction` must be one of `auto`, `epsilon`, `v`, found `sample`",
                "l1: `objective.loss` must be one of `mse`, found `l1`",
            ]
        );
    }
}
