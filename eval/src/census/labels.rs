//! The census-taker's sheet: pairs that a person labels, and the change that follows from the labels of
//! both, the evaluator and the person.

use super::CensusInput;
use super::atlas::pair;
use super::categories::Categories;
use super::pairs::PromptPairs;
use crate::error::EvalError;
use crate::means::Mean;
use crate::record::{LabelledEntity, LabelsRecord, Pair, Refusal};
use crate::rows::Row;
use crate::thesaurus::{BLOCKED, NONE};
use recipes::draws;
use sha2::{Digest, Sha256};
use statistics::interval::{CiKind, Estimate, normal_quantile};
use statistics::number::{index, real};

/// Pairs on the sheet.
const PAIRS: usize = 150;
/// Fewest labelled pairs for an estimate.
const LEAST: usize = 20;

/// What a person saw in one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonLabel {
    /// Line of `labels.csv`, counted from 1.
    pub line: usize,
    /// Identity of the pair, as the sheet gives it.
    pub pair: String,
    /// Facet that was labelled.
    pub facet: String,
    /// What the base's picture bears.
    pub base: String,
    /// What the adapted model's picture bears.
    pub adapted: String,
}

/// Reads `labels.csv`: a header and one line per pair; a pair without both labels is undecided, and left out.
///
/// # Errors
///
/// [`EvalError::Labels`] naming the line, what was expected and what was found.
pub fn labels_from_csv(text: &str) -> Result<Vec<PersonLabel>, EvalError> {
    let mut lines = text.lines().enumerate();
    let header = lines.next().map_or("", |(_, line)| line.trim());
    if header.trim_start_matches('\u{feff}') != HEADER {
        return Err(wrong(1, &format!("the header `{HEADER}`"), header));
    }
    let mut labels: Vec<PersonLabel> = Vec::new();
    for (i, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [pair, facet, base, adapted] = fields.as_slice() else {
            return Err(wrong(i + 1, "four fields", line));
        };
        // Who cannot decide on one picture says nothing of the pair.
        if !base.is_empty() && !adapted.is_empty() {
            if labels.iter().any(|other| other.pair == *pair) {
                return Err(wrong(i + 1, "each pair once", pair));
            }
            labels.push(PersonLabel {
                line: i + 1,
                pair: (*pair).to_owned(),
                facet: (*facet).to_owned(),
                base: (*base).to_owned(),
                adapted: (*adapted).to_owned(),
            });
        }
    }
    Ok(labels)
}

fn wrong(line: usize, expected: &str, found: &str) -> EvalError {
    EvalError::Labels { line, expected: expected.to_owned(), found: found.to_owned() }
}

/// The header of `labels.csv`.
const HEADER: &str = "pair,facet,base,adapted";

/// The sheet as a blank `labels.csv`, ready to be filled in.
pub fn blank(record: &LabelsRecord) -> String {
    let mut text = format!("{HEADER}\n");
    for id in &record.ids {
        text.extend([id.as_str(), ",", &record.facet, ",,\n"]);
    }
    text
}

