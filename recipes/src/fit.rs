//! The section `fit`: how long and how fast is trained, and what is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use crate::choice::Choice;
use crate::field::{Field, Flag, Real, Whole, raw_section};
use crate::previews::{PreviewContext, PreviewsSpec, RawPreviews};
use crate::problem::{Checks, above};
use crate::units::COUNT_MAX;

/// How long and how fast is trained, and what is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitSpec {
    /// Optimizer updates, at least 1.
    pub steps: u64,
    /// Pictures of one update.
    pub batch: BatchSpec,
    /// Whether activations are computed again for the backward pass instead of being kept: less
    /// memory for one more forward pass. Not written where it is off, so that older recipes keep
    /// their fingerprints.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub activation_recompute: bool,
    /// The update rule.
    pub optimizer: OptimizerSpec,
    /// Largest L2 norm of all gradients together, above 0.
    pub clip_norm: f64,
    /// How the learning rate moves.
    pub schedule: LrScheduleSpec,
    /// A checkpoint is committed every so many updates, and after the last one.
    pub save_every: u64,
    /// Checkpoints that stay on disk, at least 1.
    pub keep: u32,
    /// Average of the trained weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaSpec>,
    /// Pictures drawn while training.
    pub previews: PreviewsSpec,
}

/// Pictures of one update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BatchSpec {
    /// Pictures of one forward-backward pass.
    pub images: u32,
    /// Passes whose gradients are averaged into one update.
    pub accumulate: u32,
}

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerSpec {
    /// Loshchilov & Hutter 2017, as in torch.
    #[serde(rename = "adamw")]
    AdamW {
        /// Peak learning rate, in (0, 1].
        learning_rate: f64,
        /// Decay of the first moment, in [0, 1).
        beta1: f64,
        /// Decay of the second moment, in [0, 1).
        beta2: f64,
        /// Added to the root of the second moment, above 0.
        epsilon: f64,
        /// Decoupled weight decay, in [0, 1].
        weight_decay: f64,
    },
}

/// How the learning rate moves; warm-up rises as (k + 1) / `warmup_steps`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduleSpec {
    /// Stays at its peak.
    Constant {
        /// Updates until the peak.
        warmup_steps: u64,
    },
    /// Falls in a straight line.
    Linear {
        /// Updates until the peak.
        warmup_steps: u64,
        /// Share of the peak at the end, in [0, 1].
        floor: f64,
    },
    /// Falls along half a cosine.
    Cosine {
        /// Updates until the peak.
        warmup_steps: u64,
        /// Share of the peak at the end, in [0, 1].
        floor: f64,
    },
}

/// Average of the trained weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EmaSpec {
    /// Share of the average that stays at each update, in (0, 1).
    pub decay: f64,
    /// Whether the average follows faster at the start: min(decay, (1 + s) / (10 + s)).
    pub warmup: bool,
}

raw_section! {
    /// How long and how fast is trained.
    RawFit {
        /// Optimizer updates.
        #[schemars(!default, required, range(min = 1))]
        steps: Whole,
        /// Pictures of one update.
        batch: RawBatch,
        /// Whether the activations of the UNet are computed again for the backward pass instead of
        /// being kept (default false): much less memory, at the price of one more forward pass.
        activation_recompute: Flag,
        /// The update rule.
        #[schemars(!default, required)]
        optimizer: Choice<RawOptimizer>,
        /// Largest L2 norm of all gradients together (default 1).
        #[schemars(range(min = 0))]
        clip_norm: Real,
        /// How the learning rate moves (default cosine).
        schedule: Choice<RawLrSchedule>,
        /// A checkpoint every so many updates (default 250, or `steps` if that is less).
        #[schemars(range(min = 1))]
        save_every: Whole,
        /// Checkpoints that stay on disk (default 2).
        #[schemars(range(min = 1))]
        keep: Whole,
        /// Average of the trained weights (default: none).
        ema: RawEma,
        /// Pictures drawn while training.
        previews: RawPreviews,
    }
}

raw_section! {
    /// Pictures of one update.
    RawBatch {
        /// Pictures of one pass (default 1); memory grows with it.
        #[schemars(range(min = 1))]
        images: Whole,
        /// Passes averaged into one update (default 1); costs time instead of memory.
        #[schemars(range(min = 1))]
        accumulate: Whole,
    }
}

/// The update rule.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawOptimizer {
    /// AdamW, as in torch.
    #[serde(rename = "adamw")]
    AdamW(RawAdamW),
}

