//! The manual is true: configurations in it load, keys exist, commands and flags exist, links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fingerpost::config::check::{load_text, render};
use fingerpost::config::schema::TABLES;

#[test]
fn configurations_in_the_manual_load() {
    let mut whole = 0;
    let mut parts = 0;
    for (file, block) in blocks("toml") {
        if block.contains("[server]") {
            let loaded = load_text(&block, Path::new("/etc/fingerpost/fingerpost.toml"));
            assert!(loaded.is_ok(), "{}:\n{}", file.display(), render(&loaded.err().unwrap_or_default()));
            whole += 1;
        } else {
            keys_are_known(&file, &block);
            parts += 1;
        }
    }
    assert!(whole >= 2 && parts >= 4, "only {whole} whole and {parts} partial configurations found");
}

#[test]
fn commands_in_the_manual_exist() {
    let mut seen = BTreeSet::new();
    for (file, command) in commands() {
        let words: Vec<&str> = command.split_whitespace().take_while(|word| !["|", "&&", "#"].contains(word)).collect();
        let depth = if words.first().is_some_and(|word| ["queue", "directory", "spool", "cluster"].contains(word)) {
            2
        } else {
            1
        };
        let path: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).take(depth).collect();
        let help = Command::new(support::program()).args(&path).arg("--help").output().expect("it runs");
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.status.success(), "{}: there is no `fingerpost {}`", file.display(), path.join(" "));
        for flag in words.iter().map(|word| word.trim_matches(['[', ']'])).filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap_or_default();
            assert!(text.contains(flag), "{}: `fingerpost {}` has no {flag}", file.display(), path.join(" "));
        }
        seen.insert(path.join(" "));
    }
    assert!(seen.len() >= 8, "only these commands found: {seen:?}");
}

#[test]
fn links_in_the_manual_lead_somewhere() {
    let mut links = 0;
    for file in pages() {
        let text = read(&file);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let found = file.parent().expect("a folder").join(path);
            assert!(found.exists(), "{}: {target} leads nowhere", file.display());
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links found");
}

/// Every table and key of a piece of a configuration is one that the program knows.
fn keys_are_known(file: &Path, block: &str) {
    let table: toml::Table = block.parse().unwrap_or_else(|error| panic!("{}: {error}\n{block}", file.display()));
    for (name, value) in &table {
        let known = TABLES.iter().find(|table| table.name == name.as_str());
        // A page on file directories shows recipients, which are no configuration.
        let Some(known) = known else {
            assert!(name == "recipient", "{}: there is no [{name}]", file.display());
            continue;
        };
        let tables = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        for key in tables.iter().filter_map(toml::Value::as_table).flat_map(toml::Table::keys) {
            assert!(known.keys.iter().any(|k| k.name == key), "{}: [{name}] has no {key}", file.display());
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("readable")
}

/// README, change log and everything below `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("docs is in the tree").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// Every `fingerpost ...` in a fenced block without a language, at the beginning of a line, or in backticks.
fn commands() -> Vec<(PathBuf, String)> {
    let mut commands = Vec::new();
    for (page, block) in blocks("") {
        let lines = block.lines().filter_map(|line| line.strip_prefix("fingerpost "));
        commands.extend(lines.map(|line| (page.clone(), line.to_owned())));
    }
    for page in manual() {
        let text = read(&page);
        let spans = text.split('`').skip(1).step_by(2).filter_map(|span| span.strip_prefix("fingerpost "));
        commands.extend(spans.map(|span| (page.clone(), span.to_owned())));
    }
    commands
}

/// The pages that tell an operator what to do. The design tells also of what is not built.
fn manual() -> Vec<PathBuf> {
    pages().into_iter().filter(|page| !page.ends_with("docs/design.md")).collect()
}

/// The fenced blocks of one language, with the page they stand on.
fn blocks(language: &str) -> Vec<(PathBuf, String)> {
    let mut blocks = Vec::new();
    for page in manual() {
        let text = read(&page);
        let mut inside: Option<(bool, String)> = None;
        for line in text.lines() {
            match (&mut inside, line.trim().strip_prefix("```")) {
                (None, Some(tag)) => inside = Some((tag == language, String::new())),
                (Some(_), Some(_)) => {
                    if let Some((true, block)) = inside.take() {
                        blocks.push((page.clone(), block));
                    }
                    inside = None;
                }
                (Some((_, block)), None) => {
                    block.push_str(line.trim_start_matches("   "));
                    block.push('\n');
                }
                (None, None) => {}
            }
        }
    }
    blocks
}
