//! Series sheets: whether pictures drawn under changing instructions belong to one world, and whether
//! they are still different pictures.

use super::Panel;
use super::chart_parts::{
    Axis, Dot, LOWER_PX, Ledger, Line, Look, ROW_PX, UPPER_PX, anchor, dots, ends, figure, grid,
    legend, mark, missing, models, px, ruled, valued, whisker,
};
use crate::page::Page;
use crate::words::Words;
use eval::record::{Coherence, FrontierPoint, SeriesRecord, SeriesSheet, SeriesSpace};
use maud::{Markup, html};
use statistics::interval::Estimate;

/// Height of the frontier; its field.
const FRONTIER_PX: u32 = 292;
const TOP_PX: f64 = 28.0;
const FIELD_PX: f64 = 220.0;
/// Sheets that are open at once; the others unfold.
const OPEN: usize = 1;
/// Series shown beside the page and within it.
const SHOWN: [usize; 2] = [24, 4];

/// The panel.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let body = match &page.census.series {
        None => missing(page, &["series"], words.say("series.none")),
        Some(record) => html! {
            @if let Some(sentence) = sentence(words, record) { p class="sentence" { (sentence) } }
            p class="note" { (words.say("series.how")) }
            (coherence(words, record))
            h3 { (words.say("series.frontier")) }
            (frontier(words, record))
            h3 { (words.say("series.sheets")) }
            (sheets(page, record))
        },
    };
    Panel {
        id: "series",
        title: words.say("series.title").to_owned(),
        data: page.census.series.as_ref().map(|_| "series.csv"),
        body,
    }
}

/// What a space of distances is called.
fn space<'a>(words: &'a Words, id: &'a str) -> &'a str {
    match id {
        "style" => words.say("series.space_style"),
        "content" => words.say("series.space_content"),
        "palette" => words.say("series.space_palette"),
        other => other,
    }
}

/// The space that the sentence is about: style, else the first.
fn leading(record: &SeriesRecord) -> Option<&SeriesSpace> {
    record.spaces.iter().find(|space| space.space == "style").or_else(|| record.spaces.first())
}

fn sentence(words: &Words, record: &SeriesRecord) -> Option<String> {
    let leading = leading(record)?;
    let name = space(words, &leading.space);
    let after = words.estimate(&leading.after.r2, 100.0, 1);
    let chance = words.number(100.0 * leading.after.r2_permuted, 1);
    let Some(before) = &leading.before else {
        let values = [("space", name), ("after", &*after), ("chance", &*chance)];
        return Some(words.fill("series.sentence_alone", &values));
    };
    let kept = leading.retention.as_ref().map_or_else(
        || words.say("series.retention_refused").to_owned(),
        |kept| words.fill("series.retention", &[("kept", &words.estimate(kept, 1.0, 2))]),
    );
    let before = words.estimate(&before.r2, 100.0, 1);
    let values = [
        ("space", name),
        ("before", &*before),
        ("after", &*after),
        ("chance", &*chance),
        ("kept", &*kept),
    ];
    Some(words.fill("series.sentence", &values))
}

/// R² in each space, before and after, with what comes about by chance.
fn coherence(words: &Words, record: &SeriesRecord) -> Markup {
    let all = || record.spaces.iter().flat_map(|s| s.before.iter().chain([&s.after]));
    let mut shown = ends(all().map(|coherence| &coherence.r2));
    shown.extend(all().map(|coherence| coherence.r2_permuted));
    let axis = Axis::with_zero(&shown);
    let lines = record.spaces.iter().map(|one| Line {
        name: html! { (space(words, &one.space)) },
        chart: Some(row(words, &axis, one)),
        cells: cells(words, one),
    });
    let caption = words.fill("series.caption", &[("pictures", &words.thousands(record.pictures))]);
    let ledger = Ledger {
        caption: &caption,
        first: words.say("series.space"),
        axis: Some(ruled(words, &axis, 1.0)),
        heads: &[
            words.say("page.before"),
            words.say("page.after"),
            words.say("series.chance_head"),
            words.say("series.omega_head"),
            words.say("series.kept_head"),
            "p",
        ],
        lines: lines.collect(),
    };
    html! {
        (models(words))
        (legend(&[(Look::Plain.class(), Look::Plain.glyph(), words.say("series.key_chance"))]))
        (ledger.draw())
        (separation(words, record))
    }
}

