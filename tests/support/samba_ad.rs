//! A real Active Directory for tests: Debian's Samba as a domain controller, with Exchange's attributes.
//!
//! The ports are fixed (389, 636, 3268), so each instance takes a loopback address of its own. Needs root, and Debian's
//! `samba-ad-dc`, `samba-ad-provision`, `samba-dsdb-modules`, `winbind`, `ldap-utils` and `python3-samba`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::certificates::Authority;
use super::daemon::{Daemon, run};

mod template;

/// The root of the domain.
pub const BASE: &str = "DC=contoso,DC=test";
/// Who may do anything.
pub const ADMIN: &str = "Administrator@CONTOSO.TEST";
/// The administrator's password.
pub const PASSWORD: &str = "Passw0rd-1";
/// A service account, an ordinary domain user, with [`READER_PASSWORD`].
pub const READER: &str = "fingerpost@CONTOSO.TEST";
/// Its password.
pub const READER_PASSWORD: &str = "Passw0rd-2";
/// A mailbox database; `homeMDB` must name an object that exists.
pub const DATABASE: &str = "CN=DB1,DC=contoso,DC=test";

/// A running (or stopped) domain controller.
pub struct SambaAd {
    folder: tempfile::TempDir,
    address: String,
    authority: Authority,
    daemon: Option<Daemon>,
}

