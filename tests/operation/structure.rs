//! The source keeps its structure: every room knows only those that stand before it, pure files do no I/O, files stay small,
//! nothing is unfinished. Planted violations are the test of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every room, and those that it may know; they all stand before it, so that no two can need each other. A room is what
/// stands directly in `src`.
const ROOMS: &[(&str, &[&str])] = &[
    // Words.
    ("time", &[]),
    ("fast_map", &[]),
    ("keyed_hash", &[]),
    ("one_client", &[]),
    ("share", &["time"]),
    ("smtp", &[]),
    ("message", &["time", "smtp"]),
    ("lookup", &["one_client", "smtp"]),
    ("guesses", &["time", "fast_map", "keyed_hash", "one_client"]),
    ("routing", &["time", "fast_map", "keyed_hash", "one_client", "smtp", "message", "lookup"]),
    // Tools.
    ("obstacle", &[]),
    ("give_back", &[]),
    ("private", &["obstacle"]),
    ("printable", &[]),
    ("patience", &[]),
    ("net", &[]),
    ("keys", &["message"]),
    ("formats", &[]),
    // What an operator writes, and what he sees.
    ("config", &["time", "smtp", "message", "routing"]),
    ("metrics", &[]),
    ("state", &["time", "keyed_hash", "guesses", "routing", "private", "config"]),
    ("trace", &["time", "private", "metrics"]),
    ("tls", &["time", "smtp", "config"]),
    ("descriptors", &["config"]),
    // Who has an address.
    (
        "directory",
        &[
            "time",
            "fast_map",
            "keyed_hash",
            "smtp",
            "lookup",
            "routing",
            "give_back",
            "private",
            "net",
            "config",
            "metrics",
            "state",
            "tls",
        ],
    ),
    ("resolve", &["time", "smtp", "lookup", "routing", "directory"]),
    ("in_force", &["keys", "config", "resolve"]),
    ("reload", &["time", "lookup", "routing", "give_back", "config", "metrics", "state", "in_force"]),
    // The journey.
    ("spool", &["time", "smtp", "message", "routing", "private", "formats", "metrics"]),
    (
        "cluster",
        &["time", "share", "smtp", "message", "routing", "obstacle", "private", "config", "metrics", "tls", "spool"],
    ),
    ("pressure", &["smtp", "config", "metrics", "in_force", "spool"]),
    ("strangers", &["time", "fast_map", "one_client", "config", "metrics", "trace"]),
    ("report", &["time", "smtp", "message", "lookup", "routing", "private", "config", "in_force", "spool"]),
    (
        "delivery",
        &[
            "time",
            "fast_map",
            "one_client",
            "share",
            "smtp",
            "message",
            "lookup",
            "routing",
            "patience",
            "net",
            "config",
            "metrics",
            "trace",
            "tls",
            "directory",
            "in_force",
            "spool",
            "strangers",
            "report",
        ],
    ),
    (
        "session",
        &[
            "time",
            "one_client",
            "smtp",
            "message",
            "lookup",
            "guesses",
            "routing",
            "patience",
            "config",
            "metrics",
            "trace",
            "tls",
            "directory",
            "resolve",
            "in_force",
            "spool",
            "pressure",
            "strangers",
            "report",
            "delivery",
        ],
    ),
    (
        "listener",
        &["time", "one_client", "smtp", "net", "config", "metrics", "tls", "descriptors", "strangers", "session"],
    ),
    // Hands and eyes.
    (
        "admin",
        &[
            "time",
            "one_client",
            "smtp",
            "message",
            "lookup",
            "routing",
            "printable",
            "config",
            "metrics",
            "trace",
            "tls",
            "descriptors",
            "directory",
            "resolve",
            "in_force",
            "reload",
            "spool",
            "cluster",
            "pressure",
            "delivery",
        ],
    ),
    (
        "run",
        &[
            "time",
            "smtp",
            "lookup",
            "guesses",
            "routing",
            "obstacle",
            "give_back",
            "private",
            "keys",
            "config",
            "metrics",
            "state",
            "trace",
            "tls",
            "descriptors",
            "directory",
            "resolve",
            "in_force",
            "reload",
            "spool",
            "cluster",
            "pressure",
            "strangers",
            "delivery",
            "session",
            "listener",
            "admin",
        ],
    ),
    (
        "cli",
        &[
            "time",
            "smtp",
            "message",
            "lookup",
            "routing",
            "obstacle",
            "printable",
            "config",
            "metrics",
            "trace",
            "tls",
            "descriptors",
            "directory",
            "resolve",
            "spool",
            "cluster",
            "delivery",
            "admin",
            "run",
        ],
    ),
    // The whole: nobody knows these.
    ("lib", &[]),
    ("main", &["cli"]),
];

