//! Parses arguments, calls one function per verb, shows what happens.
//!
//! Alone meets the outside world: arguments, environment, clock, terminal, signals, sensors, exit
//! codes. What is computed belongs to the crates below; each verb is one file of `commands`.

mod adapter_file;
mod args;
mod commands;
mod device;
mod diagnostic;
#[cfg(feature = "download")]
mod download;
mod drawing;
mod environment;
mod error;
mod exit;
mod hub;
mod picture;
mod previews;
mod progress;
mod provenance;
mod recorder;
mod sensors;
mod signals;
mod spending;
mod stage;
mod terminal;

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use clap::error::ErrorKind;

use args::Arguments;
use commands::Outcome;
use error::JobError;
use exit::Exit;
use signals::StopRequests;
use terminal::{Paint, Terminal};

/// The program: reads the process's arguments, does what they say, and gives the exit code.
pub fn main() -> ExitCode {
    let terminal = Terminal::new(environment::color_wish());
    let end = match Arguments::try_parse() {
        Ok(arguments) => guarded(&arguments, &terminal),
        Err(error) => usage(&error, &terminal),
    };
    ExitCode::from(end.code())
}

/// Shows help and usage errors. clap's own exit code, 2, is not among ours.
fn usage(error: &clap::Error, terminal: &Terminal) -> Exit {
    let text = error.render();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Only texts of the program itself may bring their own colors.
        let text = if terminal.colored() { text.ansi().to_string() } else { text.to_string() };
        terminal.print_trusted(text.trim_end());
        Exit::Done
    } else {
        terminal.say(text.to_string().trim_end());
        if environment::asked_for_json() {
            let message = text.to_string();
            terminal.print(&diagnostic::plain_json(Exit::Usage, message.trim_end()).to_string());
        }
        Exit::Usage
    }
}

/// Runs a command; a panic inside the tensor library is the device's fault or a bug, but never an
/// unexplained end.
fn guarded(arguments: &Arguments, terminal: &Terminal) -> Exit {
    let story: Arc<Mutex<String>> = Arc::default();
    let told = Arc::clone(&story);
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(mut story) = told.lock() {
            *story = describe(info);
        }
    }));
    let result = catch_unwind(AssertUnwindSafe(|| execute(arguments, terminal)));
    result.unwrap_or_else(|_| {
        let story = story.lock().map_or_else(|_| String::new(), |story| story.clone());
        panicked(&story, arguments, terminal)
    })
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
    message.unwrap_or_else(|| "no message".to_owned()) + &place.unwrap_or_default()
}

fn panicked(story: &str, arguments: &Arguments, terminal: &Terminal) -> Exit {
    let end = exit::from_panic(story);
    let (message, advice) = if end == Exit::Unavailable {
        (
            format!("the device failed: {story}"),
            "use a smaller batch, `--device cpu`, or free the device; checkpoints are kept",
        )
    } else {
        (
            format!("internal error: {story}"),
            "this is a bug: please report it with the recipe and the lines above",
        )
    };
    for line in diagnostic::headline(&message) {
        terminal.say_line(&line);
    }
    terminal.say_line(&diagnostic::hint(advice));
    if arguments.place.json {
        terminal.print(&diagnostic::plain_json(end, &message).to_string());
    }
    end
}

fn execute(arguments: &Arguments, terminal: &Terminal) -> Exit {
    // A verb that never looks at the flag must end as the system ends it.
    let listened = if arguments.verb.stops_in_order() {
        StopRequests::listen()
    } else {
        Ok(StopRequests::default())
    };
    let outcome = listened
        .map_err(JobError::Signals)
        .and_then(|stop| commands::execute(arguments, terminal, &stop))
        .and_then(|outcome| terminal.failure().map_or(Ok(outcome), |e| Err(JobError::Output(e))));
    match outcome {
        Ok(outcome) => conclude(&outcome, arguments, terminal),
        Err(error) => {
            for line in diagnostic::lines(&error) {
                terminal.say_line(&line);
            }
            if arguments.place.json {
                terminal.print(&diagnostic::json(&error).to_string());
            }
            error.exit()
        }
    }
}

/// Says last what matters last: how to go on.
fn conclude(outcome: &Outcome, arguments: &Arguments, terminal: &Terminal) -> Exit {
    match outcome {
        Outcome::Done => Exit::Done,
        Outcome::GateFailed => Exit::GateFailed,
        Outcome::Recorded(code) => Exit::from_recorded(*code),
        Outcome::Failing(end) => *end,
        Outcome::Requeue { go_on } => {
            if arguments.place.json {
                let line = serde_json::json!({ "event": "stopped", "go_on": go_on });
                terminal.print(&line.to_string());
            }
            terminal.say_line(&[
                (Paint::Strong, "stopped; to go on: ".to_owned()),
                (Paint::Plain, go_on.clone()),
            ]);
            Exit::Requeue
        }
    }
}
