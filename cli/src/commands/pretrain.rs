//! `populate train` for a recipe that trains a network from scratch.

use checkpoints::Watch;
use checkpoints::event_file::{At, EventFile};
use checkpoints::run_dir::{AttemptEnd, Journal, RunDir, RunIdentity};
use recipes::PretrainRecipe;
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
pub(crate) fn execute(recipe: &PretrainRecipe, job: &Job<'_>) -> Result<Outcome, JobError> {
    let device = job.device()?;
    let attempt = attempt(&device, "train");
    let identity = RunIdentity {
        id: &recipe.name,
        // A recipe of this kind names neither base nor files of pictures.
        fingerprint: &recipes::fingerprint(recipe, "", ""),
        resolved_recipe: &recipes::resolved_yaml(recipe),
    };
    let run = RunDir::open(&job.place.runs, &identity, attempt)?;
    run.begin(0)?;
    let mut listener = Listener {
        metrics: run.journal("metrics.jsonl")?,
        events: None,
        progress: job.progress(),
        failure: None,
    };
    let trained = {
        let mut sink = |step: &Step| listener.hear(step, &run, job);
        let mut watch = Watch { stop: job.stop.flag(), sink: &mut sink };
        pretrain(recipe, run.path(), &device.device, &mut watch)
    };
    listener.progress.end();
    if let Some(error) = listener.failure {
        return Err(error);
    }
    let (step, end, reason) = match &trained {
        Ok(Pretrained::Finished(_)) => (recipe.fit.steps, Exit::Done, "finished".to_owned()),
        Ok(Pretrained::Interrupted(step)) => (*step, Exit::Requeue, "stopped".to_owned()),
        Err(_) => (0, Exit::Bug, "failed".to_owned()),
    };
    let trained = trained?;
    run.end(&AttemptEnd {
        step,
        exit_code: end.code(),
        reason,
        ended_at: environment::unix_seconds(),
        seconds_from_signal: job.stop.first().map(|request| request.seconds_ago()),
    })?;
    Ok(match trained {
        Pretrained::Finished(path) => {
            let record = json!({ "event": "finished", "path": path, "steps": recipe.fit.steps });
            job.give(&format!("trained `{}`: {}", recipe.name, path.display()), &record);
            Outcome::Done
        }
        Pretrained::Interrupted(_) => Outcome::Requeue { go_on: environment::own_command() },
    })
}

/// Keeps the records of a training from scratch.
struct Listener<'a> {
    metrics: Journal,
    events: Option<EventFile>,
    progress: Progress<'a>,
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
