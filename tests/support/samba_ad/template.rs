//! The domain that each test begins with. Making it takes seconds of a processor, so that it is made once, kept beside the
//! program that was built, and copied.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{PASSWORD, READER_PASSWORD};
use crate::daemon::run;

/// The domain's own folder in that of whoever has it.
const DOMAIN: &str = "dc";
/// Passwords expire after 42 days.
const FRESH: Duration = Duration::from_secs(7 * 86_400);
/// What a kept domain was made by, and has to be again.
const SCRIPTS: [&str; 3] =
    [include_str!("template.rs"), include_str!("../exchange_schema.py"), include_str!("../first_entries.py")];

/// A folder with a kept domain, which no other process changes meanwhile.
struct Template {
    folder: PathBuf,
    _lock: File,
}

/// Puts a domain with Exchange's attributes, the first entries and their [`id`]s into a folder.
pub(super) fn copy_into(folder: &Path) {
    let template = Template::locked();
    if !template.is_good() {
        template.make();
    }
    copy(&template.folder, folder);
}

/// Copies a domain whose server does not run.
pub(super) fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from.join(DOMAIN)).arg(to));
    let ids = fs::copy(from.join("ids"), to.join("ids"));
    let settings = to.join(DOMAIN).join("etc/smb.conf");
    let text = fs::read_to_string(&settings).unwrap();
    let moved = text.replace(from.join(DOMAIN).to_str().unwrap(), to.join(DOMAIN).to_str().unwrap());
    ids.and_then(|_| fs::write(&settings, moved)).unwrap();
}

/// The `objectSid` of `fingerpost`, or the `schemaIDGUID` of an attribute, in a domain of that folder.
pub(super) fn id(folder: &Path, name: &str) -> String {
    super::line(&fs::read_to_string(folder.join("ids")).unwrap(), &format!("{name} "))
}

/// One of the scripts beside [`super`], on the domain of a folder. Debian's own Python: a newer one has no samba module.
pub(super) fn script(folder: &Path, name: &str, arguments: &[&str]) -> String {
    let script = crate::project().join("tests/support").join(name);
    let mut command = unsynced("/usr/bin/python3");
    run(command.arg(script).arg(folder.join(DOMAIN).join("etc/smb.conf")).args(arguments))
}

/// A program that does not wait for the disk: no test of Samba's is about the machine's end.
pub(super) fn unsynced(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("TDB_NO_FSYNC", "1");
    command
}

impl Template {
    /// Waits for whoever makes or copies it.
    fn locked() -> Self {
        let folder = Path::new(crate::program()).with_file_name("samba-ad");
        fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        Self { folder, _lock: lock }
    }

    /// Whether what is kept was made by what stands here now, not long ago.
    fn is_good(&self) -> bool {
        let made_by = self.folder.join("made-by");
        let age = fs::metadata(&made_by).and_then(|file| file.modified()).ok().and_then(|made| made.elapsed().ok());
        age.is_some_and(|age| age < FRESH) && fs::read_to_string(&made_by).is_ok_and(|text| text == makers())
    }

    fn make(&self) {
        let (domain, made_by) = (self.folder.join(DOMAIN), self.folder.join("made-by"));
        // Neither is there the first time.
        let _ = fs::remove_file(&made_by);
        let _ = fs::remove_dir_all(&domain);
        let target = format!("--targetdir={}", domain.display());
        let password = format!("--adminpass={PASSWORD}");
        let mut provision = unsynced("samba-tool");
        provision.args(["domain", "provision", "--realm=CONTOSO.TEST", "--domain=CONTOSO", "--server-role=dc"]);
        provision.args(["--dns-backend=SAMBA_INTERNAL", "--host-name=dc1", "--option=interfaces=lo"]);
        run(provision.args(["--option=bind interfaces only=yes", &password, &target]));
        script(&self.folder, "exchange_schema.py", &[]);
        let ids = script(&self.folder, "first_entries.py", &[READER_PASSWORD]);
        fs::write(self.folder.join("ids"), ids).unwrap();
        fs::write(made_by, makers()).unwrap();
    }
}

/// Samba's version and the scripts.
fn makers() -> String {
    format!("{}{}{PASSWORD}{READER_PASSWORD}", run(Command::new("samba").arg("--version")), SCRIPTS.concat())
}
