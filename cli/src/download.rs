//! Fetches models of the Hugging Face hub into the cache of its tools, as those tools would.
//!
//! Owns the order: the list of files, of each file first what the hub says of it, then its bytes
//! (gone on from where an earlier attempt ended), then its name; the revision comes last. What
//! lies on the disk belongs to `checkpoints::hub`, what goes over the wire to [`client`].

mod client;
mod error;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use checkpoints::hub::{
    Blob, GrowingBlob, HubCache, HubError, HubErrorKind, MAIN, is_commit, walk_base,
};
use serde::Deserialize;
use serde_json::json;

use crate::environment;
use crate::hub::Asked;
use crate::progress::{Progress, Tick};
use crate::terminal::Terminal;

use client::{Access, Answer, Client, Described, Verb, text};
pub(crate) use error::DownloadError;

/// Before the second attempt at what failed for a reason that passes; doubled before each further.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts in a row without a new byte.
const ATTEMPTS: u32 = 5;
/// Longest answer that is kept in memory.
const MAX_LISTING_BYTES: u64 = 32 << 20;
/// Smaller files come without a word.
const LARGE_BYTES: u64 = 10_000_000;
const BUFFER_BYTES: usize = 1 << 18;

/// Puts what is asked for into the cache; files that are there stay as they are.
///
/// # Errors
///
/// See [`DownloadError`]. What was fetched is kept and gone on from.
pub(crate) fn fetch(asked: Asked<'_>, cache: &HubCache) -> Result<(), DownloadError> {
    let (endpoint, token) = (environment::hub_endpoint(), environment::hub_token());
    let access = Access { endpoint: &endpoint, token: token.as_deref(), pause: PAUSE };
    let client = Client::new(access, &asked.model.repo)?;
    let terminal = Terminal::new(environment::color_wish());
    terminal.say(&format!("fetching `{}` into `{}`", asked.model, cache.dir.display()));
    let mut shown = Shown { progress: Progress::for_people(&terminal), said_mb: 0 };
    let fetched = fetch_by(&client, cache, asked, &mut |step| shown.step(step));
    shown.progress.end();
    fetched
}

/// What happens while a model is fetched.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// Another process fetches this file; its end is waited for.
    Waits { name: &'a str },
    /// Bytes of a file begin to come.
    Begins { name: &'a str, size: Option<u64> },
    /// So many bytes of the file are there.
    Has { n_bytes: u64, size: Option<u64> },
}

/// The steps for a person.
struct Shown<'a> {
    progress: Progress<'a>,
    said_mb: u64,
}

impl Shown<'_> {
    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Waits { name } => {
                let record = json!({ "event": "waits", "file": name });
                self.progress.note(&format!("another process fetches `{name}`: waiting"), &record);
            }
            Step::Begins { name, size } if size.is_none_or(|size| size >= LARGE_BYTES) => {
                let record = json!({ "event": "fetches", "file": name, "bytes": size });
                self.progress.note(&format!("fetching `{name}`"), &record);
                self.said_mb = 0;
            }
            Step::Begins { .. } => {}
            Step::Has { n_bytes, size } => self.has(n_bytes, size.unwrap_or(n_bytes)),
        }
    }

    fn has(&mut self, n_bytes: u64, size: u64) {
        let n_mb = n_bytes / 1_000_000;
        if size < LARGE_BYTES || n_mb == self.said_mb {
            return;
        }
        self.said_mb = n_mb;
        let total = size / 1_000_000;
        self.progress.tick(&Tick { phase: "fetch", unit: "MB", done: n_mb, total, figures: &[] });
    }
}

/// Fetches by a given client, telling each step.
fn fetch_by(
    client: &Client,
    cache: &HubCache,
    asked: Asked<'_>,
    tell: &mut dyn FnMut(Step<'_>),
) -> Result<(), DownloadError> {
    let repo = asked.model.repo.as_str();
    let revision = asked.model.revision.as_deref().unwrap_or(MAIN);
    let Listing { sha: commit, siblings } = listing(client, revision)?;
    let names: BTreeSet<String> = siblings.into_iter().map(|file| file.rfilename).collect();
    let mut fetcher = Fetcher { client, cache, repo, commit: &commit, tell };
    if let Some(file) = &asked.model.file {
        fetcher.get(file)?;
    } else {
        walk_base::<DownloadError>(&names, asked.variant, &mut |name| fetcher.get(name))?;
    }
    Ok(cache.write_ref(repo, revision, &commit)?)
}

/// What the hub says of a revision.
#[derive(Debug, Deserialize)]
struct Listing {
    /// Its commit.
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

fn listing(client: &Client, revision: &str) -> Result<Listing, DownloadError> {
    let what = format!("the list of files at `{revision}`");
    let url = client.listing_url(revision);
    let bytes = client.patiently(&mut || {
        let answer = client.ask(Verb::Get, &url, &[], &what)?;
        if !answer.status().is_success() {
            return Err(client.refusal(&answer, &what));
        }
        let body = answer.into_body().into_with_config().limit(MAX_LISTING_BYTES);
        body.read_to_vec().map_err(|error| client.failure(&error, &what))
    })?;
    let listing: Listing = serde_json::from_slice(&bytes)
        .map_err(|error| client.oddness(&what, format!("is no list of files: {error}")))?;
    let is_asked_for = !is_commit(revision) || listing.sha.eq_ignore_ascii_case(revision);
    if !is_commit(&listing.sha) || !is_asked_for {
        let reason = format!("names the commit `{}`", listing.sha.escape_debug());
        return Err(client.oddness(&what, reason));
    }
    Ok(listing)
}

/// Puts files of one commit into the cache.
struct Fetcher<'a> {
    client: &'a Client,
    cache: &'a HubCache,
    repo: &'a str,
    commit: &'a str,
    tell: &'a mut dyn FnMut(Step<'_>),
}

