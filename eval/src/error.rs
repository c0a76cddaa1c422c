//! What can go wrong while measuring.

/// An error of the census or its report. Messages complete "could not take the census: …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A thesaurus or panel, or a text that one is made of, breaks its rules; all mistakes at once.
    #[error("`{name}` has {}", counted(problems.len()))]
    Catalogue {
        /// Its file or its name.
        name: String,
        /// The text that the problems' lines, columns and spans point into.
        text: String,
        /// The mistakes, in the order of the text.
        problems: Vec<recipes::Problem>,
    },
    /// No thesaurus or panel of this name ships with the program.
    #[error("no {kind} named `{name}`; there are {known}")]
    UnknownName {
        /// `thesaurus` or `panel`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What exists.
        known: String,
    },
    /// `rows.csv` cannot be read.
    #[error("rows.csv line {line}: expected {expected}, found `{found}`")]
    Rows {
        /// Line, counted from 1.
        line: usize,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// `labels.csv` cannot be read.
    #[error("labels.csv line {line}: expected {expected}, found `{found}`")]
    Labels {
        /// Line, counted from 1.
        line: usize,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The rows do not belong together.
    #[error("rows do not pair: {0}")]
    Unpaired(String),
    /// A file of a finished census is not what was written.
    #[error("`{}` is not what its census wrote", path.display())]
    Altered {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A kept picture is gone, or another one lies in its place.
    #[error("`{}` was removed or replaced while its census was taken", path.display())]
    Removed {
        /// The picture.
        path: std::path::PathBuf,
    },
    /// `census.json` is of another format.
    #[error("census.json has schema `{found}`, expected `{expected}`")]
    Schema {
        /// What it says.
        found: String,
        /// What this version reads.
        expected: &'static str,
    },
    /// `census.json` cannot be read or written.
    #[error("census.json is malformed")]
    Json(#[from] serde_json::Error),
    /// A network could not be loaded or run.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// A sampler cannot be made from the base's noise schedule.
    #[error("noise schedule of the base cannot be used")]
    Diffusion(#[from] diffusion::DiffusionError),
    /// The base's `scheduler_config.json` is not one.
    #[error("scheduler/scheduler_config.json is malformed")]
    Scheduler(#[source] serde_json::Error),
    /// A file of the run cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoints::CheckpointError),
    /// A reference picture cannot be read.
    #[error(transparent)]
    Dataset(#[from] datasets::DatasetError),
    /// The evaluator is the text encoder that the pictures are drawn with.
    #[error("evaluator and text encoder share a tensor (SHA-256 {sha256})")]
    SharedEvaluator {
        /// SHA-256 of the shared tensor in half precision.
        sha256: String,
    },
    /// The thesaurus lacks what the recipe counts on.
    #[error("thesaurus `{thesaurus}` has no {kind} `{found}`")]
    Concept {
        /// Identifier of the thesaurus.
        thesaurus: String,
        /// `facet` or `entity`.
        kind: &'static str,
        /// What the recipe names.
        found: String,
        /// The facets that it has.
        known: Vec<String>,
    },
    /// A step of a path adds no noise.
    #[error(
        "step {step} of the sampler adds no noise, expected η > 0: paths have no density to each other"
    )]
    Noiseless {
        /// Position of the step.
        step: u64,
    },
    /// Values do not fit each other.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// Which values.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The outputs of a model are no scores of one density.
    #[error(
        "the model is distilled or few-step ({sign}), its outputs are no scores of one density"
    )]
    Distilled {
        /// What shows it.
        sign: String,
    },
    /// The adapter changes the autoencoder.
    #[error("the adapter changes the autoencoder (`{module}`), its likelihood terms do not cancel")]
    AdaptedVae {
        /// The first such module.
        module: String,
    },
    /// A stop was requested.
    #[error("stopped on request")]
    Stopped,
    /// A picture cannot be decoded or encoded.
    #[error("picture `{path}` cannot be used")]
    Picture {
        /// Path within the census.
        path: String,
        /// The codec's reason.
        #[source]
        source: image::ImageError,
    },
}

impl EvalError {
    /// Advice for the user, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Catalogue { .. } => Some(
                "`populate validate FILE` checks a thesaurus or panel without loading a model"
                    .into(),
            ),
            Self::Schema { .. } => Some(
                "take the census again with this version, or read it with the one that wrote it"
                    .into(),
            ),
            Self::SharedEvaluator { .. } => Some(
                "name another one in `census.evaluator`: a judge may not be the accused".into(),
            ),
            Self::Altered { .. } => Some(
                "put the written file back, or remove the folder `census` to take it again".into(),
            ),
            Self::Removed { .. } => Some("the same command draws it again and goes on".into()),
            Self::Noiseless { .. } => {
                Some("sample with eta 1, or compare pictures on equal seeds".into())
            }
            Self::Distilled { .. } => Some(
                "`census.likelihood: force` measures it all the same, labelled as a score gap"
                    .into(),
            ),
            Self::Concept { kind: "facet", known, .. } => Some(format!(
                "`census.concept.facet` is one of {}",
                known.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
            )),
            Self::Dataset(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::UnknownName { .. }
            | Self::Concept { .. }
            | Self::Rows { .. }
            | Self::Length { .. }
            | Self::AdaptedVae { .. }
            | Self::Labels { .. }
            | Self::Unpaired(_)
            | Self::Json(_)
            | Self::Checkpoint(_)
            | Self::Diffusion(_)
            | Self::Scheduler(_)
            | Self::Stopped
            | Self::Picture { .. } => None,
        }
    }
}

fn counted(n_problems: usize) -> String {
    if n_problems == 1 { "1 problem".to_owned() } else { format!("{n_problems} problems") }
}
