//! Reads back log output in tests of the formats.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Dispatch;

#[derive(Clone, Default)]
pub(super) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The output of what `log` logs in this format.
pub(super) fn raw(format: impl FnOnce(CapturedLog) -> Dispatch, log: impl FnOnce()) -> String {
    let written = CapturedLog::default();
    tracing::dispatcher::with_default(&format(written.clone()), log);
    String::from_utf8(written.0.lock().clone()).unwrap()
}

/// Its lines without their times.
pub(super) fn lines(format: impl FnOnce(CapturedLog) -> Dispatch, log: impl FnOnce()) -> Vec<String> {
    let without_time = |line: &str| line["2026-11-21T04:39:00.123456Z".len()..].to_owned();
    raw(format, log).lines().map(without_time).collect()
}
