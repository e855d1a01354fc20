//! One search on one connection, over all bases: returns entries and references, or why there is no clean answer.
//!
//! It parses entries without the client library's helpers, which panic on malformed ones.

use ldap3::asn1::{PL, StructureTag};
use ldap3::controls::{Control, ControlType, MakeCritical as _, PagedResults};
use ldap3::{Ldap, LdapError, LdapResult, ResultEntry, Scope, SearchOptions};

use super::connection::Connection;
use super::{handshake, reason};
use crate::config::LdapConfig;
use crate::directory::profile::Entry;

/// Two entries would show that an address is ambiguous, but many may have it in an attribute that does not count, such
/// as `mail` of accounts without a mailbox. A filter that excludes those would depend on rights, since an attribute
/// that may not be read counts as absent. So all are requested, up to the number that Active Directory returns.
const SIZE_LIMIT: u16 = 1000;
/// The size limit does not include references; a forest has one for each domain below a base.
const MOST_REFERENCES: usize = 256;
/// The most that Active Directory returns (`MaxPageSize`).
const PAGE: i32 = 1000;
/// adminLimitExceeded (RFC 4511 appendix A).
const ADMIN_LIMIT: u32 = 11;
/// Of 1,500 values each.
const MOST_RANGES: usize = 1000;
/// Identifiers of entries in different directories; some are binary.
pub(super) const IDS: [&str; 4] = ["objectGUID", "entryUUID", "nsUniqueId", "invocationId"];

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// The entries, without duplicates if bases overlap.
    pub(super) entries: Vec<Entry>,
    /// Search references (RFC 4511 4.5.3), which are not followed.
    pub(super) references: Vec<String>,
}

/// Why there is no clean answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The connection could not be opened, or was lost.
    #[error("{0}")]
    Broken(String),
    /// TLS is impossible, and another attempt will not help.
    #[error("{0}")]
    Tls(String),
    /// Not valid LDAP.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// A result code other than success (RFC 4511 appendix A).
    #[error("{doing} is answered {code} ({meaning}){text}", meaning = meaning(doing, *code, text))]
    Refused {
        doing: &'static str,
        code: u32,
        /// The server's text, after a colon.
        text: String,
    },
    /// More entries or references than the limits: reading on would fill memory.
    #[error("the server sends more than was asked for, and ignores the size limit")]
    Endless,
    /// No answer for this long.
    #[error("no answer within {0:?}")]
    Silent(std::time::Duration),
    /// The directory's answer cannot be believed now.
    #[error("{0}")]
    Doubt(std::sync::Arc<str>),
    /// A server rejected our password, now or lately, so that it was not tried.
    #[error("{0}")]
    Rejected(std::sync::Arc<str>),
    /// Nothing was sent, because that would have been wrong.
    #[error("{0}")]
    NotTried(String),
}

impl Failure {
    /// Whether another server, or a new connection, may succeed.
    pub(super) fn is_servers_fault(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Tls(_) | Self::Malformed(_) | Self::Silent(_) => true,
            // operationsError is Active Directory's answer on a connection that lost its bind; busy; unavailable.
            Self::Refused { code, .. } => matches!(code, 1 | 51 | 52),
            Self::Endless | Self::Doubt(_) | Self::Rejected(_) | Self::NotTried(_) => false,
        }
    }

    /// Whether it concerns this search only: time, size and administrative limits, and our own.
    pub(super) fn is_this_searchs_fault(&self) -> bool {
        matches!(self, Self::Refused { code: 3 | 4 | 11, .. } | Self::Endless)
    }

    /// Whether the server rejected our name and password.
    pub(super) fn is_rejected_credentials(&self) -> bool {
        matches!(self, Self::Refused { code: 49, .. })
    }

    /// Why the server refuses a user's login: wrong password, locked, expired. Beside invalidCredentials:
    /// constraintViolation of password policies, inappropriateAuthentication for an entry without a password, and
    /// unwillingToPerform for eDirectory's disabled accounts.
    pub(super) fn refused_login(&self) -> Option<String> {
        match self {
            Self::Refused { doing: "the bind", code: code @ (19 | 48 | 49 | 53), text } => {
                Some(format!("the directory answers {code}{text}"))
            }
            _ => None,
        }
    }

    /// Adds which base does not exist; there may be several.
    fn below(self, base: &str) -> Self {
        match self {
            Self::Refused { doing, code: code @ (10 | 32), text } => {
                Self::Refused { doing, code, text: format!(" `{}`{text}", base.escape_debug()) }
            }
            other => other,
        }
    }

    /// `Ok` on success.
    pub(super) fn check(doing: &'static str, result: &LdapResult) -> Result<(), Self> {
        if result.rc == 0 {
            return Ok(());
        }
        // Active Directory ends its texts with NUL.
        let text = result.text.trim_matches(|c: char| c.is_control() || c == ' ');
        let text = if text.is_empty() { String::new() } else { format!(": {}", text.escape_debug()) };
        Err(Self::Refused { doing, code: result.rc, text })
    }
}

