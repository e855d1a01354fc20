//! Replies to clients that guess passwords.

use super::*;
use crate::session::Identity;
use crate::session::commit::tests::services;

#[tokio::test]
async fn of_many_clients_that_guess_a_hundred_a_minute_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (services, _accepted) = services(folder.path());
    let connector = services.current.load().config.receive_connectors[0].clone();
    let (address, bind) = ("192.0.2.1:40000".parse().unwrap(), "127.0.0.1:2525".parse().unwrap());
    let identity = Identity::default();
    let mut client = Client { id: "test".into(), address, bind, connector, tls: None, identity };
    // A hundred more than fit into two minutes: the session may end meanwhile.
    for number in 0..300_u32 {
        client.address.set_ip(std::net::Ipv4Addr::from_bits(0xc633_6400 + number).into());
        failed(&services, &client, Limit::Unchanged);
        failed(&services, &client, Limit::Begins);
    }
    let as_sums = |what: Kind| services.metrics.told_as_sums.with_label_values(&[what.as_str()]).get();
    assert!(as_sums(Kind::Guesser) >= 100, "{}", as_sums(Kind::Guesser));
    assert_eq!(as_sums(Kind::Authentication), 0, "they do not take the room of failures");
}

/// A guess of this user's password, from one client.
fn guess(services: &Services, user: &str, password: &str) -> Guess {
    guesses(services).guess([192, 0, 2, 1].into(), "directory", user, password)
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_others_goes_on_when_one_ends_and_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (services, _accepted) = services(folder.path());
    let mut under_way = Vec::new();
    for number in 0..20 {
        let new = guess(&services, &format!("user{number}"), "x");
        under_way.push(UnderWay::begin(&services, new).await.unwrap_or_else(|step| panic!("{number}: {step:?}")));
    }
    let began = Instant::now();
    let late = UnderWay::begin(&services, guess(&services, "late", "x")).await;
    assert_eq!((late.err(), began.elapsed()), (Some(Step::Later), Duration::from_secs(30)), "nobody was answered");
    let began = Instant::now();
    let (ends, goes_on) = (async { drop(under_way.pop()) }, UnderWay::begin(&services, guess(&services, "late", "x")));
    let (goes_on, ()) = tokio::join!(goes_on, ends);
    assert!(goes_on.is_ok() && began.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn whose_session_ends_does_not_take_back_what_it_sent() {
    use crate::directory::MayBind as _;

    let folder = tempfile::tempdir().unwrap();
    let (services, _accepted) = services(folder.path());
    let begin = |password| UnderWay::begin(&services, guess(&services, "ann", password));
    let (one, two, three) = (begin("1").await.unwrap(), begin("2").await.unwrap(), begin("3").await.unwrap());
    for guess in [&one, &two, &three] {
        assert!(guess.may_bind("uid=ann").await);
    }
    let four = begin("4").await.unwrap();
    let waits = tokio::time::timeout(Duration::from_secs(600), four.may_bind("uid=ann")).await;
    assert!(waits.is_err(), "it waits for an answer as long as it is let");
    // One is right, and its slot goes to one that waits.
    let (may, ()) = tokio::join!(four.may_bind("uid=ann"), async { one.settle(&Login::Accepted) });
    assert!(may);
    let five = begin("5").await.unwrap();
    let end = async {
        two.settle(&Login::Rejected("wrong".into()));
        three.settle(&Login::Unavailable("busy".into()));
        drop(four);
    };
    let (may, ()) = tokio::join!(five.may_bind("uid=ann"), end);
    assert!(may, "one was wrong, one may have been, one was not looked at");
    five.settle(&Login::Rejected("wrong".into()));
    let six = begin("6").await.unwrap();
    assert!(!six.may_bind("uid=ann").await);
    assert_eq!(six.closed(), Some(Closed::Unanswered));
}
