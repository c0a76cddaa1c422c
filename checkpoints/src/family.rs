//! The families of base models: how one is recognised, and what its released full-size models look like.

mod released;

use serde_json::Value;

use crate::postcards;

/// Family of base models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Miniatures: the embedded base, and every network that has not the levels of the others.
    Postcards,
    /// Stable Diffusion 1.x.
    Sd1,
    /// Stable Diffusion 2.x.
    Sd2,
    /// Stable Diffusion XL.
    Sdxl,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 4] = [Self::Postcards, Self::Sd1, Self::Sd2, Self::Sdxl];

    /// The key in recipes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postcards => "postcards",
            Self::Sd1 => "sd1",
            Self::Sd2 => "sd2",
            Self::Sdxl => "sdxl",
        }
    }

    /// The name in messages.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Postcards => "postcards",
            Self::Sd1 => "Stable Diffusion 1.x",
            Self::Sd2 => "Stable Diffusion 2.x",
            Self::Sdxl => "Stable Diffusion XL",
        }
    }

    /// The family of a UNet, by the structure that its `config.json` states and not by widths, so that narrow models are
    /// recognised too: the conditions of SDXL, other than four levels (a miniature), linear projections (SD 2.x).
    pub fn of_unet_config(config: &Value) -> Self {
        const N_LEVELS: usize = 4;
        let n_levels =
            config.get("block_out_channels").and_then(Value::as_array).map_or(N_LEVELS, Vec::len);
        let added = config.get("addition_embed_type").and_then(Value::as_str);
        let linear = config.get("use_linear_projection").and_then(Value::as_bool);
        if added == Some("text_time") {
            Self::Sdxl
        } else if n_levels != N_LEVELS {
            Self::Postcards
        } else if linear == Some(true) {
            Self::Sd2
        } else {
            Self::Sd1
        }
    }

    /// `unet/config.json` of the released full-size model: SD 1.5, SD 2.1 (768 px), SDXL base 1.0. Of postcards that of
    /// the embedded base; `None` if none is embedded.
    pub fn unet_config(self) -> Option<Value> {
        match self {
            Self::Postcards => postcards::json("unet/config.json"),
            Self::Sd1 => Some(released::unet_sd1()),
            Self::Sd2 => Some(released::unet_sd2()),
            Self::Sdxl => Some(released::unet_sdxl()),
        }
    }

    /// `text_encoder/config.json` of the same models, and for SDXL `text_encoder_2/config.json`.
    pub fn text_encoder_configs(self) -> Vec<Value> {
        match self {
            Self::Postcards => postcards::json("text_encoder/config.json").into_iter().collect(),
            Self::Sd1 => vec![released::text_clip_l()],
            Self::Sd2 => vec![released::text_sd2()],
            Self::Sdxl => vec![released::text_clip_l(), released::text_big_g()],
        }
    }

    /// `vae/config.json` of the same models.
    pub fn vae_config(self) -> Option<Value> {
        match self {
            Self::Postcards => postcards::json("vae/config.json"),
            Self::Sd1 | Self::Sd2 | Self::Sdxl => Some(released::vae(self)),
        }
    }

    /// Side of the pictures that the released model draws, in pixels.
    pub const fn side_px(self) -> usize {
        match self {
            Self::Postcards => 64,
            Self::Sd1 => 512,
            Self::Sd2 => 768,
            Self::Sdxl => 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_released_network_is_of_its_own_family() {
        for family in [Family::Sd1, Family::Sd2, Family::Sdxl] {
            assert_eq!(Family::of_unet_config(&family.unet_config().unwrap()), family);
        }
        assert_eq!(postcards::embedded(), Family::Postcards.unet_config().is_some());
        if let Some(config) = Family::Postcards.unet_config() {
            assert_eq!(Family::of_unet_config(&config), Family::Postcards);
        }
    }

    #[test]
    fn a_family_is_told_by_structure_and_not_by_width() {
        for (config, family) in [
            (json!({"block_out_channels": [8, 8, 16, 16]}), Family::Sd1),
            (
                json!({"block_out_channels": [8, 8, 16, 16], "use_linear_projection": true}),
                Family::Sd2,
            ),
            (
                json!({"block_out_channels": [8, 16], "addition_embed_type": "text_time"}),
                Family::Sdxl,
            ),
            (
                json!({"block_out_channels": [8, 16], "use_linear_projection": true}),
                Family::Postcards,
            ),
            (json!({"cross_attention_dim": 768, "use_linear_projection": null}), Family::Sd1),
        ] {
            assert_eq!(Family::of_unet_config(&config), family, "{config}");
        }
    }

    #[test]
    fn names_are_those_of_recipes() {
        assert_eq!(Family::ALL.map(Family::name), ["postcards", "sd1", "sd2", "sdxl"]);
        assert_eq!(Family::ALL.map(Family::side_px), [64, 512, 768, 1024]);
    }
}
