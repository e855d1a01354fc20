//! Errors in opening listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::session::users::UsersError;
use crate::tls::serve::ServeError;

/// Why a configuration's listeners cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("receive connector `{connector}`: cannot listen on {address}: {cause}{}", cure(cause))]
    Bind {
        /// The first connector with it.
        connector: Arc<str>,
        address: SocketAddr,
        cause: io::Error,
    },
    /// Its own certificate, or the authority for its clients.
    #[error("receive connector `{connector}`: {cause}")]
    Certificate { connector: Arc<str>, cause: Box<ServeError> },
    #[error("receive connector `{connector}`: auth: {cause}")]
    Users { connector: Arc<str>, cause: Box<UsersError> },
}

fn cure(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "; find out who has this port with `ss -ltnp`",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
        _ => "",
    }
}
