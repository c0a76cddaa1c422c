//! `DreamBooth` (Ruiz et al. 2022): pictures of one thing under one prompt.

use std::path::PathBuf;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_saphyr::Location;

use super::image::{Flip, ImageSpec, RawAlpha, RawImages, VaeSample};
use super::{filled, has_words};
use crate::base::BaseSpec;
use crate::choice::Choice;
use crate::field::{Real, Whole, raw_section};
use crate::problem::{Checks, above};
use crate::units::{Places, file_name, folder, text};

/// `DreamBooth`: pictures of one thing under one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct DreamBoothSpec {
    /// The pictures of the concept.
    pub instance: InstanceSpec,
    /// Pictures of the class, for prior preservation.
    pub class: Option<ClassSpec>,
    /// What is done to every picture, instance or class.
    pub images: ImageSpec,
}

impl Serialize for DreamBoothSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("instance", &self.instance)?;
        if let Some(class) = &self.class {
            map.serialize_entry("class", class)?;
        }
        let images = &self.images;
        map.serialize_entry("caption_dropout", &images.caption_dropout)?;
        map.serialize_entry("side_px", &images.side_px)?;
        map.serialize_entry("alpha", &images.alpha)?;
        map.serialize_entry("flip", &images.flip)?;
        map.serialize_entry("repeats", &images.repeats)?;
        map.serialize_entry("vae_sample", &images.vae_sample)?;
        map.end()
    }
}

/// The pictures of the concept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceSpec {
    /// The folder.
    pub images: PathBuf,
    /// The caption of all of them, with the identifier in it.
    pub prompt: String,
    /// Rare token that names the concept.
    pub identifier: String,
    /// Word for what kind of thing the concept is.
    pub class: String,
}

/// Pictures that hold the class in place.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassSpec {
    /// Where they come from.
    pub source: ClassSource,
    /// Their caption; never holds the identifier.
    pub prompt: String,
    /// Weight of their mean loss beside the mean loss of the concept's pictures, above 0.
    pub weight: f64,
}

impl Serialize for ClassSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        match &self.source {
            ClassSource::Generate { images } => map.serialize_entry("generate", images)?,
            ClassSource::Folder(images) => map.serialize_entry("images", images)?,
        }
        map.serialize_entry("prompt", &self.prompt)?;
        map.serialize_entry("weight", &self.weight)?;
        map.end()
    }
}

/// Where class pictures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassSource {
    /// The base itself draws them.
    Generate {
        /// How many.
        images: u32,
    },
    /// They lie in a folder.
    Folder(PathBuf),
}

