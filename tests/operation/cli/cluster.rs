//! `fingerpost cluster` against a real PostgreSQL, with and without a running node.

use std::net::Ipv4Addr;

use support::free_port;
use support::postgres::{self, Postgres};

use super::installation::{Installation, eventually};

mod check;

impl Installation {
    /// Adds `[cluster]` with this database.
    fn join(&self, url: &str, standby: &str) {
        let server = "[server]\ninstallation = \"contoso\"";
        let cluster =
            format!("\n[cluster]\ndatabase = \"{url}?sslmode=disable\"\nnode = \"mx1\"\nstandby = \"{standby}\"\n");
        self.write(&format!("{}{cluster}", self.configuration().replacen("[server]", server, 1)));
    }

    fn cluster_status(&self) -> serde_json::Value {
        serde_json::from_str(&self.run(&["cluster", "status", "--format", "json"]).out).unwrap()
    }
}

#[test]
fn without_a_cluster_the_table_that_is_missing_is_named() {
    let installation = Installation::new();
    for command in ["init", "status"] {
        let ran = installation.run(&["cluster", command]);
        assert_eq!((ran.code, ran.err.lines().count()), (2, 1), "{ran:?}");
        assert!(ran.err.contains("[cluster]") && ran.err.contains("docs/cluster.md"), "{ran:?}");
    }
}

#[test]
fn a_database_out_of_reach_is_named() {
    let installation = Installation::new();
    let (one, other) = (free_port(Ipv4Addr::LOCALHOST), free_port(Ipv4Addr::LOCALHOST));
    installation.join(&format!("postgresql://fingerpost@127.0.0.1:{one},127.0.0.1:{other}/fingerpost"), "required");
    for command in ["init", "status"] {
        let ran = installation.run(&["cluster", command]);
        assert_eq!((ran.code, ran.err.lines().count()), (2, 1), "{ran:?}");
        assert!(ran.err.contains(&format!("127.0.0.1:{one}, 127.0.0.1:{other}: ")), "{ran:?}");
    }
}

#[test]
fn the_tables_are_made_and_nodes_are_seen() {
    let folder = postgres::folder();
    let primary = Postgres::primary(folder.path());
    let installation = Installation::new();
    installation.join(&primary.url(), "required");

    // Nothing is made in a database that no node would use.
    primary.set("full_page_writes", "off");
    let ran = installation.run(&["cluster", "init"]);
    assert!(ran.code == 2 && ran.err.contains("full_page_writes is off"), "{ran:?}");
    assert_eq!(primary.sql("SELECT to_regnamespace('fingerpost') IS NULL"), "t");
    primary.set("full_page_writes", "on");
    // Nor where it would wait for a standby that is not there.
    primary.set("synchronous_standby_names", "absent");
    let ran = installation.run(&["cluster", "init"]);
    assert!(ran.code == 2 && ran.err.contains("no standby of \"absent\" is connected"), "{ran:?}");
    primary.set("synchronous_standby_names", "");
    assert_eq!(primary.sql("SELECT to_regnamespace('fingerpost') IS NULL"), "t");
    let ran = installation.run(&["cluster", "status"]);
    assert!(ran.code == 2 && ran.err.contains("cluster init"), "{ran:?}");

    let ran = installation.run(&["cluster", "init"]);
    assert_eq!((ran.code, &*ran.out), (0, "the database has its tables now (schema 3)\n"), "{ran:?}");
    assert!(ran.err.contains("synchronous_standby_names is empty"), "{ran:?}");
    let ran = installation.run(&["cluster", "status"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("problem: synchronous_standby_names is empty"), "{ran:?}");
    installation.join(&primary.url(), "preferred");
    let ran = installation.run(&["cluster", "init"]);
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "nothing to do: schema 3\n", ""), "{ran:?}");

    let ran = installation.run(&["cluster", "status"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.out.starts_with(&format!("database at 127.0.0.1:{}: timeline 1, schema 3\n", primary.port())),
        "{ran:?}"
    );
    assert!(ran.out.contains("no node has joined yet") && ran.out.contains("problem: no node is running"), "{ran:?}");
    assert!(ran.out.contains("synchronous standby: none is connected"), "{ran:?}");

    nodes_are_seen(&installation, &primary);
    a_standby_is_seen(&installation, &primary, folder.path());
}

