//! `populate sham`: pictures that the base draws from the captions of a recipe, and the recipe that
//! settles them.

use std::path::Path;

use image::RgbImage;
use recipes::{BaseSpec, DatasetSpec, Loaded, Recipe};
use serde_json::Value;

use crate::world::{CENSUS, Ended, UnderWay, World, files, picture};

fn sham(world: &World, more: &[&str]) -> Ended {
    let arguments = ["sham", "tiny.yaml", "--out", "null", "--device", "cpu", "--json"];
    world.run(&[&arguments[..], more].concat())
}

fn recipe(path: &Path) -> Recipe {
    match recipes::load(path, &[]).unwrap() {
        Loaded::Settle(recipe) => *recipe,
        Loaded::Pretrain(_) => panic!("it settles nothing"),
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Turns the world's pictures into `n` that each have a caption of their own, and its recipe into one
/// of a captioned dataset.
fn captioned(world: &World, n: usize) {
    world.recipe(3, CENSUS);
    let first = std::fs::read(world.path("pictures/0.png")).unwrap();
    for index in 0..n {
        std::fs::write(world.path(&format!("pictures/{index}.png")), &first).unwrap();
        world.write(&format!("pictures/{index}.txt"), &format!("a tower of {index} lines\n"));
    }
    for index in n..4 {
        std::fs::remove_file(world.path(&format!("pictures/{index}.png"))).unwrap();
    }
    let lines = text(&world.path("tiny.yaml"));
    let is_kept = |line: &&str| !line.starts_with("    ") && !line.starts_with("  dreambooth");
    let kept: Vec<&str> = lines.lines().filter(is_kept).collect();
    let dataset = "dataset: { captioned: { images: pictures, identifier: sks, class: tower, \
                   identifier_at: front, side_px: 64 } }";
    world.write("tiny.yaml", &kept.join("\n").replace("dataset:", dataset));
}

#[test]
fn a_sham_is_the_recipe_with_pictures_that_its_base_drew() {
    let world = World::new();
    let path = world.recipe(3, CENSUS);
    let told = sham(&world, &[]).expect(0).last_json();
    assert_eq!(told["event"], "sham");
    assert_eq!((told["pictures"].as_u64(), told["kept"].as_u64()), (Some(4), Some(0)));
    let folder = world.path("null");
    let names: Vec<String> = files(&folder).keys().map(|name| name.display().to_string()).collect();
    let expected = [
        "pictures-sham/0001.png",
        "pictures-sham/0001.txt",
        "pictures-sham/0002.png",
        "pictures-sham/0002.txt",
        "pictures-sham/0003.png",
        "pictures-sham/0003.txt",
        "pictures-sham/0004.png",
        "pictures-sham/0004.txt",
        "sham.json",
        "sham.yaml",
    ];
    assert_eq!(names, expected);
    assert_eq!(text(&folder.join("pictures-sham/0003.txt")), "a sks tower\n");
    let drawn: Vec<RgbImage> = (1..=4)
        .map(|number| picture(&folder.join(format!("pictures-sham/000{number}.png"))))
        .collect();
    assert!(drawn.iter().all(|picture| picture.dimensions() == (64, 64)));
    assert_ne!(drawn[0], drawn[1], "each has noise of its own");
    // All but its name and its pictures is that of the recipe.
    let (before, mut after) = (recipe(&path), recipe(&folder.join("sham.yaml")));
    assert_eq!(after.name, "tiny-sham");
    after.name.clone_from(&before.name);
    // The paths of one count from the working directory, those of the other are absolute.
    assert_eq!(after.base, BaseSpec::Folder { weights: world.path("base") });
    after.base.clone_from(&before.base);
    let (DatasetSpec::DreamBooth(of_before), DatasetSpec::DreamBooth(of_after)) =
        (&before.dataset, &mut after.dataset)
    else {
        panic!("both are dreambooth")
    };
    assert_eq!(of_after.instance.images, folder.join("pictures-sham"));
    of_after.instance.images.clone_from(&of_before.instance.images);
    assert_eq!(after, before);
}

#[test]
fn a_sham_is_settled_from_any_folder_and_compared_with_what_it_is_a_null_of() {
    let world = World::new();
    world.recipe(3, CENSUS);
    sham(&world, &[]).expect(0);
    let elsewhere = world.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let recipe = world.path("null/sham.yaml").display().to_string();
    let validate = ["validate", recipe.as_str(), "--json"];
    let ended = Ended::of(world.command(&validate).current_dir(&elsewhere)).expect(0);
    assert_eq!(ended.last_json()["pictures"], 4);
    assert!(!ended.stderr.contains("not read"), "{}", ended.stderr);
    let run = ["run", recipe.as_str(), "--device", "cpu"];
    Ended::of(world.command(&run).current_dir(&elsewhere)).expect(0);
    world.run(&["run", "tiny.yaml", "--runs", "r", "--device", "cpu"]).expect(0);
    let runs = ["r", "elsewhere/runs"].map(|runs| world.only_run(runs).display().to_string());
    // Each run is counted where it was started, so that a relative folder would move with them.
    let both = world.path("both").display().to_string();
    let census = ["census", runs[0].as_str(), runs[1].as_str(), "--out", both.as_str()];
    world.run(&[&census[..], &["--device", "cpu"]].concat()).expect(0);
    let comparison: Value =
        checkpoints::fs::read_json(&world.path("both/comparison.json")).unwrap();
    assert_eq!(comparison["states"].as_array().unwrap().len(), 2);
}

#[test]
fn a_captioned_sham_has_each_caption_as_the_recipe_completes_it() {
    let world = World::new();
    captioned(&world, 3);
    sham(&world, &[]).expect(0);
    for index in 0..3 {
        let caption = text(&world.path(&format!("null/pictures-sham/000{}.txt", index + 1)));
        assert_eq!(caption, format!("sks, a tower of {index} lines\n"));
    }
    let sham = recipe(&world.path("null/sham.yaml"));
    let [before, after] =
        [recipe(&world.path("tiny.yaml")).dataset, sham.dataset].map(|mut dataset| {
            // Its relative path counts from where the program was started.
            if let DatasetSpec::Captioned(captioned) = &mut dataset {
                captioned.images = world.path("").join(&captioned.images);
            }
            let opened = datasets::open(&dataset).unwrap();
            opened.examples.into_iter().map(|example| example.caption).collect::<Vec<_>>()
        });
    assert_eq!(before, after);
    world.run(&["validate", "null/sham.yaml"]).expect(0);
}

#[test]
fn a_finished_sham_is_not_drawn_again_and_stays_as_it_is() {
    let world = World::new();
    world.recipe(3, CENSUS);
    sham(&world, &[]).expect(0);
    let first = files(&world.path("null"));
    let told = sham(&world, &[]).expect(0);
    assert_eq!(told.last_json()["kept"], 4);
    assert!(!told.stdout.contains("\"event\":\"drawn\""), "{}", told.stdout);
    assert_eq!(files(&world.path("null")), first);
    // The same pictures in another folder, and others from another seed.
    let other = ["sham", "tiny.yaml", "--out", "other", "--device", "cpu"];
    world.run(&other).expect(0);
    world
        .run(&["sham", "tiny.yaml", "--out", "seed", "--device", "cpu", "--set", "seed=8"])
        .expect(0);
    let bytes =
        |folder: &str| std::fs::read(world.path(folder).join("pictures-sham/0001.png")).unwrap();
    assert_eq!(bytes("other"), bytes("null"));
    let pixels = |folder: &str| picture(&world.path(folder).join("pictures-sham/0001.png"));
    assert_ne!(pixels("seed"), pixels("null"));
}

#[test]
fn what_lies_in_the_folder_is_never_replaced() {
    let world = World::new();
    world.recipe(3, CENSUS);
    for (out, reason) in [("pictures", "new, empty or of an earlier sham"), ("tiny.yaml", "folder")]
    {
        let ended = world.run(&["sham", "tiny.yaml", "--out", out, "--device", "cpu"]).expect(64);
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    }
    assert_eq!(files(&world.path("pictures")).len(), 4);
    sham(&world, &[]).expect(0);
    let first = files(&world.path("null"));
    for set in ["seed=8", "fit.steps=4"] {
        sham(&world, &["--set", set]).expect(64);
    }
    assert_eq!(files(&world.path("null")), first);
    let retouched = world.write("null/pictures-sham/0002.png", "retouched");
    let ended = sham(&world, &[]).expect(65);
    assert!(ended.last_json()["message"].as_str().unwrap().contains("0002.png"));
    assert_eq!(text(&retouched), "retouched");
    // Moved away, it is drawn again as it was.
    std::fs::remove_file(&retouched).unwrap();
    assert_eq!(sham(&world, &[]).expect(0).last_json()["kept"], 3);
    assert_eq!(files(&world.path("null")), first);
    let long = format!("name={}", "a".repeat(60));
    world.run(&["sham", "tiny.yaml", "--out", "long", "--set", &long]).expect(64);
    assert!(!world.path("long").exists());
}

#[test]
fn killed_behind_any_picture_a_sham_ends_with_the_same_bytes() {
    let world = World::new();
    captioned(&world, 40);
    let arguments = ["sham", "tiny.yaml", "--out", "null", "--device", "cpu", "--json"];
    for n_pictures in [1, 2] {
        let mut program = UnderWay::start(world.command(&arguments));
        for _ in 0..n_pictures {
            assert!(program.read_until(|record| record["event"] == "drawn"));
        }
        program.kill();
        assert!(!world.path("null/sham.yaml").exists(), "no recipe of pictures that are missing");
    }
    let told = world.run(&arguments).expect(0).last_json();
    assert!(told["kept"].as_u64() >= Some(3), "{told}");
    let [killed, whole] = ["null", "whole"].map(|out| {
        world.run(&["sham", "tiny.yaml", "--out", out, "--device", "cpu"]).expect(0);
        let mut files = files(&world.path(out));
        // It names its own folder.
        files.remove(Path::new("sham.yaml")).unwrap();
        files
    });
    assert_eq!(killed, whole);
}

#[test]
fn asked_to_stop_a_sham_keeps_its_pictures_and_says_how_to_go_on() {
    let world = World::new();
    // So many that it does not end before it has heard.
    captioned(&world, 200);
    let arguments = ["sham", "tiny.yaml", "--out", "null", "--device", "cpu", "--json"];
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| record["event"] == "drawn"));
    program.signal("TERM");
    assert!(program.read_until(|record| record["event"] == "stopped"));
    assert_eq!(program.end(), Some(75));
    let record: Value = checkpoints::fs::read_json(&world.path("null/sham.json")).unwrap();
    assert_eq!(record["complete"], false);
    assert!(!record["pictures"].as_array().unwrap().is_empty());
    assert!(!world.path("null/sham.yaml").exists());
}

#[test]
fn a_training_from_scratch_has_no_sham() {
    let world = World::empty();
    let vae = crate::world::root().join("recipes/postcards/vae.yaml").display().to_string();
    let ended = world.run(&["sham", &vae, "--out", "null", "--device", "cpu"]).expect(64);
    assert!(ended.stderr.contains("from scratch"), "{}", ended.stderr);
    assert!(!world.path("null").exists());
}
