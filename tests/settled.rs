//! A concept is settled on top of others: they are merged into the base first, and whatever the run
//! does, it does with that base.

use std::path::Path;

use checkpoints::TensorFile;
use checkpoints::run_dir::RunFolder;
use image::RgbImage;
use serde_json::Value;

use crate::world::{CENSUS, Ended, UnderWay, World, is_step, root};

/// So fast that a few steps can be seen in pictures.
const FAST: &str = "fit.optimizer.adamw.learning_rate=5.0e-2";
/// Steps of a run that is asked to stop: so many that it does not end before it has heard.
const MANY_STEPS: u64 = 150;

/// The words that train the world's recipe as run `id`, with overrides.
fn words<'a>(id: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["train", "tiny.yaml", "--runs", "r", "--run-id", id, "--device", "cpu"];
    words.extend(sets.iter().flat_map(|set| ["--set", *set]));
    words
}

/// Trains the world's recipe to its end.
fn train(world: &World, id: &str, sets: &[&str]) -> Ended {
    world.run(&words(id, sets)).expect(0)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn manifest(world: &World, id: &str) -> Value {
    json(&world.path("r").join(id).join("manifest.json"))
}

/// The hash of what a finished run trained, as its census names it.
fn trained(world: &World, id: &str) -> String {
    let run = RunFolder::open(&world.path("r").join(id)).unwrap();
    let checkpoint = run.newest().unwrap().unwrap();
    TensorFile::open(&checkpoint.file("adapter.safetensors")).unwrap().tensors_sha256()
}

fn preview(world: &World, id: &str, step: u64) -> RgbImage {
    let path = world.path("r").join(id).join(format!("previews/step-{step:08}.png"));
    image::open(path).unwrap().into_rgb8()
}

/// Largest difference of a channel of a pixel.
fn difference(left: &RgbImage, right: &RgbImage) -> u8 {
    assert_eq!(left.dimensions(), right.dimensions());
    left.as_raw().iter().zip(right.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn what_was_settled_before_is_the_base_of_what_comes_next() {
    let world = World::new();
    world.recipe(4, "");
    // Linear layers and convolutions.
    train(&world, "a", &[FAST, "adapter.lora.targets=attn_ff_proj_conv"]);
    train(&world, "bare", &[]);
    train(&world, "b", &["settled=[r/a]", "output.metadata=standard"]);
    // The base of b draws what a draws with its adapter.
    let [before, after] = [0, 4].map(|step| preview(&world, "a", step));
    let of_b = preview(&world, "b", 0);
    let (near, moved) = (difference(&of_b, &after), difference(&before, &after));
    assert!(near <= 1, "the base of b is {near} of 255 away from a");
    assert!(moved > 4, "a moved its pictures by {moved} of 255 only");
    assert_eq!(preview(&world, "bare", 0), before);
    // It has another name, and the names of its parts tell which.
    let (bare, b) = (manifest(&world, "bare"), manifest(&world, "b"));
    assert_ne!(bare["fingerprint"], b["fingerprint"]);
    assert_eq!(bare["base_sha256"], manifest(&world, "a")["base_sha256"]);
    assert_ne!(bare["base_sha256"], b["base_sha256"]);
    // The adapter names the base that it is for by the same hash.
    let file = TensorFile::open(&world.path("r/b/adapter.safetensors")).unwrap();
    assert_eq!(b["base_sha256"], file.metadata()["populate.base_sha256"].as_str());
    assert_eq!(b["recipe"]["settled"][0], "r/a");
    assert_eq!(bare["recipe"].get("settled"), None);
    assert_ne!(trained(&world, "b"), trained(&world, "bare"));
}

#[test]
fn plan_validate_and_inspect_name_what_came_before() {
    let world = World::new();
    world.recipe(4, "");
    train(&world, "a", &[]);
    train(&world, "b", &["settled=[r/a]"]);
    let run = |words: &[&str]| {
        let set = ["--device", "cpu", "--set", "settled=[r/a, r/b]"];
        world.run(&[words, &set].concat()).expect(0)
    };
    let (valid, plan) = (run(&["validate", "tiny.yaml"]), run(&["plan", "tiny.yaml"]));
    assert!(valid.stdout.contains("on top of `r/a`, then `r/b`"), "{}", valid.stdout);
    assert!(plan.stdout.contains("settled before: `r/a`, then `r/b`"), "{}", plan.stdout);
    assert!(!plan.stderr.contains("in another base"), "{}", plan.stderr);
    let inspected = world.run(&["inspect", "r/b"]).expect(0);
    assert!(inspected.stdout.contains("settled before: `r/a`"), "{}", inspected.stdout);
    let inspected = world.run(&["inspect", "r/a"]).expect(0);
    assert!(!inspected.stdout.contains("settled before"), "{}", inspected.stdout);
    // b was settled on top of a, which is left out here.
    let plan = ["plan", "tiny.yaml", "--device", "cpu", "--set", "settled=[r/b]"];
    let plan = world.run(&plan).expect(0);
    assert!(plan.stderr.contains("run `r/b` was settled in another base"), "{}", plan.stderr);
}

#[test]
fn an_adapter_file_serves_as_well_as_the_run_that_it_is_from() {
    let world = World::new();
    world.recipe(4, "");
    train(&world, "a", &[FAST]);
    let checkpoint = RunFolder::open(&world.path("r/a")).unwrap().newest().unwrap().unwrap();
    std::fs::copy(checkpoint.file("adapter.safetensors"), world.path("a.safetensors")).unwrap();
    train(&world, "of_run", &["settled=[r/a]"]);
    train(&world, "of_file", &["settled=[a.safetensors]"]);
    // Places are no part of the name.
    let [of_run, of_file] = ["of_run", "of_file"].map(|id| manifest(&world, id));
    assert_eq!(of_run["fingerprint"], of_file["fingerprint"]);
    assert_eq!(trained(&world, "of_run"), trained(&world, "of_file"));
}

#[test]
fn a_run_on_top_of_another_goes_on_from_any_folder_to_the_same_bytes() {
    let world = World::new();
    world.recipe(6, "");
    train(&world, "a", &[FAST]);
    train(&world, "whole", &["settled=[r/a]"]);
    let mut words = words("killed", &["settled=[r/a]"]);
    words.push("--json");
    let mut program = UnderWay::start(world.command(&words));
    assert!(program.read_until(|record| is_step(record, 5)));
    program.kill();
    let run = world.path("r/killed");
    Ended::of(world.command(&["resume", ".", "--device", "cpu"]).current_dir(&run)).expect(0);
    assert_eq!(trained(&world, "killed"), trained(&world, "whole"));
}

#[test]
fn the_manifest_of_a_census_tells_what_was_settled_before() {
    let world = World::new();
    world.recipe(3, CENSUS);
    train(&world, "a", &[FAST]);
    train(&world, "b", &["settled=[r/a]"]);
    world.run(&["census", "r/b", "--device", "cpu"]).expect(0);
    let hashes = json(&world.path("r/b/census/manifest.json"))["hashes"].clone();
    assert_eq!(hashes["root"], manifest(&world, "a")["base_sha256"]);
    assert_eq!(hashes["base"], manifest(&world, "b")["base_sha256"]);
    assert_eq!(hashes["settled"], trained(&world, "a"));
    assert_eq!(hashes["trained"], trained(&world, "b"));
    world.run(&["census", "r/a", "--device", "cpu"]).expect(0);
    let of_a = json(&world.path("r/a/census/manifest.json"))["hashes"].clone();
    assert!(of_a.get("root").is_none() && of_a.get("settled").is_none(), "{of_a}");
}

/// Two concepts, each settled on the bare base and on top of the other: the words come in any order.
#[test]
fn four_runs_give_the_order_effect() {
    let world = World::new();
    world.recipe(3, CENSUS);
    let other = "dataset.dreambooth.instance.images=others";
    std::fs::create_dir(world.path("others")).unwrap();
    for file in std::fs::read_dir(world.path("pictures")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), world.path("others").join(file.file_name())).unwrap();
    }
    train(&world, "a", &[FAST]);
    // The pictures are the same, so that another seed makes another settlement of them.
    train(&world, "b", &[FAST, other, "seed=8"]);
    train(&world, "ab", &[FAST, other, "seed=8", "settled=[r/a]"]);
    train(&world, "ba", &[FAST, "settled=[r/b]"]);
    let words = ["census", "r/ab", "r/b", "r/a", "r/ba", "--device", "cpu", "--out", "c"];
    let compared = world.run(&words).expect(0);
    let comparison = json(&world.path("c/comparison.json"));
    let settlements = &comparison["settlements"];
    assert_eq!(settlements["states"], serde_json::json!(["base", "r/a", "r/ab"]));
    assert_eq!(comparison["reversed"], serde_json::json!(["r/b", "r/ba"]));
    assert_eq!(comparison["settlements_labels"], "nearest");
    let effect = settlements["order_effect"]["value"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&effect) && settlements["order_floor"].is_number());
    assert!(compared.stdout.contains("order"), "{}", compared.stdout);
    for page in ["index.html", "index.fr.html"] {
        assert!(world.path("c").join(page).is_file(), "{page}");
    }
    // Without the first link there is no chain, and the missing one is named.
    world.run(&["census", "r/ab", "r/b", "--device", "cpu", "--out", "d"]).expect(0);
    let comparison = json(&world.path("d/comparison.json"));
    assert!(comparison["settlements"].is_null());
    let digits = &trained(&world, "a")[..8];
    let reason = comparison["refused"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(digits), "{reason}");
}

