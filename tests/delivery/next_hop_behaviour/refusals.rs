//! What servers of the field say against a recipient, a message, a sender or us, through the whole program. The table of
//! refusals itself has its test in `refusals.rs`, with many more.

use std::net::Ipv4Addr;

use crate::cut_through::fixture::{TwoHops, say};
use crate::next_hop_behaviour::kinds::Expected::{AboutUs, Answer, Unknown, Unreachable};
use crate::next_hop_behaviour::kinds::{Case, are_right};
use support::senders::Raw;

/// M1, M2: what is echoed, a host's name and what stands in brackets and quotes say nothing.
const UNKNOWN: &[Case] = &[
    ("M1", "rcpt", "550 {to}: No such user", Unknown),
    ("M1", "rcpt", "550 5.1.1 <{to}>: Recipient address rejected: User unknown in relay recipient table", Unknown),
    ("M1", "rcpt", "550 Unknown user: {to} (relay access is for customers)", Unknown),
    ("M2", "rcpt", "550 5.1.1 mailrelay.{domain}: no such user", Unknown),
    ("M2", "rcpt", "550 <{to}>: User unknown in relay recipient table", Unknown),
    ("M2", "rcpt", "553 sorry, no mailbox by that name (#5.1.1)", Unknown),
    ("M2", "rcpt", "550 sorry, no mailbox here by that name. (#5.1.1 - chkuser)", Unknown),
    (
        "M2",
        "rcpt",
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {to} not found by SMTP address lookup",
        Unknown,
    ),
    ("M2", "rcpt", "550 5.4.1 Recipient address rejected: Access denied. [x.prod.protection.outlook.com]", Unknown),
    ("M2", "rcpt", "550 {to}... No such user", Unknown),
    ("M2", "rcpt", "550 Unrouteable address", Unknown),
    ("M2", "rcpt", "550 Requested action not taken: mailbox unavailable", Unknown),
];

#[test]
fn an_unknown_recipient_is_unknown_in_whatever_words() {
    are_right(UNKNOWN);
}

