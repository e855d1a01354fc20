//! Where paths start, which names are names, and what comes from the environment.

use super::*;

#[test]
fn paths_start_where_they_should() {
    let (folder, credentials) = (Path::new("/etc/fp"), Some(Path::new("/run/credentials/fp")));
    assert_eq!(path("a/b", folder, None), Ok("/etc/fp/a/b".into()));
    assert_eq!(path("/a/b", folder, None), Ok("/a/b".into()));
    assert_eq!(path("$CREDENTIALS_DIRECTORY/ad", folder, credentials), Ok("/run/credentials/fp/ad".into()));
    assert!(path("$CREDENTIALS_DIRECTORY/ad", folder, None).unwrap_err().to_string().contains("LoadCredential"));
}

#[test]
fn names_are_plain_and_the_nearest_is_found() {
    assert_eq!(nearest("smarthost", ["smart_hosts", "select"].into_iter()), Some("smart_hosts"));
    assert!(name("ex-2010.a_b").is_ok());
    for text in ["", "a b", "a;b", "a\"", "ä", &"x".repeat(65)] {
        assert!(name(text).is_err(), "{text}");
    }
}
