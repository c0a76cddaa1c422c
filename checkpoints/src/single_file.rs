//! Single-file checkpoints: a whole base in one safetensors file, in the names of ldm and sgm.
//!
//! Owns what stands where in such a file. Every name is looked up in a table that is built from the structure of the
//! networks; every stored tensor is used, known to be no weight, or reported.

mod kinds;
mod listing;
mod names;
mod scheduler;
mod text;
mod unet;
mod vae;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::CheckpointError;
use crate::family::Family;
use crate::folder::ComponentFiles;
use crate::model::{ModelOptions, Predicts, WhichWeights};
use crate::problem::WeightsProblem;
use crate::safetensors::TensorFile;
use crate::weights::{View, Wanted, Weights};
use kinds::Refused;
use names::Names;
pub(crate) use scheduler::released as released_scheduler;
use unet::UNetPlan;

/// What a base is, in messages.
const EXPECTED: &str = "a checkpoint of Stable Diffusion 1.x, 2.x or XL for text to image";

/// A checkpoint whose every tensor was accounted for.
#[derive(Debug)]
pub(crate) struct SingleFile {
    file: Arc<TensorFile>,
    family: Family,
    parts: BTreeMap<&'static str, Part>,
    /// What a marker in the file, or the family, says about its output.
    predicts: Option<Predicts>,
    /// Whether a marker says that its last step is pure noise.
    zero_terminal_snr: bool,
}

/// Configuration and weights of one component.
#[derive(Debug)]
struct Part {
    config: Value,
    weights: Weights,
}

/// Where the VAE comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VaeFrom {
    File,
    Elsewhere,
}

