//! Tables over entries as Exchange's directories have them.

use super::*;
use crate::config::Profile;
use crate::directory::profile::Judgement;
use crate::directory::profile::tests::entry;
use crate::recipient::Lookup;

fn judge(entries: &[Entry], address: &str, disabled: DisabledAccounts) -> Judgement {
    Profile::ActiveDirectory.judge(entries, &Address::parse(address).unwrap(), disabled)
}

/// One owner of `a@contoso.com` with these attributes besides.
fn kind_of(attributes: &[(&str, &str)], disabled: DisabledAccounts) -> (Kind, Option<String>, String) {
    let mut all = vec![("proxyAddresses", "SMTP:a@contoso.com")];
    all.extend_from_slice(attributes);
    match judge(&[entry("CN=a", &all)], "a@contoso.com", disabled).lookup {
        Lookup::Found(found) => (found.kind, found.target.as_ref().map(ToString::to_string), found.rule.to_string()),
        other => panic!("{attributes:?}: {other:?}"),
    }
}

#[test]
fn only_equal_values_own_an_address() {
    let accepted = DisabledAccounts::Accepted;
    let nick = ("mailNickname", "x");
    for (attributes, asked, owned) in [
        (&[("proxyAddresses", "SMTP:alice@contoso.com")][..], "Alice@Contoso.com", true),
        (&[("proxyAddresses", "smtp:Alice.Second@CONTOSO.com")], "alice.second@contoso.com", true),
        (&[("proxyAddresses", "X400:alice@contoso.com")], "alice@contoso.com", false),
        (&[("proxyAddresses", "sip:alice@contoso.com")], "alice@contoso.com", false),
        (&[("proxyAddresses", "alice@contoso.com")], "alice@contoso.com", false),
        (&[("proxyAddresses", "smtp:rene@contoso.com")], "rené@contoso.com", false),
        (&[("proxyAddresses", "smtp:rené@contoso.com")], "rene@contoso.com", false),
        (&[("proxyAddresses", "smtp:René@contoso.com")], "rené@contoso.com", true),
        (&[("mail", "admin@contoso.com")], "admin@contoso.com", false),
        (&[("mail", "admin@contoso.com"), nick], "admin@contoso.com", true),
        (&[("mail", "admin@contoso.com"), ("legacyExchangeDN", "/o=x")], "admin@contoso.com", true),
        (&[("mail", "admin@contoso.com"), ("homeMDB", "CN=db")], "admin@contoso.com", true),
        (&[("mail", "admin@contoso.com"), ("targetAddress", "SMTP:a@b.c")], "admin@contoso.com", true),
        (&[("mail", "admin@contoso.com"), ("msExchHomeServerName", "/cn=EX")], "admin@contoso.com", true),
        (&[("mail", "rene@contoso.com"), nick], "rené@contoso.com", false),
        (&[("userPrincipalName", "alice@contoso.com"), nick], "alice@contoso.com", false),
    ] {
        let lookup = judge(&[entry("CN=x", attributes)], asked, accepted).lookup;
        assert_eq!(matches!(lookup, Lookup::Found(_)), owned, "{attributes:?} {asked}: {lookup:?}");
    }
}

#[test]
fn proxy_addresses_go_before_mail_and_two_owners_are_ambiguous() {
    let proxy = entry("CN=proxy", &[("proxyAddresses", "smtp:a@contoso.com"), ("homeMDB", "CN=db")]);
    let mail = entry("CN=mail", &[("mail", "a@contoso.com"), ("mailNickname", "a")]);
    let found = judge(&[mail.clone(), proxy.clone()], "a@contoso.com", DisabledAccounts::Accepted).lookup;
    assert!(matches!(found, Lookup::Found(owner) if &*owner.entry == "CN=proxy"));

    let second = entry("CN=also", &[("proxyAddresses", "SMTP:A@contoso.com")]);
    let both = judge(&[proxy, second, mail], "a@contoso.com", DisabledAccounts::Accepted).lookup;
    assert_eq!(both, Lookup::Ambiguous(["CN=also".to_owned(), "CN=proxy".to_owned()].into()));
}

