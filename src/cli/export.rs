//! `fingerpost queue export --offline DIR`: writes waiting mail to files, without the server, so that it can be sent by
//! hand.
//!
//! Each message becomes `ID.eml`, its content as it was queued, and `ID.json`, its [`envelope`]; the envelope is
//! written last, so that a message with one is complete. The spool is only read: [`Offline`].

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use self::envelope::{Envelope, Is};
use super::{Outcome, client, output, printable};
use crate::config::check::load;
use crate::spool::SpoolError;
use crate::spool::offline::{Content, Look, Offline, Waiting};

mod envelope;

/// The size of one copied piece, octets.
const PIECE: usize = 1 << 18;

/// Counts of what was written.
#[derive(Debug, Default)]
struct Tally {
    messages: usize,
    /// Of these, without their complete content.
    damaged: usize,
    /// Messages without a recipient to send to, because an operator dropped them.
    dropped: usize,
    strays: usize,
}

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
}

/// Exports. [`Outcome::No`]: a part of the spool could not be read; standard error has details.
pub(super) fn export(config: &Path, to: &Path) -> anyhow::Result<Outcome> {
    let spool = match load(config, &std::collections::HashMap::new()) {
        Ok(config) => config.server.state_dir.join("spool"),
        Err(_) => client::state_dir_of_a_broken_file(config)?.join("spool"),
    };
    let offline = Offline::read(&spool, Look::Whole).context("nothing was exported")?;
    make(to, &spool)?;
    let mut tally = Tally::default();
    write_all(&offline, to, &mut tally).map_err(|error| {
        let Tally { messages, .. } = tally;
        anyhow!(
            "{error}; {messages} of {} messages were written. Make room or choose another folder, and export again into \
             an empty one",
            offline.count()
        )
    })?;
    Ok(print(&offline, to, &tally))
}

