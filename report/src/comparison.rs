//! The page of a comparison: several settlements in one table, and who differs from whom.

use super::html::{CSP, STYLE};
use super::words::{Language, Words};
use eval::compare::{
    ComparedEntity, ComparedLink, ComparedPair, ComparedState, Comparison, Labels,
};
use eval::record::{Kind, KindRecord, SettlementsRecord};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use statistics::interval::Estimate;

/// The page in one language, whole in itself.
pub fn page(comparison: &Comparison, language: Language) -> String {
    let words = &Words::new(language).with_refusals(&comparison.refused);
    let markup = html! {
        (DOCTYPE)
        html lang=(language.code()) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CSP);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light";
                title { (words.say("comparison.document")) }
                @for other in Language::ALL {
                    link rel="alternate" hreflang=(other.code()) href=(other.file());
                }
                @for style in STYLE { style { (PreEscaped(style)) } }
            }
            body {
                header { (title_page(comparison, words)) }
                main {
                    (section(words, "states", words.say("comparison.states"), &states(comparison, words)))
                    (section(words, "settlements", words.say("comparison.successive"), &successive(comparison, words)))
                    @for (i, pair) in comparison.pairs.iter().enumerate() {
                        (section(words, &format!("pair-{i}"), &format!("{} → {}", pair.from, pair.to), &between(comparison, pair, words)))
                    }
                }
            }
        }
    };
    markup.into_string()
}

fn title_page(comparison: &Comparison, words: &Words) -> Markup {
    let n = u64::try_from(comparison.states.len()).unwrap_or(u64::MAX);
    let nearest = comparison.pairs.iter().any(|pair| pair.labels == Labels::Nearest);
    html! {
        p class="eyebrow" { (words.fill("comparison.eyebrow", &[("facet", &comparison.facet)])) }
        h1 { (words.count("comparison.headline", n)) }
        p class="note" { (words.say("comparison.note")) }
        @if nearest { p class="note" { (words.say("comparison.nearest")) } }
        nav aria-label=(words.say("page.languages")) {
            @for language in Language::ALL.into_iter().filter(|language| *language != words.language()) {
                a href=(language.file()) hreflang=(language.code()) lang=(language.code()) { (language.own_name()) }
            }
        }
    }
}

fn section(words: &Words, id: &str, title: &str, body: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            div class="margin" {
                h2 id={ (id) "-title" } { (title) }
                p { a href="comparison.json" { (words.say("comparison.json")) } }
            }
            div class="body" { (body) }
        }
    }
}

/// The heads of a table's columns.
fn heads(heads: &[&str]) -> Markup {
    html! { thead { tr { @for head in heads { th scope="col" { (head) } } } } }
}

fn states(comparison: &Comparison, words: &Words) -> Markup {
    let columns = [
        words.say("comparison.settlement"),
        words.say("comparison.concept"),
        words.say("comparison.on"),
        words.say("comparison.dose"),
        words.say("comparison.unasked"),
        words.say("comparison.displaced"),
        words.say("comparison.dilution"),
        words.say("comparison.selection"),
        words.say("comparison.without_identifier"),
        words.say("comparison.fabric"),
    ];
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(words.say("comparison.states")) {
            table {
                caption { (words.say("comparison.states_caption")) }
                (heads(&columns))
                tbody { @for state in &comparison.states { (state_row(comparison, state, words)) } }
            }
        }
    }
}

fn state_row(comparison: &Comparison, state: &ComparedState, words: &Words) -> Markup {
    let share = |estimate: &Option<Estimate>, scale: f64, digits: usize| {
        let none = || html! { (words.say("comparison.not_measured")) };
        estimate.as_ref().map_or_else(none, |e| stacked(words, e, scale, digits))
    };
    html! {
        tr {
            th scope="row" { (state.name) }
            td { (state.concept) }
            td { (ground(comparison, state, words)) }
            td class="num" { (words.exact(state.dose)) }
            td class="num" { (share(&state.new_share, 100.0, 1)) }
            td class="num" { (stacked(words, &state.displaced, 100.0, 1)) }
            td class="num" { (stacked(words, &state.dilution, 1.0, 3)) }
            td class="num" { (stacked(words, &state.selection, 1.0, 3)) }
            td class="num" { (share(&state.leak, 100.0, 1)) }
            td class="num" { (share(&state.fabric_ratio, 1.0, 2)) }
        }
    }
}

