//! Parameters and contents that a next hop does not take: said to the sender while he is connected, or told in one
//! report where another branch has taken the message.

use crate::cut_through::fixture::{STAFF, TwoHops, envelope, letter, say};
use support::senders::Raw;
use support::test_network::{SOON, TestNetwork};
use support::wait_until;

/// An EHLO answer with these extensions.
fn offers(extensions: &[&str]) -> String {
    let lines: String = extensions.iter().map(|extension| format!("250-{extension}\\n")).collect();
    format!("ehlo => 250-next.hop\\n{lines}250 PIPELINING")
}

/// A message whose envelope must be accepted, and its final reply.
fn final_reply(two: &TwoHops, mail: &str, to: &[&str], content: &str) -> String {
    let mut raw = two.stranger();
    say(&mut raw, mail, "250");
    to.iter().for_each(|to| drop(say(&mut raw, &format!("RCPT TO:<{to}>"), "250")));
    say(&mut raw, "DATA", "354");
    raw.say(&format!("{content}.")).1
}

/// What we refuse ourselves is not put into the next hop's mouth.
fn is_ours(said: &str, codes: &str) {
    assert!(said.starts_with(codes) && !said.contains("said"), "{said}");
}

/// The replies to RCPTs.
fn rcpts(raw: &mut Raw, mail: &str, to: &[(&str, &str)]) {
    say(raw, mail, "250");
    for (to, expected) in to {
        is_ours(&say(raw, &format!("RCPT TO:<{to}>"), expected), expected);
    }
    say(raw, "RSET", "250");
}

fn reported(network: &TestNetwork, sender: &str) -> Vec<(String, String)> {
    wait_until("a report", SOON, || !network.reports(sender).is_empty() && network.queue().is_empty());
    let reports = network.reports(sender);
    assert_eq!(reports.len(), 1, "{reports:?}");
    let field = |name| reports[0].fields(name).first().copied().unwrap_or_default().to_owned();
    vec![(field("Final-Recipient"), field("Status"))]
}

const MAIL: &str = "MAIL FROM:<ann@outside.test>";

#[test]
fn too_large_for_the_next_hop() {
    let two = TwoHops::start(&offers(&["SIZE 20000"]), &offers(&["SIZE"]), "");
    let mut raw = two.stranger();
    let sized = format!("{MAIL} SIZE=100000");
    rcpts(&mut raw, &sized, &[("p0@c.test", "550 5.3.4"), ("s0@c.test", "250"), ("p1@c.test", "550 5.3.4")]);
    rcpts(&mut raw, &format!("{MAIL} SIZE=1000"), &[("p0@c.test", "250"), ("s0@c.test", "250")]);
    assert!(two.primary.commands("MAIL").iter().all(|line| !line.contains("SIZE=100000")), "it need not be asked");

    let said = final_reply(&two, MAIL, &["p0@c.test"], &letter("large", 100_000));
    is_ours(&said, "552 5.3.4");
    // A size that was too small to begin with: what is there counts.
    let said = final_reply(&two, &format!("{MAIL} SIZE=500"), &["p0@c.test"], &letter("larger", 100_000));
    is_ours(&said, "552 5.3.4");
    assert!(two.primary.taken().is_empty() && two.network.queue().is_empty());
    assert!(two.network.senders.all().is_empty(), "the sender knows already");

    let said = final_reply(&two, MAIL, &["p0@c.test", "s0@c.test"], &letter("both", 100_000));
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.secondary.taken(), ["s0@c.test"]);
    assert_eq!(reported(&two.network, "ann@outside.test"), [("rfc822; p0@c.test".to_owned(), "5.3.4".to_owned())]);
    assert!(two.primary.taken().is_empty());
}

