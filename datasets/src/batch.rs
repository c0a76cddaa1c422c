//! Batches: which examples a step sees, a pure function of seed and step.

use std::collections::BTreeMap;

use recipes::draws::{self, Purpose};
use recipes::{BatchSpec, Flip};

use crate::bucket::Bucket;
use crate::dataset::{Dataset, Role};
use crate::decode::Mirror;
use crate::order::shuffled;

/// One use of an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Position in [`Dataset::examples`].
    pub example_idx: usize,
    /// Index within the step's whole batch: the `sample` of every draw made for it.
    pub index: u64,
    /// Whether the picture is mirrored this time.
    pub mirror: Mirror,
    /// The caption this time: the example's own, or empty where it is dropped.
    pub caption: String,
}

/// Samples of one size that go through the network together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// Their common size.
    pub bucket: Bucket,
    /// What they are there for.
    pub role: Role,
    /// At least one.
    pub samples: Vec<Sample>,
}

/// The batches of a training run; nothing in it changes while it is used.
#[derive(Debug)]
pub struct Batches<'a> {
    dataset: &'a Dataset,
    seed: u64,
    images: usize,
    accumulate: usize,
    instance: BTreeMap<Bucket, Vec<usize>>,
    class: BTreeMap<Bucket, Vec<usize>>,
}

impl<'a> Batches<'a> {
    /// The batches of `dataset` under `seed`, in micro-batches of `batch.images` pictures.
    pub fn new(dataset: &'a Dataset, batch: &BatchSpec, seed: u64) -> Self {
        let by_bucket = |role: Role| {
            let mut buckets: BTreeMap<Bucket, Vec<usize>> = BTreeMap::new();
            for position in dataset.of_role(role) {
                buckets.entry(dataset.examples[position].bucket).or_default().push(position);
            }
            buckets
        };
        Self {
            dataset,
            seed,
            images: count(batch.images),
            accumulate: count(batch.accumulate),
            instance: by_bucket(Role::Instance),
            class: by_bucket(Role::Class),
        }
    }

    /// Micro-batches per pass over the concept's pictures, repeats included.
    pub fn per_epoch(&self) -> u64 {
        self.micro_batches_in(&self.instance)
    }

    /// The micro-batches of a step: `accumulate` of the concept, then as many of the class if the
    /// dataset has class pictures.
    ///
    /// The last micro-batch of a bucket may be smaller than the others, so losses are averaged over
    /// samples, not over micro-batches.
    pub fn step(&self, step: u64) -> Vec<MicroBatch> {
        let mut next_index = 0;
        let mut batches = Vec::new();
        for (role, buckets) in [(Role::Instance, &self.instance), (Role::Class, &self.class)] {
            if buckets.is_empty() {
                continue;
            }
            for micro_step in 0..self.accumulate {
                let position = step * self.accumulate as u64 + micro_step as u64;
                let (bucket, chosen) = self.micro_batch(buckets, role, position);
                let samples = chosen
                    .into_iter()
                    .map(|example_idx| {
                        next_index += 1;
                        self.sample(example_idx, step, next_index - 1)
                    })
                    .collect();
                batches.push(MicroBatch { bucket, role, samples });
            }
        }
        batches
    }

    fn sample(&self, example_idx: usize, step: u64, index: u64) -> Sample {
        let images = &self.dataset.images;
        let chance = |purpose| draws::uniform(&mut draws::stream(self.seed, step, index, purpose));
        let mirrored = images.flip == Flip::Random && chance(Purpose::Flip) < 0.5;
        let dropped = chance(Purpose::CaptionDropout) < images.caption_dropout;
        let caption = if dropped {
            String::new()
        } else {
            self.dataset.examples[example_idx].caption.clone()
        };
        let mirror = if mirrored { Mirror::Yes } else { Mirror::No };
        Sample { example_idx, index, mirror, caption }
    }

