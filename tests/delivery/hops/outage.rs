//! An outage in which all that waits is tried again and again: neither trace nor log grow with it, and the counts are
//! exact, over a restart too.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use serde_json::Value;

use support::test_network::{BY_HAND, PEOPLE, SOON, TestNetwork, connector, domain};
use support::wait_until;

/// Messages that wait; more by hand: `OUTAGE=2000 cargo test --test delivery hops::outage`.
const WAITING: usize = 60;
/// How often each is tried at least: 15 times before a restart, and 15 after it.
const TRIES: usize = 15;

/// The trace's lines, as what they say; one may be half written.
fn trace(network: &TestNetwork) -> Vec<Value> {
    let files = fs::read_dir(network.node.path("state/trace")).unwrap().map(|file| file.unwrap().path());
    let text: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Lines of the log that tell of deferrals: one by one, and of the sums how many each has.
fn log(network: &TestNetwork) -> (usize, Vec<usize>) {
    let log = network.node.log();
    let singly = log.lines().filter(|line| line.contains("deferred queue_id=")).count();
    let sums = log.lines().filter_map(|line| line.split_once("deferred: told as a sum")?.1.split_once("times="));
    (singly, sums.map(|(_, times)| times.split(' ').next().unwrap().parse().unwrap()).collect())
}

/// How often each message was tried at least.
fn least(network: &TestNetwork) -> u64 {
    network.queue().iter().filter_map(|recipient| recipient["attempts"].as_u64()).min().unwrap_or_default()
}

fn deferred(network: &TestNetwork) -> usize {
    let series = "fingerpost_deliveries_total{result=\"deferred\",send_connector=\"hop\"}";
    network.node.metric(series).unwrap_or_default() as usize
}

#[test]
fn an_outage_is_a_few_lines_a_message_and_a_few_a_minute() {
    let waiting = std::env::var("OUTAGE").map_or(WAITING, |many| many.parse().unwrap());
    let soon = SOON * (1 + waiting as u32 / 100);
    let mut network = TestNetwork::prepare();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    network.node.write("people.csv", "address\nann@c.test\n");
    network.start(&format!(
        "{PEOPLE}{}{}",
        connector("hop", address, BY_HAND),
        domain("c.test", "authoritative", "hop")
    ));
    (0..waiting).for_each(|_| network.send("s@outside.test", &["ann@c.test"]));
    let (mut all, mut tries) = (0, 1);
    for _ in 0..2 {
        for _ in 0..TRIES {
            wait_until("an attempt on each", soon, || least(&network) >= tries);
            network.node.run(&["queue", "retry", "--all"]);
            tries += 1;
        }
        wait_until("an attempt on each", soon, || least(&network) >= tries);
        all += deferred(&network);
        let minutes = network.node.log().lines().filter(|line| line.contains("told as a sum")).count() + 3;
        network.node.stop();
        let (singly, sums) = log(&network);
        assert!(singly <= 3 * minutes && sums.len() <= minutes, "{singly} lines, and {sums:?}");
        assert_eq!(singly + sums.iter().sum::<usize>(), all, "each is told, once");
        network.node.start();
    }
    assert!(all >= (2 * TRIES + 1) * waiting && tries == 31);

    let events = trace(&network);
    let records: Vec<_> = events.iter().filter(|event| event["what"] == "deferred").collect();
    // The 1st, 2nd, 4th, 8th and 16th; more if an attempt came by itself at a start.
    assert!((5 * waiting..=6 * waiting).contains(&records.len()), "{} records of {all} deferrals", records.len());
    let octets: usize = records.iter().map(|record| record.to_string().len()).sum();
    assert!(octets < 6 * 512 * waiting, "{octets}");

    let _hop = network.hop_on(TcpListener::bind(address).unwrap(), "");
    network.deliver();
    all += deferred(&network);
    let delivered = || trace(&network).iter().filter(|event| event["what"] == "delivered").count();
    wait_until("the trace of it", soon, || delivered() == waiting);
    let found = network.node.run(&["trace", "--format", "json", "--limit", &(9 * waiting).to_string()]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for event in found["events"].as_array().unwrap() {
        let (id, attempt) = (event["id"].as_str().unwrap(), &event["attempt"]);
        match event["what"].as_str().unwrap() {
            "deferred" => {
                let first = attempt["number"].as_u64().unwrap();
                let last = attempt["last"]["number"].as_u64().unwrap();
                assert!(times.insert(id, last - first + 1).is_none(), "one event for each message");
            }
            "delivered" => assert_eq!(attempt["number"], times[id] + 1),
            _ => {}
        }
    }
    assert_eq!((times.len(), times.values().sum::<u64>()), (waiting, all as u64), "exact counts");
}
