//! Replies of Exchange, on premises and online, and of Outlook.com.
//!
//! Codes: "Email non-delivery reports and SMTP errors in Exchange Online" (learn.microsoft.com, of 2024-03-08, here
//! "the NDR page") with its pages for single codes. Texts besides: the `SmtpResponse` table of Exchange 2013 to 2019
//! ("SmtpResponse").

use crate::delivery::refusal::row::Class::{Either, Permanent, Transient};
use crate::delivery::refusal::row::Row;
use crate::delivery::refusal::row::Subject::{
    Content, Hop, Rate, Recipient, RelayedMail, Relaying, Sender, UnknownRecipient, Us,
};
use crate::delivery::refusal::row::When::{Code, CodeAndSays, Says};

/// By codes, at every step.
pub(super) static CODES: &[Row] = &[
    // -- about us --
    Row {
        name: "exchange-attribution",
        subject: Us,
        says: "5.7.51, 5.7.64, 5.7.68 TenantAttribution, TenantInboundAttribution: no connector fits us",
        look_at: "the inbound connector in Exchange Online: the name of our certificate, or our public address",
        // The NDR page (5.7.64); "5.7.51 TenantInboundAttribution; There is a partner connector configured";
        // "5.7.68 TenantInboundAttribution; Direct Send not allowed" (Reject Direct Send, Exchange team blog, 2025).
        when: &[Code(Either, 7, 51, 51), Code(Either, 7, 64, 64), Code(Either, 7, 68, 68)],
    },
    Row {
        name: "exchange-relay-denied",
        subject: Relaying,
        says: "5.7.54 Unable to relay recipient in non-accepted domain",
        look_at: "the accepted domains there, and the rights of the receive connector that we reach",
        when: &[Code(Either, 7, 54, 54)],
    },
    Row {
        name: "exchange-anonymous",
        subject: Us,
        says: "5.7.57 Client was not authenticated to send anonymous mail",
        look_at: "the receive connector there: anonymous users, or our address among its remote network settings",
        when: &[Code(Either, 7, 57, 57)],
    },
    Row {
        name: "exchange-send-as",
        subject: Us,
        says: "5.7.60, 5.7.61 Client does not have permissions to send as this sender",
        look_at: "the rights of our account or of the receive connector there (ms-Exch-SMTP-Accept-Any-Sender)",
        // SmtpResponse: SendAsDenied, SendOnBehalfOfDenied.
        when: &[Code(Either, 7, 60, 61)],
    },
    Row {
        name: "exchange-bad-helo",
        subject: Us,
        says: "5.7.506 Access Denied, Bad HELO",
        look_at: "`hostname`: the name that we say in EHLO must be our own",
        when: &[Code(Either, 7, 506, 506)],
    },
    Row {
        name: "exchange-blocked-ip",
        subject: Us,
        says: "5.7.507, 5.7.511, 5.7.513 our address is blocked, by the recipient's organisation or by Microsoft",
        look_at: "the block list of the tenant; for 5.7.511 delist@microsoft.com, with the whole reply",
        when: &[Code(Either, 7, 507, 507), Code(Either, 7, 511, 511), Code(Either, 7, 513, 513)],
    },
    Row {
        name: "exchange-ip-limit",
        subject: Us,
        says: "5.7.508 our address has exceeded permitted limits within its range",
        look_at: "how much we send over IPv6, and whether an account was broken into",
        when: &[Code(Permanent, 7, 508, 508)],
    },
    Row {
        name: "exchange-no-ipv6",
        subject: Us,
        says: "5.7.510 does not accept email over IPv6",
        look_at: "the next hop's address: give an IPv4 address, or a name that has one only",
        when: &[Code(Either, 7, 510, 510)],
    },
    Row {
        name: "exchange-banned-ip",
        subject: Us,
        says: "5.7.606 to 5.7.649 Access denied, banned sending IP",
        look_at: "https://sender.office.com/ takes our address off the list; find out what was sent from it",
        when: &[Code(Permanent, 7, 606, 649)],
    },
    Row {
        name: "exchange-tenant-blocked-recipient",
        subject: Recipient,
        says: "5.7.703 blocked by your organization using Tenant Allow Block List",
        look_at: "",
        when: &[Code(Permanent, 7, 703, 703)],
    },
    Row {
        name: "exchange-tenant-blocked",
        subject: Us,
        says: "5.7.700 to 5.7.750 the tenant may not send: threshold exceeded, address or domain not accepted",
        look_at: "the tenant: accounts that were broken into, connectors, domains that are not accepted there",
        // "Fix NDR error 550 5.7.700 through 550 5.7.750": 705, 708, 750.
        when: &[Code(Permanent, 7, 700, 702), Code(Permanent, 7, 704, 750)],
    },
    // -- about our pace --
    Row {
        name: "exchange-throttled",
        subject: Rate,
        says: "4.7.500 to 4.7.699, 4.7.850 to 4.7.899 Access denied, please try again later",
        look_at: "a connector for us in Exchange Online spares us this; find out whether more was sent than usual",
        when: &[Code(Transient, 7, 500, 699), Code(Transient, 7, 850, 899)],
    },
    // -- about the sender --
    Row {
        name: "exchange-banned-sender",
        subject: Sender,
        says: "5.7.501 to 5.7.503, 5.7.800 Access denied, spam abuse detected, banned sender",
        look_at: "",
        when: &[Code(Permanent, 7, 501, 503), Code(Permanent, 7, 800, 800)],
    },
    Row {
        name: "exchange-sender-filter",
        subject: Sender,
        says: "5.1.0 Sender denied; 5.7.105 sender's email address is on SenderFilterConfig list",
        look_at: "",
        when: &[Code(Permanent, 7, 105, 105), CodeAndSays(1, 0, &["sender denied"])],
    },
    Row {
        name: "exchange-sending-limit",
        subject: Sender,
        says: "5.1.90, 5.7.232 to 5.7.236 the sender's or the tenant's daily limit is reached",
        look_at: "",
        when: &[Code(Permanent, 1, 90, 90), Code(Permanent, 7, 232, 236)],
    },
    Row {
        name: "exchange-dmarc",
        subject: RelayedMail,
        says: "5.7.509 does not pass DMARC verification and has a DMARC policy of reject",
        look_at: "let the next hop trust us: an inbound connector with enhanced filtering, or us as an ARC sealer",
        when: &[Code(Permanent, 7, 509, 509)],
    },
    // -- about the recipient --
    Row {
        name: "exchange-invalid-recipient",
        subject: UnknownRecipient,
        says: "5.7.504 Recipient address rejected: Access denied",
        look_at: "",
        when: &[Code(Permanent, 7, 504, 504)],
    },
    Row {
        name: "exchange-banned-recipient",
        subject: Recipient,
        says: "5.7.505 Access denied, banned recipient",
        look_at: "",
        when: &[Code(Permanent, 7, 505, 505)],
    },
    Row {
        name: "exchange-restricted-recipient",
        subject: Recipient,
        says: "5.7.12, 5.7.13, 5.7.124, 5.7.133 to 5.7.136, 5.7.193 the recipient takes mail of some senders only",
        look_at: "",
        when: &[
            Code(Permanent, 7, 12, 13),
            Code(Permanent, 7, 124, 124),
            Code(Permanent, 7, 133, 136),
            Code(Permanent, 7, 193, 193),
        ],
    },
    Row {
        name: "exchange-receive-limit",
        subject: Recipient,
        says: "5.2.121, 5.2.122 the recipient's limit of messages an hour is exceeded",
        look_at: "",
        when: &[Code(Permanent, 2, 121, 122)],
    },
    Row {
        name: "exchange-delivery-tls",
        subject: Recipient,
        says: "x.7.321 to x.7.325 the server behind the next hop has no fit TLS, certificate, DANE or DNSSEC",
        look_at: "",
        when: &[Code(Either, 7, 321, 325)],
    },
    // -- about the content --
    Row {
        name: "exchange-not-compliant",
        subject: Content,
        says: "5.7.512 message must be RFC 5322 section 3.6.2 compliant",
        look_at: "",
        when: &[Code(Permanent, 7, 512, 512)],
    },
    Row {
        name: "exchange-external-forwarding",
        subject: Content,
        says: "5.7.520 Your organization does not allow external forwarding",
        look_at: "",
        when: &[Code(Permanent, 7, 520, 520)],
    },
];

