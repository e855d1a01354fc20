//! The next hops of every send connector: whether each would accept mail now, and whether the connection is encrypted.
//!
//! `delivery` connects as for mail: EHLO (LHLO), STARTTLS and AUTH by the connector's settings, then QUIT. If that
//! succeeds, `source_routes` tests whether it relays source routes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::certificates::SOON;
use super::{Finding, source_routes};
use crate::config::{AskedServer, Config, Protocol, SendConnector, SmartHost, SmtpOut, Speaks};
use crate::delivery::attempt::Outbound;
use crate::delivery::attempt::dry_run::{About, Hindrance, Ready, Security};
use crate::metrics::Metrics;
use crate::time::UnixTime;

/// For connecting and for each reply: a check must not take minutes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries all of them, one after another.
pub(super) async fn visit_all(config: &Config) -> Vec<Finding> {
    let outbound = way_out(config);
    let mut findings = Vec::new();
    for connector in &config.send_connectors {
        match &connector.protocol {
            Protocol::Smtp(smtp) => {
                for host in &smtp.smart_hosts {
                    findings.extend(dry_run(&outbound, config, connector, smtp, host).await);
                }
            }
            Protocol::Maildir(folder) => findings.push(maildir(connector, folder)),
        }
    }
    findings
}

/// Delivery that knows our own listeners.
pub(in crate::cli) fn way_out(config: &Config) -> Outbound {
    let outbound = Outbound::new(Metrics::new());
    outbound.set_own_listeners(config.receive_connectors.iter().flat_map(|door| door.bind.clone()).collect());
    outbound
}

fn maildir(connector: &SendConnector, folder: &std::path::Path) -> Finding {
    let what = format!("send connector {}", connector.name);
    match folder.is_dir() {
        true => Finding::well(what, format!("{} is there", folder.display())),
        false => Finding::well(what, format!("{} will be made with the first mail", folder.display())),
    }
}

/// Tries one smart host, with its MX if it is looked up so.
async fn dry_run(
    outbound: &Outbound,
    config: &Config,
    connector: &Arc<SendConnector>,
    smtp: &SmtpOut,
    host: &SmartHost,
) -> Vec<Finding> {
    let alone = SmtpOut {
        smart_hosts: vec![host.clone()],
        connect_timeout: smtp.connect_timeout.min(PATIENCE),
        reply_timeout: smtp.reply_timeout.min(PATIENCE),
        ..smtp.clone()
    };
    let what = format!("send connector {}, next hop {host}", connector.name);
    let ehlo = &config.server.hostname;
    match timeout(PATIENCE * 3, outbound.dry_run(ehlo, connector, alone.clone())).await {
        Ok(visited) => {
            let mut findings: Vec<_> =
                visited.iter().flat_map(|one| judge(&what, smtp, one, UnixTime::now())).collect();
            if smtp.speaks == Speaks::Smtp && visited.iter().any(Result::is_ok) {
                let connector = SendConnector { protocol: Protocol::Smtp(alone.into()), ..(**connector).clone() };
                let server = AskedServer { connector: connector.into(), ehlo: ehlo.clone() };
                findings.extend(source_routes::ask(&what, config, outbound, &server).await);
            }
            findings
        }
        Err(_) => {
            let cure = "see that no firewall stands between, and that the host takes mail from our address";
            vec![Finding::bad(what, "does not answer in time", cure)]
        }
    }
}

/// The findings of one attempt: its result, and the validity of the certificate if there is one.
fn judge(what: &str, smtp: &SmtpOut, visited: &Result<Ready, Hindrance>, now: UnixTime) -> Vec<Finding> {
    let ready = match visited {
        Ok(ready) => ready,
        Err(Hindrance { about, why }) => return vec![Finding::bad(what, why.as_str(), cure(*about))],
    };
    let login = smtp.auth.as_ref().map_or_else(String::new, |auth| format!("; it knows us as {}", auth.username));
    // A name may have several addresses.
    let who = if what.ends_with(&*ready.next_hop) { String::new() } else { format!("{} ", ready.next_hop) };
    let answers = |how: &str| format!("{who}answers, {how}{login}");
    match &ready.security {
        Security::Clear => vec![Finding::well(what, answers("in clear"))],
        Security::Failed(why) => {
            let cure = "have its TLS mended; until then mail goes there in clear, as `tls.mode` allows";
            vec![Finding::doubtful(what, answers(&format!("in clear, because STARTTLS fails: {why}")), cure)]
        }
        Security::Encrypted(until) => {
            let how = if smtp.tls.verify { "by TLS, verified" } else { "by TLS, not verified" };
            let mut findings = vec![Finding::well(what, answers(how))];
            findings.extend(until.map(|until| certificate(what, smtp, until, now)));
            findings
        }
    }
}

/// The certificate's expiry. A certificate that is verified and has expired fails before.
fn certificate(what: &str, smtp: &SmtpOut, until: UnixTime, now: UnixTime) -> Finding {
    let what = format!("certificate of {what}");
    let found = format!("is good until {until}");
    match until.0.checked_sub(now.0) {
        None | Some(0) => {
            Finding::doubtful(what, format!("expired at {until}"), "have it renewed before you set `tls.verify`")
        }
        Some(left) if left < SOON.as_secs() && smtp.tls.verify => {
            Finding::doubtful(what, found, "have it renewed: once it has expired nothing is sent there")
        }
        Some(_) => Finding::well(what, found),
    }
}

fn cure(about: About) -> &'static str {
    match about {
        About::Ourselves => {
            "correct the smart host or its DNS record: it leads back to us, or to a server that says our name"
        }
        About::Name => "correct the name, or see that DNS answers (`dns_servers`)",
        About::Security => {
            "see that it offers STARTTLS with a certificate that fits the connector's `tls` (`ca`, `server_name`) and has \
             not expired; until then nothing is sent there"
        }
        About::Login => {
            "see that `auth` names the mechanism, the user and the password that it knows us by; until then nothing is \
             sent there"
        }
        About::Answer => "see that it is up, reachable from here, and lets us in",
    }
}
