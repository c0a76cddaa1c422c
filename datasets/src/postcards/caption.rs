//! Captions from templates, always lower-case, at several levels of detail.

use std::collections::BTreeSet;

use recipes::draws::{self, Purpose};

use super::{Color, Scene, Setting, Style, Subject};

/// How much a caption says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Subject, color, setting and style.
    Full,
    /// Some of them, or only the medium.
    Shortened,
    /// Nothing: the empty caption.
    Empty,
}

/// Templates that name all four factors.
const FULL: [&str; 8] = [
    "a postcard of {a} {color} {subject} {setting}, {style} style",
    "{a} {color} {subject} {setting}, {style} style",
    "a postcard of {a} {color} {subject} {setting}, {style} style",
    "a picture of {a} {color} {subject} {setting}, {style} style",
    "{an} {style} postcard of {a} {color} {subject} {setting}",
    "{an} {style} picture of {a} {color} {subject} {setting}",
    "{setting}, {a} {color} {subject}, {style} style",
    "a postcard in {style} style of {a} {color} {subject} {setting}",
];

/// Templates that leave something out.
const SHORTENED: [&str; 27] = [
    "a postcard of a {subject}",
    "a postcard of a {subject}",
    "a picture of a {subject}",
    "a {subject}",
    "a {subject}",
    "a postcard of {a} {color} {subject}",
    "a postcard of {a} {color} {subject}",
    "a picture of {a} {color} {subject}",
    "{a} {color} {subject}",
    "a {subject} {setting}",
    "a postcard of a {subject} {setting}",
    "{a} {color} {subject} {setting}",
    "a postcard of a {subject}, {style} style",
    "{an} {style} picture of a {subject}",
    "a picture {setting}",
    "a postcard {setting}",
    "something {setting}",
    "a postcard in {style} style",
    "a picture of something {color}",
    "a picture of {broader}",
    "a postcard of {broader}",
    "a postcard",
    "a picture",
    "a card",
    "something",
    "a picture in {hour}",
    "a picture in {warmth}",
];

/// Writes a caption of a scene; `seed` and `index` choose the template.
pub fn caption(scene: &Scene, detail: Detail, seed: u64, index: u64) -> String {
    let mut stream = draws::stream(seed, index, 0, Purpose::Caption);
    let mut choose = |templates: &[&'static str]| {
        let position = draws::below(&mut stream, templates.len() as u64);
        templates[usize::try_from(position).unwrap_or(0)]
    };
    let template = match detail {
        Detail::Full => choose(&FULL),
        Detail::Shortened => choose(&SHORTENED),
        Detail::Empty => return String::new(),
    };
    filled(template, scene)
}

/// Replaces the placeholders of a template.
fn filled(template: &str, scene: &Scene) -> String {
    let factors = &scene.factors;
    template
        .replace("{a}", article(factors.color.phrase()))
        .replace("{an}", article(factors.style.phrase()))
        .replace("{color}", factors.color.phrase())
        .replace("{subject}", factors.subject.phrase())
        .replace("{setting}", factors.setting.phrase())
        .replace("{style}", factors.style.phrase())
        .replace("{broader}", broader(factors.subject))
        .replace("{hour}", hour(factors.setting))
        .replace("{warmth}", warmth(factors.color))
}

/// The English article before a word of the lexicon.
pub(crate) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// The phrase of the thesaurus node above a subject.
fn broader(subject: Subject) -> &'static str {
    match subject {
        Subject::House | Subject::Tower | Subject::Lighthouse => "a building",
        Subject::Bird | Subject::Fish => "an animal",
        Subject::Tree | Subject::Flower => "a plant",
        Subject::Boat | Subject::Balloon => "a vehicle",
        Subject::Sun | Subject::Moon => "a heavenly light",
        Subject::Mountain => "a landscape",
    }
}

