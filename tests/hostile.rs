//! Hostile and broken input: an error that names the file, no panic, no giant allocation.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use crate::world::{Ended, World};

/// A safetensors file with this header and so many bytes of data.
fn tensors(world: &World, name: &str, header: &str, n_data: usize) -> String {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; n_data]);
    std::fs::write(world.path(name), bytes).unwrap();
    name.to_owned()
}

fn refused(ended: Ended, code: i32, name: &str) -> String {
    let ended = ended.expect(code);
    assert!(
        ended.stderr.starts_with("error: ") || ended.stderr.contains("\nerror: "),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains(name), "`{name}` is not named: {}", ended.stderr);
    assert!(!ended.stderr.contains("internal error"), "{}", ended.stderr);
    ended.stderr
}

#[test]
fn broken_files_of_tensors_are_named() {
    let world = World::empty();
    let cases = [
        ("truncated", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 8),
        ("trailing", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 32),
        (
            "overlapping",
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},\
              \"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]}}",
            24,
        ),
        (
            "huge-shape",
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,16]}}",
            16,
        ),
        ("wrong-dtype", "{\"a\":{\"dtype\":\"F33\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16),
        ("no-json", "{\"a\":", 0),
        ("empty-header", "", 0),
    ];
    for (name, header, n_data) in cases {
        let file = tensors(&world, &format!("{name}.safetensors"), header, n_data);
        refused(world.run(&["inspect", &file]), 65, &file);
    }
    std::fs::write(world.path("short.safetensors"), [1, 2, 3]).unwrap();
    refused(world.run(&["inspect", "short.safetensors"]), 65, "short.safetensors");
    let mut giant = u64::MAX.to_le_bytes().to_vec();
    giant.extend(b"{}");
    std::fs::write(world.path("giant.safetensors"), giant).unwrap();
    refused(world.run(&["inspect", "giant.safetensors"]), 65, "giant.safetensors");
}

#[test]
fn pickles_are_refused_and_never_opened() {
    let world = World::new();
    // What Python writes for an object whose loading would run a command.
    let pickle = b"\x80\x04cposix\nsystem\n(S'touch pwned'\ntR.";
    for name in ["model.ckpt", "weights.bin"] {
        std::fs::write(world.path(name), pickle).unwrap();
        let told = refused(world.run(&["inspect", name]), 65, name);
        assert!(told.contains("pickle"), "{told}");
    }
    assert!(!world.path("pwned").exists());
}

#[test]
fn an_adapter_with_a_giant_header_is_refused_before_it_is_read() {
    let world = World::new();
    let padding = " ".repeat(11 << 20);
    let file = tensors(&world, "adapter.safetensors", &format!("{{{padding}}}"), 0);
    let arguments =
        ["generate", "--device", "cpu", "--base", "base", "--adapter", &file, "--out", "o.png"];
    refused(world.run(&arguments), 65, &file);
}

#[test]
fn an_adapter_of_another_base_lists_what_does_not_fit() {
    let world = World::new();
    let header = "{\"lora_unet_no_such_layer.lora_down.weight\":\
                   {\"dtype\":\"F32\",\"shape\":[1,4],\"data_offsets\":[0,16]}}";
    let file = tensors(&world, "adapter.safetensors", header, 16);
    let arguments =
        ["generate", "--device", "cpu", "--base", "base", "--adapter", &file, "--out", "o.png"];
    let told = refused(world.run(&arguments), 65, &file);
    assert!(told.contains("no_such_layer"), "{told}");
}

