//! RCPTs in flight, and which others wait for them.

use tokio::time::advance;

use super::*;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(15);

fn rcpts_in_flight() -> RcptsInFlight {
    RcptsInFlight::new(Metrics::new())
}

/// A RCPT of a client whose transaction begins now.
struct Rcpt {
    connector: &'static str,
    recipient: Address,
    reverse_path: ReversePath,
    asker: Asker,
}

/// For Bob over the secondary, from Alice, by a client of the secondary.
fn rcpt() -> Rcpt {
    Rcpt {
        connector: "secondary",
        recipient: Address::parse("bob@contoso.com").unwrap(),
        reverse_path: ReversePath::Address(Address::parse("alice@example.net").unwrap()),
        asker: Asker { began: Instant::now(), from: ComesFrom::NextHop, patience: PATIENCE, mode: LoopMode::Refuse },
    }
}

impl Rcpt {
    async fn enter(&self, all: &RcptsInFlight) -> Result<RcptInFlight, Reply> {
        let Self { connector, recipient, reverse_path, asker } = self;
        all.enter(Key { connector, recipient, reverse_path }, *asker).await
    }
}

/// Enters; also returns after how many milliseconds.
async fn timed(rcpt: Rcpt, all: &RcptsInFlight) -> (Result<RcptInFlight, Reply>, u128) {
    let began = Instant::now();
    (rcpt.enter(all).await, began.elapsed().as_millis())
}

fn loops(all: &RcptsInFlight) -> u64 {
    all.0.metrics.loops.with_label_values(&["in-flight"]).get()
}

fn is_empty(all: &RcptsInFlight) -> bool {
    let state = all.0.state.lock();
    state.under_way.is_empty() && state.waiting.is_empty()
}

