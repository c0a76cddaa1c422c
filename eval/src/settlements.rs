//! Owns successive settlements: several states of one model on the same seeds, from one to the next and
//! back to the base, and the four kinds of bodies that live through them. Pure: works on labels.

use crate::record::{Kind, KindRecord, SettlementStep, SettlementsRecord};
use rayon::prelude::*;
use statistics::contingency::{Block, PairedLabels, total_variation};
use statistics::depopulation::displaced;
use statistics::interval::{CiKind, Estimate, Resampler, basic, never_seen, percentile, sign_flip};
use statistics::mobility::{self, Placebo, Places, Step};
use statistics::turnover::{backward_transfer, turnover};

/// Fewest settlements after which a body's kind may be told.
pub const LEAST_SETTLEMENTS: usize = 3;
/// Most bootstrap draws behind the probabilities of the kinds.
pub const KIND_DRAWS: u32 = 200;
/// Sign flips behind each distance.
const FLIPS: u32 = 499;

/// What a placebo made of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceboState {
    /// Position of the state that it was applied to.
    pub from: usize,
    /// Category at each place.
    pub labels: Vec<u16>,
}

/// All that successive settlements are judged from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SettlementsInput<'a> {
    /// Facet.
    pub facet: &'a str,
    /// Names of the states, the base first.
    pub states: &'a [String],
    /// Categories in the order of labels: entities, concepts, none of these, withheld.
    pub categories: &'a [String],
    /// Which categories are entities or concepts, rather than none of these or withheld.
    pub bodies: &'a [bool],
    /// Who holds each place in each state.
    pub places: &'a Places,
    /// Category of the concept that each settlement brought into this facet; one entry per settlement.
    pub concepts: &'a [Option<u16>],
    /// What placebos made of some states, on the same places.
    pub placebos: &'a [PlaceboState],
    /// The last state when the settlements are made in the other order.
    pub reversed: Option<&'a [u16]>,
    /// How far each category still answers its name, after over before.
    pub addressability: &'a [Option<f64>],
}

/// Steps, distances to the base, order effect, backward transfer and kinds.
///
/// Intervals resample seeds; one seed is one trajectory through all states.
///
/// # Errors
///
/// The reason for a refusal: fewer than two states, lists of unequal length, labels without a
/// category.
pub fn settlements(
    input: &SettlementsInput<'_>,
    resampler: Resampler,
) -> Result<SettlementsRecord, String> {
    check(input)?;
    let states = &input.places.states;
    let all = input.places.all();
    let shares: Vec<Vec<f64>> = (0..states.len())
        .map(|state| {
            let of = |category: u16| input.places.share(state, &all, category);
            labels(input).map(of).collect()
        })
        .collect();
    let apart = |a: &[u16], b: &[u16]| distance(input, [a, b], resampler).estimate;
    let last = &states[states.len() - 1];
    let order = input.reversed.map(|other| distance(input, [last, other], resampler));
    let distance_to_base = states
        .iter()
        .enumerate()
        .map(|(k, state)| if k == 0 { Estimate::bare(0.0) } else { apart(&states[0], state) });
    Ok(SettlementsRecord {
        facet: input.facet.to_owned(),
        states: input.states.to_vec(),
        entities: input.categories.to_vec(),
        steps: steps(input, &shares, &apart),
        distance_to_base: distance_to_base.collect(),
        order_effect: order.as_ref().map(|order| order.estimate),
        order_floor: order.as_ref().map(|order| order.floor),
        order_p: order.as_ref().map(|order| order.p),
        backward_transfer: transfer(input, &shares),
        kinds: kinds(input, &shares, resampler),
        shares,
    })
}

