//! `populate bench` times every kind of work and gives the figures that the comparison reads.

use serde_json::Value;

use crate::world::World;

const FIGURES: [&str; 6] =
    ["median_s", "min_s", "max_s", "images_per_s", "peak_rss_mib", "threads"];

fn bench(world: &World, arguments: &[&str]) -> Value {
    let fixed = ["--steps", "2", "--warmup", "1", "--batch", "2", "--device", "cpu", "--json"];
    let ended = world.run(&[&["bench"], arguments, &fixed[..]].concat()).expect(0);
    assert_eq!(ended.stdout.trim_end().lines().count(), 1, "{}", ended.stdout);
    ended.last_json()
}

#[test]
fn every_work_gives_one_line_of_figures() {
    let world = World::new();
    let unet = ["--unet", "base", "--latent", "8", "--tokens", "5"];
    let step = [&["step"], &unet[..], &["--rank", "2"]].concat();
    for (work, arguments) in [
        ("step", step.clone()),
        ("step", [&step[..], &["--activation-recompute"]].concat()),
        ("step", [&step[..], &["--dtype", "bf16"]].concat()),
        ("forward", [&["forward"], &unet[..]].concat()),
        ("decode", vec!["decode", "--vae", "base", "--latent", "4"]),
        ("encode", vec!["encode", "--vae", "base/vae", "--latent", "4"]),
        ("text", vec!["text", "--text-encoder", "base"]),
    ] {
        let record = bench(&world, &arguments);
        assert_eq!((&record["side"], &record["work"]), (&"populate".into(), &work.into()));
        for key in FIGURES {
            assert!(record[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {record}");
        }
        assert_eq!(record["forward_only"], work != "step");
        assert_eq!(record["trainable"].is_u64(), work == "step", "{record}");
        assert_eq!(record["dtype"], if arguments.contains(&"bf16") { "bf16" } else { "f32" });
    }
}

#[test]
fn what_cannot_be_timed_is_named() {
    let world = World::new();
    for (arguments, code, expected) in [
        (vec!["step", "--unet", "nowhere"], 65, "nowhere"),
        (vec!["step", "--unet", "base", "--targets", "to_nothing"], 64, "to_nothing"),
        (vec!["forward", "--unet", "base/vae"], 65, "_class_name"),
        (vec!["forward", "--unet", "base", "--batch", "0"], 64, "--batch"),
    ] {
        let arguments = [&["bench"], &arguments[..], &["--device", "cpu"]].concat();
        let ended = world.run(&arguments).expect(code);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}
