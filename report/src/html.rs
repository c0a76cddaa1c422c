//! The page: its order, its tables, its limits.

use super::chart::Curve;
use super::panels::{Page, key};
use super::{Energy, Pictures, RunInfo, chart, prose};
use eval::gate::Judgement;
use eval::json::CensusReport;
use eval::record::{AskedRecord, EntityRecord, FacetRecord};
use eval::thesaurus::{BLOCKED, NONE};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const CSP: &str = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; \
                   base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(super) fn page(census: &CensusReport, pictures: &Pictures, info: &RunInfo) -> String {
    let page = Page { census, pictures, info };
    let finding = prose::finding(census, info);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CSP);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light";
                title { "The " (census.concept.name) " · census of " (info.name) }
                meta name="description" content=(finding);
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(page, &finding))
                main { (sections(page)) }
                (limits(page))
            }
        }
    };
    markup.into_string()
}

fn header(page: Page<'_>, finding: &str) -> Markup {
    let counts = page.census.counts;
    html! {
        header {
            p class="eyebrow" { "Census of a settlement · " (page.info.name) }
            h1 { "The " (page.census.concept.name) }
            p class="finding" { (finding) }
            p class="note" {
                (prose::thousands(counts.headline_pairs)) " unasked pairs on shared noise, "
                (prose::thousands(counts.rows)) " pictures in all. Brackets: 95 % intervals, simultaneous over all entities of a facet where entities are compared."
            }
            @if let Some(fault) = fault(page.census) { p class="fault" { (fault) } }
            @if !page.census.gates.is_empty() {
                ul class="gates" {
                    @for gate in &page.census.gates {
                        li {
                            b { (match gate.judgement { Judgement::Pass => "✓ passed", Judgement::Fail => "✗ failed", Judgement::Undecided => "○ undecided" }) }
                            " " (match gate.limit.figure.as_str() { "selection_nats" => "selection in nats", "new_share" => "unasked share", "leak" => "share without the identifier", other => other })
                            @if let Some(least) = gate.limit.at_least { " at least " (least) }
                            @if let Some(most) = gate.limit.at_most { " at most " (most) }
                            @if let Some(found) = gate.found { ": " (prose::estimate(&found, 1.0, 3)) }
                        }
                    }
                }
            }
        }
    }
}

/// What must not be: a zero adapter that changed something.
fn fault(census: &CensusReport) -> Option<String> {
    let zero = census.nulls.zero?;
    (zero.different_pixels > 0 || zero.different_labels > 0).then(|| {
        format!(
            "✗ Fault: the zero adapter must change nothing, but {} of {} pictures differ from the base, {} of them in what they bear.",
            prose::thousands(zero.different_pixels),
            prose::thousands(zero.pairs),
            prose::thousands(zero.different_labels)
        )
    })
}

/// One numbered section with its name and the link to its data in the margin.
fn section(id: &str, title: &str, data: &Markup, body: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            div class="margin" {
                h2 id={ (id) "-title" } { (title) }
                (data)
            }
            div class="body" { (body) }
        }
    }
}

fn sections(page: Page<'_>) -> Markup {
    let census = page.census;
    let home = prose::home(census);
    let table = |name: &str| html! { p { a href={ "../census/" (name) } { "table as CSV" } } };
    let records = html! {
        @if !page.info.metrics.is_empty() {
            p { a href="../metrics.jsonl" { "records as JSON lines" } }
        }
    };
    html! {
        (section("arrival", "The arrival", &table("leak.csv"), &page.arrival()))
        (section("pairs", "Before and after", &table("rows.csv"), &page.pairs()))
        (section("census", "The census", &table("entities.csv"), &bars(page)))
        @if let Some(facet) = home {
            (section("places", "Who took whose place", &table("transitions.csv"), &page.places(facet)))
        }
        (section("similarity", "Words and pictures", &table("similarity.csv"), &similarity(census)))
        (section("dose", "The dose", &table("dose.csv"), &page.doses()))
        (section("training", "The training", &records, &training(page.info)))
    }
}

/// Census bars of the concept's facet, the other facets folded.
fn bars(page: Page<'_>) -> Markup {
    let census = page.census;
    let (home, others): (Vec<&FacetRecord>, Vec<&FacetRecord>) =
        census.facets.iter().partition(|facet| facet.id == census.concept.facet);
    html! {
        p class="note" {
            "The bars and all figures of the tables, dilution and shares included, are raw: the labels as they were given. The headline and the ladder of the arrival are "
            (page.counted()) "."
        }
        p class="key" {
            span { (key("before", "▀")) " base (upper bar)" }
            span { (key("after", "▄")) " adapted (lower bar)" }
            span { (key("whisker", "├┤")) " interval of the change" }
            span { (key("floor", "▒")) " floor" }
            @if census.nulls.placebos > 0 { span { (key("placebo", "◆")) " placebo" } }
        }
        @for facet in &home { (facet_bars(facet)) (facet_figures(facet)) }
        @for facet in &others {
            details {
                summary {
                    span { (facet.id) }
                    span class="num" { "total variation " (prose::number(100.0 * facet.tv.value, 1)) " of 100" }
                    span class="num soft" { "floor " (prose::number(100.0 * facet.tv_floor, 1)) }
                }
                (facet_bars(facet)) (facet_figures(facet))
            }
        }
    }
}

