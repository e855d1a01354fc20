//! A full disk: new mail is turned away in time, what was accepted goes on, and all is well again when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::power::fixture::{Settings, StorageSetup, arrived, assert_once, quiet, send, token};
use support::senders::Raw;
use support::sink::Sink;
use support::wait_until;

const MIB: u64 = 1 << 20;
/// The file system's size, and how much of it must be free.
const SIZE: u64 = 32;
const MIN_FREE: u64 = 8;

/// A small file system at `state_dir`.
struct SmallFileSystem(PathBuf);

impl SmallFileSystem {
    /// `None` where we may not mount one.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE}m"), "none"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it up to so many bytes free.
    fn leave(&self, free: u64) {
        let file = File::options().create(true).truncate(false).write(true).open(self.0.join("filler")).unwrap();
        let length = file.metadata().unwrap().len();
        let wanted = (length + self.free()).saturating_sub(free);
        file.set_len(length.min(wanted)).unwrap();
        for at in (length..wanted).step_by(4096) {
            file.write_all_at(&[1; 4096], at).unwrap();
        }
    }

    /// Fills it to the last page.
    fn fill(&self) {
        self.leave(16 * 4096);
        let mut file = File::options().append(true).open(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mail_is_turned_away(setup: &StorageSetup) {
    let (code, text) = Raw::hello(setup.node.smtp).say("MAIL FROM:<s@sender.test>");
    assert_eq!((code, text.starts_with("452 4.3.1")), (452, true), "{text}");
}

/// `fingerpost_back_pressure` and `/readyz`, with too little space and with enough.
const TURNED_AWAY: (f64, u16) = (1.0, 503);
const TAKEN: (f64, u16) = (0.0, 200);

fn pressure(setup: &StorageSetup, wanted: (f64, u16)) {
    wait_until("back-pressure follows the disk", Duration::from_secs(10), || {
        let shown = setup.node.metric("fingerpost_back_pressure{reason=\"disk\",turned_away=\"everybody\"}");
        shown == Some(wanted.0) && setup.node.get("/readyz").is_some_and(|(status, _)| status == wanted.1)
    });
}

/// Sends that many letters for one organisation; each gets 250.
fn accept(setup: &StorageSetup, name: &str, to: &str, count: usize) -> Vec<String> {
    let mut raw = Raw::hello(setup.node.smtp);
    let tokens: Vec<_> = (0..count).map(|n| token(name, n, 3000)).collect();
    for (n, token) in tokens.iter().enumerate() {
        assert!(send(&mut raw, &format!("{to}{n}@contoso.test"), token).is_ok());
    }
    tokens
}

#[test]
fn a_full_disk_turns_new_mail_away_and_keeps_the_old() {
    let mut setup = StorageSetup::prepare(&Settings { min_free: "8MiB", ..Settings::default() });
    let Some(disk) = SmallFileSystem::mount(&setup.node.path("state")) else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    setup.node.start();
    let for_primary = accept(&setup, "primary", "known", 20);
    let for_secondary = accept(&setup, "secondary", "other", 20);

    // below min_free: nothing new, and what waits is delivered from the reserve
    let mut under_way = Raw::hello(setup.node.smtp);
    assert_eq!(under_way.say("MAIL FROM:<s@sender.test>").0, 250);
    assert_eq!(under_way.say("RCPT TO:<known1@contoso.test>").0, 250);
    disk.leave(MIN_FREE * MIB - MIB);
    pressure(&setup, TURNED_AWAY);
    mail_is_turned_away(&setup);
    assert_eq!(under_way.say("DATA").0, 354);
    assert_eq!(under_way.say("Subject: too late\r\n\r\nx\r\n.").0, 452, "a message of a transaction begun before");
    let primary = Sink::start_at(setup.primary, quiet());
    wait_until("the primary's mail", Duration::from_secs(20), || setup.queued() == Some(20.0));
    assert_once(std::slice::from_ref(&primary), &for_primary);

    // nothing free at all: outcomes wait for room, and nothing is delivered twice meanwhile
    disk.fill();
    let secondary = Sink::start_at(setup.secondary, quiet());
    let hops = [primary, secondary];
    let no_room = || setup.node.log().contains("an outcome cannot be made durable");
    wait_until("deliveries or outcomes that find no room", Duration::from_secs(30), || {
        no_room() || setup.queued() == Some(0.0)
    });
    println!("disk full: {:?} of 20 still queued, outcomes found no room: {}", setup.queued(), no_room());
    assert!(arrived(&hops).values().all(|copies| *copies == 1));
    mail_is_turned_away(&setup);

    // room again: not before there is an eighth more than min_free
    disk.leave(MIN_FREE * MIB + MIB / 2);
    setup.wait_until_delivered();
    let all: Vec<_> = [for_primary, for_secondary].concat();
    assert_once(&hops, &all);
    let before = setup.node.metric("fingerpost_spool_free_bytes");
    wait_until("free space is looked at", Duration::from_secs(10), || {
        setup.node.metric("fingerpost_spool_free_bytes") != before
            || before.is_some_and(|free| free > (MIN_FREE * MIB) as f64)
    });
    mail_is_turned_away(&setup);
    fs::remove_file(disk.0.join("filler")).unwrap();
    pressure(&setup, TAKEN);
    let later = accept(&setup, "later", "known", 5);
    setup.wait_until_delivered();
    assert_once(&hops, &[all, later].concat());
}

#[test]
fn a_start_on_a_full_disk_is_quick_and_delivers_what_waits() {
    let mut setup = StorageSetup::prepare(&Settings { min_free: "8MiB", ..Settings::default() });
    let Some(disk) = SmallFileSystem::mount(&setup.node.path("state")) else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    setup.node.start();
    let tokens = accept(&setup, "start", "known", 20);
    setup.node.kill();
    disk.fill();
    let begun = Instant::now();
    setup.node.start_under_pressure();
    println!("listening on a full disk after {:.2?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "the spool's reserve is for this");
    pressure(&setup, TURNED_AWAY); // free space is looked at for the first time just after that
    mail_is_turned_away(&setup);
    let hops = setup.hops(&quiet());
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}

#[test]
fn a_start_without_any_room_is_refused_and_harms_nothing() {
    let mut setup = StorageSetup::prepare(&Settings { min_free: "8MiB", ..Settings::default() });
    let Some(disk) = SmallFileSystem::mount(&setup.node.path("state")) else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    setup.node.start();
    let tokens = accept(&setup, "start", "known", 20);
    setup.node.stop(); // what it had written ahead is given back
    for name in ["reserve", "reserve-start"] {
        fs::remove_file(setup.node.path(&format!("state/spool/{name}"))).unwrap();
    }
    disk.fill();
    for _ in 0..2 {
        setup.node.launch();
        assert_eq!(setup.node.ended(Duration::from_secs(20)), Some(2), "{}", setup.node.log());
        assert!(setup.node.log().contains("No space left"), "{}", setup.node.log());
    }
    fs::remove_file(disk.0.join("filler")).unwrap();
    let hops = setup.hops(&quiet());
    setup.node.start();
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}

/// Begins a letter; `None`: it is turned away at MAIL.
fn begin(setup: &StorageSetup, parameters: &str) -> Option<Raw> {
    let mut raw = Raw::hello(setup.node.smtp);
    if raw.say(&format!("MAIL FROM:<s@sender.test>{parameters}")).0 != 250 {
        return None;
    }
    assert_eq!(raw.say("RCPT TO:<known1@contoso.test>").0, 250);
    assert_eq!(raw.say("DATA").0, 354);
    raw.send(b"Subject: half\r\n\r\n");
    Some(raw)
}

#[test]
fn half_sent_messages_do_not_fill_the_disk_and_give_way() {
    let mut setup = StorageSetup::prepare(&Settings { min_free: "8MiB", ..Settings::default() });
    let Some(disk) = SmallFileSystem::mount(&setup.node.path("state")) else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    setup.node.start();
    pressure(&setup, TAKEN);
    // Who only announces much takes nothing from others, but has to have room himself.
    let announced: Vec<Raw> = (0..20).map(|_| begin(&setup, " SIZE=9000000").expect("room for each")).collect();
    assert!(begin(&setup, " SIZE=30000000").is_none(), "it would not fit");
    drop(announced);

    // 60 MiB where there is room for less than 16, half of each first.
    let mut open: Vec<Raw> = (0..10).map(|_| begin(&setup, "").expect("room")).collect();
    let half = [&[b'x'; 1022][..], b"\r\n"].concat().repeat(3 << 10);
    let mut lowest = u64::MAX;
    for raw in &mut open {
        raw.send(&half);
        lowest = lowest.min(disk.free());
    }
    for raw in &mut open {
        raw.send(&half);
        lowest = lowest.min(disk.free());
    }
    let codes: Vec<u16> = open.iter_mut().map(|raw| raw.say(".").0).collect();
    lowest = lowest.min(disk.free());
    println!("lowest: {lowest} bytes free; {codes:?}");
    assert!(lowest >= MIN_FREE * MIB, "{lowest} bytes free");
    assert!(codes.contains(&452), "{codes:?}");
    assert!(codes.iter().all(|code| [250, 452].contains(code)), "{codes:?}");
    drop(open);
    let _hops = setup.hops(&quiet());
    wait_until("what was accepted is delivered", Duration::from_secs(30), || setup.queued() == Some(0.0));
    pressure(&setup, TAKEN);
    accept(&setup, "later", "known", 5);
}
