//! All figures of one facet.

mod spread;

use super::categories::Categories;
use super::pairs::{Drawn, Pictures, PromptPairs, count};
use super::{CensusInput, calibration, corrected};
use crate::error::EvalError;
use crate::panel::Stratum;
use crate::record::{BeforeAfter, EntityRecord, FacetRecord, Refusal, StratumRecord, Verdict};
use crate::thesaurus::{BLOCKED, Facet, NONE};
use spread::{DILUTION, DISPLACED, ENTITIES, SELECTION, Spread, TV};
use statistics::contingency::{PairedLabels, Shares, disagreement, total_variation};
use statistics::depopulation::{self, smoothed};
use statistics::diversity::{chao_shen, good_turing, miller_madow, plug_in_entropy};
use statistics::interval::{
    CiKind, Replicate, SignFlip, benjamini_hochberg, bhapkar, max_t, max_t_by_spread, mcnemar,
    never_seen, sign_flip, stuart_maxwell,
};
use statistics::number::{real, real_u64};

/// One facet's categories and paired labels, and all that is computed once from them.
pub(super) struct Analysis<'a> {
    input: &'a CensusInput,
    sorted: Categories,
    pub(super) categories: Vec<String>,
    pub(super) new: Option<usize>,
    residents: Vec<bool>,
    table: Vec<Vec<u64>>,
    pub(super) seen: Vec<bool>,
    n: f64,
    pools: Vec<(f64, usize)>,
    shares: Shares,
    pub(super) replicates: Vec<Shares>,
}

/// Distances and parts of a change of shares.
struct Figures {
    tv: f64,
    dilution: f64,
    selection: f64,
    displaced: f64,
    evenness_loss: f64,
    coefficients: Vec<f64>,
}

/// Simultaneous intervals per category.
struct Intervals {
    delta: Vec<[f64; 2]>,
    delta_90: Vec<[f64; 2]>,
    contrast: Option<Vec<[f64; 2]>>,
    coefficients: Vec<[f64; 2]>,
}

/// Reads differences and their standard errors off shares.
type Reader<'r> = &'r dyn Fn(&Shares) -> (Vec<f64>, Vec<f64>);

/// Reduces one facet.
pub(super) fn analyse(
    input: &CensusInput,
    pictures: &Pictures<'_>,
    facet: &Facet,
    refused: &mut Vec<Refusal>,
) -> Result<FacetRecord, EvalError> {
    let (analysis, labels) = Analysis::new(input, pictures, facet)?;
    let figures = analysis.figures(&analysis.shares.base, &analysis.shares.adapted);
    let drawn: Vec<Figures> =
        analysis.replicates.iter().map(|s| analysis.figures(&s.base, &s.adapted)).collect();
    let intervals = analysis.intervals(&figures, &drawn);
    let flips = analysis.flips(&labels);
    let placebo = (!analysis.shares.placebo.is_empty())
        .then(|| analysis.figures(&analysis.shares.base, &analysis.shares.placebo));
    let spread = Spread { analysis: &analysis, figures: &figures, drawn: &drawn, flips: &flips };
    let js = depopulation::split(&analysis.shares.base, &analysis.shares.adapted, analysis.new);
    let test = stuart_maxwell(&analysis.table);
    let margins = analysis.margins();
    let entropy =
        |counts: &[u64]| [plug_in_entropy(counts), miller_madow(counts), chao_shen(counts)];
    Ok(FacetRecord {
        id: facet.id.clone(),
        new: analysis.new.map(|n| analysis.categories[n].clone()),
        tv: spread.places(TV, |f| f.tv),
        tv_floor: flips.floor[TV],
        tv_p: flips.p[TV],
        tv_placebo: placebo.as_ref().map(|f| f.tv),
        dilution: spread.dilution(),
        selection: spread.distance(SELECTION, |f| f.selection),
        dilution_floor: flips.floor[DILUTION],
        selection_floor: flips.floor[SELECTION],
        selection_placebo: placebo.as_ref().map(|f| f.selection),
        js: [js.js_dilution, js.js_selection],
        displaced: spread.places(DISPLACED, |f| f.displaced),
        displaced_floor: flips.floor[DISPLACED],
        displaced_placebo: placebo.as_ref().map(|f| f.displaced),
        evenness_loss: spread.evenness_loss(),
        hill: BeforeAfter {
            before: depopulation::effective(&analysis.shares.base, &analysis.residents),
            after: depopulation::effective(&analysis.shares.adapted, &analysis.residents),
        },
        entropy: BeforeAfter { before: entropy(&margins.0), after: entropy(&margins.1) },
        coverage: BeforeAfter { before: good_turing(&margins.0), after: good_turing(&margins.1) },
        stuart_maxwell: test,
        bhapkar: test.and_then(|test| bhapkar(test, margins.0.iter().sum())),
        disagreement: disagreement(&analysis.table),
        calibration: calibration::base(input, facet, &analysis, refused),
        corrected: (input.concept.facet == facet.id)
            .then(|| corrected::corrected(input, &analysis, refused))
            .flatten(),
        strata: analysis.strata(pictures)?,
        entities: analysis.entities(pictures, &figures, &intervals, &flips)?,
    })
}

