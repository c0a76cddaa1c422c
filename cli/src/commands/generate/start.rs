//! Where the pictures begin: the noise of a seed or of a file, and the latents of a picture.

use std::path::Path;

use checkpoints::{HostTensor, TensorFile};
use diffusion::Sampler;
use models::Base;
use models::base::{host_values, tensor_from_host};
use recipes::draws::{self, Purpose};

use super::init_image;
use super::model::Model;
use super::order::{InitImage, Order};
use crate::args::GenerateArguments;
use crate::drawing::{Method, Start, StepNoise};
use crate::error::JobError;

/// The start noise of a file.
const LATENTS: &str = "latents";
/// The noise of the steps that are taken.
const NOISE: &str = "noise";
/// The noise of the draw from the encoder's posterior.
const POSTERIOR: &str = "posterior";

/// The pictures of one prompt: equal for all prompts, so that columns of a sheet share their noise.
#[derive(Debug)]
pub(super) struct Starts {
    /// Their seeds.
    pub(super) seeds: Vec<u64>,
    /// Their beginnings, one for each seed.
    pub(super) each: Vec<Start>,
    /// What the seeds are good for.
    pub(super) seeding: Seeding,
}

/// What seeds are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seeding {
    /// Noise is drawn from them.
    Draws,
    /// They only name pictures: all noise is that of a file.
    Names,
}

impl Starts {
    /// The beginnings that the arguments ask for.
    ///
    /// # Errors
    ///
    /// A file of latents that does not fit; a fault of the device.
    pub(super) fn of(
        arguments: &GenerateArguments,
        order: &Order,
        model: &Model,
        method: &Method,
        sampler: &Sampler,
    ) -> Result<Self, JobError> {
        let shape = method.latent_shape;
        let (mut this, posteriors) = match &arguments.start.init_latents {
            None => {
                let start = |&seed: &u64| Start::of_seed(seed, shape, Purpose::Generate);
                let each = order.seeds.iter().map(start).collect();
                (Self { seeds: order.seeds.clone(), each, seeding: Seeding::Draws }, None)
            }
            Some(path) => {
                let steps = NoisySteps::of(sampler, order.first_step(sampler));
                let mut given = Given::read(path, method, steps)?;
                let seeds = seeds_of_given(arguments, order, given.latents.len())?;
                let holds_all = (given.noises.is_some() || steps.needed == 0)
                    && (given.posteriors.is_some() || order.picture.is_none());
                let seeding = if holds_all { Seeding::Names } else { Seeding::Draws };
                let posteriors = given.posteriors.take();
                (Self { each: given.starts(&seeds), seeds, seeding }, posteriors)
            }
        };
        if let Some(picture) = &order.picture {
            let posteriors = posteriors.unwrap_or_else(|| {
                let n_values = shape.iter().product();
                let noise = |&seed: &u64| {
                    draws::normals(&mut draws::stream(seed, 0, 0, Purpose::Posterior), n_values)
                };
                this.seeds.iter().map(noise).collect()
            });
            let latents = latents_from_image(&model.base, method, picture, posteriors)?;
            for (start, latents) in this.each.iter_mut().zip(latents) {
                start.clean = Some(latents);
            }
        }
        Ok(this)
    }
}

/// Scaled latents of a picture, drawn from the encoder's posterior once for each noise.
///
/// Source: diffusers `StableDiffusionImg2ImgPipeline.prepare_latents`.
fn latents_from_image(
    base: &Base,
    method: &Method,
    picture: &InitImage,
    noises: Vec<Vec<f32>>,
) -> Result<Vec<Vec<f32>>, JobError> {
    let [height, width] = method.sizes.target;
    let side = |side_px: usize| u32::try_from(side_px).unwrap_or(u32::MAX);
    let image = init_image::fitted(&picture.image, [side(height), side(width)]);
    let shape = [1, 3, height, width];
    let pixels = tensor_from_host(init_image::pixels(&image), shape, &base.device);
    let posterior = base.vae.posterior_from_pixels(pixels)?;
    let [channels, height, width] = method.latent_shape;
    let draw = |noise: Vec<f32>| {
        let noise = tensor_from_host(noise, [1, channels, height, width], &base.device);
        let latents = posterior.sample(noise).mul_scalar(base.vae.config().scaling_factor);
        Ok(host_values(latents)?)
    };
    noises.into_iter().map(draw).collect()
}

