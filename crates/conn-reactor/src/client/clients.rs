//! Many clients on one shard: [`Reconnector`] and [`Outbound`] joined to a reactor's sockets and timers.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;

use super::outbound::Refusal;
use super::{Attempt, Endpoints, Outbound, OutboundLimits, QueueError, Reconnect, Reconnector};
use crate::slab::Slab;
use crate::{CloseReason, Handler, Io, Opened, TimerKey, Token, WriteError};

/// What the clients of a shard say: one value per shard, used on that shard's thread only.
///
/// A client's session begins with [`connected`](Self::connected), where it greets the peer; when the peer has answered
/// the protocol calls [`ClientIo::established`]. Every try ends in exactly one [`lost`](Self::lost), unless the client
/// is removed first, and the next try follows by itself.
pub trait Protocol: Sized + Send + 'static {
    /// The caller's state of one client; it outlives connections.
    type Client: Send + 'static;
    /// What the peer gives a session so that a later connection can take it up.
    type Resume: Send + 'static;
    /// What other threads send to this shard.
    type Message: Send + 'static;

    /// The shard's loop begins: the first callback, and the place to [`add`](ClientIo::add) clients that are known by
    /// then. Does nothing by default.
    fn started(&mut self, io: &mut ClientIo<'_, Self>) {
        let _ = io;
    }

    /// A connection stands: greet the peer.
    fn connected(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId);

    /// Bytes arrived. Returns how many of them, from the front, were consumed; the rest comes again in front of the
    /// next bytes. After [`hang_up`](ClientIo::hang_up) or [`remove`](ClientIo::remove) nothing more is asked for,
    /// so stop there.
    fn data(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId, input: &[u8]) -> usize;

    /// A try failed, or the connection is gone.
    fn lost(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId, loss: Loss);

    /// The time that [`ClientIo::set_alarm`] asked for is over. Does nothing by default.
    fn alarm(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId) {
        let _ = (io, client);
    }

    /// A message from another thread.
    fn message(&mut self, io: &mut ClientIo<'_, Self>, message: Self::Message);

    /// A batch of events, messages and timers is done. Does nothing by default.
    fn turn_ended(&mut self, io: &mut ClientIo<'_, Self>) {
        let _ = io;
    }
}

/// The end of a try or of a session.
#[derive(Debug)]
pub struct Loss {
    /// What happened.
    pub why: Why,
    /// Whether the session had been [`established`](ClientIo::established).
    pub was_established: bool,
    /// The pause before the next try; `None` when there is none because the shard stops.
    pub retry_in_ms: Option<u64>,
}

/// Why a try or a session ended.
#[derive(Debug)]
pub enum Why {
    /// There was no connection.
    Connect(io::Error),
    /// The connection closed.
    Closed(CloseReason),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Closed(reason) => reason.fmt(f),
        }
    }
}

/// Names a client of one shard. Stale once the client was removed: then it names nothing, never another client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Token);

impl ClientId {
    /// A number from 0 that no other client of the shard has at the same time; small, used again after a removal.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.slot() as usize
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({}.{})", self.0.slot(), self.0.generation())
    }
}

/// What the clients of a shard have in common.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where to connect to, the preferred address first.
    pub endpoints: Vec<SocketAddr>,
    /// The local address of connections; `None` leaves it to the kernel.
    pub bind: Option<SocketAddr>,
    /// How to come back.
    pub reconnect: Reconnect,
    /// A peer that has not welcomed the session by then is given up. Default 10,000.
    pub establish_within_ms: u64,
    /// The limits of each client's queue.
    pub outbound: OutboundLimits,
}

impl ClientOptions {
    /// The defaults, for one endpoint.
    #[must_use]
    pub fn new(endpoint: SocketAddr) -> Self {
        Self {
            endpoints: vec![endpoint],
            bind: None,
            reconnect: Reconnect::default(),
            establish_within_ms: 10_000,
            outbound: OutboundLimits::default(),
        }
    }
}

/// A [`Handler`] that keeps clients connected and lets a [`Protocol`] speak for them.
///
/// It accepts nothing: give its reactor no listeners.
pub struct Clients<P: Protocol> {
    protocol: P,
    set: Set<P>,
}

struct Set<P: Protocol> {
    clients: Slab<Slot<P>>,
    endpoints: Endpoints,
    options: ClientOptions,
    random: Random,
    /// Frames joined for one write.
    out: Vec<u8>,
    /// Connections that stand or close.
    links: usize,
    stopping: bool,
}

