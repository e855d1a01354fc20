//! The house keeps its order: imports follow the message, pure rooms do no I/O, files stay small, nothing unfinished.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may know besides itself. A room that stands in another's list comes before it on the
/// message's way; nobody imports `listener`, `session`, `cli` or `run` but those named here. `formats` has the stored
/// examples, which only tests know.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("smtp", &["time", "message"]),
    ("message", &["time", "smtp"]),
    ("recipient", &["smtp"]),
    ("fast_map", &[]),
    ("keyed_hash", &[]),
    ("obstacle", &[]),
    ("give_back", &[]),
    ("private", &["obstacle"]),
    ("guesses", &["time", "fast_map", "keyed_hash", "one_client", "formats"]),
    ("one_client", &[]),
    ("routing", &["time", "fast_map", "keyed_hash", "one_client", "smtp", "message", "recipient"]),
    (
        "directory",
        &[
            "time",
            "fast_map",
            "keyed_hash",
            "smtp",
            "recipient",
            "routing",
            "config",
            "metrics",
            "net",
            "tls",
            "state",
            "private",
            "formats",
            "give_back",
        ],
    ),
    ("metrics", &["config", "recipient", "routing"]),
    ("keys", &["message"]),
    ("config", &["time", "smtp", "message", "routing", "state", "metrics", "in_force", "tls", "keys", "give_back"]),
];

/// Rooms without I/O: no tokio, files, sockets, environment, threads, clock, logging or metrics.
const PURE: &[&str] = &[
    "src/smtp",
    "src/message",
    "src/recipient.rs",
    "src/routing",
    "src/keyed_hash.rs",
    "src/one_client.rs",
    "src/strangers/harvest.rs",
    "src/strangers/sums.rs",
    "src/guesses",
    "src/directory/expected.rs",
    "src/directory/known.rs",
    "src/directory/odd.rs",
    "src/directory/profile",
    "src/directory/ldap/handshake.rs",
    "src/directory/ldap/reason.rs",
    "src/directory/ldap/rejected.rs",
    "src/directory/remembered.rs",
    "src/directory/snapshot/guard.rs",
    "src/directory/snapshot/kept.rs",
    "src/directory/snapshot/position.rs",
    "src/directory/snapshot/served.rs",
    "src/directory/snapshot/served",
    "src/directory/snapshot/suspect.rs",
    "src/directory/snapshot/table.rs",
    "src/directory/snapshot/view.rs",
    "src/directory/snapshot/window.rs",
    "src/directory/call_ahead/pace.rs",
    "src/spool/entry.rs",
    "src/spool/entry",
    "src/spool/record.rs",
    "src/spool/header.rs",
    "src/spool/chain.rs",
    "src/spool/index.rs",
    "src/spool/index",
    "src/spool/rewrite.rs",
    "src/spool/checkpoint.rs",
    "src/spool/fresh.rs",
    "src/spool/open.rs",
    "src/delivery/schedule.rs",
    "src/delivery/refusal.rs",
    "src/delivery/refusal",
    "src/delivery/combine.rs",
    "src/delivery/last_refusals.rs",
    "src/delivery/dispatch/queue/by_group.rs",
    "src/delivery/dispatch/queue/pace.rs",
    "src/delivery/dispatch/outages.rs",
    "src/delivery/dispatch/repeated.rs",
    "src/trace/attempt.rs",
    "src/delivery/outcome.rs",
    "src/delivery/refuses_everybody.rs",
    "src/delivery/unreachable.rs",
    "src/session/lending.rs",
    "src/listener/eviction.rs",
    "src/delivery/silence/host.rs",
    "src/delivery/slots/applicant.rs",
    "src/delivery/slots/host.rs",
    "src/delivery/slots/queue.rs",
    "src/delivery/slots/turns.rs",
    "src/report/dsn.rs",
    "src/pressure/proc.rs",
    "src/pressure/weigh.rs",
];

const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::env",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "SystemTime",
    "Instant::now",
    "UnixTime::now",
    "tracing::",
    "crate::metrics",
    "SystemRandom",
];

#[test]
fn imports_follow_the_message() {
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for (room, may_know) in MAY_KNOW {
        for file in sources().iter().filter(|file| room_of(file) == *room) {
            looked_at += 1;
            for known in known_rooms(&code_of(file)) {
                if known != *room && !may_know.contains(&known.as_str()) {
                    wrong.push(format!("{} knows {known}", file.display()));
                }
            }
        }
    }
    for file in sources() {
        let room = room_of(&file);
        for private in ["listener", "session", "cli", "run"] {
            let may = room == private || ["lib", "main", "run", "cli", "listener", "admin"].contains(&room.as_str());
            if !may && known_rooms(&code_of(&file)).contains(private) {
                wrong.push(format!("{} knows {private}", file.display()));
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} files looked at");
    assert!(wrong.is_empty(), "imports against the message's way:\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_do_no_io() {
    let pure = |file: &PathBuf| PURE.iter().any(|room| file.starts_with(root().join(room)));
    let files: Vec<PathBuf> = sources().into_iter().filter(pure).collect();
    assert!(files.len() > 15, "only {} pure files found", files.len());
    let mut wrong = Vec::new();
    for file in files {
        for (at, line) in code_of(&file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                wrong.push(format!("{}:{}: {word}", file.display(), at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "I/O in pure rooms:\n{}", wrong.join("\n"));
}

#[test]
fn files_stay_readable_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = read(&file);
        let lines = text.lines().count();
        if lines > 400 {
            wrong.push(format!("{}: {lines} lines; which noun wants its own room?", file.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: does not say what it is", file.display()));
        }
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX"] {
            if text.contains(word) {
                wrong.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is in the tree").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("readable")
}

/// The file up to its tests.
fn code_of(file: &Path) -> String {
    let text = read(file);
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// The first folder or file below `src`.
fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).expect("below src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a file names as `crate::ROOM`, comments apart.
fn known_rooms(code: &str) -> BTreeSet<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let uses = lines.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>());
    uses.map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()).collect()
}
