//! Files that other systems export.

use super::tests::{found, read_with};
use super::*;

/// `Get-Recipient | Select-Object ... | Export-Csv`, as docs/directories/file.md has it.
const EXCHANGE: &str = "\u{feff}#TYPE Selected.Microsoft.Exchange.Data.Directory.Management.ReducedRecipient\r
\"PrimarySmtpAddress\",\"RecipientTypeDetails\",\"ExternalEmailAddress\",\"EmailAddresses\"\r
\"alice@contoso.com\",\"UserMailbox\",,\"SMTP:Alice@contoso.com;smtp:a.smith@contoso.com;X500:/o=Contoso/ou=Group (FYDIBOHF23SPDLT)/cn=a@b;SIP:alice@contoso.com;X400:c=us;a= ;p=Contoso;s=Smith\"\r
\"bob@contoso.com\",\"RemoteUserMailbox\",\"SMTP:bob@contoso.mail.onmicrosoft.com\",\"SMTP:bob@contoso.com\"\r
\"carol@contoso.com\",\"MailContact\",\"X400:c=us;a= ;p=Fabrikam\",\"SMTP:carol@contoso.com\"\r
\"nora@contoso.com\",\"MailContact\",\"NOTES:Nora Smith/Contoso@NotesDom\",\"SMTP:nora@contoso.com;NOTES:Nora Smith/Contoso@NotesDom\"\r
\"sales@contoso.com\",\"MailUniversalDistributionGroup\",,\"smtp:vertrieb@contoso.com SMTP:sales@contoso.com\"\r
\"info@contoso.com\",\"PublicFolder\",,\"SMTP:info@contoso.com\"\r
,\"DisabledUser\",,\r
\"dora@contoso.com\",\"GuestMailUser\",\"smtp:dora@fabrikam.example\",\"dora@contoso.com,d@contoso.com\"\r
";

const KERIO: &str = "Name;Password;FullName;Description;MailAddress;Groups
abird;secret;Alexandra Bird;Development;abird;read,all
ewood;secret;Edward Wood;Sales;ewood, wood;sales,all
";

const MDAEMON: &str = "\"MailBox\", \"Domain\", \"FullName\", \"MailDir\", \"AllowAccess\"
\"arvel\", \"contoso.com\", \"Arvel H\", \"C:\\Mail\\Arvel\\\", Y
\"frank\", \"sub.contoso.com\", \"Frank T\", \"C:\\Mail\\Frank\\\", N
";

const LIST: &str = "# on call\nalice@contoso.com\n\n  bob@contoso.com  \nwood\n";

#[test]
fn exports_are_read_as_they_come() {
    for (name, text, expected) in [
        (
            "exchange.csv",
            EXCHANGE,
            &[
                ("alice@contoso.com", Some((Kind::Mailbox, None))),
                ("A.Smith@contoso.com", Some((Kind::Mailbox, None))),
                ("a@b", None),
                ("nora@contoso.com", Some((Kind::Contact, None))),
                ("bob@contoso.com", Some((Kind::MailUser, Some("bob@contoso.mail.onmicrosoft.com")))),
                ("carol@contoso.com", Some((Kind::Contact, None))),
                ("vertrieb@contoso.com", Some((Kind::Group, None))),
                ("info@contoso.com", Some((Kind::PublicFolder, None))),
                ("d@contoso.com", Some((Kind::MailUser, Some("dora@fabrikam.example")))),
            ][..],
        ),
        (
            "kerio.csv",
            KERIO,
            &[
                ("abird@contoso.com", Some((Kind::Mailbox, None))),
                ("wood@contoso.com", Some((Kind::Mailbox, None))),
                ("sales@contoso.com", None),
            ],
        ),
        (
            "mdaemon.csv",
            MDAEMON,
            &[
                ("arvel@contoso.com", Some((Kind::Mailbox, None))),
                ("frank@sub.contoso.com", Some((Kind::Mailbox, None))),
                ("frank@contoso.com", None),
            ],
        ),
        (
            "list.txt",
            LIST,
            &[
                ("alice@contoso.com", Some((Kind::Mailbox, None))),
                ("bob@contoso.com", Some((Kind::Mailbox, None))),
                ("wood@contoso.com", Some((Kind::Mailbox, None))),
                ("on@contoso.com", None),
            ],
        ),
    ] {
        let contents = read_with(name, text.as_bytes(), Some("contoso.com")).unwrap();
        assert_eq!(contents.addresses.count_ambiguous(), 0, "{name}");
        for (address, expected) in expected {
            let key = Address::parse(address).unwrap();
            match expected {
                Some((kind, target)) => {
                    let recipient = found(&contents, address);
                    let way = recipient.target.as_ref().map(Address::as_str);
                    assert_eq!((recipient.kind, way), (*kind, *target), "{name} {address}");
                }
                None => assert_eq!(contents.lookup(&key), Lookup::NotFound, "{name} {address}"),
            }
        }
    }
}

