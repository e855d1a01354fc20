//! Ann had mail on the secondary's side and is moved. The directory says so only later.

use fingerpost::routing::doubt::{KnownBy, Refused};
use fingerpost::routing::recently_good::RecentlyGood;
use fingerpost::smtp::address::Address;
use fingerpost::smtp::reply::USER_UNKNOWN;
use fingerpost::time::{Moment, QueueTime, UnixTime};

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::slapd::{BASE, READER, Slapd};
use support::test_network::{BY_HAND, SOON, TestNetwork, connector, domain};
use support::wait_until;

const SENDER: &str = "s@outside.test";
const ANN: &str = "ann@contoso.com";
const NOT_HERE: &str = "550 5.1.1 no such user here";

struct Migration {
    network: TestNetwork,
    slapd: Slapd,
    primary: ScriptedSmtpServer,
    secondary: ScriptedSmtpServer,
}

/// An OpenLDAP whose answers are kept for a second.
fn directory(slapd: &Slapd) -> String {
    format!(
        "[[directory]]\nname = \"ldap\"\nkind = \"ldap\"\nprofile = \"openldap\"\nurls = [\"{}\"]\nbase = [\"{BASE}\"]\n\
         bind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.com\"\ntimeout = \"2s\"\nmode = \"lookup\"\n\
         cache = {{ found = \"1s\", not_found = \"1s\" }}\n\n",
        slapd.url(),
        slapd.password_file().display()
    )
}

/// The directory has the primary's people; Ann is not among them, and had mail.
fn migration() -> Migration {
    let slapd = Slapd::start();
    let mut network = TestNetwork::prepare();
    let (primary, secondary) = (network.hop(""), network.hop(""));
    let space = format!("address_spaces = [{{ domain = \"contoso.com\" }}]\n{BY_HAND}");
    let tables = connector("primary", primary.address, BY_HAND)
        + &connector("secondary", secondary.address, &space)
        + &domain("contoso.com", "internal-relay", "primary");
    network.start(&format!("{}{tables}", directory(&slapd)));
    network.send(SENDER, &[ANN]);
    network.quiet();
    assert_eq!((primary.taken(), secondary.taken()), (vec![], vec![ANN.to_owned()]));
    Migration { network, slapd, primary, secondary }
}

#[test]
fn a_user_who_moves_while_the_directory_lags_gets_the_mail_and_nobody_a_report() {
    let Migration { mut network, slapd, primary, secondary } = migration();
    secondary.follow(&format!("rcpt => {NOT_HERE}"));
    network.send(SENDER, &[ANN]);
    let shown = network.waits(ANN, NOT_HERE);
    assert!(shown["last_error"].as_str().unwrap().contains("451 4.3.0"), "it says why: {shown}");
    network.retry();
    network.waits(ANN, NOT_HERE);

    // What is known of Ann outlives a restart.
    network.node.stop();
    network.node.start();
    network.retry();
    network.waits(ANN, NOT_HERE);
    assert!(primary.commands("RCPT").is_empty());

    slapd.add_person("ann", &format!("mail: {ANN}"));
    network.deliver();
    assert_eq!(primary.taken(), [ANN]);
    assert_eq!(secondary.taken(), [ANN], "the message of before");
    assert!(network.reports(SENDER).is_empty());
}

#[test]
fn a_user_who_is_gone_is_believed_to_be_an_hour_after_the_first_refusal() {
    let Migration { mut network, slapd: _slapd, secondary, .. } = migration();
    network.node.stop();
    let file = network.node.path("state/recently-good");
    let (ann, now) = (Address::parse(ANN).unwrap(), QueueTime(UnixTime::now().0));
    let mut good = RecentlyGood::from_bytes(&std::fs::read(&file).unwrap(), Moment::now(now)).unwrap();
    assert!(good.is_good(&ann, now));
    let refused = Refused::ByUs { row: Some(9), reply: &USER_UNKNOWN };
    good.doubt(&ann, KnownBy::Nobody, &refused, QueueTime(now.0 - 3660)); // the queue's time stood still meanwhile
    std::fs::write(&file, good.to_bytes()).unwrap();
    secondary.follow(&format!("rcpt => {NOT_HERE}"));
    network.node.start();
    network.send(SENDER, &[ANN]);
    wait_until("a report", SOON, || network.reports(SENDER).len() == 1);
    let report = network.reports(SENDER).remove(0);
    assert_eq!(report.fields("Diagnostic-Code"), [format!("smtp; {NOT_HERE}")]);
    wait_until("nothing is left", SOON, || network.queue().is_empty());
}

#[test]
fn nobody_in_particular_is_refused_at_once_and_a_file_of_no_use_is_survived() {
    let Migration { mut network, slapd: _slapd, secondary, .. } = migration();
    network.node.stop();
    std::fs::write(network.node.path("state/recently-good"), "of no use").unwrap();
    network.node.start();
    assert!(network.node.log().contains("recently good addresses cannot be read"));
    secondary.follow(&format!("rcpt => {NOT_HERE}"));
    network.send(SENDER, &[ANN]);
    wait_until("a report", SOON, || network.reports(SENDER).len() == 1);
    wait_until("nothing is left", SOON, || network.queue().is_empty());
}
