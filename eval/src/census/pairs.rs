//! Finds for each picture its partners: the same prompt and seed under other weights.

use super::len;
use crate::error::EvalError;
use crate::panel::{Panel, Stratum};
use crate::record::ZeroCheck;
use crate::rows::{Model, Row, Rows};
use statistics::number::real;
use std::collections::{BTreeMap, BTreeSet};

/// A model at a dose. The dose is kept as its bits: equality is all that is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Drawn {
    model: Model,
    dose_bits: u64,
}

impl Drawn {
    pub(crate) const ADAPTED: Self = Self::adapted(1.0);

    /// The adapted model at `dose`. −0 and 0 are the same dose.
    pub(crate) const fn adapted(dose: f64) -> Self {
        Self { model: Model::Adapted, dose_bits: (dose + 0.0).to_bits() }
    }

    /// A model at a dose; the base has none.
    pub(crate) fn new(model: Model, dose: f64) -> Self {
        let dose = if model == Model::Base { 0.0 } else { dose };
        Self { model, dose_bits: (dose + 0.0).to_bits() }
    }

    fn of(row: &Row) -> Self {
        Self::new(row.model, row.dose)
    }

    fn dose(self) -> f64 {
        f64::from_bits(self.dose_bits)
    }
}

/// Pictures of one prompt under the base and one other model; equal positions share the seed.
#[derive(Clone, Debug)]
pub(crate) struct PromptPairs<'a> {
    pub(crate) stratum: Stratum,
    pub(crate) prompt: &'a str,
    pub(crate) asked: Option<&'a str>,
    pub(crate) weight: f64,
    pub(crate) base: Vec<&'a Row>,
    pub(crate) other: Vec<&'a Row>,
}

/// The pictures of one prompt, by model and seed.
type Group<'a> = BTreeMap<Drawn, BTreeMap<u32, &'a Row>>;

/// All pictures by stratum, prompt, model and seed.
pub(crate) struct Pictures<'a> {
    groups: BTreeMap<(Stratum, &'a str), Group<'a>>,
}

const BASE: Drawn = Drawn { model: Model::Base, dose_bits: 0 };

impl<'a> Pictures<'a> {
    /// Indexes the rows; a picture that stands twice is an error.
    pub(crate) fn index(rows: &'a Rows) -> Result<Self, EvalError> {
        let mut groups: BTreeMap<_, Group<'_>> = BTreeMap::new();
        for row in &rows.rows {
            let group = groups.entry((row.stratum, row.prompt.as_str())).or_default();
            let twin = group.entry(Drawn::of(row)).or_default().insert(row.seed_idx, row);
            if twin.is_some() {
                return Err(EvalError::Unpaired(format!(
                    "{} at dose {} has two pictures of `{}`, seed {}",
                    row.model, row.dose, row.prompt, row.seed_idx
                )));
            }
        }
        Ok(Self { groups })
    }

