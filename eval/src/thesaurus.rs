//! Owns the thesaurus: the tree of things a picture may bear, one counted entity per facet. Reading
//! and checking only; who bears what is the evaluator's business.

use crate::error::EvalError;
use crate::ordered::Ordered;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The schema that thesaurus files name.
pub const SCHEMA: &str = "populate/thesaurus/1";
/// Label of a picture that bears none of a facet's entities.
pub const NONE: &str = "∅";
/// Label of a picture that a safety filter withheld; counted, never dropped.
pub const BLOCKED: &str = "∅:blocked";

/// One axis of the thesaurus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facet {
    /// Identifier, such as `subject`.
    pub id: String,
    /// Whether a picture may bear none of the facet's entities.
    pub none: bool,
}

/// Whether pictures are counted under an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// They are.
    Counted,
    /// It only gathers narrower ones.
    Inner,
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Identifier, unique in the thesaurus.
    pub id: String,
    /// The facet it belongs to.
    pub facet: String,
    /// Whether pictures are counted under it.
    pub node: Node,
    /// The entity it is a kind of.
    pub broader: Option<String>,
    /// Entities that tend to come with it.
    pub related: Vec<String>,
    /// Whether it is one of the stock motifs.
    pub motif: bool,
    /// Phrase used when the entity is named in a prompt.
    pub ask: Option<String>,
    /// Its published share in the base's training world, where that is known.
    pub prior: Option<f64>,
    /// Label per language.
    pub label: BTreeMap<String, String>,
    /// Further names per language.
    pub synonyms: BTreeMap<String, Vec<String>>,
}

impl Entity {
    /// The English label, else any, else the identifier.
    pub fn name(&self) -> &str {
        self.label.get("en").or_else(|| self.label.values().next()).unwrap_or(&self.id)
    }

    /// The phrase that names it: `ask`, else its name.
    pub fn phrase(&self) -> &str {
        self.ask.as_deref().unwrap_or_else(|| self.name())
    }
}

