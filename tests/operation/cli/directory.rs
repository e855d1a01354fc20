//! `fingerpost directory` while the server runs.

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use super::installation::Installation;

/// Two directories: `wave` is asked first, `people` has what it has.
fn installation_with_directories() -> Installation {
    let installation = Installation::new();
    let wave =
        "[[directory]]\nname = \"wave\"\nkind = \"file\"\npath = \"wave.txt\"\ndefault_domain = \"contoso.example\"\n";
    let configuration = installation.configuration().replacen("[[directory]]", &format!("{wave}\n[[directory]]"), 1);
    std::fs::write(installation.path("wave.txt"), "# moved tonight\nalice\ncarol\n").unwrap();
    // It resolves another domain alone, so that what it has of this one decides nothing and conflicts with nothing.
    let apart =
        "[[directory]]\nname = \"apart\"\nkind = \"file\"\npath = \"apart.txt\"\ndomains = [\"ours.example\"]\n";
    let configuration = configuration.replacen("[[directory]]", &format!("{apart}\n[[directory]]"), 1);
    std::fs::write(installation.path("apart.txt"), "bob@contoso.example\nalice@contoso.example\n").unwrap();
    let people = "PrimarySmtpAddress,RecipientTypeDetails,ExternalEmailAddress\n\
        alice@contoso.example,RemoteUserMailbox,SMTP:alice@cloud.example\n\
        bob@contoso.example,UserMailbox,\ntwin@contoso.example,UserMailbox,\ntwin@contoso.example,UserMailbox,\n";
    std::fs::write(installation.path("people.csv"), people).unwrap();
    installation.write(&configuration);
    installation
}

#[test]
fn each_directory_is_asked_and_the_first_that_knows_decides() {
    let installation = installation_with_directories();
    let _server = installation.serve();
    let ran = installation.run(&["directory", "lookup", "alice@contoso.example"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("apart   mailbox: ") && ran.out.contains("\nwave    mailbox: "), "{ran:?}");
    assert!(ran.out.contains("wave.txt:2, by kind = \"mailbox\"\n"), "{ran:?}");
    assert!(ran.out.contains("people.csv:2, by kind = \"mail-user\"; target alice@cloud.example\n"), "{ran:?}");
    assert!(ran.out.contains("alice@contoso.example: resolved through mailboxes"), "{ran:?}");

    let json = installation.run(&["directory", "lookup", "twin@contoso.example", "--format", "json"]);
    assert_eq!(json.code, 1, "{json:?}");
    let looked: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(looked["answers"][1]["result"], "not-found");
    assert_eq!(looked["answers"][2]["result"], "ambiguous");
    assert_eq!(looked["decision"]["verdict"], "deferred");

    assert_eq!(installation.run(&["directory", "lookup", "nobody@contoso.example"]).code, 1);
    let wrong = installation.run(&["directory", "lookup", "nobody"]);
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""), "{wrong:?}");
    assert!(wrong.err.contains("`nobody` is not an address"), "{wrong:?}");
}