    fn micro_batches_in(&self, buckets: &BTreeMap<Bucket, Vec<usize>>) -> u64 {
        let repeats = count(self.dataset.images.repeats);
        let sum: usize =
            buckets.values().map(|members| (members.len() * repeats).div_ceil(self.images)).sum();
        sum as u64
    }

    /// The micro-batch at `position` of the endless sequence of epochs.
    fn micro_batch(
        &self,
        buckets: &BTreeMap<Bucket, Vec<usize>>,
        role: Role,
        position: u64,
    ) -> (Bucket, Vec<usize>) {
        let per_epoch = self.micro_batches_in(buckets);
        let (epoch, within) = (position / per_epoch, position % per_epoch);
        let mut epoch_batches = self.epoch(buckets, role, epoch);
        epoch_batches.swap_remove(usize::try_from(within).unwrap_or(0))
    }

    /// All micro-batches of an epoch: each bucket shuffled and cut, then the pieces shuffled.
    fn epoch(
        &self,
        buckets: &BTreeMap<Bucket, Vec<usize>>,
        role: Role,
        epoch: u64,
    ) -> Vec<(Bucket, Vec<usize>)> {
        // Streams of an epoch: passes of bucket b from b·2³², the class from 2⁶², the pieces last.
        let base = if role == Role::Class { 1_u64 << 62 } else { 0 };
        let mut pieces = Vec::new();
        for (number, (bucket, members)) in buckets.iter().enumerate() {
            let first_pass = base + ((number as u64) << 32);
            let order = self.bucket_order(members, epoch, first_pass);
            pieces.extend(order.chunks(self.images).map(|chunk| (*bucket, chunk.to_vec())));
        }
        let last = base + (1_u64 << 61);
        draws::shuffle(&mut draws::stream(self.seed, epoch, last, Purpose::Order), &mut pieces);
        pieces
    }

