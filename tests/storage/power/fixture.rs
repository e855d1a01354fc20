//! A node whose next hops are up or down as a test wants, and letters that show whether they arrived whole.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use support::power_loss::{Numbers, variables};
use support::senders::{Letter, Raw};
use support::sink::{OnMessage, Sink, Sunk};
use support::test_node::TestNode;
use support::{free_port, wait_until};

/// What differs between tests.
pub(crate) struct Settings {
    pub(crate) min_free: &'static str,
    pub(crate) drain_timeout: &'static str,
    pub(crate) retry: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_free: "16MiB", drain_timeout: "2s", retry: "1s" }
    }
}

/// A node; `known*@contoso.test` go to its primary's address, all others of that domain to its secondary's. Nobody
/// listens there until a test says so.
pub(crate) struct StorageSetup {
    pub(crate) node: TestNode,
    pub(crate) primary: SocketAddr,
    pub(crate) secondary: SocketAddr,
}

impl StorageSetup {
    /// A node that is not started yet. Its `state_dir` is there, empty.
    pub(crate) fn prepare(settings: &Settings) -> Self {
        let unused = |last| {
            let ip = Ipv4Addr::new(127, 0, 0, last);
            SocketAddr::from((ip, free_port(ip)))
        };
        let (primary, secondary) = (unused(2), unused(3));
        let node = TestNode::prepare();
        let recipients: String = (0..100).map(|n| format!("known{n}@contoso.test\n")).collect();
        node.write("recipients.csv", &format!("address\n{recipients}"));
        node.write("fingerpost.toml", &configuration(settings, primary, secondary));
        std::fs::create_dir(node.path("state")).unwrap();
        Self { node, primary, secondary }
    }

    /// Puts the node's files under the shim from the next start on.
    pub(crate) fn shim(&mut self) {
        let (root, log) = (self.node.path("state"), self.node.path("operations"));
        assert_eq!(root.canonicalize().unwrap(), root, "the shim compares paths as text");
        for (name, value) in variables(&root, &log) {
            self.node.set_environment(name, &value.display().to_string());
        }
        self.node.set_environment("SHIM_FAULTS", &self.node.path("faults").display().to_string());
    }

    /// From now until the next call, or for ever, the disk does this (`SHIM_FAULTS` in power_loss.c); empty: it works.
    pub(crate) fn fault(&self, fault: &str) {
        let file = self.node.path("faults");
        if fault.is_empty() {
            std::fs::remove_file(file).unwrap();
        } else {
            self.node.write("faults", fault);
        }
    }

    /// Both next hops, up from now on.
    pub(crate) fn hops(&self, on_message: &OnMessage) -> [Sink; 2] {
        [self.primary, self.secondary].map(|address| Sink::start_at(address, on_message.clone()))
    }

