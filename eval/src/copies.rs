//! Owns collapse and copying: how near the pictures of a concept come to the references it was settled
//! from, and how many of them there are in effect. Pure: works on embeddings.

use crate::record::{BeforeAfter, CopiesRecord, NearestReference};
use crate::scatter::scattered;
use rayon::prelude::*;
use statistics::algebra::dot;
use statistics::interval::{CiKind, Estimate, Resampler, percentile};
use statistics::kernel::{cosines, gini, vendi};
use statistics::number::{index, mean, real};

/// Fewest references: with one alone nothing can be left out.
pub const LEAST_REFERENCES: usize = 2;
/// Share of base pictures that may lie above the threshold of a copy.
pub const FALSE_COPIES: f64 = 0.01;

/// Embeddings of one kind of picture, prompt after prompt; position `i` of both lists is the same seed
/// of the same prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn<'a> {
    /// Pictures per prompt.
    pub lengths: &'a [usize],
    /// The base's pictures.
    pub base: &'a [Vec<f32>],
    /// The adapted model's pictures.
    pub adapted: &'a [Vec<f32>],
}

/// All that collapse and copying are judged from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopiesInput<'a> {
    /// Unit embeddings of the references.
    pub references: &'a [Vec<f32>],
    /// Their paths within the census.
    pub paths: &'a [String],
    /// Pictures asked by the identifier.
    pub asked: Drawn<'a>,
    /// Pictures asked by the class alone; without any there is no PRES.
    pub class: Option<Drawn<'a>>,
}

/// CLIP-I, copies, nearest references, Vendi scores and PRES.
///
/// # Errors
///
/// The reason for a refusal: fewer than [`LEAST_REFERENCES`] references, a prompt with fewer than two
/// pictures, lists of unequal length.
pub fn copies(input: &CopiesInput<'_>, resampler: Resampler) -> Result<CopiesRecord, String> {
    check(input)?;
    let references = Table::between(input.references, input.references);
    let alone = references.leave_one_out();
    let [base, adapted] =
        [input.asked.base, input.asked.adapted].map(|own| Table::between(own, input.references));
    let largest_alone = alone.iter().map(|(_, most)| *most).fold(-1.0, f64::max);
    let copy_threshold = base.upper(FALSE_COPIES).max(largest_alone);
    let counts = BeforeAfter { before: base.nearest_counts(), after: adapted.nearest_counts() };
    let lengths = input.asked.lengths;
    let spread = |table: &Table| bootstrapped(&table.means(), lengths, resampler);
    let (vendi_before, higher_before) = diversity(input.asked.base, lengths, resampler)?;
    let (vendi_after, higher_after) = diversity(input.asked.adapted, lengths, resampler)?;
    let nearest = input.paths.iter().zip(&counts.after);
    Ok(CopiesRecord {
        pictures: count(input.asked.base.len()),
        among_references: mean(&alone.iter().map(|(middle, _)| *middle).collect::<Vec<f64>>())
            .unwrap_or(0.0),
        clip_i: BeforeAfter { before: spread(&base), after: spread(&adapted) },
        copy_threshold,
        copies: BeforeAfter {
            before: base.above(copy_threshold),
            after: adapted.above(copy_threshold),
        },
        black_hole: BeforeAfter {
            before: gini(&counts.before).unwrap_or(0.0),
            after: gini(&counts.after).unwrap_or(0.0),
        },
        nearest: nearest
            .map(|(picture, &pictures)| NearestReference { picture: picture.clone(), pictures })
            .collect(),
        vendi: BeforeAfter { before: vendi_before, after: vendi_after },
        vendi_higher: BeforeAfter { before: higher_before, after: higher_after },
        prior_resemblance: input
            .class
            .map(|class| prior_resemblance(class, input.references, resampler)),
    })
}

