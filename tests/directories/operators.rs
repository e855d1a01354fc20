//! What an operator sees of changes that are held, and does about them, by the commands of the manual: on Samba's Active
//! Directory with Exchange's attributes.

use std::path::Path;
use std::time::Duration;

use support::samba_ad::{BASE, READER, SambaAd};
use support::tables::BASE_TABLES;
use support::test_node::TestNode;
use support::wait_until;

const PEOPLE: usize = 14;

fn prepare_node(samba: &SambaAd, password: &Path) -> TestNode {
    let node = TestNode::prepare();
    node.write(
        "fingerpost.toml",
        &format!(
            "{BASE_TABLES}[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n\n\
             [[accepted_domain]]\ndomain = \"contoso.test\"\ndeliver_to = \"exchange\"\n\n\
             [[send_connector]]\nname = \"exchange\"\nsmart_hosts = [\"[127.0.0.1]:9\"]\n\n\
             [[directory]]\nname = \"ad\"\nprofile = \"active-directory\"\nurls = [\"{}\"]\nbase = [\"{BASE}\"]\n\
             bind_dn = \"{READER}\"\npassword_file = \"{}\"\ntls = {{ ca = \"{}\" }}\n\
             probe = \"postmaster@contoso.test\"\n",
            samba.tls_url(),
            password.display(),
            samba.ca().display()
        ),
    );
    node
}

/// What a command of `fingerpost directory` prints, and its exit code.
fn directory(node: &TestNode, arguments: &[&str]) -> (String, Option<i32>) {
    let output = node.run(&[&["directory"], arguments].concat());
    (String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), output.status.code())
}

/// The same for `refresh`, which says `try again` (2) while the directory is being connected to, or read.
fn refresh(node: &TestNode) -> (String, Option<i32>) {
    let mut told = (String::new(), None);
    wait_until("it is read", Duration::from_secs(30), || {
        told = directory(node, &["refresh", "ad"]);
        told.1 != Some(2)
    });
    told
}

fn person(n: usize, change: &str) -> String {
    format!("dn: CN=u{n},CN=Users,{BASE}\nchangetype: {change}\n\n")
}

#[test]
fn the_list_of_what_is_held_can_be_handed_back_as_it_is() {
    let mut samba = SambaAd::start();
    let password = samba.reader_password_file();
    let remote = "objectClass: user\nmsExchRecipientTypeDetails: 2147483648";
    let people = (0..PEOPLE).map(|n| {
        let own = format!(
            "add\n{remote}\nsAMAccountName: u{n}\nproxyAddresses: SMTP:u{n}@contoso.test\nmailNickname: u{n}\n\
             legacyExchangeDN: /o=Contoso/ou=EU/cn=Recipients/cn=u{n}\ntargetAddress: SMTP:u{n}@other.example"
        );
        person(n, &own)
    });
    samba.modify(&people.collect::<String>());
    let mut node = prepare_node(&samba, &password);
    node.start();
    assert_eq!(refresh(&node).1, Some(0));

    // Exchange's own names are taken with the addresses, and do not stand in the list beside them.
    samba.modify(&(0..8).map(|n| person(n, "delete")).collect::<String>());
    let (told, code) = refresh(&node);
    assert!(told.contains("it would for 8 more") && code == Some(1), "{told}");
    let (listed, _) = directory(&node, &["held", "ad", "--format", "csv"]);
    let names: Vec<&str> = listed.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!((names.len(), names[1], names[8]), (9, "u0@contoso.test", "u7@contoso.test"));
    node.write("nobody.txt", "nobody@contoso.test\n");
    let list = node.path("nobody.txt");
    let (told, code) = directory(&node, &["refresh", "ad", "--accept", "--only", list.to_str().unwrap()]);
    assert!(told.contains("none of the addresses in it is held") && code == Some(1), "{told}");
    node.write("held.csv", &listed);
    let list = node.path("held.csv");
    let (told, code) = directory(&node, &["refresh", "ad", "--accept", "--only", list.to_str().unwrap()]);
    assert!(told.contains("mail for 8 of them takes another way") && code == Some(0), "{told}");
    // Names in it do no harm, though nobody has them any more.
    node.write("held.csv", &format!("{listed}/o=contoso/ou=eu/cn=recipients/cn=u0,x\n"));
    let (told, code) = directory(&node, &["refresh", "ad", "--accept", "--only", list.to_str().unwrap()]);
    assert!(told.contains("mail for 0 of them") && code == Some(0), "{told}");

    // A right that is withdrawn: the list says what is wrong.
    let left: Vec<String> = (8..PEOPLE).map(|n| format!("CN=u{n},CN=Users,")).collect();
    samba.hide_of(&left, &["targetAddress"]);
    refresh(&node);
    let (listed, _) = directory(&node, &["held", "ad"]);
    assert!(listed.starts_with("ad: 6 recipients, 6 addresses held\n"), "{listed}");
    assert!(
        listed.contains("of type RemoteUserMailbox without targetAddress: may the bind account read it?"),
        "{listed}"
    );

    // After a restart without the directory nobody knows what is held, and so nobody can mean it.
    node.stop();
    samba.stop();
    node.start();
    let (told, code) = directory(&node, &["held", "ad"]);
    assert!(told.contains("changes were held when the server ended, and still are") && code == Some(1), "{told}");
    assert_eq!(directory(&node, &["refresh", "ad", "--accept"]).1, Some(2));
    // So many at least as had changed before the limit was passed.
    let held = node.metric("fingerpost_directory_changes_held{directory=\"ad\"}");
    assert!(held.is_some_and(|held| (1.0..=6.0).contains(&held)), "{held:?}");
    samba.restart();
    let (told, code) = refresh(&node);
    assert!(told.contains("it would for 6 more") && code == Some(1), "{told}");
    let log = node.log();
    assert!(log.contains("changes were held at the end and still are") && !log.contains("log.target"), "{log}");
}
