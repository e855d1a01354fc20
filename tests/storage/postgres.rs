//! What the tests with PostgreSQL stand on: a commit is on the synchronous standby before anybody is told of it.

use std::time::Duration;

use support::postgres::{self, Postgres};
use support::wait_until;

const TABLE: &str = "CREATE TABLE letters (name text PRIMARY KEY)";
const NAMES: &str = "SELECT name FROM letters ORDER BY name";

/// How long a commit may wait that should not; and how soon what was committed is to be seen on a standby.
const SOON: Duration = Duration::from_secs(20);
/// Whether a commit waits.
const MOMENT: Duration = Duration::from_secs(1);

#[test]
fn what_the_primary_committed_is_on_the_standby_that_replaces_it() {
    let folder = postgres::folder();
    let mut primary = Postgres::primary(folder.path());
    let standby = primary.standby(folder.path());
    primary.sql(TABLE);
    primary.sql("INSERT INTO letters VALUES ('first')");
    wait_until("the row on the standby", SOON, || standby.sql(NAMES) == "first");

    primary.sql("INSERT INTO letters VALUES ('second')");
    primary.kill();
    standby.promote();
    assert_eq!(standby.sql(NAMES), "first\nsecond");
    standby.sql("INSERT INTO letters VALUES ('third')");
    assert_eq!(standby.sql(NAMES), "first\nsecond\nthird");
}

#[test]
fn a_commit_waits_for_the_standby_unless_it_is_local() {
    let folder = postgres::folder();
    let primary = Postgres::primary(folder.path());
    let mut standby = primary.standby(folder.path());
    primary.sql(TABLE);

    standby.stop();
    assert_eq!(primary.sql_within("INSERT INTO letters VALUES ('a')", MOMENT), None, "nobody else has it");
    let local = "SET synchronous_commit = local; INSERT INTO letters VALUES ('b')";
    assert!(primary.sql_within(local, SOON).is_some(), "this one waits for nobody");
    standby.start();
    primary.sql("INSERT INTO letters VALUES ('c')");

    standby.freeze();
    assert_eq!(primary.sql_within("INSERT INTO letters VALUES ('d')", MOMENT), None, "nobody else has it");
    standby.thaw();
    primary.sql("INSERT INTO letters VALUES ('e')");
    wait_until("all rows on the standby", SOON, || standby.sql(NAMES) == "a\nb\nc\nd\ne");
}
