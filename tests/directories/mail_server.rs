//! A real Postfix that is asked: one that refuses whom it does not know, and one that takes mail for everybody.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fingerpost::lookup::Kind;
use tokio::time::Instant;

use crate::asker::LookupResult;
use crate::call_ahead::{CallAheadAsker, servers};
use support::postfix::{Postfix, Setup};

/// Recipients that it has no mailbox for are refused, as a server does that is the last one.
pub const REFUSES_UNKNOWN: &str = "relay_recipient_maps = texthash:$virtual_mailbox_base/../etc/mailboxes\n";
/// Grace's mailbox is greylisted.
const GREYLISTS: &str = "smtpd_recipient_restrictions = check_recipient_access \
                         inline:{ {grace@contoso.test = 450 4.2.0 greylisted, come again} }\n";

/// A Postfix with these two, and more lines for its main.cf.
pub fn postfix(extra: &str) -> Postfix {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    Postfix::start(&Setup {
        name: "kerio.contoso.test",
        ip: Ipv4Addr::LOCALHOST,
        domains: &["contoso.test", "fabrikam.test"],
        known: &["alice@contoso.test", "grace@contoso.test"],
        unknown_to: nowhere,
        others_to: nowhere,
        extra,
    })
}

#[tokio::test]
async fn it_says_who_is_there_and_what_else_it_says_is_doubt() {
    let postfix = postfix(&format!("{REFUSES_UNKNOWN}{GREYLISTS}"));
    let asker = CallAheadAsker::new(&servers(&[postfix.address()]));
    assert_eq!(asker.ask("Alice@contoso.test").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.ask("nobody@contoso.test").await, LookupResult::NotFound);
    let cause = asker.cause("grace@contoso.test").await;
    assert!(cause.contains("450 4.2.0") && cause.contains("greylisted"), "{cause}");
    assert_eq!((asker.up(), asker.accepts_everything()), (1, 0));

    postfix.pause();
    let cause = asker.cause("bob@contoso.test").await;
    assert!(cause.contains("cannot connect"), "{cause}");
    assert_eq!(asker.ask("nobody@contoso.test").await, LookupResult::Unavailable, "a cached no is not believed now");
    assert_eq!(asker.ask("alice@contoso.test").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.up(), 0);
    postfix.resume();
    asker.until("bob@contoso.test", &LookupResult::NotFound, Duration::from_secs(10)).await;
    assert_eq!(asker.up(), 1);
    assert!(postfix.mails().is_empty() && postfix.queued() == 0, "nothing is ever sent");
}

#[tokio::test]
async fn one_that_takes_mail_for_everybody_is_recognised() {
    for extra in ["", "relay_recipient_maps = inline:{ { @contoso.test = all } }\n"] {
        let postfix = postfix(extra);
        let asker = CallAheadAsker::new(&servers(&[postfix.address()]));
        assert_eq!(asker.ask("alice@contoso.test").await, LookupResult::AcceptsEverything, "{extra}");
        assert_eq!(asker.ask("nobody@contoso.test").await, LookupResult::AcceptsEverything, "{extra}");
        assert_eq!((asker.up(), asker.accepts_everything()), (1, 1));
    }
}

#[tokio::test]
async fn one_that_freezes_costs_its_time_out_and_comes_back_by_itself() {
    let postfix = postfix(REFUSES_UNKNOWN);
    let mut config = servers(&[postfix.address()]);
    config.timeout = Duration::from_secs(2);
    let asker = CallAheadAsker::new(&config);
    assert_eq!(asker.ask("nobody@contoso.test").await, LookupResult::NotFound);
    postfix.freeze();
    let start = Instant::now();
    for number in 0..10 {
        assert_eq!(asker.ask(&format!("r{number}@contoso.test")).await, LookupResult::Unavailable);
    }
    let waited = start.elapsed();
    postfix.thaw();
    assert!(waited > Duration::from_secs(5) && waited < Duration::from_secs(8), "three time-outs: {waited:?}");
    assert_eq!(asker.up(), 0);
    asker.until("bob@contoso.test", &LookupResult::NotFound, Duration::from_secs(10)).await;
    assert_eq!(asker.up(), 1);
}
