//! Between a next hop's 250 and its durable outcome: while the log cannot be written nothing is delivered a second
//! time, and a `kill -9` in that moment costs one more copy at most.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::power::fixture::{Settings, StorageSetup, arrived, assert_once, send, token};
use support::senders::Raw;
use support::sink::OnMessage;
use support::wait_until;

const MESSAGES: usize = 10;

/// A next hop that has read each message and waits with its 250 until it may go on.
#[derive(Default)]
struct Gate {
    waiting: Mutex<(usize, bool)>,
    opened: Condvar,
}

impl Gate {
    fn on_message(self: &Arc<Self>) -> OnMessage {
        let gate = self.clone();
        Arc::new(move |_| {
            let mut state = gate.waiting.lock().unwrap();
            state.0 += 1;
            drop(gate.opened.wait_while(state, |(_, open)| !*open).unwrap());
        })
    }

    fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().0
    }

    fn open(&self) {
        self.waiting.lock().unwrap().1 = true;
        self.opened.notify_all();
    }
}

/// A node whose next hop has taken all messages while its log had this fault.
fn taken_without_outcome(fault: &str) -> (StorageSetup, [support::sink::Sink; 2], Vec<String>) {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.shim();
    let gate = Arc::new(Gate::default());
    let hops = setup.hops(&gate.on_message());
    setup.node.start();
    let tokens: Vec<_> = (0..MESSAGES).map(|n| token("outcome", n, 1500)).collect();
    let mut raw = Raw::hello(setup.node.smtp);
    for (n, token) in tokens.iter().enumerate() {
        assert!(send(&mut raw, &format!("known{n}@contoso.test"), token).is_ok());
    }
    wait_until("the next hop has read them all", Duration::from_secs(20), || gate.waiting() == MESSAGES);
    setup.fault(fault);
    gate.open();
    wait_until("every outcome was tried", Duration::from_secs(20), || {
        setup.node.log().matches("an outcome cannot be made durable").count() >= MESSAGES
    });
    assert_once(&hops, &tokens);
    (setup, hops, tokens)
}

#[test]
fn an_outcome_that_cannot_be_written_is_no_second_delivery() {
    for fault in ["write /segments/", "sync /segments/"] {
        let (setup, hops, tokens) = taken_without_outcome(fault);
        let tried = || setup.node.log().matches("an outcome cannot be made durable").count();
        wait_until("outcomes are tried again", Duration::from_secs(20), || tried() >= 2 * MESSAGES);
        setup.fault("");
        setup.wait_until_delivered();
        assert_once(&hops, &tokens);
        println!("{fault} fails: {MESSAGES} messages, once each");
    }
}

#[test]
fn kill_9_between_a_250_and_its_outcome_costs_one_copy_at_most() {
    let (mut setup, hops, tokens) = taken_without_outcome("write /segments/");
    setup.node.kill();
    setup.fault("");
    setup.node.start();
    setup.wait_until_delivered();
    let copies = arrived(&hops);
    println!("{} messages, {} copies", copies.len(), copies.values().sum::<usize>());
    assert_eq!(copies.len(), tokens.len());
    assert!(copies.values().all(|copies| *copies == 2), "their outcomes could not be known: {copies:?}");
    setup.node.kill();
    setup.node.start();
    setup.wait_until_delivered();
    assert_eq!(arrived(&hops), copies, "and no more than that");
}
