//! What one client can make a mail server be asked at once, and that nobody else waits for it. A server that is a table,
//! and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::directory::Directory;
use fingerpost::lookup::{Behalf, Freshness, Kind, Question, Standing};
use fingerpost::smtp::address::Address;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::asker::{LookupResult, result_of};
use crate::call_ahead::CallAheadAsker;
use crate::tarpit::{Tarpit, directory};

const FOUND: LookupResult = LookupResult::Found(Kind::Mailbox);

fn client(last: u8) -> Behalf {
    Behalf::client([192, 0, 2, last].into())
}

/// As `resolve` asks: a turn first.
async fn ask(asker: &CallAheadAsker, behalf: &Behalf, local: &str) -> (LookupResult, u128) {
    ask_as(asker, (behalf, Standing::Stranger), local).await
}

async fn ask_as(asker: &CallAheadAsker, (behalf, standing): (&Behalf, Standing), local: &str) -> (LookupResult, u128) {
    let start = Instant::now();
    let address = Address::parse(&format!("{local}@contoso.com")).unwrap();
    let question = Question { directory: "gw".into(), address, freshness: Freshness::Any };
    let said = match asker.directory.shares().unwrap().turn(behalf, standing).await {
        Ok(turn) => result_of(&asker.directory.ask_in_turn(&question, Some(turn)).await.lookup),
        Err(_) => LookupResult::Unavailable,
    };
    (said, start.elapsed().as_millis() / 100)
}

/// Two hundred questions at once, once the guard question is known.
async fn flood(asker: &Arc<CallAheadAsker>, whose: impl Fn(u8) -> Behalf) -> JoinSet<(LookupResult, u128)> {
    ask(asker, &Behalf::Ours, "alice").await;
    sleep(Duration::from_secs(50)).await;
    let mut flood = JoinSet::new();
    for number in 0..200 {
        let (asker, behalf) = (Arc::clone(asker), whose(number));
        flood.spawn(async move { ask(&asker, &behalf, &format!("x{number}")).await });
    }
    sleep(Duration::from_millis(100)).await;
    flood
}

#[tokio::test(start_paused = true)]
async fn one_client_has_a_share_and_the_others_do_not_wait_for_it() {
    let server = Tarpit::new(Duration::from_secs(44));
    let asker = directory(&server);
    let flood = flood(&asker, |_| client(1)).await;
    assert_eq!(server.most_under_way(), 2, "a sixth of twelve");
    for (behalf, local) in [
        (client(2), "bob"),
        (client(3), "carol"),
        (Behalf::Sender("fabrikam.com".into()), "dave"),
        (Behalf::Ours, "erin"),
        (client(2), "frank"),
    ] {
        assert_eq!(ask(&asker, &behalf, local).await, (FOUND, 0), "{behalf:?}");
    }
    let heard = flood.join_all().await;
    assert!(
        heard.iter().all(|(said, tenths)| *said == LookupResult::Unavailable && *tenths <= 102),
        "they are told to come again"
    );
    assert!(server.most_under_way() <= 3, "{}", server.most_under_way());
}

#[tokio::test(start_paused = true)]
async fn names_that_only_strangers_ask_for_have_half_of_it() {
    let server = Tarpit::new(Duration::from_secs(44));
    let asker = directory(&server);
    let mut flood = flood(&asker, client).await;
    assert_eq!(server.most_under_way(), 6, "a half of twelve");
    flood.abort_all();
}

#[tokio::test(start_paused = true)]
async fn a_mailing_list_is_not_held_up_by_its_own_unknown_recipients() {
    let server = Tarpit::new(Duration::from_secs(44));
    let asker = directory(&server);
    ask(&asker, &Behalf::Ours, "alice").await;
    sleep(Duration::from_secs(50)).await;
    let mut list = JoinSet::new();
    for local in ["x1", "x2", "bob", "carol", "dave"] {
        let asker = Arc::clone(&asker);
        list.spawn(async move { (local, ask(&asker, &client(1), local).await) });
    }
    let mut said = list.join_all().await;
    said.sort_by_key(|(local, _)| *local);
    let said: Vec<_> = said.into_iter().filter(|(local, _)| !local.starts_with('x')).map(|(_, said)| said.0).collect();
    assert_eq!(said, [FOUND, FOUND, FOUND]);
}

/// 60 strangers from ever new addresses, each with 15 names that nobody has, against people who exist.
#[tokio::test(start_paused = true)]
async fn strangers_all_together_keep_nobody_from_being_found() {
    let server = Tarpit::new(Duration::from_millis(50));
    let asker = directory(&server);
    ask(&asker, &Behalf::Ours, "alice").await;
    sleep(Duration::from_secs(1)).await;
    let mut flood = JoinSet::new();
    for stranger in 0..60_u32 {
        let asker = Arc::clone(&asker);
        flood.spawn(async move {
            for session in 0..10 {
                let [_, _, high, low] = (stranger * 10 + session).to_be_bytes();
                let behalf = Behalf::client([198, 18, high, low].into());
                let names = (0..15).map(|name| format!("x{stranger}-{session}-{name}"));
                let asks = names.map(|name| {
                    let (asker, behalf) = (Arc::clone(&asker), behalf.clone());
                    async move { ask(&asker, &behalf, &name).await }
                });
                asks.collect::<JoinSet<_>>().join_all().await;
            }
        });
    }
    sleep(Duration::from_secs(1)).await;
    for number in 0..20 {
        // Somebody who comes for the first time, somebody who had mail lately, a filter and ourselves.
        for (behalf, standing, most) in [
            (client(number), Standing::Stranger, 40),
            (client(number), Standing::Known, 9),
            (Behalf::Sender("fabrikam.com".into()), Standing::Network, 9),
            (Behalf::Ours, Standing::Known, 9),
        ] {
            let local = format!("a{number}-{most}-{standing:?}-{behalf:?}").replace(|c: char| !c.is_alphanumeric(), "");
            let (said, tenths) = ask_as(&asker, (&behalf, standing), &local).await;
            assert_eq!(said, FOUND, "{behalf:?} {standing:?}");
            assert!(tenths <= most, "{behalf:?} {standing:?} waited {tenths}");
        }
    }
    assert!(server.most_under_way() <= 13, "{}", server.most_under_way());
    flood.abort_all();
}
