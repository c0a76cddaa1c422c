//! The similarity shift: how the evaluator's mean cosine between an entity's words and the pictures
//! changes. Always the raw cosine in [−1, 1]; other scales belong to the display.

use statistics::contingency::difference;
use statistics::interval::{Replicate, Resampler, max_t, max_t_by_spread};
use statistics::number::{mean, real};

/// Fewest pictures per asked entity for an interval of each cell. The studentised bootstrap of fewer
/// is too narrow: with 8 pictures it marks cells on nine of ten pages on which nothing changed.
pub const LEAST_PICTURES: usize = 32;

/// Cosines of the pictures of one prompt; position `i` of both lists is the same seed.
#[derive(Clone, Debug, PartialEq)]
pub struct CosineBlock {
    /// Weight of the prompt; used by unasked means only.
    pub weight: f64,
    /// Base pictures: `[seed][entity]`.
    pub base: Vec<Vec<f32>>,
    /// Adapted pictures: `[seed][entity]`.
    pub adapted: Vec<Vec<f32>>,
}

/// Means of several cosines before and after, with simultaneous intervals of the change.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// Mean in the base.
    pub before: Vec<f64>,
    /// Mean in the adapted model.
    pub after: Vec<f64>,
    /// After − before.
    pub delta: Vec<f64>,
    /// 95 % simultaneous interval of `delta` (max-t over all entries).
    pub intervals: Vec<[f64; 2]>,
}

/// C\[e\]\[g\]: mean cosine of entity `e`'s words with pictures asked for `g`, before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedMatrix {
    /// `[entity][asked]`, base.
    pub before: Vec<Vec<f64>>,
    /// `[entity][asked]`, adapted.
    pub after: Vec<Vec<f64>>,
    /// ΔC = after − before.
    pub delta: Vec<Vec<f64>>,
    /// Simultaneous intervals of ΔC over all cells; `None` if an asked entity has fewer than
    /// [`LEAST_PICTURES`] pictures, since every cell takes part in every interval.
    pub intervals: Option<Vec<Vec<[f64; 2]>>>,
    /// ΔC − row mean − column mean + grand mean.
    pub centered: Vec<Vec<f64>>,
    /// Simultaneous intervals of the double-centered ΔC, or `None` likewise.
    pub centered_intervals: Option<Vec<Vec<[f64; 2]>>>,
}

/// Mean per entity over one block's pictures, base and adapted, and the standard error of the change.
struct BlockMeans {
    before: Vec<f64>,
    after: Vec<f64>,
    error: Vec<f64>,
}

impl CosineBlock {
    fn n_entities(&self) -> usize {
        self.base.first().map_or(0, Vec::len)
    }

    fn means(&self, positions: Option<&[usize]>) -> BlockMeans {
        let k = self.n_entities();
        let (mut before, mut after, mut square) = (vec![0.0; k], vec![0.0; k], vec![0.0; k]);
        let mut add = |i: usize| {
            for e in 0..k {
                let (b, a) = (f64::from(self.base[i][e]), f64::from(self.adapted[i][e]));
                before[e] += b;
                after[e] += a;
                square[e] += (a - b) * (a - b);
            }
        };
        let n = if let Some(positions) = positions {
            for &i in positions {
                add(i);
            }
            real(positions.len()).max(1.0)
        } else {
            (0..self.base.len()).for_each(add);
            real(self.base.len()).max(1.0)
        };
        for e in 0..k {
            (before[e], after[e]) = (before[e] / n, after[e] / n);
            let spread = (square[e] / n - (after[e] - before[e]).powi(2)).max(0.0);
            square[e] = libm::sqrt(spread / n);
        }
        BlockMeans { before, after, error: square }
    }
}

fn lengths(blocks: &[CosineBlock]) -> Vec<usize> {
    blocks.iter().map(|block| block.base.len()).collect()
}