fn cells(words: &Words, one: &SeriesSpace) -> Vec<Markup> {
    let refused = |known: bool| {
        let key = if known { words.say("parts.refused") } else { words.say("parts.not_drawn") };
        html! { (key) }
    };
    vec![
        one.before.as_ref().map_or_else(|| refused(false), |b| valued(words, &b.r2, 1.0, 2)),
        valued(words, &one.after.r2, 1.0, 2),
        html! { (words.number(one.after.r2_permuted, 2)) },
        html! { (words.number(one.after.omega2, 2)) },
        one.retention
            .as_ref()
            .map_or_else(|| refused(one.before.is_some()), |kept| valued(words, kept, 1.0, 2)),
        html! { (words.number(one.after.p, 3)) },
    ]
}

/// One space: R² of both models, each with a line where chance alone would put it.
fn row(words: &Words, axis: &Axis, one: &SeriesSpace) -> Markup {
    let name = space(words, &one.space);
    let mut shown = Vec::new();
    if let Some(before) = &one.before {
        shown.push(Dot::upper(Estimate::bare(before.r2_permuted), Look::Plain));
        shown.push(Dot::upper(before.r2, Look::Base));
    }
    shown.push(Dot::lower(Estimate::bare(one.after.r2_permuted), Look::Plain));
    shown.push(Dot::lower(one.after.r2, Look::Adapted));
    let before = one.before.as_ref().map(|before| words.estimate(&before.r2, 1.0, 2));
    let said = words.fill(
        "series.row_described",
        &[
            ("before", before.as_deref().unwrap_or_else(|| words.say("parts.not_drawn"))),
            ("after", &words.estimate(&one.after.r2, 1.0, 2)),
            ("chance", &words.number(one.after.r2_permuted, 2)),
        ],
    );
    dots(name, &said, axis, &shown)
}

/// Pseudo-F and silhouette, for those who ask.
fn separation(words: &Words, record: &SeriesRecord) -> Markup {
    let pair = |one: &SeriesSpace, read: &dyn Fn(&Coherence) -> f64, digits: usize| {
        let after = words.number(read(&one.after), digits);
        match &one.before {
            Some(before) => format!("{} → {after}", words.number(read(before), digits)),
            None => after,
        }
    };
    let lines = record.spaces.iter().map(|one| Line {
        name: html! { (space(words, &one.space)) },
        chart: None,
        cells: vec![
            html! { (pair(one, &|coherence| coherence.f, 1)) },
            html! { (pair(one, &|coherence| coherence.silhouette, 2)) },
            html! { (pair(one, &|coherence| coherence.p, 3)) },
        ],
    });
    let ledger = Ledger {
        caption: words.say("series.separation_caption"),
        first: words.say("series.space"),
        axis: None,
        heads: &[words.say("series.f_head"), words.say("series.silhouette_head"), "p"],
        lines: lines.collect(),
    };
    html! {
        details {
            summary { span { (words.say("series.separation")) } }
            (ledger.draw())
        }
    }
}

/// Coherence against diversity: a frozen, repeated picture is perfectly coherent.
fn frontier(words: &Words, record: &SeriesRecord) -> Markup {
    if record.frontier.is_empty() {
        return html! { p class="note" { (words.say("series.no_frontier")) } };
    }
    let across = Axis::of(&ends(record.frontier.iter().map(|point| &point.vendi)));
    let up = Axis::with_zero(&ends(record.frontier.iter().map(|point| &point.r2)));
    let x = |point: &FrontierPoint| across.percent(point.vendi.value);
    let y = |point: &FrontierPoint| up.down(point.r2.value, TOP_PX, FIELD_PX);
    let said: Vec<String> = record.frontier.iter().map(|p| point_described(words, p)).collect();
    let body = html! {
        (lattice(words, &across, &up))
        @for pair in record.frontier.windows(2) {
            line class="fit" x1=(x(&pair[0])) x2=(x(&pair[1])) y1=(px(y(&pair[0]))) y2=(px(y(&pair[1]))) {}
        }
        @for (i, point) in record.frontier.iter().enumerate() {
            (whisker(&across, point.vendi.ci, y(point), "across"))
            @if let Some([low, high]) = point.r2.ci {
                line class="whisker" x1=(x(point)) x2=(x(point)) y1=(px(up.down(low, TOP_PX, FIELD_PX))) y2=(px(up.down(high, TOP_PX, FIELD_PX))) {}
            }
            (mark(&x(point), y(point), look(point)))
            (beside(words, &across, point, (y(point), i)))
        }
    };
    html! {
        figure class="frontier" {
            (figure(FRONTIER_PX, words.say("series.frontier_title"), &said.join(" "), &body))
            figcaption { (words.say("series.frontier_caption")) }
        }
        (frontier_table(words, record))
    }
}

