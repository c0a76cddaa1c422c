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

    /// Refuses any value of the field but null and those listed, which are equal to the default.
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

    /// Refuses null, by which diffusers means something other than the default.
    pub(crate) fn not_null(&mut self, field: &'a str, expected: &str) -> Result<(), ModelError> {
        match self.map.get(field) {
            Some(value) if value.is_null() => Err(error(self.file, field, value, expected)),
            _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::clip::{ClipTextConfig, ClipVisionConfig};
    use crate::unet::UNetConfig;
    use crate::vae::VaeConfig;

    type Reader = fn(&str, &Value) -> Result<(), ModelError>;

    const UNET: (&str, Reader) =
        ("unet_sdxl", |file, value| UNetConfig::from_json(file, value).map(drop));
    const VAE: (&str, Reader) = ("vae", |file, value| VaeConfig::from_json(file, value).map(drop));
    const TEXT: (&str, Reader) =
        ("clip_text", |file, value| ClipTextConfig::from_json(file, value).map(drop));
    const VISION: (&str, Reader) =
        ("clip_vision", |file, value| ClipVisionConfig::from_json(file, value).map(drop));

    /// What transformers or diffusers wrote for a golden case.
    fn written(case: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../scripts/golden")
            .join(case)
            .join("config.json");
        checkpoints::fs::read_json(&path).unwrap()
    }

    #[test]
    fn what_upstream_writes_is_read() {
        for (case, read) in [UNET, VAE, TEXT, VISION] {
            read(case, &written(case)).unwrap();
        }
        for case in ["unet_sd1", "unet_sd2"] {
            UNET.1(case, &written(case)).unwrap();
        }
    }

    #[test]
    fn a_field_that_is_not_supported_is_named_with_its_value() {
        let table = [
            (UNET, "surprise", json!(1)),
            (UNET, "in_channels", json!(0)),
            (UNET, "in_channels", json!("four")),
            (UNET, "num_attention_heads", json!(5)),
            (UNET, "attention_head_dim", json!([5])),
            (UNET, "norm_num_groups", json!(null)),
            (UNET, "norm_num_groups", json!(7)),
            (UNET, "act_fn", json!("relu")),
            (UNET, "class_embed_type", json!("timestep")),
            (UNET, "addition_embed_type", json!("image")),
            (UNET, "addition_time_embed_dim", json!(null)),
            (UNET, "only_cross_attention", json!(true)),
            (UNET, "dual_cross_attention", json!(true)),
            (UNET, "encoder_hid_dim", json!(768)),
            (UNET, "resnet_time_scale_shift", json!("scale_shift")),
            (UNET, "time_embedding_type", json!("fourier")),
            (UNET, "time_cond_proj_dim", json!(256)),
            (UNET, "conv_in_kernel", json!(1)),
            (UNET, "mid_block_type", json!("UNetMidBlock2D")),
            (UNET, "down_block_types", json!(["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"])),
            (UNET, "use_linear_projection", json!("yes")),
            (VAE, "surprise", json!(1)),
            (VAE, "act_fn", json!("relu")),
            (VAE, "latents_mean", json!([0.0])),
            (VAE, "shift_factor", json!(0.1)),
            (VAE, "norm_num_groups", json!(null)),
            (VAE, "down_block_types", json!(["AttnDownEncoderBlock2D"])),
            (VAE, "scaling_factor", json!("large")),
            (TEXT, "surprise", json!(1)),
            (TEXT, "hidden_act", json!("relu")),
            (TEXT, "num_attention_heads", json!(5)),
            (TEXT, "vocab_size", json!(-1)),
            (VISION, "surprise", json!(1)),
            (VISION, "patch_size", json!(7)),
        ];
        for ((case, read), field, value) in table {
            let mut config = written(case);
            config[field] = value.clone();
            let message = match read("x/config.json", &config) {
                Ok(()) => panic!("{case}: {field} = {value} was accepted"),
                Err(error) => error.to_string(),
            };
            assert!(message.starts_with("`x/config.json`: field `"), "{message}");
            let related = ["addition_time_embed_dim"];
            if !related.contains(&field) {
                assert!(message.contains(&format!("field `{field}` is")), "{message}");
            }
        }
    }
}
