//! A message of 34 MiB for two branches, one of them slow: the slow one is cut loose and finished from the spool, the
//! memory stays bounded, and no partial message is accepted anywhere.

use std::time::{Duration, Instant};

use crate::ground::{Two, envelope, letter, say};
use crate::next_hop::NextHop;
use crate::support::fingerpost::Fingerpost;
use crate::support::wait_until;

const LARGE: usize = 34 << 20;

/// How much more memory the program may have used at any time: what two branches are apart, buffers and room to spare.
const BOUND: u64 = 16 << 20;

/// The most memory that it ever had, in octets (proc_pid_status(5): VmHWM).
fn most_memory(node: &Fingerpost) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The content that came last, without what was put in front of it.
fn came(hop: &NextHop) -> Vec<u8> {
    let content = hop.contents().pop().unwrap();
    let at = memchr::memmem::find(&content, b"From: <ann@outside.test>").unwrap();
    content[at..].to_vec()
}

fn one_is_slow(script: &str) {
    let two = Two::start("", "", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
    say(&mut raw, &format!("{}.", letter("small", 0)), "250");
    let (before, taken) = (most_memory(&two.town.node), two.secondary.taken().len());

    two.secondary.follow(script);
    let content = letter("large", LARGE);
    let begun = Instant::now();
    envelope(&mut raw, "ann@outside.test", &["p1@c.test", "s1@c.test"]);
    say(&mut raw, &format!("{content}."), "250");
    println!("{script}: accepted in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(60), "{script}: {:?}", begun.elapsed());
    assert_eq!(two.primary.taken().last().map(String::as_str), Some("p1@c.test"), "{script}");
    assert_eq!(two.secondary.taken().len(), taken, "{script}: it cannot have it yet");
    assert!(two.town.standing("s1@c.test").is_some(), "{script}: {:?}", two.town.queue());

    let cut_loose = || two.secondary.seen().iter().any(|seen| seen.partial > 0);
    two.secondary.follow("");
    wait_until("the slow one is cut loose", Duration::from_secs(60), cut_loose);
    two.town.deliver();
    assert_eq!(two.secondary.taken().last().map(String::as_str), Some("s1@c.test"), "{script}");
    assert_eq!(two.secondary.taken().len(), taken + 1, "{script}: once");
    assert!(came(&two.primary) == content.as_bytes(), "{script}: not what was sent");
    assert!(came(&two.secondary) == content.as_bytes(), "{script}: not what was sent");
    let more = most_memory(&two.town.node) - before;
    println!("{script}: {} KiB of memory more than for a small message", more / 1024);
    assert!(more <= BOUND, "{script}: {more} octets of memory more");
    assert!(two.town.senders.all().is_empty());
}

#[test]
fn one_branch_reads_a_byte_a_second() {
    one_is_slow("content => trickle");
}

#[test]
fn one_branch_freezes() {
    one_is_slow("content => wait");
}

#[test]
fn one_branch_alone_is_streamed() {
    let two = Two::start("", "", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
    say(&mut raw, &format!("{}.", letter("small", 0)), "250");
    let before = most_memory(&two.town.node);
    let content = letter("large", LARGE);
    envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
    say(&mut raw, &format!("{content}."), "250");
    assert!(came(&two.primary) == content.as_bytes(), "not what was sent");
    let more = most_memory(&two.town.node) - before;
    println!("streamed: {} KiB of memory more than for a small message", more / 1024);
    assert!(more <= BOUND, "{more} octets of memory more");
    assert!(two.town.queue().is_empty());
}
