//! What MAIL and RCPT carry to real Postfix, and what becomes of a message that it cannot take.

use std::time::Duration;

use support::postfix_systems::{Changes, NodeDirectory, PostfixSystems};
use support::senders::Raw;
use support::sink::Sunk;
use support::wait_until;

const LONG: Duration = Duration::from_secs(30);
const SENDER: &str = "ann@outside.test";

/// Systems whose primary has further lines in its main.cf, and whose `primary` connector has further settings.
fn start_systems(main_cf: &str, settings: &str) -> PostfixSystems {
    let name = "name         = \"primary\"\norganization = \"primary\"";
    let with = format!("{name}\n{settings}");
    let door = "name            = \"internet\"";
    let offering = format!("{door}\ndsn = \"offer\"");
    let changes = Changes {
        replace: vec![(name, with.as_str()), (door, offering.as_str())],
        primary: main_cf.to_owned(),
        ..Changes::default()
    };
    PostfixSystems::start_with(NodeDirectory::File, &changes)
}

/// Sends one message; sender and recipient with their brackets and parameters.
fn send(systems: &PostfixSystems, from: &str, to: &str, message: &[u8]) {
    let mut raw = Raw::hello(systems.node.smtp);
    for (line, code) in [(format!("MAIL FROM:{from}"), 250), (format!("RCPT TO:{to}"), 250), ("DATA".into(), 354)] {
        let said = raw.say(&line);
        assert_eq!(said.0, code, "{line}: {}", said.1);
    }
    raw.send(message);
    let said = raw.say(".");
    assert_eq!(said.0, 250, "{}", said.1);
}

fn message(subject: &str, body: &str) -> Vec<u8> {
    let text =
        format!("From: <{SENDER}>\r\nSubject: {subject}\r\nMessage-ID: <{}@outside.test>\r\n\r\n{body}", body.len());
    text.into_bytes()
}

/// The only report that the sender gets.
fn report(systems: &PostfixSystems) -> String {
    wait_until("a report", LONG, || !systems.outside.for_address(SENDER).is_empty());
    wait_until("quiet", LONG, || systems.waiting() == 0.0 && systems.primary.queued() == 0);
    let reports: Vec<Sunk> = systems.outside.for_address(SENDER);
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].from, "");
    String::from_utf8_lossy(&reports[0].bytes).replace("\r\n ", " ")
}

fn assert_says(report: &str, lines: &[&str]) {
    for line in lines {
        assert!(report.contains(line), "{line:?} is not in {report}");
    }
}

#[test]
fn too_large_for_it() {
    let systems = start_systems("message_size_limit = 20000", "");
    send(&systems, &format!("<{SENDER}>"), "<alice@contoso.test>", &message("small", &"x\r\n".repeat(1000)));
    send(&systems, &format!("<{SENDER}>"), "<alice@contoso.test>", &message("large", &"x\r\n".repeat(10_000)));
    let report = report(&systems);
    assert_says(&report, &["Action: failed\r\nStatus: 5.3.4\r\n", "Diagnostic-Code: X-Fingerpost; 552 5.3.4 "]);
    assert_says(&report, &["\r\nSubject: large\r\n"]);
    wait_until("the small one", LONG, || systems.primary.mails().len() == 1);
    assert_eq!(systems.primary.mails()[0].field("Subject").as_deref(), Some("small"));
}

#[test]
fn dsn_parameters_reach_it_and_success_is_its_business() {
    let systems = start_systems("", "");
    let to = "<alice@contoso.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Alice+2B1@contoso.test";
    send(&systems, &format!("<{SENDER}> RET=HDRS ENVID=QQ314159"), to, &message("dsn", "x\r\n"));
    let report = report(&systems);
    assert_says(
        &report,
        &[
            "Reporting-MTA: dns; primary.test\r\n",
            "Original-Envelope-Id: QQ314159\r\n",
            "Original-Recipient: rfc822;Alice+1@contoso.test\r\n",
            "Action: delivered\r\n",
        ],
    );
    assert_eq!(systems.primary.mails().len(), 1);
    for action in ["delivered", "relayed", "failed", "delayed"] {
        assert_eq!(systems.node.metric(&format!("fingerpost_dsn_total{{action=\"{action}\"}}")), Some(0.0), "{action}");
    }
}

#[test]
fn notify_never_reaches_it() {
    // It takes the mail and finds out afterwards that it cannot deliver it.
    let gone = "smtpd_reject_unlisted_recipient = no\n\
                transport_maps = inline:{ {alice@contoso.test=error:5.2.1 gone} }, \
                texthash:$virtual_mailbox_base/../etc/transport";
    let systems = start_systems(gone, "");
    send(&systems, "<never@outside.test>", "<alice@contoso.test> NOTIFY=NEVER", &message("never", "x\r\n"));
    send(&systems, &format!("<{SENDER}>"), "<alice@contoso.test>", &message("usual", "xx\r\n"));
    assert_says(
        &report(&systems),
        &["Reporting-MTA: dns; primary.test\r\n", "Status: 5.2.1\r\n", "\r\nSubject: usual\r\n"],
    );
    assert_eq!(systems.outside.all().len(), 1, "NOTIFY=NEVER was lost on the way");
    assert!(systems.primary.log().contains("from=<never@outside.test>"), "the other one did not arrive");
}

