//! Thesaurus × pixels: what each word means to pictures asked by another, how far pictures keep the
//! distances of the thesaurus, what the base's own pictures cost, and where in a picture a word holds.

use super::chart_parts::{
    Axis, Dot, Ledger, Line, Look, changed, csv, dots, ends, fine, missing, models, named, ruled,
    valued,
};
use super::{Panel, nats};
use crate::page::Page;
use crate::words::Words;
use eval::record::{
    AskedRecord, FabricMeasure, FabricRecord, PixelPicture, PixelWord, SimilarityShift,
};
use maud::{Markup, html};
use statistics::interval::Estimate;

/// Words whose maps are open at once; the others unfold.
const OPEN: usize = 2;

/// The panel.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let body = html! {
        (shift(page))
        h3 { (words.say("similarity.cosines")) }
        (cosines(page))
        (unasked(page))
        h3 { (words.say("similarity.fabric")) }
        (fabric(page))
        h3 { (words.say("similarity.nats")) }
        (nats::part(page))
        h3 { (words.say("similarity.hold")) }
        (hold(page))
    };
    Panel {
        id: "similarity",
        title: words.say("similarity.title").to_owned(),
        data: Some("similarity.csv"),
        body,
    }
}

/// Which way a matrix is shown.
struct Shown<'a> {
    id: &'static str,
    label: &'a str,
    values: &'a [Vec<f64>],
    intervals: Option<&'a [Vec<[f64; 2]>]>,
}

/// ΔC as a table in colors, raw and double-centered.
fn shift(page: &Page<'_>) -> Markup {
    let words = page.words;
    let Some(asked) = &page.census.similarity.asked else {
        return missing(page, &["asked similarity and CLIP-T"], words.say("similarity.not_asked"));
    };
    let shown = [
        Shown {
            id: "similarity-raw",
            label: words.say("similarity.raw"),
            values: &asked.delta,
            intervals: asked.delta_ci.as_deref(),
        },
        Shown {
            id: "similarity-centered",
            label: words.say("similarity.centered"),
            values: &asked.centered,
            intervals: asked.centered_ci.as_deref(),
        },
    ];
    html! {
        @if let Some(sentence) = most_changed(page, asked) { p class="sentence" { (sentence) } }
        p class="note" {
            (words.say("similarity.how_to_read")) " "
            @if asked.delta_ci.is_some() { (words.say("similarity.bold")) }
            @else { (words.say("similarity.too_few")) }
        }
        fieldset class="scrub" {
            legend class="sr" { (words.say("similarity.switch")) }
            @for (i, one) in shown.iter().enumerate() {
                input type="radio" name="similarity" id=(one.id) checked[i == 0];
                label for=(one.id) { (one.label) }
            }
            div class="stage" {
                @for (i, one) in shown.iter().enumerate() {
                    div class={ "state" @if i == 0 { " printed" } } {
                        h3 { (one.label) }
                        (heat(page, asked, one))
                    }
                }
            }
        }
    }
}

/// The word that changed most on the pictures asked for it.
fn most_changed(page: &Page<'_>, asked: &AskedRecord) -> Option<String> {
    let words = page.words;
    let rows = &page.census.similarity.entities;
    let own = asked.asked.iter().enumerate().filter_map(|(column, id)| {
        let row = rows.iter().position(|entity| entity == id)?;
        let value = *asked.delta.get(row)?.get(column)?;
        let ci = asked.delta_ci.as_ref().and_then(|all| all.get(row)?.get(column).copied());
        Some((id, Estimate { value, ci, ci_kind: None }))
    });
    let (id, change) = own.max_by(|a, b| a.1.value.abs().total_cmp(&b.1.value.abs()))?;
    let interval = change.ci.map(|ci| format!(" {}", words.interval(ci, 100.0, 1)));
    let value =
        format!("{}{}", words.signed(100.0 * change.value, 1), interval.unwrap_or_default());
    Some(words.fill(
        "similarity.most_changed",
        &[("word", &words.quoted(&page.name(id))), ("value", &value)],
    ))
}

