//! Who draws and who looks: the base with its adapters, the method, the evaluator, and what a picture
//! follows from.

use checkpoints::ModelFiles;
use checkpoints::hash::{bytes_sha256, combined_sha256};
use eval::sample::{sampler_kind, settled};
use models::base::load_with;
use models::{Base, Evaluator, ModelError, SizeConditions};
use recipes::BasePrecision;
use recipes::draws;
use recipes::series::{Picture, SeriesFile};
use serde::Serialize;
use serde_json::{Value, json};

use crate::device::ChosenDevice;
use crate::drawing::{Method, Tiles};
use crate::error::JobError;
use crate::stage;

/// Program and version.
const TOOL: &str = concat!("populate ", env!("CARGO_PKG_VERSION"));

/// Networks and method of one series file.
#[derive(Debug)]
pub(super) struct Studio {
    /// The base, adapters attached.
    pub(super) base: Base,
    /// How pictures are drawn.
    pub(super) method: Method,
    /// Who looks at them; nothing if the base brings no evaluator and the file names none.
    pub(super) evaluator: Option<Evaluator>,
    /// What all pictures have in common.
    pub(super) provenance: Provenance,
}

/// What all pictures of a series file have in common: all that determines them beside instruction and
/// seed, and who looked at them. Names of files, no paths: pictures are given away.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Provenance {
    /// Program and version.
    pub(super) tool: String,
    /// Scheme of the random draws.
    pub(super) draws: String,
    /// Name of the base.
    pub(super) base: String,
    /// One hash of its weights, with the options that change them.
    pub(super) base_sha256: String,
    /// Number format in which the UNet was computed.
    pub(super) precision: String,
    /// Layer of the text encoder that was read, counted from its end.
    pub(super) clip_skip: usize,
    /// The adapters in the order in which they were attached.
    pub(super) adapters: Vec<Attached>,
    /// The sampler, as the file has it.
    pub(super) sampler: Value,
    /// Guidance weight w.
    pub(super) guidance_scale: f64,
    /// Share by which guided outputs got back the contrast of unguided ones.
    pub(super) guidance_rescale: f64,
    /// What was not to be drawn.
    pub(super) negative_prompt: String,
    /// Side of the pictures.
    pub(super) side_px: u32,
    /// SHA-256 of the evaluator's tensors; null without one.
    pub(super) evaluator_sha256: Option<String>,
}

/// An adapter in use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Attached {
    /// Name of its file, without its ending.
    pub(super) name: String,
    /// Its dose.
    pub(super) dose: f64,
    /// SHA-256 of its tensors.
    pub(super) tensors_sha256: String,
}

impl Studio {
    /// Opens and loads what a series file names.
    ///
    /// # Errors
    ///
    /// Files that are missing or are no base, adapter or evaluator; an evaluator that shares tensors
    /// with the base; a precision that the device lacks; a size that the base cannot draw.
    pub(super) fn open(
        file: &SeriesFile,
        batch: Option<u32>,
        device: &ChosenDevice,
    ) -> Result<Self, JobError> {
        let files = stage::base_files(&file.base)?;
        let model = file.base.model();
        let asked = model.map_or(BasePrecision::F32, |model| model.precision);
        let precision = stage::precision_on(device, asked)?;
        let mut base = load_with(&files, &device.device, precision)?;
        base.clip_skip = model.map_or(1, |model| model.clip_skip as usize);
        let evaluator = evaluator(file, &files, &base, device)?;
        let mut adapters = Vec::new();
        for adapter in &file.adapters {
            let exchanged = stage::read_adapter(&adapter.file, &base)?;
            base = settled(&base, &exchanged.adapter, adapter.dose)?;
            let stem = adapter.file.file_stem().unwrap_or_default();
            adapters.push(Attached {
                name: stem.to_string_lossy().into_owned(),
                dose: adapter.dose,
                tensors_sha256: exchanged.tensors_sha256,
            });
        }
        let method = method(file, batch, &base)?;
        let provenance = provenance(file, &files.name(), &base, adapters);
        let evaluator_sha256 = evaluator.as_ref().map(|evaluator| evaluator.sha256().to_owned());
        let provenance = Provenance { evaluator_sha256, ..provenance };
        Ok(Self { base, method, evaluator, provenance })
    }

