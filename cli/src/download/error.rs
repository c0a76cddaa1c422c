//! Why a model could not be fetched, in words without the token and without signed addresses.

use checkpoints::hub::HubError;

use crate::exit::{self, Exit};

/// Whether a token was at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenGiven {
    /// Requests to the hub carried it.
    Yes,
    /// There is none.
    No,
}

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The address of the hub is none.
    #[error("`HF_ENDPOINT` is no address of a hub, expected one such as `https://huggingface.co`")]
    Endpoint,
    /// The token cannot be sent.
    #[error("the token for the hub holds characters that no request can carry")]
    Token,
    /// The hub refuses.
    #[error("could not fetch {what} of {page}: {}", refusal(*status, *token))]
    Status {
        /// What was asked for.
        what: String,
        /// The model's page on the hub.
        page: String,
        /// The answer's number.
        status: u16,
        /// Whether a token was at hand.
        token: TokenGiven,
    },
    /// The hub could not be reached, or the connection broke.
    #[error("could not fetch {what} of {page}: {reason}")]
    Network {
        /// What was asked for.
        what: String,
        /// The model's page on the hub.
        page: String,
        /// What happened.
        reason: String,
    },
    /// The hub says something that makes no sense.
    #[error("could not fetch {what} of {page}: the answer {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// The model's page on the hub.
        page: String,
        /// What is odd about the answer.
        reason: String,
    },
    /// What was fetched is not what it should be, or the disk failed.
    #[error(transparent)]
    Cache(#[from] HubError),
}

fn refusal(status: u16, token: TokenGiven) -> String {
    let words = match (status, token) {
        (401, TokenGiven::No) => "the hub asks for a token",
        (401, TokenGiven::Yes) => "the hub does not know the token, or the model",
        (403, _) => "the hub refuses access",
        (404, _) => "the hub has no such thing",
        (408 | 429, _) => "the hub asks for patience",
        (500..=599, _) => "the hub failed",
        _ => "the hub gave no file",
    };
    format!("{words} (HTTP {status})")
}

impl DownloadError {
    /// Whether the same may succeed a little later.
    pub(super) const fn passes(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Status { status, .. } => matches!(*status, 408 | 429 | 500..=599),
            Self::Endpoint | Self::Token | Self::Answer { .. } | Self::Cache(_) => false,
        }
    }

    /// How the program ends.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Endpoint | Self::Token => Exit::Misconfigured,
            Self::Status { status, .. } => match *status {
                401 | 403 => Exit::Misconfigured,
                404 => Exit::Usage,
                _ => Exit::Unavailable,
            },
            Self::Network { .. } => Exit::Unavailable,
            Self::Answer { .. } => Exit::Data,
            Self::Cache(error) => exit::from_hub(error),
        }
    }

    /// Advice, where there is some.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Endpoint => Some("unset `HF_ENDPOINT` to use the public hub".to_owned()),
            Self::Token => Some("check `HF_TOKEN`, or log in again: `hf auth login`".to_owned()),
            Self::Status { status: 401, page, .. } => Some(format!(
                "check the model's name; if it is private or asks for consent: accept its licence \
                 at {page}, then set `HF_TOKEN` or log in with `hf auth login`"
            )),
            Self::Status { status: 403, page, .. } => Some(format!(
                "accept the licence at {page} with the account of the token, and let the token \
                 read gated models"
            )),
            Self::Status { status: 404, .. } => Some(
                "check the names of model, file and revision: `hf:org/name[/file][@revision]`"
                    .to_owned(),
            ),
            Self::Status { .. } | Self::Network { .. } => {
                Some("try again later: what was fetched is kept and gone on from".to_owned())
            }
            Self::Answer { .. } => Some("is `HF_ENDPOINT` the address of a hub?".to_owned()),
            Self::Cache(error) => error.hint(),
        }
    }
}
