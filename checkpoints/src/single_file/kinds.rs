//! What a file is: which of the families, or which other kind of model, by the names of its tensors.

use super::names::Names;
use super::text::{self, Use};
use super::unet::{self, Projection, UNetPlan};
use crate::family::Family;

/// Parts of names that no base here has, and what they tell.
const OTHERS: [(&str, &str); 24] = [
    ("lora_unet_", "an adapter (a LoRA of kohya's form)"),
    ("lora_te", "an adapter (a LoRA of kohya's form)"),
    (".lora_A.", "an adapter (a LoRA of PEFT)"),
    (".lora.down.", "an adapter (a LoRA of diffusers)"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("motion_modules.", "AnimateDiff, a video model"),
    (".time_stack.", "Stable Video Diffusion"),
    ("edm_mean", "Playground 2.5, which is trained by another rule of noise"),
    ("joint_blocks.", "Stable Diffusion 3, a diffusion transformer"),
    ("double_blocks.", "FLUX or another diffusion transformer with `double_blocks`"),
    ("double_stream_blocks.", "HiDream, a diffusion transformer"),
    ("double_layers.", "AuraFlow, a diffusion transformer"),
    ("distilled_guidance_layer.", "Chroma, a diffusion transformer"),
    ("patchify_proj.", "LTX-Video, a diffusion transformer"),
    ("cap_embedder.", "Lumina or Z-Image, a diffusion transformer"),
    ("adaLN_modulation.", "a diffusion transformer"),
    ("scale_shift_table", "PixArt, Sana or another diffusion transformer"),
    ("x_embedder.", "a diffusion transformer"),
    ("txt_in.", "a diffusion transformer"),
    ("head.modulation", "Wan, a diffusion transformer"),
    ("clip_txt_mapper.", "Stable Cascade"),
    ("effnet_mapper.", "Stable Cascade"),
    ("text_encoders.", "a checkpoint with text encoders of a diffusion transformer"),
];

/// Prefix of the second text encoder of SDXL.
const SECOND: &str = "conditioner.embedders.1.model.";
/// Prefix of the first text encoder of SDXL, and where the refiner has its only one.
const FIRST: &str = "conditioner.embedders.0.transformer.";
const REFINER: &str = "conditioner.embedders.0.model.";
/// Prefix of the text encoder of SD 1.x and of SD 2.x.
const CLIP: &str = "cond_stage_model.transformer.";
const OPEN_CLIP: &str = "cond_stage_model.model.";

/// What a file holds instead of a base, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) found: String,
    pub(super) advice: Option<&'static str>,
}

impl Refused {
    pub(super) fn new(found: impl Into<String>) -> Self {
        Self { found: found.into(), advice: None }
    }

    fn with(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

/// What to say of a part of a model.
const COMPLETE: &str = "a complete file holds the network (`model.diffusion_model.`), the VAE (`first_stage_model.`) \
     and the text encoder (`cond_stage_model.`, or `conditioner.` for SDXL)";

/// Refuses, by name, models of other kinds and files that hold only a part of a model.
pub(super) fn check(names: &Names<'_>) -> Result<(), Refused> {
    let has_network = names.has(&format!("{}input_blocks.0.0.weight", unet::PREFIX))
        || names.all().any(|name| name.starts_with(unet::AVERAGE_PREFIX));
    let other = OTHERS.iter().find(|(part, _)| names.all().any(|name| holds(name, part)));
    if let Some((part, what)) = other {
        let found = Refused::new(format!("{what} (`{part}`)"));
        return Err(if what.starts_with("an adapter") {
            found
                .with("an adapter is added to a base: name the base here and the adapter beside it")
        } else {
            found
        });
    }
    if has_network {
        return Ok(());
    }
    let signs = [
        ("input_blocks.0.0.weight", "a network alone, in the names of ldm"),
        ("conv_in.weight", "a network alone, in the names of diffusers"),
        ("encoder.conv_in.weight", "a VAE alone"),
        ("first_stage_model.encoder.conv_in.weight", "a VAE without a network"),
        ("text_model.embeddings.token_embedding.weight", "a text encoder alone"),
        ("token_embedding.weight", "a text encoder alone"),
        ("emb_params", "an embedding (textual inversion)"),
        ("clip_l", "an embedding (textual inversion)"),
    ];
    Err(match signs.iter().find(|(sign, _)| names.has(sign)) {
        Some((_, what)) => Refused::new(*what).with(COMPLETE),
        None => Refused::new("no tensor below `model.diffusion_model.`").with(COMPLETE),
    })
}

/// Whether a name holds `part` at the beginning of one of its own parts, or `part` begins with a dot.
fn holds(name: &str, part: &str) -> bool {
    name.match_indices(part)
        .any(|(at, _)| at == 0 || part.starts_with('.') || name[..at].ends_with('.'))
}

/// The family of a file, and where it holds its text encoders: one, or SDXL's two.
pub(super) fn family(
    names: &Names<'_>,
    plan: &UNetPlan,
) -> Result<(Family, Vec<text::Place>), Refused> {
    check_inputs(plan)?;
    let clip = text::Place::clip(names, CLIP);
    let open_clip = text::Place::open_clip(names, OPEN_CLIP, Use::WithoutLast);
    let first = text::Place::clip(names, FIRST);
    let second = text::Place::open_clip(names, SECOND, Use::Projected);
    let refiner = text::Place::open_clip(names, REFINER, Use::Projected);
    let linear = plan.projection == Projection::Linear;
    let added = plan.added_width.is_some();
    match (linear, added) {
        (false, false) => {
            let clip = clip.ok_or_else(|| no_text(names, Family::Sd1))?;
            Ok((Family::Sd1, vec![clip]))
        }
        (true, false) => {
            let open_clip = open_clip.ok_or_else(|| no_text(names, Family::Sd2))?;
            Ok((Family::Sd2, vec![open_clip]))
        }
        (true, true) if refiner.is_some() => Err(Refused::new("the refiner of SDXL")),
        (true, true) if open_clip.is_some() => {
            Err(Refused::new("unCLIP, which is conditioned on pictures"))
        }
        (true, true) => match (first, second) {
            (Some(first), Some(second)) => Ok((Family::Sdxl, vec![first, second])),
            _ => Err(no_text(names, Family::Sdxl)),
        },
        (false, true) => {
            Err(Refused::new("a network with the projections of SD 1.x and added conditions"))
        }
    }
}

/// Refuses networks that are given more than noisy latents.
fn check_inputs(plan: &UNetPlan) -> Result<(), Refused> {
    let inputs = plan.in_channels;
    let what = match inputs {
        _ if inputs == plan.out_channels => return Ok(()),
        9 => "an inpainting model".to_owned(),
        8 => "an editing model (InstructPix2Pix)".to_owned(),
        7 => "an upscaler".to_owned(),
        5 => "a model that is conditioned on depth".to_owned(),
        _ => "a network".to_owned(),
    };
    Err(Refused::new(format!(
        "{what} ({inputs} input channels, {} output channels)",
        plan.out_channels
    )))
}

/// What is wrong with a network whose text encoder is not where its family has it.
fn no_text(names: &Names<'_>, family: Family) -> Refused {
    let has_any = names
        .all()
        .any(|name| name.starts_with("cond_stage_model.") || name.starts_with("conditioner."));
    let found = if has_any {
        format!("a network of {} with other text encoders", family.title())
    } else {
        format!("a network of {} without text encoder", family.title())
    };
    Refused::new(found).with(COMPLETE)
}
