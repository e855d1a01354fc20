//! Asks a mail server about one address, for directories of kind `call-ahead`: MAIL with the null sender, RCPT, RSET,
//! and never DATA.
//!
//! The connection is opened as for mail and kept in the same pool. It has no effect on the next hop's health: a server
//! that delays refusals may still accept mail. Replies are interpreted by the table in `refusal`.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::connection::{Broken, Connection, History, Terms};
use super::next_hop_error::NextHopError;
use super::next_hops::{self, NextHop, NoHop};
use super::{Outbound, Reach, Waits, WayOut, negotiate, open};
use crate::config::{AskedServer, Protocol};
use crate::delivery::refusal::Step;
use crate::delivery::refusal::read::{Meaning, Transaction, read};
use crate::delivery::slots::Applicant;
use crate::directory::call_ahead::prober::{Heard, Prober, Probing, Until};
use crate::net::staggered::{Attempt, first_to_succeed};
use crate::smtp::address::Address;
use crate::smtp::client::commands;
use crate::smtp::reply::Reply;

/// The most bytes of a reply's text that are remembered with each address.
const MAX_WORDS: usize = 200;
/// The time limit for the reply to RSET, after RCPT is answered.
const RESET: Duration = Duration::from_secs(2);

/// A smart host that is being asked. `Err`: ask another one.
type Asking<'a> = Attempt<'a, Heard, Heard>;

impl Prober for Outbound {
    fn probe<'a>(&'a self, server: &'a AskedServer, address: &'a Address, until: Until) -> Probing<'a> {
        Box::pin(self.ask(server, address, until))
    }
}

impl Outbound {
    /// Asks one smart host after another until one answers. If one exceeds its share of the time, the next is asked
    /// concurrently: the first may be delaying a refusal.
    async fn ask(&self, server: &AskedServer, address: &Address, until: Until) -> Heard {
        let AskedServer { connector, ehlo } = server;
        let Protocol::Smtp(smtp) = &connector.protocol else {
            return Heard::Failed("it is no mail server".to_owned());
        };
        let terms = Terms { ehlo: ehlo.clone(), smtp: smtp.clone() }.into();
        let (connector, next_hop_domain) = (connector.clone(), address.domain().clone());
        let waits = Waits::of_queue(smtp);
        let out = WayOut {
            shared: self.shared.clone(),
            terms,
            connector,
            next_hop_domain,
            waits,
            applicant: Applicant::QUEUE,
            reach: Reach::Anywhere,
            place: None,
        };
        let hops = match next_hops::hops(&out).await {
            Ok(hops) => hops,
            Err(NoHop::NextHopError(error)) => return failed(error),
            Err(NoHop::Refused(reply)) => return Heard::Failed(words(&reply)),
        };
        let attempts = hops.iter().map(|hop| Box::pin(ask_hop(&out, hop, address, until)) as Asking<'_>).collect();
        match first_to_succeed(attempts, until.asked).await {
            Some(Ok(heard) | Err(heard)) => heard,
            None => Heard::Failed("it has no smart hosts".to_owned()),
        }
    }
}

fn failed(error: NextHopError) -> Heard {
    Heard::Failed(error.reply.text.into_owned())
}

/// Asks one smart host. `Err`: it gave no answer.
async fn ask_hop(out: &WayOut, hop: &NextHop, address: &Address, until: Until) -> Result<Heard, Heard> {
    let key = hop.key(&out.connector.name);
    let (mut connection, path) = match timeout_at(until.asked, begin(out, hop, address)).await {
        Err(_) => return Err(Heard::Silent(format!("{}: no answer in time", hop.name()))),
        Ok(Err(error)) => return Err(failed(error)),
        Ok(Ok(Begun::Over(heard))) => return Ok(heard),
        Ok(Ok(Begun::Asked { connection, path })) => (*connection, path),
    };
    match timeout_at(until.answered, answer(&mut connection, &path, until.answered)).await {
        Err(_) => Err(Heard::Withheld(format!("{}: no answer to RCPT in time", hop.name()))),
        Ok(Err(broken)) => Err(failed(NextHopError::broken(&connection, &broken, Step::Rcpt))),
        Ok(Ok((heard, Then::Close))) => Ok(heard),
        Ok(Ok((heard, Then::Keep))) => {
            out.shared.pool.put(key, connection, out.idle_limit());
            Ok(heard)
        }
    }
}

/// The result of the first step.
enum Begun {
    /// RCPT may be answered now.
    Asked { connection: Box<Connection>, path: String },
    /// There is nothing more to wait for.
    Over(Heard),
}

/// Sends all commands, pipelined if the server offers PIPELINING (RFC 2920), and reads the reply to MAIL.
async fn begin(out: &WayOut, hop: &NextHop, address: &Address) -> Result<Begun, NextHopError> {
    let key = hop.key(&out.connector.name);
    loop {
        let mut connection = match out.shared.pool.take(&key, &out.terms) {
            Some(connection) => connection,
            None => Box::pin(open::open(out, hop)).await?,
        };
        let path = match negotiate::recipient(address, &connection.offers) {
            Ok(path) => path.into_owned(),
            Err(reply) => return Ok(Begun::Over(Heard::Unclear(words(&reply)))),
        };
        let smtputf8 = if path.is_ascii() { "" } else { " SMTPUTF8" };
        connection.queue(format!("MAIL FROM:<>{smtputf8}\r\n").as_bytes());
        let mut rcpt = String::new();
        commands::rcpt(&path, &mut rcpt);
        rcpt.push_str("RSET\r\n");
        let pipelining = connection.offers.pipelining;
        if pipelining {
            connection.queue(rcpt.as_bytes());
        }
        match connection.reply().await {
            // It came from the pool and was closed already.
            Err(_) if connection.history == History::Reused => {}
            Err(broken) => return Err(NextHopError::broken(&connection, &broken, Step::Mail)),
            Ok(mail) => {
                if !pipelining {
                    connection.queue(rcpt.as_bytes());
                }
                let asked = || Begun::Asked { connection: Box::new(connection), path };
                return Ok(at_mail(&mail).map_or_else(asked, Begun::Over));
            }
        }
    }
}

/// What happens to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
}

