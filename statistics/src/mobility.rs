//! Beckett's four kinds: how bodies (entities) hold their places (seeds) through successive states of
//! one model.
//!
//! `stay = |O∩O'|/|O|`, corrected for what chance keeps, `κ = (stay − P')/(1 − P')`, and held against
//! a placebo: `ρ = mean κ(adapter)/mean κ(placebo)`. `re = min(1, |O'∖O|/|O∖O'|)` says whether a body
//! that left places took others.

use crate::interval::Resampler;
use crate::number::real;

/// The four kinds, in the order of their numerals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// I: keeps its number, keeps no place.
    Circulating,
    /// II: sometimes stops.
    SometimesStops,
    /// III: keeps its place; evicted, it takes the first free one.
    Sedentary,
    /// IV: gave up.
    Vanquished,
}

/// A body keeps its place from this ρ on.
pub const SEDENTARY: f64 = 0.8;
/// Share of left places that a sedentary body takes up again, at least.
pub const RETURNS: f64 = 0.5;
/// A body keeps no place up to this ρ.
pub const CIRCULATING: f64 = 0.35;
/// A body gave up below this part of its first share.
pub const VANQUISHED: f64 = 0.25;
/// A placebo's κ up to which ρ would divide by next to nothing; κ itself then stands for ρ.
pub const LEAST_PLACEBO: f64 = 0.1;

/// Who holds each place before and after one settlement; both lists run over the same places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step<'a> {
    /// Body at each place in the earlier state.
    pub before: &'a [u16],
    /// Body at each place in the later state.
    pub after: &'a [u16],
}

/// How one body moved, averaged over the steps before which it held a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mobility {
    /// Share of its places kept.
    pub stay: f64,
    /// The same corrected for chance.
    pub kappa: f64,
    /// Share of the places it left that it took up elsewhere, at most 1; 1 where it left none.
    pub returns: f64,
}

/// Moves of `body` over `steps`, on `places` given as (position, weight), positions with repetition
/// allowed; `None` if it never held one.
pub fn mobility(steps: &[Step<'_>], places: &[(usize, f64)], body: u16) -> Option<Mobility> {
    let (mut sum, mut n) = (Mobility { stay: 0.0, kappa: 0.0, returns: 0.0 }, 0.0);
    for step in steps {
        let (mut kept, mut left, mut taken, mut all) = (0.0, 0.0, 0.0, 0.0);
        for &(place, weight) in places {
            all += weight;
            match (step.before[place] == body, step.after[place] == body) {
                (true, true) => kept += weight,
                (true, false) => left += weight,
                (false, true) => taken += weight,
                (false, false) => {}
            }
        }
        if kept + left <= 0.0 {
            continue;
        }
        let (stay, share) = (kept / (kept + left), (kept + taken) / all);
        sum.stay += stay;
        // Where a body holds everything, that it kept its places says nothing beyond that.
        sum.kappa += if share < 1.0 { (stay - share) / (1.0 - share) } else { 1.0 };
        sum.returns += if left > 0.0 { (taken / left).min(1.0) } else { 1.0 };
        n += 1.0;
    }
    (n > 0.0).then(|| Mobility {
        stay: sum.stay / n,
        kappa: sum.kappa / n,
        returns: sum.returns / n,
    })
}

/// The kind of a body that moved like `mobility`, with `ratio` for ρ; `first` is its share in the first
/// state, `last` that in the last or its upper end.
pub fn kind(mobility: Mobility, ratio: f64, first: f64, last: f64) -> Kind {
    if last < VANQUISHED * first {
        Kind::Vanquished
    } else if ratio >= SEDENTARY && mobility.returns >= RETURNS {
        Kind::Sedentary
    } else if ratio <= CIRCULATING {
        Kind::Circulating
    } else {
        Kind::SometimesStops
    }
}

/// Places, prompt after prompt, in successive states.
#[derive(Clone, Debug, PartialEq)]
pub struct Places {
    /// Number of places of each prompt.
    pub lengths: Vec<usize>,
    /// Weight of each prompt; they sum to 1.
    pub weights: Vec<f64>,
    /// Body at each place, `[state][place]`; the first state is the base.
    pub states: Vec<Vec<u16>>,
}

/// Where the κ of a placebo comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placebo<'a> {
    /// There was none: ρ is κ itself.
    None,
    /// One number for every body.
    Kappa(f64),
    /// From each earlier state to what a placebo made of it, on the same places.
    Steps(&'a [Step<'a>]),
}

