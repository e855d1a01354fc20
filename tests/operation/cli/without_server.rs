//! Commands while no server runs.

use super::installation::{Installation, bare};

#[test]
fn wrong_usage_is_2() {
    for arguments in [&["no-such-command"][..], &[], &["route"], &["queue", "retry"], &["queue", "drop", "123"]] {
        let ran = bare(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.out.is_empty(), "{ran:?}");
    }
    assert_eq!(bare(&["--help"]).code, 0);
    assert!(bare(&["--version"]).out.starts_with("fingerpost "));
}

#[test]
fn a_file_that_is_missing_is_named() {
    let ran = bare(&["run", "--config", "/nowhere/fingerpost.toml"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("/nowhere/fingerpost.toml"), "{ran:?}");
    let ran = bare(&["status", "--config", "/nowhere/fingerpost.toml"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
}

#[test]
fn a_good_configuration_is_good() {
    let installation = Installation::new();
    let ran = installation.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("the configuration is good: 2 accepted domains"), "{ran:?}");
    let report: serde_json::Value =
        serde_json::from_str(&installation.run(&["check", "--format", "json"]).out).unwrap();
    assert_eq!(report["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn a_wrong_configuration_is_told_whole_and_the_server_does_not_start() {
    let installation = Installation::new();
    installation
        .write(&installation.configuration().replace("type =", "typ =").replace("min_free = \"1MiB\"", "min_free = 5"));
    let ran = installation.run(&["check"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("fingerpost.toml:17") && ran.out.contains("`typ`"), "{ran:?}");
    assert!(ran.out.contains("min_free"), "{ran:?}");
    let report: serde_json::Value =
        serde_json::from_str(&installation.run(&["check", "--format", "json"]).out).unwrap();
    assert!(report["problems"].as_array().unwrap().len() >= 3, "{report}");
    let ran = installation.run(&["run"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("fingerpost.toml:17"), "{ran:?}");
    assert!(!installation.path("state").exists());
}

#[test]
fn everything_that_is_named_is_tried() {
    let installation = Installation::new();
    let ran = installation.run(&["check", "--connect"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("FAILED  send connector secondary"), "{ran:?}");
    assert!(ran.out.contains("ok      directory people"), "{ran:?}");
    assert!(ran.out.contains("ok      state_dir"), "{ran:?}");
    assert!(ran.out.contains("warning open relay at"), "{ran:?}");
    assert!(ran.out.contains("1 of 6 checks failed"), "{ran:?}");
}

#[test]
fn a_route_comes_from_the_file_and_says_so() {
    let installation = Installation::new();
    let ran = installation.run(&["route", "alice@contoso.example"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("from the file"), "{ran:?}");
    assert!(ran.out.contains("alice@contoso.example: resolved through mailboxes"), "{ran:?}");
    assert!(ran.out.contains("row 7:"), "{ran:?}");

    let ran = installation.run(&["route", "alice@contoso.example", "nobody@ours.example", "--format", "json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let routed: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(routed["answered_by"], "file");
    assert_eq!(routed["addresses"][0]["route"]["connector"], "mailboxes");
    assert_eq!(routed["addresses"][1]["row"], 9);
    assert_eq!(routed["addresses"][1]["reply"], "550 5.1.1 user unknown");

    assert_eq!(installation.run(&["route", "not an address"]).code, 2);
    let ran = installation.run(&["route", "alice@contoso.example", "--from", "192.0.2.1"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("no receive connector"), "{ran:?}");
}

#[test]
fn a_server_that_does_not_run_is_said_in_one_line() {
    let installation = Installation::new();
    std::fs::create_dir(installation.path("state")).unwrap();
    std::fs::write(installation.path("state/admin.token"), "0123456789abcdef0123456789abcdef").unwrap();
    for arguments in [&["status"][..], &["reload"], &["queue", "list"], &["trace"]] {
        let ran = installation.run(arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("does not answer") && ran.err.contains("fingerpost run"), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
}
