//! `check --connect` for an LDAP directory: the time of searches by each attribute, missing rights to read attributes,
//! its clock, and each of its servers.

use std::sync::Arc;
use std::time::Duration;

use super::Finding;
use crate::config::{DirectoryConfig, DirectoryKind};
use crate::directory::{Directories, Examination, Tried, odd};
use crate::smtp::address::Address;

/// A search that takes longer has no index.
const SLOW: Duration = Duration::from_millis(100);
/// Kerberos accepts no greater difference (RFC 4120 7.5.8), and logs could not be compared.
const FAR_OFF: u64 = 300;
/// The remedy if the account may not read an attribute that answers depend on.
const RIGHT: &str = "give the account the right to read the attribute (the profile's page, \"Rights\", has the commands), then \
                     `fingerpost directory refresh NAME`; where it may, correct the entries: their mail is answered 451";

/// Examines the directory; one that does not answer has been reported already.
pub(super) async fn examine(built: &Directories, directory: &Arc<DirectoryConfig>) -> Vec<Finding> {
    let DirectoryKind::Ldap(ldap) = &directory.kind else { return Vec::new() };
    let domain = ldap.probe.as_ref().map_or("fingerpost.invalid", |probe| probe.domain().as_str());
    let Ok(nobody) = Address::parse(&format!("fingerpost-check-nobody@{domain}")) else { return Vec::new() };
    match built.examine(&directory.name, &nobody).await {
        Some(Ok(examined)) => findings(&format!("directory {}", directory.name), &ldap.bind_dn, &examined),
        Some(Err(_)) | None => Vec::new(),
    }
}

/// Tries each server of a directory with several: the failure of a standby server shows only when it is needed.
/// Findings about the directory are not repeated.
pub(super) async fn servers(built: &Directories, directory: &Arc<DirectoryConfig>, answers: &Finding) -> Vec<Finding> {
    if !matches!(&directory.kind, DirectoryKind::Ldap(ldap) if ldap.urls.len() > 1) {
        return Vec::new();
    }
    let tried = built.try_servers(&directory.name).await.unwrap_or_default();
    let finding = |tried: Tried| {
        let what = format!("directory {}, server {}", directory.name, tried.url);
        match tried.result {
            Ok(()) => Finding::well(what, "answers"),
            Err(why) if answers.says(&why) => Finding::doubtful(what, "is no use, for the same reason", "see above"),
            Err(why) => {
                let cure =
                    cure(&why, "see that it is up, reached from here, and like the others; or take it out of urls");
                Finding::doubtful(what, format!("does not answer as it should: {why}"), cure)
            }
        }
    };
    tried.into_iter().map(finding).collect()
}

/// The remedy for a reason; `else_do` if it is not a missing right.
pub(super) fn cure(why: &str, else_do: &'static str) -> &'static str {
    if odd::is_for_a_lack(why) { RIGHT } else { else_do }
}

fn findings(what: &str, reader: &str, examined: &Examination) -> Vec<Finding> {
    let slow: Vec<_> = examined.took.iter().filter(|(_, took)| *took > SLOW).collect();
    let mut findings: Vec<Finding> = Vec::new();
    for (attribute, took) in &slow {
        let cure = format!("index {attribute} for equality on the server; in Active Directory use a global catalog");
        let found = format!("a search by {attribute} took {} ms", took.as_millis());
        findings.push(Finding::doubtful(what, found, cure));
    }
    if slow.is_empty() {
        let longest = examined.took.iter().map(|(_, took)| took.as_millis()).max().unwrap_or_default();
        findings.push(Finding::well(what, format!("answers by every attribute within {longest} ms")));
    }
    for (group, count) in &examined.odd {
        let among = if examined.is_whole { "" } else { "of those read so far, " };
        let cure = if odd::is_lack(group) {
            RIGHT
        } else {
            "correct the entries: `fingerpost directory lookup ADDRESS` says what becomes of one's mail"
        };
        findings.push(Finding::doubtful(what, format!("{among}{}", odd::told(group, *count, reader)), cure));
    }
    if let Some(ahead) = examined.clock
        && ahead.unsigned_abs() > FAR_OFF
    {
        let found =
            format!("its clock is {} s {} ours", ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
        findings.push(Finding::doubtful(what, found, "let both follow one time server"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::odd::Groups;

    #[test]
    fn what_is_slow_is_named_and_a_clock_that_is_off() {
        let took = |mail: u64| {
            vec![("proxyAddresses".to_owned(), Duration::ZERO), ("mail".to_owned(), Duration::from_millis(mail))]
        };
        for (took, clock, said) in [
            (took(100), None, vec!["ok      d: answers by every attribute within 100 ms"]),
            (
                took(101),
                Some(300),
                vec![
                    "warning d: a search by mail took 101 ms",
                    "warning d: 37 entries of type RemoteUserMailbox have no targetAddress: may CN=fingerpost read it?",
                ],
            ),
            (
                took(1),
                Some(-301),
                vec!["ok      d: answers by every attribute within 1 ms", "warning d: its clock is 301 s behind ours"],
            ),
        ] {
            let odd = Groups::from([(odd::lacks("of type RemoteUserMailbox", "targetAddress"), 37)]);
            let told = clock == Some(300);
            let odd = if told { odd } else { Groups::new() };
            let examined = Examination { took, odd, read: 40, is_whole: true, clock };
            let findings = findings("d", "CN=fingerpost", &examined);
            let lines: Vec<String> =
                findings.iter().filter_map(|finding| finding.text().lines().next().map(str::to_owned)).collect();
            assert_eq!(lines, said);
        }
    }
}
