//! Drawn postcards, for training a base from scratch.

use serde::Serialize;
use serde_saphyr::Location;

use crate::base::BaseSpec;
use crate::field::{Whole, raw_section};
use crate::problem::Checks;
use crate::units::{COUNT_MAX, SIDE_PX, side_px};

/// Drawn postcards, for training a base from scratch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PostcardsSpec {
    /// How many pictures are drawn.
    pub images: u64,
    /// Their side in pixels.
    pub side_px: u32,
}

raw_section! {
    /// Drawn postcards.
    RawPostcards {
        /// How many pictures are drawn.
        #[schemars(!default, required, range(min = 1))]
        images: Whole,
        /// Side of the pictures in pixels (default 64).
        #[schemars(range(min = 64, max = 2048))]
        side_px: Whole,
    }
}

impl RawPostcards {
    /// Resolves the dataset of a pretraining recipe.
    pub(crate) fn resolve(self, section: Location, checks: &mut Checks) -> Option<PostcardsSpec> {
        let key = "dataset.postcards.images";
        let images = self.images.required_number(key, section, &(1..=COUNT_MAX), checks);
        let key = "dataset.postcards.side_px";
        let side_at = self.side_px.location();
        let side = self.side_px.number(key, &SIDE_PX, checks);
        let side_px = side_px(side, BaseSpec::Postcards.side_px(), key, side_at, checks);
        Some(PostcardsSpec { images: images?, side_px })
    }
}
