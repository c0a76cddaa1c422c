//! Known answers of successive settlements: their order, and the four kinds of bodies.

use crate::answer::{Answer, Check};
use eval::EvalError;
use eval::settlements::{SettlementsInput, settlements};
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use serde_json::json;
use statistics::contingency::disagreement;
use statistics::drawn::categorical;
use statistics::interval::Resampler;
use statistics::mobility::{Body, Kind, Placebo, Places};
use statistics::number::{mean, real};

/// Places, settlements, places that each settlement takes.
const PLACES: usize = 2000;
const SETTLEMENTS: u16 = 6;
const TAKEN: usize = 80;
/// Shares of the eight bodies at the start.
const START: [f64; 8] = [0.15, 0.10, 0.15, 0.10, 0.15, 0.15, 0.12, 0.08];
/// What they are: two of each kind.
const KINDS: [Kind; 8] = [
    Kind::Circulating,
    Kind::Circulating,
    Kind::SometimesStops,
    Kind::SometimesStops,
    Kind::Sedentary,
    Kind::Sedentary,
    Kind::Vanquished,
    Kind::Vanquished,
];
/// Probability with which those that sometimes stop, and the vanquished, leave a place.
const LEAVING: f64 = 0.45;
/// κ of every body under a placebo.
const STILL: f64 = 0.98;
/// Mean κ of each body over 400 worlds drawn with numpy.
const KAPPA: [f64; 8] = [0.262, 0.167, 0.541, 0.537, 0.953, 0.953, 0.521, 0.520];
/// Likewise, from the base to the first settlement: discordance, quantity, exchange, shift.
const PARTS: [f64; 4] = [0.387, 0.094, 0.193, 0.100];
/// Worlds over which κ and these parts are averaged, and bootstrap draws in each.
const WORLDS: u64 = 16;
const DRAWS: u32 = 200;

/// What is said of one body, its share in the last state given.
type Told<'a> = &'a (dyn Fn(&Places, u16, f64, Resampler) -> Option<Body> + Sync);

/// KAT `mobility`: 2000 places through six settlements; two bodies circulate, two sometimes stop, two
/// sit, two give up. All eight are told in every world, and the first discordance splits exactly.
///
/// # Errors
///
/// None.
pub fn mobility(seed: u64) -> Result<Answer, EvalError> {
    let told = |places: &Places, body: u16, last: f64, resampler: Resampler| {
        places.body(body, last, Placebo::Kappa(STILL), resampler)
    };
    Ok(mobility_with(seed, &told))
}

fn mobility_with(seed: u64, told: Told<'_>) -> Answer {
    let worlds: Vec<Outcome> =
        (0..WORLDS).into_par_iter().map(|world| Outcome::of(seed, world, told)).collect();
    let least = |of: &dyn Fn(&Outcome) -> f64| worlds.iter().map(of).fold(f64::INFINITY, f64::min);
    let middle = |of: &dyn Fn(&Outcome) -> f64| {
        mean(&worlds.iter().map(of).collect::<Vec<f64>>()).unwrap_or(f64::NAN)
    };
    let named = least(&|world: &Outcome| world.named);
    let mut checks = vec![Check::new("bodies of their kind in the worst world", named, 8.0, 0.0)];
    for (body, expected) in KAPPA.into_iter().enumerate() {
        let probability = least(&|world: &Outcome| world.probabilities[body]);
        let kappa = middle(&|world: &Outcome| world.kappa[body]);
        let what = format!("least probability of the kind of body {body}");
        checks.push(Check::at_least(what, probability, 0.95));
        checks.push(Check::new(format!("mean κ of body {body}"), kappa, expected, 0.06));
    }
    let names = ["discordance", "quantity", "exchange", "shift"];
    for (i, (name, expected)) in names.into_iter().zip(PARTS).enumerate() {
        checks.push(Check::new(name, middle(&|world: &Outcome| world.parts[i]), expected, 0.02));
    }
    let rest = |world: &Outcome| world.parts[0] - world.parts[1..].iter().sum::<f64>();
    let apart = worlds.iter().map(|world| rest(world).abs()).fold(0.0, f64::max);
    checks.push(Check::at_most("discordance less its three parts", apart, 1e-12));
    let inputs = json!({
        "places": PLACES, "settlements": SETTLEMENTS, "taken": TAKEN, "start": START,
        "leaving": LEAVING, "placebo_kappa": STILL, "worlds": WORLDS, "draws": DRAWS,
        "first_states": script(seed, 0)[..2],
    });
    Answer { name: "mobility", checks, inputs }
}

/// One world.
struct Outcome {
    /// Bodies whose kind was told rightly.
    named: f64,
    /// Probability of the right kind, per body.
    probabilities: [f64; 8],
    /// κ per body.
    kappa: [f64; 8],
    /// Discordance, quantity, exchange and shift from the base to the first settlement.
    parts: [f64; 4],
}

