//! The page of a comparison: several settlements in one table, and who differs from whom.

use super::html::{CSP, STYLE};
use super::words::{Language, Words};
use eval::compare::{ComparedEntity, ComparedPair, ComparedState, Comparison};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use statistics::interval::Estimate;

/// The page, whole in itself.
pub fn page(comparison: &Comparison) -> String {
    let words = Words::new(Language::English);
    let names: Vec<&str> = comparison.states.iter().map(|state| state.name.as_str()).collect();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CSP);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light";
                title { "Comparison of settlements" }
                @for style in STYLE { style { (PreEscaped(style)) } }
            }
            body {
                header {
                    p class="eyebrow" { "Comparison · " (comparison.facet) }
                    h1 { (names.len()) " settlements" }
                    p class="note" {
                        "All pictures on the same noise, compared seed by seed. Brackets: 95 % intervals, simultaneous over all entities where entities are compared."
                    }
                }
                main {
                    (section("states", "Each against the base", &states(comparison, &words)))
                    @for (i, pair) in comparison.pairs.iter().enumerate() {
                        (section(&format!("pair-{i}"), &format!("{} → {}", pair.from, pair.to), &between(pair, &words)))
                    }
                }
            }
        }
    };
    markup.into_string()
}

fn section(id: &str, title: &str, body: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            div class="margin" { h2 id={ (id) "-title" } { (title) } p { a href="comparison.json" { "data as JSON" } } }
            div class="body" { (body) }
        }
    }
}

fn states(comparison: &Comparison, words: &Words) -> Markup {
    let share = |estimate: &Option<Estimate>, scale: f64, digits: usize| {
        estimate.as_ref().map_or("not measured".to_owned(), |e| words.estimate(e, scale, digits))
    };
    let row = |state: &ComparedState| {
        html! {
            tr {
                th scope="row" { (state.name) }
                td { (state.concept) }
                td class="num" { (words.exact(state.dose)) }
                td class="num" { (share(&state.new_share, 100.0, 1)) }
                td class="num" { (words.estimate(&state.displaced, 100.0, 1)) }
                td class="num" { (words.estimate(&state.dilution, 1.0, 3)) }
                td class="num" { (words.estimate(&state.selection, 1.0, 3)) }
                td class="num" { (share(&state.leak, 100.0, 1)) }
                td class="num" { (share(&state.fabric_ratio, 1.0, 2)) }
            }
        }
    };
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Settlements against the base" {
            table {
                caption { "Shares in places of 100 unasked pictures; dilution and selection in nats." }
                thead { tr {
                    @for head in ["settlement", "concept", "dose", "comes unasked", "displaced", "dilution", "selection", "without identifier", "fabric kept"] {
                        th scope="col" { (head) }
                    }
                } }
                tbody { @for state in &comparison.states { (row(state)) } }
            }
        }
    }
}

fn between(pair: &ComparedPair, words: &Words) -> Markup {
    let mut entities: Vec<&ComparedEntity> = pair.entities.iter().collect();
    entities.sort_by(|a, b| a.delta.value.total_cmp(&b.delta.value));
    let apart = |entity: &ComparedEntity| {
        entity.delta.ci.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    };
    html! {
        p {
            "Total variation " (words.estimate(&pair.tv, 100.0, 1)) " of 100, floor "
            (words.number(100.0 * pair.tv_floor, 1)) ", p " (words.number(pair.tv_p, 3)) ", over "
            (words.thousands(pair.pairs)) " pairs. Bold: an interval that leaves out zero."
        }
        table class="bars" role="table" {
            caption { "Change of each entity’s places of 100, from the first to the second." }
            thead { tr { th scope="col" { "entity" } th scope="col" class="num" { "change" } th scope="col" class="num" { "mid-p" } th scope="col" class="num" { "q" } } }
            tbody {
                @for entity in entities {
                    tr {
                        th scope="row" { (entity.id) }
                        td class="num" {
                            @if apart(entity) { b { (words.estimate(&entity.delta, 100.0, 1)) } }
                            @else { (words.estimate(&entity.delta, 100.0, 1)) }
                        }
                        td class="num" { (words.number(entity.mid_p, 3)) }
                        td class="num" { (words.number(entity.q, 3)) }
                    }
                }
            }
        }
    }
}
