//! `populate generate` draws what it is asked for, says how, and only if it may.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use checkpoints::{Family, HostTensor, ModelFiles, ModelOptions, TensorFile, TensorMap};
use diffusion::{Sampler, SamplerKind, SchedulerConfig};
use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, RgbImage, imageops};
use models::base::tensor_from_host;
use models::{Base, Device, SizeConditions, Tensor};
use recipes::draws::{self, Purpose};
use serde_json::Value;

use crate::world::{Ended, UnderWay, World, root};

/// Side of the tiny base's pictures.
const SIDE_PX: u32 = 64;
/// Between the pictures of a sheet.
const GAP_PX: u32 = 2;

fn generate(world: &World, more: &[&str]) -> Ended {
    world.run(&[&["generate", "--device", "cpu"][..], more].concat())
}

/// Draws with the tiny base in few steps.
fn draw(world: &World, more: &[&str]) -> Ended {
    generate(world, &[&["--base", "base", "--steps", "3"][..], more].concat()).expect(0)
}

fn picture(path: &Path) -> RgbImage {
    image::open(path).unwrap().into_rgb8()
}

fn names(dir: &Path) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    checkpoints::fs::list(dir).unwrap().into_iter().map(name).collect()
}

/// The chunks of a PNG: kind and data.
fn chunks(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[8..];
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let length = usize::try_from(u32::from_be_bytes(rest[..4].try_into().unwrap())).unwrap();
        let kind = String::from_utf8(rest[4..8].to_vec()).unwrap();
        chunks.push((kind, rest[8..8 + length].to_vec()));
        rest = &rest[12 + length..];
    }
    chunks
}

/// A text of a PNG by its keyword.
fn text(path: &Path, keyword: &str) -> Option<String> {
    chunks(path).into_iter().find_map(|(kind, data)| {
        let data = data.strip_prefix(keyword.as_bytes())?.strip_prefix(b"\0")?.to_vec();
        match kind.as_str() {
            "tEXt" => Some(data.into_iter().map(char::from).collect()),
            // Not compressed, and neither language nor translation.
            "iTXt" => String::from_utf8(data[4..].to_vec()).ok(),
            _ => None,
        }
    })
}

/// What A1111 reads from the text `parameters`: prompt, negative prompt, settings.
///
/// Source: A1111 `infotext_utils.parse_generation_parameters`, whose expression for a setting is
/// `\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)`.
fn parsed(parameters: &str) -> (String, String, BTreeMap<String, String>) {
    let mut lines: Vec<&str> = parameters.trim().lines().collect();
    let last = lines.pop().unwrap();
    let mut settings = BTreeMap::new();
    let mut rest = last;
    while !rest.is_empty() {
        let (key, value) = rest.split_once(':').unwrap();
        let key = key.trim_start();
        let in_key = |c: char| c.is_alphanumeric() || "_ -/".contains(c);
        assert!(key.len() > 1 && key.chars().all(in_key), "`{key}` of `{last}` is no key");
        let value = value.trim_start();
        let end = if value.starts_with('"') { quoted_end(value) } else { value.find(',') };
        let end = end.unwrap_or(value.len());
        let (value, more) = value.split_at(end);
        let unquoted = serde_json::from_str(value).unwrap_or_else(|_| value.to_owned());
        assert!(settings.insert(key.to_owned(), unquoted).is_none(), "`{key}` stands there twice");
        rest = more.strip_prefix(',').unwrap_or(more);
    }
    assert!(settings.len() >= 3, "too few for a line of settings: `{last}`");
    let (mut prompt, mut negative) = (Vec::new(), Vec::new());
    for line in lines {
        match line.trim().strip_prefix("Negative prompt:") {
            Some(first) => negative.push(first.trim()),
            None if negative.is_empty() => prompt.push(line.trim()),
            None => negative.push(line.trim()),
        }
    }
    (prompt.join("\n"), negative.join("\n"), settings)
}

