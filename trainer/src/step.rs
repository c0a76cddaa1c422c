//! One optimizer step: draw the batch, run it forwards and backwards in parts, update.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Tensor;
use datasets::{Batches, Dataset, Role, Sample};
use models::SizeConditions;
use models::adapter::DropoutDraw;
use models::base::tensor_from_host;
use models::ops::square_sums;
use recipes::{FitSpec, OptimizerSpec};

use crate::cache::{Cache, Draw};
use crate::divergence::{Divergence, PictureDraw};
use crate::error::TrainError;
use crate::event::StepRecord;
use crate::lr_schedule::learning_rate;
use crate::objective::{Activations, MicroBatch, Objective};
use crate::optimizer::{AdamW, clipped, ema_decay, ema_update, length, read};
use crate::state::State;
use crate::trainee::Trainee;

/// What every step of a run has in common.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Batch, optimizer, schedule.
    pub fit: &'a FitSpec,
    /// What is minimised.
    pub objective: &'a Objective,
    /// Pictures and captions, class pictures included.
    pub dataset: &'a Dataset,
    /// What the frozen networks say of them.
    pub cache: &'a Cache,
    /// Weight of the mean loss of class pictures beside that of the concept's.
    pub prior_weight: f64,
}

/// What the samples of one role weigh in a step: 1/n, or prior weight/n for class pictures, so that
/// the two means are taken separately.
#[derive(Clone, Copy, Debug)]
struct Shares {
    concept: f64,
    class: f64,
}

impl Shares {
    fn of(self, role: Role) -> f64 {
        if role == Role::Class { self.class } else { self.concept }
    }
}

impl Plan<'_> {
    fn has_class(&self) -> bool {
        self.dataset.examples.iter().any(|example| example.role == Role::Class)
    }

    /// Pictures of a full step, those of the class included.
    pub fn images_per_step(&self) -> u64 {
        let concept = u64::from(self.fit.batch.images) * u64::from(self.fit.batch.accumulate);
        if self.has_class() { 2 * concept } else { concept }
    }

    fn shares(&self, batches: &[datasets::MicroBatch]) -> Shares {
        let count = |role: Role| -> usize {
            batches.iter().filter(|batch| batch.role == role).map(|batch| batch.samples.len()).sum()
        };
        let share = |weight: f64, count: usize| weight / count.max(1) as f64;
        Shares {
            concept: share(1.0, count(Role::Instance)),
            class: share(self.prior_weight, count(Role::Class)),
        }
    }

    /// Latents, noise and conditions of some samples of a step, all of one size.
    fn micro_batch(
        &self,
        trainee: &Trainee,
        step: u64,
        samples: &[Sample],
    ) -> Result<MicroBatch, TrainError> {
        let [channels, height, width] = self.cache.latent_shape(samples[0].example_idx);
        let (mut clean, mut noise) = (Vec::new(), Vec::new());
        for sample in samples {
            let draw = Draw { seed: self.seed, step, index: sample.index };
            clean.extend(self.cache.latents(sample.example_idx, sample.mirror, draw));
            noise.extend(self.objective.noise(
                self.seed,
                step,
                sample.index,
                [channels, height, width],
            ));
        }
        let shape = [samples.len(), channels, height, width];
        let captions: Vec<&str> = samples.iter().map(|sample| sample.caption.as_str()).collect();
        let base = trainee.base();
        let sizes: Vec<SizeConditions> = samples.iter().map(|sample| self.sizes(sample)).collect();
        let given = base.conditioning(self.cache.text(base, &captions)?, &sizes);
        Ok(MicroBatch {
            clean: tensor_from_host(clean, shape, &base.device),
            noise: tensor_from_host(noise, shape, &base.device),
            timesteps: samples.iter().map(|sample| self.timestep(step, sample)).collect(),
            given,
        })
    }

    /// What SDXL is told of a sample's picture, as the sample shows it.
    fn sizes(&self, sample: &Sample) -> SizeConditions {
        let placement = self.dataset.examples[sample.example_idx].placement(sample.mirror);
        let px = |sides: [u32; 2]| sides.map(|side| side as usize);
        SizeConditions {
            original: px(placement.original),
            crop: px(placement.crop),
            target: px(placement.target),
        }
    }

    fn timestep(&self, step: u64, sample: &Sample) -> usize {
        self.objective.timestep(self.seed, step, sample.index)
    }

    /// Learning rate of a 0-based step.
    fn learning_rate(&self, step: u64) -> f64 {
        let OptimizerSpec::AdamW { learning_rate: peak, .. } = self.fit.optimizer;
        learning_rate(&self.fit.schedule, peak, step, self.fit.steps)
    }

    /// Mean losses of the concept's and of the class pictures, the latter times the prior weight,
    /// from the losses of the samples of each part.
    ///
    /// # Errors
    ///
    /// [`TrainError::Diverged`] for the first part that has a loss which is not finite.
    fn mean_losses(
        &self,
        at: (u64, &State),
        parts: &[datasets::MicroBatch],
        losses: &[Vec<f32>],
    ) -> Result<[f64; 2], TrainError> {
        let shares = self.shares(parts);
        let [mut concept, mut class] = [0.0; 2];
        for (part, values) in parts.iter().zip(losses) {
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                let samples = part.samples.iter().collect();
                return Err(self.divergence(at, samples, ("loss", value.into())));
            }
            let share = shares.of(part.role);
            let sum: f64 = values.iter().map(|&value| f64::from(value) * share).sum();
            *(if part.role == Role::Class { &mut class } else { &mut concept }) += sum;
        }
        Ok([concept, class])
    }

    fn divergence(
        &self,
        (step, state): (u64, &State),
        samples: Vec<&Sample>,
        (quantity, value): (&'static str, f64),
    ) -> TrainError {
        let picture = |sample: &Sample| PictureDraw {
            path: self.dataset.examples[sample.example_idx].path.clone(),
            caption: sample.caption.clone(),
            timestep: self.timestep(step, sample),
        };
        TrainError::Diverged(Box::new(Divergence {
            step: step + 1,
            quantity,
            value,
            learning_rate: self.learning_rate(step),
            last_grad_norm: state.grad_norm,
            pictures: samples.into_iter().map(picture).collect(),
        }))
    }
}

