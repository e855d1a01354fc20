//! A table compared with a search through all entries.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::directory::known::{self, claim};
use crate::directory::snapshot::view::{Change, View};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn table(all: &[Known]) -> Table {
    let mut sizes = Sizes::default();
    all.iter().for_each(|known| sizes.add(known));
    let mut builder = Builder::new(sizes);
    all.iter().for_each(|known| builder.add(known).unwrap());
    let table = builder.finish();
    // What was allocated was enough, and no more was used.
    assert!(table.records.len() <= sizes.records && table.records.capacity() == sizes.records);
    assert_eq!(table.count(), sizes.entries);
    assert_eq!(table.slots.iter().filter(|slot| slot.tag() != EMPTY).count(), sizes.addresses);
    table
}

prop_compose! {
    fn entries()(
        all in vec((vec((0..20_u8, 0..3_u8, any::<bool>()), 0..4), 0..4_u8, 0..3_u8), 0..30),
    ) -> Vec<Known> {
        all.into_iter().enumerate().map(|(at, (claims, meaning, parent))| {
            let mut addresses = Vec::new();
            for (local, domain, certain) in claims {
                let key = if domain == 2 { format!("/o=x/cn=user{local}") } else { format!("user{local}@d{domain}.example") };
                claim(&mut addresses, &key, if certain { Strength::Certain } else { Strength::Fallback });
            }
            let meaning = match meaning {
                0 => Err(format!("unclear {at}")),
                1 => Ok(Meaning {
                    kind: Kind::MailUser,
                    target: Some(address(&format!("t{at}@elsewhere.example"))),
                    mail_server: None,
                    rule: "targetAddress".to_owned(),
                    at_odds: None,
                }),
                kind => Ok(Meaning {
                    kind: if kind == 2 { Kind::Mailbox } else { Kind::Group },
                    target: None,
                    mail_server: (kind == 2).then(|| "ex1".to_owned()),
                    rule: format!("rule {kind}"),
                    at_odds: None,
                }),
            };
            let dn = format!("CN=user {at},OU=o{parent},DC=x");
            Known { id: Id(at as u64), dn, claims: addresses, meaning }
        }).collect()
    }
}

proptest! {
    #[test]
    fn a_view_says_what_looking_at_every_entry_says(
        all in entries(),
        later in entries(),
        gone in vec(0..30_u64, 0..3),
        before in 0..30_usize,
    ) {
        // The later entries reuse ids: some entries are changed, some removed, some added.
        let table = table(&all[..before.min(all.len())]);
        let mut view = View::new(Arc::new(table));
        let mut plain: Vec<Known> = all[..before.min(all.len())].to_vec();
        let changes = later.into_iter().map(Change::Put).chain(gone.into_iter().map(|id| Change::Gone(Id(id))));
        for change in changes {
            plain.retain(|known| known.id != change.id());
            if let Change::Put(known) = &change {
                plain.push(known.clone());
            }
            let news = view.news(vec![change.clone()]);
            let now: Vec<Known> = view.entries().collect();
            view.apply(change);
            let then: Vec<Known> = view.entries().collect();
            prop_assert_eq!(news.is_empty(), now.len() == then.len() && now.iter().all(|known| then.contains(known)));
            prop_assert_eq!(view.count_entries(), plain.len());
        }
        for local in 0..21 {
            for key in [format!("user{local}@d0.example"), format!("user{local}@d1.example"), format!("/o=x/cn=user{local}")] {
                prop_assert_eq!(view.lookup(&key), known::lookup(&plain, &key));
            }
        }
    }
}

#[test]
fn an_empty_table_has_nobody() {
    let table = table(&[]);
    assert_eq!((table.claimants("a@b.c").count(), table.count()), (0, 0));
}

#[test]
fn more_than_was_counted_is_refused() {
    let claims = vec![Claim { key: "a@b.c".to_owned(), strength: Strength::Certain }];
    let known = Known { id: Id(1), dn: String::new(), claims, meaning: Err(String::new()) };
    let mut sizes = Sizes::default();
    assert_eq!(Builder::new(sizes).add(&known), Err(TooLarge::Addresses));
    sizes.add(&known);
    let mut builder = Builder::new(sizes);
    assert_eq!([builder.add(&known), builder.add(&known)], [Ok(()), Err(TooLarge::Addresses)]);
}
