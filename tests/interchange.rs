//! The shipped recipes of SD 1.5, 2.1 and XL on bases of these families, from the plan to adapter
//! files that draw.
//!
//! The bases are the miniatures of `scripts/golden/family_*`; that other programs read the files
//! that are written here is shown by `scripts/check_interchange.py`.

use std::path::PathBuf;

use image::RgbImage;
use serde_json::Value;

use crate::world::{Ended, World, root};

/// A shipped recipe, the key of its base, and what a base of this family is called.
const RECIPES: [(&str, &str, &str); 4] = [
    ("style-sd15", "sd1", "Stable Diffusion 1.x"),
    ("dreambooth-sd15", "sd1", "Stable Diffusion 1.x"),
    ("style-sd21", "sd2", "Stable Diffusion 2.x"),
    ("style-sdxl", "sdxl", "Stable Diffusion XL"),
];

/// The miniature base of a family.
fn base(family: &str) -> PathBuf {
    root().join("scripts/golden").join(format!("family_{family}")).join("base")
}

/// A folder with three captioned pictures.
fn world() -> World {
    let world = World::empty();
    std::fs::create_dir(world.path("pictures")).unwrap();
    for index in 0..3 {
        let (picture, _) = datasets::concept::cylinder(1970, index, 64);
        picture.save(world.path(&format!("pictures/{index}.png"))).unwrap();
        world.write(&format!("pictures/{index}.txt"), "a red tower at night, ink hatching");
    }
    world
}

/// What every recipe is told instead of its own weights, pictures and length.
fn small(recipe: &str, key: &str, weights: &str) -> Vec<String> {
    let dataset = if recipe.starts_with("dreambooth") {
        ["instance.images=pictures", "side_px=64", "class.generate=2"]
            .map(|set| format!("dataset.dreambooth.{set}"))
            .to_vec()
    } else {
        ["images=pictures", "side_px=64"].map(|set| format!("dataset.captioned.{set}")).to_vec()
    };
    let fit = [
        format!("base.{key}.weights={weights}"),
        "adapter.lora.rank=2".to_owned(),
        "fit.steps=3".to_owned(),
        "fit.save_every=3".to_owned(),
        "fit.batch={images: 1, accumulate: 1}".to_owned(),
        "fit.schedule=constant".to_owned(),
        "fit.optimizer.adamw.learning_rate=0.05".to_owned(),
        "fit.previews={prompts: [\"\"], seeds: [0], sampler: {dpmpp_2m: {steps: 2}}}".to_owned(),
    ];
    [dataset, fit.to_vec()].concat()
}

/// Runs a verb on a shipped recipe with these overrides.
fn run(world: &World, verb: &str, recipe: &str, sets: &[String]) -> Ended {
    let path = root().join("recipes").join(format!("{recipe}.yaml")).display().to_string();
    let mut arguments = vec![verb, &path, "--device", "cpu", "--runs", "r"];
    for set in sets {
        arguments.extend(["--set", set.as_str()]);
    }
    world.run(&arguments)
}

#[test]
fn every_recipe_of_a_released_family_is_planned() {
    let world = world();
    for (recipe, key, title) in RECIPES {
        let sets = small(recipe, key, &base(key).display().to_string());
        let ended = run(&world, "plan", recipe, &sets).expect(0);
        assert!(ended.stdout.contains(&format!("base: base ({title})")), "{}", ended.stdout);
    }
    assert!(!world.path("r").exists());
}

#[test]
fn weights_of_another_family_are_named() {
    let world = world();
    for (recipe, key, found, sentence) in [
        ("style-sd15", "sd1", "sdxl", "is Stable Diffusion XL, expected Stable Diffusion 1.x"),
        ("style-sd15", "sd1", "sd2", "is Stable Diffusion 2.x, expected Stable Diffusion 1.x"),
        ("style-sd21", "sd2", "sd1", "is Stable Diffusion 1.x, expected Stable Diffusion 2.x"),
        ("style-sdxl", "sdxl", "sd1", "is Stable Diffusion 1.x, expected Stable Diffusion XL"),
    ] {
        let sets = small(recipe, key, &base(found).display().to_string());
        for verb in ["plan", "train"] {
            let ended = run(&world, verb, recipe, &sets).expect(65);
            assert!(ended.stderr.contains(sentence), "{}", ended.stderr);
        }
    }
    assert!(!world.path("r").exists());
}

/// One picture of the miniature base of a family, with any adapters.
fn picture(world: &World, family: &str, adapters: &[&str]) -> RgbImage {
    let base = base(family).display().to_string();
    let mut arguments = vec![
        "generate",
        "--device",
        "cpu",
        "--base",
        &base,
        "--prompt",
        "a red tower at night, ink hatching",
        "--steps",
        "4",
        "--size",
        "64x64",
        "--out",
        "out.png",
    ];
    for adapter in adapters {
        arguments.extend(["--adapter", adapter]);
    }
    world.run(&arguments).expect(0);
    image::open(world.path("out.png")).unwrap().into_rgb8()
}

