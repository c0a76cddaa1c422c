use super::{Imported, Selection, import};
use crate::error::EvalError;
use crate::thesaurus::{self, Node};
use recipes::Problem;

const PREFIXES: &str = "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n\
    @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .\n\
    @prefix ex: <http://example.org/> .\n";

/// Two schemes, a tree of two levels, a concept with two broader ones, two of one label.
const VOCABULARY: &str = "\
ex:things a skos:ConceptScheme ; rdfs:label \"Things seen\"@en .
ex:hues a skos:ConceptScheme .
ex:building a skos:Concept ; skos:inScheme ex:things ;
    skos:prefLabel \"building\"@en , \"bâtiment\"@fr .
ex:machine a skos:Concept ; skos:inScheme ex:things ;
    skos:prefLabel \"machine\"@en , \"machine\"@fr .
ex:lighthouse a skos:Concept ; skos:inScheme ex:things ;
    skos:prefLabel \"lighthouse\"@en , \"phare\"@fr , \"Leuchtturm\"@de ;
    skos:altLabel \"beacon\"@en , \"lighthouse\"@en ;
    skos:broader ex:building ,
        ex:machine ;
    skos:related ex:blue ; skos:notation \"48C1\" .
ex:crane1 a skos:Concept ; skos:inScheme ex:things ; skos:broader ex:machine ;
    skos:prefLabel \"crane\"@en , \"grue\"@fr .
ex:crane2 a skos:Concept ; skos:inScheme ex:things ; skos:broader ex:building ;
    skos:prefLabel \"crane\"@en , \"échafaudage\"@fr .
ex:blue a skos:Concept ; skos:inScheme ex:hues ;
    skos:prefLabel \"blue \\\"sky\\\"\"@en , \"bleu\"@fr ; skos:altLabel \"azur\"@fr .
ex:bird skos:prefLabel \"bird\"@en-US , \"oiseau\"@fr .
";

fn selection() -> Selection {
    Selection { id: "mine".into(), ..Selection::default() }
}

fn imported(body: &str, selection: &Selection) -> Imported {
    import(&format!("{PREFIXES}{body}"), "some/v.ttl", selection).unwrap()
}

fn problems(body: &str, selection: &Selection) -> Vec<Problem> {
    match import(&format!("{PREFIXES}{body}"), "v.ttl", selection) {
        Err(EvalError::Catalogue { problems, .. }) => problems,
        other => panic!("expected problems, found {other:?}"),
    }
}

