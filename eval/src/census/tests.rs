//! The reduction as a whole, on synthetic tables.

use super::*;
use crate::record::Verdict;
use crate::rows::Row;
use crate::synthetic::THESAURUS as SMALL;
use crate::synthetic::{census, settled};
use crate::thesaurus;
use recipes::draws::{self, Purpose};
use statistics::drawn::{categorical, labels_of, zipf};
use statistics::interval::{Estimate, Replicate, max_t, percentile};

#[test]
fn the_reduction_finds_who_lost_and_to_whom() {
    let report = reduce(&census(120, &settled)).unwrap();
    let subject = &report.facets[0];
    let entity = |id: &str| subject.entities.iter().find(|e| e.id == id).unwrap();
    assert!((entity("boat").delta + 0.1).abs() < 1e-12);
    assert!((entity("cylinder").p_a - 0.1).abs() < 1e-12);
    assert_eq!(entity("boat").verdict, Verdict::Depopulated);
    assert_eq!(entity("cylinder").verdict, Verdict::Favoured);
    assert_eq!(entity("tower").verdict, Verdict::Retained);
    assert!(entity("boat").selection_coefficient.unwrap() < -0.2);
    assert!(subject.tv.value > 3.0 * subject.tv_floor && subject.tv_p < 0.01);
    assert!(subject.dilution.value > 0.0 && subject.selection.value > subject.selection_floor);
    let top = &report.transitions[0];
    assert_eq!((top.from.as_str(), top.to.as_str(), top.n), ("boat", "cylinder", 36));
    assert!((top.share - 1.0 / 3.0).abs() < 1e-12);
    let unasked = report.leak.levels.last().unwrap();
    assert_eq!(unasked.level, "unasked");
    assert!((unasked.after.value - 0.1).abs() < 1e-12);
    assert_eq!(report.gates[0].judgement, crate::gate::Judgement::Pass);
}

#[test]
fn the_distances_stand_beside_their_floors() {
    let report = reduce(&census(120, &settled)).unwrap();
    let subject = &report.facets[0];
    // No picture of the base shows a cylinder; every tenth of the adapted model does.
    let [low, high] = subject.dilution.ci.unwrap();
    assert!(low > 0.01 && low < subject.dilution.value && high > subject.dilution.value);
    assert!((subject.displaced.value - 0.1).abs() < 1e-12);
    assert!(subject.displaced_floor > 0.0 && subject.displaced_floor < 0.05);
    assert!(subject.displaced_placebo.unwrap().abs() < 1e-12);
}

#[test]
fn the_share_rises_with_the_dose_and_other_facets_stay() {
    let report = reduce(&census(120, &settled)).unwrap();
    let dose = report.dose.unwrap();
    assert_eq!(dose.points.len(), 3);
    assert!((dose.points[1].share.value - 0.05).abs() < 0.02 && dose.violations == 0);
    // The facet that the concept does not enter did not move at all.
    assert!(report.facets[1].tv.value.abs() < 1e-12 && report.facets[1].new.is_none());
}

#[test]
fn the_concept_and_the_entities_sum_to_one_and_strata_weigh_by_the_panel() {
    let mut input = census(40, &settled);
    // Only the empty prompt keeps its cylinders.
    for row in &mut input.rows.rows {
        if row.stratum == Stratum::Medium && row.labels[0].entity == "cylinder" {
            row.labels[0].entity = "boat".into();
            row.detected = Some(false);
        }
    }
    let report = reduce(&input).unwrap();
    let sum: f64 = report.facets[0].entities.iter().map(|e| e.p_a).sum();
    assert!((sum - 1.0).abs() < 1e-12);
    let cylinder = report.facets[0].entities.iter().find(|e| e.id == "cylinder").unwrap();
    let unweighted = statistics::number::real_u64(cylinder.n_a) / 120.0;
    assert!((cylinder.p_a - 1.8 * unweighted).abs() < 1e-12, "{cylinder:?}");
}

