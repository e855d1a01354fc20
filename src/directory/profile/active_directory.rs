//! Active Directory with Exchange's attributes: which entry owns an address and what kind of recipient it is
//! (DESIGN section 5, "what counts as found").

use std::borrow::Cow;

use super::entry::{Entry, without_prefix};
use super::recipient_type::{self, Account, RecipientType};
use super::{DisabledAccounts, Rules, Unclear, legacy_name, plain_meaning, spellings};
use crate::directory::filter::Filter;
use crate::directory::known::{self, Claim, Meaning, Strength};
use crate::recipient::Kind;
use crate::smtp::address::Address;

const ATTRIBUTES: &[&str] = &[
    "objectClass",
    "proxyAddresses",
    "mail",
    "mailNickname",
    "legacyExchangeDN",
    "homeMDB",
    "msExchHomeServerName",
    "msExchRecipientTypeDetails",
    "targetAddress",
    "userAccountControl",
];

/// What only Exchange writes on an entry that it has mail-enabled.
const MAIL_ENABLED: [&str; 5] =
    ["mailnickname", "legacyexchangedn", "homemdb", "msexchhomeservername", "targetaddress"];

/// ACCOUNTDISABLE (MS-ADTS 2.2.16).
const ACCOUNT_DISABLED: u32 = 0x2;

/// `profile = "active-directory"`.
pub(super) struct ActiveDirectory;

impl Rules for ActiveDirectory {
    fn attributes(&self) -> Vec<&str> {
        ATTRIBUTES.to_vec()
    }

    fn addresses(&self) -> Vec<&str> {
        vec!["proxyAddresses", "mail"]
    }

    fn logins(&self) -> Vec<&str> {
        vec!["sAMAccountName", "userPrincipalName"]
    }

    fn marks(&self) -> Vec<&str> {
        vec!["proxyAddresses", "mail", "legacyExchangeDN"]
    }

    /// `userPrincipalName` is a logon name, never an address.
    fn filters(&self, address: &Address) -> Vec<Filter<'_>> {
        if let Some(name) = legacy_name::decoded(address) {
            let own = Filter::equals("legacyExchangeDN", name.as_str());
            return vec![own, Filter::equals("proxyAddresses", format!("X500:{name}"))];
        }
        let both = |text: &String| {
            [Filter::equals("proxyAddresses", format!("smtp:{text}")), Filter::equals("mail", text.as_str())]
        };
        spellings(address).iter().flat_map(both).collect()
    }

    /// DOMAIN\name is how Windows writes it.
    fn login_filters(&self, name: &str) -> Vec<Filter<'_>> {
        let account = name.rsplit_once('\\').map_or(name, |(_, account)| account);
        vec![Filter::equals("sAMAccountName", account), Filter::equals("userPrincipalName", name)]
    }

    fn key<'a>(&self, address: &'a Address) -> Cow<'a, str> {
        legacy_name::decoded(address).map_or(Cow::Borrowed(address.key()), Cow::Owned)
    }

    /// `proxyAddresses` decides; `mail` counts only where no `proxyAddresses` matched, on mail-enabled entries.
    fn claims(&self, entry: &Entry) -> Vec<Claim> {
        let mut claims = Vec::new();
        for value in entry.values("proxyaddresses") {
            if let Some(address) = without_prefix(value, "smtp:").and_then(|text| Address::parse(text.trim()).ok()) {
                known::claim(&mut claims, address.key(), Strength::Certain);
            } else if let Some(name) = without_prefix(value, "x500:") {
                known::claim(&mut claims, &legacy_name::key(name), Strength::Certain);
            }
        }
        if let Some(name) = entry.first("legacyexchangedn") {
            known::claim(&mut claims, &legacy_name::key(name), Strength::Certain);
        }
        if MAIL_ENABLED.iter().any(|name| entry.has(name)) {
            entry.claim("mail", Strength::Fallback, &mut claims);
        }
        claims
    }

    /// `altRecipient` is not read: Exchange forwards, and knows whether the mailbox gets a copy.
    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear> {
        let written = entry.first("msexchrecipienttypedetails");
        let known = written.and_then(|value| value.parse().ok()).and_then(recipient_type::of);
        let mut meaning = match (known, written) {
            (Some(known), Some(value)) => by_type(entry, known, value)?,
            _ => by_attributes(entry)?,
        };
        meaning.mail_server = entry.first("msexchhomeservername").and_then(last_cn);
        let personal = known.is_none_or(|known| known.account == Account::Personal);
        if disabled == DisabledAccounts::Refused && personal && is_disabled(entry) {
            meaning.kind = Kind::NoMailbox;
            meaning.target = None;
            meaning.rule = format!("refuse_disabled: userAccountControl says disabled ({})", meaning.rule);
        }
        Ok(meaning)
    }
}

/// The type decides, whatever the attributes say: a remote mailbox may carry a stale `homeMDB`.
fn by_type(entry: &Entry, known: RecipientType, value: &str) -> Result<Meaning, Unclear> {
    let mut rule = format!("msExchRecipientTypeDetails = {value} ({})", known.name);
    let (home, away) = (entry.has("homemdb"), entry.has("targetaddress"));
    let (kind, target, at_odds) = match known.kind {
        Kind::MailUser | Kind::Contact => match entry.target("targetaddress")? {
            Some(target) => (known.kind, Some(target), home.then_some("a homeMDB")),
            None => {
                rule.push_str(", but without targetAddress");
                (Kind::NoMailbox, None, Some("no targetAddress"))
            }
        },
        Kind::Mailbox => (Kind::Mailbox, None, away.then_some("a targetAddress")),
        Kind::NoMailbox => (Kind::NoMailbox, None, (home || away).then_some("a homeMDB or a targetAddress")),
        Kind::Group | Kind::PublicFolder => (known.kind, None, None),
    };
    let at_odds = at_odds.map(|has| format!("type {} with {has}", known.name));
    Ok(Meaning { kind, target, mail_server: None, rule, at_odds })
}

/// Where there is no type, or one that this table does not know.
fn by_attributes(entry: &Entry) -> Result<Meaning, Unclear> {
    let (kind, target, rule) = if entry.has("homemdb") {
        (Kind::Mailbox, None, "homeMDB")
    } else if entry.has("msexchhomeservername") {
        (Kind::Mailbox, None, "msExchHomeServerName")
    } else if let Some(target) = entry.target("targetaddress")? {
        (Kind::MailUser, Some(target), "targetAddress")
    } else if entry.has_class(&["group", "msexchdynamicdistributionlist"]) && entry.has("mailnickname") {
        (Kind::Group, None, "a group with mailNickname")
    } else if entry.has_class(&["publicfolder"]) {
        (Kind::PublicFolder, None, "class publicFolder")
    } else {
        (Kind::NoMailbox, None, "neither type, home server nor target")
    };
    Ok(plain_meaning(kind, target, rule))
}

/// `/o=.../cn=Configuration/cn=Servers/cn=EX-EU` is `ex-eu`.
fn last_cn(server: &str) -> Option<String> {
    let parts = server.rsplit('/').filter_map(|part| part.split_once('='));
    let mut names = parts.filter(|(name, _)| name.trim().eq_ignore_ascii_case("cn"));
    names.next().map(|(_, value)| value.trim().to_lowercase())
}

fn is_disabled(entry: &Entry) -> bool {
    // A signed integer in LDAP; the bit stands at the same place either way.
    let control = entry.first("useraccountcontrol").and_then(|value| value.parse::<i64>().ok());
    control.is_some_and(|control| control & i64::from(ACCOUNT_DISABLED) != 0)
}

#[cfg(test)]
mod tests;
