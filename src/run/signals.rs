//! `fingerpost run`: runs a node until SIGTERM or SIGINT; SIGHUP reloads. The service manager is notified of each step
//! (`Type=notify-reload` in systemd's words).

use std::path::Path;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Node;
use crate::admin::drain::Pause;
use crate::reload::Consent;
use crate::{descriptors, give_back};

/// Runs the server until a signal stops it. A second signal ends the drain.
///
/// # Errors
/// Why it cannot start, with what to do; or its spool accepts no more records, which a restart may solve.
pub async fn run(file: &Path) -> Result<(), String> {
    descriptors::raise_limit();
    // Registered first: a signal during the start must not be lost, nor end the process halfway.
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut hangup = on(SignalKind::hangup())?;
    let node = Node::start(file).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), configuration = %file.display(), "fingerpost is up");
    notify(&[NotifyState::Ready]);
    give_back::soon();
    let ended = loop {
        tokio::select! {
            _ = hangup.recv() => reload(&node).await,
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            Pause(pause) = node.asked_to_drain() => {
                tracing::info!("draining: it stops in {pause:?}");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = node.spool_ended() => {}
                }
                break Ok(());
            }
            why = node.spool_ended() => {
                break Err(format!("the spool takes nothing any more ({why}): it ends, to be started again"));
            }
        }
    };
    tracing::info!("stopping: no more connections are taken, those there are may end");
    notify(&[NotifyState::Stopping]);
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        _ = terminate.recv() => tracing::warn!("stopped at once"),
        _ = interrupt.recv() => tracing::warn!("stopped at once"),
    }
    ended
}

fn on(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("cannot listen for signals: {error}"))
}

/// The reloader logs the result.
async fn reload(node: &Node) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
    }
    node.reloader().reload(Consent::NotGiven).await;
    notify(&[NotifyState::Ready]);
}

/// Notifies the service manager; without one it does nothing.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
