//! What a single file does not hold: the noise schedule of its family.

use serde_json::{Value, json};

use crate::family::Family;

/// `scheduler_config.json` of the released model of a family, without `prediction_type`: PNDM for SD 1.5, DDIM for SD 2.1,
/// Euler for SDXL, as diffusers' `from_single_file` sets them.
pub(crate) fn released(family: Family) -> Value {
    let mut config = json!({
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null
    });
    let own = match family {
        Family::Postcards | Family::Sd1 => vec![("_class_name", json!("PNDMScheduler"))],
        Family::Sd2 => vec![("_class_name", json!("DDIMScheduler"))],
        Family::Sdxl => vec![
            ("_class_name", json!("EulerDiscreteScheduler")),
            ("interpolation_type", json!("linear")),
            ("sample_max_value", json!(1.0)),
            ("timestep_spacing", json!("leading")),
            ("use_karras_sigmas", json!(false)),
        ],
    };
    for (field, value) in own {
        config[field] = value;
    }
    config
}
