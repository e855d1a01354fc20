//! A server's own words, with text of others in between.

use super::*;

const SAID: &[&str] = &["chris@fabrikam.test", "\"relay access denied\"@contoso.test", "mx.fingerpost.test"];

fn words(text: &str, said: &[&str]) -> String {
    Words::of(&Reply::bare(550, text.to_owned().into()), said).0.trim().to_owned()
}

#[test]
fn what_is_not_its_own_is_taken_out() {
    for (text, own) in [
        ("No such user", "no such user"),
        ("<bob@contoso.test>: No such user", "no such user"),
        ("bob@contoso.test... User unknown.", ". user unknown ."),
        ("Client host [192.0.2.1] blocked using zen.spamhaus.org", "client host blocked using"),
        ("Rejected: 192.0.2.1 listed at bl.test", "rejected listed at"),
        ("see https://bl.test/q?ip=1 (S3150), or www.bl.test.", "see or ."),
        ("user \"no \\\" relay\" and 'that one' and `this' unknown", "user and and unknown"),
        ("that domain isn't in my list", "that domain isn't in my list"),
        ("that domain isn’t in the senders' list", "that domain isn't in the senders list"),
        ("„quoted” and «quoted» and “quoted” stay out", "and and stay out"),
        ("an (open bracket and <another] stay", "an open bracket and another stay"),
        ("one\nsentence over lines", "one sentence over lines"),
        ("host mx[192.0.2.1] said: 550 relaying denied\nUser unknown", "host mx user unknown"),
        ("\"relay access denied\"@contoso.test is unknown", "is unknown"),
        ("relay access denied@contoso.test is unknown", "is unknown"),
        ("relay access denied is unknown", "is unknown"),
        ("relay-access-denied relay.access.denied relay/access/denied", "relay-access-denied relay/access/denied"),
        ("mailrelay.contoso.test mailrelay relay1", "mailrelay relay1"),
        ("x@[192.0.2.1] y@[IPv6:2001:db8::1] @contoso.test", ""),
        ("Grüße, ÄRGER", "grüße ärger"),
        ("", ""),
    ] {
        assert_eq!(words(text, SAID), own, "{text}");
    }
}

#[test]
fn a_local_part_of_one_word_is_an_echo_only_where_it_can_be_one() {
    let said = &["relay@contoso.test"];
    for (text, own) in [
        ("relay not permitted", "not permitted"),
        ("<relay@contoso.test>: relay not permitted", "relay not permitted"),
        ("mailrelay not permitted", "mailrelay not permitted"),
    ] {
        assert_eq!(words(text, said), own, "{text}");
    }
    let policy = Reply::fixed(550, Enhanced(5, 7, 1), "relay not permitted");
    assert!(Words::of(&policy, said).say("relay not permitted"));
}

#[test]
fn phrases_are_whole_words_of_one_sentence() {
    let own = Words::of(&Reply::bare(550, "Unable to relay. Access denied, mail relay denied".into()), &[]);
    for (phrase, says) in [
        ("unable to relay", true),
        ("relay denied", true),
        ("access denied mail relay", true),
        ("relay access", false),
        ("able to relay", false),
        ("unable to rel", false),
        ("relay denied again", false),
    ] {
        assert_eq!(own.say(phrase), says, "{phrase}");
    }
}

#[test]
fn enhanced_codes_are_found_where_servers_put_them() {
    for (text, found) in [
        ("sorry, no mailbox here by that name (#5.1.1)", Some((1, 1))),
        ("sorry (#5.1.1). Try another", Some((1, 1))),
        ("[#5.1.1] nobody", Some((1, 1))),
        ("nobody #5.1.10", Some((1, 10))),
        ("nobody 5.1.1", Some((1, 1))),
        ("nobody (5.1.1).", Some((1, 1))),
        ("5.1.1: nobody", Some((1, 1))),
        ("[5.7.606] nobody", Some((7, 606))),
        ("two (#5.7.2) of them (#5.1.1)", Some((7, 2))),
        ("one (#5.7.1) was said (#5.1.1)", Some((1, 1))),
        ("in the midst 5.1.1 of it", None),
        ("version 4.96.1", None),
        ("10.5.1.1", None),
        ("2.1.5", None),
        ("#5.1", None),
        ("<#5.1.1@contoso.test>: nobody", None),
        ("\"#5.1.1\": nobody", None),
        ("#5.7.1: nobody", None),
        ("host mx said: no (#5.1.1)", None),
        ("", None),
    ] {
        let said: &[&str] = &["#5.7.1@contoso.test"];
        assert_eq!(code(&Reply::bare(550, text.to_owned().into()), said), found, "{text}");
    }
    let plain = Reply::fixed(550, Enhanced(5, 4, 1), "no (#5.1.1)");
    assert_eq!(code(&plain, &[]), Some((4, 1)));
}

#[test]
fn addresses_are_found_but_within_mail_addresses() {
    for (text, found) in [
        ("[192.0.2.1]", vec!["192.0.2.1"]),
        ("unknown[192.0.2.1]: no", vec!["192.0.2.1"]),
        ("192.0.2.1:25, IPv6:2001:DB8::1.", vec!["192.0.2.1", "2001:db8::1"]),
        ("::ffff:192.0.2.1", vec!["192.0.2.1"]),
        ("https://bl.test/query/ip/192.0.2.1", vec!["192.0.2.1"]),
        ("<x@[192.0.2.1]> 192.0.2.1@contoso.test", vec![]),
        ("192.0.2.10 192.0.2", vec!["192.0.2.10"]),
        ("10:20:30 5.1.1", vec![]),
    ] {
        let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(addresses(text, &[]), found, "{text}");
    }
}