fn largest_difference(first: &RgbImage, second: &RgbImage) -> u8 {
    assert_eq!(first.dimensions(), second.dimensions());
    first.as_raw().iter().zip(second.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// Trains as the recipe says but for `more`; both files of the adapter draw the same picture, which
/// is not the base's.
fn check_training(recipe: &str, key: &str, more: &[&str]) {
    let world = world();
    let mut sets = small(recipe, key, &base(key).display().to_string());
    sets.extend(more.iter().map(|&set| set.to_owned()));
    run(&world, "train", recipe, &sets).expect(0);
    let dir = world.only_run("r");
    let file = |name: &str| dir.join(name).display().to_string();
    let (kohya, diffusers) =
        (file("adapter.safetensors"), file("pytorch_lora_weights.safetensors"));
    let with_kohya = picture(&world, key, &[&kohya]);
    let with_diffusers = picture(&world, key, &[&diffusers]);
    let apart = largest_difference(&with_kohya, &with_diffusers);
    assert!(apart <= 2, "{recipe}: {apart} of 255 between the two files");
    let change = largest_difference(&with_kohya, &picture(&world, key, &[]));
    assert!(change > 10, "{recipe}: the adapter changes no value by more than {change} of 255");
}

#[test]
fn sd1_style() {
    let targets = "adapter.lora.targets=attn_ff_proj_conv";
    check_training("style-sd15", "sd1", &[targets]);
}

/// A processor emulates bf16, and says that it is slow.
#[test]
fn sd1_style_beside_a_base_in_bf16() {
    const SLOW: &str = "bf16 on a processor is slower than f32";
    let world = world();
    let mut sets = small("style-sd15", "sd1", &base("sd1").display().to_string());
    // In the middle of so small a UNet there is one position: what queries and keys are is all one.
    sets.push("adapter.lora.targets=[unet.**.to_v]".to_owned());
    for (precision, runs) in [("f32", "wide"), ("bf16", "narrow")] {
        sets.push(format!("base.sd1.precision={precision}"));
        let recipe = root().join("recipes/style-sd15.yaml").display().to_string();
        let mut arguments = vec!["train", &recipe, "--device", "cpu", "--runs", runs];
        for set in &sets {
            arguments.extend(["--set", set.as_str()]);
        }
        let ended = world.run(&arguments).expect(0);
        assert_eq!(ended.stderr.contains(SLOW), precision == "bf16", "{}", ended.stderr);
        let path = world.only_run(runs).join("manifest.json");
        let manifest: Value = checkpoints::fs::read_json(&path).unwrap();
        assert_eq!(manifest["numerics"]["precision"], precision);
    }
}

#[test]
fn a_processor_draws_in_f32_unless_it_is_told_otherwise() {
    let world = world();
    let base = base("sd1").display().to_string();
    let draw = |out: &str, more: &[&str]| {
        let fixed =
            ["generate", "--device", "cpu", "--base", &base, "--steps", "2", "--size", "64x64"];
        world.run(&[&fixed[..], &["--out", out], more].concat()).expect(0);
        image::open(world.path(out)).unwrap().into_rgb8()
    };
    let unasked = draw("unasked.png", &[]);
    assert_eq!(draw("auto.png", &["--precision", "auto"]), unasked);
    assert_eq!(draw("wide.png", &["--precision", "f32"]), unasked);
    assert_ne!(draw("narrow.png", &["--precision", "bf16"]), unasked);
}

#[test]
fn sd1_dreambooth_with_text_encoder() {
    let targets = "adapter.lora.targets=[unet.**.attn*.to_*, text_encoder.**.q_proj]";
    check_training("dreambooth-sd15", "sd1", &[targets]);
}

#[test]
fn sd2_style_with_text_encoder() {
    let targets = "adapter.lora.targets=[unet.**.proj_in, text_encoder.**.mlp.fc1]";
    check_training("style-sd21", "sd2", &[targets]);
}

#[test]
fn sdxl_style() {
    let targets = "adapter.lora.targets=attn_ff_proj_conv";
    check_training("style-sdxl", "sdxl", &[targets]);
}

/// The last layer of the first encoder is never read, so it is not in the file.
#[test]
fn sdxl_style_with_both_text_encoders() {
    let targets = "adapter.lora.targets=[unet.**.attn2.to_*, text_encoder.**.q_proj, \
                   text_encoder_2.**.mlp.fc2]";
    check_training("style-sdxl", "sdxl", &[targets]);
}
