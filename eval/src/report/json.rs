//! Owns `census.json`: the versioned document `populate/census/1`, its JSON Schema, and its exact
//! bytes (sorted keys, shortest floats that read back equal, no clock, no host).

use super::record::{
    Atlas, ConceptRecord, Counts, DoseRecord, FacetRecord, LeakRecord, Nulls, Refusal,
    SimilarityRecord, Transition,
};
use crate::error::EvalError;
use crate::gate::GateRecord;
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
    /// Thesaurus against pixels; another instrument's.
    pub fabric: Option<Value>,
    /// Path-space KL; another instrument's.
    pub path: Option<Value>,
    /// Likelihood census; another instrument's.
    pub likelihood: Option<Value>,
    /// Where the concept shows up.
    pub leak: LeakRecord,
    /// Share against dose.
    pub dose: Option<DoseRecord>,
    /// Successive settlements; another instrument's.
    pub settlements: Option<Value>,
    /// Series; another instrument's.
    pub series: Option<Value>,
    /// Directions; another instrument's.
    pub directions: Option<Value>,
    /// Typicality; another instrument's.
    pub typicality: Option<Value>,
    /// The recipe's limits.
    pub gates: Vec<GateRecord>,
    /// Figures that were not given, and why.
    pub refused: Vec<Refusal>,
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
fn sorted(value: Value) -> Value {
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
