//! Owns directions in the network's innermost activations (h-space): how entities are told apart inside
//! it, before and after. Pure: works on activations that were averaged over the picture, and on what
//! the pictures bear.
//!
//! The direction of an entity is the difference between the mean activation of the pictures that bear
//! it and of those that do not. Two fits of the *same* direction from N pictures in d dimensions agree
//! at a cosine of about δ²/(δ² + 4d/N) only, δ being the distance of the means. So halves of the seeds
//! are fitted apart, and what two models agree in is held against what halves of one model agree in.

use crate::record::{BeforeAfter, DirectionEntity, DirectionsRecord};
use crate::scatter::scattered;
use rayon::prelude::*;
use recipes::draws;
use statistics::algebra::{cosine, principal_angles, unit};
use statistics::interval::Resampler;
use statistics::number::{mean, real};
use statistics::ranks::auc;

/// Fewest pictures that bear an entity, and that do not, in each model.
pub const LEAST_PICTURES: usize = 20;
/// A direction of lower reliability is not compared.
pub const LEAST_RELIABILITY: f64 = 0.2;
/// Splits into halves behind each figure.
const SPLITS: u64 = 8;
/// Least agreement of halves that a bootstrap draw may be divided by.
const LEAST_AGREEMENT: f64 = 0.02;

/// Activations of one model's pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activations<'a> {
    /// One row per picture: the mean over all places of the UNet's middle block.
    pub rows: &'a [Vec<f32>],
    /// What each picture bears: a position in [`DirectionsInput::entities`], or any number beyond for
    /// none of these.
    pub labels: &'a [u16],
}

/// All that directions are found from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DirectionsInput<'a> {
    /// t/T at which the activations were taken.
    pub level: f64,
    /// Entities of one facet.
    pub entities: &'a [String],
    /// The base's pictures.
    pub base: Activations<'a>,
    /// The adapted model's pictures; equal positions are the same seed.
    pub adapted: Activations<'a>,
}

/// What halves and models agree in for one entity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Reliability 2r/(1+r) of each model's direction, r the mean cosine of its halves.
    pub reliability: BeforeAfter<f64>,
    /// Mean cosine between one half of one model and the *other* half of the other, over √(`r_B·r_A`):
    /// the cosine of both directions without the error of either. May exceed 1 by chance. `None` where
    /// a reliability is below [`LEAST_RELIABILITY`].
    pub corrected: Option<f64>,
}

/// Directions of every entity with enough pictures.
///
/// # Errors
///
/// The reason for a refusal: no entity with [`LEAST_PICTURES`] pictures that bear it and as many that
/// do not in both models, or lists of unequal length.
pub fn directions(
    input: &DirectionsInput<'_>,
    resampler: Resampler,
) -> Result<DirectionsRecord, String> {
    check(input)?;
    let kept: Vec<usize> = (0..input.entities.len()).filter(|&e| enough(input, e)).collect();
    if kept.is_empty() {
        return Err(format!(
            "no entity is borne by {LEAST_PICTURES} pictures of both models and missing from as many"
        ));
    }
    let n = input.base.rows.len();
    let splits: Vec<Split> = (0..SPLITS)
        .into_par_iter()
        .map(|split| Split::new(input, halves(resampler.seed, split, n)))
        .collect();
    let drawn: Vec<Vec<Option<f64>>> = (0..resampler.draws)
        .into_par_iter()
        .map(|draw| {
            let split = Split::new(input, resampled(resampler, draw, n));
            kept.iter().map(|&e| split.cosines(e).and_then(ratio)).collect()
        })
        .collect();
    let mut entities = Vec::new();
    let mut reliable = Vec::new();
    for (place, &e) in kept.iter().enumerate() {
        let Some(agreement) = mean_agreement(&splits, e) else { continue };
        let scores = splits.first().and_then(|split| split.held_out(input, e));
        let Some(held_out) = scores else { continue };
        let replicates: Vec<f64> = drawn.iter().filter_map(|values| values[place]).collect();
        let capped = |value: f64| scattered(value.clamp(-1.0, 1.0), &replicates, -1.0, 1.0);
        if agreement.corrected.is_some() {
            reliable.push(e);
        }
        entities.push(DirectionEntity {
            id: input.entities[e].clone(),
            auc: held_out,
            reliability: agreement.reliability,
            cosine: agreement.corrected.map(capped),
        });
    }
    let spans = [input.base, input.adapted].map(|model| -> Vec<Vec<f64>> {
        reliable.iter().filter_map(|&e| direction(model, e)).collect()
    });
    Ok(DirectionsRecord {
        level: input.level,
        pictures: u64::try_from(n).unwrap_or(u64::MAX),
        entities,
        principal_angles: principal_angles(&spans[0], &spans[1]),
    })
}

