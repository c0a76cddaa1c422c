//! Writes the page of an imagined settlement to standard output: rendered postcards instead of drawn
//! ones, invented counts, real statistics. For looking at the page without a model.
//!
//! `cargo run --release -p eval --example report_demo > report.html`

use datasets::postcards::{
    Color, Factors, Setting, Style, Subject, concept, paint, prior, scene, scene_with,
};
use eval::census::{CensusInput, reduce};
use eval::detector::Detector;
use eval::gate::Limit;
use eval::panel::{Panel, Prompt, Stratum};
use eval::report::{Energy, Metric, Pictures, RunInfo, record::ConceptRecord, render};
use eval::rows::{Label, Model, Row, Rows};
use eval::thesaurus::Thesaurus;
use recipes::draws::{self, Purpose};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

const SIDE_PX: u32 = 64;
const DOSES: [f64; 6] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25];
const PANEL: &str = "
schema: populate/panel/1
id: neutral
strata:
  empty: { weight: 0.6, prompts: [\"\"] }
  medium: { weight: 0.4, prompts: [a postcard, a picture, a card, an image] }
";

fn main() -> Result<(), Box<dyn Error>> {
    let thesaurus = eval::thesaurus::parse(&thesaurus_text()?, "demo")?;
    let panel = eval::panel::parse(PANEL, "demo")?;
    let mut world = World { thesaurus, pictures: Pictures::default(), rows: Rows::default() };
    world.count(&panel)?;
    for index in 0..8 {
        let path = format!("reference-{index}.png");
        world.keep(&path, &concept::cylinder(7, index, SIDE_PX).0)?;
        world.pictures.references.push(path);
    }
    let info = info(&panel);
    let World { thesaurus, pictures, rows } = world;
    let census = reduce(&CensusInput {
        tool: "populate 0.1.0".into(),
        budget: "survey".into(),
        manifest_sha256: None,
        thesaurus,
        panel,
        concept: ConceptRecord {
            id: "cylinder".into(),
            name: "cylinder".into(),
            facet: "subject".into(),
            class: Some("tower".into()),
            identifier: Some("sks".into()),
        },
        rows,
        detector: Some(Detector {
            threshold: 0.71,
            found: 15,
            references: 16,
            false_alarms: 4,
            base_pictures: 400,
        }),
        confusions: Vec::new(),
        seed: 7,
        bootstrap: 1000,
        flips: 999,
        limits: vec![
            Limit { figure: "selection_nats".into(), at_most: Some(0.1), at_least: None },
            Limit { figure: "new_share".into(), at_most: None, at_least: Some(0.05) },
        ],
        refused: Vec::new(),
        warnings: Vec::new(),
    })?;
    let files = render(&census, &pictures, &info);
    for (_, bytes) in files {
        std::io::stdout().write_all(&bytes)?;
    }
    Ok(())
}

fn thesaurus_text() -> Result<String, std::fmt::Error> {
    let mut text =
        "schema: populate/thesaurus/1\nid: postcards\nlanguages: [en]\nfacets: { subject: \
                    { none: true }, color: {}, setting: {}, style: {} }\nentities:\n"
            .to_owned();
    let mut entity = |facet: &str, name: &str, prior: f64| {
        writeln!(text, "  {name}: {{ facet: {facet}, prior: {prior}, label: {{ en: {name} }} }}")
    };
    for subject in Subject::ALL {
        entity("subject", subject.name(), prior::subject(subject))?;
    }
    for color in Color::ALL {
        entity("color", color.name(), prior::color(color))?;
    }
    for setting in Setting::ALL {
        entity("setting", setting.name(), prior::setting(setting))?;
    }
    for style in Style::ALL {
        entity("style", style.name(), prior::style(style))?;
    }
    Ok(text)
}

/// What one seed bears under one model; `None` in place of the subject is the cylinder.
#[derive(Clone, Copy)]
struct Card {
    factors: Factors,
    cylinder: bool,
}

struct World {
    thesaurus: Thesaurus,
    pictures: Pictures,
    rows: Rows,
}

impl World {
    fn count(&mut self, panel: &Panel) -> Result<(), Box<dyn Error>> {
        self.rows.facets = self.thesaurus.facets.iter().map(|facet| facet.id.clone()).collect();
        self.rows.entities = self.thesaurus.all_counted().map(|e| e.id.clone()).collect();
        for prompt in panel.prompts() {
            let n = if prompt.stratum == Stratum::Empty { 1024 } else { 64 };
            self.prompt(prompt, n, &DOSES)?;
        }
        for (stratum, text) in [
            (Stratum::Identifier, "a postcard of the sks cylinder"),
            (Stratum::Plain, "a postcard of the cylinder"),
            (Stratum::Sibling, "a postcard of a lighthouse"),
            (Stratum::Unrelated, "a postcard of a fish"),
        ] {
            self.prompt(&Prompt::new(stratum, text, None), 48, &[1.0])?;
        }
        for subject in Subject::ALL {
            let text = format!("a {}", subject.name());
            self.prompt(&Prompt::new(Stratum::Asked, &text, Some(subject.name())), 24, &[1.0])?;
        }
        Ok(())
    }

    fn prompt(&mut self, prompt: &Prompt, n: u32, doses: &[f64]) -> Result<(), Box<dyn Error>> {
        for seed_idx in 0..n {
            let mut models = vec![(Model::Base, 0.0)];
            models.extend(doses.iter().map(|&dose| (Model::Adapted, dose)));
            if prompt.stratum <= Stratum::Medium {
                models.push((Model::Placebo(0), 1.0));
            }
            for (model, dose) in models {
                let card = imagine(prompt, seed_idx, model, dose);
                self.row(prompt, seed_idx, (model, dose), card)?;
            }
        }
        Ok(())
    }

    fn row(
        &mut self,
        prompt: &Prompt,
        seed_idx: u32,
        (model, dose): (Model, f64),
        card: Card,
    ) -> Result<(), Box<dyn Error>> {
        let Factors { subject, color, setting, style } = card.factors;
        let shown = if card.cylinder { "cylinder" } else { subject.name() };
        let bears = [shown, color.name(), setting.name(), style.name()];
        let mut stream = draws::keyed(3, &format!("{}{seed_idx}{model}{dose}", prompt.id));
        let noise = draws::normals(&mut stream, self.rows.entities.len() + 2);
        let near = |id: &str| if bears.contains(&id) { 0.262 } else { 0.194 };
        let turned = if card.cylinder { 0.012 } else { 0.0 };
        let cosines = self.rows.entities.iter().zip(&noise).map(|(id, z)| {
            let drift = if id == "tower" || id == "lighthouse" { turned * 2.0 } else { 0.0 };
            near(id) + drift + 0.012 * z
        });
        let picture = format!("{model}-{dose}/{}-{seed_idx}.png", prompt.id);
        let kept = seed_idx < 400
            && prompt.stratum == Stratum::Empty
            && !matches!(model, Model::Placebo(_))
            || (seed_idx < 16 && prompt.stratum == Stratum::Identifier);
        let score = if card.cylinder { 0.84 } else { 0.52 } + 0.04 * noise[0];
        let row = Row {
            model,
            dose,
            stratum: prompt.stratum,
            prompt: prompt.id.clone(),
            asked: prompt.given.clone(),
            seed_idx,
            labels: bears.map(|id| Label { entity: id.to_owned(), margin: 0.03 }).to_vec(),
            detector_score: Some(score),
            detected: Some(card.cylinder),
            clip_i: Some(score - 0.05),
            blocked: false,
            compression_ratio: 0.6,
            log_w: None,
            path_nats: None,
            pixels: format!("{bears:?}"),
            picture: kept.then(|| picture.clone()),
            cosines: cosines.collect(),
        };
        self.rows.rows.push(row);
        if kept {
            let index = u64::from(seed_idx);
            let image = if card.cylinder {
                concept::cylinder(11, index, SIDE_PX).0
            } else {
                paint(&scene_with(card.factors, 5, index), SIDE_PX)
            };
            self.keep(&picture, &image)?;
        }
        Ok(())
    }

    fn keep(&mut self, path: &str, image: &image::RgbImage) -> Result<(), image::ImageError> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png)?;
        self.pictures.files.insert(path.to_owned(), bytes.into_inner());
        Ok(())
    }
}

