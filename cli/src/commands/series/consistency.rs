//! How much each series holds together, how much its pictures differ, and how near they come to what
//! was asked for.
//!
//! A repeated picture holds together best of all, so that coherence never stands alone: beside it are
//! the diversity within series, the cosine with the instructions and that with the nearest reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eval::record::{Coherence, Refusal};
use eval::series::{
    FrontierInput, coherence, distances_content, distances_palette, distances_style, frontier,
    style_from_tokens,
};
use image::RgbImage;
use image::imageops::{self, FilterType};
use models::Evaluator;
use recipes::AlphaPolicy;
use recipes::series::SeriesFile;
use serde::Serialize;
use statistics::interval::{Estimate, Resampler};
use statistics::kernel::{cosines, vendi};
use statistics::number::mean;

use super::album::Album;
use super::studio::Studio;
use crate::error::JobError;
use crate::picture;

/// Bootstrap replicates and relabellings.
const DRAWS: u32 = 999;
/// Pictures that are decoded at once.
const AT_ONCE: usize = 32;
/// Longest side of the pictures whose colors are compared, in pixels.
const PALETTE_PX: u32 = 256;
/// Over which transparent places of references are laid.
const GROUND: AlphaPolicy = AlphaPolicy::Flatten([255; 3]);
/// Endings of pictures.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];
/// Why a figure that needs an evaluator is missing.
const NO_EVALUATOR: &str = "the base brings no evaluator and the file names none (`evaluator`)";

/// The figures of an album.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Consistency {
    /// Number of series.
    pub(super) series: usize,
    /// Number of pictures.
    pub(super) pictures: usize,
    /// Coherence by series in each space of distances that could be taken: content, style, palette.
    pub(super) spaces: Vec<Space>,
    /// Vendi score of each series: how many pictures it has in effect, from 1 (all alike).
    pub(super) vendi: BTreeMap<String, f64>,
    /// Their mean, with its interval.
    pub(super) vendi_mean: Option<Estimate>,
    /// Mean cosine of a picture with its own instruction.
    pub(super) clip_t: Option<f64>,
    /// Mean cosine of a picture with the nearest reference.
    pub(super) nearest_reference: Option<f64>,
    /// Number of references.
    pub(super) references: usize,
    /// Figures that were not given, and why.
    pub(super) refused: Vec<Refusal>,
}

/// Coherence in one space of distances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Space {
    /// `content`, `style` or `palette`.
    pub(super) space: &'static str,
    /// Its figures.
    pub(super) coherence: Coherence,
}

/// The pictures of a folder of references, in the order of their names.
///
/// # Errors
///
/// A folder that holds none.
pub(super) fn references(folder: &Path) -> Result<Vec<PathBuf>, JobError> {
    let is_picture = |path: &PathBuf| {
        let ending = path.extension().unwrap_or_default();
        ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)) && path.is_file()
    };
    let paths: Vec<PathBuf> =
        checkpoints::fs::list(folder)?.into_iter().filter(is_picture).collect();
    if paths.is_empty() {
        return Err(JobError::Data {
            message: format!("`references` names `{}`, which holds no picture", folder.display()),
            hint: Some(format!("pictures end in `.{}`", ENDINGS.join("`, `."))),
        });
    }
    Ok(paths)
}

/// Measures the pictures of an album.
///
/// # Errors
///
/// A picture that cannot be read; a fault of the device.
pub(super) fn measure(
    file: &SeriesFile,
    studio: &Studio,
    album: &Album<'_>,
    references: &[PathBuf],
) -> Result<Consistency, JobError> {
    let n_pictures = album.pages().len();
    let looker = studio.evaluator.as_ref();
    let seen = Seen::of(looker, n_pictures, &|place| album.image(place))?;
    let series = album.series();
    let mut figures = Consistency::empty(series.len(), n_pictures);
    let of_series = |(group, (_, places)): (usize, &(&str, Vec<usize>))| vec![group; places.len()];
    let groups: Vec<usize> = series.iter().enumerate().flat_map(of_series).collect();
    let resampler = Resampler { seed: file.seed, draws: DRAWS };
    if let Some(evaluator) = looker {
        let content = distances_content(&seen.embeddings);
        figures.put("content", coherence(&content, &groups, resampler));
        let style = distances_style(&seen.styles);
        figures.put("style", coherence(&style, &groups, resampler));
        let with_instructions = with_instructions(evaluator, album, &seen.embeddings)?;
        let meant = embedded(evaluator, references)?;
        // The dose only labels the point, and a file may have several adapters.
        let input = FrontierInput {
            dose: 1.0,
            embeddings: &seen.embeddings,
            groups: &groups,
            references: &meant,
            with_instructions: &with_instructions,
        };
        figures.put_diversity(&series, &input, resampler);
    } else {
        for what in ["content", "style", "vendi", "clip_t", "nearest_reference"] {
            figures.refuse(what, NO_EVALUATOR.to_owned());
        }
    }
    let palette = distances_palette(&seen.small);
    figures.put("palette", coherence(&palette, &groups, resampler));
    Ok(figures)
}

