//! Why the database cannot be used, or did not do what it was asked.

use tokio_postgres::error::SqlState;

#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be reached, or the connection broke.
    #[error("the database is away: {0}")]
    Away(String),
    /// It answered with an error.
    #[error("the database says: {text}")]
    Said { code: SqlState, text: String },
    /// It must not be used as it is; the text says what to do.
    #[error("the database cannot be used: {0}")]
    Unfit(String),
    /// This node's epoch was ended by another node, which has its mail now.
    #[error("another node has taken over: this one was not heard of for too long")]
    Ended,
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) => {
                let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
                Self::Said { code: said.code().clone(), text: format!("{}{detail}", said.message()) }
            }
            None => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Self::Away(format!("{error}{cause}"))
            }
        }
    }
}

impl DatabaseError {
    /// Whether it has no room: 53100 and its class.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Said { code, .. } if *code == SqlState::DISK_FULL)
    }

    /// Whether it says that what it has stored is damaged: class XX.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Said { code, .. } if code.code().starts_with("XX"))
    }

    /// Whether the role has no right to it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Said { code, .. } if *code == SqlState::INSUFFICIENT_PRIVILEGE)
    }
}

/// Why a host was not used.
pub(super) struct Failed {
    pub(super) host: String,
    pub(super) error: DatabaseError,
}

/// What several hosts said.
pub(super) fn all(mut failed: Vec<Failed>) -> DatabaseError {
    match failed.as_slice() {
        [_] => failed.remove(0).error,
        several => {
            let said = several.iter().map(|Failed { host, error }| match error {
                DatabaseError::Away(why) => format!("{host}: {why}"),
                error => format!("{host}: {error}"),
            });
            DatabaseError::Away(said.collect::<Vec<_>>().join("; "))
        }
    }
}
