//! Names of adapter tensors: diffusers layer paths, kohya stems, the sgm names of SDXL, PEFT and its older spellings.
//!
//! A kohya stem has lost its dots, so it is never rewritten as text: a table built from the layer paths of the model
//! answers in both directions, and building it fails if two layers would share a stem.

mod diffusers;
mod parse;
pub(crate) mod sgm;

use std::collections::BTreeMap;

use crate::error::CheckpointError;
pub use parse::{ParsedKey, Part};

/// How a family of models names its UNet in kohya files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// SD 1, SD 2 and postcards: diffusers paths, `lora_te_` for the text encoder.
    Diffusers,
    /// SDXL: sgm paths, `lora_te1_` and `lora_te2_`.
    Sgm {
        /// `layers_per_block` of the UNet's configuration.
        layers_per_block: usize,
    },
}

/// Component of a model that an adapter can reach.
const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

/// The table for one model. Layer paths begin with their component: `unet.down_blocks.0…`, `text_encoder.text_model…`.
#[derive(Debug, Clone)]
pub struct KeyMap {
    kohya: BTreeMap<String, String>,
    paths: BTreeMap<String, String>,
}

impl KeyMap {
    /// Builds the table from the paths of all layers that an adapter could target.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Key`] for a path without known component or sgm name, or if two paths share a stem.
    pub fn new<'a>(
        naming: Naming,
        layer_paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, CheckpointError> {
        let layer_paths: Vec<&str> = layer_paths.into_iter().collect();
        let mut map = Self { kohya: BTreeMap::new(), paths: BTreeMap::new() };
        for &path in &layer_paths {
            let (component, inner) = split_component(path).ok_or_else(|| {
                key_error(path, "does not begin with `unet.`, `text_encoder.` or `text_encoder_2.`")
            })?;
            let own = match naming {
                Naming::Sgm { layers_per_block } if component == "unet" => {
                    let sgm = sgm::path(inner, layers_per_block, &layer_paths)
                        .ok_or_else(|| key_error(path, "has no name in an SDXL file"))?;
                    stem("lora_unet_", &sgm)
                }
                Naming::Diffusers | Naming::Sgm { .. } => {
                    stem(own_prefix(naming, component), inner)
                }
            };
            map.insert(&own, path)?;
            for prefix in read_prefixes(component) {
                map.insert(&stem(prefix, inner), path)?;
            }
            map.kohya.insert(path.to_owned(), own);
        }
        Ok(map)
    }

    fn insert(&mut self, stem: &str, path: &str) -> Result<(), CheckpointError> {
        match self.paths.insert(stem.to_owned(), path.to_owned()) {
            Some(other) if other != path => {
                Err(key_error(stem, &format!("would stand for both `{other}` and `{path}`")))
            }
            _ => Ok(()),
        }
    }

    /// The stem under which kohya files of this family name a layer.
    pub fn kohya_from_diffusers(&self, path: &str) -> Option<&str> {
        self.kohya.get(path).map(String::as_str)
    }

    /// The layer for which a stem stands: the family's own stems, diffusers names in SDXL files, `lora_te1_` in SD 1.
    pub fn diffusers_from_kohya(&self, stem: &str) -> Option<&str> {
        self.paths.get(stem).map(String::as_str)
    }

    /// Layer paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.kohya.keys().map(String::as_str)
    }

    /// Whether the model has a layer of this path.
    pub fn contains(&self, path: &str) -> bool {
        self.kohya.contains_key(path)
    }

    /// The key of a part of a layer's adapter in a kohya file, such as `lora_unet_…_to_q.lora_down.weight`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Key`] for a layer that the model lacks.
    pub fn kohya_key(&self, path: &str, part: Part) -> Result<String, CheckpointError> {
        let stem = self
            .kohya_from_diffusers(path)
            .ok_or_else(|| key_error(path, "names no layer of this model"))?;
        Ok(format!("{stem}.{}", part.kohya_suffix()))
    }

    /// The key of a factor in a file of diffusers, such as `unet.….to_q.lora_A.weight`. It has no place for alpha.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Key`] for a layer that the model lacks, or a part that this form does not have.
    pub fn diffusers_key(&self, path: &str, part: Part) -> Result<String, CheckpointError> {
        if !self.contains(path) {
            return Err(key_error(path, "names no layer of this model"));
        }
        let suffix = part
            .diffusers_suffix()
            .ok_or_else(|| key_error(path, "has a part that diffusers does not store"))?;
        Ok(format!("{path}.{suffix}"))
    }

    /// Layer and part for which a key of an adapter file stands, in any of the forms that are read.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Key`] for an unknown layer, an unknown suffix, or a kind of adapter that is not supported.
    pub fn parse(&self, key: &str) -> Result<ParsedKey, CheckpointError> {
        self.parse_fitting(key, &|_| true)
    }

    /// As [`KeyMap::parse`]. PEFT's keys do not name the network: of several layers that one may mean it is the first that
    /// `fits`, or the first if none does.
    ///
    /// # Errors
    ///
    /// As [`KeyMap::parse`].
    pub fn parse_fitting(
        &self,
        key: &str,
        fits: &dyn Fn(&ParsedKey) -> bool,
    ) -> Result<ParsedKey, CheckpointError> {
        parse::parse(self, key, fits)
    }
}

/// Component and inner path.
fn split_component(path: &str) -> Option<(&str, &str)> {
    path.split_once('.').filter(|(component, _)| COMPONENTS.contains(component))
}

fn stem(prefix: &str, inner: &str) -> String {
    format!("{prefix}{}", inner.replace('.', "_"))
}

fn own_prefix(naming: Naming, component: &str) -> &'static str {
    match (component, naming) {
        ("unet", _) => "lora_unet_",
        ("text_encoder_2", _) => "lora_te2_",
        (_, Naming::Sgm { .. }) => "lora_te1_",
        (_, Naming::Diffusers) => "lora_te_",
    }
}

fn read_prefixes(component: &str) -> &'static [&'static str] {
    match component {
        "unet" => &["lora_unet_"],
        "text_encoder_2" => &["lora_te2_"],
        _ => &["lora_te_", "lora_te1_"],
    }
}

fn key_error(key: &str, reason: &str) -> CheckpointError {
    CheckpointError::Key { key: key.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
