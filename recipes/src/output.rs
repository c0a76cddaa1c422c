//! The section `output`: which files a settlement leaves.

use serde::Serialize;
use serde_saphyr::Spanned;

use crate::choice::Choice;
use crate::field::{Field, raw_section, words};
use crate::problem::Checks;

/// Which files a settlement leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputSpec {
    /// Key names of the adapter files, at least one, each once.
    pub formats: Vec<AdapterFormat>,
    /// How much of the recipe their headers tell.
    pub metadata: MetadataLevel,
    /// Number format of their tensors.
    pub dtype: AdapterDtype,
}

words! {
    /// Key names of an adapter file.
    AdapterFormat {
        /// `lora_unet_….lora_down.weight`, read by web interfaces.
        Kohya,
        /// `unet.….lora_A.weight`, read by diffusers.
        Diffusers,
    }
}

words! {
    /// How much a file's header tells.
    MetadataLevel {
        /// What readers need, and hashes.
        Minimal,
        /// Also the settings of the training.
        Standard,
        /// Also the resolved recipe.
        Full,
    }
}

words! {
    /// Number format of tensors.
    AdapterDtype {
        /// IEEE half precision.
        F16,
        /// bfloat16.
        Bf16,
        /// IEEE single precision.
        F32,
    }
}

raw_section! {
    /// Which files a settlement leaves.
    RawOutput {
        /// Key names of the adapter files (default [kohya, diffusers]).
        formats: Vec<Field<Choice<AdapterFormat>>>,
        /// How much their headers tell (default minimal).
        metadata: Choice<MetadataLevel>,
        /// Number format of their tensors (default f16).
        dtype: Choice<AdapterDtype>,
    }
}

impl RawOutput {
    /// Resolves the section; every key has a default.
    pub(crate) fn resolve(self, checks: &mut Checks) -> OutputSpec {
        OutputSpec {
            formats: formats(self.formats, checks),
            metadata: self.metadata.choice_or(MetadataLevel::Minimal, "output.metadata", checks),
            dtype: self.dtype.choice_or(AdapterDtype::F16, "output.dtype", checks),
        }
    }
}

fn formats(
    raw: Field<Vec<Field<Choice<AdapterFormat>>>>,
    checks: &mut Checks,
) -> Vec<AdapterFormat> {
    const KEY: &str = "output.formats";
    let Some(Spanned { value, referenced, .. }) = raw.given(KEY, checks) else {
        return vec![AdapterFormat::Kohya, AdapterFormat::Diffusers];
    };
    if value.is_empty() {
        checks.problem(referenced, format!("`{KEY}` must name at least one format, found none"));
    }
    let mut formats = Vec::new();
    for item in value {
        let Some(item) = item.chosen(KEY, checks) else { continue };
        if formats.contains(&item.value) {
            let twice = match item.value {
                AdapterFormat::Kohya => "kohya",
                AdapterFormat::Diffusers => "diffusers",
            };
            let message = format!("`{KEY}` must name each format once, found `{twice}` twice");
            checks.problem(item.referenced, message);
        }
        formats.push(item.value);
    }
    formats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{problems_with, with};

    #[test]
    fn the_default_is_both_formats_with_little_metadata_in_half_precision() {
        let output = with(&[]).output;
        assert_eq!(output.formats, [AdapterFormat::Kohya, AdapterFormat::Diffusers]);
        assert_eq!(output.metadata, MetadataLevel::Minimal);
        assert_eq!(output.dtype, AdapterDtype::F16);
    }

    #[test]
    fn each_format_is_named_once() {
        assert_eq!(
            problems_with(&["output.formats=[kohya, kohya]"]),
            ["kohya: `output.formats` must name each format once, found `kohya` twice"]
        );
        let problems = problems_with(&["output.formats=[]"]);
        assert!(problems[0].ends_with("must name at least one format, found none"));
        let problems = problems_with(&["output.formats=[peft]"]);
        assert!(
            problems[0].starts_with("peft: `output.formats` must be one of `kohya`, `diffusers`")
        );
    }
}
