//! What prevents a start: a fault and its remedy. The start refuses with it, and `check` reports it.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The fault, and where it is.
    pub found: String,
    /// The remedy.
    pub cure: String,
}

impl Obstacle {
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
