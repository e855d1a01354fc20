//! Places where TLS comes first, and those that strangers leave to clients with a certificate.

use std::io::Read;
use std::net::TcpStream;

use crate::tls::fixture::{SOON, TlsSystems, python, tls};
use support::certificates::Issued;
use support::senders::Raw;
use support::tables::send_connector;
use support::wait_until;

/// The internet's door of 20 places, and the secondary's for who shows `mx.partner.test`.
fn doors(systems: &TlsSystems) -> String {
    let issued = systems.authority.issue(&["mx.contoso.test"]);
    let ca = systems.authority.file();
    let way = "organization = \"secondary\"\naddress_spaces = [{ domain = \"shared.test\" }]";
    format!(
        "[[accepted_domain]]\ndomain = \"shared.test\"\ntype = \"internal-relay\"\ndeliver_to = \"inside\"\n\
         [[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nmax_connections = 20\n{}\n\
         [[receive_connector]]\nname = \"secondary\"\nbind = [\"{{smtp}}\"]\norganization = \"secondary\"\n\
         client_names = [\"mx.partner.test\"]\ntls = {{ client_ca = \"{}\" }}\n\n{}",
        tls("opportunistic", &issued, ""),
        ca.display(),
        send_connector("secondary", systems.outside.address(), way)
    )
}

/// What a client behind STARTTLS is told at MAIL, and at the end of its message.
const SENDS: &str = "client = smtplib.SMTP(host, port, timeout=60)\n\
                     client.starttls(context=context)\n\
                     client.ehlo()\n\
                     codes = [client.mail('a@partner.test')[0]]\n\
                     if codes == [250]:\n\
                     \x20   client.rcpt('ann@contoso.test')\n\
                     \x20   codes += [client.data(b'Subject: hello\\r\\n\\r\\nhello\\r\\n')[0]]\n\
                     print(*codes)\n";

fn sends(systems: &TlsSystems, certificate: Option<&Issued>) -> String {
    python(systems.node.smtp, certificate, SENDS).trim().to_owned()
}

/// In the middle of its content: nobody may send it away.
fn busy(systems: &TlsSystems) -> Raw {
    let mut raw = Raw::hello(systems.node.smtp);
    for (line, code) in [("MAIL FROM:<a@b.test>", 250), ("RCPT TO:<ann@contoso.test>", 250), ("DATA", 354)] {
        assert_eq!(raw.say(line).0, code, "{line}");
    }
    raw.send(b"Subject: slow\r\n\r\n");
    raw
}

/// Who will show a certificate comes as a stranger: the last places are anybody's up to MAIL, where it is seen who has
/// shown one. So the promise is about MAIL, and about places of whom may be sent away until then.
#[test]
fn a_client_with_a_certificate_gets_a_place_that_strangers_do_not() {
    let mut systems = TlsSystems::prepare();
    let doors = doors(&systems);
    systems.start(&doors);
    let right = systems.authority.issue(&["mx.partner.test"]);
    let other = systems.authority.issue(&["mx.other.test"]);
    let mut strangers: Vec<Raw> = (0..10).map(|_| busy(&systems)).collect();
    // Ten places are left, and no stranger gets one.
    let mut eleventh = Raw::hello(systems.node.smtp);
    let (code, text) = eleventh.say("MAIL FROM:<a@b.test>");
    assert!(code == 421 && text.contains("4.3.2"), "{code} {text}");
    assert_eq!(sends(&systems, None), "421");
    assert_eq!(sends(&systems, Some(&other)), "421");
    for number in 1..=3 {
        assert_eq!(sends(&systems, Some(&right)), "250 250", "{number}");
    }
    // Strangers who sit in these places until MAIL give way.
    let _idle: Vec<Raw> = (0..10).map(|_| Raw::hello(systems.node.smtp)).collect();
    assert_eq!(sends(&systems, Some(&right)), "250 250");
    wait_until("the partner's mail", SOON, || systems.inside.for_address("ann@contoso.test").len() == 4);
    assert_eq!(strangers[0].say("body\r\n.").0, 250, "and who was there before goes on");
}

#[test]
fn who_finds_no_place_where_tls_comes_first_is_counted() {
    let mut systems = TlsSystems::prepare();
    let issued = systems.authority.issue(&["mx.contoso.test"]);
    let door = "[[receive_connector]]\nname = \"door\"\nbind = [\"{smtp}\"]\nmax_connections_per_ip = 2\n";
    let tables = format!("{door}{}\n", tls("implicit", &issued, ""));
    systems.start(&tables);
    let refused = "fingerpost_sessions_refused_total{reason=\"max-connections-per-ip\"}";
    let places = "fingerpost_connections{receive_connector=\"door\"}";
    let connect = || TcpStream::connect(systems.node.smtp).unwrap();
    // What waits for the port to be open is gone.
    wait_until("nobody is there", SOON, || systems.node.metric(places).unwrap_or_default() == 0.0);
    let _held = [connect(), connect()];
    wait_until("two have places", SOON, || systems.node.metric(places) == Some(2.0));
    let before = systems.node.metric(refused).unwrap();
    // Enough for two minutes: ten of a client are told one by one in each.
    for number in 1..=22 {
        let mut told = Vec::new();
        let _ = connect().read_to_end(&mut told);
        assert_eq!(told, b"", "a reply in clear means nothing there");
        wait_until("it is counted", SOON, || systems.node.metric(refused) == Some(before + f64::from(number)));
    }
    let sums = "fingerpost_told_as_sums_total{what=\"turned-away\"}";
    assert!(systems.node.metric(sums) >= Some(2.0));
    let log = systems.node.logged(&["connection turned away"]);
    assert!(log.matches("connection turned away").count() <= 10 + 10, "{log}");
}
