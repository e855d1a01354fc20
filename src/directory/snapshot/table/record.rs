//! Encodes numbers and texts in a block of octets: a number as groups of seven bits, the lowest first; a text as its
//! length and octets.

/// The most octets of a number; none exceeds 32 bits.
pub(super) const NUMBER: usize = 5;

/// The most octets of a text of that length.
pub(super) fn room(length: usize) -> usize {
    length + if length < 128 { 1 } else { NUMBER }
}

/// Appends a number.
pub(super) fn put_number(block: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        block.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return;
        }
    }
}

/// Appends a text.
pub(super) fn put_text(block: &mut Vec<u8>, text: &str) {
    put_number(block, text.len());
    block.extend_from_slice(text.as_bytes());
}

/// Reads what was appended, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> usize {
        let (mut number, mut shift) = (0_usize, 0);
        while let Some((octet, rest)) = self.0.split_first() {
            self.0 = rest;
            number |= usize::from(octet & 0x7f) << shift;
            shift += 7;
            if octet & 0x80 == 0 || shift > 28 {
                break;
            }
        }
        number
    }

    pub(super) fn octets(&mut self) -> &'a [u8] {
        let length = self.number();
        let (octets, rest) = self.0.split_at_checked(length).unwrap_or_default();
        self.0 = rest;
        octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_is_read(all in vec((0..u32::MAX, "[a-zé]{0,300}"), 0..20)) {
            let mut block = Vec::new();
            for (number, text) in &all {
                let before = block.len();
                put_number(&mut block, *number as usize);
                prop_assert!(block.len() - before <= NUMBER);
                let before = block.len();
                put_text(&mut block, text);
                prop_assert!(block.len() - before <= room(text.len()));
            }
            let mut reader = Reader(&block);
            for (number, text) in &all {
                prop_assert_eq!((reader.number(), std::str::from_utf8(reader.octets()).unwrap()), (*number as usize, text.as_str()));
            }
            prop_assert!(reader.0.is_empty());
        }
    }
}
