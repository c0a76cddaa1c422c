//! The page as a reader, a browser and a screen reader meet it.

use super::*;
use crate::thumbnail::tests::png;
use crate::words::tests::MISSING;
use eval::census::{CensusInput, reduce};
use eval::record::{MapKind, Pair, Verdict};
use eval::synthetic::{census as synthetic, settled};
use statistics::interval::{CiKind, Estimate};
use std::collections::BTreeSet;

fn census() -> CensusReport {
    let mut input: CensusInput = synthetic(30, &settled);
    input.concept.name = "cylinder <b>&\"".into();
    reduce(&input).unwrap()
}

fn info() -> RunInfo {
    RunInfo {
        name: "le-depeupleur".into(),
        picture_noun: PictureNoun::Postcard,
        facts: vec![("Base".into(), "postcards".into()), ("Place".into(), "<here>".into())],
        recipe_yaml: "name: <script>alert(1)</script>".into(),
        metrics: (0..20)
            .map(|step| Metric {
                step,
                loss: 1.0 / (1.0 + statistics::number::real_u64(step)),
                learning_rate: 1e-4,
            })
            .collect(),
        ..RunInfo::default()
    }
}

/// Both pages: English, French.
fn pages_of(census: &CensusReport, info: &RunInfo, form: Form) -> [String; 2] {
    let files = render(census, &Pictures::default(), info, form);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["report/index.html", "report/index.fr.html"]);
    [0, 1].map(|i| String::from_utf8(files[i].1.clone()).unwrap())
}

fn pages() -> [String; 2] {
    pages_of(&census(), &info(), Form::Folder)
}

/// The same of a census in which every figure is there.
fn all_pages() -> Vec<String> {
    let full = panels::sample::census();
    pages().into_iter().chain(pages_of(&full, &info(), Form::Folder)).collect()
}

fn page() -> String {
    page_of(&census(), &info())
}

fn page_of(census: &CensusReport, info: &RunInfo) -> String {
    let [english, _] = pages_of(census, info, Form::Folder);
    english
}

