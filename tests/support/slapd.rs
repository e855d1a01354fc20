//! A real OpenLDAP server for tests: own folder, free loopback ports, killed at the end.
//!
//! Base [`BASE`]; [`READER`] may read everything, [`ADMIN`] may write; `cn=config` is open to [`ADMIN`]'s password, so
//! that a test can change rights and limits while the server runs. Needs Debian's `slapd` and `ldap-utils`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::certificates::Authority;
use super::daemon::{Daemon, run};
use super::free_port;

/// The root of the tree.
pub const BASE: &str = "dc=contoso,dc=com";
/// Who may write.
pub const ADMIN: &str = "cn=admin,dc=contoso,dc=com";
/// A service account.
pub const READER: &str = "cn=fingerpost,dc=contoso,dc=com";
/// The password of both.
pub const PASSWORD: &str = "correct horse";

/// A running (or stopped) slapd.
pub struct Slapd {
    folder: tempfile::TempDir,
    port: u16,
    tls_port: u16,
    authority: Authority,
    daemon: Option<Daemon>,
}

impl Slapd {
    /// Starts one with the base, the reader and `postmaster@contoso.com`, who serves as probe.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with further attributes and classes, as in a `.schema` file.
    pub fn start_with(schema: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path());
        let issued = authority.issue(&["localhost"]);
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        let mut text = String::new();
        for schema in ["core", "cosine", "inetorgperson", "misc"] {
            writeln!(text, "include /etc/ldap/schema/{schema}.schema").unwrap();
        }
        let further = folder.path().join("further.schema");
        std::fs::write(&further, schema).unwrap();
        writeln!(text, "include {}", further.display()).unwrap();
        writeln!(text, "modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload syncprov").unwrap();
        writeln!(text, "pidfile {}", folder.path().join("pid").display()).unwrap();
        writeln!(text, "TLSCertificateFile {}", issued.certificate.display()).unwrap();
        writeln!(text, "TLSCertificateKeyFile {}", issued.key.display()).unwrap();
        writeln!(text, "database config\nrootpw \"{PASSWORD}\"").unwrap();
        writeln!(text, "database mdb\nsuffix {BASE}\nrootdn {ADMIN}\nrootpw \"{PASSWORD}\"").unwrap();
        writeln!(text, "directory {}\nindex mail,mailLocalAddress,objectClass eq", data.display()).unwrap();
        writeln!(text, "overlay syncprov\nlimits dn.exact=\"{READER}\" size=unlimited").unwrap();
        writeln!(text, "access to attrs=userPassword by anonymous auth\naccess to * by * read").unwrap();
        let file = folder.path().join("slapd.conf");
        std::fs::write(&file, text).unwrap();
        // slaptest exits with 1 because the database is not there yet.
        let mut convert = Command::new("slaptest");
        convert.arg("-f").arg(&file).arg("-F").arg(folder.path().join("config")).stderr(Stdio::null());
        convert.stdout(Stdio::null()).status().unwrap();