/// Reads the replies to RCPT and RSET.
async fn answer(connection: &mut Connection, path: &str, until: Instant) -> Result<(Heard, Then), Broken> {
    // The caller's time limit is the effective one.
    let rcpt = connection.reply_within(until.saturating_duration_since(Instant::now()) + RESET).await?;
    let heard = at_rcpt(path, &rcpt);
    // The answer is valid whatever happens to the connection.
    let reset = connection.reply_within(RESET).await.is_ok_and(|reply| reply.is_positive());
    let then = if reset && connection.is_in_step() { Then::Keep } else { Then::Close };
    Ok((heard, then))
}

/// The result if MAIL is refused; `None`: it was accepted.
fn at_mail(reply: &Reply) -> Option<Heard> {
    match read(Step::Mail, reply, &Transaction::default()).meaning {
        Meaning::Positive => None,
        _ => Some(Heard::Failed(format!("at MAIL FROM:<>: {}", words(reply)))),
    }
}

/// The result from the reply to RCPT.
fn at_rcpt(path: &str, reply: &Reply) -> Heard {
    let transaction = Transaction { said: &[path], ..Transaction::default() };
    match read(Step::Rcpt, reply, &transaction).meaning {
        Meaning::Positive => Heard::Accepted(words(reply)),
        Meaning::UnknownRecipient => Heard::Unknown,
        // The recipient's mailbox may be full, or its sender refused: others are not concerned.
        Meaning::RecipientRefused
        | Meaning::TooManyRecipients
        | Meaning::SenderRefused
        | Meaning::ClientRefused
        | Meaning::ContentRefused
        | Meaning::RelayedMailFails
        | Meaning::OurMistake => Heard::Unclear(words(reply)),
        Meaning::Unreachable(_) | Meaning::AboutUs | Meaning::Throttled | Meaning::OutOfStep => {
            Heard::Failed(words(reply))
        }
    }
}

/// The reply in one line, cut to the limit.
fn words(reply: &Reply) -> String {
    let mut words = reply.to_string();
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Enhanced;

    fn reply(code: u16, enhanced: (u16, u16), text: &'static str) -> Reply {
        let class = u8::try_from(code / 100).unwrap();
        let enhanced = (enhanced != (0, 0)).then_some(Enhanced(class, enhanced.0, enhanced.1));
        Reply { code, enhanced, text: text.into() }
    }

    #[test]
    fn what_rcpt_is_answered_says_who_is_there() {
        let accepted = |words: &str| Heard::Accepted(words.to_owned());
        let unclear = |words: &str| Heard::Unclear(words.to_owned());
        let failed = |words: &str| Heard::Failed(words.to_owned());
        for (said, heard) in [
            (reply(250, (1, 5), "Ok"), accepted("250 2.1.5 Ok")),
            (reply(250, (0, 0), "Ok"), accepted("250 Ok")),
            (reply(251, (0, 0), "will forward"), accepted("251 will forward")),
            (reply(252, (0, 0), "will try"), accepted("252 will try")),
            (reply(550, (1, 1), "no such user"), Heard::Unknown),
            (reply(550, (0, 0), "unknown"), Heard::Unknown),
            (reply(553, (1, 3), "no mailbox"), Heard::Unknown),
            (reply(550, (4, 1), "access denied"), Heard::Unknown),
            (reply(450, (2, 0), "greylisted"), unclear("450 4.2.0 greylisted")),
            (reply(450, (1, 1), "no such user now"), unclear("450 4.1.1 no such user now")),
            (reply(451, (7, 1), "greylisted"), unclear("451 4.7.1 greylisted")),
            (reply(452, (2, 2), "full"), unclear("452 4.2.2 full")),
            (reply(552, (2, 2), "full"), unclear("552 5.2.2 full")),
            (reply(554, (7, 1), "blocked"), unclear("554 5.7.1 blocked")),
            (reply(452, (5, 3), "too many"), unclear("452 4.5.3 too many")),
            (reply(503, (5, 1), "MAIL first"), unclear("503 5.5.1 MAIL first")),
            (reply(550, (7, 1), "relaying denied"), failed("550 5.7.1 relaying denied")),
            (reply(550, (0, 0), "relay not permitted"), failed("550 relay not permitted")),
            (reply(530, (7, 0), "log in"), failed("530 5.7.0 log in")),
            (reply(421, (3, 2), "bye"), failed("421 4.3.2 bye")),
            (reply(451, (3, 0), "disk"), failed("451 4.3.0 disk")),
            (reply(354, (0, 0), "go on"), failed("354 go on")),
        ] {
            assert_eq!(at_rcpt("", &said), heard, "{said}");
        }
    }

    #[test]
    fn a_server_that_takes_nothing_from_nobody_cannot_be_asked() {
        assert_eq!(at_mail(&reply(250, (1, 0), "Ok")), None);
        for said in [reply(550, (1, 1), "no such user"), reply(450, (7, 1), "later"), reply(530, (7, 0), "log in")] {
            assert_eq!(at_mail(&said), Some(Heard::Failed(format!("at MAIL FROM:<>: {said}"))));
        }
    }

    #[test]
    fn long_words_are_cut() {
        let long = Reply::bare(250, "ü".repeat(200).into());
        assert_eq!(words(&long).len(), MAX_WORDS);
    }
}
