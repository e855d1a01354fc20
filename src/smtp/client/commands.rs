//! Writes MAIL and RCPT to a next hop, with parameters of extensions that it offers only.
//!
//! RFC 5321 4.1.1.2 and 4.1.1.3, 1870 (SIZE), 6152 (BODY), 6531 (SMTPUTF8), 3461 (RET, ENVID, NOTIFY, ORCPT), 6533
//! (ORCPT of non-ASCII addresses). `delivery/attempt/negotiate` has decided which of them are used.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::smtp::address::Address;
use crate::smtp::envelope::{Notify, RcptTo, Ret, Sender};

/// The parameters that MAIL carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE in bytes; `None`: it is left out, because the next hop does not offer it.
    pub size: Option<u64>,
    /// `BODY=8BITMIME`.
    pub eight_bit_mime: bool,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// Whether RET and ENVID are written, where the client gave them.
    pub dsn: bool,
}

/// The address as it can be written without SMTPUTF8: unchanged if it is ASCII, with A-labels (RFC 5890) if only the
/// domain is not. `None`: the local part is not ASCII.
#[must_use]
pub fn ascii(address: &Address) -> Option<Cow<'_, str>> {
    if address.is_ascii() {
        Some(address.as_str().into())
    } else if address.local().is_ascii() {
        Some(format!("{}@{}", address.local(), address.domain()).into())
    } else {
        None
    }
}

