//! Directories as a configuration has them: files, and LDAP against OpenLDAP's slapd and Samba's Active Directory, and mail
//! servers that are asked, scripted ones and Postfix.

#![allow(unreachable_pub, reason = "a test has no public interface")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod accidents;
mod active_directory;
mod asker;
mod call_ahead;
mod call_ahead_program;
mod conflicts;
mod connection;
mod directory_faults;
mod endless;
mod faults;
mod file;
mod handshake;
mod hold_changes;
mod journeys;
mod lookup_output;
mod mail_server;
mod openldap;
mod operators;
pub(crate) mod proxy;
mod rights;
mod rights_openldap;
mod servers;
mod shares;
mod silent_server;
mod snapshot_active_directory;
mod snapshot_openldap;
mod stale_directory;
mod tarpit;
mod vendors;