/// Unit direction from the pictures without entity `e` to those with it; `None` if either is missing
/// or both have the same mean.
///
/// Source: Haas et al. 2024, arXiv:2303.11073 (h-space), with the class mean difference.
pub fn direction(model: Activations<'_>, e: usize) -> Option<Vec<f64>> {
    let all: Vec<usize> = (0..model.rows.len()).collect();
    unit(&Sums::of(model, &all).difference(e)?)
}

/// What halves and models agree in for entity `e`, mean over eight splits of the seeds; `None` if a half
/// lacks pictures with or without it.
pub fn agreement(input: &DirectionsInput<'_>, e: usize, seed: u64) -> Option<Agreement> {
    let n = input.base.rows.len().min(input.adapted.rows.len());
    let splits: Vec<Split> =
        (0..SPLITS).map(|split| Split::new(input, halves(seed, split, n))).collect();
    mean_agreement(&splits, e)
}

fn check(input: &DirectionsInput<'_>) -> Result<(), String> {
    let n = input.base.rows.len();
    let lengths = [input.base.labels.len(), input.adapted.rows.len(), input.adapted.labels.len()];
    if lengths.iter().any(|&length| length != n) {
        return Err(format!(
            "{n} activations of the base stand beside {} labels, {} activations of the adapted model \
             and {} labels of those",
            lengths[0], lengths[1], lengths[2]
        ));
    }
    let width = input.base.rows.first().map_or(0, Vec::len);
    let mut rows = input.base.rows.iter().chain(input.adapted.rows);
    if rows.any(|row| row.len() != width) {
        return Err("activations are of unequal width".to_owned());
    }
    Ok(())
}

fn enough(input: &DirectionsInput<'_>, e: usize) -> bool {
    [input.base, input.adapted].iter().all(|model| {
        let with = model.labels.iter().filter(|&&label| usize::from(label) == e).count();
        with >= LEAST_PICTURES && model.labels.len() - with >= LEAST_PICTURES
    })
}

/// The positions of `n` seeds in two random halves, the same for both models.
fn halves(seed: u64, split: u64, n: usize) -> [Vec<usize>; 2] {
    let mut order: Vec<usize> = (0..n).collect();
    let mut stream = draws::stream(seed, split, 4, draws::Purpose::Bootstrap);
    draws::shuffle(&mut stream, &mut order);
    let second = order.split_off(n / 2);
    [order, second]
}

/// A bootstrap draw: new halves, and each resampled by itself. A picture that stood in both would make
/// their errors one.
fn resampled(resampler: Resampler, draw: u32, n: usize) -> [Vec<usize>; 2] {
    let [first, second] = halves(resampler.seed, SPLITS + u64::from(draw), n);
    let positions = resampler.positions(draw, &[first.len(), second.len()]);
    let pick = |half: &[usize], drawn: &[usize]| drawn.iter().map(|&i| half[i]).collect();
    [pick(&first, &positions[0]), pick(&second, &positions[1])]
}

/// Sums of activations per label.
struct Sums {
    /// `[label][dimension]`
    sums: Vec<Vec<f64>>,
    /// Pictures per label.
    counts: Vec<usize>,
}

impl Sums {
    fn of(model: Activations<'_>, positions: &[usize]) -> Self {
        let width = model.rows.first().map_or(0, Vec::len);
        let n_labels = model.labels.iter().max().map_or(0, |most| usize::from(*most) + 1);
        let mut sums = vec![Vec::new(); n_labels];
        let mut counts = vec![0; n_labels];
        for &i in positions {
            let label = usize::from(model.labels[i]);
            let sum: &mut Vec<f64> = &mut sums[label];
            // Labels that do not occur take no memory.
            sum.resize(width, 0.0);
            for (total, value) in sum.iter_mut().zip(&model.rows[i]) {
                *total += f64::from(*value);
            }
            counts[label] += 1;
        }
        Self { sums, counts }
    }

    /// Mean with label `e` less mean without it; `None` if either is missing.
    fn difference(&self, e: usize) -> Option<Vec<f64>> {
        let with = self.counts.get(e).copied().filter(|&n| n > 0)?;
        let without = self.counts.iter().sum::<usize>() - with;
        if without == 0 {
            return None;
        }
        let own = &self.sums[e];
        let mut others = vec![0.0; own.len()];
        for (_, sum) in self.sums.iter().enumerate().filter(|(label, _)| *label != e) {
            for (total, value) in others.iter_mut().zip(sum) {
                *total += value;
            }
        }
        let pairs = own.iter().zip(&others);
        Some(pairs.map(|(a, b)| a / real(with) - b / real(without)).collect())
    }
}

