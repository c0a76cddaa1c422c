//! Reads a `config.json` field by field, so that nothing in it is ignored unknowingly.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// The fields of one configuration file, with an account of which were read.
pub(crate) struct Fields<'a> {
    file: &'a str,
    map: &'a Map<String, Value>,
    read: BTreeSet<&'a str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(file: &'a str, value: &'a Value) -> Result<Self, ModelError> {
        match value.as_object() {
            Some(map) => Ok(Self { file, map, read: BTreeSet::new() }),
            None => Err(error(file, "(root)", value, "an object")),
        }
    }

    /// The value of `field` unless it is absent or null.
    fn get(&mut self, field: &'a str) -> Option<&'a Value> {
        self.read.insert(field);
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn usize(&mut self, field: &'a str, default: usize) -> Result<usize, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number
            .filter(|&number| number > 0)
            .ok_or_else(|| error(self.file, field, value, "a positive integer"))
    }

    pub(crate) fn optional_usize(&mut self, field: &'a str) -> Result<Option<usize>, ModelError> {
        if self.get(field).is_none() { Ok(None) } else { self.usize(field, 1).map(Some) }
    }

    pub(crate) fn f64(&mut self, field: &'a str, default: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_f64().ok_or_else(|| error(self.file, field, value, "a number"))
    }

    /// The switch `field`, `None` where the file leaves it to the default.
    pub(crate) fn switch(&mut self, field: &'a str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| error(self.file, field, value, "true or false"))
    }

    pub(crate) fn text(&mut self, field: &'a str, default: &'a str) -> Result<&'a str, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_str().ok_or_else(|| error(self.file, field, value, "a text"))
    }

    /// One of `choices`, each with its meaning.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        field: &'a str,
        default: &'a str,
        choices: &[(&str, T)],
    ) -> Result<T, ModelError> {
        let text = self.text(field, default)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, meaning)| *meaning);
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        found.ok_or_else(|| error(self.file, field, &Value::from(text), &names.join(" or ")))
    }

    pub(crate) fn texts(
        &mut self,
        field: &'a str,
        default: &[&str],
    ) -> Result<Vec<String>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(default.iter().map(|text| (*text).to_owned()).collect());
        };
        let items = value
            .as_array()
            .map(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        match items.flatten() {
            Some(items) if !items.is_empty() => Ok(items.into_iter().map(str::to_owned).collect()),
            _ => Err(error(self.file, field, value, "a list of texts")),
        }
    }

    /// A list of positive integers, or one integer for all `levels`.
    pub(crate) fn levels(
        &mut self,
        field: &'a str,
        default: usize,
        levels: usize,
    ) -> Result<Vec<usize>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(vec![default; levels]) };
        let one = |value: &Value| {
            value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|&n| n > 0)
        };
        let found = match value.as_array() {
            Some(items) => items.iter().map(one).collect::<Option<Vec<_>>>(),
            None => one(value).map(|number| vec![number; levels]),
        };
        let expected = format!("a positive integer or {levels} of them");
        found
            .filter(|list| list.len() == levels)
            .ok_or_else(|| error(self.file, field, value, &expected))
    }

    /// A non-empty list of positive integers of any length.
    pub(crate) fn widths(
        &mut self,
        field: &'a str,
        default: &[usize],
    ) -> Result<Vec<usize>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default.to_vec()) };
        let n_levels = value.as_array().map_or(0, Vec::len);
        if n_levels == 0 {
            return Err(error(self.file, field, value, "a list of positive integers"));
        }
        self.levels(field, 1, n_levels)
    }

    /// Refuses any value of these fields but null, false, and those listed as equal to the default.
    pub(crate) fn only(&mut self, field: &'a str, accepted: &[Value]) -> Result<(), ModelError> {
        match self.get(field) {
            None => Ok(()),
            Some(value) if accepted.iter().any(|other| same(other, value)) => Ok(()),
            Some(value) => {
                let list: Vec<String> = accepted.iter().map(Value::to_string).collect();
                let list = if list.is_empty() { "null".to_owned() } else { list.join(" or ") };
                Err(error(
                    self.file,
                    field,
                    value,
                    &format!("{list} (other values are not supported)"),
                ))
            }
        }
    }

    /// Accepts the fields without reading them: they do not change the network.
    pub(crate) fn ignore(&mut self, fields: &[&'a str]) {
        self.read.extend(fields);
    }

    /// Refuses a field that nothing has read.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        let unknown = self
            .map
            .iter()
            .find(|(name, _)| !name.starts_with('_') && !self.read.contains(name.as_str()));
        match unknown {
            None => Ok(()),
            Some((name, value)) => {
                Err(error(self.file, name, value, "no such field (it is unknown)"))
            }
        }
    }

    pub(crate) fn error(
        &self,
        field: &str,
        found: impl std::fmt::Display,
        expected: &str,
    ) -> ModelError {
        ModelError::Config {
            file: self.file.to_owned(),
            field: field.to_owned(),
            found: format!("`{found}`"),
            expected: expected.to_owned(),
        }
    }
}

/// Equal, where 1 and 1.0 are the same number.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => (left - right).abs() < 1e-12,
        _ => left == right,
    }
}

fn error(file: &str, field: &str, found: &Value, expected: &str) -> ModelError {
    ModelError::Config {
        file: file.to_owned(),
        field: field.to_owned(),
        found: format!("`{found}`"),
        expected: expected.to_owned(),
    }
}
