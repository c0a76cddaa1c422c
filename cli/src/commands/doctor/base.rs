//! `populate doctor --base`: the figures of a postcards base, measured, and its model card.

use std::fmt::Write as _;
use std::path::Path;

use checkpoints::{ModelFiles, ModelOptions};
use eval::base_figures::{BaseFigures, Extent, FacetFigures, base_figures};
use models::Evaluator;
use recipes::BaseSpec;
use serde_json::json;

use crate::commands::{Job, Outcome};
use crate::error::JobError;
use crate::exit::Exit;
use crate::stage;

/// Between these lines of a model card stand the figures.
const MARKS: [&str; 2] = ["<!-- figures -->\n", "<!-- /figures -->\n"];

/// Measures a base (the embedded one, unless `dir` names another) and its evaluator, and writes the
/// figures into `model_card`; a missed bound is exit 65.
pub(super) fn measure(
    dir: Option<&Path>,
    model_card: Option<&Path>,
    job: &Job<'_>,
) -> Result<Outcome, JobError> {
    let files = match dir {
        Some(dir) => ModelFiles::open(dir, &ModelOptions::default())?,
        None => stage::base_files(&BaseSpec::Postcards)?,
    };
    let device = job.device()?;
    let base = models::load(&files, &device.device)?;
    let evaluator = Evaluator::load(&files.evaluator_dir(), &device.device)?;
    let card = model_card.map(Card::read).transpose()?;
    let extent = Extent::FULL;
    job.terminal.say(&format!(
        "measuring on {} reconstructions, {} renderings, {} unasked and {} asked pictures per value",
        extent.reconstructions, extent.renderings, extent.unasked, extent.asked_per_value
    ));
    let figures = base_figures(&base, &evaluator, extent)?;
    let (missed, sha256) = (figures.shortfalls(), files.sha256()?);
    if let Some(card) = card {
        card.write(&table(&figures, &sha256, &device.name))?;
    }
    let mut lines = lines(&figures);
    lines.extend(missed.iter().map(|bound| format!("missed: {bound}")));
    let record = json!({
        "event": "base_figures", "base_sha256": sha256, "device": device.name, "figures": figures,
        "missed": missed,
    });
    job.give(&lines.join("\n"), &record);
    Ok(if missed.is_empty() { Outcome::Done } else { Outcome::Failing(Exit::Data) })
}

/// A model card around its figures: what stands before them, and after.
fn around_figures(text: &str) -> Option<[&str; 2]> {
    let (before, rest) = text.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some([before, after])
}

/// A model card with a place for figures.
struct Card<'a> {
    path: &'a Path,
    around: [String; 2],
}

impl<'a> Card<'a> {
    fn read(path: &'a Path) -> Result<Self, JobError> {
        let bytes = checkpoints::fs::read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let around = around_figures(&text).ok_or_else(|| {
            let [open, close] = MARKS.map(str::trim);
            let path = path.display();
            JobError::data(format!(
                "{path}: expected the lines `{open}` and `{close}`, found no such pair"
            ))
        })?;
        Ok(Self { path, around: around.map(str::to_owned) })
    }

    fn write(&self, figures: &str) -> Result<(), JobError> {
        let ([open, close], [before, after]) = (MARKS, &self.around);
        let text = format!("{before}{open}{figures}{close}{after}");
        Ok(checkpoints::fs::atomic_write(self.path, text.as_bytes())?)
    }
}

/// The figures as Markdown.
fn table(figures: &BaseFigures, sha256: &str, device: &str) -> String {
    let extent = &figures.extent;
    let mut text = format!(
        "Measured by `populate doctor --base` on {device}; base {}.\n\n\
         Autoencoder: PSNR {:.2} dB, mean of {} held-out renderings.\n\n\
         | facet | evaluator right, {} renderings | drawn as asked, {} per value | total variation from the \
         prior, {} unasked, calibrated | as counted |\n|---|---|---|---|---|\n",
        &sha256[..12],
        figures.psnr_db,
        extent.reconstructions,
        extent.renderings,
        extent.asked_per_value,
        extent.unasked,
    );
    for facet in &figures.facets {
        let asked = facet.asked.map_or_else(String::new, |share| format!("{:.1} %", 100.0 * share));
        let _ = writeln!(
            text,
            "| {} | {:.1} % | {asked} | {:.3} | {:.3} |",
            facet.facet,
            100.0 * facet.accuracy,
            facet.total_variation,
            facet.total_variation_raw,
        );
    }
    match figures.shortfalls().as_slice() {
        [] => text.push_str("\nAll bounds of a release are met.\n"),
        missed => {
            let _ = writeln!(text, "\nBounds of a release that are missed: {}.", missed.join("; "));
        }
    }
    for facet in &figures.facets {
        let shares: Vec<String> = facet
            .shares
            .iter()
            .map(|(name, prior, share)| {
                format!("{name} {:.1} → {:.1}", 100.0 * prior, 100.0 * share)
            })
            .collect();
        let _ = writeln!(
            text,
            "\n{}, per cent of the prior → unasked: {}.",
            facet.facet,
            shares.join(", ")
        );
    }
    text
}

fn lines(figures: &BaseFigures) -> Vec<String> {
    let mut lines = vec![format!("reconstruction: PSNR {:.1} dB", figures.psnr_db)];
    lines.extend(figures.facets.iter().map(facet_line));
    lines
}

fn facet_line(facet: &FacetFigures) -> String {
    let asked =
        facet.asked.map_or_else(String::new, |share| format!(", asked {:.1} %", 100.0 * share));
    format!(
        "{}: evaluator right in {:.1} %{asked}, unasked total variation {:.3} (as counted {:.3})",
        facet.facet,
        100.0 * facet.accuracy,
        facet.total_variation,
        facet.total_variation_raw,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_one_place_for_figures() {
        let card = "before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n";
        assert_eq!(around_figures(card), Some(["before\n", "after\n"]));
        assert_eq!(around_figures("<!-- /figures -->\n<!-- figures -->\n"), None);
    }

    #[test]
    fn facets_that_are_not_asked_say_nothing_of_it() {
        let facet = FacetFigures {
            facet: "style",
            accuracy: 0.991,
            asked: None,
            total_variation_raw: 0.05,
            total_variation: 0.04,
            shares: Vec::new(),
        };
        let expected =
            "style: evaluator right in 99.1 %, unasked total variation 0.040 (as counted 0.050)";
        assert_eq!(facet_line(&facet), expected);
    }

    #[test]
    fn the_shipped_card_speaks_of_the_shipped_base() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../checkpoints/postcards");
        let sha256 = ModelFiles::open(&dir, &ModelOptions::default()).unwrap().sha256().unwrap();
        let card = checkpoints::fs::read(&dir.join("README.md")).unwrap();
        let stated = format!("; base {}.", &sha256[..12]);
        assert!(String::from_utf8_lossy(&card).contains(&stated), "expected `{stated}`");
    }

    #[test]
    fn a_card_names_the_bounds_that_are_missed() {
        let mut figures = BaseFigures { extent: Extent::FULL, psnr_db: 27.0, facets: Vec::new() };
        let card = table(&figures, "0123456789abcdef", "a processor");
        assert!(card.contains("All bounds of a release are met."), "{card}");
        figures.psnr_db = 25.0;
        let card = table(&figures, "0123456789abcdef", "a processor");
        let missed = "missed: reconstruction PSNR in dB: 25.000, expected at least 26.";
        assert!(card.contains(missed), "{card}");
    }
}
