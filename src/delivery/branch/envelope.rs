//! A branch's envelope: asks about recipients as they come, and sends the envelope again if the connection was given
//! back meanwhile.

use std::pin::{Pin, pin};

use tokio::time::{Instant, timeout, timeout_at};

use super::{Branch, IMPATIENT, Line, MAX_RECIPIENTS, Member, Others};
use crate::delivery::attempt::WayOut;
use crate::delivery::attempt::checkout::{Checkout, Opening, Target};
use crate::delivery::attempt::conversation::Reuse;
use crate::delivery::attempt::next_hop_error::NextHopError;
use crate::delivery::attempt::walk::NoWay;
use crate::delivery::health::Key;
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::slots::Vouched;
use crate::smtp::envelope::{Origin, Sender};
use crate::smtp::reply::{RECIPIENT_OK, TOO_MANY_RECIPIENTS};
use crate::spool::entry::Content;

/// Outcomes of recipients by number; recipients missing from this list were accepted.
type RcptOutcomes = Vec<(usize, Outcome)>;

impl Branch {
    /// Asks about more recipients, pipelined if the next hop offers PIPELINING, and returns their outcomes in order.
    /// Accepted recipients become members.
    pub(crate) async fn ask(
        &mut self,
        origin: &Origin,
        sender: &Sender,
        mut new: Vec<Member>,
        vouched: Vouched,
    ) -> Vec<Outcome> {
        let all = new.len();
        new.truncate(MAX_RECIPIENTS.saturating_sub(self.members.len()));
        if vouched == Vouched::Yes {
            self.out.applicant.vouched = vouched;
        }
        let began = Instant::now();
        let answers = match &self.line {
            Line::Unreachable(why) => same(&new, why),
            Line::Open(_) => self.ask_further(origin, sender, &new).await,
            Line::Away if self.members.is_empty() => {
                self.open(origin, sender, None, &new, Some(began + self.left)).await
            }
            Line::Away => self.ask_alone(origin, sender, &new).await,
        };
        self.left = self.left.saturating_sub(began.elapsed());
        let next_hop = self.checkout().map_or_else(|| "".into(), Checkout::next_hop);
        let mut outcomes = Vec::with_capacity(all);
        for member in new {
            match answers.iter().find(|(at, _)| *at == member.at) {
                Some((_, outcome)) => outcomes.push(outcome.clone()),
                None => {
                    outcomes.push(Outcome::said(Class::Accepted, RECIPIENT_OK, &next_hop));
                    self.members.push(member);
                }
            }
        }
        outcomes.resize(all, Outcome::ours(Class::TooManyRecipients, TOO_MANY_RECIPIENTS));
        self.after_asking(vouched);
        outcomes
    }

    /// A connection on which no recipient was accepted is returned at once.
    fn after_asking(&mut self, vouched: Vouched) {
        let Line::Open(checkout) = &mut self.line else { return };
        if checkout.has_nobody() {
            self.release();
        } else if vouched == Vouched::Yes {
            checkout.vouch();
        }
    }

    fn checkout(&self) -> Option<&Checkout> {
        match &self.line {
            Line::Open(checkout) => Some(checkout),
            Line::Away | Line::Unreachable(_) => None,
        }
    }

    /// On the connection with the envelope.
    async fn ask_further(&mut self, origin: &Origin, sender: &Sender, new: &[Member]) -> RcptOutcomes {
        let Line::Open(checkout) = &mut self.line else { return same(new, &Outcome::undone()) };
        let targets: Vec<_> = new.iter().map(Member::target).collect();
        let Ok(ended) = timeout(self.left, checkout.more(origin, sender, &targets)).await else {
            checkout.look();
            let mut answers = checkout.take_outcomes();
            // Replies are still to come, so the envelope is sent again on another connection.
            let unanswered =
                |member: &&Member| !checkout.has(member.at) && !answers.iter().any(|(at, _)| *at == member.at);
            let late: RcptOutcomes = new.iter().filter(unanswered).map(|member| (member.at, impatient())).collect();
            answers.extend(late);
            self.line = Line::Away;
            return answers;
        };
        let mut answers = checkout.take_outcomes();
        checkout.error();
        // Members that were accepted before keep that; their envelope is sent again.
        answers.retain(|(at, _)| new.iter().any(|member| member.at == *at));
        if let Err(ended) = ended {
            self.close(ended);
            if ended == Reuse::Worn {
                let rest = new.iter().filter(|member| !answers.iter().any(|(at, _)| *at == member.at));
                let rest: Vec<Member> = rest.cloned().collect();
                answers.extend(self.ask_alone(origin, sender, &rest).await);
            }
        }
        answers
    }

    /// The connection was given back meanwhile: asks about these recipients only; the complete envelope is sent at
    /// DATA.
    async fn ask_alone(&mut self, origin: &Origin, sender: &Sender, new: &[Member]) -> RcptOutcomes {
        let recipients: Vec<_> = new.iter().map(Member::target).collect();
        let opening = Opening { origin, sender, content: None, recipients: &recipients };
        match find(&self.out, &self.tried, &opening, Some(Instant::now() + self.left)).await {
            (Line::Open(checkout), answers) => {
                checkout.take_back();
                answers
            }
            (Line::Unreachable(why), _) => same(new, &why),
            (Line::Away, answers) => answers,
        }
    }

