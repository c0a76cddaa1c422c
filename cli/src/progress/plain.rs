//! A line now and then, for logs.

use serde_json::Value;

use super::{Pace, Show, Stretch, Tick, unit_and_words};
use crate::terminal::Terminal;

/// Seconds between two lines about the same work.
const INTERVAL_SECS: f64 = 30.0;

#[derive(Debug)]
pub(super) struct Plain<'a> {
    terminal: &'a Terminal,
    stretch: Stretch,
    said_at_secs: f64,
}

impl<'a> Plain<'a> {
    pub(super) fn new(terminal: &'a Terminal) -> Self {
        Self { terminal, stretch: Stretch::default(), said_at_secs: 0.0 }
    }

    /// Whether a tick deserves a line: the first and the last of its kind, and one per
    /// interval.
    fn is_due(&self, tick: &Tick<'_>, now_secs: f64) -> bool {
        !self.stretch.holds(tick)
            || tick.done == tick.total
            || now_secs - self.said_at_secs >= INTERVAL_SECS
    }
}

impl Show for Plain<'_> {
    fn tick(&mut self, tick: &Tick<'_>, pace: Pace, now_secs: f64) {
        if !self.is_due(tick, now_secs) {
            return;
        }
        self.stretch = Stretch::of(tick);
        self.said_at_secs = now_secs;
        let Tick { phase, done, total, .. } = tick;
        self.terminal.say(&format!("{phase}: {done}/{total} {}", unit_and_words(tick, pace)));
    }

    fn note(&mut self, text: &str, _record: &Value) {
        self.terminal.say(text);
    }

    fn end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::ColorWish;

    #[test]
    fn a_line_is_said_at_both_ends_and_every_half_minute() {
        let terminal = Terminal::new(ColorWish::Never);
        let mut plain = Plain::new(&terminal);
        let tick = |done| Tick { phase: "train", unit: "steps", done, total: 100, figures: &[] };
        assert!(plain.is_due(&tick(1), 0.1));
        plain.stretch = Stretch::of(&tick(1));
        plain.said_at_secs = 0.1;
        assert!(!plain.is_due(&tick(2), 29.0));
        assert!(plain.is_due(&tick(3), 30.2));
        assert!(plain.is_due(&tick(100), 1.0));
        assert!(plain.is_due(&Tick { unit: "pictures", ..tick(2) }, 29.0));
    }
}
