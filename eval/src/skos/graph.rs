//! The concepts and schemes that statements describe, and which concepts are wanted.

use super::turtle::{Object, Place, Predicate, Statement, local_name, skos_class};
use std::collections::{BTreeMap, BTreeSet};

/// Words of a concept in one language.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// Language tag in lower case, `und` (undetermined) where the text has none.
    pub(super) language: String,
    /// The words, on one line.
    pub(super) text: String,
    /// Where they stand.
    pub(super) place: Place,
}

/// A tie to another concept.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// IRI of the other.
    pub(super) to: String,
    /// Where it is said.
    pub(super) place: Place,
}

/// One concept as its statements describe it.
#[derive(Clone, Debug, Default)]
pub(super) struct Concept {
    /// Names that are preferred, in the order of the text.
    pub(super) labels: Vec<Name>,
    /// Other names.
    pub(super) synonyms: Vec<Name>,
    /// What it is a kind of, each once, in the order of the text; said by either side.
    pub(super) broader: Vec<Link>,
    /// What it is related to.
    pub(super) related: Vec<Link>,
    /// What the vocabulary calls it.
    pub(super) notation: Option<String>,
    /// Schemes that it belongs to, each once, in the order of the text.
    pub(super) schemes: Vec<String>,
}

impl Concept {
    /// Adds a name; one without words says nothing.
    fn add_name(&mut self, predicate: Predicate, name: Name) {
        if name.text.is_empty() {
            return;
        }
        if predicate == Predicate::PrefLabel {
            self.labels.push(name);
        } else {
            self.synonyms.push(name);
        }
    }
}

/// All that a text describes.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// IRI and place of the concepts, in the order in which they are first described.
    pub(super) order: Vec<(String, Place)>,
    /// Concepts by IRI.
    pub(super) concepts: BTreeMap<String, Concept>,
    /// Schemes by IRI, in the order of the text, each with its title where it has one.
    pub(super) schemes: Vec<(String, Option<String>)>,
}

impl Graph {
    /// Sorts statements into concepts and schemes. A concept is what is called one, or has a preferred
    /// label and is neither a scheme nor a collection.
    pub(super) fn of(statements: &[Statement]) -> Self {
        let mut graph = Self::default();
        let (concepts, schemes) = kinds(statements);
        for statement in statements {
            let subject = statement.subject.as_str();
            if concepts.contains(subject) && !graph.concepts.contains_key(subject) {
                graph.concepts.insert(subject.to_owned(), Concept::default());
                graph.order.push((subject.to_owned(), statement.subject_place));
            }
        }
        for statement in statements {
            graph.add_scheme(statement, &schemes);
            graph.add(statement);
        }
        graph
    }

    fn add(&mut self, statement: &Statement) {
        let Statement { subject, predicate, object, object_place: place, .. } = statement;
        match (predicate, object) {
            (Predicate::PrefLabel | Predicate::AltLabel, Object::Words { text, language }) => {
                let language = language.clone().unwrap_or_else(|| "und".to_owned());
                let name = Name { language, text: on_one_line(text), place: *place };
                if let Some(concept) = self.concepts.get_mut(subject) {
                    concept.add_name(*predicate, name);
                }
            }
            (Predicate::Notation, Object::Words { text, .. }) => {
                if let Some(concept) = self.concepts.get_mut(subject) {
                    concept.notation.get_or_insert_with(|| on_one_line(text));
                }
            }
            (Predicate::Broader, Object::Thing(above)) => self.tie(subject, above, *place),
            (Predicate::Narrower, Object::Thing(below)) => self.tie(below, subject, *place),
            (Predicate::Related, Object::Thing(other)) => {
                if let Some(concept) = self.concepts.get_mut(subject) {
                    concept.related.push(Link { to: other.clone(), place: *place });
                }
            }
            (Predicate::InScheme, Object::Thing(scheme)) => self.enter(subject, scheme),
            (Predicate::HasTopConcept, Object::Thing(concept)) => self.enter(concept, subject),
            // A link to words or a label that is no text says nothing.
            _ => {}
        }
    }

    /// `below` is a kind of `above`.
    fn tie(&mut self, below: &str, above: &str, place: Place) {
        if let Some(concept) = self.concepts.get_mut(below)
            && !concept.broader.iter().any(|link| link.to == above)
        {
            concept.broader.push(Link { to: above.to_owned(), place });
        }
    }

    fn enter(&mut self, concept: &str, scheme: &str) {
        if let Some(concept) = self.concepts.get_mut(concept)
            && !concept.schemes.iter().any(|known| known == scheme)
        {
            concept.schemes.push(scheme.to_owned());
        }
    }

    /// Notes a scheme that a statement is about or names, and its title: the English one, else the
    /// first.
    fn add_scheme(&mut self, statement: &Statement, schemes: &BTreeSet<&str>) {
        let named = match &statement.object {
            Object::Thing(iri) if statement.predicate == Predicate::InScheme => iri,
            Object::Thing(_) | Object::Words { .. } => &statement.subject,
        };
        if !schemes.contains(named.as_str()) {
            return;
        }
        let known = self.schemes.iter().position(|(iri, _)| iri == named);
        let at = known.unwrap_or_else(|| {
            self.schemes.push((named.clone(), None));
            self.schemes.len() - 1
        });
        let names = matches!(statement.predicate, Predicate::Title | Predicate::PrefLabel);
        if let Object::Words { text, language } = &statement.object
            && names
        {
            let title = &mut self.schemes[at].1;
            let is_english = language.as_deref().is_some_and(|tag| primary(tag) == "en");
            if title.is_none() || is_english {
                *title = Some(on_one_line(text));
            }
        }
    }