#[test]
fn an_entry_of_an_export_is_known_by_its_line() {
    let contents = read_with("exchange.csv", EXCHANGE.as_bytes(), None).unwrap();
    for (address, line) in [("alice@contoso.com", 3), ("bob@contoso.com", 4), ("d@contoso.com", 10)] {
        let entry = found(&contents, address).entry;
        assert!(entry.ends_with(&format!("exchange.csv:{line}")), "{entry}");
    }
}

#[test]
fn what_is_wrong_with_an_export_is_said_with_its_cure() {
    let utf16: Vec<u8> = "\u{feff}address\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, octets, expected) in [
        (
            "x.csv",
            &b"PrimarySmtpAddress,EmailAddresses\na@b.c,Microsoft.Exchange.Data.ProxyAddressCollection\n"[..],
            "x.csv:2: EmailAddresses holds the name of a type; export the addresses with -join, as \
             docs/directories/file.md shows",
        ),
        (
            "x.csv",
            b"#TYPE x\nPrimarySmtpAddress,RecipientTypeDetails\n# more\na@b.c,NewMailbox\n",
            "x.csv:4: `NewMailbox` is no RecipientTypeDetails that is known; remove the row, or write the recipient \
             into a file of its own with columns address and kind",
        ),
        (
            "x.csv",
            b"PrimarySmtpAddress,RecipientTypeDetails\na@b.c,UserMailbox\nb@b.c,RemoteUserMailbox\n",
            "x.csv:3: this recipient's mailbox is elsewhere, and the file does not say where; export \
             ExternalEmailAddress too",
        ),
        (
            "x.csv",
            b"PrimarySmtpAddress,RecipientTypeDetails\n,UserMailbox\n",
            "x.csv:2: an entry without an address; \
             write address",
        ),
        (
            "x.csv",
            b"Name;MailAddress\nabird;\n",
            "x.csv:2: `abird` is not an address: there is no domain; write local@domain, or `default_domain` in the \
             directory",
        ),
        ("x.txt", b"a@b.c\n@b.c\n", "x.txt:2: `@b.c` is not an address: the local part is empty; write local@domain"),
        (
            "x.csv",
            b"Name;MailAddress;Groups\na@b.c;;\"sales\nb@b.c;;all\nc@b.c;;all\n",
            "x.csv:2: a quote is not closed here, or a field has several lines; correct it, or leave that column out",
        ),
        (
            "x.csv",
            b"PrimarySmtpAddress,ExternalEmailAddress\na@b.c,smtp:x@y.z\n",
            "x.csv:1: ExternalEmailAddress means nothing without RecipientTypeDetails; export that column too",
        ),
        ("x.csv", b"address\n\xe4@b.c\n", "x.csv: is not UTF-8; write it in UTF-8"),
        ("x.csv", &utf16, "x.csv: is UTF-16; write it in UTF-8, in PowerShell by -Encoding UTF8"),
    ] {
        assert_eq!(read_with(name, octets, None).unwrap_err(), [expected], "{name}");
    }
}