fn look(point: &FrontierPoint) -> Look {
    if point.dose > 0.0 { Look::Adapted } else { Look::Base }
}

fn point_described(words: &Words, point: &FrontierPoint) -> String {
    words.fill(
        "series.point_described",
        &[
            ("dose", &words.exact(point.dose)),
            ("r2", &words.estimate(&point.r2, 1.0, 2)),
            ("vendi", &words.estimate(&point.vendi, 1.0, 1)),
        ],
    )
}

/// Lines of equal coherence and of equal diversity, with their numbers.
fn lattice(words: &Words, across: &Axis, up: &Axis) -> Markup {
    let bottom = TOP_PX + FIELD_PX;
    html! {
        @for tick in across.ticks() {
            line class="grid" x1=(across.percent(tick)) x2=(across.percent(tick)) y1=(px(TOP_PX)) y2=(px(bottom)) {}
            text class="label" x=(across.percent(tick)) y=(px(bottom + 16.0)) text-anchor=(anchor(across.part(tick))) {
                (words.number(tick, across.digits(1.0)))
            }
        }
        @for tick in up.ticks() {
            @let down = up.down(tick, TOP_PX, FIELD_PX);
            line class="grid" x1="0" x2="100%" y1=(px(down)) y2=(px(down)) {}
            text class="label" x="3" y=(px(down - 3.0)) { (words.number(tick, up.digits(1.0))) }
        }
        text class="label" x="100%" y=(px(bottom + 34.0)) text-anchor="end" { (words.say("series.across")) " →" }
        text class="label" x="0" y="10" { "↑ " (words.say("series.up")) }
    }
}

/// The dose beside its point, on the side that has room; neighbors stand above and below in turn.
fn beside(words: &Words, across: &Axis, point: &FrontierPoint, (down, i): (f64, usize)) -> Markup {
    let (dx, anchor) =
        if across.part(point.vendi.value) < 0.8 { ("9", "start") } else { ("-9", "end") };
    html! {
        svg x=(across.percent(point.vendi.value)) y=(px(down)) overflow="visible" {
            text class="node" x=(dx) y=(if i % 2 == 0 { "-8" } else { "19" }) text-anchor=(anchor) {
                (words.fill("series.at_dose", &[("dose", &words.exact(point.dose))]))
            }
        }
    }
}

fn frontier_table(words: &Words, record: &SeriesRecord) -> Markup {
    let nearest = record.frontier.iter().filter_map(|p| p.nearest_reference.map(Estimate::bare));
    let nearest: Vec<Estimate> = nearest.collect();
    let axis = Axis::of(&ends(nearest.iter()));
    let lines = record.frontier.iter().map(|point| Line {
        name: html! { (words.exact(point.dose)) },
        chart: point.nearest_reference.map(|cosine| near(words, &axis, point, cosine)),
        cells: vec![
            valued(words, &point.r2, 1.0, 2),
            valued(words, &point.vendi, 1.0, 1),
            html! {
                (point.nearest_reference.map_or_else(
                    || words.say("parts.not_drawn").to_owned(),
                    |cosine| words.number(100.0 * cosine, 1),
                ))
            },
            html! { (words.number(100.0 * point.clip_t, 1)) },
        ],
    });
    let ledger = Ledger {
        caption: words.say("series.frontier_table"),
        first: words.say("series.dose"),
        axis: (!nearest.is_empty()).then(|| ruled(words, &axis, 100.0)),
        heads: &[
            words.say("series.r2_head"),
            words.say("series.vendi_head"),
            words.say("series.nearest_head"),
            "CLIP-T",
        ],
        lines: lines.collect(),
    };
    ledger.draw()
}

/// The nearest reference of one dose, on the axis of all.
fn near(words: &Words, axis: &Axis, point: &FrontierPoint, cosine: f64) -> Markup {
    let said = words.fill(
        "series.near_described",
        &[("dose", &words.exact(point.dose)), ("cosine", &words.number(100.0 * cosine, 1))],
    );
    let body = html! {
        (grid(axis, f64::from(ROW_PX)))
        (mark(&axis.percent(cosine), f64::midpoint(UPPER_PX, LOWER_PX), look(point)))
    };
    figure(ROW_PX, words.say("series.nearest_head"), &said, &body)
}

