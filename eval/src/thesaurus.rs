//! Owns the thesaurus: the tree of things a picture may bear, one counted entity per facet. Reading
//! and checking only; who bears what is the evaluator's business.

mod check;
mod labels;
mod raw;
mod tree;

use crate::catalogue::{self, Problems};
use crate::error::EvalError;
use raw::{RawEntity, RawThesaurus};
use recipes::Problem;
use std::collections::BTreeMap;

pub use labels::{NEAR, near_labels};
pub(crate) use tree::cycles;

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
    /// What a published vocabulary calls it, such as the Iconclass notation `48C1`.
    pub notation: Option<String>,
    /// The IRI of the concept that it was imported from.
    pub source: Option<String>,
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

/// Reads and checks a thesaurus; `name` is its file or its name, for messages.
///
/// # Errors
///
/// As [`check`].
pub fn parse(text: &str, name: &str) -> Result<Thesaurus, EvalError> {
    Ok(check(text, name)?.0)
}

/// Reads and checks a thesaurus, and notes what is worth a second look: a label that stands as a word
/// within another. `name` is its file or its name, for messages.
///
/// # Errors
///
/// [`EvalError::Catalogue`], with the line and column of every broken rule: another schema, an
/// identifier that stands twice or is reserved, a missing or unknown facet, an unknown or cross-facet
/// `broader`, a cycle, an unknown `related`, a missing or repeated label, priors that are no shares.
/// Malformed YAML, unknown keys and values of another kind end the search at the first one.
pub fn check(text: &str, name: &str) -> Result<(Thesaurus, Vec<Problem>), EvalError> {
    let raw: RawThesaurus = catalogue::raw(text, name)?;
    let mut problems = Problems::default();
    check::check(&raw, &mut problems);
    problems.check(text, name)?;
    let warnings = labels::nested_in(&raw).in_order(text);
    Ok((thesaurus(raw), warnings))
}

/// What a raw thesaurus that keeps all rules means.
fn thesaurus(raw: RawThesaurus) -> Thesaurus {
    let facets = raw.facets.0.into_iter();
    Thesaurus {
        id: raw.id,
        languages: raw.languages.value,
        facets: facets.map(|(id, facet)| Facet { id: id.value, none: facet.none }).collect(),
        entities: raw.entities.0.into_iter().map(|(id, raw)| entity(id.value, raw)).collect(),
    }
}

fn entity(id: String, raw: RawEntity) -> Entity {
    let label = raw.label.0.into_iter().map(|(language, label)| (language.value, label.value));
    let synonyms = raw.synonyms.0.into_iter().map(|(language, names)| (language.value, names));
    Entity {
        id,
        node: if raw.counted == Some(false) { Node::Inner } else { Node::Counted },
        facet: raw.facet.map(|facet| facet.value).unwrap_or_default(),
        broader: raw.broader.map(|broader| broader.value),
        related: raw.related.into_iter().map(|related| related.value).collect(),
        motif: raw.motif,
        ask: raw.ask,
        prior: raw.prior.map(|prior| prior.value),
        label: label.collect(),
        synonyms: synonyms.collect(),
        notation: raw.notation,
        source: raw.source,
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

    /// The counted stock motifs of a facet, in thesaurus order.
    pub fn motifs<'a>(&'a self, facet: &'a str) -> impl Iterator<Item = &'a Entity> {
        self.counted(facet).filter(|entity| entity.motif)
    }

    /// The counted entities that share `class`'s broader entity, without `class` itself.
    pub fn siblings<'a>(&'a self, class: &'a str) -> Vec<&'a Entity> {
        let broader = self.entity(class).and_then(|entity| entity.broader.as_deref());
        self.all_counted()
            .filter(|e| e.id != class && broader.is_some() && e.broader.as_deref() == broader)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::THESAURUS as SMALL;

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
    fn every_key_is_read() {
        let text = SMALL.replace(
            "boat: { facet: subject,",
            "boat: { facet: subject, related: [tower], motif: true, notation: 48C1, \
             source: 'http://example.org/boat',",
        );
        let thesaurus = parse(&text, "test").unwrap();
        let boat = thesaurus.entity("boat").unwrap();
        assert_eq!((boat.related.as_slice(), boat.motif), (&["tower".to_owned()][..], true));
        assert_eq!(boat.notation.as_deref(), Some("48C1"));
        assert_eq!(boat.source.as_deref(), Some("http://example.org/boat"));
        assert_eq!(boat.synonyms["en"], ["ship"]);
        assert_eq!(boat.label["fr"], "bateau");
        assert_eq!(thesaurus.entity("building").unwrap().node, Node::Inner);
        assert_eq!(thesaurus.entity("house").unwrap().prior, Some(0.2));
    }

    #[test]
    fn motifs_are_counted_entities_of_their_facet() {
        let text = SMALL
            .replace("tower: { facet: subject,", "tower: { facet: subject, motif: true,")
            .replace("building: { facet: subject,", "building: { facet: subject, motif: true,")
            .replace("red: { facet: color,", "red: { facet: color, motif: true,");
        let thesaurus = parse(&text, "test").unwrap();
        let motifs = |facet| thesaurus.motifs(facet).map(|e| e.id.clone()).collect::<Vec<_>>();
        assert_eq!(motifs("subject"), ["tower"]);
        assert_eq!(motifs("color"), ["red"]);
    }
}