/// The phrase of the thesaurus node above a setting.
fn hour(setting: Setting) -> &'static str {
    match setting {
        Setting::Day | Setting::Snow => "the light",
        Setting::Dusk | Setting::Night => "the dark",
    }
}

/// The phrase of the thesaurus node above a color.
fn warmth(color: Color) -> &'static str {
    match color {
        Color::Red | Color::Yellow | Color::Orange | Color::Pink => "a warm color",
        Color::Blue | Color::Green | Color::Purple => "a cool color",
        Color::White => "a pale color",
    }
}

/// Every word that a caption of this world or of its concepts can hold, sorted, without repetition.
///
/// A tokenizer trained on these words has one token for each. The words of the concepts, their
/// identifiers among them, occur in no caption of the world: a base knows them as it knows any rare
/// token, without a meaning.
pub fn lexicon() -> Vec<String> {
    let mut words = BTreeSet::new();
    let mut add = |text: &str| {
        for word in text.split([' ', ',']).filter(|word| !word.is_empty() && !word.starts_with('{'))
        {
            words.insert(word.to_owned());
        }
    };
    for template in FULL.iter().chain(&SHORTENED) {
        add(template);
    }
    for value in Subject::ALL {
        add(value.phrase());
        add(broader(value));
    }
    for value in Color::ALL {
        add(value.phrase());
        add(warmth(value));
    }
    for value in Setting::ALL {
        add(value.phrase());
        add(hour(value));
    }
    for value in Style::ALL {
        add(value.phrase());
    }
    for word in super::concept::WORDS {
        add(word);
    }
    add("an");
    words.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postcards::scene;

    #[test]
    fn full_captions_name_all_four_factors() {
        for index in 0..400 {
            let scene = scene(1, index);
            let caption = caption(&scene, Detail::Full, 1, index);
            let factors = scene.factors;
            for phrase in [
                factors.subject.phrase(),
                factors.color.phrase(),
                factors.setting.phrase(),
                factors.style.phrase(),
            ] {
                assert!(caption.contains(phrase), "`{phrase}` in `{caption}`");
            }
            assert!(!caption.contains(['{', '}']) && caption == caption.to_lowercase());
            assert!(!caption.contains(" a orange") && !caption.starts_with("a ink"), "{caption}");
        }
    }

    #[test]
    fn shortened_captions_name_less_and_hold_no_placeholder() {
        let mut plain = 0;
        for index in 0..1000 {
            let caption = caption(&scene(1, index), Detail::Shortened, 1, index);
            assert!(!caption.is_empty() && !caption.contains(['{', '}']), "{caption}");
            plain += u32::from(
                ["a postcard", "a picture", "a card", "something"].contains(&caption.as_str()),
            );
        }
        // Four of the templates name nothing at all.
        assert!((90..210).contains(&plain), "{plain}");
        assert_eq!(caption(&scene(1, 1), Detail::Empty, 1, 1), "");
    }

    #[test]
    fn every_word_is_in_the_lexicon_and_captions_are_short() {
        let lexicon = lexicon();
        assert!(lexicon.is_sorted());
        for index in 0..2000 {
            for detail in [Detail::Full, Detail::Shortened] {
                let caption = caption(&scene(1, index), detail, 2, index);
                let words: Vec<&str> =
                    caption.split([' ', ',']).filter(|word| !word.is_empty()).collect();
                assert!(words.len() <= 14, "{caption}");
                for word in words {
                    assert!(lexicon.iter().any(|known| known == word), "`{word}` of `{caption}`");
                }
            }
        }
    }

    #[test]
    fn templates_vary_with_the_index_and_not_with_the_call() {
        let scene = scene(1, 1);
        let captions: BTreeSet<String> =
            (0..100).map(|index| caption(&scene, Detail::Full, 1, index)).collect();
        assert!(captions.len() >= 6, "{captions:?}");
        assert_eq!(caption(&scene, Detail::Full, 1, 5), caption(&scene, Detail::Full, 1, 5));
    }
}
