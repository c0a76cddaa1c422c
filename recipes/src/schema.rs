//! The JSON Schema of recipes, from the raw types.

use schemars::generate::SchemaSettings;

use crate::recipe::RawRecipe;

/// The JSON Schema (draft 7, which YAML editors read) of recipe files.
///
/// `recipes/schema.json` holds it as text; a test compares the two.
pub fn json_schema() -> serde_json::Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<RawRecipe>().to_value()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_committed_schema_is_the_derived_one() {
        let committed: Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        assert!(
            committed == json_schema(),
            "recipes/schema.json is old: write it anew with `populate schema > recipes/schema.json`"
        );
    }

    #[test]
    fn the_schema_is_draft_7_and_strict() {
        let schema = json_schema();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        assert_eq!(schema["additionalProperties"], false);
        for (name, definition) in schema["definitions"].as_object().unwrap() {
            if definition["type"] == "object" {
                assert_eq!(definition["additionalProperties"], false, "{name}");
            }
        }
    }

    #[test]
    fn keys_that_must_be_given_are_required() {
        let schema = json_schema();
        assert_eq!(schema["required"], json!(["name", "dataset", "fit"]));
        let instance = &schema["definitions"]["RawDreamBooth"]["properties"]["instance"];
        assert_eq!(instance["required"], json!(["prompt", "identifier", "class"]));
        assert_eq!(schema["definitions"]["RawLora"].get("required"), None);
    }

    #[test]
    fn a_bare_word_is_allowed_where_nothing_is_required() {
        let schema = json_schema();
        let adapter = &schema["properties"]["adapter"]["anyOf"][0]["enum"];
        assert_eq!(adapter, &json!(["lora"]));
        let dataset = &schema["properties"]["dataset"];
        assert_eq!(dataset.pointer("/anyOf/0/enum"), None);
    }

    #[test]
    fn ranges_reach_the_editor() {
        let rank = &json_schema()["definitions"]["RawLora"]["properties"]["rank"];
        assert_eq!((&rank["minimum"], &rank["maximum"]), (&json!(1), &json!(4096)));
        assert!(rank["description"].as_str().unwrap().contains("default 16"));
    }
}
