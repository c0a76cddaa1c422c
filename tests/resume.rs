//! Invariant 11: on a processor, a run that was interrupted and went on equals one that was not,
//! bit for bit. Also: one run, one writer; finished runs are not trained again.

use std::path::Path;

use checkpoints::TensorFile;
use checkpoints::run_dir::RunFolder;

use crate::world::{Ended, UnderWay, World, is_step};

const STEPS: u64 = 10;
/// Steps of a run that is asked to stop: so many that it does not end before it has heard.
const MANY_STEPS: u64 = 150;

fn adapter(run: &Path) -> (String, Vec<u8>) {
    let path = run.join("adapter.safetensors");
    let hash = TensorFile::open(&path).unwrap().tensors_sha256();
    (hash, std::fs::read(path).unwrap())
}

fn uninterrupted(world: &World, steps: u64) -> (String, Vec<u8>) {
    world.recipe(steps, "");
    world.run(&["train", "tiny.yaml", "--runs", "whole", "--device", "cpu"]).expect(0);
    adapter(&world.only_run("whole"))
}

#[test]
fn killed_at_arbitrary_steps_a_run_ends_with_the_same_bytes() {
    let world = World::new();
    let whole = uninterrupted(&world, STEPS);
    let arguments = ["train", "tiny.yaml", "--runs", "killed", "--device", "cpu", "--json"];
    // Once before the first checkpoint, once behind one, once at the last step.
    for step in [2, 6, STEPS] {
        let mut program = UnderWay::start(world.command(&arguments));
        assert!(program.read_until(|record| is_step(record, step)), "step {step} was not reached");
        program.kill();
    }
    world.run(&arguments).expect(0);
    let run = world.only_run("killed");
    assert_eq!(adapter(&run).0, whole.0);
    assert_eq!(RunFolder::open(&run).unwrap().attempts().unwrap().len(), 4);
    // Every step is measured once, whatever was lost in between.
    let steps: Vec<u64> = RunFolder::open(&run)
        .unwrap()
        .metrics()
        .unwrap()
        .iter()
        .map(|record| record["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>());
}

/// Whether this process ignores Ctrl-C, as in the background of a script; programs inherit that, and
/// this one obeys.
fn interrupt_is_ignored() -> bool {
    const INTERRUPT: u64 = 1 << (2 - 1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & INTERRUPT != 0)
}

#[test]
fn asked_to_stop_a_run_commits_and_resumes_to_the_same_bytes() {
    let world = World::new();
    let whole = uninterrupted(&world, MANY_STEPS);
    let interrupt = if interrupt_is_ignored() { "TERM" } else { "INT" };
    for (signal, step) in [("TERM", 1), ("USR1", 50), (interrupt, 100)] {
        let arguments = ["train", "tiny.yaml", "--runs", "stopped", "--device", "cpu", "--json"];
        let mut program = UnderWay::start(world.command(&arguments));
        assert!(program.read_until(|record| is_step(record, step)), "{signal}");
        program.signal(signal);
        assert_eq!(program.end(), Some(75), "{signal}");
        let run = RunFolder::open(&world.only_run("stopped")).unwrap();
        assert!(run.newest().unwrap().unwrap().step() >= step, "{signal}");
    }
    let run = world.only_run("stopped");
    let directory = run.display().to_string();
    world.run(&["resume", &directory, "--device", "cpu"]).expect(0);
    assert_eq!(adapter(&run), whole);
}

/// Its recipe names the base and the pictures by relative paths. The preview of the step at which
/// it was stopped is drawn when it goes on.
#[test]
fn a_run_goes_on_from_any_folder_and_misses_no_preview() {
    let world = World::new();
    world.recipe(MANY_STEPS, "");
    let train = ["train", "tiny.yaml", "--runs", "r", "--device", "cpu", "--json"];
    let command = [&train[..], &["--set", "fit.previews.every=1"]].concat();
    let mut program = UnderWay::start(world.command(&command));
    assert!(program.read_until(|record| is_step(record, 2)));
    program.signal("TERM");
    assert_eq!(program.end(), Some(75));
    let run = world.only_run("r");
    Ended::of(world.command(&["resume", ".", "--device", "cpu"]).current_dir(&run)).expect(0);
    assert!(run.join("adapter.safetensors").is_file());
    for step in 0..=MANY_STEPS {
        assert!(run.join(format!("previews/step-{step:08}.png")).is_file(), "step {step}");
    }
}

#[test]
fn the_last_line_says_how_to_go_on() {
    let world = World::new();
    world.recipe(MANY_STEPS, "");
    let mut program = UnderWay::start(world.command(&[
        "train",
        "tiny.yaml",
        "--runs",
        "r",
        "--device",
        "cpu",
        "--json",
    ]));
    assert!(program.read_until(|record| is_step(record, 2)));
    program.signal("TERM");
    let mut last = None;
    while let Some(record) = program.next() {
        last = Some(record);
    }
    let last = last.unwrap();
    assert_eq!(last["event"], "stopped");
    let go_on = last["go_on"].as_str().unwrap();
    assert!(go_on.starts_with("populate resume r/tiny-"), "{go_on}");
    let words: Vec<&str> = go_on.split(' ').skip(1).collect();
    world.run(&words).expect(0);
}

#[test]
fn the_same_recipe_twice_gives_identical_bytes() {
    let world = World::new();
    let first = uninterrupted(&world, STEPS);
    world.run(&["train", "tiny.yaml", "--runs", "again", "--device", "cpu"]).expect(0);
    assert_eq!(adapter(&world.only_run("again")), first);
    // A finished run tells its result and does nothing.
    let arguments = ["train", "tiny.yaml", "--runs", "again", "--device", "cpu", "--json"];
    assert_eq!(world.run(&arguments).expect(0).last_json()["event"], "done_before");
    // It does not answer for a result that is no longer there.
    let run = world.only_run("again");
    std::fs::remove_file(run.join("adapter.safetensors")).unwrap();
    assert_eq!(world.run(&arguments).expect(0).last_json()["event"], "trained");
    assert_eq!(adapter(&run), first);
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let world = World::new();
    world.recipe(4, "");
    let adapters = ["1", "3"].map(|threads| {
        let arguments = ["train", "tiny.yaml", "--runs", threads, "--device", "cpu"];
        let mut command = world.command(&arguments);
        Ended::of(command.env("RAYON_NUM_THREADS", threads)).expect(0);
        adapter(&world.only_run(threads))
    });
    assert_eq!(adapters[0], adapters[1]);
}

#[test]
fn a_run_has_one_writer() {
    let world = World::new();
    world.recipe(200, "");
    let arguments = ["train", "tiny.yaml", "--runs", "r", "--device", "cpu", "--json"];
    let mut first = UnderWay::start(world.command(&arguments));
    assert!(first.read_until(|record| is_step(record, 1)));
    let second = world.run(&arguments).expect(73);
    assert!(second.stderr.contains("is locked by a live run"), "{}", second.stderr);
    first.signal("TERM");
    assert_eq!(first.end(), Some(75));
}

#[test]
fn another_recipe_under_the_same_name_is_refused_with_the_difference() {
    let world = World::new();
    world.recipe(4, "");
    let first = ["train", "tiny.yaml", "--runs", "r", "--run-id", "mine", "--device", "cpu"];
    world.run(&first).expect(0);
    let mut other = first.to_vec();
    other.extend(["--set", "seed=8"]);
    let refused = world.run(&other).expect(64);
    assert!(refused.stderr.contains("- seed: 7") && refused.stderr.contains("+ seed: 8"));
    let mut again = first.to_vec();
    again.extend(["--resume", "never"]);
    world.run(&again).expect(64);
    world.run(&["train", "tiny.yaml", "--runs", "empty", "--resume", "must"]).expect(64);
}

#[test]
fn commits_that_do_not_verify_are_never_trained_over() {
    let world = World::new();
    world.recipe(200, "");
    let arguments = ["train", "tiny.yaml", "--runs", "r", "--device", "cpu", "--json"];
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| record["event"] == "saved"));
    program.signal("TERM");
    assert_eq!(program.end(), Some(75));
    let run = world.only_run("r");
    for checkpoint in std::fs::read_dir(run.join("checkpoints")).unwrap() {
        std::fs::write(checkpoint.unwrap().path().join("state.json"), "{}").unwrap();
    }
    world.run(&arguments).expect(74);
    let inspected = world.run(&["inspect", &run.display().to_string()]).expect(65);
    assert!(inspected.stderr.contains("state.json"), "{}", inspected.stderr);
}
