//! A certificate that all tenants of a provider show: whose mail it is, the header section says, and only for the tenant
//! that is written.

use std::net::{Ipv4Addr, SocketAddr};

use crate::tls::fixture::{TlsSystems, python, tls};
use support::certificates::Issued;
use support::tables::send_connector;
use support::{free_port, wait_until};

const OURS: &str = "0a1b2c3d-2222-3333-4444-555555555555";
const OTHER: &str = "11111111-2222-3333-4444-555555555555";
const FIELD: &str = "X-MS-Exchange-CrossTenant-Id";

/// The internet's door, and the secondary's for everybody who shows `mail.protection.outlook.com`, with further lines.
fn tables(systems: &TlsSystems, more: &str) -> String {
    let issued = systems.authority.issue(&["mx.contoso.test"]);
    let ca = systems.authority.file();
    let (mode, trusts) = (tls("opportunistic", &issued, ""), format!("tls = {{ client_ca = \"{}\" }}", ca.display()));
    let shared = "[[accepted_domain]]\ndomain = \"shared.test\"\ntype = \"internal-relay\"\ndeliver_to = \"inside\"\n";
    let way = "organization = \"secondary\"\naddress_spaces = [{ domain = \"shared.test\" }]";
    let secondary = send_connector("secondary", systems.outside.address(), way);
    format!(
        "[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n{mode}\n\n\
         [[receive_connector]]\nname = \"secondary\"\nbind = [\"{{smtp}}\"]\norganization = \"secondary\"\n\
         client_names = [\"mail.protection.outlook.com\", \"mx.partner.test\"]\n{more}\n{trusts}\n\n{shared}\n{secondary}"
    )
}

/// Sends these messages to `to` in one session with STARTTLS; the code that each is answered.
fn send(systems: &TlsSystems, certificate: &Issued, to: &str, messages: &[String]) -> String {
    let messages: Vec<String> = messages.iter().map(|message| format!("{message:?}")).collect();
    let script = format!(
        "client = smtplib.SMTP(host, port)\nclient.starttls(context=context)\nclient.ehlo()\n\
         for message in [{}]:\n    client.mail('a@fabrikam.test')\n    assert client.rcpt('{to}')[0] == 250\n\
         \x20   print(client.data(message.encode())[0])\n\
         client.quit()\n",
        messages.join(", ")
    );
    python(systems.node.smtp, Some(certificate), &script).replace('\n', " ").trim().to_owned()
}

/// A message that asserts something, with these fields on top.
fn message(subject: &str, fields: &str) -> String {
    format!(
        "{fields}X-MS-Exchange-Organization-SCL: -1\r\nSubject: {subject}\r\nFrom: a@fabrikam.test\r\n\
         Date: Sat, 21 Nov 2026 04:39:00 +0000\r\nMessage-ID: <{subject}@fabrikam.test>\r\n\r\nhello\r\n"
    )
}

/// Whether what was asserted in the message with this subject arrived inside.
fn believed(systems: &TlsSystems, subject: &str) -> bool {
    let all = systems.inside.all();
    let text = all.iter().map(|sunk| String::from_utf8_lossy(&sunk.bytes).into_owned());
    let found = text.filter(|text| text.contains(&format!("Subject: {subject}\r\n"))).collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "{subject}: {found:?}");
    let (scl, id) = (found[0].contains("Organization-SCL"), found[0].to_lowercase().contains("crosstenant-id"));
    assert!(scl || !id, "{subject}: stripped in part: {}", found[0]);
    scl
}