struct Slot<P: Protocol> {
    reconnector: Reconnector,
    link: Link,
    /// Waiting: the next try. Greeting: the end of the patience. Established: the protocol's.
    alarm: Option<TimerKey>,
    /// Made by the first frame, and kept for its numbers.
    outbound: Option<Box<Outbound>>,
    resume: Option<P::Resume>,
    state: P::Client,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    None,
    Connecting,
    Open(Token),
    /// Told to close.
    Closing,
}

/// A shard of clients, as its protocol's callbacks see it.
pub struct ClientIo<'a, P: Protocol> {
    io: &'a mut Io<Clients<P>>,
    set: &'a mut Set<P>,
}

impl<P: Protocol> Clients<P> {
    /// No clients yet; the protocol adds them.
    ///
    /// # Panics
    /// When there is no endpoint.
    #[must_use]
    pub fn new(protocol: P, options: ClientOptions) -> Self {
        let endpoints = Endpoints::new(&options.endpoints, options.reconnect.clone());
        let set = Set {
            clients: Slab::new(),
            endpoints,
            options,
            random: Random::new(),
            out: Vec::new(),
            links: 0,
            stopping: false,
        };
        Self { protocol, set }
    }

    /// The protocol, for instance after the shard has ended.
    #[must_use]
    pub fn into_protocol(self) -> P {
        self.protocol
    }

    fn parts<'a>(&'a mut self, io: &'a mut Io<Self>) -> (&'a mut P, ClientIo<'a, P>) {
        let set = &mut self.set;
        (&mut self.protocol, ClientIo { io, set })
    }

    fn attempt(&mut self, io: &mut Io<Self>, client: ClientId) {
        let random = self.set.random.next();
        let set = &mut self.set;
        let Some(slot) = set.clients.get_mut(client.0) else {
            return;
        };
        let attempt = slot
            .reconnector
            .attempt(&mut set.endpoints, io.now_ms(), random);
        match attempt {
            Attempt::Wait { delay_ms } => set_alarm(io, &mut slot.alarm, client, delay_ms),
            Attempt::Connect(addr) => match io.connect(addr, set.options.bind, client.0.as_u64()) {
                Ok(()) => slot.link = Link::Connecting,
                Err(error) => {
                    let random = set.random.next();
                    let delay_ms = slot.reconnector.not_tried(&mut set.endpoints, random);
                    self.come_back(io, client, Why::Connect(error), false, delay_ms);
                }
            },
        }
    }

    /// The try or the session is over.
    fn lose(&mut self, io: &mut Io<Self>, client: ClientId, why: Why) {
        let random = self.set.random.next();
        let set = &mut self.set;
        let Some(slot) = set.clients.get_mut(client.0) else {
            return;
        };
        let was_established = slot.reconnector.is_established();
        let delay_ms = slot
            .reconnector
            .lost(&mut set.endpoints, io.now_ms(), random);
        self.come_back(io, client, why, was_established, delay_ms);
    }

    fn come_back(
        &mut self,
        io: &mut Io<Self>,
        client: ClientId,
        why: Why,
        was_established: bool,
        delay_ms: u64,
    ) {
        let Some(slot) = self.set.clients.get_mut(client.0) else {
            return;
        };
        slot.link = Link::None;
        if let Some(outbound) = &mut slot.outbound {
            outbound.rewind();
        }
        let retry_in_ms = (!self.set.stopping).then_some(delay_ms);
        match retry_in_ms {
            Some(delay_ms) => set_alarm(io, &mut slot.alarm, client, delay_ms),
            None => cancel_alarm(io, &mut slot.alarm),
        }
        let loss = Loss {
            why,
            was_established,
            retry_in_ms,
        };
        let (protocol, mut io) = self.parts(io);
        protocol.lost(&mut io, client, loss);
    }
}

impl<P: Protocol> Handler for Clients<P> {
    type Conn = ClientId;
    type Timer = ClientId;
    type Message = P::Message;

    fn started(&mut self, io: &mut Io<Self>) {
        let (protocol, mut io) = self.parts(io);
        protocol.started(&mut io);
    }

