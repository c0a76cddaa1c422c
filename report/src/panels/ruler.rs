//! Path-space KL as a ruler for doses: how far apart the paths of two models lie, and what the base's
//! own pictures say of the adapted model's shares.

use super::chart_parts::{
    Axis, Ledger, Line, Look, anchor, figure, legend, mark, missing, percent, px, valued, whisker,
};
use crate::page::Page;
use crate::words::Words;
use eval::record::{PathDose, PathRecord, WeightedShare};
use maud::{Markup, html};
use statistics::number::index;

/// Height of the ruler; lanes of the adapted model and of the placebos, and the rule itself.
const HEIGHT_PX: u32 = 104;
const ADAPTED_PX: f64 = 34.0;
const PLACEBO_PX: f64 = 62.0;
const RULE_PX: f64 = 76.0;

/// The ruler, or why there is none.
pub(super) fn part(page: &Page<'_>) -> Markup {
    let words = page.words;
    let Some(path) = &page.census.path else {
        return missing(page, &["path"], words.say("dose.no_path"));
    };
    html! {
        @if let Some(sentence) = sentence(page, path) { p { (sentence) } }
        p class="note" { (words.fill("dose.ruler_how", &[("steps", &words.thousands(path.steps))])) }
        (legend(&[
            (Look::Adapted.class(), Look::Adapted.glyph(), words.say("page.adapted")),
            (Look::Placebo.class(), Look::Placebo.glyph(), words.say("page.placebo")),
            ("whisker", "├┤", words.say("page.interval")),
        ]))
        (ruler(words, path))
        details {
            summary { span { (words.say("dose.paths")) } }
            (table(words, path))
        }
        @for dose in &path.doses {
            @if let Some(weighted) = &dose.weighted { (shares(page, dose, weighted)) }
        }
    }
}

/// Whether this is the adapter itself, not a placebo.
fn is_adapted(dose: &PathDose) -> bool {
    dose.model == "adapted"
}

/// The largest dose of the adapter, and the first placebo at its largest dose.
fn largest(path: &PathRecord, adapted: Which) -> Option<&PathDose> {
    let wanted = path.doses.iter().filter(|dose| is_adapted(dose) == (adapted == Which::Adapted));
    wanted.max_by(|a, b| a.dose.total_cmp(&b.dose))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Adapted,
    Placebo,
}

/// How far the adapted model and its placebo go, and what follows from it.
fn sentence(page: &Page<'_>, path: &PathRecord) -> Option<String> {
    let words = page.words;
    let dose = largest(path, Which::Adapted)?;
    let digits = decimals(dose.kl.value);
    let mut told = vec![words.fill(
        "dose.ruler_sentence",
        &[("dose", &words.exact(dose.dose)), ("kl", &words.estimate(&dose.kl, 1.0, digits))],
    )];
    if let Some(placebo) = largest(path, Which::Placebo) {
        let kl = words.estimate(&placebo.kl, 1.0, decimals(placebo.kl.value));
        told.push(words.fill("dose.placebo_sentence", &[("kl", &kl)]));
    }
    told.push(if dose.tv_bound < 1.0 {
        words.fill("dose.bound", &[("bound", &words.number(100.0 * dose.tv_bound, 1))])
    } else {
        words.say("dose.no_bound").to_owned()
    });
    told.push(match dose.outside {
        Some(outside) => {
            words.fill("dose.outside", &[("outside", &words.number(100.0 * outside, 1))])
        }
        None => words
            .fill("dose.no_outside", &[("share", &words.number(100.0 * dose.effective_share, 1))]),
    });
    Some(told.join(" "))
}

/// Two decimals below 10 nats, one below 100, none above.
fn decimals(nats: f64) -> usize {
    if nats < 10.0 { 2 } else { usize::from(nats < 100.0) }
}

/// Whole decades around all that is drawn.
fn decades(path: &PathRecord) -> Axis {
    let drawn = || path.doses.iter().map(|dose| dose.kl.value).filter(|kl| *kl > 0.0);
    let low = drawn().fold(1.0, f64::min).max(1e-6);
    let high = drawn().fold(10.0, f64::max);
    Axis::whole(libm::floor(libm::log10(low)), libm::ceil(libm::log10(high)))
}

