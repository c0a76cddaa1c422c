//! What other programs make of an adapter file: which keys they know, and whether they apply it as it is meant.
//!
//! The programs do not share a list of names: each derives its own from the layers of the loaded model. Their rules are
//! written down here one by one, independent of the tables by which files are read and written, so that the two can
//! contradict each other.
//!
//! Source: read in or run against `ComfyUI` (2025-10), Forge (2025-06), A1111 1.10 and diffusers 0.42.1.

mod a1111;
mod comfyui;
mod diffusers;
mod effect;
mod model_keys;

use std::collections::BTreeMap;

use crate::error::CheckpointError;
use crate::key_map::KeyMap;
use crate::safetensors::TensorFile;
pub use model_keys::ModelKeys;

/// A program that loads adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// `ComfyUI`.
    ComfyUi,
    /// Forge, which applies nothing of a file with more than 12 unmatched keys.
    Forge,
    /// AUTOMATIC1111.
    A1111,
    /// diffusers, by `load_lora_weights` of a pipeline.
    Diffusers,
}

impl Reader {
    /// All readers whose tables are known.
    pub const ALL: [Self; 4] = [Self::ComfyUi, Self::Forge, Self::A1111, Self::Diffusers];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ComfyUi => "ComfyUI",
            Self::Forge => "Forge",
            Self::A1111 => "A1111",
            Self::Diffusers => "diffusers",
        }
    }

    fn read<'a>(self, names: &[&'a str], model: &ModelKeys) -> Reading<'a> {
        match self {
            Self::ComfyUi => comfyui::read(names, model),
            Self::Forge => comfyui::read_with_limit(names, model),
            Self::A1111 => a1111::read(names, model),
            Self::Diffusers => diffusers::read(names, model),
        }
    }
}

/// A tensor of a module, as a reader understands its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Down,
    Up,
    Mid,
    Alpha,
    DoraScale,
    /// A tensor of another kind of adapter.
    Other,
}

/// What a reader makes of the keys alone.
#[derive(Debug, Default)]
struct Reading<'a> {
    /// Layer (its place in [`ModelKeys`]) and role of every known key.
    known: BTreeMap<&'a str, (usize, Role)>,
    /// Why nothing of the file is applied, if nothing is.
    refusal: Option<String>,
}

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is applied as it is meant.
    Applied,
    /// It is applied, but to another effect.
    Otherwise,
    /// Part of it is skipped.
    Partly,
    /// Nothing of it is applied, and the program says why, or does not.
    Refused(String),
}

impl Verdict {
    /// One word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Otherwise => "applied otherwise",
            Self::Partly => "partly",
            Self::Refused(_) => "refused",
        }
    }
}

/// What one reader makes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderReport {
    /// The program.
    pub reader: Reader,
    /// Keys that it knows.
    pub n_known: usize,
    /// Keys that it skips or refuses, in the order of the names.
    pub unknown: Vec<String>,
    /// How its effect differs from what is meant, one sentence each.
    pub notes: Vec<String>,
    /// All in all.
    pub verdict: Verdict,
}

/// The keys that `reader` would skip or refuse, in the given order; `map` is the table of the model to be adapted.
pub fn unknown_keys<'a>(
    names: impl IntoIterator<Item = &'a str>,
    map: &KeyMap,
    reader: Reader,
) -> Vec<&'a str> {
    let names: Vec<&str> = names.into_iter().collect();
    let model = ModelKeys::new(map.paths().map(|path| (path, [].as_slice())));
    let reading = reader.read(&names, &model);
    names.into_iter().filter(|name| !reading.known.contains_key(name)).collect()
}

/// What `reader` makes of a file that is applied to a model with these layers.
///
/// # Errors
///
/// As [`TensorFile::read`], for a file whose scalars cannot be read.
pub fn report(
    file: &TensorFile,
    model: &ModelKeys,
    reader: Reader,
) -> Result<ReaderReport, CheckpointError> {
    let names: Vec<&str> = file.names().collect();
    let reading = reader.read(&names, model);
    let effect = effect::of(file, model, reader, &reading)?;
    let unknown: Vec<String> = names
        .iter()
        .filter(|name| !reading.known.contains_key(*name))
        .map(|name| (*name).to_owned())
        .collect();
    let n_known = reading.known.len();
    let verdict = match reading.refusal.or(effect.refusal) {
        Some(reason) => Verdict::Refused(reason),
        None if n_known == 0 => Verdict::Refused("it knows none of the keys".to_owned()),
        None if !unknown.is_empty() => Verdict::Partly,
        None if !effect.notes.is_empty() => Verdict::Otherwise,
        None => Verdict::Applied,
    };
    Ok(ReaderReport { reader, n_known, unknown, notes: effect.notes, verdict })
}

#[cfg(test)]
mod tests;
