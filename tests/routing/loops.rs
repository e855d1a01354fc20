//! Loops between real mail systems (DESIGN section 6): each is broken once, with one clear report to the sender,
//! whatever the other system strips; and what is no loop passes.

use std::net::Ipv4Addr;
use std::time::Duration;

use fingerpost::keys;
use fingerpost::message::header;
use fingerpost::message::stamp::{self, NewStamp};
use fingerpost::smtp::address::Address;
use fingerpost::time::UnixTime;
use support::postfix_systems::{Arrived, Changes, NodeDirectory, PostfixSystems};
use support::senders::{Letter, Raw};
use support::wait_until;

const SECONDARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const PRIMARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The configuration's organisation of the secondary's hosts, and what it may become.
const ORGANISED: &str = "remote_networks = [\"127.0.0.3/32\"]\norganization    = \"secondary\"";
const RESOLVES_FIRST: &str =
    "remote_networks = [\"127.0.0.3/32\"]\norganization    = \"secondary\"\nresolves_first = true";
const NOT_ORGANISED: &str = "remote_networks = [\"127.0.0.3/32\"]";

/// How the secondary's connector delivers, and what stands there where it is part of the conversation.
const QUEUED: &str = "delivery       = \"queue\"\naddress_spaces = [{ domain = \"contoso.test\" }, ";
const CUT_THROUGH: &str = "address_spaces = [{ domain = \"contoso.test\" }, ";

#[test]
fn an_address_that_nobody_has_goes_round_once_and_is_reported_once() {
    for (stripping, checks, extra_copies) in [
        ("nothing", "", 1),
        ("the stamp", "/^Fingerpost-Route:/ IGNORE\n", 1),
        ("Received", "/^Received:/ IGNORE\n", 1),
        ("both", "/^Fingerpost-Route:/ IGNORE\n/^Received:/ IGNORE\n", 2),
    ] {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), checks).expect("writable");
        let secondary = format!("header_checks = regexp:{}", file.path().display());
        let mut systems = PostfixSystems::start_with(NodeDirectory::File, &Changes { secondary, ..Changes::default() });
        for (configured, receive) in
            [("organised", ORGANISED), ("resolves-first", RESOLVES_FIRST), ("not-organised", NOT_ORGANISED)]
        {
            systems.configure(&[(ORGANISED, receive)]);
            let token = format!("loop-{}-{configured}", stripping.replace(' ', "-"));
            let before = relayed(&systems);
            send(&mut Raw::hello(systems.node.smtp), &token, "sender@sender.test", &["nobody@contoso.test"]);
            let reported = Arrived { outside: vec!["sender@sender.test".into()], ..Arrived::default() };
            systems.settle(&token, &reported).unwrap_or_else(|why| panic!("{token}: {why}"));
            wait_until("the relay is counted", Duration::from_secs(5), || relayed(&systems) > before);
            let copies = relayed(&systems) - before;
            println!("stripped: {stripping}; {configured}: the secondary took it {copies} times, one report");
            assert!(copies <= 1.0 + f64::from(extra_copies), "{token}: the secondary took it {copies} times");
            if configured == "resolves-first" {
                assert!((copies - 1.0).abs() < 0.5, "{token}: the loop was to be broken before it began");
            }
        }
    }
}

/// A system that returns everything as a new message of its own: what it leaves of the old one ends the loop.
struct Rewriter {
    /// What it does.
    does: &'static str,
    /// What it does to header fields, for Postfix. It adds the Message-ID and Date that are missing then.
    checks: &'static str,
    /// Which rule ends it.
    rule: &'static str,
    /// How often it may take the message.
    most: f64,
}

const REWRITERS: &[Rewriter] = &[
    Rewriter {
        does: "a new Message-ID, and the subject grows",
        checks: "/^Message-ID:/ IGNORE\n/^Subject: (.*)$/ REPLACE Subject: again $1\n",
        rule: "passes",
        most: 9.0,
    },
    Rewriter {
        does: "all that a stamp was made for is new, and the subject grows",
        checks: "/^Message-ID:/ IGNORE\n/^Date:/ IGNORE\n/^From:/ REPLACE From: gateway@contoso.test\n\
                 /^Subject: (.*)$/ REPLACE Subject: again $1\n",
        rule: "passes",
        most: 9.0,
    },
    Rewriter {
        does: "a new Message-ID, and no trace headers",
        checks: "/^Message-ID:/ IGNORE\n/^(Received|Fingerpost-Route|X-Trace):/ IGNORE\n",
        rule: "relay-memory",
        most: 8.0,
    },
    Rewriter {
        does: "the same, and a note in front of the subject, once",
        checks: "/^Message-ID:/ IGNORE\n/^(Received|Fingerpost-Route):/ IGNORE\n\
                 /^Subject: ([^[].*)$/ REPLACE Subject: [external] $1\n",
        rule: "relay-memory",
        most: 9.0,
    },
];

