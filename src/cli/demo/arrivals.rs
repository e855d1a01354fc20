//! Counts what has arrived in the organisations' Maildirs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a mailbox has of one sample message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) copies: usize,
    /// Reports about it, with their code and enhanced code (`550 5.1.1`).
    pub(super) reports: Vec<String>,
}

/// By `ORGANISATION/USER`.
pub(super) type Arrived = BTreeMap<String, Count>;

/// Counts the message with this id in the Maildirs of these organisations (name and folder).
pub(super) fn count(organisations: &[(&str, PathBuf)], message_id: &str) -> Arrived {
    let mut arrived = Arrived::new();
    for (organisation, folder) in organisations {
        for user in folders(folder).flat_map(|domain| folders(&domain).collect::<Vec<_>>()) {
            let name = user.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let count = count_in(&user.join("new"), message_id);
            if count != Count::default() {
                arrived.insert(format!("{organisation}/{name}"), count);
            }
        }
    }
    arrived
}

fn folders(of: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let paths = std::fs::read_dir(of).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.is_dir())
}

fn count_in(new: &Path, message_id: &str) -> Count {
    let mut count = Count::default();
    for file in std::fs::read_dir(new).into_iter().flatten().flatten() {
        let mail = std::fs::read(file.path()).unwrap_or_default();
        let mail = String::from_utf8_lossy(&mail);
        if !mail.contains(message_id) {
            continue;
        }
        let header = mail.split("\r\n\r\n").next().and_then(|header| header.split("\n\n").next()).unwrap_or_default();
        match header.contains("multipart/report") {
            true => count.reports.push(diagnostic(&mail)),
            false => count.copies += 1,
        }
    }
    count
}

/// The codes of a report's first Diagnostic-Code (RFC 3464 2.3.6).
fn diagnostic(report: &str) -> String {
    let field = report.lines().find_map(|line| line.strip_prefix("Diagnostic-Code: smtp;"));
    field.unwrap_or_default().split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// As text: `one copy`, `a report of 550 5.1.1`.
pub(super) fn words(count: &Count) -> String {
    let copies = match count.copies {
        0 => None,
        1 => Some("one copy".to_owned()),
        copies => Some(format!("{copies} copies")),
    };
    let reports = count.reports.iter().map(|says| format!("a report of {says}"));
    copies.into_iter().chain(reports).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_reports_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("contoso.example/alice/new");
        std::fs::create_dir_all(&new).unwrap();
        let report = "Content-Type: multipart/report\r\n\r\nDiagnostic-Code: smtp; 550 5.1.1 unknown\r\n\r\nMessage-ID: <1@demo>\r\n";
        for (name, mail) in
            [("a", "Message-ID: <1@demo>\r\n\r\nhi"), ("b", report), ("c", "Message-ID: <2@demo>\r\n\r\n")]
        {
            std::fs::write(new.join(name), mail).unwrap();
        }
        let arrived = count(&[("primary", folder.path().to_owned()), ("none", folder.path().join("none"))], "<1@demo>");
        let count = Count { copies: 1, reports: vec!["550 5.1.1".into()] };
        assert_eq!(words(&count), "one copy and a report of 550 5.1.1");
        assert_eq!(arrived, Arrived::from([("primary/alice".to_owned(), count)]));
    }
}