#[test]
fn weights_of_another_shape_are_accounted_for() {
    let world = World::new();
    let config = world.path("base/unet/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["block_out_channels"] = serde_json::json!([8, 24]);
    std::fs::write(&config, value.to_string()).unwrap();
    let arguments = ["generate", "--device", "cpu", "--base", "base", "--out", "o.png"];
    let told = refused(world.run(&arguments), 65, "unet");
    assert!(told.contains("shape of") && told.contains("expected"), "{told}");
}

/// A PNG whose header promises so many pixels and whose data end there.
fn png_bomb(side_px: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = b"IHDR".to_vec();
    header.extend(side_px.to_be_bytes());
    header.extend(side_px.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    bytes.extend(13_u32.to_be_bytes());
    let crc = header.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    bytes.extend(&header);
    bytes.extend((!crc).to_be_bytes());
    bytes
}

/// A pipe would be waited for without end; this one merely is no regular file.
#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_not_read() {
    let world = World::new();
    world.recipe(4, "");
    std::os::unix::fs::symlink("/dev/null", world.path("pictures/device.png")).unwrap();
    // A file that cannot be read at all hides no other problem.
    std::os::unix::fs::symlink("nowhere", world.path("pictures/absent.png")).unwrap();
    let ended = world.run(&["validate", "tiny.yaml"]);
    assert!(ended.stderr.contains("absent.png"), "{}", ended.stderr);
    refused(ended, 65, "no regular file");
}

#[test]
fn every_bad_picture_is_named_and_none_is_skipped() {
    let world = World::new();
    world.recipe(4, "");
    let pictures = world.path("pictures");
    let whole = std::fs::read(pictures.join("0.png")).unwrap();
    let bad: [(&str, Vec<u8>); 5] = [
        ("truncated.png", whole[..whole.len() / 2].to_vec()),
        ("bomb.png", png_bomb(60_000)),
        ("no-picture.png", b"<html>not found</html>".to_vec()),
        ("empty.png", Vec::new()),
        ("noise.jpg", (0..2000_u32).map(|i| (i * 7 % 251) as u8).collect()),
    ];
    for (name, bytes) in &bad {
        std::fs::write(pictures.join(name), bytes).unwrap();
    }
    let told = refused(world.run(&["validate", "tiny.yaml"]), 65, "bomb.png");
    for (name, _) in &bad {
        assert!(told.contains(name), "`{name}` is not named: {told}");
    }
    refused(world.run(&["train", "tiny.yaml", "--device", "cpu"]), 65, "truncated.png");
}

#[test]
fn empty_and_missing_folders_are_named() {
    let world = World::new();
    world.recipe(4, "");
    let set = |folder: &str| format!("dataset.dreambooth.instance.images={folder}");
    std::fs::create_dir(world.path("nothing")).unwrap();
    for (folder, words) in [("nothing", "found none"), ("absent", "expected a folder")] {
        let told =
            refused(world.run(&["validate", "tiny.yaml", "--set", &set(folder)]), 65, folder);
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn yaml_bombs_end_quickly_and_say_why() {
    let world = World::empty();
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = format!("*a{}", level - 1);
        writeln!(laughs, "a{level}: &a{level} [{}]", vec![below; 9].join(", ")).unwrap();
    }
    world.write("laughs.yaml", &laughs);
    refused(world.run(&["validate", "laughs.yaml"]), 64, "laughs.yaml");
    world.write("deep.yaml", &format!("name: {}{}\n", "[".repeat(5000), "]".repeat(5000)));
    refused(world.run(&["validate", "deep.yaml"]), 64, "deep.yaml");
    let mut large = std::fs::File::create(world.path("large.yaml")).unwrap();
    large.write_all("# padding\n".repeat(200_000).as_bytes()).unwrap();
    refused(world.run(&["validate", "large.yaml"]), 64, "large.yaml");
    std::fs::write(world.path("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    refused(world.run(&["validate", "binary.yaml"]), 64, "binary.yaml");
}

#[test]
fn names_cannot_lead_out_of_the_folder_of_runs() {
    let world = World::new();
    world.recipe(4, "");
    for id in ["../outside", "/tmp/outside", "a/b", ".."] {
        let arguments = ["train", "tiny.yaml", "--device", "cpu", "--run-id", id];
        world.run(&arguments).expect(64);
    }
    assert!(!world.path("outside").exists());
    let arguments = ["validate", "tiny.yaml", "--set", "name=../outside"];
    refused(world.run(&arguments), 64, "name");
}

#[test]
fn no_text_of_a_file_reaches_the_terminal_as_a_command() {
    let world = World::empty();
    world.write("esc.yaml", "name: \"a\\e]0;owned\\a\"\nfti: 1\n");
    let ended = world.run(&["validate", "esc.yaml"]).expect(64);
    let controls = |c: char| c.is_control() && c != '\n';
    assert!(!ended.stderr.chars().any(controls), "{:?}", ended.stderr);
}

#[test]
fn a_damaged_model_folder_is_named() {
    let world = World::new();
    let arguments = ["generate", "--device", "cpu", "--base", "base", "--out", "o.png"];
    let weights = world.path("base/vae/diffusion_pytorch_model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() - 100]).unwrap();
    let told = refused(world.run(&arguments), 65, "diffusion_pytorch_model.safetensors");
    assert!(told.contains("truncated"), "{told}");
    std::fs::remove_dir_all(world.path("base/vae")).unwrap();
    refused(world.run(&arguments), 65, "vae");
    assert!(!Path::new("o.png").exists());
}
