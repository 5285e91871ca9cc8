//! The steps of a shard beneath its face that need no handler.

use std::collections::VecDeque;
use std::io;

use rustix::io::Errno;

use crate::budget::Budget;
use crate::conn::Connection;
use crate::flags::Flags;
use crate::interest::Interest;
use crate::io::Patience;
use crate::phase::{Act, Phase, Signal};
use crate::{CloseReason, Handler, Io, Stats, Token, sys};

/// What a shard's lists of connections have room for however quiet it is.
pub(crate) const LIST_KEPT: usize = 1024;
/// The same for those to close: a callback's few, as a rule.
pub(crate) const CLOSING_KEPT: usize = 64;

impl<H: Handler> Io<H> {
    /// Out of descriptors or memory, or refused for good: accepts nothing until the retry timer fires or a connection closes.
    pub(crate) fn pause_accepting(&mut self) {
        self.stats.accept_pauses += 1;
        let retry_ms = self
            .now_ms
            .saturating_add(self.options.accept_retry_ms.max(1));
        self.accept_retry = Some(self.patience.insert(retry_ms, Patience::AcceptRetry));
    }

    /// A descriptor is free again.
    pub(crate) fn resume_accepting(&mut self) {
        if let Some(retry) = self.accept_retry.take() {
            self.patience.cancel(retry);
        }
    }

