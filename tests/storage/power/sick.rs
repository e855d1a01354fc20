//! A disk that is sick for longer: nothing can be made durable, or what was written does not come back as it was.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::power::fixture::{Settings, StorageSetup, arrived, assert_once, letter, quiet, recipient, send, token};
use support::senders::{Letter, Raw};
use support::wait_until;

const SOON: Duration = Duration::from_secs(30);
/// All syncs of the log and of its folders.
const NO_SYNC: &str = "sync /spool/s";
/// Too large for a record.
const LARGE: usize = 400_000;

fn ready(setup: &StorageSetup) -> (u16, String) {
    setup.node.get("/readyz").unwrap_or_default()
}

fn is_ready_again(setup: &StorageSetup) {
    wait_until("it is ready again", SOON, || ready(setup).0 == 200);
}

#[test]
fn a_spool_that_takes_nothing_is_not_ready_and_goes_on_when_it_does() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.shim();
    setup.node.start();
    let mut kept = vec![token("before", 0, 1500)];
    assert!(send(&mut Raw::hello(setup.node.smtp), &recipient(0), &kept[0]).is_ok());
    for (round, fault) in [NO_SYNC, "deny /spool/s"].into_iter().enumerate() {
        setup.fault(fault);
        let refused = send(&mut Raw::hello(setup.node.smtp), &recipient(0), &token("during", round, 1500));
        assert!(refused.is_err_and(|(code, _)| code == 451), "{fault}");
        let (status, why) = ready(&setup);
        assert!(status == 503 && why.starts_with("not ready: the spool takes nothing: "), "{fault}: {status} {why}");
        assert_eq!(setup.node.metric("fingerpost_spool_takes_nothing"), Some(1.0), "{fault}");
        let status = setup.node.run(&["status"]);
        assert_eq!(status.status.code(), Some(1), "{fault}");
        assert!(String::from_utf8_lossy(&status.stdout).contains("the spool takes nothing: "), "{fault}");
        // at RCPT already, while that is known
        let mut raw = Raw::hello(setup.node.smtp);
        assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
        assert_eq!(raw.say("RCPT TO:<known1@contoso.test>").0, 451, "{fault}");
        setup.fault("");
        is_ready_again(&setup);
        assert_eq!(setup.node.metric("fingerpost_spool_takes_nothing"), Some(0.0), "{fault}");
        kept.push(token("after", round, 1500));
        assert!(send(&mut Raw::hello(setup.node.smtp), &recipient(1), &kept[round + 1]).is_ok(), "{fault}");
    }
    setup.node.kill();
    setup.node.clear_environment();
    setup.node.start();
    let hops = setup.hops(&quiet());
    setup.wait_until_delivered();
    assert_once(&hops, &kept);
}

#[test]
fn a_spool_that_takes_nothing_more_ends_with_an_error() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.shim();
    setup.node.start();
    let small = token("small", 0, 1500);
    assert!(send(&mut Raw::hello(setup.node.smtp), &recipient(0), &small).is_ok());
    setup.fault("sync /large$"); // the folder of folders: no name in it can be made durable by this process
    let refused = send(&mut Raw::hello(setup.node.smtp), &recipient(0), &token("large", 0, LARGE));
    assert!(refused.is_err_and(|(code, _)| code == 451));
    assert_eq!(setup.node.ended(SOON), Some(2), "so that it is started again");
    let log = setup.node.log();
    assert!(log.contains("the spool takes nothing any more"), "{log}");
    setup.fault("");
    setup.node.start();
    let large = token("large", 1, LARGE);
    assert!(send(&mut Raw::hello(setup.node.smtp), &recipient(0), &large).is_ok());
    let hops = setup.hops(&quiet());
    setup.wait_until_delivered();
    assert_once(&hops, &[small, large]);
}

/// The same with these texts of its configuration replaced.
fn changed(changes: &[(&str, &str)]) -> StorageSetup {
    let setup = StorageSetup::prepare(&Settings::default());
    let mut text = fs::read_to_string(setup.node.path("fingerpost.toml")).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    setup.node.write("fingerpost.toml", &text);
    setup
}

