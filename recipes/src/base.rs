//! The section `base`: which frozen model a concept is settled in.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use crate::choice::Choice;
use crate::field::{Field, raw_section};
use crate::problem::Checks;
use crate::units::{Places, folder};

/// The frozen model that is adapted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseSpec {
    /// The miniature base that the binary carries: pictures of 64 × 64 pixels.
    Postcards,
    /// A folder in the diffusers layout (`model_index.json`, `unet/`, `vae/`, …).
    Folder {
        /// The folder.
        weights: PathBuf,
    },
}

impl BaseSpec {
    /// Side of the square pictures the base was made for, where a recipe does not say it.
    pub(crate) fn side_px(&self) -> u32 {
        match self {
            Self::Postcards => 64,
            Self::Folder { .. } => 512,
        }
    }

    /// Guidance weight of previews and census, where a recipe does not say it.
    pub(crate) fn guidance_scale(&self) -> f64 {
        match self {
            Self::Postcards => 3.0,
            Self::Folder { .. } => 7.5,
        }
    }

    /// Thesaurus whose entities are counted, where a recipe does not say it.
    pub(crate) fn thesaurus(&self) -> &'static str {
        match self {
            Self::Postcards => "postcards",
            Self::Folder { .. } => "starter",
        }
    }
}

/// Which frozen model the concept is settled in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawBase {
    /// The miniature base that the binary carries (64 x 64 pixels); it needs no download.
    Postcards,
    /// A folder in the diffusers layout.
    Folder(RawFolder),
}

raw_section! {
    /// A base that lies in a folder.
    RawFolder {
        /// Folder with `model_index.json`, `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`.
        #[schemars(!default, required)]
        weights: PathBuf,
    }
}

/// Resolves the section; an absent key is a problem of the recipe at `root`.
pub(crate) fn resolve(
    raw: Field<Choice<RawBase>>,
    root: Location,
    places: &Places,
    checks: &mut Checks,
) -> Option<BaseSpec> {
    let Spanned { value: raw, referenced, .. } = raw.required_choice("base", root, checks)?;
    match raw {
        RawBase::Postcards => Some(BaseSpec::Postcards),
        RawBase::Folder(raw) => {
            let weights = raw.weights.required("base.folder.weights", referenced, checks)?;
            let weights = folder(&weights, "base.folder.weights", places, checks);
            Some(BaseSpec::Folder { weights })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{SMALL, one_problem, problems_with, with};

    #[test]
    fn the_base_decides_size_guidance_and_thesaurus() {
        let recipe = with(&["base={folder: {weights: w/sd15}}"]);
        assert_eq!(recipe.base, BaseSpec::Folder { weights: "w/sd15".into() });
        assert_eq!(recipe.dataset.image_options().side_px, 512);
        assert!((recipe.fit.previews.guidance_scale - 7.5).abs() < 1e-12);
        let recipe = with(&[]);
        assert_eq!(recipe.dataset.image_options().side_px, 64);
    }

    #[test]
    fn a_base_is_needed() {
        let text = SMALL.replace("base: postcards\n", "");
        one_problem(&text, (1, 1), "", "`base` is missing");
    }

    #[test]
    fn a_folder_needs_its_path() {
        assert_eq!(problems_with(&["base=folder"]), ["folder: `base.folder.weights` is missing"]);
        assert_eq!(
            problems_with(&["base={folder: {weights: ''}}"]),
            ["'': `base.folder.weights` must name a path, found an empty text"]
        );
    }
}