    /// Sends the envelope for the members and perhaps new recipients, and waits until the given time. Members that are
    /// refused now have an outcome; outcomes of new recipients are returned.
    pub(super) async fn open(
        &mut self,
        origin: &Origin,
        sender: &Sender,
        content: Option<(&Content, u64)>,
        new: &[Member],
        until: Option<Instant>,
    ) -> RcptOutcomes {
        let answers = {
            let recipients: Vec<_> = self.members.iter().chain(new).map(Member::target).collect();
            let opening = Opening { origin, sender, content, recipients: &recipients };
            let (line, answers) = find(&self.out, &self.tried, &opening, until).await;
            self.line = match line {
                // There was no other host to ask.
                Line::Unreachable(why) if why.next_hop.is_empty() => Line::Unreachable(self.last.take().unwrap_or(why)),
                line => line,
            };
            answers
        };
        if let Line::Unreachable(why) = &self.line {
            return same(new, why);
        }
        let (mine, others): (RcptOutcomes, RcptOutcomes) =
            answers.into_iter().partition(|(at, _)| new.iter().any(|member| member.at == *at));
        let accepted = if self.members.len() > others.len() { Others::Accepted } else { Others::None };
        for (at, outcome) in others {
            self.end(at, outcome, accepted);
        }
        mine
    }
}

/// The same outcome for all of them.
fn same(members: &[Member], outcome: &Outcome) -> RcptOutcomes {
    members.iter().map(|member| (member.at, outcome.clone())).collect()
}

/// The future's result; `None`: it takes longer.
async fn within<T>(until: Option<Instant>, what: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match until {
        Some(until) => timeout_at(until, what).await.ok(),
        None => Some(what.await),
    }
}

/// The other recipients are out of reach.
fn out_of_time(mut answers: RcptOutcomes, pending: &[(usize, Target<'_>)]) -> (Line, RcptOutcomes) {
    let late = |(at, _): &&(usize, Target<'_>)| !answers.iter().any(|(other, _)| other == at);
    let late: RcptOutcomes = pending.iter().filter(late).map(|(at, _)| (*at, impatient())).collect();
    let line = if answers.is_empty() { Line::Unreachable(impatient()) } else { Line::Away };
    answers.extend(late);
    (line, answers)
}

fn impatient() -> Outcome {
    Outcome::ours(Class::Unreachable, IMPATIENT)
}

/// Finds a next hop that accepts the envelope, and the recipients' outcomes. Recipients without a reply by `until` are
/// out of reach.
async fn find(out: &WayOut, tried: &[Key], opening: &Opening<'_>, until: Option<Instant>) -> (Line, RcptOutcomes) {
    let all = |outcome: &Outcome| opening.recipients.iter().map(|(at, _)| (*at, outcome.clone())).collect();
    let unreachable = |error: NextHopError| (Line::Unreachable(error.outcome()), Vec::new());
    let mut walk = match within(until, pin!(out.walk(tried))).await {
        Some(Ok(walk)) => walk,
        Some(Err(NoWay::Refused(reply))) => return (Line::Away, all(&Outcome::ours(Class::Refused, reply))),
        Some(Err(NoWay::NextHopError(error))) => return unreachable(error),
        None => return (Line::Unreachable(impatient()), Vec::new()),
    };
    let mut pending = opening.recipients.to_vec();
    let mut answers = Vec::new();
    // A reply about one recipient says nothing about others.
    let mut about_recipients = false;
    loop {
        let Some(next) = within(until, pin!(walk.next())).await else { return out_of_time(answers, &pending) };
        let Some(mut checkout) = next else {
            let error = walk.error();
            if answers.is_empty() && !about_recipients {
                return unreachable(error);
            }
            answers.extend(pending.iter().map(|(at, _)| (*at, error.outcome())));
            return (Line::Away, answers);
        };
        let said = Opening { recipients: &pending, ..*opening };
        let Some(ended) = within(until, pin!(checkout.envelope(&said))).await else {
            checkout.look();
            answers.extend(checkout.take_outcomes());
            // Recipients that it has accepted are sent again at DATA.
            pending.retain(|(at, _)| !checkout.has(*at));
            let (line, answers) = out_of_time(answers, &pending);
            return (if checkout.has_nobody() { line } else { Line::Away }, answers);
        };
        if let Err(Reuse::Unused | Reuse::Worn) = ended {
            let answered = checkout.take_outcomes();
            pending.retain(|(at, _)| !answered.iter().any(|(other, _)| other == at));
            answers.extend(answered);
            if pending.is_empty() {
                return (Line::Away, answers);
            }
            walk.again(checkout);
            continue;
        }
        let (unreached, answered): (Vec<_>, Vec<_>) =
            checkout.take_outcomes().into_iter().partition(|(_, outcome)| outcome.class == Class::Unreachable);
        answers.extend(answered);
        if let Some(error) = checkout.error()
            && checkout.has_nobody()
            && !unreached.is_empty()
        {
            pending.retain(|(at, _)| unreached.iter().any(|(other, _)| other == at));
            about_recipients |= error.is_about_a_recipient();
            walk.failed(checkout, error, ended).await;
            continue;
        }
        answers.extend(unreached);
        return match ended {
            Ok(()) => (Line::Open(checkout), answers),
            Err(ended) => {
                checkout.give_back(ended);
                (Line::Away, answers)
            }
        };
    }
}
