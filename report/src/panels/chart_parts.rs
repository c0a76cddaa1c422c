//! Parts of the charts and tables of several panels. Inline SVG: places across are per cent and heights
//! are pixels, so that a chart fills whatever width it is given and its text keeps its size. Every mark
//! has a shape of its own, so that no color is needed to tell the models apart.

use crate::Form;
use crate::chart::{self, DIAMOND, ROUND, SQUARE};
use crate::page::{Page, key};
use crate::words::{Language, Words};
use maud::{Markup, html};
use statistics::interval::Estimate;
use statistics::number::{index, real};

/// Height of a row that holds one model above the other.
pub(super) const ROW_PX: u32 = 29;
/// Where the base stands in such a row.
pub(super) const UPPER_PX: f64 = 9.0;
/// Where the adapted model stands in such a row.
pub(super) const LOWER_PX: f64 = 20.0;

/// A linear scale with round ends and round ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// The round ends around `low` and `high`, with about five ticks.
    pub(super) fn around(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let least = (high - low) / 4.0;
        let power = libm::pow(10.0, libm::floor(libm::log10(least)));
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|part| part * power)
            .find(|step| *step >= least * 0.999)
            .unwrap_or(10.0 * power);
        Self {
            low: libm::floor(low / step + 1e-9) * step,
            high: libm::ceil(high / step - 1e-9) * step,
            step,
        }
    }

    /// From 0 to 1 without ticks between.
    pub(super) fn unit() -> Self {
        Self { low: 0.0, high: 1.0, step: 1.0 }
    }

    /// From one whole number to another, a tick at each.
    pub(super) fn whole(low: f64, high: f64) -> Self {
        Self { low, high: high.max(low + 1.0), step: 1.0 }
    }

    /// The round ends around all of these, 0 among them.
    pub(super) fn with_zero(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(0.0, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        Self::around(low, high)
    }

    /// The round ends around all of these.
    pub(super) fn of(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low <= high { Self::around(low, high) } else { Self::around(0.0, 1.0) }
    }

    /// Its ticks, rising, both ends among them.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let last = index((self.high - self.low) / self.step + 0.5);
        (0..=last).map(|tick| self.low + real(tick) * self.step).collect()
    }

    /// Decimals that a tick needs once it is multiplied by `scale`.
    pub(super) fn digits(&self, scale: f64) -> usize {
        let step = self.step * scale;
        let exact = |digits: &usize| {
            let parts = step * libm::pow(10.0, real(*digits));
            (parts - libm::round(parts)).abs() < 1e-6
        };
        (0..6).find(exact).unwrap_or(6)
    }

    /// Where `value` lies between both ends, kept within them.
    pub(super) fn part(&self, value: f64) -> f64 {
        self.unbounded(value).clamp(0.0, 1.0)
    }

    /// The same, not kept within them.
    pub(super) fn unbounded(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// The same as [`Self::part`] in per cent of the width.
    pub(super) fn percent(&self, value: f64) -> String {
        percent(self.part(value))
    }

    /// Distance between two values in per cent of the width.
    pub(super) fn width(&self, from: f64, to: f64) -> String {
        percent((self.part(to) - self.part(from)).abs())
    }

    /// Height of `value` in pixels, in a field of `height` that begins at `top`; the higher, the smaller.
    pub(super) fn down(&self, value: f64, top: f64, height: f64) -> f64 {
        top + height * (1.0 - self.part(value))
    }

    fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// A part of 1 in per cent.
pub(super) fn percent(part: f64) -> String {
    format!("{:.2}%", 100.0 * part)
}

/// Pixels.
pub(super) fn px(value: f64) -> String {
    format!("{value:.1}")
}

/// How a text at `part` of the width is anchored so that it stays inside.
pub(super) fn anchor(part: f64) -> &'static str {
    if part < 0.04 {
        "start"
    } else if part > 0.96 {
        "end"
    } else {
        "middle"
    }
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The base: a ring.
    Base,
    /// The adapted model: a square.
    Adapted,
    /// A placebo: a diamond.
    Placebo,
    /// As counted before a correction, or by chance: an upright line.
    Plain,
    /// A dose between: a small ring.
    Between,
    /// Half of the effect: a triangle.
    Half,
}

