//! Owns the import of vocabularies published as SKOS in Turtle, such as Iconclass or the Art &
//! Architecture Thesaurus, into our own thesaurus format.
//!
//! Understood are `skos:prefLabel`, `altLabel`, `broader`, `narrower`, `related`, `notation`, `inScheme`,
//! `topConceptOf` and `hasTopConcept`; everything else is passed over. Leaves of the tree are counted,
//! concepts with narrower ones only gather them. A vocabulary may say that a concept is a kind of
//! several others, our tree may not: the first is kept.
//!
//! Source: W3C, SKOS Simple Knowledge Organization System Reference, 2009.

mod graph;
mod names;
mod turtle;
mod write;

use crate::catalogue::{Problems, failed};
use crate::error::EvalError;
use crate::panel::slug;
use crate::thesaurus::{self, Thesaurus, cycles};
use graph::{Concept, Graph, Link};
use names::Named;
use recipes::Problem;
use std::collections::{BTreeMap, BTreeSet};
use turtle::{Place, local_name};

pub use turtle::MAX_BYTES;

/// Facet of concepts that belong to no scheme, where none is asked for.
const DEFAULT_FACET: &str = "subject";

/// What is taken of a vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What the thesaurus that is written is called; letters, digits and hyphens of it are kept.
    pub id: String,
    /// IRIs of the schemes whose concepts are taken; all concepts if there are none.
    pub schemes: Vec<String>,
    /// The facet that all concepts enter; a facet for each scheme if there is none.
    pub facet: Option<String>,
    /// Languages of the labels, such as `en`; those that name every concept if there are none.
    pub languages: Vec<String>,
}

/// A vocabulary in our format.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The thesaurus as a file.
    pub yaml: String,
    /// The same, read back.
    pub thesaurus: Thesaurus,
    /// What was left out or changed, with its place in the Turtle text.
    pub warnings: Vec<Problem>,
}

/// One entity to be written.
#[derive(Clone, Debug)]
struct Draft {
    id: String,
    iri: String,
    facet: String,
    label: BTreeMap<String, String>,
    synonyms: BTreeMap<String, Vec<String>>,
    /// Position of the entity it is a kind of.
    broader: Option<usize>,
    related: Vec<String>,
    notation: Option<String>,
    node: thesaurus::Node,
}

/// A concept that was chosen.
#[derive(Clone, Copy, Debug)]
struct Chosen<'a> {
    iri: &'a str,
    place: Place,
    concept: &'a Concept,
    facet: &'a str,
}

/// Mistakes that end the import, and what is worth knowing of one that goes on.
#[derive(Debug, Default)]
struct Notes {
    problems: Problems,
    warnings: Problems,
}

impl Notes {
    fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(place.problem(message, None));
    }

    fn warning(&mut self, place: Place, message: impl Into<String>) {
        self.warnings.push(place.problem(message, None));
    }
}

/// Reads a vocabulary from a Turtle text; `name` is its file, for messages. What comes out is valid
/// under our own rules.
///
/// # Errors
///
/// [`EvalError::Catalogue`], with the line of every mistake: malformed Turtle, a scheme that the text
/// does not have, no concept at all, a concept without a label or without one in an asked language, ties
/// to concepts that are not described, a concept that is broader than itself.
pub fn import(text: &str, name: &str, selection: &Selection) -> Result<Imported, EvalError> {
    let graph = Graph::of(&turtle::statements(text, name)?);
    if let Some(problem) = unknown_scheme(&graph, selection) {
        return Err(failed(problem, text, name));
    }
    let mut notes = Notes::default();
    let facets = facets(&graph, selection, &mut notes);
    let chosen = chosen(&graph, &facets);
    if chosen.is_empty() {
        let message = "expected a `skos:Concept` or a `skos:prefLabel`, found none";
        return Err(failed(Place::START.problem(message, None), text, name));
    }
    let named = names::name(&chosen, selection, &mut notes);
    let ties = ties(&graph, &chosen, &named, &mut notes);
    refuse_cycles(&ties, &named, &mut notes);
    notes.problems.check(text, name)?;
    let mut warnings = notes.warnings;
    let drafts = drafts(&chosen, named, &ties, &mut warnings);
    let id = slug(&selection.id);
    let id = if id.is_empty() { "imported" } else { id.as_str() };
    let yaml = write::yaml(id, name, &drafts);
    let thesaurus = thesaurus::parse(&yaml, &format!("what was made of {name}"))?;
    Ok(Imported { yaml, thesaurus, warnings: warnings.in_order(text) })
}

