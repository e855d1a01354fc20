//! Uses renewed certificates without a restart: the files are checked every [`LOOK`], and read again once they have
//! changed and are stable. Sessions keep the certificate that they began with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::{ListenError, Listeners};
use crate::config::{Auth, Config};
use crate::session::users;
use crate::time::UnixTime;
use crate::tls::accept;
use crate::tls::serve::{self, Certificates};

/// How often the files are checked.
const LOOK: Duration = Duration::from_secs(10);

/// Identifies a version of a file: path, modification time and length.
type Stamp = (PathBuf, Option<SystemTime>, u64);

/// The state of watching the files.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The hash of their configuration.
    hash: String,
    /// As of the last reading.
    read: Vec<Stamp>,
    /// As of the last check.
    seen: Vec<Stamp>,
}

impl Watched {
    /// Made before the files are read.
    pub(super) fn of(config: &Config) -> Self {
        let stamps = stamps(config);
        Self { hash: config.hash.clone(), read: stamps.clone(), seen: stamps }
    }
}

fn stamps(config: &Config) -> Vec<Stamp> {
    let stamp = |path: &std::path::Path| {
        let found = std::fs::metadata(path).ok();
        let length = found.as_ref().map_or(0, std::fs::Metadata::len);
        (path.to_owned(), found.and_then(|found| found.modified().ok()), length)
    };
    serve::files(config).map(stamp).collect()
}

/// Reads certificates, authorities and users of a configuration's receive connectors.
pub(super) fn load(config: &Config) -> Result<Certificates, ListenError> {
    for connector in &config.receive_connectors {
        if let Auth::Users(file) = &connector.auth {
            users::read(file)
                .map_err(|cause| ListenError::Users { connector: connector.name.clone(), cause: Box::new(cause) })?;
        }
    }
    Certificates::load(config).map_err(|(connector, cause)| ListenError::Certificate { connector, cause })
}

impl Listeners {
    /// Uses renewed certificates, until `stop`.
    pub async fn renew(self: Arc<Self>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let listeners = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || listeners.look()).await {
                tracing::error!(%error, "certificate files could not be looked at");
            }
        }
    }

    /// One check of the files of the configuration in force. They are written one after the other: while they differ
    /// from the last check they may be incomplete.
    fn look(&self) {
        let _applying = self.open.lock();
        let config = self.shared.services.current.load().config.clone();
        let mut watched = self.watched.lock();
        let now = stamps(&config);
        let quiet = watched.seen == now;
        watched.seen.clone_from(&now);
        // With another hash a new configuration is about to come into force, whose files have been read.
        if !quiet || watched.read == now || watched.hash != config.hash {
            return;
        }
        watched.read = now;
        match load(&config) {
            Ok(certificates) => {
                tracing::info!("certificate files have changed and were read again");
                self.note_expiries(&config);
                self.shared.certificates.store(Arc::new(certificates));
            }
            Err(error) => tracing::error!(%error, "certificate files have changed; the old certificates stay"),
        }
    }

    /// Sets `certificate_expiry_timestamp_seconds`, and logs certificates that are not valid now. They are presented
    /// all the same: refusing would not help.
    pub(super) fn note_expiries(&self, config: &Config) {
        for connector in &config.receive_connectors {
            let Some(Ok(expiry)) = connector.tls.certificate.as_ref().map(accept::expiry) else { continue };
            let seconds = i64::try_from(expiry.0).unwrap_or(i64::MAX);
            self.shared.services.metrics.certificate_expiry.with_label_values(&[&*connector.name]).set(seconds);
        }
        let now = UnixTime::now();
        for serve::OutOfTime { of, file, why } in serve::out_of_time(config, now) {
            let file = file.display();
            tracing::warn!(alert = true, %of, %file, "the certificate {why}: renew it, or put the clock right");
        }
    }
}
