//! Owns the panel: weighted neutral prompts that ask without naming.

use crate::error::EvalError;
use crate::ordered::Ordered;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The schema that panel files name.
pub const SCHEMA: &str = "populate/panel/1";

/// What a prompt asks, from nothing at all to the concept by name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stratum {
    /// The empty prompt.
    Empty,
    /// A medium without content: "a photo".
    Medium,
    /// An inner node of the thesaurus: "an animal".
    Broader,
    /// An open scene: "something on a table".
    Scene,
    /// Leak ladder: with the identifier.
    Identifier,
    /// Leak ladder: the same prompts without the identifier.
    Plain,
    /// Leak ladder: siblings of the concept's class.
    Sibling,
    /// Leak ladder: unrelated entities.
    Unrelated,
    /// Entities asked by name.
    Asked,
}

impl Stratum {
    /// All strata, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Empty,
        Self::Medium,
        Self::Broader,
        Self::Scene,
        Self::Identifier,
        Self::Plain,
        Self::Sibling,
        Self::Unrelated,
        Self::Asked,
    ];

    /// Name in files.
    pub fn id(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Medium => "medium",
            Self::Broader => "broader",
            Self::Scene => "scene",
            Self::Identifier => "identifier",
            Self::Plain => "plain",
            Self::Sibling => "sibling",
            Self::Unrelated => "unrelated",
            Self::Asked => "asked",
        }
    }

    /// The stratum of this name.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stratum| stratum.id() == id)
    }

    /// Whether its pictures make the headline: unasked, with no content named.
    pub fn is_headline(self) -> bool {
        matches!(self, Self::Empty | Self::Medium)
    }
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Identifier `stratum/slug`, part of the noise key: adding prompts moves no other draw.
    pub id: String,
    /// Stratum it belongs to.
    pub stratum: Stratum,
    /// What is sent to the text encoder.
    pub text: String,
    /// The entity that it names, if it names one.
    pub given: Option<String>,
}

impl Prompt {
    /// A prompt whose identifier follows from its stratum and text.
    pub fn new(stratum: Stratum, text: &str, given: Option<&str>) -> Self {
        Self {
            id: format!("{}/{}", stratum.id(), slug(text)),
            stratum,
            text: text.to_owned(),
            given: given.map(str::to_owned),
        }
    }
}

/// Letters and digits of `text` in lower case, joined by hyphens; `empty` of nothing.
fn slug(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    if words.is_empty() { "empty".to_owned() } else { words.join("-") }
}

/// A checked panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Identifier.
    pub id: String,
    /// Stratum, its weight in the headline, and its prompts.
    pub strata: Vec<(Stratum, f64, Vec<Prompt>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPanel {
    schema: String,
    id: String,
    strata: Ordered<RawStratum>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStratum {
    weight: Option<f64>,
    prompts: Vec<RawPrompt>,
}

#[derive(Clone, Debug)]
struct RawPrompt {
    text: String,
    given: Option<String>,
}

impl<'de> Deserialize<'de> for RawPrompt {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;
        impl<'de> serde::de::Visitor<'de> for TextOrMap {
            type Value = RawPrompt;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a prompt, or `{ text: …, given: … }`")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawPrompt, E> {
                Ok(RawPrompt { text: text.to_owned(), given: None })
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<RawPrompt, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Full {
                    text: String,
                    given: Option<String>,
                }
                let full = Full::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(RawPrompt { text: full.text, given: full.given })
            }
        }
        deserializer.deserialize_any(TextOrMap)
    }
}