impl Look {
    /// Its class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Adapted => "adapted",
            Self::Placebo => "placebo",
            Self::Plain => "plain",
            Self::Between => "between",
            Self::Half => "half",
        }
    }

    /// The sign that stands for it in a legend.
    pub(super) fn glyph(self) -> &'static str {
        match self {
            Self::Base => "○",
            Self::Adapted => "■",
            Self::Placebo => "◇",
            Self::Plain => "|",
            Self::Between => "◦",
            Self::Half => "▲",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Base => ROUND,
            Self::Adapted => SQUARE,
            Self::Placebo => DIAMOND,
            Self::Plain => "M0 -7V7",
            Self::Between => "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0 -3 0Z",
            Self::Half => "M0 -6L5.5 4H-5.5Z",
        }
    }
}

/// An `svg` element with its title and description.
pub(super) fn figure(height: u32, title: &str, description: &str, body: &Markup) -> Markup {
    chart::figure("chart", height, [title, description], body)
}

/// A mark at a place in per cent and a height in pixels.
pub(super) fn mark(across: &str, down: f64, look: Look) -> Markup {
    chart::mark(across, &px(down), look.class(), look.path())
}

/// A figure on a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dot {
    /// The figure, with its interval where there is one.
    pub(super) estimate: Estimate,
    /// What it is.
    pub(super) look: Look,
    /// Its height within the row.
    pub(super) down: f64,
}

impl Dot {
    /// A figure in the upper lane.
    pub(super) fn upper(estimate: Estimate, look: Look) -> Self {
        Self { estimate, look, down: UPPER_PX }
    }

    /// A figure in the lower lane.
    pub(super) fn lower(estimate: Estimate, look: Look) -> Self {
        Self { estimate, look, down: LOWER_PX }
    }
}

/// The axis' lines through a row of some height.
pub(super) fn grid(axis: &Axis, height: f64) -> Markup {
    html! {
        @for tick in axis.ticks() {
            line class="grid" x1=(axis.percent(tick)) x2=(axis.percent(tick)) y1="0" y2=(px(height)) {}
        }
        @if axis.holds(0.0) {
            line class="axis" x1=(axis.percent(0.0)) x2=(axis.percent(0.0)) y1="0" y2=(px(height)) {}
        }
    }
}

/// An interval as a line from side to side.
pub(super) fn whisker(axis: &Axis, ci: Option<[f64; 2]>, down: f64, class: &str) -> Markup {
    html! {
        @if let Some([low, high]) = ci {
            line class={ "whisker " (class) } x1=(axis.percent(low)) x2=(axis.percent(high)) y1=(px(down)) y2=(px(down)) {}
        }
    }
}

/// One row of a table: figures with their intervals on a common axis.
pub(super) fn dots(title: &str, description: &str, axis: &Axis, dots: &[Dot]) -> Markup {
    let body = html! {
        (grid(axis, f64::from(ROW_PX)))
        @for dot in dots {
            (whisker(axis, dot.estimate.ci, dot.down, dot.look.class()))
            (mark(&axis.percent(dot.estimate.value), dot.down, dot.look))
        }
    };
    figure(ROW_PX, title, description, &body)
}

/// The axis at the head of a column, its numbers multiplied by `scale`.
pub(super) fn ruled(words: &Words, axis: &Axis, scale: f64) -> Markup {
    let digits = axis.digits(scale);
    let (ticks, low) = (axis.ticks(), axis.low);
    let said = words.fill(
        "parts.axis_from_to",
        &[
            ("low", &words.number(low * scale, digits)),
            ("high", &words.number(axis.high * scale, digits)),
        ],
    );
    let body = html! {
        @for tick in ticks {
            line class="tick" x1=(axis.percent(tick)) x2=(axis.percent(tick)) y1="0" y2="5" {}
            text class="label" x=(axis.percent(tick)) y="17" text-anchor=(anchor(axis.part(tick))) {
                (words.number(tick * scale, digits))
            }
        }
    };
    figure(20, words.say("page.axis"), &said, &body)
}