#[test]
fn size_is_computed_anew() {
    let two = TwoHops::start(&offers(&["SIZE 100000"]), "", "");
    let content = letter("sized", 5000);
    let said = final_reply(&two, &format!("{MAIL} SIZE={}", content.len()), &["p0@c.test"], &content);
    assert!(said.starts_with("250"), "{said}");
    let came = two.primary.contents()[0].len();
    let mail = two.primary.commands("MAIL").remove(0);
    let size = mail.split("SIZE=").nth(1).map(|size| size.split(' ').next().unwrap().parse::<usize>().unwrap());
    // What we put in front counts, the dot's line does not; before the header section is there it can only be estimated.
    assert!(size.is_none_or(|size| size + 2 >= content.len() && size <= came + 4096), "{mail}, {came} octets came");
    final_reply(&two, MAIL, &["s0@c.test"], &letter("unsized", 10));
    assert!(!two.secondary.commands("MAIL")[0].contains("SIZE"), "it does not offer SIZE");
}

#[test]
fn international_mail_for_a_next_hop_without_smtputf8() {
    let two = TwoHops::start("", &offers(&["SMTPUTF8", "8BITMIME"]), "");
    let mut raw = two.stranger();
    let international = format!("{MAIL} SMTPUTF8");
    two.network.node.write("people.csv", "address\np0@c.test\nrené@c.test\n");
    wait_until("the directory's new entry", SOON, || {
        let route = two.network.node.run(&["route", "rené@c.test"]);
        String::from_utf8_lossy(&route.stdout).contains("mailbox")
    });
    rcpts(&mut raw, &international, &[("rené@c.test", "553 5.6.7"), ("p0@c.test", "250"), ("zoë@c.test", "250")]);
    let sender = "MAIL FROM:<jürgen@outside.test> SMTPUTF8";
    rcpts(&mut raw, sender, &[("p0@c.test", "553 5.6.7"), ("s0@c.test", "250")]);

    let header = letter("grüße", 0);
    let said = final_reply(&two, &international, &["p0@c.test"], &header);
    is_ours(&said, "554 5.6.9");
    assert!(two.primary.taken().is_empty() && two.network.senders.all().is_empty());
    let said = final_reply(&two, &international, &["p0@c.test", "s0@c.test"], &header);
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.secondary.taken(), ["s0@c.test"]);
    assert_eq!(reported(&two.network, "ann@outside.test"), [("rfc822; p0@c.test".to_owned(), "5.6.9".to_owned())]);

    // Announced and not needed: it goes without.
    let said = final_reply(&two, &international, &["p0@c.test"], &letter("plain", 0));
    assert!(said.starts_with("250"), "{said}");
    assert!(two.primary.commands("MAIL").iter().all(|line| !line.contains("SMTPUTF8")));
    assert_eq!(two.primary.taken(), ["p0@c.test"]);
}

#[test]
fn eight_bit_mail_for_a_next_hop_without_8bitmime() {
    let two = TwoHops::start("", &offers(&["8BITMIME"]), "eight_bit = \"refuse\"");
    let content = letter("eight", 0) + "grüße\r\n";
    for mail in [MAIL.to_owned(), format!("{MAIL} BODY=8BITMIME")] {
        let mut raw = two.stranger();
        say(&mut raw, &mail, "250");
        let at_rcpt = raw.say("RCPT TO:<p0@c.test>").1;
        if at_rcpt.starts_with("250") {
            say(&mut raw, "DATA", "354");
            is_ours(&raw.say(&format!("{content}.")).1, "554 5.6.3");
        } else {
            is_ours(&at_rcpt, "554 5.6.3");
        }
    }
    let said = final_reply(&two, &format!("{MAIL} BODY=8BITMIME"), &["s0@c.test"], &content);
    assert!(said.starts_with("250"), "{said}");
    assert_eq!((two.primary.taken().len(), two.secondary.taken()), (0, vec!["s0@c.test".to_owned()]));
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());
}

