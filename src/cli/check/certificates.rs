//! Checks the certificates that connectors present, and the authorities for clients: whether they can be read, and
//! until when they are valid.

use std::path::Path;
use std::time::Duration;

use super::Finding;
use crate::config::{CertificateFiles, Config, DirectoryKind, Protocol};
use crate::time::UnixTime;
use crate::tls::accept;
use crate::tls::authority::Authority;
use crate::tls::serve::{self, RENEW};

/// The remaining validity below which a certificate counts as about to expire, as in the alert rules.
pub(super) const SOON: Duration = Duration::from_secs(14 * 86_400);

pub(super) fn look(config: &Config, now: UnixTime) -> Vec<Finding> {
    let mut found = Vec::new();
    for connector in &config.receive_connectors {
        if let Some(files) = &connector.tls.certificate {
            found.push(judge(&format!("certificate of receive connector {}", connector.name), files, now));
        }
        if let Some(file) = &connector.tls.client_ca {
            found.push(authority(&format!("client_ca of receive connector {}", connector.name), file));
        }
    }
    for connector in &config.send_connectors {
        let Protocol::Smtp(smtp) = &connector.protocol else { continue };
        if let Some(files) = &smtp.tls.certificate {
            found.push(judge(&format!("client certificate of send connector {}", connector.name), files, now));
        }
    }
    for directory in &config.directories {
        let DirectoryKind::Ldap(ldap) = &directory.kind else { continue };
        if let Some(files) = &ldap.certificate {
            found.push(judge(&format!("client certificate of directory {}", directory.name), files, now));
        }
    }
    found
}

/// Certificates that are not valid now, for a check without `--connect`: the server would start with them, so this is
/// no failure.
pub(super) fn out_of_time(config: &Config, now: UnixTime) -> Vec<Finding> {
    let finding = |serve::OutOfTime { of, file, why }: serve::OutOfTime<'_>| {
        Finding::doubtful(format!("certificate of {of}"), format!("{} {why}", file.display()), RENEW)
    };
    serve::out_of_time(config, now).map(finding).collect()
}

fn authority(what: &str, file: &Path) -> Finding {
    match Authority::read(file) {
        Ok(_) => Finding::well(what, format!("{} can be read", file.display())),
        Err(why) => {
            let cure = "write the certificates of the authorities as PEM, readable for the server's user";
            Finding::bad(what, why.to_string(), cure)
        }
    }
}

fn judge(what: &str, files: &CertificateFiles, now: UnixTime) -> Finding {
    let file = files.certificate.display();
    let until = match accept::load(files).and_then(|_| accept::expiry(files)) {
        Ok(until) => until,
        Err(why) => {
            let cure = "write the chain as PEM, the leaf first, and its key; both readable for the server's user";
            return Finding::bad(what, why.to_string(), cure);
        }
    };
    let found = format!("{file} is good until {until}");
    if let Ok(Some(why)) = accept::out_of_time(files, now) {
        return Finding::bad(what, format!("{file} {why}"), RENEW);
    }
    match now.plus(SOON) {
        soon if soon > until => Finding::doubtful(what, found, RENEW),
        _ => Finding::well(what, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_last_day() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            CertificateFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let mut wanted = rcgen::CertificateParams::new(vec!["mx.contoso.com".to_owned()]).unwrap();
        wanted.not_before = rcgen::date_time_ymd(2020, 1, 1);
        wanted.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.certificate, wanted.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let expires = 1_893_456_000; // 2030-01-01
        let at = |now| judge("it", &files, UnixTime(now)).result;
        assert!(matches!(at(expires - 86_400 * 30), Found::Well { .. }));
        assert!(matches!(at(expires - 86_400 * 3), Found::Doubtful { .. }));
        assert!(matches!(at(expires), Found::Bad { .. }));
        let begins = 1_577_836_800; // 2020-01-01
        assert!(matches!(at(begins), Found::Well { .. }));
        let Found::Bad { found, .. } = at(begins - 1) else { panic!("it is good too early") };
        assert!(found.contains("is not valid before 2020-01-01"), "{found}");
        std::fs::remove_file(&files.key).unwrap();
        assert!(matches!(at(0), Found::Bad { .. }));
    }
}
