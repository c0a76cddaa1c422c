//! Adapter files that verbs read and write: for which base one is, and what is checked before a new
//! one appears.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::adapter_metadata::{self, BaseModel, Rewritten};
use checkpoints::fs::{Fs, StdFs};
use checkpoints::key_map::KeyMap;
use checkpoints::readers::{self, ModelKeys, Reader, Verdict};
use checkpoints::{
    Dtype, Family, FileHashes, HeaderLimit, ModelFiles, ModelOptions, Predicts, TensorFile,
    TensorMap,
};
use models::adapter::{
    self, ADAPTER_METADATA, Adapter, AdapterForm, Exchanged, Layer, PEFT_CONFIG, PEFT_FILE,
};
use models::skeleton;
use models::unet::UNetConfig;
use recipes::{AdapterDtype, WeightsSource};
use serde_json::Value;

use crate::args::{DtypeName, FormName};
use crate::error::JobError;
use crate::stage;

/// The layers of a base under their names in adapter files.
#[derive(Debug)]
pub(crate) struct Table {
    layers: Vec<Layer>,
    map: KeyMap,
    base_model: BaseModel,
}

impl Table {
    /// The table for an adapter file: that of the base if one is given, else that of the family which
    /// its keys tell.
    ///
    /// # Errors
    ///
    /// A base that cannot be read; an adapter whose family its keys leave open.
    pub(crate) fn of(path: &Path, base: Option<&WeightsSource>) -> Result<Self, JobError> {
        let file = TensorFile::open_within(path, HeaderLimit::Adapter)?;
        let stated = BaseModel::stated(file.metadata());
        if let Some(base) = base {
            let files = stage::open_weights(base, ModelOptions::default())?;
            return Self::of_base(&files, stated);
        }
        let family = adapter::adapter_family(&file).ok_or_else(|| JobError::Usage {
            message: format!(
                "`{}` is of a family that its keys do not tell: expected one of {}",
                path.display(),
                Family::ALL.map(Family::title).join(", ")
            ),
            hint: Some(
                "name the base it was made for (`--base`; of `merge` without one `--made-for`)"
                    .to_owned(),
            ),
        })?;
        let stated = stated.filter(|stated| stated.family() == family);
        let base_model = stated.unwrap_or(BaseModel::of(family, Predicts::Epsilon));
        Self::new(skeleton::family_layers(family)?, base_model)
    }

    /// The table of a base; `stated` is what an adapter's header says, where the base itself does not
    /// say what it predicts.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be read.
    pub(crate) fn of_base(files: &ModelFiles, stated: Option<BaseModel>) -> Result<Self, JobError> {
        let family = files.family();
        // Weights of SD 2.x in a single file do not say it.
        let of_files = files.scheduler().ok().map(|scheduler| {
            let is_v = scheduler.get("prediction_type").is_some_and(|kind| kind == "v_prediction");
            BaseModel::of(family, if is_v { Predicts::V } else { Predicts::Epsilon })
        });
        let stated = stated.filter(|stated| stated.family() == family);
        let base_model = of_files.or(stated).unwrap_or(BaseModel::of(family, Predicts::Epsilon));
        Self::new(skeleton::file_layers(files)?, base_model)
    }

    fn new(
        (layers, unet): (Vec<Layer>, UNetConfig),
        base_model: BaseModel,
    ) -> Result<Self, JobError> {
        let map = adapter::key_map(&layers, &unet)?;
        Ok(Self { layers, map, base_model })
    }

    /// Title of the family.
    pub(crate) const fn title(&self) -> &'static str {
        self.base_model.family().title()
    }

    /// Reads an adapter of this base, in any form.
    pub(crate) fn read(&self, path: &Path) -> Result<Exchanged, JobError> {
        Ok(adapter::adapter_from_file(path, &self.layers, &self.map)?)
    }

    /// Whether the patterns choose a convolution of more than one value.
    ///
    /// # Errors
    ///
    /// A pattern that means no layer.
    pub(crate) fn chooses_convolutions(&self, patterns: &[String]) -> Result<bool, JobError> {
        Ok(adapter::select(&self.layers, patterns)?.iter().any(Layer::is_spatial))
    }

    /// The layers as other programs name them.
    pub(crate) fn model_keys(&self) -> ModelKeys {
        ModelKeys::new(
            self.layers.iter().map(|layer| (layer.path.as_str(), layer.weight.as_slice())),
        )
    }
}

/// The file of an adapter: of a folder the one that PEFT keeps there.
pub(crate) fn file_of(path: &Path) -> PathBuf {
    let inside = path.join(PEFT_FILE);
    if inside.is_file() { inside } else { path.to_owned() }
}

