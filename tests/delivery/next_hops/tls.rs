//! STARTTLS and AUTH towards a next hop with a certificate of a CA of our own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::{Mechanism, SendAuth, SendTls, SendTlsMode, SmtpOut};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

const ACCEPTED: &str = "accepted 250 2.0.0 queued";
const OFFERED: &str = "ehlo => 250-next.hop\\n250-STARTTLS\\n250 AUTH PLAIN LOGIN";

/// A CA in a file, and a next hop's certificate for these names.
fn certificate(folder: &Path, names: &[&str]) -> (PathBuf, TlsAcceptor) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let path = folder.join("ca.pem");
    std::fs::write(&path, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let issuer = Issuer::new(params, ca_key);
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (path, TlsAcceptor::from(Arc::new(config)))
}

struct Bench {
    folder: TempDir,
    ca: PathBuf,
    tls: TlsAcceptor,
}

impl Bench {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, tls) = certificate(folder.path(), names);
        Self { folder, ca, tls }
    }

    fn settings(&self, mode: SendTlsMode) -> SendTls {
        SendTls { mode, verify: false, ca: None, server_name: None, ..SendTls::DEFAULT }
    }

    fn verified(&self, mode: SendTlsMode, server_name: Option<&str>) -> SendTls {
        let server_name = server_name.map(str::to_owned);
        SendTls { mode, verify: true, ca: Some(self.ca.clone()), server_name, ..SendTls::DEFAULT }
    }

    fn password(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("password");
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn send(&self, script: &str, settings: impl FnOnce(&mut SmtpOut)) -> (ScriptedSmtpServer, String) {
        let hop = ScriptedSmtpServer::start(script, Some(self.tls.clone())).await;
        let mut smtp = smtp_out(vec![smart_host(hop.address)]);
        settings(&mut smtp);
        let outbound = Outbound::new(Metrics::new());
        let told = in_words(&Letter::to(&["a@contoso.com"]).send(&outbound, &connector(smtp)).await);
        (hop, told[0].clone())
    }
}

/// Whether MAIL came inside TLS; `None`: it never came.
fn encrypted(hop: &ScriptedSmtpServer) -> Option<bool> {
    let mail = |lines: &Vec<String>| lines.iter().position(|line| line.starts_with("MAIL"));
    hop.seen().iter().find_map(|seen| mail(&seen.lines).map(|at| seen.lines[..at].contains(&"(tls)".to_owned())))
}

#[tokio::test]
async fn tls_is_used_as_the_connector_says() {
    use SendTlsMode::{None as Never, Opportunistic, Required};
    let bench = Bench::new(&["next.hop"]);
    let refused = "starttls => 454 4.7.0 not now";
    for (mode, offer, extra, told, in_tls) in [
        (Never, OFFERED, "", ACCEPTED, Some(false)),
        (Opportunistic, OFFERED, "", ACCEPTED, Some(true)),
        (Opportunistic, "", "", ACCEPTED, Some(false)),
        (Opportunistic, OFFERED, refused, ACCEPTED, Some(false)),
        (Required, OFFERED, "", ACCEPTED, Some(true)),
        (Required, "", "", "deferred 451 4.7.4", None),
        (Required, "ehlo => 502 what", "", "deferred 451 4.7.4", None),
        (Required, OFFERED, refused, "deferred 451 4.7.0", None),
        (Required, OFFERED, "starttls => 554 5.7.0 no", "deferred 451 4.7.0", None),
        (Required, OFFERED, "starttls => drop", "deferred 451 4.4.2", None),
    ] {
        let script = format!("{extra}\n{offer}");
        let (hop, got) = bench.send(&script, |smtp| smtp.tls = bench.settings(mode)).await;
        assert!(got.starts_with(told), "{mode:?} {script}: {got}");
        assert_eq!(encrypted(&hop), in_tls, "{mode:?} {script}");
    }
}

#[tokio::test]
async fn certificates_are_verified_where_that_is_wanted() {
    use SendTlsMode::{Opportunistic, Required};
    let bench = Bench::new(&["next.hop", "127.0.0.1"]);
    let other = Bench::new(&["next.hop", "127.0.0.1"]);
    for (tls, told, in_tls) in [
        (bench.verified(Required, None), ACCEPTED, Some(true)),
        (bench.verified(Required, Some("next.hop")), ACCEPTED, Some(true)),
        (bench.verified(Required, Some("other.hop")), "deferred 451 4.7.5", None),
        (other.verified(Required, None), "deferred 451 4.7.5", None),
        (SendTls { ca: None, ..bench.verified(Required, None) }, "deferred 451 4.7.5", None),
        (SendTls { ca: Some("/nowhere.pem".into()), ..bench.verified(Required, None) }, "deferred 451 4.7.5", None),
        (SendTls { verify: false, ..other.verified(Required, None) }, ACCEPTED, Some(true)),
        (other.verified(Opportunistic, None), ACCEPTED, Some(false)),
    ] {
        let (hop, got) = bench.send(OFFERED, |smtp| smtp.tls = tls.clone()).await;
        assert!(got.starts_with(told), "{tls:?}: {got}");
        assert_eq!(encrypted(&hop), in_tls, "{tls:?}");
    }
}