    /// What a scheme is called: its title, else the last part of its IRI.
    pub(super) fn title<'a>(&'a self, scheme: &'a str) -> &'a str {
        let found = self.schemes.iter().find(|(iri, _)| iri == scheme);
        found.and_then(|(_, title)| title.as_deref()).unwrap_or_else(|| local_name(scheme))
    }
}

/// The subjects that are concepts, and what is a scheme.
fn kinds(statements: &[Statement]) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let mut concepts: BTreeSet<&str> = BTreeSet::new();
    let mut schemes: BTreeSet<&str> = BTreeSet::new();
    let mut others: BTreeSet<&str> = BTreeSet::new();
    for statement in statements {
        let subject = statement.subject.as_str();
        let (kind, thing) = match (statement.predicate, &statement.object) {
            (Predicate::Type, Object::Thing(class)) => match skos_class(class) {
                Some("Concept") => (&mut concepts, subject),
                Some("ConceptScheme") => (&mut schemes, subject),
                Some(_) => (&mut others, subject),
                None => continue,
            },
            (Predicate::InScheme, Object::Thing(scheme)) => (&mut schemes, scheme.as_str()),
            (Predicate::HasTopConcept, _) => (&mut schemes, subject),
            _ => continue,
        };
        kind.insert(thing);
    }
    for statement in statements.iter().filter(|s| s.predicate == Predicate::PrefLabel) {
        let subject = statement.subject.as_str();
        if !schemes.contains(subject) && !others.contains(subject) {
            concepts.insert(subject);
        }
    }
    (concepts, schemes)
}

/// The language of a tag without its region: `en` of `en-gb`.
pub(super) fn primary(tag: &str) -> &str {
    tag.split('-').next().unwrap_or(tag)
}

/// The words of a text, one blank between each, without control characters.
pub(super) fn on_one_line(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.chars().filter(|c| !is_unprintable(*c)).collect())
        .filter(|word: &String| !word.is_empty())
        .collect();
    words.join(" ")
}

/// What YAML has no sign for.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::super::turtle::statements;
    use super::*;

    const HEAD: &str = "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n\
        @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .\n\
        @prefix ex: <http://example.org/> .\n";

    fn graph(body: &str) -> Graph {
        Graph::of(&statements(&format!("{HEAD}{body}"), "t.ttl").unwrap())
    }

    #[test]
    fn either_side_may_say_what_is_broader() {
        let graph = graph(
            "ex:a a skos:Concept ; skos:narrower ex:b .\n\
             ex:b skos:prefLabel \"b\" ; skos:broader ex:a , ex:c .\n\
             ex:c a skos:Concept .\n",
        );
        let order: Vec<&str> = graph.order.iter().map(|(iri, _)| local_name(iri)).collect();
        assert_eq!(order, ["a", "b", "c"]);
        let broader = &graph.concepts["http://example.org/b"].broader;
        let names: Vec<&str> = broader.iter().map(|link| local_name(&link.to)).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!((broader[0].place.line, broader[1].place.line), (4, 5));
    }

    #[test]
    fn schemes_have_a_title_and_collections_are_no_concepts() {
        let graph = graph(
            "ex:s a skos:ConceptScheme ; rdfs:label \"Choses\"@fr , \"Things\"@en ; \
             skos:hasTopConcept ex:a .\n\
             ex:a skos:prefLabel \"a\"@en ; skos:inScheme ex:t , ex:s .\n\
             ex:box a skos:Collection ; skos:prefLabel \"a box\"@en .\n",
        );
        let schemes: Vec<&str> = graph.schemes.iter().map(|(iri, _)| graph.title(iri)).collect();
        assert_eq!(schemes, ["Things", "t"]);
        assert_eq!(graph.concepts.len(), 1);
        let of_a = &graph.concepts["http://example.org/a"].schemes;
        let of_a: Vec<&str> = of_a.iter().map(|iri| local_name(iri)).collect();
        assert_eq!(of_a, ["s", "t"]);
    }

    #[test]
    fn words_keep_their_language_and_lose_line_breaks() {
        let graph = graph(
            "ex:a skos:prefLabel \"\"\"a  long\nname\u{7}\"\"\"@en-US , \"nom\" ; \
             skos:altLabel \"other\"@en ; skos:notation \"1\" , \"2\" .\n",
        );
        let concept = &graph.concepts["http://example.org/a"];
        let said: Vec<(&str, &str)> = concept
            .labels
            .iter()
            .map(|name| (name.language.as_str(), name.text.as_str()))
            .collect();
        assert_eq!(said, [("en-us", "a long name"), ("und", "nom")]);
        assert_eq!(concept.synonyms[0].text, "other");
        assert_eq!(concept.notation.as_deref(), Some("1"));
        assert_eq!((primary("en-us"), primary("fr")), ("en", "fr"));
    }
}
