//! `populate generate` draws with SD 1.x, SD 2.x and SDXL the pictures that diffusers draws with them.
//!
//! The cases of `scripts/golden/family_*` have the structure of the released models and small
//! widths. Their scripts made sure that each picture would be visibly another if a prompt, a
//! scaling factor, a component of the adapter or anything else that is drawn with did not count.

use std::path::{Path, PathBuf};

use image::RgbImage;
use serde_json::{Value, json};

use crate::world::{World, root};

/// Largest difference of a channel of a pixel, of 255.
const TOLERANCE: u8 = 2;
/// What all pictures of the cases have in common; see `scripts/golden/family_cases.py`.
const COMMON: [&str; 11] = [
    "generate",
    "--device",
    "cpu",
    "--prompt",
    "a red lighthouse at night, ink hatching!",
    "--steps",
    "8",
    "--guidance",
    "3",
    "--size",
    "128x64",
];
const NEGATIVE: [&str; 2] = ["--negative", "a mosaic"];

/// Draws with a base and these flags, which include the start.
fn draw(base: &Path, flags: &[&str]) -> RgbImage {
    let world = World::empty();
    let base = base.display().to_string();
    let arguments = [&COMMON[..], &["--base", &base, "--out", "out.png"], flags].concat();
    world.run(&arguments).expect(0);
    picture(&world.path("out.png"))
}

/// One family's golden folder.
struct Case(PathBuf);

impl Case {
    fn of(family: &str) -> Self {
        Self(root().join("scripts/golden").join(format!("family_{family}")))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn check_on(&self, base: &Path, name: &str, flags: &[&str]) {
        let latents = self.path("latents.safetensors");
        let flags = [flags, &NEGATIVE, &["--init-latents", &latents]].concat();
        self.compare(name, &draw(base, &flags));
    }

    fn check(&self, name: &str, flags: &[&str]) {
        self.check_on(&self.0.join("base"), name, flags);
    }

    fn check_without_negative(&self, name: &str, flags: &[&str]) {
        let latents = self.path("latents.safetensors");
        let flags = [flags, &["--init-latents", &latents]].concat();
        self.compare(name, &draw(&self.0.join("base"), &flags));
    }

    /// With the noise of steps and encoder that the case holds, too.
    fn check_with_noise(&self, name: &str, flags: &[&str]) {
        let noises = self.path("noises.safetensors");
        let flags = [flags, &NEGATIVE, &["--init-latents", &noises]].concat();
        self.compare(name, &draw(&self.0.join("base"), &flags));
    }

    /// From the picture that DDIM drew.
    fn check_from_picture(&self, sampler: &str, name: &str) {
        let image = self.path("ddim.png");
        let flags = ["--sampler", sampler, "--init-image", &image, "--strength", "0.6"];
        self.check_with_noise(name, &flags);
    }

    fn compare(&self, name: &str, found: &RgbImage) {
        let expected = picture(&self.0.join(format!("{name}.png")));
        let largest = largest_difference(found, &expected);
        assert!(largest <= TOLERANCE, "{name} of {}: {largest} of 255", self.0.display());
    }

    /// The four samplers without noise of their own.
    fn check_samplers(&self) {
        for (sampler, name) in [
            ("ddim", "ddim"),
            ("euler", "euler"),
            ("dpmpp-2m", "dpmpp"),
            ("dpmpp-2m-karras", "dpmpp-karras"),
        ] {
            self.check(name, &["--sampler", sampler]);
        }
    }

    /// The adapter that PEFT made, as diffusers saved it and under kohya's names, at two doses.
    fn check_adapters(&self, sampler: &str) {
        for form in ["diffusers", "kohya"] {
            let adapter = self.path(&format!("{form}.safetensors"));
            let half = format!("{adapter}:0.5");
            let name = format!("{sampler}-adapter");
            self.check(&name, &["--sampler", sampler, "--adapter", &adapter]);
            self.check(&format!("{name}-half"), &["--sampler", sampler, "--adapter", &half]);
            // Two halves are a whole.
            self.check(&name, &["--sampler", sampler, "--adapter", &half, "--adapter", &half]);
        }
    }

    /// The base with other settings of its scheduler.
    fn base_with_scheduler(&self, world: &World, changes: &Value) -> PathBuf {
        let base = world.path("base");
        copy(&self.0.join("base"), &base);
        let path = base.join("scheduler/scheduler_config.json");
        let mut settings: Value = checkpoints::fs::read_json(&path).unwrap();
        for (field, value) in changes.as_object().unwrap() {
            settings[field] = value.clone();
        }
        checkpoints::fs::atomic_write_json(&path, &settings).unwrap();
        base
    }
}

fn picture(path: &Path) -> RgbImage {
    image::open(path).unwrap().into_rgb8()
}

fn largest_difference(found: &RgbImage, expected: &RgbImage) -> u8 {
    assert_eq!(found.dimensions(), expected.dimensions());
    let differences = found.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b));
    differences.max().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn sd1_samplers() {
    Case::of("sd1").check_samplers();
}

