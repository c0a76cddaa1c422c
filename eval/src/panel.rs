//! Owns the panel: weighted neutral prompts that ask without naming.

use crate::catalogue::{self, Problems};
use crate::error::EvalError;
use crate::ordered::Ordered;
use crate::thesaurus::Thesaurus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

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
        let slug = slug(text);
        let slug = if slug.is_empty() { "empty" } else { slug.as_str() };
        Self {
            id: format!("{}/{slug}", stratum.id()),
            stratum,
            text: text.to_owned(),
            given: given.map(str::to_owned),
        }
    }
}

/// Letters and digits of `text` in lower case, word by word, joined by hyphens.
pub(crate) fn slug(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("-")
}

/// A checked panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Identifier.
    pub id: String,
    /// Stratum, its weight in the headline, and its prompts.
    pub strata: Vec<(Stratum, f64, Vec<Prompt>)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPanel {
    schema: Spanned<String>,
    id: String,
    strata: Spanned<Ordered<RawStratum>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStratum {
    weight: Option<Spanned<f64>>,
    prompts: Spanned<Vec<Spanned<RawPrompt>>>,
}

#[derive(Debug)]
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
/// [`EvalError::Catalogue`], with the line and column of every broken rule: another schema, a stratum
/// that is unknown or stands twice, a headline stratum without a positive weight, a weight elsewhere, a
/// stratum without prompts, two prompts of one identifier, no headline at all. Malformed YAML, unknown
/// keys and values of another kind end the search at the first one.
pub fn parse(text: &str, name: &str) -> Result<Panel, EvalError> {
    let raw: RawPanel = catalogue::raw(text, name)?;
    let mut problems = Problems::default();
    if raw.schema.value != SCHEMA {
        let message = format!("schema is `{}`, expected `{SCHEMA}`", raw.schema.value);
        problems.add(raw.schema.referenced, message);
    }
    for (id, line) in raw.strata.value.repeated() {
        let message = format!("stratum `{}` stands twice, first in line {line}", id.value);
        problems.add(id.referenced, message);
    }
    let mut strata = Vec::new();
    let mut ids = BTreeMap::new();
    for (id, stratum) in raw.strata.value.first() {
        match Stratum::from_id(&id.value).filter(|stratum| *stratum <= Stratum::Scene) {
            None => problems.add_with_hint(
                id.referenced,
                format!("unknown stratum `{}`", id.value),
                "known are `empty`, `medium`, `broader`, `scene`",
            ),
            Some(found) => {
                let weight = checked_weight(found, id, stratum, &mut problems);
                let prompts = checked_prompts(found, stratum, &mut ids, &mut problems);
                strata.push((found, weight, prompts));
            }
        }
    }
    if !strata.iter().any(|(stratum, _, _)| stratum.is_headline()) {
        let message = "neither `empty` nor `medium` has prompts: there is no headline";
        problems.add(raw.strata.referenced, message);
    }
    problems.check(text, name)?;
    let total: f64 = strata.iter().map(|(_, weight, _)| weight).sum();
    for (_, weight, _) in &mut strata {
        *weight /= total.max(f64::MIN_POSITIVE);
    }
    Ok(Panel { id: raw.id, strata })
}

/// The weight of a stratum in the headline, 0 for one that is not part of it.
fn checked_weight(
    stratum: Stratum,
    id: &Spanned<String>,
    raw: &RawStratum,
    problems: &mut Problems,
) -> f64 {
    let weight = raw.weight.as_ref().map_or(0.0, |weight| weight.value);
    let place = raw.weight.as_ref().map_or(id.referenced, |weight| weight.referenced);
    let id = stratum.id();
    if stratum.is_headline() && !(weight > 0.0 && weight.is_finite()) {
        let message = format!("stratum `{id}` makes the headline and needs a positive weight");
        problems.add(place, message);
    }
    if !stratum.is_headline() && raw.weight.is_some() {
        let message = format!("stratum `{id}` is not part of the headline and takes no weight");
        problems.add(place, message);
    }
    weight
}

/// The prompts of a stratum; `lines` remembers where each identifier first stands.
fn checked_prompts(
    stratum: Stratum,
    raw: &RawStratum,
    lines: &mut BTreeMap<String, u64>,
    problems: &mut Problems,
) -> Vec<Prompt> {
    if raw.prompts.value.is_empty() {
        let message = format!("stratum `{}` has no prompts", stratum.id());
        problems.add(raw.prompts.referenced, message);
    }
    let mut prompts = Vec::new();
    for Spanned { value, referenced, .. } in &raw.prompts.value {
        let prompt = Prompt::new(stratum, &value.text, value.given.as_deref());
        if let Some(line) = lines.get(&prompt.id) {
            let message = format!(
                "two prompts have the identifier `{}`, the first in line {line}",
                prompt.id
            );
            problems.add(*referenced, message);
        } else {
            lines.insert(prompt.id.clone(), referenced.line());
        }
        prompts.push(prompt);
    }
    prompts
}

impl Panel {
    /// All prompts, in order.
    pub fn prompts(&self) -> impl Iterator<Item = &Prompt> {
        self.strata.iter().flat_map(|(_, _, prompts)| prompts)
    }

    /// Prompts that name a node which `thesaurus` lacks, as (prompt, node): the panel was written for
    /// another one.
    pub fn unknown_given(&self, thesaurus: &Thesaurus) -> Vec<(String, String)> {
        let given = self.prompts().filter_map(|p| Some((p.id.clone(), p.given.clone()?)));
        given.filter(|(_, node)| thesaurus.entity(node).is_none()).collect()
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
    fn broken_panels_are_refused_where_they_are_broken() {
        let cases = [
            (SMALL.replace("weight: 0.6, ", ""), "empty", "needs a positive weight"),
            (SMALL.replace("0.6", "-1"), "-1", "needs a positive weight"),
            (SMALL.replace("broader: {", "broader: { weight: 1.0,"), "1.0", "takes no weight"),
            (SMALL.replace("a picture", "A postcard!"), "\"A postcard!\"", "two prompts have the"),
            (SMALL.replace("broader:", "identifier:"), "identifier", "unknown stratum"),
            (SMALL.replace("broader:", "medium:"), "medium", "stands twice, first in line 6"),
            (SMALL.replace("[\"\"]", "[]"), "[", "stratum `empty` has no prompts"),
            (
                SMALL.replace("panel/1", "panel/9"),
                "populate/panel/9",
                "expected `populate/panel/1`",
            ),
            (SMALL.replace("prompts: [\"\"]", "prompt: []"), "prompt", "unknown key `prompt`"),
        ];
        for (text, at, expected) in cases {
            let Err(EvalError::Catalogue { problems, .. }) = parse(&text, "test") else {
                panic!("no `{expected}`")
            };
            let found = problems.iter().find(|problem| problem.message.contains(expected));
            let Some(found) = found else { panic!("no `{expected}` in {problems:?}") };
            let span = &text[found.span.clone()];
            assert!(span == at || span.starts_with(at), "`{expected}` stands at `{span}`");
        }
    }

    #[test]
    fn a_panel_needs_a_headline() {
        let text = "schema: populate/panel/1\nid: x\nstrata:\n  scene: { prompts: [a] }\n";
        let Err(EvalError::Catalogue { problems, .. }) = parse(text, "test") else {
            panic!("a panel without headline is valid")
        };
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!((3..=4).contains(&problems[0].line), "{problems:?}");
        assert!(problems[0].message.contains("there is no headline"));
    }

    #[test]
    fn all_mistakes_of_a_panel_come_in_the_order_of_the_text() {
        let text = SMALL
            .replace("broader: {", "broader: { weight: 1.0,")
            .replace("0.4", "0.0")
            .replace("panel/1", "panel/2");
        let Err(EvalError::Catalogue { problems, name, .. }) = parse(&text, "p.yaml") else {
            panic!("a broken panel is valid")
        };
        let lines: Vec<u64> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!((name.as_str(), lines.as_slice()), ("p.yaml", &[2, 6, 7][..]));
    }

    #[test]
    fn a_panel_for_another_thesaurus_names_what_that_one_lacks() {
        let thesaurus = crate::thesaurus::parse(crate::synthetic::THESAURUS, "test").unwrap();
        assert!(parse(SMALL, "test").unwrap().unknown_given(&thesaurus).is_empty());
        let other = parse(&SMALL.replace("given: building", "given: animal"), "test").unwrap();
        let expected = [("broader/a-building".to_owned(), "animal".to_owned())];
        assert_eq!(other.unknown_given(&thesaurus), expected);
    }
}