#[tokio::test]
async fn a_failed_handshake_is_followed_by_clear_text_on_a_new_connection_only_when_opportunistic() {
    let bench = Bench::new(&["next.hop"]);
    for (mode, told, connections) in
        [(SendTlsMode::Opportunistic, ACCEPTED, 2), (SendTlsMode::Required, "deferred 451 4.7.5", 1)]
    {
        // It agrees and then does not speak TLS.
        let hop = ScriptedSmtpServer::start(OFFERED, None).await;
        let mut smtp = smtp_out(vec![smart_host(hop.address)]);
        smtp.tls = bench.settings(mode);
        let told_us = Letter::to(&["a@contoso.com"]).send(&Outbound::new(Metrics::new()), &connector(smtp)).await;
        let got = in_words(&told_us);
        assert!(got[0].starts_with(told), "{got:?}");
        assert_eq!(hop.seen().len(), connections);
        assert_ne!(encrypted(&hop), Some(true));
    }
}

/// It says no, and the mail goes in clear; it is silent, and may still say yes: that would answer the next command.
#[tokio::test]
async fn only_a_no_to_starttls_is_followed_by_clear_text_on_the_same_connection() {
    let bench = Bench::new(&["next.hop"]);
    for (said, told) in [("454 4.7.0 not now", ACCEPTED), ("after 1500 220 go", "STARTTLS: no answer within 500ms")] {
        let hop = ScriptedSmtpServer::start(&format!("{OFFERED}\nstarttls => {said}"), None).await;
        let patience = Duration::from_millis(500);
        let mut smtp = smtp_out(vec![smart_host(hop.address)]);
        smtp.tls = bench.settings(SendTlsMode::Opportunistic);
        (smtp.connect_timeout, smtp.reply_timeout) = (patience, patience);
        let got =
            in_words(&Letter::to(&["a@contoso.com"]).send(&Outbound::new(Metrics::new()), &connector(smtp)).await);
        assert!(got[0].contains(told), "{said}: {got:?}");
    }
}

#[tokio::test]
async fn what_was_said_before_tls_does_not_count_inside() {
    let bench = Bench::new(&["next.hop"]);
    // Somebody on the line adds a reply behind the one to STARTTLS, which would answer our EHLO inside TLS.
    let injected = format!("{OFFERED}\nstarttls => 220 go\\n250-evil\\n250 CHUNKING");
    let (hop, got) = bench.send(&injected, |smtp| smtp.tls = bench.settings(SendTlsMode::Required)).await;
    assert_eq!(got, ACCEPTED);
    assert_eq!(encrypted(&hop), Some(true));
    assert_eq!(hop.commands("EHLO").len(), 2);
}

#[tokio::test]
async fn auth_is_for_tls_alone_and_its_failure_is_never_the_mails() {
    use Mechanism::{Login, Plain};
    let bench = Bench::new(&["next.hop"]);
    let plain = "AUTH PLAIN AHVzZXIAc8OpY3JldA==";
    let said = "auth plain => 235 2.7.0 ok\nauth login => 334 VXNlcm5hbWU6\ndxnlcg== => 334 UGFzc3dvcmQ6\nc8opy3jldA== => 235 ok";
    for (mechanism, mode, script, told, auth) in [
        (Plain, SendTlsMode::Required, said, ACCEPTED, vec![plain]),
        (Login, SendTlsMode::Required, said, ACCEPTED, vec!["AUTH LOGIN"]),
        (Plain, SendTlsMode::Required, "auth => 535 5.7.8 bad", "deferred 451 4.7.8", vec![plain]),
        (Login, SendTlsMode::Required, "auth => 504 5.5.4 no", "deferred 451 4.5.4", vec!["AUTH LOGIN"]),
        (Plain, SendTlsMode::Required, "auth => 454 4.7.0 later", "deferred 451 4.7.0", vec![plain]),
        (Plain, SendTlsMode::Required, "auth => 250 what", "deferred 451 4.4.1", vec![plain]),
        (Plain, SendTlsMode::Required, "ehlo => 250-next.hop\\n250 STARTTLS", "deferred 451 4.7.4", vec![]),
        (Plain, SendTlsMode::None, said, "deferred 451 4.7.4", vec![]),
        (Plain, SendTlsMode::Opportunistic, "starttls => 454 4.7.0 no", "deferred 451 4.7.4", vec![]),
    ] {
        let script = format!("{script}\n{OFFERED}");
        let (hop, got) = bench
            .send(&script, |smtp| {
                smtp.tls = bench.settings(mode);
                let password_file = bench.password("sécret\r\n");
                smtp.auth = Some(SendAuth { mechanism, username: "user".to_owned(), password_file });
            })
            .await;
        assert!(got.starts_with(told), "{mechanism:?} {mode:?} {script}: {got}");
        assert_eq!(hop.commands("AUTH"), auth, "{mechanism:?} {mode:?} {script}");
        assert!(!got.contains("cret"));
    }
}

#[tokio::test]
async fn an_encrypted_connection_is_used_again() {
    let bench = Bench::new(&["next.hop"]);
    let hop = ScriptedSmtpServer::start(OFFERED, Some(bench.tls.clone())).await;
    let mut smtp = smtp_out(vec![smart_host(hop.address)]);
    smtp.tls = bench.settings(SendTlsMode::Required);
    let (outbound, out) = (Outbound::new(Metrics::new()), connector(smtp));
    for _ in 0..3 {
        assert_eq!(in_words(&Letter::to(&["a@contoso.com"]).send(&outbound, &out).await), [ACCEPTED]);
    }
    assert_eq!(hop.seen().len(), 1);
}