impl<'a> Analysis<'a> {
    fn new(
        input: &'a CensusInput,
        pictures: &Pictures<'_>,
        facet: &'a Facet,
    ) -> Result<(Self, PairedLabels), EvalError> {
        let sorted = Categories::new(input, facet)?;
        let (categories, new) = (sorted.names.clone(), sorted.new);
        let residents = sorted.residents.clone();
        let mut analysis = Self {
            input,
            sorted,
            new,
            residents,
            table: Vec::new(),
            seen: Vec::new(),
            n: 0.0,
            pools: Vec::new(),
            shares: PairedLabels { n_categories: 0, blocks: Vec::new() }.shares(None),
            replicates: Vec::new(),
            categories,
        };
        let labels =
            analysis.sorted.labels(pictures, &pictures.headline(&input.panel, Drawn::ADAPTED)?)?;
        analysis.table = labels.table();
        let margins = analysis.margins();
        analysis.seen = margins.0.iter().zip(&margins.1).map(|(b, a)| b + a > 0).collect();
        analysis.n = real(labels.n_pairs());
        analysis.pools = labels.pools().collect();
        analysis.shares = labels.shares(None);
        let (resampler, lengths) = (input.resampler(), labels.lengths());
        analysis.replicates = (0..resampler.draws)
            .map(|draw| labels.shares(Some(&resampler.positions(draw, &lengths))))
            .collect();
        Ok((analysis, labels))
    }

    /// Shares over all pairs.
    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Largest share of pairs that may move where none was seen to, for `k` categories at once.
    pub(super) fn never(&self, alpha: f64, k: usize) -> f64 {
        never_seen(self.pools.iter().copied(), alpha, k)
    }

    /// Whether every pair bears the same before and after. Its bootstrap has no spread then.
    fn nothing_moved(&self) -> bool {
        let off_diagonal = |(i, row): (usize, &Vec<u64>)| {
            row.iter().enumerate().all(|(j, &count)| i == j || count == 0)
        };
        self.table.iter().enumerate().all(off_diagonal)
    }

    /// Pictures per category, base and adapted.
    fn margins(&self) -> (Vec<u64>, Vec<u64>) {
        let rows = self.table.iter().map(|row| row.iter().sum()).collect();
        let columns = (0..self.table.len()).map(|j| self.table.iter().map(|row| row[j]).sum());
        (rows, columns.collect())
    }

    fn figures(&self, before: &[f64], after: &[f64]) -> Figures {
        let smooth = |p: &[f64]| smoothed(p, &self.seen, self.n);
        let split = depopulation::split(&smooth(before), &smooth(after), self.new);
        Figures {
            tv: total_variation(before, after),
            dilution: split.dilution,
            selection: split.selection,
            displaced: depopulation::displaced(before, after, &self.residents),
            evenness_loss: depopulation::evenness_loss(before, after, &self.residents),
            coefficients: split.coefficients.iter().map(|c| c.unwrap_or(0.0)).collect(),
        }
    }

