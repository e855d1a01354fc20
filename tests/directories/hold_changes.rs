//! `hold_changes` where slapd is asked for each recipient: what would turn too many around gets no answer, over a restart
//! as well, until it is accepted or put right.

use std::fmt::Write as _;
use std::time::Duration;

use fingerpost::config::{CacheConfig, HoldChanges, LdapConfig};
use fingerpost::directory::Accept;
use fingerpost::lookup::Kind;

use crate::asker::{Asker, LookupResult, openldap};
use support::slapd::{BASE, Slapd};

const CROWD: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_folder_turns_no_more_around_than_the_limit() {
    let slapd = Slapd::start();
    let mut ldif = format!("dn: ou=crowd,{BASE}\nobjectClass: organizationalUnit\nou: crowd\n\n");
    for number in 0..CROWD {
        write!(
            ldif,
            "dn: uid=crowd{number},ou=crowd,{BASE}\nobjectClass: inetOrgPerson\nuid: crowd{number}\ncn: c\nsn: c\n\
             mail: crowd{number}@contoso.com\n\n"
        )
        .unwrap();
    }
    slapd.add(&ldif);
    let config = LdapConfig {
        cache: CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 1 },
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 3, within: Duration::from_secs(3600) },
        ..openldap(&slapd)
    };
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::keeping(&config, Some(folder.path()));
    let all = async |asker: &Asker| {
        let mut said = Vec::new();
        for number in 0..CROWD {
            said.push(asker.answer_any(&format!("crowd{number}@contoso.com")).await);
        }
        said
    };
    let found = vec![LookupResult::Found(Kind::Mailbox); CROWD];
    assert_eq!(all(&asker).await, found);

    // A script moves everybody out of the way of mail; who comes new is found at once.
    let change = |attribute: &str| {
        let one =
            |n: usize| format!("dn: uid=crowd{n},ou=crowd,{BASE}\nchangetype: modify\nreplace: mail\n{attribute}\n\n");
        slapd.modify(&(0..CROWD).map(|n| one(n).replace("{n}", &n.to_string())).collect::<String>());
    };
    change("mail: gone{n}@contoso.com");
    slapd.add_person("eve", "mail: eve@contoso.com");
    let mut expected = vec![LookupResult::NotFound; 3];
    expected.resize(CROWD, LookupResult::Held);
    assert_eq!(all(&asker).await, expected);
    assert_eq!(asker.answer_any("eve@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.metrics.directory_changes_held.with_label_values(&["ad"]).get(), CROWD as i64 - 3);
    let held = format!("changes of {} recipients are held, and their mail gets 451", CROWD - 3);
    assert!(asker.problems().iter().any(|problem| problem.starts_with(&held)), "{:?}", asker.problems());
    // A next hop does not know one of them: what the directory says then is believed, once.
    assert_eq!(asker.ask("crowd19@contoso.com").await, LookupResult::NotFound);
    assert_eq!(asker.answer_any("crowd19@contoso.com").await, LookupResult::Held);

    drop(asker);
    let asker = Asker::keeping(&config, Some(folder.path()));
    // What was taken before the restart counts still.
    assert_eq!(all(&asker).await, expected);
    change("mail: crowd{n}@contoso.com");
    assert_eq!(all(&asker).await, found);
    assert_eq!(asker.refresh(Accept::No).await.unwrap().held, 0);
    change("mail: gone{n}@contoso.com");
    assert!(all(&asker).await.contains(&LookupResult::Held));
    assert!(asker.refresh(Accept::Yes).await.unwrap().turned > 0);
    assert_eq!(all(&asker).await, vec![LookupResult::NotFound; CROWD]);
}
