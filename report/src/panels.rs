//! The panels of the page that show pictures: the arrival, the pairs, the flows, the dose strip.

use super::{Pictures, RunInfo, chart, flow, prose, thumbnail};
use eval::json::CensusReport;
use eval::record::{DoseRecord, FacetRecord, Pair, Seen, Transition};
use eval::thesaurus::NONE;
use maud::{Markup, html};
use statistics::number::real_u64;

/// Transitions of the concept's facet that are listed with their pictures.
const LISTED: usize = 12;
/// Pairs that `census::atlas` chooses at most, and how many of them may have changed.
pub(super) const SHOWN: usize = 12;
pub(super) const CHANGED: usize = 9;
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

    /// Identifier of what a picture bears in the concept's facet.
    fn entity(&self, seen: &'a Seen) -> &'a str {
        let facet = self.census.facets.iter().position(|f| f.id == self.census.concept.facet);
        facet.and_then(|f| seen.entities.get(f)).map_or(NONE, String::as_str)
    }

    /// What a picture bears in the concept's facet.
    fn subject(&self, seen: &'a Seen) -> &'a str {
        let id = self.entity(seen);
        if id == NONE { "none of these" } else { prose::name(self.census, id) }
    }

    /// How many of these changed, and how many of those became the concept.
    fn changes(&self, ends: impl Iterator<Item = [&'a Seen; 2]>) -> [usize; 2] {
        let (mut changed, mut arrived) = (0, 0);
        for [before, after] in ends {
            let (from, to) = (self.entity(before), self.entity(after));
            changed += usize::from(from != to);
            arrived += usize::from(from != to && to == self.census.concept.id);
        }
        [changed, arrived]
    }

    /// Whether the shares of the headline, of the ladder and of the doses are corrected.
    pub(super) fn counted(&self) -> &'static str {
        if self.census.leak.levels.iter().all(|level| level.corrected) {
            "corrected for the detector’s misses and false alarms"
        } else {
            "as the detector fired, uncorrected"
        }
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
                        @if before == after { " " (arrow("=", "stays")) " " }
                        @else { " " (arrow("→", "becomes")) " " }
                        @if self.entity(&pair.after) == self.census.concept.id { em { (after) } } @else { (after) }
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
            (self.rungs())
            p class="key" {
                span { (key("base", "○")) " base" } span { (key("adapted", "■")) " adapted" }
            }
            @if !census.atlas.asked.is_empty() {
                h3 { "Asked by its name" }
                div class="pairs" { @for pair in &census.atlas.asked { (self.pair(pair)) } }
            }
        }
    }

    /// The ladder: one row per kind of prompt, with the number of its pairs. The roles keep it a
    /// table where a phone lays its rows out as blocks.
    fn rungs(&self) -> Markup {
        let name = &self.census.concept.name;
        let identifier = self.census.concept.identifier.as_deref().unwrap_or(name);
        let label = |id: &str| match id {
            "identifier" => format!("asked by “{identifier}”"),
            "plain" => "the same words without it".to_owned(),
            "sibling" => "siblings asked".to_owned(),
            "unrelated" => "unrelated entities asked".to_owned(),
            _ => "nothing asked".to_owned(),
        };
        html! {
            table class="rungs" role="table" {
                caption { "Places of 100 that show the " (name) ", " (self.counted()) ", before and after, with the number of pairs of pictures; line: 95 % interval after." }
                thead role="rowgroup" { tr role="row" {
                    th scope="col" role="columnheader" { "prompt" }
                    th scope="col" role="columnheader" class="wide" { span class="sr" { "chart" } }
                    th scope="col" role="columnheader" class="num" { "before" }
                    th scope="col" role="columnheader" class="num" { "after" }
                } }
                tbody role="rowgroup" {
                    @for level in &self.census.leak.levels {
                        tr role="row" {
                            th scope="row" role="rowheader" { (label(&level.level)) " " span class="n" { (prose::thousands(level.pairs)) " pairs" } }
                            td role="cell" class="wide" { (chart::rung(level, &label(&level.level))) }
                            td role="cell" class="num" data-label="before" { (prose::number(100.0 * level.before.value, 1)) }
                            td role="cell" class="num" data-label="after" { (prose::estimate(&level.after, 100.0, 1)) }
                        }
                    }
                }
            }
        }
    }

    /// The first page's pairs, with the rule that chose them and how rare a change really is.
    pub(super) fn pairs(&self) -> Markup {
        let census = self.census;
        let (facet, pairs) = (&census.concept.facet, &census.atlas.pairs);
        let [changed, arrived] = self.changes(pairs.iter().map(|pair| [&pair.before, &pair.after]));
        let all = census.counts.headline_pairs;
        let moved = prose::home(census).map_or(0, |home| flow::moved(census, home, None));
        let share = 100.0 * real_u64(moved) / real_u64(all.max(1));
        html! {
            p {
                "Left the base, right the adapted model: same prompt, same seed, same noise at every step. Chosen by rule, never by looks, of the pairs whose pictures were kept: up to "
                (CHANGED) " of " (SHOWN) " changed their " (facet)
                @if arrived > 0 {
                    ", first those that became the " (census.concept.name) ", in turn for each " (facet) " that they were before"
                }
                "; the rest stayed what they were. Within each kind they stand prompt by prompt and by seed number."
            }
            p class="note" {
                "Of the " (pairs.len()) " pairs here " (changed) " changed; in the whole census "
                (prose::thousands(moved)) " of " (prose::thousands(all)) " unasked pairs did ("
                (prose::number(share, 1)) " %, raw counts)."
            }
            div class="pairs" { @for pair in pairs { (self.pair(pair)) } }
        }
    }

    /// The flow diagram, and each way with its pictures.
    pub(super) fn places(&self, facet: &'a FacetRecord) -> Markup {
        let ways: Vec<&Transition> =
            self.census.transitions.iter().filter(|t| t.facet == facet.id).collect();
        html! {
            p { (flow::sentence(self.census, facet)) " Raw counts of pictures, before left, after right." }
            p class="key" {
                span { (key("stay", "■")) " stayed (pale)" }
                span { (key("moved", "■")) " moved to another (blue)" }
                span { (key("taken", "■")) " taken by the " (self.census.concept.name) " (orange)" }
            }
            (flow::diagram(self.census, facet))
            (flow::counts(self.census, facet))
            @if ways.len() > LISTED {
                p class="note listed" { (LISTED) " of " (ways.len()) " ways shown, the largest first. The table holds all of them." }
            }
            @for transition in ways.iter().take(LISTED) {
                details class="way" {
                    summary {
                        span { (prose::name(self.census, &transition.from)) " " (arrow("→", "to")) " " (prose::name(self.census, &transition.to)) }
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
            || "That the share rises between dose 0 and dose 1 is not beyond chance.".to_owned(),
            |d| {
                let ci = dose.half_effect_ci.map(|ci| format!(" {}", prose::interval(ci, 1.0, 2)));
                let ci = ci.unwrap_or_default();
                format!("Half of the effect is reached at dose {}{ci}.", prose::number(d, 2))
            },
        );
        html! {
            p { (half) " Curve: places of 100 that show the " (census.concept.name) ", " (self.counted()) ", with 95 % intervals; line: isotonic fit. Each dose: " (self.drawn(dose)) "." }
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
            @if !census.atlas.strip.is_empty() { p class="note listed" { (self.strip_rule()) } }
        }
    }

    /// How many pictures stand behind each dose. Only doses beside 1 are drawn on fewer seeds than
    /// the headline, and on the empty prompt alone.
    fn drawn(&self, dose: &DoseRecord) -> String {
        let pairs = dose.points.first().map_or(0, |point| point.pairs);
        let of =
            if pairs < self.census.counts.headline_pairs { " of the empty prompt" } else { "" };
        format!("{} unasked pictures{of}", prose::thousands(pairs))
    }

    /// How the rows of the strip were chosen, and what became of them at the last dose.
    fn strip_rule(&self) -> String {
        let census = self.census;
        let (facet, strip) = (&census.concept.facet, &census.atlas.strip);
        let ends = strip.iter().filter_map(|row| Some([row.first()?, row.last()?]));
        let told = match self.changes(ends) {
            [0, _] => format!("in none of them did the {facet} change"),
            [changed, arrived] => format!(
                "of {} rows {changed} changed their {facet}, {arrived} of them to the {}",
                strip.len(),
                census.concept.name
            ),
        };
        format!(
            "Rows: seeds that every dose drew, chosen by the rule of the pairs above, changed ones first; {told}."
        )
    }
}

/// A sign between two names, and the word that a screen reader says for it.
fn arrow(sign: &str, word: &str) -> Markup {
    html! {
        span class="arrow" aria-hidden="true" { (sign) }
        span class="sr" { (word) }
    }
}

/// A mark in a legend.
pub(super) fn key(class: &str, glyph: &str) -> Markup {
    html! { span class={ "mark-key " (class) } aria-hidden="true" { (glyph) } }
}
