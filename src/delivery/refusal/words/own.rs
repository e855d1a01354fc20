//! Takes out of a reply's text what is not the server's own: what was said to it, mail addresses, host names, URLs,
//! IP addresses, what stands in brackets or quotes, and what another server said. `words` calls it.
//!
//! All of it works on lower case, and what is taken out leaves no gap: a phrase with an address in its midst is
//! still a phrase.

use std::borrow::Cow;

use super::{END, SingleWords};

/// Stands for a quoted string, which may be the local part before an `@`.
const QUOTED: char = '\u{1}';
/// Punctuation that is no part of a mail address or URL.
const AROUND: [char; 14] = ['<', '>', '(', ')', '[', ']', ',', ';', ':', '"', ' ', '\n', '“', '”'];

/// In lower case, with one kind of space and of apostrophe. Lines stay lines.
pub fn lower(text: &str) -> String {
    let one = |c: char| match c {
        '\n' => '\n',
        '’' => '\'',
        _ if c.is_whitespace() || c.is_control() => ' ',
        _ => c,
    };
    text.to_lowercase().chars().map(one).collect()
}

/// The words, without those of somebody else: Postfix reports what another host `said:`, Exim's callout its
/// `Response:`, each to the end of the line.
pub fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let ours = |line: &&str| !["said:", "response:"].contains(line);
    text.split('\n').flat_map(move |line| line.split(' ').filter(|token| !token.is_empty()).take_while(ours))
}

/// The text without what was said to the server, without quoted strings, mail addresses and URLs.
pub fn without_echoes(text: &str, said: &[&str]) -> String {
    without_urls(&without_mail_addresses(&without_double_quotes(&without_said(text, said))))
}

/// Without what was said and does not look like an address: what has spaces, brackets or quotes in it, also as
/// servers print it that drop the quotes of a local part (qmail). [`without_mail_addresses`] does the others.
pub fn without_said(text: &str, said: &[&str]) -> String {
    let mut strings: Vec<String> = Vec::new();
    for said in said.iter().map(|said| said.to_lowercase()).filter(|said| local_part(said).contains(AROUND)) {
        if let Some((_, domain)) = said.rsplit_once('@') {
            strings.push(format!("{}@{domain}", local_part(&said)));
        }
        strings.push(said);
    }
    strings.sort_by_key(|string| std::cmp::Reverse(string.len()));
    // A literal as HELO has (`[192.0.2.1]`) is an address of the reply's too.
    let odd = strings.iter().filter(|string| string.contains([' ', '@']));
    odd.fold(text.to_owned(), |text, string| text.replace(string.as_str(), " "))
}

/// The local part of an address as it is meant (RFC 5321 4.1.2): without the quotes and backslashes. Of another
/// string, all of it.
pub fn local_part(said: &str) -> Cow<'_, str> {
    let local = said.rsplit_once('@').map_or(said, |(local, _)| local);
    match local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => Cow::Owned(inner.replace('\\', "")),
        None => Cow::Borrowed(local),
    }
}

/// Without `"..."`; a backslash within takes the next character's meaning away. One that is not closed stays.
pub fn without_double_quotes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('"') {
        let (before, quoted) = (&rest[..open], &rest[open + 1..]);
        let mut escaped = false;
        let close = quoted.char_indices().find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        let Some((close, _)) = close else { break };
        out.push_str(before);
        out.push(QUOTED);
        rest = &quoted[close + 1..];
    }
    out.push_str(rest);
    out
}

/// Without `local@domain`, `local@[literal]` and `@domain`.
pub fn without_mail_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let local = rest[..at].rfind(|c| AROUND.contains(&c)).map_or(0, |around| around + char_at(rest, around));
        let behind = &rest[at + 1..];
        let domain = match behind.strip_prefix('[').and_then(|literal| literal.find(']')) {
            Some(close) => close + 2,
            None => behind.find(|c| AROUND.contains(&c)).unwrap_or(behind.len()),
        };
        // What a sentence puts behind an address is no part of it.
        let name = behind[..domain].trim_end_matches(['.', '!', '?', '\'', '`']).len();
        out.push_str(&rest[..local]);
        rest = &behind[name..];
    }
    out.push_str(rest);
    out
}