#[test]
fn success_is_ours_to_tell_where_it_has_no_dsn() {
    let systems = start_systems("smtpd_discard_ehlo_keywords = dsn", "");
    let to = "<alice@contoso.test> NOTIFY=SUCCESS ORCPT=rfc822;Alice@contoso.test";
    send(&systems, &format!("<{SENDER}> ENVID=QQ314159"), to, &message("relayed", "x\r\n"));
    let report = report(&systems);
    assert_says(
        &report,
        &[
            "Reporting-MTA: dns; mx.contoso.test\r\n",
            "Original-Envelope-Id: QQ314159\r\n",
            "Original-Recipient: rfc822; Alice@contoso.test\r\n",
            "Action: relayed\r\nStatus: 2.0.0\r\n",
        ],
    );
    wait_until("the mail", LONG, || systems.primary.mails().len() == 1);
}

#[test]
fn eight_bit_mail_where_it_has_no_8bitmime() {
    let body = "Grüße\r\n";
    let converting = start_systems("smtpd_discard_ehlo_keywords = 8bitmime", "");
    send(&converting, &format!("<{SENDER}> BODY=8BITMIME"), "<alice@contoso.test>", &message("8bit", body));
    wait_until("the mail", LONG, || converting.primary.mails().len() == 1);
    assert_eq!(converting.primary.mails()[0].body(), body.as_bytes());
    drop(converting);

    let refusing = start_systems("smtpd_discard_ehlo_keywords = 8bitmime", "eight_bit = \"refuse\"");
    send(&refusing, &format!("<{SENDER}> BODY=8BITMIME"), "<alice@contoso.test>", &message("8bit", body));
    assert_says(&report(&refusing), &["Status: 5.6.3\r\n", "Diagnostic-Code: X-Fingerpost; 554 5.6.3 "]);
    assert!(refusing.primary.mails().is_empty());
}

#[test]
fn eight_bit_mail_is_announced_where_it_has_8bitmime() {
    let systems = start_systems("", "");
    send(&systems, &format!("<{SENDER}> BODY=8BITMIME"), "<alice@contoso.test>", &message("8bit", "Grüße\r\n"));
    wait_until("the mail", LONG, || systems.primary.mails().len() == 1);
    assert_eq!(systems.primary.mails()[0].body(), "Grüße\r\n".as_bytes());
}

#[test]
fn international_mail_where_it_has_no_smtputf8() {
    let systems = start_systems("smtputf8_enable = no", "");
    send(&systems, &format!("<{SENDER}> SMTPUTF8"), "<rené@contoso.test>", &message("address", "x\r\n"));
    let first = report(&systems);
    assert_says(
        &first,
        &[
            "Status: 5.6.7\r\n",
            "Diagnostic-Code: X-Fingerpost; 553 5.6.7 ",
            "Final-Recipient: utf-8; rené@contoso.test",
        ],
    );

    send(&systems, "<bob@outside.test> SMTPUTF8", "<alice@contoso.test>", &message("grüße", "xx\r\n"));
    wait_until("another report", LONG, || systems.outside.for_address("bob@outside.test").len() == 1);
    let second = systems.outside.for_address("bob@outside.test");
    let second = String::from_utf8_lossy(&second[0].bytes).replace("\r\n ", " ");
    assert_says(&second, &["Status: 5.6.9\r\n", "Diagnostic-Code: X-Fingerpost; 554 5.6.9 "]);

    // Announced and not needed: it goes without.
    send(&systems, &format!("<{SENDER}> SMTPUTF8"), "<alice@contoso.test>", &message("plain", "xxx\r\n"));
    wait_until("the plain one", LONG, || systems.primary.mails().len() == 1);
    assert_eq!(systems.outside.all().len(), 2);
}

#[test]
fn international_mail_where_it_has_smtputf8() {
    let systems = start_systems("", "");
    send(&systems, &format!("<{SENDER}> SMTPUTF8"), "<rené@contoso.test>", &message("grüße", "x\r\n"));
    wait_until("the mail", LONG, || systems.primary.mails().len() == 1);
    let mails = systems.primary.mails();
    assert_eq!((mails[0].mailbox.as_str(), mails[0].field("Subject").as_deref()), ("rené@contoso.test", Some("grüße")));
    assert!(systems.outside.all().is_empty());
}
