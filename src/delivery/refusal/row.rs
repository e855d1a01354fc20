//! A row of the table of refusals: what a server sends, whom it concerns, and what an administrator should look at.
//!
//! `rows` has them in order; `read` takes the first that matches. docs/refusals.md lists every row.

use super::words::Words;

/// Whom a refusal concerns, which determines its meaning (in `read`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Us: our address or name, our authentication, our connection; or the client, if its address is in the reply.
    Us,
    /// Us as well, but for the recipient's domain only: the host does not relay for us there.
    Relaying,
    Rate,
    /// The next hop itself: it is unavailable.
    Hop,
    /// A command or a parameter that it does not understand.
    Conversation,
    /// The address in the command: the sender at MAIL, the recipient at RCPT.
    Address,
    Sender,
    /// SPF, DKIM or DMARC of the sender's domain, which fail after relaying.
    RelayedMail,
    /// More recipients than it accepts at once.
    NumberOfRecipients,
    UnknownRecipient,
    /// The recipient, for another reason.
    Recipient,
    Content,
    /// None: the reply is not a refusal.
    Nobody,
}

impl Subject {
    /// How it is handled, as text for the manual.
    #[must_use]
    pub const fn makes(self) -> &'static str {
        match self {
            Self::Us => "about us: out of reach, an alert; the client's own refusal where the reply has his address",
            Self::Relaying => "about us, for this domain: out of reach, an alert",
            Self::Rate => "too fast: out of reach, fewer connections",
            Self::Hop => "the next hop cannot now: out of reach",
            Self::Conversation => "our mistake: out of reach, an alert",
            Self::Address => "that address's answer: the sender's at MAIL, the recipient's at RCPT",
            Self::Sender => "the sender is refused",
            Self::RelayedMail => "passed on and counted, an alert with the cure",
            Self::NumberOfRecipients => "the other recipients go in another transaction",
            Self::UnknownRecipient => "unknown recipient: the directory is asked before it is believed",
            Self::Recipient => "the recipient's answer, passed on",
            Self::Content => "the message's answer, passed on",
            Self::Nobody => "no refusal",
        }
    }
}

#[derive(Debug)]
pub struct Row {
    /// The name in log, trace and `fingerpost route`.
    pub name: &'static str,
    pub subject: Subject,
    /// What the server sends, as text for the manual.
    pub says: &'static str,
    /// What an administrator should look at; empty: nothing.
    pub look_at: &'static str,
    /// Conditions, of which one has to match. General rows have none: `read` chooses them.
    pub(super) when: &'static [When],
}

/// 4xx, 5xx or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Transient,
    Permanent,
    Either,
}

/// When a row matches. Codes count at every step; texts only where `read` allows it.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// A reply code, unless an enhanced code has another subject than security or the protocol.
    Reply(u16),
    /// Class, subject, and detail from and to.
    Code(Class, u16, u16, u16),
    /// The server's own text, with x.7.x or without an enhanced code.
    Says(Class, &'static [&'static str]),
    /// The same with this subject and detail, where the code alone does not tell whom it concerns.
    CodeAndSays(u16, u16, &'static [&'static str]),
}

/// What rows are compared with.
pub(super) struct Compared<'a> {
    pub reply: u16,
    pub code: Option<(u16, u16)>,
    /// Its own text, where texts count.
    pub words: Option<&'a Words>,
}

impl Row {
    pub(super) fn fits(&self, refusal: &Compared<'_>) -> bool {
        self.when.iter().any(|when| when.fits(refusal))
    }

    /// The phrases of the row, for tests of what a client could have caused to be echoed.
    pub fn phrases(&self) -> impl Iterator<Item = &'static str> {
        let of = |when: &'static When| match when {
            When::Says(_, phrases) | When::CodeAndSays(_, _, phrases) => *phrases,
            When::Reply(_) | When::Code(..) => &[],
        };
        self.when.iter().flat_map(of).copied()
    }
}

impl When {
    fn fits(self, refusal: &Compared<'_>) -> bool {
        match (self, refusal.code) {
            (Self::Reply(code), None | Some((0 | 5 | 7, _))) => refusal.reply == code,
            (Self::Code(class, subject, from, to), Some((said, detail))) => {
                class.has(refusal.reply) && said == subject && (from..=to).contains(&detail)
            }
            (Self::Says(class, phrases), None | Some((7, _))) => class.has(refusal.reply) && refusal.say(phrases),
            (Self::CodeAndSays(subject, detail, phrases), Some(code)) => {
                code == (subject, detail) && refusal.say(phrases)
            }
            _ => false,
        }
    }
}

impl Class {
    fn has(self, reply: u16) -> bool {
        match self {
            Self::Transient => (400..500).contains(&reply),
            Self::Permanent => (500..600).contains(&reply),
            Self::Either => true,
        }
    }
}

impl Compared<'_> {
    pub(super) fn say(&self, phrases: &[&str]) -> bool {
        self.words.is_some_and(|words| words.say_any(phrases))
    }
}
