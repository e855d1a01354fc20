//! The processes of one PostgreSQL server. Its children are in process groups of their own, so each is found by its
//! parent; only a postmaster that stands still starts no other meanwhile.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait_until;

/// How long a signal may take to arrive, and a process to be gone.
const SOON: Duration = Duration::from_secs(20);

/// A server's first process, the parent of the others; all of them are ended when it is dropped.
pub(super) struct Postmaster {
    child: Child,
}

impl Postmaster {
    pub(super) fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_some()
    }

    /// Stops it fast (SIGINT) and waits.
    pub(super) fn end(mut self, limit: Duration) {
        self.thaw();
        signal(self.id(), Signal::INT);
        wait_until("PostgreSQL's end", limit, || self.has_ended());
    }

    /// Kills all processes and waits until they are gone.
    pub(super) fn kill(mut self) {
        self.kill_all();
    }

    /// Stops all processes in their tracks (SIGSTOP).
    pub(super) fn freeze(&self) {
        self.stand_still();
    }

    /// Lets them go on.
    pub(super) fn thaw(&self) {
        children(self.id()).into_iter().for_each(|child| signal(child, Signal::CONT));
        signal(self.id(), Signal::CONT);
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Freezes all processes; returns the children.
    fn stand_still(&self) -> Vec<Pid> {
        let stop = |id: Pid| {
            signal(id, Signal::STOP);
            wait_until("a process that stands still", SOON, || !runs(id));
        };
        stop(self.id());
        let children = children(self.id());
        children.iter().for_each(|child| stop(*child));
        children
    }

    fn kill_all(&mut self) {
        let children = self.stand_still();
        children.iter().for_each(|child| signal(*child, Signal::KILL));
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
        wait_until("no process of PostgreSQL's", SOON, || children.iter().all(|child| is_gone(*child)));
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        // An immediate shutdown would wait 5 s for processes that do not answer.
        if !self.has_ended() {
            self.kill_all();
        }
    }
}

/// Sends a signal; the process may be gone.
fn signal(id: Pid, signal: Signal) {
    let _ = kill_process(id, signal);
}

/// The processes whose parent that is.
fn children(parent: Pid) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    ids.filter(|id| stat(*id).is_some_and(|(_, its_parent)| its_parent == parent.as_raw_nonzero().get())).collect()
}

/// Whether it is neither stopped nor ended.
fn runs(id: Pid) -> bool {
    stat(id).is_some_and(|(state, _)| !"TZX".contains(state))
}

/// Whether nothing is left of it but what its parent has not asked for yet.
fn is_gone(id: Pid) -> bool {
    stat(id).is_none_or(|(state, _)| "ZX".contains(state))
}

/// Its state and its parent (proc_pid_stat(5): they stand behind the name in brackets), while it is there.
fn stat(id: Pid) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
