//! The configuration and the directory change while mail waits.

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::test_network::{BY_HAND, PEOPLE, SOON, TestNetwork, connector, domain};
use support::wait_until;

const SENDER: &str = "s@outside.test";
const DOWN: &str = "greeting => 421 4.3.2 closed for today";

struct SharedDomain {
    network: TestNetwork,
    primary: ScriptedSmtpServer,
    secondary: ScriptedSmtpServer,
}

/// `contoso.test`, shared, and `other.test`, so that a domain is left when one goes. Ann and Bob are the primary's.
fn shared_domain() -> SharedDomain {
    let mut network = TestNetwork::prepare();
    let (primary, secondary) = (network.hop(""), network.hop(""));
    network.node.write("people.csv", "address\nann@contoso.test\nbob@contoso.test\n");
    let space = format!("address_spaces = [{{ domain = \"contoso.test\" }}]\n{BY_HAND}");
    let tables = connector("primary", primary.address, BY_HAND)
        + &connector("secondary", secondary.address, &space)
        + &domain("contoso.test", "internal-relay", "primary")
        + &domain("other.test", "authoritative", "secondary");
    network.start(&format!("{PEOPLE}{tables}"));
    SharedDomain { network, primary, secondary }
}

#[test]
fn a_domain_is_removed_while_its_mail_waits() {
    let SharedDomain { mut network, primary, secondary } = shared_domain();
    primary.follow(DOWN);
    secondary.follow(DOWN);
    network.send(SENDER, &["ann@contoso.test", "sam@contoso.test"]);
    network.waits("ann@contoso.test", "closed for today");
    network.waits("sam@contoso.test", "closed for today");

    network.reconfigure(&domain("contoso.test", "internal-relay", "primary"), "");
    for to in ["ann@contoso.test", "sam@contoso.test", "nobody@contoso.test"] {
        let reply = network.rcpt(to);
        assert!(reply.starts_with("451 4.3.2"), "{reply}");
    }
    network.retry();
    for to in ["ann@contoso.test", "sam@contoso.test"] {
        let shown = network.waits(to, "the old way was tried");
        assert!(shown["last_error"].as_str().unwrap().contains("451 4.3.2"), "{shown}");
    }

    // The hour outlives the process, and so does the mail.
    network.node.stop();
    network.node.start();
    let reply = network.rcpt("ann@contoso.test");
    assert!(reply.starts_with("451 4.3.2"), "{reply}");
    assert_eq!(network.queue().len(), 2);

    primary.follow("");
    secondary.follow("");
    network.deliver();
    assert_eq!(
        (primary.taken(), secondary.taken()),
        (vec!["ann@contoso.test".into()], vec!["sam@contoso.test".into()])
    );
    assert!(network.reports(SENDER).is_empty());
}

#[test]
fn a_domain_and_its_connectors_are_removed_while_mail_waits() {
    let SharedDomain { mut network, primary, secondary } = shared_domain();
    primary.follow(DOWN);
    network.send(SENDER, &["ann@contoso.test", "bob@contoso.test"]);
    network.waits("ann@contoso.test", "closed for today");

    network.reconfigure(&domain("contoso.test", "internal-relay", "primary"), "");
    let before = network.reconfigure(&connector("primary", primary.address, BY_HAND), "");
    let held = |network: &TestNetwork, to: &str| {
        network.standing(to).is_some_and(|shown| {
            shown["state"] == "held" && shown["why"].as_str().is_some_and(|why| why.contains("`primary`"))
        })
    };
    wait_until("the mail is held", SOON, || held(&network, "ann@contoso.test") && held(&network, "bob@contoso.test"));
    let gauge = "fingerpost_queue_messages{send_connector=\"primary\",state=\"held\"}";
    assert_eq!(network.node.metric(gauge), Some(1.0));
    primary.follow("");
    let retry = network.node.run(&["queue", "retry", "--all"]);
    assert!(retry.status.success(), "{retry:?}");
    assert!(held(&network, "ann@contoso.test"), "a retry does not release it");
    network.node.stop();
    network.node.start();
    wait_until("it is held after a restart", SOON, || held(&network, "ann@contoso.test"));

    // The connector alone is enough: the domain is still gone.
    network.apply(before);
    network.deliver();
    assert_eq!(
        (primary.taken(), secondary.taken()),
        (["ann", "bob"].map(|a| format!("{a}@contoso.test")).to_vec(), vec![])
    );
    assert!(network.reports(SENDER).is_empty());
}

#[test]
fn users_who_move_while_mail_waits_get_it_on_the_new_side() {
    let SharedDomain { network, primary, secondary } = shared_domain();
    primary.follow("rcpt => 450 4.2.1 moving");
    secondary.follow("rcpt => 450 4.2.1 moving");
    network.send(SENDER, &["ann@contoso.test", "bob@contoso.test", "sam@contoso.test"]);
    for name in ["ann", "bob", "sam"] {
        network.waits(&format!("{name}@contoso.test"), "450 4.2.1 moving");
    }
    let taken_over = || network.node.log().matches("directory file taken over").count();
    let before = taken_over();
    network.node.write("people.csv", "address\nbob@contoso.test\nsam@contoso.test\n");
    wait_until("the new file", SOON, || taken_over() > before);
    primary.follow("");
    secondary.follow("");
    network.deliver();
    let mut at_primary = primary.taken();
    at_primary.sort();
    assert_eq!(at_primary, ["bob@contoso.test", "sam@contoso.test"]);
    assert_eq!(secondary.taken(), ["ann@contoso.test"]);
    assert!(network.reports(SENDER).is_empty());
}
