//! A next hop's "unknown recipient" is doubted: the directory, a real OpenLDAP, is asked live before anybody is told.

use std::time::Duration;

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::slapd::{BASE, READER, Slapd};
use support::test_network::{BY_HAND, SOON, TestNetwork, connector, domain};
use support::wait_until;

const SENDER: &str = "s@outside.test";
/// An answer is live for 5 s.
const LIVE: Duration = Duration::from_millis(5_200);

struct Doubt {
    network: TestNetwork,
    slapd: Slapd,
    primary: ScriptedSmtpServer,
    secondary: ScriptedSmtpServer,
}

/// A shared domain; everybody is in the directory's cache as the primary's, and the answers are no longer live. Nobody
/// had mail yet.
fn doubt(people: &[&str]) -> Doubt {
    let slapd = Slapd::start();
    let mut network = TestNetwork::prepare();
    let (primary, secondary) = (network.hop(""), network.hop(""));
    for name in people {
        slapd.add_person(name, &format!("mail: {name}@contoso.com"));
    }
    let directory = format!(
        "[[directory]]\nname = \"ldap\"\nkind = \"ldap\"\nprofile = \"openldap\"\nurls = [\"{}\"]\nbase = [\"{BASE}\"]\n\
         bind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.com\"\ntimeout = \"2s\"\nmode = \"lookup\"\n\n",
        slapd.url(),
        slapd.password_file().display()
    );
    let space = format!("address_spaces = [{{ domain = \"contoso.com\" }}]\n{BY_HAND}");
    let tables = connector("primary", primary.address, BY_HAND)
        + &connector("secondary", secondary.address, &space)
        + &domain("contoso.com", "internal-relay", "primary");
    network.start(&format!("{directory}{tables}"));
    for name in people {
        let reply = network.rcpt(&format!("{name}@contoso.com"));
        assert!(reply.starts_with("250"), "{reply}");
    }
    std::thread::sleep(LIVE);
    Doubt { network, slapd, primary, secondary }
}

#[test]
fn a_changed_entry_is_followed_once_and_an_unchanged_one_is_doubted() {
    let Doubt { network, slapd, primary, secondary } = doubt(&["moved", "stays", "gone"]);
    for name in ["moved", "gone"] {
        slapd.modify(&format!("dn: uid={name},{BASE}\nchangetype: delete\n"));
    }
    primary.follow("rcpt => 550 5.1.1 no such user here");
    secondary.follow("rcpt to:<gone@ => 550 5.1.10 not with us either");
    network.send(SENDER, &["moved@contoso.com", "stays@contoso.com", "gone@contoso.com"]);
    let shown = network.waits("stays@contoso.com", "the next hop said: 550 5.1.1 no such user here");
    assert!(shown["last_error"].as_str().unwrap().contains("451 4.3.0"), "{shown}");
    wait_until("a report", SOON, || !network.reports(SENDER).is_empty() && !secondary.taken().is_empty());
    assert_eq!(secondary.taken(), ["moved@contoso.com"]);
    assert!(primary.taken().is_empty());
    network.retry();
    network.waits("stays@contoso.com", "the next hop said: 550 5.1.1 no such user here");
    // The next hop has learned of him within the hour.
    primary.follow("");
    network.deliver();
    assert_eq!(primary.taken(), ["stays@contoso.com"]);
    let reports = network.reports(SENDER);
    let [report] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!(report.fields("Final-Recipient"), ["rfc822; gone@contoso.com"]);
    assert_eq!(report.fields("Diagnostic-Code"), ["smtp; 550 5.1.10 not with us either"]);
    assert!(report.has("The mail system of \"secondary\" refused it"), "{report:?}");
    let asked = |hop: &ScriptedSmtpServer, name: &str| hop.commands(&format!("RCPT TO:<{name}@")).len();
    assert_eq!((asked(&primary, "gone"), asked(&secondary, "gone")), (1, 1), "followed once");
}

#[test]
fn while_the_directory_is_away_an_unknown_recipient_waits() {
    let Doubt { network, mut slapd, primary, secondary } = doubt(&["ann"]);
    primary.follow("rcpt => 550 5.1.1 no such user here");
    slapd.stop();
    network.send(SENDER, &["ann@contoso.com"]);
    let shown = network.waits("ann@contoso.com", "550 5.1.1 no such user here");
    assert!(shown["last_error"].as_str().unwrap().contains("451 4.4.3"), "it says why: {shown}");
    network.retry();
    network.waits("ann@contoso.com", "550 5.1.1 no such user here");

    slapd.restart();
    primary.follow("");
    network.deliver();
    assert_eq!((primary.taken().len(), secondary.taken().len()), (1, 0));
    assert!(network.reports(SENDER).is_empty());
}