/// Cosine of each picture with its own instruction.
fn with_instructions(
    evaluator: &Evaluator,
    album: &Album<'_>,
    embeddings: &[Vec<f32>],
) -> Result<Vec<f64>, JobError> {
    let instructions: Vec<&str> =
        album.pages().iter().map(|page| page.picture.instruction.as_str()).collect();
    let words = evaluator.text_embeddings(&instructions)?;
    Ok(words.iter().zip(embeddings).map(|(words, picture)| cosine(words, picture)).collect())
}

/// Unit embeddings of the references.
fn embedded(evaluator: &Evaluator, references: &[PathBuf]) -> Result<Vec<Vec<f32>>, JobError> {
    let read = |place: usize| -> Result<RgbImage, JobError> {
        Ok(datasets::image_from_file(&references[place], GROUND)?)
    };
    Ok(Seen::of(Some(evaluator), references.len(), &read)?.embeddings)
}

/// Cosine of two unit vectors, summed in order.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// What is left of pictures once they were looked at: few of them are in memory at a time.
#[derive(Debug, Default)]
struct Seen {
    /// The pictures, at most [`PALETTE_PX`] long.
    small: Vec<RgbImage>,
    /// Unit embeddings; none without an evaluator.
    embeddings: Vec<Vec<f32>>,
    /// Features of style; none without an evaluator.
    styles: Vec<Vec<f32>>,
}

impl Seen {
    fn of(
        evaluator: Option<&Evaluator>,
        n_pictures: usize,
        read: &dyn Fn(usize) -> Result<RgbImage, JobError>,
    ) -> Result<Self, JobError> {
        let mut seen = Self::default();
        for first in (0..n_pictures).step_by(AT_ONCE) {
            let places = first..(first + AT_ONCE).min(n_pictures);
            let pictures = places.map(read).collect::<Result<Vec<RgbImage>, JobError>>()?;
            if let Some(evaluator) = evaluator {
                let side = u32::try_from(evaluator.side_px()).unwrap_or(u32::MAX);
                let fitted: Vec<RgbImage> = pictures.iter().map(|p| fitted(p, side)).collect();
                let bytes: Vec<&[u8]> = fitted.iter().map(|p| p.as_raw().as_slice()).collect();
                seen.embeddings.extend(evaluator.image_embeddings(&bytes)?);
                let (tokens, width) = evaluator.image_tokens(&bytes)?;
                seen.styles.extend(tokens.iter().map(|tokens| style_from_tokens(tokens, width)));
            }
            seen.small.extend(pictures.iter().map(|p| picture::within(p, PALETTE_PX)));
        }
        Ok(seen)
    }
}

/// The picture as a square of the side that the evaluator looks at.
fn fitted(picture: &RgbImage, side: u32) -> RgbImage {
    if picture.dimensions() == (side, side) {
        picture.clone()
    } else {
        imageops::resize(picture, side, side, FilterType::CatmullRom)
    }
}

impl Consistency {
    fn empty(series: usize, pictures: usize) -> Self {
        Self {
            series,
            pictures,
            spaces: Vec::new(),
            vendi: BTreeMap::new(),
            vendi_mean: None,
            clip_t: None,
            nearest_reference: None,
            references: 0,
            refused: Vec::new(),
        }
    }

    fn put(&mut self, space: &'static str, coherence: Result<Coherence, String>) {
        match coherence {
            Ok(coherence) => self.spaces.push(Space { space, coherence }),
            Err(reason) => self.refuse(space, reason),
        }
    }

    /// How much the pictures of a series differ, and how near all of them come to what was asked for
    /// and to what was meant.
    fn put_diversity(
        &mut self,
        series: &[(&str, Vec<usize>)],
        input: &FrontierInput<'_>,
        resampler: Resampler,
    ) {
        for (name, places) in series {
            let rows: Vec<Vec<f32>> =
                places.iter().map(|&place| input.embeddings[place].clone()).collect();
            let score = vendi(&cosines(&rows)).map(|[first, _, _]| first);
            self.vendi.extend(score.map(|score| ((*name).to_owned(), score)));
        }
        self.clip_t = mean(input.with_instructions);
        self.references = input.references.len();
        match frontier(input, resampler) {
            Ok(point) => {
                self.vendi_mean = Some(point.vendi);
                self.nearest_reference = point.nearest_reference;
                if point.nearest_reference.is_none() {
                    let reason = "the file names no `references`".to_owned();
                    self.refuse("nearest_reference", reason);
                }
            }
            Err(reason) => {
                self.refuse("vendi_mean", reason.clone());
                self.refuse("nearest_reference", reason);
            }
        }
    }

