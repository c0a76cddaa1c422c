//! The promises on an NVIDIA card: nothing is gated on bits there, only on what people see.

use checkpoints::run_dir::RunFolder;
use image::RgbImage;

use crate::world::{UnderWay, World, is_step};

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
    world.recipe(6, "");
    let arguments = ["train", "tiny.yaml", "--runs", "r", "--device", "cuda", "--json"];
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| is_step(record, 2)));
    program.signal("TERM");
    assert_eq!(program.end(), Some(75));
    world.run(&arguments).expect(0);
    let metrics = RunFolder::open(&world.only_run("r")).unwrap().metrics().unwrap();
    assert_eq!(metrics.len(), 6);
    assert!(metrics.iter().all(|record| record["loss"].as_f64().unwrap().is_finite()));
}

#[test]
fn the_doctor_proves_the_first_kernel() {
    let ended = World::empty().run(&["doctor", "--device", "cuda"]).expect(0);
    assert!(ended.stdout.contains("matrix product is right"), "{}", ended.stdout);
}
