//! What keeps us from starting, or will: what is found, and what to do. The start refuses with it, and `check` shows it
//! before.

use std::fmt;

/// One thing that is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What is found, and where.
    pub found: String,
    /// What to do about it.
    pub cure: String,
}

impl Obstacle {
    /// Puts it together.
    #[must_use]
    pub fn new(found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { found: found.into(), cure: cure.into() }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found, self.cure)
    }
}

impl From<Obstacle> for String {
    fn from(obstacle: Obstacle) -> Self {
        obstacle.to_string()
    }
}