/// A ruler whose every tenfold step is as wide as the next.
fn ruler(words: &Words, path: &PathRecord) -> Markup {
    let axis = decades(path);
    let log = |nats: f64| libm::log10(nats.max(1e-12));
    let said: Vec<String> = path
        .doses
        .iter()
        .map(|dose| {
            let kl = words.estimate(&dose.kl, 1.0, decimals(dose.kl.value));
            format!("{}: {kl}", named(words, dose))
        })
        .collect();
    let body = html! {
        (rule(words, &axis))
        @for (i, dose) in path.doses.iter().filter(|dose| dose.kl.value > 0.0).enumerate() {
            @let at = axis.part(log(dose.kl.value));
            @let (down, look) = if is_adapted(dose) { (ADAPTED_PX, Look::Adapted) } else { (PLACEBO_PX, Look::Placebo) };
            (whisker(&axis, dose.kl.ci.map(|ci| ci.map(log)), down, look.class()))
            (mark(&percent(at), down, look))
            @if is_adapted(dose) {
                // Neighbours stand at two heights, so that their labels do not meet.
                text class="label" x=(percent(at)) y=(px(down - if i % 2 == 0 { 10.0 } else { 22.0 })) text-anchor=(anchor(at)) {
                    (words.fill("dose.at_dose", &[("dose", &words.exact(dose.dose))]))
                }
            }
        }
    };
    html! {
        figure class="ruler" {
            (figure(HEIGHT_PX, words.say("dose.ruler_title"), &format!("{}.", said.join("; ")), &body))
            figcaption { (words.say("dose.ruler_caption")) }
        }
    }
}

/// The rule with its decades.
fn rule(words: &Words, axis: &Axis) -> Markup {
    html! {
        line class="axis" x1="0" x2="100%" y1=(px(RULE_PX)) y2=(px(RULE_PX)) {}
        @for decade in axis.ticks() {
            @for part in 1..10_u32 {
                @let at = decade + libm::log10(f64::from(part));
                @if axis.unbounded(at) < 1.0 + 1e-9 {
                    line class="tick" x1=(axis.percent(at)) x2=(axis.percent(at)) y1=(px(RULE_PX)) y2=(px(RULE_PX + if part == 1 { 8.0 } else { 4.0 })) {}
                }
            }
            text class="label" x=(axis.percent(decade)) y=(px(RULE_PX + 21.0)) text-anchor=(anchor(axis.part(decade))) {
                (words.number(libm::pow(10.0, decade), index(-decade)))
            }
        }
    }
}

/// A model at its dose.
fn named(words: &Words, dose: &PathDose) -> String {
    let at = words.exact(dose.dose);
    match dose.model.strip_prefix("placebo-").and_then(|number| number.parse::<u32>().ok()) {
        Some(number) => {
            words.fill("dose.placebo_at", &[("number", &(number + 1).to_string()), ("dose", &at)])
        }
        None => words.fill("dose.at_dose", &[("dose", &at)]),
    }
}

/// All figures of the paths.
fn table(words: &Words, path: &PathRecord) -> Markup {
    let refused = || words.say("parts.refused").to_owned();
    let lines = path.doses.iter().map(|dose| Line {
        name: html! { (named(words, dose)) },
        chart: None,
        cells: vec![
            valued(words, &dose.kl, 1.0, decimals(dose.kl.value)),
            html! { (words.number(100.0 * dose.tv_bound, 1)) },
            html! { (words.number(dose.mean_weight, 3)) },
            html! { (words.number(100.0 * dose.effective_share, 1)) },
            html! { (dose.outside.map_or_else(refused, |outside| words.number(100.0 * outside, 1))) },
            html! { (words.thousands(dose.pairs)) },
        ],
    });
    let ledger = Ledger {
        caption: words.say("dose.paths_caption"),
        first: words.say("dose.model"),
        axis: None,
        heads: &[
            words.say("dose.kl_head"),
            words.say("dose.bound_head"),
            words.say("dose.weight_head"),
            words.say("dose.effective_head"),
            words.say("dose.outside_head"),
            words.say("dose.pairs_head"),
        ],
        lines: lines.collect(),
    };
    ledger.draw()
}

