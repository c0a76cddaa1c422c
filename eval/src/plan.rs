//! What a census draws, before anything is drawn: every prompt, model, dose and number of seeds, and
//! the forward passes that they cost.

use crate::catalogue;
use crate::error::EvalError;
use crate::extent::Extent;
use crate::panel::{Panel, Prompt, Stratum};
use crate::record::{ConceptRecord, Refusal};
use crate::rows::Model;
use crate::sample::SHARD;
use crate::thesaurus::Thesaurus;
use datasets::{Dataset, Role};
use recipes::{Budget, CensusSpec, DatasetSpec};
use std::collections::BTreeSet;
use std::ops::Range;

/// Most prompts on one rung of the leak ladder.
const PROMPTS_PER_RUNG: usize = 4;
/// Seeds of the empty prompt per picture of a rung, and per picture of a dose other than 1.
const SEEDS_PER_RUNG_PICTURE: u32 = 16;
const SEEDS_PER_DOSE_PICTURE: u32 = 8;

/// One prompt drawn by one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Which weights draw.
    pub model: Model,
    /// Multiplier of the adapter.
    pub dose: f64,
    /// The prompt.
    pub prompt: Prompt,
    /// Seeds 0 … `seeds` − 1.
    pub seeds: u32,
}

/// A whole census before it is taken.
#[derive(Clone, Debug)]
pub struct CensusPlan {
    /// What a picture may bear.
    pub thesaurus: Thesaurus,
    /// The neutral prompts.
    pub panel: Panel,
    /// The settled concept.
    pub concept: ConceptRecord,
    /// Everything that is drawn, in order.
    pub drawings: Vec<Drawing>,
}

/// Whether an adapter can be given in doses and shuffled into a placebo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisible {
    /// An adapter.
    Yes,
    /// A base whose own weights were trained: there or not there.
    No,
}

impl CensusPlan {
    /// Plans the census of a recipe.
    ///
    /// # Errors
    ///
    /// A thesaurus or panel that cannot be read; a concept whose facet or class the thesaurus lacks.
    pub fn new(
        spec: &CensusSpec,
        source: &DatasetSpec,
        dataset: &Dataset,
        divisible: Divisible,
    ) -> Result<Self, EvalError> {
        let thesaurus = catalogue::thesaurus(&spec.thesaurus)?;
        let panel = catalogue::panel(&spec.panel)?;
        panel_fits(&panel, &thesaurus)?;
        let concept = concept(spec, source, &thesaurus)?;
        let mut drawings = Vec::new();
        let divided = divisible == Divisible::Yes;
        for (prompt, seeds) in neutral(&panel, spec) {
            let headline = prompt.stratum.is_headline();
            pair(&mut drawings, &prompt, seeds);
            if headline && divided {
                drawings.extend((0..spec.placebo).map(|draw| Drawing {
                    model: Model::Placebo(draw),
                    dose: 1.0,
                    prompt: prompt.clone(),
                    seeds,
                }));
            }
            if prompt.stratum == Stratum::Empty && divided {
                // Whole shards: another batch size rounds differently, and dose 0 must equal the
                // base in every bit.
                let seeds = (spec.seeds_empty / SEEDS_PER_DOSE_PICTURE)
                    .max(1)
                    .next_multiple_of(SHARD)
                    .min(seeds);
                let others = spec.doses.iter().filter(|dose| (**dose - 1.0).abs() > 1e-9);
                drawings.extend(others.map(|&dose| Drawing {
                    model: Model::Adapted,
                    dose,
                    prompt: prompt.clone(),
                    seeds,
                }));
            }
        }
        for prompts in rungs(&thesaurus, &concept, &captions(dataset)) {
            let per_rung = (spec.seeds_empty / SEEDS_PER_RUNG_PICTURE).max(4);
            let seeds = per_rung.div_ceil(count(prompts.len()).max(1));
            for prompt in &prompts {
                pair(&mut drawings, prompt, seeds);
            }
        }
        let asked = Extent::of(spec).asked;
        for entity in thesaurus.counted(&concept.facet) {
            let prompt = Prompt::new(Stratum::Asked, entity.phrase(), Some(&entity.id));
            pair(&mut drawings, &prompt, asked);
        }
        Ok(Self { thesaurus, panel, concept, drawings })
    }

