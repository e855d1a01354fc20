//! The queue that nodes share keeps what every spool promises: the tests of those on a disk, on a node in PostgreSQL.

use std::sync::atomic::{AtomicUsize, Ordering};

use fingerpost::spool::{Spool, SpoolError};
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::{Arc, Setup, Standby};
use crate::spool_store::{contract::PROMISES, model};

/// A database, and a runtime for its nodes.
struct Shared {
    setup: Setup,
    runtime: Runtime,
    /// Each has nodes of its own, whose mail is gone when it is over.
    tried: AtomicUsize,
}

impl Shared {
    fn new() -> Self {
        let (setup, runtime) = (Setup::start(), Runtime::new().unwrap());
        runtime.block_on(setup.init());
        Self { setup, runtime, tried: AtomicUsize::new(0) }
    }

    /// Calls this with what opens one and the same node, and forgets its mail.
    fn try_one(&self, on: impl Fn(&dyn Fn() -> Result<Arc<dyn Spool>, SpoolError>)) {
        let name = format!("node{}", self.tried.fetch_add(1, Ordering::Relaxed));
        let open = || {
            let opened = self.runtime.block_on(self.setup.open(&name, Standby::Required));
            opened.map(|node| Arc::new(node) as Arc<dyn Spool>).map_err(SpoolError::Io)
        };
        let _entered = self.runtime.enter();
        on(&open);
        self.setup
            .primary
            .sql("DELETE FROM fingerpost.epoch; DELETE FROM fingerpost.queue; DELETE FROM fingerpost.body");
    }
}

#[test]
fn a_shared_queue_keeps_what_every_spool_promises() {
    let shared = Shared::new();
    PROMISES.iter().for_each(|promise| shared.try_one(|open| promise(open)));
}

#[test]
fn a_shared_queue_is_a_map_that_outlives_its_process() {
    let shared = Shared::new();
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let tried = runner.run(&model::steps(), |steps| {
        shared.try_one(|open| model::go_through(&steps, &|| open().unwrap()));
        Ok(())
    });
    tried.unwrap();
}
