//! What many accepted domains keep in memory, once they are read and again after reloads.

use std::time::Duration;

use support::tables::{BASE_TABLES, PEOPLE};
use support::test_node::TestNode;
use support::within;

const DOMAINS: usize = 40_000;
/// KiB that the program may hold at rest with so many. Huge pages, an allocation or two for each, or what was read and
/// lies among them took 43 to 55 MiB.
const MOST: usize = 38 << 10;

fn write(node: &TestNode, domains: usize) {
    let door = "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n";
    let mailboxes = "[[send_connector]]\nname = \"mailboxes\"\nprotocol = \"maildir\"\npath = \"{folder}/mail\"\n\n";
    let domain = |at| format!("[[accepted_domain]]\ndomain = \"customer-{at}.test\"\ndeliver_to = \"mailboxes\"\n");
    let domains: String = (0..domains).map(domain).collect();
    node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{door}{mailboxes}{domains}"));
}

/// KiB of memory in no file.
fn anonymous(node: &TestNode) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process_id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn many_domains_take_little_at_rest_also_after_reloads() {
    let mut node = TestNode::prepare();
    node.write("people.csv", "address\nalice@contoso.test\n");
    write(&node, DOMAINS);
    // Of a huge page one octet in use keeps 2 MiB: what is counted would be chance.
    node.set_environment("MIMALLOC_ALLOW_THP", "0");
    node.start();
    let rests = |when: &str| {
        let little = within(Duration::from_secs(30), || anonymous(&node) <= MOST);
        assert!(little, "{when} it holds {} KiB", anonymous(&node));
    };
    rests("started");
    for reload in 1..=3 {
        write(&node, DOMAINS + reload);
        let output = node.run(&["reload"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    rests("after reloads");
}
