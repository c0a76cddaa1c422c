//! What a Turtle text states in the words of SKOS, each statement with its place.
//!
//! The reader of the Turtle grammar is `oxttl`. It tells no places but those of syntax errors, so the
//! text is fed to it line by line: what comes out after a line stands at the end of that line, or a
//! little above.

use crate::catalogue::failed;
use crate::error::EvalError;
use oxrdf::{NamedOrBlankNode, Term, Triple};
use oxttl::{TurtleParser, TurtleSyntaxError};
use recipes::Problem;

/// Most bytes a Turtle text may have.
pub const MAX_BYTES: u64 = 64 << 20;
/// Most bytes that may be read again before a statement ends: a literal over many lines is read anew
/// with each of them, and one without end would take forever.
const MAX_REREAD: usize = 512 << 20;
/// Lines above the one where a statement ended in which its parts are looked for.
const LOOK_BACK: usize = 32;

const SKOS: &str = "http://www.w3.org/2004/02/skos/core#";
const RDF_TYPE: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type";
const TITLES: [&str; 3] = [
    "http://www.w3.org/2000/01/rdf-schema#label",
    "http://purl.org/dc/terms/title",
    "http://purl.org/dc/elements/1.1/title",
];

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Line, counted from 1.
    pub(super) line: u64,
    /// Column in characters, counted from 1.
    pub(super) column: u64,
    /// First byte of the text, and the one behind the last.
    pub(super) span: (usize, usize),
}

impl Place {
    /// The start of a text.
    pub(super) const START: Self = Self { line: 1, column: 1, span: (0, 0) };

    /// A mistake or warning here.
    pub(super) fn problem(self, message: impl Into<String>, hint: Option<String>) -> Problem {
        Problem {
            line: self.line,
            column: self.column,
            span: self.span.0..self.span.1,
            message: message.into(),
            hint,
        }
    }
}

/// The predicates that are understood; all others are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Predicate {
    /// `rdf:type`
    Type,
    /// `skos:prefLabel`
    PrefLabel,
    /// `skos:altLabel`
    AltLabel,
    /// `skos:broader`
    Broader,
    /// `skos:narrower`
    Narrower,
    /// `skos:related`
    Related,
    /// `skos:notation`
    Notation,
    /// `skos:inScheme` and `skos:topConceptOf`
    InScheme,
    /// `skos:hasTopConcept`
    HasTopConcept,
    /// `rdfs:label` and `dct:title`, which name schemes
    Title,
}

impl Predicate {
    fn from_iri(iri: &str) -> Option<Self> {
        if iri == RDF_TYPE {
            return Some(Self::Type);
        }
        if TITLES.contains(&iri) {
            return Some(Self::Title);
        }
        match iri.strip_prefix(SKOS)? {
            "prefLabel" => Some(Self::PrefLabel),
            "altLabel" => Some(Self::AltLabel),
            "broader" => Some(Self::Broader),
            "narrower" => Some(Self::Narrower),
            "related" => Some(Self::Related),
            "notation" => Some(Self::Notation),
            "inScheme" | "topConceptOf" => Some(Self::InScheme),
            "hasTopConcept" => Some(Self::HasTopConcept),
            _ => None,
        }
    }
}

/// What a statement says of its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    /// Something else: an IRI, or the label of a node without one.
    Thing(String),
    /// Words, with the language tag in lower case if there is one.
    Words { text: String, language: Option<String> },
}

/// One statement in the words of SKOS.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// IRI of what it is about, or the label of a node without one.
    pub(super) subject: String,
    /// Where the subject stands, or at least the statement.
    pub(super) subject_place: Place,
    /// What kind of statement.
    pub(super) predicate: Predicate,
    /// What it says.
    pub(super) object: Object,
    /// Where that stands.
    pub(super) object_place: Place,
}

/// The local name of an `rdf:type`, if it is one of SKOS.
pub(super) fn skos_class(iri: &str) -> Option<&str> {
    iri.strip_prefix(SKOS)
}

/// The part of an IRI that names the thing: behind the last `#`, `/` or `:`.
pub(super) fn local_name(iri: &str) -> &str {
    iri.trim_end_matches(['#', '/']).rsplit(['#', '/', ':']).next().unwrap_or(iri)
}

