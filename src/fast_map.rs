//! Hash maps for what is looked up for every message.
//!
//! Their keys come from the configuration or are keyed hashes already: nobody outside can choose them so that they
//! collide, and so they need no SipHash, which costs more than the look-up itself.

use std::collections::HashMap;

/// A map with a fast hash, for keys that strangers cannot choose.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
