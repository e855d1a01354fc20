//! Accepted domains are changed without a restart: under load, with files that are broken or gone for a moment.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::senders::Raw;
use support::two_systems::{DOMAINS, FILE_DIRECTORY, TwoSystems, accepted, message};
use support::wait_until;

const FILE: &str = "domains.d/domains.toml";
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_domain_changes_its_type_under_load_and_no_session_fails() {
    let mut systems = TwoSystems::prepare(FILE_DIRECTORY);
    systems.node.start();
    let over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (server, over, sent) = (systems.node.smtp, over.clone(), sent.clone());
            std::thread::spawn(move || {
                let mut raw = Raw::hello(server);
                while !over.load(Ordering::SeqCst) {
                    let n = sent.fetch_add(1, Ordering::SeqCst);
                    let to = format!("known{}@contoso.test", n % 100);
                    assert!(
                        accepted(&mut raw, &to, &message(&format!("reload-{sender}-{n}"), 1000)),
                        "a session failed"
                    );
                }
            })
        })
        .collect();

    // A transaction that begins before the change keeps the configuration that it began with.
    let mut before = Raw::hello(systems.node.smtp);
    assert_eq!(before.say("MAIL FROM:<s@sender.test>").0, 250);
    assert_eq!(unknown(&mut Raw::hello(systems.node.smtp)), 550);

    let at_change = sent.load(Ordering::SeqCst);
    systems.node.write(FILE, &DOMAINS.replace("\"authoritative\"", "\"internal-relay\""));
    wait_until("the next transaction uses the change", LIMIT, || unknown(&mut Raw::hello(systems.node.smtp)) == 250);
    assert_eq!(before.say("RCPT TO:<nobody@fabrikam.test>").0, 550, "a transaction in progress changed its mind");
    assert_eq!(unknown(&mut before), 250, "the same session's next transaction uses the change");

    wait_until("load after the change", LIMIT, || sent.load(Ordering::SeqCst) > at_change + 100);
    over.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().expect("no session fails");
    }
    let sent = sent.load(Ordering::SeqCst);
    wait_until("every message, once", Duration::from_secs(30), || systems.copies().len() == sent);
    assert!(systems.copies().values().all(|copies| *copies == 1), "something arrived twice");
    println!("{sent} messages over 4 sessions during the change, none lost, none twice");
}

#[test]
fn broken_and_vanishing_files_change_nothing() {
    let mut systems = TwoSystems::prepare(FILE_DIRECTORY);
    systems.node.start();
    let reloads = |systems: &TwoSystems, result: &str| {
        systems.node.metric(&format!("fingerpost_config_reloads_total{{result=\"{result}\"}}")).unwrap_or(0.0)
    };
    let mut session = Raw::hello(systems.node.smtp);
    assert_eq!(unknown(&mut session), 550);

    systems.node.write(FILE, &DOMAINS.replace("authoritative", "authoritarian"));
    wait_until("the broken file is refused", LIMIT, || reloads(&systems, "refused") >= 1.0);
    assert!(systems.node.log().contains("authoritarian"), "the log does not show the line");
    assert_eq!(unknown(&mut session), 550);
    let status = systems.node.run(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("authoritarian"), "status does not show the error");

    let refused = reloads(&systems, "refused");
    fs::remove_file(systems.node.path(FILE)).expect("it is there");
    wait_until("a second later", LIMIT, {
        let since = std::time::Instant::now();
        move || since.elapsed() > Duration::from_secs(1)
    });
    assert_eq!(unknown(&mut session), 550);
    systems.node.write(FILE, DOMAINS);
    let applied = reloads(&systems, "applied");
    wait_until("the quiet after the restored file", LIMIT, || reloads(&systems, "unchanged") >= 1.0);
    assert_eq!(
        (reloads(&systems, "applied"), reloads(&systems, "refused")),
        (applied, refused),
        "something was applied"
    );
    assert_eq!(unknown(&mut session), 550);
}

#[test]
fn an_explicit_reload_and_a_signal_say_what_they_did() {
    let mut systems = TwoSystems::prepare(FILE_DIRECTORY);
    systems.node.start();
    let reload = systems.node.run(&["reload"]);
    assert!(reload.status.success(), "{reload:?}");
    assert!(String::from_utf8_lossy(&reload.stdout).contains("unchanged"), "{reload:?}");

    systems.node.write(FILE, &DOMAINS.replace("\"authoritative\"", "\"internal-relay\""));
    systems.node.signal("HUP");
    wait_until("SIGHUP reloads", LIMIT, || unknown(&mut Raw::hello(systems.node.smtp)) == 250);

    systems.node.write(FILE, "");
    let refused = systems.node.run(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(unknown(&mut Raw::hello(systems.node.smtp)), 250, "a refused reload changed something");
}

#[test]
fn most_domains_vanishing_needs_consent() {
    let mut systems = TwoSystems::prepare(FILE_DIRECTORY);
    let many: String = (0..10)
        .map(|n| {
            format!("[[accepted_domain]]\ndomain = \"d{n}.test\"\ntype = \"authoritative\"\ndeliver_to = \"primary\"\n")
        })
        .collect();
    systems.node.write("domains.d/many.toml", &many);
    systems.node.start();
    fs::remove_file(systems.node.path("domains.d/many.toml")).expect("it is there");
    let held = systems.node.run(&["reload"]);
    assert_eq!(held.status.code(), Some(1), "{held:?}");
    let mut session = Raw::hello(systems.node.smtp);
    assert_eq!(answer(&mut session, "nobody@d3.test").0, 550);
    let accept = systems.node.run(&["reload", "--accept"]);
    assert!(accept.status.success(), "{accept:?}");
    let (code, text) = answer(&mut session, "nobody@d3.test");
    assert_eq!(code, 451, "{text}");
    assert!(text.starts_with("451 4.3.2"), "a domain removed within the hour: {text}");
}

/// The reply to RCPT for somebody whom no directory has, of the authoritative domain.
fn unknown(session: &mut Raw) -> u16 {
    answer(session, "nobody@fabrikam.test").0
}

fn answer(session: &mut Raw, to: &str) -> (u16, String) {
    session.say("RSET");
    assert_eq!(session.say("MAIL FROM:<s@sender.test>").0, 250);
    session.say(&format!("RCPT TO:<{to}>"))
}
