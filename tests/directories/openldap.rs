//! The profile `openldap` on slapd: who is found as what.

use fingerpost::lookup::{Fresh, Freshness, Kind, Lookup};

use crate::asker::{Asker, LookupResult, openldap};
use LookupResult::{Ambiguous, Away, Found, NotFound, Unavailable};
use support::slapd::{BASE, Slapd};

fn people(slapd: &Slapd) {
    slapd.add_person("alice", "mail: Alice@contoso.com\nmailLocalAddress: alice.second@CONTOSO.com");
    slapd.add_person("bob", "mail: bob@contoso.com\nmailRoutingAddress: bob@other.example");
    slapd.add_person("carol", "mail: carol@contoso.com\nmailHost: EX1.contoso.com");
    slapd.add_person("one", "mail: twice@contoso.com");
    slapd.add_person("two", "mailLocalAddress: Twice@contoso.com");
    slapd.add_person("star", "mail: a*b@contoso.com");
    slapd.add(&format!(
        "dn: cn=team,{BASE}\nobjectClass: groupOfNames\nobjectClass: extensibleObject\ncn: team\n\
         member: uid=alice,{BASE}\nmail: team@contoso.com\n"
    ));
}

#[tokio::test]
async fn recipients_are_found_as_what_they_are() {
    let slapd = Slapd::start();
    people(&slapd);
    let asker = Asker::new(&openldap(&slapd));
    for (address, expected) in [
        ("alice@contoso.com", Found(Kind::Mailbox)),
        ("ALICE.Second@contoso.com", Found(Kind::Mailbox)),
        ("\"alice\"@contoso.com", Found(Kind::Mailbox)),
        ("bob@contoso.com", Away(Kind::MailUser, "bob@other.example".to_owned())),
        ("carol@contoso.com", Found(Kind::Mailbox)),
        ("team@contoso.com", Found(Kind::Group)),
        ("twice@contoso.com", Ambiguous(2)),
        ("postmaster@contoso.com", Found(Kind::Mailbox)),
        ("nobody@contoso.com", NotFound),
        ("alice@contoso.net", NotFound),
        ("a*b@contoso.com", Found(Kind::Mailbox)),
        ("al*@contoso.com", NotFound),
        ("*@contoso.com", NotFound),
        ("\"alice)(uid=*\"@contoso.com", NotFound),
        ("\"*)(objectClass=*\"@contoso.com", NotFound),
        ("\"\\\\2a\"@contoso.com", NotFound),
        ("alicé@contoso.com", NotFound),
        ("\"a b\"@contoso.com", NotFound),
    ] {
        assert_eq!(asker.ask(address).await, expected, "{address}");
    }
    let Lookup::Found(carol) = asker.answer("carol@contoso.com", Freshness::Any).await.lookup else { panic!() };
    assert_eq!(carol.mail_server.as_deref(), Some("ex1.contoso.com"));
    assert_eq!(asker.up(), 1);
    crate::lookup_output::is_shown(&openldap(&slapd), "alice@contoso.com");
}

/// The table in docs/directories/openldap.md.
#[tokio::test]
async fn sendmails_six_cases() {
    let slapd = Slapd::start_with(include_str!("schemas/qmail.schema"));
    let cases = [
        (
            "local-routed",
            "mailHost: mx.contoso.com\nmailRoutingAddress: a@store.contoso.com",
            true,
            Some("mx.contoso.com"),
        ),
        ("local", "mailHost: mx.contoso.com", false, Some("mx.contoso.com")),
        (
            "remote-routed",
            "mailHost: EX1.contoso.com\nmailRoutingAddress: a@store.contoso.com",
            true,
            Some("ex1.contoso.com"),
        ),
        ("remote", "mailHost: EX1.contoso.com", false, Some("ex1.contoso.com")),
        ("routed", "mailRoutingAddress: a@store.contoso.com", true, None),
        ("neither", "objectClass: qmailUser\nmailAlternateAddress: also@contoso.com", false, None),
    ];
    for (uid, lines, ..) in &cases {
        slapd.add_person(uid, &format!("mailLocalAddress: {uid}@contoso.com\n{lines}"));
    }
    let asker = Asker::new(&openldap(&slapd));
    for (uid, _, routed, server) in cases {
        let address = format!("{uid}@contoso.com");
        let expected =
            if routed { Away(Kind::MailUser, "a@store.contoso.com".to_owned()) } else { Found(Kind::Mailbox) };
        assert_eq!(asker.ask(&address).await, expected, "{address}");
        let Lookup::Found(found) = asker.answer(&address, Freshness::Any).await.lookup else { panic!("{address}") };
        assert_eq!(found.mail_server.as_deref(), server, "{address}");
    }
    assert_eq!(asker.ask("also@contoso.com").await, Found(Kind::Mailbox));
}

#[tokio::test]
async fn answers_are_cached_and_live_ones_are_asked() {
    let mut slapd = Slapd::start();
    people(&slapd);
    let asker = Asker::new(&openldap(&slapd));
    assert_eq!(asker.ask("alice@contoso.com").await, Found(Kind::Mailbox));
    assert_eq!(asker.ask("alice@contoso.com").await, Found(Kind::Mailbox));
    assert_eq!((asker.count("found"), asker.count("cached")), (1, 1), "an answer of less than 5 s is live");
    slapd.stop();
    tokio::time::sleep(std::time::Duration::from_millis(5_200)).await;
    let cached = asker.answer("alice@contoso.com", Freshness::Any).await;
    assert!(matches!(cached.lookup, Lookup::Found(_)));
    assert_eq!(cached.fresh, Fresh::Cached);
    assert_eq!(asker.ask("alice@contoso.com").await, Unavailable);
}

#[tokio::test]
async fn several_bases_are_one_directory() {
    let slapd = Slapd::start();
    people(&slapd);
    slapd.add(&format!("dn: ou=more,{BASE}\nobjectClass: organizationalUnit\nou: more\n"));
    slapd.add(&format!(
        "dn: uid=dave,ou=more,{BASE}\nobjectClass: inetOrgPerson\nuid: dave\ncn: dave\nsn: d\nmail: dave@contoso.com\n"
    ));
    let mut config = openldap(&slapd);
    config.base = vec![format!("ou=more,{BASE}"), BASE.to_owned()];
    let asker = Asker::new(&config);
    assert_eq!(asker.ask("dave@contoso.com").await, Found(Kind::Mailbox), "both bases hold it, it is one entry");
    assert_eq!(asker.ask("alice@contoso.com").await, Found(Kind::Mailbox));
    assert_eq!(asker.ask("nobody@contoso.com").await, NotFound);
}

#[tokio::test]
async fn a_reference_elsewhere_makes_a_not_found_doubtful() {
    let slapd = Slapd::start();
    people(&slapd);
    slapd.add(&format!(
        "dn: dc=emea,{BASE}\nobjectClass: referral\nobjectClass: extensibleObject\ndc: emea\n\
         ref: ldap://emea.contoso.com/dc=emea,dc=contoso,dc=com\n"
    ));
    let asker = Asker::new(&openldap(&slapd));
    assert_eq!(asker.ask("alice@contoso.com").await, Found(Kind::Mailbox));
    assert!(asker.cause("nobody@contoso.com").await.contains("use the global catalog"));
    assert_eq!(asker.up(), 0);
}
