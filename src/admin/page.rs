//! The status page: one page, no script, nothing that changes anything.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use maud::{DOCTYPE, Markup, html};

use super::json::Json;
use super::queue::Listed;
use super::status::{Health, Status};
use super::{Parts, all_nodes};
use crate::directory::HeldList;
use crate::printable;

/// The most queued messages, and addresses with a held change, that are shown.
const SHOWN: usize = 50;

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.8rem 0 .4rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .8rem .25rem 0;vertical-align:top}
th{font-weight:600;border-bottom:1px solid #c9ced6}td{border-bottom:1px solid #eceef1}
.bad{color:#a40e26;font-weight:600}.note{background:#fff6d6;padding:.4rem .8rem;margin:.4rem 0;white-space:pre-wrap}
@media(prefers-color-scheme:dark){body{color:#dfe3e8;background:#15181c}.note{background:#3a3213}
th{border-color:#444a53}td{border-color:#2a2f36}.bad{color:#ff8593}}";

pub(super) async fn show(State(parts): State<Arc<Parts>>) -> Html<String> {
    let queue = all_nodes::list(&parts, None, SHOWN).await.map_err(|(_, Json(failed))| failed.error);
    let held = held(&parts).await;
    let status = super::api::status_now(parts).await;
    Html(shown(&status, &queue, &held))
}

/// Held changes of each directory that has some.
async fn held(parts: &Arc<Parts>) -> Vec<(String, HeldList)> {
    let in_force = parts.current.load_full();
    // Searching a million recipients takes a while.
    let look = move || {
        let directories = in_force.resolver.directories();
        let list = |name: &str| directories.held(name).filter(|list| list.recipients > 0);
        let all = in_force.config.directories.iter();
        all.filter_map(|directory| Some((directory.name.to_string(), list(&directory.name)?))).collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// The queue, or why it cannot be read.
type Queue = Result<Listed, String>;

/// Texts that strangers chose must not affect the display of what is next to them.
fn shown(status: &Status, queue: &Queue, held: &[(String, HeldList)]) -> String {
    let page = page(status, queue, held).into_string();
    printable::lines(&page).into_owned()
}

fn page(status: &Status, queue: &Queue, held: &[(String, HeldList)]) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Fingerpost: " (status.hostname) }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                h1 { "Fingerpost at " (status.hostname) }
                p {
                    "Version " (status.version) ", " span class=[(status.phase != "serving").then_some("bad")] { (status.phase) }
                    ", started " (status.started_at) ", configuration of " (status.configuration.loaded_at) "."
                }
                @for problem in &status.configuration.not_taken { p.note { b { "not taken: " } (problem) } }
                @for turned_away in &status.spool.turned_away { p.note { b { "back-pressure: " } (turned_away) } }
                @for warning in &status.configuration.warnings { p.note { (warning) } }
                (ways(status))
                (directories(status))
                @for (name, list) in held { (changes_held(name, list)) }
                (domains(status))
                (doors(status))
                @match queue {
                    Ok(queue) => (queued(queue)),
                    Err(error) => p.note { b { "The queue cannot be read: " } (error) },
                }
            }
        }
    }
}

fn health(health: Health) -> Markup {
    html! { span class=[(health == Health::Down).then_some("bad")] { (health.as_str()) } }
}

fn ways(status: &Status) -> Markup {
    html! {
        h2 { "Ways out" }
        table {
            tr { th { "Send connector" } th { "Organisation" } th { "Next hops" } th { "Waiting" } th { "Held" } th { "Oldest" } }
            @for way in &status.send_connectors {
                tr {
                    td { (way.name) }
                    td { (way.organization) }
                    td {
                        @if way.next_hops.is_empty() { (if way.protocol == "smtp" { "the recipient domain's MX" } else { "Maildirs" }) }
                        @for hop in &way.next_hops { (hop.name) " " (health(hop.state)) br; }
                    }
                    td { (way.waiting) }
                    td class=[(way.held > 0).then_some("bad")] { (way.held) }
                    td { (way.oldest_seconds) " s" }
                }
            }
        }
    }
}

fn directories(status: &Status) -> Markup {
    html! {
        h2 { "Directories" }
        table {
            tr { th { "Directory" } th { "Kind" } th { "State" } th { "Snapshot" } }
            @for directory in &status.directories {
                tr {
                    td { (directory.name) } td { (directory.kind) } td { (health(directory.state)) }
                    td { @if let Some(snapshot) = &directory.snapshot { (snapshot) } }
                }
                @for trouble in &directory.trouble { tr { td colspan="4" class="note" { (trouble) } } }
                @if directory.conflicts > 0 {
                    tr { td colspan="4" class="note" { "conflicts: " (directory.conflicts) "; fingerpost directory conflicts lists them" } }
                }
            }
        }
    }
}

fn changes_held(name: &str, list: &HeldList) -> Markup {
    html! {
        h2 class="bad" { "Changes held: " (name) ", " (list.recipients) " recipients" }
        table {
            tr { th { "Address" } th { "From" } th { "To" } th { "Since" } th { "Why" } }
            @for held in list.addresses.iter().take(SHOWN) {
                tr {
                    td { (held.address) } td { (held.from) } td { (held.to) } td { (held.since) } td { (held.why) }
                }
            }
        }
        p {
            @if list.addresses.len() > SHOWN { "The first " (SHOWN) " of " (list.addresses.len()) " addresses are shown. " }
            "fingerpost directory held " (name) " lists all; if they are meant: fingerpost directory refresh " (name) " --accept"
        }
    }
}

fn domains(status: &Status) -> Markup {
    html! {
        h2 { "Accepted domains" }
        table {
            tr { th { "Domain" } th { "Type" } th { "Resolved recipients go to" } }
            @for domain in &status.accepted_domains {
                tr { td { (domain.domain) } td { (domain.r#type) } td { (domain.deliver_to) } }
            }
        }
    }
}

fn doors(status: &Status) -> Markup {
    html! {
        h2 { "Doors" }
        table {
            tr { th { "Receive connector" } th { "Listens on" } th { "Organisation" } th { "Connections" } }
            @for door in &status.receive_connectors {
                tr { td { (door.name) } td { (door.bind.join(", ")) } td { (door.organization) } td { (door.connections) } }
            }
        }
    }
}

fn queued(queue: &Listed) -> Markup {
    let is_shared = queue.messages.iter().any(|message| message.node.is_some());
    html! {
        h2 { "Queue: " (queue.total) " messages" }
        @if !queue.messages.is_empty() {
            table {
                tr { th { "Message" } @if is_shared { th { "Node" } } th { "Since" } th { "From" } th { "To" } th { "How it stands" } }
                @for message in &queue.messages {
                    @for recipient in &message.recipients {
                        tr {
                            td { (message.id) }
                            @if is_shared { td { (message.node_in_words()) } }
                            td { (message.received_at) }
                            td { "<" (message.sender) ">" }
                            td { (recipient.address) }
                            td { (recipient.connector) ": " (recipient.standing.line()) }
                        }
                    }
                }
            }
        }
        @if queue.total > queue.messages.len() { p { "The oldest " (queue.messages.len()) " are shown." } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let status = serde_json::json!({
            "version": "1", "hostname": "mx.contoso.com", "started_at": 1, "phase": "serving",
            "configuration": {
                "hash": "", "loaded_at": 1, "files": [], "not_taken": [],
                "warnings": ["a\u{202e}b\u{2066}c\u{200f}d\u{61c}e\u{2028}f\r<script>"],
            },
            "receive_connectors": [], "accepted_domains": [], "directories": [], "send_connectors": [],
            "spool": { "free_bytes": 1, "min_free": 1, "back_pressure": false, "turned_away": [], "memory": 1, "memory_limit": 4, "dead_letters": 0, "takes_nothing": "", "unreadable": [] },
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn what_strangers_choose_turns_nothing() {
        let page = shown(&status(), &Ok(Listed { total: 0, messages: Vec::new() }), &[]);
        let text = "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{61c}e\\u{2028}f\\r&lt;script&gt;";
        assert!(page.contains(text), "{page}");
        assert!(page.contains("\nth{font-weight:600"), "the style stays");
    }

    #[test]
    fn the_queue_of_a_cluster_names_nodes_and_one_that_cannot_be_read_leaves_the_page() {
        let message = |id: &str, node: &str| {
            serde_json::json!({
                "id": id, "received_at": 1, "sender": "", "message_id": "", "size": 1, "receive_connector": "", "client": "",
                "recipients": [{ "address": "a@x.example", "rcpt_to": "", "connector": "", "state": "dropped" }],
                "node": node,
            })
        };
        let listed = serde_json::json!({
            "total": 2, "messages": [message("5M8PW200N0200", "mx2"), message("5M8PW200N0201", "")],
        });
        let page = shown(&status(), &Ok(serde_json::from_value(listed).unwrap()), &[]);
        for text in ["<th>Node</th>", "<td>mx2</td>", "<td>none: it waits to be taken over</td>"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        let page = shown(&status(), &Err("the database is away".into()), &[]);
        assert!(
            page.contains("The queue cannot be read: </b>the database is away") && page.contains("Ways out"),
            "{page}"
        );
    }
}
