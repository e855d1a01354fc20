//! Decides how a message is sent with the extensions that a next hop offers, or why it cannot (DESIGN section 7,
//! "Parameters"). Pure.
//!
//! `checkout` calls it before MAIL. What the next hop cannot take is refused for good, with replies of ours.

use std::borrow::Cow;

use crate::config::{BareLf, EightBit, SmtpOut};
use crate::smtp::address::Address;
use crate::smtp::client::commands::{self, MailParameters};
use crate::smtp::client::encode::Lines;
use crate::smtp::client::offers::{Offers, Size};
use crate::smtp::envelope::{Body, Sender};
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::entry::Content;

/// RFC 1870 6.1: by the SIZE in its reply to EHLO.
pub(super) const TOO_LARGE: Reply = Reply::fixed(552, Enhanced(5, 3, 4), "message too large for the next hop");
/// `bare_lf = "refuse"` (RFC 3463 3.7, X.6.1: media not supported).
pub(super) const BARE_LF: Reply =
    Reply::fixed(554, Enhanced(5, 6, 1), "the message has bare line feeds, and the next hop does not offer CHUNKING");
/// `eight_bit = "refuse"` (RFC 6152 3: conversion required but not supported).
pub(super) const EIGHT_BIT: Reply =
    Reply::fixed(554, Enhanced(5, 6, 3), "the message is 8-bit, and the next hop does not offer 8BITMIME");
/// RFC 6531 3.7.4.2.
pub(super) const NON_ASCII_ADDRESS: Reply =
    Reply::fixed(553, Enhanced(5, 6, 7), "the next hop does not offer SMTPUTF8, which the address needs");
/// RFC 6531 3.7.4.2.
pub(super) const NON_ASCII_HEADER: Reply =
    Reply::fixed(554, Enhanced(5, 6, 9), "the next hop does not offer SMTPUTF8, which the header section needs");

/// How the content is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyTransfer {
    Data(Lines),
    /// One `BDAT n LAST` (RFC 3030), for content with bare CR or LF.
    Bdat,
}

/// BODY: as the client announced it, or as the content is.
pub(super) fn body(sender: &Sender, content: &Content) -> Body {
    if content.eight_bit { Body::EightBitMime } else { sender.body }
}

/// MAIL's parameters, for content with this `body` and size; `None`: the size is unknown.
///
/// # Errors
/// The refusal of the branch.
pub(super) fn envelope(
    sender: &Sender,
    bytes: Option<u64>,
    body: Body,
    offers: &Offers,
) -> Result<(String, MailParameters), Reply> {
    let reverse_path = match sender.reverse_path.address() {
        None => Cow::Borrowed(""),
        Some(address) if offers.smtputf8 => Cow::Borrowed(address.as_str()),
        Some(address) => commands::ascii(address).ok_or(NON_ASCII_ADDRESS)?,
    };
    let mail = MailParameters {
        size: bytes.filter(|_| offers.size != Size::NotOffered),
        eight_bit_mime: offers.eight_bit_mime && body == Body::EightBitMime,
        smtputf8: offers.smtputf8 && (sender.smtputf8 || !reverse_path.is_ascii()),
        dsn: offers.dsn,
    };
    Ok((reverse_path.into_owned(), mail))
}

/// How content of `bytes`, including our fields, is transferred.
///
/// # Errors
/// The refusal of the branch.
pub(super) fn content_way(
    sender: &Sender,
    content: &Content,
    bytes: u64,
    settings: &SmtpOut,
    offers: &Offers,
) -> Result<BodyTransfer, Reply> {
    if too_large(bytes, offers) {
        return Err(TOO_LARGE);
    }
    let way = match (content.bare_lf, settings.bare_lf) {
        (false, _) => BodyTransfer::Data(Lines::AsTheyAre),
        (true, _) if offers.chunking => BodyTransfer::Bdat,
        (true, BareLf::Crlf) => BodyTransfer::Data(Lines::MadeCrlf),
        (true, BareLf::Refuse) => return Err(BARE_LF),
    };
    if content.eight_bit && !offers.eight_bit_mime && settings.eight_bit == EightBit::Refuse {
        return Err(EIGHT_BIT);
    }
    // A header section that is not ASCII and was not announced by SMTPUTF8 is sent unchanged, as 8-bit content is
    // (`eight_bit`): next hops have always accepted it.
    if sender.smtputf8 && !offers.smtputf8 && !content.ascii_header {
        return Err(NON_ASCII_HEADER);
    }
    Ok(way)
}

/// Whether the message exceeds the SIZE that the next hop offers.
pub(super) fn too_large(bytes: u64, offers: &Offers) -> bool {
    matches!(offers.size, Size::Limit(limit) if bytes > limit)
}