/// The form that a name means.
pub(crate) const fn form(name: FormName) -> AdapterForm {
    match name {
        FormName::Kohya => AdapterForm::Kohya,
        FormName::Diffusers => AdapterForm::Diffusers,
        FormName::Peft => AdapterForm::Peft,
    }
}

/// The type in which factors are written: the one asked for, or the one in which all of the files
/// store theirs; f32 where they differ.
///
/// # Errors
///
/// A file that cannot be read.
pub(crate) fn dtype(asked: DtypeName, sources: &[&Path]) -> Result<AdapterDtype, JobError> {
    match asked {
        DtypeName::F32 => return Ok(AdapterDtype::F32),
        DtypeName::F16 => return Ok(AdapterDtype::F16),
        DtypeName::Bf16 => return Ok(AdapterDtype::Bf16),
        DtypeName::AsStored => {}
    }
    let mut found = Vec::new();
    for path in sources {
        let file = TensorFile::open_within(path, HeaderLimit::Adapter)?;
        let factors = file.names().filter(|name| name.strip_suffix(".alpha").is_none());
        found.extend(factors.filter_map(|name| file.info(name)).map(|info| info.dtype));
    }
    Ok(if !found.is_empty() && found.iter().all(|dtype| *dtype == Dtype::F16) {
        AdapterDtype::F16
    } else if !found.is_empty() && found.iter().all(|dtype| *dtype == Dtype::Bf16) {
        AdapterDtype::Bf16
    } else {
        AdapterDtype::F32
    })
}

/// The name of a type.
pub(crate) const fn dtype_name(dtype: AdapterDtype) -> &'static str {
    match dtype {
        AdapterDtype::F32 => "f32",
        AdapterDtype::F16 => "f16",
        AdapterDtype::Bf16 => "bf16",
    }
}

/// An adapter file to be.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    /// The base it is for.
    pub(crate) table: &'a Table,
    /// What it holds.
    pub(crate) adapter: &'a Adapter,
    /// Whose names it uses.
    pub(crate) form: AdapterForm,
    /// Type of the factors.
    pub(crate) dtype: AdapterDtype,
    /// Header of the file that it was made from; empty if there is none.
    pub(crate) source: BTreeMap<String, String>,
    /// Names of several files that became one.
    pub(crate) merged_from: Option<String>,
}

/// A file that was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// Its identity.
    pub(crate) hashes: FileHashes,
    /// What its readers will make of it other than what is meant, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Tensors and what stands beside them.
struct Content {
    tensors: TensorMap,
    header: Option<String>,
    config: Option<Value>,
}

