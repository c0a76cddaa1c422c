//! The kitsch gauge: how much of what is drawn is what is always drawn. Four figures, never one.
//!
//! * stock share: pictures that bear a stock motif;
//! * coverage: mass of what has been seen (Good–Turing), from the counted census;
//! * déjà-vu: percentile of −`L_B`(x) among base pictures *that compress as well*,
//!   `L_B = ½∫E‖ε − ε̂_B(·, ∅)‖² dγ`. Without that, a blank wall is the most typical picture;
//! * typicality for a word, `T(x|c) = ½∫E[‖ε − ε̂_B(·, ∅)‖² − ‖ε − ε̂_B(·, c)‖²] dγ`: pointwise mutual
//!   information, −log of the word's share for a clean instance. Rare words score high by themselves,
//!   so it is compared within one word only.
//!
//! Source: Siglidis et al. 2024, arXiv:2408.02752 (T, there with one weight per timestep); Kong et al.
//! 2024, arXiv:2310.07972 (its weights in γ, which make it pointwise information).

use crate::error::EvalError;
use crate::likelihood::{add_gaps, energies};
use crate::means;
use crate::noising::{Grid, NoiseSource, Noised, Samples, at_each_level};
use crate::protocol::{Condition, Denoiser, predicted};
use crate::record::{BeforeAfter, TypicalityRecord, WordTypicality};
use rayon::prelude::*;
use statistics::contingency::PairedLabels;
use statistics::interval::{CiKind, Estimate, Resampler, never_seen, percentile};
use statistics::number::{index, mean, real};

/// `L(x)` of each sample under the empty prompt, in nats: low for what the model expects.
///
/// # Errors
///
/// The denoiser's own; [`EvalError::Length`] for samples and noise that do not fit.
pub fn energy(
    denoiser: &mut dyn Denoiser,
    samples: Samples<'_>,
    grid: &Grid,
    noise: &NoiseSource<'_>,
) -> Result<Vec<f64>, EvalError> {
    let rows = energies(denoiser, Condition::Nothing, samples, grid, noise)?;
    Ok(rows.into_iter().map(|levels| levels.iter().sum::<f64>()).collect())
}

/// T(x|c) of each sample for one word, in nats.
///
/// # Errors
///
/// The denoiser's own; [`EvalError::Length`] for samples and noise that do not fit.
pub fn typicality(
    denoiser: &mut dyn Denoiser,
    word: &str,
    samples: Samples<'_>,
    grid: &Grid,
    noise: &NoiseSource<'_>,
) -> Result<Vec<f64>, EvalError> {
    let mut rows = vec![Vec::new(); samples.keys.len()];
    at_each_level(denoiser.width(), samples, grid, noise, &mut |at: &Noised<'_>| {
        let without = predicted(denoiser, at.noisy, at.level, Condition::Nothing)?;
        let with = predicted(denoiser, at.noisy, at.level, Condition::Words(word))?;
        add_gaps(&mut rows, at, &with, &without);
        Ok(())
    })?;
    Ok(rows.into_iter().map(|levels| levels.iter().sum::<f64>()).collect())
}

/// What the gauge knows of one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauged {
    /// `L_B`(x) in nats.
    pub energy: f64,
    /// Bytes of the deflated picture over its raw bytes, 8 bit.
    pub compression_ratio: f64,
}

/// Base pictures, in tenths of equal compressibility.
struct Reference {
    ratios: Vec<f64>,
    /// Rising energies of the pictures of each tenth.
    tenths: Vec<Vec<f64>>,
}

