//! Figures of embeddings: fabric, copies, and what a second evaluator says.

use super::super::Taker;
use crate::copies::{CopiesInput, Drawn, copies};
use crate::error::EvalError;
use crate::extent::Extent;
use crate::fabric::{FabricEntity, Named, fabric};
use crate::panel::Stratum;
use crate::plan::Drawing;
use crate::record::{AgreementRecord, CopiesRecord, FabricRecord, FacetAgreement};
use crate::rows::{Model, Row};
use crate::thesaurus::NONE;
use image::RgbImage;
use statistics::agreement::{cohen_kappa, same_sign};
use statistics::number::real;
use std::collections::{BTreeMap, BTreeSet};

/// Pictures of each model that a given second evaluator looks at, where the budget names none.
const JUDGED: usize = 128;

impl Taker<'_> {
    /// Whether pictures are still as far apart as the things that they were asked to show.
    ///
    /// A picture counts if the evaluator sees in it what was asked.
    pub(super) fn fabric(&self) -> Result<FabricRecord, String> {
        let input = self.input_of_rows();
        let facet = &self.plan.concept.facet;
        let mut entities: Vec<FabricEntity<'_>> = Vec::new();
        let verified = self.verified_asks();
        for (i, id) in self.words.entities.iter().enumerate() {
            let Some(entity) = self.plan.thesaurus.entity(id).filter(|e| e.facet == *facet) else {
                continue;
            };
            let named = |model: Model| -> Vec<Named<'_>> {
                let of_entity = move |drawing: &Drawing| {
                    drawing.prompt.stratum == Stratum::Asked
                        && drawing.model == model
                        && drawing.prompt.given.as_deref() == Some(entity.id.as_str())
                };
                self.seen_of(of_entity)
                    .filter(|(_, seed_idx, _, _)| {
                        verified.contains(&(model, entity.id.as_str(), *seed_idx))
                    })
                    .map(|(_, seed_idx, seen, at)| Named {
                        seed_idx,
                        embedding: &seen.looked.embeddings[at],
                    })
                    .collect()
            };
            entities.push(FabricEntity {
                id,
                words: &self.words.vectors()[i],
                base: named(Model::Base),
                adapted: named(Model::Adapted),
            });
        }
        fabric(&input.thesaurus, &entities, self.resampler())
    }

    /// Pictures asked by name in which the evaluator sees what was asked: model, entity, seed.
    fn verified_asks(&self) -> BTreeSet<(Model, &str, u32)> {
        let facet = self.rows.facets.iter().position(|f| *f == self.plan.concept.facet);
        let shows = |row: &&Row| {
            let label = facet.and_then(|f| row.labels.get(f)).map(|label| label.entity.as_str());
            row.stratum == Stratum::Asked && label.is_some() && label == row.asked.as_deref()
        };
        self.rows
            .rows
            .iter()
            .filter(shows)
            .filter_map(|row| Some((row.model, row.asked.as_deref()?, row.seed_idx)))
            .collect()
    }

    /// How near the pictures asked by the identifier come to the references.
    pub(super) fn copies(&self) -> Result<CopiesRecord, String> {
        let paths: Vec<String> =
            (0..self.references.len()).map(|i| format!("pictures/references/{i:02}.png")).collect();
        let asked = self.pairs_of(Stratum::Identifier, None);
        let class = self.plan.concept.class.as_deref().and_then(|class| {
            let pairs = self.pairs_of(Stratum::Asked, Some(class));
            (!pairs.lengths.is_empty()).then_some(pairs)
        });
        if asked.lengths.is_empty() {
            return Err("nothing was asked by the identifier".to_owned());
        }
        let drawn = |pairs: &'_ Pairs| -> (Vec<usize>, Vec<Vec<f32>>, Vec<Vec<f32>>) {
            (pairs.lengths.clone(), pairs.base.clone(), pairs.adapted.clone())
        };
        let (lengths, base, adapted) = drawn(&asked);
        let class = class.as_ref().map(drawn);
        let input = CopiesInput {
            references: &self.references,
            paths: &paths,
            asked: Drawn { lengths: &lengths, base: &base, adapted: &adapted },
            class: class.as_ref().map(|(lengths, base, adapted)| Drawn { lengths, base, adapted }),
        };
        copies(&input, self.resampler())
    }

    /// Embeddings of one stratum by both models, prompt after prompt, equal seeds at equal places.
    fn pairs_of(&self, stratum: Stratum, given: Option<&str>) -> Pairs {
        let of = |model: Model| -> BTreeMap<(String, u32), Vec<f32>> {
            let keep = move |drawing: &Drawing| {
                drawing.prompt.stratum == stratum
                    && drawing.model == model
                    && model.is_of_pair(drawing.dose)
            };
            self.seen_of(keep)
                .filter(|(drawing, _, _, _)| {
                    given.is_none() || drawing.prompt.given.as_deref() == given
                })
                .map(|(drawing, seed_idx, seen, i)| {
                    ((drawing.prompt.id.clone(), seed_idx), seen.looked.embeddings[i].clone())
                })
                .collect()
        };
        let (base, mut adapted) = (of(Model::Base), of(Model::Adapted));
        let mut lengths: BTreeMap<String, usize> = BTreeMap::new();
        let mut pairs = Pairs::default();
        for (key, before) in base {
            if let Some(after) = adapted.remove(&key) {
                *lengths.entry(key.0).or_default() += 1;
                pairs.base.push(before);
                pairs.adapted.push(after);
            }
        }
        pairs.lengths = lengths.into_values().collect();
        pairs
    }

    /// What an evaluator of another family says of the same pictures.
    pub(super) fn agreement(
        &self,
        extent: Extent,
    ) -> Result<Result<AgreementRecord, String>, EvalError> {
        let second = match self.second() {
            Ok(second) => second,
            Err(reason) => return Ok(Err(reason)),
        };
        let rows = self.judged_rows(extent.judged.max(JUDGED));
        let said = second.said(&self.pictures_of(&rows)?)?;
        Ok(Ok(AgreementRecord {
            evaluator: second.name().to_owned(),
            sha256: second.sha256(),
            facets: self.agree(&rows, &said),
        }))
    }

    /// Unasked pictures that were kept, equal seeds of both models one after the other.
    fn judged_rows(&self, most: usize) -> Vec<&Row> {
        let whole = |row: &&Row| {
            row.stratum.is_headline() && row.picture.is_some() && row.model.is_of_pair(row.dose)
        };
        // Seed by seed, so that every prompt has its share.
        let mut pairs: BTreeMap<(u32, &str), Vec<&Row>> = BTreeMap::new();
        for row in self.rows.rows.iter().filter(whole) {
            pairs.entry((row.seed_idx, row.prompt.as_str())).or_default().push(row);
        }
        let mut rows: Vec<&Row> = Vec::new();
        for mut pair in pairs.into_values().filter(|pair| pair.len() == 2).take(most) {
            pair.sort_by_key(|row| row.model);
            rows.extend(pair);
        }
        rows
    }

    pub(super) fn pictures_of(&self, rows: &[&Row]) -> Result<Vec<RgbImage>, EvalError> {
        let open = |row: &&Row| {
            let path = row.picture.clone().unwrap_or_default();
            let bytes = checkpoints::fs::read(&self.job.run.join("census").join(&path))?;
            image::load_from_memory(&bytes)
                .map(|picture| picture.to_rgb8())
                .map_err(|source| EvalError::Picture { path, source })
        };
        rows.iter().map(open).collect()
    }

    /// Compares labels of rows with what another said, facet by facet.
    fn agree(&self, rows: &[&Row], said: &[Vec<String>]) -> Vec<FacetAgreement> {
        let facets = self.rows.facets.iter().enumerate();
        facets
            .filter_map(|(f, facet)| {
                let mut names: Vec<String> = Vec::new();
                let mut place = |name: &str| -> u16 {
                    let at = names.iter().position(|other| other == name).unwrap_or_else(|| {
                        names.push(name.to_owned());
                        names.len() - 1
                    });
                    u16::try_from(at).unwrap_or(u16::MAX)
                };
                // The concept is the detector's to find, and no second evaluator knows it.
                // A second evaluator has no verified pictures to set a threshold of "none" by.
                let known = |row: &Row| {
                    let entity = &row.labels[f].entity;
                    *entity != self.plan.concept.id && entity != NONE
                };
                let both: Vec<(Model, u16, u16)> = rows
                    .iter()
                    .zip(said)
                    .filter(|(row, _)| known(row))
                    .map(|(row, said)| (row.model, place(&row.labels[f].entity), place(&said[f])))
                    .collect();
                let of_base = || both.iter().filter(|(model, _, _)| *model == Model::Base);
                let first: Vec<u16> = of_base().map(|(_, a, _)| *a).collect();
                let second: Vec<u16> = of_base().map(|(_, _, b)| *b).collect();
                let change = |judge: usize, entity: u16| {
                    let share = |wanted: Model| {
                        let of = || both.iter().filter(move |(model, _, _)| *model == wanted);
                        let bears = of().filter(|(_, a, b)| [*a, *b][judge] == entity).count();
                        real(bears) / real(of().count().max(1))
                    };
                    share(Model::Adapted) - share(Model::Base)
                };
                let entities = 0..u16::try_from(names.len()).unwrap_or(0);
                let changes: Vec<[f64; 2]> =
                    entities.map(|e| [change(0, e), change(1, e)]).collect();
                let column = |judge: usize| -> Vec<f64> {
                    changes.iter().map(|change| change[judge]).collect()
                };
                Some(FacetAgreement {
                    facet: facet.clone(),
                    kappa: cohen_kappa(&first, &second)?,
                    same_sign: same_sign(&column(0), &column(1))?,
                    pictures: u64::try_from(both.len()).unwrap_or(u64::MAX),
                })
            })
            .collect()
    }
}

/// Embeddings by both models, prompt after prompt.
#[derive(Default)]
struct Pairs {
    lengths: Vec<usize>,
    base: Vec<Vec<f32>>,
    adapted: Vec<Vec<f32>>,
}