#[test]
fn kinds_come_from_the_type_and_else_from_attributes() {
    let target = ("targetAddress", "SMTP:a@contoso.mail.onmicrosoft.com");
    let away = Some("a@contoso.mail.onmicrosoft.com".to_owned());
    let (home, server) = (("homeMDB", "CN=db"), ("msExchHomeServerName", "/o=x/cn=Servers/cn=EX1"));
    let kind = |value: &'static str| ("msExchRecipientTypeDetails", value);
    let (group, nick) = (("objectClass", "group"), ("mailNickname", "a"));
    for (attributes, expected) in [
        (&[kind("1"), home][..], (Kind::Mailbox, None)),
        (&[kind("2"), home], (Kind::Mailbox, None)),
        (&[kind("4")], (Kind::Mailbox, None)),
        (&[kind("1"), target], (Kind::Mailbox, None)),
        (&[kind("64"), target], (Kind::Contact, away.clone())),
        (&[kind("128"), target], (Kind::MailUser, away.clone())),
        (&[kind("35184372088832"), target], (Kind::MailUser, away.clone())),
        (&[kind("2147483648"), target, home], (Kind::MailUser, away.clone())),
        (&[kind("128")], (Kind::NoMailbox, None)),
        (&[kind("256"), group], (Kind::Group, None)),
        (&[kind("4096")], (Kind::PublicFolder, None)),
        (&[kind("65536"), home], (Kind::NoMailbox, None)),
        (&[kind("2097152"), home], (Kind::NoMailbox, None)),
        (&[home], (Kind::Mailbox, None)),
        (&[server], (Kind::Mailbox, None)),
        (&[home, target], (Kind::Mailbox, None)),
        (&[target], (Kind::MailUser, away.clone())),
        (&[("targetAddress", "a@x.y")], (Kind::MailUser, Some("a@x.y".to_owned()))),
        (&[group, nick], (Kind::Group, None)),
        (&[group], (Kind::NoMailbox, None)),
        (&[("objectClass", "publicFolder")], (Kind::PublicFolder, None)),
        (&[nick], (Kind::NoMailbox, None)),
        (&[kind("0"), home], (Kind::Mailbox, None)),
        (&[kind("1152921504606846976"), target], (Kind::MailUser, away)),
        (&[kind("-1"), nick], (Kind::NoMailbox, None)),
    ] {
        let (kind, target, rule) = kind_of(attributes, DisabledAccounts::Accepted);
        assert_eq!((kind, target), expected, "{attributes:?}: {rule}");
    }
}

#[test]
fn a_target_that_cannot_be_read_is_no_answer() {
    for target in ["X400:c=de;a= ;p=x;o=y;s=z;", "SMTP:", "nobody"] {
        let attributes = [("proxyAddresses", "smtp:a@contoso.com"), ("targetAddress", target)];
        let lookup = judge(&[entry("CN=a", &attributes)], "a@contoso.com", DisabledAccounts::Accepted).lookup;
        assert!(matches!(lookup, Lookup::Unavailable(_)), "{target}: {lookup:?}");
    }
}

#[test]
fn disabled_accounts_are_refused_only_where_asked_and_only_personal_ones() {
    let kind = |value: &'static str| ("msExchRecipientTypeDetails", value);
    for (attributes, expected) in [
        (&[kind("1"), ("userAccountControl", "514")][..], Kind::NoMailbox),
        (&[kind("1"), ("userAccountControl", "512")], Kind::Mailbox),
        (&[kind("1")], Kind::Mailbox),
        (&[("homeMDB", "CN=db"), ("userAccountControl", "66050")], Kind::NoMailbox),
        (&[kind("2"), ("userAccountControl", "514")], Kind::Mailbox),
        (&[kind("4"), ("userAccountControl", "514")], Kind::Mailbox),
        (&[kind("16"), ("userAccountControl", "514")], Kind::Mailbox),
        (&[kind("2147483648"), ("targetAddress", "a@b.c"), ("userAccountControl", "514")], Kind::NoMailbox),
    ] {
        assert_eq!(kind_of(attributes, DisabledAccounts::Refused).0, expected, "{attributes:?}");
        assert_ne!(kind_of(attributes, DisabledAccounts::Accepted).0, Kind::NoMailbox, "{attributes:?}");
    }
}

