//! The long-format tables beside `census.json`: header, UTF-8, LF.

mod measured;

use crate::json::CensusReport;
use crate::record::MapKind;
use crate::rows::write_record;

/// All tables, by their path within the run directory.
pub(crate) fn tables(census: &CensusReport) -> Vec<(String, Vec<u8>)> {
    let fixed = [
        ("census/entities.csv", entities(census)),
        ("census/transitions.csv", transitions(census)),
        ("census/similarity.csv", similarity(census)),
        ("census/leak.csv", leak(census)),
        ("census/dose.csv", dose(census)),
        ("census/confusion.csv", confusion(census)),
        ("census/corrected.csv", corrected(census)),
        ("census/map.csv", map(census)),
        ("census/places.csv", places(census)),
    ];
    let all = fixed.into_iter().chain(measured::measured(census));
    all.map(|(path, text)| (path.to_owned(), text.into_bytes())).collect()
}

fn table(header: &[&str], records: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = String::new();
    write_record(&mut text, header);
    records.for_each(|record| write_record(&mut text, &record));
    text
}

fn optional(value: Option<f64>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

fn entities(census: &CensusReport) -> String {
    let header = [
        "facet",
        "entity",
        "n_b",
        "n_a",
        "p_b",
        "p_a",
        "delta",
        "se",
        "ci_low",
        "ci_high",
        "floor",
        "mid_p",
        "q",
        "selection_coefficient",
        "placebo_delta",
        "contrast_low",
        "contrast_high",
        "verdict",
    ];
    let records = census.facets.iter().flat_map(|facet| {
        facet.entities.iter().map(|e| {
            vec![
                facet.id.clone(),
                e.id.clone(),
                e.n_b.to_string(),
                e.n_a.to_string(),
                e.p_b.to_string(),
                e.p_a.to_string(),
                e.delta.to_string(),
                e.se.to_string(),
                e.ci[0].to_string(),
                e.ci[1].to_string(),
                e.floor.to_string(),
                e.mid_p.to_string(),
                e.q.to_string(),
                optional(e.selection_coefficient),
                optional(e.placebo_delta),
                optional(e.contrast_ci.map(|ci| ci[0])),
                optional(e.contrast_ci.map(|ci| ci[1])),
                e.verdict.name().to_owned(),
            ]
        })
    });
    table(&header, records)
}

fn transitions(census: &CensusReport) -> String {
    let records = census.transitions.iter().map(|t| {
        vec![t.facet.clone(), t.from.clone(), t.to.clone(), t.n.to_string(), t.share.to_string()]
    });
    table(&["facet", "from", "to", "n", "share"], records)
}

fn similarity(census: &CensusReport) -> String {
    let names = &census.similarity.entities;
    let unasked = census.similarity.unasked.iter().zip(names).map(|(s, entity)| {
        let [low, high] = s.delta.ci.unwrap_or([s.delta.value; 2]);
        let mut record = vec![entity.clone(), String::new()];
        record.extend([s.before, s.after, s.delta.value, low, high].map(|v| v.to_string()));
        record.push(String::new());
        record
    });
    let asked = census.similarity.asked.iter().flat_map(|matrix| {
        names.iter().enumerate().flat_map(move |(e, entity)| {
            matrix.asked.iter().enumerate().map(move |(g, asked)| {
                let mut record = vec![entity.clone(), asked.clone()];
                let ci = matrix.delta_ci.as_ref().map(|cells| cells[e][g]);
                let values = [matrix.before[e][g], matrix.after[e][g], matrix.delta[e][g]];
                record.extend(values.map(|v| v.to_string()));
                record.extend([0, 1].map(|end| optional(ci.map(|ci| ci[end]))));
                record.push(matrix.centered[e][g].to_string());
                record
            })
        })
    });
    let header = ["entity", "asked", "before", "after", "delta", "ci_low", "ci_high", "centered"];
    table(&header, unasked.chain(asked))
}

fn leak(census: &CensusReport) -> String {
    let records = census.leak.levels.iter().map(|level| {
        let mut record = vec![level.level.clone(), level.pairs.to_string()];
        for estimate in [level.before, level.after, level.bleed] {
            let [low, high] = estimate.ci.unwrap_or([estimate.value; 2]);
            record.extend([estimate.value, low, high].map(|v| v.to_string()));
        }
        record.push(level.corrected.to_string());
        record
    });
    let header = [
        "level",
        "pairs",
        "before",
        "before_low",
        "before_high",
        "after",
        "after_low",
        "after_high",
        "bleed",
        "bleed_low",
        "bleed_high",
        "corrected",
    ];
    table(&header, records)
}

fn dose(census: &CensusReport) -> String {
    let records = census.dose.iter().flat_map(|dose| {
        dose.points.iter().zip(&dose.fit).map(|(point, fit)| {
            let [low, high] = point.share.ci.unwrap_or([point.share.value; 2]);
            [point.dose, point.share.value, low, high, *fit, point.tv]
                .map(|v| v.to_string())
                .to_vec()
        })
    });
    table(&["dose", "share", "ci_low", "ci_high", "isotonic", "tv"], records)
}

/// What the evaluator said of pictures whose truth is known: rendered ones, and those asked by name that
/// another family confirmed.
fn confusion(census: &CensusReport) -> String {
    let records = census.facets.iter().flat_map(|facet| {
        let rendered = facet.calibration.iter().map(|record| ("rendered", &record.confusion));
        let is_home = facet.id == census.concept.facet;
        let own = census
            .verified
            .iter()
            .filter(move |_| is_home)
            .flat_map(|verified| [("base", &verified.base), ("adapted", &verified.adapted)]);
        rendered.chain(own).flat_map(move |(pictures, matrix)| {
            matrix.entities.iter().enumerate().flat_map(move |(i, truth)| {
                matrix.entities.iter().enumerate().map(move |(j, label)| {
                    let n = matrix.counts[i][j].to_string();
                    vec![pictures.to_owned(), facet.id.clone(), truth.clone(), label.clone(), n]
                })
            })
        })
    });
    table(&["pictures", "facet", "truth", "label", "n"], records)
}

fn corrected(census: &CensusReport) -> String {
    let records = census.facets.iter().flat_map(|facet| {
        facet.corrected.iter().flat_map(move |corrected| {
            corrected.entities.iter().map(move |one| {
                let [low, high] = one.delta.ci.unwrap_or([one.delta.value; 2]);
                let figures = [one.p_b, one.p_a, one.delta.value, low, high].map(|v| v.to_string());
                [vec![facet.id.clone(), one.id.clone()], figures.to_vec()].concat()
            })
        })
    });
    table(&["facet", "entity", "p_b", "p_a", "delta", "ci_low", "ci_high"], records)
}

fn map(census: &CensusReport) -> String {
    let header = [
        "kind",
        "name",
        "dose",
        "nats",
        "nats_low",
        "nats_high",
        "fabric",
        "fabric_low",
        "fabric_high",
    ];
    let records = census.map.iter().map(|point| {
        let kind = match point.kind {
            MapKind::Settlement => "settlement",
            MapKind::Dose => "dose",
            MapKind::Placebo => "placebo",
        };
        let mut record = vec![
            kind.to_owned(),
            point.name.clone(),
            point.dose.to_string(),
            point.nats.value.to_string(),
        ];
        record.extend([0, 1].map(|end| optional(point.nats.ci.map(|ci| ci[end]))));
        record.push(optional(point.fabric.map(|fabric| fabric.value)));
        record.extend(
            [0, 1].map(|end| optional(point.fabric.and_then(|fabric| fabric.ci).map(|ci| ci[end]))),
        );
        record
    });
    table(&header, records)
}

fn places(census: &CensusReport) -> String {
    let records = census.places.iter().flat_map(|places| {
        places.states.iter().flat_map(move |state| {
            places.seeds.iter().zip(&state.entities).map(move |(seed, entity)| {
                vec![
                    state.model.clone(),
                    state.dose.to_string(),
                    seed.to_string(),
                    entity.clone().unwrap_or_default(),
                ]
            })
        })
    });
    table(&["model", "dose", "seed", "entity"], records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::reduce;
    use crate::synthetic::{census as synthetic, settled};

    fn census() -> CensusReport {
        reduce(&synthetic(30, &settled)).unwrap()
    }

    #[test]
    fn tables_have_as_many_fields_as_their_header() {
        for (path, bytes) in tables(&census()) {
            let text = String::from_utf8(bytes).unwrap();
            let width = text.lines().next().unwrap().split(',').count();
            for line in text.lines().filter(|line| !line.contains('"')) {
                assert_eq!(line.split(',').count(), width, "{path}: {line}");
            }
        }
    }
}
