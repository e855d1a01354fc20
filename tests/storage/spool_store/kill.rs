//! `kill -9` under load: everything acknowledged is there afterwards.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use crate::spool_store::fixture::{Open, STORES, again, found, given};
use crate::spool_store::journal::Journal;
use crate::spool_store::workload::{Kind, Work, work};
use support::power_loss::Numbers;

#[test]
#[ignore = "the process that kill_9_at_any_moment_loses_nothing kills"]
fn process() {
    let Some((open, folder)) = given() else { return };
    let spool = open(&folder).unwrap();
    println!(); // the test runner begins a line
    let seed = u64::from(std::process::id());
    let note_down = |line: &str| writeln!(std::io::stdout().lock(), "{line}").unwrap();
    work(&*spool, &Work { threads: 8, rounds: usize::MAX, seed, kind: Kind::given() }, &note_down);
}

#[test]
fn kill_9_at_any_moment_loses_nothing() {
    for (name, open) in STORES {
        kill(name, *open, Kind::Growing);
    }
}

#[test]
fn kill_9_while_the_log_is_made_shorter_loses_nothing() {
    let (name, open) = STORES[1];
    kill(name, open, Kind::Passing);
    kill(name, open, Kind::Behind);
}

fn kill(name: &str, open: Open, kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::default();
    let mut numbers = Numbers(4711);
    for round in 0..20 {
        let before = journal.acknowledged();
        let mut child = again("kill::process", name, folder.path());
        kind.give(&mut child);
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            for line in lines.map_while(Result::ok) {
                if line.starts_with("accepted") {
                    let _ = begun.send(());
                }
                read.push(line);
            }
            read
        });
        has_begun.recv_timeout(Duration::from_secs(60)).expect("something is acknowledged");
        // how long it runs is what is random here; nothing is waited for
        std::thread::sleep(Duration::from_micros(numbers.below(150_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap().iter().for_each(|line| journal.read(line));
        assert!(journal.acknowledged() > before);
        let spool = open(folder.path()).unwrap();
        journal.check(&*spool, &found(&*spool)).unwrap_or_else(|e| panic!("{name}, kill {round}: {e}"));
    }
    println!("{name}: {} messages acknowledged, 20 kills", journal.acknowledged());
}
