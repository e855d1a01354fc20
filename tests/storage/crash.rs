//! `kill -9` under load: every message that got its 250 arrives, whatever the moment.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::senders::{Letter, Raw};
use support::sink::Sink;
use support::two_systems::{FILE_DIRECTORY, TwoSystems, message, token};
use support::wait_until;

const KILLS: usize = 20;
const SENDERS: usize = 6;

#[test]
fn every_acknowledged_message_survives_kill_9_at_random_moments() {
    survives(TwoSystems::prepare(FILE_DIRECTORY));
}

/// Messages for both sides: what one side has and the other has not is in the spool, or nobody was told that it is sent.
#[test]
fn every_acknowledged_message_survives_kill_9_in_cut_through() {
    let systems = TwoSystems::prepare(FILE_DIRECTORY);
    let written = std::fs::read_to_string(systems.node.path("fingerpost.toml")).expect("it was written");
    assert!(written.contains("\"queue\""), "{written}");
    systems.node.write("fingerpost.toml", &written.replace("\"queue\"", "\"cut-through\""));
    survives(systems);
}

fn survives(mut systems: TwoSystems) {
    systems.node.start();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (server, acknowledged, over) = (systems.node.smtp, acknowledged.clone(), over.clone());
            std::thread::spawn(move || send_until(&over, server, sender, &acknowledged))
        })
        .collect();
    let mut moments = Moments(0x9e37_79b9_7f4a_7c15);
    for _ in 0..KILLS {
        let before = acknowledged.lock().expect("no panics").len();
        wait_until("mail flows", Duration::from_secs(20), || acknowledged.lock().expect("no panics").len() > before);
        let moment = Instant::now() + Duration::from_micros(moments.next() % 300_000);
        wait_until("the moment", Duration::from_secs(1), || Instant::now() >= moment);
        systems.node.kill();
        systems.node.start();
    }
    over.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().expect("senders do not panic");
    }
    let acknowledged = acknowledged.lock().expect("no panics").clone();
    wait_until("every acknowledged message", Duration::from_secs(60), || {
        let (primary, secondary) = (tokens(&systems.primary), tokens(&systems.secondary));
        acknowledged.iter().all(|token| primary.contains(token) && secondary.contains(token))
    });
    let copies = systems.copies();
    let twice = copies.values().filter(|copies| **copies > 2).count();
    println!(
        "{KILLS} kills, {} messages acknowledged, all arrived, {twice} of them more than once",
        acknowledged.len()
    );
    assert!(acknowledged.len() > KILLS, "the load was too small to prove anything");
}

/// Sends message after message over connections that break with every kill.
fn send_until(over: &AtomicBool, server: SocketAddr, sender: usize, acknowledged: &Mutex<Vec<String>>) {
    let mut sent = 0;
    while !over.load(Ordering::SeqCst) {
        let Some(mut raw) = Raw::try_hello(server) else {
            // While the node starts all senders together would leave it little of the processors.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        while !over.load(Ordering::SeqCst) {
            let token = format!("crash-{sender}-{sent}");
            sent += 1;
            let to = ["known", "other"].map(|side| format!("{side}{}@contoso.test", sent % 100));
            let letter = Letter { from: "s@sender.test", to: &[&to[0], &to[1]], bytes: &message(&token, 4096) };
            let (replies, last) = raw.transact(&letter, "");
            if last.is_none_or(|(code, _)| code != 250) || replies.iter().any(|(code, _)| *code != 250) {
                break; // the kill broke the connection in the midst of anything
            }
            acknowledged.lock().expect("no panics").push(token);
        }
    }
}

/// The messages that one side has.
fn tokens(side: &Sink) -> HashSet<String> {
    side.all().iter().map(token).collect()
}

/// Moments that differ from kill to kill and are the same in every run (xorshift).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
