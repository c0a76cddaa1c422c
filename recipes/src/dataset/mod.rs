//! The section `dataset`: the pictures a concept is learned from.

mod captioned;
mod dreambooth;
mod image;
mod postcards;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

pub use self::captioned::{CaptionSource, CaptionedSpec, IdentifierAt, MissingCaption};
pub use self::dreambooth::{ClassSource, ClassSpec, DreamBoothSpec, InstanceSpec};
pub use self::image::{AlphaPolicy, Flip, ImageSpec, VaeSample};
pub use self::postcards::PostcardsSpec;

use self::captioned::RawCaptioned;
use self::dreambooth::RawDreamBooth;
use self::postcards::RawPostcards;
use crate::base::BaseSpec;
use crate::problem::Checks;
use crate::units::Places;

/// The pictures a concept is learned from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetSpec {
    /// A folder of pictures, each with its own caption.
    Captioned(CaptionedSpec),
    /// A folder of pictures of one thing, all under one prompt, with class pictures beside.
    #[serde(rename = "dreambooth")]
    DreamBooth(DreamBoothSpec),
}

impl DatasetSpec {
    /// What is done to every picture.
    pub fn image_options(&self) -> ImageSpec {
        match self {
            Self::Captioned(captioned) => captioned.image_options(),
            Self::DreamBooth(dreambooth) => dreambooth.images,
        }
    }

    /// The rare token that names the concept, if there is one.
    pub fn identifier(&self) -> Option<&str> {
        match self {
            Self::Captioned(captioned) => captioned.identifier.as_deref(),
            Self::DreamBooth(dreambooth) => Some(&dreambooth.instance.identifier),
        }
    }

    /// The word for what kind of thing the concept is, if there is one.
    pub fn class(&self) -> Option<&str> {
        match self {
            Self::Captioned(captioned) => captioned.class.as_deref(),
            Self::DreamBooth(dreambooth) => Some(&dreambooth.instance.class),
        }
    }
}

/// The pictures.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawDataset {
    /// A folder of pictures, each with its own caption.
    Captioned(Box<RawCaptioned>),
    /// Pictures of one thing under one prompt, with class pictures beside.
    Dreambooth(Box<RawDreamBooth>),
    /// Drawn postcards, for training a base from scratch (only with `pretrain`).
    Postcards(RawPostcards),
}

/// Resolves the section; an absent key is a problem of the recipe at `root`. `base` gives the
/// picture size where the recipe does not say it.
pub(crate) fn resolve(
    raw: Spanned<RawDataset>,
    base: &BaseSpec,
    places: &Places,
    checks: &mut Checks,
) -> Option<DatasetSpec> {
    let Spanned { value: dataset, referenced, .. } = raw;
    match dataset {
        RawDataset::Captioned(raw) => {
            raw.resolve(referenced, base, places, checks).map(DatasetSpec::Captioned)
        }
        RawDataset::Dreambooth(raw) => {
            raw.resolve(referenced, base, places, checks).map(DatasetSpec::DreamBooth)
        }
        RawDataset::Postcards(_) => {
            checks.problem_with_hint(
                referenced,
                "`dataset.postcards` needs the section `pretrain`, which is missing",
                "settle a concept with `dataset: { captioned: … }` or `dataset: { dreambooth: … }`",
            );
            None
        }
    }
}

/// `prompt` with `{identifier}` and `{class}` replaced, where they are known.
pub(crate) fn filled(prompt: &str, identifier: Option<&str>, class: Option<&str>) -> String {
    let mut prompt = prompt.to_owned();
    if let Some(identifier) = identifier {
        prompt = prompt.replace("{identifier}", identifier);
    }
    if let Some(class) = class {
        prompt = prompt.replace("{class}", class);
    }
    prompt
}

