//! A census of a tiny base: its pictures are noise, its promises are not.

use super::*;
use crate::panel::{Prompt, Stratum};
use crate::read;
use crate::rows::Model;
use checkpoints::{ModelFiles, ModelOptions};
use models::{Device, adapter};
use recipes::{Loaded, Recipe};
use std::sync::atomic::{AtomicBool, Ordering};

/// Stop while instruments work, behind the last picture.
const MEASURED: u64 = u64::MAX;

/// A tiny base, its evaluator, a few pictures and a recipe.
struct World {
    dir: tempfile::TempDir,
    base: Base,
    evaluator: Evaluator,
    second: Option<Evaluator>,
    recipe: Recipe,
    dataset: Dataset,
}

impl World {
    fn new() -> Self {
        Self::with(64, 1)
    }

    /// A world whose census draws so many unasked pictures and placebos.
    fn with(seeds_empty: u32, placebo: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::flex();
        let folder = dir.path().join("base");
        models::tiny::write(&folder, 3, &device).unwrap();
        let files = ModelFiles::open(&folder, &ModelOptions::default()).unwrap();
        let base = models::load(&files, &device).unwrap();
        let evaluator = Evaluator::load(&folder.join("evaluator"), &device).unwrap();
        for index in 0..6 {
            let picture = datasets::concept::cylinder(1, index, 64).0;
            let path = dir.path().join(format!("cylinder/{index}.png"));
            checkpoints::fs::atomic_write(&path, &png(&picture, "test").unwrap()).unwrap();
        }
        let yaml = format!(
            "name: tiny\nseed: 7\nbase: {{ folder: {{ weights: {folder:?} }} }}\n\
             dataset:\n  dreambooth:\n    instance: {{ images: {images:?}, identifier: sks, \
             class: tower, prompt: the sks cylinder }}\n    side_px: 64\n\
             adapter: {{ lora: {{ rank: 2 }} }}\n\
             fit: {{ steps: 2, save_every: 1, optimizer: {{ adamw: {{ learning_rate: 1.0e-3 }} }} }}\n\
             census:\n  budget: custom\n  thesaurus: postcards\n  seeds: {{ empty: {seeds_empty}, other: 34 }}\n  \
             sampler: {{ ddim: {{ steps: 2, eta: 1.0 }} }}\n  \
             concept: {{ facet: subject, class: tower }}\n  doses: [0.0, 1.0]\n  placebo: {placebo}\n",
            images = dir.path().join("cylinder"),
        );
        let recipe = match recipes::load_text(Path::new("tiny.yaml"), &yaml, &[]) {
            Ok(Loaded::Settle(recipe)) => *recipe,
            other => panic!("{other:?}"),
        };
        let dataset = datasets::open(&recipe.dataset).unwrap();
        Self { dir, base, evaluator, second: None, recipe, dataset }
    }

    /// An adapter whose up factors are not zero.
    fn adapter(&self) -> Adapter {
        let recipes::AdapterSpec::Lora(spec) = &self.recipe.adapter else { panic!("no LoRA") };
        let layers = adapter::base_layers(&self.base);
        let mut adapter = adapter::initial(&layers, spec, 5).unwrap();
        for (path, factors) in &mut adapter.modules {
            let n = factors.up.shape.iter().product();
            let values = recipes::draws::normals(&mut recipes::draws::keyed(1, path), n);
            factors.up = checkpoints::HostTensor::from_f32(factors.up.shape.clone(), values);
        }
        adapter
    }

