//! `fingerpost trace`: what became of a message.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::{Client, escaped};
use super::{Outcome, output};
use crate::time::UnixTime;
use crate::trace::Event;
use crate::trace::read::Found;

/// What is looked for. Texts match any part of the address, without case.
#[derive(Debug, Args)]
pub(super) struct TraceArguments {
    /// Part of the recipient's address
    #[arg(long, default_value = "", hide_default_value = true)]
    recipient: String,
    /// Part of the sender's address
    #[arg(long, default_value = "", hide_default_value = true)]
    sender: String,
    /// Part of the Message-ID
    #[arg(long, default_value = "", hide_default_value = true)]
    message_id: String,
    /// Not before: an age (30m, 4h, 2d), a date, or a time as RFC 3339 has it
    #[arg(long, value_name = "WHEN", default_value = "1d")]
    since: String,
    /// At most so many events, the newest
    #[arg(long, value_name = "EVENTS", default_value_t = 1000)]
    limit: usize,
    /// For people or for scripts
    #[arg(long, value_enum, default_value_t = TraceFormat::Text)]
    format: TraceFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TraceFormat {
    Text,
    Json,
    Csv,
}

/// Prints the events found. [`Outcome::No`]: there are none.
pub(super) async fn trace(config: &Path, arguments: &TraceArguments) -> anyhow::Result<Outcome> {
    let since = since(&arguments.since, UnixTime::now())?;
    let path = format!(
        "/api/trace?recipient={}&sender={}&message_id={}&since={}&limit={}",
        escaped(&arguments.recipient),
        escaped(&arguments.sender),
        escaped(&arguments.message_id),
        since.0,
        arguments.limit
    );
    let found: Found = Client::new(config)?.ask("GET", &path).await?;
    let events = &found.events;
    match arguments.format {
        TraceFormat::Json => output::json(&found)?,
        // A file keeps the text unchanged.
        TraceFormat::Csv if !std::io::stdout().is_terminal() => output::out(&table(events)?),
        TraceFormat::Csv => output::text(&table(events)?),
        TraceFormat::Text if events.is_empty() && found.in_sums.is_some() => eprintln!("nothing found since {since}"),
        TraceFormat::Text if events.is_empty() => {
            eprintln!(
                "nothing found since {since}; look further back with --since; what waits is in `fingerpost queue list`"
            )
        }
        TraceFormat::Text => events.iter().for_each(|event| output::text(&format!("{}\n", event.line()))),
    }
    if let Some(in_sums) = found.in_sums.as_ref().filter(|_| arguments.format != TraceFormat::Json) {
        eprintln!("{}", output::value(&in_sums.line()));
    }
    Ok(if events.is_empty() { Outcome::No } else { Outcome::Done })
}

/// An event as a row of a table: summaries and repeated attempts have columns of their own, which are empty for others.
#[derive(Serialize)]
struct Row<'a> {
    at: UnixTime,
    id: &'a str,
    session: &'a str,
    what: &'static str,
    sender: &'a str,
    recipient: &'a str,
    message_id: &'a str,
    connector: &'a str,
    detail: &'a str,
    sum: Option<u64>,
    sum_client: &'a str,
    sum_domain: &'a str,
    attempt: Option<u32>,
    times: Option<u32>,
    until: Option<UnixTime>,
}

impl<'a> From<&'a Event<'_>> for Row<'a> {
    fn from(event: &'a Event<'_>) -> Self {
        let sum = event.sum.as_ref();
        Self {
            at: event.at,
            id: &event.id,
            session: &event.session,
            what: event.what.as_str(),
            sender: &event.sender,
            recipient: &event.recipient,
            message_id: &event.message_id,
            connector: &event.connector,
            detail: &event.detail,
            sum: sum.map(|sum| sum.times),
            sum_client: sum.map_or("", |sum| &sum.client),
            sum_domain: sum.map_or("", |sum| &sum.domain),
            attempt: event.attempt.map(|attempt| attempt.number),
            times: event.attempt.map(|attempt| attempt.times()),
            until: event.attempt.and_then(|attempt| attempt.last).map(|last| last.until),
        }
    }
}

fn table(events: &[Event<'_>]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    events.iter().try_for_each(|event| writer.serialize(Row::from(event)))?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Parses `4h`, `2026-11-21` or `2026-11-21T04:39:00Z`.
fn since(text: &str, now: UnixTime) -> anyhow::Result<UnixTime> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 0,
    };
    if let Some(count) = text.get(..text.len().saturating_sub(1)).and_then(|count| count.parse::<u64>().ok())
        && unit > 0
    {
        let age = Duration::from_secs(count.saturating_mul(unit));
        return Ok(UnixTime(now.0.saturating_sub(age.as_secs())));
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    match OffsetDateTime::parse(&whole, &Rfc3339) {
        Ok(time) => Ok(UnixTime(u64::try_from(time.unix_timestamp()).unwrap_or_default())),
        Err(_) => bail!(
            "`--since {text}` is not a time; write an age such as 4h, a date such as 2026-11-21, or both as RFC 3339"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ages_or_dates() {
        let now = UnixTime(1_795_235_940);
        for (text, seconds) in [
            ("30s", Some(now.0 - 30)),
            ("4h", Some(now.0 - 4 * 3_600)),
            ("2d", Some(now.0 - 2 * 86_400)),
            ("2026-11-21", Some(1_795_219_200)),
            ("2026-11-21T04:39:00Z", Some(now.0)),
            ("2026-11-21T05:39:00+01:00", Some(now.0)),
            ("4", None),
            ("h", None),
            ("", None),
            ("yesterday", None),
        ] {
            assert_eq!(since(text, now).ok().map(|time| time.0), seconds, "{text}");
        }
    }

    #[test]
    fn a_table_has_a_head_and_a_line_an_event() {
        let event = crate::trace::tests::event(1, crate::trace::What::Dsn, "A", "a,b@x.example");
        let text = table(&[event]).unwrap();
        assert!(text.starts_with("at,id,session,what,"), "{text}");
        assert!(text.contains("1,A,s1,dsn,bob@sender.example,\"a,b@x.example\""), "{text}");
    }
}