/// All ends of estimates, for an axis that holds them.
pub(super) fn ends<'a>(estimates: impl Iterator<Item = &'a Estimate>) -> Vec<f64> {
    estimates
        .flat_map(|estimate| {
            let [low, high] = estimate.ci.unwrap_or([estimate.value; 2]);
            [low, estimate.value, high]
        })
        .collect()
}

/// One line of a ledger.
pub(super) struct Line {
    /// What it is about.
    pub(super) name: Markup,
    /// Its chart, where the ledger has an axis.
    pub(super) chart: Option<Markup>,
    /// Its figures.
    pub(super) cells: Vec<Markup>,
}

/// A table of figures with a chart in each line. The roles keep it a table where a phone lays its lines
/// out as blocks.
pub(super) struct Ledger<'a> {
    /// What it holds.
    pub(super) caption: &'a str,
    /// Over the names.
    pub(super) first: &'a str,
    /// Over the charts.
    pub(super) axis: Option<Markup>,
    /// Over the figures.
    pub(super) heads: &'a [&'a str],
    /// The lines.
    pub(super) lines: Vec<Line>,
}

impl Ledger<'_> {
    /// The table.
    pub(super) fn draw(&self) -> Markup {
        html! {
            table class="ledger" role="table" {
                caption { (self.caption) }
                thead role="rowgroup" { tr role="row" {
                    th scope="col" role="columnheader" { (self.first) }
                    @if let Some(axis) = &self.axis { th scope="col" role="columnheader" class="wide" { (axis) } }
                    @for head in self.heads { th scope="col" role="columnheader" class="num" { (head) } }
                } }
                tbody role="rowgroup" { @for line in &self.lines { (self.line(line)) } }
            }
        }
    }

    fn line(&self, line: &Line) -> Markup {
        html! {
            tr role="row" {
                th scope="row" role="rowheader" { (line.name) }
                @if self.axis.is_some() {
                    td role="cell" class="wide" { @if let Some(chart) = &line.chart { (chart) } }
                }
                @for (head, cell) in self.heads.iter().zip(&line.cells) {
                    td role="cell" class="num" data-label=(head) { (cell) }
                }
            }
        }
    }
}

/// A name, and something small under it.
pub(super) fn named(name: &str, under: &str) -> Markup {
    html! { (name) " " span class="n" { (under) } }
}

/// A figure over its interval.
pub(super) fn valued(words: &Words, estimate: &Estimate, scale: f64, digits: usize) -> Markup {
    with_interval(
        words,
        &words.number(estimate.value * scale, digits),
        estimate.ci,
        (scale, digits),
    )
}

/// A change, with its sign, over its interval.
pub(super) fn changed(words: &Words, estimate: &Estimate, scale: f64, digits: usize) -> Markup {
    with_interval(
        words,
        &words.signed(estimate.value * scale, digits),
        estimate.ci,
        (scale, digits),
    )
}

fn with_interval(
    words: &Words,
    value: &str,
    ci: Option<[f64; 2]>,
    (scale, digits): (f64, usize),
) -> Markup {
    html! {
        (value)
        @if let Some(ci) = ci { " " span class="n" { (words.interval(ci, scale, digits)) } }
    }
}

/// Decimals that show three figures of a positive number below 1, at least two.
pub(super) fn fine(value: f64) -> usize {
    let size = value.abs();
    if size > 0.0 && size < 0.1 {
        (2 + index(-libm::floor(libm::log10(size)) - 1.0)).min(6)
    } else {
        2
    }
}

/// A legend: what each mark means.
pub(super) fn legend(entries: &[(&str, &str, &str)]) -> Markup {
    html! {
        p class="key" {
            @for (class, glyph, text) in entries {
                span { (key(class, glyph)) " " (text) }
            }
        }
    }
}

/// The legend of a chart with both models and their intervals.
pub(super) fn models(words: &Words) -> Markup {
    legend(&[
        (Look::Base.class(), Look::Base.glyph(), words.say("page.base")),
        (Look::Adapted.class(), Look::Adapted.glyph(), words.say("page.adapted")),
        ("whisker", "├┤", words.say("page.interval")),
    ])
}