/// By texts, at MAIL and RCPT.
pub(super) static WORDS: &[Row] = &[
    Row {
        name: "exchange-submission-denied",
        subject: Us,
        says: "Client does not have permissions to send as this sender, or to submit to this server; disabled account",
        look_at: "the rights of the receive connector there, its IP block list, our account",
        // SmtpResponse: SendAsDenied, AnonymousSendAsDenied, SendOnBehalfOfDenied, SubmitDenied,
        // SubmissionDisabledBySendQuota; the Connection Filtering agent.
        when: &[Says(
            Either,
            &[
                "does not have permissions to send as this sender",
                "does not have permissions to send on behalf of the from address",
                "does not have permissions to submit to this server",
                "submission has been disabled for this account",
                "unable to accept unauthorized message over ipv6",
            ],
        )],
    },
    Row {
        name: "exchange-tls-channel",
        subject: Us,
        says: "Failed to establish appropriate TLS channel; Cannot achieve Exchange Server authentication",
        look_at: "`tls` of the connector, our certificate and its name there",
        // SmtpResponse: GetInvalidChannelRejectResponse, CannotExchangeAuthenticate.
        when: &[Says(
            Either,
            &[
                "failed to establish appropriate tls channel",
                "cannot achieve exchange server authentication",
                "require xoorg extension to send mail",
            ],
        )],
    },
    Row {
        name: "outlook-block-list",
        subject: Us,
        says: "Unfortunately, messages from ... weren't sent, part of their network is on our block list",
        look_at: "https://sender.office.com/ and the reputation of our address",
        // Outlook.com (S3140, S3150).
        when: &[Says(Permanent, &["network is on our block list", "ip is on our block list", "on our block list"])],
    },
    Row {
        name: "exchange-backend",
        subject: Hop,
        says: "Temporary server error (PRX1 to PRX7), Timeout waiting for client input, Proxy session setup failed",
        look_at: "the transport services and the queues of the Exchange server",
        // SmtpResponse: GenericProxyFailure and its like, TimeoutOccurred, OrgQueueQuotaExceeded,
        // HubAttributionTransientFailureInEOH, ProxySessionProtocolSetupPermanentFailure.
        when: &[Says(
            Either,
            &[
                "temporary server error",
                "timeout waiting for client input",
                "the proxy layer is discarding data",
                "message not proxied",
                "no proxy destinations could be obtained",
                "proxy session setup failed on frontend",
                "organization queue quota exceeded",
                "unable to fetch attribution data",
                "temporary authorization failure",
            ],
        )],
    },
    Row {
        name: "exchange-not-authorized",
        subject: Recipient,
        says: "5.7.1 Delivery not authorized; Delivery restriction check failed; sender not authenticated for the group",
        look_at: "",
        // The NDR page, 5.7.1 and 5.7.133 to 5.7.136.
        when: &[Says(
            Permanent,
            &[
                "delivery not authorized",
                "delivery restriction check failed",
                "sender not authenticated for group",
                "sender was not authenticated",
                "sender not in allowed-senders list",
            ],
        )],
    },
];
