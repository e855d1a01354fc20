//! Several next hops, connections that are used again, and next hops that are down.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::SmtpOut;
use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;
use tokio::net::TcpListener;

use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::{ScriptedSmtpServer, Seen};

const ACCEPTED: &str = "accepted 250 2.0.0 queued";

fn to_a() -> Letter {
    Letter::to(&["a@contoso.com"])
}

fn settings(hops: &[&ScriptedSmtpServer]) -> SmtpOut {
    smtp_out(hops.iter().map(|hop| smart_host(hop.address)).collect())
}

/// Sends to a@ and b@ by two next hops, and returns what they were told and how many messages each next hop took.
async fn two(first: &str, second: &str) -> (Vec<String>, [usize; 2]) {
    let hops = [ScriptedSmtpServer::start(first, None).await, ScriptedSmtpServer::start(second, None).await];
    let out = connector(settings(&[&hops[0], &hops[1]]));
    let told = Letter::to(&["a@contoso.com", "b@contoso.com"]).send(&Outbound::new(Metrics::new()), &out).await;
    (in_words(&told), hops.map(|hop| hop.contents().len()))
}

#[tokio::test]
async fn the_next_one_takes_what_the_first_could_not() {
    for first in [
        "greeting => 421 no",
        "greeting => 554 no",
        "greeting => drop",
        "ehlo => 421 no",
        "mail => 451 4.3.0 no",
        "mail => drop",
        "mail => 530 5.7.0 authenticate",
        "rcpt => 451 4.3.0 no",
        "rcpt => 554 5.7.1 relay access denied",
        "rcpt => 501 5.5.4 what",
        "data => drop",
        "data => 421 4.3.2 no",
        "data => 503 5.5.1 what",
    ] {
        assert_eq!(two(first, "").await, (vec![ACCEPTED.to_owned(); 2], [0, 1]), "{first}");
    }
}

#[tokio::test]
async fn after_421_at_the_dot_all_are_tried() {
    for code in ["421 4.3.2 no", "421 no"] {
        let busy = format!("dot => {code}");
        let (told, messages) = two(&busy, "").await;
        assert_eq!((told, messages), (vec![ACCEPTED.to_owned(); 2], [1, 1]), "{code}");
        let hops = [
            ScriptedSmtpServer::start(&busy, None).await,
            ScriptedSmtpServer::start(&busy, None).await,
            ScriptedSmtpServer::start("", None).await,
        ];
        let out = connector(settings(&hops.each_ref()));
        let told = in_words(&to_a().send(&Outbound::new(Metrics::new()), &out).await);
        assert_eq!(told, [ACCEPTED], "{code}");
        assert_eq!(hops.map(|hop| hop.contents().len()), [1, 1, 1], "{code}");
    }
}

#[tokio::test]
async fn an_answer_is_not_asked_for_twice() {
    for (first, told, messages) in [
        ("rcpt => 550 5.1.1 no", ["unknown 550 5.1.1 no"; 2], [0, 0]),
        ("mail => 550 5.7.1 no", ["refused 550 5.7.1 no"; 2], [0, 0]),
        ("rcpt => 450 4.2.0 later", ["deferred 450 4.2.0 later"; 2], [0, 0]),
        ("dot => 451 4.3.0 later", ["deferred 451 4.3.0 later"; 2], [1, 0]),
        ("rcpt to:<a => 550 5.1.1 no", ["unknown 550 5.1.1 no", ACCEPTED], [1, 0]),
        ("rcpt to:<a => 550 5.1.1 no\nrcpt to:<b => drop", ["unknown 550 5.1.1 no", ACCEPTED], [0, 1]),
    ] {
        assert_eq!(two(first, "").await, (told.map(str::to_owned).to_vec(), messages), "{first}");
    }
    // It is b's alone: the host has a's message.
    let (told, messages) = two("rcpt to:<b => 451 4.3.0 no", "").await;
    assert!(told[0] == ACCEPTED && told[1].starts_with("deferred 451 4.3.0"), "{told:?}");
    assert_eq!(messages, [1, 0]);
    // Its outcome is unknown: it may have arrived.
    let (told, messages) = two("dot => drop", "").await;
    assert!(told.iter().all(|told| told.contains("outcome unknown")), "{told:?}");
    assert_eq!(messages, [1, 0]);
}

