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
    let start: Vec<f32> =
        recipes::draws::normals(&mut stream, n_values).iter().map(|value| 0.2 * value).collect();
    let device = world.base.device.clone();
    let at = |values: Vec<f32>, ready: &mut Ready| {
        ready.state.theta = tensor_from_host(values, [n_values], &device);
        loss_and_gradient(ready, 0)
    };
    let (_, gradient) = at(start.clone(), &mut ready);
    // Along the gradient of one module at a time, so that every kind of layer is looked at.
    for segment in ready.state.flat.segments.clone().iter().step_by(nth) {
        let range = segment.start..segment.start + segment.len;
        let norm = gradient[range.clone()].iter().map(|value| value * value).sum::<f32>().sqrt();
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
        let slope = (at(moved(h), &mut ready).0 - at(moved(-h), &mut ready).0) / f64::from(2.0 * h);
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
        let error = one_step(plan, batches, state, trainee, &AtomicBool::new(false)).unwrap_err();
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
    ready.state.theta = tensor_from_host(vec![f32::NAN; n_values], [n_values], &world.base.device);
    with_plan(&mut ready, |plan, batches, state, trainee| {
        let error = one_step(plan, batches, state, trainee, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.kind(), crate::TrainErrorKind::Diverged);
        let TrainError::Diverged(divergence) = &error else { panic!("{error}") };
        assert_eq!((divergence.step, divergence.pictures.len()), (1, 2));
        let message = error.to_string();
        assert!(message.contains(".png`") && message.contains("timestep"), "{message}");
        assert_eq!(state.step(), 0);
    });
}
