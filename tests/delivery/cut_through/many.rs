//! Transactions that are full: the next hop's limit is the sender's 452 4.5.3, and we stop at 100 ourselves.

use crate::cut_through::fixture::{RESOLVED, TwoHops, letter, say};

/// Sends to these recipients as clients do: those that get 452 4.5.3 go in another transaction. Returns how many
/// recipients each transaction had.
fn send_to_all(two: &TwoHops, mut to: Vec<String>) -> Vec<usize> {
    let mut raw = two.stranger();
    let mut transactions = Vec::new();
    while !to.is_empty() {
        assert!(transactions.len() < 20, "it never ends: {transactions:?}");
        say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
        let mut later = Vec::new();
        let before = to.len();
        for recipient in to {
            let (code, text) = raw.say(&format!("RCPT TO:<{recipient}>"));
            match code {
                250 => {}
                _ if text.starts_with("452 4.5.3") => later.push(recipient),
                _ => panic!("{recipient}: {text}"),
            }
        }
        transactions.push(before - later.len());
        say(&mut raw, "DATA", "354");
        say(&mut raw, &format!("{}.", letter(&format!("part-{}", transactions.len()), 0)), "250");
        to = later;
    }
    transactions
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

fn recipients(kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{kind}{number}@c.test")).collect()
}

#[test]
fn a_branch_has_a_hundred_recipients_at_most() {
    let two = TwoHops::start("", "", "");
    let all = recipients("p", RESOLVED);
    assert_eq!(send_to_all(&two, all.clone()), [100, 100, RESOLVED - 200]);
    assert_eq!(sorted(two.primary.taken()), sorted(all));
    assert!(two.network.queue().is_empty());
}

#[test]
fn each_branch_has_its_own_hundred() {
    let two = TwoHops::start("", "", "");
    let all = [recipients("p", 100), recipients("s", 100)].concat();
    assert_eq!(send_to_all(&two, all), [200]);
    assert_eq!(sorted(two.primary.taken()), sorted(recipients("p", 100)));
    assert_eq!(sorted(two.secondary.taken()), sorted(recipients("s", 100)));
}

#[test]
fn the_next_hops_limit_is_the_senders() {
    for refusal in ["452 4.5.3 too many recipients", "552 too many recipients"] {
        let two = TwoHops::start(&format!("full: rcpt => {refusal}"), "", "");
        let all = [recipients("p", 8), recipients("s", 2)].concat();
        assert_eq!(send_to_all(&two, all), [5, 3, 2], "{refusal}");
        assert_eq!(sorted(two.primary.taken()), recipients("p", 8), "{refusal}");
        assert_eq!(sorted(two.secondary.taken()), recipients("s", 2), "{refusal}");
        assert!(two.network.queue().is_empty(), "{refusal}");
    }
}
