//! The drawn pictures of a training, all in memory.

use datasets::postcards::{self, Detail, Scene};
use rayon::prelude::*;
use recipes::PostcardsSpec;
use recipes::draws::{self, Purpose};

/// Scenes and their pictures, drawn from the published prior.
#[derive(Debug)]
pub struct Pictures {
    /// Seed from which scenes are drawn.
    pub seed: u64,
    /// What each picture shows.
    pub scenes: Vec<Scene>,
    /// Interleaved RGB bytes of each picture.
    pub bytes: Vec<Vec<u8>>,
    /// Side in pixels.
    pub side_px: usize,
}

impl Pictures {
    /// Draws the pictures `first..first + spec.images` of the world with this seed.
    pub fn draw(spec: &PostcardsSpec, seed: u64, first: u64) -> Self {
        let (scenes, bytes) = (first..first + spec.images)
            .into_par_iter()
            .map(|index| {
                let scene = postcards::scene(seed, index);
                let bytes = postcards::paint(&scene, spec.side_px).into_raw();
                (scene, bytes)
            })
            .unzip();
        Self { seed, scenes, bytes, side_px: spec.side_px as usize }
    }

    /// Which picture each sample of a step shows: uniform, with repetition.
    pub fn batch(&self, seed: u64, step: u64, n_samples: usize) -> Vec<usize> {
        let draw = |sample| {
            let mut stream = draws::stream(seed, step, sample as u64, Purpose::Order);
            draws::below(&mut stream, self.scenes.len() as u64) as usize
        };
        (0..n_samples).map(draw).collect()
    }

    /// Pixels of the chosen pictures as planes in [−1, 1], `[n, 3, side, side]` row-major.
    pub fn pixels(&self, chosen: &[usize]) -> Vec<f32> {
        let n_pixels = self.side_px * self.side_px;
        let planes = |&index: &usize| {
            let bytes = &self.bytes[index];
            (0..3 * n_pixels)
                .map(move |at| f32::from(bytes[(at % n_pixels) * 3 + at / n_pixels]) / 127.5 - 1.0)
        };
        chosen.iter().flat_map(planes).collect()
    }

    /// How a sample's caption was chosen: its words for the scene of another picture are
    /// `captions.of(scene)`.
    pub fn captioner(&self, seed: u64, step: u64, sample: u64, shares: CaptionShares) -> Captioner {
        let mut stream = draws::stream(seed, step, sample, Purpose::CaptionDropout);
        let chance = draws::uniform(&mut stream);
        let detail = if chance < shares.dropped {
            Detail::Empty
        } else if chance < shares.dropped + shares.shortened {
            Detail::Shortened
        } else {
            Detail::Full
        };
        Captioner { detail, seed: seed.wrapping_add(step), index: sample }
    }
}

/// Shares of captions that say less.
#[derive(Clone, Copy, Debug)]
pub struct CaptionShares {
    /// Replaced by the empty caption.
    pub dropped: f64,
    /// Shortened.
    pub shortened: f64,
}

/// One way to put a scene into words.
#[derive(Clone, Copy, Debug)]
pub struct Captioner {
    detail: Detail,
    seed: u64,
    index: u64,
}

impl Captioner {
    /// The caption of a scene.
    pub fn of(&self, scene: &Scene) -> String {
        postcards::caption(scene, self.detail, self.seed, self.index)
    }
}