#[test]
fn sd1_samplers_with_noise_of_their_own() {
    let case = Case::of("sd1");
    case.check_with_noise("ddim-eta", &["--sampler", "ddim", "--eta", "0.5"]);
    case.check_with_noise("ddpm", &["--sampler", "ddpm"]);
    case.check_with_noise("euler-a", &["--sampler", "euler-a"]);
}

#[test]
fn sd1_guidance_against_nothing_and_brought_back() {
    let case = Case::of("sd1");
    case.check_without_negative("ddim-no-negative", &["--sampler", "ddim"]);
    case.check("ddim-rescale", &["--sampler", "ddim", "--guidance-rescale", "0.7"]);
}

#[test]
fn sd1_text_states_of_the_last_layer_but_one() {
    Case::of("sd1").check("ddim-clip-skip-2", &["--sampler", "ddim", "--clip-skip", "2"]);
}

#[test]
fn sd1_from_a_picture() {
    let case = Case::of("sd1");
    case.check_from_picture("ddim", "ddim-from-picture");
    case.check_from_picture("euler", "euler-from-picture");
    case.check_from_picture("dpmpp-2m", "dpmpp-from-picture");
}

#[test]
fn sd1_adapters() {
    Case::of("sd1").check_adapters("ddim");
}

#[test]
fn sd2_samplers_on_v_prediction() {
    Case::of("sd2").check_samplers();
}

#[test]
fn sd2_epsilon_prediction() {
    let (case, world) = (Case::of("sd2"), World::empty());
    let base = case.base_with_scheduler(&world, &json!({ "prediction_type": "epsilon" }));
    case.check_on(&base, "ddim-epsilon", &["--sampler", "ddim"]);
    case.check("ddim-epsilon", &["--sampler", "ddim", "--prediction", "epsilon"]);
}

#[test]
fn sd2_zero_terminal_snr() {
    let (case, world) = (Case::of("sd2"), World::empty());
    let changes = json!({ "rescale_betas_zero_snr": true, "timestep_spacing": "trailing" });
    let base = case.base_with_scheduler(&world, &changes);
    let rescaled = ["--sampler", "ddim", "--guidance-rescale", "0.7"];
    case.check_on(&base, "ddim-zero-snr", &rescaled);
    let asked = [&rescaled[..], &["--zero-terminal-snr", "on", "--spacing", "trailing"]].concat();
    case.check("ddim-zero-snr", &asked);
}

#[test]
fn sd2_adapters() {
    Case::of("sd2").check_adapters("ddim");
}

#[test]
fn sdxl_samplers() {
    Case::of("sdxl").check_samplers();
}

/// SDXL's files ask for zeros where no negative prompt is given.
#[test]
fn sdxl_guidance_against_zeros_and_brought_back() {
    let case = Case::of("sdxl");
    case.check_without_negative("euler-no-negative", &["--sampler", "euler"]);
    case.check("euler-rescale", &["--sampler", "euler", "--guidance-rescale", "0.7"]);
}

#[test]
fn sdxl_sizes_and_crops() {
    let flags = ["--sampler", "euler", "--original-size", "300x200", "--crop", "40,16"];
    Case::of("sdxl").check("euler-cropped", &flags);
}

#[test]
fn sdxl_from_a_picture() {
    Case::of("sdxl").check_from_picture("euler", "euler-from-picture");
}

#[test]
fn sdxl_adapters() {
    Case::of("sdxl").check_adapters("euler");
}

#[test]
fn an_adapter_of_another_family_is_refused_and_nothing_is_drawn() {
    let world = World::empty();
    for (base, other) in [("sd1", "sdxl"), ("sdxl", "sd1"), ("sd1", "sd2")] {
        let adapter = Case::of(other).path("kohya.safetensors");
        let base = Case::of(base).path("base");
        let asked = ["--base", &base, "--adapter", &adapter, "--out", "out.png"];
        let ended = world.run(&[&COMMON[..], &asked].concat()).expect(65);
        assert!(ended.stderr.contains(&adapter), "{}", ended.stderr);
        assert!(!world.path("out.png").exists());
    }
}

#[test]
fn the_golden_pictures_of_a_family_differ_from_each_other() {
    for (family, first, others) in [
        ("sd1", "ddim", ["dpmpp", "ddim-adapter", "ddim-adapter-half", "ddim-no-negative"]),
        ("sd2", "ddim", ["dpmpp", "ddim-adapter", "ddim-adapter-half", "ddim-epsilon"]),
        ("sdxl", "euler", ["dpmpp", "euler-adapter", "euler-adapter-half", "euler-no-negative"]),
    ] {
        let case = Case::of(family);
        let first = picture(&case.0.join(format!("{first}.png")));
        for other in others {
            let other = picture(&case.0.join(format!("{other}.png")));
            // Else a program that ignored what sets them apart would pass.
            assert!(largest_difference(&first, &other) > 2 * TOLERANCE);
        }
    }
}