/// The facet of an entity.
fn facet_of<'a>(page: &Page<'a>, id: &str) -> &'a str {
    let census = page.census;
    let facet = census.facets.iter().find(|facet| facet.entities.iter().any(|e| e.id == id));
    facet.map_or("", |facet| facet.id.as_str())
}

/// Rows of the matrix by facet, in the order of the thesaurus.
fn by_facet<'a>(page: &Page<'a>) -> Vec<(&'a str, Vec<usize>)> {
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    for (row, id) in page.census.similarity.entities.iter().enumerate() {
        let facet = facet_of(page, id);
        match groups.last_mut() {
            Some((last, rows)) if *last == facet => rows.push(row),
            _ => groups.push((facet, vec![row])),
        }
    }
    groups
}

/// One heat map: a table, so that it can be read without colors.
fn heat(page: &Page<'_>, asked: &AskedRecord, shown: &Shown<'_>) -> Markup {
    let words = page.words;
    let caption = words.fill("similarity.caption", &[("form", shown.label)]);
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(caption) {
            table class="heat" {
                caption class="sr" { (caption) }
                thead { tr {
                    td {}
                    @for (id, n) in asked.asked.iter().zip(&asked.pictures) {
                        th scope="col" { span { (page.name(id)) " (" (words.thousands(*n)) ")" } }
                    }
                } }
                @for (facet, rows) in by_facet(page) {
                    tbody {
                        tr class="facet" {
                            th scope="rowgroup" colspan=(asked.asked.len() + 1) { (page.facet(facet)) }
                        }
                        @for row in rows { (heat_row(page, asked, shown, row)) }
                    }
                }
            }
        }
    }
}

fn heat_row(page: &Page<'_>, asked: &AskedRecord, shown: &Shown<'_>, row: usize) -> Markup {
    let most = shown.values.iter().flatten().fold(1e-9_f64, |most, v| most.max(v.abs()));
    let color = |value: f64| {
        let hue = if value < 0.0 { "0 114 178" } else { "213 94 0" };
        format!("background:rgb({hue} / {:.2})", 0.62 * (value.abs() / most))
    };
    let Some(id) = page.census.similarity.entities.get(row) else { return html! {} };
    let cells = shown.values.get(row).map_or(&[][..], Vec::as_slice);
    let sure = |column: usize| {
        let cell = shown.intervals.and_then(|all| all.get(row)?.get(column));
        cell.is_some_and(|[low, high]| *low > 0.0 || *high < 0.0)
    };
    let mapped = page.census.pixels.as_ref();
    let mapped = mapped.is_some_and(|pixels| pixels.words.iter().any(|word| word.id == *id));
    html! {
        tr {
            th scope="row" {
                @if mapped { a href={ "#hold-" (id) } { (page.name(id)) } } @else { (page.name(id)) }
            }
            @for (column, value) in cells.iter().enumerate() {
                @let own = asked.asked.get(column) == Some(id);
                td style=(color(*value)) class={ @if own { "own " } @if sure(column) { "sure" } } {
                    (page.words.number(100.0 * value, 1))
                }
            }
        }
    }
}