/// Just behind the quotation mark that closes the one at the beginning.
fn quoted_end(value: &str) -> Option<usize> {
    let mut escaped = false;
    let inner = value.char_indices().skip(1);
    for (at, c) in inner {
        match c {
            '"' if !escaped => return Some(at + 1),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

/// Mean difference of two pictures' channels, of 255.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.as_raw().len() as f64
}

fn cell(sheet: &RgbImage, column: u32, row: u32) -> RgbImage {
    let at = |index: u32| index * (SIDE_PX + GAP_PX);
    imageops::crop_imm(sheet, at(column), at(row), SIDE_PX, SIDE_PX).to_image()
}

/// Pixels of a sheet's side with this many pictures.
fn side(n: u32) -> u32 {
    n * (SIDE_PX + GAP_PX) - GAP_PX
}

fn save(world: &World, name: &str, tensors: Vec<(&str, Vec<usize>, Vec<f32>)>) {
    let tensor = |(name, shape, values): (&str, Vec<usize>, Vec<f32>)| {
        (name.to_owned(), HostTensor::from_f32(shape, values))
    };
    let tensors: TensorMap = tensors.into_iter().map(tensor).collect();
    checkpoints::write_tensors(&world.path(name), &tensors, &BTreeMap::new()).unwrap();
}

fn load(world: &World) -> Base {
    let files = ModelFiles::open(&world.path("base"), &ModelOptions::default()).unwrap();
    models::load(&files, &Device::flex()).unwrap()
}

fn only(pixels: Tensor<4>) -> RgbImage {
    eval::sample::pictures_from_pixels(pixels).unwrap().remove(0)
}

/// `[1, 3, height, width]` in [−1, 1].
fn pixels(picture: &RgbImage) -> Tensor<4> {
    let plane = |channel: usize| {
        picture.pixels().map(move |pixel| f32::from(pixel.0[channel]) / 127.5 - 1.0)
    };
    let (width, height) = picture.dimensions();
    let shape = [1, 3, height as usize, width as usize];
    tensor_from_host((0..3).flat_map(plane).collect(), shape, &Device::flex())
}

#[test]
fn prompts_times_seeds_are_as_many_files_each_with_its_own_text() {
    let world = World::new();
    world.write("prompts.txt", "\u{feff}a house\r\n\r\n  # a sun, 塔  \n");
    let arguments = [
        "--prompt",
        "a boat",
        "--prompts",
        "prompts.txt",
        "--seeds",
        "1,4-5",
        "--out",
        "drawn/",
        "--json",
    ];
    let ended = draw(&world, &arguments);
    let expected: Vec<(&str, u64)> = ["a boat", "a house", "# a sun, 塔"]
        .into_iter()
        .flat_map(|prompt| [1, 4, 5].map(|seed| (prompt, seed)))
        .collect();
    let file = |(index, &(_, seed)): (usize, &(&str, u64))| format!("{index:04}-{seed}.png");
    let files: Vec<String> = expected.iter().enumerate().map(file).collect();
    assert_eq!(names(&world.path("drawn")), files);
    let records: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let written: Vec<&Value> =
        records.iter().filter(|record| record["event"] == "generated").collect();
    assert_eq!(written.len(), 9);
    for ((file, (prompt, seed)), record) in files.iter().zip(&expected).zip(written) {
        let path = world.path("drawn").join(file);
        let (told, _, settings) = parsed(&text(&path, "parameters").unwrap());
        assert_eq!((told.as_str(), settings["Seed"].as_str()), (*prompt, &*seed.to_string()));
        let about: Value = serde_json::from_str(&text(&path, "populate").unwrap()).unwrap();
        assert_eq!(
            (&about["prompt"], &about["seed"]),
            (&Value::from(*prompt), &Value::from(*seed))
        );
        assert_eq!((&record["prompt"], &record["seed"]), (&about["prompt"], &about["seed"]));
        assert!(record["out"].as_str().unwrap().ends_with(file));
    }
    assert!(records.iter().any(|record| record["unit"] == "steps" && record["total"] == 27));
}

#[test]
fn a_picture_has_the_same_bytes_alone_and_in_company() {
    let world = World::new();
    let arguments = ["--prompt", "a boat", "--sampler", "euler-a"];
    draw(&world, &[&arguments[..], &["--seeds", "4-6", "--out", "together/"]].concat());
    draw(
        &world,
        &[&arguments[..], &["--seeds", "4-6", "--out", "apart/", "--batch", "1"]].concat(),
    );
    draw(&world, &[&arguments[..], &["--seed", "5", "--out", "alone.png"]].concat());
    let alone = std::fs::read(world.path("alone.png")).unwrap();
    assert_eq!(std::fs::read(world.path("together/0001-5.png")).unwrap(), alone);
    assert_eq!(std::fs::read(world.path("apart/0001-5.png")).unwrap(), alone);
    assert_ne!(std::fs::read(world.path("apart/0002-6.png")).unwrap(), alone);
}

#[test]
fn a_private_picture_tells_nothing() {
    let world = World::new();
    let arguments = [
        "--prompt",
        "a secret boat",
        "--count",
        "2",
        "--private",
        "--trajectory",
        "way.png",
        "--out",
    ];
    draw(&world, &[&arguments[..], &["sheet.png"]].concat());
    draw(&world, &[&arguments[..], &["folder/"]].concat());
    for file in ["sheet.png", "folder/0000-0.png", "folder/0001-1.png", "way.png"] {
        let path = world.path(file);
        let kinds: Vec<String> = chunks(&path).into_iter().map(|(kind, _)| kind).collect();
        let bare = ["IHDR", "IDAT", "IEND"];
        assert!(kinds.iter().all(|kind| bare.contains(&kind.as_str())), "{file}: {kinds:?}");
    }
    // The same without the flag, so that the test would notice if there never was a text.
    draw(&world, &["--prompt", "a secret boat", "--out", "told.png"]);
    assert!(text(&world.path("told.png"), "parameters").unwrap().contains("a secret boat"));
}

#[test]
fn other_programs_read_how_a_picture_was_made() {
    let world = World::empty();
    let case = root().join("scripts/golden/pipeline");
    let adapter = case.join("adapter.safetensors");
    let dosed = format!("{}:0.5", adapter.display());
    let base = case.join("base").display().to_string();
    let arguments = [
        "--base",
        &base,
        "--prompt",
        "a tower, at night\nSize: large",
        "--negative",
        "a mosaic: blurred",
        "--adapter",
        &dosed,
        "--sampler",
        "dpmpp-2m-karras",
        "--steps",
        "3",
        "--seed",
        "7",
        "--size",
        "48x32",
        "--guidance",
        "3.5",
        "--out",
        "a.png",
    ];
    generate(&world, &arguments).expect(0);
    let (prompt, negative, settings) = parsed(&text(&world.path("a.png"), "parameters").unwrap());
    assert_eq!(prompt, "a tower, at night\nSize: large <lora:adapter:0.5>");
    assert_eq!(negative, "a mosaic: blurred");
    let hash = TensorFile::open(&adapter).unwrap().tensors_sha256();
    let lora = format!("adapter: {}", &hash[..12]);
    for (key, value) in [
        ("Steps", "3"),
        ("Sampler", "DPM++ 2M"),
        ("Schedule type", "Karras"),
        ("CFG scale", "3.5"),
        ("Seed", "7"),
        ("Size", "48x32"),
        ("Model", "base"),
        ("Lora hashes", &lora),
    ] {
        assert_eq!(settings.get(key).map(String::as_str), Some(value), "{key}");
    }
    let hash = &settings["Model hash"];
    assert!(hash.len() == 10 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert!(settings["Version"].starts_with("populate "));
    assert!(!settings.contains_key("Denoising strength"));
}

#[test]
fn a_sheet_has_a_row_for_each_prompt_and_one_prompt_in_a_square() {
    let world = World::new();
    draw(&world, &["--prompt", "a boat", "--prompt", "a sun", "--count", "3", "--out", "rows.png"]);
    let rows = picture(&world.path("rows.png"));
    assert_eq!(rows.dimensions(), (side(3), side(2)));
    draw(&world, &["--prompt", "a sun", "--seed", "1", "--out", "one.png"]);
    assert_eq!(cell(&rows, 1, 1), picture(&world.path("one.png")));
    draw(&world, &["--prompt", "a sun", "--grid", "--out", "grid/"]);
    let grid = picture(&world.path("grid/sheet.png"));
    assert_eq!(grid.dimensions(), (side(3), side(3)));
    assert_eq!(names(&world.path("grid")).len(), 10);
    assert_eq!(cell(&grid, 1, 0), picture(&world.path("one.png")));
    assert_eq!(cell(&grid, 2, 2), picture(&world.path("grid/0008-8.png")));
}

#[test]
fn img2img_is_the_sampler_begun_in_the_middle() {
    let world = World::new();
    let base = load(&world);
    let init = picture(&world.path("pictures/0.png"));
    let arguments = [
        "--init-image",
        "pictures/0.png",
        "--strength",
        "0.5",
        "--steps",
        "5",
        "--guidance",
        "1",
        "--prompt",
        "a boat",
        "--sampler",
        "euler",
        "--seed",
        "3",
        "--out",
        "a.png",
    ];
    generate(&world, &[&["--base", "base"][..], &arguments].concat()).expect(0);
    // Of five steps the last two.
    let config: SchedulerConfig = serde_json::from_value(base.scheduler.clone()).unwrap();
    let mut sampler = Sampler::new(SamplerKind::Euler, &config, 5).unwrap();
    let shape = [1, 4, 8, 8];
    let noise = |purpose| {
        let values = draws::normals(&mut draws::stream(3, 0, 0, purpose), shape.iter().product());
        tensor_from_host(values, shape, &base.device)
    };
    let posterior = base.vae.posterior_from_pixels(pixels(&init)).unwrap();
    let clean = posterior.sample(noise(Purpose::Posterior)).mul_scalar(0.5);
    let noised = sampler.noised(clean, noise(Purpose::Generate), 3);
    let sizes = SizeConditions::whole([64, 64]);
    let given = base.conditioning(base.text_states(&["a boat"]).unwrap(), &[sizes]);
    let mut denoise = |noisy: Tensor<4>, t: f64| base.denoise(noisy, base.timesteps(t, 1), &given);
    let latents = diffusion::sample_from(
        &mut sampler,
        3,
        noised,
        &mut denoise,
        &mut |_| noise(Purpose::SamplerStep),
        &mut |_| {},
    );
    let expected = only(base.vae.pixels_from_latents(latents.unwrap()));
    assert_eq!(picture(&world.path("a.png")), expected);
    let (_, _, settings) = parsed(&text(&world.path("a.png"), "parameters").unwrap());
    assert_eq!(settings["Denoising strength"], "0.5");
}

#[test]
fn a_picture_drawn_anew_with_hardly_any_strength_is_what_the_vae_makes_of_it() {
    let world = World::new();
    let base = load(&world);
    // Without noise of its own, what is left is the picture itself and the last of 500 steps.
    let zeros = || vec![0.0; 4 * 8 * 8];
    let shape = || vec![4, 8, 8];
    save(
        &world,
        "none.safetensors",
        vec![("latents", shape(), zeros()), ("posterior", shape(), zeros())],
    );
    let through_vae = |name: &str| {
        let posterior =
            base.vae.posterior_from_pixels(pixels(&picture(&world.path(name)))).unwrap();
        only(base.vae.pixels_from_unscaled(posterior.mean))
    };
    let again = |strength: &str| {
        let arguments = [
            "--base",
            "base",
            "--init-image",
            "pictures/0.png",
            "--init-latents",
            "none.safetensors",
            "--steps",
            "500",
            "--strength",
            strength,
            "--guidance",
            "1",
            "--out",
            "a.png",
        ];
        generate(&world, &arguments).expect(0);
        picture(&world.path("a.png"))
    };
    let (near, far) = (again("0.003"), again("0.1"));
    let (own, other) = (through_vae("pictures/0.png"), through_vae("pictures/1.png"));
    assert!(difference(&near, &own) < 8.0, "{}", difference(&near, &own));
    assert!(difference(&near, &own) < difference(&near, &other) / 2.0);
    assert!(difference(&near, &own) < difference(&far, &own));
}

#[test]
fn a_picture_to_start_from_gives_its_shape_or_takes_the_one_that_is_asked_for() {
    let world = World::new();
    let wide = RgbImage::from_fn(100, 70, |x, y| image::Rgb([x as u8, y as u8, 90]));
    wide.save(world.path("wide.png")).unwrap();
    draw(&world, &["--init-image", "wide.png", "--out", "a.png"]);
    assert_eq!(picture(&world.path("a.png")).dimensions(), (96, 64));
    draw(&world, &["--init-image", "wide.png", "--size", "32x48", "--out", "b.png"]);
    assert_eq!(picture(&world.path("b.png")).dimensions(), (32, 48));
    draw(&world, &["--aspect", "2:1", "--out", "c.png"]);
    assert_eq!(picture(&world.path("c.png")).dimensions(), (96, 48));
    RgbImage::new(300, 200).save(world.path("large.png")).unwrap();
    let arguments = ["--base", "base", "--init-image", "large.png", "--out", "d.png"];
    let ended = generate(&world, &arguments).expect(64);
    assert!(ended.stderr.contains("--size 80x48"), "{}", ended.stderr);
    world.write("no-picture.png", "<html>");
    let arguments = ["--base", "base", "--init-image", "no-picture.png", "--out", "d.png"];
    let ended = generate(&world, &arguments).expect(65);
    assert!(ended.stderr.contains("no-picture.png"), "{}", ended.stderr);
    assert!(!world.path("d.png").exists());
}

#[test]
fn the_noise_of_a_file_takes_the_place_of_the_seeds() {
    let world = World::new();
    let n_values = 4 * 8 * 8;
    for sampler in ["euler-a", "ddpm", "ddim-eta1", "dpmpp-2m"] {
        let arguments = ["--prompt", "a boat", "--sampler", sampler];
        draw(&world, &[&arguments[..], &["--seeds", "3,8", "--out", "seeded.png"]].concat());
        let normals = |seed, step, purpose| {
            draws::normals(&mut draws::stream(seed, step, 0, purpose), n_values)
        };
        let latents = [3, 8].map(|seed| normals(seed, 0, Purpose::Generate)).concat();
        let of_step = |step| [3, 8].map(|seed| normals(seed, step, Purpose::SamplerStep)).concat();
        let seeded = picture(&world.path("seeded.png"));
        for n_steps in [2, 3] {
            let noise = (0..n_steps as u64).flat_map(of_step).collect();
            save(
                &world,
                "noise.safetensors",
                vec![
                    ("latents", vec![2, 4, 8, 8], latents.clone()),
                    ("noise", vec![n_steps, 2, 4, 8, 8], noise),
                ],
            );
            let given =
                ["--init-latents", "noise.safetensors", "--seed", "77", "--out", "given.png"];
            draw(&world, &[&arguments[..], &given].concat());
            // DDIM alone adds noise after the last step, if there is some.
            let same = picture(&world.path("given.png")) == seeded;
            assert_eq!(same, sampler != "ddim-eta1" || n_steps == 2, "{sampler} {n_steps}");
            let (_, _, settings) = parsed(&text(&world.path("given.png"), "parameters").unwrap());
            assert!(!settings.contains_key("Seed"), "a seed that drew nothing");
        }
        // A file without the noise of the steps leaves that to the seed.
        save(&world, "start.safetensors", vec![("latents", vec![2, 4, 8, 8], latents)]);
        let start = ["--init-latents", "start.safetensors", "--seed", "77", "--out", "start.png"];
        draw(&world, &[&arguments[..], &start].concat());
        let same = picture(&world.path("start.png")) == seeded;
        assert_eq!(same, sampler == "dpmpp-2m", "{sampler}");
    }
}

#[test]
fn latents_that_do_not_fit_are_refused_and_nothing_is_written() {
    let world = World::new();
    let values = |n: usize| vec![0.5; n];
    save(&world, "size.safetensors", vec![("latents", vec![4, 8, 4], values(128))]);
    save(
        &world,
        "few.safetensors",
        vec![("latents", vec![4, 8, 8], values(256)), ("noise", vec![1, 4, 8, 8], values(256))],
    );
    save(
        &world,
        "many.safetensors",
        vec![("latents", vec![4, 8, 8], values(256)), ("noise", vec![4, 4, 8, 8], values(1024))],
    );
    save(&world, "nan.safetensors", vec![("latents", vec![4, 8, 8], vec![f32::NAN; 256])]);
    save(&world, "good.safetensors", vec![("latents", vec![4, 8, 8], values(256))]);
    let refused = |file: &str, code: i32, more: &[&str]| {
        let arguments =
            ["--base", "base", "--steps", "3", "--out", "a.png", "--init-latents", file];
        let ended = generate(&world, &[&arguments[..], more].concat()).expect(code);
        assert!(!world.path("a.png").exists());
        ended.stderr
    };
    assert!(refused("size.safetensors", 65, &[]).contains("expected [n, 4, 8, 8]"));
    let ancestral = ["--sampler", "euler-a"];
    assert!(refused("few.safetensors", 65, &ancestral).contains("for the first 2 of them"));
    assert!(refused("many.safetensors", 65, &ancestral).contains("for the 3 steps"));
    assert!(refused("nan.safetensors", 65, &[]).contains("not finite"));
    assert!(refused("good.safetensors", 64, &["--seeds", "1,2"]).contains("holds 1 pictures"));
    assert!(refused("good.safetensors", 64, &["--count", "2"]).contains("cannot be used with"));
}

#[test]
fn a_trajectory_shows_both_ways_as_a_strip_and_as_animations() {
    let world = World::new();
    let arguments = [
        "--prompt",
        "a boat",
        "--sampler",
        "euler",
        "--count",
        "2",
        "--out",
        "drawn/",
        "--trajectory",
        "way/",
        "--frames",
        "4",
    ];
    draw(&world, &arguments);
    assert_eq!(names(&world.path("way")), ["trajectory.gif", "trajectory.png", "trajectory.webp"]);
    let strip = picture(&world.path("way/trajectory.png"));
    assert_eq!(strip.dimensions(), (side(4), side(3)));
    // The picture stands at the clean end of every row.
    let drawn = picture(&world.path("drawn/0000-0.png"));
    assert_eq!(
        [cell(&strip, 0, 0), cell(&strip, 3, 1), cell(&strip, 3, 2)],
        [&drawn; 3].map(Clone::clone)
    );
    // What is noise at one end is noise at the other, and no picture.
    let (forth, back) = (cell(&strip, 3, 0), cell(&strip, 0, 1));
    assert!(difference(&forth, &back) < difference(&back, &drawn));
    let gif = std::fs::read(world.path("way/trajectory.gif")).unwrap();
    let gif = GifDecoder::new(Cursor::new(gif)).unwrap().into_frames().collect_frames().unwrap();
    let webp = std::fs::read(world.path("way/trajectory.webp")).unwrap();
    let webp = WebPDecoder::new(Cursor::new(webp)).unwrap().into_frames().collect_frames().unwrap();
    for frames in [&gif, &webp] {
        assert_eq!(frames.len(), 8);
        assert!(frames.iter().all(|frame| frame.buffer().dimensions() == (SIDE_PX, SIDE_PX)));
    }
    let exact =
        |index: usize| image::DynamicImage::ImageRgba8(webp[index].buffer().clone()).into_rgb8();
    assert_eq!([exact(0), exact(3), exact(7)], [drawn.clone(), forth, drawn]);
    // One file, of the picture that it began from.
    let arguments = [
        "--init-image",
        "pictures/0.png",
        "--steps",
        "4",
        "--out",
        "b.png",
        "--trajectory",
        "b.gif",
    ];
    generate(&world, &[&["--base", "base"][..], &arguments].concat()).expect(0);
    let gif = std::fs::read(world.path("b.gif")).unwrap();
    let frames = GifDecoder::new(Cursor::new(gif)).unwrap().into_frames().collect_frames();
    // Three of four steps are taken, and the picture itself, there and back.
    assert_eq!(frames.unwrap().len(), 8);
}

#[test]
fn sdxl_hears_of_sizes_and_the_others_do_not() {
    let world = World::new();
    models::tiny::write_family(&world.path("xl"), Family::Sdxl, 7, &Device::flex()).unwrap();
    let draw = |out: &str, more: &[&str]| {
        let arguments = [
            "--base",
            "xl",
            "--prompt",
            "a boat",
            "--steps",
            "3",
            "--vae-tiling",
            "off",
            "--out",
            out,
        ];
        generate(&world, &[&arguments[..], more].concat()).expect(0);
        picture(&world.path(out))
    };
    let plain = draw("a.png", &[]);
    assert_eq!(draw("b.png", &["--original-size", "64x64", "--crop", "0,0"]), plain);
    assert_ne!(draw("c.png", &["--original-size", "16x16"]), plain);
    assert_ne!(draw("d.png", &["--crop", "900,0"]), plain);
    let (_, _, settings) = parsed(&text(&world.path("a.png"), "parameters").unwrap());
    assert_eq!(settings["CFG scale"], "5");
    let told: Value =
        serde_json::from_str(&text(&world.path("d.png"), "populate").unwrap()).unwrap();
    assert_eq!(told["crop_px"]["left"], 900);
    let refused = ["--base", "base", "--out", "e.png", "--crop", "0,0"];
    assert!(generate(&world, &refused).expect(64).stderr.contains("Stable Diffusion XL"));
    let refused = ["--base", "xl", "--out", "e.png", "--clip-skip", "2"];
    assert!(generate(&world, &refused).expect(64).stderr.contains("--clip-skip"));
    assert!(!world.path("e.png").exists());
}

#[test]
fn tiles_show_the_same_picture_with_soft_seams() {
    let world = World::new();
    let draw = |out: &str, tiling: &str| {
        let arguments = ["--size", "576x64", "--steps", "2", "--vae-tiling", tiling, "--out", out];
        generate(&world, &[&["--base", "base"][..], &arguments].concat()).expect(0);
        picture(&world.path(out))
    };
    let (whole, tiled) = (draw("whole.png", "off"), draw("tiled.png", "on"));
    assert_eq!(tiled.dimensions(), (576, 64));
    assert_ne!(tiled, whole);
    let other = imageops::flip_horizontal(&whole);
    assert!(difference(&tiled, &whole) < difference(&other, &whole) / 2.0);
    assert_eq!(draw("auto.png", "auto"), whole);
}

#[test]
fn a_request_to_stop_keeps_the_pictures_that_are_finished() {
    let world = World::new();
    let arguments = [
        "generate",
        "--device",
        "cpu",
        "--base",
        "base",
        "--steps",
        "20",
        "--seeds",
        "0-199",
        "--batch",
        "1",
        "--out",
        "drawn/",
        "--trajectory",
        "way.png",
        "--json",
    ];
    let mut program = UnderWay::start(world.command(&arguments));
    assert!(program.read_until(|record| record["event"] == "generated"));
    program.signal("TERM");
    assert_eq!(program.end(), Some(75));
    let drawn = names(&world.path("drawn"));
    assert!((1..200).contains(&drawn.len()), "{}", drawn.len());
    for name in &drawn {
        assert_eq!(picture(&world.path("drawn").join(name)).dimensions(), (SIDE_PX, SIDE_PX));
    }
    assert!(!world.path("way.png").exists());
}

#[test]
fn what_cannot_be_done_as_asked_is_a_mistake_of_the_command_line() {
    let world = World::new();
    world.write("there.png", "");
    world.write("prompts.txt", &"a boat\n".repeat(30));
    for (arguments, expected) in [
        (&["--out", "a.png", "--trajectory", "./a.png"][..], "and of `--trajectory`"),
        (&["--out", "way/trajectory.png", "--trajectory", "way/"], "and of `--trajectory`"),
        (&["--out", "d/", "--grid", "--trajectory", "d/sheet.png"], "and of `--trajectory`"),
        (
            &["--out", "d/", "--grid", "--size", "1024x1024", "--prompts", "prompts.txt"],
            "a sheet of",
        ),
        (&["--out", "a.png", "--guidance", "1", "--negative", "a sun"], "`--negative`"),
        (&["--out", "a.png", "--guidance", "1", "--guidance-rescale", "0.7"], "`--guidance 1`"),
        (&["--out", "a.png", "--size", "50x70"], "`--size 48x72`"),
        (&["--out", "there.png/"], "`there.png` is a file"),
        (&["--out", "a.png", "--steps", "1000"], "`--spacing trailing`"),
    ] {
        let ended = generate(&world, &[&["--base", "base"][..], arguments].concat()).expect(64);
        assert!(ended.stderr.contains(expected), "{arguments:?}: {}", ended.stderr);
    }
    for path in ["a.png", "d", "way"] {
        assert!(!world.path(path).exists(), "{path}");
    }
}

#[test]
fn the_models_options_reach_the_sampler() {
    let world = World::new();
    let draw = |out: &str, more: &[&str]| {
        let arguments = ["--prompt", "a boat", "--out", out];
        draw(&world, &[&arguments[..], more].concat());
        picture(&world.path(out))
    };
    let plain = draw("a.png", &[]);
    let velocity = draw("b.png", &["--prediction", "v"]);
    assert_ne!(velocity, plain);
    let rescaled = draw("c.png", &["--prediction", "v", "--zero-terminal-snr", "on"]);
    assert_ne!(rescaled, velocity);
    assert_ne!(draw("d.png", &["--spacing", "trailing"]), plain);
    assert_ne!(draw("e.png", &["--eta", "1"]), plain);
    assert_eq!(draw("f.png", &["--eta", "1"]), draw("g.png", &["--sampler", "ddim-eta1"]));
    assert_ne!(draw("h.png", &["--guidance-rescale", "0.7"]), plain);
    assert_ne!(draw("i.png", &["--negative", "a sun"]), plain);
    // A VAE of its own: that of another seed.
    models::tiny::write(&world.path("other"), 8, &Device::flex()).unwrap();
    assert_ne!(draw("j.png", &["--vae", "other/vae"]), plain);
    let (_, _, settings) = parsed(&text(&world.path("j.png"), "parameters").unwrap());
    assert_eq!(settings["VAE"], "vae");
    // Noise cannot be predicted where there is nothing else.
    let refused = ["--base", "base", "--zero-terminal-snr", "on", "--out", "k.png"];
    generate(&world, &refused).expect(65);
    assert!(!world.path("k.png").exists());
}