/// Losses and gradient of a step, before the update; none of them has been read.
#[derive(Default)]
struct Sums {
    /// Weighted losses of the samples of each part.
    losses: Vec<Tensor<1>>,
    gradient: Option<Tensor<1>>,
}

impl Sums {
    /// Runs one part of the batch forwards and backwards.
    fn add(
        &mut self,
        plan: &Plan<'_>,
        state: &State,
        trainee: &mut Trainee,
        (part, share): (&datasets::MicroBatch, f64),
    ) -> Result<(), TrainError> {
        let (step, samples) = (state.step(), &part.samples);
        trainee.set_dropout(DropoutDraw { seed: plan.seed, step, first_sample: samples[0].index });
        let batch = plan.micro_batch(trainee, step, samples)?;
        let activations = Activations::of(plan.fit);
        let pass = plan.objective.pass(&trainee.base().unet, &batch, activations)?;
        self.losses.push(pass.losses());
        let gradients = pass.backward(&vec![share; samples.len()]);
        let device = trainee.base().device.clone();
        let gradient = state.flat.gradients(&mut |show| trainee.visit(show), gradients, &device);
        self.gradient = Some(match self.gradient.take() {
            Some(sum) => sum + gradient,
            None => gradient,
        });
        Ok(())
    }
}

