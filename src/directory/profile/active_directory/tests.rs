//! Tables of entries as Exchange's directories have them.

use super::*;
use crate::config::Profile;
use crate::directory::profile::Judgement;
use crate::directory::profile::tests::entry;
use crate::lookup::Lookup;

fn judge(entries: &[Entry], address: &str, disabled: DisabledAccounts) -> Judgement {
    Profile::ActiveDirectory.judge(entries, &Address::parse(address).unwrap(), disabled)
}

/// The kind of the only owner of `a@contoso.com`, which has these further attributes.
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
        (&[("mail", "admin@contoso.com"), ("legacyExchangeDN", "ADCDisabledMail")], "admin@contoso.com", true),
        (&[("userPrincipalName", "alice@contoso.com"), nick], "alice@contoso.com", false),
    ] {
        let lookup = judge(&[entry("CN=x", attributes)], asked, accepted).lookup;
        assert_eq!(lookup != Lookup::NotFound, owned, "{attributes:?} {asked}: {lookup:?}");
    }
}

#[test]
fn proxy_addresses_go_before_mail_and_two_owners_are_ambiguous() {
    let proxy = entry("CN=proxy", &[("proxyAddresses", "smtp:a@contoso.com"), ("homeMDB", "CN=db")]);
    let mail = entry("CN=mail", &[("mail", "a@contoso.com"), ("mailNickname", "a")]);
    let found = judge(&[mail.clone(), proxy.clone()], "a@contoso.com", DisabledAccounts::Accepted).lookup;
    assert!(matches!(found, Lookup::Found(owner) if &*owner.entry == "CN=proxy"));

    let second = entry("CN=also", &[("proxyAddresses", "SMTP:A@contoso.com"), ("targetAddress", "a@b.c")]);
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
    let legacy = ("legacyExchangeDN", "/o=x/ou=y/cn=Recipients/cn=a");
    for (attributes, expected) in [
        (&[kind("1"), home][..], (Kind::Mailbox, None)),
        (&[kind("2"), home], (Kind::Mailbox, None)),
        (&[kind("4")], (Kind::Mailbox, None)),
        (&[kind("1"), target], (Kind::Mailbox, None)),
        (&[kind("64"), target], (Kind::Contact, away.clone())),
        (&[kind("128"), target], (Kind::MailUser, away.clone())),
        (&[kind("35184372088832"), target], (Kind::MailUser, away.clone())),
        (&[kind("2147483648"), target, home], (Kind::MailUser, away.clone())),
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
        (&[group, legacy], (Kind::Group, None)),
        (&[("objectClass", "publicFolder"), nick], (Kind::PublicFolder, None)),
        (&[("legacyExchangeDN", "ADCDisabledMail")], (Kind::NoMailbox, None)),
        (&[], (Kind::NoMailbox, None)),
        (&[kind("0"), home], (Kind::Mailbox, None)),
        (&[kind("1152921504606846976"), target], (Kind::MailUser, away)),
        (&[kind("-1")], (Kind::NoMailbox, None)),
    ] {
        let (kind, target, rule) = kind_of(attributes, DisabledAccounts::Accepted);
        assert_eq!((kind, target), expected, "{attributes:?}: {rule}");
    }
}

#[test]
fn a_target_that_cannot_be_read_is_no_answer() {
    for target in ["SMTP:", "SMTP:x", "GWISE:", "nobody"] {
        let attributes = [("proxyAddresses", "smtp:a@contoso.com"), ("targetAddress", target)];
        let lookup = judge(&[entry("CN=a", &attributes)], "a@contoso.com", DisabledAccounts::Accepted).lookup;
        assert!(matches!(lookup, Lookup::Unavailable(_)), "{target}: {lookup:?}");
    }
}

#[test]
fn targets_of_other_kinds_are_left_to_exchange() {
    for target in ["X400:c=de;a= ;p=x;o=y;s=z;", "GWISE:dom.po.user", "notes:Ann Lee/Contoso@Contoso", "FAX:+49 89 1"] {
        for kind in [&[][..], &[("msExchRecipientTypeDetails", "64")], &[("msExchRecipientTypeDetails", "128")]] {
            let attributes = [&[("targetAddress", target)], kind].concat();
            let (found, target, rule) = kind_of(&attributes, DisabledAccounts::Accepted);
            assert!(matches!(found, Kind::MailUser | Kind::Contact), "{attributes:?}: {rule}");
            assert_eq!(target, None, "{attributes:?}: {rule}");
        }
    }
}

