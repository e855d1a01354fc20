//! Fast hash maps for lookups that every message needs.
//!
//! Their keys come from the configuration, are keyed hashes already, or (names of MX hosts) are few: strangers cannot
//! fill such a map with colliding keys, so it does not need SipHash, which costs more than the lookup itself.

use std::collections::{HashMap, HashSet};

pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

pub type FastSet<K> = HashSet<K, foldhash::fast::RandomState>;
