//! Encoding of a stamp's field: names percent-encoded, lines folded (RFC 5322 2.2.3).

use std::borrow::Cow;

const FIELD: &str = "Fingerpost-Route:";
/// RFC 5322 2.1.1: lines should have at most 78 characters; one is kept free.
const LINE: usize = 77;

/// Percent-encodes everything but letters, digits, `.`, `-` and `_`.
pub(super) fn encoded(name: &str) -> Cow<'_, str> {
    let stands = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if name.bytes().all(stands) {
        return name.into();
    }
    let mut text = String::with_capacity(name.len());
    for b in name.bytes() {
        match b {
            b if stands(b) => text.push(char::from(b)),
            _ => text.push_str(&format!("%{b:02X}")),
        }
    }
    text.into()
}

pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((b, after)) = rest.split_first() {
        rest = after;
        if *b != b'%' {
            bytes.push(*b);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The field with its value folded after `;` and `,`, and within items longer than a line. `value` is ASCII.
pub(super) fn folded(value: &str) -> String {
    let mut field = String::with_capacity(value.len() + value.len() / 16 + FIELD.len() + 8);
    field.push_str(FIELD);
    let mut column = FIELD.len();
    for piece in value.split_inclusive([';', ',']) {
        if column + 1 + piece.len() > LINE {
            fold(&mut field, &mut column);
        } else if field.ends_with([':', ';']) {
            field.push(' '); // before a parameter, not before one more tag
            column += 1;
        }
        if column + piece.len() <= LINE {
            field.push_str(piece);
            column += piece.len();
            continue;
        }
        for c in piece.chars() {
            if column == LINE {
                fold(&mut field, &mut column);
            }
            field.push(c);
            column += 1;
        }
    }
    field.push_str("\r\n");
    field
}

fn fold(field: &mut String, column: &mut usize) {
    field.push_str("\r\n\t");
    *column = 1;
}
