//! A process under the shim `power_loss.c`, and what a power cut at any instant may leave of its files.
//!
//! The model is harsher than most file systems. What was not synced may be there or not, each write and each name by
//! itself: a write may be cut short, a later one may survive an earlier one, one half of a rename may survive the
//! other. A file's sync does not make its name durable. What was written before a failed sync is never durable.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The shim, compiled once for this process.
static SHIM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("power_loss.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/power_loss.c");
    let made = Command::new("gcc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(made.expect("these tests need gcc").success());
    (folder, library)
});

/// Makes a command run under the shim. Its operations below `root` are appended to `log`.
pub fn preload(command: &mut Command, root: &Path, log: &Path) {
    command.envs(variables(root, log));
}

/// The variables that put a process under the shim.
pub fn variables<'a>(root: &'a Path, log: &'a Path) -> [(&'static str, &'a Path); 3] {
    [("LD_PRELOAD", &SHIM.1), ("SHIM_ROOT", root), ("SHIM_LOG", log)]
}

/// A line that a process under the shim puts between its operations, to be appended to `SHIM_LOG` in one write.
pub fn note(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [u32::from(b'J'), u32::try_from(text.len()).unwrap(), 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// One operation, as the shim wrote it.
pub struct Op {
    kind: u8,
    inode: u64,
    offset: u64,
    first: String,
    second: Vec<u8>,
}

impl Op {
    /// Whether it is about a file whose name ends so.
    #[allow(dead_code, reason = "not every test that cuts the power asks")]
    pub fn is_about(&self, end: &str) -> bool {
        self.first.ends_with(end)
    }
}

/// Reads what the shim wrote.
pub fn operations(log: &Path) -> Vec<Op> {
    let bytes = fs::read(log).unwrap();
    let mut rest = bytes.as_slice();
    let mut ops = Vec::new();
    while rest.len() >= 32 {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let long = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
        let (n, m) = (word(4), word(8));
        ops.push(Op {
            kind: rest[0],
            inode: long(16),
            offset: long(24),
            first: String::from_utf8(rest[32..32 + n].to_vec()).unwrap(),
            second: rest[32 + n..32 + n + m].to_vec(),
        });
        rest = &rest[32 + n + m..];
    }
    assert!(rest.is_empty(), "a whole log");
    ops
}

/// The lines that [`note`] put there.
pub fn notes(ops: &[Op]) -> impl Iterator<Item = &str> {
    ops.iter().filter(|op| op.kind == b'J').map(|op| op.first.as_str())
}

/// What was written and then synced, in order.
#[allow(dead_code, reason = "not every test looks into files")]
pub fn synced_writes(ops: &[Op]) -> impl Iterator<Item = &[u8]> {
    let mut last_sync = HashMap::new();
    for (at, op) in ops.iter().enumerate().filter(|(_, op)| op.kind == b'F') {
        last_sync.insert(op.inode, at);
    }
    let synced =
        move |(at, op): &(usize, &Op)| op.kind == b'W' && last_sync.get(&op.inode).is_some_and(|sync| sync > at);
    ops.iter().enumerate().filter(synced).map(|(_, op)| op.second.as_slice())
}

/// Files and folders that were synced again after a sync of them had failed.
pub fn synced_after_a_failure(ops: &[Op]) -> Vec<&str> {
    let mut failed = std::collections::HashSet::new();
    let mut again = Vec::new();
    for op in ops {
        match op.kind {
            b'C' | b'M' => drop(failed.remove(&op.inode)), // another one that got the number of one that is gone
            b'X' => drop(failed.insert(op.inode)),
            b'F' | b'D' if failed.contains(&op.inode) => again.push(op.first.as_str()),
            _ => {}
        }
    }
    again
}

/// What is below a folder: `None` is a folder.
pub type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Reads a folder.
pub fn tree(root: &Path) -> Tree {
    let mut found = Tree::from([(root.to_owned(), None)]);
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
                found.insert(path, None);
            } else {
                match fs::read(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {} // it went just now
                    bytes => drop(found.insert(path, Some(bytes.unwrap()))),
                }
            }
        }
    }
    found
}

