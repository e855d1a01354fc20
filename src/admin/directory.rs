//! The directories for operators: `fingerpost directory` and `GET /api/directories`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Parts;
use super::explain::{Explained, explain};
use super::status::Health;
use crate::config::DirectoryKind;
use crate::directory::SnapshotReport;
use crate::directory::snapshot::view::View;
use crate::in_force::InForce;
use crate::lookup::{Freshness, Kind, Lookup, Question};
use crate::metrics::{LOOKUPS, Metrics};
use crate::smtp::address::Address;

/// A directory's content, and its answers since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub name: String,
    /// `file`, `ldap` or `call-ahead`.
    pub kind: String,
    pub state: Health,
    /// By kind; empty for a directory that is asked for each recipient.
    pub recipients: BTreeMap<String, i64>,
    /// By result: `found`, `not-found`, `ambiguous`, `accepts-everything`, `unavailable`, `cached`.
    pub lookups: BTreeMap<String, u64>,
    /// The number of addresses that another entry has as well.
    pub conflicts: i64,
    /// The number of entries that contradict themselves or lack attributes that similar entries have; for a directory
    /// that is asked for each recipient, those met lately.
    pub contradictions: i64,
    /// `None`: it has no snapshot.
    pub snapshot: Option<SnapshotReport>,
    /// Whether it is a mail server that accepts every recipient, so that its answers prove nothing.
    pub accepts_everything: bool,
}

/// The directories' answers about an address, and the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    pub address: String,
    /// Live answers in the order of the directories.
    pub answers: Vec<Answered>,
    pub decision: Explained,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub directory: String,
    #[serde(flatten)]
    pub said: LookupAnswer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum LookupAnswer {
    Found {
        /// A DN, or `file:line`.
        entry: String,
        kind: String,
        rule: String,
        target: Option<String>,
        mail_server: Option<String>,
        send_connector: Option<String>,
    },
    NotFound,
    Ambiguous {
        entries: Vec<String>,
    },
    /// A mail server that accepts every recipient.
    AcceptsEverything {
        server: String,
    },
    Unavailable {
        why: String,
    },
}

impl LookupAnswer {
    fn of(lookup: Lookup) -> Self {
        let text = |text: &std::sync::Arc<str>| text.to_string();
        match lookup {
            Lookup::Found(recipient) => Self::Found {
                entry: recipient.entry.to_string(),
                kind: recipient.kind.as_str().to_owned(),
                rule: recipient.rule.to_string(),
                target: recipient.target.as_ref().map(Address::to_string),
                mail_server: recipient.mail_server.as_ref().map(text),
                send_connector: recipient.send_connector.as_ref().map(text),
            },
            Lookup::NotFound => Self::NotFound,
            Lookup::Ambiguous(entries) => Self::Ambiguous { entries: entries.to_vec() },
            Lookup::AcceptsEverything(server) => Self::AcceptsEverything { server: server.to_string() },
            Lookup::Held(why) | Lookup::Unavailable(why) => Self::Unavailable { why: why.to_string() },
        }
    }
}

/// All directories in the order in which they are asked.
#[must_use]
pub fn stats(parts: &Parts) -> Vec<Stats> {
    let metrics = &parts.metrics;
    let in_force = parts.current.load_full();
    let of = |directory: &std::sync::Arc<crate::config::DirectoryConfig>| {
        let name = &*directory.name;
        let recipients = match &directory.kind {
            DirectoryKind::File(_) => counted(metrics, name),
            DirectoryKind::Ldap(ldap) if ldap.is_snapshot() => counted(metrics, name),
            DirectoryKind::Ldap(_) | DirectoryKind::CallAhead(_) => BTreeMap::new(),
        };
        let count = |result: &str| metrics.directory_lookups.with_label_values(&[name, result]).get();
        Stats {
            name: name.to_owned(),
            kind: directory.kind.name().to_owned(),
            state: Health::of(&metrics.directory_up.with_label_values(&[name])),
            recipients,
            lookups: LOOKUPS.iter().map(|result| ((*result).to_owned(), count(result))).collect(),
            conflicts: metrics.directory_conflicts.with_label_values(&[name]).get(),
            contradictions: metrics.directory_contradictions.with_label_values(&[name]).get(),
            snapshot: in_force.resolver.directories().snapshot(name),
            accepts_everything: metrics.directory_accepts_everything.with_label_values(&[name]).get() == 1,
        }
    };
    in_force.config.directories.iter().map(of).collect()
}

fn counted(metrics: &Metrics, name: &str) -> BTreeMap<String, i64> {
    let count = |kind: Kind| metrics.directory_recipients.with_label_values(&[name, kind.as_str()]).get();
    Kind::ALL.into_iter().map(|kind| (kind.as_str().to_owned(), count(kind))).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    pub addresses: Vec<String>,
    /// Its properties, or why they are unclear.
    #[serde(flatten)]
    pub said: LookupAnswer,
}

/// All entries, one JSON object on each line.
#[must_use]
pub fn exported(view: &View) -> Vec<u8> {
    let mut lines = Vec::new();
    for known in view.entries() {
        let said = LookupAnswer::of(known.answer());
        let addresses = known.claims.into_iter().map(|claim| claim.key).collect();
        // Texts and lists can always be serialised.
        let _ = serde_json::to_writer(&mut lines, &Exported { addresses, said });
        lines.push(b'\n');
    }
    lines
}

/// Asks every directory live about an address, whatever an earlier one answered, and decides.
///
/// # Errors
/// No receive connector would take the mail.
pub async fn look_up(in_force: &InForce, address: &Address) -> Result<Looked, String> {
    let mut answers = Vec::new();
    for directory in &in_force.config.directories {
        let question =
            Question { directory: directory.name.clone(), address: address.clone(), freshness: Freshness::Live };
        let answer = in_force.resolver.directories().ask(&question).await;
        answers.push(Answered { directory: directory.name.to_string(), said: LookupAnswer::of(answer.lookup) });
    }
    let decision = explain(&in_force.config, &in_force.resolver, address, None).await?;
    Ok(Looked { address: address.to_string(), answers, decision })
}