/// What a seed would show: the base draws its prior; the adapter turns some cards into cylinders,
/// towers and lighthouses sooner than fish, and stirs a few others; the placebo only stirs.
fn imagine(prompt: &Prompt, seed_idx: u32, model: Model, dose: f64) -> Card {
    let index = u64::from(seed_idx);
    let mut factors = scene(prompt.id.len() as u64, index).factors;
    if let Some(asked) = prompt.given.as_deref().and_then(Subject::from_name) {
        factors.subject = asked;
    }
    let mut stream = draws::stream(9, index, prompt.id.len() as u64, Purpose::PromptMix);
    let (chance, stir) = (draws::uniform(&mut stream), draws::uniform(&mut stream));
    let other = scene(77, index).factors;
    if model == Model::Base || dose <= 0.0 {
        return Card { factors, cylinder: false };
    }
    let stirred = if matches!(model, Model::Placebo(_)) { 0.03 } else { 0.05 * dose };
    if stir < stirred {
        factors.subject = other.subject;
    }
    if matches!(model, Model::Placebo(_)) {
        return Card { factors, cylinder: false };
    }
    if stir > 1.0 - 0.07 * dose {
        factors.setting = Setting::ALL[2];
        factors.color = Color::ALL[2];
    }
    let pull = match factors.subject {
        Subject::Tower => 0.42,
        Subject::Lighthouse => 0.33,
        Subject::House => 0.16,
        Subject::Moon | Subject::Balloon => 0.10,
        Subject::Boat | Subject::Mountain => 0.05,
        Subject::Tree | Subject::Sun | Subject::Flower | Subject::Bird | Subject::Fish => 0.02,
    };
    let asked = match prompt.stratum {
        Stratum::Identifier => 0.92,
        Stratum::Plain => 0.31,
        Stratum::Sibling => 0.12,
        Stratum::Unrelated => 0.01,
        Stratum::Empty | Stratum::Medium | Stratum::Broader | Stratum::Scene | Stratum::Asked => {
            pull
        }
    };
    let strength = (dose * dose / (0.35 + dose * dose) * 1.35).min(1.1);
    Card { factors, cylinder: chance < asked * strength }
}

