//! A summary event: of a flood of refused recipients only summaries are kept, with a few addresses as a sample. A
//! search for a recipient reports summaries that may include it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Event;

/// `domain` of recipients whose domain is not accepted.
const OTHER: &str = "other";

/// Many refused recipients in one event; its `recipient` is a sample of their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum<'a> {
    pub times: u64,
    /// The client: an address, or an IPv6 network; `many`: further clients, domains and reasons together.
    pub client: Cow<'a, str>,
    /// The accepted domain of the recipients, with `*.` for subdomains; `other`: not accepted; empty with `many`.
    pub domain: Cow<'a, str>,
    /// Code and enhanced code.
    pub reason: Cow<'a, str>,
}

impl Sum<'_> {
    /// For people, without the sample.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { times, client, domain, reason } = self;
        match (&**domain, &**client) {
            ("", _) => format!("{times} recipients of {client} clients"),
            (OTHER, _) => format!("{times} recipients in domains that are not ours, of {client}: {reason}"),
            _ => format!("{times} recipients in {domain} of {client}: {reason}"),
        }
    }
}

/// Refused recipients in summaries that may include the one that is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSums {
    pub recipients: u64,
    /// The search that shows the summaries: `@contoso.com`.
    pub try_recipient: String,
}

impl InSums {
    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { recipients, try_recipient } = self;
        format!(
            "of floods only sums are kept: {recipients} refused recipients may have this one among them; try --recipient \
             {try_recipient}"
        )
    }
}

/// The searched recipient, in lower case and not empty.
pub(super) struct Searched<'a> {
    text: &'a str,
    /// After the `@`.
    domain: Option<&'a str>,
    most: u64,
    found: Option<InSums>,
}

impl<'a> Searched<'a> {
    /// For this part of an address.
    pub(super) fn new(text: &'a str) -> Self {
        let domain = text.rsplit_once('@').map(|(_, domain)| domain);
        Self { text, domain, most: 0, found: None }
    }

    /// Whether a whole domain is searched for.
    pub(super) fn is_domain(&self) -> bool {
        self.text.starts_with('@')
    }

    /// Whether a summary may include the recipient without having it in its sample.
    pub(super) fn may_be_in(&self, sum: &Sum<'_>, sample: &str) -> bool {
        let Some(domain) = self.domain else { return true };
        match &*sum.domain {
            "" => true,
            OTHER => domains(sample).any(|known| known.to_lowercase().starts_with(domain)),
            pattern => match pattern.strip_prefix('*') {
                Some(above) => domain.ends_with(above),
                None => pattern.to_lowercase().starts_with(domain),
            },
        }
    }

    /// Counts an event that does not match, if it is such a summary.
    pub(super) fn note(&mut self, event: &Event<'_>) {
        let Some(sum) = event.sum.as_ref().filter(|sum| self.may_be_in(sum, &event.recipient)) else { return };
        let of_all = || domains(&event.recipient).next().unwrap_or_default();
        let domain = match (&*sum.domain, self.domain) {
            ("" | OTHER, Some(domain)) if !domain.is_empty() => domain,
            ("" | OTHER, _) => of_all(),
            (pattern, Some(domain)) if pattern.starts_with('*') => domain,
            (pattern, _) => pattern.trim_start_matches("*."),
        };
        let found = self.found.get_or_insert_with(|| InSums { recipients: 0, try_recipient: String::new() });
        found.recipients = found.recipients.saturating_add(sum.times);
        if sum.times > self.most {
            self.most = sum.times;
            found.try_recipient = format!("@{domain}");
        }
    }

    pub(super) fn found(self) -> Option<InSums> {
        self.found
    }
}

fn domains(sample: &str) -> impl Iterator<Item = &str> {
    sample.split(", ").filter_map(|address| address.rsplit_once('@')).map(|(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::super::What;
    use super::super::tests::event;
    use super::*;

    fn sum(times: u64, domain: &'static str, sample: &'static str) -> Event<'static> {
        let sum = Sum { times, client: "192.0.2.1".into(), domain: domain.into(), reason: "550 5.1.1".into() };
        Event { sum: Some(sum), sender: "".into(), ..event(60, What::Refused, "", sample) }
    }

    #[test]
    fn sums_that_may_have_a_recipient_are_counted_and_named() {
        let sums = [
            sum(5, "contoso.com", "a@contoso.com, b@Contoso.com"),
            sum(70, "*.fabrikam.com", "a@eu.fabrikam.com"),
            sum(11, "other", "a@gmail.example, b@gmx.example"),
            sum(1, "", "x@y.example"),
        ];
        for (text, recipients, try_recipient) in [
            ("z@contoso.com", 6, "@contoso.com"),
            ("z@con", 6, "@contoso.com"),
            ("z@us.fabrikam.com", 71, "@us.fabrikam.com"),
            ("z@gmx.example", 12, "@gmx.example"),
            ("z@elsewhere.example", 1, "@elsewhere.example"),
            ("zoe", 87, "@fabrikam.com"),
        ] {
            let mut searched = Searched::new(text);
            sums.iter().for_each(|event| searched.note(event));
            searched.note(&event(60, What::Refused, "", "one@contoso.com"));
            let found = searched.found().unwrap();
            assert_eq!((found.recipients, &*found.try_recipient), (recipients, try_recipient), "{text}");
        }
        assert!(!Searched::new("z@contoso.net").may_be_in(sums[0].sum.as_ref().unwrap(), ""));
    }

    #[test]
    fn a_sum_is_shown_as_what_it_is() {
        let line = sum(5, "contoso.com", "a@contoso.com, b@contoso.com").line();
        let all = "5 recipients in contoso.com of 192.0.2.1: 550 5.1.1, among them a@contoso.com, b@contoso.com";
        assert_eq!(line, format!("1970-01-01T00:01:00Z refused   sum           {all}"));
        assert!(
            sum(5, "other", "").line().ends_with("5 recipients in domains that are not ours, of 192.0.2.1: 550 5.1.1")
        );
    }
}
