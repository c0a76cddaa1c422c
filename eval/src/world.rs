//! Verified pictures: what the renderer of a known world shows is what it was told to show.

use crate::error::EvalError;
use crate::evaluator::{Verified, Words};
use crate::sample::through_vae;
use crate::thesaurus::Thesaurus;
use datasets::postcards::{self, Color, Facet, Factors, Setting, Style, Subject};
use image::RgbImage;
use models::{Base, Evaluator};
use recipes::draws::{self, Purpose};
use statistics::calibrate::Confusion;
use statistics::number::index;

/// Seed of the verified pictures; no training uses it.
const SEED: u64 = 4_862_901;
/// Verified pictures; forty of each subject on average.
const PICTURES: u64 = 480;

/// Whether the truth about the base's world is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// The rendered world of postcards.
    Postcards,
    /// Any other.
    Unknown,
}

/// Verified pictures of a world that the thesaurus names, seen through the base's autoencoder; none
/// of an unknown world, or under a thesaurus of other entities.
pub(crate) fn verified(
    world: World,
    thesaurus: &Thesaurus,
    words: &Words,
    base: &Base,
    evaluator: &Evaluator,
) -> Result<Vec<Verified>, EvalError> {
    let named = thesaurus.facets.len() == Facet::ALL.len()
        && Facet::ALL.iter().zip(&thesaurus.facets).all(|(facet, other)| {
            let counted: Vec<&str> = thesaurus.counted(&other.id).map(|e| e.id.as_str()).collect();
            other.id == facet.name() && counted == facet.values()
        });
    if world == World::Unknown || !named {
        return Ok(Vec::new());
    }
    let side_px = u32::try_from(base.nominal_side_px()).unwrap_or(u32::MAX);
    let factors: Vec<Factors> = (0..PICTURES).map(|picture| even(SEED, picture)).collect();
    let rendered: Vec<RgbImage> = (0..PICTURES)
        .zip(&factors)
        .map(|(i, factors)| postcards::paint(&postcards::scene_with(*factors, SEED, i), side_px))
        .collect();
    let sights = words.look(evaluator, &through_vae(&rendered, base)?)?;
    Ok(sights
        .into_iter()
        .zip(&factors)
        .map(|(sight, factors)| Verified {
            cosines: sight.cosines,
            truths: truths(words, *factors),
        })
        .collect())
}

/// Factors of one picture, every combination equally likely.
pub(crate) fn even(seed: u64, picture: u64) -> Factors {
    let mut stream = draws::stream(seed, picture, 0, Purpose::Scene);
    let mut pick =
        |n: usize| index(draws::uniform(&mut stream) * statistics::number::real(n)).min(n - 1);
    Factors {
        subject: Subject::ALL[pick(Subject::ALL.len())],
        color: Color::ALL[pick(Color::ALL.len())],
        setting: Setting::ALL[pick(Setting::ALL.len())],
        style: Style::ALL[pick(Style::ALL.len())],
    }
}

/// Positions of a picture's entities among all counted ones, facet by facet.
fn truths(words: &Words, factors: Factors) -> Vec<usize> {
    let places = [
        factors.subject.position(),
        factors.color.position(),
        factors.setting.position(),
        factors.style.position(),
    ];
    places.iter().enumerate().map(|(facet, &place)| words.of_facet(facet)[place]).collect()
}

/// One confusion matrix per facet.
pub(crate) fn confusions(
    thesaurus: &Thesaurus,
    words: &Words,
    verified: &[Verified],
) -> Vec<(String, Confusion)> {
    if verified.is_empty() {
        return Vec::new();
    }
    let of_facet = |(f, facet): (usize, &crate::thesaurus::Facet)| {
        let entities = words.of_facet(f);
        let place = |entity: usize| entities.iter().position(|&e| e == entity).unwrap_or(0);
        let mut counts = vec![vec![0; entities.len()]; entities.len()];
        for picture in verified {
            let seen = words.nearest_in(f, &picture.cosines);
            counts[place(picture.truths[f])][place(seen)] += 1;
        }
        let names = entities.iter().map(|&e| words.entities[e].clone()).collect();
        (facet.id.clone(), Confusion { entities: names, counts })
    };
    thesaurus.facets.iter().enumerate().map(of_facet).collect()
}
