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
mod tests {
    use checkpoints::Watch;
    use models::base::host_values;

    use super::*;
    use crate::cache::Texts;
    use crate::event::Event;
    use crate::fixtures::{self, World};

    /// What a step needs, without class pictures.
    struct Ready {
        recipe: recipes::Recipe,
        dataset: Dataset,
        objective: Objective,
        cache: Cache,
        trainee: Trainee,
        state: State,
        prior_weight: f64,
    }

    fn ready(world: &World, sets: &[&str]) -> Ready {
        let recipe = world.recipe(sets);
        let dataset = fixtures::dataset(&recipe);
        let objective = Objective::new(&recipe.objective, &world.base.scheduler).unwrap();
        let mut trainee = Trainee::new(&recipe.adapter, &world.base, recipe.seed).unwrap();
        let state = State::new(&mut trainee, &recipe.fit);
        let (texts, stop) = (Texts::of(&state), AtomicBool::new(false));
        let mut watch = Watch { stop: &stop, sink: &mut |_| {} };
        let cache = Cache::fill(&world.base, &dataset, texts, &mut watch).unwrap().unwrap();
        Ready { recipe, dataset, objective, cache, trainee, state, prior_weight: 1.0 }
    }

    /// Runs `work` with the plan of these parts.
    fn with_plan<T>(
        ready: &mut Ready,
        work: impl FnOnce(&Plan<'_>, &Batches<'_>, &mut State, &mut Trainee) -> T,
    ) -> T {
        let Ready { recipe, dataset, objective, cache, trainee, state, prior_weight } = ready;
        let plan = Plan {
            seed: recipe.seed,
            fit: &recipe.fit,
            objective,
            dataset,
            cache,
            prior_weight: *prior_weight,
        };
        let batches = Batches::new(dataset, &recipe.fit.batch, recipe.seed);
        work(&plan, &batches, state, trainee)
    }

    fn loss_and_gradient(ready: &mut Ready, step: u64) -> (f64, Vec<f32>) {
        with_plan(ready, |plan, batches, state, trainee| {
            let parts = batches.step(step);
            loss_and_gradient_of(plan, &parts, state, trainee)
        })
    }

    /// The mean loss of the concept's pictures and the gradient of a batch.
    fn loss_and_gradient_of(
        plan: &Plan<'_>,
        parts: &[datasets::MicroBatch],
        state: &State,
        trainee: &mut Trainee,
    ) -> (f64, Vec<f32>) {
        let sums = forward_backward(plan, parts, state, trainee, &AtomicBool::new(false));
        let Sums { losses, gradient } = sums.unwrap().unwrap();
        let losses = read(losses).unwrap();
        let [concept, _] = plan.mean_losses((state.step(), state), parts, &losses).unwrap();
        (concept, host_values(gradient.unwrap()).unwrap())
    }

    #[test]
    fn at_first_only_the_up_factors_have_a_gradient() {
        let world = World::new();
        let mut ready = ready(&world, &[]);
        let (_, gradient) = loss_and_gradient(&mut ready, 0);
        for segment in &ready.state.flat.segments {
            let part = &gradient[segment.start..segment.start + segment.len];
            let moves = part.iter().any(|&value| value != 0.0);
            assert_eq!(moves, segment.name.ends_with(".lora_up"), "{}", segment.name);
        }
    }

