//! Pictures decoded by worker threads, a little ahead of whoever takes them.
//!
//! Of n workers the k-th decodes the pictures k, k + n, k + 2n, … of the order asked for, and holds
//! each until it is taken. So neither order nor results depend on n or on which worker is faster,
//! and no more pictures wait than there are workers. The workers are plain threads: those of rayon's
//! pool would be missing wherever the pictures are encoded, and would wait for it in turn.

use std::fmt::{self, Debug, Formatter};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::decode::Pixels;
use crate::error::DatasetError;

/// Pictures of a dataset in the order that was asked for.
pub struct Pictures<'a> {
    dataset: &'a Dataset,
    order: &'a [usize],
    n_taken: usize,
    decoded: &'a mut (dyn Iterator<Item = Result<Vec<Pixels>, DatasetError>> + 'a),
    stop: &'a AtomicBool,
}

impl Debug for Pictures<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pictures")
            .field("order", &self.order)
            .field("n_taken", &self.n_taken)
            .finish_non_exhaustive()
    }
}

impl Pictures<'_> {
    /// The next `n` pictures, each as [`Dataset::views`] gives it; `None` once a stop is requested,
    /// or if fewer are left.
    ///
    /// # Errors
    ///
    /// As [`Dataset::views`]; of several pictures that cannot be read, the error is that of the first
    /// in the dataset, whatever the order asked for.
    pub fn take(&mut self, n: usize) -> Result<Option<Vec<Vec<Pixels>>>, DatasetError> {
        let mut taken = Vec::with_capacity(n);
        for _ in 0..n {
            match self.decoded.next() {
                None => return Ok(None),
                Some(Ok(views)) => taken.push(views),
                Some(Err(error)) => return Err(self.first_error(error)),
            }
            self.n_taken += 1;
        }
        Ok(Some(taken))
    }

    /// The error of the first picture of the dataset that has one; `error` is that of the next one
    /// of the order, and those before that in the order have none.
    fn first_error(&self, error: DatasetError) -> DatasetError {
        let (dataset, stop) = (self.dataset, self.stop);
        let (failed, later) = (self.order[self.n_taken], &self.order[self.n_taken + 1..]);
        let mut unread: Vec<usize> =
            later.iter().copied().filter(|&example_idx| example_idx < failed).collect();
        unread.sort_unstable();
        let problem = |&example_idx: &usize| {
            if stop.load(Ordering::Relaxed) { None } else { dataset.views(example_idx).err() }
        };
        unread.par_iter().find_map_first(problem).unwrap_or(error)
    }
}

impl Dataset {
    /// Decodes the examples at `order` on `n_threads` threads, as [`Dataset::views`] does, while
    /// `take` works with those that are there, and gives what `take` gives. Afterwards no thread is
    /// left, whether all pictures were taken or not.
    ///
    /// # Panics
    ///
    /// If an element of `order` is not below the number of examples.
    pub fn read_ahead<T>(
        &self,
        order: &[usize],
        n_threads: usize,
        stop: &AtomicBool,
        take: impl FnOnce(&mut Pictures<'_>) -> T,
    ) -> T {
        let make = |example_idx| self.views(example_idx);
        in_order(order, n_threads, stop, make, |decoded| {
            take(&mut Pictures { dataset: self, order, n_taken: 0, decoded, stop })
        })
    }
}

/// What several threads make of items, in the order of the items.
struct InOrder<'a, R> {
    /// One per thread; those of the items follow each other from lane to lane.
    lanes: Vec<Receiver<R>>,
    /// The lane of the next item.
    lane: usize,
    n_left: usize,
    stop: &'a AtomicBool,
}

impl<R> Iterator for InOrder<'_, R> {
    type Item = R;

    /// The next result; `None` after the last one, once a stop is requested, or where the thread
    /// that should have made it has panicked.
    fn next(&mut self) -> Option<R> {
        if self.n_left == 0 || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let result = self.lanes[self.lane].recv().ok()?;
        self.lane = (self.lane + 1) % self.lanes.len();
        self.n_left -= 1;
        Some(result)
    }
}

