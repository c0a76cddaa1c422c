//! Posteriors of pictures, which worker threads decode while this one encodes them.
//!
//! Device tensors are made on the thread that calls; what the others hand over are host buffers.

use std::collections::BTreeMap;

use checkpoints::Watch;
use datasets::{Bucket, Dataset, Example, Pixels};
use models::Base;
use models::base::{host_values, tensor_from_host};

use crate::error::TrainError;
use crate::event::{Encoded, Event};

/// Most pictures per forward pass.
const BATCH: usize = 16;
/// Pixels of one forward pass on the processor, unless one picture has more: there larger passes
/// take memory and save no time.
const HOST_BATCH_PX: usize = 512 * 512;
/// Pixels of one forward pass on a card, as many as one picture of 1024 × 1024 has.
const CARD_BATCH_PX: usize = 1024 * 1024;
/// Most threads that decode: each may hold a picture at its full size.
const MAX_THREADS: usize = 16;

/// What the autoencoder says of a picture, and of its mirror image if the recipe mirrors.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// `[channels, height, width]` of its latents.
    pub(super) shape: [usize; 3],
    pub(super) posteriors: Vec<Posterior>,
}

/// Mean and log-variance of unscaled latents, row-major.
#[derive(Clone, Debug)]
pub(super) struct Posterior {
    pub(super) mean: Vec<f32>,
    pub(super) log_variance: Vec<f32>,
}

impl Posterior {
    fn is_finite(&self) -> bool {
        self.mean.iter().chain(&self.log_variance).all(|value| value.is_finite())
    }
}

/// How the work is cut, of which the posteriors show nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Threads that decode.
    pub(super) n_threads: usize,
    /// Pixels of one forward pass, unless one picture has more.
    pub(super) batch_px: usize,
}

impl Cut {
    /// What suits this machine and the device of `base`.
    pub(super) fn of(base: &Base) -> Self {
        let batch_px = if base.device_kind() == "cpu" { HOST_BATCH_PX } else { CARD_BATCH_PX };
        Self { n_threads: rayon::current_num_threads().min(MAX_THREADS), batch_px }
    }

    /// Pictures of this size per forward pass.
    fn batch(self, bucket: Bucket) -> usize {
        let picture_px = bucket.width as usize * bucket.height as usize;
        (self.batch_px / picture_px.max(1)).clamp(1, BATCH)
    }
}

/// Encodes all pictures of `dataset`, as many of one size at once as `cut` says; as its examples.
/// `None` if a stop was requested.
///
/// # Errors
///
/// A picture that cannot be read or is encoded to values that are not finite, by name; of several
/// that cannot be read the first in the dataset.
pub(super) fn encoded(
    base: &Base,
    dataset: &Dataset,
    cut: Cut,
    watch: &mut Watch<'_, Event>,
) -> Result<Option<Vec<Picture>>, TrainError> {
    let groups = groups(&dataset.examples, cut);
    let order = groups.concat();
    let (stop, total) = (watch.stop, order.len());
    let mut tell = |done| watch.tell(&Event::Cached { what: Encoded::Pictures, done, total });
    tell(0);
    let pictures = dataset.read_ahead(&order, cut.n_threads, stop, |decoded| {
        let mut found = BTreeMap::new();
        for group in &groups {
            let Some(views) = decoded.take(group.len())? else { return Ok(None) };
            let pictures = together(base, dataset, group, views)?;
            found.extend(group.iter().copied().zip(pictures));
            tell(found.len());
        }
        Ok::<_, TrainError>(Some(found))
    })?;
    Ok(pictures.map(|found| found.into_values().collect()))
}

