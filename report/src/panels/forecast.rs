//! The forecast: where each share would start to go, told from the base's own pictures before anything
//! is settled, and what was measured afterwards drawn over it.

use super::chart_parts::{Axis, Look, anchor, csv, figure, legend, mark, missing, percent, px};
use crate::page::Page;
use crate::words::Words;
use eval::record::{EntityRecord, Forecast, ForecastEntity};
use maud::{Markup, html};
use statistics::number::real;

/// Entities that are drawn: those of the steepest slopes.
const DRAWN: usize = 6;
/// The dose that the adapter was fitted at.
const FITTED: f64 = 1.0;
/// Height of one chart; its field begins below the highest label and ends above the doses.
const HEIGHT_PX: u32 = 124;
const TOP_PX: f64 = 12.0;
const FIELD_PX: f64 = 92.0;

/// What was measured of one entity.
struct Measured<'a> {
    /// Its change at dose 1.
    entity: Option<&'a EntityRecord>,
    /// Its change at other doses, among the places that the base and that dose both drew.
    places: Vec<(f64, f64)>,
}

/// The forecast with what came of it, or why there is none.
pub(super) fn part(page: &Page<'_>) -> Markup {
    let words = page.words;
    let forecast = page.census.path.as_ref().and_then(|path| path.forecast.as_ref());
    let Some(forecast) = forecast else {
        return missing(page, &["forecast", "path"], words.say("dose.no_forecast"));
    };
    let mut steepest: Vec<&ForecastEntity> = forecast.entities.iter().collect();
    steepest.sort_by(|a, b| b.slope.value.abs().total_cmp(&a.slope.value.abs()));
    steepest.truncate(DRAWN);
    let drawn: Vec<(&ForecastEntity, Measured<'_>)> = steepest
        .into_iter()
        .map(|entity| (entity, measured(page, &forecast.facet, &entity.id)))
        .collect();
    let last =
        drawn.iter().flat_map(|(_, m)| &m.places).map(|(dose, _)| *dose).fold(FITTED, f64::max);
    let field = Field { across: last, up: reach(&drawn, last) };
    html! {
        p class="sentence" { (sentence(page, forecast)) }
        p class="note" { (words.fill("dose.forecast_how", &[("dose", &words.exact(forecast.dose)), ("concept", &words.mention(&page.concept()))])) }
        (legend(&[
            ("wedge", "◢", words.say("dose.key_forecast")),
            (Look::Adapted.class(), Look::Adapted.glyph(), words.say("dose.key_measured")),
            (Look::Between.class(), Look::Between.glyph(), words.say("dose.key_places")),
        ]))
        fieldset class="scrub" {
            legend class="sr" { (words.say("dose.switch")) }
            input type="radio" name="forecast" id="forecast-measured" checked;
            label for="forecast-measured" { (words.say("dose.with_measured")) }
            input type="radio" name="forecast" id="forecast-alone";
            label for="forecast-alone" { (words.say("dose.alone")) }
            div class="forecasts" {
                @for (entity, measured) in &drawn { (one(page, entity, measured, &field)) }
            }
        }
        (csv(page, "path.csv"))
    }
}

/// What was measured of an entity, at dose 1 and between.
fn measured<'a>(page: &Page<'a>, facet: &str, id: &str) -> Measured<'a> {
    let census = page.census;
    let entities = census.facets.iter().filter(|known| known.id == facet);
    let entity = entities.flat_map(|facet| &facet.entities).find(|entity| entity.id == id);
    Measured { entity, places: on_places(page, facet, id) }
}

/// Change of an entity's share among the places that both the base and a dose drew, dose by dose.
fn on_places(page: &Page<'_>, facet: &str, id: &str) -> Vec<(f64, f64)> {
    let places = page.census.places.as_ref().filter(|places| places.facet == facet);
    let Some(places) = places else { return Vec::new() };
    let Some(base) = places.states.iter().find(|state| state.model == "base") else {
        return Vec::new();
    };
    let between = places.states.iter().filter(|state| {
        state.model == "adapted" && state.dose > 0.0 && (state.dose - FITTED).abs() > 1e-9
    });
    let change = |state: &eval::record::PlacesState| {
        let both: Vec<[bool; 2]> = base
            .entities
            .iter()
            .zip(&state.entities)
            .filter_map(|(before, after)| Some([before.as_deref()? == id, after.as_deref()? == id]))
            .collect();
        let count = |side: usize| real(both.iter().filter(|pair| pair[side]).count());
        (!both.is_empty()).then(|| (state.dose, (count(1) - count(0)) / real(both.len())))
    };
    between.filter_map(change).collect()
}

