//! One row of the table of refusals: what a server says, whom it is about, and what an administrator looks at.
//!
//! `rows` has them all in order; `read` takes the first that fits. The page docs/refusals.md shows every row.

use super::words::Words;

/// Whom a refusal is about. That decides what it means; `read` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Us: our address or name, our authentication, our connection; or the client, where the reply has his address.
    Us,
    /// Us too, but it concerns the recipient's domain alone: the hop does not relay for us there.
    Relaying,
    /// How fast we send.
    Rate,
    /// The next hop itself: it cannot now.
    Hop,
    /// The conversation: a command or a parameter that it does not understand.
    Conversation,
    /// The address of the command: the sender at MAIL, the recipient at RCPT.
    Address,
    Sender,
    /// SPF, DKIM or DMARC of the sender's domain, as they look once we have relayed.
    RelayedMail,
    /// More recipients than it takes at once.
    NumberOfRecipients,
    /// A recipient whom it does not have.
    UnknownRecipient,
    /// The recipient in another way.
    Recipient,
    Content,
    /// Nobody: the reply is no refusal.
    Nobody,
}

impl Subject {
    /// What we make of it, in words for the manual.
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
    /// What log, trace and `fingerpost route` call it.
    pub name: &'static str,
    /// Whom it is about.
    pub subject: Subject,
    /// What the server says, in words for the manual.
    pub says: &'static str,
    /// What an administrator should look at; empty where nobody has to.
    pub look_at: &'static str,
    /// When it fits; one of them is enough. The general rows have none: `read` chooses them.
    pub(super) when: &'static [When],
}

/// 4xx, 5xx or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Transient,
    Permanent,
    Either,
}

/// When a row fits. Codes count at every step; words only where `read` lets them.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// A reply code, where an enhanced code does not speak of something else than security or the protocol.
    Reply(u16),
    /// Class, subject, and detail from and to.
    Code(Class, u16, u16, u16),
    /// The server's own words, with x.7.x or without an enhanced code.
    Says(Class, &'static [&'static str]),
    /// The same with this subject and detail, where the code alone leaves open whom it is about.
    CodeAndSays(u16, u16, &'static [&'static str]),
}

/// What rows are compared with.
pub(super) struct Compared<'a> {
    pub reply: u16,
    pub code: Option<(u16, u16)>,
    /// Its own words, where words count.
    pub words: Option<&'a Words>,
}

impl Row {
    pub(super) fn fits(&self, refusal: &Compared<'_>) -> bool {
        self.when.iter().any(|when| when.fits(refusal))
    }

    /// The phrases of the row, for tests of what a client could have echoed.
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
