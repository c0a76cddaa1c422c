//! `populate train` for a recipe that trains a network from scratch.

use std::path::{Path, PathBuf};

use checkpoints::Watch;
use checkpoints::event_file::{At, EventFile};
use checkpoints::folder::ComponentFiles;
use checkpoints::hash::{combined_sha256, file_sha256};
use checkpoints::run_dir::{AttemptEnd, Journal, RunDir, RunIdentity};
use recipes::{PretrainRecipe, PretrainSpec};
use serde_json::json;
use trainer::pretrain::{Pretrained, Progress as Step, pretrain};

use super::train::attempt;
use super::{Job, Outcome};
use crate::environment;
use crate::error::JobError;
use crate::exit::Exit;
use crate::progress::{Progress, Tick};

/// Trains the network and writes it where the recipe says. The run directory has the recipe's name
/// and holds the state, from which the same command goes on.
pub(crate) fn execute(
    recipe: &PretrainRecipe,
    runs: &Path,
    job: &Job<'_>,
) -> Result<Outcome, JobError> {
    let inputs_sha256 = inputs_sha256(&recipe.network)?;
    let device = job.device()?;
    let attempt = attempt(&device, "train");
    let identity = RunIdentity {
        id: &recipe.name,
        // The pictures are rendered: the recipe says all of them.
        fingerprint: &recipes::fingerprint(recipe, &inputs_sha256, ""),
        resolved_recipe: &recipes::resolved_yaml(recipe),
    };
    let run = RunDir::open(runs, &identity, attempt)?;
    run.begin(0)?;
    let mut listener = Listener {
        metrics: run.journal("metrics.jsonl")?,
        events: None,
        progress: job.progress(),
        last_step: 0,
        failure: None,
    };
    let trained = {
        let mut sink = |step: &Step| listener.hear(step, &run, job);
        let mut watch = Watch { stop: job.stop.flag(), sink: &mut sink };
        pretrain(recipe, run.path(), &device.device, &mut watch)
    };
    listener.progress.end();
    let last_step = listener.last_step;
    let trained = listener.failure.map_or_else(|| Ok(trained?), Err);
    let (step, exit, reason) = match &trained {
        Ok(Pretrained::Finished(_)) => (recipe.fit.steps, Exit::Done, "finished".to_owned()),
        Ok(Pretrained::Interrupted(step)) => (*step, Exit::Requeue, "stopped".to_owned()),
        Err(error) => (last_step, error.exit(), error.to_string()),
    };
    let ended = run.end(&AttemptEnd {
        step,
        exit_code: exit.code(),
        reason,
        prepared: false,
        ended_at: environment::unix_seconds(),
        seconds_from_signal: job.stop.first().map(|request| request.seconds_ago()),
    });
    // The first error is the one to report.
    let trained = trained?;
    ended?;
    Ok(match trained {
        Pretrained::Finished(path) => {
            let record = json!({ "event": "finished", "path": path, "steps": recipe.fit.steps });
            job.give(&format!("trained `{}`: {}", recipe.name, path.display()), &record);
            Outcome::Done
        }
        Pretrained::Interrupted(_) => Outcome::Requeue { go_on: environment::own_command() },
    })
}

/// One hash over the files that a recipe names, so that no training goes on with others.
fn inputs_sha256(network: &PretrainSpec) -> Result<String, JobError> {
    let mut files: Vec<(&'static str, PathBuf)> = Vec::new();
    match network {
        PretrainSpec::Vae { config, .. } | PretrainSpec::Clip { config, .. } => {
            files.push(("config", config.clone()));
        }
        PretrainSpec::Unet { unet, text_encoder, scheduler, vae, .. } => {
            let vae = ComponentFiles::open(vae)?;
            files.extend([
                ("unet", unet.clone()),
                ("text_encoder", text_encoder.clone()),
                ("scheduler", scheduler.clone()),
                ("vae config", vae.config_path),
                ("vae", vae.weights.path().to_owned()),
            ]);
        }
    }
    let hash = |(name, path): (&'static str, PathBuf)| Ok((name, file_sha256(&path)?.0));
    let hashes = files.into_iter().map(hash).collect::<Result<Vec<_>, JobError>>()?;
    Ok(combined_sha256(hashes.iter().map(|(name, sha256)| (*name, sha256.as_str()))))
}

/// Keeps the records of a training from scratch.
struct Listener<'a> {
    metrics: Journal,
    events: Option<EventFile>,
    progress: Progress<'a>,
    last_step: u64,
    failure: Option<JobError>,
}

impl Listener<'_> {
    fn hear(&mut self, step: &Step, run: &RunDir, job: &Job<'_>) {
        if let Err(error) = self.record(step, run) {
            self.failure.get_or_insert(error);
            job.stop.flag().store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn record(&mut self, step: &Step, run: &RunDir) -> Result<(), JobError> {
        self.last_step = step.step;
        self.progress.tick(&Tick {
            phase: "train",
            unit: "steps",
            done: step.step,
            total: step.total,
            figures: &[("loss", step.loss), ("norm", step.grad_norm)],
        });
        self.metrics.append(&json!({
            "step": step.step, "loss": step.loss, "grad_norm": step.grad_norm,
            "learning_rate": step.learning_rate,
        }))?;
        let wall_time = environment::unix_seconds();
        if self.events.is_none() {
            let resumed_after = (run.attempt_number() > 1).then(|| step.step.saturating_sub(1));
            self.events = Some(run.event_file(wall_time, resumed_after)?);
        }
        let Some(events) = &mut self.events else { return Ok(()) };
        let at = At { step: step.step, wall_time };
        let scalars = [
            ("loss", step.loss),
            ("grad_norm", step.grad_norm),
            ("learning_rate", step.learning_rate),
        ];
        for (tag, value) in scalars {
            #[expect(clippy::cast_possible_truncation, reason = "event files hold f32")]
            events.scalar(at, tag, value as f32)?;
        }
        Ok(())
    }
}
