//! Owns `census.json`: the versioned document `populate/census/1`, its JSON Schema, and its exact
//! bytes (sorted keys, shortest floats that read back equal, no clock, no host).

use crate::error::EvalError;
use crate::gate::GateRecord;
use crate::modes::ModesRecord;
use crate::record::{
    AgreementRecord, Atlas, ConceptRecord, CopiesRecord, Counts, DirectionsRecord, DoseRecord,
    FabricRecord, FacetRecord, LabelsRecord, LeakRecord, LikelihoodRecord, MapPoint, Nulls,
    PathRecord, PixelRecord, PlacesRecord, Refusal, SeriesRecord, SettlementsRecord,
    SimilarityRecord, Transition, TypicalityRecord, VerifiedRecord,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The schema that `census.json` names.
pub const SCHEMA: &str = "populate/census/1";

/// All reductions of one census.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CensusReport {
    /// Always `populate/census/1`.
    pub schema: String,
    /// Program and version.
    pub tool: String,
    /// Name of the budget.
    pub budget: String,
    /// SHA-256 of what determines the census (models, panel, thesaurus, sampler, seeds).
    pub manifest_sha256: Option<String>,
    /// The settled concept.
    pub concept: ConceptRecord,
    /// How much was counted.
    pub counts: Counts,
    /// The control models.
    pub nulls: Nulls,
    /// One record per facet.
    pub facets: Vec<FacetRecord>,
    /// Who took whose place: nonzero cells of `n_ij` off the diagonal, largest first.
    pub transitions: Vec<Transition>,
    /// Similarity of words and pictures.
    pub similarity: SimilarityRecord,
    /// Thesaurus against pixels; null where it was not measured, with the reason in `refused`.
    pub fabric: Option<FabricRecord>,
    /// Path-space KL; null where it was not measured, with the reason in `refused`.
    pub path: Option<PathRecord>,
    /// Likelihood census; null where it was not measured, with the reason in `refused`.
    pub likelihood: Option<LikelihoodRecord>,
    /// Where the concept shows up.
    pub leak: LeakRecord,
    /// Share against dose.
    pub dose: Option<DoseRecord>,
    /// Successive settlements; null where it was not measured, with the reason in `refused`.
    pub settlements: Option<SettlementsRecord>,
    /// Series; null where it was not measured, with the reason in `refused`.
    pub series: Option<SeriesRecord>,
    /// Directions; null where it was not measured, with the reason in `refused`.
    pub directions: Option<DirectionsRecord>,
    /// Typicality; null where it was not measured, with the reason in `refused`.
    pub typicality: Option<TypicalityRecord>,
    /// Collapse and copying.
    pub copies: Option<CopiesRecord>,
    /// Information maps of words.
    pub pixels: Option<PixelRecord>,
    /// Depopulation against fabric kept.
    pub map: Vec<MapPoint>,
    /// Two hundred seeds and what holds them.
    pub places: Option<PlacesRecord>,
    /// The census-taker's sheet.
    pub labels: Option<LabelsRecord>,
    /// What arrived and departed without a thesaurus.
    pub modes: Option<ModesRecord>,
    /// A second evaluator's opinion.
    pub agreement: Option<AgreementRecord>,
    /// Pictures asked by name that a second evaluator confirmed: each model's own confusion.
    #[serde(default)]
    pub verified: Option<VerifiedRecord>,
    /// The recipe's limits.
    pub gates: Vec<GateRecord>,
    /// Figures that were not given, and why.
    pub refused: Vec<Refusal>,
    /// Factor on the width of every entity's interval: above 1 where the census could end early.
    pub widening: f64,
    /// What a reader should know.
    pub warnings: Vec<String>,
    /// Which pictures the report shows.
    pub atlas: Atlas,
}

impl CensusReport {
    /// The exact bytes of `census.json`.
    ///
    /// # Errors
    ///
    /// [`EvalError::Json`] if a value cannot be written; none of ours can be so.
    pub fn to_json(&self) -> Result<String, EvalError> {
        let mut text = serde_json::to_string_pretty(&sorted(serde_json::to_value(self)?))?;
        text.push('\n');
        Ok(text)
    }

    /// Reads `census.json`.
    ///
    /// # Errors
    ///
    /// [`EvalError::Schema`] for another schema or major version, [`EvalError::Json`] if malformed.
    pub fn from_json(text: &str) -> Result<Self, EvalError> {
        let value: Value = serde_json::from_str(text)?;
        let found = value.get("schema").and_then(Value::as_str).unwrap_or_default();
        if found != SCHEMA {
            return Err(EvalError::Schema { found: found.to_owned(), expected: SCHEMA });
        }
        Ok(serde_json::from_value(value)?)
    }
}

/// The JSON Schema (draft-07) of `census.json`.
pub fn json_schema() -> Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    sorted(generator.into_root_schema_for::<CensusReport>().to_value())
}

/// The same value with the keys of every object in order, whatever map `serde_json` was built with.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(pairs.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::reduce;
    use crate::synthetic::{census as synthetic, settled};

    fn census() -> CensusReport {
        reduce(&synthetic(30, &settled)).unwrap()
    }

    #[test]
    fn census_json_round_trips_with_sorted_keys() {
        let census = census();
        let text = census.to_json().unwrap();
        assert_eq!(CensusReport::from_json(&text).unwrap(), census);
        let keys: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("  \""))
            .map(|line| line.trim().split('"').nth(1).unwrap())
            .collect();
        assert!(keys.is_sorted() && keys.contains(&"facets"), "{keys:?}");
        assert!(text.contains("\"likelihood\": null"));
        let other = text.replace("populate/census/1", "populate/census/2");
        assert!(matches!(CensusReport::from_json(&other), Err(EvalError::Schema { .. })));
    }

    #[test]
    fn the_committed_schema_is_the_derived_one() {
        let derived = format!("{:#}\n", json_schema());
        let committed = include_str!("../schema.json");
        assert!(
            derived == committed,
            "eval/schema.json is old: write it anew with `populate schema census > eval/schema.json`"
        );
    }

    #[test]
    fn the_schema_names_every_key_that_is_written() {
        let schema = json_schema();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        let written: Value = serde_json::from_str(&census().to_json().unwrap()).unwrap();
        for key in written.as_object().unwrap().keys() {
            assert!(schema["properties"].get(key).is_some(), "{key}");
        }
        let entity = &written["facets"][0]["entities"][0];
        for key in entity.as_object().unwrap().keys() {
            assert!(
                schema["definitions"]["EntityRecord"]["properties"].get(key).is_some(),
                "{key}"
            );
        }
    }
}
