//! Queued messages as the API, the command line and the page show them.

use serde::{Deserialize, Serialize};

use crate::message::queue_id::QueueId;
use crate::smtp::envelope::{RcptTo, Relay};
use crate::spool::entry::{Entry, Outcome, Queued, RecipientState, Waiting};
use crate::time::UnixTime;

/// The response to `GET /api/queue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub total: usize,
    /// The oldest, or those after the given one, up to the requested number.
    pub messages: Vec<Message>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub id: QueueId,
    pub received_at: UnixTime,
    /// Empty: the null sender.
    pub sender: String,
    /// Empty: there is none.
    pub message_id: String,
    /// In bytes.
    pub size: u64,
    /// Empty: a report of ours.
    pub receive_connector: String,
    /// Empty: ourselves.
    pub client: String,
    pub recipients: Vec<Recipient>,
    /// With `[cluster]`, the name of the node that has it; empty: its node has ended, and it waits to be taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// As received.
    pub address: String,
    pub rcpt_to: String,
    pub connector: String,
    #[serde(flatten)]
    pub standing: Standing,
}

/// The state of a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Standing {
    Waiting {
        attempts: u32,
        next_attempt: UnixTime,
        /// Empty before the first.
        last_error: String,
        /// The number of attempts with an unknown outcome; left out if there are none.
        #[serde(default, skip_serializing_if = "is_zero")]
        may_have_arrived: u32,
        /// What it waits for beside the time of its next attempt; empty: nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// It is neither tried nor expires.
    Held {
        why: String,
    },
    Delivered {
        /// The next hop and its reply.
        detail: String,
    },
    Failed {
        /// Who refused it, and the reply.
        detail: String,
    },
    Dropped,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Listed {
    /// Messages, and the total number.
    #[must_use]
    pub fn of((total, entries): (usize, Vec<Entry>)) -> Self {
        Self { total, messages: entries.iter().map(Message::of).collect() }
    }
}

/// Why a report about a stranger's message that is due still waits.
const WAITS_FOR_ITS_TURN: &str =
    "its turn, after other mail: reports that strangers' mail caused leave at `[reports] per_minute`";

impl Message {
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
            node: None,
        }
    }

    /// The same as that of a cluster's node; empty: nobody's.
    #[must_use]
    pub fn at(self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..self }
    }

    /// Whose it is, for people; empty without `[cluster]`.
    #[must_use]
    pub fn node_in_words(&self) -> &str {
        match self.node.as_deref() {
            Some("") => "none: it waits to be taken over",
            node => node.unwrap_or_default(),
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

    /// A short text for people.
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
            node: Some(text()),
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