/// What is said of one body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Body {
    /// Its kind.
    pub kind: Kind,
    /// Share of the bootstrap draws in which it is of kind I, II, III, IV.
    pub probabilities: [f64; 4],
    /// Its moves.
    pub mobility: Mobility,
    /// ρ; `None` without a placebo, or where that one's κ is not above [`LEAST_PLACEBO`].
    pub ratio: Option<f64>,
}

impl Places {
    /// From each state to the next.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let pairs = self.states.windows(2);
        pairs.map(|pair| Step { before: &pair[0], after: &pair[1] }).collect()
    }

    /// Every place once, with its weight.
    pub fn all(&self) -> Vec<(usize, f64)> {
        let each: Vec<Vec<usize>> = self.lengths.iter().map(|&n| (0..n).collect()).collect();
        self.numbered(&each)
    }

    /// Places of one bootstrap draw, with their weights.
    pub fn drawn(&self, resampler: Resampler, draw: u32) -> Vec<(usize, f64)> {
        self.numbered(&resampler.positions(draw, &self.lengths))
    }

    /// Positions within each prompt as positions among all places.
    fn numbered(&self, positions: &[Vec<usize>]) -> Vec<(usize, f64)> {
        let mut first = 0;
        let mut numbered = Vec::new();
        for ((drawn, &n), weight) in positions.iter().zip(&self.lengths).zip(&self.weights) {
            let unit = weight / real(n).max(1.0);
            numbered.extend(drawn.iter().map(|&i| (first + i, unit)));
            first += n;
        }
        numbered
    }

    /// Share of `body` in `state` on these places.
    pub fn share(&self, state: usize, places: &[(usize, f64)], body: u16) -> f64 {
        let labels = &self.states[state];
        let held: f64 = places.iter().filter(|(i, _)| labels[*i] == body).map(|(_, w)| w).sum();
        let all: f64 = places.iter().map(|(_, weight)| weight).sum();
        if all > 0.0 { held / all } else { 0.0 }
    }

    /// Kind, probabilities and moves of `body`; `None` if it held no place in the first state.
    ///
    /// `ceiling` is the upper end of its share in the last state, against which giving up is judged;
    /// each bootstrap draw judges by its own share. The draws resample places, all states and the
    /// placebo together.
    pub fn body(
        &self,
        body: u16,
        ceiling: f64,
        placebo: Placebo<'_>,
        resampler: Resampler,
    ) -> Option<Body> {
        let all = self.all();
        let steps = self.steps();
        let last = self.states.len().checked_sub(1)?;
        let first_share = self.share(0, &all, body);
        if first_share <= 0.0 {
            return None;
        }
        let moved = mobility(&steps, &all, body)?;
        let ratio = placebo.ratio(moved, &all, body);
        let mut counts = [0.0_f64; 4];
        for draw in 0..resampler.draws {
            let places = self.drawn(resampler, draw);
            let first = self.share(0, &places, body);
            // A draw that misses the body altogether says nothing of it.
            let Some(drawn) = mobility(&steps, &places, body).filter(|_| first > 0.0) else {
                continue;
            };
            let rho = placebo.ratio(drawn, &places, body).unwrap_or(drawn.kappa);
            counts[kind(drawn, rho, first, self.share(last, &places, body)) as usize] += 1.0;
        }
        let told: f64 = counts.iter().sum::<f64>().max(1.0);
        Some(Body {
            kind: kind(moved, ratio.unwrap_or(moved.kappa), first_share, ceiling),
            probabilities: counts.map(|count| count / told),
            mobility: moved,
            ratio,
        })
    }
}

