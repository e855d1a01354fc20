//! Sessions and deliveries at work on a spool, telling what they begin and what was acknowledged.

use fingerpost::spool::Spool;
use fingerpost::spool::entry::{Entry, RecipientState, Record};
use fingerpost::time::UnixTime;

use crate::spool_store::fixture::{LARGE, change, changed, commit, delivered, message};
use support::power_loss::Numbers;

/// How much is done.
pub(crate) struct Work {
    /// Threads.
    pub(crate) threads: usize,
    /// Commits of each; `usize::MAX`: until killed.
    pub(crate) rounds: usize,
    /// Where the numbers begin.
    pub(crate) seed: u64,
    /// What becomes of the messages.
    pub(crate) kind: Kind,
}

/// What becomes of messages.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// More and more of them wait.
    Growing,
    /// Nearly all are over soon, two of each thread are deferred again and again: the log is made shorter all the time.
    Passing,
    /// The same beside some hundred that wait: what passed goes from the middle of the log.
    Behind,
}

impl Kind {
    /// From the environment of a process.
    pub(crate) fn given() -> Self {
        match std::env::var("SPOOL_KIND").as_deref() {
            Ok("passing") => Self::Passing,
            Ok("behind") => Self::Behind,
            _ => Self::Growing,
        }
    }

    /// For such a process.
    pub(crate) fn give(self, command: &mut std::process::Command) {
        let name = match self {
            Self::Growing => "growing",
            Self::Passing => "passing",
            Self::Behind => "behind",
        };
        command.env("SPOOL_KIND", name);
    }

    /// How many messages of each thread stay.
    fn stay(self) -> usize {
        match self {
            Self::Growing => 0,
            Self::Passing => 2,
            Self::Behind => 40,
        }
    }
}

/// Works. `note_down` gets each line of the journal, which `journal` reads: an intention before a commit, an acknowledgement
/// behind it.
pub(crate) fn work(spool: &dyn Spool, work: &Work, note_down: &(dyn Fn(&str) + Sync)) {
    std::thread::scope(|scope| {
        for thread in 0..work.threads {
            scope.spawn(move || {
                let mut numbers = Numbers(work.seed * 1000 + thread as u64 + 1);
                let mut waiting = Vec::new();
                for _ in 0..work.rounds {
                    if work.kind.stay() > 0 {
                        pass(spool, (&mut waiting, work.kind.stay()), &mut numbers, note_down);
                    } else if waiting.is_empty() || numbers.below(3) > 0 {
                        waiting.extend(take(spool, &mut numbers, note_down));
                    } else {
                        let at = numbers.below(waiting.len());
                        let mut entry = waiting.swap_remove(at);
                        finish(spool, &mut entry, &mut numbers, note_down);
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
    match numbers.below(40) {
        0 => LARGE + numbers.below(50_000) as u64,
        1 => numbers.below(100_000) as u64,
        _ => numbers.below(3_000) as u64,
    }
}

/// Takes some or ends one, and puts off one of those that stay.
fn pass(
    spool: &dyn Spool,
    (waiting, stay): (&mut Vec<Entry>, usize),
    numbers: &mut Numbers,
    note_down: &(dyn Fn(&str) + Sync),
) {
    while waiting.len() < stay + 6 {
        waiting.extend(take(spool, numbers, note_down));
    }
    let later = change(waiting[numbers.below(stay)].id, 0, RecipientState::due(UnixTime(numbers.below(1000) as u64)));
    commit(spool, changed(vec![later])).unwrap();
    let mut entry = waiting.swap_remove(stay + numbers.below(waiting.len() - stay));
    for (recipient, _) in entry.clone().recipients.iter().enumerate() {
        note_down(&format!("end {} {recipient}", entry.id));
        let change = delivered(entry.id, recipient);
        commit(spool, changed(vec![change.clone()])).unwrap();
        note_down(&format!("finished {} {recipient}", entry.id));
        entry.apply(&change);
    }
    assert!(entry.is_finished());
}

/// Takes one to three messages in one record.
fn take(spool: &dyn Spool, numbers: &mut Numbers, note_down: &(dyn Fn(&str) + Sync)) -> Vec<Entry> {
    let messages: Vec<_> =
        (0..1 + numbers.below(3)).map(|_| message(spool, size(numbers), 1 + numbers.below(3))).collect();
    let entries: Vec<_> = messages.iter().map(|(_, entry)| entry.clone()).collect();
    let names: Vec<_> = entries.iter().map(|e| format!("{}:{}:{}", e.id, e.content.size, e.recipients.len())).collect();
    note_down(&format!("accept {}", names.join(" ")));
    match commit(spool, Record { accepted: messages, changes: Vec::new() }) {
        Ok(()) => {
            note_down(&format!("accepted {}", entries[0].id));
            entries
        }
        Err(_) => Vec::new(),
    }
}

/// Ends one recipient, with a report in the same record.
fn finish(spool: &dyn Spool, entry: &mut Entry, numbers: &mut Numbers, note_down: &(dyn Fn(&str) + Sync)) {
    let recipient = entry.recipients.iter().position(|r| !matches!(r.state, RecipientState::Done(_))).unwrap();
    let (draft, report) = message(spool, size(numbers), 1);
    note_down(&format!("finish {} {recipient} {}:{}:1", entry.id, report.id, report.content.size));
    let change = delivered(entry.id, recipient);
    if commit(spool, Record { accepted: vec![(draft, report)], changes: vec![change.clone()] }).is_ok() {
        note_down(&format!("finished {} {recipient}", entry.id));
        entry.apply(&change);
    }
}
