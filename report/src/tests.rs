//! The page as a reader, a browser and a screen reader meet it.

use super::*;
use eval::census::{CensusInput, reduce};
use eval::synthetic::{census as synthetic, settled};

fn census() -> CensusReport {
    let mut input: CensusInput = synthetic(30, &settled);
    input.concept.name = "cylinder <b>&\"".into();
    reduce(&input).unwrap()
}

fn page() -> String {
    let info = RunInfo {
        name: "le-depeupleur".into(),
        picture_noun: "postcard".into(),
        recipe_yaml: "name: <script>alert(1)</script>".into(),
        metrics: (0..20)
            .map(|step| Metric {
                step,
                loss: 1.0 / (1.0 + statistics::number::real_u64(step)),
                learning_rate: 1e-3,
            })
            .collect(),
        ..RunInfo::default()
    };
    page_of(&census(), &info)
}

fn page_of(census: &CensusReport, info: &RunInfo) -> String {
    let files = render(census, &Pictures::default(), info);
    assert_eq!(files[0].0, "report/index.html");
    String::from_utf8(files[0].1.clone()).unwrap()
}

#[test]
fn the_page_loads_nothing_and_runs_nothing() {
    let page = page();
    assert!(!page.contains("<script"), "scripts and unescaped text");
    for forbidden in ["http://", "https://", "url(", "@import", "onclick", "javascript:"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains(
        "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; \
         form-action 'none'"
    ));
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"));
}

#[test]
fn text_of_users_is_escaped() {
    let page = page();
    assert!(page.contains("cylinder &lt;b&gt;&amp;"));
    assert!(!page.contains("cylinder <b>"));
}

#[test]
fn every_chart_says_what_it_shows() {
    let page = page();
    let charts = page.matches("role=\"img\" width").count();
    assert!(charts > 10, "{charts}");
    assert_eq!(page.matches("<desc>").count(), charts);
    assert_eq!(page.matches("<desc></desc>").count(), 0);
    assert!(page.matches("<title>").count() > charts);
}

#[test]
fn sections_come_in_their_order_with_headings() {
    let page = page();
    let ids = ["arrival", "pairs", "census", "places", "similarity", "dose", "training", "limits"];
    let places: Vec<usize> = ids
        .iter()
        .map(|id| page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("{id}")))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(page.contains("What could fool this") && page.contains("energy: not measured"));
    assert!(page.contains("href=\"../census/leak.csv\"") && page.contains("../metrics.jsonl"));
    assert!(!page.to_lowercase().contains("significant"));
}

#[test]
fn the_page_says_how_its_pairs_were_chosen_and_how_rare_a_change_is() {
    let census = census();
    let changed = |pair: &&eval::record::Pair| pair.before.entities[0] != pair.after.entities[0];
    let n_changed = census.atlas.pairs.iter().filter(changed).count();
    assert_eq!((n_changed, census.atlas.pairs.len()), (panels::CHANGED, panels::SHOWN));
    let page = page();
    assert!(page.contains("up to 9 of 12 changed their subject, first those that became the"));
    assert!(page.contains("9 of 90 unasked pairs did (10.0 %"));
    let still = reduce(&synthetic(30, &|_, seed| settled(eval::rows::Model::Base, seed))).unwrap();
    let page = page_of(&still, &RunInfo::default());
    assert!(!page.contains("first those that became"));
    assert!(page.contains("in none of them did the subject change"));
}

#[test]
fn counts_stand_in_a_table_and_nothing_is_called_the_none_of_these() {
    let page = page();
    assert!(page.contains("All counts as a table") && page.contains("taken by the cylinder"));
    let mut census = census();
    census.transitions[0].from = eval::thesaurus::NONE.to_owned();
    let told = flow::sentence(&census, prose::home(&census).unwrap());
    assert!(told.contains("from pictures that show none of these (9 of 9)"), "{told}");
}

#[test]
fn tables_that_a_phone_lays_out_as_blocks_keep_roles_and_labels() {
    let page = page();
    assert_eq!(page.matches("role=\"table\"").count(), 3);
    for label in ["before", "after", "change", "95 % interval"] {
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
fn shares_of_the_time_are_given_only_if_the_census_is_part_of_it() {
    let page = |last: &str| {
        let seconds = [("train", 30.0), (last, 10.0)];
        let seconds = seconds.map(|(phase, seconds)| (phase.to_owned(), seconds)).to_vec();
        page_of(&census(), &RunInfo { seconds, ..RunInfo::default() })
    };
    assert!(page("census").contains("<li>train: 30 s (75 %)</li>"));
    let alone = page("sample");
    assert!(alone.contains("<li>train: 30 s</li>") && alone.contains("census: not recorded"));
}

#[test]
fn the_finding_gives_shares_and_intervals() {
    let info = RunInfo { picture_noun: "postcard".into(), ..RunInfo::default() };
    let report = reduce(&synthetic(120, &settled)).unwrap();
    let told = prose::finding(&report, &info);
    assert!(told.starts_with("Of 100 unasked postcards, 10.0 ["), "{told}");
    assert!(told.contains("the boat lost 10.0 places ["), "{told}");
    let nothing =
        reduce(&synthetic(60, &|_, seed| settled(eval::rows::Model::Base, seed))).unwrap();
    let told = prose::finding(&nothing, &info);
    assert!(
        told.contains("cannot be told from chance") && told.contains("no single entity"),
        "{told}"
    );
}

/// What happens under the placebo as well did happen, but the concept is not shown to be its cause.
#[test]
fn a_change_that_the_placebo_makes_too_is_no_chance_and_no_finding() {
    use eval::rows::Model;
    let info = RunInfo { picture_noun: "postcard".into(), ..RunInfo::default() };
    let same = |model: Model, seed| {
        settled(if model == Model::Base { Model::Base } else { Model::Adapted }, seed)
    };
    let told = prose::finding(&reduce(&synthetic(120, &same)).unwrap(), &info);
    assert!(told.starts_with("Unasked, the cylinder arrived in 10.0 ["), "{told}");
    assert!(told.contains("the boat fell by 10.0 places ["), "{told}");
    let said = told.matches(", but not demonstrably more than under the placebo").count();
    assert_eq!(said, 2, "{told}");
    assert!(!told.contains("chance"), "{told}");
}
