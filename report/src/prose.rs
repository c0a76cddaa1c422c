//! Numbers and sentences for readers. The word "significant" occurs in none of them.

use super::RunInfo;
use eval::json::CensusReport;
use eval::record::{EntityRecord, FacetRecord, LeakLevel, Verdict};
use eval::thesaurus::{BLOCKED, NONE};
use statistics::interval::Estimate;

/// What is said of a change whose interval leaves out 0 while that of its contrast does not.
const AS_UNDER_PLACEBO: &str = "but not demonstrably more than under the placebo";

/// `value` with `digits` decimals and a true minus sign; −0 is 0.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// The same with a plus sign where it is positive.
pub fn signed(value: f64, digits: usize) -> String {
    let text = number(value, digits);
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    if value > 0.0 && !zero { format!("+{text}") } else { text }
}

/// `[low, high]`.
pub fn interval(ci: [f64; 2], scale: f64, digits: usize) -> String {
    format!("[{}, {}]", number(ci[0] * scale, digits), number(ci[1] * scale, digits))
}

/// An estimate with its interval, times `scale`.
pub fn estimate(estimate: &Estimate, scale: f64, digits: usize) -> String {
    let value = number(estimate.value * scale, digits);
    estimate.ci.map_or(value.clone(), |ci| format!("{value} {}", interval(ci, scale, digits)))
}

/// A sign for a verdict, so that color is never needed to tell them apart.
pub fn glyph(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Depopulated => "▼",
        Verdict::Fell => "▽",
        Verdict::Favoured => "▲",
        Verdict::Rose => "△",
        Verdict::Retained => "●",
        Verdict::Undecided => "○",
    }
}

/// The facet that the concept enters.
pub fn home(census: &CensusReport) -> Option<&FacetRecord> {
    census.facets.iter().find(|facet| facet.id == census.concept.facet)
}

/// What to call an entity of any facet.
pub fn name<'a>(census: &'a CensusReport, id: &'a str) -> &'a str {
    let mut entities = census.facets.iter().flat_map(|facet| &facet.entities);
    entities.find(|entity| entity.id == id).map_or(id, |entity| entity.name.as_str())
}

/// One rung of the leak ladder.
pub fn level<'a>(census: &'a CensusReport, id: &str) -> Option<&'a LeakLevel> {
    census.leak.levels.iter().find(|level| level.level == id)
}

/// Entities of the concept's facet that `keep` holds for, but the concept itself; worst first.
fn worst_first<'a>(
    census: &'a CensusReport,
    keep: &dyn Fn(&EntityRecord) -> bool,
) -> Vec<&'a EntityRecord> {
    let entities = home(census).into_iter().flat_map(|facet| &facet.entities);
    let is_entity =
        |e: &EntityRecord| e.id != census.concept.id && !matches!(e.id.as_str(), NONE | BLOCKED);
    let mut kept: Vec<&EntityRecord> = entities.filter(|e| is_entity(e) && keep(e)).collect();
    kept.sort_by(|a, b| a.delta.total_cmp(&b.delta));
    kept
}

/// Entities of the concept's facet that lost ground, worst first.
pub fn losers(census: &CensusReport) -> Vec<&EntityRecord> {
    worst_first(census, &|e| matches!(e.verdict, Verdict::Depopulated | Verdict::Fell))
}

/// Entities of the concept's facet that lost ground, but not demonstrably more than under the
/// placebo; worst first.
pub fn fallen_as_under_placebo(census: &CensusReport) -> Vec<&EntityRecord> {
    worst_first(census, &|e| e.ci[1] < 0.0 && e.contrast_ci.is_some_and(|ci| ci[1] >= 0.0))
}

/// The finding in one or two sentences, with intervals.
pub fn finding(census: &CensusReport, info: &RunInfo) -> String {
    format!("{}; {}.", arrival(census, &info.picture_noun), losses(census))
}

/// How often the concept comes unasked.
fn arrival(census: &CensusReport, noun: &str) -> String {
    let name = &census.concept.name;
    let Some(level) = level(census, "unasked") else {
        return format!("How often the {name} comes unasked could not be counted");
    };
    let share = estimate(&level.after, 100.0, 1);
    let mut entities = home(census).into_iter().flat_map(|facet| &facet.entities);
    let more = level.bleed.ci.is_some_and(|ci| ci[0] > 0.0);
    let concept = entities.find(|e| e.id == census.concept.id).filter(|_| more);
    let rose = |e: &EntityRecord| matches!(e.verdict, Verdict::Favoured | Verdict::Rose);
    let as_placebo =
        |e: &EntityRecord| e.ci[0] > 0.0 && e.contrast_ci.is_some_and(|ci| ci[0] <= 0.0);
    if concept.is_some_and(rose) {
        format!("Of 100 unasked {noun}s, {share} now show the {name}")
    } else if concept.is_some_and(as_placebo) {
        format!("Unasked, the {name} arrived in {share} of 100 {noun}s, {AS_UNDER_PLACEBO}")
    } else {
        format!(
            "Unasked, the {name} was found in {share} of 100 {noun}s, which cannot be told from chance"
        )
    }
}

/// Who lost places to it: what is shown, else what the placebo may have done as well.
fn losses(census: &CensusReport) -> String {
    let worst = |entities: &[&EntityRecord], verb: &str| -> Option<String> {
        let (first, others) = entities.split_first()?;
        let places = |e: &EntityRecord, verb: &str, unit: &str| {
            format!(
                "the {}{verb} {}{unit} [{}, {}]",
                e.name,
                number(-100.0 * e.delta, 1),
                number(-100.0 * e.ci[1], 1),
                number(-100.0 * e.ci[0], 1)
            )
        };
        let second = others.first().map(|e| format!(", {}", places(e, "", "")));
        Some(format!("{}{}", places(first, verb, " places"), second.unwrap_or_default()))
    };
    let as_placebo = || {
        worst(&fallen_as_under_placebo(census), " fell by")
            .map(|told| format!("{told}, {AS_UNDER_PLACEBO}"))
    };
    worst(&losers(census), " lost")
        .or_else(as_placebo)
        .unwrap_or_else(|| "of no single entity can a loss be told from chance".to_owned())
}

/// Seconds as `1 h 02 min`, `3 min 20 s` or `12 s`.
pub fn duration(seconds: f64) -> String {
    let whole = statistics::number::index(seconds.round());
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours} h {minutes:02} min")
    } else if minutes > 0 {
        format!("{minutes} min {rest:02} s")
    } else {
        format!("{rest} s")
    }
}

/// `n` with thin spaces between thousands.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(-2.14, 1), "−2.1");
        assert_eq!(number(-0.01, 1), "0.0");
        assert_eq!(signed(0.04, 1), "0.0");
        assert_eq!(signed(1.25, 1), "+1.2");
        assert_eq!(interval([-0.033, -0.01], 100.0, 1), "[−3.3, −1.0]");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(thousands(12), "12");
        assert_eq!(duration(3725.2), "1 h 02 min");
        assert_eq!(duration(200.0), "3 min 20 s");
    }
}
