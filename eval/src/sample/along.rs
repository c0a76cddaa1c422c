//! Walks the base's own trajectories and asks other weights what they would have said along them.

use super::{Guided, Sampling};
use crate::error::EvalError;
use crate::panel::Prompt;
use crate::path::{PathStep, noisy_steps};
use diffusion::Sampler;
use models::Base;
use models::base::{host_values, tensor_from_host};
use recipes::draws::Purpose;
use std::sync::atomic::{AtomicBool, Ordering};

impl Sampling {
    /// Noisy steps of a trajectory, which a path is summed over.
    ///
    /// # Errors
    ///
    /// [`EvalError::Noiseless`] for a sampler without step noise (η = 0).
    pub(crate) fn path_steps(&self) -> Result<usize, EvalError> {
        let sampler = Sampler::new(self.kind, &self.scheduler, self.steps)?;
        noisy_steps(&(0..sampler.len()).map(|i| sampler.noise_scale(i)).collect::<Vec<_>>())
    }

    /// Draws trajectories of `base` and tells `step` of each noisy step, what `others` say there
    /// included. The last step, which has no noise, is not told.
    ///
    /// # Errors
    ///
    /// A schedule or prompt that the base cannot use; a fault of the device; [`EvalError::Stopped`]
    /// once `stop` is set; the first error of `step`.
    pub(crate) fn along(
        &self,
        (base, others): (&Base, &[Base]),
        (prompt, seeds): (&Prompt, &[u32]),
        stop: &AtomicBool,
        step: &mut dyn FnMut(&PathStep<'_, f32>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let denoiser = Guided::new(base, prompt, self)?;
        let others: Vec<Guided<'_>> = others
            .iter()
            .map(|other| Guided::new(other, prompt, self))
            .collect::<Result<_, _>>()?;
        let mut sampler = Sampler::new(self.kind, &self.scheduler, self.steps)?;
        let shape = base.latent_shape([self.side_px; 2])?;
        let sides = [seeds.len(), shape[0], shape[1], shape[2]];
        let start = self.normal(prompt, seeds, shape, (0, Purpose::CensusStart));
        let mut noisy =
            tensor_from_host(start, sides, &base.device).mul_scalar(sampler.init_noise_sigma());
        let scales: Vec<f64> = (0..sampler.len()).map(|i| sampler.noise_scale(i)).collect();
        for (step_idx, &sigma) in scales[..noisy_steps(&scales)?].iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(EvalError::Stopped);
            }
            let t = sampler.timesteps()[step_idx];
            let input = sampler.scale_input(noisy.clone(), step_idx);
            let output = denoiser.output(input.clone(), t)?;
            let noise = self.normal(prompt, seeds, shape, (step_idx, Purpose::CensusStep));
            let said = |guided: &Guided<'_>| -> Result<Vec<f32>, EvalError> {
                Ok(host_values(guided.output(input.clone(), t)?)?)
            };
            step(&PathStep {
                gain: sampler.output_gain(step_idx),
                sigma,
                base: &host_values(output.clone())?,
                others: &others.iter().map(said).collect::<Result<Vec<_>, _>>()?,
                noise: &noise,
            })?;
            let noise = tensor_from_host(noise, sides, &base.device);
            noisy = sampler.step(step_idx, output, noisy, Some(noise));
        }
        Ok(())
    }
}