    fn intervals(&self, figures: &Figures, drawn: &[Figures]) -> Intervals {
        // Categories that nobody drew take no part: they cannot move.
        let keep = |values: &[f64]| -> Vec<f64> {
            values.iter().zip(&self.seen).map(|(v, &seen)| if seen { *v } else { 0.0 }).collect()
        };
        let studentised = |read: Reader<'_>, level: f64| {
            let (values, errors) = read(&self.shares);
            let replicates: Vec<Replicate> = self
                .replicates
                .iter()
                .map(|shares| {
                    let (values, errors) = read(shares);
                    Replicate { values, errors: keep(&errors) }
                })
                .collect();
            let widening = self.input.widening;
            max_t(&values, &keep(&errors), &replicates, level)
                .into_iter()
                .zip(&values)
                .map(|([low, high], value)| {
                    [value - widening * (value - low), value + widening * (high - value)]
                })
                .collect()
        };
        let delta = |shares: &Shares| (shares.delta(), shares.delta_error.clone());
        let contrast = |shares: &Shares| (shares.contrast(), shares.contrast_error.clone());
        let coefficients: Vec<Vec<f64>> = drawn.iter().map(|f| f.coefficients.clone()).collect();
        Intervals {
            delta: studentised(&delta, 0.95),
            delta_90: studentised(&delta, 0.90),
            contrast: (!self.shares.placebo.is_empty()).then(|| studentised(&contrast, 0.95)),
            coefficients: max_t_by_spread(&figures.coefficients, &coefficients, 0.95),
        }
    }

    /// Sign flips of every distance, in the order of [`spread`].
    fn flips(&self, labels: &PairedLabels) -> SignFlip {
        sign_flip(self.input.seed, self.input.flips, labels.n_pairs(), &|flips| {
            let (base, adapted) = labels.flipped(flips);
            let figures = self.figures(&base, &adapted);
            let mut values =
                vec![figures.tv, figures.dilution, figures.selection, figures.displaced];
            values.extend(base.iter().zip(&adapted).map(|(b, a)| (a - b).abs()));
            values
        })
    }

    fn strata(&self, pictures: &Pictures<'_>) -> Result<Vec<StratumRecord>, EvalError> {
        let mut strata = Vec::new();
        for stratum in [Stratum::Broader, Stratum::Scene] {
            let prompts = pictures.pooled(stratum, Drawn::ADAPTED)?;
            if prompts.is_empty() {
                continue;
            }
            let shares = self.sorted.labels(pictures, &prompts)?.shares(None);
            strata.push(StratumRecord {
                stratum,
                pairs: count(&prompts),
                tv: total_variation(&shares.base, &shares.adapted),
                new: self
                    .new
                    .map(|n| BeforeAfter { before: shares.base[n], after: shares.adapted[n] }),
            });
        }
        Ok(strata)
    }

    fn entities(
        &self,
        pictures: &Pictures<'_>,
        figures: &Figures,
        intervals: &Intervals,
        flips: &SignFlip,
    ) -> Result<Vec<EntityRecord>, EvalError> {
        let margins = self.margins();
        let p: Vec<f64> = (0..self.categories.len())
            .map(|i| mcnemar(margins.0[i] - self.table[i][i], margins.1[i] - self.table[i][i]).mid)
            .collect();
        let seen: Vec<usize> = (0..p.len()).filter(|&i| self.seen[i]).collect();
        let q = benjamini_hochberg(&seen.iter().map(|&i| p[i]).collect::<Vec<_>>());
        let counted =
            |i: &usize| self.seen[*i] || !matches!(self.categories[*i].as_str(), NONE | BLOCKED);
        let asked = pictures.pairs(Stratum::Asked, Drawn::ADAPTED)?;
        (0..self.categories.len())
            .filter(counted)
            .map(|i| {
                let mut record = self.entity(i, intervals);
                record.mid_p = p[i];
                record.q = position(&seen, &i).map_or(1.0, |rank| q[rank]);
                record.floor = flips.floor[ENTITIES + i];
                if self.seen[i] && Some(i) != self.new {
                    record.selection_coefficient = Some(figures.coefficients[i]);
                    record.selection_ci = Some(intervals.coefficients[i]);
                }
                (record.obedience_b, record.obedience_a) = self.obedience(&asked, i)?;
                Ok(record)
            })
            .collect()
    }

    /// Counts, shares, intervals and verdict of one category.
    fn entity(&self, i: usize, intervals: &Intervals) -> EntityRecord {
        let id = &self.categories[i];
        let entity = self.input.thesaurus.entity(id);
        let margins = self.margins();
        let n_seen = self.seen.iter().filter(|&&seen| seen).count();
        let [never, never_90] = [0.05, 0.10].map(|alpha| self.never(alpha, n_seen));
        // The bootstrap of pairs that all agree has no spread, and what was never seen to move may.
        let still = margins.0[i] + margins.1[i] == 2 * self.table[i][i];
        let (ci, ci_90, ci_kind) = if still {
            ([-never, never], [-never_90, never_90], CiKind::RuleOfThree)
        } else {
            (intervals.delta[i], intervals.delta_90[i], CiKind::MaxT)
        };
        let contrast_ci = intervals.contrast.as_ref().map(|c| c[i]).filter(|_| self.seen[i]);
        EntityRecord {
            id: id.clone(),
            name: match id.as_str() {
                NONE => "none of these".to_owned(),
                BLOCKED => "withheld".to_owned(),
                _ if Some(i) == self.new => self.input.concept.name.clone(),
                _ => entity.map_or(id.as_str(), |entity| entity.name()).to_owned(),
            },
            label: entity.map(|entity| entity.label.clone()).unwrap_or_default(),
            n_b: margins.0[i],
            n_a: margins.1[i],
            p_b: self.shares.base[i],
            p_a: self.shares.adapted[i],
            delta: self.shares.adapted[i] - self.shares.base[i],
            se: self.shares.delta_error[i],
            ci,
            ci_kind,
            floor: 0.0,
            mid_p: 1.0,
            q: 1.0,
            selection_coefficient: None,
            selection_ci: None,
            placebo_delta: self.shares.placebo.get(i).map(|p| p - self.shares.base[i]),
            contrast_ci,
            obedience_b: None,
            obedience_a: None,
            prior: entity.and_then(|entity| entity.prior),
            vanished_below: (margins.1[i] == 0).then(|| self.never(0.05, 1)),
            verdict: if self.seen[i] {
                verdict(ci, contrast_ci, ci_90, self.shares.base[i])
            } else {
                Verdict::Undecided
            },
            kind_probabilities: None,
        }
    }

    /// Shares of the pictures asked for a category that bear it, base and adapted.
    fn obedience(
        &self,
        asked: &[PromptPairs<'_>],
        i: usize,
    ) -> Result<(Option<f64>, Option<f64>), EvalError> {
        let (mut n, mut base, mut adapted) = (0_u64, 0_u64, 0_u64);
        let id = self.categories[i].as_str();
        for pairs in asked.iter().filter(|pairs| pairs.asked == Some(id)) {
            for (b, a) in pairs.base.iter().zip(&pairs.other) {
                n += 1;
                base += u64::from(usize::from(self.sorted.of(b)?) == i);
                adapted += u64::from(usize::from(self.sorted.of(a)?) == i);
            }
        }
        let share = |hits: u64| (n > 0).then(|| real_u64(hits) / real_u64(n));
        Ok((share(base), share(adapted)))
    }
}

