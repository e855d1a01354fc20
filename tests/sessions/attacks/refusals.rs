//! Refused recipients in any number: log and trace have the first of them and then sums.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::attacks::fixture::{AttackSetup, names};
use support::test_network::SOON;
use support::wait_until;

const MIB: u64 = 1 << 20;

fn size_of(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.map(|file| file.metadata().map_or(0, |about| about.len())).sum()
}

/// Twenty clients name 10,000 unknown recipients: each is answered, counted, and told singly or in a sum.
#[test]
fn a_flood_of_refused_recipients_leaves_little_behind() {
    let mut setup = AttackSetup::start(1, "[receive_connector.limits]\nunknown_recipients = 0");
    let mut refused = 0;
    for client in 1..=20 {
        let mut raw = setup.from(Ipv4Addr::new(127, 0, 3, client));
        for round in 0..10 {
            if round % 2 == 0 {
                raw = setup.from(Ipv4Addr::new(127, 0, 3, client));
            }
            let long = "y".repeat(50);
            let codes = names(&mut raw, (0..50).map(|number| format!("{long}{client}.{round}.{number}@c.test")));
            assert!(codes.iter().all(|code| *code == 550), "{codes:?}");
            refused += codes.len();
        }
    }
    assert_eq!(refused, 10_000);
    let counted = "fingerpost_recipients_total{domain=\"c.test\",verdict=\"refused\"}";
    assert_eq!(setup.network.node.metric(counted), Some(10_000.0));
    let as_sums = setup.network.node.metric("fingerpost_told_as_sums_total{what=\"refused-recipients\"}").unwrap();
    assert!((9_700.0..=9_900.0).contains(&as_sums), "a hundred a minute are told singly: {as_sums}");
    let log_before = setup.network.node.log();
    setup.network.node.stop();
    let folder = setup.network.node.path("state/trace");
    let log = setup.network.node.log();
    wait_until("the sums", SOON, || setup.network.node.log().contains("told as a sum"));
    assert!(size_of(&folder) < MIB && (log.len() as u64) < MIB, "{} {}", size_of(&folder), log_before.len());

    let mut told = 0;
    for file in std::fs::read_dir(&folder).unwrap().flatten() {
        for line in std::fs::read_to_string(file.path()).unwrap().lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let detail = event["detail"].as_str().unwrap();
            let times = detail.split_once(" recipients in c.test of 127.0.3.").map(|(times, _)| times);
            told += times.map_or(1, |times| times.parse::<u64>().unwrap());
        }
    }
    assert_eq!(told, 10_000, "nothing is missing in the sums");
}

/// `fingerpost trace` finds a sum by an address of its sample.
#[test]
fn a_sum_is_found_by_its_sample() {
    let mut setup = AttackSetup::start(1, "");
    let mut raw = setup.from(Ipv4Addr::new(127, 0, 3, 1));
    assert_eq!(names(&mut raw, (0..15).map(|number| format!("sample{number}@c.test"))), [550; 15]);
    drop(raw);
    setup.network.node.stop();
    setup.network.node.start();
    for (address, words) in
        [("sample3@c.test", "550 5.1.1"), ("sample11@c.test", "5 recipients in c.test of 127.0.3.1")]
    {
        let found = setup.network.node.run(&["trace", "--recipient", address]);
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        assert!(found.contains(words), "{address}: {found}");
    }
    // One that is in the sum and not in its sample: nobody can say more than that it may be.
    let ran = setup.network.node.run(&["trace", "--recipient", "sample14@c.test"]);
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.code() == Some(1) && told.contains("of floods only sums are kept"), "{told}");
    assert!(told.contains("5 refused recipients") && told.contains("try --recipient @c.test"), "{told}");
    let json = setup.network.node.run(&["trace", "--recipient", "sample14@c.test", "--format", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["in_sums"], serde_json::json!({"recipients": 5, "try_recipient": "@c.test"}));
    let found =
        String::from_utf8_lossy(&setup.network.node.run(&["trace", "--recipient", "@c.test"]).stdout).into_owned();
    assert!(found.lines().count() == 11 && found.contains("refused   sum "), "{found}");
    let json = setup.network.node.run(&["trace", "--recipient", "@c.test", "--format", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let sum = &json["events"].as_array().unwrap().last().unwrap()["sum"];
    assert_eq!((&sum["times"], &sum["client"], &sum["domain"]), (&5.into(), &"127.0.3.1".into(), &"c.test".into()));
    assert_eq!(json["in_sums"], serde_json::Value::Null);
    let elsewhere = setup.network.node.run(&["trace", "--recipient", "sample14@d.test"]).stderr;
    assert!(!String::from_utf8_lossy(&elsewhere).contains("sums"), "{elsewhere:?}");
}
