//! The queue's way through a conversation: up to 100 recipients and the content from its file, in one go.
//!
//! `attempt` calls [`run`] until every recipient has its answer or the next hop is in trouble.

use std::time::Duration;

use super::answer::{Answer, Ended, Patience};
use super::body::BodyError;
use super::connection::Connection;
use super::conversation::{Conversation, Early};
use super::fit::{self, Fit, Way};
use super::introduce::introduce;
use super::{HandedResult, Message, Target};
use crate::smtp::client::commands;
use crate::smtp::client::offers::Offers;
use crate::smtp::reply::Reply;

/// RFC 5321 4.5.3.2.6: the next hop may take its time over the final dot; sent again it would arrive twice.
const DOT_TIMEOUT: Duration = Duration::from_secs(600);

/// Sends the branch's message to the recipients at these positions.
pub(super) async fn run(
    mut connection: Connection,
    message: &Message<'_>,
    batch: &[usize],
) -> (Connection, Vec<(usize, Answer)>, Ended) {
    let refused = |reply: Reply| Answer::Final(HandedResult::Refused(reply));
    let mut fit = match fit::message(message, &connection.terms.smtp, &connection.offers) {
        Ok(fit) => fit,
        Err(reply) => {
            let told = batch.iter().map(|at| (*at, refused(reply.clone()))).collect();
            return (connection, told, Ended::Ready);
        }
    };
    let mut told = Vec::new();
    let mut rcpts = Vec::new();
    for at in batch {
        let target = &message.recipients[*at];
        match fit::recipient(target.rcpt_to, &connection.offers) {
            Ok(path) => {
                fit.mail.smtputf8 |= !path.is_ascii();
                rcpts.push((*at, rcpt_line(&path, target, &connection.offers)));
            }
            Err(reply) => told.push((*at, refused(reply))),
        }
    }
    if rcpts.is_empty() {
        return (connection, told, Ended::Ready);
    }
    introduce(&mut connection, message.origin).await;
    let mut conversation = Conversation::new(connection);
    let ended = converse(&mut conversation, message, &fit, &rcpts).await;
    told.extend(conversation.told());
    (conversation.into_connection(), told, ended)
}

/// RCPT with what the next hop offers.
pub(super) fn rcpt_line(path: &str, target: &Target<'_>, offers: &Offers) -> String {
    let mut line = String::new();
    if offers.dsn {
        commands::rcpt_with_dsn(path, target.rcpt_to, target.rcpt, &mut line);
    } else {
        commands::rcpt(path, &mut line);
    }
    line
}

async fn converse(
    conversation: &mut Conversation,
    message: &Message<'_>,
    fit: &Fit,
    rcpts: &[(usize, String)],
) -> Ended {
    let mut mail = String::with_capacity(128);
    commands::mail(&fit.reverse_path, message.sender, &fit.mail, &mut mail);
    let early = if fit.way == Way::Bdat { Early::Envelope } else { Early::Data };
    if let Err(ended) = conversation.envelope(&mail, rcpts, early).await {
        return ended;
    }
    if conversation.accepted().is_empty() {
        return conversation.give_up().await;
    }
    if let Err(ended) = conversation.data(fit.way).await {
        return ended;
    }
    match message.write(conversation, fit.way).await {
        Ok(()) => conversation.verdict(Patience::ForEach(DOT_TIMEOUT)).await,
        Err(BodyError::Read(error)) => {
            tracing::error!(alert = true, %error, "cannot read a queued message's content");
            conversation.unreadable()
        }
        Err(BodyError::Write(broken)) => conversation.interrupted(&broken).await,
    }
}
