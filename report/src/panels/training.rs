//! What training recorded.

use super::Panel;
use crate::chart::{self, Curve};
use crate::page::Page;
use maud::html;

/// The records of the training, in the run directory.
pub(super) const RECORDS: &str = "metrics.jsonl";

/// Loss and learning rate.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let (metrics, words) = (&page.info.metrics, page.words);
    let loss: Vec<f64> = metrics.iter().map(|metric| metric.loss).collect();
    let rate: Vec<f64> = metrics.iter().map(|metric| metric.learning_rate).collect();
    let body = html! {
        @if metrics.is_empty() {
            p { (words.say("training.nothing")) }
        } @else {
            div class="curves" {
                figure {
                    (chart::training(metrics, &loss, words.say("training.loss"), Curve::Smoothed, words))
                    figcaption { (words.say("training.loss_caption")) }
                }
                figure {
                    (chart::training(metrics, &rate, words.say("training.rate"), Curve::Plain, words))
                    figcaption { (words.say("training.rate_caption")) }
                }
            }
        }
    };
    Panel {
        id: "training",
        title: words.say("training.title").to_owned(),
        data: (!metrics.is_empty()).then_some(RECORDS),
        body,
    }
}
