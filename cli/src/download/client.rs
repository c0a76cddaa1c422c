//! Requests to the hub. The token goes to the hub alone: not to where it sends us for the bytes.

use std::net::IpAddr;
use std::time::Duration;

use checkpoints::hub::is_sha256;
use ureq::http::{HeaderValue, Response, Uri};
use ureq::{Agent, Body, Proxy};

use super::ATTEMPTS;
use super::error::{DownloadError, TokenGiven};

/// Steps from one address to the next.
const MAX_REDIRECTS: usize = 10;
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// A connection that stands still for so long is given up; the transfer then goes on in another.
const STILL_FOR: Duration = Duration::from_mins(1);

const LINKED_ETAG: &str = "x-linked-etag";
const LINKED_SIZE: &str = "x-linked-size";

pub(super) type Answer = Response<Body>;

/// Where the hub is and how it is asked.
#[derive(Clone, Copy)]
pub(super) struct Access<'a> {
    /// Its address, without a slash at the end.
    pub(super) endpoint: &'a str,
    /// The user's token.
    pub(super) token: Option<&'a str>,
    /// Before the second attempt at what failed.
    pub(super) pause: Duration,
}

/// How something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// What the hub says of it.
    Head,
    /// Its bytes.
    Get,
}

/// What the hub says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The name of its bytes; of large files their sha256.
    pub(super) etag: String,
    /// How many bytes there are, if the hub says so.
    pub(super) size: Option<u64>,
    /// The `ETag` as the server of the bytes writes it. Absent where another server sends the bytes
    /// (its `ETag` is another one); those files are checked by their sha256 instead.
    pub(super) validator: Option<String>,
}

/// Speaks with the hub about one model.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    hub: Origin,
    repo: String,
    token: Option<HeaderValue>,
    pause: Duration,
}

impl Client {
    /// A client that has not yet spoken.
    ///
    /// # Errors
    ///
    /// An address or a token that cannot be used.
    pub(super) fn new(access: Access<'_>, repo: &str) -> Result<Self, DownloadError> {
        let hub = Origin::of(access.endpoint).ok_or(DownloadError::Endpoint)?;
        let token = match access.token {
            None => None,
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value = value.map_err(|_| DownloadError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let config = Agent::config_builder()
            .user_agent(concat!("populate/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .https_only(hub.scheme == "https")
            .proxy(if hub.is_this_machine() { None } else { Proxy::try_from_env() })
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_recv_response(Some(ANSWER_WITHIN))
            .timeout_per_read(Some(STILL_FOR))
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            endpoint: access.endpoint.to_owned(),
            hub,
            repo: repo.to_owned(),
            token,
            pause: access.pause,
        })
    }

    /// Where the hub lists the files of a revision.
    pub(super) fn listing_url(&self, revision: &str) -> String {
        let revision = escaped(revision, Slashes::Escaped);
        format!("{}/api/models/{}/revision/{revision}", self.endpoint, self.repo)
    }

    /// Where the hub has a file of a commit.
    pub(super) fn file_url(&self, commit: &str, name: &str) -> String {
        let name = escaped(name, Slashes::Kept);
        format!("{}/{}/resolve/{commit}/{name}", self.endpoint, self.repo)
    }

    /// Asks the hub about a file.
    ///
    /// Source: `get_hf_file_metadata` of `huggingface_hub`.
    ///
    /// # Errors
    ///
    /// A refusal; an answer without an `ETag`.
    pub(super) fn describe(&self, commit: &str, name: &str) -> Result<Described, DownloadError> {
        let what = format!("`{name}`");
        let url = self.file_url(commit, name);
        self.patiently(&mut || {
            let answer = self.ask(Verb::Head, &url, &[], &what)?;
            let linked = text(&answer, LINKED_ETAG);
            let status = answer.status();
            if !(status.is_success() || status.is_redirection() && linked.is_some()) {
                return Err(self.refusal(&answer, &what));
            }
            let Some(raw) = linked.or_else(|| text(&answer, "etag")) else {
                return Err(self.oddness(&what, "has no ETag".to_owned()));
            };
            let etag = raw.trim_start_matches("W/").trim_matches('"').to_owned();
            let is_own = linked.is_none() && raw.starts_with('"') && !is_sha256(&etag);
            let own_size = text(&answer, "content-length").filter(|_| status.is_success());
            let size = text(&answer, LINKED_SIZE).or(own_size).and_then(|size| size.parse().ok());
            Ok(Described { validator: is_own.then(|| raw.to_owned()), etag, size })
        })
    }

    /// One question, through all redirections. A description of bytes that lie elsewhere is an
    /// answer: nothing is asked there.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Network`]. Any status is an answer.
    pub(super) fn ask(
        &self,
        verb: Verb,
        url: &str,
        headers: &[(&'static str, String)],
        what: &str,
    ) -> Result<Answer, DownloadError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask_once(verb, &url, headers);
            let answer = answer.map_err(|error| self.failure(&error, what))?;
            let Some(next) = redirection(&answer, &url) else { return Ok(answer) };
            let is_described = verb == Verb::Head && text(&answer, LINKED_ETAG).is_some();
            if is_described && !self.is_hub(&next) {
                return Ok(answer);
            }
            if self.hub.scheme == "https" && !next.starts_with("https://") {
                let reason = "leads away from https".to_owned();
                return Err(self.oddness(what, reason));
            }
            url = next;
        }
        Err(self.oddness(what, format!("leads on more than {MAX_REDIRECTS} times")))
    }

    fn ask_once(
        &self,
        verb: Verb,
        url: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, ureq::Error> {
        let mut request = match verb {
            Verb::Head => self.agent.head(url),
            Verb::Get => self.agent.get(url),
        };
        for (name, value) in headers {
            request = request.header(*name, value.as_str());
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header("Authorization", token.clone());
        }
        request.call()
    }

    fn is_hub(&self, url: &str) -> bool {
        Origin::of(url).is_some_and(|origin| origin == self.hub)
    }

    /// Repeats what failed for a reason that passes, a few times.
    ///
    /// # Errors
    ///
    /// The last failure.
    pub(super) fn patiently<T>(
        &self,
        attempt: &mut dyn FnMut() -> Result<T, DownloadError>,
    ) -> Result<T, DownloadError> {
        let mut n_failures = 0;
        loop {
            match attempt() {
                Err(error) if error.passes() && n_failures + 1 < ATTEMPTS => {
                    n_failures += 1;
                    self.rest(n_failures);
                }
                ended => return ended,
            }
        }
    }

    /// Waits before the next attempt.
    pub(super) fn rest(&self, n_failures: u32) {
        std::thread::sleep(self.pause * 2_u32.pow(n_failures.saturating_sub(1)));
    }

    /// The model's page, for people.
    fn page(&self) -> String {
        format!("{}/{}", self.endpoint, self.repo)
    }

    /// The error of an answer that brings nothing.
    pub(super) fn refusal(&self, answer: &Answer, what: &str) -> DownloadError {
        DownloadError::Status {
            what: what.to_owned(),
            page: self.page(),
            status: answer.status().as_u16(),
            token: if self.token.is_some() { TokenGiven::Yes } else { TokenGiven::No },
        }
    }

    /// The error of a question without an answer.
    pub(super) fn failure(&self, error: &ureq::Error, what: &str) -> DownloadError {
        // The texts of these two hold the address, which may carry a signature.
        let reason = if let ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) = error {
            "the hub leads to an address that is none".to_owned()
        } else {
            error.to_string()
        };
        self.cut(what, &reason)
    }

    /// The error of a connection that broke.
    pub(super) fn cut(&self, what: &str, reason: &str) -> DownloadError {
        let reason = reason.to_owned();
        DownloadError::Network { what: what.to_owned(), page: self.page(), reason }
    }

    /// The error of an answer that makes no sense.
    pub(super) fn oddness(&self, what: &str, reason: String) -> DownloadError {
        DownloadError::Answer { what: what.to_owned(), page: self.page(), reason }
    }
}

/// Whom an address belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for what is no address of the web, and for one with a user in it.
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { port: uri.port_u16().unwrap_or(usual), scheme, host })
    }

    /// No proxy stands between a machine and itself.
    fn is_this_machine(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// A header of an answer, if it is text.
pub(super) fn text<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Where an answer leads on to.
fn redirection(answer: &Answer, url: &str) -> Option<String> {
    let leads_on = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = text(answer, "location").filter(|_| leads_on)?;
    joined(url, location)
}

/// The address that `location` means on a page of `url`: a whole address, one without its scheme,
/// or a path from the root.
fn joined(url: &str, location: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    if location.starts_with("http://") || location.starts_with("https://") {
        Some(location.to_owned())
    } else if location.starts_with("//") {
        Some(format!("{scheme}:{location}"))
    } else if location.starts_with('/') {
        Some(format!("{scheme}://{host}{location}"))
    } else {
        None
    }
}

/// What becomes of slashes in a part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slashes {
    /// They divide parts.
    Kept,
    /// They belong to one part.
    Escaped,
}

