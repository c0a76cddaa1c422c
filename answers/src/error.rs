//! What can go wrong while a known answer is computed.

use eval::EvalError;

/// An error of a known answer. Messages complete "could not compute the known answer: …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// There is no known answer of this name.
    #[error("there is no known answer `{found}`")]
    Unknown {
        /// What was asked for.
        found: String,
        /// The name that is nearest to it, if one is near.
        nearest: Option<&'static str>,
    },
    /// A known answer about the world of postcards was asked of no base.
    #[error("known answer `{name}` is about a base and its evaluator, found none")]
    NoBase {
        /// Name of the known answer.
        name: &'static str,
    },
    /// The construction itself failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

impl AnswerError {
    /// Advice for the user, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest: Some(name), .. } => Some(format!("did you mean `{name}`?")),
            Self::Unknown { nearest: None, .. } => {
                Some("`populate census --kat list` shows all of them".to_owned())
            }
            Self::NoBase { .. } => Some("the embedded base `postcards` has both".to_owned()),
            Self::Eval(error) => error.hint(),
        }
    }
}
