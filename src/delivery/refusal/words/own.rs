//! Removes from a reply's text what is not the server's own: texts that were sent to it, mail addresses, host names,
//! URLs, IP addresses, anything in brackets or quotes, and another server's reply. `words` calls it.
//!
//! Everything works on lower case, and what is removed leaves no gap: a phrase with an address in it is still a phrase.

use std::borrow::Cow;

use super::{END, SingleWords};

/// Replaces a quoted string, which may be the local part before an `@`.
const QUOTED: char = '\u{1}';
/// Punctuation that is not part of a mail address or URL.
const AROUND: [char; 14] = ['<', '>', '(', ')', '[', ']', ',', ';', ':', '"', ' ', '\n', '“', '”'];

/// In lower case, with one kind of space and of apostrophe. Line breaks are kept.
pub fn lower(text: &str) -> String {
    let one = |c: char| match c {
        '\n' => '\n',
        '’' => '\'',
        _ if c.is_whitespace() || c.is_control() => ' ',
        _ => c,
    };
    text.to_lowercase().chars().map(one).collect()
}

/// The words, without another server's: Postfix quotes another host's reply after `said:`, Exim's callout after
/// `Response:`, each to the end of the line.
pub fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let ours = |line: &&str| !["said:", "response:"].contains(line);
    text.split('\n').flat_map(move |line| line.split(' ').filter(|token| !token.is_empty()).take_while(ours))
}

/// The text without what was sent to the server, quoted strings, mail addresses and URLs.
pub fn without_echoes(text: &str, said: &[&str]) -> String {
    without_urls(&without_mail_addresses(&without_double_quotes(&without_said(text, said))))
}

/// Removes texts that were sent and do not look like an address, with spaces, brackets or quotes in them, also in the
/// form of servers that drop the quotes of a local part (qmail). [`without_mail_addresses`] removes the others.
pub fn without_said(text: &str, said: &[&str]) -> String {
    let mut strings: Vec<String> = Vec::new();
    for said in said.iter().map(|said| said.to_lowercase()).filter(|said| local_part(said).contains(AROUND)) {
        if let Some((_, domain)) = said.rsplit_once('@') {
            strings.push(format!("{}@{domain}", local_part(&said)));
        }
        strings.push(said);
    }
    strings.sort_by_key(|string| std::cmp::Reverse(string.len()));
    // An address literal in HELO (`[192.0.2.1]`) may also be an address in the reply.
    let odd = strings.iter().filter(|string| string.contains([' ', '@']));
    odd.fold(text.to_owned(), |text, string| text.replace(string.as_str(), " "))
}

/// The meaning of an address's local part (RFC 5321 4.1.2): without quotes and backslashes. Of another string, all of
/// it.
pub fn local_part(said: &str) -> Cow<'_, str> {
    let local = said.rsplit_once('@').map_or(said, |(local, _)| local);
    match local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => Cow::Owned(inner.replace('\\', "")),
        None => Cow::Borrowed(local),
    }
}

/// Without `"..."`; a backslash escapes the next character. An unclosed quotation stays.
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
        // Punctuation after an address is not part of it.
        let name = behind[..domain].trim_end_matches(['.', '!', '?', '\'', '`']).len();
        out.push_str(&rest[..local]);
        rest = &behind[name..];
    }
    out.push_str(rest);
    out
}

/// The length of the character at this offset.
fn char_at(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

/// Without `scheme://...` and `www....`, up to the next space; brackets and full stops after it stay.
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

/// Without `'...'`, `` `...' `` and similar, and without anything in brackets. Where the content is to be kept, only
/// the brackets are removed.
pub fn without_quotes_and_brackets(text: &str, kept: fn(&str) -> bool) -> String {
    without_brackets(&without_single_quotes(text), kept)
}

/// An apostrophe within or after a word does not open a quotation: `isn't in my list of senders'`.
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

/// Where a quotation ends: a mark that no letter follows.
fn closing_at(behind: &str, closing: &[char]) -> Option<usize> {
    let ends = |at: usize| !behind[at + char_at(behind, at)..].starts_with(char::is_alphanumeric);
    behind.match_indices(closing).map(|(at, _)| at).find(|at| ends(*at))
}

/// Without `<...>`, `[...]`, `(...)` and `{...}`; an unclosed bracket stays.
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

/// Whether a word is a host name, an IP address or a number with dots: it has a dot or a colon inside.
pub fn is_host(word: &str) -> bool {
    word.contains(['.', ':', '@', QUOTED])
}

/// Removes local parts that were sent: runs of two or more words as in the local part (`"relay access denied"@`,
/// `relay.access_denied@`), and single words where they are echoes.
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

/// Removes every run of at least two of these parts, in order.
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
