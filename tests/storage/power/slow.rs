//! A disk that takes 50 ms for each sync: no 250 comes earlier, many share one, and a client that does not wait for
//! its 250 changes nothing.

use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use crate::power::fixture::{Settings, StorageSetup, assert_once, letter, quiet, recipient, send, token};
use support::senders::{Letter, Raw};

const SLOW: Duration = Duration::from_millis(50);

fn slow_setup() -> StorageSetup {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.shim();
    setup.node.set_environment("SHIM_DELAY_MS", &SLOW.as_millis().to_string());
    setup.node.start();
    setup
}

/// A session that has sent everything but the final dot.
fn before_the_dot(setup: &StorageSetup, n: usize, token: &str) -> Raw {
    let mut raw = Raw::hello(setup.node.smtp);
    assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
    assert_eq!(raw.say(&format!("RCPT TO:<{}>", recipient(n))).0, 250);
    assert_eq!(raw.say("DATA").0, 354);
    raw.send(&letter(token));
    raw
}

/// From the final dot to its reply.
fn end(raw: &mut Raw) -> Duration {
    let begun = Instant::now();
    raw.send(b".\r\n");
    assert_eq!(raw.reply().0, 250);
    begun.elapsed()
}

#[test]
fn no_250_comes_before_its_sync() {
    let setup = slow_setup();
    let mut took = Vec::new();
    let tokens: Vec<_> = (0..10).map(|n| token("slow", n, [800, 300_000][n % 2])).collect();
    for (n, token) in tokens.iter().enumerate() {
        took.push(end(&mut before_the_dot(&setup, n, token)));
    }
    println!("a sync takes {SLOW:?}; from the final dot to the 250, one session at a time: {took:.0?}");
    assert!(took.iter().all(|took| *took >= SLOW), "a 250 came before its sync: {took:?}");
    let hops = setup.hops(&quiet());
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}

#[test]
fn sessions_share_syncs() {
    const SESSIONS: usize = 20;
    let setup = slow_setup();
    let tokens: Vec<_> = (0..SESSIONS).map(|n| token("share", n, 2000)).collect();
    let (all_there, took) = (Barrier::new(SESSIONS + 1), Mutex::new(Vec::new()));
    let mut begun = Instant::now();
    std::thread::scope(|scope| {
        for (n, token) in tokens.iter().enumerate() {
            let (setup, all_there, took) = (&setup, &all_there, &took);
            scope.spawn(move || {
                let mut raw = before_the_dot(setup, n, token);
                all_there.wait();
                let one = end(&mut raw);
                took.lock().unwrap().push(one);
            });
        }
        all_there.wait();
        begun = Instant::now();
    });
    let (all, took) = (begun.elapsed(), took.into_inner().unwrap());
    let shortest = took.iter().min().unwrap();
    println!("{SESSIONS} sessions at once: all 250s after {all:.0?}, the first after {shortest:.0?}");
    assert!(*shortest >= SLOW, "a 250 came before its sync");
    assert!(all < SLOW * 20 * 3 / 4, "{SESSIONS} messages took {all:?}: they do not share syncs");
    let hops = setup.hops(&quiet());
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}

#[test]
fn what_a_client_has_ended_is_delivered_though_it_left() {
    let setup = slow_setup();
    let hops = setup.hops(&quiet());
    let tokens: Arc<Vec<_>> = Arc::new((0..20).map(|n| token("left", n, [900, 300_000][n % 2])).collect());
    let mut sessions: Vec<_> = tokens.iter().enumerate().map(|(n, token)| before_the_dot(&setup, n, token)).collect();
    sessions.iter_mut().for_each(|raw| raw.send(b".\r\n"));
    drop(sessions);
    support::wait_until("20 messages of clients that left", Duration::from_secs(20), || {
        crate::power::fixture::arrived(&hops).len() == tokens.len()
    });
    setup.wait_until_delivered();
    assert_once(&hops, &tokens);
}

#[test]
fn what_a_client_pipelines_before_it_leaves_is_delivered() {
    let setup = slow_setup();
    let hops = setup.hops(&quiet());
    let token = token("pipelined", 0, 5000);
    let bytes = letter(&token);
    let mut raw = Raw::hello(setup.node.smtp);
    let to = recipient(0);
    let letter = Letter { from: "s@sender.test", to: &[&to], bytes: &bytes };
    raw.send(format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", letter.from, letter.to[0]).as_bytes());
    assert_eq!([raw.reply().0, raw.reply().0, raw.reply().0], [250, 250, 354]);
    raw.send(&[letter.bytes, b".\r\nQUIT\r\n"].concat());
    drop(raw);
    setup.wait_until_delivered();
    support::wait_until("it arrives", Duration::from_secs(20), || crate::power::fixture::arrived(&hops).len() == 1);
    assert_eq!(
        send(&mut Raw::hello(setup.node.smtp), &to, &crate::power::fixture::token("after", 0, 900)).map(|_| ()),
        Ok(())
    );
}
