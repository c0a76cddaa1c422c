//! What is shown while a job works: a bar on a terminal, a line now and then elsewhere, or JSON.

mod bar;
mod json;
mod plain;

use serde_json::Value;

use crate::environment::Stopwatch;
use crate::terminal::Terminal;

/// A state of the work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick<'a> {
    /// Kind of work, such as `train`.
    pub(crate) phase: &'a str,
    /// What is counted, such as `steps`.
    pub(crate) unit: &'a str,
    /// How much is done.
    pub(crate) done: u64,
    /// How much there is; 0 if nobody knows.
    pub(crate) total: u64,
    /// Figures to show beside, such as the loss.
    pub(crate) figures: &'a [(&'static str, f64)],
}

/// What ticks have in common that follow each other: one bar, one pace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stretch {
    phase: String,
    unit: String,
}

impl Stretch {
    fn of(tick: &Tick<'_>) -> Self {
        Self { phase: tick.phase.to_owned(), unit: tick.unit.to_owned() }
    }

    /// Whether the tick goes on with it. Captions and pictures of one phase have a pace each.
    fn holds(&self, tick: &Tick<'_>) -> bool {
        self.phase == tick.phase && self.unit == tick.unit
    }
}

/// How fast the work goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pace {
    /// Units per second; `None` before the second tick.
    pub(crate) per_second: Option<f64>,
    /// Seconds until the end of the phase.
    pub(crate) remaining_secs: Option<f64>,
}

/// A way to show ticks.
trait Show: std::fmt::Debug {
    /// Shows a state of the work.
    fn tick(&mut self, tick: &Tick<'_>, pace: Pace, now_secs: f64);
    /// Says what happened between two ticks: to people a sentence, to programs a record.
    fn note(&mut self, text: &str, record: &Value);
    /// Ends the display; what was said stays.
    fn end(&mut self);
}

/// Shows the progress of a job in the way that fits its surroundings.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    show: Box<dyn Show + 'a>,
    meter: Meter,
    clock: Stopwatch,
}

impl<'a> Progress<'a> {
    /// For people: a bar if somebody watches, else a line every 30 seconds.
    pub(crate) fn for_people(terminal: &'a Terminal) -> Self {
        if Terminal::is_watched() {
            Self::by(Box::new(bar::Bar::new(terminal)))
        } else {
            Self::by(Box::new(plain::Plain::new(terminal)))
        }
    }

    /// For programs: JSON lines.
    pub(crate) fn for_programs(terminal: &'a Terminal) -> Self {
        Self::by(Box::new(json::Json::new(terminal)))
    }

    fn by(show: Box<dyn Show + 'a>) -> Self {
        Self { show, meter: Meter::default(), clock: Stopwatch::start() }
    }

    /// Shows a state of the work.
    pub(crate) fn tick(&mut self, tick: &Tick<'_>) {
        let now_secs = self.clock.seconds();
        let pace = self.meter.pace(tick, now_secs);
        self.show.tick(tick, pace, now_secs);
    }

    /// Units per second at the last tick.
    pub(crate) fn per_second(&self) -> Option<f64> {
        self.meter.per_second
    }

    /// Says what happened between two ticks: to people a sentence, to programs a record.
    pub(crate) fn note(&mut self, text: &str, record: &Value) {
        self.show.note(text, record);
    }

    /// Ends the display.
    pub(crate) fn end(&mut self) {
        self.show.end();
    }
}

/// Seconds after which an older pace counts for 1/e.
const MEMORY_SECS: f64 = 15.0;

/// Measures the pace: an average that follows the recent past, so that a slow first step (kernels
/// are compiled in it) is soon forgotten.
#[derive(Debug, Default)]
struct Meter {
    stretch: Stretch,
    last: Option<(u64, f64)>,
    per_second: Option<f64>,
}

