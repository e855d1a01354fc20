//! Tables that the configurations of many tests have in common, as text; `fingerpost` replaces their placeholders.

use std::net::SocketAddr;

/// A node's own: `[server]`, `[admin]`, `[spool]`.
pub const BASE_TABLES: &str = r#"
[server]
hostname      = "mx.contoso.test"
state_dir     = "{folder}/state"
drain_timeout = "2s"

[admin]
metrics_bind = "{metrics}"
bind         = "{admin}"

[spool]
min_free = "16MiB"

"#;

/// `people.csv` as the directory.
pub const PEOPLE: &str = "[[directory]]\nname = \"people\"\nkind = \"file\"\npath = \"people.csv\"\n\n";

/// A send connector to this host, with further lines.
pub fn send_connector(name: &str, to: SocketAddr, more: &str) -> String {
    let (ip, port) = (to.ip(), to.port());
    format!("[[send_connector]]\nname = \"{name}\"\nsmart_hosts = [\"[{ip}]:{port}\"]\n{more}\n\n")
}

/// A domain of resolved recipients.
pub fn accepted_domain(domain: &str, deliver_to: &str) -> String {
    format!("[[accepted_domain]]\ndomain = \"{domain}\"\ndeliver_to = \"{deliver_to}\"\n\n")
}
