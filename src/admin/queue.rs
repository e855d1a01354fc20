//! Queued messages as the API, the command line and the page show them.

use serde::{Deserialize, Serialize};

use crate::message::queue_id::QueueId;
use crate::smtp::envelope::{RcptTo, Relay};
use crate::spool::entry::{Entry, Outcome, Queued, RecipientState, Waiting};
use crate::time::UnixTime;

/// What `GET /api/queue` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// How many messages are queued.
    pub total: usize,
    /// The oldest of them, or the oldest behind the one that was named, as many as were asked for.
    pub messages: Vec<Message>,
}

/// One queued message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub id: QueueId,
    /// When we took it.
    pub received_at: UnixTime,
    /// The reverse-path; empty: the null sender.
    pub sender: String,
    /// Message-ID; empty where there is none.
    pub message_id: String,
    /// Bytes.
    pub size: u64,
    /// The receive connector that took it; empty: a report of ours.
    pub receive_connector: String,
    /// The client's address; empty: ourselves.
    pub client: String,
    pub recipients: Vec<Recipient>,
}

/// One recipient of a queued message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address as received.
    pub address: String,
    /// What RCPT TO carries.
    pub rcpt_to: String,
    /// The send connector.
    pub connector: String,
    #[serde(flatten)]
    pub standing: Standing,
}

/// How one recipient stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Standing {
    /// To be tried.
    Waiting {
        /// Attempts so far.
        attempts: u32,
        /// When it is due.
        next_attempt: UnixTime,
        /// What the last attempt ended with; empty before the first.
        last_error: String,
        /// How many of the attempts may have delivered it: nobody knows. Left out where none.
        #[serde(default, skip_serializing_if = "is_zero")]
        may_have_arrived: u32,
        /// What it waits for, where that is not the time of its next attempt; empty: nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Not tried and not expiring.
    Held { why: String },
    /// A next hop took it.
    Delivered {
        /// Which, and what it said.
        detail: String,
    },
    /// It failed for good.
    Failed {
        /// Who said so, and what.
        detail: String,
    },
    /// An operator dropped it.
    Dropped,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Listed {
    /// These of so many queued messages.
    #[must_use]
    pub fn of((total, entries): (usize, Vec<Entry>)) -> Self {
        Self { total, messages: entries.iter().map(Message::of).collect() }
    }
}

/// What a report that is due waits for, if a stranger's message caused it.
const WAITS_FOR_ITS_TURN: &str =
    "its turn, after other mail: reports that strangers' mail caused leave at `[reports] per_minute`";

impl Message {
    /// A message of the queue.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let is_report = entry.origin.relay == Relay::Report;
        let why = if entry.origin.is_strangers_report() { WAITS_FOR_ITS_TURN } else { "" };
        Self {
            id: entry.id,
            received_at: entry.received_at,
            sender: entry.sender.reverse_path.as_str().to_owned(),
            message_id: entry.content.message_id.clone(),
            size: entry.content.size,
            receive_connector: if is_report { String::new() } else { entry.origin.receive_connector.to_string() },
            client: entry.origin.client.map(|client| client.to_string()).unwrap_or_default(),
            recipients: entry.recipients.iter().map(|queued| Recipient::of(queued, why)).collect(),
        }
    }
}

impl Recipient {
    fn of(Queued { rcpt: RcptTo { address, .. }, route, state }: &Queued, why: &str) -> Self {
        Self {
            address: address.to_string(),
            rcpt_to: route.rcpt_to.to_string(),
            connector: route.connector.to_string(),
            standing: Standing::of(state, &route.connector, why),
        }
    }
}

