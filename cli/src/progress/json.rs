//! JSON lines, for programs.

use serde_json::{Map, Value, json};

use super::{Pace, Show, Tick};
use crate::terminal::Terminal;

#[derive(Debug)]
pub(super) struct Json<'a> {
    terminal: &'a Terminal,
}

impl<'a> Json<'a> {
    pub(super) const fn new(terminal: &'a Terminal) -> Self {
        Self { terminal }
    }
}

impl Show for Json<'_> {
    fn tick(&mut self, tick: &Tick<'_>, pace: Pace, _now_secs: f64) {
        self.terminal.print(&line(tick, pace).to_string());
    }

    fn note(&mut self, _text: &str, record: &Value) {
        self.terminal.print(&record.to_string());
    }

    fn end(&mut self) {}
}

fn line(tick: &Tick<'_>, pace: Pace) -> Value {
    let mut line = Map::from_iter([
        ("event".to_owned(), json!("progress")),
        ("phase".to_owned(), json!(tick.phase)),
        ("unit".to_owned(), json!(tick.unit)),
        ("done".to_owned(), json!(tick.done)),
        ("total".to_owned(), json!(tick.total)),
        ("per_second".to_owned(), json!(pace.per_second)),
        ("remaining_secs".to_owned(), json!(pace.remaining_secs)),
    ]);
    for (name, value) in tick.figures {
        line.insert((*name).to_owned(), json!(value));
    }
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_beside_the_counts() {
        let tick =
            Tick { phase: "train", unit: "steps", done: 3, total: 6, figures: &[("loss", 0.5)] };
        let line = line(&tick, Pace::default());
        assert_eq!((line["done"].as_u64(), line["loss"].as_f64()), (Some(3), Some(0.5)));
        assert!(line["per_second"].is_null());
    }
}