/// How long the character there is.
fn char_at(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

/// Without `scheme://...` and `www....`, to the next space; brackets and full stops behind it stay.
pub fn without_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for token in text.split_inclusive([' ', '\n']) {
        let scheme =
            |sep: usize| token[..sep].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |c| c + char_at(token, c));
        let start = token.find("://").map(scheme).or_else(|| token.find("www."));
        let Some(start) = start else {
            out.push_str(token);
            continue;
        };
        let kept = token.trim_end_matches([' ', '\n', ']', ')', '>', '}', '.', ',', ';', ':', '\'']).len();
        out.push_str(&token[..start]);
        out.push_str(&token[kept.max(start)..]);
    }
    out
}

/// Without `'...'`, `` `...' `` and their like, and without what stands in brackets of any kind.
/// Only brackets around what is to be kept lose nothing but themselves.
pub fn without_quotes_and_brackets(text: &str, kept: fn(&str) -> bool) -> String {
    without_brackets(&without_single_quotes(text), kept)
}

/// An apostrophe within or behind a word opens nothing: `isn't in my list of senders'`.
fn without_single_quotes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find(['\'', '`', '‘', '“', '„', '«']) {
        let length = char_at(rest, open);
        let (mark, behind) = (&rest[open..open + length], &rest[open + length..]);
        let opens = mark != "'" || !rest[..open].ends_with(|c: char| c.is_alphanumeric() || c == '\'');
        let closing: &[char] = match mark {
            "'" | "`" => &['\'', '`'],
            "‘" => &['’', '\''],
            "«" => &['»'],
            _ => &['”', '“'],
        };
        let close = if opens { closing_at(behind, closing) } else { None };
        out.push_str(&rest[..open]);
        let Some(close) = close else {
            out.push_str(mark);
            rest = behind;
            continue;
        };
        out.push(QUOTED);
        rest = &behind[close + char_at(behind, close)..];
    }
    out.push_str(rest);
    out
}

/// Where a quotation ends: a mark with no letter behind it.
fn closing_at(behind: &str, closing: &[char]) -> Option<usize> {
    let ends = |at: usize| !behind[at + char_at(behind, at)..].starts_with(char::is_alphanumeric);
    behind.match_indices(closing).map(|(at, _)| at).find(|at| ends(*at))
}

/// Without `<...>`, `[...]`, `(...)` and `{...}`; one that is not closed stays.
fn without_brackets(text: &str, kept: fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find(['<', '[', '(', '{']) {
        let behind = &rest[open + 1..];
        let (opening, closing) = match rest.as_bytes()[open] {
            b'<' => ('<', '>'),
            b'[' => ('[', ']'),
            b'(' => ('(', ')'),
            _ => ('{', '}'),
        };
        let mut depth = 1_u32;
        let close = behind.char_indices().find(|(_, c)| {
            depth += u32::from(*c == opening);
            depth -= u32::from(*c == closing);
            depth == 0
        });
        out.push_str(&rest[..open]);
        out.push(' ');
        rest = match close {
            Some((close, _)) if !kept(behind[..close].trim()) => &behind[close + 1..],
            _ => behind,
        };
    }
    out.push_str(rest);
    out
}

/// Whether a word is a host name, an IP address or a number with dots: it has a dot or a colon in its midst.
pub fn is_host(word: &str) -> bool {
    word.contains(['.', ':', '@', QUOTED])
}

/// Takes local parts that were said out of the words: runs of two words and more as they stand in the local part
/// (`"relay access denied"@`, `relay.access_denied@`), and those of one word where they are echoes.
pub fn remove_local_parts(words: &mut Vec<&str>, said: &[&str], single: SingleWords) {
    for said in said.iter().filter(|said| said.contains('@') || said.contains(' ') || !is_host(said)) {
        let local = local_part(said).to_lowercase();
        let parts: Vec<&str> =
            local.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|p| !p.is_empty()).collect();
        match parts.len() {
            0 => {}
            1 if single == SingleWords::AreEchoes => words.retain(|word| *word == END || *word != parts[0]),
            1 => {}
            _ => remove_runs(words, &parts),
        }
    }
}

/// Takes every run of at least two of these parts, in their order, out of the words.
fn remove_runs(words: &mut Vec<&str>, parts: &[&str]) {
    let mut at = 0;
    while at < words.len() {
        let runs = (0..parts.len())
            .map(|from| words[at..].iter().zip(&parts[from..]).take_while(|(word, part)| word == part).count());
        match runs.max() {
            Some(run) if run >= 2 => drop(words.drain(at..at + run)),
            _ => at += 1,
        }
    }
}