#[test]
fn the_header_section_tells_whose_mail_it_is() {
    let right = format!("{FIELD}: {OURS}\r\n");
    let other = format!("{FIELD}: {OTHER}\r\n");
    let upper = format!("{}:\r\n {}\r\n", FIELD.to_lowercase(), OURS.to_uppercase());
    let twice = right.repeat(2);
    let both = format!("{right}{other}");
    let fields = [
        ("right", &right),
        ("upper", &upper),
        ("other", &other),
        ("twice", &twice),
        ("both", &both),
        ("again", &right),
    ];
    let nothing = String::new();
    for (more, name, wanted) in [
        (format!("tenant = \"{OURS}\""), "mail.protection.outlook.com", [true, true, false, false, false, true, false]),
        // A tenant is asked of all who come in there.
        (format!("tenant = \"{OURS}\""), "mx.partner.test", [true, true, false, false, false, true, false]),
        // Without one a name of a provider is nobody's, and a partner's own is his.
        (String::new(), "mail.protection.outlook.com", [false; 7]),
        (String::new(), "mx.partner.test", [true; 7]),
        // The right words over another certificate.
        (format!("tenant = \"{OURS}\""), "mx.other.test", [false; 7]),
    ] {
        let mut systems = TlsSystems::prepare();
        let tables = tables(&systems, &more);
        systems.start(&tables);
        let certificate = systems.authority.issue(&[name]);
        let cases: Vec<(&str, &String)> = fields.iter().copied().chain([("nothing", &nothing)]).collect();
        let messages: Vec<String> = cases.iter().map(|(subject, fields)| message(subject, fields)).collect();
        let told = send(&systems, &certificate, "ann@contoso.test", &messages);
        assert_eq!(told, ["250"; 7].join(" "), "{name}");
        wait_until("all arrive", crate::tls::fixture::SOON, || systems.inside.all().len() == 7);
        let found: Vec<bool> = cases.iter().map(|(subject, _)| believed(&systems, subject)).collect();
        assert_eq!(found, wanted, "{more} {name}");
    }
}

/// The organisation's own door is where a loop comes in: its mail counts, other tenants' does not. It never resolves first:
/// whom nobody has is relayed.
#[test]
fn a_tenants_mail_counts_for_loops() {
    let mut systems = TlsSystems::prepare();
    let tables = tables(&systems, &format!("tenant = \"{OURS}\""));
    systems.start(&tables);
    let certificate = systems.authority.issue(&["mail.protection.outlook.com"]);
    for (subject, id, last) in [("loop", OURS, "554"), ("other", OTHER, "250")] {
        let again = vec![message(subject, &format!("{FIELD}: {id}\r\n")); 3];
        assert_eq!(send(&systems, &certificate, "bob@shared.test", &again), format!("250 250 {last}"), "{subject}");
    }
}

/// While strangers are turned away the organisation's mail is taken behind the same name: MAIL cannot tell, the header
/// section does.
#[test]
fn who_is_turned_away_is_known_when_the_header_section_is_there() {
    let mut systems = TlsSystems::prepare();
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
    let waits = send_connector("waits", nobody, "delivery = \"queue\"\naddress_spaces = [{ domain = \"waits.test\" }]");
    let domain = "[[accepted_domain]]\ndomain = \"waits.test\"\ntype = \"external-relay\"\n";
    let tables = format!("{}\n{domain}\n{waits}", tables(&systems, &format!("tenant = \"{OURS}\"")));
    systems.write(&tables);
    let text = std::fs::read_to_string(systems.node.path("fingerpost.toml")).unwrap();
    systems.node.write("fingerpost.toml", &text.replace("[spool]\n", "[spool]\nmax_messages = 8\n"));
    systems.node.start();
    let certificate = systems.authority.issue(&["mail.protection.outlook.com"]);
    let [right, other] = [OURS, OTHER].map(|id| message(&format!("of-{id}"), &format!("{FIELD}: {id}\r\n")));
    let others = vec![other.clone(); 8];
    assert_eq!(send(&systems, &certificate, "x@waits.test", &others), ["250"; 8].join(" "));
    let series = "fingerpost_back_pressure{reason=\"messages\",turned_away=\"strangers\"}";
    wait_until("strangers are turned away", crate::tls::fixture::SOON, || systems.node.metric(series) == Some(1.0));
    assert_eq!(send(&systems, &certificate, "ann@contoso.test", &[right, other]), "250 452");
}