/// S\[e\] = Σ `ω_j·mean` over prompt j's neutral pictures of `cos(t_e`, f(x)), before and after.
pub fn unasked(blocks: &[CosineBlock], resampler: Resampler) -> Shift {
    let k = blocks.first().map_or(0, CosineBlock::n_entities);
    let weighted = |positions: Option<&[Vec<usize>]>| {
        let (mut before, mut after, mut variance) = (vec![0.0; k], vec![0.0; k], vec![0.0; k]);
        for (j, block) in blocks.iter().enumerate() {
            let means = block.means(positions.map(|p| p[j].as_slice()));
            for e in 0..k {
                before[e] += block.weight * means.before[e];
                after[e] += block.weight * means.after[e];
                variance[e] += (block.weight * means.error[e]).powi(2);
            }
        }
        (before, after, variance.into_iter().map(libm::sqrt).collect::<Vec<f64>>())
    };
    let (before, after, errors) = weighted(None);
    let replicates: Vec<Replicate> = (0..resampler.draws)
        .map(|draw| {
            let (b, a, errors) = weighted(Some(&resampler.positions(draw, &lengths(blocks))));
            Replicate { values: difference(&a, &b), errors }
        })
        .collect();
    let delta = difference(&after, &before);
    let intervals = max_t(&delta, &errors, &replicates, 0.95);
    Shift { before, after, delta, intervals }
}

