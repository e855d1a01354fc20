//! Memory, inodes and `[spool] max_messages`: strangers are turned away first, our organisations later, nothing that was
//! accepted is lost, and a queue that runs empty ends it.

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fingerpost::metrics::Metrics;
use fingerpost::pressure::weigh::Memory;
use fingerpost::spool::entry::{Entry, Record};
use fingerpost::spool::store::LogStore;
use fingerpost::spool::{Sizes, Spool};

use crate::power::fixture::{Settings, StorageSetup, arrived, assert_once, letter, quiet, recipient, send, token};
use support::senders::Raw;
use support::sink::Sink;
use support::test_node::TestNode;
use support::wait_until;

/// Clients from here are an organisation's.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const STRANGER: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// With a door for an organisation, and this in `[spool]` besides.
fn prepare(spool: &str) -> StorageSetup {
    let setup = StorageSetup::prepare(&Settings { retry: "1h", ..Settings::default() });
    let inside = format!(
        "[[receive_connector]]\nname = \"inside\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"{INSIDE}/32\"]\n\
         organization = \"primary\"\n\n[[receive_connector]]\nname = \"internet\""
    );
    change(&setup.node, |text| {
        text.replace("[[receive_connector]]\nname = \"internet\"", &inside)
            .replace("[spool]\n", &format!("[spool]\n{spool}\n"))
    });
    setup
}

/// Writes its configuration anew.
fn change(node: &TestNode, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(node.path("fingerpost.toml")).unwrap();
    node.write("fingerpost.toml", &change(text));
}

/// Whether mail of strangers, and everybody's, is turned away for that reason.
fn shown(setup: &StorageSetup, reason: &str) -> (bool, bool) {
    let is_on = |who: &str| {
        let series = format!("fingerpost_back_pressure{{reason=\"{reason}\",turned_away=\"{who}\"}}");
        setup.node.metric(&series) == Some(1.0)
    };
    (is_on("strangers"), is_on("everybody"))
}

/// Waits until mail of strangers, and everybody's, is turned away for that reason or not.
fn turned_away(setup: &StorageSetup, reason: &str, wanted: (bool, bool)) {
    wait_until(&format!("{reason}: {wanted:?}"), Duration::from_secs(60), || shown(setup, reason) == wanted);
    let mail = |from| Raw::hello_from(from, setup.node.smtp).say("MAIL FROM:<s@sender.test>");
    for (from, is_turned_away) in [(STRANGER, wanted.0), (INSIDE, wanted.1)] {
        let (code, text) = mail(from);
        assert_eq!(code == 452 && text.starts_with("452 4.3.1"), is_turned_away, "{from}: {text}");
        assert!(is_turned_away || code == 250, "{from}: {text}");
    }
    let ready = setup.node.get("/readyz").unwrap();
    assert_eq!(ready.0, if wanted.1 { 503 } else { 200 }, "{}", ready.1);
    let status = setup.node.run(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.success(), wanted == (false, false), "{text}");
    assert_eq!(text.contains("back-pressure: strangers' mail is turned away for want of"), wanted == (true, false));
    assert_eq!(text.contains("back-pressure: all mail is turned away for want of"), wanted.1);
}

/// Takes so many letters from there.
fn accept(setup: &StorageSetup, name: &str, from: Ipv4Addr, count: usize) -> Vec<String> {
    let tokens: Vec<_> = (0..count).map(|n| token(name, n, 500)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..count.min(4) {
            scope.spawn(|| {
                let mut raw = Raw::hello_from(from, setup.node.smtp);
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let Some(token) = tokens.get(n) else { return };
                    assert!(send(&mut raw, &recipient(n), token).is_ok(), "{token}");
                }
            });
        }
    });
    tokens
}

/// Next hops come up, and what waits goes there.
fn drain(setup: &StorageSetup) -> [Sink; 2] {
    let hops = setup.hops(&quiet());
    assert!(setup.node.run(&["queue", "retry", "--all"]).status.success());
    hops
}

/// The tokens of what waits in its spool while it does not run.
fn waiting(node: &TestNode) -> HashSet<String> {
    let folder = node.path("export");
    let exported = node.run(&["queue", "export", "--offline", folder.to_str().unwrap()]);
    assert!(exported.status.success(), "{exported:?}");
    let files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let letters = files.filter(|file| file.extension().is_some_and(|extension| extension == "eml"));
    let token = |file: PathBuf| {
        let text = String::from_utf8(fs::read(file).unwrap()).unwrap();
        text.lines().find_map(|line| line.strip_prefix("X-Token: ")).unwrap().to_owned()
    };
    letters.map(token).collect()
}