    /// Holds the gradient of every `nth` parameter against differences of the loss.
    fn check_slopes(world: &World, sets: &[&str], nth: usize) {
        let mut ready = ready(world, sets);
        let n_values = ready.state.flat.n_values;
        let mut stream = recipes::draws::keyed(5, "slope");
        // Away from B = 0, where only half of the gradient shows.
        let start: Vec<f32> = recipes::draws::normals(&mut stream, n_values)
            .iter()
            .map(|value| 0.2 * value)
            .collect();
        let device = world.base.device.clone();
        let at = |values: Vec<f32>, ready: &mut Ready| {
            ready.state.theta = tensor_from_host(values, [n_values], &device);
            loss_and_gradient(ready, 0)
        };
        let (_, gradient) = at(start.clone(), &mut ready);
        // Along the gradient of one module at a time, so that every kind of layer is looked at.
        for segment in ready.state.flat.segments.clone().iter().step_by(nth) {
            let range = segment.start..segment.start + segment.len;
            let norm =
                gradient[range.clone()].iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!(norm > 0.0, "{} has no gradient", segment.name);
            let moved = |by: f32| {
                let mut values = start.clone();
                values[range.clone()].iter_mut().zip(&gradient[range.clone()]).for_each(
                    |(value, slope)| {
                        *value += by * slope / norm;
                    },
                );
                values
            };
            let h = 0.02;
            let slope =
                (at(moved(h), &mut ready).0 - at(moved(-h), &mut ready).0) / f64::from(2.0 * h);
            let norm = f64::from(norm);
            // The last term is what the rounding of two losses comes to.
            let near = (slope - norm).abs() < 1e-2 * norm + 2e-5;
            assert!(near, "{}: slope {slope} instead of {norm}", segment.name);
        }
    }

    #[test]
    fn gradients_are_the_slope_of_the_loss() {
        check_slopes(&World::new(), &["adapter.lora.dropout=0.0"], 7);
    }

    /// Also through both text encoders: the states of the one before the last layer, and the pooled
    /// text of the second, which enters beside the noise level.
    #[test]
    fn gradients_of_sdxl_are_the_slope_of_the_loss() {
        let targets = "adapter.lora.targets=[unet.**.attn2.to_k, unet.add_embedding.linear_1, \
                       text_encoder*.**.fc1]";
        check_slopes(&World::sdxl(), &["adapter.lora.dropout=0.0", targets], 3);
    }

    /// Holds loss and gradient of a step that recomputes activations against one that keeps them.
    fn check_recomputation(world: &World, sets: &[&str]) {
        let run = |way: &str| {
            let mut ready = ready(world, &[sets, &[way]].concat());
            let n_values = ready.state.flat.n_values;
            // Away from B = 0, where only half of the gradient shows.
            let mut stream = recipes::draws::keyed(5, "recomputation");
            let start = recipes::draws::normals(&mut stream, n_values);
            let start = tensor_from_host(start, [n_values], &world.base.device);
            ready.state.theta = start.mul_scalar(0.2);
            let found = loss_and_gradient(&mut ready, 0);
            (found, ready.state.flat.segments)
        };
        let ((expected_loss, expected), segments) = run("fit.activation_recompute=false");
        let ((loss, found), _) = run("fit.activation_recompute=true");
        assert_eq!(loss.to_bits(), expected_loss.to_bits());
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        // Rounding of gradients that are zero in exact arithmetic is judged by the largest of all.
        let (floor, mut n_still) = (1e-6 * largest(&expected), 0);
        for segment in &segments {
            let part = segment.start..segment.start + segment.len;
            let (found, expected) = (&found[part.clone()], &expected[part]);
            let allowed = 1e-5 * largest(expected) + floor;
            n_still += usize::from(largest(expected) <= floor);
            for (found, expected) in found.iter().zip(expected) {
                let near = (found - expected).abs() <= allowed;
                assert!(near, "{}: {found} instead of {expected}", segment.name);
            }
        }
        // A map of one position has a single key, and nothing to choose by its queries.
        assert!(10 * n_still < segments.len(), "{n_still} of {}", segments.len());
    }

    #[test]
    fn recomputing_activations_changes_neither_loss_nor_gradient() {
        let world = World::of(checkpoints::Family::Sd1, 64);
        check_recomputation(&world, &["adapter.lora.targets=attn_ff_proj_conv"]);
    }

    /// Among them what stands before the units, and both encoders behind the text states.
    #[test]
    fn recomputing_activations_changes_nothing_for_layers_outside_the_units() {
        let targets = "adapter.lora.targets=[unet.conv_in, unet.conv_out, unet.*_embedding.*, \
                       unet.**.attn2.*, text_encoder*.**.fc1]";
        check_recomputation(&World::sdxl(), &[targets]);
        check_recomputation(
            &World::new(),
            &["adapter.lora.targets=[unet.mid_block.**, text_encoder.**.q_proj]"],
        );
    }

