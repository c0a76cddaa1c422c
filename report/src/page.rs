//! What every panel is drawn from, and the few things that most panels say: pictures, names, prompts
//! and pairs.

use super::glyphs::{self, Mark};
use super::plates::Plates;
use super::words::{Language, Words};
use super::{Form, RunInfo};
use eval::Pictures;
use eval::json::CensusReport;
use eval::record::{EntityRecord, FacetRecord, Pair, Seen};
use eval::thesaurus::{BLOCKED, NONE};
use maud::{Markup, html};

/// What the page is drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    /// The census.
    pub(crate) census: &'a CensusReport,
    /// Its pictures.
    pub(crate) pictures: &'a Pictures,
    /// What is known about the run beside it.
    pub(crate) info: &'a RunInfo,
    /// The words of the page's language.
    pub(crate) words: &'a Words,
    /// Where each picture is to be found from the page.
    pub(crate) plates: &'a Plates,
}

impl Page<'_> {
    /// A picture with its alternative text, or an empty frame.
    pub(crate) fn picture(&self, path: &str, alt: &str) -> Markup {
        if let Some(plate) = self.plates.get(path) {
            html! {
                img src=(plate.source) width=(plate.width) height=(plate.height) alt=(alt)
                    loading="lazy" decoding="async";
            }
        } else {
            html! {
                span class="missing" role="img" aria-label=(alt) { (self.words.say("page.not_kept")) }
            }
        }
    }

    /// How many pictures, or groups of them, a panel shows: all of `beside` where pictures are files,
    /// fewer where they stand in the page itself.
    pub(crate) fn at_most(&self, beside: usize, within: usize) -> usize {
        match self.plates.form() {
            Form::Folder => beside,
            Form::SelfContained => within,
        }
    }

    /// The facet that the concept enters.
    pub(crate) fn home(&self) -> Option<&FacetRecord> {
        self.census.facets.iter().find(|facet| facet.id == self.census.concept.facet)
    }

    /// The entity of any facet.
    pub(crate) fn entity_of(&self, id: &str) -> Option<&EntityRecord> {
        self.census.facets.iter().flat_map(|facet| &facet.entities).find(|entity| entity.id == id)
    }

    /// What to call an entity of any facet in the page's language.
    pub(crate) fn name(&self, id: &str) -> String {
        match id {
            NONE => self.words.say("page.none_of_these").to_owned(),
            BLOCKED => self.words.say("page.withheld").to_owned(),
            _ => self.entity_of(id).map_or_else(|| id.to_owned(), |entity| self.label(entity)),
        }
    }

    /// What to call an entity in the page's language.
    pub(crate) fn label(&self, entity: &EntityRecord) -> String {
        self.words.label(entity)
    }

    /// What to call the concept.
    pub(crate) fn concept(&self) -> String {
        let concept = &self.census.concept;
        self.entity_of(&concept.id)
            .map_or_else(|| concept.name.clone(), |entity| self.label(entity))
    }

    /// What to call a facet: its own name where it is none of those that are known.
    pub(crate) fn facet(&self, id: &str) -> String {
        self.words.known(&format!("facet.{id}"), id).to_owned()
    }

    /// Color and sign of an entity of the concept's facet.
    pub(crate) fn mark(&self, id: &str) -> Mark {
        if id == self.census.concept.id {
            return glyphs::CONCEPT;
        }
        let position = self.home().and_then(|home| home.entities.iter().position(|e| e.id == id));
        match (id, position) {
            (NONE, _) | (_, None) => glyphs::NOTHING,
            (BLOCKED, _) => glyphs::WITHHELD,
            (_, Some(position)) => glyphs::mark(position),
        }
    }

    /// Names of what a picture bears, without `∅`.
    pub(crate) fn bears(&self, seen: &Seen) -> String {
        let named = seen.entities.iter().filter(|id| *id != NONE);
        let names: Vec<String> = named.map(|id| self.name(id)).collect();
        if names.is_empty() {
            self.words.say("page.bears_nothing").to_owned()
        } else {
            names.join(", ")
        }
    }

    /// Identifier of what a picture bears in the concept's facet.
    pub(crate) fn entity<'a>(&self, seen: &'a Seen) -> &'a str {
        let facet = self.census.facets.iter().position(|f| f.id == self.census.concept.facet);
        facet.and_then(|facet| seen.entities.get(facet)).map_or(NONE, String::as_str)
    }

    /// How many of these changed, and how many of those became the concept.
    pub(crate) fn changes<'a>(&self, ends: impl Iterator<Item = [&'a Seen; 2]>) -> [u64; 2] {
        let (mut changed, mut arrived) = (0, 0);
        for [before, after] in ends {
            let (from, to) = (self.entity(before), self.entity(after));
            changed += u64::from(from != to);
            arrived += u64::from(from != to && to == self.census.concept.id);
        }
        [changed, arrived]
    }

    /// Whether the shares of the headline, of the ladder and of the doses are corrected.
    pub(crate) fn counted(&self) -> &str {
        if self.census.leak.levels.iter().all(|level| level.corrected) {
            self.words.say("page.corrected")
        } else {
            self.words.say("page.uncorrected")
        }
    }

    /// The prompt in words.
    pub(crate) fn asked(&self, prompt_id: &str) -> String {
        match self.info.prompts.get(prompt_id).map(|text| text.trim()) {
            Some("") => self.words.say("page.nothing_asked").to_owned(),
            Some(text) => self.words.quoted(text),
            None => prompt_id.to_owned(),
        }
    }

    /// One seed under both models.
    pub(crate) fn pair(&self, pair: &Pair) -> Markup {
        let (before, after) = (self.entity(&pair.before), self.entity(&pair.after));
        let (asked, seed) = (self.asked(&pair.prompt), pair.seed_idx.to_string());
        let alt = |key: &str, seen: &Seen| {
            let bears = self.bears(seen);
            let values = [("asked", &*asked), ("seed", &*seed), ("bears", &*bears)];
            self.words.fill(key, &values)
        };
        html! {
            figure class="pair" {
                div class="two" {
                    (self.picture(&pair.before.picture, &alt("page.alt_base", &pair.before)))
                    (self.picture(&pair.after.picture, &alt("page.alt_adapted", &pair.after)))
                }
                figcaption {
                    span class="change" {
                        (self.name(before)) " "
                        @if before == after { (arrow("=", self.words.say("page.stays"))) }
                        @else { (arrow("→", self.words.say("page.becomes"))) }
                        " "
                        @if after == self.census.concept.id { em { (self.name(after)) } }
                        @else { (self.name(after)) }
                    }
                    span class="seed" { (self.words.fill("page.asked_seed", &[("asked", &asked), ("seed", &seed)])) }
                }
            }
        }
    }
}

/// A sentence of the census; where it is known in English alone, a screen reader is told so.
pub(crate) fn told(words: &Words, sentence: &str) -> Markup {
    let text = words.tell(sentence);
    let foreign = words.language() != Language::English && text == sentence;
    html! { span lang=[foreign.then_some("en")] { (text) } }
}

/// A sign between two names, and the word that a screen reader says for it.
pub(crate) fn arrow(sign: &str, word: &str) -> Markup {
    html! {
        span class="arrow" aria-hidden="true" { (sign) }
        span class="sr" { (word) }
    }
}

/// A mark in a legend.
pub(crate) fn key(class: &str, glyph: &str) -> Markup {
    html! { span class={ "mark-key " (class) } aria-hidden="true" { (glyph) } }
}