impl Meter {
    fn pace(&mut self, tick: &Tick<'_>, now_secs: f64) -> Pace {
        if !self.stretch.holds(tick) {
            *self = Self { stretch: Stretch::of(tick), last: None, per_second: None };
        }
        if let Some((done, at_secs)) = self.last {
            let (n_new, elapsed) = (tick.done.saturating_sub(done), now_secs - at_secs);
            if n_new > 0 && elapsed > 0.0 {
                let recent = real(n_new) / elapsed;
                let keep = (-elapsed / MEMORY_SECS).exp();
                let smooth = |old: f64| keep * old + (1.0 - keep) * recent;
                self.per_second = Some(self.per_second.map_or(recent, smooth));
                self.last = Some((tick.done, now_secs));
            }
        } else {
            self.last = Some((tick.done, now_secs));
        }
        let left = real(tick.total.saturating_sub(tick.done));
        let known = self.per_second.filter(|rate| tick.total > 0 && *rate > 0.0);
        Pace { per_second: self.per_second, remaining_secs: known.map(|rate| left / rate) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a display needs no more than 53 bits")]
fn real(value: u64) -> f64 {
    value as f64
}

/// The figures and the pace of a tick in words: `loss 0.0213 · 1.4 steps/s · 2 min left`.
fn words(tick: &Tick<'_>, pace: Pace) -> String {
    let mut parts: Vec<String> =
        tick.figures.iter().map(|(name, value)| format!("{name} {}", figure(*value))).collect();
    if let Some(rate) = pace.per_second {
        parts.push(format!("{} {}/s", figure(rate), tick.unit));
    }
    if let Some(seconds) = pace.remaining_secs {
        parts.push(format!("{} left", duration(seconds)));
    }
    parts.join(" · ")
}

/// As [`words`], after what is counted: `pictures · 12.30 pictures/s · 30 s left`.
fn unit_and_words(tick: &Tick<'_>, pace: Pace) -> String {
    let words = words(tick, pace);
    let gap = if words.is_empty() { "" } else { " · " };
    format!("{}{gap}{words}", tick.unit)
}

/// A number with about three significant digits.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// Seconds in words: `8 s`, `3 min`, `2 h 10 min`.
pub(crate) fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    let whole = seconds.clamp(0.0, 1e9).round() as u64;
    match whole {
        0..=99 => format!("{whole} s"),
        100..=5_999 => format!("{} min", (whole + 30) / 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(done: u64) -> Tick<'static> {
        Tick { phase: "train", unit: "steps", done, total: 100, figures: &[("loss", 0.021_34)] }
    }

    #[test]
    fn a_slow_first_step_is_soon_forgotten() {
        let mut meter = Meter::default();
        assert_eq!(meter.pace(&tick(0), 0.0), Pace::default());
        let first = meter.pace(&tick(1), 60.0);
        assert_eq!(first.remaining_secs, Some(99.0 * 60.0));
        let mut pace = first;
        for step in 2..=60_u32 {
            pace = meter.pace(&tick(u64::from(step)), 60.0 + f64::from(step));
        }
        let rate = pace.per_second.unwrap();
        assert!((rate - 1.0).abs() < 0.05, "{rate}");
    }

    #[test]
    fn another_phase_has_its_own_pace() {
        let mut meter = Meter::default();
        meter.pace(&tick(0), 0.0);
        meter.pace(&tick(10), 1.0);
        let census = Tick { phase: "census", ..tick(0) };
        assert_eq!(meter.pace(&census, 2.0), Pace::default());
    }

    #[test]
    fn captions_and_pictures_of_one_phase_are_counted_apart() {
        let mut meter = Meter::default();
        let tick = |unit, done| Tick { phase: "cache", unit, done, total: 40, figures: &[] };
        meter.pace(&tick("captions", 0), 0.0);
        meter.pace(&tick("captions", 40), 1.0);
        assert_eq!(meter.pace(&tick("pictures", 0), 1.0), Pace::default());
        let pace = meter.pace(&tick("pictures", 20), 11.0);
        assert_eq!((pace.per_second, pace.remaining_secs), (Some(2.0), Some(10.0)));
        let words = unit_and_words(&tick("pictures", 20), pace);
        assert_eq!(words, "pictures · 2.00 pictures/s · 10 s left");
        assert_eq!(unit_and_words(&tick("captions", 0), Pace::default()), "captions");
    }

    #[test]
    fn a_tick_is_said_in_one_line() {
        let pace = Pace { per_second: Some(1.4), remaining_secs: Some(125.0) };
        assert_eq!(words(&tick(3), pace), "loss 0.0213 · 1.40 steps/s · 2 min left");
        assert_eq!(duration(8010.0), "2 h 13 min");
        assert_eq!(figure(12_345_678.0), "1.23e7");
    }
}
