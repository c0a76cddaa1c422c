//! Which values stand together in a picture: all combinations before any comes again.

use super::Order;
use crate::draws;

/// Most combinations of one series; their order is drawn as a whole.
pub(super) const MAX_COMBINATIONS: usize = 1 << 20;

/// How many combinations lists of these lengths have; `None` above [`MAX_COMBINATIONS`].
pub(super) fn count(lengths: &[usize]) -> Option<usize> {
    let product = lengths.iter().try_fold(1_usize, |n, &length| n.checked_mul(length));
    product.filter(|&n| n <= MAX_COMBINATIONS)
}

/// The position in each list that combination `number` takes, for lists of these lengths.
///
/// Each number below [`count`] gives another combination. From one number to the next every list
/// moves on; where the combinations would begin to repeat, one list is shifted by one. So the first
/// pictures of a series differ in all their slots.
///
/// Two lists of lengths a and b, moved on together, pass through lcm(a, b) pairs, those with one
/// remainder of their difference by gcd(a, b); a shift by one leads to the next remainder. More
/// lists are two: the last, and the combinations of those before.
pub(super) fn positions(number: usize, lengths: &[usize]) -> Vec<usize> {
    let mut positions = vec![0; lengths.len()];
    let mut number = number;
    for (list, &length) in lengths.iter().enumerate().skip(1).rev() {
        let before: usize = lengths[..list].iter().product();
        let shift = number / (before / gcd(before, length) * length);
        positions[list] = (number + shift) % length;
        number %= before;
    }
    if let (Some(first), Some(&length)) = (positions.first_mut(), lengths.first()) {
        *first = number % length;
    }
    positions
}

/// Greatest common divisor of two numbers that are not 0.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The combination of each of `n_pictures` pictures of series `name`.
///
/// More pictures begin with the same combinations; no other series has a part in them.
pub(super) fn numbers(
    order: Order,
    n_pictures: usize,
    n_combinations: usize,
    (seed, name): (u64, &str),
) -> Vec<usize> {
    let mut numbers = Vec::with_capacity(n_pictures);
    let mut round = 0;
    // A list without values has been reported, and leaves no combination to take.
    while n_combinations > 0 && numbers.len() < n_pictures {
        let mut all: Vec<usize> = (0..n_combinations).collect();
        if order == Order::Drawn {
            let label = format!("series/{name}/order/{round}");
            draws::shuffle(&mut draws::keyed(seed, &label), &mut all);
        }
        numbers.extend(all);
        round += 1;
    }
    numbers.truncate(n_pictures);
    numbers
}

/// Seed `position` of series `name`: below 2³², which every other program reads, too.
pub(super) fn seed(seed: u64, name: &str, position: usize) -> u64 {
    let mut stream = draws::keyed(seed, &format!("series/{name}/seed/{position}"));
    draws::below(&mut stream, 1 << 32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_list_moves_on_from_picture_to_picture() {
        let shown = |lengths: &[usize], n: usize| -> Vec<Vec<usize>> {
            (0..n).map(|number| positions(number, lengths)).collect()
        };
        // Computed by hand: after lcm(4, 2) = 4 pairs the second list is shifted by one.
        let pairs = [[0, 0], [1, 1], [2, 0], [3, 1], [0, 1], [1, 0], [2, 1], [3, 0]];
        assert_eq!(shown(&[4, 2], 8), pairs.map(|pair: [usize; 2]| pair.to_vec()));
        assert_eq!(shown(&[3], 3), [vec![0_usize], vec![1], vec![2]]);
        assert_eq!(positions(0, &[]), Vec::<usize>::new());
    }

    #[test]
    fn products_that_are_too_large_are_not_counted() {
        assert_eq!(count(&[]), Some(1));
        assert_eq!(count(&[3, 4]), Some(12));
        assert_eq!(count(&[1 << 20]), Some(MAX_COMBINATIONS));
        assert_eq!(count(&[1 << 20, 2]), None);
        assert_eq!(count(&[usize::MAX, usize::MAX]), None);
    }

    #[test]
    fn drawn_orders_differ_by_seed_series_and_round() {
        let drawn = |seed, name| numbers(Order::Drawn, 48, 24, (seed, name));
        assert_eq!(drawn(1, "harbor"), drawn(1, "harbor"));
        assert_ne!(drawn(1, "harbor"), drawn(2, "harbor"));
        assert_ne!(drawn(1, "harbor"), drawn(1, "winter"));
        let order = drawn(1, "harbor");
        assert_ne!(order[..24], order[24..]);
        assert_ne!(order[..24], numbers(Order::InTurn, 24, 24, (1, "harbor")));
    }

    #[test]
    fn seeds_belong_to_their_series_and_position() {
        let first: Vec<u64> = (0..6).map(|position| seed(1, "harbor", position)).collect();
        let distinct: BTreeSet<u64> = first.iter().copied().collect();
        assert_eq!(distinct.len(), 6);
        assert!(first.iter().all(|&seed| seed < 1 << 32));
        assert_ne!(seed(1, "winter", 0), first[0]);
        assert_ne!(seed(2, "harbor", 0), first[0]);
    }

    proptest! {
        #[test]
        fn all_combinations_come_before_any_comes_again(lengths in prop::collection::vec(1_usize..7, 0..5)) {
            let n = count(&lengths).unwrap();
            let distinct: BTreeSet<Vec<usize>> = (0..n).map(|number| positions(number, &lengths)).collect();
            prop_assert_eq!(distinct.len(), n);
            for combination in distinct {
                prop_assert!(combination.iter().zip(&lengths).all(|(position, length)| position < length));
            }
        }

        #[test]
        fn more_pictures_begin_with_the_same_ones(n in 1_usize..40, few in 0_usize..60, more in 0_usize..60, seed: u64) {
            for order in [Order::InTurn, Order::Drawn] {
                let short = numbers(order, few, n, (seed, "harbor"));
                let long = numbers(order, few + more, n, (seed, "harbor"));
                prop_assert_eq!(&long[..few], &short[..]);
                let mut round: Vec<usize> = numbers(order, n, n, (seed, "harbor"));
                round.sort_unstable();
                prop_assert_eq!(round, (0..n).collect::<Vec<_>>());
            }
        }
    }
}
