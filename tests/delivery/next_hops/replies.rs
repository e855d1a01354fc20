//! Step by behaviour: one next hop, recipients a, b and c, and what each of them was told.

use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;

use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

/// Offers nothing, so that commands go one by one.
const BARE: &str = "ehlo => 250 next.hop";

/// Sends to a@, b@ and c@contoso.com under a script, in a runtime of its own (a stall pauses its clock). Every answer
/// must begin with what is wanted of it, and contain what stands behind `...`.
fn case(script: &str, wanted: [&str; 3]) {
    for extensions in ["", BARE] {
        let script = format!("{script}\n{extensions}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let got = runtime.block_on(async {
            let hop = ScriptedSmtpServer::start(&script, None).await;
            let connector = connector(smtp_out(vec![smart_host(hop.address)]));
            let letter = Letter::to(&["a@contoso.com", "b@contoso.com", "c@contoso.com"]);
            in_words(&letter.send(&Outbound::new(Metrics::new()), &connector).await)
        });
        for (got, wanted) in got.iter().zip(wanted) {
            let (begins, contains) = wanted.split_once("...").unwrap_or((wanted, ""));
            assert!(got.starts_with(begins) && got.contains(contains), "{script}\nwanted: {wanted}\ngot:    {got}");
        }
    }
}

fn all(script: &str, wanted: &str) {
    case(script, [wanted; 3]);
}

const ACCEPTED: &str = "accepted 250 2.0.0 queued";

#[test]
fn before_mail() {
    all("", ACCEPTED);
    all("greeting => 421 4.3.2 busy", "deferred 451 4.3.2...421 4.3.2 busy");
    all("greeting => 554 5.7.1 go away", "deferred 451 4.7.1...554 5.7.1 go away");
    all("greeting => 220-next.hop\\n220 hello", ACCEPTED);
    all("greeting => 220-next.hop\\n221 hello", "deferred 451 4.4.2...not SMTP");
    all("greeting => HTTP/1.1 400", "deferred 451 4.4.2...not SMTP");
    all("greeting => drop", "deferred 451 4.4.2...closed");
    all("greeting => stall", "deferred 451 4.4.1...no answer within 300s");
    all("greeting => 220 MX.Contoso.com ESMTP", "deferred 451 4.4.6...our own host name");
    all("ehlo => 421 4.7.0 no", "deferred 451 4.7.0...421 4.7.0 no");
    all("ehlo => 502 what", ACCEPTED);
    all("ehlo => 502 what\nhelo => 550 5.7.1 no", "deferred 451 4.7.1...550 5.7.1 no");
    all("ehlo => drop", "deferred 451 4.4.2");
    all("ehlo => stall", "deferred 451 4.4.1");
}

#[test]
fn mail() {
    all("mail => 451 4.1.8 later", "deferred 451 4.1.8...451 4.1.8 later");
    all("mail => 421 4.7.0 bye", "deferred 451 4.7.0...421 4.7.0 bye");
    all("mail => 550 5.7.1 sender blocked", "refused 550 5.7.1 sender blocked");
    all("mail => 553 5.1.8 sender domain", "refused 553 5.1.8 sender domain");
    all("mail => 530 5.7.0 authenticate", "deferred 451 4.7.0...530 5.7.0");
    all("mail => 550 5.7.57 anonymous", "deferred 451 4.7.57...anonymous");
    all("mail => 501 5.5.4 what", "deferred 451 4.5.4...501 5.5.4 what");
    all("mail => drop", "deferred 451 4.4.2");
    all("mail => stall", "deferred 451 4.4.1");
    // What a real server says to what was pipelined behind a refused MAIL.
    let bad = "rcpt => 503 5.5.1 MAIL first\ndata => 503 5.5.1 MAIL first";
    all(&format!("mail => 550 5.7.1 no\n{bad}"), "refused 550 5.7.1 no");
    all("mail => 550 5.7.1 no\nrcpt => drop", "refused 550 5.7.1 no");
}

