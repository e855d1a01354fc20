//! What the next hop says, and what it means: the table of DESIGN section 7 as one pure function.
//!
//! `attempt` asks [`meaning`] about every reply it reads and acts on the answer. [`read`] is the same by the table of
//! what servers really say ([`rows`]), with the row's name. [`hide`] takes internal names out of a next hop's words;
//! reports call it. What a break of the connection means is `attempt`'s business.

use crate::smtp::reply::{Enhanced, Reply};

pub mod hide;
pub mod read;
pub mod row;
pub mod rows;
pub mod words;

/// What the next hop was replying to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Our connection.
    Greeting,
    /// EHLO, or HELO after it.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH and what belongs to it, up to the last reply.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The final dot, or the last BDAT.
    Dot,
}

/// Whether somebody has to look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// It passes by itself.
    No,
    /// It will not go away by itself.
    Yes,
}

/// What one reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Yes: go on.
    Positive,
    /// This next hop cannot be used now; nothing is said of sender or recipient.
    Unreachable(Alert),
    /// The next hop does not trust us: unreachable, breaker, alert; never the recipient's.
    FaultBetweenUs,
    /// We said something that it does not understand: unreachable, alert, never passed on.
    OurMistake,
    /// A 2xx or 3xx that does not belong here: the conversation is out of step and cannot go on.
    OutOfStep,
    /// The sender is refused: the answer to each recipient of the branch.
    SenderRefused,
    /// No more recipients in this transaction; the others go in another one.
    TooManyRecipients,
    /// Whether it exists is asked of the directory before this is believed.
    UnknownRecipient,
    /// The recipient's own answer, 4xx or 5xx.
    PassedOn,
    /// The branch's final reply, 4xx or 5xx.
    FinalReply,
}

/// What `reply` means at `step`: the first row of the table that fits.
#[must_use]
pub fn meaning(step: Step, reply: &Reply) -> Meaning {
    if !reply.is_transient() && !reply.is_permanent() {
        return if belongs(step, reply.code) { Meaning::Positive } else { Meaning::OutOfStep };
    }
    match step {
        Step::Greeting | Step::Ehlo | Step::StartTls | Step::Auth => {
            Meaning::Unreachable(if reply.is_permanent() { Alert::Yes } else { Alert::No })
        }
        _ if is_fault_between_us(reply) => Meaning::FaultBetweenUs,
        _ if is_our_mistake(reply) => Meaning::OurMistake,
        Step::Mail if reply.is_transient() => Meaning::Unreachable(Alert::No),
        Step::Mail => Meaning::SenderRefused,
        Step::Rcpt => recipient(reply),
        Step::Data | Step::Dot => Meaning::FinalReply,
    }
}

/// Whether a 2xx or 3xx is what this step goes on with (RFC 5321 4.3.2).
fn belongs(step: Step, code: u16) -> bool {
    match step {
        Step::Data => code == 354,
        Step::Auth => code == 334 || code == 235,
        _ => (200..300).contains(&code),
    }
}

/// The rows for RCPT that are RCPT's alone.
fn recipient(reply: &Reply) -> Meaning {
    match (reply.code, detail(reply)) {
        // RFC 5321 4.5.3.1.10: 552 once meant 452.
        (452, Some((5, 3))) => Meaning::TooManyRecipients,
        (552, None) => Meaning::TooManyRecipients,
        (552, Some((subject, _))) if subject != 2 && subject != 3 => Meaning::TooManyRecipients,
        (421, _) => Meaning::Unreachable(Alert::No),
        (400..500, Some((3 | 4, _))) => Meaning::Unreachable(Alert::No),
        (550 | 551 | 553, None | Some((1, _) | (4, 1) | (5, 0))) => Meaning::UnknownRecipient,
        _ => Meaning::PassedOn,
    }
}

