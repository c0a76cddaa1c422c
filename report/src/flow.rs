//! Who took whose place, drawn: the base's entities on the left, the adapted model's on the right,
//! one ribbon for each way that pictures went; and the same as a table of counts.

use super::page::Page;
use eval::json::CensusReport;
use eval::record::{FacetRecord, Transition};
use eval::thesaurus::{BLOCKED, NONE};
use maud::{Markup, html};
use statistics::number::real_u64;

/// Height of all pictures together, and least height of an entity's slot (a line of text).
const PICTURES_PX: f64 = 360.0;
const LEAST_PX: f64 = 17.0;

/// One entity's place on one side.
struct Node {
    top: f64,
    center: f64,
    height: f64,
    used: f64,
}

/// One way that pictures went.
struct Ribbon {
    class: &'static str,
    path: String,
    told: String,
    /// Where its pictures stand on the page.
    pairs: Option<String>,
}

/// Places of a side's entities, and the height of the whole.
fn stack(counts: &[u64], unit: f64) -> (Vec<Node>, f64) {
    let mut y = 0.0;
    let nodes = counts
        .iter()
        .map(|&count| {
            let height = real_u64(count) * unit;
            let slot = (height + 3.0).max(if count > 0 { LEAST_PX } else { 0.0 });
            let top = y + (slot - height) / 2.0;
            y += slot;
            Node { top, center: top + height / 2.0, height, used: 0.0 }
        })
        .collect();
    (nodes, y)
}

/// The diagram of one facet; ribbons of `listed` ways open their pictures.
pub(crate) fn diagram(page: &Page<'_>, facet: &FacetRecord, listed: &[&Transition]) -> Markup {
    let (census, words, entities) = (page.census, page.words, &facet.entities);
    let total: u64 = entities.iter().map(|e| e.n_b).sum();
    let unit = PICTURES_PX / real_u64(total.max(1));
    let (mut left, height_left) = stack(&entities.iter().map(|e| e.n_b).collect::<Vec<_>>(), unit);
    let (mut right, height_right) =
        stack(&entities.iter().map(|e| e.n_a).collect::<Vec<_>>(), unit);
    let ribbons = ribbons(page, facet, listed, [&mut left, &mut right]);
    let tall = format!("{:.0}", height_left.max(height_right).max(1.0) + 8.0);
    let described = words.fill(
        "places.desc",
        &[
            ("pairs", &words.thousands(total)),
            ("changed", &words.thousands(moved(census, facet, None))),
            ("facet", &page.facet(&facet.id)),
            ("taken", &words.thousands(moved(census, facet, facet.new.as_deref()))),
            ("name", &words.mention(&page.concept())),
        ],
    );
    html! {
        div class="flow" {
            (labels(page, facet, &left, "before", &tall))
            svg class="chart" role="group" width="100%" height=(tall)
                viewBox=(format!("0 -4 100 {tall}")) preserveAspectRatio="none" {
                title { (words.say("places.title")) }
                desc { (described) }
                @for Ribbon { class, path, told, pairs } in &ribbons {
                    @if let Some(pairs) = pairs {
                        a href={ "#" (pairs) } aria-label=(told) { path class=(class) d=(path) { title { (told) } } }
                    } @else {
                        path class=(class) d=(path) { title { (told) } }
                    }
                }
            }
            (labels(page, facet, &right, "after", &tall))
        }
    }
}

/// All ways of one facet, those to the concept on top; fills up the nodes of both sides.
fn ribbons(
    page: &Page<'_>,
    facet: &FacetRecord,
    listed: &[&Transition],
    [left, right]: [&mut Vec<Node>; 2],
) -> Vec<Ribbon> {
    let total: u64 = facet.entities.iter().map(|e| e.n_b).sum();
    let unit = PICTURES_PX / real_u64(total.max(1));
    let mut ribbons = Vec::new();
    for (i, from) in facet.entities.iter().enumerate() {
        for (j, to) in facet.entities.iter().enumerate() {
            let n = cell(page.census, facet, i, j);
            if n == 0 {
                continue;
            }
            let thick = real_u64(n) * unit;
            let (a, b) = (left[i].top + left[i].used, right[j].top + right[j].used);
            left[i].used += thick;
            right[j].used += thick;
            let class = if i == j {
                "stay"
            } else if Some(&to.id) == facet.new.as_ref() {
                "taken"
            } else {
                "moved"
            };
            let way = listed.iter().position(|way| way.from == from.id && way.to == to.id);
            ribbons.push(Ribbon {
                class,
                path: band(a, b, thick),
                told: format!("{} → {}: {n}", page.label(from), page.label(to)),
                pairs: way.map(pairs_id),
            });
        }
    }
    ribbons
        .sort_by_key(|ribbon| ["stay", "moved", "taken"].iter().position(|c| *c == ribbon.class));
    ribbons
}

/// Where the pictures of a listed way stand.
pub(crate) fn pairs_id(way: usize) -> String {
    format!("way-{}", way + 1)
}

