//! A 250 is a promise: `fingerpost run` as a process, with its power cut, its disk slow, failing or full, its clients
//! gone, and itself stopped at a bad moment. `tests/storage/crash.rs` kills it; `tests/storage/spool_store` does the like to the spool
//! alone.

mod cut;
mod fault;
mod full;
mod many;
mod outcome;
mod pressure;
mod sick;
mod slow;
mod stop;
mod fixture;