raw_section! {
    /// Settings of AdamW.
    RawAdamW {
        /// Peak learning rate.
        #[schemars(!default, required, range(min = 0, max = 1))]
        learning_rate: Real,
        /// Decay of the first moment (default 0.9).
        #[schemars(range(min = 0, max = 1))]
        beta1: Real,
        /// Decay of the second moment (default 0.999).
        #[schemars(range(min = 0, max = 1))]
        beta2: Real,
        /// Added to the root of the second moment (default 1e-8).
        #[schemars(range(min = 0))]
        epsilon: Real,
        /// Decoupled weight decay (default 0.01).
        #[schemars(range(min = 0, max = 1))]
        weight_decay: Real,
    }
}

/// How the learning rate moves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawLrSchedule {
    /// Stays at its peak.
    Constant(RawConstant),
    /// Falls in a straight line.
    Linear(RawFalling),
    /// Falls along half a cosine.
    Cosine(RawFalling),
}

raw_section! {
    /// Settings of a constant rate.
    RawConstant {
        /// Updates until the peak (default 0).
        warmup_steps: Whole,
    }
}

raw_section! {
    /// Settings of a falling rate.
    RawFalling {
        /// Updates until the peak (default: a twentieth of `fit.steps`).
        warmup_steps: Whole,
        /// Share of the peak at the end (default: linear 0, cosine 0.1).
        #[schemars(range(min = 0, max = 1))]
        floor: Real,
    }
}

raw_section! {
    /// Average of the trained weights.
    RawEma {
        /// Share of the average that stays at each update (default 0.999).
        #[schemars(range(min = 0, max = 1))]
        decay: Real,
        /// Whether it follows faster at the start (default true).
        warmup: Flag,
    }
}

/// Updates between checkpoints where a recipe does not say it.
const DEFAULT_SAVE_EVERY: u64 = 250;

impl RawFit {
    /// What is given and a training from scratch would not read.
    pub(crate) fn unread_by_pretraining(&self) -> Vec<(&'static str, Location)> {
        let accumulate = match &self.batch {
            Field::Given(batch) => batch.value.accumulate.location(),
            Field::Absent | Field::Empty(_) => None,
        };
        let given = [
            ("fit.batch.accumulate", accumulate),
            ("fit.activation_recompute", self.activation_recompute.location()),
            ("fit.keep", self.keep.location()),
            ("fit.previews", self.previews.location()),
        ];
        given.into_iter().filter_map(|(key, location)| Some((key, location?))).collect()
    }

    /// Resolves the section at `section`.
    pub(crate) fn resolve(
        self,
        section: Location,
        context: PreviewContext<'_>,
        checks: &mut Checks,
    ) -> Option<FitSpec> {
        let steps = self.steps.required_number("fit.steps", section, &(1..=COUNT_MAX), checks);
        let (batch, _) = self.batch.section("fit.batch", section, checks);
        let batch = BatchSpec {
            images: batch.images.count_or(1, "fit.batch.images", &(1..=65_536), checks),
            accumulate: batch.accumulate.count_or(1, "fit.batch.accumulate", &(1..=65_536), checks),
        };
        let activation_recompute = self
            .activation_recompute
            .plain("fit.activation_recompute", checks)
            .is_some_and(|flag| flag.value);
        let optimizer = optimizer(self.optimizer, section, checks);
        let clip_norm = self.clip_norm.number_or(1.0, "fit.clip_norm", &above(0.0, 1.0e6), checks);
        let schedule = schedule(self.schedule, steps, checks);
        let save_every = save_every(self.save_every, steps, checks);
        let keep = self.keep.count_or(2, "fit.keep", &(1..=10_000), checks);
        let ema = self.ema.given("fit.ema", checks).map(|raw| EmaSpec {
            decay: raw.value.decay.number_or(0.999, "fit.ema.decay", &open(0.0, 1.0), checks),
            warmup: raw
                .value
                .warmup
                .plain("fit.ema.warmup", checks)
                .is_none_or(|warmup| warmup.value),
        });
        let (previews, _) = self.previews.section("fit.previews", section, checks);
        let previews = previews.resolve(context, checks);
        Some(FitSpec {
            steps: steps?,
            batch,
            activation_recompute,
            optimizer: optimizer?,
            clip_norm,
            schedule,
            save_every,
            keep,
            ema,
            previews,
        })
    }
}