impl Outcome {
    fn of(seed: u64, world: u64, told: Told<'_>) -> Self {
        let places =
            Places { lengths: vec![PLACES], weights: vec![1.0], states: script(seed, world) };
        let resampler = Resampler { seed: seed.wrapping_mul(1_000_003) ^ world, draws: DRAWS };
        let all = places.all();
        let mut outcome = Self {
            named: 0.0,
            probabilities: [f64::NAN; 8],
            kappa: [f64::NAN; 8],
            parts: [f64::NAN; 4],
        };
        for (body, kind) in (0_u16..).zip(KINDS) {
            let last = places.share(usize::from(SETTLEMENTS), &all, body);
            let Some(found) = told(&places, body, last, resampler) else { continue };
            let i = usize::from(body);
            outcome.named += f64::from(u8::from(found.kind == kind));
            outcome.probabilities[i] = found.probabilities[kind as usize];
            outcome.kappa[i] = found.mobility.kappa;
        }
        if let Some(parts) = disagreement(&first_table(&places)) {
            outcome.parts = [parts.discordance, parts.quantity, parts.exchange, parts.shift];
        }
        outcome
    }
}

/// Pairs from the base to the first settlement.
fn first_table(places: &Places) -> Vec<Vec<u64>> {
    let n = START.len() + 1;
    let mut table = vec![vec![0; n]; n];
    for (before, after) in places.states[0].iter().zip(&places.states[1]) {
        table[usize::from(*before)][usize::from(*after)] += 1;
    }
    table
}

/// The states of one world: bodies 0 to 7, and body 7 + k that settlement k brings.
fn script(seed: u64, world: u64) -> Vec<Vec<u16>> {
    let mut stream = draws::stream(seed, world, 0, Purpose::Scene);
    let mut states: Vec<Vec<u16>> =
        vec![(0..PLACES).map(|_| small(categorical(&START, &mut stream))).collect()];
    for k in 1..=SETTLEMENTS {
        let mut stream = draws::stream(seed, world, u64::from(k), Purpose::Scene);
        let next = states.last().map(|before| settled(before, 7 + k, &mut stream));
        states.extend(next);
    }
    states
}

