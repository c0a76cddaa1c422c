//! The recipe of a sham: the same recipe, but for its name and the pictures of its concept.

use std::path::{Path, PathBuf, absolute};

use recipes::{DatasetSpec, Recipe};
use serde_json::Value;

use crate::error::JobError;
use crate::stage;

/// The recipe's file in the folder of a sham.
pub(super) const FILE: &str = "sham.yaml";
/// Begins an id of the hub, which is no path.
const HUB: &str = "hf:";
/// Keys of a recipe that hold a path, or a list of paths, and are kept.
const PATHS: [&str; 13] = [
    "base.folder.weights",
    "base.sd1.weights",
    "base.sd1.vae",
    "base.sd2.weights",
    "base.sd2.vae",
    "base.sdxl.weights",
    "base.sdxl.vae",
    "settled",
    "dataset.dreambooth.class.images",
    "census.thesaurus.file",
    "census.panel.file",
    "census.evaluator",
    "census.second_evaluator",
];

/// The recipe of a sham.
#[derive(Debug)]
pub(super) struct Sham {
    /// The recipe itself.
    pub(super) recipe: Box<Recipe>,
    /// Its text, which resolves to it wherever the program is started.
    pub(super) text: String,
    /// Name of the pictures' folder within that of the sham. A concept is called as its folder is.
    pub(super) pictures: String,
}

impl Sham {
    /// The sham of `recipe` in the folder `out`; nothing has to be there yet.
    ///
    /// # Errors
    ///
    /// A name that is too long with what is added to it; a path that no recipe can hold.
    pub(super) fn of(recipe: &Recipe, out: &Path) -> Result<Self, JobError> {
        let (images, key) = match &recipe.dataset {
            DatasetSpec::Captioned(captioned) => (&captioned.images, "dataset.captioned.images"),
            DatasetSpec::DreamBooth(dreambooth) => {
                (&dreambooth.instance.images, "dataset.dreambooth.instance.images")
            }
        };
        let name = images.file_name().map_or("concept".into(), |name| name.to_string_lossy());
        let pictures = format!("{name}-sham");
        let mut sets = kept_paths(recipe)?;
        sets.push(set("name", &Value::from(format!("{}-sham", recipe.name))));
        sets.push(set(key, &Value::from(fixed(&out.join(&pictures))?)));
        if matches!(recipe.dataset, DatasetSpec::Captioned(_)) {
            sets.push("dataset.captioned.captions=sidecar".to_owned());
        }
        let resolved = recipes::resolved_yaml(recipe);
        let loaded = recipes::load_text(&out.join(FILE), &resolved, &sets)?;
        let sham = stage::settlement(loaded, "sham")?;
        let text = format!(
            "# Sham of the recipe `{}`: the same settlement, of pictures that its base drew itself.\n\
             # Written by `populate sham`; paths are absolute, so that it runs from any folder.\n{}",
            recipe.name,
            recipes::resolved_yaml(&*sham)
        );
        Ok(Self { recipe: sham, text, pictures })
    }
}

/// Overrides that keep the paths of a recipe, but make them absolute: the sham lies in another folder
/// and is run from anywhere.
fn kept_paths(recipe: &Recipe) -> Result<Vec<String>, JobError> {
    let recipe = recipes::canonical_json(recipe);
    let mut sets = Vec::new();
    for key in PATHS {
        if let Some(found) = recipe.pointer(&format!("/{}", key.replace('.', "/"))) {
            sets.push(set(key, &absolutes(found)?));
        }
    }
    Ok(sets)
}

/// A path or a list of paths, each absolute.
fn absolutes(found: &Value) -> Result<Value, JobError> {
    match found {
        Value::String(path) if !path.starts_with(HUB) => Ok(Value::from(fixed(Path::new(path))?)),
        Value::Array(paths) => {
            let mut all = Vec::new();
            for path in paths {
                all.push(absolutes(path)?);
            }
            Ok(Value::from(all))
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Ok(found.clone())
        }
    }
}

/// The absolute path as a recipe holds it.
fn fixed(path: &Path) -> Result<String, JobError> {
    let refused = |path: &Path, reason: &str| {
        JobError::usage(format!(
            "expected a path for the recipe, found `{}`: {reason}",
            path.display()
        ))
    };
    let found = absolute(path).map_err(|error| refused(path, &error.to_string()))?;
    let text = found.into_os_string().into_string();
    text.map_err(|found| refused(&PathBuf::from(found), "it is not UTF-8"))
}

/// An override. JSON is YAML, and its texts are quoted.
fn set(key: &str, value: &Value) -> String {
    format!("{key}={value}")
}