    fn refuse(&mut self, what: &str, reason: String) {
        self.refused.push(Refusal { what: what.to_owned(), reason });
    }

    /// The figures for people, one sentence each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.spaces.iter().map(Space::line).collect();
        lines.extend(self.vendi_mean.map(|vendi| {
            let each = self.pictures as f64 / self.series.max(1) as f64;
            let vendi = bracketed(&vendi);
            format!("diversity within a series: {vendi} of {each:.1} pictures in effect (Vendi)")
        }));
        lines.extend(self.clip_t.map(|cosine| {
            format!("cosine of pictures with their instructions: {cosine:.3} (CLIP-T)")
        }));
        lines.extend(self.nearest_reference.map(|cosine| {
            let n_references = self.references;
            format!("cosine with the nearest of {n_references} references: {cosine:.3}")
        }));
        for Refusal { what, reason } in &self.refused {
            lines.push(format!("not measured: {what}, {reason}"));
        }
        lines
    }
}

impl Space {
    fn line(&self) -> String {
        let Coherence { r2, r2_permuted, omega2, p, .. } = &self.coherence;
        format!(
            "{}: R² {} between series, {r2_permuted:.3} by chance (ω² {omega2:.3}, p {p:.3})",
            self.space,
            bracketed(r2)
        )
    }
}

/// An estimate with its interval.
pub(super) fn bracketed(estimate: &Estimate) -> String {
    match estimate.ci {
        Some([low, high]) => format!("{:.3} [{low:.3}, {high:.3}]", estimate.value),
        None => format!("{:.3}", estimate.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of two series.
    fn figures() -> Consistency {
        let coherence = Coherence {
            r2: Estimate { value: 0.41, ci: Some([0.3, 0.52]), ci_kind: None },
            r2_permuted: 0.13,
            omega2: 0.32,
            f: 9.0,
            p: 0.001,
            silhouette: 0.2,
        };
        Consistency {
            spaces: vec![Space { space: "content", coherence }],
            vendi: BTreeMap::from([("harbor".to_owned(), 2.0), ("winter".to_owned(), 3.0)]),
            vendi_mean: Some(Estimate::bare(2.5)),
            clip_t: Some(0.271),
            ..Consistency::empty(2, 12)
        }
    }

    #[test]
    fn coherence_never_stands_without_chance_and_diversity() {
        let mut figures = figures();
        figures.refuse("nearest_reference", "the file names no `references`".to_owned());
        let expected = [
            "content: R² 0.410 [0.300, 0.520] between series, 0.130 by chance (ω² 0.320, p 0.001)",
            "diversity within a series: 2.500 of 6.0 pictures in effect (Vendi)",
            "cosine of pictures with their instructions: 0.271 (CLIP-T)",
            "not measured: nearest_reference, the file names no `references`",
        ];
        assert_eq!(figures.lines(), expected);
    }

    #[test]
    fn a_refused_figure_has_its_reason() {
        let mut figures = Consistency::empty(1, 6);
        figures.put("palette", Err("one series has nothing to differ from".to_owned()));
        assert!(figures.spaces.is_empty());
        assert_eq!(figures.refused[0].what, "palette");
        assert_eq!(
            figures.lines(),
            ["not measured: palette, one series has nothing to differ from"]
        );
    }

    #[test]
    fn references_are_the_pictures_of_a_folder_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let error = references(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("which holds no picture"), "{error}");
        for name in ["b.PNG", "a.jpg", "notes.txt"] {
            checkpoints::fs::atomic_write(&dir.path().join(name), b"x").unwrap();
        }
        let names: Vec<PathBuf> = ["a.jpg", "b.PNG"].map(|name| dir.path().join(name)).to_vec();
        assert_eq!(references(dir.path()).unwrap(), names);
    }

    #[test]
    fn few_pictures_are_in_memory_at_a_time_and_all_are_seen_in_order() {
        let read = |place: usize| -> Result<RgbImage, JobError> {
            Ok(RgbImage::from_pixel(600, 600, image::Rgb([place as u8; 3])))
        };
        let seen = Seen::of(None, 70, &read).unwrap();
        assert!(seen.embeddings.is_empty());
        let shades: Vec<u8> = seen.small.iter().map(|small| small.get_pixel(9, 9).0[0]).collect();
        assert_eq!(shades, (0..70).collect::<Vec<u8>>());
        assert!(seen.small.iter().all(|small| small.dimensions() == (PALETTE_PX, PALETTE_PX)));
    }
}
