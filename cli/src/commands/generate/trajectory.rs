//! How a picture comes about: noised step by step, and denoised.

use diffusion::{Moment, Sampler};
use image::RgbImage;
use models::base::tensor_from_host;
use models::{Base, Tensor};

use super::animation;
use crate::drawing::Start;
use crate::error::JobError;
use crate::picture;

/// Longest side of a picture of the strip, and of the animations.
const STRIP_SIDE_PX: u32 = 256;
const FILM_SIDE_PX: u32 = 512;
/// How long a picture of an animation is shown, and one at which it turns.
const MOVING_MS: u32 = 120;
const RESTING_MS: u32 = 1500;

/// Watches the first picture that is drawn and keeps what some of its steps see.
#[derive(Debug)]
pub(super) struct Recorder {
    sampler: Sampler,
    /// The steps that are kept, in order.
    chosen: Vec<usize>,
    /// Latents before each of them, brought to unit variance: what the VAE can decode.
    noisy: Vec<Tensor<4>>,
    /// The clean latents that each of them aims at.
    clean: Vec<Tensor<4>>,
    /// The latents after the last step of all.
    last: Option<Tensor<4>>,
}

/// The finished trajectory. All rows are equally long.
#[derive(Debug)]
pub(super) struct Trajectory {
    /// From the clean picture to the noise at which the denoising began.
    pub(super) forward: Vec<RgbImage>,
    /// From that noise to the picture that was drawn.
    pub(super) reverse: Vec<RgbImage>,
    /// What the network took for the picture at each step of the denoising.
    pub(super) estimates: Vec<RgbImage>,
    /// Timesteps of the denoising; the picture itself, at the end of its row, has none.
    pub(super) timesteps: Vec<f64>,
}

/// Decodes latents `[1, channels, height, width]`; `None` once a stop was requested.
pub(super) type Decode<'a> = dyn FnMut(Tensor<4>) -> Result<Option<RgbImage>, JobError> + 'a;

impl Recorder {
    /// Keeps `n_frames - 1` of the steps from `first` on, the first and the last among them.
    pub(super) fn new(sampler: Sampler, first: usize, n_frames: usize) -> Self {
        let chosen = spread(first, sampler.len(), n_frames.saturating_sub(1));
        Self { sampler, chosen, noisy: Vec::new(), clean: Vec::new(), last: None }
    }

    /// Looks at a step; after the last one of the first picture there is nothing more to see.
    pub(super) fn see(&mut self, moment: &Moment<'_>) {
        if self.last.is_some() {
            return;
        }
        let step_idx = moment.step_idx;
        if self.chosen.contains(&step_idx) {
            let noisy = self.sampler.scale_input(first_row(moment.noisy), step_idx);
            self.noisy.push(noisy);
            self.clean.push(first_row(&moment.clean()));
        }
        if step_idx + 1 == self.sampler.len() {
            self.last = Some(first_row(moment.next));
        }
    }

    /// Pictures that are decoded for the whole trajectory.
    pub(super) fn n_decoded(&self) -> usize {
        3 * self.chosen.len() + 2
    }

    /// The trajectory of the picture that began at `start`: its latents, or those of the picture
    /// that it was drawn from, are noised with its own start noise. `None` if the drawing or the
    /// decoding was stopped.
    ///
    /// # Errors
    ///
    /// Those of `decode`.
    pub(super) fn develop(
        self,
        base: &Base,
        start: &Start,
        decode: &mut Decode<'_>,
    ) -> Result<Option<Trajectory>, JobError> {
        let Some(last) = self.last else { return Ok(None) };
        let shape = last.dims();
        let tensor = |values: &[f32]| tensor_from_host(values.to_vec(), shape, &base.device);
        let clean = start.clean.as_deref().map_or_else(|| last.clone(), tensor);
        let noise = tensor(&start.noise);
        let noised = |step_idx: &usize| {
            let latents = self.sampler.noised(clean.clone(), noise.clone(), *step_idx);
            self.sampler.scale_input(latents, *step_idx)
        };
        let forward = std::iter::once(clean.clone()).chain(self.chosen.iter().rev().map(noised));
        let Some(forward) = decoded(forward, decode)? else { return Ok(None) };
        let Some(reverse) = decoded(self.noisy.into_iter().chain([last]), decode)? else {
            return Ok(None);
        };
        let Some(mut estimates) = decoded(self.clean.into_iter(), decode)? else {
            return Ok(None);
        };
        estimates.extend(reverse.last().cloned());
        let timesteps = self.sampler.timesteps();
        let timesteps = self.chosen.iter().map(|&step_idx| timesteps[step_idx]).collect();
        Ok(Some(Trajectory { forward, reverse, estimates, timesteps }))
    }
}