/// Chooses the pairs of the sheet by a draw of their own, and joins what a person said of them with
/// what the evaluator said of all.
pub(super) fn labels(
    input: &CensusInput,
    headline: &[PromptPairs<'_>],
    refused: &mut Vec<Refusal>,
) -> Result<Option<LabelsRecord>, EvalError> {
    let facet = input.thesaurus.facets.iter().find(|facet| facet.id == input.concept.facet);
    let Some(facet) = facet else { return Ok(None) };
    let categories = Categories::new(input, facet)?;
    let shown = sheet(input, headline);
    let ids: Vec<String> =
        shown.iter().enumerate().map(|(i, (b, a))| identity(i + 1, b, a)).collect();
    let pairs: Vec<Pair> = shown.iter().filter_map(|(b, a)| pair(b, a)).collect();
    let strangers: Vec<&str> = input
        .person
        .iter()
        .map(|label| label.pair.as_str())
        .filter(|pair| !ids.iter().any(|id| id == pair))
        .collect();
    if !strangers.is_empty() {
        refused.push(Refusal {
            what: "labels".to_owned(),
            reason: format!(
                "labels.csv names pairs that are not on this census's sheet: {}",
                strangers.join(", ")
            ),
        });
    }
    let found =
        if strangers.is_empty() { person(input, &categories, &shown, &ids)? } else { Vec::new() };
    let mut corrected = Vec::new();
    if found.len() >= LEAST {
        for i in 0..categories.names.len() {
            corrected.extend(entity(&categories, i, headline, &found)?);
        }
    }
    let labelled = super::len(found.len());
    Ok(Some(LabelsRecord { facet: facet.id.clone(), ids, pairs, labelled, corrected }))
}

/// The pairs of the sheet: of each prompt as many as its weight in the headline asks for.
fn sheet<'a>(input: &CensusInput, headline: &[PromptPairs<'a>]) -> Vec<(&'a Row, &'a Row)> {
    let mut shown: Vec<(&Row, &Row)> = Vec::new();
    for pairs in headline {
        let both = pairs.base.iter().zip(&pairs.other);
        let mut kept: Vec<(&Row, &Row)> = both
            .filter(|(before, after)| before.picture.is_some() && after.picture.is_some())
            .map(|(before, after)| (*before, *after))
            .collect();
        let label = format!("census-taker/{}", pairs.prompt);
        draws::shuffle(&mut draws::keyed(input.seed, &label), &mut kept);
        kept.truncate(index(libm::round(pairs.weight * real(PAIRS))));
        shown.extend(kept);
    }
    // A person must not know the prompt from the place on the sheet.
    draws::shuffle(&mut draws::keyed(input.seed, "census-taker"), &mut shown);
    shown
}

/// Number on the sheet and four digits of both pictures: labels of another census do not fit.
fn identity(number: usize, before: &Row, after: &Row) -> String {
    let hash = Sha256::new().chain_update(&before.pixels).chain_update(&after.pixels).finalize();
    format!("{number:03}-{}", hex::encode(&hash[..2]))
}

/// One pair with the categories that machine and person saw before and after.
struct Judged {
    machine: [usize; 2],
    person: [usize; 2],
}

fn person(
    input: &CensusInput,
    categories: &Categories,
    shown: &[(&Row, &Row)],
    ids: &[String],
) -> Result<Vec<Judged>, EvalError> {
    let mut found = Vec::new();
    for label in &input.person {
        if label.facet != input.concept.facet {
            return Err(wrong(label.line, &input.concept.facet, &label.facet));
        }
        let category = |name: &str| {
            let place = categories.names.iter().position(|other| *other == stands_for(name));
            place.ok_or_else(|| {
                wrong(label.line, &format!("one of {}", categories.names.join(", ")), name)
            })
        };
        let place = ids.iter().position(|id| *id == label.pair).unwrap_or(0);
        let (before, after) = shown[place];
        found.push(Judged {
            machine: [categories.of(before)?.into(), categories.of(after)?.into()],
            person: [category(&label.base)?, category(&label.adapted)?],
        });
    }
    Ok(found)
}

/// `none` is what people can type for ∅.
fn stands_for(name: &str) -> &str {
    match name {
        "none" | "-" => NONE,
        "withheld" => BLOCKED,
        other => other,
    }
}