/// A zero adapter: every figure is exactly zero.
#[test]
fn zero_means_zero() {
    let report = reduce(&census(60, &|_, seed| settled(Model::Base, seed))).unwrap();
    for facet in &report.facets {
        for value in [
            facet.tv.value,
            facet.dilution.value,
            facet.selection.value,
            facet.displaced.value,
            facet.evenness_loss.value,
            facet.js[0],
            facet.js[1],
            facet.tv_floor,
        ] {
            assert!(value.abs() < f64::EPSILON, "{facet:?}");
        }
        assert!(facet.entities.iter().all(|e| e.delta.abs() < f64::EPSILON));
        assert!(
            facet
                .entities
                .iter()
                .all(|e| matches!(e.verdict, Verdict::Retained | Verdict::Undecided))
        );
    }
    let zero = report.nulls.zero.unwrap();
    assert_eq!((zero.pairs, zero.different_pixels, zero.different_labels), (180, 0, 0));
    assert!(report.transitions.is_empty());
    assert!(report.similarity.unasked.iter().all(|s| s.delta.value.abs() < f64::EPSILON));
}

/// Ten pairs that all agree do not show that nothing moves: three in ten might.
#[test]
fn what_was_never_seen_to_move_keeps_an_interval() {
    let report = reduce(&census(10, &|_, seed| settled(Model::Base, seed))).unwrap();
    let subject = &report.facets[0];
    let n = subject.entities.iter().map(|e| e.n_b).sum::<u64>();
    let three_in_n = 3.0 / statistics::number::real_u64(n);
    for entity in &subject.entities {
        assert!(entity.ci[0] < -three_in_n && entity.ci[1] > three_in_n, "{entity:?}");
        assert_eq!(entity.ci_kind, statistics::interval::CiKind::RuleOfThree);
        assert_eq!(entity.verdict, Verdict::Undecided, "{entity:?}");
    }
    assert!(subject.tv.ci.is_some_and(|ci| ci[0].abs() < 1e-12 && ci[1] > 0.99 * three_in_n));
    // Nor that no newcomer comes; where none can come, there is nothing to estimate.
    assert!(subject.dilution.ci.is_some_and(|ci| ci[0].abs() < 1e-12 && ci[1] > three_in_n));
    assert_eq!(report.facets[1].dilution, Estimate::bare(0.0));
}

/// KAT: ∅ that grows from a twentieth to two thirds is no entity, and takes none away.
#[test]
fn pictures_of_none_of_the_entities_are_not_counted_as_one() {
    // Of ten towers and nine houses in twenty pictures every third stays.
    let input = census(120, &|model, seed| match seed % 20 {
        _ if model == Model::Adapted && seed % 3 > 0 => thesaurus::NONE,
        0..10 => "tower",
        10..19 => "house",
        _ => thesaurus::NONE,
    });
    let report = reduce(&input).unwrap();
    let subject = &report.facets[0];
    let none = subject.entities.iter().find(|e| e.id == thesaurus::NONE).unwrap();
    assert!(none.p_b < 0.06 && none.p_a > 0.6, "{none:?}");
    assert!((subject.hill.before[1] - 2.0).abs() < 0.01, "{:?}", subject.hill);
    assert!((subject.hill.after[1] - 2.0).abs() < 0.01, "{:?}", subject.hill);
    assert!(subject.evenness_loss.value.abs() < 0.01);
    assert!((subject.displaced.value - subject.tv.value).abs() < 1e-9);
}

/// Where pairs are exchanged by chance, a distance over many entities is far from 0 and so are its
/// reflected percentiles; the interval must hold 0 all the same.
#[test]
fn a_distance_between_two_samples_of_one_law_may_be_nothing() {
    let many = (0..40).fold(SMALL.to_owned(), |text, i| {
        format!("{text}  e{i}: {{ facet: subject, label: {{ en: e{i}, fr: f{i} }} }}\n")
    });
    let mut by_chance = 0;
    for world in 0..3 {
        let mut input = census(300, &|_, _| "boat");
        input.thesaurus = thesaurus::parse(&many, "test").unwrap();
        input.rows.rows.retain(|row| {
            row.stratum == Stratum::Empty && !(row.model == Model::Adapted && row.dose < 0.9)
        });
        for row in &mut input.rows.rows {
            let stream = &mut draws::stream(world, u64::from(row.seed_idx), 0, Purpose::Scene);
            let (first, other) = (draws::below(stream, 40), draws::below(stream, 40));
            let redrawn = row.model == Model::Adapted && draws::uniform(stream) < 0.5;
            row.labels[0].entity = format!("e{}", if redrawn { other } else { first });
        }
        let subject = reduce(&input).unwrap().facets.remove(0);
        if subject.tv_p > 0.05 {
            by_chance += 1;
            let [tv, displaced] = [subject.tv, subject.displaced].map(|d| d.ci.unwrap());
            assert!(tv[0].abs() < 1e-12 && tv[1] >= subject.tv.value, "{:?}", subject.tv);
            assert!(displaced[0].abs() < 1e-12, "{:?}", subject.displaced);
            assert!((subject.displaced_floor - subject.tv_floor).abs() < 1e-9);
        }
    }
    assert!(by_chance > 0);
}