#[cfg(test)]
mod tests {
    use recipes::{BaseSpec, CaptionSource, ThesaurusSource, WeightsSource};

    use super::*;
    use crate::exit::Exit;

    const SMALL: &str = "\
name: small
seed: 18446744073709551615
base: postcards
dataset:
  dreambooth:
    instance: { images: my/towers, identifier: 'no', class: tower, prompt: 'a {identifier}: {class}' }
    class: { images: others, prompt: a tower, weight: 0.25 }
adapter: { lora: { rank: 3, alpha: 0.1 } }
fit: { steps: 300, optimizer: { adamw: { learning_rate: 1.0e-3 } } }
census: { thesaurus: { file: t.yaml }, evaluator: e, doses: [0.0, 0.1, 1.0] }
";

    fn recipe(text: &str, sets: &[&str]) -> Box<Recipe> {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let loaded = recipes::load_text(Path::new("t.yaml"), text, &sets).unwrap();
        stage::settlement(loaded, "sham").unwrap()
    }

    fn here(path: &str) -> PathBuf {
        absolute(path).unwrap()
    }

    #[test]
    fn all_but_name_and_pictures_of_a_dreambooth_recipe_is_kept() {
        let before = recipe(SMALL, &[]);
        let sham = Sham::of(&before, Path::new("out")).unwrap();
        assert_eq!(
            (sham.recipe.name.as_str(), sham.pictures.as_str()),
            ("small-sham", "towers-sham")
        );
        let mut after = sham.recipe.clone();
        after.name.clone_from(&before.name);
        let DatasetSpec::DreamBooth(dreambooth) = &mut after.dataset else { panic!("dreambooth") };
        assert_eq!(dreambooth.instance.images, here("out/towers-sham"));
        dreambooth.instance.images = "my/towers".into();
        let class = dreambooth.class.as_mut().unwrap();
        assert_eq!(class.source, recipes::ClassSource::Folder(here("others")));
        class.source = recipes::ClassSource::Folder("others".into());
        let census = after.census.as_mut().unwrap();
        assert_eq!(census.thesaurus, ThesaurusSource::File(here("t.yaml")));
        census.thesaurus = ThesaurusSource::File("t.yaml".into());
        assert_eq!(census.evaluator, Some(here("e")));
        census.evaluator = Some("e".into());
        assert_eq!(after, before);
    }

    #[test]
    fn captions_of_a_captioned_recipe_stand_beside_the_pictures() {
        let dataset = "dataset={captioned: {images: marks, captions: jsonl, missing_caption: class, \
                       identifier: sks, class: tower, identifier_at: end}}";
        let before = recipe(SMALL, &[dataset]);
        let sham = Sham::of(&before, Path::new("out")).unwrap();
        let (DatasetSpec::Captioned(before), DatasetSpec::Captioned(after)) =
            (&before.dataset, &sham.recipe.dataset)
        else {
            panic!("captioned")
        };
        assert_eq!(after.captions, CaptionSource::Sidecar);
        let expected = recipes::CaptionedSpec {
            images: here("out/marks-sham"),
            captions: CaptionSource::Sidecar,
            ..before.clone()
        };
        assert_eq!(*after, expected);
    }

    #[test]
    fn the_text_is_the_recipe_and_says_what_it_is() {
        let sham = Sham::of(&recipe(SMALL, &[]), Path::new("out")).unwrap();
        assert!(sham.text.starts_with("# Sham of the recipe `small`:"), "{}", sham.text);
        assert_eq!(recipe(&sham.text, &[]), sham.recipe);
    }

    #[test]
    fn bases_and_what_was_settled_before_are_found_from_any_folder() {
        let sets = ["base={sd1: {weights: w.safetensors, vae: v}}", "settled=[runs/a-1f, b]"];
        let sham = Sham::of(&recipe(SMALL, &sets), Path::new("out")).unwrap();
        let BaseSpec::Sd1(model) = &sham.recipe.base else { panic!("sd1") };
        assert_eq!(model.weights, WeightsSource::Path(here("w.safetensors")));
        assert_eq!(model.vae, Some(here("v")));
        assert_eq!(sham.recipe.settled, [here("runs/a-1f"), here("b")]);
        let hub = recipe(SMALL, &["base={sd2: {weights: hf:o/n@v}}"]);
        let sham = Sham::of(&hub, Path::new("out")).unwrap();
        assert_eq!(sham.recipe.base, hub.base);
    }

    #[test]
    fn a_name_that_grows_too_long_is_refused_before_anything_is_drawn() {
        let long = recipe(SMALL, &[&format!("name={}", "a".repeat(60))]);
        let error = Sham::of(&long, Path::new("out")).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
    }
}
