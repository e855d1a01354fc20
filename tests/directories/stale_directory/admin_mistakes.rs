//! Mistakes that administrators make in a directory: none of them turns more mail around than `hold_changes` lets through, and
//! none bounces any, in both modes; the alert's gauge and the log name the directory, and `refresh --accept` lets it through.

use std::fmt::Write as _;
use std::time::Duration;

use support::samba_ad::{BASE, DATABASE, READER, SambaAd};
use support::senders::Raw;
use support::two_systems::{TwoSystems, message, token};
use support::wait_until;

/// Mailboxes as Exchange 2003 has them, without a type; and as many users whose mail goes elsewhere.
const MAILBOXES: usize = 30;
const CROWD: usize = 60;
/// `at_least`.
const MOST: usize = 5;
const LATER: Duration = Duration::from_secs(30);
const HELD: &str = "fingerpost_directory_changes_held{directory=\"ad\"}";

/// How the directory is used.
const MODES: [&str; 2] =
    ["mode = \"snapshot\"\npoll = \"1s\"\n", "mode = \"lookup\"\ncache = { found = \"1s\", not_found = \"1s\" }\n"];

/// Where the message to one of them went.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    /// To the primary organisation.
    Primary,
    /// To the secondary, for that address.
    Secondary(String),
    /// Nowhere: the sender was told this.
    Nowhere(String),
}

/// What somebody did, and how it is put right.
struct Mistake {
    name: &'static str,
    /// Those concerned, by number.
    concerned: std::ops::Range<usize>,
    /// Returns what is needed to put it right.
    make: fn(&SambaAd, &TwoSystems) -> String,
    mend: fn(&SambaAd, &TwoSystems, &str),
}

#[test]
fn mistakes_turn_no_mail_around_and_bounce_none() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    populate(&samba);
    for mode in MODES {
        for mistake in MISTAKES {
            let directory = format!(
                "[[directory]]\nname = \"ad\"\nurls = [\"{}\"]\nbase = [\"CN=Users,{BASE}\", \"OU=Probe,{BASE}\"]\n\
                 bind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"probe@contoso.test\"\ntimeout = \"3s\"\n\
                 hold_changes = {{ at_least = {MOST}, share = 0.02, within = \"1h\" }}\n{mode}",
                samba.url(),
                password.display()
            );
            is_harmless(&samba, &directory, &mistake);
        }
    }
}

fn is_harmless(samba: &SambaAd, directory: &str, mistake: &Mistake) {
    let in_memory = directory.contains(MODES[0]);
    let name = mistake.name;
    let mut systems = TwoSystems::prepare(directory);
    let spaces = "address_spaces = [{ domain = \"remote.test\" }, { domain = \"wrong.test\" }, ";
    let text = std::fs::read_to_string(systems.node.path("fingerpost.toml")).unwrap();
    systems.node.write("fingerpost.toml", &text.replace("address_spaces = [", spaces));
    systems.node.start();
    wait_until("everybody goes where he belongs", LATER, || everybody(&systems) == as_it_was());

    let before = (mistake.make)(samba, &systems);
    if in_memory {
        // As the hourly read would: what is gone from the bases shows there.
        systems.node.run(&["directory", "refresh", "ad"]);
    }
    let mut went = Vec::new();
    wait_until(&format!("{name}: it is held"), LATER, || {
        went = everybody(&systems);
        systems.node.metric(HELD).is_some_and(|held| held > 0.0)
    });
    for after in [went, everybody(&systems)] {
        let turned = after.iter().zip(as_it_was()).filter(|(now, then)| match now {
            Destination::Nowhere(said) => {
                assert!(said.starts_with("451 4.3.5") && !in_memory, "{name}: {said}");
                false
            }
            now => **now != *then,
        });
        let turned = turned.count();
        assert!(turned <= MOST, "{name}: {turned} were turned around: {after:?}");
    }
    if in_memory {
        is_told(&systems, mistake);
    }
    let log = systems.node.logged(&["held"]);
    assert!(log.contains("fingerpost directory refresh ad --accept"), "{name}: the log does not say what to do");

    // Meant after all.
    systems.node.run(&["directory", "refresh", "ad", "--accept"]);
    wait_until(&format!("{name}: it is let through"), LATER, || {
        let now = everybody(&systems);
        now.iter().zip(as_it_was()).enumerate().all(|(at, (now, then))| {
            mistake.concerned.contains(&at) == (*now != then) && !matches!(now, Destination::Nowhere(_))
        })
    });
    assert_eq!(systems.node.metric(HELD), Some(0.0), "{name}");
    (mistake.mend)(samba, &systems, &before);
}

