//! No edge is lost: every interleaving of arrivals, waits, reads, pauses and changes of interest, on a model of epoll.
//!
//! The model has one connection. What is real in it are the notes that a shard takes ([`Flags`]) and what it has the
//! kernel watch ([`Watch`]); the steps of [`drive`](crate::drive) that use them are repeated here in their order.

use std::collections::HashSet;

use super::*;
use crate::Token;
use crate::interest::{Change, Interest, Watch};

/// Bytes that fit the read buffer, and bytes that the peer sends at most: reads are full, short, and in between.
const ROOM: usize = 2;
const BYTES: usize = 4;
const PAUSES: usize = 2;

/// A socket and its entry in an edge-triggered interest list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Kernel {
    unread: usize,
    fin: bool,
    /// Which end of its bytes the urgent mark is at: a read stops in front of what came after it.
    mark: Option<usize>,
    watched: Option<bool>,
    /// On epoll's list of ready entries.
    edge: bool,
}

impl Kernel {
    fn arrive(&mut self, urgent: bool) {
        if urgent {
            self.mark = Some(self.unread);
        }
        self.unread += 1;
        // `ep_poll_callback` compares what arrived with the interest.
        self.edge |= self.watched == Some(true);
    }

    fn finish(&mut self) {
        self.fin = true;
        // A change of the socket's state wakes whatever the interest.
        self.edge |= self.watched.is_some();
    }

    fn change(&mut self, change: Change) {
        self.watched = match change {
            Change::Add(interest) | Change::Modify(interest) => Some(interest == Interest::Both),
            Change::Delete => None,
        };
        // Both look at what is ready now, and there is always room for output here.
        self.edge = self.watched.is_some();
    }

    /// What a wait reports.
    fn fetch(&mut self) -> Option<Event> {
        if !std::mem::take(&mut self.edge) {
            return None;
        }
        let input = self.watched == Some(true);
        let to_the_end = input && (self.fin || self.mark.is_some());
        Some(Event {
            token: Token::new(0, 0),
            readable: to_the_end || input && self.unread > 0,
            writable: true,
            to_the_end,
        })
    }

    /// `recv`: bytes up to the urgent mark, the end of the stream (0), or "nothing there".
    fn receive(&mut self) -> Option<usize> {
        let most = match self.mark {
            Some(before) if before > 0 => before,
            _ => self.unread,
        };
        let count = most.min(ROOM);
        self.unread -= count;
        self.mark = match self.mark {
            Some(before) if before > 0 => Some(before - count),
            _ => None,
        };
        (count > 0 || self.fin).then_some(count)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    kernel: Kernel,
    flags: Flags,
    watch: Watch,
    sent: usize,
    pauses: usize,
    fin_read: bool,
    urgent_sent: bool,
}

impl State {
    fn want(&mut self, interest: Interest) {
        self.watch = self.watch.want(Some(interest));
        self.flags.set(Flags::CHANGED);
    }

    /// One pass through the loop of `Running::read`, with a budget of one read.
    fn read_once(&mut self) {
        self.flags.clear(Flags::QUEUED);
        if self.flags.has(Flags::PAUSED) {
            if self.flags.has(Flags::READABLE) {
                self.want(Interest::Output);
            }
            return;
        }
        if self.fin_read || !self.flags.has(Flags::READABLE) {
            return;
        }
        match self.kernel.receive() {
            None => self.flags.clear(Flags::READABLE),
            Some(0) => {
                self.flags.clear(Flags::READABLE);
                self.fin_read = true;
            }
            Some(count) => {
                self.flags.after_read(count, ROOM);
                self.flags.set(Flags::QUEUED);
            }
        }
    }

    /// Nothing will happen any more unless the peer or the handler does something.
    fn asleep(&self) -> bool {
        !self.kernel.edge && !self.flags.has(Flags::QUEUED) && !self.flags.has(Flags::CHANGED)
    }

    /// Everything that can happen next, in any order: the peer's and the handler's doings between any two of the shard's.
    fn successors(&self) -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        let mut add = |what, step: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            step(&mut next);
            all.push((what, next));
        };
        if self.sent < BYTES && !self.kernel.fin {
            add("a byte arrives", &|next| {
                next.sent += 1;
                next.kernel.arrive(false);
            });
            if !self.urgent_sent {
                add("an urgent byte arrives", &|next| {
                    next.sent += 1;
                    next.urgent_sent = true;
                    next.kernel.arrive(true);
                });
            }
        }
        if !self.kernel.fin {
            add("the peer finishes", &|next| next.kernel.finish());
        }
        if self.kernel.edge {
            add("wait", &|next| {
                let event = next.kernel.fetch().expect("there is an edge");
                next.flags.note(event);
                next.flags.set(Flags::QUEUED);
            });
        }
        if self.flags.has(Flags::QUEUED) {
            add("read", &Self::read_once);
        }
        if self.flags.has(Flags::CHANGED) {
            add("tell the kernel", &|next| {
                next.flags.clear(Flags::CHANGED);
                if let Some(change) = next.watch.change() {
                    next.kernel.change(change);
                }
                next.watch = next.watch.told();
            });
        }
        if self.flags.has(Flags::PAUSED) {
            add("resume", &|next| {
                next.flags.clear(Flags::PAUSED);
                next.want(Interest::Both);
                next.flags.set(Flags::QUEUED);
            });
        } else if self.pauses < PAUSES {
            add("pause", &|next| {
                next.pauses += 1;
                next.flags.set(Flags::PAUSED);
            });
        }
        all
    }
}

#[test]
fn no_interleaving_loses_an_edge() {
    let mut accepted = State::default();
    accepted.want(Interest::Both);
    let mut known = HashSet::from([accepted.clone()]);
    let mut open = vec![(accepted, Vec::new())];
    let mut slept = 0;
    while let Some((state, way)) = open.pop() {
        if state.asleep() {
            slept += 1;
            let waits_for_handler = state.flags.has(Flags::PAUSED);
            let all_read = state.kernel.unread == 0 && state.kernel.fin == state.fin_read;
            assert!(
                all_read || waits_for_handler,
                "{state:?} sleeps for ever after {way:?}"
            );
        }
        for (what, next) in state.successors() {
            if known.insert(next.clone()) {
                let mut way = way.clone();
                way.push(what);
                open.push((next, way));
            }
        }
    }
    println!("{} states, {slept} of them asleep", known.len());
    assert!(slept > 100 && known.len() > 5_000, "the model explores");
}