/// Of how many steps a file holds the noise.
#[derive(Debug, Clone, Copy)]
struct NoisySteps {
    /// From the first that is taken to the last that adds any.
    needed: usize,
    /// To the last of all.
    taken: usize,
}

impl NoisySteps {
    fn of(sampler: &Sampler, first: usize) -> Self {
        let last = (first..sampler.len()).rev().find(|&step_idx| sampler.needs_noise(step_idx));
        Self { needed: last.map_or(0, |last| last - first + 1), taken: sampler.len() - first }
    }

    /// Noise that nobody needs may be of any steps; else it would be taken for that of others.
    fn allows(self, n_steps: usize) -> bool {
        self.needed == 0 || (self.needed..=self.taken).contains(&n_steps)
    }
}

/// The seeds that go with `n` pictures of a file: they name the pictures, and draw what the file
/// does not hold.
fn seeds_of_given(
    arguments: &GenerateArguments,
    order: &Order,
    n: usize,
) -> Result<Vec<u64>, JobError> {
    if arguments.pictures.seeds.is_none() {
        let first = arguments.pictures.seed;
        return Ok((0..n as u64).map(|index| first.wrapping_add(index)).collect());
    }
    if order.seeds.len() == n {
        return Ok(order.seeds.clone());
    }
    Err(JobError::usage(format!(
        "`--seeds` names {} seeds, but `--init-latents` holds {n} pictures",
        order.seeds.len()
    )))
}

/// What `--init-latents` holds, one entry for each picture.
#[derive(Debug)]
struct Given {
    latents: Vec<Vec<f32>>,
    noises: Option<Vec<Vec<f32>>>,
    posteriors: Option<Vec<Vec<f32>>>,
}

impl Given {
    fn read(path: &Path, method: &Method, steps: NoisySteps) -> Result<Self, JobError> {
        let file = TensorFile::open(path)?;
        let shape = method.latent_shape;
        let latents = rows(&file, LATENTS, shape)?;
        let noises = match file.info(NOISE) {
            None => None,
            Some(_) => Some(step_noises(&file, shape, latents.len(), steps)?),
        };
        let mut posteriors = match file.info(POSTERIOR) {
            None => None,
            Some(_) => Some(rows(&file, POSTERIOR, shape)?),
        };
        // diffusers encodes a picture once for all that are drawn from it.
        if let Some(rows) = posteriors.as_mut().filter(|rows| rows.len() == 1) {
            rows.resize(latents.len(), rows[0].clone());
        }
        if let Some(found) = posteriors.as_ref().map(Vec::len).filter(|n| *n != latents.len()) {
            return Err(JobError::data(format!(
                "`{}` holds `{POSTERIOR}` for {found} pictures and `{LATENTS}` for {}",
                path.display(),
                latents.len()
            )));
        }
        Ok(Self { latents, noises, posteriors })
    }

    fn starts(self, seeds: &[u64]) -> Vec<Start> {
        let mut noises = self.noises.into_iter().flatten();
        let start = |(latents, &seed): (Vec<f32>, &u64)| Start {
            noise: latents,
            clean: None,
            step_noise: noises.next().map_or(StepNoise::Seed(seed), StepNoise::Given),
        };
        self.latents.into_iter().zip(seeds).map(start).collect()
    }
}

/// The pictures of a tensor `[n, channels, height, width]` or `[channels, height, width]`.
fn rows(file: &TensorFile, name: &str, expected: [usize; 3]) -> Result<Vec<Vec<f32>>, JobError> {
    let tensor = finite(file, name)?;
    let (n, shape) = match tensor.shape.as_slice() {
        [n, rest @ ..] if rest.len() == 3 => (*n, rest),
        whole => (1, whole),
    };
    if n == 0 || shape != expected {
        let [channels, height, width] = expected;
        let expected = format!("[n, {channels}, {height}, {width}]");
        return Err(misshaped(file, name, &tensor, &expected));
    }
    let n_values: usize = expected.iter().product();
    Ok(tensor.f32().chunks(n_values).map(<[f32]>::to_vec).collect())
}

