//! `fingerpost demo --once`, as the README promises it.

use super::installation::bare;

#[test]
fn everything_arrives_as_it_should() {
    let _alone = crate::DEMO.lock();
    let ran = bare(&["demo", "--once"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.is_empty(), "{ran:?}");
    for line in [
        "arrived: one copy at primary/anna\n",
        "arrived: one copy at secondary/bob\n",
        "arrived: one copy at primary/anna, one copy at secondary/carol\n",
        "the message: 250 2.0.0 delivered as ",
        "sent to nobody@contoso.example: 550 5.1.1 secondary said: user unknown\n",
        "arrived: a report of 554 5.4.6 at primary/alice\n",
        "sent to erin@fabrikam.example: 550 5.7.1 relaying denied\n",
        "Everything arrived as it should",
    ] {
        assert!(ran.out.contains(line), "{line} is missing in\n{}", ran.out);
    }

    // Three nodes in one process need more than a soft limit that shells give.
    let line = "ulimit -Hn 20000 && ulimit -Sn 128 && exec \"$0\" demo --once --log fingerpost=debug";
    let ran = std::process::Command::new("sh").args(["-c", line, support::program()]).output().unwrap();
    let log = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && log.contains("the limit of descriptors was raised"), "{log}");
}