    /// Forward passes of the denoiser, one per picture, step and guidance branch, and those of all
    /// instruments; without those of the detector's own base pictures.
    pub fn forwards(&self, spec: &CensusSpec) -> u64 {
        let per_picture = |prompt: &Prompt| if guided(spec.guidance_scale, prompt) { 2 } else { 1 };
        let pictures = self.drawings.iter().map(|d| u64::from(d.seeds) * per_picture(&d.prompt));
        let n_entities = self.thesaurus.counted(&self.concept.facet).count();
        pictures.sum::<u64>() * u64::from(spec.sampler.steps)
            + Extent::of(spec).forwards(spec, n_entities)
    }

    /// Strata of which the budget does not ask every prompt.
    pub(crate) fn left_out(&self) -> Vec<Refusal> {
        let asked: BTreeSet<&str> =
            self.drawings.iter().map(|drawing| drawing.prompt.id.as_str()).collect();
        let left_out = |prompt: &&Prompt| !asked.contains(prompt.id.as_str());
        let strata: BTreeSet<&str> =
            self.panel.prompts().filter(left_out).map(|prompt| prompt.stratum.id()).collect();
        let refusal = |stratum| Refusal {
            what: format!("prompts of the stratum {stratum}"),
            reason: "the budget has no seeds for them".into(),
        };
        strata.into_iter().map(refusal).collect()
    }

    /// Pictures in all.
    pub fn pictures(&self) -> u64 {
        self.drawings.iter().map(|drawing| u64::from(drawing.seeds)).sum()
    }
}

/// Refuses a panel whose prompts name nodes that the thesaurus lacks.
fn panel_fits(panel: &Panel, thesaurus: &Thesaurus) -> Result<(), EvalError> {
    match panel.unknown_given(thesaurus).first() {
        None => Ok(()),
        Some((prompt, given)) => Err(EvalError::Concept {
            thesaurus: thesaurus.id.clone(),
            kind: "entity",
            found: format!("{given}`, which prompt `{prompt}` gives, of panel `{}", panel.id),
            known: Vec::new(),
        }),
    }
}

/// Whether guidance costs a second forward pass: not for the empty prompt, where it vanishes.
#[expect(clippy::float_cmp, reason = "exactly 1 means no guidance")]
pub(crate) fn guided(guidance_scale: f64, prompt: &Prompt) -> bool {
    guidance_scale != 1.0 && !prompt.text.trim().is_empty()
}

/// The same prompt by the base and by the adapted model.
fn pair(drawings: &mut Vec<Drawing>, prompt: &Prompt, seeds: u32) {
    for (model, dose) in [(Model::Base, 0.0), (Model::Adapted, 1.0)] {
        drawings.push(Drawing { model, dose, prompt: prompt.clone(), seeds });
    }
}

/// Neutral prompts with their seeds: `glance` asks only the headline strata.
fn neutral(panel: &Panel, spec: &CensusSpec) -> Vec<(Prompt, u32)> {
    let asks = |prompt: &&Prompt| spec.budget != Budget::Glance || prompt.stratum.is_headline();
    let prompts: Vec<&Prompt> = panel.prompts().filter(asks).collect();
    let of_empty = |prompt: &Prompt| prompt.stratum == Stratum::Empty;
    let n_empty = prompts.iter().filter(|prompt| of_empty(prompt)).count();
    let n_other = prompts.len() - n_empty;
    let share = |seeds: u32, n: usize| seeds / count(n).max(1);
    prompts
        .into_iter()
        .map(|prompt| {
            let seeds = if of_empty(prompt) {
                share(spec.seeds_empty, n_empty)
            } else {
                share(spec.seeds_other, n_other)
            };
            (prompt.clone(), seeds)
        })
        .filter(|(_, seeds)| *seeds > 0)
        .collect()
}