impl Fetcher<'_> {
    /// Where a file lies, after it was fetched if it was not there.
    fn get(&mut self, name: &str) -> Result<PathBuf, DownloadError> {
        match self.cache.snapshot(self.repo, self.commit)?.file(name) {
            Ok(path) => return Ok(path),
            Err(problem) if problem.kind() == HubErrorKind::Absent => {}
            Err(problem) => return Err(problem.into()),
        }
        let file = self.client.describe(self.commit, name)?;
        self.obtain(name, &file)?;
        Ok(self.cache.link(self.repo, self.commit, name, &file.etag)?)
    }

    /// Gets the bytes of a file into the cache. What an earlier attempt left may be damaged, which
    /// shows only at the end: then it is fetched once from its beginning.
    fn obtain(&mut self, name: &str, file: &Described) -> Result<(), DownloadError> {
        loop {
            let waits = &mut || (self.tell)(Step::Waits { name });
            let Blob::Growing(mut blob) = self.cache.blob(self.repo, &file.etag, waits)? else {
                return Ok(());
            };
            let was_begun = blob.n_bytes() > 0;
            (self.tell)(Step::Begins { name, size: file.size });
            self.fill(&mut blob, name, file)?;
            match blob.finish(file.size) {
                Err(HubError::Hash { .. }) if was_begun => {}
                finished => return Ok(finished?),
            }
        }
    }

    /// Appends what is missing, in as many requests as it takes while bytes come.
    fn fill(
        &mut self,
        blob: &mut GrowingBlob,
        name: &str,
        file: &Described,
    ) -> Result<(), DownloadError> {
        let (mut most, mut n_failures) = (blob.n_bytes(), 0);
        while file.size != Some(blob.n_bytes()) {
            match self.pour(blob, name, file) {
                Err(error) if error.passes() => {
                    n_failures = if blob.n_bytes() > most { 0 } else { n_failures + 1 };
                    most = most.max(blob.n_bytes());
                    if n_failures >= ATTEMPTS {
                        return Err(error);
                    }
                    if n_failures > 0 {
                        self.client.rest(n_failures);
                    }
                }
                poured => return poured,
            }
        }
        Ok(())
    }

    /// One request for the rest of a file.
    fn pour(
        &mut self,
        blob: &mut GrowingBlob,
        name: &str,
        file: &Described,
    ) -> Result<(), DownloadError> {
        let what = format!("`{name}`");
        let answer = self.rest_of(blob, name, file)?;
        let mut reader = answer.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = reader.read(&mut buffer);
            let n_read = read.map_err(|error| self.client.cut(&what, &error.to_string()))?;
            if n_read == 0 {
                break;
            }
            blob.append(&buffer[..n_read])?;
            (self.tell)(Step::Has { n_bytes: blob.n_bytes(), size: file.size });
            if file.size.is_some_and(|size| blob.n_bytes() > size) {
                blob.restart()?;
                return Err(self.client.oddness(&what, "is longer than announced".to_owned()));
            }
        }
        if file.size.is_some_and(|size| blob.n_bytes() < size) {
            return Err(self.client.cut(&what, "the connection ended early"));
        }
        Ok(())
    }

    /// The answer that holds the bytes from where the blob ends; a blob that the server does not go
    /// on from is emptied.
    fn rest_of(
        &self,
        blob: &mut GrowingBlob,
        name: &str,
        file: &Described,
    ) -> Result<Answer, DownloadError> {
        let what = format!("`{name}`");
        let url = self.client.file_url(self.commit, name);
        let headers = going_on(blob.n_bytes(), file);
        let answer = self.client.ask(Verb::Get, &url, &headers, &what)?;
        match answer.status().as_u16() {
            200 if blob.n_bytes() > 0 => blob.restart()?,
            200 => {}
            206 if first_byte(&answer) == Some(blob.n_bytes()) => {}
            206 | 416 => {
                blob.restart()?;
                return Err(self.client.cut(&what, "the server sent another part of the file"));
            }
            _ => return Err(self.client.refusal(&answer, &what)),
        }
        if text(&answer, "content-encoding").is_some_and(|coding| coding != "identity") {
            return Err(self.client.oddness(&what, "is compressed".to_owned()));
        }
        Ok(answer)
    }
}

/// The headers that ask for the bytes from `n_bytes` on, if the file is still the one that the
/// bytes before belong to.
fn going_on(n_bytes: u64, file: &Described) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if n_bytes > 0 {
        headers.push(("Range", format!("bytes={n_bytes}-")));
        headers.extend(file.validator.clone().map(|etag| ("If-Range", etag)));
    }
    headers
}

/// Where the bytes of an answer begin in the file: `Content-Range: bytes 7-99/100`.
fn first_byte(answer: &Answer) -> Option<u64> {
    let range = text(answer, "content-range")?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}
