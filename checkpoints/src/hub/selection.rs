//! Which files of a model a base consists of: no pickle, no second variant, no safety checker.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::listed;
use super::{HubError, names};
use crate::error::CheckpointError;
use crate::folder::{IGNORED, INDEX, is_weight_file};

/// How diffusers and transformers name the weights of a component.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
/// The variant that does where no variant is asked for and there are no plain files.
const HALF: &str = "fp16";

/// Asks `get` for each file of a base in the diffusers layout, by its path in the repository: `model_index.json`, then
/// of each component its settings and, of networks, the safetensors weights (for sharded ones the index, then the
/// shards). `get` says where the file lies, because what an index names is read from it. `names` are the files that
/// there are, of the whole repository or of what was fetched.
///
/// With a `variant` its files come first and plain ones do for components without it, as long as one has it; without
/// one it is the plain files, else those of `fp16`.
///
/// # Errors
///
/// What `get` returns; [`HubError::NoWeights`] and [`HubError::NoVariant`], before any weights are asked for; an index
/// that is not valid.
pub fn walk_base<E: From<HubError>>(
    names: &BTreeSet<String>,
    variant: Option<&str>,
    get: &mut dyn FnMut(&str) -> Result<PathBuf, E>,
) -> Result<(), E> {
    let path = get(INDEX)?;
    let index = parsed(&path)?;
    let components = components(&index);
    if components.is_empty() {
        return Err(no_components(&path).into());
    }
    let mut files = Vec::new();
    for (component, class) in components {
        files.extend(files_of(component, class, names, variant)?);
    }
    check_variant(&files, variant)?;
    for name in files {
        let path = get(&name)?;
        if is_weights_index(&name) {
            for shard in shards(&name, &parsed(&path)?)? {
                get(&shard)?;
            }
        }
    }
    Ok(())
}

/// At least one network must have the variant.
fn check_variant(files: &[String], variant: Option<&str>) -> Result<(), HubError> {
    let Some(variant) = variant else { return Ok(()) };
    let part = format!(".{variant}.");
    let weights: Vec<&String> =
        files.iter().filter(|name| is_weight_file(Path::new(name.as_str()))).collect();
    if weights.is_empty() || weights.iter().any(|name| name.contains(&part)) {
        return Ok(());
    }
    Err(HubError::NoVariant { variant: variant.to_owned(), found: listed(&weights) })
}

fn parsed(path: &Path) -> Result<Value, HubError> {
    Ok(crate::fs::read_json(path)?)
}

fn no_components(index: &Path) -> HubError {
    HubError::Files(CheckpointError::ModelFolder {
        path: crate::fs::folder_of(index).to_owned(),
        expected: format!("components in `{INDEX}`"),
        found: "none".to_owned(),
    })
}

/// Name and class of the components in use.
fn components(index: &Value) -> Vec<(&str, &str)> {
    let entries = index.as_object().into_iter().flatten();
    let in_use = entries.filter_map(|(name, entry)| {
        let class = entry.as_array()?.get(1)?.as_str()?;
        let is_plain = names::check_file(name).is_ok() && !name.contains('/');
        let is_component = is_plain && !name.starts_with('_') && !IGNORED.contains(&name.as_str());
        is_component.then_some((name.as_str(), class))
    });
    in_use.collect()
}

/// What a component needs, told by its class, because a half-fetched folder does not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Network,
    Tokenizer,
    Scheduler,
}

impl Kind {
    fn of(class: &str) -> Self {
        if class.contains("Tokenizer") {
            Self::Tokenizer
        } else if class.contains("Scheduler") {
            Self::Scheduler
        } else {
            Self::Network
        }
    }

    /// Settings without which the component is nothing.
    fn required(self, inside: &BTreeSet<&str>) -> &'static [&'static str] {
        match self {
            Self::Network => &["config.json"],
            Self::Scheduler => &["scheduler_config.json"],
            Self::Tokenizer if is_whole_tokenizer(inside) => &["tokenizer.json"],
            Self::Tokenizer => &["merges.txt", "vocab.json"],
        }
    }
}

/// Whether the vocabulary lies in `tokenizer.json` alone.
fn is_whole_tokenizer(inside: &BTreeSet<&str>) -> bool {
    inside.contains("tokenizer.json")
        && !inside.contains("vocab.json")
        && !inside.contains("merges.txt")
}

