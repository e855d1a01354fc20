//! TLS of receive connectors: chooses the certificate by the client's SNI (RFC 6066 3), and has the authorities for
//! client certificates.
//!
//! `listener` reads [`Certificates`] at each reload and when their files change, and gives every session the
//! [`ServerTls`] of its connector, which it keeps.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::accept::{self, CertificateError};
use super::authority::{AnyClient, Authority};
use super::connect::TlsError;
use crate::config::{CertificateFiles, Config, DirectoryKind, Protocol, ReceiveTlsMode};
use crate::smtp::names::{self, covers};

/// Why a connector cannot use TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("client_ca: {0}")]
    Authority(TlsError),
    #[error("tls: {0}")]
    Tls(rustls::Error),
}

/// The TLS settings of one connector.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    authorities: Arc<[Arc<Authority>]>,
}

impl ServerTls {
    /// The `client_ca` files with an authority for a client's chain (its own certificate first).
    #[must_use]
    pub fn believers(&self, chain: &[CertificateDer<'_>]) -> Vec<PathBuf> {
        let now = UnixTime::now();
        let believers = self.authorities.iter().filter(|authority| authority.believes(chain, now));
        believers.map(|authority| authority.file().to_owned()).collect()
    }
}

/// The TLS settings of all connectors, with files as of when they were read.
#[derive(Debug, Default)]
pub struct Certificates {
    doors: HashMap<(SocketAddr, Arc<str>), ServerTls>,
}

impl Certificates {
    /// Reads the files of all receive connectors.
    ///
    /// # Errors
    /// The connector, and what is wrong with its files.
    pub fn load(config: &Config) -> Result<Self, (Arc<str>, Box<ServeError>)> {
        let mut own: HashMap<Arc<str>, Arc<Shown>> = HashMap::new();
        let mut authorities: HashMap<&Path, Arc<Authority>> = HashMap::new();
        for connector in &config.receive_connectors {
            let named = |error: ServeError| (connector.name.clone(), Box::new(error));
            if let Some(files) =
                connector.tls.certificate.as_ref().filter(|_| connector.tls.mode != ReceiveTlsMode::None)
            {
                let certificate = accept::load(files).map_err(|error| named(error.into()))?;
                own.insert(connector.name.clone(), Arc::new(Shown::new(certificate)));
            }
            if let Some(file) = &connector.tls.client_ca {
                let authority = Authority::read(file).map_err(|error| named(ServeError::Authority(error)))?;
                authorities.insert(file, Arc::new(authority));
            }
        }
        let mut doors = HashMap::new();
        for connector in &config.receive_connectors {
            let Some(shown) = own.get(&connector.name) else { continue };
            for bind in &connector.bind {
                let sharing = || config.receive_connectors.iter().filter(|other| other.bind.contains(bind));
                let all = sharing().filter_map(|other| own.get(&other.name).cloned()).collect();
                let files: BTreeSet<_> = sharing().filter_map(|other| other.tls.client_ca.as_deref()).collect();
                let believed = files.into_iter().filter_map(|file| authorities.get(file).cloned()).collect();
                let tls = serve(ByName { own: shown.clone(), all }, believed);
                let tls = tls.map_err(|error| (connector.name.clone(), Box::new(ServeError::Tls(error))))?;
                doors.insert((*bind, connector.name.clone()), tls);
            }
        }
        Ok(Self { doors })
    }

    /// The TLS settings of a connector at a listener; `None`: it has none.
    #[must_use]
    pub fn at(&self, bind: SocketAddr, connector: &Arc<str>) -> Option<&ServerTls> {
        self.doors.get(&(bind, connector.clone()))
    }
}

/// The files that [`Certificates::load`] reads.
pub fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let tls = config.receive_connectors.iter().map(|connector| &connector.tls);
    tls.flat_map(|tls| {
        let own = tls.certificate.iter().flat_map(|files| [&*files.certificate, &*files.key]);
        own.chain(tls.client_ca.as_deref())
    })
}

