//! The rule as a table, and which source says that an address exists.

use super::*;
use crate::lookup::Recipient;
use crate::routing::verdict::Says;
use crate::smtp::address::Address;
use crate::smtp::reply::{
    BAD_RECIPIENT, DIRECTORY_AMBIGUOUS, DIRECTORY_UNAVAILABLE, DOMAIN_RECENTLY_REMOVED, NO_ROUTE, RELAYING_DENIED,
    TRY_AGAIN,
};

const NOW: QueueTime = QueueTime(1_000_000_000);
const HOUR: u64 = 3600;
const BY: [KnownBy; 4] = [KnownBy::Directory, KnownBy::DirectoryWithoutTag, KnownBy::VerifyWith, KnownBy::Nobody];

fn ago(seconds: u64) -> QueueTime {
    QueueTime(NOW.0 - seconds)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn route(connector: &str, rcpt_to: &str, way: RouteKind) -> Route {
    let rcpt_to = address(rcpt_to);
    Route { connector: connector.into(), next_hop_domain: rcpt_to.domain().clone(), rcpt_to, way }
}

/// All evidence that is possible: every source, with and without a success, at every age of the first refusal.
fn all_known() -> Vec<Known> {
    let mut all = Vec::new();
    for by in BY {
        for good_since in [None, Some(ago(0)), Some(ago(299)), Some(ago(300)), Some(ago(6 * 24 * HOUR))] {
            for first_refused in [None, Some(NOW), Some(ago(HOUR - 1)), Some(ago(HOUR)), Some(ago(100 * HOUR))] {
                all.push(Known { by, good_since, first_refused });
            }
        }
    }
    all
}

/// The expected result: temporary while there is evidence and the hour is not over, else believed.
fn for_an_hour(known: &Known, vouched: impl Fn(&Known) -> bool, believed: Believed) -> Doubt {
    let young = [None, Some(NOW), Some(ago(HOUR - 1))].contains(&known.first_refused);
    if young && vouched(known) { Doubt::Temporary } else { Doubt::Believe(believed) }
}

fn somebody(known: &Known) -> bool {
    match (known.by, known.good_since) {
        (KnownBy::Nobody, None) => false,
        (KnownBy::Directory | KnownBy::DirectoryWithoutTag | KnownBy::VerifyWith, _) | (KnownBy::Nobody, Some(_)) => {
            true
        }
    }
}

#[test]
fn what_a_next_hop_calls_unknown() {
    let old = route("primary", "bob@contoso.com", RouteKind::Resolved);
    let same = Route { way: RouteKind::Relayed, ..old.clone() };
    let others = [
        route("secondary", "bob@contoso.com", RouteKind::Relayed),
        route("primary", "robert@contoso.com", RouteKind::Redirected),
        route("cloud", "bob@contoso.net", RouteKind::Redirected),
    ];
    let accept = |route: &Route| Verdict::Accept(route.clone());
    for known in all_known() {
        for followed in [Followed::NotYet, Followed::Already] {
            let told = |live: &Verdict| doubt(&Refused::ByHop { route: &old, followed, live }, &known, NOW);
            let doubted = for_an_hour(&known, somebody, Believed::NextHop);
            assert_eq!(told(&accept(&same)), doubted, "the same way, {followed:?}, {known:?}");
            for other in &others {
                let expected = match followed {
                    Followed::NotYet => Doubt::Follow(other.clone()),
                    Followed::Already => doubted.clone(),
                };
                assert_eq!(told(&accept(other)), expected, "another way, {followed:?}, {known:?}");
            }
            for permanent in [USER_UNKNOWN, ROUTING_LOOP, RELAYING_DENIED, NO_ROUTE] {
                let doubted = for_an_hour(&known, somebody, Believed::Ourselves(permanent.clone()));
                assert_eq!(told(&Verdict::Refuse(permanent.clone())), doubted, "{permanent}, {followed:?}, {known:?}");
            }
            for transient in [DIRECTORY_UNAVAILABLE, DIRECTORY_AMBIGUOUS, DOMAIN_RECENTLY_REMOVED, TRY_AGAIN] {
                let deferred = Doubt::Defer(transient.clone());
                assert_eq!(told(&Verdict::Refuse(transient)), deferred, "{followed:?}, {known:?}");
            }
        }
    }
}

#[test]
fn what_our_own_decision_refuses() {
    let good = |known: &Known| known.good_since.is_some();
    let settled = |known: &Known| known.good_since.is_none_or(|since| since <= ago(300));
    let rows = (0..=12).map(Some).chain([None]);
    let replies =
        [USER_UNKNOWN, ROUTING_LOOP, RELAYING_DENIED, NO_ROUTE, BAD_RECIPIENT, DIRECTORY_UNAVAILABLE, TRY_AGAIN];
    let (mut doubted, mut looked_at) = (0, 0);
    for row in rows {
        for reply in &replies {
            for known in all_known() {
                let believed = Believed::Ourselves(reply.clone());
                let expected = match (row, reply) {
                    (_, reply) if reply.is_transient() => Doubt::Defer(reply.clone()),
                    (Some(3), reply) if *reply == ROUTING_LOOP => {
                        for_an_hour(&known, |known| good(known) && settled(known), believed)
                    }
                    (Some(10), reply) if *reply == USER_UNKNOWN => {
                        for_an_hour(&known, |known| good(known) && settled(known), believed)
                    }
                    (Some(8), reply) if *reply == ROUTING_LOOP => {
                        for_an_hour(&known, |known| somebody(known) && settled(known), believed)
                    }
                    (Some(9 | 11), reply) if *reply == USER_UNKNOWN => for_an_hour(&known, somebody, believed),
                    _ => Doubt::Stands,
                };
                let told = doubt(&Refused::ByUs { row, reply }, &known, NOW);
                assert_eq!(told, expected, "row {row:?}, {reply}, {known:?}");
                doubted += usize::from(told == Doubt::Temporary);
                looked_at += 1;
            }
        }
    }
    assert_eq!(looked_at, 14 * 7 * 100);
    // Rows 3 and 10: four sources, two kinds of success each; row 8: those, and without success the three sources other
    // than `Nobody`; rows 9 and 11: all except `Nobody` without success. Each at three ages of the first refusal.
    assert_eq!(doubted, 3 * (2 * (4 * 2) + (4 * 2 + 3) + 2 * (4 * 4 + 3)));
}

/// Cases from practice, with their names.
#[test]
fn the_cases_of_the_field() {
    let old = route("primary", "bob@contoso.com", RouteKind::Resolved);
    let live = Verdict::Accept(old.clone());
    let hop = Refused::ByHop { route: &old, followed: Followed::NotYet, live: &live };
    let (unknown, looped) = (USER_UNKNOWN, ROUTING_LOOP);
    let by_us = |row, reply| Refused::ByUs { row: Some(row), reply };
    let known = |by, good_since, first_refused| Known { by, good_since, first_refused };
    let week = Some(ago(100 * HOUR));
    for (case, refused, known, is_doubted) in [
        ("M7: created a minute ago", hop, known(KnownBy::Directory, None, None), true),
        ("M7: an hour later", hop, known(KnownBy::Directory, None, Some(ago(HOUR))), false),
        ("M7: verified", hop, known(KnownBy::VerifyWith, None, None), true),
        ("M8: recently good", hop, known(KnownBy::Nobody, week, None), true),
        ("a stranger's guess", hop, known(KnownBy::Nobody, None, None), false),
        ("M11: a mail user is sent back", by_us(8, &looped), known(KnownBy::Directory, week, None), true),
        ("M11: who never had mail", by_us(8, &looped), known(KnownBy::Directory, None, None), true),
        ("M11: unresolved", by_us(10, &unknown), known(KnownBy::Nobody, week, None), true),
        ("M11: external", by_us(3, &looped), known(KnownBy::Nobody, week, None), true),
        ("sent straight back, a mail user", by_us(8, &looped), known(KnownBy::Directory, Some(ago(1)), None), false),
        ("sent straight back", by_us(10, &unknown), known(KnownBy::Nobody, Some(ago(299)), None), false),
        ("sent straight back, external", by_us(3, &looped), known(KnownBy::Nobody, Some(ago(0)), None), false),
        ("forgotten by the directory", by_us(9, &unknown), known(KnownBy::Nobody, Some(ago(1)), None), true),
        ("a typing error", by_us(9, &unknown), known(KnownBy::Nobody, None, None), false),
        ("its target is gone", by_us(9, &unknown), known(KnownBy::Directory, None, None), true),
        ("not verified any more", by_us(11, &unknown), known(KnownBy::Nobody, week, None), true),
    ] {
        assert_eq!(doubt(&refused, &known, NOW) == Doubt::Temporary, is_doubted, "{case}");
    }
}

/// A directory's answer as a reason.
fn said(of: &str, lookup: Lookup, fresh: Fresh) -> Reason {
    Reason::Directory { directory: "ad".into(), address: address(of), lookup, fresh }
}

fn found(kind: Kind, target: Option<&str>) -> Lookup {
    let target = target.map(address);
    let (entry, rule) = ("CN=Bob".into(), "a test".into());
    Lookup::Found(Recipient { kind, target, mail_server: None, send_connector: None, entry, rule }.into())
}

#[test]
fn a_directory_has_whom_its_entry_makes_somebody() {
    let to = "b@contoso.net";
    for (kind, target, expected) in [
        (Kind::Mailbox, None, KnownBy::Directory),
        (Kind::Group, None, KnownBy::Directory),
        (Kind::PublicFolder, None, KnownBy::Directory),
        (Kind::MailUser, Some(to), KnownBy::Directory),
        (Kind::Contact, Some(to), KnownBy::Directory),
        (Kind::MailUser, None, KnownBy::Directory),
        (Kind::Contact, None, KnownBy::Directory),
        (Kind::NoMailbox, None, KnownBy::Nobody),
        (Kind::NoMailbox, Some(to), KnownBy::Nobody),
    ] {
        let reasons = vec![said("bob@contoso.com", found(kind, target), Fresh::Live)];
        let decision =
            Decision { address: address("Bob@contoso.com"), verdict: Verdict::Refuse(ROUTING_LOOP), reasons };
        assert_eq!(KnownBy::of(&decision), expected, "{kind:?} {target:?}");
    }
}

#[test]
fn who_says_so_is_read_from_the_decision() {
    let mailbox = || found(Kind::Mailbox, None);
    let user = || found(Kind::MailUser, Some("b@contoso.net"));
    let accept = |way| Verdict::Accept(route("x", "bob+x@contoso.com", way));
    let refuse = || Verdict::Refuse(USER_UNKNOWN);
    let (bob, tagged) = ("bob@contoso.com", "bob+x@contoso.com");
    let live = Fresh::Live;
    let row = Reason::Row { row: 9, says: Says::Words("words".to_owned()) };
    for (name, verdict, reasons, expected) in [
        ("resolved", accept(RouteKind::Resolved), vec![said(tagged, mailbox(), live)], KnownBy::Directory),
        (
            "resolved without its tag",
            accept(RouteKind::Resolved),
            vec![said(tagged, Lookup::NotFound, live), said(bob, mailbox(), live)],
            KnownBy::DirectoryWithoutTag,
        ),
        ("postmaster", accept(RouteKind::Resolved), vec![said(tagged, Lookup::NotFound, live)], KnownBy::Directory),
        (
            "redirected to somebody who is found as well",
            accept(RouteKind::Redirected),
            vec![said(tagged, user(), live), said("b@contoso.net", mailbox(), live)],
            KnownBy::Directory,
        ),
        (
            "the second directory",
            accept(RouteKind::Resolved),
            vec![said(tagged, found(Kind::NoMailbox, None), live), said(tagged, mailbox(), live)],
            KnownBy::Directory,
        ),
        ("verified", accept(RouteKind::RelayedVerified), vec![said(tagged, mailbox(), live)], KnownBy::VerifyWith),
        ("relayed", accept(RouteKind::Relayed), vec![said(tagged, Lookup::NotFound, live)], KnownBy::Nobody),
        ("external", accept(RouteKind::External), vec![], KnownBy::Nobody),
        ("refused", refuse(), vec![said(tagged, Lookup::NotFound, live), row.clone()], KnownBy::Nobody),
        ("its target is refused", refuse(), vec![said(tagged, user(), live), row.clone()], KnownBy::Directory),
        (
            "the target of its plain address is refused",
            refuse(),
            vec![said(tagged, Lookup::NotFound, live), said(bob, user(), live), row.clone()],
            KnownBy::DirectoryWithoutTag,
        ),
        ("not live", refuse(), vec![said(tagged, user(), Fresh::Cached), row], KnownBy::Nobody),
    ] {
        let decision = Decision { address: address(tagged), verdict, reasons };
        assert_eq!(KnownBy::of(&decision), expected, "{name}");
    }
}