/// CLIP-T and CLIP-I.
fn cosines(page: &Page<'_>) -> Markup {
    let words = page.words;
    let record = &page.census.similarity;
    let both = [
        ("CLIP-T", words.say("similarity.clip_t"), record.clip_t),
        ("CLIP-I", words.say("similarity.clip_i"), record.clip_i),
    ];
    let present: Vec<(&str, &str, SimilarityShift)> =
        both.into_iter().filter_map(|(name, under, shift)| Some((name, under, shift?))).collect();
    let values: Vec<f64> = present.iter().flat_map(|(_, _, s)| [s.before, s.after]).collect();
    let axis = Axis::of(&values);
    let lines = present.iter().map(|(name, under, shift)| Line {
        name: named(name, under),
        chart: Some(shift_dots(words, name, &axis, shift)),
        cells: shift_cells(words, shift),
    });
    let ledger = Ledger {
        caption: words.say("similarity.cosines_caption"),
        first: words.say("similarity.measure"),
        axis: Some(ruled(words, &axis, 100.0)),
        heads: &[words.say("page.before"), words.say("page.after"), words.say("page.change")],
        lines: lines.collect(),
    };
    html! {
        @if !present.is_empty() { (models(words)) (ledger.draw()) }
        @if record.clip_t.is_none() { (missing(page, &["asked similarity and CLIP-T"], words.say("similarity.no_clip_t"))) }
        @if record.clip_i.is_none() { (missing(page, &["CLIP-I"], words.say("similarity.no_clip_i"))) }
    }
}

/// Before and after on one axis; the interval is that of the change, drawn around what came after.
fn shift_dots(words: &Words, name: &str, axis: &Axis, shift: &SimilarityShift) -> Markup {
    let ci = shift.delta.ci.map(|ci| ci.map(|end| shift.before + end));
    let after = Estimate { value: shift.after, ci, ci_kind: None };
    let said = words.fill(
        "similarity.shift_described",
        &[
            ("name", name),
            ("before", &words.number(100.0 * shift.before, 1)),
            ("after", &words.number(100.0 * shift.after, 1)),
            ("change", &words.estimate(&shift.delta, 100.0, 2)),
        ],
    );
    let before = Dot::upper(Estimate::bare(shift.before), Look::Base);
    dots(name, &said, axis, &[before, Dot::lower(after, Look::Adapted)])
}

fn shift_cells(words: &Words, shift: &SimilarityShift) -> Vec<Markup> {
    vec![
        html! { (words.number(100.0 * shift.before, 1)) },
        html! { (words.number(100.0 * shift.after, 1)) },
        changed(words, &shift.delta, 100.0, 2),
    ]
}

/// ΔS: unasked pictures against every word.
fn unasked(page: &Page<'_>) -> Markup {
    let words = page.words;
    let record = &page.census.similarity;
    let axis = Axis::with_zero(&ends(record.unasked.iter().map(|shift| &shift.delta)));
    let lines = record.entities.iter().zip(&record.unasked).map(|(id, shift)| {
        let name = page.name(id);
        let said = words.fill(
            "similarity.unasked_described",
            &[("word", &name), ("change", &words.estimate(&shift.delta, 100.0, 2))],
        );
        let dot = Dot { estimate: shift.delta, look: Look::Adapted, down: 14.5 };
        Line {
            name: html! { (name) },
            chart: Some(dots(&name, &said, &axis, &[dot])),
            cells: shift_cells(words, shift),
        }
    });
    let ledger = Ledger {
        caption: words.say("similarity.unasked_caption"),
        first: words.say("similarity.word"),
        axis: Some(ruled(words, &axis, 100.0)),
        heads: &[words.say("page.before"), words.say("page.after"), words.say("page.change")],
        lines: lines.collect(),
    };
    html! {
        @if !record.unasked.is_empty() {
            details {
                summary { span { (words.say("similarity.unasked")) } }
                (ledger.draw())
            }
        }
    }
}

/// ρ of the thesaurus and the pictures, before and after.
fn fabric(page: &Page<'_>) -> Markup {
    let words = page.words;
    let Some(record) = &page.census.fabric else {
        return missing(page, &["fabric"], words.say("similarity.no_fabric"));
    };
    let kept = record.tree.ratio.as_ref();
    let kept = kept
        .map(|ratio| words.fill("similarity.kept", &[("kept", &words.estimate(ratio, 1.0, 2))]));
    let sentence = words.fill(
        "similarity.fabric_sentence",
        &[
            ("before", &words.estimate(&record.tree.before, 1.0, 2)),
            ("after", &words.estimate(&record.tree.after, 1.0, 2)),
            ("kept", kept.as_deref().unwrap_or_else(|| words.say("similarity.kept_refused"))),
        ],
    );
    html! {
        p { (sentence) }
        (models(words))
        (fabric_table(words, record))
        (csv(page, "fabric.csv"))
    }
}

