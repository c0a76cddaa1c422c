//! The tables of instruments: one file for each figure that was measured.

use super::{optional, table};
use crate::json::CensusReport;
use crate::record::{
    BeforeAfter, CopiesRecord, FabricRecord, LabelsRecord, LikelihoodRecord, PathRecord,
    PixelRecord, SeriesRecord, TypicalityRecord,
};
use statistics::interval::Estimate;

/// Tables of what was measured; a record that is null has none.
pub(super) fn measured(census: &CensusReport) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    files.extend(census.likelihood.as_ref().map(|r| ("census/nats.csv", nats(r))));
    files.extend(census.path.as_ref().map(|r| ("census/path.csv", path(r))));
    files.extend(census.fabric.as_ref().map(|r| ("census/fabric.csv", fabric(r))));
    files.extend(census.pixels.as_ref().map(|r| ("census/pixels.csv", pixels(r))));
    files.extend(census.copies.as_ref().map(|r| ("census/copies.csv", copies(r))));
    files.extend(census.series.as_ref().map(|r| ("census/series.csv", series(r))));
    files.extend(census.typicality.as_ref().map(|r| ("census/typicality.csv", typicality(r))));
    let labels = census.labels.as_ref().filter(|r| !r.corrected.is_empty());
    files.extend(labels.map(|r| ("census/corrected.csv", corrected(r))));
    files
}

/// Value and both ends; empty ends without an interval.
fn estimate(estimate: &Estimate) -> Vec<String> {
    let end = |i: usize| optional(estimate.ci.map(|ci| ci[i]));
    vec![estimate.value.to_string(), end(0), end(1)]
}

/// A record of names, then of one estimate.
fn line(names: &[&str], figure: &Estimate) -> Vec<String> {
    let mut record: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    record.extend(estimate(figure));
    record
}

fn nats(record: &LikelihoodRecord) -> String {
    let records = record.entities.iter().flat_map(|e| {
        let parts = [
            ("total", Some(&e.total)),
            ("population", e.population.as_ref()),
            ("deformation", e.deformation.as_ref()),
        ];
        let figures = parts.into_iter().filter_map(|(part, figure)| {
            let mut record = line(&[&e.id, part], figure?);
            record.push(String::new());
            Some(record)
        });
        let profile = e.profile.iter().zip(&record.gammas).map(|(nats, gamma)| {
            let mut record = line(&[&e.id, "profile"], &Estimate::bare(*nats));
            record.push(gamma.to_string());
            record
        });
        figures.chain(profile).collect::<Vec<_>>()
    });
    table(&["entity", "part", "nats", "ci_low", "ci_high", "gamma"], records)
}

fn path(record: &PathRecord) -> String {
    let doses = record.doses.iter().map(|d| {
        let mut record = line(&[&d.model, &d.dose.to_string(), "kl", ""], &d.kl);
        record.extend([d.mean_weight, d.effective_share].map(|v| v.to_string()));
        record.push(optional(d.outside));
        record
    });
    let slopes = record.forecast.iter().flat_map(|forecast| {
        forecast.entities.iter().map(|e| {
            let mut record = line(&["base", "0", "slope", &e.id], &e.slope);
            record.extend([String::new(), String::new(), String::new()]);
            record
        })
    });
    let header = [
        "model",
        "dose",
        "figure",
        "entity",
        "value",
        "ci_low",
        "ci_high",
        "mean_weight",
        "effective_share",
        "outside",
    ];
    table(&header, doses.chain(slopes))
}

fn fabric(record: &FabricRecord) -> String {
    let records =
        [("tree", &record.tree), ("words", &record.words)].into_iter().flat_map(|(of, m)| {
            let figures = [
                ("before", Some(&m.before)),
                ("after", Some(&m.after)),
                ("delta", Some(&m.delta)),
                ("ratio", m.ratio.as_ref()),
            ];
            figures.into_iter().filter_map(move |(name, figure)| Some(line(&[of, name], figure?)))
        });
    table(&["distance", "figure", "value", "ci_low", "ci_high"], records)
}