    /// A census job that writes into `run`.
    fn job<'a>(
        &'a self,
        adapter: &'a Adapter,
        run: &'a Path,
        hashes: &'a BTreeMap<String, String>,
    ) -> CensusJob<'a> {
        CensusJob {
            spec: self.recipe.census.as_ref().unwrap(),
            gates: &self.recipe.gates,
            source: &self.recipe.dataset,
            dataset: &self.dataset,
            base: &self.base,
            change: Change::Adapter(adapter),
            base_name: "tiny",
            evaluator: &self.evaluator,
            second_evaluator: self.second.as_ref(),
            world: crate::World::Postcards,
            tool: "populate test",
            numerics: "test",
            hashes,
            run,
            cache: None,
        }
    }

    /// Takes the census into `run`; stops before the picture number `stop_at`.
    fn census(&self, run: &str, adapter: &Adapter, stop_at: Option<u64>) -> Counted {
        let stop = AtomicBool::new(false);
        let mut sink = |event: &CensusEvent| {
            let reached = match event {
                CensusEvent::Drew { pictures, .. } => stop_at.is_some_and(|at| *pictures >= at),
                // Behind the last picture: what the paths said is committed then.
                CensusEvent::Measuring { what } => {
                    stop_at == Some(MEASURED) && *what == "information maps"
                }
                CensusEvent::Working | CensusEvent::Reducing => false,
            };
            if reached {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let (hashes, run) = (BTreeMap::new(), self.dir.path().join(run));
        let job = self.job(adapter, &run, &hashes);
        census(&job, &mut Watch { stop: &stop, sink: &mut sink }).unwrap()
    }

    fn bytes(&self, run: &str, file: &str) -> Vec<u8> {
        checkpoints::fs::read(&self.dir.path().join(run).join("census").join(file)).unwrap()
    }
}

/// Invariant 11 for the census: stopped twice and taken up again, it leaves the same bytes.
#[test]
#[expect(clippy::cognitive_complexity, reason = "one story, told in its order")]
fn an_interrupted_census_equals_an_uninterrupted_one() {
    let world = World::new();
    let adapter = world.adapter();
    assert!(matches!(world.census("whole", &adapter, None), Counted::Finished(_)));
    for at in [1, 60, MEASURED] {
        match world.census("parts", &adapter, Some(at)) {
            Counted::Interrupted { pictures, of } if at == MEASURED => assert_eq!(pictures, of),
            Counted::Interrupted { pictures, of } => assert!(pictures >= at && pictures < of),
            Counted::Finished(_) => panic!("was to be interrupted at {at}"),
        }
    }
    assert!(matches!(world.census("parts", &adapter, None), Counted::Finished(_)));
    for file in ["census.json", "rows.csv", "transitions.csv", "manifest.json"] {
        assert!(world.bytes("whole", file) == world.bytes("parts", file), "{file} differs");
    }
    let (report, pictures, manifest) = read(&world.dir.path().join("whole")).unwrap();
    assert_eq!(pictures.references.len(), 6);
    assert!(!report.atlas.pairs.is_empty() && !report.atlas.strip.is_empty());
    assert!(report.atlas.pairs.iter().all(|p| pictures.files.contains_key(&p.after.picture)));
    assert_eq!(manifest.pictures, report.counts.rows);
    assert_eq!(manifest.prompts["empty/empty"], "");
    // The tiny base's paths were walked, and stand in its rows.
    assert_eq!(report.path.unwrap().doses[0].pairs, 64);
    let rows = String::from_utf8(world.bytes("parts", "rows.csv")).unwrap();
    let walked = |row: &&Row| row.path_nats.is_some_and(|nats| nats > 0.0);
    assert_eq!(Rows::from_csv(&rows).unwrap().rows.iter().filter(walked).count(), 64);
}

/// An adapter of any size leaves the base's pictures at dose 0, and not at dose 1.
#[test]
fn dose_zero_is_the_base_and_dose_one_is_not() {
    let world = World::new();
    let Counted::Finished(report) = world.census("doses", &world.adapter(), None) else {
        panic!("was not interrupted");
    };
    let zero = report.nulls.zero.unwrap();
    assert!(zero.pairs > 0);
    assert_eq!((zero.different_pixels, zero.different_labels), (0, 0));
    let rows =
        Rows::from_csv(&String::from_utf8(world.bytes("doses", "rows.csv")).unwrap()).unwrap();
    let base: Vec<&Row> = rows.rows.iter().filter(|row| row.model == Model::Base).collect();
    assert!(base.iter().any(|row| {
        rows.rows.iter().any(|other| {
            other.model == Model::Adapted
                && (other.dose - 1.0).abs() < 1e-9
                && other.prompt == row.prompt
                && other.seed_idx == row.seed_idx
                && other.pixels != row.pixels
        })
    }));
}

/// Invariant 13: an adapter whose up factors are 0 moves no seed and no figure.
#[test]
fn a_zero_adapter_changes_nothing() {
    let world = World::new();
    let Counted::Finished(report) = world.census("zero", &world.adapter().zeroed(), None) else {
        panic!("was not interrupted");
    };
    for facet in &report.facets {
        assert!(facet.tv.value.abs() < f64::EPSILON && facet.tv_floor.abs() < f64::EPSILON);
        assert!(facet.dilution.value.abs() < f64::EPSILON);
        assert!(facet.selection.value.abs() < f64::EPSILON);
    }
    assert!(report.transitions.is_empty());
    assert!(report.similarity.unasked.iter().all(|s| s.delta.value.abs() < f64::EPSILON));
    assert!(report.leak.levels.iter().all(|l| l.bleed.value.abs() < f64::EPSILON));
    let rows =
        Rows::from_csv(&String::from_utf8(world.bytes("zero", "rows.csv")).unwrap()).unwrap();
    for row in &rows.rows {
        let base = rows.rows.iter().find(|other| {
            other.model == Model::Base
                && other.prompt == row.prompt
                && other.seed_idx == row.seed_idx
        });
        assert_eq!(base.unwrap().pixels, row.pixels, "{} {}", row.prompt, row.seed_idx);
    }
}

/// The text encoder may not judge what it takes part in.
#[test]
fn an_evaluator_that_shares_tensors_with_the_text_encoder_is_refused() {
    let mut world = World::new();
    assert!(independence::check(&world.evaluator, &world.base).is_ok());
    world.base.text_encoder = world.evaluator.text_tower().clone();
    let job_error = {
        let stop = AtomicBool::new(false);
        let mut sink = |_: &CensusEvent| {};
        let adapter = world.adapter();
        let job = CensusJob {
            spec: world.recipe.census.as_ref().unwrap(),
            gates: &world.recipe.gates,
            source: &world.recipe.dataset,
            dataset: &world.dataset,
            base: &world.base,
            change: Change::Adapter(&adapter),
            base_name: "tiny",
            evaluator: &world.evaluator,
            second_evaluator: None,
            world: crate::World::Unknown,
            tool: "populate test",
            numerics: "test",
            hashes: &BTreeMap::new(),
            run: world.dir.path(),
            cache: None,
        };
        census(&job, &mut Watch { stop: &stop, sink: &mut sink }).unwrap_err()
    };
    assert!(matches!(job_error, EvalError::SharedEvaluator { .. }), "{job_error}");
}

/// Noise belongs to prompt and seed, not to the place in a batch.
#[test]
fn a_seed_draws_the_same_picture_alone_and_in_company() {
    let world = World::new();
    let sampling = Sampling::new(world.recipe.census.as_ref().unwrap(), &world.base).unwrap();
    let prompt = Prompt::new(Stratum::Medium, "a postcard", None);
    let stop = AtomicBool::new(false);
    let many = sampling.draw(&world.base, &prompt, &[0, 1, 2, 3, 4, 5, 6], &stop).unwrap();
    let alone = sampling.draw(&world.base, &prompt, &[4], &stop).unwrap();
    let differ = |a: &RgbImage, b: &RgbImage| {
        a.as_raw().iter().zip(b.as_raw()).map(|(x, y)| x.abs_diff(*y)).max().unwrap()
    };
    assert!(differ(&many[4], &alone[0]) <= 1, "rounding may differ, noise may not");
    assert!(differ(&many[3], &alone[0]) > 8);
}

/// A census without the instruments that its pictures pay for would say so; a finished one is taken up.
#[test]
fn a_finished_census_is_not_drawn_again_and_a_persons_labels_join_it() {
    let world = World::new();
    let adapter = world.adapter();
    let Counted::Finished(first) = world.census("run", &adapter, None) else { panic!("stopped") };
    let rows = world.bytes("run", "rows.csv");
    let sheet = first.labels.clone().unwrap();
    let mut text = String::from("pair,facet,base,adapted\n");
    for id in &sheet.ids {
        text.extend([id.as_str(), ",subject,boat,house\n"]);
    }
    let path = world.dir.path().join("run/census/labels.csv");
    checkpoints::fs::atomic_write(&path, text.as_bytes()).unwrap();
    // Nothing may be drawn: a stop that is set before the first picture changes nothing.
    let Counted::Finished(second) = world.census("run", &adapter, Some(0)) else {
        panic!("was drawn again")
    };
    assert!(world.bytes("run", "rows.csv") == rows);
    let labels = second.labels.unwrap();
    assert_eq!(usize::try_from(labels.labelled).unwrap(), sheet.ids.len());
    assert_eq!((second.facets, second.path), (first.facets, first.path));
    assert_eq!((second.warnings, second.refused), (first.warnings, first.refused));
}

/// From 512 seeds on every instrument looks; taken up again, all of it says the same.
#[test]
fn a_census_of_the_size_of_a_survey_leaves_no_instrument_out() {
    let mut world = World::with(512, 0);
    let folder = world.dir.path().join("other");
    models::tiny::write(&folder, 4, &Device::flex()).unwrap();
    world.second = Some(Evaluator::load(&folder.join("evaluator"), &Device::flex()).unwrap());
    let adapter = world.adapter();
    let take = || match world.census("run", &adapter, None) {
        Counted::Finished(report) => report,
        Counted::Interrupted { .. } => panic!("nobody asked it to stop"),
    };
    let report = take();
    let unpaid: Vec<&Refusal> =
        report.refused.iter().filter(|refusal| refusal.reason.contains("budget")).collect();
    assert!(unpaid.is_empty(), "{unpaid:?}");
    assert!(report.path.is_some() && report.likelihood.is_some() && report.typicality.is_some());
    assert!(report.pixels.is_some() && report.modes.is_some() && report.agreement.is_some());
    // Noise bears no name: whatever the second evaluator confirmed of it corrects nothing.
    assert!(report.verified.is_some() && report.facets[0].corrected.is_none());
    let json = world.bytes("run", "census.json");
    take();
    assert!(world.bytes("run", "census.json") == json);
}

/// What one adapter drew of the base is there for the next.
#[test]
fn pictures_of_the_base_are_kept_for_the_next_adapter() {
    let world = World::new();
    let cache = world.dir.path().join("cache");
    let drawn = |run: &str, adapter: &Adapter| -> u64 {
        let stop = AtomicBool::new(false);
        let mut sink = |_: &CensusEvent| {};
        let hashes = BTreeMap::from([("trained".to_owned(), run.to_owned())]);
        let run = world.dir.path().join(run);
        let job = CensusJob {
            cache: Some(&cache),
            run: &run,
            hashes: &hashes,
            ..world.job(adapter, &run, &hashes)
        };
        let counted = census(&job, &mut Watch { stop: &stop, sink: &mut sink }).unwrap();
        assert!(matches!(counted, Counted::Finished(_)));
        let shelves = checkpoints::fs::list(&cache).unwrap();
        u64::try_from(shelves.len()).unwrap()
    };
    let adapter = world.adapter();
    let first = drawn("one", &adapter);
    let time = |name: &str| {
        let shelf = checkpoints::fs::list(&cache).unwrap().remove(0);
        let shard = checkpoints::fs::list(&shelf).unwrap().remove(0);
        (name.to_owned(), shard.metadata().unwrap().modified().unwrap())
    };
    let before = time("");
    let second = drawn("two", &adapter.zeroed());
    assert!(first > 0);
    assert_eq!((first, before), (second, time("")), "base pictures were drawn again");
    let picture = "pictures/base-0/empty-empty/00000.png";
    assert!(world.bytes("one", picture) == world.bytes("two", picture));
}

/// Two settlements of one base, and one of them with itself.
#[test]
fn settlements_that_were_counted_alike_are_compared_seed_by_seed() {
    use crate::compare::{Candidate, compare};

    let world = World::new();
    let adapter = world.adapter();
    world.census("one", &adapter, None);
    world.census("none", &adapter.zeroed(), None);
    let spec = world.recipe.census.as_ref().unwrap();
    let candidate = |name: &'static str, run: &'static str| (name, world.dir.path().join(run));
    let of = |names: &[(&'static str, &'static str)]| {
        let placed: Vec<_> = names.iter().map(|(name, run)| candidate(name, run)).collect();
        let candidates: Vec<Candidate<'_>> = placed
            .iter()
            .map(|(name, run)| Candidate { name, run, of: world.dir.path(), dose: 1.0, spec })
            .collect();
        compare(&candidates).unwrap()
    };
    let same = of(&[("a", "one"), ("b", "one")]);
    assert!(same.pairs[0].tv.value.abs() < 1e-12 && same.pairs[0].pairs > 0);
    assert_eq!(same.states[0].displaced, same.states[1].displaced);
    let other = of(&[("a", "one"), ("zero", "none")]);
    assert!(other.states[1].tv.value.abs() < 1e-12, "a zero adapter is the base");
    assert_eq!((other.pairs.len(), other.states.len()), (1, 2));
    let tv = |i: usize| other.states[i].tv.value;
    assert!((other.pairs[0].tv.value - tv(0)).abs() < 1e-12, "against zero is against the base");
    let record = other.settlements.unwrap();
    assert_eq!(record.states, ["base", "a", "zero"]);
    assert!(record.distance_to_base[2].value.abs() < 1e-12);
}
