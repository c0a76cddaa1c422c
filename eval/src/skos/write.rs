//! A thesaurus as a file in our format, one line per entity.

use super::Draft;
use super::graph::on_one_line;
use crate::thesaurus::{Node, SCHEMA};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Words that YAML readers of one age or another take for something else than text.
const RESERVED: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];

/// The file. `origin` is the path of what was imported, of which the comment at its head tells the name.
pub(super) fn yaml(id: &str, origin: &str, drafts: &[Draft]) -> String {
    let languages: BTreeSet<&str> =
        drafts.iter().flat_map(|draft| draft.label.keys()).map(String::as_str).collect();
    let languages: Vec<String> = languages.into_iter().map(key).collect();
    let mut facets: Vec<&str> = Vec::new();
    for draft in drafts {
        if !facets.contains(&draft.facet.as_str()) {
            facets.push(&draft.facet);
        }
    }
    let facets: Vec<String> =
        facets.into_iter().map(|facet| format!("{}: {{ none: true }}", key(facet))).collect();
    let origin = on_one_line(origin.rsplit(['/', '\\']).next().unwrap_or_default());
    let mut lines = vec![
        format!("# Made by `populate thesaurus import` of {origin}."),
        "# Mind the license of the vocabulary before you pass it on.".to_owned(),
        format!("schema: {SCHEMA}"),
        format!("id: {}", key(id)),
        format!("languages: [{}]", languages.join(", ")),
        format!("facets: {{ {} }}", facets.join(", ")),
        "entities:".to_owned(),
    ];
    lines.extend(drafts.iter().map(|draft| entity(draft, drafts)));
    lines.push(String::new());
    lines.join("\n")
}

fn entity(draft: &Draft, drafts: &[Draft]) -> String {
    let mut parts = vec![format!("facet: {}", key(&draft.facet))];
    if draft.node == Node::Inner {
        parts.push("counted: false".to_owned());
    }
    if let Some(above) = draft.broader.and_then(|above| drafts.get(above)) {
        parts.push(format!("broader: {}", key(&above.id)));
    }
    if !draft.related.is_empty() {
        let related: Vec<String> = draft.related.iter().map(|id| key(id)).collect();
        parts.push(format!("related: [{}]", related.join(", ")));
    }
    if let Some(notation) = &draft.notation {
        parts.push(format!("notation: {}", quoted(notation)));
    }
    parts.push(format!("source: {}", quoted(&draft.iri)));
    parts.push(format!("label: {}", by_language(&draft.label, &|label| quoted(label))));
    if !draft.synonyms.is_empty() {
        let list = |names: &Vec<String>| {
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            format!("[{}]", names.join(", "))
        };
        parts.push(format!("synonyms: {}", by_language(&draft.synonyms, &list)));
    }
    format!("  {}: {{ {} }}", key(&draft.id), parts.join(", "))
}

fn by_language<T>(words: &BTreeMap<String, T>, write: &dyn Fn(&T) -> String) -> String {
    let one = |(language, words): (&String, &T)| format!("{}: {}", key(language), write(words));
    let all: Vec<String> = words.iter().map(one).collect();
    format!("{{ {} }}", all.join(", "))
}

/// A word as it is where every YAML reader takes it for text, else in quotes: `no` is a language, too.
fn key(word: &str) -> String {
    let begins = word.starts_with(|c: char| c.is_ascii_lowercase());
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if begins && word.chars().all(is_plain) && !RESERVED.contains(&word) {
        word.to_owned()
    } else {
        quoted(word)
    }
}

/// A text in double quotes; what JSON escapes, YAML reads alike.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_yaml_takes_for_something_else_stand_in_quotes() {
        for plain in ["lighthouse", "north-sea", "a2"] {
            assert_eq!(key(plain), plain);
        }
        for word in ["no", "true", "2001", "-a", "bâtiment", "", "A", "a b", "y"] {
            assert_eq!(key(word), format!("\"{word}\""));
        }
        assert_eq!(quoted("say \"no\"\\"), r#""say \"no\"\\""#);
    }
}
