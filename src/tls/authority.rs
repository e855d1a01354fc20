//! Client certificates: requested, never required, and verified after the handshake.
//!
//! Connectors that share a listener may trust different authorities, and a client with an untrusted certificate is
//! served like one without; so the handshake accepts any certificate whose key the client has, and
//! [`Authority::believes`] verifies it. `serve` combines both, `session` uses it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::connect::{TlsError, roots};
use super::signatures::check_signatures;

/// The authorities of one `client_ca` file.
#[derive(Debug)]
pub struct Authority {
    file: PathBuf,
    roots: RootCertStore,
    verifier: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Authority {
    /// Reads the file.
    ///
    /// # Errors
    /// A [`TlsError`] naming the file.
    pub fn read(file: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (roots, algorithms) = (roots(Some(file))?, provider.signature_verification_algorithms);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider).build();
        let verifier = verifier.map_err(|error| TlsError::Tls(error.to_string()))?;
        Ok(Self { file: file.to_owned(), roots, verifier, algorithms })
    }

    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether the chain, the client's own certificate first, leads to this authority and is valid now. A server
    /// certificate is accepted: mail servers present their own when they send, and public authorities issue no others.
    #[must_use]
    pub fn believes(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some((own, between)) = chain.split_first() else { return false };
        let as_server = || {
            let own = ParsedCertificate::try_from(own)?;
            verify_server_cert_signed_by_trust_anchor(&own, &self.roots, between, now, self.algorithms.all)
        };
        self.verifier.verify_client_cert(own, between, now).is_ok() || as_server().is_ok()
    }
}

/// Requests a certificate and accepts any. That the client has its key is verified.
#[derive(Debug)]
pub(super) struct AnyClient {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Empty: the client may present any certificate (RFC 5246 7.4.4).
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    check_signatures!();
}
