//! The rules of a thesaurus. All of them are checked, so that one reading tells every mistake.

use super::raw::{RawEntity, RawThesaurus};
use super::tree::cycles;
use super::{BLOCKED, NONE, SCHEMA};
use crate::catalogue::Problems;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// How far the priors of a facet may sum up beside 1.
const SUM_TOLERANCE: f64 = 1e-6;
/// Signs with which no identifier may hold: `rows.csv` and the tables separate by them.
const RESERVED: [char; 4] = [',', ':', '"', '\n'];

/// Entities by identifier; of those that stand twice, the first.
type Known<'a> = BTreeMap<&'a str, &'a RawEntity>;

/// Records every broken rule.
pub(super) fn check(raw: &RawThesaurus, problems: &mut Problems) {
    if raw.schema.value != SCHEMA {
        let message = format!("schema is `{}`, expected `{SCHEMA}`", raw.schema.value);
        problems.add(raw.schema.referenced, message);
    }
    if raw.languages.value.is_empty() {
        problems.add(raw.languages.referenced, "`languages` is empty: nothing could be labeled");
    }
    let known: Known<'_> =
        raw.entities.first().map(|(id, entity)| (id.value.as_str(), entity)).collect();
    check_facets(raw, problems);
    for (id, entity) in &raw.entities.0 {
        check_identifier(id, problems);
        check_entity(id, entity, raw, problems);
        check_links(id, entity, &known, problems);
        check_labels(id, entity, &raw.languages.value, problems);
    }
    for (id, line) in raw.entities.repeated() {
        let message = format!("`{}` stands twice, first in line {line}", id.value);
        problems.add(id.referenced, message);
    }
    check_cycles(raw, problems);
    check_repeated_labels(raw, problems);
}

/// An identifier of a facet or an entity.
fn check_identifier(id: &Spanned<String>, problems: &mut Problems) {
    let name = &id.value;
    if name.is_empty() || name.starts_with(NONE) || name.contains(RESERVED) {
        problems.add_with_hint(
            id.referenced,
            format!("`{name}` cannot be an identifier: it may not be empty or hold `∅ , : \"`"),
            format!(
                "`{NONE}` and `{BLOCKED}` are what pictures without an entity are counted under"
            ),
        );
    }
}

fn check_facets(raw: &RawThesaurus, problems: &mut Problems) {
    for (id, line) in raw.facets.repeated() {
        let message = format!("facet `{}` stands twice, first in line {line}", id.value);
        problems.add(id.referenced, message);
    }
    for (id, facet) in raw.facets.first() {
        check_identifier(id, problems);
        let entities = raw.entities.first().map(|(_, entity)| entity);
        let counted: Vec<&RawEntity> =
            entities.filter(|entity| entity.is_counted() && entity.facet() == id.value).collect();
        if counted.is_empty() {
            problems.add(id.referenced, format!("facet `{}` has no counted entity", id.value));
            continue;
        }
        let priors: Vec<f64> =
            counted.iter().filter_map(|entity| entity.prior.as_ref().map(|p| p.value)).collect();
        let sum: f64 = priors.iter().sum();
        let name = &id.value;
        if sum > 1.0 + SUM_TOLERANCE {
            let message = format!("the priors of facet `{name}` sum to {sum:.6}, above 1");
            problems.add(id.referenced, message);
        } else if priors.len() == counted.len() && !facet.none && sum < 1.0 - SUM_TOLERANCE {
            problems.add_with_hint(
                id.referenced,
                format!("the priors of facet `{name}` sum to {sum:.6}, expected 1"),
                "where pictures may bear none of a facet's entities, say `none: true`",
            );
        }
    }
}

/// Facet and prior of an entity.
fn check_entity(
    id: &Spanned<String>,
    entity: &RawEntity,
    raw: &RawThesaurus,
    problems: &mut Problems,
) {
    let name = &id.value;
    let facets: Vec<&str> = raw.facets.first().map(|(facet, _)| facet.value.as_str()).collect();
    let known = || format!("known are `{}`", facets.join("`, `"));
    match &entity.facet {
        None => {
            problems.add_with_hint(id.referenced, format!("`{name}` names no facet"), known());
        }
        Some(facet) if !facets.contains(&facet.value.as_str()) => {
            let message = format!("`{name}` names the unknown facet `{}`", facet.value);
            problems.add_with_hint(facet.referenced, message, known());
        }
        Some(_) => {}
    }
    if let Some(prior) = &entity.prior {
        if !(0.0..=1.0).contains(&prior.value) {
            let message = format!("the prior of `{name}` is not within 0 and 1");
            problems.add(prior.referenced, message);
        }
        if !entity.is_counted() {
            let message = format!("`{name}` is not counted and takes no prior");
            problems.add(prior.referenced, message);
        }
    }
}

