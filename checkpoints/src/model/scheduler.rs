//! The noise schedule of a base as its files and the user's options say it.

use serde_json::{Map, Value, json};

use super::options::{ModelOptions, Predicts};
use crate::error::CheckpointError;
use crate::folder::{ModelFolder, not_a_model};
use crate::single_file::{SingleFile, released_scheduler};

/// From the folder of a base.
pub(super) const FILE: &str = "scheduler/scheduler_config.json";

/// The folder's own configuration with the options in place of what it says.
pub(super) fn of_folder(
    folder: &ModelFolder,
    options: &ModelOptions,
) -> Result<Value, CheckpointError> {
    let Value::Object(mut config) = folder.json(FILE)? else {
        return Err(not_a_model(
            folder.path(),
            &format!("an object in `{FILE}`"),
            "another JSON value",
        ));
    };
    set(&mut config, options.prediction, options.zero_terminal_snr);
    Ok(Value::Object(config))
}

/// The configuration of the released model of the file's family, with what its markers and the options say.
pub(super) fn of_file(file: &SingleFile, options: &ModelOptions) -> Result<Value, CheckpointError> {
    let predicts = options
        .prediction
        .or(file.predicts())
        .ok_or_else(|| CheckpointError::Prediction { path: file.path().to_owned() })?;
    let asked = options.zero_terminal_snr;
    let zero = asked.or_else(|| file.zero_terminal_snr().then_some(true));
    let mut config = released_scheduler(file.family()).as_object().cloned().unwrap_or_default();
    set(&mut config, Some(predicts), zero);
    if zero == Some(true) {
        // A schedule that ends in pure noise is only right for a sampler that begins there (Lin et al. 2024, 3.3).
        config.insert("timestep_spacing".to_owned(), json!("trailing"));
    }
    Ok(Value::Object(config))
}

fn set(config: &mut Map<String, Value>, predicts: Option<Predicts>, zero: Option<bool>) {
    if let Some(predicts) = predicts {
        config.insert("prediction_type".to_owned(), json!(predicts.name()));
    }
    let Some(zero) = zero else { return };
    config.insert("rescale_betas_zero_snr".to_owned(), json!(zero));
    // PNDM does not know the rescaled schedule and would ignore it; DDIM has the same steps and does.
    if zero && config.get("_class_name").is_some_and(|class| class == "PNDMScheduler") {
        config.insert("_class_name".to_owned(), json!("DDIMScheduler"));
    }
}