    pub(crate) fn update_now(&mut self) {
        self.now_ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    /// Lets freed slots be used again and keeps no list long that one busy turn made so.
    pub(crate) fn end_turn(&mut self) {
        self.stats.turns += 1;
        self.conns.release();
        if self.closing.capacity() > CLOSING_KEPT && self.closing.is_empty() {
            self.closing = VecDeque::new();
            self.closing.reserve(CLOSING_KEPT);
        }
    }

    /// How far the clock is into the current millisecond, in microseconds, if the turn is that young.
    pub(crate) fn turn_fraction_us(&self) -> u64 {
        let now_us = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        now_us.saturating_sub(self.now_ms.saturating_mul(1000))
    }

    /// Gives a connection a place in the next turn.
    pub(crate) fn queue_ready(&mut self, token: Token) {
        let Some(connection) = self.conns.get_mut(token) else {
            return;
        };
        if !connection.flags.take(Flags::QUEUED) {
            self.ready.push(token);
        }
        connection.flags.set(Flags::QUEUED);
    }

    /// Has the kernel watch a connection for `interest` from the next wait on.
    pub(crate) fn want(&mut self, token: Token, interest: Interest) {
        let Some(connection) = self.conns.get_mut(token) else {
            return;
        };
        if connection.watch.wanted() == Some(interest) {
            return;
        }
        connection.watch = connection.watch.want(Some(interest));
        if connection.flags.take(Flags::CHANGED) {
            self.stats.interest_merged += 1;
        } else {
            self.changed.push(token);
        }
        connection.flags.set(Flags::CHANGED);
    }

    /// Tells the kernel what it shall watch of a connection, if it does not yet.
    ///
    /// # Errors
    /// The kernel watches nothing of it now: out of memory, or above `/proc/sys/fs/epoll/max_user_watches`.
    #[inline(always)]
    pub(crate) fn tell_kernel(&mut self, token: Token) -> io::Result<()> {
        let Some(connection) = self.conns.get_mut(token) else {
            self.stats.interest_elided += 1;
            return Ok(());
        };
        connection.flags.clear(Flags::CHANGED);
        let Some(change) = connection.watch.change() else {
            self.stats.interest_elided += 1;
            return Ok(());
        };
        self.stats.interest_changes += 1;
        self.registry.change(connection.fd(), token, change)?;
        connection.watch = connection.watch.told();
        Ok(())
    }

    /// The kernel takes a closed descriptor off its list by itself.
    pub(crate) fn forget(&mut self, connection: &Connection<H::Conn>) {
        if connection.flags.has(Flags::CHANGED) {
            self.stats.interest_merged += 1;
        } else {
            self.stats.interest_elided += 1;
        }
    }

    pub(crate) fn is_connecting(&self, token: Token) -> bool {
        let connection = self.conns.get(token);
        connection.is_some_and(|connection| connection.phase() == Phase::Connecting)
    }

    /// Takes a connection a step on in its life, and does what follows for its socket.
    pub(crate) fn advance(&mut self, token: Token, signal: Signal) -> Act {
        let Some(connection) = self.conns.get_mut(token) else {
            return Act::Nothing;
        };
        let act = connection.step(signal);
        match act {
            Act::SayFin => sys::finish_sending(connection.fd()),
            Act::Close => self.closing.push_back((token, connection.drain_reason())),
            Act::Nothing | Act::TellPeerFinished => {}
        }
        act
    }

    /// The handler knows that the peer finished: unless it has ended the connection, what is queued is still sent.
    pub(crate) fn end_after_peer(&mut self, token: Token) {
        let Some(connection) = self.conns.get(token) else {
            return;
        };
        if connection.phase() != Phase::PeerFinished {
            return;
        }
        if connection.queued_bytes() == 0 {
            self.advance(token, Signal::Flushed);
        } else {
            self.close_after_flush(
                token,
                CloseReason::PeerClosed,
                self.options.linger_timeout_ms,
            );
        }
    }

    /// The end of the patience with a draining connection.
    pub(crate) fn drain_timed_out(&mut self, token: Token) {
        let Some(connection) = self.conns.get(token) else {
            return;
        };
        let reason = match connection.queued_bytes() {
            0 => connection.drain_reason(),
            _ => CloseReason::FlushTimeout,
        };
        self.close(token, reason);
    }

    /// Has `drained` called when the queue, which is not empty, comes down to the low mark or is sent on below it.
    pub(crate) fn expect_drained(&mut self, token: Token) {
        if let Some(connection) = self.conns.get_mut(token) {
            connection.flags.set(Flags::ABOVE_LOW);
        }
    }

    /// Sends from the queue what the budget allows. Returns whether the queue came down to the low mark.
    pub(crate) fn flush(&mut self, token: Token, budget: Budget) -> bool {
        let Some(connection) = self.conns.get_mut(token) else {
            return false;
        };
        let Some(mut extra) = connection.extra.take() else {
            return false;
        };
        let share = budget.step(self.stats.bytes_moved());
        let share = share.min(extra.queue.len());
        let result = send_all(connection, &mut self.stats, &extra.queue.front()[..share]);
        if let Ok(count) = result {
            extra.queue.consume(count);
        }
        let queued = extra.queue.len();
        connection.extra = Some(extra);
        let has_more_room = match result {
            Ok(count) => count == share,
            Err(error) => {
                self.close(token, CloseReason::of(error));
                return false;
            }
        };
        let draining = connection.phase().is_draining();
        let drained =
            queued <= self.options.write_low_bytes && connection.flags.take(Flags::ABOVE_LOW);
        let extra = connection.extra.as_mut().filter(|_| drained);
        let resumes = extra.is_some_and(|extra| std::mem::take(&mut extra.paused_by_queue));
        if queued == 0 {
            connection.trim();
            if draining {
                self.advance(token, Signal::Flushed);
                return false;
            }
        } else if has_more_room {
            // No new edge will come either for room that was not used up.
            connection.flags.set(Flags::WRITABLE);
            self.queue_ready(token);
        }
        if resumes {
            self.resume_reading(token);
        }
        drained && !draining
    }

    /// What the handler left of a connection's input, if anything, with what came now behind it.
    #[inline(always)]
    pub(crate) fn join_carry(&mut self, token: Token, fresh: &[u8]) -> Option<Vec<u8>> {
        let connection = self.conns.get_mut(token)?;
        match &connection.extra {
            None => None,
            Some(_) => connection.join_carry(fresh),
        }
    }

    /// Keeps what the handler has not consumed for the next time.
    #[inline(never)]
    pub(crate) fn keep_carry(&mut self, token: Token, mut carry: Vec<u8>, consumed: usize) {
        let Some(connection) = self.conns.get_mut(token) else {
            return;
        };
        carry.drain(..consumed);
        if carry.is_empty() {
            return connection.trim();
        }
        if !connection.phase().presents_input() {
            return;
        }
        if carry.len() > self.options.carry_bytes_max {
            return self.close(token, CloseReason::InputTooLong);
        }
        connection.extra_mut().carry = carry;
    }
}

/// Sends until everything is sent or the socket is full; returns how much was.
#[inline(always)]
pub(crate) fn send_all<C>(
    connection: &Connection<C>,
    stats: &mut Stats,
    bytes: &[u8],
) -> Result<usize, Errno> {
    let mut sent = 0;
    while sent < bytes.len() {
        stats.writes += 1;
        match sys::send(connection.fd(), &bytes[sent..]) {
            Ok(count) => {
                sent += count;
                stats.bytes_out += count as u64;
            }
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