/// A node in cut-through whose spool takes nothing; its secondary is up. What RCPTs of one transaction hear, and that the
/// rest of it passes.
fn passes(changes: &[(&str, &str)], rcpts: &[(&str, u16)]) {
    let all = [&[("delivery = \"queue\"\n", "")], changes].concat();
    let mut setup = changed(&all);
    setup.shim();
    setup.node.start();
    let sunk = support::sink::Sink::start_at(setup.secondary, quiet());
    setup.fault(NO_SYNC);
    // the primary is away, and its mail would have to be kept: so it is found out
    let refused = send(&mut Raw::hello(setup.node.smtp), "known1@contoso.test", &token("away", 0, 1500));
    assert!(refused.is_err_and(|(code, _)| code == 451));
    wait_until("it is known", SOON, || ready(&setup).0 == 503);
    let passes = token("passes", 0, 1500);
    assert!(send(&mut Raw::hello(setup.node.smtp), "other1@contoso.test", &passes).is_ok());
    let mut raw = Raw::hello(setup.node.smtp);
    assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
    for (to, code) in rcpts {
        let (said, text) = raw.say(&format!("RCPT TO:{to}"));
        assert_eq!(said, *code, "{to}: {text}");
    }
    let some = token("some", 0, 1500);
    assert_eq!(raw.say("DATA").0, 354);
    raw.send(&letter(&some));
    assert_eq!(raw.say(".").0, 250);
    // what is pipelined is no exception
    let mut raw = Raw::hello(setup.node.smtp);
    raw.send(b"MAIL FROM:<s@sender.test>\r\nRCPT TO:<other1@contoso.test>\r\nRCPT TO:<known1@contoso.test>\r\n");
    let said: Vec<u16> = (0..3).map(|_| raw.reply().0).collect();
    assert_eq!(said, [250, 250, 451]);
    assert_once(&[sunk], &[passes, some]);
    setup.fault("");
    is_ready_again(&setup);
}

#[test]
fn while_the_spool_takes_nothing_one_branch_passes() {
    let rcpts = [("<other1@contoso.test>", 250), ("<known1@contoso.test>", 451), ("<other3@contoso.test>", 250)];
    passes(&[], &rcpts);
}

#[test]
fn while_the_spool_takes_nothing_lmtp_has_one_recipient() {
    let secondary = "name = \"secondary\"\n";
    let lmtp = format!("{secondary}protocol = \"lmtp\"\n");
    let rcpts = [("<other1@contoso.test>", 250), ("<other2@contoso.test>", 451), ("<known1@contoso.test>", 451)];
    passes(&[(secondary, &lmtp)], &rcpts);
}

#[test]
fn while_the_spool_takes_nothing_nobody_hears_of_success() {
    let door = "remote_networks = [\"127.0.0.0/8\"]\n";
    // strangers never do
    let ours = format!("{door}organization = \"elsewhere\"\n");
    let spool = "[spool]\n";
    let elsewhere = "[[send_connector]]\nname = \"elsewhere\"\norganization = \"elsewhere\"\n\
                     smart_hosts = [\"[127.0.0.4]:9\"]\n\n[spool]\n";
    let rcpts = [
        ("<other1@contoso.test> NOTIFY=SUCCESS", 451),
        ("<other1@contoso.test> NOTIFY=FAILURE", 250),
        ("<other2@contoso.test> NOTIFY=SUCCESS,FAILURE", 451),
        ("<other3@contoso.test> NOTIFY=NEVER", 250),
    ];
    passes(&[(door, &ours), (spool, elsewhere)], &rcpts);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Flips a bit of a letter's last line where it lies on the disk.
fn flip(setup: &StorageSetup, token: &str) {
    let letter = letter(token);
    let line = &letter[letter.len() - 60..letter.len() - 2];
    let spool = setup.node.path("state/spool");
    let found: Vec<_> = [spool.join("segments"), spool.join("large")].iter().flat_map(|folder| files(folder)).collect();
    let mut flipped = 0;
    for path in found {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, line) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_at(&[bytes[at] ^ 1], at as u64).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1, "{token}");
}