/// A checked thesaurus, in the order of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Thesaurus {
    /// Identifier.
    pub id: String,
    /// Languages of the labels.
    pub languages: Vec<String>,
    /// Facets.
    pub facets: Vec<Facet>,
    /// Entities.
    pub entities: Vec<Entity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThesaurus {
    schema: String,
    id: String,
    languages: Vec<String>,
    facets: Ordered<RawFacet>,
    entities: Ordered<RawEntity>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFacet {
    #[serde(default)]
    none: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntity {
    facet: Option<String>,
    counted: Option<bool>,
    broader: Option<String>,
    #[serde(default)]
    related: Vec<String>,
    #[serde(default)]
    motif: bool,
    ask: Option<String>,
    prior: Option<f64>,
    #[serde(default)]
    label: BTreeMap<String, String>,
    #[serde(default)]
    synonyms: BTreeMap<String, Vec<String>>,
}

/// Reads and checks a thesaurus; `name` is its file or its name, for messages.
///
/// # Errors
///
/// [`EvalError::Syntax`] for malformed YAML, [`EvalError::Invalid`] with every broken rule: another
/// schema, a cycle, an unknown or cross-facet `broader`, a missing or unknown facet, an unknown
/// `related`, a missing label, a label repeated within language and facet, a reserved identifier.
pub fn parse(text: &str, name: &str) -> Result<Thesaurus, EvalError> {
    let raw: RawThesaurus = serde_saphyr::from_str(text)
        .map_err(|source| EvalError::Syntax { name: name.into(), source: Box::new(source) })?;
    let mut problems = Vec::new();
    if raw.schema != SCHEMA {
        problems.push(format!("schema is `{}`, expected `{SCHEMA}`", raw.schema));
    }
    let thesaurus = Thesaurus {
        id: raw.id,
        languages: raw.languages,
        facets: raw.facets.0.into_iter().map(|(id, f)| Facet { id, none: f.none }).collect(),
        entities: raw.entities.0.into_iter().map(entity).collect(),
    };
    thesaurus.check_entities(&mut problems);
    thesaurus.check_tree(&mut problems);
    thesaurus.check_labels(&mut problems);
    if problems.is_empty() {
        Ok(thesaurus)
    } else {
        Err(EvalError::Invalid { name: name.into(), problems })
    }
}

fn entity((id, raw): (String, RawEntity)) -> Entity {
    Entity {
        id,
        facet: raw.facet.unwrap_or_default(),
        node: if raw.counted == Some(false) { Node::Inner } else { Node::Counted },
        broader: raw.broader,
        related: raw.related,
        motif: raw.motif,
        ask: raw.ask,
        prior: raw.prior,
        label: raw.label,
        synonyms: raw.synonyms,
    }
}

impl Thesaurus {
    /// The entity of this identifier.
    pub fn entity(&self, id: &str) -> Option<&Entity> {
        self.entities.iter().find(|entity| entity.id == id)
    }

    /// The counted entities of a facet, in thesaurus order.
    pub fn counted<'a>(&'a self, facet: &'a str) -> impl Iterator<Item = &'a Entity> {
        self.entities
            .iter()
            .filter(move |entity| entity.node == Node::Counted && entity.facet == facet)
    }

    /// All counted entities, in thesaurus order.
    pub fn all_counted(&self) -> impl Iterator<Item = &Entity> {
        self.entities.iter().filter(|entity| entity.node == Node::Counted)
    }

    /// The counted entities that share `class`'s broader entity, without `class` itself.
    pub fn siblings<'a>(&'a self, class: &'a str) -> Vec<&'a Entity> {
        let broader = self.entity(class).and_then(|entity| entity.broader.as_deref());
        self.all_counted()
            .filter(|e| e.id != class && broader.is_some() && e.broader.as_deref() == broader)
            .collect()
    }

    /// Labels that stand as a word within another label of the same language and facet: a text
    /// encoder may confuse the two. Worth a warning, not an error.
    pub fn nested_labels(&self) -> Vec<(String, String)> {
        let mut nested = Vec::new();
        for a in self.all_counted() {
            for b in self.all_counted().filter(|b| b.id != a.id && b.facet == a.facet) {
                let within = a.label.iter().any(|(language, label)| {
                    b.label
                        .get(language)
                        .is_some_and(|other| other.split_whitespace().any(|word| word == label))
                });
                if within {
                    nested.push((a.id.clone(), b.id.clone()));
                }
            }
        }
        nested
    }

    fn check_entities(&self, problems: &mut Vec<String>) {
        for entity in &self.entities {
            let id = &entity.id;
            if id.starts_with('∅') || id.contains([',', '"', ':', '\n']) {
                problems
                    .push(format!("`{id}` cannot be an identifier: it may not hold `∅ , : \"`"));
            }
            if entity.facet.is_empty() {
                problems.push(format!("`{id}` names no facet"));
            } else if !self.facets.iter().any(|facet| facet.id == entity.facet) {
                problems.push(format!("`{id}` names the unknown facet `{}`", entity.facet));
            }
            if entity.prior.is_some_and(|prior| !(0.0..=1.0).contains(&prior)) {
                problems.push(format!("the prior of `{id}` is not within 0 and 1"));
            }
            for related in &entity.related {
                if self.entity(related).is_none() {
                    problems.push(format!("`{id}` is related to the unknown `{related}`"));
                }
            }
        }
        for facet in &self.facets {
            if self.counted(&facet.id).next().is_none() {
                problems.push(format!("facet `{}` has no counted entity", facet.id));
            }
        }
    }

    fn check_tree(&self, problems: &mut Vec<String>) {
        for entity in &self.entities {
            let mut seen = BTreeSet::from([entity.id.as_str()]);
            let mut at = entity;
            while let Some(broader) = &at.broader {
                let Some(next) = self.entity(broader) else {
                    problems.push(format!("`{}` has the unknown broader `{broader}`", at.id));
                    break;
                };
                if next.facet != at.facet {
                    problems.push(format!(
                        "`{}` is of facet `{}`, its broader `{broader}` of `{}`",
                        at.id, at.facet, next.facet
                    ));
                }
                if !seen.insert(next.id.as_str()) {
                    problems.push(format!(
                        "`{}` is broader than itself, by way of `{}`",
                        next.id, at.id
                    ));
                    break;
                }
                at = next;
            }
        }
        problems.sort();
        problems.dedup();
    }

    fn check_labels(&self, problems: &mut Vec<String>) {
        let mut seen: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
        for entity in &self.entities {
            for language in &self.languages {
                if !entity.label.contains_key(language) {
                    problems.push(format!("`{}` has no label in `{language}`", entity.id));
                }
            }
            for (language, label) in &entity.label {
                let key = (language.as_str(), entity.facet.as_str(), label.as_str());
                if let Some(other) = seen.insert(key, &entity.id) {
                    problems.push(format!(
                        "`{other}` and `{}` are both labelled `{label}` in `{language}`",
                        entity.id
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::THESAURUS as SMALL;

    fn problems(text: &str) -> Vec<String> {
        match parse(text, "test") {
            Err(EvalError::Invalid { problems, .. }) => problems,
            other => panic!("expected problems, found {other:?}"),
        }
    }

    #[test]
    fn order_of_the_file_is_kept() {
        let thesaurus = parse(SMALL, "test").unwrap();
        let ids: Vec<_> = thesaurus.counted("subject").map(|e| e.id.as_str()).collect();
        assert_eq!(ids, ["tower", "house", "boat"]);
        assert_eq!(thesaurus.facets[0], Facet { id: "subject".into(), none: true });
        assert_eq!(thesaurus.entity("tower").unwrap().phrase(), "a tower");
        assert_eq!(thesaurus.entity("boat").unwrap().phrase(), "boat");
        let siblings: Vec<_> = thesaurus.siblings("tower").iter().map(|e| e.id.clone()).collect();
        assert_eq!(siblings, ["house"]);
        assert!(thesaurus.siblings("boat").is_empty());
    }

    #[test]
    fn a_cycle_is_found() {
        let text = SMALL.replace("counted: false,", "counted: false, broader: tower,");
        assert!(problems(&text).iter().any(|p| p.contains("broader than itself")));
    }

    #[test]
    fn every_broken_rule_is_told_at_once() {
        let text = SMALL
            .replace("broader: building, ask", "broader: castle, ask")
            .replace("facet: color, label: { en: blue", "label: { en: blue")
            .replace("fr: maison", "fr: tour");
        let found = problems(&text);
        assert!(found.iter().any(|p| p.contains("unknown broader `castle`")), "{found:?}");
        assert!(found.iter().any(|p| p.contains("`blue` names no facet")), "{found:?}");
        assert!(found.iter().any(|p| p.contains("both labelled `tour`")), "{found:?}");
    }

    #[test]
    fn broader_may_not_cross_facets() {
        let text = SMALL.replace("red: { facet: color,", "red: { facet: color, broader: building,");
        assert!(problems(&text).iter().any(|p| p.contains("its broader `building` of `subject`")));
    }

    #[test]
    fn typos_and_repeats_are_syntax_errors() {
        for text in [
            SMALL.replace("broader: building, ask", "brooder: building, ask"),
            format!("{SMALL}  red: {{ facet: color, label: {{ en: r, fr: r }} }}\n"),
        ] {
            assert!(matches!(parse(&text, "test"), Err(EvalError::Syntax { .. })));
        }
    }

    #[test]
    fn a_label_within_another_is_noted() {
        let text = SMALL.replace("en: house", "en: tower house");
        let thesaurus = parse(&text, "test").unwrap();
        assert_eq!(thesaurus.nested_labels(), [("tower".to_owned(), "house".to_owned())]);
    }
}
