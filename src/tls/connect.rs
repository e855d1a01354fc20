//! TLS towards next hops (RFC 3207): the requirements of a send connector's `tls`, and our own certificate.
//!
//! `delivery/attempt` takes a connector from [`TlsClients`] after STARTTLS. It decides whether TLS is used, and handles
//! failed handshakes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use super::accept;
use super::signatures::check_signatures;
use crate::config::{CertificateFiles, SendTls, TlsVersion};

/// Why there is no TLS configuration; no connection was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {why}; write a PEM file with the CA's certificate", path.display())]
    Ca { path: PathBuf, why: String },
    #[error("client certificate: {0}")]
    Certificate(String),
    #[error("the system has no CA certificates ({0}); install them or name a file in `ca`")]
    NoRoots(String),
    /// The name cannot be in a certificate.
    #[error("`{0}` is not a name that a certificate can have; set `server_name`")]
    Name(String),
    #[error("tls: {0}")]
    Tls(String),
}

/// The inputs of a TLS configuration, with files as of their last change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    trust: Trust,
    certificate: Option<(CertificateFiles, [Option<SystemTime>; 2])>,
    min_version: TlsVersion,
}

/// Which certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trust {
    /// Any: encryption against eavesdroppers only.
    Anybody,
    /// Those of the system's CAs.
    System,
    /// Those of the CAs in a file.
    File(PathBuf, Option<SystemTime>),
}

impl Terms {
    fn of(tls: &SendTls) -> Self {
        let trust = match (tls.verify, &tls.ca) {
            (false, _) => Trust::Anybody,
            (true, None) => Trust::System,
            (true, Some(path)) => Trust::File(path.clone(), changed(path)),
        };
        let with_times = |files: &CertificateFiles| (files.clone(), [changed(&files.certificate), changed(&files.key)]);
        Self { trust, certificate: tls.certificate.as_ref().map(with_times), min_version: tls.min_version }
    }

    /// Whether the other is for the same files as read at another time.
    fn replaces(&self, other: &Self) -> bool {
        let files = |terms: &Self| terms.certificate.as_ref().map(|(files, _)| files.clone());
        let trust = match (&self.trust, &other.trust) {
            (Trust::File(path, _), Trust::File(older, _)) => path == older,
            (trust, other) => trust == other,
        };
        trust && files(self) == files(other) && self.min_version == other.min_version
    }
}

fn changed(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|data| data.modified()).ok()
}

/// TLS configurations, cached until their files change.
#[derive(Debug, Default)]
pub struct TlsClients {
    made: Mutex<Vec<(Terms, Arc<ClientConfig>)>>,
}

impl TlsClients {
    /// The connector for `tls`. Blocks if certificates have to be read.
    ///
    /// # Errors
    /// [`TlsError`] if the CAs or our certificate cannot be read.
    pub fn connector(&self, tls: &SendTls) -> Result<TlsConnector, TlsError> {
        let terms = Terms::of(tls);
        let known = |made: &[(Terms, Arc<ClientConfig>)]| {
            made.iter().find(|(other, _)| *other == terms).map(|(_, config)| config.clone())
        };
        if let Some(config) = known(&self.made.lock()) {
            return Ok(config.into());
        }
        let config = Arc::new(client_config(&terms)?);
        let mut made = self.made.lock();
        made.retain(|(other, _)| !terms.replaces(other));
        made.push((terms, config.clone()));
        Ok(config.into())
    }
}

/// The name that the certificate has to have: `server_name`, else the next hop's name or address.
///
/// # Errors
/// [`TlsError::Name`].
pub fn server_name(tls: &SendTls, host: &str) -> Result<ServerName<'static>, TlsError> {
    let name = tls.server_name.as_deref().unwrap_or(host).trim_end_matches('.');
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))
}

fn client_config(terms: &Terms) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match terms.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let verifier: Arc<dyn ServerCertVerifier> = match &terms.trust {
        Trust::Anybody => Arc::new(Anybody { algorithms: provider.signature_verification_algorithms }),
        Trust::System => verifier(roots(None)?, &provider)?,
        Trust::File(path, _) => verifier(roots(Some(path))?, &provider)?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Tls(error.to_string()))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(match &terms.certificate {
        None => builder.with_no_client_auth(),
        Some((files, _)) => {
            let certificate = accept::load(files).map_err(|error| TlsError::Certificate(error.to_string()))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
        }
    })
}

/// Verifies servers by this file's CAs, or the system's.
///
/// # Errors
/// [`TlsError`] if the CAs cannot be read.
pub(crate) fn verified(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let trust = ca.map_or(Trust::System, |path| Trust::File(path.to_owned(), changed(path)));
    client_config(&Terms { trust, certificate: None, min_version: TlsVersion::Tls12 })
}

fn verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(|error| TlsError::Tls(error.to_string()))
}

/// The trusted CAs: a file's, or the system's.
///
/// # Errors
/// [`TlsError::Ca`], [`TlsError::NoRoots`].
pub(crate) fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    ca.map_or_else(system_roots, file_roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots(why));
    }
    Ok(roots)
}

fn file_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let bad = |why: String| TlsError::Ca { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))? {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() { Err(bad("there is no certificate in it".to_owned())) } else { Ok(roots) }
}

/// Accepts every certificate. With `verify = false` the alternative to an unverified certificate is clear text (RFC
/// 7435), which verifies nothing either. The signatures of the handshake are still checked.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    check_signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SendTlsMode;

    fn tls(ca: Option<PathBuf>, server_name: Option<&str>) -> SendTls {
        let server_name = server_name.map(str::to_owned);
        SendTls { mode: SendTlsMode::Required, verify: true, ca, server_name, ..SendTls::DEFAULT }
    }

    #[test]
    fn a_ca_file_is_read_once_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let clients = TlsClients::default();
        assert!(matches!(clients.connector(&tls(Some(path.clone()), None)), Err(TlsError::Ca { .. })));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(matches!(clients.connector(&tls(Some(path.clone()), None)), Err(TlsError::Ca { .. })));
        let pem = rcgen::generate_simple_self_signed(vec!["mx".to_owned()]).unwrap().cert.pem();
        for _ in 0..2 {
            std::fs::write(&path, &pem).unwrap();
            let later = SystemTime::now() + std::time::Duration::from_secs(5);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
            let first = clients.connector(&tls(Some(path.clone()), None)).unwrap();
            let second = clients.connector(&tls(Some(path.clone()), None)).unwrap();
            assert!(Arc::ptr_eq(first.config(), second.config()));
            assert_eq!(clients.made.lock().len(), 1);
        }
    }

    #[test]
    fn the_name_is_the_written_one_or_the_hosts() {
        for (written, host, name) in [
            (None, "mx.contoso.com", Some("mx.contoso.com")),
            (None, "mx.contoso.com.", Some("mx.contoso.com")),
            (Some("gw.contoso.com"), "10.0.0.5", Some("gw.contoso.com")),
            (None, "10.0.0.5", Some("10.0.0.5")),
            (None, "2001:db8::1", Some("2001:db8::1")),
            (None, "not a name", None),
        ] {
            let got = server_name(&tls(None, written), host).ok().map(|name| name.to_str().into_owned());
            assert_eq!(got.as_deref(), name, "{host}");
        }
    }
}