/// A figure over its interval: ten columns have no room for both in one line.
fn stacked(words: &Words, estimate: &Estimate, scale: f64, digits: usize) -> Markup {
    html! {
        (words.number(scale * estimate.value, digits))
        @if let Some(ci) = estimate.ci { " " span class="n" { (words.interval(ci, scale, digits)) } }
    }
}

/// What a settlement lies on.
fn ground(comparison: &Comparison, state: &ComparedState, words: &Words) -> String {
    match &state.on {
        None => words.say("comparison.bare").to_owned(),
        Some(on) if comparison.states.iter().any(|other| other.name == *on) => on.clone(),
        Some(adapter) => words.fill("comparison.absent", &[("adapter", adapter)]),
    }
}

/// What an entity is called, where any settlement's census says so.
fn name(comparison: &Comparison, words: &Words, id: &str) -> String {
    let mut known = comparison.states.iter().flat_map(|state| &state.entities);
    let entity = known.find(|entity| entity.id == id);
    entity.map_or_else(|| id.to_owned(), |entity| words.label(entity))
}

/// The states as successive settlements of one model, and the kinds of bodies that lived through them.
fn successive(comparison: &Comparison, words: &Words) -> Markup {
    let Some(record) = &comparison.settlements else {
        let reason = words.refused("settlements");
        let reason = reason.unwrap_or_else(|| words.say("comparison.no_reason").to_owned());
        return html! { p { (words.fill("comparison.not_told", &[("reason", &reason)])) } };
    };
    html! {
        p { (words.fill("comparison.sequence", &[("states", &record.states.join(" → "))])) }
        (steps(record, words))
        @for link in &comparison.links { p class="note" { (link_told(link, words)) } }
        (order(comparison, record, words))
        (transfer(record, words))
        @if record.kinds.is_empty() {
            p class="note" { (words.say("comparison.no_kinds")) }
        } @else {
            (kinds(comparison, &record.kinds, words))
        }
    }
}

/// What merging an adapter changed.
fn link_told(link: &ComparedLink, words: &Words) -> String {
    words.fill(
        "comparison.link",
        &[
            ("from", &link.from),
            ("to", &link.to),
            ("different", &words.thousands(link.different)),
            ("pairs", &words.thousands(link.pairs)),
        ],
    )
}

/// From each state to the next, and how far each lies from the first.
fn steps(record: &SettlementsRecord, words: &Words) -> Markup {
    let columns = [
        words.say("comparison.state"),
        words.say("comparison.to_before"),
        words.say("comparison.to_base"),
        words.say("comparison.so_far"),
        words.say("comparison.turnover"),
        words.say("comparison.nestedness"),
    ];
    html! {
        table {
            caption { (words.say("comparison.steps_caption")) }
            (heads(&columns))
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
    }
}

/// Whether the order of the settlements shows, or why that is not told.
fn order(comparison: &Comparison, record: &SettlementsRecord, words: &Words) -> Markup {
    let Some(effect) = record.order_effect else {
        return html! {
            @if let Some(reason) = words.refused("order_effect") {
                p class="note" { (words.fill("comparison.no_order", &[("reason", &reason)])) }
            }
        };
    };
    let number = |value: Option<f64>, scale: f64, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| words.number(scale * value, digits))
    };
    let last = |names: &[String]| names.last().cloned().unwrap_or_default();
    let told = words.fill(
        "comparison.order",
        &[
            ("tv", &words.estimate(&effect, 100.0, 1)),
            ("forward", &last(&record.states)),
            ("reversed", &last(&comparison.reversed)),
            ("floor", &number(record.order_floor, 100.0, 1)),
            ("p", &number(record.order_p, 1.0, 3)),
        ],
    );
    let matters = effect.ci.is_some_and(|[low, _]| low > 0.0);
    html! {
        p {
            (told) " "
            @if matters { (words.say("comparison.order_matters")) } @else { (words.say("comparison.order_unclear")) }
        }
    }
}

/// What became of earlier concepts, or why that is not told.
fn transfer(record: &SettlementsRecord, words: &Words) -> Markup {
    let told = match record.backward_transfer {
        Some(change) => {
            let change = words.signed(100.0 * change, 1);
            Some(words.fill("comparison.transfer", &[("change", &change)]))
        }
        None => words
            .refused("backward_transfer")
            .map(|reason| words.fill("comparison.no_transfer", &[("reason", &reason)])),
    };
    html! { @if let Some(told) = told { p class="note" { (told) } } }
}

