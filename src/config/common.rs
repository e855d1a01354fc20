//! What all nodes of a cluster have to have in common, as a digest: the configuration without what is each node's own.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};

use aws_lc_rs::digest;

use super::file::hex;
use super::{Config, DirectoryConfig, DirectoryKind, Protocol, ReceiveConnector, SendConnector};

/// Takes what is written to it.
struct Digest(digest::Context);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Config {
    /// A digest of what nodes have to have in common, in hex. It goes by what is in force, not by how it is written, and
    /// is compared between nodes of one version only. Left out are `[server]` but for `installation`, `[admin]`,
    /// `[spool]`, `[trace]`, `[cluster]` but for `standby`, binds, source addresses, the listeners' certificates, loop
    /// keys' places and the From of reports, which may come from the host name.
    #[must_use]
    pub fn common_digest(&self) -> String {
        let Self {
            server,
            admin: _,
            receive_connectors,
            routing, // follows from the tables below, but for the accepted domains
            directories,
            send_connectors,
            reports,
            loops,
            min_free: _,
            max_messages: _,
            trace: _,
            cluster,
            hash: _,
            warnings: _,
            files: _,
        } = self;
        let mut digest = Digest(digest::Context::new(&digest::SHA256));
        put(&mut digest, &(&server.installation, cluster.as_ref().map(|cluster| cluster.standby)));
        receive_connectors.iter().for_each(|connector| put(&mut digest, &common_door(connector)));
        routing.accepted.iter().for_each(|accepted| put(&mut digest, &accepted));
        directories.iter().for_each(|directory| put(&mut digest, &common_directory(directory)));
        send_connectors.iter().for_each(|connector| put(&mut digest, &common_way(connector)));
        let report = (&reports.deliver_to, reports.per_minute, reports.allow_private);
        put(&mut digest, &(report, reports.max_dead_letters, reports.keep_dead_letters));
        put(&mut digest, &(loops.mode, loops.max_received, loops.max_passes));
        hex(digest.0.finish().as_ref())
    }
}

fn put(digest: &mut Digest, value: &dyn Debug) {
    let _ = writeln!(digest, "{value:?}"); // it cannot fail
}

fn common_door(connector: &ReceiveConnector) -> ReceiveConnector {
    let mut common = connector.clone();
    common.bind.clear();
    common.tls.certificate = None;
    common
}

fn common_way(connector: &SendConnector) -> SendConnector {
    let mut common = connector.clone();
    if let Protocol::Smtp(smtp) = &mut common.protocol {
        std::sync::Arc::make_mut(smtp).source_address = None;
    }
    common
}

/// Maps in an order, and without the server that is asked, which follows from its connector and our host name.
fn common_directory(directory: &DirectoryConfig) -> impl Debug {
    let mut common = directory.clone();
    let mut servers: BTreeMap<_, _> = common.rules.mailbox_servers.drain().collect();
    match &mut common.kind {
        DirectoryKind::Ldap(ldap) => servers.extend(ldap.mailbox_servers.drain()),
        DirectoryKind::CallAhead(asked) => asked.server = None,
        DirectoryKind::File(_) => {}
    }
    (common, servers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::check::load_text;

    const FULL: &str = include_str!("../../conf/full.toml");

    fn digest(text: &str) -> String {
        let text = text.replace("$CREDENTIALS_DIRECTORY/", "");
        load_text(&text, Path::new("/etc/fingerpost/fingerpost.toml")).unwrap().common_digest()
    }

    fn changed(from: &str, to: &str) -> String {
        assert!(FULL.contains(from), "{from}");
        digest(&FULL.replacen(from, to, 1))
    }

    #[test]
    fn what_is_each_nodes_own_does_not_count() {
        for (from, to) in [
            ("hostname      = \"mx.contoso.com\"", "hostname      = \"mx2.contoso.com\""),
            ("node = \"\"", "node = \"mx2\""),
            ("\"0.0.0.0:25\", \"[::]:25\"", "\"[::]:25\", \"0.0.0.0:25\""),
            ("\"mx.contoso.com.pem\"", "\"mx2.contoso.com.pem\""),
            ("state_dir     = \"/var/lib/fingerpost\"", "state_dir     = \"/srv/fingerpost\""),
            ("min_free = \"1GiB\"", "min_free = \"2GiB\""),
            ("source_address  = \"\"", "source_address  = \"10.0.0.2\""),
            ("# Mail from the Internet.", "# Another comment."),
        ] {
            assert!(FULL.contains(from), "{from}");
            assert_eq!(digest(&FULL.replacen(from, to, 1)), digest(FULL), "{to}");
        }
    }

    #[test]
    fn what_decides_about_mail_counts() {
        let full = digest(FULL);
        assert_eq!(full.len(), 64);
        for (from, to) in [
            ("installation  = \"contoso\"", "installation  = \"other\""),
            ("max_recipients   = 500", "max_recipients   = 501"),
            ("first         = \"1m\"", "first         = \"2m\""),
            ("\"EX-EU\" = \"exchange-eu\"", "\"EX-EU\" = \"exchange\""),
            ("smart_hosts  = [\"ex-eu.contoso.local\"]", "smart_hosts  = [\"ex-us.contoso.local\"]"),
            ("max_passes   = 8", "max_passes   = 9"),
            ("# On two systems", "[[accepted_domain]]\ndomain = \"more.example\"\ndeliver_to = \"exchange\"\n#"),
            ("standby = \"required\"", "standby = \"preferred\""),
        ] {
            assert_ne!(changed(from, to), full, "{to}");
        }
    }

    #[test]
    fn it_is_the_same_each_time() {
        let more = FULL.replacen(
            "{ \"EX-EU\"",
            "{ \"A\" = \"exchange\", \"B\" = \"exchange\", \"C\" = \"exchange\", \"EX-EU\"",
            1,
        );
        assert_ne!(more, FULL);
        let first = digest(&more);
        assert!((0..20).all(|_| digest(&more) == first));
    }
}
