//! `populate series`: pictures that follow from the file alone, kept whatever ends the program.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::{Ended, UnderWay, World, files, picture, root};

/// Two series of three pictures with the tiny base.
const FILE: &str = "\
schema: populate/series/1
name: tiny
base: { folder: { weights: base } }
sampler: { ddim: { steps: 2 } }
guidance_scale: 2.0
side_px: 64
references: pictures
templates: { card: \"a {thing} {time}\" }
slots: { thing: [boat, tower, fish], time: [by day, at night] }
series:
  harbor: { pictures: 3 }
  winter: { pictures: 3, order: drawn, slots: { time: at night } }
";

fn series(world: &World, more: &[&str]) -> Ended {
    world.run(&[&["series", "tiny.yaml", "--device", "cpu", "--json"][..], more].concat())
}

fn record(folder: &Path) -> Value {
    checkpoints::fs::read_json(&folder.join("series.json")).unwrap()
}

#[test]
#[expect(clippy::cognitive_complexity, reason = "one story, told in its order")]
fn a_series_file_becomes_pictures_a_record_and_contact_sheets() {
    let world = World::new();
    world.write("tiny.yaml", FILE);
    let told = series(&world, &[]).expect(0).last_json();
    let folder = world.path("series/tiny");
    assert_eq!((told["pictures"].as_u64(), told["kept"].as_u64()), (Some(6), Some(0)));
    let record = record(&folder);
    assert_eq!(record["complete"], true);
    let pictures = record["pictures"].as_array().unwrap();
    let of_record: Vec<&str> = pictures.iter().map(|p| p["file"].as_str().unwrap()).collect();
    let expected = [
        "harbor/001.png",
        "harbor/002.png",
        "harbor/003.png",
        "winter/001.png",
        "winter/002.png",
        "winter/003.png",
    ];
    assert_eq!(of_record, expected);
    for picture in pictures {
        let path = folder.join(picture["file"].as_str().unwrap());
        let sha256 = checkpoints::hash::file_sha256(&path).unwrap().0;
        assert_eq!(picture["sha256"], sha256);
    }
    // The tiny base brings an evaluator, and the file names references: nothing is refused.
    let consistency = &record["consistency"];
    assert_eq!(consistency["refused"], Value::Array(Vec::new()), "{consistency:#}");
    let spaces = consistency["spaces"].as_array().unwrap();
    let names: Vec<&str> = spaces.iter().map(|space| space["space"].as_str().unwrap()).collect();
    assert_eq!(names, ["content", "style", "palette"]);
    for space in spaces {
        let r2 = space["coherence"]["r2"]["value"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&r2), "{space:#}");
    }
    for name in ["harbor", "winter"] {
        let vendi = consistency["vendi"][name].as_f64().unwrap();
        assert!((1.0..=3.0 + 1e-9).contains(&vendi), "{vendi}");
    }
    for cosine in ["clip_t", "nearest_reference"] {
        let cosine = consistency[cosine].as_f64().unwrap();
        assert!((-1.0..=1.0).contains(&cosine), "{cosine}");
    }
    let sheet = picture(&folder.join("contact-sheet.png"));
    assert_eq!(sheet.dimensions(), (1654, 2339), "A4 at 200 dots per inch");
    let page = std::fs::read_to_string(folder.join("contact-sheet.html")).unwrap();
    assert_eq!(page.matches("<img src=\"data:image/png;base64,").count(), 6);
    assert!(!page.contains("<script") && !page.contains("http:") && !page.contains("https:"));
    let table = std::fs::read_to_string(folder.join("instructions.csv")).unwrap();
    assert_eq!(table.lines().count(), 7);
    assert!(table.contains("a boat by day"), "{table}");
}

#[test]
fn a_finished_series_is_not_drawn_again_and_stays_as_it_is() {
    let world = World::new();
    world.write("tiny.yaml", FILE);
    series(&world, &[]).expect(0);
    let folder = world.path("series/tiny");
    let first = files(&folder);
    let told = series(&world, &[]).expect(0);
    assert_eq!(told.last_json()["kept"], 6);
    assert!(!told.stdout.contains("\"event\":\"drawn\""), "{}", told.stdout);
    assert_eq!(files(&folder), first);
    // A series that comes is drawn, and nothing else.
    world.write("tiny.yaml", &FILE.replace("  harbor", "  autumn: { pictures: 2 }\n  harbor"));
    let told = series(&world, &[]).expect(0).last_json();
    assert_eq!((told["pictures"].as_u64(), told["kept"].as_u64()), (Some(8), Some(6)));
    let second = files(&folder);
    let is_picture = |path: &PathBuf| path.parent().is_some_and(|folder| folder != Path::new(""));
    for (path, bytes) in first.iter().filter(|(path, _)| is_picture(path)) {
        assert_eq!(&second[path], bytes, "{}", path.display());
    }
}