#[test]
fn a_loop_through_a_rewriter_ends_with_one_report() {
    for (number, rewriter) in REWRITERS.iter().enumerate() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), rewriter.checks).expect("writable");
        let checks = format!("header_checks = regexp:{}", file.path().display());
        let secondary = format!("{checks}\nalways_add_missing_headers = yes");
        let mut systems = PostfixSystems::start_with(NodeDirectory::File, &Changes { secondary, ..Changes::default() });
        for (name, receive) in [("organised", ORGANISED), ("not-organised", NOT_ORGANISED)] {
            for (delivery, replaced) in [("queued", QUEUED), ("cut-through", CUT_THROUGH)] {
                systems.configure(&[(ORGANISED, receive), (QUEUED, replaced)]);
                let token = format!("rewriter-{number}-{name}-{delivery}");
                send(&mut Raw::hello(systems.node.smtp), &token, "sender@sender.test", &["nobody@contoso.test"]);
                let reported = Arrived { outside: vec!["sender@sender.test".into()], ..Arrived::default() };
                systems.settle(&token, &reported).unwrap_or_else(|why| panic!("{token}: {why}"));
                let copies = relayed(&systems);
                println!("{}; {name}, {delivery}: the secondary took it {copies} times, one report", rewriter.does);
                assert!(copies > 2.0 && copies <= rewriter.most, "{token}: {copies} times");
                assert_eq!(looped(&systems, rewriter.rule), 1.0, "{token}");
            }
        }
    }
}

#[test]
fn report_mode_counts_and_lets_pass_until_the_hops_are_too_many() {
    let report = ("[reports]", "[loop_detection]\nmode = \"report\"\nmax_received = 12\n\n[reports]");
    let systems =
        PostfixSystems::start_with(NodeDirectory::File, &Changes { replace: vec![report], ..Changes::default() });
    send(&mut Raw::hello(systems.node.smtp), "report-mode", "sender@sender.test", &["nobody@contoso.test"]);
    let reported = Arrived { outside: vec!["sender@sender.test".into()], ..Arrived::default() };
    systems.settle("report-mode", &reported).expect("hop counts always refuse");
    assert!(looped(&systems, "stamp") >= 1.0, "what would have been refused was not counted");
    assert!(
        (looped(&systems, "received") + looped(&systems, "passes") - 1.0).abs() < 0.5,
        "the hop count was to end it"
    );
}

#[test]
fn what_is_no_loop_passes() {
    let primary = "virtual_alias_maps = inline:{ {everybody@contoso.test = alice@contoso.test, sam@contoso.test, \
                   all.secondary@contoso.test} }"
        .to_owned();
    let secondary =
        "virtual_alias_maps = inline:{ {all.secondary@contoso.test = bob@contoso.test, susan@contoso.test} }"
            .to_owned();
    let everybody = ("path = \"recipients.toml\"", "path = \"more.toml\"");
    let mut systems =
        PostfixSystems::start_with(NodeDirectory::File, &Changes { primary, secondary, ..Changes::default() });
    let more = support::postfix_systems::read("recipients.toml")
        + "\n[[recipient]]\naddress = \"everybody@contoso.test\"\nkind = \"group\"\n";
    systems.node.write("more.toml", &more);
    systems.configure(&[everybody]);

    nested_lists(&systems);
    identical_again(&systems);
    no_message_id(&systems);
    two_scanners_at_once(&systems);
    the_secondarys_own_machines(&systems);
    back_the_next_day(&systems);
}

/// A list of the primary holds a list of the secondary, which holds people of both.
fn nested_lists(systems: &PostfixSystems) {
    send(&mut Raw::hello(systems.node.smtp), "nested", "sender@sender.test", &["everybody@contoso.test"]);
    arrives(
        systems,
        "nested",
        &["alice@contoso.test", "bob@contoso.test"],
        &["sam@contoso.test", "susan@contoso.test"],
    );
}

/// The same message sent again by its sender, minutes or a moment later.
fn identical_again(systems: &PostfixSystems) {
    for _ in 0..2 {
        send(&mut Raw::hello(systems.node.smtp), "again", "sender@sender.test", &["sam@contoso.test"]);
    }
    arrives(systems, "again", &[], &["sam@contoso.test", "sam@contoso.test"]);
}

/// Three like messages without Message-ID: cron jobs, devices.
fn no_message_id(systems: &PostfixSystems) {
    let message = letter("no-id", "sender@sender.test").replace("Message-ID: <no-id@sender.test>\r\n", "");
    for _ in 0..3 {
        hand_in(&mut Raw::hello(systems.node.smtp), "sender@sender.test", &["sam@contoso.test"], &message);
    }
    arrives(systems, "no-id", &[], &["sam@contoso.test"; 3]);
}

