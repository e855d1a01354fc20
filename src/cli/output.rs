//! Printing: JSON for scripts, columns for people. Texts that strangers chose are made safe for a terminal here.

use std::io::Write as _;

use serde::Serialize;

use crate::printable;

/// Prints a value as JSON, indented.
pub(super) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    out(&format!("{}\n", printable::json(&serde_json::to_string_pretty(value)?)));
    Ok(())
}

/// Prints lines for people, with characters escaped that have an effect on a terminal.
pub(super) fn text(text: &str) {
    out(&printable::lines(text));
}

/// Prints text unchanged. If the reader has gone (`| head`), the program ends.
pub(super) fn out(text: &str) {
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("fingerpost: cannot write to standard output: {error}");
        }
        std::process::exit(1);
    }
}

/// Prints a line on standard error about something that failed, after which the command goes on.
pub(super) fn complain(line: &str) {
    eprintln!("fingerpost: {}", value(line));
}

/// A value for a line of [`text`].
pub(super) fn value(text: &str) -> String {
    printable::line(text).into_owned()
}

/// Rows in columns as wide as their widest cell; the last one is not padded.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| value(cell)).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A duration in its largest unit: `42s`, `5m`, `3h`, `2d`.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number of bytes in its largest unit: `512 B`, `4.0 KiB`, `1.2 GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let steps = (count.ilog2() / 10).min(4);
    #[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    let value = count as f64 / f64::from(1u32 << 10).powi(i32::try_from(steps).unwrap_or(1));
    format!("{value:.1} {}", UNITS[steps as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_well() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (1 << 30, "1.0 GiB"), (1 << 50, "1024.0 TiB")]
        {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in [(5, "5s"), (300, "5m"), (10_800, "3h"), (200_000, "2d")] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "long".into(), "x".into()], vec!["bbb".into(), "s".into()]];
        assert_eq!(columns(&rows), "a    long  x\nbbb  s\n");
        let rows = [vec!["a\nb".to_owned(), "\u{202e}x".into()], vec!["b".into(), "s".into()]];
        assert_eq!(columns(&rows), "a\\nb  \\u{202e}x\nb     s\n");
    }
}