impl Trajectory {
    /// Three rows: the noising, the denoising, the estimates.
    pub(super) fn strip(&self) -> RgbImage {
        let small = |picture: &RgbImage| picture::within(picture, STRIP_SIDE_PX);
        let rows = [&self.forward, &self.reverse, &self.estimates];
        let rows: [Vec<RgbImage>; 3] = rows.map(|row| row.iter().map(small).collect());
        picture::sheet(&rows)
    }

    /// There and back: the noising, then the denoising.
    fn film(&self) -> Vec<(RgbImage, u32)> {
        let row = |pictures: &[RgbImage]| {
            let turn = pictures.len().saturating_sub(1);
            let shown = pictures.iter().enumerate().map(|(index, picture)| {
                let rests = index == 0 || index == turn;
                let millis = if rests { RESTING_MS } else { MOVING_MS };
                (picture::within(picture, FILM_SIDE_PX), millis)
            });
            shown.collect::<Vec<_>>()
        };
        let mut film = row(&self.forward);
        film.extend(row(&self.reverse));
        film
    }

    /// The film as a GIF.
    ///
    /// # Errors
    ///
    /// As [`animation::gif`].
    pub(super) fn gif(&self) -> Result<Vec<u8>, JobError> {
        animation::gif(&self.film())
    }

    /// The film as a WebP animation.
    ///
    /// # Errors
    ///
    /// As [`animation::webp`].
    pub(super) fn webp(&self) -> Result<Vec<u8>, JobError> {
        animation::webp(&self.film())
    }
}

fn first_row(latents: &Tensor<4>) -> Tensor<4> {
    latents.clone().narrow(0, 0, 1)
}

/// Decodes all; `None` if it was stopped.
fn decoded(
    latents: impl Iterator<Item = Tensor<4>>,
    decode: &mut Decode<'_>,
) -> Result<Option<Vec<RgbImage>>, JobError> {
    latents.map(decode).collect()
}

