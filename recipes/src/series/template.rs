//! An instruction with slots: `a {thing} {place}, {time}`.

use std::collections::BTreeMap;
use std::fmt;

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TemplateError {
    /// A slot that is not closed.
    Open,
    /// An end without its beginning.
    Closed,
    /// A slot of this name.
    Name(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => formatter.write_str("expected `}` behind the name of a slot, found none"),
            Self::Closed => formatter.write_str("found `}` without the `{` of a slot"),
            Self::Name(found) => write!(
                formatter,
                "a slot is named by letters, digits, `-` and `_`, found `{}`",
                found.escape_debug()
            ),
        }
    }
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Words that stand as they are.
    Text(String),
    /// The name of a slot, in whose place a value stands.
    Slot(String),
}

/// Words around slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            let opened = from.strip_prefix('{').ok_or(TemplateError::Closed)?;
            let (slot, behind) = opened.split_once('}').ok_or(TemplateError::Open)?;
            let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if slot.is_empty() || !slot.chars().all(known) {
                return Err(TemplateError::Name(slot.to_owned()));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Slot(slot.to_owned()));
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self { pieces })
    }

    /// The names of its slots, in their order, each once.
    pub(super) fn slots(&self) -> Vec<&str> {
        let mut slots: Vec<&str> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Slot(slot) if !slots.contains(&slot.as_str()) => slots.push(slot),
                Piece::Slot(_) | Piece::Text(_) => {}
            }
        }
        slots
    }

    /// The instruction with these values in the slots of their names, on one line and without
    /// blanks that an empty value would leave.
    pub(super) fn filled(&self, values: &BTreeMap<String, String>) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(words) => text.push_str(words),
                Piece::Slot(slot) => text.push_str(values.get(slot).map_or("", String::as_str)),
            }
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_wherever_their_name_stands() {
        let template = Template::parse("a {thing} {place}, {time}, and a {thing}").unwrap();
        assert_eq!(template.slots(), ["thing", "place", "time"]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let values = [pair("thing", "boat"), pair("place", "in the snow"), pair("time", "at noon")];
        let filled = template.filled(&BTreeMap::from(values));
        assert_eq!(filled, "a boat in the snow, at noon, and a boat");
    }

    #[test]
    fn an_empty_value_and_a_broken_line_leave_one_blank() {
        let template = Template::parse("a {color}\n  tower {time}").unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let filled = template.filled(&BTreeMap::from([pair("color", ""), pair("time", "")]));
        assert_eq!(filled, "a tower");
    }

    #[test]
    fn a_text_without_slots_is_a_template() {
        let template = Template::parse("a postcard").unwrap();
        assert!(template.slots().is_empty());
        assert_eq!(template.filled(&BTreeMap::new()), "a postcard");
    }

    #[test]
    fn braces_belong_to_slots() {
        assert_eq!(Template::parse("a {thing"), Err(TemplateError::Open));
        assert_eq!(Template::parse("a thing}"), Err(TemplateError::Closed));
        assert_eq!(Template::parse("a {}"), Err(TemplateError::Name(String::new())));
        assert_eq!(Template::parse("{a b}"), Err(TemplateError::Name("a b".to_owned())));
        assert_eq!(Template::parse("{{a}}"), Err(TemplateError::Name("{a".to_owned())));
    }
}
