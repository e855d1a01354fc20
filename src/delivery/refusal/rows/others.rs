//! Texts about the sender, the recipient and the content that several products share. A row's name says what it is
//! about.
//!
//! Sources: Exim's `src/configure.default`, `src/routers/rf_self_action.c` and its callout; Sendmail's
//! `cf/m4/proto.m4`; notqmail's and Sagredo's `qmail-smtpd.c`; IBM's technote swg21212690 (Domino); Micro Focus KB
//! 7002570 (GroupWise); "Gmail SMTP errors and codes"; the texts that Sisimai (github.com/sisimai/p5-sisimai) has
//! collected from real reports.

use crate::delivery::refusal::row::Class::{Either, Permanent};
use crate::delivery::refusal::row::Row;
use crate::delivery::refusal::row::Subject::{
    Content, NumberOfRecipients, Recipient, RelayedMail, Sender, UnknownRecipient,
};
use crate::delivery::refusal::row::When::{Code, CodeAndSays, Says};

/// About the sender, in texts that could also be about others. They come first.
pub(super) static SENDER: &[Row] = &[
    Row {
        name: "exim-sender-verify",
        subject: Sender,
        says: "Sender verify failed, after what the callout met",
        look_at: "",
        when: &[Says(Either, &["sender verify failed", "could not complete sender verify"])],
    },
    Row {
        name: "sender-listed",
        subject: Sender,
        says: "your envelope sender is in my badmailfrom list, has been denied; sender is blacklisted",
        look_at: "",
        // qmail err_bmf; Sagredo's qregex; Sendmail; MessageLabs; Domino's "Mail from ... rejected for policy reasons".
        when: &[
            CodeAndSays(1, 0, &["sender rejected", "sender unknown"]),
            Says(
                Permanent,
                &[
                    "envelope sender is in my badmailfrom list",
                    "envelope sender has been denied",
                    "your email address has been blacklisted",
                    "sender is blacklisted",
                    "sender black listed",
                    "sender rejected",
                    "sender denied",
                    "sender blocked",
                    "sender not allowed",
                    "mail from rejected for policy reasons",
                    "mail from was rejected for policy reasons",
                    "domain of sender address does not exist",
                    "domain of sender address does not resolve",
                    "sender domain does not exist",
                    "mail sending denied",
                ],
            ),
        ],
    },
    Row {
        name: "relayed-mail-fails-words",
        subject: RelayedMail,
        says: "SPF fail, is not allowed to send mail from, dmarc policy, Sender ID Not Permitted",
        look_at: "let the next hop trust us (our address in its list of relays or of ARC sealers), or filter before us",
        when: &[Says(
            Either,
            &[
                "sender policy framework",
                "spf fail",
                "spf check failed",
                "spf validation",
                "spf failure",
                "spf violation",
                "rejected by spf",
                "fails spf",
                "failed spf",
                "blocked by spf",
                "spf unauthorized mail is prohibited",
                "is not allowed to send mail from",
                "not authorized to send mail from",
                "does not pass dmarc",
                "dmarc policy",
                "failed dmarc",
                "dmarc fail",
                "dmarc failure",
                "dmarc check",
                "rejected by dmarc",
                "fails dmarc",
                "sender id not permitted",
                "pass authentication checks",
            ],
        )],
    },
];

/// By texts.
pub(super) static WORDS: &[Row] = &[
    Row {
        name: "too-many-recipients-words",
        subject: NumberOfRecipients,
        says: "452 too many recipients, without an enhanced code; max rcpt limit exceeded",
        look_at: "",
        // RFC 5321 4.5.3.1.10; Exim; Sagredo's err_maxrcpt (452, #5.7.1).
        when: &[Says(Either, &["too many recipients", "max rcpt limit exceeded"])],
    },
    Row {
        name: "mailbox-full",
        subject: Recipient,
        says: "mailbox full, quota exceeded, over quota, exceeded storage allocation",
        look_at: "",
        when: &[
            Code(Either, 2, 2, 2),
            Says(
                Either,
                &[
                    "mailbox full",
                    "mailbox is full",
                    "quota exceeded",
                    "quota is exceeded",
                    "over quota",
                    "exceeded storage allocation",
                    "out of storage space",
                ],
            ),
        ],
    },
    Row {
        name: "message-too-large",
        subject: Content,
        says: "x.3.4, x.2.3: the message is larger than the next hop or the recipient takes",
        look_at: "",
        when: &[
            Code(Permanent, 3, 4, 4),
            Code(Either, 2, 3, 3),
            Says(
                Either,
                &[
                    "message size exceeds",
                    "message too large",
                    "message is too large",
                    "message too big",
                    "message file too big",
                ],
            ),
        ],
    },
    Row {
        name: "recipient-unknown",
        subject: UnknownRecipient,
        says: "User unknown, No such user, no mailbox here by that name, Recipient unknown, Unrouteable address, ...",
        look_at: "",
        // Sendmail, Exim, qmail, GroupWise (KB 7002570: "No such recipient", "Recipient unknown"), Domino, Dovecot,
        // hMailServer, IceWarp, OpenSMTPD; Sisimai::Reason::UserUnknown.
        when: &[Says(
            Permanent,
            &[
                "user unknown",
                "unknown user",
                "no such",
                "is unknown",
                "no mailbox",
                "no account",
                "recipient unknown",
                "unknown recipient",
                "unknown mailbox",
                "unknown local part",
                "unknown address",
                "address unknown",
                "account unknown",
                "unknown account",
                "mailbox unavailable",
                "mailbox not found",
                "mailbox does not exist",
                "mailbox unknown",
                "user not found",
                "recipient not found",
                "user does not exist",
                "user doesn't exist",
                "recipient does not exist",
                "address does not exist",
                "account does not exist",
                "invalid recipient",
                "invalid mailbox",
                "not our customer",
                "unrouteable address",
                "unroutable address",
                "not in my validrcptto list",
                "not listed in domino directory",
                "is not a known user",
                "is not a valid mailbox",
                "not a valid user here",
                "not a local address",
            ],
        )],
    },
    Row {
        name: "recipient-refused-words",
        subject: Recipient,
        says: "Restricted characters in address; lowest numbered MX record points to local host; recipient denied, ...",
        look_at: "",
        // Exim's configure.default and rf_self_action.c; Sagredo's err_bmt; Gmail's policy; Sendmail's access map.
        when: &[Says(
            Either,
            &[
                "restricted characters in address",
                "lowest numbered mx record points to local host",
                "remote host address is the local host",
                "envelope recipient has been denied",
                "envelope recipient is in my badrcptto list",
                "has a policy that prohibited",
                "mailbox disabled for this recipient",
                "mailbox disabled",
                "account disabled",
                "account is disabled",
                "user disabled",
                "not accepting messages",
            ],
        )],
    },
    Row {
        name: "content-words",
        subject: Content,
        says: "Message rejected as spam, Message rejected for policy reasons, content rejected, ...",
        look_at: "",
        // Exchange's Content Filter; Domino (swg21212690); Postfix's cleanup and milters; Gmail.
        when: &[Says(
            Permanent,
            &[
                "rejected as spam",
                "spam message rejected",
                "message rejected for policy reasons",
                "message content rejected",
                "message rejected due to content",
                "identified as spam",
                "considered spam",
                "likely unsolicited mail",
                "virus found",
                "contains a virus",
            ],
        )],
    },
];
