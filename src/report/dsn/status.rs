//! The machine-readable fields: message/delivery-status (RFC 3464 2) and its internationalized form (RFC 6533 3).

use super::{Charset, Recipient, Report, Speaker, fold};
use crate::report::Action;
use crate::smtp::reply::{Enhanced, Reply};

/// The fields for the message, then a block for each recipient.
pub(super) fn fields(report: &Report<'_>, charset: Charset) -> String {
    let mut out = String::new();
    field(&mut out, "Reporting-MTA", &format!("dns; {}", report.reporting_mta));
    if let Some(envid) = report.about.envid {
        field(&mut out, "Original-Envelope-Id", &plain(&xtext(envid), charset));
    }
    field(&mut out, "Arrival-Date", &report.about.arrived.rfc5322());
    for recipient in report.recipients {
        out.push_str("\r\n");
        about(&mut out, recipient, charset);
    }
    out
}

fn about(out: &mut String, recipient: &Recipient<'_>, charset: Charset) {
    if let Some((kind, address)) = recipient.orcpt.and_then(|orcpt| orcpt.split_once(';')) {
        field(out, "Original-Recipient", &format!("{}; {}", plain(kind, charset), plain(&xtext(address), charset)));
    }
    let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
    field(out, "Final-Recipient", &format!("{kind}; {}", recipient.address));
    field(out, "Action", recipient.action.as_str());
    field(out, "Status", &status(recipient.action, recipient.reply).to_string());
    match recipient.speaker {
        Speaker::NextHop { host, .. } if !host.is_empty() => field(out, "Remote-MTA", &format!("dns; {host}")),
        Speaker::NextHop { .. } | Speaker::Ourselves => {}
    }
    let said = plain(&recipient.reply.to_string(), charset);
    // RFC 3464 2.3.6: `smtp` is for replies of a server; our own are not.
    let kind = match recipient.speaker {
        Speaker::NextHop { .. } => "smtp",
        Speaker::Ourselves => "X-Fingerpost",
    };
    field(out, "Diagnostic-Code", &format!("{kind}; {said}"));
    if recipient.action == Action::Delayed {
        field(out, "Will-Retry-Until", &recipient.retry_until.rfc5322());
    }
}

fn field(out: &mut String, name: &str, value: &str) {
    let folded = fold(value, 72).join("\r\n ");
    out.push_str(&format!("{name}: {folded}\r\n"));
}

/// The enhanced code if its class belongs to the action (RFC 3464 2.3.4), else the class with `.0.0`.
fn status(action: Action, reply: &Reply) -> Enhanced {
    let class = match action {
        Action::Failed => 5,
        Action::Delayed => 4,
        Action::Relayed | Action::Delivered => 2,
    };
    match reply.enhanced {
        Some(enhanced) if enhanced.0 == class => enhanced,
        _ => Enhanced(class, 0, 0),
    }
}

/// A text as the value of a field: ASCII, unless the form is internationalized.
fn plain(text: &str, charset: Charset) -> String {
    let keep = |c: char| !c.is_control() && (c.is_ascii() || charset == Charset::Utf8);
    text.chars().map(|c| if keep(c) { c } else { '?' }).collect()
}

/// Decodes xtext (RFC 3461 4); anything else is returned unchanged.
fn xtext(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        let hex = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let decoded = if b == b'+' && tail.first().is_some_and(u8::is_ascii_hexdigit) {
            tail.get(..2).and_then(hex)
        } else {
            None
        };
        bytes.push(decoded.unwrap_or(b));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_decoded_where_it_is_xtext() {
        for (written, meant) in
            [("a+2Bb", "a+b"), ("a+3D", "a="), ("a+", "a+"), ("a+2", "a+2"), ("a+ZZ", "a+ZZ"), ("+C3+A9", "é")]
        {
            assert_eq!(xtext(written), meant, "{written}");
        }
    }

    #[test]
    fn a_status_fits_its_action() {
        let timeout = Reply::fixed(451, Enhanced(4, 4, 1), "x");
        let bare = Reply::bare(550, "x".into());
        for (action, reply, expected) in [
            (Action::Failed, &timeout, Enhanced(5, 0, 0)),
            (Action::Failed, &bare, Enhanced(5, 0, 0)),
            (Action::Delayed, &timeout, Enhanced(4, 4, 1)),
            (Action::Delivered, &bare, Enhanced(2, 0, 0)),
        ] {
            assert_eq!(status(action, reply), expected);
        }
    }
}