/// True if `words` occur in `text` as whole words, whatever their case.
pub(crate) fn has_words(text: &str, words: &str) -> bool {
    let split = |text: &str| -> Vec<String> {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (text, words) = (split(text), split(words));
    !words.is_empty() && text.windows(words.len()).any(|window| window == words)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::check::{problems_with, with};

    const CAPTIONED: &str = "dataset={captioned: {images: data/x}}";

    fn captioned(sets: &[&str]) -> CaptionedSpec {
        match with(sets).dataset {
            DatasetSpec::Captioned(captioned) => captioned,
            DatasetSpec::DreamBooth(found) => panic!("expected captioned, found {found:?}"),
        }
    }

    fn dreambooth(sets: &[&str]) -> DreamBoothSpec {
        match with(sets).dataset {
            DatasetSpec::DreamBooth(dreambooth) => dreambooth,
            DatasetSpec::Captioned(found) => panic!("expected dreambooth, found {found:?}"),
        }
    }

    #[test]
    fn nothing_is_dropped_mirrored_or_skipped_unless_said() {
        let spec = captioned(&[CAPTIONED]);
        assert_eq!(spec.missing_caption, MissingCaption::Error);
        assert_eq!(spec.alpha, AlphaPolicy::Error);
        assert_eq!(spec.flip, Flip::Never);
        assert_eq!(spec.identifier_at, IdentifierAt::Never);
        assert!(spec.caption_dropout.abs() < 1e-12);
        assert_eq!(spec.repeats, 1);
    }

    #[test]
    fn a_shipped_concept_is_a_folder() {
        assert!(dreambooth(&[]).instance.images.ends_with("datasets/concepts/cylinder"));
        let key = "dataset.dreambooth.instance";
        let sets = [&*format!(
            "{key}={{images: my/pictures, identifier: zzt, class: boat, prompt: a zzt}}"
        )];
        assert_eq!(dreambooth(&sets).instance.images, PathBuf::from("my/pictures"));
    }

    #[test]
    fn prompts_are_filled_in() {
        let spec = dreambooth(&[
            "dataset.dreambooth.instance.prompt=a {identifier} {class} at night",
            "dataset.dreambooth.class={generate: 8, prompt: 'a {class} at night'}",
        ]);
        assert_eq!(spec.instance.prompt, "a sks tower at night");
        let class = spec.class.unwrap();
        assert_eq!(class.prompt, "a tower at night");
        assert_eq!(class.source, ClassSource::Generate { images: 8 });
        assert!((class.weight - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_identifier_stands_in_the_instance_prompt_and_not_in_the_class_prompt() {
        assert_eq!(
            problems_with(&[
                "dataset.dreambooth.instance.prompt=a skstower",
                "dataset.dreambooth.class={generate: 8, prompt: 'a SKS, tower'}",
            ]),
            [
                "'a SKS, tower': `dataset.dreambooth.class.prompt` must not hold the identifier, \
                 found `a SKS, tower`",
                "a skstower: `dataset.dreambooth.instance.prompt` must hold the identifier `sks`, \
                 found `a skstower`",
            ]
        );
    }

    #[test]
    fn pictures_come_from_exactly_one_place() {
        let both = problems_with(&["dataset.dreambooth.instance.images=x"]);
        assert_eq!(
            both,
            ["x: `dataset.dreambooth.instance` must have `concept` or `images`, found both"]
        );
        let class =
            |content: &str| problems_with(&[&format!("dataset.dreambooth.class={{{content}}}")]);
        let both = class("generate: 3, images: x, prompt: y");
        assert_eq!(
            both,
            ["x: `dataset.dreambooth.class` must have `generate` or `images`, found both"]
        );
        let neither = class("prompt: y");
        assert!(neither[0].ends_with("must have `generate` or `images`, found neither"));
        let empty = class("generate: , prompt: y");
        assert_eq!(empty, [": `dataset.dreambooth.class.generate` has no value"]);
    }

    #[test]
    fn all_missing_keys_are_listed_at_once() {
        let problems = problems_with(&["dataset={dreambooth: {instance: {}}}"]);
        let missing =
            |key: &str| problems.iter().any(|p| p.contains(&format!(".{key}` is missing")));
        assert!(missing("identifier") && missing("class") && missing("prompt"), "{problems:?}");
    }

    #[test]
    fn captions_need_what_stands_in_for_them() {
        assert_eq!(
            problems_with(&[
                "dataset={captioned: {images: x, missing_caption: class, identifier_at: front}}"
            ]),
            [
                "class: `missing_caption: class` needs `dataset.captioned.class`, which is missing",
                "front: `identifier_at` needs `dataset.captioned.identifier`, which is missing",
            ]
        );
    }

    #[test]
    fn transparent_pictures_are_refused_or_laid_over_a_color() {
        let flatten = "dataset.captioned.alpha={flatten: '#0a0B0c'}";
        assert_eq!(captioned(&[CAPTIONED, flatten]).alpha, AlphaPolicy::Flatten([10, 11, 12]));
        let problems = problems_with(&[CAPTIONED, "dataset.captioned.alpha={flatten: white}"]);
        assert_eq!(
            problems,
            [
                "white: `dataset.captioned.alpha.flatten` must be a color like `#ffffff`, found `white`"
            ]
        );
    }

    #[test]
    fn drawn_postcards_are_for_pretraining() {
        let problems = problems_with(&["dataset={postcards: {images: 3}}"]);
        assert!(problems[0].ends_with("needs the section `pretrain`, which is missing"));
    }

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        assert!(has_words("A postcard of the SKS, cylinder", "sks"));
        assert!(has_words("an inkwsh style boat", "inkwsh style"));
        assert!(!has_words("a skstower", "sks"));
        assert!(!has_words("a tower", ""));
    }
}
