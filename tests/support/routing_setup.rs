//! What routing tests decide with: a table, and what its directories would say, without any I/O.

use std::collections::HashMap;

use fingerpost::lookup::{Answer, Fresh, Freshness, Lookup, Question};
use fingerpost::routing::decide::decide;
use fingerpost::routing::table::{DomainPattern, Table};
use fingerpost::routing::verdict::{Answers, Decision, Step};
use fingerpost::smtp::address::Address;
use fingerpost::smtp::domain::Domain;
use fingerpost::smtp::envelope::Origin;
use fingerpost::time::UnixTime;

/// One time for all.
pub const NOW: UnixTime = UnixTime(1_795_235_940);

/// A table and its directories, by name.
#[derive(Debug, Clone, Default)]
pub struct RoutingSetup {
    pub table: Table,
    pub directories: HashMap<String, Directory>,
}

/// What one directory says.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// What it says itself, by address key; nothing: not found.
    pub truth: HashMap<String, Lookup>,
    /// What its cache says, by address key.
    pub cache: HashMap<String, Lookup>,
    /// It is asked and does not answer; the cache still does.
    pub down: bool,
}

impl Directory {
    fn answer(&self, question: &Question) -> Answer {
        if question.freshness == Freshness::Any
            && let Some(lookup) = self.cache.get(question.address.key())
        {
            return Answer { lookup: lookup.clone(), fresh: Fresh::Cached };
        }
        let lookup = match self.truth.get(question.address.key()) {
            _ if self.down => Lookup::Unavailable("time-out".into()),
            Some(lookup) => lookup.clone(),
            None => Lookup::NotFound,
        };
        Answer { lookup, fresh: Fresh::Live }
    }
}

impl RoutingSetup {
    /// Decides, answering every question; more than 200 are a failure. Returns what was asked and answered, too.
    pub fn decide(&self, origin: &Origin, address: &Address) -> (Decision, Answers) {
        let mut answers = Answers::default();
        for _ in 0..200 {
            match decide(&self.table, origin, address, &answers, NOW) {
                Step::Verdict(decision) => return (decision, answers),
                Step::Ask(question) => {
                    let repeated = answers.0.iter().any(|(earlier, _)| *earlier == question);
                    assert!(!repeated, "asked twice: {question:?}");
                    let answer = self.directories[&*question.directory].answer(&question);
                    answers.0.push((question, answer));
                }
            }
        }
        panic!("no verdict after 200 questions about {address}");
    }
}

/// An address that is one.
pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A domain or `*.domain`.
pub fn pattern(text: &str) -> DomainPattern {
    let domain = |text: &str| Domain::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match text.strip_prefix("*.") {
        Some(parent) => DomainPattern::Subdomains(domain(parent)),
        None => DomainPattern::Exact(domain(text)),
    }
}
