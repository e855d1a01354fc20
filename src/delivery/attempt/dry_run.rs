//! Connects to a next hop without mail, for `fingerpost check --connect`: everything before MAIL as for mail, then
//! QUIT.
//!
//! It has no effect on the next hop's health, and leaves no connection in the pool.

use std::sync::Arc;

use super::connection::{Connection, Terms};
use super::next_hop_error::{BAD_SECURITY, LOOP, NO_DNS, NO_SECURITY, NextHopError};
use super::next_hops::{self, NextHop};
use super::{Outbound, Reach, Waits, WayOut, open};
use crate::config::{Host, SendConnector, SendTls, SendTlsMode, SmtpOut};
use crate::delivery::refusal::Step;
use crate::delivery::slots::Applicant;
use crate::smtp::domain::Domain;
use crate::time::UnixTime;
use crate::tls::accept;

/// A next hop that would accept mail now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// `name[address]:port`, or `unix:PATH`.
    pub next_hop: Arc<str>,
    pub security: Security,
}

/// Whether the connection to a next hop is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// No: the connector does not ask for it, or the next hop does not offer it.
    Clear,
    /// No, although it offers STARTTLS, for this reason.
    Failed(String),
    /// Yes; until when its certificate is valid, if that can be read.
    Encrypted(Option<UnixTime>),
}

/// Why a next hop would accept no mail now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    pub about: About,
    pub why: String,
}

/// The kind of fault, which determines the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// It is this server, or greets with our name (DESIGN section 6, rule 2).
    Ourselves,
    /// Its name has no address.
    Name,
    /// STARTTLS, or the certificate.
    Security,
    /// AUTH.
    Login,
    /// It does not answer, or refuses us.
    Answer,
}

impl Hindrance {
    /// Without the next hop's name, which is shown separately.
    fn at(hop: &NextHop, error: NextHopError) -> Self {
        let hindrance = Self::from(error);
        let why = hindrance.why.strip_prefix(&format!("{}: ", hop.name())).map(str::to_owned);
        Self { why: why.unwrap_or(hindrance.why), ..hindrance }
    }
}

impl From<NextHopError> for Hindrance {
    fn from(error: NextHopError) -> Self {
        let about = match (error.step, error.reply.enhanced) {
            (Some(Step::Auth), _) => About::Login,
            (_, Some(LOOP)) => About::Ourselves,
            (_, Some(NO_DNS)) => About::Name,
            (_, Some(NO_SECURITY | BAD_SECURITY)) => About::Security,
            _ => About::Answer,
        };
        Self { about, why: error.reply.text.into_owned() }
    }
}

impl Outbound {
    /// Tries each next hop in these settings; `ehlo` is our host name.
    pub async fn dry_run(
        &self,
        ehlo: &Domain,
        connector: &SendConnector,
        smtp: SmtpOut,
    ) -> Vec<Result<Ready, Hindrance>> {
        let waits = Waits::of_queue(&smtp);
        let terms = Arc::new(Terms { ehlo: ehlo.clone(), smtp: Arc::new(smtp) });
        let connector = Arc::new(connector.clone());
        let out = WayOut {
            shared: self.shared.clone(),
            terms,
            connector,
            next_hop_domain: ehlo.clone(),
            waits,
            applicant: Applicant::QUEUE,
            reach: Reach::Anywhere,
            place: None,
        };
        let hops = match next_hops::smart_hosts(&out).await {
            Ok(hops) => hops,
            Err(error) => return vec![Err(error.into())],
        };
        let mut visited = Vec::with_capacity(hops.len());
        for hop in &hops {
            visited.push(match open::open(&out, hop).await {
                Ok(connection) => Ok(look(&out, hop, connection).await),
                Err(error) => Err(Hindrance::at(hop, error)),
            });
        }
        visited
    }
}

async fn look(out: &WayOut, hop: &NextHop, connection: Connection) -> Ready {
    let next_hop = connection.next_hop.clone();
    let wanted = out.terms.smtp.tls.mode != SendTlsMode::None && !matches!(hop.at.host, Host::Unix(_));
    let security = match connection.certificate() {
        Some(certificate) => Security::Encrypted(accept::good_until(certificate)),
        None if wanted && connection.offers.starttls => Security::Failed(why_in_clear(out, hop).await),
        None => Security::Clear,
    };
    connection.quit().await;
    Ready { next_hop, security }
}

/// Tries again with TLS required, to get the reason.
async fn why_in_clear(out: &WayOut, hop: &NextHop) -> String {
    let known = &*out.terms.smtp;
    let tls = SendTls { mode: SendTlsMode::Required, ..known.tls.clone() };
    let smtp = Arc::new(SmtpOut { tls, ..known.clone() });
    let terms = Arc::new(Terms { ehlo: out.terms.ehlo.clone(), smtp });
    match open::open(&WayOut { terms, ..out.clone() }, hop).await {
        Ok(connection) => {
            connection.quit().await;
            "TLS failed, and the next time it did not".to_owned()
        }
        Err(error) => error.reply.text.into_owned(),
    }
}