#[test]
fn what_directories_hold_is_counted_and_what_they_share_is_listed() {
    let installation = installation_with_directories();
    let _server = installation.serve();
    installation.run(&["directory", "lookup", "bob@contoso.example"]);
    let stats = installation.run(&["directory", "stats"]);
    assert_eq!(stats.code, 0, "{stats:?}");
    assert!(stats.out.contains("people     file  up     1 mail-user, 3 mailbox"), "{stats:?}");
    let json = installation.run(&["directory", "stats", "--format", "json"]);
    let stats: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(stats[1]["name"], "wave");
    assert_eq!(stats[2]["recipients"]["mailbox"], 3);
    assert!(stats[2]["lookups"]["found"].as_u64() >= Some(1), "{stats}");

    let conflicts = installation.run(&["directory", "conflicts"]);
    assert_eq!(conflicts.code, 1, "{conflicts:?}");
    let lines: Vec<&str> = conflicts.out.lines().collect();
    assert!(lines[1].starts_with("alice@contoso.example  wave "), "{conflicts:?}");
    assert!(lines[2].starts_with("twin@contoso.example   nobody: 451  "), "{conflicts:?}");
    assert!(lines[2].contains("people.csv:4; ") && lines[2].ends_with("people.csv:5"), "{conflicts:?}");
    let one = installation.run(&["directory", "conflicts", "--limit", "1", "--format", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&one.out).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{one:?}");
    assert_eq!(listed[0]["decides"], "wave");
    // The page and the metric say the same, once it was counted.
    assert_eq!(
        counted(&installation, 2),
        [("apart", 0), ("wave", 0), ("people", 2)].map(|(name, count)| (name.to_owned(), count))
    );
}

/// What `directory stats` says of conflicts, as soon as there are so many.
fn counted(installation: &Installation, total: u64) -> Vec<(String, u64)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let ran = installation.run(&["directory", "stats", "--format", "json"]);
        let stats: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let one = |one: &serde_json::Value| Some((one["name"].as_str()?.to_owned(), one["conflicts"].as_u64()?));
        let counts: Vec<_> = stats.as_array().unwrap().iter().filter_map(one).collect();
        if counts.iter().map(|(_, count)| count).sum::<u64>() >= total || Instant::now() > deadline {
            return counts;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_conflicts_the_answer_is_yes() {
    let installation = Installation::new();
    let _server = installation.serve();
    let ran = installation.run(&["directory", "conflicts"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "no address has more than one entry\n"), "{ran:?}");
}

/// What RCPT is answered for each of these, in one transaction.
fn rcpt(installation: &Installation, addresses: &[&str]) -> Vec<String> {
    let stream = std::net::TcpStream::connect(installation.smtp).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let mut say = |line: &str| {
        (&stream).write_all(format!("{line}\r\n").as_bytes()).unwrap();
        replies.by_ref().find(|reply| reply.as_bytes()[3] == b' ').unwrap()
    };
    // The greeting comes first, so every reply is that to the line before; the last one asks for the last.
    say("EHLO client.example");
    say("MAIL FROM:<joe@example.net>");
    say("NOOP");
    let mut all: Vec<String> = addresses.iter().map(|address| say(&format!("RCPT TO:<{address}>"))).collect();
    all.push(say("RSET"));
    all.remove(0);
    all
}

#[test]
fn both_organisations_directories_decide_while_the_sender_waits() {
    let installation = Installation::new();
    let theirs = "[[directory]]\nname = \"theirs\"\nkind = \"file\"\npath = \"theirs.csv\"\n\n[[send_connector]]";
    let configuration = installation.configuration().replacen("[[send_connector]]", theirs, 1);
    let verified = configuration.replacen("delivery = \"queue\"", "delivery = \"queue\"\nverify_with = \"theirs\"", 1);
    let theirs = "Name;MailAddress\nalice@contoso.example;\nbob@contoso.example;\ntwin@contoso.example;\ntwin@contoso.example;\n";
    std::fs::write(installation.path("theirs.csv"), theirs).unwrap();
    installation.write(&verified);
    let _server = installation.serve();
    let replies = rcpt(
        &installation,
        &["alice@contoso.example", "bob@contoso.example", "nobody@contoso.example", "twin@contoso.example"],
    );
    let starts: Vec<&str> = replies.iter().map(|reply| &reply[..9]).collect();
    assert_eq!(starts, ["250 2.1.5", "250 2.1.5", "550 5.1.1", "451 4.3.5"], "{replies:?}");
    let ran = installation.run(&["route", "bob@contoso.example"]);
    assert!(ran.out.starts_with("bob@contoso.example: relayed through secondary"), "{ran:?}");
    let ran = installation.run(&["route", "nobody@contoso.example"]);
    assert!(
        ran.out.contains("row 11: no directory has nobody@contoso.example, and theirs, which secondary"),
        "{ran:?}"
    );
    // Alice is asked for in our own directory alone; the twins are answered 451, whoever is asked.
    let conflicts = installation.run(&["directory", "conflicts", "--format", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&conflicts.out).unwrap();
    let addresses: Vec<_> = listed.as_array().unwrap().iter().map(|one| &one["address"]).collect();
    assert_eq!(addresses, ["twin@contoso.example"], "{conflicts:?}");
    assert_eq!(counted(&installation, 1), [("people".to_owned(), 0), ("theirs".to_owned(), 1)]);
}
