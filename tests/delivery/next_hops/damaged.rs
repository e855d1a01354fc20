//! Content that is not what was written: it never gets an end of data, whatever its size and however it goes.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use fingerpost::config::{BareLf, SmtpOut, Speaks};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;
use fingerpost::spool::Stored;

use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

const CHUNKING: &str = "ehlo => 250-next.hop\\n250-PIPELINING\\n250 CHUNKING";
const MIME: &str = "ehlo => 250-next.hop\\n250-PIPELINING\\n250-8BITMIME\\n250 CHUNKING";

/// A way for the content to go.
struct Transfer {
    what: &'static str,
    script: &'static str,
    settings: fn(&mut SmtpOut),
    letter: fn(&mut Letter),
}

const TRANSFERS: [Transfer; 5] = [
    Transfer { what: "DATA", script: "", settings: |_| {}, letter: |_| {} },
    Transfer { what: "BDAT", script: CHUNKING, settings: |_| {}, letter: |letter| letter.content.bare_lf = true },
    Transfer {
        what: "BODY=8BITMIME",
        script: MIME,
        settings: |_| {},
        letter: |letter| letter.content.eight_bit = true,
    },
    Transfer {
        what: "line ends made CRLF",
        script: "",
        settings: |smtp| smtp.bare_lf = BareLf::Crlf,
        letter: |letter| letter.content.bare_lf = true,
    },
    Transfer {
        what: "LMTP",
        script: "",
        settings: |smtp| smtp.speaks = Speaks::Lmtp,
        letter: |letter| letter.prefix = Vec::new(),
    },
];

fn on_disk(bytes: &[u8], written: &[u8]) -> Stored {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Stored::file(Arc::new(file), written.len() as u64, Some(crc32c::crc32c(written)))
}

#[tokio::test]
async fn damaged_content_is_never_ended() {
    for Transfer { what, script, settings, letter: change } in TRANSFERS {
        for size in [30, 5_000, 65_536, 65_537, 200_000, 400_000] {
            let body: Vec<u8> = b"A line of a message.\r\n".repeat(size / 22 + 1);
            let mut letter = Letter::to(&["a@contoso.com", "b@contoso.com"]).saying(&body);
            letter.prefix = b"X-Stamp: 1\r\n".to_vec();
            change(&mut letter);
            let hop = ScriptedSmtpServer::start(script, None).await;
            let mut smtp = smtp_out(vec![smart_host(hop.address)]);
            settings(&mut smtp);
            let (outbound, connector) = (Outbound::new(Metrics::new()), connector(smtp));
            for at in [0, body.len() / 2, body.len() - 1] {
                let mut damaged = body.clone();
                damaged[at] ^= 1;
                let stored = on_disk(&damaged, &body);
                let told = in_words(&letter.send_stored(&outbound, &connector, stored.clone()).await);
                assert_eq!(told.len(), 2);
                for told in told {
                    assert!(
                        told.starts_with("deferred 451 4.3.0 the message was damaged"),
                        "{what} {size} {at}: {told}"
                    );
                }
                assert!(stored.is_damaged(), "{what} {size} {at}");
            }
            assert!(hop.taken().is_empty() && hop.contents().is_empty(), "{what} {size}: {:?}", hop.taken());
            let told = in_words(&letter.send_stored(&outbound, &connector, on_disk(&body, &body)).await);
            assert!(told.iter().all(|told| told.starts_with("accepted 250")), "{what} {size}: {told:?}");
            assert_eq!(hop.contents().len(), 1, "{what} {size}");
        }
    }
}

/// What the disk does not give is no content of another kind either.
#[tokio::test]
async fn content_that_is_too_short_is_never_ended() {
    let body: Vec<u8> = b"A line of a message.\r\n".repeat(10_000);
    let letter = Letter::to(&["a@contoso.com"]).saying(&body);
    let hop = ScriptedSmtpServer::start("", None).await;
    let (outbound, connector) = (Outbound::new(Metrics::new()), connector(smtp_out(vec![smart_host(hop.address)])));
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.write_all_at(&body[..100_000], 0).unwrap();
    let stored = Stored::file(file.clone(), body.len() as u64, Some(crc32c::crc32c(&body)));
    let told = in_words(&letter.send_stored(&outbound, &connector, stored.clone()).await);
    assert!(told[0].starts_with("deferred 451 4.3.0"), "{told:?}");
    assert!(hop.contents().is_empty() && !stored.is_damaged());
    file.write_all_at(&body, 0).unwrap();
    let told = in_words(&letter.send_stored(&outbound, &connector, stored).await);
    assert!(told[0].starts_with("accepted"), "{told:?}");
    assert_eq!(hop.contents(), [body]);
}
