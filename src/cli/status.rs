//! `fingerpost status`: the state of the running server.

use std::path::Path;

use super::client::Client;
use super::{Format, Outcome, output};
use crate::admin::status::Status;
use crate::time::UnixTime;

/// Prints it. [`Outcome::No`]: it does not serve, or the configuration on disk was refused.
pub(super) async fn status(config: &Path, format: Format) -> anyhow::Result<Outcome> {
    let status: Status = Client::new(config)?.ask("GET", "/api/status").await?;
    match format {
        Format::Json => output::json(&status)?,
        Format::Text => output::text(&text(&status, UnixTime::now())),
    }
    let well = status.phase == "serving" && status.configuration.not_taken.is_empty();
    Ok(if well { Outcome::Done } else { Outcome::No })
}

fn text(status: &Status, now: UnixTime) -> String {
    let up_for = output::age(now.since(status.started_at).as_secs());
    let loaded = status.configuration.loaded_at;
    let mut text = format!(
        "fingerpost {} at {}: {}, up for {up_for}, configuration of {loaded}\n",
        status.version, status.hostname, status.phase
    );
    for problem in &status.configuration.not_taken {
        text.push_str(&format!("not taken: {problem}\n"));
    }
    for warning in &status.configuration.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&section("receive connector", &["listens on", "organization", "connections"], doors(status)));
    text.push_str(&section("accepted domain", &["type", "deliver_to"], domains(status)));
    text.push_str(&section("directory", &["kind", "state", "snapshot"], directories(status)));
    for directory in &status.directories {
        directory.trouble.iter().for_each(|trouble| text.push_str(&format!("{}: {trouble}\n", directory.name)));
    }
    text.push_str(&section(
        "send connector",
        &["organization", "waiting", "held", "oldest", "next hops"],
        ways(status),
    ));
    let spool = &status.spool;
    let free = output::bytes(u64::try_from(spool.free_bytes).unwrap_or_default());
    text.push_str(&format!(
        "\nspool: {free} free (mail is turned away below {}), {} dead letters\n",
        output::bytes(spool.min_free),
        spool.dead_letters
    ));
    let octets = |count: i64| output::bytes(u64::try_from(count).unwrap_or_default());
    text.push_str(&format!("memory: {} held of {}\n", octets(spool.memory), octets(spool.memory_limit)));
    for turned_away in &spool.turned_away {
        text.push_str(&format!("back-pressure: {turned_away}\n"));
    }
    if !spool.takes_nothing.is_empty() {
        text.push_str(&format!("the spool takes nothing: {}\n", spool.takes_nothing));
    }
    for unreadable in &spool.unreadable {
        let age = output::age(now.since(unreadable.since).as_secs());
        text.push_str(&format!(
            "segment {} cannot be read for {age}, {} messages wait in it: {}\n",
            unreadable.segment, unreadable.messages, unreadable.why
        ));
    }
    text
}

fn section(first: &str, others: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = std::iter::once(first).chain(others.iter().copied()).map(str::to_owned).collect();
    format!("\n{}", output::columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

fn doors(status: &Status) -> Vec<Vec<String>> {
    let row = |door: &crate::admin::status::Door| {
        vec![door.name.clone(), door.bind.join(" "), or_dash(&door.organization), door.connections.to_string()]
    };
    status.receive_connectors.iter().map(row).collect()
}

fn domains(status: &Status) -> Vec<Vec<String>> {
    let row = |accepted: &crate::admin::status::Accepted| {
        vec![accepted.domain.clone(), accepted.r#type.clone(), or_dash(&accepted.deliver_to)]
    };
    status.accepted_domains.iter().map(row).collect()
}

fn directories(status: &Status) -> Vec<Vec<String>> {
    let row = |asked: &crate::admin::status::DirectoryStatus| {
        let snapshot = asked.snapshot.as_ref().map_or_else(|| "-".into(), ToString::to_string);
        vec![asked.name.clone(), asked.kind.clone(), asked.state.as_str().into(), snapshot]
    };
    status.directories.iter().map(row).collect()
}

fn ways(status: &Status) -> Vec<Vec<String>> {
    let hop = |hop: &crate::admin::status::NextHop| format!("{} {}", hop.name, hop.state.as_str());
    let row = |way: &crate::admin::status::WayOut| {
        let hops: Vec<String> = way.next_hops.iter().map(hop).collect();
        let next_hops = match (hops.is_empty(), way.protocol.as_str()) {
            (true, "smtp") => "the recipient domain's MX".into(),
            (true, protocol) => protocol.into(),
            (false, _) => hops.join(", "),
        };
        let oldest = if way.waiting + way.held == 0 { "-".into() } else { output::age(way.oldest_seconds) };
        let organization = or_dash(&way.organization);
        vec![way.name.clone(), organization, way.waiting.to_string(), way.held.to_string(), oldest, next_hops]
    };
    status.send_connectors.iter().map(row).collect()
}
