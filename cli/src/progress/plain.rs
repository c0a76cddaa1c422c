//! A line now and then, for logs.

use serde_json::Value;

use super::{Pace, Show, Tick, words};
use crate::terminal::Terminal;

/// Seconds between two lines of one phase.
const INTERVAL_SECS: f64 = 30.0;

#[derive(Debug)]
pub(super) struct Plain<'a> {
    terminal: &'a Terminal,
    phase: String,
    said_at_secs: f64,
}

impl<'a> Plain<'a> {
    pub(super) const fn new(terminal: &'a Terminal) -> Self {
        Self { terminal, phase: String::new(), said_at_secs: 0.0 }
    }

    /// Whether a tick deserves a line: the first and the last of a phase, and one per interval.
    fn is_due(&self, tick: &Tick<'_>, now_secs: f64) -> bool {
        self.phase != tick.phase
            || tick.done == tick.total
            || now_secs - self.said_at_secs >= INTERVAL_SECS
    }
}

impl Show for Plain<'_> {
    fn tick(&mut self, tick: &Tick<'_>, pace: Pace, now_secs: f64) {
        if !self.is_due(tick, now_secs) {
            return;
        }
        tick.phase.clone_into(&mut self.phase);
        self.said_at_secs = now_secs;
        let words = words(tick, pace);
        let gap = if words.is_empty() { "" } else { " · " };
        let Tick { phase, unit, done, total, .. } = tick;
        self.terminal.say(&format!("{phase}: {done}/{total} {unit}{gap}{words}"));
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
        plain.phase = "train".to_owned();
        plain.said_at_secs = 0.1;
        assert!(!plain.is_due(&tick(2), 29.0));
        assert!(plain.is_due(&tick(3), 30.2));
        assert!(plain.is_due(&tick(100), 1.0));
    }
}
