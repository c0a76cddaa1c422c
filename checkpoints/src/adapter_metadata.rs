//! The header strings of an adapter file: what other programs look for, and no more than the privacy level allows.
//!
//! Keys and spellings: kohya sd-scripts (`ss_*`) and modelspec 1.0.1 (`modelspec.*`). What may be written is a list of
//! keys per level, so that a new fact stays private until someone decides otherwise.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Family, Predicts};

/// How much an adapter file tells about its making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privacy {
    /// What readers need to load the file.
    Minimal,
    /// That, and everything except captions, folder names and the author.
    Standard,
    /// Everything that is known.
    Full,
}

/// Family of the base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseModel {
    /// The embedded miniature.
    Postcards,
    /// Stable Diffusion 1.x.
    Sd1,
    /// Stable Diffusion 2.x, 512 pixels, epsilon.
    Sd2,
    /// Stable Diffusion 2.x, 768 pixels, v.
    Sd2V,
    /// Stable Diffusion XL.
    Sdxl,
}

impl BaseModel {
    /// The base of a family whose network predicts this.
    pub const fn of(family: Family, predicts: Predicts) -> Self {
        match (family, predicts) {
            (Family::Postcards, _) => Self::Postcards,
            (Family::Sd1, _) => Self::Sd1,
            (Family::Sd2, Predicts::V) => Self::Sd2V,
            (Family::Sd2, Predicts::Epsilon | Predicts::Sample) => Self::Sd2,
            (Family::Sdxl, _) => Self::Sdxl,
        }
    }

    /// The base that the header of an adapter file names, in the spelling of modelspec or of kohya's tools.
    pub fn stated(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let value = |key: &str| metadata.get(key).map_or("", String::as_str);
        let architecture = value("modelspec.architecture").split('/').next().unwrap_or_default();
        match architecture {
            "populate-postcards" => return Some(Self::Postcards),
            "stable-diffusion-v1" => return Some(Self::Sd1),
            "stable-diffusion-v2-512" => return Some(Self::Sd2),
            "stable-diffusion-v2-768-v" => return Some(Self::Sd2V),
            "stable-diffusion-xl-v1-base" => return Some(Self::Sdxl),
            _ => {}
        }
        match value("ss_base_model_version") {
            "sd_v1" => Some(Self::Sd1),
            "sd_v2" => Some(Self::Sd2),
            "sd_v2_v" => Some(Self::Sd2V),
            version if version.starts_with("sdxl_") => Some(Self::Sdxl),
            _ => None,
        }
    }

    /// Its family.
    pub const fn family(self) -> Family {
        match self {
            Self::Postcards => Family::Postcards,
            Self::Sd1 => Family::Sd1,
            Self::Sd2 | Self::Sd2V => Family::Sd2,
            Self::Sdxl => Family::Sdxl,
        }
    }

    const fn ss_version(self) -> Option<&'static str> {
        match self {
            Self::Postcards => None,
            Self::Sd1 => Some("sd_v1"),
            Self::Sd2 => Some("sd_v2"),
            Self::Sd2V => Some("sd_v2_v"),
            Self::Sdxl => Some("sdxl_base_v1-0"),
        }
    }

    const fn architecture(self) -> &'static str {
        match self {
            Self::Postcards => "populate-postcards/lora",
            Self::Sd1 => "stable-diffusion-v1/lora",
            Self::Sd2 => "stable-diffusion-v2-512/lora",
            Self::Sd2V => "stable-diffusion-v2-768-v/lora",
            Self::Sdxl => "stable-diffusion-xl-v1-base/lora",
        }
    }

    const fn implementation(self) -> &'static str {
        match self {
            Self::Sdxl => "https://github.com/Stability-AI/generative-models",
            Self::Postcards | Self::Sd1 | Self::Sd2 | Self::Sd2V => "diffusers",
        }
    }

    const fn is_v2(self) -> bool {
        matches!(self, Self::Sd2 | Self::Sd2V)
    }
}

