//! A whole small world for journeys: a sender's world, Fingerpost, and two Postfix systems that relay what they do
//! not know back to Fingerpost.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::fingerpost::Fingerpost;
use super::mail::{Mail, find};
use super::postfix::{Postfix, Setup};
use super::sink::Sink;

/// Which directory the node of a world asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorldKind {
    /// `tests/journeys/recipients.toml`.
    File,
}

/// The running world.
pub struct World {
    /// Fingerpost.
    pub node: Fingerpost,
    /// The primary organisation.
    pub primary: Postfix,
    /// The secondary organisation.
    pub secondary: Postfix,
    /// Everybody else.
    pub outside: Sink,
    configuration: String,
}

/// How a world differs from the usual one.
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
    /// In the sender's world.
    pub outside: Vec<String>,
}

const PRIMARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECONDARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
const DOMAINS: [&str; 3] = ["contoso.test", "fabrikam.test", "partner.test"];

impl World {
    /// Starts everything and waits until it is ready.
    pub fn start(kind: WorldKind) -> Self {
        Self::start_with(kind, &Changes::default())
    }

    /// The same with changes.
    pub fn start_with(kind: WorldKind, changes: &Changes) -> Self {
        let outside = Sink::start(OUTSIDE);
        let node = Fingerpost::prepare();
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
        let directory = match kind {
            WorldKind::File => read("directory-file.toml"),
        };
        let configuration = format!("{}\n{directory}", read("world.toml"))
            .replace("{primary}", &primary.address().port().to_string())
            .replace("{secondary}", &secondary.address().port().to_string())
            .replace("{outside}", &outside.address().port().to_string());
        node.write("recipients.toml", &read("recipients.toml"));
        node.write("domains.d/domains.toml", &read("domains.toml"));
        let mut world = Self { node, primary, secondary, outside, configuration };
        world.configure(&changes.replace);
        world
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
        let connectors = ["primary", "secondary", "internet", "recipient-mx"];
        let series = |name: &&str| format!("fingerpost_queue_messages{{send_connector=\"{name}\",state=\"waiting\"}}");
        connectors.iter().map(|name| self.node.metric(&series(name)).unwrap_or(0.0)).sum()
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

/// A file of `tests/journeys/`.
pub fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journeys").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
