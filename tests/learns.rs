//! The loss of a tiny base falls by a stated share in 60 steps.

use models::Device;

use crate::frozen::{base_files, fit, recipe};
use crate::world::World;

/// Steps of the training.
const STEPS: u64 = 60;
/// Mean loss of the last ten steps, as a share of that of the first ten, at most.
const SHARE: f64 = 0.9;

#[test]
fn sixty_steps_lower_the_loss_by_a_tenth() {
    let world = World::new();
    let base = models::load(&base_files(&world), &Device::flex()).unwrap();
    let sets = [
        "adapter={full: {targets: [\"unet.**\"]}}",
        "fit.optimizer.adamw.learning_rate=3.0e-3",
        "fit.schedule=constant",
        "fit.batch={images: 8, accumulate: 1}",
        "fit.save_every=60",
    ];
    let (run, _) = fit(&world, &recipe(&world, STEPS, &sets), &base, "runs");
    let losses: Vec<f64> = run
        .folder()
        .metrics()
        .unwrap()
        .iter()
        .map(|record| record["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 60);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / 10.0;
    let (first, last) = (mean(&losses[..10]), mean(&losses[50..]));
    assert!(last < SHARE * first, "{first} to {last}: {losses:?}");
}
