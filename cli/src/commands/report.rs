//! `populate report`: writes the report of a census again, from what lies on disk.

use std::path::{Path, PathBuf};

use checkpoints::energy::{EnergyTotals, Phase};
use checkpoints::run_dir::RunFolder;
use eval::gate::Judgement;
use eval::json::CensusReport;
use recipes::{AdapterSpec, BaseSpec, GatesSpec, Recipe, WeightsSource};
use report::{Energy, Form, Language, Metric, PictureNoun, Rerun, RunInfo, finding, render};
use serde_json::{Value, json};

use super::census::report_path;
use super::{Job, Outcome};
use crate::args::ReportArguments;
use crate::error::JobError;
use crate::exit::Exit;
use crate::provenance;
use crate::spending::{Spent, phase_name};
use crate::stage;

/// Microjoules of a watt-hour.
const UJ_PER_WH: f64 = 3.6e9;

/// A report that was written.
#[derive(Debug, Clone)]
pub(crate) struct Reported {
    /// Done, or a gate failed.
    pub(crate) exit: Exit,
    /// The finding in a sentence.
    pub(crate) sentence: String,
    /// The page.
    pub(crate) report: PathBuf,
    /// The gates with what was found.
    gates: Value,
}

impl Reported {
    /// Says where the report lies and what was found.
    pub(crate) fn give(&self, run: &Path, job: &Job<'_>) -> Outcome {
        let record = json!({
            "event": "reported", "run": run, "report": self.report, "result": self.sentence,
            "gates": self.gates,
        });
        job.give(&self.text(), &record);
        if self.exit == Exit::Done { Outcome::Done } else { Outcome::GateFailed }
    }

    /// The path, then the finding.
    pub(crate) fn text(&self) -> String {
        format!("report: {}\n{}", self.report.display(), self.sentence)
    }
}

/// Renders the page of a run's census.
pub(crate) fn execute(arguments: &ReportArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let form = if arguments.self_contained { Form::SelfContained } else { Form::Folder };
    let arguments = &arguments.run;
    let run = stage::run_folder(&arguments.run, &arguments.sets, &job.place.runs)?;
    let recipe = stage::recipe_of_run(&run)?;
    if !run.path().join("census/census.json").is_file() {
        return Err(JobError::Usage {
            message: format!("run `{}` has no census", run.path().display()),
            hint: Some(format!("`populate census {}` takes one", run.path().display())),
        });
    }
    let device = run.attempts()?.into_iter().next_back().map(|record| match record {
        checkpoints::run_dir::AttemptRecord::Start { attempt, .. } => attempt.device,
        checkpoints::run_dir::AttemptRecord::End { .. } => String::new(),
    });
    let reported = write_report(&recipe, &run, &device.unwrap_or_default(), form)?;
    Ok(reported.give(run.path(), job))
}

/// Reads the census of a run and writes its report.
///
/// # Errors
///
/// A census that is missing or damaged; a disk that is full.
pub(crate) fn write_report(
    recipe: &Recipe,
    run: &RunFolder,
    device: &str,
    form: Form,
) -> Result<Reported, JobError> {
    let (census, pictures, manifest) = eval::read(run.path())?;
    let spent = Spent::read(run)?;
    let info = RunInfo {
        name: recipe.name.clone(),
        picture_noun: match recipe.base {
            BaseSpec::Postcards => PictureNoun::Postcard,
            BaseSpec::Folder { .. } | BaseSpec::Sd1(_) | BaseSpec::Sd2(_) | BaseSpec::Sdxl(_) => {
                PictureNoun::Picture
            }
        },
        rerun: census
            .nulls
            .rerun
            .map(|again| Rerun { pairs: again.pairs, different_labels: again.different_labels }),
        prompts: manifest.prompts,
        facts: facts(recipe, run, device)?,
        hashes: hashes(run, &manifest.hashes),
        metrics: metrics(run)?,
        seconds: seconds(&spent),
        energy: energy(&spent.energy),
        recipe_yaml: recipes::resolved_yaml(recipe),
    };
    for (name, bytes) in render(&census, &pictures, &info, form) {
        checkpoints::fs::atomic_write(&run.path().join(name), &bytes)?;
    }
    Ok(Reported {
        exit: if gates_hold(&census, &recipe.gates) { Exit::Done } else { Exit::GateFailed },
        sentence: finding(&census, &info, Language::English),
        report: report_path(run.path()),
        gates: json!(census.gates),
    })
}