#[test]
fn rcpt() {
    let b = |reply: &str| format!("rcpt to:<b => {reply}");
    for (said, told) in [
        ("550 5.1.1 no such user", "unknown 550 5.1.1 no such user"),
        ("550 no such user", "unknown 550 no such user"),
        ("550-5.1.1 no\\n550 5.1.1 such", "unknown 550 5.1.1 no such"),
        ("550 5.4.1 access denied", "unknown 550 5.4.1"),
        ("553 5.1.3 form", "unknown 553 5.1.3"),
        ("550 5.2.1 disabled", "refused 550 5.2.1 disabled"),
        ("550 5.7.1 spam", "refused 550 5.7.1 spam"),
        ("552 5.2.2 full", "refused 552 5.2.2 full"),
        ("450 4.2.0 greylisted", "deferred 450 4.2.0 greylisted"),
        ("452 4.2.2 full", "deferred 452 4.2.2 full"),
        ("451 4.3.0 disk", "deferred 451 4.3.0...451 4.3.0 disk"),
        ("451 4.4.1 upstream", "deferred 451 4.4.1...upstream"),
        ("554 5.7.1 Relay access denied", "deferred 451 4.7.1...Relay access denied"),
        ("550 relay not permitted", "deferred 451 4.4.1...relay not permitted"),
        ("550 5.7.64 TenantAttribution", "deferred 451 4.7.64"),
        ("501 5.5.4 what", "deferred 451 4.5.4"),
        ("354 what", "deferred 451 4.4.1"),
    ] {
        // Out of step, nothing goes on.
        let others = if said == "354 what" { told } else { ACCEPTED };
        case(&b(said), [others, told, others]);
    }
    case(&b("421 4.7.0 too fast"), ["deferred 451 4.7.0...too fast"; 3]);
    case(&b("drop"), ["deferred 451 4.4.2"; 3]);
    // The others go on over a new connection, as far as the paused clock lets them.
    case(&b("stall"), ["", "deferred 451 4.4.1", ""]);
}

#[test]
fn nobody_left() {
    all("rcpt => 550 5.1.1 no", "unknown 550 5.1.1 no");
    all("rcpt => 450 4.2.0 later", "deferred 450 4.2.0 later");
    // RFC 2920 3.1: DATA was pipelined; whatever it is answered, nothing is sent to nobody.
    all("rcpt => 550 5.1.1 no\ndata => 554 5.5.1 no valid recipients", "unknown 550 5.1.1 no");
    all("rcpt => 550 5.1.1 no\ndata => drop", "unknown 550 5.1.1 no");
    all("rcpt => 452 4.5.3 too many", "deferred 452 4.5.3 too many");
    all("rcpt => 552 too many", "deferred 452 4.5.3 too many");
}

#[test]
fn data_and_dot() {
    all("data => 451 4.3.0 later", "deferred 451 4.3.0 later");
    all("data => 554 5.6.0 no", "refused 554 5.6.0 no");
    all("data => 503 5.5.1 what", "deferred 451 4.5.1...503 5.5.1 what");
    all("data => 250 what", "deferred 451 4.4.1...250 what");
    all("data => drop", "deferred 451 4.4.2");
    all("data => stall", "deferred 451 4.4.1");
    all("dot => 250 2.6.0 <id> queued", "accepted 250 2.6.0 <id> queued");
    all("dot => 451 4.3.0 later", "deferred 451 4.3.0 later");
    all("dot => 421 4.3.2 bye", "deferred 451 4.3.2...421 4.3.2 bye");
    all("dot => 421 bye", "deferred 451 4.4.1...421 bye");
    all("data => 421 4.3.2 bye", "deferred 451 4.3.2...421 4.3.2 bye");
    all("dot => 550 5.7.1 spam", "refused 550 5.7.1 spam");
    for code in ["550 5.1.1", "550 5.1.2", "550 5.1.6", "550 5.1.10", "550 5.4.1"] {
        all(&format!("dot => {code} no such user"), &format!("unknown {code} no such user"));
    }
    // Only codes count here, not words.
    all("dot => 550 no such user", "refused 550 no such user");
    all("dot => 550 5.7.1 Unable to relay", "refused 550 5.7.1 Unable to relay");
    all("dot => 550 5.7.64 Unable to relay", "deferred 451 4.7.64...Unable to relay");
    all("dot => 552 5.3.4 too large", "refused 552 5.3.4 too large");
    all("dot => 530 5.7.0 authenticate", "deferred 451 4.7.0");
    all("dot => 354 what", "deferred 451 4.4.2...outcome unknown");
    all("dot => drop", "deferred 451 4.4.2...outcome unknown");
    all("dot => stall", "deferred 451 4.4.2...outcome unknown");
}

#[test]
fn some_are_answered_before_it_breaks() {
    let b = "rcpt to:<b => 550 5.1.1 no\n";
    let unknown = "unknown 550 5.1.1 no";
    case(&format!("{b}dot => 554 5.6.0 no"), ["refused 554 5.6.0 no", unknown, "refused 554 5.6.0 no"]);
    case(&format!("{b}data => drop"), ["deferred 451 4.4.2", unknown, "deferred 451 4.4.2"]);
    case(&format!("{b}dot => drop"), ["deferred 451 4.4.2...unknown", unknown, "deferred 451 4.4.2...unknown"]);
    case(&format!("{b}rcpt to:<c => 421 bye"), ["deferred 451 4.4.1", unknown, "deferred 451 4.4.1...421 bye"]);
}
