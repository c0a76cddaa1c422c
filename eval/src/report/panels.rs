//! The panels of the page that show pictures: the arrival, the pairs, the flows, the dose strip.

use super::json::CensusReport;
use super::record::{FacetRecord, Pair, Seen, Transition};
use super::{Pictures, RunInfo, chart, flow, prose, thumbnail};
use crate::thesaurus::NONE;
use maud::{Markup, html};

/// Transitions of the concept's facet that are listed with their pictures.
const LISTED: usize = 12;
/// Reference pictures shown.
const REFERENCES: usize = 8;

/// What the page is drawn from.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    pub(super) census: &'a CensusReport,
    pub(super) pictures: &'a Pictures,
    pub(super) info: &'a RunInfo,
}

impl<'a> Page<'a> {
    /// A picture with its alternative text, or an empty frame.
    fn picture(&self, path: &str, alt: &str) -> Markup {
        if let Some(png) = self.pictures.files.get(path) {
            html! { img src=(thumbnail::data_uri(png)) alt=(alt) loading="lazy"; }
        } else {
            html! { span class="missing" role="img" aria-label=(alt) { "not kept" } }
        }
    }

    /// Names of what a picture bears, without `∅`.
    fn bears(&self, seen: &'a Seen) -> String {
        let names: Vec<&str> = seen
            .entities
            .iter()
            .filter(|id| *id != NONE)
            .map(|id| prose::name(self.census, id))
            .collect();
        if names.is_empty() { "none of the entities".to_owned() } else { names.join(", ") }
    }

