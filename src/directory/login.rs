//! Who logs in with the password of a directory: asked of the LDAP directories in order.
//!
//! `session` calls it for AUTH. What reaches an account is the caller's to say ([`MayBind`]).

use std::pin::Pin;

use super::{AnyDirectory, Directories};

/// What became of a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// They belong together.
    Accepted,
    /// They do not, for this reason.
    Rejected(String),
    /// Nobody can say, and the password was not looked at.
    Unavailable(String),
    /// Nobody can say: the password was sent to the directory, which did not answer and may have counted it as wrong.
    Unanswered(String),
    /// The caller did not let it be asked ([`MayBind`]).
    NotAsked,
}

/// Says which accounts a password may be tried with.
pub trait MayBind: Sync {
    /// Whether it may be tried with the account of this name (an LDAP name): many addresses can be one account. The
    /// answer may take its time; it is waited for no longer than a bind may take.
    fn may_bind<'a>(&'a self, account: &'a str) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}

/// What one directory says of them.
pub(super) enum LogIn {
    /// It has the name.
    Known(Login),
    /// It has not.
    Unknown,
}

impl Directories {
    /// Asks the LDAP directories in order for somebody who logs in; the first that has the name decides, and one that
    /// cannot say is the answer.
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