impl NewFile<'_> {
    /// Writes the file, reads it back, compares its effect with what was to be written, and only then
    /// gives it its name. For PEFT `out` is a folder.
    ///
    /// # Errors
    ///
    /// Values beyond the type's range; an effect that differs by more than rounding; a folder that is
    /// not empty. Nothing is left behind then.
    pub(crate) fn write(&self, out: &Path) -> Result<Written, JobError> {
        if self.form == AdapterForm::Peft {
            require_no_folder(out)?;
        } else if out.is_dir() {
            return Err(JobError::usage(format!(
                "`--out` must be a file to write, found the folder `{}`",
                out.display()
            )));
        }
        let content = self.content()?;
        let staged = Staged::beside(out)?;
        let inside = staged.dir.join(PEFT_FILE);
        let metadata = self.metadata(out, &content);
        let hashes = checkpoints::write_tensors(&inside, &content.tensors, &metadata)?;
        if let Some(config) = &content.config {
            checkpoints::fs::atomic_write_json(&staged.dir.join(PEFT_CONFIG), config)?;
        }
        self.check(&inside, out)?;
        let warnings = self.warnings(&inside)?;
        match self.form {
            AdapterForm::Peft => staged.become_folder(out)?,
            AdapterForm::Kohya | AdapterForm::Diffusers => staged.become_file(PEFT_FILE, out)?,
        }
        Ok(Written { hashes, warnings })
    }

    fn content(&self) -> Result<Content, JobError> {
        let map = &self.table.map;
        let adapter = match self.dtype {
            AdapterDtype::F16 => Cow::Owned(adapter::balanced(self.adapter, self.form)),
            AdapterDtype::F32 | AdapterDtype::Bf16 => Cow::Borrowed(self.adapter),
        };
        let (tensors, header, config) = match self.form {
            AdapterForm::Kohya => (adapter::kohya_tensors(&adapter, map, self.dtype)?, None, None),
            AdapterForm::Diffusers => {
                let (tensors, header) = adapter::diffusers_tensors(&adapter, map, self.dtype)?;
                (tensors, Some(header), None)
            }
            AdapterForm::Peft => {
                let (tensors, config) = adapter::peft_tensors(&adapter, map, self.dtype)?;
                (tensors, None, Some(config))
            }
        };
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !tensor.all_finite()) {
            return Err(JobError::Data {
                message: format!(
                    "`{name}` would hold an infinite value in {}, whose range is too small for it",
                    dtype_name(self.dtype)
                ),
                hint: Some("`--dtype bf16` and `--dtype f32` have a larger one".to_owned()),
            });
        }
        Ok(Content { tensors, header, config })
    }

    fn metadata(&self, out: &Path, content: &Content) -> BTreeMap<String, String> {
        let stored = content.tensors.iter();
        let alphas: Vec<_> =
            stored.filter(|(key, _)| key.strip_suffix(".alpha").is_some()).collect();
        let of_unet = alphas.iter().find(|(key, _)| key.starts_with("lora_unet_"));
        let alpha = of_unet.or(alphas.first());
        let rank = commonest_rank(self.adapter);
        let facts = Rewritten {
            base_model: self.table.base_model,
            rank,
            alpha: alpha.map_or(f64::from(rank), |(_, alpha)| f64::from(alpha.f32()[0])),
            name: &out.file_stem().unwrap_or_default().to_string_lossy(),
            tensors_sha256: &checkpoints::tensors_sha256(&content.tensors),
            version: env!("CARGO_PKG_VERSION"),
            merged_from: self.merged_from.clone(),
        };
        let mut metadata = adapter_metadata::rewritten(&self.source, &facts);
        metadata.extend(content.header.clone().map(|text| (ADAPTER_METADATA.to_owned(), text)));
        metadata
    }

    fn check(&self, path: &Path, out: &Path) -> Result<(), JobError> {
        let found = self.table.read(path)?.adapter;
        let differences = adapter::differences(&found, self.adapter, tolerance(self.dtype));
        let Some(first) = differences.first() else { return Ok(()) };
        Err(JobError::Data {
            message: format!(
                "`{}` would not hold the adapter in {}: {} of {} modules differ by more than \
                 rounding, {first}",
                out.display(),
                dtype_name(self.dtype),
                differences.len(),
                self.adapter.modules.len()
            ),
            hint: Some("`--dtype f32` keeps every digit".to_owned()),
        })
    }

    /// What the readers of the form make of the file, where it is not what is meant.
    fn warnings(&self, path: &Path) -> Result<Vec<String>, JobError> {
        let readers: &[Reader] = match self.form {
            AdapterForm::Kohya => &Reader::ALL,
            // The others read this form in part at best.
            AdapterForm::Diffusers => &[Reader::Diffusers],
            AdapterForm::Peft => &[],
        };
        let file = TensorFile::open_within(path, HeaderLimit::Adapter)?;
        let model = self.table.model_keys();
        let mut warnings = Vec::new();
        for reader in readers {
            let report = readers::report(&file, &model, *reader)?;
            let name = reader.name();
            match &report.verdict {
                Verdict::Applied => {}
                Verdict::Refused(reason) => {
                    warnings.push(format!("{name} will refuse it: {reason}"));
                }
                Verdict::Partly | Verdict::Otherwise => {
                    warnings.extend(report.unknown.first().map(|key| {
                        let n = counted(report.unknown.len(), "key");
                        format!("{name} will skip {n}, `{key}` among them")
                    }));
                    warnings.extend(report.notes.iter().map(|note| format!("{name}: {note}")));
                }
            }
        }
        Ok(warnings)
    }
}

/// Largest relative difference of an effect that rounding of both factors can explain.
const fn tolerance(dtype: AdapterDtype) -> f64 {
    match dtype {
        AdapterDtype::F32 => 1e-5,
        AdapterDtype::F16 => 2e-3,
        AdapterDtype::Bf16 => 1.6e-2,
    }
}

/// The rank of most modules, of the UNet if it has any; the largest of several.
fn commonest_rank(adapter: &Adapter) -> u32 {
    let is_unet = |path: &String| path.starts_with("unet.");
    let all = !adapter.modules.keys().any(is_unet);
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for (_, factors) in adapter.modules.iter().filter(|(path, _)| all || is_unet(path)) {
        *counts.entry(factors.rank()).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.and_then(|(rank, _)| u32::try_from(rank).ok()).unwrap_or(0)
}

/// A folder for what is not finished, beside what it will become; removed unless it becomes it.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Where to write.
    pub(crate) dir: PathBuf,
}