/// A node that runs and has mail, another with another configuration, and the first one killed.
fn nodes_are_seen(installation: &Installation, primary: &Postgres) {
    let server = installation.serve();
    assert!(installation.send("bob@contoso.example").starts_with("250 2.0.0"));
    let ran = installation.run(&["cluster", "status"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let status = installation.cluster_status();
    let node = &status["nodes"][0];
    assert_eq!((&node["number"], &node["name"]), (&0.into(), &"mx1".into()), "{status}");
    assert_eq!(node["running"]["messages"], 1, "{status}");
    assert_eq!(node["running"]["version"], env!("CARGO_PKG_VERSION"), "{status}");
    assert_eq!((&status["schema"], &status["waiting_to_be_taken_over"]), (&3.into(), &0.into()), "{status}");
    assert_eq!(status["problems"], serde_json::json!([]), "{status}");
    let digest = node["running"]["configuration"].as_str().unwrap();
    let shown: Vec<&str> = ran.out.lines().find(|line| line.contains("mx1")).unwrap().split_whitespace().collect();
    assert_eq!(shown[shown.len() - 2..], [&digest[..12], "1"], "{ran:?}");

    // Its ports and its name are its own; of its next hop's port the nodes should be of one mind.
    let other = Installation::new();
    other.join(&primary.url(), "preferred");
    let own = std::fs::read_to_string(other.path("fingerpost.toml")).unwrap().replace("\"mx1\"", "\"mx2\"");
    let hop = |text: &str| text.lines().find(|line| line.starts_with("smart_hosts")).unwrap().to_owned();
    let first = std::fs::read_to_string(installation.path("fingerpost.toml")).unwrap();
    let paths = |text: &str| text.replace("people.csv", &installation.path("people.csv").display().to_string());
    let mailboxes = installation.path("mail").display().to_string();
    let same = paths(&own).replace(&hop(&own), &hop(&first)).replace("\"mail\"", &format!("\"{mailboxes}\""));
    other.write(&same);
    let second = other.serve();
    let ran = installation.run(&["cluster", "status"]);
    assert!(ran.code == 0 && ran.out.contains("mx2"), "{ran:?}");
    assert_eq!(second.stop(), 0);
    other.write(&same.replace(&hop(&first), &hop(&own)));
    let second = other.serve();
    let ran = installation.run(&["cluster", "status"]);
    assert!(ran.code == 1 && ran.out.contains("problem: the nodes have different configurations"), "{ran:?}");
    assert_eq!(second.stop(), 0);
    let ran = installation.run(&["cluster", "status"]);
    assert!(ran.code == 0 && ran.out.contains("mx2   not running\n"), "{ran:?}");

    // Nobody is left to end the epoch of a node that is killed.
    drop(server);
    eventually("it is missed", || installation.run(&["cluster", "status"]).code == 1);
    let ran = installation.run(&["cluster", "status"]);
    assert!(ran.out.contains("(silent)") && ran.out.contains("problem: no node is running"), "{ran:?}");
    primary.sql("DELETE FROM fingerpost.epoch");
    assert_eq!(installation.cluster_status()["waiting_to_be_taken_over"], 1);
}

/// One that is connected; and what a role sees of it that has no right to.
fn a_standby_is_seen(installation: &Installation, primary: &Postgres, folder: &std::path::Path) {
    let standby = primary.standby(folder);
    installation.join(&primary.url(), "required");
    let status = installation.cluster_status();
    assert_eq!(status["database"]["synchronous_standby"], "connected", "{status}");
    assert_eq!(status["database"]["synchronous_standby_names"], standby.name(), "{status}");
    primary.sql(
        "CREATE ROLE limited LOGIN; GRANT USAGE ON SCHEMA fingerpost TO limited; \
         GRANT SELECT ON ALL TABLES IN SCHEMA fingerpost TO limited",
    );
    installation.join(&primary.url().replacen("fingerpost@", "limited@", 1), "required");
    let ran = installation.run(&["cluster", "status"]);
    assert!(ran.out.contains("synchronous standby: unknown (grant pg_monitor to see it)"), "{ran:?}");
    assert!(!ran.out.contains("no standby"), "{ran:?}");
    drop(standby);
    installation.join(&primary.url(), "required");
    eventually("it is missed", || installation.cluster_status()["database"]["synchronous_standby"] == "none");
    let ran = installation.run(&["cluster", "status"]);
    assert!(ran.code == 1 && ran.out.contains("problem: no standby of"), "{ran:?}");
}
