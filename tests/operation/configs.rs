//! Configurations as cases: `configs/good/NAME.toml` loads with the warnings in `NAME.expected` (none where there is no
//! such file), `configs/bad/NAME.toml` does not, for the reasons in `NAME.expected`. `conf/` loads as well.
//!
//! `BLESS=1 cargo test --test operation configs::` writes what was found as expected; read the difference before believing it.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use fingerpost::config::Config;
use fingerpost::config::check::{Problem, load, load_text, render};
use fingerpost::config::schema::TABLES;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("tests/operation/configs").join(folder)).unwrap();
    let mut cases: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    cases
}

fn open(path: &Path) -> Result<Config, Vec<Problem>> {
    load(path, &HashMap::new())
}

/// Compares with the file beside the case; paths are shown from the case's folder.
fn compare(case: &Path, found: &str) -> Result<(), String> {
    let folder = format!("{}/", case.parent().unwrap().display());
    let found = found.replace(&folder, "");
    let expected = case.with_extension("expected");
    if std::env::var_os("BLESS").is_some() && !found.is_empty() {
        std::fs::write(&expected, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&expected).unwrap_or_default();
    if expected == found {
        return Ok(());
    }
    Err(format!("{}\n--- expected\n{expected}--- found\n{found}", case.display()))
}

#[test]
fn bad_configurations_say_why() {
    let cases = cases("bad");
    assert!(cases.len() >= 50, "only {} cases were found", cases.len());
    let outcomes = cases.iter().map(|case| match open(case) {
        Ok(_) => Err(format!("{}: loads, and should not", case.display())),
        Err(problems) => compare(case, &render(&problems)),
    });
    let wrong: Vec<_> = outcomes.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn good_configurations_load() {
    let cases = cases("good");
    assert!(cases.len() >= 8, "only {} cases were found", cases.len());
    let outcomes = cases.iter().map(|case| match open(case) {
        Ok(config) => compare(case, &config.warnings.iter().map(|warning| format!("{warning}\n")).collect::<String>()),
        Err(problems) => Err(render(&problems)),
    });
    let wrong: Vec<_> = outcomes.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_expectation_has_its_case() {
    let mut found = 0;
    for folder in ["good", "bad"] {
        for entry in std::fs::read_dir(root().join("tests/operation/configs").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "expected") {
                assert!(path.with_extension("toml").exists(), "{}", path.display());
                found += 1;
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn the_examples_load_without_warnings() {
    let entries = std::fs::read_dir(root().join("conf")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        // What systemd sets is not set here.
        let text = std::fs::read_to_string(&file).unwrap().replace("$CREDENTIALS_DIRECTORY/", "");
        let config = load_text(&text, &file).unwrap_or_else(|problems| panic!("{}", render(&problems)));
        assert_eq!(config.warnings, [""; 0], "{}", file.display());
    }
}

/// What stands in the documentation: (table, key, default).
fn documented() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut table = String::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            table = heading.trim_matches(['`', '[', ']']).to_owned();
        }
        if let Some((key, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once("` | ")) {
            let (default, _) = rest.split_once(" | ").unwrap();
            rows.push((table.clone(), key.to_owned(), default.to_owned()));
        }
    }
    rows
}

fn known() -> BTreeSet<(String, String)> {
    let tables = TABLES.iter().filter(|table| !table.name.is_empty());
    let keys = tables.flat_map(|table| table.keys.iter().map(|key| (table.name, key)));
    keys.map(|(table, key)| (table.to_owned(), key.name.to_owned())).collect()
}

#[test]
fn the_documentation_has_every_key() {
    let rows = documented();
    let unique: BTreeSet<_> = rows.iter().map(|(table, key, _)| (table.clone(), key.clone())).collect();
    assert_eq!(unique.len(), rows.len(), "a key is documented twice");
    assert_eq!(unique, known());
}

#[test]
fn the_full_example_has_every_key() {
    let text = std::fs::read_to_string(root().join("conf/full.toml")).unwrap();
    let mut found = BTreeSet::new();
    for (name, value) in &text.parse::<toml::Table>().unwrap() {
        note_keys(name, value, &mut found);
    }
    assert_eq!(found, known());
}

fn note_keys(name: &str, value: &toml::Value, found: &mut BTreeSet<(String, String)>) {
    match value {
        toml::Value::Array(array) => array.iter().for_each(|value| note_keys(name, value, found)),
        // Its keys are the operator's.
        toml::Value::Table(_) if name == "directory.mailbox_servers" => {}
        toml::Value::Table(table) => {
            for (key, value) in table {
                found.insert((name.to_owned(), key.clone()));
                note_keys(&format!("{name}.{key}"), value, found);
            }
        }
        _ => {}
    }
}

/// Every table once, with the keys that are required; `#TABLE#` is where another key of it goes.
const EVERY_TABLE: &str = r##"
[server]
hostname = "mx.contoso.com"
installation = "contoso"
#server#
[admin]
#admin#
[[receive_connector]]
name = "internet"
#receive_connector#
[[accepted_domain]]
domain = "contoso.com"
deliver_to = "exchange"
#accepted_domain#
[[directory]]
name = "ad"
urls = ["ldaps://dc1.contoso.com"]
base = ["DC=contoso,DC=com"]
probe = "postmaster@contoso.com"
#directory#
[[directory]]
name = "asked"
kind = "call-ahead"
send_connector = "exchange"
#call-ahead#
[[directory]]
name = "own"
urls = ["ldaps://ldap.contoso.com"]
base = ["dc=contoso,dc=com"]
probe = "postmaster@contoso.com"
profile = "custom"
mode = "lookup"
attributes.addresses = ["mail"]
#custom#
[[send_connector]]
name = "exchange"
smart_hosts = ["[10.0.0.5]"]
#send_connector#
[[send_connector]]
name = "other"
smart_hosts = ["[10.0.0.6]"]
address_spaces = [{ domain = "fabrikam.com" }]
[reports]
#reports#
[loop_detection]
#loop_detection#
[spool]
#spool#
[trace]
#trace#
[cluster]
database = "postgresql://fingerpost@db1.contoso.com/fingerpost"
#cluster#
"##;

fn with_key(table: &str, key: &str, value: &str) -> String {
    if table == "send_connector.address_spaces" {
        return EVERY_TABLE.replace("\"fabrikam.com\"", &format!("\"fabrikam.com\", {key} = {value}"));
    }
    let (outer, inner) =
        table.split_once('.').map_or((table, String::new()), |(outer, inner)| (outer, format!("{inner}.")));
    let place = match (table, key) {
        ("directory", "probes_per_second") => "call-ahead",
        ("directory", "filter") | ("directory.attributes", _) => "custom",
        _ => outer,
    };
    let changed = EVERY_TABLE.replace(&format!("#{place}#"), &format!("{inner}{key} = {value}"));
    assert_ne!(changed, EVERY_TABLE, "{table}");
    changed
}

#[test]
fn documented_defaults_are_the_defaults() {
    let path = Path::new("/etc/fingerpost/fingerpost.toml");
    let open = |text: &str| load_text(text, path).unwrap_or_else(|problems| panic!("{}", render(&problems)));
    let unwritten = open(EVERY_TABLE);
    let mut compared = 0;
    for (table, key, default) in documented() {
        let Some(value) = default.strip_prefix('`').and_then(|default| default.strip_suffix('`')) else { continue };
        let written = open(&with_key(&table, &key, value));
        assert!(same(&unwritten, &written), "[{table}] {key} = {value} is not the default");
        compared += 1;
    }
    assert!(compared > 60, "only {compared} defaults were compared");
    assert!(!same(&unwritten, &open(&with_key("send_connector.retry", "first", "\"2m\""))));
    assert!(!same(&unwritten, &open(&with_key("send_connector.address_spaces", "cost", "11"))));
}

fn same(one: &Config, other: &Config) -> bool {
    one.server == other.server
        && one.admin == other.admin
        && one.receive_connectors == other.receive_connectors
        && one.routing.accepted.iter().eq(other.routing.accepted.iter())
        && one.directories == other.directories
        && one.send_connectors == other.send_connectors
        && one.reports == other.reports
        && one.loops == other.loops
        && one.cluster == other.cluster
        && (one.min_free, one.max_messages, one.trace) == (other.min_free, other.max_messages, other.trace)
}