/// All statements of a Turtle text in the words of SKOS, in its order; `name` is its file.
///
/// # Errors
///
/// [`EvalError::Catalogue`] with the place of the first syntax error, or for a text that is too large.
pub(super) fn statements(text: &str, name: &str) -> Result<Vec<Statement>, EvalError> {
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes, found {}", text.len());
        return Err(failed(Place::START.problem(message, None), text, name));
    }
    let lines = Lines::of(text);
    let mut parser = TurtleParser::new().low_level();
    let mut statements = Vec::new();
    // Bytes since the last statement, and how many of them may have been read how often.
    let (mut pending, mut read) = (0, 0);
    for (at, (_, line)) in lines.lines.iter().enumerate() {
        parser.extend_from_slice(line.as_bytes());
        pending += line.len();
        read += pending;
        if at + 1 == lines.lines.len() {
            parser.end();
        }
        while let Some(triple) = parser.parse_next() {
            (pending, read) = (0, 0);
            let triple = triple.map_err(|error| failed(syntax(&error), text, name))?;
            statements.extend(lines.statement(&triple, at));
        }
        if read > MAX_REREAD {
            let message = "no statement ends for too long before this line";
            return Err(failed(lines.start_of(at).problem(message, None), text, name));
        }
    }
    Ok(statements)
}

fn syntax(error: &TurtleSyntaxError) -> Problem {
    let location = error.location();
    let byte = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let place = Place {
        line: location.start.line + 1,
        column: location.start.column + 1,
        span: (byte(location.start.offset), byte(location.end.offset)),
    };
    let is_relative = error.message().contains("No scheme found");
    let hint = is_relative.then(|| "a relative IRI needs `@base <…> .` above it".to_owned());
    place.problem(error.message(), hint)
}

/// A text in lines, each with the byte where it begins and with its line break.
struct Lines<'a> {
    lines: Vec<(usize, &'a str)>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let mut start = 0;
        let with_start = |line: &'a str| {
            start += line.len();
            (start - line.len(), line)
        };
        Self { lines: text.split_inclusive('\n').map(with_start).collect() }
    }

    /// The statement of a triple that was complete after line `at`, counted from 0; `None` where its
    /// predicate is not understood.
    fn statement(&self, triple: &Triple, at: usize) -> Option<Statement> {
        let predicate = Predicate::from_iri(triple.predicate.as_str())?;
        let subject = match &triple.subject {
            NamedOrBlankNode::NamedNode(node) => node.as_str().to_owned(),
            NamedOrBlankNode::BlankNode(node) => format!("_:{}", node.as_str()),
        };
        let (object, written) = match &triple.object {
            Term::NamedNode(node) => {
                (Object::Thing(node.as_str().to_owned()), local_name(node.as_str()))
            }
            Term::BlankNode(node) => (Object::Thing(format!("_:{}", node.as_str())), ""),
            Term::Literal(words) => {
                let language = words.language().map(str::to_owned);
                // What stands before the first sign that Turtle may write in another way.
                let written = words.value().split(['"', '\\', '\n', '\r', '\t']).next();
                let text = words.value().to_owned();
                (Object::Words { text, language }, written.unwrap_or_default())
            }
        };
        let object_place = self.find(written, at, at);
        let below = usize::try_from(object_place.line).unwrap_or(1) - 1;
        let subject_place = self.find(local_name(&subject), below, below);
        Some(Statement { subject, subject_place, predicate, object, object_place })
    }

    /// Where `written` last stands in line `at` or a little above; the start of line `otherwise` if it
    /// does not.
    fn find(&self, written: &str, at: usize, otherwise: usize) -> Place {
        for line in (at.saturating_sub(LOOK_BACK)..=at).rev() {
            if let Some((from, to)) = self.lines.get(line).and_then(|(_, l)| token(l, written)) {
                return self.place(line, from, to);
            }
        }
        self.start_of(otherwise)
    }

    /// The first sign of a line that is no blank.
    fn start_of(&self, at: usize) -> Place {
        let line = self.lines.get(at).map_or("", |(_, line)| *line);
        let from = line.len() - line.trim_start().len();
        self.place(at, from, line.trim_end().len().max(from))
    }

    /// The place of the bytes from `from` to `to` of a line.
    fn place(&self, at: usize, from: usize, to: usize) -> Place {
        let (start, line) = self.lines.get(at).copied().unwrap_or((0, ""));
        let before = line.get(..from).unwrap_or_default();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX - 1) + 1;
        Place {
            line: count(at),
            column: count(before.chars().count()),
            span: (start + from, start + to),
        }
    }
}

