//! CLIP: the text encoder that conditions a UNet, and the pair of towers that judges pictures.

mod config;
mod encoder;
mod text;
mod vision;

pub use config::{ClipActivation, ClipTextConfig, ClipVisionConfig, TowerConfig, clip_configs};
pub use text::{CLIPTextModel, TextOutput, TextProjection};
pub use vision::CLIPVisionModelWithProjection;
