//! Hash maps for what is looked up for every message.
//!
//! Their keys come from the configuration, are keyed hashes already, or (names of MX hosts) are few: nobody outside can
//! fill such a map with keys that collide, and so it needs no SipHash, which costs more than the look-up itself.

use std::collections::{HashMap, HashSet};

/// A map with a fast hash, for keys that strangers cannot choose.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A set of the same.
pub type FastSet<K> = HashSet<K, foldhash::fast::RandomState>;
