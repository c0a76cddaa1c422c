//! `populate resize`: the same adapter with fewer ranks.

use std::collections::BTreeMap;

use models::adapter::{self, AdapterForm, Keep, ModuleEnergy};
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::adapter_file::{self, NewFile, Table, Written, counted, percent};
use crate::args::{DtypeName, ResizeArguments};
use crate::error::JobError;

/// Modules that are shown one by one: those that lose most.
const SHOWN: usize = 5;

/// Reduces an adapter; writes it if there is a name for it.
pub(crate) fn execute(arguments: &ResizeArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let path = adapter_file::file_of(&arguments.adapter);
    let table = Table::of(&path, arguments.base.as_ref())?;
    let read = table.read(&path)?;
    let keep = match (arguments.rank, arguments.energy) {
        (Some(rank), _) => Keep::Rank(rank as usize),
        (None, Some(share)) => Keep::Energy(share),
        (None, None) => return Err(JobError::usage("one of `--rank` and `--energy` is needed")),
    };
    let (resized, energies) = adapter::resized(&read.adapter, keep);
    let written: Option<Written> = match &arguments.out {
        None => None,
        Some(out) => {
            let dtype = arguments.dtype.unwrap_or(DtypeName::AsStored);
            let file = NewFile {
                table: &table,
                adapter: &resized,
                form: form(arguments, read.form),
                dtype: adapter_file::dtype(dtype, &[&path])?,
                source: read.metadata,
                merged_from: None,
            };
            Some(file.write(out)?)
        }
    };
    let warnings = written.as_ref().map(|written| written.warnings.as_slice()).unwrap_or_default();
    for warning in warnings {
        job.terminal.warn(warning);
    }
    let mut lines = lines(&energies);
    let tensors_sha256 = written.as_ref().map(|written| &written.hashes.tensors_sha256);
    if let (Some(out), Some(hash)) = (&arguments.out, tensors_sha256) {
        lines.push(format!("wrote {}\nsha256 of the tensors: {hash}", out.display()));
    }
    let record = json!({
        "event": "resized", "out": arguments.out, "family": table.title(),
        "modules": modules(&energies), "warnings": warnings,
        "source_sha256": read.tensors_sha256, "tensors_sha256": tensors_sha256,
    });
    job.give(&lines.join("\n"), &record);
    Ok(Outcome::Done)
}

/// The form asked for, else that of the file.
fn form(arguments: &ResizeArguments, of_file: AdapterForm) -> AdapterForm {
    arguments.to.map_or(of_file, adapter_file::form)
}

/// What was kept: in all, by component, and of the modules that lose most.
fn lines(energies: &BTreeMap<String, ModuleEnergy>) -> Vec<String> {
    let mut components: BTreeMap<&str, Vec<&ModuleEnergy>> = BTreeMap::new();
    for (path, module) in energies {
        let component = path.split('.').next().unwrap_or_default();
        components.entry(component).or_default().push(module);
    }
    let line = |name: &str, modules: &[&ModuleEnergy]| {
        let before: f64 = modules.iter().map(|module| module.before).sum();
        let kept: f64 = modules.iter().map(|module| module.kept).sum();
        format!(
            "{name}: {}, rank {} to {}, {} of the energy kept",
            counted(modules.len(), "module"),
            ranks(modules.iter().map(|module| module.rank_before)),
            ranks(modules.iter().map(|module| module.rank_after)),
            percent(kept, before)
        )
    };
    let mut lines: Vec<String> =
        components.iter().map(|(name, modules)| line(name, modules)).collect();
    let all: Vec<&ModuleEnergy> = energies.values().collect();
    lines.push(line("in all", &all));
    let share = |module: &ModuleEnergy| module.kept / module.before;
    let mut losing: Vec<(&String, &ModuleEnergy)> =
        energies.iter().filter(|(_, module)| module.before > 0.0 && share(module) < 1.0).collect();
    losing.sort_by(|(_, one), (_, other)| share(one).total_cmp(&share(other)));
    if !losing.is_empty() {
        lines.push("least is kept of:".to_owned());
    }
    lines.extend(losing.into_iter().take(SHOWN).map(|(path, module)| {
        format!("  {path}: {}, rank {}", percent(module.kept, module.before), module.rank_after)
    }));
    lines
}

/// The lowest and the highest rank.
fn ranks(ranks: impl Iterator<Item = usize> + Clone) -> String {
    match (ranks.clone().min(), ranks.max()) {
        (Some(lowest), Some(highest)) if lowest < highest => format!("{lowest}–{highest}"),
        (Some(lowest), _) => lowest.to_string(),
        (None, _) => "none".to_owned(),
    }
}

fn modules(energies: &BTreeMap<String, ModuleEnergy>) -> Value {
    let record = |(path, module): (&String, &ModuleEnergy)| {
        let value = json!({
            "rank_before": module.rank_before, "rank_after": module.rank_after,
            "energy": module.before, "energy_kept": module.kept,
        });
        (path.clone(), value)
    };
    Value::Object(energies.iter().map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loses_most_is_named_first() {
        let module =
            |rank_after, before, kept| ModuleEnergy { rank_before: 8, rank_after, before, kept };
        let energies = BTreeMap::from([
            ("unet.a".to_owned(), module(4, 4.0, 3.0)),
            ("unet.b".to_owned(), module(2, 4.0, 1.0)),
            ("text_encoder.c".to_owned(), module(4, 2.0, 2.0)),
            ("unet.dead".to_owned(), module(4, 0.0, 0.0)),
        ]);
        let expected = [
            "text_encoder: 1 module, rank 8 to 4, 100.00 % of the energy kept",
            "unet: 3 modules, rank 8 to 2–4, 50.00 % of the energy kept",
            "in all: 4 modules, rank 8 to 2–4, 60.00 % of the energy kept",
            "least is kept of:",
            "  unet.b: 25.00 %, rank 2",
            "  unet.a: 75.00 %, rank 4",
        ];
        assert_eq!(lines(&energies), expected);
    }
}