/// Letters of all kinds of size, and what their queue ids are.
fn queued(setup: &StorageSetup, name: &str, from: &str) -> Vec<(String, String)> {
    let sizes = [1500, 70_000, 200_000, LARGE];
    let mut raw = Raw::hello(setup.node.smtp);
    let queued = sizes.iter().enumerate().map(|(n, size)| {
        let token = token(name, n, *size);
        let bytes = letter(&token);
        let (_, last) = raw.transact(&Letter { from, to: &["known1@contoso.test"], bytes: &bytes }, "");
        let (code, text) = last.unwrap();
        assert_eq!(code, 250, "{text}");
        (token, text.trim_end().rsplit(' ').next().unwrap().to_owned())
    });
    queued.collect()
}

#[test]
fn what_was_damaged_on_the_disk_is_never_sent_and_kept() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.node.start();
    let (flipped, whole) = (queued(&setup, "flipped", "s@sender.test"), queued(&setup, "whole", "s@sender.test"));
    setup.node.kill(); // what is in memory is not read again
    setup.node.start();
    flipped.iter().for_each(|(token, _)| flip(&setup, token));
    let hops = setup.hops(&quiet());
    let many = flipped.len() as f64;
    wait_until("all are found", SOON, || setup.node.metric("fingerpost_spool_damaged_contents_total") == Some(many));
    wait_until("the others arrive", SOON, || arrived(&hops).len() == whole.len());
    for (token, id) in &flipped {
        let aside = |end: &str| setup.node.path(&format!("state/spool/aside/{id}.{end}"));
        wait_until("a copy is kept", SOON, || aside("json").exists() && aside("eml").exists());
        let kept = fs::read(aside("eml")).unwrap();
        let letter = letter(token);
        let ours = kept.len() - letter.len();
        let differ = kept[ours..].iter().zip(&letter).filter(|(one, other)| one != other).count();
        assert_eq!(differ, 1, "{token}: as it is");
    }
    assert_eq!(setup.queued(), Some(many), "they wait");
    assert!(setup.node.log().contains("the content of "), "told");
    // the disk had a bad time, and is well again; or they are found damaged by another start
    setup.node.kill();
    setup.node.start();
    assert_eq!(setup.queued(), Some(many));
    std::thread::sleep(Duration::from_secs(2)); // an attempt or two
    assert_eq!(arrived(&hops).len(), whole.len(), "never sent");
    setup.node.stop();
    flipped.iter().for_each(|(token, _)| flip_back(&setup, token));
    setup.node.start();
    setup.wait_until_delivered();
    let all: Vec<String> = flipped.iter().chain(&whole).map(|(token, _)| token.clone()).collect();
    assert_once(&hops, &all);
}

/// The other way about: what [`flip`] did is found by what stands before it.
fn flip_back(setup: &StorageSetup, token: &str) {
    let letter = letter(token);
    let before = &letter[letter.len() - 120..letter.len() - 62];
    let spool = setup.node.path("state/spool");
    let mut flipped = 0;
    for path in [spool.join("segments"), spool.join("large")].iter().flat_map(|folder| files(folder)) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, before) {
            let at = at + 60;
            fs::File::options().write(true).open(&path).unwrap().write_at(&[bytes[at] ^ 1], at as u64).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1, "{token}");
}

#[test]
fn the_sender_of_what_was_damaged_hears_of_it_without_the_content() {
    let short = "max = \"1s\", give_up_after = \"5s\", warn_after = \"4s\" }";
    let mut setup = changed(&[("max = \"1s\" }", short)]);
    setup.node.start();
    let flipped = queued(&setup, "gone", "known2@contoso.test");
    // the first attempt has the content from memory
    let deferred = "fingerpost_deliveries_total{result=\"deferred\",send_connector=\"primary\"}";
    wait_until("the first attempts are over", SOON, || setup.node.metric(deferred) >= Some(flipped.len() as f64));
    flipped.iter().for_each(|(token, _)| flip(&setup, token));
    let hops = setup.hops(&quiet());
    wait_until("all expire", Duration::from_secs(60), || {
        let reports = hops[0].for_address("known2@contoso.test");
        let failed = |bytes: &[u8]| memchr::memmem::find(bytes, b"Action: failed").is_some();
        reports.iter().filter(|report| failed(&report.bytes)).count() == flipped.len()
    });
    for report in hops[0].for_address("known2@contoso.test") {
        let text = String::from_utf8_lossy(&report.bytes).into_owned();
        assert!(text.contains("damaged on our disk"), "{text}");
        assert!(!text.contains("X-Token"), "nothing of the content: {text}");
    }
    assert!(hops[0].for_address("known1@contoso.test").is_empty());
}

