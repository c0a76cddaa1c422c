//! Labels that an evaluator may take for one another: a label within another, and two labels whose
//! words point the same way.

use super::Thesaurus;
use super::raw::RawThesaurus;
use crate::catalogue::Problems;
use serde_saphyr::Location;
use std::collections::{BTreeMap, BTreeSet};

/// Cosine of two labels' words above which a text encoder hardly tells them apart.
pub const NEAR: f64 = 0.97;

/// Pairs of entities whose words have a cosine above [`NEAR`], in the given order, each with it.
/// `words` are the text embeddings of one facet's counted entities, of any length but 0: a picture is
/// labeled within its facet, so that only there one entity may be taken for the other.
pub fn near_labels(words: &[(&str, &[f32])]) -> Vec<(String, String, f64)> {
    let mut near = Vec::new();
    for (i, (a, x)) in words.iter().enumerate() {
        for (b, y) in &words[i + 1..] {
            let cosine = dot(x, y) / libm::sqrt(dot(x, x) * dot(y, y));
            if cosine > NEAR {
                near.push(((*a).to_owned(), (*b).to_owned(), cosine));
            }
        }
    }
    near
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// A label of a counted entity.
struct Label<'a> {
    facet: &'a str,
    language: &'a str,
    text: &'a str,
    /// Its entity.
    id: &'a str,
}

/// Positions of two labels of one facet and language, the first of which stands within the other as a
/// word or as several in a row, by the second and then by the first.
fn nested(labels: &[Label<'_>]) -> Vec<(usize, usize)> {
    let mut by_text: BTreeMap<(&str, &str, &str), Vec<usize>> = BTreeMap::new();
    for (i, label) in labels.iter().enumerate() {
        by_text.entry((label.facet, label.language, label.text)).or_default().push(i);
    }
    let mut nested = Vec::new();
    for (outer, label) in labels.iter().enumerate() {
        let words: Vec<&str> = label.text.split_whitespace().collect();
        let parts: BTreeSet<String> = (0..words.len())
            .flat_map(|from| (from + 1..=words.len()).map(move |to| from..to))
            .filter(|part| part.len() < words.len())
            .map(|part| words[part].join(" "))
            .collect();
        for part in &parts {
            let same = by_text.get(&(label.facet, label.language, part.as_str()));
            let others = same.into_iter().flatten().filter(|inner| labels[**inner].id != label.id);
            nested.extend(others.map(|inner| (*inner, outer)));
        }
    }
    nested
}

/// A warning at each label that another one stands in.
pub(super) fn nested_in(raw: &RawThesaurus) -> Problems {
    let mut labels = Vec::new();
    let mut places: Vec<Location> = Vec::new();
    for (id, entity) in raw.entities.first().filter(|(_, entity)| entity.is_counted()) {
        for (language, label) in entity.label.first() {
            labels.push(Label {
                facet: entity.facet(),
                language: &language.value,
                text: &label.value,
                id: &id.value,
            });
            places.push(label.referenced);
        }
    }
    let mut warnings = Problems::default();
    for (inner, outer) in nested(&labels) {
        let (part, whole) = (&labels[inner], &labels[outer]);
        let message = format!(
            "the label `{}` of `{}` stands within `{}`: an evaluator may confuse them",
            part.text, part.id, whole.text
        );
        warnings.add(places[outer], message);
    }
    warnings
}

impl Thesaurus {
    /// Pairs of counted entities of one facet, the first of which has a label that stands as a word
    /// within the other's: an evaluator may confuse the two. Worth a warning, not an error.
    pub fn nested_labels(&self) -> Vec<(String, String)> {
        let labels: Vec<Label<'_>> = self
            .all_counted()
            .flat_map(|entity| {
                entity.label.iter().map(|(language, text)| Label {
                    facet: &entity.facet,
                    language,
                    text,
                    id: &entity.id,
                })
            })
            .collect();
        let mut pairs = nested(&labels);
        pairs.sort_unstable();
        let mut told = BTreeSet::new();
        pairs
            .into_iter()
            .map(|(inner, outer)| (labels[inner].id.to_owned(), labels[outer].id.to_owned()))
            .filter(|pair| told.insert(pair.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::THESAURUS as SMALL;
    use crate::thesaurus::{check, parse};

    #[test]
    fn a_label_within_another_is_noted() {
        let text = SMALL.replace("en: house", "en: tower house");
        let thesaurus = parse(&text, "test").unwrap();
        assert_eq!(thesaurus.nested_labels(), [("tower".to_owned(), "house".to_owned())]);
    }

    #[test]
    fn the_warning_stands_at_the_longer_label() {
        let text =
            SMALL.replace("en: house", "en: tower house").replace("fr: rouge", "fr: rouge bleu");
        let (_, warnings) = check(&text, "test").unwrap();
        let places: Vec<(u64, &str)> =
            warnings.iter().map(|w| (w.line, &text[w.span.clone()])).collect();
        assert_eq!(places, [(9, "tower house"), (11, "rouge bleu")]);
        assert!(warnings[0].message.starts_with("the label `tower` of `tower` stands within"));
        let (_, warnings) = check(SMALL, "test").unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn several_words_in_a_row_stand_within_a_label_too() {
        let text = SMALL
            .replace("label: { en: tower,", "label: { en: old boat,")
            .replace("en: house", "en: very old boat");
        let pairs = parse(&text, "test").unwrap().nested_labels();
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("tower", "house"), ("boat", "tower"), ("boat", "house")]);
    }

    #[test]
    fn parts_of_words_other_facets_and_inner_entities_are_no_matter() {
        for text in [
            SMALL.replace("en: house", "en: towerhouse"),
            SMALL.replace("en: house", "en: red house"),
            SMALL.replace("en: house", "en: house building"),
            SMALL.replace("fr: maison", "fr: tower maison"),
        ] {
            assert!(parse(&text, "test").unwrap().nested_labels().is_empty(), "{text}");
        }
    }

    #[test]
    fn labels_are_near_above_a_cosine_of_0_97() {
        let at = |angle: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "components of a unit vector")]
            let vector = [(3.0 * libm::cos(angle)) as f32, (3.0 * libm::sin(angle)) as f32];
            vector
        };
        // cos 0.24 = .97134, cos 0.25 = .96891.
        let (zero, near, far) = (at(0.0), at(0.24), at(-0.25));
        let words: [(&str, &[f32]); 3] = [("a", &zero), ("b", &near), ("c", &far)];
        let found = near_labels(&words);
        let [(a, b, cosine)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((a.as_str(), b.as_str()), ("a", "b"));
        assert!((cosine - 0.971_338).abs() < 1e-5, "{cosine}");
        assert!(near_labels(&words[..1]).is_empty());
    }
}