    /// Pairs of every prompt of a stratum that `drawn` drew, without weights.
    pub(crate) fn pairs(
        &self,
        stratum: Stratum,
        drawn: Drawn,
    ) -> Result<Vec<PromptPairs<'a>>, EvalError> {
        let mut found = Vec::new();
        for (&(_, prompt), group) in self.groups.iter().filter(|((s, _), _)| *s == stratum) {
            let Some(others) = group.get(&drawn) else { continue };
            let empty = BTreeMap::new();
            let bases = group.get(&BASE).unwrap_or(&empty);
            let (mut base, mut other) = (Vec::new(), Vec::new());
            for (seed, row) in others {
                let partner = bases.get(seed).ok_or_else(|| {
                    EvalError::Unpaired(format!(
                        "{} has a picture of `{prompt}`, seed {seed}, the base has none",
                        row.model
                    ))
                })?;
                base.push(*partner);
                other.push(*row);
            }
            let asked = base.first().and_then(|row| row.asked.as_deref());
            found.push(PromptPairs { stratum, prompt, asked, weight: 0.0, base, other });
        }
        Ok(found)
    }

    /// Pairs of the headline strata, with weights that sum to 1 over the prompts that were drawn.
    pub(crate) fn headline(
        &self,
        panel: &Panel,
        drawn: Drawn,
    ) -> Result<Vec<PromptPairs<'a>>, EvalError> {
        let mut found = self.pairs(Stratum::Empty, drawn)?;
        found.extend(self.pairs(Stratum::Medium, drawn)?);
        for pairs in &mut found {
            pairs.weight = panel.weight(pairs.prompt);
        }
        let total: f64 = found.iter().map(|pairs| pairs.weight).sum();
        if !found.is_empty() && total <= 0.0 {
            return Err(EvalError::Unpaired("no unasked prompt is of the panel".into()));
        }
        for pairs in &mut found {
            pairs.weight /= total;
        }
        Ok(found)
    }

    /// Pairs of one stratum, each prompt weighted by its number of pictures.
    pub(crate) fn pooled(
        &self,
        stratum: Stratum,
        drawn: Drawn,
    ) -> Result<Vec<PromptPairs<'a>>, EvalError> {
        let mut found = self.pairs(stratum, drawn)?;
        let total: usize = found.iter().map(|pairs| pairs.base.len()).sum();
        for pairs in &mut found {
            pairs.weight = real(pairs.base.len()) / real(total.max(1));
        }
        Ok(found)
    }

    /// The placebo pictures of a prompt on the seeds of `pairs`, one list per draw.
    pub(crate) fn placebos_of(
        &self,
        pairs: &PromptPairs<'a>,
    ) -> Result<Vec<Vec<&'a Row>>, EvalError> {
        let Some(group) = self.groups.get(&(pairs.stratum, pairs.prompt)) else {
            return Ok(Vec::new());
        };
        let draws = group.iter().filter(|(drawn, _)| matches!(drawn.model, Model::Placebo(_)));
        draws
            .map(|(drawn, rows)| {
                let one = |row: &&Row| {
                    rows.get(&row.seed_idx).copied().ok_or_else(|| {
                        EvalError::Unpaired(format!(
                            "{} has no picture of `{}`, seed {}",
                            drawn.model, pairs.prompt, row.seed_idx
                        ))
                    })
                };
                pairs.base.iter().map(one).collect()
            })
            .collect()
    }

    /// Number of placebo draws.
    pub(crate) fn placebos(&self) -> u32 {
        let models: BTreeSet<Model> = self
            .groups
            .values()
            .flat_map(BTreeMap::keys)
            .filter(|drawn| matches!(drawn.model, Model::Placebo(_)))
            .map(|drawn| drawn.model)
            .collect();
        u32::try_from(models.len()).unwrap_or(u32::MAX)
    }

    /// Doses at which the adapted model drew unasked pictures, rising.
    pub(crate) fn doses(&self) -> Vec<f64> {
        let mut doses: Vec<f64> = self
            .groups
            .iter()
            .filter(|((stratum, _), _)| stratum.is_headline())
            .flat_map(|(_, group)| group.keys())
            .filter(|drawn| drawn.model == Model::Adapted)
            .map(|drawn| drawn.dose())
            .collect();
        doses.sort_by(f64::total_cmp);
        doses.dedup_by(|a, b| a.to_bits() == b.to_bits());
        doses
    }

    /// The adapter at dose 0 against the base, over every stratum.
    pub(crate) fn zero_check(&self) -> Option<ZeroCheck> {
        let mut check = ZeroCheck { pairs: 0, different_pixels: 0, different_labels: 0 };
        for group in self.groups.values() {
            let (Some(base), Some(zero)) = (group.get(&BASE), group.get(&Drawn::adapted(0.0)))
            else {
                continue;
            };
            for (base, zero) in zero.iter().filter_map(|(seed, row)| Some((base.get(seed)?, row))) {
                check.pairs += 1;
                check.different_pixels += u64::from(base.pixels != zero.pixels);
                let entity = |row: &Row| -> Vec<String> {
                    row.labels.iter().map(|label| label.entity.clone()).collect()
                };
                check.different_labels += u64::from(entity(base) != entity(zero));
            }
        }
        (check.pairs > 0).then_some(check)
    }

    /// One picture.
    pub(crate) fn at(&self, pair: &Row, drawn: Drawn) -> Option<&'a Row> {
        let group = self.groups.get(&(pair.stratum, pair.prompt.as_str()))?;
        group.get(&drawn)?.get(&pair.seed_idx).copied()
    }
}

/// Number of pairs.
pub(crate) fn count(prompts: &[PromptPairs<'_>]) -> u64 {
    prompts.iter().map(|prompt| len(prompt.base.len())).sum()
}