/// Sheets of the same series stand together, the base first.
fn sheets(page: &Page<'_>, record: &SeriesRecord) -> Markup {
    let words = page.words;
    let mut names: Vec<&str> = Vec::new();
    for sheet in &record.sheets {
        if !names.contains(&sheet.name.as_str()) {
            names.push(&sheet.name);
        }
    }
    let shown = page.at_most(SHOWN[0], SHOWN[1]);
    html! {
        @if names.is_empty() { p class="note" { (words.say("series.no_sheets")) } }
        @for (i, name) in names.iter().take(shown).enumerate() {
            details class="way" open[i < OPEN] {
                summary {
                    span { (name) }
                    span class="num soft" { (words.count("series.n_sheets", count(record, name))) }
                }
                div class="sheets" {
                    @for sheet in record.sheets.iter().filter(|sheet| sheet.name == *name) { (one(page, sheet)) }
                }
            }
        }
        @if names.len() > shown {
            p class="note listed" { (words.fill("series.more", &[("shown", &shown.to_string()), ("all", &names.len().to_string())])) }
        }
    }
}

fn count(record: &SeriesRecord, name: &str) -> u64 {
    let same = record.sheets.iter().filter(|sheet| sheet.name == name).count();
    u64::try_from(same).unwrap_or(u64::MAX)
}

/// One series of one model: its pictures in order, each under its instruction.
fn one(page: &Page<'_>, sheet: &SeriesSheet) -> Markup {
    let words = page.words;
    let model = match sheet.model.as_str() {
        "base" => words.say("page.base"),
        "adapted" => words.say("page.adapted"),
        other => other,
    };
    html! {
        figure class="sheet" {
            figcaption class="head" { (model) }
            ol {
                @for picture in &sheet.pictures {
                    li {
                        (page.picture(&picture.picture, &words.fill("series.alt", &[
                            ("model", model),
                            ("instruction", &picture.instruction),
                            ("seed", &picture.seed_idx.to_string()),
                        ])))
                        span { (picture.instruction) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;

    fn drawn(census: &eval::json::CensusReport, language: Language) -> String {
        sample::on_page(census, language, &|page| panel(page).body)
    }

    fn style(census: &mut eval::json::CensusReport) -> &mut SeriesSpace {
        let spaces = &mut census.series.as_mut().unwrap().spaces;
        spaces.iter_mut().find(|space| space.space == "style").unwrap()
    }

    #[test]
    fn coherence_is_told_with_its_interval_and_with_chance() {
        let mut census = sample::census();
        let space = style(&mut census);
        space.after.r2 = Estimate { value: 0.61, ci: Some([0.54, 0.68]), ci_kind: None };
        space.after.r2_permuted = 0.08;
        let english = drawn(&census, Language::English);
        assert!(
            english.contains("61.0 [54.0, 68.0]") && english.contains("chance alone gives 8.0")
        );
        let french = drawn(&census, Language::French);
        assert!(french.contains("61,0 [54,0\u{202f}; 68,0]"), "{french}");
    }

    #[test]
    fn retention_without_ground_is_refused_in_words() {
        let mut census = sample::census();
        style(&mut census).retention = None;
        let page = drawn(&census, Language::English);
        assert!(page.contains("how much of the world is kept is not said"), "{page}");
        style(&mut census).before = None;
        let page = drawn(&census, Language::English);
        assert!(page.contains(">not drawn</td>") && !page.contains("is kept"), "{page}");
    }

    #[test]
    fn sheets_of_one_series_stand_together() {
        let census = sample::census();
        let record = census.series.as_ref().unwrap();
        let names: Vec<&str> = record.sheets.iter().map(|sheet| sheet.name.as_str()).collect();
        let page = drawn(&census, Language::English);
        assert_eq!(page.matches("class=\"sheets\"").count() * 2, names.len());
        assert_eq!(page.matches("class=\"sheet\"").count(), names.len());
        let pictures: usize = record.sheets.iter().map(|sheet| sheet.pictures.len()).sum();
        assert_eq!(page.matches("<li>").count(), pictures);
    }

    #[test]
    fn every_dose_stands_on_the_frontier() {
        let census = sample::census();
        let points = census.series.as_ref().unwrap().frontier.len();
        let page = drawn(&census, Language::English);
        let chart = page.split("class=\"frontier\"").nth(1).unwrap();
        let chart = chart.split("</figure>").next().unwrap();
        assert_eq!(chart.matches("class=\"mark\"").count(), points);
        assert_eq!(chart.matches("class=\"node\"").count(), points);
    }

    #[test]
    fn without_series_one_sentence_says_why() {
        let mut census = sample::bare();
        census.refused =
            vec![eval::record::Refusal { what: "series".into(), reason: "why".into() }];
        let page = drawn(&census, Language::English);
        assert!(
            page.contains("No series was drawn") && page.contains("<span>why</span>."),
            "{page}"
        );
    }
}