/// Writes a tree, whose paths are below `root`, to another folder; only we may read it.
pub fn write_tree(tree: &Tree, root: &Path, to: &Path) {
    for (path, content) in tree {
        let path = to.join(path.strip_prefix(root).unwrap());
        match content {
            None => fs::create_dir_all(path).unwrap(),
            Some(bytes) => {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
}

/// What survives of that which was not synced.
pub enum Survives {
    /// Nothing.
    Nothing,
    /// All of it: the process was killed, the machine goes on.
    Everything,
    /// Whatever these numbers decide.
    Some(Numbers),
}

/// A simple sequence of numbers that look random (xorshift).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one, below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// How many of so many cuts are tried: a quarter, or all with `make power`.
pub fn some_of(all: usize) -> usize {
    if std::env::var_os("ALL_POWER_CUTS").is_some() { all } else { all.div_ceil(4) }
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq)]
enum NameTarget {
    Nothing,
    Folder,
    File(usize),
}

#[derive(Default)]
struct Object<'a> {
    /// What was there at first.
    initial: &'a [u8],
    /// When, where, what; `None`: cut to this length.
    writes: Vec<(usize, u64, Option<&'a [u8]>)>,
    /// Operations before this one are durable, but for those that a failed sync lost.
    synced: usize,
    lost: Vec<(usize, usize)>,
}

/// All that happened, in a form from which every possible outcome can be drawn.
#[derive(Default)]
struct History<'a> {
    objects: Vec<Object<'a>>,
    inodes: HashMap<u64, usize>,
    names: BTreeMap<PathBuf, Vec<(usize, NameTarget)>>,
    folders_synced: HashMap<PathBuf, usize>,
}

/// What the disk may hold after a power cut behind the given operations.
pub fn after_power_cut(initial: &Tree, inodes: &HashMap<PathBuf, u64>, ops: &[Op], mut survives: Survives) -> Tree {
    let mut history = History::default();
    history.start(initial, inodes);
    for (n, op) in ops.iter().enumerate() {
        history.take(n + 1, op);
    }
    history.outcome(&mut survives)
}

/// The inodes of the files below a folder.
pub fn inodes(tree: &Tree) -> HashMap<PathBuf, u64> {
    use std::os::unix::fs::MetadataExt;
    tree.keys().map(|path| (path.clone(), fs::metadata(path).unwrap().ino())).collect()
}

impl<'a> History<'a> {
    fn start(&mut self, initial: &'a Tree, inodes: &HashMap<PathBuf, u64>) {
        for (path, content) in initial {
            let named = match content {
                None => NameTarget::Folder,
                Some(bytes) => {
                    self.objects.push(Object { initial: bytes, ..Object::default() });
                    self.inodes.insert(inodes[path], self.objects.len() - 1);
                    NameTarget::File(self.objects.len() - 1)
                }
            };
            self.names.insert(path.clone(), vec![(0, named)]);
        }
    }

    fn name(&mut self, now: usize, path: &str, named: NameTarget) {
        self.names.entry(path.into()).or_insert_with(|| vec![(0, NameTarget::Nothing)]).push((now, named));
    }

    fn now_named(&self, path: &str) -> NameTarget {
        self.names.get(Path::new(path)).map_or(NameTarget::Nothing, |history| history.last().unwrap().1)
    }

    fn take(&mut self, now: usize, op: &'a Op) {
        let second = || String::from_utf8(op.second.clone()).unwrap();
        match op.kind {
            b'C' => {
                self.objects.push(Object::default());
                self.inodes.insert(op.inode, self.objects.len() - 1);
                self.name(now, &op.first, NameTarget::File(self.objects.len() - 1));
            }
            b'W' => self.object(op.inode).writes.push((now, op.offset, Some(op.second.as_slice()))),
            b'T' => self.object(op.inode).writes.push((now, op.offset, None)),
            b'F' => self.object(op.inode).synced = now,
            b'X' if self.inodes.contains_key(&op.inode) => {
                let object = self.object(op.inode);
                object.lost.push((object.synced, now));
            }
            b'R' => {
                let named = self.now_named(&op.first);
                self.name(now, &op.first, NameTarget::Nothing);
                self.name(now, &second(), named);
            }
            b'L' => {
                let named = self.now_named(&op.first);
                self.name(now, &second(), named);
            }
            b'U' => self.name(now, &op.first, NameTarget::Nothing),
            b'M' => self.name(now, &op.first, NameTarget::Folder),
            b'D' => drop(self.folders_synced.insert(op.first.clone().into(), now)),
            _ => {}
        }
    }

    fn object(&mut self, inode: u64) -> &mut Object<'a> {
        let object = self.inodes[&inode];
        &mut self.objects[object]
    }

    fn outcome(&self, survives: &mut Survives) -> Tree {
        let mut tree = Tree::new();
        for (path, history) in &self.names {
            let parent = path.parent().unwrap();
            let synced = self.folders_synced.get(parent).copied().unwrap_or_default();
            let durable = history.iter().rposition(|(when, _)| *when <= synced).unwrap();
            let (_, named) = match survives {
                Survives::Nothing => history[durable],
                Survives::Everything => history[history.len() - 1],
                Survives::Some(numbers) => history[durable + numbers.below(history.len() - durable)],
            };
            let is_root = history[0] == (0, NameTarget::Folder);
            if !is_root && tree.get(parent) != Some(&None) {
                continue; // its folder is gone
            }
            match named {
                NameTarget::Nothing => {}
                NameTarget::Folder => drop(tree.insert(path.clone(), None)),
                NameTarget::File(object) => {
                    drop(tree.insert(path.clone(), Some(self.objects[object].outcome(survives))))
                }
            }
        }
        tree
    }
}

impl Object<'_> {
    fn outcome(&self, survives: &mut Survives) -> Vec<u8> {
        let mut bytes = self.initial.to_vec();
        for (when, offset, written) in &self.writes {
            let lost = self.lost.iter().any(|(from, to)| (from..to).contains(&when));
            let durable = *when <= self.synced && !lost;
            let length = written.map_or(0, <[u8]>::len);
            let length = match survives {
                _ if durable => length,
                Survives::Everything => length,
                Survives::Nothing => continue,
                Survives::Some(numbers) => match numbers.below(3) {
                    0 => continue,
                    1 => length,
                    _ => numbers.below(length + 1),
                },
            };
            let offset = usize::try_from(*offset).unwrap();
            match written {
                None => bytes.resize(offset, 0),
                Some(written) if offset == bytes.len() => bytes.extend_from_slice(&written[..length]),
                Some(written) => {
                    bytes.resize(bytes.len().max(offset + length), 0);
                    bytes[offset..offset + length].copy_from_slice(&written[..length]);
                }
            }
        }
        bytes
    }
}