impl Reference {
    fn new(base: &[Gauged]) -> Self {
        let mut ratios: Vec<f64> = base.iter().map(|picture| picture.compression_ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let mut reference = Self { ratios, tenths: vec![Vec::new(); 10] };
        for picture in base {
            let tenth = reference.tenth(picture.compression_ratio);
            reference.tenths[tenth].push(picture.energy);
        }
        for energies in &mut reference.tenths {
            energies.sort_by(f64::total_cmp);
        }
        reference
    }

    /// In which tenth of the base a ratio lies. Equal ratios share one.
    fn tenth(&self, ratio: f64) -> usize {
        let below = self.ratios.partition_point(|other| *other < ratio);
        index(10.0 * real(below) / real(self.ratios.len()).max(1.0)).min(9)
    }

    /// Share in percent of the base pictures of a picture's tenth that are less typical than it, ties
    /// by half. A tenth that no base picture fell into is replaced by the nearest that holds one.
    fn percentile(&self, picture: &Gauged) -> f64 {
        let tenth = self.tenth(picture.compression_ratio);
        let held = (0..10).filter(|&other| !self.tenths[other].is_empty());
        let Some(nearest) = held.min_by_key(|other| other.abs_diff(tenth)) else {
            return 50.0;
        };
        let energies = &self.tenths[nearest];
        let lower = energies.partition_point(|other| *other < picture.energy);
        let not_higher = energies.partition_point(|other| *other <= picture.energy);
        let higher = real(energies.len() - not_higher);
        100.0 * (higher + real(not_higher - lower) / 2.0) / real(energies.len())
    }
}

/// Déjà-vu of `pictures` in [0, 100]: 100 is more typical than every base picture that compresses as
/// well. The base's own pictures have a mean of 50.
pub fn deja_vu(base: &[Gauged], pictures: &[Gauged]) -> Vec<f64> {
    let reference = Reference::new(base);
    pictures.iter().map(|picture| reference.percentile(picture)).collect()
}

/// Typicality of the base's pictures for a word that they bear.
#[derive(Clone, Debug, PartialEq)]
pub struct WordNats {
    /// Entity.
    pub id: String,
    /// T(x|c) per picture.
    pub nats: Vec<f64>,
}

/// All that the gauge is reduced from.
#[derive(Clone, Copy, Debug)]
pub struct TypicalityInput<'a> {
    /// Entities marked as stock motifs.
    pub motifs: &'a [String],
    /// Unasked pictures in two categories: 1 bears a stock motif, 0 bears none.
    pub stock: Option<&'a PairedLabels>,
    /// Good–Turing coverage in the concept's facet.
    pub coverage: BeforeAfter<f64>,
    /// Pictures of base and adapted model, pair by pair on equal seeds.
    pub pictures: &'a [(Gauged, Gauged)],
    /// Typicality for words.
    pub words: &'a [WordNats],
    /// Noise levels per picture.
    pub levels: u64,
    /// Draws pictures with replacement.
    pub resampler: Resampler,
}

/// The record of the four figures.
pub fn reduce(input: &TypicalityInput<'_>) -> TypicalityRecord {
    let (base, adapted): (Vec<Gauged>, Vec<Gauged>) = input.pictures.iter().copied().unzip();
    let lists: Vec<Vec<f64>> = input.words.iter().map(|word| word.nats.clone()).collect();
    let words = input.words.iter().zip(means::estimates(&lists, input.resampler));
    TypicalityRecord {
        motifs: input.motifs.to_vec(),
        stock_share: input
            .stock
            .filter(|stock| !input.motifs.is_empty() && stock.n_pairs() > 0)
            .map(|stock| stock_share(stock, input.resampler)),
        coverage: input.coverage,
        deja_vu: gauge(&base, &adapted, input.resampler),
        tenths: BeforeAfter {
            before: tenths(&deja_vu(&base, &base)),
            after: tenths(&deja_vu(&base, &adapted)),
        },
        pictures: input.pictures.len() as u64,
        levels: input.levels,
        words: words
            .filter(|(word, _)| !word.nats.is_empty())
            .map(|(word, typicality)| WordTypicality {
                id: word.id.clone(),
                pictures: word.nats.len() as u64,
                typicality,
            })
            .collect(),
    }
}

/// Mean déjà-vu before and after; `None` of no pictures. Before it is 50 by construction and has no
/// interval; after, base and adapted pictures are drawn together.
fn gauge(
    base: &[Gauged],
    adapted: &[Gauged],
    resampler: Resampler,
) -> Option<BeforeAfter<Estimate>> {
    let before = mean(&deja_vu(base, base))?;
    let after = mean(&deja_vu(base, adapted))?;
    let lengths = [base.len()];
    let replicate = |draw: u32| -> Option<f64> {
        let positions = resampler.positions(draw, &lengths);
        let drawn = |all: &[Gauged]| -> Vec<Gauged> {
            positions[0].iter().filter_map(|&i| all.get(i)).copied().collect()
        };
        mean(&deja_vu(&drawn(base), &drawn(adapted)))
    };
    let replicates: Vec<f64> = (0..resampler.draws).into_par_iter().filter_map(replicate).collect();
    let after = percentile(&replicates, 0.95).map_or(Estimate::bare(after), |[low, high]| {
        Estimate::with(after, [low.min(after), high.max(after)], CiKind::Percentile)
    });
    Some(BeforeAfter { before: Estimate::bare(before), after })
}

