//! General rows for refusals that no other row matches, by step and code. `read` chooses among them.

use crate::delivery::refusal::row::Row;
use crate::delivery::refusal::row::Subject::{
    Address, Content, Conversation, Hop, Nobody, NumberOfRecipients, Recipient, Sender, UnknownRecipient, Us,
};

macro_rules! rows {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $subject:expr, $says:literal, $look_at:literal;)*) => {
        $($(#[$doc])* pub(crate) static $id: Row =
            Row { name: $name, subject: $subject, says: $says, look_at: $look_at, when: &[] };)*
        /// All of them, in the manual's order.
        pub(super) static GENERAL: &[&Row] = &[$(&$id),*];
    };
}

rows! {
    /// 2xx and 3xx.
    ACCEPTED = "accepted", Nobody, "2xx, 3xx where they belong", "";
    /// A 2xx or 3xx that does not belong here.
    OUT_OF_STEP = "out-of-step", Conversation, "2xx, 3xx where they do not belong",
        "whatever stands between us and the next hop (firewalls that rewrite SMTP)";
    /// 5xx before MAIL.
    CONNECTION_REFUSED = "connection-refused", Us, "5xx to our connection, EHLO, STARTTLS or AUTH",
        "the words of the reply; whether the next hop lets our address in";
    /// 4xx before MAIL, 421, and 4.3.x or 4.4.x at RCPT.
    HOP_UNAVAILABLE = "hop-unavailable", Hop,
        "421; 4xx before MAIL and at MAIL; 4.3.x, 4.4.x at RCPT",
        "its services, disk and memory (Exchange: back pressure, its component state)";
    /// 5.3.2, 5.3.5 at MAIL or RCPT.
    HOP_OUT_OF_ORDER = "hop-out-of-order", Hop, "5.3.2, 5.3.5 at MAIL or RCPT: it takes no mail, or is misconfigured",
        "the next hop itself";
    /// A refusal with a host's address that no other row matches.
    HOST_REFUSED = "host-refused", Us, "5.7.x, or no enhanced code, with our address or name, or any IP address",
        "the words of the reply: what the next hop has against our address or name";
    /// A command or parameter.
    NOT_UNDERSTOOD = "not-understood", Conversation,
        "500 to 504, 555, 5.5.1, 5.5.2, 5.5.4 about a command or a parameter",
        "a firewall that rewrites SMTP; else this is a fault of ours: report it with the trace";
    /// 501, 504, 5.5.x about an address.
    ADDRESS_REFUSED = "address-refused", Address, "501, 504, 5.5.x about an address; 501 5.1.3", "";
    /// More than it accepts in one transaction.
    TOO_MANY_RECIPIENTS = "too-many-recipients", NumberOfRecipients,
        "452 4.5.3; 552 without 5.2.x or 5.3.x; too many recipients", "";
    /// 5.1.7 and 5.1.8, and all other 5xx at MAIL.
    SENDER_REFUSED = "sender-refused", Sender, "5xx at MAIL; x.1.7, x.1.8", "";
    /// By code: 550, 551, 553 with 5.1.x, 5.4.1, 5.5.0, or with nothing.
    RECIPIENT_UNKNOWN = "recipient-unknown-code", UnknownRecipient,
        "550, 551, 553 with 5.1.x, 5.4.1, 5.5.0 or no enhanced code at RCPT; 5.1.1 to 5.1.6, 5.1.10, 5.4.1 at the dot", "";
    /// Every other refusal at RCPT.
    RECIPIENT_REFUSED = "recipient-refused", Recipient, "other 4xx and 5xx at RCPT", "";
    /// 5.7.x that no other row matches, at MAIL.
    SENDER_POLICY = "sender-policy", Sender, "5.7.x at MAIL that no row has",
        "one address: that server's rules for it; many: it refuses everybody";
    /// 5.7.x that no other row matches, at RCPT.
    RECIPIENT_POLICY = "recipient-policy", Recipient, "5.7.x at RCPT that no row has",
        "one address: that server's rules for it; many: it refuses everybody";
    /// At DATA and the end of data.
    CONTENT_REFUSED = "content-refused", Content, "other 4xx and 5xx at DATA or the dot",
        "that server's filter; if it refuses all mail, its rules";
}
