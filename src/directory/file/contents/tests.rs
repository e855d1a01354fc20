//! Valid and invalid files in every format.

use super::*;

fn read(name: &str, text: &str) -> Result<Contents, Vec<String>> {
    read_with(name, text.as_bytes(), None)
}

pub(super) fn read_with(name: &str, octets: &[u8], default_domain: Option<&str>) -> Result<Contents, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, octets).unwrap();
    let default_domain = default_domain.map(|domain| Domain::parse(domain).unwrap());
    let prefix = format!("{}/", folder.path().display());
    let short = |problem: String| problem.replace(&prefix, "");
    Contents::read(&path, default_domain.as_ref()).map_err(|problems| problems.into_iter().map(short).collect())
}

pub(super) fn found(contents: &Contents, address: &str) -> Recipient {
    match contents.lookup(&Address::parse(address).unwrap()) {
        Lookup::Found(recipient) => Recipient::clone(&recipient),
        other => panic!("{address}: {other:?}"),
    }
}

const TOML: &str = r#"
[[recipient]]
address = "Alice@contoso.com"

[[recipient]]
addresses = ["bob@contoso.com", "b@contoso.com", "B@contoso.com"]
kind = "mail-user"
target = "bob@other.example"
mail_server = "EX-EU"
send_connector = "eu"

[[recipient]]
address = "twice@contoso.com"

[[recipient]]
addresses = ["TWICE@contoso.com"]
kind = "group"
"#;

const CSV: &str = "\u{feff}Target, kind ,address,send_connector,mail_server\r
,,Alice@contoso.com,,\r
bob@other.example,mail-user,bob@contoso.com,eu,EX-EU\r
bob@other.example,mail-user,b@contoso.com,eu,EX-EU\r
\r
,,twice@contoso.com,,\r
,group,\"TWICE@contoso.com\",,\r
";

#[test]
fn who_is_nobody_outvotes_nobody() {
    let text = "address,kind\ninfo@b.c,no-mailbox\ninfo@b.c,mailbox\ninfo@b.c,no-mailbox\n\
                gone@b.c,no-mailbox\ngone@b.c,no-mailbox\n";
    let contents = read("p.csv", text).unwrap();
    let info = found(&contents, "info@b.c");
    assert_eq!((info.kind, info.entry.ends_with(":3")), (Kind::Mailbox, true), "{info:?}");
    assert_eq!(found(&contents, "gone@b.c").kind, Kind::NoMailbox);
    assert_eq!((contents.claims("info@b.c").len(), contents.owners("gone@b.c")), (1, 1));
}

#[test]
fn targets_of_other_kinds_are_the_owners_business() {
    let toml = "[[recipient]]\naddress = \"a@b.c\"\nkind = \"mail-user\"\ntarget = \"GWISE:dom.po.user\"\n";
    let csv = "address,kind,target\na@b.c,mail-user,\"X400:c=us;a= ;p=Fabrikam\"\n";
    for (name, text) in [("p.toml", toml), ("p.csv", csv)] {
        let owner = found(&read(name, text).unwrap(), "a@b.c");
        assert_eq!((owner.kind, owner.target), (Kind::MailUser, None), "{name}");
    }
}