fn files_of(
    component: &str,
    class: &str,
    names: &BTreeSet<String>,
    variant: Option<&str>,
) -> Result<Vec<String>, HubError> {
    let folder = format!("{component}/");
    let inside = names.iter().filter_map(|name| name.strip_prefix(folder.as_str()));
    // What a system left there, such as `._config.json`, is no file of a model.
    let inside: BTreeSet<&str> =
        inside.filter(|name| !name.contains(['/', '\\']) && !name.starts_with('.')).collect();
    let kind = Kind::of(class);
    let mut files: BTreeSet<&str> = inside.iter().copied().filter(|n| is_setting(n)).collect();
    files.extend(kind.required(&inside));
    let mut files: Vec<String> = files.iter().map(|name| format!("{folder}{name}")).collect();
    if kind == Kind::Network {
        files.push(format!("{folder}{}", weights(component, &inside, variant)?));
    }
    Ok(files)
}

fn ending(name: &str) -> Option<&str> {
    Path::new(name).extension().and_then(OsStr::to_str)
}

/// Settings and vocabularies, but no index of weights.
fn is_setting(name: &str) -> bool {
    matches!(ending(name), Some("json" | "txt")) && !name.contains(".index.")
}

fn is_weights_index(name: &str) -> bool {
    name.contains(".safetensors.") && name.contains(".index.")
}

/// The file of weights that is read, or the index of its shards.
fn weights(
    component: &str,
    inside: &BTreeSet<&str>,
    variant: Option<&str>,
) -> Result<String, HubError> {
    let variants = variant.map_or([None, Some(HALF)], |variant| [Some(variant), None]);
    let mut candidates = Vec::new();
    for variant in variants {
        for stem in STEMS {
            candidates.extend(weight_names(stem, variant));
        }
    }
    if let Some(name) = candidates.iter().find(|name| inside.contains(name.as_str())) {
        return Ok(name.clone());
    }
    let found: Vec<&str> =
        inside.iter().copied().filter(|name| is_weight_file(Path::new(name))).collect();
    let expected: Vec<&str> = candidates
        .iter()
        .map(String::as_str)
        .filter(|name| ending(name) == Some("safetensors"))
        .collect();
    Err(HubError::NoWeights {
        component: component.to_owned(),
        expected: listed(&expected),
        found: listed(&found),
    })
}

