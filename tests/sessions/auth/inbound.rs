//! Clients that say who they are.

use std::process::{Command, Stdio};

use crate::tls::fixture::{SOON, TlsSystems, python, tls};
use support::daemon::run;
use support::samba_ad::{self, SambaAd};
use support::slapd::{BASE, READER, Slapd};
use support::wait_until;

/// Asks as `user` with `password`: how AUTH and then RCPT elsewhere are answered.
const ASK: &str = "client = smtplib.SMTP(host, port)\n\
                   client.starttls(context=context)\n\
                   client.ehlo()\n\
                   client.user, client.password = user, password\n\
                   began = time.monotonic()\n\
                   method = {'plain': client.auth_plain, 'login': client.auth_login}[mechanism]\n\
                   try: code = client.auth(mechanism.upper(), method)[0]\n\
                   except smtplib.SMTPAuthenticationError as error:\n\
                   \x20   code = error.smtp_code\n\
                   \x20   assert code != 535 or time.monotonic() - began >= 0.9, 'a failure is told at once'\n\
                   client.mail('a@b.test')\n\
                   print(code, client.rcpt('x@outside.test')[0], client.rcpt('ann@contoso.test')[0])\n\
                   client.quit()\n";

fn ask(systems: &TlsSystems, mechanism: &str, (user, password): (&str, &str)) -> String {
    let who = format!("mechanism, user, password = {mechanism:?}, {user:?}, {password:?}\n");
    python(systems.node.smtp, None, &(who + ASK)).trim().to_owned()
}

/// One door that anybody may use to relay who authenticates so.
pub(crate) fn door(systems: &TlsSystems, auth: &str) -> String {
    let issued = systems.authority.issue(&["mx.contoso.test"]);
    let tls = tls("opportunistic", &issued, "");
    format!(
        "[[receive_connector]]\nname = \"door\"\nbind = [\"{{smtp}}\"]\nrelay = \"anywhere\"\nauth = \"{auth}\"\n{tls}\n"
    )
}

/// A line of a users file, made as the manual says.
pub(crate) fn line(name: &str, password: &str) -> String {
    format!("{name}:{}", run(Command::new("openssl").args(["passwd", "-6", password])))
}

