//! Directories as a configuration has them: files, and LDAP against OpenLDAP's slapd and Samba's Active Directory, and mail
//! servers that are asked, scripted ones and Postfix.

#![allow(unreachable_pub, reason = "a test has no public interface")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;
#[path = "support/letter.rs"]
#[allow(dead_code, reason = "letters are for others")]
mod letter;
#[path = "support/next_hop.rs"]
mod next_hop;

#[path = "directories/accidents.rs"]
mod accidents;
#[path = "directories/active_directory.rs"]
mod active_directory;
#[path = "directories/asker.rs"]
mod asker;
#[path = "directories/call_ahead.rs"]
mod call_ahead;
#[path = "directories/connection.rs"]
mod connection;
#[path = "directories/endless.rs"]
mod endless;
#[path = "directories/faults.rs"]
mod faults;
#[path = "directories/file.rs"]
mod file;
#[path = "directories/handshake.rs"]
mod handshake;
#[path = "directories/journeys.rs"]
mod journeys;
#[path = "directories/mail_server.rs"]
mod mail_server;
#[path = "directories/node.rs"]
mod node;
#[path = "directories/openldap.rs"]
mod openldap;
#[path = "directories/holding.rs"]
mod holding;
#[path = "directories/operators.rs"]
mod operators;
#[path = "directories/proxy.rs"]
mod proxy;
#[path = "directories/rights.rs"]
mod rights;
#[path = "directories/rights_openldap.rs"]
mod rights_openldap;
#[path = "directories/servers.rs"]
mod servers;
#[path = "directories/shares.rs"]
mod shares;
#[path = "directories/shown.rs"]
mod shown;
#[path = "directories/silence.rs"]
mod silence;
#[path = "directories/snapshot_active_directory.rs"]
mod snapshot_active_directory;
#[path = "directories/snapshot_openldap.rs"]
mod snapshot_openldap;
#[path = "directories/tarpit.rs"]
mod tarpit;
#[path = "directories/vendors.rs"]
mod vendors;