/// Both models' sums over two halves of the seeds.
struct Split {
    halves: [Vec<usize>; 2],
    base: [Sums; 2],
    adapted: [Sums; 2],
}

impl Split {
    fn new(input: &DirectionsInput<'_>, halves: [Vec<usize>; 2]) -> Self {
        let of =
            |model: Activations<'_>| [Sums::of(model, &halves[0]), Sums::of(model, &halves[1])];
        let (base, adapted) = (of(input.base), of(input.adapted));
        Self { halves, base, adapted }
    }

    /// Cosines for entity `e`: of the base's halves, of the adapted model's halves, and between one
    /// half of one model and the other half of the other. With shared seeds, the *same* half of both
    /// models would err alike and look alike.
    fn cosines(&self, e: usize) -> Option<[f64; 3]> {
        let [b0, b1] = [self.base[0].difference(e)?, self.base[1].difference(e)?];
        let [a0, a1] = [self.adapted[0].difference(e)?, self.adapted[1].difference(e)?];
        let across = f64::midpoint(cosine(&b0, &a1)?, cosine(&b1, &a0)?);
        Some([cosine(&b0, &b1)?, cosine(&a0, &a1)?, across])
    }

    /// AUC of each half's direction on the other half, mean of both.
    fn held_out(&self, input: &DirectionsInput<'_>, e: usize) -> Option<BeforeAfter<f64>> {
        let of = |model: Activations<'_>, sums: &[Sums; 2]| -> Option<f64> {
            let one = |fitted: usize| -> Option<f64> {
                let along = sums[fitted].difference(e)?;
                let (mut with, mut without) = (Vec::new(), Vec::new());
                for &i in &self.halves[1 - fitted] {
                    let pairs = along.iter().zip(&model.rows[i]);
                    let score: f64 = pairs.map(|(w, h)| w * f64::from(*h)).sum();
                    if usize::from(model.labels[i]) == e {
                        with.push(score);
                    } else {
                        without.push(score);
                    }
                }
                auc(&with, &without)
            };
            Some(f64::midpoint(one(0)?, one(1)?))
        };
        Some(BeforeAfter {
            before: of(input.base, &self.base)?,
            after: of(input.adapted, &self.adapted)?,
        })
    }
}

/// Agreement across models over what halves agree in; `None` where that is next to nothing.
fn ratio([base, adapted, across]: [f64; 3]) -> Option<f64> {
    let least = base.min(adapted);
    (least > LEAST_AGREEMENT).then(|| across / libm::sqrt(base * adapted))
}

