//! The page as a reader, a browser and a screen reader meet it.

use super::*;
use crate::census::tests::{census as synthetic, settled};
use crate::census::{CensusInput, reduce};

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
                loss: 1.0 / (1.0 + crate::number::real_u64(step)),
                learning_rate: 1e-3,
            })
            .collect(),
        ..RunInfo::default()
    };
    let files = render(&census(), &Pictures::default(), &info);
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
    assert!(!page.to_lowercase().contains("significant"));
}

#[test]
fn the_finding_gives_shares_and_intervals() {
    let info = RunInfo { picture_noun: "postcard".into(), ..RunInfo::default() };
    let report = reduce(&synthetic(120, &settled)).unwrap();
    let told = prose::finding(&report, &info);
    assert!(told.starts_with("Of 100 unasked postcards, 10.0 ["), "{told}");
    assert!(told.contains("the boat lost 10.0 places ["), "{told}");
    let nothing =
        reduce(&synthetic(60, &|_, seed| settled(crate::rows::Model::Base, seed))).unwrap();
    let told = prose::finding(&nothing, &info);
    assert!(
        told.contains("cannot be told from chance") && told.contains("no single entity"),
        "{told}"
    );
}

#[test]
fn census_json_round_trips_with_sorted_keys() {
    let census = census();
    let text = census.to_json().unwrap();
    assert_eq!(CensusReport::from_json(&text).unwrap(), census);
    let keys: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("  \""))
        .map(|line| line.trim().split('"').nth(1).unwrap())
        .collect();
    assert!(keys.is_sorted() && keys.contains(&"facets"), "{keys:?}");
    assert!(text.contains("\"likelihood\": null"));
    let other = text.replace("populate/census/1", "populate/census/2");
    assert!(matches!(CensusReport::from_json(&other), Err(crate::EvalError::Schema { .. })));
}

#[test]
fn the_schema_names_every_key_that_is_written() {
    let schema = json::json_schema();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let written: serde_json::Value = serde_json::from_str(&census().to_json().unwrap()).unwrap();
    for key in written.as_object().unwrap().keys() {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
    let entity = &written["facets"][0]["entities"][0];
    for key in entity.as_object().unwrap().keys() {
        assert!(schema["definitions"]["EntityRecord"]["properties"].get(key).is_some(), "{key}");
    }
}

#[test]
fn tables_have_as_many_fields_as_their_header() {
    for (path, bytes) in csv::tables(&census()) {
        let text = String::from_utf8(bytes).unwrap();
        let width = text.lines().next().unwrap().split(',').count();
        for line in text.lines().filter(|line| !line.contains('"')) {
            assert_eq!(line.split(',').count(), width, "{path}: {line}");
        }
    }
}