fn kinds(comparison: &Comparison, kinds: &[KindRecord], words: &Words) -> Markup {
    let called = |kind: Kind| match kind {
        Kind::Circulating => words.say("kinds.circulating"),
        Kind::SometimesStops => words.say("kinds.sometimes"),
        Kind::Sedentary => words.say("kinds.sedentary"),
        Kind::Vanquished => words.say("kinds.vanquished"),
    };
    let all = [Kind::Circulating, Kind::SometimesStops, Kind::Sedentary, Kind::Vanquished];
    html! {
        table class="kinds" {
            caption { (words.say("comparison.kinds_caption")) }
            thead { tr {
                th scope="col" { (words.say("kinds.entity")) }
                th scope="col" { (words.say("comparison.kind")) }
                @for (numeral, kind) in ["I", "II", "III", "IV"].into_iter().zip(all) {
                    th scope="col" class="num" { (numeral) " " (called(kind)) }
                }
                th scope="col" class="num" { (words.say("kinds.kappa")) }
            } }
            tbody {
                @for body in kinds {
                    tr {
                        th scope="row" { (name(comparison, words, &body.id)) }
                        td { (called(body.kind)) }
                        @for p in body.probabilities { td class="num" { (words.number(p, 2)) } }
                        td class="num" { (words.number(body.kappa, 2)) }
                    }
                }
            }
        }
    }
}

