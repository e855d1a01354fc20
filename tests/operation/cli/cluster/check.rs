//! `fingerpost check --connect` looks at the database: hosts, TLS, tables, settings, rights and the standby.

use fingerpost::cluster::schema::SCHEMA;
use support::certificates::Authority;
use support::postgres::{self, Postgres, urls};

use crate::cli::installation::Installation;

/// The lines that it prints for these things, with their cures, and nothing of other things.
fn checked(installation: &Installation) -> String {
    let ran = installation.run(&["check", "--connect"]);
    let is_ours = |line: &&str| {
        ["database", "[cluster]", "tables", "synchronous standby"].iter().any(|what| line[8..].starts_with(what))
    };
    let mut shown = String::new();
    let mut lines = ran.out.lines().filter(|line| line.len() > 8).peekable();
    while let Some(line) = lines.next() {
        if is_ours(&line) {
            shown.push_str(&format!("{line}\n"));
            if let Some(cure) = lines.next_if(|line| line.starts_with("        ")) {
                shown.push_str(&format!("{cure}\n"));
            }
        }
    }
    assert!(!shown.is_empty(), "{ran:?}");
    shown
}

/// Each line is there, in this order.
fn says(installation: &Installation, expected: &[&str]) {
    let shown = checked(installation);
    let mut lines = shown.lines();
    for line in expected {
        assert!(lines.any(|found| found.contains(line)), "{line:?} is not in (or not behind the others)\n{shown}");
    }
}

impl Installation {
    /// Adds `[cluster]` with these lines.
    fn join_with(&self, lines: &str) {
        let server = "[server]\ninstallation = \"contoso\"";
        let cluster = format!("\n[cluster]\nnode = \"mx1\"\n{lines}\n");
        self.write(&format!("{}{cluster}", self.configuration().replacen("[server]", server, 1)));
    }
}

#[test]
fn a_database_without_cluster_is_not_looked_for() {
    let installation = Installation::new();
    let ran = installation.run(&["check", "--connect"]);
    assert!(!ran.out.contains("database"), "{ran:?}");
}

#[test]
fn hosts_tables_settings_and_standby_are_looked_at() {
    let folder = postgres::folder();
    let primary = Postgres::primary(folder.path());
    let installation = Installation::new();
    installation.join(&primary.url(), "required");
    says(
        &installation,
        &["FAILED  tables: it has no tables", "run `fingerpost cluster init`", "standby_names is empty"],
    );
    assert_eq!(primary.sql("SELECT to_regnamespace('fingerpost') IS NULL"), "t");
    assert_eq!(installation.run(&["cluster", "init"]).code, 0);

    settings_are_looked_at(&installation, &primary);
    let mut standby = primary.standby(folder.path());
    let url = urls(&[&standby, &primary]);
    installation.join(&url, "required");
    let (one, other) = (format!("127.0.0.1:{}", standby.port()), format!("127.0.0.1:{}", primary.port()));
    let expected = format!(
        "ok      database {one}: is a standby; in clear, on this machine\n\
         ok      database {other}: takes writes, on timeline 1; in clear, on this machine\n\
         ok      tables: schema {SCHEMA}, and the role may use them\n\
         ok      database settings: fsync, full_page_writes, version and clock are as they should be, and no pooler is in \
         between\n\
         ok      synchronous standby: \"{}\" is connected\n",
        standby.name()
    );
    assert_eq!(checked(&installation), expected);
    roles_are_looked_at(&installation, &primary);

    installation.join(&url, "required");
    standby.stop();
    says(&installation, &[&format!("warning database {one}: the database is away"), "there is nobody to take over"]);
    for wanted in ["required", "preferred"] {
        installation.join(&url, wanted);
        says(&installation, &["FAILED  synchronous standby: no standby of", "get the standby going"]);
    }
    standby.start();
    standby.promote();
    says(&installation, &["FAILED  [cluster] database: 2 hosts take writes, on timelines [2, 1]"]);
    standby.stop();
    drop(primary);
    says(
        &installation,
        &[
            &format!("FAILED  database {one}: the database is away"),
            &format!("FAILED  database {other}: the database is away"),
            "FAILED  [cluster] database: no host of",
        ],
    );
}

