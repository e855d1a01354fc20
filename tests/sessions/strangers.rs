//! What strangers write and what real Postfix makes of it: it trusts us, so it passes on what they wrote into a local part,
//! unless that never gets there; and a printer's address reaches it in proper form.

use std::net::Ipv4Addr;
use std::time::Duration;

use support::postfix::{Postfix, Setup};
use support::senders::Raw;
use support::sink::Sink;
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;
use support::two_systems::message;
use support::wait_until;

const SOON: Duration = Duration::from_secs(30);
const WAYS_ON: [&str; 4] = [
    "victim%elsewhere.test@contoso.test",
    "elsewhere.test!victim@contoso.test",
    "\"victim@elsewhere.test\"@contoso.test",
    "\"victim%elsewhere.test\"@contoso.test",
];

/// The secondary as a Postfix that has `contoso.test` in `mydestination` and us in `mynetworks`, and knows its users.
fn secondary(outside: &Sink, extra: &str) -> Postfix {
    let own = "mydestination = contoso.test\n\
               local_recipient_maps = texthash:$virtual_mailbox_base/../etc/mailboxes\n";
    Postfix::start(&Setup {
        name: "secondary.test",
        ip: Ipv4Addr::new(127, 0, 0, 3),
        domains: &[],
        known: &["sam@contoso.test"],
        unknown_to: outside.address(),
        others_to: outside.address(),
        extra: &format!("{own}{extra}"),
    })
}

/// Mail, report and refusal of one whose path is none by the book.
#[test]
fn a_printers_address_is_taken_and_answered() {
    let outside = Sink::start(Ipv4Addr::new(127, 0, 0, 4));
    let disabled = "{gone@contoso.test=550 5.2.1 mailbox disabled}";
    let disabled = format!("smtpd_recipient_restrictions = check_recipient_access inline:{{ {disabled} }}\n");
    let postfix = secondary(&outside, &disabled);
    let mut node = TestNode::prepare();
    node.write("people.csv", "address\nsam@contoso.test\ngone@contoso.test\n");
    let door = "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n";
    let domain = accepted_domain("contoso.test", "inside");
    let inside = send_connector("inside", postfix.address(), "delivery = \"queue\"");
    let others = send_connector("others", outside.address(), "address_spaces = [{ domain = \"*\" }]");
    node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{door}{domain}{inside}{others}"));
    node.start();
    for (number, path, proper) in [
        (1, "mfp@fabrikam.test", "mfp@fabrikam.test"),
        (2, "<mfp.2@fabrikam.test.>", "mfp.2@fabrikam.test"),
        (3, "<mfp..3@fabrikam.test>", "\"mfp..3\"@fabrikam.test"),
        (4, ".mfp.4.@fabrikam.test. SIZE=200", "\".mfp.4.\"@fabrikam.test"),
    ] {
        let mut raw = Raw::hello(node.smtp);
        let commands = [&format!("MAIL FROM:{path}"), "RCPT TO:sam@contoso.test.", "RCPT TO:<gone@contoso.test>"];
        for command in commands {
            assert_eq!(raw.say(command).0, 250, "{command}");
        }
        assert_eq!(raw.say("DATA").0, 354);
        raw.send(&message("x", 100));
        assert_eq!(raw.say(".").0, 250);
        wait_until("sam has it", SOON, || postfix.mails().len() == number);
        let paths: Vec<_> = postfix.mails().iter().filter_map(|mail| mail.field("Return-Path")).collect();
        assert!(paths.contains(&format!("<{proper}>")), "{paths:?}");
        // gone@ is refused: its report finds the sender.
        wait_until("the report", SOON, || !outside.for_address(proper).is_empty());
    }
}

fn configure(node: &TestNode, secondary: &Postfix, source_routes: &str) {
    node.write("people.csv", "address\nann@contoso.test\n");
    let door = "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n";
    let domain =
        "[[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\ndeliver_to = \"inside\"\n\n";
    let inside = send_connector("inside", ([127, 0, 0, 1], 9).into(), "");
    let more = format!("address_spaces = [{{ domain = \"contoso.test\" }}]\n{source_routes}");
    let secondary = send_connector("secondary", secondary.address(), &more);
    node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{door}{domain}{inside}{secondary}"));
}

