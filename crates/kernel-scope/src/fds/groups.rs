use std::collections::BTreeMap;
use std::time::Duration;

use crate::fds::calls;
use crate::fds::state::{Origin, State, Table};
use crate::symbols::{Stacks, Symbols};

/// Open descriptors of one process that the same code made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// The process, as the initial pid namespace numbers it; or a thread that has a table of its own.
    pub pid: u32,
    /// Its name; empty until the next snapshot when it has just begun.
    pub comm: String,
    /// Other processes that share the table (`CLONE_FILES`): the same descriptors, listed once.
    pub shared_with: Vec<u32>,
    /// The system call that made them. Also `SCM_RIGHTS`; `io_uring`; `deferred` where the kernel
    /// made them when a call of another kind returned; `unknown` where their making was not seen:
    /// before the tool began, by a call that it does not know, or its event was lost.
    pub call: &'static str,
    /// Their numbers, ascending.
    pub fds: Vec<u32>,
    /// How long the oldest has been open; for `unknown`, how long it has been known.
    pub oldest: Duration,
    /// Names of the functions that made them, innermost first. Empty for `unknown`, for what was made
    /// before the process ran another program, and where it is [lost](Self::stack_lost).
    pub stack: Vec<String>,
    /// The program lost their stacks, which may have been several: others had their places in its map.
    pub stack_lost: bool,
}

/// What tells groups of a table apart: the call, whether its stack is lost, and its addresses.
type Key = (&'static str, bool, Vec<u64>);

/// The groups of all tables, the largest first.
pub(super) fn of(state: &State, stacks: &Stacks, symbols: &Symbols, now_ns: u64) -> Vec<Group> {
    let mut addresses = BTreeMap::new();
    let mut groups = Vec::new();
    for table in state.tables() {
        let mut holders = table.holders.iter();
        let (pid, comm) = holders.next().expect("a table is somebody's");
        let shared_with: Vec<u32> = holders.map(|(pid, _)| *pid).collect();
        let made_by = |origin| match origin {
            Origin::Unknown => (calls::UNKNOWN, false, Vec::new()),
            Origin::Call { call, stack } => {
                let known = addresses
                    .entry(stack)
                    .or_insert_with(|| stacks.addresses(stack));
                (calls::name(call), Stacks::is_lost(stack), known.clone())
            }
        };
        for ((call, stack_lost, stack), members) in by_origin(table, made_by) {
            groups.push(Group {
                pid: *pid,
                comm: comm.clone(),
                shared_with: shared_with.clone(),
                call,
                fds: members.fds,
                oldest: Duration::from_nanos(now_ns.saturating_sub(members.since_ns)),
                stack: symbols.user(*pid, &stack),
                stack_lost,
            });
        }
    }
    groups.sort_by_key(|group| (std::cmp::Reverse(group.fds.len()), group.pid));
    groups
}

struct Members {
    fds: Vec<u32>,
    since_ns: u64,
}

fn by_origin(table: &Table, mut made_by: impl FnMut(Origin) -> Key) -> BTreeMap<Key, Members> {
    let mut groups: BTreeMap<Key, Members> = BTreeMap::new();
    for (fd, opened) in table.open() {
        let group = groups.entry(made_by(opened.origin)).or_insert(Members {
            fds: Vec::new(),
            since_ns: opened.time_ns,
        });
        group.fds.push(fd);
        group.since_ns = group.since_ns.min(opened.time_ns);
    }
    groups
}
