//! Identifiers and labels of imported concepts.

use super::graph::{Name, primary};
use super::turtle::{Place, local_name};
use super::{Chosen, Notes, Selection};
use crate::catalogue::Problems;
use crate::panel::slug;
use std::collections::{BTreeMap, BTreeSet};

/// What a concept is called.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// Identifier of the entity.
    pub(super) id: String,
    /// Label per language, and where it stands.
    pub(super) label: BTreeMap<String, (String, Place)>,
    /// Further names per language.
    pub(super) synonyms: BTreeMap<String, Vec<String>>,
}

/// Names of every concept, in the languages that are asked for or that name all of them.
pub(super) fn name(chosen: &[Chosen<'_>], selection: &Selection, notes: &mut Notes) -> Vec<Named> {
    let mut all: Vec<Named> = Vec::new();
    let mut used = BTreeSet::new();
    for one in chosen {
        let mut named = named(&one.concept.labels, &one.concept.synonyms);
        named.id = identifier(one, &named, &mut used);
        if named.label.is_empty() {
            notes.problem(one.place, format!("`{}` has no `skos:prefLabel`", named.id));
        }
        all.push(named);
    }
    let languages = if selection.languages.is_empty() {
        common_languages(chosen, &all, notes)
    } else {
        selection.languages.iter().map(|tag| primary(&tag.to_lowercase()).to_owned()).collect()
    };
    for (one, named) in chosen.iter().zip(&mut all) {
        let lacks = |language: &&String| !named.label.contains_key(*language);
        for language in languages.iter().filter(lacks).filter(|_| !named.label.is_empty()) {
            notes.problem(one.place, format!("`{}` has no label in `{language}`", named.id));
        }
        named.label.retain(|language, _| languages.contains(language));
        named.synonyms.retain(|language, _| languages.contains(language));
    }
    all
}

/// Labels and synonyms by language without region. Of several preferred labels in one language that
/// of the language itself is kept, else the first; the others become synonyms.
fn named(labels: &[Name], synonyms: &[Name]) -> Named {
    let mut label: BTreeMap<String, (String, Place)> = BTreeMap::new();
    let is_plain = |name: &&Name| primary(&name.language) == name.language;
    let plain_first = labels.iter().filter(is_plain).chain(labels.iter().filter(|n| !is_plain(n)));
    for name in plain_first {
        let language = primary(&name.language).to_owned();
        label.entry(language).or_insert_with(|| (name.text.clone(), name.place));
    }
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in labels.iter().chain(synonyms) {
        let language = primary(&name.language);
        let is_label = label.get(language).is_some_and(|(text, _)| *text == name.text);
        let known = others.entry(language.to_owned()).or_default();
        if !is_label && !known.contains(&name.text) {
            known.push(name.text.clone());
        }
    }
    others.retain(|_, names| !names.is_empty());
    Named { id: String::new(), label, synonyms: others }
}

/// The English or first label as an identifier. If another concept has it, the last part of the IRI is
/// added: that stays the same when the vocabulary grows.
fn identifier(one: &Chosen<'_>, named: &Named, used: &mut BTreeSet<String>) -> String {
    let first = one.concept.labels.first().map(|name| name.text.as_str());
    let label = named.label.get("en").map(|(text, _)| text.as_str()).or(first);
    let local = slug(local_name(one.iri));
    let wanted = label.map(slug).filter(|id| !id.is_empty()).unwrap_or_else(|| local.clone());
    if !wanted.is_empty() && used.insert(wanted.clone()) {
        return wanted;
    }
    let longer = if local == wanted { wanted } else { format!("{wanted}-{local}") };
    unused(&longer, "concept", used)
}

/// `wanted` if it is not used yet, else with the first number from 2 on that makes it so; `otherwise`
/// stands for nothing.
pub(super) fn unused(wanted: &str, otherwise: &str, used: &mut BTreeSet<String>) -> String {
    let wanted = wanted.trim_matches('-');
    let wanted = if wanted.is_empty() { otherwise } else { wanted };
    let mut candidate = wanted.to_owned();
    let mut number = 2;
    while !used.insert(candidate.clone()) {
        candidate = format!("{wanted}-{number}");
        number += 1;
    }
    candidate
}

/// The languages in which every concept has a label. If there is none, that is a mistake at the first
/// concept without a label in the language that most have.
fn common_languages(chosen: &[Chosen<'_>], all: &[Named], notes: &mut Notes) -> BTreeSet<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let labeled = all.iter().filter(|named| !named.label.is_empty()).count();
    for language in all.iter().flat_map(|named| named.label.keys()) {
        *counts.entry(language.as_str()).or_default() += 1;
    }
    let common: BTreeSet<String> =
        counts.iter().filter(|(_, n)| **n == labeled).map(|(l, _)| (*l).to_owned()).collect();
    // Of equally common languages the first.
    let most = counts.iter().rev().max_by_key(|(_, n)| **n);
    if let (true, Some((language, n))) = (common.is_empty(), most) {
        let lacks = |named: &Named| !named.label.is_empty() && !named.label.contains_key(*language);
        let first = chosen.iter().zip(all).find(|(_, named)| lacks(named));
        if let Some((one, named)) = first {
            let message = format!(
                "no language has a label of every concept: `{language}`, the most common, has {n} \
                 of {labeled} and none of `{}`",
                named.id
            );
            notes.problem(one.place, message);
        }
    }
    common
}

/// Labels that stand for one entity each within language and facet. A label that another entity has
/// gets what is broader in brackets, else its notation, else a number.
pub(super) fn told_apart(
    chosen: &[Chosen<'_>],
    named: &[Named],
    broader: &[Option<usize>],
    warnings: &mut Problems,
) -> Vec<BTreeMap<String, String>> {
    let mut used: BTreeSet<(&str, &str, String)> = BTreeSet::new();
    let mut all = Vec::new();
    for (at, one) in chosen.iter().enumerate() {
        let mut labels = BTreeMap::new();
        for (language, (text, place)) in &named[at].label {
            let above = broader[at].and_then(|above| named[above].label.get(language));
            let notes = above.map(|(text, _)| text).into_iter().chain(&one.concept.notation);
            let told = notes.map(|note| format!("{text} ({note})"));
            let counted = (2_u64..).map(|number| format!("{text} ({number})"));
            let mut candidates = std::iter::once(text.clone()).chain(told).chain(counted);
            let label = candidates
                .find(|label| used.insert((one.facet, language.as_str(), label.clone())))
                .unwrap_or_default();
            if label != *text {
                let message = format!(
                    "`{text}` is the label of another concept, too: that of `{}` becomes `{label}`",
                    named[at].id
                );
                warnings.push(place.problem(message, None));
            }
            labels.insert(language.clone(), label);
        }
        all.push(labels);
    }
    all
}