/// The whole batch forwards and backwards, at the present values; `None` if a stop was requested.
///
/// The gradient is that of mean concept loss + prior weight · mean class loss, however the batch is
/// cut into parts.
fn forward_backward(
    plan: &Plan<'_>,
    parts: &[datasets::MicroBatch],
    state: &State,
    trainee: &mut Trainee,
    stop: &AtomicBool,
) -> Result<Option<Sums>, TrainError> {
    let shares = plan.shares(parts);
    let mut sums = Sums::default();
    state.flat.install_leaves(&mut |show| trainee.visit(show), &state.theta);
    for part in parts {
        if stop.load(Ordering::Relaxed) {
            state.install(trainee);
            return Ok(None);
        }
        sums.add(plan, state, trainee, (part, shares.of(part.role)))?;
    }
    // Leaves share the old values.
    state.install(trainee);
    Ok(Some(sums))
}

/// What a step's update would leave, and what of it is to be known before it takes the place of
/// what is there.
struct Proposal {
    theta: Tensor<1>,
    adamw: AdamW,
    /// Sums of squares of the gradient, before clipping, and of the new values.
    squares: [Tensor<1>; 2],
}

impl Proposal {
    fn new(plan: &Plan<'_>, state: &State, gradient: Tensor<1>) -> Result<Self, TrainError> {
        let squares = square_sums(gradient.clone());
        let gradient = clipped(gradient, &squares, plan.fit.clip_norm)?;
        let (rate, mut adamw) = (plan.learning_rate(state.step()), state.adamw.clone());
        let theta = adamw.update(&plan.fit.optimizer, rate, state.theta.clone(), gradient);
        let squares = [squares, square_sums(theta.clone())];
        Ok(Self { theta, adamw, squares })
    }

    /// Puts the new values into `state`, and what follows from them.
    fn accept(self, state: &mut State, fit: &FitSpec) {
        (state.theta, state.adamw) = (self.theta, self.adamw);
        if let (Some(average), Some(ema)) = (state.average.take(), &fit.ema) {
            let decay = ema_decay(ema, state.adamw.step);
            state.average = Some(ema_update(average, &state.theta, decay));
        }
    }
}

/// Does one step; `None` if a stop was requested before its end, and then nothing has changed.
///
/// The device is read once, at the end: losses, gradient norm and weight norm together. Until they
/// are known to be finite the update is a proposal, and `state` is as it was. Every step has its
/// record, so that none can do without that read.
///
/// # Errors
///
/// [`TrainError::Diverged`] if loss, gradient or updated weights are not finite; nothing has changed
/// then either.
pub fn one_step(
    plan: &Plan<'_>,
    batches: &Batches<'_>,
    state: &mut State,
    trainee: &mut Trainee,
    stop: &AtomicBool,
) -> Result<Option<StepRecord>, TrainError> {
    let step = state.step();
    let parts = batches.step(step);
    let sums = forward_backward(plan, &parts, state, trainee, stop)?;
    let Some(Sums { mut losses, gradient: Some(gradient) }) = sums else { return Ok(None) };
    let proposal = Proposal::new(plan, state, gradient)?;
    losses.extend(proposal.squares.clone());
    let numbers = read(losses)?;
    let (losses, squares) = numbers.split_at(parts.len());
    let [concept, class] = plan.mean_losses((step, state), &parts, losses)?;
    let samples: Vec<&Sample> = parts.iter().flat_map(|part| &part.samples).collect();
    let n_samples = samples.len() as u64;
    let [grad_norm, weight_norm] = [0, 1].map(|which: usize| length(&squares[which]));
    for quantity in [("gradient norm", grad_norm), ("weight norm", weight_norm)] {
        if !quantity.1.is_finite() {
            return Err(plan.divergence((step, state), samples, quantity));
        }
    }
    proposal.accept(state, plan.fit);
    state.install(trainee);
    state.images_seen += n_samples;
    state.grad_norm = Some(grad_norm);
    Ok(Some(StepRecord {
        step: state.step(),
        loss: concept + class,
        loss_concept: concept,
        loss_preserve: plan.has_class().then(|| class / plan.prior_weight),
        grad_norm,
        learning_rate: plan.learning_rate(step),
        images_seen: state.images_seen,
    }))
}

#[cfg(test)]
mod tests;