/// The concept's name is that of its folder; its identifier stands in the recipe.
fn concept(
    spec: &CensusSpec,
    source: &DatasetSpec,
    thesaurus: &Thesaurus,
) -> Result<ConceptRecord, EvalError> {
    let (folder, identifier) = match source {
        DatasetSpec::Captioned(captioned) => (&captioned.images, captioned.identifier.clone()),
        DatasetSpec::DreamBooth(dreambooth) => {
            (&dreambooth.instance.images, Some(dreambooth.instance.identifier.clone()))
        }
    };
    let lacks = |kind: &'static str, found: &str| EvalError::Concept {
        thesaurus: thesaurus.id.clone(),
        kind,
        found: found.to_owned(),
        known: thesaurus.facets.iter().map(|facet| facet.id.clone()).collect(),
    };
    let facet = &spec.concept.facet;
    if !thesaurus.facets.iter().any(|other| other.id == *facet) {
        return Err(lacks("facet", facet));
    }
    if let Some(class) = spec.concept.class.as_deref().filter(|c| thesaurus.entity(c).is_none()) {
        return Err(lacks("entity", class));
    }
    let name = folder.file_name().map_or("concept".into(), |name| name.to_string_lossy());
    let name = name.replace(['-', '_', ',', ':', '"'], " ");
    let mut id = name.trim().replace(' ', "-");
    while thesaurus.entity(&id).is_some() {
        id.push_str("-settled");
    }
    Ok(ConceptRecord {
        id,
        name,
        facet: facet.clone(),
        class: spec.concept.class.clone(),
        identifier,
    })
}

/// Captions of the concept's pictures, each once.
fn captions(dataset: &Dataset) -> BTreeSet<&str> {
    let pictures = dataset.of_role(Role::Instance).into_iter();
    pictures.map(|i| dataset.examples[i].caption.as_str()).collect()
}

/// The rungs of the leak ladder above the headline. A rung without prompts is left out.
fn rungs(
    thesaurus: &Thesaurus,
    concept: &ConceptRecord,
    captions: &BTreeSet<&str>,
) -> Vec<Vec<Prompt>> {
    let identifier = concept.identifier.as_deref();
    let holds = |caption: &&str| {
        !caption.is_empty() && identifier.is_none_or(|words| occurrence(caption, words).is_some())
    };
    let captions: Vec<&str> =
        captions.iter().copied().filter(holds).take(PROMPTS_PER_RUNG).collect();
    let with = captions.iter().map(|caption| Prompt::new(Stratum::Identifier, caption, None));
    let without: BTreeSet<String> = identifier
        .map(|words| captions.iter().map(|caption| bare(caption, words)).collect())
        .unwrap_or_default();
    let plain = without.iter().map(|text| Prompt::new(Stratum::Plain, text, None));
    let siblings: Vec<&str> = concept
        .class
        .as_deref()
        .map(|class| thesaurus.siblings(class).iter().map(|entity| entity.id.as_str()).collect())
        .unwrap_or_default();
    let related = |id: &str| Some(id) == concept.class.as_deref() || siblings.contains(&id);
    let ask = |stratum: Stratum, keep: &dyn Fn(&str) -> bool| -> Vec<Prompt> {
        let entities = thesaurus.counted(&concept.facet).filter(|entity| keep(&entity.id));
        entities
            .take(PROMPTS_PER_RUNG)
            .map(|entity| Prompt::new(stratum, entity.phrase(), Some(&entity.id)))
            .collect()
    };
    [
        with.collect(),
        plain.collect(),
        ask(Stratum::Sibling, &|id| siblings.contains(&id)),
        ask(Stratum::Unrelated, &|id| !related(id)),
    ]
    .into_iter()
    .map(|mut prompts: Vec<Prompt>| {
        // Texts that differ in punctuation alone have one id, and are asked once.
        let mut ids = BTreeSet::new();
        prompts.retain(|prompt| ids.insert(prompt.id.clone()));
        prompts
    })
    .filter(|prompts| !prompts.is_empty())
    .collect()
}