    #[test]
    fn a_training_that_recomputes_activations_has_the_same_losses() {
        let world = World::new();
        let losses = |runs: &str, way: &str| -> Vec<f64> {
            let (fitted, events) = world.fit(runs, &world.recipe(&[way]), None);
            fitted.unwrap();
            let loss = |event: &Event| {
                if let Event::Stepped(record) = event { Some(record.loss) } else { None }
            };
            events.iter().filter_map(loss).collect()
        };
        let kept = losses("kept", "fit.activation_recompute=false");
        let recomputed = losses("recomputed", "fit.activation_recompute=true");
        assert_eq!((kept.len(), recomputed.len()), (6, 6));
        assert_eq!(kept[0].to_bits(), recomputed[0].to_bits());
        for (kept, recomputed) in kept.iter().zip(&recomputed) {
            assert!((recomputed / kept - 1.0).abs() < 1e-5, "{recomputed} instead of {kept}");
        }
    }

    #[test]
    fn sdxl_is_told_the_size_and_the_crop_of_every_picture() {
        let world = World::sdxl();
        let mut ready = ready(&world, &[]);
        with_plan(&mut ready, |plan, batches, state, trainee| {
            let mut mirrors = std::collections::BTreeSet::new();
            for step in 0..8 {
                for part in batches.step(step) {
                    let batch = plan.micro_batch(trainee, step, &part.samples).unwrap();
                    let added = batch.given.added.clone().unwrap();
                    let ids = host_values(added.time_ids).unwrap();
                    for (sample, ids) in part.samples.iter().zip(ids.chunks(6)) {
                        // 81 × 64 px, of which 17 columns are cut off: 8 at the left, 9 at the right.
                        let left = if sample.mirror == datasets::Mirror::Yes { 9.0 } else { 8.0 };
                        assert_eq!(ids, [64.0, 81.0, 0.0, left, 64.0, 64.0]);
                        mirrors.insert(sample.mirror);
                    }
                    assert_eq!(added.pooled_text.dims()[0], part.samples.len());
                }
            }
            assert_eq!((mirrors.len(), state.step()), (2, 0));
            // The loss depends on them.
            let parts = batches.step(0);
            let batch = plan.micro_batch(trainee, 0, &parts[0].samples).unwrap();
            let mut other = batch.clone();
            if let Some(added) = &mut other.given.added {
                added.time_ids = added.time_ids.clone().mul_scalar(2.0);
            }
            let unet = &trainee.base().unet;
            let loss = |batch| {
                let pass = plan.objective.pass(unet, batch, Activations::Kept).unwrap();
                host_values(pass.losses()).unwrap()
            };
            assert_ne!(loss(&batch), loss(&other));
        });
    }

    #[test]
    fn accumulation_is_the_mean_over_the_samples_of_all_parts() {
        let world = World::new();
        let mut ready = ready(&world, &["adapter.lora.dropout=0.0"]);
        with_plan(&mut ready, |plan, batches, state, trainee| {
            let mut run =
                |parts: &[datasets::MicroBatch]| loss_and_gradient_of(plan, parts, state, trainee);
            let parts = batches.step(0);
            // The same four samples as 1 + 3.
            let samples: Vec<Sample> = parts.iter().flat_map(|part| part.samples.clone()).collect();
            let part = |samples: &[Sample]| datasets::MicroBatch {
                samples: samples.to_vec(),
                ..parts[0].clone()
            };
            let (even, uneven) = (run(&parts), run(&[part(&samples[..1]), part(&samples[1..])]));
            assert!((even.0 / uneven.0 - 1.0).abs() < 1e-5);
            let largest = even.1.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            for (even, uneven) in even.1.iter().zip(&uneven.1) {
                assert!((even - uneven).abs() < 1e-4 * largest);
            }
        });
    }