/// Rooms and files without I/O: no tokio, files, sockets, environment, threads, clock, logging or metrics. Files that say
/// "Pure" in their first words are held to it as well.
const PURE: &[&str] = &[
    "src/smtp",
    "src/message",
    "src/lookup.rs",
    "src/routing",
    "src/guesses",
    "src/directory/profile",
    "src/directory/ldap/handshake.rs",
    "src/directory/ldap/reason.rs",
    "src/directory/ldap/rejected.rs",
    "src/directory/snapshot/served",
    "src/spool/entry",
    "src/spool/index",
    "src/spool/content_cache.rs",
    "src/delivery/refusal.rs",
    "src/delivery/refusal",
    "src/delivery/dispatch/queue/by_group.rs",
    "src/delivery/dispatch/queue/pace.rs",
    "src/trace/attempt.rs",
    "src/pressure/proc.rs",
    "src/pressure/weigh.rs",
];

/// What a pure file has nothing to do with.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "File::open",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "SystemTime",
    "::now()",
    "::steady()",
    "tracing::",
    "println!",
    "crate::metrics",
    "SystemRandom",
];

#[test]
fn rooms_know_only_those_before_them() {
    let tree = Tree::read();
    assert!(tree.0.len() > 300, "only {} files found", tree.0.len());
    no_complaints(&tree.against_the_order());
}

#[test]
fn pure_files_do_no_io() {
    let tree = Tree::read();
    assert!(tree.pure(PURE).len() > 100, "only {} pure files found", tree.pure(PURE).len());
    no_complaints(&tree.impure(PURE));
}

#[test]
fn files_stay_readable_and_say_what_they_are() {
    no_complaints(&Tree::read().unreadable());
}