fn position<T: PartialEq>(items: &[T], item: &T) -> Option<usize> {
    items.iter().position(|other| other == item)
}

/// Margin of equivalence δ = max(.005, .`2·P_B`).
fn equivalence_margin(p_b: f64) -> f64 {
    (0.2 * p_b).max(0.005)
}

/// A loss or gain needs its simultaneous interval *and* that of the contrast with the placebo on one
/// side of 0; equivalence needs the 90 % interval within the margin (two one-sided tests). All else
/// is undecided: what was not shown to change was not shown to stay.
fn verdict(ci: [f64; 2], contrast: Option<[f64; 2]>, ci_90: [f64; 2], p_b: f64) -> Verdict {
    let margin = equivalence_margin(p_b);
    let below = |ci: [f64; 2]| ci[1] < 0.0;
    let above = |ci: [f64; 2]| ci[0] > 0.0;
    if below(ci) && contrast.is_none_or(below) {
        if contrast.is_some() { Verdict::Depopulated } else { Verdict::Fell }
    } else if above(ci) && contrast.is_none_or(above) {
        if contrast.is_some() { Verdict::Favoured } else { Verdict::Rose }
    } else if ci_90[0] > -margin && ci_90[1] < margin {
        Verdict::Retained
    } else {
        Verdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_both_intervals() {
        let loss = [-0.09, -0.01];
        let unclear = [-0.03, 0.02];
        let narrow = [-0.004, 0.004];
        assert_eq!(verdict(loss, Some(loss), unclear, 0.1), Verdict::Depopulated);
        assert_eq!(verdict(loss, Some(unclear), unclear, 0.1), Verdict::Undecided);
        assert_eq!(verdict(loss, None, unclear, 0.1), Verdict::Fell);
        let gain = [0.01, 0.09];
        assert_eq!(verdict(gain, Some(gain), unclear, 0.1), Verdict::Favoured);
        assert_eq!(verdict(gain, None, unclear, 0.1), Verdict::Rose);
        assert_eq!(verdict(narrow, Some(narrow), narrow, 0.001), Verdict::Retained);
        assert_eq!(verdict(unclear, Some(unclear), unclear, 0.1), Verdict::Undecided);
        // The margin grows with the share: ±.02 of .10, ±.005 of less than .025.
        assert_eq!(verdict(unclear, None, [-0.019, 0.01], 0.1), Verdict::Retained);
        assert_eq!(verdict(unclear, None, [-0.019, 0.01], 0.05), Verdict::Undecided);
    }
}
