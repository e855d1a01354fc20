//! Names in certificates (RFC 6125), and `client_names` of a receive connector.
//!
//! `config` parses [`ClientName`]s; `session` matches them against a client's certificate; `tls::accept` picks a server
//! certificate by the name that the client asks for. Pure.

use x509_parser::extensions::GeneralName;

use crate::smtp::domain::{Domain, DomainError};

/// A name that a client's certificate must have: `mx.contoso.com`, or `*.contoso.com` for any one label before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName(String);

/// Why a text is no [`ClientName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientNameError {
    /// What stands there, or behind the wildcard, is no domain.
    #[error("`{0}` is not a name in certificates: {1}")]
    Domain(String, DomainError),
    /// An address.
    #[error("`{0}` is not a name in certificates: it is an address")]
    Address(String),
    /// A wildcard for a whole top-level domain.
    #[error("`{0}` is not a name in certificates: everybody's names end so; write at least *.NAME.TLD")]
    TooWide(String),
}

impl ClientName {
    /// Parses a name; IDN in either form.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn parse(text: &str) -> Result<Self, ClientNameError> {
        let (wildcard, rest) = text.strip_prefix("*.").map_or(("", text), |rest| ("*.", rest));
        let domain = Domain::parse(rest).map_err(|error| ClientNameError::Domain(text.to_owned(), error))?;
        if domain.as_ip().is_some() {
            return Err(ClientNameError::Address(text.to_owned()));
        }
        if !wildcard.is_empty() && !domain.as_str().contains('.') {
            return Err(ClientNameError::TooWide(text.to_owned()));
        }
        Ok(Self(format!("{wildcard}{}", domain.as_str().to_ascii_lowercase())))
    }

    /// In lower case, with the wildcard if there is one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name in a certificate matches this one. A wildcard, ours or the certificate's, stands for one whole
    /// label (RFC 6125 6.4.3).
    #[must_use]
    pub fn fits(&self, in_certificate: &str) -> bool {
        covers(&self.0, in_certificate) || covers(in_certificate, &self.0)
    }
}

impl std::fmt::Display for ClientName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `name` equals `pattern`, or is one label before the part of the pattern after `*.`. Both in lower case.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    let below = |base: &str| name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == base);
    pattern == name || pattern.strip_prefix("*.").is_some_and(below)
}

/// The names in a certificate (DER), in lower case: the DNS names of its subject alternative name; without that
/// extension its common names. Empty where the certificate cannot be parsed.
#[must_use]
pub fn of(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let lower = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => {
            let names = extension.value.general_names.iter();
            names
                .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(lower(name)) } else { None })
                .collect()
        }
        Ok(None) => certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(lower).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn wildcards_stand_for_one_whole_label() {
        for (written, in_certificate, fits) in [
            ("mx.contoso.com", "mx.contoso.com", true),
            ("MX.Contoso.com", "mx.contoso.com", true),
            ("*.contoso.com", "mx.contoso.com", true),
            ("*.contoso.com", "*.contoso.com", true),
            ("mx.contoso.com", "*.contoso.com", true),
            ("*.contoso.com", "contoso.com", false),
            ("*.contoso.com", "a.mx.contoso.com", false),
            ("*.contoso.com", ".contoso.com", false),
            ("mx.contoso.com", "m*.contoso.com", false),
            ("mx.contoso.com", "*.com", false),
            ("mx.contoso.com", "contoso.com", false),
            ("*.contoso.com", "*.com", false),
            ("bücher.example", "xn--bcher-kva.example", true),
        ] {
            assert_eq!(ClientName::parse(written).unwrap().fits(in_certificate), fits, "{written} {in_certificate}");
        }
        for wrong in ["", "*", "*.com", "*.*.com", "a*.contoso.com", "[192.0.2.1]", "a b"] {
            assert!(ClientName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_common_name_counts_only_without_alternatives() {
        let der = |names: Vec<SanType>, common: &str| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names;
            params.distinguished_name.push(DnType::CommonName, common);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
        };
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let mail = SanType::Rfc822Name("a@contoso.com".try_into().unwrap());
        for (names, common, found) in [
            (vec![dns("MX.contoso.com"), dns("*.contoso.com")], "other", vec!["mx.contoso.com", "*.contoso.com"]),
            (vec![], "MX.contoso.com", vec!["mx.contoso.com"]),
            (vec![mail], "mx.contoso.com", vec![]),
        ] {
            assert_eq!(of(&der(names, common)), found);
        }
        assert_eq!(of(b"nothing"), [""; 0]);
    }
}
