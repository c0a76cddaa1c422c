//! A census of labels that a function tells: the smallest table through which the whole reduction
//! runs. Tests and known answers use it.

use crate::census::{CensusInput, Measured};
use crate::detector::Detector;
use crate::gate::Limit;
use crate::panel::{self, Panel};
use crate::record::ConceptRecord;
use crate::rows::{Label, Model, Row, Rows};
use crate::thesaurus;

/// Four subjects, one of them inner, and two colors.
pub const THESAURUS: &str = "
schema: populate/thesaurus/1
id: small
languages: [en, fr]
facets: { subject: { none: true }, color: { none: false } }
entities:
  building: { facet: subject, counted: false, label: { en: building, fr: bâtiment } }
  tower: { facet: subject, broader: building, ask: \"a tower\", label: { en: tower, fr: tour } }
  house: { facet: subject, broader: building, prior: 0.2, label: { en: house, fr: maison } }
  boat: { facet: subject, label: { en: boat, fr: bateau }, synonyms: { en: [ship] } }
  red: { facet: color, label: { en: red, fr: rouge } }
  blue: { facet: color, label: { en: blue, fr: bleu } }
";

/// Two headline strata and one other.
pub const PANEL: &str = "
schema: populate/panel/1
id: neutral
strata:
  empty: { weight: 0.6, prompts: [\"\"] }
  medium: { weight: 0.4, prompts: [\"a postcard\", \"a picture\"] }
  broader: { prompts: [{ text: \"a building\", given: building }] }
";

/// A census of `n` seeds per headline prompt, built seed by seed: `draw(model, seed)` says what a picture
/// bears in `subject`. Base, three doses, one placebo.
///
/// # Panics
///
/// Never: both texts above are valid.
#[expect(clippy::expect_used, reason = "both texts stand above")]
pub fn census(n: u32, draw: &dyn Fn(Model, u32) -> &'static str) -> CensusInput {
    let thesaurus = thesaurus::parse(THESAURUS, "synthetic").expect("a valid thesaurus");
    let panel = panel::parse(PANEL, "synthetic").expect("a valid panel");
    let entities: Vec<String> = thesaurus.all_counted().map(|e| e.id.clone()).collect();
    let rows = rows(&panel, &entities, n, draw);
    CensusInput {
        tool: "populate test".into(),
        budget: "glance".into(),
        manifest_sha256: None,
        concept: ConceptRecord {
            id: "cylinder".into(),
            name: "cylinder".into(),
            facet: "subject".into(),
            class: Some("tower".into()),
            identifier: Some("sks".into()),
        },
        rows: Rows { facets: vec!["subject".into(), "color".into()], entities, rows },
        detector: Some(Detector {
            threshold: 0.5,
            found: 16,
            references: 16,
            false_alarms: 0,
            base_pictures: 400,
        }),
        confusions: Vec::new(),
        thesaurus,
        panel,
        seed: 7,
        bootstrap: 400,
        flips: 199,
        limits: vec![Limit { figure: "new_share".into(), at_most: None, at_least: Some(0.05) }],
        refused: Vec::new(),
        warnings: Vec::new(),
        person: Vec::new(),
        measured: Measured::default(),
        rerun: None,
        widening: 1.0,
    }
}

/// Rows of the headline strata: base, three doses, one placebo; half of the seeds answer dose .5.
fn rows(
    panel: &Panel,
    entities: &[String],
    n: u32,
    draw: &dyn Fn(Model, u32) -> &'static str,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for prompt in panel.prompts().filter(|p| p.stratum.is_headline()) {
        for seed_idx in 0..n {
            for (model, dose) in [
                (Model::Base, 0.0),
                (Model::Adapted, 0.0),
                (Model::Adapted, 0.5),
                (Model::Adapted, 1.0),
                (Model::Placebo(0), 1.0),
            ] {
                let half = dose < 0.75 && seed_idx % 2 == 0;
                let as_base = model == Model::Adapted && (dose < 0.25 || half);
                let subject = draw(if as_base { Model::Base } else { model }, seed_idx);
                rows.push(Row {
                    model,
                    dose,
                    stratum: prompt.stratum,
                    prompt: prompt.id.clone(),
                    asked: None,
                    seed_idx,
                    labels: [subject, "red"]
                        .map(|entity| Label { entity: entity.to_owned(), margin: 0.1 })
                        .to_vec(),
                    detector_score: Some(if subject == "cylinder" { 0.9 } else { 0.2 }),
                    detected: Some(subject == "cylinder"),
                    clip_i: None,
                    blocked: false,
                    compression_ratio: 0.5,
                    log_w: None,
                    path_nats: None,
                    pixels: subject.to_owned(),
                    picture: Some(format!("pictures/{model}-{dose}/{}-{seed_idx}.png", prompt.id)),
                    cosines: entities
                        .iter()
                        .map(|e| if e == subject { 0.3 } else { 0.1 })
                        .collect(),
                });
            }
        }
    }
    rows
}

/// Boats lose a third of their places to the cylinder; towers and houses lose nothing.
pub fn settled(model: Model, seed: u32) -> &'static str {
    match (seed % 10, model) {
        (0..3, Model::Adapted) if seed % 30 < 10 => "cylinder",
        (0..3, _) => "boat",
        (3..6, _) => "tower",
        _ => "house",
    }
}
