//! What other programs make of an adapter file.

use std::collections::BTreeMap;

use checkpoints::TensorFile;
use checkpoints::readers::{self, Reader, ReaderReport, Verdict};
use recipes::WeightsSource;
use serde_json::{Value, json};

use super::Findings;
use crate::adapter_file::{Table, counted};
use crate::error::JobError;

/// Unknown keys that are shown of each reader.
const SHOWN: usize = 5;

/// Adds what every reader makes of the file.
///
/// # Errors
///
/// A base that cannot be read; an adapter whose family its keys leave open.
pub(super) fn inspect(
    file: &TensorFile,
    base: Option<&WeightsSource>,
    findings: &mut Findings,
) -> Result<(), JobError> {
    let table = Table::of(file.path(), base)?;
    let model = table.model_keys();
    findings.lines.push(format!("readers, for {}:", table.title()));
    let mut records: BTreeMap<&str, Value> = BTreeMap::new();
    for reader in Reader::ALL {
        let report = readers::report(file, &model, reader)?;
        findings.lines.extend(lines(&report, file.len()));
        records.insert(reader.name(), record(&report));
    }
    findings.record["readers"] = json!(records);
    Ok(())
}

fn lines(report: &ReaderReport, n_keys: usize) -> Vec<String> {
    let (name, n_known) = (report.reader.name(), report.n_known);
    let verdict = match &report.verdict {
        Verdict::Refused(reason) => format!("refused: {reason}"),
        Verdict::Applied | Verdict::Otherwise | Verdict::Partly => report.verdict.name().to_owned(),
    };
    let mut lines = vec![format!("  {name}: {verdict} ({n_known} of {n_keys} keys known)")];
    if !report.unknown.is_empty() {
        let shown: Vec<String> =
            report.unknown.iter().take(SHOWN).map(|key| format!("`{key}`")).collect();
        let rest = report.unknown.len().saturating_sub(SHOWN);
        let more =
            if rest > 0 { format!(" and {} more", counted(rest, "key")) } else { String::new() };
        lines.push(format!("    unknown: {}{more}", shown.join(", ")));
    }
    lines.extend(report.notes.iter().map(|note| format!("    {note}")));
    lines
}

fn record(report: &ReaderReport) -> Value {
    let reason = match &report.verdict {
        Verdict::Refused(reason) => Some(reason),
        Verdict::Applied | Verdict::Otherwise | Verdict::Partly => None,
    };
    json!({
        "verdict": report.verdict.name(), "reason": reason, "known": report.n_known,
        "unknown": report.unknown, "notes": report.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_unknown_keys_are_named() {
        let report = ReaderReport {
            reader: Reader::ComfyUi,
            n_known: 3,
            unknown: (0..7).map(|n| format!("k{n}")).collect(),
            notes: vec!["something is lost".to_owned()],
            verdict: Verdict::Partly,
        };
        let expected = [
            "  ComfyUI: partly (3 of 10 keys known)",
            "    unknown: `k0`, `k1`, `k2`, `k3`, `k4` and 2 keys more",
            "    something is lost",
        ];
        assert_eq!(lines(&report, 10), expected);
    }
}