/// The names and counts of one side; the diagram's description stands for them.
fn labels(
    page: &Page<'_>,
    facet: &FacetRecord,
    nodes: &[Node],
    side: &'static str,
    tall: &str,
) -> Markup {
    let before = side == "before";
    let (bar, text, anchor) = if before { ("93%", "89%", "end") } else { ("0", "11%", "start") };
    html! {
        svg class="side" aria-hidden="true" width="100%" height=(tall) {
            @for (node, entity) in nodes.iter().zip(&facet.entities).filter(|(node, _)| node.height > 0.0) {
                rect class=(side) x=(bar) y=(format!("{:.1}", node.top + 4.0)) width="7%" height=(format!("{:.1}", node.height.max(1.0))) {}
                text class="node" x=(text) y=(format!("{:.1}", node.center + 8.0)) text-anchor=(anchor) {
                    (page.label(entity)) " " tspan class="count" { (if before { entity.n_b } else { entity.n_a }) }
                }
            }
        }
    }
}

/// `n_ij` of one facet with its margins, for all who cannot read the ribbons.
pub(crate) fn counts(page: &Page<'_>, facet: &FacetRecord) -> Markup {
    let (census, words, entities) = (page.census, page.words, &facet.entities);
    let rows: Vec<usize> = (0..entities.len()).filter(|&i| entities[i].n_b > 0).collect();
    let columns: Vec<usize> = (0..entities.len()).filter(|&j| entities[j].n_a > 0).collect();
    let total: u64 = entities.iter().map(|e| e.n_b).sum();
    html! {
        details class="counts" {
            summary {
                span { (words.say("places.table")) }
                span class="num soft" { (words.count("page.pairs", total)) }
            }
            div class="scroll" tabindex="0" role="region" aria-label=(words.say("places.table_label")) {
                table class="heat" {
                    caption { (words.say("places.table_caption")) }
                    thead { tr {
                        td {}
                        @for &j in &columns { th scope="col" { span { (page.label(&entities[j])) } } }
                        th scope="col" { span { (words.say("places.all_base")) } }
                    } }
                    tbody {
                        @for &i in &rows {
                            tr {
                                th scope="row" { (page.label(&entities[i])) }
                                @for &j in &columns {
                                    td class=[(i == j).then_some("sure")] { (cell(census, facet, i, j)) }
                                }
                                td class="sure" { (entities[i].n_b) }
                            }
                        }
                        tr {
                            th scope="row" { (words.say("places.all_adapted")) }
                            @for &j in &columns { td class="sure" { (entities[j].n_a) } }
                            td class="sure" { (total) }
                        }
                    }
                }
            }
        }
    }
}

/// `n_ij` of the concept's facet; the diagonal is what did not leave.
fn cell(census: &CensusReport, facet: &FacetRecord, i: usize, j: usize) -> u64 {
    let (from, to) = (&facet.entities[i].id, &facet.entities[j].id);
    let leaving = census.transitions.iter().filter(|t| t.facet == facet.id && t.from == *from);
    if i == j {
        facet.entities[i].n_b.saturating_sub(leaving.map(|t| t.n).sum())
    } else {
        leaving.filter(|t| t.to == *to).map(|t| t.n).sum()
    }
}

/// Pairs that changed, to one entity or to any.
pub(crate) fn moved(census: &CensusReport, facet: &FacetRecord, to: Option<&str>) -> u64 {
    let cells = census.transitions.iter().filter(|t| t.facet == facet.id);
    cells.filter(|t| to.is_none_or(|to| t.to == to)).map(|t| t.n).sum()
}

/// A band from height `a` on the left to `b` on the right, in a box 100 wide.
fn band(a: f64, b: f64, thick: f64) -> String {
    let (a2, b2) = (a + thick, b + thick);
    format!("M0 {a:.2}C45 {a:.2} 55 {b:.2} 100 {b:.2}V{b2:.2}C55 {b2:.2} 45 {a2:.2} 0 {a2:.2}Z")
}

/// What to call an entity within a sentence.
fn called(page: &Page<'_>, id: &str) -> String {
    match id {
        NONE => page.words.say("places.from_none").to_owned(),
        BLOCKED => page.words.say("places.from_withheld").to_owned(),
        _ => page.words.fill("places.from", &[("name", &page.words.mention(&page.name(id)))]),
    }
}

/// One plain sentence over the diagram.
pub(crate) fn sentence(page: &Page<'_>, facet: &FacetRecord) -> String {
    let (census, words) = (page.census, page.words);
    let name = words.mention(&page.concept());
    let taken = words.thousands(moved(census, facet, facet.new.as_deref()));
    let mut donors: Vec<&Transition> = census
        .transitions
        .iter()
        .filter(|t| t.facet == facet.id && Some(&t.to) == facet.new.as_ref())
        .collect();
    if facet.new.is_none() || donors.is_empty() {
        return words.fill("places.nothing", &[("name", &name)]);
    }
    donors.sort_by_key(|way| std::cmp::Reverse(way.n));
    let named: Vec<String> = donors
        .iter()
        .take(3)
        .map(|t| {
            let (from, n) = (called(page, &t.from), words.thousands(t.n));
            words.fill("places.donor", &[("from", &from), ("n", &n), ("taken", &taken)])
        })
        .collect();
    let others = u64::try_from(donors.len() - named.len()).unwrap_or(0);
    let rest = if others > 0 { words.count("places.others", others) } else { String::new() };
    let donors = format!("{}{rest}", named.join(", "));
    words.fill("places.sentence", &[("name", &name), ("donors", &donors)])
}
