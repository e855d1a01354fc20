//! Attempts in progress: they may turn out to be wrong, and concurrent ones must not circumvent the limits.

use crate::fast_map::FastMap;

/// Bounded by the number of sessions at AUTH.
#[derive(Default)]
pub(super) struct UnderWay {
    /// By client: each pair of name and password.
    clients: FastMap<u64, FastMap<u64, PendingLogin>>,
    /// By account: how many that count.
    accounts: FastMap<u64, usize>,
}

struct PendingLogin {
    user: u64,
    times: usize,
}

impl UnderWay {
    pub(super) fn begin(&mut self, client: u64, user: u64, pair: u64) {
        self.clients.entry(client).or_default().entry(pair).or_insert(PendingLogin { user, times: 0 }).times += 1;
    }

    pub(super) fn end(&mut self, client: u64, pair: u64) {
        let Some(pairs) = self.clients.get_mut(&client) else { return };
        if let Some(asked) = pairs.get_mut(&pair) {
            asked.times = asked.times.saturating_sub(1);
            if asked.times == 0 {
                pairs.remove(&pair);
            }
        }
        if pairs.is_empty() {
            self.clients.remove(&client);
        }
    }

    /// Whether this pair of the client is in progress.
    pub(super) fn has(&self, client: u64, pair: u64) -> bool {
        self.clients.get(&client).is_some_and(|pairs| pairs.contains_key(&pair))
    }

    /// Whether another password of this client's user is in progress.
    pub(super) fn has_another(&self, client: u64, user: u64, pair: u64) -> bool {
        let another = |(other, asked): (&u64, &PendingLogin)| asked.user == user && *other != pair;
        self.clients.get(&client).is_some_and(|pairs| pairs.iter().any(another))
    }

    /// How many different pairs of a client are in progress.
    pub(super) fn of_client(&self, client: u64) -> usize {
        self.clients.get(&client).map_or(0, FastMap::len)
    }

    pub(super) fn reach(&mut self, account: u64) {
        *self.accounts.entry(account).or_default() += 1;
    }

    pub(super) fn leave(&mut self, account: u64) {
        if let Some(asked) = self.accounts.get_mut(&account) {
            *asked = asked.saturating_sub(1);
            if *asked == 0 {
                self.accounts.remove(&account);
            }
        }
    }

    pub(super) fn of_account(&self, account: u64) -> usize {
        self.accounts.get(&account).copied().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.accounts.is_empty()
    }
}