fn pixels(record: &PixelRecord) -> String {
    let records = record.words.iter().flat_map(|w| {
        [("before", &w.before), ("after", &w.after), ("delta", &w.delta)]
            .map(|(name, figure)| line(&[&w.id, name], figure))
    });
    table(&["entity", "figure", "nats", "ci_low", "ci_high"], records)
}

fn copies(record: &CopiesRecord) -> String {
    let figures = [
        ("clip_i", "before", record.clip_i.before),
        ("clip_i", "after", record.clip_i.after),
        ("among_references", "", Estimate::bare(record.among_references)),
        ("copy_threshold", "", Estimate::bare(record.copy_threshold)),
        ("black_hole", "before", Estimate::bare(record.black_hole.before)),
        ("black_hole", "after", Estimate::bare(record.black_hole.after)),
        ("vendi", "before", record.vendi.before),
        ("vendi", "after", record.vendi.after),
    ];
    let figures = figures.into_iter().map(|(name, when, figure)| line(&[name, when], &figure));
    let counts =
        [("copies", "before", record.copies.before), ("copies", "after", record.copies.after)];
    let counts = counts.into_iter().map(|(name, when, n)| {
        vec![name.to_owned(), when.to_owned(), n.to_string(), String::new(), String::new()]
    });
    let nearest = record.nearest.iter().map(|one| {
        vec![
            "nearest".to_owned(),
            one.picture.clone(),
            one.pictures.to_string(),
            String::new(),
            String::new(),
        ]
    });
    table(&["figure", "of", "value", "ci_low", "ci_high"], figures.chain(counts).chain(nearest))
}

fn series(record: &SeriesRecord) -> String {
    let coherence = record.spaces.iter().flat_map(|space| {
        let both = [("before", space.before.as_ref()), ("after", Some(&space.after))];
        both.into_iter().filter_map(|(when, c)| {
            let c = c?;
            let mut record = line(&[&space.space, when, "r2"], &c.r2);
            record.extend([c.r2_permuted, c.omega2, c.f, c.p, c.silhouette].map(|v| v.to_string()));
            Some(record)
        })
    });
    let frontier = record.frontier.iter().flat_map(|point| {
        [("r2", &point.r2), ("vendi", &point.vendi)].map(|(name, figure)| {
            let mut record = line(&["frontier", &point.dose.to_string(), name], figure);
            record.extend(vec![String::new(); 5]);
            record
        })
    });
    let header = [
        "space",
        "of",
        "figure",
        "value",
        "ci_low",
        "ci_high",
        "r2_permuted",
        "omega2",
        "f",
        "p",
        "silhouette",
    ];
    table(&header, coherence.chain(frontier))
}

fn typicality(record: &TypicalityRecord) -> String {
    let both = |name: &'static str, pair: &Option<BeforeAfter<Estimate>>| {
        let pair = pair.iter().flat_map(|p| [("before", p.before), ("after", p.after)]);
        pair.map(|(when, figure)| line(&[name, when], &figure)).collect::<Vec<_>>()
    };
    let coverage = [("before", record.coverage.before), ("after", record.coverage.after)]
        .map(|(when, share)| line(&["coverage", when], &Estimate::bare(share)));
    let tenths = [("before", &record.tenths.before), ("after", &record.tenths.after)];
    let tenths = tenths.into_iter().flat_map(|(when, counts)| {
        counts.iter().enumerate().map(move |(tenth, n)| {
            let of = format!("{when} {}", 10 * tenth);
            vec!["tenth".to_owned(), of, n.to_string(), String::new(), String::new()]
        })
    });
    let words = record.words.iter().map(|word| line(&["typicality", &word.id], &word.typicality));
    let records = both("stock_share", &record.stock_share)
        .into_iter()
        .chain(both("deja_vu", &record.deja_vu))
        .chain(coverage)
        .chain(tenths)
        .chain(words);
    table(&["figure", "of", "value", "ci_low", "ci_high"], records)
}

fn corrected(record: &LabelsRecord) -> String {
    let records = record
        .corrected
        .iter()
        .map(|one| line(&[&record.facet, &one.id, &one.counted.to_string()], &one.corrected));
    table(&["facet", "entity", "counted", "corrected", "ci_low", "ci_high"], records)
}