    fn opened(&mut self, io: &mut Io<Self>, token: Token, opened: Opened) -> Option<ClientId> {
        let Opened::Connected { tag, .. } = opened else {
            return None;
        };
        let client = ClientId(Token::from_u64(tag));
        if self.set.stopping {
            self.lose(io, client, Why::Closed(CloseReason::Shutdown));
            return None;
        }
        // `None`: removed while it connected.
        let slot = self.set.clients.get_mut(client.0)?;
        self.set.links += 1;
        slot.link = Link::Open(token);
        set_alarm(
            io,
            &mut slot.alarm,
            client,
            self.set.options.establish_within_ms,
        );
        let (protocol, mut io) = self.parts(io);
        protocol.connected(&mut io, client);
        Some(client)
    }

    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        let Some(&mut client) = io.state(token) else {
            return input.len();
        };
        let (protocol, mut io) = self.parts(io);
        if !io.is_connected(client) {
            return input.len();
        }
        protocol.data(&mut io, client, input)
    }

    fn closed(&mut self, io: &mut Io<Self>, _: Token, client: ClientId, reason: CloseReason) {
        self.set.links -= 1;
        self.lose(io, client, Why::Closed(reason));
        if self.set.stopping && self.set.links == 0 {
            io.stop();
        }
    }

    fn connect_failed(&mut self, io: &mut Io<Self>, tag: u64, error: io::Error) {
        self.lose(io, ClientId(Token::from_u64(tag)), Why::Connect(error));
    }

    fn timer(&mut self, io: &mut Io<Self>, _: TimerKey, client: ClientId) {
        let Some(slot) = self.set.clients.get_mut(client.0) else {
            return;
        };
        slot.alarm = None;
        match slot.link {
            Link::None => self.attempt(io, client),
            Link::Open(token) if !slot.reconnector.is_established() => {
                io.close(token, CloseReason::TimedOut);
            }
            Link::Open(_) => {
                let (protocol, mut io) = self.parts(io);
                protocol.alarm(&mut io, client);
            }
            Link::Connecting | Link::Closing => {}
        }
    }

    fn message(&mut self, io: &mut Io<Self>, message: P::Message) {
        let (protocol, mut io) = self.parts(io);
        protocol.message(&mut io, message);
    }

    fn drained(&mut self, io: &mut Io<Self>, token: Token) {
        if let Some(&mut client) = io.state(token) {
            let set = &mut self.set;
            ClientIo { io, set }.pump(client);
        }
    }

    fn turn_ended(&mut self, io: &mut Io<Self>) {
        let (protocol, mut client_io) = self.parts(io);
        protocol.turn_ended(&mut client_io);
        self.set.clients.release();
    }
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

    /// The endpoint that a client is with, or tries next: its place in [`ClientOptions::endpoints`].
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
        self.set.random.next()
    }

    /// The peer has welcomed the session: tries begin from the shortest pause again once it has lasted
    /// [`Reconnect::stable_ms`], the breaker hears of a success, and the queue begins to flow. What the peer says that
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

    /// The window that the server asked this client to return in: see [`Reconnector::return_within`].
    pub fn return_within(&mut self, client: ClientId, window_ms: u32) {
        let random = self.set.random.next();
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
    /// the peer acknowledges it: see [`Outbound`]. `encode` appends the frame to the buffer it is given; the number that
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
    fn pump(&mut self, client: ClientId) {
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
            // A frame without room waits behind bytes that are queued; an empty connection has room for any.
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

fn set_alarm<P: Protocol>(
    io: &mut Io<Clients<P>>,
    alarm: &mut Option<TimerKey>,
    client: ClientId,
    delay_ms: u64,
) {
    let deadline_ms = io.deadline_after(delay_ms);
    cancel_alarm(io, alarm);
    *alarm = Some(io.set_timer(deadline_ms, client));
}

fn cancel_alarm<P: Protocol>(io: &mut Io<Clients<P>>, alarm: &mut Option<TimerKey>) {
    if let Some(key) = alarm.take() {
        io.cancel_timer(key);
    }
}

impl<P: Protocol> fmt::Debug for Clients<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("clients", &self.set.clients.len())
            .field("connections", &self.set.links)
            .finish_non_exhaustive()
    }
}

impl<P: Protocol> fmt::Debug for ClientIo<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIo")
            .field("io", &self.io)
            .finish_non_exhaustive()
    }
}

/// Jitter (splitmix64, Steele et al. 2014), seeded by the system.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0u64))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