/// Figures in short columns: what it is, the figure, what to know of it.
pub(super) fn figures(entries: &[(&str, String, String)]) -> Markup {
    html! {
        dl class="figures" {
            @for (term, value, beside) in entries {
                div { dt { (term) } dd { (value) } dd class="soft" { (beside) } }
            }
        }
    }
}

/// The table of the census that holds a part's figures; a page that travels alone names the file only.
pub(super) fn csv(page: &Page<'_>, file: &str) -> Markup {
    let text = page.words.fill("parts.csv", &[("file", file)]);
    html! {
        p class="note" {
            @match page.plates.form() {
                Form::Folder => { a href={ "../census/" (file) } { (text) } },
                Form::SelfContained => { (text) },
            }
        }
    }
}

/// Why the census gives no figure of any of `whats`, each reason once: refusals of that name, or of a
/// name that begins with it.
pub(super) fn reasons(page: &Page<'_>, whats: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for refusal in &page.census.refused {
        let begins = |what: &&str| {
            refusal
                .what
                .strip_prefix(*what)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        if whats.iter().any(begins) && !found.contains(&refusal.reason) {
            found.push(refusal.reason.clone());
        }
    }
    found
}

/// One plain sentence for a figure that is not there, with the reason where the census gives one.
pub(super) fn missing(page: &Page<'_>, whats: &[&str], sentence: &str) -> Markup {
    let reasons = reasons(page, whats);
    html! {
        p class="note" {
            (sentence)
            @for reason in &reasons { " " (page.words.say("parts.reason")) " " (told(page.words, reason)) "." }
        }
    }
}

/// A sentence of the census; where it is known in English alone, a screen reader is told so.
fn told(words: &Words, reason: &str) -> Markup {
    let text = words.tell(reason);
    let foreign = words.language() != Language::English && text == reason;
    html! { span lang=[foreign.then_some("en")] { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use eval::record::Refusal;

    #[test]
    fn axes_end_on_round_numbers_and_hold_what_they_show() {
        let axis = Axis::around(-0.03, 0.61);
        assert_eq!((axis.percent(-0.2).as_str(), axis.percent(0.3).as_str()), ("0.00%", "50.00%"));
        assert_eq!(axis.ticks().len(), 6);
        assert_eq!((axis.digits(1.0), axis.digits(100.0)), (1, 0));
        let axis = Axis::around(0.0, 0.0021);
        assert_eq!((axis.ticks().len(), axis.digits(1.0)), (4, 3));
        assert!((Axis::with_zero(&[0.2, 0.7]).part(0.0)).abs() < 1e-12);
        assert_eq!(Axis::of(&[]), Axis::around(0.0, 1.0));
    }

    #[test]
    fn small_figures_keep_their_digits() {
        assert_eq!((fine(1.2), fine(0.41), fine(0.031), fine(0.0004), fine(0.0)), (2, 2, 3, 5, 2));
    }

    #[test]
    fn a_refusal_is_found_by_its_name_and_by_how_it_begins() {
        let mut census = sample::census();
        let refusal =
            |what: &str, reason: &str| Refusal { what: what.into(), reason: reason.into() };
        census.refused = vec![
            refusal("fabric", "first"),
            refusal("fabric ratio", "second"),
            refusal("fabrication", "third"),
            refusal("path", "first"),
        ];
        let found = sample::on_page(&census, Language::English, &|page| {
            html! { @for reason in reasons(page, &["fabric", "path"]) { (reason) ";" } }
        });
        assert_eq!(found, "first;second;");
    }

    #[test]
    fn a_reason_that_is_known_in_english_alone_is_marked_as_such() {
        let mut census = sample::census();
        census.refused = vec![Refusal { what: "path".into(), reason: "nobody <knows>".into() }];
        let draw = |page: &Page<'_>| missing(page, &["path"], "—");
        let french = sample::on_page(&census, Language::French, &draw);
        assert!(french.contains("<span lang=\"en\">nobody &lt;knows&gt;</span>."), "{french}");
        let english = sample::on_page(&census, Language::English, &draw);
        assert!(english.contains("<span>nobody &lt;knows&gt;</span>."), "{english}");
    }
}