fn check(input: &SettlementsInput<'_>) -> Result<(), String> {
    let (places, n_categories) = (input.places, input.categories.len());
    let n_places: usize = places.lengths.iter().sum();
    if places.states.len() < 2 {
        return Err(format!("{} states, two are needed", places.states.len()));
    }
    let per_state = [input.states.len(), input.concepts.len() + 1];
    let per_category = [input.bodies.len(), input.addressability.len()];
    if per_state.iter().any(|&n| n != places.states.len())
        || per_category.iter().any(|&n| n != n_categories)
        || places.lengths.len() != places.weights.len()
    {
        return Err("states, categories and prompts are not named one by one".to_owned());
    }
    let placebos = input.placebos.iter().map(|placebo| placebo.labels.as_slice());
    let states = places.states.iter().map(Vec::as_slice).chain(placebos).chain(input.reversed);
    for labels in states {
        if labels.len() != n_places {
            return Err(format!("a state has {} places, another {n_places}", labels.len()));
        }
        if labels.iter().any(|&label| usize::from(label) >= n_categories) {
            return Err(format!("a label is not among the {n_categories} categories"));
        }
    }
    if input.placebos.iter().any(|placebo| placebo.from >= places.states.len()) {
        return Err("a placebo was applied to a state that is not there".to_owned());
    }
    Ok(())
}

/// Labels of all categories.
fn labels(input: &SettlementsInput<'_>) -> impl Iterator<Item = u16> {
    0..u16::try_from(input.categories.len()).unwrap_or(u16::MAX)
}

/// How far two states lie apart.
struct Distance {
    /// Total variation, with an interval that holds 0 unless exchanging the states of every place at
    /// random says that something happened.
    estimate: Estimate,
    /// Its mean over such exchanges.
    floor: f64,
    /// Share of such exchanges that reach it.
    p: f64,
}

fn distance(input: &SettlementsInput<'_>, states: [&[u16]; 2], resampler: Resampler) -> Distance {
    let paired = paired(input, states);
    let apart = |positions: Option<&[Vec<usize>]>| {
        let shares = paired.shares(positions);
        total_variation(&shares.base, &shares.adapted)
    };
    if states[0] == states[1] {
        let most = never_seen(paired.pools(), 0.05, 1);
        let estimate = Estimate::with(0.0, [0.0, most], CiKind::RuleOfThree);
        return Distance { estimate, floor: 0.0, p: 1.0 };
    }
    let lengths = paired.lengths();
    let drawn: Vec<f64> = (0..resampler.draws)
        .into_par_iter()
        .map(|draw| apart(Some(&resampler.positions(draw, &lengths))))
        .collect();
    let flipped = |flips: &[bool]| {
        let (a, b) = paired.flipped(flips);
        vec![total_variation(&a, &b)]
    };
    let chance = sign_flip(resampler.seed, FLIPS, paired.n_pairs(), &flipped);
    let (floor, p) = (chance.floor[0], chance.p[0]);
    Distance { estimate: basic(apart(None), &drawn, 0.0).grounded(p), floor, p }
}

/// Two states as pairs of labels, prompt after prompt.
fn paired(input: &SettlementsInput<'_>, [before, after]: [&[u16]; 2]) -> PairedLabels {
    let mut first = 0;
    let mut blocks = Vec::new();
    for (&n, &weight) in input.places.lengths.iter().zip(&input.places.weights) {
        blocks.push(Block {
            weight,
            base: before[first..first + n].to_vec(),
            adapted: after[first..first + n].to_vec(),
            placebos: Vec::new(),
        });
        first += n;
    }
    PairedLabels { n_categories: input.categories.len(), blocks }
}