/// The first and the last byte of the token of `line` that holds `written` as a whole word.
fn token(line: &str, written: &str) -> Option<(usize, usize)> {
    if written.is_empty() {
        return None;
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let ends = |c: char| c.is_whitespace() || ",;()[]".contains(c);
    line.match_indices(written).find_map(|(from, found)| {
        let to = from + found.len();
        let joined = line[..from].chars().next_back().is_some_and(is_part)
            || line[to..].chars().next().is_some_and(is_part);
        if joined {
            return None;
        }
        let begin = line[..from].rfind(ends).map_or(0, |at| at + 1);
        // The sign at which the token begins is one byte long, but for rare blanks.
        Some((if line.is_char_boundary(begin) { begin } else { from }, to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n\
        @prefix ex: <http://example.org/> .\n\
        \n\
        # A comment with ex:tower in it.\n\
        ex:tower a skos:Concept ;\n\
        \x20   skos:prefLabel \"Tower\"@en-GB, \"tour\"@fr ;\n\
        \x20   skos:definition \"passed over\"@en ;\n\
        \x20   skos:broader ex:building\n\
        .\n\
        ex:building skos:notation \"48C1\" ; skos:narrower ex:house , ex:tower .\n";

    #[test]
    fn statements_come_in_order_with_their_places() {
        let found = statements(TEXT, "t.ttl").unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|s| {
                let object = match &s.object {
                    Object::Thing(iri) => local_name(iri).to_owned(),
                    Object::Words { text, language } => format!("{text}@{language:?}"),
                };
                let subject = local_name(&s.subject);
                let (s_at, o_at) = (s.subject_place.line, s.object_place.line);
                format!(
                    "{subject}:{s_at} {:?} {object}:{o_at}:{}",
                    s.predicate, s.object_place.column
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "tower:5 Type Concept:5:12",
                "tower:5 PrefLabel Tower@Some(\"en-gb\"):6:20",
                "tower:5 PrefLabel tour@Some(\"fr\"):6:35",
                "tower:5 Broader building:8:18",
                "building:10 Notation 48C1@None:10:27",
                "building:10 Narrower house:10:50",
                "building:10 Narrower tower:10:61",
            ]
        );
        for statement in &found {
            let (from, to) = statement.object_place.span;
            let written = &TEXT[from..to];
            let expected = match &statement.object {
                Object::Thing(iri) => local_name(iri),
                Object::Words { text, .. } => text,
            };
            assert!(written.ends_with(expected), "`{written}` is not `{expected}`");
        }
    }

    #[test]
    fn syntax_errors_have_their_line() {
        let text = TEXT.replace("ex:building\n.", "exx:building .");
        let Err(EvalError::Catalogue { name, problems, .. }) = statements(&text, "t.ttl") else {
            panic!("an unknown prefix was read")
        };
        assert_eq!((name.as_str(), problems.len(), problems[0].line), ("t.ttl", 1, 8));
        let Err(EvalError::Catalogue { problems, .. }) = statements("<a> <b> <c> .\n", "t") else {
            panic!("a relative IRI was read")
        };
        assert_eq!(problems[0].line, 1);
        assert!(problems[0].hint.as_deref().is_some_and(|hint| hint.contains("@base")));
        assert!(statements("ex:a", "t").is_err());
        assert!(statements("<http://a.b/c> <http://a.b/d> \"no end", "t").is_err());
    }

    #[test]
    fn a_text_that_ends_without_a_line_break_is_read_whole() {
        let found = statements(TEXT.trim_end(), "t").unwrap();
        assert_eq!(found.len(), 7);
        assert!(statements("", "t").unwrap().is_empty());
        assert!(statements("# nothing", "t").unwrap().is_empty());
    }

    #[test]
    fn windows_line_ends_move_no_line() {
        let found = statements(&TEXT.replace('\n', "\r\n"), "t").unwrap();
        let lines: Vec<u64> = found.iter().map(|s| s.object_place.line).collect();
        assert_eq!(lines, [5, 6, 6, 8, 10, 10, 10]);
    }

    #[test]
    fn a_literal_without_end_is_given_up() {
        let text = format!("<http://a.b/c> <http://a.b/d> \"\"\"{}", "x\n".repeat(40_000));
        let Err(EvalError::Catalogue { problems, .. }) = statements(&text, "t") else {
            panic!("it has no end")
        };
        assert!(problems[0].message.contains("no statement ends for too long"), "{problems:?}");
    }

    #[test]
    fn tokens_are_whole_words() {
        assert_eq!(token("ex:ab, ex:a .", "a"), Some((7, 11)));
        assert_eq!(token("<http://x/a> .", "a"), Some((0, 11)));
        assert_eq!(token("ex:a-b", "a"), None);
        assert_eq!(token("x", ""), None);
        assert_eq!(token("é ex:à", "à"), Some((3, 8)));
    }
}