impl Placebo<'_> {
    /// ρ = κ/κ(placebo) of `body` on these places.
    fn ratio(self, moved: Mobility, places: &[(usize, f64)], body: u16) -> Option<f64> {
        let kappa = match self {
            Self::None => None,
            Self::Kappa(kappa) => Some(kappa),
            Self::Steps(steps) => mobility(steps, places, body).map(|still| still.kappa),
        };
        kappa.filter(|&kappa| kappa > LEAST_PLACEBO).map(|kappa| moved.kappa / kappa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLER: Resampler = Resampler { seed: 5, draws: 200 };

    fn even(n: usize) -> Vec<(usize, f64)> {
        (0..n).map(|i| (i, 1.0 / real(n))).collect()
    }

    #[test]
    fn moves_of_a_small_table_are_what_they_are_by_hand() {
        // Body 1 holds 4 of 10 places, keeps 1 of them and takes 2 others.
        let before = [1, 1, 1, 1, 0, 0, 0, 2, 2, 2];
        let after = [1, 0, 0, 2, 1, 1, 0, 2, 2, 2];
        let step = Step { before: &before, after: &after };
        let found = mobility(&[step], &even(10), 1).unwrap();
        assert!((found.stay - 0.25).abs() < 1e-12, "{found:?}");
        assert!((found.kappa - (0.25 - 0.3) / 0.7).abs() < 1e-12, "{found:?}");
        assert!((found.returns - 2.0 / 3.0).abs() < 1e-12, "{found:?}");
        // Body 2 left nothing: all its places are kept, and it took one more.
        let still = mobility(&[step], &even(10), 2).unwrap();
        assert!((still.stay - 1.0).abs() < 1e-12 && (still.returns - 1.0).abs() < 1e-12);
        assert_eq!(mobility(&[step], &even(10), 9), None);
    }

    #[test]
    fn a_step_before_which_a_body_is_absent_is_skipped() {
        let (first, second, third) = ([1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]);
        let steps = [
            Step { before: &first, after: &second },
            Step { before: &second, after: &third },
            Step { before: &third, after: &third },
        ];
        let found = mobility(&steps, &even(4), 1).unwrap();
        assert!((found.stay - 0.5).abs() < 1e-12, "two of three steps count: {found:?}");
    }

    #[test]
    fn places_dealt_by_chance_have_no_kappa() {
        // 4 of 8 places before, 4 of 8 after, 2 in common: just what chance keeps.
        let step = Step { before: &[1, 1, 1, 1, 0, 0, 0, 0], after: &[1, 1, 0, 0, 1, 1, 0, 0] };
        let found = mobility(&[step], &even(8), 1).unwrap();
        assert!(found.kappa.abs() < 1e-12 && (found.stay - 0.5).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn kinds_are_tested_in_their_order() {
        let moved = |kappa: f64, returns: f64| Mobility { stay: kappa, kappa, returns };
        let of = |m: Mobility, last: f64| kind(m, m.kappa, 0.2, last);
        assert_eq!(of(moved(0.9, 1.0), 0.049), Kind::Vanquished);
        assert_eq!(of(moved(0.9, 1.0), 0.05), Kind::Sedentary);
        assert_eq!(of(moved(0.9, 0.4), 0.2), Kind::SometimesStops);
        assert_eq!(of(moved(0.35, 1.0), 0.2), Kind::Circulating);
        assert_eq!(of(moved(0.36, 1.0), 0.2), Kind::SometimesStops);
    }

    #[test]
    fn a_body_is_held_against_its_placebo_on_the_same_places() {
        let base: Vec<u16> = (0..120).map(|i| u16::from(i % 3 == 0)).collect();
        // The settlement takes every second place of body 1 and gives it as many others.
        let after: Vec<u16> = (0..120).map(|i| u16::from(i % 6 < 2)).collect();
        let places = Places {
            lengths: vec![40, 80],
            weights: vec![0.5, 0.5],
            states: vec![base.clone(), after.clone()],
        };
        let moved = mobility(&places.steps(), &places.all(), 1).unwrap();
        let same = [Step { before: &base, after: &after }];
        let body = places.body(1, 0.3, Placebo::Steps(&same), RESAMPLER).unwrap();
        assert!((body.ratio.unwrap() - 1.0).abs() < 1e-12, "as much as its placebo: {body:?}");
        assert_eq!(body.kind, Kind::Sedentary);
        let alone = places.body(1, 0.3, Placebo::None, RESAMPLER).unwrap();
        assert_eq!(alone.ratio, None);
        assert_eq!(alone.kind, kind(moved, moved.kappa, 0.3, 0.3));
        assert!((alone.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        // Where the placebo scatters everything, nothing is divided by it.
        assert_eq!(places.body(1, 0.3, Placebo::Kappa(0.05), RESAMPLER).unwrap().ratio, None);
    }

    #[test]
    fn prompts_count_by_their_weight() {
        let places = Places {
            lengths: vec![2, 4],
            weights: vec![0.75, 0.25],
            states: vec![vec![1, 0, 1, 1, 1, 1]],
        };
        assert!((places.share(0, &places.all(), 1) - 0.625).abs() < 1e-12);
        let drawn = places.drawn(RESAMPLER, 3);
        assert_eq!(drawn.len(), 6);
        assert!(drawn[..2].iter().all(|(i, _)| *i < 2));
        assert!(drawn[2..].iter().all(|(i, w)| *i >= 2 && (w - 0.0625).abs() < 1e-12));
    }

    #[test]
    fn who_was_not_there_has_no_kind() {
        let places = Places {
            lengths: vec![4],
            weights: vec![1.0],
            states: vec![vec![0, 0, 0, 0], vec![1, 0, 0, 0]],
        };
        assert_eq!(places.body(1, 0.5, Placebo::None, RESAMPLER), None);
    }
}
