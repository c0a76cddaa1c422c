//! How much each instrument looks at, by the size of the census.

use crate::sample::SHARD;
use recipes::{Budget, CensusSpec};

/// How much is measured beside the drawn pictures. Zero is: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Trajectories of the base that other models are asked along.
    pub paths: u32,
    /// Whether the whole adapter is asked along them, too, beside the small dose of the forecast.
    pub whole_dose: bool,
    /// Pictures per entity whose likelihood is taken.
    pub likelihood_pictures: usize,
    /// Noise levels of a likelihood.
    pub likelihood_levels: usize,
    /// Pictures of each model whose typicality is taken.
    pub typical_pictures: usize,
    /// Words whose information maps are drawn.
    pub words: usize,
    /// Pictures per word.
    pub word_pictures: usize,
    /// Pictures whose innermost activations are compared.
    pub directions: usize,
    /// Pictures of each model asked for each entity by its name.
    pub asked: u32,
    /// Pictures of each model that a second family of evaluator judges, if the base's world has one.
    pub judged: usize,
}

/// Dose of the secant that the forecast is made of.
pub const FORECAST_DOSE: f64 = 0.1;
/// Noise levels of typicality and of information maps.
pub const LEVELS: usize = 32;
/// A census of its own numbers is measured like a survey from so many seeds of the empty prompt on.
const SURVEYED: u32 = 512;
/// Seeds of the empty prompt per picture asked by name, where little may be spent.
const SEEDS_PER_ASKED_PICTURE: u32 = 64;
/// Pictures asked of each entity that its confusion is counted on: errors of a share fall as they grow.
const CALIBRATING: u32 = 100;
/// Noise levels of an information map where little may be spent.
const FEW_LEVELS: usize = 16;

impl Extent {
    /// What belongs to a census.
    pub fn of(spec: &CensusSpec) -> Self {
        let whole_shards = |paths: u32| paths.min(spec.seeds_empty / SHARD * SHARD);
        let as_size = match spec.budget {
            Budget::Custom if spec.seeds_empty < SURVEYED => Budget::Glance,
            Budget::Custom => Budget::Survey,
            named @ (Budget::Glance | Budget::Survey | Budget::Census) => named,
        };
        let seeds = spec.seeds_empty;
        match as_size {
            Budget::Glance => Self {
                asked: (seeds / SEEDS_PER_ASKED_PICTURE).max(2),
                paths: whole_shards(2 * SHARD),
                whole_dose: false,
                likelihood_pictures: 0,
                likelihood_levels: 0,
                typical_pictures: 0,
                words: 2,
                word_pictures: 2,
                directions: 0,
                judged: 0,
            },
            Budget::Survey | Budget::Custom => Self {
                asked: CALIBRATING.min(seeds / 8),
                paths: whole_shards(8 * SHARD),
                whole_dose: true,
                likelihood_pictures: 10,
                likelihood_levels: 32,
                typical_pictures: 64,
                words: 4,
                word_pictures: 3,
                directions: 512,
                judged: 256,
            },
            Budget::Census => Self {
                asked: 3 * CALIBRATING,
                paths: whole_shards(32 * SHARD),
                whole_dose: true,
                likelihood_pictures: 20,
                likelihood_levels: 64,
                typical_pictures: 128,
                words: 8,
                word_pictures: 4,
                directions: 2048,
                judged: 1024,
            },
        }
    }

    /// Noise levels of an information map.
    pub fn word_levels(self) -> usize {
        if self.whole_dose { LEVELS } else { FEW_LEVELS }
    }

    /// Models that are asked along the paths: the small dose, the whole one, a placebo at the whole.
    pub fn path_models(self, spec: &CensusSpec) -> u64 {
        1 + u64::from(self.whole_dose) * (1 + u64::from(spec.placebo.min(1)))
    }

    /// Forward passes of all instruments, for so many entities in the concept's facet.
    pub fn forwards(self, spec: &CensusSpec, n_entities: usize) -> u64 {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let paths =
            u64::from(self.paths) * u64::from(spec.sampler.steps) * (1 + self.path_models(spec));
        let likelihood = 2 * count(n_entities * self.likelihood_pictures * self.likelihood_levels);
        // Each model's own pictures under nothing, and the base's under their word.
        let typicality = 3 * count(self.typical_pictures * LEVELS);
        let maps = 4 * count(self.words * self.word_pictures * self.word_levels());
        // The first shard of the base is drawn once more.
        let again = u64::from(SHARD) * u64::from(spec.sampler.steps);
        again + paths + likelihood + typicality + maps + 2 * count(self.directions)
    }
}