impl From<LdapError> for Failure {
    fn from(error: LdapError) -> Self {
        if let LdapError::Io { source } = &error
            && let Some(failed) = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Self::Tls(handshake::in_words(failed));
        }
        Self::Broken(match error {
            LdapError::EndOfStream | LdapError::OpSend { .. } | LdapError::ResultRecv { .. } => {
                "the connection was lost".to_owned()
            }
            LdapError::Io { source } => source.to_string(),
            other => other.to_string(),
        })
    }
}

/// A search below one base.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) base: &'a str,
    pub(super) scope: Scope,
    pub(super) filter: &'a str,
    pub(super) attributes: &'a [&'a str],
}

/// A page of results (RFC 2696), and the cookie for the next one; empty: it is the last.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) reply: Reply,
    pub(super) cookie: Vec<u8>,
}

impl Connection {
    /// Searches all bases in turn.
    pub(super) async fn search(&self, config: &LdapConfig, filter: &str) -> Result<Reply, Failure> {
        let mut reply = Reply::default();
        let attributes = config.profile.attributes();
        for base in &config.base {
            let found = self.ask(Search { base, scope: Scope::Subtree, filter, attributes: &attributes }).await?;
            for entry in found.entries {
                let known = |other: &Entry| other.dn.eq_ignore_ascii_case(&entry.dn);
                if !reply.entries.iter().any(known) {
                    reply.entries.push(entry);
                }
            }
            reply.references.extend(found.references);
        }
        self.answered();
        Ok(reply)
    }

    /// Checks that all bases exist.
    pub(super) async fn see_bases(&self, config: &LdapConfig) -> Result<(), Failure> {
        for base in &config.base {
            // RFC 4511 4.5.1.8: "1.1" requests no attributes.
            let (scope, attributes) = (Scope::Base, &["1.1"][..]);
            self.ask(Search { base, scope, filter: "(objectClass=*)", attributes }).await?;
        }
        self.answered();
        Ok(())
    }

    /// A search that finds a few entries.
    pub(super) async fn ask(&self, search: Search<'_>) -> Result<Reply, Failure> {
        let most = Most { entries: SIZE_LIMIT.into(), references: MOST_REFERENCES };
        let limited = |limit: u16| {
            let mut ldap = self.ldap();
            ldap.with_search_options(SearchOptions::new().sizelimit(limit.into()));
            collect(ldap, search, most)
        };
        let (mut reply, _) = match limited(SIZE_LIMIT).await {
            // OpenLDAP refuses a size limit above its hard limit, but accepts a search without one.
            Err(Failure::Refused { code: ADMIN_LIMIT, .. }) => limited(0).await?,
            answered => answered?,
        };
        self.complete(&mut reply).await?;
        Ok(reply)
    }

    /// The next page of a search that finds many entries.
    pub(super) async fn page(&self, search: Search<'_>, cookie: Vec<u8>) -> Result<Page, Failure> {
        let mut ldap = self.ldap();
        ldap.with_controls(PagedResults { size: PAGE, cookie }.critical());
        let most = Most { entries: PAGE.unsigned_abs() as usize * 2, references: MOST_REFERENCES };
        let (mut reply, controls) = collect(ldap, search, most).await?;
        self.complete(&mut reply).await?;
        self.answered();
        let paged = controls.into_iter().find(|Control(kind, _)| matches!(kind, Some(ControlType::PagedResults)));
        let cookie = paged.map_or_else(Vec::new, |Control(_, raw)| raw.parse::<PagedResults>().cookie);
        Ok(Page { reply, cookie })
    }

    /// Reads further values of an attribute that the server returned in part (`proxyAddresses;range=0-1499`, MS-ADTS
    /// 3.1.1.3.1.3.3).
    async fn complete(&self, reply: &mut Reply) -> Result<(), Failure> {
        for entry in &mut reply.entries {
            for _ in 0..MOST_RANGES {
                let Some(rest) = entry.rest() else { break };
                let mut ldap = self.ldap();
                ldap.with_search_options(SearchOptions::new().sizelimit(1));
                let mut stream =
                    ldap.streaming_search(&entry.dn, Scope::Base, "(objectClass=*)", [rest.as_str()]).await?;
                let mut more = None;
                while let Some(item) = stream.next().await? {
                    if !item.is_ref() && !item.is_intermediate() {
                        more = read(item);
                    }
                }
                Failure::check("the search for more values", &stream.finish().await)?;
                entry.add_rest(more.ok_or(Failure::Malformed("an entry with values kept back"))?);
            }
            if entry.rest().is_some() {
                return Err(Failure::Malformed("an entry whose values have no end"));
            }
        }
        Ok(())
    }
}

