//! Information maps: where in a picture a word has its hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Per-pixel information of words about the base's pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PixelRecord {
    /// Noise levels per picture.
    pub levels: u64,
    /// One entry per word.
    pub words: Vec<PixelWord>,
}

/// One word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PixelWord {
    /// Entity that the word names.
    pub id: String,
    /// What was asked.
    pub phrase: String,
    /// Information summed over a picture, in nats, mean over pictures, in the base.
    pub before: Estimate,
    /// The same in the adapted model.
    pub after: Estimate,
    /// after − before, paired.
    pub delta: Estimate,
    /// Some of the pictures with their maps.
    pub pictures: Vec<PixelPicture>,
}

/// One picture of the base and three maps of it; paths within the census. Maps are gray PNG, white is
/// `scale` nats per pixel; in the difference map middle gray is 0, black a loss of `scale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PixelPicture {
    /// The picture.
    pub picture: String,
    /// Map in the base.
    pub before: String,
    /// Map in the adapted model.
    pub after: String,
    /// after − before.
    pub difference: String,
    /// Nats per latent pixel that white stands for.
    pub scale: f64,
}