impl SingleFile {
    /// Opens a checkpoint: says what it is, derives the configuration of its networks from shapes, and accounts for every
    /// tensor. No weight is read.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::open`]; [`CheckpointError::Model`] for another kind of model, or not all of one;
    /// [`WeightsProblem::Incomplete`], [`WeightsProblem::Shape`] and [`WeightsProblem::Unknown`].
    pub(crate) fn open(path: &Path, options: &ModelOptions) -> Result<Self, CheckpointError> {
        let file = Arc::new(TensorFile::open(path)?);
        let names = Names::of(&file);
        let refused = |refused: Refused| refuse(path, &refused);
        kinds::check(&names).map_err(refused)?;
        let network = network(&names, options.which).map_err(refused)?;
        let (family, encoders) = kinds::family(&names, &network).map_err(refused)?;
        let vae_from = if options.vae.is_some() { VaeFrom::Elsewhere } else { VaeFrom::File };
        let mut assembly =
            Assembly { file: &file, names, used: BTreeSet::new(), parts: BTreeMap::new() };
        let pooled_width = assembly.add_encoders(family, &encoders)?;
        assembly.add_unet(family, &network, options.which, pooled_width)?;
        assembly.add_vae(family, vae_from)?;
        assembly.check_rest(family, &encoders)?;
        let (has_v, zero_terminal_snr) = (names.has("v_pred"), names.has("ztsnr"));
        let of_family = match family {
            Family::Sd2 => None,
            Family::Postcards | Family::Sd1 | Family::Sdxl => Some(Predicts::Epsilon),
        };
        let predicts = if has_v { Some(Predicts::V) } else { of_family };
        let parts = assembly.parts;
        Ok(Self { file: Arc::clone(&file), family, parts, predicts, zero_terminal_snr })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// sha256 of the file.
    pub(crate) fn sha256(&self) -> String {
        self.file.file_sha256()
    }

    pub(crate) const fn family(&self) -> Family {
        self.family
    }

    /// What the network predicts, if the file tells.
    pub(crate) const fn predicts(&self) -> Option<Predicts> {
        self.predicts
    }

    /// Whether a marker asks for zero terminal SNR.
    pub(crate) const fn zero_terminal_snr(&self) -> bool {
        self.zero_terminal_snr
    }

    /// Configuration and weights of a component; `None` if there is none of that name.
    pub(crate) fn component(&self, name: &str) -> Option<ComponentFiles> {
        let part = self.parts.get(name)?;
        Some(ComponentFiles {
            dir: self.path().to_owned(),
            config: part.config.clone(),
            config_path: self.path().to_owned(),
            weights: part.weights.clone(),
        })
    }
}

/// Opens a file that holds a VAE alone, in the names of diffusers or of ldm. `like` is the configuration of a VAE of the
/// same family, from which comes what shapes do not tell.
///
/// # Errors
///
/// As [`SingleFile::open`].
pub(crate) fn standalone_vae(path: &Path, like: &Value) -> Result<ComponentFiles, CheckpointError> {
    let file = Arc::new(TensorFile::open(path)?);
    let names = Names::of(&file);
    let wrong = |found: &str| CheckpointError::model(path, "a VAE (`AutoencoderKL`)", found, None);
    let place = vae::Place::find(&names, &vae::OWN_PREFIXES)
        .ok_or_else(|| wrong("no encoder in the names of diffusers or ldm"))?;
    let plan = place.plan(&names).map_err(|found| wrong(&found))?;
    let wanted = place.wanted(&names, &plan);
    check_complete(&file, "vae", &wanted)?;
    let used: BTreeSet<&str> = wanted.iter().map(|part| part.stored.as_str()).collect();
    let only_training = |name: &str| name.starts_with("loss.") || name == "decay";
    let unknown = names.all().filter(|name| {
        !used.contains(names.stored(name).as_str())
            && !names::is_no_weight(name)
            && !only_training(name)
    });
    report_unknown(path, "a VAE", unknown)?;
    let weights = Weights::of_part(&file, &wanted)?;
    let (dir, config_path) = (path.to_owned(), path.to_owned());
    Ok(ComponentFiles { dir, config: plan.config(like), config_path, weights })
}

/// The plan of the network, or of its moving average.
fn network(names: &Names<'_>, which: WhichWeights) -> Result<UNetPlan, Refused> {
    let has_average = names.has(&unet_name("input_blocks.0.0.weight", WhichWeights::Average));
    if which == WhichWeights::Average && !has_average {
        return Err(Refused::new("no moving average of the weights (`model_ema.`)"));
    }
    let has_plain = names.has(&unet_name("input_blocks.0.0.weight", WhichWeights::Plain));
    if which == WhichWeights::Plain && has_average && !has_plain {
        let advice = Some("choose it: `weights_set: average`");
        return Err(Refused { advice, ..Refused::new("the moving average of a network alone") });
    }
    UNetPlan::derive(&|name| names.shape(&unet_name(name, which))).map_err(Refused::new)
}

/// The name in the file of a tensor of the network, given its ldm name.
fn unet_name(name: &str, which: WhichWeights) -> String {
    match which {
        WhichWeights::Plain => format!("{}{name}", unet::PREFIX),
        WhichWeights::Average => format!("{}{}", unet::AVERAGE_PREFIX, name.replace('.', "")),
    }
}

fn refuse(path: &Path, refused: &Refused) -> CheckpointError {
    CheckpointError::model(path, EXPECTED, &refused.found, refused.advice)
}

/// Components as they are put together.
struct Assembly<'a> {
    file: &'a Arc<TensorFile>,
    names: Names<'a>,
    /// Names of the file that belong to a component.
    used: BTreeSet<String>,
    parts: BTreeMap<&'static str, Part>,
}

