//! Active Directory with Exchange's attributes: finds the owner of an address and its kind of recipient (DESIGN section
//! 5, "what counts as found").

use std::borrow::Cow;

use super::entry::{Entry, without_prefix};
use super::recipient_type::{self, Account, RecipientType};
use super::{Attributes, DisabledAccounts, Rules, Unclear, away, legacy_name, plain_meaning, spellings};
use crate::directory::filter::Filter;
use crate::directory::known::{self, Claim, Meaning, Strength};
use crate::directory::odd;
use crate::lookup::Kind;
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
    "msExchMailboxGuid",
];

/// Attributes that tell Exchange's recipients from other entries. Exchange 2003 writes no types.
const KINDS_BY: [&str; 4] = ["msExchRecipientTypeDetails", "homeMDB", "msExchHomeServerName", "targetAddress"];

/// Attributes that only Exchange writes, on entries that it has mail-enabled.
const MAIL_ENABLED: [&str; 5] =
    ["mailnickname", "legacyexchangedn", "homemdb", "msexchhomeservername", "targetaddress"];

const CONTROL: &str = "useraccountcontrol";

/// ACCOUNTDISABLE (MS-ADTS 2.2.16).
const ACCOUNT_DISABLED: u32 = 0x2;

/// `profile = "active-directory"`.
pub(super) struct ActiveDirectory;

impl Rules for ActiveDirectory {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            read: ATTRIBUTES.into(),
            addresses: (&["proxyAddresses", "mail"]).into(),
            logins: (&["sAMAccountName", "userPrincipalName"]).into(),
            marks: (&["proxyAddresses", "mail", "legacyExchangeDN"]).into(),
            found_by: (&["proxyAddresses"]).into(),
            kinds_by: (&KINDS_BY).into(),
            ..Attributes::default()
        }
    }

    fn filters(&self, address: &Address) -> Vec<Filter<'_>> {
        Self::filters_of(address)
    }

    fn login_filters(&self, name: &str) -> Vec<Filter<'_>> {
        Self::login_filters_of(name)
    }

    fn key<'a>(&self, address: &'a Address) -> Cow<'a, str> {
        legacy_name::decoded(address).map_or(Cow::Borrowed(address.key()), Cow::Owned)
    }

    fn is_name(&self, text: &str) -> bool {
        legacy_name::is_one(text)
    }

    /// `proxyAddresses` decides; `mail` counts only if no entry has the address there, and only on mail-enabled
    /// entries.
    fn claims(&self, entry: &Entry) -> Vec<Claim> {
        let mut claims = certain_claims(entry);
        if MAIL_ENABLED.iter().any(|name| entry.has(name)) {
            entry.claim("mail", Strength::Fallback, &mut claims);
        }
        claims
    }

    /// `altRecipient` is not read: Exchange forwards the mail, and knows whether the mailbox gets a copy.
    fn meaning(&self, entry: &Entry, disabled: DisabledAccounts) -> Result<Meaning, Unclear> {
        let written = entry.first("msexchrecipienttypedetails");
        let known = written.and_then(|value| value.parse().ok()).and_then(recipient_type::of);
        let like = known.map_or_else(|| sign(entry).map(|sign| format!("with {sign}")), of_type);
        if let Some(like) = &like
            && !entry.has("proxyaddresses")
        {
            return Err(Unclear(odd::lacks(like, "proxyAddresses")));
        }
        let mut meaning = match (known, written) {
            (Some(known), Some(value)) => by_type(entry, known, value)?,
            _ => by_attributes(entry, like.as_deref())?,
        };
        meaning.mail_server = entry.first("msexchhomeservername").and_then(last_cn);
        // Without a type, a shared mailbox, whose account is always disabled, cannot be recognised (Exchange 2003).
        let personal = known.is_some_and(|known| known.account == Account::Personal);
        if disabled == DisabledAccounts::Refused && personal && entry.has_class(&["user"]) && !entry.has(CONTROL) {
            return Err(Unclear(odd::lacks("of class user", "userAccountControl")));
        }
        if disabled == DisabledAccounts::Refused && personal && is_disabled(entry) {
            meaning.kind = Kind::NoMailbox;
            meaning.target = None;
            meaning.rule = format!("refuse_disabled: userAccountControl says disabled ({})", meaning.rule);
        }
        Ok(meaning)
    }
}

impl ActiveDirectory {
    /// `userPrincipalName` is a logon name, never an address.
    pub(super) fn filters_of<'a>(address: &Address) -> Vec<Filter<'a>> {
        if let Some(name) = legacy_name::decoded(address) {
            let own = Filter::equals("legacyExchangeDN", name.clone());
            return vec![own, Filter::equals("proxyAddresses", format!("X500:{name}"))];
        }
        let both = |text: &String| {
            [Filter::equals("proxyAddresses", format!("smtp:{text}")), Filter::equals("mail", text.clone())]
        };
        spellings(address).iter().flat_map(both).collect()
    }

