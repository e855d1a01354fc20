//! Checks logins against the LDAP directories, in order.
//!
//! `session` calls it for AUTH. The caller decides which attempts may reach an account ([`MayBind`]).

use futures_util::future::BoxFuture;

use super::{AnyDirectory, Directories};

/// The result of checking a name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    Accepted,
    /// With the reason.
    Rejected(String),
    /// No directory can tell, and the password was not checked.
    Unavailable(String),
    /// Unknown: the password was sent to the directory, which did not answer and may have counted it as wrong.
    Unanswered(String),
    /// The caller did not allow the attempt ([`MayBind`]).
    NotAsked,
}

/// Decides which accounts a password may be tried with.
pub trait MayBind: Sync {
    /// Whether it may be tried with this account (an LDAP name): many addresses may belong to one account. The caller
    /// waits no longer than a bind may take.
    fn may_bind<'a>(&'a self, account: &'a str) -> BoxFuture<'a, bool>;
}

/// One directory's answer.
pub(super) enum LogIn {
    /// It has the name.
    Known(Login),
    /// It does not have the name.
    Unknown,
}

impl Directories {
    /// Asks the LDAP directories in order. The first one with the name decides; one that is unavailable ends the
    /// search.
    pub async fn log_in(&self, name: &str, password: &str, may_bind: &dyn MayBind) -> Login {
        for built in &self.built {
            let AnyDirectory::Ldap(ldap) = &built.directory else { continue };
            let named = |why| format!("directory {}: {why}", built.name);
            return match ldap.log_in(name, password, may_bind).await {
                LogIn::Known(Login::Unavailable(why)) => Login::Unavailable(named(why)),
                LogIn::Known(Login::Unanswered(why)) => Login::Unanswered(named(why)),
                LogIn::Known(login) => login,
                LogIn::Unknown => continue,
            };
        }
        Login::Rejected("no directory has this name".into())
    }
}