#[test]
fn weights_that_are_trained_on_top_keep_what_was_settled_in_other_parts() {
    let world = World::new();
    world.recipe(3, "");
    train(&world, "a", &[FAST, "adapter.lora.targets=['text_encoder.**.mlp.*']"]);
    let full = "adapter={full: {targets: ['unet.mid_block.**']}}";
    train(&world, "full", &["settled=[r/a]", full, "output.dtype=f32"]);
    let text = |folder: &str| {
        let path = world.path(folder).join("text_encoder/model.safetensors");
        TensorFile::open(&path).unwrap().tensors_sha256()
    };
    assert_ne!(text("r/full/base"), text("base"));
}

#[test]
fn what_cannot_be_settled_upon_is_refused_before_a_run_is_made() {
    let world = World::new();
    world.recipe(MANY_STEPS, "");
    let mut arguments = words("unfinished", &[]);
    arguments.push("--json");
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| is_step(record, 2)));
    program.signal("TERM");
    assert_eq!(program.end(), Some(75));
    world.recipe(3, "");
    train(&world, "full", &["adapter={full: {targets: ['unet.mid_block.**']}}"]);
    let other = root().join("scripts/golden/family_sdxl/kohya.safetensors");
    std::fs::copy(other, world.path("other.safetensors")).unwrap();
    for (named, code, reason) in [
        ("r/none", 64, "`settled` names `r/none`, expected a finished run"),
        ("r/unfinished", 64, "expected 150"),
        ("r/full", 64, "left no adapter"),
        ("pictures", 64, "recipe.resolved.yaml"),
        ("other.safetensors", 65, "other.safetensors"),
    ] {
        let set = format!("settled=[{named}]");
        let refused = world.run(&words("refused", &[set.as_str()])).expect(code);
        assert!(refused.stderr.contains(reason), "{named}: {}", refused.stderr);
        assert!(!world.path("r/refused").exists(), "{named}");
        // Whether an adapter is for the base is known once the base is opened.
        if named != "other.safetensors" {
            world.run(&["validate", "tiny.yaml", "--set", &set]).expect(code);
        }
    }
}