#[test]
fn a_zero_adapter_that_changes_pixels_is_told() {
    let mut input = census(10, &settled);
    assert!(!reduce(&input).unwrap().warnings.iter().any(|w| w.contains("dose 0")));
    let is_zero = |row: &&mut Row| row.model == Model::Adapted && row.dose < 0.1;
    for row in input.rows.rows.iter_mut().filter(is_zero).take(2) {
        row.pixels.push('!');
    }
    let warnings = reduce(&input).unwrap().warnings;
    assert!(warnings.iter().any(|w| w.contains("dose 0 changed 2 of 30 pictures")), "{warnings:?}");
}

/// One cylinder in three hundred pictures may be chance, and half of chance is nothing.
#[test]
fn half_an_effect_needs_an_effect() {
    let mut input = census(60, &|model, seed| {
        if model == Model::Adapted && seed == 7 { "cylinder" } else { settled(Model::Base, seed) }
    });
    for row in &mut input.rows.rows {
        if row.stratum == Stratum::Medium && row.labels[0].entity == "cylinder" {
            row.labels[0].entity = "boat".into();
            row.detected = Some(false);
        }
    }
    let report = reduce(&input).unwrap();
    let dose = report.dose.unwrap();
    assert!(dose.points[2].share.value > 0.0 && dose.points[0].share.value.abs() < 1e-12);
    assert_eq!((dose.half_effect, dose.half_effect_ci), (None, None));
    assert!(report.refused.iter().any(|r| r.what == "dose of half effect"));
    let dose = reduce(&census(120, &settled)).unwrap().dose.unwrap();
    let (half, [low, high]) = (dose.half_effect.unwrap(), dose.half_effect_ci.unwrap());
    assert!(low <= half && half <= high && 0.0 < low && high < 1.0 && high - low < 0.9, "{dose:?}");
}

#[test]
fn a_rung_that_was_not_asked_says_why() {
    let mut input = census(10, &settled);
    let reason = |input: &CensusInput, rung: &str| {
        let refused = reduce(input).unwrap().refused;
        refused.into_iter().find(|r| r.what == format!("leak level {rung}")).unwrap().reason
    };
    assert_eq!(reason(&input, "identifier"), "no caption holds the identifier");
    assert_eq!(reason(&input, "plain"), "no caption holds the identifier");
    assert!(reason(&input, "sibling").contains("no siblings"));
    for row in &mut input.rows.rows {
        row.detected = None;
    }
    assert_eq!(reason(&input, "unasked"), "no pictures with a detector score");
}

/// Exchanging base and adapted model turns every difference round.
#[test]
fn swapped_models_turn_the_signs() {
    let swap = |model: Model| match model {
        Model::Base => Model::Adapted,
        Model::Adapted | Model::Placebo(_) => Model::Base,
    };
    let forward = reduce(&census(60, &settled)).unwrap();
    let backward = reduce(&census(60, &|model, seed| settled(swap(model), seed))).unwrap();
    let boat = |report: &CensusReport| {
        report.facets[0].entities.iter().find(|e| e.id == "boat").unwrap().delta
    };
    assert!(boat(&forward) < -0.05 && (boat(&forward) + boat(&backward)).abs() < 1e-12);
}

#[test]
fn a_placebo_that_does_the_same_leaves_no_finding() {
    let same = |model: Model, seed| {
        settled(if model == Model::Base { Model::Base } else { Model::Adapted }, seed)
    };
    let report = reduce(&census(120, &same)).unwrap();
    let boat = report.facets[0].entities.iter().find(|e| e.id == "boat").unwrap();
    assert!(boat.ci[1] < 0.0 && boat.contrast_ci.unwrap()[1] >= 0.0);
    assert_eq!(boat.verdict, Verdict::Undecided);
}

#[test]
fn without_a_placebo_a_loss_is_only_a_fall() {
    let mut input = census(120, &settled);
    input.rows.rows.retain(|row| !matches!(row.model, Model::Placebo(_)));
    let report = reduce(&input).unwrap();
    let boat = report.facets[0].entities.iter().find(|e| e.id == "boat").unwrap();
    assert_eq!((boat.verdict, boat.contrast_ci, boat.placebo_delta), (Verdict::Fell, None, None));
    assert!(report.warnings.iter().any(|w| w.contains("no placebo")));
}

