//! What is done to every picture of a dataset.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_saphyr::Spanned;

use crate::base::BaseSpec;
use crate::choice::Choice;
use crate::field::{Field, Real, Whole, words};
use crate::problem::Checks;
use crate::units::{SIDE_PX, hex_from_rgb, rgb_from_hex, side_px};

/// What is done to every picture of a dataset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageSpec {
    /// Side of the square pictures in pixels.
    pub side_px: u32,
    /// What happens to transparent pictures.
    pub alpha: AlphaPolicy,
    /// Mirroring.
    pub flip: Flip,
    /// Passes over the pictures per epoch, at least 1.
    pub repeats: u32,
    /// Share of captions replaced by the empty one, in [0, 1).
    pub caption_dropout: f64,
    /// Whether latents are drawn anew from the posterior at each step.
    pub vae_sample: VaeSample,
}

words! {
    /// Mirroring.
    Flip {
        /// Pictures stay as they are.
        Never,
        /// Each use of a picture is mirrored left to right with probability ½.
        Random,
    }
}

words! {
    /// Which latents stand for a picture.
    VaeSample {
        /// A new draw from the posterior at each step.
        Random,
        /// The posterior's mean.
        Mean,
    }
}

/// What happens to a picture with transparent places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlphaPolicy {
    /// It is refused, by name.
    Error,
    /// It is laid over this color (red, green, blue).
    Flatten([u8; 3]),
}

impl Serialize for AlphaPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Error => serializer.serialize_str("error"),
            Self::Flatten(rgb) => serializer.collect_map([("flatten", hex_from_rgb(*rgb))]),
        }
    }
}

/// What happens to a picture with transparent places.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawAlpha {
    /// It is refused.
    Error,
    /// It is laid over this color.
    Flatten(Field<String>),
}

/// The keys that both kinds of dataset have.
pub(super) struct RawImages {
    pub(super) caption_dropout: Field<Real>,
    pub(super) side_px: Field<Whole>,
    pub(super) alpha: Field<Choice<RawAlpha>>,
    pub(super) flip: Field<Choice<Flip>>,
    pub(super) repeats: Field<Whole>,
    pub(super) vae_sample: Field<Choice<VaeSample>>,
}

impl RawImages {
    pub(super) fn resolve(self, key: &str, base: &BaseSpec, checks: &mut Checks) -> ImageSpec {
        let side_key = format!("{key}.side_px");
        let side_at = self.side_px.location();
        let side = self.side_px.number(&side_key, &SIDE_PX, checks);
        let repeats_key = format!("{key}.repeats");
        let dropout_key = format!("{key}.caption_dropout");
        ImageSpec {
            side_px: side_px(side, base.side_px(), &side_key, side_at, checks),
            alpha: alpha(self.alpha, &format!("{key}.alpha"), checks),
            flip: self.flip.choice_or(Flip::Never, &format!("{key}.flip"), checks),
            repeats: self.repeats.count_or(1, &repeats_key, &(1..=1_000_000), checks),
            caption_dropout: self.caption_dropout.number_or(0.0, &dropout_key, &(0.0..1.0), checks),
            vae_sample: self.vae_sample.choice_or(
                VaeSample::Random,
                &format!("{key}.vae_sample"),
                checks,
            ),
        }
    }
}

fn alpha(raw: Field<Choice<RawAlpha>>, key: &str, checks: &mut Checks) -> AlphaPolicy {
    let Some(Spanned { value: raw, referenced, .. }) = raw.chosen(key, checks) else {
        return AlphaPolicy::Error;
    };
    let RawAlpha::Flatten(color) = raw else { return AlphaPolicy::Error };
    let key = format!("{key}.flatten");
    let Some(color) = color.required(&key, referenced, checks) else { return AlphaPolicy::Error };
    if let Some(rgb) = rgb_from_hex(&color.value) {
        return AlphaPolicy::Flatten(rgb);
    }
    let found = color.value.escape_debug();
    checks.problem_with_hint(
        color.referenced,
        format!("`{key}` must be a color like `#ffffff`, found `{found}`"),
        "write the color in quotes; `#` begins a comment otherwise",
    );
    AlphaPolicy::Error
}
