//! A next hop that takes connections, begins a conversation and then says nothing, beside one that is idle.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;
use tokio::task::JoinSet;
use tokio::time::Instant;

use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

/// Connections of the connector, and how many of them may wait at a silent host.
const ALL: usize = 20;
const FEW: usize = 2;

/// Two next hops, the first one first, and who sends there.
struct TwoHops {
    first: ScriptedSmtpServer,
    second: ScriptedSmtpServer,
    outbound: Outbound,
    sending: JoinSet<Vec<String>>,
}

impl TwoHops {
    async fn start(first: &str, second: &str) -> Self {
        let (first, second) =
            (ScriptedSmtpServer::start(first, None).await, ScriptedSmtpServer::start(second, None).await);
        Self { first, second, outbound: Outbound::new(Metrics::new()), sending: JoinSet::new() }
    }

    /// Begins to send so many messages, with all places that there are.
    fn send(&mut self, messages: usize, connections: usize) {
        let mut out = connector(smtp_out(vec![smart_host(self.first.address), smart_host(self.second.address)]));
        out.max_connections = connections;
        let out = Arc::new(out);
        for _ in 0..messages {
            let (outbound, out) = (self.outbound.clone(), out.clone());
            self.sending.spawn(async move { in_words(&Letter::to(&["a@contoso.com"]).send(&outbound, &out).await) });
        }
    }

    fn taken(&self) -> (usize, usize) {
        (self.first.contents().len(), self.second.contents().len())
    }

    /// Waits until the next hops have so many.
    async fn have(&self, taken: (usize, usize)) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.taken() != taken {
            assert!(Instant::now() < until, "{:?} instead of {taken:?}", self.taken());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All are sent, and accepted.
    async fn all_accepted(&mut self) {
        while let Some(told) = self.sending.join_next().await {
            assert_eq!(told.unwrap(), ["accepted 250 2.0.0 queued"]);
        }
    }
}

async fn a_few_wait(step: &str) {
    let mut two = TwoHops::start(&format!("{step} => wait"), "").await;
    two.send(100, ALL);
    two.have((0, 100 - FEW)).await;
    // Who came first, and a test of the host.
    let connections = two.first.seen().len();
    assert!((ALL..=ALL + 1).contains(&connections), "{step}: {connections} connections");
    two.first.follow("");
    two.all_accepted().await;
    assert_eq!(two.taken(), (FEW, 100 - FEW), "{step}: each once");
    two.send(10, ALL);
    two.all_accepted().await;
    assert_eq!(two.taken(), (FEW + 10, 100 - FEW), "{step}: it answers again, and is the first");
}

#[tokio::test]
async fn at_mail_a_few_wait_and_the_rest_goes_by_the_other() {
    a_few_wait("mail").await;
}

#[tokio::test]
async fn at_rcpt_a_few_wait_and_the_rest_goes_by_the_other() {
    a_few_wait("rcpt").await;
}

#[tokio::test]
async fn at_data_a_few_wait_and_the_rest_goes_by_the_other() {
    a_few_wait("data").await;
}

/// They may have arrived, so they wait; but the connections are there for others.
#[tokio::test]
async fn at_the_dot_those_who_are_there_wait_and_the_rest_goes_by_the_other() {
    let mut two = TwoHops::start("dot => wait", "").await;
    two.send(100, ALL);
    two.have((ALL, 100 - ALL)).await;
    two.first.follow("");
    two.all_accepted().await;
    assert_eq!(two.taken(), (ALL, 100 - ALL), "each once");
    two.send(ALL, ALL);
    two.all_accepted().await;
    assert_eq!(two.taken(), (2 * ALL, 100 - ALL));
}

#[tokio::test]
async fn one_connection_is_not_kept_by_a_silent_host() {
    let mut two = TwoHops::start("rcpt => wait", "").await;
    two.send(10, 1);
    two.have((0, 10)).await;
    two.all_accepted().await;
    assert!(two.first.seen().len() <= 2, "{:?}", two.first.seen());
}

#[tokio::test]
async fn connections_from_the_pool_are_left_too() {
    let mut two = TwoHops::start("rcpt => after 100 250 ok", "").await;
    two.send(ALL, ALL);
    two.all_accepted().await;
    assert_eq!(two.taken(), (ALL, 0));
    two.first.follow("rcpt => wait");
    two.send(60, ALL);
    two.have((ALL, 60 - FEW)).await;
    two.first.follow("");
    two.all_accepted().await;
    assert_eq!(two.taken(), (ALL + FEW, 60 - FEW));
}

#[tokio::test]
async fn where_all_are_silent_all_wait() {
    let mut two = TwoHops::start("rcpt => wait", "rcpt => wait").await;
    two.send(40, ALL);
    let asked = |hop: &ScriptedSmtpServer| hop.commands("RCPT").len();
    let until = Instant::now() + Duration::from_secs(60);
    while (asked(&two.first), asked(&two.second)) != (ALL, ALL - FEW) {
        assert!(Instant::now() < until, "{} {}", asked(&two.first), asked(&two.second));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // They are not sent to and fro.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!((asked(&two.first), asked(&two.second)), (ALL, ALL - FEW));
    two.second.follow("");
    two.have((0, 40 - FEW)).await;
    two.first.follow("");
    two.all_accepted().await;
    assert_eq!(two.taken(), (FEW, 40 - FEW));
}

#[tokio::test]
async fn a_host_that_is_only_slow_is_the_first_again() {
    let mut two = TwoHops::start("rcpt => after 7000 250 ok", "").await;
    two.send(ALL, ALL);
    two.have((FEW, ALL - FEW)).await;
    two.all_accepted().await;
    // It is known to be slow now.
    two.send(ALL, ALL);
    two.all_accepted().await;
    assert_eq!(two.taken(), (FEW + ALL, ALL - FEW));
}

/// Some recipients take long, others do not: that is no silence.
#[tokio::test]
async fn a_host_that_does_its_work_is_not_left() {
    let mut two = TwoHops::start("first: rcpt => wait\nrcpt => after 1000 250 ok", "").await;
    two.send(100, ALL);
    two.have((99, 0)).await;
    two.first.follow("");
    two.all_accepted().await;
    assert_eq!(two.taken(), (100, 0));
}