fn mean_agreement(splits: &[Split], e: usize) -> Option<Agreement> {
    let each: Vec<[f64; 3]> =
        splits.iter().map(|split| split.cosines(e)).collect::<Option<Vec<_>>>()?;
    let over = |which: usize| mean(&each.iter().map(|c| c[which]).collect::<Vec<f64>>());
    let means = [over(0)?, over(1)?, over(2)?];
    let reliability = |r: f64| 2.0 * r.max(0.0) / (1.0 + r.max(0.0));
    let reliability = BeforeAfter { before: reliability(means[0]), after: reliability(means[1]) };
    let least = reliability.before.min(reliability.after);
    let corrected = ratio(means).filter(|_| least >= LEAST_RELIABILITY);
    Some(Agreement { reliability, corrected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use statistics::number::single;

    const RESAMPLER: Resampler = Resampler { seed: 2, draws: 100 };
    const WIDTH: usize = 12;

    fn activations(axis: usize, apart: f64, sample: u64) -> (Vec<Vec<f32>>, Vec<u16>) {
        wide_activations(WIDTH, axis, apart, sample)
    }

    /// Three labels in turn; pictures of the first lie `apart` along `axis`, those of the second along
    /// the last axis.
    fn wide_activations(
        width: usize,
        axis: usize,
        apart: f64,
        sample: u64,
    ) -> (Vec<Vec<f32>>, Vec<u16>) {
        let labels: Vec<u16> = (0..240).map(|i| i % 3).collect();
        let rows = (0_u64..).zip(&labels).map(|(i, label)| {
            let mut stream = draws::stream(sample, i, 0, draws::Purpose::Noise);
            let mut row: Vec<f64> =
                draws::normals(&mut stream, width).into_iter().map(f64::from).collect();
            match label {
                0 => row[axis] += apart,
                1 => row[width - 1] += apart,
                _ => {}
            }
            row.into_iter().map(single).collect()
        });
        (rows.collect(), labels)
    }

    fn names() -> Vec<String> {
        ["lamp", "boat", "never"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_zero_adapter_leaves_every_direction_where_it_was() {
        let (rows, labels) = activations(0, 2.0, 1);
        let model = Activations { rows: &rows, labels: &labels };
        let names = names();
        let entities = &names[..2];
        let input = DirectionsInput { level: 0.5, entities, base: model, adapted: model };
        let found = directions(&input, RESAMPLER).unwrap();
        assert_eq!((found.pictures, found.entities.len()), (240, 2));
        for entity in &found.entities {
            let cosine = entity.cosine.unwrap();
            assert!((cosine.value - 1.0).abs() < 1e-9, "{entity:?}");
            assert!(cosine.ci.unwrap()[0] > 1.0 - 1e-6, "{entity:?}");
            assert!(entity.reliability.before > 0.8 && entity.auc.before > 0.8, "{entity:?}");
            assert!((entity.auc.before - entity.auc.after).abs() < 1e-12);
        }
        assert_eq!(found.principal_angles.len(), 2);
        assert!(found.principal_angles.iter().all(|angle| *angle < 1e-6), "{found:?}");
    }

    #[test]
    fn a_direction_that_turned_is_seen_to_have_turned() {
        let ((before, labels), (after, _)) = (activations(0, 3.0, 1), activations(5, 3.0, 2));
        let names = names();
        let input = DirectionsInput {
            level: 0.5,
            entities: &names[..2],
            base: Activations { rows: &before, labels: &labels },
            adapted: Activations { rows: &after, labels: &labels },
        };
        let found = directions(&input, RESAMPLER).unwrap();
        let [lamp, boat] = [0, 1].map(|e: usize| found.entities[e].cosine.unwrap());
        // `lamp` turned by a right angle, but both still point away from `boat`: 0.2 and 0.8.
        assert!(lamp.value < 0.4 && lamp.ci.unwrap()[1] < 0.6, "{lamp:?}");
        assert!(boat.value > 0.65 && boat.value < 0.95, "{boat:?}");
        let angles = &found.principal_angles;
        assert!(angles[0] < 0.6 && angles[1] > 1.0, "{angles:?}");
    }

    #[test]
    fn the_direction_of_one_entity_is_that_of_its_mean() {
        let rows = vec![vec![3.0_f32, 0.0], vec![1.0, 0.0], vec![0.0, 1.0], vec![0.0, 3.0]];
        let model = Activations { rows: &rows, labels: &[0, 0, 1, 2] };
        let found = direction(model, 0).unwrap();
        let half = libm::sqrt(0.5);
        assert!((found[0] - half).abs() < 1e-12 && (found[1] + half).abs() < 1e-12, "{found:?}");
        assert_eq!(direction(model, 7), None);
        assert_eq!(direction(Activations { rows: &rows, labels: &[0; 4] }, 0), None);
    }

    #[test]
    fn what_halves_do_not_agree_in_is_not_compared() {
        let (rows, labels) = wide_activations(400, 0, 0.0, 3);
        let model = Activations { rows: &rows, labels: &labels };
        let names = names();
        let input =
            DirectionsInput { level: 0.5, entities: &names[..1], base: model, adapted: model };
        let found = directions(&input, RESAMPLER).unwrap();
        assert!(found.entities[0].reliability.before < LEAST_RELIABILITY, "{found:?}");
        assert_eq!(found.entities[0].cosine, None);
        assert!(found.principal_angles.is_empty());
    }

    #[test]
    fn rare_entities_and_unequal_lists_are_refused() {
        let (rows, labels) = activations(0, 2.0, 1);
        let few: Vec<u16> = (0..240).map(|i| u16::from(i >= 19)).collect();
        let names = names();
        let (whole, rare) = (
            Activations { rows: &rows, labels: &labels },
            Activations { rows: &rows, labels: &few },
        );
        let entities = &names[..1];
        let input = DirectionsInput { level: 0.5, entities, base: whole, adapted: rare };
        assert!(directions(&input, RESAMPLER).unwrap_err().contains("20 pictures"));
        let short = Activations { rows: &rows[..200], labels: &labels };
        let input = DirectionsInput { level: 0.5, entities, base: whole, adapted: short };
        assert!(directions(&input, RESAMPLER).is_err());
    }
}
