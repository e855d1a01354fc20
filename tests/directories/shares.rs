//! What one client can make a mail server be asked at once, and that nobody else waits for it. A server that is a table,
//! and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::directory::Directory;
use fingerpost::recipient::Kind;
use fingerpost::routing::verdict::{Behalf, Freshness, Question};
use fingerpost::smtp::address::Address;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::asker::{Said, said};
use crate::call_ahead::Asked;
use crate::tarpit::{Tarpit, directory};

const FOUND: Said = Said::Found(Kind::Mailbox);

fn client(last: u8) -> Behalf {
    Behalf::client([192, 0, 2, last].into())
}

/// As `resolve` asks: a turn first.
async fn ask(asked: &Asked, behalf: &Behalf, local: &str) -> (Said, u128) {
    let start = Instant::now();
    let address = Address::parse(&format!("{local}@contoso.com")).unwrap();
    let question = Question { directory: "gw".into(), address, freshness: Freshness::Any };
    let said = match asked.directory.shares().unwrap().turn(behalf).await {
        Ok(turn) => said(&asked.directory.ask_in_turn(&question, turn).await.lookup),
        Err(_) => Said::Unavailable,
    };
    (said, start.elapsed().as_millis() / 100)
}

#[tokio::test(start_paused = true)]
async fn one_client_has_a_quarter_and_the_others_do_not_wait_for_it() {
    let server = Tarpit::new(Duration::from_secs(44));
    let asked = directory(&server);
    // The guard question is known before.
    ask(&asked, &Behalf::Ours, "alice").await;
    sleep(Duration::from_secs(50)).await;
    let mut flood = JoinSet::new();
    for number in 0..200 {
        let asked = Arc::clone(&asked);
        flood.spawn(async move { ask(&asked, &client(1), &format!("x{number}")).await });
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.most_under_way(), 2, "a quarter of eight");
    for (behalf, local) in [
        (client(2), "bob"),
        (client(3), "carol"),
        (Behalf::Sender("fabrikam.com".into()), "dave"),
        (Behalf::Ours, "erin"),
        (client(2), "frank"),
    ] {
        assert_eq!(ask(&asked, &behalf, local).await, (FOUND, 0), "{behalf:?}");
    }
    let heard = flood.join_all().await;
    assert!(
        heard.iter().all(|(said, tenths)| *said == Said::Unavailable && *tenths <= 102),
        "they are told to come again"
    );
    assert!(server.most_under_way() <= 3, "{}", server.most_under_way());
}

#[tokio::test(start_paused = true)]
async fn a_mailing_list_is_not_held_up_by_its_own_unknown_recipients() {
    let server = Tarpit::new(Duration::from_secs(44));
    let asked = directory(&server);
    ask(&asked, &Behalf::Ours, "alice").await;
    sleep(Duration::from_secs(50)).await;
    let mut list = JoinSet::new();
    for local in ["x1", "x2", "bob", "carol", "dave"] {
        let asked = Arc::clone(&asked);
        list.spawn(async move { (local, ask(&asked, &client(1), local).await) });
    }
    let mut said = list.join_all().await;
    said.sort_by_key(|(local, _)| *local);
    let said: Vec<_> = said.into_iter().filter(|(local, _)| !local.starts_with('x')).map(|(_, said)| said.0).collect();
    assert_eq!(said, [FOUND, FOUND, FOUND]);
}
