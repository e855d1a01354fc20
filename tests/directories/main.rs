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
mod doubt;
mod endless;
mod faults;
mod file;
mod handshake;
mod holding;
mod journeys;
mod mail_server;
mod openldap;
mod operators;
pub(crate) mod proxy;
mod rights;
mod rights_openldap;
mod servers;
mod shares;
mod shown;
mod silence;
mod snapshot_active_directory;
mod snapshot_openldap;
mod tarpit;
mod vendors;
