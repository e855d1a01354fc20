//! What nodes know together: two programs, one database, and a next hop that changes its mind.

use fingerpost::routing::recently_good::{Evidence, News, SharedEvidence, SharedNames};
use fingerpost::routing::relay_memory::Returned;
use fingerpost::time::QueueTime;
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::tables::{BASE_TABLES, PEOPLE, send_connector};
use support::test_node::TestNode;

use super::*;

const BOB: &str = "bob@contoso.test";

/// Nodes `n0` and so on, for which everybody at contoso.test is unresolved and the secondary's.
fn nodes<const NODES: usize>(setup: &Setup, secondary: &ScriptedSmtpServer) -> [TestNode; NODES] {
    let url = postgres::urls(&[&setup.primary, &setup.standby]);
    let mut nodes = std::array::from_fn(|number| {
        let node = TestNode::prepare();
        let tables = [
            &BASE_TABLES.replace("[server]\n", "[server]\ninstallation = \"contoso\"\n"),
            "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n",
            PEOPLE,
            "[[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\ndeliver_to = \"primary\"\n\n",
            &send_connector("primary", secondary.address, "organization = \"primary\""),
            &send_connector(
                "secondary",
                secondary.address,
                "organization = \"secondary\"\naddress_spaces = [{ domain = \"contoso.test\" }]",
            ),
            &format!("[cluster]\ndatabase = \"{url}?sslmode=disable\"\nnode = \"n{number}\"\n"),
        ];
        node.write("fingerpost.toml", &tables.concat());
        node.write("people.csv", "address\n");
        node
    });
    let first: &TestNode = &nodes[0];
    let made = first.run(&["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    nodes.iter_mut().for_each(TestNode::start);
    nodes
}

/// The reply to RCPT.
fn asked(node: &TestNode, to: &str) -> (u16, String) {
    let mut raw = Raw::hello(node.smtp);
    assert_eq!(raw.say("MAIL FROM:<ann@outside.test>").0, 250);
    raw.say(&format!("RCPT TO:<{to}>"))
}

/// The reply to a message.
fn sends(node: &TestNode, to: &str, content: &str) -> (u16, String) {
    let mut raw = Raw::hello(node.smtp);
    assert_eq!(raw.say("MAIL FROM:<ann@outside.test>").0, 250);
    assert_eq!(raw.say(&format!("RCPT TO:<{to}>")).0, 250, "{to}");
    assert_eq!(raw.say("DATA").0, 354);
    raw.say(&format!("{content}."))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_learned_the_other_knows() {
    let setup = Setup::start();
    let secondary = ScriptedSmtpServer::start("", None).await;
    let [one, mut other] = nodes(&setup, &secondary);
    let letter = "From: ann@outside.test\r\nMessage-ID: <1@outside.test>\r\nSubject: x\r\n\r\nbody\r\n";
    assert_eq!(sends(&one, BOB, letter).0, 250);

    // One's stamp is known to the other: the secondary sends it back there.
    let came = secondary.seen().into_iter().find_map(|seen| seen.contents.first().cloned()).unwrap();
    let came = String::from_utf8(came).unwrap();
    assert!(came.contains("Fingerpost-Route: v=1;"), "{came}");
    let (code, text) = sends(&other, BOB, &came);
    assert!(code == 554 && text.contains("5.4.6"), "{code} {text}");

    // And so is that he had mail; of strangers nobody knows anything.
    eventually("it is told", Duration::from_secs(5), || setup.rows("accepted_address") == 1).await;
    secondary.follow("RCPT => 550 5.1.1 no such user");
    let (code, text) = asked(&other, BOB);
    assert!(code == 451 && text.contains("4.3.0"), "{code} {text}");
    // Where the machine is slow a question may take too long: then nothing is noted, and nobody refused for good.
    eventually("nobody knows her", Duration::from_secs(20), || asked(&other, "eve@contoso.test").0 == 550).await;
    let is_noted = || asked(&other, BOB).0 == 451 && setup.rows("refused_address") == 1;
    eventually("it is noted and told", Duration::from_secs(20), is_noted).await;
    // More than an hour later it is believed at a node that knows nothing by itself.
    drop(one);
    other.stop(); // and tells what it learned last
    setup.primary.sql("UPDATE fingerpost.refused_address SET first = first - 3700");
    setup.primary.sql("UPDATE fingerpost.accepted_address SET since = since - 9000, last = last - 9000");
    std::fs::remove_file(other.path("state/recently-good")).unwrap();
    other.start();
    eventually("it is believed", Duration::from_secs(20), || asked(&other, BOB).0 == 550).await;

    // Nobody is refused for good while nobody can be asked.
    setup.primary.freeze();
    setup.standby.freeze();
    let (code, text) = asked(&other, "eve@contoso.test");
    assert!(code == 451 && text.contains("4.3.0"), "{code} {text}");
    setup.primary.thaw();
    setup.standby.thaw();
    let again = || asked(&other, "eve@contoso.test").0 == 550;
    eventually("it is refused again", Duration::from_secs(20), again).await;
}

/// A refusal that one node would believe is believed by the others no later, also by the one that had him accepted; and
/// where one has had him accepted since, all doubt the next one.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_believes_all_believe() {
    let setup = Setup::start();
    let secondary = ScriptedSmtpServer::start("", None).await;
    let nodes: [_; 3] = nodes(&setup, &secondary);
    let letter = |number| {
        let id = format!("Message-ID: <{number}@outside.test>\r\n");
        format!("From: ann@outside.test\r\n{id}Subject: x\r\n\r\nbody\r\n")
    };
    assert_eq!(sends(&nodes[0], BOB, &letter(1)).0, 250);
    eventually("it is told", Duration::from_secs(20), || setup.rows("accepted_address") == 1).await;
    secondary.follow("RCPT => 550 5.1.1 no such user");
    for (at, node) in nodes[..2].iter().enumerate() {
        eventually(&format!("node {at} doubts"), Duration::from_secs(20), || asked(node, BOB).0 == 451).await;
    }
    eventually("it is noted", Duration::from_secs(20), || setup.rows("refused_address") == 1).await;
    // What is less than ten seconds apart counts as patience says.
    let later = "SELECT (SELECT age FROM fingerpost.installation) - last > 12 FROM fingerpost.accepted_address";
    eventually("the queue's time goes on", Duration::from_secs(40), || setup.primary.sql(later) == "t").await;
    // More than an hour later for the third node, which knows nothing by itself, and so for all.
    setup.primary.sql("UPDATE fingerpost.refused_address SET first = first - 3700");
    setup.primary.sql("UPDATE fingerpost.accepted_address SET since = since - 9000, last = last - 9000");
    for (at, node) in nodes.iter().enumerate().rev() {
        eventually(&format!("node {at} believes"), Duration::from_secs(30), || asked(node, BOB).0 == 550).await;
    }
    // The second node has him accepted.
    secondary.follow("");
    assert_eq!(sends(&nodes[1], BOB, &letter(2)).0, 250);
    let newer = "SELECT count(*) FROM fingerpost.accepted_address WHERE last > forgotten";
    eventually("it is told", Duration::from_secs(20), || setup.primary.sql(newer) == "1").await;
    secondary.follow("RCPT => 550 5.1.1 no such user");
    for (at, node) in nodes.iter().enumerate() {
        eventually(&format!("node {at} doubts again"), Duration::from_secs(30), || asked(node, BOB).0 == 451).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_together_is_the_last_word_about_each() {
    let setup = Setup::start();
    setup.init().await;
    // As the version before left it.
    setup.primary.sql(
        "ALTER TABLE fingerpost.epoch DROP COLUMN draining; \
         DROP TABLE fingerpost.directory_read, fingerpost.secret, fingerpost.accepted_address, fingerpost.refused_address, fingerpost.request, \
         fingerpost.returned_message; \
         UPDATE fingerpost.installation SET schema = 1",
    );
    assert_eq!(setup.init().await, Made::Upgraded(1));
    let (a, b) = (setup.node("a").await.addresses(), setup.node("b").await.addresses());
    let names = SharedNames { address: u64::MAX - 1, entry: 1 };
    let time = |seconds: u64| QueueTime(10_000_000 + seconds);
    let accepted = |hash, since, last, connector: &str| News::Accepted {
        hash,
        since: time(since),
        last: time(last),
        connector: connector.into(),
    };
    assert_eq!(a.ask(names).await, Some(Evidence::default()));
    a.write(&[accepted(names.address, 5, 5, "x"), accepted(names.address, 5, 9, "y")]).await.unwrap();
    b.write(&[
        accepted(names.address, 7, 7, "z"),
        accepted(names.entry, 8, 8, "z"),
        News::Refused { hash: names.entry, first: time(3), last: time(4) },
    ])
    .await
    .unwrap();
    let evidence = a.ask(names).await.unwrap();
    let known = evidence.accepted.clone().unwrap();
    assert_eq!((known.since, known.last, known.forgotten), (time(5), time(9), QueueTime(0)));
    assert_eq!((evidence.entry_accepted, evidence.refused), (Some(time(8)), Some((time(3), time(4)))));
    // A refusal was believed, and there was a success since: it is good since then.
    a.write(&[News::Forgotten { hash: names.address, at: time(20) }]).await.unwrap();
    assert_eq!(b.ask(names).await.unwrap().accepted.unwrap().forgotten, time(20));
    b.write(&[accepted(names.address, 30, 30, "x")]).await.unwrap();
    let known = a.ask(names).await.unwrap().accepted.unwrap();
    assert_eq!((known.since, known.last, &*known.connector), (time(30), time(30), "x"));
    a.forget(time(7 * 24 * 3600 + 8)).await.unwrap();
    assert_eq!((setup.rows("accepted_address"), setup.rows("refused_address")), (1, 0));
}

/// Where what comes back cannot be written, addresses can be asked for all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_one_question_is_not_in_the_way_of_others() {
    let setup = Setup::start();
    setup.init().await;
    let addresses = setup.node("a").await.addresses();
    let names = SharedNames { address: 1, entry: 2 };
    let returned = Returned { hash: 3, times: 1, loops_at: 9 };
    assert_eq!(addresses.returned(returned, QueueTime(10_000_000)).await, Some(1));
    setup.primary.sql("ALTER TABLE fingerpost.returned_message ADD CHECK (times < 2)");
    for _ in 0..3 {
        assert_eq!(addresses.returned(Returned { times: 2, ..returned }, QueueTime(10_000_000)).await, None);
        assert_eq!(addresses.ask(names).await, Some(Evidence::default()));
    }
    assert_eq!(addresses.returned(returned, QueueTime(10_000_000)).await, Some(1));
}
