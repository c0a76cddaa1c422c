//! The opening plates: what was settled and how often it comes, then pairs of pictures.

use super::Panel;
use crate::chart;
use crate::flow;
use crate::page::{Page, key};
use eval::record::LeakLevel;
use maud::{Markup, html};
use statistics::number::real_u64;

/// Pairs that `census::atlas` chooses at most, and how many of them may have changed.
pub(crate) const SHOWN: usize = 12;
pub(crate) const CHANGED: usize = 9;
/// Reference pictures shown.
const REFERENCES: usize = 8;

/// The concept's references, and how often it comes on each rung of the ladder.
pub(crate) fn arrival(page: &Page<'_>) -> Panel {
    let (census, words) = (page.census, page.words);
    let concept = page.concept();
    let name = words.mention(&concept);
    let body = html! {
        @if !page.pictures.references.is_empty() {
            figure class="references" {
                div class="row" {
                    @for (i, path) in page.pictures.references.iter().take(REFERENCES).enumerate() {
                        @let number = (i + 1).to_string();
                        (page.picture(path, &words.fill("arrival.reference", &[("n", &number), ("name", &name)])))
                    }
                }
                figcaption { (words.fill("arrival.references", &[("name", &name)])) }
            }
        }
        (rungs(page, &concept))
        p class="key" {
            span { (key("base", "○")) " " (words.say("page.base")) }
            span { (key("adapted", "■")) " " (words.say("page.adapted")) }
        }
        @if !census.atlas.asked.is_empty() {
            h3 { (words.say("arrival.asked")) }
            div class="pairs" { @for pair in &census.atlas.asked { (page.pair(pair)) } }
        }
    };
    Panel {
        id: "arrival",
        title: words.say("arrival.title").to_owned(),
        data: Some("leak.csv"),
        body,
    }
}

/// What one rung asks.
fn rung_label(page: &Page<'_>, level: &LeakLevel, concept: &str) -> String {
    let identifier = page.census.concept.identifier.as_deref().unwrap_or(concept);
    let identifier = page.words.quoted(identifier);
    match level.level.as_str() {
        "identifier" => page.words.fill("arrival.rung_identifier", &[("identifier", &identifier)]),
        "plain" => page.words.say("arrival.rung_plain").to_owned(),
        "sibling" => page.words.say("arrival.rung_sibling").to_owned(),
        "unrelated" => page.words.say("arrival.rung_unrelated").to_owned(),
        _ => page.words.say("arrival.rung_unasked").to_owned(),
    }
}

/// The ladder: one row per kind of prompt, with the number of its pairs. The roles keep it a
/// table where a phone lays its rows out as blocks.
fn rungs(page: &Page<'_>, concept: &str) -> Markup {
    let words = page.words;
    let name = words.mention(concept);
    let caption = [("name", &*name), ("counted", page.counted())];
    let (before, after) = (words.say("page.before"), words.say("page.after"));
    html! {
        table class="rungs" role="table" {
            caption { (words.fill("arrival.caption", &caption)) }
            thead role="rowgroup" { tr role="row" {
                th scope="col" role="columnheader" { (words.say("arrival.prompt")) }
                th scope="col" role="columnheader" class="wide" { span class="sr" { (words.say("page.chart")) } }
                th scope="col" role="columnheader" class="num" { (before) }
                th scope="col" role="columnheader" class="num" { (after) }
            } }
            tbody role="rowgroup" {
                @for level in &page.census.leak.levels {
                    @let label = rung_label(page, level, concept);
                    tr role="row" {
                        th scope="row" role="rowheader" { (label) " " span class="n" { (words.count("page.pairs", level.pairs)) } }
                        td role="cell" class="wide" { (chart::rung(level, &label, words)) }
                        td role="cell" class="num" data-label=(before) { (words.number(100.0 * level.before.value, 1)) }
                        td role="cell" class="num" data-label=(after) { (words.estimate(&level.after, 100.0, 1)) }
                    }
                }
            }
        }
    }
}

/// Pairs of pictures, with the rule that chose them and how rare a change really is.
pub(crate) fn pairs(page: &Page<'_>) -> Panel {
    let words = page.words;
    let pairs = &page.census.atlas.pairs;
    let body = html! {
        p { (rule(page)) }
        p class="note" { (rarity(page)) }
        div class="pairs" { @for pair in pairs { (page.pair(pair)) } }
    };
    Panel {
        id: "pairs",
        title: words.say("arrival.pairs_title").to_owned(),
        data: Some("rows.csv"),
        body,
    }
}

/// How many of the pairs shown changed, and how many of those became the concept.
fn changes(page: &Page<'_>) -> [u64; 2] {
    page.changes(page.census.atlas.pairs.iter().map(|pair| [&pair.before, &pair.after]))
}

/// How the pairs were chosen.
fn rule(page: &Page<'_>) -> String {
    let words = page.words;
    let [_, arrived] = changes(page);
    let name = words.mention(&page.concept());
    let facet = page.facet(&page.census.concept.facet);
    let first = if arrived > 0 {
        words.fill("arrival.rule_first", &[("name", &name), ("facet", &facet)])
    } else {
        String::new()
    };
    words.fill(
        "arrival.rule",
        &[
            ("changed", &CHANGED.to_string()),
            ("shown", &SHOWN.to_string()),
            ("facet", &facet),
            ("first", &first),
        ],
    )
}

/// How many pairs changed here, and how many in the whole census.
fn rarity(page: &Page<'_>) -> String {
    let words = page.words;
    let [changed, _] = changes(page);
    let all = page.census.counts.headline_pairs;
    let moved = page.home().map_or(0, |home| flow::moved(page.census, home, None));
    let share = real_u64(moved) / real_u64(all.max(1));
    words.fill(
        "arrival.rarity",
        &[
            ("here", &page.census.atlas.pairs.len().to_string()),
            ("changed", &words.thousands(changed)),
            ("moved", &words.thousands(moved)),
            ("all", &words.thousands(all)),
            ("share", &words.percent(share, 1)),
        ],
    )
}