/// Writes MAIL with its CRLF. `path` is the reverse-path without brackets.
pub fn mail(path: &str, sender: &Sender, with: &MailParameters, out: &mut String) {
    let _ = write!(out, "MAIL FROM:<{path}>");
    if let Some(size) = with.size {
        let _ = write!(out, " SIZE={size}");
    }
    if with.eight_bit_mime {
        out.push_str(" BODY=8BITMIME");
    }
    if with.smtputf8 {
        out.push_str(" SMTPUTF8");
    }
    if with.dsn {
        match sender.ret {
            Some(Ret::Full) => out.push_str(" RET=FULL"),
            Some(Ret::Headers) => out.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(envid) = sender.envid.as_deref().filter(|envid| is_parameter(envid)) {
            let _ = write!(out, " ENVID={envid}");
        }
    }
    out.push_str("\r\n");
}

/// Writes RCPT without DSN parameters, with its CRLF. `path` is the forward-path without brackets.
pub fn rcpt(path: &str, out: &mut String) {
    let _ = write!(out, "RCPT TO:<{path}>\r\n");
}

/// Writes RCPT with NOTIFY and ORCPT, with its CRLF. Where the address was rewritten and the client gave no ORCPT,
/// ORCPT is the address as received (RFC 3461 4.2).
pub fn rcpt_with_dsn(path: &str, rcpt_to: &Address, rcpt: &RcptTo, out: &mut String) {
    let _ = write!(out, "RCPT TO:<{path}>");
    if let Some(notify) = rcpt.notify {
        let _ = write!(out, " NOTIFY={}", notify_value(notify));
    }
    match rcpt.orcpt.as_deref().filter(|orcpt| is_parameter(orcpt)) {
        Some(orcpt) => {
            let _ = write!(out, " ORCPT={orcpt}");
        }
        None if rcpt.address != *rcpt_to => {
            let _ = write!(out, " ORCPT={}", orcpt_of(&rcpt.address));
        }
        None => {}
    }
    out.push_str("\r\n");
}

fn notify_value(notify: Notify) -> String {
    let Notify::On { success, failure, delay } = notify else { return "NEVER".to_owned() };
    let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
    words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join(",")
}

/// Whether the text can be a parameter's value unchanged: one word of graphic ASCII (RFC 3461 4.2, xtext and atom).
fn is_parameter(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// ORCPT's value: `rfc822;` and xtext (RFC 3461 4), or `utf-8;` and utf-8-addr-xtext (RFC 6533 3), which is ASCII too.
fn orcpt_of(address: &Address) -> String {
    let utf8 = !address.is_ascii();
    let mut out = String::from(if utf8 { "utf-8;" } else { "rfc822;" });
    for c in address.as_str().chars() {
        let plain = c.is_ascii_graphic() && c != '+' && c != '=' && !(utf8 && c == '\\');
        let _ = match (plain, utf8) {
            (true, _) => write!(out, "{c}"),
            (false, true) => write!(out, "\\x{{{:X}}}", u32::from(c)),
            (false, false) => write!(out, "+{:02X}", u32::from(c)),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::ReversePath;
    use crate::smtp::envelope::Body;
    use crate::smtp::path::mailbox;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn mail_carries_what_it_is_told() {
        let sender = Sender {
            reverse_path: ReversePath::Address(address("a@b.c")),
            size: Some(5),
            body: Body::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ+3D1".to_owned()),
        };
        let none = MailParameters::default();
        let all = MailParameters { size: Some(1234), eight_bit_mime: true, smtputf8: true, dsn: true };
        for (path, with, line) in [
            ("a@b.c", &none, "MAIL FROM:<a@b.c>\r\n"),
            ("", &none, "MAIL FROM:<>\r\n"),
            ("a@b.c", &all, "MAIL FROM:<a@b.c> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+3D1\r\n"),
        ] {
            let mut out = String::new();
            mail(path, &sender, with, &mut out);
            assert_eq!(out, line);
        }
    }

    #[test]
    fn however_a_path_came_it_goes_on_in_proper_form() {
        for (came, wire) in [
            ("chris@fabrikam.test.", "<chris@fabrikam.test>"),
            ("chris..x@fabrikam.test", "<\"chris..x\"@fabrikam.test>"),
            (".chris@fabrikam.test.", "<\".chris\"@fabrikam.test>"),
            ("chris.@b\u{fc}cher.example.", "<\"chris.\"@xn--bcher-kva.example>"),
        ] {
            let address = mailbox(came).unwrap();
            let path = ascii(&address).unwrap();
            let sender = Sender {
                reverse_path: ReversePath::Address(address.clone()),
                size: None,
                body: Body::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
            };
            let mut out = String::new();
            mail(&path, &sender, &MailParameters::default(), &mut out);
            rcpt(&path, &mut out);
            assert_eq!(out, format!("MAIL FROM:{wire}\r\nRCPT TO:{wire}\r\n"));
        }
    }

    #[test]
    fn rcpt_carries_notify_and_the_original_recipient() {
        let on = |success, failure, delay| Some(Notify::On { success, failure, delay });
        for (received, sent, notify, orcpt, line) in [
            ("a@b.c", "a@b.c", None, None, "RCPT TO:<a@b.c>\r\n"),
            ("a@b.c", "a@b.c", Some(Notify::Never), None, "RCPT TO:<a@b.c> NOTIFY=NEVER\r\n"),
            ("a@b.c", "a@b.c", on(true, true, false), None, "RCPT TO:<a@b.c> NOTIFY=SUCCESS,FAILURE\r\n"),
            ("a@b.c", "x@y.z", None, Some("rfc822;o@p.q"), "RCPT TO:<x@y.z> ORCPT=rfc822;o@p.q\r\n"),
            (
                "a+t@b.c",
                "x@y.z",
                on(false, false, true),
                None,
                "RCPT TO:<x@y.z> NOTIFY=DELAY ORCPT=rfc822;a+2Bt@b.c\r\n",
            ),
            ("\"a b\"@b.c", "x@y.z", None, None, "RCPT TO:<x@y.z> ORCPT=rfc822;\"a+20b\"@b.c\r\n"),
            ("ré=@b.c", "x@y.z", None, None, "RCPT TO:<x@y.z> ORCPT=utf-8;r\\x{E9}\\x{3D}@b.c\r\n"),
            ("a@b.c", "a@b.c", None, Some("rfc822;a b\r\nDATA"), "RCPT TO:<a@b.c>\r\n"),
        ] {
            let rcpt = RcptTo { address: address(received), notify, orcpt: orcpt.map(str::to_owned) };
            let mut out = String::new();
            rcpt_with_dsn(sent, &address(sent), &rcpt, &mut out);
            assert_eq!(out, line);
        }
    }

    #[test]
    fn only_a_local_part_needs_smtputf8() {
        for (written, wire) in
            [("a@b.c", Some("a@b.c")), ("a@bücher.example", Some("a@xn--bcher-kva.example")), ("é@b.c", None)]
        {
            assert_eq!(ascii(&address(written)).as_deref(), wire);
        }
    }
}