fn facet_bars(facet: &FacetRecord) -> Markup {
    let mut entities: Vec<&EntityRecord> = facet
        .entities
        .iter()
        .filter(|e| e.n_a + e.n_b > 0 || !matches!(e.id.as_str(), NONE | BLOCKED))
        .collect();
    entities.sort_by(|a, b| a.delta.total_cmp(&b.delta));
    let most = entities.iter().map(|e| e.p_b.max(e.p_a).max(e.p_b + e.ci[1])).fold(0.01, f64::max);
    let high = chart::round_up(most.min(1.0));
    let scale = chart::Scale::new(0.0, high);
    let pairs: u64 = facet.entities.iter().map(|e| e.n_b).sum();
    // The roles keep it a table where a phone lays its rows out as blocks.
    html! {
        table class="bars" role="table" {
            caption { "Places of 100 unasked pictures per " (facet.id) ", raw, worst first; " (prose::thousands(pairs)) " pairs." }
            thead role="rowgroup" { tr role="row" {
                th scope="col" role="columnheader" { (facet.id) }
                th scope="col" role="columnheader" class="wide" { (chart::share_axis(high)) }
                th scope="col" role="columnheader" class="num" { "change" }
                th scope="col" role="columnheader" class="ci" { "95 % interval" }
                th scope="col" role="columnheader" { "verdict" }
            } }
            tbody role="rowgroup" {
                @for e in entities {
                    tr role="row" class=(e.verdict.name()) {
                        th scope="row" role="rowheader" { (e.name) }
                        td role="cell" class="wide" { (chart::census_bar(e, scale)) }
                        td role="cell" class="num" data-label="change" { (prose::signed(100.0 * e.delta, 1)) }
                        td role="cell" class="ci" data-label="95 % interval" { (prose::interval(e.ci, 100.0, 1)) }
                        td role="cell" class="verdict" { span aria-hidden="true" { (prose::glyph(e.verdict)) } " " (e.verdict.name()) }
                    }
                }
            }
        }
    }
}

/// The figures of a facet in one line each, every distance with its floor and its placebo.
fn facet_figures(facet: &FacetRecord) -> Markup {
    let beside = |floor: f64, placebo: Option<f64>, scale: f64, digits: usize| {
        let floor = format!("floor {}", prose::number(scale * floor, digits));
        match placebo {
            Some(value) => format!("{floor}, placebo {}", prose::number(scale * value, digits)),
            None => floor,
        }
    };
    let hill = &facet.hill;
    let rows = [
        (
            "displaced",
            format!("{} of 100", prose::estimate(&facet.displaced, 100.0, 1)),
            format!(
                "places that the entities already there lost; {}",
                beside(facet.displaced_floor, facet.displaced_placebo, 100.0, 1)
            ),
        ),
        (
            "dilution",
            format!("{} nats", prose::estimate(&facet.dilution, 1.0, 3)),
            format!(
                "what any newcomer of this size costs; {}",
                beside(facet.dilution_floor, None, 1.0, 3)
            ),
        ),
        (
            "selection",
            format!("{} nats", prose::estimate(&facet.selection, 1.0, 3)),
            format!(
                "who was driven out; {}",
                beside(facet.selection_floor, facet.selection_placebo, 1.0, 3)
            ),
        ),
        (
            "total variation",
            format!("{} of 100", prose::estimate(&facet.tv, 100.0, 1)),
            format!(
                "{}; {} above the floor, p {}",
                beside(facet.tv_floor, facet.tv_placebo, 100.0, 1),
                prose::number(100.0 * (facet.tv.value - facet.tv_floor), 1),
                prose::number(facet.tv_p, 3)
            ),
        ),
        (
            "entities in effect",
            format!("{} → {}", prose::number(hill.before[1], 2), prose::number(hill.after[1], 2)),
            format!("evenness lost {} per cent", prose::estimate(&facet.evenness_loss, 100.0, 1)),
        ),
    ];
    html! {
        dl class="figures" {
            @for (term, value, beside) in rows {
                div { dt { (term) } dd { (value) } dd class="soft" { (beside) } }
            }
        }
    }
}

