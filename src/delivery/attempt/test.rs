//! Tests a next hop: a new connection, EHLO, MAIL with the null sender, RSET, and never a recipient.
//!
//! A test follows a broken connection, and is made for a next hop that is down; one at a time for each host. A failure
//! counts as the host's; any reply to MAIL is a success.

use std::time::Duration;

use super::connection::Broken;
use super::next_hop_error::{NextHopError, Scope};
use super::next_hops::NextHop;
use super::{SLOW_GREETING, Waits, WayOut, open};
use crate::delivery::health::{Change, Standing};
use crate::delivery::outcome::Outcome;
use crate::delivery::refusal::Step;
use crate::delivery::refusal::row::Row;

impl WayOut {
    /// Tests a next hop in the background, unless a test is in progress or has just ended.
    pub(super) fn begin_test(&self, hop: &NextHop) {
        let Some(test) = self.shared.health.begin_test(&hop.key(&self.connector.name)) else { return };
        let (out, hop) = (self.clone(), hop.clone());
        tokio::spawn(async move {
            out.test(&hop).await;
            drop(test);
        });
    }

    async fn test(&self, hop: &NextHop) {
        let smtp = &self.terms.smtp;
        let reply = self.waits.reply.min(smtp.reply_timeout);
        let waits = Waits { connect: smtp.connect_timeout, greeting: SLOW_GREETING, reply, ..self.waits };
        let out = Self { waits, ..self.clone() };
        let mut connection = match open::open(&out, hop).await {
            Ok(connection) => connection,
            // It has enough connections of ours, and none of them failed.
            Err(error)
                if error.scope == Scope::Crowded
                    && self.shared.health.standing(&hop.key(&self.connector.name)) == Standing::Up =>
            {
                return;
            }
            // The failure is not the host's.
            Err(error) if error.scope == Scope::Ours => return,
            // It accepts no connection at all.
            Err(error) => return self.note(hop, Some(&NextHopError { scope: Scope::Host, ..error })),
        };
        let failed = match connection.command("MAIL FROM:<>").await {
            Ok(reply) if reply.code == 421 => Some(format!("421 at MAIL FROM:<>: {reply}")),
            Ok(_) => connection.command("RSET").await.err().map(|broken| broken.to_string()),
            Err(broken) => Some(broken.to_string()),
        };
        match failed {
            None => {
                self.note(hop, None);
                self.shared.pool.put(hop.key(&self.connector.name), connection, self.idle_limit());
            }
            Some(why) => {
                let broken = Broken::Io(std::io::Error::other(why));
                let error =
                    NextHopError { scope: Scope::Host, ..NextHopError::broken(&connection, &broken, Step::Mail) };
                self.note(hop, Some(&error));
            }
        }
    }

    /// Logs what is wrong.
    pub(super) fn log(&self, error: &NextHopError) {
        self.shared.alerts.log(&self.connector.name, error);
    }

    /// A next hop refuses mail because we relay it: counts it, and logs it with the remedy.
    pub(super) fn relaying_fails(&self, row: &'static Row, outcome: &Outcome) {
        self.shared.metrics.relayed_mail_refused.with_label_values(&[&*self.connector.name]).inc();
        self.shared.alerts.tell_refusal(&self.connector.name, row, outcome);
    }

    /// Records a next hop's health: a connection became ready for MAIL, or failed.
    pub(super) fn note(&self, hop: &NextHop, error: Option<&NextHopError>) {
        let key = hop.key(&self.connector.name);
        match error {
            None => {
                if self.shared.health.answers(&key) == Change::News {
                    tracing::info!(send_connector = %self.connector.name, next_hop = hop.name(), "next hop answers again");
                }
            }
            Some(error) if matches!(error.scope, Scope::Ours | Scope::Crowded) => {}
            Some(error) => {
                if self.shared.health.fails(&key, &error.reply) == Change::News {
                    self.log(error);
                }
            }
        }
        if let Some(label) = &hop.label {
            let up = self.shared.metrics.next_hop_up.with_label_values(&[&*self.connector.name, label]);
            up.set(i64::from(self.shared.health.standing(&key) == Standing::Up));
        }
    }

    /// Waits for a test of this next hop, if that makes sense; returns whether it is up.
    pub(super) async fn is_up_after_test(&self, hop: &NextHop, limit: Duration) -> bool {
        let key = hop.key(&self.connector.name);
        let _ = tokio::time::timeout(limit, self.shared.health.after_test(&key)).await;
        self.shared.health.standing(&key) == Standing::Up
    }
}