fn steps(
    input: &SettlementsInput<'_>,
    shares: &[Vec<f64>],
    distance: &dyn Fn(&[u16], &[u16]) -> Estimate,
) -> Vec<SettlementStep> {
    let states = &input.places.states;
    let seen = |state: &[u16]| -> Vec<bool> {
        let bears =
            |category: u16| state.contains(&category) && input.bodies[usize::from(category)];
        labels(input).map(bears).collect()
    };
    let mut displaced_so_far = 0.0;
    (1..states.len())
        .map(|k| {
            let newcomer = input.concepts[k - 1].map(usize::from);
            let residents: Vec<bool> =
                input.bodies.iter().enumerate().map(|(i, b)| *b && Some(i) != newcomer).collect();
            displaced_so_far += displaced(&shares[k - 1], &shares[k], &residents);
            let sets = turnover(&seen(&states[k - 1]), &seen(&states[k]));
            SettlementStep {
                to: input.states[k].clone(),
                tv: distance(&states[k - 1], &states[k]),
                displaced_so_far,
                jaccard: sets.jaccard,
                turnover: sets.turnover,
                nestedness: sets.nestedness,
            }
        })
        .collect()
}

fn transfer(input: &SettlementsInput<'_>, shares: &[Vec<f64>]) -> Option<f64> {
    let settled = input.concepts.iter().enumerate();
    let (own, rows): (Vec<usize>, Vec<Vec<f64>>) = settled
        .filter_map(|(k, concept)| concept.map(|category| (k, usize::from(category))))
        .map(|(k, category)| (k, shares[1..].iter().map(|row| row[category]).collect::<Vec<f64>>()))
        .unzip();
    backward_transfer(&rows, &own)
}

/// The kinds of the bodies that were there before any settlement; none with fewer than three.
fn kinds(
    input: &SettlementsInput<'_>,
    shares: &[Vec<f64>],
    resampler: Resampler,
) -> Vec<KindRecord> {
    let places = input.places;
    if input.concepts.len() < LEAST_SETTLEMENTS {
        return Vec::new();
    }
    let few = Resampler { draws: resampler.draws.min(KIND_DRAWS), ..resampler };
    let still: Vec<Step<'_>> = input
        .placebos
        .iter()
        .map(|p| Step { before: &places.states[p.from], after: &p.labels })
        .collect();
    let placebo = if still.is_empty() { Placebo::None } else { Placebo::Steps(&still) };
    let one = |category: u16| {
        let i = usize::from(category);
        if !input.bodies[i] || input.concepts.contains(&Some(category)) {
            return None;
        }
        let last = shares.last().map_or(0.0, |row| row[i]);
        let ceiling = ceiling(places, category, last, few);
        let body = places.body(category, ceiling, placebo, few)?;
        Some(KindRecord {
            id: input.categories[i].clone(),
            kind: Kind::from(body.kind),
            probabilities: body.probabilities,
            kappa: body.mobility.kappa,
            ratio: body.ratio,
            returns: body.mobility.returns,
            addressability: input.addressability[i],
        })
    };
    let all: Vec<u16> = labels(input).collect();
    let found: Vec<Option<KindRecord>> = all.into_par_iter().map(one).collect();
    found.into_iter().flatten().collect()
}

/// Upper end of the 95 % interval of a share in the last state.
fn ceiling(places: &Places, category: u16, last: f64, resampler: Resampler) -> f64 {
    let pools = places.weights.iter().copied().zip(places.lengths.iter().copied());
    if last <= 0.0 {
        return never_seen(pools, 0.05, 1);
    }
    let state = places.states.len().saturating_sub(1);
    let drawn: Vec<f64> = (0..resampler.draws)
        .map(|draw| places.share(state, &places.drawn(resampler, draw), category))
        .collect();
    percentile(&drawn, 0.95).map_or(last, |[_, high]| high.max(last))
}