/// Text as a part of an address.
fn escaped(text: &str, slashes: Slashes) -> String {
    let written = |byte: u8| {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_plain || (byte == b'/' && slashes == Slashes::Kept) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = Origin::of("https://huggingface.co").unwrap();
        assert_eq!(Origin::of("https://HuggingFace.co:443/a/b?c=d").unwrap(), hub);
        for other in [
            "http://huggingface.co",
            "https://huggingface.co:8443",
            "https://cdn-lfs.huggingface.co/x",
            "https://huggingface.co.evil.org/",
        ] {
            assert_ne!(Origin::of(other), Some(hub.clone()), "{other}");
        }
        for none in ["huggingface.co", "ftp://huggingface.co", "https://", "https://me:pw@host/"] {
            assert_eq!(Origin::of(none), None, "{none}");
        }
        assert!(Origin::of("http://127.0.0.1:80").unwrap().is_this_machine());
        assert!(Origin::of("http://[::1]:80").unwrap().is_this_machine());
        assert!(!hub.is_this_machine());
    }

    #[test]
    fn a_redirection_is_read_from_the_page_it_stands_on() {
        let page = "https://hub.org:8443/org/name/resolve/main/x?y=z";
        let next = |location| joined(page, location);
        let elsewhere = "https://cdn.org/blob?sig=1";
        assert_eq!(next(elsewhere).as_deref(), Some(elsewhere));
        assert_eq!(next("/org/new/x").as_deref(), Some("https://hub.org:8443/org/new/x"));
        assert_eq!(next("//cdn.org/x").as_deref(), Some("https://cdn.org/x"));
        assert_eq!(next("x"), None);
        assert_eq!(next("ftp://cdn.org/x"), None);
    }

    #[test]
    fn names_are_escaped_as_parts_of_an_address() {
        assert_eq!(escaped("refs/pr/1", Slashes::Escaped), "refs%2Fpr%2F1");
        assert_eq!(escaped("unet/a b+ü.json", Slashes::Kept), "unet/a%20b%2B%C3%BC.json");
    }
}
