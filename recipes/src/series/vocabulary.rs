//! The words of a series file: its templates, and what may stand in their slots.

use std::collections::BTreeSet;

use serde_saphyr::{Location, Spanned};

use super::entries::Entries;
use super::template::Template;
use crate::field::{Field, Found, WordOrList};
use crate::problem::{Checks, items};
use crate::{suggest, units};

/// Words that a piece of advice lists at most.
const LISTED: usize = 12;

/// Something that the user named.
#[derive(Debug)]
pub(super) struct Named<T> {
    /// Its name.
    pub(super) name: String,
    /// What it is; nothing where that is broken and has been reported.
    pub(super) value: Option<T>,
    /// Where the name stands.
    name_at: Location,
    /// Where the value stands.
    value_at: Location,
}

/// Templates and slots, in the order of the text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    templates: Vec<Named<Template>>,
    slots: Vec<Named<Vec<String>>>,
}

impl Vocabulary {
    /// Resolves both sections of the file at `root`.
    pub(super) fn resolve(
        templates: Field<Entries<String>>,
        slots: Field<Entries<WordOrList>>,
        root: Location,
        checks: &mut Checks,
    ) -> Self {
        let templates = self::templates(templates, root, checks);
        let vocabulary = Self { templates, slots: self::slots(slots, checks) };
        vocabulary.check_slots(checks);
        vocabulary
    }

    /// The template of this name.
    pub(super) fn template(&self, name: &str) -> Option<&Named<Template>> {
        self.templates.iter().find(|template| template.name == name)
    }

    /// The template, if there is only one.
    pub(super) fn only_template(&self) -> Option<&Named<Template>> {
        match self.templates.as_slice() {
            [template] => Some(template),
            _ => None,
        }
    }

    /// The names of all templates.
    pub(super) fn template_names(&self) -> Vec<&str> {
        self.templates.iter().map(|template| template.name.as_str()).collect()
    }

    /// The values of a slot; nothing if there is none of this name, or if its values are broken.
    pub(super) fn values(&self, slot: &str) -> Option<&[String]> {
        self.slots.iter().find(|named| named.name == slot)?.value.as_deref()
    }

    /// Records slots that a template names and nobody fills, and slots that no template names.
    fn check_slots(&self, checks: &mut Checks) {
        let known: Vec<&str> = self.slots.iter().map(|slot| slot.name.as_str()).collect();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for template in &self.templates {
            for slot in template.value.iter().flat_map(Template::slots) {
                used.insert(slot);
                if !known.contains(&slot) {
                    checks.problem_with_hint(
                        template.value_at,
                        format!("`templates.{}` has the unknown slot `{slot}`", template.name),
                        advice(slot, &known),
                    );
                }
            }
        }
        // What a broken template names is not known.
        let is_known = |template: &Named<Template>| template.value.is_some();
        if self.templates.is_empty() || !self.templates.iter().all(is_known) {
            return;
        }
        for slot in self.slots.iter().filter(|slot| !used.contains(slot.name.as_str())) {
            checks.problem_with_hint(
                slot.name_at,
                format!("no template has the slot `{}`", slot.name),
                format!("write `{{{}}}` into a template, or remove the slot", slot.name),
            );
        }
    }

    /// Records templates that no series names.
    pub(super) fn check_templates(&self, used: &BTreeSet<String>, checks: &mut Checks) {
        for template in self.templates.iter().filter(|template| !used.contains(&template.name)) {
            let message = format!("no series has the template `{}`", template.name);
            checks.problem(template.name_at, message);
        }
    }
}

fn templates(
    raw: Field<Entries<String>>,
    root: Location,
    checks: &mut Checks,
) -> Vec<Named<Template>> {
    let Some(entries) = raw.required("templates", root, checks) else { return Vec::new() };
    if entries.value.0.is_empty() {
        let message = "`templates` must hold at least one template, found none";
        checks.problem(entries.referenced, message);
    }
    let mut templates = Vec::with_capacity(entries.value.0.len());
    for (name, text) in entries.value.0 {
        let key = format!("templates.{}", name.value);
        let value_at = text.location().unwrap_or(name.referenced);
        let text = text.given(&key, checks).map(|text| units::text(text, &key, checks));
        let value = text.and_then(|text| match Template::parse(&text) {
            Ok(template) => Some(template),
            Err(reason) => {
                checks.problem(value_at, format!("`{key}`: {reason}"));
                None
            }
        });
        templates.push(Named { name: name.value, value, name_at: name.referenced, value_at });
    }
    templates
}

fn slots(raw: Field<Entries<WordOrList>>, checks: &mut Checks) -> Vec<Named<Vec<String>>> {
    let Some(entries) = raw.given("slots", checks) else { return Vec::new() };
    let mut slots = Vec::with_capacity(entries.value.0.len());
    for (name, words) in entries.value.0 {
        let key = format!("slots.{}", name.value);
        let value_at = words.location().unwrap_or(name.referenced);
        let value = words.given(&key, checks).and_then(|words| values(words, &key, checks));
        let value = value.map(|list| list.into_iter().map(|word| word.value).collect());
        slots.push(Named { name: name.value, value, name_at: name.referenced, value_at });
    }
    slots
}

/// One word or a list of them: at least one, each once, and none with a slot of its own. Nothing
/// where one of these rules is broken.
pub(super) fn values(
    words: Spanned<WordOrList>,
    key: &str,
    checks: &mut Checks,
) -> Option<Vec<Spanned<String>>> {
    let Spanned { value: words, referenced, defined } = words;
    let list = match words {
        WordOrList::List(list) => items(list, key, checks),
        WordOrList::Word(Found::Text(value)) => vec![Spanned { value, referenced, defined }],
        WordOrList::Word(found) => {
            checks.problem_with_hint(
                referenced,
                format!("`{key}` must be a text or a list of texts, found {found}"),
                "a number that is a word stands in quotes",
            );
            return None;
        }
    };
    if list.is_empty() {
        checks.problem(referenced, format!("`{key}` must hold at least one value, found none"));
        return None;
    }
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut is_sound = true;
    for word in &list {
        let shown = word.value.escape_debug();
        if word.value.contains(['{', '}']) {
            let message = format!("`{key}` holds values, not templates, found `{shown}`");
            checks.problem(word.referenced, message);
            is_sound = false;
        }
        if !seen.insert(&word.value) {
            checks.problem(word.referenced, format!("`{key}` holds `{shown}` twice"));
            is_sound = false;
        }
    }
    is_sound.then_some(list)
}

/// The nearest known word, or what is known.
pub(super) fn advice(found: &str, known: &[&str]) -> String {
    if let Some(word) = suggest::nearest(found, known) {
        return format!("did you mean `{word}`?");
    }
    let listed: Vec<&str> = known.iter().take(LISTED).copied().collect();
    let more = if known.len() > LISTED { " and more" } else { "" };
    match listed.as_slice() {
        [] => "there are none yet".to_owned(),
        listed => format!("known are `{}`{more}", listed.join("`, `")),
    }
}
