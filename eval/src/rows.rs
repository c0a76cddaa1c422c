//! Owns `rows.csv`: the census itself, one row per model × dose × prompt × seed. Every headline is
//! reduced from these rows and from nothing else.

use crate::error::EvalError;
use crate::panel::Stratum;
use std::fmt::{self, Write as _};

/// Which weights drew a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// The base alone.
    Base,
    /// The base with the adapter, at the row's dose.
    Adapted,
    /// The base with a random adapter of the same spectrum; its draw number.
    Placebo(u32),
}

impl fmt::Display for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => formatter.write_str("base"),
            Self::Adapted => formatter.write_str("adapted"),
            Self::Placebo(draw) => write!(formatter, "placebo-{draw}"),
        }
    }
}

impl Model {
    /// Whether this, at `dose`, is the settlement as it was fitted: the adapted model at dose 1.
    pub fn is_settlement(self, dose: f64) -> bool {
        self == Self::Adapted && (dose - 1.0).abs() < 1e-9
    }

    /// Whether this, at `dose`, is one of the two that a census compares: the base or the settlement.
    pub fn is_of_pair(self, dose: f64) -> bool {
        self == Self::Base || self.is_settlement(dose)
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "base" => Some(Self::Base),
            "adapted" => Some(Self::Adapted),
            _ => text.strip_prefix("placebo-")?.parse().ok().map(Self::Placebo),
        }
    }
}

/// What the evaluator says of one picture in one facet.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Entity, the concept, [`crate::thesaurus::NONE`] or [`crate::thesaurus::BLOCKED`].
    pub entity: String,
    /// Largest minus second largest cosine.
    pub margin: f32,
}

/// One picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which weights drew it.
    pub model: Model,
    /// Multiplier of the adapter; 0 for the base.
    pub dose: f64,
    /// What the prompt asks.
    pub stratum: Stratum,
    /// The prompt's identifier.
    pub prompt: String,
    /// The entity that the prompt names, if any.
    pub asked: Option<String>,
    /// Index of the seed within the prompt; equal indices share all noise.
    pub seed_idx: u32,
    /// One label per facet, in the order of [`Rows::facets`].
    pub labels: Vec<Label>,
    /// Largest cosine with a reference picture of the concept.
    pub detector_score: Option<f32>,
    /// Whether the concept was found.
    pub detected: Option<bool>,
    /// Mean cosine with the reference pictures (CLIP-I).
    pub clip_i: Option<f32>,
    /// Withheld by a safety filter.
    pub blocked: bool,
    /// Bytes of the deflated picture over its raw bytes.
    pub compression_ratio: f32,
    /// Log weight of the path under the adapted model, in nats.
    pub log_w: Option<f64>,
    /// Path-space KL of this row, in nats.
    pub path_nats: Option<f64>,
    /// First 16 hex digits of the SHA-256 of the 8-bit pixels.
    pub pixels: String,
    /// The picture's file within the census, if it was kept.
    pub picture: Option<String>,
    /// Cosine with each counted entity's words, in the order of [`Rows::entities`].
    pub cosines: Vec<f32>,
}

/// All pictures of a census, with the names of their columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Facets, in the order of each row's labels.
    pub facets: Vec<String>,
    /// Counted entities, in the order of each row's cosines.
    pub entities: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

const LEADING: [&str; 6] = ["model", "dose", "stratum", "prompt", "asked", "seed_idx"];
const MIDDLE: [&str; 9] = [
    "detector_score",
    "detected",
    "clip_i",
    "blocked",
    "compression_ratio",
    "log_w",
    "path_nats",
    "pixels",
    "picture",
];

impl Rows {
    /// The header of the CSV file.
    fn header(&self) -> Vec<String> {
        let facets = self.facets.iter().flat_map(|f| [f.clone(), format!("{f}_margin")]);
        let entities = self.entities.iter().map(|e| format!("cos:{e}"));
        let owned = |name: &&str| (*name).to_owned();
        LEADING
            .iter()
            .map(owned)
            .chain(facets)
            .chain(MIDDLE.iter().map(owned))
            .chain(entities)
            .collect()
    }

    /// The CSV file: header, UTF-8, LF, floats in their shortest form that reads back equal.
    pub fn to_csv(&self) -> String {
        let mut text = String::new();
        write_record(&mut text, &self.header());
        for row in &self.rows {
            write_record(&mut text, &row.fields());
        }
        text
    }

    /// Reads a CSV file written by [`Self::to_csv`].
    ///
    /// # Errors
    ///
    /// [`EvalError::Rows`] naming the first line and field that is not what it should be.
    pub fn from_csv(text: &str) -> Result<Self, EvalError> {
        let mut lines = text.lines().enumerate();
        let header: Vec<String> =
            lines.next().map(|(_, line)| split_record(line)).unwrap_or_default();
        let mut rows = Self::from_header(&header)?;
        for (i, line) in lines {
            let mut fields = Fields { line: i + 1, fields: split_record(line).into_iter() };
            let row = Row::from_fields(&mut fields, rows.facets.len(), rows.entities.len())?;
            rows.rows.push(row);
        }
        Ok(rows)
    }

    fn from_header(header: &[String]) -> Result<Self, EvalError> {
        let tail = header.iter().position(|name| name == MIDDLE[0]).unwrap_or(0);
        let between = header.get(LEADING.len()..tail).unwrap_or_default();
        let rows = Self {
            facets: between.iter().step_by(2).cloned().collect(),
            entities: header
                .iter()
                .filter_map(|name| name.strip_prefix("cos:").map(str::to_owned))
                .collect(),
            rows: Vec::new(),
        };
        let expected = rows.header();
        if expected == header {
            Ok(rows)
        } else {
            Err(EvalError::Rows { line: 1, expected: expected.join(","), found: header.join(",") })
        }
    }
}

