//! The section `fit.previews`: pictures drawn while training.

use serde::Serialize;
use serde_saphyr::Spanned;

use crate::base::BaseSpec;
use crate::choice::Choice;
use crate::dataset::filled;
use crate::field::{Field, Real, Whole, raw_section};
use crate::problem::{Checks, items, plain_items};
use crate::sampler::{self, RawSampler, SamplerKind, SamplerSpec};
use crate::units::COUNT_MAX;

/// Pictures drawn while training; the first and the last step are always drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreviewsSpec {
    /// Updates between previews; 0: only before the first and after the last.
    pub every: u64,
    /// Prompts, one row each.
    pub prompts: Vec<String>,
    /// Seeds, one picture each per prompt.
    pub seeds: Vec<u64>,
    /// How they are drawn.
    pub sampler: SamplerSpec,
    /// Guidance weight w; 1 is without guidance.
    pub guidance_scale: f64,
    /// Share φ, in [0, 1], by which guided outputs get back the contrast of unguided ones; 0 is off,
    /// and then not written, so that older recipes keep their fingerprints.
    #[serde(skip_serializing_if = "is_off")]
    pub guidance_rescale: f64,
}

/// True for the value that leaves a setting off: zero.
fn is_off<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

raw_section! {
    /// Pictures drawn while training; the first and the last step are always drawn.
    RawPreviews {
        /// Updates between previews (default 0: only the first and the last).
        every: Whole,
        /// Prompts; {identifier} and {class} are replaced (default: the prompts of the dataset).
        prompts: Vec<Field<String>>,
        /// Seeds, one picture each per prompt (default [0, 1]).
        seeds: Vec<Field<Whole>>,
        /// How they are drawn (default ddim with 20 steps).
        sampler: Choice<RawSampler>,
        /// Guidance weight (default: what suits the base); 1 is without guidance.
        #[schemars(range(min = 0))]
        guidance_scale: Real,
        /// Share by which guided pictures are brought back to the contrast of unguided ones
        /// (default 0, off); 0.7 is usual for bases without a picture in the last noise level.
        #[schemars(range(min = 0, max = 1))]
        guidance_rescale: Real,
    }
}

/// Sampler of previews where a recipe does not say it.
const PREVIEW_SAMPLER: SamplerSpec =
    SamplerSpec { kind: SamplerKind::Ddim { eta: 0.0 }, steps: 20, spacing: None };

/// Most previews of one step: prompts × seeds.
const MAX_PREVIEWS: usize = 256;

/// What the previews take from other sections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreviewContext<'a> {
    /// Gives the guidance weight and the spacing of steps.
    pub(crate) base: &'a BaseSpec,
    /// Replaces `{identifier}`.
    pub(crate) identifier: Option<&'a str>,
    /// Replaces `{class}`.
    pub(crate) class: Option<&'a str>,
    /// False if the dataset has problems of its own, so that nothing is known about its words.
    pub(crate) dataset_known: bool,
    /// Drawn where the recipe names no prompts.
    pub(crate) prompts: &'a [String],
}

impl RawPreviews {
    /// Resolves the section; every key has a default.
    pub(crate) fn resolve(self, context: PreviewContext<'_>, checks: &mut Checks) -> PreviewsSpec {
        let every = self.every.number_or(0, "fit.previews.every", &(0..=COUNT_MAX), checks);
        let prompts = match self.prompts.given("fit.previews.prompts", checks) {
            None => context.prompts.to_vec(),
            Some(list) => items(list.value, "fit.previews.prompts", checks)
                .into_iter()
                .map(|prompt| filled_prompt(&prompt, context, checks))
                .collect(),
        };
        let seeds_at = self.seeds.location();
        let seeds = match self.seeds.given("fit.previews.seeds", checks) {
            None => vec![0, 1],
            Some(list) => {
                let seeds = plain_items(list.value, "fit.previews.seeds", checks);
                seeds.into_iter().map(|seed| seed.value).collect()
            }
        };
        if let Some(location) = seeds_at
            && prompts.len().saturating_mul(seeds.len()) > MAX_PREVIEWS
        {
            let message = format!(
                "`fit.previews` must have at most {MAX_PREVIEWS} pictures, found {} prompts × {} \
                 seeds",
                prompts.len(),
                seeds.len()
            );
            checks.problem(location, message);
        }
        let guidance_scale = self.guidance_scale.number_or(
            context.base.guidance_scale(),
            "fit.previews.guidance_scale",
            &(0.0..=100.0),
            checks,
        );
        let key = "fit.previews.guidance_rescale";
        let guidance_rescale = self.guidance_rescale.number_or(0.0, key, &(0.0..=1.0), checks);
        let key = "fit.previews.sampler";
        let sampler = sampler::resolve(self.sampler, PREVIEW_SAMPLER, context.base, key, checks);
        PreviewsSpec { every, prompts, seeds, sampler, guidance_scale, guidance_rescale }
    }
}

fn filled_prompt(
    prompt: &Spanned<String>,
    context: PreviewContext<'_>,
    checks: &mut Checks,
) -> String {
    let text = filled(&prompt.value, context.identifier, context.class);
    for word in ["identifier", "class"] {
        if context.dataset_known && text.contains(&format!("{{{word}}}")) {
            let message = format!("`{{{word}}}` needs the dataset's `{word}`, which is missing");
            checks.problem(prompt.referenced, message);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::check::{problems_with, recipe, with};
    use crate::fingerprint::resolved_yaml;

    #[test]
    fn previews_show_the_concept_and_its_class_unless_told() {
        assert_eq!(with(&[]).fit.previews.prompts, ["a sks tower"]);
        let class = "dataset.dreambooth.class={generate: 2, prompt: a tower}";
        assert_eq!(with(&[class]).fit.previews.prompts, ["a sks tower", "a tower"]);
        let told = with(&["fit.previews={prompts: ['{identifier} by night', '']}"]).fit.previews;
        assert_eq!(told.prompts, ["sks by night", ""]);
        assert_eq!(told.seeds, [0, 1]);
    }

    #[test]
    fn guidance_is_rescaled_only_where_it_is_said() {
        let plain = with(&[]);
        assert!(plain.fit.previews.guidance_rescale.abs() < 1e-12);
        assert!(!resolved_yaml(&plain).contains("guidance_rescale"));
        let rescaled = with(&["fit.previews={guidance_rescale: 0.7}"]);
        assert!((rescaled.fit.previews.guidance_rescale - 0.7).abs() < 1e-12);
        assert_eq!(recipe(&resolved_yaml(&rescaled)), rescaled);
        let problems = problems_with(&["fit.previews={guidance_rescale: 1.1}"]);
        let rule = "must be at least 0 and at most 1, found `1.1`";
        assert_eq!(problems, [format!("1.1: `fit.previews.guidance_rescale` {rule}")]);
    }

    #[test]
    fn a_broken_dataset_does_not_blame_the_prompts() {
        let prompts = "fit.previews={prompts: ['{identifier}']}";
        let problems = problems_with(&["dataset.dreambooth.instance.concept=", prompts]);
        assert_eq!(problems, ["null: `dataset.dreambooth.instance.concept` has no value"]);
    }

    #[test]
    fn a_prompt_cannot_name_what_the_dataset_lacks() {
        assert_eq!(
            problems_with(&[
                "dataset={captioned: {images: x}}",
                "fit.previews={prompts: ['{identifier}']}"
            ]),
            ["'{identifier}': `{identifier}` needs the dataset's `identifier`, which is missing"]
        );
    }
}
