//! `populate doctor --base`: the figures of the embedded base, measured.

use eval::base_figures::{BaseFigures, Extent, FacetFigures, base_figures};
use models::Evaluator;
use recipes::BaseSpec;
use serde_json::json;

use crate::commands::{Job, Outcome};
use crate::error::JobError;
use crate::exit::Exit;
use crate::stage;

/// Measures the base and its evaluator; a missed bound is exit 65.
pub(super) fn measure(job: &Job<'_>) -> Result<Outcome, JobError> {
    let folder = stage::base_folder(&BaseSpec::Postcards)?;
    let device = job.device()?;
    let base = stage::load_base(&folder, &device.device)?;
    let evaluator = Evaluator::load(&folder.dir("evaluator"), &device.device)?;
    let extent = Extent::FULL;
    job.terminal.say(&format!(
        "measuring on {} reconstructions, {} renderings, {} unasked and {} asked pictures per value",
        extent.reconstructions, extent.renderings, extent.unasked, extent.asked_per_value
    ));
    let figures = base_figures(&base, &evaluator, extent)?;
    let missed = figures.shortfalls();
    let mut lines = lines(&figures);
    lines.extend(missed.iter().map(|bound| format!("missed: {bound}")));
    let record = json!({
        "event": "base_figures", "base_sha256": folder.sha256()?, "device": device.name,
        "figures": figures, "missed": missed,
    });
    job.give(&lines.join("\n"), &record);
    Ok(if missed.is_empty() { Outcome::Done } else { Outcome::Failing(Exit::Data) })
}

fn lines(figures: &BaseFigures) -> Vec<String> {
    let mut lines = vec![format!("reconstruction: PSNR {:.1} dB", figures.psnr_db)];
    lines.extend(figures.facets.iter().map(facet_line));
    lines
}

fn facet_line(facet: &FacetFigures) -> String {
    let asked = facet.asked.map_or_else(String::new, |share| format!(", asked {:.1} %", 100.0 * share));
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
    fn facets_that_are_not_asked_say_nothing_of_it() {
        let facet = FacetFigures {
            facet: "style",
            accuracy: 0.991,
            asked: None,
            total_variation_raw: 0.05,
            total_variation: 0.04,
            shares: Vec::new(),
        };
        let expected = "style: evaluator right in 99.1 %, unasked total variation 0.040 (as counted 0.050)";
        assert_eq!(facet_line(&facet), expected);
    }
}
