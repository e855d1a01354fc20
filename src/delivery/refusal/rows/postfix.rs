//! Replies of Postfix: smtpd with its restrictions, and postscreen.
//!
//! Texts are those of `smtpd_check.c`, `smtpd.c` and `postscreen_*.c` (Postfix 3.8), codes as `postconf -d` has them.
//! With `smtpd_delay_reject`, refusals of the client, HELO and the sender come at RCPT.

use crate::delivery::refusal::row::Class::{Either, Permanent};
use crate::delivery::refusal::row::Row;
use crate::delivery::refusal::row::Subject::{Address, Hop, Rate, Recipient, Sender, UnknownRecipient, Us};
use crate::delivery::refusal::row::When::{CodeAndSays, Says};

/// About the sender, in texts that could also be about others. They come first.
pub(super) static SENDER: &[Row] = &[
    Row {
        name: "postfix-sender-login",
        subject: Us,
        says: "Sender address rejected: not owned by user ...; Sender address rejected: not logged in",
        look_at: "`smtpd_sender_login_maps` there: our account or our address must be let send for others",
        // reject_sender_login_mismatch and its two halves.
        when: &[Says(Either, &["sender address rejected not owned by user", "sender address rejected not logged in"])],
    },
    Row {
        name: "postfix-sender-rejected",
        subject: Sender,
        says: "Sender address rejected: Access denied, Domain not found, User unknown, undeliverable address, ...",
        look_at: "",
        // check_sender_access, reject_unknown_sender_domain, reject_unlisted_sender (5.1.0), reject_unverified_sender,
        // reject_rhsbl_sender; RFC 7505 (5.7.27) in Postfix's words.
        when: &[
            Says(Either, &["sender address rejected", "sender address blocked using"]),
            CodeAndSays(1, 0, &["sender address rejected"]),
        ],
    },
    Row {
        name: "postfix-not-fully-qualified",
        subject: Address,
        says: "Sender/Recipient address rejected: need fully-qualified address",
        look_at: "",
        // reject_non_fqdn_sender, reject_non_fqdn_recipient: 504 5.5.2.
        when: &[CodeAndSays(5, 2, &["need fully-qualified address"])],
    },
];

/// By texts.
pub(super) static WORDS: &[Row] = &[
    Row {
        name: "postfix-throttled",
        subject: Rate,
        says: "Error: too many connections, too much mail, too many recipients, too many new TLS sessions from ...",
        look_at: "`smtpd_client_event_limit_exceptions` there: add our address",
        // anvil's limits in smtpd.c; postscreen.
        when: &[Says(
            Either,
            &[
                "error too many connections",
                "error too much mail from",
                "error too many recipients from",
                "error too many new tls sessions",
                "error too many auth commands",
                "all screening ports are busy",
                "all server ports are busy",
            ],
        )],
    },
    Row {
        name: "postfix-too-many-errors",
        subject: Hop,
        says: "Error: too many errors",
        look_at: "",
        // smtpd_hard_error_limit: the connection ends.
        when: &[Says(Either, &["error too many errors", "too many errors on this connection"])],
    },
    Row {
        name: "postfix-client-rejected",
        subject: Us,
        says: "Client host rejected: Access denied, cannot find your hostname, cannot find your reverse hostname, ...",
        look_at: "`mynetworks`, `smtpd_client_restrictions` and access maps there; the PTR record of our address",
        // reject, check_client_access, reject_unknown_client_hostname, reject_unknown_reverse_client_hostname.
        when: &[
            Says(
                Either,
                &[
                    "client host rejected",
                    "unverified client host rejected",
                    "cannot find your hostname",
                    "cannot find your reverse hostname",
                    "error access denied for",
                ],
            ),
            CodeAndSays(5, 0, &["client host rejected"]),
        ],
    },
    Row {
        name: "postfix-helo-rejected",
        subject: Us,
        says: "Helo command rejected: Host not found, Invalid name, need fully-qualified hostname, Access denied",
        look_at: "`hostname`: what we say in EHLO must be a full name that resolves to our address",
        // reject_invalid_helo_hostname (501 5.5.2), reject_non_fqdn_helo_hostname (504 5.5.2),
        // reject_unknown_helo_hostname (450 4.7.1), check_helo_access.
        when: &[
            Says(Either, &["helo command rejected", "ehlo command rejected", "helo command blocked using"]),
            CodeAndSays(5, 2, &["helo command rejected", "ehlo command rejected"]),
        ],
    },
    Row {
        name: "postfix-block-list",
        subject: Us,
        says: "Service unavailable; Client host [...] blocked using ...",
        look_at: "the block list in the reply: take our address off it, or let the next hop except us",
        // default_rbl_reply; postscreen: "client [...] blocked using".
        when: &[Says(Either, &["client host blocked using", "client blocked using"])],
    },
    Row {
        name: "postfix-policy-unavailable",
        subject: Hop,
        says: "Service unavailable - try again later; Server configuration problem; Temporary lookup failure",
        look_at: "policy services, milters and tables of the next hop",
        when: &[Says(
            Either,
            &["service unavailable try again later", "server configuration problem", "temporary lookup failure"],
        )],
    },
    Row {
        name: "greylisted",
        subject: Recipient,
        says: "Greylisted, Greylisting in action, please come back later",
        look_at: "",
        // Postgrey, milter-greylist and similar: the client retries, and is accepted.
        when: &[Says(
            Either,
            &[
                "rejected greylisted",
                "you are greylisted",
                "greylisted by",
                "greylisted for",
                "been greylisted",
                "due to greylisting",
                "greylist policy",
                "grey listed",
                "greylisting in action",
                "greylisting in effect",
                "temporarily greylisted",
                "greylisted please try again",
            ],
        )],
    },
    Row {
        name: "postfix-recipient-unlisted",
        subject: UnknownRecipient,
        says: "User unknown in local recipient, virtual alias, virtual mailbox or relay recipient table",
        look_at: "",
        // reject_unlisted_recipient: 550 5.1.1, here with other codes (`unknown_*_reject_code`).
        when: &[Says(
            Permanent,
            &[
                "unknown in local recipient table",
                "unknown in virtual alias table",
                "unknown in virtual mailbox table",
                "unknown in relay recipient table",
                "recipient address rejected user unknown",
                "recipient address rejected undeliverable address",
            ],
        )],
    },
    Row {
        name: "postfix-recipient-rejected",
        subject: Recipient,
        says: "Recipient address rejected: Access denied, unverified address, Domain not found, ...",
        look_at: "",
        // check_recipient_access, reject_unverified_recipient, policy services; reject_rhsbl_recipient.
        when: &[Says(Either, &["recipient address rejected", "recipient address blocked using"])],
    },
];