/// What is planted where, and the line that is to be named.
#[test]
fn planted_violations_are_found() {
    let clock = "    let now = std::time::Instant::now();";
    for (file, planted) in [
        ("src/routing/decide.rs", clock),
        ("src/smtp/server.rs", "    let socket = std::net::TcpStream::connect(\"127.0.0.1:25\");"),
        ("src/smtp/server.rs", "    std::fs::write(\"x\", \"y\").ok();"),
        ("src/spool/record.rs", "    tracing::info!(\"read\");"),
        ("src/spool/stuck.rs", "    let home = std::env::var(\"HOME\");"),
    ] {
        let mut tree = Tree::read();
        let line = tree.plant(file, planted);
        let found = tree.impure(PURE);
        assert!(found.len() == 1 && found[0].starts_with(&format!("{file}:{line}: ")), "{planted}: {found:?}");
    }
    for (file, planted) in [
        ("src/directory.rs", "use crate::delivery::attempt;"),
        ("src/smtp/server.rs", "fn f() { crate::session::nothing(); }"),
        ("src/routing/walk.rs", "use crate::{config::Config, smtp::reply};"),
        ("src/delivery.rs", "use crate::session::Client;"), // a cycle
        ("src/config.rs", "pub use crate::reload::Reloader;"), // another
        ("src/new_room.rs", "//! A room that nobody has put into the table."),
    ] {
        let mut tree = Tree::read();
        let line = tree.plant(file, planted);
        let found = tree.against_the_order();
        assert!(found.len() == 1 && found[0].starts_with(&format!("{file}:{line}: ")), "{planted}: {found:?}");
    }
    // What stands in a module of tests does not count, what stands behind it does.
    let with_tests = |tests: &str| {
        let (code, behind) = ("//! Pure.\n\nfn a() {}\n", format!("\nfn b() {{\n{clock}\n}}\n"));
        Tree([("src/smtp/x.rs".to_owned(), format!("{code}{tests}{behind}"))].into())
    };
    for tests in [
        format!("#[cfg(test)]\nmod tests {{\n{clock}\n}}\n"),
        format!("#[cfg(test)]\n#[allow(dead_code)]\npub(crate) mod tests {{\n    fn c() {{\n{clock}\n    }}\n}}\n"),
        "#[cfg(test)]\nmod tests;\n".to_owned(),
        "#[cfg(test)]\nuse std::sync::Arc;\n".to_owned(),
    ] {
        let line = 3 + tests.lines().count() + 3;
        assert_eq!(
            with_tests(&tests).impure(&[]),
            [format!("src/smtp/x.rs:{line}: `::now()` in a pure file")],
            "{tests}"
        );
    }
    assert_eq!(
        Tree::default().impure(&["src/gone.rs"]),
        ["src/gone.rs:1: stands in the list of pure files, and does not exist"]
    );
    let mut tree = Tree::read();
    tree.plant("src/smtp/long.rs", &"// a line\n".repeat(400));
    tree.plant("src/smtp/unfinished.rs", "//! Here.\n    todo!()");
    assert_eq!(tree.unreadable().len(), 3, "too long, does not say what it is, unfinished");
}

/// The table itself: each room once, and after all that it may know.
#[test]
fn the_table_has_no_cycle() {
    let mut before = BTreeSet::new();
    for (room, may_know) in ROOMS {
        for known in *may_know {
            assert!(before.contains(known), "{room} stands before {known}, which it may know");
        }
        assert!(before.insert(room), "{room} stands there twice");
    }
}

fn no_complaints(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The program's files: their paths, and what is in them.
#[derive(Default)]
struct Tree(BTreeMap<String, String>);

impl Tree {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut files, mut folders) = (BTreeMap::new(), vec![root.join("src")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("src is in the tree").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
                    files.insert(name, fs::read_to_string(&path).expect("readable"));
                }
            }
        }
        Self(files)
    }

    /// Adds this to the end of a file, which may be new. Returns the number of its last line there.
    fn plant(&mut self, file: &str, text: &str) -> usize {
        let planted = self.0.entry(file.to_owned()).or_default();
        planted.push_str(text);
        planted.push('\n');
        planted.lines().count()
    }

    /// Files that are not for tests only.
    fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        let tests: Vec<String> = self.0.iter().flat_map(|(file, text)| test_files(file, text)).collect();
        let is_test = move |file: &str| {
            tests.iter().any(|test| file == format!("{test}.rs") || file.starts_with(&format!("{test}/")))
        };
        self.0.iter().filter(move |(file, _)| !is_test(file)).map(|(file, text)| (file.as_str(), text.as_str()))
    }

    fn against_the_order(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (file, text) in self.sources() {
            let room = room_of(file);
            let Some((_, may_know)) = ROOMS.iter().find(|(name, _)| *name == room) else {
                wrong.push(format!("{file}:1: {room} is a room that does not stand in the table"));
                continue;
            };
            for (line, code) in code_of(text) {
                for known in known_rooms(&code).filter(|known| known != room && !may_know.contains(&known.as_str())) {
                    wrong.push(format!("{file}:{line}: {room} knows {known}, which stands behind it or is not for it"));
                }
            }
        }
        wrong
    }

    /// The pure files that are listed, or say that they are.
    fn pure(&self, listed: &[&str]) -> Vec<(&str, &str)> {
        let is_listed = |file: &str| {
            listed.iter().any(|pure| file == *pure || file.strip_prefix(pure).is_some_and(|rest| rest.starts_with('/')))
        };
        self.sources().filter(|(file, text)| is_listed(file) || says_pure(text)).collect()
    }

    fn impure(&self, listed: &[&str]) -> Vec<String> {
        let is_there = |pure: &str| self.0.keys().any(|file| file == pure || file.starts_with(&format!("{pure}/")));
        let gone = listed.iter().filter(|pure| !is_there(pure));
        let mut wrong: Vec<String> =
            gone.map(|pure| format!("{pure}:1: stands in the list of pure files, and does not exist")).collect();
        for (file, text) in self.pure(listed) {
            for (line, code) in code_of(text) {
                let words = IMPURE.iter().filter(|word| code.contains(**word));
                wrong.extend(words.map(|word| format!("{file}:{line}: `{word}` in a pure file")));
            }
        }
        wrong
    }

    fn unreadable(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (file, text) in &self.0 {
            let lines = text.lines().count();
            if lines > 400 {
                wrong.push(format!("{file}: {lines} lines; which noun wants its own room?"));
            }
            if !text.starts_with("//!") {
                wrong.push(format!("{file}: does not say what it is"));
            }
            for word in ["todo!(", "unimplemented!(", "FIXME", "XXX"] {
                if text.contains(word) {
                    wrong.push(format!("{file}: {word}"));
                }
            }
        }
        wrong
    }
}