    /// Windows writes DOMAIN
    /// ame.
    pub(super) fn login_filters_of<'a>(name: &str) -> Vec<Filter<'a>> {
        let account = name.rsplit_once('\\').map_or(name, |(_, account)| account);
        vec![Filter::equals("sAMAccountName", account), Filter::equals("userPrincipalName", name)]
    }
}

/// The addresses and Exchange's legacy names in `proxyAddresses` and `legacyExchangeDN`.
pub(super) fn certain_claims(entry: &Entry) -> Vec<Claim> {
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
    claims
}

/// The type decides, whatever the attributes say: a remote mailbox may have a stale `homeMDB`.
fn by_type(entry: &Entry, known: RecipientType, value: &str) -> Result<Meaning, Unclear> {
    let rule = format!("msExchRecipientTypeDetails = {value} ({})", known.name);
    let (home, has_target) = (entry.has("homemdb"), entry.has("targetaddress"));
    let (meaning, at_odds) = match known.kind {
        Kind::MailUser | Kind::Contact => match entry.target("targetaddress")? {
            Some(target) => (away(known.kind, target, &rule), home.then_some("a homeMDB")),
            None => return Err(Unclear(odd::lacks(&format!("of type {}", known.name), "targetAddress"))),
        },
        Kind::Mailbox => (plain_meaning(known.kind, None, &rule), has_target.then_some("a targetAddress")),
        Kind::NoMailbox => {
            (plain_meaning(known.kind, None, &rule), (home || has_target).then_some("a homeMDB or a targetAddress"))
        }
        Kind::Group | Kind::PublicFolder => (plain_meaning(known.kind, None, &rule), None),
    };
    let at_odds = at_odds.map(|has| format!("type {} with {has}", known.name));
    Ok(Meaning { at_odds, ..meaning })
}

/// For an entry without a type, or with an unknown one. `like`: the attribute which shows that Exchange made it a
/// recipient; then the attributes that tell its kind may not be readable.
fn by_attributes(entry: &Entry, like: Option<&str>) -> Result<Meaning, Unclear> {
    let kinds_by = || {
        let (last, others) = (KINDS_BY[3], &KINDS_BY[..3]);
        format!("{} and {last}", others.join(", "))
    };
    let (kind, rule) = if entry.has("homemdb") {
        (Kind::Mailbox, "homeMDB")
    } else if entry.has("msexchhomeservername") {
        (Kind::Mailbox, "msExchHomeServerName")
    } else if let Some(target) = entry.target("targetaddress")? {
        return Ok(away(Kind::MailUser, target, "targetAddress"));
    } else if entry.has_class(&["group", "msexchdynamicdistributionlist"]) && like.is_some() {
        (Kind::Group, "a group that Exchange knows")
    } else if entry.has_class(&["publicfolder"]) {
        (Kind::PublicFolder, "class publicFolder")
    } else if let Some(like) = like {
        return Err(Unclear(odd::lacks(like, &kinds_by())));
    } else {
        let meaning = plain_meaning(Kind::NoMailbox, None, "neither type, home server nor target");
        return Ok(Meaning { at_odds: Some(odd::lacks("with an address", &kinds_by())), ..meaning });
    };
    Ok(plain_meaning(kind, None, rule))
}

/// An attribute that only Exchange's recipients have. Exchange 2003 leaves `ADCDisabledMail` in `legacyExchangeDN` of
/// former ones.
fn sign(entry: &Entry) -> Option<&'static str> {
    let is_recipients = |name: &String| name.to_lowercase().contains("/cn=recipients/");
    if entry.has("mailnickname") {
        Some("mailNickname")
    } else if entry.values("legacyexchangedn").iter().any(is_recipients) {
        Some("legacyExchangeDN")
    } else if entry.shows("msexchmailboxguid") {
        Some("msExchMailboxGuid")
    } else {
        None
    }
}

/// A type shows a recipient as well, unless it means that there is none.
fn of_type(known: RecipientType) -> Option<String> {
    (known.kind != Kind::NoMailbox).then(|| format!("of type {}", known.name))
}

/// `ex-eu` for `/o=.../cn=Configuration/cn=Servers/cn=EX-EU`.
fn last_cn(server: &str) -> Option<String> {
    let parts = server.rsplit('/').filter_map(|part| part.split_once('='));
    let mut names = parts.filter(|(name, _)| name.trim().eq_ignore_ascii_case("cn"));
    names.next().map(|(_, value)| value.trim().to_lowercase())
}

fn is_disabled(entry: &Entry) -> bool {
    // A signed integer in LDAP; the bit is the same.
    let control = entry.first(CONTROL).and_then(|value| value.parse::<i64>().ok());
    control.is_some_and(|control| control & i64::from(ACCOUNT_DISABLED) != 0)
}

#[cfg(test)]
mod tests;