/// The largest change that was measured or forecast, tangents cut where they leave all that a share
/// can do.
fn reach(drawn: &[(&ForecastEntity, Measured<'_>)], last: f64) -> Axis {
    let mut most: f64 = 0.01;
    for (entity, measured) in drawn {
        most = most.max((entity.slope.value * last).abs().min(1.0));
        for end in measured.entity.map_or([0.0; 2], |entity| entity.ci) {
            most = most.max(end.abs());
        }
        most = measured.places.iter().fold(most, |most, (_, change)| most.max(change.abs()));
    }
    Axis::around(-most, most)
}

/// What one chart spans: doses from 0, and changes of a share.
struct Field {
    across: f64,
    up: Axis,
}

impl Field {
    fn x(&self, dose: f64) -> String {
        percent((dose / self.across).clamp(0.0, 1.0))
    }

    fn y(&self, change: f64) -> f64 {
        self.up.down(change, TOP_PX, FIELD_PX)
    }
}

/// One entity: the wedge and the tangent first, then what was measured over them.
fn one(page: &Page<'_>, entity: &ForecastEntity, measured: &Measured<'_>, field: &Field) -> Markup {
    let words = page.words;
    let name = page.name(&entity.id);
    let forecast =
        words.fill("dose.forecast_of", &[("slope", &words.estimate(&entity.slope, 100.0, 1))]);
    let found = measured.entity.map(|e| {
        let change =
            format!("{} {}", words.signed(100.0 * e.delta, 1), words.interval(e.ci, 100.0, 1));
        words.fill("dose.measured_of", &[("change", &change)])
    });
    let found = found.unwrap_or_else(|| words.say("dose.not_measured").to_owned());
    let body = html! {
        (frame(words, field))
        (tangent(entity, field))
        g class="measured" { (points(measured, field)) }
    };
    html! {
        figure {
            figcaption class="head" { (name) }
            (figure(HEIGHT_PX, &words.fill("dose.forecast_title", &[("name", &name)]), &format!("{forecast} {found}"), &body))
            p class="told" {
                span { (forecast) } " "
                span class="measured" { (found) }
            }
        }
    }
}

/// Lines of equal change and the doses below.
fn frame(words: &Words, field: &Field) -> Markup {
    let ticks = field.up.ticks();
    let ends = [ticks.first().copied(), ticks.last().copied()];
    let digits = field.up.digits(100.0);
    html! {
        @for tick in &ticks {
            line class="grid" x1="0" x2="100%" y1=(px(field.y(*tick))) y2=(px(field.y(*tick))) {}
        }
        line class="axis" x1="0" x2="100%" y1=(px(field.y(0.0))) y2=(px(field.y(0.0))) {}
        @for tick in ends.into_iter().flatten() {
            text class="label" x="0" y=(px(field.y(tick) - 2.5)) { (words.signed(100.0 * tick, digits)) }
        }
        @for dose in [0.0, 0.5, 1.0] {
            text class="label" x=(field.x(dose)) y=(px(f64::from(HEIGHT_PX) - 4.0)) text-anchor=(anchor(dose / field.across)) {
                (words.exact(dose))
            }
        }
    }
}

/// The tangent at dose 0 and the wedge of its interval, cut at the edge of the field.
fn tangent(entity: &ForecastEntity, field: &Field) -> Markup {
    // Within its own box of 100 × 100 a line may leave through the upper or the lower edge.
    let y = |slope: f64| {
        let [zero, one] = [0.0, 1.0].map(|change| field.up.unbounded(change));
        format!("{:.2}", 100.0 * (1.0 - (zero + slope * field.across * (one - zero))))
    };
    let origin = y(0.0);
    html! {
        svg x="0" y=(px(TOP_PX)) width="100%" height=(px(FIELD_PX)) viewBox="0 0 100 100" preserveAspectRatio="none" {
            @if let Some([low, high]) = entity.slope.ci {
                path class="wedge" d=(format!("M0 {origin}L100 {}L100 {}Z", y(low), y(high))) {}
            }
            line class="tangent" x1="0" y1=(origin) x2="100" y2=(y(entity.slope.value)) vector-effect="non-scaling-stroke" {}
        }
    }
}

fn points(measured: &Measured<'_>, field: &Field) -> Markup {
    html! {
        @for (dose, change) in &measured.places {
            (mark(&field.x(*dose), field.y(*change), Look::Between))
        }
        @if let Some(entity) = measured.entity {
            line class="whisker" x1=(field.x(FITTED)) x2=(field.x(FITTED)) y1=(px(field.y(entity.ci[0]))) y2=(px(field.y(entity.ci[1]))) {}
            (mark(&field.x(FITTED), field.y(entity.delta), Look::Adapted))
        }
    }
}

/// How many forecasts say a direction, and how many of those came true.
fn sentence(page: &Page<'_>, forecast: &Forecast) -> String {
    let words = page.words;
    let sure: Vec<&ForecastEntity> = forecast
        .entities
        .iter()
        .filter(|e| e.slope.ci.is_some_and(|[low, high]| low > 0.0 || high < 0.0))
        .collect();
    let came = sure.iter().filter(|e| {
        let found = measured(page, &forecast.facet, &e.id).entity;
        found.is_some_and(|found| found.delta * e.slope.value > 0.0)
    });
    let came = came.count().to_string();
    let all = forecast.entities.len().to_string();
    if sure.is_empty() {
        return words.fill("dose.no_direction", &[("all", &all)]);
    }
    words.fill(
        "dose.forecast_sentence",
        &[("all", &all), ("sure", &sure.len().to_string()), ("came", &came)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::sample;
    use crate::words::Language;
    use statistics::interval::{CiKind, Estimate};

    fn slope(census: &mut eval::json::CensusReport, id: &str, value: f64, ci: [f64; 2]) {
        let forecast = census.path.as_mut().unwrap().forecast.as_mut().unwrap();
        let entity = forecast.entities.iter_mut().find(|e| e.id == id).unwrap();
        entity.slope = Estimate::with(value, ci, CiKind::MaxT);
    }

    fn drawn(census: &eval::json::CensusReport) -> String {
        sample::on_page(census, Language::English, &part)
    }

    /// In the sample the boat loses a tenth of all places and nothing else changes its share.
    #[test]
    fn a_forecast_that_came_true_is_counted_and_one_without_direction_is_not() {
        let mut census = sample::census();
        for id in ["tower", "house"] {
            slope(&mut census, id, 0.01, [-0.01, 0.03]);
        }
        slope(&mut census, "boat", -0.2, [-0.3, -0.1]);
        let page = drawn(&census);
        assert!(page.contains("1 of 3") && page.contains("1 of these went that way"), "{page}");
        slope(&mut census, "boat", 0.2, [0.1, 0.3]);
        assert!(drawn(&census).contains("0 of these went that way"));
        slope(&mut census, "boat", 0.2, [-0.1, 0.3]);
        assert!(drawn(&census).contains("no forecast leaves out zero"));
    }

    #[test]
    fn the_forecast_is_drawn_before_what_was_measured() {
        let page = drawn(&sample::census());
        let chart = page.split("<figure>").nth(1).unwrap();
        let (wedge, measured) = (chart.find("class=\"wedge\""), chart.find("class=\"measured\""));
        assert!(wedge.unwrap() < measured.unwrap());
        assert!(chart.contains("forecast") && chart.contains("measured at dose 1"), "{chart}");
    }

    #[test]
    fn the_steepest_slope_comes_first() {
        let mut census = sample::census();
        slope(&mut census, "house", 0.9, [0.8, 1.0]);
        let page = drawn(&census);
        let head = |name: &str| page.find(&format!("class=\"head\">{name}<")).unwrap();
        assert!(head("house") < head("boat"));
    }

    #[test]
    fn without_a_path_there_is_no_forecast_and_the_reason_is_said() {
        let mut census = sample::bare();
        census.refused = vec![eval::record::Refusal { what: "path".into(), reason: "none".into() }];
        let page = drawn(&census);
        assert!(page.contains("<span>none</span>.") && !page.contains("wedge"), "{page}");
    }
}
