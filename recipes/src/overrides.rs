//! `--set path.to.key=value`: replaces values of a parsed recipe and writes it as text again.
//!
//! The typed recipe, not the text, is what is changed: there `name: no` is still a text. The value
//! itself is put into the new text as given, so it means what it would mean in the file.

use serde_json::{Map, Value};

use crate::error::OverrideError;
use crate::recipe::RawRecipe;

/// Stands for the value of the override until the text is written.
const MARK: &str = "populate-value-of-override";

/// The recipe as text after the override `set`.
pub(crate) fn apply(raw: &RawRecipe, set: &str) -> Result<String, OverrideError> {
    // Every leaf of a recipe is a text, a number, a flag or a list of those. A number that is not
    // finite becomes null, which is a problem as well.
    #[expect(clippy::expect_used, reason = "the raw types have no map with keys other than texts")]
    let mut tree = serde_json::to_value(raw).expect("a raw recipe is JSON");
    let value = put(&mut tree, set)?;
    #[expect(clippy::expect_used, reason = "a JSON value is written without failure")]
    let text = serde_saphyr::to_string(&tree).expect("JSON is YAML");
    Ok(text.replacen(MARK, value, 1))
}

/// Puts [`MARK`] where `set` points to, and returns the value that it stands for.
fn put<'a>(tree: &mut Value, set: &'a str) -> Result<&'a str, OverrideError> {
    let (path, value) = set.split_once('=').ok_or(OverrideError::NoEquals)?;
    if value.chars().any(char::is_control) {
        return Err(OverrideError::Value);
    }
    let keys: Vec<&str> = path.trim().split('.').collect();
    if keys.iter().any(|key| key.is_empty() || key.chars().any(char::is_control)) {
        return Err(OverrideError::Path { path: path.escape_debug().to_string() });
    }
    let mut node = tree;
    for (depth, key) in keys.iter().enumerate() {
        if node.is_null() {
            *node = Value::Object(Map::new());
        }
        // A bare word stands for an alternative with all defaults: `schedule: cosine`.
        if node.as_str() == Some(*key) && depth + 1 < keys.len() {
            *node = Value::Object(Map::from_iter([((*key).to_owned(), Value::Null)]));
        }
        let no_section =
            || OverrideError::NoSection { path: keys[..depth].join("."), key: (*key).to_owned() };
        node = match node {
            Value::Object(map) => map.entry(*key).or_insert(Value::Null),
            Value::Array(list) => {
                let idx: usize = key.parse().map_err(|_| no_section())?;
                list.get_mut(idx).ok_or_else(no_section)?
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(no_section());
            }
        };
    }
    *node = Value::String(MARK.to_owned());
    Ok(value.trim())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::check::{SMALL, problems_with, with};
    use crate::error::RecipeErrorKind;
    use crate::fit::LrScheduleSpec;
    use crate::recipe::load_text;

    fn refused(set: &str) -> OverrideError {
        let error = load_text(Path::new("t.yaml"), SMALL, &[set.to_owned()]).unwrap_err();
        let RecipeErrorKind::Override { reason, .. } = error.kind else {
            panic!("expected an override error, found {error:?}")
        };
        *reason
    }

    #[test]
    fn a_value_is_replaced_or_added() {
        assert_eq!(with(&["fit.steps=9"]).fit.steps, 9);
        assert_eq!(with(&["fit.batch.images=3"]).fit.batch.images, 3);
        assert_eq!(with(&["objective.timesteps=[3, 9]"]).objective.timesteps, (3, 9));
    }

    #[test]
    fn later_overrides_win_and_see_earlier_ones() {
        assert_eq!(with(&["fit.steps=9", "fit.steps=10"]).fit.steps, 10);
        let recipe = with(&["objective.timesteps=[3, 9]", "objective.timesteps.1=8"]);
        assert_eq!(recipe.objective.timesteps, (3, 8));
    }

    #[test]
    fn what_looks_like_a_flag_stays_a_text() {
        let text = SMALL.replace("name: small", "name: no").replace("sks", "1e3");
        let recipe = match load_text(Path::new("t.yaml"), &text, &["seed=3".to_owned()]) {
            Ok(crate::Loaded::Settle(recipe)) => recipe,
            other => panic!("expected a settlement, found {other:?}"),
        };
        assert_eq!((recipe.name.as_str(), recipe.seed), ("no", 3));
        assert_eq!(recipe.dataset.identifier(), Some("1e3"));
    }

    #[test]
    fn an_override_goes_below_a_bare_word() {
        let recipe = with(&["fit.schedule=constant", "fit.schedule.constant.warmup_steps=5"]);
        assert_eq!(recipe.fit.schedule, LrScheduleSpec::Constant { warmup_steps: 5 });
    }

    #[test]
    fn problems_point_into_the_text_with_the_override() {
        let error =
            load_text(Path::new("t.yaml"), SMALL, &["adapter.lora.rnk=4".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "recipe `t.yaml with --set` has 1 problem");
        assert_eq!(problems_with(&["adapter.lora.rnk=4"]), ["rnk: unknown key `rnk`"]);
        assert_eq!(problems_with(&["fit.steps="]), [": `fit.steps` has no value"]);
    }

    #[test]
    fn an_override_without_place_is_refused() {
        assert_eq!(refused("fit.steps"), OverrideError::NoEquals);
        assert_eq!(refused("=3"), OverrideError::Path { path: String::new() });
        assert_eq!(refused("fit..steps=3"), OverrideError::Path { path: "fit..steps".to_owned() });
        assert_eq!(refused("name=a\nseed: 3"), OverrideError::Value);
        let (path, key) = ("fit.steps".to_owned(), "x".to_owned());
        assert_eq!(refused("fit.steps.x=3"), OverrideError::NoSection { path, key });
    }
}
