//! The run: from a recipe and a base to checkpoints and a checked result.

use std::path::{Path, PathBuf};

use checkpoints::run_dir::RunDir;
use checkpoints::{ModelFiles, Watch};
use datasets::Dataset;
use models::{Base, adapter};
use recipes::Recipe;

use crate::cache::check_captions;
use crate::error::TrainError;
use crate::event::{Event, Phase};
use crate::objective::Objective;
use crate::output;
use crate::step::Plan;
use crate::training::{self, Training};

/// What is settled, in what, from what, and where it is written.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The frozen base. It may be [parked](Base::parked): it then is whole on its device only while
    /// something is encoded, decoded or checked, or where more than an adapter of the UNet is trained.
    pub base: &'a Base,
    /// The files from which the base was loaded.
    pub base_files: &'a ModelFiles,
    /// The pictures.
    pub dataset: &'a Dataset,
    /// The run directory, locked.
    pub run: &'a RunDir,
    /// Where class pictures are kept between runs.
    pub cache_dir: &'a Path,
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitted {
    /// All steps are done and the results have passed their checks.
    Finished {
        /// The last checkpoint.
        checkpoint: PathBuf,
        /// The results.
        files: Vec<PathBuf>,
    },
    /// A stop was requested.
    Interrupted {
        /// Steps done.
        step: u64,
        /// The checkpoint of that step; `None` if nothing was trained yet.
        checkpoint: Option<PathBuf>,
    },
}

/// Trains what the recipe asks for, from the run directory's newest checkpoint if it has one, and
/// writes the result.
///
/// On a CPU an interrupted and resumed run gives the same bytes as an uninterrupted one. A stop
/// request is seen at every batch of captions or pictures and every micro-batch; the checkpoint
/// then belongs to the last finished step.
///
/// # Errors
///
/// See [`TrainError`]; checkpoints that were committed stay.
pub fn fit(job: &Job<'_>, watch: &mut Watch<'_, Event>) -> Result<Fitted, TrainError> {
    let map = adapter::key_map(&adapter::base_layers(job.base), job.base.unet.config())?;
    let mut trainee = training::trainee(job)?;
    let (state, saved) = training::begin(job, &map, &mut trainee)?;
    if let Some((step, checkpoint)) = &saved {
        watch.tell(&Event::Resumed { step: *step, checkpoint: checkpoint.clone() });
    }
    let mut training = Training { job, map: &map, trainee, state, saved };
    if training.state.step() < job.recipe.fit.steps {
        let objective = Objective::new(&job.recipe.objective, &job.base.scheduler)?;
        check_captions(job.base, job.dataset)?;
        let Some(dataset) = training::with_class(job, watch)? else {
            return Ok(training.interrupted());
        };
        let Some(cache) = training.cache(&dataset, watch)? else {
            return Ok(training.interrupted());
        };
        let plan = Plan {
            seed: job.recipe.seed,
            fit: &job.recipe.fit,
            objective: &objective,
            dataset: &dataset,
            cache: &cache,
            prior_weight: training::class_of(job.recipe).map_or(1.0, |class| class.weight),
        };
        if !training.train(&plan, watch)? {
            return Ok(training.interrupted());
        }
    }
    watch.tell(&Event::Phase(Phase::Output));
    // The results are checked by what the whole base makes of them.
    let base = job.base.unparked();
    let whole = Job { base: &base, ..*job };
    let files = output::write(&whole, &map, &training.state, &mut training.trainee)?;
    watch.tell(&Event::Written { files: files.clone() });
    let checkpoint = training.saved.map(|(_, path)| path).unwrap_or_default();
    Ok(Fitted::Finished { checkpoint, files })
}

#[cfg(test)]
mod tests {
    use checkpoints::{ModelOptions, TensorFile};
    use models::base::host_values;
    use models::{Network, Slot};

    use super::*;
    use crate::fixtures::World;
    use crate::trainee::Show;

    fn hashes(files: &[PathBuf]) -> Vec<String> {
        files.iter().map(|path| TensorFile::open(path).unwrap().file_sha256()).collect()
    }

    fn finished(
        (fitted, events): (Result<Fitted, TrainError>, Vec<Event>),
    ) -> (PathBuf, Vec<PathBuf>, Vec<Event>) {
        match fitted.unwrap() {
            Fitted::Finished { checkpoint, files } => (checkpoint, files, events),
            Fitted::Interrupted { step, .. } => panic!("interrupted at {step}"),
        }
    }