/// What is known about an adapter. Absent facts are left out of the file.
///
/// Equal runs give equal files only without `date`, `training_started_at`, `attempts`, `census` and `energy`: these
/// differ from run to run. `tensors_sha256` does not depend on any of it.
#[derive(Debug, Clone)]
pub struct AdapterFacts {
    /// Family of the base.
    pub base_model: BaseModel,
    /// Rank of the UNet's factors.
    pub rank: u32,
    /// Numerator of their scale.
    pub alpha: f64,
    /// Title, and the alias that interfaces show.
    pub name: String,
    /// `epsilon` or `v`.
    pub prediction: String,
    /// Width and height of the training pictures.
    pub resolution_px: (u32, u32),
    /// [`crate::tensors_sha256`] of what is written.
    pub tensors_sha256: String,
    /// Version of this program.
    pub version: String,
    /// The token that calls the concept.
    pub trigger_phrase: Option<String>,
    /// File or folder name of the base; reduced to its last part.
    pub base_name: Option<String>,
    /// Name of the license, from the recipe, never guessed.
    pub license: Option<String>,
    /// Who made it; written at [`Privacy::Full`] only.
    pub author: Option<String>,
    /// ISO 8601.
    pub date: Option<String>,
    /// Unix seconds.
    pub training_started_at: Option<f64>,
    /// Hash of the resolved recipe.
    pub recipe_sha256: Option<String>,
    /// Hash of the base.
    pub base_sha256: Option<String>,
    /// Hash of the manifest.
    pub manifest_sha256: Option<String>,
    /// Optimizer steps done.
    pub step: Option<u64>,
    /// Number of attempts.
    pub attempts: Option<u64>,
    /// Figures of the census.
    pub census: Option<Value>,
    /// Energy, as in the report.
    pub energy: Option<Value>,
    /// Number of pictures by name of their folder; written at [`Privacy::Full`] only.
    pub dataset_dirs: BTreeMap<String, u64>,
}

/// The only keys that are ever written, with the least level at which they are.
const ALLOWED: [(&str, Privacy); 36] = [
    ("format", Privacy::Minimal),
    ("modelspec.architecture", Privacy::Minimal),
    ("modelspec.author", Privacy::Full),
    ("modelspec.date", Privacy::Standard),
    ("modelspec.hash_sha256", Privacy::Standard),
    ("modelspec.implementation", Privacy::Minimal),
    ("modelspec.license", Privacy::Standard),
    ("modelspec.merged_from", Privacy::Standard),
    ("modelspec.prediction_type", Privacy::Standard),
    ("modelspec.resolution", Privacy::Standard),
    ("modelspec.sai_model_spec", Privacy::Minimal),
    ("modelspec.title", Privacy::Minimal),
    ("modelspec.trigger_phrase", Privacy::Standard),
    ("lora_adapter_metadata", Privacy::Minimal),
    ("populate.attempts", Privacy::Standard),
    ("populate.base_sha256", Privacy::Standard),
    ("populate.census", Privacy::Standard),
    ("populate.energy", Privacy::Standard),
    ("populate.manifest_sha256", Privacy::Standard),
    ("populate.recipe_sha256", Privacy::Standard),
    ("populate.step", Privacy::Standard),
    ("populate.version", Privacy::Minimal),
    ("ss_base_model_version", Privacy::Minimal),
    ("ss_bucket_info", Privacy::Full),
    ("ss_clip_skip", Privacy::Standard),
    ("ss_dataset_dirs", Privacy::Full),
    ("ss_network_alpha", Privacy::Minimal),
    ("ss_network_args", Privacy::Minimal),
    ("ss_network_dim", Privacy::Minimal),
    ("ss_network_module", Privacy::Minimal),
    ("ss_output_name", Privacy::Standard),
    ("ss_sd_model_name", Privacy::Standard),
    ("ss_tag_frequency", Privacy::Full),
    ("ss_training_started_at", Privacy::Standard),
    ("ss_v2", Privacy::Minimal),
    ("sshs_model_hash", Privacy::Standard),
];

