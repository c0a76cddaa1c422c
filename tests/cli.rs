//! The command line as a user meets it: documented cases, and one case per exit code.

use std::path::Path;

use crate::world::{PROGRAM, UnderWay, World, is_step, root};

#[test]
fn documented_cases_run_as_written() {
    let cases = trycmd::TestCases::new();
    cases.register_bin("populate", Path::new(PROGRAM));
    cases.env("NO_COLOR", "1");
    cases.case("cmd/*.toml");
    cases.run();
}

#[test]
fn every_verb_has_help() {
    let world = World::empty();
    let help = world.run(&["--help"]).expect(0).stdout;
    let verbs = [
        "validate",
        "plan",
        "train",
        "resume",
        "census",
        "report",
        "run",
        "sham",
        "generate",
        "convert",
        "merge",
        "extract",
        "resize",
        "inspect",
        "doctor",
        "schema",
        "completions",
    ];
    for verb in verbs {
        assert!(help.contains(&format!("  {verb} ")), "{verb}: {help}");
        world.run(&[verb, "--help"]).expect(0);
    }
}

#[test]
fn exit_0_done() {
    let world = World::new();
    world.recipe(4, "");
    let ended = world.run(&["validate", "tiny.yaml", "--json"]).expect(0);
    assert_eq!(ended.last_json()["pictures"], 4);
}

#[test]
fn exit_64_what_contradicts_the_base_or_the_run() {
    let world = World::new();
    world.recipe(4, "");
    let train = ["train", "tiny.yaml", "--runs", "r", "--device", "cpu"];
    let wrong = [&train[..], &["--set", "objective.prediction=v"]].concat();
    let ended = world.run(&wrong).expect(64);
    assert!(ended.stderr.contains("the base's scheduler says `epsilon`"), "{}", ended.stderr);
    std::fs::remove_dir_all(world.path("r")).unwrap();
    world.run(&[&train[..], &["--set", "objective.prediction=epsilon"]].concat()).expect(0);
    let run = world.only_run("r").display().to_string();
    let ended = world.run(&["census", &run, "--set", "seed=8"]).expect(64);
    assert!(ended.stderr.contains("found a run directory"), "{}", ended.stderr);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn exit_69_a_device_that_this_build_cannot_use() {
    let world = World::new();
    world.recipe(4, "");
    let ended = world.run(&["train", "tiny.yaml", "--device", "cuda:1"]).expect(69);
    assert!(ended.stderr.contains("not part of this build"), "{}", ended.stderr);
    assert!(!world.path("runs").exists());
}

#[test]
fn exit_69_after_three_attempts_that_end_where_they_began() {
    let world = World::new();
    world.recipe(20, "");
    // The previews of the base, before the first step, take long.
    let previews = "fit.previews={prompts: [a], seeds: [0, 1, 2, 3, 4, 5, 6, 7], sampler: {ddim: {steps: 500}}}";
    let arguments =
        ["train", "tiny.yaml", "--runs", "r", "--device", "cpu", "--json", "--set", previews];
    let mut ends = Vec::new();
    for _ in 0..3 {
        let mut program = UnderWay::start(world.command(&arguments));
        assert!(program.read_until(|record| record["event"] == "began"));
        program.signal("TERM");
        ends.push(program.end());
    }
    assert_eq!(ends, [Some(75), Some(75), Some(69)]);
}

#[test]
fn exit_75_as_long_as_each_attempt_draws_class_pictures() {
    let world = World::new();
    world.recipe(20, "");
    let class = "dataset.dreambooth.class={generate: 4000, prompt: \"a tower\", weight: 0.5}";
    let arguments =
        ["train", "tiny.yaml", "--runs", "r", "--device", "cpu", "--json", "--set", class];
    let drawn = || {
        let folders = std::fs::read_dir(world.path("cache/populate/class-images")).unwrap();
        let folder = folders.into_iter().next().unwrap().unwrap().path();
        std::fs::read_dir(folder).unwrap().count()
    };
    let mut before = 0;
    for attempt in 0..4 {
        let mut program = UnderWay::start(world.command(&arguments));
        assert!(program.read_until(|record| {
            record["phase"] == "class images" && record["done"].as_u64() > Some(before)
        }));
        program.signal("TERM");
        assert_eq!(program.end(), Some(75), "attempt {attempt}");
        before = drawn() as u64;
    }
}

/// A verb that keeps nothing has nothing to finish first.
#[cfg(unix)]
#[test]
fn a_measurement_ends_at_the_first_signal() {
    use std::io::BufRead;
    use std::os::unix::process::ExitStatusExt;
    let world = World::empty();
    let mut command = world.command(&["doctor", "--base", "--device", "cpu"]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("measuring on")));
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn exit_74_a_folder_that_cannot_be_written() {
    let world = World::new();
    world.recipe(4, "");
    world.write("file", "");
    let ended = world.run(&["train", "tiny.yaml", "--device", "cpu", "--runs", "file"]).expect(74);
    assert!(ended.stderr.contains("file"), "{}", ended.stderr);
}

#[test]
fn exit_76_a_training_that_diverges_names_the_batch_and_keeps_its_checkpoint() {
    let world = World::new();
    world.recipe(400, "");
    let sets = [
        "--set",
        "adapter={full: {targets: [\"unet.**\"]}}",
        "--set",
        // Without a memory of their size, updates grow as gradients shrink.
        "fit.optimizer.adamw={learning_rate: 1.0, beta2: 0.0, epsilon: 1.0e-30}",
        "--set",
        "fit.clip_norm=1.0e6",
        "--set",
        "fit.schedule=constant",
        "--set",
        "fit.save_every=1",
    ];
    let mut arguments = vec!["train", "tiny.yaml", "--runs", "r", "--device", "cpu"];
    arguments.extend(sets);
    let ended = world.run(&arguments).expect(76);
    assert!(ended.stderr.contains("expected a finite number"), "{}", ended.stderr);
    assert!(ended.stderr.contains("pictures/"), "{}", ended.stderr);
    let run = checkpoints::run_dir::RunFolder::open(&world.only_run("r")).unwrap();
    assert!(run.newest().unwrap().is_some());
}

#[test]
fn a_closed_pipe_ends_the_printing_and_not_the_work() {
    let world = World::new();
    world.recipe(6, "");
    let arguments = ["train", "tiny.yaml", "--runs", "r", "--device", "cpu", "--json"];
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| is_step(record, 1)));
    assert_eq!(program.end_without_reading(), Some(0));
    assert!(world.only_run("r").join("adapter.safetensors").is_file());
}