#[tokio::test(start_paused = true)]
async fn a_second_rcpt_waits_for_the_first_answer_and_is_asked_in_turn() {
    let all = rcpts_in_flight();
    let first = rcpt().enter(&all).await.unwrap();
    advance(MS).await;
    let answer = async {
        tokio::time::sleep(9999 * MS).await;
        drop(first);
    };
    let (second, ()) = tokio::join!(timed(rcpt(), &all), answer);
    assert_eq!(second.1, 9999);
    let second = second.0.unwrap();
    advance(MS).await;
    let (third, ()) = tokio::join!(timed(rcpt(), &all), async { drop(second) });
    assert!(third.0.is_ok(), "it waits for the second as the second did for the first");
    drop(third);
    assert_eq!((loops(&all), is_empty(&all)), (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_first_that_is_not_answered_within_two_thirds_of_the_patience_is_a_loop() {
    let all = rcpts_in_flight();
    let first = rcpt().enter(&all).await.unwrap();
    advance(MS).await;
    for (patience, waits) in [(15_000, 10_000), (6_000, 4_000), (300, 200), (60_000, 40_000)] {
        let asker = Asker { patience: patience * MS, ..rcpt().asker };
        let (second, after) = timed(Rcpt { asker, ..rcpt() }, &all).await;
        assert_eq!((second.err(), after), (Some(reply::ROUTING_LOOP), waits), "{patience}");
    }
    assert_eq!(loops(&all), 4);
    drop(first);
    assert!(rcpt().enter(&all).await.is_ok());
    assert!(is_empty(&all));
}

#[tokio::test(start_paused = true)]
async fn who_need_not_wait_is_not_held_up() {
    let all = rcpts_in_flight();
    let before = rcpt();
    advance(MS).await;
    let _first = rcpt().enter(&all).await.unwrap();
    advance(MS).await;
    let parsed = |text| Address::parse(text).unwrap();
    let elsewhere = Asker { from: ComesFrom::Elsewhere, ..rcpt().asker };
    let cases = [
        ("its transaction began before", before),
        ("from elsewhere", Rcpt { asker: elsewhere, ..rcpt() }),
        ("over another connector", Rcpt { connector: "primary", ..rcpt() }),
        ("another recipient", Rcpt { recipient: parsed("rob@contoso.com"), ..rcpt() }),
        ("another sender", Rcpt { reverse_path: ReversePath::Address(parsed("carol@example.net")), ..rcpt() }),
        ("the null sender", Rcpt { reverse_path: ReversePath::Null, ..rcpt() }),
    ];
    for (name, rcpt) in cases {
        let (entered, after) = timed(rcpt, &all).await;
        assert!(entered.is_ok() && after == 0, "{name}");
    }
    let same = Rcpt { recipient: parsed("\"BOB\"@Contoso.com"), ..rcpt() };
    assert!(same.enter(&all).await.is_err(), "the same mailbox, written otherwise");
    assert_eq!(loops(&all), 1);
}

/// DESIGN section 6, "what must pass".
#[tokio::test(start_paused = true)]
async fn two_scanners_write_to_one_address_at_once() {
    let all = rcpts_in_flight();
    // Both transactions begin before either RCPT: neither waits.
    let (one, other) = (rcpt(), rcpt());
    advance(MS).await;
    let (one, other) = tokio::join!(timed(one, &all), timed(other, &all));
    assert_eq!((one.0.is_ok(), one.1, other.0.is_ok(), other.1), (true, 0, true, 0));
    // A third comes while both are in flight, and is sent once both are answered.
    advance(MS).await;
    let answers = async {
        for answered in [one.0, other.0] {
            tokio::time::sleep(500 * MS).await;
            drop(answered);
        }
    };
    let (third, ()) = tokio::join!(timed(rcpt(), &all), answers);
    assert_eq!((third.0.is_ok(), third.1, loops(&all)), (true, 1000, 0));
}

#[tokio::test(start_paused = true)]
async fn all_who_waited_for_the_first_are_asked_once_it_is_answered() {
    let all = rcpts_in_flight();
    let first = rcpt().enter(&all).await.unwrap();
    advance(MS).await;
    let (second, third) = (rcpt(), rcpt());
    let answer = async {
        tokio::time::sleep(MS).await;
        drop(first);
    };
    let (second, third, ()) = tokio::join!(timed(second, &all), timed(third, &all), answer);
    assert_eq!((second.0.is_ok(), second.1, third.0.is_ok(), third.1), (true, 1, true, 1));
}

#[tokio::test(start_paused = true)]
async fn eight_wait_for_one_address_whoever_they_write_for() {
    let all = rcpts_in_flight();
    let null = || Rcpt { reverse_path: ReversePath::Null, ..rcpt() };
    let firsts = (rcpt().enter(&all).await.unwrap(), null().enter(&all).await.unwrap());
    advance(MS).await;
    let waiting: Vec<_> = (0..WAITING)
        .map(|n| {
            let (all, rcpt) = (all.clone(), if n % 2 == 0 { rcpt() } else { null() });
            tokio::spawn(async move { rcpt.enter(&all).await })
        })
        .collect();
    while all.0.state.lock().waiting.values().sum::<usize>() < WAITING {
        tokio::task::yield_now().await;
    }
    let (ninth, after) = timed(rcpt(), &all).await;
    assert_eq!((ninth.err(), after), (Some(reply::TOO_MANY_WAIT), 0));
    let elsewhere = Rcpt { asker: Asker { from: ComesFrom::Elsewhere, ..rcpt().asker }, ..rcpt() };
    assert!(elsewhere.enter(&all).await.is_ok(), "who need not wait is not counted");
    waiting[0].abort(); // its client has gone
    while all.0.state.lock().waiting.values().sum::<usize>() == WAITING {
        tokio::task::yield_now().await;
    }
    let (ninth, _, entered) = tokio::join!(timed(rcpt(), &all), async { drop(firsts) }, async {
        let mut entered = 0;
        for waiting in waiting {
            entered += waiting.await.map_or(0, |entered| usize::from(entered.is_ok()));
        }
        entered
    });
    assert_eq!((ninth.0.is_ok(), entered), (true, WAITING - 1));
    drop(ninth);
    assert_eq!((loops(&all), is_empty(&all)), (0, true));
}

#[tokio::test(start_paused = true)]
async fn in_report_mode_it_goes_on_and_is_counted() {
    let all = rcpts_in_flight();
    let _first = rcpt().enter(&all).await.unwrap();
    advance(MS).await;
    let reporting = Rcpt { asker: Asker { mode: LoopMode::Report, ..rcpt().asker }, ..rcpt() };
    let (second, after) = timed(reporting, &all).await;
    assert_eq!((second.is_ok(), after, loops(&all)), (true, 10_000, 1));
}

#[test]
fn where_a_client_comes_from() {
    let text = "[server]\nhostname = \"mx.contoso.com\"\n[[receive_connector]]\nname = \"r\"\nbind = [\"127.0.0.1:25\"]\n\
                organization = \"secondary\"\n[[accepted_domain]]\ndomain = \"contoso.com\"\ndeliver_to = \"s\"\n\
                [[directory]]\nname = \"d\"\nkind = \"file\"\npath = \"people.toml\"\n\
                [[send_connector]]\nname = \"s\"\norganization = \"secondary\"\nsmart_hosts = [\"[192.0.2.1]\", \"gw.test\"]\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("people.toml"), "").unwrap();
    let config = crate::config::check::load_text(text, &folder.path().join("fingerpost.toml")).unwrap();
    let connector = config.send_connector("s").unwrap();
    for (organization, client, from) in [
        ("secondary", "198.51.100.1", ComesFrom::NextHop),
        ("", "192.0.2.1", ComesFrom::NextHop),
        ("", "::ffff:192.0.2.1", ComesFrom::NextHop),
        ("", "192.0.2.7", ComesFrom::NextHop),
        ("", "198.51.100.1", ComesFrom::Elsewhere),
        ("primary", "198.51.100.1", ComesFrom::Elsewhere),
    ] {
        let origin =
            Origin { organization: organization.into(), client: Some(client.parse().unwrap()), ..Origin::report() };
        let known = ["192.0.2.7".parse().unwrap()];
        assert_eq!(ComesFrom::of(&origin, connector, &known), from, "{organization} {client}");
    }
    assert_eq!(ComesFrom::of(&Origin::report(), connector, &[]), ComesFrom::Elsewhere);
}
