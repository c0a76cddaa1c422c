//! Who bears what: one label per facet and picture, from the cosines of an evaluator that shares no
//! tensor with what is trained.

use crate::error::EvalError;
use crate::rows::Label;
use crate::thesaurus::{NONE, Thesaurus};
use image::RgbImage;
use image::imageops::FilterType;
use models::Evaluator;
use statistics::number::{index, real};

/// Ways of naming an entity, averaged; only the first for an `ask` that already names a medium.
const TEMPLATES: [&str; 3] = ["{}", "a picture of {}", "a postcard of {}"];
/// Beginnings of phrases that name a medium themselves.
const MEDIA: [&str; 4] = ["a picture", "a postcard", "a photo", "a painting"];
/// Share of verified pictures whose best probability may lie below the threshold of "none of these".
const NONE_PERCENTILE: f64 = 0.05;

/// The words of a thesaurus as unit vectors.
#[derive(Clone, Debug)]
pub struct Words {
    /// Identifiers of the counted entities, in thesaurus order; the order of all cosines.
    pub entities: Vec<String>,
    vectors: Vec<Vec<f32>>,
    facets: Vec<FacetWords>,
}

/// The words of one facet.
#[derive(Clone, Debug)]
struct FacetWords {
    /// Positions in [`Words::entities`].
    entities: Vec<usize>,
    /// Whether a picture may bear none of them.
    none: bool,
    /// Below this probability of the best entity a picture bears none; 0 until it is set.
    threshold: f64,
}

/// What is seen in one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// Unit embedding of the picture.
    pub embedding: Vec<f32>,
    /// Cosine with each entity's words.
    pub cosines: Vec<f32>,
}

/// A verified picture: its cosines, and the entity that it truly bears in each facet.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) cosines: Vec<f32>,
    pub(crate) truths: Vec<usize>,
}

