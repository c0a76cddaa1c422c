//! Every recipe that ships resolves, says how it is run, and is short.

use std::path::{Path, PathBuf};

use recipes::Loaded;

use crate::world::{Ended, World, root};

/// Recipes below `recipes/`; a new one raises this number.
const N_RECIPES: usize = 6;
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

/// Down to the thesaurus and every picture, and with nothing to complain about.
#[test]
fn recipes_that_settle_a_concept_are_valid() {
    let world = World::empty();
    for path in shipped() {
        if matches!(recipes::load(&path, &[]).unwrap(), Loaded::Settle(_)) {
            let name = shown(&path);
            let ended = Ended::of(world.command(&["validate", &name]).current_dir(root()));
            assert_eq!(ended.expect(0).stderr, "", "{name}");
        }
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
    let recipes::DatasetSpec::DreamBooth(dreambooth) = &recipe.dataset else {
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
