//! One truth about conflicts: the command, the API, the page and the metric say of Samba's Active Directory beside files,
//! one of them of a `verify_with`, what can be known in either mode.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::active_directory::config;
use crate::snapshot_active_directory::mailbox;
use support::samba_ad::{ADMIN, BASE, SambaAd};
use support::tables::BASE_TABLES;
use support::test_node::TestNode;
use support::wait_until;

/// `ad` is asked first, then `wave`; `theirs` vouches for the other organisation's people.
fn prepare_node(samba: &SambaAd, mode: &str) -> TestNode {
    let ad = config(samba);
    let (urls, password) = (&ad.urls, samba.password_file());
    let node = TestNode::prepare();
    node.write("wave.csv", "address\nbob@contoso.test\ndora@contoso.test\n");
    node.write("theirs.csv", "address\nalice@contoso.test\ncarol@contoso.test\ncarol@contoso.test\n");
    let text = format!(
        "{BASE_TABLES}[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n\n\
         [[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\ndeliver_to = \"exchange\"\n\n\
         [[directory]]\nname = \"ad\"\nprofile = \"active-directory\"\nurls = {urls:?}\nbase = [\"{BASE}\"]\n\
         bind_dn = \"{ADMIN}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.test\"\nmode = \"{mode}\"\n\n\
         [[directory]]\nname = \"wave\"\nkind = \"file\"\npath = \"wave.csv\"\n\n\
         [[directory]]\nname = \"theirs\"\nkind = \"file\"\npath = \"theirs.csv\"\n\n\
         [[send_connector]]\nname = \"exchange\"\norganization = \"primary\"\nsmart_hosts = [\"[127.0.0.1]:9\"]\n\n\
         [[send_connector]]\nname = \"groupwise\"\norganization = \"secondary\"\nsmart_hosts = [\"[127.0.0.2]:9\"]\n\
         delivery = \"queue\"\nverify_with = \"theirs\"\naddress_spaces = [{{ domain = \"contoso.test\" }}]\n",
        password.display()
    );
    node.write("fingerpost.toml", &text);
    node
}

fn said(node: &TestNode, arguments: &[&str]) -> Value {
    let output = node.run(&[arguments, &["--format", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What the API's door answers, with the token; for the page, as a browser sends it.
fn got(node: &TestNode, path: &str) -> String {
    let token = std::fs::read_to_string(node.path("state/admin.token")).unwrap();
    let mut stream = TcpStream::connect(node.admin()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let shown = match path {
        "/" => format!("Basic {}", BASE64_STANDARD.encode(format!("x:{}", token.trim()))),
        _ => format!("Bearer {}", token.trim()),
    };
    let asks = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {shown}\r\nConnection: close\r\n\r\n");
    stream.write_all(asks.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body.to_owned()
}

/// All of them say that each directory has so many, and these addresses.
fn all_say(node: &TestNode, counts: [(&str, i32); 3], addresses: &[&str]) {
    let counted = |(name, count): (&str, i32)| {
        node.metric(&format!("fingerpost_directory_conflicts{{directory=\"{name}\"}}")) == Some(f64::from(count))
    };
    wait_until(&format!("the metric says {counts:?}"), Duration::from_secs(30), || counts.into_iter().all(counted));
    let listed = said(node, &["directory", "conflicts"]);
    let of = |listed: &Value| -> Vec<String> {
        let each = listed.as_array().unwrap().iter();
        each.map(|one| one["address"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of(&listed), addresses);
    let api: Value = serde_json::from_str(&got(node, "/api/directories/conflicts")).unwrap();
    assert_eq!(api, listed);
    let status: Value = serde_json::from_str(&got(node, "/api/status")).unwrap();
    for stats in [&said(node, &["directory", "stats"]), &status["directories"]] {
        let each = stats.as_array().unwrap().iter();
        let told: Vec<_> =
            each.map(|one| (one["name"].as_str().unwrap(), one["conflicts"].as_i64().unwrap())).collect();
        assert_eq!(told, counts.map(|(name, count)| (name, i64::from(count))));
    }
    let page = got(node, "/");
    let shown: i32 = counts.iter().map(|(_, count)| count).sum();
    assert_eq!(page.matches("conflicts: 1;").count(), usize::try_from(shown).unwrap(), "{page}");
}

/// Whom each directory, asked itself, has, and what is decided.
fn asked(node: &TestNode, address: &str) -> (Vec<String>, String) {
    let looked = said(node, &["directory", "lookup", address]);
    let found = looked["answers"].as_array().unwrap().iter().filter(|one| one["result"] == "found");
    let found = found.map(|one| one["directory"].as_str().unwrap().to_owned()).collect();
    (found, looked["decision"]["verdict"].as_str().unwrap().to_owned())
}

#[test]
fn all_say_the_same_of_conflicts_in_either_mode() {
    let samba = SambaAd::start();
    for name in ["alice", "bob"] {
        samba.add("user", name, &mailbox(&format!("{name}@contoso.test")));
    }

    // In memory it is known as a whole: bob is in it and in a file that resolves as well. Alice, who stands in the file of
    // `verify_with`, is nobody else's: it is asked only about whom the others do not have. Carol is there twice.
    let mut node = prepare_node(&samba, "snapshot");
    node.start();
    all_say(&node, [("ad", 0), ("wave", 1), ("theirs", 1)], &["bob@contoso.test", "carol@contoso.test"]);
    let listed = said(&node, &["directory", "conflicts"]);
    assert_eq!((&listed[0]["decides"], &listed[1]["decides"]), (&Value::from("ad"), &Value::Null));
    let entries = listed[0]["entries"].as_array().unwrap();
    assert_eq!(entries[0], "CN=bob,CN=Users,DC=contoso,DC=test");
    assert!(entries[1].as_str().unwrap().ends_with("wave.csv:2"), "{listed}");
    let found = |names: &[&str]| (names.iter().map(ToString::to_string).collect(), "resolved".to_owned());
    assert_eq!(asked(&node, "alice@contoso.test"), found(&["ad", "theirs"]));
    node.stop();

    // Asked for each recipient, what it has nobody knows: only the files are compared. Of one address both say what they
    // have, and the first decides.
    let mut node = prepare_node(&samba, "lookup");
    node.start();
    all_say(&node, [("ad", 0), ("wave", 0), ("theirs", 1)], &["carol@contoso.test"]);
    assert_eq!(asked(&node, "bob@contoso.test"), found(&["ad", "wave"]));
    assert_eq!(asked(&node, "alice@contoso.test"), found(&["ad", "theirs"]));
}