    /// Refuses instructions that the text encoders do not read to their end.
    ///
    /// # Errors
    ///
    /// [`JobError::Usage`] with the first such instruction.
    pub(super) fn check_instructions(&self, file: &SeriesFile) -> Result<(), JobError> {
        let pictures = file.series.iter().flat_map(|series| &series.pictures);
        let instructions = pictures.map(|picture| picture.instruction.as_str());
        for instruction in instructions.chain([file.negative.as_str()]) {
            match self.base.check_prompt(instruction) {
                Ok(()) => {}
                Err(error @ ModelError::PromptTooLong { .. }) => {
                    return Err(JobError::Usage { message: error.to_string(), hint: error.hint() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Provenance {
    /// One hash of all that a picture follows from: equal hashes, equal pictures. Names are left out,
    /// since the hashes of what they name speak for it, and so is the evaluator, which draws nothing.
    pub(super) fn identity_sha256(&self, picture: &Picture) -> String {
        let adapters: Vec<Value> = self
            .adapters
            .iter()
            .map(|adapter| json!([adapter.tensors_sha256, adapter.dose]))
            .collect();
        // Lists keep their order whatever map type the program was built with.
        let all = json!([
            [self.tool, self.draws, self.base_sha256, self.precision, self.clip_skip],
            adapters,
            [self.sampler, self.guidance_scale, self.guidance_rescale, self.side_px],
            [self.negative_prompt, picture.instruction, picture.seed],
        ]);
        bytes_sha256(all.to_string().as_bytes())
    }
}

/// The evaluator that the file names, or the one that the base brings, if it brings one.
fn evaluator(
    file: &SeriesFile,
    files: &ModelFiles,
    base: &Base,
    device: &ChosenDevice,
) -> Result<Option<Evaluator>, JobError> {
    let brought = || Some(files.evaluator_dir()).filter(|folder| folder.is_dir());
    let Some(folder) = file.evaluator.clone().or_else(brought) else { return Ok(None) };
    let evaluator = Evaluator::load(&folder, &device.device)?;
    eval::check_independence(&evaluator, base)?;
    Ok(Some(evaluator))
}

fn method(file: &SeriesFile, batch: Option<u32>, base: &Base) -> Result<Method, JobError> {
    let size_px = [file.side_px as usize; 2];
    Ok(Method {
        sampler: sampler_kind(&file.sampler),
        spacing: file.sampler.spacing,
        steps: file.sampler.steps as usize,
        guidance_scale: file.guidance_scale,
        guidance_rescale: file.guidance_rescale,
        strength: 1.0,
        sizes: SizeConditions::whole(size_px),
        latent_shape: base.latent_shape(size_px)?,
        tiles: Tiles::Auto,
        batch: batch.map(|batch| batch as usize),
    })
}

fn provenance(file: &SeriesFile, name: &str, base: &Base, adapters: Vec<Attached>) -> Provenance {
    let hashes = base.hashes.iter().map(|(name, hash)| (name.as_str(), hash.as_str()));
    Provenance {
        tool: TOOL.to_owned(),
        draws: format!("populate/rng/{}", draws::SCHEME),
        base: name.to_owned(),
        base_sha256: combined_sha256(hashes),
        precision: base.precision.name().to_owned(),
        clip_skip: base.clip_skip,
        adapters,
        sampler: json!(file.sampler),
        guidance_scale: file.guidance_scale,
        guidance_rescale: file.guidance_rescale,
        negative_prompt: file.negative.clone(),
        side_px: file.side_px,
        evaluator_sha256: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    impl Provenance {
        /// What pictures of an imagined base have in common.
        pub(crate) fn imagined() -> Self {
            Self {
                tool: TOOL.to_owned(),
                draws: "populate/rng/1".to_owned(),
                base: "imagined".to_owned(),
                base_sha256: "0".repeat(64),
                precision: "f32".to_owned(),
                clip_skip: 1,
                adapters: Vec::new(),
                sampler: json!({ "euler": { "steps": 3 } }),
                guidance_scale: 3.0,
                guidance_rescale: 0.0,
                negative_prompt: String::new(),
                side_px: 64,
                evaluator_sha256: None,
            }
        }
    }

    fn imagined() -> Provenance {
        Provenance::imagined()
    }

    fn picture(instruction: &str, seed: u64) -> Picture {
        Picture { instruction: instruction.to_owned(), slots: BTreeMap::new(), seed }
    }

    #[test]
    fn whatever_changes_a_picture_changes_its_identity() {
        let boat = picture("a boat", 1);
        let same = imagined().identity_sha256(&boat);
        let adapter =
            |dose| Attached { name: "ink".to_owned(), dose, tensors_sha256: "1".repeat(64) };
        let others = [
            Provenance { base_sha256: "2".repeat(64), ..imagined() },
            Provenance { precision: "bf16".to_owned(), ..imagined() },
            Provenance { clip_skip: 2, ..imagined() },
            Provenance { adapters: vec![adapter(1.0)], ..imagined() },
            Provenance { adapters: vec![adapter(0.5)], ..imagined() },
            Provenance { sampler: json!({ "euler": { "steps": 4 } }), ..imagined() },
            Provenance { guidance_scale: 2.0, ..imagined() },
            Provenance { guidance_rescale: 0.7, ..imagined() },
            Provenance { negative_prompt: "a person".to_owned(), ..imagined() },
            Provenance { side_px: 128, ..imagined() },
            Provenance { tool: "populate 0".to_owned(), ..imagined() },
        ];
        let mut identities: Vec<String> =
            others.iter().map(|other| other.identity_sha256(&boat)).collect();
        identities.push(imagined().identity_sha256(&picture("a boat", 2)));
        identities.push(imagined().identity_sha256(&picture("a tower", 1)));
        identities.push(same.clone());
        let n_identities = identities.len();
        identities.sort();
        identities.dedup();
        assert_eq!(identities.len(), n_identities);
        let renamed = Provenance {
            base: "another".to_owned(),
            evaluator_sha256: Some("3".repeat(64)),
            ..imagined()
        };
        assert_eq!(renamed.identity_sha256(&boat), same, "names and evaluators draw nothing");
    }
}