/// M4: at MAIL or RCPT, by code or in words. Of a connection, of authentication, of our name and our address.
const ABOUT_US: &[Case] = &[
    ("M4", "rcpt", "554 5.7.1 <mx.contoso.test[127.0.0.1]>: Client host rejected: Access denied", AboutUs),
    ("M4", "rcpt", "554 5.7.1 Service unavailable; Client host [127.0.0.1] blocked using zen.spamhaus.org", AboutUs),
    (
        "M4",
        "rcpt",
        "550 5.7.606 Access denied, banned sending IP [127.0.0.1]. To request removal visit https://x.test/",
        AboutUs,
    ),
    ("M4", "rcpt", "550 5.7.51 TenantInboundAttribution; There is a partner connector configured", AboutUs),
    ("M4", "rcpt", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", AboutUs),
    ("M4", "rcpt", "550 5.7.64 TenantAttribution; Relay Access Denied [x.protection.outlook.com]", AboutUs),
    ("M4", "rcpt", "550 5.7.25 The IP address sending this message does not have a PTR record setup", AboutUs),
    ("M4", "rcpt", "454 4.7.1 <{to}>: Relay access denied", AboutUs),
    ("M4", "rcpt", "530 5.7.57 Client not authenticated to send mail", AboutUs),
    ("M4", "rcpt", "550 sorry, your server 127.0.0.1 is on a block list", AboutUs),
    ("M4", "rcpt", "550 relay not permitted", AboutUs),
    ("M4", "rcpt", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", AboutUs),
    ("M4", "mail", "554 5.7.1 <mx.contoso.test[127.0.0.1]>: Client host rejected: Access denied", AboutUs),
    ("M4", "mail", "550 5.7.606 Access denied, banned sending IP [127.0.0.1]", AboutUs),
    ("M4", "mail", "530 5.7.0 Must issue a STARTTLS command first", AboutUs),
    ("M4", "mail", "550 5.7.25 no PTR record", AboutUs),
];

#[test]
fn what_is_about_us_is_an_outage_with_an_alert() {
    are_right(ABOUT_US);
}

/// M3, M5: at DATA and the dot only codes count: the content's refusal is the sender's answer, whatever words are in it.
const AT_THE_DOT: &[Case] = &[
    ("M3", "dot", "554 5.7.1 Message rejected as spam by relay3.filter.test", Answer("554 5.7.1 ")),
    ("M3", "dot", "554 5.7.1 Relaying of this message denied by policy", Answer("554 5.7.1 ")),
    ("M3", "dot", "550 5.7.1 blocked using LIST", Answer("550 5.7.1 ")),
    ("M3", "dot", "550 Client host rejected, says the filter", Answer("550 ")),
    ("M3", "dot", "451 4.7.1 Greylisted by the relay's filter", Answer("451 4.7.1 ")),
    ("M3", "data", "554 5.7.1 Message rejected as spam by relay3.filter.test", Answer("554 5.7.1 ")),
    ("M5", "dot", "550 5.7.64 TenantAttribution; Relay Access Denied", AboutUs),
    ("M5", "dot", "550 5.7.606 Access denied, banned sending IP [127.0.0.1]", AboutUs),
    ("M5", "dot", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", AboutUs),
    ("M5", "dot", "530 5.7.57 Client not authenticated to send mail", AboutUs),
    ("M5", "data", "550 5.7.25 no PTR record", AboutUs),
    ("M5", "data", "550 5.7.511 Access denied, banned sender [127.0.0.1]", AboutUs),
];

#[test]
fn at_the_dot_the_content_is_refused_unless_the_code_is_about_us() {
    are_right(AT_THE_DOT);
}

/// M6: an address that it does not take is not our mistake.
const ADDRESSES: &[Case] = &[
    ("M6", "rcpt", "501 5.1.3 Invalid address", Answer("501 5.1.3 ")),
    ("M6", "rcpt", "504 5.5.2 <{to}>: Recipient address rejected: need fully-qualified address", Answer("504 5.5.2 ")),
    ("M6", "rcpt", "553 5.1.3 <{to}>... Invalid host name", Unknown),
    ("M6", "rcpt", "501 <{to}>: malformed address: bad character in local part", Answer("501 ")),
    ("P6", "rcpt", "452 4.2.2 mailbox full", Answer("452 4.2.2 ")),
    (
        "P6",
        "rcpt",
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that is too high",
        Answer("450 4.2.1 "),
    ),
    ("M4b", "rcpt", "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; for {to}", Answer("550 5.7.133 ")),
    ("M4b", "rcpt", "550 5.7.124 not in the list of allowed senders", Answer("550 5.7.124 ")),
    // The hop, for this one: by `when_unreachable`.
    ("P6", "rcpt", "451 4.3.0 Temporary server error. Please try again later. PRX2", Unreachable),
    ("P6", "rcpt", "452 4.3.1 Insufficient system resources", Unreachable),
    ("P6", "rcpt", "451 4.4.0 DNS query failed", Unreachable),
];

#[test]
fn what_is_about_an_address_is_that_addresss_answer() {
    are_right(ADDRESSES);
}

/// M4: the reply has an address. The client's is the client's refusal; any other is ours, as somebody outside sees it.
#[test]
fn whose_address_is_in_the_reply_decides_whose_refusal_it_is() {
    for (address, client, expected) in [
        ("127.0.0.77", 77, "554 5.7.1 "),
        ("127.0.0.77", 78, "451 4.4.1 "),
        ("203.0.113.9", 77, "451 4.4.1 "),
        ("127.0.0.1", 1, "451 4.4.1 "),
    ] {
        for step in ["rcpt", "mail"] {
            let says = format!("554 5.7.1 <unknown[{address}]>: Client host rejected: Access denied");
            let two = TwoHops::start("", &format!("{step} => {says}"), "");
            let mut raw = Raw::hello_from(Ipv4Addr::new(127, 0, 0, client), two.network.node.smtp);
            say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
            say(&mut raw, "RCPT TO:<s0@c.test>", expected);
            let told = two.network.alerts("send_connector=secondary ");
            assert_eq!(told, usize::from(expected.starts_with('4')), "{says}, {client}");
        }
    }
}