/// Octets that count: those that it holds and that are in no file, or what a start would take.
fn counted(setup: &StorageSetup) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", setup.node.process_id())).unwrap();
    let anonymous = fingerpost::pressure::proc::anonymous(&status).unwrap();
    Memory { anonymous, limit: u64::MAX }.counted(setup.queued().unwrap() as u64)
}

/// Lets it have so much memory that what counts now is so much of it, in hundredths.
fn limit(setup: &StorageSetup, hundredths: u64) {
    let limit = counted(setup) * 100 / hundredths;
    change(&setup.node, |text| {
        let others = text.lines().filter(|line| !line.starts_with("memory_limit"));
        let text: String = others.map(|line| format!("{line}\n")).collect();
        text.replace("[server]\n", &format!("[server]\nmemory_limit = \"{limit}B\"\n"))
    });
    let reload = setup.node.run(&["reload"]);
    assert!(reload.status.success(), "{reload:?}");
}

/// The same, until this is who is turned away: what it holds moves, for a reload takes some as well.
fn holds(setup: &StorageSetup, hundredths: u64, wanted: (bool, bool)) {
    for _ in 0..10 {
        limit(setup, hundredths);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(7) {
            if shown(setup, "memory") == wanted {
                return turned_away(setup, "memory", wanted);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("not yet at {hundredths} hundredths: {:?}, {}", shown(setup, "memory"), counted(setup));
        limit(setup, 30); // who is turned away already is let in again
        turned_away(setup, "memory", (false, false));
    }
    panic!("never {wanted:?} at {hundredths} hundredths; it holds {}", counted(setup));
}

/// Its number, and those of the letters that are like it, have as many digits.
const FIRST: usize = 10_000;

/// Fills its spool with so many letters while it does not run: each like the one that waits there, which came from outside.
fn fill(setup: &mut StorageSetup, count: usize) -> Vec<String> {
    setup.node.start();
    let first = token("before", FIRST, 500);
    send(&mut Raw::hello_from(STRANGER, setup.node.smtp), &recipient(FIRST), &first).unwrap();
    setup.node.stop();
    let tokens: Vec<_> = (FIRST..FIRST + count).map(|n| token("before", n, 500)).collect();
    let spool = LogStore::open(&setup.node.path("state/spool"), Sizes::default(), Metrics::new()).unwrap();
    let entry = spool.entry(spool.ids_after(None, 1)[0]).unwrap().unwrap();
    let whole = spool.open(entry.id).unwrap().whole().unwrap();
    let header = whole.strip_suffix(&*letter(&first)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for tokens in tokens[1..].chunks(500) {
        let message = |token: &String| {
            let id = spool.new_id();
            (spool.draft(id, [header, &letter(token)].concat()).unwrap(), Entry { id, ..entry.clone() })
        };
        let record = Record { accepted: tokens.iter().map(message).collect(), changes: Vec::new() };
        runtime.block_on(spool.commit(record)).unwrap();
    }
    tokens
}

#[test]
fn where_memory_is_short_strangers_are_turned_away_first_and_a_drained_queue_ends_it() {
    let mut setup = prepare("");
    // As few as are more than a sixteenth of the memory there is then. Of so little memory half is left: at 40 hundredths
    // strangers are turned away, at 50 everybody.
    let mut tokens = fill(&mut setup, 27_500);
    setup.node.start();
    turned_away(&setup, "memory", (false, false));
    holds(&setup, 47, (true, false));
    setup.node.logged(&["the queue takes most of the memory there is"]);
    tokens.extend(accept(&setup, "inside", INSIDE, 50));
    holds(&setup, 55, (true, true));
    // It is so after a start, too, which works with what was accepted.
    setup.node.kill();
    setup.node.start_under_pressure();
    wait_until("all are there", Duration::from_secs(10), || setup.queued() == Some(tokens.len() as f64));
    holds(&setup, 55, (true, true));
    let hops = drain(&setup);
    // Thousands have to go first.
    wait_until("there is room", Duration::from_secs(240), || shown(&setup, "memory") == (false, false));
    turned_away(&setup, "memory", (false, false));
    tokens.extend(accept(&setup, "after", STRANGER, 20));
    // To deliver them all would take long: what has not arrived waits.
    setup.node.stop();
    let mut there = waiting(&setup.node);
    let arrived = arrived(&hops);
    assert!(arrived.values().all(|copies| *copies == 1), "some arrived more than once");
    println!("{} waited, {} had arrived, {} were accepted", there.len(), arrived.len(), tokens.len());
    there.extend(arrived.into_keys());
    let lost: Vec<_> = tokens.iter().filter(|token| !there.contains(*token)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

#[test]
fn when_max_messages_wait_strangers_are_turned_away_first() {
    let mut setup = prepare("max_messages = 40");
    setup.node.start();
    let mut tokens = accept(&setup, "before", STRANGER, 40);
    turned_away(&setup, "messages", (true, false));
    setup.node.logged(&["[spool] max_messages wait"]);
    tokens.extend(accept(&setup, "inside", INSIDE, 5));
    turned_away(&setup, "messages", (true, true));
    let hops = drain(&setup);
    turned_away(&setup, "messages", (false, false));
    tokens.extend(accept(&setup, "after", STRANGER, 5));
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}

/// A control group within another one, which may have so much memory.
struct Group(PathBuf);

impl Group {
    /// `None` where we may not make one.
    fn make(octets: u64) -> Option<Self> {
        let name = format!("fingerpost-test-{}", std::process::id());
        let first = (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes");
        let (root, file) = if first.0.exists() { first } else { (Path::new("/sys/fs/cgroup"), "memory.max") };
        let outer = root.join(name);
        fs::create_dir(&outer).ok()?;
        let group = Self(outer.join("inner"));
        fs::create_dir(&group.0).ok()?;
        fs::write(outer.join(file), octets.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let groups = [Some(self.0.as_path()), self.0.parent()];
        for group in groups.into_iter().flatten() {
            // What ran in it has ended, and may not have left it yet.
            for _ in 0..100 {
                if fs::remove_dir(group).is_ok() || !group.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn there_is_no_more_memory_than_a_control_group_further_up_may_have() {
    const OCTETS: u64 = 200 << 20;
    let Some(group) = Group::make(OCTETS) else {
        return eprintln!("skipped: only root can make control groups with memory");
    };
    let mut setup = prepare("");
    setup.node.enter_group(&group.0);
    setup.node.start();
    let limit = || setup.node.metric("fingerpost_memory_limit_bytes");
    wait_until("it was looked at", Duration::from_secs(10), || limit().is_some_and(|limit| limit > 0.0));
    assert_eq!(limit(), Some(OCTETS as f64));
    let status = String::from_utf8(setup.node.run(&["status"]).stdout).unwrap();
    assert!(status.contains("held of 200"), "{status}");
}

/// A small file system with few inodes at `state_dir`.
struct FewInodes<'a>(&'a Path);

impl<'a> FewInodes<'a> {
    /// `None` where we may not mount one.
    fn mount(at: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=128m,nr_inodes=400", "none"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(at))
    }

    /// Makes empty files, or removes them, until so many inodes are free.
    fn leave(&self, free: u64) {
        let filler = self.0.join("filler");
        fs::create_dir_all(&filler).unwrap();
        let now = || rustix::fs::statvfs(self.0).unwrap().f_favail;
        for n in 0.. {
            if now() <= free {
                break;
            }
            let _ = fs::File::create_new(filler.join(n.to_string()));
        }
        for entry in fs::read_dir(&filler).unwrap().flatten() {
            if now() >= free {
                break;
            }
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

impl Drop for FewInodes<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn where_inodes_are_few_strangers_are_turned_away_first() {
    let mut setup = prepare("");
    let state = setup.node.path("state");
    let Some(few) = FewInodes::mount(&state) else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    setup.node.start();
    let mut tokens = accept(&setup, "before", STRANGER, 20);
    turned_away(&setup, "inodes", (false, false));
    few.leave(35); // of 400: a tenth, and a twentieth
    turned_away(&setup, "inodes", (true, false));
    setup.node.logged(&["can hold few more files"]);
    tokens.extend(accept(&setup, "inside", INSIDE, 5));
    few.leave(15);
    turned_away(&setup, "inodes", (true, true));
    let hops = drain(&setup);
    setup.wait_until_delivered();
    few.leave(100);
    turned_away(&setup, "inodes", (false, false));
    tokens.extend(accept(&setup, "after", STRANGER, 5));
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}
