//! Next hops in turn, next hops that fail once or for good, and how many connections are kept.

use fingerpost::config::{Select, SendConnector, SmtpOut, Speaks};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;

use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

const ACCEPTED: &str = "accepted 250 2.0.0 queued";
/// A next hop that takes nothing any more, on new connections and old ones.
const GONE: &str = "greeting => drop\nmail => drop";

struct OutboundSetup {
    metrics: Metrics,
    outbound: Outbound,
    connector: SendConnector,
}

impl OutboundSetup {
    fn to(smtp: SmtpOut) -> Self {
        let metrics = Metrics::new();
        Self { outbound: Outbound::new(metrics.clone()), metrics, connector: connector(smtp) }
    }

    async fn send(&self) -> String {
        in_words(&Letter::to(&["a@contoso.com"]).send(&self.outbound, &self.connector).await).remove(0)
    }

    async fn is_accepted(&self, times: usize) {
        for _ in 0..times {
            assert_eq!(self.send().await, ACCEPTED);
        }
    }

    fn up(&self, hop: &ScriptedSmtpServer) -> i64 {
        self.metrics.next_hop_up.with_label_values(&["out", &smart_host(hop.address).to_string()]).get()
    }
}

async fn three(select: Select) -> ([ScriptedSmtpServer; 3], OutboundSetup) {
    let hops = [
        ScriptedSmtpServer::start("", None).await,
        ScriptedSmtpServer::start("", None).await,
        ScriptedSmtpServer::start("", None).await,
    ];
    let smart_hosts = hops.iter().map(|hop| smart_host(hop.address)).collect();
    (hops, OutboundSetup::to(SmtpOut { select, ..smtp_out(smart_hosts) }))
}

fn taken(hops: &[ScriptedSmtpServer; 3]) -> [usize; 3] {
    [&hops[0], &hops[1], &hops[2]].map(|hop| hop.contents().len())
}

#[tokio::test]
async fn failover_uses_the_first_and_round_robin_all_in_turn() {
    for (select, shares) in [(Select::Failover, [6, 0, 0]), (Select::RoundRobin, [2, 2, 2])] {
        let (hops, setup) = three(select).await;
        setup.is_accepted(6).await;
        assert_eq!(taken(&hops), shares, "{select:?}");
    }
}

#[tokio::test]
async fn one_that_is_down_keeps_the_code_and_the_words_of_its_failure() {
    for (script, told) in [
        ("greeting => 554 5.7.1 go away", "deferred 451 4.7.1"),
        ("greeting => 554 go away", "deferred 451 4.4.1"),
        ("ehlo => 421 4.3.2 go away", "deferred 451 4.3.2"),
    ] {
        let hop = ScriptedSmtpServer::start(script, None).await;
        let setup = OutboundSetup::to(smtp_out(vec![smart_host(hop.address)]));
        let first = setup.send().await;
        assert!(first.starts_with(told) && first.ends_with("go away") && !first.contains("is down"), "{first}");
        let next = setup.send().await;
        assert!(next.starts_with(told) && next.ends_with("go away") && next.contains("is down"), "{next}");
    }
}

#[tokio::test]
async fn those_beside_one_that_is_down_share_its_turns() {
    let (hops, setup) = three(Select::RoundRobin).await;
    setup.is_accepted(3).await;
    hops[1].follow(GONE);
    // Its next turns find it out.
    while setup.up(&hops[1]) == 1 {
        setup.is_accepted(1).await;
    }
    let before = taken(&hops);
    setup.is_accepted(10).await;
    let after = taken(&hops);
    assert_eq!([0, 1, 2].map(|n| after[n] - before[n]), [5, 0, 5]);
}

#[tokio::test]
async fn one_failure_after_an_answer_is_no_outage() {
    let hop = ScriptedSmtpServer::start("", None).await;
    let setup = OutboundSetup::to(smtp_out(vec![smart_host(hop.address)]));
    setup.is_accepted(1).await;
    hop.follow(GONE);
    assert!(setup.send().await.starts_with("deferred 451"));
    assert_eq!(setup.up(&hop), 1);
    hop.follow("");
    setup.is_accepted(1).await;
    hop.follow(GONE);
    for up in [1, 0] {
        assert!(setup.send().await.starts_with("deferred 451"));
        assert_eq!(setup.up(&hop), up);
    }
    assert!(setup.send().await.contains("is down"));
}

#[tokio::test]
async fn a_421_on_an_idle_connection_is_no_failure() {
    let hop = ScriptedSmtpServer::start("", None).await;
    let setup = OutboundSetup::to(smtp_out(vec![smart_host(hop.address)]));
    setup.is_accepted(1).await;
    hop.follow("first: mail => 421 4.4.2 idle too long");
    setup.is_accepted(1).await;
    assert_eq!(hop.seen().len(), 2);
    // Were it counted, this would be the second in a row.
    hop.follow(GONE);
    assert!(setup.send().await.starts_with("deferred 451"));
    assert_eq!(setup.up(&hop), 1);
    hop.follow("");
    setup.is_accepted(1).await;
}

#[tokio::test]
async fn a_connector_has_as_many_connections_as_it_may_have() {
    let hop = ScriptedSmtpServer::start("dot => wait", None).await;
    let mut setup = OutboundSetup::to(smtp_out(vec![smart_host(hop.address)]));
    setup.connector.max_connections = 2;
    let (sends, ()) = tokio::join!(async { tokio::join!(setup.send(), setup.send(), setup.send()) }, async {
        while hop.commands("DATA").len() < 2 {
            tokio::task::yield_now().await;
        }
        hop.follow("");
    });
    assert_eq!([sends.0, sends.1, sends.2], [ACCEPTED; 3]);
    setup.is_accepted(2).await;
    assert_eq!((hop.commands("QUIT").len(), hop.seen().len()), (0, 2), "the third waits for one of the two");
}

#[tokio::test]
async fn lmtp_says_lhlo_and_never_helo() {
    let lmtp = |hop: &ScriptedSmtpServer| SmtpOut { speaks: Speaks::Lmtp, ..smtp_out(vec![smart_host(hop.address)]) };
    let hop = ScriptedSmtpServer::start("lhlo => 250-next.hop\\n250 PIPELINING", None).await;
    let setup = OutboundSetup::to(lmtp(&hop));
    for _ in 0..2 {
        assert_eq!(setup.send().await, "accepted 250 2.0.0 delivered");
    }
    assert_eq!(hop.commands("LHLO"), ["LHLO mx.contoso.com"]);
    let hop = ScriptedSmtpServer::start("lhlo => 500 5.5.1 what", None).await;
    let told = OutboundSetup::to(lmtp(&hop)).send().await;
    assert!(told.starts_with("deferred 451 4.5.1") && told.contains("500 5.5.1 what"), "{told}");
    assert_eq!(hop.seen()[0].lines, ["LHLO mx.contoso.com"]);
}