/// Mail that comes and goes, until the first segment is complete and has little left in it.
fn fill_a_segment(setup: &StorageSetup) {
    let mut raw = Raw::hello(setup.node.smtp);
    for n in 0..150 {
        let size = 240_000;
        assert!(send(&mut raw, "other1@contoso.test", &token("passing", n, size)).is_ok());
    }
}

#[test]
fn a_segment_that_cannot_be_read_is_told_and_let_go_by_an_operator_only() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.shim();
    setup.node.start();
    let _sunk = support::sink::Sink::start_at(setup.secondary, quiet());
    let waits = token("waits", 0, 1500);
    let id = send(&mut Raw::hello(setup.node.smtp), "known1@contoso.test", &waits).unwrap();
    setup.fault("read /segments/00000001.seg$");
    fill_a_segment(&setup);
    let unreadable = || setup.node.metric("fingerpost_spool_unreadable_segments");
    let mut raw = Raw::hello(setup.node.smtp);
    let mut passing = 150..;
    wait_until("it is found", Duration::from_secs(60), || {
        // Whatever is written is the time to look at what can be moved.
        let passes = send(&mut raw, "other1@contoso.test", &token("passing", passing.next().unwrap(), 1500));
        assert!(passes.is_ok());
        unreadable() == Some(1.0)
    });
    let run = |arguments: &[&str]| {
        let ran = setup.node.run(arguments);
        (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let (_, status) = run(&["status"]);
    assert!(status.contains("segment 1 cannot be read for "), "{status}");
    let (code, listed) = run(&["spool", "unreadable"]);
    assert!(code == Some(0) && listed.contains("the disk does not give"), "{listed}");
    assert_eq!(run(&["spool", "release", "2"]).0, Some(1), "it can be read");
    assert!(setup.queued() >= Some(1.0), "nothing was dropped");
    assert!(setup.node.log().contains("its messages wait, and the log grows"));

    let (code, released) = run(&["spool", "release", "1"]);
    assert!(code == Some(0) && released.contains(&id), "{released}");
    assert!(setup.node.path("state/spool/aside/00000001.seg").exists());
    wait_until("it is gone", SOON, || unreadable() == Some(0.0) && setup.queued() == Some(0.0));
    assert!(run(&["spool", "unreadable"]).1.contains("all segments can be read"));
}

#[test]
fn a_start_that_would_have_to_guess_is_refused_until_the_disk_is_well() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.shim();
    setup.node.start();
    let tokens: Vec<_> = (0..3).map(|n| token("waits", n, 1500)).collect();
    for (n, token) in tokens.iter().enumerate() {
        assert!(send(&mut Raw::hello(setup.node.smtp), &recipient(n), token).is_ok());
    }
    setup.node.kill();
    for fault in ["read /segments/00000001.seg$", "open /segments/00000001.seg$", "open /spool/segments$"] {
        setup.fault(fault);
        setup.node.launch();
        assert_eq!(setup.node.ended(SOON), Some(2), "{fault}: so that it is started again");
        let log = setup.node.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains("Input/output error") || last.contains("the disk does not give"), "{fault}: {last}");
        setup.fault("");
    }
    assert!(setup.node.log().contains("fingerpost spool release 1 --offline"));
    // where the disk gives it after all there is nothing to let go
    assert_eq!(setup.node.run(&["spool", "release", "1", "--offline"]).status.code(), Some(1));
    setup.node.start();
    let hops = setup.hops(&quiet());
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}