#[test]
fn json_is_all_that_stands_on_standard_output() {
    let world = World::new();
    world.recipe(4, "");
    let ended = world.run(&["train", "tiny.yaml", "--device", "cpu", "--json"]).expect(0);
    for line in ended.stdout.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(record["event"].is_string(), "{line}");
    }
    let refused = world.run(&["validate", "absent.yaml", "--json"]).expect(64);
    assert_eq!(refused.last_json()["exit_code"], 64);
}

#[test]
fn a_run_directory_tells_all_of_itself() {
    let world = World::new();
    world.recipe(4, "");
    world.run(&["train", "tiny.yaml", "--runs", "r", "--device", "cpu"]).expect(0);
    let run = world.only_run("r");
    for file in [
        "recipe.resolved.yaml",
        "attempts.jsonl",
        "heartbeat.json",
        "metrics.jsonl",
        "energy.jsonl",
        "DONE.json",
        "manifest.json",
        "adapter.safetensors",
        "postflight.json",
        "previews/step-00000000.png",
        "previews/step-00000004.png",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let directory = run.display().to_string();
    let record = world.run(&["inspect", &directory, "--json"]).expect(0).last_json();
    assert_eq!(record["kind"], "run");
    let alive = world.run(&["doctor", "--heartbeat", &directory, "--json"]).expect(0).last_json();
    assert_eq!(alive["event"], "done_before");
    let adapter = run.join("adapter.safetensors").display().to_string();
    let told = world.run(&["inspect", &adapter, "--privacy"]).expect(0).stdout;
    assert!(told.contains("kohya") && told.contains("gives away 0 facts"), "{told}");
    // A changed byte is found.
    let mut bytes = std::fs::read(run.join("adapter.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(run.join("adapter.safetensors"), bytes).unwrap();
    world.run(&["inspect", &directory]).expect(65);
}

#[test]
fn pictures_tell_how_they_were_made_and_equal_seeds_give_equal_pictures() {
    let world = World::new();
    let draw = |out: &str, seed: &str| {
        let arguments = [
            "generate", "--device", "cpu", "--base", "base", "--prompt", "a tower", "--steps", "3",
            "--seed", seed, "--count", "3", "--out", out,
        ];
        world.run(&arguments).expect(0);
        std::fs::read(world.path(out)).unwrap()
    };
    let first = draw("a.png", "5");
    assert_eq!(first, draw("b.png", "5"));
    assert_ne!(first, draw("c.png", "6"));
    let text = String::from_utf8_lossy(&first);
    assert!(text.contains("parameters") && text.contains("a tower\nSteps: 3, Sampler: DDIM"));
}

#[test]
fn the_committed_schemas_and_scripts_are_printed() {
    let world = World::empty();
    let schema = world.run(&["schema"]).expect(0).stdout;
    let committed = std::fs::read_to_string(root().join("recipes/schema.json")).unwrap();
    assert_eq!(schema.trim_end(), committed.trim_end());
    let census = world.run(&["schema", "census"]).expect(0).stdout;
    assert!(census.contains("populate/census/1") || census.contains("facets"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(world.run(&["completions", shell]).expect(0).stdout.contains("populate"));
    }
}
