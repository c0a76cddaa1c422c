//! Owns the fabric: whether pictures are as far apart as the things that they show. Mantel's rank
//! correlation between distances in the thesaurus and distances between pictures, before and after.
//! Pure: works on embeddings of pictures that were asked by name and verified to show it.

use crate::record::{BeforeAfter, FabricMeasure, FabricRecord};
use crate::thesaurus::Thesaurus;
use rayon::prelude::*;
use statistics::algebra::{add_scaled, cosine};
use statistics::interval::{CiKind, Estimate, Resampler, max_t_by_spread};
use statistics::mantel::{self, mantel};
use std::collections::BTreeSet;

/// Fewest entities for a correlation of distances.
pub const LEAST_ENTITIES: usize = 8;
/// Fewest verified pictures per entity and model; few pictures attenuate ρ.
pub const LEAST_PICTURES: usize = 5;
/// The ratio is refused where the interval of the base's ρ reaches below this.
pub const LEAST_BEFORE: f64 = 0.1;
/// Random relabellings behind each p.
pub const RELABELLINGS: u32 = 999;

/// A picture asked by name that was verified to show what was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named<'a> {
    /// Its seed; unique among the pictures of one entity and model.
    pub seed_idx: u32,
    /// Unit embedding.
    pub embedding: &'a [f32],
}

/// One entity of the thesaurus with its words and pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct FabricEntity<'a> {
    /// Identifier in the thesaurus.
    pub id: &'a str,
    /// Unit embedding of its words.
    pub words: &'a [f32],
    /// Verified pictures of the base.
    pub base: Vec<Named<'a>>,
    /// Verified pictures of the adapted model.
    pub adapted: Vec<Named<'a>>,
}

/// A square table of distances.
pub type Distances = Vec<Vec<f64>>;

