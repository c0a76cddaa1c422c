//! What was settled in a base before: adapters that are merged into its weights first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::hash::{bytes_sha256, combined_sha256};
use checkpoints::manifest::Manifest;
use checkpoints::run_dir::RunFolder;
use checkpoints::{HeaderLimit, ModelFiles, TensorFile};
use models::Base;
use models::adapter::{PEFT_CONFIG, merge_into_base};

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
    /// sha256 of its tensors, 64 hex digits.
    tensors_sha256: String,
    /// The same where its alphas are tensors as well; else a hash that covers where they stand.
    identity: String,
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
    let settled = paths.iter().map(|path| open_one(path)).collect::<Result<Vec<_>, _>>()?;
    for (place, one) in settled.iter().enumerate() {
        if let Some(same) = settled[..place].iter().find(|other| other.identity == one.identity) {
            return Err(JobError::usage(format!(
                "`settled` names one adapter twice, as `{}` and as `{}`",
                same.path.display(),
                one.path.display()
            )));
        }
    }
    Ok(settled)
}

fn open_one(path: &Path) -> Result<Settled, JobError> {
    let file = adapter_file::file_of(path);
    if file.is_file() {
        let opened = TensorFile::open_within(&file, HeaderLimit::Adapter)?;
        let (path, tensors_sha256) = (path.to_owned(), opened.tensors_sha256());
        let identity = identity(&opened, &tensors_sha256)?;
        return Ok(Settled { path, file, tensors_sha256, identity, base_sha256: None });
    }
    if path.is_dir() {
        return open_run(path);
    }
    Err(JobError::Usage {
        message: format!(
            "`settled` names `{}`, expected a finished run or an adapter file, found nothing",
            path.display()
        ),
        hint: Some(
            "put back what was settled upon, or name its new place: `populate run RECIPE --set settled=[…]` \
             goes on with the same run"
                .to_owned(),
        ),
    })
}

