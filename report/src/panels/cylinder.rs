//! Panel 2: two hundred seeds as the places of a cylinder's ground, and what holds each of them in every
//! state. After Samuel Beckett's *Le Dépeupleur*: fifty meters round, two hundred bodies.

use super::Panel;
use super::kinds;
use super::rotunda::{RADIUS, Rotunda, Seat};
use crate::glyphs::Mark;
use crate::page::Page;
use eval::record::{EntityRecord, PlacesRecord, PlacesState};
use maud::{Markup, PreEscaped, html};
use statistics::interval::wilson;
use statistics::number::real;

/// States that can be chosen at most; the style sheet knows as many.
const STATES: usize = 16;

/// A seed's place: which one of the record it is, and where it lies.
struct Place<'a> {
    position: usize,
    seat: &'a Seat,
}

/// The places, the kinds of their bodies, and the measures of the cylinder.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let drawn = |places: &&PlacesRecord| !places.seeds.is_empty() && !places.states.is_empty();
    let body = if let Some(places) = page.census.places.as_ref().filter(drawn) {
        grounds(page, places)
    } else {
        html! { p { (words.say("cylinder.nothing")) } }
    };
    let body = html! { (body) (kinds::kinds(page)) };
    Panel {
        id: "cylinder",
        title: words.say("cylinder.title").to_owned(),
        data: Some("places.csv"),
        body,
    }
}

/// States to choose from: the base, the doses but 0 (which is the base), the placebos.
fn states(places: &PlacesRecord) -> Vec<&PlacesState> {
    let is_zero = |state: &PlacesState| state.model == "adapted" && state.dose == 0.0;
    places.states.iter().filter(|state| !is_zero(state)).take(STATES).collect()
}

/// The state shown first: the adapter as fitted, else the last dose, else the base.
fn first_shown(states: &[&PlacesState]) -> usize {
    let adapted = |state: &&PlacesState| state.model == "adapted";
    let fitted = |state: &&PlacesState| adapted(state) && (state.dose - 1.0).abs() < 1e-9;
    states.iter().position(fitted).or_else(|| states.iter().rposition(adapted)).unwrap_or(0)
}

/// What a state is called.
fn called(page: &Page<'_>, state: &PlacesState) -> String {
    let words = page.words;
    match (state.model.as_str(), state.model.strip_prefix("placebo-")) {
        ("base", _) => words.say("page.base").to_owned(),
        (_, Some(draw)) if page.census.nulls.placebos > 1 => {
            let number = draw.parse::<u32>().map_or(draw.to_owned(), |n| (n + 1).to_string());
            words.fill("cylinder.placebo", &[("n", &number)])
        }
        (_, Some(_)) => words.say("page.placebo").to_owned(),
        _ => words.fill("cylinder.dose", &[("dose", &words.exact(state.dose))]),
    }
}

/// What holds a place in a state.
fn holder(state: &PlacesState, position: usize) -> Option<&str> {
    state.entities.get(position)?.as_deref()
}

/// The seeds in the order of what they bear in the base, each with its place.
fn settle<'a>(page: &Page<'_>, places: &PlacesRecord, rotunda: &'a Rotunda) -> Vec<Place<'a>> {
    let rank = |position: &usize| {
        let held = places.states.first().and_then(|base| holder(base, *position));
        let entities = page.home().map(|home| home.entities.as_slice()).unwrap_or_default();
        (entities.iter().position(|entity| Some(entity.id.as_str()) == held), *position)
    };
    let mut positions: Vec<usize> = (0..places.seeds.len()).collect();
    positions.sort_by_key(rank);
    positions
        .into_iter()
        .zip(rotunda.seats())
        .map(|(position, seat)| Place { position, seat })
        .collect()
}

fn grounds(page: &Page<'_>, places: &PlacesRecord) -> Markup {
    let words = page.words;
    let rotunda = Rotunda::new(places.seeds.len());
    let settled = settle(page, places, &rotunda);
    let states = states(places);
    let first = first_shown(&states);
    html! {
        @if let Some(shown) = states.get(first) {
            p class="sentence" { (sentence(page, places, shown)) }
        }
        (signs(page))
        fieldset class="scrub cylinder" {
            legend class="sr" { (words.say("cylinder.choose")) }
            @for (i, state) in states.iter().enumerate() {
                input type="radio" name="places" id={ "places-" (i) } checked[i == first];
                label for={ "places-" (i) } { (called(page, state)) }
            }
            div class="stage" {
                @for (i, state) in states.iter().enumerate() {
                    div class={ "state" @if i == 0 || i == first { " printed" } } {
                        h3 { (called(page, state)) }
                        div class="rotunda" {
                            (plan(page, places, state, &rotunda, &settled))
                            (counts(page, places, state))
                        }
                    }
                }
            }
        }
        (measures(page, places))
    }
}

/// How many places the concept holds, with an interval, and how many places changed hands.
fn sentence(page: &Page<'_>, places: &PlacesRecord, state: &PlacesState) -> String {
    let words = page.words;
    let base = &places.states[0];
    let drawn = state.entities.iter().flatten().count();
    let both = || base.entities.iter().zip(&state.entities);
    let changed = both().filter(|(before, after)| after.is_some() && before != after).count();
    let holds = |held: &&Option<String>| held.as_deref() == Some(&*page.census.concept.id);
    let held = state.entities.iter().filter(holds).count();
    let before = both().filter(|(before, after)| after.is_some() && holds(before)).count();
    let ci = words.interval(wilson(held, drawn), real(drawn), 0);
    words.fill(
        "cylinder.sentence",
        &[
            ("drawn", &drawn.to_string()),
            ("held", &held.to_string()),
            ("ci", &ci),
            ("name", &words.mention(&page.concept())),
            ("state", &called(page, state)),
            ("before", &before.to_string()),
            ("changed", &changed.to_string()),
        ],
    )
}

