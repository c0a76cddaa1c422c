//! `populate merge`: adapters into the weights of a base, or several adapters into one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::{ModelFiles, ModelOptions, Predicts};
use models::adapter::{
    self, Adapter, AdapterForm, Exchanged, Keep, Merged, PEFT_FILE, StoreAs, merge_into_file,
    merge_into_folder,
};
use recipes::WeightsSource;
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::adapter_file::{self, NewFile, Staged, Table, counted, percent};
use crate::args::{DosedAdapter, DtypeName, MergeArguments, PredictionName};
use crate::error::JobError;
use crate::stage;

/// Merges what the arguments name.
pub(crate) fn execute(arguments: &MergeArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    for adapter in &arguments.adapters {
        require_other(&arguments.out, &adapter_file::file_of(&adapter.path))?;
    }
    match &arguments.base {
        Some(base) => into_base(base, arguments, job)?,
        None => into_one(arguments, job)?,
    }
    Ok(Outcome::Done)
}

/// Adapters with their doses.
type Dosed = Vec<(Adapter, f64)>;

/// The adapters with their doses, in the order of the arguments, and what is told of each.
fn read_all(adapters: &[DosedAdapter], table: &Table) -> Result<(Dosed, Vec<Exchanged>), JobError> {
    let mut doses = Vec::with_capacity(adapters.len());
    let mut told = Vec::with_capacity(adapters.len());
    for DosedAdapter { path, dose } in adapters {
        let mut read = table.read(&adapter_file::file_of(path))?;
        doses.push((std::mem::take(&mut read.adapter), *dose));
        told.push(read);
    }
    Ok((doses, told))
}

fn records(adapters: &[DosedAdapter], told: &[Exchanged]) -> Vec<Value> {
    let record = |(asked, read): (&DosedAdapter, &Exchanged)| json!({ "path": asked.path, "dose": asked.dose, "tensors_sha256": read.tensors_sha256 });
    adapters.iter().zip(told).map(record).collect()
}

fn into_base(
    base: &WeightsSource,
    arguments: &MergeArguments,
    job: &Job<'_>,
) -> Result<(), JobError> {
    let out = &arguments.out;
    if arguments.prediction.is_some() && is_single_file(out) {
        return Err(JobError::usage(format!(
            "`--prediction` needs a folder as `--out`, found `{}`: a single file does not state it",
            out.display()
        )));
    }
    let prediction = arguments.prediction.map(|name| match name {
        PredictionName::Epsilon => Predicts::Epsilon,
        PredictionName::V => Predicts::V,
        PredictionName::Sample => Predicts::Sample,
    });
    let options = ModelOptions { prediction, ..ModelOptions::default() };
    let files = stage::open_weights(base, options)?;
    let table = Table::of_base(&files, None)?;
    let (adapters, told) = read_all(&arguments.adapters, &table)?;
    let store = match arguments.dtype {
        DtypeName::AsStored => StoreAs::AsRead,
        DtypeName::F32 => StoreAs::F32,
        DtypeName::F16 => StoreAs::F16,
        DtypeName::Bf16 => StoreAs::Bf16,
    };
    let merged = if is_single_file(out) {
        check_file(&files, out)?;
        merge_into_file(&files, &adapters, store, out)?.0
    } else {
        adapter_file::require_no_folder(out)?;
        let staged = Staged::beside(out)?;
        let merged = merge_into_folder(&files, &adapters, store, &staged.dir)?;
        staged.become_folder(out)?;
        merged
    };
    let Merged { changed, dropped } = merged;
    if dropped > 0 {
        job.terminal.warn(&format!(
            "{} of a moving average were left out: they are not the average of merged weights",
            counted(dropped, "tensor")
        ));
    }
    let text = format!(
        "wrote {}: {} with {} merged into {}",
        out.display(),
        table.title(),
        counted(adapters.len(), "adapter"),
        counted(changed, "layer")
    );
    let record = json!({
        "event": "merged", "out": out, "base": files.path(), "family": table.title(),
        "adapters": records(&arguments.adapters, &told), "changed_layers": changed,
        "dropped_tensors": dropped,
    });
    job.give(&text, &record);
    Ok(())
}

