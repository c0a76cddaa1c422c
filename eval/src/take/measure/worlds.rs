//! Series and modes: whether pictures of one instruction still belong together, and what arrived or
//! departed without asking a thesaurus.

use super::super::Taker;
use super::trajectories::EMPTY;
use crate::error::EvalError;
use crate::modes::{FREQUENCIES, ModesRecord, ModesSettings, modes};
use crate::panel::Stratum;
use crate::record::{FrontierPoint, SeriesPicture, SeriesRecord, SeriesSheet, SeriesSpace};
use crate::rows::{Model, Row};
use crate::series::{
    FrontierInput, distances_content, distances_palette, distances_style, frontier, space,
    style_from_tokens,
};
use image::RgbImage;
use statistics::number::whole;
use std::collections::BTreeMap;

/// Modes per side, and random exchanges behind each floor.
const MODES: usize = 3;
const EXCHANGES: u32 = 99;
/// Most pairs that modes are looked for in.
const MODE_PAIRS: usize = 1024;

/// Equal pictures of two models, series after series.
struct Drawn<'a> {
    groups: Vec<usize>,
    names: Vec<&'a str>,
    rows: [Vec<&'a Row>; 2],
    embeddings: [Vec<Vec<f32>>; 2],
}

impl Taker<'_> {
    /// Series are the open scenes of the panel: each names a setting, none names the concept.
    pub(super) fn series(&self) -> Result<Result<SeriesRecord, String>, EvalError> {
        let drawn = self.scenes();
        if drawn.names.len() < 2 {
            return Ok(Err("the budget asks no two open scenes, which would be the series".into()));
        }
        let pictures = [self.pictures_of(&drawn.rows[0])?, self.pictures_of(&drawn.rows[1])?];
        let spaces = match self.spaces(&drawn, &pictures)? {
            Ok(spaces) => spaces,
            Err(reason) => return Ok(Err(reason)),
        };
        let points: Result<Vec<FrontierPoint>, String> =
            [(0, 0.0), (1, 1.0)].into_iter().map(|(i, dose)| self.point(&drawn, i, dose)).collect();
        Ok(points.map(|frontier| SeriesRecord {
            pictures: whole(drawn.groups.len() / drawn.names.len()),
            spaces,
            frontier,
            sheets: self.sheets(&drawn),
        }))
    }

    fn scenes(&self) -> Drawn<'_> {
        let mut rows: BTreeMap<(&str, u32), [Option<&Row>; 2]> = BTreeMap::new();
        for row in self.rows.rows.iter().filter(|row| row.stratum == Stratum::Scene) {
            if !row.model.is_of_pair(row.dose) {
                continue;
            }
            let place = usize::from(row.model != Model::Base);
            if row.picture.is_some() {
                rows.entry((&row.prompt, row.seed_idx)).or_default()[place] = Some(row);
            }
        }
        let mut drawn = Drawn {
            groups: Vec::new(),
            names: Vec::new(),
            rows: [Vec::new(), Vec::new()],
            embeddings: [Vec::new(), Vec::new()],
        };
        for ((prompt, _), both) in rows {
            let [Some(base), Some(adapted)] = both else { continue };
            let (Some(before), Some(after)) = (self.embedding_of(base), self.embedding_of(adapted))
            else {
                continue;
            };
            if drawn.names.last() != Some(&prompt) {
                drawn.names.push(prompt);
            }
            drawn.groups.push(drawn.names.len() - 1);
            for (i, (row, embedding)) in [(base, before), (adapted, after)].into_iter().enumerate()
            {
                drawn.rows[i].push(row);
                drawn.embeddings[i].push(embedding);
            }
        }
        drawn
    }

    fn embedding_of(&self, row: &Row) -> Option<Vec<f32>> {
        let found = self.seen_of(|drawing| {
            drawing.model == row.model
                && drawing.dose.to_bits() == row.dose.to_bits()
                && drawing.prompt.id == row.prompt
        });
        let mut found = found.filter(|(_, seed_idx, _, _)| *seed_idx == row.seed_idx);
        found.next().map(|(_, _, seen, i)| seen.looked.embeddings[i].clone())
    }

    fn spaces(
        &self,
        drawn: &Drawn<'_>,
        pictures: &[Vec<RgbImage>; 2],
    ) -> Result<Result<Vec<SeriesSpace>, String>, EvalError> {
        let style = [self.styles(&pictures[0])?, self.styles(&pictures[1])?];
        let of = |name: &str, [before, after]: [Vec<Vec<f64>>; 2]| {
            space(name, Some(&before), &after, &drawn.groups, self.resampler())
        };
        let both = |i: usize| distances_content(&drawn.embeddings[i]);
        Ok([
            ("style", style.map(|styles| distances_style(&styles))),
            ("content", [both(0), both(1)]),
            ("palette", [distances_palette(&pictures[0]), distances_palette(&pictures[1])]),
        ]
        .into_iter()
        .map(|(name, tables)| of(name, tables))
        .collect())
    }

    fn styles(&self, pictures: &[RgbImage]) -> Result<Vec<Vec<f32>>, EvalError> {
        let side = u32::try_from(self.job.evaluator.side_px()).unwrap_or(u32::MAX);
        let fitted: Vec<RgbImage> =
            pictures.iter().map(|picture| crate::evaluator::fitted(picture, side)).collect();
        let bytes: Vec<&[u8]> = fitted.iter().map(|picture| picture.as_raw().as_slice()).collect();
        let (tokens, width) = self.job.evaluator.image_tokens(&bytes)?;
        Ok(tokens.iter().map(|tokens| style_from_tokens(tokens, width)).collect())
    }

    fn point(&self, drawn: &Drawn<'_>, i: usize, dose: f64) -> Result<FrontierPoint, String> {
        let instructions: Vec<&str> =
            drawn.rows[i].iter().map(|row| self.text_of(&row.prompt)).collect();
        let words = self.job.evaluator.text_embeddings(&instructions);
        let words = words.map_err(|error| error.to_string())?;
        let with_instructions: Vec<f64> = drawn.embeddings[i]
            .iter()
            .zip(&words)
            .map(|(picture, words)| f64::from(crate::evaluator::cosine(picture, words)))
            .collect();
        let input = FrontierInput {
            dose,
            embeddings: &drawn.embeddings[i],
            groups: &drawn.groups,
            references: &self.references,
            with_instructions: &with_instructions,
        };
        frontier(&input, self.resampler())
    }

    fn text_of(&self, prompt: &str) -> &str {
        let mut prompts = self.plan.drawings.iter().map(|drawing| &drawing.prompt);
        prompts.find(|other| other.id == prompt).map_or("", |found| found.text.as_str())
    }

    /// Modes of unasked pictures that one model draws more often than the other.
    pub(super) fn modes(&self) -> Result<ModesRecord, String> {
        let of = |model: Model| -> BTreeMap<u32, &[f32]> {
            self.seen_of(move |drawing| {
                drawing.model == model
                    && drawing.prompt.id == EMPTY
                    && model.is_of_pair(drawing.dose)
            })
            .map(|(_, seed_idx, seen, i)| (seed_idx, seen.looked.embeddings[i].as_slice()))
            .collect()
        };
        let (base, adapted) = (of(Model::Base), of(Model::Adapted));
        let pairs = base.iter().filter_map(|(seed, before)| Some((before, adapted.get(seed)?)));
        let (before, after): (Vec<Vec<f32>>, Vec<Vec<f32>>) =
            pairs.take(MODE_PAIRS).map(|(b, a)| (b.to_vec(), a.to_vec())).unzip();
        let settings = ModesSettings {
            seed: self.job.spec.seed,
            frequencies: FREQUENCIES,
            count: MODES,
            exchanges: EXCHANGES,
        };
        modes(&before, &after, settings)
    }

    /// One sheet per series and model.
    fn sheets(&self, drawn: &Drawn<'_>) -> Vec<SeriesSheet> {
        let mut sheets = Vec::new();
        for (series, prompt) in drawn.names.iter().enumerate() {
            for (i, model) in ["base", "adapted"].into_iter().enumerate() {
                let rows = drawn.rows[i].iter().zip(&drawn.groups);
                let pictures =
                    rows.filter(|(_, group)| **group == series).filter_map(|(row, _)| {
                        Some(SeriesPicture {
                            picture: row.picture.clone()?,
                            instruction: self.text_of(&row.prompt).to_owned(),
                            seed_idx: row.seed_idx,
                        })
                    });
                sheets.push(SeriesSheet {
                    name: self.text_of(prompt).to_owned(),
                    model: model.to_owned(),
                    pictures: pictures.collect(),
                });
            }
        }
        sheets
    }
}
