//! Pictures that each have their own caption.

use std::path::PathBuf;

use serde::Serialize;
use serde_saphyr::Location;

use super::image::{AlphaPolicy, Flip, ImageSpec, RawAlpha, RawImages, VaeSample};
use crate::base::BaseSpec;
use crate::choice::Choice;
use crate::field::{Field, Real, Whole, raw_section, words};
use crate::problem::Checks;
use crate::units::{Places, folder, text};

/// A folder of pictures, each with its own caption.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaptionedSpec {
    /// The folder.
    pub images: PathBuf,
    /// Where captions stand.
    pub captions: CaptionSource,
    /// What a picture without caption means.
    pub missing_caption: MissingCaption,
    /// Rare token that names the concept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// Word for what kind of thing the concept is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Where the identifier is put into a caption that lacks it.
    pub identifier_at: IdentifierAt,
    /// Share of captions replaced by the empty one, in [0, 1).
    pub caption_dropout: f64,
    /// Side of the square pictures in pixels.
    pub side_px: u32,
    /// What happens to transparent pictures.
    pub alpha: AlphaPolicy,
    /// Mirroring.
    pub flip: Flip,
    /// Passes over the pictures per epoch, at least 1.
    pub repeats: u32,
    /// Whether latents are drawn anew from the posterior at each step.
    pub vae_sample: VaeSample,
}

impl CaptionedSpec {
    /// What is done to every picture.
    pub fn image_options(&self) -> ImageSpec {
        ImageSpec {
            side_px: self.side_px,
            alpha: self.alpha,
            flip: self.flip,
            repeats: self.repeats,
            caption_dropout: self.caption_dropout,
            vae_sample: self.vae_sample,
        }
    }
}

words! {
    /// Where captions stand.
    CaptionSource {
        /// `<stem>.txt` or `<stem>.caption` beside the picture.
        Sidecar,
        /// `metadata.jsonl` with `file_name` and `text`.
        Jsonl,
    }
}

words! {
    /// What a picture without caption means.
    MissingCaption {
        /// An error that names the picture.
        Error,
        /// Its caption is the class, with the identifier.
        Class,
        /// Its caption is empty.
        Empty,
    }
}

words! {
    /// Where the identifier is put into a caption that lacks it.
    IdentifierAt {
        /// Before the caption.
        Front,
        /// After the caption.
        End,
        /// Nowhere.
        Never,
    }
}

raw_section! {
    /// A folder of pictures with captions.
    RawCaptioned {
        /// Folder of PNG, JPEG or WebP pictures.
        #[schemars(!default, required)]
        images: PathBuf,
        /// Where captions stand (default sidecar).
        captions: Choice<CaptionSource>,
        /// What a picture without caption means (default error).
        missing_caption: Choice<MissingCaption>,
        /// Rare token that names the concept.
        identifier: String,
        /// Word for what kind of thing the concept is.
        class: String,
        /// Where the identifier is put into a caption that lacks it (default never).
        identifier_at: Choice<IdentifierAt>,
        /// Share of captions replaced by "" (default 0). Above 0 the concept leaks into unasked
        /// pictures.
        #[schemars(range(min = 0, max = 1))]
        caption_dropout: Real,
        /// Side of the pictures in pixels (default: what the base was made for).
        #[schemars(range(min = 64, max = 2048))]
        side_px: Whole,
        /// Transparent pictures: error (default) or { flatten: "#rrggbb" }.
        alpha: Choice<RawAlpha>,
        /// Mirroring (default never); random harms text and asymmetric subjects.
        flip: Choice<Flip>,
        /// Passes over the pictures per epoch (default 1).
        #[schemars(range(min = 1))]
        repeats: Whole,
        /// random (default) draws latents anew at each step, mean does not.
        vae_sample: Choice<VaeSample>,
    }
}

impl RawCaptioned {
    pub(super) fn resolve(
        self,
        section: Location,
        base: &BaseSpec,
        places: &Places,
        checks: &mut Checks,
    ) -> Option<CaptionedSpec> {
        let raw_images = RawImages {
            caption_dropout: self.caption_dropout,
            side_px: self.side_px,
            alpha: self.alpha,
            flip: self.flip,
            repeats: self.repeats,
            vae_sample: self.vae_sample,
        };
        let options = raw_images.resolve("dataset.captioned", base, checks);
        let images = self.images.required("dataset.captioned.images", section, checks);
        let images = images.map(|path| folder(&path, "dataset.captioned.images", places, checks));
        let identifier_at_location = self.identifier_at.location();
        let identifier = optional_text(self.identifier, "dataset.captioned.identifier", checks);
        let class = optional_text(self.class, "dataset.captioned.class", checks);
        let missing_location = self.missing_caption.location();
        let key = "dataset.captioned.missing_caption";
        let missing_caption = self.missing_caption.choice_or(MissingCaption::Error, key, checks);
        let key = "dataset.captioned.identifier_at";
        let identifier_at = self.identifier_at.choice_or(IdentifierAt::Never, key, checks);
        if let (Some(location), MissingCaption::Class, None) =
            (missing_location, missing_caption, &class)
        {
            let message =
                "`missing_caption: class` needs `dataset.captioned.class`, which is missing";
            checks.problem(location, message);
        }
        if let (Some(location), None) = (identifier_at_location, &identifier)
            && identifier_at != IdentifierAt::Never
        {
            let message = "`identifier_at` needs `dataset.captioned.identifier`, which is missing";
            checks.problem(location, message);
        }
        Some(CaptionedSpec {
            images: images?,
            captions: self.captions.choice_or(
                CaptionSource::Sidecar,
                "dataset.captioned.captions",
                checks,
            ),
            missing_caption,
            identifier,
            class,
            identifier_at,
            caption_dropout: options.caption_dropout,
            side_px: options.side_px,
            alpha: options.alpha,
            flip: options.flip,
            repeats: options.repeats,
            vae_sample: options.vae_sample,
        })
    }
}

fn optional_text(field: Field<String>, key: &str, checks: &mut Checks) -> Option<String> {
    field.given(key, checks).map(|value| text(value, key, checks))
}
