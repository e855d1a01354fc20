//! Interprets a refusal: whom it concerns, and what that means at this step (DESIGN section 7).
//!
//! [`read`] is the entry point. `rows` has the rows; whether the text counts and whom the refusal concerns is decided
//! here. A positive reply is not examined.

use std::net::IpAddr;

use super::row::{Compared, Row, Subject};
use super::rows::{self, general};
use super::words::{self, Words};
use super::{Alert, Step, belongs};
use crate::smtp::reply::Reply;

/// The texts and addresses of a transaction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Transaction<'a> {
    /// Texts that the client and we sent, unchanged: reverse-path, forward-paths, HELO names. Local parts need not be
    /// given separately.
    pub said: &'a [&'a str],
    /// Our name in EHLO.
    pub name: &'a str,
    /// The original client's address, if there is one.
    pub client: Option<IpAddr>,
    /// Our own addresses towards this next hop.
    pub ours: &'a [IpAddr],
}

/// The meaning of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Success: go on.
    Positive,
    /// A 2xx or 3xx that does not belong here: the conversation is out of step and cannot go on.
    OutOfStep,
    /// This next hop cannot be used now; neither sender nor recipient is concerned. At RCPT 4.3.x and 4.4.x mean so for
    /// that recipient only.
    Unreachable(Alert),
    /// The next hop does not trust us: unreachable, with an alert, and never a 5xx of ours. With [`Subject::Relaying`]
    /// it concerns the recipient's domain only.
    AboutUs,
    /// We send too fast: unreachable, and fewer connections from now on.
    Throttled,
    /// It does not understand a command of ours: unreachable, with an alert, and never passed on.
    OurMistake,
    /// It refuses the client, whose address is in the reply: passed on.
    ClientRefused,
    /// It refuses the sender: the outcome for each recipient of the branch, at RCPT for this one.
    SenderRefused,
    /// It accepts no more recipients in this transaction; the others go in another one.
    TooManyRecipients,
    /// The recipient is unknown; the directory is asked before this is believed.
    UnknownRecipient,
    /// A 4xx or 5xx about the recipient.
    RecipientRefused,
    /// A 4xx or 5xx about the message.
    ContentRefused,
    /// SPF, DKIM or DMARC fails because we relay: passed on, counted, with an alert that has the remedy.
    RelayedMailFails,
}

/// The meaning of a reply, and the row that gave it.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub meaning: Meaning,
    /// For log, trace and alert.
    pub row: &'static Row,
}

impl Reading {
    /// A reply that does not belong where it came, whatever it is.
    #[must_use]
    pub fn out_of_step() -> Self {
        Self { meaning: Meaning::OutOfStep, row: &general::OUT_OF_STEP }
    }
}

/// The row of this name, if it is for mail refused because we relayed it (SPF, DKIM or DMARC).
#[must_use]
pub fn relayed_mail(row: &str) -> Option<&'static Row> {
    rows::all().filter(|_| !row.is_empty()).find(|one| one.name == row && one.subject == Subject::RelayedMail)
}

/// Whether the row of this name is for an unspecific refusal by policy (x.7.x), which "refuses everybody" counts.
#[must_use]
pub fn is_unlisted_policy(row: &str) -> bool {
    // Postfix with `permit_mynetworks, reject` refuses every recipient because of us, with the text that it uses for a
    // single recipient.
    let unlisted = [general::SENDER_POLICY.name, general::RECIPIENT_POLICY.name, "postfix-recipient-rejected"];
    unlisted.contains(&row)
}

/// The meaning of `reply` at `step`.
#[must_use]
pub fn read(step: Step, reply: &Reply, transaction: &Transaction<'_>) -> Reading {
    if !reply.is_transient() && !reply.is_permanent() {
        return if belongs(step, reply.code) {
            Reading { meaning: Meaning::Positive, row: &general::ACCEPTED }
        } else {
            Reading { meaning: Meaning::OutOfStep, row: &general::OUT_OF_STEP }
        };
    }
    let refusal = Refusal::new(step, reply, transaction);
    let row = refusal.listed().unwrap_or_else(|| refusal.general());
    Reading { meaning: refusal.meaning(row.subject), row }
}

/// A parsed 4xx or 5xx.
struct Refusal<'a> {
    step: Step,
    reply: &'a Reply,
    transaction: &'a Transaction<'a>,
    code: Option<(u16, u16)>,
    words: Option<Words>,
}