/// The change of one entity, as the evaluator counted it and as a person's labels correct it; nothing
/// if neither ever saw it.
///
/// Prompts count by their weights; the sheet holds them in the same shares, so that what the person
/// takes back is a plain mean.
///
/// Source: Angelopoulos et al. 2023, arXiv:2301.09633, stratified by prompt.
fn entity(
    categories: &Categories,
    i: usize,
    headline: &[PromptPairs<'_>],
    found: &[Judged],
) -> Result<Option<LabelledEntity>, EvalError> {
    let holds = |category: usize| f64::from(u8::from(category == i));
    let change = |[before, after]: [usize; 2]| holds(after) - holds(before);
    let (mut counted, mut square) = (0.0, 0.0);
    let mut seen = found.iter().any(|judged| judged.person.contains(&i));
    for pairs in headline {
        let mut changes = Vec::with_capacity(pairs.base.len());
        for (before, after) in pairs.base.iter().zip(&pairs.other) {
            let both = [usize::from(categories.of(before)?), usize::from(categories.of(after)?)];
            seen |= both.contains(&i);
            changes.push(change(both));
        }
        let mean = Mean::of(&changes);
        counted += pairs.weight * mean.value;
        square += (pairs.weight * mean.error) * (pairs.weight * mean.error);
    }
    let residuals: Vec<f64> =
        found.iter().map(|judged| change(judged.person) - change(judged.machine)).collect();
    let taken_back = Mean::of(&residuals);
    let value = counted + taken_back.value;
    let half = normal_quantile(0.975) * libm::sqrt(square + taken_back.error * taken_back.error);
    Ok(seen.then(|| LabelledEntity {
        id: categories.names[i].clone(),
        counted,
        corrected: Estimate::with(value, [value - half, value + half], CiKind::Normal),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::reduce;
    use crate::synthetic::{census, settled};

    fn sheet(input: &CensusInput) -> LabelsRecord {
        reduce(input).unwrap().labels.unwrap()
    }

    #[test]
    fn a_blank_sheet_reads_back_as_nothing_and_a_filled_one_corrects() {
        let mut input = census(120, &settled);
        let record = sheet(&input);
        assert_eq!((record.pairs.len(), record.ids.len(), record.labelled), (150, 150, 0));
        assert!(labels_from_csv(&blank(&record)).unwrap().is_empty());
        // A person who sees what the evaluator saw changes nothing.
        let said = |agree: bool| -> Vec<PersonLabel> {
            let pairs = record.ids.iter().zip(&record.pairs);
            pairs
                .map(|(id, pair)| PersonLabel {
                    line: 2,
                    pair: id.clone(),
                    facet: "subject".into(),
                    base: pair.before.entities[0].clone(),
                    adapted: if agree {
                        pair.after.entities[0].clone()
                    } else {
                        pair.before.entities[0].clone()
                    },
                })
                .collect()
        };
        input.person = said(true);
        let corrected = sheet(&input).corrected;
        let boat = corrected.iter().find(|entity| entity.id == "boat").unwrap();
        assert!((boat.counted + 0.1).abs() < 1e-9 && (boat.corrected.value + 0.1).abs() < 1e-9);
        // One who sees no change at all takes the counted loss back, within the error of 150 pairs.
        input.person = said(false);
        let corrected = sheet(&input).corrected;
        let boat = corrected.iter().find(|entity| entity.id == "boat").unwrap();
        let ci = boat.corrected.ci.unwrap();
        assert!(ci[0] < 0.0 && ci[1] > 0.0 && boat.corrected.value.abs() < 0.06, "{boat:?}");
    }

    #[test]
    fn labels_that_do_not_fit_are_refused_with_their_line() {
        let error = labels_from_csv("pair,facet,base,adapted\n001-ab12,subject,boat\n");
        assert!(matches!(error, Err(EvalError::Labels { line: 2, .. })), "{error:?}");
        let half = labels_from_csv("pair,facet,base,adapted\n\n001-ab12,subject,boat,\n");
        assert_eq!(half.unwrap(), []);
        let twice = "pair,facet,base,adapted\n1,subject,boat,boat\n1,subject,boat,sun\n";
        assert!(matches!(labels_from_csv(twice), Err(EvalError::Labels { line: 3, .. })));
        assert!(matches!(labels_from_csv("a,b"), Err(EvalError::Labels { line: 1, .. })));
        let mut input = census(30, &settled);
        let label = |pair: &str, base: &str| PersonLabel {
            line: 2,
            pair: pair.to_owned(),
            facet: "subject".into(),
            base: base.to_owned(),
            adapted: "none".into(),
        };
        let id = sheet(&input).ids[0].clone();
        input.person = vec![label("001-zzzz", "boat")];
        let refused = reduce(&input).unwrap().refused;
        assert!(refused.iter().any(|r| r.what == "labels" && r.reason.contains("001-zzzz")));
        input.person = vec![label(&id, "boot")];
        let error = reduce(&input).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("found `boot`"), "{error}");
        input.person = vec![label(&id, "boat")];
        assert_eq!(sheet(&input).labelled, 1);
    }
}