/// Reads and checks a panel; `name` is its file or its name, for messages.
///
/// # Errors
///
/// [`EvalError::Syntax`] for malformed YAML, [`EvalError::Invalid`] with every broken rule: another
/// schema, an unknown stratum, a headline stratum without a positive weight, a weight elsewhere, a
/// stratum without prompts, two prompts of one identifier.
pub fn parse(text: &str, name: &str) -> Result<Panel, EvalError> {
    let raw: RawPanel = serde_saphyr::from_str(text)
        .map_err(|source| EvalError::Syntax { name: name.into(), source: Box::new(source) })?;
    let mut problems = Vec::new();
    if raw.schema != SCHEMA {
        problems.push(format!("schema is `{}`, expected `{SCHEMA}`", raw.schema));
    }
    let mut strata = Vec::new();
    for (id, raw) in raw.strata.0 {
        match Stratum::from_id(&id).filter(|stratum| *stratum <= Stratum::Scene) {
            None => problems.push(format!("unknown stratum `{id}`")),
            Some(stratum) => strata.push(check_stratum(stratum, &raw, &mut problems)),
        }
    }
    if !strata.iter().any(|(stratum, _, _)| stratum.is_headline()) {
        problems.push("neither `empty` nor `medium` has prompts: there is no headline".into());
    }
    let total: f64 = strata.iter().map(|(_, weight, _)| weight).sum();
    for (_, weight, _) in &mut strata {
        *weight /= total.max(f64::MIN_POSITIVE);
    }
    let panel = Panel { id: raw.id, strata };
    let mut ids: Vec<&str> = panel.prompts().map(|prompt| prompt.id.as_str()).collect();
    ids.sort_unstable();
    for pair in ids.windows(2).filter(|pair| pair[0] == pair[1]) {
        problems.push(format!("two prompts have the identifier `{}`", pair[0]));
    }
    if problems.is_empty() {
        Ok(panel)
    } else {
        Err(EvalError::Invalid { name: name.into(), problems })
    }
}

fn check_stratum(
    stratum: Stratum,
    raw: &RawStratum,
    problems: &mut Vec<String>,
) -> (Stratum, f64, Vec<Prompt>) {
    let id = stratum.id();
    let weight = raw.weight.unwrap_or(0.0);
    if stratum.is_headline() && !(weight > 0.0 && weight.is_finite()) {
        problems.push(format!("stratum `{id}` makes the headline and needs a positive weight"));
    }
    if !stratum.is_headline() && raw.weight.is_some() {
        problems.push(format!("stratum `{id}` is not part of the headline and takes no weight"));
    }
    if raw.prompts.is_empty() {
        problems.push(format!("stratum `{id}` has no prompts"));
    }
    let prompts = raw
        .prompts
        .iter()
        .map(|prompt| Prompt::new(stratum, &prompt.text, prompt.given.as_deref()))
        .collect();
    (stratum, weight, prompts)
}

impl Panel {
    /// All prompts, in order.
    pub fn prompts(&self) -> impl Iterator<Item = &Prompt> {
        self.strata.iter().flat_map(|(_, _, prompts)| prompts)
    }

    /// Weight of a prompt in the headline: its stratum's, shared equally; 0 outside the headline.
    pub fn weight(&self, prompt_id: &str) -> f64 {
        self.strata
            .iter()
            .find(|(_, _, prompts)| prompts.iter().any(|prompt| prompt.id == prompt_id))
            .map_or(0.0, |(_, weight, prompts)| weight / statistics::number::real(prompts.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::PANEL as SMALL;

    #[test]
    fn weights_are_shared_within_a_stratum_and_sum_to_one() {
        let panel = parse(SMALL, "test").unwrap();
        assert!((panel.weight("empty/empty") - 0.6).abs() < 1e-12);
        assert!((panel.weight("medium/a-postcard") - 0.2).abs() < 1e-12);
        assert!(panel.weight("broader/a-building").abs() < 1e-12);
        let sum: f64 = panel.prompts().map(|prompt| panel.weight(&prompt.id)).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        let broader = panel.prompts().last().unwrap();
        assert_eq!(broader.given.as_deref(), Some("building"));
    }

    #[test]
    fn weights_are_normalised() {
        let panel = parse(&SMALL.replace("0.6", "3").replace("0.4", "1"), "test").unwrap();
        assert!((panel.weight("empty/empty") - 0.75).abs() < 1e-12);
    }

    #[test]
    fn broken_panels_are_refused() {
        let cases = [
            (SMALL.replace("weight: 0.6, ", ""), "needs a positive weight"),
            (SMALL.replace("broader: {", "broader: { weight: 1.0,"), "takes no weight"),
            (SMALL.replace("a picture", "A postcard!"), "two prompts have the identifier"),
            (SMALL.replace("broader:", "identifier:"), "unknown stratum"),
        ];
        for (text, expected) in cases {
            match parse(&text, "test") {
                Err(EvalError::Invalid { problems, .. }) => {
                    assert!(problems.iter().any(|p| p.contains(expected)), "{problems:?}");
                }
                other => panic!("expected `{expected}`, found {other:?}"),
            }
        }
    }
}
