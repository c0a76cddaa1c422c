//! `populate extract`: the difference of two models as an adapter.

use std::collections::BTreeMap;

use checkpoints::{ModelFiles, ModelOptions};
use models::adapter::{self, ComponentChange, ExtractOptions, Extracted};
use recipes::AdapterDtype;
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::adapter_file::{self, NewFile, Table, counted, percent};
use crate::args::{ExtractArguments, FactorDtype};
use crate::error::JobError;
use crate::progress::Tick;
use crate::stage;

/// The sets of layers that are chosen if none is named, without and with convolutions.
const SETS: [&str; 2] = ["attn_ff_proj", "attn_ff_proj_conv"];
/// Layers of text encoders that are chosen then, too.
const TEXT: [&str; 2] = ["text_encoder*.**.self_attn.*", "text_encoder*.**.mlp.*"];

/// Compares two models and writes the adapter that leads from one to the other.
pub(crate) fn execute(arguments: &ExtractArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let base = stage::open_weights(&arguments.base, ModelOptions::default())?;
    let tuned = stage::open_weights(&arguments.tuned, ModelOptions::default())?;
    let table = Table::of_base(&tuned, None)?;
    let targets = targets(arguments, &base);
    if arguments.conv_rank.is_some() && !table.chooses_convolutions(&targets)? {
        return Err(JobError::usage(
            "`--conv-rank` is the rank of larger convolutions, found none among the layers of \
             `--targets`",
        ));
    }
    let options = ExtractOptions {
        rank: arguments.rank as usize,
        conv_rank: arguments.conv_rank.map(|rank| rank as usize),
        targets,
    };
    let mut progress = job.progress();
    let mut watch = |done: usize, total: usize| {
        let (done, total) = (done as u64, total as u64);
        progress.tick(&Tick { phase: "extract", unit: "tensors", done, total, figures: &[] });
    };
    let extracted = adapter::extract(&base, &tuned, &options, &mut watch)?;
    progress.end();
    let dtype = match arguments.dtype {
        FactorDtype::F16 => AdapterDtype::F16,
        FactorDtype::Bf16 => AdapterDtype::Bf16,
        FactorDtype::F32 => AdapterDtype::F32,
    };
    let file = NewFile {
        table: &table,
        adapter: &extracted.adapter,
        form: adapter_file::form(arguments.to),
        dtype,
        source: BTreeMap::new(),
        merged_from: None,
    };
    let written = file.write(&arguments.out)?;
    for warning in &written.warnings {
        job.terminal.warn(warning);
    }
    let lines = lines(&extracted);
    let text = format!(
        "{}\nwrote {}: {} for {}\nsha256 of the tensors: {}",
        lines.join("\n"),
        arguments.out.display(),
        counted(extracted.adapter.modules.len(), "module"),
        table.title(),
        written.hashes.tensors_sha256
    );
    let record = json!({
        "event": "extracted", "out": arguments.out, "family": table.title(),
        "base": base.path(), "tuned": tuned.path(), "components": record(&extracted),
        "modules": extracted.adapter.modules.len(), "dtype": adapter_file::dtype_name(dtype),
        "warnings": written.warnings, "tensors_sha256": written.hashes.tensors_sha256,
    });
    job.give(&text, &record);
    Ok(Outcome::Done)
}

/// The patterns of what was asked for; a set stands for its own.
fn targets(arguments: &ExtractArguments, base: &ModelFiles) -> Vec<String> {
    if arguments.targets.is_empty() {
        let set = SETS[usize::from(arguments.conv_rank.is_some())];
        let mut patterns = recipes::preset(set).unwrap_or_default();
        if base.components().iter().any(|name| name.starts_with("text_encoder")) {
            patterns.extend(TEXT.map(str::to_owned));
        }
        return patterns;
    }
    let expand = |target: &String| recipes::preset(target).unwrap_or_else(|| vec![target.clone()]);
    arguments.targets.iter().flat_map(expand).collect()
}

/// What was kept, by component and in all.
fn lines(extracted: &Extracted) -> Vec<String> {
    let line = |name: &str, change: &ComponentChange| {
        if change.change <= 0.0 {
            return format!("{name}: the same in both models");
        }
        let unchanged = if change.unchanged > 0 {
            format!(", {} unchanged", counted(change.unchanged, "layer"))
        } else {
            String::new()
        };
        format!(
            "{name}: {} of the difference lies in the chosen layers, {} of that is kept ({}{unchanged})",
            percent(change.chosen, change.change),
            percent(change.kept, change.chosen),
            counted(change.modules, "module"),
        )
    };
    let mut lines: Vec<String> =
        extracted.components.iter().map(|(name, change)| line(name, change)).collect();
    let mut all = ComponentChange::default();
    for change in extracted.components.values() {
        all.modules += change.modules;
        all.unchanged += change.unchanged;
        all.change += change.change;
        all.chosen += change.chosen;
        all.kept += change.kept;
    }
    lines.push(line("in all", &all));
    lines
}

fn record(extracted: &Extracted) -> Value {
    let record = |(name, change): (&String, &ComponentChange)| {
        let value = json!({
            "modules": change.modules, "unchanged": change.unchanged, "energy": change.change,
            "energy_chosen": change.chosen, "energy_kept": change.kept,
        });
        (name.clone(), value)
    };
    Value::Object(extracted.components.iter().map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_told_by_component_and_in_all() {
        let change = |change, chosen, kept| ComponentChange {
            modules: 2,
            unchanged: 1,
            change,
            chosen,
            kept,
        };
        let components = [
            ("unet".to_owned(), change(4.0, 2.0, 1.0)),
            ("text_encoder".to_owned(), change(0.0, 0.0, 0.0)),
        ];
        let extracted =
            Extracted { adapter: adapter::Adapter::default(), components: components.into() };
        let expected = [
            "text_encoder: the same in both models",
            "unet: 50.00 % of the difference lies in the chosen layers, 50.00 % of that is kept \
             (2 modules, 1 layer unchanged)",
            "in all: 50.00 % of the difference lies in the chosen layers, 50.00 % of that is kept \
             (4 modules, 2 layers unchanged)",
        ];
        assert_eq!(lines(&extracted), expected);
    }
}
