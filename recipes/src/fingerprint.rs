//! Texts of a resolved recipe, and the number that names its run.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::recipe::Resolved;

/// The recipe with every default filled in, as YAML that resolves to the same recipe.
///
/// # Panics
///
/// Never: a spec holds texts, finite numbers, flags and lists, which YAML can write.
pub fn resolved_yaml(recipe: &impl Resolved) -> String {
    #[expect(clippy::expect_used, reason = "specs hold texts, finite numbers, flags and lists")]
    serde_saphyr::to_string(recipe).expect("a resolved recipe is YAML")
}

/// The recipe with every default filled in, as JSON.
///
/// # Panics
///
/// Never: a spec holds texts, finite numbers, flags and lists, which JSON can write.
pub fn canonical_json(recipe: &impl Resolved) -> Value {
    #[expect(clippy::expect_used, reason = "specs hold texts, finite numbers, flags and lists")]
    serde_json::to_value(recipe).expect("a resolved recipe is JSON")
}

/// sha256, as 64 hex digits, over the recipe, the base and the data.
///
/// Places of the base, of what was settled in it before and of pictures are left out of the recipe
/// first: the two hashes speak for their content, and a run keeps its name when they move.
///
/// `base_sha256` and `dataset_sha256` are hex digits of the base's weights, with what was settled in
/// it before, and of the dataset's manifest.
pub fn fingerprint(recipe: &impl Resolved, base_sha256: &str, dataset_sha256: &str) -> String {
    let mut recipe = canonical_json(recipe);
    for pointer in [
        "/base/folder/weights",
        "/base/sd1/weights",
        "/base/sd1/vae",
        "/base/sd2/weights",
        "/base/sd2/vae",
        "/base/sdxl/weights",
        "/base/sdxl/vae",
        "/settled",
        "/dataset/captioned/images",
        "/dataset/dreambooth/instance/images",
        "/dataset/dreambooth/class/images",
    ] {
        if let Some(folder) = recipe.pointer_mut(pointer) {
            *folder = Value::Null;
        }
    }
    let mut canonical = String::new();
    write_canonical(&recipe, &mut canonical);
    let mut hash = Sha256::new();
    for part in ["populate/fingerprint/1", canonical.as_str(), base_sha256, dataset_sha256] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Writes JSON with sorted keys and no blanks, whatever order the map type keeps.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (idx, (key, value)) in entries.into_iter().enumerate() {
                if idx > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (idx, item) in items.iter().enumerate() {
                if idx > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{recipe, with};

    #[test]
    fn resolving_a_resolved_recipe_changes_nothing() {
        for sets in [
            &[][..],
            &["base={folder: {weights: w}}", "census.budget=survey"],
            &[
                "dataset={captioned: {images: x, identifier: '12', class: 'no', alpha: {flatten: '#010203'}}}",
            ],
            &[
                "adapter.lora={targets: attn_ff_proj_conv, rank: 3, alpha: 0.1}",
                "objective.offset_noise=0.05",
            ],
            &[
                "fit.schedule={linear: {warmup_steps: 7}}",
                "fit.ema={}",
                "objective.weighting=uniform",
            ],
            &[
                "fit.previews.sampler={dpmpp_2m: {karras: false}}",
                "gates={leak: {at_most: 0.1}, strict: true}",
            ],
            &[
                "census={seeds: {empty: 3, other: 0}, thesaurus: {file: a.yaml}, evaluator: e, seed: 18446744073709551615}",
            ],
            &[
                "dataset.dreambooth.class={images: y, prompt: 'a: b # c'}",
                "output={formats: [diffusers], dtype: bf16}",
            ],
            &["adapter={full: {targets: ['unet.**.{to_q,to_k}']}}", "name=1e3", "seed=7"],
            &["base={sd2: {weights: hf:o/n@v, prediction: v, zero_terminal_snr: true}}"],
            &["base={sdxl: {weights: x.safetensors, vae: v}}", "census.sampler=euler_a"],
            &["settled=[runs/a-1f, 'b c.safetensors']"],
        ] {
            let once = with(sets);
            let text = resolved_yaml(&once);
            let twice = recipe(&text);
            assert_eq!(once, twice, "{text}");
            assert_eq!(text, resolved_yaml(&twice));
        }
    }

    #[test]
    fn the_fingerprint_sees_settings_and_hashes_but_no_folders() {
        let of = |sets: &[&str]| fingerprint(&with(sets), "b", "d");
        let plain = of(&[]);
        assert_eq!(plain.len(), 64);
        assert_eq!(plain, of(&["seed=0"]), "a default that is written out is the same recipe");
        assert_ne!(plain, of(&["seed=1"]));
        assert_ne!(plain, of(&["fit.steps=301"]));
        assert_ne!(plain, fingerprint(&with(&[]), "c", "d"));
        assert_ne!(plain, fingerprint(&with(&[]), "b", "c"));
        assert_ne!(fingerprint(&with(&[]), "ab", "c"), fingerprint(&with(&[]), "a", "bc"));
        let captioned =
            |folder: &str| of(&[&format!("dataset={{captioned: {{images: {folder}}}}}")]);
        assert_eq!(captioned("here"), captioned("there"));
    }

    #[test]
    fn the_fingerprint_sees_how_a_base_is_read_but_not_where_it_lies() {
        let base = |section: &str| fingerprint(&with(&[&format!("base={{{section}}}")]), "b", "d");
        assert_eq!(base("sd1: {weights: here}"), base("sd1: {weights: hf:org/name@v1}"));
        assert_ne!(base("sd1: {weights: here}"), base("sd2: {weights: here}"));
        assert_ne!(base("sd1: {weights: x}"), base("sd1: {weights: x, clip_skip: 2}"));
        assert_eq!(base("sd1: {weights: x}"), base("sd1: {weights: x, precision: auto}"));
        let [single, half] =
            ["f32", "bf16"].map(|word| base(&format!("sd1: {{weights: x, precision: {word}}}")));
        assert!(single != half && single != base("sd1: {weights: x}"));
        let with_vae = |vae: &str| base(&format!("sd1: {{weights: x, vae: {vae}}}"));
        assert_eq!(with_vae("here"), with_vae("there"));
        assert_ne!(with_vae("here"), base("sd1: {weights: x}"));
        let upon = |settled: &str| fingerprint(&with(&[&format!("settled={settled}")]), "b", "d");
        assert_eq!(upon("[here]"), upon("[there]"), "the hash of the base speaks for it");
        assert_eq!(upon("[]"), fingerprint(&with(&[]), "b", "d"));
        assert_ne!(upon("[here]"), upon("[]"));
    }

    /// A key that is written although it is off would rename every run of an older recipe.
    #[test]
    fn what_is_off_is_not_written() {
        let json = canonical_json(&with(&[]));
        assert_eq!(json["base"], "postcards");
        assert_eq!(json.get("settled"), None);
        let keys = |section: &str| {
            let section = json.pointer(section).and_then(Value::as_object).unwrap();
            let mut keys: Vec<&str> = section.keys().map(String::as_str).collect();
            keys.sort_unstable();
            keys.join(" ")
        };
        assert_eq!(keys("/fit/previews"), "every guidance_scale prompts sampler seeds");
        assert_eq!(keys("/fit/previews/sampler/ddim"), "eta steps");
        let model = canonical_json(&with(&["base={sd1: {weights: w}}"]));
        let of_model: Vec<&String> = model["base"]["sd1"].as_object().unwrap().keys().collect();
        assert_eq!(of_model.len(), 3, "{of_model:?}");
        assert_eq!(
            keys("/census"),
            "budget concept doses guidance_scale panel placebo sampler seed seeds thesaurus"
        );
        assert_eq!(keys("/census/sampler/ddim"), "eta steps");
        assert_eq!(keys("/objective"), "loss offset_noise prediction timesteps weighting");
    }

    #[test]
    fn canonical_text_has_sorted_keys_and_no_blanks() {
        let mut text = String::new();
        write_canonical(
            &serde_json::json!({"b": [1, 2.5], "a": {"d": null, "c": "x\"y"}}),
            &mut text,
        );
        assert_eq!(text, r#"{"a":{"c":"x\"y","d":null},"b":[1,2.5]}"#);
    }
}
