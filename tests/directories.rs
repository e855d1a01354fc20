//! Directories as a configuration has them: files, and LDAP against OpenLDAP's slapd and Samba's Active Directory.

#![allow(unreachable_pub, reason = "a test has no public interface")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

#[path = "directories/active_directory.rs"]
mod active_directory;
#[path = "directories/asker.rs"]
mod asker;
#[path = "directories/connection.rs"]
mod connection;
#[path = "directories/endless.rs"]
mod endless;
#[path = "directories/faults.rs"]
mod faults;
#[path = "directories/file.rs"]
mod file;
#[path = "directories/openldap.rs"]
mod openldap;
#[path = "directories/proxy.rs"]
mod proxy;
#[path = "directories/silence.rs"]
mod silence;
#[path = "directories/snapshot_active_directory.rs"]
mod snapshot_active_directory;
#[path = "directories/snapshot_openldap.rs"]
mod snapshot_openldap;