fn small(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// The state after `newcomer` took its places, and those who were driven out or left took others.
fn settled(before: &[u16], newcomer: u16, stream: &mut draws::Stream) -> Vec<u16> {
    let mut order: Vec<usize> = (0..before.len()).collect();
    draws::shuffle(stream, &mut order);
    let mut after = before.to_vec();
    let (mut wanted, mut vacated) = ([0_usize; 8], Vec::new());
    let mut taken = vec![false; before.len()];
    for &place in &order[..TAKEN] {
        taken[place] = true;
        after[place] = newcomer;
        if let Some(kind) = KINDS.get(usize::from(before[place])) {
            wanted[usize::from(before[place])] += usize::from(*kind != Kind::Vanquished);
        }
    }
    for (place, body) in before.iter().enumerate().filter(|(place, _)| !taken[*place]) {
        let i = usize::from(*body);
        let Some(kind) = KINDS.get(i) else { continue };
        if leaves(*kind, stream) {
            vacated.push(place);
            wanted[i] += usize::from(*kind != Kind::Vanquished);
        }
    }
    draws::shuffle(stream, &mut vacated);
    let takers = takers(&wanted, vacated.len(), newcomer, stream);
    for (place, taker) in vacated.into_iter().zip(takers) {
        after[place] = taker;
    }
    after
}

fn leaves(kind: Kind, stream: &mut draws::Stream) -> bool {
    match kind {
        Kind::Circulating => true,
        Kind::SometimesStops | Kind::Vanquished => draws::uniform(stream) < LEAVING,
        Kind::Sedentary => false,
    }
}

/// Who takes the `room` vacated places: the sedentary first, then the rest by number; if places lack,
/// the rest is shuffled and cut; what is left over goes to the newcomer.
fn takers(wanted: &[usize; 8], room: usize, newcomer: u16, stream: &mut draws::Stream) -> Vec<u16> {
    let those = |sedentary: bool| -> Vec<u16> {
        let bodies = wanted.iter().enumerate();
        bodies
            .filter(|(i, _)| (KINDS[*i] == Kind::Sedentary) == sedentary)
            .flat_map(|(i, &n)| std::iter::repeat_n(small(i), n))
            .collect()
    };
    let (mut takers, mut rest) = (those(true), those(false));
    if takers.len() + rest.len() > room {
        draws::shuffle(stream, &mut rest);
    }
    takers.extend(rest);
    takers.resize(takers.len().max(room), newcomer);
    takers.truncate(room);
    takers
}

/// Total variation between a settlement followed by another and the other followed by the first, given
/// the base and both outcomes.
type OrderEffect<'a> = &'a dyn Fn(&[u16], &[u16], &[u16]) -> Option<f64>;

/// Share of the places that a settlement of `order` takes.
const SETTLED: f64 = 0.3;

/// KAT `order`: a settlement and a zero adapter leave the same behind in either order, exactly; two
/// settlements that each take three places of ten leave shares that differ by .3 × .3.
///
/// # Errors
///
/// None.
pub fn order(_seed: u64) -> Result<Answer, EvalError> {
    Ok(order_with(&order_effect))
}

fn order_with(effect: OrderEffect<'_>) -> Answer {
    let base: Vec<u16> = (0..PLACES).map(|i| small(i % 3)).collect();
    let (nothing, one, other) = (None, Some((3, 1)), Some((4, 2)));
    let both = |first, second| taken(&taken(&base, first), second);
    let of = |first, second| {
        effect(&base, &both(first, second), &both(second, first)).unwrap_or(f64::NAN)
    };
    let last = both(nothing, one);
    let moved = last.iter().zip(&both(one, nothing)).filter(|(a, b)| a != b).count();
    Answer {
        name: "order",
        checks: vec![
            Check::new("order effect of a zero adapter", of(one, nothing), 0.0, 0.0),
            Check::new("places that its order moved", real(moved), 0.0, 0.0),
            Check::new("order effect of two settlements", of(one, other), 0.09, 0.03),
        ],
        inputs: json!({
            "places": PLACES, "settled": SETTLED, "last": last, "base": base,
            "one_then_other": both(one, other), "other_then_one": both(other, one),
        }),
    }
}

/// The places after a settlement: each is taken with its own draw, which no other settlement shares.
fn taken(before: &[u16], settlement: Option<(u16, u64)>) -> Vec<u16> {
    let Some((newcomer, key)) = settlement else { return before.to_vec() };
    let one = |(place, body): (usize, &u16)| {
        let mut stream = draws::stream(key, place as u64, 0, Purpose::PromptMix);
        if draws::uniform(&mut stream) < SETTLED { newcomer } else { *body }
    };
    before.iter().enumerate().map(one).collect()
}

fn order_effect(base: &[u16], one_way: &[u16], other_way: &[u16]) -> Option<f64> {
    let states = ["base", "settled"].map(str::to_owned);
    let categories: Vec<String> = (0..5).map(|body| format!("body-{body}")).collect();
    let places = Places {
        lengths: vec![base.len()],
        weights: vec![1.0],
        states: vec![base.to_vec(), one_way.to_vec()],
    };
    let input = SettlementsInput {
        facet: "subject",
        states: &states,
        categories: &categories,
        bodies: &[true; 5],
        places: &places,
        concepts: &[None],
        placebos: &[],
        reversed: Some(other_way),
        addressability: &[None; 5],
    };
    let record = settlements(&input, Resampler { seed: 1, draws: 20 });
    record.ok()?.order_effect.map(|effect| effect.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use statistics::mobility::{Mobility, kind};

    #[test]
    fn mobility_is_known() {
        let answer = mobility(1).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
    }

    #[test]
    fn raw_stay_files_a_circulating_body_among_those_that_sometimes_stop() {
        let raw = |places: &Places, body: u16, last: f64, resampler: Resampler| {
            let found = places.body(body, last, Placebo::Kappa(STILL), resampler)?;
            let mobility = Mobility { kappa: found.mobility.stay, ..found.mobility };
            let first = places.share(0, &places.all(), body);
            let kind = kind(mobility, mobility.kappa / STILL, first, last);
            Some(Body { kind, mobility, ..found })
        };
        let answer = mobility_with(1, &raw);
        let failed: Vec<&str> =
            answer.checks.iter().filter(|c| !c.holds()).map(|c| c.what.as_str()).collect();
        assert!(failed.contains(&"bodies of their kind in the worst world"), "{failed:?}");
        assert!(failed.contains(&"mean κ of body 0"), "{failed:?}");
    }

    #[test]
    fn a_settlement_takes_its_places_and_loses_none() {
        let states = script(1, 0);
        assert_eq!(states.len(), 7);
        for (k, state) in (8_u16..).zip(&states[1..]) {
            assert_eq!(state.len(), PLACES);
            assert!(state.iter().filter(|body| **body == k).count() >= TAKEN);
            assert!(state.iter().all(|body| *body <= k));
        }
    }

    #[test]
    fn order_is_known() {
        let answer = order(1).unwrap();
        assert!(answer.holds(), "{:?}", answer.checks);
    }

    #[test]
    fn orders_that_are_compared_with_the_base_instead_fail() {
        let mutant = |base: &[u16], one_way: &[u16], _: &[u16]| order_effect(base, one_way, base);
        assert!(!order_with(&mutant).holds());
    }
}
