//! Sums over slices in a fixed number of lanes.
//!
//! The order of every addition follows from the length alone: the result does not depend on the
//! vector width of the machine.

use super::element::Element;

/// Partial sums that are kept side by side.
pub(crate) const LANES: usize = 16;

/// Adds up the lanes, halves onto halves.
#[inline(always)]
pub(crate) fn total<T: Element>(lanes: [T; LANES]) -> T {
    let lanes: [T; 8] = fold(&lanes);
    let lanes: [T; 4] = fold(&lanes);
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

/// The first half of `lanes` plus the second.
#[inline(always)]
fn fold<T: Element, const HALF: usize>(lanes: &[T]) -> [T; HALF] {
    let (low, high) = lanes.split_at(HALF);
    core::array::from_fn(|i| low[i] + high[i])
}

/// Σ f(x).
#[inline(always)]
pub(crate) fn sum<T: Element>(xs: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    total(lanes)
}

/// Σ f(x, y).
#[inline(always)]
pub(crate) fn sum_pairs<T: Element>(xs: &[T], ys: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    let (partners, rest_partners) = ys.as_chunks::<LANES>();
    for (chunk, partner) in chunks.iter().zip(partners) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(chunk).zip(partner) {
            *lane += f(x, y);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(rest).zip(rest_partners) {
        *lane += f(x, y);
    }
    total(lanes)
}

/// The greatest element, −∞ of none; an element that is not a number may be passed over.
#[inline(always)]
pub(crate) fn greatest<T: Element>(xs: &[T]) -> T {
    let mut lanes = [T::LOWEST; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = lane.max(x);
    }
    let (low, high) = lanes.split_at(LANES / 2);
    let halves: [T; LANES / 2] = core::array::from_fn(|i| low[i].max(high[i]));
    halves.into_iter().fold(T::LOWEST, Element::max)
}

/// Replaces every x by f(x) and adds the results up.
#[inline(always)]
pub(crate) fn map_sum<T: Element>(xs: &mut [T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = xs.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = f(*x);
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = f(*x);
        *lane += *x;
    }
    total(lanes)
}
