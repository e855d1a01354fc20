//! Codes of RFCs, and those of Gmail, which shares some of them.
//!
//! RFC 4954 6, RFC 3207 4, RFC 5248 2.4 and RFC 7372; "Gmail SMTP errors and codes" (support.google.com/a/answer/3726730).

use crate::delivery::refusal::row::Class::{Either, Permanent, Transient};
use crate::delivery::refusal::row::Row;
use crate::delivery::refusal::row::Subject::{Rate, RelayedMail, Us};
use crate::delivery::refusal::row::When::{Code, Reply};

/// Codes of RFC 4954, RFC 5248 and RFC 3463 that concern us, and Gmail's, at every step.
pub(super) static CODES: &[Row] = &[
    Row {
        name: "authentication",
        subject: Us,
        says: "530, 534, 535, 538, x.7.3 to x.7.5, x.7.8 to x.7.11: authentication or encryption is required, or failed",
        look_at: "`auth` and `tls` of the connector; whether the account there is locked or its password has changed",
        // RFC 4954 6, RFC 3207 4, RFC 5248 2.4 (523, 524, 525); Exchange's 5.7.3.
        when: &[
            Reply(523),
            Reply(524),
            Reply(525),
            Reply(530),
            Reply(534),
            Reply(535),
            Reply(538),
            Code(Either, 7, 3, 5),
            Code(Either, 7, 8, 11),
        ],
    },
    Row {
        name: "no-ptr",
        subject: Us,
        says: "x.7.25, 4.7.23: our address has no PTR record, or the name does not lead back to it",
        look_at: "the PTR record of our public address, and the A record of that name",
        // RFC 7372 3.3; Gmail 421 4.7.23, 550 5.7.25; Postfix 450 4.7.25; Exchange Online 5.7.25 (IPv6).
        when: &[Code(Either, 7, 25, 25), Code(Transient, 7, 23, 23)],
    },
    Row {
        name: "gmail-unusual-rate",
        subject: Rate,
        says: "4.7.28 Gmail has detected an unusual rate of mail",
        look_at: "how much we send, and whether it is spam",
        when: &[Code(Transient, 7, 28, 28)],
    },
    Row {
        name: "gmail-unusual-rate-blocked",
        subject: Us,
        says: "5.7.28 There is an unusual rate of unsolicited mail originating from your IP address",
        look_at: "what is sent from our address; https://support.google.com/mail/answer/81126",
        when: &[Code(Permanent, 7, 28, 28)],
    },
    Row {
        name: "gmail-sending-limit",
        subject: Rate,
        says: "5.4.5 Daily SMTP relay limit, user sending limit exceeded",
        look_at: "the limits of the relay service or of our account there",
        when: &[Code(Permanent, 4, 5, 5)],
    },
    Row {
        name: "gmail-tls-required",
        subject: Us,
        says: "x.7.29 this message wasn't sent over a TLS connection",
        look_at: "`tls` of the connector",
        when: &[Code(Either, 7, 29, 29)],
    },
];

/// More codes, after the texts: RFC 7372's, which Gmail shares.
pub(super) static RELAYED_CODES: &[Row] = &[Row {
    name: "relayed-mail-fails",
    subject: RelayedMail,
    says: "5.7.20 to 5.7.24, 5.7.26, 5.7.27, 5.7.30, 5.7.32, 5.7.40, 4.7.24 to 4.7.32: SPF, DKIM or DMARC fails",
    look_at: "let the next hop trust us (our address in its list of relays or of ARC sealers), or filter before us",
    // RFC 7372 3.1, 3.2, 3.4 (20 to 24, 26); Gmail 24, 26, 27, 30, 32, 40; Exchange Online 5.7.23, 4.7.26.
    when: &[
        Code(Either, 7, 20, 22),
        Code(Permanent, 7, 23, 23),
        Code(Either, 7, 24, 24),
        Code(Either, 7, 26, 27),
        Code(Either, 7, 30, 30),
        Code(Either, 7, 32, 32),
        Code(Either, 7, 40, 40),
    ],
}];
