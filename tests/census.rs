//! The whole job on a tiny base: train, count, report. Its figures mean nothing; its promises hold.

use std::path::Path;

use serde_json::Value;

use crate::world::{UnderWay, World};

/// A census of seconds, with a placebo and the zero dose.
const CENSUS: &str = "census:
  budget: custom
  thesaurus: postcards
  seeds: { empty: 16, other: 8 }
  sampler: { ddim: { steps: 2, eta: 1.0 } }
  guidance_scale: 2.0
  concept: { facet: subject, class: tower }
  doses: [0.0, 1.0]
  placebo: 1
";

fn census(run: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(run.join("census/census.json")).unwrap()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

#[test]
fn the_whole_job_ends_with_a_report_and_a_sentence() {
    let world = World::new();
    world.recipe(3, CENSUS);
    let ended = world.run(&["run", "tiny.yaml", "--runs", "r", "--device", "cpu"]).expect(0);
    let run = world.only_run("r");
    let report = run.strip_prefix(world.path("")).unwrap().join("report/index.html");
    let mut lines = ended.stdout.lines();
    assert_eq!(lines.next(), Some(format!("report: {}", report.display()).as_str()));
    assert!(lines.next().is_some_and(|sentence| sentence.ends_with('.')), "{}", ended.stdout);
    let page = std::fs::read_to_string(run.join("report/index.html")).unwrap();
    assert!(page.contains("default-src 'none'") && !page.contains("<script"));
    for file in ["census/census.json", "census/rows.csv", "census/manifest.json", "manifest.json"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    // Invariant 13: dose 0 changes neither a pixel nor a label.
    let nulls = &census(&run)["nulls"];
    assert!(nulls["zero"]["pairs"].as_u64().unwrap() > 0, "{nulls}");
    assert_eq!(nulls["zero"]["different_pixels"], 0);
    assert_eq!(nulls["zero"]["different_labels"], 0);
    assert_eq!(nulls["placebos"], 1);
    // Its heart went on beating while pictures were counted.
    let heartbeat = std::fs::read(run.join("heartbeat.json")).unwrap();
    let heartbeat: Value = serde_json::from_slice(&heartbeat).unwrap();
    assert_eq!(heartbeat["phase"], "census");
    // Finished: the result is told again.
    let again = ["run", "tiny.yaml", "--runs", "r", "--device", "cpu", "--json"];
    assert_eq!(world.run(&again).expect(0).last_json()["event"], "done_before");
}

#[test]
fn a_copied_run_counts_the_same_in_another_process() {
    let world = World::new();
    world.recipe(3, CENSUS);
    world.run(&["train", "tiny.yaml", "--runs", "r", "--device", "cpu"]).expect(0);
    let run = world.only_run("r");
    let copied = world.path("copied");
    copy(&run, &copied);
    for directory in [&run, &copied] {
        let directory = directory.display().to_string();
        world.run(&["census", &directory, "--device", "cpu"]).expect(0);
    }
    for file in ["census/census.json", "census/rows.csv", "census/manifest.json"] {
        assert_eq!(
            std::fs::read(run.join(file)).unwrap(),
            std::fs::read(copied.join(file)).unwrap()
        );
    }
    let page = std::fs::read(run.join("report/index.html")).unwrap();
    world.run(&["report", &run.display().to_string()]).expect(0);
    assert_eq!(std::fs::read(run.join("report/index.html")).unwrap(), page);
}

#[test]
fn an_interrupted_census_goes_on_and_gives_the_same_bytes() {
    let world = World::new();
    world.recipe(3, CENSUS);
    world.run(&["run", "tiny.yaml", "--runs", "whole", "--device", "cpu"]).expect(0);
    let arguments = ["run", "tiny.yaml", "--runs", "stopped", "--device", "cpu", "--json"];
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| record["phase"] == "census"));
    program.signal("TERM");
    assert_eq!(program.end(), Some(75));
    // `resume` remembers that the run was to end with a report.
    let run = world.only_run("stopped");
    world.run(&["resume", &run.display().to_string(), "--device", "cpu"]).expect(0);
    assert_eq!(census(&run), census(&world.only_run("whole")));
    assert!(run.join("report/index.html").is_file());
}

#[test]
fn exit_1_a_gate_that_fails_fails_again() {
    let world = World::new();
    world.recipe(
        3,
        &format!("{CENSUS}gates: {{ new_share: {{ at_least: 0.999 }}, strict: true }}\n"),
    );
    let arguments = ["run", "tiny.yaml", "--runs", "r", "--device", "cpu"];
    world.run(&arguments).expect(1);
    world.run(&arguments).expect(1);
}

#[test]
fn a_census_needs_a_finished_training_and_a_recipe_that_asks_for_one() {
    let world = World::new();
    world.recipe(3, "");
    let refused = world.run(&["run", "tiny.yaml", "--device", "cpu"]).expect(64);
    assert!(refused.stderr.contains("no section `census`"), "{}", refused.stderr);
    world.run(&["census", "tiny.yaml", "--device", "cpu"]).expect(64);
    let wrong = ["validate", "tiny.yaml", "--set", "census.concept.facet=flavor"];
    world.recipe(3, CENSUS);
    let refused = world.run(&wrong).expect(64);
    assert!(refused.stderr.contains("flavor"), "{}", refused.stderr);
}

#[test]
fn the_plan_counts_before_anything_is_run() {
    let world = World::new();
    world.recipe(3, CENSUS);
    let plan = world.run(&["plan", "tiny.yaml", "--device", "cpu", "--json"]).expect(0).last_json();
    assert_eq!(plan["training"]["forwards"], 3 * 4);
    assert!(plan["census"]["forwards"].as_u64().unwrap() > 0);
    assert!(plan["step_secs"].as_f64().unwrap() > 0.0);
    assert!(!world.path("runs").exists());
    let text = world.run(&["plan", "tiny.yaml", "--device", "cpu"]).expect(0).stdout;
    // Every default is printed.
    for words in ["weight_decay: ", "clip_norm: ", "detectable: ", "estimate: in all "] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