#[test]
fn who_is_in_the_users_file_may_send_anywhere() {
    let mut systems = TlsSystems::prepare();
    let users = format!("# devices\n{}{}", line("scanner", "open sesame"), line("ann@contoso.test", "other words"));
    systems.node.write("users", &users);
    let door = door(&systems, "users:users");
    systems.start(&door);
    for mechanism in ["plain", "login"] {
        for (who, expected) in [
            (("scanner", "open sesame"), "235 250 250"),
            (("Ann@contoso.test", "other words"), "235 250 250"),
            (("scanner", "other words"), "535 550 250"),
            (("nobody", "open sesame"), "535 550 250"),
            (("scanner", ""), "535 550 250"),
        ] {
            assert_eq!(ask(&systems, mechanism, who), expected, "{mechanism} {who:?}");
        }
        swaks_sends(&systems, mechanism);
    }
    // A line that is added holds at once.
    systems.node.write("users", &(users + &line("printer", "new words")));
    assert_eq!(ask(&systems, "plain", ("printer", "new words")), "235 250 250");
    systems.node.write("users", "printer:plain\n");
    assert_eq!(ask(&systems, "plain", ("printer", "new words")), "454 550 250");
    let log = systems.node.logged(&["authenticated user=\"scanner\"", "authentication failed user=\"nobody\""]);
    for secret in ["sesame", "other words", "new words", "$6$"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    // It would not start with such a file either.
    let reload = systems.node.run(&["reload"]);
    assert!(!reload.status.success() && String::from_utf8_lossy(&reload.stdout).contains("users:1"), "{reload:?}");
}

fn swaks_sends(systems: &TlsSystems, mechanism: &str) {
    let before = systems.outside.all().len();
    let mut swaks = Command::new("swaks");
    let (host, port) = (systems.node.smtp.ip().to_string(), systems.node.smtp.port().to_string());
    swaks.args(["--server", &host, "--port", &port, "--tls", "--auth", mechanism, "--auth-user", "scanner"]);
    swaks.args(["--auth-password", "open sesame", "--from", "scanner@contoso.test", "--to", "x@outside.test"]);
    let output = swaks.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_until("the scanner's mail outside", SOON, || systems.outside.all().len() == before + 1);
    let mail = String::from_utf8_lossy(&systems.outside.all()[before].bytes).into_owned();
    assert!(mail.contains("with ESMTPSA id"), "{mail}");
}

#[test]
fn passwords_are_taken_over_tls_only_and_not_guessed_for_long() {
    let mut systems = TlsSystems::prepare();
    systems.node.write("users", &line("scanner", "open sesame"));
    let door = door(&systems, "users:users");
    systems.start(&door);
    let script = "secret = base64.b64encode(b'\\0scanner\\0open sesame').decode()\n\
                  client = smtplib.SMTP(host, port)\n\
                  client.ehlo()\n\
                  print('auth' in client.esmtp_features, client.docmd('AUTH PLAIN ' + secret)[0], end=' ')\n\
                  client.starttls(context=context)\n\
                  client.ehlo()\n\
                  print(client.esmtp_features['auth'].strip(), end=' ')\n\
                  for _ in range(3): print(client.docmd('AUTH PLAIN AGEAYg==')[0], end=' ')\n\
                  print(client.getreply()[0])\n";
    assert_eq!(python(systems.node.smtp, None, script).trim(), "False 538 PLAIN LOGIN 535 535 535 421");
}

#[test]
fn who_is_in_the_directory_logs_in_with_its_password() {
    let mut slapd = Slapd::start();
    slapd.add_person("ann", "mail: ann@contoso.com\nmailLocalAddress: ann.b@contoso.com\nuserPassword: open sesame");
    slapd.add_person("bob", "mail: bob@contoso.com");
    slapd.add_person("twin1", "mail: twin@contoso.com\nuserPassword: open sesame");
    slapd.add_person("twin2", "mail: twin@contoso.com\nuserPassword: open sesame");
    let mut systems = TlsSystems::prepare();
    let (url, ca, password) = (slapd.tls_url(), slapd.ca(), slapd.password_file());
    let directory = format!(
        "[[directory]]\nname = \"ldap\"\nprofile = \"openldap\"\nurls = [\"{url}\"]\nbase = [\"{BASE}\"]\n\
         tls = {{ ca = \"{}\" }}\nbind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.com\"\n\
         timeout = \"2s\"\n",
        ca.display(),
        password.display()
    );
    let tables = door(&systems, "directory") + &directory;
    systems.start(&tables);
    for mechanism in ["plain", "login"] {
        for (who, expected) in [
            (("ann@contoso.com", "open sesame"), "235 250 250"),
            (("Ann.B@contoso.com", "open sesame"), "235 250 250"),
            (("ann", "open sesame"), "235 250 250"),
            (("ann", "open"), "535 550 250"),
            (("ann", ""), "535 550 250"),
            (("*", "open sesame"), "535 550 250"),
            (("bob", "open sesame"), "535 550 250"),
            (("nobody@contoso.com", "open sesame"), "535 550 250"),
            (("twin@contoso.com", "open sesame"), "454 550 250"),
        ] {
            assert_eq!(ask(&systems, mechanism, who), expected, "{mechanism} {who:?}");
        }
    }
    // A directory that has gone blind does not know that there is no such name.
    slapd.configure("olcAccess", "{0}to attrs=userPassword by anonymous auth by * none");
    assert_eq!(ask(&systems, "plain", ("somebody@contoso.com", "open sesame")), "454 550 250");
    slapd.stop();
    assert_eq!(ask(&systems, "plain", ("ann", "open sesame")), "454 550 250");
    slapd.restart();
    slapd.configure("olcAccess", "{0}to attrs=userPassword by anonymous auth by * none");
    slapd.configure("olcAccess", "{0}to * by * read");
    wait_until("the directory again", SOON, || ask(&systems, "login", ("ann", "open sesame")) == "235 250 250");
    let log = systems.node.logged(&["user=\"ann\""]);
    assert!(!log.contains("sesame"), "{log}");
}

#[test]
fn windows_accounts_log_in_by_any_of_their_names_while_they_are_enabled() {
    let samba = SambaAd::start();
    let change = |what: &str| {
        samba.modify(&format!("dn: CN=fingerpost,CN=Users,{}\nchangetype: modify\n{what}\n", samba_ad::BASE));
    };
    change("add: proxyAddresses\nproxyAddresses: SMTP:finger.post@contoso.test");
    let mut systems = TlsSystems::prepare();
    let directory = format!(
        "[[directory]]\nname = \"ad\"\nurls = [\"{}\"]\nbase = [\"{}\"]\ntls = {{ ca = \"{}\" }}\n\
         bind_dn = \"{}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.test\"\n",
        samba.tls_url(),
        samba_ad::BASE,
        samba.ca().display(),
        samba_ad::ADMIN,
        samba.password_file().display()
    );
    let tables = door(&systems, "directory") + &directory;
    systems.start(&tables);
    let right = samba_ad::READER_PASSWORD;
    for (who, expected) in [
        (("fingerpost", right), "235 250 250"),
        (("CONTOSO\\fingerpost", right), "235 250 250"),
        (("fingerpost@contoso.test", right), "235 250 250"),
        (("Finger.Post@contoso.test", right), "235 250 250"),
        (("fingerpost", "Passw0rd-3"), "535 550 250"),
        (("nobody", right), "535 550 250"),
    ] {
        assert_eq!(ask(&systems, "login", who), expected, "{who:?}");
    }
    change("replace: userAccountControl\nuserAccountControl: 514");
    assert_eq!(ask(&systems, "login", ("fingerpost", right)), "535 550 250");
}
