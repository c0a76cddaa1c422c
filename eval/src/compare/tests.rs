//! Chains of settlements whose pictures are known: `a` makes towers of some boats, `b` makes boats of
//! some houses.

use super::opened::at_dose;
use super::*;
use crate::manifest::CensusManifest;
use crate::synthetic;
use crate::thesaurus::{BLOCKED, NONE};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Seeds per prompt.
const SEEDS: u32 = 60;

/// What a picture shows.
type Draw<'a> = &'a dyn Fn(u32) -> &'static str;

/// A finished run: what was settled before it, its base, its pictures, its concept and where that one's
/// detector fires.
struct Run<'a> {
    name: &'a str,
    settled: &'a [&'a str],
    base: Draw<'a>,
    adapted: Draw<'a>,
    concept: &'a str,
    fires: &'a dyn Fn(u32) -> bool,
}

fn base(seed: u32) -> &'static str {
    ["boat", "tower", "house"][usize::try_from(seed % 3).unwrap()]
}

fn of_a(seed: u32) -> bool {
    seed.is_multiple_of(6)
}

fn of_b(seed: u32) -> bool {
    seed % 6 == 2
}

fn after_a(seed: u32) -> &'static str {
    if of_a(seed) { "tower" } else { base(seed) }
}

fn after_b(seed: u32) -> &'static str {
    if of_b(seed) { "boat" } else { base(seed) }
}

fn after_both(seed: u32) -> &'static str {
    if of_a(seed) { "tower" } else { after_b(seed) }
}

/// SHA-256 of the adapter of a run, as far as tests care.
fn adapter(run: &str) -> String {
    format!("{run:0>8}-and-more")
}

impl Run<'_> {
    /// The run as a candidate.
    fn opened(&self) -> Opened {
        let drawn = |model: Model, seed: u32| match model {
            Model::Adapted => (self.adapted)(seed),
            Model::Base | Model::Placebo(_) => (self.base)(seed),
        };
        let mut input = synthetic::census(SEEDS, &drawn);
        (input.bootstrap, input.flips) = (100, 99);
        input.concept.id = self.concept.to_owned();
        input.concept.name = self.concept.to_owned();
        for row in &mut input.rows.rows {
            let found =
                row.model == Model::Adapted && row.dose > 0.75 && (self.fires)(row.seed_idx);
            row.detected = Some(found);
            if found {
                row.labels[0].entity = self.concept.to_owned();
            }
        }
        let report = reduce(&input).unwrap();
        input.rows.rows = at_dose(input.rows.rows, 1.0);
        let settled: Vec<String> = self.settled.iter().map(|run| adapter(run)).collect();
        let mut hashes = BTreeMap::from([("trained".to_owned(), adapter(self.name))]);
        if settled.is_empty() {
            hashes.insert("base".to_owned(), "root".to_owned());
        } else {
            hashes.insert("base".to_owned(), format!("root and {}", settled.join(" and ")));
            hashes.insert("root".to_owned(), "root".to_owned());
            hashes.insert("settled".to_owned(), settled.join(","));
        }
        let manifest = CensusManifest {
            schema: crate::manifest::SCHEMA.to_owned(),
            tool: "populate test".to_owned(),
            identity_sha256: String::new(),
            hashes,
            census: json!({ "seed": 7 }),
            noise: String::new(),
            empty_prompt: None,
            prompts: BTreeMap::new(),
            pictures: 0,
            forwards: 0,
            files: BTreeMap::new(),
        };
        let (name, of) = (self.name.to_owned(), PathBuf::from(self.name));
        Opened { name, of, last: true, dose: 1.0, input, report, manifest }
    }
}

const A: Run<'_> = Run {
    name: "a",
    settled: &[],
    base: &base,
    adapted: &after_a,
    concept: "cylinder",
    fires: &of_a,
};
const AB: Run<'_> = Run {
    name: "ab",
    settled: &["a"],
    base: &after_a,
    adapted: &after_both,
    concept: "prism",
    fires: &of_b,
};
const ABC: Run<'_> = Run {
    name: "abc",
    settled: &["a", "ab"],
    base: &after_both,
    adapted: &base,
    concept: "cone",
    fires: &of_a,
};
const B: Run<'_> =
    Run { name: "b", settled: &[], base: &base, adapted: &after_b, concept: "prism", fires: &of_b };