    /// Messages in the queue.
    pub(crate) fn queued(&self) -> Option<f64> {
        let (_, text) = self.node.get("/metrics")?;
        let series = text.lines().filter(|line| line.starts_with("fingerpost_queue_messages{"));
        Some(series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Waits until the queue is empty.
    pub(crate) fn wait_until_delivered(&self) {
        wait_until("the queue is empty", Duration::from_secs(240), || self.queued() == Some(0.0));
    }
}

/// Nobody has to be told.
pub(crate) fn quiet() -> OnMessage {
    Arc::new(|_| {})
}

fn configuration(settings: &Settings, primary: SocketAddr, secondary: SocketAddr) -> String {
    let Settings { min_free, drain_timeout, retry } = settings;
    let retry = format!("{{ first = \"{retry}\", factor = 1.0, max = \"{retry}\" }}");
    let hop = |name: &str, address: SocketAddr| {
        format!(
            "[[send_connector]]\nname = \"{name}\"\norganization = \"{name}\"\nretry = {retry}\n\
             delivery = \"queue\"\nsmart_hosts = [\"[{}]:{}\"]\n",
            address.ip(),
            address.port()
        )
    };
    format!(
        "[server]\nhostname = \"mx.contoso.test\"\nstate_dir = \"{{folder}}/state\"\n\
         drain_timeout = \"{drain_timeout}\"\n\n\
         [admin]\nmetrics_bind = \"{{metrics}}\"\nbind = \"{{admin}}\"\n\n\
         [[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"127.0.0.0/8\"]\n\
         max_connections_per_ip = 1000\n\n\
         [[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\ndeliver_to = \"primary\"\n\n\
         [[directory]]\nname = \"people\"\nkind = \"file\"\npath = \"recipients.csv\"\n\n\
         {}\n{}address_spaces = [{{ domain = \"contoso.test\" }}]\n\n[spool]\nmin_free = \"{min_free}\"\n",
        hop("primary", primary),
        hop("secondary", secondary),
    )
}

/// A token that says who wrote the letter and how long it is: all of the letter can be told from it.
pub(crate) fn token(sender: &str, n: usize, size: usize) -> String {
    format!("{sender}-{n}-{size}")
}

/// The letter of a token; no two have a line in common.
pub(crate) fn letter(token: &str) -> Vec<u8> {
    let size: usize = token.rsplit_once('-').unwrap().1.parse().unwrap();
    let seed = token
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3) | 1);
    let mut numbers = Numbers(seed);
    let mut text = format!(
        "From: s@sender.test\r\nTo: r@contoso.test\r\nSubject: {token}\r\nMessage-ID: <{token}@sender.test>\r\n\
         Date: Sat, 21 Nov 2026 04:39:00 +0000\r\nX-Token: {token}\r\n\r\n"
    );
    while text.len() < size {
        let line: Vec<String> = (0..8).map(|_| format!("{:08x}", numbers.below(1 << 32))).collect();
        text.push_str(&line.concat());
        text.push_str("\r\n");
    }
    text.into_bytes()
}

/// Whose letter `n` is for: the one organisation's and the other's in turn.
pub(crate) fn recipient(n: usize) -> String {
    let name = if n.is_multiple_of(2) { "known" } else { "other" };
    format!("{name}{}@contoso.test", n % 100)
}

/// Sends a letter: its queue id if it got 250, else all that was said to the end of data or before it.
pub(crate) fn send(raw: &mut Raw, to: &str, token: &str) -> Result<String, (u16, String)> {
    let bytes = letter(token);
    let (replies, last) = raw.transact(&Letter { from: "s@sender.test", to: &[to], bytes: &bytes }, "");
    match last.unwrap_or_else(|| replies.last().unwrap().clone()) {
        (250, text) => Ok(text.trim_end().rsplit(' ').next().unwrap_or_default().to_owned()),
        refused => Err(refused),
    }
}

/// How often each token arrived. Whatever arrived must be whole: a letter to its last octet behind our own fields.
pub(crate) fn arrived(hops: &[Sink]) -> HashMap<String, usize> {
    let mut copies = HashMap::new();
    for sunk in hops.iter().flat_map(Sink::all) {
        let token = token_of(&sunk);
        assert!(sunk.bytes.ends_with(&letter(&token)), "{token} is not whole: {} octets arrived", sunk.bytes.len());
        *copies.entry(token).or_default() += 1;
    }
    copies
}

/// The token of what arrived.
pub(crate) fn token_of(sunk: &Sunk) -> String {
    support::two_systems::token(sunk)
}

/// That exactly these arrived, once each.
pub(crate) fn assert_once(hops: &[Sink], tokens: &[String]) {
    let copies = arrived(hops);
    let lost: Vec<_> = tokens.iter().filter(|token| !copies.contains_key(*token)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let twice: Vec<_> = copies.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(twice.is_empty(), "arrived more than once: {twice:?}");
    let strange: Vec<_> = copies.keys().filter(|token| !tokens.contains(token)).collect();
    assert!(strange.is_empty(), "arrived without having been accepted: {strange:?}");
}
