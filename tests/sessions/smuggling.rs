//! SMTP smuggling: whatever some reader might take for the end of data, cut over packets at every octet, arrives as one
//! message or is refused; what stands behind it is never a second message.

use std::sync::Arc;

use support::sessions::SessionSetup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Everything that is not CRLF.CRLF but has been taken for it.
const LOOKALIKES: [&str; 13] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r\n.\r",
    "\r.\r\n",
    "\r\r\n.\r\r\n",
    "\n.\r",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\r\n\n.\r\n",
    "\r\n.\n.\r\n",
    "\r\n.\r.\r\n",
];

const SMUGGLED: &str = "MAIL FROM:<evil@fabrikam.example>\r\nRCPT TO:<alice@contoso.com>\r\nDATA\r\nsmuggled\r\n";
const ENVELOPE: &str = "EHLO c\r\nMAIL FROM:<a@fabrikam.example>\r\nRCPT TO:<alice@contoso.com>\r\n";

/// Sends `text` in two pieces; returns the codes of the replies behind the greeting and the bodies that were accepted.
async fn send(setup: &SessionSetup, text: &[u8], cut: usize) -> (Vec<String>, Vec<String>) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let session = fingerpost::session::serve(
        Arc::new(setup.services.clone()),
        setup.client("192.0.2.1"),
        server,
        CancellationToken::new(),
    );
    let session = tokio::spawn(session);
    client.write_all(&text[..cut]).await.unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await; // the session reads the first piece
    }
    client.write_all(&text[cut..]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    session.await.unwrap();
    let last_lines = said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
    let codes = last_lines.map(|line| line[..3].to_owned()).skip(1).collect();
    let body =
        |content: Vec<u8>| String::from_utf8(content).unwrap().split("\r\n").skip(3).collect::<Vec<_>>().join("\r\n");
    (codes, setup.take_committed().into_iter().map(|(_, content)| body(content)).collect())
}

#[tokio::test]
async fn data_with_a_lookalike_is_refused_to_its_true_end() {
    let setup = SessionSetup::new();
    for lookalike in LOOKALIKES {
        let text = format!("{ENVELOPE}DATA\r\n\r\nhello{lookalike}{SMUGGLED}\r\n.\r\nQUIT\r\n");
        let start = ENVELOPE.len();
        for cut in start..text.len() {
            let (codes, bodies) = send(&setup, text.as_bytes(), cut).await;
            let told = format!("{lookalike:?} cut at {cut}");
            // A bare CR or LF ends the session as well.
            let bare = lookalike.replace("\r\n", "").contains(['\r', '\n']);
            let quit = if bare { &[][..] } else { &["221"] };
            assert_eq!(codes, [&["250", "250", "250", "354", "554"], quit].concat(), "{told}");
            assert_eq!(bodies, [""; 0], "{told}");
        }
    }
}

#[tokio::test]
async fn a_chunk_with_a_lookalike_is_one_message_octet_by_octet_or_none() {
    let setup = SessionSetup::new();
    for lookalike in LOOKALIKES.into_iter().chain(["\r\n.\r\n"]) {
        let body = format!("\r\nhello{lookalike}{SMUGGLED}\r\n.\r\n");
        let text = format!("{ENVELOPE}BDAT {} LAST\r\n{body}QUIT\r\n", body.len());
        for cut in (ENVELOPE.len()..text.len()).step_by(5) {
            let (codes, bodies) = send(&setup, text.as_bytes(), cut).await;
            let (code, kept) = if lookalike.contains('\0') { ("554", None) } else { ("250", Some(body.as_str())) };
            assert_eq!(codes, ["250", "250", "250", code, "221"], "{lookalike:?} cut at {cut}");
            assert!(bodies.iter().map(String::as_str).eq(kept), "{lookalike:?} cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_bare_line_end_in_a_command_ends_the_session() {
    let setup = SessionSetup::new();
    for line_end in ["\n", "\r", "\r\r\n", "\n\r"] {
        let text = format!("EHLO c\r\nNOOP{line_end}{SMUGGLED}.\r\n");
        for cut in 8..text.len() {
            let (codes, bodies) = send(&setup, text.as_bytes(), cut).await;
            assert_eq!(codes, ["250", "500"], "{line_end:?} cut at {cut}");
            assert_eq!(bodies, [""; 0], "{line_end:?} cut at {cut}");
        }
    }
}
