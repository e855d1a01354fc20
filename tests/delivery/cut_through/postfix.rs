//! Real Postfix on both sides, as part of the conversation: what it refuses, its users' senders hear while they are
//! connected, and nobody gets a bounce.

use std::time::Duration;

use crate::cut_through::fixture::{letter, say};
use support::postfix_systems::{Arrived, Changes, NodeDirectory, PostfixSystems};
use support::senders::Raw;
use support::wait_until;

/// Recipients that it has no mailbox for are refused, as a server does that is the last one.
const REFUSES_UNKNOWN: &str = "relay_recipient_maps = texthash:$virtual_mailbox_base/../etc/mailboxes\n";

/// Without a queue in front of the mail systems, each with further lines in its main.cf.
fn start_systems(primary: &str, secondary: &str) -> PostfixSystems {
    let primary = format!("{REFUSES_UNKNOWN}{primary}");
    let secondary = format!("{REFUSES_UNKNOWN}{secondary}");
    let replace = vec![("\"queue\"", "\"cut-through\"")];
    PostfixSystems::start_with(NodeDirectory::File, &Changes { replace, primary, secondary })
}

/// The replies to RCPTs, in order, and to the dot if any was accepted; all from one sender.
fn send(systems: &PostfixSystems, token: &str, to: &[(&str, &str)], dot: &str) {
    let mut raw = Raw::hello(systems.node.smtp);
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

fn arrives(systems: &PostfixSystems, token: &str, primary: &[&str], secondary: &[&str]) {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected = Arrived { primary: list(primary), secondary: list(secondary), outside: Vec::new() };
    systems.settle(token, &expected).unwrap_or_else(|why| panic!("{token}: {why}"));
}

#[test]
fn mixed_recipients_and_unknown_ones() {
    let systems = start_systems("", "");
    let (alice, sam) = ("alice@contoso.test", "sam@contoso.test");
    send(&systems, "mixed", &[(alice, "250"), (sam, "250")], "250");
    arrives(&systems, "mixed", &[alice], &[sam]);
    send(&systems, "unknown", &[("nobody@contoso.test", "550 5.1.1")], "");
    send(&systems, "partly", &[(alice, "250"), ("nobody@contoso.test", "550 5.1.1"), (sam, "250")], "250");
    arrives(&systems, "partly", &[alice], &[sam]);
    send(&systems, "partly-2", &[("nobody@contoso.test", "550 5.1.1"), ("susan@contoso.test", "250")], "250");
    arrives(&systems, "partly-2", &[], &["susan@contoso.test"]);
    assert!(systems.outside.all().is_empty(), "a bounce: {:?}", systems.outside.all());
    for action in ["failed", "delayed", "relayed"] {
        let count = systems.node.metric(&format!("fingerpost_dsn_total{{action=\"{action}\"}}"));
        assert_eq!(count, Some(0.0), "{action}");
    }
}

#[test]
fn its_refusals_are_the_senders() {
    let secondary = "smtpd_recipient_restrictions = check_recipient_access inline:{ \
                     {sam@contoso.test = 450 4.2.1 come again}, {susan@contoso.test = 554 5.7.1 not today} }\n\
                     smtpd_end_of_data_restrictions = check_client_access static:{REJECT of no interest}\n";
    let systems = start_systems("", secondary);
    let alice = "alice@contoso.test";
    send(&systems, "refused", &[("sam@contoso.test", "450 4.2.1"), ("susan@contoso.test", "554 5.7.1")], "");
    send(&systems, "content", &[("moved.away@contoso.test", "250")], "554 5.7.1");
    assert!(systems.outside.all().is_empty());
    // The primary has taken it: one report about the other.
    send(&systems, "content-both", &[(alice, "250"), ("moved.away@contoso.test", "250")], "250");
    wait_until("a report", Duration::from_secs(20), || !systems.outside.all().is_empty());
    let reports = systems.outside.all();
    let text = String::from_utf8_lossy(&reports[0].bytes).into_owned();
    assert!(
        reports.len() == 1 && text.contains("Status: 5.7.1") && text.replace("\r\n ", " ").contains("of no interest"),
        "{text}"
    );
    assert!(text.contains("Final-Recipient: rfc822; moved.away@contoso.test"), "{text}");
    wait_until("the other's copy", Duration::from_secs(20), || systems.primary.mails().len() == 1);
    assert!(systems.secondary.mails().is_empty());
}

#[test]
fn one_of_them_is_down() {
    let systems = start_systems("", "");
    let (alice, sam) = ("alice@contoso.test", "sam@contoso.test");
    systems.secondary.pause();
    send(&systems, "nobody-knows", &[(sam, "451 4.4.1")], "");
    send(&systems, "half", &[(alice, "250"), (sam, "451 4.4.1")], "250");
    arrives(&systems, "half", &[alice], &[]);
    systems.secondary.resume();
    wait_until("it is well again", Duration::from_secs(30), || {
        let mut raw = Raw::hello(systems.node.smtp);
        raw.say("MAIL FROM:<sender@sender.test>");
        raw.say(&format!("RCPT TO:<{sam}>")).0 == 250
    });
    send(&systems, "well", &[(alice, "250"), (sam, "250")], "250");
    arrives(&systems, "well", &[alice], &[sam]);

    systems.primary.pause();
    // The directory vouches for her.
    let mut raw = Raw::hello(systems.node.smtp);
    say(&mut raw, "MAIL FROM:<sender@sender.test>", "250");
    say(&mut raw, &format!("RCPT TO:<{alice}>"), "250");
    say(&mut raw, "DATA", "354");
    say(&mut raw, &format!("{}X-Journey: queued\r\n.", letter("queued", 0)), "250");
    // The gauge follows the queue, which hears of it after the sender.
    wait_until("it waits", Duration::from_secs(20), || systems.waiting() > 0.0);
    systems.primary.resume();
    wait_until("the queue", Duration::from_secs(60), || {
        systems.node.run(&["queue", "retry", "--all"]);
        systems.waiting() == 0.0
    });
    arrives(&systems, "queued", &[alice], &[]);
    assert!(systems.outside.all().is_empty());
}
