//! Parses sizes and durations: `"35MiB"`, `"30s"`. A bare number is refused for either. Also domain names.

use std::time::Duration;

use super::value_error::ValueError;
use crate::smtp::domain::Domain;

const SIZES: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const DURATIONS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses a size in bytes.
pub(super) fn size(text: &str) -> Result<u64, ValueError> {
    let unit = "a size has one of the units B, KiB, MiB, GiB, TiB, such as \"35MiB\"";
    scaled(text, SIZES).ok_or_else(|| format!("`{text}` is not a size; {unit}").into())
}

pub(super) fn duration(text: &str) -> Result<Duration, ValueError> {
    let unit = "a duration has one of the units ms, s, m, h, d, such as \"30s\"";
    scaled(text, DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration; {unit}").into())
}

/// Parses a domain name; address literals are refused.
pub(super) fn domain_name(text: &str) -> Result<Domain, ValueError> {
    let domain = Domain::parse(text)?;
    if domain.as_ip().is_some() { Err(format!("`{text}` is an address, not a domain name").into()) } else { Ok(domain) }
}

/// A whole number times its unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("512B", 512), ("35MiB", 35 << 20), ("256 KiB", 256 << 10), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "35", "MiB", "35MB", "35mib", "-1B", "1.5GiB", "99999999999TiB", "35 MiB "] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [("30s", 30), ("4h", 14_400), ("2d", 172_800), ("5m", 300), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "30", "s", "30 seconds", "1h30m", "1.5h", "-5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