/// The forward-path that is sent.
///
/// # Errors
/// The refusal of the recipient.
pub(super) fn recipient<'a>(rcpt_to: &'a Address, offers: &Offers) -> Result<Cow<'a, str>, Reply> {
    if offers.smtputf8 { Ok(rcpt_to.as_str().into()) } else { commands::ascii(rcpt_to).ok_or(NON_ASCII_ADDRESS) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ClientAddress, Select, SendTls, SendTlsMode, Speaks};
    use crate::message::header::Identity;
    use crate::smtp::address::ReversePath;

    fn settings(bare_lf: BareLf, eight_bit: EightBit) -> SmtpOut {
        SmtpOut {
            speaks: Speaks::Smtp,
            smart_hosts: Vec::new(),
            select: Select::Failover,
            mx: false,
            dns_servers: Vec::new(),
            tls: SendTls { mode: SendTlsMode::None, verify: false, ca: None, server_name: None, ..SendTls::DEFAULT },
            auth: None,
            source_address: None,
            path_mtu_discovery: true,
            max_segment_size: None,
            client_address: ClientAddress::None,
            bare_lf,
            eight_bit,
            hide_internal_hosts: false,
            connect_timeout: Duration::from_secs(1),
            reply_timeout: Duration::from_secs(1),
        }
    }

    fn facts() -> Content {
        let identity = Identity { message_id: false, date: false, from: false, digest: [0; 16], id_and_date: [0; 16] };
        Content {
            size: 1000,
            header_size: 10,
            ascii_header: true,
            eight_bit: false,
            bare_lf: false,
            identity,
            message_id: String::new(),
        }
    }

    fn sender(address: &str) -> Sender {
        let reverse_path = ReversePath::Address(Address::parse(address).unwrap());
        Sender { reverse_path, size: None, body: Body::SevenBit, smtputf8: false, ret: None, envid: None }
    }

    /// A message's parameters and transfer.
    struct Negotiated {
        way: BodyTransfer,
        mail: MailParameters,
    }

    fn negotiate(sender: &Sender, content: &Content, settings: &SmtpOut, offers: &Offers) -> Result<Negotiated, Reply> {
        let way = content_way(sender, content, content.size, settings, offers)?;
        let (_, mail) = envelope(sender, Some(content.size), body(sender, content), offers)?;
        Ok(Negotiated { way, mail })
    }

    #[test]
    fn without_any_extension_a_plain_message_goes_without_parameters() {
        let settings = settings(BareLf::Refuse, EightBit::Refuse);
        let mut eight = sender("a@b.c");
        eight.body = Body::EightBitMime;
        let got = negotiate(&eight, &facts(), &settings, &Offers::default()).unwrap();
        assert_eq!(got.way, BodyTransfer::Data(Lines::AsTheyAre));
        assert_eq!(got.mail, MailParameters::default());
    }

    #[test]
    fn size_is_compared_and_said_where_it_is_offered() {
        let settings = settings(BareLf::Refuse, EightBit::Send);
        for (size, fits) in [
            (Size::NotOffered, Ok(None)),
            (Size::Unlimited, Ok(Some(1000))),
            (Size::Limit(1000), Ok(Some(1000))),
            (Size::Limit(999), Err(TOO_LARGE)),
        ] {
            let offers = Offers { size, ..Offers::default() };
            assert_eq!(negotiate(&sender("a@b.c"), &facts(), &settings, &offers).map(|it| it.mail.size), fits);
        }
    }

    #[test]
    fn bare_lf_goes_by_bdat_or_as_the_connector_says() {
        let content = Content { bare_lf: true, ..facts() };
        for (chunking, policy, way) in [
            (true, BareLf::Refuse, Ok(BodyTransfer::Bdat)),
            (true, BareLf::Crlf, Ok(BodyTransfer::Bdat)),
            (false, BareLf::Crlf, Ok(BodyTransfer::Data(Lines::MadeCrlf))),
            (false, BareLf::Refuse, Err(BARE_LF)),
        ] {
            let offers = Offers { chunking, ..Offers::default() };
            let got = negotiate(&sender("a@b.c"), &content, &settings(policy, EightBit::Send), &offers);
            assert_eq!(got.map(|it| it.way), way);
        }
    }

    #[test]
    fn eight_bit_content_goes_as_the_connector_says() {
        let content = Content { eight_bit: true, ..facts() };
        for (offered, policy, body) in [
            (true, EightBit::Refuse, Ok(true)),
            (false, EightBit::Send, Ok(false)),
            (false, EightBit::Refuse, Err(EIGHT_BIT)),
        ] {
            let offers = Offers { eight_bit_mime: offered, ..Offers::default() };
            let got = negotiate(&sender("a@b.c"), &content, &settings(BareLf::Refuse, policy), &offers);
            assert_eq!(got.map(|it| it.mail.eight_bit_mime), body);
        }
    }

    #[test]
    fn smtputf8_is_asked_for_where_it_is_needed() {
        let settings = settings(BareLf::Refuse, EightBit::Send);
        let utf8 = |address: &str| Sender { smtputf8: true, ..sender(address) };
        let eight = Content { ascii_header: false, eight_bit: true, ..facts() };
        for (offered, sender, content, said) in [
            (true, utf8("a@b.c"), facts(), Ok(true)),
            (true, sender("é@b.c"), facts(), Ok(true)),
            (true, sender("a@b.c"), eight.clone(), Ok(false)),
            (false, utf8("a@b.c"), facts(), Ok(false)),
            (false, utf8("a@b.c"), eight.clone(), Err(NON_ASCII_HEADER)),
            (false, sender("a@b.c"), eight, Ok(false)),
            (false, utf8("é@b.c"), facts(), Err(NON_ASCII_ADDRESS)),
            (false, utf8("a@bücher.example"), facts(), Ok(false)),
        ] {
            let offers = Offers { smtputf8: offered, ..Offers::default() };
            assert_eq!(negotiate(&sender, &content, &settings, &offers).map(|it| it.mail.smtputf8), said);
        }
        let rcpt = Address::parse("é@b.c").unwrap();
        assert_eq!(recipient(&rcpt, &Offers::default()), Err(NON_ASCII_ADDRESS));
        assert!(recipient(&rcpt, &Offers { smtputf8: true, ..Offers::default() }).is_ok());
    }
}
