//! Clients that guess passwords: what is asked, what is not, and who is told to come later.

use crate::auth::inbound::{door, line};
use crate::tls::fixture::{TlsSystems, python};
use support::slapd::{BASE, READER, Slapd};

/// Each of `guesses` (client address, user, password) on a connection of its own, all at once: the codes in order.
const GUESS: &str = "from concurrent.futures import ThreadPoolExecutor\n\
                     def guess(who):\n\
                     \x20   source, user, password = who\n\
                     \x20   client = smtplib.SMTP(host, port, source_address=(source, 0), timeout=30)\n\
                     \x20   client.starttls(context=context)\n\
                     \x20   client.ehlo()\n\
                     \x20   secret = base64.b64encode(f'\\0{user}\\0{password}'.encode()).decode()\n\
                     \x20   code = client.docmd('AUTH PLAIN ' + secret)[0]\n\
                     \x20   client.quit()\n\
                     \x20   return str(code)\n\
                     with ThreadPoolExecutor(45) as pool: print(' '.join(pool.map(guess, guesses)))\n";

pub(crate) fn guess(systems: &TlsSystems, guesses: &[(&str, &str, &str)]) -> String {
    let listed: Vec<String> =
        guesses.iter().map(|(source, user, password)| format!("({source:?}, {user:?}, {password:?})")).collect();
    python(systems.node.smtp, None, &format!("guesses = [{}]\n{GUESS}", listed.join(", "))).trim().to_owned()
}

pub(crate) fn counted(systems: &TlsSystems, result: &str) -> f64 {
    let series = format!("fingerpost_authentications_total{{receive_connector=\"door\",result=\"{result}\"}}");
    systems.node.metric(&series).unwrap()
}

pub(crate) const HERE: &str = "127.0.0.1";
pub(crate) const ELSEWHERE: &str = "127.0.0.9";

#[test]
fn twenty_wrong_passwords_close_a_client_to_those_who_never_logged_in_from_there() {
    let mut systems = TlsSystems::prepare();
    systems.node.write("users", &format!("{}{}", line("scanner", "open sesame"), line("printer", "other words")));
    let door = door(&systems, "users:users");
    systems.start(&door);
    assert_eq!(guess(&systems, &[(HERE, "scanner", "open sesame")]), "235");
    // The same wrong password is one, and asked once.
    assert_eq!(guess(&systems, &[(HERE, "scanner", "old words")]), "535");
    assert_eq!(guess(&systems, &[(HERE, "scanner", "old words"); 30]), ["535"; 30].join(" "));
    assert_eq!((counted(&systems, "rejected"), counted(&systems, "repeated")), (1.0, 30.0));
    assert_eq!(guess(&systems, &[(ELSEWHERE, "Scanner", "old words")]), "535");
    assert_eq!((counted(&systems, "rejected"), counted(&systems, "repeated")), (1.0, 31.0));

    let words: Vec<String> = (0..19).map(|number| format!("guess{number}")).collect();
    let guesses: Vec<_> = words.iter().map(|word| (HERE, word.as_str(), word.as_str())).collect();
    assert_eq!(guess(&systems, &guesses), ["535"; 19].join(" "));
    let after =
        [(HERE, "printer", "other words"), (HERE, "scanner", "open sesame"), (ELSEWHERE, "printer", "other words")];
    assert_eq!(guess(&systems, &after), "454 235 235");
    assert_eq!((counted(&systems, "rejected"), counted(&systems, "limited")), (20.0, 1.0));
    let log = systems.node.logged(&["20 different passwords failed from this client"]);
    assert_eq!(log.matches("20 different passwords failed").count(), 1, "told once");

    // A users file that has changed is asked again; who logged in from where is known after a restart.
    systems.node.write("users", &format!("{}{}", line("scanner", "old words"), line("printer", "other words")));
    assert_eq!(guess(&systems, &[(HERE, "scanner", "old words")]), "235");
    systems.node.stop();
    systems.node.start();
    assert_eq!(guess(&systems, &guesses), ["535"; 19].join(" "));
    assert_eq!(guess(&systems, &[(HERE, "one", "more")]), "535");
    assert_eq!(guess(&systems, &[(HERE, "printer", "other words"), (HERE, "scanner", "old words")]), "454 235");
    let log = systems.node.log();
    for secret in ["sesame", "other words", "old words"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn strangers_do_not_lock_an_account() {
    let mut slapd = Slapd::start();
    slapd.add_person("ann", "mail: ann@contoso.com\nmailLocalAddress: ann.b@contoso.com\nuserPassword: open sesame");
    slapd.add_person("bob", "mail: bob@contoso.com\nuserPassword: other words");
    let mut systems = TlsSystems::prepare();
    let (url, ca, password) = (slapd.tls_url(), slapd.ca(), slapd.password_file());
    let directory = format!(
        "[[directory]]\nname = \"ldap\"\nprofile = \"openldap\"\nurls = [\"{url}\"]\nbase = [\"{BASE}\"]\n\
         tls = {{ ca = \"{}\" }}\nbind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.com\"\n",
        ca.display(),
        password.display()
    );
    let tables = door(&systems, "directory") + &directory;
    systems.start(&tables);
    assert_eq!(guess(&systems, &[(HERE, "ann", "open sesame")]), "235");
    // 40 passwords from 40 addresses, at once, by three names of one account.
    let names = ["ann", "ann@contoso.com", "Ann.B@contoso.com"];
    let words: Vec<(String, String)> = (0..40).map(|at| (format!("127.0.1.{at}"), format!("guess{at}"))).collect();
    let guesses: Vec<_> =
        words.iter().zip(names.iter().cycle()).map(|((from, word), name)| (&**from, *name, &**word)).collect();
    let codes = guess(&systems, &guesses);
    assert_eq!((codes.matches("535").count(), codes.matches("454").count()), (3, 37), "{codes}");
    assert_eq!((counted(&systems, "rejected"), counted(&systems, "limited")), (3.0, 37.0));
    // Ann, from where she always is; somebody else, from anywhere.
    assert_eq!(guess(&systems, &[(HERE, "ann", "open sesame"), (ELSEWHERE, "bob", "other words")]), "235 235");
    assert_eq!(guess(&systems, &[(ELSEWHERE, "ann", "open sesame")]), "454");
    systems.node.logged(&["three wrong passwords reached this account"]);
    slapd.stop();
}
