//! The cells as `tests/delivery/cut_through/table/*.toml` have them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// A file of cells.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cells {
    /// Each case is a cell for each of these, `{says}` in its scripts replaced; without any it is one cell.
    #[serde(default)]
    each: Vec<Each>,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Each {
    says: String,
    #[serde(default)]
    alert: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Client {
    Stranger,
    Staff,
}

/// What next hops do and what comes of it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// The next hops' scripts (`support/scripted_smtp_server.rs`). `connect => refuse`: nobody listens; `connect => silence`:
    /// connections are neither made nor refused. Where they wait or drip, our patience is short.
    #[serde(default)]
    pub(super) primary: String,
    #[serde(default)]
    pub(super) secondary: String,
    #[serde(default = "one")]
    pub(super) to: Vec<String>,
    #[serde(default = "stranger")]
    pub(super) client: Client,
    /// KiB of content.
    #[serde(default)]
    pub(super) size: usize,
    /// Further lines of both connectors, or of one.
    #[serde(default)]
    pub(super) settings: String,
    #[serde(default)]
    pub(super) primary_settings: String,
    #[serde(default)]
    pub(super) secondary_settings: String,
    /// The primary's connector requires TLS, and authenticates.
    #[serde(default)]
    pub(super) secret: bool,
    /// The replies to RCPTs other than 250 (`fixture::is_expected`).
    #[serde(default)]
    pub(super) rcpt: BTreeMap<String, String>,
    /// The final reply.
    #[serde(default = "accepted")]
    pub(super) dot: String,
    /// Those whose copy is in the queue after the final reply.
    #[serde(default)]
    pub(super) queued: Vec<String>,
    /// Those whom a report is about, and its Status: alternatives are separated by `|`.
    #[serde(default)]
    pub(super) reported: BTreeMap<String, String>,
    /// Whether it is open if a copy is at the next hop or in the queue after the final reply.
    #[serde(default)]
    pub(super) open: bool,
    /// Somebody has to look at it.
    #[serde(default)]
    pub(super) alert: bool,
}

impl Case {
    /// Both next hops are the one that everybody shares who needs no script.
    pub(super) fn is_well(&self) -> bool {
        self.primary.is_empty() && self.secondary.is_empty() && !self.secret
    }
}

fn one() -> Vec<String> {
    vec!["p0".to_owned()]
}

fn stranger() -> Client {
    Client::Stranger
}

fn accepted() -> String {
    "250".to_owned()
}

pub(super) fn read() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delivery/cut_through/table");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let mut cells: Cells = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if cells.each.is_empty() {
            cells.each.push(Each { says: String::new(), alert: false });
        }
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        for (at, case) in cells.case.iter().enumerate() {
            for each in &cells.each {
                let says = |script: &str| script.replace("{says}", &each.says);
                let mut case = Case { primary: says(&case.primary), secondary: says(&case.secondary), ..case.clone() };
                case.alert |= each.alert;
                let scripts = format!("{} / {}", case.primary.trim(), case.secondary.trim());
                cases.push((format!("{file}, case {}: {scripts}", at + 1), case));
            }
        }
    }
    cases
}