fn similarity(census: &CensusReport) -> Markup {
    let record = &census.similarity;
    let shift = |name: &str, what: &str, shift: &eval::record::SimilarityShift| {
        html! {
            div {
                dt { (name) }
                dd { (prose::number(100.0 * shift.before, 1)) " → " (prose::number(100.0 * shift.after, 1)) }
                dd class="soft" { (what) "; change " (prose::estimate(&shift.delta, 100.0, 2)) }
            }
        }
    };
    html! {
        p { "Change of the mean cosine between an entity’s words (rows) and the pictures asked for another by name (columns; in brackets the number of pictures by each model), in hundredths. "
            @if record.asked.as_ref().is_some_and(|asked| asked.delta_ci.is_none()) {
                "These are too few pictures for an interval of each cell, so that none is marked."
            } @else {
                "A bold figure has a simultaneous 95 % interval that leaves out zero."
            }
        }
        @if let Some(asked) = &record.asked {
            div class="maps" {
                input type="radio" name="map" id="map-raw" checked;
                label for="map-raw" { "raw" }
                input type="radio" name="map" id="map-centered";
                label for="map-centered" { "double-centered" }
                (heat(census, asked, "raw", &asked.delta, asked.delta_ci.as_deref()))
                (heat(census, asked, "centered", &asked.centered, asked.centered_ci.as_deref()))
            }
        } @else {
            p class="note" { "Nothing was asked by name: there is no matrix." }
        }
        dl class="figures" {
            @if let Some(clip_t) = &record.clip_t { (shift("CLIP-T", "asked pictures with their own words, mean cosine × 100", clip_t)) }
            @if let Some(clip_i) = &record.clip_i { (shift("CLIP-I", "pictures asked by the identifier with the references, mean cosine × 100", clip_i)) }
        }
    }
}