#[test]
fn a_vocabulary_becomes_a_thesaurus() {
    let Imported { yaml, thesaurus, .. } = imported(VOCABULARY, &selection());
    assert_eq!(
        yaml,
        "\
# Made by `populate thesaurus import` of v.ttl.
# Mind the license of the vocabulary before you pass it on.
schema: populate/thesaurus/1
id: mine
languages: [en, fr]
facets: { things-seen: { none: true }, hues: { none: true }, subject: { none: true } }
entities:
  building: { facet: things-seen, counted: false, source: \"http://example.org/building\", \
label: { en: \"building\", fr: \"bâtiment\" } }
  machine: { facet: things-seen, counted: false, source: \"http://example.org/machine\", \
label: { en: \"machine\", fr: \"machine\" } }
  lighthouse: { facet: things-seen, broader: building, related: [blue-sky], notation: \"48C1\", \
source: \"http://example.org/lighthouse\", label: { en: \"lighthouse\", fr: \"phare\" }, \
synonyms: { en: [\"beacon\"] } }
  crane: { facet: things-seen, broader: machine, source: \"http://example.org/crane1\", \
label: { en: \"crane\", fr: \"grue\" } }
  crane-crane2: { facet: things-seen, broader: building, source: \"http://example.org/crane2\", \
label: { en: \"crane (building)\", fr: \"échafaudage\" } }
  blue-sky: { facet: hues, source: \"http://example.org/blue\", \
label: { en: \"blue \\\"sky\\\"\", fr: \"bleu\" }, synonyms: { fr: [\"azur\"] } }
  bird: { facet: subject, source: \"http://example.org/bird\", \
label: { en: \"bird\", fr: \"oiseau\" } }
"
    );
    assert_eq!(thesaurus.path_length("lighthouse", "crane-crane2"), Some(2));
    assert_eq!(thesaurus.entity("blue-sky").unwrap().label["en"], "blue \"sky\"");
}

#[test]
fn what_is_written_reads_back_as_the_same() {
    let first = imported(VOCABULARY, &selection());
    assert_eq!(thesaurus::parse(&first.yaml, "again").unwrap(), first.thesaurus);
    let leaves = first.thesaurus.entities.iter().filter(|entity| entity.node == Node::Counted);
    assert_eq!(leaves.count(), 5);
    let lighthouse = first.thesaurus.entity("lighthouse").unwrap();
    assert_eq!(lighthouse.notation.as_deref(), Some("48C1"));
    assert_eq!(lighthouse.source.as_deref(), Some("http://example.org/lighthouse"));
}

#[test]
fn what_is_left_out_or_changed_is_told_with_its_line() {
    let warnings = imported(VOCABULARY, &selection()).warnings;
    let told: Vec<(u64, &str)> = warnings.iter().map(|w| (w.line, w.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (
                14,
                "`lighthouse` has more than one broader concept: `building` is kept, `machine` is \
                 left out"
            ),
            (
                19,
                "`crane` is the label of another concept, too: that of `crane-crane2` becomes \
                 `crane (building)`"
            ),
        ]
    );
}

#[test]
fn identifiers_stay_when_the_vocabulary_grows() {
    let grown = format!("{VOCABULARY}ex:new skos:prefLabel \"crane\"@en , \"neuf\"@fr .\n");
    let ids = |body: &str| -> Vec<String> {
        let thesaurus = imported(body, &selection()).thesaurus;
        thesaurus.entities.into_iter().map(|entity| entity.id).collect()
    };
    let (before, after) = (ids(VOCABULARY), ids(&grown));
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()..], ["crane-new"]);
}

#[test]
fn a_scheme_can_be_chosen_and_a_facet_named() {
    let hues = Selection { schemes: vec!["http://example.org/hues".into()], ..selection() };
    let found = imported(VOCABULARY, &hues);
    let ids: Vec<&str> = found.thesaurus.entities.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["blue-sky"]);
    let all = Selection { facet: Some("object".into()), ..selection() };
    let found = imported(VOCABULARY, &all);
    assert!(found.thesaurus.entities.iter().all(|entity| entity.facet == "object"));
    let unknown = Selection { schemes: vec!["http://example.org/none".into()], ..selection() };
    let found = problems(VOCABULARY, &unknown);
    assert_eq!(found[0].message, "no scheme has the IRI `http://example.org/none`");
    assert!(found[0].hint.as_deref().is_some_and(|hint| hint.contains("http://example.org/hues")));
}

#[test]
fn ties_out_of_what_is_chosen_are_left_out_with_a_warning() {
    let things = Selection { schemes: vec!["http://example.org/things".into()], ..selection() };
    let found = imported(VOCABULARY, &things);
    assert!(found.thesaurus.entity("lighthouse").unwrap().related.is_empty());
    let told = "`lighthouse` is tied (related) to `blue`, which is not taken";
    assert!(found.warnings.iter().any(|warning| warning.message == told && warning.line == 15));
    let across =
        VOCABULARY.replace("ex:blue a skos:Concept ;", "ex:blue skos:broader ex:machine ;");
    let found = imported(&across, &selection());
    assert_eq!(found.thesaurus.entity("blue-sky").unwrap().broader, None);
    assert!(found.warnings.iter().any(|w| w.message.contains("the tie is left out")));
}

#[test]
fn languages_can_be_asked_for() {
    let french = Selection { languages: vec!["FR".into()], ..selection() };
    let found = imported(VOCABULARY, &french);
    assert_eq!(found.thesaurus.languages, ["fr"]);
    let german = Selection { languages: vec!["de".into()], ..selection() };
    let found = problems(VOCABULARY, &german);
    assert_eq!(found.len(), 6, "all but the lighthouse: {found:?}");
    assert_eq!((found[0].line, found[0].message.as_str()), (6, "`building` has no label in `de`"));
}

#[test]
fn norwegian_is_a_language() {
    let found = imported("ex:a skos:prefLabel \"fyr\"@no .\n", &selection());
    assert!(found.yaml.contains("languages: [\"no\"]"), "{}", found.yaml);
    assert_eq!(found.thesaurus.entity("fyr").unwrap().label["no"], "fyr");
}

#[test]
fn a_text_without_language_tags_is_read() {
    let found = imported("ex:a skos:prefLabel \"A thing\" .\n", &selection());
    assert_eq!(found.thesaurus.languages, ["und"]);
    assert_eq!(found.thesaurus.entity("a-thing").unwrap().name(), "A thing");
}

#[test]
fn mistakes_are_told_all_at_once_with_their_lines() {
    let body = "\
ex:a a skos:Concept ; skos:prefLabel \"a\"@en ; skos:broader ex:b .
ex:b a skos:Concept ; skos:prefLabel \"b\"@en ;
    skos:broader ex:c .
ex:c a skos:Concept ; skos:prefLabel \"c\"@en ; skos:broader ex:a .
ex:d a skos:Concept ; skos:broader ex:nowhere ; skos:prefLabel \"d\"@en .
ex:e a skos:Concept .
ex:f skos:prefLabel \"f\"@en ; skos:related ex:nobody .
";
    let found = problems(body, &selection());
    let told: Vec<(u64, &str)> = found.iter().map(|p| (p.line, p.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (4, "`a` is broader than itself: `a` → `b` → `c` → `a`"),
            (8, "`d` has the unknown broader concept `nowhere`"),
            (9, "`e` has no `skos:prefLabel`"),
            (10, "`f` has the unknown related concept `nobody`"),
        ]
    );
}

#[test]
fn one_language_must_name_everything() {
    let body = "ex:a skos:prefLabel \"a\"@en .\nex:b skos:prefLabel \"b\"@en , \"b\"@fr .\n\
                ex:c skos:prefLabel \"c\"@fr .\nex:d skos:prefLabel \"d\"@en .\n";
    let found = problems(body, &selection());
    let expected = "no language has a label of every concept: `en`, the most common, has 3 of 4 and \
                    none of `c`";
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].line, found[0].message.as_str()), (6, expected));
}

#[test]
fn any_name_becomes_an_identifier() {
    let body = "ex:a skos:prefLabel \"a\"@en .\n";
    for (id, expected) in [("My: \"List\"", "my-list"), ("", "imported"), ("no", "no")] {
        let found = imported(body, &Selection { id: id.into(), ..selection() });
        assert_eq!(found.thesaurus.id, expected);
    }
}

#[test]
fn nothing_is_no_vocabulary() {
    assert!(problems("", &selection())[0].message.contains("found none"));
    assert_eq!(problems("ex:a ex:b .\n", &selection())[0].line, 4);
}
