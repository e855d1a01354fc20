//! Texts one behind the other in one block of octets.

use super::{NONE, TooLarge};

/// A number that four octets hold, as a place.
pub(super) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The octets that a text of that length takes, at most.
pub(super) fn room(length: usize) -> usize {
    length + if length < 128 { 1 } else { 5 }
}

/// A text's length is written before it, seven bits an octet.
pub(super) fn read(texts: &[u8], at: u32) -> (&[u8], u32) {
    let mut at = index(at);
    let (mut length, mut shift) = (0_usize, 0);
    while let Some(octet) = texts.get(at) {
        at += 1;
        length |= usize::from(octet & 0x7f) << shift;
        shift += 7;
        if octet & 0x80 == 0 || shift > 28 {
            break;
        }
    }
    let text = texts.get(at..at + length).unwrap_or_default();
    (text, u32::try_from(at + length).unwrap_or(NONE))
}

pub(super) fn write(texts: &mut Vec<u8>, text: &str) -> Result<u32, TooLarge> {
    let at = u32::try_from(texts.len()).map_err(|_| TooLarge::Texts)?;
    let mut length = text.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        texts.push(if length == 0 { low } else { low | 0x80 });
        if length == 0 {
            break;
        }
    }
    texts.extend_from_slice(text.as_bytes());
    Ok(at)
}
