//! The table of paired labels of one facet, and what is read off it: shares, differences with their
//! standard errors, total variation, and the parts of the disagreement.

use crate::number::{real, real_u64};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Labels of one prompt's pairs: position `i` of every list is the same seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Weight ω of the prompt in the headline; the weights of all blocks sum to 1.
    pub weight: f64,
    /// Category of the base's picture, per seed.
    pub base: Vec<u16>,
    /// Category of the adapted model's picture, per seed.
    pub adapted: Vec<u16>,
    /// The same for each placebo draw.
    pub placebos: Vec<Vec<u16>>,
}

/// All paired labels of one facet.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedLabels {
    /// Number of categories; every label is below it.
    pub n_categories: usize,
    /// One block per prompt.
    pub blocks: Vec<Block>,
}

/// Weighted shares of one facet, and differences with their standard errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    /// Share of each category in the base.
    pub base: Vec<f64>,
    /// Share of each category in the adapted model.
    pub adapted: Vec<f64>,
    /// Mean share over the placebo draws; empty without placebos.
    pub placebo: Vec<f64>,
    /// Standard error of `adapted − base`, never below Σω/N per prompt.
    pub delta_error: Vec<f64>,
    /// Standard error of `adapted − placebo`; empty without placebos.
    pub contrast_error: Vec<f64>,
}

impl Shares {
    /// Δ: adapted − base.
    pub fn delta(&self) -> Vec<f64> {
        difference(&self.adapted, &self.base)
    }

    /// Adapted − placebo; empty without placebos.
    pub fn contrast(&self) -> Vec<f64> {
        difference(&self.adapted, &self.placebo)
    }
}

/// `a − b`, as long as the shorter of the two.
pub fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

impl PairedLabels {
    /// Number of pairs in each block.
    pub fn lengths(&self) -> Vec<usize> {
        self.blocks.iter().map(|block| block.base.len()).collect()
    }

    /// Weight and number of pairs of each block.
    pub fn pools(&self) -> impl Iterator<Item = (f64, usize)> {
        self.blocks.iter().map(|block| (block.weight, block.base.len()))
    }