/// At most `n` (at least one) of the numbers from `first` to `end - 1`, evenly spread, with both
/// ends.
fn spread(first: usize, end: usize, n: usize) -> Vec<usize> {
    let span = end.saturating_sub(first + 1);
    let n = n.clamp(1, span + 1);
    let gaps = (n - 1).max(1);
    (0..n).map(|index| first + (index * span + gaps / 2) / gaps).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use diffusion::SamplerKind;
    use models::base::host_values;
    use models::{Device, SizeConditions, tiny};
    use recipes::draws::Purpose;

    use super::*;
    use crate::drawing::{Audience, Drawing, Method, Tiles, draw};

    #[test]
    fn steps_are_spread_evenly_with_both_ends() {
        assert_eq!(spread(0, 31, 4), [0, 10, 20, 30]);
        assert_eq!(spread(5, 8, 15), [5, 6, 7]);
        assert_eq!(spread(0, 30, 2), [0, 29]);
        assert_eq!(spread(3, 4, 9), [3]);
        assert_eq!(spread(0, 30, 1), [0]);
    }

    struct Watching(Recorder);

    impl Audience for Watching {
        fn stepped(&mut self, moment: &Moment<'_>) {
            self.0.see(moment);
        }
        fn finished(&mut self, _picture: RgbImage) -> Result<(), JobError> {
            Ok(())
        }
    }

    #[test]
    fn both_ways_meet_in_the_noise_and_in_the_picture() {
        let dir = tempfile::tempdir().unwrap();
        let base = tiny::base(dir.path(), 5, &Device::flex()).unwrap();
        let size_px = [tiny::SIDE_PX; 2];
        let method = Method {
            // Its latents are far from unit variance, other than those of DDIM.
            sampler: SamplerKind::Euler,
            spacing: None,
            steps: 6,
            guidance_scale: 1.0,
            guidance_rescale: 0.0,
            strength: 1.0,
            sizes: SizeConditions::whole(size_px),
            latent_shape: base.latent_shape(size_px).unwrap(),
            tiles: Tiles::Auto,
            batch: None,
        };
        let start = |seed| Start::of_seed(seed, method.latent_shape, Purpose::Generate);
        let starts = [start(0), start(1)];
        let sampler = method.sampler(&base).unwrap();
        let signal = 1.0 / sampler.init_noise_sigma();
        let mut watching = Watching(Recorder::new(sampler, 0, 4));
        let drawing = Drawing { prompt: "", negative: "", method };
        draw(&base, &drawing, &starts, &AtomicBool::new(false), &mut watching).unwrap();
        let mut seen: Vec<Vec<f32>> = Vec::new();
        let mut decode = |latents: Tensor<4>| -> Result<Option<RgbImage>, JobError> {
            seen.push(host_values(latents.clone())?);
            Ok(method.pictures_from_latents(&base, &latents)?.pop())
        };
        let expected = watching.0.n_decoded();
        let trajectory = watching.0.develop(&base, &starts[0], &mut decode).unwrap().unwrap();
        assert_eq!(seen.len(), expected);
        let rows = [&trajectory.forward, &trajectory.reverse, &trajectory.estimates];
        assert_eq!(rows.map(Vec::len), [4, 4, 4]);
        assert_eq!(trajectory.forward[0], trajectory.reverse[3]);
        assert_eq!(trajectory.timesteps.len(), 3);
        assert!(trajectory.timesteps.windows(2).all(|pair| pair[1] < pair[0]));
        // What is decoded has unit variance: at the far end of the noising little of the picture
        // and much of its own start noise, where the denoising begins nothing else.
        let noise = &starts[0].noise;
        let (of_picture, of_noise) = (signal as f32, (1.0 - signal * signal).sqrt() as f32);
        for (index, noise) in noise.iter().enumerate() {
            let mixed = of_picture * seen[0][index] + of_noise * noise;
            assert!((seen[3][index] - mixed).abs() < 1e-3, "{} {mixed}", seen[3][index]);
            assert!((seen[4][index] - noise).abs() < 1e-4, "{} {noise}", seen[4][index]);
        }
        let strip = trajectory.strip();
        assert_eq!(strip.dimensions(), (4 * 64 + 3 * 2, 3 * 64 + 2 * 2));
        let film = trajectory.film();
        let times: Vec<u32> = film.iter().map(|(_, millis)| *millis).collect();
        assert_eq!(times, [1500, 120, 120, 1500, 1500, 120, 120, 1500]);
    }

    #[test]
    fn a_trajectory_that_was_stopped_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let base = tiny::base(dir.path(), 5, &Device::flex()).unwrap();
        let config = diffusion::SchedulerConfig::stable_diffusion(diffusion::Prediction::Epsilon);
        let sampler = Sampler::new(SamplerKind::Ddpm, &config, 3).unwrap();
        let recorder = Recorder::new(sampler, 0, 4);
        let start = Start::of_seed(0, [4, 8, 8], Purpose::Generate);
        let developed = recorder.develop(&base, &start, &mut |_| Ok(None)).unwrap();
        assert!(developed.is_none());
    }
}
