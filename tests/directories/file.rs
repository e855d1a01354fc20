//! Kind `file` as a configuration has it: built, changed while it is in use, and in conflict with another.

use std::path::Path;
use std::time::Duration;

use fingerpost::config::{DirectoryKind, FileDirectoryConfig};
use fingerpost::directory::{Directories, Needs, build};
use fingerpost::lookup::{Fresh, Freshness, Kind, Question};
use fingerpost::metrics::Metrics;
use fingerpost::smtp::address::Address;
use tokio::time::Instant;

use crate::asker::{LookupResult, named, prober, result_of};

fn file(path: &Path) -> DirectoryKind {
    DirectoryKind::File(FileDirectoryConfig { path: path.to_owned(), default_domain: None })
}

async fn ask(directories: &Directories, directory: &str, address: &str) -> LookupResult {
    let address = Address::parse(address).unwrap();
    let answer = directories.ask(&Question { directory: directory.into(), address, freshness: Freshness::Any }).await;
    assert_eq!(answer.fresh, Fresh::Live);
    result_of(&answer.lookup)
}

#[tokio::test]
async fn a_file_is_followed_and_conflicts_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.csv"), folder.path().join("second.toml"));
    std::fs::write(&first, "address\na@contoso.com\n").unwrap();
    std::fs::write(&second, "[[recipient]]\naddresses = [\"b@contoso.com\", \"c@contoso.com\"]\n").unwrap();
    let metrics = Metrics::new();
    let configured = [named("first", &file(&first)), named("second", &file(&second))];
    let prober = prober(&metrics);
    let needs = Needs { prober: &prober, folder: None, mail: None, metrics: &metrics };
    let directories = build(&configured, None, &needs).unwrap();
    let conflicts = |name: &str| metrics.directory_conflicts.with_label_values(&[name]).get();
    assert_eq!(ask(&directories, "first", "A@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(ask(&directories, "first", "b@contoso.com").await, LookupResult::NotFound);
    assert_eq!((conflicts("first"), conflicts("second")), (0, 0));

    // As editors do it: written beside, then renamed.
    let beside = folder.path().join("new");
    std::fs::write(&beside, "address,kind\na@contoso.com,\nb@contoso.com,group\n").unwrap();
    std::fs::rename(&beside, &first).unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    while ask(&directories, "first", "b@contoso.com").await != LookupResult::Found(Kind::Group) {
        assert!(Instant::now() < deadline, "the change is not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while conflicts("second") != 1 {
        assert!(Instant::now() < deadline, "the conflict is not counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(conflicts("first"), 0);

    let taken_over = build(&configured, Some(&directories), &needs).unwrap();
    assert_eq!(taken_over.get("first").unwrap().version(), 2);
    let _alone = build(&configured[1..], Some(&taken_over), &needs).unwrap();
    // As a reload leaves it: who is in no configuration any more counts nothing.
    drop((directories, taken_over));
    let deadline = Instant::now() + Duration::from_secs(15);
    while conflicts("second") != 0 {
        assert!(Instant::now() < deadline, "the other one is gone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_with_directory_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let (bad, gone) = (folder.path().join("bad.csv"), folder.path().join("gone.toml"));
    std::fs::write(&bad, "address\nok@contoso.com\nnobody\n").unwrap();
    let configured = [named("bad", &file(&bad)), named("gone", &file(&gone))];
    let metrics = Metrics::new();
    let needs = Needs { prober: &prober(&metrics), folder: None, mail: None, metrics: &metrics };
    let problems = build(&configured, None, &needs).err().unwrap();
    let start = format!("directory `bad`: {}:3: `nobody` is not an address", bad.display());
    assert!(problems[0].starts_with(&start), "{problems:?}");
    let start = format!("directory `gone`: {}: cannot be read", gone.display());
    assert!(problems[1].starts_with(&start), "{problems:?}");
}