/// One file, or the index of shards, in the spellings that a folder is read by: where a variant stands in the name
/// depends on the age of the program that wrote it.
fn weight_names(stem: &str, variant: Option<&str>) -> Vec<String> {
    match variant {
        None => vec![format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")],
        Some(variant) => vec![
            format!("{stem}.{variant}.safetensors"),
            format!("{stem}.safetensors.index.{variant}.json"),
            format!("{stem}.safetensors.{variant}.index.json"),
            format!("{stem}.{variant}.safetensors.index.json"),
        ],
    }
}

/// The shards of an index, by their paths in the repository.
fn shards(name: &str, index: &Value) -> Result<BTreeSet<String>, HubError> {
    let folder = name.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"));
    let map = index.get("weight_map").and_then(Value::as_object);
    let shards = map.into_iter().flatten().filter_map(|(_, shard)| shard.as_str());
    let path = |shard: &str| -> Result<String, HubError> {
        names::check_file(shard)?;
        Ok(format!("{folder}{shard}"))
    };
    shards.map(path).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is asked for of a repository with these files and components, `model_index.json` first.
    fn asked(
        files: &[&str],
        index: &Value,
        variant: Option<&str>,
    ) -> Result<Vec<String>, HubError> {
        let folder = tempfile::tempdir().unwrap();
        let mut asked = Vec::new();
        let names: BTreeSet<String> = files.iter().map(|name| (*name).to_owned()).collect();
        walk_base::<HubError>(&names, variant, &mut |name| {
            asked.push(name.to_owned());
            let path = folder.path().join(name);
            let content = if name == INDEX {
                index.clone()
            } else {
                let shard = |part: u8| format!("model.fp16-0000{part}-of-00002.safetensors");
                json!({"weight_map": {"a": shard(1), "b": shard(2), "c": shard(1)}})
            };
            crate::fs::atomic_write_json(&path, &content)?;
            Ok(path)
        })?;
        Ok(asked)
    }

    fn pipeline() -> Value {
        json!({
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", "PNDMScheduler"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "image_encoder": [null, null],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
        })
    }

    const FILES: [&str; 17] = [
        "README.md",
        "model_index.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/flax_model.msgpack.index.json",
        "unet/old/config.json",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
    ];

    #[test]
    fn a_base_is_its_settings_and_one_set_of_weights() {
        let settings = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/vocab.json",
            "unet/config.json",
        ];
        let expected = |weights: &str| {
            let mut files: Vec<String> = settings.iter().map(|name| (*name).to_owned()).collect();
            files.push(format!("unet/diffusion_pytorch_model.{weights}"));
            files
        };
        let found = |variant| asked(&FILES, &pipeline(), variant).unwrap();
        assert_eq!(found(None), expected("safetensors"));
        assert_eq!(found(Some("fp16")), expected("fp16.safetensors"));
        let error = asked(&FILES, &pipeline(), Some("bf16")).unwrap_err();
        assert_eq!(error.kind(), crate::hub::HubErrorKind::Weights);
        assert!(error.to_string().contains("`bf16`"), "{error}");
        let no_plain: Vec<&str> = FILES
            .into_iter()
            .filter(|name| *name != "unet/diffusion_pytorch_model.safetensors")
            .collect();
        let found = asked(&no_plain, &pipeline(), None).unwrap();
        assert_eq!(found, expected("fp16.safetensors"));
    }

    #[test]
    fn a_component_without_the_variant_comes_as_it_is() {
        let mut index = pipeline();
        index["vae"] = json!(["diffusers", "AutoencoderKL"]);
        let mut files = FILES.to_vec();
        files.extend(["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]);
        let found = asked(&files, &index, Some("fp16")).unwrap();
        let weights: Vec<&String> = found.iter().filter(|name| name.contains("model.")).collect();
        let expected = [
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(weights, expected);
    }

    #[test]
    fn of_shards_the_index_comes_first_and_each_shard_once() {
        let index = json!({"text_encoder": ["transformers", "CLIPTextModel"]});
        for name in [
            "model.safetensors.index.fp16.json",
            "model.safetensors.fp16.index.json",
            "model.fp16.safetensors.index.json",
        ] {
            let name = format!("text_encoder/{name}");
            let files = ["text_encoder/config.json", name.as_str()];
            let expected = [
                "model_index.json".to_owned(),
                files[0].to_owned(),
                files[1].to_owned(),
                "text_encoder/model.fp16-00001-of-00002.safetensors".to_owned(),
                "text_encoder/model.fp16-00002-of-00002.safetensors".to_owned(),
            ];
            assert_eq!(asked(&files, &index, Some("fp16")).unwrap(), expected);
        }
        let escapes = json!({"weight_map": {"a": "../../../x.safetensors"}});
        let error = shards("unet/model.safetensors.index.json", &escapes).unwrap_err();
        assert!(error.to_string().contains("../../../x.safetensors"), "{error}");
    }

    #[test]
    fn what_a_component_needs_is_asked_for_even_if_it_is_not_there() {
        let found = |index: &Value, files: &[&str]| asked(files, index, None);
        let tokenizer = json!({"tokenizer": ["transformers", "CLIPTokenizerFast"]});
        let expected = ["model_index.json", "tokenizer/merges.txt", "tokenizer/vocab.json"];
        assert_eq!(found(&tokenizer, &[]).unwrap(), expected);
        let whole = found(&tokenizer, &["tokenizer/tokenizer.json"]).unwrap();
        assert_eq!(whole, ["model_index.json", "tokenizer/tokenizer.json"]);
        let vae = json!({"vae": ["diffusers", "AutoencoderKL"]});
        let error = found(&vae, &["vae/diffusion_pytorch_model.bin"]).unwrap_err().to_string();
        assert!(error.contains("component `vae`"), "{error}");
        assert!(error.contains("found `diffusion_pytorch_model.bin`"), "{error}");
        let error = found(&json!({"_class_name": "X"}), &[]).unwrap_err().to_string();
        assert!(error.contains("expected components"), "{error}");
    }

    #[test]
    fn the_components_are_those_of_a_model_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = pipeline();
        index["feature_extractor"] = json!(["transformers", "CLIPImageProcessor"]);
        index["requires_safety_checker"] = json!(true);
        crate::fs::atomic_write_json(&folder.path().join(INDEX), &index).unwrap();
        let names: Vec<&str> = components(&index).into_iter().map(|(name, _)| name).collect();
        for name in &names {
            crate::fs::create_dir(&folder.path().join(name)).unwrap();
        }
        let opened = crate::folder::ModelFolder::open(folder.path()).unwrap();
        assert_eq!(opened.components(), names);
    }
}