#[test]
fn both_forms_say_the_same() {
    for (name, text, lines) in [("p.toml", TOML, [2, 5, 5, 12, 15]), ("p.csv", CSV, [2, 3, 4, 6, 7])] {
        let contents = read(name, text).unwrap();
        assert_eq!(found(&contents, "alice@Contoso.com").kind, Kind::Mailbox);
        for (address, line) in [("bob@contoso.com", lines[1]), ("b@contoso.com", lines[2])] {
            let bob = found(&contents, address);
            assert_eq!((bob.kind, bob.rule.as_ref()), (Kind::MailUser, "kind = \"mail-user\""));
            assert_eq!(bob.target.unwrap().as_str(), "bob@other.example");
            assert_eq!((bob.mail_server.as_deref(), bob.send_connector.as_deref()), (Some("ex-eu"), Some("eu")));
            assert!(bob.entry.ends_with(&format!("{name}:{line}")), "{}", bob.entry);
        }
        let unknown = Address::parse("nobody@contoso.com").unwrap();
        assert_eq!(contents.lookup(&unknown), Lookup::NotFound);
        let Lookup::Ambiguous(claims) = contents.lookup(&Address::parse("twice@contoso.com").unwrap()) else {
            panic!("two entries claim it");
        };
        let ends: Vec<_> = claims.iter().map(|claim| claim.rsplit_once('/').unwrap().1.to_owned()).collect();
        assert_eq!(ends, [format!("{name}:{}", lines[3]), format!("{name}:{}", lines[4])]);
        assert_eq!(contents.addresses.count_ambiguous(), 1);
    }
}

#[test]
fn an_empty_file_has_nobody() {
    for (name, text) in [("p.toml", ""), ("p.toml", "recipient = []"), ("p.csv", "address\n")] {
        assert_eq!(read(name, text).unwrap().len(), 0, "{name} {text}");
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let bad = r#"
[[recipient]]
adress = "a@contoso.com"

[[recipient]]
address = "nobody"
kind = "mailbox "
target = "x"

[[recipient]]
address = 7
addresses = ["ok@contoso.com", 8]
kind = "contact"

[recipients]
"#;
    assert_eq!(
        read("p.toml", bad).unwrap_err(),
        [
            "p.toml:2: an entry without an address; write address",
            "p.toml:3: unknown key `adress`; known are address, addresses, kind, target, mail_server, send_connector",
            "p.toml:6: `nobody` is not an address: there is no domain; write local@domain, or `default_domain` in the \
             directory",
            "p.toml:7: `mailbox ` is not a kind; write one of mailbox, group, public-folder, mail-user, contact, \
             no-mailbox",
            "p.toml:8: target `x` is not an address: there is no domain; write local@domain",
            "p.toml:11: address is a text; write it in quotes",
            "p.toml:12: addresses is a list of texts; write [\"a@domain\", \"b@domain\"]",
            "p.toml:15: unknown table `recipients`; write [[recipient]]",
        ]
    );
    assert_eq!(
        read("p.csv", "address,kind,target\na@b.c,mailbox,x@y.z\n,group,\nb@b.c,group\nc@b.c,x,,y\n").unwrap_err(),
        [
            "p.csv:2: only a mail-user or a contact has a target; write kind, or remove target",
            "p.csv:3: an entry without an address; write address",
            "p.csv:4: this row has 2 fields, the header has 3; write a comma for each empty field",
            "p.csv:5: this row has 4 fields, the header has 3; write a comma for each empty field",
        ]
    );
    for (name, text, expected) in [
        ("p.csv", "", "p.csv:1: there is no header row; write address,kind,target,mail_server,send_connector"),
        (
            "p.csv",
            "mail\n",
            "p.csv:1: unknown column `mail`; known are address, kind, target, mail_server, send_connector",
        ),
        ("p.csv", "address,address\n", "p.csv:1: column `address` is there twice; remove one"),
        ("p.csv", "kind\n", "p.csv:1: there is no column `address`; write it in the header row"),
        ("p.tsv", "", "p.tsv: is neither .toml, .csv nor .txt; rename it to what it is"),
    ] {
        assert_eq!(read(name, text).unwrap_err().first().unwrap(), expected);
    }
    let syntax = read("p.toml", "[[recipient]]\naddress = \n\n[[recipient]\n").unwrap_err();
    assert!(syntax.iter().any(|problem| problem.starts_with("p.toml:2: ")), "{syntax:?}");
    assert!(syntax.iter().any(|problem| problem.starts_with("p.toml:4: ")), "{syntax:?}");
}
