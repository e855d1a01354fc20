//! A directory that accepts connections and says nothing: how long anybody waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::asker::{Asker, LookupResult, openldap, result_of};
use fingerpost::directory::ldap::MAX_QUESTIONS;
use fingerpost::lookup::{Behalf, Freshness, Kind, Standing};
use support::slapd::{READER, Slapd};

#[tokio::test]
async fn ten_recipients_wait_ten_seconds_in_all() {
    let slapd = Slapd::start();
    let asker = Asker::new(&openldap(&slapd));
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
    slapd.freeze();
    let start = Instant::now();
    assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    for _ in 1..10 {
        assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    // The breaker is open now, also while it is being tested.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let asked = Instant::now();
        assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(asker.up(), 0);
    slapd.thaw();
    asker.until(&LookupResult::NotFound, Duration::from_secs(8)).await;
    assert_eq!(asker.up(), 1);
}

/// A server that freezes is in doubt as soon as a question takes long, not when its time is up.
#[tokio::test]
async fn a_cached_not_found_is_not_served_while_a_question_takes_long() {
    let slapd = Slapd::start();
    slapd.add_person("alice", "mail: alice@contoso.com");
    let asker = Arc::new(Asker::new(&openldap(&slapd)));
    let any = async |address: &str| result_of(&asker.answer(address, Freshness::Any).await.lookup);
    assert_eq!(any("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(any("nobody@contoso.com").await, LookupResult::NotFound);
    slapd.freeze();
    let start = Instant::now();
    let other = Arc::clone(&asker);
    let slow = tokio::spawn(async move { other.ask_unknown().await });
    let mut last = Duration::ZERO;
    loop {
        let asked = start.elapsed();
        match any("nobody@contoso.com").await {
            LookupResult::NotFound => last = asked,
            said => break assert_eq!(said, LookupResult::Unavailable),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("a cached not-found was served for {last:?} after the freeze");
    assert!(last < Duration::from_secs(5) / 3 + Duration::from_millis(500), "{last:?}");
    assert_eq!(any("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox), "what is known goes on");
    assert_eq!(slow.await.unwrap(), LookupResult::Unavailable);
    slapd.thaw();
    asker.until(&LookupResult::NotFound, Duration::from_secs(10)).await;
    assert_eq!(any("nobody@contoso.com").await, LookupResult::NotFound);
}

#[tokio::test]
async fn questions_under_way_are_bounded() {
    let slapd = Slapd::start();
    let mut config = openldap(&slapd);
    config.timeout = Duration::from_secs(2);
    let asker = std::sync::Arc::new(Asker::new(&config));
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
    slapd.freeze();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..MAX_QUESTIONS + 44 {
        let asker = std::sync::Arc::clone(&asker);
        tasks.spawn(async move { (asker.cause(&format!("r{number}@contoso.com")).await, start.elapsed()) });
    }
    let answers = tasks.join_all().await;
    let waited = answers.iter().filter(|(cause, _)| cause.contains("60 questions were under way")).count();
    assert!(waited <= 44, "{waited}");
    assert!(answers.iter().all(|(_, after)| after.as_secs_f32() < 5.0), "a turn and a question, no more");
}

/// OpenLDAP closes a connection on which more than 100 requests wait: what is too much waits here.
#[tokio::test(flavor = "multi_thread")]
async fn many_questions_at_once_wait_for_their_turn_and_the_connection_stays() {
    let slapd = Slapd::start();
    slapd.add_person("alice", "mail: alice@contoso.com");
    for bind_dn in ["", READER] {
        let mut config = openldap(&slapd);
        config.bind_dn = bind_dn.to_owned();
        let asker = Arc::new(Asker::new(&config));
        assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
        let mut strangers = tokio::task::JoinSet::new();
        for number in 0..2000_u32 {
            let asker = Arc::clone(&asker);
            let [_, _, high, low] = (number / 20).to_be_bytes();
            let behalf = Behalf::client([198, 18, high, low].into());
            let address = format!("x{number}@contoso.com");
            strangers.spawn(async move { asker.ask_as((&behalf, Standing::Stranger), &address).await });
        }
        tokio::task::yield_now().await;
        let honest = Behalf::client([192, 0, 2, 1].into());
        let said = asker.ask_as((&honest, Standing::Stranger), "alice@contoso.com").await;
        assert_eq!(said, LookupResult::Found(Kind::Mailbox), "{bind_dn:?}");
        let said = strangers.join_all().await;
        let refused = said.iter().filter(|said| **said == LookupResult::NotFound).count();
        assert_eq!((refused, asker.up()), (2000, 1), "{bind_dn:?}");
    }
}