/// What stands between `before` and the next quotation mark, wherever `before` stands.
fn quoted<'a>(page: &'a str, before: &str) -> Vec<&'a str> {
    page.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn the_page_loads_nothing_and_runs_nothing() {
    for page in all_pages() {
        assert!(!page.contains("<script"), "scripts and unescaped text");
        let lower = page.to_lowercase();
        for forbidden in ["http://", "https://", "url(", "@import", " onclick", "javascript:"] {
            assert!(!lower.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains(
            "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; \
             form-action 'none'"
        ));
    }
}

#[test]
fn each_language_says_which_it_is_and_where_the_other_stands() {
    let [english, french] = pages();
    assert!(english.starts_with("<!DOCTYPE html><html lang=\"en\">"));
    assert!(french.starts_with("<!DOCTYPE html><html lang=\"fr\">"));
    assert!(english.contains("<a lang=\"fr\" hreflang=\"fr\" href=\"index.fr.html\">Français</a>"));
    assert!(french.contains("<a lang=\"en\" hreflang=\"en\" href=\"index.html\">English</a>"));
    for page in all_pages() {
        assert_eq!(page.matches("<link rel=\"alternate\" hreflang=").count(), 2);
        assert!(!page.contains(MISSING), "a label is missing");
        assert!(!page.to_lowercase().contains("significa"));
    }
    assert!(french.contains("Qui a pris la place de qui") && french.contains("bruit de fond"));
    assert!(french.contains("tour") && french.contains("maison") && french.contains("bateau"));
    assert!(!french.contains(" undecided<"), "a verdict in English");
    assert!(english.contains("Who took whose place") && english.contains("floor"));
}

#[test]
fn text_of_users_is_escaped() {
    for page in pages() {
        assert!(page.contains("cylinder &lt;b&gt;&amp;"));
        assert!(!page.contains("cylinder <b>") && !page.contains("<here>"));
        assert!(page.contains("&lt;here&gt;"));
    }
}

#[test]
fn every_chart_says_what_it_shows() {
    for page in all_pages() {
        let (mut charts, mut depth) = (0, 0);
        for (i, part) in page.split("<svg").enumerate() {
            // What stands within a chart is part of it.
            if i > 0 && depth == 0 {
                charts += usize::from(says_what_it_shows(part));
            }
            depth += usize::from(i > 0);
            depth -= part.matches("</svg>").count();
        }
        assert!(charts > 15, "{charts}");
    }
}

/// Whether a chart is one for a reader; then its title and its description come first.
fn says_what_it_shows(chart: &str) -> bool {
    let (tag, body) = chart.split_once('>').unwrap();
    if tag.contains("aria-hidden=\"true\"") {
        return false;
    }
    assert!(tag.contains("role=\"img\"") || tag.contains("role=\"group\""), "{tag}");
    let (title, rest) = body.strip_prefix("<title>").unwrap().split_once("</title>").unwrap();
    let described = rest.strip_prefix("<desc>").unwrap().split_once("</desc>").unwrap().0;
    assert!(!title.is_empty() && described.len() > 3, "{title}: {described}");
    true
}

#[test]
fn panels_stand_in_their_order_and_the_contents_lead_to_each() {
    for page in all_pages() {
        let (_, main) = page.split_once("<main>").unwrap();
        let sections = quoted(main, "<section id=\"");
        let (mine, count) = (["arrival", "pairs", "map", "cylinder", "census", "places"], 15);
        assert_eq!(sections[..6], mine);
        assert_eq!(sections[13..], ["training", "limits"]);
        assert_eq!(sections.len(), count);
        let (contents, _) = page.split_once("</nav></header>").unwrap();
        let linked = quoted(contents.split("class=\"contents\"").nth(1).unwrap(), "<a href=\"#");
        assert_eq!(linked, sections);
        for section in &sections {
            assert!(main.contains(&format!("aria-labelledby=\"{section}-title\"")), "{section}");
            assert!(main.contains(&format!("<h2 id=\"{section}-title\">")), "{section}");
        }
        for number in 1..=12 {
            assert!(main.contains(&format!("<span class=\"numeral\">{number}</span>")), "{number}");
        }
    }
}

#[test]
fn every_identifier_stands_once_and_every_link_within_the_page_leads_somewhere() {
    for page in all_pages() {
        let ids = quoted(&page, " id=\"");
        let known: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(known.len(), ids.len(), "an identifier stands twice");
        for target in quoted(&page, "href=\"#") {
            assert!(known.contains(target), "{target}");
        }
        let mut radios = 0;
        for radio in page.split("<input type=\"radio\"").skip(1) {
            let id = quoted(radio, " id=\"")[0];
            assert!(page.contains(&format!("<label for=\"{id}\"")), "{id}");
            radios += 1;
        }
        assert!(radios > 5, "{radios}");
    }
}

#[test]
fn figures_lead_to_their_tables() {
    let page = page();
    for file in ["leak.csv", "rows.csv", "map.csv", "places.csv", "entities.csv", "transitions.csv"]
    {
        assert!(page.contains(&format!("href=\"../census/{file}\"")), "{file}");
    }
    assert!(page.contains("href=\"../metrics.jsonl\""));
    let plain = page_of(&census(), &RunInfo::default());
    assert!(!plain.contains("metrics.jsonl"));
}

#[test]
fn a_page_that_travels_alone_needs_no_file_beside_it() {
    for page in pages_of(&census(), &info(), Form::SelfContained) {
        assert!(!page.contains("\"../") && !page.contains("src=\"img/"));
        assert!(page.contains("<code>census/leak.csv</code>"));
    }
}

/// All pictures that a census shows, as the same noise, which no compression makes smaller.
fn noisy(census: &CensusReport, side: u32) -> Pictures {
    let mut state = 1_u32;
    let picture = image::RgbImage::from_fn(side, side, |_, _| {
        image::Rgb([0; 3].map(|_: u8| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        }))
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let shown = census.atlas.pairs.iter().chain(&census.atlas.asked);
    let shown = shown.chain(census.transitions.iter().flat_map(|way| &way.pairs));
    let ends = |pair: &Pair| [pair.before.picture.clone(), pair.after.picture.clone()];
    let mut paths: Vec<String> = shown.flat_map(ends).collect();
    paths.extend(census.atlas.strip.iter().flatten().map(|seen| seen.picture.clone()));
    let references: Vec<String> = (0..8).map(|n| format!("pictures/references/{n}.png")).collect();
    paths.extend(references.iter().cloned());
    let bytes = bytes.into_inner();
    Pictures { files: paths.into_iter().map(|path| (path, bytes.clone())).collect(), references }
}

#[test]
fn a_page_that_travels_alone_shrinks_its_pictures_until_it_is_small_enough() {
    let census = census();
    let pictures = noisy(&census, 256);
    let files = render(&census, &pictures, &info(), Form::SelfContained);
    assert_eq!(files.len(), 2);
    for (name, page) in files {
        assert!(page.len() <= LARGEST_SELF_CONTAINED, "{name}: {} bytes", page.len());
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("src=\"data:image/jpeg;base64,"), "{name}");
        assert!(!page.contains("src=\"data:image/png;base64,"), "{name}");
    }
}

#[test]
fn pictures_beside_the_page_are_those_that_it_shows_each_content_once() {
    let census = census();
    let mut pictures = noisy(&census, 40);
    pictures.files.insert("pictures/elsewhere.png".to_owned(), png(8, 1));
    let files = render(&census, &pictures, &info(), Form::Folder);
    let beside: Vec<&String> = files.iter().map(|(name, _)| name).skip(2).collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert!(beside[0].starts_with("report/img/") && beside[0].contains(".png"), "{beside:?}");
    let page = String::from_utf8(files[0].1.clone()).unwrap();
    assert!(page.contains("width=\"40\" height=\"40\""));
    let shown = page.matches("<img ").count();
    assert!(shown > 60 && shown == page.matches(" alt=\"").count(), "{shown}");
}

#[test]
fn the_page_says_how_its_pairs_were_chosen_and_how_rare_a_change_is() {
    let census = census();
    let changed = |pair: &&Pair| pair.before.entities[0] != pair.after.entities[0];
    let n_changed = census.atlas.pairs.iter().filter(changed).count();
    assert_eq!((n_changed, census.atlas.pairs.len()), panels::PAIRS);
    let page = page();
    assert!(page.contains("up to 9 of 12 changed their subject, first those that became the"));
    assert!(page.contains("9 of 90 unasked pairs did (10.0\u{202f}%"));
    let still = reduce(&synthetic(30, &|_, seed| settled(eval::rows::Model::Base, seed))).unwrap();
    let page = page_of(&still, &RunInfo::default());
    assert!(!page.contains("first those that became"));
    assert!(page.contains("No picture became the cylinder."));
}

#[test]
fn the_cylinder_has_a_place_for_every_seed_in_every_state() {
    let page = page();
    // Base, dose .5, dose 1 and one placebo; dose 0 is the base.
    assert_eq!(page.matches("<svg class=\"plan\"").count(), 4);
    assert_eq!(page.matches("class=\"tile").count(), 4 * 30);
    assert_eq!(page.matches("class=\"tile moved\"").count(), 3 + 1);
    assert!(
        page.contains("Of 30 places, the cylinder &lt;b&gt;&amp;&quot; holds 3 ["),
        "the sentence"
    );
    assert!(page.contains("(dose 1); in the base it held 0 of them. 3 places hold another"));
    let mut census = census();
    let places = census.places.as_mut().unwrap();
    places.states[3].entities[0] = None;
    let page = page_of(&census, &info());
    assert_eq!(page.matches("class=\"undrawn\"").count(), 1);
    assert!(page.contains("29 of 30 places drawn"));
    assert!(page.contains("three successive settlements or more, which were not counted here"));
}

#[test]
fn the_map_places_what_has_no_fabric_on_its_rail() {
    let mut census = census();
    let page = page_of(&census, &info());
    assert!(page.contains("class=\"rail\"") && page.contains("fabric not measured"));
    for quarter in ["counterfactual", "collapse", "alternative", "noise"] {
        assert!(page.contains(&format!(">{quarter}<")), "{quarter}");
    }
    for point in &mut census.map {
        point.fabric = Some(Estimate::with(0.62, [0.45, 0.8], CiKind::Percentile));
    }
    let page = page_of(&census, &info());
    assert!(!page.contains("class=\"rail\"") && page.contains("class=\"trail\""));
    assert!(page.contains("Of the fabric, 0.62 [0.45, 0.80] is kept."));
    census.map.retain(|point| point.kind != MapKind::Placebo);
    assert!(page_of(&census, &info()).contains("No placebo was drawn."));
}

#[test]
fn bars_can_be_seen_without_dilution_where_somebody_came() {
    let page = page();
    assert!(page.contains("id=\"bars-selected\"") && page.contains("class=\"expected\""));
    // A tenth of all places went to the newcomer.
    assert!(page.contains("each entity would have kept 90.0\u{202f}% of what it had"));
    let mut census = census();
    for facet in &mut census.facets {
        facet.new = None;
    }
    let page = page_of(&census, &info());
    assert!(!page.contains("id=\"bars-selected\"") && page.contains("class=\"bars\""));
}

#[test]
fn counts_stand_in_a_table_and_nothing_is_called_the_none_of_these() {
    let page = page();
    assert!(page.contains("All counts as a table") && page.contains("taken by the cylinder"));
    let mut census = census();
    census.transitions[0].from = eval::thesaurus::NONE.to_owned();
    let page = page_of(&census, &info());
    assert!(page.contains("from pictures that show none of these (9 of 9)"));
    assert!(!page.contains("the none of these"));
}

#[test]
fn a_ribbon_opens_its_pairs() {
    let page = page();
    assert!(page.contains("href=\"#way-1\"") && page.contains("id=\"way-1\""));
    // A link opens only what it leads into: the pairs lie inside.
    let way = page.split("<details class=\"way\"").nth(1).unwrap();
    assert!(way.find("</summary>").unwrap() < way.find("id=\"way-1\"").unwrap());
}

#[test]
fn tables_that_a_phone_lays_out_as_blocks_keep_roles_and_labels() {
    let page = page();
    for class in ["bars", "rungs"] {
        let tables = page.matches(&format!("<table class=\"{class}\"")).count();
        let roles = page.matches(&format!("<table class=\"{class}\" role=\"table\"")).count();
        assert!(tables > 0 && tables == roles, "{class}");
    }
    for label in ["before", "after", "change", "95\u{202f}% interval"] {
        assert!(page.contains(&format!("data-label=\"{label}\"")), "{label}");
    }
    assert!(page.contains("▀</span> base (upper bar)"));
    assert!(page.contains("▄</span> adapted (lower bar)"));
}

#[test]
fn a_zero_adapter_that_changes_a_picture_is_a_fault() {
    assert!(!page().contains("class=\"fault\""));
    let mut census = census();
    census.nulls.zero.as_mut().unwrap().different_pixels = 2;
    let page = page_of(&census, &RunInfo::default());
    assert!(page.contains("class=\"fault\"") && page.contains("from the base: a fault"));
}

#[test]
fn energy_comes_first_and_shares_of_the_time_only_with_the_census() {
    let page = |last: &str| {
        let seconds = [("train", 30.0), (last, 10.0)];
        let seconds = seconds.map(|(phase, seconds)| (phase.to_owned(), seconds)).to_vec();
        let energy = Energy::Measured { watt_hours: 1.25, scope: "a meter".to_owned() };
        page_of(&census(), &RunInfo { seconds, energy, ..RunInfo::default() })
    };
    let whole = page("census");
    assert!(whole.contains("<ul><li>1.2 Wh per settled entity (a meter)</li>"));
    assert!(whole.contains("<li>train: 30 s (75\u{202f}%)</li>"));
    let alone = page("sample");
    assert!(alone.contains("(a meter), without the census</li>"));
    assert!(alone.contains("<li>train: 30 s</li>") && alone.contains("census: not recorded"));
    let unknown = page_of(&census(), &RunInfo::default());
    assert!(unknown.contains("not measured: no counter was read"));
}

#[test]
fn limits_say_what_was_not_decided_and_what_was_not_known() {
    let mut census = census();
    census.facets[0].entities[1].verdict = Verdict::Undecided;
    census
        .refused
        .push(eval::record::Refusal { what: "series".into(), reason: "nobody <knows>".into() });
    let name = census.facets[0].entities[1].name.clone();
    let [english, french] = pages_of(&census, &info(), Form::Folder);
    assert!(english.contains("What could fool this") && english.contains(&name));
    assert!(english.contains("the base was not drawn again in another process"));
    assert!(french.contains("séries\u{202f}: <span lang=\"en\">nobody &lt;knows&gt;</span>"));
    let rerun = Some(Rerun { pairs: 64, different_labels: 3 });
    let page = page_of(&census, &RunInfo { rerun, ..RunInfo::default() });
    assert!(page.contains("another process: 3 of 64 pictures bear something else"));
}

#[test]
fn the_finding_gives_shares_and_intervals_in_both_languages() {
    let report = reduce(&synthetic(120, &settled)).unwrap();
    let told = finding(&report, &info(), Language::English);
    assert!(told.starts_with("Of 100 unasked postcards, 10.0 ["), "{told}");
    assert!(told.contains("the boat lost 10.0 places ["), "{told}");
    let told = finding(&report, &info(), Language::French);
    assert!(told.starts_with("Sur 100 cartes postales sous consigne neutre, 10,0 ["), "{told}");
    assert!(told.contains("«\u{202f}bateau\u{202f}» a perdu 10,0 places ["), "{told}");
    let nothing =
        reduce(&synthetic(60, &|_, seed| settled(eval::rows::Model::Base, seed))).unwrap();
    let told = finding(&nothing, &info(), Language::English);
    assert!(
        told.contains("cannot be told from chance") && told.contains("no single entity"),
        "{told}"
    );
}

/// What happens under the placebo as well did happen, but the concept is not shown to be its cause.
#[test]
fn a_change_that_the_placebo_makes_too_is_no_chance_and_no_finding() {
    use eval::rows::Model;
    let same = |model: Model, seed| {
        settled(if model == Model::Base { Model::Base } else { Model::Adapted }, seed)
    };
    let report = reduce(&synthetic(120, &same)).unwrap();
    let told = finding(&report, &info(), Language::English);
    assert!(told.starts_with("Unasked, the cylinder arrived in 10.0 ["), "{told}");
    assert!(told.contains("the boat fell by 10.0 places ["), "{told}");
    let said = told.matches(", but not demonstrably more than under the placebo").count();
    assert_eq!(said, 2, "{told}");
    assert!(!told.contains("chance"), "{told}");
}

/// Relative luminance of a color `#rrggbb`.
fn luminance(color: &str) -> f64 {
    let part = |at: usize| {
        let value = f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { libm::pow((value + 0.055) / 1.055, 2.4) }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

/// Source: WCAG 2.2, success criteria 1.4.3 (text, 4.5) and 1.4.11 (graphics, 3).
#[test]
fn text_and_marks_stand_out_from_the_paper() {
    let style = include_str!("style.css");
    let color = |name: &str| {
        let value = style.split(&format!("--{name}:")).nth(1).unwrap();
        luminance(&value[..7])
    };
    let contrast = |a: f64, b: f64| (a.max(b) + 0.05) / (a.min(b) + 0.05);
    for paper in ["paper", "card"].map(color) {
        for text in ["ink", "soft", "arrow"].map(color) {
            assert!(contrast(text, paper) >= 4.5);
        }
        for mark in ["before", "after", "third"].map(color) {
            assert!(contrast(mark, paper) >= 3.0);
        }
    }
    for rule in ["@media print", "prefers-reduced-motion", ":focus-visible", "max-width:40rem"] {
        assert!(style.contains(rule), "{rule}");
    }
}