impl From<mobility::Kind> for Kind {
    fn from(kind: mobility::Kind) -> Self {
        match kind {
            mobility::Kind::Circulating => Self::Circulating,
            mobility::Kind::SometimesStops => Self::SometimesStops,
            mobility::Kind::Sedentary => Self::Sedentary,
            mobility::Kind::Vanquished => Self::Vanquished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLER: Resampler = Resampler { seed: 6, draws: 200 };
    const PLACES: u16 = 120;

    /// Boats, towers and houses in turn; a cylinder, a second concept, none, withheld.
    const NAMES: [&str; 7] = ["boat", "tower", "house", "cylinder", "prism", "∅", "∅:blocked"];
    const BODIES: [bool; 7] = [true, true, true, true, true, false, false];

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    fn state(holder: &dyn Fn(u16) -> u16) -> Vec<u16> {
        (0..PLACES).map(holder).collect()
    }

    /// The cylinder takes half of the boats' places, then the prism half of its own.
    fn world() -> Places {
        let base = |i: u16| i % 3;
        let first = |i: u16| if i.is_multiple_of(6) { 3 } else { i % 3 };
        let second = |i: u16| if i.is_multiple_of(12) { 4 } else { first(i) };
        Places {
            lengths: vec![80, 40],
            weights: vec![2.0 / 3.0, 1.0 / 3.0],
            states: vec![state(&base), state(&first), state(&second), state(&second)],
        }
    }

    struct Whole {
        states: Vec<String>,
        categories: Vec<String>,
        places: Places,
        concepts: Vec<Option<u16>>,
    }

    impl Whole {
        fn new(places: Places, concepts: Vec<Option<u16>>) -> Self {
            let all = ["base", "one", "two", "three"];
            Self {
                states: names(&all[..places.states.len()]),
                categories: names(&NAMES),
                places,
                concepts,
            }
        }

        fn input(&self) -> SettlementsInput<'_> {
            SettlementsInput {
                facet: "subject",
                states: &self.states,
                categories: &self.categories,
                bodies: &BODIES,
                places: &self.places,
                concepts: &self.concepts,
                placebos: &[],
                reversed: None,
                addressability: &[Some(1.0), None, None, None, None, None, None],
            }
        }
    }

    #[test]
    fn each_step_counts_what_it_displaced_and_who_came() {
        let whole = Whole::new(world(), vec![Some(3), Some(4), None]);
        let found = settlements(&whole.input(), RESAMPLER).unwrap();
        assert_eq!(found.entities.len(), 7);
        let close = |a: f64, b: f64| (a - b).abs() < 0.02;
        assert!(found.shares.iter().all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-9));
        let [one, two, three] = &found.steps[..] else { panic!("three steps") };
        assert!(
            close(one.tv.value, 1.0 / 6.0) && close(one.displaced_so_far, 1.0 / 6.0),
            "{one:?}"
        );
        assert!(one.tv.ci.unwrap()[0] > 0.0, "{one:?}");
        assert!(close(two.tv.value, 1.0 / 12.0) && close(two.displaced_so_far, 0.25), "{two:?}");
        assert!(close(three.displaced_so_far, 0.25), "{three:?}");
        assert_eq!(three.tv.ci_kind, Some(CiKind::RuleOfThree));
        assert!(three.tv.value.abs() < f64::EPSILON);
        // Three bodies of four were there before; nobody left.
        assert!((one.jaccard - 0.25).abs() < 1e-12 && one.turnover.abs() < 1e-12, "{one:?}");
        assert!(found.distance_to_base[0].value.abs() < f64::EPSILON);
        assert!(close(found.distance_to_base[3].value, 1.0 / 6.0));
        // The cylinder kept half of its places; nothing followed the prism but a state without one.
        assert!(close(found.backward_transfer.unwrap(), -1.0 / 24.0), "{found:?}");
    }

    #[test]
    fn bodies_that_were_there_have_kinds_and_newcomers_have_none() {
        let whole = Whole::new(world(), vec![Some(3), Some(4), None]);
        let found = settlements(&whole.input(), RESAMPLER).unwrap();
        let ids: Vec<&str> = found.kinds.iter().map(|kind| kind.id.as_str()).collect();
        assert_eq!(ids, ["boat", "tower", "house"]);
        for kind in &found.kinds[1..] {
            assert_eq!(kind.kind, Kind::Sedentary, "{kind:?}");
            assert!(
                (kind.probabilities[2] - 1.0).abs() < 1e-12 && kind.ratio.is_none(),
                "{kind:?}"
            );
        }
        assert_eq!(found.kinds[0].addressability, Some(1.0));
        let two = Places { states: world().states[..3].to_vec(), ..world() };
        let short = Whole::new(two, vec![Some(3), Some(4)]);
        assert!(settlements(&short.input(), RESAMPLER).unwrap().kinds.is_empty());
    }