    /// Concept + weight · class, each a mean over its own pictures: with weight 0 the class pictures,
    /// however many, are as if they were not there.
    #[test]
    fn class_pictures_add_their_mean_gradient_times_the_prior_weight() {
        let world = World::new();
        let class = format!(
            "dataset.dreambooth.class={{images: {:?}, prompt: a tower}}",
            world.dir.path().join("pictures").display().to_string()
        );
        // B = 0 hides half of the factors; their other half is enough here.
        let sets = ["adapter.lora.dropout=0.0", &class];
        let gradient = |sets: &[&str], prior_weight: f64| {
            let mut ready = Ready { prior_weight, ..ready(&world, sets) };
            loss_and_gradient(&mut ready, 0).1
        };
        let without = gradient(&sets[..1], 1.0);
        let [none, half, whole] = [0.0, 0.5, 1.0].map(|weight| gradient(&sets, weight));
        let largest = whole.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4 * largest;
        assert!(none.iter().zip(&without).all(|(none, without)| near(*none, *without)));
        assert!(!none.iter().zip(&whole).all(|(none, whole)| near(*none, *whole)));
        for ((none, half), whole) in none.iter().zip(&half).zip(&whole) {
            assert!(near(half - none, 0.5 * (whole - none)));
        }
        let mut ready = Ready { prior_weight: 0.5, ..ready(&world, &sets) };
        with_plan(&mut ready, |plan, batches, _, _| {
            let parts = batches.step(0);
            let n_class: usize = parts
                .iter()
                .filter(|part| part.role == Role::Class)
                .map(|part| part.samples.len())
                .sum();
            assert!(n_class > 0);
            assert!((plan.shares(&parts).class * n_class as f64 - 0.5).abs() < 1e-12);
        });
    }

    #[test]
    fn weights_that_are_not_finite_after_the_update_are_a_divergence() {
        let world = World::new();
        // Below what single precision can hold: an ε of 0 divides 0 by 0 where nothing moves yet.
        let mut ready = ready(&world, &["fit.optimizer.adamw.epsilon=1.0e-60"]);
        with_plan(&mut ready, |plan, batches, state, trainee| {
            let error =
                one_step(plan, batches, state, trainee, &AtomicBool::new(false)).unwrap_err();
            let TrainError::Diverged(divergence) = &error else { panic!("{error}") };
            assert_eq!((divergence.step, divergence.quantity), (1, "weight norm"));
            assert_eq!(state.step(), 0, "the update was not taken");
            assert!(host_values(state.theta.clone()).unwrap().iter().all(|x| x.is_finite()));
        });
    }

    #[test]
    fn a_stop_leaves_the_state_as_it_was() {
        let world = World::new();
        let mut ready = ready(&world, &[]);
        with_plan(&mut ready, |plan, batches, state, trainee| {
            let before = host_values(state.theta.clone()).unwrap();
            let stopped = one_step(plan, batches, state, trainee, &AtomicBool::new(true)).unwrap();
            assert!(stopped.is_none());
            assert_eq!((state.step(), state.images_seen), (0, 0));
            assert_eq!(host_values(state.theta.clone()).unwrap(), before);
        });
    }

    #[test]
    fn a_loss_that_is_not_finite_names_the_pictures_and_changes_nothing() {
        let world = World::new();
        let mut ready = ready(&world, &[]);
        let n_values = ready.state.flat.n_values;
        ready.state.theta =
            tensor_from_host(vec![f32::NAN; n_values], [n_values], &world.base.device);
        with_plan(&mut ready, |plan, batches, state, trainee| {
            let error =
                one_step(plan, batches, state, trainee, &AtomicBool::new(false)).unwrap_err();
            assert_eq!(error.kind(), crate::TrainErrorKind::Diverged);
            let TrainError::Diverged(divergence) = &error else { panic!("{error}") };
            assert_eq!((divergence.step, divergence.pictures.len()), (1, 2));
            let message = error.to_string();
            assert!(message.contains(".png`") && message.contains("timestep"), "{message}");
            assert_eq!(state.step(), 0);
        });
    }
}