#[test]
fn generate_draws_a_picture_of_a_series_again() {
    let world = World::new();
    world.write("tiny.yaml", FILE);
    series(&world, &["--batch", "1"]).expect(0);
    let folder = world.path("series/tiny");
    let record = record(&folder);
    let second = &record["pictures"][4];
    let (instruction, seed) = (second["instruction"].as_str().unwrap(), second["seed"].to_string());
    world
        .run(&[
            "generate",
            "--base",
            "base",
            "--device",
            "cpu",
            "--sampler",
            "ddim",
            "--steps",
            "2",
            "--guidance",
            "2",
            "--size",
            "64x64",
            "--prompt",
            instruction,
            "--seed",
            &seed,
            "--out",
            "again.png",
        ])
        .expect(0);
    let file = folder.join(second["file"].as_str().unwrap());
    assert_eq!(picture(&file), picture(&world.path("again.png")));
}

#[test]
fn killed_behind_any_picture_a_series_ends_with_the_same_bytes() {
    let world = World::new();
    // So many that none of the killed programs ends before.
    world.write("tiny.yaml", &FILE.replace("harbor: { pictures: 3 }", "harbor: { pictures: 60 }"));
    series(&world, &["--out", "whole"]).expect(0);
    let arguments =
        ["series", "tiny.yaml", "--device", "cpu", "--json", "--out", "killed", "--batch", "1"];
    for n_pictures in [1, 2] {
        let mut program = UnderWay::start(world.command(&arguments));
        for _ in 0..n_pictures {
            assert!(program.read_until(|record| record["event"] == "drawn"));
        }
        program.kill();
    }
    let told = world.run(&arguments).expect(0).last_json();
    assert!(told["kept"].as_u64() >= Some(3), "{told}");
    assert_eq!(files(&world.path("killed")), files(&world.path("whole")));
}

#[test]
fn asked_to_stop_a_series_keeps_its_pictures_and_says_how_to_go_on() {
    let world = World::new();
    // So many that it does not end before it has heard.
    world.write("tiny.yaml", &FILE.replace("harbor: { pictures: 3 }", "harbor: { pictures: 900 }"));
    let arguments = ["series", "tiny.yaml", "--device", "cpu", "--json"];
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| record["event"] == "drawn"));
    program.signal("TERM");
    assert!(program.read_until(|record| record["event"] == "stopped"));
    assert_eq!(program.end(), Some(75));
    let record = record(&world.path("series/tiny"));
    assert_eq!(record["complete"], false);
    assert!(!record["pictures"].as_array().unwrap().is_empty());
}

#[test]
fn a_mistake_is_shown_where_it_stands() {
    let world = World::new();
    world.write("tiny.yaml", &FILE.replace("{ pictures: 3 }", "{ slots: { time: at nights } }"));
    for verb in ["series", "validate"] {
        let ended = world.run(&[verb, "tiny.yaml"]).expect(64);
        assert!(ended.stderr.contains("tiny.yaml:11:28"), "{}", ended.stderr);
        assert!(ended.stderr.contains("`slots.time` has no value `at nights`"), "{}", ended.stderr);
        assert!(ended.stderr.contains("did you mean `at night`?"), "{}", ended.stderr);
    }
    world.write("tiny.yaml", &FILE.replace("references: pictures", "references: nowhere"));
    let ended = world.run(&["series", "tiny.yaml"]).expect(65);
    assert!(ended.stderr.contains("holds no picture"), "{}", ended.stderr);
}

#[test]
fn the_shipped_series_files_are_valid() {
    let world = World::empty();
    for name in ["postcards", "sd15"] {
        let file = format!("recipes/series/{name}.yaml");
        let ended = Ended::of(world.command(&["validate", &file]).current_dir(root()));
        assert_eq!(ended.expect(0).stderr, "", "{name}");
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        assert!(
            text.contains(&format!("#   populate series {file}\n")),
            "{file} says how to run it"
        );
    }
}
