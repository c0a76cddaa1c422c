//! Owns the order of the plates and panels, their numbers, and the frame that each stands in.

mod arrival;
mod bars;
mod census_taker;
mod chart_parts;
mod copies;
mod corrected;
mod cylinder;
mod deja_vu;
mod dose;
mod forecast;
mod kinds;
mod leak;
mod limits;
mod map;
mod nats;
mod non_seekers;
mod places;
mod rotunda;
mod ruler;
#[cfg(test)]
pub(crate) mod sample;
mod series;
mod similarity;
mod training;

use super::Form;
use super::page::Page;
use maud::{Markup, html};

/// How many of the pairs that `census::atlas` chooses may have changed, and how many it chooses at most.
#[cfg(test)]
pub(crate) const PAIRS: (usize, usize) = (arrival::CHANGED, arrival::SHOWN);

/// One section of the page.
#[derive(Debug)]
pub(crate) struct Panel {
    /// Identifier of the section, which links may name.
    pub(crate) id: &'static str,
    /// Its heading.
    pub(crate) title: String,
    /// The table of `census/` that holds its figures; else a file of the run directory.
    pub(crate) data: Option<&'static str>,
    /// What it shows.
    pub(crate) body: Markup,
}

/// A panel with its number; opening plates and the training have none.
#[derive(Debug)]
pub(crate) struct Numbered {
    number: Option<usize>,
    panel: Panel,
}

/// The panels that the census asks for, 1 to 12, in their order.
const TWELVE: [fn(&Page<'_>) -> Panel; 12] = [
    map::panel,
    cylinder::panel,
    bars::panel,
    places::panel,
    similarity::panel,
    dose::panel,
    non_seekers::panel,
    series::panel,
    leak::panel,
    deja_vu::panel,
    census_taker::panel,
    limits::panel,
];

/// All sections in the order of reading: two opening plates, panels 1 to 11, the training, the limits.
pub(crate) fn all(page: &Page<'_>) -> Vec<Numbered> {
    let mut sections = vec![
        Numbered { number: None, panel: arrival::arrival(page) },
        Numbered { number: None, panel: arrival::pairs(page) },
    ];
    for (i, panel) in TWELVE.iter().enumerate() {
        if i + 1 == TWELVE.len() {
            sections.push(Numbered { number: None, panel: training::panel(page) });
        }
        sections.push(Numbered { number: Some(i + 1), panel: panel(page) });
    }
    sections
}

/// The table of contents.
pub(crate) fn contents(page: &Page<'_>, sections: &[Numbered]) -> Markup {
    html! {
        nav class="contents" aria-labelledby="contents-title" {
            h2 id="contents-title" { (page.words.say("page.contents")) }
            ol {
                @for Numbered { number, panel } in sections {
                    li {
                        a href={ "#" (panel.id) } {
                            span class="numeral" { @if let Some(number) = number { (number) } @else { "·" } }
                            " " span { (panel.title) }
                        }
                    }
                }
            }
        }
    }
}

/// One section: its number, its name and its data in the margin, what it shows beside them.
pub(crate) fn section(page: &Page<'_>, numbered: &Numbered) -> Markup {
    let Numbered { number, panel } = numbered;
    let title = format!("{}-title", panel.id);
    html! {
        section id=(panel.id) class=[number.is_none().then_some("plate")] aria-labelledby=(title) {
            div class="margin" {
                h2 id=(title) {
                    @if let Some(number) = number { span class="numeral" { (number) } " " }
                    (panel.title)
                }
                @if let Some(file) = panel.data { p class="data" { (data(page, file)) } }
            }
            div class="body" { (panel.body) }
        }
    }
}

/// The link to a panel's figures; a page that travels alone names the file only.
fn data(page: &Page<'_>, file: &str) -> Markup {
    let words = page.words;
    let (path, label) = if file == training::RECORDS {
        (file.to_owned(), words.say("page.records"))
    } else if file.starts_with("census/") {
        (file.to_owned(), words.say("page.json"))
    } else {
        (format!("census/{file}"), words.say("page.csv"))
    };
    match page.plates.form() {
        Form::Folder => html! { a href={ "../" (path) } { (label) } },
        Form::SelfContained => html! { (label) " " code { (path) } },
    }
}