/// The header strings of a kohya file at a privacy level.
pub fn metadata(facts: &AdapterFacts, privacy: Privacy) -> BTreeMap<String, String> {
    let mut found = required(facts);
    found.extend(optional(facts));
    let text = |(key, value): (&'static str, String)| (key.to_owned(), value);
    found
        .into_iter()
        .filter(|(key, _)| level_of(key).is_some_and(|level| level <= privacy))
        .map(text)
        .collect()
}

fn required(facts: &AdapterFacts) -> Vec<(&'static str, String)> {
    let (width, height) = facts.resolution_px;
    let mut found = vec![
        ("format", "pt".to_owned()),
        ("ss_network_module", "networks.lora".to_owned()),
        ("ss_network_dim", facts.rank.to_string()),
        ("ss_network_alpha", facts.alpha.to_string()),
        ("ss_network_args", "{}".to_owned()),
        ("ss_v2", if facts.base_model.is_v2() { "True" } else { "False" }.to_owned()),
        ("ss_output_name", facts.name.clone()),
        ("sshs_model_hash", facts.tensors_sha256.clone()),
        ("modelspec.sai_model_spec", "1.0.1".to_owned()),
        ("modelspec.architecture", facts.base_model.architecture().to_owned()),
        ("modelspec.implementation", facts.base_model.implementation().to_owned()),
        ("modelspec.title", facts.name.clone()),
        ("modelspec.resolution", format!("{width}x{height}")),
        ("modelspec.hash_sha256", format!("0x{}", facts.tensors_sha256)),
        ("modelspec.prediction_type", facts.prediction.clone()),
        ("populate.version", facts.version.clone()),
    ];
    found.extend(
        facts.base_model.ss_version().map(|version| ("ss_base_model_version", version.to_owned())),
    );
    found
}

fn optional(facts: &AdapterFacts) -> Vec<(&'static str, String)> {
    let dirs: BTreeMap<String, Value> = facts
        .dataset_dirs
        .iter()
        .map(|(dir, n)| (base_name(dir), json!({"n_repeats": 1, "img_count": n})))
        .collect();
    let json_text = |value: &Value| value.to_string();
    [
        ("modelspec.trigger_phrase", facts.trigger_phrase.clone()),
        ("modelspec.license", facts.license.clone()),
        ("modelspec.author", facts.author.clone()),
        ("modelspec.date", facts.date.clone()),
        ("ss_sd_model_name", facts.base_name.as_deref().map(base_name)),
        // Readers parse it as a float; text would break their dialog.
        ("ss_training_started_at", facts.training_started_at.map(|seconds| format!("{seconds:?}"))),
        ("ss_dataset_dirs", (!dirs.is_empty()).then(|| json!(dirs).to_string())),
        ("populate.recipe_sha256", facts.recipe_sha256.clone()),
        ("populate.base_sha256", facts.base_sha256.clone()),
        ("populate.manifest_sha256", facts.manifest_sha256.clone()),
        ("populate.step", facts.step.map(|step| step.to_string())),
        ("populate.attempts", facts.attempts.map(|attempts| attempts.to_string())),
        ("populate.census", facts.census.as_ref().map(json_text)),
        ("populate.energy", facts.energy.as_ref().map(json_text)),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

/// What is known of an adapter file that was made from others, or from two models.
#[derive(Debug, Clone)]
pub struct Rewritten<'a> {
    /// Family of the base.
    pub base_model: BaseModel,
    /// Rank of most modules.
    pub rank: u32,
    /// Numerator of the scale that is stored for the UNet.
    pub alpha: f64,
    /// Title, where the source has none.
    pub name: &'a str,
    /// [`crate::tensors_sha256`] of what is written.
    pub tensors_sha256: &'a str,
    /// Version of this program.
    pub version: &'a str,
    /// Names of several files that became one.
    pub merged_from: Option<String>,
}

/// The header strings of a file that was made from another one: what `source` says and [`Privacy::Standard`] allows is
/// carried over, paths are not, and what is no longer true (hashes, ranks, names of the form) is stated anew.
pub fn rewritten(
    source: &BTreeMap<String, String>,
    facts: &Rewritten<'_>,
) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = source
        .iter()
        .filter(|(key, _)| level_of(key).is_some_and(|level| level <= Privacy::Standard))
        .filter(|(key, value)| *key == "ss_sd_model_name" || !holds_path(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    found.remove("lora_adapter_metadata");
    found.remove("ss_base_model_version");
    if let Some(name) = found.get_mut("ss_sd_model_name") {
        *name = base_name(name);
    }
    for key in ["modelspec.title", "ss_output_name"] {
        found.entry(key.to_owned()).or_insert_with(|| facts.name.to_owned());
    }
    let base_model = facts.base_model;
    let stated = [
        ("format", Some("pt".to_owned())),
        ("ss_network_module", Some("networks.lora".to_owned())),
        ("ss_network_dim", Some(facts.rank.to_string())),
        ("ss_network_alpha", Some(facts.alpha.to_string())),
        ("ss_network_args", Some("{}".to_owned())),
        ("ss_v2", Some(if base_model.is_v2() { "True" } else { "False" }.to_owned())),
        ("ss_base_model_version", base_model.ss_version().map(str::to_owned)),
        ("sshs_model_hash", Some(facts.tensors_sha256.to_owned())),
        ("modelspec.sai_model_spec", Some("1.0.1".to_owned())),
        ("modelspec.architecture", Some(base_model.architecture().to_owned())),
        ("modelspec.implementation", Some(base_model.implementation().to_owned())),
        ("modelspec.hash_sha256", Some(format!("0x{}", facts.tensors_sha256))),
        ("modelspec.merged_from", facts.merged_from.clone()),
        ("populate.version", Some(facts.version.to_owned())),
    ];
    found.extend(stated.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    found
}

/// The last part of a path, so that no folder of a machine gets into a file.
fn base_name(path: &str) -> String {
    let path = path.replace('\\', "/");
    Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn level_of(key: &str) -> Option<Privacy> {
    ALLOWED.iter().find(|(allowed, _)| *allowed == key).map(|(_, level)| *level)
}

/// The string under `lora_adapter_metadata` of a diffusers file whose factors carry the whole scale (alpha = rank).
///
/// `ranks` gives the rank of each layer path (`unet.…`, `text_encoder.…`); the commonest one of a component stands for
/// all, the others are listed in `rank_pattern`. Layers of text encoders are named without `text_model.`: the modules of
/// transformers >= 5.6 have no such part, and PEFT looks for the end of a module's name, so that older ones are found too.
pub fn diffusers_adapter_metadata(ranks: &BTreeMap<String, u32>) -> String {
    let mut components: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for (path, &rank) in ranks {
        if let Some((component, layer)) = path.split_once('.') {
            let layer = layer.strip_prefix("text_model.").unwrap_or(layer);
            components.entry(component).or_default().insert(layer, rank);
        }
    }
    let mut found = serde_json::Map::new();
    for (component, layers) in components {
        let rank = commonest(layers.values().copied());
        let pattern: BTreeMap<&str, u32> =
            layers.iter().filter(|&(_, &other)| other != rank).map(|(&l, &r)| (l, r)).collect();
        let targets: Vec<&str> = layers.keys().copied().collect();
        for (key, value) in [
            ("r", json!(rank)),
            ("lora_alpha", json!(rank)),
            ("rank_pattern", json!(pattern)),
            ("alpha_pattern", json!(pattern)),
            ("target_modules", json!(targets)),
        ] {
            found.insert(format!("{component}.{key}"), value);
        }
    }
    Value::Object(found).to_string()
}

/// The value that occurs most often; the largest of several.
fn commonest(values: impl Iterator<Item = u32>) -> u32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().max_by_key(|&(_, count)| count).map_or(0, |(value, _)| value)
}

/// What the header of any adapter file gives away beyond [`Privacy::Minimal`]: key and reason, in the order of the keys.
pub fn gives_away(metadata: &BTreeMap<String, String>) -> Vec<(&str, &'static str)> {
    let reason = |key: &str, value: &str| {
        if holds_path(value) {
            return Some("holds a path of a machine");
        }
        match level_of(key) {
            Some(Privacy::Minimal) => None,
            Some(Privacy::Standard) => Some("tells how it was made"),
            Some(Privacy::Full) => Some("tells of pictures, captions, folders or persons"),
            None => Some("is not among the keys that populate writes"),
        }
    };
    metadata.iter().filter_map(|(key, value)| Some((key.as_str(), reason(key, value)?))).collect()
}

fn holds_path(value: &str) -> bool {
    let bytes = value.as_bytes();
    let windows = bytes.windows(3).enumerate().any(|(at, found)| {
        let begins = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        match found {
            [drive, b':', b'\\'] => drive.is_ascii_alphabetic(),
            // `https:/` has more letters.
            [drive, b':', b'/'] => begins && drive.is_ascii_alphabetic(),
            [b'\\', b'\\', server] => begins && server.is_ascii_alphanumeric(),
            _ => false,
        }
    });
    let unix =
        ["/home/", "/Users/", "/root/", "/mnt/", "/media/", "/tmp/", "/workspace/", "/data/"];
    windows || unix.iter().any(|start| value.contains(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> AdapterFacts {
        AdapterFacts {
            base_model: BaseModel::Sdxl,
            rank: 8,
            alpha: 8.0,
            name: "le-depeupleur".to_owned(),
            prediction: "epsilon".to_owned(),
            resolution_px: (512, 768),
            tensors_sha256: "ab".repeat(32),
            version: "0.1.0".to_owned(),
            trigger_phrase: Some("sks".to_owned()),
            base_name: Some("/home/canary-user/models/base.safetensors".to_owned()),
            license: None,
            author: Some("canary-author".to_owned()),
            date: None,
            training_started_at: Some(1_700_000_000.0),
            recipe_sha256: Some("cd".repeat(32)),
            base_sha256: None,
            manifest_sha256: None,
            step: Some(300),
            attempts: None,
            census: Some(json!({"selection_nats": 0.04})),
            energy: None,
            dataset_dirs: BTreeMap::from([("C:\\canary-disk\\cylinder".to_owned(), 16)]),
        }
    }

    #[test]
    fn the_minimum_is_exactly_what_readers_need() {
        let found = metadata(&facts(), Privacy::Minimal);
        let expected = [
            ("format", "pt"),
            ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
            ("modelspec.implementation", "https://github.com/Stability-AI/generative-models"),
            ("modelspec.sai_model_spec", "1.0.1"),
            ("modelspec.title", "le-depeupleur"),
            ("populate.version", "0.1.0"),
            ("ss_base_model_version", "sdxl_base_v1-0"),
            ("ss_network_alpha", "8"),
            ("ss_network_args", "{}"),
            ("ss_network_dim", "8"),
            ("ss_network_module", "networks.lora"),
            ("ss_v2", "False"),
        ];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert!(gives_away(&found).is_empty());
    }

    #[test]
    fn no_level_lets_a_path_out_and_only_full_names_the_author() {
        for privacy in [Privacy::Minimal, Privacy::Standard, Privacy::Full] {
            let text = format!("{:?}", metadata(&facts(), privacy));
            assert!(!text.contains("canary-user") && !text.contains("canary-disk"), "{text}");
            assert_eq!(text.contains("canary-author"), privacy == Privacy::Full);
            assert_eq!(text.contains("cylinder"), privacy == Privacy::Full);
        }
    }

    #[test]
    fn the_standard_says_how_it_was_made() {
        let found = metadata(&facts(), Privacy::Standard);
        assert_eq!(found["modelspec.hash_sha256"], format!("0x{}", "ab".repeat(32)));
        assert_eq!(found["sshs_model_hash"].len(), 64);
        assert_eq!(found["modelspec.resolution"], "512x768");
        assert_eq!(found["ss_sd_model_name"], "base.safetensors");
        assert_eq!(found["ss_training_started_at"], "1700000000.0");
        assert_eq!(found["populate.census"], "{\"selection_nats\":0.04}");
        assert!(!found.contains_key("populate.energy"));
        assert_eq!(
            metadata(&AdapterFacts { base_model: BaseModel::Sd2V, ..facts() }, Privacy::Minimal)["ss_v2"],
            "True"
        );
    }

    #[test]
    fn what_a_file_gives_away_is_listed() {
        let strange = BTreeMap::from([
            ("ss_tag_frequency".to_owned(), "{}".to_owned()),
            ("ss_output_name".to_owned(), "x".to_owned()),
            ("ss_vae_name".to_owned(), "vae".to_owned()),
            ("modelspec.title".to_owned(), "D:\\me\\x".to_owned()),
            ("format".to_owned(), "pt".to_owned()),
        ]);
        let keys: Vec<&str> = gives_away(&strange).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["modelspec.title", "ss_output_name", "ss_tag_frequency", "ss_vae_name"]);
    }

    #[test]
    fn paths_of_every_system_are_told_from_addresses_and_words() {
        for path in [
            "/home/me/x",
            "/data/x",
            "C:\\me\\x",
            "D:/x",
            "{\"dir\": \"E:/x\"}",
            "\\\\server\\x",
            "{\"dir\": \"\\\\\\\\server\\\\x\"}",
        ] {
            assert!(holds_path(path), "{path}");
        }
        for other in
            ["https://example.org/x", "1:/2", "a/b", "tag \\\\(x\\\\)", "one\\\\ntwo", "ratio 4:3"]
        {
            assert!(!holds_path(other), "{other}");
        }
    }

    #[test]
    fn a_base_that_was_written_is_stated() {
        for base_model in
            [BaseModel::Postcards, BaseModel::Sd1, BaseModel::Sd2, BaseModel::Sd2V, BaseModel::Sdxl]
        {
            let mut found = metadata(&AdapterFacts { base_model, ..facts() }, Privacy::Minimal);
            assert_eq!(BaseModel::stated(&found), Some(base_model));
            // Files of kohya's tools may lack the newer keys.
            found.remove("modelspec.architecture");
            let kohya = (base_model != BaseModel::Postcards).then_some(base_model);
            assert_eq!(BaseModel::stated(&found), kohya);
        }
        assert_eq!(BaseModel::of(Family::Sd2, Predicts::V), BaseModel::Sd2V);
        assert_eq!(BaseModel::of(Family::Sd1, Predicts::V), BaseModel::Sd1);
        for family in Family::ALL {
            assert_eq!(BaseModel::of(family, Predicts::Epsilon).family(), family);
        }
    }

    #[test]
    fn what_is_carried_over_is_allowed_and_what_changed_is_stated_anew() {
        let source = [
            ("modelspec.title", "ink"),
            ("modelspec.trigger_phrase", "inkwsh style"),
            ("modelspec.hash_sha256", "0xold"),
            ("modelspec.author", "canary-author"),
            ("modelspec.license", "/home/canary-user/license"),
            ("ss_sd_model_name", "C:\\canary-disk\\base.safetensors"),
            ("ss_base_model_version", "sd_v1"),
            ("ss_tag_frequency", "{\"canary\": {}}"),
            ("ss_network_dim", "64"),
            ("ss_something_else", "canary"),
            ("lora_adapter_metadata", "{}"),
        ];
        let source: BTreeMap<String, String> =
            source.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let tensors_sha256 = "ef".repeat(32);
        let found = rewritten(
            &source,
            &Rewritten {
                base_model: BaseModel::Sdxl,
                rank: 8,
                alpha: 4.5,
                name: "file",
                tensors_sha256: &tensors_sha256,
                version: "9.9.9",
                merged_from: None,
            },
        );
        for (key, value) in [
            ("modelspec.title", "ink"),
            ("modelspec.trigger_phrase", "inkwsh style"),
            ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
            ("ss_base_model_version", "sdxl_base_v1-0"),
            ("ss_network_dim", "8"),
            ("ss_network_alpha", "4.5"),
            ("ss_output_name", "file"),
            ("ss_sd_model_name", "base.safetensors"),
            ("sshs_model_hash", tensors_sha256.as_str()),
            ("populate.version", "9.9.9"),
        ] {
            assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert_eq!(found["modelspec.hash_sha256"], format!("0x{tensors_sha256}"));
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");
        assert!(!found.contains_key("lora_adapter_metadata"));
        assert!(!found.contains_key("modelspec.merged_from"));
    }

    #[test]
    fn diffusers_is_told_the_rank_of_every_layer() {
        let ranks =
            [("unet.a.to_q", 8), ("unet.a.to_k", 8), ("unet.conv", 4), ("text_encoder.fc1", 2)];
        let text =
            diffusers_adapter_metadata(&ranks.map(|(path, rank)| (path.to_owned(), rank)).into());
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["unet.r"], 8);
        assert_eq!(found["unet.lora_alpha"], 8);
        assert_eq!(found["unet.rank_pattern"], json!({"conv": 4}));
        assert_eq!(found["unet.alpha_pattern"], json!({"conv": 4}));
        assert_eq!(found["unet.target_modules"], json!(["a.to_k", "a.to_q", "conv"]));
        assert_eq!(found["text_encoder.r"], 2);
    }

    #[test]
    fn layers_of_text_encoders_are_named_as_every_transformers_has_them() {
        let path = "text_encoder.text_model.encoder.layers.0.mlp.fc1".to_owned();
        let told = diffusers_adapter_metadata(&BTreeMap::from([(path, 2)]));
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["text_encoder.target_modules"], json!(["encoder.layers.0.mlp.fc1"]));
    }
}
