//! Fingerpost between two Postfix systems, which relay what they do not know back to it, and a sink for everybody else.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::mail::{Mail, find};
use super::people;
use super::postfix::{Postfix, Setup};
use super::samba_ad::{self, SambaAd};
use super::sink::Sink;
use super::slapd::{self, Slapd};
use super::test_node::TestNode;

/// Which directory the node asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeDirectory {
    /// `tests/routing/journeys/recipients.toml`.
    File,
    /// The same people, and those of `tests/routing/journeys/active-directory.ldif`, in Samba's Active Directory.
    ActiveDirectory,
    /// The same people in OpenLDAP's slapd, as far as it has words for them.
    Openldap,
}

/// The directory that runs.
enum Running {
    File,
    ActiveDirectory(Box<SambaAd>),
    Openldap(Box<Slapd>),
}

/// The running systems.
pub struct PostfixSystems {
    /// Fingerpost.
    pub node: TestNode,
    /// The primary organisation.
    pub primary: Postfix,
    /// The secondary organisation.
    pub secondary: Postfix,
    /// Everybody else.
    pub outside: Sink,
    configuration: String,
    _directory: Running,
}

/// How the systems differ from the usual ones.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Pieces of the configuration's text, and what stands in their place.
    pub replace: Vec<(&'a str, &'a str)>,
    /// More lines for the primary's main.cf.
    pub primary: String,
    /// More lines for the secondary's main.cf.
    pub secondary: String,
}

/// Who has copies: mailbox names in lower case, sorted, one entry a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrived {
    /// At the primary organisation.
    pub primary: Vec<String>,
    /// At the secondary organisation.
    pub secondary: Vec<String>,
    /// Everywhere else.
    pub outside: Vec<String>,
}

const PRIMARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECONDARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
const DOMAINS: [&str; 4] = ["contoso.test", "fabrikam.test", "partner.test", "northwind.test"];

impl PostfixSystems {
    /// Starts everything and waits until it is ready.
    pub fn start(kind: NodeDirectory) -> Self {
        Self::start_with(kind, &Changes::default())
    }

    /// The same with changes.
    pub fn start_with(kind: NodeDirectory, changes: &Changes) -> Self {
        let outside = Sink::start(OUTSIDE);
        let node = TestNode::prepare();
        let organisation = |name: &str, ip, extra: &str| {
            let mailboxes = read(&format!("{name}.mailboxes"));
            let known: Vec<&str> = mailboxes.lines().filter(|line| !line.is_empty()).collect();
            Postfix::start(&Setup {
                name: &format!("{name}.test"),
                ip,
                domains: &DOMAINS,
                known: &known,
                unknown_to: node.smtp,
                others_to: outside.address(),
                extra,
            })
        };
        let primary = organisation("primary", PRIMARY, &changes.primary);
        let secondary = organisation("secondary", SECONDARY, &changes.secondary);
        let directory = Running::start(kind);
        let configuration = format!("{}\n{}", read("fingerpost.toml"), directory.configuration())
            .replace("{primary}", &primary.address().port().to_string())
            .replace("{secondary}", &secondary.address().port().to_string())
            .replace("{outside}", &outside.address().port().to_string());
        for file in ["recipients.toml", "early.toml", "late.toml"] {
            node.write(file, &read(file));
        }
        node.write("domains.d/domains.toml", &read("domains.toml"));
        let mut systems = Self { node, primary, secondary, outside, configuration, _directory: directory };
        systems.configure(&changes.replace);
        systems
    }

    /// (Re)starts Fingerpost with pieces of the configuration's text replaced. Each piece must be there.
    pub fn configure(&mut self, replace: &[(&str, &str)]) {
        let mut text = self.configuration.clone();
        for (old, new) in replace {
            assert!(text.contains(old), "the configuration has no {old:?}");
            text = text.replace(old, new);
        }
        self.node.stop();
        self.node.write("fingerpost.toml", &text);
        self.node.start();
    }

