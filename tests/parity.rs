//! `populate generate` draws the pictures that diffusers draws, from the files that diffusers wrote.
//!
//! The networks, schedules, samplers and the tokenizer are compared number by number in their own
//! crates; here the whole way is, from the command line to the PNG.

use std::path::PathBuf;

use image::RgbImage;

use crate::world::{World, root};

/// Largest difference of a channel of a pixel, of 255.
const TOLERANCE: u8 = 2;

fn case() -> PathBuf {
    root().join("scripts/golden/pipeline")
}

fn picture(path: &std::path::Path) -> RgbImage {
    image::open(path).unwrap().into_rgb8()
}

/// Draws with these flags and compares with the golden picture of this name.
fn check(name: &str, flags: &[&str]) {
    let world = World::empty();
    let case = case();
    let (base, latents) = (case.join("base"), case.join("latents.safetensors"));
    let (base, latents) = (base.display().to_string(), latents.display().to_string());
    let mut arguments = vec![
        "generate",
        "--device",
        "cpu",
        "--base",
        &base,
        "--prompt",
        "a red lighthouse at night, ink hatching",
        "--negative",
        "a mosaic",
        "--steps",
        "8",
        "--guidance",
        "3",
        "--size",
        "48x32",
        "--init-latents",
        &latents,
        "--out",
        "out.png",
    ];
    arguments.extend(flags);
    world.run(&arguments).expect(0);
    let (found, expected) =
        (picture(&world.path("out.png")), picture(&case.join(format!("{name}.png"))));
    assert_eq!(found.dimensions(), expected.dimensions());
    let differences = found.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b));
    let largest = differences.max().unwrap();
    assert!(largest <= TOLERANCE, "{name}: {largest} of 255");
}

fn adapter(dose: &str) -> String {
    format!("{}{dose}", case().join("adapter.safetensors").display())
}

#[test]
fn ddim() {
    check("ddim", &["--sampler", "ddim"]);
}

#[test]
fn euler() {
    check("euler", &["--sampler", "euler"]);
}

#[test]
fn dpmpp_2m() {
    check("dpmpp", &["--sampler", "dpmpp-2m"]);
}

#[test]
fn dpmpp_2m_on_karras_levels() {
    check("dpmpp-karras", &["--sampler", "dpmpp-2m-karras"]);
}

#[test]
fn an_adapter_of_unet_and_text_encoder() {
    check("ddim-adapter", &["--sampler", "ddim", "--adapter", &adapter("")]);
}

#[test]
fn an_adapter_at_half_dose() {
    check("ddim-adapter-half", &["--sampler", "ddim", "--adapter", &adapter(":0.5")]);
}

#[test]
fn the_golden_pictures_differ_from_each_other() {
    let case = case();
    let base = picture(&case.join("ddim.png"));
    for other in ["dpmpp", "dpmpp-karras", "ddim-adapter", "ddim-adapter-half"] {
        let other = picture(&case.join(format!("{other}.png")));
        let differences = base.as_raw().iter().zip(other.as_raw()).map(|(a, b)| a.abs_diff(*b));
        // Else a program that ignored sampler or adapter would pass. Euler is not among them: it is
        // DDIM without noise in other variables, and gives the same picture.
        assert!(differences.max().unwrap() > 2 * TOLERANCE);
    }
}