/// The certificates that we present to clients, next hops and directory servers, with a description of whose they are.
pub fn shown(config: &Config) -> impl Iterator<Item = (String, &CertificateFiles)> {
    let to_clients = config.receive_connectors.iter().filter_map(|connector| {
        Some((format!("receive connector {}", connector.name), connector.tls.certificate.as_ref()?))
    });
    let to_next_hops = config.send_connectors.iter().filter_map(|connector| {
        let Protocol::Smtp(smtp) = &connector.protocol else { return None };
        Some((format!("send connector {}", connector.name), smtp.tls.certificate.as_ref()?))
    });
    let to_directories = config.directories.iter().filter_map(|directory| {
        let DirectoryKind::Ldap(ldap) = &directory.kind else { return None };
        Some((format!("directory {}", directory.name), ldap.certificate.as_ref()?))
    });
    to_clients.chain(to_next_hops).chain(to_directories)
}

/// Those that are expired or not yet valid. Files that cannot be read are reported by the code that loads them.
pub fn out_of_time(config: &Config, now: crate::time::UnixTime) -> impl Iterator<Item = OutOfTime<'_>> {
    shown(config).filter_map(move |(of, files)| {
        let why = accept::out_of_time(files, now).ok()??;
        Some(OutOfTime { of, file: &files.certificate, why })
    })
}

/// A certificate that is presented although it is not valid now.
#[derive(Debug)]
pub struct OutOfTime<'a> {
    /// Its connector.
    pub of: String,
    pub file: &'a Path,
    pub why: accept::OutOfTime,
}

/// The remedy.
pub const RENEW: &str = "renew it, or put the clock right, then `fingerpost reload`";

fn serve(by_name: ByName, authorities: Vec<Arc<Authority>>) -> Result<ServerTls, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    // Some clients cannot handle the request, so it is sent only by listeners where a certificate matters.
    let builder = if authorities.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(Arc::new(AnyClient { algorithms }))
    };
    let config = Arc::new(builder.with_cert_resolver(Arc::new(by_name)));
    Ok(ServerTls { config, authorities: authorities.into() })
}

/// A certificate, and the names in it.
#[derive(Debug)]
struct Shown {
    certificate: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Shown {
    fn new(certificate: Arc<CertifiedKey>) -> Self {
        let names = certificate.cert.first().map(|own| names::of(own)).unwrap_or_default();
        Self { certificate, names }
    }
}

/// Chooses the certificate of the connector that the client's network selected, unless another one of the listener has
/// the name in SNI.
#[derive(Debug)]
struct ByName {
    own: Arc<Shown>,
    all: Vec<Arc<Shown>>,
}

impl ByName {
    /// A certificate with the name itself has priority over one with a wildcard.
    fn choose(&self, name: Option<&str>) -> &Arc<Shown> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.own };
        let candidates = || std::iter::once(&self.own).chain(&self.all);
        let exact = candidates().find(|shown| shown.names.contains(&name));
        let wildcard = || candidates().find(|shown| shown.names.iter().any(|pattern| covers(pattern, &name)));
        exact.or_else(wildcard).unwrap_or(&self.own)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()).certificate.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &[&str]) -> Arc<Shown> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certificate = CertifiedKey::from_der(vec![cert.der().clone()], key, &provider).unwrap();
        Arc::new(Shown::new(Arc::new(certificate)))
    }

    #[test]
    fn the_name_that_is_asked_for_chooses_the_certificate() {
        let doors = [shown(&["mx.contoso.com"]), shown(&["*.fabrikam.com"]), shown(&["MX.fabrikam.com"])];
        for (own, asked, expected) in [
            (0, None, 0),
            (1, None, 1),
            (0, Some("mx.contoso.com"), 0),
            (1, Some("MX.contoso.com"), 0),
            (0, Some("mail.fabrikam.com"), 1),
            (1, Some("mx.fabrikam.com"), 2),
            (0, Some("a.mail.fabrikam.com"), 0),
            (2, Some("elsewhere.example"), 2),
        ] {
            let by_name = ByName { own: doors[own].clone(), all: doors.to_vec() };
            assert!(Arc::ptr_eq(by_name.choose(asked), &doors[expected]), "{own} {asked:?}");
        }
    }
}
