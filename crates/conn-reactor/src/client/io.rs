//! What a protocol can do: the clients of its shard.

use std::fmt;

use super::clients::{ClientId, Clients, Link, Protocol, Set, Slot, cancel_alarm, set_alarm};
use super::outbound::Refusal;
use super::{Endpoints, QueueError, Reconnector};
use crate::{CloseReason, Io, Token, WriteError};

/// A shard of clients, as its protocol's callbacks see it.
pub struct ClientIo<'a, P: Protocol> {
    pub(super) io: &'a mut Io<Clients<P>>,
    pub(super) set: &'a mut Set<P>,
}

impl<P: Protocol> ClientIo<'_, P> {
    /// A new client; its first try is made after `first_try_in_ms`. `None` when 2^31 clients exist or the shard stops.
    pub fn add(&mut self, state: P::Client, first_try_in_ms: u64) -> Option<ClientId> {
        if self.set.stopping {
            return None;
        }
        let slot = Slot {
            reconnector: Reconnector::new(),
            link: Link::None,
            alarm: None,
            outbound: None,
            resume: None,
            state,
        };
        let client = ClientId(self.set.clients.insert(slot).ok()?);
        let slot = self.set.clients.get_mut(client.0).expect("inserted above");
        set_alarm(self.io, &mut slot.alarm, client, first_try_in_ms);
        Some(client)
    }

    /// Ends a client for good and returns its state: its connection is closed, what its queue holds is dropped, and
    /// no callback names it again. `None` for a stale id.
    pub fn remove(&mut self, client: ClientId) -> Option<P::Client> {
        self.hang_up(client, CloseReason::Local(0));
        let mut slot = self.set.clients.remove(client.0)?;
        cancel_alarm(self.io, &mut slot.alarm);
        Some(slot.state)
    }

    /// Closes a client's connection, if there is one; [`Protocol::lost`] is told `reason`, and the client comes back.
    pub fn hang_up(&mut self, client: ClientId, reason: CloseReason) {
        if let Some(token) = self.token(client) {
            self.io.close(token, reason);
            self.slot(client).expect("it has a token").link = Link::Closing;
        }
    }

    /// The caller's state of a client; `None` for a stale id.
    pub fn state(&mut self, client: ClientId) -> Option<&mut P::Client> {
        Some(&mut self.slot(client)?.state)
    }

    /// The clients of this shard that were not removed. O(slots).
    #[must_use]
    pub fn clients(&self) -> Vec<ClientId> {
        self.set
            .clients
            .tokens()
            .into_iter()
            .map(ClientId)
            .collect()
    }

    /// How many these are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.clients.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a client has a connection that was not told to close.
    #[must_use]
    pub fn is_connected(&self, client: ClientId) -> bool {
        self.token(client).is_some()
    }

    /// Whether a client is connected and its session [`established`](Self::established).
    #[must_use]
    pub fn is_established(&self, client: ClientId) -> bool {
        self.is_connected(client)
            && self
                .set
                .clients
                .get(client.0)
                .is_some_and(|slot| slot.reconnector.is_established())
    }

    /// The endpoint that a client is with, or tries next: its place in [`ClientOptions::endpoints`](super::ClientOptions::endpoints).
    #[must_use]
    pub fn endpoint(&self, client: ClientId) -> Option<usize> {
        Some(self.set.clients.get(client.0)?.reconnector.endpoint())
    }

    /// The endpoints and their breakers.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.set.endpoints
    }

    /// The shard's clock: see [`Io::now_ms`].
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.io.now_ms()
    }

    /// A number that is uniform over all `u64`: good for jitter, not for secrets.
    pub fn random(&mut self) -> u64 {
        self.set.random.next_u64()
    }

    /// The peer has welcomed the session: tries begin from the shortest pause again once it has lasted
    /// [`Reconnect::stable_ms`](super::Reconnect::stable_ms), the breaker hears of a success, and the queue begins to flow. What the peer says that
    /// it has already, [`acknowledge`](Self::acknowledge) first. Said again, it changes nothing.
    pub fn established(&mut self, client: ClientId) {
        if !self.is_connected(client) || self.is_established(client) {
            return;
        }
        let now_ms = self.io.now_ms();
        let Some(slot) = self.set.clients.get_mut(client.0) else {
            return;
        };
        slot.reconnector
            .established(&mut self.set.endpoints, now_ms);
        cancel_alarm(self.io, &mut slot.alarm);
        self.pump(client);
    }

    /// The peer works, though it does not welcome this client: see [`Reconnector::answered`].
    pub fn answered(&mut self, client: ClientId) {
        let now_ms = self.io.now_ms();
        if let Some(slot) = self.set.clients.get_mut(client.0) {
            slot.reconnector.answered(&mut self.set.endpoints, now_ms);
        }
    }

    /// The place that the server gave this client for its next return: see [`Reconnector::assign_slot`].
    pub fn assign_slot(&mut self, client: ClientId, slot_ms: u32) {
        if let Some(slot) = self.slot(client) {
            slot.reconnector.assign_slot(slot_ms);
        }
    }

    /// The server parted from this client alone: see [`Reconnector::forget_slot`].
    pub fn forget_slot(&mut self, client: ClientId) {
        if let Some(slot) = self.slot(client) {
            slot.reconnector.forget_slot();
        }
    }

    /// The window that the server asked this client to return in: see [`Reconnector::return_within`].
    pub fn return_within(&mut self, client: ClientId, window_ms: u32) {
        let random = self.set.random.next_u64();
        if let Some(slot) = self.slot(client) {
            slot.reconnector.return_within(window_ms, random);
        }
    }

    /// Keeps what the peer gave to take this session up with, or forgets it; it outlives connections.
    pub fn set_resume(&mut self, client: ClientId, resume: Option<P::Resume>) {
        if let Some(slot) = self.slot(client) {
            slot.resume = resume;
        }
    }

    /// What the last session left to be taken up with.
    #[must_use]
    pub fn resume(&self, client: ClientId) -> Option<&P::Resume> {
        self.set.clients.get(client.0)?.resume.as_ref()
    }

    /// Calls [`Protocol::alarm`] at least `delay_ms` from now, instead of when it was asked to before. A session's
    /// alarm ends with its connection. `false`: the session is not established, and nothing was set.
    pub fn set_alarm(&mut self, client: ClientId, delay_ms: u64) -> bool {
        let is_established = self.is_established(client);
        if is_established && let Some(slot) = self.set.clients.get_mut(client.0) {
            set_alarm(self.io, &mut slot.alarm, client, delay_ms);
        }
        is_established
    }

    /// Writes to the client's connection, past its queue: for what means nothing to the next connection. As
    /// [`Io::write`], all or nothing.
    ///
    /// # Errors
    /// As [`Io::write`]; [`WriteError::is_stale`] also when there is no connection.
    pub fn write(&mut self, client: ClientId, bytes: &[u8]) -> Result<(), WriteError> {
        match self.token(client) {
            Some(token) => self.io.write(token, bytes),
            None => Err(WriteError::STALE),
        }
    }

    /// Puts a frame into the client's queue and sends it when its turn comes, on as many connections as it takes until
    /// the peer acknowledges it: see [`Outbound`](super::Outbound). `encode` appends the frame to the buffer it is given; the number that
    /// the peer tells repeats by has to be in it. The frame has to mean the same on every connection.
    ///
    /// # Errors
    /// [`QueueError::is_full`], [`QueueError::is_too_long`], [`QueueError::is_stale`]: nothing was taken.
    pub fn send(
        &mut self,
        client: ClientId,
        encode: impl FnOnce(u64, &mut Vec<u8>),
    ) -> Result<u64, QueueError> {
        let limits = self.set.options.outbound;
        let frame_max = self.io.options.write_bytes_max.min(limits.bytes_max);
        let set = &mut *self.set;
        let Some(slot) = set.clients.get_mut(client.0) else {
            return Err(QueueError(Refusal::NoClient));
        };
        let outbound = slot.outbound.get_or_insert_default();
        set.out.clear();
        encode(outbound.next_number(), &mut set.out);
        if set.out.len() > frame_max {
            return Err(QueueError(Refusal::TooLong));
        }
        let number = outbound.push(limits, &set.out)?;
        self.pump(client);
        Ok(number)
    }

    /// The peer has every frame of the client's queue up to and including this number.
    ///
    /// # Errors
    /// [`QueueError::is_ahead`]: it was never sent that frame; hang up. [`QueueError::is_stale`].
    pub fn acknowledge(&mut self, client: ClientId, through: u64) -> Result<(), QueueError> {
        let Some(slot) = self.slot(client) else {
            return Err(QueueError(Refusal::NoClient));
        };
        match &mut slot.outbound {
            Some(outbound) => outbound.acknowledge(through).map(drop),
            None if through == 0 => Ok(()),
            None => Err(QueueError(Refusal::Ahead)),
        }
    }

    /// Frames that wait in the client's queue for their acknowledgement.
    #[must_use]
    pub fn unacknowledged(&self, client: ClientId) -> usize {
        let slot = self.set.clients.get(client.0);
        let outbound = slot.and_then(|slot| slot.outbound.as_ref());
        outbound.map_or(0, |outbound| outbound.len())
    }

    /// Ends the shard in peace: no new connection; those that stand send what is queued, say FIN and wait for the
    /// peer's, `timeout_ms` at most. What their peers say meanwhile is thrown away. The shard stops behind the last one.
    pub fn stop(&mut self, timeout_ms: u64) {
        self.set.stopping = true;
        for client in self.clients() {
            if let Some(token) = self.token(client) {
                self.io
                    .close_after_flush(token, CloseReason::Shutdown, timeout_ms);
                self.slot(client).expect("it has a token").link = Link::Closing;
            }
        }
        if self.set.links == 0 {
            self.io.stop();
        }
    }

    /// Gives the connection as much of the queue as it takes now.
    pub(super) fn pump(&mut self, client: ClientId) {
        /// Frames are joined up to this: one call of the kernel for many small ones.
        const JOINED_BYTES: usize = 64 * 1024;
        let Some(token) = self.token(client) else {
            return;
        };
        let set = &mut *self.set;
        let Some(slot) = set.clients.get_mut(client.0) else {
            return;
        };
        let Some(outbound) = slot
            .outbound
            .as_mut()
            .filter(|_| slot.reconnector.is_established())
        else {
            return;
        };
        // Above the mark `drained` comes back here when there is room.
        loop {
            let queued = self.io.queued_bytes(token);
            if queued > self.io.options.write_low_bytes {
                return;
            }
            let room = self.io.options.write_bytes_max.saturating_sub(queued);
            set.out.clear();
            let mut count = 0;
            for frame in outbound.to_send() {
                if count > 0 && set.out.len() + frame.len() > room.min(JOINED_BYTES) {
                    break;
                }
                set.out.extend_from_slice(frame);
                count += 1;
            }
            if set.out.len() > room {
                // It waits behind bytes that are queued. (An empty connection has room for any frame.)
                return self.io.expect_drained(token);
            }
            if count == 0 || self.io.write(token, &set.out).is_err() {
                return;
            }
            outbound.sent(count);
        }
    }

    fn slot(&mut self, client: ClientId) -> Option<&mut Slot<P>> {
        self.set.clients.get_mut(client.0)
    }

    fn token(&self, client: ClientId) -> Option<Token> {
        match self.set.clients.get(client.0)?.link {
            Link::Open(token) => Some(token),
            Link::None | Link::Connecting | Link::Closing => None,
        }
    }
}

impl<P: Protocol> fmt::Debug for ClientIo<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIo")
            .field("io", &self.io)
            .finish_non_exhaustive()
    }
}
