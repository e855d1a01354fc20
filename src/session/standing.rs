//! Since when a client has made no progress: its idle time where connections are short.

use tokio::time::Instant;

use super::turn::Stage;
use crate::smtp::server::Hello;

/// The client's last progress. Whatever leads to mail is progress; NOOP, RSET, a second EHLO and single octets of a
/// line are not: with those, thousands of clients could keep their connection slots.
#[derive(Debug)]
pub(super) struct Standing {
    since: Option<Instant>,
    introduced: bool,
    pub(super) stage: Stage,
    /// Whether MAIL is progress: once, and again after each message.
    mail_counts: bool,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self { since: None, introduced: false, stage: Stage::BeforeMail, mail_counts: true }
    }

    /// The client made progress.
    pub(super) fn moved(&mut self) {
        self.since = None;
    }

    /// MAIL came.
    pub(super) fn mail(&mut self) {
        if self.stage != Stage::Harvests {
            self.stage = Stage::AfterMail;
        }
        if std::mem::take(&mut self.mail_counts) {
            self.moved();
        }
    }

    /// A message came.
    pub(super) fn message(&mut self) {
        self.stage = Stage::AfterMail;
        self.mail_counts = true;
        self.moved();
    }

    /// A refusal is being delayed because the client harvests addresses.
    pub(super) fn harvests(&mut self) {
        self.stage = Stage::Harvests;
    }

    /// The client is waited for at `now`; `hello`: its greeting. Returns since when it has made no progress.
    pub(super) fn waits(&mut self, hello: Option<&Hello>, now: Instant) -> Instant {
        let introduced = hello.is_some();
        if introduced && !self.introduced {
            self.since = None;
        }
        self.introduced = introduced;
        *self.since.get_or_insert(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_leads_nowhere_does_not_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut standing, hello) = (Standing::new(), Hello::Ehlo("client.example".into()));
        let hello = Some(&hello);
        assert_eq!(standing.waits(None, at(0)), at(0));
        assert_eq!(standing.waits(None, at(1)), at(0), "NOOP, or a line that drips in");
        assert_eq!(standing.waits(hello, at(2)), at(2), "EHLO");
        assert_eq!((standing.waits(hello, at(3)), standing.stage), (at(2), Stage::BeforeMail), "EHLO again");
        standing.mail();
        assert_eq!((standing.waits(hello, at(4)), standing.stage), (at(4), Stage::AfterMail), "MAIL");
        standing.mail();
        assert_eq!(standing.waits(hello, at(5)), at(4), "RSET, and MAIL again");
        standing.moved();
        assert_eq!(standing.waits(hello, at(6)), at(6), "RCPT");
        standing.message();
        assert_eq!(standing.waits(hello, at(7)), at(7), "a message");
        standing.mail();
        assert_eq!(standing.waits(hello, at(8)), at(8), "MAIL of the next one");
        assert_eq!(
            (standing.waits(None, at(9)), standing.waits(hello, at(10))),
            (at(8), at(10)),
            "EHLO after STARTTLS"
        );
        standing.harvests();
        standing.mail();
        assert_eq!(standing.stage, Stage::Harvests, "another transaction");
        standing.message();
        assert_eq!(standing.stage, Stage::AfterMail, "who sends a message is a sender until the next refusal");
    }
}