impl Standing {
    fn of(state: &RecipientState, connector: &str, why: &str) -> Self {
        let said = |next_hop: &str, reply: String| match next_hop {
            "" => reply,
            next_hop => format!("{next_hop}: {reply}"),
        };
        match state {
            RecipientState::Waiting(Waiting { attempts, next_attempt, last_error, in_doubt, .. }) => Self::Waiting {
                attempts: *attempts,
                may_have_arrived: *in_doubt,
                next_attempt: next_attempt.by_day(),
                last_error: last_error.clone(),
                why: if *next_attempt <= UnixTime::steady() { why.to_owned() } else { String::new() },
            },
            RecipientState::Held(why) => Self::Held { why: why.words(connector).to_string() },
            RecipientState::Done(Outcome::Delivered { next_hop, reply }) => {
                Self::Delivered { detail: said(next_hop, reply.to_string()) }
            }
            RecipientState::Done(Outcome::Failed { next_hop, reply }) => {
                Self::Failed { detail: said(next_hop, reply.to_string()) }
            }
            RecipientState::Done(Outcome::Dropped) => Self::Dropped,
        }
    }

    /// For people, in a few words.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Waiting { attempts: 0, why, .. } if why.is_empty() => "waiting for its first attempt".into(),
            Self::Waiting { attempts: 0, why, .. } => format!("waiting for its first attempt: {why}"),
            Self::Waiting { attempts, next_attempt, last_error, may_have_arrived, why } => {
                let doubt = match may_have_arrived {
                    0 => String::new(),
                    times => format!(" (it may have arrived with {times} of them)"),
                };
                match why.as_str() {
                    "" if *next_attempt <= UnixTime::steady() => {
                        format!("tried {attempts} times{doubt}, due or under way: {last_error}")
                    }
                    "" => format!("tried {attempts} times{doubt}, again at {next_attempt}: {last_error}"),
                    why => format!("tried {attempts} times{doubt}: {last_error}; waiting: {why}"),
                }
            }
            Self::Held { why } => format!("held: {why}"),
            Self::Delivered { detail } => format!("delivered: {detail}"),
            Self::Failed { detail } => format!("failed: {detail}"),
            Self::Dropped => "dropped".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_is_due_is_not_announced_for_the_past() {
        let waiting = |next_attempt| Standing::Waiting {
            attempts: 1,
            next_attempt,
            last_error: "451 4.4.1 down".to_owned(),
            may_have_arrived: 0,
            why: String::new(),
        };
        assert_eq!(waiting(UnixTime(0)).line(), "tried 1 times, due or under way: 451 4.4.1 down");
        let later = UnixTime(UnixTime::steady().0 + 60);
        assert_eq!(waiting(later).line(), format!("tried 1 times, again at {later}: 451 4.4.1 down"));
    }

    #[test]
    fn the_manual_names_every_field_and_state() {
        let manual = include_str!("../../docs/commands.md");
        let (text, never) = (String::new, UnixTime(0));
        let standings = [
            Standing::Waiting {
                attempts: 0,
                next_attempt: never,
                last_error: text(),
                may_have_arrived: 1,
                why: text(),
            },
            Standing::Held { why: text() },
            Standing::Delivered { detail: text() },
            Standing::Failed { detail: text() },
            Standing::Dropped,
        ];
        let recipient = |standing| Recipient { address: text(), rcpt_to: text(), connector: text(), standing };
        let message = Message {
            id: QueueId(1),
            received_at: never,
            sender: text(),
            message_id: text(),
            size: 0,
            receive_connector: text(),
            client: text(),
            recipients: standings.map(recipient).into(),
        };
        let json = serde_json::to_value(Listed { total: 1, messages: vec![message] }).unwrap();
        let mut words = Vec::new();
        collect(&json, &mut words);
        assert!(words.contains(&"message_id".to_owned()) && words.contains(&"held".to_owned()), "{words:?}");
        for word in words {
            let named = [format!("`{word}`"), format!("\"{word}\"")].iter().any(|quoted| manual.contains(quoted));
            assert!(named, "docs/commands.md does not name {word}");
        }
    }

    /// The keys of all objects, and the values of `state`.
    fn collect(json: &serde_json::Value, words: &mut Vec<String>) {
        match json {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                words.push(key.clone());
                words.extend(value.as_str().filter(|_| key == "state").map(str::to_owned));
                collect(value, words);
            }),
            serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, words)),
            _ => {}
        }
    }
}
