//! Messages that another version wrote into the database.

use fingerpost::cluster::batch::delivered_after_all;
use fingerpost::cluster::ids::to_sql;
use fingerpost::spool::header::{self, FORMAT, Header};
use fingerpost::spool::record::{BEFORE, Lengths};

use super::*;

/// How long a sweep may take.
const SOON: Duration = Duration::from_secs(20);

/// A message as a row of format 3 would have it, and its content: the first of the example of that format.
fn of_format_3() -> (Vec<u8>, Vec<u8>) {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats/spool-segment-3.seg")).unwrap();
    let header = Header::read(&bytes).unwrap();
    let lengths = Lengths::read(header.mark, &bytes[header::LENGTH..]).unwrap();
    let (head, contents) = bytes[header::LENGTH + BEFORE..].split_at(lengths.head);
    // The head begins with the number of messages, and then the first one's envelope.
    let end = (2..head.len()).find(|end| Entry::read(3, &head[1..*end]).is_some()).unwrap();
    (head[1..end].to_vec(), contents[..lengths.contents].to_vec())
}

fn insert(setup: &Setup, format: u16, entry: (QueueId, &[u8]), content: &[u8]) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (id, entry) = (to_sql(entry.0), hex(entry.1));
    setup.primary.sql(&format!(
        "DELETE FROM fingerpost.queue WHERE id = {id}; DELETE FROM fingerpost.body WHERE id = {id}; \
         INSERT INTO fingerpost.queue (id, epoch, format, entry, sum) VALUES ({id}, 0, {format}, '\\x{entry}', {}); \
         INSERT INTO fingerpost.body (id, piece, content) VALUES ({id}, 0, '\\x{}')",
        crc32c::crc32c(content),
        hex(content)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_format_is_read_and_a_newer_one_waits_for_its_version() {
    let setup = Setup::start();
    setup.init().await;
    let (bytes, content) = of_format_3();
    let before = Entry::read(3, &bytes).unwrap();
    let id = before.id;
    assert_eq!((content.len() as u64, FORMAT > 3), (before.content.size, true));
    let format = |id: QueueId| {
        let statement = format!("SELECT format, epoch > 0 FROM fingerpost.queue WHERE id = {}", to_sql(id));
        setup.primary.sql(&statement)
    };

    // A node whose epoch has ended writes what it delivered.
    insert(&setup, 3, (id, &bytes), &content);
    let connection = setup.database().connect().await.unwrap();
    delivered_after_all(&connection, &[delivered(id, 0)]).await.unwrap();
    assert_eq!(format(id), format!("{FORMAT}|f"));

    // A node takes over what it can read.
    insert(&setup, 3, (id, &bytes), &content);
    let newer = Entry { id: QueueId(id.0 + 1), ..before.clone() };
    insert(&setup, FORMAT + 1, (newer.id, &newer.to_bytes().unwrap()), &content);
    let node = setup.node("a").await;
    eventually("it is taken over", SOON, || node.live_messages() == 1).await;
    assert_eq!(entry_of(&node, id).await.as_ref(), Some(&before));
    assert_eq!(read(&node, id).await, content);
    assert_eq!((format(id), format(newer.id)), ("3|t".into(), format!("{}|f", FORMAT + 1)));
    node.commit(changed(vec![deferred(id, 0)])).await.unwrap();
    assert_eq!(format(id), format!("{FORMAT}|t"), "what is written is in the current one");
    let mut now = before.clone();
    now.apply(&deferred(id, 0));
    assert_eq!(entry_of(&node, id).await, Some(now));

    // A node of the version that wrote it reads it, though this one lives.
    let other = format!("UPDATE fingerpost.queue SET format = {FORMAT} WHERE id = {}", to_sql(newer.id));
    setup.primary.sql(&other);
    eventually("it is taken over", SOON, || node.live_messages() == 2).await;
    assert_eq!(entry_of(&node, newer.id).await, Some(newer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_spoils_nothing_that_is_written_beside_it() {
    let setup = Setup::start();
    setup.init().await;
    let node = setup.node("a").await;
    let mails: Vec<_> = (0..3).map(|_| mail(&*node, 100, 2)).collect();
    let ids: Vec<QueueId> = mails.iter().map(|(draft, _)| draft.id()).collect();
    node.commit(accepted(mails)).await.unwrap();
    let newer = |id: QueueId| {
        setup.primary.sql(&format!("UPDATE fingerpost.queue SET format = 99 WHERE id = {}", to_sql(id)));
    };
    let unowned = |id: QueueId| {
        setup.primary.sql(&format!("SELECT epoch = 0 FROM fingerpost.queue WHERE id = {} AND format = 99", to_sql(id)))
    };

    newer(ids[0]);
    node.commit(changed(vec![delivered(ids[0], 0), delivered(ids[1], 0)])).await.unwrap();
    assert!(node.condition().takes_records());
    assert_eq!(unowned(ids[0]), "t", "it waits for a node of its version");
    assert_eq!((node.live_messages(), entry_of(&node, ids[0]).await), (2, None));
    assert_eq!(node.open_recipients(ids[1]), [1]);

    // After the end of the epoch it is left to whoever has it.
    newer(ids[1]);
    let connection = setup.database().connect().await.unwrap();
    delivered_after_all(&connection, &[delivered(ids[1], 1), delivered(ids[2], 0)]).await.unwrap();
    assert_eq!(unowned(ids[1]), "f");
    let last = entry_of(&node, ids[2]).await.unwrap();
    assert!(matches!(last.recipients[0].state, RecipientState::Done(_)), "{last:?}");
}