/// The noise of each picture, one step after the other, from `[steps, n, channels, height, width]`;
/// the axis of one picture may be missing.
fn step_noises(
    file: &TensorFile,
    [channels, height, width]: [usize; 3],
    n: usize,
    steps: NoisySteps,
) -> Result<Vec<Vec<f32>>, JobError> {
    let tensor = finite(file, NOISE)?;
    let each = [n, channels, height, width];
    let fits = |rest: &[usize]| *rest == each || (n == 1 && *rest == each[1..]);
    let n_steps = match tensor.shape.as_slice() {
        [n_steps, rest @ ..] if fits(rest) => *n_steps,
        _ => 0,
    };
    if n_steps == 0 {
        let expected = format!("[steps, {n}, {channels}, {height}, {width}]");
        return Err(misshaped(file, NOISE, &tensor, &expected));
    }
    if !steps.allows(n_steps) {
        let NoisySteps { needed, taken } = steps;
        return Err(JobError::data(format!(
            "`{}` holds `{NOISE}` for {n_steps} steps, expected it for the {taken} steps that are \
             taken, or for the first {needed} of them",
            file.path().display()
        )));
    }
    let values = tensor.f32();
    let n_values = channels * height * width;
    let of_picture = |picture: usize| {
        let entries = values.chunks(n_values).skip(picture).step_by(n);
        entries.flatten().copied().collect()
    };
    Ok((0..n).map(of_picture).collect())
}

fn finite(file: &TensorFile, name: &str) -> Result<HostTensor, JobError> {
    let tensor = file.read(name)?;
    if tensor.all_finite() {
        return Ok(tensor);
    }
    Err(JobError::data(format!(
        "`{}` holds `{name}` with values that are not finite",
        file.path().display()
    )))
}

fn misshaped(file: &TensorFile, name: &str, tensor: &HostTensor, expected: &str) -> JobError {
    JobError::Data {
        message: format!(
            "`{}` holds `{name}` of shape {:?}, expected {expected}",
            file.path().display(),
            tensor.shape
        ),
        hint: Some("`--size` must be the size that these latents become".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use checkpoints::TensorMap;

    use super::*;

    const SHAPE: [usize; 3] = [1, 1, 2];

    fn file(dir: &Path, tensors: &[(&str, &[usize])]) -> TensorFile {
        let path = dir.join("noise.safetensors");
        let tensor = |&(name, shape): &(&str, &[usize])| {
            let n_values: usize = shape.iter().product();
            let values = (0..n_values).map(|index| index as f32).collect();
            (name.to_owned(), HostTensor::from_f32(shape, values))
        };
        let tensors: TensorMap = tensors.iter().map(tensor).collect();
        checkpoints::write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
        TensorFile::open(&path).unwrap()
    }

    #[test]
    fn the_noise_of_a_picture_is_gathered_from_all_steps() {
        let dir = tempfile::tempdir().unwrap();
        let two = file(dir.path(), &[(NOISE, &[3, 2, 1, 1, 2])]);
        let steps = |needed, taken| NoisySteps { needed, taken };
        let noises = step_noises(&two, SHAPE, 2, steps(2, 3)).unwrap();
        assert_eq!(noises[0], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0]);
        assert_eq!(noises[1], [2.0, 3.0, 6.0, 7.0, 10.0, 11.0]);
        let message = step_noises(&two, SHAPE, 2, steps(4, 5)).unwrap_err().to_string();
        assert!(message.contains("for 3 steps, expected it for the 5 steps"), "{message}");
        let message = step_noises(&two, SHAPE, 1, steps(2, 3)).unwrap_err().to_string();
        assert!(message.contains("shape [3, 2, 1, 1, 2]"), "{message}");
        // Too many: of which steps they are is not known. Where none is needed it does not matter.
        assert!(step_noises(&two, SHAPE, 2, steps(1, 2)).is_err());
        assert!(step_noises(&two, SHAPE, 2, steps(0, 2)).is_ok());
        let one = file(dir.path(), &[(NOISE, &[3, 1, 1, 2])]);
        assert_eq!(
            step_noises(&one, SHAPE, 1, steps(3, 3)).unwrap()[0],
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        );
    }

    #[test]
    fn latents_of_another_size_are_refused_with_both_shapes() {
        let dir = tempfile::tempdir().unwrap();
        let given = file(dir.path(), &[(LATENTS, &[2, 1, 1, 2]), (POSTERIOR, &[1, 1, 2])]);
        assert_eq!(rows(&given, LATENTS, SHAPE).unwrap(), [[0.0, 1.0], [2.0, 3.0]]);
        assert_eq!(rows(&given, POSTERIOR, SHAPE).unwrap(), [[0.0, 1.0]]);
        let message = rows(&given, LATENTS, [1, 2, 2]).unwrap_err().to_string();
        assert!(message.contains("shape [2, 1, 1, 2], expected [n, 1, 2, 2]"), "{message}");
        assert!(rows(&given, "absent", SHAPE).is_err());
    }
}
