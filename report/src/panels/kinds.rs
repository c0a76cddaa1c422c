//! The four kinds of bodies that live through successive settlements.

use super::cylinder::sign;
use crate::page::Page;
use eval::record::{Kind, KindRecord};
use maud::{Markup, html};

/// The kinds with their probabilities, or why there are none.
pub(super) fn kinds(page: &Page<'_>) -> Markup {
    let words = page.words;
    let found = page.census.settlements.as_ref().filter(|record| !record.kinds.is_empty());
    html! {
        h3 { (words.say("kinds.title")) }
        @if let Some(settlements) = found {
            p { (words.say("kinds.how")) }
            div class="scroll" tabindex="0" role="region" aria-label=(words.say("kinds.title")) {
                (table(page, &settlements.kinds))
            }
        } @else {
            p { (absent(page)) }
        }
    }
}

/// Why there are no kinds.
fn absent(page: &Page<'_>) -> String {
    let words = page.words;
    let refused = words.refused("settlements").filter(|_| page.census.settlements.is_none());
    let reason = refused.map(|reason| format!(" ({reason})")).unwrap_or_default();
    words.fill("kinds.absent", &[("reason", &reason)])
}

/// What a kind is called.
fn called<'a>(page: &Page<'a>, kind: Kind) -> &'a str {
    match kind {
        Kind::Circulating => page.words.say("kinds.circulating"),
        Kind::SometimesStops => page.words.say("kinds.sometimes"),
        Kind::Sedentary => page.words.say("kinds.sedentary"),
        Kind::Vanquished => page.words.say("kinds.vanquished"),
    }
}

fn table(page: &Page<'_>, kinds: &[KindRecord]) -> Markup {
    let words = page.words;
    let all = [Kind::Circulating, Kind::SometimesStops, Kind::Sedentary, Kind::Vanquished];
    html! {
        table class="kinds" {
            caption { (words.say("kinds.caption")) }
            thead { tr {
                th scope="col" { (words.say("kinds.entity")) }
                @for (numeral, kind) in ["I", "II", "III", "IV"].into_iter().zip(all) {
                    th scope="col" class="num" { (numeral) " " (called(page, kind)) }
                }
                th scope="col" class="num" { (words.say("kinds.kappa")) }
            } }
            tbody {
                @for record in kinds {
                    tr {
                        th scope="row" { (sign(page.mark(&record.id))) (page.name(&record.id)) }
                        @for (kind, probability) in all.into_iter().zip(record.probabilities) {
                            td class={ "num" @if kind == record.kind { " sure" } } {
                                (words.number(probability, 2))
                                @if kind == record.kind { " " span class="chosen" aria-hidden="true" { "◂" } span class="sr" { (words.say("kinds.chosen")) } }
                                span class="part" aria-hidden="true" style=(format!("width:{:.0}%", 100.0 * probability)) {}
                            }
                        }
                        td class="num" { (words.number(record.kappa, 2)) }
                    }
                }
            }
        }
    }
}
