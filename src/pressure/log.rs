//! Logs and metrics of back-pressure.

use super::weigh::{Bounds, Figures, Levels, TurnedAway, Want};
use crate::metrics::Metrics;

/// Sets the gauges.
pub(super) fn measure(metrics: &Metrics, figures: &Figures, levels: Levels) {
    let none: &[&str] = &[];
    let set = |gauge: &prometheus::IntGaugeVec, value: u64| {
        gauge.with_label_values(none).set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    set(&metrics.spool_free, figures.free);
    if let Some(memory) = figures.memory {
        set(&metrics.memory_anonymous, memory.anonymous);
        set(&metrics.memory_limit, memory.limit);
    }
    if let Some(inodes) = figures.inodes {
        set(&metrics.spool_free_inodes, inodes.free);
    }
    for want in Want::ALL {
        for (label, level) in TurnedAway::LABELS {
            let is_on = levels.of(want) >= level;
            metrics.back_pressure.with_label_values(&[want.as_str(), label]).set(is_on.into());
        }
    }
}

/// Logs a line for each resource whose level has changed.
pub(super) fn changes(figures: &Figures, bounds: Bounds, before: Levels, now: Levels) {
    for want in Want::ALL {
        if before.of(want) != now.of(want) {
            change(want, figures, bounds, now.of(want));
        }
    }
}

fn change(want: Want, figures: &Figures, bounds: Bounds, now: TurnedAway) {
    let reason = want.as_str();
    let numbers = numbers(want, figures, bounds);
    let (what, cure) = match want {
        Want::Disk => ("the disk is nearly full", "free some space, or lower [spool] min_free"),
        Want::Memory => (
            "the queue takes most of the memory there is",
            "`fingerpost status` says what waits, and for whom; get that next hop going, or give the service more memory",
        ),
        Want::Inodes => (
            "the file system of state_dir can hold few more files",
            "remove files from it, or give state_dir a file system with more inodes",
        ),
        Want::Messages => (
            "[spool] max_messages wait",
            "`fingerpost status` says for whom; get that next hop going, or raise the key",
        ),
    };
    match now {
        TurnedAway::Everybody => {
            tracing::error!(reason, "{what} ({numbers}): new mail is turned away with 452 4.3.1; {cure}");
        }
        TurnedAway::Strangers => tracing::warn!(
            reason,
            "{what} ({numbers}): strangers' mail is turned away with 452 4.3.1, that of our organisations is taken; {cure}"
        ),
        TurnedAway::Nobody => tracing::info!(reason, "there is room again ({numbers}): new mail is taken"),
    }
}

/// The compared figures, in octets.
fn numbers(want: Want, figures: &Figures, bounds: Bounds) -> String {
    let messages = figures.messages;
    match (want, figures.memory, figures.inodes) {
        (Want::Memory, Some(memory), _) => format!(
            "{} octets of {}, or what a start with {messages} messages would take; strangers up to {}, others up to {}; up to {} \
             messages may wait in any case",
            memory.counted(messages),
            memory.limit,
            memory.strangers_at(),
            memory.everybody_at(),
            memory.always()
        ),
        (Want::Inodes, _, Some(inodes)) => {
            format!(
                "{} inodes free, strangers down to {}, others down to {}",
                inodes.free,
                inodes.least() * 2,
                inodes.least()
            )
        }
        (Want::Messages, ..) => match bounds.max_messages {
            Some(most) => {
                format!("{messages} messages, strangers up to {most}, others up to {}", most.saturating_add(most / 8))
            }
            None => format!("{messages} messages, no limit"),
        },
        (Want::Disk, ..) => format!("{} octets free, min_free is {}", figures.free, bounds.min_free),
        (Want::Memory | Want::Inodes, ..) => "nobody knows how much".to_owned(),
    }
}