/// The signs of all entities, which the plans refer to.
fn signs(page: &Page<'_>) -> Markup {
    let entities = page.home().map(|home| home.entities.as_slice()).unwrap_or_default();
    html! {
        svg class="defs" width="0" height="0" aria-hidden="true" {
            defs {
                @for (i, entity) in entities.iter().enumerate() {
                    path id={ "sign-" (i) } d=(page.mark(&entity.id).path) {}
                }
            }
        }
    }
}

/// Position of an entity in the concept's facet.
fn position(page: &Page<'_>, id: &str) -> Option<usize> {
    page.home()?.entities.iter().position(|entity| entity.id == id)
}

/// The ground in one state.
fn plan(
    page: &Page<'_>,
    places: &PlacesRecord,
    state: &PlacesState,
    rotunda: &Rotunda,
    settled: &[Place<'_>],
) -> Markup {
    let base = &places.states[0];
    let described: Vec<String> = tally(page, state)
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(entity, n)| format!("{} {n}", page.label(entity)))
        .collect();
    let edge = RADIUS + 12.0;
    html! {
        svg class="plan" role="img" viewBox=(format!("-{edge} -{edge} {0} {0}", 2.0 * edge)) {
            title { (page.words.fill("cylinder.plan", &[("state", &called(page, state))])) }
            desc { (described.join(", ")) "." }
            circle class="wall" r=(RADIUS + 3.0) {}
            circle class="wall" r=(RADIUS + 7.5) {}
            @for place in settled {
                @let outline = rotunda.outline(place.seat);
                @match holder(state, place.position) {
                    None => { path class="undrawn" d=(outline) {} }
                    Some(id) => {
                        @let Mark { color, .. } = page.mark(id);
                        @let moved = holder(base, place.position) != Some(id);
                        path class={ "tile" @if moved { " moved" } } style={ "color:" (color) } d=(outline) {}
                        @if let Some(sign) = position(page, id) {
                            use href={ "#sign-" (sign) } style={ "color:" (color) } transform=(rotunda.sign(place.seat)) {}
                        }
                    }
                }
            }
        }
    }
}

/// How many places each entity of the concept's facet holds in a state.
fn tally<'a>(page: &'a Page<'_>, state: &PlacesState) -> Vec<(&'a EntityRecord, usize)> {
    let entities = page.home().into_iter().flat_map(|home| &home.entities);
    entities
        .map(|entity| {
            let holds = |held: &&String| **held == entity.id;
            (entity, state.entities.iter().flatten().filter(holds).count())
        })
        .collect()
}

/// The places of each entity as a table, which is the legend, too.
fn counts(page: &Page<'_>, places: &PlacesRecord, state: &PlacesState) -> Markup {
    let words = page.words;
    let base = &places.states[0];
    // Compared on the places that were drawn in both.
    let drawn = |(before, after): (&Option<String>, &Option<String>)| {
        before.clone().filter(|_| after.is_some())
    };
    let same = PlacesState {
        entities: base.entities.iter().zip(&state.entities).map(drawn).collect(),
        ..base.clone()
    };
    let n = [state.entities.iter().flatten().count(), state.entities.len()].map(|n| n.to_string());
    html! {
        table {
            caption { (words.fill("cylinder.drawn", &[("drawn", &n[0]), ("all", &n[1])])) }
            thead { tr {
                th scope="col" { (page.facet(&places.facet)) }
                th scope="col" class="num" { (words.say("cylinder.places")) }
                th scope="col" class="num" { (words.say("page.change")) }
            } }
            tbody {
                @for ((entity, now), (_, before)) in tally(page, state).into_iter().zip(tally(page, &same)) {
                    @if now + before > 0 {
                        tr {
                            th scope="row" { (sign(page.mark(&entity.id))) (page.label(entity)) }
                            td class="num" { (now) }
                            td class="num soft" { (words.signed(real(now) - real(before), 0)) }
                        }
                    }
                }
            }
        }
    }
}

/// A sign in its color within text.
pub(super) fn sign(mark: Mark) -> Markup {
    html! {
        svg class="sign" viewBox="-6 -6 12 12" aria-hidden="true" style={ "color:" (mark.color) } {
            path d=(mark.path) {}
        }
    }
}

/// The cylinder seen from the side, and how to read its ground.
fn measures(page: &Page<'_>, places: &PlacesRecord) -> Markup {
    // Ladders as far as they lean: foot, lean and height.
    let ladders = [[-44, 127, 4, 46], [-12, 123, 3, 70], [20, 123, -2, 38], [45, 127, -5, 60]];
    let n = places.seeds.len().to_string();
    html! {
        figure class="elevation" {
            svg viewBox="-64 -10 128 166" aria-hidden="true" {
                ellipse cx="0" cy="6" rx="60" ry="14" {}
                path d="M-60 6V136M60 6V136" {}
                ellipse class="ground" cx="0" cy="136" rx="60" ry="14" {}
                @for [x, y, lean, height] in ladders {
                    path class="ladder" d=(format!("M{x} {y}l{lean} -{height}m3 0l{} {height}", -lean)) {}
                }
            }
            figcaption {
                // The label holds the title of the book in italics, and nothing that anyone gave.
                (PreEscaped(page.words.say("cylinder.measures"))) " "
                (page.words.fill("cylinder.how", &[("n", &n)]))
            }
        }
    }
}
