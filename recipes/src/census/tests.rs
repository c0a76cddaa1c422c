use super::*;
use crate::check::{problems_with, with};

fn census(sets: &[&str]) -> CensusSpec {
    with(sets).census.expect("the small recipe has a census")
}

#[test]
fn budgets_have_the_published_numbers() {
    let numbers = |base: &str, budget: &str| {
        let census = census(&[base, &format!("census.budget={budget}")]);
        (census.seeds_empty, census.seeds_other, census.sampler.steps, census.placebo)
    };
    let postcards = "base=postcards";
    assert_eq!(numbers(postcards, "glance"), (512, 128, 12, 0));
    assert_eq!(numbers(postcards, "survey"), (1024, 1024, 20, 1));
    assert_eq!(numbers(postcards, "census"), (8192, 8192, 50, 3));
    for family in ["folder", "sd1", "sd2", "sdxl"] {
        let base = &format!("base={{{family}: {{weights: w}}}}");
        assert_eq!(numbers(base, "glance"), (256, 256, 12, 0));
        assert_eq!(numbers(base, "survey"), (768, 1280, 20, 1));
        assert_eq!(numbers(base, "census"), (3072, 5120, 30, 3));
    }
}

#[test]
fn guidance_is_rescaled_only_where_it_is_said() {
    let written = |set: &str| serde_json::to_value(census(&[set])).unwrap();
    let plain = written("census.guidance_rescale=0");
    assert_eq!(plain.get("guidance_rescale"), None);
    assert_eq!(plain, serde_json::to_value(census(&[])).unwrap());
    assert_eq!(written("census.guidance_rescale=0.7")["guidance_rescale"], 0.7);
    let problems = problems_with(&["census.guidance_rescale=-0.1"]);
    let rule = "must be at least 0 and at most 1, found `-0.1`";
    assert_eq!(problems, [format!("-0.1: `census.guidance_rescale` {rule}")]);
}

#[test]
fn a_census_without_budget_is_a_glance_or_custom_with_seeds() {
    assert_eq!(census(&[]).budget, Budget::Glance);
    let spec = census(&["census.seeds={empty: 16, other: 8}"]);
    assert_eq!((spec.budget, spec.seeds_empty, spec.seeds_other), (Budget::Custom, 16, 8));
    let problems = problems_with(&["census.budget=custom"]);
    assert_eq!(problems, ["custom: `census.seeds` is missing, which `budget: custom` needs"]);
}

#[test]
fn a_named_budget_keeps_its_numbers() {
    let problems = problems_with(&[
        "census={budget: glance, seeds: {empty: 9, other: 8}, sampler: {ddim: {steps: 3}}}",
    ]);
    assert_eq!(problems.len(), 2);
    assert!(problems[0].contains("must be 512 and 128 for this `budget`, found `9` and `8`"));
    assert!(problems[1].contains("must have 12 steps for this `budget`, found `3`"));
}

#[test]
fn doses_rise_and_hold_the_base_and_the_adapter_as_fitted() {
    let doses = |list: &str| problems_with(&[&format!("census.doses={list}")]);
    assert_eq!(census(&[]).doses, [0.0, 0.5, 1.0]);
    assert_eq!(census(&["census.doses=[-0.5, 0, 1, 1.25]"]).doses, [-0.5, 0.0, 1.0, 1.25]);
    assert!(doses("[0.5, 1]")[0].contains("must hold 0 (the base)"));
    assert!(doses("[0, 0.5]")[0].contains("must hold 1 (the adapter as fitted)"));
    assert_eq!(doses("[0, 1, 1]"), ["1: `census.doses` must rise, found `1` after `1`"]);
    assert_eq!(
        doses("[0, 1, 9]"),
        ["9: `census.doses` must be at least -4 and at most 4, found `9`"]
    );
    assert_eq!(doses("[0, x, 1]"), ["x: `census.doses` must be a number, found the text `x`"]);
    assert_eq!(doses("[0, , 1]").len(), 1);
    assert_eq!(doses("[]").len(), 2);
}

#[test]
fn the_concept_is_of_the_datasets_class() {
    let concept = census(&[]).concept;
    assert_eq!((concept.facet.as_str(), concept.class.as_deref()), ("subject", Some("tower")));
    let concept = census(&["census.concept={facet: style, class: ink}"]).concept;
    assert_eq!((concept.facet.as_str(), concept.class.as_deref()), ("style", Some("ink")));
}

#[test]
fn thesaurus_and_panel_are_named_or_files() {
    let spec = census(&[]);
    assert_eq!(spec.thesaurus, ThesaurusSource::Named("postcards".to_owned()));
    assert_eq!(spec.panel, PanelSource::Named("neutral".to_owned()));
    let spec = census(&["census.thesaurus={file: my.yaml}", "census.panel=own"]);
    assert_eq!(spec.thesaurus, ThesaurusSource::File("my.yaml".into()));
    assert_eq!(spec.panel, PanelSource::Named("own".to_owned()));
    let problems = problems_with(&["census.panel=../secret"]);
    assert!(problems[0].starts_with("../secret: `census.panel` must be"), "{problems:?}");
}
