//! Patterns over dotted paths of layers and parameters.

use std::fmt;

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternError {
    EmptyPart,
    Character(char),
    Braces,
    StarsInPart,
}

impl fmt::Display for PatternError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPart => formatter.write_str("a part between dots is empty"),
            Self::Character(found) => write!(
                formatter,
                "expected letters, digits, `_`, `.`, `*`, `{{a,b}}`, found `{}`",
                found.escape_debug()
            ),
            Self::Braces => formatter.write_str("braces must be closed and cannot be nested"),
            Self::StarsInPart => formatter.write_str("`**` must stand alone between dots"),
        }
    }
}

/// Most alternatives that the braces of one pattern may multiply to.
const MAX_ALTERNATIVES: usize = 256;

/// Checks the syntax of a pattern.
pub(crate) fn check(pattern: &str) -> Result<(), PatternError> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.*{},-".contains(c);
    if let Some(found) = pattern.chars().find(|&c| !known(c)) {
        return Err(PatternError::Character(found));
    }
    let alternatives = alternatives(pattern).ok_or(PatternError::Braces)?;
    for part in alternatives.iter().flat_map(|path| path.split('.')) {
        if part.is_empty() {
            return Err(PatternError::EmptyPart);
        }
        if part.contains("**") && part != "**" {
            return Err(PatternError::StarsInPart);
        }
        if let Some(found) = part.chars().find(|c| ",{}".contains(*c)) {
            return Err(PatternError::Character(found));
        }
    }
    Ok(())
}

/// True if `pattern` matches the whole of the dotted `path`.
///
/// `*` stands for any characters within one part, `**` for any number of parts, also none,
/// `{a,b}` for either text. A text that is no pattern matches nothing.
pub fn matches(pattern: &str, path: &str) -> bool {
    let path: Vec<&str> = path.split('.').collect();
    alternatives(pattern).is_some_and(|alternatives| {
        alternatives
            .iter()
            .any(|pattern| parts_match(&pattern.split('.').collect::<Vec<_>>(), &path))
    })
}

/// The pattern with its braces written out, or `None` if they are not well formed.
fn alternatives(pattern: &str) -> Option<Vec<String>> {
    let mut done = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}')?;
        if before.contains('}') || inside.contains('{') {
            return None;
        }
        let choices: Vec<&str> = inside.split(',').collect();
        if done.len().saturating_mul(choices.len()) > MAX_ALTERNATIVES {
            return None;
        }
        done = done
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| format!("{start}{before}{choice}")))
            .collect();
        rest = after;
    }
    if rest.contains('}') {
        return None;
    }
    for path in &mut done {
        path.push_str(rest);
    }
    Some(done)
}

/// Matches parts by dynamic programming: no pattern takes more than pattern × path steps.
fn parts_match(pattern: &[&str], path: &[&str]) -> bool {
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        if *part == "**" {
            let mut open = false;
            for (place, reached) in reach.iter().enumerate() {
                open |= reached;
                next[place] = open;
            }
        } else {
            for (place, found) in path.iter().enumerate() {
                next[place + 1] = reach[place] && part_matches(part, found);
            }
        }
        reach = next;
    }
    reach[path.len()]
}

/// Matches one part, in which `*` stands for any characters.
fn part_matches(pattern: &str, found: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| found.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TO_Q: &str = "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";

    #[test]
    fn one_star_stays_within_a_part() {
        assert!(matches("unet.*.0.attentions.*.transformer_blocks.*.attn*.to_q", TO_Q));
        assert!(!matches("unet.*.to_q", TO_Q));
        assert!(matches("a*b*c", "axxbyyc"));
        assert!(!matches("a*b*c", "axxcyyb"));
        assert!(!matches("ab*ba", "aba"));
    }

    #[test]
    fn two_stars_cross_parts_also_none() {
        assert!(matches("unet.**.attn*.to_q", TO_Q));
        assert!(matches("**", TO_Q));
        assert!(matches("unet.**.conv_in", "unet.conv_in"));
        assert!(!matches("unet.**.attn*", TO_Q));
    }

    #[test]
    fn braces_are_alternatives() {
        assert!(matches("unet.**.{to_q,to_k}", TO_Q));
        assert!(!matches("unet.**.{to_v,to_k}", TO_Q));
        assert!(matches("{unet,text_encoder}.**.to_{q,k}", TO_Q));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        assert_eq!(check("unet..to_q"), Err(PatternError::EmptyPart));
        assert_eq!(check(""), Err(PatternError::EmptyPart));
        assert_eq!(check("unet.{to_q"), Err(PatternError::Braces));
        assert_eq!(check("unet.to_q}"), Err(PatternError::Braces));
        assert_eq!(check("unet.{a,{b}}"), Err(PatternError::Braces));
        assert_eq!(check("unet.attn**"), Err(PatternError::StarsInPart));
        assert_eq!(check("unet/attn"), Err(PatternError::Character('/')));
        assert_eq!(check("unet.a,b"), Err(PatternError::Character(',')));
        assert_eq!(check("unet.**.attn*.{to_q,to_out.0}"), Ok(()));
    }

    #[test]
    fn alternatives_cannot_multiply_without_limit() {
        assert_eq!(check(&"{a,b}".repeat(9)), Err(PatternError::Braces));
    }

    #[test]
    fn many_stars_end_quickly() {
        let path = vec!["a"; 300].join(".");
        assert!(!matches(&format!("{}b", "**.".repeat(300)), &path));
        assert!(!matches(&format!("{}b", "*a".repeat(100)), &"a".repeat(5000)));
    }

    proptest! {
        #[test]
        fn a_path_matches_itself(path in "[a-z_]{1,5}(\\.[a-z0-9]{1,5}){0,4}") {
            prop_assert!(check(&path).is_ok());
            prop_assert!(matches(&path, &path));
        }

        #[test]
        fn no_text_panics(pattern in ".{0,40}", path in ".{0,40}") {
            let _ = check(&pattern);
            let _ = matches(&pattern, &path);
        }
    }
}