    /// Waits until all queues are empty and what was expected has arrived, then compares exactly.
    pub fn settle(&self, token: &str, expected: &Arrived) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let arrived = self.arrived(token);
            let quiet = self.waiting() == 0.0 && self.primary.queued() == 0 && self.secondary.queued() == 0;
            if quiet && arrived == *expected && arrived == self.arrived(token) {
                return Ok(());
            }
            if Instant::now() > deadline || (quiet && exceeds(&arrived, expected)) {
                return Err(format!("arrived {arrived:?}, expected {expected:?}; queues quiet: {quiet}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Who has copies of mail with this token in it.
    pub fn arrived(&self, token: &str) -> Arrived {
        let names = |mails: Vec<Mail>| {
            let mut names: Vec<String> =
                mails.into_iter().filter(|mail| marked(&mail.bytes, token)).map(|mail| mail.mailbox).collect();
            names.sort();
            names
        };
        let sunk = self.outside.all().into_iter().filter(|sunk| marked(&sunk.bytes, token));
        let mut outside: Vec<String> = sunk.flat_map(|sunk| sunk.to).map(|to| to.to_lowercase()).collect();
        outside.sort();
        Arrived { primary: names(self.primary.mails()), secondary: names(self.secondary.mails()), outside }
    }

    /// The mail of this token that the two organisations keep.
    pub fn kept(&self, token: &str) -> Vec<Mail> {
        let mut mails = self.primary.mails();
        mails.extend(self.secondary.mails());
        mails.retain(|mail| mail.field("X-Journey").as_deref() == Some(token));
        mails
    }

    /// How many branches wait in Fingerpost's queue.
    pub fn waiting(&self) -> f64 {
        let connectors = ["primary", "secondary", "europe", "internet", "recipient-mx"];
        let series = |name: &&str| format!("fingerpost_queue_messages{{send_connector=\"{name}\",state=\"waiting\"}}");
        connectors.iter().map(|name| self.node.metric(&series(name)).unwrap_or(0.0)).sum()
    }
}

impl Running {
    fn start(kind: NodeDirectory) -> Self {
        let recipients = read("recipients.toml");
        match kind {
            NodeDirectory::File => Self::File,
            NodeDirectory::ActiveDirectory => {
                let samba = SambaAd::start();
                people::into_active_directory(&samba, &recipients);
                let more = read("active-directory.ldif").replace("{base}", samba_ad::BASE);
                samba.modify(&more.replace("{database}", samba_ad::DATABASE));
                Self::ActiveDirectory(Box::new(samba))
            }
            NodeDirectory::Openldap => {
                let slapd = Slapd::start();
                people::into_openldap(&slapd, &recipients);
                Self::Openldap(Box::new(slapd))
            }
        }
    }

    /// Its `[[directory]]`.
    fn configuration(&self) -> String {
        let (file, url, base, bind_dn, password_file) = match self {
            Self::File => return read("directory-file.toml"),
            Self::ActiveDirectory(samba) => {
                let password_file = samba.password_file();
                ("directory-active-directory.toml", samba.url(), samba_ad::BASE, samba_ad::ADMIN, password_file)
            }
            Self::Openldap(slapd) => {
                ("directory-openldap.toml", slapd.url(), slapd::BASE, slapd::READER, slapd.password_file())
            }
        };
        read(file)
            .replace("{url}", &url)
            .replace("{base}", base)
            .replace("{bind_dn}", bind_dn)
            .replace("{password_file}", &password_file.display().to_string())
    }
}

/// Whether more arrived somewhere than was expected: no waiting mends that.
fn exceeds(arrived: &Arrived, expected: &Arrived) -> bool {
    let more = |arrived: &[String], expected: &[String]| {
        let names: BTreeSet<&String> = arrived.iter().collect();
        let count = |list: &[String], name: &String| list.iter().filter(|other| *other == name).count();
        names.into_iter().any(|name| count(arrived, name) > count(expected, name))
    };
    more(&arrived.primary, &expected.primary)
        || more(&arrived.secondary, &expected.secondary)
        || more(&arrived.outside, &expected.outside)
}

fn marked(bytes: &[u8], token: &str) -> bool {
    find(bytes, format!("{token}\r\n").as_bytes()).is_some()
}

/// A file of `tests/routing/journeys/`.
pub fn read(name: &str) -> String {
    let path = crate::project().join("tests/routing/journeys").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