/// Calls `make` on `items` on several threads while `take` takes the results, in the order of the
/// items. All threads have ended when it returns; the panic of one goes on here.
fn in_order<R: Send, T>(
    items: &[usize],
    n_threads: usize,
    stop: &AtomicBool,
    make: impl Fn(usize) -> R + Sync,
    take: impl FnOnce(&mut dyn Iterator<Item = R>) -> T,
) -> T {
    let n_lanes = n_threads.clamp(1, items.len().max(1));
    let make = &make;
    thread::scope(|scope| {
        let mut lanes = Vec::with_capacity(n_lanes);
        let mut workers = Vec::with_capacity(n_lanes);
        for lane in 0..n_lanes {
            // Without room of its own: a thread that has a result makes no other until it is taken.
            let (sender, receiver) = sync_channel(0);
            lanes.push(receiver);
            workers.push(scope.spawn(move || {
                for &item in items.iter().skip(lane).step_by(n_lanes) {
                    if stop.load(Ordering::Relaxed) || sender.send(make(item)).is_err() {
                        break;
                    }
                }
            }));
        }
        let mut results = InOrder { lanes, lane: 0, n_left: items.len(), stop };
        let taken = take(&mut results);
        // Threads whose results nobody will take end.
        drop(results);
        for worker in workers {
            if let Err(panic) = worker.join() {
                resume_unwind(panic);
            }
        }
        taken
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    use image::{Rgb, RgbImage};
    use recipes::{
        AlphaPolicy, CaptionSource, CaptionedSpec, DatasetSpec, Flip, IdentifierAt, MissingCaption,
        VaeSample,
    };
    use tempfile::TempDir;

    use super::*;
    use crate::decode::Mirror;

    /// A stop that nobody requests.
    fn never() -> AtomicBool {
        AtomicBool::new(false)
    }

    #[test]
    fn order_and_results_do_not_depend_on_the_number_of_threads() {
        let items: Vec<usize> = (0..50).rev().collect();
        let expected: Vec<usize> = items.iter().map(|item| item * item).collect();
        for n_threads in [0, 1, 2, 3, 16, 50, 200] {
            let found = in_order(
                &items,
                n_threads,
                &never(),
                |item| item * item,
                |results| results.collect::<Vec<_>>(),
            );
            assert_eq!(found, expected, "{n_threads} threads");
        }
        let none = in_order(&[], 4, &never(), |item| item, |results| results.count());
        assert_eq!(none, 0);
    }

    #[test]
    fn a_result_that_is_ready_first_waits_for_those_before_it() {
        let (ready, wait) = channel();
        let wait = Mutex::new(wait);
        let make = |item| {
            match item {
                0 => wait.lock().unwrap().recv().unwrap(),
                1 => ready.send(()).unwrap(),
                _ => {}
            }
            item
        };
        let found =
            in_order(&[0, 1, 2, 3], 2, &never(), make, |results| results.collect::<Vec<_>>());
        assert_eq!(found, [0, 1, 2, 3]);
    }

    #[test]
    fn each_thread_is_at_most_one_result_ahead_and_ends_when_nobody_takes_more() {
        let items: Vec<usize> = (0..1000).collect();
        let n_made = AtomicUsize::new(0);
        let make = |_| n_made.fetch_add(1, Ordering::Relaxed);
        in_order(&items, 4, &never(), make, |results| results.next());
        // The one that was taken, and one that waits for each thread.
        assert!(n_made.load(Ordering::Relaxed) <= 5, "{n_made:?}");
    }

    #[test]
    fn a_stop_ends_the_threads_and_the_results() {
        let items: Vec<usize> = (0..1000).collect();
        let (stop, n_made) = (AtomicBool::new(false), AtomicUsize::new(0));
        let make = |item| {
            n_made.fetch_add(1, Ordering::Relaxed);
            if item == 5 {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let n_taken = in_order(&items, 2, &stop, make, |results| results.count());
        assert!(n_taken <= 6, "{n_taken}");
        // The other thread may have been at 6.
        assert!(n_made.load(Ordering::Relaxed) <= 7, "{n_made:?}");
    }

    #[test]
    #[should_panic(expected = "item 3")]
    fn the_panic_of_a_thread_goes_on() {
        let make = |item| assert!(item != 3, "item {item}");
        in_order(&[0, 1, 2, 3, 4], 2, &never(), make, |results| results.count());
    }

    #[test]
    #[should_panic(expected = "enough")]
    fn whoever_takes_may_panic_without_leaving_threads_that_wait() {
        let take = |results: &mut dyn Iterator<Item = usize>| {
            assert_eq!(results.next(), None, "enough");
        };
        in_order(&[0, 1, 2, 3, 4], 2, &never(), |item| item, take);
    }

    /// `a.png`, `b.png`, … of 97 × 64 pixels, no two alike.
    fn folder(n_pictures: u8) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..n_pictures {
            write(folder.path(), number, 40 * number);
        }
        folder
    }

    fn write(folder: &Path, number: u8, shade: u8) {
        let level = |side: u32| u8::try_from(2 * side).unwrap();
        let picture = RgbImage::from_fn(97, 64, |x, y| Rgb([level(x), level(y), shade]));
        let name = char::from(b'a' + number);
        picture.save(folder.join(format!("{name}.png"))).unwrap();
    }

    fn open(folder: &Path, flip: Flip) -> Dataset {
        crate::open(&DatasetSpec::Captioned(CaptionedSpec {
            images: folder.to_owned(),
            captions: CaptionSource::Sidecar,
            missing_caption: MissingCaption::Empty,
            identifier: None,
            class: None,
            identifier_at: IdentifierAt::Never,
            caption_dropout: 0.0,
            side_px: 64,
            alpha: AlphaPolicy::Error,
            flip,
            repeats: 1,
            vae_sample: VaeSample::Random,
        }))
        .unwrap()
    }

    #[test]
    fn pictures_come_in_the_order_asked_for_each_with_its_mirror_image() {
        let folder = folder(5);
        let dataset = open(folder.path(), Flip::Random);
        let both = |example_idx| {
            [Mirror::No, Mirror::Yes].map(|mirror| dataset.pixels(example_idx, mirror).unwrap())
        };
        for n_threads in [1, 3] {
            dataset.read_ahead(&[4, 0, 2, 1], n_threads, &never(), |pictures| {
                assert_eq!(pictures.take(3).unwrap().unwrap(), [4, 0, 2].map(both));
                assert_eq!(pictures.take(1).unwrap().unwrap(), [both(1)]);
                assert!(pictures.take(1).unwrap().is_none(), "none is left");
            });
        }
    }

    #[test]
    fn a_mirror_image_of_one_decoding_has_the_bits_of_one_of_its_own() {
        let folder = folder(1);
        let bits = |pixels: &Pixels| -> Vec<u32> {
            pixels.values.iter().map(|value| value.to_bits()).collect()
        };
        let dataset = open(folder.path(), Flip::Random);
        let views = dataset.views(0).unwrap();
        let own = [Mirror::No, Mirror::Yes].map(|mirror| dataset.pixels(0, mirror).unwrap());
        assert_eq!(
            views.iter().map(bits).collect::<Vec<_>>(),
            own.iter().map(bits).collect::<Vec<_>>()
        );
        assert_ne!(views[0], views[1]);
        assert_eq!(open(folder.path(), Flip::Never).views(0).unwrap(), [own[0].clone()]);
    }

    #[test]
    fn of_several_pictures_that_cannot_be_read_the_first_of_the_dataset_is_named() {
        let folder = folder(5);
        let dataset = open(folder.path(), Flip::Never);
        for number in [1, 3] {
            write(folder.path(), number, 255);
        }
        for (order, n_threads) in
            [([0, 1, 2, 3, 4], 4), ([3, 4, 2, 1, 0], 4), ([4, 3, 2, 1, 0], 1), ([1, 3, 0, 2, 4], 2)]
        {
            let error = dataset.read_ahead(&order, n_threads, &never(), |pictures| {
                (0..5).find_map(|_| pictures.take(1).err()).unwrap().to_string()
            });
            assert!(error.contains("b.png") && !error.contains("d.png"), "{order:?}: {error}");
        }
    }

    #[test]
    fn nothing_is_taken_after_a_stop() {
        let folder = folder(2);
        let dataset = open(folder.path(), Flip::Never);
        let stop = AtomicBool::new(false);
        dataset.read_ahead(&[0, 1], 2, &stop, |pictures| {
            assert!(pictures.take(1).unwrap().is_some());
            stop.store(true, Ordering::Relaxed);
            assert!(pictures.take(1).unwrap().is_none());
        });
    }
}