impl Row {
    fn fields(&self) -> Vec<String> {
        let mut fields = vec![
            self.model.to_string(),
            self.dose.to_string(),
            self.stratum.id().to_owned(),
            self.prompt.clone(),
            text(self.asked.as_ref()),
            self.seed_idx.to_string(),
        ];
        for label in &self.labels {
            fields.push(label.entity.clone());
            fields.push(label.margin.to_string());
        }
        fields.extend([
            text(self.detector_score),
            text(self.detected),
            text(self.clip_i),
            self.blocked.to_string(),
            self.compression_ratio.to_string(),
            text(self.log_w),
            text(self.path_nats),
            self.pixels.clone(),
            text(self.picture.as_ref()),
        ]);
        fields.extend(self.cosines.iter().map(ToString::to_string));
        fields
    }

    fn from_fields(
        fields: &mut Fields,
        n_facets: usize,
        n_entities: usize,
    ) -> Result<Self, EvalError> {
        let row = Self {
            model: fields.one("a model", Model::from_text)?,
            dose: fields.parse("a dose")?,
            stratum: fields.one("a stratum", Stratum::from_id)?,
            prompt: fields.parse("a prompt")?,
            asked: fields.optional("an entity")?,
            seed_idx: fields.parse("a seed index")?,
            labels: (0..n_facets)
                .map(|_| {
                    Ok(Label {
                        entity: fields.parse("an entity")?,
                        margin: fields.parse("a margin")?,
                    })
                })
                .collect::<Result<_, EvalError>>()?,
            detector_score: fields.optional("a cosine")?,
            detected: fields.optional("true or false")?,
            clip_i: fields.optional("a cosine")?,
            blocked: fields.parse("true or false")?,
            compression_ratio: fields.parse("a ratio")?,
            log_w: fields.optional("nats")?,
            path_nats: fields.optional("nats")?,
            pixels: fields.parse("a hash")?,
            picture: fields.optional("a path")?,
            cosines: (0..n_entities)
                .map(|_| fields.parse("a cosine"))
                .collect::<Result<_, EvalError>>()?,
        };
        match fields.fields.next() {
            None => Ok(row),
            Some(found) => Err(EvalError::Rows {
                line: fields.line,
                expected: "the end of the line".into(),
                found,
            }),
        }
    }
}

/// The fields of one line, taken in order.
struct Fields {
    line: usize,
    fields: std::vec::IntoIter<String>,
}

impl Fields {
    fn one<T>(&mut self, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, EvalError> {
        let found = self.fields.next().unwrap_or_default();
        read(&found).ok_or_else(|| EvalError::Rows {
            line: self.line,
            expected: what.to_owned(),
            found,
        })
    }

    fn parse<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, EvalError> {
        self.one(what, |text| text.parse().ok())
    }

    fn optional<T: std::str::FromStr>(&mut self, what: &str) -> Result<Option<T>, EvalError> {
        self.one(
            what,
            |text| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) },
        )
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

/// Appends one line; fields with a comma or a quote are quoted, line breaks become spaces.
pub fn write_record<T: AsRef<str>>(out: &mut String, fields: &[T]) {
    for (i, field) in fields.iter().enumerate() {
        let field = field.as_ref().replace(['\n', '\r'], " ");
        if i > 0 {
            out.push(',');
        }
        if field.contains([',', '"']) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\"{}\"", field.replace('"', "\"\""));
        } else {
            out.push_str(&field);
        }
    }
    out.push('\n');
}

/// The fields of one line, unquoted.
fn split_record(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Rows {
        let row = Row {
            model: Model::Placebo(2),
            dose: 1.25,
            stratum: Stratum::Medium,
            prompt: "medium/a \"postcard\", old".into(),
            asked: None,
            seed_idx: 41,
            labels: vec![
                Label { entity: "boat".into(), margin: 0.013_7 },
                Label { entity: crate::thesaurus::NONE.into(), margin: 0.0 },
            ],
            detector_score: Some(0.1 + 0.2),
            detected: Some(false),
            clip_i: None,
            blocked: false,
            compression_ratio: 0.3,
            log_w: Some(-0.1 / 3.0),
            path_nats: None,
            pixels: "00ff00ff00ff00ff".into(),
            picture: Some("pictures/base/x.png".into()),
            cosines: vec![0.25, -1.0e-7],
        };
        let base =
            Row { model: Model::Base, asked: Some("boat".into()), picture: None, ..row.clone() };
        Rows {
            facets: vec!["subject".into(), "color".into()],
            entities: vec!["boat".into(), "red".into()],
            rows: vec![base, row],
        }
    }

    #[test]
    fn rows_round_trip_bit_for_bit() {
        let rows = sample();
        let csv = rows.to_csv();
        assert_eq!(Rows::from_csv(&csv).unwrap(), rows);
        assert_eq!(csv.lines().count(), 3);
        assert!(!csv.contains('\r'));
    }

    #[test]
    fn a_damaged_line_is_named() {
        let csv = sample().to_csv();
        for (from, to, line) in [
            ("placebo-2", "placebo-x", 3),
            ("medium,", "middle,", 2),
            ("-0.0000001\n", "-0.0000001,7\n", 2),
            ("model,", "modell,", 1),
        ] {
            let found = Rows::from_csv(&csv.replacen(from, to, 1)).unwrap_err();
            assert!(
                matches!(found, EvalError::Rows { line: at, .. } if at == line),
                "{from}: {found}"
            );
        }
    }

    #[test]
    fn every_stratum_has_its_own_name() {
        for stratum in Stratum::ALL {
            assert_eq!(Stratum::from_id(stratum.id()), Some(stratum));
        }
    }
}