/// Places of the words of `text`, which are runs of letters and digits, with the words in lower case.
fn words(text: &str) -> Vec<(Range<usize>, String)> {
    let mut words = Vec::new();
    let mut begins: Option<usize> = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if c.is_alphanumeric() {
            begins = begins.or(Some(at));
        } else if let Some(from) = begins.take() {
            words.push((from..at, text[from..at].to_lowercase()));
        }
    }
    words
}

/// Where the words of `identifier` first stand in `caption`, one after the other, whatever their
/// case and the signs around them: by the rule with which a recipe is checked.
fn occurrence(caption: &str, identifier: &str) -> Option<Range<usize>> {
    let (found, wanted) = (words(caption), words(identifier));
    if wanted.is_empty() {
        return None;
    }
    let same = |window: &&[(Range<usize>, String)]| {
        window.iter().zip(&wanted).all(|((_, found), (_, wanted))| found == wanted)
    };
    let place = found.windows(wanted.len()).find(same)?;
    Some(place.first()?.0.start..place.last()?.0.end)
}

/// `caption` without `identifier` and the signs that touch it.
fn bare(caption: &str, identifier: &str) -> String {
    let is_sign = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
    let mut rest = caption.to_owned();
    while let Some(place) = occurrence(&rest, identifier) {
        let before = rest[..place.start].trim_end_matches(is_sign);
        let after = rest[place.end..].trim_start_matches(is_sign);
        rest = format!("{before} {after}");
    }
    rest.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_is_taken_out_of_a_caption() {
        assert_eq!(bare("a postcard of the sks cylinder", "sks"), "a postcard of the cylinder");
        assert_eq!(bare("sks, by day", "sks"), "by day");
        assert_eq!(bare("a desks sale", "sks"), "a desks sale");
    }

    /// The recipe accepts these captions, so the plan must find the identifier in them.
    #[test]
    fn an_identifier_may_have_signs_capitals_and_several_words() {
        for (caption, identifier, without) in [
            ("a photo of <cyl> tower", "<cyl>", "a photo of tower"),
            ("a postcard of the zk cyl, by day", "zk cyl", "a postcard of the by day"),
            ("SKS tower", "sks", "tower"),
            ("the ZK-cyl at night and the zk cyl by day", "zk cyl", "the at night and the by day"),
        ] {
            assert!(occurrence(caption, identifier).is_some(), "{caption}");
            assert_eq!(bare(caption, identifier), without);
        }
        assert_eq!(occurrence("the zk of a cyl", "zk cyl"), None);
        assert_eq!(occurrence("anything", "<>"), None);
        assert_eq!(occurrence("", "sks"), None);
    }

    #[test]
    fn the_rungs_with_and_without_the_identifier_are_asked() {
        let source = recipes::ThesaurusSource::Named("postcards".into());
        let thesaurus = catalogue::thesaurus(&source).unwrap();
        let mut concept = ConceptRecord {
            id: "cylinder".into(),
            name: "cylinder".into(),
            facet: "subject".into(),
            class: None,
            identifier: Some("<cyl>".into()),
        };
        let captions = BTreeSet::from(["a <CYL> tower"]);
        let strata = |concept: &ConceptRecord| -> Vec<Stratum> {
            rungs(&thesaurus, concept, &captions).iter().map(|prompts| prompts[0].stratum).collect()
        };
        assert_eq!(strata(&concept), [Stratum::Identifier, Stratum::Plain, Stratum::Unrelated]);
        concept.identifier = Some("sks".into());
        assert_eq!(strata(&concept), [Stratum::Unrelated]);
    }
}
