//! Real Postfix on both sides, as part of the conversation: what it refuses, its users' senders hear while they are
//! connected, and nobody gets a bounce.

use std::time::Duration;

use crate::cut_through::ground::{letter, say};
use support::journey::{Arrived, Changes, World, WorldKind};
use support::senders::Raw;
use support::wait_until;

/// Recipients that it has no mailbox for are refused, as a server does that is the last one.
const REFUSES_UNKNOWN: &str = "relay_recipient_maps = texthash:$virtual_mailbox_base/../etc/mailboxes\n";

/// A world without a queue in front of the mail systems, each with further lines in its main.cf.
fn world(primary: &str, secondary: &str) -> World {
    let primary = format!("{REFUSES_UNKNOWN}{primary}");
    let secondary = format!("{REFUSES_UNKNOWN}{secondary}");
    let replace = vec![("\"queue\"", "\"cut-through\"")];
    World::start_with(WorldKind::File, &Changes { replace, primary, secondary })
}

/// The replies to RCPTs, in order, and to the dot if any was accepted; all from one sender.
fn send(world: &World, token: &str, to: &[(&str, &str)], dot: &str) {
    let mut raw = Raw::hello(world.node.smtp);
    say(&mut raw, "MAIL FROM:<sender@sender.test>", "250");
    for (to, expected) in to {
        say(&mut raw, &format!("RCPT TO:<{to}>"), expected);
    }
    if dot.is_empty() {
        say(&mut raw, "DATA", "554");
    } else {
        say(&mut raw, "DATA", "354");
        say(&mut raw, &format!("{}X-Journey: {token}\r\n.", letter(token, 0)), dot);
    }
}

fn arrives(world: &World, token: &str, primary: &[&str], secondary: &[&str]) {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected = Arrived { primary: list(primary), secondary: list(secondary), outside: Vec::new() };
    world.settle(token, &expected).unwrap_or_else(|why| panic!("{token}: {why}"));
}

#[test]
fn mixed_recipients_and_unknown_ones() {
    let world = world("", "");
    let (alice, sam) = ("alice@contoso.test", "sam@contoso.test");
    send(&world, "mixed", &[(alice, "250"), (sam, "250")], "250");
    arrives(&world, "mixed", &[alice], &[sam]);
    send(&world, "unknown", &[("nobody@contoso.test", "550 5.1.1")], "");
    send(&world, "partly", &[(alice, "250"), ("nobody@contoso.test", "550 5.1.1"), (sam, "250")], "250");
    arrives(&world, "partly", &[alice], &[sam]);
    send(&world, "partly-2", &[("nobody@contoso.test", "550 5.1.1"), ("susan@contoso.test", "250")], "250");
    arrives(&world, "partly-2", &[], &["susan@contoso.test"]);
    assert!(world.outside.all().is_empty(), "a bounce: {:?}", world.outside.all());
    for action in ["failed", "delayed", "relayed"] {
        let count = world.node.metric(&format!("fingerpost_dsn_total{{action=\"{action}\"}}"));
        assert_eq!(count, Some(0.0), "{action}");
    }
}

#[test]
fn its_refusals_are_the_senders() {
    let secondary = "smtpd_recipient_restrictions = check_recipient_access inline:{ \
                     {sam@contoso.test = 450 4.2.1 come again}, {susan@contoso.test = 554 5.7.1 not today} }\n\
                     smtpd_end_of_data_restrictions = check_client_access static:{REJECT of no interest}\n";
    let world = world("", secondary);
    let alice = "alice@contoso.test";
    send(&world, "refused", &[("sam@contoso.test", "450 4.2.1"), ("susan@contoso.test", "554 5.7.1")], "");
    send(&world, "content", &[("moved.away@contoso.test", "250")], "554 5.7.1");
    assert!(world.outside.all().is_empty());
    // The primary has taken it: one report about the other.
    send(&world, "content-both", &[(alice, "250"), ("moved.away@contoso.test", "250")], "250");
    wait_until("a report", Duration::from_secs(20), || !world.outside.all().is_empty());
    let reports = world.outside.all();
    let text = String::from_utf8_lossy(&reports[0].bytes).into_owned();
    assert!(
        reports.len() == 1 && text.contains("Status: 5.7.1") && text.replace("\r\n ", " ").contains("of no interest"),
        "{text}"
    );
    assert!(text.contains("Final-Recipient: rfc822; moved.away@contoso.test"), "{text}");
    wait_until("the other's copy", Duration::from_secs(20), || world.primary.mails().len() == 1);
    assert!(world.secondary.mails().is_empty());
}

#[test]
fn one_of_them_is_down() {
    let world = world("", "");
    let (alice, sam) = ("alice@contoso.test", "sam@contoso.test");
    world.secondary.pause();
    send(&world, "nobody-knows", &[(sam, "451 4.4.1")], "");
    send(&world, "half", &[(alice, "250"), (sam, "451 4.4.1")], "250");
    arrives(&world, "half", &[alice], &[]);
    world.secondary.resume();
    wait_until("it is well again", Duration::from_secs(30), || {
        let mut raw = Raw::hello(world.node.smtp);
        raw.say("MAIL FROM:<sender@sender.test>");
        raw.say(&format!("RCPT TO:<{sam}>")).0 == 250
    });
    send(&world, "well", &[(alice, "250"), (sam, "250")], "250");
    arrives(&world, "well", &[alice], &[sam]);

    world.primary.pause();
    // The directory vouches for her.
    let mut raw = Raw::hello(world.node.smtp);
    say(&mut raw, "MAIL FROM:<sender@sender.test>", "250");
    say(&mut raw, &format!("RCPT TO:<{alice}>"), "250");
    say(&mut raw, "DATA", "354");
    say(&mut raw, &format!("{}X-Journey: queued\r\n.", letter("queued", 0)), "250");
    // The gauge follows the queue, which hears of it after the sender.
    wait_until("it waits", Duration::from_secs(20), || world.waiting() > 0.0);
    world.primary.resume();
    wait_until("the queue", Duration::from_secs(60), || {
        world.node.run(&["queue", "retry", "--all"]);
        world.waiting() == 0.0
    });
    arrives(&world, "queued", &[alice], &[]);
    assert!(world.outside.all().is_empty());
}