    #[test]
    fn three_steps_twice_are_six_steps_once_to_the_last_bit() {
        let world = World::new();
        let recipe = world.recipe(&[]);
        let (whole, files, events) = finished(world.fit("whole", &recipe, None));
        assert_eq!(files.len(), 4, "kohya and diffusers, each with an average");
        let steps = |events: &[Event]| -> Vec<u64> {
            let step = |event: &Event| {
                if let Event::Stepped(record) = event { Some(record.step) } else { None }
            };
            events.iter().filter_map(step).collect()
        };
        assert_eq!(steps(&events), [1, 2, 3, 4, 5, 6]);

        let (fitted, events) = world.fit("parts", &recipe, Some(3));
        let Fitted::Interrupted { step: 3, checkpoint: Some(checkpoint) } = fitted.unwrap() else {
            panic!("not interrupted at step 3");
        };
        assert!(checkpoint.join("COMMIT.json").is_file());
        assert_eq!(steps(&events), [1, 2, 3]);
        let (resumed, resumed_files, events) = finished(world.fit("parts", &recipe, None));
        assert_eq!(steps(&events), [4, 5, 6]);
        assert_eq!(hashes(&resumed_files), hashes(&files));
        for name in ["adapter.safetensors", "optimizer.safetensors", "ema.safetensors"] {
            assert_eq!(hashes(&[resumed.join(name)]), hashes(&[whole.join(name)]), "{name}");
        }
        let bytes = |dir: &Path| checkpoints::fs::read(&dir.join("state.json")).unwrap();
        assert_eq!(bytes(&resumed), bytes(&whole));
    }

    #[test]
    fn the_journal_says_what_was_minimised() {
        let world = World::new();
        let recipe = world.recipe(&["fit.steps=3"]);
        let (checkpoint, _, events) = finished(world.fit("runs", &recipe, None));
        let run = world.run_dir("runs", &recipe);
        let metrics = run.folder().metrics().unwrap();
        assert_eq!(metrics.len(), 3);
        for (index, record) in metrics.into_iter().enumerate() {
            let record: crate::StepRecord = serde_json::from_value(record).unwrap();
            let preserve = record.loss_preserve.unwrap();
            assert_eq!(record.step, index as u64 + 1);
            assert!((record.loss - (record.loss_concept + 0.5 * preserve)).abs() < 1e-9);
            assert!(record.grad_norm > 0.0 && record.learning_rate > 0.0);
            assert!(events.contains(&Event::Stepped(record)));
        }
        // The batch at the end of an epoch may be smaller: 5 pictures in parts of 2.
        assert_eq!(run.newest().unwrap().unwrap().path(), checkpoint);
        assert_eq!(run.folder().steps().unwrap(), [2, 3]);
    }

    #[test]
    fn another_run_with_the_same_recipe_gives_the_same_bytes_and_draws_no_class_picture_again() {
        let world = World::new();
        let recipe = world.recipe(&["fit.steps=2"]);
        let (_, first, events) = finished(world.fit("one", &recipe, None));
        assert!(events.contains(&Event::ClassImages { done: 0, total: 3 }));
        let (_, second, events) = finished(world.fit("two", &recipe, None));
        assert!(!events.contains(&Event::ClassImages { done: 0, total: 3 }));
        assert!(events.contains(&Event::ClassImages { done: 3, total: 3 }));
        assert_eq!(hashes(&first), hashes(&second));
        let other = world.recipe(&["fit.steps=2", "seed=8"]);
        assert_ne!(hashes(&finished(world.fit("three", &other, None)).1), hashes(&first));
    }

    #[test]
    fn a_finished_run_only_writes_its_results_again() {
        let world = World::new();
        let recipe = world.recipe(&["fit.steps=2"]);
        let (_, files, _) = finished(world.fit("runs", &recipe, None));
        let before = hashes(&files);
        let (_, files, events) = finished(world.fit("runs", &recipe, None));
        assert_eq!(hashes(&files), before);
        assert!(!events.iter().any(|event| matches!(event, Event::Stepped(_) | Event::Began(_))));
    }

    /// All values of the UNet.
    fn values(base: &Base) -> Vec<(String, Vec<f32>)> {
        let mut found = Vec::new();
        let mut collect = |path: &str, slot: &mut dyn Slot| {
            found.push((path.to_owned(), host_values(slot.flat()).unwrap()));
        };
        base.clone().unet.visit("unet", &mut Show(&mut collect));
        found
    }