/// A scheme that is asked for and that the text does not have.
fn unknown_scheme(graph: &Graph, selection: &Selection) -> Option<Problem> {
    let known: Vec<&str> = graph.schemes.iter().map(|(iri, _)| iri.as_str()).collect();
    let unknown = selection.schemes.iter().find(|scheme| !known.contains(&scheme.as_str()))?;
    let hint = if known.is_empty() {
        "the text has no schemes; without `--scheme` all of its concepts are taken".to_owned()
    } else {
        format!("the schemes of the text are `{}`", known.join("`, `"))
    };
    Some(Place::START.problem(format!("no scheme has the IRI `{unknown}`"), Some(hint)))
}

/// The facet of every concept that is taken, by IRI.
fn facets(graph: &Graph, selection: &Selection, notes: &mut Notes) -> BTreeMap<String, String> {
    let mut facet_of_scheme: BTreeMap<&str, String> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (scheme, _) in &graph.schemes {
        let named = slug(graph.title(scheme));
        let named = if named.is_empty() { slug(local_name(scheme)) } else { named };
        facet_of_scheme.insert(scheme, names::unused(&named, "facet", &mut used));
    }
    let mut facets = BTreeMap::new();
    for (iri, place) in &graph.order {
        let Some(concept) = graph.concepts.get(iri) else { continue };
        let is_wanted =
            |scheme: &&String| selection.schemes.is_empty() || selection.schemes.contains(scheme);
        let schemes: Vec<&String> = concept.schemes.iter().filter(is_wanted).collect();
        if schemes.is_empty() && !selection.schemes.is_empty() {
            continue;
        }
        let of_scheme = schemes.first().and_then(|scheme| facet_of_scheme.get(scheme.as_str()));
        let facet = selection.facet.as_ref().or(of_scheme);
        let facet = facet.map_or(DEFAULT_FACET, String::as_str);
        if schemes.len() > 1 && selection.facet.is_none() {
            let message = format!(
                "`{}` belongs to {} schemes; it is taken into `{facet}` alone",
                local_name(iri),
                schemes.len()
            );
            notes.warning(*place, message);
        }
        facets.insert(iri.clone(), facet.to_owned());
    }
    facets
}

/// The concepts that have a facet, in the order of the text.
fn chosen<'a>(graph: &'a Graph, facets: &'a BTreeMap<String, String>) -> Vec<Chosen<'a>> {
    let one = |(iri, place): &'a (String, Place)| {
        let (concept, facet) = (graph.concepts.get(iri)?, facets.get(iri)?);
        Some(Chosen { iri, place: *place, concept, facet })
    };
    graph.order.iter().filter_map(one).collect()
}

/// The ties of a concept that are kept.
#[derive(Clone, Debug, Default)]
struct Ties {
    /// Position of what it is a kind of, and where that is said.
    broader: Option<(usize, Place)>,
    /// Positions of what it is related to.
    related: Vec<usize>,
}

