//! The time of log lines: RFC 3339 in UTC, with microseconds. The text is computed once for each second.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::time::UnixTime;

#[derive(Default)]
pub(super) struct Clock {
    /// The last line's second, as text.
    second: Mutex<(UnixTime, String)>,
}

impl Clock {
    /// Appends the time: `2026-11-21T04:39:00.123456Z`.
    pub(super) fn time(&self, line: &mut String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = UnixTime(now.as_secs());
        let mut second = self.second.lock();
        if second.0 != at {
            *second = (at, at.rfc3339());
        }
        line.push_str(second.1.trim_end_matches('Z'));
        drop(second);
        let mut digits = *b".000000Z";
        let mut left = now.subsec_micros();
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
            left /= 10;
        }
        line.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_microseconds() {
        let mut line = String::new();
        Clock::default().time(&mut line);
        assert_eq!(line.len(), "2026-11-21T04:39:00.123456Z".len(), "{line}");
    }
}
