//! Names of next hops, against a DNS server of our own: A, AAAA, MX, null MX, and DNS that fails.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use fingerpost::config::{Host, SmartHost, SmtpOut};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;
use fingerpost::smtp::domain::Domain;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::{TcpListener, UdpSocket};

use support::letter::{Letter, connector, in_words, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

const ACCEPTED: &str = "accepted 250 2.0.0 queued";

/// Records by name, as `A 127.0.0.1` or `MX 10 name.`, with `ttl=SECONDS` at the end where they live longer than the
/// question, or `once`, where the line stands for all until one question for it was answered; `SERVFAIL`, to every question or `SERVFAIL AAAA`; a name that is not there does not exist.
pub(crate) type Zone = Arc<Mutex<HashMap<String, Vec<&'static str>>>>;

pub(crate) async fn dns(zone: &[(&str, &[&'static str])]) -> (SocketAddr, Zone) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let zone: Zone =
        Arc::new(Mutex::new(zone.iter().map(|(name, data)| ((*name).to_owned(), data.to_vec())).collect()));
    let served = zone.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (read, client) = socket.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..read]).unwrap();
            let reply = answer(&query, &mut served.lock().unwrap());
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    });
    (address, zone)
}

fn answer(query: &Message, zone: &mut HashMap<String, Vec<&'static str>>) -> Message {
    let question = query.queries[0].clone();
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.add_query(question.clone());
    let Some(data) = zone.get_mut(&question.name().to_string().to_lowercase()) else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return reply;
    };
    let lines = match data.first() {
        Some(once) if once.ends_with(" once") && question.query_type() == RecordType::A => vec![data.remove(0)],
        Some(once) if once.ends_with(" once") => Vec::new(),
        _ => data.clone(),
    };
    for text in lines {
        let words: Vec<_> = text.split(' ').collect();
        let data = match (words[0], question.query_type()) {
            ("SERVFAIL", kind) if words.get(1).is_none_or(|only| *only == kind.to_string()) => {
                reply.metadata.response_code = ResponseCode::ServFail;
                continue;
            }
            ("A", RecordType::A) => RData::A(A(words[1].parse::<Ipv4Addr>().unwrap())),
            ("MX", RecordType::MX) => {
                RData::MX(MX::new(words[1].parse().unwrap(), Name::from_ascii(words[2]).unwrap()))
            }
            _ => continue,
        };
        // Without a time to live every question reaches us.
        let ttl = words.iter().find_map(|word| word.strip_prefix("ttl=")).map_or(0, |ttl| ttl.parse().unwrap());
        reply.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
    }
    reply
}

/// Settings that go by MX where there is no smart host.
pub(crate) fn by_name(smart_host: Option<(&str, u16)>, dns: SocketAddr) -> SmtpOut {
    let written = smart_host.map(|(name, port)| SmartHost::new(Host::Name(name.to_owned()), port));
    let mut smtp = smtp_out(written.into_iter().collect());
    smtp.dns_servers = vec![dns];
    smtp
}

async fn send(outbound: &Outbound, smtp: SmtpOut) -> String {
    let mut letter = Letter::to(&["a@contoso.com"]);
    letter.domain = Domain::parse("fabrikam.example").unwrap();
    let told = letter.send(outbound, &connector(smtp)).await;
    format!("{} by {}", in_words(&told)[0], told[0].next_hop)
}

/// Next hops on two loopback addresses and one port.
async fn hops(first: &str) -> (ScriptedSmtpServer, ScriptedSmtpServer, u16) {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(two) = TcpListener::bind(("127.0.0.9", port)).await {
            return (ScriptedSmtpServer::on(one, first, None), ScriptedSmtpServer::on(two, "", None), port);
        }
    }
}

#[tokio::test]
async fn a_name_with_several_addresses_is_tried_at_each() {
    let (one, two, port) = hops("greeting => 421 no").await;
    let (server, _) = dns(&[("gw.fabrikam.example.", &["A 127.0.0.1", "A 127.0.0.9"])]).await;
    let told = send(&Outbound::new(Metrics::new()), by_name(Some(("gw.fabrikam.example", port)), server)).await;
    assert_eq!(told, format!("{ACCEPTED} by gw.fabrikam.example[127.0.0.9]:{port}"));
    assert!(one.seen().len() <= 1);
    assert_eq!(two.contents().len(), 1);
}

