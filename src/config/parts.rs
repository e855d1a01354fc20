//! Divides a long file: a parsed TOML table takes a kilobyte, so a hundred thousand `[[accepted_domain]]` are not
//! parsed all at once.
//!
//! `file` reads a divided file part by part. A file with anything unusual is not divided, so that its faults are
//! reported as for any other. Pure.

use std::ops::Range;

/// The header of each of these tables.
const HEADER: &str = "[[accepted_domain]]";
/// A file with fewer tables is not divided.
const WORTH_IT: usize = 500;
/// The number of tables in a part.
const TABLES: usize = 500;

/// A file's text, divided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// The text with the tables of `runs` replaced by spaces: the rest keeps its position.
    pub(super) rest: String,
    /// The ranges of the parts, in order; each begins with a header.
    pub(super) runs: Vec<Range<usize>>,
}

/// Divides a text. `None`: it is short, or has something unusual.
pub(super) fn divide(text: &str) -> Option<Parts> {
    let many = text.matches(HEADER).nth(WORTH_IT).is_some();
    // Within a multi-line string a line may look like a header.
    if !many || text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    // The number of tables in the part that is being collected; `None`: there is none.
    let mut open: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let begins = line.trim_start();
        if let Some(behind) = begins.strip_prefix(HEADER) {
            let behind = behind.trim();
            if !behind.is_empty() && !behind.starts_with('#') {
                return None;
            }
            open = match open {
                Some(tables) if tables < TABLES => Some(tables + 1),
                Some(_) | None => {
                    runs.push(at..at);
                    Some(1)
                }
            };
        } else if begins.starts_with('[') {
            open = None;
        }
        at += line.len();
        if let Some(run) = runs.last_mut().filter(|_| open.is_some()) {
            run.end = at;
        }
    }
    let mut rest = String::with_capacity(text.len());
    for run in &runs {
        rest.push_str(text.get(rest.len()..run.start)?);
        rest.extend(std::iter::repeat_n(' ', run.len()));
    }
    rest.push_str(text.get(rest.len()..)?);
    Some(Parts { rest, runs })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::check::load_text;

    fn tables(count: usize) -> String {
        (0..count).map(|at| format!("[[accepted_domain]] # {at}\ndomain = \"d{at}.example\"\n\n")).collect()
    }

    #[test]
    fn tables_are_taken_out_and_the_rest_stands_where_it_stood() {
        let text = format!("[server]\nhostname = \"ä\"\n{}[spool]\nx = [\n1]\n{}# end", tables(700), tables(2));
        let parts = divide(&text).unwrap();
        assert_eq!(parts.rest.len(), text.len());
        assert_eq!(parts.rest.find("[spool]"), text.find("[spool]"));
        let left: Vec<&str> = parts.rest.split_whitespace().collect();
        assert_eq!(left, ["[server]", "hostname", "=", "\"ä\"", "[spool]", "x", "=", "[", "1]"]);
        let headers: Vec<usize> = parts.runs.iter().map(|run| text[run.clone()].matches(HEADER).count()).collect();
        assert_eq!(headers, [500, 200, 2]);
        assert!(parts.runs.iter().all(|run| text[run.clone()].starts_with(HEADER)));
        let found: String = parts.runs.iter().map(|run| &text[run.clone()]).collect();
        assert_eq!(found, format!("{}{}# end", tables(700), tables(2)));
    }

    #[test]
    fn what_is_short_or_unusual_stays_whole() {
        for text in [
            tables(10),
            format!("{}x = \"\"\"\n[[accepted_domain]]\n\"\"\"\n", tables(600)),
            format!("{}y = '''\n'''", tables(600)),
            format!("{}[[accepted_domain]] x = 1\n", tables(600)),
        ] {
            assert_eq!(divide(&text), None);
        }
    }

    #[test]
    fn what_is_read_in_parts_is_what_is_read_at_once() {
        let head = "[server]\nhostname = \"mx.a.example\"\n[[send_connector]]\nname = \"ex\"\nsmart_hosts = [\"[10.0.0.1]\"]\n\
                    [[directory]]\nname = \"people\"\nkind = \"file\"\npath = \"people.csv\"\n\
                    [[receive_connector]]\nname = \"in\"\n";
        let domains = |range: Range<usize>| {
            let domain = |at| format!("[[accepted_domain]]\ndomain = \"d{at}.example\"\ndeliver_to = \"ex\"\n");
            range.map(domain).collect::<String>()
        };
        for (between, right) in [
            ("", true),
            (
                "[[accepted_domain]]\ndomain = \"a b\"\ndeliver_too = \"ex\"\n[[accepted_domain]]\ndomain = \"d7.example\"\n",
                false,
            ),
            ("[[accepted_domain]]\ndomain = \n", false),
            ("[accepted_domain.x]\ny = 1\n", false),
        ] {
            let text =
                format!("{head}{}{between}{}[spool]\nmin_free = \"1GiB\"\n", domains(0..700), domains(700..1300));
            // Anything that may end a multi-line string prevents division.
            let whole = format!("{text}# \'\'\'\n");
            assert!(divide(&text).is_some() && divide(&whole).is_none());
            match [&text, &whole].map(|text| load_text(text, Path::new("/etc/fingerpost/x.toml"))) {
                [Ok(parts), Ok(whole)] => {
                    assert!(right, "{between}");
                    assert!(parts.routing.accepted.iter().eq(whole.routing.accepted.iter()));
                    assert_eq!((parts.min_free, parts.routing.accepted.count()), (whole.min_free, 1300));
                }
                [Err(parts), Err(whole)] => {
                    assert!(!right, "{parts:?}");
                    assert_eq!(parts, whole);
                }
                [parts, whole] => panic!("{between}: {:?} and {:?}", parts.err(), whole.err()),
            }
        }
    }
}