impl Assembly<'_> {
    fn add(
        &mut self,
        component: &'static str,
        config: Value,
        wanted: &[Wanted],
    ) -> Result<(), CheckpointError> {
        check_complete(self.file, component, wanted)?;
        let weights = Weights::of_part(self.file, wanted)?;
        self.used.extend(wanted.iter().map(|part| part.stored.clone()));
        self.parts.insert(component, Part { config, weights });
        Ok(())
    }

    /// Adds the text encoders; gives the width of the pooled text of the last one.
    fn add_encoders(
        &mut self,
        family: Family,
        encoders: &[text::Place],
    ) -> Result<Option<usize>, CheckpointError> {
        let configs = family.text_encoder_configs();
        let mut pooled_width = None;
        for ((place, config), component) in
            encoders.iter().zip(configs).zip(["text_encoder", "text_encoder_2"])
        {
            let plan = self.text_plan(*place)?;
            let wanted = place.wanted(&self.names, &plan);
            self.add(component, plan.config(config), &wanted)?;
            pooled_width = plan.projection;
        }
        Ok(pooled_width)
    }

    fn text_plan(&self, place: text::Place) -> Result<text::TextPlan, CheckpointError> {
        place.plan(&self.names).map_err(|found| refuse(self.file.path(), &Refused::new(found)))
    }

    fn add_unet(
        &mut self,
        family: Family,
        plan: &UNetPlan,
        which: WhichWeights,
        pooled_width: Option<usize>,
    ) -> Result<(), CheckpointError> {
        let mut wanted = Vec::new();
        for (name, shape) in plan.tensors() {
            let Some(ldm) = plan.ldm_name(&name) else { continue };
            let stored = self.names.stored(&unet_name(&ldm, which));
            // Beside its average the network itself is known, too.
            self.used.insert(self.names.stored(&unet_name(&ldm, WhichWeights::Plain)));
            wanted.push(Wanted { name, stored, shape, view: View::Whole });
        }
        self.add("unet", plan.config(family, pooled_width), &wanted)
    }

    fn add_vae(&mut self, family: Family, from: VaeFrom) -> Result<(), CheckpointError> {
        if from == VaeFrom::Elsewhere {
            // Whole or not, what the file holds of a VAE is not read.
            let of_vae = |name: &&str| vae::PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            let stored: Vec<String> =
                self.names.all().filter(of_vae).map(|name| self.names.stored(name)).collect();
            self.used.extend(stored);
            return Ok(());
        }
        let Some(place) = vae::Place::find(&self.names, &vae::PREFIXES) else {
            return Err(CheckpointError::model(
                self.file.path(),
                "a VAE (`first_stage_model.` or `vae.`)",
                &format!("the network and text encoder of {} alone", family.title()),
                Some("name a VAE of its own below `vae` of the base"),
            ));
        };
        let plan = place
            .plan(&self.names)
            .map_err(|found| refuse(self.file.path(), &Refused::new(found)))?;
        let wanted = place.wanted(&self.names, &plan);
        let like = family.vae_config().unwrap_or_default();
        self.add("vae", plan.config(&like), &wanted)
    }

    /// Reports every tensor that is in no component and is not known to be left out.
    fn check_rest(&self, family: Family, encoders: &[text::Place]) -> Result<(), CheckpointError> {
        let mut plans = Vec::new();
        for place in encoders {
            plans.push((*place, self.text_plan(*place)?));
        }
        let is_dropped =
            |name: &str| plans.iter().any(|(place, plan)| place.is_dropped(plan, name));
        let unknown = self.names.all().filter(|name| {
            !self.used.contains(&self.names.stored(name))
                && !names::is_no_weight(name)
                && !is_dropped(name)
        });
        report_unknown(self.file.path(), family.title(), unknown)
    }
}

fn report_unknown<'a>(
    path: &Path,
    model: &'static str,
    unknown: impl Iterator<Item = &'a str>,
) -> Result<(), CheckpointError> {
    let names: Vec<String> = unknown.map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(CheckpointError::weights(path, WeightsProblem::Unknown { model, names }))
}

/// All stored tensors of a component must be there.
fn check_complete(
    file: &TensorFile,
    component: &str,
    wanted: &[Wanted],
) -> Result<(), CheckpointError> {
    let missing: BTreeSet<&str> = wanted
        .iter()
        .map(|part| part.stored.as_str())
        .filter(|stored| file.info(stored).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.into_iter().map(str::to_owned).collect();
    let problem = WeightsProblem::Incomplete { component: component.to_owned(), names };
    Err(CheckpointError::weights(file.path(), problem))
}

#[cfg(test)]
mod tests;