/// Each trouble by itself, and all of them at once.
fn settings_are_looked_at(installation: &Installation, primary: &Postgres) {
    for (setting, cure) in [("fsync", "set it to on"), ("full_page_writes", "set it to on")] {
        primary.set(setting, "off");
        says(installation, &[&format!("FAILED  database settings: {setting} is off"), cure]);
    }
    says(installation, &["settings: fsync is off", "settings: full_page_writes is off"]);
    primary.set("fsync", "on");
    primary.set("full_page_writes", "on");
    for (number, cure) in [(1, "run `fingerpost cluster init`"), (99, "install a newer one")] {
        primary.sql(&format!("UPDATE fingerpost.installation SET schema = {number}"));
        says(installation, &[&format!("FAILED  tables: its schema is number {number}"), cure]);
    }
    primary.sql(&format!("UPDATE fingerpost.installation SET schema = {SCHEMA}"));
    installation.join(&primary.url(), "preferred");
    says(installation, &["warning synchronous standby: synchronous_standby_names is empty: one machine alone"]);
    primary.set("default_transaction_read_only", "on");
    says(
        installation,
        &["is no standby, and takes no writes", "default_transaction_read_only", "FAILED  [cluster] database"],
    );
    primary.sql("SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only");
    primary.sql("SELECT pg_reload_conf()");
}

/// Roles that may not do everything, that have another password, or are not there.
fn roles_are_looked_at(installation: &Installation, primary: &Postgres) {
    primary.sql(
        "CREATE ROLE closed LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE guarded LOGIN PASSWORD 'right'; \
         GRANT USAGE ON SCHEMA fingerpost TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA fingerpost TO reader; \
         COPY (SELECT line FROM (SELECT 0 AS at, 'host all guarded 127.0.0.1/32 scram-sha-256' AS line UNION ALL \
             SELECT * FROM (SELECT ordinality, line FROM string_to_table(pg_read_file('pg_hba.conf'), E'\\n') \
                 WITH ORDINALITY AS lines (line)) AS old) AS new ORDER BY at) TO PROGRAM 'cat > pg_hba.new'; \
         COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; mv pg_hba.new pg_hba.conf'; SELECT pg_reload_conf()",
    );
    std::fs::write(installation.path("password"), "wrong\n").unwrap();
    let url = primary.url().replace("postgresql://fingerpost@", "postgresql://ROLE@");
    for (role, more, expected) in [
        ("closed", "", &["FAILED  tables: the database says: permission denied", "own the schema fingerpost"][..]),
        ("reader", "", &["the role may not use all of them: accepted_address, ", "may not see", "GRANT pg_monitor"]),
        ("nobody", "", &["role \"nobody\" does not exist", "CREATE ROLE"]),
        ("guarded", "password_file = \"password\"", &["password authentication failed", "see that password_file has"]),
        (
            "guarded",
            "password_file = \"missing\"",
            &["FAILED  [cluster] database: the database cannot be used: password_file"],
        ),
    ] {
        let url = url.replace("ROLE", role);
        installation.join_with(&format!("database = \"{url}?sslmode=disable\"\n{more}"));
        says(installation, expected);
    }
    let url = primary.url();
    let elsewhere = format!("{}/elsewhere", url.trim_end_matches("/fingerpost"));
    installation.join(&elsewhere, "required");
    says(installation, &["database \"elsewhere\" does not exist", "CREATE DATABASE"]);
}

#[test]
fn tls_is_looked_at() {
    let folder = postgres::folder();
    let primary = Postgres::primary(folder.path());
    let authority = Authority::new(folder.path());
    let issued = authority.issue(&["127.0.0.1"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::new(elsewhere.path());
    let installation = Installation::new();
    let join = |ca: &Authority| {
        installation.join_with(&format!("database = \"{}\"\nca = \"{}\"", primary.url(), ca.file().display()));
    };
    join(&authority);
    says(&installation, &["FAILED  database 127.0.0.1:", "switch TLS on at the server"]);

    for (file, name) in [(&issued.certificate, "server.crt"), (&issued.key, "server.key")] {
        let content = std::fs::read_to_string(file).unwrap();
        primary.sql(&format!(
            "COPY (SELECT string_to_table($pem${}$pem$, E'\\n')) TO PROGRAM 'umask 077; cat > {name}'",
            content.trim_end()
        ));
    }
    primary.set("ssl", "on");
    says(&installation, &["takes writes, on timeline 1; by TLS, verified"]);
    join(&other);
    says(&installation, &["FAILED  database 127.0.0.1:", "see that `ca` has the CA of its certificate"]);
    installation.join_with(&format!("database = \"{}\"\nca = \"missing.pem\"", primary.url()));
    says(&installation, &["FAILED  [cluster] database: ", "see that `ca` names"]);
}
