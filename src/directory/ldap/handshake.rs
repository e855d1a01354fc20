//! Explains TLS failures to administrators, and what to do.
//!
//! `connection` calls it. RFC 8446 6.2 defines the alerts; comments have what products do.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::time::UnixTime;

/// The explanation, followed by the library's text.
pub(super) fn in_words(error: &Error) -> String {
    match words(error) {
        Some((what, cure)) => format!("{what}; {cure} ({})", details(error)),
        None => format!("TLS fails: {error}"),
    }
}

/// The library's text, without its times: they are in seconds, and log lines have a time already.
fn details(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!("it ended at {}", UnixTime(not_after.as_secs()))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            format!("it begins at {}", UnixTime(not_before.as_secs()))
        }
        other => other.to_string(),
    }
}

type Words = (&'static str, &'static str);

/// Windows Server 2008, and 2008 R2 and 2012 until TLS 1.2 is switched on.
const OLD: Words = (
    "the server speaks no TLS 1.2 or 1.3, only what is no longer safe",
    "switch TLS 1.2 on there (Windows: updates and SCHANNEL\\Protocols\\TLS 1.2\\Server), or name another server",
);
const NOTHING_IN_COMMON: Words = (
    "the server and we have no cipher suite in common, or it wants a client certificate",
    "allow ECDHE with AES-GCM there and see that its certificate is RSA or ECDSA; write certificate and key in tls if it \
     wants one",
);
const NOT_TLS: Words = (
    "what answers is not TLS",
    "see whether this is the port for ldap:// (389, 3268): write ldaps:// with 636 or 3269, or ldap:// with start_tls",
);
/// For servers that close the connection instead of sending an alert, as Windows and Samba do.
pub(super) const ENDS: Words = (
    "the server closes the connection as soon as TLS begins",
    "see that it has a certificate and speaks TLS 1.2 (a controller that lacks either does so), and that this is the port for \
     ldaps:// (636, 3269)",
);
/// The same after the handshake: with TLS 1.3 a server checks our certificate only then (RFC 8446 4.4.2.4).
pub(super) const ENDS_LATER: Words = (
    "the server closes the connection when we bind",
    "if it wants a client certificate, write certificate and key in tls; if they are written, see its log",
);

fn words(error: &Error) -> Option<Words> {
    Some(match error {
        Error::AlertReceived(alert) => return alerted(*alert),
        Error::InvalidCertificate(why) => return certificate(why),
        Error::PeerIncompatible(why) => match why {
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired => OLD,
            PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => (
                "the server takes no client certificate of the kind that we have",
                "give us an RSA or ECDSA one, or see which signatures it allows",
            ),
            _ => NOTHING_IN_COMMON,
        },
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => NOT_TLS,
        Error::NoCertificatesPresented => ("the server shows no certificate", "give it one"),
        _ => return None,
    })
}

fn alerted(alert: AlertDescription) -> Option<Words> {
    Some(match alert {
        AlertDescription::ProtocolVersion | AlertDescription::InappropriateFallback => OLD,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => NOTHING_IN_COMMON,
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            ("the server wants a client certificate", "write certificate and key in tls")
        }
        AlertDescription::UnknownCA => (
            "the server does not know the CA of our client certificate",
            "let it trust that CA (slapd: TLSCACertificateFile), or write a certificate of one that it trusts",
        ),
        AlertDescription::CertificateExpired => ("our client certificate has expired", "renew it"),
        AlertDescription::CertificateRevoked => ("our client certificate was revoked", "write another one"),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => (
            "the server does not accept our client certificate",
            "see its log; a client certificate needs the purpose clientAuth, and a CA that it trusts",
        ),
        AlertDescription::UnrecognisedName => {
            ("the server has no certificate for the name in urls", "write the name that its certificate has")
        }
        AlertDescription::InternalError => (
            "the server fails at TLS",
            "see its log; a key that it cannot read, or that is another certificate's, does so",
        ),
        AlertDescription::UnexpectedMessage | AlertDescription::DecodeError => NOT_TLS,
        _ => return None,
    })
}

