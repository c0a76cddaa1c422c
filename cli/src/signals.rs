//! Requests to stop: SIGTERM, SIGUSR1, SIGHUP and the first Ctrl-C set one flag.
//!
//! Nothing is saved here; the loops read the flag and stop where their state is whole. Who leaves
//! at once is the user that presses Ctrl-C a second time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::environment;
use crate::exit::Exit;

/// Nearer repeats of Ctrl-C are echoes: some wrappers forward it on top of the terminal's own.
const ECHO: Duration = Duration::from_secs(1);

/// The first request to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Name of the signal.
    pub(crate) signal: &'static str,
    at: Instant,
}

impl Request {
    /// Seconds since the signal came.
    pub(crate) fn seconds_ago(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }
}

/// The stop flag of the process and what set it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopRequests {
    stop: Arc<AtomicBool>,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Debug, Default)]
struct Noted {
    first: Option<Request>,
    first_interrupt: Option<Instant>,
}

impl StopRequests {
    /// Starts to listen, on a thread of its own. Signals that were ignored at the start stay so:
    /// that is what `nohup` asks for.
    ///
    /// # Errors
    ///
    /// What the system says when a handler cannot be installed.
    pub(crate) fn listen() -> io::Result<Self> {
        let requests = Self::default();
        let mut signals = Signals::new(heard(environment::ignored_signals()))?;
        let listener = requests.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if listener.note(signal, Instant::now()) == Reaction::LeaveNow {
                    leave_now();
                }
            }
        })?;
        Ok(requests)
    }

    /// The flag that loops read.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// The first request, if there was one.
    pub(crate) fn first(&self) -> Option<Request> {
        self.noted.lock().map_or(None, |noted| noted.first)
    }

    fn note(&self, signal: i32, now: Instant) -> Reaction {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(mut noted) = self.noted.lock() else { return Reaction::Stop };
        noted.first.get_or_insert(Request { signal: name(signal), at: now });
        if signal != SIGINT {
            // Schedulers repeat their signals legitimately; only a person means more by it.
            return Reaction::Stop;
        }
        let first_interrupt = *noted.first_interrupt.get_or_insert(now);
        if now.duration_since(first_interrupt) >= ECHO {
            Reaction::LeaveNow
        } else {
            Reaction::Stop
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    Stop,
    LeaveNow,
}

#[expect(clippy::exit, reason = "the second Ctrl-C must not wait for a loop that may hang")]
fn leave_now() {
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

/// The signals to listen to: all four, less those in the mask of ignored ones.
fn heard(ignored: u64) -> Vec<i32> {
    let listened = |signal: &i32| (ignored >> (signal - 1)) & 1 == 0;
    [SIGTERM, SIGUSR1, SIGHUP, SIGINT].into_iter().filter(listened).collect()
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGTERM => "SIGTERM",
        SIGUSR1 => "SIGUSR1",
        SIGHUP => "SIGHUP",
        SIGINT => "Ctrl-C",
        _ => "a signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ignored_at_the_start_stays_ignored() {
        assert_eq!(heard(0), [SIGTERM, SIGUSR1, SIGHUP, SIGINT]);
        assert_eq!(heard(1 << (SIGHUP - 1)), [SIGTERM, SIGUSR1, SIGINT]);
        assert_eq!(heard(1 << (SIGINT - 1)), [SIGTERM, SIGUSR1, SIGHUP]);
    }

    #[test]
    fn only_a_second_ctrl_c_after_a_second_leaves_at_once() {
        let requests = StopRequests::default();
        let start = Instant::now();
        assert_eq!(requests.note(SIGINT, start), Reaction::Stop);
        assert!(requests.flag().load(Ordering::Relaxed));
        let soon = start + Duration::from_millis(300);
        assert_eq!(requests.note(SIGINT, soon), Reaction::Stop);
        let later = start + Duration::from_millis(1300);
        assert_eq!(requests.note(SIGTERM, later), Reaction::Stop);
        assert_eq!(requests.note(SIGINT, later), Reaction::LeaveNow);
        assert_eq!(requests.first().map(|request| request.signal), Some("Ctrl-C"));
    }

    #[test]
    fn schedulers_may_repeat_their_signals() {
        let requests = StopRequests::default();
        let start = Instant::now();
        for seconds in [0, 2, 4] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(requests.note(SIGTERM, now), Reaction::Stop);
        }
        assert_eq!(requests.first().map(|request| request.signal), Some("SIGTERM"));
    }
}