/// Pictures per tenth of the percentile, lowest first.
fn tenths(percentiles: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; 10];
    for percentile in percentiles {
        counts[index(percentile / 10.0).min(9)] += 1;
    }
    counts
}

/// Share of unasked pictures that bear a stock motif, before and after.
fn stock_share(stock: &PairedLabels, resampler: Resampler) -> BeforeAfter<Estimate> {
    let lengths = stock.lengths();
    let shares = stock.shares(None);
    let replicates: Vec<(f64, f64)> = (0..resampler.draws)
        .into_par_iter()
        .map(|draw| {
            let drawn = stock.shares(Some(&resampler.positions(draw, &lengths)));
            (drawn.base[1], drawn.adapted[1])
        })
        .collect();
    let (base, adapted): (Vec<f64>, Vec<f64>) = replicates.into_iter().unzip();
    let estimate = |value: f64, replicates: &[f64]| {
        // A bootstrap of what was never seen, or always, never sees anything else.
        let hidden = never_seen(stock.pools(), 0.05, 2);
        if value <= 0.0 {
            Estimate::with(value, [0.0, hidden], CiKind::RuleOfThree)
        } else if value >= 1.0 - 1e-12 {
            Estimate::with(value, [1.0 - hidden, 1.0], CiKind::RuleOfThree)
        } else {
            percentile(replicates, 0.95).map_or(Estimate::bare(value), |[low, high]| {
                Estimate::with(value, [low.min(value), high.max(value)], CiKind::Percentile)
            })
        }
    };
    BeforeAfter {
        before: estimate(shares.base[1], &base),
        after: estimate(shares.adapted[1], &adapted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noising::keyed_noise;
    use crate::protocol::Level;
    use statistics::contingency::Block;

    const RESAMPLER: Resampler = Resampler { seed: 5, draws: 200 };

    fn gauged(energy: f64, compression_ratio: f64) -> Gauged {
        Gauged { energy, compression_ratio }
    }

    /// A hundred pictures whose energy grows with what they hold, and scatters within.
    fn base() -> Vec<Gauged> {
        (0..100)
            .map(|i| gauged(10.0 * f64::from(i / 10) + f64::from(i % 10), f64::from(i / 10) / 10.0))
            .collect()
    }

    #[test]
    fn own_pictures_have_a_mean_of_fifty() {
        let own = deja_vu(&base(), &base());
        assert!((mean(&own).unwrap() - 50.0).abs() < 1e-9);
        assert!((own[0] - 95.0).abs() < 1e-9 && (own[9] - 5.0).abs() < 1e-9, "{own:?}");
        // The lowest energy of every tenth is as typical as that of any other.
        assert!((own[90] - 95.0).abs() < 1e-9, "{own:?}");
    }

    #[test]
    fn a_blank_wall_is_compared_with_blank_walls() {
        // Far below all in energy, but among pictures that compress as well it is the least typical.
        let wall = gauged(9.5, 0.0);
        assert!(deja_vu(&base(), &[wall])[0].abs() < 1e-9);
        let all: Vec<Gauged> = base().iter().map(|one| gauged(one.energy, 0.5)).collect();
        assert!(deja_vu(&all, &[gauged(9.5, 0.5)])[0] > 85.0, "without tenths it would be typical");
    }

    #[test]
    fn an_empty_tenth_borrows_from_its_neighbor() {
        let equal: Vec<Gauged> = (0..10).map(|i| gauged(f64::from(i), 0.3)).collect();
        let found = deja_vu(&equal, &[gauged(-1.0, 0.9), gauged(4.0, 0.3), gauged(20.0, 0.1)]);
        assert!((found[0] - 100.0).abs() < 1e-9, "{found:?}");
        assert!((found[1] - 55.0).abs() < 1e-9 && found[2].abs() < 1e-9, "{found:?}");
    }

    /// Says x times a number of its own under words.
    struct Told;

    impl Denoiser for Told {
        fn width(&self) -> usize {
            1
        }

        fn noise(
            &mut self,
            noisy: &[f64],
            _: Level,
            condition: Condition<'_>,
        ) -> Result<Vec<f64>, EvalError> {
            let factor = if condition == Condition::Words("boat") { 0.9 } else { 0.5 };
            Ok(noisy.iter().map(|x| factor * x).collect())
        }
    }

    #[test]
    fn typicality_is_the_energy_that_a_word_takes_away() {
        let levels = (0..4).map(|i| Level::of_gamma(0.0, f64::from(i))).collect();
        let (grid, noise) = (Grid::trapezoid(levels), keyed_noise(2, 1));
        let samples = Samples { values: &[0.2, -1.0], keys: &[7, 8] };
        let told = typicality(&mut Told, "boat", samples, &grid, &noise).unwrap();
        let without = energy(&mut Told, samples, &grid, &noise).unwrap();
        let with = energies(&mut Told, Condition::Words("boat"), samples, &grid, &noise).unwrap();
        for picture in 0..2 {
            let expected = without[picture] - with[picture].iter().sum::<f64>();
            assert!((told[picture] - expected).abs() < 1e-12, "{told:?}");
        }
    }

    fn reduced(stock: Option<&PairedLabels>, pictures: &[(Gauged, Gauged)]) -> TypicalityRecord {
        reduce(&TypicalityInput {
            motifs: &["lighthouse".into()],
            stock,
            coverage: BeforeAfter { before: 0.99, after: 0.98 },
            pictures,
            words: &[
                WordNats { id: "boat".into(), nats: vec![1.0, 2.0, 3.0, 2.0] },
                WordNats { id: "none".into(), nats: Vec::new() },
            ],
            levels: 32,
            resampler: RESAMPLER,
        })
    }

    #[test]
    fn a_model_that_draws_only_the_expected_has_seen_it_all() {
        let pictures: Vec<(Gauged, Gauged)> = base()
            .into_iter()
            .map(|one| (one, gauged(one.energy - 5.0, one.compression_ratio)))
            .collect();
        let record = reduced(None, &pictures);
        let found = record.deja_vu.unwrap();
        assert!((found.before.value - 50.0).abs() < 1e-9 && found.before.ci.is_none());
        // Five steps down in a tenth of ten: ranks 0 to 4 lie below all, 5 to 9 tie with 0 to 4.
        assert!((found.after.value - 87.5).abs() < 1e-9, "{found:?}");
        let [low, high] = found.after.ci.unwrap();
        assert!(low > 50.0 && low < 87.5 && (87.5..=100.0).contains(&high), "{found:?}");
        assert_eq!(record.tenths.before, [10; 10]);
        assert_eq!(record.tenths.after.iter().sum::<u64>(), 100);
        assert_eq!(record.tenths.after[9], 60, "{:?}", record.tenths);
        assert_eq!((record.words.len(), record.words[0].pictures), (1, 4));
        assert!((record.words[0].typicality.value - 2.0).abs() < 1e-12);
        assert_eq!(record.stock_share, None);
    }

    #[test]
    fn stock_share_is_weighted_and_never_certain_of_nothing() {
        let block = |weight, base: Vec<u16>, adapted: Vec<u16>| Block {
            weight,
            base,
            adapted,
            placebos: Vec::new(),
        };
        let stock = PairedLabels {
            n_categories: 2,
            blocks: vec![
                block(0.75, [vec![1; 30], vec![0; 70]].concat(), vec![0; 100]),
                block(0.25, vec![0; 100], vec![0; 100]),
            ],
        };
        let share = reduced(Some(&stock), &[]).stock_share.unwrap();
        assert!((share.before.value - 0.225).abs() < 1e-12);
        let [low, high] = share.before.ci.unwrap();
        assert!(low > 0.13 && low < 0.20 && high > 0.25 && high < 0.32, "{share:?}");
        assert_eq!(share.after.ci_kind, Some(CiKind::RuleOfThree));
        // ln(2/.05)·.75/100
        assert!((share.after.ci.unwrap()[1] - 0.027_67).abs() < 1e-4, "{share:?}");
    }

    #[test]
    fn without_pictures_there_is_no_gauge() {
        let record = reduced(None, &[]);
        assert_eq!((record.deja_vu, record.pictures), (None, 0));
        assert_eq!(record.tenths.after, [0; 10]);
    }
}