#[test]
fn contradictions_are_told() {
    let kind = |value: &'static str| ("msExchRecipientTypeDetails", value);
    let (home, target) = (("homeMDB", "CN=db"), ("targetAddress", "SMTP:a@b.c"));
    for (attributes, at_odds) in [
        (&[kind("1"), home][..], None),
        (&[kind("1"), target], Some("type UserMailbox with a targetAddress")),
        (&[kind("128"), target], None),
        (&[kind("2147483648"), home, target], Some("type RemoteUserMailbox with a homeMDB")),
        (&[kind("64")], Some("type MailContact with no targetAddress")),
        (&[kind("65536"), home], Some("type User with a homeMDB or a targetAddress")),
        (&[home, target], None),
    ] {
        let mut all = vec![("proxyAddresses", "SMTP:a@contoso.com")];
        all.extend_from_slice(attributes);
        let judgement = judge(&[entry("CN=a", &all)], "a@contoso.com", DisabledAccounts::Accepted);
        assert_eq!(judgement.at_odds.as_deref(), at_odds, "{attributes:?}");
    }
}

#[test]
fn names_of_exchange_wrapped_into_addresses_are_owned() {
    let wrapped = "IMCEAEX-_O=CONTOSO_OU=EXCHANGE+20ADMINISTRATIVE+20GROUP_CN=RECIPIENTS_CN=ALICE@contoso.com";
    let name = "/o=Contoso/ou=Exchange Administrative Group/cn=Recipients/cn=alice";
    let x500 = format!("x500:{name}");
    for (attributes, owned) in [
        (&[("legacyExchangeDN", name)][..], true),
        (&[("proxyAddresses", x500.as_str())], true),
        (&[("legacyExchangeDN", "/o=Contoso/cn=Recipients/cn=alice")], false),
        (&[("proxyAddresses", name)], false),
        (&[("mail", wrapped), ("homeMDB", "CN=db")], false),
    ] {
        let lookup = judge(&[entry("CN=x", attributes)], wrapped, DisabledAccounts::Accepted).lookup;
        assert_eq!(matches!(lookup, Lookup::Found(_)), owned, "{attributes:?}: {lookup:?}");
    }
    assert_eq!(
        Profile::ActiveDirectory.filter([&Address::parse(wrapped).unwrap()]).to_string(),
        "(|(legacyExchangeDN=\\2fo\\3dcontoso\\2fou\\3dexchange\\20administrative\\20group\\2fcn\\3drecipients\\2fcn\\3dalice)\
         (proxyAddresses=X500:\\2fo\\3dcontoso\\2fou\\3dexchange\\20administrative\\20group\\2fcn\\3drecipients\\2fcn\\3dalice))"
    );
}

#[test]
fn whom_exchange_forwards_for_is_exchanges_business() {
    let home = ("homeMDB", "CN=db");
    let forwarded = [home, ("altRecipient", "CN=b,DC=contoso,DC=com"), ("deliverAndRedirect", "FALSE")];
    let accepted = DisabledAccounts::Accepted;
    assert_eq!(kind_of(&forwarded, accepted), kind_of(&[home], accepted));
}

#[test]
fn the_mail_server_is_the_last_cn() {
    for (written, name) in [
        ("/o=Contoso/ou=Exchange (FYDIBOHF23SPDLT)/cn=Configuration/cn=Servers/cn=EX-EU", Some("ex-eu")),
        ("/o=Contoso/CN=EX1/x=y", Some("ex1")),
        ("EX1", None),
    ] {
        assert_eq!(last_cn(written).as_deref(), name, "{written}");
    }
}
