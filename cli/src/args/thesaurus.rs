//! The arguments of `populate thesaurus`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with a thesaurus.
#[derive(Debug, Clone, Args)]
pub(crate) struct ThesaurusArguments {
    /// The work.
    #[command(subcommand)]
    pub(crate) work: ThesaurusWork,
}

/// Works on thesauri.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ThesaurusWork {
    /// Make a thesaurus of a vocabulary that is published as SKOS in Turtle.
    Import(ThesaurusImportArguments),
}

/// A vocabulary to be imported.
#[derive(Debug, Clone, Args)]
pub(crate) struct ThesaurusImportArguments {
    /// The vocabulary, a Turtle file.
    #[arg(value_name = "FILE.ttl")]
    pub(crate) vocabulary: PathBuf,
    /// IRI of a concept scheme whose concepts are taken; repeatable; all concepts if absent.
    #[arg(long = "scheme", value_name = "IRI")]
    pub(crate) schemes: Vec<String>,
    /// The facet that all concepts enter; one facet for each scheme if absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) facet: Option<String>,
    /// Language of the labels, such as en; repeatable; those that name every concept if absent.
    #[arg(long = "language", value_name = "TAG")]
    pub(crate) languages: Vec<String>,
    /// The file to write; its name is that of the thesaurus.
    #[arg(long, value_name = "FILE.yaml")]
    pub(crate) out: PathBuf,
}