    /// Number of pairs in all blocks.
    pub fn n_pairs(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// Shares over all pairs, or over the `positions` that a bootstrap replicate drew.
    pub fn shares(&self, positions: Option<&[Vec<usize>]>) -> Shares {
        let placebo_width = self.blocks.first().map_or(0, |block| block.placebos.len());
        let empty = vec![0.0; self.n_categories];
        let none = if placebo_width == 0 { Vec::new() } else { empty.clone() };
        let mut shares = Shares {
            base: empty.clone(),
            adapted: empty.clone(),
            placebo: none.clone(),
            delta_error: empty,
            contrast_error: none,
        };
        for (j, block) in self.blocks.iter().enumerate() {
            let all: Vec<usize>;
            let drawn = if let Some(positions) = positions {
                &positions[j]
            } else {
                all = (0..block.base.len()).collect();
                &all
            };
            block.add_to(&mut shares, drawn);
        }
        for error in shares.delta_error.iter_mut().chain(&mut shares.contrast_error) {
            *error = libm::sqrt(*error);
        }
        shares
    }

    /// `n_ij`: pairs with category `i` in the base and `j` in the adapted model, over all blocks.
    pub fn table(&self) -> Vec<Vec<u64>> {
        let mut table = vec![vec![0; self.n_categories]; self.n_categories];
        for block in &self.blocks {
            for (&from, &to) in block.base.iter().zip(&block.adapted) {
                table[usize::from(from)][usize::from(to)] += 1;
            }
        }
        table
    }

    /// Weighted shares (base, adapted) after exchanging the models of every pair whose flag is set.
    /// `flips` has one flag per pair, block after block.
    pub fn flipped(&self, flips: &[bool]) -> (Vec<f64>, Vec<f64>) {
        let mut base = vec![0.0; self.n_categories];
        let mut adapted = base.clone();
        let mut flags = flips.iter();
        for block in &self.blocks {
            let unit = block.weight / real(block.base.len()).max(1.0);
            for ((&b, &a), &flip) in block.base.iter().zip(&block.adapted).zip(&mut flags) {
                let (b, a) = if flip { (a, b) } else { (b, a) };
                base[usize::from(b)] += unit;
                adapted[usize::from(a)] += unit;
            }
        }
        (base, adapted)
    }
}

impl Block {
    /// Adds this block's weighted shares and error *variances* over the `drawn` positions.
    fn add_to(&self, shares: &mut Shares, drawn: &[usize]) {
        let n = real(drawn.len()).max(1.0);
        let mut delta = Moments::new(shares.base.len());
        let mut contrast = Moments::new(shares.contrast_error.len());
        for &i in drawn {
            let (base, adapted) = (usize::from(self.base[i]), usize::from(self.adapted[i]));
            shares.base[base] += self.weight / n;
            shares.adapted[adapted] += self.weight / n;
            delta.add(&[(adapted, 1.0), (base, -1.0)]);
            if !self.placebos.is_empty() {
                let part = 1.0 / real(self.placebos.len());
                let mut terms = vec![(adapted, 1.0)];
                for placebo in &self.placebos {
                    let label = usize::from(placebo[i]);
                    shares.placebo[label] += self.weight * part / n;
                    terms.push((label, -part));
                }
                contrast.add(&terms);
            }
        }
        delta.add_variance(n, self.weight, &mut shares.delta_error);
        contrast.add_variance(n, self.weight, &mut shares.contrast_error);
    }
}

/// Sums and sums of squares of the per-pair differences of indicators.
struct Moments {
    sum: Vec<f64>,
    square: Vec<f64>,
}

impl Moments {
    fn new(n: usize) -> Self {
        Self { sum: vec![0.0; n], square: vec![0.0; n] }
    }

    /// Adds one pair, given as (category, coefficient) terms; equal categories are summed first.
    fn add(&mut self, terms: &[(usize, f64)]) {
        for (k, &(category, _)) in terms.iter().enumerate() {
            if terms[..k].iter().any(|&(earlier, _)| earlier == category) {
                continue;
            }
            let total: f64 =
                terms.iter().filter(|&&(other, _)| other == category).map(|&(_, c)| c).sum();
            self.sum[category] += total;
            self.square[category] += total * total;
        }
    }

    /// Adds ω²·max(E[D²] − E[D]², 1/N²)/N.
    fn add_variance(&self, n: f64, weight: f64, variance: &mut [f64]) {
        for ((sum, square), out) in self.sum.iter().zip(&self.square).zip(variance) {
            let spread = square / n - (sum / n).powi(2);
            *out += weight * weight * spread.max(1.0 / (n * n)) / n;
        }
    }
}

/// TV = ½Σ|p − q|.
pub fn total_variation(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(x, y)| (x - y).abs()).sum::<f64>() / 2.0
}

/// Discordance of a square table in three parts, all as shares of the pairs.
///
/// Source: Pontius & Santacruz 2014.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disagreement {
    /// Share of pairs whose category differs: quantity + exchange + shift.
    pub discordance: f64,
    /// What the totals alone explain: the total variation of the margins.
    pub quantity: f64,
    /// Pairs of categories that swapped places one for one.
    pub exchange: f64,
    /// Rotations through three or more categories.
    pub shift: f64,
}