fn check(input: &CopiesInput<'_>) -> Result<(), String> {
    if input.references.len() < LEAST_REFERENCES {
        return Err(format!(
            "{} reference pictures, at least {LEAST_REFERENCES} are needed",
            input.references.len()
        ));
    }
    let classes = input.class.iter();
    for drawn in std::iter::once(&input.asked).chain(classes) {
        let n: usize = drawn.lengths.iter().sum();
        if drawn.base.len() != n || drawn.adapted.len() != n || n == 0 {
            return Err(format!(
                "{} pictures of the base and {} of the adapted model for {n} seeds",
                drawn.base.len(),
                drawn.adapted.len()
            ));
        }
    }
    if input.asked.lengths.iter().any(|&n| n < 2) {
        return Err("a prompt has fewer than two pictures".to_owned());
    }
    Ok(())
}

/// Cosines of pictures (rows) with references.
struct Table(Vec<Vec<f64>>);

impl Table {
    fn between(pictures: &[Vec<f32>], references: &[Vec<f32>]) -> Self {
        let wide = |rows: &[Vec<f32>]| -> Vec<Vec<f64>> {
            rows.iter().map(|row| row.iter().copied().map(f64::from).collect()).collect()
        };
        let (pictures, references) = (wide(pictures), wide(references));
        let row = |picture: &Vec<f64>| -> Vec<f64> {
            references.iter().map(|reference| dot(picture, reference)).collect()
        };
        Self(pictures.iter().map(row).collect())
    }

    /// Of a square table: mean and largest cosine of each row with the other columns.
    fn leave_one_out(&self) -> Vec<(f64, f64)> {
        let one = |(i, row): (usize, &Vec<f64>)| {
            let others = row.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, cosine)| *cosine);
            let others: Vec<f64> = others.collect();
            (mean(&others).unwrap_or(0.0), others.iter().copied().fold(-1.0, f64::max))
        };
        self.0.iter().enumerate().map(one).collect()
    }

    /// CLIP-I of each picture: its mean cosine with all references.
    fn means(&self) -> Vec<f64> {
        self.0.iter().map(|row| mean(row).unwrap_or(0.0)).collect()
    }

    /// Cosine of each picture with its nearest reference.
    fn largest(&self) -> Vec<f64> {
        self.0.iter().map(|row| row.iter().copied().fold(-1.0, f64::max)).collect()
    }

    /// Cosine with the nearest reference above which only `share` of the pictures lie.
    fn upper(&self, share: f64) -> f64 {
        let mut sorted = self.largest();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted.get(index(share * real(sorted.len()))).copied().unwrap_or(1.0)
    }

    fn above(&self, threshold: f64) -> u64 {
        count(self.largest().into_iter().filter(|&cosine| cosine > threshold).count())
    }

    /// How often each reference is the nearest; ties go to the first.
    fn nearest_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.0.first().map_or(0, Vec::len)];
        for row in &self.0 {
            let mut best = 0;
            for (j, cosine) in row.iter().enumerate() {
                if *cosine > row[best] {
                    best = j;
                }
            }
            if let Some(slot) = counts.get_mut(best) {
                *slot += 1;
            }
        }
        counts
    }
}

/// Mean over all pictures with percentiles over seeds.
fn bootstrapped(values: &[f64], lengths: &[usize], resampler: Resampler) -> Estimate {
    let middle = mean(values).unwrap_or(0.0);
    let draws: Vec<f64> = (0..resampler.draws)
        .map(|draw| {
            let positions = numbered(&resampler.positions(draw, lengths), lengths);
            mean(&positions.iter().map(|&i| values[i]).collect::<Vec<f64>>()).unwrap_or(0.0)
        })
        .collect();
    percentile(&draws, 0.95).map_or(Estimate::bare(middle), |[low, high]| {
        Estimate::with(middle, [low.min(middle), high.max(middle)], CiKind::Percentile)
    })
}

/// Positions within each prompt as positions among all pictures.
fn numbered(positions: &[Vec<usize>], lengths: &[usize]) -> Vec<usize> {
    let mut first = 0;
    let mut all = Vec::new();
    for (drawn, n) in positions.iter().zip(lengths) {
        all.extend(drawn.iter().map(|i| first + i));
        first += n;
    }
    all
}