/// What tells an adapter file from every other. PEFT and diffusers write alphas beside the tensors.
fn identity(file: &TensorFile, tensors_sha256: &str) -> Result<String, JobError> {
    if file.names().any(|name| name.rsplit_once('.').is_some_and(|(_, last)| last == "alpha")) {
        return Ok(tensors_sha256.to_owned());
    }
    let config = file.path().with_file_name(PEFT_CONFIG);
    let config = if config.is_file() { checkpoints::fs::read(&config)? } else { Vec::new() };
    let header: Vec<String> =
        file.metadata().iter().map(|(key, value)| format!("{key}={value}")).collect();
    let parts =
        [tensors_sha256, &bytes_sha256(&config), &bytes_sha256(header.join("\n").as_bytes())];
    Ok(bytes_sha256(parts.join("\n").as_bytes()))
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
    let manifest = path.join(MANIFEST);
    let base_sha256 =
        if manifest.is_file() { Some(Manifest::read(&manifest)?.base_sha256) } else { None };
    let identity = tensors_sha256.clone();
    Ok(Settled { path: path.to_owned(), file, tensors_sha256, identity, base_sha256 })
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

/// Names of the adapters among the parts of a base, with their identities.
fn parts(settled: &[Settled]) -> impl Iterator<Item = (String, String)> {
    let named =
        |(place, one): (usize, &Settled)| (format!("settled/{place}"), one.identity.clone());
    settled.iter().enumerate().map(named)
}

/// One hash of a base of these files with what was settled in it.
pub(super) fn base_sha256(files: &BTreeMap<String, String>, settled: &[Settled]) -> String {
    let mut all = files.clone();
    all.extend(parts(settled));
    combined_sha256(all.iter().map(|(name, hash)| (name.as_str(), hash.as_str())))
}

/// Identities of the adapters in their order, parted by commas.
pub(super) fn identities(settled: &[Settled]) -> String {
    let hashes: Vec<&str> = settled.iter().map(|one| one.identity.as_str()).collect();
    hashes.join(",")
}

/// Merges all of them into a base in memory, which then is another one.
///
/// # Errors
///
/// As [`read_adapter`] and [`merge_into_base`]; [`JobError::Data`] for a file that was changed since it
/// was opened.
pub(super) fn merge(settled: &[Settled], base: &mut Base) -> Result<(), JobError> {
    for one in settled {
        let read = read_adapter(&one.file, base)?;
        if read.tensors_sha256 != one.tensors_sha256 {
            let changed = one.file.display();
            return Err(JobError::data(format!("`{changed}` was changed while it was in use")));
        }
        merge_into_base(base, &read.adapter, DOSE)?;
    }
    base.hashes.extend(parts(settled));
    Ok(())
}

/// Says which runs were settled in another base than the one that they are merged into, and which files
/// were better named by their run.
pub(super) fn warn(settled: &[Settled], files: &BTreeMap<String, String>, terminal: &Terminal) {
    for (place, one) in settled.iter().enumerate() {
        let here = base_sha256(files, &settled[..place]);
        if one.base_sha256.as_ref().is_some_and(|there| *there != here) {
            terminal.warn(&format!(
                "run `{}` was settled in another base, or on top of others, than it is merged into \
                 here: expected in `settled`, before it, what its own recipe names there",
                one.path.display()
            ));
        }
        let run =
            one.path.parent().filter(|run| one.path.is_file() && RunFolder::open(run).is_ok());
        if let Some(run) = run {
            terminal.warn(&format!(
                "`{}` is what run `{}` wrote for other programs, perhaps rounded: name the run itself, \
                 so that comparisons know what lies on what",
                one.path.display(),
                run.display()
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
            identity: tensors_sha256.to_owned(),
            base_sha256: None,
        }
    }

    #[test]
    fn the_hash_of_a_base_tells_what_was_settled_and_in_which_order() {
        let files = BTreeMap::from([("unet".to_owned(), "root".to_owned())]);
        let of = |hashes: &[&str]| {
            let settled: Vec<Settled> = hashes.iter().map(|hash| one(hash)).collect();
            base_sha256(&files, &settled)
        };
        assert_eq!(of(&[]), combined_sha256([("unet", "root")]));
        assert_eq!(of(&["a"]), combined_sha256([("unet", "root"), ("settled/0", "a")]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_eq!(identities(&[one("a"), one("b")]), "a,b");
    }

    /// Two PEFT adapters of the same tensors, whose configuration gives another alpha.
    #[test]
    fn alphas_that_stand_beside_the_tensors_are_part_of_an_adapters_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter_model.safetensors");
        let of = |names: &[&str], alpha: &str| {
            let tensor = checkpoints::HostTensor::from_f32([1, 1], vec![1.0]);
            let tensors = names.iter().map(|name| ((*name).to_owned(), tensor.clone())).collect();
            checkpoints::write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
            let config = format!("{{\"lora_alpha\": {alpha}}}");
            let beside = dir.path().join(PEFT_CONFIG);
            checkpoints::fs::atomic_write(&beside, config.as_bytes()).unwrap();
            let file = TensorFile::open(&path).unwrap();
            identity(&file, &file.tensors_sha256()).unwrap()
        };
        assert_ne!(of(&["unet.a.lora_A.weight"], "8"), of(&["unet.a.lora_A.weight"], "16"));
        // Where alpha is a tensor, nothing beside the file counts.
        let kohya = ["lora_unet_a.alpha", "lora_unet_a.lora_down.weight"];
        assert_eq!(of(&kohya, "8"), of(&kohya, "16"));
    }

    #[test]
    fn what_came_before_is_told_in_its_order() {
        assert_eq!(words(&[]), None);
        let paths = ["runs/a", "b.safetensors"].map(PathBuf::from);
        assert_eq!(words(&paths).unwrap(), "`runs/a`, then `b.safetensors`");
    }
}
