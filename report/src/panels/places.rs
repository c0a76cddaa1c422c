//! Panel 4: who took whose place, as a flow whose ribbons open their pairs.

use super::Panel;
use crate::flow;
use crate::page::{Page, arrow, key};
use eval::record::{FacetRecord, Transition};
use maud::{Markup, html};

/// Ways that are listed with their pictures, beside the page and within it.
const LISTED: [usize; 2] = [16, 8];

/// Who took whose place in the concept's facet.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let body = if let Some(facet) = page.home() {
        body(page, facet)
    } else {
        html! { p { (page.words.say("places.no_facet")) } }
    };
    Panel {
        id: "places",
        title: page.words.say("places.title").to_owned(),
        data: Some("transitions.csv"),
        body,
    }
}

fn body(page: &Page<'_>, facet: &FacetRecord) -> Markup {
    let words = page.words;
    let ways: Vec<&Transition> =
        page.census.transitions.iter().filter(|way| way.facet == facet.id).collect();
    let listed = &ways[..ways.len().min(page.at_most(LISTED[0], LISTED[1]))];
    let name = words.mention(&page.concept());
    let shown = [listed.len(), ways.len()].map(|n| n.to_string());
    html! {
        p class="sentence" { (flow::sentence(page, facet)) }
        p class="note" { (words.say("places.how")) }
        p class="key" {
            span { (key("stay", "■")) " " (words.say("places.stayed")) }
            span { (key("moved", "■")) " " (words.say("places.moved")) }
            span { (key("taken", "■")) " " (words.fill("places.taken", &[("name", &name)])) }
        }
        (flow::diagram(page, facet, listed))
        (flow::counts(page, facet))
        @if ways.len() > listed.len() {
            p class="note listed" { (words.fill("places.listed", &[("shown", &shown[0]), ("all", &shown[1])])) }
        }
        @for (i, way) in listed.iter().enumerate() { (opened(page, way, i)) }
    }
}

/// One way with its pictures. A link to what lies inside opens it.
fn opened(page: &Page<'_>, way: &Transition, i: usize) -> Markup {
    let words = page.words;
    let share = words.percent(way.share, 0);
    html! {
        details class="way" {
            summary {
                span {
                    (page.name(&way.from)) " " (arrow("→", words.say("page.becomes"))) " " (page.name(&way.to))
                }
                span class="num" { (words.count("page.pictures", way.n)) }
                span class="num soft" { (words.fill("places.share", &[("share", &share)])) }
            }
            div class="pairs" id=(flow::pairs_id(i)) {
                @for pair in &way.pairs { (page.pair(pair)) }
            }
        }
    }
}