/// Splits the discordance of `table` (rows base, columns adapted); `None` of an empty table.
pub fn disagreement(table: &[Vec<u64>]) -> Option<Disagreement> {
    let n: u64 = table.iter().flatten().sum();
    if n == 0 {
        return None;
    }
    let row = |i: usize| table[i].iter().sum::<u64>();
    let column = |i: usize| table.iter().map(|cells| cells[i]).sum::<u64>();
    let mut moved = 0;
    let mut exchanged = 0;
    let mut stayed = 0;
    for i in 0..table.len() {
        moved += row(i).abs_diff(column(i));
        stayed += table[i][i];
        for (j, cells) in table.iter().enumerate().filter(|(j, _)| *j != i) {
            exchanged += table[i][j].min(cells[i]);
        }
    }
    let share = |count: u64| real_u64(count) / real_u64(n);
    let (discordance, quantity, exchange) =
        (1.0 - share(stayed), share(moved) / 2.0, share(exchanged));
    Some(Disagreement {
        discordance,
        quantity,
        exchange,
        shift: (discordance - quantity - exchange).max(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::labels_of;

    /// Pairs that make up a table, as one block of weight 1.
    fn known_table() -> Vec<Vec<u64>> {
        vec![vec![40, 5, 0, 2], vec![3, 30, 1, 4], vec![0, 0, 25, 6], vec![0, 0, 0, 10]]
    }

    /// KAT `table`: differences, standard errors, parts of the disagreement.
    #[test]
    fn known_table_gives_known_differences() {
        let labels = labels_of(&known_table());
        assert_eq!(labels.table(), known_table());
        let shares = labels.shares(None);
        let delta = [-0.031_746, -0.023_810, -0.039_683, 0.095_238];
        let error = [0.024_938, 0.028_537, 0.020_698, 0.026_151];
        for i in 0..4 {
            assert!((shares.delta()[i] - delta[i]).abs() < 1e-6, "{shares:?}");
            assert!((shares.delta_error[i] - error[i]).abs() < 1e-6, "{shares:?}");
        }
        let parts = disagreement(&known_table()).unwrap();
        assert!((parts.discordance - 0.166_667).abs() < 1e-6);
        assert!((parts.quantity - 0.095_238).abs() < 1e-6);
        assert!((parts.exchange - 0.047_619).abs() < 1e-6);
        assert!((parts.shift - 0.023_810).abs() < 1e-6);
        assert!((total_variation(&shares.base, &shares.adapted) - parts.quantity).abs() < 1e-12);
    }

    #[test]
    fn strata_combine_by_their_weights_not_by_their_size() {
        let block = |weight, base: &[u16], adapted: &[u16]| Block {
            weight,
            base: base.to_vec(),
            adapted: adapted.to_vec(),
            placebos: Vec::new(),
        };
        let labels = PairedLabels {
            n_categories: 2,
            blocks: vec![block(0.75, &[0, 0], &[1, 0]), block(0.25, &[0; 8], &[0; 8])],
        };
        let shares = labels.shares(None);
        assert!((shares.delta()[1] - 0.375).abs() < 1e-12);
        // One pair in two moved: variance (½ − ¼)/2, times .75²; the still block adds its 1/N floor.
        let expected: f64 = 0.5625 * 0.125 + 0.0625 / 512.0;
        assert!((shares.delta_error[1] - expected.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn placebo_contrast_uses_the_mean_of_its_draws() {
        let labels = PairedLabels {
            n_categories: 2,
            blocks: vec![Block {
                weight: 1.0,
                base: vec![0, 0, 0, 0],
                adapted: vec![1, 1, 0, 0],
                placebos: vec![vec![1, 0, 0, 0], vec![0, 0, 0, 0]],
            }],
        };
        let shares = labels.shares(None);
        assert!((shares.placebo[1] - 0.125).abs() < 1e-12);
        assert!((shares.contrast()[1] - 0.375).abs() < 1e-12);
        // D = ½, 1, 0, 0: mean .375, mean square .3125.
        let expected: f64 = (0.3125 - 0.140_625) / 4.0;
        assert!((shares.contrast_error[1] - expected.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn flipping_every_pair_exchanges_the_models() {
        let labels = labels_of(&known_table());
        let (base, adapted) = labels.flipped(&vec![true; labels.n_pairs()]);
        let shares = labels.shares(None);
        assert!(total_variation(&base, &shares.adapted) < 1e-12);
        assert!(total_variation(&adapted, &shares.base) < 1e-12);
    }
}