/// Vendi scores, mean over prompts: order 1 with its interval, orders 2 and ∞.
///
/// A bootstrap draws some pictures twice, so that its scores lie below the estimate: only their scatter
/// is used.
fn diversity(
    pictures: &[Vec<f32>],
    lengths: &[usize],
    resampler: Resampler,
) -> Result<(Estimate, [f64; 2]), String> {
    let mut first = 0;
    let mut tables: Vec<Vec<Vec<f64>>> = Vec::new();
    for &n in lengths {
        tables.push(cosines(&pictures[first..first + n]));
        first += n;
    }
    let scores: Option<Vec<[f64; 3]>> = tables.iter().map(|table| vendi(table)).collect();
    let scores = scores.ok_or("a prompt has no pictures")?;
    let over_prompts =
        |order: usize| mean(&scores.iter().map(|s| s[order]).collect::<Vec<f64>>()).unwrap_or(0.0);
    let draws: Vec<f64> = (0..resampler.draws)
        .into_par_iter()
        .map(|draw| {
            let positions = resampler.positions(draw, lengths);
            let one = |(table, drawn): (&Vec<Vec<f64>>, &Vec<usize>)| -> f64 {
                let chosen: Vec<Vec<f64>> =
                    drawn.iter().map(|&i| drawn.iter().map(|&j| table[i][j]).collect()).collect();
                vendi(&chosen).map_or(1.0, |score| score[0])
            };
            mean(&tables.iter().zip(&positions).map(one).collect::<Vec<f64>>()).unwrap_or(1.0)
        })
        .collect();
    let most = lengths.iter().copied().map(real).fold(1.0, f64::max);
    let first_order = scattered(over_prompts(0), &draws, 1.0, most);
    Ok((first_order, [over_prompts(1), over_prompts(2)]))
}

