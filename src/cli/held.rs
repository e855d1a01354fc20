//! `fingerpost directory held`, and the lists of addresses that `refresh` and `expect` take.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::client::{Client, escaped};
use super::{Outcome, output};
use crate::admin::held::Expecting;
use crate::directory::{HeldAddress, HeldList};
use crate::printable;

/// Spreadsheets treat a field with this beginning as a formula.
const FORMULA: [char; 4] = ['=', '+', '-', '@'];

/// Separators of fields.
const SEPARATORS: [char; 3] = [',', ';', '\t'];

/// Names of a column of addresses, letters only.
const HEADINGS: [&str; 7] =
    ["address", "addresses", "emailaddress", "email", "mail", "primarysmtpaddress", "windowsemailaddress"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    Text,
    Json,
    Csv,
}

/// What `expect` announces.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Announced {
    /// The changes of the addresses in this file, one a line; the output of `held --format csv` will do
    #[arg(long, value_name = "FILE")]
    only: Option<std::path::PathBuf>,
    /// The changes of so many recipients, whoever they are; 0 withdraws it
    #[arg(long, value_name = "RECIPIENTS")]
    count: Option<usize>,
}

/// Prints held changes. [`Outcome::No`]: there are some.
pub(super) async fn held(client: &Client, name: &str, format: ListFormat) -> anyhow::Result<Outcome> {
    let list: HeldList = client.ask_patiently("GET", &format!("/api/directories/{}/held", escaped(name))).await?;
    match format {
        ListFormat::Json => output::json(&list)?,
        ListFormat::Csv => output::text(&csv(&list)),
        ListFormat::Text => output::text(&text(name, &list)),
    }
    Ok(if list.recipients == 0 { Outcome::Done } else { Outcome::No })
}

/// Announces changes.
pub(super) async fn expect(client: &Client, name: &str, what: &Announced, during: Duration) -> anyhow::Result<Outcome> {
    let path = format!("/api/directories/{}/expect?seconds={}", escaped(name), during.as_secs());
    let during = output::age(during.as_secs());
    let of = match (&what.only, what.count) {
        (Some(file), _) => {
            let told: Expecting = client.send(&format!("{path}&only"), &addresses(file)?).await?;
            format!("{} addresses", told.expected)
        }
        (None, count) => {
            let told: Expecting = client.send(&format!("{path}&count={}", count.unwrap_or_default()), "").await?;
            if told.expected == 0 {
                output::text(&format!("{name}: no number of recipients is announced any more\n"));
                return Ok(Outcome::Done);
            }
            format!("{} recipients, whoever they are", told.expected)
        }
    };
    output::text(&format!("{name}: changes of {of} neither count nor are held for the next {during}\n"));
    Ok(Outcome::Done)
}

/// A duration as in the configuration.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration(text).map_err(|error| error.to_string())
}

/// The addresses in a file, one on each line: the first field if there are several, without heading and comments.
pub(super) fn addresses(file: &Path) -> anyhow::Result<String> {
    let octets = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let Ok(text) = String::from_utf8(octets) else {
        bail!(
            "{} is not in UTF-8: save it as such (`iconv -f UTF-16 -t UTF-8`, where Windows wrote it)",
            file.display()
        );
    };
    let lines = listed(&text);
    if lines.is_empty() {
        bail!("{} has no address; write one a line", file.display());
    }
    Ok(lines)
}

fn listed(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(first_field);
    let lines = lines.enumerate().filter(|(at, line)| *at > 0 || !is_heading(line));
    lines.map(|(_, line)| plain(line.trim()).to_owned() + "\n").collect()
}

/// The first field of a line: quoted (RFC 4180), with its own quotes doubled, or unquoted. A local part in quotes is followed by further characters.
fn first_field(line: &str) -> String {
    if let Some(quoted) = line.strip_prefix('"') {
        let text = quoted.replace("\"\"", "\0");
        let (field, rest) = text.split_once('"').unwrap_or((&text, ""));
        if rest.trim_start().is_empty() || rest.trim_start().starts_with(SEPARATORS) {
            return field.replace('\0', "\"");
        }
    }
    let mut in_quotes = false;
    let end = line.find(|character| {
        in_quotes ^= character == '"';
        !in_quotes && SEPARATORS.contains(&character)
    });
    line[..end.unwrap_or(line.len())].to_owned()
}

/// Whether a first line is a heading: of `held`, of a migration batch of Exchange, of `Export-Csv`.
fn is_heading(line: &str) -> bool {
    let letters: String = line.chars().filter(char::is_ascii_alphabetic).collect();
    !line.contains('@') && HEADINGS.contains(&&*letters.to_ascii_lowercase())
}

/// Without the apostrophe that [`quoted`] adds.
fn plain(field: &str) -> &str {
    field.strip_prefix('\'').filter(|rest| rest.starts_with(FORMULA)).unwrap_or(field)
}