        let (port, tls_port) = (free_port(Ipv4Addr::LOCALHOST), free_port(Ipv4Addr::LOCALHOST));
        let mut slapd = Self { folder, port, tls_port, authority, daemon: None };
        slapd.restart();
        slapd.add(&format!(
            "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: Contoso\ndc: contoso\n\n\
             dn: {READER}\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: fingerpost\n\
             userPassword: {PASSWORD}\n"
        ));
        slapd.add_person("postmaster", "mail: postmaster@contoso.com");
        slapd
    }

    /// `ldap://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    /// `ldaps://localhost:PORT`, with a certificate for that name by [`Slapd::ca`].
    pub fn tls_url(&self) -> String {
        format!("ldaps://localhost:{}", self.tls_port)
    }

    /// Where it listens in clear.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Where it listens with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.tls_port).into()
    }

    /// The authority of its certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.authority.file()
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file with the reader's password.
    pub fn password_file(&self) -> PathBuf {
        let path = self.folder.path().join("password");
        std::fs::write(&path, format!("{PASSWORD}\n")).unwrap();
        path
    }

    /// Adds entries.
    pub fn add(&self, ldif: &str) {
        self.change(&["-a", "-D", ADMIN], ldif);
    }

    /// Adds a person below the base, with further lines of LDIF.
    pub fn add_person(&self, uid: &str, lines: &str) {
        self.add(&format!(
            "dn: uid={uid},{BASE}\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\nuid: {uid}\n\
             cn: {uid}\nsn: {uid}\n{lines}\n"
        ));
    }

    /// Applies changes (LDIF with changetype).
    pub fn modify(&self, ldif: &str) {
        self.change(&["-D", ADMIN], ldif);
    }

    /// The same where referral objects are only objects (ManageDsaIT, RFC 3296 3).
    pub fn modify_referrals(&self, ldif: &str) {
        self.change(&["-M", "-D", ADMIN], ldif);
    }

    /// Sets one attribute of the database's configuration, such as `olcAccess` or `olcSizeLimit`.
    pub fn configure(&self, attribute: &str, value: &str) {
        let ldif = format!(
            "dn: olcDatabase={{1}}mdb,cn=config\nchangetype: modify\nreplace: {attribute}\n{attribute}: {value}\n"
        );
        self.change(&["-D", "cn=config"], &ldif);
    }

    /// Sets one attribute of the server's configuration, such as `olcTLSVerifyClient`.
    pub fn configure_server(&self, attribute: &str, value: &str) {
        let ldif = format!("dn: cn=config\nchangetype: modify\nreplace: {attribute}\n{attribute}: {value}\n");
        self.change(&["-D", "cn=config"], &ldif);
    }

    /// Who issued its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Puts many entries in, as an administrator fills a new server; these attributes are indexed.
    pub fn load(&mut self, ldif: &str, indexed: &str) {
        self.configure("olcDbMaxSize", "4294967296");
        self.configure("olcDbNoSync", "TRUE");
        self.configure("olcDbIndex", &format!("{indexed},objectClass eq\nolcDbIndex: entryUUID,entryCSN eq"));
        self.end();
        let (config, file) = (self.folder.path().join("config"), self.folder.path().join("load.ldif"));
        std::fs::write(&file, ldif).unwrap();
        // What is there already is indexed in the background, if the server lives long enough.
        run(Command::new("slapindex").args(["-q", "-b", BASE, "-F"]).arg(&config));
        run(Command::new("slapadd").args(["-q", "-b", BASE, "-F"]).arg(&config).arg("-l").arg(file));
        self.restart();
    }

    /// A writer that applies changes as they are written to it, for a script that takes its time.
    pub fn writer(&self) -> std::process::Child {
        let mut command = Command::new("ldapmodify");
        command.args(["-x", "-H", &self.url(), "-w", PASSWORD, "-D", ADMIN]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Takes the overlay away that streams changes.
    pub fn stop_streaming(&self) {
        let overlay = "dn: olcOverlay={0}syncprov,olcDatabase={1}mdb,cn=config\nchangetype: delete\n";
        self.change(&["-D", "cn=config"], overlay);
    }

    fn change(&self, arguments: &[&str], ldif: &str) {
        let file = self.folder.path().join("change.ldif");
        std::fs::write(&file, ldif).unwrap();
        let mut command = Command::new("ldapmodify");
        run(command.args(["-x", "-H", &self.url(), "-w", PASSWORD]).args(arguments).arg("-f").arg(file));
    }

    /// Stops it as a service manager does.
    pub fn end(&mut self) {
        self.daemon.take().unwrap().end();
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts it again on the same ports with the same data.
    pub fn restart(&mut self) {
        self.daemon = None;
        let listen = format!("{} ldaps://127.0.0.1:{}", self.url(), self.tls_port);
        let mut command = Command::new("slapd");
        command.args(["-d", "0", "-h", &listen, "-F"]).arg(self.folder.path().join("config"));
        self.daemon = Some(Daemon::start(&mut command, self.address()));
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