/// The ties that are kept of each concept; those to concepts that are not described are mistakes.
fn ties(graph: &Graph, chosen: &[Chosen<'_>], named: &[Named], notes: &mut Notes) -> Vec<Ties> {
    let index: BTreeMap<&str, usize> =
        chosen.iter().enumerate().map(|(i, chosen)| (chosen.iri, i)).collect();
    let mut ties = vec![Ties::default(); chosen.len()];
    for (at, one) in chosen.iter().enumerate() {
        let id = named[at].id.as_str();
        for link in &one.concept.broader {
            let Some(other) = end(graph, &index, link, (id, "broader"), notes) else { continue };
            if chosen[other].facet != one.facet {
                let message = format!(
                    "`{id}` is of facet `{}`, its broader `{}` of `{}`: the tie is left out",
                    one.facet, named[other].id, chosen[other].facet
                );
                notes.warning(link.place, message);
            } else if let Some((kept, _)) = ties[at].broader {
                let message = format!(
                    "`{id}` has more than one broader concept: `{}` is kept, `{}` is left out",
                    named[kept].id, named[other].id
                );
                notes.warning(link.place, message);
            } else {
                ties[at].broader = Some((other, link.place));
            }
        }
        for link in &one.concept.related {
            let Some(other) = end(graph, &index, link, (id, "related"), notes) else { continue };
            if other != at && !ties[at].related.contains(&other) {
                ties[at].related.push(other);
            }
        }
    }
    ties
}

/// The concept at the other end of a link, if it is taken, too.
fn end(
    graph: &Graph,
    index: &BTreeMap<&str, usize>,
    link: &Link,
    (id, kind): (&str, &str),
    notes: &mut Notes,
) -> Option<usize> {
    let found = index.get(link.to.as_str()).copied();
    if found.is_none() {
        let other = local_name(&link.to);
        if graph.concepts.contains_key(&link.to) {
            let message = format!("`{id}` is tied ({kind}) to `{other}`, which is not taken");
            notes.warning(link.place, message);
        } else {
            let message = format!("`{id}` has the unknown {kind} concept `{other}`");
            notes.problem(link.place, message);
        }
    }
    found
}

/// Every cycle of what is a kind of what, once, at the first of its ties in the text.
fn refuse_cycles(ties: &[Ties], named: &[Named], notes: &mut Notes) {
    let above: Vec<Option<usize>> =
        ties.iter().map(|ties| ties.broader.map(|(above, _)| above)).collect();
    for cycle in cycles(&above) {
        let places = cycle.iter().filter_map(|at| Some((*at, ties[*at].broader?.1)));
        let first = places.min_by_key(|(_, place)| (place.line, place.column));
        let Some((first, place)) = first else { continue };
        let start = cycle.iter().position(|at| *at == first).unwrap_or(0);
        let (before, from) = cycle.split_at(start);
        let chain: Vec<String> = from
            .iter()
            .chain(before)
            .chain(from.first())
            .map(|at| format!("`{}`", named[*at].id))
            .collect();
        notes.problem(place, format!("{} is broader than itself: {}", chain[0], chain.join(" → ")));
    }
}

/// What is written: labels that are told apart, leaves that are counted.
fn drafts(
    chosen: &[Chosen<'_>],
    named: Vec<Named>,
    ties: &[Ties],
    warnings: &mut Problems,
) -> Vec<Draft> {
    let above: BTreeSet<usize> = ties.iter().filter_map(|ties| Some(ties.broader?.0)).collect();
    let ids: Vec<String> = named.iter().map(|named| named.id.clone()).collect();
    let broader: Vec<Option<usize>> =
        ties.iter().map(|ties| ties.broader.map(|(above, _)| above)).collect();
    let labels = names::told_apart(chosen, &named, &broader, warnings);
    let parts = named.into_iter().zip(labels).enumerate();
    parts
        .map(|(at, (named, label))| Draft {
            id: named.id,
            iri: chosen[at].iri.to_owned(),
            facet: chosen[at].facet.to_owned(),
            label,
            synonyms: named.synonyms,
            broader: broader[at],
            related: ties[at].related.iter().map(|other| ids[*other].clone()).collect(),
            notation: chosen[at].concept.notation.clone(),
            node: if above.contains(&at) {
                thesaurus::Node::Inner
            } else {
                thesaurus::Node::Counted
            },
        })
        .collect()
}

#[cfg(test)]
mod tests;