fn is_single_file(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"))
}

/// Refuses to write a single file of a folder, or over the base itself.
fn check_file(files: &ModelFiles, out: &Path) -> Result<(), JobError> {
    if files.folder().is_some() {
        return Err(JobError::Usage {
            message: format!(
                "`{}` is a folder and becomes one again, found the file `{}` as `--out`",
                files.path().display(),
                out.display()
            ),
            hint: Some("name a folder that is not there".to_owned()),
        });
    }
    require_other(out, files.path())
}

/// Refuses to write over what is read.
fn require_other(out: &Path, source: &Path) -> Result<(), JobError> {
    let real = |path: &Path| path.canonicalize().ok();
    if real(out).is_some_and(|out| real(source) == Some(out)) {
        return Err(JobError::usage(format!("`{}` would take its own place", out.display())));
    }
    Ok(())
}

/// Lays the ranks of all adapters side by side.
fn into_one(arguments: &MergeArguments, job: &Job<'_>) -> Result<(), JobError> {
    let paths: Vec<PathBuf> =
        arguments.adapters.iter().map(|adapter| adapter_file::file_of(&adapter.path)).collect();
    let Some(first) = paths.first() else {
        return Err(JobError::usage("`--adapter` is needed at least once"));
    };
    let table = Table::of(first, arguments.made_for.as_ref())?;
    let (adapters, told) = read_all(&arguments.adapters, &table)?;
    let mut merged = adapter::concatenated(&adapters)?;
    let mut kept = None;
    if let Some(rank) = arguments.rank {
        let (resized, energies) = adapter::resized(&merged, Keep::Rank(rank as usize));
        let before: f64 = energies.values().map(|module| module.before).sum();
        let after: f64 = energies.values().map(|module| module.kept).sum();
        (merged, kept) = (resized, Some((after, before)));
    }
    let sources: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let dtype = adapter_file::dtype(arguments.dtype, &sources)?;
    let file = NewFile {
        table: &table,
        adapter: &merged,
        form: arguments.to.map_or(AdapterForm::Kohya, adapter_file::form),
        dtype,
        source: BTreeMap::new(),
        merged_from: Some(names(&sources)),
    };
    let written = file.write(&arguments.out)?;
    for warning in &written.warnings {
        job.terminal.warn(warning);
    }
    let energy = kept
        .map(|(after, before)| format!(", {} of the energy kept", percent(after, before)))
        .unwrap_or_default();
    let text = format!(
        "wrote {}: {} as one of {} for {}{energy}\nsha256 of the tensors: {}",
        arguments.out.display(),
        counted(adapters.len(), "adapter"),
        counted(merged.modules.len(), "module"),
        table.title(),
        written.hashes.tensors_sha256
    );
    let record = json!({
        "event": "merged", "out": arguments.out, "family": table.title(),
        "adapters": records(&arguments.adapters, &told), "modules": merged.modules.len(),
        "dtype": adapter_file::dtype_name(dtype), "warnings": written.warnings,
        "energy_kept": kept.map(|(after, _)| after), "energy": kept.map(|(_, before)| before),
        "tensors_sha256": written.hashes.tensors_sha256,
    });
    job.give(&text, &record);
    Ok(())
}

/// Names of files without their folders; of a PEFT adapter that of its folder.
fn names(paths: &[&Path]) -> String {
    let name = |path: &&Path| {
        let own = path.file_name()?;
        let folder = path.parent().filter(|_| own == PEFT_FILE).and_then(Path::file_name);
        Some(folder.unwrap_or(own).to_string_lossy().into_owned())
    };
    paths.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_goes_by_its_file_or_its_folder() {
        let paths = ["a/ink.safetensors", "b/wash/adapter_model.safetensors", PEFT_FILE];
        assert_eq!(
            names(&paths.map(Path::new)),
            "ink.safetensors, wash, adapter_model.safetensors"
        );
    }
}