/// The most that is read, whatever the server sends.
#[derive(Clone, Copy)]
struct Most {
    entries: usize,
    references: usize,
}

async fn collect(mut ldap: Ldap, search: Search<'_>, most: Most) -> Result<(Reply, Vec<Control>), Failure> {
    let Search { base, scope, filter, attributes } = search;
    // Without adapters: with them the library never frees the message ids of finished searches.
    let mut stream = ldap.streaming_search(base, scope, filter, attributes).await?;
    let mut reply = Reply::default();
    while let Some(item) = stream.next().await? {
        if item.is_ref() {
            reply.references.extend(references(item)?);
        } else if !item.is_intermediate() {
            reply.entries.push(entry(item)?);
        }
        if reply.entries.len() > most.entries || reply.references.len() > most.references {
            let search = stream.ldap_handle().last_id();
            stream.finish().await; // from here on the library throws away what still comes
            ldap.abandon(search).await?;
            return Err(Failure::Endless);
        }
    }
    let result = stream.finish().await;
    Failure::check("the search", &result).map_err(|failure| failure.below(base))?;
    Ok((reply, result.ctrls))
}

/// `SearchResultReference` (RFC 4511 4.5.3).
pub(super) fn references(item: ResultEntry) -> Result<Vec<String>, Failure> {
    texts(item.0).ok_or(Failure::Malformed("a reference"))
}

/// `SearchResultEntry` (RFC 4511 4.5.2).
pub(super) fn entry(item: ResultEntry) -> Result<Entry, Failure> {
    read(item).ok_or(Failure::Malformed("an entry"))
}

/// `SearchResultEntry ::= [APPLICATION 4] SEQUENCE { objectName, attributes }` (RFC 4511 4.5.2).
fn read(item: ResultEntry) -> Option<Entry> {
    let mut parts = constructed(item.0)?.into_iter();
    let mut entry = Entry::new(text(parts.next()?)?);
    for attribute in constructed(parts.next()?)? {
        let mut parts = constructed(attribute)?.into_iter();
        let description = text(parts.next()?)?;
        let values: Option<Vec<Vec<u8>>> = constructed(parts.next()?)?.into_iter().map(octets).collect();
        let values = values?;
        if IDS.iter().any(|id| id.eq_ignore_ascii_case(&description)) {
            entry.id = values.first().cloned().unwrap_or_default();
        }
        entry.add(&description, values.into_iter().filter_map(|value| String::from_utf8(value).ok()));
    }
    Some(entry)
}

fn texts(tag: StructureTag) -> Option<Vec<String>> {
    constructed(tag)?.into_iter().map(text).collect()
}

fn text(tag: StructureTag) -> Option<String> {
    String::from_utf8(octets(tag)?).ok()
}

fn octets(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::P(octets) => Some(octets),
        PL::C(_) => None,
    }
}

fn constructed(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(tags) => Some(tags),
        PL::P(_) => None,
    }
}

/// Explanations of common codes (RFC 4511 appendix A.1).
fn meaning(doing: &str, code: u32, text: &str) -> &'static str {
    if code == 49 && doing.contains("EXTERNAL") {
        return "invalid credentials; see that the server asks for the certificate in tls and knows whose it is";
    }
    match code {
        1 => "operations error; is the bind missing?",
        3 => "time limit exceeded",
        4 => "size limit exceeded; allow the account to read all entries at once: `limits` in OpenLDAP",
        7 => "authentication method not supported",
        8 => "stronger authentication required; use ldaps:// or start_tls",
        10 => "referral; ask the server that it names",
        11 => "administrative limit exceeded",
        12 => "a control is not there; OpenLDAP streams changes by `overlay syncprov` on the database",
        13 => "confidentiality required; use ldaps:// or start_tls",
        32 => "no such object; check base, and that the account may see it",
        34 => "invalid DN syntax; check base and bind_dn",
        48 => "inappropriate authentication",
        49 => reason::of(text).unwrap_or("invalid credentials; check bind_dn and password_file"),
        50 => "insufficient access rights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwilling to perform",
        _ => "see RFC 4511 appendix A",
    }
}
