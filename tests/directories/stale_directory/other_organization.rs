//! Mailboxes are created for people whom the other organisation serves: they are not used until somebody says so, for all or
//! for some; what is announced is used at once.

use std::fmt::Write as _;
use std::time::Duration;

use support::senders::Raw;
use support::slapd::{BASE, READER, Slapd};
use support::two_systems::{TwoSystems, accepted, message, token};
use support::wait_until;

const PEOPLE: usize = 20;
const LATER: Duration = Duration::from_secs(30);
const HELD: &str = "fingerpost_directory_changes_held{directory=\"ldap\"}";

/// Where the message to each came out.
fn went(systems: &TwoSystems) -> Vec<&'static str> {
    let round = systems.primary.all().len() + systems.secondary.all().len();
    let mut raw = Raw::hello(systems.node.smtp);
    for number in 0..PEOPLE {
        let bytes = message(&format!("{round}-{number}"), 100);
        assert!(accepted(&mut raw, &format!("o{number}@contoso.test"), &bytes), "{number}");
    }
    let arrived = || systems.primary.all().len() + systems.secondary.all().len();
    wait_until("all arrive", LATER, || arrived() == round + PEOPLE);
    let primary = systems.primary.all();
    let at_primary = |number: usize| primary.iter().any(|sunk| token(sunk) == format!("{round}-{number}"));
    (0..PEOPLE).map(|number| if at_primary(number) { "primary" } else { "secondary" }).collect()
}

fn said(systems: &TwoSystems, arguments: &[&str]) -> String {
    String::from_utf8(systems.node.run(arguments).stdout).unwrap()
}

#[test]
fn mailboxes_for_people_of_the_other_side_wait_for_a_word() {
    let slapd = Slapd::start();
    let mut systems = TwoSystems::prepare(&format!(
        "[[directory]]\nname = \"ldap\"\nprofile = \"openldap\"\nurls = [\"{}\"]\nbase = [\"{BASE}\"]\n\
         bind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.com\"\npoll = \"1s\"\n",
        slapd.url(),
        slapd.password_file().display()
    ));
    systems.node.start();
    wait_until("it is read", LATER, || said(&systems, &["directory", "stats"]).contains("confirmed"));
    assert_eq!(went(&systems), ["secondary"; PEOPLE]);

    let mut ldif = String::new();
    for number in 0..PEOPLE {
        write!(
            ldif,
            "dn: uid=o{number},{BASE}\nobjectClass: inetOrgPerson\nuid: o{number}\ncn: o\nsn: o\n\
             mail: o{number}@contoso.test\nmail: other{number}@contoso.test\n\n"
        )
        .unwrap();
    }
    slapd.add(&ldif);
    wait_until("they are held", LATER, || systems.node.metric(HELD) == Some(PEOPLE as f64));
    assert_eq!(went(&systems), ["secondary"; PEOPLE]);
    let words = "held: it is new here, and the last mail for it was accepted by secondary";
    wait_until("the trace says so", LATER, || {
        said(&systems, &["trace", "--recipient", "o7@contoso.test"]).contains(words)
    });
    let listed = said(&systems, &["directory", "held", "ldap", "--format", "csv"]);
    for number in 0..PEOPLE {
        assert!(listed.contains(&format!("\nother{number}@contoso.test,nobody,mailbox,")), "{number}: {listed}");
    }

    // Half of them are meant: one address of each will do.
    systems.node.write("half.csv", &(0..10).map(|n| format!("o{n}@contoso.test\n")).collect::<String>());
    let half = systems.node.path("half.csv");
    let taken = systems.node.run(&["directory", "refresh", "ldap", "--accept", "--only", half.to_str().unwrap()]);
    assert_eq!(taken.status.code(), Some(1), "others are held: {taken:?}");
    let (now, other) = (went(&systems), systems.node.metric(HELD));
    assert_eq!((&now[..10], &now[10..], other), (&["primary"; 10][..], &["secondary"; 10][..], Some(10.0)));

    // The others are announced.
    systems.node.write("others.csv", &(10..PEOPLE).map(|n| format!("other{n}@contoso.test\n")).collect::<String>());
    let others = systems.node.path("others.csv");
    let expect = ["directory", "expect", "ldap", "--only", others.to_str().unwrap(), "--for", "2h"];
    assert_eq!(said(&systems, &expect), "ldap: changes of 10 addresses neither count nor are held for the next 2h\n");
    assert_eq!((went(&systems), systems.node.metric(HELD)), (vec!["primary"; PEOPLE], Some(0.0)));
    assert_eq!(said(&systems, &["directory", "held", "ldap"]), "ldap: nothing is held\n");
}
