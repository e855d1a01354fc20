//! Counts the temporary memory of a refresh: while a directory is read again, the previous content is still in use.
//! Back-pressure subtracts it from our memory. It is an estimate, since the size is unknown before the directory has
//! been read.

use prometheus::IntGauge;

use crate::metrics::Metrics;

/// A second copy that is being made, until it is dropped.
pub(super) struct Refreshing {
    gauge: IntGauge,
    octets: i64,
}

impl Refreshing {
    /// Begins a copy of approximately this many octets at most.
    pub(super) fn begin(metrics: &Metrics, octets: usize) -> Self {
        let gauge = metrics.directory_refresh.with_label_values::<&str>(&[]);
        let octets = i64::try_from(octets).unwrap_or(i64::MAX);
        gauge.add(octets);
        Self { gauge, octets }
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.gauge.sub(self.octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_for_the_moment_is_told_as_long() {
        let metrics = Metrics::new();
        let told = || metrics.directory_refresh.with_label_values::<&str>(&[]).get();
        let (one, other) = (Refreshing::begin(&metrics, 1000), Refreshing::begin(&metrics, 10));
        assert_eq!(told(), 1010);
        drop(one);
        assert_eq!(told(), 10);
        drop(other);
        assert_eq!(told(), 0);
    }
}
