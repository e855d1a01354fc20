//! Sessions and deliveries at work on a spool, telling what they begin and what was acknowledged.

use fingerpost::spool::Spool;
use fingerpost::spool::entry::{Entry, Record, State};

use crate::fixture::{commit, delivered, message};
use crate::power_loss::Numbers;

/// How much is done.
pub(crate) struct Work {
    /// Threads.
    pub(crate) threads: usize,
    /// Commits of each; `usize::MAX`: until killed.
    pub(crate) rounds: usize,
    /// Where the numbers begin.
    pub(crate) seed: u64,
}

/// Works. `tell` gets each line of the journal, which `journal` reads: an intention before a commit, an acknowledgement
/// behind it.
pub(crate) fn work(spool: &dyn Spool, work: &Work, tell: &(dyn Fn(&str) + Sync)) {
    std::thread::scope(|scope| {
        for thread in 0..work.threads {
            scope.spawn(move || {
                let mut numbers = Numbers(work.seed * 1000 + thread as u64 + 1);
                let mut waiting = Vec::new();
                for _ in 0..work.rounds {
                    if waiting.is_empty() || numbers.below(3) > 0 {
                        waiting.extend(take(spool, &mut numbers, tell));
                    } else {
                        let at = numbers.below(waiting.len());
                        let mut entry = waiting.swap_remove(at);
                        finish(spool, &mut entry, &mut numbers, tell);
                        if !entry.is_finished() {
                            waiting.push(entry);
                        }
                    }
                }
            });
        }
    });
}

fn size(numbers: &mut Numbers) -> u64 {
    let limit = if numbers.below(20) == 0 { 100_000 } else { 3_000 };
    numbers.below(limit) as u64
}

/// Takes one to three messages in one record.
fn take(spool: &dyn Spool, numbers: &mut Numbers, tell: &(dyn Fn(&str) + Sync)) -> Vec<Entry> {
    let messages: Vec<_> =
        (0..1 + numbers.below(3)).map(|_| message(spool, size(numbers), 1 + numbers.below(3))).collect();
    let entries: Vec<_> = messages.iter().map(|(_, entry)| entry.clone()).collect();
    let names: Vec<_> = entries.iter().map(|e| format!("{}:{}:{}", e.id, e.content.size, e.recipients.len())).collect();
    tell(&format!("accept {}", names.join(" ")));
    match commit(spool, Record { accepted: messages, changes: Vec::new() }) {
        Ok(()) => {
            tell(&format!("accepted {}", entries[0].id));
            entries
        }
        Err(_) => Vec::new(),
    }
}

/// Ends one recipient, with a report in the same record.
fn finish(spool: &dyn Spool, entry: &mut Entry, numbers: &mut Numbers, tell: &(dyn Fn(&str) + Sync)) {
    let recipient = entry.recipients.iter().position(|r| !matches!(r.state, State::Done(_))).unwrap();
    let (draft, report) = message(spool, size(numbers), 1);
    tell(&format!("finish {} {recipient} {}:{}:1", entry.id, report.id, report.content.size));
    let change = delivered(entry.id, recipient);
    if commit(spool, Record { accepted: vec![(draft, report)], changes: vec![change.clone()] }).is_ok() {
        tell(&format!("finished {} {recipient}", entry.id));
        entry.apply(&change);
    }
}
