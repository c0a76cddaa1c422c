//! Who took whose place, drawn: the base's entities on the left, the adapted model's on the right,
//! one ribbon for each way that pictures went; and the same as a table of counts.

use super::prose;
use eval::json::CensusReport;
use eval::record::FacetRecord;
use eval::thesaurus::{BLOCKED, NONE};
use maud::{Markup, html};
use statistics::number::real_u64;

/// Height of all pictures together, and least height of an entity's slot (a line of text).
const PICTURES_PX: f64 = 330.0;
const LEAST_PX: f64 = 17.0;

/// One entity's place on one side.
struct Node {
    top: f64,
    center: f64,
    height: f64,
    used: f64,
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

/// The diagram of one facet.
pub(super) fn diagram(census: &CensusReport, facet: &FacetRecord) -> Markup {
    let entities = &facet.entities;
    let total: u64 = entities.iter().map(|e| e.n_b).sum();
    let unit = PICTURES_PX / real_u64(total.max(1));
    let (mut left, height_left) = stack(&entities.iter().map(|e| e.n_b).collect::<Vec<_>>(), unit);
    let (mut right, height_right) =
        stack(&entities.iter().map(|e| e.n_a).collect::<Vec<_>>(), unit);
    let height = height_left.max(height_right).max(1.0);
    let mut ribbons = Vec::new();
    for (i, from) in entities.iter().enumerate() {
        for (j, to) in entities.iter().enumerate() {
            let n = cell(census, facet, i, j);
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
            let told = format!("{} → {}: {n}", from.name, to.name);
            ribbons.push((class, ribbon(a, b, thick), told));
        }
    }
    ribbons.sort_by_key(|(class, _, _)| ["stay", "moved", "taken"].iter().position(|c| c == class));
    let described = format!(
        "{} pairs; {} changed their {}, {} of them to the {}.",
        total,
        moved(census, facet, None),
        facet.id,
        moved(census, facet, facet.new.as_deref()),
        census.concept.name
    );
    let tall = format!("{:.0}", height + 8.0);
    html! {
        div class="flow" {
            (labels(facet, &left, "before", &tall))
            svg class="chart" role="img" width="100%" height=(tall)
                viewBox=(format!("0 -4 100 {tall}")) preserveAspectRatio="none" {
                title { "Who took whose place" }
                desc { (described) }
                @for (class, path, told) in &ribbons { path class=(class) d=(path) { title { (told) } } }
            }
            (labels(facet, &right, "after", &tall))
        }
    }
}

/// The names and counts of one side; the diagram's description stands for them.
fn labels(facet: &FacetRecord, nodes: &[Node], side: &str, tall: &str) -> Markup {
    let before = side == "before";
    let (bar, text, anchor) = if before { ("93%", "89%", "end") } else { ("0", "11%", "start") };
    html! {
        svg class="side" aria-hidden="true" width="100%" height=(tall) {
            @for (node, entity) in nodes.iter().zip(&facet.entities).filter(|(node, _)| node.height > 0.0) {
                rect class=(side) x=(bar) y=(format!("{:.1}", node.top + 4.0)) width="7%" height=(format!("{:.1}", node.height.max(1.0))) {}
                text class="node" x=(text) y=(format!("{:.1}", node.center + 8.0)) text-anchor=(anchor) {
                    (entity.name) " " tspan class="count" { (if before { entity.n_b } else { entity.n_a }) }
                }
            }
        }
    }
}

/// `n_ij` of one facet with its margins, for all who cannot read the ribbons.
pub(super) fn counts(census: &CensusReport, facet: &FacetRecord) -> Markup {
    let entities = &facet.entities;
    let rows: Vec<usize> = (0..entities.len()).filter(|&i| entities[i].n_b > 0).collect();
    let columns: Vec<usize> = (0..entities.len()).filter(|&j| entities[j].n_a > 0).collect();
    let total: u64 = entities.iter().map(|e| e.n_b).sum();
    html! {
        details class="counts" {
            summary { span { "All counts as a table" } span class="num soft" { (total) " pairs" } }
            div class="scroll" tabindex="0" role="region" aria-label="Table of counts" {
                table class="heat" {
                    caption { "Pairs by what the base shows (rows) and what the adapted model shows under the same seed (columns). Bold: stayed, and sums." }
                    thead { tr {
                        td {}
                        @for &j in &columns { th scope="col" { span { (entities[j].name) } } }
                        th scope="col" { span { "all of the base" } }
                    } }
                    tbody {
                        @for &i in &rows {
                            tr {
                                th scope="row" { (entities[i].name) }
                                @for &j in &columns {
                                    td class=[(i == j).then_some("sure")] { (cell(census, facet, i, j)) }
                                }
                                td class="sure" { (entities[i].n_b) }
                            }
                        }
                        tr {
                            th scope="row" { "all of the adapted" }
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
pub(super) fn moved(census: &CensusReport, facet: &FacetRecord, to: Option<&str>) -> u64 {
    let cells = census.transitions.iter().filter(|t| t.facet == facet.id);
    cells.filter(|t| to.is_none_or(|to| t.to == to)).map(|t| t.n).sum()
}

/// A band from height `a` on the left to `b` on the right, in a box 100 wide.
fn ribbon(a: f64, b: f64, thick: f64) -> String {
    let (a2, b2) = (a + thick, b + thick);
    format!("M0 {a:.2}C45 {a:.2} 55 {b:.2} 100 {b:.2}V{b2:.2}C55 {b2:.2} 45 {a2:.2} 0 {a2:.2}Z")
}

/// What to call an entity within a sentence.
fn called(census: &CensusReport, id: &str) -> String {
    match id {
        NONE => "pictures that show none of these".to_owned(),
        BLOCKED => "pictures that were withheld".to_owned(),
        _ => format!("the {}", prose::name(census, id)),
    }
}

/// One plain sentence under the diagram.
pub(super) fn sentence(census: &CensusReport, facet: &FacetRecord) -> String {
    let to_concept = moved(census, facet, facet.new.as_deref());
    let mut donors: Vec<_> = census
        .transitions
        .iter()
        .filter(|t| t.facet == facet.id && Some(&t.to) == facet.new.as_ref())
        .collect();
    donors.sort_by_key(|way| std::cmp::Reverse(way.n));
    let named: Vec<String> = donors
        .iter()
        .take(3)
        .map(|t| format!("{} ({} of {to_concept})", called(census, &t.from), t.n))
        .collect();
    let rest = match donors.len().saturating_sub(named.len()) {
        0 => String::new(),
        1 => ", and one other".to_owned(),
        n => format!(", and {n} others"),
    };
    if named.is_empty() {
        format!("No picture became the {}.", census.concept.name)
    } else {
        format!("The {} took its places from {}{rest}.", census.concept.name, named.join(", "))
    }
}
