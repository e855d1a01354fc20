//! What an operator accepts of a directory's changes at one node is accepted at all.

use support::slapd::{BASE, READER, Slapd};
use support::tables::{BASE_TABLES, send_connector};
use support::test_node::TestNode;
use support::wait_until;

use super::*;

const PEOPLE: usize = 14;
const GONE: usize = 8;
const SOON: Duration = Duration::from_secs(30);

fn node(setup: &Setup, slapd: &Slapd, name: &str) -> TestNode {
    let node = TestNode::prepare();
    let database = setup.cluster(name, Standby::Required).database;
    let tables = [
        &BASE_TABLES.replace("[server]\n", "[server]\ninstallation = \"contoso\"\n"),
        "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n",
        "[[accepted_domain]]\ndomain = \"contoso.com\"\ndeliver_to = \"primary\"\n\n",
        &send_connector("primary", "127.0.0.2:9".parse().unwrap(), ""),
        &format!(
            "[[directory]]\nname = \"ldap\"\nprofile = \"openldap\"\nurls = [\"{}\"]\nbase = [\"{BASE}\"]\n\
             bind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.com\"\n\n",
            slapd.url(),
            slapd.password_file().display()
        ),
        &format!("[cluster]\ndatabase = \"{database}\"\nnode = \"{name}\"\n"),
    ];
    node.write("fingerpost.toml", &tables.concat());
    node
}

/// What `fingerpost directory refresh ldap` with more arguments prints.
fn refresh(node: &TestNode, more: &[&str]) -> String {
    let output = node.run(&[&["directory", "refresh", "ldap"], more].concat());
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn held(node: &TestNode) -> Option<f64> {
    node.metric("fingerpost_directory_changes_held{directory=\"ldap\"}")
}

#[test]
fn a_whole_read_of_one_node_is_one_of_all() {
    let setup = Setup::start();
    let slapd = Slapd::start();
    slapd.stop_streaming();
    for number in 0..PEOPLE {
        slapd.add_person(&format!("u{number}"), &format!("mail: u{number}@contoso.com\n"));
    }
    let mut nodes = ["a", "b"].map(|name| node(&setup, &slapd, name));
    let made = nodes[0].run(&["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    nodes.iter_mut().for_each(TestNode::start);
    let has = |node: &TestNode, people: usize| {
        let stats = node.run(&["directory", "stats"]);
        String::from_utf8_lossy(&stats.stdout).contains(&format!("{} recipients", people + 1))
    };
    nodes.iter().for_each(|node| wait_until("it is read", SOON, || has(node, PEOPLE)));
    wait_until("the reads are told", SOON, || setup.rows("directory_read") == 1);
    slapd.modify(&format!("dn: uid=u0,{BASE}\nchangetype: delete\n\n"));
    // Another node reads it well after these.
    setup.primary.sql("UPDATE fingerpost.directory_read SET at = at + 40");
    for node in &nodes {
        wait_until("what is gone is gone at all", Duration::from_secs(20), || has(node, PEOPLE - 1));
        assert_eq!(node.log().matches("another node has read it as a whole").count(), 1, "{}", node.log());
    }
}

#[test]
fn what_is_accepted_at_one_node_is_accepted_at_all() {
    let setup = Setup::start();
    let slapd = Slapd::start();
    for number in 0..PEOPLE {
        slapd.add_person(&format!("u{number}"), &format!("mail: u{number}@contoso.com\n"));
    }
    let mut nodes = ["a", "b", "c"].map(|name| node(&setup, &slapd, name));
    let made = nodes[0].run(&["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    let [a, b, late] = &mut nodes;
    for node in [&mut *a, &mut *b, &mut *late] {
        node.start();
        let mut told = String::new();
        let is_read = || {
            told = refresh(node, &[]);
            told.starts_with("ldap: ")
        };
        assert!(support::within(SOON, is_read), "{told}");
    }
    let gone = |number: usize| format!("dn: uid=u{number},{BASE}\nchangetype: delete\n\n");
    slapd.modify(&(0..GONE).map(gone).collect::<String>());
    // The last node has not read it yet when it is accepted.
    for node in [&*a, &*b] {
        wait_until("it is held", SOON, || {
            refresh(node, &[]);
            held(node) == Some(GONE as f64)
        });
    }
    let told = refresh(a, &["--accept"]);
    assert!(told.contains(&format!("mail for {GONE} of them takes another way")), "{told}");
    for node in [&*a, &*b, &*late] {
        refresh(node, &[]);
        wait_until("it is accepted", SOON, || held(node) == Some(0.0));
        let found = node.run(&["directory", "lookup", "u0@contoso.com"]);
        assert!(String::from_utf8_lossy(&found.stdout).contains("not found"), "{found:?}");
    }
    // And what is expected at one is expected at all.
    let expected = b.run(&["directory", "expect", "ldap", "--count", "6", "--for", "1h"]);
    assert!(expected.status.success(), "{expected:?}");
    slapd.modify(&(GONE..PEOPLE - 1).map(gone).collect::<String>());
    refresh(a, &[]);
    assert_eq!(held(a), Some(0.0), "{}", a.log());
}