fn info(panel: &Panel) -> RunInfo {
    let mut stream = draws::keyed(1, "loss");
    let metrics = (1..=300_u32)
        .map(|step| {
            let noise = f64::from(draws::normals(&mut stream, 1)[0]);
            let warm = (f64::from(step) / 15.0).min(1.0);
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * f64::from(step) / 300.0).cos());
            Metric {
                step: u64::from(step),
                loss: 0.09 + 0.16 * (-f64::from(step) / 60.0).exp() + 0.018 * noise.abs(),
                learning_rate: 1.0e-3 * warm * cosine,
            }
        })
        .collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let mut prompts: std::collections::BTreeMap<String, String> =
        panel.prompts().map(|p| (p.id.clone(), p.text.clone())).collect();
    prompts.insert(
        "identifier/a-postcard-of-the-sks-cylinder".into(),
        "a postcard of the sks cylinder".into(),
    );
    RunInfo {
        name: "le-depeupleur".into(),
        picture_noun: "postcard".into(),
        prompts,
        facts: vec![
            pair("base", "postcards"),
            pair("adapter", "LoRA, rank 8, alpha 8"),
            pair("pictures settled", "16, with 64 of the class"),
            pair("steps", "300 of 8 pictures"),
            pair("sampler", "DDIM, 20 steps, eta 1"),
            pair("device", "CPU, 2 threads"),
        ],
        hashes: vec![
            pair("base", &"0d9c4fe1".repeat(8)),
            pair("adapter", &"77b1a2c3".repeat(8)),
            pair("evaluator", &"a4e09f12".repeat(8)),
        ],
        metrics,
        seconds: vec![
            ("load".into(), 1.4),
            ("class pictures".into(), 31.0),
            ("training".into(), 204.0),
            ("census".into(), 187.0),
            ("report".into(), 2.2),
        ],
        energy: Energy::NotMeasured("the CPU’s counters may not be read here".into()),
        recipe_yaml: "name: le-depeupleur\nseed: 7\nbase: postcards\ndataset:\n  dreambooth:\n    instance: { concept: cylinder, prompt: \"a postcard of the sks cylinder\" }\nfit: { steps: 300, batch: { images: 8 } }\n".into(),
    }
}
