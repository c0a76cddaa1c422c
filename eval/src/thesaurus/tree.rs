//! Distances and depths in the tree of a thesaurus.

use super::{Entity, Thesaurus};
use std::collections::BTreeMap;

impl Thesaurus {
    /// Steps between two entities along the tree: up from one to what both are kinds of, and down to
    /// the other. The roots of a facet hang from one virtual root, so that any two of its entities are
    /// joined. `None` for entities of different facets, between which there is no way, and for unknown
    /// ones.
    ///
    /// Source: `D_thesaurus` of the fabric, by tree path length; known answer `mantel`: two classes of
    /// three leaves have length 2 within and 4 across.
    pub fn path_length(&self, a: &str, b: &str) -> Option<usize> {
        let index = self.index();
        let (from, to) = (*index.get(a)?, *index.get(b)?);
        if from.facet != to.facet {
            return None;
        }
        let (from, to) = (ancestry(&index, from), ancestry(&index, to));
        let pairs = from.iter().rev().zip(to.iter().rev());
        let common = pairs.take_while(|(x, y)| x.id == y.id).count();
        Some(from.len() - common + (to.len() - common))
    }

    /// Levels of the tree: 1 where no entity is a kind of another; 0 of an empty thesaurus.
    pub fn depth(&self) -> usize {
        let index = self.index();
        let levels = self.entities.iter().map(|entity| ancestry(&index, entity).len());
        levels.max().unwrap_or(0)
    }

    fn index(&self) -> BTreeMap<&str, &Entity> {
        self.entities.iter().map(|entity| (entity.id.as_str(), entity)).collect()
    }
}

/// An entity and all that it is a kind of, up to the root of its tree.
fn ancestry<'a>(index: &BTreeMap<&str, &'a Entity>, entity: &'a Entity) -> Vec<&'a Entity> {
    let mut up = vec![entity];
    let mut at = entity;
    // A checked thesaurus has no cycles; one that was put together by hand ends all the same.
    while up.len() <= index.len()
        && let Some(&next) = at.broader.as_deref().and_then(|broader| index.get(broader))
    {
        up.push(next);
        at = next;
    }
    up
}

/// Every cycle of nodes, of which `above` names the one above each: each node of a cycle followed by
/// the one above it, beginning wherever the search fell into it. Cycles come in the order in which
/// their nodes, or nodes that lead into them, first stand.
pub(crate) fn cycles(above: &[Option<usize>]) -> Vec<Vec<usize>> {
    // In which search a node was first met; 0 for not yet.
    let mut met = vec![0_usize; above.len()];
    let mut cycles = Vec::new();
    for start in 0..above.len() {
        let search = start + 1;
        let mut path = Vec::new();
        let mut at = Some(start);
        while let Some(node) = at.filter(|node| *node < above.len()) {
            if met[node] == search {
                let from = path.iter().position(|other| *other == node).unwrap_or(0);
                cycles.push(path.split_off(from));
            }
            if met[node] != 0 {
                break;
            }
            met[node] = search;
            path.push(node);
            at = above[node];
        }
    }
    cycles
}

#[cfg(test)]
mod tests {
    use super::cycles;
    use crate::synthetic::THESAURUS as SMALL;
    use crate::thesaurus::{Thesaurus, parse};

    /// Two classes of three leaves, one of them with a leaf below a leaf, and a lone root.
    fn classes() -> Thesaurus {
        let mut text = String::from(
            "schema: populate/thesaurus/1\nid: classes\nlanguages: [en]\n\
             facets: { subject: {}, color: {} }\nentities:\n",
        );
        for (id, facet, broader) in [
            ("a", "subject", ""),
            ("b", "subject", ""),
            ("a1", "subject", "a"),
            ("a2", "subject", "a"),
            ("a3", "subject", "a"),
            ("b1", "subject", "b"),
            ("b2", "subject", "b"),
            ("b3", "subject", "b"),
            ("b31", "subject", "b3"),
            ("lone", "subject", ""),
            ("red", "color", ""),
        ] {
            let broader = match broader {
                "" => String::new(),
                broader => format!("broader: {broader}, "),
            };
            let line = format!("  {id}: {{ facet: {facet}, {broader}label: {{ en: {id} }} }}\n");
            text.push_str(&line);
        }
        parse(&text, "classes").unwrap()
    }

    #[test]
    fn leaves_are_two_steps_apart_within_a_class_and_four_across() {
        let thesaurus = classes();
        for (a, b, steps) in [
            ("a1", "a1", 0),
            ("a1", "a", 1),
            ("a1", "a2", 2),
            ("a1", "b1", 4),
            ("a", "b", 2),
            ("a1", "b31", 5),
            ("b31", "b3", 1),
            ("b31", "b1", 3),
            ("lone", "a", 2),
            ("lone", "a1", 3),
        ] {
            assert_eq!(thesaurus.path_length(a, b), Some(steps), "{a} {b}");
            assert_eq!(thesaurus.path_length(b, a), Some(steps), "{b} {a}");
        }
    }

    #[test]
    fn there_is_no_way_between_facets_or_to_the_unknown() {
        let thesaurus = classes();
        assert_eq!(thesaurus.path_length("a1", "red"), None);
        assert_eq!(thesaurus.path_length("a1", "nothing"), None);
        assert_eq!(thesaurus.path_length("red", "red"), Some(0));
    }

    #[test]
    fn depth_counts_levels() {
        assert_eq!(classes().depth(), 3);
        assert_eq!(parse(SMALL, "test").unwrap().depth(), 2);
        let mut thesaurus = classes();
        thesaurus.entities.clear();
        assert_eq!(thesaurus.depth(), 0);
    }

    #[test]
    fn every_cycle_is_found_once() {
        assert!(cycles(&[]).is_empty());
        assert!(cycles(&[None, Some(0), Some(1)]).is_empty());
        assert_eq!(cycles(&[Some(0)]), [[0]]);
        // 0 leads into 1 → 2 → 1, 3 into nothing, 4 → 5 → 4.
        let above = [Some(1), Some(2), Some(1), None, Some(5), Some(4)];
        assert_eq!(cycles(&above), [[1, 2], [4, 5]]);
        assert!(cycles(&[Some(7)]).is_empty(), "a node that is not there");
    }

    #[test]
    fn a_cycle_made_by_hand_does_not_hang() {
        let mut thesaurus = classes();
        thesaurus.entities[0].broader = Some("a1".into());
        assert!(thesaurus.depth() > 0);
    }
}