fn certificate(why: &CertificateError) -> Option<Words> {
    #[expect(deprecated, reason = "another version of the library may still say it")]
    Some(match why {
        CertificateError::UnknownIssuer => (
            "its certificate is of a CA that we do not trust",
            "write the CA's certificate to a file and name it in tls.ca; a CA in between must be sent by the server, or stand \
             in that file",
        ),
        CertificateError::BadSignature => (
            "its certificate is not signed by the CA that it names",
            "the CA may have a new key: write its present certificate to tls.ca",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("its certificate has expired", "renew it on the server; if it is good there, see our clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("its certificate is not valid yet", "see the clocks, here and where it was issued")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "its certificate has another name",
            "write a name that it has in urls, or issue it anew with this one as subjectAltName",
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "its certificate is not for servers",
            "issue it anew with the extended key usage serverAuth (in Active Directory from `Kerberos Authentication`)",
        ),
        CertificateError::UnsupportedSignatureAlgorithm
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            "its certificate, or its CA's, is signed in a way that is no longer safe, such as SHA-1",
            "issue it anew with SHA-256 and RSA of 2048 bits or ECDSA",
        ),
        CertificateError::Revoked => ("its certificate was revoked", "issue a new one"),
        CertificateError::BadEncoding => ("its certificate cannot be read", "issue it anew, as X.509 version 3"),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => (
            "it shows a CA's certificate as its own (self-signed)",
            "issue one to it that is no CA's, for its name, and write what signed it to tls.ca",
        ),
        CertificateError::Other(other) if other.to_string().contains("UnsupportedCertVersion") => {
            ("its certificate cannot be read", "issue it anew, as X.509 version 3")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rustls::{ContentType, InvalidMessage, OtherError};

    use super::*;

    #[test]
    fn failures_are_told_in_words_with_what_to_do() {
        let alert = Error::AlertReceived;
        let bad = Error::InvalidCertificate;
        let other =
            |text: &str| bad(CertificateError::Other(OtherError(std::sync::Arc::new(std::io::Error::other(text)))));
        let inappropriate = Error::InappropriateMessage {
            expect_types: vec![ContentType::Handshake],
            got_type: ContentType::ApplicationData,
        };
        for (error, words) in [
            (alert(AlertDescription::ProtocolVersion), "speaks no TLS 1.2 or 1.3"),
            (Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13), "speaks no TLS 1.2 or 1.3"),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "no cipher suite in common"),
            (alert(AlertDescription::HandshakeFailure), "no cipher suite in common"),
            (alert(AlertDescription::CertificateRequired), "wants a client certificate; write certificate and key"),
            (alert(AlertDescription::UnknownCA), "does not know the CA of our client certificate"),
            (alert(AlertDescription::CertificateExpired), "our client certificate has expired"),
            (alert(AlertDescription::BadCertificate), "does not accept our client certificate"),
            (alert(AlertDescription::UserCanceled), "TLS fails: "),
            (bad(CertificateError::UnknownIssuer), "a CA that we do not trust; write"),
            (bad(CertificateError::BadSignature), "write its present certificate to tls.ca"),
            (bad(CertificateError::Expired), "its certificate has expired; renew it on the server"),
            (bad(CertificateError::NotValidYet), "see the clocks"),
            (bad(CertificateError::NotValidForName), "its certificate has another name; write a name"),
            (bad(CertificateError::InvalidPurpose), "not for servers"),
            (bad(CertificateError::Revoked), "revoked"),
            (other("CaUsedAsEndEntity"), "self-signed"),
            (other("UnsupportedCertVersion"), "X.509 version 3"),
            (other("what nobody knows"), "TLS fails: "),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "is not TLS; see whether"),
            (inappropriate, "is not TLS"),
            (Error::NoCertificatesPresented, "shows no certificate"),
        ] {
            let said = in_words(&error);
            assert!(said.contains(words), "{error:?}: {said}");
            assert!(said.contains(&error.to_string()), "the library's own words stay: {said}");
        }
    }
}