fn sends(node: &TestNode, recipients: &[&str], answer: u16) {
    let mut raw = Raw::hello(node.smtp);
    assert_eq!(raw.say("MAIL FROM:<spammer@sender.test>").0, 250);
    for recipient in recipients {
        let said = raw.say(&format!("RCPT TO:<{recipient}>"));
        assert_eq!(said.0, answer, "{recipient}: {said:?}");
        assert!(answer == 250 || said.1.contains("5.1.3"), "{recipient}: {said:?}");
    }
    if answer == 250 {
        assert_eq!(raw.say("DATA").0, 354);
        raw.send(&message("x", 100));
        assert_eq!(raw.say(".").0, 250);
    }
}

#[test]
fn a_postfix_that_trusts_us_is_no_open_relay_through_us() {
    let outside = Sink::start(Ipv4Addr::new(127, 0, 0, 4));
    let postfix = secondary(&outside, "");
    let mut node = TestNode::prepare();
    configure(&node, &postfix, "");
    node.start();
    sends(&node, &WAYS_ON, 550);
    sends(&node, &["sam@contoso.test"], 250);
    wait_until("sam has his mail", SOON, || postfix.mails().len() == 1);
    assert!(outside.all().is_empty() && postfix.queued() == 0, "{}", postfix.log());
    node.stop();

    // So it would have been: the same Postfix passes on what it is given.
    configure(&node, &postfix, "source_routes = \"pass\"");
    node.start();
    sends(&node, &WAYS_ON[..3], 250);
    wait_until("it is passed on", SOON, || !outside.for_address("victim@elsewhere.test").is_empty());
}

#[test]
fn the_check_tells_what_a_next_hop_would_pass_on_and_what_to_do() {
    let outside = Sink::start(Ipv4Addr::new(127, 0, 0, 4));
    let node = TestNode::prepare();
    let check = |postfix: &Postfix, source_routes: &str| {
        configure(&node, postfix, source_routes);
        let ran = node.run(&["check", "--connect"]);
        let text = String::from_utf8(ran.stdout).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.contains("source routes at send connector secondary"));
        let at = at.unwrap_or_else(|| panic!("not asked:\n{text}"));
        lines[at..].iter().take(2).cloned().collect::<Vec<_>>().join("\n")
    };
    let postfix = secondary(&outside, "");
    let told = check(&postfix, "");
    assert!(told.starts_with("warning ") && told.contains("victim%elsewhere.example@contoso.test"), "{told}");
    assert!(told.contains("allow_percent_hack = no") && told.contains("keep source_routes"), "{told}");
    let told = check(&postfix, "source_routes = \"pass\"");
    assert!(told.starts_with("FAILED ") && told.contains("OPEN"), "{told}");
    assert!(told.contains("allow_percent_hack = no") && told.contains("remove source_routes"), "{told}");
    // Each of its three habits alone is seen.
    for left in ["allow_percent_hack", "swap_bangpath", "resolve_dequoted_address"] {
        let off = ["allow_percent_hack", "swap_bangpath", "resolve_dequoted_address"].into_iter();
        let off: String = off.filter(|habit| *habit != left).map(|habit| format!("{habit} = no\n")).collect();
        let told = check(&secondary(&outside, &off), "");
        assert!(told.starts_with("warning "), "{left}: {told}");
    }
    // The cure cures.
    let cured = "allow_percent_hack = no\nswap_bangpath = no\nresolve_dequoted_address = no\n";
    let postfix = secondary(&outside, cured);
    let told = check(&postfix, "source_routes = \"pass\"");
    assert!(told.starts_with("ok "), "{told}");
    assert!(outside.all().is_empty() && postfix.queued() == 0, "a check sends nothing: {}", postfix.log());
}