#[tokio::test]
async fn a_conversation_out_of_step_does_not_go_on_with_the_next_message() {
    let hop = ScriptedSmtpServer::start("first: mail => 354 what", None).await;
    let (outbound, out) = (Outbound::new(Metrics::new()), connector(settings(&[&hop])));
    let told = in_words(&to_a().send(&outbound, &out).await);
    assert!(told[0].starts_with("deferred 451"), "{told:?}");
    assert_eq!(in_words(&to_a().send(&outbound, &out).await), [ACCEPTED]);
    assert_eq!(
        hop.seen()[0].lines.len(),
        4,
        "EHLO, MAIL, RCPT and DATA of the first, and nothing more: {:?}",
        hop.seen()
    );
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let hop = ScriptedSmtpServer::start("", None).await;
    let outbound = Outbound::new(Metrics::new());
    let out = connector(settings(&[&hop]));
    let nobody = "x@contoso.com";
    for letter in [to_a(), to_a(), Letter::to(&[nobody]), to_a()] {
        assert_eq!(in_words(&letter.send(&outbound, &out).await), [ACCEPTED]);
    }
    assert_eq!((hop.seen().len(), hop.contents().len()), (1, 4));
    // With other settings it is not.
    let mut other = settings(&[&hop]);
    other.reply_timeout += Duration::from_secs(1);
    assert_eq!(in_words(&to_a().send(&outbound, &connector(other)).await), [ACCEPTED]);
    assert_eq!(hop.seen().len(), 2);
}

