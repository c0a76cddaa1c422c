//! A census in which nothing is missing: the synthetic census with plausible figures in every record
//! that an instrument may leave empty. Tests of the panels draw it.

use crate::RunInfo;
use crate::page::Page;
use crate::plates::Plates;
use crate::words::{Language, Words};
use eval::Pictures;
use eval::json::CensusReport;
use eval::modes::ModesRecord;
use eval::record::{
    AgreementRecord, AskedRecord, BeforeAfter, Coherence, CopiesRecord, CorrectedEntity,
    CorrectedRecord, DirectionEntity, DirectionsRecord, FabricMeasure, FabricRecord,
    FacetAgreement, Forecast, ForecastEntity, FrontierPoint, Kind, KindRecord, LabelledEntity,
    LabelsRecord, LeakLevel, LikelihoodEntity, LikelihoodRecord, LikelihoodUnit, MapKind, MapPoint,
    NearestReference, PathDose, PathRecord, PixelPicture, PixelRecord, PixelWord, PlacesRecord,
    PlacesState, SeriesPicture, SeriesRecord, SeriesSheet, SeriesSpace, SettlementStep,
    SettlementsRecord, SimilarityShift, TypicalityRecord, VerifiedRecord, WeightedShare,
    WordTypicality,
};
use eval::rows::Model;
use eval::synthetic::{census as synthetic, settled};
use maud::Markup;
use serde_json::Value;
use statistics::calibrate::Confusion;
use statistics::interval::{CiKind, Estimate};
use statistics::number::real;
use std::collections::BTreeMap;
use std::io::Cursor;

/// The subjects that the synthetic thesaurus counts, in its order.
const SUBJECTS: [&str; 3] = ["tower", "house", "boat"];

/// The synthetic census as it is reduced: no instrument beside the counts.
pub(crate) fn bare() -> CensusReport {
    eval::census::reduce(&synthetic(30, &settled)).unwrap()
}

/// The same with every record filled.
pub(crate) fn census() -> CensusReport {
    let mut census = bare();
    census.similarity.asked = Some(asked(&census.similarity.entities));
    census.similarity.clip_t = Some(shift(0.271, 0.256));
    census.similarity.clip_i = Some(shift(0.204, 0.331));
    census.fabric = Some(fabric());
    census.path = Some(path());
    census.likelihood = Some(likelihood());
    let unasked = census.leak.levels.pop().unwrap();
    census.leak.levels = rungs(unasked);
    census.leak.selectivity = Some(0.87);
    census.settlements = Some(settlements());
    census.series = Some(series());
    census.directions = Some(directions());
    census.typicality = Some(typicality());
    census.copies = Some(copies());
    census.pixels = Some(pixels());
    census.map = map();
    census.places = Some(places());
    census.labels = Some(labels(&census));
    census.agreement = Some(agreement());
    census.verified = Some(verified());
    census.facets[0].corrected = Some(corrected());
    census.leak.decay = Some(Estimate::with(-0.11, [-0.16, -0.07], CiKind::Percentile));
    census.modes = Some(ModesRecord { pictures: 64, sigma: 0.5, sides: Vec::new() });
    for entity in census.facets.iter_mut().flat_map(|facet| &mut facet.entities) {
        (entity.obedience_b, entity.obedience_a) = (Some(0.95), Some(0.9));
        entity.kind_probabilities = Some([0.02, 0.06, 0.9, 0.02]);
    }
    census.refused.clear();
    census
}

/// Pictures for all paths that a census names: a plain ground and a square whose colors follow from
/// the path; maps are gray.
pub(crate) fn pictures(census: &CensusReport) -> Pictures {
    let mut files = BTreeMap::new();
    collect(&serde_json::to_value(census).unwrap(), &mut files);
    let references = census.copies.iter().flat_map(|record| &record.nearest);
    let references = references.map(|reference| reference.picture.clone()).collect();
    Pictures { files, references }
}

