//! SIGTERM: sessions under way may end, all are told, and the process is gone within `drain_timeout`; and one state
//! folder is one process's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::power::fixture::{Settings, StorageSetup, arrived, assert_once, letter, quiet, recipient, token};
use support::senders::Raw;
use support::sink::OnMessage;
use support::wait_until;

const DRAIN: Duration = Duration::from_secs(2);
/// What a stop may take beyond `drain_timeout` on a machine that is busy with other tests.
const A_LITTLE: Duration = Duration::from_millis(1500);

/// A session in the midst of its DATA: what is still to be sent.
fn in_data(setup: &StorageSetup, n: usize, token: &str) -> (Raw, Vec<u8>) {
    let mut raw = Raw::hello(setup.node.smtp);
    assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
    assert_eq!(raw.say(&format!("RCPT TO:<{}>", recipient(n))).0, 250);
    assert_eq!(raw.say("DATA").0, 354);
    let mut bytes = letter(token);
    let rest = bytes.split_off(bytes.len() / 2);
    raw.send(&bytes);
    (raw, [&rest[..], b".\r\n"].concat())
}

#[test]
fn sigterm_in_the_midst_of_50_sessions() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    let hops = setup.hops(&quiet());
    setup.node.start();
    let tokens: Vec<_> = (0..30).map(|n| token("term", n, 20_000)).collect();
    let mut ending: Vec<_> = tokens.iter().enumerate().map(|(n, token)| in_data(&setup, n, token)).collect();
    let mut stalled: Vec<_> = (30..40).map(|n| in_data(&setup, n, &token("stalled", n, 20_000)).0).collect();
    let mut idle: Vec<_> = (40..50).map(|_| Raw::hello(setup.node.smtp)).collect();
    setup.node.signal("TERM");
    let begun = Instant::now();
    for raw in &mut idle {
        assert_eq!(raw.reply().0, 421, "a session without a transaction is told at once");
    }
    let mut accepted = Vec::new();
    for ((raw, rest), token) in ending.iter_mut().zip(&tokens) {
        raw.send(rest);
        match raw.reply().0 {
            250 => accepted.push(token.clone()),
            0 | 421 => {}
            code => panic!("{token}: {code}"),
        }
    }
    for raw in &mut stalled {
        assert!(matches!(raw.reply().0, 0 | 421), "a session that does not end is told, or its connection closed");
    }
    let code = setup.node.ended(DRAIN + A_LITTLE - begun.elapsed().min(DRAIN));
    let took = begun.elapsed();
    println!("50 sessions: {} got 250; the process ended after {took:.1?} with {code:?}", accepted.len());
    assert_eq!(code, Some(0));
    assert_eq!(accepted.len(), 30, "transactions under way may end");
    setup.node.start();
    setup.wait_until_delivered();
    assert_once(&hops, &accepted);
}

#[test]
fn a_next_hop_that_hangs_and_a_client_that_stalls_do_not_add_up() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    let (taken, waiting) = std::sync::mpsc::channel();
    let taken = std::sync::Mutex::new(taken);
    let hang: OnMessage = Arc::new(move |_| {
        taken.lock().unwrap().send(()).unwrap();
        std::thread::park_timeout(Duration::from_secs(30));
    });
    let hops = setup.hops(&hang);
    setup.node.start();
    let token_sent = token("hang", 0, 2000);
    let (mut raw, rest) = in_data(&setup, 0, &token_sent);
    raw.send(&rest);
    assert_eq!(raw.reply().0, 250);
    waiting.recv_timeout(Duration::from_secs(10)).unwrap();
    let _stalled = in_data(&setup, 1, &token("stalled", 1, 2000));
    setup.node.signal("TERM");
    let begun = Instant::now();
    let code = setup.node.ended(2 * DRAIN + A_LITTLE);
    println!("a hanging next hop and a stalled client: ended after {:.1?}", begun.elapsed());
    assert_eq!(code, Some(0));
    assert!(begun.elapsed() < DRAIN + A_LITTLE, "it took {:?}", begun.elapsed());
    drop(hops);
}

#[test]
fn a_state_folder_belongs_to_one_process() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.node.start();
    let output = setup.node.run(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| !line.contains(" WARN ")).collect();
    assert_eq!(errors.len(), 1, "one line: {said}");
    assert!(said.contains("is in use by process"), "{said}");
    let hops = setup.hops(&quiet());
    let token = token("first", 0, 900);
    let (mut raw, rest) = in_data(&setup, 0, &token);
    raw.send(&rest);
    assert_eq!(raw.reply().0, 250, "the first one goes on");
    wait_until("it arrives", Duration::from_secs(10), || arrived(&hops).len() == 1);
}