fn text(name: &str, list: &HeldList) -> String {
    if list.recipients == 0 {
        return format!("{name}: nothing is held\n");
    }
    if list.resuming {
        return format!(
            "{name}: changes were held when the server ended, and still are; which, is known as soon as it has read the \
             directory (fingerpost directory stats)\n"
        );
    }
    let heading = ["address", "from", "to", "since", "why"].map(str::to_owned).to_vec();
    let row = |held: &HeldAddress| {
        let HeldAddress { address, from, to, since, why, .. } = held;
        vec![address.clone(), from.clone(), to.clone(), since.to_string(), why.clone()]
    };
    let (stayed, waiting): (Vec<_>, Vec<_>) = list.addresses.iter().partition(|held| held.in_force);
    let table = |rows: &[&HeldAddress]| {
        output::columns(&std::iter::once(heading.clone()).chain(rows.iter().map(|held| row(held))).collect::<Vec<_>>())
    };
    let mut text = format!("{name}: {} recipients, {} addresses held\n", list.recipients, waiting.len());
    text.push_str(&table(&waiting));
    if !stayed.is_empty() {
        text.push_str(&format!("\nin force, because their mail arrives there: {} addresses\n", stayed.len()));
        text.push_str(&table(&stayed));
    }
    text
}

fn csv(list: &HeldList) -> String {
    let mut text = "address,from,to,since,why,in_force\n".to_owned();
    for held in &list.addresses {
        let HeldAddress { address, from, to, since, why, in_force } = held;
        let since = since.to_string();
        let in_force = if *in_force { "yes" } else { "no" };
        let fields = [address, from, to, &since, why, in_force].map(quoted);
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// A field by RFC 4180, with an apostrophe before it if a spreadsheet would treat it as a formula, and in quotes if it
/// begins like a comment.
fn quoted(field: &str) -> String {
    let field = printable::line(field);
    let field = if field.starts_with(FORMULA) { format!("'{field}") } else { field.into_owned() };
    if field.contains([',', '"', ';', '\'']) || field.starts_with('#') {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixTime;

    #[test]
    fn what_is_printed_can_be_read_again() {
        let held = |address: &str, in_force| HeldAddress {
            address: address.to_owned(),
            from: "mailbox on ex1".to_owned(),
            to: "nobody".to_owned(),
            since: UnixTime(1_795_235_940),
            why: "taken away".to_owned(),
            in_force,
        };
        let list = HeldList {
            recipients: 3,
            resuming: false,
            addresses: vec![
                held("a@b.c", false),
                held("\"x, y\"@b.c", false),
                HeldAddress { to: "\"o p\"@b.c".to_owned(), ..held("o'q@b.c", false) },
                held("#e@b.c", false),
                held("/o=x/cn=y; z", false),
                held("d@b.c", true),
            ],
        };
        let written = csv(&list);
        assert_eq!(written.lines().nth(1), Some("a@b.c,mailbox on ex1,nobody,2026-11-21T04:39:00Z,taken away,no"));
        assert_eq!(listed(&written), "a@b.c\n\"x, y\"@b.c\no'q@b.c\n#e@b.c\n/o=x/cn=y; z\nd@b.c\n");
        let shown = text("ad", &list);
        assert!(shown.starts_with("ad: 3 recipients, 5 addresses held\naddress "), "{shown}");
        assert!(shown.contains("in force, because their mail arrives there: 1 addresses\n"), "{shown}");
        assert_eq!(text("ad", &HeldList::default()), "ad: nothing is held\n");
    }

    #[test]
    fn lists_are_taken_as_people_write_them() {
        for (written, read) in [
            ("a@b.c\n", "a@b.c\n"),
            ("\u{feff}Address,From\r\nA@b.c,mailbox\r\n\r\n# b@b.c\r\nc@b.c;x\r\n", "A@b.c\nc@b.c\n"),
            ("\"a@b.c\",x\n\"d e\"@b.c\n", "a@b.c\n\"d e\"@b.c\n"),
            ("# nobody\n", ""),
            ("\"EmailAddress\",\"MailboxType\"\r\n\"a@b.c\",\"x\"\r\n", "a@b.c\n"),
            ("E-mail address\na@b.c\n", "a@b.c\n"),
            ("anna\nmail\n", "anna\nmail\n"),
            ("\"d, e\"@b.c\tx\n\"f\",\"\"\"g h\"\"@b.c\"\n", "\"d, e\"@b.c\nf\n"),
            ("\"a@b.c", "a@b.c\n"),
            ("'+a@b.c,x\n'o@b.c\n", "+a@b.c\n'o@b.c\n"),
        ] {
            assert_eq!(listed(written), read, "{written:?}");
        }
    }
}