/// The fabric before and after, against paths in the tree and against words.
///
/// Every entity stands for the centroid of equally many pictures in both models, pictures of seeds
/// that were verified in both first. Intervals resample seeds, jointly for both models.
///
/// # Errors
///
/// The reason for a refusal: fewer than [`LEAST_ENTITIES`] entities with [`LEAST_PICTURES`] verified
/// pictures in both models, an entity that the thesaurus lacks, distances that do not vary.
pub fn fabric(
    thesaurus: &Thesaurus,
    entities: &[FabricEntity<'_>],
    resampler: Resampler,
) -> Result<FabricRecord, String> {
    let count = |entity: &FabricEntity<'_>| entity.base.len().min(entity.adapted.len());
    let kept: Vec<&FabricEntity<'_>> =
        entities.iter().filter(|entity| count(entity) >= LEAST_PICTURES).collect();
    if kept.len() < LEAST_ENTITIES {
        return Err(format!(
            "{} entities have {LEAST_PICTURES} verified pictures in both models, \
             {LEAST_ENTITIES} are needed",
            kept.len()
        ));
    }
    let pictures = kept.iter().map(|entity| count(entity)).min().unwrap_or(0);
    let ids: Vec<String> = kept.iter().map(|entity| entity.id.to_owned()).collect();
    let words: Vec<Vec<f64>> = kept.iter().map(|entity| wide(entity.words)).collect();
    let shown: Vec<Shown> = kept.iter().map(|entity| Shown::new(entity, pictures)).collect();
    let apart = [tree_distances(thesaurus, &ids)?, cosine_distances(&words)];
    let lengths = vec![pictures; shown.len()];
    let drawn: Vec<[Option<Vec<f64>>; 2]> = (0..resampler.draws)
        .into_par_iter()
        .map(|draw| {
            let images = images(&shown, &resampler.positions(draw, &lengths));
            apart.each_ref().map(|apart| rhos(apart, &images))
        })
        .collect();
    let all: Vec<Vec<usize>> = lengths.iter().map(|&n| (0..n).collect()).collect();
    let observed = images(&shown, &all);
    let measured = |which: usize, what: &str| {
        let replicates: Vec<Vec<f64>> =
            drawn.iter().filter_map(|rhos| rhos[which].clone()).collect();
        measure(&apart[which], &observed, &replicates, resampler.seed)
            .ok_or_else(|| format!("distances between {what} or between pictures do not vary"))
    };
    Ok(FabricRecord {
        tree: measured(0, "entities of the tree")?,
        words: measured(1, "words")?,
        entities: ids,
        pictures: u64::try_from(pictures).unwrap_or(u64::MAX),
    })
}

/// Lengths of the paths between entities through the tree: from narrower to broader, then to the facet,
/// then to the thesaurus, and down again.
///
/// # Errors
///
/// An entity that the thesaurus lacks.
pub fn tree_distances(thesaurus: &Thesaurus, ids: &[String]) -> Result<Distances, String> {
    let upward: Vec<Vec<String>> =
        ids.iter().map(|id| ancestors(thesaurus, id)).collect::<Result<_, String>>()?;
    let length = |a: &[String], b: &[String]| {
        let mut steps = a.iter().enumerate();
        let meeting = steps.find_map(|(i, x)| b.iter().position(|y| y == x).map(|j| i + j));
        statistics::number::real(meeting.unwrap_or(a.len() + b.len()))
    };
    Ok(upward.iter().map(|a| upward.iter().map(|b| length(a, b)).collect()).collect())
}

/// The entity itself, its broader ones, its facet, the thesaurus.
fn ancestors(thesaurus: &Thesaurus, id: &str) -> Result<Vec<String>, String> {
    let mut at = thesaurus
        .entity(id)
        .ok_or_else(|| format!("`{id}` is not of thesaurus `{}`", thesaurus.id))?;
    let mut upward = vec![at.id.clone()];
    // A checked thesaurus has no cycles; an unchecked one ends here all the same.
    while let Some(broader) = at.broader.as_deref().and_then(|id| thesaurus.entity(id))
        && upward.len() <= thesaurus.entities.len()
    {
        upward.push(broader.id.clone());
        at = broader;
    }
    // No identifier holds a colon, so these two cannot be mistaken for entities.
    upward.push(format!("facet:{}", at.facet));
    upward.push("thesaurus:".to_owned());
    Ok(upward)
}

/// 1 − cosine between all rows, 0 of each with itself; a row of length 0 is at distance 1 from all.
pub fn cosine_distances(rows: &[Vec<f64>]) -> Distances {
    let between = |i: usize, j: usize| {
        if i == j { 0.0 } else { 1.0 - cosine(&rows[i], &rows[j]).unwrap_or(0.0) }
    };
    (0..rows.len()).map(|i| (0..rows.len()).map(|j| between(i, j)).collect()).collect()
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().copied().map(f64::from).collect()
}

/// The pictures of one entity that take part, base and adapted, common seeds at equal places.
struct Shown([Vec<Vec<f64>>; 2]);

impl Shown {
    fn new(entity: &FabricEntity<'_>, n: usize) -> Self {
        let seeds = |named: &[Named<'_>]| -> BTreeSet<u32> {
            named.iter().map(|picture| picture.seed_idx).collect()
        };
        let common: BTreeSet<u32> =
            seeds(&entity.base).intersection(&seeds(&entity.adapted)).copied().collect();
        let pick = |named: &[Named<'_>]| -> Vec<Vec<f64>> {
            let mut order: Vec<Named<'_>> = named.to_vec();
            order.sort_by_key(|picture| (!common.contains(&picture.seed_idx), picture.seed_idx));
            order.into_iter().take(n).map(|picture| wide(picture.embedding)).collect()
        };
        Self([pick(&entity.base), pick(&entity.adapted)])
    }

    /// Sum of the drawn pictures of one model; its direction is the centroid's.
    fn sum(&self, model: usize, positions: &[usize]) -> Vec<f64> {
        let pictures = &self.0[model];
        let mut sum = vec![0.0; pictures.first().map_or(0, Vec::len)];
        for &i in positions {
            add_scaled(&mut sum, &pictures[i], 1.0);
        }
        sum
    }
}

/// Distances between the entities' centroids, base and adapted, over the drawn positions.
fn images(shown: &[Shown], positions: &[Vec<usize>]) -> [Distances; 2] {
    [0, 1].map(|model| {
        let sums: Vec<Vec<f64>> =
            shown.iter().zip(positions).map(|(one, drawn)| one.sum(model, drawn)).collect();
        cosine_distances(&sums)
    })
}

/// ρ before, after, and their difference.
fn rhos(apart: &[Vec<f64>], [base, adapted]: &[Distances; 2]) -> Option<Vec<f64>> {
    let (before, after) = (mantel::rho(apart, base)?, mantel::rho(apart, adapted)?);
    Some(vec![before, after, after - before])
}

/// ρ of both models against one table of distances between entities, with its `replicates`.
///
/// A bootstrap of centroids lies below the estimate, since resampled centroids scatter twice as much;
/// its spread is right. So the intervals are estimate ± q·spread, simultaneous over before, after and
/// their difference.
fn measure(
    apart: &[Vec<f64>],
    observed: &[Distances; 2],
    replicates: &[Vec<f64>],
    seed: u64,
) -> Option<FabricMeasure> {
    let before = mantel(apart, &observed[0], RELABELLINGS, seed)?;
    let after = mantel(apart, &observed[1], RELABELLINGS, seed)?;
    let values = [before.rho, after.rho, after.rho - before.rho];
    let ends = max_t_by_spread(&values, replicates, 0.95);
    let estimate = |i: usize, most: f64| {
        if replicates.is_empty() {
            return Estimate::bare(values[i]);
        }
        Estimate::with(values[i], ends[i].map(|end| end.clamp(-most, most)), CiKind::MaxT)
    };
    let before_estimate = estimate(0, 1.0);
    Some(FabricMeasure {
        before: before_estimate,
        after: estimate(1, 1.0),
        delta: estimate(2, 2.0),
        ratio: ratio(before_estimate, after.rho, replicates),
        p: BeforeAfter { before: before.p, after: after.p },
    })
}

/// after / before, unless the interval of `before` reaches below [`LEAST_BEFORE`].
fn ratio(before: Estimate, after: f64, replicates: &[Vec<f64>]) -> Option<Estimate> {
    before.ci.filter(|ci| ci[0] >= LEAST_BEFORE)?;
    let value = after / before.value;
    let drawn: Vec<Vec<f64>> =
        replicates.iter().map(|rhos| vec![rhos[1] / rhos[0].max(LEAST_BEFORE / 2.0)]).collect();
    let ends = max_t_by_spread(&[value], &drawn, 0.95);
    ends.first().map(|ci| Estimate::with(value, *ci, CiKind::MaxT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thesaurus::parse;
    use recipes::draws;
    use statistics::number::single;

    const RESAMPLER: Resampler = Resampler { seed: 3, draws: 200 };
    const WIDTH: usize = 16;
    const IDS: [&str; 9] = ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2"];

    fn thesaurus() -> Thesaurus {
        let class = |id: &str| {
            format!("  {id}: {{ facet: subject, counted: false, label: {{ en: {id} }} }}\n")
        };
        let leaf = |id: &&str| {
            let place = match &id[..1] {
                "c" => "facet: color".to_owned(),
                class => format!("facet: subject, broader: {class}"),
            };
            format!("  {id}: {{ {place}, label: {{ en: {id} }} }}\n")
        };
        let leaves: Vec<String> = IDS.iter().map(leaf).collect();
        let text = format!(
            "schema: populate/thesaurus/1\nid: nine\nlanguages: [en]\n\
             facets: {{ subject: {{}}, color: {{}} }}\nentities:\n{}{}{}",
            class("a"),
            class("b"),
            leaves.concat()
        );
        parse(&text, "test").unwrap()
    }

    fn noise(sample: u64, size: f64) -> Vec<f64> {
        let mut stream = draws::stream(8, 0, sample, draws::Purpose::Noise);
        draws::normals(&mut stream, WIDTH).into_iter().map(|x| size * f64::from(x)).collect()
    }

    /// Entities of one class lie close together; the size of the noise says how far pictures stray.
    fn embeddings(stray: f64, model: u64, per_entity: u64) -> Vec<Vec<Vec<f32>>> {
        (0..9_u64)
            .map(|entity| {
                let mut center = noise(entity / 3, 1.0);
                add_scaled(&mut center, &noise(10 + entity, 0.5), 1.0);
                let picture = |i: u64| -> Vec<f32> {
                    let mut one = center.clone();
                    let sample = 1000 + model * 10_000 + entity * 100 + i;
                    add_scaled(&mut one, &noise(sample, stray), 1.0);
                    one.into_iter().map(single).collect()
                };
                (0..per_entity).map(picture).collect()
            })
            .collect()
    }

    fn entities<'a>(
        base: &'a [Vec<Vec<f32>>],
        adapted: &'a [Vec<Vec<f32>>],
        words: &'a [Vec<f32>],
    ) -> Vec<FabricEntity<'a>> {
        let named = |pictures: &'a [Vec<f32>]| -> Vec<Named<'a>> {
            let numbered = (0_u32..).zip(pictures);
            numbered.map(|(seed_idx, embedding)| Named { seed_idx, embedding }).collect()
        };
        (0..9)
            .map(|e| FabricEntity {
                id: IDS[e],
                words: &words[e],
                base: named(&base[e]),
                adapted: named(&adapted[e]),
            })
            .collect()
    }

    fn words() -> Vec<Vec<f32>> {
        embeddings(0.0, 0, 1).into_iter().flatten().collect()
    }

    #[test]
    fn paths_lead_through_classes_facets_and_the_thesaurus() {
        let ids: Vec<String> = ["a0", "a1", "b0", "c0", "c1"].map(str::to_owned).to_vec();
        let paths = tree_distances(&thesaurus(), &ids).unwrap();
        // a0–a1 by a; a0–b0 by a, subject, b; a0–c0 by a, subject, thesaurus, color; c0–c1 by color.
        assert_eq!(paths[0], vec![0.0, 2.0, 4.0, 5.0, 5.0]);
        assert_eq!(paths[3], vec![5.0, 5.0, 5.0, 0.0, 2.0]);
        let error = tree_distances(&thesaurus(), &["ghost".to_owned()]).unwrap_err();
        assert!(error.contains("`ghost`"), "{error}");
    }

    #[test]
    fn scattered_pictures_lose_the_fabric() {
        let (base, torn, words) = (embeddings(0.3, 1, 12), embeddings(30.0, 2, 12), words());
        let found = fabric(&thesaurus(), &entities(&base, &torn, &words), RESAMPLER).unwrap();
        assert_eq!((found.entities.len(), found.pictures), (9, 12));
        for measure in [&found.tree, &found.words] {
            assert!(measure.before.value > 0.5, "{measure:?}");
            assert!(
                measure.delta.value < -0.2 && measure.delta.ci.unwrap()[1] < 0.0,
                "{measure:?}"
            );
            assert!(measure.p.before < 0.01, "{measure:?}");
            let ratio = measure.ratio.unwrap();
            assert!((ratio.value - measure.after.value / measure.before.value).abs() < 1e-12);
            assert!(ratio.ci.unwrap()[1] < 1.0, "{ratio:?}");
        }
        let back = fabric(&thesaurus(), &entities(&torn, &base, &words), RESAMPLER).unwrap();
        assert!((back.words.delta.value + found.words.delta.value).abs() < 1e-12);
        assert_eq!(back.words.ratio, None, "nothing is divided by a fabric that is not there");
    }

    #[test]
    fn a_zero_adapter_keeps_the_fabric_exactly() {
        let (base, words) = (embeddings(0.5, 1, 8), words());
        let found = fabric(&thesaurus(), &entities(&base, &base, &words), RESAMPLER).unwrap();
        assert_eq!(found.tree.delta.value.to_bits(), 0.0_f64.to_bits());
        let [low, high] = found.tree.delta.ci.unwrap();
        assert!(low.abs() < f64::EPSILON && high.abs() < f64::EPSILON);
        assert!((found.tree.ratio.unwrap().value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn models_are_compared_on_equally_many_pictures_of_the_same_seeds() {
        let (base, words) = (embeddings(0.5, 1, 12), words());
        let mut few = entities(&base, &base, &words);
        // The adapted model was verified on the last six seeds only, in another order.
        for entity in &mut few {
            entity.adapted = entity.adapted.iter().rev().take(6).copied().collect();
        }
        let found = fabric(&thesaurus(), &few, RESAMPLER).unwrap();
        assert_eq!(found.pictures, 6);
        assert!(found.tree.delta.value.abs() < 1e-12, "the six seeds are the same: {found:?}");
    }

    #[test]
    fn too_few_entities_are_refused_with_their_number() {
        let (base, words) = (embeddings(0.5, 1, 6), words());
        let all = entities(&base, &base, &words);
        let reason = fabric(&thesaurus(), &all[..7], RESAMPLER).unwrap_err();
        assert!(reason.starts_with("7 entities"), "{reason}");
        let mut thin = all;
        for entity in &mut thin[..2] {
            entity.adapted.truncate(4);
        }
        assert!(fabric(&thesaurus(), &thin, RESAMPLER).is_err());
    }
}