fn optimizer(
    raw: Field<Choice<RawOptimizer>>,
    section: Location,
    checks: &mut Checks,
) -> Option<OptimizerSpec> {
    let Spanned { value: RawOptimizer::AdamW(raw), referenced, .. } =
        raw.required_choice("fit.optimizer", section, checks)?;
    let key = "fit.optimizer.adamw.learning_rate";
    let learning_rate =
        raw.learning_rate.required_number(key, referenced, &above(0.0, 1.0), checks);
    let beta1 = raw.beta1.number_or(0.9, "fit.optimizer.adamw.beta1", &(0.0..1.0), checks);
    let beta2 = raw.beta2.number_or(0.999, "fit.optimizer.adamw.beta2", &(0.0..1.0), checks);
    let key = "fit.optimizer.adamw.epsilon";
    let epsilon = raw.epsilon.number_or(1.0e-8, key, &above(0.0, 1.0), checks);
    let key = "fit.optimizer.adamw.weight_decay";
    let weight_decay = raw.weight_decay.number_or(0.01, key, &(0.0..=1.0), checks);
    Some(OptimizerSpec::AdamW {
        learning_rate: learning_rate?,
        beta1,
        beta2,
        epsilon,
        weight_decay,
    })
}

fn schedule(
    raw: Field<Choice<RawLrSchedule>>,
    steps: Option<u64>,
    checks: &mut Checks,
) -> LrScheduleSpec {
    let default = RawLrSchedule::Cosine(RawFalling::default());
    match raw.choice_or(default, "fit.schedule", checks) {
        RawLrSchedule::Constant(raw) => LrScheduleSpec::Constant {
            warmup_steps: warmup_steps(raw.warmup_steps, 0, "constant", steps, checks),
        },
        RawLrSchedule::Linear(raw) => LrScheduleSpec::Linear {
            warmup_steps: warmup_steps(raw.warmup_steps, warm_up(steps), "linear", steps, checks),
            floor: raw.floor.number_or(0.0, "fit.schedule.linear.floor", &(0.0..=1.0), checks),
        },
        RawLrSchedule::Cosine(raw) => LrScheduleSpec::Cosine {
            warmup_steps: warmup_steps(raw.warmup_steps, warm_up(steps), "cosine", steps, checks),
            floor: raw.floor.number_or(0.1, "fit.schedule.cosine.floor", &(0.0..=1.0), checks),
        },
    }
}

/// Warm-up of a falling rate where a recipe does not say it: a twentieth of all steps.
fn warm_up(steps: Option<u64>) -> u64 {
    steps.unwrap_or(0) / 20
}

fn warmup_steps(
    raw: Field<Whole>,
    default: u64,
    kind: &str,
    steps: Option<u64>,
    checks: &mut Checks,
) -> u64 {
    let key = format!("fit.schedule.{kind}.warmup_steps");
    let location = raw.location();
    let warmup_steps = raw.number_or(default, &key, &(0..=COUNT_MAX), checks);
    if let (Some(location), Some(steps)) = (location, steps)
        && warmup_steps >= steps
    {
        checks.problem(
            location,
            format!("`{key}` must be below `fit.steps` ({steps}), found `{warmup_steps}`"),
        );
    }
    warmup_steps
}

fn save_every(raw: Field<Whole>, steps: Option<u64>, checks: &mut Checks) -> u64 {
    let location = raw.location();
    let default = steps.map_or(DEFAULT_SAVE_EVERY, |steps| steps.min(DEFAULT_SAVE_EVERY));
    let save_every = raw.number_or(default, "fit.save_every", &(1..=COUNT_MAX), checks);
    if let (Some(location), Some(steps)) = (location, steps)
        && save_every > steps
    {
        checks.problem(
            location,
            format!(
                "`fit.save_every` must be at most `fit.steps` ({steps}), found `{save_every}`: no \
                 checkpoint would be written before the end"
            ),
        );
    }
    save_every
}