impl Staged {
    /// Makes the folder; what an earlier program left under its name is removed.
    ///
    /// # Errors
    ///
    /// [`JobError::Usage`] for a path without a name of its own; what the system reports.
    pub(crate) fn beside(out: &Path) -> Result<Self, JobError> {
        let Some(name) = out.file_name() else {
            let found = out.display();
            return Err(JobError::usage(format!(
                "`--out` must name what to write, found `{found}`"
            )));
        };
        let (name, process) = (name.to_string_lossy(), std::process::id());
        let dir = out.with_file_name(format!(".{name}.unfinished-{process}"));
        if dir.is_dir() {
            StdFs.remove_dir_all(&dir).map_err(checkpoints::CheckpointError::from)?;
        }
        checkpoints::fs::create_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    ///
    /// What the system reports; a folder that is no longer empty.
    pub(crate) fn become_folder(self, out: &Path) -> Result<(), JobError> {
        // Renaming does not replace an empty folder on every system.
        if out.is_dir() {
            checkpoints::fs::remove_empty_dir(out)?;
        }
        rename(&self.dir, out)
    }

    /// Gives a file of the folder, by its name there, its own name; the rest is removed.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub(crate) fn become_file(self, inside: &str, out: &Path) -> Result<(), JobError> {
        rename(&self.dir.join(inside), out)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.dir.is_dir() {
            // What cannot be removed is hidden by its name and in nobody's way.
            let _ = StdFs.remove_dir_all(&self.dir);
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), JobError> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let renamed =
        StdFs.rename(from, to).and_then(|()| StdFs.fsync_dir(folder.unwrap_or(Path::new("."))));
    Ok(renamed.map_err(checkpoints::CheckpointError::from)?)
}

/// Refuses a folder that holds anything: what is written there would be mixed with it.
///
/// # Errors
///
/// [`JobError::Usage`].
pub(crate) fn require_no_folder(out: &Path) -> Result<(), JobError> {
    let is_free = !out.exists() || (out.is_dir() && checkpoints::fs::list(out)?.is_empty());
    if is_free {
        return Ok(());
    }
    Err(JobError::Usage {
        message: format!("`--out` must be a new folder or an empty one, found `{}`", out.display()),
        hint: Some("nothing is overwritten; remove it or choose another name".to_owned()),
    })
}

/// A count with its noun: `1 module`, `2 modules`.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A share in per cent.
pub(crate) fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.2} %", 100.0 * part / whole) } else { "nothing".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_appeared_meanwhile_is_removed_and_nothing_old_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new");
        let staged = Staged::beside(&out).unwrap();
        checkpoints::fs::atomic_write(&staged.dir.join("old"), b"1").unwrap();
        std::mem::forget(staged);
        let staged = Staged::beside(&out).unwrap();
        assert!(checkpoints::fs::list(&staged.dir).unwrap().is_empty());
        checkpoints::fs::atomic_write(&out.join("theirs"), b"2").unwrap();
        assert!(staged.become_folder(&out).is_err());
        assert_eq!(checkpoints::fs::list(folder.path()).unwrap(), [&*out]);
        assert_eq!(checkpoints::fs::read(&out.join("theirs")).unwrap(), b"2");
        for nameless in [".", "..", "/"] {
            assert!(matches!(Staged::beside(Path::new(nameless)), Err(JobError::Usage { .. })));
        }
    }

    #[test]
    fn the_rank_is_that_of_the_unet_where_there_is_one() {
        let factors = |rank| {
            let tensor =
                |shape: [usize; 2]| checkpoints::HostTensor::from_f32(shape, vec![1.0; rank]);
            adapter::Factors { down: tensor([rank, 1]), up: tensor([1, rank]), alpha: 1.0 }
        };
        let mut adapter = Adapter::default();
        for (path, rank) in [("text_encoder.a", 2), ("text_encoder.b", 2), ("unet.a", 4)] {
            adapter.modules.insert(path.to_owned(), factors(rank));
        }
        assert_eq!(commonest_rank(&adapter), 4);
        adapter.modules.remove("unet.a");
        assert_eq!(commonest_rank(&adapter), 2);
    }

    #[test]
    fn what_is_not_finished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new");
        let staged = Staged::beside(&out).unwrap();
        checkpoints::fs::atomic_write(&staged.dir.join("a"), b"1").unwrap();
        drop(staged);
        assert!(checkpoints::fs::list(folder.path()).unwrap().is_empty());
        let staged = Staged::beside(&out).unwrap();
        checkpoints::fs::atomic_write(&staged.dir.join("a"), b"1").unwrap();
        staged.become_folder(&out).unwrap();
        assert_eq!(checkpoints::fs::list(folder.path()).unwrap(), [&*out]);
        assert!(require_no_folder(&out).is_err());
        let file = folder.path().join("file");
        let staged = Staged::beside(&file).unwrap();
        checkpoints::fs::atomic_write(&staged.dir.join("a"), b"2").unwrap();
        staged.become_file("a", &file).unwrap();
        assert_eq!(checkpoints::fs::read(&file).unwrap(), b"2");
        assert_eq!(checkpoints::fs::list(folder.path()).unwrap().len(), 2);
    }
}