fn fabric_table(words: &Words, record: &FabricRecord) -> Markup {
    let all = [&record.tree, &record.words];
    let axis = Axis::with_zero(&ends(all.iter().flat_map(|one| [&one.before, &one.after])));
    let line = |name: &str, measure: &FabricMeasure| {
        let said = words.fill(
            "similarity.fabric_described",
            &[
                ("name", name),
                ("before", &words.estimate(&measure.before, 1.0, 2)),
                ("after", &words.estimate(&measure.after, 1.0, 2)),
            ],
        );
        let pair =
            [Dot::upper(measure.before, Look::Base), Dot::lower(measure.after, Look::Adapted)];
        let kept = measure.ratio.as_ref().map(|ratio| valued(words, ratio, 1.0, 2));
        let p = [measure.p.before, measure.p.after].map(|p| words.number(p, 3)).join(" → ");
        Line {
            name: html! { (name) },
            chart: Some(dots(name, &said, &axis, &pair)),
            cells: vec![
                valued(words, &measure.before, 1.0, 2),
                valued(words, &measure.after, 1.0, 2),
                changed(words, &measure.delta, 1.0, 2),
                kept.unwrap_or_else(|| html! { (words.say("parts.refused")) }),
                html! { (p) },
            ],
        }
    };
    let caption = words.fill(
        "similarity.fabric_caption",
        &[
            ("entities", &record.entities.len().to_string()),
            ("pictures", &words.thousands(record.pictures)),
        ],
    );
    let ledger = Ledger {
        caption: &caption,
        first: words.say("similarity.distance"),
        axis: Some(ruled(words, &axis, 1.0)),
        heads: &[
            words.say("page.before"),
            words.say("page.after"),
            words.say("page.change"),
            words.say("similarity.kept_head"),
            "p",
        ],
        lines: vec![
            line(words.say("similarity.tree"), &record.tree),
            line(words.say("similarity.words"), &record.words),
        ],
    };
    ledger.draw()
}

/// Information maps: where a word has its hold, before and after.
fn hold(page: &Page<'_>) -> Markup {
    let words = page.words;
    let Some(record) = &page.census.pixels else {
        return missing(page, &["pixels"], words.say("similarity.no_hold"));
    };
    let strongest =
        record.words.iter().max_by(|a, b| a.delta.value.abs().total_cmp(&b.delta.value.abs()));
    html! {
        @if let Some(word) = strongest { p { (hold_sentence(page, word)) } }
        p class="note" { (words.fill("similarity.hold_how", &[("levels", &words.thousands(record.levels))])) }
        @for (i, word) in record.words.iter().enumerate() {
            details class="way" id={ "hold-" (word.id) } open[i < OPEN] {
                summary {
                    span { (words.quoted(&word.phrase)) }
                    span class="num" { (nats_of(words, &word.before)) " → " (nats_of(words, &word.after)) }
                }
                p class="note" { (hold_sentence(page, word)) }
                div class="hold" {
                    div class="four heads" aria-hidden="true" {
                        @for head in heads(words) { span { (head) } }
                    }
                    @for picture in &word.pictures { (four(page, word, picture)) }
                }
            }
        }
        (csv(page, "pixels.csv"))
    }
}

fn nats_of(words: &Words, estimate: &Estimate) -> String {
    words.number(estimate.value, fine(estimate.value))
}

