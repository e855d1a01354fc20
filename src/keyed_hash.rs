//! Hashes of values that strangers choose, such as addresses, with a key of this installation, so that strangers cannot
//! produce collisions. Pure.

use std::hash::Hasher as _;

/// 16 random octets.
pub type HashKey = [u8; 16];

/// SipHash-2-4 of the text. It may be stored in files, since it never changes.
#[must_use]
#[expect(deprecated, reason = "the standard library's only hash whose key can be given, and a fixed algorithm")]
pub fn keyed_hash(key: &HashKey, text: &[u8]) -> u64 {
    let (left, right) = key.split_at(8);
    let half = |half: &[u8]| half.iter().rev().fold(0, |all, octet| all << 8 | u64::from(*octet));
    let mut hasher = std::hash::SipHasher::new_with_keys(half(left), half(right));
    hasher.write(text);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_function() {
        // SipHash: a fast short-input PRF, appendix A.
        let key: HashKey = std::array::from_fn(|at| at as u8);
        let text: Vec<u8> = (0..15).collect();
        assert_eq!(keyed_hash(&key, &text), 0xa129_ca61_49be_45e5);
    }
}