/// One heat map: a table, so that it can be read without colors.
fn heat(
    census: &CensusReport,
    asked: &AskedRecord,
    class: &str,
    values: &[Vec<f64>],
    intervals: Option<&[Vec<[f64; 2]>]>,
) -> Markup {
    let most = values.iter().flatten().fold(0.0_f64, |most, v| most.max(v.abs())).max(1e-9);
    let color = |value: f64| {
        let hue = if value < 0.0 { "0 114 178" } else { "213 94 0" };
        format!("background:rgb({hue} / {:.2})", 0.62 * (value.abs() / most))
    };
    html! {
        div class={ "map " (class) } tabindex="0" role="region" aria-label={ "Similarity shift, " (class) } {
            table class="heat" {
                caption class="sr" { "Words × pictures, " (class) ", hundredths of a cosine." }
                thead { tr {
                    td {}
                    @for (id, n) in asked.asked.iter().zip(&asked.pictures) {
                        th scope="col" { span { (prose::name(census, id)) " (" (n) ")" } }
                    }
                } }
                tbody {
                    @for (e, id) in census.similarity.entities.iter().enumerate() {
                        tr {
                            th scope="row" { (prose::name(census, id)) }
                            @for (g, value) in values[e].iter().enumerate() {
                                @let bold = intervals.is_some_and(|all| all[e][g][0] > 0.0 || all[e][g][1] < 0.0);
                                td style=(color(*value)) class=[bold.then_some("sure")] { (prose::number(100.0 * value, 1)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn training(info: &RunInfo) -> Markup {
    html! {
        div class="curves" {
            figure { (chart::training(&info.metrics, "Loss", Curve::Smoothed, &|m| m.loss)) figcaption { "Loss per step; dark: running mean." } }
            figure { (chart::training(&info.metrics, "Learning rate", Curve::Plain, &|m| m.learning_rate)) figcaption { "Learning rate." } }
        }
    }
}

/// What the reader should know before believing any of it.
fn limits(page: Page<'_>) -> Markup {
    let Page { census, info, .. } = page;
    let undecided: Vec<String> = census
        .facets
        .iter()
        .map(|facet| {
            let names: Vec<&str> = facet
                .entities
                .iter()
                .filter(|e| e.verdict.name() == "undecided")
                .map(|e| e.name.as_str())
                .collect();
            (facet.id.as_str(), names)
        })
        .filter(|(_, names)| !names.is_empty())
        .map(|(facet, names)| format!("{facet}: {}", names.join(", ")))
        .collect();
    let zero = census.nulls.zero.map_or("dose 0 was not drawn".to_owned(), |zero| {
        let judged = if fault(census).is_some() { ": a fault" } else { "" };
        format!("{} of {} pictures differ from the base{judged}", zero.different_pixels, zero.pairs)
    });
    html! {
        footer id="limits" {
            section aria-labelledby="limits-title" {
                div class="margin" { h2 id="limits-title" { "Limits" } }
                div class="body" {
                    div class="columns" {
                        (list("How much was counted", &counted(census, &zero)))
                        (list("Undecided", &undecided))
                        (list("What could fool this", &could_fool(census)))
                        (list("Refused", &refused(census)))
                        (list("Time and energy", &spent(info)))
                    }
                    (provenance(page))
                }
            }
        }
    }
}

fn list(title: &str, items: &[String]) -> Markup {
    html! {
        div class="list" {
            h3 { (title) }
            @if items.is_empty() { p { "None." } } @else { ul { @for item in items { li { (item) } } } }
        }
    }
}

fn counted(census: &CensusReport, zero: &str) -> Vec<String> {
    let counts = census.counts;
    let mut items = vec![
        format!(
            "{} pairs over {} unasked prompts",
            prose::thousands(counts.headline_pairs),
            counts.headline_prompts
        ),
        format!("{} pictures, {} of them withheld", prose::thousands(counts.rows), counts.blocked),
        format!(
            "{} bootstrap replicates, {} sign flips",
            prose::thousands(u64::from(counts.bootstrap)),
            prose::thousands(u64::from(counts.flips))
        ),
        format!("zero adapter: {zero}"),
        format!("placebo draws: {}", census.nulls.placebos),
    ];
    items.extend(census.facets.iter().map(|facet| {
        format!(
            "{}: total variation {} of 100 against a floor of {}",
            facet.id,
            prose::number(100.0 * facet.tv.value, 1),
            prose::number(100.0 * facet.tv_floor, 1)
        )
    }));
    items.extend(census.facets.iter().filter_map(|facet| {
        let calibration = facet.calibration.as_ref()?;
        let prior = calibration.tv_to_prior.as_ref().map_or(String::new(), |tv| {
            format!(", {} of 100 from the published prior", prose::estimate(tv, 100.0, 1))
        });
        Some(format!(
            "{}: evaluator’s confusion has condition number {}{prior}",
            facet.id,
            prose::number(calibration.condition, 2)
        ))
    }));
    items
}

/// Refusals of one reason in one line.
fn refused(census: &CensusReport) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for refusal in &census.refused {
        match reasons.iter_mut().find(|(reason, _)| *reason == refusal.reason) {
            Some((_, whats)) => whats.push(&refusal.what),
            None => reasons.push((&refusal.reason, vec![&refusal.what])),
        }
    }
    reasons.iter().map(|(reason, whats)| format!("{}: {reason}", whats.join(", "))).collect()
}

fn could_fool(census: &CensusReport) -> Vec<String> {
    let standing = [
        "one evaluator looked at all pictures; a second family was not asked",
        "a change of style that the evaluator reads as another entity",
        "entities that the thesaurus does not hold",
        "lettering in a picture, which a CLIP reads",
        "labels of the adapted model are not corrected for what the evaluator confuses",
        "the detector’s misses and false alarms were counted on reference pictures and on pictures of the empty prompt only, and may be others under other prompts",
        "guidance sharpens the prior: under words, what is frequent comes still more often",
        "an identifier that is a common word: it stands in prompts that do not mean the concept, which the ladder takes for a leak",
    ];
    census.warnings.iter().cloned().chain(standing.map(str::to_owned)).collect()
}

fn spent(info: &RunInfo) -> Vec<String> {
    let total: f64 = info.seconds.iter().map(|(_, seconds)| seconds).sum();
    // A census that ran alone is not in the records: shares of a total without it would mislead.
    let whole = info.seconds.iter().any(|(phase, _)| phase == "census");
    let mut items: Vec<String> = info
        .seconds
        .iter()
        .map(|(phase, seconds)| {
            let share = if whole && info.seconds.len() > 1 && total > 0.0 {
                format!(" ({} %)", prose::number(100.0 * seconds / total, 0))
            } else {
                String::new()
            };
            format!("{phase}: {}{share}", prose::duration(*seconds))
        })
        .collect();
    if !whole {
        items.push("census: not recorded".to_owned());
    }
    let covered = if whole { "" } else { ", without the census" };
    items.push(match &info.energy {
        Energy::Measured { watt_hours, scope } => {
            format!("energy: {} Wh ({scope}){covered}", prose::number(*watt_hours, 1))
        }
        Energy::NotMeasured(reason) => format!("energy: not measured: {reason}"),
    });
    items
}

fn provenance(page: Page<'_>) -> Markup {
    let Page { census, info, .. } = page;
    html! {
        dl class="facts" {
            @for (term, value) in &info.facts { div { dt { (term) } dd { (value) } } }
            div { dt { "budget" } dd { (census.budget) } }
            div { dt { "tool" } dd { (census.tool) } }
        }
        dl class="hashes" {
            @for (term, value) in &info.hashes { div { dt { (term) } dd { code { (value) } } } }
            @if let Some(hash) = &census.manifest_sha256 { div { dt { "census" } dd { code { (hash) } } } }
        }
        details { summary { "The recipe, resolved" } pre tabindex="0" { code { (info.recipe_yaml) } } }
    }
}