impl<'a> Refusal<'a> {
    fn new(step: Step, reply: &'a Reply, transaction: &'a Transaction<'a>) -> Self {
        let code = words::code(reply, transaction.said);
        let count = match (step, code) {
            // Only the row's name depends on the text.
            (Step::Greeting | Step::Ehlo | Step::StartTls | Step::Auth, _) => true,
            // x.1.0 and 5.5.x do not tell whether they are about the sender, the recipient or a command.
            (Step::Mail | Step::Rcpt, None | Some((7 | 5, _) | (1, 0))) => true,
            _ => false,
        };
        let words = count.then(|| Words::of(reply, transaction.said));
        Self { step, reply, transaction, code, words }
    }

    fn listed(&self) -> Option<&'static Row> {
        let compared = Compared { reply: self.reply.code, code: self.code, words: self.words.as_ref() };
        let by_words_alone = || rows::first(&Compared { code: None, ..compared });
        rows::first(&compared).or_else(|| if self.is_before_mail() { by_words_alone() } else { None })
    }

    fn is_before_mail(&self) -> bool {
        matches!(self.step, Step::Greeting | Step::Ehlo | Step::StartTls | Step::Auth)
    }

    /// The row for a refusal that no other row matches.
    fn general(&self) -> &'static Row {
        match self.step {
            _ if self.reply.code == 421 => &general::HOP_UNAVAILABLE,
            Step::Greeting | Step::Ehlo | Step::StartTls | Step::Auth if self.reply.is_permanent() => {
                &general::CONNECTION_REFUSED
            }
            Step::Greeting | Step::Ehlo | Step::StartTls | Step::Auth => &general::HOP_UNAVAILABLE,
            Step::Mail => self.mail(),
            Step::Rcpt => self.rcpt(),
            Step::Data | Step::Dot => self.content(),
        }
    }

    fn mail(&self) -> &'static Row {
        match (self.reply.is_permanent(), self.code) {
            (false, Some((1, _))) => &general::SENDER_REFUSED,
            (false, _) => &general::HOP_UNAVAILABLE,
            _ if self.is_protocol() => self.protocol(),
            (true, Some((3, 2 | 5))) => &general::HOP_OUT_OF_ORDER,
            (true, None | Some((7, _))) if self.names_a_host() => &general::HOST_REFUSED,
            (true, Some((7, _))) => &general::SENDER_POLICY,
            _ => &general::SENDER_REFUSED,
        }
    }

    fn rcpt(&self) -> &'static Row {
        match (self.reply.code, self.code) {
            // RFC 5321 4.5.3.1.10: 552 once meant 452.
            (452, Some((5, 3))) | (500.., Some((5, 3))) | (552, None) => &general::TOO_MANY_RECIPIENTS,
            (552, Some((subject, _))) if subject != 2 && subject != 3 => &general::TOO_MANY_RECIPIENTS,
            // RFC 3463 3.2: the sender's address.
            (_, Some((1, 7 | 8))) => &general::SENDER_REFUSED,
            (400..500, Some((3 | 4, _))) => &general::HOP_UNAVAILABLE,
            (400..500, _) => &general::RECIPIENT_REFUSED,
            _ if self.is_protocol() => self.protocol(),
            (_, Some((3, 2 | 5))) => &general::HOP_OUT_OF_ORDER,
            (_, None | Some((7, _))) if self.names_a_host() => &general::HOST_REFUSED,
            (550 | 551 | 553, None | Some((1, _) | (4, 1) | (5, 0))) => &general::RECIPIENT_UNKNOWN,
            (_, Some((7, _))) => &general::RECIPIENT_POLICY,
            _ => &general::RECIPIENT_REFUSED,
        }
    }

    fn content(&self) -> &'static Row {
        match (self.reply.code, self.code) {
            (500.., Some((1, 7 | 8))) => &general::SENDER_REFUSED,
            // Exchange's recipient filter on mailbox servers refuses after the end of data (Microsoft, "Recipient
            // filtering").
            (500.., Some((1, 1..=6 | 10..) | (4, 1))) => &general::RECIPIENT_UNKNOWN,
            _ if self.is_protocol() => &general::NOT_UNDERSTOOD,
            _ => &general::CONTENT_REFUSED,
        }
    }

    /// Whether it concerns a command, a parameter, or the address in it.
    fn is_protocol(&self) -> bool {
        matches!((self.reply.code, self.code), (500..=504 | 555, _) | (500.., Some((5, 1 | 2 | 4))))
    }

    fn protocol(&self) -> &'static Row {
        let about_an_address = match (self.reply.code, self.code) {
            (_, Some((1, _))) => true,
            (500 | 502 | 503, _) => false,
            _ => {
                self.words.as_ref().is_some_and(|own| !own.say_any(COMMAND) && (own.say_any(ADDRESS) || self.repeats()))
            }
        };
        if about_an_address { &general::ADDRESS_REFUSED } else { &general::NOT_UNDERSTOOD }
    }

    fn repeats(&self) -> bool {
        words::repeats_an_address(&self.reply.text, self.transaction.said)
    }

    /// Whether the reply has a host's address or name: any IP address, or our name.
    fn names_a_host(&self) -> bool {
        words::names_a_host(&self.reply.text, self.transaction.name, self.transaction.said)
    }

    /// Whether the reply has the client's address, and that is not ours. Any other address is ours as seen from
    /// outside.
    fn names_the_client(&self) -> bool {
        let ours = |client: &IpAddr| self.transaction.ours.iter().any(|ours| ours.to_canonical() == *client);
        let client = self.transaction.client.map(|client| client.to_canonical()).filter(|client| !ours(client));
        client.is_some_and(|client| words::addresses(&self.reply.text, self.transaction.said).contains(&client))
    }

    /// The meaning, by the subject.
    fn meaning(&self, subject: Subject) -> Meaning {
        let alert = if self.reply.is_permanent() { Alert::Yes } else { Alert::No };
        match subject {
            Subject::Rate if self.is_before_mail() => Meaning::Throttled,
            Subject::Us | Subject::Relaying | Subject::RelayedMail if self.is_before_mail() => {
                Meaning::Unreachable(Alert::Yes)
            }
            _ if self.is_before_mail() => Meaning::Unreachable(alert),
            Subject::Us | Subject::Relaying | Subject::Rate if self.names_the_client() => match self.reply.code {
                421 => Meaning::Unreachable(Alert::No),
                _ => Meaning::ClientRefused,
            },
            Subject::Us | Subject::Relaying => Meaning::AboutUs,
            Subject::Rate => Meaning::Throttled,
            Subject::Hop => Meaning::Unreachable(alert),
            Subject::Conversation => Meaning::OurMistake,
            Subject::RelayedMail if self.reply.code == 421 => Meaning::Unreachable(Alert::Yes),
            _ if self.reply.code == 421 => Meaning::Unreachable(Alert::No),
            _ => self.passed_on(subject),
        }
    }

    /// A refusal that does not concern us, at MAIL and later.
    fn passed_on(&self, subject: Subject) -> Meaning {
        match (self.step, subject) {
            (_, Subject::Sender) | (Step::Mail, Subject::Address) => Meaning::SenderRefused,
            (Step::Mail, _) if self.reply.is_transient() => Meaning::Unreachable(Alert::No),
            (_, Subject::RelayedMail) => Meaning::RelayedMailFails,
            (_, Subject::Content) => Meaning::ContentRefused,
            (Step::Mail, _) => Meaning::SenderRefused,
            (Step::Rcpt, Subject::NumberOfRecipients) => Meaning::TooManyRecipients,
            (_, Subject::UnknownRecipient) if self.reply.is_permanent() => Meaning::UnknownRecipient,
            (Step::Rcpt, _) | (_, Subject::Recipient) => Meaning::RecipientRefused,
            _ => Meaning::ContentRefused,
        }
    }
}

/// Words in complaints about a command or a parameter.
const COMMAND: &[&str] = &[
    "parameter",
    "parameters",
    "argument",
    "arguments",
    "option",
    "options",
    "command",
    "commands",
    "keyword",
    "extension",
    "unrecognized",
    "unrecognised",
    "unimplemented",
    "implemented",
    "sequence",
    "notify",
    "orcpt",
    "envid",
    "ret",
    "body",
    "size",
    "helo",
    "ehlo",
    "helo/ehlo",
    "smtputf8",
];

/// Words in complaints about an address.
const ADDRESS: &[&str] = &[
    "address",
    "addresses",
    "mailbox",
    "recipient",
    "sender",
    "user",
    "domain",
    "hostname",
    "local part",
    "local-part",
    "unbalanced",
];
