//! Two domain controllers, of which one is behind: a user who had mail lately is moved to the primary, the directory that
//! is followed says so only later, and the secondary does not know her any more.

use std::time::Duration;

use support::samba_ad::{BASE, DATABASE, READER, SambaAd};
use support::senders::Raw;
use support::tables::send_connector;
use support::test_network::{SOON, TestNetwork, domain};
use support::wait_until;

const ANN: &str = "ann@contoso.test";

/// RCPT for Ann, and the whole message where it is taken.
fn send(network: &TestNetwork) -> String {
    let mut raw = Raw::hello(network.node.smtp);
    raw.say("MAIL FROM:<s@outside.test>");
    let (code, text) = raw.say(&format!("RCPT TO:<{ANN}>"));
    if code == 250 {
        assert_eq!(raw.say("DATA").0, 354);
        assert_eq!(raw.say("Subject: to Ann\r\n\r\nHello.\r\n.").0, 250);
    }
    text
}

#[test]
fn a_user_who_moves_while_a_controller_lags_is_at_worst_asked_to_wait() {
    for mode in
        ["mode = \"snapshot\"\npoll = \"1s\"", "mode = \"lookup\"\ncache = { found = \"1s\", not_found = \"1s\" }"]
    {
        let mut ahead = SambaAd::start();
        let password = ahead.reader_password_file();
        let behind = ahead.copied();
        let mut network = TestNetwork::prepare();
        let (primary, secondary) = (network.hop(""), network.hop(""));
        let directory = format!(
            "[[directory]]\nname = \"ad\"\nurls = [\"{}\", \"{}\"]\nbase = [\"{BASE}\"]\nbind_dn = \"{READER}\"\n\
             password_file = \"{}\"\nprobe = \"postmaster@contoso.test\"\ntimeout = \"3s\"\n{mode}\n\n",
            behind.url(),
            ahead.url(),
            password.display()
        );
        let organization =
            |name: &str, more: &str| format!("organization = \"{name}\"\ndelivery = \"cut-through\"\n{more}");
        let space = "address_spaces = [{ domain = \"contoso.test\" }]";
        let tables = send_connector("primary", primary.address, &organization("primary", ""))
            + &send_connector("secondary", secondary.address, &organization("secondary", space))
            + &domain("contoso.test", "internal-relay", "primary");
        network.start(&format!("{directory}{tables}"));
        wait_until("the directory answers", SOON, || send(&network).starts_with("250"));
        wait_until("she is one of theirs", SOON, || secondary.taken() == [ANN]);
        assert!(primary.taken().is_empty(), "{mode}");

        // She is moved; the controller that is followed does not know yet.
        let person = format!("proxyAddresses: SMTP:{ANN}\nmsExchRecipientTypeDetails: 1\nhomeMDB: {DATABASE}");
        ahead.add("user", "ann", &person);
        secondary.follow("rcpt => 550 5.1.1 no such user here");
        for _ in 0..5 {
            let said = send(&network);
            assert!(said.starts_with("451 4.3.0"), "{mode}: {said}");
        }
        // It catches up.
        behind.add("user", "ann", &person);
        let route = || String::from_utf8(network.node.run(&["route", ANN]).stdout).unwrap();
        wait_until("she is found", Duration::from_secs(6), || route().contains("resolved"));
        assert!(send(&network).starts_with("250"), "{mode}");
        wait_until("she has her mail", SOON, || primary.taken() == [ANN]);
        assert_eq!(secondary.taken(), [ANN], "{mode}: the message of before");
        assert!(network.reports("s@outside.test").is_empty());
        assert!(network.queue().is_empty());
    }
}
