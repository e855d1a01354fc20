//! LMTP to a real Dovecot, over TCP and over its Unix socket: RFC 2033's answer for each recipient, as the mailbox, the
//! queue and the sender see it. From the queue here, as part of the conversation in `cut_through`.

mod cut_through;

use support::dovecot::{Dovecot, User};
use support::test_network::{BY_HAND, PEOPLE, SOON, TestNetwork, domain};
use support::wait_until;

const ALICE: &str = "alice@c.test";
const BOB: &str = "bob@c.test";
/// In the directory, and not in Dovecot.
const GONE: &str = "gone@c.test";
/// In neither; mail for the domain is relayed to Dovecot.
const NOBODY: &str = "nobody@relayed.test";
/// A mailbox that has no room for any message.
const FULL: &str = "full@c.test";
const SENDER: &str = "ann@outside.test";

/// How the connector reaches Dovecot.
#[derive(Debug, Clone, Copy)]
enum Transport {
    Tcp,
    Socket,
}

struct Store {
    network: TestNetwork,
    dovecot: Dovecot,
}

/// Who has a mailbox; that of [`FULL`] holds so many bytes.
fn users(room: u64) -> [User<'static>; 3] {
    [(ALICE, 0), (BOB, 0), (FULL, room)].map(|(address, quota)| User { address, quota })
}

/// The same and [`GONE`], whom the store learns of later than the directory.
fn users_with_gone() -> Vec<User<'static>> {
    users(100).into_iter().chain([User { address: GONE, quota: 0 }]).collect()
}

/// A network whose people have their mailboxes in Dovecot, which the queue delivers to; `settings` are further lines of the
/// connector.
fn store(over: Transport, settings: &str) -> Store {
    store_in(Dovecot::start(&users(100)), over, &format!("delivery = \"queue\"\n{settings}"))
}

/// The same with this instance; nothing is said of `delivery`.
fn store_in(dovecot: Dovecot, over: Transport, settings: &str) -> Store {
    let smart_host = match over {
        Transport::Tcp => format!("[{}]:{}", dovecot.address().ip(), dovecot.address().port()),
        Transport::Socket => format!("unix:{}", dovecot.socket().display()),
    };
    let mut network = TestNetwork::prepare();
    network.node.write("people.csv", &format!("address\n{ALICE}\n{BOB}\n{GONE}\n{FULL}\n"));
    let connector = format!(
        "[[send_connector]]\nname = \"dovecot\"\norganization = \"primary\"\nprotocol = \"lmtp\"\n\
         smart_hosts = [\"{smart_host}\"]\naddress_spaces = [{{ domain = \"relayed.test\" }}]\n{settings}\n\n"
    );
    let domains = domain("c.test", "authoritative", "dovecot") + &domain("relayed.test", "internal-relay", "senders");
    network.start(&format!("{PEOPLE}{connector}{domains}"));
    Store { network, dovecot }
}

impl Store {
    fn has(&self, address: &str, messages: usize) {
        wait_until(&format!("{messages} messages for {address}"), SOON, || {
            self.dovecot.mails(address).len() == messages
        });
    }

    /// The one report that the sender gets.
    fn report(&self) -> support::test_network::Report {
        wait_until("a report", SOON, || !self.network.reports(SENDER).is_empty());
        let mut reports = self.network.reports(SENDER);
        assert_eq!(reports.len(), 1, "{reports:?}");
        reports.remove(0)
    }
}

#[test]
fn mail_reaches_the_mailbox_over_tcp_and_over_the_socket() {
    for over in [Transport::Tcp, Transport::Socket] {
        let store = store(over, BY_HAND);
        for _ in 0..3 {
            store.network.send(SENDER, &[ALICE]);
        }
        store.has(ALICE, 3);
        store.network.quiet();
        let mail = &store.dovecot.mails(ALICE)[0];
        assert_eq!(mail.field("Return-Path").as_deref(), Some("<ann@outside.test>"));
        assert_eq!(mail.field("Delivered-To").as_deref(), Some(ALICE));
        assert!(mail.header().contains("with LMTP"), "{over:?}: {}", mail.header());
        assert_eq!(mail.body(), b"Hello.\r\n");
        assert!(store.network.senders.all().is_empty(), "{over:?}: somebody was told something");
        assert_eq!(
            store.network.node.metric("fingerpost_deliveries_total{result=\"delivered\",send_connector=\"dovecot\"}"),
            Some(3.0)
        );
    }
}

