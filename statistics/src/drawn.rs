//! Worlds that are drawn from a known law, for known answers and tests.

use crate::contingency::{Block, PairedLabels};
use recipes::draws;

/// Zipf's law over `k` categories.
pub fn zipf(k: u32) -> Vec<f64> {
    let weights: Vec<f64> = (1..=k).map(|rank| 1.0 / f64::from(rank)).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// One draw from `p`.
pub fn categorical(p: &[f64], stream: &mut draws::Stream) -> usize {
    let mut rest = draws::uniform(stream);
    for (i, share) in p.iter().enumerate() {
        rest -= share;
        if rest < 0.0 {
            return i;
        }
    }
    p.len() - 1
}

/// Paired labels of one prompt whose table of counts is `table`; rows are the base.
pub fn labels_of(table: &[Vec<u64>]) -> PairedLabels {
    let (mut base, mut adapted) = (Vec::new(), Vec::new());
    for (i, cells) in table.iter().enumerate() {
        for (j, &count) in cells.iter().enumerate() {
            for _ in 0..count {
                base.push(u16::try_from(i).unwrap_or(u16::MAX));
                adapted.push(u16::try_from(j).unwrap_or(u16::MAX));
            }
        }
    }
    PairedLabels {
        n_categories: table.len(),
        blocks: vec![Block { weight: 1.0, base, adapted, placebos: Vec::new() }],
    }
}
