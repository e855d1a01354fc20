//! What a restart makes of the file.

use std::collections::HashMap;

use super::*;
use crate::config::{CacheConfig, HoldChanges, LdapMode, Profile};

const KEPT: SnapshotConfig = SnapshotConfig {
    poll: Duration::from_secs(10),
    full_read: Duration::from_hours(1),
    max_stale: Duration::from_hours(24),
};

fn config(base: &[&str]) -> LdapConfig {
    LdapConfig {
        urls: Vec::new(),
        profile: Profile::ActiveDirectory,
        base: base.iter().map(|base| (*base).to_owned()).collect(),
        bind_dn: String::new(),
        password_file: None,
        start_tls: false,
        ca: None,
        timeout: Duration::from_secs(5),
        probe: None,
        cache: CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 0 },
        refuse_disabled: false,
        mode: LdapMode::Snapshot(KEPT),
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_hours(1) },
        mailbox_servers: HashMap::new(),
    }
}

#[test]
fn a_file_of_another_part_of_the_directory_is_served_and_everything_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let position = Position::Usn { invocation: b"dc1".to_vec(), usn: 7 };
    let open = |config: &LdapConfig| Snapshot::open(&"ad".into(), config, KEPT, folder.path(), &Metrics::new());
    let narrow = config(&["OU=Staff"]);
    let snapshot = open(&narrow);
    let taking = Taking { position: position.clone(), accept: Accept::No };
    snapshot.read(snapshot.begin().unwrap(), taking, None).unwrap();
    for (config, expected) in [
        (narrow.clone(), position),
        (config(&["OU=Staff", "OU=More"]), Position::Unknown),
        (LdapConfig { profile: Profile::Openldap, ..narrow.clone() }, Position::Unknown),
        (LdapConfig { refuse_disabled: true, ..narrow.clone() }, Position::Unknown),
    ] {
        let snapshot = open(&config);
        assert_eq!(snapshot.position(), expected, "{config:?}");
        assert!(snapshot.served().is_some());
        assert_eq!(snapshot.answer("nobody@contoso.com", UnixTime::now()), None, "nobody follows it yet");
    }
}