/// Two of the secondary's scanners write to one address of the primary, and to one of their own, at once.
fn two_scanners_at_once(systems: &PostfixSystems) {
    let mut scanners = [0, 1].map(|_| Raw::hello_from(SECONDARY, systems.node.smtp));
    for scanner in &mut scanners {
        scanner.send(b"MAIL FROM:<scanner@contoso.test>\r\nRCPT TO:<alice@contoso.test>\r\nRCPT TO:<sam@contoso.test>\r\nDATA\r\n");
    }
    for (at, scanner) in scanners.iter_mut().enumerate() {
        let codes: Vec<u16> = (0..4).map(|_| scanner.reply().0).collect();
        assert_eq!(codes, [250, 250, 250, 354], "scanner {at}");
        let message = letter("scan", "scanner@contoso.test").replace("<scan@", &format!("<scan-{at}@"));
        scanner.send(format!("{message}.\r\n").as_bytes());
        assert_eq!(scanner.reply().0, 250, "scanner {at}");
    }
    arrives(systems, "scan", &["alice@contoso.test"; 2], &["sam@contoso.test"; 2]);
}

/// Printers and web servers of the secondary hand in mail for the secondary's users.
fn the_secondarys_own_machines(systems: &PostfixSystems) {
    send(
        &mut Raw::hello_from(SECONDARY, systems.node.smtp),
        "printer",
        "printer@contoso.test",
        &["susan@contoso.test"],
    );
    arrives(systems, "printer", &[], &["susan@contoso.test"]);
}

/// sam of the secondary forwards to alice of the primary, who sends the same message back a day later: it carries a
/// valid stamp that names sam and the secondary, but an old one.
fn back_the_next_day(systems: &PostfixSystems) {
    for (token, age, passes) in
        [("next-day", Duration::from_secs(86_400), true), ("at-once", Duration::from_secs(60), false)]
    {
        let message = letter(token, "sender@sender.test");
        let stamped = format!("{}{message}", stamp_of(systems, &message, age));
        let mut raw = Raw::hello_from(PRIMARY, systems.node.smtp);
        let letter = Letter { from: "sender@sender.test", to: &["sam@contoso.test"], bytes: stamped.as_bytes() };
        let (_, dot) = raw.transact(&letter, "");
        let (code, text) = dot.expect("RCPT is taken: only the header section shows a loop");
        assert_eq!(code, if passes { 250 } else { 554 }, "{token}: {text}");
        if passes {
            arrives(systems, token, &[], &["sam@contoso.test"]);
        } else {
            assert!(text.starts_with("554 5.4.6"), "{text}");
        }
    }
}

/// The stamp that this installation put on `message` for sam and the secondary that long ago.
fn stamp_of(systems: &PostfixSystems, message: &str, age: Duration) -> String {
    let keys = keys::load(&[systems.node.path("state/loop.key")], None).expect("the node made its key");
    let (section, _) = message.split_once("\r\n\r\n").expect("a header section");
    let sam = Address::parse("sam@contoso.test").expect("an address");
    let identity = header::examine(format!("{section}\r\n").as_bytes()).identity;
    let time = UnixTime(UnixTime::now().0 - age.as_secs());
    let new =
        NewStamp { installation: "mx.contoso.test", via: "secondary", time, recipients: &[&sam], identity: &identity };
    stamp::sign(keys.signing(), &new)
}

fn arrives(systems: &PostfixSystems, token: &str, primary: &[&str], secondary: &[&str]) {
    let list = |list: &[&str]| list.iter().map(|address| (*address).to_owned()).collect();
    let expected = Arrived { primary: list(primary), secondary: list(secondary), outside: Vec::new() };
    systems.settle(token, &expected).unwrap_or_else(|why| panic!("{token}: {why}"));
    println!("passes: {token}");
}

/// How many recipients the secondary has taken from Fingerpost.
fn relayed(systems: &PostfixSystems) -> f64 {
    let series = "fingerpost_deliveries_total{result=\"delivered\",send_connector=\"secondary\"}";
    systems.node.metric(series).unwrap_or(0.0)
}

/// How many loops this rule has seen.
fn looped(systems: &PostfixSystems, rule: &str) -> f64 {
    systems.node.metric(&format!("fingerpost_loops_total{{rule=\"{rule}\"}}")).unwrap_or(0.0)
}

fn letter(token: &str, from: &str) -> String {
    format!(
        "From: {from}\r\nTo: r@contoso.test\r\nSubject: {token}\r\nMessage-ID: <{token}@sender.test>\r\n\
         Date: Sat, 21 Nov 2026 04:39:00 +0000\r\nX-Journey: {token}\r\n\r\nbody\r\n"
    )
}

fn send(raw: &mut Raw, token: &str, from: &str, to: &[&str]) {
    hand_in(raw, from, to, &letter(token, from));
}

fn hand_in(raw: &mut Raw, from: &str, to: &[&str], message: &str) {
    let (replies, dot) = raw.transact(&Letter { from, to, bytes: message.as_bytes() }, "");
    assert!(matches!(dot, Some((250, _))), "{replies:?} {dot:?}");
}