    #[test]
    fn full_training_writes_a_base_in_which_only_the_targets_have_changed() {
        let world = World::new();
        let before = values(&world.base);
        let sets = ["fit.steps=2", "output.dtype=f32"];
        let mut recipe = world.recipe(&sets);
        let targets = vec!["unet.mid_block.**".to_owned(), "text_encoder.**.fc1.*".to_owned()];
        recipe.adapter = recipes::AdapterSpec::Full(recipes::FullSpec { targets });
        finished(world.fit("runs", &recipe, None));
        let dir = world.dir.path().join("runs/run/base");
        let files = ModelFiles::open(&dir, &ModelOptions::default()).unwrap();
        let trained = models::load(&files, &world.base.device).unwrap();
        for ((path, after), (_, before)) in values(&trained).into_iter().zip(&before) {
            let target = path.starts_with("unet.mid_block.");
            assert_eq!(after != *before, target, "{path}");
        }
        assert_eq!(values(&world.base), before, "the base itself keeps its bits");
        let unchanged = |name: &str| checkpoints::hash::file_sha256(&dir.join(name)).unwrap().0;
        let vae = "vae/diffusion_pytorch_model.safetensors";
        assert_eq!(unchanged(vae), world.base.hashes[vae]);
        assert_ne!(
            unchanged("text_encoder/model.safetensors"),
            world.base.hashes["text_encoder/model.safetensors"]
        );
    }

    /// Targets in all three networks of SDXL; of the first encoder the last layer is not read.
    const SDXL_TARGETS: &str =
        "adapter.lora.targets=[unet.**.attn*.**, text_encoder*.**.q_proj, text_encoder*.**.fc1]";

    #[test]
    fn sdxl_is_trained_in_all_three_networks_and_resumed_to_the_last_bit() {
        let world = World::sdxl();
        let recipe = world.recipe(&["fit.steps=3", "fit.save_every=1", SDXL_TARGETS]);
        let (whole, files, _) = finished(world.fit("whole", &recipe, None));
        let (fitted, _) = world.fit("parts", &recipe, Some(2));
        assert!(matches!(fitted.unwrap(), Fitted::Interrupted { step: 2, .. }));
        let (resumed, resumed_files, _) = finished(world.fit("parts", &recipe, None));
        assert_eq!(hashes(&resumed_files), hashes(&files));
        let state = |dir: &Path| hashes(&[dir.join("optimizer.safetensors")]);
        assert_eq!(state(&resumed), state(&whole));
        let kohya = TensorFile::open(&files[0]).unwrap();
        let has = |start: &str| kohya.names().any(|name| name.starts_with(start));
        for stem in ["lora_unet_input_blocks_", "lora_te1_text_model_encoder_layers_0_"] {
            assert!(has(stem), "{stem}");
        }
        assert!(has("lora_te2_text_model_encoder_layers_1_"));
        assert!(!has("lora_te1_text_model_encoder_layers_1_"), "nothing reads that layer");
        let architecture = kohya.metadata().get("modelspec.architecture").map(String::as_str);
        assert_eq!(architecture, Some("stable-diffusion-xl-v1-base/lora"));
        let version = kohya.metadata().get("ss_base_model_version").map(String::as_str);
        assert_eq!(version, Some("sdxl_base_v1-0"));
    }

    #[test]
    fn full_training_of_sdxl_writes_a_base_with_its_second_encoder() {
        let world = World::sdxl();
        let mut recipe = world.recipe(&["fit.steps=2", "output.dtype=f32"]);
        let targets = vec!["text_encoder_2.**.fc2.*".to_owned()];
        recipe.adapter = recipes::AdapterSpec::Full(recipes::FullSpec { targets });
        finished(world.fit("runs", &recipe, None));
        let dir = world.dir.path().join("runs/run/base");
        let files = ModelFiles::open(&dir, &ModelOptions::default()).unwrap();
        assert!(files.force_zeros_for_empty_prompt());
        let trained = models::load(&files, &world.base.device).unwrap();
        let written = |name: &str| checkpoints::hash::file_sha256(&dir.join(name)).unwrap().0;
        for (name, is_trained) in [
            ("unet/diffusion_pytorch_model.safetensors", false),
            ("text_encoder/model.safetensors", false),
            ("text_encoder_2/model.safetensors", true),
            ("tokenizer_2/vocab.json", false),
        ] {
            assert_eq!(written(name) != world.base.hashes[name], is_trained, "{name}");
        }
        let pooled = |base: &Base| host_values(base.text_states(&["a"]).unwrap().pooled.unwrap());
        assert_ne!(pooled(&trained).unwrap(), pooled(&world.base).unwrap());
    }

    #[test]
    fn a_target_that_means_nothing_is_refused_before_anything_is_made() {
        let world = World::new();
        let mut recipe = world.recipe(&[]);
        let targets = vec!["unet.middle.**".to_owned()];
        recipe.adapter = recipes::AdapterSpec::Full(recipes::FullSpec { targets });
        let (fitted, events) = world.fit("runs", &recipe, None);
        assert!(matches!(fitted, Err(TrainError::NoSuchParameter { .. })));
        assert!(events.is_empty());
    }
}