#[tokio::test]
async fn a_smart_hosts_mx_is_followed_in_its_order() {
    let (one, two, port) = hops("greeting => 421 no").await;
    let zone: &[(&str, &[&str])] = &[
        ("fabrikam.example.", &["MX 20 b.fabrikam.example.", "MX 10 a.fabrikam.example.", "MX 30 mx.contoso.com."]),
        ("a.fabrikam.example.", &["A 127.0.0.1"]),
        ("b.fabrikam.example.", &["A 127.0.0.9"]),
    ];
    let (server, _) = dns(zone).await;
    let smtp = SmtpOut { mx: true, ..by_name(Some(("fabrikam.example", port)), server) };
    let told = send(&Outbound::new(Metrics::new()), smtp).await;
    assert_eq!(told, format!("{ACCEPTED} by b.fabrikam.example[127.0.0.9]:{port}"));
    assert_eq!((one.seen().len(), two.contents().len()), (1, 1));
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_the_recipients_only_where_it_is_his_domain() {
    for (zone, smart_host, told) in [
        (&[("fabrikam.example.", &["MX 0 ."][..])][..], None, "refused 556 5.1.10"),
        (&[], None, "refused 550 5.1.2"),
        (&[("fabrikam.example.", &[])], None, "refused 550 5.4.4"),
        (&[("fabrikam.example.", &["SERVFAIL"])], None, "deferred 451 4.4.3"),
        (&[("fabrikam.example.", &["SERVFAIL AAAA"])], None, "deferred 451 4.4.3"),
        (&[("fabrikam.example.", &["MX 10 mx.contoso.com."])], None, "deferred 451 4.4.6"),
        (&[("fabrikam.example.", &["MX 0 ."])], Some("fabrikam.example"), "deferred 451 4.4.3"),
        (&[], Some("fabrikam.example"), "deferred 451 4.4.3"),
        (&[("fabrikam.example.", &["SERVFAIL"])], Some("fabrikam.example"), "deferred 451 4.4.3"),
    ] {
        let (server, _) = dns(zone).await;
        let smtp = SmtpOut { mx: true, ..by_name(smart_host.map(|name| (name, 25)), server) };
        let got = send(&Outbound::new(Metrics::new()), smtp).await;
        assert!(got.starts_with(told), "{zone:?} {smart_host:?}: {got}");
    }
}

#[tokio::test]
async fn the_last_good_answer_serves_while_dns_fails() {
    let (hop, _, port) = hops("").await;
    let (server, zone) = dns(&[("gw.fabrikam.example.", &["A 127.0.0.1"])]).await;
    let outbound = Outbound::new(Metrics::new());
    for _ in 0..2 {
        let mut smtp = by_name(Some(("gw.fabrikam.example", port)), server);
        // Other terms each time, so that the connection is not used again and the name is asked for.
        smtp.reply_timeout += std::time::Duration::from_secs(hop.seen().len() as u64);
        let told = send(&outbound, smtp).await;
        assert!(told.starts_with(ACCEPTED), "{told}");
        zone.lock().unwrap().insert("gw.fabrikam.example.".to_owned(), vec!["SERVFAIL"]);
    }
    assert_eq!(hop.seen().len(), 2);
}

#[tokio::test]
async fn while_dns_fails_it_is_left_alone_and_an_answer_of_none_is_no_failure() {
    let (hop, _, port) = hops("").await;
    let name = "gw.fabrikam.example.";
    let (server, zone) = dns(&[(name, &["A 127.0.0.1"])]).await;
    let outbound = Outbound::new(Metrics::new());
    let again = |seconds| {
        let mut smtp = by_name(Some(("gw.fabrikam.example", port)), server);
        smtp.reply_timeout += std::time::Duration::from_secs(seconds);
        send(&outbound, smtp)
    };
    let set = |data: &[&'static str]| zone.lock().unwrap().insert(name.to_owned(), data.to_vec());
    assert!(again(0).await.starts_with(ACCEPTED));
    set(&["SERVFAIL"]);
    assert!(again(1).await.starts_with(ACCEPTED));
    // Half a minute long nobody asks, so nobody learns that the name is gone.
    zone.lock().unwrap().remove(name);
    assert!(again(2).await.starts_with(ACCEPTED));
    assert_eq!(hop.seen().len(), 3);
    // Where DNS did not fail before, that is learned at once.
    let outbound = Outbound::new(Metrics::new());
    set(&["A 127.0.0.1"]);
    let smtp = by_name(Some(("gw.fabrikam.example", port)), server);
    assert!(send(&outbound, smtp.clone()).await.starts_with(ACCEPTED));
    zone.lock().unwrap().remove(name);
    let other_terms = |seconds| SmtpOut { reply_timeout: std::time::Duration::from_secs(seconds), ..smtp.clone() };
    assert!(send(&outbound, other_terms(1)).await.starts_with("deferred 451 4.4.3"));
    set(&["SERVFAIL"]);
    // The health's pause is over when the name is asked for again.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut told = send(&outbound, other_terms(2)).await;
    while told.contains("is down") {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
        told = send(&outbound, other_terms(2)).await;
    }
    assert!(told.starts_with("deferred 451 4.4.3 DNS"), "{told}");
}

#[tokio::test]
async fn an_answer_holds_as_long_as_its_time_to_live() {
    let (one, two, port) = hops("").await;
    let name = "gw.fabrikam.example.";
    let (server, zone) = dns(&[(name, &["A 127.0.0.1 ttl=2"])]).await;
    let outbound = Outbound::new(Metrics::new());
    let mut seconds = 0;
    let mut again = || {
        let mut smtp = by_name(Some(("gw.fabrikam.example", port)), server);
        seconds += 1;
        smtp.reply_timeout += std::time::Duration::from_secs(seconds);
        send(&outbound, smtp)
    };
    assert!(again().await.starts_with(ACCEPTED));
    zone.lock().unwrap().insert(name.to_owned(), vec!["A 127.0.0.9 ttl=2"]);
    assert!(again().await.starts_with(ACCEPTED));
    assert_eq!((one.contents().len(), two.contents().len()), (2, 0), "the first answer still holds");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while two.contents().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the first answer holds for ever");
        assert!(again().await.starts_with(ACCEPTED));
    }
}

#[tokio::test]
async fn the_hosts_file_comes_before_dns() {
    let (hop, _, port) = hops("").await;
    let (server, _) = dns(&[]).await;
    let told = send(&Outbound::new(Metrics::new()), by_name(Some(("localhost", port)), server)).await;
    assert_eq!(told, format!("{ACCEPTED} by localhost[127.0.0.1]:{port}"));
    assert_eq!(hop.contents().len(), 1);
}

/// Who asks whether a client is one of them does not wait for DNS (DESIGN section 6, rule 2).
#[tokio::test]
async fn what_names_last_stood_for_is_known_without_a_question() {
    let (_one, _two, port) = hops("").await;
    let zone: &[(&str, &[&str])] = &[
        ("fabrikam.example.", &["MX 10 a.fabrikam.example.", "MX 20 b.fabrikam.example."]),
        ("a.fabrikam.example.", &["A 127.0.0.1"]),
        ("b.fabrikam.example.", &["A 127.0.0.9", "A 127.0.0.8"]),
    ];
    let addresses = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect::<Vec<std::net::IpAddr>>();
    let (server, zone) = dns(zone).await;
    let outbound = Outbound::new(Metrics::new());
    let by_mx = SmtpOut { mx: true, ..by_name(Some(("fabrikam.example", port)), server) };
    let by_address = by_name(Some(("b.fabrikam.example", port)), server);
    assert_eq!(outbound.known_addresses(&by_mx), addresses(&[]), "nobody has asked for them yet");
    assert!(send(&outbound, by_mx.clone()).await.starts_with(ACCEPTED));
    assert_eq!(outbound.known_addresses(&by_mx), addresses(&["127.0.0.1"]), "the first one was enough");
    assert!(send(&outbound, by_address.clone()).await.starts_with(ACCEPTED));
    zone.lock().unwrap().clear();
    let mut known = outbound.known_addresses(&by_address);
    known.sort_unstable();
    assert_eq!(known, addresses(&["127.0.0.8", "127.0.0.9"]));
    assert_eq!(outbound.known_addresses(&by_mx).len(), 3);
    assert_eq!(outbound.known_addresses(&by_name(None, server)), addresses(&[]));
}