/// What an entity is a kind of, and what it is related to.
fn check_links(
    id: &Spanned<String>,
    entity: &RawEntity,
    known: &Known<'_>,
    problems: &mut Problems,
) {
    let name = &id.value;
    if let Some(broader) = &entity.broader {
        match known.get(broader.value.as_str()) {
            None => {
                let message = format!("`{name}` has the unknown broader `{}`", broader.value);
                problems.add(broader.referenced, message);
            }
            Some(above) if above.facet() != entity.facet() => {
                let message = format!(
                    "`{name}` is of facet `{}`, its broader `{}` of `{}`",
                    entity.facet(),
                    broader.value,
                    above.facet()
                );
                problems.add(broader.referenced, message);
            }
            Some(_) => {}
        }
    }
    for related in &entity.related {
        if !known.contains_key(related.value.as_str()) {
            let message = format!("`{name}` is related to the unknown `{}`", related.value);
            problems.add(related.referenced, message);
        }
    }
}

/// Labels and synonyms of one entity.
fn check_labels(
    id: &Spanned<String>,
    entity: &RawEntity,
    languages: &[String],
    problems: &mut Problems,
) {
    let name = &id.value;
    for language in languages {
        if !entity.label.0.iter().any(|(known, _)| known.value == *language) {
            problems.add(id.referenced, format!("`{name}` has no label in `{language}`"));
        }
    }
    for (language, label) in &entity.label.0 {
        if label.value.trim().is_empty() {
            let message = format!("the label of `{name}` in `{}` is empty", language.value);
            problems.add(label.referenced, message);
        }
    }
    let repeated = entity.label.repeated().into_iter().chain(entity.synonyms.repeated());
    for (language, _) in repeated {
        let message = format!("`{}` stands twice among the words of `{name}`", language.value);
        problems.add(language.referenced, message);
    }
}

/// Every cycle once, at the first of its entities in the text.
fn check_cycles(raw: &RawThesaurus, problems: &mut Problems) {
    let nodes: Vec<(&Spanned<String>, &RawEntity)> = raw.entities.first().collect();
    let index: BTreeMap<&str, usize> =
        nodes.iter().enumerate().map(|(i, (id, _))| (id.value.as_str(), i)).collect();
    let broader = |node: usize| nodes[node].1.broader.as_ref();
    let above: Vec<Option<usize>> =
        (0..nodes.len()).map(|node| index.get(broader(node)?.value.as_str()).copied()).collect();
    for cycle in cycles(&above) {
        let places = cycle.iter().enumerate();
        let places = places.filter_map(|(i, node)| Some((i, broader(*node)?.referenced)));
        let first = places.min_by_key(|(_, place)| (place.line(), place.column()));
        let Some((first, place)) = first else { continue };
        let (before, from) = cycle.split_at(first);
        let chain = from.iter().chain(before).chain(from.first());
        let chain: Vec<String> = chain.map(|node| format!("`{}`", nodes[*node].0.value)).collect();
        let message = format!("{} is broader than itself: {}", chain[0], chain.join(" → "));
        problems.add(place, message);
    }
}