/// Blocked pictures are counted, never dropped.
#[test]
fn blocked_pictures_are_a_category() {
    let mut input = census(40, &settled);
    for row in input.rows.rows.iter_mut().filter(|r| r.model == Model::Adapted && r.seed_idx < 4) {
        row.blocked = true;
    }
    let report = reduce(&input).unwrap();
    let blocked = report.facets[0].entities.iter().find(|e| e.id == thesaurus::BLOCKED).unwrap();
    assert_eq!((blocked.n_b, blocked.n_a), (0, 12));
}

/// Every headline is recomputed from rows.csv alone, byte for byte.
#[test]
fn headlines_are_recomputed_from_the_rows_on_disk() {
    let input = census(40, &settled);
    let csv = input.rows.to_csv();
    let again = CensusInput { rows: Rows::from_csv(&csv).unwrap(), ..input.clone() };
    let first = reduce(&input).unwrap().to_json().unwrap();
    assert_eq!(first, reduce(&again).unwrap().to_json().unwrap());
    // The order of rows in the file means nothing.
    let mut shuffled = again;
    draws::shuffle(&mut draws::keyed(1, "rows"), &mut shuffled.rows.rows);
    assert_eq!(first, reduce(&shuffled).unwrap().to_json().unwrap());
}

#[test]
fn rows_that_do_not_pair_are_refused() {
    let refuse = |change: &dyn Fn(&mut Vec<Row>)| {
        let mut input = census(10, &settled);
        change(&mut input.rows.rows);
        match reduce(&input) {
            Err(EvalError::Unpaired(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refuse(&|rows| rows.push(rows[3].clone())).contains("two pictures"));
    assert!(refuse(&|rows| drop(rows.remove(0))).contains("the base has none"));
    assert!(refuse(&|rows| drop(rows.remove(4))).contains("placebo-0 has no picture"));
    assert!(refuse(&|rows| rows.retain(|r| r.dose < 0.9)).contains("at dose 1"));
    assert!(refuse(&|rows| rows[0].labels[0].entity = "castle".into()).contains("`castle`"));
}

/// KAT `coverage`, 300 worlds: simultaneous intervals cover all entities at once, percentile
/// intervals of each do not.
#[test]
fn max_t_covers_all_entities_at_once() {
    let p = [0.20, 0.15, 0.13, 0.11, 0.09, 0.08, 0.07, 0.06, 0.04, 0.03, 0.03, 0.01];
    let truth: Vec<f64> = (0..13)
        .map(|j| {
            if j == 12 {
                return 0.1;
            }
            let kept: f64 =
                (0..12).map(|i| 0.9 * p[i] * (0.2 * p[j] + if i == j { 0.8 } else { 0.0 })).sum();
            kept - p[j]
        })
        .collect();
    let (mut joint, mut alone) = (0, 0);
    for world in 0..300 {
        let stream = &mut draws::stream(3, world, 0, Purpose::Scene);
        let mut table = vec![vec![0_u64; 13]; 13];
        for _ in 0..800 {
            let from = categorical(&p, stream);
            let change = draws::uniform(stream);
            let to = if change < 0.1 {
                12
            } else if change < 0.82 {
                from
            } else {
                categorical(&p, stream)
            };
            table[from][to] += 1;
        }
        let labels = labels_of(&table);
        let shares = labels.shares(None);
        let resampler = Resampler { seed: world, draws: 400 };
        let replicates: Vec<Replicate> = (0..400)
            .map(|draw| {
                let drawn = labels.shares(Some(&resampler.positions(draw, &[800])));
                Replicate { values: drawn.delta(), errors: drawn.delta_error }
            })
            .collect();
        let intervals = max_t(&shares.delta(), &shares.delta_error, &replicates, 0.95);
        let holds = |ci: &[f64; 2], value: &f64| ci[0] <= *value && *value <= ci[1];
        joint += u32::from(intervals.iter().zip(&truth).all(|(ci, t)| holds(ci, t)));
        let each = (0..13).all(|i| {
            let drawn: Vec<f64> = replicates.iter().map(|r| r.values[i]).collect();
            holds(&percentile(&drawn, 0.95).unwrap(), &truth[i])
        });
        alone += u32::from(each);
    }
    let (joint, alone) = (f64::from(joint) / 300.0, f64::from(alone) / 300.0);
    assert!((0.92..=0.98).contains(&joint), "max-t covers {joint}");
    assert!(alone < 0.7, "percentile intervals cover {alone}");
}

/// KAT `floor`, 300 repetitions: what two samples of one law differ by, unpaired and paired.
#[test]
fn total_variation_has_a_floor() {
    for (k, unpaired, paired) in [(5, 0.0240, 0.0050), (50, 0.0737, 0.0157), (200, 0.1367, 0.0234)]
    {
        let p = zipf(k);
        let (mut free, mut bound) = (0.0, 0.0);
        for repetition in 0..300 {
            let stream = &mut draws::stream(9, repetition, u64::from(k), Purpose::Scene);
            let width = p.len();
            let (mut a, mut b, mut c) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
            for _ in 0..2000 {
                let label = categorical(&p, stream);
                a[label] += 1.0 / 2000.0;
                b[categorical(&p, stream)] += 1.0 / 2000.0;
                let redrawn = draws::uniform(stream) < 0.05;
                c[if redrawn { categorical(&p, stream) } else { label }] += 1.0 / 2000.0;
            }
            free += statistics::contingency::total_variation(&a, &b) / 300.0;
            bound += statistics::contingency::total_variation(&a, &c) / 300.0;
        }
        assert!((free / unpaired - 1.0).abs() < 0.05, "K = {k}: {free}");
        assert!((bound / paired - 1.0).abs() < 0.06, "K = {k}: {bound}");
    }
}

/// Who looks four times must leave more room than who looks once.
#[test]
fn looking_more_than_once_widens_every_interval_of_an_entity() {
    let once = reduce(&census(120, &settled)).unwrap();
    let mut input = census(120, &settled);
    input.widening = 2.0;
    let often = reduce(&input).unwrap();
    let width = |report: &CensusReport| {
        let boat = report.facets[0].entities.iter().find(|e| e.id == "boat").unwrap();
        (boat.ci[1] - boat.ci[0], boat.delta)
    };
    assert!((width(&often).0 - 2.0 * width(&once).0).abs() < 1e-12);
    assert!((width(&often).1 - width(&once).1).abs() < 1e-12);
    let widest = widest_half(&census(120, &settled), "subject").unwrap();
    assert!(widest >= width(&once).0 / 2.0 && widest < 0.2, "{widest}");
}

/// Pictures of the rungs between the concept's name and nothing asked: `fires` of ten show the concept in
/// the adapted model.
fn with_rungs(fires: [(Stratum, Option<&str>, u32); 3]) -> CensusInput {
    let mut input = census(60, &settled);
    let row = input.rows.rows[0].clone();
    for (stratum, asked, fires) in fires {
        for (seed_idx, model) in (0..10).flat_map(|i| [(i, Model::Base), (i, Model::Adapted)]) {
            input.rows.rows.push(Row {
                model,
                dose: if model == Model::Base { 0.0 } else { 1.0 },
                stratum,
                prompt: format!("{}/x", stratum.id()),
                asked: asked.map(str::to_owned),
                seed_idx,
                detected: Some(model == Model::Adapted && seed_idx < fires),
                ..row.clone()
            });
        }
    }
    input
}

/// Captions without the identifier ask for the class itself; a sibling lies two steps away, the boat three.
#[test]
fn the_leak_decays_by_the_slope_over_steps_of_the_thesaurus() {
    let rungs = |plain: u32, sibling: u32, unrelated: u32| {
        with_rungs([
            (Stratum::Plain, None, plain),
            (Stratum::Sibling, Some("house"), sibling),
            (Stratum::Unrelated, Some("boat"), unrelated),
        ])
    };
    let decay = reduce(&rungs(8, 4, 0)).unwrap().leak.decay.unwrap();
    assert!((decay.value + 1.2 / (14.0 / 3.0)).abs() < 1e-9, "{decay:?}");
    assert!(decay.ci.unwrap()[1] < 0.0);
    // Every picture here and none there: the bootstrap has no spread, what was missed bounds the slope.
    let all = reduce(&rungs(10, 0, 0)).unwrap().leak.decay.unwrap();
    let [low, high] = all.ci.unwrap();
    assert!(low < all.value - 0.01 && all.value + 0.01 < high, "{all:?}");
    let report = reduce(&rungs(0, 0, 0)).unwrap();
    assert!(report.leak.decay.is_none());
    assert!(report.refused.iter().any(|refusal| refusal.what == "decay of the leak"));
}
