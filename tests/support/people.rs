//! The people of `tests/routing/journeys/recipients.toml`, loaded into real directories.

use std::fmt::Write as _;

use serde::Deserialize;

use super::samba_ad::{self, DATABASE, SambaAd};
use super::slapd::{self, Slapd};

/// One recipient, as a file directory has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    address: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    kind: Kind,
    target: Option<String>,
    mail_server: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Mailbox,
    Group,
    MailUser,
    Contact,
    NoMailbox,
}

#[derive(Deserialize)]
struct People {
    recipient: Vec<Person>,
}

/// Adds them to an Active Directory, as Exchange would have written them.
pub fn into_active_directory(samba: &SambaAd, recipients: &str) {
    let mut ldif = String::new();
    for (number, person) in read(recipients).iter().enumerate() {
        let (class, kind) = match person.kind {
            Kind::Mailbox => ("user", 1),
            Kind::Group => ("group", 256),
            Kind::MailUser => ("user", 128),
            Kind::Contact => ("contact", 64),
            Kind::NoMailbox => ("user", 65_536),
        };
        let base = samba_ad::BASE;
        writeln!(ldif, "dn: CN=p{number},CN=Users,{base}\nchangetype: add\nobjectClass: {class}").unwrap();
        writeln!(ldif, "msExchRecipientTypeDetails: {kind}").unwrap();
        if class != "contact" {
            writeln!(ldif, "sAMAccountName: p{number}").unwrap();
        }
        for (at, address) in person.addresses().enumerate() {
            writeln!(ldif, "proxyAddresses: {}:{address}", if at == 0 { "SMTP" } else { "smtp" }).unwrap();
        }
        if person.kind == Kind::Mailbox {
            writeln!(ldif, "homeMDB: {DATABASE}").unwrap();
        }
        if let Some(target) = &person.target {
            writeln!(ldif, "targetAddress: SMTP:{target}").unwrap();
        }
        if let Some(server) = &person.mail_server {
            let path = "/o=Contoso/ou=Exchange Administrative Group/cn=Configuration/cn=Servers";
            writeln!(ldif, "msExchHomeServerName: {path}/cn={server}").unwrap();
        }
        ldif.push('\n');
    }
    samba.modify(&ldif);
}

/// Adds them to an OpenLDAP, which has no words for an entry without mailbox, nor for addresses beyond ASCII: the
/// standard syntax of `mail` is IA5String (RFC 4524 2.16).
pub fn into_openldap(slapd: &Slapd, recipients: &str) {
    let mut ldif = String::new();
    for (number, person) in read(recipients).iter().enumerate() {
        if person.kind == Kind::NoMailbox || !person.addresses().all(str::is_ascii) {
            continue;
        }
        let base = slapd::BASE;
        match person.kind {
            Kind::Group => {
                let classes = "objectClass: groupOfNames\nobjectClass: inetLocalMailRecipient";
                writeln!(ldif, "dn: cn=p{number},{base}\n{classes}\ncn: p{number}\nmember: {base}").unwrap();
            }
            Kind::Mailbox | Kind::MailUser | Kind::Contact | Kind::NoMailbox => {
                let classes = "objectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient";
                writeln!(ldif, "dn: uid=p{number},{base}\n{classes}\nuid: p{number}\ncn: p{number}\nsn: p{number}")
                    .unwrap();
            }
        }
        for (at, address) in person.addresses().enumerate() {
            let attribute = if at == 0 && person.kind != Kind::Group { "mail" } else { "mailLocalAddress" };
            writeln!(ldif, "{attribute}: {address}").unwrap();
        }
        if let Some(target) = &person.target {
            writeln!(ldif, "mailRoutingAddress: {target}").unwrap();
        }
        if let Some(server) = &person.mail_server {
            writeln!(ldif, "mailHost: {server}").unwrap();
        }
        ldif.push('\n');
    }
    slapd.add(&ldif);
}

impl Person {
    fn addresses(&self) -> impl Iterator<Item = &str> {
        self.address.iter().chain(&self.addresses).map(String::as_str)
    }
}

fn read(recipients: &str) -> Vec<Person> {
    let people: People = toml::from_str(recipients).unwrap();
    people.recipient
}