#[tokio::test]
async fn after_a_refused_transaction_it_is_reset_and_used_again() {
    for script in ["rcpt to:<x => 550 5.1.1 no\ndata => 354 go", "ehlo => 250 next.hop\nrcpt to:<x => 550 5.1.1 no"] {
        let hop = ScriptedSmtpServer::start(script, None).await;
        let outbound = Outbound::new(Metrics::new());
        let out = connector(settings(&[&hop]));
        let told = Letter::to(&["x@contoso.com"]).send(&outbound, &out).await;
        assert_eq!(in_words(&told), ["unknown 550 5.1.1 no"]);
        assert_eq!(in_words(&to_a().send(&outbound, &out).await), [ACCEPTED]);
        // The one that wanted a message for nobody got an empty one and was left.
        let pipelined = script.contains("354");
        assert_eq!(hop.seen().len(), if pipelined { 2 } else { 1 }, "{script}");
        assert_eq!(hop.commands("RSET").len(), usize::from(!pipelined));
        assert_eq!(hop.contents().len(), if pipelined { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_dead_connection_from_the_pool_is_nobodys_fault() {
    // The first connection answers one message, and ends or says 421 when the second one begins.
    for second in ["first: mail from:<again => drop", "first: mail from:<again => 421 4.4.2 idle too long"] {
        let hop = ScriptedSmtpServer::start(second, None).await;
        let outbound = Outbound::new(Metrics::new());
        let out = connector(settings(&[&hop]));
        assert_eq!(in_words(&to_a().send(&outbound, &out).await), [ACCEPTED]);
        let mut again = to_a();
        again.sender.reverse_path = fingerpost::smtp::address::ReversePath::Address(
            fingerpost::smtp::address::Address::parse("again@fabrikam.com").unwrap(),
        );
        assert_eq!(in_words(&again.send(&outbound, &out).await), [ACCEPTED], "{second}");
        assert_eq!((hop.seen().len(), hop.contents().len()), (2, 2));
    }
}

#[tokio::test]
async fn a_next_hop_may_take_one_message_a_connection() {
    for again in ["again: mail => 421 4.3.2 enough", "again: mail => drop"] {
        let hop = ScriptedSmtpServer::start(again, None).await;
        let recipients: Vec<_> = (0..250).map(|n| format!("user{n}@contoso.com")).collect();
        let letter = Letter::to(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
        let told = in_words(&letter.send(&Outbound::new(Metrics::new()), &connector(settings(&[&hop]))).await);
        let other = told.iter().find(|told| *told != ACCEPTED);
        assert_eq!(other, None, "{again}");
        assert_eq!((hop.seen().len(), hop.contents().len()), (3, 3), "{again}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_seen_to_be() {
    let hop = ScriptedSmtpServer::start("first: dot => 421 2.0.0 never", None).await;
    let outbound = Outbound::new(Metrics::new());
    let out = connector(settings(&[&hop]));
    let told = in_words(&to_a().send(&outbound, &out).await);
    assert!(told[0].starts_with("deferred 451 4.0.0") && told[0].ends_with("421 4.0.0 never"), "{told:?}");
    assert_eq!(in_words(&to_a().send(&outbound, &out).await), [ACCEPTED]);
    // Beside these there may be the test of the host, which sends no mail.
    let mails = |seen: &Seen| seen.lines.iter().filter(|line| line.starts_with("MAIL FROM:<sender@")).count();
    let mails: Vec<usize> = hop.seen().iter().map(mails).filter(|mails| *mails > 0).collect();
    assert_eq!(mails, [1, 1], "a connection each: {:?}", hop.seen());
}

#[tokio::test]
async fn a_next_hop_that_failed_is_tried_last() {
    let metrics = Metrics::new();
    let outbound = Outbound::new(metrics.clone());
    let hops = [ScriptedSmtpServer::start("greeting => 421 no", None).await, ScriptedSmtpServer::start("", None).await];
    let out = connector(settings(&[&hops[0], &hops[1]]));
    for _ in 0..3 {
        assert_eq!(in_words(&to_a().send(&outbound, &out).await), [ACCEPTED]);
    }
    assert_eq!((hops[0].seen().len(), hops[1].seen().len()), (1, 1));
    let up = |hop: &ScriptedSmtpServer| {
        let label = format!("[127.0.0.1]:{}", hop.address.port());
        metrics.next_hop_up.with_label_values(&["out", &label]).get()
    };
    assert_eq!((up(&hops[0]), up(&hops[1])), (0, 1));
}

#[tokio::test]
async fn it_is_probed_by_one_connection_and_all_follow_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outbound = Outbound::new(Metrics::new());
    let mut smtp = smtp_out(vec![smart_host(address)]);
    smtp.connect_timeout = Duration::from_secs(5);
    let out = connector(smtp);
    let told = in_words(&to_a().send(&outbound, &out).await);
    assert!(told[0].starts_with("deferred 451 4.4.1") && told[0].contains("refused"), "{told:?}");
    // At once nobody connects.
    let told = in_words(&to_a().send(&outbound, &out).await);
    assert!(told[0].contains("is down"), "{told:?}");
    let hop = ScriptedSmtpServer::on(TcpListener::bind(address).await.unwrap(), "", None);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while in_words(&to_a().send(&outbound, &out).await) != [ACCEPTED] {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(hop.contents().len(), 1);
}

#[tokio::test]
async fn twenty_messages_make_one_probe() {
    let hop = ScriptedSmtpServer::start("greeting => 421 4.3.2 no", None).await;
    let outbound = Outbound::new(Metrics::new());
    let out = Arc::new(connector(settings(&[&hop])));
    let _ = to_a().send(&outbound, &out).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while hop.seen().len() == 1 {
        assert!(tokio::time::Instant::now() < deadline);
        let mut sends = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (outbound, out) = (outbound.clone(), out.clone());
            sends.spawn(async move { in_words(&to_a().send(&outbound, &out).await) });
        }
        for told in sends.join_all().await {
            assert!(told[0].starts_with("deferred 451"), "{told:?}");
        }
    }
    assert_eq!(hop.seen().len(), 2);
}

#[tokio::test]
async fn we_never_send_to_ourselves() {
    let metrics = Metrics::new();
    let outbound = Outbound::new(metrics.clone());
    let hop = ScriptedSmtpServer::start("", None).await;
    outbound.set_own_listeners(vec![format!("0.0.0.0:{}", hop.address.port()).parse().unwrap()]);
    let told = in_words(&to_a().send(&outbound, &connector(settings(&[&hop]))).await);
    assert!(told[0].starts_with("deferred 451 4.4.6"), "{told:?}");
    assert_eq!(hop.seen().len(), 0);
    let hop = ScriptedSmtpServer::start("greeting => 220-MX.contoso.com hello\\n220 there", None).await;
    let told = in_words(&to_a().send(&outbound, &connector(settings(&[&hop]))).await);
    assert!(told[0].starts_with("deferred 451 4.4.6"), "{told:?}");
    assert_eq!(metrics.loops.with_label_values(&["greeting"]).get(), 1);
}

#[tokio::test]
async fn the_source_address_is_used() {
    let hop = ScriptedSmtpServer::start("", None).await;
    let mut smtp = settings(&[&hop]);
    smtp.source_address = Some("::1".parse().unwrap());
    let told = in_words(&to_a().send(&Outbound::new(Metrics::new()), &connector(smtp)).await);
    assert!(told[0].contains("source_address"), "{told:?}");
    let mut smtp = settings(&[&hop]);
    smtp.source_address = Some("127.0.0.7".parse().unwrap());
    assert_eq!(in_words(&to_a().send(&Outbound::new(Metrics::new()), &connector(smtp)).await), [ACCEPTED]);
    assert_eq!(hop.peers()[0].to_string(), "127.0.0.7");
}

#[tokio::test]
async fn an_idle_connection_ends_with_quit() {
    let hop = ScriptedSmtpServer::start("", None).await;
    let outbound = Outbound::new(Metrics::new());
    assert_eq!(in_words(&to_a().send(&outbound, &connector(settings(&[&hop]))).await), [ACCEPTED]);
    tokio::time::pause();
    // Seconds pass as soon as nothing else is to be done.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if hop.commands("QUIT").len() == 1 {
            return;
        }
    }
    panic!("no QUIT: {:?}", hop.seen());
}

#[tokio::test]
async fn a_reply_too_many_is_not_the_next_transactions() {
    let hop = ScriptedSmtpServer::start("first: dot => 250 2.0.0 queued\\n550 5.7.1 too many", None).await;
    let recipients: Vec<_> = (0..101).map(|n| format!("user{n}@contoso.com")).collect();
    let letter = Letter::to(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let told = in_words(&letter.send(&Outbound::new(Metrics::new()), &connector(settings(&[&hop]))).await);
    assert!(told.iter().all(|told| told == ACCEPTED), "{told:?}");
    assert_eq!(hop.seen().len(), 2);
}
