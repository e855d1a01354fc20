//! A message to be sent by `Outbound`, and a connector to send it by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::{
    BareLf, ClientAddress, Delivery, EightBit, Host, Protocol, Retry, Select, SendConnector, SendTls, SendTlsMode,
    SmartHost, SmtpOut, Speaks,
};
use fingerpost::delivery::attempt::{Outbound, Reach};
use fingerpost::delivery::branch::QueuedBranch;
use fingerpost::delivery::outcome::{Class, Outcome};
use fingerpost::message::header::Identity;
use fingerpost::routing::table::SourceRoutes;
use fingerpost::smtp::address::{Address, ReversePath};
use fingerpost::smtp::domain::Domain;
use fingerpost::smtp::envelope::{Body, Origin, RcptTo, Sender};
use fingerpost::spool::Stored;
use fingerpost::spool::entry::Content;

/// Our own host name in these tests.
pub const EHLO: &str = "mx.contoso.com";

/// A message.
pub struct Letter {
    pub sender: Sender,
    pub content: Content,
    pub prefix: Vec<u8>,
    pub body: Vec<u8>,
    pub to: Vec<RcptTo>,
    pub rewritten: Vec<Option<Address>>,
    pub domain: Domain,
    pub reach: Reach,
}

impl Letter {
    /// A small one to these recipients.
    pub fn to(recipients: &[&str]) -> Self {
        let reverse_path = ReversePath::Address(Address::parse("sender@fabrikam.com").unwrap());
        let rcpt = |address: &&str| RcptTo { address: Address::parse(address).unwrap(), notify: None, orcpt: None };
        let letter = Self {
            sender: Sender { reverse_path, size: None, body: Body::SevenBit, smtputf8: false, ret: None, envid: None },
            content: Content {
                size: 0,
                header_size: 13,
                ascii_header: true,
                eight_bit: false,
                bare_lf: false,
                identity: Identity {
                    message_id: false,
                    date: false,
                    from: false,
                    digest: [0; 16],
                    id_and_date: [0; 16],
                },
                message_id: String::new(),
            },
            prefix: Vec::new(),
            body: Vec::new(),
            to: recipients.iter().map(rcpt).collect(),
            rewritten: vec![None; recipients.len()],
            domain: Domain::parse("contoso.com").unwrap(),
            reach: Reach::Anywhere,
        };
        letter.saying(b"Subject: test\r\n\r\nhello\r\n")
    }

    /// The same with another content.
    pub fn saying(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.content.size = body.len() as u64;
        self
    }

    /// Sends it, and says what became of each recipient.
    pub async fn send(&self, outbound: &Outbound, connector: &SendConnector) -> Vec<Outcome> {
        self.send_stored(outbound, connector, Stored::memory(self.body.clone().into())).await
    }

    /// The same with the content where it is.
    pub async fn send_stored(&self, outbound: &Outbound, connector: &SendConnector, body: Stored) -> Vec<Outcome> {
        let Protocol::Smtp(smtp) = &connector.protocol else { panic!("not SMTP") };
        let recipients = self.to.iter().zip(&self.rewritten).map(|(rcpt, rewritten)| {
            let rcpt_to = rewritten.as_ref().unwrap_or(&rcpt.address);
            (rcpt.clone(), rcpt_to.clone())
        });
        let branch = QueuedBranch {
            connector: &Arc::new(connector.clone()),
            smtp,
            next_hop_domain: &self.domain,
            reach: self.reach,
            origin: &Origin::report(),
            sender: &self.sender,
            content: &self.content,
            fields: &|_, _| String::from_utf8(self.prefix.clone()).unwrap(),
            body,
            is_ours: &|| true,
            place: None,
            recipients: recipients.collect(),
        };
        outbound.send(&Domain::parse(EHLO).unwrap(), branch).await
    }
}

/// What became of recipients, a line each: `accepted 250 2.0.0 queued`.
pub fn in_words(outcomes: &[Outcome]) -> Vec<String> {
    let word = |outcome: &Outcome| {
        let word = match outcome.class {
            Class::Accepted if outcome.success.is_none() => "accepted with DSN",
            Class::Accepted => "accepted",
            Class::UnknownRecipient => "unknown",
            Class::Refused => "refused",
            Class::Deferred | Class::TooManyRecipients | Class::Unreachable | Class::LeftToQueue | Class::InDoubt => {
                "deferred"
            }
        };
        format!("{word} {}", outcome.reply)
    };
    outcomes.iter().map(word).collect()
}

/// A smart host written in brackets.
pub fn smart_host(address: SocketAddr) -> SmartHost {
    SmartHost::new(Host::Address(address.ip()), address.port())
}

/// Settings for these smart hosts: no TLS, short time limits.
pub fn smtp_out(smart_hosts: Vec<SmartHost>) -> SmtpOut {
    SmtpOut {
        speaks: Speaks::Smtp,
        smart_hosts,
        select: Select::Failover,
        mx: false,
        dns_servers: Vec::new(),
        tls: SendTls { mode: SendTlsMode::None, verify: false, ca: None, server_name: None, ..SendTls::DEFAULT },
        auth: None,
        source_address: None,
        path_mtu_discovery: true,
        max_segment_size: None,
        client_address: ClientAddress::None,
        bare_lf: BareLf::Refuse,
        eight_bit: EightBit::Send,
        hide_internal_hosts: true,
        connect_timeout: Duration::from_secs(30),
        reply_timeout: Duration::from_secs(300),
    }
}

/// A connector with these settings.
pub fn connector(smtp: SmtpOut) -> SendConnector {
    SendConnector {
        name: Arc::from("out"),
        organization: Arc::from(""),
        protocol: Protocol::Smtp(Arc::new(smtp)),
        address_spaces: Vec::new(),
        verify_with: None,
        source_routes: SourceRoutes::Refuse,
        rewrite_target_address: true,
        retry: Retry {
            first: Duration::from_secs(60),
            factor: 2.0,
            max: Duration::from_secs(1800),
            warn_after: Duration::from_secs(14400),
            give_up_after: Duration::from_secs(172_800),
        },
        max_connections: 20,
        delivery: Delivery::Queue,
    }
}
