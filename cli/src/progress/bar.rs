//! A bar that is drawn over itself, for a person who watches.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::{Pace, Show, Stretch, Tick, unit_and_words};
use crate::terminal::{Terminal, clean};

/// Draws of the bar per second at most.
const DRAWS_PER_SECOND: u8 = 10;

#[derive(Debug)]
pub(super) struct Bar<'a> {
    terminal: &'a Terminal,
    drawn: Option<ProgressBar>,
    stretch: Stretch,
}

impl<'a> Bar<'a> {
    pub(super) fn new(terminal: &'a Terminal) -> Self {
        Self { terminal, drawn: None, stretch: Stretch::default() }
    }

    fn begin(&mut self, tick: &Tick<'_>) -> ProgressBar {
        self.end();
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(tick.total), target);
        let template = "{prefix:>12} {bar:28} {pos}/{len} {msg}";
        // The template is a constant; a mistake in it only costs the layout.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(clean(tick.phase));
        self.stretch = Stretch::of(tick);
        bar
    }
}

impl Show for Bar<'_> {
    fn tick(&mut self, tick: &Tick<'_>, pace: Pace, _now_secs: f64) {
        let running = self.drawn.take().filter(|_| self.stretch.holds(tick));
        let bar = match running {
            Some(bar) => bar,
            None => self.begin(tick),
        };
        bar.set_length(tick.total);
        bar.set_message(unit_and_words(tick, pace));
        bar.set_position(tick.done);
        self.drawn = Some(bar);
    }

    fn note(&mut self, text: &str, _record: &Value) {
        match &self.drawn {
            Some(bar) => bar.suspend(|| self.terminal.say(text)),
            None => self.terminal.say(text),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.drawn.take() {
            // The bar stays as it is: what was reached remains readable.
            bar.abandon();
        }
    }
}
