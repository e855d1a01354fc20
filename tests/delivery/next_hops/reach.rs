//! Where a report may go by MX: its domain, and so its mail servers, are whatever a stranger claimed to be.

use fingerpost::delivery::attempt::{Outbound, Reach};
use fingerpost::metrics::Metrics;
use fingerpost::smtp::domain::Domain;
use tokio::net::TcpListener;

use crate::next_hops::names::{by_name, dns};
use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

const FABRIKAM: &str = "fabrikam.example";
const NOT_THERE: &str = "refused 550 5.4.4 the recipient's domain has no mail server that a report may go to";

/// What becomes of a report to this domain with these records.
async fn sent(outbound: &Outbound, reach: Reach, domain: &str, zone: &[(&str, &[&'static str])]) -> String {
    let (server, _) = dns(zone).await;
    let mut letter = Letter::to(&["a@contoso.com"]);
    (letter.domain, letter.reach) = (Domain::parse(domain).unwrap(), reach);
    in_words(&letter.send(outbound, &connector(by_name(None, server))).await).remove(0)
}

#[tokio::test]
async fn by_mx_a_report_goes_to_no_private_address_and_not_to_ourselves() {
    for (reach, zone, told) in [
        (Reach::Public, &[("fabrikam.example.", &["A 127.0.0.9"][..])][..], NOT_THERE),
        (
            Reach::Public,
            &[("fabrikam.example.", &["MX 10 a.b."]), ("a.b.", &["A 10.0.0.1", "A 192.168.1.1"])],
            NOT_THERE,
        ),
        (Reach::Public, &[("fabrikam.example.", &["MX 10 localhost."])], NOT_THERE),
        (Reach::Public, &[("fabrikam.example.", &["MX 10 mx.contoso.com."])], NOT_THERE),
        (Reach::NotUs, &[("fabrikam.example.", &["MX 10 mx.contoso.com."])], NOT_THERE),
        // Our own listener.
        (Reach::NotUs, &[("fabrikam.example.", &["A 127.0.0.8"])], NOT_THERE),
        // Where DNS does not know one of them, that one may be another's.
        (
            Reach::Public,
            &[("fabrikam.example.", &["MX 10 a.b.", "MX 20 c.d."]), ("a.b.", &["A 10.0.0.1"]), ("c.d.", &["SERVFAIL"])],
            "deferred 451 4.4.3",
        ),
        // With `allow_private` it is tried; nobody listens there.
        (Reach::NotUs, &[("fabrikam.example.", &["A 127.0.0.77"])], "deferred 451 4.4.1 cannot connect"),
        (Reach::Public, &[], "refused 550 5.1.2"),
        (Reach::Public, &[("fabrikam.example.", &["MX 0 ."])], "refused 556 5.1.10"),
    ] {
        let outbound = Outbound::new(Metrics::new());
        outbound.set_own_listeners(vec!["127.0.0.8:25".parse().unwrap()]);
        let got = sent(&outbound, reach, FABRIKAM, zone).await;
        assert!(got.starts_with(told), "{reach:?} {zone:?}: {got}");
    }
}

#[tokio::test]
async fn the_address_that_is_connected_to_counts_not_the_first_answer() {
    let zone: &[(&str, &[&str])] = &[
        ("fabrikam.example.", &["MX 10 a.b."]),
        ("a.b.", &["A 192.0.2.1 once", "A 127.0.0.9"]), // rebinding
    ];
    let outbound = Outbound::new(Metrics::new());
    let got = sent(&outbound, Reach::Public, FABRIKAM, zone).await;
    assert!(got.starts_with("deferred") && got.ends_with("has no address that a report may go to"), "{got}");
}

#[tokio::test]
async fn a_connection_that_other_mail_has_made_is_not_used() {
    // Port 25, as MX has it; where we may not listen there it cannot be shown.
    let Ok(listener) = TcpListener::bind("127.0.0.9:25").await else { return };
    let hop = ScriptedSmtpServer::on(listener, "", None);
    let (server, zone) = dns(&[("fabrikam.example.", &["A 127.0.0.9"])]).await;
    let (outbound, connector) = (Outbound::new(Metrics::new()), connector(by_name(None, server)));
    let mut letter = Letter::to(&["a@contoso.com"]);
    letter.domain = Domain::parse(FABRIKAM).unwrap();
    assert_eq!(in_words(&letter.send(&outbound, &connector).await), ["accepted 250 2.0.0 queued"]);
    // DNS says that it may go there; the connection in the pool goes elsewhere. Twice: hops are found by two questions.
    let once = "A 192.0.2.1 once";
    zone.lock().unwrap().insert("fabrikam.example.".to_owned(), vec![once, once, "A 127.0.0.9"]);
    letter.reach = Reach::Public;
    let told = in_words(&letter.send(&outbound, &connector).await).remove(0);
    assert!(told.ends_with("has no address that a report may go to"), "{told}");
    assert_eq!(hop.contents().len(), 1);
    letter.reach = Reach::Anywhere;
    assert_eq!(in_words(&letter.send(&outbound, &connector).await), ["accepted 250 2.0.0 queued"]);
    assert_eq!((hop.contents().len(), hop.seen().len()), (2, 1), "the connection is there still");
}

#[tokio::test]
async fn no_report_goes_to_an_address_literal() {
    for (reach, domain) in [(Reach::Public, "[8.8.8.8]"), (Reach::NotUs, "[127.0.0.1]"), (Reach::Public, "[IPv6:::1]")]
    {
        let got = sent(&Outbound::new(Metrics::new()), reach, domain, &[]).await;
        assert_eq!(got, "refused 550 5.1.2 no report goes to an address literal", "{domain}");
    }
}

#[tokio::test]
async fn smart_hosts_are_the_operators_word() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hop = ScriptedSmtpServer::on(listener, "", None);
    let mut letter = Letter::to(&["a@contoso.com"]);
    letter.reach = Reach::Public;
    let told = letter.send(&Outbound::new(Metrics::new()), &connector(smtp_out(vec![smart_host(hop.address)]))).await;
    assert_eq!(in_words(&told), ["accepted 250 2.0.0 queued"]);
}
