//! What is wrong with a value that an operator wrote. `reader` puts the key before it, and notes its place.

use crate::smtp::domain::DomainError;

/// What is wrong with a value, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl From<String> for ValueError {
    fn from(words: String) -> Self {
        Self::Other(words)
    }
}

impl From<&str> for ValueError {
    fn from(words: &str) -> Self {
        Self::Other(words.to_owned())
    }
}
