//! A message of 34 MiB for two branches, one of them slow: the slow one is cut loose and finished from the spool, the
//! memory stays bounded, and no partial message is accepted anywhere.

use std::time::{Duration, Instant};

use crate::cut_through::fixture::{TwoHops, envelope, letter, say};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::test_node::TestNode;
use support::wait_until;

const LARGE: usize = 34 << 20;

/// What BDAT brings to both branches at once.
const SIX: usize = 6 << 20;

/// How much more memory the program may have used at any time: what two branches are apart, buffers and room to spare.
const BOUND: u64 = 16 << 20;

/// The most memory that it ever had, in octets (proc_pid_status(5): VmHWM).
fn most_memory(node: &TestNode) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The content that came last, without what was put in front of it.
fn came(hop: &ScriptedSmtpServer) -> Vec<u8> {
    let content = hop.contents().pop().unwrap();
    let at = memchr::memmem::find(&content, b"From: <ann@outside.test>").unwrap();
    content[at..].to_vec()
}

fn one_is_slow(script: &str) {
    let two = TwoHops::start("", "", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
    say(&mut raw, &format!("{}.", letter("small", 0)), "250");
    let (before, taken) = (most_memory(&two.network.node), two.secondary.taken().len());

    two.secondary.follow(script);
    let content = letter("large", LARGE);
    let begun = Instant::now();
    envelope(&mut raw, "ann@outside.test", &["p1@c.test", "s1@c.test"]);
    say(&mut raw, &format!("{content}."), "250");
    println!("{script}: accepted in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(60), "{script}: {:?}", begun.elapsed());
    assert_eq!(two.primary.taken().last().map(String::as_str), Some("p1@c.test"), "{script}");
    assert_eq!(two.secondary.taken().len(), taken, "{script}: it cannot have it yet");
    assert!(two.network.standing("s1@c.test").is_some(), "{script}: {:?}", two.network.queue());

    let cut_loose = || two.secondary.seen().iter().any(|seen| seen.partial > 0);
    two.secondary.follow("");
    wait_until("the slow one is cut loose", Duration::from_secs(60), cut_loose);
    two.network.deliver();
    assert_eq!(two.secondary.taken().last().map(String::as_str), Some("s1@c.test"), "{script}");
    assert_eq!(two.secondary.taken().len(), taken + 1, "{script}: once");
    assert!(came(&two.primary) == content.as_bytes(), "{script}: not what was sent");
    assert!(came(&two.secondary) == content.as_bytes(), "{script}: not what was sent");
    let more = most_memory(&two.network.node) - before;
    println!("{script}: {} KiB of memory more than for a small message", more / 1024);
    assert!(more <= BOUND, "{script}: {more} octets of memory more");
    assert!(two.network.senders.all().is_empty());
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
    let two = TwoHops::start("", "", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
    say(&mut raw, &format!("{}.", letter("small", 0)), "250");
    let before = most_memory(&two.network.node);
    let content = letter("large", LARGE);
    envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
    say(&mut raw, &format!("{content}."), "250");
    assert!(came(&two.primary) == content.as_bytes(), "not what was sent");
    let more = most_memory(&two.network.node) - before;
    println!("streamed: {} KiB of memory more than for a small message", more / 1024);
    assert!(more <= BOUND, "{more} octets of memory more");
    assert!(two.network.queue().is_empty());
}

/// A large body by BDAT for one on each side, at its end.
fn by_bdat(raw: &mut Raw, id: &str) -> String {
    say(raw, "MAIL FROM:<ann@outside.test>", "250");
    say(raw, "RCPT TO:<p0@c.test>", "250");
    say(raw, "RCPT TO:<s0@c.test>", "250");
    let content = letter(id, SIX);
    raw.send(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes());
    raw.reply().1
}

/// Branches that take what is there at their own steady pace are not apart for longer than the slower needs.
#[test]
fn two_that_take_their_time_both_have_it() {
    for (first, second) in [("every 4", "every 4"), ("every 4", "every 6")] {
        let two = TwoHops::start(&format!("content => {first}"), &format!("content => {second}"), "");
        let said = by_bdat(&mut two.stranger(), "steady");
        assert!(said.starts_with("250"), "{first}, {second}: {said}");
        assert_eq!((two.primary.taken(), two.secondary.taken()), (vec!["p0@c.test".into()], vec!["s0@c.test".into()]));
        assert!(two.network.queue().is_empty(), "{first}, {second}");
        let cut_loose: usize =
            [two.primary.seen(), two.secondary.seen()].concat().iter().map(|seen| seen.partial).sum();
        assert_eq!(cut_loose, 0, "{first}, {second}");
    }
}

#[test]
fn two_that_take_their_time_and_refuse_are_believed() {
    let refuse = "content => every 4\ndot => 554 5.7.1 looks like spam";
    let two = TwoHops::start(refuse, refuse, "");
    let mut raw = two.stranger();
    let said = by_bdat(&mut raw, "refused");
    assert!(said.starts_with("554 5.7.1") && said.contains("looks like spam"), "{said}");
    say(&mut raw, "NOOP", "250");
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty(), "the sender knows already");
}