fn heads(words: &Words) -> [&str; 4] {
    [
        words.say("similarity.picture"),
        words.say("page.before"),
        words.say("page.after"),
        words.say("similarity.difference"),
    ]
}

fn hold_sentence(page: &Page<'_>, word: &PixelWord) -> String {
    let words = page.words;
    let digits = fine(word.before.value);
    words.fill(
        "similarity.hold_sentence",
        &[
            ("word", &words.quoted(&word.phrase)),
            ("before", &words.estimate(&word.before, 1.0, digits)),
            ("after", &words.estimate(&word.after, 1.0, digits)),
            ("change", &words.estimate(&word.delta, 1.0, digits)),
        ],
    )
}

/// A picture of the base and its three maps.
fn four(page: &Page<'_>, word: &PixelWord, picture: &PixelPicture) -> Markup {
    let words = page.words;
    let paths = [&picture.picture, &picture.before, &picture.after, &picture.difference];
    let scale = words.number(picture.scale, fine(picture.scale));
    html! {
        figure {
            div class="four" {
                @for (path, head) in paths.into_iter().zip(heads(words)) {
                    (page.picture(path, &words.fill("similarity.map_of", &[("map", head), ("word", &word.phrase)])))
                }
            }
            figcaption { (words.fill("similarity.scale", &[("scale", &scale)])) }
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

    #[test]
    fn the_word_that_changed_most_on_its_own_pictures_is_named_with_its_interval() {
        let mut census = sample::census();
        let asked = census.similarity.asked.as_mut().unwrap();
        let row = census.similarity.entities.iter().position(|id| id == "boat").unwrap();
        let column = asked.asked.iter().position(|id| id == "boat").unwrap();
        asked.delta[row][column] = -0.5;
        asked.delta_ci.as_mut().unwrap()[row][column] = [-0.6, -0.4];
        let english = drawn(&census, Language::English);
        assert!(english.contains("“boat” changed most: −50.0 [−60.0, −40.0]"), "{english}");
        assert!(english.contains("class=\"own sure\">−50.0</td>"));
        let french = drawn(&census, Language::French);
        assert!(french.contains("bateau") && french.contains("−50,0 [−60,0\u{202f}; −40,0]"));
        census.similarity.asked.as_mut().unwrap().delta_ci = None;
        let page = drawn(&census, Language::English);
        assert!(page.contains("“boat” changed most: −50.0 hundredths"), "{page}");
        assert!(page.contains("too few pictures"));
    }

    #[test]
    fn what_was_not_measured_is_said_with_its_reason() {
        let mut census = sample::bare();
        let refuse = |what: &str, reason: &str| eval::record::Refusal {
            what: what.into(),
            reason: reason.into(),
        };
        census.refused = vec![
            refuse("asked similarity and CLIP-T", "reason one"),
            refuse("fabric", "reason two"),
            refuse("likelihood", "reason three"),
            refuse("pixels", "reason four"),
        ];
        let page = drawn(&census, Language::English);
        for reason in ["reason one", "reason two", "reason three", "reason four"] {
            assert!(page.contains(&format!("<span>{reason}</span>.")), "{reason}");
        }
        assert!(!page.contains("class=\"heat\""));
    }

    #[test]
    fn a_ratio_without_ground_is_refused_in_words() {
        let mut census = sample::census();
        census.fabric.as_mut().unwrap().tree.ratio = None;
        let page = drawn(&census, Language::English);
        assert!(page.contains("how much of the fabric is kept is not said"), "{page}");
        assert!(page.contains(">refused</td>"));
    }

    #[test]
    fn a_word_with_maps_is_reached_from_its_row() {
        let page = drawn(&sample::census(), Language::English);
        assert!(page.contains("href=\"#hold-boat\"") && page.contains("id=\"hold-boat\""));
        assert_eq!(page.matches("class=\"heat\"").count(), 2);
        assert_eq!(page.matches("type=\"radio\"").count(), 2);
    }
}