/// The first folder or file below `src`.
fn room_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

/// Whether its first words say that it is pure.
fn says_pure(text: &str) -> bool {
    let said = text.lines().take_while(|line| line.starts_with("//!"));
    said.flat_map(|line| line.split([' ', '.', ';', ':', ','])).any(|word| word == "Pure")
}

/// The files of modules that are for tests only, and folders beside them, without `.rs`.
fn test_files(file: &str, text: &str) -> Vec<String> {
    let folder = match file.rsplit_once('/') {
        Some((folder, "lib.rs" | "main.rs")) => folder.to_owned(),
        _ => file.trim_end_matches(".rs").to_owned(),
    };
    let lines: Vec<&str> = text.lines().collect();
    let after = (0..lines.len()).filter(|at| lines[*at] == "#[cfg(test)]").filter_map(|at| module(&lines, at));
    after.filter(|(_, rest)| rest.ends_with(';')).map(|(name, _)| format!("{folder}/{name}")).collect()
}

/// The module that an attribute in this line belongs to: its name, and the line that declares it.
fn module<'a>(lines: &[&'a str], at: usize) -> Option<(&'a str, &'a str)> {
    let declared = lines[at..].iter().find(|line| !line.trim_start().starts_with("#["))?;
    let name = declared
        .trim_start()
        .trim_start_matches("pub ")
        .trim_start_matches("pub(crate) ")
        .trim_start_matches("pub(super) ");
    let name = name.strip_prefix("mod ")?;
    Some((name.trim_end_matches([' ', '{', ';']), declared))
}

/// Lines of code with their numbers: without comments, and without modules that are for tests only. Everything else
/// counts, wherever it stands.
fn code_of(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut code, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let line = lines[at];
        if line.trim() == "#[cfg(test)]"
            && let Some((_, declared)) = module(&lines, at)
            && declared.ends_with('{')
        {
            // Formatted as it is, a module ends at the first brace that stands where it begins.
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            at = (at..lines.len()).find(|at| lines[*at] == end).unwrap_or(lines.len()) + 1;
            continue;
        }
        code.push((at + 1, line.split("//").next().unwrap_or_default().to_owned()));
        at += 1;
    }
    code
}

/// The rooms that a line names: `crate::ROOM`, `crate::{ROOM, ...}`.
fn known_rooms(code: &str) -> impl Iterator<Item = String> {
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let named = code.split("crate::").skip(1).flat_map(move |rest| match rest.strip_prefix('{') {
        None => vec![word(rest)],
        Some(list) => list.split(", ").map(|one| word(one.trim_start())).collect(),
    });
    named.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect::<Vec<_>>().into_iter()
}
