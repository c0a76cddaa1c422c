//! A thesaurus as its file says it: every value that a rule is about knows its place.

use crate::ordered::Ordered;
use serde::Deserialize;
use serde_saphyr::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawThesaurus {
    pub(super) schema: Spanned<String>,
    pub(super) id: String,
    pub(super) languages: Spanned<Vec<String>>,
    pub(super) facets: Ordered<RawFacet>,
    pub(super) entities: Ordered<RawEntity>,
}

/// One axis.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFacet {
    #[serde(default)]
    pub(super) none: bool,
}

/// One entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntity {
    pub(super) facet: Option<Spanned<String>>,
    pub(super) counted: Option<bool>,
    pub(super) broader: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) related: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) motif: bool,
    pub(super) ask: Option<String>,
    pub(super) prior: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) label: Ordered<Spanned<String>>,
    #[serde(default)]
    pub(super) synonyms: Ordered<Vec<String>>,
    pub(super) notation: Option<String>,
    pub(super) source: Option<String>,
}

impl RawEntity {
    /// The facet it names, empty if it names none.
    pub(super) fn facet(&self) -> &str {
        self.facet.as_ref().map_or("", |facet| facet.value.as_str())
    }

    /// Whether pictures are counted under it.
    pub(super) fn is_counted(&self) -> bool {
        self.counted != Some(false)
    }
}
