//! One branch: where its envelope stands, and what its recipients were told at RCPT.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::pace::Pace;
use super::{Asked, End, Ending, Said, TakesPart, Vouched, said};
use crate::delivery::attempt::answer::{Answer, Ended};
use crate::delivery::attempt::lend::{Opening, Out};
use crate::delivery::attempt::loan::Loan;
use crate::delivery::attempt::{HandedResult, Outbound, Target};
use crate::delivery::refused_in_a_row::Verdict;
use crate::message::envelope::{Origin, RcptTo, Sender};
use crate::routing::verdict::Route;
use crate::smtp::address::Address;
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::entry::Content;

/// The next hop took longer over its answers than we wait.
const IMPATIENT: Reply = Reply::fixed(451, Enhanced(4, 4, 1), "the next hop takes too long to answer");

/// The breaker that refusals opened is not closed by one more of them.
const REFUSES_EVERYBODY: Reply = Reply::fixed(451, Enhanced(4, 4, 1), "the next hop refuses recipients that exist");

/// One send connector and next-hop domain.
pub(super) struct Branch {
    pub(super) out: Out,
    /// Recipients that the next hop accepted, or that will be queued.
    pub(super) members: Vec<Member>,
    pub(super) line: Line,
    /// Recipients that were accepted and then refused, when the envelope was said again.
    lost: Vec<Ending>,
    /// How its content goes.
    pub(super) stream: Stream,
    /// How fast its next hop takes the content.
    pub(super) pace: Pace,
    /// How much longer the next hop is waited for, up to its 354.
    patience: Duration,
}

/// How a branch's content goes.
#[derive(Default)]
pub(super) enum Stream {
    /// It is read first.
    #[default]
    No,
    /// As it comes.
    On,
    /// It began as it came, and this is how it ended.
    Over(Vec<Ending>),
}

/// How the branch stands with its next hop.
pub(super) enum Line {
    /// The envelope has not been said, or was taken back.
    Away,
    /// The envelope is with the next hop.
    Open(Box<Loan>),
    /// No next hop can be used in this transaction.
    Unreachable(Reply),
}

/// A recipient of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) at: usize,
    rcpt: RcptTo,
    pub(super) rcpt_to: Address,
}

impl Member {
    pub(super) fn of(asked: &Asked<'_>) -> Self {
        Self { at: asked.at, rcpt: asked.rcpt.clone(), rcpt_to: asked.route.rcpt_to.clone() }
    }

    /// The address as received.
    pub(super) fn address(&self) -> &Address {
        &self.rcpt.address
    }

    fn target(&self) -> (usize, Target<'_>) {
        (self.at, Target { rcpt_to: &self.rcpt_to, rcpt: &self.rcpt })
    }
}

impl Branch {
    pub(super) fn new(out: Out, patience: Duration) -> Self {
        let (members, lost) = (Vec::new(), Vec::new());
        Self { out, members, line: Line::Away, lost, stream: Stream::No, pace: Pace::default(), patience }
    }

    /// Whether this route is its own. By smart hosts all recipients go together, by MX those of one domain.
    pub(super) fn is_for(&self, part: TakesPart<'_>, route: &Route) -> bool {
        let same_hops = !part.smtp.smart_hosts.is_empty() || self.out.domain == route.next_hop_domain;
        self.out.connector.name == part.connector.name && same_hops
    }

    /// Whether a recipient was accepted once and is refused now.
    pub(super) fn is_lost(&self, at: usize) -> bool {
        self.lost.iter().any(|ending| ending.at == at)
    }

    /// Those who were.
    pub(super) fn take_lost(&mut self) -> Vec<Ending> {
        std::mem::take(&mut self.lost)
    }

    /// Asks about one more recipient; a yes makes it a member.
    pub(super) async fn ask(&mut self, outbound: &Outbound, asked: &Asked<'_>) -> Said {
        let member = Member::of(asked);
        let answer = match &mut self.line {
            Line::Unreachable(why) => return Said::Unreachable(why.clone()),
            Line::Open(_) => self.ask_further(&member).await,
            Line::Away => self.open(outbound, (asked.origin, asked.sender), None, Some(&member)).await,
        };
        if let (Line::Open(loan), Vouched::ForBy(session)) = (&self.line, asked.vouched) {
            match &answer {
                Said::Accepted => loan.accepted_vouched(),
                Said::PassedOn(reply) | Said::Unknown(reply) if reply.is_permanent() => {
                    if loan.refused_vouched(session, reply) == Verdict::KeepsItOpen {
                        return self.unreachable(REFUSES_EVERYBODY);
                    }
                }
                Said::PassedOn(_) | Said::Unknown(_) | Said::TooMany | Said::Unreachable(_) => {}
            }
        }
        if answer == Said::Accepted {
            self.members.push(member);
        }
        answer
    }