impl SambaAd {
    /// Starts the controller of a domain of its own with Exchange's attributes, [`DATABASE`], [`READER`], and
    /// `postmaster@contoso.test`, who serves as probe.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        template::copy_into(folder.path());
        let address = free_address();
        let authority = Authority::new(folder.path());
        authority.issue(&[&address]);
        let mut samba = Self { folder, address, authority, daemon: None };
        samba.restart();
        samba
    }

    /// A second controller with the data that this one has now, and an identity of its own; from here on neither knows
    /// what the other is told. Both run afterwards.
    pub fn copied(&mut self) -> Self {
        self.stop();
        let folder = tempfile::tempdir().unwrap();
        template::copy(self.folder.path(), folder.path());
        template::script(folder.path(), "new_invocation_id.py", &[]);
        let address = free_address();
        let authority = Authority::new(folder.path());
        authority.issue(&[&address]);
        let mut copy = Self { folder, address, authority, daemon: None };
        self.restart();
        copy.restart();
        copy
    }

    /// `ldap://ADDRESS`.
    pub fn url(&self) -> String {
        format!("ldap://{}", self.address)
    }

    /// `ldaps://ADDRESS`, with a certificate for that address by [`SambaAd::ca`].
    pub fn tls_url(&self) -> String {
        format!("ldaps://{}", self.address)
    }

    /// The authority of its certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.authority.file()
    }

    /// A file with the administrator's password.
    pub fn password_file(&self) -> PathBuf {
        let path = self.folder.path().join("password");
        std::fs::write(&path, PASSWORD).unwrap();
        path
    }

    /// Adds an object of that class (`user`, `contact`, `group`) to CN=Users, with further lines of LDIF.
    pub fn add(&self, class: &str, name: &str, lines: &str) {
        let account = if class == "contact" { String::new() } else { format!("sAMAccountName: {name}\n") };
        self.modify(&format!(
            "dn: CN={name},CN=Users,{BASE}\nchangetype: add\nobjectClass: {class}\n{account}{lines}\n"
        ));
    }

    /// Applies changes (LDIF with changetype).
    pub fn modify(&self, ldif: &str) {
        let file = self.folder.path().join("change.ldif");
        std::fs::write(&file, ldif).unwrap();
        let mut command = Command::new("ldapmodify");
        run(command.args(["-x", "-H", &self.url(), "-D", ADMIN, "-w", PASSWORD, "-f"]).arg(file));
    }

    /// Adds many entries, faster than by LDAP.
    pub fn load(&self, ldif: &str) {
        let file = self.folder.path().join("load.ldif");
        std::fs::write(&file, ldif).unwrap();
        template::script(self.folder(), "add_many.py", &[file.to_str().unwrap()]);
    }

    /// Moves an object from one folder to another.
    pub fn move_to(&self, name: &str, from: &str, to: &str) {
        self.modify(&format!(
            "dn: {name},{from},{BASE}\nchangetype: modrdn\nnewrdn: {name}\ndeleteoldrdn: 1\nnewsuperior: {to},{BASE}\n"
        ));
    }

    /// A file with [`READER`]'s password.
    pub fn reader_password_file(&self) -> PathBuf {
        let path = self.folder.path().join("reader-password");
        std::fs::write(&path, READER_PASSWORD).unwrap();
        path
    }

    /// So many wrong passwords within half an hour lock an account for half an hour.
    pub fn lock_accounts_after(&self, wrong: u32) {
        let threshold = format!("--account-lockout-threshold={wrong}");
        let times = ["--reset-account-lockout-after=30", "--account-lockout-duration=30"];
        run(&mut self.tool(&["domain", "passwordsettings", "set", &threshold, times[0], times[1]]));
    }

    /// Disables an account.
    pub fn disable(&self, name: &str) {
        run(&mut self.tool(&["user", "disable", name]));
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Takes the right to read CN=Users from [`READER`]; returns what [`SambaAd::restore_rights`] wants.
    pub fn revoke_rights(&self) -> String {
        let before = self.rights("CN=Users,");
        // MS-DTYP 2.5.1: deny, for the container and what is below it, to read properties and to list.
        self.change_rights(&["CN=Users,".to_owned()], &["D;CI;RPLCLO;;".to_owned()]);
        before
    }

    /// The rights on a container (`CN=Users,`; nothing: the whole domain), for [`SambaAd::give_back`].
    pub fn rights(&self, container: &str) -> String {
        let mut search = Command::new("ldapsearch");
        search.args(["-x", "-LLL", "-o", "ldif-wrap=no", "-H", &self.url(), "-D", ADMIN, "-w", PASSWORD]);
        search.args(["-b", &format!("{container}{BASE}"), "-s", "base", "nTSecurityDescriptor"]);
        line(&run(&mut search), "nTSecurityDescriptor::")
    }

    /// Takes the right to read one attribute of what is in CN=Users from [`READER`], by its `schemaIDGUID`.
    pub fn hide(&self, attribute: &str) {
        self.change_rights(&["CN=Users,".to_owned()], &[format!("OD;CI;RP;{attribute};")]);
    }

    /// The same for attributes of these entries (`CN=ann,OU=Staff,`), by their names. What a container hands down counts
    /// less than what a class gives everybody. Returns what [`SambaAd::show`] wants.
    pub fn hide_of(&self, entries: &[String], attributes: &[&str]) -> Vec<(String, String)> {
        let ids: Vec<String> = attributes.iter().map(|attribute| self.schema_id(attribute)).collect();
        let before = entries.iter().map(|entry| (entry.clone(), self.rights(entry))).collect();
        let denied: Vec<String> = ids.iter().map(|id| format!("OD;;RP;{id};")).collect();
        self.change_rights(entries, &denied);
        before
    }

    /// Gives back what was hidden.
    pub fn show(&self, before: &[(String, String)]) {
        before.iter().for_each(|(entry, before)| self.give_back(entry, before));
    }

    /// Gives [`READER`] the right to read these attributes of what is in a container, as the manual shows it.
    pub fn grant_in(&self, container: &str, attributes: &[&str]) {
        let granted = attributes.iter().map(|attribute| format!("OA;CI;RP;{};", self.schema_id(attribute)));
        self.change_rights(&[container.to_owned()], &granted.collect::<Vec<_>>());
    }

    /// Takes the right from everybody that comes from "Pre-Windows 2000 Compatible Access", as is often done.
    pub fn harden(&self) {
        let group = format!("CN=Pre-Windows 2000 Compatible Access,CN=Builtin,{BASE}");
        let everybody = format!("CN=S-1-5-11,CN=ForeignSecurityPrincipals,{BASE}");
        self.modify(&format!("dn: {group}\nchangetype: modify\ndelete: member\nmember: {everybody}\n"));
    }

    /// The `schemaIDGUID` of an attribute.
    pub fn schema_id(&self, attribute: &str) -> String {
        template::id(self.folder(), attribute)
    }

    /// Takes the right to read an attribute from [`READER`] of each entry in a container, however many there are.
    pub fn hide_in(&self, container: &str, attribute: &str) {
        self.deny_in(container, attribute, &[]);
    }

    /// Gives it back.
    pub fn show_in(&self, container: &str, attribute: &str) {
        self.deny_in(container, attribute, &["--back"]);
    }

    fn deny_in(&self, container: &str, attribute: &str, how: &[&str]) {
        let ace = format!("(OD;;RP;{};;{})", self.schema_id(attribute), self.reader_id());
        let container = format!("{container}{BASE}");
        template::script(self.folder(), "deny_reading.py", &[&[container.as_str()], how, &[ace.as_str()]].concat());
    }

    /// A writer that applies changes as they are written to it, for a script that takes its time.
    pub fn writer(&self) -> std::process::Child {
        let mut command = Command::new("ldapmodify");
        command.args(["-x", "-H", &self.url(), "-D", ADMIN, "-w", PASSWORD]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// The `objectSid` of [`READER`].
    fn reader_id(&self) -> String {
        template::id(self.folder(), "fingerpost")
    }

    fn change_rights(&self, entries: &[String], rights: &[String]) {
        let sid = self.reader_id();
        let rights: String = rights.iter().map(|rights| format!("({rights};{sid})")).collect();
        let entries: Vec<String> = entries.iter().map(|entry| format!("{entry}{BASE}")).collect();
        let arguments: Vec<&str> = [&rights].into_iter().chain(&entries).map(String::as_str).collect();
        template::script(self.folder(), "add_rights.py", &arguments);
    }

    /// Gives it back.
    pub fn restore_rights(&self, before: &str) {
        self.give_back("CN=Users,", before);
    }

    /// Makes the rights on a container what they were.
    pub fn give_back(&self, container: &str, before: &str) {
        let change = format!("changetype: modify\nreplace: nTSecurityDescriptor\nnTSecurityDescriptor:: {before}");
        self.modify(&format!("dn: {container}{BASE}\n{change}\n"));
    }

    /// `samba-tool` on the domain's own files.
    fn tool(&self, arguments: &[&str]) -> Command {
        let dc = self.folder.path().join("dc");
        let mut command = template::unsynced("samba-tool");
        command.args(arguments).arg("-s").arg(dc.join("etc/smb.conf")).arg("-H").arg(dc.join("private/sam.ldb"));
        command
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts it again at the same address with the same data.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with further settings.
    pub fn restart_with(&mut self, options: &[&str]) {
        self.daemon = None;
        let dc = self.folder.path().join("dc");
        std::fs::create_dir_all(dc.join("run/nc")).unwrap();
        let mut command = template::unsynced("samba");
        command.args(["-i", "-M", "single", "-s"]).arg(dc.join("etc/smb.conf"));
        for option in [
            "server services=ldap".to_owned(),
            "ldap server require strong auth=no".to_owned(),
            format!("interfaces={}/8", self.address),
            format!("pid directory={}", dc.join("run").display()),
            format!("ncalrpc dir={}", dc.join("run/nc").display()),
            format!("log file={}", dc.join("log").display()),
            format!("tls certfile={}", self.folder.path().join(format!("{}.pem", self.address)).display()),
            format!("tls keyfile={}", self.folder.path().join(format!("{}.key", self.address)).display()),
            format!("tls cafile={}", self.ca().display()),
            // RFC 7919; without a group it looks for one at each start, for seconds of a processor.
            format!("tls dh params file={}", crate::project().join("tests/support/ffdhe2048.pem").display()),
        ] {
            command.arg(format!("--option={option}"));
        }
        options.iter().for_each(|option| _ = command.arg(format!("--option={option}")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let address = format!("{}:389", self.address).parse().unwrap();
        self.daemon = Some(Daemon::start(&mut command, address));
    }

    /// It no longer answers, but the kernel still accepts its connections.
    pub fn freeze(&self) {
        self.daemon.as_ref().unwrap().freeze();
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.daemon.as_ref().unwrap().thaw();
    }
}

/// The value behind that label, on a line of its own.
fn line(text: &str, label: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(label));
    value.unwrap_or_else(|| panic!("no {label} in {text}")).trim().to_owned()
}

/// A loopback address whose LDAP port nobody uses.
fn free_address() -> String {
    // Tests of one process run side by side.
    static NEXT: AtomicU32 = AtomicU32::new(1);
    loop {
        let last = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(last <= 250, "no address left");
        let address = format!("127.0.{}.{last}", std::process::id() % 250 + 1);
        if TcpListener::bind((address.as_str(), 389)).is_ok() {
            return address;
        }
    }
}