const BA: Run<'_> = Run {
    name: "ba",
    settled: &["b"],
    base: &after_b,
    adapted: &after_both,
    concept: "cylinder",
    fires: &of_a,
};

fn of(runs: &[&Run<'_>]) -> Comparison {
    compared(runs.iter().map(|run| run.opened()).collect()).unwrap()
}

fn reason(comparison: &Comparison, what: &str) -> String {
    let refused = comparison.refused.iter().find(|refusal| refusal.what == what);
    refused.map(|refusal| refusal.reason.clone()).unwrap_or_default()
}

#[test]
fn a_chain_is_found_whatever_the_order_of_the_words() {
    for runs in [[&A, &AB, &ABC], [&ABC, &A, &AB], [&AB, &ABC, &A]] {
        let found = of(&runs);
        let record = found.settlements.as_ref().unwrap();
        assert_eq!(record.states, ["base", "a", "ab", "abc"]);
        assert_eq!(record.entities, ["tower", "house", "boat", BLOCKED]);
        assert_eq!(found.settlements_labels, Some(Labels::Nearest));
        // Recolonisation: the third settlement gives back what the first two took.
        let far: Vec<f64> = record.distance_to_base.iter().map(|tv| tv.value).collect();
        for (far, expected) in far.iter().zip([0.0, 1.0 / 6.0, 1.0 / 6.0, 0.0]) {
            assert!((far - expected).abs() < 1e-9, "{:?}", record.distance_to_base);
        }
        assert_eq!((record.kinds.len(), record.backward_transfer), (3, None));
        assert!(reason(&found, "backward_transfer").contains("its own concept alone"));
        assert!(reason(&found, "order_effect").contains("other order"));
        let on = |name: &str| found.states.iter().find(|s| s.name == name).unwrap().on.clone();
        assert_eq!([on("a"), on("ab"), on("abc")], [None, Some("a".into()), Some("ab".into())]);
    }
}

#[test]
fn equal_pictures_have_no_order_effect_though_detectors_differ() {
    let found = of(&[&A, &AB, &B, &BA]);
    let record = found.settlements.unwrap();
    assert_eq!((record.states[2].as_str(), &found.reversed[..]), ("ab", &names(&["b", "ba"])[..]));
    let effect = record.order_effect.unwrap();
    assert_eq!(effect.value.to_bits(), 0.0_f64.to_bits());
    assert_eq!((record.order_floor, record.order_p), (Some(0.0), Some(1.0)));
    // What each census wrote is not equal, or this would prove nothing.
    let written = |run: &Run<'_>| -> Vec<String> {
        let rows = run.opened().input.rows.rows;
        let adapted = rows.into_iter().filter(|row| row.model == Model::Adapted);
        adapted.map(|row| row.labels[0].entity.clone()).collect()
    };
    assert_ne!(written(&AB), written(&BA));
    let pair = found.pairs.iter().find(|pair| pair.from == "ab" && pair.to == "ba").unwrap();
    assert!(pair.labels == Labels::Nearest && pair.tv.value.abs() < 1e-12, "{pair:?}");
    assert!(pair.entities.iter().all(|entity| entity.delta.value.abs() < 1e-12));
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn different_pictures_have_an_order_effect_and_the_chain_named_first_leads() {
    let other = |seed: u32| if seed.is_multiple_of(2) { "house" } else { after_both(seed) };
    let ba = Run { adapted: &other, ..BA };
    let found = of(&[&ba, &AB, &A, &B]);
    let record = found.settlements.unwrap();
    assert_eq!((record.states, found.reversed), (names(&["base", "b", "ba"]), names(&["a", "ab"])));
    let effect = record.order_effect.unwrap();
    // Of six places 3 towers, 2 boats and a house; in the other order 1, 1 and 4.
    assert!((effect.value - 0.5).abs() < 1e-9, "{effect:?}");
    assert!(effect.ci.unwrap()[0] > 0.0 && record.order_p.unwrap() < 0.05, "{effect:?}");
    assert!(record.order_floor.unwrap() < effect.value / 2.0);
}

#[test]
fn a_chain_with_a_missing_link_is_refused_by_the_missing_hash() {
    let found = of(&[&AB, &ABC]);
    assert_eq!((found.settlements.is_none(), found.settlements_labels), (true, None));
    let missing = "0000000a";
    assert!(reason(&found, "settlements").ends_with(&format!("that of adapter {missing}")));
    let on: Vec<Option<&str>> = found.states.iter().map(|state| state.on.as_deref()).collect();
    assert_eq!(on, [Some(missing), Some("ab")]);
}

#[test]
fn only_a_finished_and_whole_adapter_is_lain_upon() {
    let [mut checkpoint, mut half] = [A.opened(), A.opened()];
    checkpoint.last = false;
    half.dose = 0.5;
    for unlike in [checkpoint, half] {
        let found = compared(vec![unlike, AB.opened()]).unwrap();
        assert!(found.settlements.is_none());
        assert_eq!(found.states[1].on.as_deref(), Some("0000000a"));
    }
}

#[test]
fn settlements_side_by_side_do_not_follow_each_other() {
    let found = of(&[&A, &B]);
    assert!(found.settlements.is_none() && found.reversed.is_empty());
    assert!(reason(&found, "settlements").contains("side by side"));
    // Of six places 3 towers, 1 boat, 2 houses against 2, 3 and 1; neither concept is an entity.
    let pair = &found.pairs[0];
    assert!((pair.tv.value - 1.0 / 3.0).abs() < 1e-9, "{pair:?}");
    let ids: Vec<&str> = pair.entities.iter().map(|entity| entity.id.as_str()).collect();
    assert_eq!(ids, ["tower", "house", "boat"]);
}

#[test]
fn states_of_one_run_keep_their_own_labels() {
    let first = Run { name: "first", adapted: &base, fires: &|_| false, ..A };
    let [mut first, mut last] = [first.opened(), A.opened()];
    (first.of, last.of) = (PathBuf::from("run"), PathBuf::from("run"));
    first.last = false;
    let found = compared(vec![first, last]).unwrap();
    let record = found.settlements.unwrap();
    assert_eq!(found.settlements_labels, Some(Labels::Own));
    assert_eq!(record.entities, ["tower", "house", "boat", "cylinder", NONE, BLOCKED]);
    assert!((record.shares[2][3] - 1.0 / 6.0).abs() < 1e-9, "{:?}", record.shares);
    assert!((found.pairs[0].tv.value - 1.0 / 6.0).abs() < 1e-9);
    assert!(found.pairs[0].entities.iter().any(|entity| entity.id == "cylinder"));
    assert!(found.refused.is_empty());
}

#[test]
fn pictures_are_labelled_by_the_nearest_entity_whatever_was_found() {
    let mut input = AB.opened().input;
    let words = input.rows.entities.clone();
    assert_eq!(words[..3], names(&["tower", "house", "boat"]));
    let row = input.rows.rows.iter_mut().find(|row| row.model == Model::Adapted).unwrap();
    // Unlike anything, and as near to two: the first of the thesaurus.
    row.labels[0].entity = NONE.to_owned();
    row.cosines = vec![0.1, 0.2, 0.2, 0.9, 0.9];
    let mut withheld = row.clone();
    withheld.blocked = true;
    withheld.labels[0].entity = BLOCKED.to_owned();
    input.rows.rows.push(withheld);
    let place = input.rows.rows.iter().position(|row| row.labels[0].entity == NONE).unwrap();
    let alike = Labels::Nearest.read(&input).unwrap();
    let bears = |place: usize| alike.rows.rows[place].labels[0].entity.as_str();
    assert_eq!((bears(place), bears(alike.rows.rows.len() - 1)), ("house", BLOCKED));
    assert!(alike.rows.rows.iter().all(|row| row.labels[0].entity != "prism"));
    assert!(alike.rows.rows.iter().all(|row| row.labels[1].entity == "red"), "another facet");
    assert_eq!(Labels::Own.read(&input).unwrap().rows, input.rows);
}

#[test]
fn only_one_bare_base_and_equal_pictures_of_one_base_are_compared() {
    let refused = |runs: Vec<Opened>| compared(runs).unwrap_err().to_string();
    let mut stranger = AB.opened();
    stranger.manifest.hashes.insert("root".to_owned(), "another".to_owned());
    assert!(refused(vec![A.opened(), stranger]).contains("they differ in the bare base"));
    // Pictures of combined bases may differ from those of the bare one, not from each other.
    let mut same = AB.opened();
    for row in &mut same.input.rows.rows {
        row.pixels.push('!');
    }
    let error = refused(vec![A.opened(), AB.opened(), same]);
    assert!(error.contains("180 pictures of the base"), "{error}");
}