raw_section! {
    /// Pictures of one thing under one prompt.
    RawDreamBooth {
        /// The pictures of the concept.
        #[schemars(!default, required)]
        instance: RawInstance,
        /// Pictures that hold the class in place; without them the class drifts to the concept.
        class: RawClass,
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

raw_section! {
    /// The pictures of the concept: a shipped concept by name or a folder.
    RawInstance {
        /// Name of a concept that ships in datasets/concepts.
        concept: String,
        /// Folder of pictures, instead of `concept`.
        images: PathBuf,
        /// Caption of all of them; {identifier} and {class} are replaced.
        #[schemars(!default, required)]
        prompt: String,
        /// Rare token that names the concept; it must occur in the prompt.
        #[schemars(!default, required)]
        identifier: String,
        /// Word for what kind of thing the concept is.
        #[schemars(!default, required)]
        class: String,
    }
}

raw_section! {
    /// Pictures that hold the class in place.
    RawClass {
        /// How many pictures the base draws itself.
        #[schemars(range(min = 1))]
        generate: Whole,
        /// Folder of pictures, instead of `generate`.
        images: PathBuf,
        /// Their caption; {class} is replaced, the identifier may not occur.
        #[schemars(!default, required)]
        prompt: String,
        /// Weight of their mean loss beside that of the concept (default 1).
        #[schemars(range(min = 0))]
        weight: Real,
    }
}

impl RawDreamBooth {
    pub(super) fn resolve(
        self,
        section: Location,
        base: &BaseSpec,
        places: &Places,
        checks: &mut Checks,
    ) -> Option<DreamBoothSpec> {
        let raw_images = RawImages {
            caption_dropout: self.caption_dropout,
            side_px: self.side_px,
            alpha: self.alpha,
            flip: self.flip,
            repeats: self.repeats,
            vae_sample: self.vae_sample,
        };
        let images = raw_images.resolve("dataset.dreambooth", base, checks);
        let instance = self.instance.required("dataset.dreambooth.instance", section, checks);
        let instance = instance.and_then(|raw| raw.value.resolve(raw.referenced, places, checks));
        let class = self.class.given("dataset.dreambooth.class", checks);
        let class =
            class.map(|raw| raw.value.resolve(raw.referenced, instance.as_ref(), places, checks));
        Some(DreamBoothSpec {
            instance: instance?,
            class: match class {
                None => None,
                Some(class) => Some(class?),
            },
            images,
        })
    }
}

impl RawInstance {
    fn resolve(
        self,
        section: Location,
        places: &Places,
        checks: &mut Checks,
    ) -> Option<InstanceSpec> {
        const KEY: &str = "dataset.dreambooth.instance";
        let source_given = !self.concept.is_absent() || !self.images.is_absent();
        let images = match (
            self.concept.given(&format!("{KEY}.concept"), checks),
            self.images.given(&format!("{KEY}.images"), checks),
        ) {
            (Some(concept), None) => {
                let name = file_name(concept, &format!("{KEY}.concept"), checks);
                Some(places.concept(&name))
            }
            (None, Some(path)) => Some(folder(&path, &format!("{KEY}.images"), places, checks)),
            (Some(_), Some(path)) => {
                let message = format!("`{KEY}` must have `concept` or `images`, found both");
                checks.problem(path.referenced, message);
                None
            }
            (None, None) => {
                if !source_given {
                    let message = format!("`{KEY}` must have `concept` or `images`, found neither");
                    checks.problem(section, message);
                }
                None
            }
        };
        let identifier = self.identifier.required(&format!("{KEY}.identifier"), section, checks);
        let identifier = identifier.map(|value| text(value, &format!("{KEY}.identifier"), checks));
        let class = self.class.required(&format!("{KEY}.class"), section, checks);
        let class = class.map(|value| text(value, &format!("{KEY}.class"), checks));
        let prompt = self.prompt.required(&format!("{KEY}.prompt"), section, checks)?;
        let prompt_at = prompt.referenced;
        let prompt = text(prompt, &format!("{KEY}.prompt"), checks);
        let (identifier, class) = (identifier?, class?);
        let prompt = filled(&prompt, Some(&identifier), Some(&class));
        if !has_words(&prompt, &identifier) {
            checks.problem(
                prompt_at,
                format!("`{KEY}.prompt` must hold the identifier `{identifier}`, found `{prompt}`"),
            );
        }
        Some(InstanceSpec { images: images?, prompt, identifier, class })
    }
}

impl RawClass {
    fn resolve(
        self,
        section: Location,
        instance: Option<&InstanceSpec>,
        places: &Places,
        checks: &mut Checks,
    ) -> Option<ClassSpec> {
        const KEY: &str = "dataset.dreambooth.class";
        let source_given = !self.generate.is_absent() || !self.images.is_absent();
        let generate = self.generate.number(&format!("{KEY}.generate"), &(1..=1_000_000), checks);
        let images = self.images.given(&format!("{KEY}.images"), checks);
        let source = match (generate, images) {
            (Some(images), None) => {
                Some(ClassSource::Generate { images: u32::try_from(images).unwrap_or(u32::MAX) })
            }
            (None, Some(path)) => {
                Some(ClassSource::Folder(folder(&path, &format!("{KEY}.images"), places, checks)))
            }
            (Some(_), Some(path)) => {
                let message = format!("`{KEY}` must have `generate` or `images`, found both");
                checks.problem(path.referenced, message);
                None
            }
            (None, None) => {
                if !source_given {
                    let message =
                        format!("`{KEY}` must have `generate` or `images`, found neither");
                    checks.problem(section, message);
                }
                None
            }
        };
        let weight =
            self.weight.number_or(1.0, &format!("{KEY}.weight"), &above(0.0, 1000.0), checks);
        let prompt = self.prompt.required(&format!("{KEY}.prompt"), section, checks)?;
        let prompt_at = prompt.referenced;
        let prompt = text(prompt, &format!("{KEY}.prompt"), checks);
        let prompt = filled(&prompt, None, instance.map(|instance| instance.class.as_str()));
        if let Some(instance) = instance
            && (has_words(&prompt, &instance.identifier) || prompt.contains("{identifier}"))
        {
            checks.problem(
                prompt_at,
                format!("`{KEY}.prompt` must not hold the identifier, found `{prompt}`"),
            );
        }
        Some(ClassSpec { source: source?, prompt, weight })
    }
}