    /// The passes over one bucket, joined so that no picture meets itself in a micro-batch, as long
    /// as the bucket has enough pictures.
    fn bucket_order(&self, members: &[usize], epoch: u64, first_pass: u64) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::new();
        for pass in 0..u64::from(self.dataset.images.repeats.max(1)) {
            let shuffled = shuffled(self.seed, epoch, members.len(), first_pass + pass);
            let mut pass: Vec<usize> =
                shuffled.into_iter().map(|position| members[position]).collect();
            let begun = order.len() % self.images;
            if begun > 0 && members.len() >= self.images {
                // The first that are not in the open micro-batch fill it; the others keep their order.
                let open = &order[order.len() - begun..];
                let mut n_missing = self.images - begun;
                let (filling, rest): (Vec<usize>, Vec<usize>) =
                    pass.into_iter().partition(|member| {
                        let fills = n_missing > 0 && !open.contains(member);
                        n_missing -= usize::from(fills);
                        fills
                    });
                pass = [filling, rest].concat();
            }
            order.extend(pass);
        }
        order
    }
}
fn count(n: u32) -> usize {
    usize::try_from(n.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use recipes::{AlphaPolicy, ImageSpec, VaeSample};

    use super::*;
    use crate::dataset::Example;

    const WIDE: Bucket = Bucket { width: 320, height: 192 };
    const SQUARE: Bucket = Bucket { width: 256, height: 256 };

    fn dataset(squares: usize, wides: usize, classes: usize, repeats: u32) -> Dataset {
        let example = |position: usize| Example {
            id: position.to_string(),
            path: PathBuf::from(position.to_string()),
            caption: format!("picture {position}"),
            sha256: String::new(),
            role: if position < squares + wides { Role::Instance } else { Role::Class },
            width: 256,
            height: 256,
            bucket: if (squares..squares + wides).contains(&position) { WIDE } else { SQUARE },
        };
        Dataset {
            examples: (0..squares + wides + classes).map(example).collect(),
            sha256: String::new(),
            warnings: Vec::new(),
            images: ImageSpec {
                side_px: 256,
                alpha: AlphaPolicy::Error,
                flip: Flip::Random,
                repeats,
                caption_dropout: 0.25,
                vae_sample: VaeSample::Random,
            },
        }
    }

    fn shape(images: u32, accumulate: u32) -> BatchSpec {
        BatchSpec { images, accumulate }
    }

    #[test]
    fn an_epoch_holds_every_picture_as_often_as_repeats_say() {
        let dataset = dataset(10, 5, 0, 3);
        let batches = Batches::new(&dataset, &shape(4, 1), 7);
        // ⌈30 / 4⌉ + ⌈15 / 4⌉.
        assert_eq!(batches.per_epoch(), 12);
        for epoch in 0..3 {
            let mut counts = [0; 15];
            for step in epoch * 12..(epoch + 1) * 12 {
                for batch in batches.step(step) {
                    for sample in batch.samples {
                        assert_eq!(dataset.examples[sample.example_idx].bucket, batch.bucket);
                        counts[sample.example_idx] += 1;
                    }
                }
            }
            assert_eq!(counts, [3; 15], "epoch {epoch}");
        }
    }

    #[test]
    fn no_picture_meets_itself_in_a_batch_if_there_are_enough() {
        let dataset = dataset(7, 0, 0, 5);
        let batches = Batches::new(&dataset, &shape(4, 1), 3);
        for step in 0..200 {
            let mut seen: Vec<usize> =
                batches.step(step)[0].samples.iter().map(|sample| sample.example_idx).collect();
            let n = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), n, "step {step}");
        }
    }

    #[test]
    fn few_pictures_fill_a_batch_by_repeats() {
        let dataset = dataset(3, 0, 0, 8);
        let batches = Batches::new(&dataset, &shape(8, 1), 3);
        assert_eq!(batches.step(0)[0].samples.len(), 8);
    }

    #[test]
    fn a_step_is_a_function_of_seed_and_step() {
        let dataset = dataset(10, 5, 6, 2);
        let one = Batches::new(&dataset, &shape(4, 2), 7);
        let steps: Vec<_> = (0..30).map(|step| one.step(step)).collect();
        let other = Batches::new(&dataset, &shape(4, 2), 7);
        for step in (0..30).rev() {
            assert_eq!(other.step(step), steps[usize::try_from(step).unwrap()]);
        }
        assert_ne!(Batches::new(&dataset, &shape(4, 2), 8).step(0), steps[0]);
    }

    #[test]
    fn class_pictures_come_with_every_step_and_samples_are_numbered_through() {
        let dataset = dataset(8, 0, 6, 1);
        let batches = Batches::new(&dataset, &shape(4, 2), 7);
        let step = batches.step(5);
        let roles: Vec<Role> = step.iter().map(|batch| batch.role).collect();
        assert_eq!(roles, [Role::Instance, Role::Instance, Role::Class, Role::Class]);
        let indices: Vec<u64> =
            step.iter().flat_map(|batch| &batch.samples).map(|sample| sample.index).collect();
        let n = u64::try_from(indices.len()).unwrap();
        assert_eq!(indices, (0..n).collect::<Vec<_>>());
    }

    #[test]
    fn captions_are_dropped_and_pictures_mirrored_at_the_stated_rates() {
        let dataset = dataset(16, 0, 0, 1);
        let batches = Batches::new(&dataset, &shape(16, 1), 7);
        let samples: Vec<Sample> =
            (0..250).flat_map(|step| batches.step(step)).flat_map(|batch| batch.samples).collect();
        assert_eq!(samples.len(), 4000);
        let dropped = samples.iter().filter(|sample| sample.caption.is_empty()).count();
        let mirrored = samples.iter().filter(|sample| sample.mirror == Mirror::Yes).count();
        // Five standard deviations around 1000 and 2000.
        assert!((863..1137).contains(&dropped), "{dropped}");
        assert!((1842..2158).contains(&mirrored), "{mirrored}");
    }
}
