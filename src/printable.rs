//! Makes strangers' text safe to display: characters that move the cursor, begin a line or change the direction of
//! surrounding text are escaped. Used for the log, all output for people, the API and the status page.

use std::borrow::Cow;
use std::fmt;

/// Whether a character is escaped: controls (including U+0085), separators of lines and paragraphs, and those that
/// change the direction of text (Unicode TR 36, 3.3).
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line: line ends are escaped as well.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Several lines of ours that may include foreign text: line ends and tabs are kept.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| !matches!(c, '\n' | '\t') && is_unsafe(c))
}

/// JSON text with such characters as JSON escapes. They can occur in strings only.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if is_plain(text) || !text.contains(|c| c != '\n' && is_unsafe(c)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if c != '\n' && is_unsafe(c) => escaped.push_str(&format!("\\u{:04x}", u32::from(c))), // all below U+10000
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

fn escaped(text: &str, escape: impl Fn(char) -> bool) -> Cow<'_, str> {
    if is_plain(text) || !text.contains(&escape) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match escape(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether all is printable ASCII, as in nearly all texts.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// Takes a text in pieces, keeps a limited number of octets, and counts the rest.
pub(crate) struct Bounded<'a> {
    to: &'a mut String,
    room: usize,
    /// Octets that were not kept.
    pub(crate) more: usize,
}

impl<'a> Bounded<'a> {
    /// Appends at most `room` octets of text to `to`; escapes may make it longer.
    pub(crate) fn new(to: &'a mut String, room: usize) -> Self {
        Self { to, room, more: 0 }
    }
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = if self.more > 0 { 0 } else { text.floor_char_boundary(self.room) };
        self.room -= fits;
        self.more += text.len() - fits;
        self.to.push_str(&line(&text[..fits]));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn what_moves_or_turns_text_is_escaped_and_nothing_else() {
        for (text, shown) in [
            ("plain <a@b.example>", "plain <a@b.example>"),
            ("J\u{fc}rgen \u{5d0}\u{5d1} \u{1f600}", "J\u{fc}rgen \u{5d0}\u{5d1} \u{1f600}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}"),
            ("a\u{85}b\u{2028}c\u{2029}d", "a\\u{85}b\\u{2028}c\\u{2029}d"),
            ("\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}", "\\u{202a}\\u{202b}\\u{202c}\\u{202d}\\u{202e}"),
            ("\u{2066}\u{2067}\u{2068}\u{2069}", "\\u{2066}\\u{2067}\\u{2068}\\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}", "\\u{200e}\\u{200f}\\u{61c}"),
            ("", ""),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(lines("a\n\tb\u{202e}\r\n"), "a\n\tb\\u{202e}\\r\n");
    }

    #[test]
    fn json_means_what_it_meant() {
        let value = serde_json::json!({"id": "a\u{202e}\u{2028}\u{85}\u{7f}\u{61c}\n\"\\", "n": 1});
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = json(&text).into_owned();
            assert!(!shown.contains(|c| c != '\n' && is_unsafe(c)), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_the_rest_is_counted() {
        for (pieces, room, kept, more) in [
            (&["abc", "def"][..], 4, "abcd", 2),
            (&["abc"], 3, "abc", 0),
            (&["ab\u{fc}", "x"], 3, "ab", 3), // nothing behind a cut, though it would fit
            (&["\u{202e}", "x"], 3, "\\u{202e}", 1),
            (&[], 0, "", 0),
        ] {
            let mut text = String::new();
            let mut bounded = Bounded::new(&mut text, room);
            pieces.iter().for_each(|piece| bounded.write_str(piece).unwrap());
            assert_eq!((bounded.more, text.as_str()), (more, kept), "{pieces:?}");
        }
    }
}
