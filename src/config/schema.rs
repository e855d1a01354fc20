//! Every key that a configuration may have.
//!
//! `reader` refuses any other; tests compare `docs/configuration.md` and `conf/full.toml` with it.

#[derive(Debug)]
pub struct Table {
    /// As in the file; a table in a table has a dot: `send_connector.tls`. The file itself is `""`.
    pub name: &'static str,
    pub keys: &'static [Key],
}

#[derive(Debug)]
pub struct Key {
    /// As in the file.
    pub name: &'static str,
    pub when: When,
}

/// When a key may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// If another key of the table has one of these values.
    If {
        key: &'static str,
        values: &'static [&'static str],
        /// Its value if it is absent.
        default: &'static str,
    },
}

const fn key(name: &'static str) -> Key {
    Key { name, when: When::Always }
}

const fn ldap(name: &'static str) -> Key {
    Key { name, when: When::If { key: "kind", values: &["ldap"], default: "ldap" } }
}

/// A key of directories that are kept in memory.
const fn snapshot(name: &'static str) -> Key {
    Key { name, when: When::If { key: "mode", values: &["snapshot"], default: "snapshot" } }
}

/// A key of directories that are asked about each recipient.
const fn asked(name: &'static str) -> Key {
    Key { name, when: When::If { key: "kind", values: &["ldap", "call-ahead"], default: "ldap" } }
}

/// A key of the profile `custom`.
const fn custom(name: &'static str) -> Key {
    Key { name, when: When::If { key: "profile", values: &["custom"], default: "active-directory" } }
}

const fn call_ahead(name: &'static str) -> Key {
    Key { name, when: When::If { key: "kind", values: &["call-ahead"], default: "ldap" } }
}

const fn file(name: &'static str) -> Key {
    Key { name, when: When::If { key: "kind", values: &["file"], default: "ldap" } }
}

const fn smtp(name: &'static str) -> Key {
    Key { name, when: When::If { key: "protocol", values: &["smtp"], default: "smtp" } }
}

/// A key of connectors that send to a server.
const fn server(name: &'static str) -> Key {
    Key { name, when: When::If { key: "protocol", values: &["smtp", "lmtp"], default: "smtp" } }
}

pub const TABLES: &[Table] = &[
    Table {
        name: "",
        keys: &[
            key("server"),
            key("admin"),
            key("receive_connector"),
            key("accepted_domain"),
            key("directory"),
            key("send_connector"),
            key("reports"),
            key("loop_detection"),
            key("spool"),
            key("trace"),
            key("cluster"),
        ],
    },
    Table {
        name: "server",
        keys: &[
            key("hostname"),
            key("installation"),
            key("state_dir"),
            key("user"),
            key("include"),
            key("drain_timeout"),
            key("memory_limit"),
        ],
    },
    Table { name: "admin", keys: &[key("metrics_bind"), key("bind"), key("token_file")] },
    Table {
        name: "receive_connector",
        keys: &[
            key("name"),
            key("bind"),
            key("remote_networks"),
            key("organization"),
            key("resolves_first"),
            key("relay"),
            key("tls"),
            key("client_names"),
            key("tenant"),
            key("auth"),
            key("dsn"),
            key("trusted_proxies"),
            key("max_message_size"),
            key("max_header_size"),
            key("max_recipients"),
            key("max_connections"),
            key("max_connections_per_ip"),
            key("idle_timeout"),
            key("max_segment_size"),
            key("strip_headers"),
            key("strip_authentication_results"),
            key("limits"),
        ],
    },
    Table { name: "receive_connector.tls", keys: &[key("mode"), key("certificate"), key("key"), key("client_ca")] },
    Table {
        name: "receive_connector.limits",
        keys: &[key("unknown_recipients"), key("unknown_within"), key("unknown_delay"), key("unknown_one_session")],
    },
    Table { name: "accepted_domain", keys: &[key("domain"), key("type"), key("deliver_to")] },
    Table {
        name: "directory",
        keys: &[
            key("name"),
            key("kind"),
            key("domains"),
            key("deliver_to"),
            file("path"),
            file("default_domain"),
            call_ahead("send_connector"),
            call_ahead("probes_per_second"),
            ldap("urls"),
            ldap("profile"),
            custom("attributes"),
            custom("filter"),
            ldap("base"),
            ldap("bind_dn"),
            ldap("password_file"),
            ldap("tls"),
            asked("timeout"),
            ldap("probe"),
            asked("cache"),
            ldap("mode"),
            snapshot("poll"),
            snapshot("full_read"),
            snapshot("max_stale"),
            ldap("hold_changes"),
            key("plus_addressing"),
            ldap("refuse_disabled"),
            key("mailbox_servers"),
        ],
    },
    Table { name: "directory.tls", keys: &[key("start_tls"), key("ca"), key("certificate"), key("key")] },
    Table {
        name: "directory.attributes",
        keys: &[
            key("addresses"),
            key("fallback"),
            key("prefix"),
            key("target"),
            key("mail_server"),
            key("login"),
            key("groups"),
        ],
    },
    Table { name: "directory.cache", keys: &[key("found"), key("not_found"), key("entries")] },
    Table { name: "directory.hold_changes", keys: &[key("share"), key("at_least"), key("within")] },
    Table {
        name: "send_connector",
        keys: &[
            key("name"),
            key("organization"),
            key("protocol"),
            Key { name: "path", when: When::If { key: "protocol", values: &["maildir"], default: "smtp" } },
            server("smart_hosts"),
            smtp("mx"),
            server("dns_servers"),
            server("select"),
            key("address_spaces"),
            key("delivery"),
            key("cut_through_patience"),
            key("when_unreachable"),
            key("verify_with"),
            key("source_routes"),
            server("tls"),
            server("auth"),
            server("source_address"),
            server("path_mtu_discovery"),
            server("max_segment_size"),
            server("client_address"),
            key("rewrite_target_address"),
            server("bare_lf"),
            server("eight_bit"),
            server("hide_internal_hosts"),
            key("max_connections"),
            server("connect_timeout"),
            server("reply_timeout"),
            key("retry"),
        ],
    },
    Table { name: "send_connector.address_spaces", keys: &[key("domain"), key("subdomains"), key("cost")] },
    Table {
        name: "send_connector.tls",
        keys: &[
            key("mode"),
            key("verify"),
            key("ca"),
            key("certificate"),
            key("key"),
            key("server_name"),
            key("min_version"),
        ],
    },
    Table { name: "send_connector.auth", keys: &[key("mechanism"), key("username"), key("password_file")] },
    Table {
        name: "send_connector.retry",
        keys: &[key("first"), key("factor"), key("max"), key("warn_after"), key("give_up_after")],
    },
    Table {
        name: "reports",
        keys: &[
            key("from"),
            key("deliver_to"),
            key("per_minute"),
            key("allow_private"),
            key("max_dead_letters"),
            key("keep_dead_letters"),
        ],
    },
    Table { name: "loop_detection", keys: &[key("mode"), key("max_received"), key("max_passes"), key("key_files")] },
    Table { name: "spool", keys: &[key("min_free"), key("max_messages")] },
    Table { name: "trace", keys: &[key("days"), key("max_size")] },
    Table {
        name: "cluster",
        keys: &[key("database"), key("password_file"), key("ca"), key("node"), key("connections"), key("standby")],
    },
];

/// The keys of a table; none for a name that is not in [`TABLES`].
pub(super) fn keys(table: &str) -> &'static [Key] {
    TABLES.iter().find(|known| known.name == table).map_or(&[], |known| known.keys)
}