fn between(comparison: &Comparison, pair: &ComparedPair, words: &Words) -> Markup {
    let mut entities: Vec<&ComparedEntity> = pair.entities.iter().collect();
    entities.sort_by(|a, b| a.delta.value.total_cmp(&b.delta.value));
    let apart = |entity: &ComparedEntity| {
        entity.delta.ci.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    };
    let told = words.fill(
        "comparison.between",
        &[
            ("tv", &words.estimate(&pair.tv, 100.0, 1)),
            ("floor", &words.number(100.0 * pair.tv_floor, 1)),
            ("p", &words.number(pair.tv_p, 3)),
            ("pairs", &words.thousands(pair.pairs)),
        ],
    );
    html! {
        p { (told) }
        table class="bars" role="table" {
            caption { (words.say("comparison.between_caption")) }
            thead { tr {
                th scope="col" { (words.say("comparison.entity")) }
                th scope="col" class="num" { (words.say("comparison.change")) }
                th scope="col" class="num" { (words.say("comparison.mid_p")) }
                th scope="col" class="num" { (words.say("comparison.q")) }
            } }
            tbody {
                @for entity in entities {
                    tr {
                        th scope="row" { (name(comparison, words, &entity.id)) }
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
    use crate::words::tests::MISSING;
    use eval::compare::SCHEMA;
    use eval::record::{Refusal, SettlementStep};
    use statistics::interval::CiKind;

    fn comparison() -> Comparison {
        let estimate = |value: f64, ci: [f64; 2]| Estimate::with(value, ci, CiKind::MaxT);
        let state = |name: &str| ComparedState {
            name: name.to_owned(),
            concept: "cylinder".to_owned(),
            on: None,
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
                labels: Labels::Own,
                tv: estimate(0.1, [0.0, 0.2]),
                tv_floor: 0.05,
                tv_p: 0.2,
                entities: vec![
                    entity("sun", 0.0, [-0.1, 0.1]),
                    entity("boat", -0.1, [-0.2, -0.05]),
                ],
            }],
            settlements: None,
            settlements_labels: None,
            links: Vec::new(),
            reversed: Vec::new(),
            refused: vec![Refusal { what: "settlements".into(), reason: "of several runs".into() }],
        }
    }

    #[test]
    fn the_page_of_a_comparison_loads_nothing_and_escapes_names() {
        let page = page(&comparison(), Language::English);
        assert!(page.contains(CSP) && !page.contains("<script") && !page.contains("://"));
        assert!(page.contains("runs/&lt;a&gt;") && !page.contains("runs/<a>"));
        assert!(page.contains("not measured") && page.contains("of several runs"));
    }

    #[test]
    fn only_what_differs_demonstrably_is_bold_and_the_largest_loss_comes_first() {
        let page = page(&comparison(), Language::English);
        assert!(page.contains("<b>−10.0 [−20.0, −5.0]</b>"), "{page}");
        assert!(!page.contains("<b>0.0"));
        assert!(page.find(">boat<").unwrap() < page.find(">sun<").unwrap());
    }

    /// Two settlements on top of each other, and the same in the other order.
    fn chain() -> Comparison {
        let estimate =
            |value: f64, low: f64| Estimate::with(value, [low, 2.0 * value], CiKind::Basic);
        let step = |to: &str| SettlementStep {
            to: to.to_owned(),
            tv: estimate(0.1, 0.05),
            displaced_so_far: 0.123,
            jaccard: 0.25,
            turnover: 0.0,
            nestedness: 0.25,
        };
        let mut whole = comparison();
        whole.states[1].on = Some("runs/<a>".to_owned());
        whole.pairs[0].labels = Labels::Nearest;
        whole.settlements_labels = Some(Labels::Nearest);
        whole.reversed = vec!["c".to_owned(), "ca".to_owned()];
        whole.settlements = Some(SettlementsRecord {
            facet: "subject".to_owned(),
            states: ["base", "runs/<a>", "b"].map(str::to_owned).to_vec(),
            entities: ["sun", "boat"].map(str::to_owned).to_vec(),
            shares: vec![vec![0.5, 0.5]; 3],
            steps: vec![step("runs/<a>"), step("b")],
            distance_to_base: vec![Estimate::bare(0.0), estimate(0.2, 0.1), estimate(0.07, 0.0)],
            order_effect: Some(estimate(0.041, 0.01)),
            order_floor: Some(0.023),
            order_p: Some(0.004),
            backward_transfer: None,
            kinds: Vec::new(),
        });
        whole.refused = vec![Refusal {
            what: "backward_transfer".to_owned(),
            reason: "each census knows its own concept alone: whether an earlier one survives is \
                     seen in `populate generate`, or by its own detector"
                .to_owned(),
        }];
        whole
    }

    #[test]
    fn a_chain_shows_what_each_lies_on_how_far_it_came_and_whether_the_order_shows() {
        let page = page(&chain(), Language::English);
        assert!(page.contains("<td>base</td>") && page.contains("<td>runs/&lt;a&gt;</td>"));
        assert!(page.contains("base → runs/&lt;a&gt; → b"), "{page}");
        assert!(page.contains("7.0 [0.0, 14.0]") && page.contains(">12.3<"), "{page}");
        assert!(page.contains("4.1 [1.0, 8.2]") && page.contains("floor 2.3, p 0.004"), "{page}");
        assert!(page.contains("“b” and “ca”") && page.contains("leaves out zero: both"));
        assert!(
            page.contains("three settlements or more") && page.contains("its own concept alone")
        );
        assert_eq!(page.matches("every picture therefore counts as its nearest").count(), 1);
        let mut unclear = chain();
        let record = unclear.settlements.as_mut().unwrap();
        record.order_effect = Some(Estimate::with(0.02, [0.0, 0.05], CiKind::Basic));
        let page = super::page(&unclear, Language::English);
        assert!(page.contains("The interval holds zero") && !page.contains("zero: both"));
    }

    #[test]
    fn an_absent_settlement_is_known_by_its_adapter_and_an_absent_order_by_its_reason() {
        let mut whole = chain();
        whole.states[0].on = Some("1234abcd".to_owned());
        whole.settlements.as_mut().unwrap().order_effect = None;
        whole.refused.push(Refusal {
            what: "order_effect".to_owned(),
            reason: "the same concepts were not settled in the other order".to_owned(),
        });
        let page = page(&whole, Language::English);
        assert!(page.contains("not compared here (adapter 1234abcd)"), "{page}");
        assert!(page.contains("No order effect: the same concepts were not settled"), "{page}");
    }

    #[test]
    fn both_languages_say_all_of_it() {
        for language in Language::ALL {
            let page = page(&chain(), language);
            assert!(!page.contains(MISSING), "{page}");
        }
        let page = page(&chain(), Language::French);
        assert!(page.contains("lang=\"fr\"") && page.contains("<td>modèle de base</td>"));
        assert!(page.contains("un concept antérieur survit"), "reasons are told, too: {page}");
    }
}
