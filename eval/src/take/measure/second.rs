//! An evaluator of another family: the renders of a known world, or a second evaluator's files.

use super::super::Taker;
use crate::error::EvalError;
use crate::evaluator::{Sight, Words};
use crate::extent::Extent;
use crate::oracle::{BANK, Oracle};
use crate::world::World;
use image::RgbImage;
use models::Evaluator;

/// Somebody else who says what pictures bear.
pub(in crate::take) enum Second<'a> {
    /// The nearest of many rendered pictures.
    Render(Box<Oracle>),
    /// The recipe's second evaluator. It has no verified pictures to set a threshold of "none" by.
    Evaluator(&'a Evaluator, Box<Words>),
}

impl Second<'_> {
    /// What it is called in records.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Render(_) => "nearest render",
            Self::Evaluator(..) => "second evaluator",
        }
    }

    /// SHA-256 of what it judges by.
    pub(super) fn sha256(&self) -> String {
        match self {
            Self::Render(oracle) => oracle.sha256().to_owned(),
            Self::Evaluator(evaluator, _) => evaluator.sha256().to_owned(),
        }
    }

    /// What each picture bears, facet by facet.
    pub(super) fn said(&self, pictures: &[RgbImage]) -> Result<Vec<Vec<String>>, EvalError> {
        match self {
            Self::Render(oracle) => Ok(oracle.judge(pictures)),
            Self::Evaluator(evaluator, words) => {
                let labels = |sight: &Sight| -> Vec<String> {
                    let labels = words.labels(&sight.cosines, 1.0);
                    labels.into_iter().map(|label| label.entity).collect()
                };
                Ok(words.look(evaluator, pictures)?.iter().map(labels).collect())
            }
        }
    }
}

impl<'a> Taker<'a> {
    /// Whether a second family judges pictures of this census.
    pub(in crate::take) fn has_second(&self) -> bool {
        let renders = self.job.world == World::Postcards && !self.confusions.is_empty();
        self.job.second_evaluator.is_some() || (renders && Extent::of(self.job.spec).judged > 0)
    }

    /// Makes the second family, if there is one. Once for all that ask it: rendering the bank takes a while.
    pub(super) fn call_second(&mut self) -> Result<(), EvalError> {
        if !self.has_second() {
            return Ok(());
        }
        self.second = Some(if let Some(evaluator) = self.job.second_evaluator {
            let words = Words::new(evaluator, &self.plan.thesaurus)?;
            Second::Evaluator(evaluator, Box::new(words))
        } else {
            let side = u32::try_from(self.sampling.side_px).unwrap_or(u32::MAX);
            Second::Render(Box::new(Oracle::postcards(side, BANK)))
        });
        Ok(())
    }

    /// The second family, or why there is none.
    pub(super) fn second(&self) -> Result<&Second<'a>, String> {
        self.second.as_ref().ok_or_else(|| "no second evaluator was given".to_owned())
    }
}