/// Strictly between two numbers.
fn open(low: f64, high: f64) -> (std::ops::Bound<f64>, std::ops::Bound<f64>) {
    (std::ops::Bound::Excluded(low), std::ops::Bound::Excluded(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{SMALL, one_problem, problems_with, recipe, with};
    use crate::fingerprint::resolved_yaml;

    #[test]
    fn defaults_are_those_of_torch_and_of_the_documents() {
        let fit = with(&[]).fit;
        let adamw = OptimizerSpec::AdamW {
            learning_rate: 1.0e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1.0e-8,
            weight_decay: 0.01,
        };
        assert_eq!(fit.optimizer, adamw);
        assert_eq!(fit.schedule, LrScheduleSpec::Cosine { warmup_steps: 15, floor: 0.1 });
        assert_eq!((fit.save_every, fit.keep), (250, 2));
        assert_eq!(fit.batch, BatchSpec { images: 1, accumulate: 1 });
        assert!((fit.clip_norm - 1.0).abs() < 1e-12);
        assert_eq!(fit.ema, None);
        assert!(!fit.activation_recompute);
    }

    #[test]
    fn recomputing_activations_is_written_where_it_is_on() {
        let json = |set: &str| serde_json::to_value(with(&[set]).fit).unwrap();
        let key = "activation_recompute";
        assert_eq!(json("fit.activation_recompute=true")[key], true);
        assert!(json("fit.activation_recompute=false").get(key).is_none());
        let once = with(&["fit.activation_recompute=true"]);
        assert_eq!(recipe(&resolved_yaml(&once)), once);
        assert_eq!(
            problems_with(&["fit.activation_recompute=often"]),
            ["often: `fit.activation_recompute` must be `true` or `false`, found the text `often`"]
        );
    }

    #[test]
    fn schedules_have_their_own_defaults() {
        let schedule = |word: &str| with(&[&format!("fit.schedule={word}")]).fit.schedule;
        assert_eq!(schedule("constant"), LrScheduleSpec::Constant { warmup_steps: 0 });
        assert_eq!(schedule("linear"), LrScheduleSpec::Linear { warmup_steps: 15, floor: 0.0 });
        assert_eq!(
            schedule("{cosine: {warmup_steps: 0, floor: 0}}"),
            LrScheduleSpec::Cosine { warmup_steps: 0, floor: 0.0 }
        );
    }

    #[test]
    fn a_short_run_saves_at_its_end() {
        assert_eq!(with(&["fit.steps=10"]).fit.save_every, 10);
    }

    #[test]
    fn warm_up_ends_before_the_run_and_a_checkpoint_comes_within_it() {
        for (kind, warmup_steps) in [("cosine", 300), ("linear", 301), ("constant", 300)] {
            let set = format!("fit.schedule={{{kind}: {{warmup_steps: {warmup_steps}}}}}");
            let rule = format!(
                "{warmup_steps}: `fit.schedule.{kind}.warmup_steps` must be below `fit.steps` (300), \
                 found `{warmup_steps}`"
            );
            assert_eq!(problems_with(&[&set]), [rule]);
        }
        with(&["fit.schedule={cosine: {warmup_steps: 299}}", "fit.save_every=300"]);
        let problems = problems_with(&["fit.save_every=301"]);
        assert!(problems[0].starts_with("301: `fit.save_every` must be at most `fit.steps` (300)"));
    }

    #[test]
    fn there_is_no_default_budget_and_no_default_rate() {
        let text = SMALL.replace("steps: 300, ", "");
        one_problem(&text, (7, 6), "{", "`fit.steps` is missing");
        assert_eq!(
            problems_with(&["fit.optimizer=adamw"]),
            ["adamw: `fit.optimizer.adamw.learning_rate` is missing"]
        );
    }

    #[test]
    fn numbers_outside_their_range_are_named_with_it() {
        assert_eq!(
            problems_with(&[
                "fit={steps: 0, optimizer: {adamw: {learning_rate: 0, beta2: 1, epsilon: -1}}, \
                 clip_norm: .inf, batch: {images: 0}, keep: 0, ema: {decay: 1}}"
            ]),
            [
                "0: `fit.steps` must be at least 1 and at most 1000000000, found `0`",
                "0: `fit.optimizer.adamw.learning_rate` must be above 0 and at most 1, found `0`",
                "1: `fit.optimizer.adamw.beta2` must be at least 0 and below 1, found `1`",
                "-1: `fit.optimizer.adamw.epsilon` must be above 0 and at most 1, found `-1`",
                ".inf: `fit.clip_norm` must be above 0 and at most 1000000, found `inf`",
                "0: `fit.batch.images` must be at least 1 and at most 65536, found `0`",
                "0: `fit.keep` must be at least 1 and at most 10000, found `0`",
                "1: `fit.ema.decay` must be above 0 and below 1, found `1`",
            ]
        );
    }
}