/// A label stands for one entity within a language and facet.
fn check_repeated_labels(raw: &RawThesaurus, problems: &mut Problems) {
    let mut seen: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
    for (id, entity) in raw.entities.first() {
        for (language, label) in entity.label.first() {
            let key = (language.value.as_str(), entity.facet(), label.value.as_str());
            if let Some(other) = seen.insert(key, &id.value) {
                let message = format!(
                    "`{other}` and `{}` are both labeled `{}` in `{}`",
                    id.value, label.value, language.value
                );
                problems.add(label.referenced, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::error::EvalError;
    use crate::synthetic::THESAURUS as SMALL;
    use crate::thesaurus::parse;
    use recipes::Problem;

    fn problems(text: &str) -> Vec<Problem> {
        match parse(text, "test") {
            Err(EvalError::Catalogue { problems, .. }) => problems,
            other => panic!("expected problems, found {other:?}"),
        }
    }

    /// The only mistake of `text`: it stands where `at` stands, and its message holds `words`.
    fn one_problem(text: &str, at: &str, words: &str) {
        let found = problems(text);
        let [problem] = found.as_slice() else { panic!("expected one of {words}: {found:?}") };
        assert!(problem.message.contains(words), "{}", problem.message);
        assert_eq!(&text[problem.span.clone()], at, "{problem:?}");
        let before = &text[..problem.span.start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        let place = (u64::try_from(line).unwrap(), u64::try_from(column).unwrap());
        assert_eq!((problem.line, problem.column), place, "{problem:?}");
    }

    fn replaced(from: &str, to: &str) -> String {
        assert!(SMALL.contains(from), "{from}");
        SMALL.replacen(from, to, 1)
    }

    #[test]
    fn each_broken_rule_is_shown_where_it_stands() {
        for (from, to, at, words) in [
            (
                "thesaurus/1",
                "thesaurus/2",
                "populate/thesaurus/2",
                "expected `populate/thesaurus/1`",
            ),
            ("[en, fr]", "[]", "[", "`languages` is empty"),
            ("tower: {", "'to,wer': {", "'to,wer'", "`to,wer` cannot be an identifier"),
            ("tower: {", "∅tower: {", "∅tower", "`∅tower` cannot be an identifier"),
            ("red: { facet: color,", "red: {", "red", "`red` names no facet"),
            ("red: { facet: color,", "red: { facet: hue,", "hue", "unknown facet `hue`"),
            ("broader: building", "broader: castle", "castle", "`tower` has the unknown broader"),
            ("red: {", "red: { broader: house,", "house", "its broader `house` of `subject`"),
            ("red: {", "red: { related: [boat, sea],", "sea", "related to the unknown `sea`"),
            ("en: red, fr: rouge", "en: red", "red", "`red` has no label in `fr`"),
            (
                "fr: maison",
                "fr: tour",
                "tour",
                "`tower` and `house` are both labeled `tour` in `fr`",
            ),
            ("fr: maison", "fr: ' '", "' '", "the label of `house` in `fr` is empty"),
            ("fr: maison", "en: maison, fr: mas", "en", "`en` stands twice among the words"),
            ("prior: 0.2", "prior: 1.5", "1.5", "the prior of `house` is not within 0 and 1"),
            ("counted: false,", "counted: false, prior: 0.1,", "0.1", "takes no prior"),
        ] {
            let text = replaced(from, to);
            let all = problems(&text);
            let found = all.iter().find(|problem| problem.message.contains(words));
            let Some(problem) = found else { panic!("no `{words}` in {all:?}") };
            let span = &text[problem.span.clone()];
            assert!(span == at || span.starts_with(at), "`{words}` stands at `{span}`");
        }
    }

    #[test]
    fn a_mistake_has_its_line_and_column() {
        one_problem(
            &replaced("broader: building, ask", "broader: castle, ask"),
            "castle",
            "unknown",
        );
        one_problem(
            &replaced("label: { en: red, fr: rouge", "label: { en: red"),
            "red",
            "no label",
        );
    }

    #[test]
    fn an_entity_that_stands_twice_is_shown_with_its_first_line() {
        let text = format!("{SMALL}  red: {{ facet: color, label: {{ en: r, fr: r }} }}\n");
        one_problem(&text, "red", "`red` stands twice, first in line 11");
        let text = replaced("color: { none: false }", "color: { none: false }, color: {}");
        one_problem(&text, "color", "facet `color` stands twice, first in line 5");
    }

    #[test]
    fn a_cycle_is_told_once_where_it_begins() {
        let text = replaced("counted: false,", "counted: false, broader: tower,");
        let chain = "`building` is broader than itself: `building` → `tower` → `building`";
        one_problem(&text, "tower", chain);
        one_problem(&replaced("boat: {", "boat: { broader: boat,"), "boat", "`boat` → `boat`");
    }

    #[test]
    fn two_cycles_are_two_mistakes() {
        let text = replaced("counted: false,", "counted: false, broader: house,")
            .replace("red: {", "red: { broader: blue,")
            .replace("blue: {", "blue: { broader: red,");
        let found = problems(&text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].message.contains("`building` → `house` → `building`"), "{found:?}");
        assert!(found[1].message.contains("`red` → `blue` → `red`"), "{found:?}");
    }

    #[test]
    fn priors_are_shares_of_their_facet() {
        let text = replaced("label: { en: boat", "prior: 0.9, label: { en: boat");
        one_problem(&text, "subject", "the priors of facet `subject` sum to 1.100000, above 1");
        let color = |red: &str, blue: &str| {
            replaced("red: {", &format!("red: {{ prior: {red},"))
                .replace("blue: {", &format!("blue: {{ prior: {blue},"))
        };
        one_problem(&color("0.5", "0.4"), "color", "sum to 0.900000, expected 1");
        assert!(parse(&color("0.5", "0.5"), "test").is_ok());
        // Where pictures may bear none, the rest is theirs.
        let open = color("0.5", "0.4").replace("none: false", "none: true");
        assert!(parse(&open, "test").is_ok());
    }

    #[test]
    fn a_facet_needs_something_to_count() {
        let text = replaced("color: { none: false }", "color: { none: false }, mood: {}");
        one_problem(&text, "mood", "facet `mood` has no counted entity");
    }

    #[test]
    fn all_mistakes_come_at_once_in_the_order_of_the_text() {
        let text = replaced("broader: building, ask", "broader: castle, ask")
            .replace("facet: color, label: { en: blue", "label: { en: blue")
            .replace("fr: maison", "fr: tour")
            .replace("thesaurus/1", "thesaurus/0");
        let lines: Vec<u64> = problems(&text).iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [2, 8, 9, 12]);
    }

    #[test]
    fn what_cannot_be_read_is_one_mistake_with_its_place() {
        one_problem(&replaced("broader: building", "brooder: building"), "brooder", "unknown key");
        let found = problems(&replaced("counted: false", "counted: perhaps"));
        assert_eq!((found.len(), found[0].line), (1, 7), "{found:?}");
        let found = problems(&replaced("entities:", "entities: ["));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(problems("").len(), 1);
        let found = problems("schema: populate/thesaurus/1\n");
        assert!(found[0].message.contains("id"), "{found:?}");
    }
}