/// Whether no gate failed and, if the recipe is strict, none was undecided.
fn gates_hold(census: &CensusReport, gates: &GatesSpec) -> bool {
    census.gates.iter().all(|gate| match gate.judgement {
        Judgement::Pass => true,
        Judgement::Undecided => !gates.strict,
        Judgement::Fail => false,
    })
}

/// Reports are given away: the name of a folder or file, not its path.
fn last_part(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "folder".to_owned())
}

fn facts(
    recipe: &Recipe,
    run: &RunFolder,
    device: &str,
) -> Result<Vec<(String, String)>, JobError> {
    let mut base = match &recipe.base {
        BaseSpec::Postcards => "postcards (embedded)".to_owned(),
        BaseSpec::Folder { weights } => last_part(weights),
        BaseSpec::Sd1(model) | BaseSpec::Sd2(model) | BaseSpec::Sdxl(model) => {
            match &model.weights {
                WeightsSource::Path(path) => last_part(path),
                WeightsSource::Hub(model) => model.to_string(),
            }
        }
    };
    for before in &recipe.settled {
        base.push_str(" + ");
        base.push_str(&last_part(before));
    }
    let trained = match &recipe.adapter {
        AdapterSpec::Lora(lora) => format!("LoRA, rank {}, alpha {}", lora.rank, lora.alpha),
        AdapterSpec::Full(_) => "weights of the base themselves".to_owned(),
    };
    let batch = recipe.fit.batch;
    let pairs = [
        ("Base", base),
        ("Trained", trained),
        (
            "Steps",
            format!("{} of {} × {} pictures", recipe.fit.steps, batch.images, batch.accumulate),
        ),
        ("Seed", recipe.seed.to_string()),
        ("Device", device.to_owned()),
        ("Attempts", run.attempts()?.len().to_string()),
        ("Version", version()),
    ];
    Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match provenance::sources() {
        Some(sources) => {
            let commit: String = sources.commit.chars().take(12).collect();
            let dirty = if sources.dirty { ", changed" } else { "" };
            format!("populate {version} ({commit}{dirty})")
        }
        None => format!("populate {version}"),
    }
}

fn hashes(
    run: &RunFolder,
    of_census: &std::collections::BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let mut hashes = vec![("fingerprint".to_owned(), run.fingerprint().to_owned())];
    hashes.extend(of_census.iter().map(|(name, hash)| (name.clone(), hash.clone())));
    hashes
}

fn metrics(run: &RunFolder) -> Result<Vec<Metric>, JobError> {
    let metric = |record: Value| {
        Some(Metric {
            step: record.get("step")?.as_u64()?,
            loss: record.get("loss")?.as_f64()?,
            learning_rate: record.get("learning_rate")?.as_f64()?,
        })
    };
    Ok(run.metrics()?.into_iter().filter_map(metric).collect())
}

/// Seconds by phase, in the order of the work.
fn seconds(spent: &Spent) -> Vec<(String, f64)> {
    let order =
        [Phase::Load, Phase::Cache, Phase::Train, Phase::Sample, Phase::Census, Phase::Report];
    let known = order.into_iter().filter_map(|phase| Some((phase, *spent.seconds.get(&phase)?)));
    known.map(|(phase, seconds)| (phase_name(phase).to_owned(), seconds)).collect()
}

fn energy(totals: &EnergyTotals) -> Energy {
    let sources: Vec<&str> = totals.sources.values().map(String::as_str).collect();
    let sources = sources.join("; ");
    match totals.total_uj() {
        #[expect(clippy::cast_precision_loss, reason = "a report needs no more than 53 bits")]
        Some(uj) => Energy::Measured {
            watt_hours: uj as f64 / UJ_PER_WH,
            scope: format!("whole device, includes other processes ({sources})"),
        },
        None if sources.is_empty() => Energy::default(),
        None => Energy::NotMeasured(sources),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_that_was_not_measured_has_a_reason_and_no_number() {
        let mut totals = EnergyTotals::default();
        assert_eq!(energy(&totals), Energy::default());
        let reason = "unavailable: EACCES".to_owned();
        totals.sources.insert(checkpoints::energy::Domain::Cpu, reason.clone());
        assert_eq!(energy(&totals), Energy::NotMeasured(reason));
    }
}
