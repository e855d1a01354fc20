//! A node that is about to leave says so, and others do not count on it. Each heartbeat writes it as the node knows it, so
//! that a word that went astray is put right.

use std::time::Duration;

use parking_lot::Mutex;

use super::database::{DatabaseError, SESSIONS, application};
use super::listing::OwnerNode;
use super::spool::ClusterSpool;

/// How long telling others that this node stops may take.
const TELLING: Duration = Duration::from_secs(2);

/// Whether a node may drain though no other one is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    Never,
    Too,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    No,
    /// It is being asked whether it may: heartbeats leave the row alone.
    Asking,
    Yes,
}

#[derive(Debug)]
pub(super) struct Draining(Mutex<State>);

impl Draining {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::No))
    }

    /// What a heartbeat writes; `None`: nothing.
    pub(super) fn to_write(&self) -> Option<bool> {
        match *self.0.lock() {
            State::No => Some(false),
            State::Asking => None,
            State::Yes => Some(true),
        }
    }

    /// Says that it drains: there is no way back.
    pub(super) fn begin(&self) {
        *self.0.lock() = State::Yes;
    }

    /// Asks whether it may.
    pub(super) fn ask(&self) -> Asking<'_> {
        let mut state = self.0.lock();
        if *state == State::No {
            *state = State::Asking;
        }
        Asking(self)
    }
}

/// A question whether the node may drain. Without [`Draining::begin`] meanwhile, it goes on as before.
pub(super) struct Asking<'a>(&'a Draining);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if *state == State::Asking {
            *state = State::No;
        }
    }
}

impl ClusterSpool {
    /// Says that this node drains, unless no other one would be left; `alone`: also then. Returns those that go on: they have
    /// a session at the database, and do not drain.
    ///
    /// # Errors
    /// [`DatabaseError`]: it does not drain; if its row says so, the next heartbeat takes that back.
    pub async fn drain(&self, alone: Alone) -> Result<Vec<OwnerNode>, DatabaseError> {
        let draining = &self.epoch().draining;
        let _asking = draining.ask();
        let pooled = self.pool().get().await?;
        let (connection, client) = (pooled.connection(), pooled.client());
        let asked = async {
            // Of two that drain in the same moment the second sees the first. A primary that forgets it ends nothing.
            let begin =
                "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_advisory_xact_lock(hashtext('fingerpost drain'))";
            client.batch_execute(begin).await?;
            let sessions: Vec<String> = client.query(SESSIONS, &[]).await?.iter().map(|row| row.get(0)).collect();
            let statement = "SELECT e.id, n.name FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node \
                 WHERE e.id <> $1 AND NOT e.draining ORDER BY n.name";
            let rows = client.query(statement, &[&self.epoch().id]).await?;
            let mut others: Vec<OwnerNode> =
                rows.iter().map(|row| OwnerNode { epoch: row.get(0), name: row.get(1) }).collect();
            others.retain(|other| sessions.contains(&application(other.epoch)));
            if !others.is_empty() || alone == Alone::Too {
                client
                    .execute("UPDATE fingerpost.epoch SET draining = true WHERE id = $1", &[&self.epoch().id])
                    .await?;
            }
            client.batch_execute("COMMIT").await?;
            Ok(others)
        };
        let others = connection.while_believed(asked).await?;
        if !others.is_empty() || alone == Alone::Too {
            draining.begin();
        }
        pooled.give_back().await;
        Ok(others)
    }

    /// The node begins to stop: from now on it takes over no more mail, and says so to those that would drain and count on it,
    /// within 2 s if the database answers.
    pub async fn begin_to_stop(&self) {
        self.take_over_no_more();
        self.epoch().draining.begin();
        let told = async {
            let pooled = self.pool().get().await?;
            // A primary that forgets it hears it again with the next heartbeat.
            let statement = format!(
                "BEGIN; SET LOCAL synchronous_commit = off; UPDATE fingerpost.epoch SET draining = true WHERE id = {}; COMMIT",
                self.epoch().id
            );
            pooled.client().batch_execute(&statement).await?;
            pooled.give_back().await;
            Ok::<_, DatabaseError>(())
        };
        let told = tokio::time::timeout(TELLING, told).await;
        if let Err(error) = told.unwrap_or_else(|_| Err(DatabaseError::Away("no answer in time".into()))) {
            tracing::debug!(%error, "other nodes cannot be told that this one stops");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_is_taken_back() {
        let draining = Draining::new();
        assert_eq!(draining.to_write(), Some(false));
        let asking = draining.ask();
        assert_eq!(draining.to_write(), None);
        drop(asking);
        assert_eq!(draining.to_write(), Some(false));
        let asking = draining.ask();
        draining.begin();
        drop(asking);
        drop(draining.ask());
        assert_eq!(draining.to_write(), Some(true));
    }
}
