//! Work spread over the threads of the pool, with results that do not depend on their number.
//!
//! Every task writes only what belongs to it. Where tasks contribute to one sum, each has a part of
//! its own, and [`add_up`] adds the parts in order; how many parts there are follows from the shape.

use burn::tensor::Device;
use rayon::prelude::*;

use super::element::Element;
use super::simd::vectorized;

/// Elements below which a task is not worth a thread.
const GRAIN: usize = 1 << 13;
/// Elements below which one thread zeroes a buffer alone.
const ALONE: usize = 1 << 17;

/// Runs `work` as a task of the pool, if it is for the processor.
///
/// From outside of the pool each of its many short operations would hand itself over to a thread
/// and wait, which takes as long as a small one itself. Work for a card stays on the thread that
/// called, to which the card's queue belongs.
pub fn on_threads<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    if super::is_host(device) { rayon::scope(|_| work()) } else { work() }
}

/// Threads that compute.
pub fn n_threads() -> usize {
    rayon::current_num_threads()
}

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

/// A buffer of zeros, to be added to.
pub(crate) fn zeros<T: Element>(length: usize) -> Vec<T> {
    filled(length, T::ZERO)
}

/// A buffer every element of which will be written. In tests it holds no numbers before that, so
/// that what is forgotten shows.
pub(crate) fn room<T: Element>(length: usize) -> Vec<T> {
    filled(length, if cfg!(test) { T::of(f64::NAN) } else { T::ZERO })
}

/// The pages of a large buffer are touched by all threads: the first touch of a page costs more than
/// what is computed on it.
fn filled<T: Element>(length: usize, value: T) -> Vec<T> {
    if length < ALONE {
        return vec![value; length];
    }
    (0..length).into_par_iter().with_min_len(ALONE / 2).map(|_| value).collect()
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
                for part in rest.chunks_exact(length) {
                    add(total, &part[i * piece..][..total.len()]);
                }
            },
        );
        parts.truncate(length);
    }
    parts
}

vectorized! {
    fn add<T: Element>(sum: &mut [T], part: &[T]) {
        for (sum, &x) in sum.iter_mut().zip(part) {
            *sum += x;
        }
    }
}