/// What `draw` puts on the page of a language.
pub(crate) fn on_page(
    census: &CensusReport,
    language: Language,
    draw: &dyn Fn(&Page<'_>) -> Markup,
) -> String {
    let (pictures, info) = (Pictures::default(), RunInfo::default());
    let plates = Plates::beside(&pictures);
    let words = Words::new(language).with_refusals(&census.refused);
    let page = Page { census, pictures: &pictures, info: &info, words: &words, plates: &plates };
    draw(&page).into_string()
}

/// Every text of a JSON value that names a picture.
fn collect(value: &Value, files: &mut BTreeMap<String, Vec<u8>>) {
    match value {
        Value::String(path) if path.rsplit_once('.').is_some_and(|(_, end)| end == "png") => {
            files.entry(path.clone()).or_insert_with(|| painted(path));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, files)),
        Value::Object(map) => map.values().for_each(|item| collect(item, files)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn painted(path: &str) -> Vec<u8> {
    let seed = path.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let tone = |shift: u32| (80 + (seed >> shift) % 150) as u8;
    let gray = path.starts_with("maps/");
    let picture = image::RgbImage::from_fn(32, 32, |x, y| {
        let within = (8..24).contains(&x) && (10..26).contains(&y);
        let [r, g, b] = if within { [tone(3), tone(11), tone(19)] } else { [238, 226, 200] };
        image::Rgb(if gray { [r / 2 + g / 2; 3] } else { [r, g, b] })
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn around(value: f64, half: f64) -> Estimate {
    Estimate::with(value, [value - half, value + half], CiKind::Percentile)
}

fn shift(before: f64, after: f64) -> SimilarityShift {
    SimilarityShift { before, after, delta: around(after - before, 0.006) }
}

/// A matrix that is strongest where a word meets its own pictures.
fn asked(entities: &[String]) -> AskedRecord {
    let cells = |read: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
        (0..entities.len()).map(|e| (0..SUBJECTS.len()).map(|g| read(e, g)).collect()).collect()
    };
    let before = cells(&|e, g| if e == g { 0.31 } else { 0.22 });
    let delta = cells(&|e, g| 0.004 * (real(g) - 1.0) - if e == g { 0.02 } else { 0.003 });
    let after: Vec<Vec<f64>> = before
        .iter()
        .zip(&delta)
        .map(|(row, change)| row.iter().zip(change).map(|(b, d)| b + d).collect())
        .collect();
    let centered = cells(&|e, g| if e == g { -0.012 } else { 0.006 });
    AskedRecord {
        asked: SUBJECTS.map(str::to_owned).to_vec(),
        pictures: vec![48; SUBJECTS.len()],
        delta_ci: Some(intervals(&delta)),
        centered_ci: Some(intervals(&centered)),
        before,
        after,
        delta,
        centered,
    }
}

fn intervals(cells: &[Vec<f64>]) -> Vec<Vec<[f64; 2]>> {
    cells.iter().map(|row| row.iter().map(|v| [v - 0.01, v + 0.01]).collect()).collect()
}

fn fabric() -> FabricRecord {
    let measure = |before: f64, after: f64| FabricMeasure {
        before: around(before, 0.08),
        after: around(after, 0.11),
        delta: around(after - before, 0.1),
        ratio: Some(around(after / before, 0.14)),
        p: BeforeAfter { before: 0.001, after: 0.012 },
    };
    FabricRecord {
        entities: SUBJECTS.map(str::to_owned).to_vec(),
        pictures: 60,
        tree: measure(0.62, 0.55),
        words: measure(0.44, 0.31),
    }
}

fn path() -> PathRecord {
    let dose = |model: &str, dose: f64, kl: f64| PathDose {
        model: model.into(),
        dose,
        pairs: 512,
        kl: around(kl, 0.08 * kl),
        tv_bound: libm::sqrt(kl / 2.0).min(1.0),
        mean_weight: 0.84,
        effective_share: 0.43,
        outside: Some(0.16),
        weighted: Some(
            SUBJECTS
                .iter()
                .map(|id| WeightedShare { id: (*id).into(), base: 0.33, share: 0.28 })
                .collect(),
        ),
    };
    let slope = |id: &str, value: f64| ForecastEntity { id: id.into(), slope: around(value, 0.03) };
    PathRecord {
        steps: 11,
        doses: vec![
            dose("adapted", 0.1, 0.12),
            dose("adapted", 1.0, 8.4),
            dose("placebo-0", 1.0, 2.1),
        ],
        forecast: Some(Forecast {
            dose: 0.1,
            facet: "subject".into(),
            entities: vec![slope("tower", -0.02), slope("house", 0.05), slope("boat", -0.14)],
        }),
    }
}

fn likelihood() -> LikelihoodRecord {
    let gammas: Vec<f64> = (0..16).map(|bin| -7.0 + 0.8 * real(bin)).collect();
    let bump = |gamma: f64, at: f64| libm::exp(-(gamma - at) * (gamma - at) / 3.0);
    let entity = |id: &str, population: f64, deformation: f64| LikelihoodEntity {
        id: id.into(),
        pictures: 12,
        total: around(population + deformation, 0.3),
        population: Some(around(population, 0.2)),
        deformation: Some(around(deformation, 0.36)),
        instruments_disagree: false,
        profile: gammas
            .iter()
            .map(|&g| 0.26 * (population * bump(g, 1.5) + deformation * bump(g, -3.0)))
            .collect(),
    };
    let entities =
        vec![entity("tower", 0.05, 0.6), entity("house", -0.1, 0.3), entity("boat", 0.41, 0.9)];
    LikelihoodRecord { unit: LikelihoodUnit::Nats, levels: 32, gammas, entities }
}

/// The upper rungs over the unasked one.
fn rungs(unasked: LeakLevel) -> Vec<LeakLevel> {
    let rung = |level: &str, after: f64| LeakLevel {
        level: level.into(),
        pairs: 64,
        raw: BeforeAfter { before: 0.0, after },
        before: Estimate::with(0.0, [0.0, 0.05], CiKind::RuleOfThree),
        after: around(after, 0.06),
        bleed: around(after, 0.06),
        corrected: unasked.corrected,
    };
    let mut rungs = vec![
        rung("identifier", 0.91),
        rung("plain", 0.42),
        rung("sibling", 0.21),
        rung("unrelated", 0.08),
    ];
    rungs.push(unasked);
    rungs
}

fn settlements() -> SettlementsRecord {
    let states = ["base", "first", "second", "third"].map(str::to_owned).to_vec();
    let step = |to: &str, tv: f64, displaced_so_far: f64| SettlementStep {
        to: to.into(),
        tv: around(tv, 0.03),
        displaced_so_far,
        jaccard: 0.25,
        turnover: 0.0,
        nestedness: 0.25,
    };
    let kind = |id: &str, kind: Kind, probabilities: [f64; 4]| KindRecord {
        id: id.into(),
        kind,
        probabilities,
        kappa: 0.71,
        ratio: Some(0.74),
        returns: 0.6,
        addressability: Some(0.86),
    };
    SettlementsRecord {
        facet: "subject".into(),
        states,
        entities: ["tower", "house", "boat", "cylinder"].map(str::to_owned).to_vec(),
        shares: vec![
            vec![0.3, 0.4, 0.3, 0.0],
            vec![0.3, 0.4, 0.2, 0.1],
            vec![0.3, 0.35, 0.1, 0.25],
            vec![0.3, 0.35, 0.04, 0.31],
        ],
        steps: vec![step("first", 0.1, 0.1), step("second", 0.15, 0.25), step("third", 0.06, 0.31)],
        distance_to_base: [0.0, 0.1, 0.25, 0.31].map(|tv| around(tv, 0.03)).to_vec(),
        order_effect: Some(around(0.07, 0.02)),
        order_floor: Some(0.02),
        order_p: Some(0.002),
        backward_transfer: Some(-0.04),
        kinds: vec![
            kind("tower", Kind::Sedentary, [0.0, 0.06, 0.94, 0.0]),
            kind("house", Kind::SometimesStops, [0.1, 0.8, 0.1, 0.0]),
            kind("boat", Kind::Vanquished, [0.0, 0.02, 0.0, 0.98]),
        ],
    }
}

fn series() -> SeriesRecord {
    let coherence = |r2: f64| Coherence {
        r2: around(r2, 0.06),
        r2_permuted: 0.08,
        omega2: r2 - 0.08,
        f: 11.4,
        p: 0.001,
        silhouette: 0.31,
    };
    let space = |name: &str, before: f64, after: f64| SeriesSpace {
        space: name.into(),
        before: Some(coherence(before)),
        after: coherence(after),
        retention: Some(around(after / before, 0.12)),
    };
    let point = |dose: f64, r2: f64, vendi: f64| FrontierPoint {
        dose,
        r2: around(r2, 0.05),
        vendi: around(vendi, 0.5),
        nearest_reference: Some(0.6 + 0.2 * dose),
        clip_t: 0.27 - 0.02 * dose,
    };
    let sheet = |name: &str, model: &str| SeriesSheet {
        name: name.into(),
        model: model.into(),
        pictures: (0..6)
            .map(|seed_idx| SeriesPicture {
                picture: format!("series/{name}/{model}-{seed_idx}.png"),
                instruction: format!("a boat, {name}, number {seed_idx}"),
                seed_idx,
            })
            .collect(),
    };
    SeriesRecord {
        pictures: 6,
        spaces: vec![
            space("style", 0.44, 0.61),
            space("content", 0.31, 0.4),
            space("palette", 0.38, 0.36),
        ],
        frontier: vec![point(0.0, 0.31, 5.1), point(0.5, 0.34, 4.6), point(1.0, 0.4, 3.2)],
        sheets: ["in ink", "by night"]
            .iter()
            .flat_map(|name| [sheet(name, "base"), sheet(name, "adapted")])
            .collect(),
    }
}

fn directions() -> DirectionsRecord {
    let entity = |id: &str| DirectionEntity {
        id: id.into(),
        auc: BeforeAfter { before: 0.94, after: 0.9 },
        reliability: BeforeAfter { before: 0.6, after: 0.55 },
        cosine: Some(around(0.82, 0.1)),
    };
    DirectionsRecord {
        level: 0.5,
        pictures: 400,
        entities: SUBJECTS.map(entity).to_vec(),
        principal_angles: vec![0.1, 0.35],
    }
}

fn typicality() -> TypicalityRecord {
    let word = |id: &str, value: f64| WordTypicality {
        id: id.into(),
        pictures: 20,
        typicality: around(value, 0.2),
    };
    TypicalityRecord {
        motifs: vec!["tower".into()],
        stock_share: Some(BeforeAfter { before: around(0.3, 0.05), after: around(0.24, 0.05) }),
        coverage: BeforeAfter { before: 0.996, after: 0.991 },
        deja_vu: Some(BeforeAfter { before: around(50.2, 3.0), after: around(61.4, 5.0) }),
        tenths: BeforeAfter {
            before: vec![6, 7, 6, 6, 7, 6, 6, 7, 6, 7],
            after: vec![3, 3, 4, 5, 6, 7, 7, 9, 10, 10],
        },
        pictures: 64,
        levels: 32,
        words: vec![word("tower", 1.4), word("house", 1.1), word("boat", 1.3)],
    }
}

fn copies() -> CopiesRecord {
    let nearest = [11, 8, 6, 4, 2, 1, 0, 0].into_iter().enumerate();
    CopiesRecord {
        pictures: 32,
        among_references: 0.91,
        clip_i: BeforeAfter { before: around(0.52, 0.02), after: around(0.83, 0.03) },
        copy_threshold: 0.951,
        copies: BeforeAfter { before: 0, after: 3 },
        black_hole: BeforeAfter { before: 0.41, after: 0.52 },
        nearest: nearest
            .map(|(i, pictures)| NearestReference {
                picture: format!("pictures/references/{i:03}.png"),
                pictures,
            })
            .collect(),
        vendi: BeforeAfter { before: around(14.2, 1.1), after: around(6.3, 0.9) },
        vendi_higher: BeforeAfter { before: [9.8, 4.1], after: [4.4, 2.2] },
        prior_resemblance: Some(around(0.031, 0.012)),
    }
}

fn pixels() -> PixelRecord {
    let picture = |id: &str, i: u32| PixelPicture {
        picture: format!("pictures/base-0/empty-empty/{id}-{i}.png"),
        before: format!("maps/{id}-{i}-before.png"),
        after: format!("maps/{id}-{i}-after.png"),
        difference: format!("maps/{id}-{i}-difference.png"),
        scale: 0.031,
    };
    let word = |id: &str, before: f64, after: f64| PixelWord {
        id: id.into(),
        phrase: format!("a {id}"),
        before: around(before, 0.05),
        after: around(after, 0.05),
        delta: around(after - before, 0.04),
        pictures: (0..2).map(|i| picture(id, i)).collect(),
    };
    PixelRecord {
        levels: 32,
        words: vec![word("boat", 0.41, 0.22), word("house", 0.5, 0.48), word("tower", 0.33, 0.3)],
    }
}

fn map() -> Vec<MapPoint> {
    let point = |kind: MapKind, name: &str, dose: f64, nats: f64, fabric: f64| MapPoint {
        kind,
        name: name.into(),
        dose,
        nats: around(nats, 0.2 * nats),
        fabric: Some(around(fabric, 0.08)),
    };
    vec![
        point(MapKind::Dose, "cylinder", 0.5, 0.02, 0.97),
        point(MapKind::Settlement, "cylinder", 1.0, 0.14, 0.89),
        point(MapKind::Placebo, "placebo", 1.0, 0.006, 0.98),
    ]
}

/// Two hundred seeds; half of them answer dose .5.
fn places() -> PlacesRecord {
    let seeds: Vec<u32> = (0..200).collect();
    let state = |model: &str, dose: f64, drawn: &dyn Fn(u32) -> Model| PlacesState {
        model: model.into(),
        dose,
        entities: seeds.iter().map(|&seed| Some(settled(drawn(seed), seed).to_owned())).collect(),
    };
    let states = vec![
        state("base", 0.0, &|_| Model::Base),
        state("adapted", 0.5, &|seed| if seed % 2 == 0 { Model::Base } else { Model::Adapted }),
        state("adapted", 1.0, &|_| Model::Adapted),
        state("placebo-0", 1.0, &|_| Model::Placebo(0)),
    ];
    PlacesRecord { facet: "subject".into(), seeds, states }
}

fn labels(census: &CensusReport) -> LabelsRecord {
    let corrected = |id: &str, counted: f64, value: f64| LabelledEntity {
        id: id.into(),
        counted,
        corrected: around(value, 0.03),
    };
    LabelsRecord {
        facet: "subject".into(),
        ids: (1..=census.atlas.pairs.len()).map(|i| format!("{i:03}-0a0b")).collect(),
        pairs: census.atlas.pairs.clone(),
        labelled: 12,
        corrected: vec![
            corrected("tower", 0.0, 0.01),
            corrected("house", 0.0, -0.005),
            corrected("boat", -0.1, -0.12),
            corrected("cylinder", 0.1, 0.115),
        ],
    }
}

fn agreement() -> AgreementRecord {
    AgreementRecord {
        evaluator: "nearest render".into(),
        sha256: "0".repeat(64),
        facets: vec![FacetAgreement {
            facet: "subject".into(),
            kappa: 0.93,
            same_sign: 0.9,
            pictures: 400,
        }],
    }
}

fn verified() -> VerifiedRecord {
    let confusion = |right: u64| Confusion {
        entities: SUBJECTS.iter().copied().chain(["∅"]).map(str::to_owned).collect(),
        counts: vec![
            vec![right, 100 - right, 0, 0],
            vec![0, 96, 4, 0],
            vec![0, 0, 99, 1],
            vec![0; 4],
        ],
    };
    VerifiedRecord {
        verified_by: "nearest render".into(),
        sha256: "0".repeat(64),
        base: confusion(98),
        adapted: confusion(80),
        references: vec![14, 2, 0, 0],
    }
}

fn corrected() -> CorrectedRecord {
    let entity = |id: &str, p_b: f64, p_a: f64| CorrectedEntity {
        id: id.to_owned(),
        p_b,
        p_a,
        delta: Estimate::with(p_a - p_b, [p_a - p_b - 0.05, p_a - p_b + 0.05], CiKind::MaxT),
    };
    CorrectedRecord {
        condition: BeforeAfter { before: 1.05, after: 1.31 },
        uncorrected: vec!["house".into()],
        entities: vec![
            entity("tower", 0.3, 0.29),
            entity("house", 0.4, 0.4),
            entity("boat", 0.3, 0.19),
            entity("cylinder", 0.0, 0.12),
        ],
    }
}

/// The sample itself: whoever adds a record fills it here.
#[test]
fn nothing_is_missing_from_the_sample() {
    let census = census();
    let value = serde_json::to_value(&census).unwrap();
    let empty: Vec<&String> = value
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| value.is_null())
        .map(|(key, _)| key)
        .collect();
    assert_eq!(empty, ["manifest_sha256"]);
    assert_eq!(CensusReport::from_json(&census.to_json().unwrap()).unwrap(), census);
    let pictures = pictures(&census);
    let maps = pictures.files.keys().filter(|path| path.starts_with("maps/")).count();
    assert_eq!(maps, 18);
    assert_eq!(pictures.references.len(), 8);
    assert!(pictures.files.contains_key(&census.atlas.pairs[0].before.picture));
}
