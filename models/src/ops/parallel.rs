//! Work spread over the threads of the pool, with results that do not depend on their number.
//!
//! Every task writes only what belongs to it. Where tasks contribute to one sum, each has a part of
//! its own, and [`add_up`] adds the parts in order; how many parts there are follows from the shape.

use rayon::prelude::*;

use super::element::Element;
use super::simd::vectorized;

/// Elements below which a task is not worth a thread.
const GRAIN: usize = 1 << 13;

/// Runs `task` over `items`, each of which touches about `weight` elements.
pub(crate) fn for_each<I, F>(items: I, weight: usize, task: F)
where
    I: IndexedParallelIterator,
    F: Fn(I::Item) + Sync + Send,
{
    items.with_min_len(grain(weight)).for_each(task);
}

/// Like [`for_each`], with a buffer of `scratch` zeros that a thread reuses from task to task.
pub(crate) fn for_each_with<T, I, F>(items: I, weight: usize, scratch: usize, task: F)
where
    T: Element,
    I: IndexedParallelIterator,
    F: Fn(&mut [T], I::Item) + Sync + Send,
{
    let share = items.len().div_ceil(2 * rayon::current_num_threads());
    items
        .with_min_len(grain(weight).max(share))
        .for_each_init(|| vec![T::ZERO; scratch], |buffer, item| task(buffer, item));
}

/// Tasks of `weight` elements that one thread should take together.
fn grain(weight: usize) -> usize {
    (GRAIN / weight.max(1)).max(1)
}

/// The sum of `parts`, each `length` long and laid end to end, added in order.
pub(crate) fn add_up<T: Element>(mut parts: Vec<T>, length: usize) -> Vec<T> {
    if parts.len() > length {
        let (total, rest) = parts.split_at_mut(length);
        let piece = GRAIN / 4;
        for_each(
            total.par_chunks_mut(piece).enumerate(),
            rest.len() / length.max(1) * piece,
            |(i, total)| {
                vectorized(|| {
                    for part in rest.chunks_exact(length) {
                        let part = &part[i * piece..][..total.len()];
                        for (sum, &x) in total.iter_mut().zip(part) {
                            *sum += x;
                        }
                    }
                });
            },
        );
        parts.truncate(length);
    }
    parts
}
