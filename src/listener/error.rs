//! Why listeners cannot be opened.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::session::users::UsersError;
use crate::tls::serve::ServeError;

/// What keeps a configuration's listeners from being opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A bind.
    #[error("receive connector `{connector}`: cannot listen on {address}: {cause}{}", cure(cause))]
    Bind {
        /// The first connector that has it.
        connector: Arc<str>,
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// A certificate, its own or its clients' authority's.
    #[error("receive connector `{connector}`: {cause}")]
    Certificate {
        connector: Arc<str>,
        /// What is wrong.
        cause: Box<ServeError>,
    },
    /// A users file.
    #[error("receive connector `{connector}`: auth: {cause}")]
    Users {
        connector: Arc<str>,
        /// What is wrong.
        cause: Box<UsersError>,
    },
}

fn cure(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "; find out who has this port with `ss -ltnp`",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
        _ => "",
    }
}
