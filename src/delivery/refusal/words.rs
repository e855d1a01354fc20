//! A server's own words in a reply (DESIGN section 7, "What a refusal means").
//!
//! A refusal often repeats what it refuses: addresses, host names, whatever the client said. None of that is the
//! server's wording; if it counted, a client could determine the meaning of a refusal by its choice of an address.
//! [`Words`] is the text without it; [`Words::say`] looks for whole phrases. [`code`] finds an enhanced code in another
//! place than RFC 2034's, [`addresses`] the IP addresses. `read` calls all three; [`own`] parses the text.

use std::net::IpAddr;

use crate::smtp::reply::{Enhanced, Reply};

pub mod own;

/// The server's own words in lower case, with one space between and around them; the end of a sentence is a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(String);

/// Marks the end of a sentence, which no phrase crosses.
const END: &str = ".";

impl Words {
    /// The words of `reply` that are its own; `said` has the texts that the client and we sent in this transaction.
    #[must_use]
    pub fn of(reply: &Reply, said: &[&str]) -> Self {
        let lower = own::lower(&reply.text);
        let text = own::without_quotes_and_brackets(&own::without_echoes(&lower, said), |_| false);
        let mut words: Vec<&str> = Vec::new();
        for token in own::tokens(&text) {
            let word = token.trim_matches(|c: char| !c.is_alphanumeric());
            if !word.is_empty() && !own::is_host(word) {
                words.push(word);
            }
            if token.ends_with(['.', ';', '!', '?']) {
                words.push(END);
            }
        }
        own::remove_local_parts(&mut words, said, SingleWords::of(reply, &lower, said));
        Self(format!(" {} ", words.join(" ")))
    }

    /// Whether the words include this phrase: whole words, in this order, in one sentence.
    #[must_use]
    pub fn say(&self, phrase: &str) -> bool {
        let at = |at: usize| self.0[..at].ends_with(' ') && self.0[at + phrase.len()..].starts_with(' ');
        self.0.match_indices(phrase).any(|(found, _)| at(found))
    }

    /// Whether they include one of these.
    #[must_use]
    pub fn say_any(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.say(phrase))
    }
}

/// Whether a local part that is a single word (`relay@`) is removed from the server's words as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SingleWords {
    /// It is: `550 relay: no such user` may have it from us.
    AreEchoes,
    /// It is not, if the reply also has the whole address, or a policy's code (x.7.x): then the single word is the
    /// server's own. Otherwise mail for `client@` would turn "Client host rejected" into another refusal.
    AreItsOwn,
}

impl SingleWords {
    fn of(reply: &Reply, lower: &str, said: &[&str]) -> Self {
        let whole = || said.iter().any(|said| said.contains('@') && lower.contains(&said.to_lowercase()));
        if reply.enhanced.is_some() || whole() { Self::AreItsOwn } else { Self::AreEchoes }
    }
}

/// The IP addresses in the text, except within mail addresses. URLs of block lists may contain them too.
#[must_use]
pub fn addresses(text: &str, said: &[&str]) -> Vec<IpAddr> {
    addresses_in(&own::without_mail_addresses(&own::without_said(&own::lower(text), said)))
}

fn addresses_in(text: &str) -> Vec<IpAddr> {
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_')));
    parts.filter_map(address).map(|ip| ip.to_canonical()).collect()
}

/// Whether the text, without mail addresses and URLs, has an IP address or this host name, unless a mail address in
/// that domain was sent.
#[must_use]
pub fn names_a_host(text: &str, name: &str, said: &[&str]) -> bool {
    let text = own::without_echoes(&own::lower(text), said);
    let name = name.to_lowercase();
    let domain = |said: &&str| said.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(&name));
    let mut parts = text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_')));
    let named = !name.is_empty() && !said.iter().any(domain) && parts.any(|part| part.trim_end_matches('.') == name);
    named || !addresses_in(&text).is_empty()
}

/// Whether the text repeats an address that was sent (`<root@localhost>: ...`), other than as part of a quoted command.
#[must_use]
pub fn repeats_an_address(text: &str, said: &[&str]) -> bool {
    let text = own::without_double_quotes(&own::lower(text));
    said.iter().any(|said| said.contains('@') && text.contains(&said.to_lowercase()))
}

/// `192.0.2.1`, `192.0.2.1:25`, `ipv6:2001:db8::1`, with punctuation after it.
fn address(word: &str) -> Option<IpAddr> {
    let word = word.trim_end_matches(['.', ':', '-']);
    let word = word.strip_prefix("ipv6:").unwrap_or(word);
    let port = || word.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(host, _)| host);
    word.parse().ok().or_else(|| port()?.parse().ok())
}

/// Subject and detail of the enhanced code (RFC 3463): in RFC 2034's place, else in others: `(#5.1.1)` (qmail),
/// `[#5.1.1]`, `#5.1.1`, and `5.1.1` as the first or the last word. The class is the reply's own.
#[must_use]
pub fn code(reply: &Reply, said: &[&str]) -> Option<(u16, u16)> {
    if let Some(Enhanced(_, subject, detail)) = reply.enhanced {
        return Some((subject, detail));
    }
    let is_code = |within: &str| numbers(within.trim_start_matches('#')).is_some();
    let text = own::without_quotes_and_brackets(&own::without_echoes(&own::lower(&reply.text), said), is_code);
    let counts = |token: &&str| !token.is_empty() && (!own::is_host(token) || is_code(token));
    let tokens: Vec<&str> = own::tokens(&text).map(bare).filter(counts).collect();
    let echoed = |token: &str| said.iter().any(|said| own::local_part(said).eq_ignore_ascii_case(token));
    let of = |token: &&&str| if echoed(token) { None } else { numbers(token.trim_start_matches('#')) };
    let marked = tokens.iter().filter(|token| token.starts_with('#')).find_map(|token| of(&token));
    marked.or_else(|| tokens.last().as_ref().and_then(of)).or_else(|| tokens.first().as_ref().and_then(of))
}

/// Without surrounding punctuation and brackets.
fn bare(token: &str) -> &str {
    token.trim_matches(|c: char| !c.is_alphanumeric() && c != '#')
}

/// `5.1.1`. RFC 3463's subjects end at 7, which excludes version numbers.
fn numbers(token: &str) -> Option<(u16, u16)> {
    let mut parts = token.split('.');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| (1..=digits).contains(&part.len()))?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u16>().ok()).flatten()
    };
    let (class, subject, detail) = (number(1)?, number(1)?, number(3)?);
    (parts.next().is_none() && matches!(class, 4 | 5) && subject <= 7).then_some((subject, detail))
}

#[cfg(test)]
mod tests;
