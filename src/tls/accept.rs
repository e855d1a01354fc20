//! Loads our own certificates and keys: PEM files of a receive or send connector.
//!
//! `serve`, `connect` and `fingerpost check` use it.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::CertificateFiles;
use crate::time::UnixTime;

/// Explains an error of the library, where its own text does not help an administrator.
fn in_words(cause: &rustls::Error) -> String {
    match cause {
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
            "they do not belong together".to_owned()
        }
        other if other.to_string().contains("UnsupportedCertVersion") => {
            "it is not of X.509 version 3; issue it anew with extensions (`openssl x509 -req` needs -extfile)"
                .to_owned()
        }
        other => other.to_string(),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is not PEM.
    #[error("{file}: {cause}")]
    File { file: String, cause: pem::Error },
    #[error("{0}: there is no certificate in this file; it must hold the chain as PEM, the server's own first")]
    NoCertificate(String),
    /// Key and certificate do not match, or are of an unsupported kind.
    #[error("{certificate}: the certificate cannot be used with {key}: {}", in_words(cause))]
    Unusable { certificate: String, key: String, cause: rustls::Error },
    #[error("{0}: not an X.509 certificate")]
    NotX509(String),
}

/// Reads the chain and the key.
///
/// # Errors
/// A [`CertificateError`] naming the file.
pub fn load(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = read_chain(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|cause| file_error(&files.key, cause))?;
    let provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
    let unusable = |cause| CertificateError::Unusable {
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        cause,
    };
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider).map_err(unusable)?))
}

/// When our own certificate, the first of the file, expires: `certificate_expiry_timestamp_seconds`.
///
/// # Errors
/// A [`CertificateError`] naming the file.
pub fn expiry(files: &CertificateFiles) -> Result<UnixTime, CertificateError> {
    let chain = read_chain(&files.certificate)?;
    let not_x509 = || CertificateError::NotX509(files.certificate.display().to_string());
    let leaf = chain.first().ok_or_else(not_x509)?;
    good_until(leaf).ok_or_else(not_x509)
}

/// Why our own certificate, the first of the file, is not valid at `now`; `None`: it is.
///
/// # Errors
/// A [`CertificateError`] naming the file.
pub fn out_of_time(files: &CertificateFiles, now: UnixTime) -> Result<Option<OutOfTime>, CertificateError> {
    let chain = read_chain(&files.certificate)?;
    let not_x509 = || CertificateError::NotX509(files.certificate.display().to_string());
    let (_, leaf) = x509_parser::parse_x509_certificate(chain.first().ok_or_else(not_x509)?).map_err(|_| not_x509())?;
    let time = |time: x509_parser::time::ASN1Time| UnixTime(u64::try_from(time.timestamp()).unwrap_or_default());
    let (from, until) = (time(leaf.validity().not_before), time(leaf.validity().not_after));
    Ok(match now {
        now if now < from => Some(OutOfTime::NotYet(from)),
        now if now >= until => Some(OutOfTime::Expired(until)),
        _ => None,
    })
}

/// Why a certificate is not valid now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTime {
    /// It is valid from then on.
    #[error("is not valid before {0}")]
    NotYet(UnixTime),
    /// It was valid until then.
    #[error("expired at {0}")]
    Expired(UnixTime),
}

/// When a certificate (DER) expires; `None`: it cannot be parsed.
#[must_use]
pub fn good_until(certificate: &[u8]) -> Option<UnixTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(UnixTime(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default()))
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = certificates.map_err(|cause| file_error(file, cause))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate(file.display().to_string()));
    }
    Ok(chain)
}

fn file_error(file: &Path, cause: pem::Error) -> CertificateError {
    CertificateError::File { file: file.display().to_string(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder with certificates and keys.
    fn folder() -> (tempfile::TempDir, impl Fn(&str, &str) -> CertificateFiles) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            let rcgen::CertifiedKey { cert, signing_key } =
                rcgen::generate_simple_self_signed(vec!["mx.contoso.com".into()]).unwrap();
            std::fs::write(folder.path().join(format!("{name}.crt")), cert.pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), signing_key.serialize_pem()).unwrap();
        }
        std::fs::write(folder.path().join("empty"), "").unwrap();
        let path: PathBuf = folder.path().into();
        (folder, move |certificate: &str, key: &str| CertificateFiles {
            certificate: path.join(certificate),
            key: path.join(key),
        })
    }

    #[test]
    fn a_chain_and_its_key_are_loaded() {
        let (_folder, files) = folder();
        assert!(load(&files("one.crt", "one.key")).is_ok());
        assert!(expiry(&files("one.crt", "one.key")).unwrap() > UnixTime(1_800_000_000));
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let (_folder, files) = folder();
        for (certificate, key, named) in [
            ("missing", "one.key", "missing"),
            ("one.crt", "missing", "missing"),
            ("empty", "one.key", "empty: there is no certificate"),
            ("one.crt", "empty", "empty"),
            ("one.crt", "two.key", "two.key: they do not belong together"),
            ("one.key", "one.key", "one.key: there is no certificate"),
        ] {
            let error = load(&files(certificate, key)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_openssl_makes_without_extensions_is_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("")]
        struct UnsupportedCertVersion;
        let why = rustls::CertificateError::Other(rustls::OtherError(Arc::new(UnsupportedCertVersion)));
        let said = in_words(&rustls::Error::InvalidCertificate(why));
        assert!(said.starts_with("it is not of X.509 version 3"), "{said}");
    }
}
