//! The names in a single file: what surrounds them, and which of them are no weights.

use crate::safetensors::TensorFile;

/// What surrounds all names of a file that was saved with its trainer's state.
const WRAPPER: &str = "state_dict.";

/// The names of a file, less what surrounds all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    file: &'a TensorFile,
    wrapper: &'static str,
}

impl<'a> Names<'a> {
    pub(super) fn of(file: &'a TensorFile) -> Self {
        let is_wrapped = file.names().any(|name| name.starts_with(WRAPPER));
        Self { file, wrapper: if is_wrapped { WRAPPER } else { "" } }
    }

    /// The name under which the file stores what is called `name` here.
    pub(super) fn stored(&self, name: &str) -> String {
        format!("{}{name}", self.wrapper)
    }

    /// The shape of a tensor, if there is one of that name.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file.info(&self.stored(name)).map(|info| info.shape.clone())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file.info(&self.stored(name)).is_some()
    }

    /// All names; those outside what surrounds the others as they are.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a str> {
        let (file, wrapper) = (self.file, self.wrapper);
        file.names().map(move |name| name.strip_prefix(wrapper).unwrap_or(name))
    }
}

/// Whether a tensor is known to be no weight: constants of the noise schedule, counters, copies, markers, and what only
/// the training of a part needed.
pub(super) fn is_no_weight(name: &str) -> bool {
    const BEGINNINGS: [&str; 7] = [
        "model_ema.",
        "denoiser.",
        "posterior_",
        "first_stage_model.loss.",
        "first_stage_model.model_ema.",
        "vae.loss.",
        "vae.model_ema.",
    ];
    const NAMES: [&str; 6] = ["betas", "logvar", "global_step", "epoch", "v_pred", "ztsnr"];
    const ENDS: [&str; 3] = ["position_ids", "logit_scale", "attn_mask"];
    let is_constant = !name.contains('.') && name.contains("alphas");
    let last = name.rsplit('.').next().unwrap_or(name);
    is_constant
        || NAMES.contains(&name)
        || ENDS.contains(&last)
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_counters_and_copies_are_no_weights() {
        for name in [
            "betas",
            "alphas_cumprod",
            "sqrt_one_minus_alphas_cumprod",
            "log_one_minus_alphas_cumprod",
            "posterior_mean_coef1",
            "global_step",
            "model_ema.diffusion_modelout2bias",
            "model_ema.decay",
            "denoiser.sigmas",
            "v_pred",
            "ztsnr",
            "cond_stage_model.transformer.text_model.embeddings.position_ids",
            "conditioner.embedders.1.model.logit_scale",
            "first_stage_model.loss.logvar",
        ] {
            assert!(is_no_weight(name), "{name}");
        }
        for name in [
            "model.diffusion_model.out.2.bias",
            "model.alphas.weight",
            "first_stage_model.quant_conv.bias",
            "cond_stage_model.model.positional_embedding",
            "ztsnr.weight",
        ] {
            assert!(!is_no_weight(name), "{name}");
        }
    }
}
