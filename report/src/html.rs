//! Owns the document: its head, its title page, its contents, and the frame of its sections.

use super::page::Page;
use super::panels;
use super::prose;
use super::words::Language;
use eval::gate::{GateRecord, Judgement};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// What a browser may load for the page: pictures of its folder and its own styles.
pub(crate) const CSP: &str = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; \
                   base-uri 'none'; form-action 'none'";
/// The styles of the document, then those of its panels.
pub(crate) const STYLE: [&str; 2] = [include_str!("style.css"), include_str!("panels.css")];

/// The whole page in one language.
pub(crate) fn document(page: &Page<'_>) -> String {
    let words = page.words;
    let finding = prose::finding(page.census, page.info, words);
    let sections = panels::all(page);
    let title =
        words.fill("page.document", &[("title", &headline(page)), ("recipe", &page.info.name)]);
    let markup = html! {
        (DOCTYPE)
        html lang=(words.language().code()) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CSP);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light";
                title { (title) }
                meta name="description" content=(finding);
                @for language in Language::ALL {
                    link rel="alternate" hreflang=(language.code()) href=(language.file());
                }
                @for style in STYLE { style { (PreEscaped(style)) } }
            }
            body {
                a class="skip" href="#contents-title" { (words.say("page.skip")) }
                header {
                    (title_page(page, &finding))
                    (panels::contents(page, &sections))
                }
                main { @for section in &sections { (panels::section(page, section)) } }
            }
        }
    };
    markup.into_string()
}

/// What the page is called: the concept.
fn headline(page: &Page<'_>) -> String {
    page.words.fill("page.headline", &[("name", &page.concept())])
}

/// Recipe and languages, the concept, the finding, and what must be said at once.
fn title_page(page: &Page<'_>, finding: &str) -> Markup {
    let (counts, words) = (page.census.counts, page.words);
    let here = words.language();
    let note = words.fill(
        "page.note",
        &[
            ("pairs", &words.thousands(counts.headline_pairs)),
            ("pictures", &words.thousands(counts.rows)),
        ],
    );
    html! {
        div class="imprint" {
            p class="eyebrow" { (words.fill("page.eyebrow", &[("recipe", &page.info.name)])) }
            nav class="languages" aria-label=(words.say("page.languages")) {
                @for language in Language::ALL {
                    @if language == here {
                        span lang=(language.code()) aria-current="page" { (language.own_name()) }
                    } @else {
                        a lang=(language.code()) hreflang=(language.code()) href=(language.file()) { (language.own_name()) }
                    }
                }
            }
        }
        h1 { (headline(page)) }
        p class="finding" { (finding) }
        p class="note" { (note) }
        @if let Some(fault) = fault(page) { p class="fault" { (fault) } }
        @if !page.census.gates.is_empty() {
            ul class="gates" { @for gate in &page.census.gates { li { (gated(page, gate)) } } }
        }
    }
}

/// One limit of the recipe, and what was found.
fn gated(page: &Page<'_>, gate: &GateRecord) -> Markup {
    let words = page.words;
    let figure = gate.limit.figure.as_str();
    let outcome = match gate.judgement {
        Judgement::Pass => words.say("gate.passed"),
        Judgement::Fail => words.say("gate.failed"),
        Judgement::Undecided => words.say("gate.undecided"),
    };
    html! {
        b { (outcome) } " " (words.known(&format!("gate.{figure}"), figure))
        @if let Some(least) = gate.limit.at_least { " " (words.fill("gate.at_least", &[("limit", &words.exact(least))])) }
        @if let Some(most) = gate.limit.at_most { " " (words.fill("gate.at_most", &[("limit", &words.exact(most))])) }
        @if let Some(found) = gate.found { (words.fill("gate.found", &[("found", &words.estimate(&found, 1.0, 3))])) }
    }
}

/// What must not be: a zero adapter that changed something.
pub(crate) fn fault(page: &Page<'_>) -> Option<String> {
    let (zero, words) = (page.census.nulls.zero?, page.words);
    (zero.different_pixels > 0 || zero.different_labels > 0).then(|| {
        words.fill(
            "page.fault",
            &[
                ("pixels", &words.thousands(zero.different_pixels)),
                ("pairs", &words.thousands(zero.pairs)),
                ("labels", &words.thousands(zero.different_labels)),
            ],
        )
    })
}
