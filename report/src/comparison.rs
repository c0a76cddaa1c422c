//! The page of a comparison: several settlements in one table, and who differs from whom.

use super::html::{CSP, STYLE};
use super::words::{Language, Words};
use eval::compare::{ComparedEntity, ComparedPair, ComparedState, Comparison};
use eval::record::Kind;
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
                    (section("settlements", "One after another", &successive(comparison, &words)))
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

/// The states as successive settlements of one model, and the kinds of bodies that lived through them.
fn successive(comparison: &Comparison, words: &Words) -> Markup {
    let Some(record) = &comparison.settlements else {
        let reason = comparison.refused.iter().find(|refusal| refusal.what == "settlements");
        return html! { p { "Not told: " (reason.map_or("no reason is known", |r| r.reason.as_str())) "." } };
    };
    let kind = |kind: Kind| match kind {
        Kind::Circulating => "circulating",
        Kind::SometimesStops => "sometimes stops",
        Kind::Sedentary => "sedentary",
        Kind::Vanquished => "vanquished",
    };
    html! {
        table {
            caption { "From each state to the next, and from the base to each; places of 100." }
            thead { tr { @for head in ["state", "total variation to the state before", "to the base", "displaced so far", "turnover", "nestedness"] { th scope="col" { (head) } } } }
            tbody {
                @for (step, far) in record.steps.iter().zip(record.distance_to_base.iter().skip(1)) {
                    tr {
                        th scope="row" { (step.to) }
                        td class="num" { (words.estimate(&step.tv, 100.0, 1)) }
                        td class="num" { (words.estimate(far, 100.0, 1)) }
                        td class="num" { (words.number(100.0 * step.displaced_so_far, 1)) }
                        td class="num" { (words.number(step.turnover, 2)) }
                        td class="num" { (words.number(step.nestedness, 2)) }
                    }
                }
            }
        }
        @if record.kinds.is_empty() {
            p class="note" { "The four kinds of bodies show themselves over three states or more." }
        } @else {
            table {
                caption { "Four kinds of bodies, after Beckett, with the probability of each kind over resampled seeds." }
                thead { tr { @for head in ["entity", "kind", "I circulating", "II sometimes stops", "III sedentary", "IV vanquished", "κ"] { th scope="col" { (head) } } } }
                tbody {
                    @for body in &record.kinds {
                        tr {
                            th scope="row" { (body.id) }
                            td { (kind(body.kind)) }
                            @for p in body.probabilities { td class="num" { (words.number(p, 2)) } }
                            td class="num" { (words.number(body.kappa, 2)) }
                        }
                    }
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use eval::compare::SCHEMA;
    use eval::record::Refusal;
    use statistics::interval::CiKind;

    fn comparison() -> Comparison {
        let estimate = |value: f64, ci: [f64; 2]| Estimate::with(value, ci, CiKind::MaxT);
        let state = |name: &str| ComparedState {
            name: name.to_owned(),
            concept: "cylinder".to_owned(),
            dose: 1.0,
            pairs: 640,
            new_share: Some(estimate(0.22, [0.18, 0.28])),
            displaced: estimate(0.3, [0.2, 0.4]),
            dilution: estimate(0.2, [0.1, 0.3]),
            selection: estimate(0.1, [0.0, 0.2]),
            tv: estimate(0.3, [0.2, 0.4]),
            leak: None,
            fabric_ratio: None,
            entities: Vec::new(),
        };
        let entity = |id: &str, value: f64, ci: [f64; 2]| ComparedEntity {
            id: id.to_owned(),
            delta: estimate(value, ci),
            mid_p: 0.5,
            q: 0.5,
        };
        Comparison {
            schema: SCHEMA.to_owned(),
            facet: "subject".to_owned(),
            states: vec![state("runs/<a>"), state("b")],
            pairs: vec![ComparedPair {
                from: "runs/<a>".to_owned(),
                to: "b".to_owned(),
                pairs: 640,
                tv: estimate(0.1, [0.0, 0.2]),
                tv_floor: 0.05,
                tv_p: 0.2,
                entities: vec![
                    entity("sun", 0.0, [-0.1, 0.1]),
                    entity("boat", -0.1, [-0.2, -0.05]),
                ],
            }],
            settlements: None,
            refused: vec![Refusal { what: "settlements".into(), reason: "of several runs".into() }],
        }
    }

    #[test]
    fn the_page_of_a_comparison_loads_nothing_and_escapes_names() {
        let page = page(&comparison());
        assert!(page.contains(CSP) && !page.contains("<script") && !page.contains("://"));
        assert!(page.contains("runs/&lt;a&gt;") && !page.contains("runs/<a>"));
        assert!(page.contains("not measured") && page.contains("of several runs"));
    }

    #[test]
    fn only_what_differs_demonstrably_is_bold_and_the_largest_loss_comes_first() {
        let page = page(&comparison());
        assert!(page.contains("<b>−10.0 [−20.0, −5.0]</b>"), "{page}");
        assert!(!page.contains("<b>0.0"));
        assert!(page.find(">boat<").unwrap() < page.find(">sun<").unwrap());
    }
}
