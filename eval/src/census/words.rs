//! Words against pictures, from the cosines in the rows.

use super::CensusInput;
use super::len;
use super::pairs::{Drawn, Pictures, PromptPairs};
use crate::error::EvalError;
use crate::panel::Stratum;
use crate::record::{AskedRecord, Refusal, SimilarityRecord, SimilarityShift};
use crate::similarity::{self, CosineBlock, LEAST_PICTURES, Shift};
use statistics::interval::{CiKind, Estimate};

fn block(pairs: &PromptPairs<'_>) -> CosineBlock {
    CosineBlock {
        weight: pairs.weight,
        base: pairs.base.iter().map(|row| row.cosines.clone()).collect(),
        adapted: pairs.other.iter().map(|row| row.cosines.clone()).collect(),
    }
}

fn shifts(shift: &Shift) -> Vec<SimilarityShift> {
    (0..shift.delta.len())
        .map(|e| SimilarityShift {
            before: shift.before[e],
            after: shift.after[e],
            delta: Estimate::with(shift.delta[e], shift.intervals[e], CiKind::MaxT),
        })
        .collect()
}

/// All similarity figures.
pub(super) fn similarity(
    input: &CensusInput,
    pictures: &Pictures<'_>,
    refused: &mut Vec<Refusal>,
) -> Result<SimilarityRecord, EvalError> {
    let mut refuse = |what: &str, reason: &str| {
        refused.push(Refusal { what: what.to_owned(), reason: reason.to_owned() });
    };
    let headline = pictures.headline(&input.panel, Drawn::ADAPTED)?;
    let blocks: Vec<CosineBlock> = headline.iter().map(block).collect();
    let unasked = shifts(&similarity::unasked(&blocks, input.resampler()));
    let asked_pairs = by_entity(input, pictures)?;
    if asked_pairs.is_empty() {
        refuse("asked similarity and CLIP-T", "nothing was asked by name");
    }
    let asked = asked(input, &asked_pairs);
    if asked.as_ref().is_some_and(|asked| asked.delta_ci.is_none()) {
        refuse(
            "intervals of the asked similarity",
            &format!("at least {LEAST_PICTURES} pictures per asked entity are needed"),
        );
    }
    let clip_i = clip_i(input, pictures)?;
    if clip_i.is_none() {
        refuse("CLIP-I", "no pictures asked by the identifier were compared with references");
    }
    Ok(SimilarityRecord {
        entities: input.rows.entities.clone(),
        unasked,
        clip_t: clip_t(input, &asked_pairs),
        asked,
        clip_i,
    })
}

/// One block per entity asked by name, in thesaurus order; its prompts are put end to end.
fn by_entity(
    input: &CensusInput,
    pictures: &Pictures<'_>,
) -> Result<Vec<(usize, CosineBlock)>, EvalError> {
    let prompts = pictures.pairs(Stratum::Asked, Drawn::ADAPTED)?;
    let mut blocks = Vec::new();
    for (e, id) in input.rows.entities.iter().enumerate() {
        let mut joined = CosineBlock { weight: 1.0, base: Vec::new(), adapted: Vec::new() };
        for pairs in prompts.iter().filter(|pairs| pairs.asked == Some(id)) {
            let CosineBlock { base, adapted, .. } = block(pairs);
            joined.base.extend(base);
            joined.adapted.extend(adapted);
        }
        if !joined.base.is_empty() {
            blocks.push((e, joined));
        }
    }
    Ok(blocks)
}

fn asked(input: &CensusInput, pairs: &[(usize, CosineBlock)]) -> Option<AskedRecord> {
    if pairs.is_empty() {
        return None;
    }
    let blocks: Vec<CosineBlock> = pairs.iter().map(|(_, block)| block.clone()).collect();
    let matrix = similarity::asked(&blocks, input.resampler());
    Some(AskedRecord {
        asked: pairs.iter().map(|(e, _)| input.rows.entities[*e].clone()).collect(),
        pictures: blocks.iter().map(|block| len(block.base.len())).collect(),
        before: matrix.before,
        after: matrix.after,
        delta: matrix.delta,
        delta_ci: matrix.intervals,
        centered: matrix.centered,
        centered_ci: matrix.centered_intervals,
    })
}

/// Mean over asked entities of the mean cosine of their pictures with their own words.
fn clip_t(input: &CensusInput, pairs: &[(usize, CosineBlock)]) -> Option<SimilarityShift> {
    let weight = 1.0 / statistics::number::real(pairs.len().max(1));
    let own = |rows: &[Vec<f32>], e: usize| rows.iter().map(|row| vec![row[e]]).collect();
    let blocks: Vec<CosineBlock> = pairs
        .iter()
        .map(|(e, block)| CosineBlock {
            weight,
            base: own(&block.base, *e),
            adapted: own(&block.adapted, *e),
        })
        .collect();
    (!blocks.is_empty())
        .then(|| shifts(&similarity::unasked(&blocks, input.resampler())))
        .and_then(|shifts| shifts.first().copied())
}

/// Mean cosine of pictures asked by the identifier with the reference pictures.
fn clip_i(
    input: &CensusInput,
    pictures: &Pictures<'_>,
) -> Result<Option<SimilarityShift>, EvalError> {
    let prompts = pictures.pooled(Stratum::Identifier, Drawn::ADAPTED)?;
    let blocks: Option<Vec<CosineBlock>> = prompts
        .iter()
        .map(|pairs| {
            let read = |rows: &[&crate::rows::Row]| {
                rows.iter().map(|row| row.clip_i.map(|cosine| vec![cosine])).collect()
            };
            let (base, adapted): (Option<Vec<_>>, Option<Vec<_>>) =
                (read(&pairs.base), read(&pairs.other));
            Some(CosineBlock { weight: pairs.weight, base: base?, adapted: adapted? })
        })
        .collect();
    Ok(blocks
        .filter(|blocks| !blocks.is_empty())
        .map(|blocks| shifts(&similarity::unasked(&blocks, input.resampler())))
        .and_then(|shifts| shifts.first().copied()))
}
