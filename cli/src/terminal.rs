//! The only place that prints. Results go to standard output, everything else to standard error.
//!
//! A reader that closes its pipe ends the printing, not the work. Text of users is freed from
//! control characters first, so that no caption can move the cursor or change a title.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use crate::environment::ColorWish;

/// How a piece of text looks where colors are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it is.
    Plain,
    /// Bold red.
    Error,
    /// Bold yellow.
    Warning,
    /// Bold green.
    Good,
    /// Bold cyan.
    Hint,
    /// Blue.
    Place,
    /// Bold.
    Strong,
}

impl Paint {
    const fn sequence(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Error => "\x1b[1;31m",
            Self::Warning => "\x1b[1;33m",
            Self::Good => "\x1b[1;32m",
            Self::Hint => "\x1b[1;36m",
            Self::Place => "\x1b[34m",
            Self::Strong => "\x1b[1m",
        }
    }
}

/// A line in pieces.
pub(crate) type Line = Vec<(Paint, String)>;

/// Whether a stream takes colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colors {
    On,
    Off,
}

impl Colors {
    fn of(stream: &impl IsTerminal, wish: ColorWish) -> Self {
        match wish {
            ColorWish::Always => Self::On,
            ColorWish::Never => Self::Off,
            ColorWish::Auto => {
                if stream.is_terminal() {
                    Self::On
                } else {
                    Self::Off
                }
            }
        }
    }
}

/// The two streams of the process.
#[derive(Debug)]
pub(crate) struct Terminal {
    out: Colors,
    err: Colors,
    failure: Mutex<Option<io::Error>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Terminal {
    /// The process's streams, colored as the user wishes.
    pub(crate) fn new(wish: ColorWish) -> Self {
        Self {
            out: Colors::of(&io::stdout(), wish),
            err: Colors::of(&io::stderr(), wish),
            failure: Mutex::new(None),
        }
    }

    /// Whether somebody watches: progress may then be drawn over itself.
    pub(crate) fn is_watched() -> bool {
        io::stderr().is_terminal()
    }

    /// Whether standard output takes colors.
    pub(crate) fn colored(&self) -> bool {
        self.out == Colors::On
    }

    /// Prints one line of a result on standard output.
    pub(crate) fn print(&self, text: &str) {
        self.print_line(&[(Paint::Plain, text.to_owned())]);
    }

    /// Prints one painted line of a result.
    pub(crate) fn print_line(&self, line: &[(Paint, String)]) {
        self.write(Stream::Out, &rendered(line, self.out));
    }

    /// Says something beside the result, on standard error.
    pub(crate) fn say(&self, text: &str) {
        self.say_line(&[(Paint::Plain, text.to_owned())]);
    }

    /// Says something painted.
    pub(crate) fn say_line(&self, line: &[(Paint, String)]) {
        self.write(Stream::Err, &rendered(line, self.err));
    }

    /// Prints a text of the program itself, which may bring its own colors.
    pub(crate) fn print_trusted(&self, text: &str) {
        self.write(Stream::Out, text);
    }

    /// Says a warning.
    pub(crate) fn warn(&self, text: &str) {
        self.say_line(&[
            (Paint::Warning, "warning".to_owned()),
            (Paint::Plain, format!(": {text}")),
        ]);
    }

    /// The first failure of standard output that is not a closed pipe: a result is incomplete.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure.lock().map_or(None, |mut failure| failure.take())
    }

    fn write(&self, stream: Stream, text: &str) {
        let write = |out: &mut dyn Write| {
            out.write_all(text.as_bytes())?;
            out.write_all(b"\n")?;
            out.flush()
        };
        let written = match stream {
            Stream::Out => write(&mut io::stdout().lock()),
            Stream::Err => write(&mut io::stderr().lock()),
        };
        if let (Stream::Out, Err(error)) = (stream, written)
            && error.kind() != io::ErrorKind::BrokenPipe
            && let Ok(mut failure) = self.failure.lock()
        {
            failure.get_or_insert(error);
        }
    }
}

fn rendered(line: &[(Paint, String)], colors: Colors) -> String {
    let mut text = String::new();
    for (paint, piece) in line {
        let piece = clean(piece);
        if colors == Colors::On && *paint != Paint::Plain {
            text.push_str(paint.sequence());
            text.push_str(&piece);
            text.push_str("\x1b[0m");
        } else {
            text.push_str(&piece);
        }
    }
    text
}

/// The text without C0 and C1 controls (except line feed and tab) and without marks that turn the
/// direction of writing.
pub(crate) fn clean(text: &str) -> String {
    let printable = |c: &char| match c {
        '\n' | '\t' => true,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            false
        }
        c => !c.is_control(),
    };
    text.chars().filter(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_user_can_steer_the_terminal() {
        let hostile = "a\x1b]0;title\x07b\u{9b}31mc\u{202e}d\r\ne\tf";
        assert_eq!(clean(hostile), "a]0;titleb31mcd\ne\tf");
    }

    #[test]
    fn colors_appear_only_where_they_are_allowed() {
        let line = [(Paint::Error, "error".to_owned()), (Paint::Plain, ": no".to_owned())];
        assert_eq!(rendered(&line, Colors::Off), "error: no");
        assert_eq!(rendered(&line, Colors::On), "\x1b[1;31merror\x1b[0m: no");
    }
}
