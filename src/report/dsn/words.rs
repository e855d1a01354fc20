//! The text of a report: what happened to which recipient, by whose reply, and what to do; then details for
//! administrators.

use super::{Recipient, Report, Speaker, fold};
use crate::report::Action;

/// The order in the text; the first one that occurs determines the subject.
const ORDER: [Action; 4] = [Action::Failed, Action::Delayed, Action::Relayed, Action::Delivered];

pub(super) fn subject(report: &Report<'_>) -> &'static str {
    let occurs = |action: &&Action| report.recipients.iter().any(|recipient| recipient.action == **action);
    match ORDER.iter().find(occurs) {
        Some(Action::Failed) | None => "Your message could not be delivered",
        Some(Action::Delayed) => "Your message is delayed",
        Some(Action::Relayed) => "Your message was passed on",
        Some(Action::Delivered) => "Your message was delivered",
    }
}

pub(super) fn text(report: &Report<'_>) -> String {
    let mut out = String::new();
    for action in ORDER {
        let of_action = || report.recipients.iter().filter(|recipient| recipient.action == action);
        if of_action().next().is_none() {
            continue;
        }
        paragraph(&mut out, opening(action));
        for recipient in of_action() {
            about(&mut out, recipient);
        }
        if let Some(latest) = of_action().map(|recipient| recipient.retry_until).max() {
            paragraph(&mut out, &closing(action, &latest.rfc5322()));
        }
    }
    paragraph(&mut out, "For your administrator:");
    out.push_str(&format!("    reported by  {}\r\n", report.reporting_mta));
    out.push_str(&format!("    queue id     {}\r\n", report.about.id));
    out.push_str(&format!("    received     {}\r\n", report.about.arrived.rfc5322()));
    out
}

fn opening(action: Action) -> &'static str {
    match action {
        Action::Failed => "Your message could not be delivered to:",
        Action::Delayed => "Your message has not been delivered yet to:",
        Action::Relayed => "Your message was passed on to a mail system that does not confirm deliveries, for:",
        Action::Delivered => "Your message was delivered to:",
    }
}

fn closing(action: Action, until: &str) -> String {
    match action {
        Action::Failed => "No further attempt will be made. Please check the address, or ask the recipient or your \
                           administrator in another way; the reason is given above."
            .to_owned(),
        Action::Delayed => format!(
            "You do not need to send it again: delivery is tried until {until}, and you will be told if it fails."
        ),
        Action::Relayed => "You may not hear of it again, whatever becomes of it there.".to_owned(),
        Action::Delivered => "Nothing needs to be done; you asked to be told.".to_owned(),
    }
}

fn about(out: &mut String, recipient: &Recipient<'_>) {
    out.push_str(&format!("    {}\r\n", recipient.address));
    out.push_str(&format!("        {}\r\n", speaks(recipient)));
    for line in recipient.reply.to_string().lines().flat_map(|line| fold(line, 66)) {
        out.push_str(&format!("            {line}\r\n"));
    }
    out.push_str("\r\n");
}

fn speaks(recipient: &Recipient<'_>) -> String {
    match (recipient.speaker, recipient.action) {
        (Speaker::Ourselves, _) => "The reason:".to_owned(),
        (Speaker::NextHop { organization: "", .. }, Action::Failed) => "The mail system there refused it:".to_owned(),
        (Speaker::NextHop { organization: "", .. }, _) => "The mail system there said:".to_owned(),
        (Speaker::NextHop { organization, .. }, Action::Failed) => {
            format!("The mail system of \"{organization}\" refused it:")
        }
        (Speaker::NextHop { organization, .. }, _) => format!("The mail system of \"{organization}\" said:"),
    }
}

fn paragraph(out: &mut String, text: &str) {
    for line in fold(text, 72) {
        out.push_str(&line);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
}