/// RFC 4954 6 (530, 535, 538); Exchange's 5.7.54, 5.7.57 and 5.7.64 (attribution, anonymous submission, tenant);
/// and a denial of relaying. Servers without enhanced codes (Exim) deny it with `550 relay not permitted`, which
/// must not pass for an unknown recipient.
fn is_fault_between_us(reply: &Reply) -> bool {
    let says_relay = || reply.text.to_ascii_lowercase().contains("relay");
    match (reply.code, detail(reply)) {
        (530 | 535 | 538, _) => true,
        (500.., Some((7, 54 | 57 | 64))) => true,
        (550.., Some((7, 1)) | None) => says_relay(),
        _ => false,
    }
}

/// A command that was not understood, or came out of order.
fn is_our_mistake(reply: &Reply) -> bool {
    matches!((reply.code, detail(reply)), (500..=504, _) | (500.., Some((5, 1 | 2 | 4))))
}

/// Subject and detail of the enhanced code.
fn detail(reply: &Reply) -> Option<(u16, u16)> {
    reply.enhanced.map(|Enhanced(_, subject, detail)| (subject, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (first, words) = rest.split_once(' ').unwrap_or((rest, ""));
        let parts: Vec<u16> = first.split('.').filter_map(|part| part.parse().ok()).collect();
        match parts[..] {
            [class, subject, detail] => Reply {
                code: code.parse().unwrap(),
                enhanced: Some(Enhanced(u8::try_from(class).unwrap(), subject, detail)),
                text: words.to_owned().into(),
            },
            _ => Reply::bare(code.parse().unwrap(), rest.to_owned().into()),
        }
    }

    const UNREACHABLE: Meaning = Meaning::Unreachable(Alert::No);
    const UNREACHABLE_ALERT: Meaning = Meaning::Unreachable(Alert::Yes);

    #[test]
    fn before_mail_every_refusal_is_the_next_hops_own() {
        for step in [Step::Greeting, Step::Ehlo, Step::StartTls, Step::Auth] {
            for (said, means) in [
                ("421 4.3.2 shutting down", UNREACHABLE),
                ("454 4.7.0 TLS not available", UNREACHABLE),
                ("554 5.7.1 no relay for you", UNREACHABLE_ALERT),
                ("535 5.7.8 bad credentials", UNREACHABLE_ALERT),
                ("504 5.5.4 unknown mechanism", UNREACHABLE_ALERT),
                ("550 blocked", UNREACHABLE_ALERT),
            ] {
                assert_eq!(meaning(step, &reply(said)), means, "{step:?} {said}");
            }
        }
    }

    #[test]
    fn faults_between_us_are_nobodys_bounce() {
        for step in [Step::Mail, Step::Rcpt, Step::Data, Step::Dot] {
            for said in [
                "530 5.7.0 authentication required",
                "530 must issue STARTTLS",
                "535 5.7.3 no",
                "538 5.7.11 encryption required",
                "550 5.7.54 SMTP; unable to relay recipient in non-accepted domain",
                "550 5.7.57 client was not authenticated to send anonymous mail",
                "550 5.7.64 TenantAttribution",
                "554 5.7.1 <a@b>: Relay access denied",
                "550 5.7.1 Unable to relay",
                "550 RELAYING denied",
            ] {
                assert_eq!(meaning(step, &reply(said)), Meaning::FaultBetweenUs, "{step:?} {said}");
            }
        }
    }

    #[test]
    fn our_mistakes_are_nobodys_bounce() {
        for step in [Step::Mail, Step::Rcpt, Step::Data, Step::Dot] {
            for said in [
                "500 what?",
                "501 5.1.3 bad address syntax",
                "502 not implemented",
                "503 bad sequence",
                "504 5.5.4 no such parameter",
                "555 5.5.4 unsupported option",
                "550 5.5.1 invalid command",
                "554 5.5.2 syntax",
            ] {
                assert_eq!(meaning(step, &reply(said)), Meaning::OurMistake, "{step:?} {said}");
            }
        }
    }

    #[test]
    fn mail() {
        for (said, means) in [
            ("250 2.1.0 ok", Meaning::Positive),
            ("354 go ahead", Meaning::OutOfStep),
            ("421 4.7.0 too fast", UNREACHABLE),
            ("451 4.1.8 sender domain", UNREACHABLE),
            ("452 4.5.3 whatever", UNREACHABLE),
            ("550 5.7.1 sender blocked", Meaning::SenderRefused),
            ("550 5.1.0 sender unknown", Meaning::SenderRefused),
            ("552 5.3.4 too large", Meaning::SenderRefused),
            ("550 no", Meaning::SenderRefused),
        ] {
            assert_eq!(meaning(Step::Mail, &reply(said)), means, "{said}");
        }
    }

    #[test]
    fn rcpt() {
        for (said, means) in [
            ("250 2.1.5 ok", Meaning::Positive),
            ("251 will forward", Meaning::Positive),
            ("252 cannot verify", Meaning::Positive),
            ("354 go ahead", Meaning::OutOfStep),
            ("452 4.5.3 too many", Meaning::TooManyRecipients),
            ("452 4.2.2 mailbox full", Meaning::PassedOn),
            ("452 too many", Meaning::PassedOn),
            ("552 too many", Meaning::TooManyRecipients),
            ("552 5.5.3 too many", Meaning::TooManyRecipients),
            ("552 5.2.2 mailbox full", Meaning::PassedOn),
            ("552 5.3.4 too large", Meaning::PassedOn),
            ("421 4.7.0 too fast", UNREACHABLE),
            ("421 bye", UNREACHABLE),
            ("451 4.3.0 disk", UNREACHABLE),
            ("452 4.3.1 full", UNREACHABLE),
            ("451 4.4.1 no answer", UNREACHABLE),
            ("450 4.2.0 greylisted", Meaning::PassedOn),
            ("454 4.7.1 Relay access denied", Meaning::PassedOn),
            ("450 later", Meaning::PassedOn),
            ("550 5.1.1 no such user", Meaning::UnknownRecipient),
            ("550 5.1.10 RecipientNotFound", Meaning::UnknownRecipient),
            ("550 5.4.1 access denied", Meaning::UnknownRecipient),
            ("550 5.5.0 mailbox unavailable", Meaning::UnknownRecipient),
            ("550 no such user", Meaning::UnknownRecipient),
            ("551 5.1.6 moved", Meaning::UnknownRecipient),
            ("553 5.1.3 bad mailbox", Meaning::UnknownRecipient),
            ("553 no", Meaning::UnknownRecipient),
            ("554 5.1.1 no such user", Meaning::PassedOn),
            ("554 no", Meaning::PassedOn),
            ("550 5.4.6 loop", Meaning::PassedOn),
            ("550 5.2.1 disabled", Meaning::PassedOn),
            ("550 5.7.1 spam", Meaning::PassedOn),
            ("550 5.7.133 sender not allowed for this group", Meaning::PassedOn),
            ("556 5.1.10 null MX", Meaning::PassedOn),
        ] {
            assert_eq!(meaning(Step::Rcpt, &reply(said)), means, "{said}");
        }
    }

    #[test]
    fn data_and_dot() {
        for (step, said, means) in [
            (Step::Data, "354 go ahead", Meaning::Positive),
            (Step::Data, "250 ok", Meaning::OutOfStep),
            (Step::Data, "451 4.3.0 no", Meaning::FinalReply),
            (Step::Data, "554 5.6.0 no", Meaning::FinalReply),
            (Step::Dot, "250 2.0.0 queued", Meaning::Positive),
            (Step::Dot, "354 go ahead", Meaning::OutOfStep),
            (Step::Dot, "421 4.4.2 bye", Meaning::FinalReply),
            (Step::Dot, "550 5.7.1 spam", Meaning::FinalReply),
            (Step::Dot, "550 5.1.1 no such user", Meaning::FinalReply),
            (Step::Dot, "552 5.2.2 full", Meaning::FinalReply),
        ] {
            assert_eq!(meaning(step, &reply(said)), means, "{step:?} {said}");
        }
    }
}
