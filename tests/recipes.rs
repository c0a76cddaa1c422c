//! Every recipe that ships resolves, says how it is run, and is short.

use std::path::{Path, PathBuf};

use recipes::{
    AdapterSpec, BasePrediction, DatasetSpec, KarrasSigmas, Loaded, OptimizerSpec, Recipe,
    SamplerKind, WeightsSource,
};

use crate::world::{Ended, World, root};

/// Recipes below `recipes/`; a new one raises this number.
const N_RECIPES: usize = 10;
/// Lines of a recipe at most.
const MAX_LINES: usize = 80;

fn shipped() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["recipes", "recipes/postcards"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn as_many_recipes_as_stated_resolve() {
    let shipped = shipped();
    for path in &shipped {
        if let Err(error) = recipes::load(path, &[]) {
            panic!("{}: {error}: {:?}", shown(path), error.problems);
        }
    }
    assert_eq!(shipped.len(), N_RECIPES, "{shipped:?}");
}

/// The recipe of a file in `recipes/`, which settles a concept.
fn settlement(name: &str, sets: &[String]) -> Recipe {
    let path = root().join("recipes").join(format!("{name}.yaml"));
    match recipes::load(&path, sets).unwrap() {
        Loaded::Settle(recipe) => *recipe,
        Loaded::Pretrain(_) => panic!("{name} settles nothing"),
    }
}

/// Where a recipe waits for pictures of the user's own: the folder, and shipped pictures that stand
/// in for them, at their own size.
fn stand_ins(dataset: &DatasetSpec) -> Option<(PathBuf, Vec<String>)> {
    let (key, images, side, concept) = match dataset {
        DatasetSpec::Captioned(captioned) => {
            let key = "dataset.captioned";
            (format!("{key}.images"), &captioned.images, format!("{key}.side_px=64"), "hatching")
        }
        DatasetSpec::DreamBooth(dreambooth) => {
            let (key, images) = ("dataset.dreambooth", &dreambooth.instance.images);
            let side = format!("{key}.side_px=64");
            (format!("{key}.instance.images"), images, side, "cylinder")
        }
    };
    let found = root().join(images).is_dir();
    (!found).then(|| (images.clone(), vec![format!("{key}=datasets/concepts/{concept}"), side]))
}

/// Down to the thesaurus and every picture, and with nothing to complain about.
#[test]
fn recipes_that_settle_a_concept_are_valid() {
    let world = World::empty();
    for path in shipped() {
        if let Loaded::Settle(recipe) = recipes::load(&path, &[]).unwrap() {
            let name = shown(&path);
            let sets = stand_ins(&recipe.dataset).map(|(_, sets)| sets).unwrap_or_default();
            let mut arguments: Vec<&str> = vec!["validate", &name];
            arguments.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
            let ended = Ended::of(world.command(&arguments).current_dir(root()));
            assert_eq!(ended.expect(0).stderr, "", "{name}");
        }
    }
}

/// Recipes of released bases are edited before they run; until then they say what is missing.
#[test]
fn recipes_for_pictures_of_ones_own_name_the_folder_they_wait_for() {
    let world = World::empty();
    let mut waiting = Vec::new();
    for path in shipped() {
        let Loaded::Settle(recipe) = recipes::load(&path, &[]).unwrap() else { continue };
        let Some((images, _)) = stand_ins(&recipe.dataset) else { continue };
        let name = shown(&path);
        let ended = Ended::of(world.command(&["validate", &name]).current_dir(root())).expect(65);
        let line = format!("`{}`: expected a folder of pictures, found nothing", images.display());
        assert!(ended.stderr.contains(&line), "{name}: {}", ended.stderr);
        waiting.push(recipe.name);
    }
    assert_eq!(waiting, ["dreambooth-sd15", "style-sd15", "style-sd21", "style-sdxl"]);
}

#[test]
fn recipes_of_released_bases_start_where_their_users_expect() {
    for (name, key, side_px, guidance_scale) in [
        ("style-sd15", "sd1", 512, 7.5),
        ("dreambooth-sd15", "sd1", 512, 7.5),
        ("style-sd21", "sd2", 768, 7.5),
        ("style-sdxl", "sdxl", 1024, 5.0),
    ] {
        let recipe = settlement(name, &[]);
        assert_eq!(recipe.name, name);
        assert!(recipes::canonical_json(&recipe)["base"].get(key).is_some(), "{name}");
        let base = recipe.base.model().unwrap();
        assert!(matches!(base.weights, WeightsSource::Hub(_)), "{name}: {}", base.weights);
        assert_eq!(base.prediction == BasePrediction::V, key == "sd2", "{name}");
        assert_eq!(recipe.dataset.image_options().side_px, side_px, "{name}");
        let previews = &recipe.fit.previews;
        assert!((previews.guidance_scale - guidance_scale).abs() < 1e-12, "{name}");
        let kind = SamplerKind::DpmPp2M { karras: KarrasSigmas::On };
        assert_eq!(previews.sampler.kind, kind, "{name}");
        // One prompt asks for the concept, the others show what happens where nobody asked.
        let identifier = recipe.dataset.identifier().unwrap();
        let asks: Vec<bool> = previews.prompts.iter().map(|p| p.contains(identifier)).collect();
        assert_eq!(asks, [true, false, false], "{name}: {:?}", previews.prompts);
        let AdapterSpec::Lora(lora) = &recipe.adapter else { panic!("{name} trains no adapter") };
        assert_eq!((lora.rank, lora.alpha.to_string().as_str()), (16, "16"), "{name}");
        assert!(lora.targets.iter().all(|target| target.starts_with("unet.")), "{name}");
        let OptimizerSpec::AdamW { learning_rate, .. } = recipe.fit.optimizer;
        assert!((learning_rate - 1.0e-4).abs() < 1e-12, "{name}");
        // Neither a thesaurus nor an evaluator ships for them.
        assert_eq!(recipe.census, None, "{name}");
    }
}

#[test]
fn a_path_takes_the_place_of_a_model_of_the_hub() {
    for (name, key) in [
        ("style-sd15", "sd1"),
        ("dreambooth-sd15", "sd1"),
        ("style-sd21", "sd2"),
        ("style-sdxl", "sdxl"),
    ] {
        let recipe = settlement(name, &[format!("base.{key}.weights=my/base.safetensors")]);
        let weights = &recipe.base.model().unwrap().weights;
        assert_eq!(*weights, WeightsSource::Path("my/base.safetensors".into()), "{name}");
    }
}

/// What README promises: three edited lines settle something else.
#[test]
fn another_concept_takes_three_lines() {
    let path = root().join("recipes/le-depeupleur.yaml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (key, line) in [
        ("concept", "images: my/boats"),
        ("identifier", "identifier: zzt"),
        ("class", "class: boat"),
    ] {
        let start = format!("      {key}: ");
        let old = text.lines().find(|old| old.starts_with(&start)).unwrap().to_owned();
        text = text.replace(&old, &format!("      {line}"));
    }
    let Loaded::Settle(recipe) = recipes::load_text(&path, &text, &[]).unwrap() else {
        panic!("not a settlement");
    };
    let DatasetSpec::DreamBooth(dreambooth) = &recipe.dataset else {
        panic!("not DreamBooth");
    };
    assert_eq!(dreambooth.instance.prompt, "a postcard of a zzt boat");
    assert_eq!(dreambooth.class.as_ref().unwrap().prompt, "a postcard");
    let resolved = recipes::resolved_yaml(recipe.as_ref());
    assert!(resolved.contains("images: my/boats"), "{resolved}");
    assert!(!resolved.contains("cylinder") && !resolved.contains("tower"), "{resolved}");
}

#[test]
fn resolving_a_resolved_recipe_changes_nothing() {
    for path in shipped() {
        let text = match recipes::load(&path, &[]).unwrap() {
            Loaded::Settle(recipe) => recipes::resolved_yaml(recipe.as_ref()),
            Loaded::Pretrain(recipe) => recipes::resolved_yaml(recipe.as_ref()),
        };
        let again = match recipes::load_text(&path, &text, &[]).unwrap() {
            Loaded::Settle(recipe) => recipes::resolved_yaml(recipe.as_ref()),
            Loaded::Pretrain(recipe) => recipes::resolved_yaml(recipe.as_ref()),
        };
        assert_eq!(text, again, "{}", shown(&path));
    }
}

#[test]
fn headers_name_the_schema_and_the_command() {
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let name = shown(&path);
        assert!(lines[0].starts_with("# yaml-language-server: $schema="), "{name}");
        assert!(
            lines[2].starts_with("#   populate ") && lines[2].ends_with(&name),
            "{name}: {}",
            lines[2]
        );
        assert!(lines.len() <= MAX_LINES, "{name} has {} lines", lines.len());
    }
}

#[test]
fn the_committed_schema_is_the_derived_one() {
    let text = std::fs::read_to_string(root().join("recipes/schema.json")).unwrap();
    let committed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(committed, recipes::json_schema(), "`just schema` writes it again");
}
