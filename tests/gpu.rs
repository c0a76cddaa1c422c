//! The promises on an NVIDIA card: nothing is gated on bits there, only on what people see.

use image::RgbImage;

use crate::world::World;

/// Largest mean difference of a channel between card and processor, of 255.
const MEAN_TOLERANCE: f64 = 2.0;

fn draw(world: &World, device: &str) -> RgbImage {
    let out = format!("{}.png", device.replace(':', "-"));
    let arguments = [
        "generate", "--base", "base", "--steps", "4", "--seed", "3", "--device", device, "--out",
        &out,
    ];
    world.run(&arguments).expect(0);
    image::open(world.path(&out)).unwrap().into_rgb8()
}

#[test]
fn a_card_draws_what_the_processor_draws() {
    let world = World::new();
    let (card, processor) = (draw(&world, "cuda:0"), draw(&world, "cpu"));
    let pairs = card.as_raw().iter().zip(processor.as_raw());
    let sum: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    let mean = sum / card.as_raw().len() as f64;
    assert!(mean <= MEAN_TOLERANCE, "{mean} of 255");
}

#[test]
fn a_card_trains_and_resumes() {
    let world = World::new();
    world.recipe(4, "");
    world.run(&["train", "tiny.yaml", "--runs", "r", "--device", "cuda"]).expect(0);
    let run = world.only_run("r");
    let loss = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
    };
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(metrics.lines().all(|line| loss(line).is_finite()));
}

#[test]
fn the_doctor_proves_the_first_kernel() {
    let ended = World::empty().run(&["doctor", "--device", "cuda"]);
    assert!(ended.stdout.contains("matrix product is right"), "{}", ended.stdout);
}