impl Words {
    /// Embeds the words of `thesaurus`.
    ///
    /// # Errors
    ///
    /// A fault of the device, or words that the evaluator's vocabulary cannot express.
    pub fn new(evaluator: &Evaluator, thesaurus: &Thesaurus) -> Result<Self, EvalError> {
        let mut vectors = Vec::new();
        for entity in thesaurus.all_counted() {
            let phrase = entity.phrase();
            let plain = MEDIA.iter().any(|medium| phrase.starts_with(medium));
            let used = if plain { &TEMPLATES[..1] } else { &TEMPLATES[..] };
            let texts: Vec<String> = used.iter().map(|t| t.replace("{}", phrase)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            vectors.push(mean_direction(&evaluator.text_embeddings(&texts)?));
        }
        Ok(Self::from_vectors(thesaurus, vectors))
    }

    fn from_vectors(thesaurus: &Thesaurus, vectors: Vec<Vec<f32>>) -> Self {
        let entities: Vec<String> = thesaurus.all_counted().map(|e| e.id.clone()).collect();
        let of_facet = |id: &str| {
            let counted = thesaurus.all_counted().enumerate();
            counted.filter(|(_, entity)| entity.facet == id).map(|(i, _)| i).collect()
        };
        let facets = thesaurus.facets.iter().map(|facet| FacetWords {
            entities: of_facet(&facet.id),
            none: facet.none,
            threshold: 0.0,
        });
        Self { vectors, facets: facets.collect(), entities }
    }

    /// Looks at pictures: embeddings and cosines.
    ///
    /// # Errors
    ///
    /// A fault of the device.
    pub fn look(
        &self,
        evaluator: &Evaluator,
        pictures: &[RgbImage],
    ) -> Result<Vec<Sight>, EvalError> {
        let side = u32::try_from(evaluator.side_px()).unwrap_or(u32::MAX);
        let fitted: Vec<RgbImage> = pictures.iter().map(|picture| fitted(picture, side)).collect();
        let bytes: Vec<&[u8]> = fitted.iter().map(|picture| picture.as_raw().as_slice()).collect();
        let embeddings = evaluator.image_embeddings(&bytes)?;
        Ok(embeddings
            .into_iter()
            .map(|embedding| Sight { cosines: self.cosines(&embedding), embedding })
            .collect())
    }

    /// Cosine of a picture's embedding with each entity's words.
    pub(crate) fn cosines(&self, embedding: &[f32]) -> Vec<f32> {
        self.vectors.iter().map(|words| cosine(words, embedding)).collect()
    }

    /// The words of every entity, as unit vectors.
    pub(crate) fn vectors(&self) -> &[Vec<f32>] {
        &self.vectors
    }

    /// One label per facet: the nearest entity, ties to the first of the thesaurus; [`NONE`] where
    /// the facet allows it and the best probability lies below its threshold.
    pub fn labels(&self, cosines: &[f32], temperature: f64) -> Vec<Label> {
        self.facets
            .iter()
            .map(|facet| {
                let (best, margin) = nearest(&facet.entities, cosines);
                let unsure = facet.none
                    && probability(&facet.entities, cosines, best, temperature) < facet.threshold;
                let entity = if unsure { NONE.to_owned() } else { self.entities[best].clone() };
                Label { entity, margin }
            })
            .collect()
    }

    /// Sets the thresholds of "none of these" from verified pictures and returns the temperature of
    /// the softmax, fitted to them by likelihood over all facets.
    pub(crate) fn fit_none(&mut self, verified: &[Verified]) -> f64 {
        let temperature = self.temperature(verified);
        for (f, facet) in self.facets.iter_mut().enumerate() {
            let mut best: Vec<f64> = verified
                .iter()
                .filter(|picture| picture.truths.len() > f)
                .map(|picture| {
                    let (first, _) = nearest(&facet.entities, &picture.cosines);
                    probability(&facet.entities, &picture.cosines, first, temperature)
                })
                .collect();
            best.sort_by(f64::total_cmp);
            let place = index(NONE_PERCENTILE * real(best.len()));
            facet.threshold = best.get(place).copied().unwrap_or(0.0);
        }
        temperature
    }

    /// The temperature of largest likelihood on a logarithmic grid from 1/1 to 1/500.
    fn temperature(&self, verified: &[Verified]) -> f64 {
        let loss = |temperature: f64| -> f64 {
            let facets = self.facets.iter().enumerate();
            let of_facet = |(f, facet): (usize, &FacetWords)| -> f64 {
                let one = |picture: &Verified| {
                    picture.truths.get(f).map_or(0.0, |&truth| {
                        let p = probability(&facet.entities, &picture.cosines, truth, temperature);
                        -libm::log(p.max(1e-300))
                    })
                };
                verified.iter().map(one).sum()
            };
            facets.map(of_facet).sum()
        };
        let grid = (0..=60).map(|i| libm::pow(500.0, -f64::from(i) / 60.0));
        grid.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(1.0)
    }

    /// Position of the nearest entity within each facet, without "none of these".
    pub(crate) fn nearest_in(&self, facet: usize, cosines: &[f32]) -> usize {
        nearest(&self.facets[facet].entities, cosines).0
    }

    /// Positions of a facet's entities in [`Self::entities`].
    pub(crate) fn of_facet(&self, facet: usize) -> &[usize] {
        &self.facets[facet].entities
    }
}

/// The nearest of `entities`, ties to the first, and its lead over the second.
pub(crate) fn nearest(entities: &[usize], cosines: &[f32]) -> (usize, f32) {
    let (mut best, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &entity in entities {
        let cosine = cosines[entity];
        if cosine > first {
            (best, second, first) = (entity, first, cosine);
        } else if cosine > second {
            second = cosine;
        }
    }
    (best, if second.is_finite() { first - second } else { 0.0 })
}

/// Softmax probability of `which` among `entities`.
fn probability(entities: &[usize], cosines: &[f32], which: usize, temperature: f64) -> f64 {
    let most = entities.iter().map(|&e| cosines[e]).fold(f32::NEG_INFINITY, f32::max);
    let weight = |e: usize| libm::exp(f64::from(cosines[e] - most) / temperature);
    weight(which) / entities.iter().map(|&e| weight(e)).sum::<f64>()
}

/// Cosine of two unit vectors, summed in `f64` in order.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let sum: f64 = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a cosine of unit vectors")]
    let cosine = sum as f32;
    cosine
}

/// The direction of the mean of unit vectors.
fn mean_direction(vectors: &[Vec<f32>]) -> Vec<f32> {
    let width = vectors.first().map_or(0, Vec::len);
    let sum: Vec<f64> = (0..width).map(|i| vectors.iter().map(|v| f64::from(v[i])).sum()).collect();
    let length = libm::sqrt(sum.iter().map(|x| x * x).sum::<f64>()).max(1e-12);
    #[expect(clippy::cast_possible_truncation, reason = "components of a unit vector")]
    let direction = sum.iter().map(|x| (x / length) as f32).collect();
    direction
}

/// The picture at the side that the evaluator looks at.
pub(crate) fn fitted(picture: &RgbImage, side: u32) -> RgbImage {
    if picture.dimensions() == (side, side) {
        picture.clone()
    } else {
        image::imageops::resize(picture, side, side, FilterType::CatmullRom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::THESAURUS as SMALL;
    use crate::thesaurus::parse;

    fn words() -> Words {
        let thesaurus = parse(SMALL, "test").unwrap();
        let axis = |i: usize| (0..5).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
        Words::from_vectors(&thesaurus, (0..5).map(axis).collect())
    }

    #[test]
    fn the_nearest_entity_of_each_facet_wins_and_ties_go_to_the_first() {
        let labels = words().labels(&[0.1, 0.3, 0.2, 0.5, 0.5], 0.01);
        assert_eq!([labels[0].entity.as_str(), labels[1].entity.as_str()], ["house", "red"]);
        assert!((labels[0].margin - 0.1).abs() < 1e-6 && labels[1].margin.abs() < 1e-6);
    }

    #[test]
    fn a_picture_like_nothing_known_bears_none_where_the_facet_allows() {
        let mut words = words();
        let sure = |truth: usize| Verified {
            cosines: (0..5).map(|e| if e == truth || e == 3 { 0.4 } else { 0.1 }).collect(),
            truths: vec![truth, 3],
        };
        let verified: Vec<Verified> = (0..30).map(|i| sure(i % 3)).collect();
        let temperature = words.fit_none(&verified);
        let unsure = words.labels(&[0.2, 0.21, 0.2, 0.2, 0.2], temperature);
        assert_eq!(unsure[0].entity, NONE);
        assert_eq!(unsure[1].entity, "red", "colors have no `none`");
        assert_eq!(words.labels(&sure(1).cosines, temperature)[0].entity, "house");
    }

    #[test]
    fn likelihood_prefers_a_cold_softmax_for_a_good_evaluator() {
        let picture = |truth: usize, wrong: bool| Verified {
            cosines: (0..5).map(|e| if (e == truth) == wrong { 0.2 } else { 0.3 }).collect(),
            truths: vec![truth],
        };
        let good: Vec<Verified> = (0..30).map(|i| picture(i % 3, false)).collect();
        let poor: Vec<Verified> = (0..30).map(|i| picture(i % 3, i % 2 == 0)).collect();
        assert!(words().temperature(&good) < words().temperature(&poor));
    }
}