/// Creates the folder with access for this user only.
fn make(to: &Path, spool: &Path) -> anyhow::Result<()> {
    let whole = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inside = whole(if to.exists() { to } else { parent });
    if inside.and_then(|inside| Ok(inside.starts_with(whole(spool)?))).unwrap_or(false) {
        bail!("{} is in the spool, which is not to be changed: name a folder elsewhere", to.display());
    }
    match DirBuilder::new().mode(0o700).create(to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mut files = fs::read_dir(to).with_context(|| format!("{} is no folder to write to", to.display()))?;
            if files.next().is_some() {
                bail!("{} is not empty: name a new or an empty folder", to.display());
            }
            let closed = fs::set_permissions(to, Permissions::from_mode(0o700));
            closed.with_context(|| format!("cannot close {} to others", to.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot make {}", to.display())),
    }
}

fn write_all(offline: &Offline, to: &Path, tally: &mut Tally) -> Result<(), ExportError> {
    offline.each(|waiting| write_one(&waiting, to, tally))?;
    for (id, path) in offline.strays()? {
        // It may be most of a message, and an operator has to find its recipients.
        let target = to.join(format!("{id}.eml.no-envelope"));
        let why = match copy(&path, None, &target)? {
            Copied::Whole(_) => String::new(),
            Copied::Part(why) | Copied::Nothing(why) => format!("; and it cannot all be read: {why}"),
        };
        output::complain(&format!(
            "{} has no envelope that can be read: see {}{why}",
            path.display(),
            target.display()
        ));
        tally.strays += 1;
    }
    let folder = File::open(to).map_err(|error| ExportError::Write(to.to_owned(), error))?;
    rustix::fs::syncfs(&folder).map_err(|error| ExportError::Write(to.to_owned(), error.into()))
}

fn write_one(waiting: &Waiting<'_>, to: &Path, tally: &mut Tally) -> Result<(), ExportError> {
    let entry = &waiting.entry;
    if !envelope::has_somebody_to_send_to(entry) {
        tally.dropped += 1;
        return Ok(());
    }
    let eml = to.join(format!("{}.eml", entry.id));
    let (is, why) = match &waiting.content {
        Content::Here { bytes, is_whole } => {
            write(&eml, bytes)?;
            (if *is_whole { Is::Whole } else { Is::Damaged }, String::new())
        }
        Content::File { path, sum } => match copy(path, Some(entry.content.size), &eml)? {
            Copied::Whole(found) => (Is::of(*sum, found), String::new()),
            Copied::Part(why) => (Is::Damaged, why),
            Copied::Nothing(why) => (Is::Missing, why),
        },
    };
    if is == Is::Damaged {
        // The name prevents sending it by mistake.
        let aside = eml.with_added_extension("damaged");
        fs::rename(&eml, &aside).map_err(|error| ExportError::Write(aside, error))?;
    }
    if matches!(is, Is::Damaged | Is::Missing) {
        tally.damaged += 1;
        let why = if why.is_empty() { "it is not what was written" } else { why.as_str() };
        output::complain(&format!("{}: its content is {}: {why}", entry.id, is.word()));
    }
    let path = to.join(format!("{}.json", entry.id));
    let json = serde_json::to_string_pretty(&Envelope::of(entry, is)).map_err(io::Error::other);
    let json = json.map_err(|error| ExportError::Write(path.clone(), error))?;
    write(&path, format!("{}\n", printable::json(&json)).as_bytes())?;
    tally.messages += 1;
    Ok(())
}

/// The result of copying.
enum Copied {
    /// Complete, with this CRC-32C.
    Whole(u32),
    /// In part, and why not the rest.
    Part(String),
    Nothing(String),
}

/// Copies a large content. An error in reading is not fatal: the part that was read may be useful.
fn copy(from: &Path, size: Option<u64>, to: &Path) -> Result<Copied, ExportError> {
    let mut source = match File::open(from) {
        Ok(source) => source,
        Err(error) => return Ok(Copied::Nothing(format!("{}: {error}", from.display()))),
    };
    let failed = |error| ExportError::Write(to.to_owned(), error);
    let mut target = create(to).map_err(failed)?;
    let (mut piece, mut sum, mut copied) = (vec![0; PIECE], 0, 0);
    loop {
        match source.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => {
                target.write_all(&piece[..length]).map_err(|error| unfinished(to, error))?;
                sum = crc32c::crc32c_append(sum, &piece[..length]);
                copied += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Ok(Copied::Part(format!("{} at octet {copied}: {error}", from.display()))),
        }
    }
    match size {
        Some(size) if size != copied => {
            Ok(Copied::Part(format!("{} has {copied} octets instead of {size}", from.display())))
        }
        Some(_) | None => Ok(Copied::Whole(sum)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut file = create(path).map_err(|error| ExportError::Write(path.to_owned(), error))?;
    file.write_all(bytes).map_err(|error| unfinished(path, error))
}

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Removes a partial file, so that it is not sent.
fn unfinished(path: &Path, error: io::Error) -> ExportError {
    let _ = fs::remove_file(path);
    ExportError::Write(path.to_owned(), error)
}

fn print(offline: &Offline, to: &Path, tally: &Tally) -> Outcome {
    for problem in offline.problems() {
        output::complain(problem.text());
    }
    if !offline.problems().is_empty() {
        output::complain(
            "messages in what could not be read are missing here, and what became of others may be: some of what was \
             exported may have been delivered (fingerpost trace, the next hops' logs)",
        );
    }
    let Tally { messages, damaged, dropped, strays } = tally;
    let unread = offline.count().saturating_sub(messages + dropped);
    if unread > 0 {
        output::complain(&format!("{unread} more messages could not be read a second time: check the disk"));
    }
    let count = |count: &usize, what: &str| if *count > 0 { format!(", {count} {what}") } else { String::new() };
    output::text(&format!(
        "{messages} messages are in {}{}{}{}\n",
        to.display(),
        count(damaged, "of them without their whole content"),
        count(dropped, "dropped by an operator were left out"),
        count(strays, "contents without an envelope"),
    ));
    let is_all = offline.problems().is_empty() && [*damaged, *strays, unread] == [0, 0, 0];
    if is_all { Outcome::Done } else { Outcome::No }
}
