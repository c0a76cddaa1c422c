//! Invariant 12: the base has the same bits before and after `fit`, and the evaluator shares no
//! tensor with what is trained.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use checkpoints::run_dir::{Attempt, RunDir, RunIdentity, run_id};
use checkpoints::{ModelFiles, ModelOptions, Watch};
use models::base::host_values;
use models::{Base, Device, Evaluator, Network, Slot, Visitor};
use recipes::{Loaded, Recipe};
use trainer::Fitted;

use crate::world::World;

/// The bits of every parameter by name.
struct Bits(BTreeMap<String, Vec<u32>>);

impl Visitor for Bits {
    fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
        let values = host_values(slot.flat()).unwrap();
        self.0.insert(path.to_owned(), values.into_iter().map(f32::to_bits).collect());
    }
}

fn bits(base: &mut Base) -> BTreeMap<String, Vec<u32>> {
    let mut bits = Bits(BTreeMap::new());
    base.vae.visit("vae", &mut bits);
    for (component, network) in base.adapted() {
        network.visit(component, &mut bits);
    }
    bits.0
}

/// The files of a world's base.
pub(crate) fn base_files(world: &World) -> ModelFiles {
    ModelFiles::open(&world.path("base"), &ModelOptions::default()).unwrap()
}

/// Fits `recipe` in this process.
pub(crate) fn fit(world: &World, recipe: &Recipe, base: &Base, runs: &str) -> (RunDir, Fitted) {
    let base_files = base_files(world);
    let dataset = datasets::open(&recipe.dataset).unwrap();
    let fingerprint = recipes::fingerprint(recipe, &base_files.sha256().unwrap(), &dataset.sha256);
    let attempt = Attempt {
        id: "0001".to_owned(),
        host: "test".to_owned(),
        pid: 1,
        started_at: 0.0,
        device: "processor".to_owned(),
        engine: BTreeMap::new(),
        numerics: BTreeMap::new(),
    };
    let identity = RunIdentity {
        id: &run_id(&recipe.name, &fingerprint),
        fingerprint: &fingerprint,
        resolved_recipe: &recipes::resolved_yaml(recipe),
    };
    let run = RunDir::open(&world.path(runs), &identity, attempt).unwrap();
    let fitted = {
        let job = trainer::Job {
            recipe,
            base,
            base_files: &base_files,
            dataset: &dataset,
            run: &run,
            cache_dir: &world.path("cache"),
        };
        let stop = AtomicBool::new(false);
        trainer::fit(&job, &mut Watch { stop: &stop, sink: &mut |_| {} }).unwrap()
    };
    (run, fitted)
}

/// The recipe of a world, with overrides; its paths made absolute.
pub(crate) fn recipe(world: &World, steps: u64, sets: &[&str]) -> Recipe {
    let path = world.recipe(steps, "");
    let mut sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    sets.push(format!("base.folder.weights={}", world.path("base").display()));
    sets.push(format!("dataset.dreambooth.instance.images={}", world.path("pictures").display()));
    match recipes::load(&path, &sets).unwrap() {
        Loaded::Settle(recipe) => *recipe,
        Loaded::Pretrain(_) => panic!("the world's recipe settles"),
    }
}

fn check_frozen(sets: &[&str]) {
    let world = World::new();
    let device = Device::flex();
    let base_files = base_files(&world);
    let mut base = models::load(&base_files, &device).unwrap();
    let evaluator = Evaluator::load(&base_files.evaluator_dir(), &device).unwrap();
    let picture = datasets::concept::cylinder(1, 0, 64).0.into_raw();
    let look = || evaluator.image_embeddings(&[&picture]).unwrap();
    let (before, seen) = (bits(&mut base), look());
    let files = base_files.hashes().unwrap();
    let recipe = recipe(&world, 3, sets);
    let (_, fitted) = fit(&world, &recipe, &base, "runs");
    assert!(matches!(fitted, Fitted::Finished { .. }));
    assert_eq!(bits(&mut base), before);
    assert_eq!(look(), seen);
    assert_eq!(base_files.hashes().unwrap(), files);
}

#[test]
fn an_adapter_leaves_the_base_its_bits() {
    check_frozen(&[]);
}

#[test]
fn training_the_weights_themselves_leaves_the_base_its_bits() {
    check_frozen(&["adapter={full: {targets: [\"unet.mid_block.**\"]}}"]);
}
