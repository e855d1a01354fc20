//! Directories that are mail servers: finds the server in their send connector.

use std::sync::Arc;

use crate::config::file::ConfigTables;
use crate::config::source::Problems;
use crate::config::{AskedServer, DirectoryKind, Protocol};

/// Sets the servers, which may be written in another file than the directory.
pub(super) fn name_servers(written: &mut ConfigTables) {
    let ehlo = &written.server.used.hostname;
    for item in &mut written.directories {
        let DirectoryKind::CallAhead(config) = &mut item.used.kind else { continue };
        let connector = written.send_connectors.iter().find(|connector| connector.used.name == config.send_connector);
        let server = |used| AskedServer { connector: Arc::new(used), ehlo: ehlo.clone() };
        config.server = connector.map(|item| server(item.used.clone()));
    }
}

/// Reports connectors that cannot be asked; unknown names are reported by `names`.
pub(super) fn check(written: &ConfigTables, problems: &mut Problems) {
    for item in &written.directories {
        let DirectoryKind::CallAhead(config) = &item.used.kind else { continue };
        let Some(server) = &config.server else { continue };
        let name = &config.send_connector;
        let message = match &server.connector.protocol {
            Protocol::Smtp(smtp) if !smtp.smart_hosts.is_empty() => continue,
            Protocol::Smtp(_) => format!(
                "`send_connector`: `{name}` sends to the recipient domain's MX, which is perhaps ourselves; name a \
                 connector with smart_hosts"
            ),
            Protocol::Maildir(_) => {
                format!("`send_connector`: `{name}` writes Maildirs, and there is no server to ask; name another one")
            }
        };
        problems.add(item.places.at("send_connector"), message);
    }
}