#[test]
fn a_recipient_that_the_store_does_not_know_is_reported() {
    let store = store(Transport::Socket, BY_HAND);
    store.network.send(SENDER, &[NOBODY]);
    let report = store.report();
    assert_eq!(report.fields("Status"), ["5.1.1"], "{report:?}");
    assert_eq!(report.fields("Final-Recipient"), [format!("rfc822; {NOBODY}")]);
    // No host: that is a path on our disk.
    assert_eq!(report.fields("Remote-MTA"), [""; 0]);
    assert!(!report.has("unix:"), "{report:?}");
    store.network.quiet();
}

#[test]
fn whom_the_directory_has_waits_until_the_store_knows_him() {
    for over in [Transport::Tcp, Transport::Socket] {
        let store = store(over, BY_HAND);
        store.network.send(SENDER, &[GONE]);
        let shown = store.network.waits(GONE, "the next hop said: 550 5.1.1");
        assert!(shown["last_error"].as_str().unwrap().contains("451 4.3.0"), "{shown}");
        store.dovecot.write_users(&users_with_gone());
        store.network.deliver();
        store.has(GONE, 1);
        assert!(store.network.senders.all().is_empty(), "{over:?}: somebody was told something");
    }
}

#[test]
fn a_full_mailbox_is_reported_or_waits_as_the_store_says() {
    let store = store(Transport::Tcp, BY_HAND);
    store.network.send(SENDER, &[FULL]);
    let report = store.report();
    assert_eq!(report.fields("Status"), ["5.2.2"], "{report:?}");
    assert_eq!(report.fields("Final-Recipient"), [format!("rfc822; {FULL}")]);
    store.network.quiet();
    assert!(store.dovecot.mails(FULL).is_empty());
}

/// RFC 2033 4.2: after the dot there is a reply for every recipient that was accepted, in their order.
#[test]
fn each_recipient_has_its_own_answer() {
    for over in [Transport::Tcp, Transport::Socket] {
        let store = store(over, BY_HAND);
        store.network.send(SENDER, &[ALICE, FULL, GONE, BOB]);
        store.has(ALICE, 1);
        store.has(BOB, 1);
        store.network.waits(GONE, "the next hop said: 550 5.1.1");
        assert_eq!(store.report().fields("Final-Recipient"), [format!("rfc822; {FULL}")], "{over:?}");
        store.dovecot.write_users(&users_with_gone());
        store.network.deliver();
        store.has(GONE, 1);
        // The connection goes on in step.
        store.network.send(SENDER, &[BOB]);
        store.has(BOB, 2);
        assert_eq!(store.dovecot.mails(ALICE).len(), 1, "{over:?}: doubled");
    }
}

#[test]
fn mail_waits_while_the_store_is_down() {
    for over in [Transport::Tcp, Transport::Socket] {
        let mut store = store(over, BY_HAND);
        store.dovecot.pause();
        store.network.send(SENDER, &[ALICE]);
        store.network.waits(ALICE, "cannot connect to");
        let label = store.network.node.get("/metrics").unwrap().1;
        assert!(
            label
                .lines()
                .any(|line| line.starts_with("fingerpost_next_hop_up{send_connector=\"dovecot\"")
                    && line.ends_with(" 0"))
        );
        store.dovecot.resume();
        store.network.deliver();
        store.has(ALICE, 1);
        assert!(store.network.senders.all().is_empty());
    }
}

#[test]
fn a_report_does_not_name_our_socket() {
    let mut store =
        store(Transport::Socket, "retry = { first = \"1s\", factor = 1.0, max = \"1s\", give_up_after = \"2s\" }");
    store.dovecot.pause();
    store.network.send(SENDER, &[ALICE]);
    let report = store.report();
    assert!(report.has("cannot connect to [hidden]") && !report.has("unix:"), "{report:?}");
}

#[test]
fn the_check_greets_it() {
    let store = store(Transport::Socket, BY_HAND);
    let check = store.network.node.run(&["check", "--connect"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.contains("next hop unix:") && line.starts_with("ok "))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("answers"), "{line}");
}
