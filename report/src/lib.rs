//! Draws the page of a census: a pure function of what was recorded.
//!
//! One page per language, offline: no script, no network, no clock.

mod chart;
pub mod comparison;
mod flow;
mod glyphs;
mod html;
mod numbers;
mod page;
mod panels;
mod plates;
mod prose;
mod thumbnail;
mod words;

pub use thumbnail::base64;
pub use words::Language;

use eval::Pictures;
use eval::json::CensusReport;
use page::Page;
use plates::Plates;
use std::collections::BTreeMap;
use words::Words;

/// Largest page that carries its own pictures, in bytes.
pub const LARGEST_SELF_CONTAINED: usize = 15_000_000;
/// Longest sides tried for pictures within a page, until it is small enough; then none are shown.
const WITHIN_PX: [Option<u32>; 5] = [Some(256), Some(160), Some(112), Some(64), None];

/// What the page says about the run beside the census.
#[derive(Clone, Debug, Default)]
pub struct RunInfo {
    /// Name of the recipe.
    pub name: String,
    /// What one picture is called.
    pub picture_noun: PictureNoun,
    /// Text of each prompt by its identifier.
    pub prompts: BTreeMap<String, String>,
    /// Facts in order, by terms that both languages know (`base`, `trained`, `steps`, `seed`, `device`,
    /// `attempts`, `version`) or by any other, which then stands as it is.
    pub facts: Vec<(String, String)>,
    /// Hashes in order.
    pub hashes: Vec<(String, String)>,
    /// What training recorded, rising in step.
    pub metrics: Vec<Metric>,
    /// Seconds per phase, in order: `load`, `cache`, `train`, `sample`, `census`, `report`.
    pub seconds: Vec<(String, f64)>,
    /// Energy of the run.
    pub energy: Energy,
    /// The base drawn twice in two processes, if it was.
    pub rerun: Option<Rerun>,
    /// The resolved recipe.
    pub recipe_yaml: String,
}

/// What one picture of the base is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureNoun {
    /// A picture.
    #[default]
    Picture,
    /// A postcard.
    Postcard,
}

/// One recorded training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Optimizer step.
    pub step: u64,
    /// Loss.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
}

/// The base against itself in a fresh process: the floor of the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rerun {
    /// Pairs compared.
    pub pairs: u64,
    /// Pairs whose labels differ in any facet.
    pub different_labels: u64,
}

/// Energy of the run, or why it is not known.
#[derive(Clone, Debug, PartialEq)]
pub enum Energy {
    /// Watt-hours, and what the counter covers.
    Measured {
        /// Watt-hours.
        watt_hours: f64,
        /// What was measured.
        scope: String,
    },
    /// The reason why there is no figure.
    NotMeasured(String),
}

impl Default for Energy {
    fn default() -> Self {
        Self::NotMeasured("no counter was read".to_owned())
    }
}

/// How the page keeps its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As files of `report/img/`, linked with the tables of the run directory.
    Folder,
    /// Within the page, which can be given away alone; fewer of them, and smaller ones.
    SelfContained,
}

/// The files of the report, by their path within the run directory: one page per language, and its
/// pictures.
pub fn render(
    census: &CensusReport,
    pictures: &Pictures,
    info: &RunInfo,
    form: Form,
) -> Vec<(String, Vec<u8>)> {
    let all_words = Language::ALL.map(|language| words_of(census, language));
    let pages = |plates: &Plates| -> Vec<String> {
        let page = |words| html::document(&Page { census, pictures, info, words, plates });
        all_words.iter().map(page).collect()
    };
    match form {
        Form::Folder => {
            let plates = Plates::beside(pictures);
            let pages = pages(&plates);
            let shown = plates.shown(&pages);
            files(pages).into_iter().chain(shown).collect()
        }
        Form::SelfContained => {
            let small = |page: &String| page.len() <= LARGEST_SELF_CONTAINED;
            let mut tries =
                WITHIN_PX.iter().map(|&longest_px| pages(&Plates::within(pictures, longest_px)));
            let fits = tries.find(|pages| pages.iter().all(small));
            files(fits.unwrap_or_else(|| pages(&Plates::within(pictures, None))))
        }
    }
}

/// The finding in one or two sentences, with intervals.
pub fn finding(census: &CensusReport, info: &RunInfo, language: Language) -> String {
    prose::finding(census, info, &words_of(census, language))
}

fn words_of(census: &CensusReport, language: Language) -> Words {
    Words::new(language).with_refusals(&census.refused)
}

/// The pages by their path within the run directory.
fn files(pages: Vec<String>) -> Vec<(String, Vec<u8>)> {
    let named = Language::ALL.iter().zip(pages);
    named
        .map(|(language, page)| (format!("report/{}", language.file()), page.into_bytes()))
        .collect()
}

#[cfg(test)]
mod tests;