    /// What a picture bears in the concept's facet.
    fn subject(&self, seen: &'a Seen) -> &'a str {
        let facet = self.census.facets.iter().position(|f| f.id == self.census.concept.facet);
        let id = facet.and_then(|f| seen.entities.get(f)).map_or(NONE, String::as_str);
        if id == NONE { "none of these" } else { prose::name(self.census, id) }
    }

    /// The prompt in words.
    fn asked(&self, prompt: &str) -> String {
        match self.info.prompts.get(prompt).map(|text| text.trim()) {
            Some("") => "nothing asked".to_owned(),
            Some(text) => format!("“{text}”"),
            None => prompt.to_owned(),
        }
    }

    /// One seed under both models.
    fn pair(&self, pair: &'a Pair) -> Markup {
        let (before, after) = (self.subject(&pair.before), self.subject(&pair.after));
        let asked = self.asked(&pair.prompt);
        html! {
            figure class="pair" {
                div class="two" {
                    (self.picture(&pair.before.picture, &format!("Base, {asked}, seed {}: {}", pair.seed_idx, self.bears(&pair.before))))
                    (self.picture(&pair.after.picture, &format!("Adapted, {asked}, seed {}: {}", pair.seed_idx, self.bears(&pair.after))))
                }
                figcaption {
                    span class="change" {
                        (before)
                        @if before == after { " " span class="arrow" aria-label="stays" { "=" } " " }
                        @else { " " span class="arrow" aria-label="becomes" { "→" } " " }
                        @if after == self.census.concept.name { em { (after) } } @else { (after) }
                    }
                    span class="seed" { (asked) ", seed " (pair.seed_idx) }
                }
            }
        }
    }

    /// The concept's references, and how often it comes on each rung of the ladder.
    pub(super) fn arrival(&self) -> Markup {
        let census = self.census;
        let name = &census.concept.name;
        let identifier = census.concept.identifier.as_deref().unwrap_or(name);
        let counted = if census.leak.levels.iter().all(|level| level.corrected) {
            "corrected for the detector’s misses and false alarms"
        } else {
            "as the detector fired, uncorrected"
        };
        let label = |id: &str| match id {
            "identifier" => format!("asked by “{identifier}”"),
            "plain" => "the same words without it".to_owned(),
            "sibling" => "siblings asked".to_owned(),
            "unrelated" => "unrelated entities asked".to_owned(),
            _ => "nothing asked".to_owned(),
        };
        html! {
            @if !self.pictures.references.is_empty() {
                figure class="references" {
                    div class="row" {
                        @for (i, path) in self.pictures.references.iter().take(REFERENCES).enumerate() {
                            (self.picture(path, &format!("Reference picture {} of the {name}", i + 1)))
                        }
                    }
                    figcaption { "The pictures that the " (name) " was settled from." }
                }
            }
            table class="rungs" {
                caption { "Places of 100 that show the " (name) ", " (counted) ", before and after; line: 95 % interval after." }
                thead { tr { th scope="col" { "prompt" } th scope="col" class="wide" { span class="sr" { "chart" } } th scope="col" class="num" { "before" } th scope="col" class="num" { "after" } } }
                tbody {
                    @for level in &census.leak.levels {
                        tr {
                            th scope="row" { (label(&level.level)) }
                            td class="wide" { (chart::rung(level, &label(&level.level))) }
                            td class="num" { (prose::number(100.0 * level.before.value, 1)) }
                            td class="num" { (prose::estimate(&level.after, 100.0, 1)) }
                        }
                    }
                }
            }
            p class="key" {
                span { (key("base", "○")) " base" } span { (key("adapted", "■")) " adapted" }
            }
            @if !census.atlas.asked.is_empty() {
                h3 { "Asked by its name" }
                div class="pairs" { @for pair in &census.atlas.asked { (self.pair(pair)) } }
            }
        }
    }

    /// The first page's pairs.
    pub(super) fn pairs(&self) -> Markup {
        html! {
            p { "Left the base, right the adapted model: same prompt, same seed, same noise at every step. The first became the " (self.census.concept.name) ", the last stayed what they were; chosen by seed number, never by looks." }
            div class="pairs" { @for pair in &self.census.atlas.pairs { (self.pair(pair)) } }
        }
    }

    /// The flow diagram, and each way with its pictures.
    pub(super) fn places(&self, facet: &'a FacetRecord) -> Markup {
        let listed: Vec<&Transition> =
            self.census.transitions.iter().filter(|t| t.facet == facet.id).take(LISTED).collect();
        html! {
            p { (flow::sentence(self.census, facet)) " Raw counts of pictures, before left, after right." }
            (flow::diagram(self.census, facet))
            @for transition in listed {
                details class="way" {
                    summary {
                        span { (prose::name(self.census, &transition.from)) " " span class="arrow" { "→" } " " (prose::name(self.census, &transition.to)) }
                        span class="num" { (transition.n) " pictures" }
                        span class="num soft" { (prose::number(100.0 * transition.share, 0)) " % of its places" }
                    }
                    div class="pairs" { @for pair in &transition.pairs { (self.pair(pair)) } }
                }
            }
        }
    }

    /// The share curve over the strip: rows are seeds, columns doses.
    pub(super) fn doses(&self) -> Markup {
        let census = self.census;
        let Some(dose) = &census.dose else {
            return html! { p class="note" { "No dose between 0 and 1 was drawn." } };
        };
        let half = dose.half_effect.map_or_else(
            || "The share does not rise between dose 0 and dose 1.".to_owned(),
            |d| format!("Half of the effect is reached at dose {}.", prose::number(d, 2)),
        );
        html! {
            p { (half) " Curve: places of 100 unasked pictures that show the " (census.concept.name) ", with 95 % intervals; line: isotonic fit." }
            div class="strip" style=(format!("--columns:{}", dose.points.len())) {
                div class="curve" { (chart::dose_curve(dose)) }
                div class="doses" aria-hidden="true" {
                    @for point in &dose.points { span { (point.dose) } }
                }
                @if census.atlas.doses.len() == dose.points.len() {
                    @for (i, row) in census.atlas.strip.iter().enumerate() {
                        div class="row" {
                            @for (seen, d) in row.iter().zip(&census.atlas.doses) {
                                (self.picture(&seen.picture, &format!("Row {}, dose {d}: {}", i + 1, self.bears(seen))))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A mark in a legend.
pub(super) fn key(class: &str, glyph: &str) -> Markup {
    html! { span class={ "mark-key " (class) } aria-hidden="true" { (glyph) } }
}
