//! The order in which pictures are seen, a pure function of seed and epoch.

use recipes::draws::{self, Purpose};

/// The order of `n` pictures in an epoch: `repeats` passes, each shuffled with a stream of its own.
///
/// Every picture comes exactly `repeats` times. A pure function of its arguments.
pub fn order(seed: u64, epoch: u64, n: usize, repeats: u32) -> Vec<usize> {
    (0..repeats).flat_map(|pass| shuffled(seed, epoch, n, u64::from(pass))).collect()
}

/// One pass over `n` pictures.
pub(crate) fn shuffled(seed: u64, epoch: u64, n: usize, pass: u64) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..n).collect();
    draws::shuffle(&mut draws::stream(seed, epoch, pass, Purpose::Order), &mut positions);
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_comes_once_per_pass() {
        let order = order(7, 3, 11, 4);
        assert_eq!(order.len(), 44);
        for pass in order.chunks(11) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..11).collect::<Vec<_>>());
        }
    }

    #[test]
    fn order_follows_seed_epoch_and_pass_and_nothing_else() {
        assert_eq!(order(7, 3, 50, 2), order(7, 3, 50, 2));
        assert_ne!(order(7, 3, 50, 1), order(7, 4, 50, 1));
        assert_ne!(order(7, 3, 50, 1), order(8, 3, 50, 1));
        let two = order(7, 3, 50, 2);
        assert_ne!(two[..50], two[50..]);
        assert_eq!(two[..50], order(7, 3, 50, 1));
    }
}