/// Shares of the adapted model told from the base's pictures, weighted.
fn shares(page: &Page<'_>, dose: &PathDose, weighted: &[WeightedShare]) -> Markup {
    let words = page.words;
    let fitted = is_adapted(dose) && (dose.dose - 1.0).abs() < 1e-9;
    let measured = |id: &str| {
        let found = page.home()?.entities.iter().find(|entity| entity.id == id)?;
        fitted.then(|| words.number(100.0 * found.p_a, 1))
    };
    let lines = weighted.iter().map(|one| Line {
        name: html! { (page.name(&one.id)) },
        chart: None,
        cells: vec![
            html! { (words.number(100.0 * one.base, 1)) },
            html! { (words.number(100.0 * one.share, 1)) },
            html! { (measured(&one.id).unwrap_or_else(|| words.say("parts.not_drawn").to_owned())) },
        ],
    });
    let ledger = Ledger {
        caption: words.say("dose.weighted_caption"),
        first: words.say("dose.entity"),
        axis: None,
        heads: &[
            words.say("page.base"),
            words.say("dose.weighted_head"),
            words.say("dose.measured_head"),
        ],
        lines: lines.collect(),
    };
    html! {
        details {
            summary {
                span { (words.say("dose.weighted")) }
                span class="num soft" { (named(words, dose)) }
            }
            (ledger.draw())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;

    fn drawn(census: &eval::json::CensusReport) -> String {
        sample::on_page(census, Language::English, &part)
    }

    #[test]
    fn the_placebo_stands_beside_the_adapter() {
        let mut census = sample::census();
        let path = census.path.as_mut().unwrap();
        let adapted = path.doses.iter_mut().find(|dose| dose.model == "adapted" && dose.dose > 0.9);
        adapted.unwrap().kl = statistics::interval::Estimate::bare(23.06);
        let placebo = path.doses.iter_mut().find(|dose| dose.model == "placebo-0").unwrap();
        placebo.kl = statistics::interval::Estimate::bare(4.03);
        let page = drawn(&census);
        assert!(page.contains("At dose 1") && page.contains("23.1 nats"), "{page}");
        assert!(page.contains("4.03 nats"), "{page}");
        census.path.as_mut().unwrap().doses.retain(|dose| dose.model == "adapted");
        assert!(!drawn(&census).contains("4.03 nats"));
    }

    #[test]
    fn a_bound_that_bounds_nothing_is_said_to_do_so() {
        let mut census = sample::census();
        for dose in &mut census.path.as_mut().unwrap().doses {
            dose.tv_bound = 0.34;
        }
        assert!(drawn(&census).contains("more than 34.0 places of 100"));
        for dose in &mut census.path.as_mut().unwrap().doses {
            dose.tv_bound = 1.0;
        }
        assert!(drawn(&census).contains("bounds nothing"));
    }

    #[test]
    fn mass_outside_the_base_is_refused_where_too_few_paths_carry_it() {
        let mut census = sample::census();
        for dose in &mut census.path.as_mut().unwrap().doses {
            (dose.outside, dose.weighted, dose.effective_share) = (None, None, 0.04);
        }
        let page = drawn(&census);
        assert!(page.contains("4.0 of 100 paths carry all the weight"), "{page}");
        assert!(!page.contains("told from the base’s pictures"), "{page}");
    }

    #[test]
    fn decades_hold_all_figures_and_zero_has_no_place_on_them() {
        let mut census = sample::census();
        let path = census.path.as_mut().unwrap();
        path.doses[0].kl = statistics::interval::Estimate::bare(0.0);
        path.doses[1].kl = statistics::interval::Estimate::bare(0.03);
        let axis = decades(path);
        assert_eq!((axis.percent(-2.0).as_str(), axis.ticks().len()), ("0.00%", 4));
    }
}