/// The asked matrix from one block per asked entity.
pub fn asked(blocks: &[CosineBlock], resampler: Resampler) -> AskedMatrix {
    let k = blocks.first().map_or(0, CosineBlock::n_entities);
    let flat = |positions: Option<&[Vec<usize>]>| {
        let (mut before, mut after, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (g, block) in blocks.iter().enumerate() {
            let means = block.means(positions.map(|p| p[g].as_slice()));
            before.extend(means.before);
            after.extend(means.after);
            errors.extend(means.error);
        }
        (before, after, errors)
    };
    let rows = |flat: &[f64]| transpose(flat, k, blocks.len());
    let center = |delta: &[f64]| -> Vec<f64> { transpose_back(&double_centered(&rows(delta))) };
    let (before, after, errors) = flat(None);
    let delta = difference(&after, &before);
    let centered = center(&delta);
    let enough = blocks.iter().all(|block| block.base.len() >= LEAST_PICTURES);
    let both = enough.then(|| {
        let replicates: Vec<Replicate> = (0..resampler.draws)
            .map(|draw| {
                let (b, a, errors) = flat(Some(&resampler.positions(draw, &lengths(blocks))));
                Replicate { values: difference(&a, &b), errors }
            })
            .collect();
        let centered_draws: Vec<Vec<f64>> = replicates.iter().map(|r| center(&r.values)).collect();
        let raw = max_t(&delta, &errors, &replicates, 0.95);
        [raw, max_t_by_spread(&centered, &centered_draws, 0.95)]
            .map(|intervals| transpose(&intervals, k, blocks.len()))
    });
    let (intervals, centered_intervals) = both.map(|[raw, centered]| (raw, centered)).unzip();
    AskedMatrix {
        before: rows(&before),
        after: rows(&after),
        delta: rows(&delta),
        intervals,
        centered: rows(&centered),
        centered_intervals,
    }
}

/// `[asked][entity]` laid flat → `[entity][asked]`.
fn transpose<T: Copy>(flat: &[T], n_entities: usize, n_asked: usize) -> Vec<Vec<T>> {
    (0..n_entities).map(|e| (0..n_asked).map(|g| flat[g * n_entities + e]).collect()).collect()
}

/// `[entity][asked]` → `[asked][entity]` laid flat.
fn transpose_back(rows: &[Vec<f64>]) -> Vec<f64> {
    let n_asked = rows.first().map_or(0, Vec::len);
    (0..n_asked).flat_map(|g| rows.iter().map(move |row| row[g])).collect()
}

/// C − row mean − column mean + grand mean: removes the offset that all words share with all
/// pictures (the modality gap) as well as words and pictures that are close to everything.
pub fn double_centered(c: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n_columns = c.first().map_or(0, Vec::len);
    let row_means: Vec<f64> = c.iter().map(|row| mean(row).unwrap_or(0.0)).collect();
    let column_means: Vec<f64> = (0..n_columns)
        .map(|g| mean(&c.iter().map(|row| row[g]).collect::<Vec<_>>()).unwrap_or(0.0))
        .collect();
    let grand = mean(&row_means).unwrap_or(0.0);
    c.iter()
        .zip(&row_means)
        .map(|(row, row_mean)| {
            row.iter().zip(&column_means).map(|(x, column)| x - row_mean - column + grand).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLER: Resampler = Resampler { seed: 2, draws: 500 };

    /// KAT `delta`: two words, pictures asked for the first turn by 30°.
    #[test]
    fn a_turn_of_thirty_degrees_shifts_both_words() {
        let (cos, sin) = (30.0_f32.to_radians().cos(), 30.0_f32.to_radians().sin());
        let block = CosineBlock {
            weight: 1.0,
            base: vec![vec![1.0, 0.0]; 4],
            adapted: vec![vec![cos, sin]; 4],
        };
        let matrix = asked(std::slice::from_ref(&block), RESAMPLER);
        assert!((matrix.delta[0][0] + 0.133_975).abs() < 1e-6, "{matrix:?}");
        assert!((matrix.delta[1][0] - 0.5).abs() < 1e-6, "{matrix:?}");
        let shift = unasked(&[block], RESAMPLER);
        assert!((shift.delta[0] + 0.133_975).abs() < 1e-6 && (shift.before[0] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn cells_keep_their_place() {
        let block = |b: [f32; 2], a: [f32; 2]| CosineBlock {
            weight: 0.5,
            base: vec![b.to_vec(); 3],
            adapted: vec![a.to_vec(); 3],
        };
        // Asked 0 moves entity 1; asked 1, 2 move nothing.
        let blocks = [
            block([0.5, 0.1], [0.5, 0.3]),
            block([0.1, 0.6], [0.1, 0.6]),
            block([0.2; 2], [0.2; 2]),
        ];
        let matrix = asked(&blocks, RESAMPLER);
        assert_eq!((matrix.delta.len(), matrix.delta[0].len()), (2, 3));
        assert!((matrix.delta[1][0] - 0.2).abs() < 1e-6 && matrix.delta[0][0].abs() < 1e-6);
        assert!((matrix.before[1][1] - 0.6).abs() < 1e-6);
    }

    #[test]
    fn cells_have_intervals_only_where_there_are_pictures_enough() {
        let block = |n: usize| CosineBlock {
            weight: 1.0,
            base: vec![vec![0.2, 0.1]; n],
            adapted: vec![vec![0.2, 0.3]; n],
        };
        let full = asked(&[block(32), block(32)], RESAMPLER);
        let intervals = full.intervals.unwrap();
        assert_eq!((intervals.len(), intervals[0].len()), (2, 2));
        assert!(full.centered_intervals.is_some());
        let thin = asked(&[block(32), block(31)], RESAMPLER);
        assert_eq!((thin.intervals, thin.centered_intervals), (None, None));
        assert!((thin.delta[1][1] - 0.2).abs() < 1e-6, "the figures themselves are given");
    }

    #[test]
    fn double_centering_leaves_no_margin() {
        let centered = double_centered(&[vec![0.31, 0.20, 0.25], vec![0.22, 0.35, 0.20]]);
        for row in &centered {
            assert!(row.iter().sum::<f64>().abs() < 1e-12);
        }
        assert!((centered[0][0] + centered[1][0]).abs() < 1e-12);
        assert!(centered[0][0] > 0.0 && centered[1][1] > 0.0);
        // An offset common to all cells, a row or a column changes nothing.
        let shifted = double_centered(&[vec![0.41, 0.30, 0.45], vec![0.32, 0.45, 0.40]]);
        for (a, b) in centered.iter().flatten().zip(shifted.iter().flatten()) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_pictures_shift_by_exactly_nothing() {
        let rows: Vec<Vec<f32>> = (0..20_u8).map(|i| vec![f32::from(i) / 40.0, 0.1]).collect();
        let block = CosineBlock { weight: 1.0, base: rows.clone(), adapted: rows };
        let shift = unasked(&[block], RESAMPLER);
        assert!(shift.delta.iter().all(|d| d.abs() < f64::EPSILON));
        assert!(shift.intervals.iter().flatten().all(|end| end.abs() < f64::EPSILON));
    }

    #[test]
    fn intervals_cover_a_noisy_shift() {
        let noisy = |i: u16, step: f32| vec![step + f32::from(i * 37 % 17) / 100.0];
        let block = CosineBlock {
            weight: 1.0,
            base: (0..200).map(|i| noisy(i, 0.2)).collect(),
            adapted: (0..200).map(|i| noisy(i + 5, 0.25)).collect(),
        };
        let shift = unasked(&[block], RESAMPLER);
        let [low, high] = shift.intervals[0];
        assert!(low < 0.05 && 0.05 < high && high - low < 0.05 && low > 0.0, "{shift:?}");
    }
}