/// Attributes that the account may not read seem to be absent.
#[test]
fn a_missing_right_is_no_answer() {
    let kind = |value: &'static str| ("msExchRecipientTypeDetails", value);
    let (proxy, mail) = (("proxyAddresses", "SMTP:a@contoso.com"), ("mail", "a@contoso.com"));
    let (nick, home) = (("mailNickname", "a"), ("homeMDB", "CN=db"));
    let legacy = ("legacyExchangeDN", "/o=x/ou=y/cn=Recipients/cn=a");
    let class = |value: &'static str| ("objectClass", value);
    for (attributes, lack) in [
        (&[proxy, kind("128")][..], "of type MailUser without targetAddress"),
        (&[proxy, kind("64"), nick], "of type MailContact without targetAddress"),
        (&[proxy, kind("2147483648"), home], "of type RemoteUserMailbox without targetAddress"),
        (&[proxy, kind("34359738368")], "of type RemoteSharedMailbox without targetAddress"),
        (&[mail, kind("1"), nick, home], "of type UserMailbox without proxyAddresses"),
        (&[mail, kind("256"), nick], "of type MailUniversalDistributionGroup without proxyAddresses"),
        (&[mail, kind("4096"), nick], "of type PublicFolder without proxyAddresses"),
        (&[mail, nick, home], "with mailNickname without proxyAddresses"),
        (&[mail, legacy, home], "with legacyExchangeDN without proxyAddresses"),
        (&[mail, home, ("msExchMailboxGuid", "0123456789abcdef")], "with msExchMailboxGuid without proxyAddresses"),
        (&[mail, nick, class("group")], "with mailNickname without proxyAddresses"),
        (&[proxy, nick], "with mailNickname without msExchRecipientTypeDetails, homeMDB, msExchHomeServerName and"),
        (&[proxy, legacy, class("contact")], "with legacyExchangeDN without msExchRecipientTypeDetails"),
        (&[proxy, ("msExchMailboxGuid", "x")], "with msExchMailboxGuid without msExchRecipientTypeDetails"),
        (&[proxy, kind("-1"), nick], "with mailNickname without msExchRecipientTypeDetails"),
    ] {
        let judgement = judge(&[entry("CN=a", attributes)], "a@contoso.com", DisabledAccounts::Accepted);
        let Lookup::Unavailable(cause) = judgement.lookup else { panic!("{attributes:?}: {judgement:?}") };
        assert!(cause.contains(&format!("`CN=a`: an entry {lack}")), "{cause}");
        assert!(cause.ends_with("may the bind account read it?"), "{cause}");
    }
    // An entry without a sign of Exchange may be what it seems to be.
    let plain = judge(&[entry("CN=a", &[proxy])], "a@contoso.com", DisabledAccounts::Accepted);
    assert!(plain.at_odds.is_some_and(|text| odd::is_lack(&text)));
    let typed = judge(&[entry("CN=a", &[proxy, kind("65536")])], "a@contoso.com", DisabledAccounts::Accepted);
    assert_eq!(typed.at_odds, None);
}

#[test]
fn an_account_whose_control_cannot_be_read_is_neither_disabled_nor_not() {
    let personal = [("objectClass", "user"), ("homeMDB", "CN=db"), ("msExchRecipientTypeDetails", "1")];
    let said = |attributes: &[(&str, &str)], disabled| {
        let all = [attributes, &[("proxyAddresses", "SMTP:a@contoso.com")]].concat();
        crate::directory::profile::tests::said(&Profile::ActiveDirectory, &[entry("CN=a", &all)], disabled)
    };
    assert_eq!(said(&personal, DisabledAccounts::Refused), "unavailable");
    assert_eq!(said(&personal, DisabledAccounts::Accepted), "mailbox");
    assert_eq!(said(&[&personal[..], &[("userAccountControl", "512")]].concat(), DisabledAccounts::Refused), "mailbox");
    assert_eq!(said(&personal[..2], DisabledAccounts::Refused), "mailbox", "Exchange 2003");
}

#[test]
fn leavers_do_not_outvote_a_mailbox() {
    let info = ("proxyAddresses", "smtp:info@contoso.com");
    let (left, disabled) = (("msExchRecipientTypeDetails", "2097152"), ("userAccountControl", "514"));
    let leaver = entry("CN=left", &[info, left, disabled]);
    let shared = entry("CN=shared", &[info, ("msExchRecipientTypeDetails", "4"), ("homeMDB", "CN=db")]);
    let says = |entries: &[Entry]| judge(entries, "info@contoso.com", DisabledAccounts::Accepted).lookup;
    let is = |lookup: Lookup, name: &str| matches!(lookup, Lookup::Found(owner) if &*owner.entry == name);
    assert!(is(says(&[leaver.clone(), shared.clone()]), "CN=shared"));
    assert!(is(says(&[shared.clone(), leaver.clone(), leaver.clone()]), "CN=shared"));
    assert!(is(says(&[leaver.clone(), leaver.clone()]), "CN=left"), "as good as not found, both");
    // An entry whose attributes cannot be read may be a mailbox.
    let unread = entry("CN=unread", &[info, ("mailNickname", "info")]);
    assert!(matches!(says(&[unread, shared, leaver]), Lookup::Ambiguous(owners) if owners.len() == 2));
}

#[test]
fn disabled_accounts_are_refused_only_where_asked_and_only_personal_ones() {
    let kind = |value: &'static str| ("msExchRecipientTypeDetails", value);
    for (attributes, expected) in [
        (&[kind("1"), ("userAccountControl", "514")][..], Kind::NoMailbox),
        (&[kind("1"), ("userAccountControl", "512")], Kind::Mailbox),
        (&[kind("1")], Kind::Mailbox),
        (&[("homeMDB", "CN=db"), ("userAccountControl", "66050")], Kind::Mailbox),
        (&[kind("0"), ("homeMDB", "CN=db"), ("userAccountControl", "514")], Kind::Mailbox),
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
        assert_eq!(lookup != Lookup::NotFound, owned, "{attributes:?}: {lookup:?}");
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