/// Positions of the examples that are encoded together: of one size, ascending, and the groups in
/// the order of their first ones.
fn groups(examples: &[Example], cut: Cut) -> Vec<Vec<usize>> {
    let mut by_bucket: BTreeMap<Bucket, Vec<usize>> = BTreeMap::new();
    for (example_idx, example) in examples.iter().enumerate() {
        by_bucket.entry(example.bucket).or_default().push(example_idx);
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (bucket, members) in by_bucket {
        groups.extend(members.chunks(cut.batch(bucket)).map(<[usize]>::to_vec));
    }
    groups.sort_unstable();
    groups
}

/// Encodes the decoded pictures of a group: first all as they are, then all mirror images.
fn together(
    base: &Base,
    dataset: &Dataset,
    group: &[usize],
    views: Vec<Vec<Pixels>>,
) -> Result<Vec<Picture>, TrainError> {
    let Bucket { width, height } = dataset.examples[group[0]].bucket;
    let size = [height as usize, width as usize];
    let shape = base.latent_shape(size)?;
    let mut pictures = vec![Picture { shape, posteriors: Vec::new() }; group.len()];
    let mut views: Vec<_> = views.into_iter().map(Vec::into_iter).collect();
    loop {
        let batch: Vec<Pixels> = views.iter_mut().filter_map(Iterator::next).collect();
        if batch.is_empty() {
            break;
        }
        for (picture, posterior) in pictures.iter_mut().zip(posteriors(base, size, batch)?) {
            picture.posteriors.push(posterior);
        }
    }
    let is_finite = |picture: &Picture| picture.posteriors.iter().all(Posterior::is_finite);
    match pictures.iter().position(|picture| !is_finite(picture)) {
        Some(member) => {
            Err(TrainError::Latents { path: dataset.examples[group[member]].path.clone() })
        }
        None => Ok(pictures),
    }
}

/// The posteriors of pictures of `[height, width]`, in one forward pass.
fn posteriors(
    base: &Base,
    [height, width]: [usize; 2],
    pictures: Vec<Pixels>,
) -> Result<Vec<Posterior>, TrainError> {
    let n_pictures = pictures.len();
    let mut values = Vec::with_capacity(n_pictures * 3 * height * width);
    for picture in pictures {
        values.extend(picture.values);
    }
    let pixels = tensor_from_host(values, [n_pictures, 3, height, width], &base.device);
    let posterior = base.vae.posterior_from_pixels(pixels)?;
    let (means, log_variances) =
        (host_values(posterior.mean)?, host_values(posterior.log_variance)?);
    let n_values = (means.len() / n_pictures.max(1)).max(1);
    let rows = means.chunks_exact(n_values).zip(log_variances.chunks_exact(n_values));
    let posterior = |(mean, log_variance): (&[f32], &[f32])| Posterior {
        mean: mean.to_vec(),
        log_variance: log_variance.to_vec(),
    };
    Ok(rows.map(posterior).collect())
}

#[cfg(test)]
mod tests {
    use datasets::Role;

    use super::*;

    const SMALL: Bucket = Bucket { width: 256, height: 256 };
    const WIDE: Bucket = Bucket { width: 512, height: 256 };
    const LARGE: Bucket = Bucket { width: 1024, height: 1024 };

    fn examples(buckets: &[Bucket]) -> Vec<Example> {
        let example = |&bucket: &Bucket| Example {
            id: String::new(),
            path: std::path::PathBuf::new(),
            caption: String::new(),
            sha256: String::new(),
            role: Role::Instance,
            width: bucket.width,
            height: bucket.height,
            bucket,
        };
        buckets.iter().map(example).collect()
    }

    #[test]
    fn pictures_of_one_size_are_encoded_together_in_the_order_of_the_dataset() {
        let examples = examples(&[WIDE, SMALL, LARGE, WIDE, SMALL, WIDE, SMALL, LARGE]);
        let groups = groups(&examples, Cut { n_threads: 1, batch_px: 2 * 512 * 256 });
        let expected: [&[usize]; 5] = [&[0, 3], &[1, 4, 6], &[2], &[5], &[7]];
        assert_eq!(groups, expected);
    }

    #[test]
    fn a_batch_has_few_pixels_or_one_picture() {
        for (batch_px, expected) in [(HOST_BATCH_PX, [4, 2, 1]), (CARD_BATCH_PX, [16, 8, 1])] {
            let cut = Cut { n_threads: 1, batch_px };
            assert_eq!([SMALL, WIDE, LARGE].map(|bucket| cut.batch(bucket)), expected);
        }
        let cut = Cut { n_threads: 1, batch_px: CARD_BATCH_PX };
        assert_eq!(cut.batch(Bucket { width: 64, height: 64 }), BATCH);
    }
}