/// A next hop was started again and offers more now: a refusal of ours does not rest on what the connection offered that is
/// dead since.
#[test]
fn what_a_dead_connection_offered_counts_for_nothing() {
    let sized = format!("{MAIL} SIZE=100000");
    let international = "MAIL FROM:<jürgen@outside.test> SMTPUTF8";
    for (before, after, mail) in [
        (offers(&["SIZE 20000"]), offers(&["SIZE 200000"]), sized.as_str()),
        (offers(&["SIZE 20000"]), offers(&[]), sized.as_str()),
        (offers(&[]), offers(&["SMTPUTF8", "8BITMIME"]), international),
    ] {
        let two = TwoHops::start(&before, "", "");
        let said = final_reply(&two, MAIL, &["p0@c.test"], &letter("first", 0));
        assert!(said.starts_with("250"), "{said}");
        two.primary.follow(&format!("first: rset => drop\nfirst: mail => drop\nfirst: noop => drop\n{after}"));
        let said = final_reply(&two, mail, &["p1@c.test"], &letter("second", 50_000));
        assert!(said.starts_with("250"), "{after}: {said}");
        assert_eq!(two.primary.taken(), ["p0@c.test", "p1@c.test"], "{after}");
    }
}

/// Sends by BDAT.
fn bdat(two: &TwoHops, to: &str, content: &str) -> String {
    let mut raw = two.stranger();
    say(&mut raw, MAIL, "250");
    say(&mut raw, &format!("RCPT TO:<{to}>"), "250");
    raw.send(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes());
    raw.reply().1
}

#[test]
fn bare_line_feeds_by_bdat() {
    let content = letter("bare", 0) + "one\ntwo\r\n";
    let chunking = offers(&["CHUNKING"]);
    for (settings, script, expected) in
        [("", "", "554 5.6."), ("bare_lf = \"crlf\"", "", "250"), ("", chunking.as_str(), "250")]
    {
        let two = TwoHops::start(script, "", settings);
        let said = bdat(&two, "p0@c.test", &content);
        assert!(said.starts_with(expected), "{settings}, {script}: {said}");
        let came = two.primary.contents();
        if expected != "250" {
            assert!(came.is_empty(), "it came all the same");
        } else {
            let end = if script.is_empty() { "one\r\ntwo\r\n" } else { "one\ntwo\r\n" };
            assert!(came[0].ends_with(end.as_bytes()), "{:?}", String::from_utf8_lossy(&came[0]));
        }
        assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());
    }
}

#[test]
fn success_is_ours_to_tell_where_the_next_hop_has_no_dsn() {
    let two = TwoHops::start("", &offers(&["DSN"]), "");
    let mut raw = Raw::hello_from(STAFF, two.network.node.smtp);
    say(&mut raw, &format!("{MAIL} ENVID=QQ314159 RET=HDRS"), "250");
    say(&mut raw, "RCPT TO:<p0@c.test> NOTIFY=SUCCESS ORCPT=rfc822;P0@c.test", "250");
    say(&mut raw, "RCPT TO:<s0@c.test> NOTIFY=SUCCESS,FAILURE", "250");
    say(&mut raw, "RCPT TO:<p1@c.test> NOTIFY=NEVER", "250");
    say(&mut raw, "RCPT TO:<p2@c.test>", "250");
    say(&mut raw, "DATA", "354");
    say(&mut raw, &format!("{}.", letter("success", 0)), "250");
    wait_until("a report", SOON, || {
        !two.network.reports("ann@outside.test").is_empty() && two.network.queue().is_empty()
    });
    let reports = two.network.reports("ann@outside.test");
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].fields("Action"), ["relayed"]);
    assert_eq!(reports[0].fields("Final-Recipient"), ["rfc822; p0@c.test"]);
    assert_eq!(reports[0].fields("Original-Recipient"), ["rfc822; P0@c.test"]);
    assert_eq!(reports[0].fields("Original-Envelope-Id"), ["QQ314159"]);
    assert_eq!(two.primary.taken(), ["p0@c.test", "p1@c.test", "p2@c.test"]);
    assert!(two.primary.commands("RCPT").iter().all(|line| !line.contains("NOTIFY")));
    assert!(two.primary.commands("MAIL").iter().all(|line| !line.contains("ENVID") && !line.contains("RET=")));
    assert!(two.secondary.commands("RCPT")[0].contains("NOTIFY=SUCCESS,FAILURE"));
    assert!(two.secondary.commands("MAIL")[0].contains("ENVID=QQ314159"));
}

