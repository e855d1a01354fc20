//! Random input, cut at random places.

use bytes::BytesMut;
use proptest::prelude::*;

use super::{MAIL, RCPT, Seen, server};
use crate::smtp::server::TlsState;

/// Pieces of conversations, and random octets.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let said = prop::sample::select(vec![
        MAIL,
        RCPT,
        "EHLO c\r\n",
        "DATA\r\n",
        "BDAT 5\r\n",
        "BDAT 70 LAST\r\n",
        "RSET\r\n",
        "\r\n.\r\n",
        "\r\n",
        ".",
        "RCPT TO:<no@d.e>\r\n",
        "STARTTLS\r\n",
        "\n",
        "\r",
        "A: b\r\n\r\n",
        "NOOP\r\n",
        "BDAT 99999999999999999999\r\n",
    ]);
    let piece = prop_oneof![
        8 => said.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => Just(vec![b'x'; 3000]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Any input leaves the machine waiting for input, with bounded memory; the result does not depend on how the input
    /// is cut.
    #[test]
    fn any_octets_are_survived_and_cutting_changes_nothing(text in noise(), size in 1_usize..50) {
        let whole = run(&text, text.len().max(1));
        let cut = run(&text, size);
        prop_assert_eq!(whole.codes, cut.codes);
        prop_assert_eq!(whole.messages, cut.messages);
    }
}

/// Feeds octets in pieces and checks how much stays unread.
fn run(text: &[u8], size: usize) -> Seen {
    let mut server = server(TlsState::Unavailable);
    let mut seen = Seen::default();
    let mut input = BytesMut::new();
    for piece in text.chunks(size) {
        input.extend_from_slice(piece);
        seen.perform(&mut server, &mut input);
        if seen.closed {
            break;
        }
        assert!(input.len() < 2050, "{} octets are left unread", input.len());
        assert!(seen.draft.len() < 2000);
    }
    seen
}
