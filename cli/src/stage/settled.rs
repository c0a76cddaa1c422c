//! What was settled in a base before: adapters that are merged into its weights first.

use std::path::{Path, PathBuf};

use checkpoints::hash::bytes_sha256;
use checkpoints::manifest::Manifest;
use checkpoints::run_dir::RunFolder;
use checkpoints::{HeaderLimit, ModelFiles, TensorFile};
use models::Base;
use models::adapter::merge_into_base;

use super::{any_recipe_of_run, finished, read_adapter, settlement};
use crate::adapter_file::{self, Table};
use crate::error::JobError;
use crate::provenance::MANIFEST;
use crate::terminal::Terminal;

/// File of a checkpoint that holds what was trained, if that is an adapter.
const ADAPTER: &str = "adapter.safetensors";
/// Dose of what was settled before.
const DOSE: f64 = 1.0;

/// One adapter on top of which a recipe settles its own.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The run directory or file, as the recipe names it.
    path: PathBuf,
    /// The adapter's file.
    file: PathBuf,
    /// sha256 of its tensors, 64 hex digits: its identity.
    tensors_sha256: String,
    /// One hash of the base in which it was settled; known of runs alone.
    base_sha256: Option<String>,
}

/// Opens what a recipe names, in its order: run directories, adapter files, folders of PEFT.
///
/// # Errors
///
/// [`JobError::Usage`] for a path where nothing is, and for a run that is not finished or left no
/// adapter; [`JobError::Checkpoint`] for what cannot be read.
pub(crate) fn open(paths: &[PathBuf]) -> Result<Vec<Settled>, JobError> {
    paths.iter().map(|path| open_one(path)).collect()
}

fn open_one(path: &Path) -> Result<Settled, JobError> {
    let file = adapter_file::file_of(path);
    if file.is_file() {
        let tensors_sha256 = TensorFile::open_within(&file, HeaderLimit::Adapter)?.tensors_sha256();
        return Ok(Settled { path: path.to_owned(), file, tensors_sha256, base_sha256: None });
    }
    if path.is_dir() {
        return open_run(path);
    }
    Err(JobError::Usage {
        message: format!("`settled` names `{}`, where nothing is", path.display()),
        hint: Some("expected the directory of a finished run, or an adapter file".to_owned()),
    })
}

/// The adapter that a finished run left in its last checkpoint: the one that its census counts.
fn open_run(path: &Path) -> Result<Settled, JobError> {
    let run = RunFolder::open(path)?;
    let recipe = settlement(any_recipe_of_run(&run)?, "settled")?;
    let checkpoint = finished(&recipe, &run)?;
    if !checkpoint.has(ADAPTER) {
        return Err(JobError::Usage {
            message: format!(
                "`settled` names run `{}`, which left no adapter: weights of its base were trained",
                path.display()
            ),
            hint: Some(format!(
                "settle in what it left instead: `base: {{ folder: {{ weights: {} }} }}`",
                path.join("base").display()
            )),
        });
    }
    let file = checkpoint.file(ADAPTER);
    let tensors_sha256 = TensorFile::open(&file)?.tensors_sha256();
    // A run that was stopped right after its last step has no manifest yet.
    let manifest = Manifest::read(&path.join(MANIFEST)).ok();
    let base_sha256 = manifest.map(|manifest| manifest.base_sha256);
    Ok(Settled { path: path.to_owned(), file, tensors_sha256, base_sha256 })
}

/// Refuses adapters that are not for this base, before any of its weights is read.
///
/// # Errors
///
/// As [`Table::of_base`] and [`Table::read`].
pub(super) fn check(settled: &[Settled], base: &ModelFiles) -> Result<(), JobError> {
    if settled.is_empty() {
        return Ok(());
    }
    let table = Table::of_base(base, None)?;
    settled.iter().try_for_each(|one| table.read(&one.file).map(drop))
}

/// One hash of a base with what was settled in it; without that, the hash of its files.
pub(super) fn base_sha256(root_sha256: &str, settled: &[Settled]) -> String {
    if settled.is_empty() {
        return root_sha256.to_owned();
    }
    let hashes = settled.iter().map(|one| one.tensors_sha256.as_str());
    let lines: Vec<&str> = std::iter::once(root_sha256).chain(hashes).collect();
    bytes_sha256(lines.join("\n").as_bytes())
}

/// Identities of the adapters in their order, parted by commas.
pub(super) fn identities(settled: &[Settled]) -> String {
    let hashes: Vec<&str> = settled.iter().map(|one| one.tensors_sha256.as_str()).collect();
    hashes.join(",")
}

/// Merges all of them into a base in memory, which then is another one.
///
/// # Errors
///
/// As [`read_adapter`] and [`merge_into_base`]; [`JobError::Data`] for a file that was changed since it
/// was opened.
pub(super) fn merge(settled: &[Settled], base: &mut Base) -> Result<(), JobError> {
    for (place, one) in settled.iter().enumerate() {
        let read = read_adapter(&one.file, base)?;
        if read.tensors_sha256 != one.tensors_sha256 {
            let changed = one.file.display();
            return Err(JobError::data(format!("`{changed}` was changed while it was in use")));
        }
        merge_into_base(base, &read.adapter, DOSE)?;
        base.hashes.insert(format!("settled/{place}"), read.tensors_sha256);
    }
    Ok(())
}

/// Says which runs were settled in another base than the one that they are merged into.
pub(super) fn warn(settled: &[Settled], root_sha256: &str, terminal: &Terminal) {
    for (place, one) in settled.iter().enumerate() {
        let here = base_sha256(root_sha256, &settled[..place]);
        if one.base_sha256.as_ref().is_some_and(|there| *there != here) {
            terminal.warn(&format!(
                "run `{}` was settled in another base, or on top of others, than it is merged into \
                 here",
                one.path.display()
            ));
        }
    }
}

/// What came before, in words; nothing where nothing did.
pub(crate) fn words(paths: &[PathBuf]) -> Option<String> {
    let shown: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    (!shown.is_empty()).then(|| shown.join(", then "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(tensors_sha256: &str) -> Settled {
        Settled {
            path: PathBuf::new(),
            file: PathBuf::new(),
            tensors_sha256: tensors_sha256.to_owned(),
            base_sha256: None,
        }
    }

    #[test]
    fn the_hash_of_a_base_tells_what_was_settled_and_in_which_order() {
        let of = |hashes: &[&str]| {
            let settled: Vec<Settled> = hashes.iter().map(|hash| one(hash)).collect();
            base_sha256("root", &settled)
        };
        assert_eq!(of(&[]), "root");
        assert_eq!(of(&["a"]), bytes_sha256(b"root\na"));
        assert_eq!(of(&["a", "b"]), bytes_sha256(b"root\na\nb"));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_eq!(identities(&[one("a"), one("b")]), "a,b");
    }

    #[test]
    fn what_came_before_is_told_in_its_order() {
        assert_eq!(words(&[]), None);
        let paths = ["runs/a", "b.safetensors"].map(PathBuf::from);
        assert_eq!(words(&paths).unwrap(), "`runs/a`, then `b.safetensors`");
    }
}