#[test]
fn a_report_of_success_is_durable_before_the_250() {
    let mut two = TwoHops::start("", "", "");
    let mut raw = Raw::hello_from(STAFF, two.network.node.smtp);
    say(&mut raw, MAIL, "250");
    say(&mut raw, "RCPT TO:<p0@c.test> NOTIFY=SUCCESS", "250");
    say(&mut raw, "DATA", "354");
    say(&mut raw, &format!("{}.", letter("crash", 0)), "250");
    two.network.node.kill();
    two.network.node.start();
    wait_until("the report", SOON, || !two.network.reports("ann@outside.test").is_empty());
    assert_eq!(two.primary.taken(), ["p0@c.test"], "what was delivered is not delivered again");
}

#[test]
fn a_strangers_success_is_nobodys_to_tell() {
    let two = TwoHops::start("", &offers(&["DSN"]), "");
    let mut raw = two.stranger();
    say(&mut raw, &format!("{MAIL} ENVID=QQ314159 RET=HDRS"), "250");
    say(&mut raw, "RCPT TO:<p0@c.test> NOTIFY=SUCCESS", "250");
    say(&mut raw, "RCPT TO:<s0@c.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;S0@c.test", "250");
    say(&mut raw, "RCPT TO:<s1@c.test> NOTIFY=SUCCESS", "250");
    say(&mut raw, "RCPT TO:<s2@c.test> NOTIFY=SUCCES", "501");
    say(&mut raw, "DATA", "354");
    say(&mut raw, &format!("{}.", letter("success", 0)), "250");
    assert_eq!(two.primary.taken(), ["p0@c.test"]);
    let rcpt = two.secondary.commands("RCPT");
    assert!(rcpt[0].ends_with("NOTIFY=FAILURE ORCPT=rfc822;S0@c.test"), "{rcpt:?}");
    assert!(rcpt[1].contains("NOTIFY=NEVER"), "{rcpt:?}");
    assert!(two.secondary.commands("MAIL")[0].contains("ENVID=QQ314159"));
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty(), "nothing is told");
}

#[test]
fn a_report_of_failure_is_durable_before_the_250() {
    let mut two = TwoHops::start("dot => 554 5.7.1 looks like spam", "", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
    say(&mut raw, &format!("{}.", letter("crash", 0)), "250");
    two.network.node.kill();
    two.primary.follow("");
    two.network.node.start();
    wait_until("the report", SOON, || !two.network.reports("ann@outside.test").is_empty());
    two.network.quiet();
    assert_eq!(two.secondary.taken(), ["s0@c.test"]);
    assert!(two.primary.taken().is_empty(), "what was refused for good came all the same");
}

#[test]
fn a_branch_that_was_deferred_after_the_dot_is_durable_before_the_250() {
    let mut two = TwoHops::start("", "dot => 451 4.7.1 scanner is busy", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
    say(&mut raw, &format!("{}.", letter("crash", 200_000)), "250");
    two.network.node.kill();
    two.secondary.follow("");
    two.network.node.start();
    two.network.deliver();
    assert_eq!((two.primary.taken(), two.secondary.taken()), (vec!["p0@c.test".into()], vec!["s0@c.test".into()]));
    assert!(two.secondary.contents().last().unwrap().len() > 200_000);
    assert!(two.network.senders.all().is_empty());
}