/// PRES as after − before: a similarity has no zero, so only its change says something.
///
/// Source: Ruiz et al. 2023, arXiv:2208.12242, section 4.4 (prior preservation metric).
fn prior_resemblance(class: Drawn<'_>, references: &[Vec<f32>], resampler: Resampler) -> Estimate {
    let before = Table::between(class.base, references).means();
    let after = Table::between(class.adapted, references).means();
    let change: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    bootstrapped(&change, class.lengths, resampler)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLER: Resampler = Resampler { seed: 4, draws: 200 };

    fn axis(i: usize) -> Vec<f32> {
        (0..8).map(|j| if i == j { 1.0 } else { 0.0 }).collect()
    }

    /// cos·axis i + sin·axis j.
    fn between(i: usize, j: usize, cosine: f32) -> Vec<f32> {
        let sine = (1.0 - cosine * cosine).sqrt();
        axis(i).iter().zip(axis(j)).map(|(x, y)| cosine * x + sine * y).collect()
    }

    fn paths(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("pictures/references/{i}.png")).collect()
    }

    fn input<'a>(
        references: &'a [Vec<f32>],
        paths: &'a [String],
        asked: Drawn<'a>,
    ) -> CopiesInput<'a> {
        CopiesInput { references, paths, asked, class: None }
    }

    #[test]
    fn a_model_that_repeats_one_reference_is_a_black_hole() {
        let references: Vec<Vec<f32>> = (0..4).map(axis).collect();
        let paths = paths(4);
        let base: Vec<Vec<f32>> = (0..12).map(|i| between(4 + i % 4, i % 4, 0.9)).collect();
        let adapted = vec![axis(2); 12];
        let asked = Drawn { lengths: &[6, 6], base: &base, adapted: &adapted };
        let found = copies(&input(&references, &paths, asked), RESAMPLER).unwrap();
        assert!(found.black_hole.before.abs() < 1e-12, "{found:?}");
        assert!((found.black_hole.after - 0.75).abs() < 1e-12, "{found:?}");
        assert_eq!(found.nearest[2].pictures, 12);
        assert_eq!(found.nearest[2].picture, "pictures/references/2.png");
        assert_eq!((found.copies.before, found.copies.after), (0, 12));
        assert!((found.clip_i.after.value - 0.25).abs() < 1e-6, "{found:?}");
        assert!(found.among_references.abs() < 1e-12);
        assert!((found.vendi.after.value - 1.0).abs() < 1e-9, "{found:?}");
        let [low, high] = found.vendi.before.ci.unwrap();
        assert!(found.vendi.before.value > 3.7 && low > 1.5 && high <= 6.0, "{found:?}");
        assert!((found.vendi_higher.after[1] - 1.0).abs() < 1e-9);
        assert_eq!(found.prior_resemblance, None);
    }

    #[test]
    fn a_copy_is_nearer_than_the_base_comes_and_than_references_are_to_each_other() {
        let references = vec![axis(0), between(0, 1, 0.95), axis(2)];
        let paths = paths(3);
        let base: Vec<Vec<f32>> = (0..10).map(|i| between(2, 4 + i % 4, 0.5)).collect();
        let adapted: Vec<Vec<f32>> =
            (0..10).map(|i| between(2, 4, if i < 5 { 0.94 } else { 0.96 })).collect();
        let asked = Drawn { lengths: &[10], base: &base, adapted: &adapted };
        let found = copies(&input(&references, &paths, asked), RESAMPLER).unwrap();
        assert!((found.copy_threshold - 0.95).abs() < 1e-6, "{found:?}");
        assert_eq!((found.copies.before, found.copies.after), (0, 5));
        // Where the base itself comes nearer, its own 99th percentile is the threshold.
        let near: Vec<Vec<f32>> = (0..10).map(|_| between(2, 4, 0.97)).collect();
        let asked = Drawn { lengths: &[10], base: &near, adapted: &adapted };
        let found = copies(&input(&references, &paths, asked), RESAMPLER).unwrap();
        assert!((found.copy_threshold - 0.97).abs() < 1e-6);
        assert_eq!(found.copies.after, 0);
    }

    #[test]
    fn prior_resemblance_is_a_change() {
        let references = vec![axis(0), axis(0)];
        let paths = paths(2);
        let still: Vec<Vec<f32>> = (0..8).map(|_| between(3, 0, 0.8)).collect();
        let drawn: Vec<Vec<f32>> = (0..8).map(|_| between(0, 3, 0.8)).collect();
        let asked = Drawn { lengths: &[8], base: &still, adapted: &still };
        let class = Drawn { lengths: &[8], base: &still, adapted: &drawn };
        let with = CopiesInput { class: Some(class), ..input(&references, &paths, asked) };
        let found = copies(&with, RESAMPLER).unwrap().prior_resemblance.unwrap();
        assert!((found.value - 0.2).abs() < 1e-6, "{found:?}");
        let same = CopiesInput { class: Some(asked), ..with };
        let nothing = copies(&same, RESAMPLER).unwrap().prior_resemblance.unwrap();
        assert!(nothing.value.abs() < f64::EPSILON, "{nothing:?}");
    }

    #[test]
    fn refusals_say_what_was_missing() {
        let references = vec![axis(0)];
        let paths = paths(1);
        let pictures = vec![axis(1), axis(2)];
        let asked = Drawn { lengths: &[2], base: &pictures, adapted: &pictures };
        let reason = copies(&input(&references, &paths, asked), RESAMPLER).unwrap_err();
        assert!(reason.starts_with("1 reference"), "{reason}");
        let two = vec![axis(0), axis(3)];
        let unequal = Drawn { lengths: &[2], base: &pictures, adapted: &pictures[..1] };
        assert!(copies(&input(&two, &paths, unequal), RESAMPLER).is_err());
        let single = Drawn { lengths: &[1, 1], base: &pictures, adapted: &pictures };
        assert!(copies(&input(&two, &paths, single), RESAMPLER).is_err());
    }
}