/// In memory nobody stays turned, the list names everybody who is concerned, and the trace says it of each of them.
fn is_told(systems: &TwoSystems, mistake: &Mistake) {
    let name = mistake.name;
    let listed = systems.node.run(&["directory", "held", "ad", "--format", "csv"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(everybody(systems), as_it_was(), "{name}: nobody stays turned");
    for number in mistake.concerned.clone() {
        assert!(listed.contains(&format!("\nu{number}@contoso.test,")), "{name}: u{number} is not among {listed}");
    }
    let somebody = format!("u{}@contoso.test", mistake.concerned.start);
    let traced = systems.node.run(&["trace", "--recipient", &somebody]);
    let traced = String::from_utf8(traced.stdout).unwrap();
    assert!(traced.contains("; held since 2"), "{name}: {traced}");
}

const MISTAKES: [Mistake; 5] = [
    Mistake {
        name: "an emptied folder",
        concerned: 0..CROWD,
        make: |samba, _| {
            samba.modify(&moved("CN=Users", "OU=Elsewhere"));
            String::new()
        },
        mend: |samba, _, _| samba.modify(&moved("OU=Elsewhere", "CN=Users")),
    },
    Mistake {
        name: "homeMDB wiped",
        concerned: 0..MAILBOXES,
        make: |samba, _| {
            samba.modify(&each(0..MAILBOXES, |_| "delete: homeMDB".to_owned()));
            String::new()
        },
        mend: |samba, _, _| samba.modify(&each(0..MAILBOXES, |_| format!("add: homeMDB\nhomeMDB: {DATABASE}"))),
    },
    Mistake {
        name: "targetAddress rewritten",
        concerned: MAILBOXES..CROWD,
        make: |samba, _| {
            samba.modify(&each(MAILBOXES..CROWD, |n| {
                format!("replace: targetAddress\ntargetAddress: SMTP:u{n}@wrong.test")
            }));
            String::new()
        },
        mend: |samba, _, _| {
            samba.modify(&each(MAILBOXES..CROWD, |n| {
                format!("replace: targetAddress\ntargetAddress: SMTP:u{n}@remote.test")
            }));
        },
    },
    Mistake {
        name: "the right to read lost",
        concerned: 0..CROWD,
        make: |samba, _| samba.revoke_rights(),
        mend: |samba, _, before| samba.restore_rights(before),
    },
    Mistake {
        name: "a wrong base",
        concerned: 0..CROWD,
        make: |_, systems| {
            let right = std::fs::read_to_string(systems.node.path("fingerpost.toml")).unwrap();
            systems.node.write("fingerpost.toml", &right.replace(&format!("\"CN=Users,{BASE}\", "), ""));
            let reload = systems.node.run(&["reload"]);
            assert!(reload.status.success(), "{reload:?}");
            String::new()
        },
        mend: |_, _, _| {},
    },
];

/// Everybody below CN=Users; the probe stands elsewhere, so that it is found whatever becomes of them.
fn populate(samba: &SambaAd) {
    let mut ldif = String::new();
    for ou in ["OU=Elsewhere", "OU=Probe"] {
        write!(ldif, "dn: {ou},{BASE}\nchangetype: add\nobjectClass: organizationalUnit\n\n").unwrap();
    }
    let mut add = |dn: &str, name: &str, lines: &str| {
        write!(
            ldif,
            "dn: {dn},{BASE}\nchangetype: add\nobjectClass: user\nsAMAccountName: {name}\n\
             proxyAddresses: SMTP:{name}@contoso.test\n{lines}\n\n"
        )
        .unwrap();
    };
    let mailbox = format!("homeMDB: {DATABASE}");
    add("CN=probe,OU=Probe", "probe", &mailbox);
    for number in 0..CROWD {
        let away = format!("mailNickname: u{number}\ntargetAddress: SMTP:u{number}@remote.test");
        add(
            &format!("CN=u{number},CN=Users"),
            &format!("u{number}"),
            if number < MAILBOXES { &mailbox } else { &away },
        );
    }
    samba.modify(&ldif);
}

fn each(who: std::ops::Range<usize>, change: impl Fn(usize) -> String) -> String {
    who.map(|n| format!("dn: CN=u{n},CN=Users,{BASE}\nchangetype: modify\n{}\n\n", change(n))).collect()
}

fn moved(from: &str, to: &str) -> String {
    let one = |n: usize| {
        format!(
            "dn: CN=u{n},{from},{BASE}\nchangetype: modrdn\nnewrdn: CN=u{n}\ndeleteoldrdn: 1\nnewsuperior: {to},{BASE}\n\n"
        )
    };
    (0..CROWD).map(one).collect()
}

fn as_it_was() -> Vec<Destination> {
    let one = |n: usize| {
        if n < MAILBOXES { Destination::Primary } else { Destination::Secondary(format!("u{n}@remote.test")) }
    };
    (0..CROWD).map(one).collect()
}

/// Sends a message to each, and looks where it comes out.
fn everybody(systems: &TwoSystems) -> Vec<Destination> {
    let round = systems.primary.all().len() + systems.secondary.all().len();
    let mut raw = Raw::hello(systems.node.smtp);
    let mut said = Vec::new();
    for number in 0..CROWD {
        assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
        let (code, text) = raw.say(&format!("RCPT TO:<u{number}@contoso.test>"));
        if code == 250 {
            assert_eq!(raw.say("DATA").0, 354);
            raw.send(&message(&format!("{round}-{number}"), 100));
            assert_eq!(raw.say("\r\n.").0, 250);
        } else {
            raw.say("RSET");
        }
        said.push((code, text));
    }
    let sent = said.iter().filter(|(code, _)| *code == 250).count();
    let arrived = || systems.primary.all().len() + systems.secondary.all().len();
    wait_until("what was taken arrives", LATER, || arrived() == round + sent);
    let at = |sink: &support::sink::Sink, wanted: &str| {
        sink.all().into_iter().find(|sunk| token(sunk) == wanted).map(|sunk| sunk.to[0].clone())
    };
    let one = |(number, (code, text)): (usize, (u16, String))| {
        let wanted = format!("{round}-{number}");
        match (code, at(&systems.primary, &wanted), at(&systems.secondary, &wanted)) {
            (250, Some(_), None) => Destination::Primary,
            (250, None, Some(to)) => Destination::Secondary(to),
            _ => Destination::Nowhere(text),
        }
    };
    said.into_iter().enumerate().map(one).collect()
}