    async fn ask_further(&mut self, member: &Member) -> Said {
        let Line::Open(loan) = &mut self.line else { return Said::Unreachable(IMPATIENT) };
        let began = Instant::now();
        let asked = timeout(self.patience, loan.more(&[member.target()])).await;
        self.patience = self.patience.saturating_sub(began.elapsed());
        let Ok((told, ended)) = asked else {
            loan.timed_out(&IMPATIENT);
            return self.unreachable(IMPATIENT);
        };
        self.note_troubles(&told);
        let mine: Vec<_> = told.into_iter().filter(|(at, _)| *at == member.at).collect();
        match (said(mine), ended) {
            (Said::Unreachable(why), Err(_)) => self.unreachable(why),
            (answer, Err(_)) => {
                self.line = Line::Away;
                answer
            }
            (answer, Ok(())) => answer,
        }
    }

    /// Says the envelope, for the members and perhaps a new one, whose answer is returned. Members that are refused now
    /// are lost.
    pub(super) async fn open(
        &mut self,
        outbound: &Outbound,
        (origin, sender): (&Origin, &Sender),
        content: Option<&Content>,
        new: Option<&Member>,
    ) -> Said {
        let recipients: Vec<_> = self.members.iter().chain(new).map(Member::target).collect();
        let opening = Opening { origin, sender, content, recipients: &recipients };
        let began = Instant::now();
        let begun = outbound.begin(&self.out, &opening, self.patience).await;
        self.patience = self.patience.saturating_sub(began.elapsed());
        let begun = match begun {
            Ok(begun) => begun,
            Err(trouble) => return self.unreachable(trouble.reply),
        };
        self.line = begun.loan.map_or(Line::Away, |loan| Line::Open(Box::new(loan)));
        let (mine, others): (Vec<_>, Vec<_>) =
            begun.told.into_iter().partition(|(at, _)| new.is_some_and(|new| new.at == *at));
        for (at, answer) in others {
            self.members.retain(|member| member.at != at);
            self.lost.push(self.ending(at, answer));
        }
        said(mine)
    }

    /// No next hop can be used from here on.
    pub(super) fn unreachable(&mut self, why: Reply) -> Said {
        self.line = Line::Unreachable(why.clone());
        Said::Unreachable(why)
    }

    /// What the next hop as a whole shows of itself.
    fn note_troubles(&self, told: &[(usize, Answer)]) {
        if let Line::Open(loan) = &self.line {
            loan.note(told);
        }
    }

    /// The connection goes back, if there is one. In the middle of the content it can only be closed; all of it is sent
    /// later.
    pub(super) fn release(&mut self) {
        if let Stream::On = self.stream {
            self.stream = Stream::No;
            self.line = Line::Away;
        }
        if let Line::Open(_) = self.line
            && let Line::Open(loan) = std::mem::replace(&mut self.line, Line::Away)
        {
            loan.take_back();
        }
    }

    /// How it ended for one recipient.
    pub(super) fn ending(&self, at: usize, answer: Answer) -> Ending {
        let next_hop = match &self.line {
            Line::Open(loan) => loan.next_hop(),
            Line::Away | Line::Unreachable(_) => "".into(),
        };
        let end = match answer {
            Answer::Final(HandedResult::Accepted { reply, dsn }) => End::Accepted { reply, dsn },
            Answer::Final(HandedResult::Deferred(reply)) | Answer::Again(reply) => End::Deferred(reply),
            Answer::Final(HandedResult::Refused(reply) | HandedResult::UnknownRecipient(reply)) => End::Refused(reply),
            Answer::Trouble(trouble) => End::Unreachable(trouble.reply),
        };
        Ending { at, next_hop, end }
    }

    /// The same for all members, from ourselves.
    pub(super) fn all(&self, end: &End) -> Vec<Ending> {
        self.members.iter().map(|member| Ending { at: member.at, next_hop: "".into(), end: end.clone() }).collect()
    }

    /// The rest of the time that the next hop has, up to its 354.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The transaction is over: the connection goes back if it can be used.
    pub(super) fn close(&mut self, ended: Ended) {
        if let Line::Open(loan) = std::mem::replace(&mut self.line, Line::Away) {
            loan.give_back(ended);
        }
    }
}