    #[test]
    fn a_body_that_circulates_even_under_a_placebo_is_not_blamed_for_it() {
        // Boats and towers exchange all places at every step; a placebo takes a quarter of the boats.
        let turned = |k: u16| {
            move |i: u16| if (i / 6) % 2 == k % 2 && i % 3 < 2 { 1 - i % 3 } else { i % 3 }
        };
        let states =
            vec![state(&turned(0)), state(&turned(1)), state(&turned(0)), state(&turned(1))];
        let places = Places { lengths: vec![120], weights: vec![1.0], states: states.clone() };
        let whole = Whole::new(places, vec![None; 3]);
        let alone = settlements(&whole.input(), RESAMPLER).unwrap();
        assert_eq!(alone.kinds[0].kind, Kind::Circulating, "{:?}", alone.kinds);
        let half = |i: u16| if i % 12 == 1 { 1 } else { turned(0)(i) };
        let placebos = [PlaceboState { from: 0, labels: state(&half) }];
        let with = SettlementsInput { placebos: &placebos, ..whole.input() };
        let found = settlements(&with, RESAMPLER).unwrap();
        let ratio = found.kinds[0].ratio.unwrap();
        assert!(
            (ratio - found.kinds[0].kappa / placebo_kappa(&states[0], &state(&half))).abs() < 1e-9
        );
    }

    fn placebo_kappa(before: &[u16], after: &[u16]) -> f64 {
        let places: Vec<(usize, f64)> = (0..before.len()).map(|i| (i, 1.0)).collect();
        mobility::mobility(&[Step { before, after }], &places, 0).unwrap().kappa
    }

    #[test]
    fn the_order_of_settlements_is_told_apart() {
        let whole = Whole::new(world(), vec![Some(3), Some(4), None]);
        let same = whole.places.states[3].clone();
        let input = SettlementsInput { reversed: Some(&same), ..whole.input() };
        let nothing = settlements(&input, RESAMPLER).unwrap().order_effect.unwrap();
        assert_eq!(nothing.value.to_bits(), 0.0_f64.to_bits());
        let base = whole.places.states[0].clone();
        let input = SettlementsInput { reversed: Some(&base), ..whole.input() };
        let record = settlements(&input, RESAMPLER).unwrap();
        let (floor, p) = (record.order_floor.unwrap(), record.order_p.unwrap());
        assert!(floor > 0.0 && floor < 0.1 && p < 0.01, "{floor} {p}");
        let much = record.order_effect.unwrap();
        assert!((much.value - 1.0 / 6.0).abs() < 0.02 && much.ci.unwrap()[0] > 0.0, "{much:?}");
    }

    #[test]
    fn states_that_do_not_belong_together_are_refused() {
        let refused = |places: Places, concepts: Vec<Option<u16>>| {
            settlements(&Whole::new(places, concepts).input(), RESAMPLER).unwrap_err()
        };
        let one = Places { states: world().states[..1].to_vec(), ..world() };
        assert!(refused(one, Vec::new()).contains("two are needed"));
        let mut short = world();
        short.states[2].truncate(7);
        assert!(refused(short, vec![None; 3]).contains("7 places"));
        let mut wrong = world();
        wrong.states[1][0] = 7;
        assert!(refused(wrong, vec![None; 3]).contains("7 categories"));
        assert!(refused(world(), vec![None; 2]).contains("one by one"));
    }
}
